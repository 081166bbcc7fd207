package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSubscriptionsChange restarts a receiver with other patterns: what is no longer wanted ends at once, what is new
// comes from then on, and the publisher counts both.
func TestSubscriptionsChange(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	order, payment := pair(t, app)
	p := newProducer(t, order)
	publish := func(id, typ string) posted {
		return p.mustPublish(envelope{ID: id, Type: typ, Data: json.RawMessage(`{}`)})
	}
	wanted := []posted{publish("created-1", "order.created"), publish("paid-1", "order.paid")}
	publish("stock-1", "stock.moved")
	hasDone(t, 10*time.Second, app, wanted)
	payment.stop()
	payment.settings.subscribe = []string{"order.paid", "stock.*"}
	payment.start()
	eventually(t, 20*time.Second, "the publisher knows the new patterns", func() error {
		r := p.send(envelope{Type: "stock.moved", Data: json.RawMessage(`{}`)})
		if len(r.accepted.Subscribers) != 1 {
			return fmt.Errorf("subscribers are %v", r.accepted.Subscribers)
		}
		return nil
	})
	publish("created-2", "order.created")
	wanted = []posted{publish("paid-2", "order.paid"), publish("stock-2", "stock.moved")}
	hasDone(t, 10*time.Second, app, wanted)
	if done := app.done(); done["created-2"] {
		t.Error("an event came that the receiver no longer asks for")
	}
	conserved(t, order, "payment-service")
}

// TestReceiverMoves restarts a receiver at another address. Its publisher has no address for it in its settings, and
// finds out by what the receiver announces.
func TestReceiverMoves(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	order := newSidecar(t, settings{service: "order-service"}).start()
	payment := newSidecar(t, settings{service: "payment-service", subscribe: []string{"order.*"}, appURL: app.url(), secret: appSecret})
	payment.peers = []*sidecar{order}
	payment.start()
	acquainted(t, order, "payment-service")
	p := newProducer(t, order)
	publishSome(p, "before", 3)
	hasDone(t, 10*time.Second, app, p.ledger.all())
	payment.kill()
	publishSome(p, "between", 5)
	payment.peer = freeAddress(t)
	payment.start()
	publishSome(p, "after", 5)
	hasDone(t, 20*time.Second, app, p.ledger.all())
	story{subscriber: "payment-service", posted: append(p.ledger.all(), order.probes...), arrivals: app.arrivals(), secret: appSecret}.check(t)
}

// TestUnixSocket publishes over a unix socket, which a killed sidecar leaves behind and the next one replaces.
func TestUnixSocket(t *testing.T) {
	t.Parallel()
	s := newSidecar(t, settings{service: "order-service"})
	socket := filepath.Join(t.TempDir(), "app.sock")
	s.app = "unix:" + socket
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	for round := range 2 {
		s.start()
		body := strings.ReplaceAll(goodBody, "$ID", fmt.Sprint("unix-", round))
		resp, err := client.Post("http://localhost/outbox", "application/json", bytes.NewReader([]byte(body)))
		if err != nil {
			t.Fatal(err)
		}
		if r, err := readReply(resp); err != nil || r.status != http.StatusAccepted {
			t.Errorf("over a unix socket: %v (%v)", r, err)
		}
		s.kill()
	}
}
