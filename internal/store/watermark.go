package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
)

const (
	slotBytes     = 512
	markVersion   = 1
	watermarkSize = 2 * slotBytes
)

var markMagic = []byte("HSWM")

// A phase says how much a watermark knows of what came after it.
type phase byte

const (
	phaseRunning phase = 0 // commits may have followed
	phaseClean   phase = 1 // closed; nothing followed
	phaseClosing phase = 2 // Badger was being closed; no commit followed
)

// mark is one slot of WATERMARK: what was certainly on disk when it was written.
type mark struct {
	generation uint64
	storeID    string
	boot       uint64
	phase      phase
	state      state // ts, logs and live only
}

func (m *mark) encode() []byte {
	b := append(make([]byte, 0, slotBytes), markMagic...)
	b = append(b, markVersion)
	b = binary.AppendUvarint(b, m.generation)
	b = binary.AppendUvarint(b, uint64(len(m.storeID)))
	b = append(b, m.storeID...)
	b = binary.AppendUvarint(b, m.boot)
	b = append(b, byte(m.phase))
	b = binary.AppendUvarint(b, m.state.ts)
	for _, l := range m.state.logs {
		b = binary.AppendUvarint(b, l.next)
		b = binary.AppendUvarint(b, l.tail)
	}
	b = m.state.appendLive(b)
	b = b[:slotBytes-checksumBytes]
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func parseMark(b []byte) (mark, bool) {
	var m mark
	body := len(b) - checksumBytes
	if body < 0 || !bytes.HasPrefix(b, markMagic) || binary.BigEndian.Uint32(b[body:]) != crc32.Checksum(b[:body], castagnoli) {
		return m, false
	}
	f := fields{b: b[len(markMagic):body]}
	if f.byte() != markVersion {
		return m, false
	}
	m.generation = f.uvarint()
	n := f.uvarint()
	if n > uint64(len(f.b)) {
		return m, false
	}
	m.storeID, f.b = string(f.b[:n]), f.b[n:]
	m.boot = f.uvarint()
	m.phase = phase(f.byte())
	m.state.ts = f.uvarint()
	for l := range m.state.logs {
		m.state.logs[l].next = f.uvarint()
		m.state.logs[l].tail = f.uvarint()
	}
	f.live(&m.state.live)
	return m, !f.bad
}

var errBadWatermark = errors.New("no slot of WATERMARK can be read")

// readWatermark returns the newest slot that is whole; os.ErrNotExist or errBadWatermark wrapped.
func readWatermark(dir string) (mark, error) {
	b, err := os.ReadFile(filepath.Join(dir, watermarkName))
	if err != nil {
		return mark{}, fmt.Errorf("read watermark: %w", err)
	}
	var newest mark
	found := false
	for ; len(b) >= slotBytes; b = b[slotBytes:] {
		if m, ok := parseMark(b[:slotBytes]); ok && (!found || m.generation > newest.generation) {
			newest, found = m, true
		}
	}
	if !found {
		return mark{}, errBadWatermark
	}
	return newest, nil
}

// watermark writes slots in turn, so that one that is torn leaves the one before it.
type watermark struct {
	f    *os.File
	last mark
}

// openWatermark makes the file if needed; last is its newest slot, or names store and boot for a new one.
func openWatermark(dir string, last mark) (*watermark, error) {
	path := filepath.Join(dir, watermarkName)
	isNew := !exists(path)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open watermark: %w", err)
	}
	if isNew {
		// Really written, so that a full disk does not keep a slot from being written later.
		_, err = f.Write(make([]byte, watermarkSize))
		err = errors.Join(err, f.Sync(), syncDir(dir))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make watermark: %w", err), f.Close())
	}
	return &watermark{f: f, last: last}, nil
}

// write puts st on record, which must be synced already.
func (w *watermark) write(st *state, p phase) error {
	next := mark{
		generation: w.last.generation + 1, storeID: w.last.storeID, boot: w.last.boot, phase: p,
		state: state{ts: st.ts, logs: st.logs, live: st.live},
	}
	if _, err := w.f.WriteAt(next.encode(), int64(next.generation%2)*slotBytes); err != nil {
		return fmt.Errorf("write watermark: %w", err)
	}
	if err := w.f.Sync(); err != nil {
		return fmt.Errorf("sync watermark: %w", err)
	}
	w.last = next
	return nil
}
