package outbox

import (
	"context"
	"fmt"

	"github.com/hooksidecar/hooksidecar/internal/deadletter"
	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/problem"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

// ReplayLetter sends the event of a dead letter of this side again. When it returns, that is durable; asking twice is asking
// once. Errors: deadletter.ErrNotFound; a *problem.Problem with not_dead if the letter is resolved or purged.
func (o *Outbox) ReplayLetter(ctx context.Context, id string) error {
	var service string
	var seq uint64
	var record *asideRecord
	err := o.store.Commit(ctx, store.Op{Class: store.Work, Apply: func(tx *store.Tx) error {
		record = nil
		l, ok, err := deadletter.Get(tx, id)
		if err != nil {
			return err
		}
		if !ok || l.Side != deadletter.Outbox {
			return fmt.Errorf("dead letter %s: %w", id, deadletter.ErrNotFound)
		}
		if l.State == deadletter.Replaying {
			return nil
		}
		if l.State != deadletter.Dead && l.State != deadletter.Waiting {
			return problem.New("not_dead", fmt.Sprintf("dead letter %s is %s: there is nothing left to send", id, l.State))
		}
		service, seq = l.Subscriber, l.Seq
		record, err = setUp(tx, l)
		return err
	}})
	if err != nil || record == nil {
		return err
	}
	s := o.subscriber(service)
	if s == nil {
		return fmt.Errorf("dead letter %s: subscriber %q is not known", id, service)
	}
	s.change(func(d *dispatcher) { d.restoreAside(seq, *record) })
	return nil
}

// setUp writes the set-aside record by which a dead letter is sent again, with its own copy of the event.
func setUp(tx *store.Tx, l deadletter.Letter) (*asideRecord, error) {
	attributes, data, ok, err := deadletter.Event(tx, l.ID)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("dead letter %s has no copy of its event", l.ID)
	}
	ev, err := event.ParseAttributes(attributes)
	if err != nil {
		return nil, fmt.Errorf("dead letter %s: %w", l.ID, err)
	}
	ev.Data = data
	e := &entry{seq: l.Seq, digest: ev.Digest(), attributes: attributes, data: data}
	e.describe(&ev)
	r := asideRecord{
		Reason: "replay", Key: e.key, Route: e.route, Type: e.typ, Version: e.version, Size: e.size(),
		AcceptedAt: l.FirstAt.UnixMilli(), Attempts: l.Attempts, Letter: l.ID,
	}
	if val, ok, err := tx.Get(eventKey(l.Seq)); err != nil {
		return nil, err
	} else if ok {
		if r.AcceptedAt, err = eventAcceptedAt(val); err != nil {
			return nil, err
		}
	}
	e.acceptedAt = r.AcceptedAt
	if err := putAside(tx, l.Subscriber, l.Seq, r, e); err != nil {
		return nil, err
	}
	return &r, deadletter.SetState(tx, l.ID, deadletter.Replaying)
}

// Pause stops deliveries to a subscriber; what it is owed is kept and counted. It returns once that is durable; Run must be
// running. Errors: a *problem.Problem with not_found.
func (o *Outbox) Pause(ctx context.Context, service string) error {
	return o.setPaused(ctx, service, true)
}

// Resume ends Pause.
func (o *Outbox) Resume(ctx context.Context, service string) error {
	return o.setPaused(ctx, service, false)
}

func (o *Outbox) setPaused(ctx context.Context, service string, paused bool) error {
	s := o.subscriber(service)
	if s == nil {
		return problem.New("not_found", fmt.Sprintf("there is no subscriber %q", service))
	}
	return s.changeDurably(ctx, func(d *dispatcher) { d.paused = paused })
}
