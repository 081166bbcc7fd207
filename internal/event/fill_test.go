package event_test

import (
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/hooksidecar/hooksidecar/internal/event"
)

func defaults() event.Defaults {
	at := time.Date(2026, 2, 3, 11, 30, 0, 123_456_789, time.FixedZone("", 3600))
	return event.Defaults{Now: at, Service: "order-service", NewID: func() string { return "evt_new" }}
}

func TestFillInSetsWhatIsAbsent(t *testing.T) {
	e := event.Event{Type: "a.b", Data: []byte("1")}
	if err := e.FillIn(defaults()); err != nil {
		t.Fatal(err)
	}
	got := string(e.AppendAttributes(nil))
	want := `{"id":"evt_new","type":"a.b","version":"1.0","timestamp":"2026-02-03T10:30:00.123Z","source":"order-service","metadata":{"correlationId":"evt_new"}}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestFillInMakesUUIDv7(t *testing.T) {
	e := event.Event{Type: "a.b", Data: []byte("1")}
	d := defaults()
	d.NewID = nil
	if err := e.FillIn(d); err != nil {
		t.Fatal(err)
	}
	if id, err := uuid.Parse(e.ID); err != nil || id.Version() != 7 {
		t.Errorf("got id %q, want a UUIDv7 (%v)", e.ID, err)
	}
}

func TestFillInKeepsWhatIsThere(t *testing.T) {
	e := event.Event{ID: "i", Type: "a.b", Version: "3", Timestamp: "2020-01-01T00:00:00Z", Source: "s", Metadata: []byte(`{"correlationId":"c"}`), Data: []byte("1")}
	before := string(e.AppendAttributes(nil))
	d := defaults()
	d.CorrelationID = "other"
	if err := e.FillIn(d); err != nil {
		t.Fatal(err)
	}
	if got := string(e.AppendAttributes(nil)); got != before {
		t.Errorf("got %s, want %s", got, before)
	}
}

func TestFillInCorrelation(t *testing.T) {
	const trace = `"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"`
	tests := []struct{ name, metadata, header, want string }{
		{"none", ``, "", `{"correlationId":"evt_new"}`},
		{"empty object", `{ }`, "", `{"correlationId":"evt_new" }`},
		{"header", `{"a": 1}`, "req", `{"correlationId":"req","a": 1}`},
		{"header in need of escapes", ``, `a"b`, `{"correlationId":"a\"b"}`},
		{"trace", `{` + trace + `}`, "", `{"correlationId":"0af7651916cd43dd8448eb211c80319c",` + trace + `}`},
		{"header before trace", `{` + trace + `}`, "req", `{"correlationId":"req",` + trace + `}`},
		{"empty text", `{"a":1, "correlationId" : "" ,"b":2}`, "req", `{"a":1, "correlationId" : "req" ,"b":2}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := event.Event{Type: "a.b", Data: []byte("1")}
			if tt.metadata != "" {
				e.Metadata = []byte(tt.metadata)
			}
			d := defaults()
			d.CorrelationID = tt.header
			if err := e.FillIn(d); err != nil {
				t.Fatal(err)
			}
			if got := string(e.Metadata); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// TestFillInChecksWhatTheCallerSet is for ids and keys that came in headers.
func TestFillInChecksWhatTheCallerSet(t *testing.T) {
	tests := []struct {
		name          string
		change        func(*event.Event, *event.Defaults)
		code, pointer string
	}{
		{"id", func(e *event.Event, _ *event.Defaults) { e.ID = "a b" }, "invalid_field", "/id"},
		{"key", func(e *event.Event, _ *event.Defaults) { e.Key = "\xff" }, "invalid_field", "/key"},
		{"correlation header", func(_ *event.Event, d *event.Defaults) { d.CorrelationID = "\xff" }, "invalid_field", "/metadata/correlationId"},
		{"attributes", func(e *event.Event, _ *event.Defaults) {
			e.Extra = []byte(`"x":"` + strings.Repeat("x", event.MaxAttributesBytes-150) + `"`)
		}, "too_large", ""},
		{"event", func(e *event.Event, _ *event.Defaults) { e.Data = make([]byte, event.MaxEventBytes) }, "too_large", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, d := event.Event{Type: "a.b", Data: []byte("1")}, defaults()
			tt.change(&e, &d)
			wantError(t, e.FillIn(d), tt.code, tt.pointer)
		})
	}
}

func TestLargestEventPasses(t *testing.T) {
	e, d := event.Event{Type: "a.b", Data: []byte("1")}, defaults()
	if err := e.FillIn(d); err != nil {
		t.Fatal(err)
	}
	e.Data = []byte(`"` + strings.Repeat("x", event.MaxEventBytes-len(e.AppendAttributes(nil))-2) + `"`)
	if err := e.FillIn(d); err != nil {
		t.Error(err)
	}
	e.Data = append(e.Data, ' ')
	wantError(t, e.FillIn(d), "too_large", "")
}

func TestDigestCountsContentOnly(t *testing.T) {
	base := event.Event{ID: "1", Type: "a.b", Version: "1.0", Key: "k", Data: []byte(`{"x":1}`)}
	want := base.Digest()
	// sha256 of 03 a.b 03 1.0 01 k 07 {"x":1}, from another program: a format that never changes.
	if got, golden := hex.EncodeToString(want[:]), "0fb768956926e4e845a853d3c5930e328f3027f0aa1b1d582cae1c75934ec7c5"; got != golden {
		t.Errorf("got digest %s, want %s", got, golden)
	}
	same := base
	same.ID, same.Timestamp, same.Source, same.Metadata, same.Extra = "2", "t", "s", []byte("{}"), []byte(`"x":1`)
	if same.Digest() != want {
		t.Error("the digest depends on more than content")
	}
	for name, change := range map[string]func(*event.Event){
		"type": func(e *event.Event) { e.Type = "a.c" }, "version": func(e *event.Event) { e.Version = "1.1" },
		"key": func(e *event.Event) { e.Key = "" }, "data": func(e *event.Event) { e.Data = []byte(`{"x": 1}`) },
		"border": func(e *event.Event) { e.Type, e.Version = "a.b1", ".0" },
	} {
		other := base
		change(&other)
		if other.Digest() == want {
			t.Errorf("the digest does not depend on %s", name)
		}
	}
}

func TestLogsHoldNoData(t *testing.T) {
	e := event.Event{ID: "evt_1", Type: "a.b", Data: []byte(`"secret"`), Metadata: []byte(`{"userId":"secret"}`)}
	if got, want := e.LogValue().String(), "[id=evt_1 type=a.b bytes=8]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestNamesOfAnEvent(t *testing.T) {
	if got := event.WebhookID("s", "evt_1-A"); got != "evt_1-A" {
		t.Errorf("got %q, want the id itself", got)
	}
	for _, id := range []string{"a.b", strings.Repeat("x", 129), ""} {
		got := event.WebhookID("s", id)
		if len(got) != 45 || !strings.HasPrefix(got, "h_") || got == event.WebhookID("t", id) {
			t.Errorf("id %q: got %q", id, got)
		}
	}
	if event.KeyHash("s", "") != 0 || event.KeyHash("s", "k") == 0 || event.KeyHash("s", "k") == event.KeyHash("t", "k") {
		t.Error("key hashes do not tell keys apart")
	}
	if event.Hash("a", "bc") == event.Hash("ab", "c") {
		t.Error("hashes do not tell source and id apart")
	}
}
