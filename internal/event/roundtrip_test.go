package event_test

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hooksidecar/hooksidecar/internal/event"
)

// anyEvent draws complete events: every field that may be there, with awkward characters where they are allowed.
func anyEvent() *rapid.Generator[event.Event] {
	visible := rapid.StringMatching(`[!-~]{1,40}`)
	text := rapid.StringMatching(`[ -~é€😀\x{2028}]{0,40}`)
	value := rapid.SampledFrom([]string{"null", "0", `"\ud83d\ude00\n"`, `{ "a": [1, {}] }`, `[true,false]`, "1e400"})
	return rapid.Custom(func(t *rapid.T) event.Event {
		e := event.Event{
			ID: visible.Draw(t, "id"), Type: rapid.StringMatching(`[A-Za-z0-9_-]{1,9}(\.[A-Za-z0-9_-]{1,9}){1,4}`).Draw(t, "type"),
			Version: rapid.StringMatching(`[A-Za-z0-9._-]{1,32}`).Draw(t, "version"), Source: visible.Draw(t, "source"),
			Timestamp: time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "at"), 0).UTC().Format(time.RFC3339),
			Key:       text.Draw(t, "key"), Subject: text.Draw(t, "subject"), DataSchema: text.Draw(t, "schema"), Data: []byte(value.Draw(t, "data")),
		}
		if rapid.Bool().Draw(t, "metadata") {
			correlation, _ := json.Marshal(text.Draw(t, "correlation"))
			e.Metadata = []byte(`{ "x" : ` + value.Draw(t, "x") + `, "correlationId":` + string(correlation) + `}`)
		}
		if rapid.Bool().Draw(t, "extra") {
			e.Extra = []byte(`"to":` + value.Draw(t, "to") + `,"\u0001/x":` + value.Draw(t, "y"))
		}
		if rapid.Bool().Draw(t, "binary") {
			e.DataContentType = rapid.SampledFrom([]string{"image/png", "text/plain; charset=utf-8"}).Draw(t, "content type")
			e.Data = rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "bytes")
		}
		return e
	})
}

func TestFormsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := anyEvent().Draw(t, "event")
		if err := want.FillIn(event.Defaults{Service: "s"}); err != nil {
			t.Fatal(err)
		}
		attributes := want.AppendAttributes(nil)
		if got := want.StoredBytes(); got != len(attributes)+len(want.Data) {
			t.Fatalf("StoredBytes says %d, not %d", got, len(attributes)+len(want.Data))
		}
		stored, err := event.ParseAttributes(attributes)
		if err != nil {
			t.Fatal(err)
		}
		stored.Data = want.Data
		if !reflect.DeepEqual(stored, want) {
			t.Fatalf("attributes: got  %q\nwant %q", stored, want)
		}
		posted, err := event.ParseEnvelope(event.AppendEnvelope(nil, attributes, want.Data, want.Binary()))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(posted, want) {
			t.Fatalf("envelope: got  %q\nwant %q", posted, want)
		}
		if posted.Digest() != want.Digest() {
			t.Fatal("the digest changed on the way")
		}
	})
}

// TestAttributesAreAlwaysJSON: also of an event that nobody checked.
func TestAttributesAreAlwaysJSON(t *testing.T) {
	e := event.Event{Subject: "a\n\x00\"\\b", Data: []byte("1")}
	var got struct{ Subject string }
	attributes := e.AppendAttributes(nil)
	if err := json.Unmarshal(attributes, &got); err != nil || got.Subject != e.Subject {
		t.Errorf("got %s, %v", attributes, err)
	}
	if got, want := e.StoredBytes(), len(attributes)+1; got != want {
		t.Errorf("StoredBytes says %d, not %d", got, want)
	}
}

func TestTakeExtra(t *testing.T) {
	tests := []struct{ extra, value, left string }{
		{`"to":"b"`, `"b"`, ``},
		{`"to":"b","x":[1, 2]`, `"b"`, `"x":[1, 2]`},
		{`"x":{"to":1},"to":"b"`, `"b"`, `"x":{"to":1}`},
		{`"x":1,"to":{"a":","},"y":2`, `{"a":","}`, `"x":1,"y":2`},
		{`"x":1`, ``, `"x":1`},
		{``, ``, ``},
	}
	for _, tt := range tests {
		e := event.Event{Extra: []byte(tt.extra)}
		value, ok := e.TakeExtra("to")
		if string(value) != tt.value || ok != (tt.value != "") || string(e.Extra) != tt.left {
			t.Errorf("%s: got %q, %v, left %q", tt.extra, value, ok, e.Extra)
		}
	}
}
