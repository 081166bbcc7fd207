package outbox

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/deadletter"
	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

const (
	windowEvents = 2048
	windowBytes  = 8 << 20
	maxAside     = 1 << 16         // per subscriber; what is set aside is also held in memory, without its bytes
	graceTime    = 5 * time.Second // for requests under way when Run is asked to stop
	lazyCursor   = 5 * time.Second // how long a cursor that only passed others' events may stay unwritten
	refreshEvery = time.Second     // between two requests for a newer descriptor
	pauseOnError = time.Second     // before a read or write that failed is tried again
)

// A subscriber is one service that is owed events: its dispatcher and the loop that acts for it.
type subscriber struct {
	o         *Outbox
	service   string
	createdAt time.Time
	metrics   *subscriberCounters
	wake      chan struct{}         // something has changed
	sated     atomic.Bool           // there is no room for more events: publish need not wake the loop
	routes    atomic.Pointer[spans] // as far as durable, for publish

	mu       sync.Mutex // guards what follows; never held over I/O
	d        *dispatcher
	durable  uint64        // the cursor as written
	writtenN uint64        // writes that have become durable
	takenN   uint64        // writes that were begun
	written  chan struct{} // closed and replaced when a write has become durable
}

func (o *Outbox) newSubscriber(r subscriberRecord) *subscriber {
	r = r.in(o.store.ID())
	s := &subscriber{
		o: o, service: r.Service, createdAt: r.CreatedAt, wake: make(chan struct{}, 1), written: make(chan struct{}),
		durable: r.Cursor,
	}
	s.d = newDispatcher(r, limits{
		window: windowEvents, windowBytes: windowBytes, aside: maxAside, failover: o.cfg.FailoverAfter, orderWait: max(0, o.cfg.OrderWait), retry: o.cfg.Retry,
		atOpen: o.store.AtOpen(store.OutboxLog),
	})
	routes := spans(r.Spans)
	s.routes.Store(&routes)
	s.metrics = newSubscriberCounters(o.metrics.set, s)
	return s
}

func (r *subscriberRecord) compile() error {
	if r.Backfill != nil {
		if err := r.Backfill.Spans.compile(); err != nil {
			return err
		}
	}
	for i := range r.FormerSpreads {
		if err := r.FormerSpreads[i].compile(); err != nil {
			return err
		}
	}
	if r.Spread != nil {
		if err := r.Spread.compile(); err != nil {
			return err
		}
	}
	return spans(r.Spans).compile()
}

func (s *subscriber) restoreAsides(sn *store.Snapshot) error {
	for rec, err := range sn.Scan(asideKey(s.service, 0), asideKey(s.service, 1<<64-1)) {
		if errors.Is(err, store.ErrDamagedRecord) {
			s.o.log.Error("set-aside event cannot be read", "subscriber", s.service, "seq", asideSeq(rec.Key), "err", err)
			continue
		}
		if err != nil {
			return err
		}
		r, _, err := readAside(asideSeq(rec.Key), rec.Val)
		if err != nil {
			return err
		}
		s.d.restoreAside(asideSeq(rec.Key), r)
	}
	s.d.endUnwanted() // what was in flight when that changed
	return nil
}

// wanted returns what the subscriber asks for.
func (s *subscriber) wanted() spans { return *s.routes.Load() }

// nudge makes the loop look again.
func (s *subscriber) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// change calls f with the dispatcher, and makes the loop look again.
func (s *subscriber) change(f func(*dispatcher)) {
	s.mu.Lock()
	f(s.d)
	s.mu.Unlock()
	s.nudge()
}

// changeDurably is change, and waits until what it led to is written.
func (s *subscriber) changeDurably(ctx context.Context, f func(*dispatcher)) error {
	s.mu.Lock()
	f(s.d)
	s.d.pending.mustWrite = true
	want := s.takenN + 1
	s.mu.Unlock()
	s.nudge()
	for {
		s.mu.Lock()
		done, wait := s.writtenN >= want, s.written
		s.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// An arrived answer is what a request has led to.
type arrived struct {
	lane *lane
	ans  answer
}

// loop is the state of run that only run touches.
type loop struct {
	*subscriber
	ctx      context.Context
	senders  map[string]*sender
	answers  chan arrived
	flushed  chan error
	inFlight int
	flushing bool
	unsaved  []*write  // under way, or to be tried again; the last one holds the state
	pauseTo  time.Time // nothing is read or written again before; zero: no matter
	savedAt  time.Time
	wakeAt   time.Time

	refreshed time.Time // when a newer descriptor was last asked for
}

// run acts for the subscriber until ctx ends. It returns once its requests have ended and its state is written.
func (s *subscriber) run(ctx context.Context) {
	sending, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(graceTime, stop) })()
	l := &loop{
		subscriber: s, ctx: sending, senders: map[string]*sender{}, answers: make(chan arrived), flushed: make(chan error, 1),
		savedAt: time.Now(),
	}
	for ctx.Err() == nil {
		more := l.step(time.Now())
		if !more && !l.wait(ctx) {
			break
		}
	}
	l.finish()
}

