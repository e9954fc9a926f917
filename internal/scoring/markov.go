package scoring

import (
	"math"

	"github.com/tierstream/tierstream/internal/scoring/dmath"
)

// maxStates bounds the recency states of the Markov model.
const maxStates = 24

// markovModel is the model of Pfeifer and Carraway (2000, "Modeling customer
// relationships as Markov chains", Journal of Interactive Marketing 14(2)).
// A customer who bought in the period just ended is in state 1; who does not
// buy in a period goes on to the next state, who buys goes back to state 1.
// Beyond the last state is the former customer, who never buys again, unless
// lost is false.
//
// A period's reward is NC − M in state 1, −M in the others and 0 beyond, so the
// discounted rewards to come are linear in NC and M:
//
//	Σ_{t=1..N} (1+d)⁻ᵗ·(Pᵗ·R)_k = NC·buys_k − M·contacts_k
//
// The reward of the present state is not in it: the purchase has been made.
type markovModel struct {
	period  float64 // days
	periods int     // 0: without end
	perBuy  float64 // purchase days per period with a purchase
	contact int64   // M, minor units
	lost    bool    // beyond the last state is lost for good
	rate    float64 // discount of a period
	counts  []transitionDocument
	p, se   []float64 // by state − 1: buys/exposures, and its standard error

	// By state − 1: at p, at p − 1 standard error, at p + 1 standard error.
	at, low, high []prospects
}

// prospects are discounted expectations over the periods to come.
type prospects struct {
	buys     float64 // periods with a purchase
	contacts float64 // periods not lost
}

func (d *markovDocument) validate(c *check) {
	between(c, "markov.period_days", d.Period, 1, 3650)
	between(c, "markov.periods", d.Periods, 0, 1000)
	between(c, "markov.purchase_days_per_buy", d.DaysPerBuy, million, 1000*million)
	between(c, "markov.contact_cost_minor", d.ContactCost, 0, 1_000_000_000_000)
	between(c, "markov.recency: number of states", len(d.Recency), 1, maxStates)
	for i, t := range d.Recency {
		c.that(t.Exposures >= 1 && t.Exposures <= 1<<50, "markov.recency: state %d has %d exposures: want 1 or more", i+1, t.Exposures)
		c.that(t.Buys >= 0 && t.Buys <= t.Exposures, "markov.recency: state %d has %d buys of %d exposures: want 0 to all of them", i+1, t.Buys, t.Exposures)
	}
}

// model of a valid document, at a yearly discount.
func (d *markovDocument) model(yearly float64) markovModel {
	k := markovModel{
		period: float64(d.Period), periods: d.Periods, perBuy: d.DaysPerBuy.float(), contact: d.ContactCost, lost: d.Lost,
		rate: dmath.Pow(1+yearly, float64(d.Period)/365) - 1, counts: d.Recency,
	}
	low, high := make([]float64, len(d.Recency)), make([]float64, len(d.Recency))
	for i, t := range d.Recency {
		n := float64(t.Exposures)
		p := float64(t.Buys) / n
		e := math.Sqrt(float64(p*(1-p)) / n)
		k.p, k.se = append(k.p, p), append(k.se, e)
		low[i], high[i] = max(0, p-e), min(1, p+e)
	}
	k.at, k.low, k.high = k.prospects(k.p), k.prospects(low), k.prospects(high)
	return k
}

// prospects iterates V ← (1+d)⁻¹·P·(R + V) from 0, N times; without end until
// nothing changes any more, and at a discount of 0 for at most 100,000 periods
// (those of somebody who is never lost have no limit then).
func (k *markovModel) prospects(p []float64) []prospects {
	v := make([]prospects, len(p))
	next := make([]prospects, len(p))
	shrink := 1 / (1 + k.rate)
	n := k.periods
	if n == 0 {
		n = 100_000
	}
	for range n {
		moved := 0.0
		for i := range p {
			var rest prospects // of who does not buy
			contact := 1.0
			switch {
			case i+1 < len(p):
				rest = v[i+1]
			case !k.lost:
				rest = v[i]
			default:
				contact = p[i]
			}
			stay := 1 - p[i]
			next[i] = prospects{
				buys:     float64(shrink * (float64(p[i]*(1+v[0].buys)) + float64(stay*rest.buys))),
				contacts: float64(shrink * (contact + float64(p[i]*v[0].contacts) + float64(stay*rest.contacts))),
			}
			moved = max(moved, math.Abs(next[i].buys-v[i].buys), math.Abs(next[i].contacts-v[i].contacts))
		}
		v, next = next, v
		if k.periods == 0 && moved < 1e-12 {
			break
		}
	}
	return v
}

// state of a customer so many days after the last purchase; 0 is lost.
func (k *markovModel) state(since float64) int {
	if n := float64(len(k.p)); since >= float64(n*k.period) {
		if k.lost {
			return 0
		}
		return len(k.p)
	}
	return 1 + int(since/k.period)
}

// worth of prospects for a customer of whom a period with a purchase brings nc,
// minor units.
func (k *markovModel) worth(of []prospects, state int, nc float64) int64 {
	if state == 0 {
		return 0
	}
	v := of[state-1]
	return roundFloat(float64(nc*v.buys) - float64(float64(k.contact)*v.contacts))
}
