package store

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// How Badger shapes its tree; the defaults, which are what we run with.
const (
	treeLevels     = 7
	baseLevelBytes = 10 << 20 // no level is compacted below this size
	levelRatio     = 10
	baseTableBytes = 2 << 20 // tables of the base level; twice as large on each level below
	compactFrom    = 2       // tables on level 0
	levelZeroStall = 8       // tables on level 0 at which flushes wait
	memTables      = 2       // that may wait to be flushed
)

// A tree is what is known of the database's files: tables by level, and the logs that are not tables yet.
type tree struct {
	tables     [treeLevels][]leaf
	levels     [treeLevels]int64 // bytes
	logs       int               // files
	logBytes   int64
	largestLog int64
	written    int64 // of outputs that are not in the tree yet
}

// A leaf is a table; its range is nil if not known.
type leaf struct {
	size        int64
	first, last []byte // keys with version
}

func (t *tree) addTable(level int, l leaf) {
	level = min(max(level, 0), treeLevels-1)
	t.tables[level] = append(t.tables[level], l)
	t.levels[level] += l.size
}

func (t *tree) addLog(size int64) {
	t.logs++
	t.logBytes += size
	t.largestLog = max(t.largestLog, size)
}

// A demand is how many bytes Badger may take up by itself once nothing is committed any more. A flush writes
// a table before it removes the log. A compaction writes all its outputs before it removes an input, and
// there are two compactors: one may merge all of level 0 into the base level while the other moves a table
// down.
type demand struct {
	now  int64 // as the tree is, tables being as wide as they should be
	soon int64 // with level 0 full, and the widest table that there is
}

func (t *tree) demand(memTable int64) demand {
	const full = levelZeroStall + memTables + 1
	now := t.need(t.levels[0]+t.logBytes, int64(len(t.tables[0])+t.logs), t.largestLog, false)
	return demand{now: now, soon: max(now, t.need(full*memTable, full, memTable, true))}
}

// need is the demand with so many bytes and tables on level 0 or about to be.
func (t *tree) need(zero, tables, flush int64, wide bool) int64 {
	base, targets := t.shape()
	var merge, move int64
	if tables >= compactFrom {
		// A base level that is too large is made smaller first, the more so the less there is on level 0.
		merge = zero + min(t.levels[base], tables*targets[base]/compactFrom)
	}
	for i := base; i < treeLevels-1; i++ {
		size := t.levels[i]
		if i == base {
			size += zero
		}
		if size < targets[i] {
			continue
		}
		file := t.tableBytes(base, i)
		move = max(move, file+min(t.levels[i+1], levelRatio*file))
		if wide {
			move = max(move, t.widest(i))
		}
	}
	return max(0, flush+merge+move-t.written)
}

// widest is the most that one table of a level takes to be moved down: itself and all that its range overlaps.
// A range that begins in one prefix and ends in the next can span most of a level.
func (t *tree) widest(level int) (most int64) {
	below := t.tables[level+1]
	slices.SortFunc(below, func(a, b leaf) int { return bytes.Compare(a.first, b.first) })
	for _, l := range t.tables[level] {
		need := l.size
		from, _ := slices.BinarySearchFunc(below, l.first, func(b leaf, key []byte) int { return bytes.Compare(b.last, key) })
		for _, b := range below[from:] {
			if bytes.Compare(b.first, l.last) > 0 {
				break
			}
			need += b.size
		}
		most = max(most, need)
	}
	return most
}

// tableBytes is the size at which Badger ends a table of a level.
func (t *tree) tableBytes(base, level int) int64 {
	return baseTableBytes << max(0, level-base)
}

// largestOutput is the most that a table of a compaction may hold.
func (t *tree) largestOutput() int64 {
	base, _ := t.shape()
	return t.tableBytes(base, treeLevels-1) + valueThreshold
}

// zeroOutput is the size of the one table that the compactor which looks after level 0 may make of all of it.
func (t *tree) zeroOutput() int64 {
	const mergeFrom = 4
	if len(t.tables[0]) < mergeFrom {
		return 0
	}
	return t.levels[0]
}

