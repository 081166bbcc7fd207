package outbox

import (
	"slices"
	"time"
)

// setPeers takes the instances that are known now.
func (d *dispatcher) setPeers(peers []peer) {
	d.epoch++
	d.rename(peers)
	d.mix(peers)
	for _, l := range d.lanes {
		l.known = l.known && slices.ContainsFunc(peers, func(p peer) bool { return p.name == l.name })
	}
	for _, p := range peers {
		if i := slices.IndexFunc(d.lanes, func(l *lane) bool { return l.name == p.name }); i >= 0 {
			d.lanes[i].update(p)
			continue
		}
		l := newLane(p)
		l.answered = d.said[p.name]
		d.lanes = append(d.lanes, l)
	}
	d.respread()
	d.forgetSpreads()
	d.dropLanes()
	slices.SortFunc(d.lanes, func(a, b *lane) int { return compareName(a.name, b.name) })
	for _, p := range peers {
		if !slices.Contains(d.said[p.name].Former, p.storeID) { // else the directory is behind what has answered
			d.notice(p.name, p.storeID)
		}
	}
}

func (d *dispatcher) dropLanes() {
	d.lanes = slices.DeleteFunc(d.lanes, func(l *lane) bool { return !l.known && !l.busy() && !d.keeps(l) })
}

// route returns the lane for it, or what keeps it from going to any; no lane and nothing if no known instance wants it. Its home is
// chosen over the known instances, not over who answers; an event without a key leaves a home that is stuck, except for one that
// tries whether it still is.
func (d *dispatcher) route(it *item, now time.Time) (l *lane, why string) {
	if it.key != 0 {
		return d.routeKey(it)
	}
	return d.routeFree(it, now), ""
}

func (d *dispatcher) routeFree(it *item, now time.Time) *lane {
	if it.epoch != d.epoch {
		it.home, it.epoch = d.best(it, func(*lane) bool { return true }), d.epoch
	}
	home := it.home
	if home == nil || !home.stuck(now, d.failover) {
		return home
	}
	if home.ready(now) && len(home.next) == 0 {
		return home
	}
	if other := d.best(it, func(l *lane) bool { return !l.stuck(now, d.failover) }); other != nil {
		return other
	}
	return home
}

func (d *dispatcher) best(it *item, ok func(*lane) bool) *lane {
	var best *lane
	var most uint64
	for _, l := range d.lanes {
		if l.known && l.wants(it.typ, it.version) && ok(l) {
			if s := l.score(it.route); best == nil || s > most {
				best, most = l, s
			}
		}
	}
	return best
}

func (d *dispatcher) anyKnown() bool {
	return slices.ContainsFunc(d.lanes, func(l *lane) bool { return l.known })
}

// remindLanes makes lanes for the instances that an earlier process may have given events to: until the directory names them,
// they are not known.
func (d *dispatcher) remindLanes() {
	spreads := d.former
	if d.spread != nil {
		spreads = append(slices.Clone(spreads), *d.spread)
	}
	for _, s := range slices.Backward(spreads) {
		for _, m := range s.Members {
			if d.lane(m.Name) != nil {
				continue
			}
			said := d.said[m.Name]
			l := newLane(peer{name: m.Name, url: m.URL, storeID: said.StoreID, patterns: m.patterns})
			l.known, l.answered = false, said
			d.lanes = append(d.lanes, l)
		}
	}
	slices.SortFunc(d.lanes, func(a, b *lane) int { return compareName(a.name, b.name) })
}

// hasPeers reports whether peers are those that are known already.
func (d *dispatcher) hasPeers(peers []peer) bool {
	n := 0
	for _, l := range d.lanes {
		if l.known {
			n++
		}
	}
	return n == len(peers) && !slices.ContainsFunc(peers, func(p peer) bool {
		return !slices.ContainsFunc(d.lanes, func(l *lane) bool { return l.known && l.samePeer(&p) })
	})
}
