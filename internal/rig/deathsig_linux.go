package rig

import "syscall"

// ownProcess lets the kernel kill a consumer when the thread that started it
// ends, so that a test process that dies leaves none behind.
func ownProcess() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
