package outbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/hooksidecar/hooksidecar/internal/dedup"
	"github.com/hooksidecar/hooksidecar/internal/dial"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

// An Outbox is the outgoing half of a sidecar. Publishing works from New on; deliveries are made while Run runs.
type Outbox struct {
	cfg      Config
	store    *store.Store
	log      *slog.Logger
	metrics  *counters
	ids      *dedup.Window
	tail     *tail
	client   *retryablehttp.Client
	owned    *dial.Transport // closed when Run ends; nil if it came with the config
	bytes    atomic.Int64    // of the events kept
	patience *patience       // of publishes with the committer

	full   chan struct{}                 // somebody was refused for want of room
	table  atomic.Pointer[[]*subscriber] // by name; replaced, never changed
	joined chan *subscriber              // new ones, for Run to start
}

// New opens the outbox that lies in the store. The store stays the caller's, and is to be closed after Run has returned.
func New(cfg Config) (*Outbox, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	o := &Outbox{
		cfg: cfg, store: cfg.Store, log: cfg.Log.With("component", "outbox"),
		patience: &patience{lasting: cfg.AcceptTimeout}, full: make(chan struct{}, 1), joined: make(chan *subscriber),
	}
	if o.cfg.Transport == nil {
		o.owned = dial.NewTransport(dial.Config{AllowLoopback: true})
		o.cfg.Transport = o.owned
	}
	o.client = newClient(o.cfg.Transport)
	_, next := o.store.Bounds(store.OutboxLog)
	o.tail = newTail(next)
	o.metrics = newCounters(o)
	o.table.Store(&[]*subscriber{})
	var err error
	if o.ids, err = dedup.New(o.store, prefixID, cfg.DedupWindow); err != nil {
		return nil, fmt.Errorf("open the ids of the outbox: %w", err)
	}
	if err := o.store.View(o.restore); err != nil {
		return nil, fmt.Errorf("open the outbox: %w", err)
	}
	return o, nil
}

// restore reads what an earlier process has left: subscribers, what was set aside for them, totals.
func (o *Outbox) restore(sn *store.Snapshot) error {
	for rec, err := range sn.Scan([]byte{prefixSubscriber}, []byte{prefixSubscriber + 1}) {
		if err != nil {
			return err
		}
		if bytes.Equal(rec.Key, totalsKey()) {
			continue
		}
		var r subscriberRecord
		if err := readJSON(rec.Val, &r); err != nil {
			return fmt.Errorf("subscriber %q: %w", rec.Key[1:], err)
		}
		if err := r.compile(); err != nil {
			return fmt.Errorf("subscriber %q: %w", r.Service, err)
		}
		o.add(o.newSubscriber(r))
	}
	for _, s := range o.all() {
		if err := s.restoreAsides(sn); err != nil {
			return err
		}
	}
	return o.restoreTotals(sn)
}

// all returns the subscribers by name; the slice is shared.
func (o *Outbox) all() []*subscriber { return *o.table.Load() }

// add makes s known to publish and status. Only New and the roster add.
func (o *Outbox) add(s *subscriber) {
	list := append(slices.Clone(o.all()), s)
	slices.SortFunc(list, func(a, b *subscriber) int {
		if a.service < b.service {
			return -1
		}
		return 1
	})
	o.table.Store(&list)
}

func (o *Outbox) subscriber(service string) *subscriber {
	for _, s := range o.all() {
		if s.service == service {
			return s
		}
	}
	return nil
}

// Run delivers, follows the directory and removes what is old, until ctx ends; that is not an error. Requests under way get
// a few seconds to end, and what was decided is made durable before it returns.
func (o *Outbox) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer func() {
		running.Wait()
		if o.owned != nil {
			o.owned.Close()
		}
	}()
	for _, s := range o.all() {
		running.Go(func() { s.run(ctx) })
	}
	running.Go(func() { o.followDirectory(ctx) })
	running.Go(func() { o.retain(ctx) })
	for {
		select {
		case <-ctx.Done():
			return nil
		case s := <-o.joined:
			running.Go(func() { s.run(ctx) })
		}
	}
}

// ended reports whether the store takes nothing more.
func ended(err error) bool {
	return errors.Is(err, store.ErrClosed) || errors.Is(err, store.ErrFenced)
}

// Counts returns the totals.
func (o *Outbox) Counts() Counts {
	first, next := o.store.Bounds(store.OutboxLog)
	return Counts{
		Accepted: next - 1, Duplicates: o.metrics.duplicates.Get(), Conflicts: o.metrics.conflicts.Get(),
		TailSeq: first, NextSeq: next, Bytes: o.bytes.Load(), MaxBytes: o.cfg.MaxBytes,
	}
}
