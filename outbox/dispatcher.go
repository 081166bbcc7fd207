package outbox

import (
	"maps"
	"slices"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/backoff"
)

// limits bound what a dispatcher holds.
type limits struct {
	window      int           // open events that are not set aside
	windowBytes int           // of those events
	aside       int           // events set aside; beyond it the cursor waits
	failover    time.Duration // how long a lane may fail until others take over
	orderWait   time.Duration // how long a key waits for an instance that is lost; 0: for ever
	retry       backoff.Policy
	atOpen      uint64 // seqs below it may have been sent by an earlier process
}

// dispatcher decides for one subscriber what is sent where and when, and what is set aside. It is a state machine: inputs are
// method calls with the time, and a random number where one is needed; next returns what to do. It does no I/O and starts no
// goroutine; its owner calls it from one place at a time.
type dispatcher struct {
	limits
	service string
	log     string        // store id of this side
	phase   time.Duration // of this sender within gatherEvery
	spans   spans
	fill    *backfill
	paused  bool

	start    uint64      // first seq looked at
	after    uint64      // the first seq of the log that has not been looked at
	restored [][2]uint64 // settled by an earlier process, at or above after
	open     []*item     // in the order of their seqs
	asides   int
	bytes    int // held by open items
	counts   Settled

	lanes []*lane // by name
	epoch int     // changes with the lanes
	said  map[string]instanceRecord
	set   uint64 // hash of the instances and what they ask for
	mixed uint64 // up to this seq, events may have gone elsewhere than where this set of instances has them go
	gone  uint64 // events that an inbox may have lost, and the log no longer has

	spread    *spread // that keys go by; nil: nobody was known yet
	former    []spread
	moves     int                       // changes with spread
	kept      map[string]instanceRecord // what is durable of said
	overtaken uint64                    // keys that went on without an instance that is lost, so far
	passings  []passing                 // noticed, for the log

	replacements      []replacement   // noticed, for the log
	decision, decided uint64          // number of the last one, and of the last one that is durable
	buried            map[uint64]bool // dead events among those to be looked at again; input of loaded
	ended             map[uint64]bool // that were in flight when the second reading began, and have ended before it came to them

	pending changes
	going   map[uint64]*lane // where the key's earlier events go in this turn, if there are several lanes; scratch of next
	blocked map[uint64]bool  // keys whose later events may not be sent, true if more than a turn keeps them; scratch of next
}

func newDispatcher(r subscriberRecord, lim limits) *dispatcher {
	d := &dispatcher{
		limits: lim, service: r.Service, log: r.Log, spans: r.Spans, fill: r.Backfill, paused: r.Paused,
		start: r.Start, after: r.Cursor + 1, restored: slices.Clone(r.Settled), counts: r.Counts,
		said: map[string]instanceRecord{}, blocked: map[uint64]bool{}, going: map[uint64]*lane{}, ended: map[uint64]bool{}, set: r.Set, mixed: r.Mixed, gone: r.Gone,
		spread: r.Spread, former: slices.Clone(r.FormerSpreads), overtaken: r.Overtaken, kept: maps.Clone(r.Instances),
	}
	for name, said := range r.Instances {
		d.said[name] = said
	}
	d.phase = time.Duration(nameHash(r.Log) % uint64(gatherEvery))
	d.remindLanes()
	return d
}

// A batch is what one lane is to send now.
type batch struct {
	lane  *lane
	items []*item
}

// actions are what the dispatcher wants done.
type actions struct {
	send   []batch
	wakeAt time.Time // call next again then; zero: only after an input
}

// loaded takes the events of the log from after up to and with through, in the order of their seqs. A seq that is missing is
// lost. It takes no ownership: entries are shared.
func (d *dispatcher) loaded(entries []*entry, through uint64) {
	from, open := d.after, len(d.open)
	for _, e := range entries {
		if e.seq < d.after || e.seq > through {
			continue
		}
		d.lost(d.after, e.seq)
		d.after = e.seq + 1
		d.look(e)
	}
	d.lost(d.after, through+1)
	d.after = max(d.after, through+1)
	d.forget(d.after)
	if d.fill != nil || uint64(len(d.open)-open) < d.after-from {
		d.pending.moved = true // else all of it waits, and nothing that is durable has changed
	}
}

// dealtWith reports whether an earlier process has settled seq or set it aside.
func (d *dispatcher) dealtWith(seq uint64) bool {
	d.forget(seq)
	return len(d.restored) > 0 && d.restored[0][0] <= seq
}

