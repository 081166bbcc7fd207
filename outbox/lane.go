package outbox

import (
	"slices"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/event"
)

// A batch is at most this much, whatever waits.
const (
	maxBatchEvents = 512
	maxBatchBytes  = 1 << 20
)

// A peer is what the dispatcher knows of one instance of its subscriber.
type peer struct {
	name, url, storeID string
	boot               uint64
	patterns           []event.Patterns // of its subscriptions
}

func (p *peer) wants(typ, version string) bool {
	for _, ps := range p.patterns {
		if ps.Match(typ, version) {
			return true
		}
	}
	return false
}

func (p *peer) sameProcess(q *peer) bool {
	return p.url == q.url && p.boot == q.boot && p.storeID == q.storeID
}

// A lane is the sequence of deliveries to one instance, with at most one batch in flight.
type lane struct {
	peer
	hash  uint64 // of the name, for rendezvous
	known bool   // false: no longer in the directory, kept until its batch is answered

	inFlight  []*item
	sentTo    string    // the store that the directory named when they went
	failures  int       // requests in a row that settled nothing and should have
	badSince  time.Time // of the first of them; zero: none
	notBefore time.Time // nothing is sent earlier
	problem   string    // why the last request failed
	maxEvents int       // halved by 413, remembered until one event was too large by itself, or the instance is restarted or moves
	maxBytes  int

	answered instanceRecord // what it last said of itself

	asking  bool          // a question is under way: a batch without events
	askAt   time.Time     // when the next question is due; zero: none is
	askWait time.Duration // before it
	heard   bool          // it has answered to this process
	mute    bool          // it does not understand questions

	silentSince time.Time // of the first request since its last answer that was not answered; zero: none
	away        bool      // for so long that keys go elsewhere, as far as it has nothing open of them
	needed      bool      // keys wait for what it has open
	neededSince time.Time // zero: they do not

	next      []*item // the batch being put together
	nextBytes int
	closed    bool   // the batch takes no more
	turn      uint64 // of the events that were held back, those up to this seq have been tried: the others come first
	postponed bool   // some were left out for that
}

func newLane(p peer) *lane {
	return &lane{peer: p, hash: nameHash(p.name), known: true, maxEvents: maxBatchEvents, maxBytes: maxBatchBytes}
}

// score is the weight of the lane for a route: the lane with the greatest one is the home of the event. Adding or removing a
// lane moves only the events whose greatest score it has.
func (l *lane) score(route uint64) uint64 { return scoreOf(l.hash, route) }

func scoreOf(hash, route uint64) uint64 {
	x := route ^ hash
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// update takes what the directory now says. An instance that was restarted or has moved is tried at once.
func (l *lane) update(p peer) {
	if !l.known || !l.sameProcess(&p) {
		l.notBefore = time.Time{}
		l.maxEvents, l.maxBytes = maxBatchEvents, maxBatchBytes
		l.mute, l.askAt, l.askWait = false, time.Time{}, 0
	}
	l.peer, l.known = p, true
}

func (l *lane) failing() bool { return !l.badSince.IsZero() }

func (l *lane) stuck(now time.Time, after time.Duration) bool {
	return l.failing() && now.Sub(l.badSince) >= after
}

// ready reports whether a batch may be sent.
func (l *lane) ready(now time.Time) bool {
	return l.known && !l.busy() && !now.Before(l.notBefore)
}

// begin starts a new batch.
func (l *lane) begin() {
	l.next, l.nextBytes, l.closed, l.postponed = nil, 0, false, false
}

// take adds it to the batch being put together, if there is room.
func (l *lane) take(it *item) bool {
	if l.closed {
		return false
	}
	if it.held > 0 && it.seq <= l.turn {
		l.postponed = true
		return false
	}
	alone := it.alone || len(l.next) > 0 && l.next[0].alone
	if len(l.next) > 0 && (alone || len(l.next) >= l.maxEvents || l.nextBytes+it.size > l.maxBytes) {
		l.closed = true
		return false
	}
	l.next = append(l.next, it)
	l.nextBytes += it.size
	return true
}

// halve makes later batches at most half of what items are.
func (l *lane) halve(items []*item) {
	size := 0
	for _, it := range items {
		size += it.size
	}
	l.maxEvents, l.maxBytes = max(1, len(items)/2), max(1, size/2)
}

// works notes that a request has got through.
func (l *lane) works() {
	l.failures, l.badSince, l.notBefore, l.problem = 0, time.Time{}, time.Time{}, ""
}

// fails notes that a request has not got through, and when to try again.
func (l *lane) fails(now time.Time, wait time.Duration, problem string) {
	if l.badSince.IsZero() {
		l.badSince = now
	}
	l.notBefore = now.Add(wait)
	l.problem = problem
}

func (p *peer) samePeer(q *peer) bool {
	return p.name == q.name && p.sameProcess(q) && slices.EqualFunc(p.patterns, q.patterns, func(a, b event.Patterns) bool {
		return slices.Equal(a.Strings(), b.Strings())
	})
}
