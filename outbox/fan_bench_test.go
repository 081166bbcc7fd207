package outbox_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/signature"
	"github.com/hooksidecar/hooksidecar/internal/store"
	"github.com/hooksidecar/hooksidecar/outbox"
)

// BenchmarkSubscribers shows what subscribers that cannot be reached cost those who publish: as good as nothing.
func BenchmarkSubscribers(b *testing.B) {
	for _, many := range []int{1, 50} {
		b.Run(fmt.Sprint(many), func(b *testing.B) {
			s, err := store.Open(store.Config{Dir: b.TempDir(), Service: "order-service", BallastBytes: -1, MinFreeBytes: -1, AllowUnsafeFS: true})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			peers := newDirectory()
			for i := range many {
				name := fmt.Sprintf("service-%d", i)
				peers.set(name, signature.GeneratePrivateKey().Public(), event.Instance{
					Service: name, Name: "one", StoreID: "st_" + name, URL: "http://127.0.0.1:1", Boot: 1,
					Subscriptions: []event.Subscription{{Types: []string{"order.*"}, Since: time.Now()}},
				})
			}
			o, err := outbox.New(outbox.Config{
				Service: "order-service", Instance: "order-1", Store: s, Directory: peers,
				Keys: []signature.PrivateKey{signature.GeneratePrivateKey()},
			})
			if err != nil {
				b.Fatal(err)
			}
			n := &node{Outbox: o}
			n.run()
			defer n.stop()
			for len(o.Subscribers()) < many {
				time.Sleep(time.Millisecond)
			}
			benchmarkPosts(b, http.HandlerFunc(o.ServePublish))
		})
	}
}
