package backoff

import "time"

// Policy is exponential backoff with full jitter.
type Policy struct {
	Base time.Duration // the bound of the wait after the first attempt; not positive: the policy never waits
	Max  time.Duration // the most that any wait is bounded by
}

// Wait returns the pause after attempt n (1, 2, …): Base doubled n-1 times, at most
// Max, times r, a random number in [0, 1): full jitter. An n below 1 counts as 1.
func (p Policy) Wait(n int, r float64) time.Duration {
	if p.Base <= 0 || p.Max <= 0 {
		return 0
	}
	d := p.Max
	if s := max(n-1, 0); s < 63 && p.Base <= p.Max>>s {
		d = p.Base << s
	}
	return time.Duration(r * float64(d))
}
