package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/hooksidecar/hooksidecar/internal/admin"
	"github.com/hooksidecar/hooksidecar/internal/deadletter"
)

func (p *program) dlqCommand() *cli.Command {
	return &cli.Command{
		Name:  "dlq",
		Usage: "dead letters: events that were given up, and trying them again",
		Subcommands: []*cli.Command{
			{
				Name:  "list",
				Usage: "list dead letters",
				Flags: append(adminFlags(), outputFlag(),
					&cli.StringFlag{Name: "side", Usage: "`SIDE`: outbox (to a peer) or inbox (to the app)"},
					&cli.StringFlag{Name: "subscriber", Usage: "`SERVICE` that was owed the event"},
					&cli.StringFlag{Name: "type", Usage: "`PATTERN` of the event type"},
					&cli.StringFlag{Name: "reason", Usage: "`CODE` of the reason"},
					&cli.StringFlag{Name: "state", Usage: "`STATE`: dead, waiting, replaying, resolved or purged"},
					&cli.IntFlag{Name: "limit", Value: 100, Usage: "`N` letters at most"},
					&cli.StringFlag{Name: "after", Usage: "`ID` to go on after"}),
				Action: p.dlqList,
			},
			{
				Name:        "show",
				Usage:       "show one dead letter with its event and the last answer",
				ArgsUsage:   "ID",
				Description: "With -o json the event is byte for byte what the app gets; -o ndjson takes out its white space.",
				Flags: append(adminFlags(), outputFlag(),
					&cli.BoolFlag{Name: "data", Usage: "print nothing but the event's data, byte for byte"}),
				Action: p.dlqShow,
			},
			{
				Name:      "replay",
				Usage:     "try the events of dead letters again, under the ids they have",
				ArgsUsage: "ID...",
				Flags:     adminFlags(),
				Action:    p.dlqReplay,
			},
		},
	}
}

func (p *program) dlqList(c *cli.Context) error {
	if _, err := arguments(c, 0, 0); err != nil {
		return err
	}
	format, err := outputFormat(c)
	if err != nil {
		return err
	}
	query := admin.Query{Side: c.String("side"), Subscriber: c.String("subscriber"), Type: c.String("type"),
		Reason: c.String("reason"), State: c.String("state"), After: c.String("after")}
	if err := query.Check(); err != nil {
		return misuse("%v", err)
	}
	limit := c.Int("limit")
	if limit < 1 {
		return misuse("--limit is a number from 1 on")
	}
	client, err := p.adminClient(c)
	if err != nil {
		return err
	}
	page, err := allLetters(c.Context, client, query, limit)
	if err != nil {
		return err
	}
	return p.printLetters(format, page)
}

// allLetters asks for pages until there are limit letters or no more.
func allLetters(ctx context.Context, client *admin.Client, query admin.Query, limit int) (admin.Letters, error) {
	all := admin.Letters{Letters: []deadletter.Letter{}}
	for {
		query.Limit = min(limit-len(all.Letters), admin.MaxLimit)
		page, err := client.Letters(ctx, query)
		if err != nil {
			return all, err
		}
		all.Letters, all.Next = append(all.Letters, page.Letters...), page.Next
		if query.After = page.Next; page.Next == "" || len(all.Letters) >= limit {
			return all, nil
		}
	}
}

func (p *program) printLetters(format string, page admin.Letters) error {
	switch format {
	case "json":
		return printJSON(p.stdout, format, page)
	case "ndjson":
		for _, l := range page.Letters {
			if err := printJSON(p.stdout, format, l); err != nil {
				return err
			}
		}
	default:
		t := newTable(p.stdout, "ID", "SIDE", "SUBSCRIBER", "TYPE", "EVENT", "STATE", "REASON", "ATTEMPTS", "LAST")
		for _, l := range page.Letters {
			t.row(l.ID, l.Side, l.Subscriber, shorten(l.Type, 40), shorten(l.EventID, 40), l.State, l.Reason, l.Attempts, moment(l.LastAt))
		}
		if err := t.flush(); err != nil {
			return err
		}
	}
	if page.Next != "" {
		fmt.Fprintf(p.stderr, "there are more: --after %s\n", page.Next)
	}
	return nil
}

