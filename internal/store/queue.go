package store

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// lazyWait is how long a Lazy operation may wait for company.
const lazyWait = 10 * time.Millisecond

const (
	opQueued int32 = iota
	opTaken
	opGivenUp // by its caller, for a reason of his
	opRefused // while the committer could not, for want of disk space
)

// A pending is an operation on its way through the committer.
type pending struct {
	op    Op
	at    time.Time
	state atomic.Int32  // queued, then one of the others
	done  chan struct{} // closed with err set; nil for Enqueue
	no    chan struct{} // closed when it is refused; nil for Enqueue
	gone  error         // why it was given up; set before state
	err   error
}

// reason is why an operation that was not taken did not come about.
func (p *pending) reason() error {
	if p.state.Load() == opRefused {
		return ErrDiskFloor
	}
	return p.gone
}

// finish tells whoever waits.
func (p *pending) finish(err error) {
	if p.op.Done != nil {
		p.op.Done(err)
	}
	p.err = err
	if p.done != nil {
		close(p.done)
	}
}

// queue holds operations in the order in which they came. Many put, the committer takes.
type queue struct {
	mu     sync.Mutex
	ops    []*pending
	urgent int // how many are not Lazy
	closed bool
	wake   chan struct{}
}

func newQueue() *queue { return &queue{wake: make(chan struct{}, 1)} }

// put appends p and reports whether the queue was still open.
func (q *queue) put(p *pending) bool {
	p.at = time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.ops = append(q.ops, p)
	if p.op.Class != Lazy {
		q.urgent++
	}
	// The committer needs waking by the first operation, and by the first urgent one.
	if len(q.ops) == 1 || (p.op.Class != Lazy && q.urgent == 1) {
		q.poke()
	}
	return true
}

func (q *queue) poke() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// close makes take return what is left and then report the end.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.poke()
}

// due says how long the committer may still sleep, and whether the queue is closed and empty.
// A negative wait means until it is woken.
func (q *queue) due(now time.Time) (wait time.Duration, ended bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case len(q.ops) == 0 && q.closed:
		return 0, true
	case len(q.ops) == 0:
		return -1, false
	case q.urgent > 0 || q.closed:
		return 0, false
	}
	return max(0, lazyWait-now.Sub(q.ops[0].at)), false
}

// take removes and returns what fits in one group, at least one operation if there is any.
func (q *queue) take(events, bytes int) []*pending {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := 0
	for n < len(q.ops) {
		op := &q.ops[n].op
		events -= max(1, op.Events)
		bytes -= op.Bytes
		if n > 0 && (events < 0 || bytes < 0) {
			break
		}
		n++
	}
	return q.cut(n)
}

// takeUrgent removes and returns all that is not Lazy.
func (q *queue) takeUrgent() []*pending {
	q.mu.Lock()
	defer q.mu.Unlock()
	var urgent []*pending
	q.ops = slices.DeleteFunc(q.ops, func(p *pending) bool {
		if p.op.Class == Lazy {
			return false
		}
		urgent = append(urgent, p)
		return true
	})
	q.urgent = 0
	return urgent
}

// refuseWaiting tells those who wait in Commit, and would go on waiting while the committer is held up. Done
// is left to the committer.
func (q *queue) refuseWaiting() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range q.ops {
		if p.no != nil && p.op.Class != Lazy && p.state.CompareAndSwap(opQueued, opRefused) {
			close(p.no)
		}
	}
}

// takeAll removes and returns everything.
func (q *queue) takeAll() []*pending {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.cut(len(q.ops))
}

// putBack returns operations to the head of the queue.
func (q *queue) putBack(ops []*pending) {
	if len(ops) == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ops = slices.Concat(ops, q.ops)
	for _, p := range ops {
		if p.op.Class != Lazy {
			q.urgent++
		}
	}
}

func (q *queue) cut(n int) []*pending {
	taken := q.ops[:n:n]
	q.ops = q.ops[n:]
	if len(q.ops) == 0 {
		q.ops = nil
	}
	for _, p := range taken {
		if p.op.Class != Lazy {
			q.urgent--
		}
	}
	return taken
}
