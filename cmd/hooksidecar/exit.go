package main

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/hooksidecar/hooksidecar/internal/admin"
	"github.com/hooksidecar/hooksidecar/internal/config"
	"github.com/hooksidecar/hooksidecar/internal/store"
	"github.com/hooksidecar/hooksidecar/sidecar"
)

// Exit codes, part of the interface: docs/DESIGN.md lists them.
const (
	exitDone        = 0
	exitFailed      = 1
	exitMisuse      = 2
	exitNotFound    = 3
	exitUnreachable = 4
	exitDamaged     = 65 // run only
	exitFault       = 74 // run only
	exitTryAgain    = 75
	exitConfig      = 78 // run only
)

// A misuseError says that the command line is wrong.
type misuseError struct{ text string }

func (e *misuseError) Error() string { return e.text }

func misuse(format string, args ...any) error {
	return &misuseError{text: fmt.Sprintf(format, args...)}
}

// A coded error ends the program with its own code.
type codedError struct {
	code int
	err  error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

// exitCode is the one place where errors become exit codes.
func exitCode(err error) int {
	if err == nil {
		return exitDone
	}
	if coded, ok := errors.AsType[*codedError](err); ok {
		return coded.code
	}
	if _, ok := errors.AsType[*misuseError](err); ok {
		return exitMisuse
	}
	if refusal, ok := errors.AsType[*admin.Refusal](err); ok && refusal.NotFound() {
		return exitNotFound
	}
	switch {
	case errors.Is(err, admin.ErrUnreachable):
		return exitUnreachable
	case errors.Is(err, store.ErrLocked):
		return exitTryAgain
	}
	return exitFailed
}

// runFailed gives an error of run its code.
func runFailed(err error) error {
	if err == nil {
		return nil
	}
	return &codedError{code: runCode(err), err: err}
}

func runCode(err error) int {
	if _, ok := errors.AsType[*config.Error](err); ok {
		return exitConfig
	}
	if _, ok := errors.AsType[*store.DamageError](err); ok {
		return exitDamaged
	}
	if _, ok := errors.AsType[*sidecar.BusyError](err); ok {
		return exitTryAgain
	}
	switch {
	case errors.Is(err, store.ErrFenced):
		return exitFault
	case errors.Is(err, store.ErrNewerFormat), errors.Is(err, store.ErrDamagedRecord):
		return exitDamaged
	case errors.Is(err, store.ErrLocked):
		return exitTryAgain
	case errors.Is(err, store.ErrUnsafeFS), misplaced(err):
		return exitConfig
	}
	return exitFault
}

// misplaced reports whether a file or directory cannot be where the settings have it: trying again does not help.
func misplaced(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.ENOTDIR)
}
