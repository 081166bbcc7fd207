package inbox

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/deadletter"
	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

// image copies the store as it is after a group that was synced, which is what a crash at that moment leaves. It calls
// meanwhile on the committer's goroutine, so that nothing more becomes durable before that returns.
func (n *node) image(dir string, meanwhile func()) error {
	copied := make(chan error, 1)
	n.store.Enqueue(store.Op{Class: store.Lazy, Done: func(err error) {
		meanwhile()
		copied <- errors.Join(err, copyDir(n.dir, dir))
	}})
	return <-copied
}

// copyDir copies the beginnings of files, up to the last byte that is not zero: logs of the store are set aside in full.
func copyDir(from, to string) error {
	return filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		if filepath.Base(path) == "LOCK" {
			return nil
		}
		return copySparse(path, filepath.Join(to, rel))
	})
}

func copySparse(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	zero := make([]byte, len(buf))
	for at := int64(0); at < info.Size(); {
		k, err := in.ReadAt(buf, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if string(buf[:k]) != string(zero[:k]) {
			if _, err := out.WriteAt(buf[:k], at); err != nil {
				return err
			}
		}
		at += int64(k)
	}
	return out.Truncate(info.Size())
}

// TestCrashBetweenGroups sends events of several keys through two logs, in part twice, to an app that fails now and then,
// and takes an image of the store at random moments. An inbox on that image must forward what was answered stored, mark
// what the app had got before, keep the order of keys, and never claim too much to the sender.
func TestCrashBetweenGroups(t *testing.T) {
	seeds := uint64(2)
	if s := os.Getenv("CRASH_SEEDS"); s != "" {
		_, _ = fmt.Sscan(s, &seeds)
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { crashBetweenGroups(t, rand.New(rand.NewPCG(seed, 1))) })
	}
}

const crashEvents, crashKeys = 150, 7

// outcomeOf says how the app answers an event: most are taken at once, some fail first, some always.
func outcomeOf(c call, random func() float64) int {
	switch c.header.Get("X-Event-Type") {
	case "order.refused":
		return 422
	case "order.failing":
		return 500
	case "order.shaky":
		if random() < 0.5 {
			return []int{500, 503, 429, 502}[int(random()*4)]
		}
	}
	return 200
}

func crashEvent(i int) event.Event {
	e := newEvent(fmt.Sprintf("evt_%d", i), "")
	if i%3 != 0 {
		e.Key = fmt.Sprint("k", i%crashKeys)
	}
	switch i % 11 {
	case 3:
		e.Type = "order.refused"
	case 5:
		e.Type = "order.failing"
	case 1, 7:
		e.Type = "order.shaky"
	}
	return e
}

func crashBetweenGroups(t *testing.T, random *rand.Rand) {
	var mu sync.Mutex
	roll := func() float64 { mu.Lock(); defer mu.Unlock(); return random.Float64() }
	answers := func(c call) (*http.Response, error) {
		time.Sleep(time.Duration(roll() * float64(3*time.Millisecond)))
		return reply(outcomeOf(c, roll))
	}
	n := newNode(t, quick(3), func(c *Config) { c.App.Concurrency = 8 })
	n.app.answers(answers)
	n.in.f.window = 40
	n.run()
	acked := map[string]bool{} // of the goroutine that delivers, guarded by mu
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		first, second := n.party, event.Party{Service: them, Instance: "order-2", StoreID: "st_orders_2"}
		for at := 1; at <= crashEvents; {
			var ds []event.Delivery
			for range 1 + int(roll()*12) {
				if at > crashEvents {
					break
				}
				ds = append(ds, deliveryOf(uint64(at), crashEvent(at)))
				at++
			}
			n.party = first
			a := n.deliver(ds...)
			mu.Lock()
			for i, v := range verdicts(a) {
				if v == event.Stored {
					acked[crashEvent(int(ds[i].Seq)).ID] = true
				}
			}
			mu.Unlock()
			if roll() < 0.4 { // some of them through another log too
				n.party = second
				for i := range ds {
					ds[i].Seq += 1000
				}
				n.deliver(ds...)
			}
			if roll() < 0.5 {
				n.in.Resume(roll() < 0.5)
			}
			for _, l := range n.letters() {
				if roll() < 0.2 {
					_ = n.in.ReplayLetter(t.Context(), l.ID)
				}
			}
			time.Sleep(time.Duration(roll() * float64(8*time.Millisecond)))
		}
	}()
	var images []string
	type known struct {
		acked map[string]bool
		calls []call
	}
	var before []known
	for done := false; !done; {
		time.Sleep(time.Duration(roll() * float64(60*time.Millisecond)))
		dir := t.TempDir()
		err := n.image(dir, func() {
			mu.Lock()
			k := known{acked: maps.Clone(acked)}
			mu.Unlock()
			k.calls = n.app.got()
			before = append(before, k)
		})
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, dir)
		select {
		case <-sent:
			done = true
		default:
		}
	}
	n.stop()
	for i, dir := range images {
		checkImage(t, n, i, dir, before[i].acked, before[i].calls, answers)
	}
}

