package main

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/hooksidecar/hooksidecar/internal/admin"
)

func (p *program) eventsCommand() *cli.Command {
	return &cli.Command{
		Name:  "events",
		Usage: "events of this sidecar",
		Subcommands: []*cli.Command{{
			Name:      "show",
			Usage:     "show where an event is",
			ArgsUsage: "ID",
			Flags: append(adminFlags(), outputFlag(),
				&cli.StringFlag{Name: "source", Usage: "`NAME` that it was published under (default: all that are known)"}),
			Action: p.eventsShow,
		}},
	}
}

func (p *program) eventsShow(c *cli.Context) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	format, err := outputFormat(c)
	if err != nil {
		return err
	}
	client, err := p.adminClient(c)
	if err != nil {
		return err
	}
	e, err := client.Event(c.Context, c.String("source"), args[0])
	if err != nil {
		return notFoundPlainly(err)
	}
	if format != "table" {
		return printJSON(p.stdout, format, e)
	}
	return printEvent(p.stdout, e)
}

func printEvent(w io.Writer, e admin.Event) error {
	for _, published := range e.Published {
		t := newTable(w)
		t.row("published", published.Source)
		t.row("type", orDash(published.Type))
		t.row("key", orDash(published.Key))
		t.row("correlation", orDash(published.CorrelationID))
		t.row("accepted", fmt.Sprintf("%s as seq %d", moment(published.AcceptedAt), published.Seq))
		for _, d := range published.Deliveries {
			line := d.Subscriber + ": " + d.State
			if d.Attempts > 0 {
				line += ", " + counted(d.Attempts, "attempt")
			}
			if d.Reason != "" {
				line += ", " + d.Reason
			}
			if d.Letter != "" {
				line += ", dead letter " + d.Letter
			}
			t.row("delivery", line)
		}
		if err := t.flush(); err != nil {
			return err
		}
	}
	for _, received := range e.Received {
		t := newTable(w)
		t.row("received from", received.Source)
		t.row("arrived", fmt.Sprintf("%s as seq %d", moment(received.ArrivedAt), received.Seq))
		t.row("state", received.State)
		if received.Reason != "" {
			t.row("reason", received.Reason)
		}
		if received.Attempts > 0 {
			t.row("attempts", received.Attempts)
		}
		if !received.DueAt.IsZero() {
			t.row("next attempt", moment(received.DueAt))
		}
		if received.Letter != "" {
			t.row("dead letter", received.Letter)
		}
		if err := t.flush(); err != nil {
			return err
		}
	}
	return nil
}
