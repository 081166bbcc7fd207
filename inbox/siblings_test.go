package inbox

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/signature"
)

// An instance is one of several inboxes of one service, whose peer listener is a real one.
type instance struct {
	*node
	server *httptest.Server
	asked  atomic.Int32                     // questions that came
	serve  atomic.Pointer[http.HandlerFunc] // instead of the inbox; nil: the inbox
	mu     sync.Mutex
	inbox  *Inbox // nil: not started
}

// newPair returns two instances of one service, with one key, that know each other and the same sender.
func newPair(t *testing.T, edit ...func(*Config)) (a, b *instance) {
	t.Helper()
	key, sender := signature.GeneratePrivateKey(), signature.GeneratePrivateKey()
	start := func(name string) *instance {
		i := &instance{}
		i.server = httptest.NewServer(http.HandlerFunc(i.ServeHTTP))
		t.Cleanup(i.server.Close)
		i.node = newNode(t, append([]func(*Config){func(c *Config) { c.Instance, c.Keys = name, []signature.PrivateKey{key} }}, edit...)...)
		i.key, i.sender = key, sender
		i.peers.keys[them] = []signature.PublicKey{sender.Public()}
		i.up()
		return i
	}
	a, b = start("pay-1"), start("pay-2")
	all := []event.Instance{a.describe(), b.describe()}
	a.peers.know(all...)
	b.peers.know(all...)
	return a, b
}

func (i *instance) describe() event.Instance {
	return event.Instance{Service: us, Name: i.cfg.Instance, StoreID: i.store.ID(), URL: i.server.URL + "/", Boot: i.store.Boot()}
}

// up lets the listener lead to the inbox that is open now.
func (i *instance) up() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.inbox = i.in
}

func (i *instance) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.asked.Add(1)
	i.mu.Lock()
	in := i.inbox
	i.mu.Unlock()
	if h := i.serve.Load(); h != nil {
		(*h)(w, r)
		return
	}
	if r.URL.Path != "/peer/v1/known" || r.Method != http.MethodPost {
		http.NotFound(w, r)
		return
	}
	in.ServeKnown(w, r)
}

func (i *instance) restart() {
	i.t.Helper()
	i.node.restart()
	i.up()
}

// answers replaces the inbox behind the listener.
func (i *instance) answers(h http.HandlerFunc) { i.serve.Store(&h) }

// again returns a redelivery of an event that this instance may have got before, as far as its age tells.
func (i *instance) again(seq uint64, e event.Event) event.Delivery {
	d := deliveryOf(seq, e)
	d.Redelivery, d.AcceptedAt = true, time.Now().Add(time.Hour).UnixMilli()
	return d
}

// marks returns whether each event that the app got was marked, by id.
func (n *node) marks() map[string]bool {
	marks := map[string]bool{}
	for _, c := range n.app.got() {
		marks[c.id] = c.header.Get(headerRedelivered) == "true"
	}
	return marks
}

