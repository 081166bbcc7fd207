package store_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/hooksidecar/hooksidecar/internal/store"
)

func TestBackupIsOneStateAndRestoresAsAnotherStore(t *testing.T) {
	s := openStore(t, t.TempDir())
	mustPublish(t, s, 100, 1000)
	err := s.Commit(t.Context(), store.Op{Apply: func(tx *store.Tx) error {
		tx.Remove(eventKey(1))
		tx.SetTail(store.OutboxLog, 2)
		tx.Put([]byte("q"), []byte{1, 2, 3})
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	// Groups of ten go on arriving while the backup is written.
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := publish(t.Context(), s, 10, 100); err != nil {
					t.Error(err)
				}
			}
		}
	})
	var backup bytes.Buffer
	if err := s.Backup(&backup); err != nil {
		t.Fatal(err)
	}
	close(stop)
	writer.Wait()

	dir := filepath.Join(t.TempDir(), "restored")
	if err := store.Restore(dir, "order-service", bytes.NewReader(backup.Bytes())); err != nil {
		t.Fatal(err)
	}
	r := openStore(t, dir)
	if r.ID() == s.ID() || r.ID() == "" {
		t.Errorf("restored store has id %q, the first one %q", r.ID(), s.ID())
	}
	tail, next := r.Bounds(store.OutboxLog)
	n := countEvents(t, r)
	if tail != 2 || int(next) != n+2 || r.Live('e') != int64(n) || n%10 != 9 || n < 99 {
		t.Errorf("restored: tail %d next %d, %d events, live %d", tail, next, n, r.Live('e'))
	}
	if v, ok := read(t, r, []byte("q")); !ok || !bytes.Equal(v, []byte{1, 2, 3}) {
		t.Errorf("restored record: %v %t", v, ok)
	}
	if seq := mustPublish(t, r, 1, 10); seq != next {
		t.Errorf("next seq %d, want %d", seq, next)
	}
	if err := store.Restore(dir, "order-service", bytes.NewReader(backup.Bytes())); !errors.Is(err, store.ErrNotEmpty) {
		t.Errorf("restore into a store: %v, want not empty", err)
	}
}

func TestAlteredBackupLeavesNothingBehind(t *testing.T) {
	s := openStore(t, t.TempDir())
	mustPublish(t, s, 50, 100)
	var b bytes.Buffer
	if err := s.Backup(&b); err != nil {
		t.Fatal(err)
	}
	whole := b.Bytes()
	flipped := func(at int) []byte {
		c := bytes.Clone(whole)
		c[at] ^= 1
		return c
	}
	cases := map[string][]byte{
		"empty":      {},
		"cut":        whole[:len(whole)/2],
		"minus 1":    whole[:len(whole)-1],
		"no sum":     whole[:len(whole)-32],
		"longer":     append(bytes.Clone(whole), 0),
		"flip magic": flipped(3), "flip header": flipped(40), "flip record": flipped(len(whole) / 2), "flip sum": flipped(len(whole) - 3),
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := store.Restore(dir, "order-service", bytes.NewReader(c)); !errors.Is(err, store.ErrBadBackup) {
				t.Errorf("restore: %v, want a bad backup", err)
			}
			if left, _ := os.ReadDir(dir); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	if err := store.Restore(t.TempDir(), "payment-service", bytes.NewReader(whole)); err == nil {
		t.Error("backup of another service was restored")
	}
}

// fingerprint is every file of a directory with its content.
func fingerprint(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "LOCK" {
			return err
		}
		b, err := os.ReadFile(path)
		files[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestVerifyCountsEverythingAndChangesNothing(t *testing.T) {
	dir := tabled(t)
	before := fingerprint(t, dir)
	r, err := store.Verify(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Problems) != 0 || r.Clean || r.Counts["e"] != 400 || r.Damaged != 0 || r.Logs[0].Events != 400 || r.Logs[0].Missing != 0 || r.Bytes < 400*40_000 {
		t.Errorf("report %+v", r)
	}
	after := fingerprint(t, dir)
	if len(after) != len(before) {
		t.Errorf("%d files before, %d after", len(before), len(after))
	}
	for name, b := range before {
		if after[name] != b {
			t.Errorf("%s was changed", name)
		}
	}
	openStore(t, dir)
	if _, err := store.Verify(dir); !errors.Is(err, store.ErrLocked) {
		t.Errorf("verify of an open store: %v, want locked", err)
	}
}

func TestVerifyReportsDamage(t *testing.T) {
	dir := tabled(t)
	names := tables(t, dir)
	flip(t, names[len(names)-1], 5000)
	r, err := store.Verify(dir)
	if err != nil || len(r.Problems) == 0 {
		t.Errorf("report %+v, %v", r, err)
	}
	t.Log(r.Problems)
}
