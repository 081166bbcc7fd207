package inbox

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/event"
)

// TestStartAsksFirstWhatOthersHaveFinished: what was stored here and could not be answered went to another instance, which
// finished it.
func TestStartAsksFirstWhatOthersHaveFinished(t *testing.T) {
	a, b := newPair(t)
	const events = 2500 // more than two pages
	var ds []event.Delivery
	for seq := uint64(1); seq <= events; seq++ {
		key := ""
		if seq%3 == 0 {
			key = fmt.Sprint("k", seq%9)
		}
		ds = append(ds, deliveryOf(seq, newEvent(fmt.Sprint("evt_", seq), key)))
	}
	for part := range slices.Chunk(ds, 500) {
		a.deliver(part...)
	}
	finished := slices.DeleteFunc(slices.Clone(ds), func(d event.Delivery) bool { return d.Seq%5 == 0 })
	for part := range slices.Chunk(finished, 500) {
		b.deliver(part...)
	}
	b.run().until("most of it is settled there", b.drained)
	a.restart()
	a.run().until("all is settled here", a.drained)
	if got, want := len(a.app.got()), events/5; got != want {
		t.Errorf("the app got %d events here, want %d", got, want)
	}
	for id, marked := range a.marks() {
		if !marked {
			t.Errorf("%s is not marked", id)
		}
	}
	if got, want := a.counts("hooksidecar_inbox_settled_elsewhere_total"), fmt.Sprint(events/5*4); got != want {
		t.Errorf("%s events counted as settled elsewhere, want %s", got, want)
	}
	if got := b.asked.Load(); got < 3 || got > 6 {
		t.Errorf("%d questions about %d events", got, events)
	}
	if got := a.deliver().Applied; got != events {
		t.Errorf("applied %d, want %d", got, events)
	}
	a.restart()
	for id, want := range map[string]string{"evt_4": reasonElsewhere, "evt_5": ""} {
		if st, ok, err := a.in.Event(t.Context(), them, id); err != nil || !ok || st.State != StateDone || st.Why != want {
			t.Errorf("%s: %+v, %v, want done %q", id, st, err, want)
		}
	}
	a.run()
	a.deliver(deliveryOf(events+1, newEvent("evt_new", "")))
	a.until("a new event is settled", a.drained)
	if got := len(a.app.got()); got != events/5+1 {
		t.Errorf("the app got %d events after a second restart", got-events/5)
	}
}

// TestStartAsksAboutWhatWasTried: an event that waits for its next attempt, and those behind it.
func TestStartAsksAboutWhatWasTried(t *testing.T) {
	slow := func(c *Config) { c.Subscriptions[0].Retry.Initial = time.Hour }
	a, b := newPair(t, slow)
	a.app.answers(status(500))
	ds := []event.Delivery{deliveryOf(1, newEvent("evt_1", "k")), deliveryOf(2, newEvent("evt_2", "k")), deliveryOf(3, newEvent("evt_3", "k"))}
	a.deliver(ds...)
	a.run().until("it waits", func() bool { return a.in.Status().Waiting == 1 && a.durable() })
	b.deliver(ds[0], ds[1])
	b.run().until("two are settled there", b.drained)
	a.app.answers(nil)
	a.restart()
	a.run().until("all is settled here", a.drained)
	if got := a.app.ids(); !slices.Equal(got, []string{"evt_1", "evt_3"}) {
		t.Errorf("the app got %v", got)
	}
	if st, _, err := a.in.Event(t.Context(), them, "evt_1"); err != nil || st.State != StateDone || st.Why != reasonElsewhere {
		t.Errorf("status %+v, %v", st, err)
	}
}

