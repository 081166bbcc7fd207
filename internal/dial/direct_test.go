package dial_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/dial"
)

func newDirect(t *testing.T) *dial.Direct {
	t.Helper()
	d := dial.NewDirect(dial.Config{AllowLoopback: true})
	t.Cleanup(d.Close)
	return d
}

func post(ctx context.Context, rt http.RoundTripper, url string, body []byte) (int, string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	resp, err := rt.RoundTrip(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(got), err
}

// scripted answers every connection with the given bytes once it has read a request's headers and, if read is set, its body.
func scripted(t *testing.T, read bool, answer string, thenClose bool) (url string, connections *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	connections = new(atomic.Int32)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			t.Cleanup(func() { c.Close() })
			go func() {
				in := bufio.NewReader(c)
				for {
					r, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					if read {
						_, _ = io.Copy(io.Discard, r.Body)
					}
					_, _ = io.WriteString(c, answer)
					if thenClose {
						c.Close()
						return
					}
				}
			}()
		}
	}()
	return "http://" + l.Addr().String(), connections
}

func TestDirectKeepsItsConnection(t *testing.T) {
	var remote [2]string
	n := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		remote[n%2] = r.RemoteAddr
		n++
		fmt.Fprintf(w, "%s %s %d", r.Method, r.Header.Get("X-Event-Id"), len(body))
	}))
	defer s.Close()
	d := newDirect(t)
	for range 2 {
		code, got, err := post(t.Context(), d, s.URL+"/events", make([]byte, 100_000))
		if err != nil || code != 200 || got != "POST  100000" {
			t.Fatalf("got %d %q %v", code, got, err)
		}
	}
	if remote[0] != remote[1] {
		t.Errorf("connections from %s and %s, want the same twice", remote[0], remote[1])
	}
}

func TestDirectNoticesAClosedConnection(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	closed := make(chan struct{})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			}
			c.Close()
			closed <- struct{}{}
		}
	}()
	d := newDirect(t)
	for i := range 50 {
		if code, _, err := post(t.Context(), d, "http://"+l.Addr().String(), nil); err != nil || code != 200 {
			t.Fatalf("request %d: %d %v", i, code, err)
		}
		<-closed
	}
}

func TestDirectAnswers(t *testing.T) {
	long := strings.Repeat("x", 40_000)
	tests := []struct {
		name, answer string
		code         int
		body, err    string
	}{
		{"interim answers first", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", 204, "", ""},
		{"interim answers only", strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 50), 0, "", "interim"},
		{"another protocol", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", 0, "", "Switching Protocols"},
		{"redirect", "HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", 302, "", ""},
		{"chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 200, "abc", ""},
		{"long body", "HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n" + long, 200, long, ""},
		{"until the end", "HTTP/1.0 200 OK\r\n\r\nabc", 200, "abc", ""},
		{"broken off", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", 200, "abc", "unexpected EOF"},
		{"endless headers", "HTTP/1.1 200 OK\r\nX: " + long + "\r\n\r\n", 0, "", "too long"},
		{"no HTTP", "hello\r\n\r\n", 0, "", "malformed"},
		{"nothing", "", 0, "", "EOF"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			url, _ := scripted(t, true, tt.answer, true)
			code, body, err := post(t.Context(), newDirect(t), url, []byte("{}"))
			if code != tt.code || body != tt.body {
				t.Errorf("got %d and %d bytes, want %d and %d", code, len(body), tt.code, len(tt.body))
			}
			if (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("err %v, want one with %q", err, tt.err)
			}
			if dial.NothingSent(err) {
				t.Errorf("%v counts as nothing sent, but the server had the request", err)
			}
		})
	}
}

func TestDirectDoesNotReuseWhatHasLeftovers(t *testing.T) {
	url, connections := scripted(t, true, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 500 Forged\r\nContent-Length: 0\r\n\r\n", false)
	d := newDirect(t)
	for range 3 {
		if code, _, err := post(t.Context(), d, url, nil); err != nil || code != 200 {
			t.Fatalf("got %d, %v: an answer that nobody asked for was taken for the next one", code, err)
		}
	}
	if got := connections.Load(); got != 3 {
		t.Errorf("%d connections, want 3", got)
	}
}

func TestDirectHearsARefusalBeforeAllIsSent(t *testing.T) {
	url, _ := scripted(t, false, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", false)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	code, _, err := post(ctx, newDirect(t), url, make([]byte, 64<<10))
	if err != nil || code != 413 {
		t.Errorf("got %d, %v, want 413", code, err)
	}
}

func TestDirectEndsWithItsContext(t *testing.T) {
	tests := []struct{ name, answer string }{
		{"before the answer", ""},
		{"in its headers", "HTTP/1.1 200 OK\r\nX-"},
		{"in its body", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			url, _ := scripted(t, true, tt.answer, false)
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			_, _, err := post(ctx, newDirect(t), url, []byte("{}"))
			var timeout interface{ Timeout() bool }
			if !errors.As(err, &timeout) || !timeout.Timeout() {
				t.Errorf("got %v, want a time-out", err)
			}
		})
	}
}

func TestDirectNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	_, _, err = post(t.Context(), newDirect(t), "http://"+l.Addr().String(), nil)
	if !dial.NothingSent(err) || !dial.NobodyListens(err) {
		t.Errorf("got %v, want one that says that nobody listens", err)
	}
}

func TestDirectMinds(t *testing.T) {
	_, _, err := post(t.Context(), newDirect(t), "http://169.254.169.254/latest", nil)
	if _, ok := errors.AsType[*dial.ForbiddenError](err); !ok {
		t.Errorf("got %v, want the guard's refusal", err)
	}
}

// BenchmarkDirect and BenchmarkTransport post 1 KiB to a server of the same process.
func BenchmarkDirect(b *testing.B) {
	benchmarkPost(b, dial.NewDirect(dial.Config{AllowLoopback: true}))
}

func BenchmarkTransport(b *testing.B) {
	benchmarkPost(b, dial.NewTransport(dial.Config{AllowLoopback: true, PerHost: 64}))
}

func benchmarkPost(b *testing.B, rt http.RoundTripper) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	defer s.Close()
	body := make([]byte, 1024)
	b.ReportAllocs()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if code, _, err := post(context.Background(), rt, s.URL, body); err != nil || code != 200 {
				b.Error(code, err)
				return
			}
		}
	})
}
