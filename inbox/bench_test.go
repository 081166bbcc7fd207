package inbox

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/event"
)

// BenchmarkForward measures events through the whole inbox, from a signed batch to a real app's answer.
func BenchmarkForward(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	defer server.Close()
	n := newNode(b, func(c *Config) { c.App.URL, c.Transport = server.URL, nil })
	n.run()
	b.ReportAllocs()
	seq := uint64(0)
	for b.Loop() {
		var ds []event.Delivery
		for range 256 {
			seq++
			ds = append(ds, deliveryOf(seq, newEvent(fmt.Sprintf("evt_%d", seq), "")))
		}
		n.deliver(ds...)
		for n.in.Status().Backlog > 2000 {
			time.Sleep(time.Millisecond)
		}
	}
	n.until("all are settled", n.drained)
	b.ReportMetric(float64(seq)/b.Elapsed().Seconds(), "events/s")
}
