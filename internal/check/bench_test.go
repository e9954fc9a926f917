package check

import (
	"runtime"
	"strconv"
	"testing"
	"unsafe"

	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/state"
)

// Memory per customer while a partition is checked, and the time to take one.
func BenchmarkCustomer(b *testing.B) {
	r := customer.NewRecord()
	value := r.Append(nil)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	p := &part{customers: map[uint64]*entry{}, waits: map[string][]uint64{}, due: map[string]int64{}}
	n := 0
	for b.Loop() {
		if wrong := p.put("c"+strconv.Itoa(n), state.Sampled{Value: value, Indexed: true, Due: state.NeverDue}); wrong != "" {
			b.Fatal(wrong)
		}
		n++
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(n), "B/customer")
	b.ReportMetric(float64(unsafe.Sizeof(entry{})), "B/entry")
	runtime.KeepAlive(p)
}
