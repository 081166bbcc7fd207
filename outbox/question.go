package outbox

import (
	"slices"
	"time"
)

// The waits between two questions for what an instance is done with: they double while it says the same.
const (
	askAfter = 100 * time.Millisecond
	askMost  = 30 * time.Second
)

// busy reports whether a request to l is under way.
func (l *lane) busy() bool { return l.inFlight != nil || l.asking }

// behind reports whether l is not known to be done with what it has stored.
func (l *lane) behind() bool {
	return l.answered.Applied < l.answered.Given || l.answered.OpenAll || len(l.answered.OpenKeys) > 0
}

// curious reports whether l is to be asked what it is done with. One that is not reached is asked only if keys wait for it, or
// would go to it again.
func (d *dispatcher) curious(l *lane, now time.Time) bool {
	if l.away || l.needed && (!l.known || !l.mute) {
		return true
	}
	return l.known && !l.mute && l.behind() && !l.stuck(now, d.failover)
}

// ask puts a question to every idle lane that has something to say.
func (d *dispatcher) ask(now time.Time, a *actions) {
	for _, l := range d.lanes {
		if l.busy() || !d.curious(l, now) {
			l.askAt = time.Time{}
			if !l.busy() {
				l.askWait = 0
			}
			continue
		}
		if l.askAt.IsZero() {
			l.askWait = max(l.askWait, askAfter)
			l.askAt = now.Add(l.askWait)
		}
		at := l.askAt
		if l.notBefore.After(at) {
			at = l.notBefore
		}
		if now.Before(at) {
			a.wake(now, at)
			continue
		}
		l.asking, l.sentTo = true, l.storeID
		a.send = append(a.send, batch{lane: l})
	}
}

// asked takes the answer to a question.
func (d *dispatcher) asked(now time.Time, l *lane, ans answer, r float64) {
	l.asking, l.askAt = false, time.Time{}
	if l.askWait = min(2*l.askWait, askMost); l.askWait == 0 {
		l.askWait = askAfter
	}
	switch {
	case ans.kind == answerMute:
		l.mute, l.heard = true, true
		l.works()
	case ans.kind != answerVerdicts || len(ans.verdicts) != 0 || l.outdated(ans.said.StoreID):
		d.backOff(now, l, ans, r)
	default:
		was := l.answered
		d.hear(l, ans.said)
		d.sureOf(l)
		if !l.answered.sameOpen(was) {
			l.askWait = askAfter
			d.pending.moved = true
		}
		l.works()
	}
}

// sureOf takes what l, which is no longer known, has just said for what became of requests that it has not answered. One that is
// known is sent the events again, and says it for each.
func (d *dispatcher) sureOf(l *lane) {
	if l.known {
		return
	}
	for _, it := range d.open {
		if it.at == l {
			it.at = nil
		}
	}
}

// sameOpen reports whether two answers say the same of what is open.
func (r instanceRecord) sameOpen(o instanceRecord) bool {
	return r.StoreID == o.StoreID && r.Applied == o.Applied && r.OpenAll == o.OpenAll && slices.Equal(r.OpenKeys, o.OpenKeys)
}
