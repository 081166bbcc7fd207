package inbox

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/deadletter"
	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

var errRefused = &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}

// letters returns the dead letters of a node.
func (n *node) letters() (ls []deadletter.Letter) {
	n.t.Helper()
	err := n.store.View(func(sn *store.Snapshot) error {
		var err error
		ls, _, err = deadletter.List(sn, deadletter.Filter{})
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return ls
}

func status(code int, headers ...string) func(call) (*http.Response, error) {
	return func(call) (*http.Response, error) { return reply(code, headers...) }
}

// quick is a schedule for tests in real time.
func quick(attempts int) func(*Config) {
	return func(c *Config) {
		c.Subscriptions[0].Retry = Schedule{Initial: time.Millisecond, MaxInterval: 2 * time.Millisecond, MaxAttempts: attempts}
	}
}

func TestAnswersOfTheApp(t *testing.T) {
	const (
		done  = "done"
		retry = "retry" // until the schedule ends, then a dead letter
		dead  = "dead"
		park  = "park"
		pause = "pause"
	)
	want := map[int]string{}
	set := func(what string, codes ...int) {
		for _, c := range codes {
			want[c] = what
		}
	}
	set(done, 200, 201, 202, 204, 226)
	set(retry, 408, 409, 425, 500, 502, 504, 507, 599, 401, 403, 404, 407, 300, 301, 302, 304, 307, 308, 418, 451)
	set(dead, 400, 405, 406, 411, 413, 414, 415, 422, 431, 501)
	set(park, 410)
	set(pause, 429, 503)
	for code, what := range want {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			t.Parallel()
			app := &fakeApp{answer: status(code, "Location: /elsewhere")}
			server := httptest.NewServer(app)
			defer server.Close()
			n := newNode(t, quick(3), func(c *Config) { c.App.URL, c.Transport = server.URL, nil })
			n.app = app
			n.deliver(deliveryOf(1, newEvent("evt_1", "")))
			n.run()
			switch what {
			case done:
				n.until("it is settled", n.drained)
				wantCalls(t, app, 1)
			case retry:
				n.until("it is a dead letter", n.drained)
				wantCalls(t, app, 3)
				wantLetter(t, n, reasonExhausted, code)
			case dead:
				n.until("it is a dead letter", n.drained)
				wantCalls(t, app, 1)
				wantLetter(t, n, reasonRefused, code)
			case park:
				n.until("it is parked", func() bool { return len(n.in.Status().Parked) == 1 })
				wantCalls(t, app, 1)
				app.answers(nil)
				n.in.Resume(false)
				n.until("it is settled", n.drained)
			case pause:
				n.until("it is paused", func() bool { return n.in.Status().AppState == "paused" })
				if st, _, _ := n.in.Event(t.Context(), them, "evt_1"); st.Attempts != 0 {
					t.Errorf("%d attempts used", st.Attempts)
				}
				app.answers(nil)
				n.in.Resume(false)
				n.until("it is settled", n.drained)
				wantCalls(t, app, 2)
			}
			for i, c := range app.got() {
				if got := c.header.Get(headerRedelivered); (got == "true") != (i > 0) {
					t.Errorf("call %d has %s %q", i+1, headerRedelivered, got)
				}
				if got := c.header.Get(headerAttempt); got != fmt.Sprint(i+1) {
					t.Errorf("call %d has attempt %s", i+1, got)
				}
			}
		})
	}
}

func wantCalls(t *testing.T, app *fakeApp, want int) {
	t.Helper()
	if got := len(app.got()); got != want {
		t.Errorf("the app was called %d times, want %d", got, want)
	}
}

func wantLetter(t *testing.T, n *node, reason string, status int) {
	t.Helper()
	ls := n.letters()
	if len(ls) != 1 || ls[0].Reason != reason || ls[0].Last.Status != status || ls[0].EventID != "evt_1" {
		t.Fatalf("letters %+v, want one of reason %s and status %d", ls, reason, status)
	}
	if ls[0].CorrelationID != "req_1" || ls[0].Last.Header["Location"] == "" || ls[0].Fingerprint == "" {
		t.Errorf("the letter is incomplete: %+v", ls[0])
	}
}

