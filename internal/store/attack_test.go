package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"weak"

	"github.com/hooksidecar/hooksidecar/internal/store"
)

// soak multiplies how long the random tests go on if HOOKSIDECAR_SOAK is set.
func soak(n int) int {
	if os.Getenv("HOOKSIDECAR_SOAK") != "" {
		return n * 20
	}
	return n
}

// What Commit says is what is there, whenever its context ends, and Done is called once.
func TestCancelledAtEveryMoment(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	n := soak(600)
	results, dones := make([]error, n), make([]atomic.Int32, n)
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			for i := w; i < n; i += 16 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%97)*11*time.Microsecond)
				results[i] = s.Commit(ctx, store.Op{
					Apply: func(tx *store.Tx) error { tx.Put(fmt.Appendf(nil, "t%d", i), []byte{1}); return nil },
					Done:  func(error) { dones[i].Add(1) },
				})
				cancel()
			}
		})
	}
	first := s // the callers may be through before it is closed under them, and s another store by then
	time.AfterFunc(time.Duration(soak(60))*time.Millisecond, func() { _ = first.Close() })
	wg.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir)
	kinds := make(map[string]int)
	for i, err := range results {
		_, there := read(t, s, fmt.Appendf(nil, "t%d", i))
		if there != (err == nil) {
			t.Errorf("operation %d: %v, there %t", i, err, there)
		}
		if err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, store.ErrClosed) {
			t.Errorf("operation %d: %v", i, err)
		}
		kinds[fmt.Sprint(err)]++
	}
	for began := time.Now(); ; time.Sleep(time.Millisecond) { // after Close, Done comes from another goroutine
		i := -1
		for j := range dones {
			if dones[j].Load() != 1 {
				i = j
			}
		}
		if i < 0 {
			break
		}
		if time.Since(began) > 5*time.Second {
			t.Fatalf("done of operation %d was called %d times", i, dones[i].Load())
		}
	}
	t.Log(kinds)
}

func TestPanicInApplyFences(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	mustPublish(t, s, 3, 10)
	err := s.Commit(t.Context(), store.Op{Apply: func(tx *store.Tx) error {
		tx.Insert([]byte("x-half"), []byte{1})
		panic("an owner's mistake")
	}})
	if !errors.Is(err, store.ErrFenced) || !strings.Contains(err.Error(), "an owner's mistake") {
		t.Errorf("commit: %v", err)
	}
	select {
	case <-s.Fenced():
	default:
		t.Error("not fenced")
	}
	if _, err := publish(t.Context(), s, 1, 10); !errors.Is(err, store.ErrFenced) {
		t.Errorf("publish after it: %v", err)
	}
	if err := s.Close(); !errors.Is(err, store.ErrFenced) {
		t.Errorf("close: %v", err)
	}
	s = openStore(t, copyDir(t, dir))
	if _, there := read(t, s, []byte("x-half")); there || countEvents(t, s) != 3 {
		t.Errorf("half an operation is there: %t, %d events", there, countEvents(t, s))
	}
}

