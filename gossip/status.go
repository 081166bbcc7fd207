package gossip

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// States of a PeerStatus. A configured peer is looked for until it answers, then known, and unreachable while it does not
// answer any more; it is refused while one side does not accept the other. An announced one is not configured here.
const (
	Looking     = "looking"
	Known       = "known"
	Unreachable = "unreachable"
	Refused     = "refused"
	Announced   = "announced"
	Itself      = "itself" // a configured URL that leads back here
)

const conflictShownFor = time.Minute // after the last attempt; peers try every 10 s

// A PeerStatus is how it stands with one peer.
type PeerStatus struct {
	URL               string
	Service, Instance string // "": it never answered
	State             string
	Error             string // "": none
	LastSeenAt        time.Time
	Fingerprint       string // of the keys that count for its service, with " or " between them
}

// Status returns the configured peers, in that order, then those that announced themselves.
func (d *Directory) Status() []PeerStatus {
	all := make([]PeerStatus, 0, len(d.links))
	for _, l := range d.links {
		all = append(all, l.status())
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	var announced []PeerStatus
	for name, s := range d.services {
		for instance, k := range s.instances {
			p := PeerStatus{URL: k.url(), Service: name, Instance: instance, State: Announced, Error: d.conflictOf(name, instance), LastSeenAt: k.seenAt}
			i := slices.IndexFunc(all, func(p PeerStatus) bool { return p.Service == name && p.Instance == instance })
			if i < 0 {
				announced = append(announced, p)
				continue
			}
			all[i].LastSeenAt = later(all[i].LastSeenAt, k.seenAt)
			all[i].Error = cmp.Or(all[i].Error, p.Error)
		}
	}
	for name, c := range d.conflicts { // claims of names that nobody here has, such as our own
		service, instance, _ := strings.Cut(name, "/")
		same := func(p PeerStatus) bool { return p.Service == service && p.Instance == instance }
		if time.Since(c.at) < conflictShownFor && !slices.ContainsFunc(all, same) && !slices.ContainsFunc(announced, same) {
			announced = append(announced, PeerStatus{Service: service, Instance: instance, State: Refused, Error: c.detail, LastSeenAt: c.at})
		}
	}
	slices.SortFunc(announced, func(a, b PeerStatus) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Instance, b.Instance))
	})
	all = append(all, announced...)
	for i := range all {
		all[i].Fingerprint = d.fingerprintOf(all[i].Service)
	}
	return all
}

// fingerprintOf is of the keys that count for a service, "" if none do. The caller holds d.mu.
func (d *Directory) fingerprintOf(name string) string {
	if name == d.cfg.Service {
		return d.cfg.Keys[0].Public().Fingerprint()
	}
	if s := d.services[name]; s != nil {
		return fingerprints(s.pin.Keys)
	}
	return ""
}

// conflictOf returns what was refused lately in the name of an instance, "" if nothing was. The caller holds d.mu.
func (d *Directory) conflictOf(service, instance string) string {
	c, ok := d.conflicts[service+"/"+instance]
	if !ok || time.Since(c.at) > conflictShownFor {
		return ""
	}
	return c.detail
}

func (l *link) status() PeerStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := PeerStatus{URL: l.url, Service: l.service, Instance: l.instance, Error: l.failing, LastSeenAt: l.seenAt}
	switch {
	case l.refused:
		p.State = Refused
	case l.echoes && l.failing == "":
		p.State = Itself
	case l.failing == "" && !l.seenAt.IsZero():
		p.State = Known
	case l.service != "" && l.failing != "":
		p.State = Unreachable
	default:
		p.State = Looking
	}
	return p
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
