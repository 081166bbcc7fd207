package inbox

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/deadletter"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

const (
	stopGrace      = 5 * time.Second // for requests under way when asked to stop
	readinessEvery = 2 * time.Second // between questions to the readiness URL
	reloadAfter    = time.Second     // before an event that could not be read is tried again
)

// A flightResult is what came of one flight.
type flightResult struct {
	seq    uint64
	answer answer
	err    error // the event could not be read: nothing was sent
}

// Run forwards events until ctx ends, then waits for the requests under way and makes durable what they brought. It alone
// starts forwards. It returns an error only if the store fails.
func (in *Inbox) Run(ctx context.Context) error {
	in.mu.Lock()
	if in.running {
		in.mu.Unlock()
		return ErrRunning
	}
	in.running = true
	in.mu.Unlock()

	var others sync.WaitGroup
	defer others.Wait()
	flights, cancelFlights := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelFlights()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if in.app != nil {
		defer in.app.close()
		if in.app.readiness != "" {
			others.Go(func() { in.watchReadiness(ctx) })
		}
	}
	others.Go(func() { in.retain(ctx) })
	defer in.siblings.close()
	others.Go(func() { in.siblings.watch(ctx) })
	var under sync.WaitGroup
	defer under.Wait()

	r := &runner{Inbox: in, flights: flights, under: &under, told: make(chan rumour, 1)}
	if err := r.loop(ctx); err != nil {
		cancelFlights()
		return fmt.Errorf("inbox: %w", err)
	}
	if err := r.stop(cancelFlights); err != nil && !errors.Is(err, store.ErrClosed) {
		return fmt.Errorf("inbox: %w", err)
	}
	return nil
}

// A runner is the state of one Run.
type runner struct {
	*Inbox
	flights context.Context // of requests
	under   *sync.WaitGroup // requests under way
	told    chan rumour     // cap 1
	asking  bool            // a question to the other instances is under way
}

func (r *runner) loop(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if ctx.Err() != nil {
			return nil
		}
		if err := r.step(ctx, timer); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		case <-timer.C:
		case res := <-r.answers:
			r.landed(res)
			for more := true; more; { // what has come together is looked at together
				select {
				case res := <-r.answers:
					r.landed(res)
				default:
					more = false
				}
			}
		case err := <-r.saved:
			if err := r.settled(err); err != nil {
				return err
			}
		case told := <-r.told:
			r.asking = false
			r.heed(told)
		case <-r.store.Fenced():
			return store.ErrFenced
		}
	}
}

// step starts what can be started, sets the timer for what time alone will bring, and has changes written.
func (r *runner) step(ctx context.Context, timer *time.Timer) error {
	if err := r.fill(); err != nil {
		return err
	}
	r.inquire(ctx)
	now := time.Now()
	r.mu.Lock()
	var flying []*flight
	able := r.app != nil && len(r.settler.pending) < maxUnsaved // else saved goes on
	if able {
		for _, it := range r.f.start(now) {
			flying = append(flying, &flight{
				seq: it.seq, sub: it.sub, attempt: it.tries, redelivered: it.marked || it.tries > 1, event: it.event,
			})
		}
	}
	at, ok := r.f.wake()
	mode := r.f.app.shown()
	changed := mode != r.shown
	was := r.shown
	r.shown = mode
	r.mu.Unlock()
	if changed {
		r.sayMode(was, mode)
	}
	timer.Stop()
	if ok && able {
		timer.Reset(max(0, at.Sub(now)))
	}
	for _, fl := range flying {
		if fl.redelivered {
			r.m.redelivered.Inc()
		}
		r.under.Go(func() { r.answers <- r.fly(fl) }) // never blocks: as many places as flights
	}
	r.flush()
	return nil
}

func (r *runner) sayMode(was, mode appMode) {
	switch mode {
	case appUp:
		r.log.Info("app takes events again", "was", was)
	case appSuspect:
		r.log.Error("app refuses every event; they are kept until it takes one or an operator accepts", "was", was)
	default:
		r.log.Warn("forwarding is held back", "app", mode, "was", was)
	}
}

