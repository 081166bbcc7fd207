//go:build !linux

package main

import (
	"errors"
	"os"
	"syscall"
	"time"
)

// Only Linux has /proc, so the run itself ends with an error elsewhere; this
// keeps the package building there.

func datasync(f *os.File) error       { return f.Sync() }
func dieWithUs() *syscall.SysProcAttr { return nil }

func ownCPU() (time.Duration, error) { return 0, errors.ErrUnsupported }
