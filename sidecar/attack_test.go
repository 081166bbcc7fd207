package sidecar

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/admin"
)

// connect opens a connection that ends with the test, and that nothing waits on for longer than limit.
func connect(t *testing.T, addr string, limit time.Duration) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestBrokenFraming(t *testing.T) {
	n, _ := start(t, testSettings(t))
	addr := n.AppAddrs()[0]
	const head = "POST /outbox HTTP/1.1\r\nHost: HOST\r\nContent-Type: application/json\r\nConnection: close\r\n"
	for _, r := range []refusal{
		{"two lengths", head + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400, ""},
		{"list of lengths", head + "Content-Length: 2, 3\r\n\r\n{}", 400, ""},
		{"signed length", head + "Content-Length: +2\r\n\r\n{}", 400, ""},
		{"negative length", head + "Content-Length: -1\r\n\r\n", 400, ""},
		{"length of 20 digits", head + "Content-Length: 99999999999999999999\r\n\r\n", 400, ""},
		{"hexadecimal length", head + "Content-Length: 0x2\r\n\r\n{}", 400, ""},
		{"gzip, chunked", head + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, ""},
		{"xchunked", head + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501, ""},
		{"chunk size ZZ", head + "Transfer-Encoding: chunked\r\n\r\nZZ\r\n{}\r\n0\r\n\r\n", 400, "truncated_body"},
		{"chunk of 2^64", head + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}\r\n0\r\n\r\n", 400, "truncated_body"},
		{"chunk without end", head + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}XX0\r\n\r\n", 400, "truncated_body"},
		{"chunk extension of 1 MB", head + "Transfer-Encoding: chunked\r\n\r\n2;" + strings.Repeat("x", 1<<20) + "\r\n{}\r\n0\r\n\r\n", 400, "truncated_body"},
		{"endless chunks", head + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("10000\r\n"+strings.Repeat(" ", 1<<16)+"\r\n", 20), 413, "too_large"},
		{"space before the colon", head + "X : 1\r\nContent-Length: 2\r\n\r\n{}", 400, ""},
		{"NUL in a value", head + "X: a\x00b\r\nContent-Length: 2\r\n\r\n{}", 400, ""},
		{"CR in a value", head + "X: a\rb\r\nContent-Length: 2\r\n\r\n{}", 400, ""},
		{"folded header", head + "X: a\r\n b\r\n: c\r\nContent-Length: 2\r\n\r\n{}", 400, ""},
		{"2,500 headers", head + strings.Repeat("X: y1\r\n", 2500) + "\r\n", 431, ""},
		{"long request line", "GET /" + strings.Repeat("x", 17<<10) + " HTTP/1.1\r\nHost: HOST\r\n\r\n", 431, ""},
		{"Expect something", head + "Expect: foo\r\nContent-Length: 2\r\n\r\n{}", 417, ""},
		{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 421, "wrong_host"},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n", 400, ""},
		{"HTTP/9.9", "GET /outbox HTTP/9.9\r\nHost: HOST\r\n\r\n", 505, ""},
		{"upgrade", request("GET /outbox HTTP/1.1", "Host: HOST", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"), 405, "method_not_allowed"},
		{"empty body", head + "Content-Length: 0\r\n\r\n", 400, "invalid_json"},
		{"gzip", head + "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", 415, "unsupported_encoding"},
		{"two content types", head + "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", 415, "unsupported_media_type"},
	} {
		r.check(t, addr)
	}
	if next := n.outbox.Counts().NextSeq; next != 1 {
		t.Errorf("next seq is %d after refusals only, want 1", next)
	}
}

// TestLengthAndChunks: what smugglers use. One request, never two.
func TestLengthAndChunks(t *testing.T) {
	n, _ := start(t, testSettings(t))
	chunked := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(good), good)
	c := connect(t, n.AppAddrs()[0], 5*time.Second)
	raw := "POST /outbox HTTP/1.1\r\nHost: " + n.AppAddrs()[0] + "\r\nContent-Type: application/json\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + chunked
	if _, err := io.WriteString(c, raw); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(c)
	if err != nil || strings.Count(string(answer), "HTTP/1.1 ") != 1 || n.outbox.Counts().NextSeq > 2 {
		t.Errorf("got %q, %v, next seq %d", answer, err, n.outbox.Counts().NextSeq)
	}
}

func TestPipelining(t *testing.T) {
	n, _ := start(t, testSettings(t))
	addr := n.AppAddrs()[0]
	c := connect(t, addr, 10*time.Second)
	const many = 50
	var all strings.Builder
	for i := range many {
		body := fmt.Sprintf(`{"id":"evt_%d","type":"order.created","data":%d}`, i, i)
		fmt.Fprintf(&all, "POST /outbox HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", addr, len(body), body)
	}
	if _, err := io.WriteString(c, all.String()); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(c)
	for i := range many {
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if want := fmt.Sprintf(`{"id":"evt_%d","seq":%d,`, i, i+1); err != nil || resp.StatusCode != 202 || !strings.HasPrefix(string(body), want) {
			t.Fatalf("answer %d is %d %s, %v", i, resp.StatusCode, body, err)
		}
	}
}

func TestExpectContinue(t *testing.T) {
	n, _ := start(t, testSettings(t))
	addr := n.AppAddrs()[0]
	c := connect(t, addr, 5*time.Second)
	fmt.Fprintf(c, "POST /outbox HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: %d\r\n\r\n", addr, len(good))
	answer := bufio.NewReader(c)
	if line, err := answer.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 100 ") {
		t.Fatalf("got %q, %v", line, err)
	}
	if _, err := io.WriteString(c, good); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(answer); err != nil || !strings.Contains(string(rest), "HTTP/1.1 202 ") {
		t.Errorf("got %q, %v", rest, err)
	}
}

