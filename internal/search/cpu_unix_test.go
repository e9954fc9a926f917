//go:build unix

package search

import (
	"syscall"
	"time"
)

// cpu is the CPU time of this process so far.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // no argument of ours can be wrong
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
