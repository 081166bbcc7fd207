package gossip

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/hooksidecar/hooksidecar/internal/backoff"
	"github.com/hooksidecar/hooksidecar/internal/dial"
	"github.com/hooksidecar/hooksidecar/internal/signature"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

// Config is what a Directory is made of. Service, Instance, Store, Self and Keys are required.
type Config struct {
	Service, Instance string
	Store             *store.Store
	Self              func() Descriptor      // what to tell others now; asked at every exchange
	Keys              []signature.PrivateKey // of the service, the current one first
	Peers             []string               // URLs of peer listeners to exchange descriptors with, for ever

	Transport http.RoundTripper // to peers; nil: one of its own that does not reach loopback
	Retry     backoff.Policy    // of a peer that does not answer; zero: 100 ms to 10 s
	Interval  time.Duration     // between exchanges with a peer that does, give or take a fifth; 0: 10 s
	Timeout   time.Duration     // of one exchange; 0: 5 s

	Log     *slog.Logger // nil: discard
	Metrics *metrics.Set // nil: one that nobody reads
}

func (c Config) withDefaults() Config {
	if c.Transport == nil {
		c.Transport = dial.NewTransport(dial.Config{})
	}
	if c.Retry == (backoff.Policy{}) {
		c.Retry = backoff.Policy{Base: 100 * time.Millisecond, Max: 10 * time.Second}
	}
	if c.Interval == 0 {
		c.Interval = 10 * time.Second
	}
	if c.Timeout == 0 {
		c.Timeout = 5 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = metrics.NewSet()
	}
	return c
}

// validate returns every problem at once.
func (c Config) validate() error {
	var errs []error
	if err := checkServiceName(c.Service); err != nil {
		errs = append(errs, err)
	}
	if !isName(c.Instance) {
		errs = append(errs, fmt.Errorf("instance name %q: %s", c.Instance, nameRule))
	}
	if c.Store == nil {
		errs = append(errs, errors.New("store is not set"))
	}
	if len(c.Keys) == 0 {
		errs = append(errs, errors.New("no key to sign with"))
	}
	for _, p := range c.Peers {
		if _, err := baseURL(p); err != nil {
			errs = append(errs, err)
		}
	}
	if c.Self == nil {
		errs = append(errs, errors.New("own descriptor is not set"))
	} else if _, err := Open(c.Self().Seal(c.Keys)); err != nil {
		errs = append(errs, fmt.Errorf("own descriptor: %w", err))
	}
	return errors.Join(errs...)
}

// baseURL returns a configured peer's URL without the slash at its end. Unlike an announced one it may have a path, for
// a proxy in between.
func baseURL(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return "", fmt.Errorf("peer %q: write it as http://host:port", s)
	}
	return strings.TrimRight(s, "/"), nil
}
