package inbox

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/deadletter"
	"github.com/hooksidecar/hooksidecar/internal/event"
)

// Keys of the inbox, in the order they sort:
//
//	l + store id  JSON             one sender's log: who, highest seq given, its cursor, a lower bound of applied
//	n + seq(8)    received         an event of the inbox log; counted
//	q             progress         cursor, settled spans above it, bytes of the backlog, parked subscriptions
//	r + seq(8)    JSON             an unsettled event that was tried or that the cursor has passed; counted
//
// The first byte of each value is the version.
const (
	senderPrefix    = 'l'
	eventPrefix     = 'n'
	progressKey     = "q"
	exceptionPrefix = 'r'
	recordVersion   = 1
)

var errRecord = errors.New("damaged or newer record")

func seqKey(prefix byte, seq uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{prefix}, seq)
}

// seqOf returns the seq in a key that seqKey made.
func seqOf(key []byte) (uint64, error) {
	if len(key) != 9 {
		return 0, fmt.Errorf("key %x: %w", key, errRecord)
	}
	return binary.BigEndian.Uint64(key[1:]), nil
}

func senderKey(storeID string) []byte { return append([]byte{senderPrefix}, storeID...) }

// Flags of a received event.
const (
	flagRedelivery = 1 << iota // its sender could not exclude an earlier delivery
	flagMarked                 // and neither could we when it came
	flagElsewhere              // settled: another instance has finished it
)

// A received is an event as the inbox log holds it. attributes and data are never changed.
type received struct {
	seq        uint64
	arrivedAt  int64  // Unix ms, by the ageing clock
	log        string // store id of the sender's log; empty: none
	logSeq     uint64
	acceptedAt int64 // Unix ms, by the sender's clock
	flags      byte
	digest     event.Digest
	attributes []byte
	data       []byte
	event      event.Event // of the attributes; Data is data
}

// key returns the hash of the event's key; 0 if it has none.
func (r *received) key() uint64 { return event.KeyHash(r.event.Source, r.event.Key) }

func (r *received) size() int { return len(r.attributes) + len(r.data) }

// encode returns the record, and makes attributes and data parts of it, so that a received that is kept pins no request.
func (r *received) encode() []byte {
	val := make([]byte, 0, 1+6*binary.MaxVarintLen64+len(r.log)+1+len(r.digest)+r.size())
	val = append(val, recordVersion)
	val = binary.AppendUvarint(val, uint64(r.arrivedAt))
	val = binary.AppendUvarint(val, uint64(len(r.log)))
	val = append(val, r.log...)
	val = binary.AppendUvarint(val, r.logSeq)
	val = binary.AppendUvarint(val, uint64(r.acceptedAt))
	val = append(val, r.flags)
	val = append(val, r.digest[:]...)
	val = binary.AppendUvarint(val, uint64(len(r.attributes)))
	start := len(val)
	val = append(val, r.attributes...)
	middle := len(val)
	val = append(val, r.data...)
	r.attributes, r.data = val[start:middle:middle], val[middle:]
	return val
}

// decodeReceived reads a record of the inbox log. The result keeps val.
func decodeReceived(seq uint64, val []byte) (*received, error) {
	d := decoder{rest: val}
	if d.byte() != recordVersion {
		return nil, fmt.Errorf("event %d of the inbox: %w", seq, errRecord)
	}
	r := &received{seq: seq, arrivedAt: int64(d.uvarint())}
	r.log = string(d.bytes(d.uvarint()))
	r.logSeq = d.uvarint()
	r.acceptedAt = int64(d.uvarint())
	r.flags = d.byte()
	copy(r.digest[:], d.bytes(uint64(len(r.digest))))
	r.attributes = d.bytes(d.uvarint())
	r.data = d.rest
	if d.bad {
		return nil, fmt.Errorf("event %d of the inbox: %w", seq, errRecord)
	}
	e, err := event.ParseAttributes(r.attributes)
	if err != nil {
		return nil, fmt.Errorf("event %d of the inbox: %w", seq, err)
	}
	r.event = e
	r.event.Data = r.data
	return r, nil
}

