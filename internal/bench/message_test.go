package main

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestMessageReadsWhatServersSend(t *testing.T) {
	for _, c := range []struct {
		name, wire string
		status     int
		body       string
		closing    bool
		err        error
	}{
		{"length", "HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\nok", 202, "ok", false, nil},
		{"none", "HTTP/1.1 204 No Content\r\n\r\n", 204, "", false, nil},
		{"chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n", 200, "abc", false, nil},
		{"closing", "HTTP/1.1 503 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 503, "", true, nil},
		{"cut off", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", 0, "", false, io.ErrUnexpectedEOF},
		{"bad length", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", 0, "", false, errMessage},
		{"nothing", "", 0, "", false, io.EOF},
	} {
		t.Run(c.name, func(t *testing.T) {
			var m message
			err := m.read(bufio.NewReader(strings.NewReader(c.wire)))
			if !errors.Is(err, c.err) {
				t.Fatalf("got error %v, want %v", err, c.err)
			}
			if err == nil && (m.status() != c.status || string(m.body) != c.body || m.closing != c.closing) {
				t.Errorf("got %d %q closing %v, want %d %q %v", m.status(), m.body, m.closing, c.status, c.body, c.closing)
			}
		})
	}
}

func TestMessageReadsSeveralFromOneConnection(t *testing.T) {
	r := bufio.NewReader(strings.NewReader("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\noneHTTP/1.1 202 Accepted\r\nContent-Length: 3\r\n\r\ntwo"))
	var m message
	for _, want := range []string{"one", "two"} {
		if err := m.read(r); err != nil || string(m.body) != want {
			t.Fatalf("got %q %v, want %q", m.body, err, want)
		}
	}
}
