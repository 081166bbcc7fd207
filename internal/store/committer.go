package store

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// What one group holds at most. One operation alone may be larger, up to Badger's own limit.
const (
	maxGroupEvents = 512
	maxGroupBytes  = 1 << 20
)

// spaceRetry is how often a committer that has stopped for want of space looks again.
const spaceRetry = 200 * time.Millisecond

// fenceGrace is how long a commit under way may take after the fence was closed.
const fenceGrace = time.Second

// Commit stores op and waits until it is synced. If ctx ends while op is queued, the result is ctx.Err() and
// op is certainly not stored; once its group has begun, Commit waits for the outcome. On a full disk that can
// be until there is room again; those queued behind it get ErrDiskFloor.
func (s *Store) Commit(ctx context.Context, op Op) error {
	if err := ctx.Err(); err != nil {
		if op.Done != nil {
			op.Done(err)
		}
		return err
	}
	p := &pending{op: op, done: make(chan struct{}), no: make(chan struct{})}
	s.enqueue(p)
	select {
	case <-p.done:
		return p.err
	case <-p.no:
		p.op.Apply = nil
		return ErrDiskFloor
	case <-s.fence.closed:
	case <-ctx.Done():
		p.gone = ctx.Err()
		if p.state.CompareAndSwap(opQueued, opGivenUp) {
			p.op.Apply = nil // and what it holds on to: a queue that stands still must not fill memory
			return p.gone
		}
		if p.state.Load() == opRefused {
			return ErrDiskFloor
		}
	}
	return s.outcome(p)
}

// outcome waits for an operation that has been taken. A commit may hang for good once Badger cannot flush;
// then the fence answers.
func (s *Store) outcome(p *pending) error {
	select {
	case <-p.done:
		return p.err
	case <-s.fence.closed:
	}
	select {
	case <-p.done:
		return p.err
	case <-time.After(fenceGrace):
		return s.fence.err()
	}
}

// Enqueue stores op without waiting. The queue has no bound: the caller bounds itself.
func (s *Store) Enqueue(op Op) { s.enqueue(&pending{op: op}) }

func (s *Store) enqueue(p *pending) {
	if s.queue.put(p) {
		return
	}
	// Not on the caller's stack: it may hold a lock that Done takes.
	go func() {
		if p.state.CompareAndSwap(opQueued, opTaken) {
			p.finish(ErrClosed)
		} else {
			p.finish(p.reason())
		}
	}()
}

// committer is the only writer. Its state is that of the last synced group.
type committer struct {
	s        *Store
	state    state
	tx       Tx
	lastMono time.Time                 // when the last group was made, for times that never go back
	limit    int                       // operations in the next group; 0: no limit
	began    atomic.Pointer[time.Time] // of the group that is being committed; nil: none is
}

// heldUp reports whether the group under way has taken so long that those behind it should not wait.
func (c *committer) heldUp() bool {
	began := c.began.Load()
	return began != nil && time.Since(*began) > time.Second
}

// run makes groups until the queue is closed and empty. After a fence it refuses what comes.
func (c *committer) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		wait, ended := c.s.queue.due(time.Now())
		if ended {
			return
		}
		if wait == 0 && c.round() {
			continue
		}
		if wait == 0 {
			wait = spaceRetry
		}
		var after <-chan time.Time
		if wait > 0 {
			timer.Reset(wait)
			after = timer.C
		}
		select {
		case <-c.s.queue.wake:
		case <-after:
		}
	}
}

// round makes one group, or refuses what may not be written. It reports false if all that waits has to
// wait for disk space.
func (c *committer) round() bool {
	q := c.s.queue
	if err := c.s.fence.err(); err != nil {
		refuse(q.takeAll(), err)
		return true
	}
	level := c.s.space.check()
	if level == spaceFloor {
		refuse(q.takeUrgent(), ErrDiskFloor)
		if !q.isClosed() {
			return false
		}
		refuse(q.takeAll(), ErrDiskFloor)
		return true
	}
	ops := q.take(maxGroupEvents, maxGroupBytes)
	if c.limit > 0 && len(ops) > c.limit {
		q.putBack(ops[c.limit:])
		ops = ops[:c.limit]
	}
	c.limit = 0
	ops = admit(ops, level)
	if len(ops) == 0 {
		return true
	}
	q.putBack(c.group(ops))
	return true
}

func (q *queue) isClosed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed
}

func refuse(ops []*pending, err error) {
	for _, p := range ops {
		if p.state.CompareAndSwap(opQueued, opTaken) {
			p.finish(err)
		} else {
			p.drop(err)
		}
	}
}

// drop ends an operation that is not queued any more: one that was put back has been taken before.
func (p *pending) drop(err error) {
	if p.state.Load() != opTaken {
		err = p.reason()
	}
	p.finish(err)
}

