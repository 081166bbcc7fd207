package main

import (
	"testing"
	"time"
)

func TestLedgerCountsEachFaultOnce(t *testing.T) {
	at := func(seq, key, turn int64) mark {
		return mark{run: 1, seq: seq, key: key, turn: turn, due: time.Now().UnixNano()}
	}
	in := []mark{at(0, 1, 1), at(1, 1, 2), at(2, 2, 1), at(3, 1, 3), at(4, 2, 2)}
	for _, c := range []struct {
		name     string
		arrivals []mark
		want     counts
	}{
		{"all well", in, counts{Accepted: 5, Arrived: 5}},
		{"one lost", in[:4], counts{Accepted: 5, Arrived: 4, Lost: 1}},
		{"lost in the middle is no disorder", []mark{in[0], in[2], in[3], in[4]}, counts{Accepted: 5, Arrived: 4, Lost: 1}},
		{"one repeated", append(in[:5:5], in[0]), counts{Accepted: 5, Arrived: 5, Repeated: 1}},
		{"repeated twice", append(in[:5:5], in[0], in[0]), counts{Accepted: 5, Arrived: 5, Repeated: 2}},
		{"swapped in a key", []mark{in[1], in[0], in[2], in[3], in[4]}, counts{Accepted: 5, Arrived: 5, Disorder: 1}},
		{"swapped between keys", []mark{in[2], in[0], in[1], in[4], in[3]}, counts{Accepted: 5, Arrived: 5}},
		{"never acknowledged", append(in[:5:5], at(9, 3, 1)), counts{Accepted: 5, Arrived: 6, Unasked: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLedger()
			l.accept(0, 2)
			l.accept(2, 3)
			for _, m := range c.arrivals {
				l.arrive(m, time.Now())
			}
			if got := l.close(); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestLedgerMeasuresFromWhenAnEventWasDue(t *testing.T) {
	l, due := newLedger(), time.Now()
	l.arrive(mark{seq: 1, turn: 1, due: due.UnixNano()}, due.Add(7*time.Millisecond))
	l.arrive(mark{seq: 0, turn: 1, due: due.UnixNano()}, due.Add(3*time.Millisecond))
	got := l.sortedLatency()
	if len(got) != 2 || got[0] != 3*time.Millisecond || got[1] != 7*time.Millisecond {
		t.Errorf("latencies %v, want 3 ms and 7 ms", got)
	}
}
