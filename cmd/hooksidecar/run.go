package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/urfave/cli/v2"

	"github.com/hooksidecar/hooksidecar/internal/config"
	"github.com/hooksidecar/hooksidecar/sidecar"
)

func (p *program) runCommand() *cli.Command {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "config", Category: "Process", Usage: "`FILE` with settings (default: ./" + config.DefaultFile + " if it is there) [$HOOKSIDECAR_CONFIG]"},
		&cli.StringFlag{Name: "accept-loss", Category: "Store", Usage: "go on with what is left of a damaged store; its `ID` is in the message about the damage"},
	}
	for _, s := range config.Settings() {
		flags = append(flags, settingFlag(s))
	}
	return &cli.Command{
		Name:  "run",
		Usage: "run the sidecar of a service",
		Description: "Every flag is also a setting of the file and of the environment; flags win over environment, environment\n" +
			"over file. The app posts events to http://localhost:9901/outbox.\n\n" +
			"  hooksidecar run --service order-service\n" +
			"  hooksidecar run --service payment-service --port-base 9911 --app-url http://localhost:8080 \\\n" +
			"      --subscribe 'order.*' --peer http://localhost:9902\n\n" +
			"It stops on SIGTERM or SIGINT; a second one ends it at once, which loses nothing that was acknowledged. It ends with\n" +
			"0 stopped, 2 misuse, 65 store damaged, 74 I/O fault, 75 store or port in use (try again), 78 configuration.",
		Flags:              flags,
		CustomHelpTemplate: runHelp(flags),
		Action:             p.runSidecar,
	}
}

// runHelp is the library's help with the flags in our order: what one needs first comes first.
func runHelp(flags []cli.Flag) string {
	head, _, _ := strings.Cut(cli.CommandHelpTemplate, "{{if .VisibleFlagCategories}}")
	var b strings.Builder
	b.WriteString(head + "\n\nOPTIONS:\n")
	for _, category := range []string{"Service", "App", "Listeners", "Peers", "Retry", "Store", "Process"} {
		fmt.Fprintf(&b, "   %s\n\n", category)
		for _, flag := range flags {
			if in, ok := flag.(cli.CategorizableFlag); ok && in.GetCategory() == category {
				text := flag.(cli.DocGenerationFlag).GetUsage()
				name := "--" + flag.Names()[0]
				if parts := strings.SplitN(text, "`", 3); len(parts) == 3 {
					name, text = name+" "+parts[1], strings.Join(parts, "")
				}
				fmt.Fprintf(&b, "   %s\t%s\n", name, text)
			}
		}
		b.WriteByte('\n')
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// settingFlag makes a flag that only collects text: config parses it, as it does what comes from elsewhere.
func settingFlag(s config.Setting) cli.Flag {
	usage := s.Help
	if s.Default != "" && s.Default != "0" && s.Default != "false" {
		usage += " (default: " + s.Default + ")"
	}
	usage += " [$" + s.Env() + "]"
	switch {
	case s.Repeatable():
		return &cli.StringSliceFlag{Name: s.Flag, Usage: usage, Category: s.Category}
	case s.Switch():
		return &cli.BoolFlag{Name: s.Flag, Usage: usage, Category: s.Category}
	}
	return &cli.StringFlag{Name: s.Flag, Usage: usage, Category: s.Category}
}

func (p *program) runSidecar(c *cli.Context) error {
	if _, err := arguments(c, 0, 0); err != nil {
		return err
	}
	given, err := givenSettings(c)
	if err != nil {
		return err
	}
	loaded, err := config.Load(config.Source{File: c.String("config"), Environ: p.environ, Flags: given})
	if err != nil {
		return runFailed(fmt.Errorf("the configuration cannot be used:\n%w", err))
	}
	metrics.ExposeMetadata(true) // of the process, so only here
	log := newLogger(p.stderr, loaded.Config.Log)
	for _, warning := range loaded.Warnings {
		log.Warn(warning)
	}
	return runFailed(p.serve(c.Context, sidecar.Config{
		Settings:   loaded.Config,
		AcceptLoss: c.String("accept-loss"),
		Version:    buildVersion(),
		Log:        log,
	}))
}

// serve runs a node until ctx ends or the node fails.
func (p *program) serve(ctx context.Context, c sidecar.Config) error {
	signal.Ignore(syscall.SIGPIPE, syscall.SIGXFSZ) // who reads the log may go away; a file that may not grow is an error like others
	var background sync.WaitGroup
	defer background.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	background.Go(func() { tellHangups(ctx, hangup, c.Log) })
	background.Go(func() { keepMemorySmall(ctx, p.env) })
	node, err := sidecar.New(c)
	if err != nil {
		return err
	}
	return node.Run(ctx)
}

// tellHangups answers a SIGHUP, which would end a process that does not listen for it.
func tellHangups(ctx context.Context, hangup <-chan os.Signal, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
			log.Warn("nothing is reloaded on SIGHUP in this version; restart the sidecar to have it read its settings again")
		}
	}
}

// givenSettings returns the values of the flags that were given, by setting.
func givenSettings(c *cli.Context) (map[string][]string, error) {
	given := map[string][]string{}
	for _, s := range config.Settings() {
		if !c.IsSet(s.Flag) {
			continue
		}
		switch {
		case s.Repeatable():
			given[s.Name] = c.StringSlice(s.Flag)
		case s.Switch():
			given[s.Name] = []string{map[bool]string{true: "true", false: "false"}[c.Bool(s.Flag)]}
		default:
			given[s.Name] = []string{c.String(s.Flag)}
		}
		for _, v := range given[s.Name] {
			if v == "" {
				return nil, misuse("--%s needs a value", s.Flag)
			}
		}
	}
	if c.IsSet("config") && c.String("config") == "" {
		return nil, misuse("--config needs a value")
	}
	return given, nil
}

// newLogger writes text for people and JSON for machines.
func newLogger(w io.Writer, c config.Log) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelInfo // config has checked it
	}
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Value.Kind() == slog.KindDuration { // as text says it; JSON would count nanoseconds
			a.Value = slog.StringValue(roughly(a.Value.Duration()).String())
		}
		return a
	}}
	if c.Format == "text" || c.Format == "auto" && isTerminal(w) {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

// roughly leaves out of d what nobody reads: 24.140795ms becomes 24.1ms.
func roughly(d time.Duration) time.Duration {
	if d.Abs() < time.Microsecond {
		return d
	}
	for unit := time.Microsecond; unit < time.Second; unit *= 10 {
		if d.Abs() < 1000*unit {
			return d.Round(unit)
		}
	}
	return d.Round(time.Second)
}
