package sim

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tierstream/tierstream/internal/event"
)

// uciSource is the CloudEvents source of the file's events.
const uciSource = "producer-sim/uci"

// UCISummary accounts for every row of the file: left out under one rule, part
// of a purchase, or part of a return.
type UCISummary struct {
	Rows, Money      int64            // of the whole file; money is Σ quantity × price
	LeftOut          [uciRules]Tally  // by rule
	NotGoods         map[string]Tally // the rows of that rule by stock code
	Sold, Credited   Tally            // rows of purchases and of credit notes
	Purchases, Notes int64            // invoices and credit notes with goods
	Customers        int64

	// Each credit note became one return per earlier invoice that it matches,
	// and one more, which no consumer can match either, for the rest.
	Returns       int64 // matched ones
	ReturnedMoney int64
	Unmatched     int64 // the others: they end as orphan_return
	UnmatchedRows int64 // credit rows of which something is left; part of Credited
	UnmatchedUnit int64 // units left
	Orphaned      int64 // their money
}

// Tally counts rows and their money. All money of a summary is in tenths of a
// penny, the smallest unit in the file.
type Tally struct{ Rows, Money int64 }

func (t *Tally) add(money int64) {
	t.Rows++
	t.Money += money
}

// UCIRule is why a row is left out; the first that holds counts.
type UCIRule uint8

// The rules, in their order. UCI.md gives the reasons.
const (
	UCINoCustomer UCIRule = iota
	UCIAdjustment
	UCINotGoods
	UCINoPrice
	UCIWrongSign

	uciRules = iota
)

var uciRuleNames = [uciRules]string{
	"without a customer", "adjustments of the books", "not goods", "without a price above 0", "of the wrong sign",
}

func (r UCIRule) String() string { return uciRuleNames[r] }

// WriteTo prints the summary.
func (s *UCISummary) WriteTo(w io.Writer) (int64, error) {
	var b bytes.Buffer
	row := func(n int64, what string, money int64) {
		fmt.Fprintf(&b, "%9d  %-34s %16s GBP\n", n, what, pounds(money))
	}
	row(s.Rows, "rows", s.Money)
	for r, t := range s.LeftOut {
		row(t.Rows, "left out: "+UCIRule(r).String(), t.Money)
		if UCIRule(r) == UCINotGoods {
			for _, code := range slices.Sorted(maps.Keys(s.NotGoods)) {
				row(s.NotGoods[code].Rows, "  "+code, s.NotGoods[code].Money)
			}
		}
	}
	row(s.Sold.Rows, "sold", s.Sold.Money)
	row(s.Credited.Rows, "credited", s.Credited.Money)
	fmt.Fprintf(&b, "%9d  customers\n", s.Customers)
	row(s.Purchases, "purchases, one per invoice", s.Sold.Money)
	row(s.Returns, "returns of them", -s.ReturnedMoney)
	row(s.Unmatched, "returns that match no invoice", -s.Orphaned)
	fmt.Fprintf(&b, "           (%d units of %d credited rows; each ends as orphan_return)\n", s.UnmatchedUnit, s.UnmatchedRows)
	return b.WriteTo(w)
}

// pounds prints tenths of a penny.
func pounds(mills int64) string {
	sign := ""
	if mills < 0 {
		sign, mills = "-", -mills
	}
	s := fmt.Sprintf("%s%d.%03d", sign, mills/1000, mills%1000)
	return strings.TrimSuffix(s, "0")
}

// ReadUCI reads the UCI "Online Retail" log (Chen, Sain and Guo 2012; a CSV
// with a header, or its gzip) as purchases and returns in time order, by the
// rules of UCI.md. Times of the file are local times in zone; nil means
// Europe/London, where the shop is.
//
// IDs name the invoice, the note and the pair of them, so the same file always
// gives the same IDs.
func ReadUCI(path string, zone *time.Location) ([]Message, *UCISummary, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("reading UCI Online Retail: %w", err)
	}
	defer f.Close()
	r := io.Reader(bufio.NewReaderSize(f, 1<<16))
	if strings.HasSuffix(path, ".gz") {
		if r, err = gzip.NewReader(r); err != nil {
			return nil, nil, fmt.Errorf("reading UCI Online Retail %s: %w", path, err)
		}
	}
	if zone == nil {
		if zone, err = time.LoadLocation("Europe/London"); err != nil {
			return nil, nil, fmt.Errorf("reading UCI Online Retail: %w", err)
		}
	}
	messages, summary, err := ParseUCI(r, zone)
	if err != nil {
		return nil, nil, fmt.Errorf("reading UCI Online Retail %s: %w", path, err)
	}
	return messages, summary, nil
}

