package sim

import (
	"math"
	"strconv"

	"github.com/tierstream/tierstream/internal/event"
)

// customer is one person's own parameters, drawn on arrival.
type customer struct {
	id        string
	rate      float64 // purchases per day
	drop      float64 // probability of leaving for good after a purchase
	spend     float64 // rate of the order value's Gamma, per minor unit
	happy     float64 // 0 to 1, behind every feedback
	currency  string
	category  string // the favourite
	channel   string // the favourite
	complains int    // complaints open now
}

// order is what later events of an order need to know.
type order struct {
	id       string
	currency string
	left     int64 // amount not yet returned, minor units of currency
}

var (
	categories = []string{"books", "electronics", "fashion", "garden", "grocery", "home", "music", "sports", "toys"}
	channels   = []string{"web", "app", "store", "phone"}
	reasons    = []string{"too small", "too large", "damaged", "not as described", "changed mind", "arrived late"}
)

// worth is invented exchange rates, ten-thousandths of a euro per unit.
var worth = map[string]int64{"EUR": 10000, "USD": 9200, "GBP": 11700, "CHF": 10500}

var foreign = []string{"EUR", "USD", "GBP", "CHF"}

// scheduleArrival plans the next customer who comes by himself.
func (g *Generator) scheduleArrival(t int64) {
	span := g.cfg.Span.Milliseconds()
	mean := float64(span) / g.cfg.Customers
	delay := g.rng.ExpFloat64() * mean
	if end := g.start + span; float64(t)+delay > float64(end) {
		// A Poisson process forgets: from the later of now and the end of the span
		// on, the wait is exponential anew with the later rate.
		if g.cfg.Later == 0 {
			return
		}
		rest := float64(max(0, end-t))
		delay = rest + g.rng.ExpFloat64()*mean/g.cfg.Later
	}
	g.at(t, delay, func(t int64) {
		g.arrive(g.id("c", &g.customers), t, 0.9)
		g.scheduleArrival(t)
	})
}

// arrive draws a customer and makes his first purchase. paid is the chance that
// winning him cost something.
func (g *Generator) arrive(id string, t int64, paid float64) {
	c := &customer{
		id:       id,
		rate:     g.gamma(g.cfg.R, g.cfg.Alpha),
		drop:     g.beta(g.cfg.A, g.cfg.B),
		spend:    g.gamma(g.cfg.Q, g.spend),
		happy:    g.beta(4, 2),
		currency: g.cfg.Currency,
		category: pick(g, categories),
		channel:  channels[g.drawn(0.5, 0.25, 0.2, 0.05)],
	}
	if _, known := worth[c.currency]; known && g.chance(g.cfg.ForeignShare) {
		c.currency = pick(g, foreign)
	}
	if g.chance(paid) {
		g.cost(c.id, Referrals, t, event.Acquisition, g.around(0.4))
	}
	g.buy(c, t)
}

// scheduleBuy plans the next purchase by thinning (Lewis and Shedler 1979): the
// candidates of a process at the season's top are kept with probability
// factor/top.
func (g *Generator) scheduleBuy(c *customer, t int64) {
	mean := float64(day) / (c.rate * g.season.top)
	delay := 0.0
	for {
		delay += g.rng.ExpFloat64() * mean
		if !(delay < float64(horizon)) { // also when the rate is 0 and the mean infinite
			return
		}
		if g.rng.Float64()*g.season.top < g.season.at(g.stamp(t+int64(delay))) {
			break
		}
	}
	g.at(t, delay, func(t int64) { g.buy(c, t) })
}

func (g *Generator) buy(c *customer, t int64) {
	value := g.gamma(g.cfg.P, c.spend)
	e := event.Event{
		Type:       event.Purchase,
		Customer:   c.id,
		BusinessID: g.id("o", &g.orders),
		// The cap keeps the far tail below any consumer's bound.
		Amount:    int64(math.Round(min(max(value, 1), 1000*float64(g.cfg.TypicalOrder)))),
		HasAmount: true,
		Currency:  c.currency,
		Category:  c.category,
		Channel:   c.channel,
	}
	if g.chance(0.4) {
		e.Category = pick(g, categories)
	}
	if g.chance(0.2) {
		e.Channel = pick(g, channels)
	}
	if c.currency != g.cfg.Currency {
		g.convert(&e)
	}
	switch g.drawn(0.4, 0.2, 0.4) {
	case 0:
		e.Cost, e.HasCost = part(e.Amount, 0.55+0.25*g.rng.Float64()), true
	case 1:
		e.Margin, e.HasMargin = part(e.Amount, 0.1+0.4*g.rng.Float64()), true
	}

	o := &order{id: e.BusinessID, currency: e.Currency, left: e.Amount}
	switch {
	case g.chance(g.cfg.DelayedShare):
		g.delay(c, o, t, e)
	case g.chance(g.cfg.CancelShare):
		g.emit(Purchases, t, e)
		g.at(t, g.wait(20*minute), func(t int64) { g.sendBack(c, o, t, event.Cancelled, o.left) })
	default:
		g.emit(Purchases, t, e)
		g.aftermath(c, o, t)
	}

	if !g.chance(c.drop) {
		g.scheduleBuy(c, t)
	}
}

