package backtest

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strconv"

	"github.com/tierstream/tierstream/internal/cohort"
	"github.com/tierstream/tierstream/internal/scoring/btyd"
)

//go:embed report.html
var reportHTML string

var report = template.Must(template.New("report").Parse(reportHTML))

// colours are classes of the page: what happened, the models, the naive rate.
var colours = []string{"c0", "c1", "c2", "c3", "c4", "c5", "c6", "cn"}

// keyed is an entry of a plot's key.
type keyed struct{ Name, Class string }

// cell is a figure of the table.
type cell struct {
	Text string
	Best bool
}

type row struct {
	Result
	Cells []cell
}

type matrices struct {
	Name            string
	Age             string
	Alive, Expected template.HTML
}

// page is what the template shows.
type page struct {
	*Backtest
	Colours    []string
	Rows       []row
	Parameters []string

	Key, ModelKey, TrackKey, AliveKey []keyed
	Step                              string
	Cumulative, Incremental           template.HTML
	Frequency, Conditional, One       template.HTML
	OneName                           string
	Matrices                          []matrices
}

// class is the colour of the i-th result.
func (b *Backtest) class(i int) string {
	if b.Results[i].Name == naive {
		return "cn"
	}
	n := 0
	for _, r := range b.Results[:i] {
		if r.Name != naive {
			n++
		}
	}
	return colours[1+n%(len(colours)-2)]
}

// Report writes the backtest as one HTML page that loads nothing. customer is
// whose history is drawn; "" chooses a frequent buyer.
func (b *Backtest) Report(w io.Writer, customer string) error {
	p := &page{Backtest: b, Colours: colours, Rows: b.rows()}
	actual := keyed{"actual", colours[0]}
	p.Key, p.ModelKey, p.TrackKey = []keyed{actual}, []keyed{actual}, []keyed{actual}
	for i, r := range b.Results {
		if r.Error != "" {
			continue
		}
		k := keyed{r.Name, b.class(i)}
		p.Key = append(p.Key, k)
		m := r.estimate.Model
		if m == nil {
			continue
		}
		p.ModelKey, p.TrackKey, p.AliveKey = append(p.ModelKey, k), append(p.TrackKey, k), append(p.AliveKey, k)
		if r.Parameters != "" {
			p.Parameters = append(p.Parameters, r.Name+": "+r.Parameters)
		}
		p.Matrices = append(p.Matrices, b.matrices(m))
	}
	b.track(p)
	b.frequency(p)
	b.conditional(p)
	if err := b.one(p, customer); err != nil {
		return err
	}
	return report.Execute(w, p)
}

// Table is the comparison as text: a header, and a row per predictor.
func (b *Backtest) Table() [][]string {
	table := [][]string{{"model"}}
	for _, c := range b.columns() {
		table[0] = append(table[0], c.name)
	}
	for _, r := range b.rows() {
		cells := []string{r.Name}
		for _, c := range r.Cells {
			cells = append(cells, c.Text)
		}
		table = append(table, cells)
	}
	return table
}

// column is a figure by which predictors are compared.
type column struct {
	name     string
	decimals int
	percent  bool
	value    func(*Result) *float64
	distance func(float64) float64 // the least is the best; nil: none is
}

func (b *Backtest) columns() []column {
	return []column{
		{"ln L", 1, false, func(r *Result) *float64 { return r.LogLikelihood }, nil},
		{"predicted", 1, false, func(r *Result) *float64 { return &r.Predicted }, func(v float64) float64 { return math.Abs(v - float64(b.Actual)) }},
		{"bias", 1, true, func(r *Result) *float64 { return r.Bias }, math.Abs},
		{"MAE", 4, false, func(r *Result) *float64 { return &r.MAE }, math.Abs},
		{"RMSE", 4, false, func(r *Result) *float64 { return &r.RMSE }, math.Abs},
		{"correlation", 4, false, func(r *Result) *float64 { return r.Correlation }, func(v float64) float64 { return -v }},
		{"log score", 4, false, func(r *Result) *float64 { return &r.LogScore }, math.Abs},
	}
}

