package scoring

import (
	"bufio"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tierstream/tierstream/internal/testenv"
)

// chain is a Markov model of states with chances to buy, each seen a million
// times, at a discount per period (of 365 days).
func chain(periods int, lost bool, discount float64, chances ...float64) markovModel {
	d := markovDocument{Period: 365, Periods: periods, DaysPerBuy: million, Lost: lost}
	for _, p := range chances {
		d.Recency = append(d.Recency, transitionDocument{int64(math.Round(p * 1e6)), 1e6})
	}
	return d.model(discount)
}

// The example of Pfeifer and Carraway (2000): NC 40, M 4, a discount of 20 %, and
// chances of 0.3, 0.2, 0.15 and 0.05. Their value of a state has its present
// reward in it, ours has not. Without end (I − P/1.2)⁻¹R is 52.320, 5.554, 1.251
// and −1.820; over four periods a customer who has just bought is worth 50.115.
func TestMarkovExampleOfThePaper(t *testing.T) {
	const nc, contact = 40, 4
	value := func(k *markovModel, state int) float64 {
		reward := -float64(contact)
		if state == 1 {
			reward += nc
		}
		v := k.at[state-1]
		return reward + nc*v.buys - contact*v.contacts
	}
	k := chain(0, true, 0.2, 0.3, 0.2, 0.15, 0.05)
	for i, want := range []float64{52.320, 5.554, 1.251, -1.820} {
		if got := value(&k, i+1); math.Abs(got-want) > 0.0005 {
			t.Errorf("state %d is worth %.4f, want %.3f", i+1, got, want)
		}
	}
	k = chain(4, true, 0.2, 0.3, 0.2, 0.15, 0.05)
	if got := value(&k, 1); math.Abs(got-50.115) > 0.0005 {
		t.Errorf("over four periods state 1 is worth %.4f, want 50.115", got)
	}
}

// Σ (1+d)⁻ᵗPᵗR by powers of the matrix, as the paper writes it.
func TestMarkovEqualsThePowersOfItsMatrix(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 2))
	for range 300 {
		n, periods, lost, discount := 1+r.IntN(6), 1+r.IntN(12), r.IntN(2) == 0, r.Float64()
		chances := make([]float64, n)
		for i := range chances {
			chances[i] = math.Round(r.Float64()*1e6) / 1e6
		}
		k := chain(periods, lost, discount, chances...)
		nc, contact := 100*r.Float64(), 10*r.Float64()
		matrix := make([][]float64, n+1) // the last state is beyond
		rewards := make([]float64, n+1)
		for i, p := range chances {
			matrix[i] = make([]float64, n+1)
			matrix[i][0] = p
			matrix[i][i+1] = 1 - p
			rewards[i] = -contact
		}
		rewards[0] += nc
		matrix[n] = make([]float64, n+1)
		if matrix[n][n] = 1; !lost { // beyond is like the last state
			matrix[n][0], matrix[n][n], rewards[n] = chances[n-1], 1-chances[n-1], -contact
		}
		for state := range chances {
			at := make([]float64, n+1)
			at[state] = 1
			sum := 0.0
			for i := 1; i <= periods; i++ {
				next := make([]float64, n+1)
				for a, p := range at {
					for b, q := range matrix[a] {
						next[b] += p * q
					}
				}
				at = next
				for a, p := range at {
					sum += p * rewards[a] / math.Pow(1+discount, float64(i))
				}
			}
			v := k.at[state]
			if got := nc*v.buys - contact*v.contacts; math.Abs(got-sum) > 1e-9*(1+math.Abs(sum)) {
				t.Fatalf("state %d of %v over %d periods: %v, want %v", state+1, chances, periods, got, sum)
			}
		}
	}
}

// One state that is left for good is the model of lost-for-good: Σ (p/(1+d))ᵗ
// purchases. Equal chances in every state, none of them left for good, is
// always-a-share: Σ p·(1+d)⁻ᵗ. Both of Dwyer (1989).
func TestMarkovSpecialCases(t *testing.T) {
	const p, d = 0.6, 0.1
	gone, share := 0.0, 0.0
	for i := 1; i <= 8; i++ {
		gone += math.Pow(p/(1+d), float64(i))
		share += p * math.Pow(1+d, -float64(i))
	}
	lost := chain(8, true, d, p)
	approx(t, "lost for good", lost.at[0].buys, gone, 1e-12)
	always := chain(8, false, d, p, p, p)
	for i := range always.at {
		approx(t, "always a share", always.at[i].buys, share, 1e-12)
	}
	lost, always = chain(0, true, d, p), chain(0, false, d, p, p, p)
	approx(t, "lost for good, without end", lost.at[0].buys, p/(1+d-p), 1e-11)
	approx(t, "always a share, without end", always.at[2].buys, p/d, 1e-10)
}

