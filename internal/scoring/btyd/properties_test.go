package btyd

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// usual are a model of each family and shape, with parameters like fitted ones.
func usual(t testing.TB) []Model {
	t.Helper()
	var models []Model
	for _, c := range []struct {
		name string
		p    []float64
	}{
		{"BG/NBD", []float64{.243, 4.414, .793, 2.426}},
		{"MBG/NBD", []float64{.525, 6.183, .891, 1.614}},
		{"BG/NBD", []float64{1.3, 20, 1, .7}},
		{"Pareto/NBD", []float64{.553, 10.578, .606, 11.669}},
		{"Pareto/NBD", []float64{.8, 4, 1, 30}},
		{"NBD", []float64{.7, 12.5}},
		{"BG/BB", []float64{1.204, .750, .657, 2.783}},
		{"BG/CNBD", []float64{2, .5, 5, .8, 2.4}},
		{"MBG/CNBD", []float64{3, .6, 3, 1, 1.6}},
		{"MBG/CNBD", []float64{8, .9, 1.5, 2.5, .7}},
	} {
		f, ok := FamilyOf(c.name)
		if !ok {
			t.Fatalf("no family %s", c.name)
		}
		m, err := f.New(c.p...)
		if err != nil {
			t.Fatal(err)
		}
		models = append(models, m)
	}
	return models
}

var histories = []History{
	{}, {Age: 1}, {Age: 30}, {Frequency: 1, AgeAtLast: 5, Age: 5}, {Frequency: 2, AgeAtLast: 28, Age: 39},
	{Frequency: 7, AgeAtLast: 29, Age: 39}, {Frequency: 20, AgeAtLast: 38, Age: 40},
}

// Who does not buy is ever less likely to be alive, and to buy.
func TestSilenceNeverRaises(t *testing.T) {
	for _, m := range usual(t) {
		for _, h := range histories {
			alive, expected := math.Inf(1), math.Inf(1)
			for age := h.Age; age < 400; age += 7 {
				h.Age = age
				a, e := m.Alive(h), m.Expected(h, 26)
				if a > float64(alive*(1+1e-12)) || e > float64(expected*(1+1e-12)) {
					t.Errorf("%s %+v: P(alive) %v → %v, expected %v → %v", m.Name(), h, alive, a, expected, e)
				}
				alive, expected = a, e
			}
		}
	}
}

// The counts of a new customer are a distribution, its mean is what is
// expected, and none of them is no purchase.
func TestProbabilitiesSumToOne(t *testing.T) {
	for _, m := range usual(t) {
		for _, horizon := range []float64{3, 40} {
			sum, mean := 0.0, 0.0
			for n := range 3000 {
				p := m.Probability(n, horizon)
				if !(p >= 0 && p <= 1) {
					t.Fatalf("%s: P(X(%v) = %d) is %v", m.Name(), horizon, n, p)
				}
				sum += p
				mean += float64(n) * p
				if p < 1e-17 && n > 20 {
					break
				}
			}
			approx(t, m.Name()+" sum", sum, 1, 1e-11)
			want := m.Expected(History{}, horizon)
			approx(t, m.Name()+" mean", mean, want, 1e-10*want)
			approx(t, m.Name()+" none", m.Probability(0, horizon), m.NoPurchase(History{}, horizon), 1e-13)
			if p := m.Probability(-1, horizon); p != 0 {
				t.Errorf("%s: P(-1) is %v", m.Name(), p)
			}
		}
	}
}

// Of a history, no purchase until T' is what the likelihoods of T and T' say.
func TestNoPurchaseIsARatioOfLikelihoods(t *testing.T) {
	for _, m := range usual(t) {
		for _, h := range histories {
			if m.Check(h) != nil {
				continue
			}
			later := h
			later.Age += 9
			approx(t, m.Name(), math.Log(m.NoPurchase(h, 9)), m.LogLikelihood(later)-m.LogLikelihood(h), 1e-11)
		}
	}
}

// A finite horizon tends to the infinite one, and without discount to what is expected.
func TestDERTOfALongHorizonIsThatWithoutEnd(t *testing.T) {
	for _, m := range usual(t) {
		for _, h := range histories {
			if m.Check(h) != nil {
				continue
			}
			const rate = 0.01
			before, without := 0.0, m.DERT(h, rate, math.Inf(1))
			for _, horizon := range []float64{0, 1, 10, 100, 1000, 10_000} {
				d := m.DERT(h, rate, horizon)
				if d < before || d > without*(1+1e-11) {
					t.Errorf("%s %+v: %v within %v, %v before, %v without end", m.Name(), h, d, horizon, before, without)
				}
				before = d
			}
			approx(t, m.Name()+" long", before, without, 1e-11*without)
			if _, discrete := m.(*BGBB); discrete { // BG/BB's purchases fall on opportunities
				continue
			}
			e := m.Expected(h, 52)
			approx(t, m.Name()+" undiscounted", m.DERT(h, 1e-9, 52), e, 1e-7*e)
		}
	}
}

