package outbox_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hooksidecar/hooksidecar/internal/signature"
	"github.com/hooksidecar/hooksidecar/internal/store"
	"github.com/hooksidecar/hooksidecar/outbox"
)

// BenchmarkPublish compares 202s through the handler, which are synced to disk, with a bare echo handler that reads the body.
func BenchmarkPublish(b *testing.B) {
	b.Run("outbox", func(b *testing.B) {
		s, err := store.Open(store.Config{Dir: b.TempDir(), Service: "order-service", BallastBytes: -1, MinFreeBytes: -1, AllowUnsafeFS: true})
		if err != nil {
			b.Fatal(err)
		}
		defer s.Close()
		o, err := outbox.New(outbox.Config{
			Service: "order-service", Instance: "order-1", Store: s, Directory: newDirectory(),
			Keys: []signature.PrivateKey{signature.GeneratePrivateKey()},
		})
		if err != nil {
			b.Fatal(err)
		}
		benchmarkPosts(b, http.HandlerFunc(o.ServePublish))
	})
	b.Run("echo", func(b *testing.B) {
		benchmarkPosts(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				b.Error(err)
			}
			w.WriteHeader(http.StatusAccepted)
			w.Write(body[:64])
		}))
	})
}

func benchmarkPosts(b *testing.B, h http.Handler) {
	server := httptest.NewServer(h)
	defer server.Close()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 128}}
	data := strings.Repeat("x", 800)
	var n atomic.Int64
	b.SetParallelism(32) // of each processor
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			body := fmt.Appendf(nil, `{"id":"evt_%d","type":"order.created","key":"k%d","data":{"text":%q}}`, n.Add(1), n.Load()%100, data)
			resp, err := client.Post(server.URL+"/outbox", "application/json", bytes.NewReader(body))
			if err != nil {
				b.Error(err)
				return
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode != http.StatusAccepted {
				b.Errorf("status %d", resp.StatusCode)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "posts/s")
}
