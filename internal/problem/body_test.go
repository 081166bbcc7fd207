package problem

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// serve starts a server whose handler reads bodies of at most limit bytes and answers with their length.
func serve(t *testing.T, limit int64) *httptest.Server {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := ReadBody(w, r, limit)
		if err != nil {
			Write(w, From(err))
			return
		}
		fmt.Fprintf(w, "%d bytes, last %q", len(body), body[max(len(body)-1, 0):])
	}))
	s.Config.ReadTimeout = 300 * time.Millisecond
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// talk sends raw bytes on a new connection, closes the sending half if told, and returns the answer.
func talk(t *testing.T, s *httptest.Server, raw string, fin bool) (status int, body string, closed bool) {
	t.Helper()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, raw); err != nil {
		t.Fatal(err)
	}
	if fin {
		_ = conn.(*net.TCPConn).CloseWrite()
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp.Close
}

func TestReadBodyOverTheWire(t *testing.T) {
	s := serve(t, 200_000)
	const head = "POST / HTTP/1.1\r\nHost: a\r\n"
	large := strings.Repeat("x", 199_999) + "y"
	for name, row := range map[string]struct {
		raw    string
		fin    bool
		status int
		says   string
		closed bool
	}{
		"empty":               {head + "Content-Length: 0\r\n\r\n", false, 200, "0 bytes", false},
		"none":                {head + "\r\n", false, 200, "0 bytes", false},
		"small":               {head + "Content-Length: 3\r\n\r\nabc", false, 200, `3 bytes, last "c"`, false},
		"exactly the limit":   {head + "Content-Length: 200000\r\n\r\n" + large, false, 200, `200000 bytes, last "y"`, false},
		"chunked":             {head + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n", false, 200, `4 bytes, last "d"`, false},
		"chunked, the limit":  {head + "Transfer-Encoding: chunked\r\n\r\n30d40\r\n" + large + "\r\n0\r\n\r\n", false, 200, "200000 bytes", false},
		"chunked, over":       {head + "Transfer-Encoding: chunked\r\n\r\n30d41\r\n" + large + "z\r\n0\r\n\r\n", false, 413, "too_large", true},
		"announced over":      {head + "Content-Length: 200001\r\n\r\n", false, 413, "too_large", true},
		"short, then closed":  {head + "Content-Length: 10\r\n\r\nabc", true, 400, "truncated_body", true},
		"large, then closed":  {head + "Content-Length: 199999\r\n\r\n" + large[:100_000], true, 400, "truncated_body", true},
		"short, then silence": {head + "Content-Length: 10\r\n\r\nabc", false, 408, "body_timeout", true},
		"bad chunk":           {head + "Transfer-Encoding: chunked\r\n\r\nZZ\r\nabc\r\n", false, 400, "truncated_body", true},
		"gzip":                {head + "Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", false, 415, "unsupported_encoding", true},
		"gzip second":         {head + "Content-Encoding: identity\r\nContent-Encoding: br\r\nContent-Length: 3\r\n\r\nabc", false, 415, "unsupported_encoding", true},
		"identity":            {head + "Content-Encoding: Identity\r\nContent-Length: 3\r\n\r\nabc", false, 200, "3 bytes", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			status, body, closed := talk(t, s, row.raw, row.fin)
			if status != row.status || !strings.Contains(body, row.says) {
				t.Errorf("got %d %s, want %d %s", status, body, row.status, row.says)
			}
			if closed != row.closed {
				t.Errorf("connection closed %t, want %t", closed, row.closed)
			}
		})
	}
}

func TestReadBodyDoesNotTrustContentLength(t *testing.T) {
	var most int
	body := readerFunc(func(p []byte) (int, error) {
		most = max(most, len(p))
		return 0, io.ErrUnexpectedEOF
	})
	r := httptest.NewRequest("POST", "/", body)
	r.ContentLength = 1 << 30
	if _, err := ReadBody(httptest.NewRecorder(), r, 1<<31); err == nil {
		t.Error("a body that failed was read")
	}
	if most == 0 || most > 2*firstRead {
		t.Errorf("%d bytes set aside before anything arrived", most)
	}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestCheckMediaType(t *testing.T) {
	const batch = "application/vnd.hooksidecar.batch; v=1"
	for name, row := range map[string]struct {
		given []string
		want  string // "": refused
	}{
		"json":             {[]string{"application/json"}, "application/json"},
		"capitals":         {[]string{"Application/JSON"}, "application/json"},
		"utf-8":            {[]string{`application/json; charset="UTF-8"`}, "application/json"},
		"other parameter":  {[]string{"application/json; q=1"}, "application/json"},
		"batch":            {[]string{batch}, batch},
		"batch, no space":  {[]string{"application/vnd.hooksidecar.batch;v=1"}, batch},
		"batch, version 2": {[]string{"application/vnd.hooksidecar.batch; v=2"}, ""},
		"batch, none":      {[]string{"application/vnd.hooksidecar.batch"}, ""},
		"latin 1":          {[]string{"application/json; charset=iso-8859-1"}, ""},
		"form":             {[]string{"application/x-www-form-urlencoded"}, ""},
		"text":             {[]string{"text/plain"}, ""},
		"absent":           {nil, ""},
		"empty":            {[]string{""}, ""},
		"twice":            {[]string{"application/json", "application/json"}, ""},
		"list":             {[]string{"application/json, text/plain"}, ""},
		"prefix":           {[]string{"application/jsonp"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("POST", "/", nil)
			r.Header["Content-Type"] = row.given
			got, err := CheckMediaType(r, "application/json", batch)
			if got != row.want || (err == nil) != (row.want != "") {
				t.Errorf("got %q, %v, want %q", got, err, row.want)
			}
			if err != nil && From(err).Code != "unsupported_media_type" {
				t.Errorf("code %s", From(err).Code)
			}
		})
	}
}
