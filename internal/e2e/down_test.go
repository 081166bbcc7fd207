package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"
)

// publishSome posts n events with ids "<name>-0" … over three keys.
func publishSome(p *producer, name string, n int) {
	p.t.Helper()
	for i := range n {
		p.mustPublish(envelope{ID: fmt.Sprintf("%s-%d", name, i), Type: "order.created", Key: fmt.Sprint("key-", i%3), Data: json.RawMessage(fmt.Sprintf(`{"n":%d}`, i))})
	}
}

// TestAppDown takes the app away: its events wait in the inbox, cost no attempts, and arrive in order when it is back.
func TestAppDown(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	order, payment := pair(t, app, "--retry-max-attempts", "2", "--retry-initial", "20ms", "--retry-max-interval", "100ms")
	p := newProducer(t, order)
	publishSome(p, "before", 3)
	hasDone(t, 10*time.Second, app, p.ledger.all())
	app.stop()
	publishSome(p, "down", 30)
	settledAt(t, order, "down-29", "payment-service", "stored")
	wait(t.Context(), 1500*time.Millisecond) // time for two attempts of each, if they were made
	app.start()
	hasDone(t, 15*time.Second, app, p.ledger.all())
	for _, a := range app.arrivals() {
		if a.attempt() != 1 {
			t.Errorf("%s arrives as attempt %d: an app that is down costs no attempt", a.ID, a.attempt())
		}
	}
	if dead := deadLetters(t, payment); len(dead) > 0 {
		t.Errorf("dead letters: %+v", dead)
	}
	story{subscriber: "payment-service", posted: append(p.ledger.all(), order.probes...), arrivals: app.arrivals(), secret: appSecret}.check(t)
}

// TestAppDownAcrossRestart is the same with a receiver that is killed meanwhile.
func TestAppDownAcrossRestart(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	order, payment := pair(t, app, "--retry-max-attempts", "2", "--retry-initial", "20ms", "--retry-max-interval", "100ms")
	p := newProducer(t, order)
	app.stop()
	publishSome(p, "down", 30)
	settledAt(t, order, "down-29", "payment-service", "stored")
	payment.kill()
	payment.start()
	publishSome(p, "later", 3)
	app.start()
	hasDone(t, 20*time.Second, app, p.ledger.all())
	story{subscriber: "payment-service", posted: append(p.ledger.all(), order.probes...), arrivals: app.arrivals(), secret: appSecret}.check(t)
}

// TestPeerDown takes the receiving sidecar away, and the sender too while it is alone.
func TestPeerDown(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	order, payment := pair(t, app)
	p := newProducer(t, order)
	publishSome(p, "before", 3)
	hasDone(t, 10*time.Second, app, p.ledger.all())
	payment.kill()
	publishSome(p, "down", 20)
	order.kill()
	order.start()
	publishSome(p, "alone", 20)
	if missing := app.done(); len(missing) > len(order.probes)+3 {
		t.Errorf("the app has %d events of a sidecar that is down", len(missing))
	}
	payment.start()
	hasDone(t, 20*time.Second, app, p.ledger.all())
	story{subscriber: "payment-service", posted: append(p.ledger.all(), order.probes...), arrivals: app.arrivals(), secret: appSecret}.check(t)
	appliedAt(p, "alone-19", "payment-service")
}

// TestSickApp lets the app fail for a while, in the ways that are retried: every event is done in the end, in order.
func TestSickApp(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	order, payment := pair(t, app, "--retry-initial", "20ms", "--retry-max-interval", "100ms", "--app-timeout", "300ms")
	bad := []answer{{status: 500}, {status: 503, header: map[string]string{"Retry-After": "1"}}, {status: 0}, {status: 429}, {status: 408}, {status: 200, delay: 2 * time.Second}}
	app.answers(func(a arrival) answer {
		if n := len(app.of(a.ID)); n == 1 && a.Key == "key-1" {
			return bad[len(app.arrivals())%len(bad)]
		}
		return answer{status: http.StatusNoContent}
	})
	p := newProducer(t, order)
	publishSome(p, "sick", 24)
	hasDone(t, 30*time.Second, app, p.ledger.all())
	if dead := deadLetters(t, payment); len(dead) > 0 {
		t.Errorf("dead letters: %+v", dead)
	}
	story{subscriber: "payment-service", posted: append(p.ledger.all(), order.probes...), arrivals: app.arrivals(), secret: appSecret}.check(t)
}
