package inbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/problem"
	"github.com/hooksidecar/hooksidecar/internal/signature"
)

// maxDirectBody leaves room for base64 around binary data, and for to and from.
const maxDirectBody = event.MaxEventBytes*4/3 + 64<<10

// directAnswer is the body of 202 and 200.
type directAnswer struct {
	ID        string `json:"id"`
	Source    string `json:"source"`
	Duplicate bool   `json:"duplicate"`
}

// ServeEvent answers POST /inbox: one envelope with an extra member to, this service, signed by the service that is its
// source, or by the one that an extra member from names and that may speak for the source.
func (in *Inbox) ServeEvent(w http.ResponseWriter, r *http.Request) {
	c, err := in.readEvent(w, r)
	if err != nil {
		in.refuse(w, err)
		return
	}
	a := &accept{in: in, events: []candidate{c}, bytes: c.event.StoredBytes()}
	if err := a.run(r.Context()); err != nil {
		in.refuse(w, err)
		return
	}
	in.m.count(a.outcomes)
	o := a.outcomes[0]
	answer := directAnswer{ID: c.event.ID, Source: c.event.Source}
	switch o.Verdict {
	case event.Stored:
		writeJSON(w, http.StatusAccepted, answer)
	case event.Duplicate:
		answer.Duplicate = true
		writeJSON(w, http.StatusOK, answer)
	case event.Unwanted:
		in.refuse(w, problem.New("not_subscribed", "No subscription of this service matches the event's type."))
	case event.Rejected:
		in.refuse(w, problem.New(o.Code, o.Detail))
	default:
		in.refuse(w, problem.New("busy", "This inbox cannot take more at the moment; nothing was stored. Send the event again later."))
	}
}

// readEvent reads, believes and decodes a request.
func (in *Inbox) readEvent(w http.ResponseWriter, r *http.Request) (candidate, error) {
	body, headers, err := in.readSigned(w, r, maxDirectBody, "application/json")
	if err != nil {
		return candidate{}, err
	}
	claimed := claimedSender(body)
	if claimed == "" {
		return candidate{}, in.distrust(problem.New("unknown_sender", "The body is no JSON object that names who sends it, in from or source."), "")
	}
	if err := in.verifyEvent(headers, body, claimed); err != nil {
		return candidate{}, in.distrust(err, claimed)
	}
	e, err := event.ParseEnvelope(body)
	if err != nil {
		return candidate{}, err
	}
	address, err := addressOf(&e)
	if err != nil {
		return candidate{}, err
	}
	if address.to != in.cfg.Service {
		return candidate{}, notAddressedHere(in.cfg.Service, address.to)
	}
	if address.from == "" {
		address.from = e.Source
	}
	if address.from != claimed { // two readers, two senders: the signature was checked for the other one
		return candidate{}, in.distrust(signature.ErrNoMatch, address.from)
	}
	return in.candidateOf(e, headers.ID, address.from)
}

// claimedSender returns who an event that is sent by itself says to be from, before anything of it is believed: from, else
// source, else nobody. It goes no further than that takes, and not past what is no JSON.
func claimedSender(body []byte) string {
	dec := json.NewDecoder(bytes.NewReader(body))
	source := ""
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return ""
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			break
		}
		var value json.RawMessage
		if dec.Decode(&value) != nil {
			break
		}
		var text string
		switch {
		case name != "from" && name != "source" || json.Unmarshal(value, &text) != nil:
		case name == "from" && text != "":
			return text
		case name == "source" && source == "":
			source = text
		}
	}
	return source
}

// verifyEvent checks that the body was signed by one of the service's keys, lately.
func (in *Inbox) verifyEvent(h signature.Headers, body []byte, service string) error {
	keys, err := in.keysOf(service)
	if err != nil {
		return err
	}
	return signature.Verify(h, body, time.Now(), keys)
}

// candidateOf completes an event that was sent by itself. What identifies it must be there already.
func (in *Inbox) candidateOf(e event.Event, webhookID, service string) (candidate, error) {
	if e.ID == "" || e.Source == "" {
		p := problem.New("missing_field", "An event that is sent to an inbox needs id and source.")
		p.Pointer = "/id"
		if e.ID != "" {
			p.Pointer = "/source"
		}
		return candidate{}, p
	}
	if webhookID != event.WebhookID(e.Source, e.ID) {
		return candidate{}, problem.New("id_mismatch", "The webhook-id is not that of the event.")
	}
	now := time.Now()
	if err := e.FillIn(event.Defaults{Now: now, Service: e.Source}); err != nil {
		return candidate{}, err
	}
	c := candidate{event: e, attributes: e.AppendAttributes(nil), digest: e.Digest(), acceptedAt: now.UnixMilli()}
	return c, in.screen(&c, service)
}

// An address says where an event that is sent by itself is to go, and who signed it.
type address struct{ to, from string }

// addressOf takes to and from out of the event: they are about the request, the app does not get them.
func addressOf(e *event.Event) (address, error) {
	var a address
	var kept []byte
	dec := json.NewDecoder(bytes.NewReader(append(append([]byte{'{'}, e.Extra...), '}')))
	if _, err := dec.Token(); err != nil {
		return a, err
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return a, err
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return a, err
		}
		switch name {
		case "to", "from":
			into := &a.to
			if name == "from" {
				into = &a.from
			}
			if err := json.Unmarshal(value, into); err != nil {
				return a, invalidAddress(name.(string))
			}
			continue
		}
		kept = appendMember(kept, name, value)
	}
	if a.to == "" {
		return a, invalidAddress("to")
	}
	e.Extra = kept
	return a, nil
}

func invalidAddress(name string) error {
	p := problem.New("invalid_field", "An event that is sent to an inbox has a member "+name+" that names a service.")
	p.Pointer = "/" + name
	return p
}

// appendMember appends one member to members as an event keeps them.
func appendMember(members []byte, name any, value json.RawMessage) []byte {
	if len(members) > 0 {
		members = append(members, ',')
	}
	text, err := json.Marshal(name)
	if err != nil { // a string that was decoded a moment ago
		return members
	}
	members = append(append(members, text...), ':')
	return append(members, value...)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		problem.Write(w, problem.From(errors.Join(err)))
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
