package deadletter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/store"
)

const (
	expireLetters = 128  // removed in one operation
	readLetters   = 1024 // looked at in one read of the store
)

// open reports whether something can still become of the letter: it is not resolved or purged.
func (l *Letter) open() bool { return l.State != Resolved && l.State != Purged }

// Expire removes the letters of one side that were resolved or purged before the given time, in the background: in lazy
// operations of at most 128. It returns when that is done, ctx ends or the store fails; what is left is for the next call.
func Expire(ctx context.Context, s *store.Store, side string, before time.Time) error {
	var old []string
	remove := func(most int) error {
		for len(old) >= max(most, 1) {
			n := min(len(old), expireLetters)
			if err := removeAll(ctx, s, old[:n], before); err != nil {
				return err
			}
			old = old[n:]
		}
		return nil
	}
	err := each(ctx, s, func(l *Letter) error {
		if l.Side == side && !l.open() && l.LastAt.Before(before) {
			old = append(old, l.ID)
		}
		return nil
	}, func() error { return remove(expireLetters) })
	if err == nil {
		err = remove(1)
	}
	if err != nil {
		return fmt.Errorf("expire dead letters: %w", err)
	}
	return nil
}

// OpenSeqs returns the seqs of the events of one side whose letters are not resolved or purged. A letter that is put while
// it looks may be missing.
func OpenSeqs(ctx context.Context, s *store.Store, side string) (map[uint64]struct{}, error) {
	seqs := map[uint64]struct{}{}
	err := each(ctx, s, func(l *Letter) error {
		if l.Side == side && l.open() {
			seqs[l.Seq] = struct{}{}
		}
		return nil
	}, func() error { return nil })
	if err != nil {
		return nil, fmt.Errorf("find open dead letters: %w", err)
	}
	return seqs, nil
}

// each visits all letters, a number of them in each read of the store, and calls between after each read. A damaged letter
// is passed over.
func each(ctx context.Context, s *store.Store, visit func(*Letter) error, between func() error) error {
	from := []byte{letterPrefix}
	for from != nil {
		if err := ctx.Err(); err != nil {
			return err
		}
		var page []Letter
		var next []byte
		err := s.View(func(sn *store.Snapshot) error {
			seen := 0
			for rec, err := range sn.Scan(from, []byte{letterPrefix + 1}) {
				if err != nil && !errors.Is(err, store.ErrDamagedRecord) {
					return err
				}
				if seen++; seen > readLetters {
					next = bytes.Clone(rec.Key)
					return nil
				}
				if l, bad := decode(rec.Val); err == nil && bad == nil {
					page = append(page, Letter{ID: l.ID, Side: l.Side, State: l.State, Seq: l.Seq, LastAt: l.LastAt})
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		for i := range page {
			if err := visit(&page[i]); err != nil {
				return err
			}
		}
		if err := between(); err != nil {
			return err
		}
		from = next
	}
	return nil
}

// removeAll removes those of these letters that are still resolved or purged since before the given time.
func removeAll(ctx context.Context, s *store.Store, ids []string, before time.Time) error {
	return s.Commit(ctx, store.Op{Class: store.Lazy, Events: len(ids), Apply: func(tx *store.Tx) error {
		for _, id := range ids {
			l, ok, err := Get(tx, id)
			if err != nil {
				return err
			}
			if !ok || l.open() || !l.LastAt.Before(before) {
				continue
			}
			for _, prefix := range []byte{letterPrefix, eventPrefix} {
				if err := removeRecord(tx, prefix, id); err != nil {
					return err
				}
			}
		}
		return nil
	}})
}
