package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestTwoInstances runs two sidecars of one service with one key, in front of one app. Each event goes to one of them,
// a key always to the same, and when one is restarted under load nothing is lost or out of order.
func TestTwoInstances(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	order := newSidecar(t, settings{service: "order-service"})
	var pay [2]*sidecar
	for i := range pay {
		pay[i] = newSidecar(t, settings{service: "payment-service", instance: fmt.Sprint("pay-", i+1), subscribe: []string{"order.*"}, appURL: app.url(), secret: appSecret})
		know(order, pay[i])
	}
	order.start()
	pay[0].start()
	shareKey(t, pay[0], pay[1])
	pay[1].start()
	acquainted(t, order, "payment-service")
	eventually(t, 20*time.Second, "both instances are known", func() error {
		if _, body := get(t, "http://"+order.admin+"/api/v1/subscribers"); !strings.Contains(body, "pay-1") || !strings.Contains(body, "pay-2") {
			return fmt.Errorf("subscribers are %s", body)
		}
		return nil
	})
	p := newProducer(t, order)
	l := startLoad(p, "two", 12, 5*time.Millisecond)
	for i := range 2 {
		wait(t.Context(), 400*time.Millisecond)
		pay[i].kill()
		wait(t.Context(), 100*time.Millisecond)
		pay[i].start()
	}
	wait(t.Context(), 300*time.Millisecond)
	l.stop()
	hasDone(t, 30*time.Second, app, p.ledger.all())
	story{subscriber: "payment-service", posted: append(p.ledger.all(), order.probes...), arrivals: app.arrivals(), secret: appSecret}.check(t)
	for _, s := range pay {
		if st := status(t, s); st.Inbox.NextSeq < 10 {
			t.Errorf("%s has got only %d events: the two do not share the work", s.settings.instance, st.Inbox.NextSeq-1)
		}
	}
}

// shareKey gives the key of one instance to another.
func shareKey(t *testing.T, from, to *sidecar) {
	t.Helper()
	key, err := os.ReadFile(from.keyFile())
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, to.keyFile(), string(key))
}

// TestPinnedKey replaces the key of a receiver that its publisher knows: the publisher names the conflict and believes no
// answer under the new key, so that everything is still owed when the old key is back.
func TestPinnedKey(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	order, payment := pair(t, app)
	p := newProducer(t, order)
	publishSome(p, "known", 3)
	hasDone(t, 10*time.Second, app, p.ledger.all())
	payment.kill()
	key, err := os.ReadFile(payment.keyFile())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(payment.keyFile()); err != nil {
		t.Fatal(err)
	}
	payment.start() // makes a key of its own
	publishSome(p, "waiting", 5)
	eventually(t, 25*time.Second, "the publisher says that the key is not the one it knows", func() error {
		_, body := get(t, "http://"+order.admin+"/api/v1/peers")
		if !strings.Contains(body, "key") || !strings.Contains(body, "pinned") {
			return fmt.Errorf("its peers are %s", body)
		}
		return nil
	})
	settledAt(t, order, "waiting-4", "payment-service", "waiting")
	payment.kill()
	writeFile(t, payment.keyFile(), string(key))
	payment.start()
	hasDone(t, 25*time.Second, app, p.ledger.all())
	story{subscriber: "payment-service", posted: append(p.ledger.all(), order.probes...), arrivals: app.arrivals(), secret: appSecret}.check(t)
}
