package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/tierstream/tierstream/internal/sim/produce"
)

// reporter shows how a run goes: one line that is written over on a terminal,
// else a line every few seconds, and a last line in both cases.
type reporter struct {
	w        io.Writer
	terminal bool
	progress *produce.Progress
	begun    time.Time
	quit     chan struct{}
	done     chan struct{}
}

// report starts showing; stop must be called once.
func report(w io.Writer, progress *produce.Progress) *reporter {
	r := &reporter{
		w: w, terminal: isTerminal(w), progress: progress, begun: time.Now(),
		quit: make(chan struct{}), done: make(chan struct{}),
	}
	go r.loop()
	return r
}

func (r *reporter) loop() {
	defer close(r.done)
	every := 5 * time.Second
	if r.terminal {
		every = 200 * time.Millisecond
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	last, lastTime := r.progress.Stats(), r.begun
	for {
		select {
		case <-r.quit:
			return
		case now := <-ticker.C:
			s := r.progress.Stats()
			text := status(s, float64(s.Sent-last.Sent)/now.Sub(lastTime).Seconds())
			last, lastTime = s, now
			if r.terminal {
				fmt.Fprintf(r.w, "\r%s\x1b[K", text)
			} else {
				fmt.Fprintln(r.w, text)
			}
		}
	}
}

// stop ends the showing with the totals.
func (r *reporter) stop(interrupted bool) {
	close(r.quit)
	<-r.done
	if r.terminal {
		fmt.Fprint(r.w, "\r\x1b[K")
	}
	s := r.progress.Stats()
	took := time.Since(r.begun)
	how := "done"
	if interrupted {
		how = "stopped"
	}
	fmt.Fprintf(r.w, "%s after %s: %s, %s acknowledged\n",
		how, took.Round(time.Millisecond), status(s, float64(s.Sent)/took.Seconds()), grouped(s.Acked))
}

// status is a look at a run in one line.
func status(s produce.Stats, perSecond float64) string {
	reached := "none yet"
	if !s.Reached.IsZero() {
		reached = s.Reached.Format("2006-01-02 15:04:05Z")
	}
	return fmt.Sprintf("%s events sent, %s/s, event time %s, %s errors",
		grouped(s.Sent), grouped(int64(perSecond+0.5)), reached, grouped(s.Failed))
}

// grouped writes 1234567 as 1,234,567.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
