package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"
)

// neverSent reports whether nothing of a request can have reached the sidecar: nobody listened.
func neverSent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial" && errors.Is(err, syscall.ECONNREFUSED)
}

// A load posts events of a number of keys, one producer goroutine per key, until it is stopped.
// Key number 0 is no key at all.
type load struct {
	producer *producer
	name     string        // begins the ids
	keys     int           // goroutines
	pace     time.Duration // between two events of a goroutine

	quit chan struct{}
	done sync.WaitGroup
}

// startLoad begins to post.
func startLoad(p *producer, name string, keys int, pace time.Duration) *load {
	l := &load{producer: p, name: name, keys: keys, pace: pace, quit: make(chan struct{})}
	for k := range keys {
		l.done.Go(func() { l.post(k) })
	}
	return l
}

func (l *load) post(k int) {
	for n := 1; ; n++ {
		select {
		case <-l.quit:
			return
		case <-time.After(l.pace):
		}
		// Not the test's context: an event that was begun is brought to its end, so that its outcome is known.
		ctx, cancel := context.WithTimeout(context.Background(), slowdown(30*time.Second))
		l.producer.publish(ctx, l.event(k, n))
		cancel()
	}
}

func (l *load) event(k, n int) envelope {
	e := envelope{ID: fmt.Sprintf("%s-%d-%d", l.name, k, n), Type: "order.created",
		Data: json.RawMessage(fmt.Sprintf(`{"n":%d,"canary":%q}`, n, canary))}
	if k > 0 {
		e.Key = fmt.Sprintf("%s-key-%d", l.name, k)
	}
	return e
}

// stop ends the load and waits until every event that was begun has its outcome.
func (l *load) stop() {
	close(l.quit)
	l.done.Wait()
}
