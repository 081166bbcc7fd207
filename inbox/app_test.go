package inbox

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/signature"
)

func TestAppThatAnswersBadly(t *testing.T) {
	raw := func(answer string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				panic(err)
			}
			_, _ = c.Write([]byte(answer))
			_ = c.Close()
		}
	}
	tests := []struct {
		name    string
		handler http.HandlerFunc
		dead    bool
	}{
		{"no answer", raw(""), true},
		{"garbage", raw("\x00\x01\x02 hello\r\n\r\n"), true},
		{"half an answer", raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"), true},
		{"only informational", raw(strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 50)), true},
		{"another protocol", func(w http.ResponseWriter, r *http.Request) { // and then nothing, for as long as the client stays
			c, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				panic(err)
			}
			_, _ = c.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"))
			_, _ = c.Read(make([]byte, 1))
			_ = c.Close()
		}, true},
		{"endless answer", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 32<<10)); err != nil {
					return
				}
			}
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(tt.handler)
			defer server.Close()
			n := newNode(t, quick(2), func(c *Config) { c.App.URL, c.Transport = server.URL, nil })
			n.deliver(deliveryOf(1, newEvent("evt_1", "")))
			n.run().until("it is settled", n.drained)
			if got := len(n.letters()) == 1; got != tt.dead {
				t.Errorf("dead letter: %v, want %v", got, tt.dead)
			}
		})
	}
}

func TestRequestToTheApp(t *testing.T) {
	secret := signature.GenerateSecret()
	n := newNode(t, func(c *Config) { c.App.Secret = &secret })
	e := newEvent("evt:1 ü", "ord_1") // not safe as a webhook-id
	e.ID = "evt:1"
	e.Extra = []byte(`"x-evil":"1"`)
	n.deliver(deliveryOf(1, e))
	n.run().until("it is settled", n.drained)
	c := n.app.got()[0]
	if c.path != "/hooks/orders" {
		t.Errorf("path %s", c.path)
	}
	want := string(event.AppendEnvelope(nil, e.AppendAttributes(nil), e.Data, false))
	if got := string(c.body); got != want {
		t.Errorf("body %s, want %s", got, want)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "X-Event-Id": "evt:1", "X-Event-Type": "order.created", "X-Event-Source": them,
		"X-Correlation-Id": "req_1", "Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"X-Delivery-Attempt": "1", "X-Delivery-Redelivered": "", "X-Event-Signature": signature.HexHMAC(secret, c.body),
		"Webhook-Id": event.WebhookID(them, "evt:1"),
	} {
		if got := c.header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	h, err := signature.HeadersFrom(c.header)
	if err != nil {
		t.Fatal(err)
	}
	if err := signature.Verify(h, c.body, time.Now(), []signature.Key{secret}); err != nil {
		t.Errorf("signature: %v", err)
	}
	for name := range c.header {
		if strings.Contains(strings.ToLower(name), "evil") {
			t.Errorf("header %s came from the wire", name)
		}
	}
}

func TestHeaderValuesAreSafe(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "plain", "a\r\nX-Evil: 1": "a??X-Evil: 1", "\x00": "?", "caf\u00e9": "caf?", " x ": "x", strings.Repeat("a", 500): strings.Repeat("a", 256),
	} {
		if got := headerValue(in); got != want {
			t.Errorf("headerValue(%q) = %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]bool{
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01": true,
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g": false,
		"00-00000000000000000000000000000000-b7ad6b7169203331-01": false,
		"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01": false,
		"00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01": false,
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331":    false,
		"": false,
	} {
		if got := isTraceparent(in); got != want {
			t.Errorf("isTraceparent(%q) = %v, want %v", in, got, want)
		}
	}
}
