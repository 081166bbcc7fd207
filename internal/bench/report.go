package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// A row is one line of the table of goals.
type row struct {
	goal, work string
	figure     figure
	must, aim  float64
	least      bool // must and aim are lower bounds, not upper ones
	digits     int  // after the point
}

func rows() []row {
	return []row{
		{"G1", "accepted/s, single posts, c = 64, no subscriber, over echo", ratioAlone, 0.35, 0.50, true, 2},
		{"G1", "the same with a subscriber", ratioPair, 0.35, 0.50, true, 2},
		{"G2", "delivered/s of a pair, c = 64, over echo", ratioDelivered, 0.22, 0.35, true, 2},
		{"G3", "accepted/s, batches of 100, no subscriber, over committer with id record", ratioBatchAlone, 0.6, 0.95, true, 2},
		{"G3", "the same with a subscriber", ratioBatchPair, 0.6, 0.95, true, 2},
		{"G4", "end to end at 1,000/s, p50, in syncs", ratioP50, 16, 8, false, 1},
		{"G4", "end to end at 1,000/s, p99, in syncs", ratioP99, 50, 25, false, 1},
		{"G5", "bytes written per payload byte, pair, c = 64", ratioWritten, 5, 3.5, false, 2},
		{"G6", "CPU s per 10,000 events, pair, at 1,000/s", ratioCPU, 11, 6, false, 1},
		{"G7", "own memory of an idle sidecar, MB", ratioIdle, 35, 25, false, 0},
		{"G7", "own memory of a pair at 1,000/s, MB, peak", ratioMemory, 110, 70, false, 0},
		{"G8", "ready after kill -9 with the backlog, s", ratioReady, 0.5, 0.2, false, 2},
		{"G12", "lost", ratioLost, 0, 0, false, 0},
		{"G12", "repeated", ratioRepeated, 0, 0, false, 0},
		{"G12", "out of order within a key", ratioDisorder, 0, 0, false, 0},
	}
}

// reached says how v compares with the bounds.
func (r row) reached(v float64) string {
	within := func(bound float64) bool { return r.least && v >= bound || !r.least && v <= bound }
	switch {
	case within(r.aim):
		return "goal"
	case within(r.must):
		return "must"
	}
	return "**below**"
}

// writeReport prints the tables in Markdown.
func writeReport(w io.Writer, p plan, r results) {
	fmt.Fprintf(w, "| # | work | must | goal | measured, median [min–max] | reached |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, row := range rows() {
		s := r.samples[row.figure]
		if len(s) == 0 {
			continue
		}
		work := row.work
		if row.figure == ratioReady {
			work = fmt.Sprintf("%s (%s events)", work, grouped(float64(p.backlog)))
		}
		fmt.Fprintf(w, "| %s | %s | %s %g | %s %g | %s | %s |\n", row.goal, work,
			row.sign(), row.must, row.sign(), row.aim, spread(s, row.digits), row.reached(s.median()))
	}
	fmt.Fprintf(w, "\n| absolute, this machine at that hour | median [min–max] |\n| --- | --- |\n")
	for _, f := range absolutes() {
		if s := r.samples[f]; len(s) > 0 {
			fmt.Fprintf(w, "| %s | %s |\n", f, spread(s, digitsFor(s.median())))
		}
	}
	for _, n := range r.notes {
		fmt.Fprintf(w, "\n- %s", n)
	}
	fmt.Fprintln(w)
}

func (r row) sign() string {
	if r.least {
		return "≥"
	}
	return "≤"
}

// spread prints the median, and the extremes if there are several values.
func spread(s sample, digits int) string {
	text := number(s.median(), digits)
	if len(s) > 1 {
		text += fmt.Sprintf(" [%s–%s]", number(slices.Min(s), digits), number(slices.Max(s), digits))
	}
	return text
}

func number(v float64, digits int) string {
	if v >= 10_000 {
		return grouped(v)
	}
	return fmt.Sprintf("%.*f", digits, v)
}

// grouped prints v without a fraction, its thousands apart.
func grouped(v float64) string {
	s := fmt.Sprintf("%.0f", v)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func digitsFor(v float64) int {
	switch {
	case v >= 100:
		return 0
	case v >= 10:
		return 1
	}
	return 2
}

// writeFacts prints what a reader needs to repeat the run.
func writeFacts(ctx context.Context, w io.Writer, args []string, began time.Time) {
	output := func(name string, args ...string) string {
		out, err := exec.CommandContext(ctx, name, args...).Output()
		if err != nil {
			return "unknown"
		}
		return strings.TrimSpace(string(out))
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		kernel = []byte("unknown")
	}
	command := strings.TrimSpace("go run ./internal/bench " + strings.Join(args, " "))
	tree := output("git", "describe", "--always", "--dirty")
	fmt.Fprintf(w, "`%s`, begun %s, took %s. %d cores (%s), Linux %s, %s, tree %s.\n\n", command,
		began.UTC().Format("2006-01-02 15:04 UTC"), time.Since(began).Round(time.Second), runtime.NumCPU(), cpuModel(),
		strings.TrimSpace(string(kernel)), runtime.Version(), tree)
}

func cpuModel() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}
