package fit

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// Clusters are what K-means found.
type Clusters struct {
	Mean, SD  [3]float64   // of the features over the population: what standardizes them
	Centroids [][3]float64 // in standard deviations from the mean, the largest cluster first
	Sizes     []int
	// Within is the sum of squared distances to the own centroid.
	Within     float64
	Iterations int
}

// KMeans divides points into k clusters by Lloyd's algorithm on standardized
// features, from k-means++ starts (Arthur, Vassilvitskii 2007): the best of ten. The
// generator is PCG with the seed; the same points in the same order, k and seed
// give the same clusters. Equally near centroids: the first.
func KMeans(points [][3]float64, k int, seed uint64) (*Clusters, error) {
	if k < 1 {
		return nil, fmt.Errorf("k is %d: want 1 or more", k)
	}
	different := map[[3]float64]bool{}
	for i, p := range points {
		for _, v := range p {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return nil, fmt.Errorf("point %d is %v", i+1, p)
			}
		}
		if len(different) < k {
			different[p] = true
		}
	}
	if len(different) < k {
		return nil, fmt.Errorf("%d customers with %d different points cannot make %d clusters", len(points), len(different), k)
	}
	c := &Clusters{}
	for f := range 3 {
		for _, p := range points {
			c.Mean[f] += p[f] / float64(len(points))
		}
		for _, p := range points {
			c.SD[f] += (p[f] - c.Mean[f]) * (p[f] - c.Mean[f]) / float64(len(points))
		}
		if c.SD[f] = math.Sqrt(c.SD[f]); c.SD[f] < 1e-6 {
			c.SD[f] = 1 // all the same: it separates nobody
		}
	}
	z := make([][3]float64, len(points))
	for i, p := range points {
		for f := range p {
			z[i][f] = (p[f] - c.Mean[f]) / c.SD[f]
		}
	}
	r := rand.New(rand.NewPCG(seed, 0))
	c.Within = math.Inf(1)
	for range 10 {
		centroids, sizes, within, n := lloyd(z, plusPlus(z, k, r))
		c.Iterations += n
		if within < c.Within {
			c.Centroids, c.Sizes, c.Within = centroids, sizes, within
		}
	}
	if math.IsInf(c.Within, 1) {
		return nil, errors.New("the points are too far apart to be compared")
	}
	order := make([]int, k)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return c.Sizes[b] - c.Sizes[a] })
	centroids, sizes := make([][3]float64, k), make([]int, k)
	for i, o := range order {
		centroids[i], sizes[i] = c.Centroids[o], c.Sizes[o]
	}
	c.Centroids, c.Sizes = centroids, sizes
	return c, nil
}

// plusPlus chooses k starts: the first at random, each next with a probability
// in proportion to its squared distance from the nearest so far.
func plusPlus(z [][3]float64, k int, r *rand.Rand) [][3]float64 {
	centroids := [][3]float64{z[r.IntN(len(z))]}
	far := slices.Repeat([]float64{math.Inf(1)}, len(z))
	for len(centroids) < k {
		total := 0.0
		for i, p := range z {
			far[i] = min(far[i], squared(p, centroids[len(centroids)-1]))
			total += far[i]
		}
		at, next := r.Float64()*total, -1
		for i, d := range far {
			if d == 0 {
				continue
			}
			next = i
			if at -= d; at < 0 {
				break
			}
		}
		centroids = append(centroids, z[next])
	}
	return centroids
}

func squared(a, b [3]float64) float64 {
	x, y, z := a[0]-b[0], a[1]-b[1], a[2]-b[2]
	return x*x + y*y + z*z
}

// lloyd moves centroids to the means of what is nearest to them until nothing
// changes its cluster. An empty cluster takes the point that is farthest from its own.
func lloyd(z [][3]float64, centroids [][3]float64) (_ [][3]float64, sizes []int, within float64, iterations int) {
	own := slices.Repeat([]int{-1}, len(z))
	for iterations = 1; iterations <= 300; iterations++ {
		moved := false
		within = 0
		sums := make([][3]float64, len(centroids))
		sizes = make([]int, len(centroids))
		farthest, distance := 0, -1.0
		for i, p := range z {
			best, near := 0, math.Inf(1)
			for j, c := range centroids {
				if d := squared(p, c); d < near {
					best, near = j, d
				}
			}
			moved = moved || own[i] != best
			own[i] = best
			within += near
			sizes[best]++
			for f := range p {
				sums[best][f] += p[f]
			}
			if near > distance {
				farthest, distance = i, near
			}
		}
		if !moved {
			break
		}
		for j := range centroids {
			if sizes[j] == 0 {
				centroids[j] = z[farthest]
				continue
			}
			for f := range sums[j] {
				centroids[j][f] = sums[j][f] / float64(sizes[j])
			}
		}
	}
	return centroids, sizes, within, iterations
}
