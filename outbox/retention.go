package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/deadletter"
	"github.com/hooksidecar/hooksidecar/internal/dedup"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

const (
	removeAtOnce   = 128              // events in one operation
	removeBytes    = 1 << 20          // of bytes that move into set-aside records in one operation
	retainEvery    = 10 * time.Second // between looks at the end of the log
	expireIDsEvery = 10 * time.Minute
	totalsEvery    = 4096 // events between two writes of the totals: so many are read at start at most
)

// retain removes, in the background, events that everybody has and that are old, or of which there are too many.
func (o *Outbox) retain(ctx context.Context) {
	var idsAt time.Time
	saved := o.tail.end()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			o.saveTotals(context.WithoutCancel(ctx))
			return
		case <-o.full:
		case <-timer.C:
		}
		if err := o.removeSettled(ctx); err != nil && ctx.Err() == nil && !ended(err) {
			o.log.Error("old events were not removed, will try again", "err", err)
		}
		if now := time.Now(); now.Sub(idsAt) >= expireIDsEvery {
			idsAt = now
			o.expireIDs(ctx)
			o.expireLetters(ctx)
		}
		if end := o.tail.end(); end-saved >= totalsEvery {
			saved = end
			o.saveTotals(ctx)
		}
		timer.Reset(retainEvery)
	}
}

// kickRetention asks for room.
func (o *Outbox) kickRetention() {
	select {
	case o.full <- struct{}{}:
	default:
	}
}

// removeSettled removes events from the beginning of the log in small operations: those older than the retention, and, when
// the log is nearly full, younger ones. It stops at what somebody is owed and has not been set aside.
func (o *Outbox) removeSettled(ctx context.Context) error {
	if held, why := o.store.Clock().Held(); held {
		o.log.Warn("nothing is removed for its age until the clock is trusted", "reason", why)
		return nil
	}
	for ctx.Err() == nil {
		before := o.store.Clock().Now().Add(-o.cfg.Retention)
		run, err := o.planRemoval(before)
		if err != nil || run == nil {
			return err
		}
		if err := run.moveAll(ctx); err != nil {
			return fmt.Errorf("keep what is owed of events %d to %d: %w", run.from, run.to, err)
		}
		if err := o.store.Commit(ctx, store.Op{Class: store.Lazy, Apply: run.apply, Done: run.done}); errors.Is(err, errNeeded) {
			return nil // the next look plans anew
		} else if err != nil {
			return fmt.Errorf("remove events %d to %d: %w", run.from, run.to, err)
		}
	}
	return nil
}

// A removal is a run of events at the beginning of the log that can go.
type removal struct {
	o        *Outbox
	from, to uint64
	present  []uint64         // seqs that are there
	sizes    map[uint64]int64 // of those, attributes and data
	bytes    int64            // of all of them
	asides   []asideOf        // that are still owed and get the bytes
}

// asideOf names a set-aside record.
type asideOf struct {
	service string
	seq     uint64
	size    int64
}

// planRemoval returns the next run to remove, nil if there is none.
func (o *Outbox) planRemoval(before time.Time) (*removal, error) {
	first, limit := o.removable()
	if first >= limit {
		return nil, nil
	}
	run := &removal{o: o, from: first, to: first - 1, sizes: map[uint64]int64{}}
	var spare int64 // bytes to be freed whatever their age
	if high := o.cfg.MaxBytes / 10 * 9; o.bytes.Load() > high {
		spare = o.bytes.Load() - high
	}
	err := o.store.View(func(sn *store.Snapshot) error {
		for rec, err := range sn.Scan(eventKey(first), eventKey(limit)) {
			if err != nil && !errors.Is(err, store.ErrDamagedRecord) {
				return err
			}
			if len(run.present) >= removeAtOnce || run.bytes > removeBytes && len(run.present) > 0 {
				return nil
			}
			seq := eventSeq(rec.Key)
			if err == nil {
				at, err := eventAcceptedAt(rec.Val)
				if err == nil && at > before.UnixMilli() && run.bytes >= spare {
					return nil
				}
				run.sizes[seq] = entrySize(rec.Val)
				run.bytes += run.sizes[seq]
			}
			run.present = append(run.present, seq)
			run.to = seq
		}
		if len(run.present) < removeAtOnce {
			run.to = limit - 1 // what is missing up to there is lost, and needs no removal
		}
		return nil
	})
	if err != nil || run.to < run.from {
		return nil, err
	}
	return run, o.store.View(run.findAsides)
}

// errNeeded says that a run is to be read again, since an inbox has lost its disk or a subscription reaches back.
var errNeeded = errors.New("events to be removed are needed again")

// removable returns the first kept seq, and the first one that somebody still needs in the log.
func (o *Outbox) removable() (first, limit uint64) {
	first, limit = o.store.Bounds(store.OutboxLog)
	for _, s := range o.all() {
		s.mu.Lock()
		limit = min(limit, s.durable+1)
		if s.d.fill != nil {
			limit = min(limit, s.d.after)
		}
		s.mu.Unlock()
	}
	return first, limit
}

