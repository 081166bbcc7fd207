package store

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// readDeadline is how long a View may hold back the removal of old versions.
const readDeadline = 30 * time.Second

// readers knows what is durable and who reads at which timestamp.
type readers struct {
	mu      sync.Mutex
	durable uint64
	open    map[*Snapshot]struct{}
	closed  bool
	all     sync.WaitGroup
}

// A Snapshot is the store at one durable group. It is for one goroutine, until View's function returns.
type Snapshot struct {
	s        *Store
	ts       uint64
	txn      *badger.Txn
	deadline time.Time // zero: none
	stale    atomic.Bool
}

// Record is a key and its payload.
type Record struct {
	Key, Val []byte
}

// View calls fn with a consistent read of what is durable now. It waits for no sync. After 30 s its reads
// fail with ErrReadExpired. Close waits for fn to return.
func (s *Store) View(fn func(*Snapshot) error) error {
	return s.read(time.Now().Add(readDeadline), fn)
}

func (s *Store) read(deadline time.Time, fn func(*Snapshot) error) error {
	sn, err := s.readers.begin(s, deadline)
	if err != nil {
		return err
	}
	defer s.readers.end(sn)
	if err := s.guarded(func() error { sn.txn = s.db.NewTransactionAt(sn.ts, false); return nil }); err != nil {
		return err
	}
	defer sn.txn.Discard()
	return fn(sn)
}

func (r *readers) begin(s *Store, deadline time.Time) (*Snapshot, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, ErrClosed
	}
	sn := &Snapshot{s: s, ts: r.durable, deadline: deadline}
	r.open[sn] = struct{}{}
	r.all.Add(1)
	return sn, nil
}

func (r *readers) end(sn *Snapshot) {
	r.mu.Lock()
	delete(r.open, sn)
	r.mu.Unlock()
	r.all.Done()
}

// advance makes ts the durable timestamp and lets Badger drop what no reader can ask for. Badger keeps the
// newest version at or below the discard timestamp and all above it, so a reader at exactly that timestamp
// is safe. Under the lock, so that nobody registers below a timestamp that is being handed out.
func (r *readers) advance(db *badger.DB, ts uint64, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.durable = ts
	oldest := ts
	for sn := range r.open {
		if !sn.deadline.IsZero() && now.After(sn.deadline) {
			sn.stale.Store(true)
			continue
		}
		oldest = min(oldest, sn.ts)
	}
	db.SetDiscardTs(oldest)
}

// close refuses new reads, makes those under way fail, and waits for them.
func (r *readers) close() {
	r.mu.Lock()
	r.closed = true
	for sn := range r.open {
		sn.stale.Store(true)
	}
	r.mu.Unlock()
	r.all.Wait()
}

func (sn *Snapshot) check() error {
	if !sn.stale.Load() && (sn.deadline.IsZero() || time.Now().Before(sn.deadline)) {
		return nil
	}
	sn.s.readers.mu.Lock()
	defer sn.s.readers.mu.Unlock()
	if sn.s.readers.closed {
		return ErrClosed
	}
	return ErrReadExpired
}

// Get returns a copy of the payload under key.
func (sn *Snapshot) Get(key []byte) (val []byte, ok bool, err error) {
	if err := sn.check(); err != nil {
		return nil, false, err
	}
	var raw []byte
	err = sn.s.guarded(func() error {
		item, err := sn.txn.Get(key)
		if err != nil {
			return err
		}
		raw, err = item.ValueCopy(nil)
		return err
	})
	// Only now is it certain that no version was dropped in the middle.
	if late := sn.check(); late != nil {
		return nil, false, late
	}
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("read %q: %w", key, err)
	}
	val, err = sn.open(key, raw)
	return val, err == nil, err
}

// open checks a stored value and counts it if it is damaged.
func (sn *Snapshot) open(key, raw []byte) ([]byte, error) {
	val, err := open(key, raw)
	if err != nil {
		sn.s.metrics.damaged.Inc()
	}
	return val, err
}

// Scan yields the records from from up to but without to (nil: the end), in key order. Key and Val are valid
// until the next step. A record whose checksum fails is yielded with its key and ErrDamagedRecord, and the
// scan goes on; any other error ends it.
func (sn *Snapshot) Scan(from, to []byte) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		sn.walk(from, to, func(it *badger.Item, err error) bool {
			if err != nil {
				return yield(Record{}, err)
			}
			rec := Record{Key: it.Key()}
			err = it.Value(func(raw []byte) error {
				rec.Val, err = sn.open(rec.Key, raw)
				return err
			})
			return yield(rec, err)
		})
	}
}

// Keys yields the keys from from up to but without to (nil: the end), in order; valid until the next step.
func (sn *Snapshot) Keys(from, to []byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		sn.walk(from, to, func(it *badger.Item, err error) bool {
			if err != nil {
				return yield(nil, err)
			}
			return yield(it.Key(), nil)
		})
	}
}

func (sn *Snapshot) walk(from, to []byte, visit func(*badger.Item, error) bool) {
	if err := sn.check(); err != nil {
		visit(nil, err)
		return
	}
	opts := badger.IteratorOptions{Prefix: commonPrefix(from, to)}
	var it *badger.Iterator
	var item *badger.Item
	step := func(move func()) error {
		return sn.s.guarded(func() error {
			move()
			if item = nil; it.Valid() {
				item = it.Item()
			}
			return nil
		})
	}
	err := step(func() { it = sn.txn.NewIterator(opts); it.Seek(from) })
	if it != nil {
		defer it.Close()
	}
	for ; err == nil && item != nil; err = step(it.Next) {
		if err = sn.check(); err != nil {
			break
		}
		if to != nil && bytes.Compare(item.Key(), to) >= 0 {
			return
		}
		if !visit(item, nil) {
			return
		}
	}
	if err != nil {
		visit(nil, err)
	}
}

// commonPrefix lets Badger skip tables: every key in [a, b) begins with it.
func commonPrefix(a, b []byte) []byte {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return a[:n]
}

// guarded runs a call into Badger. A panic there fences the store: a rotation that failed leaves Badger
// without a memtable, and every read then panics.
func (s *Store) guarded(call func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = s.fenceWith(fmt.Errorf("panic in badger: %v\n%s", r, debug.Stack()))
		}
	}()
	return call()
}
