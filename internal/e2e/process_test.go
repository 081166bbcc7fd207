package e2e

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestSecondSidecarOnOneDirectory: the second exits with 75 and names the first, which goes on.
func TestSecondSidecarOnOneDirectory(t *testing.T) {
	t.Parallel()
	first := newSidecar(t, settings{service: "order-service"}).start()
	second := newSidecar(t, settings{service: "order-service"})
	second.data = first.dataDir()
	second.launch()
	if code := second.exit(10 * time.Second); code != 75 {
		t.Errorf("exit code %d, want 75\n%s", code, second.lastLog())
	}
	if pid := strconv.Itoa(first.cmd.Process.Pid); !strings.Contains(second.lastLog(), pid) {
		t.Errorf("it does not name process %s:\n%s", pid, second.lastLog())
	}
	newProducer(t, first).mustPublish(envelope{ID: "still-there", Type: "order.created", Data: json.RawMessage(`{}`)})
	first.stop()
}

// TestTakenPort: each listener whose port is taken ends the process with 75, and is named.
func TestTakenPort(t *testing.T) {
	t.Parallel()
	for _, listener := range []string{"app", "peer", "admin"} {
		s := newSidecar(t, settings{service: "order-service"})
		taken := map[string]string{"app": s.app, "peer": s.peer, "admin": s.admin}[listener]
		l, err := net.Listen("tcp", taken)
		if err != nil {
			t.Fatal(err)
		}
		s.launch()
		if code := s.exit(10 * time.Second); code != 75 {
			t.Errorf("%s port taken: exit code %d, want 75\n%s", listener, code, s.lastLog())
		}
		_, port, _ := net.SplitHostPort(taken)
		if log := s.lastLog(); !strings.Contains(log, port) || !strings.Contains(log, listener) {
			t.Errorf("%s port %s taken: it does not say so:\n%s", listener, port, log)
		}
		_ = l.Close()
		s.start().stop()
	}
}

// TestDamagedDirectory damages a store between two runs, in several ways: the next start exits with 65 and keeps the evidence.
func TestDamagedDirectory(t *testing.T) {
	t.Parallel()
	damages := map[string]func(t *testing.T, data string){
		"a bit of the log": func(t *testing.T, data string) { flipBit(t, largest(t, data, "*.mem"), 0.1) },
		"no log":           func(t *testing.T, data string) { remove(t, data, "*.mem") },
		"no manifest":      func(t *testing.T, data string) { remove(t, data, "MANIFEST") },
		"no database":      func(t *testing.T, data string) { removeAll(t, filepath.Join(data, "badger")) },
		"no identity":      func(t *testing.T, data string) { remove(t, data, "STORE") },
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			s := newSidecar(t, settings{service: "order-service"}).start()
			p := newProducer(t, s)
			publishSome(p, "kept", 40)
			published := time.Now()
			eventually(t, 5*time.Second, "the watermark is written", func() error { // it may be a second behind
				info, err := os.Stat(filepath.Join(s.dataDir(), "WATERMARK"))
				if err == nil && info.ModTime().Before(published) {
					err = errors.New("it is older than the last event")
				}
				return err
			})
			s.kill()
			damage(t, s.dataDir())
			s.launch()
			if code := s.exit(15 * time.Second); code != 65 {
				t.Fatalf("exit code %d, want 65\n%s", code, s.lastLog())
			}
			s.launch() // it says so again, and has not "repaired" anything
			if code := s.exit(15 * time.Second); code != 65 {
				t.Fatalf("at the second start exit code %d, want 65\n%s", code, s.lastLog())
			}
		})
	}
}

// largest finds the largest file of a name pattern in badger's directory or beside it.
func largest(t *testing.T, data, pattern string) string {
	t.Helper()
	best, size := "", int64(-1)
	for _, dir := range []string{data, filepath.Join(data, "badger")} {
		names, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			info, err := os.Stat(name)
			if err != nil {
				t.Fatal(err)
			}
			if info.Size() > size {
				best, size = name, info.Size()
			}
		}
	}
	if best == "" {
		t.Fatalf("no %s in %s", pattern, data)
	}
	return best
}

func remove(t *testing.T, data, pattern string) {
	t.Helper()
	if err := os.Remove(largest(t, data, pattern)); err != nil {
		t.Fatal(err)
	}
}

func removeAll(t *testing.T, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
}

// flipBit changes one bit, at a share of the bytes of a file that are in use.
func flipBit(t *testing.T, path string, share float64) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	used := len(b)
	for used > 0 && b[used-1] == 0 {
		used--
	}
	b[int(float64(used)*share)] ^= 0x10
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestConfigurationErrors: a setting that does not exist ends the process with 78, naming the line and what was meant.
func TestConfigurationErrors(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		file string
		want []string
	}{
		"unknown setting":    {"outbox:\n  retention: 7d\nretry:\n  max_atempts: 3\n", []string{"hooksidecar.yaml:4", "max_atempts", "max_attempts"}},
		"unknown section":    {"retrys:\n  initial: 1s\n", []string{"hooksidecar.yaml:1", "retrys", "retry"}},
		"not a duration":     {"retry:\n  initial: soon\n", []string{"hooksidecar.yaml:2", "retry.initial", "soon"}},
		"not YAML":           {"retry: [\n", []string{"hooksidecar.yaml"}},
		"set twice":          {"retry:\n  initial: 1s\n  initial: 2s\n", []string{"hooksidecar.yaml", "initial"}},
		"a bad type pattern": {"app:\n  url: http://127.0.0.1:1\n  subscriptions:\n    - types: [\"order..x\"]\n", []string{"order..x"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newSidecar(t, settings{service: "order-service"})
			writeConfig(t, s, tt.file)
			s.launch()
			if code := s.exit(10 * time.Second); code != 78 {
				t.Errorf("exit code %d, want 78\n%s", code, s.lastLog())
			}
			for _, word := range tt.want {
				if !strings.Contains(s.lastLog(), word) {
					t.Errorf("it does not say %q:\n%s", word, s.lastLog())
				}
			}
			if _, err := os.Stat(s.dataDir()); err == nil {
				t.Error("it made a store before it read its configuration")
			}
		})
	}
}

// TestMisuse: commands that cannot be understood exit with 2, a sidecar that is not there is 4.
func TestMisuse(t *testing.T) {
	t.Parallel()
	s := newSidecar(t, settings{service: "order-service"})
	for _, tt := range []struct {
		args []string
		code int
	}{
		{[]string{"run", "--no-such-flag"}, 2},
		{[]string{"no-such-command"}, 2},
		{[]string{"dlq", "show"}, 2},
		{[]string{"status", "-o", "xml"}, 2},
		{[]string{"status"}, 4},
		{[]string{"dlq", "list", "-o", "json"}, 4},
		{[]string{"version"}, 0},
		{[]string{"--help"}, 0},
	} {
		r := s.command(tt.args...)
		if r.code != tt.code {
			t.Errorf("hooksidecar %s: %v; want exit code %d", strings.Join(tt.args, " "), r, tt.code)
		}
		if r.code != 0 && r.stderr == "" {
			t.Errorf("hooksidecar %s ends with %d and says nothing", strings.Join(tt.args, " "), r.code)
		}
	}
}
