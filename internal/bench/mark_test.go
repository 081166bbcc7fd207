package main

import (
	"testing"

	"github.com/hooksidecar/hooksidecar/internal/event"
)

func TestEventHasItsSizeItsMarkAndPassesTheParser(t *testing.T) {
	m := mark{run: 3, seq: 41, key: 7, turn: 9, due: 1_790_000_000_123_456_789}
	body := newRenderer(1).event([]byte("before"), m)[len("before"):]
	if len(body) != eventBytes {
		t.Errorf("%d bytes, want %d", len(body), eventBytes)
	}
	if got, ok := findMark(body); !ok || got != m {
		t.Errorf("mark %+v %v, want %+v", got, ok, m)
	}
	e, err := event.ParseEnvelope(body)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := e.ID, string(appendID(nil, m)); got != want {
		t.Errorf("id %q, want %q", got, want)
	}
}

func TestFindMarkTakesOnlyWholeOnes(t *testing.T) {
	whole := mark{run: 1, seq: 2, key: 3, turn: 4, due: 5}
	for _, c := range []struct {
		name, body string
		ok         bool
	}{
		{"none", `{"data":{}}`, false},
		{"cut off", "hb2:1;2;3;4;5", false},
		{"not a number", "hb2:1;2;x;4;5;", false},
		{"too few", "hb2:1;2;3;4;\"", false},
		{"after a broken one", "hb2:1;; hb2:1;2;3;4;5;", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := findMark([]byte(c.body))
			if ok != c.ok || ok && got != whole {
				t.Errorf("got %+v %v, want %v", got, ok, c.ok)
			}
		})
	}
}
