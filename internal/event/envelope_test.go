package event_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/hooksidecar/hooksidecar/internal/event"
)

// with returns an envelope with these members besides type and data.
func with(members string) string { return `{"type":"a.b","data":1,` + members + `}` }

// wantError checks that err is an *event.Error of that code and pointer.
func wantError(t *testing.T, err error, code, pointer string) *event.Error {
	t.Helper()
	e, ok := errors.AsType[*event.Error](err)
	if !ok {
		t.Fatalf("got error %v, want an *event.Error %s", err, code)
	}
	if e.Code != code || e.Pointer != pointer {
		t.Errorf("got %s at %q (%s), want %s at %q", e.Code, e.Pointer, e.Detail, code, pointer)
	}
	if e.Detail == "" {
		t.Error("no detail")
	}
	return e
}

// TestParseEnvelopeRefuses goes through rows O40 to O63 of the bad-input tables, and what DESIGN adds to them.
func TestParseEnvelopeRefuses(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	tests := []struct{ name, body, code, pointer string }{
		{"empty", "", "invalid_json", ""},
		{"spaces", " \n\t ", "invalid_json", ""},
		{"null", "null", "not_an_object", ""},
		{"array", "[]", "not_an_object", ""},
		{"string", `"x"`, "not_an_object", ""},
		{"number", "5", "not_an_object", ""},
		{"second object", `{"type":"a.b","data":1}{}`, "trailing_data", ""},
		{"garbage behind", `{"type":"a.b","data":1} garbage`, "trailing_data", ""},
		{"NUL behind", "{\"type\":\"a.b\",\"data\":1}\x00", "trailing_data", ""},
		{"byte order mark", "\xEF\xBB\xBF{}", "invalid_json", ""},
		{"cut off", `{"type":"a.b","data":{"x":[1,`, "invalid_json", "/data/x/1"},
		{"cut off in a string", `{"type":"a.b","data":"abc`, "invalid_json", "/data"},
		{"cut off in an escape", `{"type":"a.b","data":"abc\`, "invalid_json", "/data"},
		{"no comma", `{"type":"a.b" "data":1}`, "invalid_json", ""},
		{"comma at the end", `{"type":"a.b","data":1,}`, "invalid_json", ""},
		{"comma at the start", `{,"type":"a.b","data":1}`, "invalid_json", ""},
		{"comment", `{"type":"a.b",/* */"data":1}`, "invalid_json", ""},
		{"single quotes", `{'type':'a.b'}`, "invalid_json", ""},
		{"NaN", `{"type":"a.b","data":NaN}`, "invalid_json", "/data"},
		{"Infinity", `{"type":"a.b","data":-Infinity}`, "invalid_json", "/data"},
		{"leading zero", `{"type":"a.b","data":01}`, "invalid_json", "/data"},
		{"dot without digit", `{"type":"a.b","data":1.}`, "invalid_json", "/data"},
		{"exponent without digit", `{"type":"a.b","data":1e+}`, "invalid_json", "/data"},
		{"plus", `{"type":"a.b","data":+1}`, "invalid_json", "/data"},
		{"word cut", `{"type":"a.b","data":nul}`, "invalid_json", "/data"},
		{"comma at the end of an array", `{"type":"a.b","data":[1,]}`, "invalid_json", "/data/1"},
		{"raw newline in a string", "{\"type\":\"a.b\",\"data\":\"a\nb\"}", "invalid_json", "/data"},
		{"unknown escape", `{"type":"a.b","data":"\x"}`, "invalid_json", "/data"},
		{"short \\u", `{"type":"a.b","data":"\u12"}`, "invalid_json", "/data"},
		{"not UTF-8", "{\"type\":\"a.b\",\"data\":{\"a\":[0,\"\xff\"]}}", "invalid_utf8", "/data/a/1"},
		{"overlong UTF-8", "{\"type\":\"a.b\",\"data\":\"\xc0\xaf\"}", "invalid_utf8", "/data"},
		{"UTF-8 surrogate", "{\"type\":\"a.b\",\"data\":\"\xed\xa0\x80\"}", "invalid_utf8", "/data"},
		{"not UTF-8 in a name", "{\"type\":\"a.b\",\"\xff\":1}", "invalid_utf8", ""},
		{"high surrogate alone", `{"type":"a.b","data":1,"id":"\ud800"}`, "invalid_utf8", "/id"},
		{"high surrogate before text", `{"type":"a.b","data":"\ud800abcdefg"}`, "invalid_utf8", "/data"},
		{"two high surrogates", `{"type":"a.b","data":"\ud800\ud800"}`, "invalid_utf8", "/data"},
		{"low surrogate alone", `{"type":"a.b","data":{"k":"\udc00"}}`, "invalid_utf8", "/data/k"},
		{"129 levels", `{"type":"a.b","data":` + deep(128) + `}`, "too_deep", "/data" + strings.Repeat("/0", 127)},
		{"10001 levels", `{"type":"a.b","data":` + deep(10001) + `}`, "too_deep", "/data" + strings.Repeat("/0", 127)},
		{"deep metadata", `{"type":"a.b","data":1,"metadata":{"x":` + deep(127) + `}}`, "too_deep", "/metadata/x" + strings.Repeat("/0", 126)},
		{"type twice", with(`"type":"a.b"`), "duplicate_field", "/type"},
		{"data twice", with(`"data":1`), "duplicate_field", "/data"},
		{"type twice, once escaped", with(`"\u0074ype":"a.b"`), "duplicate_field", "/type"},
		{"case variant alone", with(`"ID":"x"`), "duplicate_field", "/ID"},
		{"case variant of both", with(`"id":"x","Id":"x"`), "duplicate_field", "/Id"},
		{"case variant beyond ASCII", with(`"\u017fource":"x"`), "duplicate_field", "/ſource"},
		{"unknown twice", with(`"x":1,"x":2`), "duplicate_field", "/x"},
		{"unknown case variant", with(`"trace~/a":1,"Trace~/a":2`), "duplicate_field", "/Trace~0~1a"},
		{"many unknown, last twice", with(`"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1,"J":1,"\u006a":1`), "duplicate_field", "/j"},
		{"Kelvin sign", with(`"0":1,"1":1,"2":1,"3":1,"4":1,"5":1,"6":1,"7":1,"k":1,"\u212a":1`), "duplicate_field", "/\u212a"},
		{"metadata name twice", with(`"metadata":{"a":1,"a":2}`), "duplicate_field", "/metadata/a"},
		{"metadata case variant", with(`"metadata":{"correlationid":"x"}`), "duplicate_field", "/metadata/correlationid"},
		{"no type", `{"data":1}`, "missing_field", "/type"},
		{"no data", `{"type":"a.b"}`, "missing_field", "/data"},
		{"empty object", `{}`, "missing_field", "/type"},
		{"id empty", with(`"id":""`), "invalid_field", "/id"},
		{"id null", with(`"id":null`), "invalid_field", "/id"},
		{"id number", with(`"id":5`), "invalid_field", "/id"},
		{"id array", with(`"id":[]`), "invalid_field", "/id"},
		{"id bad JSON", with(`"id":05`), "invalid_json", "/id"},
		{"id too long", with(`"id":"` + strings.Repeat("x", 257) + `"`), "invalid_field", "/id"},
		{"id with space", with(`"id":"a b"`), "invalid_field", "/id"},
		{"id with newline", with(`"id":"a\nb"`), "invalid_field", "/id"},
		{"id with NUL", with(`"id":"a\u0000b"`), "invalid_field", "/id"},
		{"id not ASCII", with(`"id":"é"`), "invalid_field", "/id"},
		{"type empty", `{"type":"","data":1}`, "invalid_field", "/type"},
		{"type of one segment", `{"type":"order","data":1}`, "invalid_field", "/type"},
		{"type begins with dot", `{"type":".a","data":1}`, "invalid_field", "/type"},
		{"type ends with dot", `{"type":"a.","data":1}`, "invalid_field", "/type"},
		{"type with empty segment", `{"type":"a..b","data":1}`, "invalid_field", "/type"},
		{"type with star", `{"type":"a.*","data":1}`, "invalid_field", "/type"},
		{"type too long", `{"type":"a.` + strings.Repeat("x", 127) + `","data":1}`, "invalid_field", "/type"},
		{"key too long", with(`"key":"` + strings.Repeat("x", 257) + `"`), "invalid_field", "/key"},
		{"key with control character", with(`"key":"a\u0007"`), "invalid_field", "/key"},
		{"key with C1 control character", with(`"key":"a\u0085"`), "invalid_field", "/key"},
		{"key null", with(`"key":null`), "invalid_field", "/key"},
		{"source empty", with(`"source":""`), "invalid_field", "/source"},
		{"source with space", with(`"source":"a b"`), "invalid_field", "/source"},
		{"version empty", with(`"version":""`), "invalid_field", "/version"},
		{"version number", with(`"version":1.0`), "invalid_field", "/version"},
		{"version too long", with(`"version":"` + strings.Repeat("1", 33) + `"`), "invalid_field", "/version"},
		{"version with slash", with(`"version":"1/2"`), "invalid_field", "/version"},
		{"timestamp without zone", with(`"timestamp":"2026-02-03T10:30:00"`), "invalid_field", "/timestamp"},
		{"timestamp with comma", with(`"timestamp":"2026-02-03T10:30:00,5Z"`), "invalid_field", "/timestamp"},
		{"timestamp with impossible zone", with(`"timestamp":"2026-02-03T10:30:00+25:00"`), "invalid_field", "/timestamp"},
		{"timestamp with zone of 24 hours", with(`"timestamp":"2026-02-03T10:30:00-24:00"`), "invalid_field", "/timestamp"},
		{"timestamp with one digit of the hour", with(`"timestamp":"2026-02-03T1:30:00Z"`), "invalid_field", "/timestamp"},
		{"timestamp on 30 February", with(`"timestamp":"2026-02-30T10:30:00Z"`), "invalid_field", "/timestamp"},
		{"subject too long", with(`"subject":"` + strings.Repeat("x", 1025) + `"`), "invalid_field", "/subject"},
		{"dataSchema number", with(`"dataSchema":1`), "invalid_field", "/dataSchema"},
		{"metadata null", with(`"metadata":null`), "invalid_field", "/metadata"},
		{"metadata array", with(`"metadata":[]`), "invalid_field", "/metadata"},
		{"correlationId number", with(`"metadata":{"correlationId":1}`), "invalid_field", "/metadata/correlationId"},
		{"correlationId too long", with(`"metadata":{"correlationId":"` + strings.Repeat("x", 257) + `"}`), "invalid_field", "/metadata/correlationId"},
		{"userId null", with(`"metadata":{"userId":null}`), "invalid_field", "/metadata/userId"},
		{"tracestate with newline", with(`"metadata":{"tracestate":"a=b\n"}`), "invalid_field", "/metadata/tracestate"},
		{"traceparent short", with(`"metadata":{"traceparent":"00-abc"}`), "invalid_field", "/metadata/traceparent"},
		{"traceparent upper case", with(`"metadata":{"traceparent":"` + strings.ToUpper(trace) + `"}`), "invalid_field", "/metadata/traceparent"},
		{"traceparent of zeros", with(`"metadata":{"traceparent":"00-` + strings.Repeat("0", 32) + `-b7ad6b7169203331-01"}`), "invalid_field", "/metadata/traceparent"},
		{"traceparent without parent", with(`"metadata":{"traceparent":"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01"}`), "invalid_field", "/metadata/traceparent"},
		{"traceparent ff", with(`"metadata":{"traceparent":"ff` + trace[2:] + `"}`), "invalid_field", "/metadata/traceparent"},
		{"traceparent 00 and more", with(`"metadata":{"traceparent":"` + trace + `-00"}`), "invalid_field", "/metadata/traceparent"},
		{"deliverAt", with(`"deliverAt":"2026-02-03T10:30:00Z"`), "unsupported_field", "/deliverAt"},
		{"delay", with(`"delay":"5s"`), "unsupported_field", "/delay"},
		{"expiresAt", with(`"expiresAt":null`), "unsupported_field", "/expiresAt"},
		{"data and dataBase64", with(`"dataContentType":"image/png","dataBase64":"AA=="`), "invalid_field", "/dataBase64"},
		{"data with image", with(`"dataContentType":"image/png"`), "invalid_field", "/data"},
		{"image without dataBase64", `{"type":"a.b","dataContentType":"image/png"}`, "missing_field", "/dataBase64"},
		{"dataBase64 without type", `{"type":"a.b","dataBase64":"AA=="}`, "missing_field", "/dataContentType"},
		{"dataBase64 without padding", `{"type":"a.b","dataContentType":"image/png","dataBase64":"AA"}`, "invalid_field", "/dataBase64"},
		{"dataBase64 with bits left", `{"type":"a.b","dataContentType":"image/png","dataBase64":"AB=="}`, "invalid_field", "/dataBase64"},
		{"dataBase64 with newline", `{"type":"a.b","dataContentType":"image/png","dataBase64":"AA\n=="}`, "invalid_field", "/dataBase64"},
		{"dataBase64 that is not JSON", `{"type":"a.b","dataContentType":"application/json","dataBase64":"AA=="}`, "invalid_json", "/dataBase64"},
		{"dataContentType empty", with(`"dataContentType":""`), "invalid_field", "/dataContentType"},
		{"dataContentType without slash", with(`"dataContentType":"json"`), "invalid_field", "/dataContentType"},
		{"too much metadata", with(`"metadata":{"x":"` + strings.Repeat("x", 32<<10) + `"}`), "too_large", "/metadata"},
		{"too much unknown", with(`"x":"` + strings.Repeat("x", 32<<10) + `"`), "too_large", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := event.ParseEnvelope([]byte(tt.body))
			e := wantError(t, err, tt.code, tt.pointer)
			if e.Index != -1 {
				t.Errorf("got index %d, want -1", e.Index)
			}
			wantStatus := 400
			if tt.code == "too_large" {
				wantStatus = 413
			}
			if e.Status != wantStatus {
				t.Errorf("got status %d, want %d", e.Status, wantStatus)
			}
		})
	}
}

