package inbox

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/signature"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

func TestBatchThatIsNotBelievedStoresNothing(t *testing.T) {
	n := newNode(t)
	good := n.batchOf(deliveryOf(1, newEvent("evt_1", "")))
	stranger := signature.GeneratePrivateKey()
	other := event.NewBatchWriter(nil, event.BatchHeader{From: n.party, To: "shipping-service"})
	other.Add(deliveryOf(1, newEvent("evt_1", "")))
	unknown := event.NewBatchWriter(nil, event.BatchHeader{From: event.Party{Service: "nobody", Instance: "i", StoreID: "s"}, To: us})
	unknown.Add(deliveryOf(1, newEvent("evt_1", "")))
	signAs := func(key signature.PrivateKey, at time.Time) func(*http.Request, []byte) {
		return func(r *http.Request, body []byte) {
			content, digest := signature.BatchContent(body)
			r.Header.Set(signature.HeaderContentDigest, digest)
			signature.SetHeaders(r.Header, key, "batch_1", at, content)
		}
	}
	tests := []struct {
		name   string
		body   []byte
		change func(r *http.Request, body []byte)
		status int
		code   string
	}{
		{"other media type", good, func(r *http.Request, _ []byte) { r.Header.Set("Content-Type", "application/json") }, 415, "unsupported_media_type"},
		{"compressed", good, func(r *http.Request, _ []byte) { r.Header.Set("Content-Encoding", "gzip") }, 415, "unsupported_encoding"},
		{"too long", good, func(r *http.Request, _ []byte) { r.ContentLength = 50 << 20 }, 413, "too_large"},
		{"too long without saying so", make([]byte, maxBatchBody+1), func(r *http.Request, _ []byte) { r.ContentLength = -1 }, 413, "too_large"},
		{"cut short", good, func(r *http.Request, b []byte) { r.ContentLength = int64(len(b) + 1) }, 400, "truncated_body"},
		{"no id", good, func(r *http.Request, _ []byte) { r.Header.Del(signature.HeaderID) }, 401, "missing_signature"},
		{"no timestamp", good, func(r *http.Request, _ []byte) { r.Header.Del(signature.HeaderTimestamp) }, 401, "missing_signature"},
		{"no signature", good, func(r *http.Request, _ []byte) { r.Header.Del(signature.HeaderSignature) }, 401, "missing_signature"},
		{"empty signature", good, func(r *http.Request, _ []byte) { r.Header.Set(signature.HeaderSignature, " ") }, 401, ""},
		{"two ids", good, func(r *http.Request, _ []byte) {
			r.Header[signature.HeaderID] = append(r.Header[signature.HeaderID], r.Header[signature.HeaderID]...)
		}, 400, "duplicate_header"},
		{"two digests", good, func(r *http.Request, _ []byte) {
			r.Header[signature.HeaderContentDigest] = append(r.Header[signature.HeaderContentDigest], "x")
		}, 400, "duplicate_header"},
		{"bad timestamp", good, func(r *http.Request, _ []byte) { r.Header.Set(signature.HeaderTimestamp, "+1700000000") }, 401, "bad_timestamp"},
		{"stale", good, signAs(n.sender, time.Now().Add(-301*time.Second)), 401, "stale"},
		{"from the future", good, signAs(n.sender, time.Now().Add(302*time.Second)), 401, "stale"},
		{"signed by a stranger", good, signAs(stranger, time.Now()), 401, "bad_signature"},
		{"digest of another body", good, func(r *http.Request, _ []byte) {
			_, digest := signature.BatchContent([]byte("x"))
			r.Header.Set(signature.HeaderContentDigest, digest)
		}, 401, "bad_signature"},
		{"no digest", good, func(r *http.Request, _ []byte) { r.Header.Del(signature.HeaderContentDigest) }, 401, "bad_signature"},
		{"for another service", other.Bytes(), nil, 421, "not_addressed_here"},
		{"from nobody we know", unknown.Bytes(), nil, 401, "unknown_sender"},
		{"another protocol", []byte("\x0e{\"protocol\":9}"), nil, 426, "unsupported_protocol"},
		{"no frames", []byte("hello world"), nil, 400, "bad_frame"},
		{"empty", nil, nil, 400, "bad_frame"},
		{"garbage after an event", append(bytes.Clone(good), 0xff, 0xff), nil, 400, "bad_frame"},
		{"an endless frame", append(n.batchOf(), 0xff, 0xff, 0xff, 0xff, 0x7f), nil, 400, "bad_frame"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := n.request(tt.body)
			if tt.change != nil {
				tt.change(r, tt.body)
			}
			w := n.serve(r)
			if w.Code != tt.status {
				t.Errorf("status %d, want %d: %s", w.Code, tt.status, w.Body)
			}
			if got := code(t, w); tt.code != "" && got != tt.code {
				t.Errorf("code %q, want %q", got, tt.code)
			}
			if tt.code == "stale" && !strings.Contains(w.Body.String(), `"clock"`) {
				t.Errorf("the answer does not tell our clock: %s", w.Body)
			}
			if got := n.storedEvents(); got != 0 {
				t.Fatalf("%d events were stored", got)
			}
		})
	}
	n.wantVerdicts(n.deliver(deliveryOf(1, newEvent("evt_1", ""))), event.Stored) // the node still works
}

