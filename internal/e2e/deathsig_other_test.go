//go:build !linux

package e2e

import "os/exec"

// startChild starts a command. Only Linux can tie its life to this test run.
func startChild(cmd *exec.Cmd) error { return cmd.Start() }
