package outbox

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hooksidecar/hooksidecar/internal/backoff"
	"github.com/hooksidecar/hooksidecar/internal/event"
)

// world is what surrounds a dispatcher in the model: the log, what is durable of the subscriber, and what its inboxes have.
type world struct {
	t       *rapid.T
	now     time.Time
	log     []*entry // seq i+1
	d       *dispatcher
	peers   []peer
	durable subscriberRecord
	asides  map[uint64]asideRecord
	dead    map[uint64]string
	atOpen  uint64
	flights map[string]batch
	sentBy  map[uint64]bool           // may have been sent by any process
	stored  map[string]map[uint64]int // per instance: how often each seq was stored
	got     map[uint64][]uint64       // per key: seqs in the order of their first storage
	zFrom   uint64                    // from where on z.z is asked for too; 0: it is not
	never   map[uint64]bool           // what an inbox has refused once it refuses for ever

	disks map[string]int             // per instance: how many it has lost
	done  map[string]map[uint64]bool // per instance: what its app is done with, of what it has stored
	apps  map[uint64]bool            // what any app is done with
	late  map[string]answer          // of an inbox that has lost its disk since
	queue map[string][]uint64        // per instance: what was stored, in that order
	began map[uint64][]uint64        // per key: seqs in the order in which an app was done with them first

	orderWait time.Duration
	tame      bool   // no event is refused
	noticed   func() // called after each look of the dispatcher

	named int  // as many open keys are named, more are "all"
	loses bool // disks are lost: what is stored may be settled and yet be sent again
}

