package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// A dirLock keeps other processes out of a store directory until it is closed.
type dirLock struct {
	file *os.File // LOCK, which names the holder; it stays, only the lock counts
	dir  *os.File // locked as well, since LOCK can be removed by somebody who means well
}

func (l *dirLock) Close() error { return errors.Join(l.file.Close(), l.dir.Close()) }

func takeLock(dir string) (*dirLock, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open directory: %w", err), f.Close())
	}
	l := &dirLock{f, d}
	if err := l.take(); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			pid, _ := io.ReadAll(io.LimitReader(f, 32))
			err = fmt.Errorf("%w: %s is held by process %s", ErrLocked, dir, strings.TrimSpace(string(pid)))
		} else {
			err = fmt.Errorf("lock %s: %w", dir, err)
		}
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *dirLock) take() error {
	if err := unix.Flock(int(l.file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return err
	}
	// Some network file systems lock files only.
	if err := unix.Flock(int(l.dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return err
	}
	err := l.file.Truncate(0)
	if err == nil {
		_, err = l.file.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	}
	if errors.Is(err, unix.ENOSPC) { // the pid is a courtesy
		return nil
	}
	return err
}
