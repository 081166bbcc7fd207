package outbox_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/outbox"
)

// The process is ended again and again, without its last writes, while two instances answer as inboxes do on bad days. Every
// event arrives; one that may have arrived before is marked; each instance stores the events of a key in order.
func TestCrashesAndBadDays(t *testing.T) {
	n := newNode(t, func(c *outbox.Config) { c.FailoverAfter = 30 * time.Millisecond })
	one, two := newInbox(t, "payment", "pay-1", n.key.Public()), newInbox(t, "payment", "pay-2", n.key.Public())
	two.key = one.key // of the service
	inboxes := []*inbox{one, two}
	var seen sync.Map // ids that have come to any of them
	for _, in := range inboxes {
		in.set(func() {
			in.refuse = func(w http.ResponseWriter, k int) bool {
				for _, e := range in.batches[k-1] {
					if _, before := seen.LoadOrStore(e.id, true); before && !e.redelivery {
						t.Errorf("%s got %s again, unmarked, attempt %d", in.name, e.id, e.attempt)
					}
				}
				switch rand.IntN(12) {
				case 0:
					w.WriteHeader(503)
				case 1:
					panic(http.ErrAbortHandler)
				case 2: // all stored, and the answer is lost
					in.got = append(in.got, in.batches[k-1]...)
					panic(http.ErrAbortHandler)
				default:
					return false
				}
				return true
			}
			held := map[string]bool{} // keys of the batch that is judged
			last := 0
			in.verdict = func(e received) event.Outcome {
				if last != len(in.batches) {
					last = len(in.batches)
					clear(held)
				}
				key := e.id[:2]
				if key != "k0" && held[key] || rand.IntN(20) == 0 {
					held[key] = true
					return event.Outcome{Verdict: event.KeyBusy}
				}
				return event.Outcome{Verdict: event.Stored}
			}
		})
	}
	n.peers.set("payment", one.key.Public(), one.instance("order.*"), two.instance("order.*"))
	n.eventually("subscriber is known", func() bool { return len(n.status("payment").Lanes) == 2 })
	var want []string
	for round := range 4 {
		for i := range 120 {
			id := fmt.Sprintf("k%d-%d-%03d", i%8, round, i)
			if i%8 == 0 {
				n.publish(id)
			} else {
				n.publish(id, "key", fmt.Sprint(i%8))
			}
			want = append(want, id)
		}
		n.crash()
	}
	for _, in := range inboxes {
		in.set(func() { in.verdict = nil })
	}
	n.eventually("all is settled", func() bool { return n.status("payment").Waiting == 0 })
	slices.Sort(want)
	if got := unique(append(one.ids(), two.ids()...)); !slices.Equal(got, want) {
		t.Errorf("%d events arrived, want %d", len(got), len(want))
	}
	if st := n.status("payment"); int(st.Counts.Stored) != len(want) || st.SetAside != 0 || st.Counts.Dead != 0 {
		t.Errorf("%+v", st)
	}
	for _, in := range inboxes {
		first, newest := map[string]bool{}, map[string]uint64{}
		for _, e := range in.received() {
			key := e.id[:2]
			if first[e.id] || key == "k0" {
				continue
			}
			if first[e.id] = true; e.seq < newest[key] {
				t.Errorf("%s stored event %d of key %s after event %d", in.name, e.seq, key, newest[key])
			}
			newest[key] = e.seq
		}
	}
}
