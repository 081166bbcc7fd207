package store_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"github.com/hooksidecar/hooksidecar/internal/store"
)

const benchBytes = 1024

// BenchmarkCommit compares the committer with one transaction for each event, at 1 to 256 callers that each
// wait for their own answer. The ratio of the two is what counts.
func BenchmarkCommit(b *testing.B) {
	for _, callers := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("committer/%d", callers), func(b *testing.B) {
			cfg := config(b.TempDir())
			cfg.MemTableBytes = 0
			s, err := store.Open(cfg)
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			parallel(b, callers, func(int64) error {
				_, err := publish(b.Context(), s, 1, benchBytes)
				return err
			})
		})
		b.Run(fmt.Sprintf("transaction/%d", callers), func(b *testing.B) {
			opts := badger.DefaultOptions(b.TempDir()).WithSyncWrites(true).WithMemTableSize(16 << 20).WithNumMemtables(2).
				WithNumCompactors(2).WithValueLogFileSize(16 << 20).WithCompression(options.None).WithBlockCacheSize(0).
				WithDetectConflicts(false).WithMetricsEnabled(false).WithLogger(nil)
			db, err := badger.Open(opts)
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			parallel(b, callers, func(n int64) error {
				return db.Update(func(txn *badger.Txn) error { return txn.Set(eventKey(uint64(n)), payload(uint64(n), benchBytes)) })
			})
		})
	}
}

func parallel(b *testing.B, callers int, act func(n int64) error) {
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range callers {
		wg.Go(func() {
			for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
				if err := act(n); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// TestOpeningAfterKillIsFast needs HOOKSIDECAR_STORE_EVENTS, the number of events of 1 KiB to open with.
func TestOpeningAfterKillIsFast(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("HOOKSIDECAR_STORE_EVENTS"))
	if err != nil {
		t.Skip("HOOKSIDECAR_STORE_EVENTS is not set")
	}
	dir := t.TempDir()
	if out, err := child(t.Context(), fmt.Sprintf("load:%d", n), dir).CombinedOutput(); err != nil {
		t.Fatalf("child: %v\n%s", err, out)
	}
	for _, stop := range []string{"killed", "killed at once again", "killed, with a guard left over: all keys are counted"} {
		began := time.Now()
		if strings.Contains(stop, "guard") {
			if err := os.Mkdir(filepath.Join(dir, "guard"), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		out, err := child(t.Context(), "reopen", dir).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		t.Logf("%s: opened in %s (process %s)", stop, out, time.Since(began))
	}
}

// childLoad leaves a store with n events, written in groups.
func childLoad(dir, args string) int {
	n, _ := strconv.Atoi(args)
	cfg := config(dir)
	cfg.MemTableBytes = 0
	s, err := store.Open(cfg)
	if err != nil {
		return 65
	}
	for range n / 500 {
		if _, err := publish(context.Background(), s, 500, benchBytes); err != nil {
			return 1
		}
	}
	time.Sleep(3 * time.Second) // for compactions to come to rest
	return 0
}

func childReopen(dir string) int {
	began := time.Now()
	cfg := config(dir)
	cfg.MemTableBytes = 0
	s, err := store.Open(cfg)
	if err != nil {
		fmt.Println(err)
		return 65
	}
	fmt.Printf("%s, %d events", time.Since(began).Round(time.Millisecond), s.Live('e'))
	return 0
}
