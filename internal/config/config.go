package config

import "time"

// A Config is everything that can be set for one sidecar. The zero value is not usable: Load or Defaults makes one.
type Config struct {
	Service  string // name of the service that this sidecar belongs to; required
	Instance string // name among the instances of the service; "": made from the host name once, then kept in the store
	DataDir  string // directory of the store; Load fills in ./data/<service>
	PortBase int    // port of the app listener; peer and admin follow it

	App      App
	Peer     Peer
	Admin    Admin
	Peers    []string // URLs of sidecars to know from the start
	Keys     Keys
	Retry    Retry
	Outbox   Outbox
	Inbox    Inbox
	Store    Store
	Log      Log
	Shutdown Shutdown
}

// App is the application next door.
type App struct {
	Listen        string         // where it publishes: host:port or unix:/path
	URL           string         // where events are forwarded to; "": publish only
	Subscriptions []Subscription // what it wants, tried in this order
	Secret        string         // whsec_…, signs what is forwarded; "": not signed. Load also takes it from SecretFile
	SecretFile    string
	Timeout       time.Duration // of one forward
	Concurrency   int           // forwards at once
	ReadinessURL  string        // asked while the app seems to be down; "": the next event is the question
}

// A Subscription is a list of type patterns and where and how matching events are forwarded.
type Subscription struct {
	Types []string // patterns; ! excludes
	Path  string   // added to App.URL; "": /events, or nothing if App.URL has a path of its own
	From  string   // where a new subscription starts: latest (""), earliest, or RFC 3339
	Retry Retry    // zero fields: those of Config.Retry
}

// Peer is the listener for other sidecars.
type Peer struct {
	Listen    string // host:port
	Advertise string // URL that others are told; "": where it listens, or the first address of this machine if that is everywhere
}

// Admin is the listener for operators.
type Admin struct {
	Listen    string   // host:port or unix:/path
	TokenFile string   // needed when the app or admin listener is off loopback
	Tokens    []string // the lines of TokenFile, each a bearer token that both listeners take; none: no token is asked for
	Pprof     bool     // serve /debug/pprof/
}

// Keys names the files that hold keys.
type Keys struct {
	Signing string // key of the service; Load fills in ./keys/<service>.key
}

// Retry is the schedule of forwards that fail.
type Retry struct {
	Initial     time.Duration // greatest first wait; doubled each time
	MaxInterval time.Duration // greatest wait of all
	MaxAttempts int           // then the event is a dead letter
}

// Outbox is how long published events are kept.
type Outbox struct {
	Retention     time.Duration // of events that every subscriber has
	DedupWindow   time.Duration // how long an id is remembered
	Sources       []string      // names that the app may publish under, besides its own
	MaxBytes      Bytes         // of events that are kept; 0: a quarter of the disk, at most 10 GiB
	MaxEventBytes Bytes         // of one event
}

// Inbox is how long received events are remembered.
type Inbox struct {
	DedupWindow time.Duration // how long an id is remembered after the event is settled
	Retention   time.Duration // of settled events
	MaxBytes    Bytes         // of events that wait for the app
}

// Store is about the disk.
type Store struct {
	MinFreeBytes Bytes // intake stops below; 0: the greater of 512 MiB and a tenth of the store
	BallastBytes Bytes // set aside for a full disk; 0: 128 MiB
	UnsafeFS     bool  // allow tmpfs and network file systems
}

// Log is how the sidecar talks.
type Log struct {
	Level  string // debug, info, warn, error
	Format string // text, json; auto: text on a terminal
}

// Shutdown bounds stopping.
type Shutdown struct {
	Timeout time.Duration // in total
}

// Defaults returns what holds when nothing is set. Service is empty.
func Defaults() Config {
	var c Config
	for _, s := range Settings() {
		if s.Default == "" {
			continue
		}
		if err := s.set(&c, []string{s.Default}); err != nil {
			panic("config: default of " + s.Name + ": " + err.Error()) // the table is wrong: a test finds it
		}
	}
	return c
}
