package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"
)

// A relay stands in for a pair: it accepts all and delivers when told to, in
// the order that it is told.
type relay struct {
	mu     sync.Mutex
	events []json.RawMessage
	refuse int // so many of the first posts
}

func (r *relay) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(q.Body)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refuse > 0 || err != nil {
		r.refuse--
		http.Error(w, "not now", http.StatusServiceUnavailable)
		return
	}
	var batch []json.RawMessage
	if json.Unmarshal(body, &batch) != nil {
		batch = []json.RawMessage{body}
	}
	r.events = append(r.events, batch...)
	w.WriteHeader(http.StatusAccepted)
}

func (r *relay) deliver(t *testing.T, url string, events []json.RawMessage) {
	t.Helper()
	c, err := newClient(url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	for _, e := range events {
		if status, err := c.post(e); err != nil || status != http.StatusNoContent {
			t.Fatalf("sink answered %d %v", status, err)
		}
	}
}

func startRelay(t *testing.T, r *relay) load {
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	return load{url: server.URL, run: 1, conns: 4, batch: 1, events: 500, lasting: 20 * time.Second}
}

func openSink(t *testing.T) *sink {
	s, err := startSink()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestRunFindsWhatASystemDoesWrong(t *testing.T) {
	whole := func(e []json.RawMessage) []json.RawMessage { return e }
	for _, c := range []struct {
		name  string
		batch int
		fault func([]json.RawMessage) []json.RawMessage
		want  counts
	}{
		{"nothing", 1, whole, counts{Accepted: 500, Arrived: 500}},
		{"nothing, batches", 7, whole, counts{Accepted: 500, Arrived: 500}},
		{"loss", 1, func(e []json.RawMessage) []json.RawMessage { return e[:len(e)-3] },
			counts{Accepted: 500, Arrived: 497, Lost: 3}},
		{"repeats", 7, func(e []json.RawMessage) []json.RawMessage { return append(e, e[0], e[1]) },
			counts{Accepted: 500, Arrived: 500, Repeated: 2}},
		// All but the last event of each of the 16 keys then come after a later one.
		{"disorder", 1, func(e []json.RawMessage) []json.RawMessage { slices.Reverse(e); return e },
			counts{Accepted: 500, Arrived: 500, Disorder: 500 - 4*keysPerConn}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, s := &relay{}, openSink(t)
			ld, l := startRelay(t, r), s.begin(1)
			ld.batch = c.batch
			got, err := ld.send(t.Context(), l)
			if err != nil || got.accepted != ld.events {
				t.Fatalf("accepted %d, %v %s", got.accepted, err, got.refusal)
			}
			r.deliver(t, s.url(), c.fault(r.events))
			if got := l.close(); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
			if got := s.total(); got != c.want {
				t.Errorf("total %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestLoadCountsRefusals(t *testing.T) {
	ld := startRelay(t, &relay{refuse: 2})
	got, err := ld.send(t.Context(), newLedger())
	if err != nil {
		t.Fatal(err)
	}
	if got.refused != 2 || got.accepted != ld.events-2 || got.refusal == "" {
		t.Errorf("%d refused, %d accepted, %q; want 2, %d and a text", got.refused, got.accepted, got.refusal, ld.events-2)
	}
}

func TestLoadKeepsItsRate(t *testing.T) {
	ld := startRelay(t, &relay{})
	ld.rate, ld.events = 1000, 200
	got, err := ld.send(t.Context(), newLedger())
	if err != nil {
		t.Fatal(err)
	}
	// The last of 200 events at 1,000/s is due after 199 ms: never earlier.
	if got.accepted != 200 || got.took < 199*time.Millisecond {
		t.Errorf("%d events in %v, want 200 in 199 ms or more", got.accepted, got.took)
	}
}

func TestLoadEndsByTime(t *testing.T) {
	ld := startRelay(t, &relay{})
	ld.rate, ld.events, ld.lasting = 10, maxRunEvents, 50*time.Millisecond
	got, err := ld.send(t.Context(), newLedger())
	if err != nil || got.accepted > 2 {
		t.Errorf("accepted %d, %v; want the one or two that were due", got.accepted, err)
	}
}

func TestSinkKeepsRunsApart(t *testing.T) {
	r, s := &relay{}, openSink(t)
	ld, first := startRelay(t, r), s.begin(1)
	if _, err := ld.send(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	r.deliver(t, s.url(), r.events)
	second := s.begin(2)
	r.deliver(t, s.url(), append(r.events[:1:1], json.RawMessage(`{"no":"mark"}`))) // a late repeat
	if got := first.close().Repeated; got != 1 {
		t.Errorf("%d repeats in the first run, want 1", got)
	}
	if got := second.close(); got != (counts{}) {
		t.Errorf("the second run got %+v, want nothing", got)
	}
	if got := s.unmarked.Load(); got != 1 {
		t.Errorf("%d requests without a mark, want 1", got)
	}
}

func TestClientGoesToLoopbackOnly(t *testing.T) {
	for _, url := range []string{"http://10.0.0.1:80/", "https://127.0.0.1:80/", "http://example.org:80/", "http://127.0.0.1/"} {
		if _, err := newClient(url); err == nil {
			t.Errorf("%s was taken", url)
		}
	}
}