// forget drops what an earlier process has settled below seq.
func (d *dispatcher) forget(seq uint64) {
	for len(d.restored) > 0 && d.restored[0][1] < seq {
		d.restored = d.restored[1:]
	}
}

// look decides whether an event of the log is owed.
func (d *dispatcher) look(e *entry) {
	as, reason := asWaiting, ""
	switch dealt := d.dealtWith(e.seq); {
	case dealt && d.fill == nil:
		return
	case dealt || d.fill != nil && e.seq <= d.fill.To:
		again := false
		if as, again = d.again(e, dealt); !again {
			return
		}
		reason = "read_again"
	case d.spans.owed(e.seq, e.typ, e.version):
	case d.spans.covered(e.seq, e.typ, e.version):
		d.counts.Unsubscribed++
		return
	default:
		d.counts.Skipped++
		return
	}
	it := &item{
		seq: e.seq, key: e.key, route: e.route, size: e.size(), typ: e.typ, version: e.version,
		acceptedAt: e.acceptedAt, entry: e, redeliver: e.seq < d.atOpen || reason != "",
		counted: as, reason: reason,
	}
	d.bytes += it.size
	d.insert(it)
}

func (d *dispatcher) insert(it *item) {
	if n := len(d.open); n == 0 || d.open[n-1].seq < it.seq {
		d.open = append(d.open, it)
		return
	}
	i, found := slices.BinarySearchFunc(d.open, it.seq, func(it *item, seq uint64) int {
		return compareSeq(it.seq, seq)
	})
	if !found {
		d.open = slices.Insert(d.open, i, it)
	}
}

