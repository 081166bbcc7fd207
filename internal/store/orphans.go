package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
	"github.com/dgraph-io/ristretto/v2/z"
)

// A table that the manifest does not name is dropped by Badger. Most come from a compaction that was cut off:
// what they hold is then in the tables that it was reading, too. But the output of one whose sync failed looks
// the same, and there its inputs are gone. Versions do not tell them apart, since both are old. What tells is
// whether each record can be had from the rest of the database, as it is or in a newer version: then nothing
// is lost with the table, wherever it came from. If that cannot be shown, all keys are counted.
type orphans struct {
	tables []*table.Table
	torn   bool // there is one that cannot be read
}

// keepOrphans opens the tables that Badger is about to drop.
func (in *inspection) keepOrphans() *orphans {
	var o orphans
	for _, id := range in.orphans() {
		t := in.tables[id]
		if t.size == 0 && in.manifest.removed[id] {
			continue // in the middle of its removal
		}
		if t.err != nil {
			o.torn = true
			continue
		}
		tab, err := openTable(filepath.Join(in.dir, tableName(id)))
		if err != nil {
			o.torn = true
			continue
		}
		o.tables = append(o.tables, tab)
	}
	return &o
}

// openTable opens a table whose index is known to be sound, and verifies its blocks.
func openTable(path string) (*table.Table, error) {
	mf, err := z.OpenMmapFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	return table.OpenTable(mf, table.Options{ChkMode: options.OnTableRead})
}

func (o *orphans) close() error {
	if o == nil {
		return nil
	}
	var errs []error
	for _, t := range o.tables {
		errs = append(errs, t.Close(-1))
	}
	o.tables = nil
	return errors.Join(errs...)
}

// spare reports whether the database holds at group ts all that the orphans hold.
func (o *orphans) spare(db *badger.DB, ts uint64) (bool, error) {
	if o.torn {
		return false, nil
	}
	if len(o.tables) == 0 {
		return true, nil
	}
	txn := db.NewTransactionAt(ts, false)
	defer txn.Discard()
	it := txn.NewIterator(badger.IteratorOptions{AllVersions: true})
	defer it.Close()
	for _, t := range o.tables {
		ok, err := covers(it, t)
		if !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

const (
	bitDelete      = 1 << 0
	badgerInternal = "!badger!"
)

// covers compares the newest version of each key of t with the newest that the database has.
func covers(db *badger.Iterator, t *table.Table) (bool, error) {
	it := t.NewIterator(table.NOCACHE)
	defer it.Close()
	var last []byte
	seen := uint32(0)
	reach := &reacher{it: db}
	for it.Rewind(); it.Valid(); it.Next() {
		seen++
		key, version := y.ParseKey(it.Key()), y.ParseTs(it.Key())
		if last != nil && bytes.Equal(key, last) || bytes.HasPrefix(key, []byte(badgerInternal)) {
			continue
		}
		last = append(last[:0], key...)
		item := reach.key(key)
		switch {
		case item != nil && item.Version() >= version:
		case item == nil && it.Value().Meta&bitDelete != 0: // as dead without it
		default:
			return false, nil
		}
	}
	if want := t.KeyCount(); seen != want {
		return false, fmt.Errorf("table %d has %d records, but only %d can be read", t.ID(), want, seen)
	}
	return true, nil
}

// A reacher moves an iterator forward to one key after the other, in steps while they are near.
type reacher struct {
	it      *badger.Iterator
	started bool
}

const nearSteps = 16

// key returns the newest version of key, or nil. Keys must ascend.
func (r *reacher) key(key []byte) *badger.Item {
	for n := 0; ; n++ {
		if !r.started || n == nearSteps {
			r.it.Seek(key)
			r.started = true
		}
		if !r.it.Valid() {
			return nil
		}
		switch bytes.Compare(r.it.Item().Key(), key) {
		case 0:
			return r.it.Item()
		case 1:
			return nil
		}
		r.it.Next()
	}
}
