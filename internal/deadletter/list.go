package deadletter

import (
	"fmt"

	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

// DefaultLimit is how many letters List returns if it is not told.
const DefaultLimit = 100

// A Filter says which letters List returns. An empty field matches every letter.
type Filter struct {
	Side, Subscriber, Reason, State string
	Type                            event.Patterns
	Limit                           int    // letters at most; 0: DefaultLimit
	After                           string // id of the letter to go on after; empty: from the first
}

// List returns letters in the order of their ids, and the id to go on after, which is empty if there are no more.
func List(sn *store.Snapshot, f Filter) (letters []Letter, next string, err error) {
	if f.Limit <= 0 {
		f.Limit = DefaultLimit
	}
	from := []byte{letterPrefix}
	if f.After != "" {
		after, err := recordKey(letterPrefix, f.After)
		if err != nil {
			return nil, "", err
		}
		from = append(after, 0)
	}
	for rec, err := range sn.Scan(from, []byte{letterPrefix + 1}) {
		if err != nil {
			return nil, "", fmt.Errorf("list dead letters: %w", err)
		}
		l, err := decode(rec.Val)
		if err != nil {
			return nil, "", fmt.Errorf("list dead letters: record %x: %w", rec.Key, err)
		}
		if !f.matches(&l) {
			continue
		}
		if len(letters) == f.Limit {
			return letters, letters[len(letters)-1].ID, nil
		}
		letters = append(letters, l)
	}
	return letters, "", nil
}

func (f *Filter) matches(l *Letter) bool {
	same := func(want, have string) bool { return want == "" || want == have }
	return same(f.Side, l.Side) && same(f.Subscriber, l.Subscriber) && same(f.Reason, l.Reason) &&
		same(f.State, l.State) && (len(f.Type) == 0 || f.Type.Match(l.Type, l.Version))
}
