package verify

import (
	"cmp"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tierstream/tierstream/internal/cohort"
	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/scoring"
)

// -update writes the tables of docs/scoring-figures.md.
var update = flag.Bool("update", false, "write the figures into docs/scoring-figures.md")

// rfm is what one customer's segment is made of.
type rfm struct {
	days, orders float64
	money        float64
}

// quintiles are the four quantiles of type 7 (linear between order statistics).
func quintiles(values []float64) (cuts [4]float64) {
	v := slices.Sorted(slices.Values(values))
	for i := range cuts {
		at := float64(len(v)-1) * float64(i+1) / 5
		low := int(at)
		cuts[i] = v[low]
		if low+1 < len(v) {
			cuts[i] += (at - float64(low)) * (v[low+1] - v[low])
		}
	}
	return cuts
}

func each(customers map[string]rfm, value func(rfm) float64) (values []float64) {
	for _, c := range customers {
		values = append(values, value(c))
	}
	return values
}

// below counts the cut points below v, or not above it.
func below(cuts [4]float64, v float64, reached bool) (n int) {
	for _, c := range cuts {
		if c < v || reached && c == v {
			n++
		}
	}
	return n
}

// TestRFMPackageCounts computes the segments of the orders of the R package
// rfm by that package's rules, which only this test has: cut points are
// quantiles plus 1, a score begins with its cut point, and of overlapping
// ranges the first counts.
func TestRFMPackageCounts(t *testing.T) {
	reader, err := cohort.Open(openData(t, "rfm_orders/rfm_data_orders.csv"), cohort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	today, err := cohort.ParseDate("2006-12-31")
	if err != nil {
		t.Fatal(err)
	}
	customers := map[string]rfm{}
	if err := reader.Each(func(_ int64, ev *event.Event) error {
		c, known := customers[ev.Customer]
		days := float64(today - reader.Day(ev.Time))
		if !known || days < c.days {
			c.days = days
		}
		c.orders++
		c.money += float64(ev.Amount) / 100
		customers[ev.Customer] = c
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	cuts := func(value func(rfm) float64) [4]float64 {
		q := quintiles(each(customers, value))
		for i := range q {
			q[i]++
		}
		return q
	}
	r, f, m := cuts(func(c rfm) float64 { return c.days }), cuts(func(c rfm) float64 { return c.orders }), cuts(func(c rfm) float64 { return c.money })
	if got, want := fmt.Sprintf("%.1f %.1f %.1f", r, f, m), "[115.0 181.0 297.4 482.0] [4.0 5.0 6.0 8.0] [255.8 382.0 506.4 666.0]"; got != want {
		t.Errorf("cut points %s, want %s", got, want)
	}
	segments := []struct {
		name    string
		r, f, m [2]int
	}{
		{"Champions", [2]int{4, 5}, [2]int{4, 5}, [2]int{4, 5}},
		{"Loyal", [2]int{2, 5}, [2]int{3, 5}, [2]int{3, 5}},
		{"Potential Loyalist", [2]int{3, 5}, [2]int{1, 3}, [2]int{1, 3}},
		{"New", [2]int{4, 5}, [2]int{1, 1}, [2]int{1, 1}},
		{"Promising", [2]int{3, 4}, [2]int{1, 1}, [2]int{1, 1}},
		{"Need Attention", [2]int{2, 3}, [2]int{2, 3}, [2]int{2, 3}},
		{"About To Sleep", [2]int{2, 3}, [2]int{1, 2}, [2]int{1, 2}},
		{"At Risk", [2]int{1, 2}, [2]int{2, 5}, [2]int{2, 5}},
		{"Can't Lose", [2]int{1, 1}, [2]int{4, 5}, [2]int{4, 5}},
		{"Lost", [2]int{1, 2}, [2]int{1, 2}, [2]int{1, 2}},
	}
	within := func(score int, of [2]int) bool { return of[0] <= score && score <= of[1] }
	counts := map[string]int{}
	var orders, revenue float64
	for _, c := range customers {
		rs, fs, ms := 5-below(r, c.days, true), 1+below(f, c.orders, true), 1+below(m, c.money, true)
		name := "Others"
		for _, s := range segments {
			if within(rs, s.r) && within(fs, s.f) && within(ms, s.m) {
				name = s.name
				break
			}
		}
		counts[name]++
		if name == "Champions" {
			orders += c.orders
			revenue += c.money
		}
	}
	want := map[string]int{"Loyal": 278, "Potential Loyalist": 229, "Champions": 158, "Lost": 111, "At Risk": 86, "About To Sleep": 50, "Others": 48, "Need Attention": 35}
	if !maps.Equal(counts, want) {
		t.Errorf("segments %v, want %v", counts, want)
	}
	if orders != 1_234 || revenue != 120_178 {
		t.Errorf("Champions have %.0f orders worth %.0f, want 1234 and 120178", orders, revenue)
	}
	figures(t, "rfm-package", countTable("Segment", want, counts))
}

// tenSegments is the map of R and F scores that many notebooks have.
func tenSegments(r, f int) string {
	switch {
	case r == 5 && f >= 4:
		return "champions"
	case r >= 3 && r <= 4 && f >= 4:
		return "loyal"
	case r >= 4 && f >= 2 && f <= 3:
		return "potential_loyalist"
	case r == 5 && f == 1:
		return "new"
	case r == 4 && f == 1:
		return "promising"
	case r == 3 && f == 3:
		return "need_attention"
	case r == 3:
		return "about_to_sleep"
	case f == 5:
		return "cant_lose"
	case f >= 3:
		return "at_risk"
	}
	return "hibernating"
}

// TestTenSegmentCounts computes the segments of the UCI log as notebooks do,
// by rules that only this test has: credit notes are left out, and customers
// with as many orders are ranked by their numbers, which gives 1,493 equal
// customers two different scores.
func TestTenSegmentCounts(t *testing.T) {
	in, err := gzip.NewReader(openData(t, "online_retail/online_retail.csv.gz"))
	if err != nil {
		t.Fatal(err)
	}
	rows := csv.NewReader(in)
	rows.ReuseRecord = true
	type found struct {
		last     time.Time
		invoices map[string]bool
	}
	customers := map[string]*found{}
	for n := 0; ; n++ {
		// InvoiceNo, StockCode, Description, Quantity, InvoiceDate, UnitPrice, CustomerID, Country
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if n == 0 || row[6] == "" || strings.HasPrefix(row[0], "C") || strings.HasPrefix(row[3], "-") {
			continue
		}
		price, err := strconv.ParseFloat(row[5], 64)
		if err != nil {
			t.Fatal(err)
		}
		if price <= 0 {
			continue
		}
		at, err := time.Parse(time.DateTime, row[4])
		if err != nil {
			t.Fatal(err)
		}
		c := customers[row[6]]
		if c == nil {
			c = &found{invoices: map[string]bool{}}
			customers[strings.Clone(row[6])] = c
		}
		if at.After(c.last) {
			c.last = at
		}
		c.invoices[strings.Clone(row[0])] = true
	}
	if len(customers) != 4_338 {
		t.Errorf("%d customers, want 4338", len(customers))
	}
	today := time.Date(2011, 12, 11, 0, 0, 0, 0, time.UTC)
	days := func(c *found) float64 { return math.Floor(today.Sub(c.last).Hours() / 24) }
	ids := slices.SortedFunc(maps.Keys(customers), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(customers[a].invoices), len(customers[b].invoices)), cmp.Compare(a, b)) // numbers of equal length
	})
	var r, ranks []float64
	for i, id := range ids {
		r = append(r, days(customers[id]))
		ranks = append(ranks, float64(i+1))
	}
	byDays, byRank := quintiles(r), quintiles(ranks)
	counts, once := map[string]int{}, map[int]int{}
	for i, id := range ids {
		f := 1 + below(byRank, ranks[i], false)
		counts[tenSegments(5-below(byDays, r[i], false), f)]++
		if len(customers[id].invoices) == 1 {
			once[f]++
		}
	}
	want := map[string]int{
		"champions": 633, "loyal": 819, "potential_loyalist": 484, "new": 42, "promising": 94,
		"need_attention": 187, "about_to_sleep": 352, "cant_lose": 63, "at_risk": 593, "hibernating": 1071,
	}
	if !maps.Equal(counts, want) {
		t.Errorf("segments %v, want %v", counts, want)
	}
	if !maps.Equal(once, map[int]int{1: 868, 2: 625}) {
		t.Errorf("customers with one order by F score: %v, want 868 and 625", once)
	}
	figures(t, "ten-segments", countTable("Segment", want, counts))
}

