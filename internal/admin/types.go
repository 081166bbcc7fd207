package admin

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/deadletter"
)

// A Status is one node at a glance.
type Status struct {
	Service   string    `json:"service"`
	Instance  string    `json:"instance"`
	Version   string    `json:"version"`
	StoreID   string    `json:"storeId"`
	Boot      uint64    `json:"boot"`
	StartedAt time.Time `json:"startedAt"`
	Key       string    `json:"key"` // fingerprint of the key that signs
	Listeners Listeners `json:"listeners"`
	Readiness Readiness `json:"readiness"`
	Outbox    Outbox    `json:"outbox"`
	Inbox     Inbox     `json:"inbox"`
	Store     Store     `json:"store"`
	// DeadLetters counts those that are kept, whatever their state.
	DeadLetters int64        `json:"deadLetters"`
	Subscribers []Subscriber `json:"subscribers"`
	Peers       []Peer       `json:"peers"`
}

// Listeners are the addresses that a node listens on, all of each.
type Listeners struct {
	App   []string `json:"app"`
	Peer  []string `json:"peer"`
	Admin []string `json:"admin"`
}

// Readiness says whether a node can take events, and how each part of it is.
type Readiness struct {
	Ready bool   `json:"ready"`
	Parts []Part `json:"parts"`
}