// TestEarlyDisconnects: whoever goes in the middle leaves nothing behind, and the next one is served.
func TestEarlyDisconnects(t *testing.T) {
	n, _ := start(t, testSettings(t))
	addr := n.AppAddrs()[0]
	whole := strings.ReplaceAll(request("POST /outbox HTTP/1.1", "Host: HOST"), "HOST", addr)
	for cut := 0; cut <= len(whole); cut += 7 {
		c := connect(t, addr, 5*time.Second)
		if _, err := io.WriteString(c, whole[:cut]); err != nil {
			t.Fatal(err)
		}
		if cut%2 == 0 {
			_ = c.(*net.TCPConn).SetLinger(0) // a reset
		}
		_ = c.Close()
	}
	resp, body := exchange(t, addr, request("POST /outbox HTTP/1.1", "Host: HOST"))
	if resp.StatusCode/100 != 2 || n.outbox.Counts().NextSeq != 2 {
		t.Errorf("got %d %s, next seq %d: it must be there once", resp.StatusCode, body, n.outbox.Counts().NextSeq)
	}
}

// TestCrowds: more connections than a listener takes, none of which says anything, keep nobody out.
func TestCrowds(t *testing.T) {
	for _, row := range []struct {
		name string
		say  string // what each of them says first
	}{{"silent", ""}, {"after a request", "GET /outbox HTTP/1.1\r\nHost: HOST\r\n\r\n"}} {
		t.Run(row.name, func(t *testing.T) {
			n, _ := start(t, testSettings(t))
			addr := n.AppAddrs()[0]
			for range maxAppConns + 50 {
				c := connect(t, addr, 30*time.Second)
				if _, err := io.WriteString(c, strings.ReplaceAll(row.say, "HOST", addr)); err != nil {
					t.Fatal(err)
				}
			}
			began := time.Now()
			resp, body := exchange(t, addr, request("POST /outbox HTTP/1.1", "Host: HOST"))
			if took := time.Since(began); resp.StatusCode != 202 || took > 4500*time.Millisecond {
				t.Errorf("got %d %s after %v", resp.StatusCode, body, took)
			}
			if crowd := n.app.listeners[0].(*limited).crowd; len(crowd.slots) > maxAppConns {
				t.Errorf("%d connections at once", len(crowd.slots))
			}
		})
	}
}

// TestBusyConnectionsAreLeftAlone: making room closes no connection that is in the middle of something.
func TestBusyConnectionsAreLeftAlone(t *testing.T) {
	n, _ := start(t, testSettings(t))
	addr := n.AppAddrs()[0]
	var busy []net.Conn
	for range maxAppConns {
		c := connect(t, addr, 30*time.Second)
		fmt.Fprintf(c, "POST /outbox HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", addr, len(good), good[:5])
		busy = append(busy, c)
	}
	late := connect(t, addr, 30*time.Second)
	fmt.Fprintf(late, "GET /outbox HTTP/1.1\r\nHost: %s\r\n\r\n", addr)
	time.Sleep(3 * idleEnough)
	for _, c := range busy {
		if _, err := io.WriteString(c, good[5:]); err != nil {
			t.Fatal(err)
		}
	}
	for i, c := range busy {
		if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 20") {
			t.Fatalf("connection %d: got %q, %v", i, line, err)
		}
	}
	if line, err := bufio.NewReader(late).ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 405") {
		t.Errorf("who came late: got %q, %v", line, err)
	}
}

func TestStopWithDawdlingClients(t *testing.T) {
	c := testSettings(t)
	c.Shutdown.Timeout = 4 * time.Second
	n, stop := start(t, c)
	for _, addr := range []string{n.AppAddrs()[0], n.PeerAddrs()[0], n.AdminAddrs()[0]} {
		for _, raw := range []string{"", "POST /outbox HT", "POST /outbox HTTP/1.1\r\nHost: HOST\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"} {
			if _, err := io.WriteString(connect(t, addr, 30*time.Second), strings.ReplaceAll(raw, "HOST", addr)); err != nil {
				t.Fatal(err)
			}
		}
	}
	time.Sleep(50 * time.Millisecond)
	began := time.Now()
	stop()
	if took := time.Since(began); took > c.Shutdown.Timeout {
		t.Errorf("stopping took %v, more than %v", took, c.Shutdown.Timeout)
	}
	n, _ = start(t, c)
	if !n.store.CleanStart() {
		t.Error("clients that dawdle kept the store from being closed in order")
	}
}

