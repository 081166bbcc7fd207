// Package dial makes the HTTP clients that talk to peers and to the app.
//
// Promises:
//   - No proxy, no redirects, no cookies, no compression: a request goes to the host it names and nowhere else.
//   - Addresses that no peer and no app can have are refused when they are dialled, after names were resolved:
//     link-local (with cloud metadata), unspecified, multicast, and loopback unless it was allowed.
//   - Waits, header sizes and connections are bounded. An answer that switches protocols is an error, and the connection closed.
//   - A peer that fails does not close the connections to the others.
//   - A request is repeated at most once, quickly, and only if nothing of it was sent. All other repeating is the
//     caller's, who has a schedule that survives a restart.
package dial
