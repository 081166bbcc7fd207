package store

import (
	"errors"
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// maxKeyBytes is far below what Badger takes (65,000) and far above what we use.
const maxKeyBytes = 4 << 10

// A Tx is what one operation sees of the group that is being built: its own writes, then those of the
// operations before it, then the store. It is valid until Apply returns.
type Tx struct {
	txn  *badger.Txn
	fits limits
	now  time.Time

	logs   [logs]bounds
	deltas []delta
	writes []write
	index  map[string]int // key -> position in writes
	size   int64          // as Badger counts it
	touch  bool           // commit though nothing is written
	err    error          // of a write, found before Badger sees it
}

type write struct {
	key, val []byte // val with its checksum; nil: delete
}

type delta struct {
	prefix byte
	n      int64
}

// bounds of one log: the first kept seq and the next to be given.
type bounds struct{ tail, next uint64 }

// limits are those of one Badger transaction, with room left for the m record.
type limits struct {
	size, count, value int64
}

// Get returns the payload under key, which is valid until Apply returns and must not be changed.
func (tx *Tx) Get(key []byte) (val []byte, ok bool, err error) {
	if i, own := tx.index[string(key)]; own {
		w := tx.writes[i]
		if w.val == nil {
			return nil, false, nil
		}
		return w.val[checksumBytes:], true, nil
	}
	item, err := tx.txn.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("read %q: %w", key, err)
	}
	raw, err := item.ValueCopy(nil)
	if err != nil {
		return nil, false, fmt.Errorf("read %q: %w", key, err)
	}
	val, err = open(key, raw)
	return val, err == nil, err
}

// Insert writes a key that was absent; the live count of its prefix goes up by one.
func (tx *Tx) Insert(key, val []byte) {
	tx.set(key, val)
	tx.count(key, 1)
}

// Remove deletes a key that was present; the live count of its prefix goes down by one.
func (tx *Tx) Remove(key []byte) {
	tx.Delete(key)
	tx.count(key, -1)
}

// Put writes a key without counting: singletons, and overwriting.
func (tx *Tx) Put(key, val []byte) { tx.set(key, val) }

// Delete deletes a key without counting.
func (tx *Tx) Delete(key []byte) { tx.write(append([]byte(nil), key...), nil) }

// Next takes the next seq of a log.
func (tx *Tx) Next(l Log) uint64 {
	n := tx.logs[l].next
	tx.logs[l].next++
	return n
}

// SetTail says that seqs below seq are no longer kept. It never moves back, nor past the next seq.
func (tx *Tx) SetTail(l Log, seq uint64) {
	b := &tx.logs[l]
	b.tail = max(b.tail, min(seq, b.next))
}

// Now is the time of the group; it never goes back within a store.
func (tx *Tx) Now() time.Time { return tx.now }

func (tx *Tx) set(key, val []byte) {
	if int64(len(val))+checksumBytes >= tx.fits.value {
		// A value at the threshold would go to the value log, whose failed syncs Badger swallows.
		tx.err = fmt.Errorf("value of %d bytes under %q: %w", len(val), key[:min(len(key), 16)], ErrTooLarge)
		return
	}
	buf := make([]byte, 0, len(key)+checksumBytes+len(val))
	buf = append(buf, key...)
	k := buf[:len(key):len(key)]
	tx.write(k, seal(buf[len(key):], key, val))
}

func (tx *Tx) write(key, val []byte) {
	if len(key) == 0 || len(key) > maxKeyBytes || key[0] == '!' || key[0] == stateKey[0] {
		tx.err = fmt.Errorf("key %q cannot be written", key[:min(len(key), 16)])
		return
	}
	tx.size += int64(len(key)+len(val)) + entryOverhead
	if i, ok := tx.index[string(key)]; ok {
		tx.writes[i] = write{key, val}
		return
	}
	tx.index[string(key)] = len(tx.writes)
	tx.writes = append(tx.writes, write{key, val})
}

func (tx *Tx) count(key []byte, n int64) {
	if len(key) == 0 {
		return
	}
	for i := range tx.deltas {
		if tx.deltas[i].prefix == key[0] {
			tx.deltas[i].n += n
			return
		}
	}
	tx.deltas = append(tx.deltas, delta{key[0], n})
}

// reset makes tx ready for the next operation of the group.
func (tx *Tx) reset(l [logs]bounds) {
	const keep = 256 // clearing a map costs what it once held
	if tx.index == nil || len(tx.index) > keep {
		tx.index = make(map[string]int)
	}
	clear(tx.index)
	clear(tx.writes)
	tx.writes, tx.deltas, tx.size, tx.err, tx.touch, tx.logs = tx.writes[:0], tx.deltas[:0], 0, nil, false, l
}
