package gossip

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/hooksidecar/hooksidecar/internal/dial"
	"github.com/hooksidecar/hooksidecar/internal/problem"
)

const (
	descriptorPath = "/peer/v1/descriptor"
	mediaType      = "application/json"
)

// maxSignedBytes is a Signed as JSON: the payload grows by a third, signatures and names come on top.
const maxSignedBytes = MaxDescriptorBytes*4/3 + 8<<10

// rejectedError says that the other side does not take our descriptor.
type rejectedError struct{ detail string }

func (e *rejectedError) Error() string { return "the peer does not take our descriptor: " + e.detail }

// exchangeOver exchanges descriptors over a link and keeps how that went.
func (d *Directory) exchangeOver(ctx context.Context, l *link) error {
	err := d.exchange(ctx, l.url, origin{via: l.url, from: l.url}, l)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	_, refused := errors.AsType[*RefusedError](err)
	_, rejected := errors.AsType[*rejectedError](err)
	switch {
	case err == nil:
		d.metrics.exchanged.Inc()
	case refused || rejected:
		d.metrics.rejected.Inc()
	default:
		d.metrics.failed.Inc()
	}
	if news := l.note(err, refused || rejected); news && err != nil {
		d.cfg.Log.Warn("exchange with peer failed, will retry", "url", l.url, "err", dial.Plain(err))
	}
	return err
}

// exchange posts our descriptor and takes the answer. If ours is not wanted it still asks for theirs.
func (d *Directory) exchange(ctx context.Context, url string, from origin, l *link) error {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Timeout)
	defer cancel()
	body, err := json.Marshal(d.cfg.Self().Seal(d.cfg.Keys))
	if err != nil {
		return err
	}
	answer, err := d.ask(ctx, http.MethodPost, url, body)
	rejected, isRejected := errors.AsType[*rejectedError](err)
	if isRejected {
		answer, err = d.ask(ctx, http.MethodGet, url, nil)
	}
	if err != nil {
		return err
	}
	signed, desc, err := decode(answer)
	if err != nil {
		d.metrics.invalid.Inc()
		return err
	}
	result, err := d.take(ctx, signed, desc, from)
	if err != nil {
		return err
	}
	if l != nil {
		l.mu.Lock()
		l.service, l.instance, l.echoes = desc.Service, desc.Instance, result == echo
		l.mu.Unlock()
	}
	if isRejected {
		return rejected
	}
	return nil
}

// ask makes one request for a descriptor. An answer that refuses ours is a *rejectedError.
func (d *Directory) ask(ctx context.Context, method, url string, body []byte) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, url+descriptorPath, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", mediaType)
	if body != nil {
		r.Header.Set("Content-Type", mediaType)
	}
	client := http.Client{Transport: d.cfg.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	answer, cut, err := dial.ReadAnswer(resp.Body, maxSignedBytes)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, unexpected(resp, answer, method)
	}
	if cut {
		return nil, fmt.Errorf("%w: larger than %d bytes", ErrDescriptor, maxSignedBytes)
	}
	return answer, nil
}

// unexpected says what answered instead of a descriptor.
func unexpected(resp *http.Response, answer []byte, method string) error {
	var p struct{ Code, Detail string }
	if resp.Header.Get("Content-Type") != problem.MediaType || json.Unmarshal(answer, &p) != nil {
		return fmt.Errorf("answered %d: is this the peer listener of a hooksidecar?", resp.StatusCode)
	}
	if method == http.MethodPost && resp.StatusCode < 500 {
		return &rejectedError{detail: fmt.Sprintf("%s: %.1000s", p.Code, p.Detail)}
	}
	return fmt.Errorf("answered %d %.80s: %.300s", resp.StatusCode, p.Code, p.Detail)
}

// decode reads a Signed and opens it.
func decode(b []byte) (Signed, Descriptor, error) {
	var s Signed
	if err := checkJSON(b); err != nil {
		return s, Descriptor{}, fmt.Errorf("%w: %w", ErrDescriptor, err)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, Descriptor{}, fmt.Errorf("%w: %w", ErrDescriptor, err)
	}
	desc, err := Open(s)
	return s, desc, err
}
