package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func smallTables(dir string) Config {
	return Config{Dir: dir, Service: "order-service", MinFreeBytes: none, BallastBytes: none, MemTableBytes: minMemTable, AllowUnsafeFS: true}
}

// churn writes, overwrites and deletes, and returns what must be there then.
func churn(t *testing.T, s *Store, groups int) map[string]string {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	want := make(map[string]string)
	for range groups {
		err := s.Commit(t.Context(), Op{Apply: func(tx *Tx) error {
			seq := tx.Next(OutboxLog)
			put := func(key, val []byte) {
				if _, there := want[string(key)]; there {
					tx.Put(key, val)
				} else {
					tx.Insert(key, val)
				}
				want[string(key)] = string(val)
			}
			put(binary.BigEndian.AppendUint64([]byte{'e'}, seq), fmt.Appendf(make([]byte, 20_000), "%d", seq))
			put([]byte{'s', byte(r.IntN(40))}, fmt.Appendf(make([]byte, 3_000), "at %d", seq))
			if old := binary.BigEndian.AppendUint64([]byte{'e'}, seq-uint64(r.IntN(30))); want[string(old)] != "" && r.IntN(3) == 0 {
				tx.Remove(old)
				delete(want, string(old))
			}
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	return want
}

func contents(t *testing.T, s *Store) map[string]string {
	t.Helper()
	is := make(map[string]string)
	err := s.View(func(sn *Snapshot) error {
		for rec, err := range sn.Scan([]byte("e"), []byte("t")) {
			if err != nil {
				return err
			}
			if k := rec.Key[0]; k == 'e' || k == 's' {
				is[string(rec.Key)] = string(rec.Val)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return is
}

// churned is a store with several levels of tables, as a kill leaves it, and what must be in it.
func churned(t *testing.T, clean bool) (string, map[string]string) {
	t.Helper()
	dir := t.TempDir()
	s, err := Open(smallTables(dir))
	if err != nil {
		t.Fatal(err)
	}
	want := churn(t, s, 500)
	if !clean {
		time.Sleep(1200 * time.Millisecond) // for WATERMARK, and compactions to come to rest
		dir = clone(t, dir)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, want
}

// clone copies a store directory without what is no part of it.
func clone(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.Mkdir(filepath.Join(to, badgerName), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{identityName, watermarkName} {
		if err := copySparse(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(filepath.Join(from, badgerName))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := copySparse(filepath.Join(from, badgerName, e.Name()), filepath.Join(to, badgerName, e.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	return to
}

// wantAllOrDamage opens a store: either it holds exactly what it should, or it says that it does not.
func wantAllOrDamage(t *testing.T, dir string, want map[string]string) (opened bool) {
	t.Helper()
	s, err := Open(smallTables(dir))
	if err != nil {
		if _, ok := errors.AsType[*DamageError](err); !ok {
			t.Fatalf("open: %v, want damage", err)
		}
		return false
	}
	defer s.Close()
	is := contents(t, s)
	if !maps.Equal(is, want) {
		for k := range want {
			if is[k] != want[k] {
				t.Logf("%q: %d bytes, want %d", k, len(is[k]), len(want[k]))
			}
		}
		t.Errorf("opened with %d records, want %d", len(is), len(want))
	}
	return true
}

// Each table in turn is lost to the manifest, as by a compaction whose output could not be synced.
func TestEachTableThatIsNotNamedIsMissedOrSpare(t *testing.T) {
	base, want := churned(t, true)
	m, err := readManifest(filepath.Join(base, badgerName))
	if err != nil {
		t.Fatal(err)
	}
	missed := 0
	for _, id := range slices.Sorted(maps.Keys(m.levels)) {
		dir := clone(t, base)
		less := manifest{levels: maps.Clone(m.levels)}
		delete(less.levels, id)
		if err := less.write(filepath.Join(dir, badgerName)); err != nil {
			t.Fatal(err)
		}
		if !wantAllOrDamage(t, dir, want) {
			missed++
		}
	}
	if t.Logf("%d tables, %d of them missed", len(m.levels), missed); missed == 0 || len(m.levels) < 4 {
		t.Errorf("%d of %d tables were missed", missed, len(m.levels))
	}
}

// The manifest ends after each of its change sets in turn, and in the middle of them.
func TestManifestWithoutItsTailIsNoticed(t *testing.T) {
	for _, clean := range []bool{true, false} {
		base, want := churned(t, clean)
		path := filepath.Join(base, badgerName, manifestName)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var cuts []int
		for at := 8; at < len(b); {
			cuts = append(cuts, at)
			at += changeHeader + int(binary.BigEndian.Uint32(b[at:]))
			cuts = append(cuts, at-1)
		}
		opened := 0
		for _, at := range cuts {
			dir := clone(t, base)
			if err := os.Truncate(filepath.Join(dir, badgerName, manifestName), int64(at)); err != nil {
				t.Fatal(err)
			}
			if wantAllOrDamage(t, dir, want) {
				opened++
			}
		}
		t.Logf("clean %t: %d cuts, %d opened with all records", clean, len(cuts), opened)
	}
}

// What a compaction leaves that was cut off: outputs that nobody names, whole, torn or empty.
func TestTableOfACompactionThatWasCutOffIsNoDamage(t *testing.T) {
	base, want := churned(t, false)
	m, err := readManifest(filepath.Join(base, badgerName))
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(path string) error{
		"whole": func(string) error { return nil },
		"torn":  func(path string) error { return errors.Join(os.Truncate(path, 9_000), os.Truncate(path, 1_000_000)) },
		"empty": func(path string) error { return os.Truncate(path, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := clone(t, base)
			for id := range m.levels {
				from, to := filepath.Join(dir, badgerName, tableName(id)), filepath.Join(dir, badgerName, tableName(id+1000))
				if err := errors.Join(copySparse(from, to), spoil(to)); err != nil {
					t.Fatal(err)
				}
			}
			if !wantAllOrDamage(t, dir, want) {
				t.Error("the store was called damaged")
			}
		})
	}
}
