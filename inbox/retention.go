package inbox

import (
	"context"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/dedup"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

const (
	retainEvery  = time.Minute
	retainEvents = 128                   // removed in one operation
	retainPause  = 20 * time.Millisecond // between operations, so that removing never crowds out storing
)

// retain removes settled events that are older than the retention, and ids that are older than the dedup window, until ctx
// ends. Ages are counted by the clock that never jumps.
func (in *Inbox) retain(ctx context.Context) {
	tick := time.NewTicker(retainEvery)
	defer tick.Stop()
	for {
		in.removeOld(ctx)
		if err := in.window.Expire(ctx, in.store.Clock().Now(), in.remember); err != nil && ctx.Err() == nil {
			in.log.Warn("old ids could not be removed, will retry", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// remember reports whether an id must be kept however old it is: its event is unsettled.
func (in *Inbox) remember(r dedup.Record) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.f.items[r.Seq] != nil || in.open(r.Seq)
}

// removeOld removes what retention no longer wants, from the tail of the log.
func (in *Inbox) removeOld(ctx context.Context) {
	if held, _ := in.store.Clock().Held(); held {
		return
	}
	for ctx.Err() == nil {
		n, err := in.removeSome(ctx, in.store.Clock().Now().Add(-in.cfg.Retention))
		if err != nil && ctx.Err() == nil {
			in.log.Warn("old events could not be removed, will retry", "err", err)
		}
		if n < retainEvents || err != nil {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(retainPause):
		}
	}
}

// removeSome removes up to retainEvents settled events that arrived before the given time, and returns how many.
func (in *Inbox) removeSome(ctx context.Context, before time.Time) (int, error) {
	tail, _ := in.store.Bounds(store.InboxLog)
	in.mu.Lock()
	end := min(in.f.oldestOpen(), in.f.cursor+1) // never what is unsettled, also if the cursor has passed it
	in.mu.Unlock()
	var seqs []uint64
	err := in.store.View(func(sn *store.Snapshot) error {
		seqs = nil
		if tail >= end {
			return nil
		}
		for rec, err := range sn.Scan(seqKey(eventPrefix, tail), seqKey(eventPrefix, end)) {
			if rec.Key == nil && err != nil {
				return err
			}
			seq, keyErr := seqOf(rec.Key)
			if keyErr != nil {
				return keyErr
			}
			if err == nil { // a damaged one goes with its neighbours
				if at, ok := arrivedAt(rec.Val); ok && !at.Before(before) {
					return nil
				}
			}
			if seqs = append(seqs, seq); len(seqs) == retainEvents {
				return nil
			}
		}
		return nil
	})
	if err != nil || len(seqs) == 0 {
		return 0, err
	}
	return len(seqs), in.store.Commit(ctx, store.Op{Class: store.Lazy, Events: len(seqs), Apply: func(tx *store.Tx) error {
		for _, seq := range seqs {
			tx.Remove(seqKey(eventPrefix, seq))
		}
		tx.SetTail(store.InboxLog, seqs[len(seqs)-1]+1)
		return nil
	}})
}

// arrivedAt reads the time out of a record of the inbox log.
func arrivedAt(val []byte) (time.Time, bool) {
	d := decoder{rest: val}
	if d.byte() != recordVersion {
		return time.Time{}, false
	}
	ms := d.uvarint()
	return time.UnixMilli(int64(ms)), !d.bad
}
