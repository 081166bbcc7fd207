package signature

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestParseSecret(t *testing.T) {
	of := func(n int) string { return "whsec_" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, n)) }
	for name, row := range map[string]struct {
		in string
		ok bool
	}{
		"24 bytes":      {of(24), true},
		"64 bytes":      {of(64), true},
		"empty":         {"", false},
		"prefix alone":  {"whsec_", false},
		"23 bytes":      {of(23), false},
		"65 bytes":      {of(65), false},
		"zeros":         {"whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 32)), false},
		"no prefix":     {strings.TrimPrefix(of(32), "whsec_"), false},
		"other prefix":  {"whsk_" + strings.TrimPrefix(of(32), "whsec_"), false},
		"newline":       {of(32) + "\n", false},
		"no padding":    {strings.TrimRight(of(32), "="), false},
		"not base64":    {"whsec_" + strings.Repeat("!", 32), false},
		"inner newline": {of(24)[:20] + "\n" + of(24)[20:], false},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseSecret(row.in)
			if row.ok && (err != nil || got.Encode() != row.in) {
				t.Errorf("got %v, want it to be accepted and encoded as it came", err)
			}
			if !row.ok && !errors.Is(err, ErrBadKey) {
				t.Errorf("got %v, want %v", err, ErrBadKey)
			}
		})
	}
}

func TestParsePrivateKey(t *testing.T) {
	key := GeneratePrivateKey()
	seed := "whsk_" + base64.StdEncoding.EncodeToString(key.key()[:32])
	other := GeneratePrivateKey()
	mixed := "whsk_" + base64.StdEncoding.EncodeToString(append(bytes.Clone(key.key()[:32]), other.key()[32:]...))
	for name, in := range map[string]string{"seed and public half": key.Encode(), "seed alone": seed} {
		got, err := ParsePrivateKey(in)
		if err != nil || got.Public() != key.Public() || got.Encode() != key.Encode() {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, in := range map[string]string{
		"empty":             "",
		"other's public":    mixed,
		"zero seed":         "whsk_" + base64.StdEncoding.EncodeToString(make([]byte, 32)),
		"33 bytes":          "whsk_" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{1}, 33)),
		"a public key":      key.Public().String(),
		"a secret":          GenerateSecret().Encode(),
		"trailing newline":  key.Encode() + "\n",
		"without a padding": strings.TrimRight(key.Encode(), "="),
	} {
		_, err := ParsePrivateKey(in)
		if !errors.Is(err, ErrBadKey) {
			t.Errorf("%s: got %v, want %v", name, err, ErrBadKey)
		}
		if body := strings.TrimPrefix(in, "whsk_"); len(body) > 8 && strings.Contains(fmt.Sprint(err), body[:8]) {
			t.Errorf("%s: error shows the key: %v", name, err)
		}
	}
}

func TestParsePublicKeyRefusesDegenerateKeys(t *testing.T) {
	for name, hexKey := range map[string]string{
		"order 4":                "0000000000000000000000000000000000000000000000000000000000000000",
		"order 4, sign":          "0000000000000000000000000000000000000000000000000000000000000080",
		"identity":               "0100000000000000000000000000000000000000000000000000000000000000",
		"identity, sign":         "0100000000000000000000000000000000000000000000000000000000000080",
		"order 2":                "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"order 2, sign":          "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
		"order 8":                "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"order 8, sign":          "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
		"other order 8":          "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"other order 8, sign":    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
		"zero, other encoding":   "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"one, other encoding":    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"highest encoding":       "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
		"not a point":            "0200000000000000000000000000000000000000000000000000000000000000",
		"31 bytes":               "58666666666666666666666666666666666666666666666666666666666666",
		"33 bytes":               "586666666666666666666666666666666666666666666666666666666666666600",
		"nothing":                "",
		"a point, then the sign": "0200000000000000000000000000000000000000000000000000000000000080",
	} {
		raw, err := hex.DecodeString(hexKey)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParsePublicKey("whpk_" + base64.StdEncoding.EncodeToString(raw)); !errors.Is(err, ErrBadKey) {
			t.Errorf("%s: got %v, want %v", name, err, ErrBadKey)
		}
	}
}

// Half of all byte strings are points. The check must agree with the library about which, or it would refuse good keys.
func TestParsePublicKeyAcceptsRealKeys(t *testing.T) {
	for range 200 {
		key := GeneratePrivateKey().Public()
		got, err := ParsePublicKey(key.String())
		if err != nil || got != key {
			t.Fatalf("%s: %v", key, err)
		}
	}
	base := decoy()
	if _, err := ParsePublicKey(base.String()); err != nil {
		t.Errorf("base point: %v", err)
	}
}

func TestKeysDoNotShowThemselves(t *testing.T) {
	key, secret := GeneratePrivateKey(), GenerateSecret()
	type config struct {
		Key    PrivateKey
		Secret *Secret
		inner  struct{ key PrivateKey }
		ring   Ring
	}
	c := config{Key: key, Secret: &secret, ring: Ring{key}}
	c.inner.key = key
	var out bytes.Buffer
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%c", "%o", "%b", "%U"} {
		for _, v := range []any{key, &key, secret, &secret, c, &c, []any{key, secret}, Ring{key}} {
			fmt.Fprintf(&out, format+"\n", v)
		}
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("a", "key", key, "secret", &secret, "config", c, "ring", Ring{key})
	slog.New(slog.NewJSONHandler(&out, nil)).Info("a", "key", key, "secret", &secret, "config", c, "ring", Ring{key})
	if err := json.NewEncoder(&out).Encode(map[string]any{"key": key, "secret": &secret, "config": c}); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"key": key.key()[:ed25519.SeedSize], "secret": secret.key()} {
		decimal := strings.Trim(fmt.Sprint(b[:6]), "[]")
		for _, shown := range []string{
			base64.StdEncoding.EncodeToString(b)[:10], hex.EncodeToString(b)[:10], strings.ToUpper(hex.EncodeToString(b))[:10],
			decimal, strings.ReplaceAll(decimal, " ", ","), fmt.Sprintf("%x", b[:3]), string(b[:6]),
		} {
			if strings.Contains(out.String(), shown) {
				t.Errorf("%s shows as %q", name, shown)
			}
		}
	}
	if !strings.Contains(out.String(), "redacted") {
		t.Error("nothing redacted: this test proves nothing")
	}
}

func TestFingerprintTellsKeysApart(t *testing.T) {
	a, b := GeneratePrivateKey().Public(), GeneratePrivateKey().Public()
	if a.Fingerprint() == b.Fingerprint() || !strings.HasPrefix(a.Fingerprint(), "SHA256:") || len(a.Fingerprint()) != 50 {
		t.Errorf("fingerprints %s and %s", a.Fingerprint(), b.Fingerprint())
	}
}
