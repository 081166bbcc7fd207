package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A bench is one run over all rounds.
type bench struct {
	plan    plan
	results results
	binary  string
	dir     string // for everything that is written; removed at the end
	talk    io.Writer
	echo    *child
	sink    *sink
	runs    int64 // loads begun
	round   int   // from 1; 0 outside of rounds
}

// runPlan does everything. What was measured before an error is in the results.
func runPlan(ctx context.Context, p plan, talk io.Writer) (r results, err error) {
	root, err := moduleRoot(ctx)
	if err != nil {
		return results{}, err
	}
	parent := filepath.Join(root, "dist")
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return results{}, err
	}
	b := &bench{plan: p, talk: talk}
	if b.dir, err = os.MkdirTemp(parent, "bench-"); err != nil {
		return results{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if err := b.build(ctx, root); err != nil {
		return results{}, err
	}
	if b.echo, err = startEcho(); err != nil {
		return results{}, err
	}
	defer func() { err = errors.Join(err, b.echo.stop()) }()
	if b.sink, err = startSink(); err != nil {
		return results{}, err
	}
	defer func() { err = errors.Join(err, b.sink.close()) }()
	err = b.measure(ctx)
	return b.results, err
}

func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	mod := strings.TrimSpace(string(out))
	if filepath.Base(mod) != "go.mod" {
		return "", errors.New("run this inside the work tree")
	}
	return filepath.Dir(mod), nil
}

func (b *bench) build(ctx context.Context, root string) error {
	b.say("building")
	b.binary = filepath.Join(b.dir, "hooksidecar")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", b.binary, "./cmd/hooksidecar")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

func (b *bench) measure(ctx context.Context) error {
	for b.round = 1; b.round <= b.plan.rounds; b.round++ {
		if err := b.runRound(ctx); err != nil {
			return fmt.Errorf("round %d: %w", b.round, err)
		}
	}
	b.round = 0 // what follows is done once
	if b.plan.wants("g8") {
		if err := b.measureBacklog(ctx); err != nil {
			return fmt.Errorf("backlog: %w", err)
		}
	}
	total := b.sink.total()
	if total.Accepted > 0 {
		b.results.add(ratioLost, float64(total.Lost))
		b.results.add(ratioRepeated, float64(total.Repeated))
		b.results.add(ratioDisorder, float64(total.Disorder))
		b.results.note("%d events went through a pair", total.Accepted)
	}
	if total.Unasked > 0 {
		b.results.note("%d events arrived though their post was not answered 2xx", total.Unasked)
	}
	if n := b.sink.unmarked.Load(); n > 0 {
		b.results.note("%d requests at the sink held no event of this run", n)
	}
	return nil
}

// runRound takes the baselines and all that is compared with them, one after another.
func (b *bench) runRound(ctx context.Context) error {
	if b.plan.wants("g4") {
		took, err := syncTime(ctx, b.dir, b.plan.sync)
		if err != nil {
			return err
		}
		b.results.add(figSync, float64(took.Microseconds()))
		b.say("sync %v", took)
	}
	if b.plan.wants("g3") {
		if err := b.measureCommitter(ctx); err != nil {
			return err
		}
	}
	// Once on either side of what is compared with it: the machine drifts.
	before, err := b.measureEcho(ctx)
	if err != nil {
		return err
	}
	if err := b.measureAlone(ctx); err != nil {
		return err
	}
	if err := b.measurePair(ctx); err != nil {
		return err
	}
	after, err := b.measureEcho(ctx)
	if err != nil {
		return err
	}
	if b.plan.wants("g1", "g2") {
		b.results.add(figEcho, (before+after)/2)
	}
	b.addRatios()
	return nil
}

// addRatios relates what this round has measured to its baselines.
func (b *bench) addRatios() {
	over := func(ratio, value, base figure) {
		v, d := b.results.samples[value], b.results.samples[base]
		if len(v) == b.round && len(d) == b.round && d[b.round-1] > 0 {
			b.results.add(ratio, v[b.round-1]/d[b.round-1])
		}
	}
	over(ratioAlone, figAlone, figEcho)
	over(ratioPair, figPair, figEcho)
	over(ratioDelivered, figDelivered, figEcho)
	over(ratioBatchPair, figPairBatch, figCommitID)
	over(ratioBatchAlone, figAloneBatch, figCommitID)
	const msPerMicro = 1000
	for ratio, value := range map[figure]figure{ratioP50: figRateP50, ratioP99: figRateP99} {
		over(ratio, value, figSync)
		if s := b.results.samples[ratio]; len(s) == b.round {
			s[b.round-1] *= msPerMicro
		}
	}
}

func (b *bench) measureCommitter(ctx context.Context) error {
	for _, m := range []struct {
		figure figure
		withID bool
	}{{figCommitID, true}, {figCommitBare, false}} {
		rate, err := committerRate(ctx, b.dir, m.withID, b.plan.commit)
		if err != nil {
			return err
		}
		b.results.add(m.figure, rate)
		b.say("%s: %.0f", m.figure, rate)
	}
	return nil
}

// measureEcho returns requests per second, 0 where nothing is compared with them.
func (b *bench) measureEcho(ctx context.Context) (float64, error) {
	if !b.plan.wants("g1", "g2") {
		return 0, nil
	}
	ld := load{url: b.echo.url, conns: fastConns, batch: 1, events: maxLoadCount, lasting: b.plan.echo}
	s, err := ld.send(ctx, newLedger())
	if err != nil {
		return 0, err
	}
	b.say("echo %.0f/s", s.perSecond())
	return s.perSecond(), b.checkSent("echo", s)
}

// checkSent notes refusals, and fails where nothing was accepted at all.
func (b *bench) checkSent(what string, s sent) error {
	if s.accepted == 0 {
		return fmt.Errorf("%s: nothing was accepted: %s", what, s.refusal)
	}
	if s.refused > 0 {
		b.results.note("%s%s: %d posts were refused, the first with %s", b.inRound(), what, s.refused, s.refusal)
	}
	return nil
}

// newRun begins a load's ledger.
func (b *bench) newRun() (int64, *ledger) {
	b.runs++
	return b.runs, b.sink.begin(b.runs)
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.talk, "%s  %s%s\n", time.Now().Format(time.TimeOnly), b.inRound(), fmt.Sprintf(format, args...))
}

// inRound begins a line about the present round, if there is one.
func (b *bench) inRound() string {
	if b.round == 0 {
		return ""
	}
	return fmt.Sprintf("round %d: ", b.round)
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }
