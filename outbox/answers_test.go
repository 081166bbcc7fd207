package outbox_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/problem"
	"github.com/hooksidecar/hooksidecar/internal/signature"
)

func TestNothingIsSettledByAnAnswerThatCannotBeBelieved(t *testing.T) {
	other := signature.GeneratePrivateKey()
	tests := map[string]func(in *inbox) func(*event.BatchAnswer) *signature.PrivateKey{
		"signed by somebody else": func(*inbox) func(*event.BatchAnswer) *signature.PrivateKey {
			return func(*event.BatchAnswer) *signature.PrivateKey { return &other }
		},
		"for another store": func(in *inbox) func(*event.BatchAnswer) *signature.PrivateKey {
			return func(a *event.BatchAnswer) *signature.PrivateKey { a.To = "st_x"; return &in.key }
		},
		"of another instance": func(in *inbox) func(*event.BatchAnswer) *signature.PrivateKey {
			return func(a *event.BatchAnswer) *signature.PrivateKey { a.From.Instance = "x"; return &in.key }
		},
		"too many verdicts": func(in *inbox) func(*event.BatchAnswer) *signature.PrivateKey {
			return func(a *event.BatchAnswer) *signature.PrivateKey {
				a.Verdicts = append(a.Verdicts, a.Verdicts[0])
				return &in.key
			}
		},
	}
	for name, sign := range tests {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			in := newInbox(t, "payment", "pay-1", n.key.Public())
			in.set(func() { in.sign = sign(in) })
			n.subscribe(in, "order.*")
			n.publish("x")
			n.eventually("it is tried again", func() bool { return n.status("payment").Lanes[0].Failures >= 2 })
			if st := n.status("payment"); st.Waiting != 1 || st.Counts.Stored != 0 || st.Lanes[0].Problem == "" {
				t.Errorf("%+v", st)
			}
			in.set(func() { in.sign = nil })
			n.eventually("it is stored", func() bool { return n.status("payment").Counts.Stored == 1 })
		})
	}
}

// Whatever else answers, everything stays owed.
func TestAnswersThatMakeTheLaneWait(t *testing.T) {
	n := newNode(t)
	in := newInbox(t, "payment", "pay-1", n.key.Public())
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }))
	defer elsewhere.Close()
	answers := []func(w http.ResponseWriter){
		func(w http.ResponseWriter) { w.WriteHeader(500) },
		func(w http.ResponseWriter) { w.WriteHeader(404) },
		func(w http.ResponseWriter) { w.WriteHeader(400) }, // not in our form
		func(w http.ResponseWriter) { w.WriteHeader(413) },
		func(w http.ResponseWriter) { fmt.Fprint(w, "hello") },
		func(w http.ResponseWriter) { w.Header().Set("Location", elsewhere.URL); w.WriteHeader(307) },
		func(w http.ResponseWriter) { problem.Write(w, problem.New("unknown_sender", "who?")) },
		func(w http.ResponseWriter) { problem.Write(w, problem.New("not_addressed_here", "no")) },
		func(w http.ResponseWriter) { problem.Write(w, problem.New("unsupported_protocol", "no")) },
		func(w http.ResponseWriter) { problem.Write(w, problem.New("duplicate_header", "a proxy's doing")) },
		func(w http.ResponseWriter) { problem.Write(w, problem.New("truncated_body", "the network's")) },
		func(w http.ResponseWriter) { panic(http.ErrAbortHandler) },
	}
	in.set(func() {
		in.refuse = func(w http.ResponseWriter, k int) bool {
			if k > len(answers) {
				return false
			}
			answers[k-1](w)
			return true
		}
	})
	in.server.Config.ErrorLog = nil
	n.subscribe(in, "order.*")
	n.publish("x")
	n.eventually("it arrives", func() bool { return len(in.received()) == 1 })
	if e := in.received()[0]; e.attempt != len(answers)+1 || !e.redelivery {
		t.Errorf("%+v, want attempt %d", e, len(answers)+1)
	}
}

func TestRetryAfterIsObeyed(t *testing.T) {
	n := newNode(t)
	in := newInbox(t, "payment", "pay-1", n.key.Public())
	in.set(func() {
		in.refuse = func(w http.ResponseWriter, k int) bool {
			if k == 1 {
				w.Header().Set("Retry-After", "1")
				w.WriteHeader(503)
			}
			return k == 1
		}
	})
	n.subscribe(in, "order.*")
	began := time.Now()
	n.publish("x")
	n.eventually("it arrives", func() bool { return len(in.received()) == 1 })
	if took := time.Since(began); took < 900*time.Millisecond {
		t.Errorf("tried again after %s", took)
	}
}

func TestClockOfTheOtherSideIsFollowed(t *testing.T) {
	n := newNode(t)
	in := newInbox(t, "payment", "pay-1", n.key.Public())
	skew := 20 * time.Minute
	skewed := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		at, err := signature.HeadersFrom(r.Header)
		if err != nil {
			t.Error(err)
		}
		var sec int64
		fmt.Sscan(at.Timestamp, &sec)
		if d := time.Now().Add(skew).Sub(time.Unix(sec, 0)); d.Abs() > signature.Tolerance {
			problem.Write(w, problem.From(&signature.StaleError{Theirs: time.Unix(sec, 0), Ours: time.Now().Add(skew)}))
			return
		}
		w.WriteHeader(http.StatusTeapot) // the signature was fresh
	}))
	defer skewed.Close()
	inst := in.instance("order.*")
	inst.URL = skewed.URL
	n.peers.set("payment", in.key.Public(), inst)
	n.publish("x")
	n.eventually("it is signed with the other side's time", func() bool {
		st := n.status("payment")
		return len(st.Lanes) > 0 && st.Lanes[0].Problem == "answered 418, not in the form of a sidecar: something else listens there"
	})
}

