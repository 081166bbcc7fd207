package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// runDir is the directory of this test run: the binary, and a directory per test. TestMain makes and removes it.
var runDir string

// buildBinary builds hooksidecar, once per test run.
var buildBinary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(runDir, "hooksidecar")
	args := []string{"build", "-o", path}
	if raceEnabled {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "github.com/hooksidecar/hooksidecar/cmd/hooksidecar")...)
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

// binary returns the path of the built program.
func binary(t *testing.T) string {
	t.Helper()
	path, err := buildBinary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "hooksidecar-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	runDir = dir
	code := m.Run()
	if code == 0 {
		_ = os.RemoveAll(dir)
	} else { // the logs stay, the program and the ballast files go
		_ = os.Remove(filepath.Join(dir, "hooksidecar"))
		fmt.Fprintln(os.Stderr, "kept:", dir)
	}
	os.Exit(code)
}
