package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// A plan says what to measure and for how long.
type plan struct {
	rounds     int
	goals      []string // which to measure, as g1; sorted
	profileDir string   // where CPU profiles of the first round go; "": none

	limit    time.Duration // of the whole run
	sync     time.Duration // appending and syncing
	echo     time.Duration
	commit   time.Duration
	settling time.Duration // idle time before an idle sidecar is measured
	warm     time.Duration // at the fixed rate, before it is measured
	rate     time.Duration // at the fixed rate
	single   time.Duration // single posts, as fast as they go
	batch    time.Duration // batches, as fast as they go
	backlog  int64         // events behind the sidecar that is killed
	kills    int
}

const (
	fixedRate    = 1000 // events/s
	fastConns    = 64
	rateConns    = 16
	batchConns   = 4
	batchEvents  = 100
	maxLoadCount = 4_000_000 // events of one closed loop
)

// knownGoals are in the order of the report.
func knownGoals() []string { return []string{"g1", "g2", "g3", "g4", "g5", "g6", "g7", "g8", "g12"} }

func fullPlan() plan {
	return plan{
		rounds: 3, limit: 15 * time.Minute,
		sync: time.Second, echo: 2 * time.Second, commit: 3 * time.Second,
		settling: 3 * time.Second, warm: 2 * time.Second, rate: 20 * time.Second,
		single: 5 * time.Second, batch: 4 * time.Second,
		backlog: 1_000_000, kills: 3,
	}
}

func quickPlan() plan {
	return plan{
		rounds: 1, limit: 4 * time.Minute,
		sync: 500 * time.Millisecond, echo: time.Second, commit: time.Second,
		settling: 2 * time.Second, warm: time.Second, rate: 5 * time.Second,
		single: 2 * time.Second, batch: time.Second,
		backlog: 100_000, kills: 1,
	}
}

// parsePlan reads the command line; usage goes to out.
func parsePlan(args []string, out io.Writer) (plan, error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(out)
	var (
		rounds  = flags.Int("rounds", 0, "interleaved rounds, 1 to 20 (default 3, with -quick 1)")
		quick   = flags.Bool("quick", false, "one short round and a tenth of the backlog: shows breakage, not figures to quote")
		only    = flags.String("only", "", "goals to measure, as g1,g2 (default all)")
		profile = flags.String("profile", "", "directory for CPU profiles of the sidecars, taken in the first round")
	)
	if err := flags.Parse(args); err != nil {
		return plan{}, err
	}
	if flags.NArg() > 0 {
		return plan{}, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	p := fullPlan()
	if *quick {
		p = quickPlan()
	}
	if *rounds < 0 || *rounds > 20 {
		return plan{}, errors.New("-rounds: want 1 to 20")
	}
	if *rounds > 0 {
		p.limit = p.limit * time.Duration(max(*rounds, p.rounds)) / time.Duration(p.rounds)
		p.rounds = *rounds
	}
	p.profileDir = *profile
	p.goals = knownGoals()
	if *only != "" {
		p.goals = strings.Split(strings.ToLower(*only), ",")
	}
	for _, g := range p.goals {
		if !slices.Contains(knownGoals(), g) {
			return plan{}, fmt.Errorf("-only: no goal %q; there are %s", g, strings.Join(knownGoals(), ", "))
		}
	}
	return p, nil
}

// wants reports whether any of the goals is to be measured.
func (p plan) wants(goals ...string) bool {
	return slices.ContainsFunc(goals, func(g string) bool { return slices.Contains(p.goals, g) })
}
