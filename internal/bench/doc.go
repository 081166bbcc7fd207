// Bench measures a pair of sidecars against what the machine can do, and prints
// each figure as a ratio to a baseline taken in the same round.
//
//	go run ./internal/bench                  # three rounds, under ten minutes
//	go run ./internal/bench -quick           # one short round, to see that nothing broke
//	go run ./internal/bench -only g1,g2 -profile /tmp/prof
//
// It builds the binary, starts everything itself, talks to loopback only, writes
// below dist/ of the work tree (so to the disk that the tree is on) and removes
// what it wrote. Every load ends by a count and by a time.
//
// Generator, sink, baselines and sidecars share the machine, so absolute rates
// say little: compare ratios. An event is 1,024 bytes of JSON, its data about as
// hard to compress as base64. It carries a mark with its number, its place in
// its key's order and the moment when it was due: the sink reads it back, and so
// finds what was lost, repeated or out of order, and how long it took.
//
// What it does not show: power cuts, TLS, more than one subscriber, payloads of
// other sizes, runs of hours.
package main
