package inbox

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/hooksidecar/hooksidecar/internal/backoff"
	"github.com/hooksidecar/hooksidecar/internal/dedup"
	"github.com/hooksidecar/hooksidecar/internal/signature"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

// ErrRunning is returned by a second Run.
var ErrRunning = errors.New("inbox is running already")

// An Inbox is one service's inbox. Its handlers may be used as soon as New returns; events are forwarded while Run runs.
type Inbox struct {
	cfg      Config
	log      *slog.Logger
	store    *store.Store
	window   *dedup.Window
	keys     signature.Ring
	app      *appClient // nil without an app
	siblings *siblings
	m        *inboxMetrics
	firstN   uint64 // inbox seqs below it were there before this process

	answers chan flightResult
	saved   chan error
	wake    chan struct{} // cap 1: there is something new to look at

	mu      sync.Mutex // guards what follows; never held over I/O
	running bool
	f       *forwarder
	tail    tail
	senders map[string]*senderLog // by store id
	also    map[uint64][]logSeq   // inbox seq -> further senders that wait for it
	skipped spanSet               // settled above the cursor when the process started
	held    int64                 // bytes of events that the forwarder's items hold
	settler settler
	ending  map[uint64]struct{}  // taken by the app, which is not durable yet; without replays
	again   map[uint64]item      // replays that wait until the end of the same event is noted here
	shown   appMode              // last logged
	coming  map[*accept]struct{} // requests that are being decided
}

// A logSeq is one event of one sender's log.
type logSeq struct {
	log string
	seq uint64
}

// New makes an inbox from what its store holds. It reads the records of what is unsettled, not the history.
func New(cfg Config) (*Inbox, error) {
	if err := cfg.settle(); err != nil {
		return nil, fmt.Errorf("inbox: %w", err)
	}
	window, err := dedup.New(cfg.Store, 'd', cfg.DedupWindow)
	if err != nil {
		return nil, fmt.Errorf("inbox: %w", err)
	}
	in := &Inbox{
		cfg: cfg, log: cfg.Log, store: cfg.Store, window: window, keys: signature.Ring(cfg.Keys),
		firstN:  cfg.Store.AtOpen(store.InboxLog),
		answers: make(chan flightResult, cfg.App.Concurrency),
		saved:   make(chan error, 1),
		wake:    make(chan struct{}, 1),
		senders: map[string]*senderLog{},
		also:    map[uint64][]logSeq{},
		again:   map[uint64]item{},
		ending:  map[uint64]struct{}{},
		shown:   appUp,
		coming:  map[*accept]struct{}{},
	}
	if err := in.load(); err != nil {
		return nil, fmt.Errorf("inbox: %w", err)
	}
	if cfg.App.URL != "" {
		if in.app, err = newAppClient(&in.cfg); err != nil {
			return nil, fmt.Errorf("inbox: %w", err)
		}
	}
	in.siblings = newSiblings(in)
	in.m = newMetrics(cfg.Metrics, in)
	return in, nil
}

func policiesOf(subs []Subscription) []retryPolicy {
	policies := make([]retryPolicy, len(subs))
	for i, s := range subs {
		policies[i] = retryPolicy{
			wait:        backoff.Policy{Base: s.Retry.Initial, Max: s.Retry.MaxInterval},
			maxAttempts: s.Retry.MaxAttempts,
		}
	}
	return policies
}

// poke makes Run look again.
func (in *Inbox) poke() {
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

// sender returns what is known of a log. The caller holds in.mu.
func (in *Inbox) sender(storeID, service, instance string) *senderLog {
	s := in.senders[storeID]
	if s == nil {
		s = newSenderLog(service, instance)
		in.senders[storeID] = s
	}
	return s
}

// replayed gives the forwarder an event whose letter is being replayed. The caller holds in.mu.
func (in *Inbox) replayed(it item) {
	if in.f.items[it.seq] != nil { // its letter is durable, which is about to be noted
		in.again[it.seq] = it
		return
	}
	in.f.backlogBytes += int64(it.size)
	in.f.except(&it)
}

// reap takes what the forwarder has settled. The caller holds in.mu.
func (in *Inbox) reap() {
	for i := range in.f.closed {
		it := &in.f.closed[i]
		if it.event != nil {
			in.held -= int64(it.event.size())
		}
		if !it.dying && it.letter == "" {
			in.ending[it.seq] = struct{}{}
		}
		in.settler.dirty = true
	}
	closed := in.f.closed
	in.f.closed = nil
	for i := range closed {
		if it, wanted := in.again[closed[i].seq]; wanted {
			delete(in.again, it.seq)
			in.replayed(it)
		}
	}
	clear(closed)
	in.f.closed = closed[:0]
}

// ended tells the senders' logs that the end of an event is durable: before that it is not applied. The caller holds in.mu.
func (in *Inbox) ended(it *item) {
	delete(in.ending, it.seq)
	if s := in.senders[it.log]; s != nil && it.letter == "" {
		s.closed(it.logSeq)
	}
	for _, ref := range in.also[it.seq] {
		if s := in.senders[ref.log]; s != nil {
			s.closed(ref.seq)
		}
	}
	delete(in.also, it.seq)
}
