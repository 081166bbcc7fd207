package inbox

import (
	"container/heap"
	"time"
)

// An item is an unsettled event as the forwarder knows it. The forwarder owns it.
type item struct {
	seq       uint64
	key       uint64 // hash of (source, key); 0: no key
	sub       int    // index of the first matching subscription; -1: none matches
	size      int    // bytes as stored
	log       string // store id of the sender's log; empty: given one by one
	logSeq    uint64 // seq in the sender's log
	arrivedAt int64  // Unix ms, by the ageing clock
	typ       string
	version   string

	attempts  int       // used up of the schedule
	tries     int       // requests that may have reached the app
	marked    bool      // a repeat cannot be excluded even before the first request of this process
	letter    string    // id of the dead letter that this event is replayed from
	due       time.Time // next attempt; zero: at once
	reason    string    // why it waits
	recorded  bool      // its r record is durable, the cursor may pass it
	recording bool      // its r record is being written
	dying     bool      // it is given up, or another instance has finished it
	doubt     bool      // the other instances are to be asked first whether they have finished it
	elsewhere bool      // they have
	settled   bool      // its letter is part of the operation on its way to the disk

	state     itemState
	order     uint64    // place among the ready ones: its seq, or later if others go first
	startedAt time.Time // of the request under way
	successes uint64    // of the app, when this event was tried last
	event     *received // bytes, if they are in memory
}

type itemState uint8

const (
	stateBlocked itemState = iota // behind another event of its key
	stateReady                    // in the ready heap
	stateFlying                   // a request is under way
	stateSaving                   // a write must be durable before it goes on
	stateWaiting                  // in the due heap
	stateParked                   // its subscription is parked
	stateAsking                   // it could go, but is in doubt
)

// why returns what the item waits for, for people.
func (it *item) why() string {
	switch it.state {
	case stateBlocked:
		return "behind_its_key"
	case stateFlying:
		return "in_flight"
	case stateParked:
		return "parked"
	case stateAsking:
		return "asking_other_instances"
	}
	return it.reason
}

// A ready heap hands out items in arrival order, but for those that were put behind.
type readyHeap []*item

func (h readyHeap) Len() int { return len(h) }
func (h readyHeap) Less(i, j int) bool {
	if h[i].order != h[j].order {
		return h[i].order < h[j].order
	}
	return h[i].seq > h[j].seq // the lower one was put behind
}
func (h readyHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *readyHeap) Push(x any)   { *h = append(*h, x.(*item)) }
func (h *readyHeap) Pop() any     { return popLast((*[]*item)(h)) }

// A due heap hands out items by the time of their next attempt.
type dueHeap []*item

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)        { *h = append(*h, x.(*item)) }
func (h *dueHeap) Pop() any          { return popLast((*[]*item)(h)) }

func popLast(s *[]*item) *item {
	last := len(*s) - 1
	it := (*s)[last]
	(*s)[last] = nil
	*s = (*s)[:last]
	return it
}

var (
	_ heap.Interface = (*readyHeap)(nil)
	_ heap.Interface = (*dueHeap)(nil)
)
