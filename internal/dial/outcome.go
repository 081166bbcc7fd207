package dial

import (
	"errors"
	"net"
	"net/url"
	"strings"
	"syscall"
)

// NothingSent reports whether err means that no connection was made, so that nothing of the request can have arrived:
// refused, unreachable, no such name, timed out while dialling, forbidden. After any other error the outcome is unknown: the
// request may have been received in full. A nil err is an answer, not this.
func NothingSent(err error) bool {
	if err == nil {
		return false
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return true
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return true
	}
	_, forbidden := errors.AsType[*ForbiddenError](err)
	return forbidden
}

// NobodyListens reports whether err means that there is no process behind the address: refused, unreachable, no such
// name, no such socket. It is NothingSent without time-outs while dialling, which may be an overloaded host, and
// without addresses that were forbidden.
func NobodyListens(err error) bool {
	if !NothingSent(err) {
		return false
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return dns.IsNotFound || dns.IsTemporary || dns.IsTimeout
	}
	for _, errno := range []syscall.Errno{
		syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.ENETDOWN, syscall.ENOENT,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// Plain returns the text of err without the method and URL that net/http puts before it: the caller names the peer
// itself, and a URL may hold what should not be in a log.
func Plain(err error) string {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	return strings.TrimSpace(err.Error())
}
