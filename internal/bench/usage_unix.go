//go:build unix

package bench

import (
	"syscall"
	"time"
)

// ownCPU is the CPU time of this process so far.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // no argument of ours can be wrong
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