func all(t *rapid.T, patterns ...string) event.Patterns {
	p, err := event.ParsePatterns(patterns)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newWorld(t *rapid.T) *world {
	w := &world{
		t: t, now: time.Unix(1_800_000_000, 0), asides: map[uint64]asideRecord{}, dead: map[uint64]string{},
		flights: map[string]batch{}, sentBy: map[uint64]bool{}, stored: map[string]map[uint64]int{}, got: map[uint64][]uint64{},
		never: map[uint64]bool{}, disks: map[string]int{}, done: map[string]map[uint64]bool{}, apps: map[uint64]bool{}, late: map[string]answer{},
		queue: map[string][]uint64{}, began: map[uint64][]uint64{},
	}
	w.named = rapid.IntRange(0, 3).Draw(t, "named")
	w.durable = subscriberRecord{
		Service: "s", Start: 1, Spans: []span{{Types: []string{"a.*"}, From: 1, patterns: all(t, "a.*")}},
	}
	w.peers = []peer{w.peer("one")}
	w.open()
	return w
}

func (w *world) peer(name string) peer {
	return peer{name: name, url: "http://" + name, storeID: w.storeID(name), patterns: []event.Patterns{all(w.t, "a.*")}}
}

func (w *world) storeID(name string) string { return fmt.Sprintf("st_%s_%d", name, w.disks[name]) }

// says is what the instance says of itself.
func (w *world) says(name string) instanceRecord {
	highest, open := uint64(0), uint64(1<<63)
	for seq, n := range w.stored[name] {
		if n == 0 {
			continue
		}
		highest = max(highest, seq)
		if !w.done[name][seq] {
			open = min(open, seq)
		}
	}
	said := instanceRecord{StoreID: w.storeID(name), Applied: min(open, highest+1) - 1}
	keys := map[uint64]bool{}
	for seq, n := range w.stored[name] {
		if key := w.log[seq-1].key; key != 0 && n > 0 && !w.done[name][seq] {
			keys[key] = true
		}
	}
	if said.OpenAll = len(keys) > w.named; !said.OpenAll {
		said.OpenKeys = slices.Sorted(maps.Keys(keys))
	}
	return said
}

// open starts a process from what is durable.
func (w *world) open() {
	w.atOpen = uint64(len(w.log)) + 1
	w.d = newDispatcher(w.durable, limits{
		window: 16, windowBytes: 1 << 20, aside: 24, failover: 30 * time.Second, orderWait: w.orderWait, atOpen: w.atOpen,
		retry: backoff.Policy{Base: 250 * time.Millisecond, Max: 30 * time.Second},
	})
	for seq, r := range w.asides {
		w.d.restoreAside(seq, r)
	}
	clear(w.flights)
	clear(w.late)
	w.d.setPeers(w.peers)
}

func (w *world) publish() {
	seq := uint64(len(w.log)) + 1
	e := &entry{seq: seq, acceptedAt: w.now.UnixMilli(), data: []byte("{}"), typ: "a.b", version: "1.0", route: seq * 7919}
	if k := rapid.Uint64Range(0, 3).Draw(w.t, "key"); k != 0 {
		e.key, e.route = k, k*104729
	}
	if rapid.IntRange(0, 4).Draw(w.t, "type") == 0 {
		e.typ = "z.z"
	}
	w.log = append(w.log, e)
}

// step lets the dispatcher read and send.
func (w *world) step() {
	if room, _, from := w.d.room(); room > 0 && from <= uint64(len(w.log)) {
		to := min(from-1+uint64(room), uint64(len(w.log)))
		w.d.buried = map[uint64]bool{}
		for seq := range w.dead {
			w.d.buried[seq] = true
		}
		w.d.loaded(w.log[from-1:to], to)
	}
	send := w.d.next(w.now).send
	if w.noticed != nil {
		w.noticed()
	}
	for _, b := range send {
		if _, busy := w.flights[b.lane.name]; busy {
			w.t.Fatalf("two batches in flight to %s", b.lane.name)
		}
		if len(b.items) == 0 && !b.lane.asking || len(b.items) > maxBatchEvents {
			w.t.Fatalf("a batch of %d events", len(b.items))
		}
		for _, it := range b.items {
			if w.sentBy[it.seq] && !it.redeliver {
				w.t.Fatalf("event %d may have been sent before and is not marked", it.seq)
			}
			if w.settled(it.seq) && w.d.find(it.seq) == nil {
				w.t.Fatalf("event %d is sent although it is settled", it.seq)
			}
		}
		w.flights[b.lane.name] = b
	}
	w.check()
}

func (w *world) settled(seq uint64) bool {
	_, dead := w.dead[seq]
	return dead
}

// answer ends the request of one lane in some way.
func (w *world) answer() {
	names := slices.Sorted(maps.Keys(w.flights))
	if len(names) == 0 {
		return
	}
	name := rapid.SampledFrom(names).Draw(w.t, "lane")
	b := w.flights[name]
	delete(w.flights, name)
	var ans answer
	late, isLate := w.late[name]
	if isLate {
		delete(w.late, name)
		w.deliver(b, late)
		return
	}
	kind := rapid.SampledFrom([]string{"verdicts", "verdicts", "verdicts", "unsent", "silence", "wait", "refused", "large"}).Draw(w.t, "answer")
	if len(b.items) == 0 && (kind == "refused" || kind == "large") {
		kind = "wait"
	}
	switch kind {
	case "verdicts":
		ans = answer{kind: answerVerdicts, sent: true, verdicts: w.judge(name, b)}
		ans.said = w.says(name)
	case "unsent":
	case "silence": // stored, but the answer is lost
		w.judge(name, b)
		ans = answer{sent: true}
	case "wait":
		ans = answer{sent: true, status: 503, retryAfter: time.Duration(rapid.IntRange(0, 5).Draw(w.t, "after")) * time.Second}
	case "refused":
		ans = answer{kind: answerRefused, sent: true, status: 400}
		w.refuseAlone(b)
	case "large":
		ans = answer{kind: answerTooLarge, sent: true, status: 413}
		w.refuseAlone(b)
	}
	w.deliver(b, ans)
}

func (w *world) deliver(b batch, ans answer) {
	if ans.sent {
		for _, it := range b.items {
			w.sentBy[it.seq] = true
		}
	}
	w.d.answered(w.now, b.lane, ans, rapid.Float64Range(0, 0.99).Draw(w.t, "r"))
	w.check()
}

// owed reports whether the event was asked for.
func (w *world) owed(e *entry) bool { return e.typ == "a.b" || w.zFrom != 0 && e.seq >= w.zFrom }

func (w *world) refuseAlone(b batch) {
	if len(b.items) == 1 {
		w.never[b.items[0].seq] = true
	}
}

// judge is an inbox: it stores what it does not have, in order per key.
func (w *world) judge(name string, b batch) []event.Outcome {
	out := make([]event.Outcome, len(b.items))
	refused := map[uint64]bool{}
	busy := false
	for i, it := range b.items {
		v := event.Verdict(rapid.SampledFrom([]string{"stored", "stored", "stored", "stored", "key_busy", "busy", "rejected", "odd"}).Draw(w.t, "verdict"))
		has := w.stored[name][it.seq] > 0
		switch {
		case busy || v == event.Busy:
			v, busy = event.Busy, true
		case has:
			v = event.Duplicate
		case it.key != 0 && refused[it.key]:
			v = event.KeyBusy
		case v == event.Rejected && w.tame:
			v = event.KeyBusy
		case v == event.Rejected || w.never[it.seq]:
			v = event.Rejected
			w.never[it.seq] = true
		case v == event.Stored:
			if w.stored[name] == nil {
				w.stored[name] = map[uint64]int{}
			}
			w.stored[name][it.seq]++
			w.queue[name] = append(w.queue[name], it.seq)
			if it.key != 0 {
				w.got[it.key] = append(w.got[it.key], it.seq)
			}
		}
		if v != event.Stored && v != event.Duplicate && v != event.Rejected {
			refused[it.key] = true
		}
		out[i] = event.Outcome{Verdict: v}
	}
	return out
}

// write makes what was decided durable.
func (w *world) write() {
	rec := w.d.takeWrite(time.Time{})
	for _, a := range rec.asides {
		w.asides[a.seq] = a.record
	}
	for _, seq := range rec.ended {
		if _, ok := w.asides[seq]; !ok {
			w.t.Fatalf("set-aside record %d is removed, but there is none", seq)
		}
		delete(w.asides, seq)
	}
	for _, dead := range rec.dead {
		w.dead[dead.seq] = dead.reason
	}
	for _, letter := range rec.resolved {
		var seq uint64
		fmt.Sscan(letter, &seq)
		delete(w.dead, seq)
	}
	w.durable = rec.record
	w.d.saved(&rec)
	w.checkDurable()
}

// checkDurable holds after every commit: what is neither stored nor dead is above the cursor or set aside.
func (w *world) checkDurable() {
	if w.loses {
		return // what was lost is not known at once
	}
	for _, e := range w.log {
		if !w.owed(e) || w.isStored(e.seq) || w.dead[e.seq] != "" {
			continue
		}
		if _, aside := w.asides[e.seq]; aside {
			continue
		}
		if f := w.durable.Backfill; f != nil && e.seq >= f.From && !f.Spans.owed(e.seq, e.typ, e.version) {
			continue // the second reading comes to it
		}
		if e.seq <= w.durable.Cursor {
			w.t.Fatalf("the cursor %d has passed event %d, which is neither settled nor set aside", w.durable.Cursor, e.seq)
		}
		for _, r := range w.durable.Settled {
			if r[0] <= e.seq && e.seq <= r[1] {
				w.t.Fatalf("event %d is in the settled range %v and is not", e.seq, r)
			}
		}
	}
}

func (w *world) isStored(seq uint64) bool {
	if w.apps[seq] {
		return true
	}
	for _, have := range w.stored {
		if have[seq] > 0 {
			return true
		}
	}
	return false
}

// check holds at any time.
func (w *world) check() {
	d := w.d
	next := uint64(len(w.log)) + 1
	if got, want := d.counts.sum()+d.waiting()+d.unread(next), next-d.start; got != want {
		w.t.Fatalf("settled %+v + open %d + unread %d is %d, want %d", d.counts, d.waiting(), d.unread(next), got, want)
	}
	for i := 1; i < len(d.open); i++ {
		if d.open[i-1].seq >= d.open[i].seq {
			w.t.Fatalf("open events out of order at %d", i)
		}
	}
	if n := len(d.open) - d.asides; n > d.window {
		w.t.Fatalf("%d events in a window of %d", n, d.window)
	}
}

// checkOrder holds while no key has moved: every instance got the events of a key in the order of their seqs.
func (w *world) checkOrder() {
	for key, seqs := range w.got {
		var first []uint64 // the others are repeats
		for _, seq := range seqs {
			if !slices.Contains(first, seq) {
				first = append(first, seq)
			}
		}
		if !slices.IsSorted(first) {
			w.t.Fatalf("events of key %d were stored in the order %v", key, seqs)
		}
	}
}

func (w *world) crash() { w.open() }

// finishApps lets every app be done with what its inbox has.
func (w *world) finishApps() {
	for _, name := range slices.Sorted(maps.Keys(w.stored)) {
		have := w.stored[name]
		if w.done[name] == nil {
			w.done[name] = map[uint64]bool{}
		}
		for _, seq := range w.queue[name] {
			if have[seq] > 0 && !w.done[name][seq] {
				w.isDone(name, seq)
			}
		}
	}
}

// isDone notes that the app of an instance is done with an event.
func (w *world) isDone(name string, seq uint64) {
	if key := w.log[seq-1].key; key != 0 && !w.apps[seq] {
		w.began[key] = append(w.began[key], seq)
	}
	w.done[name][seq], w.apps[seq] = true, true
}

// drain answers everything well until nothing is left.
func (w *world) drain() {
	for range 2000 {
		w.now = w.now.Add(time.Minute)
		w.finishApps()
		w.write()
		w.step()
		for _, name := range slices.Sorted(maps.Keys(w.flights)) {
			b := w.flights[name]
			delete(w.flights, name)
			out := make([]event.Outcome, len(b.items))
			for i, it := range b.items {
				if w.never[it.seq] && w.stored[name][it.seq] == 0 {
					out[i] = event.Outcome{Verdict: event.Rejected}
					continue
				}
				if w.stored[name] == nil {
					w.stored[name] = map[uint64]int{}
				}
				if w.stored[name][it.seq] == 0 {
					w.queue[name] = append(w.queue[name], it.seq)
				}
				if w.stored[name][it.seq]++; w.stored[name][it.seq] == 1 && it.key != 0 {
					w.got[it.key] = append(w.got[it.key], it.seq)
				}
				out[i] = event.Outcome{Verdict: event.Stored}
				w.sentBy[it.seq] = true
			}
			w.d.answered(w.now, b.lane, answer{kind: answerVerdicts, sent: true, verdicts: out, said: w.says(name)}, 0)
		}
		if len(w.d.open) == 0 && w.d.after == uint64(len(w.log))+1 && len(w.flights) == 0 {
			w.write()
			return
		}
	}
	w.t.Fatalf("not drained: %s", w.describe())
}

func (w *world) describe() string {
	return fmt.Sprintf("%d open, %d set aside, after %d, log %d, lanes %d, flights %v, undecided %v, first %+v", len(w.d.open), w.d.asides, w.d.after, len(w.log), len(w.d.lanes), w.flights, w.d.undecided(), w.d.open[0])
}

// finish checks that every event has ended once.
func (w *world) finish() {
	w.drain()
	if len(w.asides) != 0 {
		w.t.Fatalf("set-aside records are left: %v", w.asides)
	}
	if got, want := w.durable.Cursor, uint64(len(w.log)); got != want {
		w.t.Fatalf("cursor %d, want %d", got, want)
	}
	for _, e := range w.log {
		if w.owed(e) && !w.isStored(e.seq) && w.dead[e.seq] == "" {
			w.t.Fatalf("event %d is lost", e.seq)
		}
		if !w.owed(e) && w.isStored(e.seq) {
			w.t.Fatalf("event %d was sent and not asked for", e.seq)
		}
	}
}

// replay sends a dead letter again; its inbox has changed its mind.
func (w *world) replay() {
	seqs := slices.Sorted(maps.Keys(w.dead))
	if len(seqs) == 0 {
		return
	}
	seq := rapid.SampledFrom(seqs).Draw(w.t, "letter")
	if _, pending := w.asides[seq]; pending {
		return
	}
	delete(w.never, seq)
	e := w.log[seq-1]
	r := asideRecord{Reason: "replay", Key: e.key, Route: e.route, Type: e.typ, Version: e.version, Size: e.size(), Letter: fmt.Sprint(seq)}
	w.asides[seq] = r
	w.d.restoreAside(seq, r)
	w.step()
}

// A subscription to other types is added, and reaches back into the log; then the first one ends. All that was asked for at its
// time arrives or is counted, across crashes.
func TestDispatcherReachesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		added := false
		t.Repeat(w.machine(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				if added || len(w.log) == 0 {
					return
				}
				from := uint64(rapid.IntRange(1, len(w.log)).Draw(t, "from"))
				now := append(w.d.spans.clone(), span{Types: []string{"z.*"}, From: from, patterns: all(t, "z.*")})
				if added = w.d.reachBack(from); added {
					w.d.setSpans(now)
					w.peers = []peer{{name: "one", url: "http://one", patterns: []event.Patterns{all(t, "*.*")}}}
					w.d.setPeers(w.peers)
					w.zFrom = from
					w.write()
				}
				w.check()
			},
		}))
		w.finish()
	})
}

