package e2e

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// readKey reads the signing key that a sidecar made for its service, without the product's code.
func readKey(t *testing.T, s *sidecar) ed25519.PrivateKey {
	t.Helper()
	text, err := os.ReadFile(s.keyFile())
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if encoded, ok := strings.CutPrefix(strings.TrimSpace(line), "whsk_"); ok {
			raw, err := base64.StdEncoding.DecodeString(encoded)
			if err != nil || len(raw) < ed25519.SeedSize {
				t.Fatalf("the key in %s has %d bytes: %v", s.keyFile(), len(raw), err)
			}
			return ed25519.NewKeyFromSeed(raw[:ed25519.SeedSize])
		}
	}
	t.Fatal("no key in " + s.keyFile())
	return nil
}

// A signedPost is one event for POST /inbox, right in everything until a test changes it.
type signedPost struct {
	key       ed25519.PrivateKey
	id        string // webhook-id
	timestamp string
	body      string
	signature string   // "": made by key over the three
	headers   []string // further changes, as in request
}

func newSignedPost(key ed25519.PrivateKey, id string) *signedPost {
	return &signedPost{key: key, id: id, timestamp: fmt.Sprint(time.Now().Unix()),
		body: fmt.Sprintf(`{"id":%q,"type":"order.created","version":"1.0","timestamp":"2026-02-03T10:30:00Z","source":"order-service","to":"payment-service","data":{"n":1},"metadata":{"correlationId":"c"}}`, id)}
}

// sign makes the signature of what the post is now; changes after it are not signed.
func (p *signedPost) sign() string {
	p.signature = "v1a," + base64.StdEncoding.EncodeToString(ed25519.Sign(p.key, []byte(p.id+"."+p.timestamp+"."+p.body)))
	return p.signature
}

func (p *signedPost) request() request {
	if p.signature == "" {
		p.sign()
	}
	usual := map[string]string{"webhook-id": p.id, "webhook-timestamp": p.timestamp, "webhook-signature": p.signature}
	r := request{body: p.body}
	for _, h := range p.headers {
		if name, out := strings.CutPrefix(h, "-"); out && usual[name] != "" {
			delete(usual, name)
		} else {
			r.headers = append(r.headers, h)
		}
	}
	for name, value := range usual {
		r.headers = append(r.headers, name+": "+value)
	}
	return r
}

// A badPost is one row: how a right post is made wrong, and the answer.
type badPost struct {
	name   string
	breaks func(p *signedPost)
	status []int
	code   string
}