func TestStartWhileOthersCannotBeAsked(t *testing.T) {
	a, b := newPair(t)
	for _, at := range []*instance{a, b} {
		at.deliver(deliveryOf(1, newEvent("evt_1", "")), deliveryOf(2, newEvent("evt_2", "k")))
	}
	b.run().until("it is settled there", b.drained)
	b.server.Close()
	a.restart()
	a.run().until("it is forwarded all the same", a.drained)
	if got := a.marks(); len(got) != 2 || !got["evt_1"] || !got["evt_2"] {
		t.Errorf("marked: %v, want both", got)
	}
}

// TestStartKeepsWhatOthersHaveNotFinished: open there, another content there, or a letter that is being replayed here.
func TestStartKeepsWhatOthersHaveNotFinished(t *testing.T) {
	a, b := newPair(t, quick(1))
	a.app.answers(status(500))
	a.deliver(deliveryOf(1, newEvent("evt_dead", "")))
	a.run().until("it is a letter", func() bool { return len(a.letters()) == 1 && a.drained() })
	a.restart()
	if err := a.in.ReplayLetter(t.Context(), a.letters()[0].ID); err != nil {
		t.Fatal(err)
	}
	other := newEvent("evt_other", "")
	other.Data = []byte(`{"orderId":"changed"}`)
	b.deliver(deliveryOf(1, newEvent("evt_dead", "")), deliveryOf(2, other))
	b.run().until("they are settled there", b.drained)
	b.app.answers(status(503))
	b.deliver(deliveryOf(3, newEvent("evt_open", "")))
	a.deliver(deliveryOf(2, newEvent("evt_other", "")), deliveryOf(3, newEvent("evt_open", "")))
	a.restart()
	a.app.answers(nil)
	calls := len(a.app.got())
	a.run().until("all is settled here", a.drained)
	got := a.app.ids()[calls:]
	slices.Sort(got)
	if want := []string{"evt_dead", "evt_open", "evt_other"}; !slices.Equal(got, want) {
		t.Errorf("the app got %v, want %v", got, want)
	}
}

// TestInstanceThatWasCutOffAsksAgain: while it held its events back, since its app was away, another instance got and
// finished them. Nothing of that is forwarded once the other one is back.
func TestInstanceThatWasCutOffAsksAgain(t *testing.T) {
	a, b := newPair(t)
	cut := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	b.answers(cut)
	a.app.answers(func(call) (*http.Response, error) { return nil, errRefused })
	a.run()
	a.wantVerdicts(a.deliver(a.again(1, newEvent("evt_1", ""))), event.Stored) // finds that nobody can be asked
	a.deliver(deliveryOf(2, newEvent("evt_2", "k")), deliveryOf(3, newEvent("evt_3", "k")), deliveryOf(4, newEvent("evt_4", "")))
	a.until("the app is found to be away", func() bool { return a.in.Status().AppState == string(appDown) })
	b.deliver(deliveryOf(1, newEvent("evt_1", "")), deliveryOf(2, newEvent("evt_2", "k")), deliveryOf(3, newEvent("evt_3", "k")))
	b.run().until("it is settled there", b.drained)
	b.serve.Store(nil)
	a.wantVerdicts(a.deliver(a.again(9, newEvent("evt_9", ""))), event.Stored) // finds that it can be asked again
	a.until("what is finished there is settled here", func() bool { return a.in.Status().Backlog == 2 })
	calls := len(a.app.got())
	a.app.answers(nil)
	a.in.Resume(false)
	a.until("the rest is settled", a.drained)
	got := a.app.ids()[calls:]
	slices.Sort(got)
	if want := []string{"evt_4", "evt_9"}; !slices.Equal(got, want) {
		t.Errorf("the app got %v, want %v", got, want)
	}
}

func TestNewsOfAnotherInstanceAsksAgain(t *testing.T) {
	a, b := newPair(t)
	a.peers.know(a.describe())
	a.app.answers(func(call) (*http.Response, error) { return nil, errRefused })
	a.deliver(deliveryOf(1, newEvent("evt_1", "")))
	b.deliver(deliveryOf(1, newEvent("evt_1", "")))
	b.run().until("it is settled there", b.drained)
	a.run().until("the app is found to be away", func() bool { return a.in.Status().AppState == string(appDown) })
	a.peers.know(a.describe(), b.describe())
	a.until("it is settled here too", a.drained)
}

