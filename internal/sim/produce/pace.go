package produce

import (
	"context"
	"fmt"
	"time"
)

// Pace is how fast a run goes. Whatever it says, a message is never sent before
// its own time: a run that has reached the present goes on at its pace.
type Pace struct {
	Rate  float64 // messages per second of wall time at most; 0: no bound
	Speed float64 // event time passed per wall time at most; 0: no bound
}

// Validate names what makes no sense.
func (p Pace) Validate() error {
	if p.Rate < 0 || p.Speed < 0 {
		return fmt.Errorf("pace: rate %g and speed %g must not be negative", p.Rate, p.Speed)
	}
	return nil
}

const (
	// burst is how much of a lost slot may be made good: without it one stall
	// would be followed by a flood.
	burst = 100 * time.Millisecond
	// nap is the shortest sleep worth its while: at high rates messages go out in
	// little groups instead.
	nap = time.Millisecond
)

// pacer says when each message of a run is due.
type pacer struct {
	interval time.Duration // between messages; 0: none
	speed    float64

	begun     bool
	firstSent time.Time
	firstAt   int64
	slot      time.Time // when the rate allows the next message
}

func newPacer(p Pace) *pacer {
	pc := &pacer{speed: p.Speed}
	if p.Rate > 0 {
		pc.interval = time.Duration(float64(time.Second) / p.Rate)
	}
	return pc
}

// due is the earliest moment for the next message, whose own time is at (Unix
// milliseconds), asked at now. Each call uses up one slot.
func (p *pacer) due(now time.Time, at int64) time.Time {
	if !p.begun {
		p.begun, p.firstSent, p.firstAt, p.slot = true, now, at, now
	}
	due := time.UnixMilli(at)
	if p.speed > 0 {
		// In seconds: the difference of far times in nanoseconds could overflow.
		passed := float64(at-p.firstAt) / 1000 / p.speed
		if passed > maxWait.Seconds() {
			passed = maxWait.Seconds()
		}
		if t := p.firstSent.Add(time.Duration(passed * float64(time.Second))); t.After(due) {
			due = t
		}
	}
	if p.interval > 0 {
		if earliest := now.Add(-burst); p.slot.Before(earliest) {
			p.slot = earliest
		}
		if p.slot.After(due) {
			due = p.slot
		}
		p.slot = p.slot.Add(p.interval)
	}
	return due
}

// maxWait bounds a computed wait: longer than any run.
const maxWait = 100 * 365 * 24 * time.Hour

// wait returns when the message is due, or false when ctx ends before.
func (p *pacer) wait(ctx context.Context, at int64) bool {
	now := time.Now()
	left := p.due(now, at).Sub(now)
	// Below a nap a message may go, but never before its own time.
	if left < nap && at <= now.UnixMilli() {
		return true
	}
	t := time.NewTimer(max(left, nap))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
