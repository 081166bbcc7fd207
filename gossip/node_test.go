package gossip

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/backoff"
	"github.com/hooksidecar/hooksidecar/internal/dial"
	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/signature"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

// node is a sidecar as far as this package is concerned: a store, a directory, a peer listener.
type node struct {
	*Directory
	t      *testing.T
	dir    string // of its store
	store  *store.Store
	keys   []signature.PrivateKey
	peers  []string
	url    string
	served atomic.Pointer[Directory] // nil: answers 503
	stop   func()
	log    lockedBuffer

	mu   sync.Mutex
	self Descriptor
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newNode starts a node that does not exchange anything before run.
func newNode(t *testing.T, service, instance string, peers ...string) *node {
	t.Helper()
	n := &node{t: t, dir: t.TempDir(), keys: []signature.PrivateKey{signature.GeneratePrivateKey()}, peers: peers}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d := n.served.Load()
		if d == nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		d.ServeDescriptor(w, r)
	}))
	t.Cleanup(s.Close)
	n.url = s.URL
	n.self = Descriptor{
		Service: service, Instance: instance, Version: 1, URL: s.URL,
		Subscriptions: []event.Subscription{{Types: []string{"order.*"}, Since: time.Unix(1_700_000_000, 0).UTC(), From: "latest"}},
	}
	n.open()
	t.Cleanup(func() { n.close() })
	return n
}

// open opens the store and makes the directory, as at process start.
func (n *node) open() {
	n.t.Helper()
	var err error
	n.store, err = store.Open(store.Config{Dir: n.dir, Service: n.self.Service, MinFreeBytes: -1, BallastBytes: -1, AllowUnsafeFS: true})
	if err != nil {
		n.t.Fatal(err)
	}
	n.say(func(d *Descriptor) {
		d.StoreID, d.Boot, d.Keys = n.store.ID(), n.store.Boot(), nil
		for _, k := range n.keys {
			d.Keys = append(d.Keys, k.Public().String())
		}
	})
	n.Directory, err = New(Config{
		Service: n.self.Service, Instance: n.self.Instance, Store: n.store, Keys: n.keys, Peers: n.peers, Self: n.descriptor,
		Transport: dial.NewTransport(dial.Config{AllowLoopback: true}), Log: slog.New(slog.NewTextHandler(&n.log, nil)),
		Retry: backoff.Policy{Base: 5 * time.Millisecond, Max: 20 * time.Millisecond}, Interval: 20 * time.Millisecond,
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.served.Store(n.Directory)
}

func (n *node) descriptor() Descriptor {
	n.mu.Lock()
	defer n.mu.Unlock()
	d := n.self
	d.IssuedAt = time.Now().UTC()
	return d
}

func (n *node) say(change func(*Descriptor)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change(&n.self)
}

// run starts the exchanges; close ends them.
func (n *node) run() *node {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	n.stop = func() {
		cancel()
		if err := <-done; err != nil {
			n.t.Errorf("Run: %v", err)
		}
	}
	return n
}

func (n *node) close() {
	n.served.Store(nil)
	if n.stop != nil {
		n.stop()
		n.stop = nil
	}
	if err := n.store.Close(); err != nil {
		n.t.Errorf("close store: %v", err)
	}
}

// until waits for changes until ok, and fails the test if that takes too long.
func (n *node) until(what string, ok func() bool) {
	n.t.Helper()
	deadline := time.After(10 * time.Second)
	for !ok() {
		changed := n.Changed()
		select {
		case <-changed:
		case <-time.After(5 * time.Millisecond): // a status changes without a change of the directory
		case <-deadline:
			n.t.Fatalf("%s never came; status %+v\n%s", what, n.Status(), n.log.String())
		}
	}
}

func (n *node) knowsInstance(service, name string) bool {
	_, ok := n.instanceOf(service, name)
	return ok
}

func (n *node) instanceOf(service, name string) (event.Instance, bool) {
	for _, i := range n.Instances(service) {
		if i.Name == name {
			return i, true
		}
	}
	return event.Instance{}, false
}

// post brings a descriptor to n from addr and returns the answer.
func (n *node) post(addr string, body []byte) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", descriptorPath, bytes.NewReader(body))
	r.RemoteAddr = net.JoinHostPort(addr, "4711")
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	n.ServeDescriptor(w, r)
	return w
}

func (n *node) bring(d Descriptor, keys ...signature.PrivateKey) (status int, body string) {
	b, err := json.Marshal(d.Seal(keys))
	if err != nil {
		n.t.Fatal(err)
	}
	w := n.post("127.0.0.1", b)
	text, _ := io.ReadAll(w.Body)
	return w.Code, string(text)
}

// stranger returns the descriptor of a sidecar that does not run.
func stranger(service string, keys ...signature.PrivateKey) Descriptor {
	d := Descriptor{
		Service: service, Instance: "one", StoreID: "st_" + strings.Repeat("x", 20) + service[:1], Boot: 3, Version: 5,
		URL: "http://127.0.0.1:9", IssuedAt: time.Now().UTC(),
	}
	for _, k := range keys {
		d.Keys = append(d.Keys, k.Public().String())
	}
	return d
}

func writeSigned(w http.ResponseWriter, s Signed) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(s)
}
