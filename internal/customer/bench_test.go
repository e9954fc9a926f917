package customer

import (
	"fmt"
	"testing"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/scoring"
)

// tenOrders is a record of ten orders of four categories, half of them with a
// stated margin, and one partial return.
func tenOrders(tb testing.TB) (*Folder, *Record) {
	f := newFolder(tb, testPolicy(), 365)
	r := NewRecord()
	for i := range int64(10) {
		ev := purchase(fmt.Sprint("e", i), fmt.Sprint("o", i), start+i*11*day, 4990+i)
		ev.Category = fmt.Sprint("category ", i%4)
		ev.HasMargin, ev.Margin = i%2 == 0, 1500
		ev = sealed(ev)
		if res := f.Apply(&r, &ev); res.Code != event.Applied {
			tb.Fatal(res.Code)
		}
	}
	ev := giveBack("e10", "r1", "o3", start+111*day, 1000)
	if res := f.Apply(&r, &ev); res.Code != event.Applied {
		tb.Fatal(res.Code)
	}
	return f, standing(&r)
}

func BenchmarkAppend(b *testing.B) {
	_, r := tenOrders(b)
	buf := r.Append(nil)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		buf = r.Append(buf[:0])
	}
}

func BenchmarkDecode(b *testing.B) {
	_, r := tenOrders(b)
	buf := r.Append(nil)
	var back Record
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		if err := Decode(buf, &back); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSummarize(b *testing.B) {
	f, r := tenOrders(b)
	var s scoring.Summary
	b.ReportAllocs()
	for b.Loop() {
		f.Summarize(r, start+120*day, &s)
	}
}

func BenchmarkSum(b *testing.B) {
	_, r := tenOrders(b)
	buf := r.Append(nil)
	b.ReportAllocs()
	for b.Loop() {
		Sum("customer-000001", buf)
	}
}

// BenchmarkApply folds one more purchase into a record of ten orders.
func BenchmarkApply(b *testing.B) {
	f, r := tenOrders(b)
	buf := r.Append(nil)
	ev := purchase("e11", "o11", start+120*day, 5000)
	var back Record
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		if err := Decode(buf, &back); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if res := f.Apply(&back, &ev); res.Code != event.Applied {
			b.Fatal(res.Code)
		}
	}
}

// BenchmarkApplyAtCapacity folds purchases into a record that compacts one old
// order for each.
func BenchmarkApplyAtCapacity(b *testing.B) {
	f := newFolder(b, testPolicy(), 365)
	r := NewRecord()
	ev := purchase("e", "o", start, 5000)
	id := []byte("o0000000000")
	b.ReportAllocs()
	for b.Loop() {
		for k := len(id) - 1; ; k-- {
			if id[k]++; id[k] <= '9' {
				break
			}
			id[k] = '0'
		}
		ev.ID = string(id)
		ev.BusinessID = ev.ID
		ev.Time += hour
		if res := f.Apply(&r, &ev); res.Code != event.Applied {
			b.Fatal(res.Code)
		}
	}
}

// What runs once per event or customer allocates nothing in steady state.
func TestHotPathsDoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector drops pooled buffers at random")
	}
	f, r := tenOrders(t)
	buf := r.Append(nil)
	var back Record
	var s scoring.Summary
	ev := purchase("e11", "o11", start+120*day, 5000)
	for name, run := range map[string]func(){
		"Append":    func() { buf = r.Append(buf[:0]) },
		"Decode":    func() { _ = Decode(buf, &back) },
		"Summarize": func() { f.Summarize(r, start+120*day, &s) },
		"Sum":       func() { Sum("c1", buf) },
		"Apply":     func() { _ = Decode(buf, &back); f.Apply(&back, &ev) },
		"duplicate": func() { f.Apply(r, &ev) },
	} {
		if n := testing.AllocsPerRun(100, run); n > 0 {
			t.Errorf("%s allocates %.1f times", name, n)
		}
	}
}