func TestBatchWithoutEventsAsksHowItsLogStands(t *testing.T) {
	n := newNode(t)
	if a := n.deliver(); len(a.Verdicts) != 0 || a.Applied != 0 || a.OpenAll || a.To != n.party.StoreID {
		t.Errorf("a log of which nothing was given is answered %+v", a)
	}
	_, before := n.store.Bounds(store.InboxLog)
	if got := n.store.Live(senderPrefix); got != 0 || before != 1 {
		t.Errorf("the question left %d records, next seq %d", got, before)
	}
	n.deliver(deliveryOf(1, newEvent("evt_1", "")), deliveryOf(2, newEvent("evt_2", "k")))
	if a := n.deliver(); a.Applied != 0 || len(a.OpenKeys) == 0 && !a.OpenAll {
		t.Errorf("with events open it is answered %+v", a)
	}
	n.run().until("they are settled", n.drained)
	a := n.deliver()
	if a.Applied != 2 || len(a.OpenKeys) != 0 || a.OpenAll || time.Since(a.Clock).Abs() > time.Minute {
		t.Errorf("with all settled it is answered %+v", a)
	}
}

func TestBatchVerdictsAreInOrder(t *testing.T) {
	n := newNode(t)
	n.peers.speaksFor = map[string][]string{them: {"legacy-orders"}}
	allowed := newEvent("evt_l", "")
	allowed.Source = "legacy-orders"
	unwanted := newEvent("evt_u", "k1")
	unwanted.Type = "invoice.sent"
	broken := deliveryOf(5, newEvent("evt_b", "k2"))
	broken.Digest[0] ^= 1
	a := n.deliver(
		deliveryOf(1, newEvent("evt_1", "")), deliveryOf(3, allowed),
		deliveryOf(4, unwanted), broken,
		deliveryOf(6, newEvent("evt_6", "k1")), deliveryOf(7, newEvent("evt_7", "k2")), deliveryOf(8, newEvent("evt_8", "k3")),
		deliveryOf(9, newEvent("evt_1", "")),
	)
	n.wantVerdicts(a, event.Stored, event.Stored, event.Unwanted, event.Rejected,
		event.KeyBusy, event.KeyBusy, event.Stored, event.Duplicate)
	if got, want := n.storedEvents(), 3; got != want {
		t.Errorf("%d events stored, want %d", got, want)
	}
	if a.To != n.party.StoreID || a.From.Service != us || a.From.StoreID != n.store.ID() {
		t.Errorf("answer from %+v to %q", a.From, a.To)
	}
}

