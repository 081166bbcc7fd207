package inbox

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/deadletter"
	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

func TestWhatWasUnsettledAtStartIsMarked(t *testing.T) {
	n := newNode(t)
	n.deliver(deliveryOf(1, newEvent("evt_1", "")))
	n.restart()
	n.run()
	n.deliver(deliveryOf(2, newEvent("evt_2", "")))
	n.until("both are settled", n.drained)
	for _, c := range n.app.got() {
		if got, want := c.header.Get(headerRedelivered) == "true", c.id == "evt_1"; got != want {
			t.Errorf("%s: redelivered %v, want %v", c.id, got, want)
		}
	}
}

func TestRedeliveriesThatCannotBeExcludedAreMarked(t *testing.T) {
	tests := []struct {
		name       string
		redelivery bool
		accepted   time.Duration // after the store was made
		siblings   bool
		marked     bool
	}{
		{"first delivery of an old event", false, -time.Hour, true, false},
		{"redelivery of an event older than the store", true, -time.Hour, false, true},
		{"redelivery of about the store's age", true, time.Minute, false, true},
		{"redelivery of a younger event", true, time.Hour, false, false},
		{"redelivery with siblings", true, time.Hour, true, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := newNode(t)
			n.peers.instances = []event.Instance{{Service: us, StoreID: n.store.ID()}}
			if tt.siblings {
				n.peers.instances = append(n.peers.instances, event.Instance{Service: us, StoreID: "st_other"})
			}
			d := deliveryOf(1, newEvent("evt_1", ""))
			d.Redelivery = tt.redelivery
			d.AcceptedAt = n.store.CreatedAt().Add(tt.accepted).UnixMilli()
			n.deliver(d)
			n.run().until("it is settled", n.drained)
			if got := n.app.got()[0].header.Get(headerRedelivered) == "true"; got != tt.marked {
				t.Errorf("redelivered %v, want %v", got, tt.marked)
			}
		})
	}
}

func TestAttemptsAndDueTimesSurviveARestart(t *testing.T) {
	onFakeTime(t, func(t *testing.T, n *node) {
		n.app.answers(status(500))
		n.deliver(deliveryOf(1, newEvent("evt_1", "k")), deliveryOf(2, newEvent("evt_2", "k")))
		n.run()
		wait(10 * time.Minute)
		before, ok, err := n.in.Event(t.Context(), them, "evt_1")
		if err != nil || !ok || before.State != StateWaiting || before.Attempts < 5 {
			t.Fatalf("status %+v, %v", before, err)
		}
		calls := len(n.app.got())
		n.restart()
		after, _, err := n.in.Event(t.Context(), them, "evt_1")
		if err != nil || after.Attempts != before.Attempts || !after.Due.Equal(before.Due) || after.Last.Status != 500 {
			t.Errorf("status after the restart %+v, before %+v, %v", after, before, err)
		}
		n.app.answers(nil)
		n.run()
		wait(DefaultMaxInterval)
		got := n.app.ids()[calls:]
		if !slices.Equal(got, []string{"evt_1", "evt_2"}) {
			t.Errorf("calls %v after the restart", got)
		}
		if at := n.app.got()[calls].at; at.Before(before.Due) {
			t.Errorf("called %v early", before.Due.Sub(at))
		}
	})
}

func TestSettledEventsAreNotForwardedAgainAfterARestart(t *testing.T) {
	n := newNode(t, quick(3))
	n.app.answers(func(c call) (*http.Response, error) {
		if c.id == "evt_7" {
			return reply(410)
		}
		return reply(200)
	})
	n.deliverN(1, 50, nil)
	n.run().until("all but what is parked are settled", func() bool {
		return n.in.Status().Backlog == 1 || len(n.in.Status().Parked) == 1 && n.in.Status().InFlight == 0
	})
	left := n.in.Status().Backlog
	calls := len(n.app.got())
	n.restart()
	n.app.answers(nil)
	n.in.Resume(false)
	n.run().until("the rest is settled", n.drained)
	if got := len(n.app.got()) - calls; got != left {
		t.Errorf("%d forwards after the restart, want %d", got, left)
	}
}

