package outbox

import (
	"bytes"
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

// readLog returns the events from seq from on: up to max, and not many more than maxBytes. through is the last seq that they
// speak for; what is missing up to there is lost. An event that is stored but cannot be read is reported to damaged.
func (o *Outbox) readLog(from uint64, max, maxBytes int) (entries []*entry, through uint64, err error) {
	if entries, ok := o.tail.read(from, max, maxBytes); ok {
		through = from - 1
		if n := len(entries); n > 0 {
			through = entries[n-1].seq
		}
		return entries, through, nil
	}
	end := o.tail.end()
	size := 0
	err = o.store.View(func(sn *store.Snapshot) error {
		for rec, err := range sn.Scan(eventKey(from), eventKey(end)) {
			if err != nil && !errors.Is(err, store.ErrDamagedRecord) {
				return err
			}
			seq := eventSeq(rec.Key)
			if err == nil {
				var e *entry
				if e, err = readEventRecord(seq, bytes.Clone(rec.Val)); err == nil {
					entries = append(entries, e)
					size += e.size()
				}
			}
			if err != nil {
				o.log.Error("event of the outbox cannot be read", "seq", seq, "err", err)
			}
			if through = seq; len(entries) >= max || size >= maxBytes {
				return nil
			}
		}
		through = end - 1
		return nil
	})
	if err != nil {
		return nil, 0, fmt.Errorf("read the log from %d: %w", from, err)
	}
	return entries, through, nil
}

// unreadable reports whether err is about one record, so that it must not hold up the others.
func unreadable(err error) bool {
	_, malformed := errors.AsType[*event.Error](err)
	return malformed || errors.Is(err, store.ErrDamagedRecord) || errors.Is(err, errRecord)
}

// A reader reads single records: a *store.Tx or a *store.Snapshot.
type reader interface {
	Get(key []byte) (val []byte, ok bool, err error)
}

// readEntry returns an event that is owed to service: from the log or from its set-aside record; nil if neither has it.
func readEntry(r reader, service string, seq uint64) (*entry, error) {
	val, ok, err := r.Get(eventKey(seq))
	if err != nil {
		return nil, err
	}
	if ok {
		return readEventRecord(seq, bytes.Clone(val))
	}
	if val, ok, err = r.Get(asideKey(service, seq)); err != nil || !ok {
		return nil, err
	}
	_, own, err := readAside(seq, bytes.Clone(val))
	return own, err
}

// seqAt returns the first kept seq that was accepted at t or later, or the next seq to be given. Acceptance never goes back in
// the log, so it is found by halving.
func (o *Outbox) seqAt(t time.Time) (seq uint64, err error) {
	first, next := o.store.Bounds(store.OutboxLog)
	err = o.store.View(func(sn *store.Snapshot) error {
		var failed error
		n := sort.Search(int(next-first), func(i int) bool {
			at, err := acceptedAt(sn, first+uint64(i), next)
			if err != nil {
				failed = err
				return true
			}
			return at >= t.UnixMilli()
		})
		seq = first + uint64(n)
		return failed
	})
	return seq, err
}

// acceptedAt returns when seq was accepted, or the next one that is there if it is lost.
func acceptedAt(sn *store.Snapshot, seq, next uint64) (int64, error) {
	for rec, err := range sn.Scan(eventKey(seq), eventKey(next)) {
		if errors.Is(err, store.ErrDamagedRecord) {
			continue
		}
		if err != nil {
			return 0, err
		}
		return eventAcceptedAt(rec.Val)
	}
	return 1<<63 - 1, nil
}
