package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// watch prints a line about long work now and then, until stop is called: on a
// terminal over itself twice a second, elsewhere every half minute.
func (t *terminal) watch(line func() string) (stop func()) {
	f, _ := t.err.(*os.File)
	interactive := false
	if f != nil {
		info, err := f.Stat()
		interactive = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	every := 30 * time.Second
	if interactive {
		every = 500 * time.Millisecond
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(every)
		defer tick.Stop()
		width := 0
		for {
			select {
			case <-done:
				if width > 0 {
					fmt.Fprintf(t.err, "\r%s\r", strings.Repeat(" ", width))
				}
				return
			case <-tick.C:
			}
			s := line()
			if !interactive {
				fmt.Fprintln(t.err, s)
				continue
			}
			n := len([]rune(s))
			fmt.Fprintf(t.err, "\r%s%s", s, strings.Repeat(" ", max(0, width-n)))
			width = max(width, n)
		}
	}()
	return func() { close(done); <-ended }
}

// rate says how far work is: of how many, how fast, how long still.
func rate(what string, began time.Time, done, total int64) string {
	took := time.Since(began)
	s := fmt.Sprintf("%d %s, %.0f/s", done, what, float64(done)/max(took.Seconds(), 0.001))
	if total > 0 && done > 0 {
		left := time.Duration(float64(took) / float64(done) * float64(max(0, total-done)))
		s += fmt.Sprintf(", %d %%, %s to go", min(100, 100*done/total), left.Round(time.Second))
	}
	return s
}

// grouped is a count for people: 1,234,567.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
