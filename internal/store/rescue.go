package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// jumpSeqs is how far the next seq moves beyond all that is known to have been given: more than the fastest
// store gives in the second that WATERMARK may be behind. A seq that was given once must never name another event.
const jumpSeqs = 1 << 17

// rescue makes the badger directory one that opens, with all that can still be read. The originals are in
// the guard folder.
func (o *opening) rescue() error {
	if err := os.MkdirAll(o.badgerDir, 0o700); err != nil {
		return err
	}
	if err := o.relink(); err != nil {
		return err
	}
	in, err := inspect(o.badgerDir, maxLogGroup(o.cfg), true)
	if err != nil {
		return err
	}
	kept := manifest{levels: make(map[uint64]uint32)}
	for _, id := range slices.Sorted(maps.Keys(in.tables)) {
		level, named := in.manifest.levels[id]
		switch t := in.tables[id]; {
		case t.err != nil:
			if err := os.Remove(filepath.Join(o.badgerDir, tableName(id))); err != nil {
				return err
			}
		case named && in.manifestErr == nil:
			kept.levels[id] = level
		default:
			// Any table may lie on level 0: the newest version of a key counts. One that was compacted away
			// may bring a deleted record back; better that than to lose one.
			kept.levels[id] = 0
		}
	}
	if err := kept.write(o.badgerDir); err != nil {
		return err
	}
	for i := range in.logs {
		w := &in.logs[i]
		if w.size >= walHeader && w.dirty > 0 && !w.foreign {
			continue
		}
		if err := os.Remove(filepath.Join(o.badgerDir, w.name)); err != nil {
			return err
		}
	}
	for _, name := range in.shortValueLogs {
		if err := os.Remove(filepath.Join(o.badgerDir, name)); err != nil {
			return err
		}
	}
	o.files, err = inspect(o.badgerDir, maxLogGroup(o.cfg), false)
	return err
}

// relink brings tables back that Badger dropped in an opening that then found damage.
func (o *opening) relink() error {
	guard := filepath.Join(o.cfg.Dir, guardName)
	entries, err := os.ReadDir(guard)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		to := filepath.Join(o.badgerDir, e.Name())
		if _, ok := fileID(e, tableExt); !ok || exists(to) {
			continue
		}
		if err := os.Link(filepath.Join(guard, e.Name()), to); err != nil {
			return err
		}
	}
	return nil
}

// recount makes the state of a store whose loss was accepted: counts as they are, seqs beyond all that may
// have been given, and a record of what is missing.
func (o *opening) recount() error {
	st, err := readState(o.db)
	if err != nil {
		st = newState()
	}
	end := o.db.MaxVersion()
	counts, err := countKeys(o.db, end)
	if err != nil {
		return fmt.Errorf("count records: %w", err)
	}
	whole := len(o.files.findings) == 0 && len(o.files.checkMark(&o.mark, o.hasMark)) == 0 && o.hasMark && st.ts == end &&
		len(compareCounts(&counts, &st)) == 0 && len(compareMark(&st, &o.mark)) == 0 && o.damage.Code != damageRollback && o.sound()
	o.state = st
	o.state.ts = end
	if whole {
		return nil // only the manifest was lost, for one
	}
	for p := range counts {
		o.state.live[p] = 0
		if isCounted(byte(p), &st) || o.mark.state.live[p] != 0 {
			o.state.live[p] = counts[p]
		}
	}
	for l := range o.state.logs {
		if err := o.jump(Log(l)); err != nil {
			return err
		}
	}
	return nil
}

// sound reports whether no log broke off when the files were found.
func (o *opening) sound() bool {
	for i := range o.files.logs {
		if w := &o.files.logs[i]; w.dirty > w.end {
			return false
		}
	}
	return true
}

// jump moves a log's next seq and notes the seqs that are missing below it.
func (o *opening) jump(l Log) error {
	b := &o.state.logs[l]
	was := o.mark.state.logs[l]
	b.tail = max(b.tail, was.tail, 1)
	seqs, err := keptSeqs(o.db, o.state.ts, l, b.tail)
	if err != nil {
		return err
	}
	next := max(b.next, was.next, b.tail)
	if n := len(seqs); n > 0 {
		next = max(next, seqs[n-1]+1)
	}
	for _, r := range o.damage.Lost {
		if r.Log == l {
			next = max(next, r.To+1)
		}
	}
	next += jumpSeqs
	var lost []LostRange
	from := b.tail
	for _, seq := range append(seqs, next) {
		if seq > from {
			lost = append(lost, LostRange{l, from, seq - 1})
		}
		from = seq + 1
	}
	b.next = next
	o.lost = append(slices.DeleteFunc(o.lost, func(r LostRange) bool { return r.Log == l && r.To >= b.tail }), lost...)
	return nil
}

// keptSeqs returns the seqs of a log's events from tail on, in order.
func keptSeqs(db *badger.DB, ts uint64, l Log, tail uint64) (seqs []uint64, err error) {
	txn := db.NewTransactionAt(ts, false)
	defer txn.Discard()
	prefix := []byte{l.prefix()}
	it := txn.NewIterator(badger.IteratorOptions{Prefix: prefix})
	defer it.Close()
	for it.Seek(prefix); it.ValidForPrefix(prefix); it.Next() {
		if seq, ok := seqOf(it.Item().Key()); ok && seq >= tail {
			seqs = append(seqs, seq)
		}
	}
	return seqs, nil
}

// firstGroup commits the state of a new or rescued store.
func (o *opening) firstGroup(s *Store) error {
	c := s.committer
	g := &building{txn: s.db.NewTransactionAt(c.state.ts, true), state: c.state}
	c.advance(&g.state)
	if len(s.lost) > 0 {
		b, err := json.Marshal(s.lost)
		if err != nil {
			return err
		}
		if err := g.txn.Set(lostKey, seal(nil, lostKey, append([]byte{lostVersion}, b...))); err != nil {
			return err
		}
	}
	return c.commit(g, time.Now())
}

// lossReport is LOSS-<time>.json: what an operator accepted.
type lossReport struct {
	Time     time.Time        `json:"time"`
	StoreID  string           `json:"store_id"`
	Code     string           `json:"code"`
	Findings []string         `json:"findings"`
	Lost     []LostRange      `json:"lost"`
	Live     map[string]int64 `json:"live"`
	Evidence string           `json:"evidence"`
}

// keepEvidence writes the report and keeps the original files under a name of their own.
func (o *opening) keepEvidence() error {
	now := time.Now().UTC()
	stamp := now.Format("20060102T150405.000Z")
	r := lossReport{
		Time: now, StoreID: o.id.StoreID, Code: o.damage.Code, Findings: o.damage.Findings, Lost: o.lost,
		Live: make(map[string]int64), Evidence: guardName + "-" + stamp,
	}
	for p, n := range o.state.live {
		if n != 0 {
			r.Live[string(rune(p))] = n
		}
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := writeFileSynced(filepath.Join(o.cfg.Dir, "LOSS-"+stamp+".json"), b); err != nil {
		return fmt.Errorf("write loss report: %w", err)
	}
	if err := os.Rename(filepath.Join(o.cfg.Dir, guardName), filepath.Join(o.cfg.Dir, r.Evidence)); err != nil {
		return fmt.Errorf("keep evidence: %w", err)
	}
	if err := os.Remove(filepath.Join(o.cfg.Dir, damagedName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	o.cfg.Log.Error("store was opened with losses", "store_id", o.id.StoreID, "lost", o.lost, "evidence", r.Evidence)
	return syncDir(o.cfg.Dir)
}
