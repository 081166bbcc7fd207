package sidecar

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// exchange writes raw bytes to addr, in which HOST stands for addr, and returns the answer.
func exchange(t *testing.T, addr, raw string) (*http.Response, string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, strings.ReplaceAll(raw, "HOST", addr)); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(raw, " ")
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%.200q: %v", raw, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%.200q: %v", raw, err)
	}
	return resp, string(body)
}

func codeOf(body string) string {
	var p struct{ Code string }
	_ = json.Unmarshal([]byte(body), &p) // no problem has no code
	return p.Code
}

const good = `{"id":"evt_1","type":"order.created","data":{}}`

// request writes a POST of an event with more header lines.
func request(line string, headers ...string) string {
	return line + "\r\n" + strings.Join(append(headers, "Content-Type: application/json", fmt.Sprintf("Content-Length: %d", len(good)), "Connection: close"), "\r\n") + "\r\n\r\n" + good
}

type refusal struct {
	name, raw string
	status    int
	code      string // "": the answer is the HTTP server's own
}

func (r refusal) check(t *testing.T, addr string) {
	t.Run(r.name, func(t *testing.T) {
		resp, body := exchange(t, addr, r.raw)
		if resp.StatusCode != r.status || codeOf(body) != r.code {
			t.Errorf("got %d %q, want %d %q", resp.StatusCode, body, r.status, r.code)
		}
		for name := range resp.Header {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("got header %s: there must never be CORS", name)
			}
		}
		if r.status == http.StatusMethodNotAllowed && resp.Header.Get("Allow") == "" {
			t.Error("got 405 without Allow")
		}
	})
}

