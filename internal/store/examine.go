package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/y"
)

// examine compares the files with WATERMARK before Badger may touch them. Damage is an error, unless its loss
// was accepted: then it is in o.damage.
func (o *opening) examine() error {
	if o.making {
		return nil
	}
	var findings []string
	code := damageRegressed
	mark, err := readWatermark(o.cfg.Dir)
	switch {
	case err != nil:
		code = damageWatermark
		findings = append(findings, "WATERMARK cannot be used: "+err.Error())
	case mark.storeID != o.id.StoreID:
		code = damageWatermark
		findings = append(findings, fmt.Sprintf("WATERMARK is of store %s", mark.storeID))
		o.mark.generation = mark.generation // a new slot must be newer than what lies there
	case mark.boot > o.id.Boot:
		code = damageRollback
		findings = append(findings, fmt.Sprintf("STORE is of boot %d, but WATERMARK of boot %d: an older copy was put back", o.id.Boot, mark.boot))
		fallthrough
	default:
		o.mark, o.hasMark = mark, true
	}
	if o.files, err = inspect(o.badgerDir, maxLogGroup(o.cfg), o.cfg.AcceptLoss != ""); err != nil {
		return fmt.Errorf("read database files: %w", err)
	}
	if len(o.files.findings) > 0 && code == damageRegressed && o.files.brokenFiles() {
		code = damageFiles
	}
	findings = append(findings, o.files.findings...)
	findings = append(findings, o.files.checkMark(&o.mark, o.hasMark)...)
	guard, err := o.checkGuard()
	if err != nil {
		return err
	}
	findings = append(findings, guard...)
	lost := o.files.lost(&o.mark)
	if before, ok := readDamaged(o.cfg.Dir); ok {
		code = before.Code
		findings = slices.DeleteFunc(findings, func(f string) bool { return slices.Contains(before.Findings, f) })
		findings = append(findings, before.Findings...)
		lost = append(lost, before.Lost...)
	}
	if len(findings) == 0 {
		return nil
	}
	return o.accept(o.damaged(code, findings, lost))
}

// brokenFiles reports whether files are missing or unreadable, rather than whole but too old.
func (in *inspection) brokenFiles() bool {
	if in.manifestErr != nil {
		return true
	}
	for id := range in.manifest.levels {
		if t, ok := in.tables[id]; !ok || t.err != nil {
			return true
		}
	}
	return false
}

// checkMark compares where the files end with what was certainly on disk once.
func (in *inspection) checkMark(m *mark, hasMark bool) (findings []string) {
	if !hasMark {
		return nil
	}
	switch {
	case in.end < m.state.ts:
		findings = append(findings, fmt.Sprintf("the database ends at group %d, but group %d was on disk", in.end, m.state.ts))
	case in.end > m.state.ts && m.phase != phaseRunning:
		findings = append(findings, fmt.Sprintf("the database ends at group %d, but was closed at group %d", in.end, m.state.ts))
	}
	return findings
}

// checkGuard looks at what an opening that was cut off had found: the database must reach as far as then. It
// is the one time when there may be no log, since Badger removes an empty one before it makes the next.
func (o *opening) checkGuard() (findings []string, err error) {
	guard := filepath.Join(o.cfg.Dir, guardName)
	if exists(guard) {
		was, err := inspect(guard, maxLogGroup(o.cfg), false)
		if err != nil {
			return nil, fmt.Errorf("read guard: %w", err)
		}
		if was.end > o.files.end {
			findings = append(findings, fmt.Sprintf("the database ends at group %d, but at %d in %s", o.files.end, was.end, guardName))
		}
		return findings, nil
	}
	if o.hasMark && o.mark.phase == phaseRunning && len(o.files.logs) == 0 {
		findings = append(findings, "the log of an unclean stop is missing: there is no "+walExt+" file")
	}
	return findings, nil
}

