package dmath

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/csv"
	"encoding/hex"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// What gamma.go promises, against 40 digits. Lgamma and the small helpers are
// held to units in the last place of the value; the others to rounding errors
// of what they must add, which is said by each.
func TestGammaAgainstHighPrecision(t *testing.T) {
	f, err := os.Open("testdata/gamma.csv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	const ulp = 0x1p-52
	worst := map[string]float64{}
	for _, row := range rows {
		var v [5]float64
		for i, s := range row[1:] {
			if s == "" {
				continue
			}
			if v[i], err = strconv.ParseFloat(s, 64); err != nil {
				t.Fatal(err)
			}
		}
		want := v[4]
		var got, limit float64
		switch row[0] {
		case "Lgamma":
			got, limit = Lgamma(v[0]), 2*ulp*math.Abs(want)
		case "LogGammaPeak":
			got, limit = LogGammaPeak(v[0]), 4*ulp*max(1, math.Abs(want))
		case "LogRising":
			x, n := v[0], v[1]
			got, limit = LogRising(x, n), 4*ulp*n*math.Log(x+n)
			if x < 8 { // the difference of two ln Γ
				limit = 4 * ulp * (math.Abs(Lgamma(x)) + math.Abs(Lgamma(x+n)) + 1)
			}
		case "LogBeta":
			a, b := min(v[0], v[1]), max(v[0], v[1])
			got, limit = LogBeta(v[0], v[1]), 8*ulp*(math.Abs(Lgamma(a))+a*math.Log(a+b)+1)
		case "LogBetaTerm":
			got, limit = LogBetaTerm(v[0], v[1], v[2], v[3]), ulp*(v[0]+v[1]+16*math.Abs(want)+320)
		default:
			t.Fatalf("no function %s", row[0])
		}
		off := math.Abs(got-want) / limit
		worst[row[0]] = max(worst[row[0]], off)
		if !(off <= 1) {
			t.Errorf("%s%v = %.17g, want %.17g: off by %.2g, allowed %.2g", row[0], v[:4], got, want, math.Abs(got-want), limit)
		}
	}
	if len(rows) < 1000 {
		t.Fatalf("only %d rows", len(rows))
	}
	for name, off := range worst {
		t.Logf("%-13s %.2f of what is allowed", name, off)
	}
}

func TestGammaSpecialValues(t *testing.T) {
	inf, nan := math.Inf(1), math.NaN()
	for _, c := range []struct {
		name      string
		got, want float64
	}{
		{"Lgamma(0)", Lgamma(0), inf}, {"Lgamma(1)", Lgamma(1), 0}, {"Lgamma(2)", Lgamma(2), 0}, {"Lgamma(Inf)", Lgamma(inf), inf},
		{"Lgamma(-1.5)", Lgamma(-1.5), nan}, {"Lgamma(NaN)", Lgamma(nan), nan}, {"Lgamma(5e-324)", Lgamma(5e-324), -Log(5e-324)},
		{"LogRising(3, 0)", LogRising(3, 0), 0}, {"LogRising(30, 0)", LogRising(30, 0), 0},
	} {
		if c.got != c.want && (c.got == c.got || c.want == c.want) {
			t.Errorf("%s = %v, want %v", c.name, c.got, c.want)
		}
	}
}

// TestGammaBitsAreFixed is TestBitsAreFixed for gamma.go.
func TestGammaBitsAreFixed(t *testing.T) {
	const want = "1245a462af9b11605c9a6f615ff3b8e03df6753711140909645efe62c55a3ffe"
	r := rand.New(rand.NewPCG(7, 8))
	h := sha256.New()
	var b [8]byte
	add := func(v float64) {
		binary.LittleEndian.PutUint64(b[:], math.Float64bits(v))
		h.Write(b[:])
	}
	for range 20_000 {
		u := r.Float64()
		x, y := math.Ldexp(1+r.Float64(), int(r.Int32N(40))-10), math.Ldexp(1+r.Float64(), int(r.Int32N(40))-10)
		add(Lgamma(u * 9))
		add(Lgamma(x))
		add(LogRising(x, y))
		add(LogBeta(x, y))
		add(LogBetaTerm(x, y, u, 1-u))
		add(LogGammaPeak(8 + x))
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		t.Errorf("hash of 120,000 values is %s, want %s", got, want)
	}
}

func TestGammaBitsAreFixedWithoutFMA(t *testing.T) {
	if os.Getenv("DMATH_CHILD") != "" {
		t.Skip("this is the child")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestGammaBitsAreFixed$", "-test.v")
	cmd.Env = append(os.Environ(), "DMATH_CHILD=1", "GODEBUG=cpu.fma=off")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestGammaBitsAreFixed") {
		t.Errorf("with cpu.fma=off: %v\n%s", err, out)
	}
}

func BenchmarkLgamma(b *testing.B)    { bench(b, func(x float64) float64 { return Lgamma(x) }) }
func BenchmarkLogRising(b *testing.B) { bench(b, func(x float64) float64 { return LogRising(x, 7) }) }
