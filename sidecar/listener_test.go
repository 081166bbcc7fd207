package sidecar

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/hooksidecar/hooksidecar/internal/config"
)

func TestLocalhostIsBothLoopbacks(t *testing.T) {
	if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skip("this machine has no IPv6 loopback")
	} else if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	found, err := bind("app", config.Address{Host: "localhost"}, 4)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(found)
	if len(found) != 2 {
		t.Fatalf("got %v, want two addresses", addresses(found))
	}
	a, b := found[0].Addr().(*net.TCPAddr), found[1].Addr().(*net.TCPAddr)
	if a.IP.String() != "127.0.0.1" || b.IP.String() != "::1" || a.Port != b.Port {
		t.Errorf("got %v and %v, want both loopbacks on one port", a, b)
	}
	port := strconv.Itoa(a.Port)
	for _, want := range []string{"localhost:" + port, "127.0.0.1:" + port, "[::1]:" + port} {
		if hosts := allowedHosts(found); !slices.Contains(hosts, want) {
			t.Errorf("%s is not among the hosts %v", want, hosts)
		}
	}
	if _, err := bind("peer", config.Address{Host: "localhost", Port: uint16(a.Port)}, 4); err == nil {
		t.Error("a second listener took the same port")
	}
}

func TestUnixSocket(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "app.sock")
	bindIt := func() ([]net.Listener, error) { return bind("app", config.Address{Unix: path}, 4) }
	found, err := bindIt()
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("got %v, %v, want mode 0660", info, err)
	}
	busy := &BusyError{}
	if _, err := bindIt(); !errors.As(err, &busy) {
		t.Errorf("second listener: got %v, want a BusyError", err)
	}
	found[0].(*limited).Listener.(*net.UnixListener).SetUnlinkOnClose(false) // as if the process had been killed
	if err := closeAll(found); err != nil {
		t.Fatal(err)
	}
	if found, err = bindIt(); err != nil {
		t.Fatalf("over a socket that nobody answers on: %v", err)
	}
	if err := closeAll(found); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := bindIt(); err == nil {
		t.Error("a file was taken for a socket")
	}
	if text, err := os.ReadFile(path); string(text) != "mine" {
		t.Errorf("the file is %q, %v", text, err)
	}
}

func TestConnectionsAreLimited(t *testing.T) {
	found, err := bind("app", config.Address{Host: "localhost"}, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(found)
	accepted := make(chan net.Conn)
	for _, l := range found { // both addresses share the one slot
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				accepted <- c
			}
		}()
	}
	for range 2 {
		c, err := net.Dial("tcp", found[0].Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	first := <-accepted
	select {
	case <-accepted:
		t.Error("a second connection was accepted beyond the limit")
	default:
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := <-accepted // comes only if the slot was given back
	if err := second.Close(); err != nil {
		t.Error(err)
	}
}
