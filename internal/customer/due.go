package customer

import "github.com/tierstream/tierstream/internal/scoring"

// MoveDue is a lower bound of the instant at which time alone moves a customer
// from tier, or [NeverDue]: [scoring.Model.Due], which says what low, high and
// predicted are, and the next midnight at which a field of the measure changes.
// s is the summary at s.At.
func (f *Folder) MoveDue(r *Record, m *scoring.Model, tier int, s *scoring.Summary, low, high, predicted int64) int64 {
	due := m.Due(tier, s, low, high, predicted)
	if m.ByDay() {
		if day, ok := f.nextDay(r, m, s); ok {
			due = min(due, m.Calendar().Start(day))
		}
	}
	return due
}

// NextMove is the first whole second after from, up to until, at which a
// customer of tier no longer has it if nothing happens, and what tier it is
// then. Times are Unix ms. from must not be before the date of the customer's
// newest event, as for [Folder.Summarize].
func (f *Folder) NextMove(r *Record, m *scoring.Model, tier int, from, until int64) (at int64, to int, ok bool) {
	var s scoring.Summary
	f.Summarize(r, from, &s)
	if !m.ByDay() {
		return m.NextMove(tier, &s, until)
	}
	for {
		day, more := f.nextDay(r, m, &s)
		midnight := until + 1
		if more {
			midnight = min(midnight, m.Calendar().Start(day))
		}
		if at, to, ok := m.NextMove(tier, &s, midnight-1); ok {
			return at, to, true
		}
		if midnight > until {
			return 0, 0, false
		}
		f.Summarize(r, midnight, &s)
		if to := m.Decide(tier, &s, m.Measure(&s).Score); to != tier {
			return midnight, to, true
		}
	}
}

// nextDay is the first local date after s.Today at which orders leave a window
// or the recency score falls.
func (f *Folder) nextDay(r *Record, m *scoring.Model, s *scoring.Summary) (day int32, ok bool) {
	day, ok = m.NextCut(s)
	leaves := func(d int32) {
		for _, window := range [2]int32{int32(f.window), yearDays} {
			if d+window > s.Today && (!ok || d+window < day) {
				day, ok = d+window, true
			}
		}
	}
	for i := range r.Facts.Old.Buckets {
		leaves(r.Facts.Old.Buckets[i].Day)
	}
	for i := range r.Facts.Orders {
		if o := &r.Facts.Orders[i]; !o.void() {
			leaves(o.Day)
		}
	}
	return day, ok
}
