package store

import (
	"fmt"
	"sync"
	"time"
)

// maxAbsence is how far the wall clock may have moved on while the store was closed before it is doubted.
const maxAbsence = 24 * time.Hour

// AgeClock tells how old things are. It never goes back and never jumps: it follows the wall clock at no more
// than twice, and no less than half, the pace of the monotonic clock. So a wall clock that was set wrong
// removes nothing early and freezes nothing.
type AgeClock struct {
	mu   sync.Mutex
	read func() (wall time.Time, mono time.Duration)
	age  time.Time
	wall time.Time     // when age was true
	mono time.Duration // when age was true
	held bool
}

// systemClock reads the wall clock, and the monotonic clock since it was made.
func systemClock() func() (time.Time, time.Duration) {
	start := time.Now()
	return func() (time.Time, time.Duration) {
		now := time.Now()
		return now.Round(0), now.Sub(start)
	}
}

// newAgeClock goes on from age, the clock's last reading on record (zero: none).
func newAgeClock(age time.Time, read func() (time.Time, time.Duration)) *AgeClock {
	c := &AgeClock{read: read, age: age}
	c.wall, c.mono = read()
	switch gap := c.wall.Sub(age); {
	case age.IsZero():
		c.age = c.wall
	case gap > maxAbsence:
		c.held = true
	case gap > 0:
		c.age = c.wall
	}
	return c
}

// Now returns the time for ageing.
func (c *AgeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.follow()
	return c.age
}

// Held reports whether nothing may be removed for its age, and why: at start the wall clock was more than a
// day beyond the last time on record, and the age clock has not caught up with it yet.
func (c *AgeClock) Held() (held bool, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.follow()
	if !c.held {
		return false, ""
	}
	return true, fmt.Sprintf("the wall clock (%s) is %s beyond the last time on record (%s)",
		c.wall.UTC().Format(time.RFC3339), c.wall.Sub(c.age).Round(time.Minute), c.age.UTC().Format(time.RFC3339))
}

// Trust ends holding: an operator says that the wall clock is right.
func (c *AgeClock) Trust() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.follow()
	if c.wall.After(c.age) {
		c.age = c.wall
	}
	c.held = false
}

func (c *AgeClock) follow() {
	wall, mono := c.read()
	passed := max(0, mono-c.mono)
	c.wall, c.mono = wall, mono
	behind := wall.Sub(c.age)
	c.age = c.age.Add(min(max(behind, passed/2), 2*passed))
	if wall.Sub(c.age) < maxAbsence {
		c.held = false
	}
}
