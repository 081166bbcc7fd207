package inbox

import (
	"net/http"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/deadletter"
)

// A class says what an answer of the app, or the lack of one, means for the event and for the app.
type class uint8

const (
	classDone        class = iota // 2xx: the event is settled
	classRetry                    // may go better later: an attempt is used
	classDenied                   // like classRetry, but it is about credentials, paths or proxies rather than the event
	classRefused                  // the app would refuse the same event again: a dead letter at once
	classGone                     // 410: the app no longer wants this subscription
	classThrottled                // the app asks for a pause
	classUnreachable              // certainly nothing was sent: the app is down
)

// String returns the class as a metric label.
func (c class) String() string {
	return [...]string{"done", "retry", "denied", "refused", "gone", "throttled", "unreachable"}[c]
}

// maxRetryAfter bounds the pause that an app can ask for.
const maxRetryAfter = 24 * time.Hour

// An answer is what came of one forward.
type answer struct {
	class      class
	retryAfter time.Duration // asked for by the app; 0: not asked for
	last       deadletter.Answer
	took       time.Duration
}

// classify returns what a final status means; asked says whether the answer carried a Retry-After.
func classify(status int, asked bool) class {
	switch {
	case status >= 200 && status < 300:
		return classDone
	case status >= 300 && status < 400:
		return classDenied
	}
	switch status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return classThrottled
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusProxyAuthRequired:
		return classDenied
	case http.StatusGone:
		return classGone
	case http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusNotAcceptable, http.StatusLengthRequired,
		http.StatusRequestEntityTooLarge, http.StatusRequestURITooLong, http.StatusUnsupportedMediaType,
		http.StatusUnprocessableEntity, http.StatusRequestHeaderFieldsTooLarge, http.StatusNotImplemented:
		return classRefused
	}
	if asked {
		return classThrottled
	}
	return classRetry // 408, 409, 425, 5xx, and what nobody has thought of: a later attempt does no harm
}