func TestKeysStayInOrderAndConcurrencyIsBounded(t *testing.T) {
	n := newNode(t, quick(50), func(c *Config) { c.App.Concurrency = 4 })
	last := map[string]int{}
	n.app.answers(func(c call) (*http.Response, error) {
		time.Sleep(time.Millisecond)
		if len(n.app.got())%7 == 0 {
			return reply(500)
		}
		return reply(200)
	})
	const events, keys = 120, 10
	n.deliverN(1, events, func(i int) string { return fmt.Sprintf("key_%d", i%keys) })
	n.run().until("all are settled", n.drained)
	for _, c := range n.app.got() {
		var i int
		if _, err := fmt.Sscanf(c.id, "evt_%d", &i); err != nil {
			t.Fatal(err)
		}
		key := fmt.Sprint(i % keys)
		if i < last[key] {
			t.Fatalf("event %d came after %d of its key", i, last[key])
		}
		last[key] = i
	}
	if n.app.most > 4 || n.app.most < 2 {
		t.Errorf("%d requests at once, want up to 4", n.app.most)
	}
}

// onFakeTime runs a test with a node whose time passes only when everything waits.
func onFakeTime(t *testing.T, test func(t *testing.T, n *node), edit ...func(*Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, edit...)
		test(t, n)
		n.stop()
	})
}

// settle lets time pass.
func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestScheduleDoublesUpToSixteenAttempts(t *testing.T) {
	onFakeTime(t, func(t *testing.T, n *node) {
		n.app.answers(status(500))
		n.deliver(deliveryOf(1, newEvent("evt_1", "k")), deliveryOf(2, newEvent("evt_2", "k")))
		n.run()
		wait(70 * time.Minute)
		calls := n.app.got()
		first := slices.DeleteFunc(slices.Clone(calls), func(c call) bool { return c.id != "evt_1" })
		if len(first) != DefaultMaxAttempts {
			t.Fatalf("%d attempts, want %d", len(first), DefaultMaxAttempts)
		}
		for i := 1; i < len(first); i++ {
			most := min(time.Second<<(i-1), DefaultMaxInterval)
			if gap := first[i].at.Sub(first[i-1].at); gap > most+50*time.Millisecond {
				t.Errorf("attempt %d came %v after the one before, want at most %v", i+1, gap, most)
			}
		}
		if i := slices.IndexFunc(calls, func(c call) bool { return c.id == "evt_2" }); i < DefaultMaxAttempts {
			t.Errorf("the next event of the key went after %d calls", i)
		}
		if ls := n.letters(); len(ls) == 0 || ls[0].Attempts != DefaultMaxAttempts {
			t.Errorf("letters %+v", ls)
		}
	})
}

func TestAppThatIsDownUsesNoAttempts(t *testing.T) {
	onFakeTime(t, func(t *testing.T, n *node) {
		n.app.answers(func(call) (*http.Response, error) { return nil, errRefused })
		n.deliverN(1, 50, nil)
		n.run()
		wait(20 * time.Minute)
		if got := n.in.Status(); got.AppState != "down" || got.Backlog != 50 || got.Waiting != 0 {
			t.Fatalf("status %+v, want down with everything kept and nothing written", got)
		}
		// A probe and its quick repeat every 15 to 30 s, and the first round.
		if got := len(n.app.got()); got > 2*(1200/15)+80 {
			t.Errorf("%d requests in twenty minutes", got)
		}
		n.app.answers(nil)
		before := len(n.app.got())
		wait(time.Minute)
		if !n.drained() {
			t.Fatalf("status %+v after the app came back", n.in.Status())
		}
		for _, c := range n.app.got()[before:] {
			if c.header.Get(headerAttempt) != "1" || c.header.Get(headerRedelivered) != "" {
				t.Errorf("event %s: attempt %s, redelivered %q, though nothing was sent before", c.id,
					c.header.Get(headerAttempt), c.header.Get(headerRedelivered))
			}
		}
	})
}

