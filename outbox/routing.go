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
	d.dropLanes()
	slices.SortFunc(d.lanes, func(a, b *lane) int { return compareName(a.name, b.name) })
	for _, p := range peers {
		if !slices.Contains(d.said[p.name].Former, p.storeID) { // else the directory is behind what has answered
			d.notice(p.name, p.storeID)
		}
	}
}

func (d *dispatcher) dropLanes() {
	d.lanes = slices.DeleteFunc(d.lanes, func(l *lane) bool { return !l.known && l.inFlight == nil })
}

// route returns the lane for it, or nil if no known instance wants it. Its home is chosen over the known instances, not over
// who answers; an event without a key leaves a home that is stuck, except for one that tries whether it still is.
func (d *dispatcher) route(it *item, now time.Time) *lane {
	if it.epoch != d.epoch {
		it.home, it.epoch = d.best(it, func(*lane) bool { return true }), d.epoch
	}
	home := it.home
	if home == nil || it.key != 0 || !home.stuck(now, d.failover) {
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
