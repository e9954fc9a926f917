package scoring_test

import (
	"fmt"
	"time"

	"github.com/tierstream/tierstream/internal/scoring"
)

func ExampleModel_Measure() {
	m := scoring.Default()
	day, part := m.Calendar().Split(time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC).UnixMilli())
	s := scoring.Summary{
		Today: day, DayPart: part, Bought: true, Active: true,
		FirstDay: day - 100, LastDay: day - 10, Days: 3,
		Orders: 3, Net: 150_00, YearOrders: 3, YearNet: 150_00, WindowOrders: 3, WindowNet: 150_00,
		First: scoring.Margins{Assumed: 50_00}, Repeat: scoring.Margins{Assumed: 100_00},
		ValueDays: 2, ValueSum: 100_00,
	}
	measure := m.Measure(&s)
	for _, p := range measure.Parts[:measure.N] {
		fmt.Printf("%-12s %8.4f × %.2f  known: %v\n", p.Name, float64(p.Value)/1e4, float64(p.Weight)/1e4, p.Known)
	}
	tier := m.Decide(-1, &s, measure.Score)
	lacks, _ := m.DistanceToNext(tier, measure.Score)
	fmt.Printf("score %.4f, tier %s, %.4f to the next\n", float64(measure.Score)/1e4, m.Tiers()[tier].Name, float64(lacks)/1e4)
	// Output:
	// clv           30.0267 × 0.40  known: true
	// cac          100.0000 × 0.30  known: false
	// satisfaction  80.0000 × 0.20  known: false
	// retention     77.0078 × 0.10  known: true
	// score 65.7115, tier Gold, 14.2885 to the next
}

func ExampleCalendar_Split() {
	c, err := scoring.NewCalendar("Europe/Berlin")
	if err != nil {
		fmt.Println(err)
		return
	}
	// Clocks went forward that night, so the day had 23 hours.
	day, part := c.Split(time.Date(2026, 3, 29, 10, 0, 0, 0, time.UTC).UnixMilli())
	fmt.Printf("day %d, %.4f of it elapsed\n", day, part)
	// Output:
	// day 20541, 0.4783 of it elapsed
}

func ExampleInit() {
	text, err := scoring.Init(scoring.InitOptions{Currency: "CHF", Zone: "Europe/Zurich", TypicalOrderMinor: 8000, MarginRate: "0.35"})
	if err != nil {
		fmt.Println(err)
		return
	}
	m, err := scoring.Parse(text)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(m.Name(), m.Currency(), m.Calendar().Zone(), m.TypicalOrder(), m.Fitted())
	// Output:
	// first-1 CHF Europe/Zurich 8000 false
}
