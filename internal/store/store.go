package store

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// A Store is one open directory. All methods may be called from any goroutine.
type Store struct {
	cfg     Config
	log     *slog.Logger
	lock    *dirLock
	db      *badger.DB
	limits  limits
	id      identity
	clean   bool
	atOpen  [logs]uint64
	lost    []LostRange
	clock   *AgeClock
	space   *spaceGuard
	metrics *storeMetrics
	fence   *fence
	queue   *queue
	readers readers
	mark    *watermark // the keeper's, while it runs
	current atomic.Pointer[state]

	committer *committer
	stop      chan struct{} // closed to end the keeper
	loops     sync.WaitGroup
	keeping   sync.WaitGroup
	closing   sync.Once
	closeErr  error
}

// ID is the random name of this store; a restored backup has another one.
func (s *Store) ID() string { return s.id.StoreID }

// Boot counts how often the store was opened, from 1.
func (s *Store) Boot() uint64 { return s.id.Boot }

// CreatedAt is when the store was made.
func (s *Store) CreatedAt() time.Time { return s.id.CreatedAt }

// CleanStart reports whether the store was closed properly before this opening, or is new.
func (s *Store) CleanStart() bool { return s.clean }

// Bounds returns the first kept seq of a log and the next to be given, as far as they are synced.
func (s *Store) Bounds(l Log) (tail, next uint64) {
	b := s.current.Load().logs[l]
	return b.tail, b.next
}

// AtOpen is a log's next seq as it was when the store was opened: lower ones were there before this process.
func (s *Store) AtOpen(l Log) uint64 { return s.atOpen[l] }

// Lost returns the seqs that were lost to damage, which somebody accepted. The slice is the caller's.
func (s *Store) Lost() []LostRange { return append([]LostRange(nil), s.lost...) }

// Live is the count of keys under a prefix, as Insert and Remove keep it.
func (s *Store) Live(prefix byte) int64 { return s.current.Load().live[prefix] }

// Clock is the clock for ageing.
func (s *Store) Clock() *AgeClock { return s.clock }

// Space is what the store takes and what is left.
func (s *Store) Space() Space { return s.space.space() }

// publish makes a synced group visible.
func (s *Store) publish(st state) {
	s.current.Store(&st)
	s.readers.advance(s.db, st.ts, time.Now())
}

// start begins the loops of an opened store.
func (s *Store) start() {
	s.loops.Go(s.committer.run)
	s.keeping.Go(s.keep)
}

// Close writes what is queued, waits for reads under way, and closes the store so that it will start clean.
// It is idempotent. A fenced store is left as it is: the process should end, and keeps the lock until then.
func (s *Store) Close() error {
	s.closing.Do(func() { s.closeErr = s.close() })
	return s.closeErr
}

func (s *Store) close() error {
	stuck := s.space.closeGate()
	s.queue.close()
	ended := s.waitForCommitter(stuck)
	close(s.stop)
	s.keeping.Wait()
	s.readers.close()
	if err := s.fence.err(); err != nil {
		return errors.Join(err, s.mark.f.Close())
	}
	if !ended {
		return errors.Join(fmt.Errorf("close store: %w", errLeftOpen), s.mark.f.Close())
	}
	if err := s.finish(stuck); err != nil {
		return errors.Join(fmt.Errorf("close store: %w", err), s.mark.f.Close())
	}
	return errors.Join(s.mark.f.Close(), s.lock.Close())
}

// waitForCommitter waits until all is written, or for a moment only if Badger never lets go: it has failed, or
// waits for a compaction that waits for disk space.
func (s *Store) waitForCommitter(stuck <-chan struct{}) bool {
	ended := make(chan struct{})
	go func() { s.loops.Wait(); close(ended) }()
	select {
	case <-ended:
		return true
	case <-s.fence.closed:
	case <-stuck:
	}
	select {
	case <-ended:
		return true
	case <-time.After(fenceGrace):
		return false
	}
}

// finish puts the end on record, closes Badger, and only then calls the store clean.
func (s *Store) finish(stuck <-chan struct{}) error {
	if s.space.check() == spaceFloor && s.Space().FreeBytes < 3*s.cfg.MemTableBytes {
		// Closing flushes a table. Without room that is a SIGBUS; without closing, the log is replayed.
		return errLeftOpen
	}
	if err := s.committer.touch(); err != nil {
		return s.fenceWith(err)
	}
	end := s.current.Load()
	if err := s.mark.write(end, phaseClosing); err != nil {
		return s.fenceWith(err)
	}
	if err := closeBadger(s.db, stuck); err != nil {
		return err
	}
	return s.mark.write(end, phaseClean)
}

var errLeftOpen = fmt.Errorf("left open, the log will be replayed: %w", ErrDiskFloor)

// closeBadger closes the database, or gives up once a compaction that closing waits for has no room to go on.
func closeBadger(db *badger.DB, stuck <-chan struct{}) error {
	closed := make(chan error, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil {
				closed <- fmt.Errorf("panic in badger: %v\n%s", r, debug.Stack())
			}
		}()
		closed <- db.Close()
	}()
	select {
	case err := <-closed:
		return err
	case <-stuck:
		return errLeftOpen
	}
}
