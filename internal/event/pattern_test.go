package event_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hooksidecar/hooksidecar/internal/event"
)

func TestPatternsMatch(t *testing.T) {
	tests := []struct {
		patterns, typ, version string
		want                   bool
	}{
		{"order.created", "order.created", "1.0", true},
		{"order.created", "order.create", "1.0", false},
		{"order.create", "order.created", "1.0", false},
		{"order.created", "Order.created", "1.0", false},
		{"order.*", "order.created", "1.0", true},
		{"order.*", "order.item.added", "1.0", false},
		{"*.created", "order.created", "1.0", true},
		{"*.*", "order.created", "1.0", true},
		{"*.*", "order.item.added", "1.0", false},
		{"**", "order.item.added", "1.0", true},
		{"order.**", "order.created", "1.0", true},
		{"order.**", "order.item.added.twice", "1.0", true},
		{"order.**", "orders.created", "1.0", false},
		{"order.created.**", "order.created", "1.0", true},
		{"**.created", "order.created", "1.0", true},
		{"**.created", "created.order", "1.0", false},
		{"a.**.b", "a.b", "1.0", true},
		{"a.**.b", "a.x.y.b", "1.0", true},
		{"a.**.b", "a.x.b.y", "1.0", false},
		{"a.**.b.**.c", "a.b.x.b.y.c", "1.0", true},
		{"a.**.*.c", "a.c", "1.0", false},
		{"**.a.*", "a.a.a", "1.0", true},
		{"order.created@2", "order.created", "2.1", true},
		{"order.created@2", "order.created", "2", true},
		{"order.created@2", "order.created", "2-beta", true},
		{"order.created@2", "order.created", "02.0", true},
		{"order.created@2", "order.created", "20.0", false},
		{"order.created@2", "order.created", "1.2", false},
		{"order.created@2", "order.created", "v2", false},
		{"order.*@0", "order.created", "0.9", true},
		{"!order.deleted order.*", "order.deleted", "1.0", false},
		{"order.* !order.deleted", "order.deleted", "1.0", false},
		{"order.* !order.deleted", "order.created", "1.0", true},
		{"** !**.internal.** !order.*@1", "order.created", "1.5", false},
		{"** !**.internal.** !order.*@1", "order.created", "2.5", true},
		{"** !**.internal.** !order.*@1", "a.internal", "2.5", false},
		{"", "order.created", "1.0", false},
	}
	for _, tt := range tests {
		ps, err := event.ParsePatterns(strings.Fields(tt.patterns))
		if err != nil {
			t.Fatal(err)
		}
		if got := ps.Match(tt.typ, tt.version); got != tt.want {
			t.Errorf("%q on %s %s: got %v, want %v", tt.patterns, tt.typ, tt.version, got, tt.want)
		}
		if got := strings.Join(ps.Strings(), " "); got != tt.patterns {
			t.Errorf("got %q back, want %q", got, tt.patterns)
		}
	}
}

func TestParsePatternRefuses(t *testing.T) {
	tests := []struct{ pattern, says string }{
		{"", "empty segment"}, {"order", "two segments"}, {"*", "two segments"}, {"order.", "empty segment"}, {"order..x", "empty segment"},
		{"order.cre*", "whole segment"}, {"order.***", "whole segment"}, {"order.created@", "major version"}, {"order.created@2.1", "major version"},
		{"order.created@02", "major version"}, {"order.created@v2", "major version"}, {"!!order.x", "first character"}, {"order.!x", "first character"},
		{"order.cré", "letters"}, {"order created.x", "letters"}, {strings.Repeat("a.", 200) + "b", "bytes"},
	}
	for _, tt := range tests {
		_, err := event.ParsePattern(tt.pattern)
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%q: got error %v, want one with %q", tt.pattern, err, tt.says)
		}
	}
	if _, err := event.ParsePatterns([]string{"!order.deleted"}); err == nil {
		t.Error("a list that only excludes is taken")
	}
}

// TestPatternMatchesLikeItsDefinition compares with the definition, written down as a recursion.
func TestPatternMatchesLikeItsDefinition(t *testing.T) {
	var match func(pattern, typ []string) bool
	match = func(pattern, typ []string) bool {
		switch {
		case len(pattern) == 0:
			return len(typ) == 0
		case pattern[0] == "**":
			return match(pattern[1:], typ) || len(typ) > 0 && match(pattern, typ[1:])
		case len(typ) == 0:
			return false
		}
		return (pattern[0] == "*" || pattern[0] == typ[0]) && match(pattern[1:], typ[1:])
	}
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "*", "**"}), 2, 7).Draw(t, "pattern")
		typ := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 2, 8).Draw(t, "type")
		ps, err := event.ParsePatterns([]string{strings.Join(pattern, ".")})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := ps.Match(strings.Join(typ, "."), "1.0"), match(pattern, typ); got != want {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}
