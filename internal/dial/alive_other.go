//go:build !unix

package dial

import "time"

// alive reports whether the idle connection may still be open. Here nobody can look, so only one that was just used counts.
func (c *directConn) alive() bool { return time.Since(c.idleSince) < time.Second }
