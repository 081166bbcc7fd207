package gossip

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/signature"
)

func TestOpenWhatWasSealed(t *testing.T) {
	a, b := signature.GeneratePrivateKey(), signature.GeneratePrivateKey()
	d := stranger("payment-service", a, b)
	d.Subscriptions = []event.Subscription{{Types: []string{"order.**", "!order.deleted"}, From: "earliest"}}
	s := d.Seal([]signature.PrivateKey{a, b})
	if len(s.Signatures) != 2 {
		t.Errorf("%d signatures, want one per key", len(s.Signatures))
	}
	got, err := Open(s)
	if err != nil {
		t.Fatal(err)
	}
	if !got.sameContent(func() Descriptor {
		d := d
		d.Format, d.Protocol, d.Sources, d.Features = 1, Range{1, 1}, []string{}, []string{}
		return d
	}()) {
		t.Errorf("got %+v, want %+v", got, d)
	}
	for i := range s.Signatures { // either alone is enough
		if _, err := Open(Signed{s.Payload, s.Signatures[i : i+1]}); err != nil {
			t.Errorf("signature %d alone: %v", i, err)
		}
	}
}

func TestOpenRefusesForgeries(t *testing.T) {
	key, other := signature.GeneratePrivateKey(), signature.GeneratePrivateKey()
	good := stranger("payment-service", key).Seal([]signature.PrivateKey{key})
	byOther := stranger("payment-service", key).Seal([]signature.PrivateKey{other})
	for name, s := range map[string]Signed{
		"nothing":             {},
		"unsigned":            {Payload: good.Payload},
		"by a key not in it":  byOther,
		"other's, relabelled": {good.Payload, []Signature{{good.Signatures[0].Key, byOther.Signatures[0].Signature}}},
		"changed payload":     {[]byte(strings.Replace(string(good.Payload), "9", "8", 1)), good.Signatures},
		"cut signature":       {good.Payload, []Signature{{good.Signatures[0].Key, good.Signatures[0].Signature[:63]}}},
		"nine signatures":     {good.Payload, append(make([]Signature, 8), good.Signatures...)},
		"other purpose":       {good.Payload, []Signature{{good.Signatures[0].Key, key.SignRaw("", good.Payload)}}},
	} {
		if _, err := Open(s); !errors.Is(err, ErrDescriptor) {
			t.Errorf("%s: got %v, want %v", name, err, ErrDescriptor)
		}
	}
}

func TestOpenRefusesWhatIsNotWellFormed(t *testing.T) {
	key := signature.GeneratePrivateKey()
	many := func(n int, s string) []string {
		return strings.Split(strings.TrimSuffix(strings.Repeat(s+",", n), ","), ",")
	}
	for name, change := range map[string]func(*Descriptor){
		"no service":          func(d *Descriptor) { d.Service = "" },
		"service in capitals": func(d *Descriptor) { d.Service = "Payment" },
		"service with dot":    func(d *Descriptor) { d.Service = "a.b" },
		"service with NUL":    func(d *Descriptor) { d.Service = "a\x00b" },
		"service with digit":  func(d *Descriptor) { d.Service = "1a" },
		"service, 64 letters": func(d *Descriptor) { d.Service = strings.Repeat("a", 64) },
		"reserved localhost":  func(d *Descriptor) { d.Service = "localhost" },
		"reserved all":        func(d *Descriptor) { d.Service = "all" },
		"reserved self":       func(d *Descriptor) { d.Service = "self" },
		"no instance":         func(d *Descriptor) { d.Instance = "" },
		"instance ../":        func(d *Descriptor) { d.Instance = "a/../b" },
		"no store":            func(d *Descriptor) { d.StoreID = "" },
		"store of other form": func(d *Descriptor) { d.StoreID = "st_ABC" },
		"no keys":             func(d *Descriptor) { d.Keys = nil },
		"key that is none":    func(d *Descriptor) { d.Keys = append(d.Keys, "whpk_AAAA") },
		"zero key":            func(d *Descriptor) { d.Keys = append(d.Keys, "whpk_"+strings.Repeat("A", 43)+"=") },
		"five keys":           func(d *Descriptor) { d.Keys = many(5, d.Keys[0]) },
		"65 subscriptions":    func(d *Descriptor) { d.Subscriptions = make([]event.Subscription, 65) },
		"65 patterns":         func(d *Descriptor) { d.Subscriptions = []event.Subscription{{Types: many(65, "a.b")}} },
		"no pattern":          func(d *Descriptor) { d.Subscriptions = []event.Subscription{{}} },
		"pattern of one":      func(d *Descriptor) { d.Subscriptions = []event.Subscription{{Types: []string{"*"}}} },
		"pattern as regexp":   func(d *Descriptor) { d.Subscriptions = []event.Subscription{{Types: []string{"order.(a|b)"}}} },
		"65 sources":          func(d *Descriptor) { d.Sources = many(65, "a") },
		"long source":         func(d *Descriptor) { d.Sources = []string{strings.Repeat("a", 257)} },
		"oversized": func(d *Descriptor) {
			d.Sources = many(60, strings.Repeat("a", 250))
			d.Features = []string{strings.Repeat("f", 60<<10)}
		},
		"other format":         func(d *Descriptor) { d.Format = 2 },
		"protocol upside down": func(d *Descriptor) { d.Protocol = Range{5, 3} },
	} {
		t.Run(name, func(t *testing.T) {
			d := stranger("payment-service", key)
			change(&d)
			if _, err := Open(reseal(t, d, key)); !errors.Is(err, ErrDescriptor) {
				t.Errorf("got %v, want %v", err, ErrDescriptor)
			}
		})
	}
}

