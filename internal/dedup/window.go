package dedup

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/store"
)

// A Getter reads single keys: a *store.Tx or a *store.Snapshot.
type Getter interface {
	Get(key []byte) (val []byte, ok bool, err error)
}

// A Window is the memory of one side of a sidecar. All methods may be called from several goroutines.
type Window struct {
	store  *store.Store
	prefix byte
	keep   time.Duration

	buckets  atomic.Pointer[[]day] // live ones, newest first; the slice is never changed
	changing sync.Mutex            // held while buckets is replaced
	expiring sync.Mutex            // held by Expire
}

// New returns the window under prefix, with the buckets that are in the store. An id is remembered for at least keep.
func New(s *store.Store, prefix byte, keep time.Duration) (*Window, error) {
	if keep <= 0 {
		return nil, fmt.Errorf("dedup window of %v: it must be positive", keep)
	}
	w := &Window{store: s, prefix: prefix, keep: keep}
	days, err := w.load()
	if err != nil {
		return nil, fmt.Errorf("find dedup buckets: %w", err)
	}
	w.buckets.Store(&days)
	return w, nil
}

// load finds the buckets by seeking from one to the next: one read for each, however much they hold.
func (w *Window) load() ([]day, error) {
	var days []day
	err := w.store.View(func(sn *store.Snapshot) error {
		days = nil
		for next := 0; next < 1<<16; {
			d, ok, err := firstBucket(sn, w.prefix, day(next))
			if err != nil || !ok {
				return err
			}
			days = append(days, d)
			next = int(d) + 1
		}
		return nil
	})
	slices.Reverse(days)
	return days, err
}

// firstBucket returns the oldest bucket that is not older than d.
func firstBucket(sn *store.Snapshot, prefix byte, d day) (day, bool, error) {
	from, to := bounds(prefix, d)
	for key, err := range sn.Keys(from, to) {
		if err != nil {
			return 0, false, err
		}
		d, err := dayIn(key)
		return d, err == nil, err
	}
	return 0, false, nil
}

// Find returns what is remembered under id, which is the event.Hash of source and id. ok is false if it is not known.
func (w *Window) Find(tx Getter, id [16]byte) (r Record, ok bool, err error) {
	return w.findAfter(tx, id, -1)
}

// findAfter looks only into buckets newer than day d.
func (w *Window) findAfter(tx Getter, id [16]byte, d int) (r Record, ok bool, err error) {
	var fixed [keyBytes]byte
	for _, bucket := range *w.buckets.Load() {
		if int(bucket) <= d {
			break
		}
		val, ok, err := tx.Get(appendKey(fixed[:0], w.prefix, bucket, id))
		if err != nil {
			return Record{}, false, fmt.Errorf("look up event id: %w", err)
		}
		if ok {
			r, err := parseRecord(val)
			return r, err == nil, err
		}
	}
	return Record{}, false, nil
}

// Add remembers r under id, in today's bucket. What is there under the same id, in whichever bucket, is no longer found.
// It comes after Find in the same operation, which reports if the store cannot be read.
func (w *Window) Add(tx *store.Tx, id [16]byte, r Record) {
	w.put(tx, id, r, dayOf(w.store.Clock().Now()))
}

// Today reports whether a time of the ageing clock is of the day whose bucket is being filled.
func (w *Window) Today(at time.Time) bool { return dayOf(at) == dayOf(w.store.Clock().Now()) }

// Refresh lets the time of id count from now on: what is remembered of it moves into today's bucket. An id that is not
// known, or whose record is damaged, is left as it is.
func (w *Window) Refresh(tx *store.Tx, id [16]byte) error {
	today := dayOf(w.store.Clock().Now())
	for _, bucket := range *w.buckets.Load() {
		key := appendKey(make([]byte, 0, keyBytes), w.prefix, bucket, id)
		val, ok, err := tx.Get(key)
		if damaged(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("look up event id: %w", err)
		}
		if !ok {
			continue
		}
		if r, err := parseRecord(val); err == nil && bucket != today {
			w.put(tx, id, r, today)
			tx.Remove(key)
		}
		return nil
	}
	return nil
}

func (w *Window) put(tx *store.Tx, id [16]byte, r Record, d day) {
	w.bucket(d)
	key := appendKey(make([]byte, 0, keyBytes), w.prefix, d, id)
	val := r.append(make([]byte, 0, valueBytes))
	if _, there, err := tx.Get(key); there || damaged(err) {
		tx.Put(key, val) // counted already
		return
	}
	tx.Insert(key, val)
}

// bucket makes sure that d is looked into. It stays in the list if the write does not happen: that costs a read.
func (w *Window) bucket(d day) {
	if slices.Contains(*w.buckets.Load(), d) {
		return
	}
	w.change(func(days []day) []day {
		if slices.Contains(days, d) {
			return days
		}
		days = append(days, d)
		slices.SortFunc(days, func(a, b day) int { return int(b) - int(a) })
		return days
	})
}

// change replaces the list of buckets by what edit makes of a copy.
func (w *Window) change(edit func([]day) []day) {
	w.changing.Lock()
	defer w.changing.Unlock()
	days := edit(slices.Clone(*w.buckets.Load()))
	w.buckets.Store(&days)
}
