//go:build !unix

package search

import "time"

var began = time.Now()

// cpu is the time that passed, where CPU time is not told.
func cpu() time.Duration { return time.Since(began) }
