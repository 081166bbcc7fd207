package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/signature"
)

// serviceName is what services and instances are called: it goes into file names, host names and metric labels.
var serviceName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)

const (
	nameRule = "a small letter, then at most 62 small letters, digits or dashes"

	// maxEventBytes keeps a record below the size from which the store would keep it apart from its key.
	maxEventBytes  = event.MaxEventBytes
	minEventBytes  = 1 << 10
	maxConcurrency = 10_000
	maxAttempts    = 1_000
	maxPatterns    = 64 // of a subscription, and subscriptions: a descriptor holds no more
	minTokenBytes  = 16
)

// check reports everything that is wrong with values that could be read.
func (l *loader) check() {
	l.checkNames()
	l.checkListeners()
	l.checkURLs()
	l.checkSubscriptions()
	l.checkSecrets()
	l.checkLimits()
}

func (l *loader) checkNames() {
	c := &l.config
	switch {
	case c.Service == "" && l.where["service"] == "":
		l.problem("service", "required: name the service with --service, HOOKSIDECAR_SERVICE or \"service:\" in %s", DefaultFile)
	case c.Service == "": // why is reported already
	case !serviceName.MatchString(c.Service):
		l.wrong("service", "%q is not a service name: %s", c.Service, nameRule)
	}
	if c.Instance != "" && !serviceName.MatchString(c.Instance) {
		l.wrong("instance", "%q is not an instance name: %s", c.Instance, nameRule)
	}
	for _, source := range c.Outbox.Sources {
		if !serviceName.MatchString(source) {
			l.wrong("outbox.sources", "%q is not a source name: %s", source, nameRule)
		}
	}
	dir, key := filepath.Clean(c.DataDir), filepath.Clean(c.Keys.Signing)
	if dir == "/" {
		l.wrong("data_dir", "the root directory is no place for a store")
	}
	if rel, err := filepath.Rel(dir, key); c.DataDir != "" && c.Keys.Signing != "" && err == nil && filepath.IsLocal(rel) {
		l.wrong("keys.signing", "%s is inside the data directory: a key must not be copied or lost with the store", c.Keys.Signing)
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level) {
		l.wrong("log.level", "%q is none of debug, info, warn, error", c.Log.Level)
	}
	if !slices.Contains([]string{"auto", "text", "json"}, c.Log.Format) {
		l.wrong("log.format", "%q is none of auto, text, json", c.Log.Format)
	}
}

func (l *loader) checkListeners() {
	c := &l.config
	if c.PortBase < 1 || c.PortBase > 65535-3 {
		l.wrong("port_base", "%d is out of range: 1 to %d", c.PortBase, 65535-3)
		return
	}
	var taken []Address
	for _, listener := range []struct {
		name, value string
		guarded     bool
	}{{"app.listen", c.App.Listen, true}, {"peer.listen", c.Peer.Listen, false}, {"admin.listen", c.Admin.Listen, true}} {
		addr, err := ParseAddress(listener.value)
		switch {
		case err != nil:
			l.wrong(listener.name, "%v", err)
			continue
		case addr.Unix != "" && !listener.guarded:
			l.wrong(listener.name, "other sidecars cannot reach a unix socket")
		case !addr.Local() && listener.guarded && c.Admin.TokenFile == "":
			l.wrong(listener.name, "%s can be reached from elsewhere: name a file with a bearer token in admin.token_file, or use localhost", addr)
		case slices.Contains(taken, addr) && addr.Port != 0, addr.Unix != "" && slices.Contains(taken, addr):
			l.wrong(listener.name, "%s is used by another listener too", addr)
		}
		taken = append(taken, addr)
	}
}

func (l *loader) checkURLs() {
	c := &l.config
	if c.App.URL != "" {
		if _, err := httpURL(c.App.URL, true); err != nil {
			l.wrong("app.url", "%v", err)
		}
	}
	if c.App.ReadinessURL != "" {
		if _, err := httpURL(c.App.ReadinessURL, true); err != nil {
			l.wrong("app.readiness_url", "%v", err)
		}
	}
	for _, peer := range c.Peers {
		if _, err := httpURL(peer, false); err != nil {
			l.wrong("peers", "%v", err)
		}
	}
	if c.Peer.Advertise == "" {
		return
	}
	u, err := httpURL(c.Peer.Advertise, false)
	if err != nil {
		l.wrong("peer.advertise", "%v", err)
	} else if ip, err := netip.ParseAddr(u.Hostname()); err == nil && ip.IsUnspecified() {
		l.wrong("peer.advertise", "nobody can connect to %s: give the address that others use", u.Hostname())
	}
}

