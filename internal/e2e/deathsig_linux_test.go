package e2e

import (
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// starts carries commands to the one thread that starts them: Linux ends a child with the thread that started it.
var starts = sync.OnceValue(func() chan<- func() {
	c := make(chan func())
	go func() {
		runtime.LockOSThread() // for ever: see above
		for start := range c {
			start()
		}
	}()
	return c
})

// startChild starts a command that dies with this test run, also when the run is killed or panics.
func startChild(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	done := make(chan error)
	starts() <- func() { done <- cmd.Start() }
	return <-done
}
