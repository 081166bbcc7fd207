package dedup_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/dedup"
	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

const (
	prefix = 'd'
	keep   = 7 * 24 * time.Hour
)

// A rig is a store with a window in it, and what a test needs to look at them.
type rig struct {
	*testing.T
	dir    string
	store  *store.Store
	window *dedup.Window
}

func newRig(t *testing.T) *rig {
	r := &rig{T: t, dir: t.TempDir()}
	r.open()
	t.Cleanup(func() { r.store.Close() })
	return r
}

func (r *rig) open() {
	r.Helper()
	var err error
	r.store, err = store.Open(store.Config{Dir: r.dir, Service: "s", MinFreeBytes: -1, BallastBytes: -1, AllowUnsafeFS: true})
	if err != nil {
		r.Fatal(err)
	}
	r.load()
}

// load makes the window anew, as a start does.
func (r *rig) load() {
	r.Helper()
	var err error
	if r.window, err = dedup.New(r.store, prefix, keep); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) reopen() {
	r.Helper()
	if err := r.store.Close(); err != nil {
		r.Fatal(err)
	}
	r.open()
}

func (r *rig) commit(apply func(*store.Tx) error) {
	r.Helper()
	if err := r.store.Commit(r.Context(), store.Op{Class: store.Work, Apply: apply}); err != nil {
		r.Fatal(err)
	}
}

func id(n int) [16]byte { return event.Hash("order-service", fmt.Sprint("evt_", n)) }

func record(n int) dedup.Record {
	return dedup.Record{Digest: event.Digest{byte(n), byte(n >> 8), 31: 7}, Seq: uint64(n)}
}

func (r *rig) add(ns ...int) {
	r.Helper()
	r.commit(func(tx *store.Tx) error {
		for _, n := range ns {
			r.window.Add(tx, id(n), record(n))
		}
		return nil
	})
}

// addDaysAgo writes records as a sidecar did that many days ago: the format is fixed by docs/DESIGN.md.
func (r *rig) addDaysAgo(days int, ns ...int) {
	r.Helper()
	r.commit(func(tx *store.Tx) error {
		for _, n := range ns {
			h, rec := id(n), record(n)
			key := append(binary.BigEndian.AppendUint16([]byte{prefix}, uint16(r.today()-days)), h[:]...)
			tx.Insert(key, binary.AppendUvarint(append([]byte{1}, rec.Digest[:]...), rec.Seq))
		}
		return nil
	})
}

func (r *rig) today() int { return int(r.store.Clock().Now().Unix() / 86400) }

// dayEnds returns when the day that was so many days ago is over.
func (r *rig) dayEnds(days int) time.Time {
	return time.Unix(int64(r.today()-days+1)*86400, 0)
}

func (r *rig) find(n int) (rec dedup.Record, ok bool) {
	r.Helper()
	err := r.store.View(func(sn *store.Snapshot) (err error) {
		rec, ok, err = r.window.Find(sn, id(n))
		return err
	})
	if err != nil {
		r.Fatal(err)
	}
	return rec, ok
}

// wantFound checks which of the ids are known, with their own records.
func (r *rig) wantFound(want bool, ns ...int) {
	r.Helper()
	for _, n := range ns {
		if rec, ok := r.find(n); ok != want || ok && rec != record(n) {
			r.Errorf("id %d: got %v, %v; want found %v", n, rec, ok, want)
		}
	}
}

func (r *rig) wantLive(want int64) {
	r.Helper()
	if got := r.store.Live(prefix); got != want {
		r.Errorf("the store counts %d records, want %d", got, want)
	}
}

func numbers(from, to int) (ns []int) {
	for n := from; n < to; n++ {
		ns = append(ns, n)
	}
	return ns
}

func TestWindowRemembers(t *testing.T) {
	r := newRig(t)
	r.wantFound(false, 1)
	r.commit(func(tx *store.Tx) error {
		if _, ok, err := r.window.Find(tx, id(1)); ok || err != nil {
			t.Errorf("before Add: got %v, %v", ok, err)
		}
		r.window.Add(tx, id(1), record(1))
		if rec, ok, err := r.window.Find(tx, id(1)); !ok || rec != record(1) || err != nil {
			t.Errorf("in the same operation: got %v, %v, %v", rec, ok, err)
		}
		return nil
	})
	r.wantFound(true, 1)
	r.wantFound(false, 2)
	r.reopen()
	r.wantFound(true, 1)
	r.wantLive(1)
}

