package e2e

import (
	"testing"
	"time"
)

// slowdown stretches deadlines where the race detector makes everything slower.
func slowdown(d time.Duration) time.Duration {
	if raceEnabled {
		return 4 * d
	}
	return d
}

// eventually asks until the answer is nil, and fails the test with the last answer when the time is over.
func eventually(t *testing.T, within time.Duration, what string, ask func() error) {
	t.Helper()
	deadline := time.Now().Add(slowdown(within))
	for {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, slowdown(within), err)
		}
		time.Sleep(15 * time.Millisecond) // between two questions
	}
}
