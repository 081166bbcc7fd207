package event

import (
	"fmt"
	"strings"
)

const (
	maxPatternBytes = 256
	maxPatterns     = 1000
	maxMajorDigits  = 9
)

// A Pattern says which types are meant:
//
//	order.created     that type
//	order.*           one segment in the place of *
//	order.**          any number of segments in the place of **, also none
//	order.created@2   only if the major version is 2: "2", "2.1", "2-beta"
//	!order.deleted    not that type, whatever the other patterns of the list say
//
// The zero Pattern matches nothing.
type Pattern struct {
	text     string
	segments []string
	major    string // "" means every version
	exclude  bool
	plain    bool // no wildcard
}

// ParsePattern reads one pattern. The error says what is wrong with it.
func ParsePattern(s string) (Pattern, error) {
	p := Pattern{text: s, plain: true}
	if len(s) > maxPatternBytes {
		return Pattern{}, fmt.Errorf("type pattern %.40q…: %s", s, tooLong(len(s), maxPatternBytes))
	}
	types, exclude := strings.CutPrefix(s, "!")
	p.exclude = exclude
	types, major, versioned := strings.Cut(types, "@")
	if versioned {
		if !isMajor(major) {
			return Pattern{}, fmt.Errorf("type pattern %q: after '@' comes a major version: a number such as 2", s)
		}
		p.major = major
	}
	p.segments = strings.Split(types, ".")
	for _, segment := range p.segments {
		if wrong := wrongSegment(segment); wrong != "" {
			return Pattern{}, fmt.Errorf("type pattern %q: %s", s, wrong)
		}
		if segment[0] == '*' {
			p.plain = false
		}
	}
	if len(p.segments) == 1 && p.segments[0] != "**" {
		return Pattern{}, fmt.Errorf("type pattern %q: a type has at least two segments; did you mean %q?", s, s+".**")
	}
	return p, nil
}

func isMajor(s string) bool {
	return s != "" && len(s) <= maxMajorDigits && (s == "0" || s[0] != '0') && strings.Trim(s, "0123456789") == ""
}

func wrongSegment(s string) string {
	switch {
	case s == "":
		return "it has an empty segment"
	case s == "*" || s == "**":
		return ""
	case strings.Contains(s, "*"):
		return fmt.Sprintf("'*' stands for a whole segment, not for part of one as in %q", s)
	case strings.Contains(s, "!"):
		return "'!' may only be its first character"
	case strings.ContainsFunc(s, func(r rune) bool { return !isWord(r) }):
		return fmt.Sprintf("%q may hold only letters, digits, '_' and '-'", s)
	}
	return ""
}

// String returns the pattern as it was written.
func (p Pattern) String() string { return p.text }

// matches reports whether type and version are those that the pattern names, or excludes.
func (p *Pattern) matches(typ, version string) bool {
	if p.major != "" && majorOf(version) != p.major {
		return false
	}
	if p.plain {
		types := strings.TrimPrefix(p.text, "!")
		return strings.HasPrefix(types, typ) && (len(types) == len(typ) || types[len(typ)] == '@')
	}
	return matchSegments(p.segments, typ)
}

// majorOf returns the number that a version begins with, "" if it begins with none.
func majorOf(version string) string {
	end := 0
	for end < len(version) && isDigit(version[end]) {
		end++
	}
	major := version[:end]
	for len(major) > 1 && major[0] == '0' {
		major = major[1:]
	}
	return major
}

// matchSegments matches from left to right. At a mismatch the last ** takes one segment more: going back to an earlier
// one could not help, so that the time is bounded by the product of both lengths.
func matchSegments(pattern []string, typ string) bool {
	at, p := 0, 0                // where the next segment of typ begins; next segment of pattern
	starAt, starP := 0, -1       // the same for what follows the last **
	next := func(from int) int { // end of the segment that begins there
		if i := strings.IndexByte(typ[from:], '.'); i >= 0 {
			return from + i
		}
		return len(typ)
	}
	for at <= len(typ) {
		end := next(at)
		switch {
		case p < len(pattern) && pattern[p] == "**":
			p++
			starAt, starP = at, p
		case p < len(pattern) && (pattern[p] == "*" || pattern[p] == typ[at:end]):
			p++
			at = end + 1
		case starP >= 0:
			starAt = next(starAt) + 1
			at, p = starAt, starP
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == "**" {
		p++
	}
	return p == len(pattern)
}

// Patterns are a list of patterns, in any order. None match nothing.
type Patterns []Pattern

// ParsePatterns reads a list of patterns. One that only excludes is an error, since it would match nothing.
func ParsePatterns(list []string) (Patterns, error) {
	if len(list) > maxPatterns {
		return nil, fmt.Errorf("%d type patterns, %d are allowed", len(list), maxPatterns)
	}
	ps := make(Patterns, 0, len(list))
	includes := false
	for _, s := range list {
		p, err := ParsePattern(s)
		if err != nil {
			return nil, err
		}
		includes = includes || !p.exclude
		ps = append(ps, p)
	}
	if len(ps) > 0 && !includes {
		return nil, fmt.Errorf(`type patterns %q only exclude: add what is wanted, such as "**"`, list)
	}
	return ps, nil
}

// Match reports whether some pattern matches and none excludes.
func (ps Patterns) Match(typ, version string) bool {
	wanted := false
	for i := range ps {
		if wanted && !ps[i].exclude || !ps[i].matches(typ, version) {
			continue
		}
		if ps[i].exclude {
			return false
		}
		wanted = true
	}
	return wanted
}

// Strings returns the patterns as they were written.
func (ps Patterns) Strings() []string {
	list := make([]string, len(ps))
	for i, p := range ps {
		list[i] = p.text
	}
	return list
}
