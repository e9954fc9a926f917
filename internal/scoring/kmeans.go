package scoring

import (
	"fmt"
	"math"

	"github.com/tierstream/tierstream/internal/scoring/dmath"
)

// clustersDocument holds the centroids of a K-means clustering of the
// population, found elsewhere: a customer belongs to the nearest. It is what
// somebody reads, and decides no tier.
type clustersDocument struct {
	// Mean and standard deviation, in the population, of days since the last purchase, and of ln(1+x)
	// of orders and of money in typical orders, both of the window: what makes the three comparable.
	Recency   spread     `yaml:"recency" json:"recency"`
	Frequency spread     `yaml:"frequency" json:"frequency"`
	Monetary  spread     `yaml:"monetary" json:"monetary"`
	Centroids []centroid `yaml:"centroids" json:"centroids"`
}

type spread struct {
	Mean float64 `yaml:"mean" json:"mean"`
	SD   float64 `yaml:"sd" json:"sd"`
}

// centroid is in standard deviations from the mean.
type centroid struct {
	ID        string  `yaml:"id" json:"id"`
	Recency   float64 `yaml:"recency" json:"recency"`
	Frequency float64 `yaml:"frequency" json:"frequency"`
	Monetary  float64 `yaml:"monetary" json:"monetary"`
}

const maxCentroids = 32

func (d *clustersDocument) validate(c *check) {
	for _, s := range []struct {
		key string
		spread
	}{{"recency", d.Recency}, {"frequency", d.Frequency}, {"monetary", d.Monetary}} {
		between(c, "clusters."+s.key+".mean", s.Mean, -1e6, 1e6)
		between(c, "clusters."+s.key+".sd", s.SD, 1e-6, 1e6)
	}
	between(c, "clusters.centroids", len(d.Centroids), 1, maxCentroids)
	seen := map[string]bool{}
	for _, g := range d.Centroids {
		c.that(nameForm.MatchString(g.ID), "clusters.centroids: id is %q: want 1 to 64 printable characters", g.ID)
		c.that(!seen[g.ID], "clusters.centroids: %s stands twice", g.ID)
		seen[g.ID] = true
		for _, v := range []float64{g.Recency, g.Frequency, g.Monetary} {
			between(c, fmt.Sprintf("clusters.centroids: %s", g.ID), v, -1e6, 1e6)
		}
	}
}

// ClusterFeatures are what K-means compares customers by: days since the last
// purchase, and ln(1+x) of orders and of money in typical orders, both of the
// window (a window without any is 0, not minus infinity). False without an
// active order: such a customer is in no cluster.
func (m *Model) ClusterFeatures(s *Summary) (f [3]float64, ok bool) {
	if !s.Active {
		return f, false
	}
	return [3]float64{
		float64(s.Today - s.LastDay),
		dmath.Log1p(float64(s.WindowOrders)),
		dmath.Log1p(float64(max(0, s.WindowNet)) / float64(m.typicalOrder)),
	}, true
}

// cluster is the ID of the nearest centroid, of equally near ones the first;
// empty without an active order, and in a model without clusters.
func (m *Model) cluster(s *Summary) string {
	f, ok := m.ClusterFeatures(s)
	if !ok || m.clusters == nil {
		return ""
	}
	d := m.clusters
	for i, by := range []spread{d.Recency, d.Frequency, d.Monetary} {
		f[i] = (f[i] - by.Mean) / by.SD
	}
	id, nearest := "", math.Inf(1)
	for _, g := range d.Centroids {
		r, o, n := f[0]-g.Recency, f[1]-g.Frequency, f[2]-g.Monetary
		if far := float64(r*r) + float64(o*o) + float64(n*n); far < nearest {
			id, nearest = g.ID, far
		}
	}
	return id
}
