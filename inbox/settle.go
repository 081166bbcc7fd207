package inbox

import (
	"errors"
	"slices"

	"github.com/hooksidecar/hooksidecar/internal/deadletter"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

const (
	lettersPerOp     = 64
	letterBytesPerOp = 1 << 20
)

// A settler is the one writer of final states: of the cursor and what is settled above it, of exceptions, of letters.
//
// It has one operation in flight. While that is being synced further changes gather; the next operation takes them all. So
// operations cannot overtake each other, and the cursor in each says nothing that is not durable before it or with it.
// The operations are lazy: they ride along in whatever is committed, and a success writes nothing of its own.
type settler struct {
	dirty    bool     // the cursor's record is out of date
	inFlight bool     // an operation is on its way
	pending  []change // taken from the forwarder, not yet in an operation; in order
	writing  []change // in the operation on its way
}

// flush makes durable what has changed, unless an operation is on its way: then it is called again once that is through.
func (in *Inbox) flush() {
	in.mu.Lock()
	s := &in.settler
	s.pending = append(s.pending, in.f.changes...)
	clear(in.f.changes)
	in.f.changes = in.f.changes[:0]
	if s.inFlight || len(s.pending) == 0 && !s.dirty {
		in.mu.Unlock()
		return
	}
	s.inFlight, s.dirty = true, false
	s.writing, s.pending = splitChanges(s.pending, lettersPerOp)
	in.f.writing(s.writing)
	settlement := &settlement{in: in, changes: s.writing, progress: in.progress()}
	in.mu.Unlock()
	in.store.Enqueue(store.Op{
		Class: store.Lazy, Events: len(settlement.changes), Bytes: settlement.bytes(),
		Apply: settlement.apply,
		Done:  func(err error) { in.saved <- err }, // never blocks: one operation, one place
	})
}

// splitChanges returns as many changes as fit in one operation, with so many letters at most, and the rest. Their order is kept.
func splitChanges(all []change, most int) (now, later []change) {
	letters, bytes := 0, 0
	for i := range all {
		if all[i].kind != changeDead {
			continue
		}
		letters++
		bytes += all[i].item.size
		if letters > 1 && (letters > most || bytes > letterBytesPerOp) {
			return all[:i:i], slices.Clone(all[i:])
		}
	}
	return all, nil
}

// settled takes the outcome of the operation on its way.
func (in *Inbox) settled(err error) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.settler.inFlight = false
	if err != nil {
		return err
	}
	for i := range in.settler.writing {
		c := &in.settler.writing[i]
		if c.kind == changeDead {
			in.m.dead(c.reason).Inc()
		}
		in.f.saved(c)
	}
	in.settler.writing = nil
	in.reap()
	return nil
}

// progress returns what the q record is to say. The caller holds in.mu.
//
// An event whose letter is part of a later operation than this one is still unsettled here; the next one says so.
func (in *Inbox) progress() progress {
	p := progress{cursor: in.f.cursor, spans: in.f.settledSpans(), bytes: in.f.backlogBytes}
	if in.f.backlog() == 0 {
		in.f.backlogBytes, p.bytes = 0, 0
	}
	for i := range in.cfg.Subscriptions {
		if in.f.parked[i] {
			p.parked = append(p.parked, in.cfg.Subscriptions[i].identity())
		}
	}
	return p
}

// A settlement is one operation of the settler.
type settlement struct {
	in       *Inbox
	changes  []change
	progress progress
}

func (s *settlement) bytes() int {
	n := 64
	for i := range s.changes {
		n += 256
		if s.changes[i].kind == changeDead {
			n += s.changes[i].item.size + len(s.changes[i].last.Body)
		}
	}
	return n
}

func (s *settlement) apply(tx *store.Tx) error {
	for i := range s.changes {
		c := &s.changes[i]
		var err error
		switch c.kind {
		case changeDone:
			err = s.done(tx, c)
		case changeDead:
			err = s.dead(tx, c)
		case changeRecord:
			err = putException(tx, c)
		}
		if err != nil {
			return err
		}
	}
	tx.Put([]byte(progressKey), s.progress.encode())
	return nil
}

func (s *settlement) done(tx *store.Tx, c *change) error {
	if c.item.letter != "" {
		if err := deadletter.SetState(tx, c.item.letter, deadletter.Resolved); err != nil && !errors.Is(err, deadletter.ErrNotFound) {
			return err
		}
	}
	return removeException(tx, &c.item)
}

// dead writes the letter and ends the event in one commit.
func (s *settlement) dead(tx *store.Tx, c *change) error {
	if err := removeException(tx, &c.item); err != nil {
		return err
	}
	l, attributes, data, err := s.letter(tx, c)
	if err != nil || l.EventID == "" {
		return err
	}
	l.State, l.Reason, l.Last = deadletter.Dead, c.reason, c.last
	l.Fingerprint = deadletter.Fingerprint(l.Type, l.Reason, l.Last)
	l.Attempts = c.item.tries
	l.LastAt = tx.Now()
	return deadletter.Put(tx, l, attributes, data)
}

// letter returns the letter to write, and the event to copy into it unless the letter has it. A letter without an EventID
// means that nothing is left to make it of.
func (s *settlement) letter(tx *store.Tx, c *change) (l deadletter.Letter, attributes, data []byte, err error) {
	if c.item.letter != "" {
		l, _, err = deadletter.Get(tx, c.item.letter)
		return l, nil, nil, err
	}
	val, ok, err := tx.Get(seqKey(eventPrefix, c.item.seq))
	if errors.Is(err, store.ErrDamagedRecord) || err == nil && !ok {
		s.in.log.Error("dead event cannot be read, no letter is kept", "seq", c.item.seq, "reason", c.reason)
		return l, nil, nil, nil
	}
	if err != nil {
		return l, nil, nil, err
	}
	r, err := decodeReceived(c.item.seq, val)
	if err != nil {
		return l, nil, nil, err
	}
	e := &r.event
	l = deadletter.Letter{
		Side: deadletter.Inbox, Subscriber: s.in.cfg.Service, EventID: e.ID, Source: e.Source, Type: e.Type, Version: e.Version,
		Key: e.Key, CorrelationID: e.CorrelationID(), Seq: r.seq,
	}
	return l, r.attributes, r.data, nil
}

func putException(tx *store.Tx, c *change) error {
	it := &c.item
	key := seqKey(exceptionPrefix, it.seq)
	_, known, err := tx.Get(key)
	if err != nil {
		return err
	}
	val := encodeJSON(&exception{
		Attempts: it.attempts, Tries: it.tries, Due: it.due, Reason: c.reason, Last: lastKept(c.last), Letter: it.letter,
		Key: it.key, Type: it.typ, Version: it.version, Size: it.size, Log: it.log, LogSeq: it.logSeq, ArrivedAt: it.arrivedAt,
	})
	if known {
		tx.Put(key, val)
		return nil
	}
	tx.Insert(key, val)
	return nil
}

// lastKept shortens an answer: the whole of the last one goes into the letter.
func lastKept(a deadletter.Answer) deadletter.Answer {
	const most = 1 << 10
	return deadletter.Answer{Status: a.Status, Body: a.Body[:min(len(a.Body), most)]}
}

func removeException(tx *store.Tx, it *item) error {
	if !it.recorded && !it.recording {
		return nil
	}
	key := seqKey(exceptionPrefix, it.seq)
	_, known, err := tx.Get(key)
	if err == nil && known {
		tx.Remove(key)
	}
	return err
}

// ErrNotDead says that a letter cannot be replayed: it was resolved or purged.
var ErrNotDead = errors.New("the dead letter is not dead")
