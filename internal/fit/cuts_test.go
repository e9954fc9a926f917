package fit

import (
	"math/rand/v2"
	"reflect"
	"testing"
)

func TestCuts(t *testing.T) {
	for _, c := range []struct {
		values []int64
		want   [4]int64
	}{
		{[]int64{1, 2, 3, 4, 5}, [4]int64{1, 2, 3, 4}},
		{[]int64{5, 3, 1, 4, 2, 10, 9, 8, 7, 6}, [4]int64{2, 4, 6, 8}},
		// Two thirds bought once: they all score 1, the others share what is left.
		{[]int64{1, 1, 1, 1, 1, 1, 2, 3, 4, 5}, [4]int64{1, 2, 3, 4}},
		{[]int64{7, 7, 7}, [4]int64{7, 8, 9, 10}},
		{[]int64{1, 1, 1, 9}, [4]int64{1, 2, 3, 9}},
	} {
		if got, err := Cuts(c.values); err != nil || got != c.want {
			t.Errorf("%v: %v %v, want %v", c.values, got, err, c.want)
		}
	}
	if _, err := Cuts(nil); err == nil {
		t.Error("cut points of nobody")
	}
}

// TestCutsAscendAndKeepTiesTogether: whatever the population and its order.
func TestCutsAscendAndKeepTiesTogether(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		values := make([]int64, 1+r.IntN(40))
		for i := range values {
			values[i] = r.Int64N(1 + r.Int64N(30))
		}
		cuts, err := Cuts(values)
		if err != nil {
			t.Fatal(err)
		}
		for i := 1; i < 4; i++ {
			if cuts[i] <= cuts[i-1] {
				t.Fatalf("%v: cuts %v do not ascend", values, cuts)
			}
		}
		r.Shuffle(len(values), func(i, j int) { values[i], values[j] = values[j], values[i] })
		if again, _ := Cuts(values); again != cuts {
			t.Fatalf("%v: cuts %v, in another order %v", values, cuts, again)
		}
	}
}

func TestThresholds(t *testing.T) {
	hundred := make([]int64, 100)
	for i := range hundred {
		hundred[i] = int64(i)
	}
	for _, c := range []struct {
		scores []int64
		shares []float64
		want   []int64 // nil: refused
	}{
		{hundred, []float64{50, 30, 15, 5}, []int64{50, 80, 95}},
		{hundred, []float64{1, 1}, []int64{50}},
		// Nine of ten equal: they are not torn apart.
		{[]int64{1, 1, 1, 1, 1, 1, 1, 1, 1, 2}, []float64{50, 50}, []int64{2}},
		{[]int64{1, 2, 2, 2, 2, 2, 2, 2, 2, 2}, []float64{50, 50}, []int64{2}},
		{[]int64{3, 3, 3}, []float64{50, 50}, nil},
		{[]int64{1, 2, 2, 2, 2}, []float64{1, 1, 1}, nil},
		{nil, []float64{1, 1}, nil},
		{hundred, []float64{1}, nil},
		{hundred, []float64{1, -1}, nil},
	} {
		got, err := Thresholds(c.scores, c.shares)
		if (err != nil) != (c.want == nil) || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%v by %v: %v %v, want %v", c.scores, c.shares, got, err, c.want)
		}
	}
}
