package main

import (
	"slices"
	"sync"
	"time"
)

// A ledger holds what is known of one run's events: which were accepted, which
// arrived, how often, in what order and after how long.
type ledger struct {
	mu       sync.Mutex
	accepted bitset
	arrived  bitset
	turns    map[int64]int64 // key → greatest turn that has arrived
	latency  []time.Duration // due → arrival, of first arrivals
	counts   counts
	lastAt   time.Time // of the last first arrival
}

// counts are events, each of them 0 where nothing went wrong but the first two.
type counts struct {
	Accepted int64
	Arrived  int64 // different events
	Lost     int64 // accepted, never arrived
	Repeated int64 // arrivals beyond an event's first
	Disorder int64 // first arrivals after a later event of their key
	Unasked  int64 // arrived though not accepted: the answer was lost
}

func newLedger() *ledger { return &ledger{turns: map[int64]int64{}} }

// accept notes that the n events from seq were acknowledged.
func (l *ledger) accept(seq, n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range n {
		l.accepted.set(seq + i)
	}
	l.counts.Accepted += n
}

// arrive notes one arrival.
func (l *ledger) arrive(m mark, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.arrived.has(m.seq) {
		l.counts.Repeated++
		return
	}
	l.arrived.set(m.seq)
	l.counts.Arrived++
	if last := l.turns[m.key]; m.turn < last {
		l.counts.Disorder++
	} else {
		l.turns[m.key] = m.turn
	}
	l.latency = append(l.latency, m.since(at))
	l.lastAt = at
}

// progress returns how many events were accepted and how many of any have arrived.
func (l *ledger) progress() (accepted, arrived int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts.Accepted, l.counts.Arrived
}

// close compares both sides. What has not arrived by now counts as lost.
func (l *ledger) close() counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.counts
	c.Lost = l.accepted.countWithout(&l.arrived)
	c.Unasked = l.arrived.countWithout(&l.accepted)
	return c
}

func (c counts) add(o counts) counts {
	return counts{
		Accepted: c.Accepted + o.Accepted,
		Arrived:  c.Arrived + o.Arrived,
		Lost:     c.Lost + o.Lost,
		Repeated: c.Repeated + o.Repeated,
		Disorder: c.Disorder + o.Disorder,
		Unasked:  c.Unasked + o.Unasked,
	}
}

// arrivedPerSecond counts from begun to the last first arrival.
func (l *ledger) arrivedPerSecond(begun time.Time) float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.lastAt.After(begun) {
		return 0
	}
	return float64(l.counts.Arrived) / l.lastAt.Sub(begun).Seconds()
}

// sortedLatency returns how long each event took from when it was due.
func (l *ledger) sortedLatency() []time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(slices.Values(l.latency))
}