// At the age that AliveUntil gives, P(alive) is p, unless it is below from the start.
func TestAliveUntil(t *testing.T) {
	for _, m := range usual(t) {
		for _, h := range histories {
			for _, p := range []float64{.99, .5, .01} {
				h.Age = h.AgeAtLast
				until := m.AliveUntil(h, p)
				if m.Check(h) != nil {
					continue
				}
				if m.Alive(h) <= p {
					if until != h.AgeAtLast {
						t.Errorf("%s %+v: %v already at t_x, until is %v", m.Name(), h, m.Alive(h), until)
					}
					continue
				}
				if math.IsInf(until, 1) {
					h.Age = 1e6
					if a := m.Alive(h); a <= p {
						t.Errorf("%s %+v: never %v, but is %v", m.Name(), h, p, a)
					}
					continue
				}
				h.Age = until
				if _, discrete := m.(*BGBB); !discrete {
					approx(t, m.Name(), m.Alive(h), p, 1e-11)
					continue
				}
				before := h
				before.Age--
				if !(m.Alive(h) <= p && m.Alive(before) > p) {
					t.Errorf("%s %+v: %v, one before %v, want the first below %v", m.Name(), h, m.Alive(h), m.Alive(before), p)
				}
			}
		}
	}
}

// Regular timing with k = 1 is the plain model: exactly by its constructor, and
// by the sums for any k.
func TestOneStageIsThePlainModel(t *testing.T) {
	for _, afterFirst := range []bool{false, true} {
		p := [4]float64{.525, 6.183, .891, 1.614}
		plain := must[*BetaGeometric](t)(NewBGNBD(p[0], p[1], p[2], p[3]))
		one, err := NewBGCNBD(1, p[0], p[1], p[2], p[3])
		if afterFirst {
			plain = must[*BetaGeometric](t)(NewMBGNBD(p[0], p[1], p[2], p[3]))
			one, err = NewMBGCNBD(1, p[0], p[1], p[2], p[3])
		}
		if err != nil {
			t.Fatal(err)
		}
		sums, err := newErlang("", 1, p[0], p[1], p[2], p[3], afterFirst)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range histories {
			for _, horizon := range []float64{.1, 39, 4000, 1e6} {
				want := plain.Expected(h, horizon)
				if got := one.Expected(h, horizon); got != want {
					t.Errorf("%+v: %v, plain %v", h, got, want)
				}
				approx(t, "sums", sums.Expected(h, horizon), want, 1e-10*want)
			}
			if one.LogLikelihood(h) != plain.LogLikelihood(h) {
				t.Errorf("%+v: likelihoods differ", h)
			}
		}
	}
}

// The way over the drop-out probability is that of the series, where that is exact.
func TestAveragedIsTheSeries(t *testing.T) {
	for _, m := range []*BetaGeometric{
		must[*BetaGeometric](t)(NewBGNBD(.243, 4.414, .793, 2.426)),
		must[*BetaGeometric](t)(NewMBGNBD(5, 20, 30, 40)),
		must[*BetaGeometric](t)(NewMBGNBD(.525, 6.183, 1, .01)),
	} {
		for _, x := range []float64{0, 1, 7, 300, 50_000} {
			for _, horizon := range []float64{.01, 10, 400} {
				var out [1]float64
				m.kernel.Purchases(x, 39, []float64{horizon}, out[:])
				approx(t, "purchases", m.averaged(x, 39, horizon), out[0], 1e-11*out[0])
			}
		}
	}
}

