package sidecar

import (
	"net"
	"net/netip"
	"strconv"
)

// advertisedURL returns where others find the peer listener: what was set, else where it listens, and if that is every
// interface, the first address of this machine that is not only for itself.
func advertisedURL(set string, listener net.Listener) string {
	if set != "" {
		return set
	}
	addr := listener.Addr().(*net.TCPAddr).AddrPort()
	ip := addr.Addr().Unmap()
	if ip.IsUnspecified() {
		ip = machineAddr()
	}
	return "http://" + net.JoinHostPort(ip.String(), strconv.Itoa(int(addr.Port())))
}

// machineAddr prefers IPv4, which every peer can reach.
func machineAddr() netip.Addr {
	found := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return found
	}
	for _, a := range addrs {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil || !prefix.Addr().IsGlobalUnicast() {
			continue
		}
		if prefix.Addr().Is4() {
			return prefix.Addr()
		}
		if found.IsLoopback() {
			found = prefix.Addr()
		}
	}
	return found
}
