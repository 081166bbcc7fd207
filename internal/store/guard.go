package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// makeGuard sets the badger files aside before Badger opens a store that was not closed: hard links of the
// tables, copies of what Badger changes in place. What Badger drops as not named by its manifest stays whole
// here. (A table that it deletes after a compaction is emptied first, so its link is empty, too; but the
// table it was compacted into then holds the rest.)
func makeGuard(dir string) error {
	guard := filepath.Join(dir, guardName)
	if err := os.MkdirAll(guard, 0o700); err != nil {
		return err
	}
	return cloneFiles(filepath.Join(dir, badgerName), guard)
}

// cloneFiles links tables and copies the other files of a badger directory, skipping those already there.
func cloneFiles(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		src, dst := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		if !e.Type().IsRegular() || e.Name() == lockName || exists(dst) {
			continue
		}
		if strings.HasSuffix(e.Name(), tableExt) {
			err = os.Link(src, dst)
		} else {
			err = copySparse(src, dst)
		}
		if err != nil {
			return fmt.Errorf("set %s aside: %w", e.Name(), err)
		}
	}
	return nil
}

// copySparse copies the parts of a file that are really there. Logs are mapped at twice their size.
func copySparse(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return err
	}
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = copyData(dst, src, info.Size())
	return errors.Join(err, dst.Close())
}

func copyData(dst, src *os.File, size int64) error {
	for off := int64(0); off < size; {
		data, err := unix.Seek(int(src.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		hole := size
		if err != nil {
			data = off
		} else if h, err := unix.Seek(int(src.Fd()), data, unix.SEEK_HOLE); err == nil {
			hole = h
		}
		if _, err := dst.Seek(data, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.Copy(dst, io.NewSectionReader(src, data, hole-data)); err != nil {
			return err
		}
		off = hole
	}
	return dst.Truncate(size)
}

// dropGuard removes the guard folder.
func dropGuard(dir string) error {
	err := os.RemoveAll(filepath.Join(dir, guardName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
