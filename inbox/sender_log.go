package inbox

import (
	"container/heap"
	"maps"
	"math"
	"slices"

	"github.com/hooksidecar/hooksidecar/internal/event"
)

const (
	blockEvents = 1024 // of the inbox log, described together until the forwarder has read them
	maxAlso     = 1000 // seqs of one log that stand for events which came from elsewhere first
)

// A senderLog is what the inbox knows of one log that it is sent events of. It answers one question: up to which seq is
// everything settled that was given? The answer may be too low for a while; it is never too high.
//
// Events that the forwarder has read are known one by one. For the others, which may be many, a block of them knows its
// lowest seq only.
type senderLog struct {
	service, instance string
	highest           uint64 // seq given
	cursor            uint64 // announced by the sender
	at                int64  // when an event of it was stored last; Unix ms, by the ageing clock

	open   map[uint64]uint64  // seq -> key hash
	lowest seqHeap            // of open, and of what was open
	keys   map[uint64]int     // key hash -> how many are open
	unread []block            // in the order of the inbox log
	coming map[*accept]uint64 // lowest seq of what is being stored
	also   map[uint64]uint64  // seq -> inbox seq, of events that came from elsewhere first; part of open
}

// A block describes events of the inbox log that the forwarder has not read.
type block struct {
	from, to uint64 // inbox seqs
	lowest   uint64 // seq of the sender's log
}

func newSenderLog(service, instance string) *senderLog {
	return &senderLog{
		service: service, instance: instance,
		open: map[uint64]uint64{}, keys: map[uint64]int{}, coming: map[*accept]uint64{}, also: map[uint64]uint64{},
	}
}

// stored notes an event that became durable.
func (s *senderLog) stored(seq, inboxSeq uint64) {
	s.highest = max(s.highest, seq)
	if last := len(s.unread) - 1; last >= 0 && inboxSeq-s.unread[last].from < blockEvents {
		s.unread[last].to = inboxSeq
		s.unread[last].lowest = min(s.unread[last].lowest, seq)
		return
	}
	s.unread = append(s.unread, block{from: inboxSeq, to: inboxSeq, lowest: seq})
}

// opened notes an event that the forwarder has read.
func (s *senderLog) opened(seq, key uint64) {
	s.highest = max(s.highest, seq)
	if _, known := s.open[seq]; known {
		return
	}
	s.open[seq] = key
	heap.Push(&s.lowest, seq)
	if key != 0 {
		s.keys[key]++
	}
}

// keyed notes the key of an event that came from elsewhere first.
func (s *senderLog) keyed(seq, key uint64) {
	if before, open := s.open[seq]; open && before == 0 && key != 0 {
		s.open[seq] = key
		s.keys[key]++
	}
}

// idle reports whether nothing of the log is open or on its way.
func (s *senderLog) idle(read uint64) bool {
	s.lowestOpen(read) // forgets blocks that have been read
	return len(s.open) == 0 && len(s.unread) == 0 && len(s.coming) == 0
}

// closed notes a settled event.
func (s *senderLog) closed(seq uint64) {
	key, known := s.open[seq]
	if !known {
		return
	}
	delete(s.open, seq)
	delete(s.also, seq)
	if s.keys[key]--; s.keys[key] <= 0 {
		delete(s.keys, key)
	}
	if len(s.lowest) > 2*len(s.open)+1024 { // one that stays open must not keep the memory of all that came after it
		s.lowest = slices.AppendSeq(s.lowest[:0], maps.Keys(s.open))
		heap.Init(&s.lowest)
	}
}

// applied returns the seq up to which everything is settled; read is the next seq of the inbox log to be read.
func (s *senderLog) applied(read uint64) uint64 {
	return min(s.lowestOpen(read), s.highest+1) - 1
}

// lowestOpen returns the lowest seq that may be open, or noSeq.
func (s *senderLog) lowestOpen(read uint64) uint64 {
	for len(s.unread) > 0 && s.unread[0].to < read {
		s.unread = s.unread[1:]
	}
	lowest := uint64(noSeq)
	for _, b := range s.unread {
		lowest = min(lowest, b.lowest)
	}
	for _, seq := range s.coming {
		lowest = min(lowest, seq)
	}
	for len(s.lowest) > 0 {
		if _, open := s.open[s.lowest[0]]; open {
			lowest = min(lowest, s.lowest[0])
			break
		}
		heap.Pop(&s.lowest)
	}
	return max(lowest, 1)
}

// openKeys returns the hashes of the keys that are open; all says that any key may be.
func (s *senderLog) openKeys(read uint64) (keys []uint64, all bool) {
	s.lowestOpen(read) // forgets blocks that have been read
	if len(s.unread) > 0 || len(s.keys) > event.MaxOpenKeys {
		return nil, true
	}
	for key := range s.keys {
		keys = append(keys, key)
	}
	return keys, false
}

// record returns the log's l record as it is once seqs up to highest have been stored.
func (s *senderLog) record(read, highest uint64) senderRecord {
	return senderRecord{
		Service: s.service, Instance: s.instance, Highest: highest, Cursor: s.cursor,
		Applied: min(s.lowestOpen(read), highest+1) - 1, Also: s.also,
	}
}

// unknownBefore says that events up to the inbox seq to are not known one by one, none of them with a seq up to applied.
func (s *senderLog) unknownBefore(to, applied uint64) {
	s.unread = append(s.unread, block{from: 0, to: to, lowest: applied + 1})
}

// noSeq is above every seq.
const noSeq = math.MaxUint64

// A seqHeap hands out its lowest seq first.
type seqHeap []uint64

func (h seqHeap) Len() int           { return len(h) }
func (h seqHeap) Less(i, j int) bool { return h[i] < h[j] }
func (h seqHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *seqHeap) Push(x any)        { *h = append(*h, x.(uint64)) }
func (h *seqHeap) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	*h = (*h)[:last]
	return x
}
