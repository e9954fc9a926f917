package event

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseTime(t *testing.T) {
	for s, want := range map[string]int64{
		"1970-01-01T00:00:00Z":                0,
		"1970-01-01T00:00:00.0009Z":           0,
		"1970-01-01T01:00:00+01:00":           0,
		"1970-01-01t00:00:01z":                1000,
		"2000-02-29T23:59:59.999-12:00":       951911999999,
		"2026-03-02T09:30:00.123456789+05:45": 1772423100123,
		"2262-12-31T23:59:59.999Z":            endOfTime - 1,
	} {
		if got, ok := parseTime([]byte(s)); !ok || got != want {
			t.Errorf("%s: %d, %t, want %d", s, got, ok, want)
		}
	}
	for _, s := range []string{
		"", "2026-03-02", "2026-03-02T09:30:00", "2026-03-02 09:30:00Z", "2026-03-02T09:30Z", "2026-03-02T09:30:00.Z",
		"2026-03-02T09:30:00+0100", "2026-03-02T09:30:00+01", "2026-03-02T09:30:00+24:00", "2026-03-02T09:30:00+01:60",
		"2026-02-29T00:00:00Z", "2100-02-29T00:00:00Z", "2026-00-01T00:00:00Z", "2026-13-01T00:00:00Z", "2026-01-00T00:00:00Z",
		"2026-01-32T00:00:00Z", "2026-04-31T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01T00:60:00Z", "2016-12-31T23:59:60Z",
		"1970-01-01T00:00:00+00:01", "2263-01-01T00:00:00Z", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59Z",
		"2026-03-02T09:30:00Zx", "2026-03-02T09:30:00,5Z", "1772443800", "Mon, 02 Mar 2026 09:30:00 GMT", "+026-03-02T09:30:00Z",
	} {
		if got, ok := parseTime([]byte(s)); ok {
			t.Errorf("%s reads as %d", s, got)
		}
	}
}

func TestParseTimeAgreesWithTheLibrary(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ms := rapid.Int64Range(0, endOfTime-1).Draw(t, "ms")
		zone := time.FixedZone("", 60*rapid.IntRange(-23*60, 23*60).Draw(t, "offset"))
		s := time.UnixMilli(ms).In(zone).Format(time.RFC3339Nano)
		if got, ok := parseTime([]byte(s)); !ok || got != ms {
			t.Fatalf("%s: %d, %t, want %d", s, got, ok, ms)
		}
	})
}