func TestBatchThatIsRefusedIsSentOneByOne(t *testing.T) {
	for _, tt := range []struct{ code, reason string }{{"bad_frame", "invalid"}, {"too_large", "too_large"}} {
		t.Run(tt.code, func(t *testing.T) {
			n := newNode(t)
			in := newInbox(t, "payment", "pay-1", n.key.Public())
			in.set(func() {
				in.refuse = func(w http.ResponseWriter, k int) bool {
					if slices.ContainsFunc(in.batches[k-1], func(e received) bool { return e.id == "e3" }) {
						problem.Write(w, problem.New(tt.code, "no"))
						return true
					}
					return false
				}
			})
			for i := range 8 {
				n.publish(fmt.Sprintf("e%d", i))
			}
			n.subscribe(in, "order.*")
			n.eventually("the others arrive", func() bool { return len(in.received()) == 7 })
			n.eventually("it is dead", func() bool { return n.delivery("e3", "payment").Reason == tt.reason })
			n.eventually("none waits", func() bool { return n.status("payment").Waiting == 0 })
			if st := n.status("payment"); st.Counts.Stored != 7 || st.Counts.Dead != 1 {
				t.Errorf("%+v", st)
			}
		})
	}
}

// A proxy with a smaller limit says so in its own words: batches get smaller, and no event is given up.
func TestBatchesAreMadeSmallerForAProxy(t *testing.T) {
	n := newNode(t)
	in := newInbox(t, "payment", "pay-1", n.key.Public())
	in.set(func() {
		in.refuse = func(w http.ResponseWriter, k int) bool {
			if len(in.batches[k-1]) <= 4 {
				return false
			}
			http.Error(w, "Request Entity Too Large", http.StatusRequestEntityTooLarge)
			return true
		}
	})
	for i := range 40 {
		n.publish(fmt.Sprintf("e%d", i))
	}
	n.subscribe(in, "order.*")
	n.eventually("all arrive", func() bool { return n.status("payment").Counts.Stored == 40 })
}

// One event that is too large by itself must not make every later batch small.
func TestBatchesAreLargeAgainAfterTheOneThatWasTooLarge(t *testing.T) {
	n := newNode(t)
	in := newInbox(t, "payment", "pay-1", n.key.Public())
	in.set(func() {
		in.refuse = func(w http.ResponseWriter, k int) bool {
			large := slices.ContainsFunc(in.batches[k-1], func(e received) bool { return e.id == "large" })
			if large {
				problem.Write(w, problem.New("too_large", "no"))
			}
			return large
		}
	})
	for i := range 64 {
		n.publish(fmt.Sprintf("e%d", i))
	}
	n.publish("large")
	n.subscribe(in, "order.*")
	n.eventually("it is dead", func() bool { return n.status("payment").Counts.Dead == 1 && n.status("payment").Waiting == 0 })
	if err := n.Pause(t.Context(), "payment"); err != nil {
		t.Fatal(err)
	}
	for i := range 64 {
		n.publish(fmt.Sprintf("f%d", i))
	}
	n.eventually("they are looked at", func() bool { return n.status("payment").Waiting == 64 })
	before := 0
	in.set(func() { before = len(in.batches) })
	if err := n.Resume(t.Context(), "payment"); err != nil {
		t.Fatal(err)
	}
	n.eventually("they arrive", func() bool { return n.status("payment").Waiting == 0 })
	in.set(func() {
		if got := len(in.batches) - before; got > 2 {
			t.Errorf("64 events in %d batches", got)
		}
	})
}

// A subscription ends while its events are on their way, and they do not get through: they are not owed for ever.
func TestWhatWasInFlightWhenASubscriptionEndedEnds(t *testing.T) {
	n := newNode(t)
	in := newInbox(t, "payment", "pay-1", n.key.Public())
	arrived, release := make(chan struct{}, 1), make(chan struct{})
	in.set(func() {
		in.refuse = func(w http.ResponseWriter, _ int) bool {
			arrived <- struct{}{}
			<-release
			w.WriteHeader(503)
			return true
		}
	})
	n.subscribe(in, "order.*")
	n.publish("x")
	<-arrived
	n.peers.set("payment", in.key.Public(), in.instance("stock.*"))
	n.eventually("the change is known", func() bool { return slices.Equal(n.status("payment").Types, []string{"stock.*"}) })
	close(release)
	n.eventually("nothing is owed", func() bool { st := n.status("payment"); return st.Waiting == 0 && st.Counts.Unsubscribed == 1 })
}

// An inbox that does not want what its descriptor asks for is neither flooded, nor is the directory.
func TestUnwantedEventsAreTriedSeldom(t *testing.T) {
	onFakeTime(t, func(t *testing.T, n *node, w *wire, _ event.Instance) {
		w.in.set(func() { w.in.verdict = func(received) event.Outcome { return event.Outcome{Verdict: event.Unwanted} } })
		for i := range 200 {
			n.postDirectly(fmt.Sprint("e", i))
		}
		time.Sleep(10 * time.Minute)
		n.peers.mu.Lock()
		defer n.peers.mu.Unlock()
		if got := len(n.peers.refreshed); got > 600 {
			t.Errorf("the directory was asked %d times in 10 minutes", got)
		}
		if got := w.tries.Load(); got > 1000 {
			t.Errorf("%d requests in 10 minutes", got)
		}
	})
}
