package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

// Ports are taken below the range that the kernel gives to outgoing connections, so that a sidecar that is killed
// and started again finds its own ports free.
const (
	firstPort  = 10_000
	lastPort   = 32_000
	blockPorts = 200
)

// A portBlock is a row of ports that belongs to this run: the first one is listened on for as long as the process
// lives, which tells other runs on this machine to take another block.
type portBlock struct {
	mu         sync.Mutex
	guards     []net.Listener // on the first port of each block that was taken
	next, last int
}

var ports portBlock

// freeAddress returns a loopback address on which nobody listens, and which no other test gets.
func freeAddress(t *testing.T) string {
	t.Helper()
	address, err := ports.take()
	if err != nil {
		t.Fatal(err)
	}
	return address
}

func (b *portBlock) take() (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for range 2 * blockPorts {
		if b.next > b.last || len(b.guards) == 0 {
			if err := b.move(); err != nil {
				return "", err
			}
		}
		address := fmt.Sprintf("127.0.0.1:%d", b.next)
		b.next++
		if l, err := net.Listen("tcp", address); err == nil {
			return address, l.Close()
		}
	}
	return "", fmt.Errorf("no free port on loopback from %d to %d", firstPort, lastPort)
}

// move takes another block. The one before stays taken: its ports are in use.
func (b *portBlock) move() error {
	for range 100 {
		first := firstPort + blockPorts*rand.IntN((lastPort-firstPort)/blockPorts)
		guard, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first))
		if err == nil {
			b.guards, b.next, b.last = append(b.guards, guard), first+1, first+blockPorts-1
			return nil
		}
	}
	return fmt.Errorf("every block of ports from %d to %d is in use", firstPort, lastPort)
}
