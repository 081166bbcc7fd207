package sidecar

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/hooksidecar/hooksidecar/gossip"
	"github.com/hooksidecar/hooksidecar/inbox"
	"github.com/hooksidecar/hooksidecar/internal/config"
	"github.com/hooksidecar/hooksidecar/internal/dial"
	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/signature"
	"github.com/hooksidecar/hooksidecar/internal/store"
	"github.com/hooksidecar/hooksidecar/outbox"
)

// A Node is one sidecar. Its ports are taken from New on; it answers on them while Run runs.
type Node struct {
	settings  config.Config
	version   string
	log       *slog.Logger
	metrics   *metrics.Set
	startedAt time.Time
	used      atomic.Bool // Run or Close was called
	stopping  atomic.Bool
	progress  progress
	backup    sync.Mutex // held while one is written

	keys      []signature.PrivateKey
	store     *store.Store
	identity  identity
	directory *gossip.Directory
	outbox    *outbox.Outbox
	inbox     *inbox.Inbox

	app, peer, admin *server
	transport        *dial.Transport // nil if it is the caller's
}

// New opens the store, takes the ports and puts the parts together. Its errors: *config.Error, *BusyError, those of store.Open.
func New(c Config) (_ *Node, err error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	n := &Node{settings: c.Settings, version: c.Version, log: c.Log.With("service", c.Settings.Service), metrics: metrics.NewSet(), startedAt: time.Now()}
	var opened []func() error
	defer func() {
		for i := len(opened) - 1; i >= 0 && err != nil; i-- {
			err = errors.Join(err, opened[i]())
		}
	}()
	if n.keys, err = serviceKeys(n.settings, n.log); err != nil {
		return nil, err
	}
	if n.store, err = store.Open(storeConfig(c, n.log, n.metrics)); err != nil {
		return nil, err
	}
	opened = append(opened, n.store.Close)
	listeners, err := bindAll(n.settings)
	if err != nil {
		return nil, err
	}
	opened = append(opened, listeners.close)
	if err := n.assemble(c, advertisedURL(n.settings.Peer.Advertise, listeners.peer[0])); err != nil {
		return nil, err
	}
	n.serveOn(listeners)
	return n, nil
}

func storeConfig(c Config, log *slog.Logger, set *metrics.Set) store.Config {
	s := c.Settings
	return store.Config{
		Dir: s.DataDir, Service: s.Service, AcceptLoss: c.AcceptLoss,
		MinFreeBytes: int64(s.Store.MinFreeBytes), BallastBytes: int64(s.Store.BallastBytes), AllowUnsafeFS: s.Store.UnsafeFS,
		Log: log, Metrics: set,
	}
}

// listenerSet holds the addresses of the three listeners.
type listenerSet struct{ app, peer, admin []net.Listener }

func (l listenerSet) close() error {
	return errors.Join(closeAll(l.app), closeAll(l.peer), closeAll(l.admin))
}

func bindAll(c config.Config) (all listenerSet, err error) {
	for _, want := range []struct {
		name, address string
		conns         int
		found         *[]net.Listener
	}{
		{"app", c.App.Listen, maxAppConns, &all.app},
		{"peer", c.Peer.Listen, maxPeerConns, &all.peer},
		{"admin", c.Admin.Listen, maxAdminConns, &all.admin},
	} {
		addr, err := config.ParseAddress(want.address)
		if err == nil {
			*want.found, err = bind(want.name, addr, want.conns)
		}
		if err != nil {
			return listenerSet{}, errors.Join(bindFailed(want.name, err), all.close())
		}
	}
	return all, nil
}

// bindFailed tells what the settings are to blame for (an address of another machine, a port or path that is not ours to take)
// from what they are not.
func bindFailed(name string, err error) error {
	if _, busy := errors.AsType[*BusyError](err); busy {
		return err
	}
	for _, ours := range []error{errNoSocket, fs.ErrPermission, fs.ErrNotExist, syscall.EADDRNOTAVAIL} {
		if errors.Is(err, ours) {
			return badSetting(name+".listen", err.Error())
		}
	}
	return fmt.Errorf("%s listener: %w", name, err)
}

