package event

import (
	"bytes"
	"unicode"
	"unicode/utf8"
)

// names are the member names met so far in one object. Two that differ only by case count as one: some JSON readers
// take them for the same member.
type names struct {
	few  [8][]byte // the first ones, as most objects have few
	n    int
	many map[string]struct{} // the rest, folded; nil until few is full
}

// add notes a name, which must stay as it is, and reports whether it was met before.
func (ns *names) add(name []byte) (repeated bool) {
	for _, have := range ns.few[:ns.n] {
		if bytes.EqualFold(have, name) {
			return true
		}
	}
	if ns.n < len(ns.few) {
		ns.few[ns.n] = name
		ns.n++
		return false
	}
	key := string(fold(name))
	if _, ok := ns.many[key]; ok {
		return true
	}
	if ns.many == nil {
		ns.many = make(map[string]struct{})
	}
	ns.many[key] = struct{}{}
	return false
}

// fold returns a form of name that is the same for all names that bytes.EqualFold takes for equal.
func fold(name []byte) []byte {
	out := make([]byte, 0, len(name))
	for _, r := range string(name) {
		if 'a' <= r && r <= 'z' {
			r -= 'a' - 'A'
		}
		for r >= utf8.RuneSelf { // to the smallest of the runes that fold to each other
			next := unicode.SimpleFold(r)
			if next <= r {
				r = next
				break
			}
			r = next
		}
		out = utf8.AppendRune(out, r)
	}
	return out
}
