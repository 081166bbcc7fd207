package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/hooksidecar/hooksidecar/internal/config"
)

// run carries out one command line and returns the exit code. What went wrong is said once, on stderr.
func (p *program) run(ctx context.Context, args []string) int {
	app := p.app()
	if len(args) == 0 {
		app.Writer = p.stderr
		_ = app.RunContext(ctx, []string{app.Name, "--help"}) // writing help is all it does
		return exitMisuse
	}
	args, err := arrange(app.Commands, args)
	if err == nil {
		err = app.RunContext(ctx, append([]string{app.Name}, args...))
	}
	if err != nil {
		text := escape(err.Error())
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			text = "stopped before it was done"
		}
		fmt.Fprintf(p.stderr, "hooksidecar: %s\n", text)
	}
	return exitCode(err)
}

// app builds the commands afresh: their flags hold the values of one run.
func (p *program) app() *cli.App {
	app := &cli.App{
		Name:                      "hooksidecar",
		Usage:                     "a durable outbox and inbox for one service, without a broker",
		UsageText:                 "hooksidecar COMMAND [flags] [arguments]",
		HideHelpCommand:           true,
		HideVersion:               true,
		EnableBashCompletion:      true,
		DisableSliceFlagSeparator: true,
		Writer:                    p.stdout,
		ErrWriter:                 p.stderr,
		ExitErrHandler:            func(*cli.Context, error) {}, // run says it, and main exits
		OnUsageError:              usageFailed,
		Action:                    unknownCommand,
		Commands: []*cli.Command{
			p.runCommand(), p.sendCommand(), p.listenCommand(),
			p.statusCommand(), p.eventsCommand(), p.dlqCommand(), p.resumeCommand(),
			p.verifyCommand(), p.backupCommand(), p.restoreCommand(),
			p.completionCommand(), p.versionCommand(),
		},
	}
	for _, command := range app.Commands {
		settle(command, app.Name)
	}
	return app
}

// settle gives a command and those below it the same manners. above is what is written before its name.
func settle(command *cli.Command, above string) {
	command.OnUsageError = usageFailed
	command.HideHelpCommand = true
	name := above + " " + command.Name
	for _, sub := range command.Subcommands {
		settle(sub, name)
	}
	switch {
	case len(command.Subcommands) > 0:
		command.UsageText = name + " COMMAND [flags] [arguments]"
	case len(command.Flags) > 0:
		command.UsageText = strings.TrimSpace(name + " [flags] " + command.ArgsUsage)
	default:
		command.UsageText = strings.TrimSpace(name + " " + command.ArgsUsage)
	}
	if len(command.Subcommands) > 0 {
		command.Action = unknownCommand
	}
}

func usageFailed(_ *cli.Context, err error, _ bool) error { return misuse("%v", err) }

// unknownCommand runs where a command should have been named.
func unknownCommand(c *cli.Context) error {
	var names []string
	for _, command := range c.Command.Subcommands {
		names = append(names, command.Name)
	}
	if c.Args().Len() == 0 {
		return misuse("%s: name one of %s", c.Command.FullName(), strings.Join(names, ", "))
	}
	name := c.Args().First()
	if near := config.Nearest(name, names); near != "" {
		return misuse("there is no command %q; is %q meant?", name, near)
	}
	return misuse("there is no command %q; hooksidecar --help lists them", name)
}

// env returns a variable; an empty one is unset.
func (p *program) env(name string) string {
	for i := len(p.environ) - 1; i >= 0; i-- {
		if value, ok := strings.CutPrefix(p.environ[i], name+"="); ok {
			return value
		}
	}
	return ""
}

// isTerminal reports whether w shows up on a screen.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