func TestSourceThatTheSignerMayNotSpeakForHasToWait(t *testing.T) {
	n := newNode(t)
	foreign := newEvent("evt_f", "")
	foreign.Source = "billing"
	batch := []event.Delivery{deliveryOf(1, newEvent("evt_1", "")), deliveryOf(2, foreign)}
	w := n.serve(n.request(n.batchOf(batch...)))
	if w.Code != http.StatusForbidden || code(t, w) != "source_not_allowed" || !strings.Contains(w.Body.String(), "billing") {
		t.Fatalf("answer %d: %s", w.Code, w.Body)
	}
	if got := n.storedEvents(); got != 0 {
		t.Errorf("%d events stored", got)
	}
	n.peers.speaksFor = map[string][]string{them: {"billing"}} // a newer descriptor has come
	n.wantVerdicts(n.deliver(batch...), event.Stored, event.Stored)
}

func TestSameIDWithOtherContentIsAConflict(t *testing.T) {
	n := newNode(t)
	n.wantVerdicts(n.deliver(deliveryOf(1, newEvent("evt_1", "k"))), event.Stored)
	other := newEvent("evt_1", "k")
	other.Data = []byte(`{"orderId":"changed"}`)
	a := n.deliver(deliveryOf(2, other), deliveryOf(3, newEvent("evt_2", "k")))
	n.wantVerdicts(a, event.Rejected, event.KeyBusy)
	if got := a.Verdicts[0].Code; got != "id_conflict" {
		t.Errorf("code %q, want id_conflict", got)
	}
	n.wantVerdicts(n.deliver(deliveryOf(1, newEvent("evt_1", "k"))), event.Duplicate)
}

