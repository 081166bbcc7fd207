package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// ErrUnreachable says that no sidecar answered.
var ErrUnreachable = errors.New("cannot reach the sidecar")

// A Refusal is an answer of the sidecar that is not what was asked for.
type Refusal struct {
	Status    int    `json:"status"`
	Code      string `json:"code"`
	Detail    string `json:"detail"`
	Pointer   string `json:"pointer"`
	Retryable bool   `json:"retryable"`
}

func (r *Refusal) Error() string {
	text := r.Detail
	if text == "" {
		text = http.StatusText(r.Status)
	}
	if r.Pointer != "" {
		text = r.Pointer + ": " + text
	}
	if r.Code == "" {
		return fmt.Sprintf("answer %d: %s", r.Status, text)
	}
	return r.Code + ": " + text
}

// NotFound reports whether the sidecar does not know what was asked about.
func (r *Refusal) NotFound() bool { return r.Status == http.StatusNotFound }

// maxAnswerBytes bounds what a client reads: a full page of dead letters with their last answers fits.
const maxAnswerBytes = 64 << 20

// An Endpoint is a listener of a sidecar, as a client sees it. Make it with NewEndpoint.
type Endpoint struct {
	address string // as it was given
	base    string
	token   string
	client  *http.Client
}

// NewEndpoint takes an http URL or unix:/path, and a bearer token or "". No proxy is used and no redirect followed.
func NewEndpoint(address, token string) (*Endpoint, error) {
	transport := &http.Transport{DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext, MaxIdleConnsPerHost: 4, ResponseHeaderTimeout: time.Minute}
	e := &Endpoint{address: address, token: token, client: &http.Client{
		Transport:     transport,
		Timeout:       time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		if !strings.HasPrefix(path, "/") {
			return nil, fmt.Errorf("%q: a unix socket needs an absolute path", address)
		}
		e.base = "http://localhost"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}
		return e, nil
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		return nil, fmt.Errorf("%q is not an address: write http://host:port or unix:/path", address)
	}
	e.base = u.Scheme + "://" + u.Host
	return e, nil
}

// Do sends body, if it is not nil, and decodes a 2xx answer into out, if that is not nil. Other answers are a *Refusal,
// no answer is ErrUnreachable.
func (e *Endpoint) Do(ctx context.Context, method, path string, header http.Header, body []byte, out any) error {
	resp, err := e.send(ctx, e.client, method, path, header, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	if err != nil {
		return fmt.Errorf("%w at %s: %w", ErrUnreachable, e.address, err)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("read the answer of %s: %w", e.address, err)
	}
	return nil
}

// Copy asks for path and writes the answer to w, however long that takes. An error after some of it was written means that
// the rest is missing.
func (e *Endpoint) Copy(ctx context.Context, path string, w io.Writer) (int64, error) {
	patient := *e.client
	patient.Timeout = 0
	resp, err := e.send(ctx, &patient, http.MethodGet, path, nil, nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	n, err := io.Copy(w, resp.Body)
	if ctx.Err() != nil {
		return n, ctx.Err()
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%s broke off after %d bytes; its log says why", e.address, n)
	}
	return n, err
}

// send returns an answer that is 2xx; the caller closes its body.
func (e *Endpoint) send(ctx context.Context, client *http.Client, method, path string, header http.Header, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, e.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	for name, values := range header {
		req.Header[name] = values
	}
	if body != nil && req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if e.token != "" {
		req.Header.Set("Authorization", "Bearer "+e.token)
	}
	resp, err := client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%w at %s: %w", ErrUnreachable, e.address, cause(err))
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	if err != nil {
		return nil, fmt.Errorf("%w at %s: %w", ErrUnreachable, e.address, err)
	}
	refusal := &Refusal{}
	if json.Unmarshal(text, refusal) != nil || refusal.Code == "" {
		refusal = &Refusal{Detail: fmt.Sprintf("%s does not speak this API: is it the address of a sidecar?", e.address)}
	}
	refusal.Status = resp.StatusCode
	return nil, refusal
}

// cause takes method and URL off an error of net/http: the address is told already.
func cause(err error) error {
	if ue, ok := errors.AsType[*url.Error](err); ok {
		return ue.Err
	}
	return err
}
