package inbox

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/store"
)

const (
	readEvents = 256     // of the log at once
	readBytes  = 4 << 20 // of the log at once
	heldBytes  = 32 << 20
)

// A spanSet are settled seqs, in order.
type spanSet []span

func (s spanSet) has(seq uint64) bool {
	_, found := slices.BinarySearchFunc(s, seq, func(sp span, seq uint64) int {
		switch {
		case sp.to < seq:
			return -1
		case sp.from > seq:
			return 1
		}
		return 0
	})
	return found
}

// load builds the state from the records: the cursor, the exceptions, and the senders' logs. The log itself is read later,
// by fill, and no further than the window.
func (in *Inbox) load() error {
	first, next := in.store.Bounds(store.InboxLog)
	return in.store.View(func(sn *store.Snapshot) error {
		p := progress{cursor: max(first, 1) - 1}
		val, ok, err := sn.Get([]byte(progressKey))
		if err != nil {
			return err
		}
		if ok {
			if p, err = decodeProgress(val); err != nil {
				return err
			}
		}
		p.cursor = min(max(p.cursor, max(first, 1)-1), max(next, 1)-1)
		in.f = newForwarder(policiesOf(in.cfg.Subscriptions), in.cfg.App.Concurrency, p.cursor)
		in.f.next = max(next, 1)
		in.f.doubtBefore = in.firstN
		in.f.backlogBytes = p.bytes
		in.skipped = p.spans
		for i := range in.cfg.Subscriptions {
			if slices.Contains(p.parked, in.cfg.Subscriptions[i].identity()) {
				in.f.parked[i] = true
			}
		}
		// Senders first: exceptions register with them.
		applied := map[string]senderRecord{}
		if err := in.loadSenders(sn, applied); err != nil {
			return err
		}
		if err := in.loadExceptions(sn, time.Now()); err != nil {
			return err
		}
		for storeID, rec := range applied {
			s := in.senders[storeID]
			if in.f.read < in.f.next {
				s.unknownBefore(in.f.next-1, rec.Applied)
			}
			for seq, inboxSeq := range rec.Also {
				in.joins(s, storeID, aside{seq: seq, inboxSeq: inboxSeq})
			}
		}
		return nil
	})
}

// joins notes that a sender waits for an event that came from elsewhere first, if that is unsettled. The caller holds in.mu.
func (in *Inbox) joins(s *senderLog, storeID string, d aside) {
	if _, known := s.open[d.seq]; known || !in.open(d.inboxSeq) {
		return
	}
	if it := in.f.items[d.inboxSeq]; it != nil {
		d.key = it.key
	}
	s.opened(d.seq, d.key)
	s.also[d.seq] = d.inboxSeq
	in.also[d.inboxSeq] = append(in.also[d.inboxSeq], logSeq{storeID, d.seq})
}

// open reports whether an event of the inbox log is unsettled, or its end is not durable. The caller holds in.mu.
func (in *Inbox) open(seq uint64) bool {
	if _, ending := in.ending[seq]; ending {
		return true
	}
	if it := in.f.items[seq]; it != nil {
		return it.letter == "" // a replay is about an event that was settled
	}
	return seq >= in.f.read && !in.skipped.has(seq)
}

func (in *Inbox) loadSenders(sn *store.Snapshot, found map[string]senderRecord) error {
	for rec, err := range sn.Scan([]byte{senderPrefix}, []byte{senderPrefix + 1}) {
		if err != nil {
			return fmt.Errorf("read senders: %w", err)
		}
		var r senderRecord
		storeID := string(rec.Key[1:])
		if err := decodeJSON(rec.Val, &r); err != nil {
			return fmt.Errorf("read sender %s: %w", storeID, err)
		}
		s := in.sender(storeID, r.Service, r.Instance)
		s.highest, s.cursor, s.at = r.Highest, r.Cursor, r.At
		found[storeID] = r
	}
	return nil
}

func (in *Inbox) loadExceptions(sn *store.Snapshot, now time.Time) error {
	for rec, err := range sn.Scan([]byte{exceptionPrefix}, []byte{exceptionPrefix + 1}) {
		if err != nil {
			return fmt.Errorf("read exceptions: %w", err)
		}
		seq, err := seqOf(rec.Key)
		if err != nil {
			return err
		}
		var e exception
		if err := decodeJSON(rec.Val, &e); err != nil {
			return fmt.Errorf("read exception %d: %w", seq, err)
		}
		in.f.except(in.itemOfException(seq, &e, now))
		if e.Letter == "" {
			in.opened(e.Log, e.LogSeq, e.Key)
		}
	}
	return nil
}

