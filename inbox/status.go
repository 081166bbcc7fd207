package inbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/deadletter"
	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

// A Status is how the inbox does.
type Status struct {
	AppState     string    // up, down, paused, sick, suspect; up without an app
	HeldUntil    time.Time // when the app is tried again; zero if it is up
	Backlog      int       // unsettled events
	BacklogBytes int64
	OldestAt     time.Time // arrival of the oldest unsettled event; zero if there is none
	InFlight     int
	Waiting      int      // events with a record of their own: tried, or passed by the cursor
	Parked       []string // types and path of subscriptions that the app has answered 410 for
	Cursor       uint64   // everything up to here is settled or waiting
	Next         uint64   // seq that the next event will get
}

// Status returns how the inbox does.
func (in *Inbox) Status() Status {
	in.mu.Lock()
	defer in.mu.Unlock()
	f := in.f
	s := Status{
		AppState: string(f.app.shown()), Backlog: f.backlog(), BacklogBytes: f.backlogBytes,
		InFlight: f.flying, Waiting: f.recorded, Cursor: f.cursor, Next: f.next,
	}
	if f.app.mode != appUp {
		s.HeldUntil = f.app.holdUntil
	}
	oldest := int64(0)
	for _, it := range f.items {
		if oldest == 0 || it.arrivedAt < oldest {
			oldest = it.arrivedAt
		}
	}
	if oldest > 0 {
		s.OldestAt = in.wallTime(oldest)
	}
	for i := range in.cfg.Subscriptions {
		if f.parked[i] {
			s.Parked = append(s.Parked, in.cfg.Subscriptions[i].identity())
		}
	}
	return s
}

// wallTime returns a time of the ageing clock for people. The two differ only after one of them was wrong, or the store
// closed, for long.
func (in *Inbox) wallTime(ms int64) time.Time {
	behind := time.Until(in.store.Clock().Now()) // negative if the ageing clock is
	return time.UnixMilli(ms).Add(-behind.Round(time.Second))
}

// The states of an event in an EventStatus.
const (
	StateReceived  = "received"  // stored, on its way to the app
	StateWaiting   = "waiting"   // for its next attempt, its key, or the app
	StateDone      = "done"      // the app has it
	StateDead      = "dead"      // a dead letter
	StateReplaying = "replaying" // a dead letter on its way to the app again
)

// An EventStatus says what has become of one event.
type EventStatus struct {
	State      string
	Seq        uint64
	ReceivedAt time.Time // zero if retention has taken the event
	Attempts   int       // used up of the schedule
	Due        time.Time // of the next attempt; zero: as soon as it can be
	Why        string    // it waits, or is dead; or done, if not by this instance
	Letter     string    // id of its dead letter; empty: it never had one
	Last       deadletter.Answer
}

// Event returns what has become of the event that is known by source and id; ok is false if it is not remembered.
func (in *Inbox) Event(ctx context.Context, source, id string) (st EventStatus, ok bool, err error) {
	if err := ctx.Err(); err != nil {
		return EventStatus{}, false, err
	}
	err = in.store.View(func(sn *store.Snapshot) error {
		rec, known, err := in.window.Find(sn, event.Hash(source, id))
		if err != nil || !known {
			return err
		}
		ok = true
		st, err = in.eventStatus(sn, rec.Seq, deadletter.ID(deadletter.Inbox, in.cfg.Service, source, id))
		return err
	})
	if err != nil {
		return EventStatus{}, false, fmt.Errorf("status of event %s: %w", id, err)
	}
	return st, ok, nil
}

