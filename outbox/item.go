package outbox

import "time"

// An item is one open event of a subscriber: owed, and neither settled nor given up.
type item struct {
	seq          uint64
	key, route   uint64
	size         int
	typ, version string
	acceptedAt   int64
	entry        *entry // the bytes; nil: to be read when it is sent

	attempts  int
	redeliver bool // an earlier delivery cannot be excluded
	alone     bool // a batch with it was refused as a whole: it is sent by itself
	held      int  // answers in a row that asked it to wait; while it is not 0 nothing of its key goes along
	notBefore time.Time
	heldSince time.Time // since when something else than a full lane keeps it; zero: nothing does
	reason    string    // what keeps it

	inFlight bool
	done     bool // settled; it leaves the list with the next compact
	aside    bool
	recorded bool   // its set-aside record is written, or handed over to be
	letter   string // the dead letter that it is a replay of
	counted  counted

	home  *lane
	epoch int // of the lanes that home was chosen from

	keyHome  *lane // where its key goes once nobody else has it open
	keyEpoch int   // of the lanes, and
	moves    int   // of the spread that keyHome was chosen from
	at       *lane // was sent it, and has not said whether it has it; nil: nobody
	before   *lane // at, before the request that is under way
	strays   bool  // it goes elsewhere than to keyHome
}

// counted says where an open item is counted.
type counted byte

const (
	asWaiting counted = iota
	asSkipped         // as waiting; but on disk as skipped, since a new subscription reached back to it
	asStored          // as waiting; but on disk as stored, since the inbox that had it has lost its disk
	asDead            // as dead until it is settled: a dead letter is replayed
)