func TestConstructorsRefuse(t *testing.T) {
	for _, f := range Families() {
		good := make([]float64, len(f.Parameters))
		for i := range good {
			good[i] = 2
		}
		if _, err := f.New(good...); err != nil {
			t.Errorf("%s: %v", f.Name, err)
		}
		if _, err := f.New(good[1:]...); err == nil {
			t.Errorf("%s: accepts %d parameters", f.Name, len(good)-1)
		}
		for i, name := range f.Parameters {
			for _, bad := range []float64{0, -1, math.NaN(), math.Inf(1), math.Inf(-1), 1e300, 1e-300} {
				p := append([]float64{}, good...)
				p[i] = bad
				if m, err := f.New(p...); m != nil || err == nil || !strings.Contains(err.Error(), name) {
					t.Errorf("%s with %s = %v: %v, %v", f.Name, name, bad, m, err)
				}
			}
		}
	}
	if _, err := NewGammaGamma(1, math.NaN(), 1); err == nil {
		t.Error("Gamma-Gamma accepts NaN")
	}
	if _, err := NewBGCNBD(1.5, 1, 1, 1, 1); err == nil {
		t.Error("BG/CNBD accepts k = 1.5")
	}
	for _, h := range []History{
		{Frequency: -1}, {Frequency: 1.5, AgeAtLast: 1, Age: 2}, {Frequency: 1, AgeAtLast: 3, Age: 2}, {AgeAtLast: 1, Age: 2},
		{Age: math.NaN()}, {Age: math.Inf(1)}, {Frequency: 1, AgeAtLast: 1, Age: 1, LogGaps: math.NaN()}, {Age: -1},
	} {
		if h.Check() == nil {
			t.Errorf("%+v is accepted", h)
		}
	}
	bb := must[*BGBB](t)(NewBGBB(1, 1, 1, 1))
	for _, h := range []History{{Age: 2.5}, {Frequency: 3, AgeAtLast: 2, Age: 4}, {Frequency: 1, AgeAtLast: 1.5, Age: 4}} {
		if bb.Check(h) == nil {
			t.Errorf("BG/BB accepts %+v", h)
		}
	}
}

func TestMethodsAllocateNothing(t *testing.T) {
	for _, m := range usual(t) {
		h := History{Frequency: 2, AgeAtLast: 28, Age: 39, LogGaps: 5}
		if n := testing.AllocsPerRun(10, func() {
			sink += m.LogLikelihood(h) + m.Alive(h) + m.Expected(h, 26) + m.NoPurchase(h, 26) + m.Probability(3, 26) + m.DERT(h, .01, 520)
		}); n != 0 {
			t.Errorf("%s: %v allocations", m.Name(), n)
		}
	}
}

// TestBitsAreFixed holds the models to the bits that they had when they were
// written, as dmath's does. What rests on them is stored and compared elsewhere.
func TestBitsAreFixed(t *testing.T) {
	const want = "7c0ce2cea7d62dac3791cb67a862f56c76261b921eb3f85f57273610bc0cf1fc"
	r := rand.New(rand.NewPCG(11, 12))
	hash := sha256.New()
	var b [8]byte
	for _, m := range usual(t) {
		for range 50 {
			x := math.Floor(math.Exp(5 * r.Float64()))
			last := x + math.Floor(50*r.Float64())
			h := History{Frequency: x - 1, AgeAtLast: last, Age: last + math.Floor(60*r.Float64()), LogGaps: x}
			if x == 1 {
				h.AgeAtLast = 0
			}
			for _, v := range []float64{
				m.LogLikelihood(h), m.Alive(h), m.Expected(h, 26), m.NoPurchase(h, 26), m.Probability(int(x), 26),
				m.DERT(h, .01, math.Inf(1)), m.AliveUntil(h, .3),
			} {
				binary.LittleEndian.PutUint64(b[:], math.Float64bits(v))
				hash.Write(b[:])
			}
		}
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != want {
		t.Errorf("hash of 3,500 values is %s, want %s", got, want)
	}
}

func TestBitsAreFixedWithoutFMA(t *testing.T) {
	if os.Getenv("BTYD_CHILD") != "" {
		t.Skip("this is the child")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestBitsAreFixed$", "-test.v")
	cmd.Env = append(os.Environ(), "BTYD_CHILD=1", "GODEBUG=cpu.fma=off")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestBitsAreFixed") {
		t.Errorf("with cpu.fma=off: %v\n%s", err, out)
	}
}

// finite holds that no parameters and no history in range give NaN, an infinity
// or a value out of its range.
func finite(t *testing.T, family Family, p []float64, h History, horizon, rate float64) {
	t.Helper()
	m, err := family.New(p...)
	if err != nil || m.Check(h) != nil || CheckTime(horizon) != nil || !(rate >= 1e-9 && rate <= 1e6) {
		return
	}
	in := func(what string, v, lo, hi float64) {
		if !(v >= lo && v <= hi) {
			t.Errorf("%s%v %+v: %s within %v at rate %v is %v", m.Name(), p, h, what, horizon, rate, v)
		}
	}
	in("log likelihood", m.LogLikelihood(h), -1e300, 1e300)
	in("P(alive)", m.Alive(h), 0, 1)
	in("expected", m.Expected(h, horizon), 0, 1e300)
	in("no purchase", m.NoPurchase(h, horizon), 0, 1)
	in("DERT", m.DERT(h, rate, math.Inf(1)), 0, 1e300)
	if _, slow := m.(*Erlang); !slow { // hundreds of Expected, which finite has tried
		in("finite DERT", m.DERT(h, rate, horizon), 0, 1e300)
	}
	in("until", m.AliveUntil(h, .5), h.AgeAtLast, math.Inf(1))
	in("probability", m.Probability(int(min(h.Frequency, 1e4)), horizon), 0, 1)
}

// discrete makes times whole opportunities, few enough for a test.
func discrete(h History, horizon float64) (History, float64) {
	h.AgeAtLast, h.Age = math.Floor(math.Mod(h.AgeAtLast, 1e4)), math.Floor(math.Mod(h.Age, 1e4))
	return h, math.Floor(math.Mod(horizon, 1e4))
}

func TestWideDomain(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 22))
	wide := func(lo, hi float64) float64 { return math.Exp(math.Log(lo) + r.Float64()*math.Log(hi/lo)) }
	for range 40 {
		for _, f := range Families() {
			p := make([]float64, len(f.Parameters))
			for i := range p {
				p[i] = wide(1e-9, 1e9)
				if r.IntN(2) == 0 {
					p[i] = wide(1e-3, 1e3)
				}
				if r.IntN(8) == 0 {
					p[i] = 1
				}
				if f.Parameters[i] == "k" {
					p[i] = math.Floor(wide(1, 20))
				}
			}
			h := History{Frequency: math.Floor(wide(.3, 1e6)), Age: wide(1e-3, 1e5)}
			if h.Frequency > 0 {
				h.AgeAtLast = float64(h.Age * min(1, 1.2*r.Float64()))
			}
			horizon := wide(1e-3, 1e6)
			if f.Name == "BG/BB" {
				h, horizon = discrete(h, horizon)
				h.Frequency = math.Floor(float64(h.AgeAtLast * r.Float64()))
				if h.Frequency == 0 {
					h.AgeAtLast = 0
				}
			}
			finite(t, f, p, h, horizon, wide(1e-6, 1))
		}
	}
}

