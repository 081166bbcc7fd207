package inbox

import (
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hooksidecar/hooksidecar/internal/backoff"
	"github.com/hooksidecar/hooksidecar/internal/event"
)

// A world is everything around a forwarder: the log, what is durable, and an app that answers as it likes. It checks after
// every step what the forwarder promises.
type world struct {
	t   *rapid.T
	f   *forwarder
	now time.Time

	log []item // by seq - 1: what never changes about an event

	// Durable:
	saved   progress
	records map[uint64]item
	letters map[uint64]string

	// In memory, lost in a crash:
	boot    uint64 // seqs up to it were there when the process started
	pending []change
	writing []change
	next    progress
	inOp    bool
	flying  map[uint64]bool
	parked  map[int]bool
	asked   []uint64        // another instance is being asked about these
	heard   map[uint64]bool // it has said that it finished them

	elsewhere map[uint64]bool // finished by another instance
	ended     map[uint64]bool // and settled here for that reason, durably

	// What the app saw, over all processes:
	received map[uint64]int
	done     map[uint64]bool // as answered in this or an earlier process and known there
	limit    int
}

var modelPolicies = []retryPolicy{
	{wait: backoff.Policy{Base: time.Second, Max: time.Minute}, maxAttempts: 4},
	{wait: backoff.Policy{Base: time.Second, Max: time.Minute}, maxAttempts: 2},
}

func newWorld(t *rapid.T) *world {
	w := &world{
		t: t, now: time.Unix(1_800_000_000, 0), limit: 3,
		records: map[uint64]item{}, letters: map[uint64]string{}, received: map[uint64]int{},
		done: map[uint64]bool{}, elsewhere: map[uint64]bool{}, ended: map[uint64]bool{},
	}
	w.start()
	return w
}

// start begins a process with what is durable.
func (w *world) start() {
	w.f = newForwarder(modelPolicies, w.limit, w.saved.cursor)
	w.f.window, w.f.lettersPerOp, w.f.exceptions = 12, 1, 20
	w.f.next = uint64(len(w.log)) + 1
	w.boot = uint64(len(w.log))
	w.pending, w.writing, w.inOp, w.flying, w.parked = nil, nil, false, map[uint64]bool{}, map[int]bool{}
	w.asked, w.heard, w.f.doubtBefore = nil, map[uint64]bool{}, w.f.next
	for _, p := range w.saved.parked {
		w.f.parked[int(p[0]-'0')], w.parked[int(p[0]-'0')] = true, true
	}
	for _, seq := range slices.Sorted(maps.Keys(w.records)) {
		rec := w.records[seq]
		it := w.log[seq-1]
		it.attempts, it.tries, it.due, it.marked = rec.attempts, rec.tries, rec.due, true
		it.doubt = true
		w.f.except(&it)
	}
	w.fill()
}

func (w *world) fill() {
	for w.f.room() > 0 {
		seq := w.f.read
		if w.f.items[seq] != nil || spanSet(w.saved.spans).has(seq) && seq <= w.boot {
			w.f.skip(seq + 1)
			continue
		}
		it := w.log[seq-1]
		it.marked, it.doubt = seq <= w.boot, seq < w.f.doubtBefore
		w.f.load(&it)
	}
}

func (w *world) arrive(key uint64, sub int) {
	seq := uint64(len(w.log)) + 1
	w.log = append(w.log, item{seq: seq, key: key, sub: sub, size: 10})
	w.f.next = seq + 1
	w.f.backlogBytes += 10
}

// step lets the forwarder start what it wants, and checks each start.
func (w *world) step() {
	w.fill()
	held, before := w.f.app.mode != appUp, len(w.flying)
	for _, it := range w.f.start(w.now) {
		if w.flying[it.seq] {
			w.t.Fatalf("event %d started twice", it.seq)
		}
		w.flying[it.seq] = true
		if w.ended[it.seq] {
			w.t.Fatalf("event %d was settled as finished by another instance and is forwarded", it.seq)
		}
		if it.doubt || w.heard[it.seq] {
			w.t.Fatalf("event %d is forwarded in doubt (%v), or although another instance has finished it (%v)", it.seq, it.doubt, w.heard[it.seq])
		}
		if w.received[it.seq] > 0 && !it.marked && it.tries < 2 {
			w.t.Fatalf("event %d was received %d times and is forwarded unmarked", it.seq, w.received[it.seq])
		}
		if _, dead := w.letters[it.seq]; dead {
			w.t.Fatalf("event %d is a dead letter and forwarded", it.seq)
		}
		if it.due.After(w.now) {
			w.t.Fatalf("event %d started %v early", it.seq, it.due.Sub(w.now))
		}
		if got := w.records[it.seq].attempts; got != it.attempts {
			w.t.Fatalf("event %d started after %d attempts, of which %d are durable", it.seq, it.attempts, got)
		}
		if w.parked[it.sub] {
			w.t.Fatalf("event %d of a parked subscription started", it.seq)
		}
		for seq := uint64(1); it.key != 0 && seq < it.seq; seq++ {
			if w.log[seq-1].key == it.key && w.f.open(seq) {
				w.t.Fatalf("event %d overtakes %d of its key", it.seq, seq)
			}
		}
	}
	if started := len(w.flying) - before; len(w.flying) > w.limit || held && started > 0 && len(w.flying) > 1 {
		w.t.Fatalf("%d in flight, held back: %v", len(w.flying), held)
	}
	if got := len(w.f.items); got > w.f.window+len(w.records)+pushOutEvents {
		w.t.Fatalf("%d events in memory", got)
	}
	w.pending = append(w.pending, w.f.changes...)
	w.f.changes = nil
}

