package gossip

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/signature"
)

// A Directory holds what is known of all sidecars, this one included. Its methods may be called from everywhere; the
// slices that they return are the caller's, what is in them is shared and only to be read.
type Directory struct {
	cfg     Config
	metrics *meters
	links   []*link // one per configured peer

	accepting chan struct{} // held by the one that decides about a descriptor, until it is stored

	hurry chan string // services that somebody wants to know more of now

	mu        sync.RWMutex
	services  map[string]*service // without our own, except for its other instances
	changed   chan struct{}
	conflicts map[string]conflict // by service/instance, as claimed
	loggedAt  time.Time           // when a conflict was logged last
}

// conflict is the last refusal of a descriptor of one name.
type conflict struct {
	detail string
	at     time.Time
}

// service is what is known of one service.
type service struct {
	pin       pin
	keys      []signature.PublicKey // of pin, parsed
	instances map[string]*known
}

// known is one instance of a service.
type known struct {
	signed     Signed
	descriptor Descriptor
	via        string   // configured URL under which it answered last; "": it announced itself
	former     []string // store ids that it had before
	seenAt     time.Time
}

func (k *known) url() string {
	if k.via != "" {
		return k.via
	}
	return k.descriptor.URL
}

// New reads what was known when the process ended last. Errors are about the configuration or the store.
func New(c Config) (*Directory, error) {
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("gossip: %w", err)
	}
	d := &Directory{
		cfg:       c.withDefaults(),
		accepting: make(chan struct{}, 1),
		services:  make(map[string]*service),
		changed:   make(chan struct{}),
		conflicts: make(map[string]conflict),
		hurry:     make(chan string, 16),
	}
	d.cfg.Log = d.cfg.Log.With("component", "gossip")
	for _, p := range c.Peers {
		url, _ := baseURL(p) // validated
		if !slices.ContainsFunc(d.links, func(l *link) bool { return l.url == url }) {
			d.links = append(d.links, newLink(url))
		}
	}
	if err := d.load(); err != nil {
		return nil, fmt.Errorf("read what is known of peers: %w", err)
	}
	d.metrics = newMeters(d.cfg.Metrics, d.count)
	return d, nil
}

// Instances returns the known instances of a service, reachable or not, in no order. Of our own service this one is
// among them.
func (d *Directory) Instances(name string) []event.Instance {
	var all []event.Instance
	if name == d.cfg.Service {
		self := d.cfg.Self()
		all = append(all, self.instance(self.URL))
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	if s := d.services[name]; s != nil {
		for _, k := range s.instances {
			all = append(all, k.descriptor.instance(k.url()))
		}
	}
	return all
}

// Services returns the names of all known services, our own included, in alphabetical order.
func (d *Directory) Services() []string {
	d.mu.RLock()
	defer d.mu.RUnlock()
	names := []string{d.cfg.Service}
	for name, s := range d.services {
		if name != d.cfg.Service && len(s.instances) > 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// All returns all known instances of all services, this one included, in no order.
func (d *Directory) All() []event.Instance {
	var all []event.Instance
	for _, name := range d.Services() {
		all = append(all, d.Instances(name)...)
	}
	return all
}

// Changed returns a channel that is closed at the next change; ask for it before reading.
func (d *Directory) Changed() <-chan struct{} {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.changed
}

// Keys returns the public keys that may sign for a service, or none if it is not known.
func (d *Directory) Keys(name string) []signature.PublicKey {
	if name == d.cfg.Service {
		return d.ownKeys()
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	if s := d.services[name]; s != nil {
		return slices.Clone(s.keys)
	}
	return nil
}

func (d *Directory) ownKeys() []signature.PublicKey {
	keys := make([]signature.PublicKey, len(d.cfg.Keys))
	for i, k := range d.cfg.Keys {
		keys[i] = k.Public()
	}
	return keys
}

// MaySpeakFor reports whether a service may send events of a source: of its own name, and of the sources that it
// announced before any other did. The name of a known service is nobody else's source.
func (d *Directory) MaySpeakFor(name, source string) bool {
	if source == name {
		return d.knows(name)
	}
	own := source == d.cfg.Service || slices.Contains(d.cfg.Self().Sources, source)
	if own || name == d.cfg.Service {
		return own && name == d.cfg.Service
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	s := d.services[name]
	_, taken := d.services[source]
	return s != nil && !taken && slices.Contains(s.pin.Sources, source)
}

// knows reports whether a service is ours or was ever seen.
func (d *Directory) knows(name string) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	_, ok := d.services[name]
	return ok || name == d.cfg.Service
}

// count returns how many other instances are known.
func (d *Directory) count() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	n := 0
	for _, s := range d.services {
		n += len(s.instances)
	}
	return n
}

// announceChange wakes everybody who waits for Changed. The caller holds d.mu.
func (d *Directory) announceChange() {
	close(d.changed)
	d.changed = make(chan struct{})
}
