package outbox

import (
	"maps"
	"slices"
	"time"
)

// A deadEvent is an event that was given up and has no dead letter yet.
type deadEvent struct {
	seq      uint64
	entry    *entry // nil: to be read
	size     int
	reason   string
	attempts int
	status   int
	body     string
}

// changes are what a dispatcher has decided and nobody has written yet.
type changes struct {
	asides    []*item
	ended     []uint64 // seqs of set-aside records to remove
	dead      []deadEvent
	resolved  []string // dead letters whose replay has arrived
	mustWrite bool     // something was settled
	moved     bool     // only the cursor, or what an instance says of itself: that can wait
}

// add notes that it is set aside.
func (c *changes) add(it *item) {
	c.asides = append(c.asides, it)
	c.mustWrite = true
}

// drop notes that a set-aside event has ended.
func (c *changes) drop(it *item) {
	if it.recorded {
		c.ended = append(c.ended, it.seq)
		return
	}
	c.asides = slices.DeleteFunc(c.asides, func(other *item) bool { return other == it })
}

// An asideWrite is a set-aside record to be written.
type asideWrite struct {
	seq    uint64
	record asideRecord
}

// A write is everything that has to become durable together, copied so that the committer can read it while the dispatcher
// goes on.
type write struct {
	record   subscriberRecord
	asides   []asideWrite
	ended    []uint64
	dead     []deadEvent
	resolved []string

	decision uint64 // see dispatcher.undecided

	lettersOnly bool // of dead alone
}

// saved takes that w has become durable.
func (d *dispatcher) saved(w *write) {
	d.decided, d.kept = w.decision, maps.Clone(w.record.Instances)
}

// takeWrite hands over all changes since the last time, with the state that they lead to. The owner writes them in that order.
func (d *dispatcher) takeWrite(createdAt time.Time) write {
	if d.fill != nil && d.cursor() >= d.fill.End {
		clear(d.ended)
		d.fill = nil // not earlier: another process would have to know what it was about
	}
	w := write{
		record: d.record(createdAt), ended: d.pending.ended, dead: d.pending.dead, resolved: d.pending.resolved,
		decision: d.decision,
	}
	for _, it := range d.pending.asides {
		it.recorded = true
		w.asides = append(w.asides, asideWrite{seq: it.seq, record: asideRecord{
			Reason: it.reason, Key: it.key, Route: it.route, Type: it.typ, Version: it.version, Size: it.size,
			AcceptedAt: it.acceptedAt, Attempts: it.attempts, Letter: it.letter,
		}})
	}
	d.pending = changes{}
	return w
}

// maxOpenKeys is how many open keys of an instance are worth writing with every cursor; more are written as "all", but while keys
// move.
const maxOpenKeys = 64

// record is the durable state of the subscriber.
func (d *dispatcher) record(createdAt time.Time) subscriberRecord {
	r := subscriberRecord{
		Service: d.service, CreatedAt: createdAt, Start: d.start, Spans: d.spans, Backfill: d.fill.at(d.after),
		Cursor: d.cursor(), Counts: d.counts, Paused: d.paused, Log: d.log, Set: d.set, Mixed: d.mixed, Gone: d.gone,
		Instances: make(map[string]instanceRecord, len(d.said)),
		Spread:    d.spread, FormerSpreads: slices.Clone(d.former), Overtaken: d.overtaken,
	}
	for name, said := range d.said {
		if len(d.former) == 0 && len(said.OpenKeys) > maxOpenKeys {
			said.OpenKeys, said.OpenAll = nil, true
		}
		r.Instances[name] = said
	}
	for _, it := range d.open {
		switch it.counted { // the next process decides again that it is owed
		case asSkipped:
			r.Counts.Skipped++
		case asStored:
			r.Counts.Stored++
		}
	}
	r.Settled = d.settledAbove(r.Cursor)
	return r
}

// settledAbove returns the ranges above the cursor that are settled or set aside: what was read, less what is open, and what an
// earlier process had settled beyond.
func (d *dispatcher) settledAbove(cursor uint64) [][2]uint64 {
	var out [][2]uint64
	from := cursor + 1
	for _, it := range d.open {
		if it.aside || it.seq <= cursor {
			continue
		}
		if it.seq >= d.after {
			break
		}
		if it.seq > from {
			out = append(out, [2]uint64{from, it.seq - 1})
		}
		from = it.seq + 1
	}
	if from < d.after {
		out = append(out, [2]uint64{from, d.after - 1})
	}
	for _, r := range d.restored {
		if r[1] < d.after {
			continue
		}
		r[0] = max(r[0], d.after)
		out = append(out, r)
	}
	return out
}

// unread returns how many events of a log that ends before next have not been looked at.
func (d *dispatcher) unread(next uint64) uint64 {
	from := d.after
	if d.fill != nil {
		from = max(from, d.fill.To+1)
	}
	if next <= from {
		return 0
	}
	n := next - from
	for _, r := range d.restored {
		if r[1] >= from {
			n -= r[1] - max(r[0], from) + 1
		}
	}
	return n
}

// waiting returns how many of the open events are counted as waiting.
func (d *dispatcher) waiting() (n uint64) {
	for _, it := range d.open {
		if it.counted != asDead {
			n++
		}
	}
	return n
}
