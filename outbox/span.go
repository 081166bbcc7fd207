package outbox

import (
	"slices"

	"github.com/hooksidecar/hooksidecar/internal/event"
)

// A span is one subscription of a service, counted in seqs: who asked for it, and from which event on.
type span struct {
	Types     []string `json:"types"`
	From      uint64   `json:"from"`
	Until     uint64   `json:"until,omitempty"`     // last seq that is owed by it; 0: no end
	Instances []string `json:"instances,omitempty"` // that have announced it and not taken it back

	patterns event.Patterns
}

// live reports whether somebody still asks for it.
func (s *span) live() bool { return s.Until == 0 }

func (s *span) covers(seq uint64) bool { return s.From <= seq && (s.Until == 0 || seq <= s.Until) }

// spans are the subscriptions of one service. They are replaced, never changed, once shared.
type spans []span

// wants reports whether any subscription in force asks for the type, whatever the seq.
func (s spans) wants(typ, version string) bool {
	for i := range s {
		if s[i].live() && s[i].patterns.Match(typ, version) {
			return true
		}
	}
	return false
}

// owed reports whether the event with that seq is owed: it falls into a span that asks for it, and somebody still does.
func (s spans) owed(seq uint64, typ, version string) bool {
	for i := range s {
		if s[i].covers(seq) && s[i].patterns.Match(typ, version) {
			return s[i].live() || s.wants(typ, version)
		}
	}
	return false
}

// covered reports whether some subscription, also one that has ended since, asked for the event.
func (s spans) covered(seq uint64, typ, version string) bool {
	for i := range s {
		if s[i].covers(seq) && s[i].patterns.Match(typ, version) {
			return true
		}
	}
	return false
}

// types returns the patterns in force, for people.
func (s spans) types() []string {
	out := []string{}
	for i := range s {
		if s[i].live() {
			out = append(out, s[i].Types...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// compile parses the patterns of spans that come from a record.
func (s spans) compile() error {
	for i := range s {
		p, err := event.ParsePatterns(s[i].Types)
		if err != nil {
			return err
		}
		s[i].patterns = p
	}
	return nil
}

func (s spans) clone() spans {
	out := slices.Clone(s)
	for i := range out {
		out[i].Instances = slices.Clone(out[i].Instances)
	}
	return out
}

// maxEnded is how many ended subscriptions are remembered for the sake of status, once nothing is owed by them any more.
const maxEnded = 32

// prune forgets ended subscriptions that lie wholly below the cursor, if there are many.
func (s spans) prune(cursor uint64) spans {
	if len(s) <= maxEnded {
		return s
	}
	return slices.DeleteFunc(s, func(sp span) bool { return !sp.live() && sp.Until <= cursor })
}

// merge returns the spans after what instances say now, without what is new, which is returned apart. A subscription ends when
// every instance that has announced it has taken it back; what it was owed up to end stays owed if another one still asks for
// the type.
func (s spans) merge(instances []event.Instance, wishes []wish, end uint64) (out spans, changed bool, added []wish) {
	out = s.clone()
	for i := range out {
		if sp := &out[i]; sp.live() && sp.announce(instances, wishes) {
			changed = true
			if len(sp.Instances) == 0 {
				sp.Until = max(end, 1)
			}
		}
	}
	for _, w := range wishes {
		if !slices.ContainsFunc(out, func(sp span) bool { return sp.live() && slices.Equal(sp.Types, w.Types) }) {
			added, changed = append(added, w), true
		}
	}
	return out, changed, added
}

// announce updates who has announced sp, and reports whether that has changed.
func (s *span) announce(instances []event.Instance, wishes []wish) (changed bool) {
	var by []string
	for _, w := range wishes {
		if slices.Equal(w.Types, s.Types) {
			by = w.instances
		}
	}
	for _, in := range instances {
		had, has := slices.Contains(s.Instances, in.Name), slices.Contains(by, in.Name)
		switch {
		case has && !had:
			s.Instances = append(s.Instances, in.Name)
		case had && !has:
			s.Instances = slices.DeleteFunc(s.Instances, func(name string) bool { return name == in.Name })
		}
		changed = changed || has != had
	}
	return changed
}
