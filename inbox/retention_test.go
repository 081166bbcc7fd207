package inbox

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/deadletter"
	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/signature"
)

const day = 24 * time.Hour

// justBeforeMidnight lets days pass, with the store closed but for a moment of each, and opens the inbox in the last minute
// of a day. Fake time is not free: every second in which a store is open costs something.
func (n *node) justBeforeMidnight(days int) {
	n.t.Helper()
	for range days {
		n.stop()
		time.Sleep(time.Until(time.Now().Add(time.Minute).Truncate(day).Add(day - 30*time.Second)))
		n.open()
	}
}

func TestIDsAreRememberedForTheWindowAfterTheirEnd(t *testing.T) {
	refused := func(id string) (int, bool) { return 422, id == "evt_dead" }
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprint("restart ", restart), func(t *testing.T) {
			onFakeTime(t, func(t *testing.T, n *node) {
				ds := []event.Delivery{deliveryOf(1, newEvent("evt_done", "")), deliveryOf(2, newEvent("evt_dead", "")), deliveryOf(3, newEvent("evt_retried", ""))}
				failed := false
				n.app.answers(func(c call) (*http.Response, error) {
					if code, yes := refused(c.id); yes {
						return reply(code)
					}
					if c.id == "evt_retried" && !failed { // so that it has a record of its own
						failed = true
						return reply(500)
					}
					return reply(200)
				})
				n.justBeforeMidnight(1)
				n.deliver(ds...)
				wait(time.Minute)
				if restart {
					n.restart()
				}
				n.run()
				wait(time.Minute)
				settledAt := n.store.Clock().Now()
				if !n.drained() {
					t.Fatalf("status %+v", n.in.Status())
				}
				if got := n.store.Live('d'); got != 3 {
					t.Errorf("%d ids are remembered, want 3", got)
				}
				n.expireAt(settledAt.Add(DefaultWindow))
				n.wantVerdicts(n.deliver(ds...), event.Duplicate, event.Duplicate, event.Duplicate)
				n.expireAt(settledAt.Add(DefaultWindow + day))
				// The letter is open: what is left to somebody's decision must not come a second time.
				n.wantVerdicts(n.deliver(ds...), event.Stored, event.Duplicate, event.Stored)
			})
		})
	}
}

// expireAt does what retain does, at another time.
func (n *node) expireAt(now time.Time) {
	n.t.Helper()
	for range 2 { // a bucket that is empty leaves the list at the next call
		if err := n.in.expireIDs(n.t.Context(), now); err != nil {
			n.t.Fatal(err)
		}
	}
}

func TestIDsThatSettleOnTheirDayCostNothing(t *testing.T) {
	onFakeTime(t, func(t *testing.T, n *node) {
		n.deliverN(1, 10, nil)
		n.run()
		wait(time.Second)
		if err := n.in.window.Expire(t.Context(), n.store.Clock().Now(), nil); err != nil {
			t.Fatal(err)
		}
		for i := range 10 {
			if got := n.store.Live('d'); got != 10 {
				t.Fatalf("%d records after event %d", got, i)
			}
		}
	})
}

func TestIDOfAnOpenLetterIsKeptThroughReplays(t *testing.T) {
	onFakeTime(t, func(t *testing.T, n *node) {
		n.app.answers(status(422))
		d := deliveryOf(1, newEvent("evt_1", ""))
		n.deliver(d)
		n.run()
		wait(time.Second)
		id := deadletter.ID(deadletter.Inbox, us, them, "evt_1")
		for range 3 {
			n.justBeforeMidnight(1)
			n.run()
			wait(time.Minute)
			n.expireAt(n.store.Clock().Now().Add(DefaultWindow + 2*day))
			n.wantVerdicts(n.deliver(d), event.Duplicate)
			if err := n.in.ReplayLetter(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			wait(time.Second)
		}
		n.app.answers(nil)
		if err := n.in.ReplayLetter(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		wait(time.Second)
		if got := n.state(id); got != deadletter.Resolved {
			t.Fatalf("letter is %s", got)
		}
		resolvedAt := n.store.Clock().Now()
		n.expireAt(resolvedAt.Add(DefaultWindow))
		n.wantVerdicts(n.deliver(d), event.Duplicate) // the window counts from here
		n.expireAt(resolvedAt.Add(DefaultWindow + day))
		n.wantVerdicts(n.deliver(d), event.Stored)
	})
}

func TestEndedLettersAndGoneSendersAreRemoved(t *testing.T) {
	onFakeTime(t, func(t *testing.T, n *node) {
		n.app.answers(func(c call) (*http.Response, error) {
			if c.header.Get(headerRedelivered) == "" {
				return reply(422)
			}
			return reply(200)
		})
		n.deliverN(1, 3, nil)
		n.run()
		wait(time.Second)
		id := func(i int) string {
			return deadletter.ID(deadletter.Inbox, us, them, fmt.Sprint("evt_", i))
		}
		for i := 1; i <= 2; i++ {
			if err := n.in.ReplayLetter(t.Context(), id(i)); err != nil {
				t.Fatal(err)
			}
		}
		wait(time.Second)
		senders := func() (n1 int) {
			n.in.mu.Lock()
			defer n.in.mu.Unlock()
			return len(n.in.senders)
		}
		tidy := func(after time.Duration) {
			t.Helper()
			if err := n.in.tidy(t.Context(), n.store.Clock().Now().Add(after)); err != nil {
				t.Fatal(err)
			}
		}
		tidy(DefaultRetention - time.Minute)
		if got := len(n.letters()); got != 3 || senders() != 1 {
			t.Errorf("%d letters and %d senders are left before their time", got, senders())
		}
		n.peers.instances = []event.Instance{{Service: them, StoreID: n.party.StoreID}}
		tidy(DefaultRetention + time.Minute)
		if got := n.letters(); len(got) != 1 || got[0].ID != id(3) || n.store.Live('x') != 1 || n.store.Live('y') != 1 {
			t.Errorf("letters %+v are left, want the open one", got)
		}
		if senders() != 1 {
			t.Error("a log of a known instance is forgotten")
		}
		n.peers.instances = nil
		tidy(DefaultRetention + time.Minute)
		n.restart()
		if senders() != 0 {
			t.Error("the log of a sender that is gone is remembered")
		}
		// A copy of what that log sent long ago cannot be told from a repeat any more.
		n.expireAt(n.store.Clock().Now().Add(DefaultWindow + 2*day))
		n.justBeforeMidnight(8)
		d := deliveryOf(1, newEvent("evt_1", ""))
		d.AcceptedAt, d.Redelivery = n.store.CreatedAt().UnixMilli()+signature.Tolerance.Milliseconds()+1, true
		n.wantVerdicts(n.deliver(d), event.Stored)
		calls := len(n.app.got())
		n.run()
		wait(time.Second)
		if got := n.app.got(); len(got) != calls+1 || got[calls].header.Get(headerRedelivered) != "true" {
			t.Errorf("it was not forwarded, or unmarked")
		}
	})
}
