package dedup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/store"
)

// expireKeys bounds one operation of Expire, so that it never holds up the group that it rides in.
const expireKeys = 128

// Due reports whether Expire has something to do: the oldest bucket ended more than the window's time before now.
func (w *Window) Due(now time.Time) bool {
	days := *w.buckets.Load()
	if held, _ := w.store.Clock().Held(); held || len(days) == 0 {
		return false
	}
	return w.over(days[len(days)-1], now)
}

// over reports whether the time of a bucket is over.
func (w *Window) over(d day, now time.Time) bool { return !d.end().Add(w.keep).After(now) }

// Expire removes the buckets that ended more than the window's time before now, oldest first, in operations of at most
// 128 records. It returns when that is done, ctx ends or a write fails; what is left is for the next call. While the
// ageing clock is held it does nothing.
//
// keepIf says which records must stay, because the event is not settled: they move into the bucket of now. It is
// called on the committer's goroutine, possibly twice for one record, and must not block. nil keeps none.
func (w *Window) Expire(ctx context.Context, now time.Time, keepIf func(Record) bool) error {
	if held, _ := w.store.Clock().Held(); held {
		return nil
	}
	if keepIf == nil {
		keepIf = func(Record) bool { return false }
	}
	w.expiring.Lock()
	defer w.expiring.Unlock()
	for _, d := range slices.Backward(*w.buckets.Load()) {
		if !w.over(d, now) {
			return nil
		}
		empty, err := w.expire(ctx, d, dayOf(now), keepIf)
		if err != nil {
			return fmt.Errorf("expire dedup bucket: %w", err)
		}
		if !empty {
			continue // a snapshot from before may still need it: it leaves the list at the next call
		}
		w.change(func(days []day) []day {
			return slices.DeleteFunc(days, func(have day) bool { return have == d })
		})
	}
	return nil
}

// expire empties bucket d, and reports whether it was empty already. It goes from key to key and never back, since a scan
// from the bucket's beginning would step over everything that was removed before.
func (w *Window) expire(ctx context.Context, d, today day, keepIf func(Record) bool) (empty bool, err error) {
	from, _ := bounds(w.prefix, d)
	to, _ := bounds(w.prefix, d+1)
	for empty = true; ctx.Err() == nil; empty = false {
		keys, err := w.keys(from, to)
		if err != nil || len(keys) == 0 {
			return empty, err
		}
		err = w.store.Commit(ctx, store.Op{Class: store.Lazy, Apply: func(tx *store.Tx) error {
			for _, key := range keys {
				if err := w.leave(tx, key, d, today, keepIf); err != nil {
					return err
				}
			}
			return nil
		}})
		if err != nil {
			return false, err
		}
		from = append(bytes.Clone(keys[len(keys)-1]), 0)
	}
	return false, ctx.Err()
}

// keys returns the next few keys of a bucket.
func (w *Window) keys(from, to []byte) (keys [][]byte, err error) {
	err = w.store.View(func(sn *store.Snapshot) error {
		keys = keys[:0]
		for key, err := range sn.Keys(from, to) {
			if err != nil {
				return err
			}
			keys = append(keys, bytes.Clone(key))
			if len(keys) == expireKeys {
				break
			}
		}
		return nil
	})
	return keys, err
}

// leave removes one record of bucket d, and keeps it in today's if it must stay and no newer one took its place.
func (w *Window) leave(tx *store.Tx, key []byte, d, today day, keepIf func(Record) bool) error {
	val, ok, err := tx.Get(key)
	switch {
	case err != nil && !damaged(err):
		return err
	case err == nil && !ok:
		return nil // gone: the operation ran before
	}
	if r, bad := parseRecord(val); err == nil && bad == nil && keepIf(r) {
		id := [hashBytes]byte(key[hashAt:])
		_, newer, err := w.findAfter(tx, id, int(d))
		if err != nil {
			return err
		}
		if !newer {
			w.put(tx, id, r, today)
		}
	}
	tx.Remove(key) // a damaged record goes as well: its time is over
	return nil
}

// damaged reports whether a key is there, but its record is not what was written.
func damaged(err error) bool { return errors.Is(err, store.ErrDamagedRecord) }