func TestOpenLooksAtURLs(t *testing.T) {
	key := signature.GeneratePrivateKey()
	for url, ok := range map[string]bool{
		"http://127.0.0.1:9902": true, "http://[::1]:9902": true, "https://payment-sidecar:9902": true,
		"http://payment_sidecar_1:9902": true, "http://a.b.example:1": true, "http://[2001:db8::1]:9902": true, "http://10.0.0.1:65535": true,
		"": false, "payment:9902": false, "http://payment": false, "http://payment:0": false, "http://payment:65536": false,
		"http://payment:9902/": false, "http://payment:9902/outbox": false, "http://payment:9902?a=b": false, "http://payment:9902#a": false,
		"http://user@payment:9902": false, "file:///etc/passwd": false, "gopher://payment:9902": false, "HTTP://payment:9902": false,
		"http://169.254.169.254:80": false, "http://[fd00:ec2::254]:80": false, "http://[::]:80": false, "http://0.0.0.0:80": false,
		"http://224.0.0.1:80": false, "http://[fe80::1]:80": false, "http://[fe80::1%25eth0]:80": false, "http://[::ffff:127.0.0.1]:80": false,
		"http://2130706433:80": false, "http://0177.0.0.1:80": false, "http://0x7f.1:80": false, "http://127.1:80": false, "http://1.2.3.4.5:80": false,
		"http://pay%6dent:9902": false, "http://payment.:9902": false, "http://pay ment:9902": false, "http://zahlung-\u212a:9902": false,
	} {
		d := stranger("payment-service", key)
		d.URL = url
		if _, err := Open(d.Seal([]signature.PrivateKey{key})); (err == nil) != ok {
			t.Errorf("%s: got %v, want accepted %t", url, err, ok)
		}
	}
}

func TestDecodeIsStrict(t *testing.T) {
	key := signature.GeneratePrivateKey()
	good, err := json.Marshal(stranger("payment-service", key).Seal([]signature.PrivateKey{key}))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := decode(good); err != nil {
		t.Fatal(err)
	}
	resign := func(payload string) string {
		s := Signed{[]byte(payload), []Signature{{key.Public().String(), key.SignRaw(signaturePrefix, []byte(payload))}}}
		b, _ := json.Marshal(s)
		return string(b)
	}
	payload := string(stranger("payment-service", key).Seal([]signature.PrivateKey{key}).Payload)
	if _, _, err := decode([]byte(resign(payload))); err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string]string{
		"empty":              "",
		"null":               "null",
		"array":              "[]",
		"cut":                string(good[:len(good)-1]),
		"trailing":           string(good) + "{}",
		"member twice":       strings.Replace(string(good), `{"payload"`, `{"payload":"","payload"`, 1),
		"in other letters":   strings.Replace(string(good), `{"payload"`, `{"PayLoad":"","payload"`, 1),
		"payload: twice":     resign(strings.Replace(payload, `"boot":3`, `"boot":3,"boot":9`, 1)),
		"payload: long s":    resign(strings.Replace(payload, `"boot":3`, `"boot":3,"`+"\u017f"+`ervice":"evil"`, 1)),
		"payload: trailing":  resign(payload + "1"),
		"payload: not UTF-8": resign(strings.Replace(payload, `"features":[]`, `"features":["`+"\xff"+`"]`, 1)),
		"payload: deep":      resign(strings.Replace(payload, `"boot":3`, `"boot":3,"x":`+strings.Repeat("[", 2000)+strings.Repeat("]", 2000), 1)),
		"payload: float":     resign(strings.Replace(payload, `"boot":3`, `"boot":3.5`, 1)),
		"payload: negative":  resign(strings.Replace(payload, `"boot":3`, `"boot":-3`, 1)),
	} {
		if _, _, err := decode([]byte(body)); !errors.Is(err, ErrDescriptor) {
			t.Errorf("%s: got %v, want %v", name, err, ErrDescriptor)
		}
	}
	if _, _, err := decode([]byte(resign(strings.Replace(payload, `"boot":3`, `"boot":3,"later":{"a":1}`, 1)))); err != nil {
		t.Errorf("a member that a later version may add: %v", err)
	}
}

// reseal signs d as it is, without what Seal fills in.
func reseal(t *testing.T, d Descriptor, key signature.PrivateKey) Signed {
	t.Helper()
	if d.Format == 0 {
		d.Format = format
	}
	if d.Protocol == (Range{}) {
		d.Protocol = Range{1, 1}
	}
	payload, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return Signed{payload, []Signature{{key.Public().String(), key.SignRaw(signaturePrefix, payload)}}}
}

func FuzzDecode(f *testing.F) {
	key := signature.GeneratePrivateKey()
	good, _ := json.Marshal(stranger("payment-service", key).Seal([]signature.PrivateKey{key}))
	f.Add(good)
	f.Add([]byte(`{"payload":"e30=","signatures":[{"key":"","signature":""}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, d, err := decode(b)
		if err != nil {
			return
		}
		keys, err := parseKeys(d.Keys)
		if err != nil || !s.signedByAny(keys) || checkServiceName(d.Service) != nil {
			t.Errorf("accepted %q", b)
		}
	})
}
