package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

// valueThreshold is Badger's greatest: every record lies in the tree and the value log stays empty, whose
// failed syncs would be swallowed.
const valueThreshold = 1 << 20

// badgerOptions are what the promises rest on. What they and the rest of this package answer to:
//
//   - Badger syncs once for each transaction: the committer makes one of many operations.
//   - A compaction that cannot make or sync its output loses its inputs in silence: limits on free bytes and
//     inodes, strayTables, and the live counts when a table is found that nobody names.
//   - Its files are mapped, so a full disk is a SIGBUS (as is a read error, which nothing here can turn into
//     an error): spaceGuard for what we write, gate for compactions.
//   - A log that cannot be rotated leaves it without a memtable, and reads panic: guarded, and the fence.
//   - A failed sync of the log is returned once and then forgotten: the fence. One of the value log is only
//     logged: nothing goes there, and inspect makes sure.
//   - Sync() misses logs that were rotated out: SyncWrites is on, always.
//   - A damaged log is cut off in silence, a missing manifest deletes all tables, a cut one some: inspect.
//   - A damaged block is an error only with OnTableRead; other modes end scans early or panic.
//   - Its errors cannot be told apart: LOCK and manifest are checked by ourselves.
//   - Use after Close crashes: the queue and the readers are closed and waited for first.
//   - DropPrefix stops all writers, TTL follows the wall clock: neither is used.
//   - It imports expvar, which adds a handler to http.DefaultServeMux: that mux must never be served.
func badgerOptions(dir string, cfg *Config, l badgerLog) badger.Options {
	return badger.DefaultOptions(dir).
		WithSyncWrites(true).
		WithMemTableSize(cfg.MemTableBytes).
		WithNumMemtables(memTables).
		WithNumLevelZeroTables(compactFrom).
		WithNumLevelZeroTablesStall(levelZeroStall). // must be greater, or the process ends
		WithNumCompactors(2).
		WithValueThreshold(min(valueThreshold, maxBatchBytes(cfg))).
		WithValueLogFileSize(16 << 20).
		WithChecksumVerificationMode(options.OnTableRead).
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithIndexCacheSize(0).
		WithDetectConflicts(false). // one writer
		WithMetricsEnabled(false).
		WithCompactL0OnClose(false).
		WithBypassLockGuard(true). // LOCK is ours
		WithExternalMagic(externalMagic).
		WithLogger(l)
}

// maxBatchBytes is Badger's limit for one transaction.
func maxBatchBytes(cfg *Config) int64 { return cfg.MemTableBytes * 15 / 100 }

// maxLogGroup is how much of a log one group can take up: its size as Badger counts it, and headers. The
// log may have been written with another memtable size, so at least that of the default.
func maxLogGroup(cfg *Config) int64 {
	return 2 * max(maxBatchBytes(cfg), defaultMemTable*15/100)
}

// Open opens the store in cfg.Dir, or makes a new one in an empty directory. Errors: *DamageError, ErrLocked,
// ErrNewerFormat, ErrNoSpace, ErrUnsafeFS, or a fault of the file system.
func Open(cfg Config) (*Store, error) {
	if err := cfg.settle(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make store directory: %w", err)
	}
	if !cfg.AllowUnsafeFS {
		if err := checkFS(cfg.Dir); err != nil {
			return nil, err
		}
	}
	lock, err := takeLock(cfg.Dir)
	if err != nil {
		return nil, err
	}
	o := &opening{cfg: &cfg, badgerDir: filepath.Join(cfg.Dir, badgerName), space: newSpaceGuard(&cfg), fence: newFence()}
	s, err := o.run()
	if errors.Is(err, errLeftOpen) {
		return nil, err // the database may still be written to, so the lock stays
	}
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	s.lock = lock
	s.start()
	return s, nil
}

// opening is the way from a directory to a store.
type opening struct {
	cfg       *Config
	badgerDir string
	space     *spaceGuard
	fence     *fence
	id        identity
	making    bool // nothing was ever acknowledged
	mark      mark
	hasMark   bool
	files     *inspection
	hadGuard  bool         // an opening was cut off, after Badger may have dropped tables
	orphans   *orphans     // what Badger drops in this one
	damage    *DamageError // accepted
	db        *badger.DB
	state     state
	lost      []LostRange
}

