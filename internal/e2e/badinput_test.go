package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A badInput is a request that must be refused, or one at the edge that must not be.
type badInput struct {
	name    string
	request request
	raw     string   // instead of request: the bytes; HOST stands for the address
	then    sequel   // what the client does after the bytes
	status  []int    // any of these; closedSilently counts
	code    string   // "": not checked (the answer is the HTTP server's own)
	header  []string // names that the answer must have
}

// A sequel is what a client does after it sent its bytes.
type sequel int

const (
	listens sequel = iota
	hangsUp        // ends its side of the connection
	dribbles
)

const goodBody = `{"id":"$ID","type":"order.created","data":{"n":1}}`

// framing is what every listener must refuse, whatever is behind the path.
func framing(path string) []badInput {
	long := strings.Repeat("a", 40<<10)
	post := func(headers ...string) request { return request{headers: headers, body: goodBody} }
	return []badInput{
		{name: "no Host", request: post("-Host"), status: []int{400}},
		{name: "two Hosts", request: post("Host: HOST"), status: []int{400}},
		{name: "two lengths", request: post("Content-Length: 1"), status: []int{400}},
		{name: "length 2, 2", request: post("-Content-Length", "Content-Length: 2, 2"), status: []int{400}},
		{name: "length +2", request: post("-Content-Length", "Content-Length: +2"), status: []int{400}},
		{name: "length -1", request: post("-Content-Length", "Content-Length: -1"), status: []int{400}},
		{name: "length of 20 digits", request: post("-Content-Length", "Content-Length: 99999999999999999999"), status: []int{400}},
		{name: "length 0x2", request: post("-Content-Length", "Content-Length: 0x2"), status: []int{400}},
		{name: "unknown transfer encoding", request: post("-Content-Length", "Transfer-Encoding: gzip, chunked"), status: []int{501}},
		{name: "misspelt transfer encoding", request: post("-Content-Length", "Transfer-Encoding: xchunked"), status: []int{501}},
		{name: "chunk size ZZ", request: request{headers: []string{"-Content-Length", "Transfer-Encoding: chunked"}, body: "ZZ\r\n{}\r\n0\r\n\r\n"}, status: []int{400}},
		{name: "chunks cut off", request: request{headers: []string{"-Content-Length", "Transfer-Encoding: chunked"}, body: "5\r\n{\"id"}, then: hangsUp, status: []int{400}, code: "truncated_body"},
		{name: "body cut off", request: request{headers: []string{"-Content-Length", "Content-Length: 500"}, body: goodBody}, then: hangsUp, status: []int{400}, code: "truncated_body"},
		{name: "body that stops", request: request{headers: []string{"-Content-Length", "Content-Length: 500"}, body: goodBody}, status: []int{408}, code: "body_timeout"},
		{name: "headers that drip", raw: "POST " + path + " HTTP/1.1\r\nHost: HOST\r\n", then: dribbles, status: []int{closedSilently, 400, 408}},
		{name: "space before colon", request: post("X : 1"), status: []int{400}},
		{name: "NUL in a header", request: post("X: a\x00b"), status: []int{400}},
		{name: "CR in a header", request: post("X: a\rb"), status: []int{400}},
		{name: "long header", request: post("X: " + long), status: []int{431}},
		{name: "many headers", request: post(slices.Repeat([]string{"X-Nothing: 1234567"}, 2500)...), status: []int{431}},
		{name: "long request line", request: request{line: "POST " + path + "?" + long + " HTTP/1.1", body: goodBody}, status: []int{414, 431}},
		{name: "GET", request: request{line: "GET " + path + " HTTP/1.1", headers: []string{"-Content-Length"}}, status: []int{405}, code: "method_not_allowed", header: []string{"Allow"}},
		{name: "PUT", request: request{line: "PUT " + path + " HTTP/1.1", body: goodBody}, status: []int{405}, code: "method_not_allowed", header: []string{"Allow"}},
		{name: "DELETE", request: request{line: "DELETE " + path + " HTTP/1.1"}, status: []int{405}, code: "method_not_allowed"},
		{name: "PATCH", request: request{line: "PATCH " + path + " HTTP/1.1", body: goodBody}, status: []int{405}, code: "method_not_allowed"},
		{name: "TRACE", request: request{line: "TRACE " + path + " HTTP/1.1"}, status: []int{405}, code: "method_not_allowed"},
		{name: "CONNECT", request: request{line: "CONNECT a:1 HTTP/1.1"}, status: []int{400, 404, 405, 421}},
		{name: "slash at the end", request: request{line: "POST " + path + "/ HTTP/1.1", body: goodBody}, status: []int{404}, code: "not_found"},
		{name: "two slashes", request: request{line: "POST /" + path + " HTTP/1.1", body: goodBody}, status: []int{404, 421}},
		{name: "dots in the path", request: request{line: "POST /x/.." + path + " HTTP/1.1", body: goodBody}, status: []int{404}, code: "not_found"},
		{name: "escaped path", request: request{line: "POST " + strings.Replace(path, "o", "%6f", 1) + " HTTP/1.1", body: goodBody}, status: []int{404}, code: "not_found"},
		{name: "path in capitals", request: request{line: "POST " + strings.ToUpper(path) + " HTTP/1.1", body: goodBody}, status: []int{404}, code: "not_found"},
		{name: "HTTP/2 preface", raw: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", status: []int{closedSilently, 400, 404, 421, 505}},
		{name: "TLS hello", raw: "\x16\x03\x01\x00\xc4\x01\x00\x00\xc0\x03\x03" + strings.Repeat("\x7f", 60) + "\r\n\r\n", status: []int{400, closedSilently}},
		{name: "no HTTP at all", raw: "hello\r\n\r\n", status: []int{400}},
		{name: "HTTP/3.7", request: request{line: "POST " + path + " HTTP/3.7", body: goodBody}, status: []int{400, 505}},
		{name: "Expect: foo", request: post("Expect: foo"), status: []int{417}},
		{name: "no type", request: post("-Content-Type"), status: []int{415}, code: "unsupported_media_type"},
		{name: "text/plain", request: post("-Content-Type", "Content-Type: text/plain"), status: []int{415}, code: "unsupported_media_type"},
		{name: "a form", request: post("-Content-Type", "Content-Type: application/x-www-form-urlencoded"), status: []int{415}, code: "unsupported_media_type"},
		{name: "another charset", request: post("-Content-Type", "Content-Type: application/json; charset=iso-8859-1"), status: []int{415}, code: "unsupported_media_type"},
		{name: "gzip", request: post("Content-Encoding: gzip"), status: []int{415}, code: "unsupported_encoding"},
		{name: "identity, gzip", request: post("Content-Encoding: identity, gzip"), status: []int{415}, code: "unsupported_encoding"},
		{name: "a length of a gigabyte", request: request{headers: []string{"-Content-Length", "Content-Length: 1000000000"}}, status: []int{413}, code: "too_large"},
		{name: "chunks without end", request: request{headers: []string{"-Content-Length", "Transfer-Encoding: chunked"}, body: strings.Repeat("10000\r\n"+strings.Repeat(" ", 0x10000)+"\r\n", 64)}, status: []int{413}, code: "too_large"},
		{name: "a page's Origin", request: post("Origin: http://evil.example"), status: []int{403}, code: "browser_request"},
	}
}

// foreignHosts is what a listener on loopback refuses: names that a page may have let point here.
func foreignHosts(path string) []badInput {
	host := func(h string) badInput {
		return badInput{name: "Host: " + h, request: request{headers: []string{"-Host", "Host: " + h}, body: goodBody}, status: []int{421}, code: "wrong_host"}
	}
	return []badInput{
		host("evil.example:9901"), host(""), host("localhost.evil.example"), host("127.0.0.1.evil.example"), host("localhost."), host("127.0.0.1"),
		{name: "HTTP/1.0 without Host", request: request{line: "POST " + path + " HTTP/1.0", headers: []string{"-Host"}, body: goodBody}, status: []int{421}, code: "wrong_host"},
		{name: "another host in the target", request: request{line: "POST http://evil.example" + path + " HTTP/1.1", body: goodBody}, status: []int{421}, code: "wrong_host"},
	}
}

// browsers is what only a page sends.
func browsers(path string) []badInput {
	var all []badInput
	for _, h := range []string{"Origin: null", "Origin: http://HOST", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: none"} {
		all = append(all, badInput{name: h, request: request{headers: []string{h}, body: goodBody}, status: []int{403}, code: "browser_request"})
	}
	return append(all, badInput{name: "preflight", status: []int{403}, code: "browser_request",
		request: request{line: "OPTIONS " + path + " HTTP/1.1", headers: []string{"Origin: http://evil.example", "Access-Control-Request-Method: POST"}}})
}

// envelopes is what is wrong inside the body of POST /outbox.
func envelopes() []badInput {
	bad := func(name, code, body string) badInput {
		return badInput{name: name, request: request{body: body}, status: []int{400}, code: code}
	}
	with := func(name, code, member string) badInput {
		return bad(name, code, `{"id":"$ID",`+member+`"type":"order.created","data":{}}`)
	}
	typ := func(typ string) badInput {
		return bad("type "+typ[:min(len(typ), 20)], "invalid_field", `{"id":"$ID","type":`+typ+`,"data":{}}`)
	}
	id := func(id string) badInput {
		return bad("id "+id[:min(len(id), 20)], "invalid_field", `{"id":`+id+`,"type":"order.created","data":{}}`)
	}
	return []badInput{
		bad("empty", "invalid_json", ""), bad("spaces", "invalid_json", "   "),
		bad("null", "not_an_object", "null"), bad("an array", "not_an_object", "[]"), bad("a string", "not_an_object", `"x"`), bad("a number", "not_an_object", "5"),
		bad("two objects", "trailing_data", `{"id":"$ID","type":"order.created","data":{}}{}`),
		bad("garbage behind", "trailing_data", `{"id":"$ID","type":"order.created","data":{}} garbage`),
		bad("a byte order mark", "", "\xef\xbb\xbf"+goodBody),
		bad("cut off", "invalid_json", `{"id":"$ID","type":"order.created","data":{`),
		with("invalid UTF-8 in a member", "invalid_utf8", "\"subject\":\"a\xffb\","),
		bad("invalid UTF-8 in data", "invalid_utf8", "{\"id\":\"$ID\",\"type\":\"order.created\",\"data\":\"\xc3\x28\"}"),
		with("a lone surrogate", "invalid_utf8", `"key":"\ud800",`),
		bad("a lone surrogate in data", "invalid_utf8", `{"id":"$ID","type":"order.created","data":"\udc00x"}`),
		with("id twice", "duplicate_field", `"id":"$ID",`), with("id and ID", "duplicate_field", `"ID":"other",`),
		with("an escaped second id", "duplicate_field", `"\u0069d":"other",`),
		with("data twice", "duplicate_field", `"data":{},`),
		bad("too deep", "too_deep", `{"id":"$ID","type":"order.created","data":`+strings.Repeat("[", 200)+strings.Repeat("]", 200)+`}`),
		bad("NaN", "invalid_json", `{"id":"$ID","type":"order.created","data":NaN}`), bad("01", "invalid_json", `{"id":"$ID","type":"order.created","data":01}`),
		bad("1.", "invalid_json", `{"id":"$ID","type":"order.created","data":1.}`), bad("single quotes", "invalid_json", `{'id':'x'}`),
		bad("a comma at the end", "invalid_json", `{"id":"$ID","type":"order.created","data":{},}`),
		bad("a comment", "invalid_json", `{"id":"$ID","type":"order.created","data":{}/**/}`),
		bad("a control character", "invalid_json", "{\"id\":\"$ID\",\"type\":\"order.created\",\"data\":\"a\nb\"}"),
		bad("no data", "missing_field", `{"id":"$ID","type":"order.created"}`), bad("no type", "missing_field", `{"id":"$ID","data":{}}`),
		id(`""`), id(`null`), id(`5`), id(`["a"]`), id(`"` + strings.Repeat("a", 257) + `"`), id(`"a\nb"`), id(`"a\u0000b"`), id(`"a\u007fb"`),
		typ(`""`), typ(`"created"`), typ(`".a"`), typ(`"a."`), typ(`"a..b"`), typ(`"order.*"`), typ(`"order.cr eated"`), typ(`"order.ü"`), typ(`5`), typ(`"a.` + strings.Repeat("b", 128) + `"`),
		with("a long key", "invalid_field", `"key":"`+strings.Repeat("k", 257)+`",`), with("a control character in the key", "invalid_field", `"key":"a\u0001",`),
		with("a bad timestamp", "invalid_field", `"timestamp":"yesterday",`), with("metadata as a list", "invalid_field", `"metadata":[],`),
		with("deliverAt", "unsupported_field", `"deliverAt":"2099-01-01T00:00:00Z",`), with("delay", "unsupported_field", `"delay":"1h",`), with("expiresAt", "unsupported_field", `"expiresAt":"2099-01-01T00:00:00Z",`),
		{name: "another service's source", request: request{body: `{"id":"$ID","type":"order.created","source":"payment-service","data":{}}`}, status: []int{403}, code: "source_not_allowed"},
		{name: "two ids", request: request{headers: []string{"Idempotency-Key: other"}, body: goodBody}, status: []int{400}, code: "id_mismatch"},
		{name: "too large", request: request{body: `{"id":"$ID","type":"order.created","data":"` + strings.Repeat("x", 1_000_001) + `"}`}, status: []int{413}, code: "too_large"},
		{name: "attributes too large", request: request{body: `{"id":"$ID","type":"order.created","data":{},"metadata":{"x":"` + strings.Repeat("x", 33<<10) + `"}}`}, status: []int{400, 413}},
	}
}

// run sends the bad input on a connection of its own and returns what is wrong with the answer.
func (b badInput) run(t *testing.T, address, path, id string) error {
	w := dialWire(t, address)
	request := b.request
	request.body = strings.ReplaceAll(request.body, "$ID", id)
	raw := request.bytes("POST "+path+" HTTP/1.1", address)
	if b.raw != "" {
		raw = []byte(strings.ReplaceAll(b.raw, "HOST", address))
	}
	if len(raw) > 64<<10 { // an early answer must be read while the rest is written
		go w.send(raw)
	} else {
		w.send(raw)
	}
	switch b.then {
	case hangsUp:
		w.endOfInput()
	case dribbles:
		go func() {
			for range 40 {
				if _, err := w.conn.Write([]byte("X")); err != nil {
					return
				}
				time.Sleep(300 * time.Millisecond) // the drip itself
			}
		}()
	}
	got, err := w.answer()
	if err != nil {
		return err
	}
	return b.judge(got)
}

func (b badInput) judge(got reply) error {
	if !slices.Contains(b.status, got.status) {
		return fmt.Errorf("answered %v, want status %v", got, b.status)
	}
	if b.code != "" && got.Code != b.code {
		return fmt.Errorf("answered %v, want code %q", got, b.code)
	}
	if b.code != "" && got.header.Get("Content-Type") != "application/problem+json" {
		return fmt.Errorf("answered with type %q, want application/problem+json", got.header.Get("Content-Type"))
	}
	for name := range got.header {
		if strings.HasPrefix(name, "Access-Control-") {
			return fmt.Errorf("answered with header %s", name)
		}
	}
	for _, name := range b.header {
		if got.header.Get(name) == "" {
			return fmt.Errorf("answered without header %s", name)
		}
	}
	return nil
}

// runAll sends all at once, a bounded number at a time.
func runAll(t *testing.T, inputs []badInput, address, path, prefix string) {
	t.Helper()
	slots, all := make(chan struct{}, 16), sync.WaitGroup{}
	for i, b := range inputs {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			if err := b.run(t, address, path, fmt.Sprint(prefix, i)); err != nil {
				t.Errorf("%s: %v", b.name, err)
			}
		})
	}
	all.Wait()
}

