package inbox

import (
	"container/heap"
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/hooksidecar/hooksidecar/internal/deadletter"
	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

// An event is in doubt while another instance of the service may have finished it without this one having been told: all
// that was unsettled when the process started, and all that is unsettled when another instance can be reached again. It
// is not forwarded until the others were asked, once. What they have finished is settled here without a forward; what
// cannot be found out is forwarded marked.

const (
	doubtEvents = event.MaxBatchEvents // in one question
	doubtBytes  = 16 << 20             // of events that are read for one question
)

// doubtAll puts everything that is unsettled in doubt, replays aside: an operator has asked for those.
func (f *forwarder) doubtAll() {
	f.doubtBefore = max(f.doubtBefore, f.next)
	for _, seq := range slices.Sorted(maps.Keys(f.items)) {
		if it := f.items[seq]; !it.doubt && !it.dying && it.letter == "" {
			it.doubt = true
			f.doubts = append(f.doubts, seq)
		}
	}
}

// nextDoubts returns the events to ask about next, at most n and about that many bytes.
func (f *forwarder) nextDoubts(n, bytes int) (page []uint64) {
	for len(f.doubts) > 0 && len(page) < n && bytes > 0 {
		if it := f.items[f.doubts[0]]; it != nil && it.doubt {
			page = append(page, it.seq)
			bytes -= it.size
		}
		f.doubts = f.doubts[1:]
	}
	if len(f.doubts) == 0 {
		f.doubts = nil
	}
	return page
}

// heard takes what the other instances say about an event in doubt; sure says that all have answered.
func (f *forwarder) heard(seq uint64, k event.Knowledge, sure bool) {
	it := f.items[seq]
	if it == nil || !it.doubt {
		return
	}
	it.doubt = false
	switch {
	case k == event.Settled:
		it.elsewhere = true
	case k == event.Open || !sure:
		it.marked = true
	}
	switch {
	case it.state == stateAsking && !it.elsewhere:
		f.admit(it)
	case it.elsewhere && f.withdraw(it):
		f.endElsewhere(it)
	}
}

// withdraw takes an item from where it waits to be forwarded. It reports false for one that is under way or being saved: that
// ends when it is done, or would be admitted again, or would be buried.
func (f *forwarder) withdraw(it *item) bool {
	switch it.state {
	case stateReady:
		heap.Remove(&f.ready, slices.Index(f.ready, it))
	case stateWaiting:
		heap.Remove(&f.due, slices.Index(f.due, it))
	case stateAsking, stateParked, stateBlocked: // it does not overtake: it goes nowhere
	default:
		return false
	}
	return true
}

// endElsewhere settles an event that another instance has finished; it holds its key until that is durable.
func (f *forwarder) endElsewhere(it *item) {
	it.state = stateSaving
	it.dying = true
	f.change(changeElsewhere, it, reasonElsewhere, deadletter.Answer{})
}

// recheck puts everything that is unsettled in doubt.
func (in *Inbox) recheck() {
	in.mu.Lock()
	in.f.doubtAll()
	in.mu.Unlock()
	in.poke()
}

// A rumour is what was heard about a page of events in doubt.
type rumour struct {
	seqs []uint64
	hearsay
}

// inquire asks the other instances about the next events in doubt, one page at a time.
func (r *runner) inquire(ctx context.Context) {
	for !r.asking {
		r.mu.Lock()
		page := r.f.nextDoubts(doubtEvents, doubtBytes)
		r.mu.Unlock()
		if len(page) == 0 {
			return
		}
		others := r.siblings.known()
		if len(others) == 0 {
			r.heed(rumour{page, hearsay{known: make([]event.Knowledge, len(page)), sure: true}})
			continue
		}
		r.asking = true
		r.under.Go(func() { r.told <- r.hear(ctx, others, page) }) // never blocks: one question, one place
	}
}

// hear asks the other instances about events of the log. One that cannot be read stays as it is.
func (r *runner) hear(ctx context.Context, others []event.Instance, page []uint64) rumour {
	var places []int // in page, of what is asked
	var traces []event.Trace
	err := r.store.View(func(sn *store.Snapshot) error {
		places, traces = nil, nil
		for i, seq := range page {
			val, ok, err := sn.Get(seqKey(eventPrefix, seq))
			if errors.Is(err, store.ErrDamagedRecord) {
				continue
			}
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			if rec, err := decodeReceived(seq, val); err == nil {
				places = append(places, i)
				traces = append(traces, event.TraceOf(event.Hash(rec.event.Source, rec.event.ID), rec.digest))
			}
		}
		return nil
	})
	result := rumour{page, hearsay{known: make([]event.Knowledge, len(page))}}
	if err != nil {
		r.log.Warn("events could not be read to ask other instances about them; they are forwarded marked", "err", err)
		return result
	}
	heard := r.siblings.ask(ctx, others, traces)
	result.sure = heard.sure
	for i, k := range heard.known {
		result.known[places[i]] = k
	}
	return result
}

// heed gives what was heard to the forwarder.
func (r *runner) heed(told rumour) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, seq := range told.seqs {
		r.f.heard(seq, told.known[i], told.sure)
	}
	r.settler.dirty = r.settler.dirty || len(r.f.changes) > 0
}