func TestBacklogIsReadFromTheLogLater(t *testing.T) {
	if testing.Short() {
		t.Skip("stores many events")
	}
	n := newNode(t, func(c *Config) { c.App.Concurrency = 8 })
	down := true
	var mu sync.Mutex
	n.app.answers(func(call) (*http.Response, error) {
		mu.Lock()
		defer mu.Unlock()
		if down {
			return nil, errRefused
		}
		return reply(200)
	})
	n.run()
	const events = 2*windowEvents + 17
	n.deliverN(1, events, nil)
	n.in.mu.Lock()
	items, fresh := len(n.in.f.items), len(n.in.tail.events)
	n.in.mu.Unlock()
	if items > windowEvents || fresh > tailEvents {
		t.Errorf("%d events and %d fresh ones in memory", items, fresh)
	}
	a := n.deliver(deliveryOf(events+1, newEvent("evt_last", "")))
	if a.Applied != 0 || !a.OpenAll {
		t.Errorf("applied %d, all open %v; nothing is settled", a.Applied, a.OpenAll)
	}
	n.restart()
	a = n.deliver(deliveryOf(events+1, newEvent("evt_last", "")))
	if a.Applied != 0 || !a.OpenAll {
		t.Errorf("after a restart: applied %d, all open %v", a.Applied, a.OpenAll)
	}
	mu.Lock()
	down = false
	mu.Unlock()
	n.run().until("all are settled", n.drained)
	seen := map[string]int{}
	for _, c := range n.app.got() {
		if c.header.Get(headerRedelivered) == "true" {
			seen[c.id]++
		}
	}
	if len(seen) != events+1 {
		t.Errorf("%d events arrived, want %d", len(seen), events+1)
	}
	for id, times := range seen {
		if times != 1 {
			t.Errorf("%s arrived %d times", id, times)
		}
	}
	a = n.deliver(deliveryOf(events+1, newEvent("evt_last", "")))
	if a.Applied != events+1 || a.OpenAll || len(a.OpenKeys) != 0 {
		t.Errorf("applied %d, open %v %v, want everything", a.Applied, a.OpenAll, a.OpenKeys)
	}
}

func TestPoisonKeyDoesNotStopTheOthers(t *testing.T) {
	if testing.Short() {
		t.Skip("stores many events")
	}
	n := newNode(t)
	n.app.answers(func(c call) (*http.Response, error) {
		if c.header.Get("X-Event-Type") == "order.poison" {
			return reply(500)
		}
		return reply(200)
	})
	// More events of one key than the window holds, behind one that always fails; then others.
	var ds []event.Delivery
	seq := uint64(0)
	add := func(e event.Event) {
		seq++
		ds = append(ds, deliveryOf(seq, e))
		if len(ds) == 500 {
			n.deliver(ds...)
			ds = ds[:0]
		}
	}
	n.run()
	poison := newEvent("evt_poison", "k")
	poison.Type = "order.poison"
	add(poison)
	for i := range windowEvents + 500 {
		add(newEvent(fmt.Sprintf("evt_k%d", i), "k"))
	}
	const others = 600
	for i := range others {
		add(newEvent(fmt.Sprintf("evt_o%d", i), ""))
	}
	n.deliver(ds...)
	passed := func() int {
		return len(slices.DeleteFunc(n.app.ids(), func(id string) bool { return id[:5] != "evt_o" }))
	}
	n.until("the others are through", func() bool { return passed() == others })
	if got := n.in.Status(); got.Waiting < 500 {
		t.Errorf("status %+v, want the blocked ones of the window to have records", got)
	}
	n.restart()
	n.app.answers(nil)
	n.run().until("the rest is settled", n.drained)
	i := 0
	for _, id := range n.app.ids() {
		if id[:5] == "evt_k" {
			if want := fmt.Sprintf("evt_k%d", i); id != want {
				t.Fatalf("%s came, want %s", id, want)
			}
			i++
		}
	}
	if got := passed(); got != others {
		t.Errorf("%d forwards of the others, want %d: some were repeated", got, others)
	}
}

