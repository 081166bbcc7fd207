package event

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
)

// ParseEnvelope reads what an app posts: one JSON object with at least type and data. What is absent stays empty
// until FillIn. Metadata and Data are parts of body, which must not change while the event is used. The error is an *Error.
func ParseEnvelope(body []byte) (Event, error) {
	r := reader{scanner: scanner{buf: body}}
	if err := r.only(whole); err != nil {
		return Event{}, err
	}
	return r.event, nil
}

// ParseAttributes reads an event's stored form, which FillIn has completed, without its data. Metadata is part of b.
// The error is an *Error.
func ParseAttributes(b []byte) (Event, error) {
	r := reader{scanner: scanner{buf: b}}
	if err := r.only(attributes); err != nil {
		return Event{}, err
	}
	return r.event, nil
}

// A form is what an envelope must hold.
type form bool

const (
	whole      form = false // type and data
	attributes form = true  // all that FillIn sets, and no data
)

// A reader reads one envelope, at the scanner's position.
type reader struct {
	scanner
	event  Event
	texts  [textFields]token
	base64 token
	seen   [fieldUnknown]bool
	others names // unknown members
}

// only reads a text that is one envelope and nothing else.
func (r *reader) only(f form) *Error {
	if err := r.start(); err != nil {
		return err
	}
	if err := r.read(f); err != nil {
		return err
	}
	return r.end()
}

// start moves to the first byte of a text that may not be empty.
func (s *scanner) start() *Error {
	if bytes.HasPrefix(s.buf, []byte("\xEF\xBB\xBF")) {
		return fail(codeInvalidJSON, "", "the text begins with a byte order mark; send it without")
	}
	s.space()
	if s.pos == len(s.buf) {
		return fail(codeInvalidJSON, "", "the body is empty")
	}
	return nil
}

// read reads the envelope.
func (r *reader) read(f form) *Error {
	if c := r.peek(); c != '{' {
		if err := r.value(0); err != nil {
			return err
		}
		return fail(codeNotAnObject, "", "an event is a JSON object, not %s", kindOf(c))
	}
	if err := r.open('{', 1); err != nil {
		return err
	}
	for first := true; ; first = false {
		name, ok, err := r.member(first)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if err := r.field(name, f); err != nil {
			return err
		}
	}
	return r.finish(f)
}

// kindOf names the kind of the valid JSON value that begins with c.
func kindOf(c byte) string {
	switch c {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	}
	return "a number"
}

// field reads the value of one member.
func (r *reader) field(name token, form form) *Error {
	text := r.text(name)
	f := fieldOf(text)
	if f == fieldUnknown {
		return r.unknown(name, text)
	}
	if r.seen[f] {
		return fail(codeDuplicateField, f.pointer(), "%s is given twice; the second one is at byte %d", f, name.from-1)
	}
	r.seen[f] = true
	var err *Error
	switch {
	case f < textFields:
		r.texts[f], err = r.wantText(f.String())
	case f == fieldMetadata:
		err = r.metadata()
	case f == fieldDeliverAt || f == fieldDelay || f == fieldExpiresAt:
		err = fail(codeUnsupportedField, "", "%s is not supported yet: schedules and expiry come with a later version; leave it out", f)
	case form == attributes:
		err = fail(codeInvalidField, "", "attributes come without data")
	case f == fieldData:
		start := r.pos
		err = r.value(1)
		r.event.Data = r.buf[start:r.pos:r.pos]
	case f == fieldDataBase64:
		r.base64, err = r.wantText(f.String())
	}
	if err != nil {
		return err.under(f.String())
	}
	return nil
}

// wantText reads a value that must be a string.
func (s *scanner) wantText(name string) (token, *Error) {
	c := s.peek()
	if c == '"' {
		return s.str()
	}
	if err := s.value(1); err != nil {
		return token{}, err
	}
	return token{}, fail(codeInvalidField, "", "%s must be a string, not %s; leave it out if there is none", name, kindOf(c))
}

