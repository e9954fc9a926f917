package scoring

import (
	"math"

	"github.com/tierstream/tierstream/internal/scoring/dmath"
)

// Never is the due time of a customer whom no passing of time can move.
const Never int64 = math.MaxInt64

// What time alone does to a score, between two local midnights at which orders
// leave a window or a recency score falls:
//
//   - P(alive) and CLV6 fall: nothing is bought;
//   - satisfaction rises: complaints fade.
//
// All else stands still. So a score is a falling part and a rising one, which
// is what both functions below go by: [Model.Due] encloses each in closed form,
// [Model.NextMove] by its values at the ends of an interval.

// ByDay tells whether the measure has fields that change at midnight: orders
// leave windows, recency scores fall. Due and NextMove know nothing of that.
func (m *Model) ByDay() bool {
	for _, f := range m.measure {
		switch f.field {
		case fieldContribution, fieldSatisfaction, fieldRetention, fieldHistoric, fieldTotal, fieldPredicted:
		default:
			return true
		}
	}
	return false
}

// NextCut is the first local date after s.Today at which the recency score
// falls; ok is false if it does not any more.
func (m *Model) NextCut(s *Summary) (day int32, ok bool) {
	if s.Active {
		for _, cut := range m.recency {
			if d := s.LastDay + cut + 1; d > s.Today {
				return d, true
			}
		}
	}
	return 0, false
}

// mixed is the score, in 1/10,000, of v, but with o for fields of negative
// weight.
func (m *Model) mixed(s *Summary, v, o *figures) int64 {
	var out Measure
	m.compose(s, v, &out)
	for i, f := range m.measure {
		if f.weight < 0 {
			out.Parts[i].Value, _ = m.field(f.field, s, o)
		}
	}
	return weighted(out.Parts[:out.N])
}

// enclose is the least and the greatest score between two instants with the
// figures a and b.
func (m *Model) enclose(s *Summary, a, b *figures) (low, high int64) {
	fallen, risen := *b, *a
	fallen.satisfaction, risen.satisfaction = a.satisfaction, b.satisfaction
	if a.predicted < b.predicted { // a negative value
		fallen.setPredicted(a.predicted)
		risen.setPredicted(b.predicted)
	}
	if m.told(&fallen) > m.told(&risen) { // a purchase day that brings a loss
		fallen.alive, fallen.discounted, risen.alive, risen.discounted = risen.alive, risen.discounted, fallen.alive, fallen.discounted
	}
	return m.mixed(s, &fallen, &risen), m.mixed(s, &risen, &fallen)
}

// instant moves a summary in time, within a stretch without midnights that
// matter, and evaluates it.
func (m *Model) instant(s *Summary, at int64, v *figures) {
	s.At = at
	s.Today, s.DayPart = m.calendar.Split(at)
	*v = figures{}
	m.evaluate(s, v)
}

// NextMove is the first whole second after s.At, up to until, at which the tier
// is no longer tier if nothing happens, and what it is then. Both are Unix ms.
// It is exact, and costs some 50 evaluations: a bisection by [Model.enclose],
// which leaves out what cannot move. Where the measure is [Model.ByDay], until
// must lie before the next midnight that matters.
func (m *Model) NextMove(tier int, s *Summary, until int64) (at int64, to int, ok bool) {
	if !s.Bought || !s.Active {
		return 0, 0, false // the tier does not depend on a score
	}
	w := walk{m: m, s: *s, tier: tier}
	var a, b figures
	m.instant(&w.s, s.At, &a)
	for from, span := s.At, int64(msPerDay); from < until; span *= 2 {
		end := (min(from+span, until)) / 1000 * 1000
		if end <= from {
			return 0, 0, false
		}
		m.instant(&w.s, end, &b)
		if w.find(from, end, &a, &b) {
			return w.at, w.to, true
		}
		from, a = end, b
	}
	return 0, 0, false
}

