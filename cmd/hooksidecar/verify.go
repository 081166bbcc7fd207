package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/hooksidecar/hooksidecar/internal/store"
)

func dataDirFlag() cli.Flag {
	return &cli.StringFlag{Name: "data-dir", Usage: "`DIR` of the store [$HOOKSIDECAR_DATA_DIR]"}
}

// dataDir returns the directory that the flag or the environment names.
func (p *program) dataDir(c *cli.Context) (string, error) {
	dir := p.choose(c, "data-dir", "HOOKSIDECAR_DATA_DIR", "")
	if dir == "" {
		return "", misuse("name the store with --data-dir")
	}
	return dir, nil
}

func (p *program) verifyCommand() *cli.Command {
	return &cli.Command{
		Name:        "verify",
		Usage:       "check every record of a store whose sidecar is stopped",
		Description: "It reads and changes nothing. A sound store ends with 0, a damaged one with 1, one that is in use with 75.",
		Flags:       []cli.Flag{dataDirFlag(), outputFlag()},
		Action:      p.verify,
	}
}

func (p *program) verify(c *cli.Context) error {
	if _, err := arguments(c, 0, 0); err != nil {
		return err
	}
	format, err := outputFormat(c)
	if err != nil {
		return err
	}
	dir, err := p.dataDir(c)
	if err != nil {
		return err
	}
	report, err := store.Verify(dir)
	if err != nil {
		return err
	}
	if format == "table" {
		err = p.printReport(report)
	} else {
		err = printJSON(p.stdout, format, report)
	}
	if err != nil {
		return err
	}
	return unsound(report)
}

// unsound returns an error that says what is wrong with a store, nil if nothing is.
func unsound(report store.Report) error {
	if len(report.Problems) == 0 {
		return nil
	}
	return fmt.Errorf("store %s is damaged: %s", report.StoreID, strings.Join(report.Problems, "; "))
}

func (p *program) printReport(r store.Report) error {
	t := newTable(p.stdout)
	t.row("store", fmt.Sprintf("%s of %s, boot %d", r.StoreID, r.Service, r.Boot))
	t.row("closed", map[bool]string{true: "in order", false: "not in order: the process was killed, or the power failed"}[r.Clean])
	t.row("records", fmt.Sprintf("%d (%s), %d damaged", r.Records, size(r.Bytes), r.Damaged))
	for _, l := range r.Logs {
		held := "empty, next seq " + strconv.FormatUint(l.Next, 10)
		if l.Next > l.Tail {
			held = fmt.Sprintf("seqs %d to %d, %d events, %d missing", l.Tail, l.Next-1, l.Events, l.Missing)
		}
		t.row(l.Log, held)
	}
	if len(r.Problems) == 0 {
		t.row("result", "sound")
	}
	return t.flush()
}
