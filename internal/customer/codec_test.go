package customer

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/scoring"
)

var update = flag.Bool("update", false, "write the golden files of the current record version anew")

// anyRecord draws a record that keeps the codec's invariants, with numbers of
// every width, whether or not a fold could make it.
func anyRecord(t *rapid.T) Record {
	i64 := func() int64 { return rapid.Int64().Draw(t, "number") }
	u64 := func() uint64 { return rapid.Uint64().Draw(t, "hash") }
	u32 := func() uint32 { return rapid.Uint32().Draw(t, "hash32") }
	count := func() int64 { return rapid.Int64Range(0, math.MaxInt64).Draw(t, "count") }
	amount := func() int64 { return rapid.Int64Range(0, maxAmount).Draw(t, "amount") }
	sum := func() int64 { return rapid.Int64Range(0, maxSum).Draw(t, "sum") }
	signed := func() int64 { return rapid.Int64Range(-maxSum, maxSum).Draw(t, "signed") }
	date := func() int32 { return rapid.Int32().Draw(t, "day") }
	few := func() int { return rapid.IntRange(0, 20).Draw(t, "few") }
	yes := func() bool { return rapid.Bool().Draw(t, "yes") }
	currency := func() Currency {
		return rapid.SampledFrom([]Currency{{}, {'U', 'S', 'D'}, {'J', 'P', 'Y'}}).Draw(t, "currency")
	}
	r := NewRecord()
	r.Seq, r.Due = u64(), i64()
	r.Standing = Standing{Tier: rapid.Int8().Draw(t, "tier"), Since: i64(), Sequence: u64(), Clock: i64()}
	f := &r.Facts
	f.First, f.Newest, f.MinTime, f.Purchases, f.Returns = i64(), i64(), i64(), count(), count()
	for range few() {
		f.Seen = append(f.Seen, Seen{i64(), u64(), u32()})
	}
	slices.SortFunc(f.Seen, func(a, b Seen) int { return compare(a.Time, a.Hash, b.Time, b.Hash) })
	f.Seen = slices.CompactFunc(f.Seen, func(a, b Seen) bool { return a.Time == b.Time && a.Hash == b.Hash })
	for range few() {
		o := Order{Time: i64(), Hash: u64(), Event: u64(), Day: date(), Content: u32(), Category: u32(), Currency: currency(), Amount: amount(), HasMargin: yes()}
		o.Returned = rapid.Int64Range(0, o.Amount).Draw(t, "returned")
		if o.Base = o.Amount; o.Currency != (Currency{}) {
			o.Base = amount()
		}
		if o.HasMargin {
			o.Margin = rapid.Int64Range(-maxAmount, maxAmount).Draw(t, "margin")
		}
		f.Orders = append(f.Orders, o)
	}
	slices.SortFunc(f.Orders, func(a, b Order) int { return compare(a.Time, a.Hash, b.Time, b.Hash) })
	f.Orders = slices.CompactFunc(f.Orders, func(a, b Order) bool { return a.Time == b.Time && a.Hash == b.Hash })
	for range few() {
		f.Waiting = append(f.Waiting, Waiting{Time: i64(), Hash: u64(), Order: u64(), Content: u32(), Currency: currency(), Amount: amount()})
	}
	slices.SortFunc(f.Waiting, func(a, b Waiting) int { return compare(a.Time, a.Hash, b.Time, b.Hash) })
	f.Waiting = slices.CompactFunc(f.Waiting, func(a, b Waiting) bool { return a.Time == b.Time && a.Hash == b.Hash })
	for range few() {
		c := Complaint{Key: u64(), Time: i64(), Hash: u64(), Content: u32(), Status: uint8(few() % 8), Severity: uint8(few() % 6), Opened: i64(), Paid: -1}
		if yes() {
			c.PaidTime, c.PaidHash, c.Paid = i64(), u64(), amount()
		}
		f.Complaints = append(f.Complaints, c)
	}
	slices.SortFunc(f.Complaints, func(a, b Complaint) int { return compare(0, a.Key, 0, b.Key) })
	f.Complaints = slices.CompactFunc(f.Complaints, func(a, b Complaint) bool { return a.Key == b.Key })
	for range few() {
		c := Referral{Key: u64(), Time: i64(), Hash: u64(), Content: u32(), Status: uint8(few() % 8), Value: -1}
		if yes() {
			c.Value = amount()
		}
		f.Referrals = append(f.Referrals, c)
	}
	slices.SortFunc(f.Referrals, func(a, b Referral) int { return compare(0, a.Key, 0, b.Key) })
	f.Referrals = slices.CompactFunc(f.Referrals, func(a, b Referral) bool { return a.Key == b.Key })
	for _, a := range []*Answer{&f.NPS, &f.CSAT, &f.CES} {
		if yes() {
			*a = Answer{true, i64(), u64(), date(), date()}
		}
	}
	f.Praises, f.Suggestions = count(), count()
	if f.Costs.AcquisitionKnown = yes(); f.Costs.AcquisitionKnown {
		f.Costs.Acquisition = sum()
	}
	f.Costs.Service, f.Costs.Marketing, f.Costs.Selling = sum(), sum(), sum()
	if yes() {
		return r
	}
	o := &f.Old
	o.Orders, o.Net, o.Days, o.LastNet, o.ValueDays, o.ValueSum, o.LastTime, o.Largest = count(), sum(), count(), sum(), count(), sum(), i64(), sum()
	o.FirstDay, o.LastDay = date(), date()
	for _, m := range []*scoring.Margins{&o.First, &o.Cross, &o.Repeat} {
		m.Known, m.Assumed = signed(), sum()
	}
	o.Returned, o.Complaints, o.Compensation, o.Converted, o.Unvalued, o.ReferralValue = sum(), count(), sum(), count(), count(), sum()
	for range few() {
		o.Categories = append(o.Categories, max(u32(), 1))
	}
	slices.Sort(o.Categories)
	o.Categories = slices.Compact(o.Categories)
	for range few() {
		o.Buckets = append(o.Buckets, Bucket{date(), max(count(), 1), sum(), scoring.Margins{Known: signed(), Assumed: sum()}})
	}
	slices.SortFunc(o.Buckets, func(a, b Bucket) int { return int(int64(a.Day) - int64(b.Day)) })
	o.Buckets = slices.CompactFunc(o.Buckets, func(a, b Bucket) bool { return a.Day == b.Day })
	return r
}

