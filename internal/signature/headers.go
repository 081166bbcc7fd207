package signature

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Names of the three headers of Standard Webhooks.
const (
	HeaderID        = "Webhook-Id"
	HeaderTimestamp = "Webhook-Timestamp"
	HeaderSignature = "Webhook-Signature"
)

// ErrDuplicateHeader refuses a request that carries one of the three headers, or Content-Digest, twice: what one
// reader takes from the first, another takes from the last.
var ErrDuplicateHeader = errors.New("duplicate signature header")

// Headers are the values of the three headers.
type Headers struct{ ID, Timestamp, Signature string }

// HeadersFrom reads the three headers of a request or an answer. Errors: ErrMissing, ErrDuplicateHeader.
func HeadersFrom(h http.Header) (Headers, error) {
	var got Headers
	for name, dst := range map[string]*string{HeaderID: &got.ID, HeaderTimestamp: &got.Timestamp, HeaderSignature: &got.Signature} {
		values := h[name]
		if len(values) > 1 {
			return Headers{}, fmt.Errorf("%w: %s", ErrDuplicateHeader, name)
		}
		if len(values) == 1 {
			*dst = values[0]
		}
	}
	if got.ID == "" || got.Timestamp == "" || got.Signature == "" {
		return Headers{}, ErrMissing
	}
	return got, nil
}

// A Signer makes the value of webhook-signature: a PrivateKey, a Ring or a Secret.
type Signer interface {
	// Sign signs `id.timestamp.body`. An id is what Verify takes for one, see there.
	Sign(id string, at time.Time, body []byte) string
}

// SetHeaders signs body and sets the three headers, replacing those that are there.
func SetHeaders(h http.Header, s Signer, id string, at time.Time, body []byte) {
	h[HeaderID] = []string{id}
	h[HeaderTimestamp] = []string{formatTimestamp(at)}
	h[HeaderSignature] = []string{s.Sign(id, at, body)}
}