func checkImage(t *testing.T, n *node, at int, dir string, acked map[string]bool, calls []call, answers func(call) (*http.Response, error)) {
	t.Helper()
	m := *n
	m.dir, m.app, m.cancel = dir, &fakeApp{}, nil
	m.cfg.Transport = m.app
	m.app.answers(answers)
	m.open()
	defer m.stop()
	m.in.f.window = 40
	unsettled := func() uint64 { // the lowest seq of the first log that is not settled
		for i := 1; i <= crashEvents; i++ {
			st, ok, err := m.in.Event(t.Context(), them, crashEvent(i).ID)
			if err != nil {
				t.Fatal(err)
			}
			if !ok || st.State == StateReceived || st.State == StateWaiting {
				return uint64(i)
			}
		}
		return crashEvents + 1
	}
	m.party = event.Party{Service: them, Instance: "order-1", StoreID: "st_orders"}
	ask := func(when string) {
		if len(acked) == 0 {
			return
		}
		a := m.deliver(deliveryOf(1, crashEvent(1)))
		// Asked after the answer: what is unsettled now was so then.
		if low := unsettled(); a.Applied >= low {
			t.Errorf("image %d, %s: applied %d, but event %d is unsettled", at, when, a.Applied, low)
		}
	}
	ask("at start")
	m.run()
	m.until("all are settled", func() bool { ask("while forwarding"); m.in.Resume(true); return m.drained() })
	had := map[string]bool{}
	for _, c := range calls {
		had[c.id] = true
	}
	lettered := map[string]bool{}
	for _, l := range m.letters() {
		if l.State == deadletter.Replaying {
			t.Errorf("image %d: letter of %s is %s at the end", at, l.EventID, l.State)
		}
		lettered[l.EventID] = true
	}
	again := map[string]bool{}
	for _, c := range m.app.got() {
		if (had[c.id] || again[c.id]) && c.header.Get(headerRedelivered) != "true" {
			t.Errorf("image %d: %s is repeated unmarked", at, c.id)
		}
		again[c.id] = true
	}
	for id := range acked {
		if !had[id] && !again[id] && !lettered[id] {
			t.Errorf("image %d: %s was answered stored and is gone", at, id)
		}
	}
	last := map[string]int{}
	seen := map[string]bool{}
	for _, c := range slices.Concat(calls, m.app.got()) {
		var i int
		_, _ = fmt.Sscanf(c.id, "evt_%d", &i)
		key := crashEvent(i).Key
		if key == "" || seen[c.id] {
			continue
		}
		seen[c.id] = true
		if i < last[key] {
			t.Errorf("image %d: the first forward of event %d came after that of %d of its key", at, i, last[key])
		}
		last[key] = i
	}
	if got := m.store.Live(exceptionPrefix); got != 0 {
		t.Errorf("image %d: %d records of unsettled events are left", at, got)
	}
}