func (n *node) counts(name string) (value string) {
	var out bytes.Buffer
	n.metrics.WritePrometheus(&out)
	for line := range strings.Lines(out.String()) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

func TestFirstDeliveriesAskNobody(t *testing.T) {
	a, b := newPair(t)
	b.deliver(deliveryOf(1, newEvent("evt_1", "")))
	a.wantVerdicts(a.deliver(deliveryOf(1, newEvent("evt_1", "")), deliveryOf(2, newEvent("evt_2", ""))), event.Stored, event.Stored)
	a.wantVerdicts(a.deliver(a.again(1, newEvent("evt_1", ""))), event.Duplicate) // known here
	if got := b.asked.Load(); got != 0 {
		t.Errorf("the other instance was asked %d times", got)
	}
}

func TestRedeliveryIsSettledByTheInstanceThatFinishedIt(t *testing.T) {
	a, b := newPair(t)
	b.deliver(deliveryOf(1, newEvent("evt_1", "k")), deliveryOf(2, newEvent("evt_2", "")))
	b.run().until("the events are settled there", b.drained)
	answer := a.deliver(a.again(1, newEvent("evt_1", "k")), a.again(2, newEvent("evt_2", "")), a.again(3, newEvent("evt_3", "k")))
	a.wantVerdicts(answer, event.Duplicate, event.Duplicate, event.Stored)
	if got := b.asked.Load(); got != 1 {
		t.Errorf("%d questions for one batch", got)
	}
	a.run().until("the new one is settled", a.drained)
	if got := a.marks(); len(got) != 1 || got["evt_3"] {
		t.Errorf("the app got %v, want evt_3 alone, unmarked", got)
	}
	if got := a.deliver(a.again(2, newEvent("evt_2", ""))).Applied; got != 3 {
		t.Errorf("applied %d, want 3", got)
	}
	a.restart()
	if got := a.deliver().Applied; got != 3 {
		t.Errorf("applied %d after a restart, want 3", got)
	}
}

func TestAppliedCountsWhatAnotherInstanceFinished(t *testing.T) {
	a, b := newPair(t)
	b.deliver(deliveryOf(7, newEvent("evt_7", "")))
	b.run().until("it is settled there", b.drained)
	answer := a.deliver(a.again(7, newEvent("evt_7", "")))
	a.wantVerdicts(answer, event.Duplicate)
	a.restart()
	if again := a.deliver(); answer.Applied != 7 || again.Applied != 7 || a.storedEvents() != 0 {
		t.Errorf("applied %d, after a restart %d, %d events stored", answer.Applied, again.Applied, a.storedEvents())
	}
}

func TestRedeliveryThatIsOpenElsewhereStaysOwed(t *testing.T) {
	a, b := newPair(t)
	b.deliver(deliveryOf(1, newEvent("evt_1", "k")), deliveryOf(2, newEvent("evt_2", "")))
	batch := []event.Delivery{
		a.again(1, newEvent("evt_1", "k")), a.again(2, newEvent("evt_2", "")), a.again(3, newEvent("evt_3", "k")), a.again(4, newEvent("evt_4", "")),
	}
	a.wantVerdicts(a.deliver(batch...), event.KeyBusy, event.KeyBusy, event.KeyBusy, event.Stored)
	if got := a.storedEvents(); got != 1 {
		t.Errorf("%d events stored, want 1", got)
	}
	b.run().until("it is settled there", b.drained)
	a.wantVerdicts(a.deliver(batch...), event.Duplicate, event.Duplicate, event.Stored, event.Duplicate)
	a.run().until("the rest is settled here", a.drained)
	if got := len(a.app.got()) + len(b.app.got()); got != 4 {
		t.Errorf("%d forwards of 4 events", got)
	}
}

func TestRedeliveryWithOtherContentThanElsewhereIsAConflict(t *testing.T) {
	a, b := newPair(t)
	b.deliver(deliveryOf(1, newEvent("evt_1", "")))
	other := newEvent("evt_1", "")
	other.Data = []byte(`{"orderId":"changed"}`)
	answer := a.deliver(a.again(1, other))
	a.wantVerdicts(answer, event.Rejected)
	if got := answer.Verdicts[0].Code; got != "id_conflict" {
		t.Errorf("code %q", got)
	}
}

func TestRedeliveryThatNobodyKnowsIsNotMarked(t *testing.T) {
	a, b := newPair(t)
	a.wantVerdicts(a.deliver(a.again(1, newEvent("evt_1", ""))), event.Stored)
	young := a.again(2, newEvent("evt_2", ""))
	young.AcceptedAt = a.store.CreatedAt().UnixMilli() // perhaps before this store was made: nobody remembers that
	a.wantVerdicts(a.deliver(young), event.Stored)
	a.run().until("it is settled", a.drained)
	if got := a.marks(); got["evt_1"] || !got["evt_2"] {
		t.Errorf("marked: %v, want evt_2 alone", got)
	}
	if b.asked.Load() == 0 {
		t.Error("the other instance was not asked")
	}
}

// TestInstanceThatCannotBeAsked: whatever comes instead of a good answer, the event is stored, and marked.
func TestInstanceThatCannotBeAsked(t *testing.T) {
	// forged lets the other instance answer, and changes what it answers.
	forged := func(change func(a *event.KnownAnswer, h http.Header, key *signature.PrivateKey, id *string, at *time.Time)) func(*testing.T, *instance) {
		return func(t *testing.T, b *instance) {
			key, own := b.key, b.store.ID()
			b.answers(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				q, err := event.ParseKnownQuestion(body)
				if err != nil {
					t.Errorf("question: %v", err)
				}
				a := event.KnownAnswer{From: event.Party{Service: us, Instance: "pay-2", StoreID: own}, To: q.From.StoreID, Known: slices.Repeat([]event.Knowledge{event.Settled}, len(q.Events))}
				id, at, key := r.Header.Get(signature.HeaderID), time.Now(), key
				w.Header().Set("Content-Type", event.KnownContentType)
				change(&a, w.Header(), &key, &id, &at)
				text := a.Append(nil)
				signature.SetHeaders(w.Header(), key, id, at, text)
				_, _ = w.Write(text)
			})
		}
	}
	type change = func(a *event.KnownAnswer, h http.Header, key *signature.PrivateKey, id *string, at *time.Time)
	raw := func(answer string) func(*testing.T, *instance) {
		return func(_ *testing.T, b *instance) {
			b.answers(func(w http.ResponseWriter, _ *http.Request) {
				c, _, err := w.(http.Hijacker).Hijack()
				if err != nil {
					panic(err)
				}
				defer c.Close()
				_, _ = c.Write([]byte(answer))
				if strings.Contains(answer, "101") {
					_, _ = c.Read(make([]byte, 1))
				}
			})
		}
	}
	tests := map[string]struct {
		edit   func(*testing.T, *instance)
		marked bool
	}{
		"it can":           {forged(change(func(*event.KnownAnswer, http.Header, *signature.PrivateKey, *string, *time.Time) {})), false},
		"down":             {func(_ *testing.T, b *instance) { b.server.Close() }, true},
		"not a sidecar":    {func(_ *testing.T, b *instance) { b.answers(http.NotFound) }, true},
		"another protocol": {raw("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"), true},
		"garbage":          {raw("hello\r\n\r\n"), true},
		"redirect": {func(_ *testing.T, b *instance) {
			b.answers(http.RedirectHandler(b.server.URL, http.StatusTemporaryRedirect).ServeHTTP)
		}, true},
		"slow": {func(_ *testing.T, b *instance) {
			b.answers(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.ReadAll(r.Body); <-r.Context().Done() })
		}, true},
		"signed by another": {forged(change(func(_ *event.KnownAnswer, _ http.Header, key *signature.PrivateKey, _ *string, _ *time.Time) {
			*key = signature.GeneratePrivateKey()
		})), true},
		"another question": {forged(change(func(_ *event.KnownAnswer, _ http.Header, _ *signature.PrivateKey, id *string, _ *time.Time) {
			*id = "known_1"
		})), true},
		"long ago": {forged(change(func(_ *event.KnownAnswer, _ http.Header, _ *signature.PrivateKey, _ *string, at *time.Time) {
			*at = at.Add(-time.Hour)
		})), true},
		"another store": {forged(change(func(a *event.KnownAnswer, _ http.Header, _ *signature.PrivateKey, _ *string, _ *time.Time) {
			a.From.StoreID = "st_x"
		})), true},
		"another service": {forged(change(func(a *event.KnownAnswer, _ http.Header, _ *signature.PrivateKey, _ *string, _ *time.Time) {
			a.From.Service = them
		})), true},
		"to another": {forged(change(func(a *event.KnownAnswer, _ http.Header, _ *signature.PrivateKey, _ *string, _ *time.Time) {
			a.To = "st_x"
		})), true},
		"too few": {forged(change(func(a *event.KnownAnswer, _ http.Header, _ *signature.PrivateKey, _ *string, _ *time.Time) {
			a.Known = nil
		})), true},
		"too many": {forged(change(func(a *event.KnownAnswer, _ http.Header, _ *signature.PrivateKey, _ *string, _ *time.Time) {
			a.Known = append(a.Known, event.Open)
		})), true},
		"another type": {forged(change(func(_ *event.KnownAnswer, h http.Header, _ *signature.PrivateKey, _ *string, _ *time.Time) {
			h.Set("Content-Type", "text/plain")
		})), true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := newPair(t)
			tt.edit(t, b)
			want, counted := event.Duplicate, "0"
			if tt.marked {
				want, counted = event.Stored, "1"
			}
			started := time.Now()
			a.wantVerdicts(a.deliver(a.again(1, newEvent("evt_1", ""))), want)
			if took := time.Since(started); took > 4*siblingTimeout {
				t.Errorf("it took %v", took)
			}
			a.run().until("it is settled", a.drained)
			if got := a.marks()["evt_1"]; got != tt.marked {
				t.Errorf("marked: %v, want %v", got, tt.marked)
			}
			if got := a.counts("hooksidecar_inbox_redeliveries_unverified_total"); got != counted {
				t.Errorf("%s counted as unverified, want %s", got, counted)
			}
		})
	}
}

