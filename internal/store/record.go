package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

const (
	checksumBytes = 4
	// entryOverhead is what Badger adds to key and value when it sizes a transaction.
	entryOverhead = 12
	stateVersion  = 1
	lostVersion   = 1
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	stateKey   = []byte("m")
	lostKey    = []byte("w")
)

// seal appends checksum and payload to dst.
func seal(dst, key, val []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, checksum(key, val))
	return append(dst, val...)
}

// open returns the payload of a stored value, aliasing it.
func open(key, raw []byte) ([]byte, error) {
	if len(raw) < checksumBytes || binary.BigEndian.Uint32(raw) != checksum(key, raw[checksumBytes:]) {
		return nil, fmt.Errorf("key %q: %w", key[:min(len(key), 32)], ErrDamagedRecord)
	}
	return raw[checksumBytes:], nil
}

func checksum(key, val []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, val)
}

// state is the m record: the store as it is after one group.
type state struct {
	ts   uint64 // Badger timestamp of the group
	logs [logs]bounds
	live [256]int64 // by prefix
	age  int64      // AgeClock, Unix ms
	wall int64      // time of the group, Unix ms
}

func newState() state {
	var s state
	for l := range s.logs {
		s.logs[l] = bounds{tail: 1, next: 1}
	}
	return s
}

func (s *state) append(b []byte) []byte {
	b = append(b, stateVersion)
	b = binary.AppendUvarint(b, s.ts)
	for _, l := range s.logs {
		b = binary.AppendUvarint(b, l.next)
		b = binary.AppendUvarint(b, l.tail)
	}
	b = s.appendLive(b)
	b = binary.AppendUvarint(b, uint64(s.age))
	return binary.AppendUvarint(b, uint64(s.wall))
}

func (s *state) appendLive(b []byte) []byte {
	n := 0
	for _, c := range s.live {
		if c != 0 {
			n++
		}
	}
	b = binary.AppendUvarint(b, uint64(n))
	for p, c := range s.live {
		if c != 0 {
			b = append(b, byte(p))
			b = binary.AppendUvarint(b, uint64(c))
		}
	}
	return b
}

var errBadState = errors.New("state record cannot be read")

func parseState(b []byte) (state, error) {
	var s state
	if len(b) == 0 || b[0] != stateVersion {
		return s, fmt.Errorf("%w: version", errBadState)
	}
	r := fields{b: b[1:]}
	s.ts = r.uvarint()
	for l := range s.logs {
		s.logs[l].next = r.uvarint()
		s.logs[l].tail = r.uvarint()
	}
	r.live(&s.live)
	s.age, s.wall = int64(r.uvarint()), int64(r.uvarint())
	if r.bad || len(r.b) > 0 {
		return s, errBadState
	}
	return s, nil
}

// fields reads stored numbers one after the other; bad sticks.
type fields struct {
	b   []byte
	bad bool
}

func (f *fields) uvarint() uint64 {
	v, n := binary.Uvarint(f.b)
	if n <= 0 {
		f.bad = true
		return 0
	}
	f.b = f.b[n:]
	return v
}

func (f *fields) byte() byte {
	if len(f.b) == 0 {
		f.bad = true
		return 0
	}
	c := f.b[0]
	f.b = f.b[1:]
	return c
}

func (f *fields) live(into *[256]int64) {
	for n := f.uvarint(); n > 0 && !f.bad; n-- {
		p := f.byte()
		into[p] = int64(f.uvarint())
	}
}

// seqOf returns the seq in the key of an event.
func seqOf(key []byte) (uint64, bool) {
	if len(key) != 1+8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(key[1:]), true
}
