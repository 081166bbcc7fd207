package config

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// An Address is where a listener listens.
type Address struct {
	Unix string // path of a unix socket; "": TCP
	Host string // "localhost" means both loopbacks; "": every interface
	Port uint16 // 0: any free one
}

// maxUnixPath is what fits into a socket address on every system, with its final NUL.
const maxUnixPath = 103

// ParseAddress reads host:port, where host is localhost, an IP address or nothing, or unix:/path.
func ParseAddress(s string) (Address, error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		switch {
		case !strings.HasPrefix(path, "/"):
			return Address{}, fmt.Errorf("%q: a unix socket needs an absolute path", s)
		case len(path) > maxUnixPath:
			return Address{}, fmt.Errorf("the path of a unix socket has at most %d bytes, this one %d", maxUnixPath, len(path))
		}
		return Address{Unix: path}, nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return Address{}, fmt.Errorf("%q is not an address: write host:port, [IPv6]:port or unix:/path", s)
	}
	n, err := parseDigits(port)
	if err != nil || n > 65535 {
		return Address{}, fmt.Errorf("%q: the port is a number up to 65535", s)
	}
	if host != "" && host != "localhost" {
		if _, err := netip.ParseAddr(host); err != nil {
			return Address{}, fmt.Errorf("%q: the host is localhost or an IP address", s)
		}
	}
	return Address{Host: host, Port: uint16(n)}, nil
}

// Local reports whether only this machine can connect.
func (a Address) Local() bool {
	if a.Unix != "" || a.Host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(a.Host)
	return err == nil && ip.IsLoopback()
}

// String returns what ParseAddress reads.
func (a Address) String() string {
	if a.Unix != "" {
		return "unix:" + a.Unix
	}
	return net.JoinHostPort(a.Host, fmt.Sprint(a.Port))
}
