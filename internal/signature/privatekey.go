package signature

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"log/slog"
	"time"
)

const privatePrefix = "whsk_"

// A PrivateKey signs for a service with Ed25519. The zero PrivateKey signs nothing.
type PrivateKey struct {
	key func() ed25519.PrivateKey // nil in the zero PrivateKey; a closure for the reason that Secret gives
}

// GeneratePrivateKey returns a new random key.
func GeneratePrivateKey() PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	_, _ = rand.Read(seed) // never fails: the process ends if the system has no randomness
	key := ed25519.NewKeyFromSeed(seed)
	return PrivateKey{key: func() ed25519.PrivateKey { return key }}
}

// ParsePrivateKey reads `whsk_` followed by the base64 of seed and public key (64 bytes), or of the seed alone (32
// bytes). A public half that does not belong to the seed is refused: signing with such a pair gives the key away.
// Errors wrap ErrBadKey and do not contain the key.
func ParsePrivateKey(s string) (PrivateKey, error) {
	b, err := decodeKey(s, privatePrefix)
	if err != nil {
		return PrivateKey{}, err
	}
	if len(b) != ed25519.SeedSize && len(b) != ed25519.PrivateKeySize {
		return PrivateKey{}, fmt.Errorf("%w: a private key has %d or %d bytes, this one %d",
			ErrBadKey, ed25519.SeedSize, ed25519.PrivateKeySize, len(b))
	}
	seed := b[:ed25519.SeedSize]
	if allZero(seed) {
		return PrivateKey{}, fmt.Errorf("%w: the seed is all zeros", ErrBadKey)
	}
	key := ed25519.NewKeyFromSeed(seed)
	if len(b) == ed25519.PrivateKeySize && subtle.ConstantTimeCompare(b, key) != 1 {
		return PrivateKey{}, fmt.Errorf("%w: the public half does not belong to the seed", ErrBadKey)
	}
	return PrivateKey{key: func() ed25519.PrivateKey { return key }}, nil
}

// Public returns the key that others verify with; the zero PublicKey for the zero PrivateKey.
func (k PrivateKey) Public() PublicKey {
	if k.IsZero() {
		return PublicKey{}
	}
	return PublicKey{raw: [ed25519.PublicKeySize]byte(k.key()[ed25519.SeedSize:])}
}

// Sign returns the header value `v1a,<base64>`. The zero PrivateKey returns "", which no verifier accepts.
func (k PrivateKey) Sign(id string, at time.Time, body []byte) string {
	if k.IsZero() {
		return ""
	}
	c := signed{id: id, timestamp: formatTimestamp(at), body: body}
	return "v1a," + base64.StdEncoding.EncodeToString(ed25519.Sign(k.key(), c.bytes()))
}

// SignRaw signs prefix + payload; prefix keeps signatures of different purposes apart. It returns 64 bytes, or nil for
// the zero PrivateKey.
func (k PrivateKey) SignRaw(prefix string, payload []byte) []byte {
	if k.IsZero() {
		return nil
	}
	return ed25519.Sign(k.key(), append([]byte(prefix), payload...))
}

// IsZero reports whether k is the zero PrivateKey.
func (k PrivateKey) IsZero() bool { return k.key == nil }

// Encode returns the key itself, as ParsePrivateKey reads it, or "" for the zero PrivateKey: for key files only.
func (k PrivateKey) Encode() string {
	if k.IsZero() {
		return ""
	}
	return encodeKey(privatePrefix, k.key())
}

// String hides the key. The fingerprint of the public key is what tells keys apart.
func (k PrivateKey) String() string { return redact(privatePrefix, k.IsZero()) }

// Format hides the key from every verb of fmt.
func (k PrivateKey) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(k.String())) }

// LogValue hides the key.
func (k PrivateKey) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText hides the key, so that a configuration can be printed.
func (k PrivateKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Ring is the live private keys of one service, the current one first. It signs once per key, so that whoever knows
// one of them, old or new, can verify.
type Ring []PrivateKey

// Sign returns one signature per key, separated by spaces, at most MaxSignatures.
func (r Ring) Sign(id string, at time.Time, body []byte) string {
	if len(r) == 1 {
		return r[0].Sign(id, at, body)
	}
	var header []byte
	for i, k := range r[:min(len(r), MaxSignatures)] {
		if i > 0 {
			header = append(header, ' ')
		}
		header = append(header, k.Sign(id, at, body)...)
	}
	return string(header)
}