// TestOthersAreLookedAfterNowAndThen: also when nothing comes that would ask them.
func TestOthersAreLookedAfterNowAndThen(t *testing.T) {
	onFakeTime(t, func(t *testing.T, n *node) {
		asked := 0
		n.peers.know(event.Instance{Service: us, Name: "pay-2", StoreID: "st_2", URL: "http://pay-2.test"})
		n.in.siblings.client.Transport = roundTrip(func(*http.Request) (*http.Response, error) {
			asked++
			return nil, errRefused
		})
		n.run()
		wait(time.Minute)
		if asked < 4 || asked > 9 {
			t.Errorf("asked %d times in a minute", asked)
		}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestFinishedElsewhereWhileUnderWay: an event whose forward fails for good, though another instance finished it, is no dead
// letter; one behind it that is finished too ends once, and the next of the key goes when neither is left.
func TestFinishedElsewhereWhileUnderWay(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	f := newForwarder(modelPolicies, 3, 0)
	f.next = 4
	for seq := uint64(1); seq <= 3; seq++ {
		f.load(&item{seq: seq, key: 7, size: 10})
	}
	if got := len(f.start(now)); got != 1 {
		t.Fatalf("%d forwards of one key", got)
	}
	f.doubtAll()
	if got, want := f.nextDoubts(10, 1000), []uint64{1, 2, 3}; !slices.Equal(got, want) {
		t.Fatalf("in doubt are %v, want %v", got, want)
	}
	f.heard(2, event.Settled, true)
	f.heard(1, event.Settled, true)
	f.heard(3, event.Unknown, true)
	f.answered(1, answer{class: classRefused}, now, 0.5)
	var ended []uint64
	for f.changes != nil {
		now, later := f.writing(f.changes)
		f.changes = nil
		for i := range now {
			if now[i].kind != changeElsewhere {
				t.Errorf("event %d: change of kind %d", now[i].item.seq, now[i].kind)
			}
			ended = append(ended, now[i].item.seq)
			f.saved(&now[i])
		}
		f.changes = append(f.changes, later...)
	}
	if want := []uint64{2, 1}; !slices.Equal(ended, want) {
		t.Errorf("ended elsewhere: %v, want %v", ended, want)
	}
	flights := f.start(now)
	if len(flights) != 1 || flights[0].seq != 3 || flights[0].marked {
		t.Errorf("then go %+v, want 3 alone, unmarked", flights)
	}
}

func TestAnswerForTheHeadWhileTheNextOneEndsElsewhere(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	f := newForwarder(modelPolicies, 3, 0)
	f.next = 4
	for seq := uint64(1); seq <= 3; seq++ {
		f.load(&item{seq: seq, key: 7, size: 10})
	}
	f.start(now)
	f.doubtAll()
	f.nextDoubts(10, 1000)
	f.heard(2, event.Settled, true)
	f.answered(1, answer{class: classDone}, now, 0.5)
	if got := f.start(now); len(got) != 0 {
		t.Errorf("event %d goes while the end of 2 is not durable", got[0].seq)
	}
	count := map[changeKind]int{}
	for i := range f.changes {
		count[f.changes[i].kind]++
	}
	if count[changeDone] != 1 || count[changeElsewhere] != 1 || len(f.changes) != 2 {
		t.Errorf("changes %v", count)
	}
	for i := range f.changes {
		f.saved(&f.changes[i])
	}
	f.heard(3, event.Open, true)
	if got := f.start(now); len(got) != 1 || got[0].seq != 3 || !got[0].marked {
		t.Errorf("then go %+v, want 3 alone, marked: another instance has it too", got)
	}
}
