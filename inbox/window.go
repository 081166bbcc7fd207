package inbox

import "github.com/hooksidecar/hooksidecar/internal/deadletter"

// The window is what lies between the cursor and the next seq to be read. It is bounded, and so is what is held in memory:
// the window and the exceptions. With the app down the window fills and the rest of the log waits on disk. While the app
// takes events, a full window whose events all wait would stop it: then the oldest get records of their own, and the cursor
// passes them.

// advance moves the cursor over all that is settled or has a durable record.
func (f *forwarder) advance() {
	for f.cursor+1 < f.read {
		if it := f.items[f.cursor+1]; it != nil && !it.recorded && !it.settled {
			return
		}
		f.cursor++
	}
}

// pushOut asks for records of the oldest events of a full window, if nothing in it can go and more is waiting in the log.
func (f *forwarder) pushOut() {
	if f.app.mode != appUp || f.flying >= f.limit || len(f.ready) > 0 || f.next <= f.read ||
		f.read-1-f.cursor < uint64(f.window) {
		return
	}
	pushed := 0
	for seq := f.cursor + 1; seq < f.read && pushed < pushOutEvents && f.recorded < f.exceptions; seq++ {
		it := f.items[seq]
		if it == nil || it.dying {
			continue
		}
		pushed++ // those on the way count too: one round at a time
		if !it.recorded && !it.recording {
			f.record(it, reasonBlocked, deadletter.Answer{})
		}
	}
}

// A span is a run of settled seqs, both ends included.
type span struct{ from, to uint64 }

// settledSpans returns what is settled above the cursor, in order. An event that has a record may be part of a gap or not:
// at start its record counts.
func (f *forwarder) settledSpans() []span {
	var spans []span
	for seq := f.cursor + 1; seq < f.read; seq++ {
		if it := f.items[seq]; it != nil && !it.settled {
			continue
		}
		if last := len(spans) - 1; last >= 0 && spans[last].to == seq-1 {
			spans[last].to = seq
			continue
		}
		spans = append(spans, span{seq, seq})
	}
	return spans
}

// open reports whether the event with that seq is unsettled.
func (f *forwarder) open(seq uint64) bool {
	return seq >= f.read || f.items[seq] != nil
}

// backlog returns how many events are unsettled.
func (f *forwarder) backlog() int {
	return len(f.items) + int(f.next-f.read)
}

// oldestOpen returns the lowest seq that is unsettled and whose event may still be in the log, or next if there is none.
func (f *forwarder) oldestOpen() uint64 {
	oldest := f.read
	for seq, it := range f.items {
		if it.letter == "" { // a replay has its letter's copy
			oldest = min(oldest, seq)
		}
	}
	return oldest
}
