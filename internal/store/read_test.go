package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"github.com/hooksidecar/hooksidecar/internal/store"
)

func TestReadThatTakesTooLongFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir())
		defer s.Close() // inside the bubble
		mustPublish(t, s, 10, 100)
		err := s.View(func(sn *store.Snapshot) error {
			if _, ok, err := sn.Get(eventKey(1)); !ok || err != nil {
				t.Errorf("at once: %t %v", ok, err)
			}
			n := 0
			var scanErr error
			for _, err := range sn.Scan([]byte("e"), []byte("f")) {
				if scanErr = err; err == nil {
					n++
				}
				if n == 5 {
					time.Sleep(29 * time.Second)
					mustPublish(t, s, 1, 100)
					time.Sleep(2 * time.Second)
				}
			}
			if n != 5 || !errors.Is(scanErr, store.ErrReadExpired) {
				t.Errorf("scan ended after %d: %v", n, scanErr)
			}
			mustPublish(t, s, 1, 100)
			_, _, err := sn.Get(eventKey(1))
			return err
		})
		if !errors.Is(err, store.ErrReadExpired) {
			t.Errorf("after 31 s: %v, want expired", err)
		}
	})
}

// A reader that is registered keeps what it may ask for, whatever is removed and compacted meanwhile.
func TestOldVersionsStayWhileTheyAreRead(t *testing.T) {
	s := openStore(t, t.TempDir())
	mustPublish(t, s, 10, 10_000)
	err := s.View(func(sn *store.Snapshot) error {
		for round := range 30 { // 15 MiB through 4 MiB memtables: flushes and compactions
			err := s.Commit(t.Context(), store.Op{Apply: func(tx *store.Tx) error {
				for seq := uint64(1); seq <= 10; seq++ {
					if round%2 == 0 {
						tx.Remove(eventKey(seq))
					} else {
						tx.Insert(eventKey(seq), payload(seq+1000, 50_000))
					}
				}
				return nil
			}})
			if err != nil {
				return err
			}
		}
		for seq := uint64(1); seq <= 10; seq++ {
			if v, ok, err := sn.Get(eventKey(seq)); err != nil || !ok || !bytes.Equal(v, payload(seq, 10_000)) {
				t.Errorf("event %d: %d bytes, %t %v", seq, len(v), ok, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAbsenceIsOnRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := openStore(t, dir)
		if held, reason := s.Clock().Held(); held {
			t.Errorf("new store is held: %s", reason)
		}
		mustPublish(t, s, 1, 10)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(25 * time.Hour)
		s = openStore(t, dir)
		defer s.Close()
		if held, _ := s.Clock().Held(); !held {
			t.Error("not held after 25 h")
		}
		s.Clock().Trust()
		if held, _ := s.Clock().Held(); held || time.Since(s.Clock().Now()) > time.Second {
			t.Errorf("held %t, clock %s behind", held, time.Since(s.Clock().Now()))
		}
	})
}

// spoil overwrites a stored value in place, as a fault of Badger would.
func spoil(t *testing.T, dir string, key []byte) {
	t.Helper()
	opts := badger.DefaultOptions(filepath.Join(dir, "badger")).WithExternalMagic(1).WithLogger(nil).WithMetricsEnabled(false).WithCompression(options.None)
	db, err := badger.OpenManaged(opts)
	if err != nil {
		t.Fatal(err)
	}
	txn := db.NewTransactionAt(db.MaxVersion(), true)
	if err := txn.Set(key, []byte("not what was written")); err != nil {
		t.Fatal(err)
	}
	if err := txn.CommitAt(db.MaxVersion(), nil); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestDamagedRecordIsNeverHandedOut(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	mustPublish(t, s, 5, 100)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	spoil(t, dir, eventKey(3))

	r, err := store.Verify(dir)
	if err != nil || r.Damaged != 1 || len(r.Problems) != 1 {
		t.Errorf("verify: %+v %v", r, err)
	}
	s = openStore(t, dir)
	var seen []string
	err = s.View(func(sn *store.Snapshot) error {
		if v, ok, err := sn.Get(eventKey(3)); !errors.Is(err, store.ErrDamagedRecord) || ok || v != nil {
			t.Errorf("get: %q %t %v", v, ok, err)
		}
		for r, err := range sn.Scan([]byte("e"), []byte("f")) {
			seen = append(seen, fmt.Sprintf("%d %t", r.Key[8], errors.Is(err, store.ErrDamagedRecord)))
			if err != nil && r.Val != nil {
				t.Errorf("damaged bytes were handed out: %q", r.Val)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(seen, ", "), "1 false, 2 false, 3 true, 4 false, 5 false"; got != want {
		t.Errorf("scan: %s, want %s", got, want)
	}
	err = s.Commit(t.Context(), store.Op{Apply: func(tx *store.Tx) error { _, _, err := tx.Get(eventKey(3)); return err }})
	if !errors.Is(err, store.ErrDamagedRecord) {
		t.Errorf("get in a group: %v", err)
	}
}

func TestScanBounds(t *testing.T) {
	s := openStore(t, t.TempDir())
	err := s.Commit(t.Context(), store.Op{Apply: func(tx *store.Tx) error {
		for _, k := range []string{"c", "ca", "cab", "cb", "d"} {
			tx.Put([]byte(k), []byte{1})
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ from, to, want string }{
		{"c", "d", "c ca cab cb"},
		{"ca", "cb", "ca cab"},
		{"cab", "cab", ""},
		{"caa", "cz", "cab cb"},
		{"cb", "", "cb d m"},
	} {
		var got []string
		if err := s.View(func(sn *store.Snapshot) error {
			var to []byte
			if c.to != "" {
				to = []byte(c.to)
			}
			for k, err := range sn.Keys([]byte(c.from), to) {
				if err != nil {
					return err
				}
				got = append(got, string(k))
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("keys from %q to %q: %q, want %q", c.from, c.to, got, c.want)
		}
	}
}

func TestMetrics(t *testing.T) {
	set := metrics.NewSet()
	cfg := config(t.TempDir())
	cfg.Metrics = set
	for range 2 { // a second store on the same set must not panic
		s, err := store.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		mustPublish(t, s, 3, 10)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	set.WritePrometheus(&b)
	for _, want := range []string{
		"hooksidecar_store_committed_events_total 6\n", `hooksidecar_store_group_events_bucket{le="4"}`, "hooksidecar_store_sync_seconds_count",
		"hooksidecar_store_free_bytes ", "hooksidecar_store_used_bytes ", `hooksidecar_store_state{state="ok"} 1`, `hooksidecar_store_state{state="fenced"} 0`,
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, &b)
		}
	}
}
