package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"
)

// TestSameID posts an id again: the same content is a duplicate, other content a conflict, also after a restart.
func TestSameID(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	order, payment := pair(t, app)
	p := newProducer(t, order)
	first := p.mustPublish(envelope{ID: "twice", Type: "order.created", Key: "k", Data: json.RawMessage(`{"n":1}`)})
	again := func(when string) {
		t.Helper()
		for what, e := range map[string]envelope{
			"the same":                {ID: "twice", Type: "order.created", Key: "k", Data: json.RawMessage(`{"n":1}`)},
			"the same in other words": {ID: "twice", Type: "order.created", Key: "k", Data: json.RawMessage(`{"n":1}`), Metadata: map[string]any{"correlationId": "later"}},
		} {
			r := p.send(e)
			if r.status != 200 || !r.accepted.Duplicate || r.accepted.Seq != first.Seq {
				t.Errorf("%s: %s is answered %v, want 200, duplicate, seq %d", when, what, r, first.Seq)
			}
		}
		for what, e := range map[string]envelope{
			"other data": {ID: "twice", Type: "order.created", Key: "k", Data: json.RawMessage(`{"n":2}`)},
			"other type": {ID: "twice", Type: "order.paid", Key: "k", Data: json.RawMessage(`{"n":1}`)},
			"other key":  {ID: "twice", Type: "order.created", Key: "l", Data: json.RawMessage(`{"n":1}`)},
		} {
			r := p.send(e)
			if r.status != 409 || r.Code != "id_conflict" || r.Retryable {
				t.Errorf("%s: %s is answered %v, want 409 id_conflict", when, what, r)
			}
		}
	}
	again("at once")
	hasDone(t, 10*time.Second, app, p.ledger.all())
	order.kill()
	order.start()
	again("after a crash")
	last := p.mustPublish(envelope{ID: "last", Type: "order.created", Key: "k", Data: json.RawMessage(`{}`)})
	hasDone(t, 20*time.Second, app, []posted{last})
	if n := len(app.of("twice")); n != 1 {
		t.Errorf("the app got the event %d times", n)
	}
	story{subscriber: "payment-service", posted: append(p.ledger.all(), order.probes...), arrivals: app.arrivals(), secret: appSecret}.check(t)
	payment.alive()
}

// TestConcurrentSameID posts one id from many connections: one event, and all answers agree.
func TestConcurrentSameID(t *testing.T) {
	t.Parallel()
	order := newSidecar(t, settings{service: "order-service"}).start()
	p := newProducer(t, order)
	const posts = 32
	ctx, cancel := context.WithTimeout(t.Context(), slowdown(10*time.Second))
	defer cancel()
	replies := make(chan reply, posts)
	for n := range posts {
		go func() {
			data := fmt.Sprintf(`{"body":%d}`, n%2)
			r, err := p.post(ctx, "/outbox", []byte(`{"id":"raced","type":"order.created","data":`+data+`}`))
			if err != nil {
				t.Error(err)
			}
			replies <- r
		}()
	}
	count, seqs := map[int]int{}, map[uint64]bool{}
	for range posts {
		r := <-replies
		count[r.status]++
		if r.status/100 == 2 {
			seqs[r.accepted.Seq] = true
		}
	}
	if count[202] != 1 || count[200] != posts/2-1 || count[409] != posts/2 || len(seqs) != 1 {
		t.Errorf("answers by status %v with seqs %v, want one 202, %d times 200, %d times 409, one seq", count, seqs, posts/2-1, posts/2)
	}
}
