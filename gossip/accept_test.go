package gossip

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/signature"
)

func TestOlderDescriptorsDoNotCount(t *testing.T) {
	n := newNode(t, "order-service", "o-1")
	key := signature.GeneratePrivateKey()
	d := stranger("payment-service", key)
	mustTake(t, n, d, key)
	for name, change := range map[string]func(*Descriptor){
		"older version": func(d *Descriptor) { d.Version-- },
		"older boot":    func(d *Descriptor) { d.Boot--; d.Version += 10 },
	} {
		old := d
		change(&old)
		old.IssuedAt = d.IssuedAt.Add(-time.Hour)
		old.URL = "http://127.0.0.1:666"
		changed := n.Changed()
		mustTake(t, n, old, key) // a replay is not an error, it does not count
		if got, _ := n.instanceOf("payment-service", "one"); got.URL != d.URL || isClosed(changed) {
			t.Errorf("%s: url is now %s", name, got.URL)
		}
	}
	newer := d
	newer.Boot, newer.Version, newer.URL = d.Boot+1, 1, "http://127.0.0.1:10"
	mustTake(t, n, newer, key)
	if got, _ := n.instanceOf("payment-service", "one"); got.URL != newer.URL || got.Boot != newer.Boot {
		t.Errorf("after a restart: %+v", got)
	}
}

func TestAStoreThatWentBackIsRefused(t *testing.T) {
	n := newNode(t, "order-service", "o-1")
	key := signature.GeneratePrivateKey()
	d := stranger("payment-service", key)
	mustTake(t, n, d, key)
	d.Boot, d.IssuedAt = d.Boot-1, d.IssuedAt.Add(time.Hour)
	mustRefuse(t, n, d, "version_conflict", key)
}

func TestTwoThingsUnderOneVersion(t *testing.T) {
	n := newNode(t, "order-service", "o-1")
	key := signature.GeneratePrivateKey()
	d := stranger("payment-service", key)
	mustTake(t, n, d, key)
	same := d
	same.IssuedAt = d.IssuedAt.Add(time.Minute)
	mustTake(t, n, same, key)
	other := d
	other.Subscriptions = []event.Subscription{{Types: []string{"order.*"}}}
	mustRefuse(t, n, other, "version_conflict", key)
	if got, _ := n.instanceOf("payment-service", "one"); len(got.Subscriptions) != 0 {
		t.Error("the second counts")
	}
	if s := n.Status(); len(s) != 1 || !strings.Contains(s[0].Error, "says two things") {
		t.Errorf("status %+v", s)
	}
}

func TestTheFirstKeyIsPinned(t *testing.T) {
	n := newNode(t, "order-service", "o-1")
	key, thief := signature.GeneratePrivateKey(), signature.GeneratePrivateKey()
	d := stranger("payment-service", key)
	mustTake(t, n, d, key)

	stolen := stranger("payment-service", thief)
	stolen.Boot, stolen.URL = 99, "http://127.0.0.1:666"
	body := mustRefuse(t, n, stolen, "key_conflict", thief)
	for _, want := range []string{key.Public().Fingerprint(), thief.Public().Fingerprint(), "127.0.0.1:4711"} {
		if !strings.Contains(body, want) {
			t.Errorf("refusal does not name %s: %s", want, body)
		}
	}
	another := stolen
	another.Instance, another.StoreID = "two", "st_another1another1"
	mustRefuse(t, n, another, "key_conflict", thief)
	both := stolen // lists the pinned key, but its holder did not sign
	both.Keys = append(both.Keys, d.Keys...)
	mustRefuse(t, n, both, "key_conflict", thief)

	if got := n.Keys("payment-service"); !slices.Equal(got, []signature.PublicKey{key.Public()}) {
		t.Errorf("keys %v", got)
	}
	if got, _ := n.instanceOf("payment-service", "one"); got.URL != d.URL {
		t.Errorf("url %s", got.URL)
	}
}

