package event

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// Codes of an Error. They are part of the API: a client may branch on them.
const (
	codeInvalidJSON         = "invalid_json"
	codeInvalidUTF8         = "invalid_utf8"
	codeTooDeep             = "too_deep"
	codeTrailingData        = "trailing_data"
	codeNotAnObject         = "not_an_object"
	codeDuplicateField      = "duplicate_field"
	codeMissingField        = "missing_field"
	codeInvalidField        = "invalid_field"
	codeUnsupportedField    = "unsupported_field"
	codeUnsupportedProtocol = "unsupported_protocol"
	codeEmptyBatch          = "empty_batch"
	codeBadFrame            = "bad_frame"
	codeTooLarge            = "too_large"
	codeTooManyEvents       = "too_many_events"
)

// maxPointerBytes bounds the pointer of an Error. A deeper place is named by the nearest enclosing one that fits.
const maxPointerBytes = 512

// An Error says what is wrong with bytes that somebody sent, and where.
type Error struct {
	Code    string // stable, such as "invalid_field"
	Pointer string // JSON pointer to the place, from the top of the body; "" is the whole body
	Detail  string // a sentence for people, with the byte offset where that helps
	Index   int    // which event of a batch; -1 if the body is not a batch or no single event is at fault
	Status  int    // HTTP status to answer with
}

func (e *Error) Error() string {
	if e.Pointer == "" {
		return e.Code + ": " + e.Detail
	}
	return e.Code + " at " + e.Pointer + ": " + e.Detail
}

// fail makes an Error about the place that pointer names.
func fail(code, pointer, format string, args ...any) *Error {
	e := &Error{Code: code, Pointer: pointer, Detail: fmt.Sprintf(format, args...), Index: -1, Status: http.StatusBadRequest}
	switch code {
	case codeTooLarge, codeTooManyEvents:
		e.Status = http.StatusRequestEntityTooLarge
	case codeUnsupportedProtocol:
		e.Status = http.StatusUpgradeRequired
	}
	return e
}

// under puts the place one level deeper: what was /b becomes /name/b.
func (e *Error) under(name string) *Error {
	name = strings.ReplaceAll(strings.ReplaceAll(name, "~", "~0"), "/", "~1")
	switch {
	case len(name) >= maxPointerBytes:
		e.Pointer = "" // names the object that holds it
	case len(name)+1+len(e.Pointer) > maxPointerBytes:
		e.Pointer = "/" + name
	default:
		e.Pointer = "/" + name + e.Pointer
	}
	return e
}

// at puts the place inside element i of an array.
func (e *Error) at(i int) *Error { return e.under(strconv.Itoa(i)) }

// inEvent puts the place inside event i of a batch.
func (e *Error) inEvent(i int) *Error {
	e.Index = i
	return e.at(i)
}
