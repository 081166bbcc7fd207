package outbox

import (
	"net/http"
	"slices"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/event"
)

// What an answer to a batch means for the lane.
type answerKind byte

const (
	answerWait     answerKind = iota // nothing is known: everything stays owed, the lane backs off
	answerVerdicts                   // a verdict per event
	answerRefused                    // the batch is wrong (400)
	answerTooLarge                   // the batch is too large (413)
	answerMute                       // a batch without events is not understood
)

// An answer is what became of one batch.
type answer struct {
	kind       answerKind
	sent       bool // the request, or a part of it, may have arrived
	ours       bool // a sidecar has answered, whatever it was
	here       bool // nothing was asked, for a reason on this side
	verdicts   []event.Outcome
	said       instanceRecord // with verdicts
	retryAfter time.Duration  // asked for; 0: nothing was
	status     int            // HTTP status; 0: no answer
	body       string         // the beginning of the answer's body, or what happened instead
	problem    string         // for people; empty with verdicts
}

// answered takes what became of the batch of l. r is a random number in [0, 1). refresh is true if an instance did not want
// what its descriptor asks for, so that a newer one should be fetched.
func (d *dispatcher) answered(now time.Time, l *lane, ans answer, r float64) (refresh bool) {
	switch {
	case ans.ours || ans.kind != answerWait:
		d.reached(l)
	case l.silentSince.IsZero() && !ans.here:
		l.silentSince = now
	}
	if l.asking {
		d.asked(now, l, ans, r)
		d.forgetSpreads()
		d.dropLanes()
		return false
	}
	items := l.inFlight
	l.inFlight, l.askAt, l.askWait = nil, time.Time{}, 0
	for _, it := range items {
		it.inFlight = false
		if ans.sent {
			it.attempts++
			it.redeliver = true
		} else {
			it.at = it.before
		}
	}
	switch {
	case ans.kind != answerVerdicts:
	case len(ans.verdicts) != len(items):
		ans.kind, ans.problem = answerWait, "the answer has another number of verdicts than the batch has events"
	case l.outdated(ans.said.StoreID):
		ans.kind, ans.problem = answerWait, "the store "+ans.said.StoreID+" answers, which another one has replaced"
	}
	switch ans.kind {
	case answerVerdicts:
		refresh = d.judge(now, l, items, ans, r)
	case answerRefused:
		d.refused(l, items, ans)
	case answerTooLarge:
		d.tooLarge(l, items, ans)
	default:
		if ans.status == http.StatusRequestEntityTooLarge && len(items) > 1 {
			l.halve(items) // says somebody in between, who cannot condemn an event
		}
		d.backOff(now, l, ans, r)
	}
	for _, it := range items { // the subscriptions may have changed while they were in flight
		if !it.done && !d.spans.wants(it.typ, it.version) {
			d.unsubscribe(it)
		}
	}
	d.compact()
	d.forgetSpreads()
	d.dropLanes()
	return refresh
}

// backOff makes the lane wait: exponentially with full jitter, or as long as was asked for.
func (d *dispatcher) backOff(now time.Time, l *lane, ans answer, r float64) {
	l.failures++
	l.fails(now, max(d.retry.Wait(l.failures, r), ans.retryAfter), ans.problem)
}

// refused handles a batch that was refused as a whole: its events are sent one by one once, and who is refused alone is dead.
func (d *dispatcher) refused(l *lane, items []*item, ans answer) {
	l.works()
	if len(items) == 1 {
		d.bury(items[0], "invalid", ans)
		return
	}
	for _, it := range items {
		it.alone = true
	}
}

// tooLarge halves what the lane sends from now on; what is too large alone is dead, and says nothing about the others.
func (d *dispatcher) tooLarge(l *lane, items []*item, ans answer) {
	l.works()
	if len(items) == 1 {
		d.bury(items[0], "too_large", ans)
		l.maxEvents, l.maxBytes = maxBatchEvents, maxBatchBytes
		return
	}
	l.halve(items)
}

