package scoring

import "slices"

// The maps from scores to segments that a model may name. Each covers every
// pair of scores exactly once; the tests try them all.
const (
	mapTen    = "ten_segments"
	mapEleven = "eleven_groups"
	mapCustom = "custom"
)

// The second score of a map: F, or the mean of F and M, halves rounded up.
const (
	axisFrequency = "frequency"
	axisMean      = "frequency_monetary"
)

type segmentMap struct {
	name, axis string
	segments   []segmentDocument
}

// segmentMaps are the built-in maps. Ten segments of R and F is the map that
// most public notebooks use. The eleven groups have the names that Putler made
// common; its score ranges are not public and the ones told of it overlap, so
// the ranges are ours.
var segmentMaps = [...]segmentMap{
	{mapTen, axisFrequency, []segmentDocument{
		{"champions", []int{5, 5}, []int{4, 5}},
		{"loyal", []int{3, 4}, []int{4, 5}},
		{"potential_loyalist", []int{4, 5}, []int{2, 3}},
		{"new", []int{5, 5}, []int{1, 1}},
		{"promising", []int{4, 4}, []int{1, 1}},
		{"need_attention", []int{3, 3}, []int{3, 3}},
		{"about_to_sleep", []int{3, 3}, []int{1, 2}},
		{"cant_lose", []int{1, 2}, []int{5, 5}},
		{"at_risk", []int{1, 2}, []int{3, 4}},
		{"hibernating", []int{1, 2}, []int{1, 2}},
	}},
	{mapEleven, axisMean, []segmentDocument{
		{"champions", []int{4, 5}, []int{4, 5}},
		{"loyal", []int{3, 3}, []int{4, 5}},
		{"potential_loyalist", []int{4, 5}, []int{2, 3}},
		{"new", []int{5, 5}, []int{1, 1}},
		{"promising", []int{4, 4}, []int{1, 1}},
		{"need_attention", []int{3, 3}, []int{2, 3}},
		{"about_to_sleep", []int{3, 3}, []int{1, 1}},
		{"cant_lose", []int{1, 2}, []int{5, 5}},
		{"at_risk", []int{1, 2}, []int{3, 4}},
		{"hibernating", []int{2, 2}, []int{1, 2}},
		{"lost", []int{1, 1}, []int{1, 2}},
	}},
}

// setMap completes the document's map: its segments are those of the name, or
// the name is custom where it states segments of its own.
func (d *rfmDocument) setMap(c *check) {
	if d.Map == "" {
		if d.Map = mapTen; len(d.Segments) > 0 {
			d.Map = mapCustom
		}
	}
	if d.Map == mapCustom {
		if d.Axis == "" {
			d.Axis = axisFrequency
		}
		c.that(d.Axis == axisFrequency || d.Axis == axisMean, "rfm.axis is %q: want %s or %s", d.Axis, axisFrequency, axisMean)
		c.that(len(d.Segments) > 0, "rfm.segments are missing: map is %s, so there must be some", mapCustom)
		return
	}
	for _, m := range segmentMaps {
		if m.name != d.Map {
			continue
		}
		same := func(a, b segmentDocument) bool {
			return a.ID == b.ID && slices.Equal(a.Recency, b.Recency) && slices.Equal(a.Frequency, b.Frequency)
		}
		c.that(len(d.Segments) == 0 || slices.EqualFunc(d.Segments, m.segments, same), "rfm.segments are not those of map %s: want map %s, or no segments", m.name, mapCustom)
		c.that(d.Axis == "" || d.Axis == m.axis, "rfm.axis is %q: map %s has %s", d.Axis, m.name, m.axis)
		d.Axis, d.Segments = m.axis, m.segments
		return
	}
	c.that(false, "rfm.map is %q: want %s, %s or %s", d.Map, mapTen, mapEleven, mapCustom)
}

func (m *Model) setSegments(c *check, segments []segmentDocument) {
	seen := map[string]bool{}
	for _, s := range segments {
		c.that(idForm.MatchString(s.ID) && !seen[s.ID], "rfm.segments: id %q: want a new one of a-z, 0-9, _ and -", s.ID)
		seen[s.ID] = true
		for _, r := range [][]int{s.Recency, s.Frequency} {
			c.that(len(r) == 2 && r[0] >= 1 && r[0] <= r[1] && r[1] <= 5, "rfm.segments: %s has range %v: want two scores of 1 to 5 in ascending order", s.ID, r)
		}
		if c.err != nil {
			return
		}
		for r := s.Recency[0]; r <= s.Recency[1]; r++ {
			for f := s.Frequency[0]; f <= s.Frequency[1]; f++ {
				cell := &m.segments[r-1][f-1]
				c.that(*cell == "", "rfm.segments: R %d F %d belongs to %s and %s: want one", r, f, *cell, s.ID)
				*cell = s.ID
			}
		}
	}
	for r, row := range m.segments {
		for f, id := range row {
			c.that(id != "", "rfm.segments: R %d F %d belongs to no segment", r+1, f+1)
		}
	}
}

// segment is the segment of scores of 1 to 5.
func (m *Model) segment(r, f, monetary int) string {
	if m.meanOfFM {
		f = (f + monetary + 1) / 2
	}
	return m.segments[r-1][f-1]
}