// walk is a search under way.
type walk struct {
	m    *Model
	s    Summary
	tier int
	at   int64
	to   int
}

// find looks for the first second in (from, to] at which the tier moves; a and
// b are the figures at the ends. to is a whole second.
func (w *walk) find(from, to int64, a, b *figures) bool {
	w.s.At = to
	low, high := w.m.enclose(&w.s, a, b)
	if w.m.Decide(w.tier, &w.s, low) == w.tier && w.m.Decide(w.tier, &w.s, high) == w.tier {
		return false
	}
	if to-from <= 1000 {
		var out Measure
		w.m.compose(&w.s, b, &out)
		w.at, w.to = to, w.m.Decide(w.tier, &w.s, out.Score)
		return w.to != w.tier
	}
	middle := (from + (to-from)/2) / 1000 * 1000
	if middle <= from {
		middle += 1000
	}
	if middle >= to { // from lies within the second before to's
		middle = to - 1000
		if middle <= from {
			return w.find(to-1000, to, a, b)
		}
	}
	var mid figures
	w.m.instant(&w.s, middle, &mid)
	return w.find(from, middle, a, &mid) || w.find(middle, to, &mid, b)
}

// Due is a lower bound of the instant at which time alone moves a customer
// from tier, Unix ms: no evaluation after s.At and before it gives another
// tier. Never, if none ever does. low and high enclose the score at s.At, both
// in tier, and predicted is at least CLV6 then, minor units. It allocates
// nothing and costs a few elementary functions beside the figures; where the measure is
// [Model.ByDay], the next midnight that matters is another bound.
//
// Let ρ(t) = P(alive at t)/P(alive now), c(t) = (alpha+T)/(alpha+T+t). Then
// CLV6 at t is at least ρ·c of today's: given the data and being alive, what is
// expected is the mean of h(λ) = (1−exp(−λπs))/π over λ ~ gamma(r+x, alpha+T)
// and π; that is concave in λ and 0 at 0, and ageing multiplies λ by c. Discounts
// fall, so by summation by parts a discounted sum is one of such expectations
// with weights that are not negative.
// Complaint points at t are at least 2^(−t/half-life) of today's.
// So a falling part loses at most 1−ρc of what it can lose in all, and a rising
// one gains at most 1−2^(−t/half-life) of what it can gain in all. The score
// leaves its tier no sooner than where one of these two shares is the part of
// the distance to the threshold in all that can be lost, or gained.
func (m *Model) Due(tier int, s *Summary, low, high, predicted int64) int64 {
	if !s.Bought || !s.Active {
		return Never
	}
	if m.Decide(tier, s, low) != tier || m.Decide(tier, s, high) != tier {
		return s.At + 1
	}
	var v figures
	m.record(s, &v)
	m.survive(s, &v)
	return m.due(tier, s, &v, low, high, predicted)
}

// due is Due with the figures at hand; of CLV6 and what rests on it nothing is
// looked at.
func (m *Model) due(tier int, s *Summary, v *figures, low, high, predicted int64) int64 {
	// Far beyond any customer, where sums could wrap: see Keeps.
	const limit = 1 << 50
	if before := v.historic + v.referrals; !(v.value >= 0) || predicted < 0 || predicted > limit || max(before, v.cac) > limit || min(before, v.cac) < -limit {
		return s.At + 1
	}
	falls, rises, rounding := m.scope(v, predicted)
	// Shares that are surely kept: of the tier's own threshold, and of the next.
	share := 1.0
	if tier > 0 {
		share = shareOf(low-m.tiers[tier].Leave-rounding, falls)
	}
	if tier < len(m.tiers)-1 {
		share = min(share, shareOf(m.tiers[tier+1].Enter-1-high-rounding, rises))
	}
	if share >= 1 {
		return Never
	}
	// The first of: ρ is the root of 1−share, c is; complaints have faded by
	// share. With K = (1−P)/P, which grows by ((alpha+T')/(alpha+T))^(r+x), the
	// first is where K has grown to 1/(P·root) − 1.
	root, base := math.Sqrt(1-share), m.purchases.alpha+v.age
	grown := 1 / root
	if k := (1 - v.alive) / v.alive; k > 0 {
		ln := dmath.Log((1/float64(v.alive*root) - 1) / k)
		grown = min(grown, dmath.Exp(ln/(m.purchases.r+v.x)))
	}
	age := float64(base*grown) - m.purchases.alpha
	due := m.ageAt(s.FirstDay, age)
	if v.risk > 0 {
		due = min(due, later(s.At, -dmath.Log1p(-share)/m.decay))
	}
	return max(s.At+1, due)
}