// judge gives each event its verdict.
func (d *dispatcher) judge(now time.Time, l *lane, items []*item, ans answer, r float64) (refresh bool) {
	d.hear(l, ans.said)
	d.pending.moved = true
	settled, busy := false, false
	var kept map[uint64]bool // keys with an event in this batch that was not settled
	for i, it := range items {
		it.at = nil // or it has it, and says so
		switch o := ans.verdicts[i]; o.Verdict {
		case event.Stored, event.Duplicate:
			settled = true
			d.storedAt(l, it)
			d.settle(it, &d.counts.Stored)
		case event.Rejected:
			settled = true
			d.bury(it, codeOf(o), answer{status: ans.status, body: o.Detail})
		case event.Busy:
			busy = true
		case lost:
			settled = true
			d.settle(it, &d.counts.Lost)
		default: // unwanted, key_busy, and what a newer inbox may say
			unwanted := o.Verdict == event.Unwanted
			refresh = refresh || unwanted
			if unwanted && !d.spans.wants(it.typ, it.version) {
				d.unsubscribe(it)
				settled = true
				continue
			}
			if it.key == 0 || !kept[it.key] {
				d.holdBack(it, now, r)
			}
		}
		if it.key != 0 && !it.done {
			if kept == nil {
				kept = map[uint64]bool{}
			}
			kept[it.key] = true
		}
	}
	d.said[l.name] = l.answered
	if settled || !busy {
		l.works()
	}
	if busy {
		l.failures++
		wait := max(d.retry.Wait(l.failures, r), ans.retryAfter)
		if settled {
			l.notBefore = now.Add(wait)
		} else {
			l.fails(now, wait, "its inbox is busy")
		}
	}
	return refresh
}

// holdBack makes it wait because its inbox asked for that. If that has gone on for long, the cursor need not wait with it.
func (d *dispatcher) holdBack(it *item, now time.Time, r float64) {
	it.held++
	it.notBefore = d.gather(now, d.retry.Wait(it.held, r))
	it.reason = heldByAnswer
	if it.heldSince.IsZero() {
		it.heldSince = now
	}
	if !it.aside && d.asides < d.aside && (d.behind(it) || now.Sub(it.heldSince) >= d.failover) {
		d.setAside(it, it.reason)
	}
}

// gatherEvery is how far apart events that wait long are tried: those that are due in between go together, however many wait.
const gatherEvery = time.Second

// gather returns when an event that is to wait is tried. Each sender has seconds of its own, so that they do not come together.
func (d *dispatcher) gather(now time.Time, wait time.Duration) time.Time {
	at := now.Add(wait)
	if wait < gatherEvery {
		return at
	}
	return at.Add(-d.phase).Truncate(gatherEvery).Add(gatherEvery + d.phase)
}

func codeOf(o event.Outcome) string {
	if o.Code == "" {
		return "rejected"
	}
	return o.Code
}

// hear keeps what the instance says of itself. Applied may go down: a set-aside event, or a replay, that the instance gets late
// is open there below what it had been done with, and would be lost with its disk.
func (d *dispatcher) hear(l *lane, said instanceRecord) {
	l.heard = true
	d.notice(l.name, said.StoreID)
	slices.Sort(said.OpenKeys)
	said.Applied = min(said.Applied, d.top()) // no instance can be done with what it was not given
	said.Base, said.Stray, said.Former, said.Given = l.answered.Base, l.answered.Stray, l.answered.Former, l.answered.Given
	d.hears(l.name, said)
}

// settle makes it final under one heading of Settled.
func (d *dispatcher) settle(it *item, heading *uint64) {
	if it.counted == asDead {
		d.counts.Dead--
	}
	*heading++
	if it.letter != "" && heading != &d.counts.Dead {
		d.pending.resolved = append(d.pending.resolved, it.letter)
	}
	d.end(it)
}

// bury gives it up: the dead letter is written in the commit that ends it.
func (d *dispatcher) bury(it *item, reason string, ans answer) {
	d.pending.dead = append(d.pending.dead, deadEvent{
		seq: it.seq, entry: it.entry, size: it.size, reason: reason, attempts: it.attempts, status: ans.status, body: ans.body,
	})
	d.settle(it, &d.counts.Dead)
}

// unsubscribe ends it because nobody asks for it any more. A replay becomes a dead letter again: it is not for us to drop.
func (d *dispatcher) unsubscribe(it *item) {
	if it.letter != "" {
		d.bury(it, "unsubscribed", answer{})
		return
	}
	d.settle(it, &d.counts.Unsubscribed)
}

// end takes it out of the open events; compact removes it from the list.
func (d *dispatcher) end(it *item) {
	it.done = true
	if d.fill != nil && it.seq >= d.after {
		d.ended[it.seq] = true
	}
	if it.aside {
		d.asides--
		d.pending.drop(it)
	} else {
		d.bytes -= it.size
	}
	d.pending.mustWrite = true
}

func (d *dispatcher) compact() {
	d.open = slices.DeleteFunc(d.open, func(it *item) bool { return it.done })
}

// setSpans takes changed subscriptions. Open events that nobody asks for any more end as unsubscribed, but for those in flight,
// whose answer is awaited. It returns how many ended.
func (d *dispatcher) setSpans(s spans) (ended int) {
	d.spans = s
	d.pending.mustWrite = true
	return d.endUnwanted()
}

// endUnwanted ends open events that nobody asks for any more.
func (d *dispatcher) endUnwanted() (ended int) {
	for _, it := range d.open {
		if !it.inFlight && !d.spans.wants(it.typ, it.version) {
			d.unsubscribe(it)
			ended++
		}
	}
	d.compact()
	return ended
}
