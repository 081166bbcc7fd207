package main

import (
	"os"
	"syscall"
	"time"
)

// datasync makes what was written to f durable.
func datasync(f *os.File) error { return syscall.Fdatasync(int(f.Fd())) }

// dieWithUs lets a child end with this process, however that ends.
func dieWithUs() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

// ownCPU returns the CPU time of this process and of all children that have ended.
func ownCPU() (time.Duration, error) {
	var sum time.Duration
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var r syscall.Rusage
		if err := syscall.Getrusage(who, &r); err != nil {
			return 0, err
		}
		sum += time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	return sum, nil
}