func TestUnusedConnectionsDoNotHoldStoppingUp(t *testing.T) {
	n, stop := start(t, testSettings(t))
	for _, addr := range []string{n.AppAddrs()[0], n.PeerAddrs()[0], n.AdminAddrs()[0]} {
		connect(t, addr, 30*time.Second)
	}
	exchange(t, n.AppAddrs()[0], request("POST /outbox HTTP/1.1", "Host: HOST")) // the server has them all
	began := time.Now()
	stop()
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("stopping took %v", took)
	}
}

// TestStopUnderLoad: what was acknowledged while the node stopped is there afterwards.
func TestStopUnderLoad(t *testing.T) {
	c := testSettings(t)
	n, stop := start(t, c)
	url := "http://" + n.AppAddrs()[0] + "/outbox"
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	var mu sync.Mutex
	var acknowledged []string
	var load sync.WaitGroup
	for w := range 16 {
		load.Go(func() {
			for i := 0; ; i++ {
				id := fmt.Sprintf("evt_%d_%d", w, i)
				resp, err := client.Post(url, "application/json", strings.NewReader(`{"id":"`+id+`","type":"order.created","data":1}`))
				if err != nil {
					return
				}
				_ = resp.Body.Close()
				if resp.StatusCode == 202 {
					mu.Lock()
					acknowledged = append(acknowledged, id)
					mu.Unlock()
				}
			}
		})
	}
	time.Sleep(200 * time.Millisecond)
	began := time.Now()
	stop()
	took := time.Since(began)
	load.Wait()
	if took > 3*time.Second {
		t.Errorf("stopping took %v", took)
	}
	n, _ = start(t, c)
	if !n.store.CleanStart() || len(acknowledged) == 0 {
		t.Errorf("clean %t, %d acknowledged", n.store.CleanStart(), len(acknowledged))
	}
	for _, id := range acknowledged {
		if _, ok, err := n.outbox.Event(t.Context(), id); !ok || err != nil {
			t.Fatalf("%s was acknowledged and is not there: %v", id, err)
		}
	}
}

func TestRunsOnce(t *testing.T) {
	n, err := New(Config{Settings: testSettings(t)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if err := n.Run(ctx); err == nil {
		t.Error("a node ran twice")
	}
	for range 2 {
		if err := n.Close(); err != nil {
			t.Errorf("Close after Run: %v", err)
		}
	}
}

// TestNothingIsLeftBehind: a node that has stopped holds no goroutine and no file.
func TestNothingIsLeftBehind(t *testing.T) {
	files := func() int {
		open, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("this system does not list open files")
		}
		return len(open)
	}
	cycle := func() {
		c := testSettings(t)
		c.Peers = []string{"http://127.0.0.1:1"}
		n, stop := start(t, c)
		exchange(t, n.AppAddrs()[0], request("POST /outbox HTTP/1.1", "Host: HOST"))
		exchange(t, n.AdminAddrs()[0], get("/api/v1/status"))
		stop()
	}
	cycle() // what is made once for the process
	goroutines, fds := runtime.NumGoroutine(), files()
	for range 20 {
		cycle()
	}
	for end := time.Now().Add(3 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if runtime.NumGoroutine() <= goroutines && files() <= fds {
			return
		}
		if time.Now().After(end) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d files; before %d, %d\n%s", runtime.NumGoroutine(), files(), goroutines, fds, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// TestSocketOfSomebodyBusyIsKept: a socket that does not answer at once is not one that is left over.
func TestSocketOfSomebodyBusyIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	for range 3 { // until its queue is full
		if c, err := net.DialTimeout("unix", path, 50*time.Millisecond); err == nil {
			defer c.Close()
		}
	}
	if _, err := bindUnix("app", path); err == nil {
		t.Error("its place was taken")
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("its socket is gone: %v", err)
	}
}

func TestReadinessTellsOfEachPart(t *testing.T) {
	n, stop := start(t, testSettings(t))
	client, err := admin.NewClient("http://"+n.AdminAddrs()[0], "")
	if err != nil {
		t.Fatal(err)
	}
	status, err := client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for _, p := range status.Readiness.Parts {
		seen[p.Name] = p.State
	}
	for _, p := range n.parts() {
		if seen[p.name] != partRunning {
			t.Errorf("%s is %q, want running", p.name, seen[p.name])
		}
	}
	if seen["store"] != "ok" || seen["app"] != "none" {
		t.Errorf("parts are %v", seen)
	}
	stop()
	if r := (operations{n}).Readiness(); r.Ready || r.Parts[1].State != partStopped {
		t.Errorf("after stopping: %+v", r)
	}
}
