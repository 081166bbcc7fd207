package dedup

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/event"
)

const (
	recordVersion = 1
	hashBytes     = 16
	dayAt         = 1 // after the prefix
	hashAt        = 3
	keyBytes      = hashAt + hashBytes
	valueBytes    = 1 + len(event.Digest{}) + binary.MaxVarintLen64 // at most
)

// A Record is what is remembered of an event.
type Record struct {
	Digest event.Digest // of its content
	Seq    uint64       // in the log of this side
}

func (r Record) append(dst []byte) []byte {
	dst = append(dst, recordVersion)
	dst = append(dst, r.Digest[:]...)
	return binary.AppendUvarint(dst, r.Seq)
}

func parseRecord(b []byte) (r Record, err error) {
	if len(b) == 0 || b[0] != recordVersion {
		return Record{}, fmt.Errorf("dedup record of unknown version")
	}
	b = b[1:]
	if len(b) < len(r.Digest) {
		return Record{}, fmt.Errorf("dedup record is cut short")
	}
	n := copy(r.Digest[:], b)
	seq, size := binary.Uvarint(b[n:])
	if size <= 0 || n+size != len(b) {
		return Record{}, fmt.Errorf("dedup record has no seq")
	}
	r.Seq = seq
	return r, nil
}

// A day counts from 1 January 1970, UTC; two bytes reach until 2149.
type day uint16

const length = 24 * time.Hour

func dayOf(t time.Time) day { return day(max(0, min(t.Unix()/int64(length/time.Second), 1<<16-1))) }

// end returns the moment when the day is over.
func (d day) end() time.Time { return time.Unix(0, 0).Add((time.Duration(d) + 1) * length) }

// appendKey appends the key of a record of that day.
func appendKey(dst []byte, prefix byte, d day, id [hashBytes]byte) []byte {
	dst = append(dst, prefix)
	dst = binary.BigEndian.AppendUint16(dst, uint16(d))
	return append(dst, id[:]...)
}

// bounds returns where the keys from day d on begin, and where those of the prefix end.
func bounds(prefix byte, d day) (from, to []byte) {
	return binary.BigEndian.AppendUint16([]byte{prefix}, uint16(d)), []byte{prefix + 1}
}

// dayIn returns the day of a key.
func dayIn(key []byte) (day, error) {
	if len(key) != keyBytes {
		return 0, fmt.Errorf("dedup key has %d bytes, not %d", len(key), keyBytes)
	}
	return day(binary.BigEndian.Uint16(key[dayAt:])), nil
}
