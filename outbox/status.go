package outbox

import "time"

// The states of an event for one subscriber.
const (
	Waiting      = "waiting"      // owed, not yet there
	Stored       = "stored"       // its sidecar has it
	Applied      = "applied"      // its app is done with it, or it is a dead letter there
	Dead         = "dead"         // given up here; the dead letter says why
	Unsubscribed = "unsubscribed" // it no longer wants this type
)

// An EventStatus is where an event is.
type EventStatus struct {
	ID            string     `json:"id"`
	Source        string     `json:"source"`
	Seq           uint64     `json:"seq"`
	Type          string     `json:"type,omitempty"` // this and what follows is empty once retention has removed the event
	Version       string     `json:"version,omitempty"`
	Key           string     `json:"key,omitempty"`
	CorrelationID string     `json:"correlationId,omitempty"`
	AcceptedAt    time.Time  `json:"acceptedAt,omitzero"`
	Kept          bool       `json:"kept"` // false: only its id is still remembered
	Subscribers   []Delivery `json:"subscribers"`
}

// A Delivery is where an event is for one subscriber.
type Delivery struct {
	Service  string `json:"service"`
	State    string `json:"state"`
	Attempts int    `json:"attempts"`         // requests that may have carried it, as far as this process knows; 0 if it does not
	Reason   string `json:"reason,omitempty"` // why it waits or is dead
	Letter   string `json:"letter,omitempty"` // id of the dead letter
}

// A SubscriberStatus is how one subscriber stands. Accepted = Stored + Dead + Unsubscribed + Skipped + Lost + Waiting, always.
type SubscriberStatus struct {
	Service   string       `json:"service"`
	Types     []string     `json:"types"`
	Paused    bool         `json:"paused"`
	StartSeq  uint64       `json:"startSeq"` // the first seq that was looked at for it
	Cursor    uint64       `json:"cursor"`
	Accepted  uint64       `json:"accepted"` // events of the log from StartSeq on
	Counts    Settled      `json:"settled"`
	Waiting   uint64       `json:"waiting"`  // open, set aside and not yet looked at
	SetAside  int          `json:"setAside"` // of Waiting
	Replaying int          `json:"replaying"`
	Gone      uint64       `json:"gone"`      // events that instances lost with their disks, at most, and that the log no longer had to send again; Stored counts them
	Overtaken uint64       `json:"overtaken"` // keys that went on although an instance that is lost may have earlier events of them open
	InFlight  int          `json:"inFlight"`
	OldestAt  time.Time    `json:"oldestAt,omitzero"` // acceptance of the oldest open event
	Lanes     []LaneStatus `json:"lanes"`

	oldestAge time.Duration // of OldestAt
}

// Settled counts what is final for one subscriber.
type Settled struct {
	Stored       uint64 `json:"stored"`
	Dead         uint64 `json:"dead"`
	Unsubscribed uint64 `json:"unsubscribed"`
	Skipped      uint64 `json:"skipped"` // not of a type that it asked for
	Lost         uint64 `json:"lost"`    // the disk no longer has it
}

func (s Settled) sum() uint64 {
	return s.Stored + s.Dead + s.Unsubscribed + s.Skipped + s.Lost
}

// The states of a lane.
const (
	LaneIdle    = "idle"
	LaneSending = "sending"
	LaneBackoff = "backoff" // the last request did not get through
	LaneStuck   = "stuck"   // none has for FailoverAfter
)

// A LaneStatus is how deliveries to one instance stand.
type LaneStatus struct {
	Instance string    `json:"instance"`
	URL      string    `json:"url"`
	State    string    `json:"state"`
	Failures int       `json:"failures"` // in a row
	Problem  string    `json:"problem,omitempty"`
	NextAt   time.Time `json:"nextAt,omitzero"` // when it is tried again
	Applied  uint64    `json:"applied"`         // seq up to which the instance has settled all that it was given
}

// Counts are the totals of the outbox. Accepted counts from the beginning of the log, the others since the process started.
type Counts struct {
	Accepted   uint64 `json:"accepted"`
	Duplicates uint64 `json:"duplicates"`
	Conflicts  uint64 `json:"conflicts"`
	TailSeq    uint64 `json:"tailSeq"` // the first seq that is kept
	NextSeq    uint64 `json:"nextSeq"`
	Bytes      int64  `json:"bytes"` // of the events kept
	MaxBytes   int64  `json:"maxBytes"`
}