func TestMarkovStatesAndErrors(t *testing.T) {
	k := chain(4, true, 0.1, 0.5, 0.25)
	for since, want := range map[float64]int{0: 1, 364.99: 1, 365: 2, 729.99: 2, 730: 0, 10_000: 0} {
		if got := k.state(since); got != want {
			t.Errorf("after %v days state %d, want %d", since, got, want)
		}
	}
	if k = chain(4, false, 0.1, 0.5, 0.25); k.state(10_000) != 2 {
		t.Errorf("who is never lost is in state %d, want the last", k.state(10_000))
	}
	few := markovDocument{Period: 91, Periods: 4, DaysPerBuy: million, Lost: true, Recency: []transitionDocument{{36, 100}}}
	m := few.model(0)
	approx(t, "chance", m.p[0], 0.36, 1e-15)
	approx(t, "standard error", m.se[0], 0.048, 1e-12) // √(0.36·0.64/100)
	low, high := few, few
	low.Recency, high.Recency = []transitionDocument{{312, 1000}}, []transitionDocument{{408, 1000}}
	approx(t, "one standard error lower", m.low[0].buys, low.model(0).at[0].buys, 1e-12)
	approx(t, "one standard error higher", m.high[0].buys, high.model(0).at[0].buys, 1e-12)
}

// By basis a model's money is revenue, margin, or margin less standard service.
// The parts of the total do not know of it.
func TestBasis(t *testing.T) {
	cost := []string{"standard_service_cost_minor: 0", "standard_service_cost_minor: 250"}
	by := map[string]Values{}
	s := sample()
	for _, name := range basisNames {
		m := edit(t, append(cost, "clv_basis: contribution", "clv_basis: "+name)...)
		by[name] = m.Values(&s)
	}
	c, p, r := by["contribution"].CLV, by["profit"].CLV, by["revenue"].CLV
	if !(p.Predicted < c.Predicted && c.Predicted < r.Predicted && p.Markov < c.Markov && c.Markov < r.Markov && p.NPV < c.NPV && c.NPV < r.NPV) {
		t.Errorf("want profit below contribution below revenue:\n%+v\n%+v\n%+v", p, c, r)
	}
	// All orders assumed at a margin rate of 30 %: revenue is contribution / 0.3.
	approx(t, "predicted revenue", float64(r.Predicted), float64(c.Predicted)/0.3, 1e-3)
	approx(t, "revenue by the Markov model", float64(r.Markov), float64(c.Markov)/0.3, 1e-3)
	if want := (c.NPV - p.NPV); want != roundFloat(250+6*250*Default().npvFactor) {
		t.Errorf("profit lowers clv.npv by %d: want a standard service for the first order and six a year", want)
	}
	if p.Total != c.Total || r.Total != c.Total || by["profit"].Score != by["revenue"].Score || c.Residual != c.Predicted || r.Residual != c.Residual {
		t.Errorf("totals %d, %d, %d and CLV6 %d, %d: want the same by every basis", c.Total, p.Total, r.Total, c.Residual, r.Residual)
	}
	// A tier by clv.predicted follows the basis, and is never kept unseen.
	m := edit(t, "clv_basis: contribution", "clv_basis: revenue", "measure: contribution", "measure: clv.predicted")
	if got := m.Measure(&s).Score; got != r.Predicted*unit || m.enclosed {
		t.Errorf("measure is %d, want %d minor units; enclosed %v", got, r.Predicted, m.enclosed)
	}
}

// The counts of the built-in model are those of the public music shop, CDNOW:
// six periods of 91 days from 1997-01-01, customers from the period after their
// first purchase on.
func TestMarkovDefaultsAreCounted(t *testing.T) {
	f, err := os.Open(filepath.Join(testenv.DataDir(t), "cdnow", "CDNOW_master.txt"))
	if errors.Is(err, os.ErrNotExist) {
		t.Skipf("no CDNOW log: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const length, periods = 91, 6
	begin := time.Date(1997, 1, 1, 0, 0, 0, 0, time.UTC)
	days := map[string]map[int]bool{}
	lines := bufio.NewScanner(f)
	lines.Scan() // heads of the columns
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		date, err := time.Parse("20060102", fields[1])
		if err != nil {
			t.Fatal(err)
		}
		if days[fields[0]] == nil {
			days[fields[0]] = map[int]bool{}
		}
		days[fields[0]][int(date.Sub(begin).Hours()/24)] = true
	}
	var counts [periods]transitionDocument // by recency; 0 is not used
	var bought, buying float64             // purchase days, and periods that have any
	for _, on := range days {
		var in [periods]int
		for d := range on {
			in[d/length]++
		}
		last := -1
		for i, n := range in {
			if last >= 0 {
				counts[i-last].Exposures++
				if n > 0 {
					counts[i-last].Buys++
					bought, buying = bought+float64(n), buying+1
				}
			}
			if n > 0 {
				last = i
			}
		}
	}
	k := Default().markov
	if !slices.Equal(k.counts, counts[1:]) || k.period != length {
		t.Errorf("the model has %v in periods of %v days, the log %v in those of %d", k.counts, k.period, counts[1:], length)
	}
	approx(t, "purchase days per buy", k.perBuy, bought/buying, 5e-4)
}
