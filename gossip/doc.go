// Package gossip knows who is here, at what address, subscribed to what, and whose key is whose. It never sees an event.
//
// Each sidecar describes itself in a Descriptor, which its service's key signs. Descriptors are exchanged with every
// configured peer, for ever; what was accepted is durable, so that a restarted sidecar knows whom it owes before
// anybody has answered.
//
// Promises:
//   - Nothing unsigned counts, nor anything that is older than what is known, or another thing under the same version.
//   - The first key seen of a service is pinned. Another is accepted only from who has the pinned one.
//   - What this sidecar is told never removes a service: one that is away is still known.
//   - A peer that is away, slow or hostile does not hold up the exchange with any other.
//
// Not promised: who is up. An address is where an instance was found last, and only asking tells whether it is there.
package gossip
