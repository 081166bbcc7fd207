package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"testing"
	"time"
)

// A nodeApp is testdata/payment.mjs in a process of its own.
type nodeApp struct {
	address string
	mu      sync.Mutex
	lines   []nodeLine
}

// nodeLine is one line that the program printed; it says one of these things.
type nodeLine struct {
	Listening, Handled, Published, Repeat, Unhandled, BadSignature, Error string

	ID, Version, OrderID, CorrelationID, UserID, City string
	Total                                             float64
	Status                                            int
}

// startNode runs the program, or skips the test where Node.js is not installed.
func startNode(t *testing.T, secret, outboxURL string) *nodeApp {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed: the Node.js consumer is not tested")
	}
	app := &nodeApp{address: freeAddress(t)}
	cmd := exec.Command(node, "testdata/payment.mjs")
	cmd.Env = append(cleanEnv(), "APP_SECRET="+secret, "OUTBOX_URL="+outboxURL, "LISTEN="+app.address)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr := &lockedBuffer{}
	cmd.Stderr = stderr
	if err := startChild(cmd); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() { defer close(read); app.read(stdout) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-read
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("node printed %+v\nand said %s", app.printed(), stderr.String())
		}
	})
	app.waitFor(t, 10*time.Second, "listens", func(l nodeLine) bool { return l.Listening != "" })
	return app
}

func (a *nodeApp) url() string { return "http://" + a.address }

func (a *nodeApp) read(r io.Reader) {
	for in := bufio.NewScanner(r); in.Scan(); {
		var l nodeLine
		if err := json.Unmarshal(in.Bytes(), &l); err != nil {
			l.Error = fmt.Sprintf("%v in %s", err, in.Bytes())
		}
		a.mu.Lock()
		a.lines = append(a.lines, l)
		a.mu.Unlock()
	}
}

func (a *nodeApp) printed() []nodeLine {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]nodeLine(nil), a.lines...)
}

// waitFor returns the first line that fits.
func (a *nodeApp) waitFor(t *testing.T, within time.Duration, what string, fits func(nodeLine) bool) nodeLine {
	t.Helper()
	var found nodeLine
	eventually(t, within, "node "+what, func() error {
		for _, l := range a.printed() {
			if fits(l) {
				found = l
				return nil
			}
		}
		return fmt.Errorf("it printed %+v", a.printed())
	})
	return found
}

// lockedBuffer keeps what a process says while a test may read it.
type lockedBuffer struct {
	mu   sync.Mutex
	text []byte
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text = append(b.text, p...)
	return len(p), nil
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.text)
}
