package inbox

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/signature"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

// Defaults of Config.
const (
	DefaultTimeout     = 15 * time.Second
	DefaultConcurrency = 32
	DefaultInitial     = time.Second
	DefaultMaxInterval = 10 * time.Minute
	DefaultMaxAttempts = 16
	DefaultWindow      = 7 * 24 * time.Hour
	DefaultRetention   = 7 * 24 * time.Hour
	DefaultMaxBytes    = 10 << 30
)

// Peers tells who may send. In the running node it is a *gossip.Directory.
type Peers interface {
	// Keys returns the public keys that service signs with, or none if it is not known.
	Keys(service string) []signature.PublicKey
	// MaySpeakFor reports whether service may send events of source.
	MaySpeakFor(service, source string) bool
	// Instances returns the known instances of service, reachable or not.
	Instances(service string) []event.Instance
	// Changed returns a channel that is closed at the next change of what is known; nil if there never is one.
	Changed() <-chan struct{}
}

// Config says what an inbox belongs to, whom it believes, and how it treats the app.
type Config struct {
	Service  string // events must be addressed to it
	Instance string
	Store    *store.Store
	Peers    Peers
	Keys     []signature.PrivateKey // answers are signed with each; at least one

	App           App
	Subscriptions []Subscription    // tried in this order for each event
	Transport     http.RoundTripper // to the app; nil: one of its own, which keeps a connection per concurrent request
	PeerTransport http.RoundTripper // to other instances of the service; nil: one of its own

	DedupWindow time.Duration // how long an id is remembered; 0: 7 d
	Retention   time.Duration // how long a settled event is kept; 0: 7 d
	MaxBytes    int64         // of unsettled events, beyond which senders are told busy; 0: 10 GiB

	Log     *slog.Logger // nil: discard
	Metrics *metrics.Set // nil: a set of its own
}

// App is the service next door.
type App struct {
	URL          string            // http or https; subscriptions add their path
	Secret       *signature.Secret // signs requests; nil: they are not signed
	Timeout      time.Duration     // of one forward; 0: 15 s
	Concurrency  int               // forwards at once; 0: 32
	ReadinessURL string            // nothing is forwarded unless it answers 2xx; empty: not asked
}

// A Subscription says which events the app wants where, and how they are repeated.
type Subscription struct {
	Types event.Patterns
	Path  string // appended to the app's URL; empty: as it is
	Retry Schedule
}

// A Schedule says when a failed forward is repeated: Initial, doubled each time, at most MaxInterval, with full jitter.
type Schedule struct {
	Initial     time.Duration // 0: 1 s
	MaxInterval time.Duration // 0: 10 min
	MaxAttempts int           // after these an event is a dead letter; 0: 16
}

// settle fills in defaults and returns every problem at once.
func (c *Config) settle() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Service == "" {
		bad("service is not set")
	}
	if c.Store == nil {
		bad("store is not set")
	}
	if c.Peers == nil {
		bad("peers are not set")
	}
	if len(c.Keys) == 0 {
		bad("no key to sign answers with")
	}
	if len(c.Subscriptions) > 0 && c.App.URL == "" {
		bad("subscriptions need the url of the app")
	}
	for name, raw := range map[string]string{"app url": c.App.URL, "readiness url": c.App.ReadinessURL} {
		if raw == "" {
			continue
		}
		if u, err := url.Parse(raw); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			bad("%s %q is not an http url", name, raw)
		}
	}
	for i := range c.Subscriptions {
		s := &c.Subscriptions[i]
		if len(s.Types) == 0 {
			bad("subscription %d has no types", i+1)
		}
		if s.Path != "" && !strings.HasPrefix(s.Path, "/") {
			bad("subscription %d: path %q does not begin with /", i+1, s.Path)
		}
		s.Retry.settle()
	}
	orDefault(&c.App.Timeout, DefaultTimeout)
	orDefault(&c.App.Concurrency, DefaultConcurrency)
	orDefault(&c.DedupWindow, DefaultWindow)
	orDefault(&c.Retention, DefaultRetention)
	orDefault(&c.MaxBytes, DefaultMaxBytes)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Log = c.Log.With("component", "inbox")
	if c.Metrics == nil {
		c.Metrics = metrics.NewSet()
	}
	return errors.Join(errs...)
}

func (s *Schedule) settle() {
	orDefault(&s.Initial, DefaultInitial)
	orDefault(&s.MaxInterval, DefaultMaxInterval)
	orDefault(&s.MaxAttempts, DefaultMaxAttempts)
}

func orDefault[T int | int64 | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

// identity names a subscription across restarts, as long as its types and path stay the same.
func (s *Subscription) identity() string {
	return strings.Join(s.Types.Strings(), ",") + " " + s.Path
}

// subscriptionOf returns the index of the first subscription that matches, or -1.
func (c *Config) subscriptionOf(typ, version string) int {
	for i := range c.Subscriptions {
		if c.Subscriptions[i].Types.Match(typ, version) {
			return i
		}
	}
	return -1
}
