package event_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"testing"

	"github.com/hooksidecar/hooksidecar/internal/event"
)

var testHeader = event.BatchHeader{Protocol: event.Protocol, From: event.Party{Service: "order-service", Instance: "ord-1", StoreID: "st_1"}, To: "payment-service", Cursor: 17}

// delivery makes a delivery of the event in body.
func delivery(t testing.TB, seq uint64, body string) event.Delivery {
	t.Helper()
	e := filled(t, []byte(body))
	return event.Delivery{Seq: seq, Attempt: 2, Redelivery: true, AcceptedAt: 1770000000000, Digest: e.Digest(), Attributes: e.AppendAttributes(nil), Data: e.Data}
}

func testBatch(t testing.TB) ([]byte, []event.Delivery) {
	list := []event.Delivery{
		delivery(t, 18, `{"type":"order.created","key":"ord_1","data":{"x": [1, "é"]},"metadata":{"a":1},"extra":true}`),
		delivery(t, 19, `{"type":"order.paid","dataContentType":"image/png","dataBase64":"AAH/Ig=="}`),
		delivery(t, 20, `{"type":"order.noted","dataContentType":"text/plain","dataBase64":""}`),
	}
	w := event.NewBatchWriter(nil, testHeader)
	for _, d := range list {
		w.Add(d)
	}
	if w.Len() != len(list) {
		t.Errorf("got length %d, want %d", w.Len(), len(list))
	}
	return w.Bytes(), list
}

func TestBatchRoundTrip(t *testing.T) {
	body, want := testBatch(t)
	h, rest, err := event.ReadBatchHeader(body)
	if err != nil || h != testHeader {
		t.Fatalf("got header %+v, %v", h, err)
	}
	for _, want := range want {
		d, e, next, err := event.ReadDelivery(rest)
		if err != nil {
			t.Fatal(err)
		}
		if d.Seq != want.Seq || d.Attempt != 2 || !d.Redelivery || d.AcceptedAt != want.AcceptedAt || d.Digest != want.Digest ||
			!bytes.Equal(d.Attributes, want.Attributes) || !bytes.Equal(d.Data, want.Data) {
			t.Errorf("got  %+v\nwant %+v", d, want)
		}
		if !bytes.Equal(e.AppendAttributes(nil), want.Attributes) || !bytes.Equal(e.Data, want.Data) {
			t.Errorf("got event %q, want %s", e, want.Attributes)
		}
		rest = next
	}
	if _, _, _, err := event.ReadDelivery(rest); err != io.EOF {
		t.Errorf("got %v at the end, want io.EOF", err)
	}
}

func TestBatchWriterUsesItsBuffer(t *testing.T) {
	buf := make([]byte, 100, 4096)
	w := event.NewBatchWriter(buf, testHeader)
	if &w.Bytes()[0] != &buf[0] {
		t.Error("the buffer given is not used")
	}
}

// TestBatchCutAnywhere is refused at every place but those between two events.
func TestBatchCutAnywhere(t *testing.T) {
	body, _ := testBatch(t)
	whole := 0
	for n := range len(body) {
		_, rest, err := event.ReadBatchHeader(body[:n])
		for err == nil {
			_, _, rest, err = event.ReadDelivery(rest)
		}
		if err == io.EOF {
			whole++
			continue
		}
		wantError(t, err, "bad_frame", "")
	}
	if whole != 3 { // behind the header, and behind two of three events
		t.Errorf("%d cuts were taken for whole batches, want 3", whole)
	}
}

func frame(b string) string { return string(binary.AppendUvarint(nil, uint64(len(b)))) + b }

