package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// appSecret signs the hop to the apps of these tests.
const appSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="

// articleEnvelope is the event of the article, byte for byte.
const articleEnvelope = `{
"id": "evt_a1b2c3d4",
"type": "order.created",
"version": "1.0",
"timestamp": "2026-02-03T10:30:00Z",
"source": "order-service",
"data": {
"orderId": "ord_789",
"customerId": "cust_456",
"items": [
{ "sku": "WIDGET-001", "quantity": 2, "price": 29.99 }
],
"total": 59.98
},
"metadata": {
"correlationId": "req_xyz",
"userId": "user_123"
}
}`

// Both versions of the article, as it writes them: without an id, a timestamp or a source.
const (
	articleVersion1 = `{"type": "order.created", "version": "1.0", "data": {"orderId": "ord_789", "total": 59.98}}`
	articleVersion2 = `{"type": "order.created", "version": "2.0", "data": {"orderId": "ord_790", "total": 59.98, "shippingAddress": {"street": "123 Main St", "city": "Portland"}}}`
)

// dataOf cuts the bytes of data out of an envelope.
func dataOf(t *testing.T, envelope string) string {
	t.Helper()
	var e struct{ Data json.RawMessage }
	if err := json.Unmarshal([]byte(envelope), &e); err != nil {
		t.Fatal(err)
	}
	return string(e.Data)
}

// pair starts an order service that publishes, and a payment service whose app gets order.*.
func pair(t *testing.T, app *fakeApp, flags ...string) (order, payment *sidecar) {
	t.Helper()
	order = newSidecar(t, settings{service: "order-service"})
	payment = newSidecar(t, settings{service: "payment-service", subscribe: []string{"order.*"}, appURL: app.url(), secret: appSecret, flags: flags})
	know(order, payment)
	order.start()
	payment.start()
	acquainted(t, order, "payment-service")
	return order, payment
}

// acquainted waits until a publisher lists the subscribers of order.created. It asks with events, which the publisher
// keeps in its probes: their apps may get them.
func acquainted(t *testing.T, publisher *sidecar, subscribers ...string) {
	t.Helper()
	p := newProducer(t, publisher)
	eventually(t, 20*time.Second, publisher.settings.service+" knows its subscribers", func() error {
		id := fmt.Sprint("probe-", len(publisher.probes))
		r := p.send(envelope{ID: id, Type: "order.created", Data: json.RawMessage(`"probe"`)})
		publisher.probes = append(publisher.probes, posted{Source: publisher.settings.service, ID: id, Type: "order.created", Data: `"probe"`, Outcome: unknown, Seq: r.accepted.Seq})
		if r.status != 202 {
			return fmt.Errorf("publish answers %v", r)
		}
		for _, s := range subscribers {
			if !slices.Contains(r.accepted.Subscribers, s) {
				return fmt.Errorf("subscribers are %v", r.accepted.Subscribers)
			}
		}
		return nil
	})
}

// hasDone waits until the app has answered every acknowledged event with 2xx.
func hasDone(t *testing.T, within time.Duration, app *fakeApp, events []posted) {
	t.Helper()
	eventually(t, within, "the app has every acknowledged event", func() error {
		done, missing, first := app.done(), 0, ""
		for _, p := range events {
			if p.Outcome == acknowledged && !done[p.ID] {
				missing++
				if first == "" {
					first = p.ID
				}
			}
		}
		if missing > 0 {
			return fmt.Errorf("%d of %d are missing, the first is %s", missing, len(events), first)
		}
		return nil
	})
}

