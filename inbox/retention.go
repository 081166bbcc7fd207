package inbox

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/deadletter"
	"github.com/hooksidecar/hooksidecar/internal/dedup"
	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

const (
	retainEvery  = time.Minute
	tidyEvery    = time.Hour            // letters and senders
	retainEvents = 128                  // removed in one operation
	retainPause  = 2 * time.Millisecond // between operations, so that removing never crowds out storing
)

// retain removes settled events and ended letters that are older than the retention, ids that are older than the dedup
// window, and senders of whom neither is left, until ctx ends. Ages are counted by the clock that never jumps.
func (in *Inbox) retain(ctx context.Context) {
	tick := time.NewTicker(retainEvery)
	defer tick.Stop()
	var tidied time.Time
	for {
		in.removeOld(ctx)
		if err := in.expireIDs(ctx, in.store.Clock().Now()); err != nil && ctx.Err() == nil {
			in.log.Warn("old ids could not be removed, will retry", "err", err)
		}
		if time.Since(tidied) >= tidyEvery {
			tidied = time.Now()
			if err := in.tidy(ctx, in.store.Clock().Now()); err != nil && ctx.Err() == nil {
				in.log.Warn("old dead letters and senders could not be removed, will retry", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// expireIDs removes the ids whose time is over, but for those whose event is unsettled or has a letter that is not ended:
// a copy of them is a duplicate however long that takes. What settles in the meantime is in today's bucket.
func (in *Inbox) expireIDs(ctx context.Context, now time.Time) error {
	if !in.window.Due(now) {
		return nil
	}
	lettered, err := deadletter.OpenSeqs(ctx, in.store, deadletter.Inbox)
	if err != nil {
		return err
	}
	return in.window.Expire(ctx, now, func(r dedup.Record) bool {
		if _, open := lettered[r.Seq]; open {
			return true
		}
		in.mu.Lock()
		defer in.mu.Unlock()
		return in.f.items[r.Seq] != nil || in.open(r.Seq)
	})
}

// tidy removes what is not bound to the log: letters that have ended, and senders that are gone.
func (in *Inbox) tidy(ctx context.Context, now time.Time) error {
	if held, _ := in.store.Clock().Held(); held {
		return nil
	}
	if err := deadletter.Expire(ctx, in.store, deadletter.Inbox, now.Add(-in.cfg.Retention)); err != nil {
		return err
	}
	return in.forgetSenders(ctx, now.Add(-max(in.cfg.Retention, in.cfg.DedupWindow)))
}

// forgetSenders removes the logs of which nothing is open, nothing came since the given time, and that no known instance
// has any more.
func (in *Inbox) forgetSenders(ctx context.Context, before time.Time) error {
	idle := func(s *senderLog) bool { return s != nil && s.at < before.UnixMilli() && s.idle(in.f.read) }
	old := map[string]string{} // store id -> service
	in.mu.Lock()
	for storeID, s := range in.senders {
		if len(old) < retainEvents && idle(s) {
			old[storeID] = s.service
		}
	}
	in.mu.Unlock()
	maps.DeleteFunc(old, func(storeID, service string) bool {
		return slices.ContainsFunc(in.cfg.Peers.Instances(service), func(i event.Instance) bool { return i.StoreID == storeID })
	})
	if len(old) == 0 {
		return nil
	}
	each := func(do func(storeID string)) {
		in.mu.Lock()
		defer in.mu.Unlock()
		for storeID := range old {
			if idle(in.senders[storeID]) { // still: something may be on its way
				do(storeID)
			}
		}
	}
	return in.store.Commit(ctx, store.Op{
		Class: store.Lazy, Events: len(old),
		Apply: func(tx *store.Tx) error {
			each(func(storeID string) { tx.Delete(senderKey(storeID)) })
			return nil
		},
		Done: func(err error) {
			if err == nil {
				each(func(storeID string) { delete(in.senders, storeID) })
			}
		},
	})
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
	for seq := range in.ending {
		end = min(end, seq)
	}
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
