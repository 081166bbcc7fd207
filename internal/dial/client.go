package dial

import (
	"context"
	"errors"
	"io"
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
			Transport:     attempt{c.Transport, c.Timeout},
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

// An attempt is one request with its own time limit. http.Client has one too, but spends a goroutine and a timer on each request
// if it does not know the transport. It also hides every other method of the transport, see Transport.
type attempt struct {
	transport http.RoundTripper
	timeout   time.Duration // with the body of the answer; 0: none
}

func (a attempt) RoundTrip(r *http.Request) (*http.Response, error) {
	if a.timeout <= 0 {
		return a.transport.RoundTrip(r)
	}
	ctx, cancel := context.WithTimeout(r.Context(), a.timeout)
	resp, err := a.transport.RoundTrip(r.WithContext(ctx))
	if err != nil {
		cancel()
		return nil, err
	}
	resp.Body = &timedBody{resp.Body, cancel}
	return resp, nil
}

// A timedBody ends the time limit when it is closed.
type timedBody struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b *timedBody) Close() error {
	err := b.ReadCloser.Close()
	b.cancel()
	return err
}

// onlyIfNothingSent leaves every other error, and every answer, to the caller.
func onlyIfNothingSent(ctx context.Context, _ *http.Response, err error) (bool, error) {
	_, forbidden := errors.AsType[*ForbiddenError](err)
	return err != nil && ctx.Err() == nil && !forbidden && NothingSent(err), nil
}

func jitter(least, most time.Duration, _ int, _ *http.Response) time.Duration {
	return least + rand.N(most-least)
}
