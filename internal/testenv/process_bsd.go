//go:build unix && !linux

package testenv

import (
	"os/exec"
	"syscall"
)

// ownGroup gives the child a process group of its own. A test process that
// dies by its own timeout leaves the child behind here.
func ownGroup(command *exec.Cmd) {
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}
