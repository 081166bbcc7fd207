package signature

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/big"
	"slices"
)

const publicPrefix = "whpk_"

// A PublicKey verifies what the private key of a service signed. Public keys can be compared with ==. The zero
// PublicKey verifies nothing.
type PublicKey struct{ raw [ed25519.PublicKeySize]byte }

// ParsePublicKey reads `whpk_` followed by the base64 of 32 bytes. It refuses, with an error that wraps ErrBadKey,
// bytes that are not the one encoding of a point of the curve, and points of small order: for those anybody can make
// signatures.
func ParsePublicKey(s string) (PublicKey, error) {
	b, err := decodeKey(s, publicPrefix)
	if err != nil {
		return PublicKey{}, err
	}
	if len(b) != ed25519.PublicKeySize {
		return PublicKey{}, fmt.Errorf("%w: a public key has %d bytes, this one %d", ErrBadKey, ed25519.PublicKeySize, len(b))
	}
	if err := checkPoint(b); err != nil {
		return PublicKey{}, err
	}
	return PublicKey{raw: [ed25519.PublicKeySize]byte(b)}, nil
}

// checkPoint looks at the y coordinate alone: the curve, x²·(d·y²+1) = y²-1, says whether there is an x to it, and the
// eight points of small order have five values of y.
func checkPoint(b []byte) error {
	le := bytes.Clone(b)
	le[31] &= 0x7f // the top bit is the sign of x
	slices.Reverse(le)
	y := new(big.Int).SetBytes(le)

	one := big.NewInt(1)
	p := new(big.Int).Sub(new(big.Int).Lsh(one, 255), big.NewInt(19))
	if y.Cmp(p) >= 0 {
		return fmt.Errorf("%w: the point has another encoding", ErrBadKey)
	}
	if smallOrder(y, p) {
		return fmt.Errorf("%w: the point is of small order", ErrBadKey)
	}
	// d = -121665/121666
	d := new(big.Int).Mul(big.NewInt(-121665), new(big.Int).ModInverse(big.NewInt(121666), p))
	yy := new(big.Int).Mul(y, y)
	u := new(big.Int).Sub(yy, one)
	v := d.Mul(d, yy)
	v.Add(v, one)
	uv := u.Mul(u, v)
	if big.Jacobi(uv.Mod(uv, p), p) == -1 { // u/v is a square exactly if u·v is
		return fmt.Errorf("%w: not a point of the curve", ErrBadKey)
	}
	return nil
}

// smallOrder reports whether y belongs to a point of order 1 (y=1), 2 (y=-1), 4 (y=0) or 8 (two values, y and -y).
func smallOrder(y, p *big.Int) bool {
	if y.BitLen() <= 1 || new(big.Int).Sub(p, y).Cmp(big.NewInt(1)) == 0 {
		return true
	}
	// In the byte order of keys: 26e8…fc05 and c717…037a.
	order8, _ := new(big.Int).SetString("05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826", 16)
	return y.Cmp(order8) == 0 || y.Cmp(order8.Sub(p, order8)) == 0
}

// VerifyRaw reports whether sig is k's signature over prefix + payload.
func (k PublicKey) VerifyRaw(prefix string, payload, sig []byte) bool {
	return k.verify(append([]byte(prefix), payload...), sig)
}

func (k PublicKey) verifies(c *signed, v version, sig []byte) bool {
	return v == v1a && k.verify(c.bytes(), sig)
}

// verify refuses the zero key by name: as bytes it is a point of order 4.
func (k PublicKey) verify(message, sig []byte) bool {
	return !k.IsZero() && len(sig) == ed25519.SignatureSize && ed25519.Verify(k.raw[:], message, sig)
}

// IsZero reports whether k is the zero PublicKey.
func (k PublicKey) IsZero() bool { return k == PublicKey{} }

// String returns the key as ParsePublicKey reads it, or "" for the zero PublicKey.
func (k PublicKey) String() string {
	if k.IsZero() {
		return ""
	}
	return encodeKey(publicPrefix, k.raw[:])
}

// Fingerprint returns what people compare: `SHA256:` and the base64 of the key's hash, as ssh shows it.
func (k PublicKey) Fingerprint() string {
	sum := sha256.Sum256(k.raw[:])
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}
