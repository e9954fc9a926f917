package fit

import (
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
)

// blobs are three clouds of 300, 200 and 100 points, of very different scales by feature.
func blobs() (points [][3]float64) {
	r := rand.New(rand.NewPCG(3, 3))
	for i, center := range [][3]float64{{10, 1, 2}, {200, 1, 5}, {200, 3, 2}} {
		for range 300 - 100*i {
			points = append(points, [3]float64{center[0] + 5*r.NormFloat64(), center[1] + 0.1*r.NormFloat64(), center[2] + 0.2*r.NormFloat64()})
		}
	}
	return points
}

func TestKMeansFindsWhatIsThere(t *testing.T) {
	for seed := range uint64(5) {
		c, err := KMeans(blobs(), 3, seed)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(c.Sizes, []int{300, 200, 100}) {
			t.Errorf("seed %d: sizes %v", seed, c.Sizes)
		}
		for i, want := range [][3]float64{{10, 1, 2}, {200, 1, 5}, {200, 3, 2}} {
			for f := range want {
				if got := c.Mean[f] + c.SD[f]*c.Centroids[i][f]; math.Abs(got-want[f]) > 0.02*max(1, want[f]) {
					t.Errorf("seed %d: centroid %d is %.3f in feature %d, want %v", seed, i, got, f, want[f])
				}
			}
		}
	}
}

// TestKMeansIsDeterministic, and finds nobody nearer to another centroid.
func TestKMeansIsDeterministic(t *testing.T) {
	points := blobs()
	a, err := KMeans(points, 5, 7)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := KMeans(points, 5, 7); err != nil || !reflect.DeepEqual(a, b) {
		t.Errorf("%v: %+v and %+v", err, a, b)
	}
	within := 0.0
	for _, p := range points {
		near := math.Inf(1)
		for _, c := range a.Centroids {
			var z [3]float64
			for f := range z {
				z[f] = (p[f] - a.Mean[f]) / a.SD[f]
			}
			near = min(near, squared(z, c))
		}
		within += near
	}
	if math.Abs(within/a.Within-1) > 1e-9 {
		t.Errorf("within %v, by nearest centroids %v", a.Within, within)
	}
}

func TestKMeansRefuses(t *testing.T) {
	same := [][3]float64{{1, 2, 3}, {1, 2, 3}}
	for _, c := range []struct {
		points [][3]float64
		k      int
	}{{nil, 1}, {same, 2}, {same, 0}, {[][3]float64{{math.NaN(), 0, 0}}, 1}, {[][3]float64{{math.Inf(1), 0, 0}}, 1}} {
		if got, err := KMeans(c.points, c.k, 1); err == nil {
			t.Errorf("%v in %d: %+v", c.points, c.k, got)
		}
	}
	if c, err := KMeans(same, 1, 1); err != nil || c.Sizes[0] != 2 || c.SD != [3]float64{1, 1, 1} {
		t.Errorf("one point twice: %+v %v", c, err)
	}
}