// httpURL accepts scheme, host, port and, if path is set, a path.
func httpURL(s string, path bool) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return nil, fmt.Errorf("%q is not a URL: write http://host:port", s)
	case u.User != nil:
		return nil, fmt.Errorf("the URL of %s holds a user name or password: they would end up in logs", u.Host)
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, fmt.Errorf("%q has a query or fragment", s)
	case !path && strings.Trim(u.Path, "/") != "":
		return nil, fmt.Errorf("%q has a path: write only http://host:port", s)
	}
	return u, nil
}

func (l *loader) checkSubscriptions() {
	c := &l.config
	if len(c.App.Subscriptions) > 0 && c.App.URL == "" {
		l.wrong("app.subscriptions", "events are subscribed to but app.url does not say where they go")
	}
	for i, s := range c.App.Subscriptions {
		place := fmt.Sprintf("app.subscriptions[%d]", i)
		if l.where[place] == "" {
			l.where[place] = l.where["app.subscriptions"]
		}
		l.checkSubscription(place, s)
	}
	if n := len(c.App.Subscriptions); n > maxPatterns {
		l.wrong("app.subscriptions", "%d subscriptions are too many, at most %d", n, maxPatterns)
	}
}

func (l *loader) checkSubscription(place string, s Subscription) {
	if _, err := event.ParsePatterns(s.Types); err != nil {
		l.wrong(place, "%v", err)
	} else if !slices.ContainsFunc(s.Types, func(p string) bool { return !strings.HasPrefix(p, "!") }) {
		l.wrong(place, "no type is asked for: give types such as order.*")
	} else if len(s.Types) > maxPatterns {
		l.wrong(place, "%d patterns are too many, at most %d", len(s.Types), maxPatterns)
	}
	if s.Path != "" && (!strings.HasPrefix(s.Path, "/") || strings.ContainsAny(s.Path, "?#\\ ") || strings.Contains(s.Path, "//") || strings.Contains(s.Path, "..")) {
		l.wrong(place, "%q is not a path: write it as /events", s.Path)
	}
	if s.From != "latest" && s.From != "earliest" {
		if _, err := time.Parse(time.RFC3339, s.From); err != nil {
			l.wrong(place, "from %q is neither latest, earliest nor a time such as 2026-02-03T10:30:00Z", s.From)
		}
	}
	l.checkRetry(place, place, place, s.Retry)
}

func (l *loader) checkRetry(initial, interval, attempts string, r Retry) {
	switch {
	case r.Initial < time.Millisecond:
		l.wrong(initial, "the first wait is at least 1ms")
	case r.Initial > r.MaxInterval:
		l.wrong(interval, "the greatest wait (%s) is shorter than the first (%s)", r.MaxInterval, r.Initial)
	}
	if r.MaxAttempts < 1 || r.MaxAttempts > maxAttempts {
		l.wrong(attempts, "%d attempts: 1 to %d are possible", r.MaxAttempts, maxAttempts)
	}
}

func (l *loader) checkSecrets() {
	c := &l.config
	if c.App.Secret != "" {
		if _, err := signature.ParseSecret(c.App.Secret); err != nil {
			l.wrong("app.secret", "%v", err)
		}
	}
	for i, token := range c.Admin.Tokens {
		if len(token) < minTokenBytes || strings.ContainsAny(token, " \t") {
			l.wrong("admin.token_file", "line %d of %s: a token has at least %d characters and no spaces", i+1, c.Admin.TokenFile, minTokenBytes)
		}
	}
}

func (l *loader) checkLimits() {
	c := &l.config
	l.checkRetry("retry.initial", "retry.max_interval", "retry.max_attempts", c.Retry)
	if c.App.Timeout < time.Millisecond || c.App.Timeout > time.Hour {
		l.wrong("app.timeout", "%s is out of range: 1ms to 1h", c.App.Timeout)
	}
	if c.App.Concurrency < 1 || c.App.Concurrency > maxConcurrency {
		l.wrong("app.concurrency", "%d is out of range: 1 to %d", c.App.Concurrency, maxConcurrency)
	}
	if c.Outbox.MaxEventBytes < minEventBytes || c.Outbox.MaxEventBytes > maxEventBytes {
		l.wrong("outbox.max_event_bytes", "%d is out of range: %d to %d", c.Outbox.MaxEventBytes, minEventBytes, maxEventBytes)
	}
	for _, d := range []struct {
		name string
		d    time.Duration
	}{{"outbox.retention", c.Outbox.Retention}, {"outbox.dedup_window", c.Outbox.DedupWindow},
		{"inbox.retention", c.Inbox.Retention}, {"inbox.dedup_window", c.Inbox.DedupWindow}, {"shutdown.timeout", c.Shutdown.Timeout}} {
		if d.d < time.Second {
			l.wrong(d.name, "%s is too short: at least 1s", d.d)
		}
	}
}