// convert states what a foreign order is worth in the base currency: one half
// by a rate, one half by an amount.
func (g *Generator) convert(e *event.Event) {
	base := worth[g.cfg.Currency]
	rate := (worth[e.Currency]*10_000 + base/2) / base // ten-thousandths
	if g.chance(0.5) {
		frac := strconv.FormatInt(10_000+rate%10_000, 10)[1:]
		e.FXRate = strconv.FormatInt(rate/10_000, 10) + "." + frac
		return
	}
	e.Base, e.HasBase = max(1, (e.Amount*rate+5_000)/10_000), true
}

// delay lets a purchase reach the log some minutes late. Half of these orders
// are cancelled meanwhile, so that the return stands in the log before the
// purchase it belongs to.
func (g *Generator) delay(c *customer, o *order, t int64, e event.Event) {
	late := float64(5*minute) + g.wait(10*minute)
	if g.chance(0.5) {
		g.at(t, late*g.rng.Float64(), func(t int64) {
			g.send(Complaints, t, t, event.Waiting, g.returned(c, o, event.Cancelled, o.left))
		})
	}
	g.at(t, late, func(at int64) { g.send(Purchases, at, t, event.Late, e) })
}

// aftermath plans what one ordinary order brings with it.
func (g *Generator) aftermath(c *customer, o *order, t int64) {
	if g.chance(g.cfg.ReturnShare) {
		g.at(t, float64(day)+g.wait(8*day), func(t int64) { g.bringBack(c, o, t) })
	}
	if g.chance(g.cfg.ComplaintShare) {
		g.at(t, g.wait(3*day), func(t int64) { g.complain(c, o, t) })
	}
	if g.chance(g.cfg.FeedbackShare) {
		g.at(t, g.wait(2*day), func(t int64) { g.respond(c, t) })
	}
	if g.chance(g.cfg.ReferralShare) {
		g.at(t, g.wait(5*day), func(t int64) { g.invite(c, t) })
	}
	if g.chance(0.1) {
		g.at(t, g.wait(30*day), func(t int64) {
			g.cost(c.id, Referrals, t, event.Marketing, g.around(0.03))
		})
	}
}

// bringBack returns half of the orders whole and half in part, of which some
// come back with the rest.
func (g *Generator) bringBack(c *customer, o *order, t int64) {
	kinds := []event.Kind{event.Goods, event.StoreCredit, event.Chargeback}
	kind := kinds[g.drawn(0.85, 0.1, 0.05)]
	if g.chance(0.5) || o.left < 2 {
		g.sendBack(c, o, t, kind, o.left)
		return
	}
	g.sendBack(c, o, t, kind, min(o.left-1, part(o.left, 0.2+0.6*g.rng.Float64())))
	if g.chance(0.15) {
		g.at(t, g.wait(5*day), func(t int64) { g.sendBack(c, o, t, kind, o.left) })
	}
}

func (g *Generator) sendBack(c *customer, o *order, t int64, kind event.Kind, amount int64) {
	topic := Purchases
	if kind == event.Cancelled {
		topic = Complaints
	}
	g.emit(topic, t, g.returned(c, o, kind, amount))
}

func (g *Generator) returned(c *customer, o *order, kind event.Kind, amount int64) event.Event {
	o.left -= amount
	e := event.Event{
		Type:       event.Return,
		Customer:   c.id,
		BusinessID: g.id("r", &g.others),
		OrderID:    o.id,
		Amount:     amount,
		HasAmount:  true,
		Currency:   o.currency,
		Kind:       kind,
	}
	if kind == event.Goods && g.chance(0.7) {
		e.Reason = pick(g, reasons)
	}
	return e
}