func FuzzModels(f *testing.F) {
	f.Add(uint8(0), .243, 4.414, .793, 2.426, 2.0, uint32(2), 30.43, 38.86, 39.0, .01)
	f.Add(uint8(2), 1e-9, 1e9, 1e9, 1e-9, 1.0, uint32(1e6), 0.0, 1e9, 1e9, 1e-6)
	f.Add(uint8(5), 1e3, 1e-3, 1e-3, 1e3, 9.0, uint32(1e5), 1e5, 1e5, 1.0, 1.0)
	f.Add(uint8(6), .5, 5.0, 1.0, 2.0, 100.0, uint32(0), 0.0, 1e6, 1e8, 1e-6)
	f.Add(uint8(4), 1e-3, 1e-3, 1e-3, 1e-3, 1.0, uint32(3), 30.0, 1000.0, 100.0, 1e-6)
	families := Families()
	f.Fuzz(func(t *testing.T, family uint8, p0, p1, p2, p3, k float64, x uint32, tx, T, horizon, rate float64) {
		fam := families[int(family)%len(families)]
		h := History{Frequency: float64(x), AgeAtLast: tx, Age: T}
		if fam.Name == "BG/BB" {
			h, horizon = discrete(h, horizon)
		}
		p := []float64{p0, p1, p2, p3}[:min(4, len(fam.Parameters))]
		if fam.Parameters[0] == "k" {
			p = append([]float64{k}, p...)
		}
		finite(t, fam, p, h, horizon, rate)
	})
}

var sink float64

func BenchmarkModels(b *testing.B) {
	for _, m := range usual(b) {
		name := strings.NewReplacer("/", "-").Replace(m.Name())
		for _, h := range []History{{Frequency: 2, AgeAtLast: 28, Age: 39, LogGaps: 5}, {Frequency: 300, AgeAtLast: 38 * 52, Age: 39 * 52, LogGaps: 400}} {
			for _, c := range []struct {
				what string
				f    func() float64
			}{
				{"likelihood", func() float64 { return m.LogLikelihood(h) }},
				{"alive", func() float64 { return m.Alive(h) }},
				{"expected", func() float64 { return m.Expected(h, 52) }},
				{"dert", func() float64 { return m.DERT(h, .002, math.Inf(1)) }},
			} {
				b.Run(name+"/"+c.what+"/x="+map[bool]string{true: "2", false: "300"}[h.Frequency == 2], func(b *testing.B) {
					for b.Loop() {
						sink = c.f()
					}
				})
			}
		}
	}
}

func BenchmarkConstructors(b *testing.B) {
	for _, f := range Families() {
		p := make([]float64, len(f.Parameters))
		for i := range p {
			p[i] = 2
		}
		b.Run(strings.NewReplacer("/", "-").Replace(f.Name), func(b *testing.B) {
			for b.Loop() {
				m, err := f.New(p...)
				if err != nil || m == nil {
					b.Fatal(err)
				}
			}
		})
	}
}
