package outbox_test

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/store"
	"github.com/hooksidecar/hooksidecar/outbox"
)

// newDisk gives the inbox another store, which knows nothing.
func (in *inbox) newDisk(store string) {
	in.set(func() { in.store, in.applied, in.got = store, 0, nil })
}

func down(w http.ResponseWriter, _ int) bool { w.WriteHeader(503); return true }

// The instance comes back with an empty disk; the sender crashes before anything was sent again, and once more in the middle.
func TestInboxThatLostItsDiskGetsWhatItWasNotDoneWith(t *testing.T) {
	for _, told := range []string{"by the directory", "by its answer"} {
		t.Run(told, func(t *testing.T) {
			n := newNode(t)
			in := newInbox(t, "payment", "pay-1", n.key.Public())
			in.set(func() {
				in.verdict = func(e received) event.Outcome {
					if e.id == "e12" {
						return event.Outcome{Verdict: event.Rejected, Code: "id_conflict"}
					}
					return event.Outcome{Verdict: event.Stored}
				}
			})
			n.subscribe(in, "order.*")
			for i := 1; i <= 19; i++ {
				n.publish(fmt.Sprintf("e%02d", i), "key", fmt.Sprint(i%3))
			}
			n.eventually("all are settled", func() bool { return n.status("payment").Waiting == 0 })
			in.set(func() { in.applied = 7 })
			n.publish("e20") // its answer says what the instance is done with
			n.eventually("all are settled", func() bool { c := n.status("payment").Counts; return c.Stored == 19 && c.Dead == 1 })
			n.restart()

			in.newDisk("st_second")
			want := []string{"e08", "e09", "e10", "e11", "e13", "e14", "e15", "e16", "e17", "e18", "e19", "e20"}
			if told == "by the directory" {
				in.set(func() { in.refuse = down })
				n.peers.set("payment", in.key.Public(), in.instance("order.*"))
				n.eventually("it is to be sent again", func() bool { return int(n.status("payment").Waiting) == len(want) })
				n.crash()
				n.eventually("that is known after a crash", func() bool { return int(n.status("payment").Waiting) == len(want) })
				in.set(func() {
					in.refuse = nil
					in.verdict = func(e received) event.Outcome {
						if e.seq > 12 {
							return event.Outcome{Verdict: event.KeyBusy}
						}
						return event.Outcome{Verdict: event.Stored}
					}
				})
				n.eventually("some arrive", func() bool { return len(in.received()) >= 4 })
				n.crash()
				in.set(func() { in.verdict = nil })
			} else {
				in.set(func() { in.verdict = nil })
				n.publish("e21")
				want = append(want, "e21")
			}
			n.eventually("all that was not done with arrives", func() bool {
				return n.status("payment").Waiting == 0 && len(unique(in.ids())) == len(want)
			})
			if got := unique(in.ids()); !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			for _, e := range in.received() {
				if !e.redelivery && e.id != "e21" {
					t.Errorf("not marked: %+v", e)
				}
			}
			st := n.status("payment")
			if int(st.Counts.Stored) != len(want)+7 || st.Counts.Dead != 1 || st.Gone != 0 || st.Accepted != st.Cursor || st.SetAside != 0 {
				t.Errorf("%+v", st)
			}
			n.restart()
			n.publish("last")
			n.eventually("the last one arrives", func() bool { return slices.Contains(in.ids(), "last") })
			if got := unique(in.ids()); len(got) != len(want)+1 {
				t.Errorf("sent a third time: %v", in.ids())
			}
		})
	}
}

// unique returns the sorted ids without repeats.
func unique(ids []string) []string {
	ids = slices.Clone(ids)
	slices.Sort(ids)
	return slices.Compact(ids)
}

// Of two instances one loses its disk: the other is not sent again what it has.
func TestOnlyTheShareOfTheLostDiskIsSentAgain(t *testing.T) {
	set := metrics.NewSet()
	n := newNode(t, func(c *outbox.Config) { c.Metrics = set })
	one, two := newInbox(t, "payment", "pay-1", n.key.Public()), newInbox(t, "payment", "pay-2", n.key.Public())
	two.key = one.key // of the service
	both := func() { n.peers.set("payment", one.key.Public(), one.instance("order.*"), two.instance("order.*")) }
	both()
	n.eventually("subscriber is known", func() bool { return len(n.status("payment").Lanes) == 2 })
	for i := range 60 {
		n.publish(fmt.Sprintf("e%d", i), "key", fmt.Sprint(i%20))
	}
	n.eventually("all arrive", func() bool { return n.status("payment").Counts.Stored == 60 })
	had, others := unique(two.ids()), one.ids()
	if len(had) == 0 || len(others) == 0 {
		t.Fatalf("%d and %d events: nothing is shared", len(others), len(had))
	}
	two.newDisk("st_other")
	both()
	n.eventually("its share arrives again", func() bool { return slices.Equal(two.ids(), bySeq(two)) && slices.Equal(unique(two.ids()), had) })
	n.eventually("all is settled", func() bool { return n.status("payment").Waiting == 0 })
	if got := one.ids(); !slices.Equal(got, others) {
		t.Errorf("the other instance got %v, want %v", got, others)
	}
	var text strings.Builder
	set.WritePrometheus(&text)
	if want := `hooksidecar_outbox_inbox_replaced_total{subscriber="payment"} 1`; !strings.Contains(text.String(), want) {
		t.Errorf("metrics lack %s", want)
	}
}