// TestOurSegmentCounts scores the same logs by the product's rules: the
// record and the model, whole numbers as cut points, a score for a value whoever
// else has it. The cut points are the quintiles of the population as of the day.
func TestOurSegmentCounts(t *testing.T) {
	for _, c := range []struct {
		figures, file, currency, today string
	}{
		{"rfm-ours", "rfm_orders/rfm_data_orders.csv", "EUR", "2006-12-31"},
		{"uci-ours", "online_retail/online_retail.csv.gz", "GBP", "2011-12-11"},
	} {
		t.Run(c.figures, func(t *testing.T) {
			reader, err := cohort.Open(openData(t, c.file), cohort.Options{})
			if err != nil {
				t.Fatal(err)
			}
			model := modelFor(t, c.currency, reader.Zone)
			records := recordsOf(t, reader, model, c.currency)
			today, err := cohort.ParseDate(c.today)
			if err != nil {
				t.Fatal(err)
			}
			at := model.Calendar().Start(today)
			folder := folderFor(t, model, c.currency)
			summaries := map[string]*scoring.Summary{}
			values := map[string]rfm{}
			for id, r := range records {
				s := new(scoring.Summary)
				if folder.Summarize(r, at, s); s.Active {
					summaries[id] = s
					values[id] = rfm{float64(today - s.LastDay), float64(s.WindowOrders), float64(s.WindowNet)}
				}
			}
			whole := func(value func(rfm) float64) (cuts [4]int64) {
				for i, q := range quintiles(each(values, value)) {
					cuts[i] = int64(q)
					if i > 0 {
						cuts[i] = max(cuts[i], cuts[i-1]+1)
					}
				}
				return cuts
			}
			days, orders, money := whole(func(c rfm) float64 { return c.days }), whole(func(c rfm) float64 { return c.orders }), whole(func(c rfm) float64 { return c.money })
			document, err := scoring.Init(scoring.InitOptions{Currency: c.currency, Zone: reader.Zone, TypicalOrderMinor: 100})
			if err != nil {
				t.Fatal(err)
			}
			list := func(key string, cuts [4]int64, scale float64) string {
				var texts []string
				for _, v := range cuts {
					texts = append(texts, strconv.FormatFloat(float64(v)/scale, 'f', -1, 64))
				}
				return key + ": [" + strings.Join(texts, ", ") + "]"
			}
			text := strings.NewReplacer(
				"recency_days: [30, 60, 90, 180]", list("recency_days", days, 1),
				"frequency_orders: [1, 2, 4, 8]", list("frequency_orders", orders, 1),
				"monetary_orders: [1, 2, 4, 8]", list("monetary_orders", money, 100),
			).Replace(string(document))
			cut, err := scoring.Parse([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			counts, scores := map[string]int{}, map[[2]int64]bool{}
			for _, s := range summaries {
				v := cut.Values(s).RFM
				counts[v.Segment]++
				scores[[2]int64{v.Orders, int64(v.F)}] = true
				if want := tenSegments(5-below(floats(days), float64(today-s.LastDay), false), 1+below(floats(orders), float64(s.WindowOrders), false)); v.Segment != want {
					t.Fatalf("R %d F %d is %s, want %s", v.R, v.F, v.Segment, want)
				}
			}
			perOrders := map[int64]int{}
			for s := range scores {
				if perOrders[s[0]]++; perOrders[s[0]] > 1 {
					t.Errorf("customers with %d orders have different F scores", s[0])
				}
			}
			figures(t, c.figures, fmt.Sprintf("%d customers; cut points R %d, F %d, M %d (minor units)\n\n%s", len(summaries), days, orders, money, countTable("Segment", counts)))
		})
	}
}

func floats(v [4]int64) (out [4]float64) {
	for i := range v {
		out[i] = float64(v[i])
	}
	return out
}

func folderFor(t *testing.T, model *scoring.Model, currency string) *customer.Folder {
	t.Helper()
	f, err := customer.NewFolder(customer.DefaultPolicy(currency), model.Calendar(), model.WindowDays())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// recordsOf streams a log through the customer record.
func recordsOf(t *testing.T, reader *cohort.Reader, model *scoring.Model, currency string) map[string]*customer.Record {
	t.Helper()
	var events []event.Event
	if err := reader.Each(func(_ int64, ev *event.Event) error {
		events = append(events, *ev)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	slices.SortStableFunc(events, func(a, b event.Event) int { return cmp.Compare(a.Time, b.Time) })
	folder := folderFor(t, model, currency)
	records := map[string]*customer.Record{}
	for i := range events {
		ev := &events[i]
		ev.Content = event.ContentHash(ev)
		r := records[ev.Customer]
		if r == nil {
			fresh := customer.NewRecord()
			r = &fresh
			records[ev.Customer] = r
		}
		folder.Expire(r, ev.Time)
		folder.Apply(r, ev)
	}
	return records
}

// countTable is a table in Markdown: a row per segment, the largest first, and
// the numbers of each of the counts, the first deciding the order.
func countTable(head string, counts ...map[string]int) string {
	names := slices.SortedFunc(maps.Keys(counts[0]), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[0][b], counts[0][a]), cmp.Compare(a, b))
	})
	var b strings.Builder
	if len(counts) == 2 {
		fmt.Fprintf(&b, "| %s | Published | Computed |\n| --- | --: | --: |\n", head)
	} else {
		fmt.Fprintf(&b, "| %s | Customers |\n| --- | --: |\n", head)
	}
	for _, n := range names {
		fmt.Fprintf(&b, "| %s |", strings.ReplaceAll(n, "_", " "))
		for _, c := range counts {
			fmt.Fprintf(&b, " %d |", c[n])
		}
		b.WriteString("\n")
	}
	return b.String()
}

// figures holds a part of docs/scoring-figures.md, between comments that name
// it, to what was computed; -update writes it.
func figures(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join("..", "..", "docs", "scoring-figures.md")
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- "+name+" -->\n", "<!-- end -->"
	before, rest, ok := strings.Cut(string(page), begin)
	held, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no part %s", path, name)
	}
	if alike(held, text) {
		return
	}
	if !*update {
		t.Errorf("%s says of %s\n%s\nwhich is\n%s\n(go test ./internal/verify -run 'Counts|Figures' -update)", path, name, held, text)
		return
	}
	if err := os.WriteFile(path, []byte(before+begin+text+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// alike compares texts: numbers with a fraction may differ by 2 in the last
// digit, as an optimizer's do between machines.
func alike(a, b string) bool {
	x, y := strings.Fields(a), strings.Fields(b)
	return slices.EqualFunc(x, y, func(x, y string) bool {
		if x == y {
			return true
		}
		p, err := strconv.ParseFloat(x, 64)
		q, bad := strconv.ParseFloat(y, 64)
		_, decimals, ok := strings.Cut(x, ".")
		return err == nil && bad == nil && ok && math.Abs(p-q) <= 2.5*math.Pow(10, -float64(len(decimals)))
	})
}

func TestAlike(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"| 1.234 | x", "| 1.236 | x", true}, {"1.234", "1.238", false}, {"12", "13", false}, {"a 1.0", "a", false}, {"1.0 a", "1.0 b", false}, {"-0.1234", "0.1234", false},
	} {
		if alike(c.a, c.b) != c.want {
			t.Errorf("%q and %q: want %v", c.a, c.b, c.want)
		}
	}
}