// TestArticle posts the events of the article to one sidecar and reads them at another service's app.
func TestArticle(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	order, payment := pair(t, app)
	p := newProducer(t, order)

	r := p.sendRaw("/outbox", []byte(articleEnvelope))
	if r.status != 202 || r.accepted.ID != "evt_a1b2c3d4" || r.accepted.CorrelationID != "req_xyz" || r.accepted.Duplicate || r.accepted.Seq == 0 {
		t.Errorf("the first post is answered %v", r)
	}
	if got := r.header.Get("Location"); !strings.HasSuffix(got, "/outbox/events/evt_a1b2c3d4") {
		t.Errorf("Location is %q", got)
	}
	first := posted{Source: "order-service", ID: "evt_a1b2c3d4", Type: "order.created", Data: dataOf(t, articleEnvelope), Outcome: acknowledged, Seq: r.accepted.Seq}
	all := append(slices.Clone(order.probes), first)
	for _, body := range []string{articleVersion1, articleVersion2} {
		r := p.sendRaw("/outbox", []byte(body))
		if r.status != 202 || r.accepted.ID == "" {
			t.Fatalf("%s is answered %v", body, r)
		}
		all = append(all, posted{Source: "order-service", ID: r.accepted.ID, Type: "order.created", Data: dataOf(t, body), Outcome: acknowledged, Seq: r.accepted.Seq})
	}
	hasDone(t, 10*time.Second, app, all)

	got := app.of("evt_a1b2c3d4")[0]
	if got.Path != "/events" || got.Version != "1.0" || got.Metadata["userId"] != "user_123" || got.Header.Get("X-Correlation-ID") != "req_xyz" {
		t.Errorf("the app got %s %s with headers %v", got.Path, got.Body, got.Header)
	}
	var e struct{ Timestamp string }
	if err := json.Unmarshal(got.Body, &e); err != nil || e.Timestamp != "2026-02-03T10:30:00Z" {
		t.Errorf("timestamp is %q (%v), want the producer's", e.Timestamp, err)
	}
	if v2 := app.of(all[len(all)-1].ID)[0]; v2.Version != "2.0" || !strings.Contains(string(v2.Data), "shippingAddress") {
		t.Errorf("version 2 arrived as %s", v2.Body)
	}
	story{subscriber: "payment-service", posted: all, arrivals: app.arrivals(), secret: appSecret}.check(t)
	appliedAt(p, "evt_a1b2c3d4", "payment-service")
	order.stop()
	payment.stop()
}

// settledAt waits until a publisher says that an event has reached a state at a subscriber.
func settledAt(t *testing.T, publisher *sidecar, id, subscriber, state string) {
	t.Helper()
	eventually(t, 15*time.Second, id+" is "+state+" at "+subscriber, func() error {
		status, body := get(t, publisher.appURL()+"/outbox/events/"+id)
		if status != 200 || !strings.Contains(body, `"`+subscriber+`"`) || !strings.Contains(body, `"`+state+`"`) {
			return fmt.Errorf("it answers %d %s", status, body)
		}
		return nil
	})
}

// appliedAt waits until a publisher says that an event is done at a subscriber. It hears of that in the answers to later
// deliveries only, so it is given some.
func appliedAt(p *producer, id, subscriber string) {
	p.t.Helper()
	eventually(p.t, 15*time.Second, id+" is applied at "+subscriber, func() error {
		p.mustPublish(envelope{ID: fmt.Sprint("later-than-", id, "-", len(p.ledger.all())), Type: "order.created", Data: json.RawMessage(`{}`)})
		status, body := get(p.t, p.to.appURL()+"/outbox/events/"+id)
		if status != 200 || !strings.Contains(body, `"`+subscriber+`"`) || !strings.Contains(body, `"applied"`) {
			return fmt.Errorf("it answers %d %s", status, body)
		}
		return nil
	})
}

