package sidecar

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// A part of a running node. start returns at once; stop returns when the part has stopped or ctx has ended.
type part struct {
	name  string
	start func(failed func(error))
	stop  func(ctx context.Context) error
}

// parts is the order of starting; stopping is this list backwards. Publishing needs only the store and the app listener, so
// they are there first and go last.
func (n *Node) parts() []part {
	return []part{
		{"app listener", n.app.start, n.app.stop},
		{"admin listener", n.admin.start, n.admin.stop},
		loop("directory", n.directory.Run),
		{"peer listener", n.peer.start, n.peer.stop},
		loop("outbox", n.outbox.Run),
		loop("inbox", n.inbox.Run),
	}
}

// The states of a part, in the order in which it goes through them.
const (
	partStarting = "starting"
	partRunning  = "running"
	partFailed   = "failed" // then the node stops
	partStopping = "stopping"
	partStopped  = "stopped"
)

// progress is how far the parts of a node have come.
type progress struct {
	mu     sync.Mutex
	names  []string // in the order of starting
	states map[string]string
}

func (p *progress) set(name, state string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.states == nil {
		p.states = map[string]string{}
	}
	if p.states[name] == "" {
		p.names = append(p.names, name)
	}
	p.states[name] = state
}

// each calls tell for every part in order.
func (p *progress) each(tell func(name, state string)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, name := range p.names {
		tell(name, p.states[name])
	}
}

// loop makes a part of a function that runs until its context ends.
func loop(name string, run func(context.Context) error) part {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	return part{
		name: name,
		start: func(failed func(error)) {
			go func() {
				defer close(ended)
				err := run(ctx)
				if ctx.Err() == nil && err == nil {
					err = errors.New("ended without being asked")
				}
				if err != nil {
					failed(err)
				}
			}()
		},
		stop: func(stop context.Context) error {
			cancel()
			select {
			case <-ended:
				return nil
			case <-stop.Done():
				return stop.Err()
			}
		},
	}
}

// Run starts the parts and runs until ctx ends, which is no failure, or a part fails. It returns when all parts have stopped and
// the store is closed, or when the time for that is over: what was acknowledged is on disk either way. Run works once.
func (n *Node) Run(ctx context.Context) error {
	if n.used.Swap(true) {
		return errors.New("a node runs once")
	}
	failed := make(chan error, 1)
	parts := n.parts()
	for _, p := range parts {
		n.progress.set(p.name, partStarting)
	}
	for _, p := range parts {
		n.progress.set(p.name, partRunning)
		p.start(func(err error) {
			n.progress.set(p.name, partFailed)
			select {
			case failed <- fmt.Errorf("%s: %w", p.name, err):
			default: // the first failure is the reason
			}
		})
	}
	n.announceStart()
	var err error
	select {
	case <-ctx.Done():
		n.log.Info("stopping")
	case <-n.store.Fenced():
		err = n.store.Err()
	case err = <-failed:
	}
	n.stop(ctx, parts)
	if fence := n.store.Err(); fence != nil {
		err = fence // whatever failed first, this is why
	}
	return err
}

func (n *Node) announceStart() {
	n.log.Info("running", "instance", n.identity.Instance, "store_id", n.store.ID(), "boot", n.store.Boot(), "key", n.fingerprint(),
		"app", n.AppAddrs(), "peer", n.PeerAddrs(), "admin", n.AdminAddrs(), "data_dir", n.settings.DataDir)
	if localMesh(n.settings) {
		n.log.Info("only this machine can reach the peer listener; to let others in, start with --peer-listen :9902 and --peer-advertise http://HOST:9902")
	}
}

// stop stops parts backwards and closes the store, all in the time that was given. A part that does not end in time is left
// behind: the process is about to end. A quarter of the time is the store's own, so that no client that dawdles can keep it
// from being closed in order.
func (n *Node) stop(ctx context.Context, parts []part) {
	n.stopping.Store(true)
	limit := n.settings.Shutdown.Timeout
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	began := time.Now()
	n.stopParts(bounded, limit-limit/4, parts)
	if n.transport != nil {
		n.transport.Close()
	}
	closed := make(chan error, 1)
	go func() { closed <- n.store.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			n.log.Error("store did not close in order", "err", err)
		}
		n.log.Info("stopped", "took", time.Since(began))
	case <-bounded.Done():
		n.log.Warn("store was not closed in time; the next start checks it", "limit", limit)
	}
}

func (n *Node) stopParts(ctx context.Context, limit time.Duration, parts []part) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for _, p := range slices.Backward(parts) {
		n.progress.set(p.name, partStopping)
		began := time.Now()
		if err := p.stop(ctx); err != nil {
			n.log.Warn("part did not stop in order", "part", p.name, "err", err)
			continue
		}
		n.progress.set(p.name, partStopped)
		n.log.Debug("part stopped", "part", p.name, "took", time.Since(began))
	}
}

// Close gives up a node that was never run. After Run it does nothing.
func (n *Node) Close() error {
	if n.used.Swap(true) {
		return nil
	}
	if n.transport != nil {
		n.transport.Close()
	}
	return errors.Join(closeAll(n.app.listeners), closeAll(n.peer.listeners), closeAll(n.admin.listeners), n.store.Close())
}