func (o *opening) run() (s *Store, err error) {
	defer func() {
		err = errors.Join(err, o.orphans.close())
		if err != nil && o.db != nil {
			err = errors.Join(err, closeBadger(o.db, o.space.closeGate()))
		}
	}()
	if err := o.identify(); err != nil {
		return nil, err
	}
	if err := o.examine(); err != nil {
		return nil, err
	}
	if err := o.setAside(); err != nil {
		return nil, err
	}
	if err := o.openBadger(); err != nil {
		return nil, err
	}
	if err := o.compare(); err != nil {
		return nil, err
	}
	if s, err = o.settle(); err != nil {
		return nil, err
	}
	return s, o.tidyUp()
}

// identify reads STORE, or makes a new one in a directory that holds no store.
func (o *opening) identify() error {
	for _, name := range []string{identityName + ".tmp", verifyName} { // of a crash
		if err := os.RemoveAll(filepath.Join(o.cfg.Dir, name)); err != nil {
			return err
		}
	}
	id, err := readIdentity(o.cfg.Dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if cutOffRestore(o.cfg.Dir) {
			return o.hopeless(damageRestore, "a restore into this directory was cut off: repeat it, or remove the directory")
		}
		if holdsFiles(o.badgerDir) || exists(filepath.Join(o.cfg.Dir, watermarkName)) {
			return o.hopeless(damageUnidentified, "there is a database but no STORE file that says whose it is")
		}
		id = newIdentity(o.cfg.Service)
		if err := writeIdentity(o.cfg.Dir, id); err != nil {
			return fmt.Errorf("make store: %w", err)
		}
	case errors.Is(err, errBadIdentity):
		return o.hopeless(damageIdentity, err.Error())
	case err != nil:
		return err
	}
	if err := os.RemoveAll(filepath.Join(o.cfg.Dir, partialName)); err != nil { // of a restore killed at its very end
		return err
	}
	o.id, o.making = id, id.Boot == 0
	if id.Service != o.cfg.Service {
		return o.hopeless(damageService, fmt.Sprintf("it is the store of service %q, not of %q", id.Service, o.cfg.Service))
	}
	if o.cfg.AcceptLoss != "" && o.cfg.AcceptLoss != id.StoreID {
		return fmt.Errorf("loss was accepted for store %s, but this is %s", o.cfg.AcceptLoss, id.StoreID)
	}
	if !o.making {
		return nil
	}
	// What lies here is from a first start that was cut off.
	for _, name := range []string{badgerName, watermarkName, guardName} {
		if err := os.RemoveAll(filepath.Join(o.cfg.Dir, name)); err != nil {
			return fmt.Errorf("make store: %w", err)
		}
	}
	if err := os.MkdirAll(o.badgerDir, 0o700); err != nil {
		return fmt.Errorf("make store: %w", err)
	}
	return nil
}

func holdsFiles(dir string) bool {
	entries, _ := os.ReadDir(dir)
	return len(entries) > 0
}

// setAside makes room and sees to it that nothing Badger drops is gone for good.
func (o *opening) setAside() error {
	o.space.measure()
	extra, left := 2*o.cfg.MemTableBytes, tree{}
	if o.files != nil {
		left = o.files.tree()
		extra = left.logBytes + 1<<20 // copies for the guard
	}
	if err := o.space.prepare(extra, &left); err != nil {
		return err
	}
	if o.making {
		return nil
	}
	o.hadGuard = exists(filepath.Join(o.cfg.Dir, guardName))
	if o.damage != nil || o.mark.phase != phaseClean || len(o.files.orphans()) > 0 {
		if err := makeGuard(o.cfg.Dir); err != nil {
			if errors.Is(err, syscall.ENOSPC) {
				err = fmt.Errorf("%w: %w", ErrNoSpace, err)
			}
			return fmt.Errorf("make guard: %w", err)
		}
	}
	if o.damage != nil {
		// Whoever is killed from here on must find the damage again, though the files no longer show it.
		if err := o.writeDown(o.damage); err != nil {
			return err
		}
		if err := o.rescue(); err != nil {
			return fmt.Errorf("rescue what is left: %w", err)
		}
		return nil
	}
	o.orphans = o.files.keepOrphans()
	return o.files.tidy()
}