func TestAddAgainReplaces(t *testing.T) {
	r := newRig(t)
	r.addDaysAgo(3, 1)
	r.load()
	for seq := range uint64(3) {
		r.commit(func(tx *store.Tx) error {
			r.window.Add(tx, id(1), dedup.Record{Seq: seq})
			return nil
		})
	}
	if rec, _ := r.find(1); rec.Seq != 2 {
		t.Errorf("got seq %d, want that of the last Add", rec.Seq)
	}
	r.wantLive(2) // one a bucket
}

func TestDroppedOperationIsNotRemembered(t *testing.T) {
	r := newRig(t)
	conflict := errors.New("conflict")
	err := r.store.Commit(t.Context(), store.Op{Class: store.Work, Apply: func(tx *store.Tx) error {
		r.window.Add(tx, id(1), record(1))
		return conflict
	}})
	if !errors.Is(err, conflict) {
		t.Fatal(err)
	}
	r.wantFound(false, 1)
	r.add(1)
	r.wantFound(true, 1)
}

func TestBucketsAreFoundAtStart(t *testing.T) {
	r := newRig(t)
	r.addDaysAgo(20, numbers(0, 5)...)
	r.addDaysAgo(7, 10)
	r.addDaysAgo(1, 11)
	r.commit(func(tx *store.Tx) error { // the neighbours are not its own
		tx.Put([]byte("cpayment-service"), []byte{1})
		tx.Insert([]byte("e\x00\x00\x00\x00\x00\x00\x00\x01"), []byte{1})
		return nil
	})
	r.load()
	r.wantFound(true, 0, 4, 10, 11)
	r.wantFound(false, 12)
}

func TestExpireAtTheBoundary(t *testing.T) {
	r := newRig(t)
	r.addDaysAgo(9, 1)
	r.addDaysAgo(8, 2)
	r.add(3)
	r.load()
	at := r.dayEnds(9).Add(keep)
	if err := r.window.Expire(t.Context(), at.Add(-time.Second), nil); err != nil {
		t.Fatal(err)
	}
	r.wantFound(true, 1, 2, 3)
	if err := r.window.Expire(t.Context(), at, nil); err != nil {
		t.Fatal(err)
	}
	r.wantFound(false, 1)
	r.wantFound(true, 2, 3)
	r.wantLive(2)
}

func TestExpireKeepsWhatIsNotSettled(t *testing.T) {
	r := newRig(t)
	const n = 1000 // several operations
	r.addDaysAgo(20, numbers(0, n)...)
	r.addDaysAgo(2, n)
	r.load()
	calls := 0
	unsettled := func(rec dedup.Record) bool { calls++; return rec.Seq%100 == 0 }
	if err := r.window.Expire(t.Context(), r.store.Clock().Now(), unsettled); err != nil {
		t.Fatal(err)
	}
	if calls < n {
		t.Errorf("keepIf was asked %d times, want %d", calls, n)
	}
	for range 2 {
		r.wantLive(n/100 + 1)
		r.wantFound(true, 0, 100, 900, n)
		r.wantFound(false, 1, 99, 999)
		r.reopen()
	}
	// They live as long as anything that was added now.
	if err := r.window.Expire(t.Context(), r.dayEnds(1).Add(keep), nil); err != nil {
		t.Fatal(err)
	}
	r.wantFound(true, 0, 100, 900)
	r.wantFound(false, n)
}

func TestExpireDoesNotBringBackAnOlderRecord(t *testing.T) {
	r := newRig(t)
	r.addDaysAgo(20, 1)
	r.load()
	r.commit(func(tx *store.Tx) error {
		r.window.Add(tx, id(1), dedup.Record{Seq: 99})
		return nil
	})
	all := func(dedup.Record) bool { return true }
	if err := r.window.Expire(t.Context(), r.store.Clock().Now(), all); err != nil {
		t.Fatal(err)
	}
	if rec, ok := r.find(1); !ok || rec.Seq != 99 {
		t.Errorf("got %v, %v; want the newer record", rec, ok)
	}
	r.wantLive(1)
}