// stored is what a sidecar holds: it must be the same before and after refusals.
func stored(t *testing.T, s *sidecar) [3]int64 {
	t.Helper()
	st := status(t, s)
	return [3]int64{int64(st.Outbox.NextSeq), int64(st.Inbox.NextSeq), st.DeadLetters}
}

// TestBadInputAtTheOutbox sends what the outbox must refuse: each has its status and code, and nothing is stored.
func TestBadInputAtTheOutbox(t *testing.T) {
	t.Parallel()
	s := newSidecar(t, settings{service: "order-service"}).start()
	before := stored(t, s)
	inputs := slices.Concat(framing("/outbox"), foreignHosts("/outbox"), browsers("/outbox"), envelopes())
	runAll(t, inputs, s.app, "/outbox", "bad-")
	if after := stored(t, s); after != before {
		t.Errorf("stored before %v, after %v", before, after)
	}
	for i, b := range inputs {
		if status, body := get(t, s.appURL()+fmt.Sprint("/outbox/events/bad-", i)); status != 404 {
			t.Errorf("%s: its event: %d %s", b.name, status, body)
		}
	}
	s.alive()
	newProducer(t, s).mustPublish(envelope{ID: "good", Type: "order.created", Data: json.RawMessage(`{}`)})
	s.stop()
}

