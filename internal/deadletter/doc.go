// Package deadletter keeps the events that a side has given up on, in one shape for both sides.
//
// A letter names the event, who was owed it, why it was given up and what was answered last; it holds its own copy of the
// event, so that retention of a log never takes the evidence away. There is at most one letter per side, subscriber, source
// and event id: its id is a hash of these, so giving up twice is one letter.
//
// Records, both counted as live by the store:
//
//	x + id(16)   version 1, JSON of the letter
//	y + id(16)   version 1, uvarint length of the attributes, attributes, data
//
// States, and who moves them on:
//
//	                    replay asked for              the subscriber has it
//	Put ──▶ dead ──────────────────────▶ replaying ──────────────────────▶ resolved
//	         ▲  │                            │
//	         │  └─ an operator ─▶ purged     │ given up again (Put)
//	         └───────────────────────────────┘
//
// waiting stands for an event that joined the letter before it in the order of its key. A crash leaves every letter in the
// state of its last commit; who finds a letter replaying at start takes the replay up again. A resolved or purged letter
// keeps its record and drops the copy of the event; Expire removes what has been so for long.
//
// The package writes inside the caller's transaction only: the letter and the end of the record that it came from are one commit.
package deadletter