// lost says which seqs were given by groups that are not there any more, as far as that can be told.
func (in *inspection) lost(m *mark) (lost []LostRange) {
	have, err := parseWALState(in.state)
	if err != nil {
		return nil
	}
	for l := range have.logs {
		want := m.state.logs[l].next
		if in.beyond != nil {
			want = max(want, in.beyond.logs[l].next)
		}
		if want > have.logs[l].next {
			lost = append(lost, LostRange{Log(l), have.logs[l].next, want - 1})
		}
	}
	return lost
}

// hopeless is damage that no loss of data would mend.
func (o *opening) hopeless(code, finding string) error {
	return &DamageError{Code: code, StoreID: o.id.StoreID, Dir: o.cfg.Dir, Findings: []string{finding}}
}

func (o *opening) damaged(code string, findings []string, lost []LostRange) *DamageError {
	evidence := o.badgerDir
	if exists(filepath.Join(o.cfg.Dir, guardName)) {
		evidence = filepath.Join(o.cfg.Dir, guardName)
	}
	return &DamageError{
		Code: code, StoreID: o.id.StoreID, Dir: o.cfg.Dir, Findings: findings, Lost: lost, Evidence: evidence, Acceptable: true,
	}
}

// accept goes on with a damaged store if somebody said so.
func (o *opening) accept(d *DamageError) error {
	if o.cfg.AcceptLoss == "" {
		return d
	}
	o.damage = d
	return nil
}

// regressed is damage found after Badger has had the files. Badger may have dropped what showed it, so it is
// written down: the next opening has to fail as well.
func (o *opening) regressed(code string, findings ...string) error {
	d := o.damaged(code, findings, nil)
	if err := o.writeDown(d); err != nil {
		return errors.Join(d, err)
	}
	return d
}

// writeDown keeps the damage on record until its loss has been accepted to the end.
func (o *opening) writeDown(d *DamageError) error {
	b, err := json.MarshalIndent(damagedFile{Time: time.Now().UTC(), Code: d.Code, Findings: d.Findings, Lost: d.Lost}, "", "  ")
	if err == nil {
		err = writeFileSynced(filepath.Join(o.cfg.Dir, damagedName), b)
	}
	if err != nil {
		return fmt.Errorf("write down the damage: %w", err)
	}
	return nil
}

type damagedFile struct {
	Time     time.Time   `json:"time"`
	Code     string      `json:"code"`
	Findings []string    `json:"findings"`
	Lost     []LostRange `json:"lost,omitempty"`
}

func readDamaged(dir string) (damagedFile, bool) {
	var d damagedFile
	b, err := os.ReadFile(filepath.Join(dir, damagedName))
	if errors.Is(err, os.ErrNotExist) {
		return d, false
	}
	if err != nil || json.Unmarshal(b, &d) != nil {
		d.Code, d.Findings = damageRegressed, []string{"damage was found before, but " + damagedName + " cannot be read"}
	}
	return d, true
}

// compare wants Badger to have found what the files promised.
func (o *opening) compare() error {
	if o.making {
		o.state = newState()
		return nil
	}
	var err error
	if o.lost, err = readLost(o.db); err != nil {
		return o.regressed(damageRegressed, err.Error())
	}
	if o.damage != nil {
		return o.recount()
	}
	st, err := readState(o.db)
	if err != nil {
		return o.regressed(damageRegressed, "the state of the last group cannot be read: "+err.Error())
	}
	o.state = st
	if got := o.db.MaxVersion(); got != o.files.end || st.ts != got {
		return o.regressed(damageRegressed, fmt.Sprintf("the files end at group %d, the database at %d, its state at %d", o.files.end, got, st.ts))
	}
	findings := compareMark(&st, &o.mark)
	whole, err := o.orphans.spare(o.db, st.ts)
	if err != nil {
		return err
	}
	if !whole || o.hadGuard {
		counts, err := countKeys(o.db, st.ts)
		if err != nil {
			return fmt.Errorf("count records: %w", err)
		}
		findings = append(findings, compareCounts(&counts, &st)...)
	}
	if len(findings) > 0 {
		return o.regressed(damageRegressed, findings...)
	}
	return nil
}

