package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) > 0 && strings.HasPrefix(args[0], "baseline-") {
		return runRole(args[0], args[1:])
	}
	p, err := parsePlan(args, os.Stderr)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	began := time.Now()
	others, err := meetStrangers()
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, p.limit)
	defer cancel()
	r, err := runPlan(limited, p, os.Stderr)
	if share, shareErr := others.share(runtime.NumCPU()); shareErr == nil {
		r.note("other processes and the host used %.0f %% of the CPU meanwhile", share)
	}
	// What was measured is worth printing, whatever ended the run.
	writeFacts(ctx, os.Stdout, args, began)
	writeReport(os.Stdout, p, r)
	return err
}