func TestAppListenerRefuses(t *testing.T) {
	n, _ := start(t, testSettings(t))
	addr := n.AppAddrs()[0]
	_, port, _ := net.SplitHostPort(addr)
	for _, r := range []refusal{
		{"no Host", request("POST /outbox HTTP/1.1"), 400, ""},
		{"two Hosts", request("POST /outbox HTTP/1.1", "Host: HOST", "Host: HOST"), 400, ""},
		{"other Host", request("POST /outbox HTTP/1.1", "Host: evil.example:"+port), 421, "wrong_host"},
		{"empty Host", request("POST /outbox HTTP/1.1", "Host:"), 421, "wrong_host"},
		{"HTTP/1.0 without Host", request("POST /outbox HTTP/1.0"), 421, "wrong_host"},
		{"suffix", request("POST /outbox HTTP/1.1", "Host: localhost.evil.example:"+port), 421, "wrong_host"},
		{"trailing dot", request("POST /outbox HTTP/1.1", "Host: localhost.:"+port), 421, "wrong_host"},
		{"capitals", request("POST /outbox HTTP/1.1", "Host: LOCALHOST:"+port), 421, "wrong_host"},
		{"other port", request("POST /outbox HTTP/1.1", "Host: localhost:1"), 421, "wrong_host"},
		{"no port", request("POST /outbox HTTP/1.1", "Host: localhost"), 421, "wrong_host"},
		{"absolute target", request("POST http://evil.example/outbox HTTP/1.1", "Host: HOST"), 421, "wrong_host"},
		{"absolute target of ours", request("POST http://HOST/outbox HTTP/1.1", "Host: HOST"), 421, "wrong_host"},
		{"CONNECT", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nConnection: close\r\n\r\n", 421, "wrong_host"},
		{"Origin null", request("POST /outbox HTTP/1.1", "Host: HOST", "Origin: null"), 403, "browser_request"},
		{"own Origin", request("POST /outbox HTTP/1.1", "Host: HOST", "Origin: http://HOST"), 403, "browser_request"},
		{"empty Origin", request("POST /outbox HTTP/1.1", "Host: HOST", "Origin:"), 403, "browser_request"},
		{"Sec-Fetch-Site", request("POST /outbox HTTP/1.1", "Host: HOST", "Sec-Fetch-Site: same-origin"), 403, "browser_request"},
		{"preflight", request("OPTIONS /outbox HTTP/1.1", "Host: HOST", "Origin: http://a", "Access-Control-Request-Method: POST"), 403, "browser_request"},
		{"rebound page", request("POST /outbox HTTP/1.1", "Host: evil.example:"+port, "Origin: http://evil.example:"+port, "Sec-Fetch-Site: same-origin"), 421, "wrong_host"},
		{"GET", request("GET /outbox HTTP/1.1", "Host: HOST"), 405, "method_not_allowed"},
		{"PUT", request("PUT /outbox HTTP/1.1", "Host: HOST"), 405, "method_not_allowed"},
		{"TRACE", request("TRACE /outbox HTTP/1.1", "Host: HOST"), 405, "method_not_allowed"},
		{"OPTIONS", request("OPTIONS /outbox HTTP/1.1", "Host: HOST"), 405, "method_not_allowed"},
		{"OPTIONS *", request("OPTIONS * HTTP/1.1", "Host: HOST"), 404, "not_found"},
		{"slash at the end", request("POST /outbox/ HTTP/1.1", "Host: HOST"), 404, "not_found"},
		{"two slashes", request("POST //outbox HTTP/1.1", "Host: HOST"), 404, "not_found"},
		{"dots", request("POST /x/../outbox HTTP/1.1", "Host: HOST"), 404, "not_found"},
		{"escaped", request("POST /%6futbox HTTP/1.1", "Host: HOST"), 404, "not_found"},
		{"escaped slash", request("GET /outbox%2Fevents/evt_1 HTTP/1.1", "Host: HOST"), 404, "not_found"},
		{"no id", request("GET /outbox/events/ HTTP/1.1", "Host: HOST"), 404, "not_found"},
		{"nothing there", request("GET / HTTP/1.1", "Host: HOST"), 404, "not_found"},
		{"admin path", request("GET /metrics HTTP/1.1", "Host: HOST"), 404, "not_found"},
		{"text", "POST /outbox HTTP/1.1\r\nHost: HOST\r\nContent-Type: text/plain\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}", 415, "unsupported_media_type"},
		{"headers over 16 KiB", "POST /outbox HTTP/1.1\r\nHost: HOST\r\nX: " + strings.Repeat("x", 16<<10) + "\r\n\r\n", 431, ""},
		{"too large", "POST /outbox HTTP/1.1\r\nHost: HOST\r\nContent-Type: application/json\r\nContent-Length: 1000000000\r\n\r\n", 413, "too_large"},
	} {
		r.check(t, addr)
	}
	if next := n.outbox.Counts().NextSeq; next != 1 {
		t.Errorf("next seq is %d after refusals only, want 1", next)
	}
}

func TestAppListenerTakes(t *testing.T) {
	n, _ := start(t, testSettings(t))
	for _, addr := range n.AppAddrs() {
		_, port, _ := net.SplitHostPort(addr)
		for i, host := range []string{"localhost:" + port, "127.0.0.1:" + port, "[::1]:" + port} {
			body := fmt.Sprintf(`{"type":"order.created","data":%d}`, i)
			resp, text := exchange(t, addr, fmt.Sprintf("POST /outbox HTTP/1.1\r\nHost: %s\r\nSec-Fetch-Mode: cors\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", host, len(body), body))
			if resp.StatusCode != 202 {
				t.Errorf("%s as %s: got %d %s, want 202", addr, host, resp.StatusCode, text)
			}
		}
	}
}

func TestPeerListener(t *testing.T) {
	n, _ := start(t, testSettings(t))
	for _, r := range []refusal{
		{"Origin", request("POST /inbox HTTP/1.1", "Host: HOST", "Origin: http://HOST"), 403, "browser_request"},
		{"unsigned", request("POST /inbox HTTP/1.1", "Host: HOST"), 401, "missing_signature"},
		{"no question of another instance", request("POST /peer/v1/known HTTP/1.1", "Host: HOST"), 415, "unsupported_media_type"},
		{"any Host", request("POST /inbox HTTP/1.1", "Host: payment.internal"), 401, "missing_signature"},
		{"GET", request("GET /inbox HTTP/1.1", "Host: HOST"), 405, "method_not_allowed"},
		{"slashes", request("POST //inbox HTTP/1.1", "Host: HOST"), 404, "not_found"},
		{"app path", request("POST /outbox HTTP/1.1", "Host: HOST"), 404, "not_found"},
	} {
		r.check(t, n.PeerAddrs()[0])
	}
	if resp, body := exchange(t, n.PeerAddrs()[0], "GET /peer/v1/descriptor HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); resp.StatusCode != 200 {
		t.Errorf("descriptor: got %d %s", resp.StatusCode, body)
	}
}

func get(line string, headers ...string) string {
	return "GET " + line + " HTTP/1.1\r\n" + strings.Join(append(headers, "Host: HOST", "Connection: close"), "\r\n") + "\r\n\r\n"
}

func TestAdminListenerRefuses(t *testing.T) {
	n, _ := start(t, testSettings(t))
	addr := n.AdminAddrs()[0]
	const letter = "/api/v1/dead-letters/dl_00000000000000000000000000000000"
	for _, r := range []refusal{
		{"other Host", "GET /metrics HTTP/1.1\r\nHost: evil\r\nConnection: close\r\n\r\n", 421, "wrong_host"},
		{"other Origin", get("/api/v1/status", "Origin: http://evil"), 403, "browser_request"},
		{"cross-site", get("/api/v1/status", "Sec-Fetch-Site: cross-site"), 403, "browser_request"},
		{"same-site", get("/api/v1/status", "Sec-Fetch-Site: same-site"), 403, "browser_request"},
		{"nothing", get("/api/v1/nothing"), 404, "not_found"},
		{"profiles", get("/debug/pprof/"), 404, "not_found"},
		{"POST to a GET route", request("POST /api/v1/status HTTP/1.1", "Host: HOST"), 405, "method_not_allowed"},
		{"GET of a POST route", get(letter + "/replay"), 405, "method_not_allowed"},
		{"unknown parameter", get("/api/v1/dead-letters?colour=red"), 400, "invalid_field"},
		{"repeated parameter", get("/api/v1/dead-letters?side=inbox&side=outbox"), 400, "invalid_field"},
		{"parameter where none is", get("/api/v1/status?x=1"), 400, "invalid_field"},
		{"limit 0", get("/api/v1/dead-letters?limit=0"), 400, "invalid_field"},
		{"limit -1", get("/api/v1/dead-letters?limit=-1"), 400, "invalid_field"},
		{"limit +1", get("/api/v1/dead-letters?limit=%2B1"), 400, "invalid_field"},
		{"limit abc", get("/api/v1/dead-letters?limit=abc"), 400, "invalid_field"},
		{"limit 1e3", get("/api/v1/dead-letters?limit=1e3"), 400, "invalid_field"},
		{"limit empty", get("/api/v1/dead-letters?limit="), 400, "invalid_field"},
		{"limit 1001", get("/api/v1/dead-letters?limit=1001"), 400, "invalid_field"},
		{"side", get("/api/v1/dead-letters?side=left"), 400, "invalid_field"},
		{"state", get("/api/v1/dead-letters?state=lost"), 400, "invalid_field"},
		{"type", get("/api/v1/dead-letters?type=a."), 400, "invalid_field"},
		{"after", get("/api/v1/dead-letters?after=garbage"), 400, "invalid_field"},
		{"letter", get(letter), 404, "not_found"},
		{"letter that cannot be", get("/api/v1/dead-letters/garbage"), 404, "not_found"},
		{"replay", request("POST "+letter+"/replay HTTP/1.1", "Host: HOST"), 404, "not_found"},
		{"replay by a form", "POST " + letter + "/replay HTTP/1.1\r\nHost: HOST\r\nContent-Type: text/plain\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", 415, "unsupported_media_type"},
		{"resume without a type", "POST /api/v1/inbox/resume HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", 415, "unsupported_media_type"},
		{"event", get("/api/v1/events/evt_absent"), 404, "not_found"},
		{"event with NUL", get("/api/v1/events/%00"), 400, "invalid_field"},
		{"event of 10 kB", get("/api/v1/events/" + strings.Repeat("x", 10_000)), 400, "invalid_field"},
		{"resume", request("POST /api/v1/inbox/resume?accept=maybe HTTP/1.1", "Host: HOST"), 400, "invalid_field"},
	} {
		r.check(t, addr)
	}
}

func TestAdminListenerAnswers(t *testing.T) {
	n, _ := start(t, testSettings(t))
	addr := n.AdminAddrs()[0]
	for _, raw := range []string{get("/api/v1/status"), get("/api/v1/peers"), get("/api/v1/subscribers"), get("/api/v1/dead-letters?limit=1&side=inbox"),
		get("/readyz"), get("/healthz"), get("/api/v1/status", "Origin: http://HOST", "Sec-Fetch-Site: same-origin"),
		strings.Replace(get("/healthz"), "GET", "HEAD", 1)} {
		if resp, body := exchange(t, addr, raw); resp.StatusCode != 200 {
			t.Errorf("%q: got %d %s, want 200", raw, resp.StatusCode, body)
		}
	}
	resp, body := exchange(t, addr, get("/metrics"))
	if got, want := resp.Header.Get("Content-Type"), "text/plain; version=0.0.4; charset=utf-8"; got != want {
		t.Errorf("metrics are %q, want %q", got, want)
	}
	for _, name := range []string{`hooksidecar_info{service="order-service",version="test"} 1`, "process_resident_memory_bytes", "process_open_fds", "hooksidecar_http_panics_total"} {
		if !strings.Contains(body, name) {
			t.Errorf("metrics lack %s", name)
		}
	}
}

func TestProfilesAreServedOnRequest(t *testing.T) {
	c := testSettings(t)
	c.Admin.Pprof = true
	n, _ := start(t, c)
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/goroutine?debug=1", "/debug/pprof/cmdline"} {
		if resp, body := exchange(t, n.AdminAddrs()[0], get(path)); resp.StatusCode != 200 {
			t.Errorf("%s: got %d %.100s", path, resp.StatusCode, body)
		}
	}
}

