package store

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"time"
)

// A backup is a magic line, a header as JSON after its length, then records as uvarint key length, key,
// uvarint value length, value with its checksum; a key length of 0; and the SHA-256 of all before it.
const (
	backupMagic   = "hooksidecar-backup-v1\n"
	maxHeaderSize = 1 << 20
)

// backupHeader says what a backup is of. State is the m record's payload.
type backupHeader struct {
	StoreID   string    `json:"store_id"`
	Service   string    `json:"service"`
	Format    int       `json:"format"`
	CreatedAt time.Time `json:"created_at"` // of the backup
	State     []byte    `json:"state"`
	Records   int64     `json:"records"`
}

// Backup writes all that is durable now to w, as one state, while the store goes on working. Versions that
// the backup still needs are kept meanwhile, however long it takes.
func (s *Store) Backup(w io.Writer) error {
	return s.read(time.Time{}, func(sn *Snapshot) error {
		out := &hashWriter{w: bufio.NewWriterSize(w, 1<<18), sum: sha256.New()}
		if err := sn.backup(out); err != nil {
			return fmt.Errorf("back up store %s: %w", s.ID(), err)
		}
		if _, err := out.w.Write(out.sum.Sum(nil)); err != nil {
			return fmt.Errorf("back up store %s: %w", s.ID(), err)
		}
		return out.w.Flush()
	})
}

func (sn *Snapshot) backup(out *hashWriter) error {
	st, ok, err := sn.Get(stateKey)
	if err != nil || !ok {
		return fmt.Errorf("read state (there: %t): %w", ok, err)
	}
	h := backupHeader{StoreID: sn.s.ID(), Service: sn.s.id.Service, Format: formatVersion, CreatedAt: time.Now().UTC(), State: st}
	for _, err := range sn.Keys(nil, nil) {
		if err != nil {
			return err
		}
		h.Records++
	}
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	out.write([]byte(backupMagic))
	out.field(b)
	for r, err := range sn.Scan(nil, nil) {
		if err != nil {
			return fmt.Errorf("record %q: %w", r.Key, err)
		}
		out.field(r.Key)
		out.field(seal(nil, r.Key, r.Val))
		if out.err != nil {
			return out.err
		}
	}
	out.field(nil)
	return out.err
}

// hashWriter writes and hashes; its error sticks.
type hashWriter struct {
	w   *bufio.Writer
	sum hash.Hash
	err error
}

func (h *hashWriter) write(b []byte) {
	if h.err == nil {
		h.sum.Write(b)
		_, h.err = h.w.Write(b)
	}
}

func (h *hashWriter) field(b []byte) {
	h.write(binary.AppendUvarint(nil, uint64(len(b))))
	h.write(b)
}

// backupReader reads what hashWriter wrote.
type backupReader struct {
	r   *bufio.Reader
	sum hash.Hash
}

func (b *backupReader) ReadByte() (byte, error) {
	c, err := b.r.ReadByte()
	if err == nil {
		b.sum.Write([]byte{c})
	}
	return c, err
}

func (b *backupReader) bytes(n int) ([]byte, error) {
	buf := make([]byte, n)
	if _, err := io.ReadFull(b.r, buf); err != nil {
		return nil, fmt.Errorf("%w: cut off: %w", ErrBadBackup, err)
	}
	b.sum.Write(buf)
	return buf, nil
}

func (b *backupReader) field(most int) ([]byte, error) {
	n, err := binary.ReadUvarint(b)
	if err != nil {
		return nil, fmt.Errorf("%w: cut off: %w", ErrBadBackup, err)
	}
	if n > uint64(most) {
		return nil, fmt.Errorf("%w: a field of %d bytes", ErrBadBackup, n)
	}
	return b.bytes(int(n))
}

func readBackupHeader(b *backupReader) (h backupHeader, st state, err error) {
	magic, err := b.bytes(len(backupMagic))
	if err != nil {
		return h, st, err
	}
	if string(magic) != backupMagic {
		return h, st, fmt.Errorf("%w: not a backup of this program", ErrBadBackup)
	}
	raw, err := b.field(maxHeaderSize)
	if err != nil {
		return h, st, err
	}
	if err := json.Unmarshal(raw, &h); err != nil {
		return h, st, fmt.Errorf("%w: header: %w", ErrBadBackup, err)
	}
	if h.Format > formatVersion {
		return h, st, fmt.Errorf("%w: backup of format %d", ErrNewerFormat, h.Format)
	}
	if st, err = parseState(h.State); err != nil {
		return h, st, fmt.Errorf("%w: %w", ErrBadBackup, err)
	}
	return h, st, nil
}
