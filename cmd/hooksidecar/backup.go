package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/hooksidecar/hooksidecar/internal/admin"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

func (p *program) backupCommand() *cli.Command {
	return &cli.Command{
		Name:      "backup",
		Usage:     "write the store of a sidecar, running or stopped, to one file",
		ArgsUsage: "FILE",
		Description: "A running sidecar is asked for its store as it is now, and goes on working meanwhile. The store of a stopped one\n" +
			"is named with --data-dir; it is verified first, and a damaged one is not backed up.\n\n" +
			"FILE must not exist yet. It holds every event, and only its owner may read it.",
		Flags:  append(adminFlags(), &cli.StringFlag{Name: "data-dir", Usage: "`DIR` of the store of a sidecar that is stopped"}),
		Action: p.backup,
	}
}

func (p *program) backup(c *cli.Context) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	if dir := c.String("data-dir"); dir != "" {
		return p.backupStopped(args[0], dir)
	}
	client, err := p.adminClient(c)
	if err != nil {
		return err
	}
	return p.backupRunning(c.Context, args[0], client)
}

// backupRunning has the sidecar write what it holds.
func (p *program) backupRunning(ctx context.Context, path string, client *admin.Client) error {
	if err := absent(path); err != nil {
		return err
	}
	status, err := client.Status(ctx)
	if errors.Is(err, admin.ErrUnreachable) {
		return fmt.Errorf("%w; if it is stopped, name its store with --data-dir", err)
	}
	if err != nil {
		return err
	}
	bytes, err := writeWhole(path, func(w io.Writer) error {
		_, err := client.Backup(ctx, w)
		return err
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "%s: %s of %s, %s\n", path, status.StoreID, status.Service, size(bytes))
	return err
}

// backupStopped reads the store in dir.
func (p *program) backupStopped(path, dir string) error {
	if err := absent(path); err != nil {
		return err
	}
	report, err := store.Verify(dir)
	if errors.Is(err, store.ErrLocked) {
		return fmt.Errorf("%w; leave --data-dir out to have the running sidecar write its backup", err)
	}
	if err == nil {
		err = unsound(report)
	}
	if err != nil {
		return err
	}
	s, err := store.Open(store.Config{Dir: dir, Service: report.Service, MinFreeBytes: -1, BallastBytes: -1, AllowUnsafeFS: true})
	if err != nil {
		return err
	}
	bytes, err := writeWhole(path, s.Backup)
	if err := errors.Join(err, s.Close()); err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "%s: %s of %s, %s, %s\n", path, report.StoreID, report.Service, counted(report.Records, "record"), size(bytes))
	return err
}

func absent(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s is there already", path)
	}
	return nil
}

// writeWhole writes beside path and gives the file its name, which nobody else may have, when it is complete and on disk: what is
// there is whole. Only the owner may read it.
func writeWhole(path string, write func(io.Writer) error) (bytes int64, err error) {
	temp, err := os.CreateTemp(filepath.Dir(path), ".backup-*") // mode 0600
	if err != nil {
		return 0, err
	}
	defer os.Remove(temp.Name())
	err = write(temp)
	if err == nil {
		err = temp.Sync()
	}
	info, statErr := temp.Stat()
	if err := errors.Join(err, statErr, temp.Close()); err != nil {
		return 0, err
	}
	err = os.Link(temp.Name(), path) // unlike a rename, a link never replaces
	if err != nil && !errors.Is(err, fs.ErrExist) && absent(path) == nil {
		err = os.Rename(temp.Name(), path) // a file system without links
	}
	if err != nil {
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
