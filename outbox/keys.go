package outbox

import (
	"cmp"
	"hash/fnv"
	"slices"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/event"
)

// A key moves to another instance only when the one that had it is drained: it says what it has open in every answer, and what
// it was sent without an answer is still open here. All that lets a key move is durable before anything of it is sent.

// maxFormerSpreads is how many earlier spreads are told apart.
const maxFormerSpreads = 8

// A spread is a set of instances that keys are spread over: those that are known and can be reached. It never changes.
type spread struct {
	Members []member `json:"members"`
	Until   uint64   `json:"until,omitempty"` // of a former one: the last seq that was sent where it says
	Any     bool     `json:"any,omitempty"`   // of several former ones taken together: any member may have had any key
}

// A member is one instance of a spread.
type member struct {
	Name  string     `json:"name"`
	URL   string     `json:"url,omitempty"`
	Types [][]string `json:"types"` // of its subscriptions

	hash     uint64
	patterns []event.Patterns
}

func nameHash(name string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(name))
	return h.Sum64()
}

func (s *spread) compile() error {
	for i := range s.Members {
		m := &s.Members[i]
		m.hash, m.patterns = nameHash(m.Name), nil
		for _, types := range m.Types {
			p, err := event.ParsePatterns(types)
			if err != nil {
				return err
			}
			m.patterns = append(m.patterns, p)
		}
	}
	return nil
}

// home returns the name of the instance that has the events of a key like it, or "".
func (s *spread) home(it *item) (name string) {
	var most uint64
	for _, m := range s.Members {
		if (&peer{patterns: m.patterns}).wants(it.typ, it.version) {
			if n := scoreOf(m.hash, it.route); name == "" || n > most {
				name, most = m.Name, n
			}
		}
	}
	return name
}

// gave reports whether name may have been given it while s was the spread.
func (s *spread) gave(name string, it *item) bool {
	if s.Any {
		return s.has(name)
	}
	return s.home(it) == name
}

func (s *spread) has(name string) bool {
	return slices.ContainsFunc(s.Members, func(m member) bool { return m.Name == name })
}

func (s *spread) same(o *spread) bool {
	return s.Any == o.Any && slices.EqualFunc(s.Members, o.Members, func(a, b member) bool {
		return a.Name == b.Name && slices.EqualFunc(a.Types, b.Types, slices.Equal[[]string])
	})
}

// respread spreads the keys over the instances that are known and can be reached. If that changes where keys go, it is durable
// before anything is sent there.
func (d *dispatcher) respread() {
	now := &spread{}
	for _, away := range []bool{false, true} { // those that are away only if there is nobody else
		for _, l := range d.lanes {
			if l.known && l.away == away {
				now.Members = append(now.Members, l.member())
			}
		}
		if len(now.Members) > 0 {
			break
		}
	}
	switch {
	case len(now.Members) == 0:
		return // nobody is known: nothing can go anywhere
	case d.spread != nil && d.spread.same(now):
		d.spread = now // addresses may have changed
		return
	case d.spread != nil:
		d.remember(*d.spread)
	}
	d.spread = now
	for _, m := range now.Members { // what it has open counts again, before anything is sent to it
		if r := d.said[m.Name]; r.Passed {
			r.Passed = false
			d.hears(m.Name, r)
		}
	}
	d.moves++
	d.decide()
}

// decide makes what was decided durable before anything more is sent.
func (d *dispatcher) decide() {
	d.decision++
	d.pending.mustWrite = true
}

func (l *lane) member() member {
	m := member{Name: l.name, URL: l.url, hash: l.hash, patterns: l.patterns}
	for _, p := range l.patterns {
		m.Types = append(m.Types, p.Strings())
	}
	return m
}

// remember keeps a spread that has been replaced, until its members are done with what they were given under it.
func (d *dispatcher) remember(s spread) {
	s.Until = max(d.top(), d.atOpen-1) // an earlier process may have sent what this one has not read yet
	for i := range d.former {
		if d.former[i].same(&s) {
			d.former[i].Until = s.Until
			return
		}
	}
	d.former = append(d.former, s)
	if len(d.former) > maxFormerSpreads {
		a, b := d.former[0], d.former[1]
		both := spread{Members: slices.Concat(a.Members, b.Members), Until: max(a.Until, b.Until), Any: true}
		slices.SortFunc(both.Members, func(a, b member) int { return cmp.Compare(a.Name, b.Name) })
		both.Members = slices.CompactFunc(both.Members, func(a, b member) bool { return a.Name == b.Name })
		d.former = slices.Concat([]spread{both}, d.former[2:])
	}
}

