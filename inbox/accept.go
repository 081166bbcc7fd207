package inbox

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/dedup"
	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

// acceptTimeout is how long a request waits in the store's queue before it is told to come again.
const acceptTimeout = 5 * time.Second

// A candidate is an event that asks to be taken.
type candidate struct {
	seq        uint64 // in the sender's log; 0: it has none
	acceptedAt int64  // Unix ms, by the sender's clock
	redelivery bool
	event      event.Event
	attributes []byte
	digest     event.Digest
	hash       [16]byte
	key        uint64
	decided    event.Outcome // before the store is asked; zero: the store decides
}

// decide fixes the verdict.
func (c *candidate) decide(v event.Verdict, code, detail string) {
	c.decided = event.Outcome{Verdict: v, Code: code, Detail: detail}
}

// An accept decides about the events of one request in one transaction, against the store and the group being built.
type accept struct {
	in     *Inbox
	from   event.Party // StoreID is empty if there is no log
	cursor uint64
	events []candidate
	marks  []bool            // of each event: a repeat cannot be excluded
	heard  []event.Knowledge // of each event, what the other instances say; nil: nobody was asked
	bytes  int

	now time.Time // by the ageing clock

	// Set afresh by each apply:
	outcomes []event.Outcome
	stored   []*received
	also     []aside
	finished uint64              // the highest seq of those that another instance has finished; 0: none
	blocked  map[uint64]struct{} // keys of events that were not stored
	busy     bool
}

// An aside is a duplicate of an event that came from elsewhere first.
type aside struct{ seq, inboxSeq, key uint64 }

// run stores what is to be stored and sets outcomes. The error is the store's.
func (a *accept) run(ctx context.Context) error {
	if !slices.ContainsFunc(a.events, func(c candidate) bool { return c.decided.Verdict == "" }) {
		for i := range a.events {
			a.outcomes = append(a.outcomes, a.before(&a.events[i]))
		}
		return nil
	}
	defer a.in.comes(a)()
	a.judgeRepeats(ctx)
	ctx, cancel := context.WithTimeout(ctx, acceptTimeout)
	defer cancel()
	err := a.in.store.Commit(ctx, store.Op{
		Class: store.Intake, Events: len(a.events), Bytes: a.bytes, Apply: a.apply, Done: a.done,
	})
	if errors.Is(err, store.ErrDiskLow) || errors.Is(err, store.ErrDiskFloor) {
		a.refuseAll(err)
		return nil
	}
	return err
}

func (a *accept) reset() {
	a.outcomes = a.outcomes[:0]
	a.stored, a.also, a.finished = a.stored[:0], a.also[:0], 0
	a.blocked = map[uint64]struct{}{}
	a.busy = false
	a.now = a.in.store.Clock().Now()
}

// apply is the transaction.
func (a *accept) apply(tx *store.Tx) error {
	a.reset()
	for i := range a.events {
		c := &a.events[i]
		o := a.before(c)
		if o.Verdict == "" {
			var err error
			if o, err = a.judge(tx, c, i); err != nil {
				return err
			}
			a.note(c, o)
		}
		a.outcomes = append(a.outcomes, o)
	}
	if a.from.StoreID == "" || len(a.stored)+len(a.also) == 0 && a.finished == 0 {
		return nil
	}
	return a.putSender(tx)
}

// before returns the outcome of an event as far as it follows from the event itself and those before it.
func (a *accept) before(c *candidate) event.Outcome {
	if a.busy {
		return event.Outcome{Verdict: event.Busy}
	}
	if _, held := a.blocked[c.key]; held && c.key != 0 {
		return event.Outcome{Verdict: event.KeyBusy}
	}
	if c.decided.Verdict != "" {
		a.note(c, c.decided)
	}
	return c.decided
}

// note remembers what an outcome means for the events after it.
func (a *accept) note(c *candidate, o event.Outcome) {
	switch o.Verdict {
	case event.Stored, event.Duplicate:
		return
	case event.Busy:
		a.busy = true
	}
	if c.key != 0 {
		if a.blocked == nil {
			a.blocked = map[uint64]struct{}{}
		}
		a.blocked[c.key] = struct{}{}
	}
}

func (a *accept) judge(tx *store.Tx, c *candidate, i int) (event.Outcome, error) {
	rec, known, err := a.in.window.Find(tx, c.hash)
	if err != nil {
		return event.Outcome{}, err
	}
	if known {
		return a.repeat(tx, c, rec)
	}
	if o := a.elsewhere(c, i); o.Verdict != "" {
		return o, nil
	}
	forgotten, doubtful := a.pastWindow(c)
	if forgotten {
		return event.Outcome{Verdict: event.Rejected, Code: "beyond_window",
			Detail: "a redelivery that is older than the ids remembered here: it may have been forwarded long ago"}, nil
	}
	if a.in.full() {
		return event.Outcome{Verdict: event.Busy, Code: "backlog_full"}, nil
	}
	if a.in.crowdedOut(c) {
		return event.Outcome{Verdict: event.KeyBusy}, nil
	}
	r := &received{
		seq: tx.Next(store.InboxLog), arrivedAt: a.now.UnixMilli(), log: a.from.StoreID, logSeq: c.seq,
		acceptedAt: c.acceptedAt, digest: c.digest, attributes: c.attributes, data: c.event.Data, event: c.event,
	}
	if c.redelivery {
		r.flags |= flagRedelivery
	}
	if a.marks[i] || doubtful {
		r.flags |= flagMarked
	}
	tx.Insert(seqKey(eventPrefix, r.seq), r.encode())
	a.in.window.Add(tx, c.hash, dedup.Record{Digest: c.digest, Seq: r.seq})
	a.stored = append(a.stored, r)
	return event.Outcome{Verdict: event.Stored}, nil
}

