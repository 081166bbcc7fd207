package admin

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

func answering(t *testing.T, status int, contentType, body string) *Client {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got, want := r.Header.Get("Authorization"), "Bearer the-token"; got != want {
			t.Errorf("Authorization is %q, want %q", got, want)
		}
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(s.Close)
	c, err := NewClient(s.URL, "the-token")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestClientTellsRefusals(t *testing.T) {
	c := answering(t, 404, "application/problem+json", `{"status":200,"code":"not_found","detail":"no event x","pointer":""}`)
	_, err := c.Event(t.Context(), "", "x")
	refusal, ok := errors.AsType[*Refusal](err)
	if !ok || !refusal.NotFound() || refusal.Error() != "not_found: no event x" {
		t.Errorf("got %v: want the problem, with the status of the answer and not of the body", err)
	}
}

func TestClientKnowsAStranger(t *testing.T) {
	for _, status := range []int{404, 301, 500} {
		c := answering(t, status, "text/html", "<html>")
		_, err := c.Status(t.Context())
		if refusal, ok := errors.AsType[*Refusal](err); !ok || refusal.Status != status || !strings.Contains(err.Error(), "is it the address of a sidecar?") {
			t.Errorf("status %d: got %v", status, err)
		}
	}
	if _, err := answering(t, 200, "text/html", "<html>").Status(t.Context()); err == nil {
		t.Error("a page was taken for a status")
	}
}

func TestClientCannotReach(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "http://" + l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{nobody, "unix:" + filepath.Join(t.TempDir(), "absent.sock")} {
		c, err := NewClient(address, "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Status(t.Context()); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), address) {
			t.Errorf("got %v, want ErrUnreachable that names %s", err, address)
		}
	}
}

func TestAddresses(t *testing.T) {
	for _, bad := range []string{"", "localhost:9903", "ftp://localhost", "http://", "http://user:pw@localhost:1", "http://localhost:1/path", "http://localhost:1?x", "unix:relative"} {
		if _, err := NewEndpoint(bad, ""); err == nil {
			t.Errorf("%q was taken for an address", bad)
		}
	}
	for _, good := range []string{"http://localhost:9903", "http://[::1]:9903/", "https://admin.example", "unix:/run/admin.sock"} {
		if _, err := NewEndpoint(good, ""); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
}
