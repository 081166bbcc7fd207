package outbox

import (
	"encoding/json"
	"strconv"
)

// appendResult appends the answer about one published event.
func (o *Outbox) appendResult(dst []byte, it *published) []byte {
	dst = append(dst, `{"id":`...)
	dst = appendString(dst, it.event.ID)
	dst = append(dst, `,"seq":`...)
	dst = strconv.AppendUint(dst, it.seq, 10)
	dst = append(dst, `,"correlationId":`...)
	dst = appendString(dst, it.event.CorrelationID())
	if it.duplicate {
		dst = append(dst, `,"duplicate":true,"subscribers":[`...)
	} else {
		dst = append(dst, `,"duplicate":false,"subscribers":[`...)
	}
	comma := false
	for _, s := range o.all() {
		if !s.wanted().owed(it.seq, it.entry.typ, it.entry.version) {
			continue
		}
		if comma {
			dst = append(dst, ',')
		}
		dst, comma = appendString(dst, s.service), true
	}
	return append(dst, `]}`...)
}

// appendString appends s as a JSON string.
func appendString(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			text, err := json.Marshal(s)
			if err != nil {
				panic(err) // a string has always a form in JSON
			}
			return append(dst, text...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}
