package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/hooksidecar/hooksidecar/internal/store"
)

func (p *program) backupCommand() *cli.Command {
	return &cli.Command{
		Name:        "backup",
		Usage:       "write a store whose sidecar is stopped to one file",
		ArgsUsage:   "FILE",
		Description: "The store is verified first: a damaged one is not backed up. FILE must not exist yet.",
		Flags:       []cli.Flag{dataDirFlag()},
		Action:      p.backup,
	}
}

func (p *program) backup(c *cli.Context) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	dir, err := p.dataDir(c)
	if err != nil {
		return err
	}
	report, err := store.Verify(dir)
	if err == nil {
		err = unsound(report)
	}
	if err != nil {
		return err
	}
	bytes, err := backupTo(args[0], dir, report.Service)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "%s: %s of %s, %d records, %s\n", args[0], report.StoreID, report.Service, report.Records, size(bytes))
	return err
}

// backupTo writes the backup beside its place and moves it there when it is complete and on disk: what is there is whole.
func backupTo(path, dir, service string) (bytes int64, err error) {
	if _, err := os.Lstat(path); err == nil {
		return 0, fmt.Errorf("%s is there already", path)
	}
	temp, err := os.CreateTemp(filepath.Dir(path), ".backup-*")
	if err != nil {
		return 0, err
	}
	defer os.Remove(temp.Name())
	s, err := store.Open(store.Config{Dir: dir, Service: service, MinFreeBytes: -1, BallastBytes: -1, AllowUnsafeFS: true})
	if err != nil {
		return 0, errors.Join(err, temp.Close())
	}
	err = s.Backup(temp)
	if err == nil {
		err = temp.Sync()
	}
	info, statErr := temp.Stat()
	if err := errors.Join(err, statErr, temp.Close(), s.Close()); err != nil {
		return 0, err
	}
	if err := os.Link(temp.Name(), path); err != nil { // unlike a rename, a link never replaces
		return 0, err
	}
	return info.Size(), syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
