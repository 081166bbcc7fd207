package outbox

import (
	"maps"
	"testing"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/backoff"
	"github.com/hooksidecar/hooksidecar/internal/event"
)

// A testbed is a dispatcher with a clock that the test moves.
type testbed struct {
	*dispatcher
	now time.Time
	seq uint64
}

func newTestbed(t *testing.T, instances ...string) *testbed {
	types, err := event.ParsePatterns([]string{"a.*"})
	if err != nil {
		t.Fatal(err)
	}
	b := &testbed{now: time.Unix(1_800_000_000, 0)}
	b.dispatcher = newDispatcher(subscriberRecord{Service: "s", Start: 1, Spans: []span{{Types: []string{"a.*"}, From: 1, patterns: types}}},
		limits{window: 100, windowBytes: 1 << 20, aside: 1000, failover: 30 * time.Second, atOpen: 1,
			retry: backoff.Policy{Base: 250 * time.Millisecond, Max: 30 * time.Second}})
	var peers []peer
	for _, name := range instances {
		peers = append(peers, peer{name: name, url: "http://" + name, boot: 1, patterns: []event.Patterns{types}})
	}
	b.known(peers...)
	return b
}

// next makes durable what had to be before anything is sent.
func (b *testbed) next(now time.Time) actions {
	b.decide()
	a := b.dispatcher.next(now)
	if b.undecided() {
		b.decide()
		a = b.dispatcher.next(now)
	}
	return a
}

// known tells the dispatcher of instances, and makes durable what it decides for that.
func (b *testbed) known(peers ...peer) {
	b.setPeers(peers)
	b.decide()
}

// decide makes what was decided durable.
func (b *testbed) decide() { b.decided, b.kept = b.decision, maps.Clone(b.said) }

// add reads n more events of the log; key 0 is none.
func (b *testbed) add(n int, key uint64) {
	var es []*entry
	for range n {
		b.seq++
		es = append(es, &entry{seq: b.seq, acceptedAt: b.now.UnixMilli(), typ: "a.b", version: "1", key: key, route: key + b.seq*(1-min(key, 1)), data: make([]byte, 100)})
	}
	b.loaded(es, b.seq)
}

// fail ends whatever is in flight without an answer.
func (b *testbed) fail(as []batch, sent bool) {
	for _, x := range as {
		b.answered(b.now, x.lane, answer{sent: sent, problem: "down"}, 0.99)
	}
}

func verdicts(n int, v event.Verdict) answer {
	out := make([]event.Outcome, n)
	for i := range out {
		out[i].Verdict = v
	}
	return answer{kind: answerVerdicts, sent: true, verdicts: out, said: instanceRecord{Applied: 1 << 62}}
}

func TestUnreachableSubscriberCostsNothing(t *testing.T) {
	b := newTestbed(t, "one", "two")
	b.add(60, 0)
	b.add(40, 7)
	b.takeWrite(time.Time{})
	requests := 0
	for end := b.now.Add(4 * time.Hour); b.now.Before(end); {
		a := b.next(b.now)
		requests += len(a.send)
		b.fail(a.send, false)
		a = b.next(b.now)
		if a.wakeAt.IsZero() {
			t.Fatal("nothing would wake it")
		}
		b.now = a.wakeAt
	}
	if b.pending.mustWrite || b.pending.moved || b.asides != 0 {
		t.Errorf("after hours there is something to write: %d set aside", b.asides)
	}
	for _, it := range b.open {
		if it.attempts != 0 || it.redeliver {
			t.Fatalf("event %d: %d attempts, redelivery %v, though nothing was ever sent", it.seq, it.attempts, it.redeliver)
		}
	}
	if most := 2 * 4 * 60 * 3; requests > most || requests < most/4 {
		t.Errorf("%d requests in 4 hours, want about two in 30 s", requests)
	}
	if events, _, _ := b.room(); events != 0 {
		t.Errorf("room for %d, want a full window", events)
	}
}

func TestFailover(t *testing.T) {
	b := newTestbed(t, "one", "two")
	b.add(20, 0)
	b.add(3, 7)
	var down, up *lane
	a := b.next(b.now)
	if len(a.send) != 2 {
		t.Fatalf("%d batches", len(a.send))
	}
	home := b.best(&item{key: 7, route: 7, typ: "a.b", version: "1"}, func(*lane) bool { return true })
	for _, x := range a.send {
		if x.lane == home {
			down = x.lane
		} else {
			up = x.lane
			b.answered(b.now, up, verdicts(len(x.items), event.Stored), 0)
		}
	}
	stuck := len(down.inFlight)
	b.answered(b.now, down, answer{sent: true, problem: "timed out"}, 0.99)
	b.now = b.now.Add(29 * time.Second)
	for _, x := range b.next(b.now).send {
		if x.lane == up {
			t.Fatalf("%d events moved before failover_after", len(x.items))
		}
		b.fail([]batch{x}, true)
	}
	b.now = b.now.Add(time.Second)
	moved := 0
	for range 2 { // in the first round one event tries whether its home still does not answer
		for _, x := range b.next(b.now).send {
			if x.lane == down {
				b.fail([]batch{x}, true)
				continue
			}
			for _, it := range x.items {
				if it.key != 0 || !it.redeliver {
					t.Errorf("event %d moved: key %d, redelivery %v", it.seq, it.key, it.redeliver)
				}
			}
			moved += len(x.items)
			b.answered(b.now, up, verdicts(len(x.items), event.Stored), 0)
		}
	}
	if moved != stuck-3 {
		t.Errorf("%d moved, want %d", moved, stuck-3)
	}
	b.next(b.now)
	if b.asides != 3 || b.cursor() != 23 {
		t.Errorf("%d set aside, cursor %d; want the 3 of the key, which stays, and 23", b.asides, b.cursor())
	}
	b.now = b.now.Add(time.Minute)
	for _, x := range b.next(b.now).send {
		b.answered(b.now, x.lane, verdicts(len(x.items), event.Stored), 0)
	}
	if len(b.open) != 0 {
		t.Errorf("%d open after the instance is back", len(b.open))
	}
	w := b.takeWrite(time.Time{})
	if len(w.asides) != 0 || len(w.ended) != 0 || w.record.Counts.Stored != 23 {
		t.Errorf("set aside and settled between two writes, yet written: %+v", w)
	}
}

