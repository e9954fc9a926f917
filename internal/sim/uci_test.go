package sim

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tierstream/tierstream/internal/event"
)

const uciHeader = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"

func readUCI(t *testing.T, rows string) ([]Message, *UCISummary) {
	t.Helper()
	london, err := time.LoadLocation("Europe/London")
	if err != nil {
		t.Fatal(err)
	}
	messages, s, err := ParseUCI(strings.NewReader(uciHeader+rows), london)
	if err != nil {
		t.Fatal(err)
	}
	return messages, s
}

// texts are the messages as "type id order amount@time code".
func texts(messages []Message) (out []string) {
	for _, m := range messages {
		e := &m.Event
		out = append(out, fmt.Sprintf("%s %s %s %s %d %s %s", e.Customer, e.Type, strings.TrimPrefix(e.BusinessID, "uci:"), strings.TrimPrefix(e.OrderID, "uci:"),
			e.Amount, time.UnixMilli(e.Time).UTC().Format("01-02T15:04"), m.Code))
		if e.ID != e.BusinessID || e.Source != uciSource || e.Currency != "GBP" || m.At != e.Time || m.Topic != Purchases {
			out = append(out, fmt.Sprintf("%+v", m))
		}
	}
	return out
}

func TestUCICreditsMatchTheLatestInvoicesFirst(t *testing.T) {
	messages, s := readUCI(t, `536001,22001,BOWL,4,2011-07-01 10:00:00,2.50,100.0,United Kingdom
536001,22002A,"CUP, RED",1,2011-07-01 10:01:00,0.85,100.0,United Kingdom
536002,22001,BOWL,3,2011-07-02 09:00:00,2.5,100.0,United Kingdom
536003,22001,BOWL,50,2011-07-02 10:00:00,2.5,200.0,United Kingdom
C536004,22001,BOWL,-5,2011-07-03 09:00:00,2.50,100.0,United Kingdom
C536004,22009,NEVER BOUGHT,-2,2011-07-03 09:00:00,1.00,100.0,United Kingdom
C536005,22001,BOWL,-9,2011-07-04 09:00:00,2.50,100.0,United Kingdom
536006,22001,BOWL,9,2011-07-05 09:00:00,2.50,100.0,United Kingdom
`)
	want := []string{
		"100 purchase 536001  1085 07-01T09:00 applied", // summer time; the earlier of its two times
		"100 purchase 536002  750 07-02T08:00 applied",
		"200 purchase 536003  12500 07-02T09:00 applied",
		"100 return C536004:536002 536002 750 07-03T08:00 applied",
		"100 return C536004:536001 536001 500 07-03T08:00 applied",
		"100 return C536004:C536004 C536004 200 07-03T08:00 orphan_return",
		// Two bowls are left of the first invoice; the later invoice does not help.
		"100 return C536005:536001 536001 500 07-04T08:00 applied",
		"100 return C536005:C536005 C536005 1750 07-04T08:00 orphan_return",
		"100 purchase 536006  2250 07-05T08:00 applied",
	}
	if got := texts(messages); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if s.Purchases != 4 || s.Notes != 2 || s.Customers != 2 || s.Returns != 3 || s.Unmatched != 2 ||
		s.ReturnedMoney != 17500 || s.Orphaned != 19500 || s.UnmatchedRows != 2 || s.UnmatchedUnit != 9 {
		t.Errorf("summary %+v", s)
	}
	if s.Money != s.Sold.Money+s.Credited.Money || s.Credited.Money != -s.ReturnedMoney-s.Orphaned {
		t.Errorf("money does not add up: %+v", s)
	}
}

