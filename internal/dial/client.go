package dial

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

// ClientConfig says how requests are made.
type ClientConfig struct {
	Transport http.RoundTripper // required; usually a *Transport
	Timeout   time.Duration     // of one attempt with its answer's body; 0: the request's context alone
	// Prepare is called before a quick repeat, to sign it afresh; nil: the same bytes again. The first attempt is
	// signed by the caller.
	Prepare func(*http.Request) error
}

// NewClient returns a client that repeats a request once, 50 to 250 ms later, if nothing of it was sent. Redirects are
// answers like any other. The last answer or error is returned as it is; its body is the caller's to read and close.
func NewClient(c ClientConfig) *retryablehttp.Client {
	return &retryablehttp.Client{
		HTTPClient: &http.Client{
			Transport:     onlyRoundTrip{c.Transport},
			Timeout:       c.Timeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		RetryMax:     1,
		RetryWaitMin: 50 * time.Millisecond,
		RetryWaitMax: 250 * time.Millisecond,
		CheckRetry:   onlyIfNothingSent,
		Backoff:      jitter,
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
		PrepareRetry: c.Prepare,
	}
}

// onlyRoundTrip hides every other method of the transport, see Transport.
type onlyRoundTrip struct{ http.RoundTripper }

// onlyIfNothingSent leaves every other error, and every answer, to the caller.
func onlyIfNothingSent(ctx context.Context, _ *http.Response, err error) (bool, error) {
	_, forbidden := errors.AsType[*ForbiddenError](err)
	return err != nil && ctx.Err() == nil && !forbidden && NothingSent(err), nil
}

func jitter(least, most time.Duration, _ int, _ *http.Response) time.Duration {
	return least + rand.N(most-least)
}
