package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/ristretto/v2/z"
)

const tableExt = ".sst"

// inspection is what lies in a badger directory, found without changing a byte of it.
type inspection struct {
	dir         string
	manifest    manifest
	manifestErr error
	tables      map[uint64]tableScan // on disk
	logs        []walScan            // by id
	end         uint64               // timestamp of the last group that can be read
	state       []byte               // m record of group end, if it lies in a log
	findings    []string
	beyond      *state // the latest state known to have been committed, where the log breaks off

	shortValueLogs []string // names of those without a whole header
}

type tableScan struct {
	maxVersion  uint64
	size        int64
	first, last []byte // keys with version
	err         error
}

func tableName(id uint64) string { return fmt.Sprintf("%06d%s", id, tableExt) }

func (in *inspection) find(format string, args ...any) {
	in.findings = append(in.findings, fmt.Sprintf(format, args...))
}

// inspect reads a badger directory. maxGroup is how many bytes of log one group may have; blocks says to
// verify all of every table, which Badger does as well when it opens.
func inspect(dir string, maxGroup int64, blocks bool) (*inspection, error) {
	in := &inspection{dir: dir, tables: make(map[uint64]tableScan)}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		in.find("directory %s is missing", badgerName)
	} else if err != nil {
		return nil, err
	}
	var logIDs []uint64
	for _, e := range entries {
		if id, ok := fileID(e, walExt); ok {
			logIDs = append(logIDs, id)
		}
		if id, ok := fileID(e, tableExt); ok {
			in.tables[id] = scanTable(filepath.Join(dir, e.Name()), blocks)
		}
	}
	in.checkValueLogs(entries)
	slices.Sort(logIDs)
	for _, id := range logIDs {
		w, err := scanWAL(dir, id)
		if err != nil {
			in.find("log %s cannot be read: %v", w.name, err)
		}
		in.logs = append(in.logs, w)
	}
	in.checkTables()
	in.checkLogs(maxGroup)
	in.checkOrphans()
	return in, nil
}

// checkValueLogs wants them empty: what lies there was not synced reliably.
func (in *inspection) checkValueLogs(entries []fs.DirEntry) {
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".vlog") {
			continue
		}
		f, err := os.Open(filepath.Join(in.dir, e.Name()))
		if err != nil {
			in.find("value log %s cannot be read: %v", e.Name(), err)
			continue
		}
		info, err := f.Stat()
		if err == nil && info.Size() < walHeader {
			in.shortValueLogs = append(in.shortValueLogs, e.Name())
		} else if err == nil {
			var b []byte
			if b, err = readSparse(f, info.Size()); err == nil && usedBytes(b) > walHeader {
				err = errors.New("it holds values, which must all lie in tables")
			}
		}
		if err = errors.Join(err, f.Close()); err != nil {
			in.find("value log %s: %v", e.Name(), err)
		}
	}
}

func fileID(e fs.DirEntry, ext string) (uint64, bool) {
	name, ok := strings.CutSuffix(e.Name(), ext)
	if !ok {
		return 0, false
	}
	id, err := strconv.ParseUint(name, 10, 64)
	return id, err == nil
}

// scanTable reads a table's index, and its blocks if asked to.
func scanTable(path string, blocks bool) (t tableScan) {
	defer func() {
		if r := recover(); r != nil { // the table reader slices by what it reads
			t.err = fmt.Errorf("index is damaged")
		}
	}()
	info, err := os.Stat(path)
	if err != nil {
		return tableScan{err: err}
	}
	t.size = info.Size()
	const smallest = 16
	if t.size < smallest {
		t.err = fmt.Errorf("only %d bytes are left", t.size)
		return t
	}
	mf, err := z.OpenMmapFile(path, os.O_RDONLY, 0)
	if err != nil {
		t.err = err
		return t
	}
	if !footerFits(mf.Data) { // what the table reader would end the process over
		t.err = fmt.Errorf("footer is damaged")
		_ = mf.Close(-1)
		return t
	}
	mode := options.NoVerification
	if blocks {
		mode = options.OnTableRead
	}
	tab, err := table.OpenTable(mf, table.Options{ChkMode: mode})
	if err != nil {
		t.err = err
		return t
	}
	t.maxVersion = tab.MaxVersion()
	t.first, t.last = bytes.Clone(tab.Smallest()), bytes.Clone(tab.Biggest())
	t.err = tab.Close(-1)
	return t
}