// itemOfException returns an item as its record says. A due time beyond the longest interval, or beyond what an app can ask
// for, shows that a clock went wrong.
func (in *Inbox) itemOfException(seq uint64, e *exception, now time.Time) *item {
	it := &item{
		seq: seq, key: e.Key, sub: in.cfg.subscriptionOf(e.Type, e.Version), size: e.Size,
		log: e.Log, logSeq: e.LogSeq, arrivedAt: e.ArrivedAt, typ: e.Type, version: e.Version,
		attempts: e.Attempts, tries: e.Tries, marked: true, letter: e.Letter, reason: e.Reason,
		doubt: e.Letter == "",
	}
	if !e.Due.IsZero() {
		longest := DefaultMaxInterval
		if it.sub >= 0 {
			longest = in.cfg.Subscriptions[it.sub].Retry.MaxInterval
		}
		if e.Reason == reasonThrottled {
			longest = max(longest, maxRetryAfter)
		}
		it.due = now.Add(min(e.Due.Sub(now), longest)) // from now on the wall clock may jump
	}
	return it
}

func (in *Inbox) opened(storeID string, seq, key uint64) {
	if s := in.senders[storeID]; s != nil {
		s.opened(seq, key)
	}
}

// fill gives the forwarder as much of the log as it has room for, from memory or from the store.
func (in *Inbox) fill() error {
	for {
		in.mu.Lock()
		room := in.f.room()
		from, to := in.f.read, in.tail.first(in.f.next)
		fresh := in.tail.take(from, room)
		for _, r := range fresh {
			in.take(r)
		}
		in.mu.Unlock()
		if room == 0 {
			return nil
		}
		if len(fresh) > 0 {
			continue
		}
		if err := in.readLog(from, to, min(room, readEvents)); err != nil {
			return err
		}
	}
}

// readLog gives the forwarder up to n events from the store, from seq from up to but without to.
func (in *Inbox) readLog(from, to uint64, n int) error {
	var events []*received
	upTo := min(to, from+uint64(n))
	bytes, damaged := 0, 0
	err := in.store.View(func(sn *store.Snapshot) error {
		events, bytes, damaged = nil, 0, 0
		for rec, err := range sn.Scan(seqKey(eventPrefix, from), seqKey(eventPrefix, upTo)) {
			if errors.Is(err, store.ErrDamagedRecord) {
				damaged++
				continue
			}
			if err != nil {
				return err
			}
			seq, err := seqOf(rec.Key)
			if err != nil {
				return err
			}
			r, err := decodeReceived(seq, slices.Clone(rec.Val))
			if err != nil {
				damaged++
				continue
			}
			events = append(events, r)
			if bytes += r.size(); bytes >= readBytes {
				upTo = seq + 1
				return nil
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read inbox log from %d: %w", from, err)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	lost := 0
	at := from
	for _, r := range events {
		lost += in.pass(at, r.seq)
		in.take(r)
		at = r.seq + 1
	}
	lost += in.pass(at, upTo)
	in.settler.dirty = true
	if lost > 0 {
		in.m.lost.Add(lost)
		in.log.Error("events of the inbox log are missing or damaged and cannot be forwarded",
			"from_seq", from, "to_seq", upTo-1, "events", lost, "damaged_records", damaged)
	}
	return nil
}

// pass skips seqs that have no event in the log, and returns how many of them nothing accounts for. The caller holds in.mu.
func (in *Inbox) pass(from, to uint64) (lost int) {
	for seq := from; seq < to; seq++ {
		if in.f.items[seq] == nil && !in.skipped.has(seq) {
			lost++
		}
	}
	in.f.skip(to)
	return lost
}

// take gives the forwarder an event, unless that is settled or is an exception. The caller holds in.mu.
func (in *Inbox) take(r *received) {
	if in.f.items[r.seq] != nil || in.skipped.has(r.seq) {
		in.f.skip(r.seq + 1)
		return
	}
	key := r.key()
	it := &item{
		seq: r.seq, key: key, sub: in.cfg.subscriptionOf(r.event.Type, r.event.Version), size: r.size(),
		log: r.log, logSeq: r.logSeq, arrivedAt: r.arrivedAt, typ: r.event.Type, version: r.event.Version,
		marked: r.flags&flagMarked != 0 || r.seq < in.firstN, doubt: r.seq < in.f.doubtBefore,
	}
	if in.held+int64(r.size()) <= heldBytes {
		it.event = r
		in.held += int64(r.size())
	}
	in.opened(r.log, r.logSeq, key)
	for _, ref := range in.also[r.seq] {
		in.senders[ref.log].keyed(ref.seq, key)
	}
	in.f.load(it)
}