func TestRetryAfterPausesEverything(t *testing.T) {
	onFakeTime(t, func(t *testing.T, n *node) {
		n.app.answers(status(503, "Retry-After: 30"))
		n.deliver(deliveryOf(1, newEvent("evt_1", "")))
		n.run()
		wait(time.Second)
		n.deliver(deliveryOf(2, newEvent("evt_2", "")), deliveryOf(3, newEvent("evt_3", "")))
		wait(28 * time.Second)
		wantCalls(t, n.app, 1)
		n.app.answers(nil)
		wait(2 * time.Second)
		wantCalls(t, n.app, 4)
		if ids := n.app.ids(); ids[1] != "evt_2" {
			t.Errorf("calls %v: after the pause another event should go first", ids)
		}
		if !n.drained() || n.in.Status().AppState != "up" {
			t.Errorf("status %+v", n.in.Status())
		}
	}, func(c *Config) { c.App.Concurrency = 1 })
}

func TestThrottledEventThatAloneFailsUsesItsOwnAttempts(t *testing.T) {
	onFakeTime(t, func(t *testing.T, n *node) {
		n.app.answers(func(c call) (*http.Response, error) {
			if c.id == "evt_1" {
				return reply(503, "Retry-After: 5")
			}
			return reply(200)
		})
		n.deliver(deliveryOf(1, newEvent("evt_1", "k")))
		n.run()
		wait(time.Second)
		n.deliverN(2, 4, nil)
		wait(7 * time.Second) // one pause; then the others succeed, and evt_1 is on its own
		if got := n.in.Status(); got.AppState != "up" || got.Backlog != 1 {
			t.Fatalf("status %+v, want only evt_1 to wait", got)
		}
		n.deliver(deliveryOf(5, newEvent("evt_5", "")))
		wait(time.Millisecond * 100)
		if ids := n.app.ids(); ids[len(ids)-1] != "evt_5" {
			t.Errorf("calls %v: evt_5 should not wait for evt_1", ids)
		}
		st, _, err := n.in.Event(t.Context(), them, "evt_1")
		if err != nil || st.State != StateWaiting || st.Attempts == 0 || st.Last.Status != 503 {
			t.Errorf("status of evt_1: %+v, %v", st, err)
		}
		for i := range uint64(40) { // the app keeps taking others
			n.deliver(deliveryOf(10+i, newEvent(fmt.Sprintf("evt_%d", 10+i), "")))
			wait(10 * time.Second)
		}
		if ls := n.letters(); len(ls) != 1 || ls[0].Reason != reasonExhausted {
			t.Errorf("letters %+v, want evt_1 exhausted", ls)
		}
	}, func(c *Config) { c.Subscriptions[0].Retry.MaxInterval = 8 * time.Second })
}

func TestSickAppIsProbedWithAnotherEventEachTime(t *testing.T) {
	onFakeTime(t, func(t *testing.T, n *node) {
		n.app.answers(status(500))
		n.deliverN(1, 30, nil)
		n.run()
		wait(time.Second / 10)
		if got := n.in.Status(); got.AppState != "sick" {
			t.Fatalf("status %+v, want sick", got)
		}
		first := len(n.app.got())
		waiting := n.in.Status().Waiting
		wait(5 * time.Minute)
		probes := n.app.got()[first:]
		if len(probes) < 8 || len(probes) > 40 {
			t.Errorf("%d probes in 5 minutes", len(probes))
		}
		for i := 1; i < len(probes); i++ {
			if probes[i].id == probes[i-1].id {
				t.Errorf("probe %d is %s again", i, probes[i].id)
			}
		}
		if got := n.in.Status().Waiting; got != waiting {
			t.Errorf("%d events have records, %d when it became sick: attempts were used", got, waiting)
		}
		wait(15 * time.Minute)
		if ls := n.letters(); len(ls) != 0 {
			t.Fatalf("%d dead letters of a sick app", len(ls))
		}
		n.app.answers(nil)
		wait(2 * time.Minute)
		if !n.drained() {
			t.Errorf("status %+v after the app recovered", n.in.Status())
		}
	})
}

