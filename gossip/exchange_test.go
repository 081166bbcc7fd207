package gossip

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/signature"
)

func TestOneSideConfiguredIsEnough(t *testing.T) {
	pay := newNode(t, "payment-service", "p-1").run()
	order := newNode(t, "order-service", "o-1", pay.url+"/").run()
	order.until("payment", func() bool { return order.knowsInstance("payment-service", "p-1") })
	pay.until("order", func() bool { return pay.knowsInstance("order-service", "o-1") })

	got, _ := order.instanceOf("payment-service", "p-1")
	if got.URL != pay.url || got.StoreID != pay.store.ID() || got.Boot != pay.store.Boot() || len(got.Subscriptions) != 1 {
		t.Errorf("got %+v", got)
	}
	if keys := order.Keys("payment-service"); !slices.Equal(keys, []signature.PublicKey{pay.keys[0].Public()}) {
		t.Errorf("keys %v", keys)
	}
	if got, want := order.Services(), []string{"order-service", "payment-service"}; !slices.Equal(got, want) {
		t.Errorf("services %v, want %v", got, want)
	}
	if got := order.All(); len(got) != 2 {
		t.Errorf("all: %+v", got)
	}
	order.until("state", func() bool { s := order.Status(); return len(s) == 1 && s[0].State == Known && s[0].Error == "" })
	if s := pay.Status(); len(s) != 1 || s[0].State != Announced || s[0].URL != order.url || s[0].Fingerprint != order.keys[0].Public().Fingerprint() {
		t.Errorf("status of the other side %+v", s)
	}
}

func TestTheConfiguredURLCounts(t *testing.T) {
	pay := newNode(t, "payment-service", "p-1")
	pay.say(func(d *Descriptor) { d.URL = "http://10.255.255.1:9902" }) // where it cannot be reached from here
	order := newNode(t, "order-service", "o-1", pay.url).run()
	order.until("payment", func() bool { return order.knowsInstance("payment-service", "p-1") })
	if got, _ := order.instanceOf("payment-service", "p-1"); got.URL != pay.url {
		t.Errorf("url %s, want the configured %s", got.URL, pay.url)
	}
	d := pay.descriptor() // announcing itself does not take that away
	d.Version++
	mustTake(t, order, d, pay.keys...)
	if got, _ := order.instanceOf("payment-service", "p-1"); got.URL != pay.url {
		t.Errorf("url %s after an announcement, want %s", got.URL, pay.url)
	}
}

func TestPeersAreKnownAfterARestart(t *testing.T) {
	pay := newNode(t, "payment-service", "p-1").run()
	order := newNode(t, "order-service", "o-1", pay.url).run()
	order.until("payment", func() bool { return order.knowsInstance("payment-service", "p-1") })
	pay.until("order", func() bool { return pay.knowsInstance("order-service", "o-1") })
	payKey := pay.keys[0]
	pay.close()
	order.close()

	order.open() // nothing runs: this is what the store knew
	got, ok := order.instanceOf("payment-service", "p-1")
	if !ok || got.URL != pay.url || len(got.Subscriptions) != 1 {
		t.Errorf("after a restart: %+v, %t", got, ok)
	}
	if keys := order.Keys("payment-service"); !slices.Equal(keys, []signature.PublicKey{payKey.Public()}) {
		t.Errorf("keys after a restart: %v", keys)
	}
	if s := order.Status(); len(s) != 1 || s[0].Service != "payment-service" || s[0].LastSeenAt.IsZero() {
		t.Errorf("status after a restart: %+v", s)
	}
	thief := signature.GeneratePrivateKey()
	mustRefuse(t, order, stranger("payment-service", thief), "key_conflict", thief)

	pay.open()
	pay.run()
	order.run()
	order.until("newer boot", func() bool { i, _ := order.instanceOf("payment-service", "p-1"); return i.Boot == pay.store.Boot() })
}

