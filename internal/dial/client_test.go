package dial

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

// server starts one on loopback and counts the connections that are made to it.
func server(t *testing.T, h http.HandlerFunc) (url string, conns *atomic.Int32) {
	t.Helper()
	conns = new(atomic.Int32)
	s := httptest.NewUnstartedServer(h)
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	return s.URL, conns
}

// deadURL is where nobody listens.
func deadURL(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

func client(t *testing.T, prepare func(*http.Request) error) *retryablehttp.Client {
	t.Helper()
	tr := NewTransport(Config{AllowLoopback: true})
	t.Cleanup(tr.Close)
	return NewClient(ClientConfig{Transport: tr, Timeout: 5 * time.Second, Prepare: prepare})
}

// post sends body and returns the status, 0 with an error.
func post(t *testing.T, c *retryablehttp.Client, url, body string) (int, error) {
	t.Helper()
	r, err := retryablehttp.NewRequestWithContext(t.Context(), "POST", url, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(r)
	if err != nil {
		return 0, err
	}
	if _, _, err := ReadAnswer(resp.Body, 1<<10); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, nil
}

func TestAFailingPeerCostsOthersNoConnections(t *testing.T) {
	good, conns := server(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) })
	bad, _ := server(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	cutting, _ := server(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	dead := deadURL(t)
	c := client(t, nil)
	for range 5 {
		for _, url := range []string{bad, cutting, dead} {
			_, _ = post(t, c, url, "x")
		}
		if status, err := post(t, c, good, "x"); status != 204 {
			t.Fatalf("healthy peer: %d, %v", status, err)
		}
	}
	if got := conns.Load(); got != 1 {
		t.Errorf("%d connections to the healthy peer, want 1", got)
	}
}

func TestRedirectsAreAnswers(t *testing.T) {
	var reached atomic.Bool
	target, _ := server(t, func(http.ResponseWriter, *http.Request) { reached.Store(true) })
	url, _ := server(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, target, http.StatusTemporaryRedirect)
	})
	status, err := post(t, client(t, nil), url, "x")
	if status != 307 || err != nil || reached.Load() {
		t.Errorf("got %d, %v, followed %t, want 307", status, err, reached.Load())
	}
}

func TestAnswersAreNeverRepeated(t *testing.T) {
	for _, want := range []int{200, 429, 500, 503} {
		var asked atomic.Int32
		url, _ := server(t, func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			w.Header().Set("Retry-After", "99999999999")
			w.WriteHeader(want)
		})
		got, err := post(t, client(t, nil), url, "x")
		if got != want || err != nil || asked.Load() != 1 {
			t.Errorf("got %d, %v after %d requests, want %d after one", got, err, asked.Load(), want)
		}
	}
}

func TestWhatMayHaveArrivedIsNotRepeated(t *testing.T) {
	var asked atomic.Int32
	url, _ := server(t, func(_ http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		panic(http.ErrAbortHandler)
	})
	_, err := post(t, client(t, nil), url, "x")
	if err == nil || NothingSent(err) || NobodyListens(err) || asked.Load() != 1 {
		t.Errorf("got %v after %d requests, want an unknown outcome after one", err, asked.Load())
	}
}

// lateTransport fails to dial some times, then works.
type lateTransport struct {
	next  http.RoundTripper
	fails atomic.Int32
}

func (l *lateTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if l.fails.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	return l.next.RoundTrip(r)
}

func TestWhatWasNotSentIsRepeatedOnceSignedAfresh(t *testing.T) {
	for fails, want := range map[int32]int{0: 204, 1: 204, 2: 0} {
		var bodies bytes.Buffer
		var signature string
		url, _ := server(t, func(w http.ResponseWriter, r *http.Request) {
			signature = r.Header.Get("Webhook-Signature")
			_, _ = io.Copy(&bodies, r.Body)
			w.WriteHeader(204)
		})
		tr := NewTransport(Config{AllowLoopback: true})
		defer tr.Close()
		late := &lateTransport{next: tr}
		late.fails.Store(fails)
		prepared := int32(0)
		c := NewClient(ClientConfig{Transport: late, Prepare: func(r *http.Request) error {
			prepared++
			r.Header.Set("Webhook-Signature", "fresh")
			return nil
		}})
		status, err := post(t, c, url, "once")
		if status != want || (want == 0) != NobodyListens(err) {
			t.Errorf("%d failures: got %d, %v, want %d", fails, status, err, want)
		}
		if prepared != min(fails, 1) {
			t.Errorf("%d failures: prepared %d times", fails, prepared)
		}
		if want != 0 && (bodies.String() != "once" || (signature == "fresh") != (fails == 1)) {
			t.Errorf("%d failures: arrived %q signed %q", fails, bodies.String(), signature)
		}
	}
}

func TestNothingIsRepeatedAfterTheContextEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := retryablehttp.NewRequestWithContext(ctx, "POST", deadURL(t), []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client(t, nil).Do(r); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

func TestTransportAddsNothing(t *testing.T) {
	var got http.Header
	url, _ := server(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Header
		http.SetCookie(w, &http.Cookie{Name: "a", Value: "b"})
	})
	c := client(t, nil)
	for range 2 {
		if status, err := post(t, c, url, "x"); status != 200 {
			t.Fatal(status, err)
		}
	}
	for _, name := range []string{"Accept-Encoding", "Cookie", "Referer"} {
		if v := got.Get(name); v != "" {
			t.Errorf("%s: %s was sent", name, v)
		}
	}
	if tr := NewTransport(Config{}); tr.inner.Proxy != nil {
		t.Error("requests may go to a proxy")
	}
}

