package inbox

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/signature"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

const (
	us   = "payment-service"
	them = "order-service"
)

// fakePeers knows services by their keys; each may speak for itself, and for what is listed.
type fakePeers struct {
	keys      map[string][]signature.PublicKey
	speaksFor map[string][]string
	mu        sync.Mutex // guards what follows
	instances []event.Instance
	changed   chan struct{} // nil: nobody waits
}

func (p *fakePeers) Keys(service string) []signature.PublicKey { return p.keys[service] }
func (p *fakePeers) MaySpeakFor(service, source string) bool {
	return service == source || slices.Contains(p.speaksFor[service], source)
}
func (p *fakePeers) Instances(string) []event.Instance {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.instances
}

// Changed returns a channel that know closes.
func (p *fakePeers) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.changed == nil {
		p.changed = make(chan struct{})
	}
	return p.changed
}

// know replaces the instances that are known.
func (p *fakePeers) know(all ...event.Instance) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.instances = all
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
}

// A call is a request that the app got.
type call struct {
	path   string
	header http.Header
	body   []byte
	id     string
	at     time.Time
}

// A fakeApp is an app whose answers a test decides. It is a RoundTripper, so that it works on fake time, and a Handler.
type fakeApp struct {
	mu     sync.Mutex
	calls  []call
	answer func(call) (*http.Response, error) // nil: 204
	inside int
	most   int // requests at once
}

func reply(status int, headers ...string) (*http.Response, error) {
	h := http.Header{}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		h.Set(name, value)
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader("")), ProtoMajor: 1, ProtoMinor: 1}, nil
}

func (a *fakeApp) RoundTrip(r *http.Request) (*http.Response, error) {
	c := call{path: r.URL.Path, header: r.Header.Clone(), at: time.Now(), id: r.Header.Get("X-Event-Id")}
	if r.Body != nil {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		c.body = body
	}
	a.mu.Lock()
	a.calls = append(a.calls, c)
	a.inside++
	a.most = max(a.most, a.inside)
	answer := a.answer
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		a.inside--
		a.mu.Unlock()
	}()
	if answer == nil {
		return reply(204)
	}
	return answer(c)
}

func (a *fakeApp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	resp, err := a.RoundTrip(r)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	for name, values := range resp.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body)
}

func (a *fakeApp) answers(f func(call) (*http.Response, error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = f
}

func (a *fakeApp) got() []call {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.calls)
}

// ids returns the event ids of the calls, in order.
func (a *fakeApp) ids() (ids []string) {
	for _, c := range a.got() {
		ids = append(ids, c.id)
	}
	return ids
}

// A node is an inbox with its store, its app and a sender.
type node struct {
	t       testing.TB
	dir     string
	minFree int64 // of the store; 0: none
	app     *fakeApp
	peers   *fakePeers
	key     signature.PrivateKey // ours
	sender  signature.PrivateKey // theirs
	party   event.Party          // them
	cfg     Config
	store   *store.Store
	in      *Inbox
	metrics *metrics.Set
	cancel  context.CancelFunc
	ended   chan error
}

func newNode(t testing.TB, edit ...func(*Config)) *node {
	t.Helper()
	n := &node{
		t: t, dir: t.TempDir(), app: &fakeApp{},
		key: signature.GeneratePrivateKey(), sender: signature.GeneratePrivateKey(),
		party: event.Party{Service: them, Instance: "order-1", StoreID: "st_orders"},
	}
	n.peers = &fakePeers{keys: map[string][]signature.PublicKey{them: {n.sender.Public()}}}
	n.cfg = Config{
		Service: us, Instance: "pay-1", Peers: n.peers, Keys: []signature.PrivateKey{n.key},
		App: App{URL: "http://app.test/hooks"}, Transport: n.app,
		Subscriptions: []Subscription{{Types: patterns(t, "order.*"), Path: "/orders"}},
	}
	for _, e := range edit {
		e(&n.cfg)
	}
	n.open()
	t.Cleanup(n.stop)
	return n
}

