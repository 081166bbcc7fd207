package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A sidecar is one process of the product, with its default settings, in a
// directory of its own.
type sidecar struct {
	binary, dir string
	service     string
	base        int // app listener's port; peer and admin follow
	more        []string
	pprof       bool
	cmd         *exec.Cmd
	exited      chan struct{}
}

func (s *sidecar) appURL() string   { return fmt.Sprintf("http://127.0.0.1:%d", s.base) }
func (s *sidecar) peerURL() string  { return fmt.Sprintf("http://127.0.0.1:%d", s.base+1) }
func (s *sidecar) adminURL() string { return fmt.Sprintf("http://127.0.0.1:%d", s.base+2) }
func (s *sidecar) logPath() string  { return filepath.Join(s.dir, s.service+".log") }
func (s *sidecar) pid() int         { return s.cmd.Process.Pid }

// newSidecar makes the directory and finds free ports; it starts nothing.
func newSidecar(binary, parent, service string, more ...string) (*sidecar, error) {
	dir, err := os.MkdirTemp(parent, service+"-")
	if err != nil {
		return nil, err
	}
	base, err := freePorts(4)
	return &sidecar{binary: binary, dir: dir, service: service, base: base, more: more}, err
}

// start executes the binary and returns how long it took until /readyz first
// answered 200.
func (s *sidecar) start(ctx context.Context) (time.Duration, error) {
	log, err := os.OpenFile(s.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer log.Close() // the child has its own descriptor
	args := append([]string{"run", "--service", s.service, "--port-base", strconv.Itoa(s.base)}, s.more...)
	s.cmd = exec.Command(s.binary, args...)
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = s.dir, log, log
	s.cmd.SysProcAttr = dieWithUs()
	s.cmd.Env = s.environment()
	begun := time.Now()
	if err := s.cmd.Start(); err != nil {
		return 0, err
	}
	s.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		cmd.Wait() // how it ended is seen from its log
		close(exited)
	}(s.cmd, s.exited)
	if err := s.awaitReady(ctx, begun.Add(2*time.Minute)); err != nil {
		return 0, fmt.Errorf("%w\n%s", err, s.lastLog())
	}
	return time.Since(begun), nil
}

// environment is ours without settings of the product: what is measured is its defaults.
func (s *sidecar) environment() []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "HOOKSIDECAR_") })
	if s.pprof {
		env = append(env, "HOOKSIDECAR_ADMIN_PPROF=true")
	}
	return env
}

func (s *sidecar) awaitReady(ctx context.Context, until time.Time) error {
	ask := &http.Client{Timeout: 5 * time.Second}
	defer ask.CloseIdleConnections()
	for time.Now().Before(until) {
		if answer, err := ask.Get(s.adminURL() + "/readyz"); err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.exited:
			return fmt.Errorf("%s ended by itself", s.service)
		case <-time.After(2 * time.Millisecond):
		}
	}
	return fmt.Errorf("%s did not become ready", s.service)
}

// stop asks the process to end, and kills it if it does not within 20 s. It is
// a no-op where nothing runs.
func (s *sidecar) stop() error {
	if s.cmd == nil || s.cmd.Process == nil {
		return nil
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	select {
	case <-s.exited:
		return nil
	case <-time.After(20 * time.Second):
		return errors.Join(fmt.Errorf("%s did not stop within 20 s", s.service), s.kill())
	}
}

// kill ends the process as a crash would.
func (s *sidecar) kill() error {
	err := s.cmd.Process.Kill()
	<-s.exited
	return err
}

// lastLog returns the end of what the process wrote.
func (s *sidecar) lastLog() string {
	b, err := os.ReadFile(s.logPath())
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-2000):])
}

// freePorts returns the first of n successive ports that are free on both loopbacks.
func freePorts(n int) (int, error) {
	for range 100 {
		base := 20000 + rand.IntN(10000)
		if portsFree(base, n) {
			return base, nil
		}
	}
	return 0, errors.New("no free ports")
}

func portsFree(base, n int) bool {
	for port := base; port < base+n; port++ {
		ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			return false
		}
		ln.Close()
	}
	return true
}
