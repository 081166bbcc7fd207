package inbox

const (
	tailEvents = windowEvents
	tailBytes  = 16 << 20
)

// A tail holds the events that were stored last and that the forwarder has not taken yet, with consecutive seqs, so that in
// the common case nothing is read back. What does not fit is read from the log. It is not safe for concurrent use.
type tail struct {
	events []*received
	bytes  int
}

// push appends a durable event.
func (t *tail) push(r *received) {
	if n := len(t.events); n > 0 && t.events[n-1].seq+1 != r.seq {
		t.drop(n)
	}
	t.events = append(t.events, r)
	t.bytes += r.size()
	over := 0
	for size := t.bytes; over < len(t.events) && (len(t.events)-over > tailEvents || size > tailBytes); over++ {
		size -= t.events[over].size()
	}
	t.drop(over)
}

// take returns up to n events from seq on, and forgets them and all before. It returns none if seq is not held.
func (t *tail) take(seq uint64, n int) []*received {
	if len(t.events) == 0 || seq < t.events[0].seq {
		return nil
	}
	skip := int(min(seq-t.events[0].seq, uint64(len(t.events))))
	t.drop(skip)
	taken := append([]*received(nil), t.events[:min(n, len(t.events))]...)
	t.drop(len(taken))
	return taken
}

// first returns the lowest seq held, or next if none is.
func (t *tail) first(next uint64) uint64 {
	if len(t.events) == 0 {
		return next
	}
	return t.events[0].seq
}

func (t *tail) drop(n int) {
	for i, r := range t.events[:n] {
		t.bytes -= r.size()
		t.events[i] = nil
	}
	if t.events = t.events[n:]; len(t.events) == 0 {
		t.events = nil
	}
}