// putSender writes the sender's record, and remembers that its events are on the way, so that applied is not too high if
// others of the same log are stored in the same group.
func (a *accept) putSender(tx *store.Tx) error {
	key := senderKey(a.from.StoreID)
	val, known, err := tx.Get(key)
	if err != nil {
		return err
	}
	var old senderRecord
	if known {
		if err := decodeJSON(val, &old); err != nil {
			return err
		}
	}
	lowest, highest := uint64(noSeq), max(old.Highest, a.finished)
	for _, r := range a.stored {
		lowest, highest = min(lowest, r.logSeq), max(highest, r.logSeq)
	}
	for _, d := range a.also {
		lowest, highest = min(lowest, d.seq), max(highest, d.seq)
	}
	in := a.in
	in.mu.Lock()
	defer in.mu.Unlock()
	s := in.sender(a.from.StoreID, a.from.Service, a.from.Instance)
	s.coming[a] = lowest
	rec := s.record(in.f.read, highest)
	rec.Cursor, rec.Instance, rec.At = max(a.cursor, s.cursor), a.from.Instance, a.now.UnixMilli()
	if len(a.also) > 0 {
		all := make(map[uint64]uint64, len(rec.Also)+len(a.also))
		for seq, inboxSeq := range rec.Also {
			all[seq] = inboxSeq
		}
		for _, d := range a.also {
			all[d.seq] = d.inboxSeq
		}
		rec.Also = all
	}
	val = encodeJSON(&rec)
	tx.Put(key, val)
	return nil
}

// done hands over what became durable. It runs on the committer's goroutine, in commit order.
func (a *accept) done(err error) {
	in := a.in
	in.mu.Lock()
	defer in.mu.Unlock()
	s := in.senders[a.from.StoreID]
	if s != nil {
		delete(s.coming, a)
	}
	if err != nil {
		return
	}
	for _, r := range a.stored {
		in.f.next = max(in.f.next, r.seq+1)
		in.f.backlogBytes += int64(r.size())
		in.tail.push(r)
		if s != nil {
			s.stored(r.logSeq, r.seq)
		}
		if r.flags&flagMarked != 0 {
			in.m.unverified.Inc()
		}
	}
	if s != nil {
		s.instance, s.cursor, s.at = a.from.Instance, max(a.cursor, s.cursor), a.now.UnixMilli()
		s.highest = max(s.highest, a.finished)
		for _, d := range a.also {
			s.highest = max(s.highest, d.seq)
			in.joins(s, a.from.StoreID, d)
		}
	}
	if len(a.stored) > 0 {
		in.settler.dirty = true // the size of the backlog
		in.poke()
	}
}

// refuseAll answers every event busy that is not decided by itself: there is no room on the disk.
func (a *accept) refuseAll(cause error) {
	a.reset()
	code := "disk_low"
	if errors.Is(cause, store.ErrDiskFloor) {
		code = "disk_floor"
	}
	for i := range a.events {
		o := a.before(&a.events[i])
		if o.Verdict == "" {
			o = event.Outcome{Verdict: event.Busy, Code: code}
			a.note(&a.events[i], o)
		}
		a.outcomes = append(a.outcomes, o)
	}
}

// full reports whether the backlog has reached its limit. What is being stored at this moment is not counted, so it can be
// exceeded by one group of the store.
func (in *Inbox) full() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.f.backlogBytes >= in.cfg.MaxBytes
}

// crowdedOut reports whether too many events wait behind one of the same key that keeps failing or is parked. Once such
// events take up half of the room that there is for all, the limit of the key no longer counts, and what is for a parked
// subscription stays away too: else a few keys could stop the others.
func (in *Inbox) crowdedOut(c *candidate) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	f := in.f
	crowded := f.recorded >= f.exceptions/2
	if crowded && f.parked[in.cfg.subscriptionOf(c.event.Type, c.event.Version)] {
		return true
	}
	lane := f.lanes[c.key]
	if c.key == 0 || len(lane) == 0 || lane[0].attempts == 0 && lane[0].state != stateParked {
		return false
	}
	return crowded || len(lane) >= f.perKey
}

// mayJoin reports whether one more event of a log may be noted as having come from elsewhere.
func (in *Inbox) mayJoin(storeID string, more int) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	s := in.senders[storeID]
	return s == nil || len(s.also)+more < maxAlso
}

// origin returns where an event came from, if it is unsettled and in memory.
func (in *Inbox) origin(inboxSeq uint64) (log string, seq uint64, loaded, open bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if it := in.f.items[inboxSeq]; it != nil {
		return it.log, it.logSeq, true, it.letter == ""
	}
	return "", 0, false, in.open(inboxSeq)
}