func compareMark(st *state, m *mark) (findings []string) {
	for l, was := range m.state.logs {
		if is := st.logs[l]; is.next < was.next || is.tail < was.tail {
			findings = append(findings, fmt.Sprintf("%s log reaches from %d to %d, but from %d to %d was on disk", Log(l), is.tail, is.next, was.tail, was.next))
		}
	}
	if m.phase != phaseRunning && (st.logs != m.state.logs || st.live != m.state.live) {
		findings = append(findings, "the state is not the one that the store was closed with")
	}
	return findings
}

// counted are the prefixes whose live counts the owners keep exactly.
const counted = "deinrsxy"

func isCounted(p byte, st *state) bool {
	for i := range len(counted) {
		if counted[i] == p {
			return true
		}
	}
	return st.live[p] != 0
}

func compareCounts(counts *[256]int64, st *state) (findings []string) {
	for p := range counts {
		if isCounted(byte(p), st) && counts[p] != st.live[p] {
			findings = append(findings, fmt.Sprintf("%d records under %q are there, but there should be %d", counts[p], rune(p), st.live[p]))
		}
	}
	return findings
}

// countKeys counts the keys of each prefix by reading keys only, in as many ranges as there are processors.
func countKeys(db *badger.DB, ts uint64) (counts [256]int64, err error) {
	cuts := rangeCuts(db, runtime.GOMAXPROCS(0))
	parts := make([][256]int64, len(cuts)+1)
	errs := make([]error, len(parts))
	var ranges sync.WaitGroup
	for i := range parts {
		var from, to []byte
		if i > 0 {
			from = cuts[i-1]
		}
		if i < len(cuts) {
			to = cuts[i]
		}
		ranges.Go(func() {
			defer func() {
				if r := recover(); r != nil {
					errs[i] = fmt.Errorf("panic in badger: %v\n%s", r, debug.Stack())
				}
			}()
			countRange(db, ts, from, to, &parts[i])
		})
	}
	ranges.Wait()
	for i := range parts {
		for p, n := range parts[i] {
			counts[p] += n
		}
	}
	return counts, errors.Join(errs...)
}

// countRange counts the keys from from up to but without to; nil is no bound.
func countRange(db *badger.DB, ts uint64, from, to []byte, counts *[256]int64) {
	txn := db.NewTransactionAt(ts, false)
	defer txn.Discard()
	it := txn.NewIterator(badger.IteratorOptions{})
	defer it.Close()
	for it.Seek(from); it.Valid(); it.Next() {
		key := it.Item().Key()
		if to != nil && bytes.Compare(key, to) >= 0 {
			return
		}
		counts[key[0]]++
	}
}

// rangeCuts returns keys that part the database into at most n ranges of about the same number of tables.
func rangeCuts(db *badger.DB, n int) (cuts [][]byte) {
	var starts [][]byte
	for _, t := range db.Tables() {
		starts = append(starts, y.ParseKey(t.Left))
	}
	slices.SortFunc(starts, bytes.Compare)
	starts = slices.CompactFunc(starts, bytes.Equal)
	for i := 1; i < n && len(starts) >= n; i++ {
		cuts = append(cuts, starts[i*len(starts)/n])
	}
	return cuts
}

func readRecord(db *badger.DB, key []byte) ([]byte, error) {
	txn := db.NewTransactionAt(db.MaxVersion(), false)
	defer txn.Discard()
	item, err := txn.Get(key)
	if err != nil {
		return nil, err
	}
	raw, err := item.ValueCopy(nil)
	if err != nil {
		return nil, err
	}
	return open(key, raw)
}

func readState(db *badger.DB) (state, error) {
	b, err := readRecord(db, stateKey)
	if err != nil {
		return state{}, err
	}
	return parseState(b)
}

func readLost(db *badger.DB) ([]LostRange, error) {
	b, err := readRecord(db, lostKey)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil || len(b) == 0 || b[0] != lostVersion {
		return nil, fmt.Errorf("the record of lost ranges cannot be read: %w", err)
	}
	var lost []LostRange
	return lost, json.Unmarshal(b[1:], &lost)
}