// renamed notes that an instance goes by another name now: what it was given under the old one cannot be told by its name.
func (d *dispatcher) renamed(from, to string) {
	for i := range d.former {
		if s := &d.former[i]; s.has(from) {
			s.Members, s.Any = append(slices.Clone(s.Members), member{Name: to, hash: nameHash(to)}), true
		}
	}
	if d.spread != nil && d.spread.has(from) {
		s := *d.spread
		s.Members, s.Any = append(slices.Clone(s.Members), member{Name: to, hash: nameHash(to)}), true
		d.remember(s)
	}
}

// forgetSpreads forgets former spreads whose members have nothing open any more of what they were given under them.
func (d *dispatcher) forgetSpreads() {
	if len(d.former) == 0 {
		return
	}
	n := len(d.former)
	d.former = slices.DeleteFunc(d.former, func(s spread) bool {
		return !slices.ContainsFunc(s.Members, func(m member) bool {
			return d.said[m.Name].holdsOf(s) || d.kept[m.Name].holdsOf(s) || d.unsure(m.Name)
		})
	})
	d.pending.moved = d.pending.moved || len(d.former) != n
}

func (r instanceRecord) holdsOf(s spread) bool {
	return !r.Passed && (r.OpenAll || len(r.OpenKeys) > 0) && r.Applied < s.Until
}

// unsure reports whether an event of a key was sent to the instance and nobody knows whether it arrived.
func (d *dispatcher) unsure(name string) bool {
	l := d.lane(name)
	unheard := l != nil && !l.heard && d.spreadOver(name)
	return unheard && d.after < d.atOpen || slices.ContainsFunc(d.open, func(it *item) bool {
		return it.key != 0 && (it.at != nil && it.at.name == name || unheard && it.seq < d.atOpen)
	})
}

// spreadOver reports whether an instance may have been given keys that go elsewhere now, or will: the spread stays while nobody is
// known.
func (d *dispatcher) spreadOver(name string) bool {
	return len(d.former) > 0 || d.spread != nil && d.spread.has(name)
}

// mayHold reports whether an instance that said r may have events open of the key of it.
func mayHold(r instanceRecord, former []spread, name string, it *item) bool {
	if r.Passed {
		return false
	}
	if _, listed := slices.BinarySearch(r.OpenKeys, it.key); listed {
		return true
	}
	return r.OpenAll && slices.ContainsFunc(former, func(s spread) bool { return r.Applied < s.Until && s.gave(name, it) })
}

// mayHaveBeenSent reports whether an earlier process may have sent it to l, which has not said anything to this one.
func (d *dispatcher) mayHaveBeenSent(l *lane, it *item) bool {
	return it.seq < d.atOpen && !l.heard && !d.said[l.name].Passed && slices.ContainsFunc(d.former, func(s spread) bool {
		return it.seq <= s.Until && s.gave(l.name, it)
	})
}

func (d *dispatcher) lane(name string) *lane {
	if i := slices.IndexFunc(d.lanes, func(l *lane) bool { return l.name == name }); i >= 0 {
		return d.lanes[i]
	}
	return nil
}

// routeKey returns the lane for an event with a key, or what keeps it. It goes to the instance that still has earlier ones of its
// key open, as long as there is one, and else to its home. It waits if two may have them: one that says only that any key may be
// open need not have this one, and the other may.
func (d *dispatcher) routeKey(it *item) (l *lane, why string) {
	home := d.keyHome(it)
	it.strays = false
	if len(d.lanes) == 1 && (it.at == nil || it.at == home) {
		return home, ""
	}
	var holder *lane
	n := 0
	for _, l := range d.lanes {
		if l == home {
			continue
		}
		if d.mayHaveBeenSent(l, it) {
			n++ // it is asked first
		} else if l != it.at && !d.holds(l, it) {
			continue
		}
		holder, n = l, n+1
		l.needed = true
	}
	if n == 0 {
		return home, ""
	}
	it.strays = true
	if it.at == nil && home != nil && d.homeHolds(home, it) {
		home.needed = true
		return nil, heldByOwner // either may have it
	}
	if n == 1 && holder.known && (it.at == holder || it.at == nil && holder.wants(it.typ, it.version)) {
		return holder, ""
	}
	return nil, heldByOwner
}

// parts reports whether earlier events of its key go to another lane than l in this turn: it waits for their answer.
func (d *dispatcher) parts(it *item, l *lane) bool {
	if it.key == 0 || len(d.lanes) == 1 {
		return false
	}
	earlier, ok := d.going[it.key]
	if !ok {
		d.going[it.key] = l
	}
	return ok && earlier != l
}