func TestKeyChange(t *testing.T) {
	n := newNode(t, "order-service", "o-1")
	old, fresh := signature.GeneratePrivateKey(), signature.GeneratePrivateKey()
	one := stranger("payment-service", old)
	two := one
	two.Instance, two.StoreID = "two", "st_twotwotwotwo"
	mustTake(t, n, one, old)
	mustTake(t, n, two, old)

	one.Boot, one.Keys = one.Boot+1, []string{fresh.Public().String(), old.Public().String()}
	mustTake(t, n, one, fresh, old)
	wantKeys(t, n, fresh, old)

	one.Boot, one.Keys = one.Boot+1, []string{fresh.Public().String()}
	mustTake(t, n, one, fresh)
	wantKeys(t, n, fresh, old) // two still has the old one

	two.Boot, two.Keys = two.Boot+1, []string{fresh.Public().String()}
	mustTake(t, n, two, fresh)
	wantKeys(t, n, fresh)

	two.Boot, two.Keys = two.Boot+1, []string{old.Public().String()}
	mustRefuse(t, n, two, "key_conflict", old)
}

func TestStoreIDs(t *testing.T) {
	n := newNode(t, "order-service", "o-1")
	key, other := signature.GeneratePrivateKey(), signature.GeneratePrivateKey()
	d := stranger("payment-service", key)
	mustTake(t, n, d, key)

	lost := d // a new disk: boots start again
	lost.StoreID, lost.Boot, lost.Version, lost.IssuedAt = "st_newnewnewnew", 1, 1, d.IssuedAt.Add(time.Minute)
	mustTake(t, n, lost, key)
	if got, _ := n.instanceOf("payment-service", "one"); got.StoreID != lost.StoreID {
		t.Errorf("after a new disk: %+v", got)
	}
	back := d
	back.Boot, back.IssuedAt = 50, lost.IssuedAt.Add(time.Minute)
	mustRefuse(t, n, back, "store_conflict", key)

	renamed := lost
	renamed.Instance, renamed.Boot = "renamed", 2
	mustTake(t, n, renamed, key)
	if got := n.Instances("payment-service"); len(got) != 1 || got[0].Name != "renamed" {
		t.Errorf("after a change of name: %+v", got)
	}

	claimed := stranger("stock-service", other)
	claimed.StoreID = lost.StoreID
	mustRefuse(t, n, claimed, "store_conflict", other)
	claimed.StoreID = n.store.ID()
	mustRefuse(t, n, claimed, "store_conflict", other)
}

func TestOurOwnName(t *testing.T) {
	n := newNode(t, "order-service", "o-1")
	own := n.keys[0]
	mustTake(t, n, n.descriptor(), own) // an echo
	if got := n.Instances("order-service"); len(got) != 1 || got[0].StoreID != n.store.ID() {
		t.Errorf("after an echo: %+v", got)
	}
	twin := n.descriptor()
	twin.StoreID, twin.URL = "st_twintwintwin", "http://127.0.0.1:77"
	if body := mustRefuse(t, n, twin, "store_conflict", own); !strings.Contains(body, "order-service/o-1") || !strings.Contains(body, twin.StoreID) {
		t.Errorf("the refusal does not name it: %s", body)
	}
	sibling := twin
	sibling.Instance = "o-2"
	mustTake(t, n, sibling, own)
	if !n.knowsInstance("order-service", "o-1") || !n.knowsInstance("order-service", "o-2") {
		t.Errorf("instances %+v", n.Instances("order-service"))
	}
	stranger := signature.GeneratePrivateKey()
	sibling.Instance, sibling.StoreID, sibling.Keys = "o-3", "st_threethreethree", []string{stranger.Public().String()}
	if body := mustRefuse(t, n, sibling, "key_conflict", stranger); !strings.Contains(body, own.Public().Fingerprint()) {
		t.Errorf("the refusal does not name our key: %s", body)
	}
	if got := n.Keys("order-service"); len(got) != 1 || got[0] != own.Public() {
		t.Errorf("keys %v", got)
	}
}

func TestSources(t *testing.T) {
	n := newNode(t, "order-service", "o-1")
	n.say(func(d *Descriptor) { d.Sources = []string{"order-service", "legacy"} })
	pay, thief := signature.GeneratePrivateKey(), signature.GeneratePrivateKey()
	d := stranger("payment-service", pay)
	d.Sources = []string{"payment-service", "billing", "legacy", "order-service"}
	mustTake(t, n, d, pay)
	e := stranger("thief-service", thief)
	e.Sources = []string{"billing", "payment-service", "own-thing", "late-service"}
	mustTake(t, n, e, thief)
	mustTake(t, n, stranger("late-service", thief), thief)
	for _, row := range []struct {
		service, source string
		want            bool
	}{
		{"payment-service", "payment-service", true}, {"payment-service", "billing", true},
		{"payment-service", "legacy", false}, {"payment-service", "order-service", false}, {"payment-service", "never-announced", false},
		{"thief-service", "thief-service", true}, {"thief-service", "own-thing", true},
		{"thief-service", "billing", false}, {"thief-service", "payment-service", false},
		{"thief-service", "late-service", false}, {"late-service", "late-service", true}, // its own name wins
		{"order-service", "order-service", true}, {"order-service", "legacy", true}, {"order-service", "billing", false},
		{"unknown", "unknown", false}, {"unknown", "billing", false}, {"", "", false},
	} {
		if got := n.MaySpeakFor(row.service, row.source); got != row.want {
			t.Errorf("%s for %s: %t, want %t", row.service, row.source, got, row.want)
		}
	}
}