// shape returns the level into which level 0 is merged and the size at which each level is too large, as
// Badger works them out.
func (t *tree) shape() (base int, targets [treeLevels]int64) {
	last := treeLevels - 1
	for i, size := last, t.levels[last]; i > 0; i, size = i-1, size/levelRatio {
		targets[i] = max(size, baseLevelBytes)
		if base == 0 && size <= baseLevelBytes {
			base = i
		}
	}
	base = max(base, 1)
	for base < last-1 && t.levels[base] == 0 && t.levels[base+1] == 0 {
		base++
	}
	if base < last && t.levels[base] == 0 && t.levels[base+1] < min(targets[base+1], baseLevelBytes) {
		base++
	}
	for i := 1; i < base; i++ {
		if t.levels[i] > 0 {
			return i, targets
		}
	}
	return base, targets
}

// tree is the inspected directory as Badger will find it.
func (in *inspection) tree() tree {
	var t tree
	for id, table := range in.tables {
		level, named := in.manifest.levels[id]
		if named || in.manifestErr != nil {
			t.addTable(int(level), leaf{table.size, table.first, table.last})
		}
	}
	for i := range in.logs {
		t.addLog(in.logs[i].dirty)
	}
	return t
}

// treeEvery bounds how often the tree is looked at while space is short.
const treeEvery = 25 * time.Millisecond

// treeWatch follows the tree of an open database.
type treeWatch struct {
	dir          string
	memTable     int64
	db           *badger.DB
	at           time.Time
	tree         tree            // as last seen
	known        map[uint64]bool // tables that were in the tree at some time
	whole        map[uint64]bool // table files whose last byte has its place on the disk
	fresh        int             // how many became so since somebody asked
	before, last demand
	peak         int64 // of demand.soon lately
	peakAt       time.Time
}

func newTreeWatch(dir string, memTable int64, db *badger.DB) *treeWatch {
	return &treeWatch{dir: dir, memTable: memTable, db: db, known: make(map[uint64]bool), whole: make(map[uint64]bool)}
}

// takeFresh looks now, and returns how many tables were finished since it was called last.
func (w *treeWatch) takeFresh() int {
	w.at = time.Time{}
	w.demand()
	n := w.fresh
	w.fresh = 0
	return n
}

// peakLasts keeps intake from being refused and let in again with each compaction.
const peakLasts = 10 * time.Second

// demand looks at the tree, or not if it did so just now.
func (w *treeWatch) demand() demand {
	now := time.Now()
	if now.Sub(w.at) >= treeEvery {
		w.at = now
		if w.look() {
			w.before, w.last = w.last, w.tree.demand(w.memTable)
		}
	}
	// At the end of a compaction its inputs are there for a moment together with its outputs.
	soon := min(w.before.soon, w.last.soon)
	if soon >= w.peak || now.Sub(w.peakAt) > peakLasts {
		w.peak, w.peakAt = soon, now
	}
	return demand{min(w.before.now, w.last.now), w.peak}
}

// look reports whether it could. A table on disk that was never in the tree is the output of a compaction
// under way, so that much of the backlog is written already. (One that was in the tree is kept by a read.)
func (w *treeWatch) look() bool {
	// Files first: an output that enters the tree in between must not be counted as merely written.
	entries, err := os.ReadDir(w.dir)
	if err != nil {
		return false
	}
	var t tree
	sizes := make(map[uint64]int64)
	for _, e := range entries {
		id, isTable := fileID(e, tableExt)
		_, isLog := fileID(e, walExt)
		if !isTable && !isLog {
			continue
		}
		info, err := os.Stat(filepath.Join(w.dir, e.Name()))
		if err != nil {
			continue // gone
		}
		if isLog {
			t.addLog(allocated(info))
			continue
		}
		sizes[id] = allocated(info)
		if info.Size() > 0 && sizes[id] >= info.Size() && !w.whole[id] {
			w.whole[id] = true
			w.fresh++
		}
	}
	for _, table := range w.db.Tables() {
		size, there := sizes[table.ID]
		if !there {
			size = int64(table.OnDiskSize) // made since
		}
		t.addTable(table.Level, leaf{size, table.Left, table.Right})
		w.known[table.ID] = true
	}
	for id, size := range sizes {
		if !w.known[id] {
			t.written += size
		}
	}
	for _, ids := range []map[uint64]bool{w.known, w.whole} {
		for id := range ids {
			if _, there := sizes[id]; !there {
				delete(ids, id)
			}
		}
	}
	w.tree = t
	return true
}
