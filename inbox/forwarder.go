package inbox

import (
	"container/heap"
	"slices"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/backoff"
	"github.com/hooksidecar/hooksidecar/internal/deadletter"
)

const (
	windowEvents    = 4096    // events above the cursor that are held in memory
	maxExceptions   = 100_000 // unsettled events that the cursor has passed
	maxPerKey       = 10_000  // events that wait behind a failing one
	pushOutEvents   = 256     // events that are recorded at once when the window is full
	sickAfter       = 10      // different events that failed in a row
	suspectAfter    = 20      // dead letters at once in a row
	probeBase       = time.Second
	probeMax        = 30 * time.Second
	reasonBlocked   = "blocked"
	reasonRetry     = "retry"
	reasonThrottled = "throttled"
	reasonRefused   = "refused_by_app"
	reasonLost      = "event_lost"
	reasonNoSub     = "no_subscription"
	reasonExhausted = "attempts_exhausted"
	reasonElsewhere = "by another instance"
)

// A changeKind says what a change asks the settler to make durable.
type changeKind uint8

const (
	changeDone      changeKind = iota // settled: the app has it
	changeDead                        // settled: a letter
	changeElsewhere                   // settled: another instance has finished it
	changeRecord                      // attempts and due time, or that the cursor may pass it
	changeParks                       // the set of parked subscriptions
)

// A change is something that the settler must make durable; it is a copy, so that the forwarder can go on.
type change struct {
	kind   changeKind
	item   item // zero for changeParks
	reason string
	last   deadletter.Answer
}

// ends reports whether the change settles an event that is held until that is durable.
func (c *change) ends() bool { return c.kind == changeDead || c.kind == changeElsewhere }

// A forwarder decides which event goes to the app when, and what an answer means. It is a pure state machine: inputs and the
// time go in; next, changes and closed say what is to be done. It does no I/O and is not safe for concurrent use.
//
// Where an event is, and what moves it on:
//
//	load ─▶ blocked ─▶ ready ─▶ flying ─▶ settled (done)
//	           key free  ▲ ▲ start │ │
//	                     │ └───────┘ └─▶ saving ─▶ settled (dead), once the letter is durable
//	                     │ no attempt      │ attempt used; once the record is durable
//	                     └──── waiting ◀───┘
//	                      due
//
// A parked item is a ready one whose subscription is parked; one in doubt waits as asking before it flies, see doubt.go. A crash leaves what the records say: everything that is not
// settled in the inbox cursor starts again as blocked, ready or waiting, and is marked.
type forwarder struct {
	lettersPerOp int           // written in one operation
	policies     []retryPolicy // by subscription
	limit        int           // requests at once
	window       int           // events above the cursor that are held
	exceptions   int           // events with a record that are held
	perKey       int           // events that may wait behind a failing one of their key before senders are told to keep theirs

	items    map[uint64]*item   // by seq: all that is unsettled and loaded
	lanes    map[uint64][]*item // by key: in order, the head is the one that may move
	ready    readyHeap
	due      dueHeap
	flying   int
	recorded int // items whose record is durable or being written

	doubts      []uint64 // seqs of items in doubt about which nobody was asked yet
	doubtBefore uint64   // what is loaded and has a lower seq is in doubt

	read   uint64 // next seq of the log to be loaded
	cursor uint64 // all up to here is settled or has a record
	next   uint64 // next seq that the log will give

	app          appState
	parked       map[int]bool // subscriptions that answered 410
	changes      []change     // for the settler; the caller takes them
	closed       []item       // settled and, where it matters, durable; the caller takes them
	backlogBytes int64        // of all unsettled events, loaded or not
	behind       uint64       // order of what was put behind last
}

// A retryPolicy is the schedule of one subscription.
type retryPolicy struct {
	wait        backoff.Policy
	maxAttempts int
}

func newForwarder(policies []retryPolicy, limit int, cursor uint64) *forwarder {
	return &forwarder{
		policies: policies, limit: limit, lettersPerOp: lettersPerOp, window: windowEvents, exceptions: maxExceptions, perKey: maxPerKey,
		items: map[uint64]*item{}, lanes: map[uint64][]*item{}, parked: map[int]bool{},
		read: cursor + 1, cursor: cursor, next: cursor + 1,
		app: newAppState(),
	}
}

// room returns how many more events of the log may be loaded.
func (f *forwarder) room() int {
	if f.next <= f.read {
		return 0
	}
	return max(0, min(int(f.next-f.read), f.window-int(f.read-1-f.cursor)))
}

// load takes the next event of the log.
func (f *forwarder) load(it *item) {
	f.read = it.seq + 1
	f.next = max(f.next, f.read)
	f.add(it)
}

// except takes an event that has a record: one that the cursor has passed, or that was tried before.
// Exceptions are added before the log is read.
func (f *forwarder) except(it *item) {
	it.recorded = true
	f.recorded++
	f.add(it)
}

