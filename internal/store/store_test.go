package store_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/store"
)

func config(dir string) store.Config {
	return store.Config{Dir: dir, Service: "order-service", MinFreeBytes: -1, BallastBytes: -1, MemTableBytes: 4 << 20, AllowUnsafeFS: true}
}

func openStore(t *testing.T, dir string) *store.Store {
	t.Helper()
	cfg := config(dir)
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	s, err := store.Open(cfg)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil && s.Err() == nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func eventKey(seq uint64) []byte { return binary.BigEndian.AppendUint64([]byte{'e'}, seq) }

// payload makes bytes that can be told from any other event's.
func payload(seq uint64, size int) []byte {
	b := fmt.Appendf([]byte{1}, "event %d ", seq)
	return append(b, bytes.Repeat([]byte{byte('a' + seq%26)}, max(0, size-len(b)))...)
}

// publish stores n events in one operation and returns the first seq.
func publish(ctx context.Context, s *store.Store, n, size int) (first uint64, err error) {
	err = s.Commit(ctx, store.Op{Events: n, Bytes: n * size, Apply: func(tx *store.Tx) error {
		for i := range n {
			seq := tx.Next(store.OutboxLog)
			if i == 0 {
				first = seq
			}
			tx.Insert(eventKey(seq), payload(seq, size))
		}
		return nil
	}})
	return first, err
}

func mustPublish(t *testing.T, s *store.Store, n, size int) uint64 {
	t.Helper()
	first, err := publish(t.Context(), s, n, size)
	if err != nil {
		t.Fatalf("publish: %v", err)
	}
	return first
}

func read(t *testing.T, s *store.Store, key []byte) ([]byte, bool) {
	t.Helper()
	var val []byte
	var ok bool
	if err := s.View(func(sn *store.Snapshot) (err error) {
		val, ok, err = sn.Get(key)
		return err
	}); err != nil {
		t.Fatalf("read %q: %v", key, err)
	}
	return val, ok
}

func countEvents(t *testing.T, s *store.Store) (n int) {
	t.Helper()
	err := s.View(func(sn *store.Snapshot) error {
		for _, err := range sn.Scan([]byte("e"), []byte("f")) {
			if err != nil {
				return err
			}
			n++
		}
		return nil
	})
	if err != nil {
		t.Fatalf("scan: %v", err)
	}
	return n
}

func TestEventsAndStateAreThereAfterReopening(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	id := s.ID()
	for range 5 {
		mustPublish(t, s, 10, 200)
	}
	err := s.Commit(t.Context(), store.Op{Class: store.Work, Apply: func(tx *store.Tx) error {
		for seq := uint64(1); seq <= 7; seq++ {
			tx.Remove(eventKey(seq))
		}
		tx.SetTail(store.OutboxLog, 8)
		tx.Put([]byte("q"), []byte{1, 'x'})
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}

	s = openStore(t, dir)
	if s.ID() != id || s.Boot() != 2 || !s.CleanStart() {
		t.Errorf("id %s boot %d clean %t, want %s 2 true", s.ID(), s.Boot(), s.CleanStart(), id)
	}
	if tail, next := s.Bounds(store.OutboxLog); tail != 8 || next != 51 {
		t.Errorf("bounds %d %d, want 8 51", tail, next)
	}
	if got := s.AtOpen(store.OutboxLog); got != 51 {
		t.Errorf("at open %d, want 51", got)
	}
	if tail, next := s.Bounds(store.InboxLog); tail != 1 || next != 1 {
		t.Errorf("inbox bounds %d %d, want 1 1", tail, next)
	}
	if got := s.Live('e'); got != 43 {
		t.Errorf("live %d, want 43", got)
	}
	if got := countEvents(t, s); got != 43 {
		t.Errorf("%d events, want 43", got)
	}
	if _, ok := read(t, s, eventKey(7)); ok {
		t.Error("removed event is there")
	}
	if v, ok := read(t, s, eventKey(8)); !ok || string(v) != string(payload(8, 200)) {
		t.Errorf("event 8: %q %t", v, ok)
	}
}

func TestErrorOfOneOperationDropsOnlyItsOwnWrites(t *testing.T) {
	s := openStore(t, t.TempDir())
	refused := errors.New("refused")
	var wg sync.WaitGroup
	var kept atomic.Int64
	for i := range 200 {
		wg.Go(func() {
			err := s.Commit(t.Context(), store.Op{Apply: func(tx *store.Tx) error {
				tx.Put(fmt.Appendf(nil, "t%d", i), []byte{1})
				if i%3 == 0 {
					tx.Next(store.OutboxLog)
					tx.Insert([]byte("e-never"), []byte{1})
					return refused
				}
				seq := tx.Next(store.OutboxLog)
				tx.Insert(eventKey(seq), payload(seq, 50))
				return nil
			}})
			if i%3 == 0 != errors.Is(err, refused) {
				t.Errorf("operation %d: %v", i, err)
			}
			if err == nil {
				kept.Add(1)
			}
		})
	}
	wg.Wait()
	if _, next := s.Bounds(store.OutboxLog); int64(next) != kept.Load()+1 || s.Live('e') != kept.Load() {
		t.Errorf("next %d, live %d, want %d and %d", next, s.Live('e'), kept.Load()+1, kept.Load())
	}
	for i := range 200 {
		if _, ok := read(t, s, fmt.Appendf(nil, "t%d", i)); ok == (i%3 == 0) {
			t.Errorf("write of operation %d: %t", i, ok)
		}
	}
}

func TestTxSeesItsOwnWritesThenTheGroupThenTheStore(t *testing.T) {
	s := openStore(t, t.TempDir())
	put := func(val string) store.Op {
		return store.Op{Apply: func(tx *store.Tx) error { tx.Put([]byte("t"), []byte(val)); return nil }}
	}
	if err := s.Commit(t.Context(), put("store")); err != nil {
		t.Fatal(err)
	}
	// The first operation holds the committer, so that the others become one group.
	entered, leave := make(chan struct{}), make(chan struct{})
	s.Enqueue(store.Op{Apply: func(*store.Tx) error { close(entered); <-leave; return nil }})
	<-entered
	var seen []string
	look := func(tx *store.Tx) {
		v, ok, err := tx.Get([]byte("t"))
		seen = append(seen, fmt.Sprintf("%s %t %v", v, ok, err))
	}
	s.Enqueue(store.Op{Apply: func(tx *store.Tx) error { look(tx); return nil }})
	s.Enqueue(put("group"))
	s.Enqueue(store.Op{Apply: func(tx *store.Tx) error { tx.Put([]byte("t"), []byte("dropped")); return errors.New("no") }})
	s.Enqueue(store.Op{Apply: func(tx *store.Tx) error {
		look(tx)
		tx.Put([]byte("t"), []byte("own"))
		look(tx)
		tx.Delete([]byte("t"))
		look(tx)
		return nil
	}})
	done := make(chan error)
	go func() {
		done <- s.Commit(t.Context(), store.Op{Apply: func(tx *store.Tx) error { look(tx); return nil }})
	}()
	close(leave)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	want := []string{"store true <nil>", "group true <nil>", "own true <nil>", " false <nil>", " false <nil>"}
	if fmt.Sprint(seen) != fmt.Sprint(want) {
		t.Errorf("seen %q, want %q", seen, want)
	}
}

func TestDoneIsCalledInCommitOrderAfterTheSync(t *testing.T) {
	s := openStore(t, t.TempDir())
	var order []uint64 // only touched on the committer's goroutine
	var wg sync.WaitGroup
	for range 500 {
		wg.Add(1)
		var seq uint64
		s.Enqueue(store.Op{
			Apply: func(tx *store.Tx) error { seq = tx.Next(store.OutboxLog); return nil },
			Done: func(err error) {
				defer wg.Done()
				if _, next := s.Bounds(store.OutboxLog); err != nil || next <= seq {
					t.Errorf("done(%v) of seq %d, durable are those below %d", err, seq, next)
				}
				order = append(order, seq)
			},
		})
	}
	wg.Wait()
	for i, seq := range order {
		if seq != uint64(i+1) {
			t.Fatalf("done number %d is of seq %d", i, seq)
		}
	}
}

func TestCancelledWhileQueuedIsCertainlyNotStored(t *testing.T) {
	s := openStore(t, t.TempDir())
	entered, leave := make(chan struct{}), make(chan struct{})
	s.Enqueue(store.Op{Apply: func(*store.Tx) error { close(entered); <-leave; return nil }})
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	var done atomic.Int32
	go func() {
		result <- s.Commit(ctx, store.Op{
			Apply: func(tx *store.Tx) error { tx.Put([]byte("t"), []byte{1}); return nil },
			Done:  func(error) { done.Add(1) },
		})
	}()
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("commit: %v, want cancelled", err)
	}
	close(leave)
	if err := s.Commit(t.Context(), store.Op{}); err != nil {
		t.Fatal(err)
	}
	if _, ok := read(t, s, []byte("t")); ok {
		t.Error("cancelled operation was stored")
	}
	if done.Load() != 1 {
		t.Errorf("done was called %d times, want once", done.Load())
	}
}

func TestLazyIsWrittenByItself(t *testing.T) {
	s := openStore(t, t.TempDir())
	began := time.Now()
	done := make(chan error, 1)
	s.Enqueue(store.Op{Class: store.Lazy, Apply: func(tx *store.Tx) error { tx.Put([]byte("t"), []byte{1}); return nil }, Done: func(err error) { done <- err }})
	select {
	case err := <-done:
		if waited := time.Since(began); err != nil || waited < 5*time.Millisecond {
			t.Errorf("lazy operation done after %s: %v", waited, err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("lazy operation was never written")
	}
}

func TestOneOperationIsWholeOrRefused(t *testing.T) {
	s := openStore(t, t.TempDir())
	// 4 MiB memtables allow transactions of 629,145 bytes.
	_, err := publish(t.Context(), s, 1000, 1000)
	if !errors.Is(err, store.ErrTooLarge) {
		t.Errorf("operation of 1 MB: %v, want too large", err)
	}
	_, err = publish(t.Context(), s, 1, 700<<10)
	if !errors.Is(err, store.ErrTooLarge) {
		t.Errorf("value of 700 KiB: %v, want too large", err)
	}
	if n := countEvents(t, s); n != 0 {
		t.Errorf("%d events of refused operations are there", n)
	}
	// Operations that fit singly, but not together, and whose sizes are not declared.
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			err := s.Commit(t.Context(), store.Op{Apply: func(tx *store.Tx) error {
				for range 5 {
					seq := tx.Next(store.OutboxLog)
					tx.Insert(eventKey(seq), payload(seq, 100<<10))
				}
				return nil
			}})
			if err != nil {
				t.Errorf("commit: %v", err)
			}
		})
	}
	wg.Wait()
	if n := countEvents(t, s); n != 100 || s.Live('e') != 100 {
		t.Errorf("%d events, live %d, want 100", n, s.Live('e'))
	}
}

func TestViewIsOneStateWhileOthersWrite(t *testing.T) {
	s := openStore(t, t.TempDir())
	pair := func(n uint64) {
		err := s.Commit(t.Context(), store.Op{Apply: func(tx *store.Tx) error {
			v := binary.BigEndian.AppendUint64([]byte{1}, n)
			tx.Put([]byte("t1"), v)
			tx.Put([]byte("t2"), v)
			return nil
		}})
		if err != nil {
			t.Error(err)
		}
	}
	pair(0)
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for n := uint64(1); ; n++ {
			select {
			case <-stop:
				return
			default:
				pair(n)
			}
		}
	})
	for range 500 {
		err := s.View(func(sn *store.Snapshot) error {
			a, _, err := sn.Get([]byte("t1"))
			b, _, err2 := sn.Get([]byte("t2"))
			var scanned []byte
			for r, err := range sn.Scan([]byte("t1"), []byte("t2")) {
				if err != nil {
					return err
				}
				scanned = append(scanned, r.Val...)
			}
			if string(a) != string(b) || string(a) != string(scanned) {
				t.Errorf("view sees %x and %x and %x", a, b, scanned)
			}
			return errors.Join(err, err2)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	writer.Wait()
}

func TestCloseRefusesLaterWorkAndFinishesWhatIsQueued(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	var stored atomic.Int64
	for range 300 {
		s.Enqueue(store.Op{Class: store.Lazy, Apply: func(tx *store.Tx) error {
			seq := tx.Next(store.OutboxLog)
			tx.Insert(eventKey(seq), payload(seq, 20))
			return nil
		}, Done: func(err error) {
			if err == nil {
				stored.Add(1)
			}
		}})
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if stored.Load() != 300 {
		t.Errorf("%d of 300 queued operations were stored", stored.Load())
	}
	if err := s.Commit(t.Context(), store.Op{}); !errors.Is(err, store.ErrClosed) {
		t.Errorf("commit after close: %v", err)
	}
	if err := s.View(func(*store.Snapshot) error { return nil }); !errors.Is(err, store.ErrClosed) {
		t.Errorf("view after close: %v", err)
	}
	if got := openStore(t, dir).Live('e'); got != 300 {
		t.Errorf("live %d, want 300", got)
	}
}

func TestSecondOpenNamesTheHolder(t *testing.T) {
	dir := t.TempDir()
	openStore(t, dir)
	_, err := store.Open(config(dir))
	if !errors.Is(err, store.ErrLocked) {
		t.Fatalf("second open: %v, want locked", err)
	}
	t.Log(err)
}
