package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/dedup"
	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

// A conflictError says that an id is taken by another content.
type conflictError struct {
	id    string
	index int       // in the batch
	seq   uint64    // of the first; 0: it stands in the same batch
	at    time.Time // when the first was accepted; zero: no longer known
}

func (e *conflictError) Error() string {
	return fmt.Sprintf("id %q was published before with another type, version, key or data", e.id)
}

// A publication is one operation of the committer: one event, or a batch, stored whole or not at all.
type publication struct {
	o     *Outbox
	items []published
	size  int
}

// published is one event on its way into the log, and what became of it.
type published struct {
	event     *event.Event
	buf       []byte // its record, with headroom
	entry     *entry
	hash      [16]byte
	twin      int // the first item of the batch with the same id; -1: it is the first
	duplicate bool
	seq       uint64 // its own, or that of the first
}

func (o *Outbox) newPublication(events []event.Event) *publication {
	p := &publication{o: o, items: make([]published, len(events))}
	for i := range events {
		it := &p.items[i]
		it.event = &events[i]
		it.buf, it.entry = newEventRecord(it.event)
		it.hash = event.Hash(it.event.Source, it.event.ID)
		it.twin = -1
		p.size += len(it.buf)
	}
	p.pair()
	return p
}

// pair finds the events of a batch that have the same id.
func (p *publication) pair() {
	if len(p.items) == 1 {
		return
	}
	first := make(map[[16]byte]int, len(p.items))
	for i := range p.items {
		if j, ok := first[p.items[i].hash]; ok {
			p.items[i].twin = j
		} else {
			first[p.items[i].hash] = i
		}
	}
}

// store makes the publication durable. After an error nothing of it is stored, except for store.ErrFenced: then nobody knows.
func (p *publication) store(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	// From here on it does not matter whether the app still waits: who has no answer asks again.
	return p.o.store.Commit(p.o.patience.begin(), store.Op{
		Class: store.Intake, Events: len(p.items), Bytes: p.size, Apply: p.apply, Done: p.done,
	})
}

// apply decides, on the committer's goroutine, which events are new, and writes those. It looks at all ids before it takes the
// first seq.
func (p *publication) apply(tx *store.Tx) error {
	for i := range p.items {
		if err := p.check(tx, i); err != nil {
			return err
		}
	}
	at := tx.Now().UnixMilli()
	for i := range p.items {
		it := &p.items[i]
		if it.duplicate {
			if it.seq == 0 {
				it.seq = p.items[it.twin].seq
			}
			continue
		}
		it.seq = tx.Next(store.OutboxLog)
		it.entry.seq, it.entry.acceptedAt = it.seq, at
		tx.Insert(eventKey(it.seq), sealEventRecord(it.buf, at))
		p.o.ids.Add(tx, it.hash, dedup.Record{Digest: it.entry.digest, Seq: it.seq})
	}
	return nil
}

// check decides whether item i is a duplicate, of a stored event or of one before it in the same batch.
func (p *publication) check(tx *store.Tx, i int) error {
	it := &p.items[i]
	it.duplicate, it.seq = false, 0
	if it.twin >= 0 {
		if p.items[it.twin].entry.digest != it.entry.digest {
			return &conflictError{id: it.event.ID, index: i}
		}
		it.duplicate, it.seq = true, p.items[it.twin].seq // 0 if that one is new as well
		return nil
	}
	first, ok, err := p.o.ids.Find(tx, it.hash)
	if err != nil || !ok {
		return err
	}
	if first.Digest != it.entry.digest {
		return &conflictError{id: it.event.ID, index: i, seq: first.Seq, at: firstAt(tx, first.Seq)}
	}
	it.duplicate, it.seq = true, first.Seq
	return nil
}

func firstAt(tx *store.Tx, seq uint64) time.Time {
	val, ok, err := tx.Get(eventKey(seq))
	if err != nil || !ok {
		return time.Time{}
	}
	at, err := eventAcceptedAt(val)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMilli(at).UTC()
}

// done hands what has become durable to the dispatchers, in the order of the commits.
func (p *publication) done(err error) {
	if err != nil {
		return
	}
	entries := make([]*entry, 0, len(p.items))
	size := 0
	for i := range p.items {
		if it := &p.items[i]; !it.duplicate {
			entries = append(entries, it.entry)
			size += it.entry.size()
		}
	}
	m := p.o.metrics
	m.accepted.Add(len(entries))
	m.duplicates.Add(len(p.items) - len(entries))
	if len(entries) == 0 {
		return
	}
	p.o.bytes.Add(int64(size))
	p.o.tail.append(entries)
	for _, s := range p.o.all() {
		if !s.sated.Load() {
			s.nudge()
		}
	}
}
