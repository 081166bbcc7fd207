package outbox_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/outbox"
)

// A quiet link learns what the app is done with by questions: soon at first, then less and less often, and not at all once
// there is nothing to learn.
func TestQuietInstanceIsAskedWhatItIsDoneWith(t *testing.T) {
	onFakeTime(t, func(t *testing.T, n *node, w *wire, _ event.Instance) {
		n.postDirectly("x")
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		w.in.set(func() {
			asked := w.in.questions
			if len(asked) < 20 || len(asked) > 35 {
				t.Errorf("%d questions in 10 minutes, want about 8 in the first half minute and 2 in each later one", len(asked))
			}
			for i := 1; i < min(len(asked), 7); i++ {
				if was, is := asked[i-1], asked[i]; is.Sub(was) != 200*time.Millisecond<<(i-1) {
					t.Errorf("question %d came after %s", i+1, is.Sub(was))
				}
			}
			w.in.applied = 1
		})
		if d := n.delivery("x", "payment"); d.State != outbox.Stored || d.Attempts != 0 {
			t.Errorf("%+v", d)
		}
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if d := n.delivery("x", "payment"); d.State != outbox.Applied {
			t.Errorf("%+v", d)
		}
		before := w.tries.Load()
		time.Sleep(time.Hour)
		if more := w.tries.Load() - before; more != 0 {
			t.Errorf("%d requests though there is nothing to learn", more)
		}
	})
}

func TestInboxThatDoesNotUnderstandQuestionsIsAskedOnce(t *testing.T) {
	onFakeTime(t, func(t *testing.T, n *node, w *wire, inst event.Instance) {
		w.in.set(func() { w.in.deaf = true })
		n.postDirectly("x")
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		w.in.set(func() {
			if len(w.in.questions) != 1 {
				t.Errorf("%d questions, want one", len(w.in.questions))
			}
			w.in.deaf, w.in.applied = false, 1
		})
		if st := n.status("payment"); len(st.Lanes) != 1 || st.Lanes[0].State != outbox.LaneIdle || st.Lanes[0].Problem != "" {
			t.Errorf("%+v", st.Lanes)
		}
		inst.Boot++ // of a newer version, perhaps
		n.peers.set("payment", w.in.key.Public(), inst)
		time.Sleep(time.Second)
		synctest.Wait()
		if d := n.delivery("x", "payment"); d.State != outbox.Applied {
			t.Errorf("%+v", d)
		}
	})
}

// One that is not reached is not asked for long.
func TestInstanceThatIsNotReachedIsNotAsked(t *testing.T) {
	onFakeTime(t, func(t *testing.T, n *node, w *wire, _ event.Instance) {
		n.postDirectly("x")
		synctest.Wait()
		w.down.Store(true)
		time.Sleep(5 * time.Minute)
		before := w.tries.Load()
		time.Sleep(time.Hour)
		if more := w.tries.Load() - before; more != 0 {
			t.Errorf("%d requests to an instance that is not reached, for no event", more)
		}
	})
}
