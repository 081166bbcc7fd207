package outbox

import (
	"context"
	"slices"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/deadletter"
	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

// Event returns where the event with that id is; ok is false if the id is not, or no longer, known. It is looked for among
// the events of this service, then of the other sources that this outbox publishes for.
func (o *Outbox) Event(ctx context.Context, id string) (st EventStatus, ok bool, err error) {
	return o.find(ctx, "", id)
}

func (o *Outbox) find(ctx context.Context, source, id string) (st EventStatus, ok bool, err error) {
	if err := ctx.Err(); err != nil {
		return st, false, err
	}
	sources := append([]string{o.cfg.Service}, o.cfg.Sources...)
	if source != "" {
		sources = []string{source}
	}
	err = o.store.View(func(sn *store.Snapshot) error {
		for _, source := range sources {
			first, found, err := o.ids.Find(sn, event.Hash(source, id))
			if err != nil {
				return err
			}
			if found {
				st, ok = EventStatus{ID: id, Source: source, Seq: first.Seq}, true
				return o.describe(sn, &st)
			}
		}
		return nil
	})
	return st, ok, err
}

// describe fills in what is known of an event with that source, id and seq.
func (o *Outbox) describe(sn *store.Snapshot, st *EventStatus) error {
	st.Subscribers = []Delivery{}
	val, ok, err := sn.Get(eventKey(st.Seq))
	if err != nil {
		return err
	}
	var e *entry
	if ok {
		if e, err = readEventRecord(st.Seq, val); err != nil {
			return err
		}
		ev, err := event.ParseAttributes(e.attributes)
		if err != nil {
			return err
		}
		st.Kept, st.AcceptedAt = true, time.UnixMilli(e.acceptedAt).UTC()
		st.Type, st.Version, st.Key, st.CorrelationID = ev.Type, ev.Version, ev.Key, ev.CorrelationID()
	}
	for _, s := range o.all() {
		letter, dead, err := deadletter.Get(sn, deadletter.ID(deadletter.Outbox, s.service, st.Source, st.ID))
		if err != nil {
			return err
		}
		if !dead {
			letter = deadletter.Letter{}
		}
		if d, ok := s.delivery(st.Seq, e, letter); ok {
			st.Subscribers = append(st.Subscribers, d)
		}
	}
	return nil
}

// delivery returns where an event is for this subscriber; ok is false if it was never owed. e is nil once retention has
// removed it, letter is zero if there is none.
func (s *subscriber) delivery(seq uint64, e *entry, letter deadletter.Letter) (out Delivery, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out = Delivery{Service: s.service, Letter: letter.ID, Attempts: letter.Attempts}
	if it := s.d.find(seq); it != nil {
		out.State, out.Attempts, out.Reason = Waiting, it.attempts, it.reason
		if it.reason == "" && s.d.unreachable() {
			out.Reason = heldByLane
		}
		return out, true
	}
	if letter.ID != "" && letter.State != deadletter.Resolved {
		out.State, out.Reason = Dead, letter.Reason
		return out, true
	}
	if seq < s.d.start {
		return out, false
	}
	if e == nil {
		// Removed: whoever was owed it has it.
		out.State = Stored
		return out, letter.ID != ""
	}
	switch {
	case s.d.unseen(seq):
		if !s.d.spans.owed(seq, e.typ, e.version) {
			return out, false
		}
		out.State = Waiting
	case s.d.spans.covered(seq, e.typ, e.version):
		out.State = Stored
		if !s.d.spans.wants(e.typ, e.version) {
			out.State = Unsubscribed
		} else if s.d.appliedThere(e) {
			out.State = Applied
		}
	default:
		return out, false
	}
	return out, true
}

// unreachable reports whether no known instance answers as it should.
func (d *dispatcher) unreachable() bool {
	return len(d.lanes) > 0 && !slices.ContainsFunc(d.lanes, func(l *lane) bool { return l.known && !l.failing() })
}

// unseen reports whether seq has not been looked at.
func (d *dispatcher) unseen(seq uint64) bool {
	return seq >= d.after && !slices.ContainsFunc(d.restored, func(r [2]uint64) bool { return r[0] <= seq && seq <= r[1] }) &&
		(d.fill == nil || seq > d.fill.To)
}

// appliedThere reports whether, by their answers, the instances that can have the event are done with it: the home of its key,
// or for an event without one every instance that asks for its type, since it may have gone to any.
func (d *dispatcher) appliedThere(e *entry) bool {
	it := &item{key: e.key, route: e.route, typ: e.typ, version: e.version}
	if e.key != 0 {
		l := d.best(it, func(*lane) bool { return true })
		return l != nil && l.answered.done(e.seq, e.key)
	}
	any := false
	for _, l := range d.lanes {
		if l.known && l.wants(e.typ, e.version) {
			if !l.answered.done(e.seq, 0) {
				return false
			}
			any = true
		}
	}
	return any
}

// done reports whether an instance that has the event is done with it.
func (r *instanceRecord) done(seq, key uint64) bool {
	if seq <= max(r.Applied, r.Base) {
		return true
	}
	if key == 0 || r.OpenAll || r.StoreID == "" {
		return false
	}
	_, open := slices.BinarySearch(r.OpenKeys, key)
	return !open
}

// Subscribers returns how each subscriber stands, by name.
func (o *Outbox) Subscribers() []SubscriberStatus {
	out := make([]SubscriberStatus, 0, len(o.all()))
	for _, s := range o.all() {
		st := s.figures()
		st.Lanes = s.lanes(time.Now())
		out = append(out, st)
	}
	return out
}

// figures returns the status without the lanes.
func (s *subscriber) figures() SubscriberStatus {
	next := s.o.tail.end()
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.d
	next = max(next, d.after) // what was published in between
	st := SubscriberStatus{
		Service: s.service, Types: d.spans.types(), Paused: d.paused, StartSeq: d.start, Cursor: d.cursor(), Counts: d.counts,
		Gone: d.gone, Overtaken: d.overtaken, Accepted: next - d.start, Waiting: d.waiting() + d.unread(next), SetAside: d.asides,
	}
	for _, it := range d.open {
		if it.letter != "" {
			st.Replaying++
		}
	}
	for _, l := range d.lanes {
		st.InFlight += len(l.inFlight)
	}
	if len(d.open) > 0 {
		st.OldestAt = time.UnixMilli(d.open[0].acceptedAt).UTC()
		st.oldestAge = max(0, s.o.store.Clock().Now().Sub(st.OldestAt))
	}
	return st
}

func (s *subscriber) lanes(now time.Time) []LaneStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]LaneStatus, 0, len(s.d.lanes))
	for _, l := range s.d.lanes {
		st := LaneStatus{Instance: l.name, URL: l.url, State: LaneIdle, Failures: l.failures, Problem: l.problem, Applied: l.answered.Applied}
		switch {
		case l.stuck(now, s.d.failover):
			st.State = LaneStuck
		case l.busy():
			st.State = LaneSending
		case l.failing() || now.Before(l.notBefore):
			st.State = LaneBackoff
		}
		if now.Before(l.notBefore) {
			st.NextAt = l.notBefore
		}
		out = append(out, st)
	}
	return out
}