// TestSagaWithNode runs the article's payment service on Node.js between two sidecars: it gets order.created in both
// versions, and publishes payment.initiated, which the order service's app gets.
func TestSagaWithNode(t *testing.T) {
	t.Parallel()
	orderApp := newApp(t)
	order := newSidecar(t, settings{service: "order-service", subscribe: []string{"payment.*"}, appURL: orderApp.url(), secret: appSecret})
	payment := newSidecar(t, settings{service: "payment-service", subscribe: []string{"order.*"}, secret: appSecret})
	node := startNode(t, appSecret, payment.appURL())
	payment.settings.appURL = node.url()
	know(order, payment)
	order.start()
	payment.start()
	acquainted(t, order, "payment-service")
	p := newProducer(t, order)
	v1 := p.sendRaw("/outbox", []byte(articleEnvelope))
	v2 := p.sendRaw("/outbox", []byte(articleVersion2))

	handled := func(id string) nodeLine {
		return node.waitFor(t, 10*time.Second, "handles "+id, func(l nodeLine) bool { return l.Handled != "" && l.ID == id })
	}
	if got := handled(v1.accepted.ID); got.Version != "1.0" || got.OrderID != "ord_789" || got.Total != 59.98 || got.City != "" || got.CorrelationID != "req_xyz" || got.UserID != "user_123" {
		t.Errorf("node handled version 1 as %+v", got)
	}
	if got := handled(v2.accepted.ID); got.Version != "2.0" || got.OrderID != "ord_790" || got.City != "Portland" {
		t.Errorf("node handled version 2 as %+v", got)
	}
	eventually(t, 15*time.Second, "the order app gets payment.initiated", func() error {
		if done := orderApp.done(); !done["pay_"+v1.accepted.ID] || !done["pay_"+v2.accepted.ID] {
			return fmt.Errorf("it has %v", done)
		}
		return nil
	})
	got := orderApp.of("pay_evt_a1b2c3d4")[0]
	if got.Source != "payment-service" || got.Type != "payment.initiated" || got.Key != "ord_789" || got.Header.Get("X-Correlation-ID") != "req_xyz" || got.Metadata["causationId"] != "evt_a1b2c3d4" {
		t.Errorf("the order app got %s with headers %v", got.Body, got.Header)
	}
	if why := verifyAppHop(appSecret, got); why != "" {
		t.Error(why)
	}
	for _, l := range node.printed() {
		if l.BadSignature != "" || l.Error != "" || l.Repeat != "" || l.Published != "" && l.Status != 202 {
			t.Errorf("node printed %+v", l)
		}
	}
	order.stop()
	payment.stop()
}

// TestThreeServices publishes to two subscribers with different patterns, of which one goes away: the other gets its
// events meanwhile, and the first gets all of its own when it is back.
func TestThreeServices(t *testing.T) {
	t.Parallel()
	payApp, shipApp := newApp(t), newApp(t)
	order := newSidecar(t, settings{service: "order-service"})
	payment := newSidecar(t, settings{service: "payment-service", subscribe: []string{"order.created", "order.paid"}, appURL: payApp.url(), secret: appSecret})
	shipping := newSidecar(t, settings{service: "shipping-service", subscribe: []string{"order.**", "!order.paid"}, appURL: shipApp.url(), secret: appSecret})
	know(order, payment)
	know(order, shipping)
	order.start()
	payment.start()
	shipping.start()
	acquainted(t, order, "payment-service", "shipping-service")

	p := newProducer(t, order)
	publish := func(from, to int) {
		for n := from; n < to; n++ {
			for _, typ := range []string{"order.created", "order.paid", "order.address.changed"} {
				p.mustPublish(envelope{ID: fmt.Sprintf("%s-%d", typ, n), Type: typ, Key: "ord_" + fmt.Sprint(n%3), Data: json.RawMessage(fmt.Sprintf(`{"n":%d}`, n))})
			}
		}
	}
	publish(0, 10)
	shipping.kill()
	publish(10, 30)
	wantedBy := func(types ...string) []posted {
		list := slices.Clone(order.probes)
		for _, e := range p.ledger.all() {
			if strings.Contains(strings.Join(types, " "), e.Type) {
				list = append(list, e)
			}
		}
		return list
	}
	payWants, shipWants := wantedBy("order.created", "order.paid"), wantedBy("order.created", "order.address.changed")
	hasDone(t, 10*time.Second, payApp, payWants) // while shipping is away
	if missing := len(shipWants) - len(shipApp.done()); missing < 40 {
		t.Errorf("shipping is away and misses only %d", missing)
	}
	shipping.start()
	hasDone(t, 20*time.Second, shipApp, shipWants)
	story{subscriber: "payment-service", posted: payWants, arrivals: payApp.arrivals(), secret: appSecret}.check(t)
	story{subscriber: "shipping-service", posted: shipWants, arrivals: shipApp.arrivals(), secret: appSecret}.check(t)
}

