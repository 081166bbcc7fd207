package sidecar

import (
	"net"
	"net/http"
	"sync"
	"time"
)

// idleEnough is how long a connection has nothing to say before it has to make room. One that sends its requests one after the
// other is not idle, nor is one that has only just come.
const idleEnough = 100 * time.Millisecond

// A crowd is the connections of one listener. When it is full, who comes next takes the place of the connection that has had
// nothing to say for the longest time: else pools of idle connections could keep everybody else out for good.
type crowd struct {
	slots chan struct{} // one taken by each connection

	mu   sync.Mutex
	idle map[net.Conn]time.Time // connections between two requests, or before the first, and since when
}

func newCrowd(most int) *crowd {
	return &crowd{slots: make(chan struct{}, most), idle: map[net.Conn]time.Time{}}
}

// enter waits for a slot; it returns false if closed was closed before there was one.
func (c *crowd) enter(closed <-chan struct{}) bool {
	select {
	case c.slots <- struct{}{}:
		return true
	default:
	}
	again := time.NewTicker(idleEnough / 4)
	defer again.Stop()
	for {
		c.makeRoom(time.Now())
		select {
		case c.slots <- struct{}{}:
			return true
		case <-closed:
			return false
		case <-again.C:
		}
	}
}

func (c *crowd) leave() { <-c.slots }

// track is told by the HTTP server how a connection is.
func (c *crowd) track(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateNew, http.StateIdle:
		c.idle[conn] = time.Now()
	default:
		delete(c.idle, conn)
	}
}

// makeRoom closes the connection that has been idle for the longest time, if that is long enough, and reports whether it did.
func (c *crowd) makeRoom(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	var oldest net.Conn
	for conn, since := range c.idle {
		if oldest == nil || since.Before(c.idle[oldest]) {
			oldest = conn
		}
	}
	if oldest == nil || now.Sub(c.idle[oldest]) < idleEnough {
		return false
	}
	delete(c.idle, oldest)
	_ = oldest.Close() // its slot is free either way
	return true
}

// disperse closes connections that are idle until done is closed. http.Server.Shutdown would wait five seconds for one that was
// opened and never used, as clients do that dial twice and need only one.
func (c *crowd) disperse(done <-chan struct{}) {
	again := time.NewTicker(idleEnough / 4)
	defer again.Stop()
	for {
		select {
		case <-done:
			return
		case <-again.C:
			for c.makeRoom(time.Now()) {
			}
		}
	}
}