// TestEdgesOfTheOutbox sends what looks odd and must be taken.
func TestEdgesOfTheOutbox(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	order, _ := pair(t, app)
	ok := func(name, data, more string, headers ...string) badInput {
		return badInput{name: name, request: request{headers: headers, body: `{"id":"$ID","type":"order.created","data":` + data + more + `}`}, status: []int{202}}
	}
	const chunk = `{"id":"in-chunks","type":"order.created","data":{}}`
	deep := strings.Repeat("[", 100) + strings.Repeat("]", 100)
	edges := []badInput{
		ok("charset utf-8", `{}`, ``, "-Content-Type", "Content-Type: application/json; charset=utf-8"),
		ok("localhost as Host", `{}`, ``, "-Host", "Host: localhost:"+strings.TrimPrefix(order.app, "127.0.0.1:")),
		ok("Expect: 100-continue", `{}`, ``, "Expect: 100-continue"),
		ok("Sec-Fetch-Mode, as Node sends it", `{}`, ``, "Sec-Fetch-Mode: cors"),
		ok("a huge number", `1e999`, ``), ok("a long number", strings.Repeat("9", 4000), ``), ok("null", `null`, ``), ok("spaces", "{ \"a\" :\t1 ,\n\"a\": 2 }", ``),
		ok("deep", deep, ``), ok("escapes", `"\u00fc\/\ud83d\ude00ü😀"`, ``), ok("HTML", `"<&>\u2028"`, ``),
		ok("an empty key", `{}`, `,"key":""`), ok("unknown members", `{}`, `,"x-shop":{"a":[1,2]}`), ok("the same id as a header", `{}`, ``, "Idempotency-Key: edge-13"),
		ok("nearly a megabyte", `"`+strings.Repeat("x", 999_000)+`"`, ``),
		{name: "a length and chunks", request: request{headers: []string{"Transfer-Encoding: chunked"}, body: fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(chunk), chunk)}, status: []int{202, 400}},
	}
	runAll(t, edges, order.app, "/outbox", "edge-")
	for i, e := range edges[:len(edges)-1] {
		id := fmt.Sprint("edge-", i)
		eventually(t, 10*time.Second, e.name+" arrives", func() error {
			if !app.done()[id] {
				return fmt.Errorf("%d arrivals", len(app.arrivals()))
			}
			return nil
		})
		var want struct{ Data json.RawMessage }
		if err := json.Unmarshal([]byte(e.request.body), &want); err != nil {
			t.Fatal(err)
		}
		if got := app.of(id)[0].Data; string(got) != string(want.Data) {
			t.Errorf("%s: data was posted as %.80s and arrived as %.80s", e.name, want.Data, got)
		}
	}
}