func TestErrorNamesTheByte(t *testing.T) {
	_, err := event.ParseEnvelope([]byte(`{"type":"a.b","data":[tru]}`))
	if e := wantError(t, err, "invalid_json", "/data/0"); !strings.Contains(e.Detail, "at byte 25") {
		t.Errorf("got %q, want byte 25 in it", e.Detail)
	}
}

func TestParseEnvelopeKeepsDataExactly(t *testing.T) {
	tests := []string{
		"null", "0", "-0.0e-0", "1e999", strings.Repeat("9", 4000), `""`, `"\u00e9\/é😀\ud83d\ude00"`, "{ }", "[\n1 ,2\t]",
		`{"a":1,"A":2,"a":3}`, strings.Repeat("[", 127) + strings.Repeat("]", 127), `"` + strings.Repeat("\\n", 1000) + `"`,
	}
	for _, data := range tests {
		e, err := event.ParseEnvelope([]byte(" \n{ \"type\" : \"a.b\" ,\t\"data\" : " + data + " , \"id\":\"x\" } \r\n"))
		if err != nil {
			t.Errorf("data %.40s: %v", data, err)
			continue
		}
		if string(e.Data) != data {
			t.Errorf("got data %.60q, want %.60q", e.Data, data)
		}
	}
}

func TestParseEnvelopeReadsEveryField(t *testing.T) {
	const metadata = `{ "correlationId":"c\u0031", "causationId":"evt_0", "userId":"u", "tenant":{"a":[1]}, "tracestate":"k=v", "traceparent":"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-new" }`
	body := `{"x-first": [1, 2],"id":"evt_\u0031\"","type":"order.created","version":"2.1","timestamp":"2026-02-03T10:30:00.5+01:00","source":"order-service",` +
		`"key":"Größe","subject":"s","dataSchema":"https://example.com/s","dataContentType":"application/vnd.order+JSON; charset=utf-8","metadata":` + metadata + `,"data":{},"x/last":null}`
	got, err := event.ParseEnvelope([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	want := event.Event{
		ID: `evt_1"`, Type: "order.created", Version: "2.1", Timestamp: "2026-02-03T10:30:00.5+01:00", Source: "order-service", Key: "Größe",
		Subject: "s", DataSchema: "https://example.com/s", DataContentType: "application/vnd.order+JSON; charset=utf-8",
		Metadata: []byte(metadata), Extra: []byte(`"x-first":[1, 2],"x/last":null`), Data: []byte("{}"),
	}
	if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	for _, c := range []struct{ got, want string }{
		{got.CorrelationID(), "c1"}, {got.CausationID(), "evt_0"}, {got.Tracestate(), "k=v"},
		{got.Traceparent(), "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-new"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
	if got.Binary() {
		t.Error("+JSON is taken for binary")
	}
}

func TestParseEnvelopeAtItsLimits(t *testing.T) {
	for _, members := range []string{
		`"id":"` + strings.Repeat("~", 256) + `"`, `"id":"../../etc/passwd"`, `"key":"` + strings.Repeat("é", 128) + `"`, `"key":""`,
		`"version":"` + strings.Repeat("1", 32) + `"`, `"source":"https://example.com/shop?x=1"`, `"subject":"` + strings.Repeat("x", 1024) + `"`,
		`"timestamp":"2026-02-03T10:30:00-12:00"`, `"metadata":{}`, `"metadata":{"a":1,"b":{"a":1,"a":2}}`,
	} {
		if _, err := event.ParseEnvelope([]byte(with(members))); err != nil {
			t.Errorf("%.60s: %v", members, err)
		}
	}
	if _, err := event.ParseEnvelope([]byte(`{"type":"a.` + strings.Repeat("x", 126) + `","data":1}`)); err != nil {
		t.Error(err)
	}
}

func TestBinaryData(t *testing.T) {
	raw := []byte{0, 1, 0xff, '"'}
	e, err := event.ParseEnvelope([]byte(`{"id":"1","source":"s","type":"a.b","dataContentType":"image/png","dataBase64":"AAH/Ig=="}`))
	if err != nil {
		t.Fatal(err)
	}
	if !e.Binary() || !bytes.Equal(e.Data, raw) {
		t.Fatalf("got binary %v, data %q", e.Binary(), e.Data)
	}
	envelope := event.AppendEnvelope(nil, e.AppendAttributes(nil), e.Data, e.Binary())
	var app struct{ DataBase64 []byte }
	if err := json.Unmarshal(envelope, &app); err != nil || !bytes.Equal(app.DataBase64, raw) {
		t.Errorf("app gets %s (%v)", envelope, err)
	}
}

func TestBase64OfJSONIsTakenAsData(t *testing.T) {
	e, err := event.ParseEnvelope([]byte(`{"type":"a.b","dataContentType":"text/json","dataBase64":"IHsieCI6MX0K"}`)) // ` {"x":1}` and a newline
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(e.Data), `{"x":1}`; got != want || e.Binary() {
		t.Errorf("got %q, binary %v, want %q", got, e.Binary(), want)
	}
}

func TestParseAttributesWantsTheStoredForm(t *testing.T) {
	const stored = `{"id":"1","type":"a.b","version":"1.0","timestamp":"2026-02-03T10:30:00Z","source":"s"}`
	if _, err := event.ParseAttributes([]byte(stored)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"id", "type", "version", "timestamp", "source"} {
		_, err := event.ParseAttributes([]byte(strings.Replace(stored, `"`+name+`"`, `"x"`, 1)))
		wantError(t, err, "missing_field", "/"+name)
	}
	_, err := event.ParseAttributes([]byte(strings.Replace(stored, `{`, `{"data":1,`, 1)))
	wantError(t, err, "invalid_field", "/data")
	_, err = event.ParseAttributes([]byte(stored + "x"))
	wantError(t, err, "trailing_data", "")
}

func TestParseBatch(t *testing.T) {
	const item = `{"type":"a.b","data":1}`
	many := func(n int, item string) string {
		return "[" + strings.Repeat(item+",", n-1) + item + "]"
	}
	tests := []struct {
		name, body, code, pointer string
		index                     int
	}{
		{"empty body", "", "invalid_json", "", -1},
		{"null", "null", "invalid_field", "", -1},
		{"object", `{"events":[]}`, "invalid_field", "", -1},
		{"no events", " [ ] ", "empty_batch", "", -1},
		{"1001 events", many(1001, item), "too_many_events", "", -1},
		{"100000 empty objects", many(100_000, "{}"), "too_many_events", "", -1},
		{"1000 empty objects", many(1000, "{}"), "missing_field", "/0/type", 0},
		{"first is bad", `[{"type":"a","data":1},` + item + `]`, "invalid_field", "/0/type", 0},
		{"fourth is bad", "[" + strings.Repeat(item+",", 3) + `{"type":"a","data":1}]`, "invalid_field", "/3/type", 3},
		{"item null", "[" + item + ",null]", "not_an_object", "/1", 1},
		{"item array", "[[]]", "not_an_object", "/0", 0},
		{"duplicate in item", `[{"type":"a.b","data":1,"data":2}]`, "duplicate_field", "/0/data", 0},
		{"not UTF-8 in item", "[" + item + ",{\"type\":\"a.b\",\"data\":\"\xff\"}]", "invalid_utf8", "/1/data", 1},
		{"deep item", "[" + `{"type":"a.b","data":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + "}]", "too_deep", "/0/data" + strings.Repeat("/0", 127), 0},
		{"cut off after an item", "[" + item, "invalid_json", "", -1},
		{"cut off within an item", "[" + item + `,{"type":`, "invalid_json", "/1/type", 1},
		{"comma at the end", "[" + item + ",]", "invalid_json", "/1", 1},
		{"NDJSON", item + "\n" + item, "invalid_field", "", -1},
		{"behind the array", "[" + item + "][]", "trailing_data", "", -1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			events, err := event.ParseBatch([]byte(tt.body))
			e := wantError(t, err, tt.code, tt.pointer)
			if e.Index != tt.index {
				t.Errorf("got index %d, want %d", e.Index, tt.index)
			}
			if events != nil {
				t.Error("got events besides the error")
			}
		})
	}
	events, err := event.ParseBatch([]byte(many(1000, item)))
	if err != nil || len(events) != 1000 {
		t.Errorf("got %d events, %v; want 1000", len(events), err)
	}
	events, err = event.ParseBatch([]byte(`[{"type":"a.b","data":1}, {"type":"a.c","data": [2] }]`))
	if err != nil || len(events) != 2 || events[1].Type != "a.c" || string(events[1].Data) != "[2]" {
		t.Errorf("got %v, %v", events, err)
	}
}

func TestBatchBytesAreCountedAsStored(t *testing.T) {
	data := append(append([]byte{'"'}, bytes.Repeat([]byte("x"), 900_000)...), '"')
	e := event.Event{ID: "1", Type: "a.b", Source: "s", Data: data}
	batch := []event.Event{e, e}
	if err := event.CheckBatchBytes(batch); err != nil {
		t.Error(err)
	}
	if e := wantError(t, event.CheckBatchBytes(append(batch, e)), "too_large", ""); e.Status != 413 {
		t.Errorf("got status %d, want 413", e.Status)
	}
	if got, want := e.StoredBytes(), len(e.AppendAttributes(nil))+len(data); got != want {
		t.Errorf("got %d stored bytes, want %d", got, want)
	}
}