func TestAPeerThatIsDownThenUp(t *testing.T) {
	late := newNode(t, "payment-service", "p-1")
	late.served.Store(nil)
	dead, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, never answers
	if err != nil {
		t.Fatal(err)
	}
	defer dead.Close()
	stock := newNode(t, "stock-service", "s-1")
	order := newNode(t, "order-service", "o-1", late.url, "http://"+dead.Addr().String(), stock.url).run()
	order.until("the healthy peer", func() bool { return order.knowsInstance("stock-service", "s-1") })
	order.until("an error", func() bool { return strings.Contains(order.Status()[0].Error, "503") })
	if s := order.Status()[0]; s.State != Looking || s.URL != late.url {
		t.Errorf("status %+v", s)
	}
	late.served.Store(late.Directory)
	order.until("the late peer", func() bool { return order.Status()[0].State == Known })
	late.served.Store(nil)
	order.until("its absence", func() bool { return order.Status()[0].State == Unreachable })
	if !order.knowsInstance("payment-service", "p-1") {
		t.Error("a peer that is away is forgotten")
	}
}

func TestStrangeAnswers(t *testing.T) {
	key := signature.GeneratePrivateKey()
	forged := stranger("payment-service", key)
	for name, row := range map[string]struct {
		handler http.HandlerFunc
		says    string
	}{
		"not a sidecar": {func(w http.ResponseWriter, _ *http.Request) { http.NotFound(w, nil) }, "is this the peer listener"},
		"a page":        {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }, "refused"},
		"endless": {func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 32<<10)); err != nil {
					return
				}
			}
		}, "larger than"},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusTemporaryRedirect)
		}, "answered 307"},
		"forged": {func(w http.ResponseWriter, _ *http.Request) {
			s := forged.Seal([]signature.PrivateKey{signature.GeneratePrivateKey()})
			writeSigned(w, s)
		}, "no signature"},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(row.handler)
			defer s.Close()
			order := newNode(t, "order-service", "o-1", s.URL).run()
			order.until("an error", func() bool { return strings.Contains(order.Status()[0].Error, row.says) })
			if got := order.Services(); len(got) != 1 {
				t.Errorf("services %v", got)
			}
		})
	}
}

func TestARefusedSideLearnsWhy(t *testing.T) {
	pay := newNode(t, "payment-service", "p-1")
	first := signature.GeneratePrivateKey()
	mustTake(t, pay, stranger("order-service", first), first) // somebody else was order-service before
	order := newNode(t, "order-service", "o-1", pay.url).run()
	order.until("refusal", func() bool { return order.Status()[0].State == Refused })
	if s := order.Status()[0]; !strings.Contains(s.Error, first.Public().Fingerprint()) || !strings.Contains(s.Error, "does not take") {
		t.Errorf("error %s does not say which key is wanted", s.Error)
	}
	if !order.knowsInstance("payment-service", "p-1") {
		t.Error("the other direction does not work either")
	}
}

func TestAURLThatLeadsBackHere(t *testing.T) {
	n := newNode(t, "order-service", "o-1")
	n.close()
	n.peers = []string{n.url}
	n.open()
	n.run()
	n.until("itself", func() bool { return n.Status()[0].State == Itself })
	if got := n.Instances("order-service"); len(got) != 1 {
		t.Errorf("instances %+v", got)
	}
}

func TestRefreshHurries(t *testing.T) {
	pay := newNode(t, "payment-service", "p-1")
	order := newNode(t, "order-service", "o-1", pay.url)
	order.cfg.Interval = time.Hour
	order.run()
	order.until("payment", func() bool { return order.Status()[0].State == Known })
	stock := newNode(t, "stock-service", "s-1") // known by its announcement alone
	mustTake(t, order, stock.descriptor(), stock.keys...)

	for _, n := range []*node{pay, stock} {
		n.say(func(d *Descriptor) { d.Version = 2 })
	}
	for service, instance := range map[string]string{"payment-service": "p-1", "stock-service": "s-1"} {
		order.Refresh(service)
		order.until(service, func() bool {
			order.Directory.mu.RLock()
			defer order.Directory.mu.RUnlock()
			return order.services[service].instances[instance].descriptor.Version == 2
		})
	}
}

func TestNewRefusesBadConfig(t *testing.T) {
	n := newNode(t, "order-service", "o-1")
	for name, change := range map[string]func(*Config){
		"service":  func(c *Config) { c.Service = "self" },
		"instance": func(c *Config) { c.Instance = "" },
		"keys":     func(c *Config) { c.Keys = nil },
		"other":    func(c *Config) { c.Keys = []signature.PrivateKey{signature.GeneratePrivateKey()} },
		"peer":     func(c *Config) { c.Peers = []string{"payment:9902"} },
		"self":     func(c *Config) { c.Self = nil },
		"store":    func(c *Config) { c.Store = nil },
	} {
		c := n.cfg
		c.Metrics = nil
		change(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
