package main

import (
	"context"
	"math"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// softMemoryBytes is when the garbage collector begins to try harder, unless GOMEMLIMIT says otherwise.
	softMemoryBytes = 256 << 20

	// garbagePercent is GOGC unless the environment says otherwise. Most of what lives is the store's buffers, allocated once: as much
	// garbage again beside them buys nothing (docs/PERFORMANCE.md, G7).
	garbagePercent = 50

	memoryTick = 5 * time.Second
	burstBytes = 64 << 20 // allocated since memory was last given back: worth a collection
	quietBytes = 4 << 20  // allocated in one tick: next to nothing is going on
)

// keepMemorySmall is the one owner of what this process does about its memory: a soft limit, and giving back what a burst has
// left once that is over. The runtime alone would keep it for as long as nothing else happens. It returns when ctx ends.
func keepMemorySmall(ctx context.Context, env func(string) string) {
	if env("GOMEMLIMIT") == "" && debug.SetMemoryLimit(-1) == math.MaxInt64 {
		debug.SetMemoryLimit(softMemoryBytes)
	}
	if env("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
	m := &burst{freed: allocated()}
	m.last = m.freed
	tick := time.NewTicker(memoryTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if m.over(allocated()) {
				debug.FreeOSMemory()
			}
		}
	}
}

// A burst watches how many bytes the process has allocated in its life.
type burst struct {
	last  uint64 // at the last tick
	freed uint64 // when memory was last given back
}

// over reports whether much has been allocated and now little is.
func (b *burst) over(total uint64) bool {
	quiet := total-b.last < quietBytes
	b.last = total
	if !quiet || total-b.freed < burstBytes {
		return false
	}
	b.freed = total
	return true
}

func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
