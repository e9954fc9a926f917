package embedded

import (
	"os/exec"
	"syscall"
)

// ownGroup gives the child a process group of its own, so that Ctrl-C in the
// terminal does not reach it, and lets the kernel ask it to end (in order, with
// its file written) when the thread that started it ends.
func ownGroup(command *exec.Cmd) {
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
