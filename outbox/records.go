package outbox

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/event"
)

const (
	prefixSubscriber = 'c'
	prefixEvent      = 'e'
	prefixID         = 'i'
	prefixAside      = 's'

	recordVersion = 1
)

var errRecord = errors.New("record is not readable")

func eventKey(seq uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{prefixEvent}, seq)
}

func eventSeq(key []byte) uint64 {
	return binary.BigEndian.Uint64(key[1:])
}

func subscriberKey(service string) []byte {
	return append([]byte{prefixSubscriber}, service...)
}

// totalsKey names the record of the log's own totals: it sorts before every subscriber, whose names are not empty.
func totalsKey() []byte { return []byte{prefixSubscriber} }

func asideKey(service string, seq uint64) []byte {
	h := sha256.Sum256([]byte(service))
	return binary.BigEndian.AppendUint64(append([]byte{prefixAside}, h[:8]...), seq)
}

func asideSeq(key []byte) uint64 {
	return binary.BigEndian.Uint64(key[9:])
}

// An entry is one event of the log, as it is kept in memory. It never changes and is shared.
type entry struct {
	seq        uint64
	acceptedAt int64 // Unix ms
	digest     event.Digest
	attributes []byte
	data       []byte

	typ, version string
	key          uint64 // key hash; 0: no key
	route        uint64 // hash of source and key, or of source and id
}

func (e *entry) size() int { return len(e.attributes) + len(e.data) }

// describe sets what routing and matching need from the event's own members.
func (e *entry) describe(ev *event.Event) {
	e.typ, e.version = ev.Type, ev.Version
	e.key = event.KeyHash(ev.Source, ev.Key)
	e.route = e.key
	if e.route == 0 {
		h := event.Hash(ev.Source, ev.ID)
		e.route = binary.BigEndian.Uint64(h[:8])
	}
}

// headroom is left before an event's record for its version and the moment of acceptance, which are known last.
const headroom = 1 + binary.MaxVarintLen64

// newEventRecord returns the part of an event's record that is known before it is accepted, headroom before it, and the entry
// whose slices lie in it.
func newEventRecord(ev *event.Event) ([]byte, *entry) {
	e := &entry{digest: ev.Digest()}
	e.describe(ev)
	buf := make([]byte, headroom, headroom+len(e.digest)+4+256+len(ev.ID)+len(ev.Metadata)+len(ev.Extra)+len(ev.Data))
	buf = append(buf, e.digest[:]...)
	buf, e.attributes, e.data = appendBody(buf, ev)
	return buf, e
}

// appendBody appends uvarint length of the attributes, attributes, data, and returns where the two lie.
func appendBody(buf []byte, ev *event.Event) (out, attributes, data []byte) {
	at := len(buf)
	buf = append(buf, 0, 0, 0) // attributes are at most 32 KiB: three bytes of uvarint hold their length
	from := len(buf)
	buf = ev.AppendAttributes(buf)
	n := len(buf) - from
	buf[at], buf[at+1], buf[at+2] = byte(n)|0x80, byte(n>>7)|0x80, byte(n>>14)
	mid := len(buf)
	buf = append(buf, ev.Data...)
	return buf, buf[from:mid:mid], buf[mid:]
}

// sealEventRecord writes version and time into the headroom and returns the record. It may be called again.
func sealEventRecord(buf []byte, acceptedAt int64) []byte {
	var head [headroom]byte
	head[0] = recordVersion
	n := 1 + binary.PutUvarint(head[1:], uint64(acceptedAt))
	copy(buf[headroom-n:], head[:n])
	return buf[headroom-n:]
}

// readEventRecord returns the entry of a record; its slices alias val.
func readEventRecord(seq uint64, val []byte) (*entry, error) {
	if len(val) == 0 || val[0] != recordVersion {
		return nil, fmt.Errorf("event %d: %w", seq, errRecord)
	}
	at, n := binary.Uvarint(val[1:])
	if n <= 0 {
		return nil, fmt.Errorf("event %d: %w", seq, errRecord)
	}
	e := &entry{seq: seq, acceptedAt: int64(at)}
	if err := e.readBody(val[1+n:]); err != nil {
		return nil, fmt.Errorf("event %d: %w", seq, err)
	}
	ev, err := event.ParseAttributes(e.attributes)
	if err != nil {
		return nil, fmt.Errorf("event %d: %w", seq, err)
	}
	e.describe(&ev)
	return e, nil
}

// readBody reads digest, uvarint length of the attributes, attributes, data.
func (e *entry) readBody(b []byte) error {
	if len(b) < len(e.digest) {
		return errRecord
	}
	copy(e.digest[:], b)
	b = b[len(e.digest):]
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return errRecord
	}
	b = b[n:]
	e.attributes, e.data = b[:size:size], b[size:]
	return nil
}

// appendEntryBody appends what readBody reads.
func appendEntryBody(dst []byte, e *entry) []byte {
	dst = append(dst, e.digest[:]...)
	dst = binary.AppendUvarint(dst, uint64(len(e.attributes)))
	dst = append(dst, e.attributes...)
	return append(dst, e.data...)
}

// asideRecord is what is durable of an event that was set aside.
type asideRecord struct {
	Reason     string `json:"reason"`
	Key        uint64 `json:"key,omitempty"`
	Route      uint64 `json:"route"`
	Type       string `json:"type"`
	Version    string `json:"version"`
	Size       int    `json:"size"`
	AcceptedAt int64  `json:"acceptedAt"`
	Attempts   int    `json:"attempts,omitempty"`
	Letter     string `json:"letter,omitempty"` // the dead letter that is replayed by it
}

