package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// A Report is what Verify found. The store is sound if there are no problems.
type Report struct {
	StoreID, Service string
	Boot             uint64
	Clean            bool // closed properly
	Groups           uint64
	Records          int64
	Bytes            int64            // of payloads
	Counts           map[string]int64 // records by prefix
	Logs             []LogReport
	Damaged          int64 // records whose checksum fails
	Took             time.Duration
	Problems         []string
}

// LogReport is one log as Verify found it.
type LogReport struct {
	Log        string
	Tail, Next uint64
	Events     int64
	Missing    int64 // seqs from Tail to Next without an event, lost ranges not counted
}

const verifyName = "verify"

// Verify reads every record of a store that no process has open. It works on a snapshot made of hard links and
// copies, so the store's own files are not changed. What it finds is in the report; an error means that it
// could not look.
func Verify(dir string) (Report, error) {
	began := time.Now()
	id, err := readIdentity(dir)
	if err != nil {
		return Report{}, err
	}
	lock, err := takeLock(dir)
	if err != nil {
		return Report{}, err
	}
	defer lock.Close()
	r := Report{StoreID: id.StoreID, Service: id.Service, Boot: id.Boot, Counts: make(map[string]int64)}
	cfg := Config{Dir: dir, Service: id.Service, AcceptLoss: id.StoreID, BallastBytes: none, MinFreeBytes: none}
	if err := cfg.settle(); err != nil {
		return r, err
	}
	if err := r.verify(&cfg, id); err != nil {
		return r, fmt.Errorf("verify store in %s: %w", dir, err)
	}
	r.Took = time.Since(began)
	return r, nil
}

func (r *Report) problem(format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

func (r *Report) verify(cfg *Config, id identity) error {
	o := &opening{cfg: cfg, id: id, badgerDir: filepath.Join(cfg.Dir, badgerName)}
	if err := o.examine(); err != nil {
		return err
	}
	r.Clean = o.hasMark && o.mark.phase == phaseClean
	if o.damage != nil {
		// Badger would drop what is damaged, and might not survive opening it.
		r.Problems = o.damage.Findings
		return nil
	}
	snapshot := filepath.Join(cfg.Dir, verifyName)
	if err := os.RemoveAll(snapshot); err != nil {
		return err
	}
	defer os.RemoveAll(snapshot)
	if err := os.MkdirAll(snapshot, 0o700); err != nil {
		return err
	}
	if err := cloneFiles(o.badgerDir, snapshot); err != nil {
		return err
	}
	in := *o.files
	in.dir = snapshot
	if err := in.tidy(); err != nil {
		return err
	}
	// Without compactors: a table that Badger deletes is emptied first, and with it the store's own.
	db, err := badger.OpenManaged(badgerOptions(snapshot, cfg, badgerLog{cfg.Log, newFence(), nil}).WithNumCompactors(0).WithNumLevelZeroTablesStall(1 << 20))
	if err != nil {
		r.problem("the database cannot be opened: %v", err)
		return nil
	}
	return errors.Join(r.read(db, o), closeBadger(db, nil))
}

func (r *Report) read(db *badger.DB, o *opening) error {
	st, err := readState(db)
	if err != nil {
		r.problem("the state cannot be read: %v", err)
		return nil
	}
	lost, err := readLost(db)
	if err != nil {
		r.problem("%v", err)
	}
	r.Groups = st.ts
	r.Problems = append(r.Problems, compareMark(&st, &o.mark)...)
	var counts [256]int64
	var next [logs]uint64
	for l, b := range st.logs {
		r.Logs = append(r.Logs, LogReport{Log: Log(l).String(), Tail: b.tail, Next: b.next})
		next[l] = b.tail
	}
	txn := db.NewTransactionAt(db.MaxVersion(), false)
	defer txn.Discard()
	it := txn.NewIterator(badger.IteratorOptions{})
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		item := it.Item()
		key := item.Key()
		counts[key[0]]++
		r.Counts[string(rune(key[0]))]++
		r.Records++
		err := item.Value(func(raw []byte) error {
			r.Bytes += int64(max(0, len(raw)-checksumBytes))
			_, err := open(key, raw)
			return err
		})
		if err != nil {
			r.Damaged++
			r.problem("%v", err)
		}
		for l := range next {
			if seq, ok := seqOf(key); ok && key[0] == Log(l).prefix() && seq >= next[l] {
				r.Logs[l].Events++
				r.Logs[l].Missing += missing(Log(l), next[l], seq, lost)
				next[l] = seq + 1
			}
		}
	}
	r.Problems = append(r.Problems, compareCounts(&counts, &st)...)
	for l := range next {
		r.Logs[l].Missing += missing(Log(l), next[l], st.logs[l].next, lost)
	}
	return nil
}

// missing counts the seqs from from to before to that are not known to be lost.
func missing(l Log, from, to uint64, lost []LostRange) int64 {
	if to <= from {
		return 0
	}
	n := int64(to - from)
	for _, r := range lost {
		if lo, hi := max(from, r.From), min(to, r.To+1); r.Log == l && lo < hi {
			n -= int64(hi - lo)
		}
	}
	return n
}
