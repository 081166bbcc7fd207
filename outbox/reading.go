package outbox

import (
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/backoff"
	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/problem"
	"github.com/hooksidecar/hooksidecar/internal/signature"
)

// read says what an answer means (docs/DESIGN.md, "Answers to a batch"). Only a verdict, or a refusal of the batch in our own
// form, can settle anything; whatever else answers, everything stays owed.
func (s *sender) read(p parcel, id string, resp *http.Response, text []byte) answer {
	ans := answer{sent: true, status: resp.StatusCode, body: excerpt(text)}
	if wait, ok := backoff.ParseRetryAfter(resp.Header.Get("Retry-After"), time.Now()); ok {
		ans.retryAfter = wait
	}
	if resp.StatusCode == http.StatusOK {
		return s.readVerdicts(p, id, resp.Header, text, ans)
	}
	said, ours := readProblem(resp.Header, text)
	ans.problem = describe(resp.StatusCode, said, ours)
	if !ours || s.forged(p, id, resp.Header, text) {
		return ans
	}
	ans.ours = true
	switch {
	case p.question && resp.StatusCode == http.StatusBadRequest && said.Code == "empty_batch":
		ans.kind, ans.problem = answerMute, ""
	case p.question: // nothing of it can be wrong with an event
	case resp.StatusCode == http.StatusUnauthorized && said.Code == "stale":
		s.follow(said.Clock, time.Now())
	case resp.StatusCode == http.StatusBadRequest && slices.Contains(aboutEvents, said.Code):
		ans.kind = answerRefused
	case resp.StatusCode == http.StatusRequestEntityTooLarge:
		ans.kind = answerTooLarge
	}
	return ans
}

// aboutEvents are the codes of a 400 that speaks of what was sent. What happened to a request on its way (a body cut short,
// headers that came twice) is no event's fault.
var aboutEvents = []string{
	"bad_frame", "duplicate_field", "invalid_field", "invalid_json", "invalid_utf8", "missing_field", "not_an_object", "too_deep",
	"trailing_data", "unsupported_field",
}

// readVerdicts believes an answer only if the subscriber's own service signed it, for this batch and this store.
func (s *sender) readVerdicts(p parcel, id string, h http.Header, text []byte, ans answer) answer {
	if !sameMedia(h.Get("Content-Type"), event.VerdictsContentType) {
		ans.problem = fmt.Sprintf("answered 200 with %q, which is not an inbox's answer", h.Get("Content-Type"))
		return ans
	}
	if err := s.verify(p, id, h, text); err != nil {
		ans.problem = "answer not believed: " + err.Error()
		return ans
	}
	a, err := event.ParseBatchAnswer(text)
	switch {
	case err != nil:
		ans.problem = "answer not understood: " + err.Error()
		return ans
	case a.To != s.o.store.ID():
		ans.problem = fmt.Sprintf("answer is for the store %s", a.To)
		return ans
	case a.From.Service != p.service || a.From.Instance != p.to.name:
		ans.problem = fmt.Sprintf("%s/%s answered in the place of %s/%s", a.From.Service, a.From.Instance, p.service, p.to.name)
		return ans
	case len(a.Verdicts) != len(p.deliveries):
		ans.problem = fmt.Sprintf("%d verdicts for %d events", len(a.Verdicts), len(p.deliveries))
		return ans
	}
	ans.kind, ans.verdicts = answerVerdicts, a.Verdicts
	ans.said = instanceRecord{StoreID: a.From.StoreID, Applied: a.Applied, OpenKeys: a.OpenKeys, OpenAll: a.OpenAll}
	return ans
}

// verify checks the signature of an answer. The batch's random id in it makes it fresh, so that the instance's clock does not
// matter here.
func (s *sender) verify(p parcel, id string, h http.Header, text []byte) error {
	headers, err := signature.HeadersFrom(h)
	if err != nil {
		return err
	}
	if headers.ID != id {
		return fmt.Errorf("it answers %q", headers.ID)
	}
	at, err := strconv.ParseInt(headers.Timestamp, 10, 64)
	if err != nil {
		return signature.ErrBadTimestamp
	}
	return signature.Verify(headers, text, time.Unix(at, 0), signature.PublicKeys(s.o.cfg.Directory.Keys(p.service)))
}

// forged reports whether a refusal claims to be signed and is not by the subscriber. One that is not signed may come from a
// part of the inbox that does not know who asks.
func (s *sender) forged(p parcel, id string, h http.Header, text []byte) bool {
	return h.Get("Webhook-Signature") != "" && s.verify(p, id, h, text) != nil
}

// follow takes the other side's clock for what is signed from now on.
func (s *sender) follow(clock, now time.Time) {
	if offset := clock.Sub(now); !clock.IsZero() && offset.Abs() <= maxClockOffset {
		s.offset = offset
	}
}

// said is what is read of a problem.
type said struct {
	Code   string    `json:"code"`
	Detail string    `json:"detail"`
	Clock  time.Time `json:"clock"`
}

// readProblem reads an answer in our own form; ours is false for any other.
func readProblem(h http.Header, text []byte) (p said, ours bool) {
	if !sameMedia(h.Get("Content-Type"), problem.MediaType) || json.Unmarshal(text, &p) != nil {
		return said{}, false
	}
	return p, p.Code != ""
}

func describe(status int, p said, ours bool) string {
	if !ours {
		return fmt.Sprintf("answered %d, not in the form of a sidecar: something else listens there", status)
	}
	return fmt.Sprintf("answered %d %s: %s", status, p.Code, p.Detail)
}

// sameMedia compares media types with their parameters.
func sameMedia(got, want string) bool {
	if got == want {
		return true
	}
	g, gp, err := mime.ParseMediaType(got)
	if err != nil {
		return false
	}
	w, wp, err := mime.ParseMediaType(want)
	return err == nil && g == w && gp["v"] == wp["v"]
}

func excerpt(text []byte) string {
	const most = 4 << 10
	return string(text[:min(len(text), most)])
}