// uciDocument is an invoice or a credit note of one customer.
type uciDocument struct {
	number   string
	customer string
	credit   bool
	at       int64 // of its earliest row
	lines    []uciLine

	// Of an invoice: what later notes have left of it.
	units map[string]int64 // by stock code
	money int64            // pence
}

// uciLine is a row of goods.
type uciLine struct {
	stock string
	units int64 // above 0, also on a note
	price int64 // pence, above 0
}

// ParseUCI is ReadUCI of the CSV itself, with a zone. Errors name the line.
func ParseUCI(r io.Reader, zone *time.Location) ([]Message, *UCISummary, error) {
	s := &UCISummary{NotGoods: map[string]Tally{}}
	documents, err := uciDocuments(r, zone, s)
	if err != nil {
		return nil, nil, err
	}
	// A return that is sent before its order would wait for it: invoices first.
	slices.SortFunc(documents, func(a, b *uciDocument) int {
		switch {
		case a.at != b.at:
			return cmp.Compare(a.at, b.at)
		case a.credit != b.credit:
			if a.credit {
				return 1
			}
			return -1
		}
		return cmp.Or(cmp.Compare(a.number, b.number), cmp.Compare(a.customer, b.customer))
	})

	var messages []Message
	invoices := map[string][]*uciDocument{} // by customer, in the order of documents
	customers := map[string]bool{}
	for _, d := range documents {
		customers[d.customer] = true
		if d.credit {
			s.Notes++
			messages = append(messages, uciReturns(d, invoices[d.customer], s)...)
			continue
		}
		s.Purchases++
		d.units = map[string]int64{}
		for _, l := range d.lines {
			d.units[l.stock] += l.units
			d.money += l.units * l.price
		}
		invoices[d.customer] = append(invoices[d.customer], d)
		m := d.message(event.Purchase, "uci:"+d.number, d.money)
		m.Event.BusinessID = m.Event.ID
		messages = append(messages, m)
	}
	s.Customers = int64(len(customers))
	return messages, s, nil
}

// message is an event of the document.
func (d *uciDocument) message(t event.Type, id string, pence int64) Message {
	return Message{
		Event: event.Event{
			Type: t, ID: id, Source: uciSource, Customer: d.customer, Time: d.at,
			Amount: pence, HasAmount: true, Currency: "GBP",
		},
		Topic: Purchases,
		At:    d.at,
		Code:  event.Applied,
	}
}

// uciReturns matches a note's rows, in their order, with earlier invoices of
// the customer, the latest first: as many units as the invoice still has of the
// item and money for. It makes one return per invoice, and one of the rest.
func uciReturns(note *uciDocument, earlier []*uciDocument, s *UCISummary) []Message {
	var messages []Message
	at := map[string]int{} // index into messages by invoice
	give := func(order string, pence int64) {
		i, ok := at[order]
		if !ok {
			i = len(messages)
			at[order] = i
			m := note.message(event.Return, "uci:"+note.number+":"+order, 0)
			m.Event.BusinessID, m.Event.OrderID = m.Event.ID, "uci:"+order
			messages = append(messages, m)
		}
		messages[i].Event.Amount += pence
	}
	for _, l := range note.lines {
		left := l.units
		for _, d := range slices.Backward(earlier) {
			if n := min(left, d.units[l.stock], d.money/l.price); n > 0 {
				d.units[l.stock] -= n
				d.money -= n * l.price
				left -= n
				give(d.number, n*l.price)
				s.ReturnedMoney += n * l.price * 10
			}
		}
		if left > 0 {
			// The note's own number is the order's: there is no such order.
			give(note.number, left*l.price)
			s.UnmatchedRows++
			s.UnmatchedUnit += left
			s.Orphaned += left * l.price * 10
		}
	}
	s.Returns += int64(len(messages))
	if i, ok := at[note.number]; ok {
		messages[i].Code = event.OrphanReturn
		s.Returns--
		s.Unmatched++
	}
	return messages
}

