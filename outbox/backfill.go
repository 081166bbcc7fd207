package outbox

import (
	"math"
	"slices"
	"sort"
)

// A backfill is a second reading of a part of the log, for the sake of events that have been dealt with: those that a new
// subscription reaches back to, and those that an inbox had stored and has lost with its disk. The settled ranges of the
// subscriber say which events have been dealt with; what is not in them, up to To, has been taken up again already.
type backfill struct {
	To       uint64     `json:"to"`   // up to here, what is open stands on disk under what it was settled as before
	End      uint64     `json:"end"`  // the last seq to be read again
	From     uint64     `json:"from"` // from here on, what Spans did not ask for is looked at again
	Spans    spans      `json:"spans,omitempty"`
	Replaced []replaced `json:"replaced,omitempty"`
}

// A replaced is an instance that came back with another store: what the lost one had and was not done with is sent again.
type replaced struct {
	Instance string `json:"instance"`
	After    uint64 `json:"after"` // up to this seq the lost store was done, or the second reading has been
	Mixed    uint64 `json:"mixed"` // up to this seq it may have been given other events than those it is now the home of
}

// nothing is a From that no event reaches.
const nothing = math.MaxUint64

// at returns what is left of f for a reading that goes on with seq next.
func (f *backfill) at(next uint64) *backfill {
	if f == nil {
		return nil
	}
	out := *f
	out.From = max(f.From, next)
	out.Replaced = nil
	for _, r := range f.Replaced {
		r.After = max(r.After, next-1)
		out.Replaced = append(out.Replaced, r)
	}
	return &out
}

// top is the last seq that may have been dealt with, by this process or an earlier one.
func (d *dispatcher) top() uint64 {
	top := d.after - 1
	if n := len(d.restored); n > 0 {
		top = max(top, d.restored[n-1][1])
	}
	return top
}

// reachBack reads the log again from seq on, for what the spans until now did not ask for. It reports whether it could: a
// reading for an earlier change has to be over first.
func (d *dispatcher) reachBack(seq uint64) bool {
	if seq > d.top() {
		return true // not read yet: nothing to repeat
	}
	if d.fill != nil && max(d.fill.From, d.after) <= d.fill.End {
		return false
	}
	d.readAgain(seq)
	d.fill.From, d.fill.Spans = seq, d.spans
	return true
}

// readAgain makes seq the next to be read, at the latest. What is open is set aside, since a cursor has no holes below it.
func (d *dispatcher) readAgain(seq uint64) {
	top := d.top()
	for _, it := range d.open {
		if !it.aside {
			d.setAside(it, "read_again")
		}
	}
	f := d.fill.at(d.after)
	if f == nil {
		f = &backfill{From: nothing}
	}
	f.To, f.End = max(f.To, d.after-1), max(f.End, top)
	d.fill = f
	clear(d.ended) // what died is durable before anything is read, what was stored may be lost
	if seq < d.start {
		d.counts.Skipped += d.start - seq
		d.start = seq
	}
	if seq < d.after {
		if len(d.restored) > 0 {
			d.restored[0][0] = max(d.restored[0][0], d.after)
		}
		d.restored = slices.Concat([][2]uint64{{seq, d.after - 1}}, d.restored)
		d.after = seq
	}
	d.pending.mustWrite = true
}

// again decides about an event that stands on disk as settled. dealt is false for one that the second reading has taken up in
// an earlier process: it is taken up again.
func (d *dispatcher) again(e *entry, dealt bool) (as counted, ok bool) {
	if d.ended[e.seq] || d.find(e.seq) != nil || !d.spans.owed(e.seq, e.typ, e.version) {
		return 0, false
	}
	f := d.fill
	if f.Spans != nil && !f.Spans.owed(e.seq, e.typ, e.version) && (!dealt || e.seq >= f.From) {
		d.counts.Skipped--
		return f.count(e.seq, asSkipped), true
	}
	if dealt && (d.buried[e.seq] || !slices.ContainsFunc(f.Replaced, func(r replaced) bool { return d.mayHaveHad(r, e) })) {
		return 0, false
	}
	if d.counts.Stored == 0 {
		return 0, false // unsubscribed at its time
	}
	d.counts.Stored--
	return f.count(e.seq, asStored), true
}

// count returns how an event is counted that is taken up again. Beyond To a process that finds it in no settled range will take
// it for one that nobody has looked at.
func (f *backfill) count(seq uint64, as counted) counted {
	if seq > f.To {
		return asWaiting
	}
	return as
}

// mayHaveHad reports whether the lost store of r may be the one that had e and was not done with it.
func (d *dispatcher) mayHaveHad(r replaced, e *entry) bool {
	if e.seq <= r.After {
		return false
	}
	if e.seq <= r.Mixed {
		return true
	}
	l := d.best(&item{route: e.route, typ: e.typ, version: e.version}, func(*lane) bool { return true })
	return l == nil || l.name == r.Instance || !slices.ContainsFunc(d.lanes, func(l *lane) bool { return l.known && l.name == r.Instance })
}

// lost counts the seqs from up to, not with, to: they are no longer in the log.
func (d *dispatcher) lost(from, to uint64) {
	for from < to {
		end := to - 1
		d.forget(from)
		if len(d.restored) > 0 && d.restored[0][0] <= from {
			end = min(end, d.restored[0][1])
			d.goneAgain(from, end)
			from = end + 1
			continue
		}
		if len(d.restored) > 0 {
			end = min(end, d.restored[0][0]-1)
		}
		if d.fill != nil {
			from = max(from, d.fill.To+1)
		}
		if from <= end {
			d.counts.Lost += end - from + 1
			d.pending.mustWrite = true
		}
		from = end + 1
	}
}

// goneAgain counts settled events that an inbox may have lost and that cannot be sent again, since the log has them no longer.
func (d *dispatcher) goneAgain(from, to uint64) {
	if d.fill == nil || len(d.fill.Replaced) == 0 {
		return
	}
	least := uint64(nothing)
	for _, r := range d.fill.Replaced {
		least = min(least, r.After+1)
	}
	if from = max(from, least); from > to {
		return
	}
	index := func(seq uint64) int {
		return sort.Search(len(d.open), func(i int) bool { return d.open[i].seq >= seq })
	}
	d.gone += to - from + 1 - uint64(index(to+1)-index(from)) // what is set aside has its own copy
	d.pending.mustWrite = true
}

// rereads reports whether what is read from seq on may be sent again because an inbox has lost it.
func (d *dispatcher) rereads(seq uint64) bool {
	return d.fill != nil && len(d.fill.Replaced) > 0 && seq <= d.fill.End
}
