package event_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/event"
)

// oneKiB is an envelope of 1,024 bytes, as an app posts it.
func oneKiB() []byte {
	const head = `{"id":"evt_a1b2c3d4e5f6","type":"order.created","version":"1.0","timestamp":"2026-02-03T10:30:00Z","source":"order-service","key":"ord_789",` +
		`"metadata":{"correlationId":"req_xyz","userId":"user_123","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},` +
		`"data":{"orderId":"ord_789","items":[`
	var b bytes.Buffer
	b.WriteString(head)
	for i := 0; b.Len() < 900; i++ {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"sku":"sku-%04d","name":"Größe %d","quantity":%d,"price":19.9%d}`, i, i, i+1, i)
	}
	b.WriteString(`],"note":"`)
	b.WriteString(strings.Repeat("x", 1024-b.Len()-len(`"}}`)))
	b.WriteString(`"}}`)
	return b.Bytes()
}

// filled returns the event of a body as it is stored.
func filled(t testing.TB, body []byte) event.Event {
	t.Helper()
	e, err := event.ParseEnvelope(body)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.FillIn(event.Defaults{Now: time.Unix(1770000000, 0), Service: "order-service"}); err != nil {
		t.Fatal(err)
	}
	return e
}

func BenchmarkParseEnvelope(b *testing.B) {
	body := oneKiB()
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := event.ParseEnvelope(body); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkParseEnvelopeEncodingJSON is what the reader of this package is compared with. It checks much less.
func BenchmarkParseEnvelopeEncodingJSON(b *testing.B) {
	body := oneKiB()
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		var e struct {
			ID, Type, Version, Timestamp, Source, Key string
			Metadata, Data                            json.RawMessage
		}
		if err := json.Unmarshal(body, &e); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAccept is what an outbox does with an event before it is stored.
func BenchmarkAccept(b *testing.B) {
	body := oneKiB()
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	d := event.Defaults{Now: time.Now(), Service: "order-service"}
	var dst []byte
	for b.Loop() {
		e, err := event.ParseEnvelope(body)
		if err != nil {
			b.Fatal(err)
		}
		if err := e.FillIn(d); err != nil {
			b.Fatal(err)
		}
		_ = e.Digest()
		dst = e.AppendAttributes(dst[:0])
	}
}

// BenchmarkReadDelivery is what an inbox does with an event before it is stored.
func BenchmarkReadDelivery(b *testing.B) {
	e := filled(b, oneKiB())
	d := event.Delivery{Seq: 1, Attempt: 1, AcceptedAt: 1770000000000, Digest: e.Digest(), Attributes: e.AppendAttributes(nil), Data: e.Data}
	w := event.NewBatchWriter(nil, event.BatchHeader{From: event.Party{Service: "a", Instance: "a-1", StoreID: "st_1"}, To: "b"})
	for range 100 {
		w.Add(d)
	}
	_, first, err := event.ReadBatchHeader(w.Bytes())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	rest := first
	for b.Loop() {
		_, _, next, err := event.ReadDelivery(rest)
		if err == io.EOF {
			_, _, next, err = event.ReadDelivery(first)
		}
		if err != nil {
			b.Fatal(err)
		}
		rest = next
	}
}

func BenchmarkPatternsMatch(b *testing.B) {
	ps, err := event.ParsePatterns([]string{"order.*", "payment.**", "stock.reserved@2", "!order.deleted"})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if !ps.Match("stock.reserved", "2.1") {
			b.Fatal("no match")
		}
	}
}
