package inbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/hooksidecar/hooksidecar/internal/backoff"
	"github.com/hooksidecar/hooksidecar/internal/deadletter"
	"github.com/hooksidecar/hooksidecar/internal/dial"
	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/signature"
)

const (
	maxDrainBytes     = 64 << 10 // of an answer that are read, so that its connection can be used again
	maxAnswerHeaders  = 32
	maxHeaderValue    = 256
	readinessTimeout  = 2 * time.Second
	eventContentType  = "application/json"
	headerAttempt     = "X-Delivery-Attempt"
	headerRedelivered = "X-Delivery-Redelivered"
)

// An appClient makes the requests to the app.
type appClient struct {
	client    *retryablehttp.Client
	transport http.RoundTripper
	owned     *dial.Direct // closed by close; nil if it came with the config
	secret    *signature.Secret
	urls      []string // by subscription
	readiness string
}

// A flight is one event on its way to the app.
type flight struct {
	seq         uint64
	sub         int
	attempt     int // requests that may have reached the app, this one included
	redelivered bool
	event       *received
}

func newAppClient(cfg *Config) (*appClient, error) {
	c := &appClient{transport: cfg.Transport, secret: cfg.App.Secret, readiness: cfg.App.ReadinessURL}
	if c.transport == nil {
		c.owned = dial.NewDirect(dial.Config{
			AllowLoopback: true, HeaderTimeout: -1, PerHost: cfg.App.Concurrency + 1, // one for the readiness URL
		})
		c.transport = c.owned
	}
	c.client = dial.NewClient(dial.ClientConfig{Transport: c.transport, Timeout: cfg.App.Timeout})
	base := strings.TrimSuffix(cfg.App.URL, "/")
	for _, s := range cfg.Subscriptions {
		target := base + s.Path
		if s.Path == "" {
			target = cfg.App.URL
		}
		if _, err := http.NewRequest(http.MethodPost, target, nil); err != nil {
			return nil, fmt.Errorf("path %q of the app: %w", s.Path, err)
		}
		c.urls = append(c.urls, target)
	}
	return c, nil
}

func (c *appClient) close() {
	if c.owned != nil {
		c.owned.Close()
	}
}

// forward makes one request and says what its answer means.
func (c *appClient) forward(ctx context.Context, fl *flight) answer {
	started := time.Now()
	a := c.send(ctx, fl, started)
	a.took = time.Since(started)
	return a
}

func (c *appClient) send(ctx context.Context, fl *flight, now time.Time) answer {
	e := &fl.event.event
	size := len(fl.event.attributes) + len(fl.event.data)
	if e.Binary() {
		size += len(fl.event.data)/3 + len(fl.event.data)/64
	}
	body := event.AppendEnvelope(make([]byte, 0, size+32), fl.event.attributes, fl.event.data, e.Binary())
	req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodPost, c.urls[fl.sub], body)
	if err != nil {
		return answer{class: classRetry, last: deadletter.Answer{Body: dial.Plain(err)}}
	}
	c.setHeaders(req.Header, fl, e, body, now)
	resp, err := c.client.Do(req)
	if err != nil {
		cl := classRetry
		if dial.NothingSent(err) {
			cl = classUnreachable
		}
		return answer{class: cl, last: deadletter.Answer{Body: dial.Plain(err)}}
	}
	defer resp.Body.Close()
	return readAnswer(resp, now)
}

func (c *appClient) setHeaders(h http.Header, fl *flight, e *event.Event, body []byte, now time.Time) {
	id := event.WebhookID(e.Source, e.ID)
	h["Content-Type"] = []string{eventContentType}
	h["User-Agent"] = []string{"hooksidecar"}
	h[signature.HeaderID] = []string{id}
	h[signature.HeaderTimestamp] = []string{strconv.FormatInt(now.Unix(), 10)}
	if c.secret != nil {
		signature.SetHeaders(h, *c.secret, id, now, body)
		h["X-Event-Signature"] = []string{signature.HexHMAC(*c.secret, body)}
	}
	h["X-Event-Id"] = []string{headerValue(e.ID)}
	h["X-Event-Type"] = []string{headerValue(e.Type)}
	h["X-Event-Source"] = []string{headerValue(e.Source)}
	if id := headerValue(e.CorrelationID()); id != "" {
		h["X-Correlation-Id"] = []string{id}
	}
	if parent := e.Traceparent(); isTraceparent(parent) {
		h["Traceparent"] = []string{parent}
	}
	h[headerAttempt] = []string{strconv.Itoa(fl.attempt)}
	if fl.redelivered {
		h[headerRedelivered] = []string{"true"}
	}
}

// readAnswer reads as much of an answer as is kept, and a bit more for the connection's sake.
func readAnswer(resp *http.Response, now time.Time) answer {
	kept, err := io.ReadAll(io.LimitReader(resp.Body, deadletter.MaxBodyBytes))
	if err == nil {
		_, err = io.CopyN(io.Discard, resp.Body, maxDrainBytes-deadletter.MaxBodyBytes)
	}
	last := deadletter.Answer{Status: resp.StatusCode, Header: answerHeaders(resp.Header), Body: string(kept)}
	if err != nil && !errors.Is(err, io.EOF) { // also of a 2xx: the app broke off in the middle
		last.Body = "the answer broke off: " + dial.Plain(err)
		return answer{class: classRetry, last: last}
	}
	wait, asked := backoff.ParseRetryAfter(resp.Header.Get("Retry-After"), now)
	return answer{class: classify(resp.StatusCode, asked), retryAfter: wait, last: last}
}

// answerHeaders returns what a letter keeps of an answer's headers.
func answerHeaders(h http.Header) map[string]string {
	kept := make(map[string]string, min(len(h), maxAnswerHeaders))
	for name, values := range h {
		if len(kept) == maxAnswerHeaders {
			break
		}
		if name == "Set-Cookie" || len(values) == 0 {
			continue
		}
		kept[name] = headerValue(values[0])
	}
	return kept
}

// ready asks the readiness URL.
func (c *appClient) ready(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, readinessTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.readiness, nil)
	if err != nil {
		return false
	}
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode >= 300 {
		return false
	}
	_, err = io.CopyN(io.Discard, resp.Body, maxDrainBytes)
	return err == nil || errors.Is(err, io.EOF)
}

// headerValue returns s as it can stand in a header: visible ASCII, bounded.
func headerValue(s string) string {
	s = s[:min(len(s), maxHeaderValue)]
	clean := func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}
	return strings.TrimSpace(strings.Map(clean, s))
}

// isTraceparent reports whether s is a trace context of W3C version 00: nothing else becomes a header.
func isTraceparent(s string) bool {
	const zeroTrace, zeroSpan = "00000000000000000000000000000000", "0000000000000000"
	if len(s) != 55 || s[:3] != "00-" || s[35] != '-' || s[52] != '-' || s[3:35] == zeroTrace || s[36:52] == zeroSpan {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return strings.Count(s, "-") == 3
}