func TestSuspectAppKeepsItsEvents(t *testing.T) {
	for _, accept := range []bool{false, true} {
		t.Run(fmt.Sprintf("accept %v", accept), func(t *testing.T) {
			onFakeTime(t, func(t *testing.T, n *node) {
				n.app.answers(status(400))
				n.deliverN(1, 60, nil)
				n.run()
				wait(10 * time.Minute)
				if got := n.in.Status(); got.AppState != "suspect" || got.Backlog != 60-suspectAfter+1 {
					t.Fatalf("status %+v, want suspect", got)
				}
				if got := len(n.letters()); got != suspectAfter-1 {
					t.Errorf("%d letters", got)
				}
				if accept {
					n.in.Resume(true)
					wait(time.Second)
					if got := len(n.letters()); got != 60 || !n.drained() {
						t.Errorf("%d letters after accepting, %+v", got, n.in.Status())
					}
					return
				}
				n.app.answers(nil)
				wait(time.Minute)
				if !n.drained() || n.in.Status().AppState != "up" {
					t.Errorf("status %+v after the app recovered", n.in.Status())
				}
			})
		})
	}
}

func TestGoneParksTheSubscriptionAcrossRestarts(t *testing.T) {
	onFakeTime(t, func(t *testing.T, n *node) {
		n.app.answers(func(c call) (*http.Response, error) {
			if c.path == "/hooks/old" {
				return reply(410)
			}
			return reply(200)
		})
		old := newEvent("evt_old", "")
		old.Type = "legacy.event"
		n.deliver(deliveryOf(1, old), deliveryOf(2, newEvent("evt_2", "")))
		n.run()
		wait(time.Second)
		if got := n.in.Status(); len(got.Parked) != 1 || got.Backlog != 1 {
			t.Fatalf("status %+v", got)
		}
		n.restart()
		n.run()
		wait(5 * time.Minute)
		wantCalls(t, n.app, 2)
		n.app.answers(nil)
		n.in.Resume(false)
		wait(time.Second)
		wantCalls(t, n.app, 3)
		n.restart()
		if got := n.in.Status(); len(got.Parked) != 0 || got.Backlog != 0 {
			t.Errorf("status %+v after resuming and another restart", got)
		}
	}, func(c *Config) {
		p, err := event.ParsePatterns([]string{"legacy.*"})
		if err != nil {
			panic(err)
		}
		c.Subscriptions = append(c.Subscriptions, Subscription{Types: p, Path: "/old"})
	})
}

func TestReadinessHoldsEverythingBack(t *testing.T) {
	onFakeTime(t, func(t *testing.T, n *node) {
		var ready atomic.Bool
		n.app.answers(func(c call) (*http.Response, error) {
			if c.path == "/ready" && !ready.Load() {
				return reply(503)
			}
			return reply(200)
		})
		n.run()
		wait(time.Second)
		n.deliver(deliveryOf(1, newEvent("evt_1", "")))
		wait(time.Minute)
		if got := n.in.Status(); got.AppState != "down" || got.Backlog != 1 {
			t.Fatalf("status %+v, want down", got)
		}
		ready.Store(true)
		wait(5 * time.Second)
		if !n.drained() {
			t.Errorf("status %+v once ready", n.in.Status())
		}
	}, func(c *Config) { c.App.ReadinessURL = "http://app.test/ready" })
}

func TestSlowAppTimesOutAndTheRepeatIsMarked(t *testing.T) {
	onFakeTime(t, func(t *testing.T, n *node) {
		n.app.answers(func(call) (*http.Response, error) {
			if len(n.app.got()) == 1 {
				return nil, errors.New("read: connection reset by peer")
			}
			return reply(200)
		})
		n.deliver(deliveryOf(1, newEvent("evt_1", "")))
		n.run()
		wait(5 * time.Second)
		calls := n.app.got()
		if len(calls) != 2 || calls[1].header.Get(headerRedelivered) != "true" || calls[1].header.Get(headerAttempt) != "2" {
			t.Errorf("calls %+v", calls)
		}
	})
}
