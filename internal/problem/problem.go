package problem

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// MediaType is the content type of a Problem.
const MediaType = "application/problem+json"

// A Problem is an answer that is not a success. It is an error, so that any layer can decide on the answer.
type Problem struct {
	Status     int
	Code       string // stable: clients branch on it
	Title      string // the phrase of the status
	Detail     string // a sentence that says what to do
	Pointer    string // JSON pointer to the field that is wrong; "": none
	Index      *int   // which event of a batch; nil: none
	Retryable  bool
	RetryAfter time.Duration  // becomes the Retry-After header, rounded up to seconds; 0: none
	Extra      map[string]any // further members; they never replace those above

	cause error
}

// New returns the problem of a code of docs/DESIGN.md §4. A code that is not in it is a mistake in this program and
// makes the problem `internal`.
func New(code, detail string) *Problem {
	k, ok := kindOf(code)
	if !ok {
		k, _ = kindOf(unknownCode)
		code = unknownCode
	}
	return &Problem{
		Status: k.status, Code: code, Title: http.StatusText(k.status), Detail: detail,
		Retryable: k.retryable, RetryAfter: k.retryAfter,
	}
}

func (p *Problem) Error() string {
	if p.Pointer != "" {
		return p.Code + " at " + p.Pointer + ": " + p.Detail
	}
	return p.Code + ": " + p.Detail
}

// Unwrap returns the error that From made p of, for logs; nil if there is none.
func (p *Problem) Unwrap() error { return p.cause }

// With adds a further member to p and returns p.
func (p *Problem) With(name string, value any) *Problem {
	if p.Extra == nil {
		p.Extra = make(map[string]any)
	}
	p.Extra[name] = value
	return p
}

// members are the fixed ones, in the order in which people read them.
type members struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Code      string `json:"code"`
	Detail    string `json:"detail,omitempty"`
	Pointer   string `json:"pointer,omitempty"`
	Index     *int   `json:"index,omitempty"`
	Retryable bool   `json:"retryable"`
}

// MarshalJSON writes the members of RFC 9457, ours, and then Extra in alphabetical order.
func (p *Problem) MarshalJSON() ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	fixed := members{"about:blank", p.Title, p.Status, p.Code, p.Detail, p.Pointer, p.Index, p.Retryable}
	if err := enc.Encode(fixed); err != nil {
		return nil, err
	}
	out.Truncate(out.Len() - len("}\n"))
	for _, name := range slices.Sorted(maps.Keys(p.Extra)) {
		if isFixed(name) {
			continue
		}
		member, err := json.Marshal(map[string]any{name: p.Extra[name]})
		if err != nil {
			return nil, err
		}
		out.WriteByte(',')
		out.Write(member[1 : len(member)-1])
	}
	out.WriteByte('}')
	return out.Bytes(), nil
}

func isFixed(name string) bool {
	switch name {
	case "type", "title", "status", "code", "detail", "pointer", "index", "retryable":
		return true
	}
	return false
}

// Write answers with p.
func Write(w http.ResponseWriter, p *Problem) {
	body, err := p.MarshalJSON()
	if err != nil { // only Extra can fail; the rest is what matters
		plain := *p
		plain.Extra = nil
		body, _ = plain.MarshalJSON()
	}
	h := w.Header()
	h.Set("Content-Type", MediaType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if p.RetryAfter > 0 {
		seconds := (p.RetryAfter + time.Second - 1) / time.Second
		h.Set("Retry-After", strconv.FormatInt(int64(seconds), 10))
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // a client that went away does not need it
}