// holds reports whether l may have events of the key of it open, by what it said last or by what is durable of that.
func (d *dispatcher) holds(l *lane, it *item) bool {
	if mayHold(d.said[l.name], d.former, l.name, it) {
		return true
	}
	if !mayHold(d.kept[l.name], d.former, l.name, it) {
		return false
	}
	d.pending.mustWrite = true // it is drained, and only not durably
	return true
}

// homeHolds reports whether l, the home of it, may have earlier events of its key open: those of the spread that keys go by too.
func (d *dispatcher) homeHolds(l *lane, it *item) bool {
	r := d.said[l.name]
	return r.OpenAll && !r.Passed || d.holds(l, it)
}

func (d *dispatcher) keyHome(it *item) *lane {
	if it.moves != d.moves || it.keyEpoch != d.epoch {
		it.moves, it.keyEpoch, it.keyHome = d.moves, d.epoch, nil
		if d.spread != nil {
			it.keyHome = d.lane(d.spread.home(it))
		}
		if it.keyHome == nil || !it.keyHome.known {
			it.keyHome = d.best(it, func(*lane) bool { return true })
		}
	}
	return it.keyHome
}

// givenAstray notes that l is sent events whose home is elsewhere.
func (d *dispatcher) givenAstray(l *lane) {
	for _, it := range l.inFlight {
		if !it.strays {
			continue
		}
		for i := range d.former {
			if s := &d.former[i]; s.gave(l.name, it) {
				s.Until = max(s.Until, it.seq)
			}
		}
	}
}

// keeps reports whether l, which is no longer known, may have keys open that would go elsewhere now.
func (d *dispatcher) keeps(l *lane) bool {
	for _, r := range []instanceRecord{d.said[l.name], d.kept[l.name]} {
		if !r.Passed && (len(r.OpenKeys) > 0 || r.OpenAll && d.spreadOver(l.name)) {
			return true
		}
	}
	return d.unsure(l.name)
}

// A passing is that keys went on although an instance that is lost may have earlier events of them open.
type passing struct {
	instance string
	keys     int  // that are known
	all      bool // and any other may have been open
}

// watch takes note of who cannot be reached: after a while keys of which it has nothing open go elsewhere, and after orderWait
// those of which it has.
func (d *dispatcher) watch(now time.Time, a *actions) {
	changed := false
	for _, l := range d.lanes {
		if !d.othersWork(l) {
			continue
		}
		if l.known && !l.away && !l.silentSince.IsZero() {
			if at := l.silentSince.Add(d.failover); now.Before(at) {
				a.wake(now, at)
			} else {
				l.away, changed = true, true
			}
		}
		if since := l.unheardSince(); l.needed && !l.busy() && (l.away || !l.known || l.mute) && !since.IsZero() && d.orderWait > 0 {
			if at := since.Add(d.orderWait); now.Before(at) {
				a.wake(now, at)
			} else {
				d.pass(l)
			}
		}
	}
	if changed {
		d.respread()
	}
}

func (d *dispatcher) othersWork(l *lane) bool {
	return slices.ContainsFunc(d.lanes, func(o *lane) bool { return o != l && o.known && !o.away && !o.failing() })
}

// unheardSince is when the first request was made since which l has not said what it has open; zero: it does say that.
func (l *lane) unheardSince() time.Time {
	if l.mute {
		return l.neededSince
	}
	if !l.known && l.neededSince.After(l.silentSince) && !l.silentSince.IsZero() {
		return l.neededSince // nobody has asked it before
	}
	return l.silentSince
}

// pass lets the keys that l may have open go on.
func (d *dispatcher) pass(l *lane) {
	keys := map[uint64]bool{}
	for _, it := range d.open {
		if it.key != 0 && (it.at == l || d.holds(l, it) || d.mayHaveBeenSent(l, it)) {
			keys[it.key] = true
			if it.at == l && !it.inFlight {
				it.at = nil
			}
		}
	}
	r := d.said[l.name]
	for _, key := range r.OpenKeys {
		keys[key] = true
	}
	all := r.OpenAll
	r.Passed = true
	d.hears(l.name, r)
	l.needed = false
	d.overtaken += uint64(len(keys))
	d.passings = append(d.passings, passing{instance: l.name, keys: len(keys), all: all})
	d.decide()
}

// reached notes that l has answered.
func (d *dispatcher) reached(l *lane) {
	l.silentSince = time.Time{}
	if l.away {
		l.away = false
		d.respread()
	}
}
