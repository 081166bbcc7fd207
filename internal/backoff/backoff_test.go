package backoff

import (
	"strings"
	"testing"
	"time"
)

func TestWaitDoublesUpToMax(t *testing.T) {
	p := Policy{Base: time.Second, Max: 10 * time.Second}
	const almostOne = 1 - 1e-12
	for n, want := range map[int]time.Duration{
		-5: time.Second, 0: time.Second, 1: time.Second, 2: 2 * time.Second, 4: 8 * time.Second,
		5: 10 * time.Second, 63: 10 * time.Second, 64: 10 * time.Second, 1 << 40: 10 * time.Second,
	} {
		if got := p.Wait(n, almostOne).Round(time.Millisecond); got != want {
			t.Errorf("Wait(%d) = %v, want %v", n, got, want)
		}
	}
}

func TestWaitIsFullJitter(t *testing.T) {
	p := Policy{Base: time.Second, Max: time.Minute}
	if got := p.Wait(3, 0); got != 0 {
		t.Errorf("Wait(3, 0) = %v, want 0", got)
	}
	if got, want := p.Wait(3, 0.25), time.Second; got != want {
		t.Errorf("Wait(3, 0.25) = %v, want %v", got, want)
	}
}

func TestWaitOfNoPolicy(t *testing.T) {
	for _, p := range []Policy{{}, {Base: time.Second}, {Max: time.Second}, {Base: -1, Max: time.Second}} {
		if got := p.Wait(3, 0.9); got != 0 {
			t.Errorf("%+v.Wait = %v, want 0", p, got)
		}
	}
}

func TestWaitNeverOverflows(t *testing.T) {
	p := Policy{Base: 1, Max: 1<<63 - 1}
	for n := range 200 {
		if got := p.Wait(n, 0.5); got < 0 {
			t.Fatalf("Wait(%d) = %v", n, got)
		}
	}
}

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(2026, 2, 3, 10, 30, 0, 0, time.UTC)
	for name, row := range map[string]struct {
		header string
		want   time.Duration
		ok     bool
	}{
		"absent":           {"", 0, false},
		"zero":             {"0", 0, true},
		"seconds":          {"30", 30 * time.Second, true},
		"leading zero":     {"007", 7 * time.Second, true},
		"a day":            {"86400", MaxRetryAfter, true},
		"more than a day":  {"86401", MaxRetryAfter, true},
		"wraps in 64 bits": {"99999999999", MaxRetryAfter, true},
		"40 digits":        {strings.Repeat("9", 40), MaxRetryAfter, true},
		"negative":         {"-1", 0, false},
		"signed":           {"+1", 0, false},
		"fraction":         {"1.5", 0, false},
		"spaces":           {" 1", 0, false},
		"words":            {"soon", 0, false},
		"date":             {"Tue, 03 Feb 2026 10:31:00 GMT", time.Minute, true},
		"past date":        {"Tue, 03 Feb 2026 10:29:00 GMT", 0, true},
		"far date":         {"Tue, 03 Feb 2099 10:29:00 GMT", MaxRetryAfter, true},
		"not a date":       {"2026-02-03T10:31:00Z", 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := ParseRetryAfter(row.header, now)
			if got != row.want || ok != row.ok {
				t.Errorf("got %v, %t, want %v, %t", got, ok, row.want, row.ok)
			}
		})
	}
}
