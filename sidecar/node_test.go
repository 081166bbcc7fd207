package sidecar

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/admin"
	"github.com/hooksidecar/hooksidecar/internal/config"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

// testSettings are those of a publisher on free ports, with its store and key in a directory of the test.
func testSettings(t *testing.T) config.Config {
	t.Helper()
	dir := t.TempDir()
	c := config.Defaults()
	c.Service, c.DataDir, c.Keys.Signing = "order-service", filepath.Join(dir, "data"), filepath.Join(dir, "order.key")
	c.App.Listen, c.Peer.Listen, c.Admin.Listen = "localhost:0", "localhost:0", "localhost:0"
	c.Store = config.Store{MinFreeBytes: -1, BallastBytes: -1, UnsafeFS: true}
	c.Shutdown.Timeout = 10 * time.Second
	return c
}

// start runs a node until the test ends, or until the function that it returns is called.
func start(t *testing.T, c config.Config) (n *Node, stop func()) {
	t.Helper()
	n, err := New(Config{Settings: c, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v, want nil after it was asked to stop", err)
		}
	}
	t.Cleanup(stop)
	return n, stop
}

func TestRestartKeepsWhatWasDecided(t *testing.T) {
	c := testSettings(t)
	c.App.URL = "http://127.0.0.1:1"
	c.App.Subscriptions = []config.Subscription{{Types: []string{"order.*", "!order.test"}, From: "latest", Retry: c.Retry}}
	n, stop := start(t, c)
	first, storeID := n.identity, n.store.ID()
	stop()
	if first.Instance == "" || first.Version != 1 || first.Since["order.*"].IsZero() {
		t.Fatalf("first identity is %+v", first)
	}

	c.Peer.Listen = n.PeerAddrs()[0]
	c.Peer.Advertise = "http://" + n.PeerAddrs()[0] // so that only what the test changes is new
	n, stop = start(t, c)
	second := n.identity
	if n.store.ID() != storeID || n.store.Boot() != 2 {
		t.Errorf("store %s boot %d, want %s boot 2", n.store.ID(), n.store.Boot(), storeID)
	}
	stop()
	if second.Instance != first.Instance || !second.Since["order.*"].Equal(first.Since["order.*"]) || second.Version != 1 {
		t.Errorf("second identity is %+v, want %+v", second, first)
	}

	c.App.Subscriptions[0].Types = []string{"order.*", "user.*", "!order.test"}
	n, stop = start(t, c)
	third := n.identity
	announced := third.subscriptions(c)
	stop()
	if third.Version != 2 || !third.Since["order.*"].Equal(first.Since["order.*"]) || !third.Since["user.*"].After(first.Since["order.*"]) {
		t.Errorf("third identity is %+v: want version 2, order.* as old as before, user.* younger", third)
	}
	if len(announced) != 2 || !slices.Equal(announced[0].Types, []string{"order.*", "!order.test"}) || !slices.Equal(announced[1].Types, []string{"user.*", "!order.test"}) {
		t.Errorf("announced %+v: want each pattern with its own since and all that is excluded", announced)
	}
}

func TestKeyIsMadeOnlyWhileAlone(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(*config.Config)
		made   bool
	}{
		{"alone", func(*config.Config) {}, true},
		{"loopback peer", func(c *config.Config) { c.Peers = []string{"http://localhost:9902", "http://127.0.0.2:1"} }, true},
		{"peer elsewhere", func(c *config.Config) { c.Peers = []string{"http://10.255.255.1:9902"} }, false},
		{"listening to others", func(c *config.Config) { c.Peer.Listen = ":0" }, false},
		{"known by a name", func(c *config.Config) { c.Peer.Advertise = "http://order.internal:9902" }, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := testSettings(t)
			row.change(&c)
			n, err := New(Config{Settings: c})
			if err == nil {
				err = n.Close()
			}
			if _, refused := errors.AsType[*config.Error](err); row.made && err != nil || !row.made && !refused {
				t.Errorf("got %v", err)
			}
			if _, err := os.Stat(c.Keys.Signing); (err == nil) != row.made {
				t.Errorf("key file: %v", err)
			}
			if _, err := os.Stat(c.DataDir); !row.made && err == nil {
				t.Error("a store was made before the key was refused")
			}
		})
	}
}

