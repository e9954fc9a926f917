package scoring

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	_ "embed"
	"fmt"
	"io"
	"sort"
	"sync"
	"time"
)

// The IANA zone data of the Go release this module was built with. It is
// embedded, never the system's, because a moved daylight-saving rule moves
// purchase days; its hash is part of the model's.
//
//go:embed zoneinfo.zip
var zoneData []byte

var zoneDataHash = sync.OnceValue(func() [32]byte { return sha256.Sum256(zoneData) })

const msPerDay = 24 * 60 * 60 * 1000

// A Calendar maps instants to local dates of one zone. It is immutable and
// safe for concurrent use.
//
// A local day begins at the first instant whose local date is that day or a
// later one. So days never go back, not even where clocks are set back past
// midnight, and a date that a zone skipped (Samoa, 2011-12-30) is a day of
// length zero that no instant belongs to.
type Calendar struct {
	zone string
	// Spans of constant offset in ascending order; the first holds from the
	// beginning of time, the last for ever. A zone without transitions has one.
	spans []span
}

type span struct {
	from   int64 // first instant, Unix ms
	offset int64 // local minus UTC, ms
	floor  int32 // the latest day that began in earlier spans
}

// Spans are tabulated between these years; the offset is constant outside.
const firstYear, lastYear = 1900, 2300

// NewCalendar returns the calendar of an IANA zone ("UTC", "Europe/Berlin",
// "Etc/GMT-3"), from the embedded zone data.
func NewCalendar(zone string) (*Calendar, error) {
	loc, err := loadZone(zone)
	if err != nil {
		return nil, err
	}
	c := &Calendar{zone: zone}
	at := time.Date(firstYear, 1, 1, 0, 0, 0, 0, time.UTC)
	stop := time.Date(lastYear, 1, 1, 0, 0, 0, 0, time.UTC)
	for {
		local := at.In(loc)
		var east int // seconds
		_, east = local.Zone()
		offset := int64(east) * 1000
		s := span{from: at.UnixMilli(), offset: offset, floor: -1 << 31}
		if n := len(c.spans); n > 0 {
			prev := c.spans[n-1]
			s.floor = max(prev.floor, floorDay(s.from-1+prev.offset))
		}
		if n := len(c.spans); n == 0 || c.spans[n-1].offset != s.offset {
			c.spans = append(c.spans, s)
		}
		_, end := local.ZoneBounds()
		if end.IsZero() || !at.Before(stop) {
			return c, nil
		}
		if !end.After(at) {
			// Under a zone's standing rule ZoneBounds ends every year after 365
			// days, so on a leap year's last day it answers that day's start.
			end = at.AddDate(0, 0, 1)
		}
		at = end
	}
}

func loadZone(zone string) (*time.Location, error) {
	archive, err := zip.NewReader(bytes.NewReader(zoneData), int64(len(zoneData)))
	if err != nil {
		return nil, fmt.Errorf("opening embedded zone data: %w", err)
	}
	for _, f := range archive.File {
		if f.Name != zone || f.FileInfo().IsDir() {
			continue
		}
		r, err := f.Open()
		if err != nil {
			return nil, fmt.Errorf("opening zone %s: %w", zone, err)
		}
		defer r.Close()
		data, err := io.ReadAll(r)
		if err != nil {
			return nil, fmt.Errorf("reading zone %s: %w", zone, err)
		}
		return time.LoadLocationFromTZData(zone, data)
	}
	return nil, fmt.Errorf("unknown zone %q: want an IANA name such as UTC or Europe/Berlin", zone)
}

// Zone returns the IANA name.
func (c *Calendar) Zone() string { return c.zone }

// floorDay is the day of a local time in ms, also before 1970.
func floorDay(ms int64) int32 {
	d := ms / msPerDay
	if ms%msPerDay < 0 {
		d--
	}
	return int32(d)
}

// Day returns the local date of an instant (Unix ms) as days since 1970-01-01.
func (c *Calendar) Day(ms int64) int32 {
	s := &c.spans[0]
	if n := len(c.spans); n > 1 {
		lo, hi := 0, n // spans[lo].from ≤ ms (or lo is 0) and ms < spans[hi].from
		for hi-lo > 1 {
			if mid := int(uint(lo+hi) >> 1); c.spans[mid].from <= ms {
				lo = mid
			} else {
				hi = mid
			}
		}
		s = &c.spans[lo]
	}
	return max(s.floor, floorDay(ms+s.offset))
}

// Start returns the first instant of a local day, Unix ms.
func (c *Calendar) Start(day int32) int64 {
	n := len(c.spans)
	// The last span that some earlier day than this one still reaches into.
	i := sort.Search(n-1, func(i int) bool { return c.spans[i+1].floor >= day })
	s := &c.spans[i]
	start := int64(day)*msPerDay - s.offset
	if i > 0 {
		start = max(start, s.from)
	}
	return start
}

// Split returns the local date of an instant and the elapsed part of that
// local day, in [0, 1): elapsed over length, so that 12:00 on a day of 23
// hours is 11/23.
func (c *Calendar) Split(ms int64) (day int32, part float64) {
	day = c.Day(ms)
	start, end := c.Start(day), c.Start(day+1)
	return day, float64(ms-start) / float64(end-start)
}
