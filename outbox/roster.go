package outbox

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

const (
	directoryEvery = 10 * time.Second // the directory is looked at again, whether or not it has said that it changed
	sinceSlack     = 10 * time.Second // clocks of two services may differ by so much without an event being missed
)

// followDirectory keeps the subscribers in step with what the directory knows. It never ends what is owed because somebody
// is missing there.
func (o *Outbox) followDirectory(ctx context.Context) {
	for ctx.Err() == nil {
		changed := o.cfg.Directory.Changed()
		wait := directoryEvery
		if err := o.syncDirectory(ctx); err != nil && ctx.Err() == nil {
			o.log.Error("subscribers were not brought up to date, will try again", "err", err)
			wait = pauseOnError
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// syncDirectory takes over what each service now says.
func (o *Outbox) syncDirectory(ctx context.Context) error {
	var errs []error
	for _, service := range o.cfg.Directory.Services() {
		if err := o.syncService(ctx, service, o.cfg.Directory.Instances(service)); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// syncService takes over what the instances of one service say: new subscriptions are durable before anything is sent.
func (o *Outbox) syncService(ctx context.Context, service string, instances []event.Instance) error {
	if len(instances) == 0 {
		return nil
	}
	peers, wishes := o.readInstances(instances)
	s := o.subscriber(service)
	if s == nil {
		if len(wishes) == 0 {
			return nil
		}
		var err error
		if s, err = o.join(ctx, service, wishes); err != nil {
			return err
		}
		s.change(func(d *dispatcher) { d.setPeers(peers) })
		select {
		case o.joined <- s:
		case <-ctx.Done():
		}
		return nil
	}
	if err := s.follow(instances, wishes); err != nil {
		return err
	}
	s.mu.Lock()
	same := s.d.hasPeers(peers)
	s.mu.Unlock()
	if !same {
		s.change(func(d *dispatcher) { d.setPeers(peers) })
	}
	return nil
}

// A wish is one subscription that is announced, and by whom.
type wish struct {
	event.Subscription
	patterns  event.Patterns
	instances []string
}

// readInstances returns the instances as the dispatcher sees them, and what they ask for together.
func (o *Outbox) readInstances(instances []event.Instance) (peers []peer, wishes []wish) {
	for _, in := range instances {
		p := peer{name: in.Name, url: in.URL, storeID: in.StoreID, boot: in.Boot}
		for _, sub := range in.Subscriptions {
			patterns, err := event.ParsePatterns(sub.Types)
			if err != nil {
				o.log.Warn("subscription is not understood", "subscriber", in.Service, "instance", in.Name, "err", err)
				continue
			}
			p.patterns = append(p.patterns, patterns)
			wishes = addWish(wishes, wish{sub, patterns, []string{in.Name}})
		}
		peers = append(peers, p)
	}
	return peers, wishes
}

// addWish joins w with one for the same types: the earliest since counts.
func addWish(wishes []wish, w wish) []wish {
	for i := range wishes {
		if old := &wishes[i]; slices.Equal(old.Types, w.Types) {
			old.instances = append(old.instances, w.instances...)
			if w.Since.Before(old.Since) {
				old.Subscription = w.Subscription
			}
			return wishes
		}
	}
	return append(wishes, w)
}

// join makes a new subscriber durable, and then known.
func (o *Outbox) join(ctx context.Context, service string, wishes []wish) (*subscriber, error) {
	r := subscriberRecord{Service: service, CreatedAt: time.Now().UTC()}
	for _, w := range wishes {
		from, err := o.startOf(w.Subscription)
		if err != nil {
			return nil, err
		}
		r.Spans = append(r.Spans, span{Types: w.Types, From: from, Instances: w.instances, patterns: w.patterns})
		if r.Start == 0 || from < r.Start {
			r.Start = from
		}
	}
	r.Cursor = r.Start - 1
	if err := o.create(ctx, r); err != nil {
		return nil, err
	}
	s := o.newSubscriber(r)
	o.add(s)
	o.log.Info("new subscriber", "subscriber", service, "types", spans(r.Spans).types(), "from_seq", r.Start)
	return s, nil
}

// startOf returns the first seq that a subscription is owed.
func (o *Outbox) startOf(sub event.Subscription) (uint64, error) {
	switch sub.From {
	case "", "latest":
		return o.seqAt(sub.Since.Add(-sinceSlack))
	case "earliest":
		first, _ := o.store.Bounds(store.OutboxLog)
		return first, nil
	}
	at, err := time.Parse(time.RFC3339, sub.From)
	if err != nil {
		o.log.Warn("start of a subscription is not understood, its since is taken", "from", sub.From)
		at = sub.Since.Add(-sinceSlack)
	}
	return o.seqAt(at)
}

// follow takes over changed subscriptions of a known subscriber: additions from their own start, removals at once.
func (s *subscriber) follow(instances []event.Instance, wishes []wish) error {
	s.mu.Lock()
	now, changed, added := s.d.spans.merge(instances, wishes, s.o.tail.end()-1)
	s.mu.Unlock()
	if !changed {
		return nil
	}
	back := uint64(1<<64 - 1)
	for i := range added {
		from, err := s.o.startOf(added[i].Subscription)
		if err != nil {
			return err
		}
		now = append(now, span{Types: added[i].Types, From: from, Instances: added[i].instances, patterns: added[i].patterns})
		back = min(back, from)
	}
	ended, ok := 0, true
	s.change(func(d *dispatcher) {
		if ok = d.reachBack(back); ok {
			ended = d.setSpans(now.prune(d.cursor()))
		}
	})
	if !ok {
		return nil // an earlier change is still being read for: this one comes with the next look
	}
	s.o.log.Info("subscriptions have changed", "subscriber", s.service, "types", now.types(), "owed_events_ended", ended)
	return nil
}
