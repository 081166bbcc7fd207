package outbox

import (
	"hash/fnv"
	"maps"
	"slices"
)

// maxFormer is how many lost stores of an instance are remembered.
const maxFormer = 8

// A replacement is one that was just noticed.
type replacement struct {
	instance, was, is string
	from, to          uint64 // seqs of which the instance's share is sent again; from > to: none
}

// notice compares the store that an instance has with the one that has answered until now. Another one is a lost disk: what it
// was given above what it was done with is sent again. That is durable before anything more is sent: see undecided.
func (d *dispatcher) notice(name, storeID string) {
	was, known := d.said[name]
	if !known || was.StoreID == "" || storeID == "" || was.StoreID == storeID {
		return
	}
	former := slices.DeleteFunc(slices.Clone(was.Former), func(id string) bool { return id == storeID })
	former = append(former, was.StoreID)
	done := max(was.Applied, was.Base)
	d.hears(name, instanceRecord{StoreID: storeID, Base: done, Former: former[max(0, len(former)-maxFormer):]})
	r := replaced{Instance: name, After: done, Mixed: max(d.mixed, was.Stray)}
	note := replacement{instance: name, was: was.StoreID, is: storeID, from: max(done+1, d.start), to: d.top()}
	d.replacements = append(d.replacements, note)
	d.decision++
	d.pending.mustWrite = true
	if note.from > note.to {
		return
	}
	d.readAgain(note.from)
	if i := slices.IndexFunc(d.fill.Replaced, func(r replaced) bool { return r.Instance == name }); i >= 0 {
		// Lost a second time, before all of the first loss was sent again.
		old := &d.fill.Replaced[i]
		old.After, old.Mixed = min(old.After, r.After), max(old.Mixed, r.Mixed)
		return
	}
	d.fill.Replaced = append(d.fill.Replaced, r)
}

// outdated reports whether an answer comes from a store that has been replaced, as one under way may: from one that is known to
// be lost, or from one that the directory named neither when the batch went nor names now, though it has learned of another since.
func (l *lane) outdated(storeID string) bool {
	return storeID != l.answered.StoreID && storeID != l.storeID &&
		(slices.Contains(l.answered.Former, storeID) || l.sentTo != l.storeID)
}

// undecided reports whether a replaced inbox has been noticed and that is not durable yet: a crash now would have to notice it
// again, and what the new store says in between must not stand in the way.
func (d *dispatcher) undecided() bool { return d.decision != d.decided }

// hears keeps what is known of an instance.
func (d *dispatcher) hears(name string, said instanceRecord) {
	d.said[name] = said
	for _, l := range d.lanes {
		if l.name == name {
			l.answered = said
		}
	}
}

// storedAt notes that l has stored it: that is above what l is done with, and may be what another instance is the home of.
func (d *dispatcher) storedAt(l *lane, it *item) {
	if it.epoch != d.epoch {
		it.home, it.epoch = d.best(it, func(*lane) bool { return true }), d.epoch
	}
	if it.home != l {
		l.answered.Stray = max(l.answered.Stray, it.seq)
	}
	l.answered.Base = min(l.answered.Base, it.seq-1)
	l.answered.Given = max(l.answered.Given, it.seq)
}

// mix notes the set of instances. If it changes, events that have been stored may be elsewhere than where they would go now.
func (d *dispatcher) mix(peers []peer) {
	h := fnv.New64a()
	for _, p := range slices.SortedFunc(slices.Values(peers), func(a, b peer) int { return compareName(a.name, b.name) }) {
		h.Write([]byte(p.name + "\x00"))
		for _, patterns := range p.patterns {
			for _, s := range patterns.Strings() {
				h.Write([]byte(s + "\x01"))
			}
		}
	}
	if set := h.Sum64(); set != d.set {
		d.set, d.mixed = set, d.top()
		if d.fill != nil {
			d.mixed = max(d.mixed, d.fill.End)
			for i := range d.fill.Replaced {
				d.fill.Replaced[i].Mixed = d.fill.End
			}
		}
		d.pending.moved = true
	}
}

// rename keeps what is known of a store whose instance goes by another name now.
func (d *dispatcher) rename(peers []peer) {
	for _, p := range peers {
		if _, known := d.said[p.name]; known || p.storeID == "" {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(d.said)) {
			gone := !slices.ContainsFunc(peers, func(p peer) bool { return p.name == name })
			if gone && d.said[name].StoreID == p.storeID {
				d.said[p.name] = d.said[name]
				d.kept[p.name] = d.kept[name]
				delete(d.said, name)
				delete(d.kept, name)
				d.renamed(name, p.name)
				break
			}
		}
	}
}

func compareName(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