// unknown keeps a member that this version does not know.
func (r *reader) unknown(name token, text []byte) *Error {
	if known, ok := caseVariant(text, fieldNames[:]); ok {
		return fail(codeDuplicateField, "", "the name at byte %d differs only by case from %q; write it so", name.from-1, known).under(string(text))
	}
	if r.others.add(text) {
		return fail(codeDuplicateField, "", "the name at byte %d is there already, or differs from another only by case", name.from-1).under(string(text))
	}
	start := r.pos
	if err := r.value(1); err != nil {
		return err.under(string(text))
	}
	if len(r.event.Extra) > 0 {
		r.event.Extra = append(r.event.Extra, ',')
	}
	r.event.Extra = append(r.event.Extra, r.buf[name.from-1:name.to+1]...)
	r.event.Extra = append(r.event.Extra, ':')
	r.event.Extra = append(r.event.Extra, r.buf[start:r.pos]...)
	return r.checkAttributes()
}

// checkAttributes bounds what is kept while the envelope is still being read.
func (r *reader) checkAttributes() *Error {
	if len(r.event.Extra)+len(r.event.Metadata) > MaxAttributesBytes {
		return fail(codeTooLarge, "", "metadata and unknown members hold more than %d bytes", MaxAttributesBytes)
	}
	return nil
}

// finish makes the event of what was read, and checks it.
func (r *reader) finish(form form) *Error {
	required := []field{fieldType}
	if form == attributes {
		required = []field{fieldID, fieldType, fieldVersion, fieldTimestamp, fieldSource}
	}
	for _, f := range required {
		if !r.seen[f] {
			return fail(codeMissingField, f.pointer(), "%s is required", f)
		}
	}
	r.setTexts()
	for f := range textFields {
		if r.seen[f] {
			if err := f.check(*r.event.text(f)); err != nil {
				return err
			}
		}
	}
	if form == attributes {
		return nil
	}
	return r.data()
}

// setTexts copies the text fields out of the buffer, into one piece of memory for all.
func (r *reader) setTexts() {
	size := 0
	for _, t := range r.texts {
		size += t.len()
	}
	var all strings.Builder
	all.Grow(size)
	for f, t := range r.texts {
		if t.len() == 0 {
			continue
		}
		from := all.Len()
		all.Write(r.scanner.text(t))
		*r.event.text(field(f)) = all.String()[from:]
	}
}

// data decides between data and dataBase64.
func (r *reader) data() *Error {
	given, encoded, binary := r.seen[fieldData], r.seen[fieldDataBase64], r.event.Binary()
	switch {
	case given && encoded:
		return fail(codeInvalidField, "/dataBase64", "give either data or dataBase64, not both")
	case !given && !encoded && binary:
		return fail(codeMissingField, "/dataBase64", "dataBase64 is required with dataContentType %q", r.event.DataContentType)
	case !given && !encoded:
		return fail(codeMissingField, "/data", "data is required; null is a value")
	case given && binary:
		return fail(codeInvalidField, "/data", "data is JSON, but dataContentType is %q: send the bytes as dataBase64, or leave dataContentType out", r.event.DataContentType)
	case given:
		return nil
	case !r.seen[fieldDataContentType]:
		return fail(codeMissingField, "/dataContentType", "dataBase64 needs dataContentType to say what it holds; JSON goes into data as it is")
	}
	raw, err := decodeBase64(r.scanner.text(r.base64))
	if err != nil {
		return fail(codeInvalidField, "/dataBase64", "dataBase64 must be standard base64 with padding: %v", err)
	}
	if binary {
		r.event.Data = raw
		return nil
	}
	inner := scanner{buf: raw}
	value, bad := inner.whole()
	if bad != nil {
		return fail(bad.Code, "/dataBase64", "dataBase64 must hold JSON, as dataContentType says: %s", bad.Detail)
	}
	r.event.Data = value
	return nil
}

// whole returns the bytes of the one value that the text must be, where data may stand in an envelope.
func (s *scanner) whole() ([]byte, *Error) {
	s.space()
	start := s.pos
	if err := s.value(1); err != nil {
		return nil, err
	}
	value := s.buf[start:s.pos:s.pos]
	if err := s.end(); err != nil {
		return nil, err
	}
	return value, nil
}

// decodeBase64 is stricter than the decoder of the library, which skips line ends.
func decodeBase64(b []byte) ([]byte, error) {
	if i := bytes.IndexAny(b, "\r\n"); i >= 0 {
		return nil, fmt.Errorf("line end at byte %d", i)
	}
	raw := make([]byte, base64.StdEncoding.DecodedLen(len(b)))
	n, err := base64.StdEncoding.Strict().Decode(raw, b)
	return raw[:n:n], err
}