func TestSlowInstanceHoldsUpOnlyOneBatch(t *testing.T) {
	a, b := newPair(t)
	b.answers(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.ReadAll(r.Body); <-r.Context().Done() })
	for seq := range uint64(20) {
		a.wantVerdicts(a.deliver(a.again(seq+1, newEvent(fmt.Sprint("evt_", seq), ""))), event.Stored)
	}
	if got := b.asked.Load(); got > 2 {
		t.Errorf("it was asked %d times", got)
	}
}

func TestWhoMayAskWhatIsKnown(t *testing.T) {
	a, b := newPair(t)
	b.deliver(deliveryOf(1, newEvent("evt_1", "")))
	stranger := signature.GeneratePrivateKey()
	question := func(edit func(*event.KnownQuestion)) []byte {
		q := event.KnownQuestion{From: event.Party{Service: us, Instance: "pay-1", StoreID: a.store.ID()}, To: b.store.ID(), Events: []event.Trace{
			event.TraceOf(event.Hash(them, "evt_1"), event.Digest{}),
		}}
		if edit != nil {
			edit(&q)
		}
		return q.Append(nil)
	}
	good := question(nil)
	tests := []struct {
		name   string
		body   []byte
		key    signature.PrivateKey
		at     time.Time
		change func(*http.Request)
		status int
		code   string
	}{
		{"an instance", good, a.key, time.Now(), nil, 200, ""},
		{"nothing asked", question(func(q *event.KnownQuestion) { q.Events = nil }), a.key, time.Now(), nil, 200, ""},
		{"a stranger", good, stranger, time.Now(), nil, 401, "bad_signature"},
		{"a service that may send", good, a.sender, time.Now(), nil, 401, "bad_signature"},
		{"a stranger, broken", []byte("{"), stranger, time.Now(), nil, 401, "bad_signature"},
		{"broken", []byte("{"), a.key, time.Now(), nil, 400, "bad_frame"},
		{"a batch", a.batchOf(), a.key, time.Now(), nil, 400, "bad_frame"},
		{"long ago", good, a.key, time.Now().Add(-time.Hour), nil, 401, "stale"},
		{"unsigned", good, a.key, time.Now(), func(r *http.Request) { r.Header.Del(signature.HeaderSignature) }, 401, "missing_signature"},
		{"another body", good, a.key, time.Now(), func(r *http.Request) { r.Header.Set(signature.HeaderContentDigest, "sha-256=:x:") }, 401, "bad_signature"},
		{"another type", good, a.key, time.Now(), func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }, 415, "unsupported_media_type"},
		{"another service", question(func(q *event.KnownQuestion) { q.From.Service = them }), a.key, time.Now(), nil, 403, "sender_not_allowed"},
		{"for another", question(func(q *event.KnownQuestion) { q.To = "st_x" }), a.key, time.Now(), nil, 421, "not_addressed_here"},
		{"itself", question(func(q *event.KnownQuestion) { q.From.StoreID = q.To }), a.key, time.Now(), nil, 421, "not_addressed_here"},
		{"too much", make([]byte, event.MaxKnownBytes+1), a.key, time.Now(), nil, 413, "too_large"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodPost, "/peer/v1/known", bytes.NewReader(tt.body))
			r.Header.Set("Content-Type", event.KnownContentType)
			content, digest := signature.BatchContent(tt.body)
			r.Header.Set(signature.HeaderContentDigest, digest)
			signature.SetHeaders(r.Header, tt.key, "known_1", tt.at, content)
			if tt.change != nil {
				tt.change(r)
			}
			w := httptest.NewRecorder()
			b.in.ServeKnown(w, r)
			if w.Code != tt.status {
				t.Fatalf("status %d, want %d: %s", w.Code, tt.status, w.Body)
			}
			if tt.code != "" && code(t, w) != tt.code {
				t.Errorf("code %q, want %q", code(t, w), tt.code)
			}
			if tt.status != http.StatusOK && strings.Contains(w.Body.String(), `"known"`) {
				t.Errorf("it is told %s", w.Body)
			}
		})
	}
}

// TestOneEventForTwoInstancesAtOnce: a sender that died sends again, by another instance than before, while what it sent
// then is still being decided. The app gets each event once, unless a repeat is marked.
func TestOneEventForTwoInstancesAtOnce(t *testing.T) {
	a, b := newPair(t)
	a.run()
	b.run()
	const events = 100
	var senders sync.WaitGroup
	for _, at := range []*instance{a, b} {
		senders.Go(func() {
			for seq := uint64(1); seq <= events; seq++ {
				e := newEvent(fmt.Sprint("evt_", seq), "")
				for stored := false; !stored; {
					v := verdicts(at.deliver(at.again(seq, e)))[0]
					stored = v == event.Stored || v == event.Duplicate
				}
			}
		})
	}
	senders.Wait()
	a.until("everything is settled", func() bool { return a.drained() && b.drained() })
	got := map[string]int{}
	for _, c := range slices.Concat(a.app.got(), b.app.got()) {
		if got[c.id]++; got[c.id] > 1 && c.header.Get(headerRedelivered) == "" {
			t.Errorf("%s came %d times, unmarked", c.id, got[c.id])
		}
	}
	if len(got) != events {
		t.Errorf("the app got %d events of %d", len(got), events)
	}
}
