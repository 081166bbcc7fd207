package backoff

import (
	"net/http"
	"time"
)

// MaxRetryAfter is the most that an answer can make anybody wait, whatever it asks for.
const MaxRetryAfter = 24 * time.Hour

// ParseRetryAfter reads the value of a Retry-After header: whole seconds, or an HTTP date that is compared with now.
// A date in the past is a wait of 0; anything above MaxRetryAfter is MaxRetryAfter. It reports false for an
// absent, negative or malformed value, and then the caller's own schedule counts.
func ParseRetryAfter(header string, now time.Time) (time.Duration, bool) {
	if header == "" {
		return 0, false
	}
	if d, ok := parseSeconds(header); ok {
		return d, true
	}
	at, err := http.ParseTime(header)
	if err != nil {
		return 0, false
	}
	return min(max(at.Sub(now), 0), MaxRetryAfter), true
}

// parseSeconds reads digits and nothing else. It never overflows, however many there are.
func parseSeconds(s string) (time.Duration, bool) {
	var d time.Duration
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		if d < MaxRetryAfter {
			d = min(d*10+time.Duration(s[i]-'0')*time.Second, MaxRetryAfter)
		}
	}
	return d, true
}
