package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"hooksidecar": func() { os.Exit(realMain()) }})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:   "testdata/script",
		Setup: setPorts,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code":       codeIs,
			"eventually": eventually,
			"onefield":   oneField,
			"mode":       modeIs,
		},
	})
}

// setPorts gives a script ports for two sidecars and an app, and small stores.
func setPorts(env *testscript.Env) error {
	for _, name := range []string{"ORDER", "PAYMENT", "STUB"} {
		base, err := freePorts()
		if err != nil {
			return err
		}
		env.Setenv(name, strconv.Itoa(base))
		env.Setenv(name+"_APP", fmt.Sprint("http://localhost:", base))
		env.Setenv(name+"_PEER", fmt.Sprint("http://localhost:", base+1))
		env.Setenv(name+"_ADMIN", fmt.Sprint("http://localhost:", base+2))
	}
	env.Setenv("HOOKSIDECAR_STORE_BALLAST_BYTES", "1 MiB")
	env.Setenv("HOOKSIDECAR_STORE_MIN_FREE_BYTES", "1 MiB")
	env.Setenv("HOOKSIDECAR_STORE_UNSAFE_FS", "true")
	return nil
}

// freePorts returns the first of three free ports in a row, below those that the kernel gives to outgoing connections.
func freePorts() (int, error) {
	for range 100 {
		base := 10_000 + 3*rand.IntN(7_000)
		if portFree(base) && portFree(base+1) && portFree(base+2) {
			return base, nil
		}
	}
	return 0, errors.New("no three free ports in a row")
}

func portFree(port int) bool {
	l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port))
	return err == nil && l.Close() == nil
}

// codeIs is "code N COMMAND…": the command ends with exit code N.
func codeIs(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got, err := 0, ts.Exec(args[1], args[2:]...)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// eventually is "eventually REGEXP COMMAND…": within some seconds the command succeeds and prints something that matches.
func eventually(ts *testscript.TestScript, _ bool, args []string) {
	want := regexp.MustCompile(`(?m)` + args[0])
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		err := ts.Exec(args[1], args[2:]...)
		if err == nil && want.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%q was never printed (%v)", args[0], err)
		}
	}
}

// oneField is "onefield NAME REGEXP": the first group of REGEXP in stdout becomes $NAME.
func oneField(ts *testscript.TestScript, _ bool, args []string) {
	m := regexp.MustCompile(args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if m == nil {
		ts.Fatalf("nothing in stdout matches %q", args[1])
	}
	ts.Setenv(args[0], m[1])
}

// modeIs is "mode OCTAL FILE": the file has these permissions.
func modeIs(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.ParseUint(args[0], 8, 32)
	ts.Check(err)
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := info.Mode().Perm(); got != os.FileMode(want) {
		ts.Fatalf("%s has mode %04o, want %04o", args[1], got, want)
	}
}
