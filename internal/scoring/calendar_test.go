package scoring

import (
	"math/rand/v2"
	"testing"
	"time"
)

func calendar(t testing.TB, zone string) (*Calendar, *time.Location) {
	t.Helper()
	c, err := NewCalendar(zone)
	if err != nil {
		t.Fatal(err)
	}
	loc, err := loadZone(zone)
	if err != nil {
		t.Fatal(err)
	}
	return c, loc
}

// The reference is package time: the date in the location, except in the hours
// after a clock was set back past midnight.
func TestCalendarAgreesWithTime(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	zones := []string{
		"UTC", "Etc/GMT-3", "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "Asia/Kathmandu",
		"Australia/Lord_Howe", "Asia/Tehran", "Africa/Casablanca", "Pacific/Apia", "America/Havana", "Pacific/Chatham",
	}
	from, to := time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli(), time.Date(2299, 12, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	for _, zone := range zones {
		c, loc := calendar(t, zone)
		for i := range 20_000 {
			ms := from + r.Int64N(to-from)
			if i%4 != 0 { // most of them near a local midnight, where mistakes are
				ms = c.Start(c.Day(ms)) + r.Int64N(5*3600*1000) - 5*3600*1000/2
			}
			local := time.UnixMilli(ms).In(loc)
			y, m, d := local.Date()
			want := int32(time.Date(y, m, d, 0, 0, 0, 0, time.UTC).UnixMilli() / msPerDay)
			if y < 1970 {
				want = floorDay(time.Date(y, m, d, 0, 0, 0, 0, time.UTC).UnixMilli())
			}
			got := c.Day(ms)
			if start := c.Start(got); ms < start || ms >= c.Start(got+1) {
				t.Fatalf("%s: %v is outside its day %d, which starts at %v", zone, local, got, time.UnixMilli(start).In(loc))
			}
			if got == want {
				continue
			}
			// The date went back: it was a later one within the last two hours.
			if got != want+1 || time.UnixMilli(c.Start(got)).In(loc).Day() == d || ms-c.Start(got) > 2*3600*1000 {
				t.Fatalf("%s: Day(%v) = %d, want %d", zone, local, got, want)
			}
		}
	}
}

func TestCalendarKnownDays(t *testing.T) {
	at := func(s string) int64 {
		v, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return v.UnixMilli()
	}
	date := func(s string) int32 { return floorDay(at(s + "T00:00:00Z")) }
	cases := []struct {
		zone, at string
		day      string
		part     float64
		start    string
	}{
		{"UTC", "2026-03-29T12:00:00Z", "2026-03-29", 0.5, "2026-03-29T00:00:00Z"},
		{"UTC", "1969-12-31T18:00:00Z", "1969-12-31", 0.75, "1969-12-31T00:00:00Z"},
		{"Europe/Berlin", "2026-03-29T12:00:00+02:00", "2026-03-29", 11.0 / 23, "2026-03-29T00:00:00+01:00"},
		{"Europe/Berlin", "2026-10-25T12:00:00+01:00", "2026-10-25", 13.0 / 25, "2026-10-25T00:00:00+02:00"},
		{"Europe/Berlin", "2026-07-01T00:00:00+02:00", "2026-07-01", 0, "2026-07-01T00:00:00+02:00"},
		// Midnight does not exist: the day begins at 01:00 and has 23 hours.
		{"America/Sao_Paulo", "2018-11-04T12:30:00-02:00", "2018-11-04", 11.5 / 23, "2018-11-04T01:00:00-02:00"},
		// Clocks go back from 00:01 to 23:01: the new day had begun and goes on.
		{"America/St_Johns", "2010-11-06T23:30:00-03:30", "2010-11-07", 0.5 / 25, "2010-11-07T00:00:00-02:30"},
		// 2011-12-30 was skipped.
		{"Pacific/Apia", "2011-12-31T06:00:00+14:00", "2011-12-31", 0.25, "2011-12-31T00:00:00+14:00"},
		{"Pacific/Apia", "2011-12-29T23:59:00-10:00", "2011-12-29", 1439.0 / 1440, "2011-12-29T00:00:00-10:00"},
	}
	for _, c := range cases {
		cal, _ := calendar(t, c.zone)
		day, part := cal.Split(at(c.at))
		if day != date(c.day) || part != c.part || cal.Day(at(c.at)) != day {
			t.Errorf("%s %s: Split = %d, %v, want %d, %v", c.zone, c.at, day, part, date(c.day), c.part)
		}
		if got := cal.Start(day); got != at(c.start) {
			t.Errorf("%s: Start(%s) = %v, want %s", c.zone, c.day, time.UnixMilli(got).UTC(), c.start)
		}
	}
	apia, _ := calendar(t, "Pacific/Apia")
	if apia.Start(date("2011-12-30")) != apia.Start(date("2011-12-31")) {
		t.Error("the skipped day in Apia has a length")
	}
}

func TestCalendarIsMonotoneFarAway(t *testing.T) {
	c, _ := calendar(t, "America/New_York")
	for _, year := range []int{1, 1500, 1899, 2299, 2400, 9999} {
		ms := time.Date(year, 7, 1, 12, 0, 0, 0, time.UTC).UnixMilli()
		day, part := c.Split(ms)
		if c.Start(day) > ms || c.Start(day+1) <= ms || part < 0 || part >= 1 {
			t.Errorf("year %d: day %d part %v does not hold its instant", year, day, part)
		}
	}
}

func TestUnknownZonesAreRefused(t *testing.T) {
	for _, zone := range []string{"", "Local", "Mars/Olympus", "../UTC", "Europe"} {
		if _, err := NewCalendar(zone); err == nil {
			t.Errorf("zone %q is accepted", zone)
		}
	}
}

func BenchmarkDay(b *testing.B) {
	for _, zone := range []string{"UTC", "Europe/Berlin"} {
		c, _ := calendar(b, zone)
		b.Run(zone, func(b *testing.B) {
			ms := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
			for b.Loop() {
				ms += int64(c.Day(ms)) & 0xffff
			}
		})
		b.Run(zone+"/split", func(b *testing.B) {
			ms := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
			for b.Loop() {
				day, _ := c.Split(ms)
				ms += int64(day) & 0xffff
			}
		})
	}
}
