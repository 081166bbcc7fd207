package deadletter

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"time"
	"unicode/utf8"
)

// The sides on which an event can be given up.
const (
	Outbox = "outbox" // on the way to another service's sidecar
	Inbox  = "inbox"  // on the way to the own app
)

// The states of a letter; doc.go draws who moves them on.
const (
	Dead      = "dead"
	Waiting   = "waiting"
	Replaying = "replaying"
	Resolved  = "resolved"
	Purged    = "purged"
)

// MaxBodyBytes is how much of the last answer's body a letter keeps.
const MaxBodyBytes = 16 << 10

// ErrNotFound says that there is no such letter.
var ErrNotFound = errors.New("no such dead letter")

// A Letter is an event that a side has given up on.
type Letter struct {
	ID            string    `json:"id"`         // dl_ and 32 hex digits
	Side          string    `json:"side"`       // Outbox or Inbox
	Subscriber    string    `json:"subscriber"` // the service that was owed the event
	State         string    `json:"state"`
	Reason        string    `json:"reason"`      // a stable code, such as attempts_exhausted
	Fingerprint   string    `json:"fingerprint"` // equal for letters that failed in the same way
	EventID       string    `json:"eventId"`
	Source        string    `json:"source"`
	Type          string    `json:"type"`
	Version       string    `json:"version,omitempty"`
	Key           string    `json:"key,omitempty"`
	CorrelationID string    `json:"correlationId,omitempty"`
	Seq           uint64    `json:"seq"` // in the log of its side
	Attempts      int       `json:"attempts"`
	Last          Answer    `json:"last"`
	FirstAt       time.Time `json:"firstAt"` // first given up
	LastAt        time.Time `json:"lastAt"`  // last change of state
}

// An Answer is what was answered last. A zero Status means that there was no answer; Body then says what happened.
type Answer struct {
	Status int               `json:"status,omitempty"`
	Header map[string]string `json:"header,omitempty"`
	Body   string            `json:"body,omitempty"` // at most MaxBodyBytes
}

// ID returns the id of the letter about the event that is known by source and id.
func ID(side, subscriber, source, id string) string {
	h := sha256.New()
	for _, part := range []string{side, subscriber, source, id} {
		h.Write([]byte(part))
		h.Write([]byte{0})
	}
	return "dl_" + hex.EncodeToString(h.Sum(nil)[:16])
}

// Fingerprint returns what letters that failed in the same way have in common: the event's type, the reason, and the answer
// without what differs from one event to the next (numbers, ids).
func Fingerprint(typ, reason string, last Answer) string {
	h := sha256.New()
	for _, part := range []string{typ, reason, hex.EncodeToString([]byte{byte(last.Status >> 8), byte(last.Status)})} {
		h.Write([]byte(part))
		h.Write([]byte{0})
	}
	h.Write(normalise(last.Body))
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// normalise returns the first part of body with every word that holds a digit replaced by a #.
func normalise(body string) []byte {
	body = body[:min(len(body), 1024)]
	words := bytes.FieldsFunc([]byte(body), func(r rune) bool {
		return r < '0' || r > '9' && r < 'A' || r > 'Z' && r < 'a' || r > 'z' && r < utf8.RuneSelf
	})
	for i, word := range words {
		if bytes.ContainsAny(word, "0123456789") {
			words[i] = []byte("#")
		}
	}
	return bytes.Join(words, []byte(" "))
}

// clip shortens s to at most n bytes of valid UTF-8.
func clip(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
