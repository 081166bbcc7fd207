package event

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxCorrelationBytes = 256
	maxMetadataBytes    = 1024 // of userId and tracestate
)

// metadataNames are the members of metadata that this version reads. A constant table.
var metadataNames = []string{"correlationId", "causationId", "userId", "traceparent", "tracestate"}

// CorrelationID returns what joins the events of one business process; "" before FillIn if the app gave none.
func (e *Event) CorrelationID() string { return metadataText(e.Metadata, "correlationId") }

// CausationID returns the id of the event that caused this one, or "".
func (e *Event) CausationID() string { return metadataText(e.Metadata, "causationId") }

// Traceparent returns the W3C trace context, or "".
func (e *Event) Traceparent() string { return metadataText(e.Metadata, "traceparent") }

// Tracestate returns what belongs to Traceparent, or "".
func (e *Event) Tracestate() string { return metadataText(e.Metadata, "tracestate") }

// metadataText returns the text of one member, or "".
func metadataText(metadata []byte, name string) string {
	s := scanner{buf: metadata}
	t, ok := s.find(name)
	if !ok {
		return ""
	}
	return string(s.text(t))
}

// find returns the string that a member of the object holds. It looks no further than that member.
func (s *scanner) find(name string) (token, bool) {
	if s.open('{', 1) != nil {
		return token{}, false
	}
	for first := true; ; first = false {
		have, ok, err := s.member(first)
		if err != nil || !ok {
			return token{}, false
		}
		if string(s.text(have)) == name && s.peek() == '"' {
			t, err := s.str()
			return t, err == nil
		}
		if s.value(1) != nil {
			return token{}, false
		}
	}
}

// metadata reads the metadata member of an envelope.
func (r *reader) metadata() *Error {
	start := r.pos
	if c := r.peek(); c != '{' {
		if err := r.value(1); err != nil {
			return err
		}
		return fail(codeInvalidField, "", "metadata must be an object, not %s", kindOf(c))
	}
	if err := r.open('{', 2); err != nil {
		return err
	}
	var seen names
	for first := true; ; first = false {
		name, ok, err := r.member(first)
		if err != nil {
			return err
		}
		if !ok {
			r.event.Metadata = r.buf[start:r.pos:r.pos]
			return r.checkAttributes()
		}
		text := r.text(name)
		if seen.add(text) {
			return fail(codeDuplicateField, "", "the name at byte %d is there already, or differs from another only by case", name.from-1).under(string(text))
		}
		if err := r.metadataMember(name, text); err != nil {
			return err.under(string(text))
		}
	}
}

// metadataMember reads the value of one member of metadata.
func (r *reader) metadataMember(name token, text []byte) *Error {
	known, ok := caseVariant(text, metadataNames)
	if !ok {
		return r.value(2)
	}
	if string(text) != known {
		return fail(codeDuplicateField, "", "the name at byte %d differs only by case from %q; write it so", name.from-1, known)
	}
	t, err := r.wantText(known)
	if err != nil {
		return err
	}
	if wrong := wrongMetadata(known, string(r.text(t))); wrong != "" {
		return fail(codeInvalidField, "", "%s %s", known, wrong)
	}
	return nil
}

// wrongMetadata returns what is wrong with a member of metadata, as the end of a sentence, or "".
func wrongMetadata(name, s string) string {
	switch name {
	case "traceparent":
		if !validTraceparent(s) {
			return `must be a W3C trace context, such as "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"`
		}
		return ""
	case "tracestate":
		if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
			return "may hold only printable ASCII characters"
		}
	case "correlationId", "causationId":
		return wrongText(s, maxCorrelationBytes)
	}
	return wrongText(s, maxMetadataBytes)
}

// The parts of a traceparent, by their places: 00-<32 hex digits>-<16 hex digits>-<2 hex digits>.
const (
	traceAt, traceEnd   = 3, 35
	parentAt, parentEnd = 36, 52
	flagsAt, flagsEnd   = 53, 55
)

// validTraceparent reports whether s is a traceparent of version 00, or of a later version and begins like one.
func validTraceparent(s string) bool {
	if len(s) < flagsEnd || len(s) > maxMetadataBytes {
		return false
	}
	version, rest := s[:2], s[flagsEnd:]
	switch {
	case !isLowerHex(version) || version == "ff":
		return false
	case rest != "" && (version == "00" || rest[0] != '-' || wrongMetadata("tracestate", rest) != ""):
		return false
	case s[traceAt-1] != '-' || s[parentAt-1] != '-' || s[flagsAt-1] != '-':
		return false
	}
	trace, parent := s[traceAt:traceEnd], s[parentAt:parentEnd]
	return isLowerHex(trace) && strings.Trim(trace, "0") != "" &&
		isLowerHex(parent) && strings.Trim(parent, "0") != "" && isLowerHex(s[flagsAt:flagsEnd])
}

// traceID returns the trace id in a valid traceparent, "" if there is none.
func traceID(traceparent string) string {
	if len(traceparent) < traceEnd {
		return ""
	}
	return traceparent[traceAt:traceEnd]
}

func isLowerHex(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return !('0' <= r && r <= '9' || 'a' <= r && r <= 'f') })
}

// cleanText makes s fit for a field of text: UTF-8 without control characters, at most that many bytes.
func cleanText(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	for len(s) > most {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return s
}
