package event

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"log/slog"
	"strings"
)

// Limits of one event and of a batch of them. Bytes are counted as stored.
const (
	MaxIDBytes         = 256
	MaxTypeBytes       = 128
	MaxKeyBytes        = 256
	MaxAttributesBytes = 32 << 10  // everything but the data
	MaxEventBytes      = 1_000_000 // attributes and data
	MaxDepth           = 128       // open braces and brackets, the envelope's own among them
	MaxBatchEvents     = 1000
	MaxBatchBytes      = 2_000_000 // attributes and data of all events of a batch
)

// An Event is what an app published. It never changes once FillIn has completed it.
type Event struct {
	ID        string // 1 to MaxIDBytes printable ASCII bytes; "" before FillIn
	Type      string // such as "order.created"
	Version   string // of the type's data, such as "1.0"; "" before FillIn
	Timestamp string // RFC 3339, as it came; "" before FillIn
	Source    string // the service that it is from; "" before FillIn
	Key       string // events of one source and key stay in order; "" means none

	Subject         string // "" means none
	DataSchema      string // "" means none
	DataContentType string // "" means JSON

	Metadata []byte // JSON object as it came, correlationId in it; nil means none
	Extra    []byte // unknown members as they came: `"name":value,"name":value`; nil means none
	Data     []byte // JSON text, or any bytes if Binary
}

// LogValue is what a log may say of an event: never its data.
func (e Event) LogValue() slog.Value {
	return slog.GroupValue(slog.String("id", e.ID), slog.String("type", e.Type), slog.Int("bytes", len(e.Data)))
}

// A Digest is the SHA-256 of an event's content.
type Digest [sha256.Size]byte

// Digest returns the digest of the event's content: type, version, key and data, each preceded by its length.
// Timestamp and metadata do not count, since an honest retry is made later and in another trace.
// FillIn comes first, because it sets the version.
func (e *Event) Digest() Digest {
	var fixed [MaxTypeBytes + MaxKeyBytes + 64]byte // enough for a valid event; append finds room for any other
	head := fixed[:0]
	for _, s := range [...]string{e.Type, e.Version, e.Key} {
		head = binary.AppendUvarint(head, uint64(len(s)))
		head = append(head, s...)
	}
	head = binary.AppendUvarint(head, uint64(len(e.Data)))
	h := sha256.New()
	h.Write(head)
	h.Write(e.Data)
	var d Digest
	h.Sum(d[:0])
	return d
}

// Binary reports whether Data is raw bytes rather than JSON text: whether a content type is given that is not JSON.
func (e *Event) Binary() bool { return e.DataContentType != "" && !isJSON(e.DataContentType) }

// isJSON reports whether a media type, whatever its parameters, is one of JSON.
func isJSON(contentType string) bool {
	t, _, _ := strings.Cut(contentType, ";")
	t = strings.TrimRight(t, " \t")
	const suffix = "+json"
	return strings.EqualFold(t, "application/json") || strings.EqualFold(t, "text/json") ||
		len(t) > len(suffix) && strings.EqualFold(t[len(t)-len(suffix):], suffix)
}

// WebhookID returns what the webhook-id header says for an event: its id, if that is safe there as it is, else a hash
// of source and id.
func WebhookID(source, id string) string {
	if len(id) >= 1 && len(id) <= 128 && !strings.ContainsFunc(id, func(r rune) bool { return !isWord(r) }) {
		return id
	}
	sum := pairSum(source, id)
	return "h_" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// isWord reports whether r is one of [A-Za-z0-9_-].
func isWord(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '_' || r == '-'
}

// KeyHash returns a number for the key of a source: the first 8 bytes of SHA-256(source ‖ 0 ‖ key). It is 0 if key is "".
func KeyHash(source, key string) uint64 {
	if key == "" {
		return 0
	}
	sum := pairSum(source, key)
	return binary.BigEndian.Uint64(sum[:])
}

// Hash returns what an event is known by in the records of both sides: the first half of SHA-256(source ‖ 0 ‖ id).
func Hash(source, id string) [16]byte {
	sum := pairSum(source, id)
	return [16]byte(sum[:16])
}

// pairSum hashes two strings with a zero byte between them, which a source never contains.
func pairSum(source, s string) [sha256.Size]byte {
	var fixed [maxSourceBytes + 1 + MaxIDBytes]byte
	b := append(fixed[:0], source...)
	b = append(b, 0)
	b = append(b, s...)
	return sha256.Sum256(b)
}
