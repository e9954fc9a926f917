package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"text/tabwriter"

	"github.com/tierstream/tierstream/internal/cli"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/fit"
)

type segmentCmd struct {
	KMeans kmeansCmd `cmd:"" name:"kmeans" help:"Cluster customers by recency, frequency and money."`
}

type kmeansCmd struct {
	logFlags
	versionFlags

	K    int    `short:"k" help:"Number of clusters, 1 to 32." default:"5"`
	Seed uint64 `help:"Of the random starts: the same log, k and seed give the same clusters." default:"1"`
}

func (c *kmeansCmd) Help() string {
	return `Divides the customers of a log into clusters by K-means on standardized R (days since the last purchase), ln(1+F) (orders of the window) and ln(1+M) (money of the window, in typical orders); k-means++ starts, the best of ten. Prints sizes and centroids, and writes the next version of --base with them: every customer is then shown with the cluster of the nearest centroid (rfm.cluster). Clusters decide no tier.

` + populationHelp + `

  tierctl segment kmeans orders.ndjson --base model.yaml --k 5 --seed 1 -o model-2.yaml`
}

func (c *kmeansCmd) Run(ctx context.Context, t *terminal) error {
	if c.Base == "" {
		return cli.Usage(errors.New("--base: missing: the model whose window, zone and typical order count"))
	}
	if c.K < 1 || c.K > 32 {
		return cli.Usage(fmt.Errorf("--k %d: want 1 to 32", c.K))
	}
	e, m, err := c.open()
	if err != nil {
		return err
	}
	all, err := c.population(ctx, t, m)
	if err != nil {
		return err
	}
	points := make([][3]float64, len(all))
	for i := range all {
		points[i], _ = m.ClusterFeatures(&all[i]) // everybody here has an order
	}
	found, err := fit.KMeans(points, c.K, c.Seed)
	if err != nil {
		return err
	}
	spread := func(f int) map[string]any {
		return map[string]any{"mean": rounded(found.Mean[f]), "sd": rounded(found.SD[f])}
	}
	var centroids []map[string]any
	w := tabwriter.NewWriter(t.err, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "cluster\tcustomers\tshare\tdays since last\torders\tmoney\t")
	for i, z := range found.Centroids {
		id := "c" + strconv.Itoa(i+1)
		centroids = append(centroids, map[string]any{"id": id, "recency": rounded(z[0]), "frequency": rounded(z[1]), "monetary": rounded(z[2])})
		raw := func(f int) float64 { return found.Mean[f] + found.SD[f]*z[f] }
		money := int64(math.Round(math.Expm1(raw(2)) * float64(m.TypicalOrder())))
		fmt.Fprintf(w, "%s\t%s\t%.1f %%\t%.0f\t%.1f\t%s\t\n", id, grouped(int64(found.Sizes[i])), 100*float64(found.Sizes[i])/float64(len(all)),
			raw(0), math.Expm1(raw(1)), event.FormatMoney(money, m.Currency()))
	}
	_ = w.Flush() // to standard error
	if err := errors.Join(
		e.section("clusters", map[string]any{"recency": spread(0), "frequency": spread(1), "monetary": spread(2), "centroids": centroids}),
		e.provenance("clusters", map[string]any{"customers": len(all), "k": c.K, "seed": c.Seed, "within": rounded(found.Within)}),
	); err != nil {
		return err
	}
	_, err = c.finish(t, e, m.Name())
	return err
}