// skip passes seqs of the log, up to but without to, that are settled, damaged or lost. It leaves out what is an exception.
func (f *forwarder) skip(to uint64) {
	f.read = max(f.read, to)
	f.next = max(f.next, f.read)
	f.advance()
}

func (f *forwarder) add(it *item) {
	it.order = it.seq
	f.items[it.seq] = it
	if it.doubt {
		f.doubts = append(f.doubts, it.seq)
	}
	if it.key == 0 {
		f.admit(it)
		return
	}
	lane := f.lanes[it.key]
	place := len(lane)
	for place > 1 && lane[place-1].seq > it.seq { // a replay goes before what is later, but never before what is under way
		place--
	}
	lane = append(lane, nil)
	copy(lane[place+1:], lane[place:])
	lane[place] = it
	f.lanes[it.key] = lane
	if place == 0 {
		f.admit(it)
	}
}

// admit lets an item go that nothing of its key is in front of.
func (f *forwarder) admit(it *item) {
	switch {
	case it.elsewhere:
		f.endElsewhere(it)
	case !it.due.IsZero():
		it.state = stateWaiting
		heap.Push(&f.due, it)
	case f.parked[it.sub]:
		it.state = stateParked
	default:
		it.state = stateReady
		heap.Push(&f.ready, it)
	}
}

// start returns the items to forward now. Each must be answered.
func (f *forwarder) start(now time.Time) []*item {
	for len(f.due) > 0 && !f.due[0].due.After(now) {
		it := heap.Pop(&f.due).(*item)
		it.due = time.Time{}
		f.admit(it)
	}
	var flights []*item
	for len(f.ready) > 0 && f.app.mayStart(now, f.flying, f.limit) {
		it := heap.Pop(&f.ready).(*item)
		switch {
		case it.doubt:
			it.state = stateAsking
		case it.sub < 0:
			f.bury(it, reasonNoSub, deadletter.Answer{})
		case f.parked[it.sub]:
			it.state = stateParked
		default:
			it.state = stateFlying
			it.startedAt = now
			it.tries++
			f.flying++
			flights = append(flights, it)
		}
	}
	f.pushOut()
	return flights
}

// wake returns when start has something to do by the passing of time alone; ok is false if never.
func (f *forwarder) wake() (at time.Time, ok bool) {
	if len(f.due) > 0 {
		at, ok = f.due[0].due, true
	}
	if hold := f.app.holdUntil; f.app.mode != appUp && len(f.ready) > 0 && f.flying == 0 && !f.app.unready &&
		(!ok || hold.Before(at)) {
		at, ok = hold, true
	}
	return at, ok
}

// answered takes what came of a forward; r is a random number in [0, 1).
func (f *forwarder) answered(seq uint64, a answer, now time.Time, r float64) {
	it := f.items[seq]
	if it == nil || it.state != stateFlying {
		return
	}
	f.flying--
	repeated, before := it.tries > 1, it.successes
	it.successes = f.app.successes
	switch a.class {
	case classDone:
		f.app.succeed(it.startedAt)
		f.change(changeDone, it, "", deadletter.Answer{})
		f.remove(it)
	case classUnreachable:
		it.tries-- // nothing was sent
		it.successes = before
		f.app.hold(appDown, it.startedAt, now, 0, r)
		f.admit(it)
	case classGone:
		f.parked[it.sub] = true
		f.changes = append(f.changes, change{kind: changeParks})
		f.admit(it)
	case classThrottled:
		own := repeated && f.app.successes > before
		f.throttled(it, a, own, now, r)
	case classRefused:
		if f.app.refuse(it.startedAt, now, r) {
			f.putBehind(it, a)
			return
		}
		f.bury(it, reasonRefused, a.last)
	default:
		if f.app.fail(it.seq, it.startedAt, now, r) {
			f.putBehind(it, a)
			return
		}
		f.useAttempt(it, a, now, r)
	}
}

// unsent takes that an event could not be read, so that nothing was sent; it is tried again at the given time.
func (f *forwarder) unsent(seq uint64, at time.Time) {
	it := f.items[seq]
	if it == nil || it.state != stateFlying {
		return
	}
	f.flying--
	it.tries--
	it.due = at
	f.admit(it)
}

// lose takes that an event is no longer there.
func (f *forwarder) lose(seq uint64) {
	it := f.items[seq]
	if it == nil || it.state != stateFlying {
		return
	}
	f.flying--
	f.bury(it, reasonLost, deadletter.Answer{})
}

// throttled pauses everything, unless the app has shown in the meantime that it is only this event that it cannot take.
func (f *forwarder) throttled(it *item, a answer, own bool, now time.Time, r float64) {
	if own && f.app.mode != appSick && f.app.mode != appSuspect {
		f.useAttempt(it, a, now, r)
		return
	}
	f.app.pause(it.seq, it.startedAt, now, a.retryAfter, r)
	f.putBehind(it, a)
}

