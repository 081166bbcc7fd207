package store

import (
	"testing"
	"time"
)

// The wall clock and the monotonic clock are moved apart here, which no public way does.
func TestAgeClockFollowsWithoutJumping(t *testing.T) {
	const day = 24 * time.Hour
	start := time.Date(2026, 2, 3, 10, 0, 0, 0, time.UTC)
	wall, mono := start, time.Duration(0)
	read := func() (time.Time, time.Duration) { return wall, mono }
	c := newAgeClock(time.Time{}, read)
	steps := []struct {
		name         string
		jump, passes time.Duration // of the wall clock alone, then of both
		want         time.Duration // that the age clock moves
	}{
		{"in step", 0, time.Hour, time.Hour},
		{"40 days forward", 40 * day, 0, 0},
		{"follows at twice the pace", 0, time.Hour, 2 * time.Hour},
		{"and back", -40 * day, 0, 0},
		{"slower until they meet", 0, time.Hour, 30 * time.Minute},
		{"they meet", 0, time.Hour, 30 * time.Minute},
		{"in step again", 0, time.Hour, time.Hour},
		{"40 days back", -40 * day, 0, 0},
		{"nothing is frozen", 0, time.Hour, 30 * time.Minute},
		{"to 1970", -56 * 365 * day, time.Minute, 30 * time.Second},
		{"to 2106", 136 * 365 * day, time.Minute, 2 * time.Minute},
	}
	for _, s := range steps {
		before := c.Now()
		wall, mono = wall.Add(s.jump+s.passes), mono+s.passes
		if got := c.Now().Sub(before); got != s.want {
			t.Errorf("%s: moved %s, want %s", s.name, got, s.want)
		}
		if held, reason := c.Held(); held {
			t.Errorf("%s: held: %s", s.name, reason)
		}
	}
}

func TestAgeClockHoldsAfterALongAbsence(t *testing.T) {
	const day = 24 * time.Hour
	last := time.Date(2026, 2, 3, 10, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		absence time.Duration
		held    bool
		start   time.Duration // beyond last
	}{
		{time.Hour, false, time.Hour},
		{day, false, day},
		{day + time.Minute, true, 0},
		{400 * day, true, 0},
		{-5 * day, false, 0},
	} {
		wall, mono := last.Add(c.absence), time.Duration(0)
		clock := newAgeClock(last, func() (time.Time, time.Duration) { return wall, mono })
		held, reason := clock.Held()
		if got := clock.Now().Sub(last); held != c.held || got != c.start || held != (reason != "") {
			t.Errorf("absent for %s: held %t (%s), starts %s beyond, want %t %s", c.absence, held, reason, got, c.held, c.start)
		}
	}
	wall, mono := last.Add(3*day), time.Duration(0)
	clock := newAgeClock(last, func() (time.Time, time.Duration) { return wall, mono })
	wall, mono = wall.Add(2*day+time.Second), mono+2*day+time.Second
	if held, reason := clock.Held(); held {
		t.Errorf("still held when a day behind: %s", reason)
	}
}

func TestWALSearchFindsOnlyWholeRecords(t *testing.T) {
	var w walScan
	w.end = walHeader
	junk := make([]byte, 4096)
	for i := range junk {
		junk[i] = "m\x09\x00\x05"[i%4] // looks like the start of many
	}
	w.search(junk)
	if w.beyond != 0 {
		t.Errorf("found group %d in junk", w.beyond)
	}
}
