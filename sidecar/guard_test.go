package sidecar

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/VictoriaMetrics/metrics"
)

func TestPanicIsAnAnswer(t *testing.T) {
	panics := metrics.NewSet().NewCounter("panics_total")
	g := &guard{log: slog.New(slog.DiscardHandler), panics: panics, next: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("secret of the handler") })}
	rec := httptest.NewRecorder()
	g.ServeHTTP(rec, httptest.NewRequest("GET", "/", nil))
	if rec.Code != 500 || codeOf(rec.Body.String()) != "internal" || panics.Get() != 1 {
		t.Errorf("got %d %s and %d panics counted", rec.Code, rec.Body, panics.Get())
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