// fly makes one forward.
func (r *runner) fly(fl *flight) flightResult {
	if fl.event == nil {
		var err error
		if fl.event, err = r.read(fl.seq); err != nil {
			return flightResult{seq: fl.seq, err: err}
		}
	}
	a := r.app.forward(r.flights, fl)
	r.m.forwarded(a)
	if a.class == classDone {
		r.m.endToEnd.Update(max(0, time.Since(time.UnixMilli(fl.event.acceptedAt)).Seconds()))
	}
	e := &fl.event.event
	r.log.Debug("forwarded", "event_id", e.ID, "event_type", e.Type, "attempt", fl.attempt,
		"outcome", a.class.String(), "status", a.last.Status, "took", a.took)
	return flightResult{seq: fl.seq, answer: a}
}

// errGone says that an event is no longer there to be forwarded.
var errGone = errors.New("the event is missing or damaged")

// read returns an event from the log, or from the letter that it is replayed from.
func (in *Inbox) read(seq uint64) (*received, error) {
	in.mu.Lock()
	letter := ""
	if it := in.f.items[seq]; it != nil {
		letter = it.letter
	}
	in.mu.Unlock()
	var r *received
	err := in.store.View(func(sn *store.Snapshot) error {
		val, ok, err := sn.Get(seqKey(eventPrefix, seq))
		if errors.Is(err, store.ErrDamagedRecord) {
			ok, err = false, nil
		}
		if err != nil {
			return err
		}
		if ok {
			r, err = decodeReceived(seq, val)
			if errors.Is(err, errRecord) {
				err = errGone
			}
			return err
		}
		if r, err = readLetter(sn, seq, letter); err != nil {
			return err
		}
		return nil
	})
	return r, err
}

func readLetter(sn *store.Snapshot, seq uint64, letter string) (*received, error) {
	attributes, data, ok, err := deadletter.Event(sn, letter)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, errGone
	}
	return receivedOf(seq, attributes, data)
}

// landed takes the result of a flight.
func (r *runner) landed(res flightResult) {
	if r.flights.Err() != nil {
		return // called off while stopping: the event stays owed, and is marked when the next process sends it
	}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	it := r.f.items[res.seq]
	switch {
	case errors.Is(res.err, errGone):
		r.log.Error("event is missing or damaged and cannot be forwarded", "seq", res.seq)
		r.m.lost.Inc()
		r.f.lose(res.seq)
	case res.err != nil:
		r.log.Warn("event could not be read, will retry", "seq", res.seq, "err", res.err)
		r.f.unsent(res.seq, now.Add(reloadAfter))
	default:
		r.f.answered(res.seq, res.answer, now, rand.Float64())
	}
	if it != nil && it.event != nil && r.f.items[res.seq] == it { // it waits: the log keeps its bytes meanwhile
		r.held -= int64(it.event.size())
		it.event = nil
	}
	r.reap()
}

// stop waits for the requests under way, at most for the grace period, and for the last write.
func (r *runner) stop(cancelFlights context.CancelFunc) error {
	grace := time.AfterFunc(stopGrace, cancelFlights)
	defer grace.Stop()
	for r.flying() > 0 && r.flights.Err() == nil {
		select {
		case res := <-r.answers:
			r.landed(res)
		case err := <-r.saved:
			if err := r.settled(err); err != nil {
				return err
			}
			r.flush()
		case <-r.flights.Done():
		}
	}
	full := time.After(stopGrace) // a disk that is full takes nothing until there is room: what was done is then marked as a repeat
	for r.flush(); r.writing(); r.flush() {
		select {
		case err := <-r.saved:
			if err := r.settled(err); err != nil {
				return err
			}
		case <-full:
			r.log.Warn("stopped before the last state was written; what the app took lately will be forwarded again, marked")
			return nil
		}
	}
	return nil
}

func (in *Inbox) flying() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.f.flying
}

func (in *Inbox) writing() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.settler.inFlight
}

// watchReadiness asks the readiness URL until ctx ends.
func (in *Inbox) watchReadiness(ctx context.Context) {
	tick := time.NewTicker(readinessEvery)
	defer tick.Stop()
	for {
		ok := in.app.ready(ctx)
		if ctx.Err() != nil {
			return
		}
		in.mu.Lock()
		in.f.app.readiness(ok)
		in.mu.Unlock()
		in.poke()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