func TestNewGivesBackWhatItTook(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := testSettings(t)
	c.Admin.Listen = taken.Addr().String()
	_, err = New(Config{Settings: c})
	busy, ok := errors.AsType[*BusyError](err)
	if !ok || busy.Listener != "admin" || !strings.Contains(err.Error(), c.Admin.Listen) || !strings.Contains(err.Error(), "--port-base") {
		t.Fatalf("got %v, want a BusyError that names listener, port and fix", err)
	}
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	n, stop := start(t, c) // the store was closed again
	if !n.store.CleanStart() {
		t.Error("the store was not closed in order")
	}
	if _, err := New(Config{Settings: c}); !errors.Is(err, store.ErrLocked) {
		t.Errorf("second node on one directory: got %v, want ErrLocked", err)
	}
	stop()
}

func TestStopWhileStarting(t *testing.T) {
	n, err := New(Config{Settings: testSettings(t)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.Run(ctx); err != nil {
		t.Errorf("got %v, want nil", err)
	}
}

func TestStopIsBounded(t *testing.T) {
	c := testSettings(t)
	c.Shutdown.Timeout = 50 * time.Millisecond
	n, err := New(Config{Settings: c})
	if err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	stuck := loop("stuck", func(context.Context) error { <-release; return nil })
	stuck.start(func(error) {})
	began := time.Now()
	n.stop(t.Context(), []part{stuck})
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("stopping took %v", took)
	}
	close(release)
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

func TestPublishedEventIsFound(t *testing.T) {
	n, _ := start(t, testSettings(t))
	resp, body := exchange(t, n.AppAddrs()[0], request("POST /outbox HTTP/1.1", "Host: HOST"))
	if resp.StatusCode != 202 {
		t.Fatalf("got %d %s", resp.StatusCode, body)
	}
	client, err := admin.NewClient("http://"+n.AdminAddrs()[0], "")
	if err != nil {
		t.Fatal(err)
	}
	e, err := client.Event(t.Context(), "", "evt_1")
	if err != nil || len(e.Published) != 1 || e.Published[0].Seq != 1 || e.Published[0].Source != "order-service" {
		t.Errorf("got %+v, %v, want seq 1 of order-service", e, err)
	}
	if _, err := client.Event(t.Context(), "payment-service", "evt_1"); err == nil {
		t.Error("the event is found under another source")
	}
	s, err := client.Status(t.Context())
	if err != nil || s.Outbox.NextSeq != 2 || s.Outbox.Events != 1 || !s.Readiness.Ready {
		t.Errorf("status is %+v, %v", s, err)
	}
}

func TestUnixListeners(t *testing.T) {
	c := testSettings(t)
	dir, err := os.MkdirTemp("", "hs") // a short path: sockets allow no long ones
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	c.App.Listen, c.Admin.Listen = "unix:"+dir+"/app", "unix:"+dir+"/admin"
	n, stop := start(t, c)
	app, err := admin.NewEndpoint(n.AppAddrs()[0], "")
	if err != nil {
		t.Fatal(err)
	}
	if err := app.Do(t.Context(), http.MethodPost, "/outbox", nil, []byte(good), nil); err != nil {
		t.Error(err)
	}
	if err := app.Do(t.Context(), http.MethodPost, "/outbox", http.Header{"Origin": {"http://evil"}}, []byte(good), nil); err == nil {
		t.Error("a browser's request was taken")
	}
	client, err := admin.NewClient(n.AdminAddrs()[0], "")
	if err != nil {
		t.Fatal(err)
	}
	if s, err := client.Status(t.Context()); err != nil || s.Outbox.NextSeq != 2 {
		t.Errorf("status is %+v, %v", s.Outbox, err)
	}
	stop()
	if _, err := os.Stat(dir + "/app"); err == nil {
		t.Error("the socket is still there after the end")
	}
}

// TestPublishingOutlivesTheOtherParts: an app that stops together with its sidecar can still publish while the rest is stopping.
func TestPublishingOutlivesTheOtherParts(t *testing.T) {
	n, err := New(Config{Settings: testSettings(t)})
	if err != nil {
		t.Fatal(err)
	}
	parts := n.parts()
	if parts[0].name != "app listener" {
		t.Fatalf("the first part is %s", parts[0].name)
	}
	published := 0
	probe := part{name: "probe", start: func(func(error)) {}, stop: func(context.Context) error { // stopped after all but the app listener
		resp, _ := exchange(t, n.AppAddrs()[0], request("POST /outbox HTTP/1.1", "Host: HOST"))
		published = resp.StatusCode
		return nil
	}}
	parts = slices.Insert(parts, 1, probe)
	for _, p := range parts {
		p.start(func(err error) { t.Error(err) })
	}
	n.stop(t.Context(), parts)
	if published != http.StatusAccepted {
		t.Errorf("publishing while stopping: got %d, want 202", published)
	}
	if _, err := net.Dial("tcp", n.AppAddrs()[0]); err == nil {
		t.Error("the app listener is still there after the end")
	}
}
