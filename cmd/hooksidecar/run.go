package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"runtime/debug"

	"github.com/VictoriaMetrics/metrics"
	"github.com/urfave/cli/v2"

	"github.com/hooksidecar/hooksidecar/internal/config"
	"github.com/hooksidecar/hooksidecar/sidecar"
)

// softMemoryBytes is when the garbage collector begins to try harder, unless GOMEMLIMIT says otherwise.
const softMemoryBytes = 256 << 20

func (p *program) runCommand() *cli.Command {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "config", Category: "Process", Usage: "`FILE` with settings [$HOOKSIDECAR_CONFIG] (default: ./" + config.DefaultFile + " if it is there)"},
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
			"      --subscribe 'order.*' --peer http://localhost:9902",
		Flags:  flags,
		Action: p.runSidecar,
	}
}

// settingFlag makes a flag that only collects text: config parses it, as it does what comes from elsewhere.
func settingFlag(s config.Setting) cli.Flag {
	usage := s.Help + " [$" + s.Env() + "]"
	if s.Default != "" && s.Default != "0" && s.Default != "false" {
		usage += " (default: " + s.Default + ")"
	}
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
	if p.env("GOMEMLIMIT") == "" && debug.SetMemoryLimit(-1) == math.MaxInt64 {
		debug.SetMemoryLimit(softMemoryBytes)
	}
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
	node, err := sidecar.New(c)
	if err != nil {
		return err
	}
	return node.Run(ctx)
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
			a.Value = slog.StringValue(a.Value.Duration().String())
		}
		return a
	}}
	if c.Format == "text" || c.Format == "auto" && isTerminal(w) {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}
