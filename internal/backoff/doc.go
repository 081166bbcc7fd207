// Package backoff says how long to wait before trying again.
//
// It keeps no state and reads no clock: the attempt number, the random number and the time come in as arguments.
package backoff
