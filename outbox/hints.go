package outbox

import (
	"net/http"
	"strings"

	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/problem"
)

// hints are what the headers of a request say about its events.
type hints struct {
	id, key, correlationID, traceparent string
}

func readHints(r *http.Request) (out hints, err error) {
	if _, err := problem.CheckMediaType(r, "application/json"); err != nil {
		return out, err
	}
	var id string
	for _, f := range []struct {
		name string
		to   *string
	}{{"Idempotency-Key", &id}, {"X-Event-Key", &out.key}, {"X-Correlation-Id", &out.correlationID}, {"Traceparent", &out.traceparent}} {
		switch values := r.Header[f.name]; {
		case len(values) == 1:
			*f.to = values[0]
		case len(values) > 1:
			return out, problem.New("duplicate_header", f.name+" was sent more than once")
		}
	}
	if r.Header["Idempotency-Key"] != nil && (id == "" || id == `""`) {
		return out, problem.New("invalid_field", "Idempotency-Key is there and empty; leave it out, or send the id that a repeat will have too")
	}
	if out.id, err = unquote(id); err != nil {
		return out, err
	}
	if !validTraceparent(out.traceparent) {
		out.traceparent = "" // to be ignored, says the standard
	}
	return out, nil
}

// unquote returns the id of an Idempotency-Key, which is a plain word or a quoted string (RFC 8941).
func unquote(s string) (string, error) {
	if len(s) == 0 || s[0] != '"' {
		return s, nil
	}
	bad := problem.New("invalid_field", "Idempotency-Key is not a well-formed quoted string")
	if len(s) < 2 || s[len(s)-1] != '"' {
		return "", bad
	}
	var b strings.Builder
	for i := 1; i < len(s)-1; i++ {
		c := s[i]
		if c == '"' {
			return "", bad
		}
		if c == '\\' {
			if i++; i == len(s)-1 || s[i] != '"' && s[i] != '\\' {
				return "", bad
			}
			c = s[i]
		}
		b.WriteByte(c)
	}
	return b.String(), nil
}

// identify gives ev the id and the key of the headers.
func (h hints) identify(ev *event.Event) error {
	if h.id != "" {
		if ev.ID != "" && ev.ID != h.id {
			p := problem.New("id_mismatch", "Idempotency-Key and the event's id differ; send one of them, or the same")
			p.Pointer = "/id"
			return p
		}
		ev.ID = h.id
	}
	if h.key != "" {
		if ev.Key != "" && ev.Key != h.key {
			p := problem.New("invalid_field", "X-Event-Key and the event's key differ; send one of them, or the same")
			p.Pointer = "/key"
			return p
		}
		ev.Key = h.key
	}
	return nil
}

// validTraceparent reports whether s has the form of a W3C trace context: 00-<32 hex>-<16 hex>-<2 hex>.
func validTraceparent(s string) bool {
	if len(s) != 55 || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if i != 2 && i != 35 && i != 52 && (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// withMember returns the JSON object metadata, which may be empty, with one more member; its other bytes stay as they are.
func withMember(metadata []byte, name, value string) []byte {
	out := make([]byte, 0, len(metadata)+len(name)+len(value)+8)
	end := len(metadata) - 1
	for end >= 0 && metadata[end] != '}' {
		end--
	}
	if end < 0 {
		out = append(out, '{')
	} else {
		out = append(out, metadata[:end]...)
		if strings.TrimSpace(string(metadata[:end])) != "{" {
			out = append(out, ',')
		}
	}
	out = appendString(out, name)
	out = append(out, ':')
	out = appendString(out, value)
	return append(out, '}')
}
