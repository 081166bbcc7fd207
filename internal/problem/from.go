package problem

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/signature"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

// From returns the answer for err, which must not be nil; Unwrap gives err back. What it does not know is `internal`:
// the caller logs that, since the client is told nothing of it. Whether there is something to log is Logged.
func From(err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	p := translate(err)
	p.cause = err
	return p
}

// Logged reports whether a person should read about p in the log: the client cannot help what happened.
func (p *Problem) Logged() bool { return p.Code == unknownCode || p.Code == "store_fenced" }

func translate(err error) *Problem {
	if e, ok := errors.AsType[*event.Error](err); ok {
		return fromEvent(e)
	}
	if e, ok := errors.AsType[*signature.StaleError](err); ok {
		return New("stale", "The webhook-timestamp is more than 5 minutes away from this clock: set both clocks right, then send again.").
			With("timestamp", e.Theirs.UTC().Format(time.RFC3339)).
			With("clock", e.Ours.UTC().Format(time.RFC3339Nano))
	}
	if e, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return tooLarge(e.Limit)
	}
	for _, known := range sentinels() {
		if errors.Is(err, known.err) {
			return New(known.code, known.detail)
		}
	}
	return New(unknownCode, "Something went wrong here; the log of this sidecar says what. Send again with the same id.")
}

func fromEvent(e *event.Error) *Problem {
	p := New(e.Code, e.Detail)
	p.Pointer = e.Pointer
	if e.Index >= 0 {
		index := e.Index
		p.Index = &index
	}
	return p
}

type sentinel struct {
	err          error
	code, detail string
}

// sentinels are tried in order.
func sentinels() []sentinel {
	return []sentinel{
		{signature.ErrMissing, "missing_signature", "Send webhook-id, webhook-timestamp and webhook-signature."},
		{signature.ErrDuplicateHeader, "duplicate_header", "Send each signature header once; several signatures go into one header, separated by spaces."},
		{signature.ErrBadTimestamp, "bad_timestamp", "The webhook-timestamp must be whole Unix seconds, digits only."},
		{signature.ErrBadID, "bad_signature", "The webhook-id must have 1 to 256 visible ASCII characters and no full stop."},
		{signature.ErrTooMany, "bad_signature", "The webhook-signature holds more than 8 signatures."},
		{signature.ErrDigest, "bad_signature", "The Content-Digest is not the SHA-256 of the body."},
		{signature.ErrNoMatch, "bad_signature", "No signature matches a key that may speak here: compare the keys on both sides."},
		{store.ErrFenced, "store_fenced", "The store failed and takes nothing more until this sidecar restarts. Send again with the same id."},
		{store.ErrClosed, "stopping", "This sidecar is stopping; nothing was stored. Send again."},
		{store.ErrDiskLow, "disk_low", "Disk space is low; nothing was stored. Make room on the volume of the data directory."},
		{store.ErrDiskFloor, "disk_floor", "The disk is full; nothing was stored. Make room on the volume of the data directory."},
		{store.ErrTooLarge, "too_large", "This does not fit in one transaction; nothing was stored. Send it in smaller parts."},
		{store.ErrReadExpired, "store_slow", "Reading took too long. Ask for less, or again later."},
		{context.DeadlineExceeded, "store_slow", "The store did not answer in time; nothing was stored. Send again with the same id."},
		{context.Canceled, "stopping", "The request was called off before anything was stored. Send again with the same id."},
	}
}