// step does what can be done now. It reports whether there is more to do at once.
func (l *loop) step(now time.Time) (more bool) {
	if now.Before(l.pauseTo) {
		l.wakeAt = l.pauseTo
		return false
	}
	l.pauseTo = time.Time{}
	more = l.load()
	l.mu.Lock()
	a := l.d.next(now)
	replacements, passings := l.d.replacements, l.d.passings
	l.d.replacements, l.d.passings = nil, nil
	parcels := make([]parcel, len(a.send))
	for i, b := range a.send {
		parcels[i] = l.pack(b)
	}
	l.mu.Unlock()
	for _, r := range replacements {
		l.replaced(r)
	}
	for _, p := range passings {
		l.passed(p)
	}
	for i, b := range a.send {
		l.dispatch(b.lane, parcels[i])
	}
	l.wakeAt = a.wakeAt
	l.flush(now)
	return more && l.pauseTo.IsZero()
}

// load reads the log as far as there is room. It reports whether it has read anything.
func (l *loop) load() bool {
	l.mu.Lock()
	room, bytes, from := l.d.room()
	again := l.d.rereads(from)
	l.mu.Unlock()
	l.sated.Store(room == 0) // every change that makes room leads back here
	if room == 0 || from >= l.o.tail.end() {
		return false
	}
	entries, through, err := l.o.readLog(from, room, bytes)
	var buried map[uint64]bool
	if err == nil && again {
		buried, err = l.buried(entries)
	}
	if err != nil {
		l.pause(err, "the log cannot be read, will try again")
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if room, _, now := l.d.room(); room == 0 || now != from {
		return true // in the meantime something else is to be read
	}
	l.d.buried = buried
	l.d.loaded(entries, through)
	l.d.buried = nil
	return true
}

// buried returns which of entries have a dead letter that has not been resolved: they are not sent again by themselves.
func (l *loop) buried(entries []*entry) (map[uint64]bool, error) {
	out := map[uint64]bool{}
	err := l.o.store.View(func(sn *store.Snapshot) error {
		for _, e := range entries {
			ev, err := event.ParseAttributes(e.attributes)
			if err != nil {
				return err // every entry was parsed when it was read
			}
			letter, ok, err := deadletter.Get(sn, deadletter.ID(deadletter.Outbox, l.service, ev.Source, ev.ID))
			if err != nil {
				return err
			}
			if ok && letter.Seq == e.seq && letter.State != deadletter.Resolved {
				out[e.seq] = true
			}
		}
		return nil
	})
	return out, err
}

func (l *loop) pause(err error, message string) {
	l.pauseTo = time.Now().Add(pauseOnError)
	if !ended(err) {
		l.o.log.Error(message, "subscriber", l.service, "err", err)
	}
}

// pack copies what is to be sent. The lock is held.
func (l *loop) pack(b batch) parcel {
	p := parcel{service: l.service, to: b.lane.peer, cursor: l.d.cursor(), question: len(b.items) == 0, deliveries: make([]packed, len(b.items))}
	for i, it := range b.items {
		p.deliveries[i] = packed{seq: it.seq, attempt: it.attempts + 1, redelivery: it.redeliver, entry: it.entry}
	}
	return p
}

// dispatch makes the request in a goroutine of its own. A lane has one at most.
func (l *loop) dispatch(ln *lane, p parcel) {
	snd := l.senders[p.to.name]
	if snd == nil {
		snd = &sender{o: l.o}
		l.senders[p.to.name] = snd
	}
	l.inFlight++
	go func() { l.answers <- arrived{ln, l.deliver(snd, p)} }()
}

// deliver reads what is not in memory, and sends.
func (l *loop) deliver(snd *sender, p parcel) answer {
	if p.question {
		ans := snd.send(l.ctx, p)
		l.report(snd, p, ans)
		return ans
	}
	gone, err := l.fetch(&p)
	if err != nil {
		return answer{here: true, problem: "events cannot be read: " + err.Error()}
	}
	if len(p.deliveries) == 0 {
		return withLost(answer{kind: answerVerdicts}, gone)
	}
	began := time.Now()
	ans := snd.send(l.ctx, p)
	l.count(p, ans, time.Since(began))
	l.report(snd, p, ans)
	if ans.kind == answerVerdicts {
		ans = withLost(ans, gone)
	}
	return ans
}

// fetch reads the events that are not in memory. Those that the disk no longer has are taken out of p; gone tells which of
// the original ones they were, nil if none.
func (l *loop) fetch(p *parcel) (gone []bool, err error) {
	if !slices.ContainsFunc(p.deliveries, func(d packed) bool { return d.entry == nil }) {
		return nil, nil
	}
	kept := p.deliveries[:0:0]
	err = l.o.store.View(func(sn *store.Snapshot) error {
		for i, d := range p.deliveries {
			if d.entry == nil {
				if d.entry, err = readEntry(sn, p.service, d.seq); err != nil && !unreadable(err) {
					return err
				}
			}
			if d.entry != nil {
				kept = append(kept, d)
				continue
			}
			if gone == nil {
				gone = make([]bool, len(p.deliveries))
			}
			gone[i] = true
			l.o.log.Error("an event that is owed is no longer on disk", "subscriber", p.service, "seq", d.seq)
		}
		return nil
	})
	p.deliveries = kept
	return gone, err
}

// lost is the verdict of this side about an event that the disk no longer has.
const lost event.Verdict = "lost"

// withLost puts the verdicts about events that were not sent between the others.
func withLost(ans answer, gone []bool) answer {
	if gone == nil {
		return ans
	}
	all := make([]event.Outcome, len(gone))
	next := 0
	for i := range all {
		if gone[i] {
			all[i].Verdict = lost
		} else if next < len(ans.verdicts) {
			all[i] = ans.verdicts[next]
			next++
		}
	}
	ans.verdicts = all
	return ans
}

// report logs the first of a run of equal problems, and its end.
func (l *loop) report(snd *sender, p parcel, ans answer) {
	if ans.problem == snd.warned {
		return
	}
	if snd.warned = ans.problem; ans.problem == "" {
		l.o.log.Info("deliveries get through again", "subscriber", p.service, "instance", p.to.name, "url", p.to.url)
		return
	}
	l.o.log.Warn("delivery did not get through, will try again",
		"subscriber", p.service, "instance", p.to.name, "url", p.to.url, "problem", ans.problem)
}

// replaced says that an inbox has lost its disk.
func (l *loop) replaced(r replacement) {
	l.metrics.replaced.Inc()
	first, _ := l.o.store.Bounds(store.OutboxLog)
	l.o.log.Error("inbox replaced: what it may have lost with its store is sent again",
		"alert", "inbox_replaced", "subscriber", l.service, "instance", r.instance, "store", r.is, "former_store", r.was,
		"from_seq", r.from, "to_seq", r.to, "oldest_kept_seq", first)
	l.o.cfg.Directory.Refresh(l.service)
}

// passed says that keys went on without an instance that is lost.
func (l *loop) passed(p passing) {
	l.o.log.Warn("an instance is lost: keys that waited for it go on, and may have arrived out of order",
		"subscriber", l.service, "instance", p.instance, "keys", p.keys, "more_may_be_open", p.all, "waited", l.o.cfg.OrderWait)
}

func (l *loop) count(p parcel, ans answer, took time.Duration) {
	m := l.metrics
	m.batchSize.Update(float64(len(p.deliveries)))
	m.seconds.Update(took.Seconds())
	for _, d := range p.deliveries {
		if d.redelivery {
			m.redelivery.Inc()
		}
	}
	switch {
	case ans.kind == answerVerdicts:
		for _, o := range ans.verdicts {
			if c := m.deliveries[string(o.Verdict)]; c != nil {
				c.Inc()
			}
		}
	case ans.status != 0:
		m.deliveries["refused"].Add(len(p.deliveries))
	default:
		m.deliveries["no_answer"].Add(len(p.deliveries))
	}
}

// wait waits for something to happen. It reports false if the loop should end.
func (l *loop) wait(ctx context.Context) bool {
	at := l.wakeAt
	if !l.flushing && l.dirty() {
		if due := l.savedAt.Add(lazyCursor); at.IsZero() || due.Before(at) {
			at = due
		}
	}
	var due <-chan time.Time
	if !at.IsZero() {
		timer := time.NewTimer(time.Until(at))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-l.wake:
	case a := <-l.answers:
		l.take(a)
	case err := <-l.flushed:
		return l.saved(err)
	case <-due:
	}
	return true
}

func (l *loop) dirty() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.d.pending.moved
}

func (l *loop) take(a arrived) {
	l.inFlight--
	l.mu.Lock()
	refresh := l.d.answered(time.Now(), a.lane, a.ans, rand.Float64())
	l.mu.Unlock()
	if now := time.Now(); refresh && now.Sub(l.refreshed) >= refreshEvery {
		l.refreshed = now
		l.o.cfg.Directory.Refresh(l.service)
	}
}
