package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"
)

// A duo is two services that publish to each other under load, each with an app of its own.
type duo struct {
	t              *testing.T
	sidecars       [2]*sidecar
	apps           [2]*fakeApp
	producers      [2]*producer
	loads          []*load
	rounds, marked int
}

// startDuo starts both and waits until they know each other.
func startDuo(t *testing.T) *duo {
	t.Helper()
	d := &duo{t: t}
	for i, service := range []string{"order-service", "payment-service"} {
		app := newApp(t)
		app.answers(busyApp)
		d.apps[i] = app
		d.sidecars[i] = newSidecar(t, settings{service: service, subscribe: []string{"order.*"}, appURL: app.url(), secret: appSecret,
			flags: []string{"--retry-initial", "50ms", "--retry-max-interval", "500ms"}})
	}
	know(d.sidecars[:]...)
	for _, s := range d.sidecars {
		s.start()
	}
	for i, s := range d.sidecars {
		// order.* is wanted by both: each gets its own events, and the other's.
		acquainted(t, s, d.sidecars[0].settings.service, d.sidecars[1].settings.service)
		d.producers[i] = newProducer(t, s)
	}
	return d
}

// busyApp works a little, so that a kill finds requests under way, and fails now and then, so that it finds retries.
func busyApp(arrival) answer {
	a := answer{status: 200, delay: time.Duration(rand.IntN(3)) * time.Millisecond}
	switch rand.IntN(100) {
	case 0, 1:
		a.status = 500
	case 2:
		a.status = 0
	}
	return a
}

// load begins to post to both.
func (d *duo) load(keys int, pace time.Duration) {
	for i, p := range d.producers {
		d.loads = append(d.loads, startLoad(p, fmt.Sprintf("%c%d", 'a'+i, len(d.loads)), keys, pace))
	}
}

// settle stops the load, waits until everything has arrived, and checks both stories.
func (d *duo) settle(within time.Duration) {
	d.t.Helper()
	for _, l := range d.loads {
		l.stop()
	}
	posted := slices.Concat(d.producers[0].ledger.all(), d.producers[1].ledger.all(), d.sidecars[0].probes, d.sidecars[1].probes)
	for i, app := range d.apps {
		hasDone(d.t, within, app, posted)
		arrivals := app.arrivals()
		story{subscriber: d.sidecars[i].settings.service, posted: posted, arrivals: arrivals, secret: appSecret}.check(d.t)
		for _, a := range arrivals {
			if a.marked() {
				d.marked++
			}
		}
	}
	for i, s := range d.sidecars {
		d.accounted(s, append(d.producers[i].ledger.all(), s.probes...))
	}
	count := map[outcome]int{}
	for _, p := range posted {
		count[p.Outcome]++
	}
	d.t.Logf("%d rounds, posted %v, %d deliveries to the apps were marked", d.rounds, count, d.marked)
	if count[acknowledged] < 20 {
		d.t.Errorf("only %d events were acknowledged: this proves nothing", count[acknowledged])
	}
	if count[refused] > 0 {
		d.t.Errorf("%d events were refused for good", count[refused])
	}
}

// accounted checks a sidecar's own view at rest: seqs without a gap, nothing that waits, nothing dead.
func (d *duo) accounted(s *sidecar, posted []posted) {
	d.t.Helper()
	given := map[uint64]bool{}
	for _, p := range posted {
		given[p.Seq] = true
	}
	delete(given, 0) // of what was never acknowledged
	eventually(d.t, 15*time.Second, s.settings.service+" is at rest", func() error {
		st := status(d.t, s)
		for _, sub := range st.Subscribers {
			if sub.Backlog != 0 || sub.Dead != 0 {
				return fmt.Errorf("subscriber %+v", sub)
			}
		}
		if st.Inbox.Backlog != 0 || st.DeadLetters != 0 || len(st.Subscribers) != 2 {
			return fmt.Errorf("status %+v", st)
		}
		return nil
	})
	for _, other := range d.sidecars {
		conserved(d.t, s, other.settings.service)
	}
	next := status(d.t, s).Outbox.NextSeq
	for seq := uint64(1); seq < next; seq++ {
		if !given[seq] {
			d.t.Errorf("%s has given seq %d (of %d) to nobody who was told", s.settings.service, seq, next-1)
		}
	}
	if n := uint64(len(given)); n != next-1 {
		d.t.Errorf("%s has acknowledged %d seqs, its next is %d", s.settings.service, n, next)
	}
}