// rows are the table, with the best figure of each column.
func (b *Backtest) rows() []row {
	rows := make([]row, len(b.Results))
	for i := range b.Results {
		rows[i].Result = b.Results[i]
	}
	for _, c := range b.columns() {
		best, at := math.Inf(1), -1
		for i := range rows {
			text := "–"
			if v := c.value(&rows[i].Result); v != nil && rows[i].Error == "" {
				if c.percent {
					text = fmt.Sprintf("%+.*f %%", c.decimals, 100**v)
				} else {
					text = strconv.FormatFloat(*v, 'f', c.decimals, 64)
				}
				if c.distance != nil && c.distance(*v) < best {
					best, at = c.distance(*v), i
				}
			}
			rows[i].Cells = append(rows[i].Cells, cell{Text: text})
		}
		if at >= 0 {
			rows[at].Cells[len(rows[at].Cells)-1].Best = true
		}
	}
	return rows
}

// track draws repeat purchases over time, of all and of each step.
func (b *Backtest) track(p *page) {
	first := b.cut.End
	births := map[int32]int{}
	for i := range b.customers {
		first = min(first, b.customers[i].First)
		births[b.customers[i].First]++
	}
	days := slices.Sorted(func(yield func(int32) bool) {
		for d := range births {
			if !yield(d) {
				return
			}
		}
	})
	step := int32(7)
	for (b.cut.End-first)/step > 150 {
		step += 7
	}
	if p.Step = "week"; step > 7 {
		p.Step = fmt.Sprintf("%d weeks", step/7)
	}
	n := int((b.cut.End - first) / step)
	actual := make([]float64, n+1)
	for i := range b.customers {
		for _, day := range b.customers[i].Purchases[1:] {
			if at := int((day-first)/step) + 1; at <= n {
				actual[at]++
			}
		}
	}
	x := make([]float64, n+1)
	for i := range x {
		x[i] = float64(int32(i) * step / 7)
	}
	cumulative := []series{{name: "actual", class: colours[0], x: x, y: sums(actual)}}
	incremental := []series{{name: "actual", class: colours[0], x: x[1:], y: actual[1:]}}
	for i, r := range b.Results {
		m := r.estimate.Model
		if m == nil {
			continue
		}
		y := make([]float64, n+1)
		for at := range y {
			now := first + int32(at)*step
			for _, day := range days {
				if age := b.cut.Span(day, now); age > 0 {
					y[at] += float64(births[day]) * m.Expected(btyd.History{}, age)
				}
			}
		}
		each := make([]float64, n)
		for at := range each {
			each[at] = y[at+1] - y[at]
		}
		cumulative = append(cumulative, series{name: r.Name, class: b.class(i), x: x, y: y})
		incremental = append(incremental, series{name: r.Name, class: b.class(i), x: x[1:], y: each})
	}
	cut := []mark{{float64(b.cut.Calibration-first) / 7, "cut " + b.Calibration}}
	frame := axes{xLabel: "weeks since " + cohort.Date(first), yLabel: "repeat purchases", xMax: max(x[n], 1), marks: cut}
	frame.label = "Cumulative repeat purchases, actual and by model"
	p.Cumulative = frame.lines(cumulative)
	frame.label = "Repeat purchases of each step, actual and by model"
	p.Incremental = frame.lines(incremental)
}

func sums(v []float64) []float64 {
	out := make([]float64, len(v))
	total := 0.0
	for i := range v {
		total += v[i]
		out[i] = total
	}
	return out
}

// groupNames are those of the groups by frequency.
func (b *Backtest) groupNames() (names []string) {
	for _, g := range b.Groups {
		names = append(names, g.X)
	}
	return names
}

// frequency draws how many customers bought so often again.
func (b *Backtest) frequency(p *page) {
	if len(p.ModelKey) == 1 {
		return
	}
	ages := map[float64]float64{}
	for i := range b.histories {
		ages[b.histories[i].Age]++
	}
	all := []series{{name: "actual", class: colours[0]}}
	for _, g := range b.Groups {
		all[0].y = append(all[0].y, float64(g.Customers))
	}
	for i, r := range b.Results {
		m := r.estimate.Model
		if m == nil {
			continue
		}
		s := series{name: r.Name, class: b.class(i), y: make([]float64, groups)}
		for age, customers := range ages {
			rest := 1.0
			for n := range groups - 1 {
				v := m.Probability(n, age)
				s.y[n] += customers * v
				rest -= v
			}
			s.y[groups-1] += customers * max(rest, 0)
		}
		all = append(all, s)
	}
	p.Frequency = axes{label: "Customers by repeat purchases in the calibration", xLabel: "repeat purchases in the calibration", yLabel: "customers", xNames: b.groupNames()}.bars(all)
}

