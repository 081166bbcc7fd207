package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// syncTime returns the median time of appending 1 KiB to a file in dir and
// making it durable: the unit of latencies.
func syncTime(ctx context.Context, dir string, lasting time.Duration) (time.Duration, error) {
	f, err := os.CreateTemp(dir, "sync-")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	block := newRenderer(0).text[:eventBytes]
	var took []time.Duration
	for begun := time.Now(); time.Since(begun) < lasting && ctx.Err() == nil; {
		at := time.Now()
		if _, err := f.Write(block); err != nil {
			return 0, err
		}
		if err := datasync(f); err != nil {
			return 0, err
		}
		took = append(took, time.Since(at))
	}
	slices.Sort(took)
	return quantile(took, 0.5), ctx.Err()
}

// The baselines run in processes of their own, as the sidecars do: this program
// executes itself with one of these as its first argument.
const (
	roleEcho      = "baseline-echo"
	roleCommitter = "baseline-committer"
)

// runRole does the work of a baseline process. It ends when stdin does.
func runRole(role string, args []string) error {
	switch role {
	case roleEcho:
		return echo(os.Stdin, os.Stdout)
	case roleCommitter:
		return commitFromArgs(args, os.Stdout)
	}
	return fmt.Errorf("no baseline %q", role)
}

// echo is what net/http costs alone: it reads each body and answers 202. It
// prints its URL and serves until alive ends.
func echo(alive io.Reader, out io.Writer) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			return // the connection is gone
		}
		w.WriteHeader(http.StatusAccepted)
	})}
	go func() {
		io.Copy(io.Discard, alive) // any end of it is the end
		server.Close()
	}()
	fmt.Fprintf(out, "http://%s\n", ln.Addr())
	if err := server.Serve(ln); err != http.ErrServerClosed {
		return err
	}
	return nil
}

// A child is a baseline process that lives until stop.
type child struct {
	cmd   *exec.Cmd
	alive io.Closer
	url   string
}

func startEcho() (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, roleEcho)
	cmd.Stderr, cmd.SysProcAttr = os.Stderr, dieWithUs()
	alive, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	c := &child{cmd: cmd, alive: alive, url: strings.TrimSpace(line)}
	if err != nil {
		c.stop()
		return nil, fmt.Errorf("echo server: %w", err)
	}
	return c, nil
}

func (c *child) stop() error {
	c.alive.Close()
	return c.cmd.Wait()
}

// committerRate returns the events a second that the store's committer makes
// durable for 64 writers, with a record of the id beside each event or without.
func committerRate(ctx context.Context, dir string, withID bool, lasting time.Duration) (float64, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	dir = filepath.Join(dir, "committer")
	defer os.RemoveAll(dir)
	cmd := exec.CommandContext(ctx, self, roleCommitter, dir, strconv.FormatBool(withID), lasting.String())
	cmd.Stderr, cmd.SysProcAttr = os.Stderr, dieWithUs()
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("committer baseline: %w", err)
	}
	return strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
}