// soak is how long the crash test goes on: HOOKSIDECAR_SOAK, else a few seconds.
func soak(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("HOOKSIDECAR_SOAK")
	if text == "" {
		return slowdown(8 * time.Second)
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal("HOOKSIDECAR_SOAK:", err)
	}
	return d
}

// TestKillUnderLoad kills the one, the other and both in turn while both publish and receive.
func TestKillUnderLoad(t *testing.T) {
	t.Parallel()
	d := startDuo(t)
	d.load(6, 4*time.Millisecond)
	for end := time.Now().Add(soak(t)); time.Now().Before(end) && !t.Failed(); d.rounds++ {
		wait(t.Context(), time.Duration(100+rand.IntN(500))*time.Millisecond) // somewhere in the work
		victims := [][]*sidecar{d.sidecars[:1], d.sidecars[1:], d.sidecars[:]}[d.rounds%3]
		for _, s := range victims {
			s.signal(syscall.SIGKILL)
		}
		for _, s := range victims {
			<-s.ended
			s.launch()
			if d.rounds%4 == 3 { // once more, while it starts
				wait(t.Context(), time.Duration(rand.IntN(60))*time.Millisecond)
				s.kill()
				s.launch()
			}
		}
		for _, s := range victims {
			s.ready()
		}
	}
	d.settle(30 * time.Second)
	if d.rounds < 3 {
		t.Errorf("only %d rounds: not everyone was killed", d.rounds)
	}
	for _, s := range d.sidecars {
		s.stop()
		if r := s.command("verify", "--data-dir", s.dataDir()); r.code != 0 {
			t.Errorf("verify of %s after all this: %v", s.settings.service, r)
		}
	}
}

// TestTermUnderLoad asks both to end, in turn, while both publish and receive: they exit with 0 and nothing is lost.
func TestTermUnderLoad(t *testing.T) {
	t.Parallel()
	d := startDuo(t)
	d.load(4, 4*time.Millisecond)
	for ; d.rounds < 4; d.rounds++ {
		wait(t.Context(), 250*time.Millisecond)
		s := d.sidecars[d.rounds%2]
		began := time.Now()
		s.stop()
		if took := time.Since(began); took > slowdown(8*time.Second) {
			t.Errorf("%s took %v to stop", s.settings.service, took)
		}
		s.start()
	}
	d.settle(20 * time.Second)
}

// TestSecondSignalEndsAtOnce sends SIGTERM twice to a sidecar whose app hangs.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	order, payment := pair(t, app)
	app.answers(func(arrival) answer { return answer{status: 200, delay: slowdown(20 * time.Second)} })
	p := newProducer(t, order)
	p.mustPublish(envelope{ID: "hangs", Type: "order.created", Data: json.RawMessage(`{}`)})
	eventually(t, 10*time.Second, "the app has the event", func() error {
		if len(app.of("hangs")) == 0 {
			return fmt.Errorf("it has %d arrivals", len(app.arrivals()))
		}
		return nil
	})
	payment.signal(syscall.SIGTERM)
	wait(t.Context(), 200*time.Millisecond) // so that the signals are two
	select {
	case <-payment.ended: // it need not wait for the app
	default:
		payment.signal(syscall.SIGTERM)
	}
	payment.exit(2 * time.Second)
	app.answers(nil)
	payment.start()
	eventually(t, 10*time.Second, "the event is done", func() error {
		if !app.done()["hangs"] {
			return fmt.Errorf("arrivals: %d", len(app.of("hangs")))
		}
		return nil
	})
	story{subscriber: "payment-service", posted: append(p.ledger.all(), order.probes...), arrivals: app.arrivals(), secret: appSecret}.check(t)
}

// TestFrozen stops each process where it is for a while, under load, and lets it go on.
func TestFrozen(t *testing.T) {
	t.Parallel()
	d := startDuo(t)
	d.load(4, 5*time.Millisecond)
	for ; d.rounds < 2; d.rounds++ {
		wait(t.Context(), 200*time.Millisecond)
		d.sidecars[d.rounds%2].freeze()
		wait(t.Context(), 1500*time.Millisecond)
		d.sidecars[d.rounds%2].thaw()
	}
	d.settle(20 * time.Second)
}
