package store

import "fmt"

// A Log is one of the two sequences of events of a store.
type Log int

// The two logs. Seqs of each start at 1 and have no gaps.
const (
	OutboxLog Log = iota
	InboxLog
	logs
)

func (l Log) String() string {
	switch l {
	case OutboxLog:
		return "outbox"
	case InboxLog:
		return "inbox"
	}
	return fmt.Sprintf("log %d", int(l))
}

// prefix is the first byte of the keys that hold the log's events.
func (l Log) prefix() byte {
	if l == InboxLog {
		return 'n'
	}
	return 'e'
}

// A LostRange is a run of seqs, both ends included, that a damaged store no longer holds.
type LostRange struct {
	Log  Log    `json:"log"`
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
}

// A Class says what may hold an operation up.
type Class int

const (
	// Intake takes on new work and is refused when disk space is low.
	Intake Class = iota
	// Work finishes what was taken on, and goes on until the disk is all but full.
	Work
	// Lazy work rides along with other operations, and is written by itself after at most 10 ms. On a full
	// disk it stays queued.
	Lazy
)

// An Op is a unit that is stored whole or not at all.
type Op struct {
	Class  Class
	Events int // in it, for the size of groups; 0 counts as one
	Bytes  int // of payloads, roughly; 0 if small

	// Apply makes the writes, on the committer's goroutine. An error drops the writes of this operation only
	// and is its result. It may run twice, and must set its results afresh each time. It must not call the
	// store but through its Tx. A panic in it fences the store: what its owner keeps in memory cannot be
	// trusted any more, so nobody's writes go on.
	Apply func(*Tx) error
	// Done is optional. It is called exactly once with the outcome: after the sync, in commit order, on the
	// committer's goroutine, so it must not block: Enqueue, View and the like are fine, Commit and Close
	// would wait for the committer itself. (After Close it may be another goroutine.) A panic in it ends the
	// process.
	Done func(error)
}
