package sidecar

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/VictoriaMetrics/metrics"
)

func TestPanic(t *testing.T) {
	before := func(http.ResponseWriter, *http.Request) { panic("secret of the handler") }
	within := func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("half an ans"))
		panic("secret of the handler")
	}
	for _, row := range []struct {
		name, method string
		handle       http.HandlerFunc
		answered     bool
	}{
		{"question", "GET", before, true},
		{"order", "POST", before, false}, // a problem would say that nothing was stored
		{"begun answer", "GET", within, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			panics := metrics.NewSet().NewCounter("panics_total")
			s := httptest.NewServer(&guard{log: slog.New(slog.DiscardHandler), panics: panics, next: row.handle})
			defer s.Close()
			req, err := http.NewRequestWithContext(t.Context(), row.method, s.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := s.Client().Do(req)
			var body []byte
			if err == nil {
				body, err = io.ReadAll(resp.Body)
				_ = resp.Body.Close()
			}
			if row.answered != (err == nil) || row.answered && (resp.StatusCode != 500 || codeOf(string(body)) != "internal") {
				t.Errorf("got %v %q, %v", resp, body, err)
			}
			if strings.Contains(string(body), "secret") || panics.Get() != 1 {
				t.Errorf("answered %q, %d panics counted", body, panics.Get())
			}
		})
	}
}

func TestMatch(t *testing.T) {
	for _, row := range []struct {
		pattern, path string
		ok            bool
		id            string
	}{
		{"/outbox", "/outbox", true, ""},
		{"/outbox", "", false, ""},
		{"/outbox", "outbox", false, ""},
		{"/outbox", "/outbox/", false, ""},
		{"/outbox/events/{id}", "/outbox/events/evt_1", true, "evt_1"},
		{"/outbox/events/{id}", "/outbox/events/a%2Fb%20c", true, "a/b c"},
		{"/outbox/events/{id}", "/outbox/events/%2e%2e", true, ".."},
		{"/outbox/events/{id}", "/outbox/events/", false, ""},
		{"/outbox/events/{id}", "/outbox/events", false, ""},
		{"/outbox/events/{id}", "/outbox/events/a/b", false, ""},
		{"/letters/{id}/replay", "/letters/dl_1/replay", true, "dl_1"},
		{"/letters/{id}/replay", "/letters//replay", false, ""},
		{"/debug/", "/debug/", true, ""},
	} {
		values, ok := match(row.pattern, row.path)
		if ok != row.ok || values["id"] != row.id {
			t.Errorf("%s %s: got %v %q, want %v %q", row.pattern, row.path, ok, values["id"], row.ok, row.id)
		}
	}
}
