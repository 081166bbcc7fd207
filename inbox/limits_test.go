package inbox

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/event"
)

// answering returns an answer with a body that is six times as long in JSON.
func answering(status int) (*http.Response, error) {
	resp, err := reply(status)
	resp.Body = io.NopCloser(strings.NewReader(strings.Repeat("<", 16<<10)))
	return resp, err
}

func TestManyLargeAnswersAtOnceAreKept(t *testing.T) {
	for status, reason := range map[int]string{422: reasonRefused, 500: reasonExhausted} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			n := newNode(t, quick(2), func(c *Config) { c.App.Concurrency = 128 })
			n.app.answers(func(c call) (*http.Response, error) {
				var i int
				if _, err := fmt.Sscanf(c.id, "evt_%d", &i); err != nil || i%4 == 0 {
					return reply(200) // else the app would be held to be sick
				}
				return answering(status)
			})
			n.deliverN(1, 160, nil)
			n.run().until("all are settled", func() bool { n.in.Resume(true); return n.drained() })
			if got := n.store.Live('x'); got != 120 {
				t.Errorf("%d letters, want 120", got)
			}
			for _, l := range n.letters() {
				if l.Reason != reason || len(l.Last.Body) != 16<<10 {
					t.Fatalf("letter %s of reason %s, %d bytes of answer", l.ID, l.Reason, len(l.Last.Body))
				}
			}
		})
	}
}

func TestBacklogsSizeSurvivesARestart(t *testing.T) {
	n := newNode(t)
	n.app.answers(func(call) (*http.Response, error) { return nil, errRefused })
	n.run()
	n.deliverN(1, 300, nil)
	before := n.in.Status().BacklogBytes
	n.restart()
	if got := n.in.Status().BacklogBytes; got != before || got == 0 {
		t.Errorf("backlog of %d bytes, before the restart %d", got, before)
	}
}

func TestWaitThatTheAppAskedForSurvivesARestart(t *testing.T) {
	onFakeTime(t, func(t *testing.T, n *node) {
		n.app.answers(func(c call) (*http.Response, error) {
			if c.id == "evt_1" {
				return reply(503, "Retry-After: 3600")
			}
			return reply(200)
		})
		n.deliver(deliveryOf(1, newEvent("evt_1", "")))
		n.run()
		wait(time.Second)
		n.deliver(deliveryOf(2, newEvent("evt_2", "")))
		n.in.Resume(false)
		wait(time.Second) // evt_2 succeeds and evt_1 does not: from the next time on it is on its own
		n.in.Resume(false)
		wait(time.Second)
		if got := n.in.Status(); got.AppState != "up" || got.Waiting != 1 {
			t.Fatalf("status %+v", got)
		}
		calls := len(n.app.got())
		n.restart()
		n.run()
		wait(50 * time.Minute)
		wantCalls(t, n.app, calls)
		wait(20 * time.Minute)
		wantCalls(t, n.app, calls+1)
	})
}

func TestKeysThatFailDoNotFillTheRoomOfAll(t *testing.T) {
	n := newNode(t)
	n.in.f.exceptions, n.in.f.window = 40, 20
	n.app.answers(func(c call) (*http.Response, error) {
		if c.header.Get("X-Event-Type") == "order.poison" {
			return reply(500)
		}
		return reply(200)
	})
	n.run()
	seq := uint64(0)
	send := func(typ, key string) event.Verdict {
		seq++
		e := newEvent(fmt.Sprint("evt_", seq), key)
		e.Type = typ
		return verdicts(n.deliver(deliveryOf(seq, e)))[0]
	}
	for _, key := range []string{"a", "b", "c"} {
		send("order.poison", key)
	}
	n.until("each has failed", func() bool { return n.in.Status().Waiting == 3 })
	kept := 0
	for range 100 { // behind the failing ones, far more than there is room for
		for _, key := range []string{"a", "b", "c"} {
			if send("order.created", key) == event.KeyBusy {
				kept++
			}
		}
	}
	if kept < 200 {
		t.Errorf("senders were asked to keep %d events, want most of 300", kept)
	}
	if got := send("order.created", "d"); got != event.Stored {
		t.Errorf("an event of another key is %s", got)
	}
	last := fmt.Sprint("evt_", seq)
	n.until("the other key is served", func() bool { return slices.Contains(n.app.ids(), last) })
}

func TestParkedSubscriptionDoesNotFillTheRoomOfAll(t *testing.T) {
	n := newNode(t, func(c *Config) {
		c.Subscriptions = append(c.Subscriptions, Subscription{Types: patterns(t, "legacy.*"), Path: "/old"})
	})
	n.in.f.exceptions, n.in.f.window = 40, 20
	n.app.answers(func(c call) (*http.Response, error) {
		if c.path == "/hooks/old" {
			return reply(410)
		}
		return reply(200)
	})
	n.run()
	kept := 0
	for i := range uint64(100) {
		e := newEvent(fmt.Sprint("evt_l", i), "")
		e.Type = "legacy.event"
		a := n.deliver(deliveryOf(i+1, e))
		if verdicts(a)[0] == event.KeyBusy {
			kept++
		}
	}
	n.wantVerdicts(n.deliver(deliveryOf(200, newEvent("evt_200", ""))), event.Stored)
	n.until("the other subscription is served", func() bool { return slices.Contains(n.app.ids(), "evt_200") })
	if kept == 0 {
		t.Error("senders were never asked to keep events")
	}
	n.app.answers(nil)
	n.in.Resume(false)
	n.until("all are settled", n.drained)
	if got := len(n.app.got()); got < 100-kept+1 {
		t.Errorf("%d calls, want one for each of the %d stored at least", got, 101-kept)
	}
}

func TestEventOfAnotherLogKeepsItsKeyOpen(t *testing.T) {
	n := newNode(t)
	n.app.answers(status(410))
	e := newEvent("evt_1", "k1")
	n.deliver(deliveryOf(1, e))
	want := []uint64{event.KeyHash(them, "k1")}
	for _, when := range []string{"before it is read", "once it is read", "after a restart"} {
		n.party = event.Party{Service: them, Instance: "order-2", StoreID: "st_orders_2"}
		a := n.deliver(deliveryOf(7, e))
		if a.Applied != 6 || !a.OpenAll && !slices.Equal(a.OpenKeys, want) {
			t.Errorf("%s: applied %d, open %x, all %v", when, a.Applied, a.OpenKeys, a.OpenAll)
		}
		if when == "once it is read" {
			n.restart()
		}
		n.runIfNot().until("it is parked", func() bool { return len(n.in.Status().Parked) == 1 })
	}
}
