package main

import "testing"

func TestMemoryIsGivenBackOnceABurstIsOver(t *testing.T) {
	b := &burst{}
	for i, row := range []struct {
		allocatedMiB uint64 // in one tick
		over         bool
	}{{1, false}, {100, false}, {50, false}, {1, true}, {1, false}, {3, false}, {63, false}, {1, true}, {0, false}} {
		if got := b.over(b.last + row.allocatedMiB<<20); got != row.over {
			t.Errorf("tick %d: over is %t, want %t", i, got, row.over)
		}
	}
}
