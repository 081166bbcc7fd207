// Command hooksidecar is the sidecar and what operates it.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() { os.Exit(realMain()) }

// realMain runs one command. The first signal asks it to stop, a second one ends the process at once: what was acknowledged
// is on disk either way.
func realMain() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	p := &program{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, environ: os.Environ()}
	return p.run(ctx, os.Args[1:])
}

// A program is what a command has of the world.
type program struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	environ        []string
}
