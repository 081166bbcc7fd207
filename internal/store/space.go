package store

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
)

// spaceLevel is what free space allows.
type spaceLevel int32

const (
	spaceOK    spaceLevel = iota
	spaceLow              // no Intake
	spaceFloor            // nothing
)

func (l spaceLevel) String() string { return [...]string{"ok", "disk_low", "disk_floor"}[l] }

const (
	defaultFloor = 64 << 20
	inodesLow    = 256 // below, no intake: each memtable and table is a file
	inodesFloor  = 32
)

// Space is the room that the store takes and has left.
type Space struct {
	FreeBytes int64  // of the file system, for us
	UsedBytes int64  // by the store, measured every few seconds
	State     string // ok, disk_low: Intake is refused, disk_floor: nothing is written
}

// spaceGuard keeps Badger from ever meeting a full disk, which would end the process by SIGBUS.
//
// Below minFree there is no Intake; deleting and acknowledging go on. At the floor the ballast is given up and
// all writing stops until free is resume again. Badger then still flushes and compacts: the floor is as high
// as that takes, so that with the ballast margin bytes are left for what others write meanwhile.
type spaceGuard struct {
	dir      string
	log      *slog.Logger
	statfs   func(dir string) (fsSpace, error)
	minFree  int64 // configured; 0: from use; -1: none
	ballast  int64 // size that it should have; 0: none
	margin   int64 // 0: no floor
	memTable int64

	mu          sync.Mutex
	tree        *treeWatch // nil until the database is open
	demand      demand     // when last looked at
	gate        gate
	hasBallast  bool
	level       atomic.Int32
	free, used  atomic.Int64
	statfsFails int
}

// fsSpace is what a file system has left for us.
type fsSpace struct {
	freeBytes   int64
	freeInodes  int64
	knowsInodes bool
}

func newSpaceGuard(cfg *Config) *spaceGuard {
	g := &spaceGuard{dir: cfg.Dir, log: cfg.Log, statfs: cfg.statfs, minFree: cfg.MinFreeBytes, ballast: max(0, cfg.BallastBytes), memTable: cfg.MemTableBytes}
	switch {
	case g.ballast > 0:
		g.margin = min(defaultFloor, g.ballast/2)
	case g.minFree > 0:
		g.margin = min(defaultFloor, g.minFree/4)
	case g.minFree == 0:
		g.margin = defaultFloor
	}
	if g.margin > 0 {
		g.margin = max(g.margin, 4*cfg.MemTableBytes)
	}
	return g
}

// floor is the free space at which all writing stops, if so much ballast is there to be given up then.
func (g *spaceGuard) floor(ballast int64) int64 {
	if g.margin == 0 {
		return 0
	}
	return g.margin + max(0, g.demand.now-ballast)
}

func (g *spaceGuard) held() int64 {
	if g.hasBallast {
		return g.ballast
	}
	return 0
}

// low is the free space below which there is no Intake. It leaves room above the floor for Work, and for the
// largest compaction that there may be.
func (g *spaceGuard) low() int64 {
	low := 2*g.margin + max(0, g.demand.soon-g.held())
	switch {
	case g.margin == 0:
		return 0
	case g.minFree < 0:
		return low
	case g.minFree > 0:
		return max(g.minFree, low)
	}
	return max(defaultMinFree, g.used.Load()/10, low)
}

// resume is the free space at which writing goes on after the floor was reached: enough for the ballast, and
// for not coming back here at once.
func (g *spaceGuard) resume() int64 { return g.ballast + g.margin + g.floor(g.ballast) }

// near reports whether free space, when last measured, was so low that it needs watching closely.
func (g *spaceGuard) near() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.isNear()
}

func (g *spaceGuard) isNear() bool { return g.margin > 0 && g.free.Load() < 2*g.low() }

// watch follows the tree of an open database from now on.
func (g *spaceGuard) watch(w *treeWatch) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tree = w
}

// refresh looks at the tree. While space is short, check does.
func (g *spaceGuard) refresh() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.tree != nil && g.margin > 0 {
		g.demand = g.tree.demand()
	}
}