// badPosts is what POST /inbox must refuse. stranger is a key that nobody has announced.
func badPosts(stranger ed25519.PrivateKey, payment ed25519.PrivateKey) []badPost {
	change := func(old, new string) func(*signedPost) {
		return func(p *signedPost) { p.body = strings.Replace(p.body, old, new, 1) }
	}
	headers := func(h ...string) func(*signedPost) { return func(p *signedPost) { p.headers = h } }
	unsigned := func(name string, breaks func(*signedPost)) badPost {
		return badPost{name, func(p *signedPost) { p.sign(); breaks(p) }, []int{401}, ""}
	}
	at := func(name, code string, d time.Duration) badPost {
		return badPost{name, func(p *signedPost) { p.timestamp = fmt.Sprint(time.Now().Add(d).Unix()) }, []int{401}, code}
	}
	timestamp := func(value string) badPost {
		return badPost{"timestamp " + value, func(p *signedPost) { p.timestamp = value }, []int{401}, "bad_timestamp"}
	}
	signature := func(name string, f func(right string) string) badPost {
		return badPost{"signature " + name, func(p *signedPost) { p.signature = f(p.sign()) }, []int{401}, "bad_signature"}
	}
	flip := func(s string) string { // another first character behind the version
		if s[4] == 'A' {
			return s[:4] + "B" + s[5:]
		}
		return s[:4] + "A" + s[5:]
	}
	return []badPost{
		{"no webhook-id", headers("-webhook-id"), []int{401}, "missing_signature"},
		{"no webhook-timestamp", headers("-webhook-timestamp"), []int{401}, "missing_signature"},
		{"no webhook-signature", headers("-webhook-signature"), []int{401}, "missing_signature"},
		{"none of the three", headers("-webhook-id", "-webhook-timestamp", "-webhook-signature"), []int{401}, "missing_signature"},
		{"an empty webhook-id", headers("-webhook-id", "webhook-id:"), []int{401}, "missing_signature"},
		{"an empty webhook-signature", headers("-webhook-signature", "webhook-signature:"), []int{401}, "missing_signature"},
		{"spaces for a signature", headers("-webhook-signature", "webhook-signature:    "), []int{401}, "missing_signature"},
		{"Webhook_Id", headers("-webhook-id", "Webhook_Id: x"), []int{401}, "missing_signature"},
		{"webhook-id twice", headers("webhook-id: x"), []int{400}, "duplicate_header"},
		{"webhook-timestamp twice", headers("webhook-timestamp: 1"), []int{400}, "duplicate_header"},
		{"webhook-signature twice", headers("webhook-signature: v1a,x"), []int{400}, "duplicate_header"},
		timestamp("1e9"), timestamp("+1700000000"), timestamp("01700000000"), timestamp("0x6553f100"), timestamp("1700000000.5"), timestamp("99999999999999999999"), timestamp("-1"), timestamp("now"),
		at("six minutes old", "stale", -6*time.Minute), at("six minutes early", "stale", 6*time.Minute), at("of 1970", "stale", -50*365*24*time.Hour),
		signature("without a version", func(s string) string { return strings.TrimPrefix(s, "v1a,") }),
		signature("of version 2", func(s string) string { return "v2," + strings.TrimPrefix(s, "v1a,") }),
		signature("said to be an HMAC", func(s string) string { return "v1," + strings.TrimPrefix(s, "v1a,") }),
		signature("without a comma", func(s string) string { return strings.Replace(s, ",", " ", 1) }),
		signature("empty behind the version", func(string) string { return "v1a," }),
		signature("cut by a byte", func(s string) string { return s[:len(s)-1] }),
		signature("longer by a byte", func(s string) string { return s + "A" }),
		signature("in the URL alphabet, without padding", func(s string) string { return strings.NewReplacer("+", "-", "/", "_", "=", "").Replace(s) }),
		signature("with garbage behind", func(s string) string { return s + ";x" }),
		signature("of other bytes", flip),
		{"nine signatures", func(p *signedPost) { p.signature = strings.Repeat("v1a,AAAA ", 8) + p.sign() }, []int{401}, ""},
		unsigned("another id", func(p *signedPost) { p.id += "x" }),
		unsigned("another timestamp", func(p *signedPost) { p.timestamp = fmt.Sprint(time.Now().Unix() - 1) }),
		unsigned("another body", change(`"n":1`, `"n":2`)), unsigned("a space more", change(`"n":1`, `"n": 1`)),
		{"a byte order mark", func(p *signedPost) { p.sign(); change(`{"id"`, "\xef\xbb\xbf{\"id\"")(p) }, []int{400, 401}, ""},
		{"a stranger's key", func(p *signedPost) { p.key = stranger }, []int{401}, ""},
		{"an unknown source", func(p *signedPost) { p.key = stranger; change(`"order-service"`, `"nobody-service"`)(p) }, []int{401}, "unknown_sender"},
		{"the receiver's own key for another's source", func(p *signedPost) { p.key = payment }, []int{401, 403}, ""},
		{"another's source", change(`"source":"order-service"`, `"source":"billing-service"`), []int{401, 403}, ""},
		{"the receiver's source, signed by another", change(`"source":"order-service"`, `"source":"payment-service"`), []int{401, 403}, ""},
		{"for another service", change(`"to":"payment-service"`, `"to":"shipping-service"`), []int{421}, "not_addressed_here"},
		{"for nobody", change(`"to":"payment-service",`, ``), []int{400, 421}, ""},
		{"another id in the body", change(`"id":"`, `"id":"other-`), []int{400}, "id_mismatch"},
		{"no JSON", func(p *signedPost) { p.body = "hello" }, []int{400, 401}, ""},
		{"an array", func(p *signedPost) { p.body = "[" + p.body + "]" }, []int{400, 401}, ""},
		{"id twice", change(`"type"`, `"id":"x","type"`), []int{400}, "duplicate_field"},
		{"no data", change(`"data":{"n":1},`, ``), []int{400}, "missing_field"},
		{"a type without dots", change(`order.created`, `created`), []int{400}, "invalid_field"},
		{"a type that nobody wants", change(`order.created`, `stock.moved`), []int{404}, "not_subscribed"},
		{"garbage behind", func(p *signedPost) { p.body += "x" }, []int{400}, "trailing_data"},
		{"an event that is too large", change(`"n":1`, `"n":"`+strings.Repeat("x", 1_000_001)+`"`), []int{413}, "too_large"},
		{"gzip", headers("Content-Encoding: gzip"), []int{415}, "unsupported_encoding"},
		{"text/plain", headers("-Content-Type", "Content-Type: text/plain"), []int{415}, "unsupported_media_type"},
	}
}

