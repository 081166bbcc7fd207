package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// A log file of Badger is a header of 20 bytes, then entries: meta, user meta, uvarint key and value length
// and expiry, key ‖ timestamp, value, CRC32C of it all. A transaction ends with an entry marked bitFin whose
// value is the timestamp. The rest of the file is a hole.
const (
	walHeader = 20
	walExt    = ".mem"
	bitTxn    = 1 << 6
	bitFin    = 1 << 7
	tsBytes   = 8
)

// walScan is what one log file holds.
type walScan struct {
	id          uint64
	name        string
	size        int64
	foreign     bool   // its header is not one of ours
	first, last uint64 // timestamps of the first and last whole group; 0: none
	gap         uint64 // a whole group has this timestamp though it does not follow; 0: none
	end         int64  // where the last whole group ends
	state       []byte // value of the last group's m record
	beyond      uint64 // greatest timestamp of a whole m record behind end; 0: none
	beyondState []byte
	dirty       int64 // offset behind the last byte that is not zero
}

// scanWAL reads a log file without changing it.
func scanWAL(dir string, id uint64) (walScan, error) {
	w := walScan{id: id, name: fmt.Sprintf("%05d%s", id, walExt), end: walHeader}
	f, err := os.Open(filepath.Join(dir, w.name))
	if err != nil {
		return w, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return w, err
	}
	w.size = info.Size()
	b, err := readSparse(f, w.size)
	if err != nil {
		return w, fmt.Errorf("read %s: %w", w.name, err)
	}
	w.dirty = int64(usedBytes(b))
	if len(b) >= tsBytes && binary.BigEndian.Uint64(b) != 0 {
		w.foreign = true
		return w, fmt.Errorf("%s: header names an encryption key", w.name)
	}
	w.groups(b)
	w.search(b)
	return w, nil
}

// readSparse returns the file's bytes up to its last hole, without reading holes.
func readSparse(f *os.File, size int64) ([]byte, error) {
	var used int64
	b := make([]byte, 0, min(size, 1<<20))
	for off := int64(0); off < size; {
		data, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		hole := size
		if err != nil { // the file system knows no holes
			data = off
		} else if hole, err = unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE); err != nil {
			hole = size
		}
		b = append(b, make([]byte, hole-int64(len(b)))...)
		if _, err := f.ReadAt(b[data:hole], data); err != nil && err != io.EOF {
			return nil, err
		}
		off, used = hole, hole
	}
	return b[:used], nil
}

// usedBytes is the length of b without the zeros at its end. A copy of a log has all its zeros on disk.
func usedBytes(b []byte) int {
	var zeros [4 << 10]byte
	for len(b) >= len(zeros) && bytes.Equal(b[len(b)-len(zeros):], zeros[:]) {
		b = b[:len(b)-len(zeros)]
	}
	return len(bytes.TrimRight(b, "\x00"))
}

type walEntry struct {
	meta     byte
	key, val []byte // key without timestamp
	ts       uint64
	size     int
}

// parseEntry reads the entry at the start of b; ok only if it is whole and its checksum matches.
func parseEntry(b []byte) (e walEntry, ok bool) {
	if len(b) < 2 {
		return e, false
	}
	at := 2
	var n [3]uint64 // key length, value length, expiry
	for i := range n {
		v, used := binary.Uvarint(b[at:min(len(b), at+binary.MaxVarintLen64)])
		if used <= 0 {
			return e, false
		}
		n[i], at = v, at+used
	}
	klen, vlen := n[0], n[1]
	if klen <= tsBytes || klen > 1<<16 || vlen > 1<<30 || uint64(len(b)-at) < klen+vlen+checksumBytes {
		return e, false
	}
	body := at + int(klen+vlen)
	e.size = body + checksumBytes
	if binary.BigEndian.Uint32(b[body:]) != crc32.Checksum(b[:body], castagnoli) {
		return e, false
	}
	e.meta = b[0]
	e.key = b[at : at+int(klen)-tsBytes]
	e.ts = ^binary.BigEndian.Uint64(b[at+int(klen)-tsBytes:])
	e.val = b[at+int(klen) : body]
	return e, true
}

func (e *walEntry) isState() bool { return bytes.Equal(e.key, stateKey) && e.meta&bitFin == 0 }

// groups follows Badger's replay: whole groups up to the first entry that does not fit.
func (w *walScan) groups(b []byte) {
	var ts uint64
	var st []byte
	for at := int(w.end); at < len(b); {
		e, ok := parseEntry(b[at:])
		if !ok {
			return
		}
		at += e.size
		if e.meta&bitFin == 0 {
			if e.meta&bitTxn == 0 || (ts != 0 && e.ts != ts) {
				return
			}
			ts = e.ts
			if e.isState() {
				st = e.val
			}
			continue
		}
		if fin, err := strconv.ParseUint(string(e.val), 10, 64); err != nil || fin != ts {
			return
		}
		if w.last != 0 && ts != w.last+1 && w.gap == 0 {
			w.gap = ts
		}
		if w.first == 0 {
			w.first = ts
		}
		w.last, w.state, w.end = ts, st, int64(at)
		ts, st = 0, nil
	}
}

// search looks behind the end of the log for m records of later groups: each is a proof that groups were
// committed which the log no longer yields.
func (w *walScan) search(b []byte) {
	if int64(len(b)) <= w.end {
		return
	}
	rest := b[w.end:]
	// Before the key lie: meta, user meta, key length 9, value length in one or two bytes, expiry 0.
	for at := 0; ; at++ {
		i := bytes.IndexByte(rest[at:], stateKey[0])
		if i < 0 {
			return
		}
		at += i
		for head := 5; head <= 6 && head <= at; head++ {
			if rest[at-1] != 0 || int(rest[at-head+2]) != len(stateKey)+tsBytes {
				continue
			}
			e, ok := parseEntry(rest[at-head:])
			if ok && e.isState() && e.ts > w.beyond {
				w.beyond, w.beyondState = e.ts, e.val
			}
		}
	}
}

// parseWALState reads the m record of a log.
func parseWALState(val []byte) (state, error) {
	payload, err := open(stateKey, val)
	if err != nil {
		return state{}, err
	}
	return parseState(payload)
}