// TestPeerNamedOnOneSideOnly needs --peer at the subscriber alone: descriptors are exchanged, not only fetched.
func TestPeerNamedOnOneSideOnly(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	order := newSidecar(t, settings{service: "order-service"})
	payment := newSidecar(t, settings{service: "payment-service", subscribe: []string{"order.*"}, appURL: app.url(), secret: appSecret})
	payment.peers = []*sidecar{order}
	order.start()
	p := newProducer(t, order)
	r := p.send(envelope{ID: "alone", Type: "order.created", Data: json.RawMessage(`{}`)})
	if r.status != 202 || len(r.accepted.Subscribers) != 0 {
		t.Errorf("without peers: %v, want 202 with no subscriber", r)
	}
	payment.start()
	acquainted(t, order, "payment-service")
	e := p.mustPublish(envelope{ID: "known", Type: "order.created", Data: json.RawMessage(`{}`)})
	hasDone(t, 10*time.Second, app, []posted{e})
}

// TestNewSubscriberStartsWhereItAsks starts a subscriber after events were published: from "earliest" it gets them all.
func TestNewSubscriberStartsWhereItAsks(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	order := newSidecar(t, settings{service: "order-service"}).start()
	p := newProducer(t, order)
	for n := range 20 {
		p.mustPublish(envelope{ID: fmt.Sprint("early-", n), Type: "order.created", Data: json.RawMessage(`{}`)})
	}
	payment := newSidecar(t, settings{service: "payment-service", appURL: app.url(), secret: appSecret})
	writeConfig(t, payment, "app:\n  subscriptions:\n    - types: [\"order.*\"]\n      from: earliest\n      path: /webhooks/orders\n")
	payment.peers = []*sidecar{order}
	payment.start()
	hasDone(t, 20*time.Second, app, p.ledger.all())
	for _, a := range app.arrivals() {
		if a.Path != "/webhooks/orders" {
			t.Errorf("%s came to %s", a.ID, a.Path)
		}
	}
	story{subscriber: "payment-service", posted: p.ledger.all(), arrivals: app.arrivals(), secret: appSecret}.check(t)
}

// TestBatch posts an array: all or nothing.
func TestBatch(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	order, _ := pair(t, app)
	p := newProducer(t, order)
	good := `[{"id":"b1","type":"order.created","key":"k","data":{"n":1}},{"id":"b2","type":"order.created","key":"k","data":{"n":2}}]`
	if r := p.sendRaw("/outbox/batch", []byte(good)); r.status != 202 {
		t.Fatalf("a batch is answered %v", r)
	}
	bad := `[{"id":"b3","type":"order.created","data":{}},{"id":"b4","type":"nodots","data":{}}]`
	if r := p.sendRaw("/outbox/batch", []byte(bad)); r.status != 400 || r.Index == nil || *r.Index != 1 {
		t.Errorf("a batch with a bad second event is answered %v, want 400 with index 1", r)
	}
	if status, body := get(t, order.appURL()+"/outbox/events/b3"); status != 404 {
		t.Errorf("the good event of the refused batch: %d %s", status, body)
	}
	all := append(slices.Clone(order.probes), []posted{
		{Source: "order-service", ID: "b1", Key: "k", Data: `{"n":1}`, Outcome: acknowledged, Seq: 1_000_001},
		{Source: "order-service", ID: "b2", Key: "k", Data: `{"n":2}`, Outcome: acknowledged, Seq: 1_000_002}}...)
	hasDone(t, 10*time.Second, app, all)
	story{subscriber: "payment-service", posted: all, arrivals: app.arrivals(), secret: appSecret}.check(t)
}
