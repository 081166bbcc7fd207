package main

import (
	"slices"
	"time"
)

// quantile returns the value below which the share q of sorted lies; 0 for none.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(q*float64(len(sorted)-1)+0.5)]
}

// A sample is one figure over all rounds.
type sample []float64

// median returns the middle value, the mean of the two middle ones if there are
// two, 0 if there is none.
func (s sample) median() float64 {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
