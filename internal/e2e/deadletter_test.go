package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestPoisonEvents lets an app refuse one event for good (400) and fail on another for ever (500): both end as dead
// letters, the first at once, the others go on, and after the app is fixed a replay brings each to its end.
func TestPoisonEvents(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	order, payment := pair(t, app, "--retry-max-attempts", "3", "--retry-initial", "20ms", "--retry-max-interval", "50ms")
	app.answers(func(a arrival) answer {
		switch {
		case a.ID == "poison-400":
			return answer{status: 400, body: "no such customer", header: map[string]string{"X-Why": "test"}}
		case a.ID == "poison-500":
			return answer{status: 500, body: "division by zero"}
		}
		return answer{status: 200}
	})
	p := newProducer(t, order)
	poison := map[string]posted{}
	for n := range 10 {
		p.mustPublish(envelope{ID: fmt.Sprint("good-", n), Type: "order.created", Data: json.RawMessage(`{}`)})
	}
	for _, id := range []string{"poison-400", "poison-500"} {
		poison[id] = p.mustPublish(envelope{ID: id, Type: "order.created", Data: json.RawMessage(`{"canary":"` + canary + `"}`)})
	}
	for n := range 10 {
		p.mustPublish(envelope{ID: fmt.Sprint("after-", n), Type: "order.created", Data: json.RawMessage(`{}`)})
	}
	good := slices.DeleteFunc(p.ledger.all(), func(e posted) bool { return strings.HasPrefix(e.ID, "poison") })
	hasDone(t, 10*time.Second, app, good)

	letters := map[string]letter{}
	eventually(t, 10*time.Second, "both are dead letters", func() error {
		for _, l := range deadLetters(t, payment) {
			letters[l.EventID] = l
		}
		if len(letters) != 2 {
			return fmt.Errorf("letters are %+v", letters)
		}
		return nil
	})
	for id, want := range map[string]struct {
		attempts, status int
		body             string
	}{"poison-400": {1, 400, "no such customer"}, "poison-500": {3, 500, "division by zero"}} {
		l := letters[id]
		if l.State != "dead" || l.Side != "inbox" || l.Source != "order-service" || l.Attempts != want.attempts || l.Last.Status != want.status || l.Last.Body != want.body || l.Reason == "" {
			t.Errorf("letter of %s is %+v, want %+v", id, l, want)
		}
		if n := len(app.of(id)); n != want.attempts {
			t.Errorf("the app got %s %d times, want %d", id, n, want.attempts)
		}
		var shown letter
		payment.commandJSON(&shown, "dlq", "show", l.ID, "-o", "json")
		if shown.EventID != id || !strings.Contains(string(shown.Event), canary) {
			t.Errorf("dlq show prints %+v, event %s", shown, shown.Event)
		}
		appliedAt(p, id, "payment-service") // the publisher is done with it
	}
	if r := payment.command("dlq", "list"); r.code != 0 || !strings.Contains(r.stdout, letters["poison-400"].ID) {
		t.Errorf("dlq list prints %v", r)
	}

	app.answers(nil)
	for id, l := range letters {
		if r := payment.command("dlq", "replay", l.ID); r.code != 0 {
			t.Errorf("dlq replay %s: %v", id, r)
		}
	}
	hasDone(t, 10*time.Second, app, p.ledger.all())
	eventually(t, 10*time.Second, "the letters are resolved", func() error {
		for _, l := range letters {
			var shown letter
			payment.commandJSON(&shown, "dlq", "show", l.ID, "-o", "json")
			if shown.State != "resolved" {
				return fmt.Errorf("%s is %s", shown.EventID, shown.State)
			}
		}
		return nil
	})
	before := len(app.arrivals())
	if r := payment.command("dlq", "replay", letters["poison-400"].ID); r.code != 1 {
		t.Errorf("a second replay of a resolved letter: %v, want exit code 1", r)
	}
	if r := payment.command("dlq", "replay", "dl_00000000000000000000000000000000"); r.code != 3 {
		t.Errorf("replay of no letter: %v, want exit code 3", r)
	}
	p.mustPublish(envelope{ID: "last", Type: "order.created", Data: json.RawMessage(`{}`)})
	hasDone(t, 10*time.Second, app, p.ledger.all())
	if got := len(app.arrivals()); got != before+1 {
		t.Errorf("the refused replays led to %d requests", got-before-1)
	}
	story{subscriber: "payment-service", posted: append(p.ledger.all(), order.probes...), arrivals: app.arrivals(), secret: appSecret}.check(t)
}

// TestKeyGoesOnBehindADeadLetter: the events of a key wait while its head is tried, and go on in order when the head
// is dead, also across a crash. Its replay comes when it comes.
func TestKeyGoesOnBehindADeadLetter(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	order, payment := pair(t, app, "--retry-max-attempts", "4", "--retry-initial", "200ms", "--retry-max-interval", "200ms")
	app.answers(func(a arrival) answer {
		if a.ID == "head" {
			return answer{status: 500, body: "not yet"}
		}
		return answer{status: 200}
	})
	p := newProducer(t, order)
	p.mustPublish(envelope{ID: "head", Type: "order.created", Key: "k", Data: json.RawMessage(`{"n":0}`)})
	for n := range 5 {
		p.mustPublish(envelope{ID: fmt.Sprint("held-", n), Type: "order.created", Key: "k", Data: json.RawMessage(fmt.Sprintf(`{"n":%d}`, n+1))})
		p.mustPublish(envelope{ID: fmt.Sprint("free-", n), Type: "order.created", Key: "l", Data: json.RawMessage(`{}`)})
	}
	settledAt(t, order, "free-4", "payment-service", "stored")
	payment.kill()
	payment.start()
	others := slices.DeleteFunc(p.ledger.all(), func(e posted) bool { return e.ID == "head" })
	hasDone(t, 15*time.Second, app, others)
	var head letter
	eventually(t, 10*time.Second, "the head is a dead letter", func() error {
		letters := deadLetters(t, payment)
		if len(letters) != 1 || letters[0].EventID != "head" || letters[0].State != "dead" {
			return fmt.Errorf("letters are %+v", letters)
		}
		head = letters[0]
		return nil
	})
	lastTry := 0
	for i, a := range app.arrivals() {
		switch {
		case a.ID == "head":
			lastTry = i
		case a.ID == "held-0" && i < lastTry, a.ID == "held-0" && lastTry == 0:
			t.Error("an event came before the head of its key was given up")
		}
	}
	app.answers(nil)
	if r := payment.command("dlq", "replay", head.ID); r.code != 0 {
		t.Fatalf("dlq replay: %v", r)
	}
	hasDone(t, 10*time.Second, app, p.ledger.all())
	p.mustPublish(envelope{ID: "next", Type: "order.created", Key: "k", Data: json.RawMessage(`{"n":6}`)})
	hasDone(t, 10*time.Second, app, p.ledger.all())
	arrivals := slices.DeleteFunc(app.arrivals(), func(a arrival) bool { return a.ID == "head" })
	story{subscriber: "payment-service", posted: append(others, append(p.ledger.all()[len(others)+1:], order.probes...)...), arrivals: arrivals, secret: appSecret}.check(t)
	story{subscriber: "payment-service", posted: p.ledger.all()[:1], arrivals: app.of("head"), secret: appSecret}.check(t)
}