func TestExpireGoesOnAfterItWasStopped(t *testing.T) {
	r := newRig(t)
	r.addDaysAgo(20, numbers(0, 600)...)
	r.load()
	ctx, stop := context.WithCancel(t.Context())
	seen := 0
	err := r.window.Expire(ctx, r.store.Clock().Now(), func(dedup.Record) bool {
		if seen++; seen == 200 {
			stop()
		}
		return false
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want it to be stopped", err)
	}
	if live := r.store.Live(prefix); live == 0 || live == 600 {
		t.Errorf("got %d records, want some of 600", live)
	}
	if err := r.window.Expire(t.Context(), r.store.Clock().Now(), nil); err != nil {
		t.Fatal(err)
	}
	r.wantLive(0)
	r.wantFound(false, 0, 300, 599)
}

// TestSnapshotFromBeforeExpire: a read that began earlier still finds what has moved since.
func TestSnapshotFromBeforeExpire(t *testing.T) {
	r := newRig(t)
	r.addDaysAgo(20, 1)
	r.load()
	err := r.store.View(func(sn *store.Snapshot) error {
		if err := r.window.Expire(t.Context(), r.store.Clock().Now(), func(dedup.Record) bool { return true }); err != nil {
			return err
		}
		_, ok, err := r.window.Find(sn, id(1))
		if !ok {
			t.Error("the id is not found")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	r.wantFound(true, 1)
}

func TestRecordOfUnknownVersion(t *testing.T) {
	r := newRig(t)
	h := id(1)
	key := append(binary.BigEndian.AppendUint16([]byte{prefix}, uint16(r.today()-20)), h[:]...)
	r.commit(func(tx *store.Tx) error { tx.Insert(key, []byte{9, 9}); return nil })
	r.load()
	err := r.store.View(func(sn *store.Snapshot) error {
		_, ok, err := r.window.Find(sn, h)
		if ok {
			t.Error("it is taken for a record")
		}
		return err
	})
	if err == nil {
		t.Error("Find reports nothing")
	}
	if err := r.window.Expire(t.Context(), r.store.Clock().Now(), nil); err != nil {
		t.Fatal(err)
	}
	r.wantLive(0)
}

func TestFindAddAndExpireTogether(t *testing.T) {
	r := newRig(t)
	r.addDaysAgo(20, numbers(0, 400)...)
	r.load()
	var all sync.WaitGroup
	all.Go(func() {
		if err := r.window.Expire(t.Context(), r.store.Clock().Now(), func(rec dedup.Record) bool { return rec.Seq < 50 }); err != nil {
			t.Error(err)
		}
	})
	for worker := range 4 {
		all.Go(func() {
			for i := range 20 {
				n := 1000 + worker*100 + i
				err := r.store.Commit(t.Context(), store.Op{Apply: func(tx *store.Tx) error {
					if rec, ok, err := r.window.Find(tx, id(i)); !ok || rec != record(i) || err != nil {
						t.Errorf("unsettled id %d: got %v, %v, %v", i, rec, ok, err)
					}
					r.window.Add(tx, id(n), record(n))
					return nil
				}})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	r.wantLive(50 + 80)
	r.wantFound(true, 0, 49, 1000, 1319)
	r.wantFound(false, 50, 399)
}

func TestNewRefusesAnEmptyWindow(t *testing.T) {
	r := newRig(t)
	if _, err := dedup.New(r.store, prefix, 0); err == nil {
		t.Error("a window of no time is taken")
	}
}

func TestRefreshMovesIntoTodaysBucket(t *testing.T) {
	r := newRig(t)
	r.addDaysAgo(8, 1)
	r.addDaysAgo(3, 2)
	r.load()
	r.add(3)
	if !r.window.Due(r.store.Clock().Now()) {
		t.Error("a bucket of eight days ago is not due")
	}
	r.commit(func(tx *store.Tx) error {
		for _, n := range []int{1, 2, 3, 4, 2} { // 4 is not known; 2 is today's by then
			if err := r.window.Refresh(tx, id(n)); err != nil {
				return err
			}
		}
		return nil
	})
	r.wantLive(3)
	r.wantFound(true, 1, 2, 3)
	r.wantFound(false, 4)
	for range 2 {
		if err := r.window.Expire(t.Context(), r.dayEnds(0).Add(keep-time.Second), nil); err != nil {
			t.Fatal(err)
		}
	}
	r.wantLive(3)
	if r.window.Due(r.dayEnds(0).Add(keep - time.Second)) {
		t.Error("today's bucket is due before its time")
	}
	if now := r.store.Clock().Now(); !r.window.Today(now) || r.window.Today(now.Add(-24*time.Hour)) {
		t.Error("today is another day")
	}
	r.reopen()
	r.wantFound(true, 1, 2, 3)
}
