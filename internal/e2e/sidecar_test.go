package e2e

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// canary stands in the data of events and must never be seen in a log.
const canary = "canary-4711-do-not-log"

// settings are what a test decides about one sidecar. The zero value is a publisher without peers.
type settings struct {
	service   string   // required
	instance  string   // "": made by the sidecar
	subscribe []string // --subscribe
	appURL    string   // "": publish only
	secret    string   // whsec_…, for the hop to the app; "": none
	flags     []string // more flags
}

// A sidecar is one hooksidecar process that may be stopped, killed and started again on the same directory and ports.
type sidecar struct {
	t        *testing.T
	bin      string
	settings settings
	dir      string // home: key, log, and configuration file
	data     string // directory of the store, in dir
	app      string // host:port of the app listener
	peer     string
	admin    string
	peers    []*sidecar // static peers, set before start
	extraURL []string   // more --peer URLs
	minFree  string     // "": little, so that many stores fit on one disk

	cmd    *exec.Cmd
	ended  chan struct{} // closed when the process has ended
	starts int
	probes []posted // what acquainted posted
}

// newSidecar prepares a sidecar; start runs it. It is killed when the test ends.
func newSidecar(t *testing.T, s settings) *sidecar {
	t.Helper()
	name := s.service + s.instance
	dir, err := os.MkdirTemp(runDir, strings.ReplaceAll(t.Name(), "/", "_")+"-"+name+"-")
	if err != nil {
		t.Fatal(err)
	}
	sc := &sidecar{t: t, bin: binary(t), settings: s, dir: dir, data: filepath.Join(dir, "data"),
		app: freeAddress(t), peer: freeAddress(t), admin: freeAddress(t)}
	t.Cleanup(sc.finish)
	return sc
}

// know makes sidecars static peers of each other.
func know(sidecars ...*sidecar) {
	for _, a := range sidecars {
		for _, b := range sidecars {
			if a != b {
				a.peers = append(a.peers, b)
			}
		}
	}
}

func (s *sidecar) dataDir() string { return s.data }
func (s *sidecar) keyFile() string { return filepath.Join(s.dir, s.settings.service+".key") }
func (s *sidecar) logFile() string { return filepath.Join(s.dir, "log") }
func (s *sidecar) appURL() string  { return "http://" + s.app }
func (s *sidecar) peerURL() string { return "http://" + s.peer }

// args is the command line of run.
func (s *sidecar) args() []string {
	args := []string{"run", "--service", s.settings.service, "--data-dir", s.dataDir(), "--keys-signing", s.keyFile(),
		"--app-listen", s.app, "--peer-listen", s.peer, "--admin-listen", s.admin}
	args = append(args, "--store-ballast-bytes", "4MiB", "--store-min-free-bytes", cmp.Or(s.minFree, "64MiB"))
	if s.settings.instance != "" {
		args = append(args, "--instance", s.settings.instance)
	}
	if s.settings.appURL != "" {
		args = append(args, "--app-url", s.settings.appURL)
	}
	for _, pattern := range s.settings.subscribe {
		args = append(args, "--subscribe", pattern)
	}
	for _, p := range s.peers {
		args = append(args, "--peer", p.peerURL())
	}
	for _, u := range s.extraURL {
		args = append(args, "--peer", u)
	}
	return append(args, s.settings.flags...)
}

// env is the environment of the process: nothing of the caller's HOOKSIDECAR_ settings.
func (s *sidecar) env() []string {
	env := cleanEnv()
	if s.settings.secret != "" {
		env = append(env, "HOOKSIDECAR_APP_SECRET="+s.settings.secret)
	}
	return env
}

func cleanEnv() []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "HOOKSIDECAR_") {
			env = append(env, e)
		}
	}
	return append(env, "GORACE=exitcode=66")
}

// launch starts the process and does not wait until it serves.
func (s *sidecar) launch() {
	s.t.Helper()
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	s.starts++
	fmt.Fprintf(log, "=== start %d\n", s.starts)
	cmd := exec.Command(s.bin, s.args()...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.dir, s.env(), log, log
	if err := startChild(cmd); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan struct{})
	s.cmd, s.ended = cmd, ended
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
}

// start runs the process and waits until it says that it is ready.
func (s *sidecar) start() *sidecar {
	s.t.Helper()
	s.launch()
	s.ready()
	return s
}

