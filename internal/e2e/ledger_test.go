package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"
)

// outcome is what a producer knows about an event that it posted.
type outcome string

const (
	acknowledged outcome = "acknowledged" // 202 or 200
	refused      outcome = "refused"      // every answer was a refusal
	unknown      outcome = "unknown"      // at least one request had no answer, and none was acknowledged
)

// A posted is one event as its producer knows it.
type posted struct {
	Source, ID, Type, Key string
	Data                  string // the bytes of data
	Outcome               outcome
	Seq                   uint64
}

// A ledger is what the producers of a test were told, in the order of the answers: the order of publishing within a
// key, as long as one producer posts the key and waits for each answer.
type ledger struct {
	mu   sync.Mutex
	list []posted
}

func (l *ledger) add(p posted) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, p)
}

func (l *ledger) all() []posted {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]posted(nil), l.list...)
}

// A producer is an app that posts to its sidecar as the documents tell it to: no answer, or a refusal that
// may be repeated, is repeated with the same id.
type producer struct {
	t      *testing.T
	to     *sidecar
	ledger *ledger
	client *http.Client
}

func newProducer(t *testing.T, to *sidecar) *producer {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 64
	t.Cleanup(transport.CloseIdleConnections)
	return &producer{t: t, to: to, ledger: &ledger{}, client: &http.Client{Transport: transport, Timeout: slowdown(10 * time.Second)}}
}

// envelope is what a test posts. Data is JSON text.
type envelope struct {
	ID       string          `json:"id,omitempty"`
	Type     string          `json:"type"`
	Version  string          `json:"version,omitempty"`
	Key      string          `json:"key,omitempty"`
	Data     json.RawMessage `json:"data"`
	Metadata map[string]any  `json:"metadata,omitempty"`
}

// accepted is the answer to a publish.
type accepted struct {
	ID            string   `json:"id"`
	Seq           uint64   `json:"seq"`
	CorrelationID string   `json:"correlationId"`
	Duplicate     bool     `json:"duplicate"`
	Subscribers   []string `json:"subscribers"`
}

// reply is an answer of a sidecar.
type reply struct {
	status int
	header http.Header
	body   []byte
	problem
	accepted accepted
}

// problem is the part of a problem body that tests look at.
type problem struct {
	Code      string `json:"code"`
	Detail    string `json:"detail"`
	Pointer   string `json:"pointer"`
	Retryable bool   `json:"retryable"`
	Index     *int   `json:"index"`
}

func (r reply) String() string { return fmt.Sprintf("%d %s", r.status, r.body) }

// post sends a body once. An error means: no answer.
func (p *producer) post(ctx context.Context, path string, body []byte) (reply, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.to.appURL()+path, bytes.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.GetBody = nil // the client must not repeat by itself: a lost answer is to be seen
	resp, err := p.client.Do(req)
	if err != nil {
		return reply{}, err
	}
	return readReply(resp)
}

func readReply(resp *http.Response) (reply, error) {
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return reply{}, err
	}
	r := reply{status: resp.StatusCode, header: resp.Header, body: body}
	if resp.StatusCode/100 == 2 {
		_ = json.Unmarshal(body, &r.accepted)
	} else {
		_ = json.Unmarshal(body, &r.problem)
	}
	return r, nil
}

// send posts an envelope once and fails the test when there is no answer.
func (p *producer) send(e envelope) reply {
	p.t.Helper()
	return p.sendRaw("/outbox", mustJSON(p.t, e))
}

func (p *producer) sendRaw(path string, body []byte) reply {
	p.t.Helper()
	r, err := p.post(p.t.Context(), path, body)
	if err != nil {
		p.t.Fatalf("POST %s: %v", path, err)
	}
	return r
}

// publish posts an event until it is acknowledged, refused for good, or ctx ends, and writes the outcome down.
func (p *producer) publish(ctx context.Context, e envelope) posted {
	body, err := json.Marshal(e)
	if err != nil {
		p.t.Error(err)
		return posted{}
	}
	rec := posted{Source: p.to.settings.service, ID: e.ID, Type: e.Type, Key: e.Key, Data: string(e.Data), Outcome: refused}
	for ctx.Err() == nil {
		r, err := p.post(ctx, "/outbox", body)
		switch {
		case err != nil && !neverSent(err):
			rec.Outcome = unknown
		case err != nil:
		case r.status/100 == 2:
			rec.Outcome, rec.Seq = acknowledged, r.accepted.Seq
		case r.status == http.StatusInternalServerError:
			rec.Outcome = unknown
		}
		final := err == nil && r.status/100 == 4 && r.status != http.StatusTooManyRequests && r.status != http.StatusRequestTimeout
		if rec.Outcome == acknowledged || final {
			break
		}
		wait(ctx, 10*time.Millisecond)
	}
	p.ledger.add(rec)
	return rec
}

// mustPublish publishes and fails the test unless the event is acknowledged soon.
func (p *producer) mustPublish(e envelope) posted {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), slowdown(10*time.Second))
	defer cancel()
	rec := p.publish(ctx, e)
	if rec.Outcome != acknowledged {
		p.t.Fatalf("event %s was %s", e.ID, rec.Outcome)
	}
	return rec
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
