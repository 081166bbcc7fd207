package event

// ParseBatch reads a JSON array of 1 to MaxBatchEvents envelopes. All or none: the first one that is wrong is the
// error, an *Error with its Index. Metadata and Data of each event are parts of body, as with ParseEnvelope.
func ParseBatch(body []byte) ([]Event, error) {
	s := scanner{buf: body}
	events, err := s.events()
	if err != nil {
		return nil, err
	}
	if err := s.end(); err != nil {
		return nil, err
	}
	return events, nil
}

func (s *scanner) events() ([]Event, *Error) {
	if err := s.start(); err != nil {
		return nil, err
	}
	if c := s.peek(); c != '[' {
		if err := s.value(0); err != nil {
			return nil, err
		}
		return nil, fail(codeInvalidField, "", "a batch is a JSON array of events, not %s", kindOf(c))
	}
	s.pos++
	var events []Event
	for i := 0; ; i++ {
		ok, err := s.element(i == 0)
		switch {
		case err != nil:
			return nil, err
		case !ok && i == 0:
			return nil, fail(codeEmptyBatch, "", "the batch has no events")
		case !ok:
			return events, nil
		case i == MaxBatchEvents:
			return nil, tooMany()
		}
		start := s.pos
		r := reader{scanner: *s}
		if err := r.read(whole); err != nil {
			return nil, s.firstError(err.inEvent(i), start, i)
		}
		s.pos = r.pos
		events = append(events, r.event)
	}
}

func tooMany() *Error {
	return fail(codeTooManyEvents, "", "the batch has more than %d events; send it in parts", MaxBatchEvents)
}

// firstError returns the error for a batch whose event i, which begins at start, is wrong: wrong, unless there are too
// many events anyway. Only then the count is the more useful answer.
func (s *scanner) firstError(wrong *Error, start, i int) *Error {
	s.pos = start
	for ; i < MaxBatchEvents; i++ {
		if s.value(0) != nil {
			return wrong
		}
		if ok, err := s.element(false); !ok || err != nil {
			return wrong
		}
	}
	return tooMany()
}
