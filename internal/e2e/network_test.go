package e2e

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// A weather is what a network does with connections.
type weather int

const (
	fair         weather = iota
	cut                  // connections are closed, new ones too
	losesAnswers         // what the caller sends arrives, nothing comes back, then the connection is closed
	silent               // bytes are swallowed in both directions, connections stay open
)

// A network stands between a caller and one listener, and can be made bad.
type network struct {
	address string // where callers connect
	target  string

	mu    sync.Mutex
	now   weather
	conns map[net.Conn]bool
}

// newNetwork listens in front of target until the test ends.
func newNetwork(t *testing.T, target string) *network {
	t.Helper()
	n := &network{address: freeAddress(t), target: target, conns: map[net.Conn]bool{}}
	l, err := net.Listen("tcp", n.address)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { n.carry(conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		n.turn(cut)
		serving.Wait()
	})
	return n
}

// turn changes the weather. Open connections feel it too.
func (n *network) turn(w weather) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.now = w
	if w == cut || w == fair { // what lost bytes cannot go on
		for c := range n.conns {
			_ = c.Close()
		}
	}
}

func (n *network) weather() weather {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.now
}

// keep remembers a connection, so that it can be cut, unless it is cut already.
func (n *network) keep(c net.Conn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.now == cut {
		return false
	}
	n.conns[c] = true
	return true
}

func (n *network) drop(c net.Conn) {
	_ = c.Close()
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, c)
}

func (n *network) carry(caller net.Conn) {
	defer n.drop(caller)
	listener, err := net.Dial("tcp", n.target)
	if err != nil {
		return
	}
	defer n.drop(listener)
	if !n.keep(caller) || !n.keep(listener) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() {
		n.pump(listener, caller, func(w weather) bool { return w != silent })
		n.drop(listener)
		n.drop(caller)
	})
	both.Go(func() {
		n.pump(caller, listener, func(w weather) bool { return w == fair })
		n.drop(listener)
		n.drop(caller)
	})
	both.Wait()
}

// pump copies while the weather lets bytes through, and swallows them otherwise. An answer that was lost ends its connection.
func (n *network) pump(to io.Writer, from io.Reader, passes func(weather) bool) {
	buf := make([]byte, 64<<10)
	for {
		k, err := from.Read(buf)
		w := n.weather()
		switch {
		case k > 0 && passes(w):
			if _, err := to.Write(buf[:k]); err != nil {
				return
			}
		case k > 0 && w == losesAnswers:
			return
		}
		if err != nil {
			return
		}
	}
}

// TestBadNetworkBetweenSidecars cuts, blinds and mutes the way between two sidecars under load. Nobody crashes, so no
// event may reach the app twice at all, marked or not.
func TestBadNetworkBetweenSidecars(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	order := newSidecar(t, settings{service: "order-service"})
	payment := newSidecar(t, settings{service: "payment-service", subscribe: []string{"order.*"}, appURL: app.url(), secret: appSecret})
	way := newNetwork(t, payment.peer)
	payment.settings.flags = []string{"--peer-advertise", "http://" + way.address}
	order.extraURL = []string{"http://" + way.address}
	order.start()
	payment.start()
	acquainted(t, order, "payment-service")
	p := newProducer(t, order)
	l := startLoad(p, "net", 5, 4*time.Millisecond)
	for i := range 9 {
		way.turn([]weather{losesAnswers, cut, silent}[i%3])
		wait(t.Context(), time.Duration(100+rand.IntN(200))*time.Millisecond)
		way.turn(fair)
		wait(t.Context(), time.Duration(100+rand.IntN(400))*time.Millisecond)
	}
	l.stop()
	hasDone(t, 30*time.Second, app, p.ledger.all())
	arrivals, seen := app.arrivals(), map[string]int{}
	for _, a := range arrivals {
		if seen[a.ID]++; seen[a.ID] == 2 {
			t.Errorf("%s came twice, marked: %v; its inbox had it all the time", a.ID, a.marked())
		}
	}
	story{subscriber: "payment-service", posted: append(p.ledger.all(), order.probes...), arrivals: arrivals, secret: appSecret}.check(t)
	t.Logf("%d events", len(arrivals))
	if st := status(t, order); len(st.Subscribers) != 1 || st.Subscribers[0].Dead != 0 {
		t.Errorf("subscribers: %+v", st.Subscribers)
	}
	appliedAt(p, fmt.Sprintf("net-%d-1", 1), "payment-service")
}
