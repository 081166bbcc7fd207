package store

import (
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrFenced means that a commit or a sync failed and nothing is written any more. The outcome of the
	// operation that was under way is unknown; of later ones, nothing was stored.
	ErrFenced = errors.New("store is fenced after a failed write")
	// ErrClosed means that the store was closed first; nothing was stored.
	ErrClosed = errors.New("store is closed")
	// ErrDiskLow refuses Intake while free space is below MinFreeBytes; nothing was stored.
	ErrDiskLow = errors.New("disk space is low")
	// ErrDiskFloor refuses all writing while the disk is all but full; nothing was stored.
	ErrDiskFloor = errors.New("disk is full")
	// ErrTooLarge means that one operation does not fit in a transaction; nothing was stored.
	ErrTooLarge = errors.New("operation is too large for one transaction")
	// ErrReadExpired means that a View lasted longer than a read may hold back the removal of old versions.
	ErrReadExpired = errors.New("read took too long")
	// ErrDamagedRecord means that a record's checksum does not match. Scans go on after it.
	ErrDamagedRecord = errors.New("record is damaged")
	// ErrLocked means that another process has the directory open; the text names it.
	ErrLocked = errors.New("store is in use")
	// ErrNewerFormat means that a newer version wrote the store.
	ErrNewerFormat = errors.New("store was written by a newer version")
	// ErrNoSpace means that there is not enough room to open the store safely.
	ErrNoSpace = errors.New("not enough free disk space to open the store")
	// ErrUnsafeFS means that the directory lies on a file system whose syncs cannot be relied on.
	ErrUnsafeFS = errors.New("file system is not safe for a store")
	// ErrNotEmpty means that Restore was pointed at a directory that holds something.
	ErrNotEmpty = errors.New("directory is not empty")
	// ErrBadBackup means that a backup is truncated, altered or not one of ours.
	ErrBadBackup = errors.New("backup is damaged")
)

// Damage codes, stable for scripts.
const (
	damageUnidentified = "store_unidentified"   // badger files without STORE
	damageIdentity     = "store_header_damaged" // STORE unreadable
	damageRestore      = "restore_cut_off"      // half of a restore, and no store
	damageService      = "wrong_service"        // STORE names another service
	damageRollback     = "rollback_suspected"   // STORE older than WATERMARK
	damageWatermark    = "watermark_damaged"    // WATERMARK missing, torn or of another store
	damageRegressed    = "store_regressed"      // holds less than it did
	damageFiles        = "store_files_damaged"  // a file is missing or unreadable
)

// A DamageError says what of a store is missing. The process should exit with code 65.
type DamageError struct {
	Code     string      // stable, one of store_regressed, store_files_damaged, …
	StoreID  string      // empty if STORE could not be read
	Dir      string      // of the store
	Findings []string    // one sentence each, with numbers and file names
	Lost     []LostRange // seqs known to be missing; more may be
	Evidence string      // where the files lie as they were found
	// Acceptable tells whether AcceptLoss can go on; if not, the files have to be put right by hand.
	Acceptable bool
}

// Error is several lines: what is missing, where the evidence lies, which command goes on.
func (e *DamageError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "store %s in %s is damaged (%s): %s", e.StoreID, e.Dir, e.Code, strings.Join(e.Findings, "; "))
	for _, l := range e.Lost {
		fmt.Fprintf(&b, "; %s seqs %d to %d are missing (%d)", l.Log, l.From, l.To, l.To-l.From+1)
	}
	if e.Evidence != "" {
		fmt.Fprintf(&b, "\nthe files as they were found: %s", e.Evidence)
	}
	if e.Acceptable && e.StoreID != "" {
		fmt.Fprintf(&b, "\nrestore a backup, or go on with what is left: hooksidecar run --data-dir %s --accept-loss %s", e.Dir, e.StoreID)
	}
	return b.String()
}