// receivedOf returns an event that is no longer in the log.
func receivedOf(seq uint64, attributes, data []byte) (*received, error) {
	e, err := event.ParseAttributes(attributes)
	if err != nil {
		return nil, fmt.Errorf("event %d of the inbox: %w", seq, err)
	}
	e.Data = data
	return &received{seq: seq, attributes: attributes, data: data, event: e}, nil
}

// A progress is what the q record holds.
type progress struct {
	cursor uint64
	spans  []span
	bytes  int64    // of unsettled events
	parked []string // identities of subscriptions
}

func (p *progress) encode() []byte {
	val := []byte{recordVersion}
	val = binary.AppendUvarint(val, p.cursor)
	val = binary.AppendUvarint(val, uint64(p.bytes))
	val = binary.AppendUvarint(val, uint64(len(p.spans)))
	at := p.cursor
	for _, s := range p.spans {
		val = binary.AppendUvarint(val, s.from-at)
		val = binary.AppendUvarint(val, s.to-s.from)
		at = s.to
	}
	val = binary.AppendUvarint(val, uint64(len(p.parked)))
	for _, name := range p.parked {
		val = binary.AppendUvarint(val, uint64(len(name)))
		val = append(val, name...)
	}
	return val
}

func decodeProgress(val []byte) (progress, error) {
	d := decoder{rest: val}
	if d.byte() != recordVersion {
		return progress{}, fmt.Errorf("inbox cursor: %w", errRecord)
	}
	p := progress{cursor: d.uvarint(), bytes: int64(d.uvarint())}
	at := p.cursor
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		from := at + d.uvarint()
		at = from + d.uvarint()
		p.spans = append(p.spans, span{from, at})
	}
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		p.parked = append(p.parked, string(d.bytes(d.uvarint())))
	}
	if d.bad {
		return progress{}, fmt.Errorf("inbox cursor: %w", errRecord)
	}
	return p, nil
}

// An exception is what an r record holds: all that the forwarder needs, so that start-up need not read the event.
type exception struct {
	Attempts  int               `json:"attempts"`
	Tries     int               `json:"tries"`
	Due       time.Time         `json:"due,omitzero"`
	Reason    string            `json:"reason"`
	Last      deadletter.Answer `json:"last"`
	Letter    string            `json:"letter,omitempty"`
	Key       uint64            `json:"key,string,omitempty"`
	Type      string            `json:"type"`
	Version   string            `json:"version"`
	Size      int               `json:"size"`
	Log       string            `json:"log,omitempty"`
	LogSeq    uint64            `json:"logSeq,omitempty"`
	ArrivedAt int64             `json:"arrivedAt"`
}

// A senderRecord is what an l record holds.
type senderRecord struct {
	Service  string            `json:"service"`
	Instance string            `json:"instance"`
	Highest  uint64            `json:"highest"` // seq given
	Cursor   uint64            `json:"cursor"`  // as the sender announced it
	At       int64             `json:"at"`      // when an event of it was stored last; Unix ms, by the ageing clock
	Applied  uint64            `json:"applied"` // all that was given up to here was settled when this was written
	Also     map[uint64]uint64 `json:"also,omitempty"`
}

func encodeJSON(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil { // only for types that cannot be JSON, of which there are none here
		panic(err)
	}
	return append([]byte{recordVersion}, text...)
}

func decodeJSON(val []byte, v any) error {
	if len(val) == 0 || val[0] != recordVersion {
		return errRecord
	}
	return json.Unmarshal(val[1:], v)
}

// A decoder reads fields off the front of a record; once something is missing it is bad and returns zeros.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) byte() byte {
	b := d.bytes(1)
	if d.bad {
		return 0
	}
	return b[0]
}

func (d *decoder) uvarint() uint64 {
	n, size := binary.Uvarint(d.rest)
	if size <= 0 {
		d.bad, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[size:]
	return n
}

func (d *decoder) bytes(n uint64) []byte {
	if n > uint64(len(d.rest)) {
		d.bad, d.rest = true, nil
		return nil
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}