func (o *opening) openBadger() (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic in badger: %v\n%s", r, debug.Stack())
		}
		if err != nil && !o.making {
			err = o.explain(err)
		}
	}()
	if o.db, err = badger.OpenManaged(badgerOptions(o.badgerDir, o.cfg, badgerLog{o.cfg.Log, o.fence, o.space.pass})); err != nil {
		o.db = nil
		return fmt.Errorf("open database: %w", err)
	}
	o.space.watch(newTreeWatch(o.badgerDir, o.cfg.MemTableBytes, o.db))
	// Badger does not sync the directory after making a log.
	return errors.Join(syncDir(o.badgerDir), syncDir(o.cfg.Dir), syncDir(filepath.Dir(filepath.Clean(o.cfg.Dir))))
}

// explain looks for damage behind an error of Badger's. Anything else may be cured by trying again.
func (o *opening) explain(err error) error {
	in, lookErr := inspect(o.badgerDir, maxLogGroup(o.cfg), true)
	if lookErr != nil || len(in.findings) == 0 {
		return errors.Join(err, lookErr)
	}
	return o.damaged(damageFiles, append(in.findings, "the database cannot be opened: "+err.Error()), nil)
}

// settle makes the opened database a store: clocks, boot number, the first group, WATERMARK.
func (o *opening) settle() (*Store, error) {
	s := &Store{
		cfg: *o.cfg, log: o.cfg.Log, db: o.db, id: o.id, space: o.space, fence: o.fence, queue: newQueue(),
		clean: o.making || o.mark.phase == phaseClean && o.damage == nil,
		stop:  make(chan struct{}), lost: o.lost, metrics: newMetrics(o.cfg.Metrics, o.space, o.fence),
		limits:  limits{size: o.db.MaxBatchSize() - 16<<10, count: o.db.MaxBatchCount() - 16, value: min(valueThreshold, maxBatchBytes(o.cfg))},
		readers: readers{open: make(map[*Snapshot]struct{})},
	}
	var age time.Time
	if o.state.age > 0 {
		age = time.UnixMilli(o.state.age)
	}
	s.clock = newAgeClock(age, systemClock())
	s.committer = &committer{s: s, state: o.state}
	s.current.Store(&o.state)
	s.readers.durable = o.state.ts
	for l, b := range o.state.logs {
		s.atOpen[l] = b.next
	}
	s.id.Boot = max(o.id.Boot, o.mark.boot) + 1
	if !o.making {
		if err := writeIdentity(o.cfg.Dir, s.id); err != nil {
			return nil, fmt.Errorf("count boot: %w", err)
		}
	}
	var err error
	s.mark, err = openWatermark(o.cfg.Dir, mark{generation: o.mark.generation, storeID: s.id.StoreID, boot: s.id.Boot})
	if err != nil {
		return nil, err
	}
	if o.making || o.damage != nil {
		if err := o.firstGroup(s); err != nil {
			return nil, errors.Join(err, s.mark.f.Close())
		}
	}
	err = s.mark.write(s.current.Load(), phaseRunning)
	if err == nil && !o.hasMark {
		err = s.mark.write(s.current.Load(), phaseRunning) // so that one slot may be torn
	}
	if err == nil && o.making {
		err = writeIdentity(o.cfg.Dir, s.id)
	}
	if err != nil {
		return nil, errors.Join(err, s.mark.f.Close())
	}
	s.db.SetDiscardTs(s.current.Load().ts)
	return s, nil
}

// tidyUp removes what was kept for the case of damage.
func (o *opening) tidyUp() error {
	if o.damage != nil {
		return o.keepEvidence()
	}
	if err := dropGuard(o.cfg.Dir); err != nil {
		return fmt.Errorf("remove guard: %w", err)
	}
	return nil
}
