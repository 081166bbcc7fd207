package store

import "time"

const (
	gateRetry = 20 * time.Millisecond
	// gateSettles is after how long a table that was let through is in the free space, if its file does not
	// tell sooner.
	gateSettles = time.Second
)

// A gate lets a compaction write its next table only if there is room. Badger has no such thing: a compaction
// can need as much as the level that it moves a table into, and nobody can tell beforehand. So Badger's
// logger, which each compaction calls between filling a table and writing it, waits here; inputs stay until
// all outputs are written, so waiting is always safe.
type gate struct {
	passed  []passage // not written yet, oldest first; guarded by spaceGuard.mu
	waiting int       // compactions that wait; guarded by spaceGuard.mu
	closing bool      // guarded by spaceGuard.mu
	stuck   chan struct{}
}

type passage struct {
	at        time.Time
	compactor int
	size      int64
}

// pass waits until there is room for the next table of a compactor. While anyone waits, the ballast is given
// up and nothing is committed. It does not return once the database is to be closed and there is no room:
// closing waits for compactions, and so has to be given up.
func (g *spaceGuard) pass(compactor int) {
	if g.margin == 0 || g.tryPass(compactor) {
		return
	}
	g.mu.Lock()
	g.gate.waiting++
	first := g.gate.waiting == 1
	g.mu.Unlock()
	if first {
		g.log.Warn("compaction waits for disk space", "free_bytes", g.free.Load())
	}
	for g.check(); !g.tryPass(compactor); g.check() {
		g.mu.Lock()
		if g.gate.closing && g.gate.stuck != nil {
			close(g.gate.stuck)
			g.gate.stuck = nil
		}
		g.mu.Unlock()
		time.Sleep(gateRetry)
	}
	g.mu.Lock()
	g.gate.waiting--
	g.mu.Unlock()
}

func (g *spaceGuard) tryPass(compactor int) bool {
	sp, err := g.statfs(g.dir)
	if err != nil {
		return true // what cannot be measured cannot be guarded
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if sp.freeBytes > 2*g.low() {
		return true
	}
	if g.tree == nil {
		return sp.freeBytes >= g.margin
	}
	now := time.Now()
	g.gate.settle(g.tree.takeFresh(), now)
	size := g.tree.tree.largestOutput()
	if compactor == 0 && !g.gate.several(size) {
		size = max(size, g.tree.tree.zeroOutput())
	}
	// Half of the margin stays for flushes.
	if sp.freeBytes < g.margin/2+g.gate.owed()+size {
		return false
	}
	g.gate.passed = append(g.gate.passed, passage{now, compactor, size})
	return true
}

// several reports whether compactor 0 has a table under way already: then it makes several, none of which is
// larger than size.
func (g *gate) several(size int64) (yes bool) {
	for i := range g.passed {
		if p := &g.passed[i]; p.compactor == 0 {
			p.size = min(p.size, size)
			yes = true
		}
	}
	return yes
}

// settle forgets the tables that have been written.
func (g *gate) settle(written int, now time.Time) {
	g.passed = g.passed[min(written, len(g.passed)):]
	for len(g.passed) > 0 && now.Sub(g.passed[0].at) > gateSettles {
		g.passed = g.passed[1:]
	}
}

// owed is what the tables that were let through may still take.
func (g *gate) owed() (n int64) {
	for _, p := range g.passed {
		n += p.size
	}
	return n
}

// closeGate makes the channel that is closed when a compaction keeps the database from being closed.
func (g *spaceGuard) closeGate() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	stuck := make(chan struct{})
	g.gate.closing, g.gate.stuck = true, stuck
	return stuck
}