func TestReadBatchHeaderRefuses(t *testing.T) {
	const good = `{"protocol":1,"from":{"service":"a","instance":"b","storeId":"c"},"to":"d","cursor":0}`
	if _, _, err := event.ReadBatchHeader([]byte(frame(strings.Replace(good, `"to"`, `"later":[1],"to"`, 1)))); err != nil {
		t.Errorf("a member of a later version: %v", err)
	}
	change := func(old, new string) string { return frame(strings.Replace(good, old, new, 1)) }
	tests := []struct{ name, body, code, pointer string }{
		{"empty", "", "bad_frame", ""},
		{"length not minimal", "\xd6\x00" + good, "bad_frame", ""},
		{"length without end", strings.Repeat("\xff", 11), "bad_frame", ""},
		{"length of 2^63", "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", "bad_frame", ""},
		{"too long", frame(`{"x":"` + strings.Repeat("x", 4<<10) + `"}`), "bad_frame", ""},
		{"not JSON", frame("x"), "bad_frame", ""},
		{"empty frame", frame(""), "bad_frame", ""},
		{"behind the JSON", frame(good + "}"), "bad_frame", ""},
		{"protocol 2", change(":1", ":2"), "unsupported_protocol", "/protocol"},
		{"protocol text", change(":1", `:"1"`), "bad_frame", "/protocol"},
		{"cursor negative", change(":0", ":-1"), "bad_frame", "/cursor"},
		{"cursor with fraction", change(":0", ":1.0"), "bad_frame", "/cursor"},
		{"cursor beyond 63 bits", change(":0", ":9223372036854775808"), "bad_frame", "/cursor"},
		{"no store id", change("storeId", "store"), "bad_frame", "/from"},
		{"no service", change(`"a"`, `""`), "bad_frame", "/from/service"},
		{"twice", change(`"to":"d"`, `"to":"d","to":"e"`), "bad_frame", "/to"},
		{"case variant", change(`"to":"d"`, `"to":"d","To":"e"`), "bad_frame", "/To"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := event.ReadBatchHeader([]byte(tt.body))
			e := wantError(t, err, tt.code, tt.pointer)
			if tt.code == "unsupported_protocol" && e.Status != 426 {
				t.Errorf("got status %d, want 426", e.Status)
			}
		})
	}
}

func TestReadDeliveryRefuses(t *testing.T) {
	d := delivery(t, 18, `{"id":"evt_1","type":"order.created","data":{"x":1}}`)
	w := event.NewBatchWriter(nil, testHeader)
	w.Add(d)
	_, rest, err := event.ReadBatchHeader(w.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	size, n := binary.Uvarint(rest)
	attributes, data := string(rest[n:n+int(size)]), string(rest[n+int(size):])
	change := func(old, new string) string { return frame(strings.Replace(attributes, old, new, 1)) + data }

	tests := []struct {
		name, rest, code, pointer string
		goesOn                    bool // the event is wrong, not the frame
	}{
		{"no data frame", frame(attributes), "bad_frame", "", false},
		{"attributes too long", frame(strings.Replace(attributes, "{", "{"+strings.Repeat(" ", 40<<10), 1)) + data, "bad_frame", "", false},
		{"data too long", frame(attributes) + frame(strings.Repeat("1", event.MaxEventBytes+1)), "bad_frame", "", false},
		{"seq 0", change(`"seq":18`, `"seq":0`), "bad_frame", "", false},
		{"attempt 0", change(`"attempt":2`, `"attempt":0`), "bad_frame", "", false},
		{"no seq", change(`"seq"`, `"x"`), "bad_frame", "", false},
		{"redelivery number", change(`true`, `1`), "bad_frame", "/redelivery", false},
		{"digest short", change(`"digest":"`, `"digest":"AA`), "bad_frame", "/digest", false},
		{"digest number", change(`"digest":"`, `"digest":5,"x":"`), "bad_frame", "/digest", false},
		{"event twice", change(`"event":`, `"event":{},"event":`), "bad_frame", "/event", false},
		{"event not JSON", change(`"event":{`, `"event":{]`), "bad_frame", "/event", false},
		{"behind the JSON", frame(attributes+" x") + data, "bad_frame", "", false},
		{"type", change("order.created", "order"), "invalid_field", "/type", true},
		{"no id", change(`"id":`, `"x":`), "missing_field", "/id", true},
		{"data in attributes", change(`"id":`, `"data":1,"id":`), "invalid_field", "/data", true},
		{"other type than digested", change("order.created", "order.deleted"), "bad_frame", "/digest", true},
		{"other data than digested", frame(attributes) + frame(`{"x":2}`), "bad_frame", "/digest", true},
		{"data not JSON", frame(attributes) + frame(`1},"id":{"x":1`), "trailing_data", "/data", true},
		{"data empty", frame(attributes) + frame(``), "invalid_json", "/data", true},
		{"data with space", frame(attributes) + frame(` {"x":1}`), "invalid_field", "/data", true},
		{"event too large", change(`"id":`, `"x":"`+strings.Repeat("x", 33<<10)+`","id":`), "too_large", "", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, _, next, err := event.ReadDelivery([]byte(tt.rest))
			wantError(t, err, tt.code, tt.pointer)
			if goesOn := next != nil; goesOn != tt.goesOn {
				t.Errorf("got next %v, want %v", goesOn, tt.goesOn)
			}
			if tt.goesOn && d.Seq != 18 {
				t.Errorf("got seq %d, want 18", d.Seq)
			}
		})
	}
}