// ready waits until the process says that it is ready.
func (s *sidecar) ready() {
	s.t.Helper()
	eventually(s.t, 15*time.Second, s.settings.service+" is ready", func() error {
		select {
		case <-s.ended:
			s.t.Fatalf("%s ended with exit code %d\n%s", s.settings.service, s.cmd.ProcessState.ExitCode(), s.lastLog())
		default:
		}
		return s.getReady()
	})
}

func (s *sidecar) getReady() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.admin+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("readyz answers %s", resp.Status)
	}
	return nil
}

// exit waits for the end of the process and returns its exit code, -1 for death by a signal.
func (s *sidecar) exit(within time.Duration) int {
	s.t.Helper()
	select {
	case <-s.ended:
		return s.cmd.ProcessState.ExitCode()
	case <-time.After(slowdown(within)):
		_ = s.cmd.Process.Signal(syscall.SIGQUIT) // its goroutines go to the log
		<-s.ended
		s.t.Fatalf("%s still ran after %v", s.settings.service, slowdown(within))
		return 0
	}
}

// kill ends the process at once, as a power cut would end it, but for what the kernel keeps.
func (s *sidecar) kill() {
	s.t.Helper()
	s.signal(syscall.SIGKILL)
	<-s.ended
}

// stop asks the process to end and checks that it ends cleanly.
func (s *sidecar) stop() {
	s.t.Helper()
	s.signal(syscall.SIGTERM)
	if code := s.exit(20 * time.Second); code != 0 {
		s.t.Errorf("%s ended with exit code %d after SIGTERM, want 0\n%s", s.settings.service, code, s.lastLog())
	}
}

// freeze stops the process where it is; thaw lets it go on.
func (s *sidecar) freeze() { s.signal(syscall.SIGSTOP) }
func (s *sidecar) thaw()   { s.signal(syscall.SIGCONT) }

func (s *sidecar) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatalf("signal %v to %s: %v\n%s", sig, s.settings.service, err, s.lastLog())
	}
}

// alive fails the test if the process has ended.
func (s *sidecar) alive() {
	s.t.Helper()
	select {
	case <-s.ended:
		s.t.Fatalf("%s ended with exit code %d\n%s", s.settings.service, s.cmd.ProcessState.ExitCode(), s.lastLog())
	default:
	}
}

// finish ends what still runs, reads the log for what no run may write, and removes the directory of a test that passed.
func (s *sidecar) finish() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		<-s.ended
	}
	s.checkLog()
	if s.t.Failed() {
		s.t.Logf("%s: log in %s; its end:\n%s", s.settings.service, s.logFile(), s.lastLog())
		removeBallast(s.dir)
		return
	}
	_ = os.RemoveAll(s.dir)
}

// checkLog looks for races, panics, secrets and event data.
func (s *sidecar) checkLog() {
	log, err := os.ReadFile(s.logFile())
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		s.t.Error(err)
	}
	never := []string{"DATA RACE", "panic:", "fatal error:", "whsk_", "whsec_", canary}
	for _, word := range never {
		if at := bytes.Index(log, []byte(word)); at >= 0 {
			s.t.Errorf("the log of %s has %q:\n%s", s.settings.service, word, log[max(0, at-300):min(len(log), at+3000)])
		}
	}
}

// lastLog is the end of the log.
func (s *sidecar) lastLog() string {
	log, err := os.ReadFile(s.logFile())
	if err != nil {
		return err.Error()
	}
	return string(log[max(0, len(log)-4000):])
}

func removeBallast(dir string) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "BALLAST" {
			_ = os.Remove(path)
		}
		return nil
	})
}

// result is what a command printed and how it ended.
type result struct {
	stdout, stderr string
	code           int
}

func (r result) String() string {
	return fmt.Sprintf("exit code %d\nstdout: %s\nstderr: %s", r.code, r.stdout, r.stderr)
}

// command runs the program to its end; with a sidecar's admin address in its environment.
func (s *sidecar) command(args ...string) result {
	s.t.Helper()
	return runCommand(s.t, s.bin, s.dir, append(cleanEnv(), "HOOKSIDECAR_ADMIN=http://"+s.admin), args...)
}

func runCommand(t *testing.T, bin, dir string, env []string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), slowdown(30*time.Second))
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env, &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("hooksidecar %s: %v", strings.Join(args, " "), err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}