// appendAside returns the record of a set-aside event; own is its copy of the bytes, nil while the log holds them.
func appendAside(r asideRecord, own *entry) []byte {
	text, err := json.Marshal(r)
	if err != nil {
		panic(err) // strings and numbers only
	}
	dst := binary.AppendUvarint([]byte{recordVersion}, uint64(len(text)))
	dst = append(dst, text...)
	if own != nil {
		dst = appendEntryBody(dst, own)
	}
	return dst
}

// readAside returns the record and its own copy of the event, nil if it has none; the copy's slices alias val.
func readAside(seq uint64, val []byte) (r asideRecord, own *entry, err error) {
	if len(val) == 0 || val[0] != recordVersion {
		return r, nil, fmt.Errorf("set-aside event %d: %w", seq, errRecord)
	}
	size, n := binary.Uvarint(val[1:])
	if n <= 0 || size > uint64(len(val)-1-n) {
		return r, nil, fmt.Errorf("set-aside event %d: %w", seq, errRecord)
	}
	text, rest := val[1+n:][:size], val[1+n+int(size):]
	if err := json.Unmarshal(text, &r); err != nil {
		return r, nil, fmt.Errorf("set-aside event %d: %w", seq, err)
	}
	if len(rest) == 0 {
		return r, nil, nil
	}
	own = &entry{seq: seq, acceptedAt: r.AcceptedAt, typ: r.Type, version: r.Version, key: r.Key, route: r.Route}
	if err := own.readBody(rest); err != nil {
		return r, nil, fmt.Errorf("set-aside event %d: %w", seq, err)
	}
	return r, own, nil
}

// subscriberRecord is what is durable of one subscriber.
type subscriberRecord struct {
	Service   string                    `json:"service"`
	CreatedAt time.Time                 `json:"createdAt"`
	Start     uint64                    `json:"start"` // first seq that was looked at
	Spans     []span                    `json:"spans"`
	Backfill  *backfill                 `json:"backfill,omitempty"`
	Cursor    uint64                    `json:"cursor"`
	Settled   [][2]uint64               `json:"settled,omitempty"` // above the cursor: settled or set aside, both ends inclusive
	Counts    Settled                   `json:"counts"`
	Instances map[string]instanceRecord `json:"instances,omitempty"`
	Paused    bool                      `json:"paused,omitempty"`
	Log       string                    `json:"log"` // store id of this side: what instances say counts in its seqs
	Set       uint64                    `json:"set,omitempty"`
	Mixed     uint64                    `json:"mixed,omitempty"`
	Gone      uint64                    `json:"gone,omitempty"`

	Spread        *spread  `json:"spread,omitempty"` // the instances that keys go to
	FormerSpreads []spread `json:"formerSpreads,omitempty"`
	Overtaken     uint64   `json:"overtaken,omitempty"` // keys that went on without an instance that is lost
}

// in returns r for the log with that id. What instances have said of another log says nothing of this one.
func (r subscriberRecord) in(log string) subscriberRecord {
	if r.Log == log {
		return r
	}
	instances := make(map[string]instanceRecord, len(r.Instances))
	for name, said := range r.Instances {
		instances[name] = instanceRecord{StoreID: said.StoreID, Stray: said.Stray, Former: said.Former}
	}
	r.Log, r.Instances, r.FormerSpreads = log, instances, nil
	return r
}

// instanceRecord is what one instance has said of itself in its last answer, and what is known of its stores.
type instanceRecord struct {
	StoreID  string   `json:"storeId"`
	Applied  uint64   `json:"applied"`
	OpenKeys []uint64 `json:"openKeys,omitempty"`
	OpenAll  bool     `json:"openAll,omitempty"`
	Base     uint64   `json:"base,omitempty"`   // up to this seq an earlier store of it was done
	Stray    uint64   `json:"stray,omitempty"`  // the greatest seq that it has stored without being its home
	Former   []string `json:"former,omitempty"` // stores that it has lost
	Given    uint64   `json:"given,omitempty"`  // the greatest seq that it has stored
	Passed   bool     `json:"passed,omitempty"` // it is lost, and the keys that it had open have gone on
}

// totalsRecord holds the bytes of the events from the tail up to Seq.
type totalsRecord struct {
	Seq   uint64 `json:"seq"`
	Bytes int64  `json:"bytes"`
}

func appendJSON(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // records hold strings, numbers and times only
	}
	return append([]byte{recordVersion}, text...)
}

func readJSON(val []byte, v any) error {
	if len(val) == 0 || val[0] != recordVersion {
		return errRecord
	}
	return json.Unmarshal(val[1:], v)
}

// eventAcceptedAt reads only the time from an event's record, in Unix ms.
func eventAcceptedAt(val []byte) (int64, error) {
	if len(val) == 0 || val[0] != recordVersion {
		return 0, errRecord
	}
	at, n := binary.Uvarint(val[1:])
	if n <= 0 {
		return 0, errRecord
	}
	return int64(at), nil
}

// entrySize returns the bytes of attributes and data in an event's record.
func entrySize(val []byte) int64 {
	e := entry{}
	_, n := binary.Uvarint(val[1:])
	if n <= 0 || e.readBody(val[1+n:]) != nil {
		return int64(len(val))
	}
	return int64(e.size())
}
