package customer

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tierstream/tierstream/internal/event"
)

// data returns the folder of the public data sets.
func data(t *testing.T, file string) string {
	root := os.Getenv("TIERSTREAM_DATA")
	if root == "" {
		root = filepath.Join("..", "..", "..", "shared", "data")
	}
	path := filepath.Join(root, file)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("no data set: set TIERSTREAM_DATA to the folder that holds %s", file)
	}
	return path
}

// report prints the sizes of the records and holds their median against the
// promise of 512 bytes.
func report(t *testing.T, what string, records []*Record) {
	t.Helper()
	sizes := make([]int, len(records))
	for i, r := range records {
		sizes[i] = len(r.Append(nil))
	}
	slices.Sort(sizes)
	median, p99, most := sizes[len(sizes)/2], sizes[len(sizes)*99/100], sizes[len(sizes)-1]
	t.Logf("%s: %d records, median %d B, p99 %d B, max %d B", what, len(sizes), median, p99, most)
	if median > 512 || most > MaxStored {
		t.Errorf("%s: median %d B, max %d B", what, median, most)
	}
}

// standing is a stored envelope as an engine would leave it.
func standing(r *Record) *Record {
	r.Seq, r.Due = 1_000_000, r.Facts.Newest+30*day
	r.Standing = Standing{Tier: 1, Since: r.Facts.First, Sequence: 3, Clock: r.Facts.Newest}
	return r
}

func TestSizesOnCDNOW(t *testing.T) {
	file, err := os.Open(data(t, "cdnow/CDNOW_master.txt"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	p := DefaultPolicy("USD")
	p.ZeroOrders = Count
	f := newFolder(t, p, 365)
	customers := map[string]*Record{}
	lines := bufio.NewScanner(file)
	lines.Scan() // heads of the columns
	for i := 0; lines.Scan(); i++ {
		fields := strings.Fields(lines.Text())
		date, err := time.Parse("20060102", fields[1])
		if err != nil {
			t.Fatal(err)
		}
		dollars, err := strconv.ParseFloat(fields[3], 64)
		if err != nil {
			t.Fatal(err)
		}
		if customers[fields[0]] == nil {
			r := NewRecord()
			customers[fields[0]] = &r
		}
		ev := purchase(fmt.Sprint("e", i), fmt.Sprint("o", i), date.UnixMilli()+12*hour, int64(dollars*100+0.5))
		ev.Currency = "USD"
		ev = sealed(ev)
		if res := f.Apply(customers[fields[0]], &ev); res.Code != event.Applied {
			t.Fatalf("row %d: %v %s", i, res.Code, res.Field)
		}
	}
	if len(customers) != 23_570 {
		t.Fatalf("%d customers, the data set has 23,570", len(customers))
	}
	records := make([]*Record, 0, len(customers))
	days := int64(0)
	for _, r := range customers {
		records = append(records, standing(r))
		days += r.Facts.Old.Days
		last := r.Facts.Old.LastDay
		for _, o := range r.Facts.Orders {
			if o.Day != last {
				days++
				last = o.Day
			}
		}
	}
	if days != 67_591 {
		t.Errorf("%d distinct purchase days, the data set has 67,591", days)
	}
	report(t, "CDNOW", records)
}

// A shop whose customers buy eight times on average, with categories, margins,
// returns, complaints, referrals and surveys.
func TestSizesOfABusyShop(t *testing.T) {
	f := newFolder(t, testPolicy(), 365)
	rng := rand.New(rand.NewPCG(7, 7))
	var records []*Record
	for range 2000 {
		r := NewRecord()
		apply := func(ev event.Event) {
			ev = sealed(ev)
			if res := f.Apply(&r, &ev); res.Code != event.Applied {
				t.Fatalf("%v %s", res.Code, res.Field)
			}
		}
		events := history(rng, 1+int(rng.ExpFloat64()*8), 20)
		for _, ev := range events {
			apply(ev)
		}
		at := r.Facts.Newest
		if rng.IntN(4) == 0 {
			apply(complaint("k1", "k", at, event.Opened, 3))
			apply(complaint("k2", "k", at+day, event.Resolved, 3))
		}
		if rng.IntN(3) == 0 {
			apply(event.Event{Type: event.Feedback, ID: "a1", Time: at, BusinessID: "a", Kind: event.NPS, Score: 8, ScaleMax: 10})
		}
		if rng.IntN(5) == 0 {
			apply(referral("f1", "f", at, event.Converted))
		}
		apply(event.Event{Type: event.Cost, ID: "x1", Time: at, BusinessID: "x", Kind: event.Acquisition, Amount: 1200, HasAmount: true, Currency: "EUR"})
		records = append(records, standing(&r))
	}
	report(t, "busy shop", records)
}
