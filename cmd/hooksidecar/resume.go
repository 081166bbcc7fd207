package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

func (p *program) resumeCommand() *cli.Command {
	return &cli.Command{
		Name:  "resume",
		Usage: "forward to the app again at once, also what it has answered 410 for",
		Description: "Nothing is lost without it: pauses end by themselves, and what a 410 has parked is kept. With --accept events\n" +
			"that the app refuses become dead letters again, after so many in a row that they looked like a bad deploy.",
		Flags:  append(adminFlags(), &cli.BoolFlag{Name: "accept", Usage: "the app is right to refuse"}),
		Action: p.resume,
	}
}

func (p *program) resume(c *cli.Context) error {
	if _, err := arguments(c, 0, 0); err != nil {
		return err
	}
	client, err := p.adminClient(c)
	if err != nil {
		return err
	}
	if err := client.Resume(c.Context, c.Bool("accept")); err != nil {
		return err
	}
	_, err = fmt.Fprintln(p.stdout, "forwarding resumed")
	return err
}
