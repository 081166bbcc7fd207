package inbox

import (
	"errors"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/deadletter"
	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

const (
	lettersPerOp     = 64
	changeBytesPerOp = 1 << 20 // of records and letters; far below what the store takes at once
	maxUnsaved       = 1024    // changes that wait for an operation, beyond which nothing more is forwarded
	maxRecordBody    = 1 << 10 // of the last answer: the whole of it goes into the letter
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
	s.writing, s.pending = in.f.writing(s.pending)
	settlement := &settlement{in: in, changes: s.writing, progress: in.progress()}
	in.mu.Unlock()
	in.store.Enqueue(store.Op{
		Class: store.Lazy, Events: len(settlement.changes), Bytes: settlement.bytes(),
		Apply: settlement.apply,
		Done:  func(err error) { in.saved <- err }, // never blocks: one operation, one place
	})
}

// bytes returns about how much a change writes, at most: as JSON a byte of an answer may need six.
func (c *change) bytes() int {
	const fixed, escaped = 512, 6
	switch c.kind {
	case changeRecord:
		return fixed + escaped*min(len(c.last.Body), maxRecordBody)
	case changeElsewhere:
		return fixed + c.item.size
	case changeDead:
		n := len(c.last.Body)
		for name, value := range c.last.Header {
			n += len(name) + len(value)
		}
		return 2*fixed + c.item.size + escaped*n
	}
	return fixed
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
		switch c.kind {
		case changeDead:
			in.m.dead(c.reason).Inc()
			in.ended(&c.item)
		case changeElsewhere:
			in.m.elsewhere.Inc()
			in.ended(&c.item)
		case changeDone:
			in.ended(&c.item)
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
		n += s.changes[i].bytes()
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
		case changeElsewhere:
			err = s.elsewhere(tx, c)
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
	if err := removeException(tx, &c.item); err != nil {
		return err
	}
	if c.item.letter != "" {
		return s.resolve(tx, c.item.letter)
	}
	if s.cameToday(&c.item) {
		return nil
	}
	r, err := s.received(tx, c.item.seq)
	if err != nil || r == nil {
		return err
	}
	return s.in.window.Refresh(tx, event.Hash(r.event.Source, r.event.ID))
}

// elsewhere ends an event that another instance has finished, and notes that in its record, for those who ask what has
// become of it.
func (s *settlement) elsewhere(tx *store.Tx, c *change) error {
	if err := removeException(tx, &c.item); err != nil {
		return err
	}
	r, err := s.received(tx, c.item.seq)
	if err != nil || r == nil {
		return err
	}
	r.flags |= flagElsewhere
	tx.Put(seqKey(eventPrefix, r.seq), r.encode())
	if s.cameToday(&c.item) {
		return nil
	}
	return s.in.window.Refresh(tx, event.Hash(r.event.Source, r.event.ID))
}

// resolve ends a letter whose event the app has taken.
func (s *settlement) resolve(tx *store.Tx, id string) error {
	l, ok, err := deadletter.Get(tx, id)
	if err != nil || !ok {
		return err
	}
	if err := s.in.window.Refresh(tx, event.Hash(l.Source, l.EventID)); err != nil {
		return err
	}
	return deadletter.SetState(tx, id, deadletter.Resolved)
}

// cameToday reports whether the id of an event lies in today's bucket already, as it nearly always does: it is remembered
// for a time that counts from the end of the event.
func (s *settlement) cameToday(it *item) bool {
	return it.letter == "" && s.in.window.Today(time.UnixMilli(it.arrivedAt))
}

// received reads an event of the log; nil says that it is missing or damaged.
func (s *settlement) received(tx *store.Tx, seq uint64) (*received, error) {
	val, ok, err := tx.Get(seqKey(eventPrefix, seq))
	if errors.Is(err, store.ErrDamagedRecord) || err == nil && !ok {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r, err := decodeReceived(seq, val)
	if errors.Is(err, errRecord) {
		return nil, nil
	}
	return r, err
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
	if !s.cameToday(&c.item) {
		if err := s.in.window.Refresh(tx, event.Hash(l.Source, l.EventID)); err != nil {
			return err
		}
	}
	return deadletter.Put(tx, l, attributes, data)
}

// letter returns the letter to write, and the event to copy into it unless the letter has it. A letter without an EventID
// means that nothing is left to make it of.
func (s *settlement) letter(tx *store.Tx, c *change) (l deadletter.Letter, attributes, data []byte, err error) {
	if c.item.letter != "" {
		l, _, err = deadletter.Get(tx, c.item.letter)
		return l, nil, nil, err
	}
	r, err := s.received(tx, c.item.seq)
	if err != nil {
		return l, nil, nil, err
	}
	if r == nil {
		s.in.log.Error("dead event cannot be read, no letter is kept", "seq", c.item.seq, "reason", c.reason)
		return l, nil, nil, nil
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

// lastKept shortens an answer.
func lastKept(a deadletter.Answer) deadletter.Answer {
	return deadletter.Answer{Status: a.Status, Body: a.Body[:min(len(a.Body), maxRecordBody)]}
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