// assemble makes the parts, each from those before it.
func (n *Node) assemble(c Config, advertised string) (err error) {
	s := n.settings
	announce := n.announcement(advertised)
	n.identity, err = settleIdentity(context.Background(), n.store, s, func(id identity) ([]byte, error) { return json.Marshal(announce(id)) })
	if err != nil {
		return err
	}
	transport := c.Transport
	if transport == nil {
		n.transport = dial.NewTransport(dial.Config{AllowLoopback: meetsLoopback(s, advertised)})
		transport = n.transport
	}
	n.directory, err = gossip.New(gossip.Config{
		Service: s.Service, Instance: n.identity.Instance, Store: n.store, Keys: n.keys, Peers: s.Peers, Transport: transport,
		Self: func() gossip.Descriptor { return n.descriptor(announce) }, Log: n.log, Metrics: n.metrics,
	})
	if err != nil {
		return fmt.Errorf("directory: %w", err)
	}
	n.outbox, err = outbox.New(outbox.Config{
		Service: s.Service, Instance: n.identity.Instance, Store: n.store, Directory: n.directory, Keys: n.keys, Sources: s.Outbox.Sources,
		Transport: transport, Retention: s.Outbox.Retention, DedupWindow: s.Outbox.DedupWindow,
		MaxBytes: int64(s.Outbox.MaxBytes), MaxEventBytes: int(s.Outbox.MaxEventBytes), Log: n.log, Metrics: n.metrics,
	})
	if err != nil {
		return err
	}
	in, err := inboxConfig(s)
	if err != nil {
		return err
	}
	in.Instance, in.Store, in.Peers, in.Keys, in.Log, in.Metrics = n.identity.Instance, n.store, n.directory, n.keys, n.log, n.metrics
	in.PeerTransport = transport
	n.inbox, err = inbox.New(in)
	return err
}

func inboxConfig(s config.Config) (c inbox.Config, err error) {
	c = inbox.Config{
		Service: s.Service, DedupWindow: s.Inbox.DedupWindow, Retention: s.Inbox.Retention, MaxBytes: int64(s.Inbox.MaxBytes),
		App: inbox.App{URL: s.App.URL, Timeout: s.App.Timeout, Concurrency: s.App.Concurrency, ReadinessURL: s.App.ReadinessURL},
	}
	if s.App.Secret != "" {
		secret, err := signature.ParseSecret(s.App.Secret)
		if err != nil {
			return c, badSetting("app.secret", err.Error())
		}
		c.App.Secret = &secret
	}
	for i, sub := range s.App.Subscriptions {
		types, err := event.ParsePatterns(sub.Types)
		if err != nil {
			return c, badSetting(fmt.Sprintf("app.subscriptions[%d]", i), err.Error())
		}
		c.Subscriptions = append(c.Subscriptions, inbox.Subscription{Types: types, Path: sub.Path,
			Retry: inbox.Schedule{Initial: sub.Retry.Initial, MaxInterval: sub.Retry.MaxInterval, MaxAttempts: sub.Retry.MaxAttempts}})
	}
	return c, nil
}

// serveOn puts the routes behind their guards and these on the listeners.
func (n *Node) serveOn(l listenerSet) {
	tokens := tokenSums(n.settings.Admin.Tokens)
	build := func(name string, listeners []net.Listener, origin originRule, hosts []string, rt *router) *server {
		panics := n.metrics.NewCounter(`hooksidecar_http_panics_total{listener="` + name + `"}`)
		return newServer(name, listeners, &guard{next: rt, hosts: hosts, origin: origin, log: n.log, panics: panics}, n.log)
	}
	n.app = build("app", l.app, noBrowser, allowedHosts(l.app), &router{routes: n.appRoutes(), tokens: tokens})
	n.admin = build("admin", l.admin, sameOrigin, allowedHosts(l.admin), &router{routes: n.adminRoutes(), tokens: tokens})
	// Peers come by whatever name leads here, so there is no list of hosts: a signature says who speaks and to whom.
	n.peer = build("peer", l.peer, noOrigin, nil, &router{routes: n.peerRoutes()})
	n.metrics.NewGauge(fmt.Sprintf(`hooksidecar_info{service=%q,version=%q}`, n.settings.Service, n.version), func() float64 { return 1 })
}

// AppAddrs returns where the app listener listens: host:port or unix:/path.
func (n *Node) AppAddrs() []string { return addresses(n.app.listeners) }

// PeerAddrs returns where the peer listener listens.
func (n *Node) PeerAddrs() []string { return addresses(n.peer.listeners) }

// AdminAddrs returns where the admin listener listens.
func (n *Node) AdminAddrs() []string { return addresses(n.admin.listeners) }