// TestPipelined sends two requests in one piece: two answers in order.
func TestPipelined(t *testing.T) {
	t.Parallel()
	s := newSidecar(t, settings{service: "order-service"}).start()
	w := dialWire(t, s.app)
	var both []byte
	for _, id := range []string{"first", "second"} {
		r := request{body: strings.ReplaceAll(goodBody, "$ID", id)}
		both = append(both, r.bytes("POST /outbox HTTP/1.1", s.app)...)
	}
	w.send(both)
	for _, want := range []string{"first", "second"} {
		if got, err := w.answer(); err != nil || got.status != http.StatusAccepted || got.accepted.ID != want {
			t.Errorf("answered %v (%v), want 202 for %s", got, err, want)
		}
	}
}

// TestToken: with a token file, requests without the token are refused at the app listener, and nothing is stored.
func TestToken(t *testing.T) {
	t.Parallel()
	const token = "a-token-of-the-test-0123456789abcdef"
	s := newSidecar(t, settings{service: "order-service"})
	file := s.dir + "/token"
	writeFile(t, file, token+"\n")
	s.settings.flags = []string{"--admin-token-file", file}
	s.start()
	refused := func(name string, headers ...string) badInput {
		return badInput{name: name, request: request{headers: headers, body: goodBody}, status: []int{401}, code: "unauthorized", header: []string{"WWW-Authenticate"}}
	}
	inputs := []badInput{
		refused("no token"), refused("another token", "Authorization: Bearer another"), refused("a part of the token", "Authorization: Bearer "+token[:8]),
		refused("a longer token", "Authorization: Bearer "+token+"x"), refused("another scheme", "Authorization: Basic "+token), refused("an empty token", "Authorization: Bearer "),
		{name: "two tokens", request: request{headers: []string{"Authorization: Bearer " + token, "Authorization: Bearer " + token}, body: goodBody}, status: []int{400}, code: "duplicate_header"},
	}
	runAll(t, inputs, s.app, "/outbox", "token-")
	good := badInput{name: "the token", request: request{headers: []string{"Authorization: Bearer " + token}, body: goodBody}, status: []int{202}}
	if err := good.run(t, s.app, "/outbox", "with-token"); err != nil {
		t.Error(err)
	}
	if r := s.command("status"); r.code == 0 {
		t.Errorf("status without the token: %v", r)
	}
	r := runCommand(t, s.bin, s.dir, append(cleanEnv(), "HOOKSIDECAR_ADMIN=http://"+s.admin, "HOOKSIDECAR_TOKEN_FILE="+file), "status", "-o", "json")
	var st nodeStatus
	if err := json.Unmarshal([]byte(r.stdout), &st); err != nil || st.Outbox.NextSeq != 2 {
		t.Errorf("status with the token: %v, next seq %d, want 2: one event was stored", r, st.Outbox.NextSeq)
	}
}
