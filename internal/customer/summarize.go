package customer

import (
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/scoring"
)

// Summarize fills s with what the formulas need of r at the instant at,
// reusing s.Complaints. Lifetime measures do not look at at; windows count day
// d iff 0 ≤ today − d < window. They are exact for instants on or after the
// date of the customer's newest event: of earlier ones, compaction may have
// dropped days.
func (f *Folder) Summarize(r *Record, at int64, s *scoring.Summary) {
	fs := &r.Facts
	today, part := f.calendar.Split(at)
	*s = scoring.Summary{
		At:      at,
		Today:   today,
		DayPart: part,

		Bought: fs.Purchases > 0,

		CAC:          fs.Costs.Acquisition,
		CACKnown:     fs.Costs.AcquisitionKnown,
		ServiceCost:  fs.Costs.Service,
		SellingCost:  fs.Costs.Marketing + fs.Costs.Selling,
		Compensation: fs.Old.Compensation,

		ReferralValue:      fs.Old.ReferralValue,
		ReferralsUnvalued:  fs.Old.Unvalued,
		ReferralsConverted: fs.Old.Converted,

		Complaints:          s.Complaints[:0],
		ComplaintsCompacted: fs.Old.Complaints,

		NPS:         fs.NPS.response(),
		CSAT:        fs.CSAT.response(),
		CES:         fs.CES.response(),
		Praises:     fs.Praises,
		Suggestions: fs.Suggestions,

		Returns:     fs.Returns,
		ReturnedNet: fs.Old.Returned,
	}

	for i := range fs.Old.Buckets {
		b := &fs.Old.Buckets[i]
		f.countDay(s, b.Day, b.Orders, b.Net, b.Margin)
	}
	// The ledger goes on where compaction stopped, by the same steps.
	t := fs.Old.Totals
	previous, earlier := int32(0), false
	var held [maxCategories]uint32
	categories := append(held[:0], fs.Old.Categories...)
	for i := range fs.Orders {
		o := &fs.Orders[i]
		net, returned := o.net()
		s.ReturnedNet += returned
		if o.void() {
			continue
		}
		margin := o.margin(net)
		if t.Orders > 0 && o.Day != t.LastDay {
			previous, earlier = t.LastDay, true
		}
		categories = t.add(o, net, margin, categories)
		f.countDay(s, o.Day, 1, net, margin)
	}
	t.close()
	s.Active = t.Orders > 0
	s.FirstDay, s.LastDay, s.Days = t.FirstDay, t.LastDay, t.Days
	if s.PreviousDay = t.LastDay; earlier {
		s.PreviousDay = previous
	}
	s.Orders, s.Net, s.Largest, s.LastOrderAt = t.Orders, t.Net, t.Largest, t.LastTime
	s.First, s.Cross, s.Repeat = t.First, t.Cross, t.Repeat
	s.ValueDays, s.ValueSum = t.ValueDays, t.ValueSum

	for i := range fs.Complaints {
		c := &fs.Complaints[i]
		s.Compensation += max(c.Paid, 0)
		s.Complaints = append(s.Complaints, scoring.ComplaintState{Opened: c.Opened, Changed: c.Time, Severity: c.Severity, Status: complaintStatus(c.Status)})
	}
	for i := range fs.Referrals {
		c := &fs.Referrals[i]
		if event.Status(c.Status) != event.Converted {
			continue
		}
		s.ReferralsConverted++
		if c.Value < 0 {
			s.ReferralsUnvalued++
		} else {
			s.ReferralValue += c.Value
		}
	}
}

// countDay adds orders of one day to the windows that hold it.
func (f *Folder) countDay(s *scoring.Summary, day int32, orders, net int64, margin scoring.Margins) {
	age := int64(s.Today) - int64(day)
	if age < 0 {
		return
	}
	if age < int64(f.window) {
		s.WindowOrders += orders
		s.WindowNet += net
	}
	if age < yearDays {
		s.YearOrders += orders
		s.YearNet += net
		s.Year.Known += margin.Known
		s.Year.Assumed += margin.Assumed
	}
}

func complaintStatus(s uint8) scoring.ComplaintStatus {
	switch event.Status(s) {
	case event.Resolved:
		return scoring.ComplaintResolved
	case event.Rejected:
		return scoring.ComplaintRejected
	}
	return scoring.ComplaintOpen
}

func (a *Answer) response() scoring.Response {
	return scoring.Response{Known: a.Known, Score: a.Score, ScaleMax: a.ScaleMax}
}
