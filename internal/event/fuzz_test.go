package event_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/event"
)

// FuzzParseEnvelope compares with encoding/json: what is taken means the same there, and what is refused as not being
// JSON is no JSON there either.
func FuzzParseEnvelope(f *testing.F) {
	for _, s := range []string{
		string(oneKiB()), `{"type":"a.b","data":null}`, ` {"data":[1e999,-0.5E+3],"type":"a.b"} `, `{"type":"a.b","data":1}{}`, "\xEF\xBB\xBF{}", `{"type":"a.b","data":"\ud800"}`,
		`{"type":"a.b","data":"\ud83d\ude00é\n"}`, `{"id":1,"ID":2}`, `{"type":"a.b","data":1,"x":{"y":[]},"X/~":0}`, `{"type":"a.b","dataContentType":"image/png","dataBase64":"AAH/"}`,
		`{"type":"a.b","data":1,"metadata":{"correlationId":"","a":1}}`, `{"type":"a.b","data":01}`, `[{}]`, "", `{"type":"a.b","data":` + strings.Repeat("[", 130),
		`{"type":"a.b","data":1,"timestamp":"2026-02-03T10:30:00Z","key":"k","subject":"","source":"s","version":"2"}`, `{"type":"a.b","data":1,"expiresAt":0}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		before := bytes.Clone(body)
		e, err := event.ParseEnvelope(body)
		if !bytes.Equal(body, before) {
			t.Fatal("the body was changed")
		}
		if err != nil {
			bad, ok := errors.AsType[*event.Error](err)
			if !ok {
				t.Fatalf("not an *event.Error: %v", err)
			}
			if notJSON := bad.Code == "invalid_json" || bad.Code == "trailing_data"; notJSON && bad.Pointer != "/dataBase64" && json.Valid(body) {
				t.Fatalf("JSON, but refused: %v", err)
			}
			return
		}
		sameAsEncodingJSON(t, body, &e)
		sameWhenStored(t, e)
	})
}

func sameAsEncodingJSON(t *testing.T, body []byte, e *event.Event) {
	var m struct {
		ID, Type, Version, Timestamp, Source, Key, Subject, DataSchema, DataContentType string
		Metadata, Data                                                                  json.RawMessage
		DataBase64                                                                      []byte
	}
	if err := json.Unmarshal(body, &m); err != nil {
		t.Fatalf("taken, but encoding/json says: %v", err)
	}
	for _, c := range [][2]string{
		{e.ID, m.ID}, {e.Type, m.Type}, {e.Version, m.Version}, {e.Timestamp, m.Timestamp}, {e.Source, m.Source}, {e.Key, m.Key},
		{e.Subject, m.Subject}, {e.DataSchema, m.DataSchema}, {e.DataContentType, m.DataContentType}, {string(e.Metadata), string(m.Metadata)},
	} {
		if c[0] != c[1] {
			t.Fatalf("got %q, encoding/json %q", c[0], c[1])
		}
	}
	want := []byte(m.Data)
	if m.Data == nil {
		want = bytes.Trim(m.DataBase64, " \t\r\n")
		if e.Binary() {
			want = m.DataBase64
		}
	}
	if !bytes.Equal(e.Data, want) {
		t.Fatalf("got data %q, encoding/json %q", e.Data, want)
	}
}

// sameWhenStored fills the event in and checks that it survives being stored and given to an app.
func sameWhenStored(t *testing.T, e event.Event) {
	if err := e.FillIn(event.Defaults{Now: time.Unix(1770000000, 0), Service: "s", NewID: func() string { return "i" }}); err != nil {
		if _, ok := errors.AsType[*event.Error](err); !ok {
			t.Fatal(err)
		}
		return
	}
	attributes := e.AppendAttributes(nil)
	stored, err := event.ParseAttributes(attributes)
	if err != nil {
		t.Fatalf("attributes %s: %v", attributes, err)
	}
	stored.Data = e.Data
	if stored.Digest() != e.Digest() || !bytes.Equal(stored.AppendAttributes(nil), attributes) {
		t.Fatalf("stored %q, was %q", stored, e)
	}
	if stored.CorrelationID() == "" {
		t.Fatal("no correlation id")
	}
	envelope := event.AppendEnvelope(nil, attributes, e.Data, e.Binary())
	again, err := event.ParseEnvelope(envelope)
	if err != nil || again.Digest() != e.Digest() {
		t.Fatalf("envelope %s: %v", envelope, err)
	}
}

func FuzzReadBatch(f *testing.F) {
	body, _ := testBatch(f)
	f.Add(body)
	f.Add(body[:len(body)-1])
	f.Add(append(bytes.Clone(body), 0x80, 0x00))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, body []byte) {
		h, rest, err := event.ReadBatchHeader(body)
		if err != nil {
			return
		}
		w := event.NewBatchWriter(nil, h)
		var taken []event.Delivery
		for {
			d, e, next, err := event.ReadDelivery(rest)
			if err == io.EOF {
				break
			}
			if err != nil {
				if _, ok := errors.AsType[*event.Error](err); !ok || len(next) >= len(rest) {
					t.Fatalf("error %v, %d bytes left of %d", err, len(next), len(rest))
				}
				return
			}
			if !json.Valid(event.AppendEnvelope(nil, d.Attributes, d.Data, e.Binary())) {
				t.Fatalf("not JSON for the app: %q %q", d.Attributes, d.Data)
			}
			taken = append(taken, d)
			w.Add(d)
			rest = next
		}
		sameBatch(t, w.Bytes(), h, taken)
	})
}

// sameBatch checks that what was read and written again reads the same.
func sameBatch(t *testing.T, body []byte, h event.BatchHeader, want []event.Delivery) {
	got, rest, err := event.ReadBatchHeader(body)
	if err != nil || got != h {
		t.Fatalf("header: got %+v, %v, want %+v", got, err, h)
	}
	for _, want := range want {
		d, _, next, err := event.ReadDelivery(rest)
		if err != nil {
			// Numbers may have been written shorter than we write them, so that the limit is met only now.
			return
		}
		if d.Seq != want.Seq || d.Attempt != want.Attempt || d.Digest != want.Digest || !bytes.Equal(d.Attributes, want.Attributes) || !bytes.Equal(d.Data, want.Data) {
			t.Fatalf("got  %+v\nwant %+v", d, want)
		}
		rest = next
	}
}

func FuzzParseBatchAnswer(f *testing.F) {
	f.Add(testAnswer().Append(nil))
	f.Add([]byte(`{"protocol":1,"from":{"service":"a","instance":"b","storeId":"c"},"to":"d","verdicts":[{"verdict":"busy","count":1000}],"applied":0,"openKeys":[],"openAll":true,"clock":"2026-02-03T10:30:00+01:00"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		a, err := event.ParseBatchAnswer(body)
		if err != nil {
			if _, ok := errors.AsType[*event.Error](err); !ok {
				t.Fatalf("not an *event.Error: %v", err)
			}
			return
		}
		if !json.Valid(body) {
			t.Fatal("taken, but not JSON")
		}
		once := a.Append(nil)
		again, err := event.ParseBatchAnswer(once)
		if err != nil {
			t.Fatalf("our own form of it: %v", err)
		}
		if twice := again.Append(nil); !bytes.Equal(once, twice) {
			t.Fatalf("got  %s\nwant %s", twice, once)
		}
	})
}