func TestEqualDeliveriesAtOnceAreStoredOnce(t *testing.T) {
	n := newNode(t)
	body := n.batchOf(deliveryOf(1, newEvent("evt_1", "")))
	var wg sync.WaitGroup
	var mu sync.Mutex
	count := map[event.Verdict]int{}
	for range 64 {
		wg.Go(func() {
			w := n.serve(n.request(body))
			a, err := event.ParseBatchAnswer(w.Body.Bytes())
			if err != nil {
				t.Errorf("answer %d: %v", w.Code, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			count[a.Verdicts[0].Verdict]++
		})
	}
	wg.Wait()
	if count[event.Stored] != 1 || count[event.Duplicate] != 63 || n.storedEvents() != 1 {
		t.Errorf("verdicts %v and %d events stored, want one", count, n.storedEvents())
	}
}

func TestFullBacklogIsBusyFromThereOn(t *testing.T) {
	n := newNode(t, func(c *Config) { c.MaxBytes = 300 }) // about one event
	n.deliver(deliveryOf(1, newEvent("evt_1", "")))
	n.deliver(deliveryOf(2, newEvent("evt_2", "")))
	a := n.deliver(deliveryOf(1, newEvent("evt_1", "")), deliveryOf(3, newEvent("evt_3", "")), deliveryOf(1, newEvent("evt_1", "")))
	n.wantVerdicts(a, event.Duplicate, event.Busy, event.Busy)
	n.run().until("the backlog is gone", n.drained)
	n.wantVerdicts(n.deliver(deliveryOf(3, newEvent("evt_3", ""))), event.Stored)
}

func TestLowDiskIsBusyWhileForwardingGoesOn(t *testing.T) {
	n := newNode(t)
	n.deliver(deliveryOf(1, newEvent("evt_1", "")))
	n.stop()
	n.minFree = 1 << 60
	n.open()
	broken := deliveryOf(2, newEvent("evt_2", ""))
	broken.Digest[0] ^= 1
	a := n.deliver(broken, deliveryOf(3, newEvent("evt_3", "")), deliveryOf(4, newEvent("evt_4", "")))
	n.wantVerdicts(a, event.Rejected, event.Busy, event.Busy)
	n.run().until("the backlog is forwarded all the same", n.drained)
	if got := n.storedEvents(); got != 1 {
		t.Errorf("%d events stored, want 1", got)
	}
}

func TestRequestThatTheStoreDoesNotTakeInTime(t *testing.T) {
	n := newNode(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := n.serve(n.request(n.batchOf(deliveryOf(1, newEvent("evt_1", "")))).WithContext(ctx))
	if w.Code != http.StatusServiceUnavailable || code(t, w) != "store_slow" || w.Header().Get("Retry-After") == "" {
		t.Errorf("status %d, headers %v: %s", w.Code, w.Header(), w.Body)
	}
	if got := n.storedEvents(); got != 0 {
		t.Errorf("%d events stored", got)
	}
}

func TestMetricsCountVerdictsAndFailures(t *testing.T) {
	n := newNode(t)
	d := deliveryOf(1, newEvent("evt_1", ""))
	n.deliver(d)
	n.deliver(d)
	r := n.request(n.batchOf(d))
	r.Header.Del(signature.HeaderSignature)
	n.serve(r)
	n.run().until("it is settled", n.drained)
	var out bytes.Buffer
	n.metrics.WritePrometheus(&out)
	for _, want := range []string{
		`hooksidecar_inbox_events_total{verdict="stored"} 1`, `hooksidecar_inbox_events_total{verdict="duplicate"} 1`,
		`hooksidecar_inbox_signature_failures_total{reason="missing"} 1`, `hooksidecar_inbox_forwards_total{outcome="done"} 1`,
		`hooksidecar_inbox_backlog_events 0`, `hooksidecar_inbox_app_state{state="up"} 1`,
		`hooksidecar_inbox_end_to_end_seconds_count 1`, `hooksidecar_inbox_forward_seconds_bucket{le=`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s", want)
		}
	}
}

func TestRedeliveryBeyondTheWindowIsLeftToAPerson(t *testing.T) {
	n := newNode(t, func(c *Config) { c.DedupWindow = time.Millisecond })
	n.deliver(deliveryOf(5, newEvent("evt_5", "")))
	old := func(seq uint64, id string, redelivery bool) event.Delivery {
		d := deliveryOf(seq, newEvent(id, ""))
		d.AcceptedAt, d.Redelivery = n.store.CreatedAt().UnixMilli()+1, redelivery
		return d
	}
	n.until("the window is over", func() bool { return time.Since(n.store.CreatedAt()) > 5*time.Millisecond })
	a := n.deliver(old(3, "evt_3", true), old(4, "evt_4", false), old(6, "evt_6", true), old(5, "evt_5", true))
	n.wantVerdicts(a, event.Rejected, event.Stored, event.Stored, event.Duplicate)
	if got := a.Verdicts[0].Code; got != "beyond_window" {
		t.Errorf("code %q", got)
	}
}

func TestStoreIDOfAnotherServiceIsRefused(t *testing.T) {
	n := newNode(t)
	n.deliver(deliveryOf(1, newEvent("evt_1", "")))
	thief := signature.GeneratePrivateKey()
	n.peers.keys["thief"] = []signature.PublicKey{thief.Public()}
	n.party.Service, n.sender = "thief", thief
	if w := n.serve(n.request(n.batchOf(deliveryOf(9, newEvent("evt_9", ""))))); w.Code != http.StatusForbidden {
		t.Errorf("status %d, want 403: %s", w.Code, w.Body)
	}
}

func TestSingleEvent(t *testing.T) {
	n := newNode(t)
	send := func(body, id string, key signature.PrivateKey) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodPost, "/inbox", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		signature.SetHeaders(r.Header, key, id, time.Now(), []byte(body))
		w := httptest.NewRecorder()
		n.in.ServeEvent(w, r)
		return w
	}
	body := `{"to":"payment-service","id":"evt_1","type":"order.created","source":"order-service","x":{"a":1},"data":{"n":1}}`
	edit := func(old, new string) string { return strings.Replace(body, old, new, 1) }
	stranger := signature.GeneratePrivateKey()
	tests := []struct {
		name   string
		body   string
		id     string
		key    signature.PrivateKey
		status int
		code   string
	}{
		{"stored", body, "evt_1", n.sender, 202, ""},
		{"again", body, "evt_1", n.sender, 200, ""},
		{"other content", edit(`"n":1`, `"n":2`), "evt_1", n.sender, 409, "id_conflict"},
		{"not subscribed", edit("order.created", "invoice.sent"), "evt_1", n.sender, 404, "not_subscribed"},
		{"for another", edit("payment-service", "shipping"), "evt_1", n.sender, 421, "not_addressed_here"},
		{"for nobody", edit(`"to":"payment-service",`, ""), "evt_1", n.sender, 400, "invalid_field"},
		{"wrong signer", body, "evt_1", stranger, 401, "bad_signature"},
		{"unknown source", edit(`"order-service"`, `"nobody"`), "evt_1", n.sender, 401, "unknown_sender"},
		{"another's source", edit(`"source":"order-service"`, `"source":"billing","from":"order-service"`), "evt_1", n.sender, 403, "source_not_allowed"},
		{"other id in the header", body, "evt_2", n.sender, 400, "id_mismatch"},
		{"not JSON", "{", "evt_1", n.sender, 401, "unknown_sender"},
		{"nobody's", `{"to":"payment-service","data":1}`, "evt_1", n.sender, 401, "unknown_sender"},
		{"broken", edit(`}}`, ``), "evt_1", n.sender, 400, "invalid_json"},
		{"broken, wrong signer", edit(`}}`, ``), "evt_1", stranger, 401, "bad_signature"},
		{"invalid, wrong signer", edit("order.created", "x"), "evt_1", stranger, 401, "bad_signature"},
		{"for another, wrong signer", edit("payment-service", "shipping"), "evt_1", stranger, 401, "bad_signature"},
		{"signed as one, meant as another", edit(`"source"`, `"from":"order-service","from":"nobody","source"`), "evt_1", n.sender, 400, "duplicate_field"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := send(tt.body, tt.id, tt.key)
			if w.Code != tt.status {
				t.Fatalf("status %d, want %d: %s", w.Code, tt.status, w.Body)
			}
			if tt.code != "" && code(t, w) != tt.code {
				t.Errorf("code %q, want %q", code(t, w), tt.code)
			}
		})
	}
	if got := n.storedEvents(); got != 1 {
		t.Errorf("%d events stored, want 1", got)
	}
	n.run().until("the app has it", n.drained)
	got := string(n.app.got()[0].body)
	if !strings.Contains(got, `"x":{"a":1}`) || strings.Contains(got, `"to"`) || !strings.Contains(got, `"data":{"n":1}`) {
		t.Errorf("the app got %s", got)
	}
}

func FuzzServeBatch(f *testing.F) {
	f.Add([]byte("\x0e{\"protocol\":9}"), true)
	f.Add([]byte{0xff, 0xff, 0x03, 0}, false)
	w := event.NewBatchWriter(nil, event.BatchHeader{From: event.Party{Service: them, Instance: "order-1", StoreID: "st_orders"}, To: us})
	w.Add(deliveryOf(1, newEvent("evt_1", "k")))
	f.Add(w.Bytes(), false)
	f.Add(w.Bytes(), true)
	n := newNode(f)
	f.Fuzz(func(t *testing.T, body []byte, signed bool) {
		before := n.storedEvents()
		r := n.request(body)
		if !signed {
			r.Header.Set(signature.HeaderSignature, signature.GeneratePrivateKey().Sign("batch_1", time.Now(), body))
		}
		got := n.serve(r)
		if !signed && (got.Code < 400 || n.storedEvents() != before) {
			t.Fatalf("an unsigned batch was answered %d", got.Code)
		}
		if got.Code == http.StatusInternalServerError {
			t.Fatalf("answered 500: %s", got.Body)
		}
	})
}