func (w *world) answer(seq uint64, cl class, retryAfter time.Duration, r float64) {
	it := w.f.items[seq]
	attempts, mode := it.attempts, w.f.app.mode
	delete(w.flying, seq)
	if cl != classUnreachable {
		w.received[seq]++
	}
	w.f.answered(seq, answer{class: cl, retryAfter: retryAfter}, w.now, r)
	if w.heard[seq] && slices.ContainsFunc(w.f.changes, func(c change) bool { return c.kind == changeDead && c.item.seq == seq }) {
		w.t.Fatalf("event %d becomes a dead letter although another instance has finished it", seq)
	}
	switch cl {
	case classDone:
		w.done[seq] = true
	case classGone:
		w.parked[it.sub] = true
	}
	used := it.attempts > attempts
	if used && (cl == classUnreachable || cl == classGone || cl == classRefused) {
		w.t.Fatalf("event %d: an answer of class %v used an attempt", seq, cl)
	}
	if used && (mode == appSick || mode == appSuspect) {
		w.t.Fatalf("event %d used an attempt while the app was %s", seq, mode)
	}
	if cl == classUnreachable && w.f.app.mode == appUp {
		w.t.Fatalf("the app is unreachable and nothing is held back")
	}
	w.f.closed = nil
	w.pending = append(w.pending, w.f.changes...)
	w.f.changes = nil
}

// ask begins a question to the other instance, hear brings its answer; no answer if it is not sure.
func (w *world) ask(n int) {
	if len(w.asked) == 0 {
		w.asked = w.f.nextDoubts(n, 1000)
	}
}

func (w *world) hear(sure bool) {
	for _, seq := range w.asked {
		k := event.Unknown
		if sure && w.elsewhere[seq] {
			k, w.heard[seq] = event.Settled, true
		}
		w.f.heard(seq, k, sure)
		if it := w.f.items[seq]; it != nil && !sure && !it.marked {
			w.t.Fatalf("nobody could be asked about event %d and it is not marked", seq)
		}
	}
	w.asked = nil
	w.pending = append(w.pending, w.f.changes...)
	w.f.changes = nil
}

// flush begins an operation, as the settler does.
func (w *world) flush() {
	if w.inOp {
		return
	}
	w.inOp = true
	w.writing, w.pending = w.f.writing(w.pending)
	w.next = progress{cursor: w.f.cursor, spans: w.f.settledSpans()}
	for sub := range modelPolicies {
		if w.f.parked[sub] {
			w.next.parked = append(w.next.parked, string(rune('0'+sub)))
		}
	}
}

// commit makes the operation durable and checks what the cursor now says.
func (w *world) commit() {
	if !w.inOp {
		return
	}
	for _, c := range w.writing {
		switch c.kind {
		case changeDone:
			w.remove(&c.item)
		case changeDead:
			w.remove(&c.item)
			if _, twice := w.letters[c.item.seq]; twice {
				w.t.Fatalf("event %d died twice", c.item.seq)
			}
			w.letters[c.item.seq] = c.reason
		case changeElsewhere:
			w.remove(&c.item)
			if !w.heard[c.item.seq] {
				w.t.Fatalf("event %d ends as finished by another instance, which did not say so", c.item.seq)
			}
			w.done[c.item.seq], w.ended[c.item.seq] = true, true
		case changeRecord:
			w.records[c.item.seq] = c.item
		}
	}
	w.saved = w.next
	settled := func(seq uint64) bool {
		_, dead := w.letters[seq]
		return dead || w.done[seq]
	}
	for seq := uint64(1); seq <= w.saved.cursor; seq++ {
		if _, recorded := w.records[seq]; !recorded && !settled(seq) {
			w.t.Fatalf("the durable cursor %d passes event %d, which is neither settled nor recorded", w.saved.cursor, seq)
		}
	}
	for _, sp := range w.saved.spans {
		for seq := sp.from; seq <= sp.to; seq++ {
			if _, recorded := w.records[seq]; !recorded && !settled(seq) {
				w.t.Fatalf("span %v holds event %d, which is not settled", sp, seq)
			}
		}
	}
}

