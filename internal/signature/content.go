package signature

import (
	"io"
	"strconv"
	"time"
)

// signed is the content that a signature covers.
type signed struct {
	id, timestamp string
	body          []byte
	joined        []byte // made on first use: Ed25519 wants one slice
}

func (c *signed) bytes() []byte {
	if c.joined == nil {
		c.joined = make([]byte, 0, len(c.id)+len(c.timestamp)+2+len(c.body))
		c.joined = append(c.joined, c.id...)
		c.joined = append(c.joined, '.')
		c.joined = append(c.joined, c.timestamp...)
		c.joined = append(c.joined, '.')
		c.joined = append(c.joined, c.body...)
	}
	return c.joined
}

func (c *signed) writeTo(w io.Writer) { // w is a hash: it never fails
	_, _ = io.WriteString(w, c.id+"."+c.timestamp+".")
	_, _ = w.Write(c.body)
}

func formatTimestamp(at time.Time) string { return strconv.FormatInt(at.Unix(), 10) }

// parseTimestamp reads Unix seconds in their one form: digits, no sign, no leading zero, at most twelve.
func parseTimestamp(s string) (time.Time, bool) {
	if s == "" || len(s) > 12 || s[0] == '0' {
		return time.Time{}, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return time.Time{}, false
		}
	}
	seconds, err := strconv.ParseInt(s, 10, 64)
	return time.Unix(seconds, 0), err == nil
}