// shareOf is the part of whole that a distance surely allows, 0 to 1.
func shareOf(distance, whole int64) float64 {
	switch {
	case whole <= distance:
		return 1
	case distance <= 0:
		return 0
	}
	return float64(distance) / float64(whole)
}

// ageAt is the instant at which who began on day first is so old, in days; a
// second sooner, so that roundings do not matter.
func (m *Model) ageAt(first int32, age float64) int64 {
	if !(age < 1_000_000) {
		return Never
	}
	whole := math.Floor(age)
	day := first + int32(whole)
	start := m.calendar.Start(day)
	return start + int64(float64((age-whole)*float64(m.calendar.Start(day+1)-start))) - 1000
}

// later is so many milliseconds after at, a second sooner.
func later(at int64, ms float64) int64 {
	if !(ms < 1e15) {
		return Never
	}
	return at + int64(ms) - 1000
}

// scope is by how much the score can fall, and rise, in all, and by how much
// roundings can move it besides: those of the parts, and that of CLV6 to a minor
// unit. 1/10,000.
func (m *Model) scope(v *figures, predicted int64) (falls, rises, rounding int64) {
	before := v.historic + v.referrals
	cac := v.cac
	if !v.cacKnown {
		cac = m.defaultCAC
	}
	add := func(weight, fall, rounded int64) {
		w := math.Abs(float64(weight)) / unit
		if fall = int64(math.Ceil(float64(float64(fall) * w))); weight < 0 {
			rises += fall
		} else {
			falls += fall
		}
		rounding += int64(math.Ceil(float64(float64(rounded)*w))) + 1
	}
	satisfaction := func(weight int64) {
		if v.risk > 0 {
			add(-weight, min(100*unit, int64(math.Ceil(float64(v.risk*unit)))), 1)
		}
	}
	for _, f := range m.measure {
		switch f.field {
		case fieldContribution:
			w := &m.contribution
			scaled := func(w int64) int64 { return mulDiv(w, f.weight, unit) }
			part := func(weight, base, full int64) {
				add(weight, clamped(base, predicted, full), 2+100*unit/full)
			}
			part(scaled(w[0]), before+v.cac, m.fullCLV)
			if cac > 0 {
				part(scaled(w[1]), before+v.cac-cac, 4*cac)
			}
			satisfaction(scaled(w[2]))
			add(scaled(w[3]), v.retention, 1)
		case fieldSatisfaction:
			satisfaction(f.weight)
		case fieldRetention:
			add(f.weight, v.retention, 1)
		case fieldPredicted:
			if m.basis != basisContribution { // another money than CLV6: nothing is known of it
				rounding += 1 << 50
				continue
			}
			fallthrough
		case fieldTotal:
			add(f.weight, money(predicted), money(1))
		}
	}
	return falls, rises, rounding
}

// clamped is by how much 100·clamp((base+p)/full) can fall as p falls to 0, at
// least in proportion: the fall is convex in what p loses, but for the lower
// clamp, which is left out. 1/10,000.
func clamped(base, p, full int64) int64 {
	if p <= 0 || base+p < 0 || base >= full {
		return 0
	}
	return int64(min(1e17, math.Ceil(float64(float64(min(base+p, full)-base)/float64(full)*(100*unit)))))
}
