package inbox

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/problem"
	"github.com/hooksidecar/hooksidecar/internal/signature"
)

// maxBatchBody is the largest batch as it is sent: its events, and around each the frames.
const maxBatchBody = event.MaxBatchBytes + event.MaxBatchEvents*512 + event.MaxBatchHeaderBytes

// ServeBatch answers POST /inbox/batch: a batch of events from another sidecar. Cheap checks come first, and nothing that
// the sender claims is acted on before its signature is verified. A batch without events asks how its log stands: it is
// answered like any other, and nothing is written.
func (in *Inbox) ServeBatch(w http.ResponseWriter, r *http.Request) {
	a, id, err := in.readBatch(w, r)
	if err == nil {
		err = a.run(r.Context())
	}
	if err != nil {
		in.refuse(w, err)
		return
	}
	in.m.count(a.outcomes)
	in.reply(w, event.VerdictsContentType, id, in.answerBatch(a))
}

// reply answers 200 with a signed body; id is the webhook-id of the request.
func (in *Inbox) reply(w http.ResponseWriter, mediaType, id string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Cache-Control", "no-store")
	signature.SetHeaders(h, in.keys, id, time.Now(), body)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // who does not read the answer asks again
}

// readBatch reads, believes and decodes a request. id is its webhook-id.
func (in *Inbox) readBatch(w http.ResponseWriter, r *http.Request) (a *accept, id string, err error) {
	body, headers, err := in.readSigned(w, r, maxBatchBody, event.BatchContentType)
	if err != nil {
		return nil, "", err
	}
	head, rest, err := event.ReadBatchHeader(body)
	if err != nil {
		return nil, "", err
	}
	if head.To != in.cfg.Service {
		return nil, "", notAddressedHere(in.cfg.Service, head.To)
	}
	if err := in.verifyBatch(headers, r.Header, body, head.From.Service, time.Now()); err != nil {
		return nil, "", in.distrust(err, head.From.Service)
	}
	if err := in.checkLog(head.From); err != nil {
		return nil, "", err
	}
	a = &accept{in: in, from: head.From, cursor: head.Cursor}
	if err := a.readEvents(rest); err != nil {
		return nil, "", err
	}
	return a, headers.ID, nil
}

// readSigned reads a body whose headers are there, once each. Nothing is verified yet.
func (in *Inbox) readSigned(w http.ResponseWriter, r *http.Request, most int64, mediaType string) ([]byte, signature.Headers, error) {
	if r.ContentLength <= most { // else ReadBody says so, before anything is read
		if _, err := problem.CheckMediaType(r, mediaType); err != nil {
			return nil, signature.Headers{}, err
		}
	}
	body, err := problem.ReadBody(w, r, most)
	if err != nil {
		return nil, signature.Headers{}, err
	}
	headers, err := signature.HeadersFrom(r.Header)
	if err != nil {
		return nil, signature.Headers{}, in.distrust(err, "")
	}
	return body, headers, nil
}

// distrust counts and logs a request that could not be believed.
func (in *Inbox) distrust(err error, service string) error {
	reason := failureReason(err)
	in.m.distrusted(reason).Inc()
	in.log.Debug("request not believed", "reason", reason, "claimed_service", service)
	return err
}

// checkLog refuses a batch that names the log of another service.
func (in *Inbox) checkLog(from event.Party) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if s := in.senders[from.StoreID]; s != nil && s.service != from.Service {
		return problem.New("sender_not_allowed", "The store id in from belongs to another service.")
	}
	return nil
}

// readEvents decodes the events of a batch and decides what can be decided without the store.
func (a *accept) readEvents(rest []byte) error {
	for len(rest) > 0 {
		if len(a.events) == event.MaxBatchEvents {
			return problem.New("too_many_events", "A batch has at most "+strconv.Itoa(event.MaxBatchEvents)+" events.")
		}
		d, e, next, err := event.ReadDelivery(rest)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && next == nil {
			return err
		}
		rest = next
		c := candidate{
			seq: d.Seq, acceptedAt: d.AcceptedAt, redelivery: d.Redelivery || d.Attempt > 1,
			event: e, attributes: d.Attributes, digest: d.Digest,
		}
		if err != nil {
			c.reject(err)
		} else if err := a.in.screen(&c, a.from.Service); err != nil {
			return err
		}
		a.bytes += len(d.Attributes) + len(d.Data)
		a.events = append(a.events, c)
	}
	return nil
}

// reject decides about an event that breaks a rule. Its key, if it can be read, still holds back later ones.
func (c *candidate) reject(err error) {
	if e, parseErr := event.ParseAttributes(c.attributes); parseErr == nil {
		c.key = event.KeyHash(e.Source, e.Key)
	}
	p := problem.From(err)
	c.decide(event.Rejected, p.Code, p.Detail)
}

// screen decides what can be decided without the store: whether the event is wanted. That service may not send events of
// this source is no verdict about the event, but an error of the whole request: who may is a matter of configuration and
// of descriptors that are still on their way, so the sender has to wait.
func (in *Inbox) screen(c *candidate, service string) error {
	if !in.cfg.Peers.MaySpeakFor(service, c.event.Source) {
		return problem.New("source_not_allowed", "The descriptor of "+quoted(service)+", as this sidecar knows it, does not name the source "+
			quoted(c.event.Source)+"; nothing was stored. Add it to outbox.sources there; a newer descriptor may be on its way.")
	}
	c.hash = event.Hash(c.event.Source, c.event.ID)
	c.key = event.KeyHash(c.event.Source, c.event.Key)
	if in.cfg.subscriptionOf(c.event.Type, c.event.Version) < 0 {
		c.decide(event.Unwanted, "", "")
	}
	return nil
}

func (in *Inbox) answerBatch(a *accept) []byte {
	answer := event.BatchAnswer{
		Protocol: event.Protocol,
		From:     in.party(),
		To:       a.from.StoreID,
		Verdicts: a.outcomes,
		Clock:    time.Now().UTC(),
	}
	in.mu.Lock()
	if s := in.senders[a.from.StoreID]; s != nil {
		answer.Applied = s.applied(in.f.read)
		answer.OpenKeys, answer.OpenAll = s.openKeys(in.f.read)
	}
	in.mu.Unlock()
	return answer.Append(nil)
}

// refuse answers with a problem.
func (in *Inbox) refuse(w http.ResponseWriter, err error) {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		err = problem.New("store_slow", "The store did not take the request in time; nothing was stored. Send it again.")
	}
	p := problem.From(err)
	if p.Logged() {
		in.log.Error("request failed", "err", err)
	}
	problem.Write(w, p)
}

func notAddressedHere(service, to string) error {
	return problem.New("not_addressed_here", "This is the inbox of "+quoted(service)+", the request is addressed to "+quoted(to)+".")
}

// quoted returns a name from the wire for people, bounded.
func quoted(name string) string {
	return strconv.QuoteToASCII(name[:min(len(name), 128)])
}