// remove ends an event's record, if the settler is told that there may be one.
func (w *world) remove(it *item) {
	if it.recorded || it.recording {
		delete(w.records, it.seq)
	}
}

// note tells the forwarder that the operation is durable.
func (w *world) note() {
	if !w.inOp {
		return
	}
	w.inOp = false
	for i := range w.writing {
		w.f.saved(&w.writing[i])
	}
	w.writing, w.f.closed = nil, nil
}

func (w *world) resume(accept bool) {
	w.f.resume(accept)
	clear(w.parked)
}

// drain lets the app take everything, and checks that everything ends.
func (w *world) drain() {
	w.f.app.readiness(true)
	w.resume(false)
	for range 20 * (len(w.log) + 5) {
		w.step()
		w.ask(1000)
		w.hear(true)
		w.step()
		for _, seq := range slices.Sorted(maps.Keys(w.flying)) {
			w.answer(seq, classDone, 0, 0.5)
		}
		w.flush()
		w.commit()
		w.note()
		if at, ok := w.f.wake(); ok && at.After(w.now) {
			w.now = at
		}
		if w.f.backlog() == 0 && len(w.pending) == 0 && w.saved.cursor == uint64(len(w.log)) {
			break
		}
	}
	for seq := uint64(1); seq <= uint64(len(w.log)); seq++ {
		if _, dead := w.letters[seq]; !dead && !w.done[seq] {
			w.t.Fatalf("event %d never ended; cursor %d, item %+v", seq, w.f.cursor, w.f.items[seq])
		}
	}
	if len(w.records) > 0 {
		w.t.Fatalf("%d records are left", len(w.records))
	}
	if w.saved.cursor != uint64(len(w.log)) {
		w.t.Fatalf("cursor is %d of %d", w.saved.cursor, len(w.log))
	}
}

func TestForwarderKeepsItsPromisesWhateverHappens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		classes := []class{
			classDone, classDone, classDone, classRetry, classDenied, classRefused, classGone, classThrottled, classUnreachable,
		}
		random := rapid.Float64Range(0, 0.999)
		t.Repeat(map[string]func(*rapid.T){
			"arrive": func(t *rapid.T) {
				for range rapid.IntRange(1, 8).Draw(t, "events") {
					w.arrive(rapid.Uint64Range(0, 3).Draw(t, "key"), rapid.SampledFrom([]int{0, 0, 1, -1}).Draw(t, "sub"))
				}
			},
			"answer": func(t *rapid.T) {
				if len(w.flying) == 0 {
					t.Skip("nothing in flight")
				}
				seq := rapid.SampledFrom(slices.Sorted(maps.Keys(w.flying))).Draw(t, "seq")
				wait := time.Duration(rapid.IntRange(0, 30).Draw(t, "retryAfter")) * time.Second
				w.answer(seq, rapid.SampledFrom(classes).Draw(t, "class"), wait, random.Draw(t, "r"))
			},
			"answerAllAlike": func(t *rapid.T) {
				cl := rapid.SampledFrom(classes).Draw(t, "class")
				for range 12 {
					w.step()
					for _, seq := range slices.Sorted(maps.Keys(w.flying)) {
						w.answer(seq, cl, 0, random.Draw(t, "r"))
					}
					w.now = w.now.Add(31 * time.Second)
				}
			},
			"pass": func(t *rapid.T) {
				w.now = w.now.Add(time.Duration(rapid.IntRange(1, 60_000).Draw(t, "ms")) * time.Millisecond)
			},
			"flush":  func(*rapid.T) { w.flush() },
			"commit": func(*rapid.T) { w.commit(); w.note() },
			"crash": func(t *rapid.T) {
				if rapid.Bool().Draw(t, "afterCommit") {
					w.commit()
				}
				for seq := range w.flying { // the app may have received it
					w.received[seq]++
				}
				w.start()
			},
			"elsewhere": func(t *rapid.T) {
				if len(w.log) > 0 {
					w.elsewhere[rapid.Uint64Range(1, uint64(len(w.log))).Draw(t, "seq")] = true
				}
			},
			"cutOff": func(*rapid.T) { w.f.doubtAll() },
			"ask":    func(t *rapid.T) { w.ask(rapid.IntRange(1, 5).Draw(t, "events")) },
			"hear":   func(t *rapid.T) { w.hear(rapid.Bool().Draw(t, "sure")) },
			"resume": func(t *rapid.T) { w.resume(rapid.Bool().Draw(t, "accept")) },
			"ready":  func(t *rapid.T) { w.f.app.readiness(rapid.Bool().Draw(t, "ok")) },
			"":       func(*rapid.T) { w.step() },
		})
		w.drain()
	})
}
