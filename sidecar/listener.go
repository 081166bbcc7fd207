package sidecar

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/config"
)

// A BusyError says that somebody else listens on an address already.
type BusyError struct {
	Listener string // app, peer, admin
	Address  string
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("%s listener: %s is in use by another process; stop it, or move this sidecar with --port-base or --%s-listen",
		e.Listener, e.Address, e.Listener)
}

// bind listens on addr: on both loopbacks for localhost, if the machine has both, under one limit of connections.
func bind(name string, addr config.Address, maxConns int) ([]net.Listener, error) {
	crowd := newCrowd(maxConns)
	if addr.Unix != "" {
		l, err := bindUnix(name, addr.Unix)
		if err != nil {
			return nil, err
		}
		return []net.Listener{newLimited(l, crowd)}, nil
	}
	found, err := bindTCP(name, addr)
	if err != nil {
		return nil, err
	}
	for i := range found {
		found[i] = newLimited(found[i], crowd)
	}
	return found, nil
}

func bindTCP(name string, addr config.Address) ([]net.Listener, error) {
	if addr.Host != "localhost" {
		l, err := listen(name, net.JoinHostPort(addr.Host, strconv.Itoa(int(addr.Port))))
		if err != nil {
			return nil, err
		}
		return []net.Listener{l}, nil
	}
	const tries = 10 // for a free port that is free on both loopbacks
	for try := 1; ; try++ {
		pair, err := bindLoopbacks(name, addr.Port)
		busy := &BusyError{}
		if addr.Port == 0 && errors.As(err, &busy) && try < tries {
			continue
		}
		return pair, err
	}
}

// bindLoopbacks takes port on 127.0.0.1 and on [::1]. Without IPv6, or IPv4, the other is enough.
func bindLoopbacks(name string, port uint16) ([]net.Listener, error) {
	var found []net.Listener
	var missing error
	for _, host := range []string{"127.0.0.1", "::1"} {
		l, err := listen(name, net.JoinHostPort(host, strconv.Itoa(int(port))))
		switch {
		case err == nil:
			found = append(found, l)
			port = l.Addr().(*net.TCPAddr).AddrPort().Port()
		case errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT):
			missing = err
		default:
			return nil, errors.Join(err, closeAll(found))
		}
	}
	if len(found) == 0 {
		return nil, missing
	}
	return found, nil
}

func closeAll(listeners []net.Listener) error {
	var errs []error
	for _, l := range listeners {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func listen(name, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, &BusyError{Listener: name, Address: address}
	case err != nil:
		return nil, err
	}
	return l, nil
}

var errNoSocket = errors.New("is there and is no socket")

// bindUnix listens on a socket that only owner and group may use. A socket that nobody answers on is left over from a
// process that was killed and is replaced; anything else at path is not ours to remove.
func bindUnix(name, path string) (net.Listener, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode()&fs.ModeSocket == 0:
		return nil, fmt.Errorf("%s %w: remove it, or listen elsewhere", path, errNoSocket)
	default:
		c, err := net.DialTimeout("unix", path, time.Second)
		if err == nil {
			return nil, errors.Join(&BusyError{Listener: name, Address: "unix:" + path}, c.Close())
		}
		if !errors.Is(err, syscall.ECONNREFUSED) { // somebody may well be there: too busy to answer, or not for us
			return nil, fmt.Errorf("%w (%w)", &BusyError{Listener: name, Address: "unix:" + path}, err)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o660); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// limited accepts no more connections at a time than its crowd may have. Others wait, most of them in the queue of the kernel.
type limited struct {
	net.Listener
	crowd  *crowd // shared with the other addresses of the same listener
	closed chan struct{}
	close  func() error // closes closed and Listener, once
}

func newLimited(l net.Listener, c *crowd) *limited {
	closed := make(chan struct{})
	return &limited{Listener: l, crowd: c, closed: closed, close: sync.OnceValue(func() error {
		close(closed)
		return l.Close()
	})}
}

// Accept waits for a connection, then for a slot: the other way round an address that nobody uses would hold one.
func (l *limited) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if !l.crowd.enter(l.closed) {
		return nil, errors.Join(net.ErrClosed, c.Close())
	}
	return &slotted{Conn: c, release: sync.OnceFunc(l.crowd.leave)}, nil
}

// Close may be called more than once.
func (l *limited) Close() error { return l.close() }

// slotted gives its slot back when it is closed.
type slotted struct {
	net.Conn
	release func()
}

func (c *slotted) Close() error {
	defer c.release()
	return c.Conn.Close()
}

// CloseWrite lets net/http end a refusal in order: without it the rest of a request that is not read would reset the connection,
// and the client might never see the answer.
func (c *slotted) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// allowedHosts returns the values of Host that requests to listeners may carry: none if any may, as on a unix socket or off
// loopback, where a bearer token is asked for.
func allowedHosts(listeners []net.Listener) []string {
	var hosts []string
	for _, l := range listeners {
		tcp, ok := l.Addr().(*net.TCPAddr)
		if !ok || !tcp.IP.IsLoopback() {
			return nil
		}
		names := []string{"localhost", "127.0.0.1", "[::1]"}
		if ip, ok := netip.AddrFromSlice(tcp.IP); ok && ip.Unmap() != netip.MustParseAddr("127.0.0.1") && ip.Is4() {
			names = append(names, ip.Unmap().String())
		}
		for _, name := range names {
			hosts = append(hosts, name+":"+strconv.Itoa(tcp.Port))
			if tcp.Port == 80 {
				hosts = append(hosts, name) // what clients leave out
			}
		}
	}
	return hosts
}

// addresses returns where listeners listen, as clients would write it.
func addresses(listeners []net.Listener) []string {
	var out []string
	for _, l := range listeners {
		if l.Addr().Network() == "unix" {
			out = append(out, "unix:"+l.Addr().String())
		} else {
			out = append(out, l.Addr().String())
		}
	}
	return out
}
