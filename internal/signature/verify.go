package signature

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Tolerance is how far the two clocks may be apart, either way.
const Tolerance = 5 * time.Minute

// MaxSignatures is the most that one header may carry: each costs a verification.
const MaxSignatures = 8

const maxIDBytes = 256

// Reasons to refuse. They say nothing about which keys are known.
var (
	ErrMissing      = errors.New("missing webhook-id, webhook-timestamp or webhook-signature")
	ErrBadID        = errors.New("malformed webhook-id")
	ErrBadTimestamp = errors.New("malformed webhook-timestamp")
	ErrTooMany      = errors.New("too many signatures")
	ErrNoMatch      = errors.New("no matching signature")
)

// A StaleError refuses a request whose timestamp is more than Tolerance away from the verifier's clock.
type StaleError struct {
	Theirs, Ours time.Time
}

func (e *StaleError) Error() string {
	return fmt.Sprintf("timestamp %s is more than %s away from this clock, %s",
		e.Theirs.UTC().Format(time.RFC3339), Tolerance, e.Ours.UTC().Format(time.RFC3339))
}

// A Key is what Verify checks against: a PublicKey or a Secret.
type Key interface {
	verifies(c *signed, v version, sig []byte) bool
}

// PublicKeys returns keys as Verify takes them.
func PublicKeys(keys []PublicKey) []Key {
	out := make([]Key, len(keys))
	for i, k := range keys {
		out[i] = k
	}
	return out
}

type version byte

const (
	v1  version = iota // HMAC-SHA256
	v1a                // Ed25519
)

// Verify reports nil if any signature of h over `id.timestamp.body` was made by any of keys, and the timestamp is
// within Tolerance of now. Cheap checks come first. Errors: ErrMissing, ErrBadID (an id has 1 to 256 visible ASCII
// characters other than the full stop, which separates), ErrBadTimestamp, ErrTooMany, *StaleError, ErrNoMatch.
//
// Signatures of unknown versions are skipped. Without keys the answer is ErrNoMatch, at about the cost of a wrong
// signature, so that timing does not tell who is known.
func Verify(h Headers, body []byte, now time.Time, keys []Key) error {
	if h.ID == "" || h.Timestamp == "" || strings.Trim(h.Signature, " ") == "" {
		return ErrMissing
	}
	if !validID(h.ID) {
		return ErrBadID
	}
	at, ok := parseTimestamp(h.Timestamp)
	if !ok {
		return ErrBadTimestamp
	}
	if strings.Count(h.Signature, " ") >= MaxSignatures {
		return ErrTooMany
	}
	if apart := now.Unix() - at.Unix(); apart > int64(Tolerance/time.Second) || apart < -int64(Tolerance/time.Second) {
		return &StaleError{Theirs: at, Ours: now}
	}
	known := len(keys) > 0
	if !known {
		keys = []Key{decoy()}
	}
	c := signed{id: h.ID, timestamp: h.Timestamp, body: body}
	if !c.verifiedByAny(h.Signature, keys) || !known {
		return ErrNoMatch
	}
	return nil
}

func (c *signed) verifiedByAny(header string, keys []Key) bool {
	for token := range strings.SplitSeq(header, " ") {
		v, sig, ok := parseSignature(token)
		if !ok {
			continue
		}
		for _, k := range keys {
			if k != nil && k.verifies(c, v, sig) {
				return true
			}
		}
	}
	return false
}

// parseSignature reads one `version,base64`. It reports false for what can never match: unknown versions and any
// length but the right one.
func parseSignature(token string) (version, []byte, bool) {
	name, value, ok := strings.Cut(token, ",")
	if !ok {
		return 0, nil, false
	}
	var v version
	var size int
	switch name {
	case "v1":
		v, size = v1, sha256.Size
	case "v1a":
		v, size = v1a, ed25519.SignatureSize
	default:
		return 0, nil, false
	}
	if len(value) != (size+2)/3*4 {
		return 0, nil, false
	}
	sig, err := decodeBase64(value)
	return v, sig, err == nil && len(sig) == size
}

func validID(id string) bool {
	if len(id) > maxIDBytes {
		return false
	}
	for i := range len(id) {
		if id[i] <= ' ' || id[i] >= 0x7f || id[i] == '.' {
			return false
		}
	}
	return true
}

// decoy is a key to spend time on where there is none: the base point of the curve. What it verifies is refused.
func decoy() PublicKey {
	var k PublicKey
	for i := range k.raw {
		k.raw[i] = 0x66
	}
	k.raw[0] = 0x58
	return k
}
