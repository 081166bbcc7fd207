package store

import (
	"errors"
	"log/slog"

	"github.com/VictoriaMetrics/metrics"
)

const (
	defaultMemTable = 16 << 20
	minMemTable     = 1 << 20
	defaultMinFree  = 512 << 20
	defaultBallast  = 128 << 20
	none            = -1
)

// Config says where a store lies and how careful it is.
type Config struct {
	Dir     string // made with mode 0700 if absent
	Service string // must be the one that the store was made for

	MinFreeBytes  int64  // Intake is refused below; 0: the greater of 512 MiB and 10 % of the store; -1: no limit (tests)
	BallastBytes  int64  // given up on a full disk; 0: 128 MiB; -1: none (tests)
	AcceptLoss    string // the store's id: open a damaged store with what is left of it
	AllowUnsafeFS bool   // open on tmpfs and network file systems as well
	MemTableBytes int64  // 0: 16 MiB, at least 1 MiB; write amplification explodes with large ones

	Log     *slog.Logger // nil: discard
	Metrics *metrics.Set // nil: a set of its own

	statfs func(dir string) (fsSpace, error) // nil: of the system
}

func (c *Config) settle() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("store directory is not set"))
	}
	if c.Service == "" {
		errs = append(errs, errors.New("service is not set"))
	}
	if c.MemTableBytes == 0 {
		c.MemTableBytes = defaultMemTable
	}
	if c.MemTableBytes < minMemTable {
		errs = append(errs, errors.New("memtable is smaller than 1 MiB"))
	}
	if c.BallastBytes == 0 {
		c.BallastBytes = defaultBallast
	}
	if c.statfs == nil {
		c.statfs = statFS
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Log = c.Log.With("component", "store")
	if c.Metrics == nil {
		c.Metrics = metrics.NewSet()
	}
	return errors.Join(errs...)
}