func (in *Inbox) eventStatus(sn *store.Snapshot, seq uint64, letterID string) (EventStatus, error) {
	st := EventStatus{State: StateDone, Seq: seq}
	val, ok, err := sn.Get(seqKey(eventPrefix, seq))
	if err != nil {
		return st, err
	}
	if ok {
		if r, err := decodeReceived(seq, val); err == nil {
			st.ReceivedAt = in.wallTime(r.arrivedAt)
			if r.flags&flagElsewhere != 0 {
				st.Why = reasonElsewhere
			}
		}
	}
	if err := st.letter(sn, letterID); err != nil {
		return st, err
	}
	if err := st.exception(sn, seq); err != nil {
		return st, err
	}
	if st.State == StateDead {
		return st, nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	it := in.f.items[seq]
	switch {
	case it == nil && in.open(seq):
		st.State = StateReceived
	case it == nil:
		return st, nil
	case it.state == stateReady || it.state == stateFlying:
		st.State, st.Why, st.Attempts = StateReceived, it.why(), it.attempts
	default:
		st.State, st.Why, st.Attempts, st.Due = StateWaiting, it.why(), it.attempts, it.due
	}
	if it != nil && it.letter != "" {
		st.State = StateReplaying
	}
	return st, nil
}

func (st *EventStatus) letter(sn *store.Snapshot, id string) error {
	l, ok, err := deadletter.Get(sn, id)
	if err != nil || !ok {
		return err
	}
	st.Letter = l.ID
	switch l.State {
	case deadletter.Dead, deadletter.Waiting, deadletter.Purged:
		st.State, st.Why, st.Attempts, st.Last = StateDead, l.Reason, l.Attempts, l.Last
	}
	return nil
}

func (st *EventStatus) exception(sn *store.Snapshot, seq uint64) error {
	val, ok, err := sn.Get(seqKey(exceptionPrefix, seq))
	if err != nil || !ok {
		return err
	}
	var e exception
	if err := decodeJSON(val, &e); err != nil {
		return err
	}
	st.Last = e.Last
	return nil
}

// Resume lets everything go again: subscriptions that the app parked, pauses, and an app that is held to be sick or suspect.
// With accept, what the app refuses becomes dead letters again, until it takes an event.
func (in *Inbox) Resume(accept bool) {
	in.mu.Lock()
	in.f.resume(accept)
	in.mu.Unlock()
	in.log.Info("forwarding resumed by an operator", "accept", accept)
	in.poke()
}

// ReplayLetter forwards a dead letter of this side again, marked, under its own id; whoever asks twice gets it once. It
// returns an error that wraps deadletter.ErrNotFound or ErrNotDead if there is nothing to replay. The letter is resolved
// when the app takes the event, and dead again when it does not.
func (in *Inbox) ReplayLetter(ctx context.Context, id string) error {
	var c *change
	err := in.store.Commit(ctx, store.Op{Class: store.Work, Events: 1, Apply: func(tx *store.Tx) error {
		var err error
		c, err = in.replay(tx, id)
		return err
	}})
	if err != nil {
		return fmt.Errorf("replay dead letter %s: %w", id, err)
	}
	if c == nil {
		return nil
	}
	in.mu.Lock()
	in.replayed(c.item)
	in.mu.Unlock()
	in.poke()
	return nil
}

// replay turns a dead letter into an exception, in tx. The change is nil if it is being replayed already.
func (in *Inbox) replay(tx *store.Tx, id string) (*change, error) {
	l, ok, err := deadletter.Get(tx, id)
	switch {
	case err != nil:
		return nil, err
	case !ok || l.Side != deadletter.Inbox:
		return nil, deadletter.ErrNotFound
	case l.State == deadletter.Replaying:
		return nil, nil
	case l.State != deadletter.Dead && l.State != deadletter.Waiting:
		return nil, fmt.Errorf("%w: it is %s", ErrNotDead, l.State)
	}
	attributes, data, ok, err := deadletter.Event(tx, id)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, errors.New("it has no copy of its event")
	}
	c := &change{kind: changeRecord, reason: "replay", item: item{
		seq: l.Seq, key: event.KeyHash(l.Source, l.Key), sub: in.cfg.subscriptionOf(l.Type, l.Version),
		size: len(attributes) + len(data), arrivedAt: in.store.Clock().Now().UnixMilli(), typ: l.Type, version: l.Version,
		tries: l.Attempts, marked: true, letter: l.ID, reason: "replay",
	}}
	if err := putException(tx, c); err != nil {
		return nil, err
	}
	return c, deadletter.SetState(tx, id, deadletter.Replaying)
}