func TestSendersKeepWhatABlockedKeyCannotTake(t *testing.T) {
	n := newNode(t)
	n.in.f.perKey = 20
	n.app.answers(status(500))
	n.deliverN(1, 30, func(int) string { return "k" })
	n.run().until("the head has failed", func() bool { return n.in.Status().Waiting > 0 })
	a := n.deliver(deliveryOf(31, newEvent("evt_31", "k")), deliveryOf(32, newEvent("evt_32", "other")))
	n.wantVerdicts(a, event.KeyBusy, event.Stored)
}

func TestDeadLetterIsReplayedOnce(t *testing.T) {
	n := newNode(t, quick(2))
	n.app.answers(status(422))
	n.deliver(deliveryOf(1, newEvent("evt_1", "k")), deliveryOf(2, newEvent("evt_2", "k")))
	n.run().until("both are dead letters", n.drained)
	id := deadletter.ID(deadletter.Inbox, us, them, "evt_1")
	n.wantVerdicts(n.deliver(deliveryOf(1, newEvent("evt_1", "k"))), event.Duplicate)

	if err := n.in.ReplayLetter(t.Context(), id); err != nil { // refused again
		t.Fatal(err)
	}
	n.until("it is dead again", func() bool { return n.drained() && n.state(id) == deadletter.Dead })
	wantCalls(t, n.app, 3)

	n.stop()
	n.open() // not running: the replay is durable
	n.app.answers(nil)
	for range 2 {
		if err := n.in.ReplayLetter(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if got := n.state(id); got != deadletter.Replaying {
		t.Errorf("state %s, want replaying", got)
	}
	n.restart()
	n.run().until("it is resolved", func() bool { return n.state(id) == deadletter.Resolved })
	wantCalls(t, n.app, 4)
	last := n.app.got()[3]
	if last.id != "evt_1" || last.header.Get(headerRedelivered) != "true" {
		t.Errorf("call %+v", last.header)
	}
	st, ok, err := n.in.Event(t.Context(), them, "evt_1")
	if err != nil || !ok || st.State != StateDone || st.Letter != id {
		t.Errorf("status %+v, %v, %v", st, ok, err)
	}
	if err := n.in.ReplayLetter(t.Context(), id); err == nil {
		t.Error("a resolved letter was replayed")
	}
	if err := n.in.ReplayLetter(t.Context(), "dl_missing"); err == nil {
		t.Error("a missing letter was replayed")
	}
	if got := n.store.Live(exceptionPrefix); got != 0 {
		t.Errorf("%d exceptions are left", got)
	}
}

func (n *node) state(letter string) string {
	for _, l := range n.letters() {
		if l.ID == letter {
			return l.State
		}
	}
	return ""
}

func TestNoSubscriptionAnyMoreIsADeadLetter(t *testing.T) {
	n := newNode(t)
	n.deliver(deliveryOf(1, newEvent("evt_1", "")))
	n.stop()
	n.cfg.Subscriptions[0].Types = patterns(t, "invoice.*")
	n.open()
	n.run().until("it is settled", n.drained)
	if ls := n.letters(); len(ls) != 1 || ls[0].Reason != reasonNoSub {
		t.Errorf("letters %+v", ls)
	}
	wantCalls(t, n.app, 0)
}

func TestAppliedIsNeverTooHigh(t *testing.T) {
	n := newNode(t, quick(100))
	hold := make(chan struct{})
	n.app.answers(func(c call) (*http.Response, error) {
		if c.id == "evt_2" || c.id == "evt_4" {
			<-hold
		}
		return reply(200)
	})
	var ds []event.Delivery
	for i := range uint64(5) {
		key := ""
		if i == 1 {
			key = "k2"
		}
		ds = append(ds, deliveryOf(10+i, newEvent(fmt.Sprintf("evt_%d", i+1), key)))
	}
	if a := n.deliver(ds...); a.Applied != 9 {
		t.Errorf("applied %d before anything was forwarded, want 9", a.Applied)
	}
	n.run().until("three are settled", func() bool { return n.in.Status().Backlog == 2 && n.durable() })
	a := n.deliver(ds...)
	n.wantVerdicts(a, event.Duplicate, event.Duplicate, event.Duplicate, event.Duplicate, event.Duplicate)
	if want := []uint64{event.KeyHash(them, "k2")}; a.Applied != 10 || !slices.Equal(a.OpenKeys, want) || a.OpenAll {
		t.Errorf("applied %d, open %x, all %v; want 10 and %x", a.Applied, a.OpenKeys, a.OpenAll, want)
	}

	// The same event through another log: that one waits for it too, also after a restart.
	n.party = event.Party{Service: them, Instance: "order-2", StoreID: "st_orders_2"}
	if a := n.deliver(deliveryOf(7, newEvent("evt_2", "k2"))); a.Applied != 6 {
		t.Errorf("applied %d for the other log, want 6", a.Applied)
	}
	close(hold)
	n.until("all are settled", n.drained)
	if a := n.deliver(deliveryOf(7, newEvent("evt_2", "k2"))); a.Applied != 7 {
		t.Errorf("applied %d for the other log at the end, want 7", a.Applied)
	}
}

func TestAppliedWaitsForTheDisk(t *testing.T) {
	n := newNode(t)
	n.deliver(deliveryOf(1, newEvent("evt_1", "k")))
	stuck, free := make(chan struct{}), make(chan struct{})
	n.store.Enqueue(store.Op{Done: func(error) { close(stuck); <-free }})
	<-stuck // nothing is written from here on
	n.run().until("the app has it", func() bool { return n.in.Status().Backlog == 0 })
	answer, err := event.ParseBatchAnswer(n.in.answerBatch(&accept{in: n.in, from: n.party}))
	close(free)
	if err != nil || answer.Applied != 0 || len(answer.OpenKeys) != 1 {
		t.Errorf("applied %d, open %x, %v: a crash now would forward it again", answer.Applied, answer.OpenKeys, err)
	}
	n.until("it is durable", n.drained)
	if a := n.deliver(deliveryOf(1, newEvent("evt_1", "k"))); a.Applied != 1 || len(a.OpenKeys) != 0 {
		t.Errorf("applied %d, open %x at the end", a.Applied, a.OpenKeys)
	}
}

func TestAppliedAfterARestart(t *testing.T) {
	n := newNode(t)
	n.app.answers(func(c call) (*http.Response, error) {
		if c.id == "evt_2" {
			return reply(410)
		}
		return reply(200)
	})
	n.deliver(deliveryOf(1, newEvent("evt_1", "")))
	n.run().until("the first is settled", n.drained)
	n.deliver(deliveryOf(2, newEvent("evt_2", "")), deliveryOf(3, newEvent("evt_3", "")))
	n.until("it is parked", func() bool { return len(n.in.Status().Parked) == 1 })
	first := n.party
	n.party = event.Party{Service: them, Instance: "order-2", StoreID: "st_orders_2"}
	n.deliver(deliveryOf(40, newEvent("evt_2", "")))
	n.restart()
	if a := n.deliver(deliveryOf(40, newEvent("evt_2", ""))); a.Applied != 39 {
		t.Errorf("applied %d for the second log, want 39", a.Applied)
	}
	n.party = first
	if a := n.deliver(deliveryOf(2, newEvent("evt_2", ""))); a.Applied != 1 {
		t.Errorf("applied %d for the first log, want 1", a.Applied)
	}
	n.app.answers(nil)
	n.in.Resume(false)
	n.run().until("all are settled", n.drained)
	if a := n.deliver(deliveryOf(2, newEvent("evt_2", ""))); a.Applied != 3 {
		t.Errorf("applied %d at the end, want 3", a.Applied)
	}
}

func TestRetentionKeepsWhatIsUnsettled(t *testing.T) {
	n := newNode(t)
	n.app.answers(func(c call) (*http.Response, error) {
		if c.id == "evt_250" {
			return reply(410)
		}
		return reply(200)
	})
	n.deliverN(1, 249, nil)
	n.run().until("they are settled", n.drained)
	n.deliver(deliveryOf(250, newEvent("evt_250", "")))
	n.until("it is parked", func() bool { return len(n.in.Status().Parked) == 1 })
	n.deliver(deliveryOf(251, newEvent("evt_251", "")))
	expire := func(now time.Time) {
		t.Helper()
		n.until("what is settled is durable", n.durable)
		for {
			removed, err := n.in.removeSome(t.Context(), now.Add(-n.in.cfg.Retention))
			if err != nil {
				t.Fatal(err)
			}
			if removed > retainEvents {
				t.Errorf("%d events removed at once", removed)
			}
			if removed == 0 {
				break
			}
		}
		if err := n.in.expireIDs(t.Context(), now); err != nil {
			t.Fatal(err)
		}
	}
	expire(time.Now().Add(DefaultRetention - time.Minute))
	if got := n.storedEvents(); got != 251 {
		t.Errorf("%d events are kept before their time, want all", got)
	}
	expire(time.Now().Add(10 * 24 * time.Hour))
	if got := n.storedEvents(); got != 2 {
		t.Errorf("%d events are kept, want those from the parked one on", got)
	}
	n.wantVerdicts(n.deliver(deliveryOf(250, newEvent("evt_250", ""))), event.Duplicate) // remembered however long
	n.app.answers(nil)
	n.in.Resume(false)
	n.until("all are settled", n.drained)
	expire(time.Now().Add(30 * 24 * time.Hour))
	if got := n.storedEvents(); got != 0 {
		t.Errorf("%d events are kept at the end", got)
	}
	n.restart()
	if got := n.in.Status(); got.Backlog != 0 || got.Next != 252 {
		t.Errorf("status after a restart: %+v", got)
	}
}

func TestInboxOverHTTPWithARestartInTheMiddle(t *testing.T) {
	app := &fakeApp{}
	appServer := httptest.NewServer(app)
	defer appServer.Close()
	n := newNode(t, quick(10), func(c *Config) { c.App.URL, c.Transport = appServer.URL, nil })
	n.app = app
	app.answers(func(c call) (*http.Response, error) {
		if len(app.got())%11 == 3 {
			return reply(500)
		}
		return reply(200)
	})
	var mu sync.RWMutex // held for writing while the inbox restarts
	peer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.RLock()
		defer mu.RUnlock()
		n.in.ServeBatch(w, r)
	}))
	defer peer.Close()
	n.run()
	const events = 600
	for at := 1; at <= events; at += 50 {
		if at == 301 {
			mu.Lock()
			n.restart()
			n.run()
			mu.Unlock()
		}
		var ds []event.Delivery
		for i := at; i < at+50; i++ {
			ds = append(ds, deliveryOf(uint64(i), newEvent(fmt.Sprintf("evt_%d", i), fmt.Sprint("k", i%5))))
		}
		r := n.request(n.batchOf(ds...))
		r.URL.Scheme, r.URL.Host, r.RequestURI = "http", peer.Listener.Addr().String(), ""
		resp, err := peer.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("status %d", resp.StatusCode)
		}
	}
	n.until("all are settled", n.drained)
	first := map[string]bool{}
	for _, c := range app.got() {
		if first[c.id] && c.header.Get(headerRedelivered) != "true" {
			t.Errorf("%s was repeated unmarked", c.id)
		}
		first[c.id] = true
	}
	if len(first) != events {
		t.Errorf("%d events arrived, want %d", len(first), events)
	}
}
