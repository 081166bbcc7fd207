package outbox_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/VictoriaMetrics/metrics"

	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/outbox"
)

// What was accepted is settled or waits, in the metrics too, and again after a restart.
func TestMetricsBalance(t *testing.T) {
	var set *metrics.Set
	n := newNode(t, func(c *outbox.Config) { set = metrics.NewSet(); c.Metrics = set })
	in := newInbox(t, "payment", "pay-1", n.key.Public())
	in.set(func() {
		in.verdict = func(e received) event.Outcome {
			switch e.id {
			case "e1":
				return event.Outcome{Verdict: event.Rejected, Code: "id_conflict"}
			case "e2":
				return event.Outcome{Verdict: event.KeyBusy}
			}
			return event.Outcome{Verdict: event.Stored}
		}
	})
	n.subscribe(in, "order.*")
	for i := range 10 {
		n.publish(fmt.Sprintf("e%d", i))
	}
	n.post("/outbox", `{"id":"e0","type":"order.created","data":{"n":1}}`)
	n.post("/outbox", `{"id":"e0","type":"order.created","data":{"n":2}}`)
	n.post("/outbox", `{"type":"stock.moved","data":1}`)
	n.post("/outbox", `{`)
	for _, when := range []string{"before", "after"} {
		n.eventually("all but one are settled", func() bool { return n.status("payment").Waiting == 1 })
		got := scrape(set)
		want := map[string]string{
			`hooksidecar_outbox_backlog{subscriber="payment"}`:                          "1",
			`hooksidecar_outbox_subscriber_accepted_events{subscriber="payment"}`:       "11",
			`hooksidecar_outbox_settled_events{subscriber="payment",outcome="stored"}`:  "8",
			`hooksidecar_outbox_settled_events{subscriber="payment",outcome="dead"}`:    "1",
			`hooksidecar_outbox_settled_events{subscriber="payment",outcome="skipped"}`: "1",
			`hooksidecar_outbox_next_seq`:                                               "12",
		}
		if when == "before" {
			want[`hooksidecar_outbox_events_accepted_total`] = "11"
			want[`hooksidecar_outbox_duplicates_total`] = "1"
			want[`hooksidecar_outbox_id_conflicts_total`] = "1"
			want[`hooksidecar_outbox_refused_total{code="invalid_json"}`] = "1"
			want[`hooksidecar_outbox_deliveries_total{subscriber="payment",outcome="rejected"}`] = "1"
		}
		for name, value := range want {
			if got[name] != value {
				t.Errorf("%s the restart: %s is %q, want %s", when, name, got[name], value)
			}
		}
		if when == "before" {
			n.restart()
		}
	}
}

func scrape(set *metrics.Set) map[string]string {
	var b bytes.Buffer
	set.WritePrometheus(&b)
	out := map[string]string{}
	for line := range strings.Lines(b.String()) {
		if i := strings.LastIndexByte(line, ' '); i > 0 {
			out[line[:i]] = strings.TrimSpace(line[i:])
		}
	}
	return out
}

func TestNamesOfOthersCannotBreakTheMetrics(t *testing.T) {
	n := newNode(t)
	for _, name := range []string{`a"b`, `a\b`, "a_b"} {
		in := newInbox(t, name, "i-1", n.key.Public())
		n.subscribe(in, "order.*")
	}
	n.publish("x")
	n.eventually("all three have it", func() bool {
		for _, s := range n.Subscribers() {
			if s.Counts.Stored != 1 {
				return false
			}
		}
		return true
	})
}

// Every scrape balances, also while events come and go.
func TestEachScrapeBalances(t *testing.T) {
	var set *metrics.Set
	n := newNode(t, func(c *outbox.Config) { set = metrics.NewSet(); c.Metrics = set })
	n.subscribe(newInbox(t, "payment", "pay-1", n.key.Public()), "order.*")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 300 {
			n.publish(fmt.Sprintf("e%d", i))
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		got, sum := scrape(set), 0
		number := func(name string) (v int) {
			if _, err := fmt.Sscan(got[name], &v); err != nil {
				t.Fatalf("%s is %q", name, got[name])
			}
			return v
		}
		for _, outcome := range []string{"stored", "dead", "unsubscribed", "skipped", "lost"} {
			sum += number(`hooksidecar_outbox_settled_events{subscriber="payment",outcome="` + outcome + `"}`)
		}
		accepted, waits := number(`hooksidecar_outbox_subscriber_accepted_events{subscriber="payment"}`), number(`hooksidecar_outbox_backlog{subscriber="payment"}`)
		if accepted != sum+waits {
			t.Fatalf("%d accepted, %d settled, %d wait", accepted, sum, waits)
		}
	}
}
