package sidecar

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/hooksidecar/hooksidecar/inbox"
	"github.com/hooksidecar/hooksidecar/internal/admin"
	"github.com/hooksidecar/hooksidecar/internal/deadletter"
	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/problem"
	"github.com/hooksidecar/hooksidecar/internal/store"
	"github.com/hooksidecar/hooksidecar/outbox"
)

// operations is a node as operators see it: an admin.Node.
type operations struct{ *Node }

func (n *Node) operations() *admin.Server { return admin.NewServer(operations{n}, n.log) }

// Status puts together what each part says of itself. The parts are asked one after the other, so that sums can be off by
// what happens in between.
func (o operations) Status() (admin.Status, error) {
	s := admin.Status{
		Service: o.settings.Service, Instance: o.identity.Instance, Version: o.version,
		StoreID: o.store.ID(), Boot: o.store.Boot(), StartedAt: o.startedAt.UTC(), Key: o.fingerprint(),
		Listeners:   admin.Listeners{App: o.AppAddrs(), Peer: o.PeerAddrs(), Admin: o.AdminAddrs()},
		Readiness:   o.Readiness(),
		Outbox:      o.outboxStatus(),
		Inbox:       o.inboxStatus(),
		Store:       o.storeStatus(),
		DeadLetters: o.store.Live('x'),
		Subscribers: o.Subscribers(),
		Peers:       o.Peers(),
	}
	return s, nil
}

// fingerprint is of the key that signs.
func (n *Node) fingerprint() string { return n.keys[0].Public().Fingerprint() }

func (o operations) outboxStatus() admin.Outbox {
	c := o.outbox.Counts()
	return admin.Outbox{Accepted: c.Accepted, Duplicates: c.Duplicates, Conflicts: c.Conflicts, FirstSeq: c.TailSeq, NextSeq: c.NextSeq,
		Events: o.store.Live('e'), Bytes: c.Bytes, MaxBytes: c.MaxBytes}
}

func (o operations) inboxStatus() admin.Inbox {
	in := o.inbox.Status()
	types := []string{}
	for _, s := range o.settings.App.Subscriptions {
		types = append(types, s.Types...)
	}
	return admin.Inbox{AppURL: o.settings.App.URL, AppState: in.AppState, HeldUntil: in.HeldUntil, Parked: in.Parked, Types: types,
		Backlog: int64(in.Backlog), Waiting: int64(in.Waiting), InFlight: in.InFlight, OldestAt: in.OldestAt, NextSeq: in.Next}
}

func (o operations) storeStatus() admin.Store {
	space := o.store.Space()
	s := admin.Store{State: space.State, FreeBytes: space.FreeBytes, UsedBytes: space.UsedBytes, CleanStart: o.store.CleanStart()}
	if o.store.Err() != nil {
		s.State = "fenced"
	}
	for _, l := range o.store.Lost() {
		s.Lost = append(s.Lost, admin.Lost{Log: l.Log.String(), From: l.From, To: l.To})
	}
	return s
}

// Readiness is about taking events: a node without peers, or whose app is down, still takes them. What it says of the parts is
// for people.
func (o operations) Readiness() admin.Readiness {
	stored := o.storeStatus()
	parts := []admin.Part{{Name: "store", State: stored.State, OK: stored.State == "ok"}}
	o.progress.each(func(name, state string) {
		parts = append(parts, admin.Part{Name: name, State: state, OK: state == partRunning})
	})
	parts = append(parts, o.appPart(), peersPart(o.Peers()))
	return admin.Readiness{Ready: stored.State != "fenced" && !o.stopping.Load(), Parts: parts}
}

func (o operations) appPart() admin.Part {
	if o.settings.App.URL == "" {
		return admin.Part{Name: "app", State: "none", OK: true, Detail: "publish only, app.url is not set"}
	}
	in := o.inbox.Status()
	part := admin.Part{Name: "app", State: in.AppState, OK: in.AppState == "up"}
	switch {
	case !in.HeldUntil.IsZero():
		part.Detail = "tried again " + in.HeldUntil.UTC().Format(time.RFC3339)
	case len(in.Parked) > 0:
		part.State, part.OK, part.Detail = "parked", false, "answered 410 for "+strings.Join(in.Parked, ", ")
	}
	return part
}

func peersPart(peers []admin.Peer) admin.Part {
	var troubled []string
	for _, p := range peers {
		if p.Error != "" {
			troubled = append(troubled, p.URL+": "+p.Error)
		}
	}
	return admin.Part{Name: "peers", State: fmt.Sprintf("%d of %d well", len(peers)-len(troubled), len(peers)), OK: len(troubled) == 0,
		Detail: strings.Join(troubled, "; ")}
}

// Subscribers returns how each service that is owed events stands.
func (o operations) Subscribers() []admin.Subscriber {
	all := []admin.Subscriber{}
	for _, s := range o.outbox.Subscribers() {
		sub := admin.Subscriber{Service: s.Service, State: "active", Types: s.Types, StartSeq: s.StartSeq, Cursor: s.Cursor,
			Accepted: s.Accepted, Backlog: s.Waiting, Stored: s.Counts.Stored, Dead: s.Counts.Dead, Unsubscribed: s.Counts.Unsubscribed,
			Skipped: s.Counts.Skipped, Lost: s.Counts.Lost, SetAside: s.SetAside, OldestAt: s.OldestAt, Lanes: []admin.LaneInfo{}}
		stuck := len(s.Lanes) > 0
		for _, l := range s.Lanes {
			sub.Lanes = append(sub.Lanes, admin.LaneInfo{Instance: l.Instance, URL: l.URL, State: l.State, Failures: l.Failures, Error: l.Problem, Applied: l.Applied})
			stuck = stuck && l.State == outbox.LaneStuck
			if sub.Detail == "" {
				sub.Detail = l.Problem
			}
		}
		switch {
		case s.Paused:
			sub.State = "paused"
		case stuck:
			sub.State = "stuck"
		}
		all = append(all, sub)
	}
	return all
}

