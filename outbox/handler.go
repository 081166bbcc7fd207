package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/problem"
)

// maxBatchBody has room for a batch of the greatest size whose data comes as base64.
const maxBatchBody = event.MaxBatchBytes * 3 / 2

// ServePublish answers POST /outbox: one event. 202 means that it is on disk, 200 that it was already.
func (o *Outbox) ServePublish(w http.ResponseWriter, r *http.Request) {
	h, err := readHints(r)
	if err != nil {
		o.refuse(w, err)
		return
	}
	body, err := problem.ReadBody(w, r, int64(o.cfg.MaxEventBytes))
	if err != nil {
		o.refuse(w, err)
		return
	}
	ev, err := event.ParseEnvelope(body)
	if err == nil {
		err = h.identify(&ev)
	}
	if err == nil {
		err = o.complete(&ev, h, time.Now())
	}
	if err != nil {
		o.refuse(w, err)
		return
	}
	p := o.newPublication([]event.Event{ev})
	if err := o.publish(r.Context(), p); err != nil {
		o.refuse(w, err)
		return
	}
	it := &p.items[0]
	w.Header().Set("Location", "/outbox/events/"+url.PathEscape(it.event.ID))
	o.answer(w, p, o.appendResult(make([]byte, 0, 256), it))
}

// ServeBatch answers POST /outbox/batch: a JSON array of events, stored all or none.
func (o *Outbox) ServeBatch(w http.ResponseWriter, r *http.Request) {
	h, err := readHints(r)
	if err == nil && (h.id != "" || h.key != "") {
		err = problem.New("invalid_field", "Idempotency-Key and X-Event-Key speak of one event; in a batch each event has its own id and key")
	}
	if err != nil {
		o.refuse(w, err)
		return
	}
	body, err := problem.ReadBody(w, r, maxBatchBody)
	if err != nil {
		o.refuse(w, err)
		return
	}
	events, err := event.ParseBatch(body)
	if err == nil {
		err = o.completeAll(events, h)
	}
	if err != nil {
		o.refuse(w, err)
		return
	}
	p := o.newPublication(events)
	if err := o.publish(r.Context(), p); err != nil {
		o.refuse(w, err)
		return
	}
	out := append(make([]byte, 0, 16+160*len(p.items)), `{"results":[`...)
	for i := range p.items {
		if i > 0 {
			out = append(out, ',')
		}
		out = o.appendResult(out, &p.items[i])
	}
	o.answer(w, p, append(out, `]}`...))
}

// completeAll fills in all events of a batch; an error names the index.
func (o *Outbox) completeAll(events []event.Event, h hints) error {
	now := time.Now()
	for i := range events {
		if err := o.complete(&events[i], h, now); err != nil {
			return atIndex(err, i)
		}
	}
	return event.CheckBatchBytes(events)
}

func atIndex(err error, i int) error {
	if e, ok := errors.AsType[*event.Error](err); ok {
		e.Index = i
		return e
	}
	if p, ok := errors.AsType[*problem.Problem](err); ok {
		p.Index = &i
		return p
	}
	return err
}

// complete fills in what the app left out, and checks what it may say.
func (o *Outbox) complete(ev *event.Event, h hints, now time.Time) error {
	if h.traceparent != "" && ev.Traceparent() == "" {
		ev.Metadata = withMember(ev.Metadata, "traceparent", h.traceparent)
	}
	if err := ev.FillIn(event.Defaults{Now: now, Service: o.cfg.Service, CorrelationID: h.correlationID}); err != nil {
		return err
	}
	if ev.Source != o.cfg.Service && !slices.Contains(o.cfg.Sources, ev.Source) {
		p := problem.New("source_not_allowed",
			fmt.Sprintf("this is the sidecar of %q, which may not publish for %q; leave source out, or list it in outbox.sources", o.cfg.Service, ev.Source))
		p.Pointer = "/source"
		return p
	}
	if n := ev.StoredBytes(); n > o.cfg.MaxEventBytes {
		return problem.New("too_large", fmt.Sprintf("the event is %d bytes as stored, the limit is %d", n, o.cfg.MaxEventBytes))
	}
	return nil
}

// publish stores p, or says what is in the way.
func (o *Outbox) publish(ctx context.Context, p *publication) error {
	if o.bytes.Load()+int64(p.size) > o.cfg.MaxBytes {
		o.kickRetention()
		full := problem.New("backlog_full", fmt.Sprintf("the outbox holds %d bytes that are still owed or kept, its limit is %d", o.bytes.Load(), o.cfg.MaxBytes))
		full.RetryAfter = 5 * time.Second
		return full
	}
	err := p.store(ctx)
	if conflict, ok := errors.AsType[*conflictError](err); ok {
		return o.conflict(conflict, len(p.items) > 1)
	}
	return err
}

// conflict is the answer to an id that is taken.
func (o *Outbox) conflict(c *conflictError, batch bool) *problem.Problem {
	o.metrics.conflicts.Inc()
	p := problem.New("id_conflict", c.Error()+"; a repeat must send the same bytes, another event needs an id of its own")
	p.Pointer = "/id"
	if batch {
		p.Index = &c.index
	}
	p.Extra = map[string]any{}
	if c.seq != 0 {
		p.Extra["seq"] = c.seq
	}
	if !c.at.IsZero() {
		p.Extra["acceptedAt"] = c.at.Format(time.RFC3339Nano)
	}
	return p
}

// refuse answers a publish that was not accepted, and counts it.
func (o *Outbox) refuse(w http.ResponseWriter, err error) {
	p := problem.From(err)
	o.metrics.refused(p.Code).Inc()
	o.fail(w, p)
}

func (o *Outbox) fail(w http.ResponseWriter, p *problem.Problem) {
	if p.Logged() {
		o.log.Error("request was not served", "code", p.Code, "err", p.Unwrap())
	}
	problem.Write(w, p)
}

var (
	jsonType = []string{"application/json"}
	noStore  = []string{"no-store"}
)

// answer sends 202 if anything was new, else 200.
func (o *Outbox) answer(w http.ResponseWriter, p *publication, body []byte) {
	status := http.StatusOK
	for i := range p.items {
		if !p.items[i].duplicate {
			status = http.StatusAccepted
			break
		}
	}
	writeJSON(w, status, body)
}

func writeJSON(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	h["Content-Type"] = jsonType
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	// The caller that went away asks again, with the same id.
	_, _ = w.Write(body)
}

// ServeEvent answers GET /outbox/events/{id}: where an event is. ?source= names another source than this service.
func (o *Outbox) ServeEvent(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	st, ok, err := o.find(r.Context(), r.URL.Query().Get("source"), id)
	if err == nil && !ok {
		err = problem.New("not_found", fmt.Sprintf("no event with id %q was published here, or its id is no longer remembered", id))
	}
	var body []byte
	if err == nil {
		body, err = json.Marshal(st)
	}
	if err != nil {
		o.fail(w, problem.From(err))
		return
	}
	w.Header()["Cache-Control"] = noStore
	writeJSON(w, http.StatusOK, append(body, '\n'))
}
