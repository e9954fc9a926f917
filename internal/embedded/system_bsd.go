//go:build unix && !linux

package embedded

import (
	"os/exec"
	"syscall"
)

// ownGroup gives the child a process group of its own, so that Ctrl-C in the
// terminal does not reach it. It outlives a parent that is killed; the next
// start on the folder ends it.
func ownGroup(command *exec.Cmd) {
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}
