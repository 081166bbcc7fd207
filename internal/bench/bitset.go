package main

import "math/bits"

// A bitset is a set of small numbers; the zero value is empty.
type bitset struct{ words []uint64 }

func (s *bitset) set(i int64) {
	for int64(len(s.words)) <= i/64 {
		s.words = append(s.words, 0)
	}
	s.words[i/64] |= 1 << (i % 64)
}

func (s *bitset) has(i int64) bool {
	return i/64 < int64(len(s.words)) && s.words[i/64]>>(i%64)&1 == 1
}

// countWithout returns how many members of s are not in o.
func (s *bitset) countWithout(o *bitset) int64 {
	n := 0
	for i, w := range s.words {
		if i < len(o.words) {
			w &^= o.words[i]
		}
		n += bits.OnesCount64(w)
	}
	return int64(n)
}