// footerFits checks the lengths at the end of a table: index, its length, checksum, its length.
func footerFits(b []byte) bool {
	read := func(end int) (int, bool) {
		if end < 4 {
			return 0, false
		}
		n := int(uint32(b[end-4])<<24 | uint32(b[end-3])<<16 | uint32(b[end-2])<<8 | uint32(b[end-1]))
		return end - 4 - n, n <= end-4
	}
	at, ok := read(len(b))
	if !ok {
		return false
	}
	_, ok = read(at)
	return ok
}

// checkTables wants every table that the manifest names, and sets end to the newest group in them.
func (in *inspection) checkTables() {
	in.manifest, in.manifestErr = readManifest(in.dir)
	if in.manifestErr != nil {
		in.find("MANIFEST cannot be used, it names the tables (%d are on disk): %v", len(in.tables), in.manifestErr)
		return
	}
	for _, id := range slices.Sorted(maps.Keys(in.manifest.levels)) {
		t, ok := in.tables[id]
		switch {
		case !ok:
			in.find("table %s is missing", tableName(id))
		case t.err != nil:
			in.find("table %s cannot be read: %v", tableName(id), t.err)
		default:
			in.end = max(in.end, t.maxVersion)
		}
	}
}

// checkLogs follows the groups from the tables through the logs.
func (in *inspection) checkLogs(maxGroup int64) {
	for i := range in.logs {
		w := &in.logs[i]
		if w.gap != 0 {
			in.find("log %s jumps to group %d", w.name, w.gap)
		}
		if w.last == 0 {
			continue
		}
		if w.first > in.end+1 && in.manifestErr == nil {
			in.find("groups %d to %d are missing before log %s", in.end+1, w.first-1, w.name)
		}
		if w.last > in.end {
			in.end, in.state = w.last, w.state
		}
	}
	for i := range in.logs {
		w := &in.logs[i]
		// One commit is in flight at a time, so behind the end there is at most the group that follows it,
		// cut off. A whole record of a later one means that the log once reached further.
		if w.beyond > in.end+1 {
			in.find("log %s breaks off at byte %d after group %d, but reached group %d", w.name, w.end, w.last, w.beyond)
			if st, err := parseWALState(w.beyondState); err == nil && (in.beyond == nil || st.ts > in.beyond.ts) {
				in.beyond = &st
			}
			continue
		}
		if i == len(in.logs)-1 && w.dirty > w.end+maxGroup {
			in.find("log %s breaks off at byte %d after group %d, but %d bytes follow", w.name, w.end, w.last, w.dirty-w.end)
		}
	}
}

// checkOrphans looks at tables that the manifest does not name. A compaction or flush that was cut off leaves
// such tables, but what they hold is then elsewhere, too.
func (in *inspection) checkOrphans() {
	if in.manifestErr != nil {
		return
	}
	for _, id := range in.orphans() {
		if t := in.tables[id]; t.err == nil && t.maxVersion > in.end {
			in.find("table %s holds groups up to %d but MANIFEST does not name it; without it the store ends at %d",
				tableName(id), t.maxVersion, in.end)
		}
	}
}

// orphans are the tables that Badger would delete.
func (in *inspection) orphans() []uint64 {
	var ids []uint64
	for _, id := range slices.Sorted(maps.Keys(in.tables)) {
		if _, named := in.manifest.levels[id]; !named {
			ids = append(ids, id)
		}
	}
	return ids
}

// tidy removes what a crash may leave that Badger cannot open though nothing is missing: a log, or an empty
// value log, that was emptied before it was unlinked, or made but not yet sized, and a torn append to the manifest.
func (in *inspection) tidy() error {
	short := slices.Clone(in.shortValueLogs)
	for i := range in.logs {
		if w := &in.logs[i]; w.size < walHeader {
			short = append(short, w.name)
		}
	}
	for _, name := range short {
		if err := os.Remove(filepath.Join(in.dir, name)); err != nil {
			return err
		}
	}
	return in.manifest.cut(in.dir)
}