func compareSeq(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// find returns the open event with that seq, or nil.
func (d *dispatcher) find(seq uint64) *item {
	i, found := slices.BinarySearchFunc(d.open, seq, func(it *item, seq uint64) int { return compareSeq(it.seq, seq) })
	if !found {
		return nil
	}
	return d.open[i]
}

// restoreAside takes an event whose set-aside record is durable: at start, or because a dead letter is replayed.
func (d *dispatcher) restoreAside(seq uint64, r asideRecord) {
	if d.find(seq) != nil {
		return // a second request for the same letter changes nothing
	}
	it := &item{
		seq: seq, key: r.Key, route: r.Route, size: r.Size, typ: r.Type, version: r.Version, acceptedAt: r.AcceptedAt,
		attempts: r.Attempts, redeliver: true, reason: r.Reason, aside: true, recorded: true, letter: r.Letter,
	}
	if it.letter != "" {
		it.counted = asDead
	}
	d.asides++
	d.insert(it)
}

// cursor is the seq up to which everything is settled or set aside.
func (d *dispatcher) cursor() uint64 {
	for _, it := range d.open {
		if !it.aside {
			return it.seq - 1
		}
	}
	return d.after - 1
}

// next returns what is to be done at now. What it says is to be sent counts as in flight from then on.
func (d *dispatcher) next(now time.Time) actions {
	var a actions
	if d.paused || d.undecided() {
		return a
	}
	if d.watch(now, &a); d.undecided() {
		return a // once that is durable
	}
	d.fillLanes(now, &a)
	d.ask(now, &a)
	return a
}

// room returns how many events, and bytes of them, from which seq on, there is room for.
func (d *dispatcher) room() (events, bytes int, from uint64) {
	events, bytes = d.window-(len(d.open)-d.asides), d.windowBytes-d.bytes
	if events <= 0 || bytes <= 0 || d.undecided() || !d.anyKnown() && d.rereads(d.after) {
		return 0, 0, d.after // while nobody is known, nobody can tell whose share is to be sent again
	}
	return events, bytes, d.after
}

// fillLanes puts a batch together for every lane that may send, in the order of the seqs, and sets aside what cannot go.
func (d *dispatcher) fillLanes(now time.Time, a *actions) {
	idle, healthy, ready := false, false, false
	for _, l := range d.lanes {
		idle = idle || l.known && !l.busy()
		healthy = healthy || l.known && !l.failing()
		ready = ready || l.ready(now)
	}
	if !idle {
		return // an answer, or a change of instances, comes first
	}
	if !healthy && !ready {
		// Nobody can be reached, and each event published would mean a look at all that waits.
		for _, l := range d.lanes {
			if l.known && !l.busy() {
				a.wake(now, l.notBefore)
			}
		}
		return
	}
	for _, l := range d.lanes {
		l.needed = false
	}
	for again := true; again; {
		clear(d.blocked)
		clear(d.going)
		for _, l := range d.lanes {
			l.begin()
		}
		for _, it := range d.open {
			if it.seq >= d.after {
				break // what was set aside by an earlier process does not overtake what is still to be read
			}
			d.place(it, now, healthy, a)
		}
		again = false
		for _, l := range d.lanes {
			again = d.depart(l, a) || again
		}
	}
	for _, l := range d.lanes {
		if !l.needed {
			l.neededSince = time.Time{}
		} else if l.neededSince.IsZero() {
			l.neededSince = now
		}
	}
}

// place puts it into a batch, or finds what keeps it.
func (d *dispatcher) place(it *item, now time.Time, healthy bool, a *actions) {
	if it.inFlight {
		d.block(it, it.held > 0)
		return
	}
	l, why := d.route(it, now)
	if why == "" {
		why = d.obstacle(it, l, now)
	}
	if why != "" {
		d.block(it, true)
		d.hold(it, l, why, now, healthy, a)
		return
	}
	if it.held == 0 {
		it.heldSince, it.reason = time.Time{}, ""
	}
	_, waits := d.blocked[it.key]
	if waits || d.parts(it, l) || !l.ready(now) || !l.take(it) {
		d.block(it, it.held > 0)
	} else if it.held > 0 {
		d.block(it, true) // it is tried by itself
	}
}

// depart sends what was put together for l. It reports true if there was nothing but what has had its turn, which comes round
// again then.
func (d *dispatcher) depart(l *lane, a *actions) (again bool) {
	if len(l.next) == 0 {
		l.turn = 0
		return l.postponed
	}
	for _, it := range l.next {
		it.inFlight, it.before, it.at = true, it.at, l
		if it.held > 0 {
			l.turn = it.seq
		}
	}
	l.inFlight, l.next, l.sentTo = l.next, nil, l.storeID
	d.givenAstray(l)
	a.send = append(a.send, batch{lane: l, items: l.inFlight})
	return false
}

// block keeps later events of the same key from overtaking it; hard says that more than its turn keeps it.
func (d *dispatcher) block(it *item, hard bool) {
	if it.key != 0 {
		d.blocked[it.key] = d.blocked[it.key] || hard
	}
}

// What keeps an event that is not merely waiting for its turn.
const (
	heldByKey    = "key_busy" // an earlier event of its key is not settled
	heldByAnswer = "asked_to_wait"
	heldByLane   = "unreachable" // its instance does not answer as it should
	heldByNobody = "no_instance" // no known instance subscribes to it
	heldByOwner  = "key_moves"   // the instance that its key moves from is not done with earlier ones
)

// obstacle returns what keeps it, or "" if only its lane's turn does.
func (d *dispatcher) obstacle(it *item, l *lane, now time.Time) string {
	switch {
	case l == nil:
		return heldByNobody
	case d.blocked[it.key]:
		return heldByKey
	case now.Before(it.notBefore):
		return heldByAnswer
	case now.Before(l.notBefore), l.failing() && l.busy():
		return heldByLane
	}
	return ""
}

// hold notes that it cannot go, and sets it aside if that would hold up others who can.
func (d *dispatcher) hold(it *item, l *lane, why string, now time.Time, healthy bool, a *actions) {
	it.reason = why
	if it.heldSince.IsZero() {
		it.heldSince = now
	}
	a.wake(now, it.notBefore)
	if l != nil && !l.busy() {
		a.wake(now, l.notBefore)
	}
	if it.aside || !healthy || d.asides >= d.aside {
		return
	}
	late := it.heldSince.Add(d.failover)
	if l != nil && l.failing() {
		if at := l.badSince.Add(d.failover); at.Before(late) {
			late = at
		}
	}
	if d.behind(it) || !now.Before(late) {
		d.setAside(it, why)
		return
	}
	a.wake(now, late)
}

// behind reports whether more than half of the window lies behind it.
func (d *dispatcher) behind(it *item) bool { return d.after-1-it.seq >= uint64(d.window/2) }

// wake asks to be called at t, if that is to come.
func (a *actions) wake(now, t time.Time) {
	if t.After(now) && (a.wakeAt.IsZero() || t.Before(a.wakeAt)) {
		a.wakeAt = t
	}
}

// setAside lets the cursor pass it.
func (d *dispatcher) setAside(it *item, why string) {
	it.aside, it.reason = true, why
	d.asides++
	d.bytes -= it.size
	it.entry = nil
	if it.counted == asSkipped || it.counted == asStored {
		it.counted = asWaiting // its own record says so from now on
	}
	d.pending.add(it)
}