func TestLimits(t *testing.T) {
	n := newNode(t, "order-service", "o-1")
	key := signature.GeneratePrivateKey()
	d := stranger("payment-service", key)
	for i := range maxInstances + 1 {
		d.Instance, d.StoreID = "i"+strings.Repeat("x", i%60)+string(rune('a'+i/60)), "st_"+strings.Repeat("y", 10+i%50)+string(rune('a'+i/50))
		if i == maxInstances {
			mustRefuse(t, n, d, "limit", key)
			return
		}
		mustTake(t, n, d, key)
	}
}

func TestForeignProtocolIsRefused(t *testing.T) {
	n := newNode(t, "order-service", "o-1")
	key := signature.GeneratePrivateKey()
	d := stranger("payment-service", key)
	d.Protocol = Range{event.Protocol + 1, event.Protocol + 3}
	mustRefuse(t, n, d, "protocol", key)
}

func TestStrangersFromElsewhereAreLeftAside(t *testing.T) {
	n := newNode(t, "order-service", "o-1")
	key := signature.GeneratePrivateKey()
	d := stranger("payment-service", key)
	b, err := json.Marshal(d.Seal([]signature.PrivateKey{key}))
	if err != nil {
		t.Fatal(err)
	}
	w := n.post("192.0.2.7", b)
	if _, desc, err := decode(w.Body.Bytes()); w.Code != 200 || err != nil || desc.Service != "order-service" {
		t.Errorf("answer %d %s, want our descriptor", w.Code, w.Body)
	}
	if len(n.Services()) != 1 {
		t.Errorf("services %v", n.Services())
	}
	mustTake(t, n, d, key)
	d.Boot++
	if b, err = json.Marshal(d.Seal([]signature.PrivateKey{key})); err != nil {
		t.Fatal(err)
	}
	n.post("192.0.2.7", b)
	if got, _ := n.instanceOf("payment-service", "one"); got.Boot != d.Boot {
		t.Error("a service that is known cannot announce itself from elsewhere")
	}
}

func TestServeDescriptorRefusesBadRequests(t *testing.T) {
	n := newNode(t, "order-service", "o-1")
	for name, row := range map[string]struct {
		body   string
		status int
	}{
		"not JSON":  {"hello", 400},
		"empty":     {"", 400},
		"oversized": {`{"payload":"` + strings.Repeat("A", maxSignedBytes), 413},
	} {
		if w := n.post("127.0.0.1", []byte(row.body)); w.Code != row.status {
			t.Errorf("%s: got %d %s, want %d", name, w.Code, w.Body, row.status)
		}
	}
}

// mustTake brings d, which has to be answered with our descriptor.
func mustTake(t *testing.T, n *node, d Descriptor, keys ...signature.PrivateKey) {
	t.Helper()
	if status, body := n.bring(d, keys...); status != 200 {
		t.Fatalf("%s/%s: got %d %s", d.Service, d.Instance, status, body)
	}
}

func mustRefuse(t *testing.T, n *node, d Descriptor, reason string, keys ...signature.PrivateKey) string {
	t.Helper()
	changed := n.Changed()
	status, body := n.bring(d, keys...)
	if status != 403 || !strings.Contains(body, `"reason":"`+reason+`"`) {
		t.Fatalf("%s/%s: got %d %s, want 403 for %s", d.Service, d.Instance, status, body, reason)
	}
	if isClosed(changed) {
		t.Error("a refused descriptor changed something")
	}
	return body
}

func wantKeys(t *testing.T, n *node, keys ...signature.PrivateKey) {
	t.Helper()
	got := n.Keys("payment-service")
	for _, k := range keys {
		if !slices.Contains(got, k.Public()) {
			t.Errorf("key %s is missing", k.Public().Fingerprint())
		}
	}
	if len(got) != len(keys) {
		t.Errorf("%d keys, want %d", len(got), len(keys))
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
