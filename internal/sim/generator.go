package sim

import (
	"iter"
	"math"
	"math/rand/v2"
	"strconv"
	"time"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/tierstream/tierstream/internal/event"
)

// Generator is one run of the model. Not for concurrent use.
//
// Memory is one pending action per living customer and one per consequence not
// yet come about: about 300 bytes per customer.
type Generator struct {
	cfg    Config
	pcg    *rand.PCG // the only source of chance
	rng    *rand.Rand
	source string
	spend  float64 // v of Gamma-Gamma, minor units
	season season
	start  int64
	warp   int64 // start of the warp, model time, math.MaxInt64 when there is none

	agenda agenda
	out    []Message // made by the last action and not yet taken
	taken  int

	customers, orders, events, others uint64 // last number of each kind of ID
}

// New starts a run.
func New(cfg Config) (*Generator, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	pcg := rand.NewPCG(cfg.Seed, 0x7469657273747265) // "tierstre"
	g := &Generator{
		cfg:    cfg,
		pcg:    pcg,
		rng:    rand.New(pcg),
		source: "producer-sim/" + strconv.FormatUint(cfg.Seed, 10),
		spend:  float64(cfg.TypicalOrder) * (cfg.Q - 1) / cfg.P,
		season: newSeason(cfg.SeasonAmplitude, cfg.WeekendFactor),
		start:  cfg.Start.UnixMilli(),
		warp:   math.MaxInt64,
	}
	if !cfg.Warp.From.IsZero() {
		g.warp = cfg.Warp.From.UnixMilli()
	}
	g.scheduleArrival(g.start)
	return g, nil
}

// Next gives the next message; false when nobody is left and nobody comes.
func (g *Generator) Next() (Message, bool) {
	for g.taken == len(g.out) {
		g.out, g.taken = g.out[:0], 0
		a, ok := g.agenda.pop()
		if !ok {
			return Message{}, false
		}
		a.do(a.at)
	}
	g.taken++
	return g.out[g.taken-1], true
}

// All is the rest of the run as a sequence, endless unless arrivals stop.
func (g *Generator) All() iter.Seq[Message] {
	return func(yield func(Message) bool) {
		for {
			m, ok := g.Next()
			if !ok || !yield(m) {
				return
			}
		}
	}
}

// stamp turns model time into event time.
func (g *Generator) stamp(t int64) int64 {
	if t <= g.warp {
		return t
	}
	return g.warp + int64(float64(t-g.warp)/g.cfg.Warp.Factor)
}

// at puts an action on the agenda. A delay beyond horizon never comes.
func (g *Generator) at(t int64, delay float64, do func(t int64)) {
	if delay < float64(horizon) {
		g.agenda.push(t+int64(delay), do)
	}
}

// horizon is how far ahead anything is planned: far beyond any run, near enough
// that no time overflows.
const horizon = 50 * 365 * day

// emit sends e at t and sometimes something bad behind it.
func (g *Generator) emit(topic Topic, t int64, e event.Event) {
	g.send(topic, t, t, event.Applied, e)
	if g.chance(g.cfg.BadRate) {
		g.spoil(&g.out[len(g.out)-1])
	}
}

// send puts e, which happened at t, into the log at time at.
func (g *Generator) send(topic Topic, at, t int64, code event.Code, e event.Event) {
	e.ID = g.id("e", &g.events)
	e.Source = g.source
	e.Time = g.stamp(t)
	g.out = append(g.out, Message{Event: e, Topic: topic, At: g.stamp(at), Code: code})
}

// id is the next ID of a kind: prefix, letter and a number of at least nine
// digits, so that IDs sort as they were given.
func (g *Generator) id(letter string, last *uint64) string {
	*last++
	b := make([]byte, 0, 80)
	b = append(append(b, g.cfg.Prefix...), letter...)
	for limit := uint64(100_000_000); limit > *last; limit /= 10 {
		b = append(b, '0')
	}
	return string(strconv.AppendUint(b, *last, 10))
}

func (g *Generator) chance(p float64) bool { return p > 0 && g.rng.Float64() < p }

// wait is an exponential delay in milliseconds.
func (g *Generator) wait(mean int64) float64 { return g.rng.ExpFloat64() * float64(mean) }

func pick[T any](g *Generator, from []T) T { return from[g.rng.IntN(len(from))] }

// drawn gives the index of one of the weights, which add up to 1.
func (g *Generator) drawn(weights ...float64) int {
	u := g.rng.Float64()
	for i, w := range weights {
		if u < w {
			return i
		}
		u -= w
	}
	return len(weights) - 1
}

func (g *Generator) gamma(shape, rate float64) float64 {
	return distuv.Gamma{Alpha: shape, Beta: rate, Src: g.pcg}.Rand()
}

func (g *Generator) beta(a, b float64) float64 {
	return distuv.Beta{Alpha: a, Beta: b, Src: g.pcg}.Rand()
}

// season is the factor on purchase rates over the year and the week, with mean
// 1 over both.
type season struct {
	amplitude        float64
	workday, weekend float64
	top              float64 // never exceeded
}

func newSeason(amplitude, weekend float64) season {
	workday := 7 / (5 + 2*weekend)
	s := season{amplitude: amplitude, workday: workday, weekend: workday * weekend}
	s.top = (1 + amplitude) * max(s.workday, s.weekend)
	return s
}

// at is the factor at a time in Unix milliseconds.
func (s season) at(t int64) float64 {
	const year = 365.25 * 24 * 3600 * 1000
	const peak = 349.0 / 365.25 // 16 December
	f := 1 + s.amplitude*math.Cos(2*math.Pi*(float64(t)/year-peak))
	// Day 0 of Unix time was a Thursday.
	if weekday := time.Weekday((t/day + 4) % 7); weekday == time.Saturday || weekday == time.Sunday {
		return f * s.weekend
	}
	return f * s.workday
}

// agenda is a binary heap of actions by (time, order of planning): the second
// makes runs repeatable.
type agenda struct {
	heap    []action
	planned uint64
}

type action struct {
	at  int64 // model time
	seq uint64
	do  func(t int64)
}

func (a action) before(b action) bool {
	return a.at < b.at || a.at == b.at && a.seq < b.seq
}

func (q *agenda) push(at int64, do func(int64)) {
	q.planned++
	q.heap = append(q.heap, action{at, q.planned, do})
	h := q.heap
	for i := len(h) - 1; i > 0; {
		up := (i - 1) / 2
		if !h[i].before(h[up]) {
			break
		}
		h[i], h[up] = h[up], h[i]
		i = up
	}
}

func (q *agenda) pop() (action, bool) {
	if len(q.heap) == 0 {
		return action{}, false
	}
	h := q.heap
	first, last := h[0], len(h)-1
	h[0], h[last] = h[last], action{} // zeroed, so that its closure can be collected
	h = h[:last]
	q.heap = h
	for i := 0; ; {
		least := i
		for _, down := range [2]int{2*i + 1, 2*i + 2} {
			if down < len(h) && h[down].before(h[least]) {
				least = down
			}
		}
		if least == i {
			return first, true
		}
		h[i], h[least] = h[least], h[i]
		i = least
	}
}
