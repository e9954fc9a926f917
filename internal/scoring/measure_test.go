package scoring

import (
	"fmt"
	"testing"
)

// sample is an ordinary customer: 6 orders on 5 days over 300 days.
func sample() Summary {
	const today = 20_500
	return Summary{
		At: today*msPerDay + msPerDay/2, Today: today, DayPart: 0.5,
		Bought: true, Active: true, FirstDay: today - 330, LastDay: today - 30, Days: 5,
		Orders: 6, Net: 31_000, WindowOrders: 6, WindowNet: 31_000, YearOrders: 6, YearNet: 31_000,
		First: Margins{Assumed: 5_000}, Cross: Margins{Known: 1_800}, Repeat: Margins{Known: 1_200, Assumed: 16_001},
		Year: Margins{Known: 3_000, Assumed: 21_001}, ValueDays: 4, ValueSum: 26_000,
		CAC: 900, CACKnown: true, ServiceCost: 150, SellingCost: 120,
		ReferralsUnvalued: 1, ReferralsConverted: 1,
		Complaints: []ComplaintState{{Opened: (today - 90) * msPerDay, Severity: 3, Status: ComplaintResolved}},
		NPS:        Response{Known: true, Score: 9, ScaleMax: 10},
	}
}

func BenchmarkMeasure(b *testing.B) {
	m := Default()
	for _, age := range []int32{0, 30, 330} {
		s := sample()
		s.FirstDay = s.Today - age
		if s.LastDay < s.FirstDay {
			s.LastDay, s.Days = s.FirstDay, 1
		}
		b.Run(fmt.Sprintf("age=%d", age), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				m.Measure(&s)
			}
		})
	}
}

func TestMeasureAllocatesNothing(t *testing.T) {
	m, s := Default(), sample()
	if n := testing.AllocsPerRun(100, func() { m.Measure(&s) }); n != 0 {
		t.Errorf("Measure allocates %v times", n)
	}
}