// complain opens a complaint, which costs the service desk a contact, is mostly
// resolved, sometimes rejected, and sometimes opened again after that.
func (g *Generator) complain(c *customer, o *order, t int64) {
	e := event.Event{
		Type:       event.Complaint,
		Customer:   c.id,
		BusinessID: g.id("k", &g.others),
		OrderID:    o.id,
		Severity:   uint8(1 + g.drawn(0.3, 0.3, 0.2, 0.15, 0.05)),
	}
	report := func(t int64, s event.Status) {
		e.Status = s
		g.emit(Complaints, t, e)
	}
	c.complains++
	report(t, event.Opened)
	if g.chance(0.6) {
		g.at(t, g.wait(6*hour), func(t int64) {
			g.cost(c.id, Complaints, t, event.Service, g.around(0.1))
		})
	}
	resolve := func(t int64) {
		c.complains--
		if g.chance(0.3) {
			e.Amount, e.HasAmount = g.around(0.2), true
			e.Currency = g.cfg.Currency
		}
		report(t, event.Resolved)
	}
	switch g.drawn(0.8, 0.1, 0.1) {
	case 0:
		g.at(t, g.wait(4*day), func(t int64) {
			resolve(t)
			if !g.chance(0.1) {
				return
			}
			g.at(t, g.wait(5*day), func(t int64) {
				c.complains++
				// Compensation was stated with the resolution and is not paid twice.
				e.Amount, e.HasAmount, e.Currency = 0, false, ""
				report(t, event.Reopened)
				g.at(t, g.wait(4*day), resolve)
			})
		})
	case 1:
		g.at(t, g.wait(4*day), func(t int64) {
			c.complains--
			report(t, event.Rejected)
		})
	}
}

// respond answers a survey, lower while a complaint is open.
func (g *Generator) respond(c *customer, t int64) {
	e := event.Event{Type: event.Feedback, Customer: c.id, BusinessID: g.id("f", &g.others)}
	mood := min(max(c.happy+0.12*g.rng.NormFloat64()-0.3*float64(c.complains), 0), 1)
	switch g.drawn(0.5, 0.25, 0.1, 0.1, 0.05) {
	case 0:
		e.Kind, e.ScaleMax, e.Score = event.NPS, 10, int32(math.Round(10*mood))
	case 1:
		e.Kind, e.ScaleMax, e.Score = event.CSAT, 5, int32(1+math.Round(4*mood))
	case 2:
		e.Kind, e.ScaleMax, e.Score = event.CES, 7, int32(1+math.Round(6*mood))
	case 3:
		e.Kind = event.Praise
	default:
		e.Kind = event.Suggestion
	}
	g.emit(Complaints, t, e)
}

// invite recommends the shop to somebody new, who stays a stranger or becomes a
// customer; some of these conversions are taken back.
func (g *Generator) invite(c *customer, t int64) {
	e := event.Event{
		Type:       event.Referral,
		Customer:   c.id,
		BusinessID: g.id("i", &g.others),
		RefereeID:  g.id("c", &g.customers),
	}
	report := func(t int64, s event.Status) {
		e.Status = s
		g.emit(Referrals, t, e)
	}
	report(t, event.Invited)
	if g.chance(0.3) {
		// A prospect: somebody known who has not bought yet.
		g.cost(e.RefereeID, Referrals, t, event.Marketing, g.around(0.03))
	}
	if !g.chance(0.4) {
		return
	}
	g.at(t, g.wait(10*day), func(t int64) {
		g.arrive(e.RefereeID, t, 0.2)
		if g.chance(0.5) {
			e.Amount, e.HasAmount, e.Currency = g.around(0.3), true, g.cfg.Currency
		}
		report(t, event.Converted)
		if g.chance(0.08) {
			g.at(t, g.wait(20*day), func(t int64) { report(t, event.Reversed) })
		}
	})
}

func (g *Generator) cost(customer string, topic Topic, t int64, kind event.Kind, amount int64) {
	g.emit(topic, t, event.Event{
		Type:       event.Cost,
		Customer:   customer,
		BusinessID: g.id("x", &g.others),
		Kind:       kind,
		Amount:     amount,
		HasAmount:  true,
		Currency:   g.cfg.Currency,
	})
}

// around is an amount scattered about a share of the typical order.
func (g *Generator) around(share float64) int64 {
	mean := share * float64(g.cfg.TypicalOrder)
	return max(1, int64(math.Round(g.gamma(4, 4/mean))))
}

// part is a share of an amount, at least one minor unit.
func part(amount int64, share float64) int64 {
	return max(1, int64(math.Round(float64(amount)*share)))
}