func TestBlockedKeyDoesNotHoldTheOthers(t *testing.T) {
	b := newTestbed(t, "one")
	b.add(1, 7)
	b.add(3, 0)
	b.add(2, 7)
	a := b.next(b.now)
	ans := verdicts(6, event.Stored)
	for _, i := range []int{0, 4, 5} {
		ans.verdicts[i].Verdict = event.KeyBusy
	}
	b.answered(b.now, a.send[0].lane, ans, 0.99)
	if len(b.open) != 3 {
		t.Fatalf("%d open, want 3", len(b.open))
	}
	if a = b.next(b.now); len(a.send) != 0 || a.wakeAt.IsZero() {
		t.Fatalf("sent at once: %+v", a)
	}
	b.now = a.wakeAt
	if a = b.next(b.now); len(a.send) != 1 || len(a.send[0].items) != 1 || a.send[0].items[0].seq != 1 {
		t.Fatalf("want the head of the key alone, got %+v", a.send)
	}
	b.answered(b.now, a.send[0].lane, verdicts(1, event.Stored), 0)
	if a = b.next(b.now); len(a.send) != 1 || len(a.send[0].items) != 2 {
		t.Fatalf("want the rest of the key at once, got %+v", a.send)
	}
}

func TestInstanceThatWasRestartedIsTriedAtOnce(t *testing.T) {
	b := newTestbed(t, "one")
	b.add(1, 0)
	a := b.next(b.now)
	b.answered(b.now, a.send[0].lane, answer{sent: true, status: 503, retryAfter: time.Hour}, 0)
	if a = b.next(b.now.Add(time.Minute)); len(a.send) != 0 {
		t.Fatal("Retry-After is not obeyed")
	}
	p := b.lanes[0].peer
	b.known(p)
	if a = b.next(b.now); len(a.send) != 0 {
		t.Fatal("a change that is none hurries it")
	}
	p.boot++
	b.known(p)
	if a = b.next(b.now); len(a.send) != 1 {
		t.Fatal("it is not tried at once")
	}
}

func TestBatchLimits(t *testing.T) {
	b := newTestbed(t, "one")
	b.window, b.windowBytes = 4000, 1<<30
	b.add(600, 0)
	if a := b.next(b.now); len(a.send) != 1 || len(a.send[0].items) != maxBatchEvents {
		t.Fatalf("%d events in a batch", len(a.send[0].items))
	}
	b = newTestbed(t, "one")
	for range 4 {
		b.seq++
		b.loaded([]*entry{{seq: b.seq, typ: "a.b", version: "1", route: b.seq, data: make([]byte, 400_000)}}, b.seq)
	}
	if a := b.next(b.now); len(a.send[0].items) != 2 {
		t.Fatalf("%d events of 400 kB in a batch, want 2", len(a.send[0].items))
	}
}

func TestLostEventsAreCountedAndPassed(t *testing.T) {
	b := newTestbed(t, "one")
	b.loaded([]*entry{{seq: 3, typ: "a.b", version: "1", route: 3}}, 5)
	if b.counts.Lost != 4 || b.cursor() != 2 || b.after != 6 {
		t.Errorf("%+v, cursor %d, after %d", b.counts, b.cursor(), b.after)
	}
}

// Events that are asked to wait again and again take turns, whatever the time between two requests.
func TestEventsThatAreHeldBackTakeTurns(t *testing.T) {
	b := newTestbed(t, "one")
	b.retry = backoff.Policy{Base: time.Millisecond, Max: time.Millisecond}
	b.lanes[0].maxEvents = 1
	b.add(5, 0)
	tried := map[uint64]int{}
	for range 20 {
		for _, x := range b.next(b.now).send {
			tried[x.items[0].seq]++
			b.answered(b.now, x.lane, verdicts(1, event.KeyBusy), 0.5)
		}
		b.now = b.now.Add(time.Second)
	}
	for seq := range uint64(5) {
		if got := tried[seq+1]; got != 4 {
			t.Errorf("event %d was tried %d times of 20, want 4", seq+1, got)
		}
	}
}

// A key whose instance changes waits for the answer of the old one.
func TestKeyThatMovesWaitsForWhatIsInFlight(t *testing.T) {
	b := newTestbed(t, "one")
	b.add(1, 7)
	first := b.next(b.now).send[0]
	p := first.lane.peer
	p.name = "two"
	b.known(p) // "one" is no longer known
	b.add(1, 7)
	if a := b.next(b.now); len(a.send) != 0 {
		t.Fatalf("event %d overtakes the one in flight", a.send[0].items[0].seq)
	}
	b.answered(b.now, first.lane, verdicts(1, event.Stored), 0)
	if a := b.next(b.now); len(a.send) != 1 || a.send[0].lane.name != "two" {
		t.Fatalf("%+v", a.send)
	}
	if len(b.lanes) != 1 {
		t.Errorf("%d lanes, want the forgotten one gone", len(b.lanes))
	}
}