// same compares records by value; an empty slice is a nil slice.
func same(a, b *Record) bool {
	plain := func(r Record) Record {
		f := &r.Facts
		f.Seen = append([]Seen(nil), f.Seen...)
		f.Orders = append([]Order(nil), f.Orders...)
		f.Waiting = append([]Waiting(nil), f.Waiting...)
		f.Complaints = append([]Complaint(nil), f.Complaints...)
		f.Referrals = append([]Referral(nil), f.Referrals...)
		f.Old.Categories = append([]uint32(nil), f.Old.Categories...)
		f.Old.Buckets = append([]Bucket(nil), f.Old.Buckets...)
		return r
	}
	return reflect.DeepEqual(plain(*a), plain(*b))
}

func TestRecordComesBackAsItWas(t *testing.T) {
	var used Record // every decode meets the remains of the one before
	rapid.Check(t, func(t *rapid.T) {
		r := anyRecord(t)
		prefix := []byte("before")
		b := r.Append(prefix)[len(prefix):]
		if err := Decode(b, &used); err != nil {
			t.Fatal(err)
		}
		if !same(&r, &used) {
			t.Fatalf("came back as\n%+v, was\n%+v", used, r)
		}
	})
}

func TestDecodeRefusesWhatAppendNeverWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := anyRecord(t)
		b := r.Append(nil)
		cut := rapid.IntRange(0, len(b)-1).Draw(t, "cut")
		var back Record
		if err := Decode(b[:cut], &back); err == nil {
			t.Fatalf("%d of %d bytes are accepted", cut, len(b))
		}
		if err := Decode(append(slices.Clone(b), 0), &back); !errors.Is(err, errTrailing) {
			t.Fatalf("a byte too many: %v", err)
		}
		// Any other bytes are refused, or are what Append writes.
		b[rapid.IntRange(0, len(b)-1).Draw(t, "at")] = rapid.Byte().Draw(t, "byte")
		if err := Decode(b, &back); err == nil && !bytes.Equal(back.Append(nil), b) {
			t.Fatalf("accepted %x, which would be written as %x", b, back.Append(nil))
		}
	})
	var r Record
	err := Decode([]byte{2, 0x94}, &r)
	if !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("version 2: %v", err)
	}
}

