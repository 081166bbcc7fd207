package dial

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"
)

// Defaults of Config.
const (
	DefaultDialTimeout   = 2 * time.Second
	DefaultHeaderTimeout = 10 * time.Second
	DefaultIdleTimeout   = 60 * time.Second
	DefaultPerHost       = 8
	maxHeaderBytes       = 16 << 10
)

// Config says how connections are made.
type Config struct {
	AllowLoopback bool          // for apps, and for peers of a mesh on one host
	DialTimeout   time.Duration // with name resolution; 0: 2 s
	HeaderTimeout time.Duration // from the last byte of a request to the first of its answer; 0: 10 s; -1: none
	IdleTimeout   time.Duration // after which an idle connection is closed; 0: 60 s
	PerHost       int           // connections to one host at once, further requests wait; 0: 8; -1: no limit
	UnixSocket    string        // dial this path whatever the URL says; "": TCP
}

func (c Config) settled() Config {
	orElse := func(d *time.Duration, otherwise time.Duration) {
		if *d == 0 {
			*d = otherwise
		}
		*d = max(*d, 0)
	}
	orElse(&c.DialTimeout, DefaultDialTimeout)
	orElse(&c.HeaderTimeout, DefaultHeaderTimeout)
	orElse(&c.IdleTimeout, DefaultIdleTimeout)
	if c.PerHost == 0 {
		c.PerHost = DefaultPerHost
	}
	c.PerHost = max(c.PerHost, 0)
	return c
}

// A Transport makes requests over its own connections. It deliberately has no CloseIdleConnections:
// retryablehttp calls that after every request without success, and so a peer that fails would cost all the others
// their connections. Close does it once, at the end.
type Transport struct{ inner *http.Transport }

// NewTransport returns a transport of its own connections, shared by all that is sent through it.
func NewTransport(c Config) *Transport {
	c = c.settled()
	dialer := &net.Dialer{Timeout: c.DialTimeout, KeepAlive: 15 * time.Second, Control: c.control}
	dialContext := dialer.DialContext
	if c.UnixSocket != "" {
		dialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: c.DialTimeout}).DialContext(ctx, "unix", c.UnixSocket)
		}
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &Transport{inner: &http.Transport{
		DialContext:            dialContext,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    max(c.PerHost, DefaultPerHost),
		MaxConnsPerHost:        c.PerHost,
		IdleConnTimeout:        c.IdleTimeout,
		TLSHandshakeTimeout:    3 * time.Second,
		ResponseHeaderTimeout:  c.HeaderTimeout,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: maxHeaderBytes,
		Protocols:              protocols,
		WriteBufferSize:        32 << 10, // a batch in few system calls
		ReadBufferSize:         8 << 10,
	}}
}

// ErrSwitched says that the answer was 101 Switching Protocols, which nothing here asks for.
var ErrSwitched = errors.New("answered 101 Switching Protocols, which was not asked for")

// RoundTrip makes one request. It follows nothing, and an answer that switches protocols is ErrSwitched: what comes after
// it is the bare connection, whose reads no time limit of the client ends.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.inner.RoundTrip(r)
	if err == nil && resp.StatusCode == http.StatusSwitchingProtocols {
		_ = resp.Body.Close() // and with it the connection
		return nil, ErrSwitched
	}
	return resp, err
}

// Close closes the idle connections. Requests under way go on.
func (t *Transport) Close() { t.inner.CloseIdleConnections() }