func TestAnswersAreBounded(t *testing.T) {
	url, _ := server(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/headers":
			w.Header().Set("X-Large", strings.Repeat("x", 64<<10))
		case "/silent":
			_, _ = io.Copy(io.Discard, r.Body) // only then does the server notice that the client is gone
			<-r.Context().Done()
		}
	})
	tr := NewTransport(Config{AllowLoopback: true, HeaderTimeout: 50 * time.Millisecond})
	defer tr.Close()
	for _, path := range []string{"/headers", "/silent"} {
		c := NewClient(ClientConfig{Transport: tr})
		if status, err := post(t, c, url+path, ""); err == nil || NothingSent(err) {
			t.Errorf("%s: got %d, %v, want an unknown outcome", path, status, err)
		}
	}
}

// A peer that switches protocols and then says nothing holds nobody up: by the client, and by the transport alone.
func TestSwitchedProtocolIsAnError(t *testing.T) {
	left := make(chan struct{}, 2)
	url, _ := server(t, func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		defer c.Close()
		_, _ = c.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"))
		_, _ = c.Read(make([]byte, 1)) // until the client hangs up
		left <- struct{}{}
	})
	if status, err := post(t, client(t, nil), url, "x"); !errors.Is(err, ErrSwitched) || NothingSent(err) {
		t.Errorf("by the client: %d, %v, want %v", status, err, ErrSwitched)
	}
	<-left
	tr := NewTransport(Config{AllowLoopback: true})
	defer tr.Close()
	r, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := tr.RoundTrip(r); !errors.Is(err, ErrSwitched) || resp != nil {
		t.Errorf("by the transport: %v, want %v", err, ErrSwitched)
	}
	<-left
}

func TestReadAnswer(t *testing.T) {
	for _, row := range []struct {
		size, limit int64
		cut         bool
	}{{0, 5, false}, {5, 5, false}, {6, 5, true}, {10 << 20, 5, true}} {
		body := &closer{Reader: io.LimitReader(zeros{}, row.size)}
		got, cut, err := ReadAnswer(body, row.limit)
		if int64(len(got)) != min(row.size, row.limit) || cut != row.cut || err != nil || !body.closed {
			t.Errorf("%d of %d: got %d bytes, cut %t, %v, closed %t", row.limit, row.size, len(got), cut, err, body.closed)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

type closer struct {
	io.Reader
	closed bool
}

func (c *closer) Close() error { c.closed = true; return nil }

func TestOutcomes(t *testing.T) {
	dialError := func(err error) error {
		return fmt.Errorf("post: %w", &net.OpError{Op: "dial", Net: "tcp", Err: err})
	}
	for name, row := range map[string]struct {
		err                 error
		unsent, nobodyThere bool
	}{
		"nil":                {nil, false, false},
		"refused":            {dialError(syscall.ECONNREFUSED), true, true},
		"no route":           {dialError(syscall.EHOSTUNREACH), true, true},
		"no such name":       {dialError(&net.DNSError{IsNotFound: true}), true, true},
		"no dns server":      {&net.DNSError{IsTemporary: true}, true, true},
		"dial timed out":     {dialError(context.DeadlineExceeded), true, false},
		"too many files":     {dialError(syscall.EMFILE), true, false},
		"reset":              {&net.OpError{Op: "read", Err: syscall.ECONNRESET}, false, false},
		"refused by a write": {&net.OpError{Op: "write", Err: syscall.EPIPE}, false, false},
		"answer timed out":   {context.DeadlineExceeded, false, false},
		"cut":                {io.ErrUnexpectedEOF, false, false},
	} {
		if got := NothingSent(row.err); got != row.unsent {
			t.Errorf("%s: nothing sent %t, want %t", name, got, row.unsent)
		}
		if got := NobodyListens(row.err); got != row.nobodyThere {
			t.Errorf("%s: nobody listens %t, want %t", name, got, row.nobodyThere)
		}
	}
	if _, err := post(t, client(t, nil), deadURL(t), "x"); !NobodyListens(err) {
		t.Errorf("a real refusal is not known as one: %v", err)
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}}
	s.Start()
	tr := NewTransport(Config{UnixSocket: path})
	c := NewClient(ClientConfig{Transport: tr})
	if status, err := post(t, c, "http://app.invalid/x", ""); status != 200 {
		t.Errorf("got %d, %v", status, err)
	}
	tr.Close()
	s.Close()
	if _, err := post(t, c, "http://app.invalid/x", ""); !NobodyListens(err) {
		t.Errorf("without a socket: got %v", err)
	}
}

func TestPlainShowsNoURL(t *testing.T) {
	_, err := post(t, client(t, nil), strings.Replace(deadURL(t), "http://", "http://user:secret@", 1)+"/?token=secret", "")
	if got := Plain(err); strings.Contains(got, "secret") || !strings.Contains(got, "refused") {
		t.Errorf("got %q", got)
	}
}
