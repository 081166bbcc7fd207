package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/hooksidecar/hooksidecar/internal/admin"
	"github.com/hooksidecar/hooksidecar/internal/config"
	"github.com/hooksidecar/hooksidecar/internal/store"
	"github.com/hooksidecar/hooksidecar/sidecar"
)

func TestExitCodes(t *testing.T) {
	for _, row := range []struct {
		err      error
		run, any int // exit code if run ends with err; if another command does
	}{
		{nil, 0, 0},
		{&config.Error{}, 78, 1},
		{&store.DamageError{}, 65, 1},
		{store.ErrNewerFormat, 65, 1},
		{store.ErrUnsafeFS, 78, 1},
		{store.ErrLocked, 75, 75},
		{&sidecar.BusyError{}, 75, 1},
		{fmt.Errorf("%w: %w", store.ErrFenced, syscall.EIO), 74, 1},
		{fmt.Errorf("%w: %w", store.ErrFenced, syscall.EROFS), 74, 1},
		{fmt.Errorf("make store directory: %w", syscall.EROFS), 78, 1},
		{fmt.Errorf("open lock: %w", syscall.EACCES), 78, 1},
		{store.ErrNoSpace, 74, 1},
		{errors.New("anything else"), 74, 1},
		{&admin.Refusal{Status: 404}, 74, 3},
		{&admin.Refusal{Status: 409}, 74, 1},
		{admin.ErrUnreachable, 74, 4},
		{errors.Join(&admin.Refusal{Status: 409}, &codedError{code: exitNotFound, err: errors.New("not found")}), 74, 3},
		{context.Canceled, 74, 1},
	} {
		wrapped := row.err
		if wrapped != nil {
			wrapped = fmt.Errorf("wrapped: %w", row.err)
		}
		if got := exitCode(runFailed(wrapped)); got != row.run {
			t.Errorf("run ends with %v: exit code %d, want %d", row.err, got, row.run)
		}
		if got := exitCode(wrapped); got != row.any {
			t.Errorf("another command ends with %v: exit code %d, want %d", row.err, got, row.any)
		}
	}
	if got := exitCode(misuse("x")); got != 2 {
		t.Errorf("misuse: exit code %d, want 2", got)
	}
}

func TestEscape(t *testing.T) {
	for _, row := range []struct{ text, want string }{
		{"plain ü 😀", "plain ü 😀"},
		{"\x1b[31mred\x07", `\u001b[31mred\u0007`},
		{"\u009b31m", `\u009b31m`},
		{"a\u202eb", `a\u202eb`},
		{"\xff", "\uFFFD"},
		{"a\tb\rc", `a\u0009b\u000dc`},
		{"two\nlines", "two\nlines"},
	} {
		if got := escape(row.text); got != row.want {
			t.Errorf("escape(%q) = %q, want %q", row.text, got, row.want)
		}
	}
	if got, want := oneLine("two\nlines"), "two lines"; got != want {
		t.Errorf("oneLine: got %q, want %q", got, want)
	}
}
