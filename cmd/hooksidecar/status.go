package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/hooksidecar/hooksidecar/internal/admin"
)

func (p *program) statusCommand() *cli.Command {
	return &cli.Command{
		Name:   "status",
		Usage:  "show how the sidecar is",
		Flags:  append(adminFlags(), outputFlag()),
		Action: p.status,
	}
}

func (p *program) status(c *cli.Context) error {
	if _, err := arguments(c, 0, 0); err != nil {
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
	s, err := client.Status(c.Context)
	if err != nil {
		return err
	}
	if format != "table" {
		return printJSON(p.stdout, format, s)
	}
	return printStatus(p.stdout, s)
}

func printStatus(w io.Writer, s admin.Status) error {
	t := newTable(w)
	t.row("service", fmt.Sprintf("%s, instance %s, version %s", s.Service, s.Instance, s.Version))
	t.row("started", fmt.Sprintf("%s, boot %d of store %s", moment(s.StartedAt), s.Boot, s.StoreID))
	t.row("key", s.Key)
	t.row("listeners", fmt.Sprintf("app %s; peer %s; admin %s", strings.Join(s.Listeners.App, " "), strings.Join(s.Listeners.Peer, " "), strings.Join(s.Listeners.Admin, " ")))
	t.row("outbox", fmt.Sprintf("%s kept (%s), next seq %d", counted(s.Outbox.Events, "event"), size(s.Outbox.Bytes), s.Outbox.NextSeq))
	t.row("inbox", inboxLine(s.Inbox))
	t.row("dead letters", s.DeadLetters)
	t.row("store", fmt.Sprintf("%s, %s used, %s free", s.Store.State, size(s.Store.UsedBytes), size(s.Store.FreeBytes)))
	for _, lost := range s.Store.Lost {
		t.row("lost", fmt.Sprintf("%s seqs %d to %d", lost.Log, lost.From, lost.To))
	}
	for _, part := range s.Readiness.Parts {
		if !part.OK {
			t.row("not well", strings.TrimSuffix(part.Name+": "+part.State+", "+part.Detail, ", "))
		}
	}
	if err := t.flush(); err != nil {
		return err
	}
	if err := printSubscribers(w, s.Subscribers); err != nil {
		return err
	}
	return printPeers(w, s.Peers)
}

func inboxLine(in admin.Inbox) string {
	if in.AppURL == "" {
		return "publish only, no app.url is set"
	}
	line := fmt.Sprintf("app %s is %s, backlog %d", in.AppURL, in.AppState, in.Backlog)
	if !in.OldestAt.IsZero() {
		line += ", oldest " + moment(in.OldestAt)
	}
	if !in.HeldUntil.IsZero() {
		line += ", tried again " + moment(in.HeldUntil)
	}
	for _, parked := range in.Parked {
		line += ", parked by answer 410: " + parked
	}
	return line
}

func printSubscribers(w io.Writer, all []admin.Subscriber) error {
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	t := newTable(w, "SUBSCRIBER", "STATE", "TYPES", "BACKLOG", "STORED", "DEAD", "CURSOR", "DETAIL")
	for _, s := range all {
		t.row(s.Service, s.State, strings.Join(s.Types, " "), s.Backlog, s.Stored, s.Dead, s.Cursor, orDash(s.Detail))
	}
	return t.flush()
}

func printPeers(w io.Writer, all []admin.Peer) error {
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	t := newTable(w, "PEER", "SERVICE", "INSTANCE", "STATE", "LAST SEEN", "KEY", "DETAIL")
	for _, peer := range all {
		t.row(peer.URL, orDash(peer.Service), orDash(peer.Instance), peer.State, moment(peer.LastSeenAt), orDash(shorten(peer.Fingerprint, 20)), orDash(peer.Error))
	}
	return t.flush()
}
