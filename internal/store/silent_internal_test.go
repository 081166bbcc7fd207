package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// loseTable makes what a compaction leaves whose output could not be synced: the database goes on without a
// table, and nothing in manifest or timestamps tells.
func loseTable(t *testing.T, dir string) uint64 {
	t.Helper()
	badgerDir := filepath.Join(dir, badgerName)
	m, err := readManifest(badgerDir)
	if err != nil {
		t.Fatal(err)
	}
	var newest uint64
	for id := range m.levels {
		newest = max(newest, id)
	}
	for id := range m.levels {
		if id != newest {
			delete(m.levels, id)
			if err := m.write(badgerDir); err != nil {
				t.Fatal(err)
			}
			return id
		}
	}
	t.Fatal("only one table")
	return 0
}

func storeWithTables(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cfg := Config{Dir: dir, Service: "order-service", MinFreeBytes: none, BallastBytes: none, MemTableBytes: 4 << 20, AllowUnsafeFS: true}
	for range 3 { // each stop leaves a table
		s, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			err := s.Commit(t.Context(), Op{Apply: func(tx *Tx) error {
				seq := tx.Next(OutboxLog)
				tx.Insert([]byte{'e', 0, 0, 0, 0, 0, 0, 0, byte(seq)}, []byte{1, byte(seq)})
				return nil
			}})
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestTableLostInSilenceIsNoticed(t *testing.T) {
	dir := storeWithTables(t)
	id := loseTable(t, dir)
	cfg := Config{Dir: dir, Service: "order-service", MinFreeBytes: none, BallastBytes: none, AllowUnsafeFS: true}
	var damage *DamageError
	for i := range 2 {
		s, err := Open(cfg)
		if err == nil {
			t.Fatalf("opening %d succeeded with %d of 30 events", i+1, s.Live('e'))
		}
		if !errors.As(err, &damage) || damage.Code != damageRegressed {
			t.Fatalf("opening %d: %v", i+1, err)
		}
	}
	t.Log(damage)
	if _, err := os.Stat(filepath.Join(damage.Evidence, tableName(id))); err != nil {
		t.Errorf("evidence: %v", err)
	}
	cfg.AcceptLoss = damage.StoreID
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Live('e') != 30 || len(s.Lost()) != 0 {
		t.Errorf("%d events were brought back from the evidence, lost %v, want 30", s.Live('e'), s.Lost())
	}
}

func TestUnknownTableIsDroppedWhenNothingIsMissing(t *testing.T) {
	dir := storeWithTables(t)
	badgerDir := filepath.Join(dir, badgerName)
	m, err := readManifest(badgerDir)
	if err != nil {
		t.Fatal(err)
	}
	for id := range m.levels {
		// What a compaction leaves that was cut off: an output that nobody names.
		if err := os.Link(filepath.Join(badgerDir, tableName(id)), filepath.Join(badgerDir, tableName(id+1000))); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Open(Config{Dir: dir, Service: "order-service", MinFreeBytes: none, BallastBytes: none, AllowUnsafeFS: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Live('e') != 30 || exists(filepath.Join(dir, guardName)) {
		t.Errorf("%d events, guard left: %t", s.Live('e'), exists(filepath.Join(dir, guardName)))
	}
}