func bySeq(in *inbox) (ids []string) {
	events := in.received()
	slices.SortFunc(events, func(a, b received) int { return int(a.seq) - int(b.seq) })
	for _, e := range events {
		ids = append(ids, e.id)
	}
	return ids
}

// What retention has removed cannot be sent again: it is counted, and said.
func TestWhatTheLogNoLongerHasIsCountedAsGone(t *testing.T) {
	n := newNode(t, func(c *outbox.Config) { c.Retention = time.Nanosecond })
	in := newInbox(t, "payment", "pay-1", n.key.Public())
	in.set(func() { in.applied = 3 })
	n.subscribe(in, "order.*")
	for i := range 10 {
		n.publish(fmt.Sprint("e", i))
	}
	n.eventually("all arrive", func() bool { return n.status("payment").Counts.Stored == 10 })
	n.restart()
	n.eventually("the log is empty", func() bool { return n.Counts().TailSeq == 11 })
	in.newDisk("st_second")
	n.peers.set("payment", in.key.Public(), in.instance("order.*"))
	n.publish("later")
	n.eventually("they are counted", func() bool { return n.status("payment").Gone == 7 })
	n.eventually("what comes later arrives", func() bool { return slices.Equal(in.ids(), []string{"later"}) })
	n.restart()
	if st := n.status("payment"); st.Gone != 7 || st.Counts.Stored != 11 || st.Accepted != 11 {
		t.Errorf("%+v", st)
	}
}

// Seqs count only within one store: what instances said of the log of a sender that was put back from a copy is not believed.
func TestAppliedCountsOnlyWithinOneStoreOfTheSender(t *testing.T) {
	n := newNode(t)
	in := newInbox(t, "payment", "pay-1", n.key.Public())
	in.set(func() { in.applied = 5 })
	n.subscribe(in, "order.*")
	for i := range 5 {
		n.publish(fmt.Sprint("e", i))
	}
	n.eventually("all are applied", func() bool { return n.delivery("e4", "payment").State == outbox.Applied })
	n.restart()
	var copied bytes.Buffer
	if err := n.store.Backup(&copied); err != nil {
		t.Fatal(err)
	}
	n.close()
	n.dir = t.TempDir() + "/restored"
	if err := store.Restore(n.dir, "order-service", &copied); err != nil {
		t.Fatal(err)
	}
	n.start()
	n.eventually("the instance is known", func() bool { return len(n.status("payment").Lanes) == 1 })
	if st := n.status("payment"); st.Lanes[0].Applied != 0 || st.Counts.Stored != 5 {
		t.Errorf("%+v", st)
	}
	if d := n.delivery("e4", "payment"); d.State != outbox.Stored {
		t.Errorf("%+v", d)
	}
	in.newDisk("st_second")
	n.peers.set("payment", in.key.Public(), in.instance("order.*"))
	n.eventually("all are sent again", func() bool { return len(in.ids()) == 5 && n.status("payment").Waiting == 0 })
}

// A late answer from before cannot be told by its applied: what no instance was given it cannot be done with.
func TestAppliedBeyondTheLogIsNotBelieved(t *testing.T) {
	n := newNode(t)
	in := newInbox(t, "payment", "pay-1", n.key.Public())
	in.set(func() { in.applied = 1 << 60 })
	n.subscribe(in, "order.*")
	n.publish("a")
	n.eventually("a arrives", func() bool { return n.status("payment").Waiting == 0 })
	in.set(func() { in.applied = 1 })
	in.set(func() { in.refuse = func(w http.ResponseWriter, k int) bool { return k > 2 && down(w, k) } })
	n.publish("b")
	n.eventually("b arrives", func() bool { return n.status("payment").Waiting == 0 })
	n.restart()
	in.set(func() { in.refuse = nil })
	in.newDisk("st_second")
	n.peers.set("payment", in.key.Public(), in.instance("order.*"))
	n.eventually("b is sent again, a is not", func() bool { return slices.Equal(in.ids(), []string{"b"}) })
}

// What an instance took over from one that was down is in its share as well when it loses its disk.
func TestWhatWasTakenOverIsSentAgainToo(t *testing.T) {
	n := newNode(t, func(c *outbox.Config) { c.FailoverAfter = 30 * time.Millisecond })
	one, two := newInbox(t, "payment", "pay-1", n.key.Public()), newInbox(t, "payment", "pay-2", n.key.Public())
	two.key = one.key // of the service
	one.set(func() { one.refuse = down })
	both := func() { n.peers.set("payment", one.key.Public(), one.instance("order.*"), two.instance("order.*")) }
	both()
	n.eventually("subscriber is known", func() bool { return len(n.status("payment").Lanes) == 2 })
	var want []string
	for i := range 30 {
		want = append(want, fmt.Sprintf("e%02d", i))
		n.publish(want[i])
	}
	// One event after the other tries its home, so that not all need to have moved.
	n.eventually("most have moved", func() bool { return len(two.ids()) >= 25 })
	two.newDisk("st_other")
	one.set(func() { one.refuse = nil })
	both()
	n.eventually("all is settled", func() bool {
		return n.status("payment").Waiting == 0 && len(unique(append(one.ids(), two.ids()...))) == len(want)
	})
}