func TestDoneMayCallTheStore(t *testing.T) {
	s := openStore(t, t.TempDir())
	done := make(chan error, 1)
	put := func(key string) func(*store.Tx) error {
		return func(tx *store.Tx) error { tx.Put([]byte(key), []byte{1}); return nil }
	}
	s.Enqueue(store.Op{Apply: put("t1"), Done: func(error) {
		if _, ok := read(t, s, []byte("t1")); !ok {
			t.Error("done comes before its write can be read")
		}
		s.Enqueue(store.Op{Class: store.Lazy, Apply: put("t2"), Done: func(err error) { done <- err }})
	}})
	select {
	case err := <-done:
		if _, ok := read(t, s, []byte("t2")); !ok || err != nil {
			t.Errorf("operation out of done: %t %v", ok, err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the committer waits for itself")
	}
}

func TestLazyIsNotStarvedByIntake(t *testing.T) {
	s := openStore(t, t.TempDir())
	stop := make(chan struct{})
	var load sync.WaitGroup
	defer load.Wait()
	defer close(stop)
	for range 64 {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if _, err := publish(t.Context(), s, 1, 2000); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	for range 20 {
		began := time.Now()
		if err := s.Commit(t.Context(), store.Op{Class: store.Lazy, Apply: func(tx *store.Tx) error { tx.Put([]byte("q"), []byte{1}); return nil }}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Fatalf("lazy work took %s", took)
		}
	}
}

// While the disk stands still, callers come, lose patience and go. What they wanted stored must go with them.
func TestGivenUpOperationsHoldNoMemory(t *testing.T) {
	s := openStore(t, t.TempDir())
	entered, leave := make(chan struct{}), make(chan struct{})
	s.Enqueue(store.Op{Apply: func(*store.Tx) error { close(entered); <-leave; return nil }})
	<-entered
	defer close(leave)
	body := make([]byte, 1<<20)
	held := weak.Make(&body[0])
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func(body []byte) {
		result <- s.Commit(ctx, store.Op{Apply: func(tx *store.Tx) error { tx.Put([]byte("t"), body); return nil }})
	}(body)
	body = nil
	time.Sleep(10 * time.Millisecond)
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	for range 10 {
		if runtime.GC(); held.Value() == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the event of an operation that was given up is still in memory")
}

func TestLockHoldsThoughItsFileIsRemoved(t *testing.T) {
	dir := t.TempDir()
	openStore(t, dir)
	if err := os.Remove(filepath.Join(dir, "LOCK")); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(config(dir)); !errors.Is(err, store.ErrLocked) {
		t.Errorf("open: %v, want locked", err)
	}
}

func TestOnlyOneOfManyOpenersWins(t *testing.T) {
	dir := t.TempDir()
	for range 5 {
		var won atomic.Int32
		var openers sync.WaitGroup
		opened := make(chan *store.Store, 8)
		for range 8 {
			openers.Go(func() {
				s, err := store.Open(config(dir))
				if err == nil {
					won.Add(1)
					opened <- s
				} else if !errors.Is(err, store.ErrLocked) {
					t.Error(err)
				}
			})
		}
		openers.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d opened the store", won.Load())
		}
		s := <-opened
		mustPublish(t, s, 1, 10)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// The flag that accepts a loss may stay in a unit file.
func TestLossMayBeAcceptedAgain(t *testing.T) {
	dir := left(t, 200, 100)
	flip(t, logFile(t, dir), usedBytes(t, logFile(t, dir))/2)
	d := wantDamage(t, dir, "store_regressed")
	cfg := config(dir)
	cfg.AcceptLoss = d.StoreID
	var lost []store.LostRange
	for i := range 3 {
		s, err := store.Open(cfg)
		if err != nil {
			t.Fatalf("opening %d: %v", i, err)
		}
		if i == 0 {
			lost = s.Lost()
		}
		if !slices.Equal(s.Lost(), lost) || s.Live('e') != int64(countEvents(t, s)) {
			t.Errorf("opening %d: lost %v, at first %v; live %d of %d", i, s.Lost(), lost, s.Live('e'), countEvents(t, s))
		}
		mustPublish(t, s, 1, 10)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if reports, _ := filepath.Glob(filepath.Join(dir, "LOSS-*.json")); len(reports) != 1 {
		t.Errorf("loss reports: %v", reports)
	}
}

func childAccept(dir, id string) int {
	cfg := config(dir)
	cfg.AcceptLoss = id
	s, err := store.Open(cfg)
	if err == nil {
		err = s.Close()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// Whoever accepts a loss and is killed over it must not lose more.
func TestKilledWhileALossIsAccepted(t *testing.T) {
	base := tabled(t)
	names := tables(t, base)
	flip(t, names[len(names)-1], 5000)
	flip(t, logFile(t, base), usedBytes(t, logFile(t, base))/2)
	_, err := store.Open(config(copyDir(t, base)))
	d, ok := errors.AsType[*store.DamageError](err)
	if !ok {
		t.Fatal(err)
	}
	accept := func(dir string, within time.Duration) {
		cmd := child(t.Context(), "accept:"+d.StoreID, dir)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		stop := time.AfterFunc(within, func() { _ = cmd.Process.Kill() })
		if err := cmd.Wait(); err != nil && stop.Stop() {
			t.Fatalf("accept: %v\n%s", err, &stderr)
		}
	}
	left := func(dir string) (int, []store.LostRange) {
		accept(dir, time.Minute)
		s := openStore(t, dir)
		defer s.Close()
		if n := countEvents(t, s); s.Live('e') != int64(n) {
			t.Errorf("live %d of %d", s.Live('e'), n)
		}
		return countEvents(t, s), s.Lost()
	}
	want, lost := left(copyDir(t, base))
	if want == 0 || want == 400 || len(lost) == 0 {
		t.Fatalf("%d events are left, lost %v", want, lost)
	}
	for round := range soak(3) {
		dir := copyDir(t, base)
		for kill := range 3 {
			accept(dir, time.Duration(3+(round*31+kill*17)%90)*time.Millisecond)
		}
		if got, now := left(dir); got != want || len(now) == 0 {
			t.Errorf("round %d: %d events are left, lost %v; want %d and %v", round, got, now, want, lost)
		}
	}
}

func childCycle(dir string) int {
	for {
		s, ok := childOpen(dir)
		if !ok {
			return 65
		}
		for range 5 {
			first, err := publish(context.Background(), s, 3, 20_000)
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
			fmt.Println(first)
		}
		if err := errors.Join(s.Backup(io.Discard), s.Close()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
}

func TestKillWhileOpeningBackingUpAndClosing(t *testing.T) {
	dir := t.TempDir()
	acked := make(map[uint64]bool)
	for round := range soak(6) {
		killChild(t, "cycle", dir, time.Duration(20+round*61%190)*time.Millisecond, false, acked)
	}
	checkStore(t, dir, acked, 20_000)
	t.Logf("%d acknowledged operations, all there", len(acked))
}

func childRestore(dir string) int {
	f, err := os.Open(filepath.Join(filepath.Dir(dir), "backup"))
	if err == nil {
		err = store.Restore(dir, "order-service", f)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// A restore that was killed leaves no store, and can be repeated.
func TestKilledRestoreCanBeRepeated(t *testing.T) {
	s := openStore(t, t.TempDir())
	for range 20 {
		mustPublish(t, s, 5, 50_000)
	}
	var backup bytes.Buffer
	if err := s.Backup(&backup); err != nil {
		t.Fatal(err)
	}
	base := t.TempDir()
	if err := os.WriteFile(filepath.Join(base, "backup"), backup.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(base, "store")
	cut := 0
	for round := range soak(8) {
		cmd := child(t.Context(), "restore", dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(10+round*23%150) * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if _, err := os.Stat(filepath.Join(dir, "STORE")); err == nil {
			break // it was quick
		}
		if _, err := os.Stat(filepath.Join(dir, "restore.partial")); err != nil {
			continue // it had not begun
		}
		cut++
		if s, err := store.Open(config(dir)); err == nil {
			t.Fatalf("half a restore was opened as a store with %d events", countEvents(t, s))
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "STORE")); err != nil {
		if err := store.Restore(dir, "order-service", bytes.NewReader(backup.Bytes())); err != nil {
			t.Fatal(err)
		}
	}
	if r := openStore(t, dir); countEvents(t, r) != 100 || r.Live('e') != 100 {
		t.Errorf("%d events were restored, want 100", countEvents(t, r))
	}
	t.Logf("cut off %d times", cut)
}
