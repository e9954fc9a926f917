//go:build !unix

package bench

import "time"

// ownCPU is the CPU time of this process so far; not known here.
func ownCPU() time.Duration { return 0 }