func patterns(t testing.TB, list ...string) event.Patterns {
	t.Helper()
	p, err := event.ParsePatterns(list)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// open opens the store and the inbox without running it.
func (n *node) open() {
	n.t.Helper()
	s, err := store.Open(store.Config{Dir: n.dir, Service: us, BallastBytes: -1, MinFreeBytes: cmp.Or(n.minFree, -1), AllowUnsafeFS: true})
	if err != nil {
		n.t.Fatal(err)
	}
	n.store, n.metrics = s, metrics.NewSet()
	n.cfg.Store, n.cfg.Metrics = s, n.metrics
	if n.in, err = New(n.cfg); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) run() *node {
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel, n.ended = cancel, make(chan error, 1)
	in, ended := n.in, n.ended
	go func() { ended <- in.Run(ctx) }()
	return n
}

// runIfNot runs the inbox, unless it runs already.
func (n *node) runIfNot() *node {
	if n.cancel != nil {
		return n
	}
	return n.run()
}

// stop stops forwarding and closes the store. It may be called twice.
func (n *node) stop() {
	if n.cancel != nil {
		n.cancel()
		if err := <-n.ended; err != nil {
			n.t.Errorf("Run: %v", err)
		}
		n.cancel = nil
	}
	if n.store != nil {
		if err := n.store.Close(); err != nil {
			n.t.Errorf("close store: %v", err)
		}
		n.store = nil
	}
}

// restart stops the node and opens it again, without running it.
func (n *node) restart() {
	n.t.Helper()
	n.stop()
	n.open()
}

// newEvent returns an order event as stored. key may be empty.
func newEvent(id, key string) event.Event {
	return event.Event{
		ID: id, Type: "order.created", Version: "1.0", Timestamp: "2026-02-03T10:30:00Z", Source: them, Key: key,
		Metadata: []byte(`{"correlationId":"req_1","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}`),
		Data:     []byte(`{"orderId":"` + id + `"}`),
	}
}

func deliveryOf(seq uint64, e event.Event) event.Delivery {
	return event.Delivery{
		Seq: seq, Attempt: 1, AcceptedAt: time.Now().UnixMilli(), Digest: e.Digest(),
		Attributes: e.AppendAttributes(nil), Data: e.Data,
	}
}

// batchOf returns the body of a batch.
func (n *node) batchOf(ds ...event.Delivery) []byte {
	w := event.NewBatchWriter(nil, event.BatchHeader{From: n.party, To: us})
	for _, d := range ds {
		w.Add(d)
	}
	return w.Bytes()
}

// request returns a signed request for a batch.
func (n *node) request(body []byte) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/inbox/batch", bytes.NewReader(body))
	r.Header.Set("Content-Type", event.BatchContentType)
	n.sign(r, body, time.Now())
	return r
}

func (n *node) sign(r *http.Request, body []byte, at time.Time) {
	content, digest := signature.BatchContent(body)
	r.Header.Set(signature.HeaderContentDigest, digest)
	var id [8]byte
	_, _ = rand.Read(id[:])
	signature.SetHeaders(r.Header, n.sender, "batch_"+hex.EncodeToString(id[:]), at, content)
}

func (n *node) serve(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	n.in.ServeBatch(w, r)
	return w
}

// deliver sends a batch and returns the answer, which must verify.
func (n *node) deliver(ds ...event.Delivery) event.BatchAnswer {
	n.t.Helper()
	r := n.request(n.batchOf(ds...))
	w := n.serve(r)
	if w.Code != http.StatusOK {
		n.t.Fatalf("batch was answered %d: %s", w.Code, w.Body)
	}
	h, err := signature.HeadersFrom(w.Header())
	if err != nil {
		n.t.Fatal(err)
	}
	if h.ID != r.Header.Get(signature.HeaderID) {
		n.t.Errorf("answer has webhook-id %q, request had %q", h.ID, r.Header.Get(signature.HeaderID))
	}
	err = signature.Verify(h, w.Body.Bytes(), time.Now(), signature.PublicKeys([]signature.PublicKey{n.key.Public()}))
	if err != nil {
		n.t.Fatalf("the answer does not verify: %v", err)
	}
	a, err := event.ParseBatchAnswer(w.Body.Bytes())
	if err != nil {
		n.t.Fatal(err)
	}
	return a
}

func verdicts(a event.BatchAnswer) (vs []event.Verdict) {
	for _, o := range a.Verdicts {
		vs = append(vs, o.Verdict)
	}
	return vs
}

func (n *node) wantVerdicts(a event.BatchAnswer, want ...event.Verdict) {
	n.t.Helper()
	if got := verdicts(a); !slices.Equal(got, want) {
		n.t.Fatalf("verdicts %v, want %v", got, want)
	}
}

// deliverN sends events evt_1 … evt_n, without keys, as seqs from..., in batches.
func (n *node) deliverN(from, to int, key func(int) string) {
	n.t.Helper()
	for at := from; at <= to; at += 200 {
		var ds []event.Delivery
		for i := at; i < at+200 && i <= to; i++ {
			k := ""
			if key != nil {
				k = key(i)
			}
			ds = append(ds, deliveryOf(uint64(i), newEvent(fmt.Sprintf("evt_%d", i), k)))
		}
		for _, v := range verdicts(n.deliver(ds...)) {
			if v != event.Stored {
				n.t.Fatalf("verdict %s, want stored", v)
			}
		}
	}
}

// until waits for something that will be true soon.
func (n *node) until(what string, ok func() bool) {
	n.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			n.t.Fatalf("waited in vain until %s; status %+v", what, n.in.Status())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// drained reports whether everything is settled, durably.
func (n *node) drained() bool { return n.in.Status().Backlog == 0 && n.durable() }

// durable reports whether all that was settled is on the disk.
func (n *node) durable() bool {
	n.in.mu.Lock()
	defer n.in.mu.Unlock()
	s := &n.in.settler
	return len(n.in.ending)+len(s.pending)+len(n.in.f.changes) == 0 && !s.inFlight && !s.dirty
}

// code returns the code of a problem.
func code(t *testing.T, w *httptest.ResponseRecorder) string {
	t.Helper()
	var p struct {
		Code string `json:"code"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatalf("answer %d is no problem: %s", w.Code, w.Body)
	}
	return p.Code
}

// storedEvents returns how many events the inbox log holds, settled or not.
func (n *node) storedEvents() int { return int(n.store.Live(eventPrefix)) }
