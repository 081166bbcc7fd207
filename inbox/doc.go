// Package inbox takes events from other services, keeps them, and forwards them to the app until the app is done with them.
//
// What it promises:
//
//   - An event is synced to disk before it is answered stored, and before any copy of it is answered duplicate.
//   - Nothing is stored without a valid signature of a service that may speak for the event's source, over a request that
//     was addressed to this service.
//   - The app gets an event once per (source, id) inside the dedup window. Where a repeat cannot be excluded it is marked,
//     X-Delivery-Redelivered: true. What was unsettled when the process started is marked too.
//   - What another instance of the service has finished is not forwarded here, if that instance can be asked: a redelivery
//     that is not known here, and what was unsettled at start or while the two could not reach each other.
//   - Events of one (source, key) are forwarded in the order in which they arrived, one at a time, through retries and restarts.
//     Events without a key never wait for each other.
//   - An event is forwarded until the app takes it or it becomes a dead letter. An app that is down, sick, or asks for a
//     pause uses up no attempts.
//   - What a sender is told to be applied is settled on the disk: a crash does not bring it back.
//   - An id is remembered for the dedup window after its event was settled, and as long as its dead letter is open.
//   - Memory is bounded by a window of the log and the events that wait for something; start-up reads no more than these.
//
// What it does not promise: order between keys, or between senders; that a key stops behind a dead letter (it goes on, with
// the next event of that key); that the app never sees an event twice when the process dies between the app's answer and
// the record of it, which is what the mark is for.
//
// An event goes through these files:
//
//	handler.go, direct.go  HTTP in: the batch of a sidecar, or a single event
//	verify.go              who sent it
//	siblings.go, known.go  what other instances of the service know: the question and the answer
//	accept.go, repeat.go   the one transaction that decides: duplicate, conflict, or stored
//	tail.go                hand-over in memory to the forwarder, which else reads the log
//	forwarder.go           the pure state machine: what goes when, and what an answer means; with item.go, window.go, app_state.go, doubt.go
//	app.go, answer.go      HTTP to the app
//	settle.go              the one writer of final states, of attempts and of the cursor
//	sender_log.go          what each sender is told: applied, open keys
//	retention.go           what goes in the background: old events, ids, ended letters, senders that are gone
//
// Records, in the store's table of prefixes: n, q, r and l; d is written through package dedup, x and y through deadletter.
package inbox
