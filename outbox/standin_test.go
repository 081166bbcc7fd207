package outbox_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/backoff"
	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/problem"
	"github.com/hooksidecar/hooksidecar/internal/signature"
	"github.com/hooksidecar/hooksidecar/internal/store"
	"github.com/hooksidecar/hooksidecar/outbox"
)

// A directory is what the outbox is told of the others.
type directory struct {
	mu        sync.Mutex
	services  map[string][]event.Instance
	keys      map[string][]signature.PublicKey
	changed   chan struct{}
	refreshed []string
	onRefresh func(service string)
}

func newDirectory() *directory {
	return &directory{services: map[string][]event.Instance{}, keys: map[string][]signature.PublicKey{}, changed: make(chan struct{})}
}

func (d *directory) set(service string, key signature.PublicKey, instances ...event.Instance) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.services[service], d.keys[service] = instances, []signature.PublicKey{key}
	close(d.changed)
	d.changed = make(chan struct{})
}

func (d *directory) Services() (names []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name := range d.services {
		names = append(names, name)
	}
	return names
}

func (d *directory) Instances(service string) []event.Instance {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.services[service])
}

func (d *directory) Changed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changed
}

func (d *directory) Refresh(service string) {
	d.mu.Lock()
	d.refreshed = append(d.refreshed, service)
	f := d.onRefresh
	d.mu.Unlock()
	if f != nil {
		f(service)
	}
}

func (d *directory) Keys(service string) []signature.PublicKey {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.keys[service]
}

// A received event is one that an inbox was sent.
type received struct {
	id, typ, data string
	seq           uint64
	attempt       int
	redelivery    bool
}

// An inbox is a stand-in: it verifies what it is sent, and answers as its script says.
type inbox struct {
	t             *testing.T
	service, name string
	store         string // its id; changes with its disk
	key           signature.PrivateKey
	sender        signature.PublicKey
	server        *httptest.Server

	mu      sync.Mutex
	got     []received
	batches [][]received
	applied uint64
	openAll bool
	open    []uint64 // keys

	questions []time.Time                                    // batches without events
	deaf      bool                                           // it does not understand them
	verdict   func(received) event.Outcome                   // nil: stored
	refuse    func(w http.ResponseWriter, n int) bool        // true: it has answered by itself; n counts batches from 1
	sign      func(*event.BatchAnswer) *signature.PrivateKey // another signer or answer; nil: as it should be
}

func newInbox(t *testing.T, service, name string, sender signature.PublicKey) *inbox {
	in := &inbox{t: t, service: service, name: name, store: "st_" + name, key: signature.GeneratePrivateKey(), sender: sender}
	in.server = httptest.NewServer(in)
	t.Cleanup(in.server.Close)
	return in
}

func (in *inbox) instance(types ...string) event.Instance {
	return event.Instance{
		Service: in.service, Name: in.name, StoreID: in.store, URL: in.server.URL, Boot: 1,
		Subscriptions: []event.Subscription{{Types: types, Since: time.Now(), From: "earliest"}},
	}
}

func (in *inbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	h, err := signature.HeadersFrom(r.Header)
	if err == nil {
		var content []byte
		if content, err = signature.VerifyBatchDigest(r.Header, body); err == nil {
			err = signature.Verify(h, content, time.Now(), []signature.Key{in.sender})
		}
	}
	if stale, ok := errors.AsType[*signature.StaleError](err); ok {
		problem.Write(w, problem.From(stale))
		return
	}
	if err != nil {
		in.t.Errorf("a batch is not signed as it should be: %v", err)
		problem.Write(w, problem.From(err))
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	header, events := in.parse(body)
	if len(events) == 0 {
		in.questions = append(in.questions, time.Now())
		if in.deaf {
			problem.Write(w, problem.New("empty_batch", "The batch has no events."))
			return
		}
		in.answer(w, h.ID, header, events)
		return
	}
	in.batches = append(in.batches, events)
	if in.refuse != nil && in.refuse(w, len(in.batches)) {
		return
	}
	in.answer(w, h.ID, header, events)
}

func (in *inbox) parse(body []byte) (event.BatchHeader, []received) {
	header, rest, err := event.ReadBatchHeader(body)
	if err != nil {
		in.t.Errorf("batch header: %v", err)
	}
	if header.To != in.service {
		in.t.Errorf("a batch for %q came to %q", header.To, in.service)
	}
	var events []received
	for {
		d, e, next, err := event.ReadDelivery(rest)
		if err != nil {
			if !errors.Is(err, io.EOF) {
				in.t.Errorf("delivery: %v", err)
			}
			return header, events
		}
		events = append(events, received{id: e.ID, typ: e.Type, data: string(e.Data), seq: d.Seq, attempt: d.Attempt, redelivery: d.Redelivery})
		rest = next
	}
}

func (in *inbox) answer(w http.ResponseWriter, id string, header event.BatchHeader, events []received) {
	a := event.BatchAnswer{
		From: event.Party{Service: in.service, Instance: in.name, StoreID: in.store}, To: header.From.StoreID,
		Applied: in.applied, OpenAll: in.openAll, OpenKeys: slices.Clone(in.open), Clock: time.Now(),
	}
	for _, e := range events {
		o := event.Outcome{Verdict: event.Stored}
		if in.verdict != nil {
			o = in.verdict(e)
		}
		if o.Verdict == event.Stored || o.Verdict == event.Duplicate {
			in.got = append(in.got, e)
		}
		a.Verdicts = append(a.Verdicts, o)
	}
	key := &in.key
	if in.sign != nil {
		key = in.sign(&a)
	}
	text := a.Append(nil)
	w.Header().Set("Content-Type", event.VerdictsContentType)
	signature.SetHeaders(w.Header(), *key, id, time.Now(), text)
	w.Write(text)
}

// set changes the script.
func (in *inbox) set(f func()) {
	in.mu.Lock()
	defer in.mu.Unlock()
	f()
}

func (in *inbox) received() []received {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.got)
}

