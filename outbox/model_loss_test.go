package outbox

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Inboxes lose their disks, which the directory tells sooner or later, or their answers do. What their apps were not done with
// reaches an inbox again, across crashes, and what is dead stays dead.
func TestDispatcherSurvivesTheLossOfInboxes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.loses = true
		names := []string{"one", "two", "three"}[:rapid.IntRange(1, 3).Draw(t, "instances")]
		known := func() {
			w.peers = nil
			for _, name := range names {
				w.peers = append(w.peers, w.peer(name))
			}
			w.d.setPeers(w.peers)
		}
		known()
		t.Repeat(w.machine(map[string]func(*rapid.T){
			"apply": func(t *rapid.T) { w.apply(rapid.SampledFrom(names).Draw(t, "name")) },
			"lose":  func(t *rapid.T) { w.lose(rapid.SampledFrom(names).Draw(t, "name")) },
			"known": func(*rapid.T) { known(); w.step() },
			"change": func(t *rapid.T) {
				names = []string{"one", "two", "three"}[rapid.IntRange(0, 1).Draw(t, "from"):rapid.IntRange(2, 3).Draw(t, "to")]
				known()
			},
			"replay": func(*rapid.T) { w.replay() },
		}))
		names = []string{"one", "two", "three"}
		for name := range w.late { // answers of lost disks
			delete(w.late, name)
		}
		known()
		w.finish()
		owed := 0
		for _, e := range w.log {
			if w.owed(e) {
				owed++
			}
		}
		if c := w.d.counts; int(c.Stored) != owed-len(w.dead) || int(c.Dead) != len(w.dead) || w.d.gone != 0 || w.d.fill != nil {
			t.Fatalf("%+v, %d gone, second reading %+v; %d events were owed, %d are dead", c, w.d.gone, w.d.fill, owed, len(w.dead))
		}
	})
}

// apply lets the app of an instance work.
func (w *world) apply(name string) {
	if w.done[name] == nil {
		w.done[name] = map[uint64]bool{}
	}
	for _, seq := range slices.Sorted(maps.Keys(w.stored[name])) {
		if rapid.IntRange(0, 3).Draw(w.t, "applied") > 0 {
			w.isDone(name, seq)
		}
	}
}

// lose replaces the disk of an instance. The answer to a request under way may still come from the old one.
func (w *world) lose(name string) {
	if b, busy := w.flights[name]; busy && rapid.Bool().Draw(w.t, "late") {
		if _, before := w.late[name]; !before {
			w.late[name] = answer{kind: answerVerdicts, sent: true, verdicts: w.judge(name, b), said: w.says(name)}
		}
	}
	w.disks[name]++
	delete(w.stored, name)
	delete(w.done, name)
	delete(w.queue, name)
}
