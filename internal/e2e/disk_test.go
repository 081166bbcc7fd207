package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestReceiverLosesItsDisk takes the whole directory of a receiving sidecar while events wait in it for the app: the
// publisher sends them again, also when it dies meanwhile, and what reaches the app a second time is marked.
func TestReceiverLosesItsDisk(t *testing.T) {
	t.Parallel()
	for name, meanwhile := range map[string]func(order *sidecar){
		"the publisher goes on":  func(*sidecar) {},
		"the publisher dies too": func(order *sidecar) { order.kill(); order.start() },
	} {
		t.Run(name, func(t *testing.T) {
			app := newApp(t)
			order, payment := pair(t, app)
			p := newProducer(t, order)
			publishSome(p, "done", 5)
			hasDone(t, 10*time.Second, app, p.ledger.all())
			app.stop()
			publishSome(p, "waiting", 20)
			settledAt(t, order, "waiting-19", "payment-service", "stored")
			payment.kill()
			removeAll(t, payment.dataDir())
			payment.start()
			publishSome(p, "later", 5)
			meanwhile(order)
			if status, body := get(t, order.appURL()+"/outbox/events/waiting-3"); status != 200 || strings.Contains(body, `"applied"`) {
				t.Errorf("an event that the app never got: %d %s", status, body)
			}
			app.start()
			hasDone(t, 30*time.Second, app, p.ledger.all())
			story{subscriber: "payment-service", posted: append(p.ledger.all(), order.probes...), arrivals: app.arrivals(), secret: appSecret}.check(t)
		})
	}
}

// TestSenderLosesItsDisk takes the directory of a publisher: it is a new log with a new store id, whose events arrive
// though their seqs were seen before.
func TestSenderLosesItsDisk(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	order, _ := pair(t, app)
	p := newProducer(t, order)
	publishSome(p, "first-life", 10)
	hasDone(t, 10*time.Second, app, p.ledger.all())
	before := status(t, order).StoreID
	order.kill()
	removeAll(t, order.dataDir())
	order.start()
	acquainted(t, order, "payment-service")
	again := newProducer(t, order)
	publishSome(again, "second-life", 10)
	hasDone(t, 20*time.Second, app, again.ledger.all())
	if after := status(t, order).StoreID; after == before || after == "" {
		t.Errorf("store id %q, was %q", after, before)
	}
	for n := range 10 {
		if got := len(app.of(fmt.Sprint("second-life-", n))); got != 1 {
			t.Errorf("second-life-%d came %d times", n, got)
		}
	}
}

// TestLargeEvents sends events near the limit, more of them than one batch holds.
func TestLargeEvents(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	order, _ := pair(t, app)
	p := newProducer(t, order)
	text := make([]byte, 900_000)
	for i := range text {
		text[i] = 'a' + byte(i%26)
	}
	for n := range 6 {
		p.mustPublish(envelope{ID: fmt.Sprint("large-", n), Type: "order.created", Key: "k", Data: json.RawMessage(fmt.Sprintf(`{"n":%d,"text":%q}`, n, text))})
	}
	hasDone(t, 20*time.Second, app, p.ledger.all())
	story{subscriber: "payment-service", posted: append(p.ledger.all(), order.probes...), arrivals: app.arrivals(), secret: appSecret}.check(t)
}

// TestDiskLow raises the limit of free space above what the disk has: the outbox refuses, the inbox asks its senders to
// wait, and both go on once there is room.
func TestDiskLow(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	order, payment := pair(t, app)
	p := newProducer(t, order)
	publishSome(p, "before", 3)
	hasDone(t, 10*time.Second, app, p.ledger.all())
	for _, s := range []*sidecar{order, payment} {
		s.stop()
		s.minFree = "64TiB"
	}
	payment.start()
	order.launch()
	var r reply
	eventually(t, 10*time.Second, "the outbox answers", func() (err error) {
		r, err = p.post(t.Context(), "/outbox", []byte(`{"id":"too-late","type":"order.created","data":{}}`))
		return err
	})
	if r.status != 507 || r.Code != "disk_low" || !r.Retryable || r.header.Get("Retry-After") == "" {
		t.Errorf("with a full disk the outbox answers %v with headers %v, want 507 disk_low", r, r.header)
	}
	if status, body := get(t, order.appURL()+"/outbox/events/too-late"); status != 404 {
		t.Errorf("the refused event: %d %s", status, body)
	}
	order.stop()
	order.minFree = ""
	order.start()
	publishSome(p, "meanwhile", 5) // their receiver has no room
	settledAt(t, order, "meanwhile-4", "payment-service", "waiting")
	eventually(t, 10*time.Second, "the lane says why it waits", func() error {
		if _, body := get(t, "http://"+order.admin+"/api/v1/subscribers"); !strings.Contains(body, "busy") {
			return fmt.Errorf("subscribers are %s", body)
		}
		return nil
	})
	payment.stop()
	payment.minFree = ""
	payment.start()
	hasDone(t, 20*time.Second, app, p.ledger.all())
	story{subscriber: "payment-service", posted: append(p.ledger.all(), order.probes...), arrivals: app.arrivals(), secret: appSecret}.check(t)
}