// uciDocuments reads the rows of goods, by document.
func uciDocuments(r io.Reader, zone *time.Location, s *UCISummary) ([]*uciDocument, error) {
	rows := csv.NewReader(r)
	rows.ReuseRecord = true
	header, err := rows.Read()
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	// A file that was saved by Excel begins with a byte order mark.
	header[0] = strings.TrimPrefix(header[0], "\ufeff")
	var column [6]int
	for i, name := range [...]string{"InvoiceNo", "StockCode", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID"} {
		if column[i] = slices.Index(header, name); column[i] < 0 {
			return nil, fmt.Errorf("header: no column %s", name)
		}
	}

	type key struct{ number, customer string }
	found := map[key]*uciDocument{}
	var documents []*uciDocument
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			return documents, nil
		} else if err != nil {
			return nil, err
		}
		line, _ := rows.FieldPos(0)
		wrong := func(err error) error { return fmt.Errorf("line %d: %w", line, err) }
		number, stock, customer := row[column[0]], row[column[1]], strings.TrimSuffix(row[column[5]], ".0")
		units, err := strconv.ParseInt(row[column[2]], 10, 32)
		if err != nil {
			return nil, wrong(fmt.Errorf("quantity %q: want an integer", row[column[2]]))
		}
		mills, err := parseMills(row[column[4]])
		if err != nil {
			return nil, wrong(err)
		}
		money := units * mills
		s.Rows++
		s.Money += money
		credit := strings.HasPrefix(number, "C")
		if rule, ok := uciLeftOut(number, stock, customer, units, mills); ok {
			s.LeftOut[rule].add(money)
			if rule == UCINotGoods {
				t := s.NotGoods[stock]
				t.add(money)
				s.NotGoods[stock] = t
			}
			continue
		}
		if mills%10 != 0 {
			return nil, wrong(fmt.Errorf("price %q: goods at a fraction of a penny", row[column[4]]))
		}
		at, err := time.ParseInLocation(time.DateTime, row[column[3]], zone)
		if err != nil {
			at, err = time.ParseInLocation("1/2/2006 15:04", row[column[3]], zone)
		}
		if err != nil {
			return nil, wrong(fmt.Errorf("invoice date %q: want 2010-12-01 08:26:00 or 12/1/2010 8:26", row[column[3]]))
		}
		if credit {
			s.Credited.add(money)
		} else {
			s.Sold.add(money)
		}

		k := key{number, customer}
		d := found[k]
		if d == nil {
			// The row's strings share its memory: one copy per document.
			k = key{strings.Clone(number), strings.Clone(customer)}
			d = &uciDocument{number: k.number, customer: k.customer, credit: credit, at: at.UnixMilli()}
			found[k] = d
			documents = append(documents, d)
		}
		d.at = min(d.at, at.UnixMilli())
		d.lines = append(d.lines, uciLine{strings.Clone(stock), max(units, -units), mills / 10})
	}
}

// uciLeftOut is the first rule by which a row is left out.
func uciLeftOut(number, stock, customer string, units, price int64) (UCIRule, bool) {
	digits, credit := strings.CutPrefix(number, "C")
	switch {
	case customer == "":
		return UCINoCustomer, true
	case !allDigits(digits):
		return UCIAdjustment, true
	case len(stock) < 5 || !allDigits(stock[:5]):
		return UCINotGoods, true
	case price <= 0:
		return UCINoPrice, true
	case units == 0 || credit != (units < 0):
		return UCIWrongSign, true
	}
	return 0, false
}

func allDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// parseMills reads a decimal of at most three digits after the point, in
// thousandths, without a float between.
func parseMills(s string) (int64, error) {
	digits, negative := strings.CutPrefix(s, "-")
	whole, frac, _ := strings.Cut(digits, ".")
	if allDigits(whole) && len(whole) <= 9 && len(frac) <= 3 {
		if n, err := strconv.ParseUint(whole+frac+"000"[len(frac):], 10, 63); err == nil {
			if negative {
				return -int64(n), nil
			}
			return int64(n), nil
		}
	}
	return 0, errors.New("price " + strconv.Quote(s) + ": want a decimal with at most three digits after the point")
}
