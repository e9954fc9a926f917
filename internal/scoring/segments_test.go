package scoring

import (
	"slices"
	"testing"
)

// Every pair of scores has exactly one segment: counted cell by cell from the
// ranges themselves, for each map that a model may name and one of its own.
func TestSegmentMapsAreTotalAndDoNotOverlap(t *testing.T) {
	own := segmentMap{mapCustom, axisMean, []segmentDocument{{"here", []int{3, 5}, []int{1, 5}}, {"going", []int{2, 2}, []int{1, 5}}, {"gone", []int{1, 1}, []int{1, 5}}}}
	for _, c := range append(slices.Clone(segmentMaps[:]), own) {
		var m *Model
		if c.name == mapCustom {
			m = edit(t, "map: ten_segments", "axis: frequency_monetary\n  segments: [{id: here, recency: [3, 5], frequency: [1, 5]}, {id: going, recency: [2, 2], frequency: [1, 5]}, {id: gone, recency: [1, 1], frequency: [1, 5]}]")
		} else {
			m = edit(t, "map: ten_segments", "map: "+c.name)
		}
		seen := map[string]int{}
		for r := 1; r <= 5; r++ {
			for f := 1; f <= 5; f++ {
				for monetary := 1; monetary <= 5; monetary++ {
					second := f
					if c.axis == axisMean {
						second = []int{2: 1, 3: 2, 4: 2, 5: 3, 6: 3, 7: 4, 8: 4, 9: 5, 10: 5}[f+monetary] // halves rounded up
					}
					var in []string
					for _, s := range c.segments {
						if s.Recency[0] <= r && r <= s.Recency[1] && s.Frequency[0] <= second && second <= s.Frequency[1] {
							in = append(in, s.ID)
						}
					}
					if len(in) != 1 {
						t.Fatalf("%s: R %d F %d M %d is in %v: want one segment", c.name, r, f, monetary, in)
					}
					if got := m.segment(r, f, monetary); got != in[0] {
						t.Fatalf("%s: R %d F %d M %d is %s, want %s", c.name, r, f, monetary, got, in[0])
					}
					seen[in[0]]++
				}
			}
		}
		if want := len(c.segments); len(seen) != want {
			t.Errorf("%s: %d segments are reached, want %d", c.name, len(seen), want)
		}
	}
}

func TestSegmentMaps(t *testing.T) {
	// Rows R 5 down to 1, columns F, or the mean of F and M, 1 to 5.
	for name, want := range map[string][5][5]string{
		mapTen: {
			{"new", "potential_loyalist", "potential_loyalist", "champions", "champions"},
			{"promising", "potential_loyalist", "potential_loyalist", "loyal", "loyal"},
			{"about_to_sleep", "about_to_sleep", "need_attention", "loyal", "loyal"},
			{"hibernating", "hibernating", "at_risk", "at_risk", "cant_lose"},
			{"hibernating", "hibernating", "at_risk", "at_risk", "cant_lose"},
		},
		mapEleven: {
			{"new", "potential_loyalist", "potential_loyalist", "champions", "champions"},
			{"promising", "potential_loyalist", "potential_loyalist", "champions", "champions"},
			{"about_to_sleep", "need_attention", "need_attention", "loyal", "loyal"},
			{"hibernating", "hibernating", "at_risk", "at_risk", "cant_lose"},
			{"lost", "lost", "at_risk", "at_risk", "cant_lose"},
		},
	} {
		m := edit(t, "map: ten_segments", "map: "+name)
		for r := range 5 {
			if m.segments[r] != want[4-r] {
				t.Errorf("%s: R %d: segments %v, want %v", name, r+1, m.segments[r], want[4-r])
			}
		}
	}
}
