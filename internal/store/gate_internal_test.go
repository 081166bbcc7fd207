package store

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// meteredDisk is a disk that says how much is free.
type meteredDisk struct{ free atomic.Int64 }

func (d *meteredDisk) statfs(string) (fsSpace, error) { return fsSpace{freeBytes: d.free.Load()}, nil }

func (s *Store) waitingCompactions() int {
	s.space.mu.Lock()
	defer s.space.mu.Unlock()
	return s.space.gate.waiting
}

// short opens a store and takes the space away while level 0 is full enough to be compacted.
func short(t *testing.T) (*Store, *meteredDisk, map[string]string) {
	t.Helper()
	disk := new(meteredDisk)
	for range 5 {
		disk.free.Store(4 << 30)
		cfg := smallTables(t.TempDir())
		cfg.MinFreeBytes, cfg.statfs = 32<<20, disk.statfs
		s, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		want := churn(t, s, 200) // compactors begin within a second
		disk.free.Store(1 << 20)
		for began := time.Now(); time.Since(began) < 3*time.Second; time.Sleep(5 * time.Millisecond) {
			if s.waitingCompactions() > 0 {
				return s, disk, want
			}
		}
		disk.free.Store(4 << 30)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("no compaction came to the gate; does Badger still say when it has filled a table?")
	return nil, nil, nil
}

func TestCompactionWaitsForDiskSpace(t *testing.T) {
	s, disk, want := short(t)
	before := names(t, s.cfg.Dir)
	err := s.Commit(t.Context(), Op{Class: Work, Apply: func(tx *Tx) error { tx.Put([]byte("q"), []byte{1}); return nil }})
	if !errors.Is(err, ErrDiskFloor) || s.Space().State != "disk_floor" {
		t.Errorf("commit while a compaction waits: %v, state %s", err, s.Space().State)
	}
	time.Sleep(300 * time.Millisecond)
	if after := names(t, s.cfg.Dir); !slices.Equal(after, before) {
		t.Errorf("tables without room: %v, before %v", after, before)
	}
	if is := contents(t, s); !maps.Equal(is, want) {
		t.Errorf("%d records can be read, want %d", len(is), len(want))
	}
	disk.free.Store(4 << 30)
	for began := time.Now(); s.waitingCompactions() > 0; time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > 10*time.Second {
			t.Fatal("the compaction still waits though there is room")
		}
	}
	for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		err := s.Commit(t.Context(), Op{Class: Intake, Apply: func(tx *Tx) error { tx.Put([]byte("q"), []byte{1}); return nil }})
		if err == nil {
			break
		}
		if time.Since(began) > 10*time.Second {
			t.Fatalf("commit with room again: %v", err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// While a commit cannot end for want of space, those who come after it are told, and do not hang as well.
func TestWhoWaitsBehindAStalledCommitIsRefused(t *testing.T) {
	disk := new(meteredDisk)
	disk.free.Store(4 << 30)
	cfg := smallTables(t.TempDir())
	cfg.MinFreeBytes, cfg.statfs = 32<<20, disk.statfs
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	entered, leave := make(chan struct{}), make(chan struct{})
	first := make(chan error, 1)
	s.Enqueue(Op{Apply: func(*Tx) error { close(entered); <-leave; return nil }, Done: func(err error) { first <- err }})
	<-entered
	disk.free.Store(1 << 20)
	var dones atomic.Int32
	err = s.Commit(t.Context(), Op{
		Apply: func(tx *Tx) error { tx.Put([]byte("q"), []byte{1}); return nil },
		Done:  func(error) { dones.Add(1) },
	})
	if !errors.Is(err, ErrDiskFloor) {
		t.Errorf("commit behind a stalled one: %v, want disk floor", err)
	}
	disk.free.Store(4 << 30)
	close(leave)
	if err := <-first; err != nil {
		t.Errorf("the stalled commit: %v", err)
	}
	for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		if err = s.Commit(t.Context(), Op{}); err == nil || time.Since(began) > 5*time.Second {
			break
		}
	}
	if err != nil || dones.Load() != 1 {
		t.Errorf("afterwards: %v, done was called %d times", err, dones.Load())
	}
	if is := contents(t, s); len(is) != 0 {
		t.Errorf("%d records of a refused operation are there", len(is))
	}
}

// A reader at T sees T, though T+1 overwrote it, T+1 is durable, and everything was compacted since.
func TestReaderAtTheDiscardTimestampKeepsItsVersion(t *testing.T) {
	s, err := Open(smallTables(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	set := func(val string) {
		t.Helper()
		err := s.Commit(t.Context(), Op{Apply: func(tx *Tx) error {
			tx.Put([]byte("s-over"), []byte(val))
			if val == "new" {
				tx.Delete([]byte("s-gone"))
			} else {
				tx.Put([]byte("s-gone"), []byte(val))
			}
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	set("older")
	set("old")
	err = s.View(func(sn *Snapshot) error {
		set("new")
		for began := time.Now(); !compacted(s); {
			churn(t, s, 50)
			if time.Since(began) > 20*time.Second {
				t.Fatal("nothing is compacted")
			}
		}
		for _, key := range []string{"s-over", "s-gone"} {
			if v, ok, err := sn.Get([]byte(key)); !ok || err != nil || string(v) != "old" {
				t.Errorf("%s: %q %t %v, want old", key, v, ok, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// compacted reports whether the oldest groups lie below level 0 by now.
func compacted(s *Store) bool {
	return slices.ContainsFunc(s.db.Tables(), func(t badger.TableInfo) bool { return t.Level > 0 })
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, badgerName, "*"+tableExt))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// Closing waits for compactions. One that waits for room must not hold the process up.
func TestCloseDoesNotWaitForDiskSpace(t *testing.T) {
	s, disk, want := short(t)
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	select {
	case err := <-closed:
		if !errors.Is(err, ErrDiskFloor) {
			t.Errorf("close: %v, want disk floor", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("close hangs")
	}
	if _, err := Open(smallTables(s.cfg.Dir)); !errors.Is(err, ErrLocked) {
		t.Errorf("open while the compaction may go on: %v, want locked", err)
	}
	if !wantAllOrDamage(t, clone(t, s.cfg.Dir), want) {
		t.Error("the store was called damaged")
	}
	disk.free.Store(4 << 30)
	if err := errors.Join(s.db.Close(), s.lock.Close()); err != nil { // so that the directory can be removed
		t.Error(err)
	}
}

// Badger works out for itself where level 0 goes, and what is too large.
func TestTreeHasTheShapeThatBadgerGivesIt(t *testing.T) {
	s, err := Open(smallTables(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	// A compaction may end between Badger's looks at targets and sizes.
	for range 3 {
		churn(t, s, 150)
		var diff string
		for range 10 {
			if diff = shapeDiff(s.db.Levels()); diff == "" {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		if diff != "" {
			t.Error(diff)
		}
	}
}

func shapeDiff(levels []badger.LevelInfo) string {
	var tr tree
	for i, l := range levels {
		tr.levels[i] = l.Size
	}
	base, targets := tr.shape()
	for i, l := range levels {
		if l.IsBaseLevel != (i == base) || (i > 0 && l.TargetSize != targets[i]) {
			return fmt.Sprintf("level %d: base level %t, target %d; want %t, %d (sizes %v)", i, i == base, targets[i], l.IsBaseLevel, l.TargetSize, tr.levels)
		}
	}
	return ""
}

func TestDemandCountsWhatATableSpans(t *testing.T) {
	leafs := func(n int, size int64) (l []leaf) {
		for i := range n {
			l = append(l, leaf{size, []byte{'e', byte(i)}, []byte{'e', byte(i), 0xff}})
		}
		return l
	}
	var narrow, wide tree
	for _, tr := range []*tree{&narrow, &wide} {
		for _, l := range leafs(100, 4<<20) {
			tr.addTable(6, l)
		}
		for range 25 {
			tr.addTable(5, leaf{2 << 20, []byte{'e', 99}, []byte{'e', 99, 1}})
		}
	}
	wide.addTable(5, leaf{2 << 20, []byte{'d'}, []byte{'e', 99, 0}})
	const mem = 16 << 20
	n, w := narrow.demand(mem), wide.demand(mem)
	if more := w.soon - n.soon; more < 300<<20 {
		t.Errorf("a table that spans 400 MiB raises the demand by %d MiB only", more>>20)
	}
	if n.now > 64<<20 || w.now > 64<<20 {
		t.Errorf("with nothing on level 0 the demand is %d and %d MiB", n.now>>20, w.now>>20)
	}
	narrow.addLog(17 << 20)
	for range 8 {
		narrow.addTable(0, leaf{17 << 20, []byte{'a'}, []byte{'z'}})
	}
	if d := narrow.demand(mem).now; d < 8*17<<20 {
		t.Errorf("with a full level 0 the demand is %d MiB", d>>20)
	}
	narrow.written = 100 << 20
	if d := narrow.demand(mem).now; d > 120<<20 {
		t.Errorf("with 100 MiB written the demand is %d MiB", d>>20)
	}
	var empty tree
	if d := empty.demand(mem); d.now != 0 {
		t.Errorf("an empty tree demands %d", d.now)
	}
}