// admit takes ops out of their callers' hands, and refuses those that have been given up or are not
// allowed at this level of space.
func admit(ops []*pending, level spaceLevel) []*pending {
	kept := ops[:0]
	for _, p := range ops {
		taken := p.state.CompareAndSwap(opQueued, opTaken) || p.state.Load() == opTaken
		switch {
		case !taken:
			p.finish(p.reason())
		case level == spaceLow && p.op.Class == Intake:
			p.finish(ErrDiskLow)
		default:
			kept = append(kept, p)
		}
	}
	return kept
}

// group writes ops as one transaction, syncs, and tells each its outcome. What did not fit is returned.
func (c *committer) group(ops []*pending) (rest []*pending) {
	results := make([]error, len(ops))
	began := time.Now()
	c.began.Store(&began)
	defer c.began.Store(nil)
	g, err := c.build(ops, results)
	if errors.Is(err, badger.ErrTxnTooBig) {
		// Our own sizing was wrong; fewer operations settle it.
		if len(ops) == 1 {
			ops[0].finish(ErrTooLarge)
			return nil
		}
		c.limit = len(ops) / 2
		return ops
	}
	if err == nil && g.writes > 0 {
		err = c.commit(g, began)
	}
	if err != nil {
		err = c.s.fenceWith(err)
		refuse(ops, err)
		return nil
	}
	for i, p := range ops[:g.taken] {
		p.finish(results[i])
	}
	return ops[g.taken:]
}

// building is a group before its commit.
type building struct {
	txn    *badger.Txn
	state  state
	taken  int // operations that are in, or have failed by themselves
	writes int
	events int
}

// build runs the operations into one transaction. It stops at the first that does not fit any more.
func (c *committer) build(ops []*pending, results []error) (g *building, err error) {
	defer func() {
		// A panic below is Badger's or an owner's; either way nobody knows what memory is like now.
		if r := recover(); r != nil {
			err = fmt.Errorf("panic in the committer: %v\n%s", r, debug.Stack())
		}
	}()
	g = &building{txn: c.s.db.NewTransactionAt(c.state.ts, true), state: c.state}
	now := c.advance(&g.state)
	c.tx.txn, c.tx.now, c.tx.fits = g.txn, now, c.s.limits
	var size, count int64
	for i, p := range ops {
		c.tx.reset(g.state.logs)
		results[i] = c.tx.run(p.op)
		if results[i] == nil && (c.tx.size >= c.s.limits.size || int64(len(c.tx.writes)) >= c.s.limits.count) {
			results[i] = ErrTooLarge
		}
		if results[i] != nil {
			g.taken++
			continue
		}
		size += c.tx.size
		count += int64(len(c.tx.writes))
		if size >= c.s.limits.size || count >= c.s.limits.count {
			return g, nil
		}
		if err := c.tx.merge(g); err != nil {
			return g, err
		}
		g.taken++
		g.events += max(1, p.op.Events)
	}
	return g, nil
}

func (tx *Tx) run(op Op) error {
	if op.Apply == nil {
		return nil
	}
	if err := op.Apply(tx); err != nil {
		return err
	}
	return tx.err
}

// merge moves the operation's writes into the group.
func (tx *Tx) merge(g *building) error {
	for _, w := range tx.writes {
		var err error
		if w.val == nil {
			err = tx.txn.Delete(w.key)
		} else {
			err = tx.txn.Set(w.key, w.val)
		}
		if err != nil {
			return err
		}
	}
	g.writes += len(tx.writes)
	if tx.logs != g.state.logs || tx.touch {
		g.writes++ // a taken seq is a change by itself
		g.state.logs = tx.logs
	}
	for _, d := range tx.deltas {
		g.state.live[d.prefix] += d.n
	}
	return nil
}

// advance moves the state's clocks to now and returns the time of the group. A wall clock that was put back
// does not stop the time of groups, it halves it.
func (c *committer) advance(st *state) time.Time {
	now := time.Now()
	var passed time.Duration
	if !c.lastMono.IsZero() {
		passed = now.Sub(c.lastMono)
	}
	c.lastMono = now
	st.wall = max(now.UnixMilli(), st.wall+(passed/2).Milliseconds())
	st.age = c.s.clock.Now().UnixMilli()
	return time.UnixMilli(st.wall)
}

// commit writes the group with its m record and makes it visible to readers.
func (c *committer) commit(g *building, began time.Time) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic in badger: %v\n%s", r, debug.Stack())
		}
	}()
	g.state.ts++
	if err := g.txn.Set(stateKey, seal(nil, stateKey, g.state.append(nil))); err != nil {
		return fmt.Errorf("write state of group %d: %w", g.state.ts, err)
	}
	syncing := time.Now()
	if err := g.txn.CommitAt(g.state.ts, nil); err != nil {
		return fmt.Errorf("commit group %d: %w", g.state.ts, err)
	}
	c.state = g.state
	c.s.publish(g.state)
	c.s.metrics.committed(g.events, time.Since(syncing), time.Since(began))
	return nil
}

// touch commits a group of nothing but the m record, to put the time on record.
func (c *committer) touch() error {
	g := &building{txn: c.s.db.NewTransactionAt(c.state.ts, true), state: c.state}
	c.advance(&g.state)
	return c.commit(g, time.Now())
}