// A Part of a node. A part that is not ok does not make the node unready by itself.
type Part struct {
	Name   string `json:"name"` // store; the parts of the process in the order in which they start; app, peers
	State  string `json:"state"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
}

// Outbox is the log of published events.
type Outbox struct {
	Accepted   uint64 `json:"accepted"`   // since the store was made
	Duplicates uint64 `json:"duplicates"` // since the process started
	Conflicts  uint64 `json:"conflicts"`  // since the process started
	FirstSeq   uint64 `json:"firstSeq"`   // first that is kept
	NextSeq    uint64 `json:"nextSeq"`    // next to be given
	Events     int64  `json:"events"`     // kept
	Bytes      int64  `json:"bytes"`      // of those
	MaxBytes   int64  `json:"maxBytes"`   // then publishing is refused
}

// Inbox is the log of received events and the app behind it.
type Inbox struct {
	AppURL    string    `json:"appUrl,omitempty"` // empty: nothing is forwarded
	AppState  string    `json:"appState"`
	HeldUntil time.Time `json:"heldUntil,omitzero"` // when the app is tried again; absent: it is not held
	Parked    []string  `json:"parked,omitempty"`   // subscriptions that the app has answered 410 for
	Types     []string  `json:"types"`              // patterns that are subscribed to
	Backlog   int64     `json:"backlog"`            // events that are not settled
	Waiting   int64     `json:"waiting"`            // of those, for another attempt or the app
	InFlight  int       `json:"inFlight"`           // of those, at the app now
	OldestAt  time.Time `json:"oldestAt,omitzero"`
	NextSeq   uint64    `json:"nextSeq"`
}

// Store is the disk.
type Store struct {
	State      string `json:"state"` // ok, disk_low, disk_floor, fenced
	FreeBytes  int64  `json:"freeBytes"`
	UsedBytes  int64  `json:"usedBytes"`
	CleanStart bool   `json:"cleanStart"`     // the last process stopped in order
	Lost       []Lost `json:"lost,omitempty"` // what is known to be lost
}

// Lost is a range of one log that is known to be lost.
type Lost struct {
	Log  string `json:"log"` // outbox, inbox
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
}

// A Subscriber is a service that is owed events.
type Subscriber struct {
	Service      string     `json:"service"`
	State        string     `json:"state"` // active, paused, or stuck when no lane gets through
	Types        []string   `json:"types"`
	StartSeq     uint64     `json:"startSeq"` // from which it counts
	Cursor       uint64     `json:"cursor"`
	Accepted     uint64     `json:"accepted"` // from StartSeq on; the sum of the next six
	Backlog      uint64     `json:"backlog"`  // its sidecars have not stored
	Stored       uint64     `json:"stored"`
	Dead         uint64     `json:"dead"`
	Unsubscribed uint64     `json:"unsubscribed"`
	Skipped      uint64     `json:"skipped"` // of types that it does not want
	Lost         uint64     `json:"lost"`
	SetAside     int        `json:"setAside"` // of Backlog, behind the cursor
	OldestAt     time.Time  `json:"oldestAt,omitzero"`
	Detail       string     `json:"detail,omitempty"` // why it waits
	Lanes        []LaneInfo `json:"lanes"`
}

// LaneInfo is the way to one instance of a subscriber.
type LaneInfo struct {
	Instance string `json:"instance"`
	URL      string `json:"url"`
	State    string `json:"state"`
	Failures int    `json:"failures"` // in a row
	Error    string `json:"error,omitempty"`
	Applied  uint64 `json:"applied"` // seq up to which it has settled all that it was given
}

// A Peer is another sidecar that is known or looked for.
type Peer struct {
	URL         string    `json:"url"`
	Service     string    `json:"service,omitempty"`
	Instance    string    `json:"instance,omitempty"`
	State       string    `json:"state"`
	Error       string    `json:"error,omitempty"`
	LastSeenAt  time.Time `json:"lastSeenAt,omitzero"`
	Fingerprint string    `json:"fingerprint,omitempty"`
}

// An Event is what is known here about the events of one id, from each source that used it.
type Event struct {
	ID        string      `json:"id"`
	Published []Published `json:"published,omitempty"`
	Received  []Received  `json:"received,omitempty"`
}

// Published is an event in the outbox.
type Published struct {
	Source        string     `json:"source"`
	Type          string     `json:"type,omitempty"`
	Key           string     `json:"key,omitempty"`
	CorrelationID string     `json:"correlationId,omitempty"`
	Seq           uint64     `json:"seq"`
	AcceptedAt    time.Time  `json:"acceptedAt,omitzero"`
	Deliveries    []Delivery `json:"deliveries"`
}

// A Delivery is where an event is on its way to one subscriber.
type Delivery struct {
	Subscriber string `json:"subscriber"`
	State      string `json:"state"`
	Attempts   int    `json:"attempts,omitempty"`
	Reason     string `json:"reason,omitempty"`
	Letter     string `json:"letter,omitempty"` // id of its dead letter
}

// Received is an event in the inbox.
type Received struct {
	Source    string    `json:"source"`
	Seq       uint64    `json:"seq"`
	State     string    `json:"state"`
	ArrivedAt time.Time `json:"arrivedAt,omitzero"`
	DueAt     time.Time `json:"dueAt,omitzero"` // of the next attempt, if one is planned
	Attempts  int       `json:"attempts,omitempty"`
	Reason    string    `json:"reason,omitempty"`
	Letter    string    `json:"letter,omitempty"` // id of its dead letter
}

// Letters is a page of dead letters.
type Letters struct {
	Letters []deadletter.Letter `json:"letters"`
	Next    string              `json:"next,omitempty"` // what to pass as after for more; empty: there are no more
}

// A Letter is one dead letter with its event, if that is still there. Append writes it: encoding/json would rewrite the event.
type Letter struct {
	deadletter.Letter
	Event json.RawMessage `json:"event,omitempty"` // the envelope as the app gets it
}

// Append adds l as JSON to dst, on many lines if indent is set. The event goes in byte for byte.
func (l Letter) Append(dst []byte, indent bool) ([]byte, error) {
	between, end := ",", "}"
	text, err := json.Marshal(l.Letter)
	if indent {
		between, end = ",\n  ", "\n}"
		text, err = json.MarshalIndent(l.Letter, "", "  ")
	}
	if err != nil || len(l.Event) == 0 {
		return append(dst, text...), err
	}
	dst = append(dst, bytes.TrimSuffix(text, []byte(end))...)
	dst = append(append(dst, between...), `"event":`...)
	return append(append(dst, l.Event...), end...), nil
}

// A Query says which dead letters are wanted. Empty fields match all.
type Query struct {
	Side, Subscriber, Type, Reason, State string
	Limit                                 int    // 1 to MaxLimit; 0: 100
	After                                 string // Letters.Next of the page before
}

// MaxLimit is how many dead letters one page holds at most.
const MaxLimit = 1000
