package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A sidecarProcess is this test binary as the real program.
type sidecarProcess struct {
	*exec.Cmd
	t      *testing.T
	dir    string
	base   int
	stderr *bufio.Reader
	pipe   io.ReadCloser
	ended  chan error
}

// runProcess starts "hooksidecar run" on free ports and waits until it publishes. Its data is in dir.
func runProcess(t *testing.T, dir string, wrap ...string) *sidecarProcess {
	t.Helper()
	base, err := freePorts()
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"hooksidecar", "run", "--service", "order", "--port-base", fmt.Sprint(base), "--data-dir", filepath.Join(dir, "data"),
		"--keys-signing", filepath.Join(dir, "order.key"), "--store-unsafe-fs", "--store-ballast-bytes", "1 MiB", "--store-min-free-bytes", "1 MiB"}
	p := &sidecarProcess{Cmd: &exec.Cmd{Path: self, Args: args, Dir: dir}, t: t, dir: dir, base: base, ended: make(chan error, 1)}
	if len(wrap) > 0 { // a shell: the program's name must be a path to it that ends in hooksidecar
		link := filepath.Join(t.TempDir(), "hooksidecar")
		if err := os.Symlink(self, link); err != nil {
			t.Fatal(err)
		}
		p.Cmd = exec.Command(wrap[0], append(append(wrap[1:], link), args[1:]...)...)
	} else {
		if p.pipe, err = p.StderrPipe(); err != nil {
			t.Fatal(err)
		}
		p.stderr = bufio.NewReader(p.pipe)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Process.Kill() })
	if p.stderr != nil {
		p.waitFor(`"msg":"running"`)
	} else {
		go func() { p.ended <- p.Wait() }()
	}
	for end := time.Now().Add(10 * time.Second); !p.alive(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the sidecar does not answer")
		}
	}
	return p
}

// waitFor reads the log up to a line that contains text.
func (p *sidecarProcess) waitFor(text string) {
	p.t.Helper()
	for {
		line, err := p.stderr.ReadString('\n')
		if strings.Contains(line, text) {
			return
		}
		if err != nil {
			p.t.Fatalf("the log ends without %q: %v", text, err)
		}
	}
}

func (p *sidecarProcess) alive() bool {
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/healthz", p.base+2))
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func (p *sidecarProcess) publish(id string) int {
	resp, err := http.Post(fmt.Sprintf("http://127.0.0.1:%d/outbox", p.base), "application/json", strings.NewReader(`{"id":"`+id+`","type":"order.created","data":1}`))
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

// exit returns how the process ended, within limit.
func (p *sidecarProcess) exit(limit time.Duration) syscall.WaitStatus {
	p.t.Helper()
	if p.stderr != nil {
		go func() {
			_, _ = io.Copy(io.Discard, p.stderr)
			p.ended <- p.Wait()
		}()
	}
	select {
	case <-p.ended:
		return p.ProcessState.Sys().(syscall.WaitStatus)
	case <-time.After(limit):
		p.t.Fatalf("still there after %v", limit)
	}
	panic("unreachable")
}

func (p *sidecarProcess) signal(s os.Signal) {
	p.t.Helper()
	if err := p.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	p := runProcess(t, t.TempDir())
	if got := p.publish("evt_1"); got != 202 {
		t.Fatalf("publish: %d", got)
	}
	c, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", p.base)) // a request that does not end holds stopping up
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "POST /outbox HTTP/1.1\r\nHost: localhost:%d\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{", p.base)
	time.Sleep(50 * time.Millisecond) // until it is read
	p.signal(syscall.SIGTERM)
	p.waitFor(`"msg":"stopping"`)
	time.Sleep(100 * time.Millisecond)
	p.signal(syscall.SIGTERM)
	if status := p.exit(2 * time.Second); !status.Signaled() || status.Signal() != syscall.SIGTERM {
		t.Errorf("ended with %v, want by the signal", status)
	}
	again := runProcess(t, p.dir)
	if got := again.publish("evt_1"); got != 200 {
		t.Errorf("what was acknowledged before is answered %d, want 200: a duplicate", got)
	}
	again.signal(syscall.SIGTERM)
	if status := again.exit(5 * time.Second); status.ExitStatus() != exitDone {
		t.Errorf("ended with %v, want 0", status)
	}
}

func TestSignalsThatDoNotEndIt(t *testing.T) {
	p := runProcess(t, t.TempDir())
	p.signal(syscall.SIGHUP)
	p.waitFor("nothing is reloaded on SIGHUP")
	p.signal(syscall.SIGWINCH)
	p.signal(syscall.SIGPIPE)
	if err := p.pipe.Close(); err != nil { // nobody reads the log any more
		t.Fatal(err)
	}
	p.signal(syscall.SIGHUP) // something to log
	time.Sleep(100 * time.Millisecond)
	if got := p.publish("evt_1"); !p.alive() || got != 202 {
		t.Errorf("alive %t, publish %d", p.alive(), got)
	}
	p.signal(syscall.SIGTERM)
	p.stderr = bufio.NewReader(strings.NewReader(""))
	if status := p.exit(5 * time.Second); status.ExitStatus() != exitDone {
		t.Errorf("ended with %v, want 0", status)
	}
}

// TestRunsWithoutStandardFiles: no file of the store may get one of their numbers, or logs would be written into it.
func TestRunsWithoutStandardFiles(t *testing.T) {
	dir := t.TempDir()
	p := runProcess(t, dir, "/bin/sh", "-c", `exec env -i "$@" <&- >&- 2>&-`, "sh")
	p.signal(syscall.SIGHUP)
	if got := p.publish("evt_1"); got != 202 {
		t.Errorf("publish: %d", got)
	}
	p.signal(syscall.SIGTERM)
	if status := p.exit(5 * time.Second); status.ExitStatus() != exitDone {
		t.Errorf("ended with %v, want 0", status)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	verify := &exec.Cmd{Path: self, Args: []string{"hooksidecar", "verify", "--data-dir", filepath.Join(dir, "data")}}
	if out, err := verify.CombinedOutput(); err != nil || !strings.Contains(string(out), "sound") {
		t.Errorf("verify: %s %v", out, err)
	}
}

// TestFencedStoreEndsRun: the first sync that fails ends the process with 74, and nothing is acknowledged after it.
func TestFencedStoreEndsRun(t *testing.T) {
	mount, arm := faulty(t)
	p := runProcess(t, mount)
	if got := p.publish("evt_1"); got != 202 {
		t.Fatalf("publish: %d", got)
	}
	arm()
	if got := p.publish("evt_2"); got/100 == 2 {
		t.Errorf("an event that could not be synced is answered %d", got)
	}
	if status := p.exit(10 * time.Second); status.ExitStatus() != exitFault {
		t.Errorf("ended with %v, want %d", status, exitFault)
	}
}