func TestTokens(t *testing.T) {
	c := testSettings(t)
	c.Admin.Tokens = []string{"old-token-0123456789", "new-token-0123456789"}
	n, _ := start(t, c)
	for _, r := range []refusal{
		{"none", get("/metrics"), 401, "unauthorized"},
		{"wrong", get("/metrics", "Authorization: Bearer new-token-012345678X"), 401, "unauthorized"},
		{"prefix", get("/metrics", "Authorization: Bearer new-token"), 401, "unauthorized"},
		{"longer", get("/metrics", "Authorization: Bearer new-token-0123456789x"), 401, "unauthorized"},
		{"scheme", get("/metrics", "Authorization: Basic new-token-0123456789"), 401, "unauthorized"},
		{"two", get("/metrics", "Authorization: Bearer new-token-0123456789", "Authorization: Bearer new-token-0123456789"), 400, "duplicate_header"},
		{"what is there", get("/nothing"), 401, "unauthorized"},
		{"old", get("/metrics", "Authorization: Bearer old-token-0123456789"), 200, ""},
		{"new", get("/metrics", "authorization: bearer new-token-0123456789"), 200, ""},
		{"health", get("/healthz"), 200, ""},
		{"readiness", get("/readyz"), 200, ""},
	} {
		r.check(t, n.AdminAddrs()[0])
	}
	refusal{"app", request("POST /outbox HTTP/1.1", "Host: HOST"), 401, "unauthorized"}.check(t, n.AppAddrs()[0])
	refusal{"app with token", request("POST /outbox HTTP/1.1", "Host: HOST", "Authorization: Bearer new-token-0123456789"), 202, ""}.check(t, n.AppAddrs()[0])
}