// check measures, acts, and returns the level. It is cheap enough to be called for each group.
func (g *spaceGuard) check() spaceLevel {
	sp, err := g.statfs(g.dir)
	g.mu.Lock()
	defer g.mu.Unlock()
	was := spaceLevel(g.level.Load())
	if err != nil {
		g.statfsFails++
		if g.statfsFails == 1 {
			g.log.Warn("free space cannot be measured", "err", err)
		}
		return was
	}
	g.statfsFails = 0
	g.free.Store(sp.freeBytes)
	if g.tree != nil && g.isNear() {
		g.demand = g.tree.demand()
	}
	level := g.judge(sp, was)
	if level == spaceFloor && g.hasBallast {
		g.giveUpBallast()
		if sp, err = g.statfs(g.dir); err != nil {
			return was
		}
	}
	if level == spaceOK && !g.hasBallast && g.ballast > 0 && sp.freeBytes > g.low()+g.low()/8+g.ballast {
		g.takeBallast()
	}
	g.free.Store(sp.freeBytes)
	g.level.Store(int32(level))
	if level != was {
		g.log.Warn("disk space", "state", level.String(), "free_bytes", sp.freeBytes, "free_inodes", sp.freeInodes)
	}
	return level
}

func (g *spaceGuard) judge(sp fsSpace, was spaceLevel) spaceLevel {
	inodes := func(n int64) bool { return sp.knowsInodes && sp.freeInodes < n && g.margin > 0 }
	low, floor := g.low(), g.floor(g.held())
	switch {
	case sp.freeBytes <= floor && floor > 0, inodes(inodesFloor), g.gate.waiting > 0:
		return spaceFloor
	case was == spaceFloor && (sp.freeBytes < g.resume() || inodes(2*inodesFloor)):
		return spaceFloor
	case sp.freeBytes < low, inodes(inodesLow):
		return spaceLow
	case was != spaceOK && (sp.freeBytes < low+low/8 || inodes(2*inodesLow)):
		return spaceLow
	}
	return spaceOK
}

func (g *spaceGuard) path() string { return filepath.Join(g.dir, ballastName) }

// prepare runs before Badger is opened. That needs extra bytes of room, and what is left undone in t.
func (g *spaceGuard) prepare(extra int64, t *tree) error {
	g.demand = t.demand(g.memTable)
	need := g.demand.now + extra
	if info, err := os.Lstat(g.path()); err == nil {
		g.hasBallast = true
		if info.Size() != g.ballast || g.ballast == 0 || allocated(info) < g.ballast {
			g.giveUpBallast() // of another size than wanted
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	g.check()
	if g.margin == 0 {
		return nil
	}
	sp, err := g.statfs(g.dir)
	if err != nil {
		return fmt.Errorf("measure free space: %w", err)
	}
	if sp.freeBytes < need && g.hasBallast {
		g.mu.Lock()
		g.giveUpBallast()
		g.level.Store(int32(spaceFloor))
		g.mu.Unlock()
		if sp, err = g.statfs(g.dir); err != nil {
			return fmt.Errorf("measure free space: %w", err)
		}
	}
	if sp.freeBytes < need {
		return fmt.Errorf("%w: %d bytes are free, %d are needed", ErrNoSpace, sp.freeBytes, need)
	}
	if sp.knowsInodes && sp.freeInodes < inodesFloor {
		return fmt.Errorf("%w: %d inodes are free", ErrNoSpace, sp.freeInodes)
	}
	return nil
}

func (g *spaceGuard) giveUpBallast() {
	if err := os.Remove(g.path()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		g.log.Error("ballast cannot be given up", "err", err)
		return
	}
	g.hasBallast = false
	g.log.Warn("ballast given up", "bytes", g.ballast)
}

func (g *spaceGuard) takeBallast() {
	f, err := os.OpenFile(g.path(), os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		err = errors.Join(allocate(f, g.ballast), f.Close())
	}
	if err != nil {
		g.log.Warn("no ballast", "err", err, "bytes", g.ballast)
		_ = os.Remove(g.path())
		g.ballast = 0 // not tried again by this process
		return
	}
	g.hasBallast = true
}

// measure finds how much the store takes, and keeps its files private.
func (g *spaceGuard) measure() {
	var used int64
	_ = filepath.WalkDir(g.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path == g.path() {
			return nil // files come and go meanwhile
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		used += allocated(info)
		if info.Mode().Perm()&0o077 != 0 {
			_ = os.Chmod(path, 0o600)
		}
		return nil
	})
	g.used.Store(used)
}

func (g *spaceGuard) space() Space {
	return Space{FreeBytes: g.free.Load(), UsedBytes: g.used.Load(), State: spaceLevel(g.level.Load()).String()}
}
