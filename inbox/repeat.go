package inbox

import (
	"context"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/dedup"
	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/signature"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

// judgeRepeats finds out which redeliveries may be repeats although this store does not know them. The other instances are
// asked about those; what they do not know is a repeat for certain only if one of them could not be asked, or if the event
// was accepted before this store was made.
func (a *accept) judgeRepeats(ctx context.Context) {
	a.marks = make([]bool, len(a.events))
	var unknown []int
	born := a.in.store.CreatedAt().Add(signature.Tolerance).UnixMilli() // the sender's clock may be ahead
	for i := range a.events {
		if c := &a.events[i]; c.redelivery && c.decided.Verdict == "" {
			a.marks[i] = c.acceptedAt < born
			unknown = append(unknown, i)
		}
	}
	if len(unknown) == 0 {
		return
	}
	others := a.in.siblings.known()
	if len(others) == 0 {
		return
	}
	if unknown = a.notHere(unknown); len(unknown) > 0 {
		a.askOthers(ctx, others, unknown)
	}
}

// askOthers asks the other instances about the events with these indexes.
func (a *accept) askOthers(ctx context.Context, others []event.Instance, unknown []int) {
	traces := make([]event.Trace, len(unknown))
	for at, i := range unknown {
		traces[at] = event.TraceOf(a.events[i].hash, a.events[i].digest)
	}
	told := a.in.siblings.ask(ctx, others, traces)
	a.heard = make([]event.Knowledge, len(a.events))
	for at, i := range unknown {
		a.heard[i] = told.known[at]
		a.marks[i] = a.marks[i] || !told.sure
	}
}

// notHere returns those of the events with these indexes that this store does not know. It may be wrong about what is
// stored at this moment, or cannot be read: the transaction decides.
func (a *accept) notHere(indexes []int) (unknown []int) {
	err := a.in.store.View(func(sn *store.Snapshot) error {
		unknown = nil
		for _, i := range indexes {
			if _, known, err := a.in.window.Find(sn, a.events[i].hash); err != nil || !known {
				unknown = append(unknown, i)
			}
		}
		return nil
	})
	if err != nil {
		return indexes
	}
	return unknown
}

// elsewhere returns the outcome of an event that another instance knows; zero: none does. One that is open there is not
// taken and stays owed: it is settled there some day, or that instance is lost and it is taken here, marked.
func (a *accept) elsewhere(c *candidate, i int) event.Outcome {
	if a.heard == nil {
		return event.Outcome{}
	}
	switch a.heard[i] {
	case event.Settled:
		a.finished = max(a.finished, c.seq)
		return event.Outcome{Verdict: event.Duplicate}
	case event.Open:
		return event.Outcome{Verdict: event.KeyBusy, Code: "open_elsewhere", Detail: "another instance of this service has it and has not finished"}
	case event.Conflict:
		return event.Outcome{Verdict: event.Rejected, Code: "id_conflict",
			Detail: "an event with this source and id, but other content, was stored by another instance before"}
	}
	return event.Outcome{}
}

// pastWindow says about a redelivery whose id is not known here whether it is so old that the id may have been forgotten.
// It was forgotten if its log had come as far as that; it is doubtful if what was known of the log is forgotten too. What
// was given after that, or to an earlier store, is not meant: the one is new, the other is marked.
func (a *accept) pastWindow(c *candidate) (forgotten, doubtful bool) {
	in := a.in
	accepted := time.UnixMilli(c.acceptedAt)
	if !c.redelivery || a.now.Sub(accepted) <= in.cfg.DedupWindow || accepted.Before(in.store.CreatedAt()) {
		return false, false
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	s := in.senders[a.from.StoreID]
	return s != nil && c.seq <= s.highest, s == nil
}

// repeat decides about an event whose id is known.
func (a *accept) repeat(tx *store.Tx, c *candidate, rec dedup.Record) (event.Outcome, error) {
	if rec.Digest != c.digest {
		return event.Outcome{Verdict: event.Rejected, Code: "id_conflict",
			Detail: "an event with this source and id, but other content, was stored before"}, nil
	}
	if a.from.StoreID == "" {
		return event.Outcome{Verdict: event.Duplicate}, nil
	}
	elsewhere, err := a.cameFromElsewhere(tx, c, rec.Seq)
	if err != nil {
		return event.Outcome{}, err
	}
	if elsewhere {
		if !a.in.mayJoin(a.from.StoreID, len(a.also)) {
			return event.Outcome{Verdict: event.Busy}, nil
		}
		a.also = append(a.also, aside{c.seq, rec.Seq, c.key})
	}
	return event.Outcome{Verdict: event.Duplicate}, nil
}

// cameFromElsewhere reports whether the unsettled event with that inbox seq came under another log or seq, so that this
// sender has to wait for it too before it counts as applied.
func (a *accept) cameFromElsewhere(tx *store.Tx, c *candidate, inboxSeq uint64) (bool, error) {
	log, seq, loaded, open := a.in.origin(inboxSeq)
	if !open {
		return false, nil
	}
	if !loaded {
		val, ok, err := tx.Get(seqKey(eventPrefix, inboxSeq))
		if err != nil || !ok {
			return false, err
		}
		r, err := decodeReceived(inboxSeq, val)
		if err != nil {
			return false, err
		}
		log, seq = r.log, r.logSeq
	}
	return log != a.from.StoreID || seq != c.seq, nil
}
