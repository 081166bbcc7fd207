package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/hooksidecar/hooksidecar/internal/deadletter"
	"github.com/hooksidecar/hooksidecar/internal/problem"
)

// fakeNode answers what its fields say; what a test does not set must not be asked for.
type fakeNode struct {
	Node
	letter func(id string) (Letter, error)
	backup func(io.Writer) error
}

func (f fakeNode) Letter(id string) (Letter, error) { return f.letter(id) }
func (f fakeNode) Backup(w io.Writer) error         { return f.backup(w) }

func serving(t *testing.T, node Node) *Client {
	t.Helper()
	api := NewServer(node, slog.New(slog.DiscardHandler))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/dead-letters/{id}", api.ServeLetter)
	mux.HandleFunc("GET /api/v1/backup", api.ServeBackup)
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	c, err := NewClient(s.URL, "")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestLetterKeepsTheBytesOfItsEvent(t *testing.T) {
	const envelope = "{\"id\":\"evt_1\",\"data\": { \"a\" :\t1.0e+2,\r\n \"b\":\"<\\u003c&\u2028\",\"a\":10000000000000000000001 } }"
	c := serving(t, fakeNode{letter: func(id string) (Letter, error) {
		return Letter{Letter: deadletter.Letter{ID: id, Last: deadletter.Answer{Body: "</html>"}}, Event: json.RawMessage(envelope)}, nil
	}})
	l, err := c.Letter(t.Context(), "dl_1")
	if err != nil || string(l.Event) != envelope || l.ID != "dl_1" || l.Last.Body != "</html>" {
		t.Errorf("got %+v with event %q, %v, want %q", l.Letter, l.Event, err, envelope)
	}
	for _, indent := range []bool{false, true} {
		text, err := l.Append([]byte("before "), indent)
		var again Letter
		if err != nil || !bytes.HasPrefix(text, []byte("before {")) || json.Unmarshal(text[len("before "):], &again) != nil || string(again.Event) != envelope || again.ID != "dl_1" {
			t.Errorf("indent %t: got %s, %v", indent, text, err)
		}
	}
	l.Event = nil
	if text, err := l.Append(nil, true); err != nil || !json.Valid(text) || bytes.Contains(text, []byte(`"event":`)) {
		t.Errorf("without an event: got %s, %v", text, err)
	}
}

func TestBackupIsWholeOrNone(t *testing.T) {
	whole := bytes.Repeat([]byte("backup"), 200_000)
	for _, row := range []struct {
		name  string
		node  func(io.Writer) error
		fails string // "": it is whole
	}{
		{"whole", func(w io.Writer) error { _, err := w.Write(whole); return err }, ""},
		{"refused", func(io.Writer) error { return problem.New("busy", "one is being written") }, "busy: one is being written"},
		{"damaged", func(io.Writer) error { return errors.New("secret detail") }, "internal: "},
		{"breaks off", func(w io.Writer) error { _, _ = w.Write(whole); return errors.New("record is damaged") }, "broke off"},
	} {
		t.Run(row.name, func(t *testing.T) {
			var got bytes.Buffer
			n, err := serving(t, fakeNode{backup: row.node}).Backup(t.Context(), &got)
			if row.fails == "" && (err != nil || !bytes.Equal(got.Bytes(), whole) || n != int64(len(whole))) {
				t.Errorf("got %d bytes, %v", n, err)
			}
			if row.fails != "" && (err == nil || !strings.Contains(err.Error(), row.fails) || strings.Contains(err.Error(), "secret")) {
				t.Errorf("got %d bytes, %v, want %q", n, err, row.fails)
			}
		})
	}
}
