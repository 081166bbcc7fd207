package outbox_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/deadletter"
	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/problem"
	"github.com/hooksidecar/hooksidecar/internal/store"
	"github.com/hooksidecar/hooksidecar/outbox"
)

func TestDeliversInOrderAndOnlyWhatIsAskedFor(t *testing.T) {
	n := newNode(t)
	in := newInbox(t, "payment", "pay-1", n.key.Public())
	n.publish("before") // "earliest": it is owed all the same
	n.subscribe(in, "order.*")
	n.post("/outbox", `{"type":"stock.moved","data":1}`)
	want := []string{"before"}
	for i := range 50 {
		id := fmt.Sprintf("e%02d", i)
		if r := n.publish(id, "key", "k"); !slices.Equal(r.Subscribers, []string{"payment"}) {
			t.Fatalf("subscribers %v", r.Subscribers)
		}
		want = append(want, id)
	}
	n.eventually("all arrive", func() bool { return len(in.received()) == len(want) })
	if got := in.ids(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, e := range in.received() {
		if e.redelivery || e.attempt != 1 || e.data != `{"n":1}` {
			t.Errorf("%+v", e)
		}
	}
	n.eventually("all is settled", func() bool { return n.status("payment").Waiting == 0 })
	st := n.status("payment")
	if st.Counts.Stored != 51 || st.Counts.Skipped != 1 || st.Accepted != 52 || st.Cursor != 52 {
		t.Errorf("%+v", st)
	}
}

func TestEventStates(t *testing.T) {
	n := newNode(t)
	in := newInbox(t, "payment", "pay-1", n.key.Public())
	in.set(func() { in.verdict = func(received) event.Outcome { return event.Outcome{Verdict: event.Busy} } })
	n.subscribe(in, "order.*")
	n.publish("x")
	n.eventually("it was tried", func() bool { return n.delivery("x", "payment").Attempts > 1 })
	if d := n.delivery("x", "payment"); d.State != outbox.Waiting {
		t.Errorf("%+v", d)
	}
	in.set(func() { in.verdict = nil })
	n.eventually("it is stored", func() bool { return n.delivery("x", "payment").State == outbox.Stored })
	if got := in.received()[0]; !got.redelivery || got.attempt < 2 {
		t.Errorf("not marked: %+v", got)
	}
	in.set(func() { in.applied = 1 })
	n.publish("y")
	n.eventually("it is applied", func() bool { return n.delivery("x", "payment").State == outbox.Applied })
	if d := n.delivery("y", "payment"); d.State != outbox.Stored {
		t.Errorf("%+v", d)
	}
}

func TestRejectedBecomesADeadLetterAndCanBeReplayed(t *testing.T) {
	n := newNode(t)
	in := newInbox(t, "payment", "pay-1", n.key.Public())
	in.set(func() {
		in.verdict = func(e received) event.Outcome {
			if e.id == "bad" {
				return event.Outcome{Verdict: event.Rejected, Code: "id_conflict", Detail: "another content"}
			}
			return event.Outcome{Verdict: event.Stored}
		}
	})
	n.subscribe(in, "order.*")
	n.publish("bad", "key", "k")
	n.publish("good", "key", "k")
	n.eventually("the other arrives", func() bool { return slices.Equal(in.ids(), []string{"good"}) })
	id := deadletter.ID(deadletter.Outbox, "payment", "order-service", "bad")
	letter := func() (l deadletter.Letter) {
		if err := n.store.View(func(sn *store.Snapshot) (err error) { l, _, err = deadletter.Get(sn, id); return err }); err != nil {
			t.Fatal(err)
		}
		return l
	}
	n.eventually("there is a letter", func() bool { return letter().State == deadletter.Dead })
	if l := letter(); l.Reason != "id_conflict" || l.Key != "k" || l.Seq != 1 || l.Attempts != 1 || l.Type != "order.created" {
		t.Errorf("%+v", l)
	}
	if d := n.delivery("bad", "payment"); d.State != outbox.Dead || d.Reason != "id_conflict" || d.Letter != id {
		t.Errorf("%+v", d)
	}

	in.set(func() { in.verdict = func(received) event.Outcome { return event.Outcome{Verdict: event.KeyBusy} } })
	for range 2 { // pressing twice is pressing once
		if err := n.ReplayLetter(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	n.eventually("it is tried", func() bool { return n.delivery("bad", "payment").Attempts > 1 })
	if st := n.status("payment"); letter().State != deadletter.Replaying || st.Replaying != 1 || st.Counts.Dead != 1 {
		t.Errorf("%+v, %+v", letter(), st)
	}
	n.restart()
	in.set(func() { in.verdict = nil })
	n.eventually("the replay arrives after a restart", func() bool { return slices.Equal(in.ids(), []string{"good", "bad"}) })
	n.eventually("the letter is resolved", func() bool { return letter().State == deadletter.Resolved })
	if st := n.status("payment"); st.Counts.Dead != 0 || st.Counts.Stored != 2 || st.Waiting != 0 || st.Accepted != 2 || st.SetAside != 0 {
		t.Errorf("%+v", st)
	}
	if e := in.received()[1]; !e.redelivery {
		t.Errorf("a replay is not marked: %+v", e)
	}
	if err := n.ReplayLetter(t.Context(), id); problem.From(err).Code != "not_dead" {
		t.Errorf("replay of a resolved letter: %v", err)
	}
}

func TestUnwantedEndsOnlyWhenTheDescriptorSaysSo(t *testing.T) {
	n := newNode(t)
	in := newInbox(t, "payment", "pay-1", n.key.Public())
	in.set(func() {
		in.verdict = func(e received) event.Outcome {
			if e.typ == "order.created" {
				return event.Outcome{Verdict: event.Unwanted}
			}
			return event.Outcome{Verdict: event.Stored}
		}
	})
	n.subscribe(in, "order.*")
	n.publish("x")
	n.eventually("it is tried again", func() bool { return n.delivery("x", "payment").Attempts >= 3 })
	n.peers.mu.Lock()
	if len(n.peers.refreshed) == 0 {
		t.Error("the directory was not asked for a newer descriptor")
	}
	n.peers.mu.Unlock()
	if d := n.delivery("x", "payment"); d.State != outbox.Waiting {
		t.Errorf("%+v", d)
	}
	n.peers.set("payment", in.key.Public(), in.instance("order.updated"))
	n.eventually("it is unsubscribed", func() bool { return n.status("payment").Counts.Unsubscribed == 1 })
	if st := n.status("payment"); st.Waiting != 0 || !slices.Equal(st.Types, []string{"order.updated"}) {
		t.Errorf("%+v", st)
	}
	tries := 0
	n.eventually("nothing more is owed", func() bool {
		tries++
		return len(n.publish(fmt.Sprintf("y%d", tries)).Subscribers) == 0
	})
}

func TestSubscriberThatIsAwayIsOwedAcrossRestarts(t *testing.T) {
	n := newNode(t)
	in := newInbox(t, "payment", "pay-1", n.key.Public())
	in.set(func() { in.refuse = func(w http.ResponseWriter, _ int) bool { w.WriteHeader(503); return true } })
	n.subscribe(in, "order.*")
	n.publish("a")
	n.peers = newDirectory() // after the restart nobody is known
	n.restart()
	if r := n.publish("b"); !slices.Equal(r.Subscribers, []string{"payment"}) {
		t.Fatalf("subscribers %v", r.Subscribers)
	}
	n.eventually("both wait", func() bool { return n.status("payment").Waiting == 2 })
	in.set(func() { in.refuse = nil })
	n.subscribe(in, "order.*")
	n.eventually("both arrive", func() bool { return slices.Equal(in.ids(), []string{"a", "b"}) })
	got := in.received()
	if !got[0].redelivery || got[1].redelivery {
		t.Errorf("redelivery of what was there before the restart and of what was not: %+v", got)
	}
	n.eventually("all is settled", func() bool { return n.status("payment").Waiting == 0 })
	n.restart()
	n.publish("c")
	n.eventually("c arrives", func() bool { return len(in.received()) == 3 })
	if ids := in.ids(); !slices.Equal(ids, []string{"a", "b", "c"}) {
		t.Errorf("settled events were sent again: %v", ids)
	}
	if st := n.status("payment"); st.Accepted != 3 {
		t.Errorf("%+v", st)
	}
}

func TestPauseKeepsEverything(t *testing.T) {
	n := newNode(t)
	in := newInbox(t, "payment", "pay-1", n.key.Public())
	n.subscribe(in, "order.*")
	if err := n.Pause(t.Context(), "payment"); err != nil {
		t.Fatal(err)
	}
	n.publish("x")
	n.restart()
	n.publish("y")
	n.eventually("both are looked at", func() bool { return n.status("payment").Waiting == 2 })
	if st := n.status("payment"); !st.Paused || len(in.received()) != 0 {
		t.Errorf("%+v, received %v", st, in.ids())
	}
	if err := n.Resume(t.Context(), "payment"); err != nil {
		t.Fatal(err)
	}
	n.eventually("both arrive", func() bool { return slices.Equal(in.ids(), []string{"x", "y"}) })
	if err := n.Pause(t.Context(), "nobody"); problem.From(err).Code != "not_found" {
		t.Errorf("pause of a stranger: %v", err)
	}
}

func TestOtherInstanceTakesWhatMayMove(t *testing.T) {
	n := newNode(t)
	one, two := newInbox(t, "payment", "pay-1", n.key.Public()), newInbox(t, "payment", "pay-2", n.key.Public())
	two.key = one.key // of the service
	down := func(w http.ResponseWriter, _ int) bool { w.WriteHeader(503); return true }
	one.set(func() { one.refuse = down })
	n.peers.set("payment", one.key.Public(), one.instance("order.*"), two.instance("order.*"))
	n.eventually("subscriber is known", func() bool { return len(n.status("payment").Lanes) == 2 })
	for i := range 40 {
		n.publish(fmt.Sprintf("free%d", i))
		n.publish(fmt.Sprintf("keyed%d", i), "key", fmt.Sprint(i))
	}
	n.eventually("the rest is set aside for its instance", func() bool {
		st := n.status("payment")
		return st.Cursor == 80 && int(st.Waiting) == st.SetAside && st.SetAside > 0
	})
	for _, e := range two.received() {
		if e.attempt > 1 && !e.redelivery {
			t.Errorf("moved after an attempt, and not marked: %+v", e)
		}
	}
	aside := n.status("payment").SetAside
	n.restart()
	n.eventually("still set aside", func() bool { return n.status("payment").SetAside == aside })
	one.set(func() { one.refuse = nil })
	n.eventually("all arrive", func() bool { return n.status("payment").Waiting == 0 })
	if got := len(one.received()) + len(two.received()); got != 80 {
		t.Errorf("%d deliveries, want 80", got)
	}
	for _, e := range two.received() {
		for _, f := range one.received() {
			if e.id == f.id {
				t.Errorf("%s arrived at both", e.id)
			}
		}
	}
}

func TestRetentionMovesTheBytesOfWhatIsOwed(t *testing.T) {
	n := newNode(t, func(c *outbox.Config) { c.Retention = time.Nanosecond })
	in := newInbox(t, "payment", "pay-1", n.key.Public())
	in.set(func() {
		in.verdict = func(e received) event.Outcome {
			if e.id == "blocked" {
				return event.Outcome{Verdict: event.KeyBusy}
			}
			return event.Outcome{Verdict: event.Stored}
		}
	})
	n.subscribe(in, "order.*")
	n.publish("blocked", "key", "k")
	for i := range 300 {
		n.publish(fmt.Sprintf("e%d", i))
	}
	n.eventually("it is set aside and the rest settled", func() bool { st := n.status("payment"); return st.Cursor == 301 && st.SetAside == 1 })
	n.restart() // looks at the end of the log at once
	n.eventually("the log is empty", func() bool { return n.Counts().TailSeq == 302 })
	n.eventually("and counted as empty", func() bool { return n.Counts().Bytes == 0 && n.store.Live('e') == 0 })
	if d := n.delivery("e5", "payment"); d.State == outbox.Waiting || d.State == outbox.Dead {
		t.Errorf("%+v", d)
	}
	in.set(func() { in.verdict = nil })
	n.eventually("it arrives from its own copy", func() bool { return slices.Contains(in.ids(), "blocked") })
	n.eventually("its record is gone", func() bool { return n.store.Live('s') == 0 })
	if r := n.post("/outbox", `{"id":"e7","type":"order.created","data":{"n":1}}`); r.status != 200 || r.Seq != 9 {
		t.Errorf("id after retention: %d %s", r.status, r.text)
	}
}

func TestNewSubscriptionReachesBackToItsSince(t *testing.T) {
	n := newNode(t)
	in := newInbox(t, "payment", "pay-1", n.key.Public())
	n.subscribe(in, "order.*")
	n.publish("a")
	n.post("/outbox", `{"id":"s1","type":"stock.moved","data":1}`)
	n.publish("b")
	n.eventually("orders arrive", func() bool { return n.status("payment").Cursor == 3 })
	inst := in.instance("order.*")
	inst.Subscriptions = append(inst.Subscriptions, event.Subscription{Types: []string{"stock.*"}, Since: time.Now(), From: "latest"})
	n.peers.set("payment", in.key.Public(), inst)
	n.eventually("what was passed over arrives", func() bool { return slices.Equal(in.ids(), []string{"a", "b", "s1"}) })
	n.eventually("all is settled", func() bool { return n.status("payment").Waiting == 0 })
	st := n.status("payment")
	if st.Counts.Stored != 3 || st.Counts.Skipped != 0 || st.Accepted != 3 || st.Cursor != 3 {
		t.Errorf("%+v", st)
	}
}

func TestSubscriberStartsAtItsSince(t *testing.T) {
	for _, tt := range []struct {
		name, from string
		since      time.Duration
		want       []string
	}{
		{"latest, some seconds ago", "", -time.Second, []string{"a", "b"}},
		{"latest, to come", "latest", time.Hour, nil},
		{"earliest", "earliest", time.Hour, []string{"a", "b"}},
		{"a time past", "2020-01-01T00:00:00Z", time.Hour, []string{"a", "b"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNode(t)
			n.publish("a")
			n.publish("b")
			in := newInbox(t, "payment", "pay-1", n.key.Public())
			inst := in.instance("order.*")
			inst.Subscriptions[0].Since, inst.Subscriptions[0].From = time.Now().Add(tt.since), tt.from
			n.peers.set("payment", in.key.Public(), inst)
			n.eventually("subscriber is known", func() bool { return n.status("payment").Service != "" })
			n.publish("c")
			n.eventually("c arrives", func() bool { return slices.Contains(in.ids(), "c") })
			if got := in.ids(); !slices.Equal(got, append(slices.Clone(tt.want), "c")) {
				t.Errorf("got %v, want %v and c", got, tt.want)
			}
		})
	}
}

// Letters about events whose bytes are no longer in memory, and more of them than fit into one transaction.
func TestManyDeadLettersAtOnce(t *testing.T) {
	n := newNode(t, func(c *outbox.Config) { c.Retention = time.Nanosecond })
	in := newInbox(t, "payment", "pay-1", n.key.Public())
	busy := func(received) event.Outcome { return event.Outcome{Verdict: event.KeyBusy} }
	in.set(func() { in.verdict = busy })
	n.subscribe(in, "order.*")
	const events = 4
	for i := range events {
		r := n.post("/outbox", fmt.Sprintf(`{"id":"e%d","type":"order.created","data":"%0700000d"}`, i, i))
		if r.status != 202 {
			t.Fatal(r.text)
		}
	}
	n.eventually("all are set aside", func() bool { return n.status("payment").SetAside == events })
	n.restart()
	n.eventually("the log is empty", func() bool { return n.Counts().TailSeq == events+1 })
	in.set(func() {
		in.verdict = func(received) event.Outcome { return event.Outcome{Verdict: event.Rejected, Code: "beyond_window"} }
	})
	n.eventually("all are dead", func() bool { return n.status("payment").Counts.Dead == events && n.store.Live('s') == 0 })
	var letters []deadletter.Letter
	err := n.store.View(func(sn *store.Snapshot) (err error) {
		if letters, _, err = deadletter.List(sn, deadletter.Filter{}); err != nil {
			return err
		}
		for _, l := range letters {
			if _, data, ok, err := deadletter.Event(sn, l.ID); err != nil || !ok || len(data) != 700_002 {
				t.Errorf("%s: %d bytes, %v, %v", l.EventID, len(data), ok, err)
			}
		}
		return nil
	})
	if err != nil || len(letters) != events {
		t.Errorf("%d letters, %v", len(letters), err)
	}
}

func TestEventThatIsGoneFromDiskIsCountedAndHoldsUpNothing(t *testing.T) {
	n := newNode(t)
	in := newInbox(t, "payment", "pay-1", n.key.Public())
	in.set(func() { in.verdict = func(received) event.Outcome { return event.Outcome{Verdict: event.KeyBusy} } })
	n.subscribe(in, "order.*")
	n.publish("x")
	n.publish("y")
	n.eventually("both are set aside", func() bool { return n.status("payment").SetAside == 2 })
	err := n.store.Commit(t.Context(), store.Op{Class: store.Work, Apply: func(tx *store.Tx) error {
		tx.Remove([]byte{'e', 0, 0, 0, 0, 0, 0, 0, 1})
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	in.set(func() { in.verdict = nil })
	n.eventually("the other arrives", func() bool { return slices.Equal(in.ids(), []string{"y"}) })
	n.eventually("it is counted", func() bool { c := n.status("payment").Counts; return c.Lost == 1 && c.Stored == 1 })
}
