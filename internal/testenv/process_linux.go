package testenv

import (
	"os/exec"
	"syscall"
)

// ownGroup gives the child a process group of its own and lets the kernel kill
// it when the thread that started it ends.
func ownGroup(command *exec.Cmd) {
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
