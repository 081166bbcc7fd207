package event

import (
	"bytes"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	maxVersionBytes     = 32
	maxTimestampBytes   = 64
	maxSourceBytes      = 256
	maxSubjectBytes     = 1024
	maxSchemaBytes      = 1024
	maxContentTypeBytes = 256
)

// A field is a member of the envelope that this version knows.
type field uint8

const (
	fieldID field = iota
	fieldType
	fieldVersion
	fieldTimestamp
	fieldSource
	fieldKey
	fieldSubject
	fieldDataSchema
	fieldDataContentType
	fieldMetadata // the fields before it are text
	fieldData
	fieldDataBase64
	fieldDeliverAt
	fieldDelay
	fieldExpiresAt
	fieldUnknown
	textFields = fieldMetadata
)

// fieldNames is a constant table.
var fieldNames = [fieldUnknown]string{
	"id", "type", "version", "timestamp", "source", "key", "subject", "dataSchema", "dataContentType",
	"metadata", "data", "dataBase64", "deliverAt", "delay", "expiresAt",
}

func (f field) String() string  { return fieldNames[f] }
func (f field) pointer() string { return "/" + fieldNames[f] }

// fieldOf returns the field of that very name, or fieldUnknown. (A switch, because the compiler makes a fast one.)
func fieldOf(name []byte) field {
	switch string(name) {
	case "id":
		return fieldID
	case "type":
		return fieldType
	case "version":
		return fieldVersion
	case "timestamp":
		return fieldTimestamp
	case "source":
		return fieldSource
	case "key":
		return fieldKey
	case "subject":
		return fieldSubject
	case "dataSchema":
		return fieldDataSchema
	case "dataContentType":
		return fieldDataContentType
	case "metadata":
		return fieldMetadata
	case "data":
		return fieldData
	case "dataBase64":
		return fieldDataBase64
	case "deliverAt":
		return fieldDeliverAt
	case "delay":
		return fieldDelay
	case "expiresAt":
		return fieldExpiresAt
	}
	return fieldUnknown
}

// caseVariant returns the one of known that name is when case does not count.
func caseVariant(name []byte, known []string) (string, bool) {
	for _, k := range known {
		if bytes.EqualFold(name, []byte(k)) {
			return k, true
		}
	}
	return "", false
}

// text returns the place of a text field's value.
func (e *Event) text(f field) *string {
	switch f {
	case fieldID:
		return &e.ID
	case fieldType:
		return &e.Type
	case fieldVersion:
		return &e.Version
	case fieldTimestamp:
		return &e.Timestamp
	case fieldSource:
		return &e.Source
	case fieldKey:
		return &e.Key
	case fieldSubject:
		return &e.Subject
	case fieldDataSchema:
		return &e.DataSchema
	default:
		return &e.DataContentType
	}
}

// check returns what is wrong with the value of a text field that is present.
func (f field) check(s string) *Error {
	var wrong string
	switch f {
	case fieldID:
		wrong = wrongVisible(s, MaxIDBytes)
	case fieldType:
		wrong = wrongType(s)
	case fieldVersion:
		wrong = wrongVersion(s)
	case fieldTimestamp:
		wrong = wrongTime(s)
	case fieldSource:
		wrong = wrongVisible(s, maxSourceBytes)
	case fieldKey:
		wrong = wrongText(s, MaxKeyBytes)
	case fieldSubject:
		wrong = wrongText(s, maxSubjectBytes)
	case fieldDataSchema:
		wrong = wrongText(s, maxSchemaBytes)
	case fieldDataContentType:
		wrong = wrongContentType(s)
	}
	if wrong == "" {
		return nil
	}
	return fail(codeInvalidField, f.pointer(), "%s %s", f, wrong)
}

// The functions below return what is wrong as the end of a sentence, or "".

func tooLong(have, most int) string { return fmt.Sprintf("has %d bytes, %d are allowed", have, most) }

// wrongVisible wants text that is safe in a header and in a log line: 1 to most bytes of 0x21 to 0x7E.
func wrongVisible(s string, most int) string {
	switch {
	case s == "":
		return "must not be empty; leave it out to have it filled in"
	case len(s) > most:
		return tooLong(len(s), most)
	}
	for i := range len(s) {
		if s[i] < 0x21 || s[i] > 0x7E {
			return "may hold only printable ASCII characters without spaces"
		}
	}
	return ""
}

func wrongType(s string) string {
	switch {
	case s == "":
		return `must not be empty; give one such as "order.created"`
	case len(s) > MaxTypeBytes:
		return tooLong(len(s), MaxTypeBytes)
	}
	dots, segment := 0, 0
	for _, r := range s {
		switch {
		case isWord(r):
			segment++
			continue
		case r != '.':
			return "may hold only letters, digits, '_', '-' and dots between segments"
		case segment == 0:
			return "has an empty segment"
		}
		dots++
		segment = 0
	}
	switch {
	case segment == 0:
		return "has an empty segment"
	case dots == 0:
		return `must have at least two segments, such as "order.created"`
	}
	return ""
}

func wrongVersion(s string) string {
	switch {
	case s == "":
		return "must not be empty; leave it out to have it filled in"
	case len(s) > maxVersionBytes:
		return tooLong(len(s), maxVersionBytes)
	case strings.ContainsFunc(s, func(r rune) bool { return !isWord(r) && r != '.' }):
		return "may hold only letters, digits, '.', '_' and '-'"
	}
	return ""
}

func wrongTime(s string) string {
	if len(s) > maxTimestampBytes {
		return tooLong(len(s), maxTimestampBytes)
	}
	// Parse takes some texts that RFC 3339 does not: one digit of the hour, a comma, a zone of any number.
	_, err := time.Parse(time.RFC3339, s)
	if err != nil || s[len("2006-01-02T15")] != ':' || strings.Contains(s, ",") || !isZone(s) {
		return `must be RFC 3339 with a zone, such as "2026-02-03T10:30:00Z"`
	}
	return ""
}

// isZone reports whether the zone that s ends with is one of RFC 3339.
func isZone(s string) bool {
	if s[len(s)-1] == 'Z' {
		return true
	}
	zone := s[len(s)-len("+01:00"):]
	return zone[1:3] < "24" && zone[4:] < "60"
}

// wrongText wants text without control characters; it may be empty.
func wrongText(s string, most int) string {
	switch {
	case len(s) > most:
		return tooLong(len(s), most)
	case !utf8.ValidString(s):
		return "must be UTF-8"
	case strings.ContainsFunc(s, unicode.IsControl):
		return "must not hold control characters"
	}
	return ""
}

func wrongContentType(s string) string {
	if len(s) > maxContentTypeBytes {
		return tooLong(len(s), maxContentTypeBytes)
	}
	t, params, _ := strings.Cut(s, ";")
	top, sub, _ := strings.Cut(strings.TrimRight(t, " \t"), "/")
	if !isToken(top) || !isToken(sub) || strings.ContainsFunc(params, func(r rune) bool { return r < ' ' || r > '~' }) {
		return `must be a media type, such as "image/png"`
	}
	return ""
}

// isToken reports whether s is a token of RFC 9110.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !isWord(r) && !strings.ContainsRune("!#$%&'*+.^`|~", r) })
}