func (p *program) dlqShow(c *cli.Context) error {
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
	l, err := client.Letter(c.Context, args[0])
	if err != nil {
		return notFoundPlainly(err)
	}
	switch {
	case c.Bool("data"):
		return p.printData(l)
	case format == "ndjson":
		return printJSON(p.stdout, format, l)
	case format == "json":
		text, err := l.Append(nil, true)
		if err != nil {
			return err
		}
		_, err = p.stdout.Write(append(text, '\n'))
		return err
	}
	return p.printLetter(l)
}

// printData writes the event's data as it was published.
func (p *program) printData(l admin.Letter) error {
	var e struct {
		Data       json.RawMessage `json:"data"`
		DataBase64 []byte          `json:"dataBase64"`
	}
	if len(l.Event) == 0 {
		return &codedError{code: exitNotFound, err: errors.New("dead letter " + l.ID + " has no copy of its event")}
	}
	if err := json.Unmarshal(l.Event, &e); err != nil {
		return fmt.Errorf("read the event of %s: %w", l.ID, err)
	}
	data := []byte(e.Data)
	if e.Data == nil {
		data = e.DataBase64
	}
	_, err := p.stdout.Write(data)
	return err
}

func (p *program) printLetter(l admin.Letter) error {
	t := newTable(p.stdout)
	t.row("id", l.ID)
	t.row("state", l.State)
	t.row("side", l.Side)
	t.row("subscriber", l.Subscriber)
	t.row("event", l.EventID)
	t.row("type", l.Type)
	t.row("source", l.Source)
	t.row("key", orDash(l.Key))
	t.row("correlation", orDash(l.CorrelationID))
	t.row("reason", l.Reason)
	t.row("attempts", l.Attempts)
	t.row("first", moment(l.FirstAt))
	t.row("last", moment(l.LastAt))
	if l.Last.Status != 0 {
		t.row("answer", l.Last.Status)
	}
	for _, name := range sortedNames(l.Last.Header) {
		t.row("", name+": "+l.Last.Header[name])
	}
	if l.Last.Body != "" {
		t.row("", l.Last.Body)
	}
	if err := t.flush(); err != nil || len(l.Event) == 0 {
		return err
	}
	lines := strings.Split(string(l.Event), "\t") // a tab does no harm, and must not look like an escape of the event's own
	for i := range lines {
		lines[i] = escape(lines[i])
	}
	_, err := fmt.Fprintf(p.stdout, "envelope\n%s\n", strings.Join(lines, "\t"))
	return err
}

func sortedNames(m map[string]string) []string {
	var names []string
	for name := range m {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// dlqReplay does what it can of its list: an unknown letter does not keep the others from being replayed.
func (p *program) dlqReplay(c *cli.Context) error {
	ids, err := arguments(c, 1, -1)
	if err != nil {
		return err
	}
	client, err := p.adminClient(c)
	if err != nil {
		return err
	}
	var failed []error
	for _, id := range ids {
		switch err := client.Replay(c.Context, id); {
		case errors.Is(err, admin.ErrUnreachable) || c.Context.Err() != nil:
			return errors.Join(append(failed, err)...)
		case err != nil:
			failed = append(failed, notFoundPlainly(err))
		default:
			if _, err := fmt.Fprintf(p.stdout, "%s replaying\n", id); err != nil {
				return err
			}
		}
	}
	return errors.Join(failed...)
}

// notFoundPlainly says only what was not found: the code behind it is the exit code.
func notFoundPlainly(err error) error {
	if refusal, ok := errors.AsType[*admin.Refusal](err); ok && refusal.NotFound() && refusal.Code != "" {
		return &codedError{code: exitNotFound, err: errors.New(refusal.Detail)}
	}
	return err
}