func (r *removal) findAsides(sn *store.Snapshot) error {
	for _, s := range r.o.all() {
		for key, err := range sn.Keys(asideKey(s.service, r.from), asideKey(s.service, r.to+1)) {
			if err != nil {
				return err
			}
			seq := asideSeq(key)
			r.asides = append(r.asides, asideOf{s.service, seq, r.sizes[seq]})
		}
	}
	return nil
}

// moveAll gives everybody who is still owed an event of the run a copy of it, before it is removed: in parts, since all of
// them may be too much for one transaction. An event that is set aside later than this is beyond the run.
func (r *removal) moveAll(ctx context.Context) error {
	for rest := r.asides; len(rest) > 0; {
		n, size := 0, int64(0)
		for n < len(rest) && (n == 0 || size+rest[n].size <= removeBytes) {
			size += rest[n].size
			n++
		}
		part := rest[:n]
		rest = rest[n:]
		err := r.o.store.Commit(ctx, store.Op{Class: store.Lazy, Bytes: int(size), Apply: func(tx *store.Tx) error {
			for _, a := range part {
				if err := moveBytes(tx, a.service, a.seq); err != nil {
					return err
				}
			}
			return nil
		}})
		if err != nil {
			return err
		}
	}
	return nil
}

// apply removes the run.
func (r *removal) apply(tx *store.Tx) error {
	if _, limit := r.o.removable(); r.to >= limit {
		return errNeeded
	}
	for _, seq := range r.present {
		tx.Remove(eventKey(seq))
	}
	tx.SetTail(store.OutboxLog, r.to+1)
	r.o.putTotals(tx, r.bytes)
	return nil
}

func (r *removal) done(err error) {
	if err == nil {
		r.o.bytes.Add(-r.bytes)
		r.o.metrics.removed.Add(len(r.present))
	}
}

// putTotals writes how many bytes the log holds once removed of them are gone. What is read here is changed on the committer's
// goroutine, between two operations: it speaks of one moment.
func (o *Outbox) putTotals(tx *store.Tx, removed int64) {
	tx.Put(totalsKey(), appendJSON(totalsRecord{Seq: o.tail.end() - 1, Bytes: o.bytes.Load() - removed}))
}

// moveBytes copies an event into its set-aside record, unless that has ended or has them already.
func moveBytes(tx *store.Tx, service string, seq uint64) error {
	key := asideKey(service, seq)
	val, ok, err := tx.Get(key)
	if err != nil || !ok {
		return err
	}
	record, own, err := readAside(seq, val)
	if err != nil || own != nil {
		return err
	}
	text, ok, err := tx.Get(eventKey(seq))
	if err != nil || !ok {
		return err
	}
	e, err := readEventRecord(seq, text)
	if err != nil {
		return err
	}
	tx.Put(key, appendAside(record, e))
	return nil
}

// expireIDs forgets ids past the window, but for those of events that are still kept.
func (o *Outbox) expireIDs(ctx context.Context) {
	if held, _ := o.store.Clock().Held(); held {
		return
	}
	first, _ := o.store.Bounds(store.OutboxLog)
	err := o.ids.Expire(ctx, o.store.Clock().Now(), func(r dedup.Record) bool { return r.Seq >= first })
	if err != nil && ctx.Err() == nil && !ended(err) {
		o.log.Error("old ids were not removed, will try again", "err", err)
	}
}

// expireLetters removes dead letters of this side that somebody has dealt with, once they are past the retention.
func (o *Outbox) expireLetters(ctx context.Context) {
	if held, _ := o.store.Clock().Held(); held {
		return
	}
	err := deadletter.Expire(ctx, o.store, deadletter.Outbox, o.store.Clock().Now().Add(-o.cfg.Retention))
	if err != nil && ctx.Err() == nil && !ended(err) {
		o.log.Error("old dead letters were not removed, will try again", "err", err)
	}
}

// saveTotals writes how many bytes the log holds, so that the next start need not read it all.
func (o *Outbox) saveTotals(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, graceTime)
	defer cancel()
	err := o.store.Commit(ctx, store.Op{Class: store.Lazy, Apply: func(tx *store.Tx) error {
		o.putTotals(tx, 0)
		return nil
	}})
	if err != nil && ctx.Err() == nil && !ended(err) {
		o.log.Warn("totals of the outbox were not written", "err", err)
	}
}

// restoreTotals finds out how many bytes the log holds, from the last totals and what came after them.
func (o *Outbox) restoreTotals(sn *store.Snapshot) error {
	var t totalsRecord
	if val, ok, err := sn.Get(totalsKey()); err != nil {
		return err
	} else if ok {
		if err := readJSON(val, &t); err != nil {
			return err
		}
	}
	_, next := o.store.Bounds(store.OutboxLog)
	for rec, err := range sn.Scan(eventKey(t.Seq+1), eventKey(next)) {
		if errors.Is(err, store.ErrDamagedRecord) {
			continue
		}
		if err != nil {
			return err
		}
		t.Bytes += entrySize(rec.Val)
	}
	o.bytes.Store(max(0, t.Bytes))
	return nil
}
