package event

import "time"

// A Subscription is what a service asked to be sent.
type Subscription struct {
	Types []string  `json:"types"` // patterns, see ParsePattern
	Since time.Time `json:"since"` // when the service first made it
	From  string    `json:"from"`  // where to start: "latest", "earliest" or an RFC 3339 time; "" means "latest"
}

// An Instance is what is known of one sidecar of a service. A holder treats it as read-only: its slices are shared.
type Instance struct {
	Service, Name string
	StoreID       string // names the store that its seqs and cursors count within
	URL           string // of its peer listener
	Boot          uint64 // greater after each start of the same store
	Subscriptions []Subscription
	Sources       []string // other names that its service may publish under
	Keys          []string // the service's public keys, whpk_…
}
