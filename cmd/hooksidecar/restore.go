package main

import (
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/hooksidecar/hooksidecar/internal/store"
)

func (p *program) restoreCommand() *cli.Command {
	return &cli.Command{
		Name:      "restore",
		Usage:     "make a new store from a backup",
		ArgsUsage: "FILE",
		Description: "The new store has an id of its own: for its peers it is another log, and they start at their subscriptions' beginning.\n" +
			"The directory must be empty or absent, and stays so if the backup is damaged.",
		Flags: []cli.Flag{dataDirFlag(),
			&cli.StringFlag{Name: "service", Usage: "`NAME` of the service that the backup is of [$HOOKSIDECAR_SERVICE]"}},
		Action: p.restore,
	}
}

func (p *program) restore(c *cli.Context) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	dir, err := p.dataDir(c)
	if err != nil {
		return err
	}
	service := p.choose(c, "service", "HOOKSIDECAR_SERVICE", "")
	if service == "" {
		return misuse("name the service with --service")
	}
	f, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	if err := store.Restore(dir, service, f); err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "%s restored from %s\n", dir, args[0])
	return err
}
