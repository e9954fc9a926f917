package fit_test

import (
	"math"
	"strings"
	"testing"

	"github.com/tierstream/tierstream/internal/fit"
	"github.com/tierstream/tierstream/internal/scoring/btyd"
)

// TestWhatCannotBeFittedIsSaid: an error with the reason, for every family,
// and never a parameter that is not a number.
func TestWhatCannotBeFittedIsSaid(t *testing.T) {
	var once, equal []btyd.History
	for i := range 40 {
		once = append(once, btyd.History{Age: float64(i + 1)})
		equal = append(equal, btyd.History{Frequency: 2, AgeAtLast: 5, Age: 9})
	}
	for _, c := range []struct {
		name, want string
		histories  []btyd.History
	}{
		{"nobody", "there are no customers", nil},
		{"one", "1 customers with 1 different histories", equal[:1]},
		{"all the same", "40 customers with 1 different histories", equal},
		{"one-time buyers", "none of 40 customers bought twice", once},
		{"age 0", "all 2 customers are of age 0", []btyd.History{{}, {}}},
	} {
		data, err := fit.Observe(c.histories)
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range btyd.Families() {
			f, err := fit.Purchases(family, 0, data, fit.Options{})
			if err == nil || !strings.Contains(err.Error(), c.want) || f != nil {
				t.Errorf("%s, %s: %+v, %v, want %q", c.name, family.Name, f, err, c.want)
			}
		}
	}
	for _, h := range []btyd.History{
		{Frequency: 1, AgeAtLast: 5, Age: 4}, {AgeAtLast: 1, Age: 4}, {Frequency: 0.5, AgeAtLast: 1, Age: 4},
		{Frequency: -1, Age: 4}, {Age: math.NaN()}, {Age: math.Inf(1)},
	} {
		if data, err := fit.Observe([]btyd.History{{Age: 3}, h}); err == nil || !strings.Contains(err.Error(), "customer 2") {
			t.Errorf("%+v was taken: %v, %v", h, data, err)
		}
	}
}

func TestWhatWasSpentMustBeAboveZero(t *testing.T) {
	for _, c := range []struct {
		want string
		data []fit.Spending
	}{
		{"nobody has a repeat purchase", nil},
		{"nobody has a repeat purchase", []fit.Spending{{0, 0}, {0, 5}}},
		{"customer 2: a mean value of 0", []fit.Spending{{1, 5}, {2, 0}}},
		{"customer 1: a mean value of -3", []fit.Spending{{1, -3}}},
		{"a mean value of NaN", []fit.Spending{{1, math.NaN()}}},
		{"a mean value of +Inf", []fit.Spending{{1, math.Inf(1)}}},
		{"-1 purchases", []fit.Spending{{-1, 4}}},
		{"1 different values cannot determine", []fit.Spending{{1, 5}, {1, 5}, {1, 5}, {1, 5}}},
	} {
		if f, err := fit.Spend(c.data, fit.Options{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %+v, %v, want %q", c.data, f, err, c.want)
		}
	}
}

// TestGroupsAreTheCustomers: grouping changes neither their number nor what a
// model with an Erlang shape thinks of them.
func TestGroupsAreTheCustomers(t *testing.T) {
	h := []btyd.History{{Frequency: 2, AgeAtLast: 5, Age: 9, LogGaps: 1}, {Age: 4}, {Frequency: 2, AgeAtLast: 5, Age: 9, LogGaps: 1.3}, {Age: 4}, {Age: 4}}
	data, err := fit.Observe(h)
	if err != nil {
		t.Fatal(err)
	}
	m, err := btyd.NewMBGCNBD(2, 1.3, 2.8, 0.4, 0.8)
	if err != nil {
		t.Fatal(err)
	}
	each, grouped := 0.0, 0.0
	for _, x := range h {
		each += m.LogLikelihood(x)
	}
	for _, d := range data {
		grouped += d.Customers * m.LogLikelihood(d.History)
	}
	if len(data) != 2 || data[0].Customers != 3 || math.Abs(each-grouped) > 1e-12 {
		t.Errorf("%+v: log likelihood %v, of each customer %v", data, grouped, each)
	}
}

// TestPriorIsOnlyOnDropOut: the NBD has none, so asking for it is an error.
func TestPriorIsOnlyOnDropOut(t *testing.T) {
	data, err := fit.Observe([]btyd.History{{Age: 3}, {Frequency: 1, AgeAtLast: 1, Age: 3}, {Frequency: 2, AgeAtLast: 2, Age: 4}, {Age: 9}})
	if err != nil {
		t.Fatal(err)
	}
	family, _ := btyd.FamilyOf("NBD")
	if f, err := fit.Purchases(family, 0, data, fit.Options{Prior: fit.Always}); err == nil || !strings.Contains(err.Error(), "no prior on drop-out") {
		t.Errorf("%+v, %v", f, err)
	}
}
