package outbox

import (
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/hooksidecar/hooksidecar/internal/backoff"
	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/signature"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

// Directory tells who is there. In the running node it is a *gossip.Directory. What it answers is the caller's to read.
type Directory interface {
	// Services returns the names of all services that are known.
	Services() []string
	// Instances returns the known instances of service, reachable or not, in no order.
	Instances(service string) []event.Instance
	// Changed returns a channel that is closed at the next change; ask for it before reading.
	Changed() <-chan struct{}
	// Refresh asks for newer descriptors of service soon. It does not wait.
	Refresh(service string)
	// Keys returns the public keys that may sign for service.
	Keys(service string) []signature.PublicKey
}

// Config is what an Outbox is made of. Service, Instance, Store and Directory are required.
type Config struct {
	Service, Instance string
	Store             *store.Store
	Directory         Directory
	Keys              []signature.PrivateKey // sign every batch; none: nothing is sent
	Sources           []string               // other services that this app may publish for

	Transport     http.RoundTripper // to other sidecars; nil: one of its own, which loopback may be reached by
	Retry         backoff.Policy    // of a lane that does not get through; zero: 250 ms to 30 s
	FailoverAfter time.Duration     // how long a lane may fail before others take over what may move; 0: 30 s

	OrderWait time.Duration // how long keys wait for an instance that is lost and has not said that it is done with them; 0: 10 min; negative: for ever

	Retention     time.Duration // how long a settled event is kept; 0: 7 days
	DedupWindow   time.Duration // how long an id is remembered; 0: 7 days
	MaxBytes      int64         // of all events kept; 0: a quarter of the disk, at most 10 GiB
	MaxEventBytes int           // of one event; 0: event.MaxEventBytes, which is also the most
	AcceptTimeout time.Duration // how long a publish may wait for the committer; 0: 2 s

	Log     *slog.Logger // nil: discard
	Metrics *metrics.Set // nil: one that nobody reads
}

const (
	maxLogBytes = 10 << 30
	week        = 7 * 24 * time.Hour
)

// withDefaults returns c with its zero fields filled in.
func (c Config) withDefaults() Config {
	if c.Retry == (backoff.Policy{}) {
		c.Retry = backoff.Policy{Base: 250 * time.Millisecond, Max: 30 * time.Second}
	}
	defaultTo(&c.FailoverAfter, 30*time.Second)
	defaultTo(&c.OrderWait, 10*time.Minute)
	defaultTo(&c.Retention, week)
	defaultTo(&c.DedupWindow, week)
	defaultTo(&c.AcceptTimeout, 2*time.Second)
	if c.MaxEventBytes <= 0 || c.MaxEventBytes > event.MaxEventBytes {
		c.MaxEventBytes = event.MaxEventBytes
	}
	if c.MaxBytes == 0 {
		space := c.Store.Space()
		if c.MaxBytes = (space.FreeBytes + space.UsedBytes) / 4; c.MaxBytes <= 0 || c.MaxBytes > maxLogBytes {
			c.MaxBytes = maxLogBytes
		}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = metrics.NewSet()
	}
	return c
}

func defaultTo(d *time.Duration, value time.Duration) {
	if *d == 0 {
		*d = value
	}
}

// validate returns every problem at once.
func (c Config) validate() error {
	var errs []error
	if c.Service == "" {
		errs = append(errs, errors.New("outbox: no service name"))
	}
	if c.Instance == "" {
		errs = append(errs, errors.New("outbox: no instance name"))
	}
	if c.Store == nil {
		errs = append(errs, errors.New("outbox: no store"))
	}
	if c.Directory == nil {
		errs = append(errs, errors.New("outbox: no directory"))
	}
	if c.FailoverAfter < 0 || c.Retention < 0 || c.DedupWindow < 0 || c.AcceptTimeout < 0 || c.MaxBytes < 0 {
		errs = append(errs, errors.New("outbox: a negative duration or limit"))
	}
	return errors.Join(errs...)
}
