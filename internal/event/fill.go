package event

import (
	"fmt"
	"time"

	"github.com/google/uuid"
)

const (
	defaultVersion  = "1.0"
	timestampLayout = "2006-01-02T15:04:05.000Z"
)

// Defaults are what FillIn sets where the app was silent.
type Defaults struct {
	Now           time.Time
	Service       string        // the source
	CorrelationID string        // from a header of the request; "" means the trace id, or else the event's own id
	NewID         func() string // nil means a UUIDv7
}

// FillIn completes an event: id, version, timestamp, source and metadata.correlationId. Then it checks every field and
// the size as stored, also of what the caller has set since the event was parsed; Metadata, Extra and Data it takes to
// be as parsed. The error is an *Error, except when no id could be made.
func (e *Event) FillIn(d Defaults) error {
	if e.ID == "" {
		id, err := d.newID()
		if err != nil {
			return fmt.Errorf("make event id: %w", err)
		}
		e.ID = id
	}
	if e.Version == "" {
		e.Version = defaultVersion
	}
	if e.Timestamp == "" {
		e.Timestamp = d.Now.UTC().Format(timestampLayout)
	}
	if e.Source == "" {
		e.Source = d.Service
	}
	if err := e.correlate(d.CorrelationID); err != nil {
		return err
	}
	if err := e.validate(); err != nil {
		return err
	}
	return nil
}

func (d Defaults) newID() (string, error) {
	if d.NewID != nil {
		return d.NewID(), nil
	}
	id, err := uuid.NewV7()
	return id.String(), err
}

// correlate puts a correlation id into metadata if none is there. All other bytes of metadata stay.
func (e *Event) correlate(given string) *Error {
	s := scanner{buf: e.Metadata}
	if len(e.Metadata) == 0 {
		s.buf = []byte("{}")
	}
	at, there := s.find("correlationId")
	if there && at.len() > 0 {
		return nil
	}
	id := given
	if id == "" {
		id = traceID(e.Traceparent())
	}
	if id == "" {
		id = e.ID
	}
	if wrong := wrongMetadata("correlationId", id); wrong != "" {
		return fail(codeInvalidField, "/metadata/correlationId", "correlationId, taken from the request's headers, %s", wrong)
	}
	out := make([]byte, 0, len(s.buf)+len(`"correlationId":"",`)+len(id))
	if there { // as "": an app that always writes the member
		out = append(out, s.buf[:at.from-1]...)
		out = appendString(out, id)
		e.Metadata = append(out, s.buf[at.to+1:]...)
		return nil
	}
	out = append(out, `{"correlationId":`...)
	out = appendString(out, id)
	rest := scanner{buf: s.buf, pos: 1}
	rest.space()
	if rest.peek() != '}' {
		out = append(out, ',')
	}
	e.Metadata = append(out, s.buf[1:]...)
	return nil
}

// validate checks the fields of a complete event and its size.
func (e *Event) validate() *Error {
	for f := range textFields {
		s := *e.text(f)
		if f == fieldDataContentType && s == "" {
			continue // none: the data is JSON
		}
		if err := f.check(s); err != nil {
			return err
		}
	}
	return checkSize(e.attributesBytes(), len(e.Data))
}

// checkSize checks the size of one event as stored.
func checkSize(attributes, data int) *Error {
	switch {
	case attributes > MaxAttributesBytes:
		return fail(codeTooLarge, "", "the event without its data has %d bytes, %d are allowed", attributes, MaxAttributesBytes)
	case attributes+data > MaxEventBytes:
		return fail(codeTooLarge, "", "the event has %d bytes as stored, %d are allowed; store large data elsewhere and send its address", attributes+data, MaxEventBytes)
	}
	return nil
}

// StoredBytes returns the size of an event as stored: attributes and data.
func (e *Event) StoredBytes() int { return e.attributesBytes() + len(e.Data) }

// CheckBatchBytes returns an *Error if events, which FillIn has completed, are together larger than MaxBatchBytes.
func CheckBatchBytes(events []Event) error {
	total := 0
	for i := range events {
		total += events[i].StoredBytes()
	}
	if total > MaxBatchBytes {
		return fail(codeTooLarge, "", "the batch has %d bytes as stored, %d are allowed; send it in parts", total, MaxBatchBytes)
	}
	return nil
}
