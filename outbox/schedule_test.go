package outbox_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/backoff"
	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/signature"
	"github.com/hooksidecar/hooksidecar/internal/store"
	"github.com/hooksidecar/hooksidecar/outbox"
)

// A wire is a network without sockets, so that it runs on fake time.
type wire struct {
	in    *inbox
	down  atomic.Bool
	tries atomic.Int64
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	w.tries.Add(1)
	if w.down.Load() {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	}
	rec := httptest.NewRecorder()
	w.in.ServeHTTP(rec, r)
	return rec.Result(), nil
}

// onFakeTime runs f with an outbox whose only subscriber is reached through the wire.
func onFakeTime(t *testing.T, f func(t *testing.T, n *node, w *wire, inst event.Instance)) {
	synctest.Test(t, func(t *testing.T) {
		n := &node{t: t, dir: t.TempDir(), key: signature.GeneratePrivateKey(), peers: newDirectory()}
		w := &wire{in: &inbox{t: t, service: "payment", name: "pay-1", store: "st_pay-1", key: signature.GeneratePrivateKey(), sender: n.key.Public()}}
		var err error
		n.store, err = store.Open(store.Config{Dir: n.dir, Service: "order-service", BallastBytes: -1, MinFreeBytes: -1, AllowUnsafeFS: true})
		if err != nil {
			t.Fatal(err)
		}
		n.Outbox, err = outbox.New(outbox.Config{
			Service: "order-service", Instance: "order-1", Store: n.store, Directory: n.peers, Keys: []signature.PrivateKey{n.key},
			Transport: w, Retention: time.Hour, Retry: backoff.Policy{},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- n.Run(ctx) }()
		inst := event.Instance{Service: "payment", Name: "pay-1", StoreID: "st_pay-1", URL: "http://pay:9902", Boot: 1,
			Subscriptions: []event.Subscription{{Types: []string{"order.*"}, Since: time.Now()}}}
		n.peers.set("payment", w.in.key.Public(), inst)
		synctest.Wait()
		f(t, n, w, inst)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := n.store.Close(); err != nil {
			t.Error(err)
		}
	})
}

func (n *node) postDirectly(id string) int {
	rec := httptest.NewRecorder()
	req := httptest.NewRequest(http.MethodPost, "/outbox", strings.NewReader(`{"id":"`+id+`","type":"order.created","data":1}`))
	req.Header.Set("Content-Type", "application/json")
	n.ServePublish(rec, req)
	return rec.Code
}

func TestUnreachableSubscriberIsTriedOnScheduleAndOwedForEver(t *testing.T) {
	onFakeTime(t, func(t *testing.T, n *node, w *wire, _ event.Instance) {
		w.down.Store(true)
		if code := n.postDirectly("x"); code != 202 {
			t.Fatal(code)
		}
		time.Sleep(61 * time.Minute) // beyond the retention
		synctest.Wait()
		tries := int(w.tries.Load()) / 2 // each request that could not be made is repeated once at once
		if least, most := 61*2, 61*2*4; tries < least || tries > most {
			t.Errorf("%d tries in an hour, want %d to %d", tries, least, most)
		}
		if d := n.delivery("x", "payment"); d.State != outbox.Waiting || d.Attempts != 0 {
			t.Errorf("%+v", d)
		}
		w.down.Store(false)
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if got := w.in.received(); len(got) != 1 || got[0].redelivery || got[0].attempt != 1 {
			t.Errorf("%+v", got)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if c := n.Counts(); c.TailSeq != 2 || c.Bytes != 0 {
			t.Errorf("a settled event older than the retention is kept: %+v", c)
		}
		if code := n.postDirectly("x"); code != 200 {
			t.Errorf("its id is forgotten: %d", code)
		}
	})
}

func TestLaneWaitsAsLongAsItIsTold(t *testing.T) {
	onFakeTime(t, func(t *testing.T, n *node, w *wire, inst event.Instance) {
		w.in.set(func() {
			w.in.refuse = func(rw http.ResponseWriter, k int) bool {
				if k == 1 {
					rw.Header().Set("Retry-After", "7200")
					rw.WriteHeader(http.StatusTooManyRequests)
				}
				return k == 1
			}
		})
		n.postDirectly("x")
		time.Sleep(time.Hour)
		if tries := w.tries.Load(); tries != 1 {
			t.Fatalf("%d tries in the first hour", tries)
		}
		n.postDirectly("y")
		inst.Boot++ // it was restarted
		n.peers.set("payment", w.in.key.Public(), inst)
		synctest.Wait()
		if ids := w.in.ids(); len(ids) != 2 || ids[0] != "x" {
			t.Errorf("after its restart: %v", ids)
		}
	})
}

func TestPublishThatWaitsTooLongIsNotStored(t *testing.T) {
	onFakeTime(t, func(t *testing.T, n *node, _ *wire, _ event.Instance) {
		release := make(chan struct{})
		n.store.Enqueue(store.Op{Class: store.Work, Apply: func(*store.Tx) error { <-release; return nil }})
		synctest.Wait()
		began := time.Now()
		if code := n.postDirectly("x"); code != 503 || time.Since(began) != 2*time.Second {
			t.Errorf("%d after %s, want 503 after 2 s", code, time.Since(began))
		}
		close(release)
		synctest.Wait()
		if c := n.Counts(); c.Accepted != 0 {
			t.Errorf("stored all the same: %+v", c)
		}
		if code := n.postDirectly("x"); code != 202 {
			t.Errorf("the repeat: %d", code)
		}
	})
}
