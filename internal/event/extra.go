package event

import "slices"

// TakeExtra takes an unknown member out of the event, for those who know it, and returns its value as it came.
// ok is false if it is not there.
func (e *Event) TakeExtra(name string) (value []byte, ok bool) {
	s := scanner{buf: e.Extra}
	for first := true; s.pos < len(s.buf); first = false {
		before := s.pos
		if !first {
			s.pos++ // the comma
		}
		have, err := s.str()
		if err != nil {
			return nil, false
		}
		s.pos++ // the colon
		at := s.pos
		if err := s.value(1); err != nil {
			return nil, false
		}
		if string(s.text(have)) != name {
			continue
		}
		value = slices.Clone(s.buf[at:s.pos])
		after := s.pos
		if first && after < len(s.buf) {
			after++ // the comma that would now come first
		}
		if e.Extra = slices.Concat(s.buf[:before], s.buf[after:]); len(e.Extra) == 0 {
			e.Extra = nil
		}
		return value, true
	}
	return nil, false
}
