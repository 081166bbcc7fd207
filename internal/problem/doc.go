// Package problem turns errors into answers, and reads request bodies within limits.
//
// Every answer that is not a success is `application/problem+json` (RFC 9457) with a stable code; the one table of
// codes is here. From is the only place that turns an error into such an answer. An error that it does not know
// becomes `internal`, and nothing of its text leaves the process.
package problem