func (in *inbox) ids() (ids []string) {
	for _, e := range in.received() {
		ids = append(ids, e.id)
	}
	return ids
}

// A node is an outbox with everything that it needs, on a store that outlives it.
type node struct {
	t     *testing.T
	dir   string
	key   signature.PrivateKey
	peers *directory
	cfg   func(*outbox.Config)

	store *store.Store
	*outbox.Outbox
	server *httptest.Server
	stop   func()
}

func newNode(t *testing.T, change ...func(*outbox.Config)) *node {
	n := &node{t: t, dir: t.TempDir(), key: signature.GeneratePrivateKey(), peers: newDirectory()}
	n.cfg = func(c *outbox.Config) {
		for _, f := range change {
			f(c)
		}
	}
	n.start()
	t.Cleanup(func() { n.close() })
	return n
}

func (n *node) start() {
	n.t.Helper()
	n.open()
	n.run()
}

// open opens the outbox without delivering.
func (n *node) open() {
	n.t.Helper()
	s, err := store.Open(store.Config{Dir: n.dir, Service: "order-service", BallastBytes: -1, MinFreeBytes: -1, AllowUnsafeFS: true})
	if err != nil {
		n.t.Fatal(err)
	}
	cfg := outbox.Config{
		Service: "order-service", Instance: "order-1", Store: s, Directory: n.peers, Keys: []signature.PrivateKey{n.key},
		Retry: backoff.Policy{Base: 5 * time.Millisecond, Max: 50 * time.Millisecond}, FailoverAfter: 300 * time.Millisecond,
	}
	n.cfg(&cfg)
	o, err := outbox.New(cfg)
	if err != nil {
		n.t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /outbox", o.ServePublish)
	mux.HandleFunc("POST /outbox/batch", o.ServeBatch)
	mux.HandleFunc("GET /outbox/events/{id}", o.ServeEvent)
	n.store, n.Outbox, n.server, n.stop = s, o, httptest.NewServer(mux), func() {}
}

func (n *node) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			n.t.Errorf("Run: %v", err)
		}
	})
}

func (n *node) close() {
	if n.store == nil {
		return
	}
	n.server.Close()
	n.stop()
	if err := n.store.Close(); err != nil {
		n.t.Errorf("close: %v", err)
	}
	n.store = nil
}

// crash ends the process without its last writes: the store takes nothing more before the outbox knows that it is to stop.
func (n *node) crash() {
	n.t.Helper()
	n.server.Close()
	if err := n.store.Close(); err != nil {
		n.t.Errorf("close: %v", err)
	}
	n.stop()
	n.store = nil
	n.start()
}

func (n *node) restart() {
	n.t.Helper()
	n.close()
	n.start()
}

// result is an answer to a publish.
type result struct {
	status        int
	header        http.Header
	text          string
	ID            string   `json:"id"`
	Seq           uint64   `json:"seq"`
	CorrelationID string   `json:"correlationId"`
	Duplicate     bool     `json:"duplicate"`
	Subscribers   []string `json:"subscribers"`
	Results       []result `json:"results"`
	Code          string   `json:"code"`
	Index         *int     `json:"index"`
	AcceptedAt    string   `json:"acceptedAt"`
}

func (n *node) post(path, body string, headers ...string) result {
	n.t.Helper()
	req, err := http.NewRequest(http.MethodPost, n.server.URL+path, bytes.NewBufferString(body))
	if err != nil {
		n.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return n.do(req)
}

func (n *node) do(req *http.Request) result {
	n.t.Helper()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	r := result{status: resp.StatusCode, header: resp.Header, text: string(text)}
	if err := json.Unmarshal(text, &r); err != nil {
		n.t.Fatalf("answer %q: %v", text, err)
	}
	return r
}

// publish posts an event that has to be accepted.
func (n *node) publish(id string, more ...string) result {
	n.t.Helper()
	body := fmt.Sprintf(`{"id":%q,"type":"order.created","data":{"n":1}`, id)
	for i := 0; i < len(more); i += 2 {
		body += fmt.Sprintf(`,%q:%q`, more[i], more[i+1])
	}
	r := n.post("/outbox", body+"}")
	if r.status != http.StatusAccepted {
		n.t.Fatalf("publish %s: %d %s", id, r.status, r.text)
	}
	return r
}

// subscribe tells the node of in, and waits until it is a subscriber.
func (n *node) subscribe(in *inbox, types ...string) {
	n.t.Helper()
	n.peers.set(in.service, in.key.Public(), in.instance(types...))
	n.eventually("subscriber is known", func() bool { return n.status(in.service).Service != "" })
}

func (n *node) status(service string) outbox.SubscriberStatus {
	for _, s := range n.Subscribers() {
		if s.Service == service {
			return s
		}
	}
	return outbox.SubscriberStatus{}
}

// eventually waits for a condition that another goroutine makes true.
func (n *node) eventually(what string, f func() bool) {
	n.t.Helper()
	for end := time.Now().Add(10 * time.Second); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			n.t.Fatalf("in vain: %s; %+v", what, n.Subscribers())
		}
	}
}

// delivery returns where an event is for a service.
func (n *node) delivery(id, service string) outbox.Delivery {
	n.t.Helper()
	st, ok, err := n.Event(n.t.Context(), id)
	if err != nil || !ok {
		n.t.Fatalf("event %s: %v, %v", id, ok, err)
	}
	for _, d := range st.Subscribers {
		if d.Service == service {
			return d
		}
	}
	return outbox.Delivery{}
}
