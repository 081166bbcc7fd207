package store

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

const (
	partialName   = "restore.partial"
	restoreEvents = 500
)

// Restore makes a store for service in dir from a backup. dir must be absent, or empty but for LOCK and what a
// restore left that was cut off. It is empty afterwards if the backup turns out to be truncated, altered or of
// another service. The new store has an id of its own: it is another log, and peers treat it as one.
func Restore(dir, service string, r io.Reader) error {
	if err := clearRestore(dir); err != nil {
		return fmt.Errorf("restore into %s: %w", dir, err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) > 1 || len(entries) == 1 && entries[0].Name() != lockName {
		return fmt.Errorf("restore into %s: %w", dir, ErrNotEmpty)
	}
	made := !exists(dir)
	err := restore(dir, service, r)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("restore into %s: %w", dir, err)
	if !holdsFiles(dir) && made {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

// clearRestore empties a directory in which a restore was cut off: it was empty before.
func clearRestore(dir string) error {
	if !cutOffRestore(dir) {
		return nil
	}
	// The mark that says so comes last.
	for _, name := range []string{badgerName, watermarkName, partialName} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

func cutOffRestore(dir string) bool {
	return exists(filepath.Join(dir, partialName)) && !exists(filepath.Join(dir, identityName))
}

func restore(dir, service string, r io.Reader) error {
	in := &backupReader{r: bufio.NewReaderSize(r, 1<<18), sum: sha256.New()}
	h, st, err := readBackupHeader(in)
	if err != nil {
		return err
	}
	if h.Service != service {
		return fmt.Errorf("the backup is of service %q, not of %q", h.Service, service)
	}
	partial := filepath.Join(dir, partialName)
	err = fill(partial, service, &st, h.Records, in)
	if err == nil {
		err = moveUp(partial, dir)
	}
	if err != nil {
		err = errors.Join(err, clearRestore(dir))
	}
	return errors.Join(err, os.RemoveAll(partial))
}

// fill makes a store from the records of a backup, and believes nothing until the last byte is checked.
func fill(dir, service string, st *state, records int64, in *backupReader) (err error) {
	s, err := Open(Config{Dir: dir, Service: service, BallastBytes: none, AllowUnsafeFS: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	for more := true; more; {
		batch, last, err := readBatch(in)
		if err != nil {
			return err
		}
		records -= int64(len(batch))
		if more = !last; last {
			err = in.finish(records)
		}
		if err == nil {
			err = s.Commit(context.Background(), Op{Class: Work, Apply: func(tx *Tx) error {
				for _, r := range batch {
					if !bytes.Equal(r.Key, stateKey) {
						tx.Put(r.Key, r.Val)
					}
				}
				if last {
					tx.adopt(st)
				}
				return nil
			}})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// adopt makes logs and counts those of another store.
func (tx *Tx) adopt(st *state) {
	tx.logs, tx.touch = st.logs, true
	for p, n := range st.live {
		if n != 0 {
			tx.deltas = append(tx.deltas, delta{byte(p), n})
		}
	}
}

func readBatch(in *backupReader) (batch []Record, last bool, err error) {
	for size := 0; size < maxGroupBytes && len(batch) < restoreEvents; {
		key, err := in.field(maxKeyBytes)
		if err != nil || len(key) == 0 {
			return batch, err == nil, err
		}
		raw, err := in.field(valueThreshold)
		if err != nil {
			return nil, false, err
		}
		val, err := open(key, raw)
		if err != nil {
			return nil, false, fmt.Errorf("%w: %w", ErrBadBackup, err)
		}
		batch = append(batch, Record{key, val})
		size += len(key) + len(val)
	}
	return batch, false, nil
}

// finish checks what follows the last record.
func (b *backupReader) finish(missing int64) error {
	if missing != 0 {
		return fmt.Errorf("%w: %d records are missing", ErrBadBackup, missing)
	}
	want := b.sum.Sum(nil)
	got := make([]byte, sha256.Size)
	if _, err := io.ReadFull(b.r, got); err != nil {
		return fmt.Errorf("%w: cut off: %w", ErrBadBackup, err)
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%w: checksum", ErrBadBackup)
	}
	if _, err := b.r.ReadByte(); err != io.EOF {
		return fmt.Errorf("%w: bytes follow the checksum", ErrBadBackup)
	}
	return nil
}

// moveUp makes a finished store the one in dir. STORE comes last: without it nothing there is a store.
func moveUp(from, dir string) error {
	for _, name := range []string{badgerName, watermarkName, identityName} {
		if err := os.Rename(filepath.Join(from, name), filepath.Join(dir, name)); err != nil {
			return err
		}
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}
