package scoring

import (
	"bytes"
	"strings"
	"testing"
)

const clustersText = `
clusters:
  recency: {mean: 100, sd: 50}
  frequency: {mean: 1, sd: 0.5}
  monetary: {mean: 1, sd: 0.5}
  centroids:
    - {id: recent, recency: -2, frequency: 0, monetary: 0}
    - {id: also-recent, recency: -2, frequency: 0, monetary: 0}
    - {id: often, recency: -2, frequency: 3, monetary: 3}
    - {id: gone, recency: 2, frequency: -2, monetary: -2}
`

func clustered(t *testing.T, text string) (*Model, error) {
	t.Helper()
	return Parse(append(bytes.Clone(defaultYAML), text...))
}

// TestClusterIsTheNearest: of equally near centroids the first; nobody without
// an order; no tier and no score depends on it.
func TestClusterIsTheNearest(t *testing.T) {
	m, err := clustered(t, clustersText)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(m.Canonical(), Default().Canonical()) || m.Hash() == Default().Hash() {
		t.Error("the clusters are not part of the model")
	}
	for _, c := range []struct {
		s    Summary
		want string
	}{
		{Summary{}, ""},
		{Summary{Active: true, Bought: true, Today: 1000, LastDay: 1000, FirstDay: 1000, Days: 1, Orders: 1, WindowOrders: 1, WindowNet: 5000}, "recent"},
		{Summary{Active: true, Bought: true, Today: 1000, LastDay: 999, FirstDay: 700, Days: 30, Orders: 30, WindowOrders: 12, WindowNet: 100_000}, "often"},
		{Summary{Active: true, Bought: true, Today: 1000, LastDay: 500, FirstDay: 400, Days: 3, Orders: 3}, "gone"},
	} {
		v, plain := m.Values(&c.s), Default().Values(&c.s)
		if v.RFM.Cluster != c.want || plain.RFM.Cluster != "" {
			t.Errorf("%+v: cluster %q, want %q; without clusters %q", c.s, v.RFM.Cluster, c.want, plain.RFM.Cluster)
		}
		if v.Score != plain.Score {
			t.Errorf("%+v: score %v with clusters, %v without", c.s, v.Score, plain.Score)
		}
	}
	again, err := Parse(m.Canonical())
	if err != nil || again.Hash() != m.Hash() {
		t.Errorf("canonical form: %v", err)
	}
}

func TestBadClustersAreRefused(t *testing.T) {
	for from, want := range map[string]string{
		"id: also-recent":    "recent stands twice",
		"sd: 50":             "clusters.recency.sd",
		"recency: 2,":        "clusters.centroids: gone",
		"id: often":          `clusters.centroids: id is ""`,
		"  frequency: {mean": "is no key of a model",
	} {
		to := map[string]string{
			"id: also-recent": "id: recent", "sd: 50": "sd: 0", "recency: 2,": "recency: .nan,", "id: often": `id: ""`, "  frequency: {mean": "  often: {mean",
		}[from]
		if _, err := clustered(t, strings.Replace(clustersText, from, to, 1)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", to, err, want)
		}
	}
}

// TestProvenanceIsPartOfTheModel: kept as it is written, in any depth, and hashed.
func TestProvenanceIsPartOfTheModel(t *testing.T) {
	a, err := clustered(t, "\nprovenance: {fit: {customers: 2357, log: cdnow, standard_errors: {r: 0.08}}}\n")
	if err != nil {
		t.Fatal(err)
	}
	b, err := clustered(t, "\nprovenance: {fit: {standard_errors: {r: 0.08}, log: cdnow, customers: 2357}}\n")
	if err != nil {
		t.Fatal(err)
	}
	if a.Hash() != b.Hash() || a.Hash() == Default().Hash() {
		t.Error("the hash does not follow the provenance")
	}
	if want := `"provenance":{"fit":{"customers":2357,"log":"cdnow","standard_errors":{"r":0.08}}}`; !bytes.Contains(a.Canonical(), []byte(want)) {
		t.Errorf("canonical form %s", a.Canonical())
	}
	if again, err := Parse(a.Canonical()); err != nil || again.Hash() != a.Hash() {
		t.Errorf("canonical form: %v", err)
	}
	for _, bad := range []string{"provenance: 3", "provenance: {x: .nan}", "provenance: [1]"} {
		if _, err := clustered(t, "\n"+bad+"\n"); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}
