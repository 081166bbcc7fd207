package main

import (
	"bufio"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// maxRunEvents bounds a run, and with it what a garbled mark can make the sink allocate.
const maxRunEvents = 1 << 26

// A sink stands in for the app: it answers every request at once and notes the
// mark in its body. One lock a ledger is enough: it is held for well under a
// microsecond, against some thirty for the request.
type sink struct {
	ln       net.Listener
	mu       sync.RWMutex
	runs     map[int64]*ledger
	unmarked atomic.Int64 // requests without a mark of a known run
	conns    map[net.Conn]struct{}
	serving  sync.WaitGroup
}

// startSink listens on a loopback port of its own; the caller closes it.
func startSink() (*sink, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &sink{ln: ln, runs: map[int64]*ledger{}, conns: map[net.Conn]struct{}{}}
	s.serving.Go(s.serve)
	return s, nil
}

func (s *sink) url() string { return "http://" + s.ln.Addr().String() }

// close ends the listener and all connections, and waits for them.
func (s *sink) close() error {
	err := s.ln.Close()
	s.mu.Lock()
	for c := range s.conns {
		c.Close() // its reader then ends; there is nothing to add to that
	}
	s.conns = nil
	s.mu.Unlock()
	s.serving.Wait()
	return err
}

// begin opens the ledger of a run. Ledgers stay, so that a repeat which comes
// during a later run still counts.
func (s *sink) begin(run int64) *ledger {
	l := newLedger()
	s.mu.Lock()
	s.runs[run] = l
	s.mu.Unlock()
	return l
}

// total adds up all runs.
func (s *sink) total() counts {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var sum counts
	for _, l := range s.runs {
		sum = sum.add(l.close())
	}
	return sum
}

func (s *sink) serve() {
	for {
		c, err := s.ln.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		closed := s.conns == nil
		if !closed {
			s.conns[c] = struct{}{}
		}
		s.mu.Unlock()
		if closed {
			c.Close()
			return
		}
		s.serving.Go(func() { s.answer(c) })
	}
}

// answer serves one connection until its peer or the sink closes it.
func (s *sink) answer(c net.Conn) {
	defer func() {
		c.Close()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}()
	r := bufio.NewReaderSize(c, 4<<10)
	var m message
	for {
		if err := m.read(r); err != nil {
			return
		}
		s.note(m.body)
		if _, err := c.Write([]byte("HTTP/1.1 204 No Content\r\n\r\n")); err != nil || m.closing {
			return
		}
	}
}

func (s *sink) note(body []byte) {
	at := time.Now()
	m, ok := findMark(body)
	s.mu.RLock()
	l := s.runs[m.run]
	s.mu.RUnlock()
	if !ok || l == nil || m.seq >= maxRunEvents {
		s.unmarked.Add(1)
		return
	}
	l.arrive(m, at)
}
