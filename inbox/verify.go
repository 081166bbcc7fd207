package inbox

import (
	"errors"
	"net/http"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/problem"
	"github.com/hooksidecar/hooksidecar/internal/signature"
)

// verifyBatch checks that the body of a batch was signed by one of the sender's keys, lately.
func (in *Inbox) verifyBatch(h signature.Headers, header http.Header, body []byte, service string, now time.Time) error {
	keys, err := in.keysOf(service)
	if err != nil {
		return err
	}
	content, err := signature.VerifyBatchDigest(header, body)
	if err != nil {
		return err
	}
	return signature.Verify(h, content, now, keys)
}

// keysOf returns the keys that a service signs with.
func (in *Inbox) keysOf(service string) ([]signature.Key, error) {
	keys := in.cfg.Peers.Keys(service)
	if len(keys) == 0 {
		return nil, problem.New("unknown_sender", "This sidecar knows no key of "+quoted(service)+
			": it must be a member of the mesh or a static peer. It may become known shortly.")
	}
	return signature.PublicKeys(keys), nil
}

// failureReason returns the metric label of a request that was refused before anything of it was believed.
func failureReason(err error) string {
	var stale *signature.StaleError
	switch {
	case errors.As(err, &stale):
		return "stale"
	case errors.Is(err, signature.ErrMissing):
		return "missing"
	case errors.Is(err, signature.ErrBadTimestamp):
		return "bad_timestamp"
	case errors.Is(err, signature.ErrDigest):
		return "digest"
	case errors.Is(err, signature.ErrDuplicateHeader):
		return "duplicate_header"
	}
	if p, ok := errors.AsType[*problem.Problem](err); ok && p.Code == "unknown_sender" {
		return "unknown_sender"
	}
	return "no_match"
}
