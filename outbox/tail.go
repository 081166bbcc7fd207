package outbox

import "sync"

// The tail keeps so much of the log's end in memory.
const (
	maxTailEntries = 8192
	maxTailBytes   = 16 << 20
)

// A tail is the end of the log in memory: what was committed last, in the order of the commits. Dispatchers that keep up never
// read the store.
type tail struct {
	mu      sync.Mutex
	entries []*entry // without gaps
	bytes   int
	next    uint64 // the first seq that is not durable
}

func newTail(next uint64) *tail { return &tail{next: next} }

// append adds entries that have become durable; their seqs go on from the last.
func (t *tail) append(entries []*entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range entries {
		t.entries = append(t.entries, e)
		t.bytes += e.size()
		t.next = e.seq + 1
	}
	if len(t.entries) <= maxTailEntries && t.bytes <= maxTailBytes {
		return
	}
	drop := 0
	for len(t.entries)-drop > maxTailEntries*3/4 || t.bytes > maxTailBytes*3/4 {
		t.bytes -= t.entries[drop].size()
		drop++
	}
	t.entries = append(make([]*entry, 0, maxTailEntries), t.entries[drop:]...)
}

// end returns the first seq that is not durable.
func (t *tail) end() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.next
}

// read returns up to max entries from seq from on, whose bytes are not many more than maxBytes. ok is false if the tail begins
// later than from; the store has it then.
func (t *tail) read(from uint64, max, maxBytes int) (entries []*entry, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if from >= t.next {
		return nil, true
	}
	first := t.next - uint64(len(t.entries))
	if from < first {
		return nil, false
	}
	size := 0
	for _, e := range t.entries[from-first:] {
		if len(entries) >= max || size >= maxBytes {
			break
		}
		entries = append(entries, e)
		size += e.size()
	}
	return entries, true
}