func (w *world) machine(more map[string]func(*rapid.T)) map[string]func(*rapid.T) {
	m := map[string]func(*rapid.T){
		"publish": func(*rapid.T) {
			for range rapid.IntRange(1, 8).Draw(w.t, "events") {
				w.publish()
			}
		},
		"step":    func(*rapid.T) { w.step() },
		"answer":  func(*rapid.T) { w.answer() },
		"answer2": func(*rapid.T) { w.answer(); w.step() },
		"write":   func(*rapid.T) { w.write() },
		"crash":   func(*rapid.T) { w.crash() },
		"wait": func(*rapid.T) {
			w.now = w.now.Add(time.Duration(rapid.IntRange(1, 40_000).Draw(w.t, "ms")) * time.Millisecond)
			w.step()
		},
		"": func(*rapid.T) { w.check() },
	}
	maps.Copy(m, more)
	return m
}

// With one set of instances every key stays in order, whatever is answered, and nothing is lost.
func TestDispatcherLosesNothingAndKeepsOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		for _, name := range []string{"two", "three"}[:rapid.IntRange(0, 2).Draw(t, "instances")] {
			w.peers = append(w.peers, w.peer(name))
		}
		w.d.setPeers(w.peers)
		t.Repeat(w.machine(nil))
		w.checkOrder()
		w.finish()
		w.checkOrder()
	})
}

// Instances come and go, deliveries are paused: nothing is lost and nothing is sent twice at once.
func TestDispatcherLosesNothingWhenInstancesComeAndGo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		t.Repeat(w.machine(map[string]func(*rapid.T){
			"peers": func(t *rapid.T) {
				w.peers = nil
				for _, name := range []string{"one", "two", "three"} {
					if rapid.Bool().Draw(t, name) {
						w.peers = append(w.peers, w.peer(name))
					}
				}
				w.d.setPeers(w.peers)
				w.step()
			},
			"pause":  func(t *rapid.T) { w.d.paused = rapid.Bool().Draw(t, "paused"); w.step() },
			"replay": func(*rapid.T) { w.replay() },
		}))
		w.d.paused = false
		if len(w.peers) == 0 {
			w.peers = []peer{w.peer("one")}
			w.d.setPeers(w.peers)
		}
		w.finish()
	})
}