func TestDecodeRefusesBrokenInvariants(t *testing.T) {
	for name, spoil := range map[string]func(*Facts){
		"seen out of order":        func(f *Facts) { f.Seen[0], f.Seen[1] = f.Seen[1], f.Seen[0] },
		"seen twice":               func(f *Facts) { f.Seen[1] = f.Seen[0] },
		"more returned than paid":  func(f *Facts) { f.Orders[0].Returned = f.Orders[0].Amount + 1 },
		"order twice":              func(f *Facts) { f.Orders[1] = f.Orders[0] },
		"negative amount":          func(f *Facts) { f.Orders[0].Amount = -1 },
		"margin beyond any amount": func(f *Facts) { f.Orders[0].HasMargin, f.Orders[0].Margin = true, -maxAmount-1 },
		"small letters":            func(f *Facts) { f.Orders[0].Currency = Currency{'e', 'u', 'r'} },
		"complaint twice":          func(f *Facts) { f.Complaints[1] = f.Complaints[0] },
		"category twice":           func(f *Facts) { f.Old.Categories = []uint32{7, 7} },
		"too many categories":      func(f *Facts) { f.Old.Categories = make([]uint32, maxCategories+1) },
		"bucket twice":             func(f *Facts) { f.Old.Buckets = []Bucket{{Day: 3, Orders: 1}, {Day: 3, Orders: 1}} },
	} {
		f := newFolder(t, testPolicy(), 365)
		r := NewRecord()
		for i := range 3 {
			n := fmt.Sprint(i)
			wants(t, f, &r, purchase("p"+n, "o"+n, start+int64(i), 100), event.Applied, "")
			wants(t, f, &r, complaint("k"+n, "k"+n, start, event.Opened, 1), event.Applied, "")
		}
		spoil(&r.Facts)
		var back Record
		if err := Decode(r.Append(nil), &back); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// The bounds by which tooBig skips measuring must hold for the widest entries.
func TestEntryBoundsHold(t *testing.T) {
	empty := Record{Facts: Facts{Old: Old{Returned: 1}}}
	size := func(change func(*Facts)) int {
		r := Record{Facts: Facts{Old: Old{Returned: 1}}}
		change(&r.Facts)
		return len(r.Append(nil))
	}
	const wide, n = math.MinInt64, 16 // 16 entries take the wider array head, too
	widest := map[string]struct {
		bound int
		fill  func(*Facts)
	}{
		"seen": {maxSeenBytes, func(f *Facts) {
			f.Seen = slices.Repeat([]Seen{{0, math.MaxUint64, math.MaxUint32}, {-1, math.MaxUint64, math.MaxUint32}}, n/2)
		}},
		"orders": {maxOrderBytes, func(f *Facts) {
			for i := range n {
				f.Orders = append(f.Orders, Order{-int64(i % 2), math.MaxUint64, math.MaxUint64, maxAmount, maxAmount, maxAmount, -maxAmount, math.MinInt32, math.MaxUint32, math.MaxUint32, Currency{'U', 'S', 'D'}, true})
			}
		}},
		"waiting": {maxWaitingBytes, func(f *Facts) {
			f.Waiting = slices.Repeat([]Waiting{{wide, math.MaxUint64, math.MaxUint64, math.MaxUint32, Currency{'U', 'S', 'D'}, wide}}, n)
		}},
		"complaints": {maxComplaintBytes, func(f *Facts) {
			f.Complaints = slices.Repeat([]Complaint{{math.MaxUint64, wide, math.MaxUint64, math.MaxUint32, 4, 5, wide, wide, math.MaxUint64, maxAmount}}, n)
		}},
		"referrals": {maxReferralBytes, func(f *Facts) {
			f.Referrals = slices.Repeat([]Referral{{math.MaxUint64, wide, math.MaxUint64, math.MaxUint32, 7, maxAmount}}, n)
		}},
		"buckets": {maxBucketBytes, func(f *Facts) {
			f.Old.Buckets = slices.Repeat([]Bucket{{math.MaxInt32, wide, wide, scoring.Margins{Known: wide, Assumed: wide}}}, n)
		}},
		"categories": {maxCategoryBytes, func(f *Facts) { f.Old.Categories = []uint32{1 << 31, math.MaxUint32} }},
	}
	const heads = 7 * 8 // seven lists
	for name, w := range widest {
		if got := size(w.fill) - len(empty.Append(nil)); got > n*w.bound+heads {
			t.Errorf("%d %s take %d bytes, more than %d each", n, name, got, w.bound)
		}
	}
	fixed := Record{Seq: 1, Due: wide, Standing: Standing{-128, wide, math.MaxUint64, wide}}
	a := Answer{true, wide, math.MaxUint64, math.MinInt32, math.MinInt32}
	m := scoring.Margins{Known: wide, Assumed: wide}
	fixed.Facts = Facts{First: wide, Newest: wide, MinTime: wide, Purchases: wide, Returns: wide, NPS: a, CSAT: a, CES: a, Praises: wide, Suggestions: wide,
		Costs: Costs{wide, true, wide, wide, wide},
		Old: Old{Totals: Totals{wide, wide, m, m, m, math.MinInt32, math.MinInt32, wide, wide, wide, wide, wide, wide},
			Returned: wide, Complaints: wide, Compensation: wide, Converted: wide, Unvalued: wide, ReferralValue: wide}}
	if got := len(fixed.Append(nil)) + heads; got > maxFixedBytes {
		t.Errorf("all but the lists takes %d bytes, more than %d", got, maxFixedBytes)
	}
}

// goldens are records that programs of the past have stored: every version
// must be read for ever, and version 1 is still written.
func goldens(t testing.TB) map[string]*Record {
	fold := func(p Policy, events ...event.Event) *Record {
		f := newFolder(t, p, 365)
		r := NewRecord()
		for i := range events {
			if res := f.Apply(&r, &events[i]); res.Code.Outcome() != event.Used && res.Code != event.Waiting {
				t.Fatalf("event %s: %v", events[i].ID, res.Code)
			}
		}
		return &r
	}
	fresh := NewRecord()
	small := testPolicy()
	small.MaxEvents = 3
	usd := func(ev event.Event) event.Event {
		ev.Currency, ev.Category, ev.HasCost, ev.Cost = "USD", "books", true, 300
		return sealed(ev)
	}
	cost := sealed(event.Event{Type: event.Cost, ID: "x", Time: start, BusinessID: "x", Kind: event.Acquisition, Amount: 1250, HasAmount: true, Currency: "EUR"})
	nps := sealed(event.Event{Type: event.Feedback, ID: "n", Time: start + day, BusinessID: "n", Kind: event.NPS, Score: 9, ScaleMax: 10})
	paid := complaint("k2", "k", start+2*day, event.Resolved, 3)
	paid.HasAmount, paid.Amount, paid.Currency = true, 500, "EUR"
	many := make([]event.Event, 0, 12)
	for i := range int64(12) {
		ev := purchase(fmt.Sprint("e", i), fmt.Sprint("o", i), start+i*20*day, 1000+i)
		ev.Category = fmt.Sprint("category ", i%3)
		many = append(many, sealed(ev))
	}
	one := fold(testPolicy(), purchase("e1", "o1", start, 4990))
	one.Seq, one.Due = 42, start+30*day
	one.Standing = Standing{Tier: 2, Since: start, Sequence: 1, Clock: start}
	return map[string]*Record{
		"new":          &fresh,
		"one-purchase": one,
		"all-types": fold(testPolicy(),
			usd(purchase("e1", "o1", start, 10_000)), giveBack("e2", "r1", "o9", start+day, 700), purchase("e3", "o2", start+3*day, 2500), giveBack("e4", "r2", "o2", start+4*day, 1000),
			complaint("k1", "k", start+day, event.Opened, 4), sealed(paid), referral("f1", "f", start, event.Invited), referral("f2", "f", start+day, event.Converted), cost, nps),
		"compacted": fold(small, many...),
	}
}

func TestGoldenRecords(t *testing.T) {
	for name, r := range goldens(t) {
		path := filepath.Join("testdata", "v1", name+".msgpack")
		b := r.Append(nil)
		if *update {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b, want) {
			t.Errorf("%s: the record is now\n%x, the golden file holds\n%x", name, b, want)
		}
		var back Record
		if err := Decode(want, &back); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !same(&back, r) {
			t.Errorf("%s: the golden file reads as\n%+v, want\n%+v", name, back, *r)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, r := range goldens(f) {
		f.Add(r.Append(nil))
	}
	folder := newFolder(f, testPolicy(), 365)
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Record
		if err := Decode(b, &r); err != nil {
			return
		}
		if got := r.Append(nil); !bytes.Equal(got, b) {
			t.Fatalf("accepted %x, which would be written as %x", b, got)
		}
		// Whatever was accepted can be worked with.
		var s scoring.Summary
		folder.Summarize(&r, start, &s)
		ev := purchase("e", "o", start, 100)
		folder.Expire(&r, ev.Time)
		folder.Apply(&r, &ev)
	})
}

func TestDigest(t *testing.T) {
	r := *goldens(t)["one-purchase"]
	term := func(customer string) Digest {
		hi, lo := Sum(customer, r.Append(nil))
		return Digest{hi, lo}
	}
	one := term("c1")
	r.Seq++
	if term("c1") != one {
		t.Error("the digest depends on the seq of the last write")
	}
	if term("c2") == one {
		t.Error("the digest does not depend on the customer")
	}
	r.Due++
	if term("c1") == one {
		t.Error("the digest does not depend on the due time")
	}
	if hi, lo := Sum("c1", nil); hi != 0 || lo != 0 {
		t.Error("a missing record has a term")
	}
	rapid.Check(t, func(t *rapid.T) {
		draw := func(label string) Digest { return Digest{rapid.Uint64().Draw(t, label), rapid.Uint64().Draw(t, label)} }
		a, b, c := draw("a"), draw("b"), draw("c")
		if a.Add(b).Add(c) != c.Add(a).Add(b) || a.Add(b).Sub(b) != a || a.Sub(a) != (Digest{}) {
			t.Fatalf("%v, %v, %v: not a commutative group", a, b, c)
		}
	})
	if got := (Digest{0, math.MaxUint64}).Add(Digest{0, 1}); got != (Digest{1, 0}) {
		t.Errorf("carry: %v", got)
	}
	if got := (Digest{1, 2}).Bytes(); got != [16]byte{7: 1, 15: 2} {
		t.Errorf("bytes: %x", got)
	}
}