// The file is about as it was published, too, with the dates of a spreadsheet.
func TestUCIReadsBothFormsOfDates(t *testing.T) {
	messages, _ := readUCI(t, "536001,22001,BOWL,4,12/1/2010 8:26,2.00,100,United Kingdom\n536002,22001,BOWL,4,2010-12-01 08:27:00,2.00,100.0,United Kingdom\n")
	want := []string{"100 purchase 536001  800 12-01T08:26 applied", "100 purchase 536002  800 12-01T08:27 applied"}
	if got := texts(messages); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A credit above the price of the sale must not take more than was paid.
func TestUCICreditsTakeNoMoreThanWasPaid(t *testing.T) {
	messages, _ := readUCI(t, `536001,22001,BOWL,4,2011-01-01 10:00:00,2.00,100.0,United Kingdom
C536002,22001,BOWL,-4,2011-01-02 10:00:00,3.00,100.0,United Kingdom
`)
	want := []string{
		"100 purchase 536001  800 01-01T10:00 applied",
		"100 return C536002:536001 536001 600 01-02T10:00 applied",
		"100 return C536002:C536002 C536002 600 01-02T10:00 orphan_return",
	}
	if got := texts(messages); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestUCILeavesOutByTheFirstRule(t *testing.T) {
	messages, s := readUCI(t, `536001,22001,BOWL,4,2011-01-01 10:00:00,2.00,,United Kingdom
A563185,B,Adjust bad debt,1,2011-01-01 10:00:00,-11062.06,7.0,United Kingdom
536002,POST,POSTAGE,1,2011-01-01 10:00:00,18.00,7.0,France
536002,PADS,PADS,1,2011-01-01 10:00:00,0.001,7.0,France
C536003,D,Discount,-1,2011-01-01 10:00:00,5.00,7.0,France
536004,22001,GIFT,1,2011-01-01 10:00:00,0.00,7.0,France
536005,22001,damaged,-3,2011-01-01 10:00:00,1.00,7.0,France
C536006,22001,BOWL,3,2011-01-01 10:00:00,1.00,7.0,France
536006,22001,BOWL,1,2011-01-01 10:00:00,1.00,7.0,France
`)
	if got, want := texts(messages), []string{"7 purchase 536006  100 01-01T10:00 applied"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	want := [uciRules]Tally{{1, 8000}, {1, -11062060}, {3, 13001}, {1, 0}, {2, 0}}
	if s.LeftOut != want {
		t.Errorf("left out %v, want %v", s.LeftOut, want)
	}
	if d := s.NotGoods["D"]; len(s.NotGoods) != 3 || d != (Tally{1, -5000}) {
		t.Errorf("not goods: %v", s.NotGoods)
	}
	var text strings.Builder
	if _, err := s.WriteTo(&text); err != nil {
		t.Fatal(err)
	}
	printed := strings.Join(strings.Fields(text.String()), " ")
	for _, line := range []string{"9 rows -11040.059 GBP", "1 left out: adjustments of the books -11062.06 GBP", "1 PADS 0.001 GBP"} {
		if !strings.Contains(printed, line) {
			t.Errorf("%q is not in\n%s", line, &text)
		}
	}
}

func TestUCIRefusesWhatItCannotRead(t *testing.T) {
	for rows, want := range map[string]string{
		"536001,22001,B,1,2011-01-01 10:00:00,0.005,7.0,X\n": `line 2: price "0.005": goods at a fraction of a penny`,
		"536001,22001,B,1,2011-01-01 10:00:00,1e3,7.0,X\n":   `line 2: price "1e3"`,
		"536001,22001,B,1.5,2011-01-01 10:00:00,1,7.0,X\n":   `line 2: quantity "1.5"`,
		"536001,22001,B,1,13/1/2011 10:00,1,7.0,X\n":         `line 2: invoice date "13/1/2011 10:00"`,
		"536001,22001,B,1\n":                                 "line 2: wrong number of fields",
	} {
		if _, _, err := ParseUCI(strings.NewReader(uciHeader+rows), time.UTC); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", rows, err, want)
		}
	}
	if _, _, err := ParseUCI(strings.NewReader("a,b\n"), time.UTC); err == nil || !strings.Contains(err.Error(), "no column InvoiceNo") {
		t.Errorf("got %v", err)
	}
}

// The two halves of a summary: what is sent says what is printed.
func TestUCISummaryIsWhatIsSent(t *testing.T) {
	messages, s := readUCI(t, `536001,22001,BOWL,4,2011-01-01 10:00:00,2.00,100.0,United Kingdom
C536002,22001,BOWL,-6,2011-01-02 10:00:00,2.00,100.0,United Kingdom
`)
	var sold, returned, orphaned int64
	for _, m := range messages {
		switch {
		case m.Event.Type == event.Purchase:
			sold += m.Event.Amount * 10
		case m.Code == event.OrphanReturn:
			orphaned += m.Event.Amount * 10
		default:
			returned += m.Event.Amount * 10
		}
	}
	if sold != s.Sold.Money || returned != s.ReturnedMoney || orphaned != s.Orphaned {
		t.Errorf("sent %d, %d, %d; printed %+v", sold, returned, orphaned, s)
	}
}
