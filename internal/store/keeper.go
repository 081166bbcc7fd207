package store

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const (
	markEvery    = time.Second
	watchEvery   = 50 * time.Millisecond
	measureEvery = 10 * time.Second
	touchEvery   = time.Hour
)

// keep does what must not hold commits up: it writes WATERMARK, measures the store, watches space while
// nothing is committed, and puts the time on record now and then.
func (s *Store) keep() {
	tick := time.NewTicker(markEvery)
	defer tick.Stop()
	// A commit can wait for a compaction that is taking up the last of the disk. The committer does not look
	// then, and it is now that the ballast is needed.
	watch := time.NewTicker(watchEvery)
	defer watch.Stop()
	measured, touched := time.Now(), time.Now()
	strays := strayTables{seen: make(map[uint64]int)}
	for {
		select {
		case <-s.stop:
			return
		case <-s.fence.closed:
			return
		case <-watch.C:
			if s.space.near() && s.space.check() == spaceFloor && s.committer.heldUp() {
				s.queue.refuseWaiting()
			}
		case now := <-tick.C:
			s.space.refresh()
			s.space.check()
			if st := s.current.Load(); st.ts != s.mark.last.state.ts {
				if err := s.mark.write(st, phaseRunning); err != nil {
					s.fenceWith(err)
					return
				}
			}
			if now.Sub(measured) >= measureEvery {
				measured = now
				s.space.measure()
				if err := strays.check(s); err != nil {
					s.fenceWith(err)
					return
				}
			}
			if now.Sub(touched) >= touchEvery {
				touched = now
				s.Enqueue(Op{Class: Lazy, Apply: func(tx *Tx) error { tx.touch = true; return nil }})
			}
		}
	}
}

// strayTables looks for tables on disk that the database does not know. A compaction whose output could not
// be synced goes on without it, in silence, and deletes its inputs. The file that is left over tells; on
// reopening the live counts say whether anything is missing. (An output that could not even be made leaves
// no trace: the limits on free bytes and inodes are there to keep that from happening.)
type strayTables struct {
	seen map[uint64]int // id -> how often in a row
}

// strayChecks is how often in a row a table must be unknown: one is, while a compaction writes it.
const strayChecks = 12

func (st *strayTables) check(s *Store) error {
	s.readers.mu.Lock()
	reading := len(s.readers.open) > 0
	s.readers.mu.Unlock()
	if reading { // reads keep tables on disk that were compacted away
		clear(st.seen)
		return nil
	}
	entries, err := os.ReadDir(filepath.Join(s.cfg.Dir, badgerName))
	if err != nil {
		return nil
	}
	known := make(map[uint64]bool)
	_ = s.guarded(func() error {
		for _, t := range s.db.Tables() {
			known[t.ID] = true
		}
		return nil
	})
	for _, e := range entries {
		id, ok := fileID(e, tableExt)
		if !ok || known[id] {
			delete(st.seen, id)
			continue
		}
		if st.seen[id]++; st.seen[id] >= strayChecks {
			return fmt.Errorf("table %s was written but is not used: a compaction failed in silence", tableName(id))
		}
	}
	return nil
}
