package signature

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"log/slog"
	"time"
)

// Lengths of a shared secret in bytes, from the specification.
const (
	MinSecretBytes = 24
	MaxSecretBytes = 64
)

const secretPrefix = "whsec_"

// A Secret is shared with an app or an outside system and signs with HMAC-SHA256. The zero Secret signs nothing and
// verifies nothing.
type Secret struct {
	// key is nil in the zero Secret. A closure, since fmt prints unexported fields, of whatever struct holds this one,
	// without asking for methods; into a function nothing can look.
	key func() []byte
}

// GenerateSecret returns a new random secret of 32 bytes.
func GenerateSecret() Secret {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails: the process ends if the system has no randomness
	return Secret{key: func() []byte { return key }}
}

// ParseSecret reads `whsec_` followed by the base64 of 24 to 64 bytes. Other lengths, and a secret of zeros only, are
// refused with an error that wraps ErrBadKey and does not contain the secret.
func ParseSecret(s string) (Secret, error) {
	b, err := decodeKey(s, secretPrefix)
	if err != nil {
		return Secret{}, err
	}
	if len(b) < MinSecretBytes || len(b) > MaxSecretBytes {
		return Secret{}, fmt.Errorf("%w: a secret has %d to %d bytes, this one %d", ErrBadKey, MinSecretBytes, MaxSecretBytes, len(b))
	}
	if allZero(b) {
		return Secret{}, fmt.Errorf("%w: the secret is all zeros", ErrBadKey)
	}
	return Secret{key: func() []byte { return b }}, nil
}

// Sign returns the header value `v1,<base64>`. The zero Secret returns "", which no verifier accepts.
func (s Secret) Sign(id string, at time.Time, body []byte) string {
	if s.IsZero() {
		return ""
	}
	sum := s.sum(signed{id: id, timestamp: formatTimestamp(at), body: body})
	return "v1," + base64.StdEncoding.EncodeToString(sum)
}

func (s Secret) sum(c signed) []byte {
	h := hmac.New(sha256.New, s.key())
	c.writeTo(h)
	return h.Sum(nil)
}

func (s Secret) verifies(c *signed, v version, sig []byte) bool {
	return v == v1 && !s.IsZero() && hmac.Equal(sig, s.sum(*c))
}

// HexHMAC returns the value of X-Event-Signature: `sha256=` and the hex HMAC-SHA256 of body, the form that most
// webhook receivers know. It is "" for the zero Secret.
func HexHMAC(secret Secret, body []byte) string {
	if secret.IsZero() {
		return ""
	}
	h := hmac.New(sha256.New, secret.key())
	h.Write(body)
	return "sha256=" + hex.EncodeToString(h.Sum(nil))
}

// IsZero reports whether s is the zero Secret.
func (s Secret) IsZero() bool { return s.key == nil }

// Encode returns the secret itself, as ParseSecret reads it, or "" for the zero Secret.
func (s Secret) Encode() string {
	if s.IsZero() {
		return ""
	}
	return encodeKey(secretPrefix, s.key())
}

// String hides the secret.
func (s Secret) String() string { return redact(secretPrefix, s.IsZero()) }

// Format hides the secret from every verb of fmt.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// LogValue hides the secret.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText hides the secret, so that a configuration can be printed.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func redact(prefix string, zero bool) string {
	if zero {
		return "(none)"
	}
	return prefix + "[redacted]"
}