// Peers returns every sidecar that is known or looked for.
func (o operations) Peers() []admin.Peer {
	all := []admin.Peer{}
	for _, p := range o.directory.Status() {
		all = append(all, admin.Peer{URL: p.URL, Service: p.Service, Instance: p.Instance, State: p.State, Error: p.Error, LastSeenAt: p.LastSeenAt, Fingerprint: p.Fingerprint})
	}
	return all
}

// Event looks on both sides. An event is known by its source too; without one, every source that may have come this way is tried.
func (o operations) Event(ctx context.Context, source, id string) (admin.Event, error) {
	found := admin.Event{ID: id}
	published, ok, err := o.outbox.Event(ctx, id)
	if err != nil {
		return found, err
	}
	if ok && (source == "" || source == published.Source) {
		found.Published = append(found.Published, showPublished(published))
	}
	sources := []string{source}
	if source == "" {
		sources = o.sources()
	}
	for _, s := range sources {
		received, ok, err := o.inbox.Event(ctx, s, id)
		if err != nil {
			return found, err
		}
		if ok {
			found.Received = append(found.Received, showReceived(s, received))
		}
	}
	return found, nil
}

// sources returns the names that events here can have been published under.
func (o operations) sources() []string {
	names := append([]string{o.settings.Service}, o.settings.Outbox.Sources...)
	for _, service := range o.directory.Services() {
		names = append(names, service)
		for _, instance := range o.directory.Instances(service) {
			names = append(names, instance.Sources...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func showPublished(e outbox.EventStatus) admin.Published {
	p := admin.Published{Source: e.Source, Type: e.Type, Key: e.Key, CorrelationID: e.CorrelationID, Seq: e.Seq, AcceptedAt: e.AcceptedAt, Deliveries: []admin.Delivery{}}
	for _, d := range e.Subscribers {
		p.Deliveries = append(p.Deliveries, admin.Delivery{Subscriber: d.Service, State: d.State, Attempts: d.Attempts, Reason: d.Reason, Letter: d.Letter})
	}
	return p
}

func showReceived(source string, e inbox.EventStatus) admin.Received {
	return admin.Received{Source: source, Seq: e.Seq, State: e.State, ArrivedAt: e.ReceivedAt, DueAt: e.Due, Attempts: e.Attempts, Reason: e.Why, Letter: e.Letter}
}

// Letters returns a page of the dead letters of both sides.
func (o operations) Letters(q admin.Query) (page admin.Letters, err error) {
	filter := deadletter.Filter{Side: q.Side, Subscriber: q.Subscriber, Reason: q.Reason, State: q.State, Limit: q.Limit, After: q.After}
	if q.Type != "" {
		if filter.Type, err = event.ParsePatterns([]string{q.Type}); err != nil {
			return page, err
		}
	}
	err = o.store.View(func(sn *store.Snapshot) (err error) {
		page.Letters, page.Next, err = deadletter.List(sn, filter)
		return err
	})
	if page.Letters == nil {
		page.Letters = []deadletter.Letter{}
	}
	return page, err
}

// Letter returns one dead letter with its event.
func (o operations) Letter(id string) (l admin.Letter, err error) {
	err = o.store.View(func(sn *store.Snapshot) error {
		letter, ok, err := deadletter.Get(sn, id)
		if err != nil {
			return err
		}
		if !ok {
			return deadletter.ErrNotFound
		}
		l.Letter = letter
		attributes, data, ok, err := deadletter.Event(sn, id)
		if err == nil && ok {
			l.Event, err = envelope(attributes, data)
		}
		return err
	})
	return l, err
}

// envelope returns an event as an app gets it.
func envelope(attributes, data []byte) (json.RawMessage, error) {
	e, err := event.ParseAttributes(attributes)
	if err != nil {
		return nil, err
	}
	return event.AppendEnvelope(nil, attributes, data, e.Binary()), nil
}

// Replay has the side that gave the event up try again.
func (o operations) Replay(ctx context.Context, id string) error {
	l, err := o.Letter(id)
	if err != nil {
		return err
	}
	if o.stopping.Load() {
		return problem.New("stopping", "the sidecar is stopping; ask again once it is back")
	}
	if l.Side == deadletter.Outbox {
		return o.outbox.ReplayLetter(ctx, id)
	}
	err = o.inbox.ReplayLetter(ctx, id)
	if errors.Is(err, inbox.ErrNotDead) {
		return problem.New("not_dead", "dead letter "+id+" is "+l.State)
	}
	return err
}

// Backup writes one backup at a time: each keeps versions of records alive that would be removed otherwise.
func (o operations) Backup(w io.Writer) error {
	if !o.backup.TryLock() {
		return problem.New("busy", "a backup is being written already; ask again when it is done")
	}
	defer o.backup.Unlock()
	return o.store.Backup(untilStopping{w, o.Node})
}

// untilStopping fails once the node is asked to stop: a backup that takes long must not hold that up.
type untilStopping struct {
	io.Writer
	node *Node
}

func (u untilStopping) Write(b []byte) (int, error) {
	if u.node.stopping.Load() {
		return 0, problem.New("stopping", "the sidecar is stopping; back its store up with --data-dir")
	}
	return u.Writer.Write(b)
}

// ResumeInbox lets forwarding go on.
func (o operations) ResumeInbox(accept bool) { o.inbox.Resume(accept) }