// TestBadInputAtTheInbox sends a receiving sidecar what it must refuse, signed and unsigned: nothing is stored and the app gets nothing.
func TestBadInputAtTheInbox(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	order, payment := pair(t, app)
	key := readKey(t, order)
	_, stranger, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "the probes are through", func() error {
		if st := status(t, payment); st.Inbox.Backlog != 0 || len(app.done()) < len(order.probes) {
			return fmt.Errorf("backlog %d", st.Inbox.Backlog)
		}
		return nil
	})
	before, requests := stored(t, payment), len(app.arrivals())

	var inputs []badInput
	for i, row := range badPosts(stranger, readKey(t, payment)) {
		p := newSignedPost(key, fmt.Sprint("signed-", i))
		row.breaks(p)
		inputs = append(inputs, badInput{name: row.name, request: p.request(), status: row.status, code: row.code})
	}
	batches := []badInput{
		{name: "a batch that is JSON", request: request{body: `[]`}, status: []int{415}, code: "unsupported_media_type"},
		{name: "a batch without a signature", request: request{headers: []string{"-Content-Type", "Content-Type: application/vnd.hooksidecar.batch; v=1"}, body: "\x02{}"}, status: []int{401}, code: "missing_signature"},
		{name: "a batch of a later protocol", request: request{headers: []string{"-Content-Type", "Content-Type: application/vnd.hooksidecar.batch; v=99"}, body: "\x02{}"}, status: []int{401, 415, 426}},
	}
	// Anybody may send these: who sends is decided by the signature, which none of them has.
	anywhere := slices.DeleteFunc(framing("/inbox"), func(b badInput) bool { return b.name == "no type" })
	runAll(t, inputs, payment.peer, "/inbox", "")
	runAll(t, batches, payment.peer, "/inbox/batch", "")
	runAll(t, anywhere, payment.peer, "/inbox", "framed-")

	if after := stored(t, payment); after != before {
		t.Errorf("stored before %v, after %v", before, after)
	}
	if got := app.arrivals(); len(got) != requests {
		t.Errorf("the app got %d requests more, the last %s", len(got)-requests, got[len(got)-1].Body)
	}
	payment.alive()
	newProducer(t, order).mustPublish(envelope{ID: "good", Type: "order.created", Data: json.RawMessage(`{}`)})
	eventually(t, 10*time.Second, "a good event still arrives", func() error {
		if !app.done()["good"] {
			return fmt.Errorf("%d arrivals", len(app.arrivals()))
		}
		return nil
	})
}

// TestEdgesOfTheInbox sends signed posts that must be taken, and repeats of them.
func TestEdgesOfTheInbox(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	order, payment := pair(t, app)
	key := readKey(t, order)
	var want []posted
	send := func(name, id, data string, edit func(*signedPost), status ...int) {
		t.Helper()
		p := newSignedPost(key, id)
		p.body = strings.Replace(p.body, `{"n":1}`, data, 1)
		edit(p)
		if err := (badInput{name: name, request: p.request(), status: status}).run(t, payment.peer, "/inbox", id); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	expect := func(id, data string) {
		want = append(want, posted{Source: "order-service", ID: id, Type: "order.created", Data: data, Outcome: acknowledged, Seq: uint64(1_000 + len(want))})
	}
	send("as it should be", "in-1", `{"a":1}`, func(*signedPost) {}, 200, 202)
	expect("in-1", `{"a":1}`)
	send("nearly five minutes old", "in-2", `{}`, func(p *signedPost) { p.timestamp = fmt.Sprint(time.Now().Unix() - 290) }, 200, 202)
	expect("in-2", `{}`)
	send("the right signature last", "in-3", `{}`, func(p *signedPost) { p.signature = "v1,AAAA v9,x v1a,BBBB " + p.sign() }, 200, 202)
	expect("in-3", `{}`)
	send("headers that mean nothing here", "in-4", `{}`, func(p *signedPost) {
		p.headers = []string{"X-Delivery-Redelivered: true", "X-Replay-ID: x", "X-Forwarded-For: 1.2.3.4", "Cookie: a=b", "Authorization: Bearer x", "X-Event-Type: order.paid"}
	}, 200, 202)
	expect("in-4", `{}`)
	hasDone(t, 10*time.Second, app, want)
	send("again", "in-1", `{"a":1}`, func(*signedPost) {}, 200, 202)
	send("again with other content", "in-1", `{"a":2}`, func(*signedPost) {}, 409)
	if got := app.of("in-4")[0]; got.marked() || got.Header.Get("Cookie") != "" || got.Header.Get("Authorization") != "" || got.Header.Get("X-Forwarded-For") != "" {
		t.Errorf("headers of the sender came through to the app: %v", got.Header)
	}
	send("after all", "in-5", `{}`, func(*signedPost) {}, 200, 202)
	expect("in-5", `{}`)
	hasDone(t, 10*time.Second, app, want)
	if n := len(app.of("in-1")); n != 1 {
		t.Errorf("the app got in-1 %d times", n)
	}
	story{subscriber: "payment-service", posted: append(want, order.probes...), arrivals: app.arrivals(), secret: appSecret}.check(t)
}