// conditional draws the holdout by frequency.
func (b *Backtest) conditional(p *page) {
	all := []series{{name: "actual", class: colours[0]}}
	for _, g := range b.Groups {
		all[0].y = append(all[0].y, g.Actual)
	}
	for i, r := range b.Results {
		if r.Error == "" {
			all = append(all, series{name: r.Name, class: b.class(i), y: r.ByFrequency})
		}
	}
	p.Conditional = axes{label: "Mean purchases in the holdout by repeat purchases before", xLabel: "repeat purchases in the calibration", yLabel: "purchases in the holdout", xNames: b.groupNames()}.bars(all)
}

// matrices draws P(alive) and the forecast over frequency and recency.
func (b *Backtest) matrices(m btyd.Model) matrices {
	age, xs := 0.0, make([]int, 0, len(b.customers))
	for i := range b.histories {
		age = max(age, b.histories[i].Age)
		if b.customers[i].X > 0 {
			xs = append(xs, b.customers[i].X)
		}
	}
	slices.Sort(xs)
	columns := min(max(xs[len(xs)*99/100], 10), 40) + 1
	const rows = 30
	frame := func(label string) axes {
		return axes{label: label, xLabel: "repeat purchases", yLabel: fmt.Sprintf("age at the last, %ss", b.Unit), yMax: age}
	}
	at := func(f func(btyd.History) float64) func(column, row int) float64 {
		return func(column, row int) float64 {
			h := btyd.History{Frequency: float64(column), Age: age}
			if column > 0 {
				h.AgeAtLast = age * (float64(row) + 0.5) / rows
			}
			if column == 0 && row > 0 {
				return math.NaN() // there is no last repeat purchase
			}
			return f(h)
		}
	}
	return matrices{
		Name: m.Name(), Age: strconv.FormatFloat(age, 'g', 4, 64),
		Alive:    frame("P(alive) by repeat purchases and recency").matrix(columns, rows, at(m.Alive)),
		Expected: frame("Expected purchases by repeat purchases and recency").matrix(columns, rows, at(func(h btyd.History) float64 { return m.Expected(h, b.Horizon) })),
	}
}

// one draws one customer's P(alive) over time.
func (b *Backtest) one(p *page, id string) error {
	var who int
	if id != "" {
		if who = slices.IndexFunc(b.customers, func(s cohort.Summary) bool { return s.Customer == id }); who < 0 {
			return fmt.Errorf("customer %s had not bought by %s", id, b.Calibration)
		}
	} else {
		// A frequent buyer, of whom there is something to see: the first of those
		// at the 95th percentile of repeat buyers.
		var xs []int
		for i := range b.customers {
			if x := b.customers[i].X; x > 0 {
				xs = append(xs, x)
			}
		}
		slices.Sort(xs)
		want := xs[len(xs)*95/100]
		who = slices.IndexFunc(b.customers, func(s cohort.Summary) bool { return s.X == want })
	}
	if len(p.AliveKey) == 0 {
		return nil
	}
	s := &b.customers[who]
	p.OneName = fmt.Sprintf("%s, %d repeat purchases by the cut", s.Customer, s.X)
	step := max(1, (b.cut.End-s.First)/700)
	frame := axes{label: "P(alive) of one customer over time", xLabel: "days since " + cohort.Date(s.First), yLabel: "P(alive)", xMax: float64(max(b.cut.End-s.First, 1)), yMax: 1}
	frame.marks = append(frame.marks, mark{float64(b.cut.Calibration - s.First), "cut " + b.Calibration})
	for _, day := range s.Purchases {
		frame.marks = append(frame.marks, mark{x: float64(day - s.First)})
	}
	var all []series
	for i, r := range b.Results {
		m := r.estimate.Model
		if m == nil {
			continue
		}
		line := series{name: r.Name, class: b.class(i)}
		next := 1 // purchase
		h := btyd.History{}
		for day := s.First; day <= b.cut.End; day++ {
			bought := next < len(s.Purchases) && s.Purchases[next] <= day
			if bought {
				next++
				h.Frequency++
				h.AgeAtLast = b.cut.Span(s.First, day)
			}
			h.Age = b.cut.Span(s.First, day)
			if bought || (day-s.First)%step == 0 {
				line.x = append(line.x, float64(day-s.First))
				line.y = append(line.y, m.Alive(h))
			}
		}
		all = append(all, line)
	}
	p.One = frame.lines(all)
	return nil
}