// putBehind makes an item ready again without using an attempt, behind all that is loaded, so that another one is tried first.
func (f *forwarder) putBehind(it *item, a answer) {
	f.behind = max(f.behind+1, f.read)
	it.order = f.behind
	it.reason = waitReason(a)
	f.admit(it)
}

// useAttempt notes a failed attempt: the next one is due later, or there is none any more.
func (f *forwarder) useAttempt(it *item, a answer, now time.Time, r float64) {
	it.attempts++
	policy := f.policies[it.sub]
	if it.attempts >= policy.maxAttempts {
		f.bury(it, reasonExhausted, a.last)
		return
	}
	it.due = now.Add(max(policy.wait.Wait(it.attempts, r), min(a.retryAfter, maxRetryAfter)))
	it.reason = waitReason(a)
	it.state = stateSaving
	f.record(it, it.reason, a.last)
}

// bury gives an item up; it holds its key until the letter is durable.
func (f *forwarder) bury(it *item, reason string, last deadletter.Answer) {
	if it.elsewhere {
		f.endElsewhere(it)
		return
	}
	it.state = stateSaving
	it.dying = true
	f.change(changeDead, it, reason, last)
}

func (f *forwarder) record(it *item, reason string, last deadletter.Answer) {
	if !it.recorded && !it.recording {
		f.recorded++
	}
	it.recording = true
	f.change(changeRecord, it, reason, last)
}

// change asks the settler for something. The event's bytes are not its business.
func (f *forwarder) change(kind changeKind, it *item, reason string, last deadletter.Answer) {
	c := change{kind: kind, item: *it, reason: reason, last: last}
	c.item.event = nil
	f.changes = append(f.changes, c)
}

// writing takes that changes are about to be made durable, together with the cursor, which may pass what they settle. It
// returns those that go into the next operation and those that are left for a later one. The next one has every success,
// since for the forwarder these are settled already; of the others as many as fit, in their order: their events are held
// until they are durable. A record of an event that has succeeded in the meantime is not wanted any more.
func (f *forwarder) writing(pending []change) (now, later []change) {
	letters, bytes := 0, 0
	now = make([]change, 0, len(pending))
	for i := range pending {
		c := &pending[i]
		it := f.items[c.item.seq]
		switch {
		case c.kind == changeRecord && it == nil:
			continue
		case c.kind == changeDead:
			letters++
		}
		if c.kind == changeRecord || c.ends() {
			bytes += c.bytes()
			if len(later) > 0 || letters > f.lettersPerOp || bytes > changeBytesPerOp && bytes > c.bytes() {
				later = append(later, *c)
				continue
			}
		}
		if c.ends() && it != nil {
			it.settled = true
		}
		now = append(now, *c)
	}
	f.advance()
	return now, later
}

// saved takes that a change is durable.
func (f *forwarder) saved(c *change) {
	it := f.items[c.item.seq]
	if it == nil || c.kind != changeRecord && !c.ends() {
		return
	}
	if c.ends() {
		f.remove(it)
		return
	}
	it.recorded = true
	f.advance()
	if it.state == stateSaving && !it.dying && c.item.state == stateSaving {
		f.admit(it)
	}
}

// remove forgets a settled item and lets the next one of its key go.
func (f *forwarder) remove(it *item) {
	delete(f.items, it.seq)
	f.closed = append(f.closed, *it)
	f.backlogBytes = max(0, f.backlogBytes-int64(it.size))
	if it.recorded || it.recording {
		f.recorded--
	}
	if it.key != 0 {
		f.leave(it)
	}
	f.advance()
}

// leave takes an item out of its lane. Behind the head are only what another instance has finished, which nobody overtakes.
func (f *forwarder) leave(it *item) {
	lane := f.lanes[it.key]
	if lane[0] != it {
		place := slices.Index(lane, it)
		f.lanes[it.key] = slices.Delete(lane, place, place+1)
		return
	}
	lane[0] = nil
	if lane = lane[1:]; len(lane) == 0 {
		delete(f.lanes, it.key)
		return
	}
	f.lanes[it.key] = lane
	if !lane[0].dying { // else it leaves too, once that is durable
		f.admit(lane[0])
	}
}

// resume lets everything go again: what is parked, paused or suspect. With accept, what the app refuses becomes dead
// letters until it takes something.
func (f *forwarder) resume(accept bool) {
	f.app.resume(accept)
	if len(f.parked) == 0 {
		return
	}
	clear(f.parked)
	f.changes = append(f.changes, change{kind: changeParks})
	for _, it := range f.items {
		if it.state == stateParked {
			f.admit(it)
		}
	}
}

func waitReason(a answer) string {
	if a.class == classThrottled {
		return reasonThrottled
	}
	return reasonRetry
}
