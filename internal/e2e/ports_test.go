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
	firstPort = 10_000
	lastPort  = 32_000
)

// takenPorts are the ports handed out in this run; each is handed out once.
var takenPorts = struct {
	sync.Mutex
	ports map[int]bool
}{ports: map[int]bool{}}

// freeAddress returns a loopback address on which nobody listens, and which no other test of this run gets.
func freeAddress(t *testing.T) string {
	t.Helper()
	takenPorts.Lock()
	defer takenPorts.Unlock()
	for range 200 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		if takenPorts.ports[port] {
			continue
		}
		address := fmt.Sprintf("127.0.0.1:%d", port)
		l, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		_ = l.Close()
		takenPorts.ports[port] = true
		return address
	}
	t.Fatal("no free port on loopback")
	return ""
}
