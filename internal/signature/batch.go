package signature

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
)

// HeaderContentDigest carries the hash of a batch (RFC 9530).
const HeaderContentDigest = "Content-Digest"

// ErrDigest refuses a batch whose Content-Digest is absent, malformed or another body's.
var ErrDigest = errors.New("content-digest does not match the body")

// BatchContent returns what the signature of a batch covers in place of its body, the base64 of its SHA-256, and the
// value of Content-Digest. Ed25519 reads its message twice: signing the hash is four times cheaper.
func BatchContent(body []byte) (content []byte, digestHeader string) {
	sum := sha256.Sum256(body)
	content = base64.StdEncoding.AppendEncode(nil, sum[:])
	return content, "sha-256=:" + string(content) + ":"
}

// VerifyBatchDigest checks that the Content-Digest of h is that of body, and returns the content to verify the
// signature over. Errors: ErrDigest, ErrDuplicateHeader.
func VerifyBatchDigest(h http.Header, body []byte) (content []byte, err error) {
	values := h[HeaderContentDigest]
	if len(values) > 1 {
		return nil, fmt.Errorf("%w: %s", ErrDuplicateHeader, HeaderContentDigest)
	}
	content, want := BatchContent(body)
	if len(values) == 0 || subtle.ConstantTimeCompare([]byte(values[0]), []byte(want)) != 1 {
		return nil, ErrDigest
	}
	return content, nil
}
