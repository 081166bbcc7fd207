package e2e

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// An arrival is one request that an app got, as the app saw it.
type arrival struct {
	BeganAt, EndedAt time.Time // EndedAt is zero while the app works on it
	Path             string
	Header           http.Header
	Body             []byte
	Status           int  // what the app answered; 0: nothing
	Lost             bool // the answer may not have reached the sidecar

	// out of the body
	ID, Source, Type, Version, Key string
	Data                           json.RawMessage
	Metadata                       map[string]any
}

// An answer is what an app does with one request.
type answer struct {
	status int           // 0: closes the connection without an answer
	delay  time.Duration // before the answer
	header map[string]string
	body   string
}

// A fakeApp answers as its script says and keeps a journal of every request. It can be stopped and started on the same port.
type fakeApp struct {
	t       *testing.T
	address string

	mu      sync.Mutex
	journal []*arrival
	script  func(arrival) answer // nil: 200
	server  *http.Server
}

// newApp starts an app that answers every request with 200.
func newApp(t *testing.T) *fakeApp {
	t.Helper()
	a := &fakeApp{t: t, address: freeAddress(t)}
	a.start()
	t.Cleanup(a.stop)
	return a
}

func (a *fakeApp) url() string { return "http://" + a.address }

// start listens again.
func (a *fakeApp) start() {
	a.t.Helper()
	l, err := net.Listen("tcp", a.address)
	if err != nil {
		a.t.Fatal(err)
	}
	server := &http.Server{Handler: a, ReadHeaderTimeout: 10 * time.Second}
	a.mu.Lock()
	a.server = server
	a.mu.Unlock()
	go func() { _ = server.Serve(l) }()
}

// stop closes the listener and every connection.
func (a *fakeApp) stop() {
	a.mu.Lock()
	server := a.server
	a.server = nil
	a.mu.Unlock()
	if server != nil {
		_ = server.Close()
	}
}

// answers sets what the app does from now on; nil: 200.
func (a *fakeApp) answers(script func(arrival) answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.script = script
}

func (a *fakeApp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // half a request is none
	}
	got := readArrival(r, body)
	a.mu.Lock()
	a.journal = append(a.journal, got)
	script := a.script
	copied := *got
	a.mu.Unlock()

	reply := answer{status: http.StatusOK}
	if script != nil {
		reply = script(copied)
	}
	wait(r.Context(), reply.delay)

	a.mu.Lock()
	got.EndedAt, got.Status = time.Now(), reply.status
	got.Lost = reply.status == 0 || r.Context().Err() != nil
	a.mu.Unlock()
	if reply.status == 0 {
		panic(http.ErrAbortHandler)
	}
	for name, value := range reply.header {
		w.Header().Set(name, value)
	}
	w.WriteHeader(reply.status)
	_, _ = io.WriteString(w, reply.body)
}

// wait is the work of an app; a caller that goes away ends it.
func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// readArrival takes the envelope apart, with nothing but the standard library.
func readArrival(r *http.Request, body []byte) *arrival {
	var e struct {
		ID, Source, Type, Version, Key string
		Data                           json.RawMessage
		Metadata                       map[string]any
	}
	_ = json.Unmarshal(body, &e) // what cannot be read has no id, and the checker says so
	return &arrival{BeganAt: time.Now(), Path: r.URL.Path, Header: r.Header.Clone(), Body: body,
		ID: e.ID, Source: e.Source, Type: e.Type, Version: e.Version, Key: e.Key, Data: e.Data, Metadata: e.Metadata}
}

// arrivals is a copy of the journal, in the order in which requests came.
func (a *fakeApp) arrivals() []arrival {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make([]arrival, len(a.journal))
	for i, got := range a.journal {
		all[i] = *got
	}
	return all
}

// of returns the arrivals of one event.
func (a *fakeApp) of(id string) []arrival {
	var some []arrival
	for _, got := range a.arrivals() {
		if got.ID == id {
			some = append(some, got)
		}
	}
	return some
}

// done tells which events the app has answered with 2xx.
func (a *fakeApp) done() map[string]bool {
	ids := map[string]bool{}
	for _, got := range a.arrivals() {
		if got.Status/100 == 2 {
			ids[got.ID] = true
		}
	}
	return ids
}
