package dial

import (
	"fmt"
	"net/netip"
	"syscall"
)

// A ForbiddenError refuses an address at dial time.
type ForbiddenError struct {
	Addr netip.Addr
	Kind string // what is wrong with it, such as "link-local"
}

func (e *ForbiddenError) Error() string {
	return fmt.Sprintf("address %s is %s and not allowed for peers or apps", e.Addr, e.Kind)
}

// CheckAddr returns a *ForbiddenError if addr cannot be a peer or an app. IPv4 addresses in IPv6 form count as IPv4.
func CheckAddr(addr netip.Addr, allowLoopback bool) error {
	addr = addr.WithZone("").Unmap()
	kind := ""
	switch {
	case !addr.IsValid():
		kind = "not an address"
	case addr.IsUnspecified() || inThisNetwork(addr):
		kind = "unspecified" // the system connects to itself
	case isMetadata(addr):
		kind = "a cloud metadata service"
	case addr.IsLinkLocalUnicast():
		kind = "link-local"
	case addr.IsMulticast() || addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		kind = "multicast or broadcast"
	case addr.IsLoopback() && !allowLoopback:
		kind = "loopback"
	case embedsIPv4(addr):
		kind = "an IPv4 address in another form"
	default:
		return nil
	}
	return &ForbiddenError{Addr: addr, Kind: kind}
}

// inThisNetwork reports 0.0.0.0/8, "this host on this network".
func inThisNetwork(addr netip.Addr) bool { return addr.Is4() && addr.As4()[0] == 0 }

// isMetadata reports the addresses under which clouds hand out credentials to whoever asks.
func isMetadata(addr netip.Addr) bool {
	switch addr.String() {
	case "169.254.169.254", "fd00:ec2::254", "fd20:ce::254", "100.100.100.200":
		return true
	}
	return false
}

// embedsIPv4 reports the IPv6 forms that a gateway or the system turns into an IPv4 address, which would slip past the
// checks of that one: IPv4-compatible (::a.b.c.d), NAT64 (64:ff9b::/96 and 64:ff9b:1::/48), 6to4 (2002::/16).
func embedsIPv4(addr netip.Addr) bool {
	if !addr.Is6() {
		return false
	}
	for _, prefix := range []string{"::/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16"} {
		if netip.MustParsePrefix(prefix).Contains(addr) && !addr.IsLoopback() {
			return true
		}
	}
	return false
}

// control is a net.Dialer.Control: it sees the address after resolution, whatever name it came from.
func (c Config) control(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("address %q: %w", address, err)
	}
	return CheckAddr(ap.Addr(), c.AllowLoopback)
}
