// Package outbox keeps what an app published until every subscriber has it.
//
// # What it promises
//
// A publish that was answered 202 or 200 is synced to disk. Any other answer means that nothing of it was stored; no answer
// means that the same id has to be posted again. An id names one content: the same id with another content is refused with
// the seq and time of the first.
//
// A subscriber is a service. It is owed every event that matches its subscriptions, from the seq that was decided when it was
// first heard of, whether or not it, or anybody, can be reached. Its record is durable before anything is sent to it. Only
// its own newer descriptor ends what it is owed.
//
// An event may arrive twice under the same id; whenever an earlier delivery cannot be excluded it is marked as redelivery.
// Events of one key reach an instance in the order of their seqs: after one that is not settled the later ones wait.
// Events without a key go to another instance when theirs has not been reached for a while. A key moves, because instances come or
// go or are not reached, only when the instance that had it is drained: by what that says of itself, in answers or when it is
// asked by a batch without events, and by what was sent to it and not answered. Until then its events go to the old
// instance, or wait if that is gone. One that is not reached at all for OrderWait is lost: the keys that it may have open go on,
// counted, and marked as redelivery where they may have been seen. Between instances that ask for different types this
// holds for the keys that an instance names; one that says only that any key may be open is held to what it was the home of.
// Where two may have a key, the one that it would go to being one of them, its events wait for either to be drained.
//
// Every event of the log ends, per subscriber, as stored (there), dead (here, as a dead letter), unsubscribed, skipped
// (never owed) or lost (the disk no longer has it), and each of these is counted in the same commit that makes it final.
//
// # What it does not promise
//
// It does not know whether the receiving app is done with an event, except for what the inboxes say in their answers; that is
// shown as applied, and as of the last answer. It does not copy the log to other machines. What a subscriber's dispatcher has
// not looked at yet counts as waiting, wanted or not: so the balance needs no look at the log.
//
// An instance that comes back with another store has lost its disk. What it may have had and was not done with, by its last
// answer, is sent again, marked: its share of the events above applied, and of those that went by an earlier set of instances, or
// past a lane that was stuck, all. Only what retention has removed meanwhile is gone, and counted as such. An instance that comes
// back under another name, or never, is not known to have lost anything.
//
// Verdicts are believed only if the subscriber signed them. A refusal of a whole batch (400, 413) is not signed by today's
// inboxes; it has to be in our own form, and can at worst make a dead letter, which keeps the event.
//
// # How it works
//
//	handler ─▶ publish (one operation of the committer) ─▶ tail ─▶ one subscriber loop per service ─▶ sender, one batch per lane
//	                                                                 │ dispatcher: decides            ◀─ answer
//	                                                                 └ settle: the one writer of what was decided
//
// The dispatcher is a state machine without I/O, goroutines, clock or chance. It holds the open events of one subscriber: a
// window of the log above the cursor, and what was set aside. An event that cannot settle soon is set aside by a record of
// its own in the same commit that moves the cursor past it, so that it neither holds the cursor nor the log.
//
// Records (docs/DESIGN.md has the whole table):
//
//	c            bytes held by the log, up to a seq
//	c + service  a subscriber: spans of seqs and patterns, cursor, settled ranges above it, counts, applied per instance
//	e + seq      an event
//	i + …        ids, by package dedup
//	s + hash(8) of the service + seq   an event set aside
package outbox
