package gossip

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/hooksidecar/hooksidecar/internal/dial"
	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/signature"
)

const maxNesting = 16

// checkJSON refuses what two readers could understand in two ways: names that come twice in one object, also in other
// letters, bytes that are not UTF-8, and whatever follows the value.
func checkJSON(b []byte) error {
	if !utf8.Valid(b) {
		return errors.New("not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := checkValue(dec, 0); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("something follows the JSON value")
	}
	return nil
}

func checkValue(dec *json.Decoder, depth int) error {
	token, err := dec.Token()
	if err != nil {
		return err
	}
	open, ok := token.(json.Delim)
	if !ok {
		return nil
	}
	if depth == maxNesting {
		return errors.New("nested too deeply")
	}
	seen := make(map[string]bool)
	for dec.More() {
		if open == '{' {
			token, err := dec.Token()
			if err != nil {
				return err
			}
			name, _ := token.(string)
			name = strings.ToLower(strings.ToUpper(name)) // both, since some letters have one case only
			if seen[name] {
				return fmt.Errorf("member %.40q comes twice", name)
			}
			seen[name] = true
		}
		if err := checkValue(dec, depth+1); err != nil {
			return err
		}
	}
	_, err = dec.Token()
	return err
}

// check returns the keys of d, or what is wrong with d.
func (d *Descriptor) check() ([]signature.PublicKey, error) {
	if err := checkServiceName(d.Service); err != nil {
		return nil, err
	}
	if !isName(d.Instance) {
		return nil, fmt.Errorf("instance name %.80q: %s", d.Instance, nameRule)
	}
	if !isStoreID(d.StoreID) {
		return nil, fmt.Errorf("store id %.80q is none", d.StoreID)
	}
	if err := checkURL(d.URL); err != nil {
		return nil, err
	}
	if d.Protocol.Min < 1 || d.Protocol.Max < d.Protocol.Min {
		return nil, fmt.Errorf("protocol range %d to %d is none", d.Protocol.Min, d.Protocol.Max)
	}
	if err := d.checkSubscriptions(); err != nil {
		return nil, err
	}
	if len(d.Sources) > maxSources || len(d.Features) > maxFeatures {
		return nil, fmt.Errorf("%d sources and %d features, %d and %d are allowed", len(d.Sources), len(d.Features), maxSources, maxFeatures)
	}
	for _, s := range d.Sources {
		if s == "" || len(s) > maxSourceBytes {
			return nil, fmt.Errorf("source %.80q has %d bytes, 1 to %d are allowed", s, len(s), maxSourceBytes)
		}
	}
	return parseKeys(d.Keys)
}

func (d *Descriptor) checkSubscriptions() error {
	if len(d.Subscriptions) > MaxSubscriptions {
		return fmt.Errorf("%d subscriptions, %d are allowed", len(d.Subscriptions), MaxSubscriptions)
	}
	for _, s := range d.Subscriptions {
		if len(s.Types) == 0 || len(s.Types) > MaxPatterns {
			return fmt.Errorf("subscription with %d patterns, 1 to %d are allowed", len(s.Types), MaxPatterns)
		}
		if _, err := event.ParsePatterns(s.Types); err != nil {
			return err
		}
	}
	return nil
}

func parseKeys(list []string) ([]signature.PublicKey, error) {
	if len(list) == 0 || len(list) > signature.MaxKeys {
		return nil, fmt.Errorf("%d keys, 1 to %d are allowed", len(list), signature.MaxKeys)
	}
	keys := make([]signature.PublicKey, len(list))
	for i, s := range list {
		var err error
		if keys[i], err = signature.ParsePublicKey(s); err != nil {
			return nil, fmt.Errorf("key %d: %w", i+1, err)
		}
	}
	return keys, nil
}

const nameRule = "a name begins with a small letter and has at most 63 small letters, digits and hyphens"

func isName(s string) bool {
	return len(s) <= 63 && s != "" && s[0] >= 'a' && s[0] <= 'z' && consistsOf(s, "abcdefghijklmnopqrstuvwxyz0123456789-")
}

func consistsOf(s, alphabet string) bool {
	for i := range len(s) {
		if strings.IndexByte(alphabet, s[i]) < 0 {
			return false
		}
	}
	return true
}

func checkServiceName(s string) error {
	if !isName(s) {
		return fmt.Errorf("service name %.80q: %s", s, nameRule)
	}
	if s == "localhost" || s == "all" || s == "self" {
		return fmt.Errorf("service name %q is reserved", s)
	}
	return nil
}

func isStoreID(s string) bool {
	rest, ok := strings.CutPrefix(s, "st_")
	return ok && len(rest) >= 8 && len(rest) <= 64 && consistsOf(rest, "abcdefghijklmnopqrstuvwxyz0123456789")
}

// checkURL takes scheme, host and port, and nothing that could aim at something else than a peer listener.
func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || len(s) > 300 {
		return fmt.Errorf("url %.80q is none", s)
	}
	if (u.Scheme != "http" && u.Scheme != "https") || s != u.Scheme+"://"+u.Host {
		return fmt.Errorf("url %.80q: only http(s)://host:port is allowed", s)
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil || port == 0 {
		return fmt.Errorf("url %.80q has no port", s)
	}
	host := u.Hostname()
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr.Is4In6() || addr.Zone() != "" {
			return fmt.Errorf("url %.80q: the address is written in a form that is not allowed", s)
		}
		return dial.CheckAddr(addr, true) // loopback is for the dialler to decide
	}
	return checkHost(host)
}

// checkHost refuses names whose last label begins with a digit: systems read such names as addresses, in forms that our
// checks would not recognise.
func checkHost(host string) error {
	labels := strings.Split(host, ".")
	last := labels[len(labels)-1]
	ok := len(host) <= 253 && last != "" && (last[0] < '0' || last[0] > '9')
	for _, label := range labels {
		ok = ok && label != "" && len(label) <= 63 && consistsOf(label, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
	}
	if !ok {
		return fmt.Errorf("host name %.80q is none", host)
	}
	return nil
}
