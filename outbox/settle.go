package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/deadletter"
	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

// maxDeadBytes is how much of dead letters goes into one operation together with a cursor: a transaction has limits.
const maxDeadBytes = 1 << 20

// flush writes what was decided since the last time, if there is something, and no write is under way.
func (l *loop) flush(now time.Time) {
	if l.flushing {
		return
	}
	if len(l.unsaved) == 0 && !l.takeChanges(now) {
		return
	}
	l.flushing, l.savedAt = true, now
	l.o.store.Enqueue(store.Op{
		Class: store.Lazy, Apply: l.unsaved[0].apply(l.o, l.service), Done: func(err error) { l.flushed <- err },
	})
}

// takeChanges turns the pending changes into writes. It reports false if there is nothing that cannot wait.
func (l *loop) takeChanges(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	pending := &l.d.pending
	if !pending.mustWrite && (!pending.moved || now.Sub(l.savedAt) < lazyCursor) {
		return false
	}
	w := l.d.takeWrite(l.createdAt)
	l.takenN++
	l.unsaved = append(splitDead(&w), &w)
	return true
}

// saved takes what became of a write. It reports false if the store takes nothing more.
func (l *loop) saved(err error) bool {
	l.flushing = false
	if err != nil {
		l.pause(err, "the state of a subscriber was not written, will try again")
		return !ended(err)
	}
	l.pauseTo = time.Time{}
	w := l.unsaved[0]
	if l.unsaved = l.unsaved[1:]; len(l.unsaved) > 0 {
		return true // letters that go before it
	}
	routes := spans(w.record.Spans)
	l.routes.Store(&routes)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.durable = w.record.Cursor
	l.d.saved(w)
	l.writtenN = l.takenN
	close(l.written)
	l.written = make(chan struct{})
	return true
}

// finish waits for the requests under way, and writes the last state. What it cannot write is decided again, in another
// process, by sending again.
func (l *loop) finish() {
	for l.inFlight > 0 {
		select {
		case a := <-l.answers:
			l.take(a)
		case err := <-l.flushed:
			l.saved(err)
		}
	}
	late := time.NewTimer(graceTime) // on a full disk nothing is written
	defer late.Stop()
	for {
		l.mu.Lock()
		l.d.pending.mustWrite = l.d.pending.mustWrite || l.d.pending.moved
		l.mu.Unlock()
		if l.flush(time.Now()); !l.flushing {
			return
		}
		select {
		case err := <-l.flushed:
			if !l.saved(err) {
				return
			}
		case <-late.C:
			return
		}
	}
}

// splitDead returns writes of dead letters alone for what is too much to go with the cursor, and takes it out of w. A crash
// in between leaves letters about events that are still owed: they are sent again, and the letter stays for a person to see.
func splitDead(w *write) (parts []*write) {
	size := 0
	for i := 0; i < len(w.dead); i++ {
		size += w.dead[i].size
		if size <= maxDeadBytes {
			continue
		}
		parts = append(parts, &write{lettersOnly: true, dead: w.dead[:i+1]})
		w.dead = w.dead[i+1:]
		size, i = 0, -1
	}
	return parts
}

// apply makes everything final that w speaks of. It is the only place where the outbox writes final states: the state of the
// subscriber, the end of set-aside records, dead letters, and replays that have arrived.
func (w *write) apply(o *Outbox, service string) func(*store.Tx) error {
	letters := w.letters(o, service)
	return func(tx *store.Tx) error {
		if err := letters(tx); err != nil || w.lettersOnly {
			return err
		}
		for _, id := range w.resolved {
			if err := deadletter.SetState(tx, id, deadletter.Resolved); err != nil {
				o.log.Error("dead letter of a replay is gone", "letter", id, "err", err)
			}
		}
		for _, a := range w.asides {
			if err := putAside(tx, service, a.seq, a.record, nil); err != nil {
				return err
			}
		}
		for _, seq := range w.ended {
			if err := removeAside(tx, service, seq); err != nil {
				return err
			}
		}
		tx.Put(subscriberKey(service), appendJSON(w.record))
		return nil
	}
}

// putAside writes a set-aside record, which may be there already.
func putAside(tx *store.Tx, service string, seq uint64, r asideRecord, own *entry) error {
	key := asideKey(service, seq)
	_, ok, err := tx.Get(key)
	if err != nil {
		return err
	}
	if ok {
		tx.Put(key, appendAside(r, own))
	} else {
		tx.Insert(key, appendAside(r, own))
	}
	return nil
}

func removeAside(tx *store.Tx, service string, seq uint64) error {
	key := asideKey(service, seq)
	_, ok, err := tx.Get(key)
	if ok {
		tx.Remove(key)
	}
	return err
}

// letters writes the dead letters of w.
func (w *write) letters(o *Outbox, service string) func(*store.Tx) error {
	return func(tx *store.Tx) error {
		for i := range w.dead {
			if err := w.dead[i].bury(tx, o, service); err != nil {
				return err
			}
		}
		return nil
	}
}

// bury writes the dead letter of one event.
func (d *deadEvent) bury(tx *store.Tx, o *Outbox, service string) error {
	e := d.entry
	if e == nil {
		var err error
		e, err = readEntry(tx, service, d.seq)
		if err != nil && !unreadable(err) {
			return fmt.Errorf("dead letter for event %d: %w", d.seq, err)
		}
		if e == nil { // it must not hold up everything else
			o.log.Error("a dead event is no longer on disk", "subscriber", service, "seq", d.seq, "reason", d.reason, "err", err)
			return nil
		}
	}
	ev, err := event.ParseAttributes(e.attributes)
	if err != nil { // every entry was parsed when it was read
		return fmt.Errorf("dead letter for event %d: %w", d.seq, err)
	}
	last := deadletter.Answer{Status: d.status, Body: d.body}
	return deadletter.Put(tx, deadletter.Letter{
		Side: deadletter.Outbox, Subscriber: service, State: deadletter.Dead, Reason: d.reason,
		Fingerprint: deadletter.Fingerprint(ev.Type, d.reason, last), EventID: ev.ID, Source: ev.Source, Type: ev.Type,
		Version: ev.Version, Key: ev.Key, CorrelationID: ev.CorrelationID(), Seq: d.seq, Attempts: d.attempts, Last: last,
	}, e.attributes, e.data)
}

// create makes a new subscriber durable.
func (o *Outbox) create(ctx context.Context, r subscriberRecord) error {
	return o.store.Commit(ctx, store.Op{Class: store.Work, Apply: func(tx *store.Tx) error {
		tx.Put(subscriberKey(r.Service), appendJSON(r))
		return nil
	}})
}
