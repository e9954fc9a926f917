package verify

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/scoring"
	"github.com/tierstream/tierstream/internal/sim"
	"github.com/tierstream/tierstream/internal/testenv"
)

// What is known of the file from its publishers, and from its SOURCE.md.
const (
	uciRows        = 541_909
	uciNoCustomer  = 135_080
	uciTenthsPenny = 9_747_747_934 // Σ quantity × price of all rows
)

// TestUCIAgreesWithAnIndependentReading takes the UCI Online Retail log, with
// its credit notes, through real Kafka and real Redis and compares every
// customer, and every return that found no order, with a script that reads the
// raw file by the written rules.
func TestUCIAgreesWithAnIndependentReading(t *testing.T) {
	file := filepath.Join(testenv.DataDir(t), "online_retail", "online_retail.csv.gz")
	if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
		t.Skipf("no UCI Online Retail log: %v", err)
	}
	script := runScript(t, findPython(t), "python/retail.py", file, "2011-12-11")
	messages, summary, err := sim.ReadUCI(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	checkSummary(t, summary, messages)

	w := newWorld(t, company{
		name:  "uci",
		model: scoring.InitOptions{Currency: "GBP", Zone: "Europe/London", TypicalOrderMinor: 3500},
		zero:  customer.Ignore,
	})
	w.send(t, messages)
	stop := w.start(t)
	w.published(t)
	// Somebody buys in each partition when the grace of the last notes is over.
	after := time.Date(2011, 12, 20, 12, 0, 0, 0, time.UTC)
	w.send(t, w.strangers(t, after))
	ends := w.ends(t, w.cfg.Topics.Inputs[0])
	journal := w.publishedUntil(t, func(p int, e entry) bool {
		return e.State.Next[0].Next >= ends[p] && e.State.Counters[event.Waiting] == 0
	})
	stop()

	// Every record has become an order, a return or a dead letter.
	read, codes, outcomes := counted(states(journal))
	letters := w.committed(t, w.cfg.Topics.DeadLetters)
	if sent := int64(len(messages) + partitions); read != sent || accounted(outcomes) != read || codes["applied"]+codes["orphan_return"] != sent {
		t.Errorf("%d records of %d sent became %v", read, sent, codes)
	}

	want := script.wait(t)
	refused := map[string]string{} // by return ID, what the script says
	orders := map[string]string{}
	for _, row := range want {
		for id := range strings.FieldsSeq(row["refused"]) {
			name, pence, _ := strings.Cut(id, "=")
			refused[name] = row["customer"] + " " + pence
		}
		delete(row, "refused")
		customer := row["customer"]
		delete(row, "customer")
		orders[customer] = fmt.Sprint(row)
	}
	got := map[string]string{}
	for _, m := range letters {
		if code := header(m, "tierstream-code"); code != event.OrphanReturn.String() {
			t.Fatalf("dead letter of %s has the code %s", m.key, code)
		}
		var r struct {
			ID     string `json:"return_id"`
			Amount int64  `json:"amount_minor"`
		}
		if err := json.Unmarshal(m.value, &r); err != nil {
			t.Fatal(err)
		}
		got[r.ID] = fmt.Sprintf("%s %d", m.key, r.Amount)
	}
	if err := differences("refused returns", got, refused); err != nil {
		t.Error(err)
	}
	// All that matched no invoice is among them, to the penny. The others name
	// an order that the consumer no longer remembers.
	var orphans, pence int64
	for id, what := range got {
		note, order, _ := strings.Cut(strings.TrimPrefix(id, "uci:"), ":")
		_, amount, _ := strings.Cut(what, " ")
		n, err := strconv.ParseInt(amount, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if note == order {
			orphans++
			pence += n
		}
	}
	if orphans != summary.Unmatched || pence*10 != summary.Orphaned {
		t.Errorf("%d returns of %d pence matched no invoice and were refused; printed were %d of %d", orphans, pence, summary.Unmatched, summary.Orphaned/10)
	}
	if forgotten := len(got) - int(orphans); forgotten == 0 {
		t.Error("no return names an order beyond the consumer's memory: the log has one")
	}

	exported := w.exportedOrders(t, "2011-12-11T00:00:00Z")
	if int64(len(exported)) != summary.Customers {
		t.Errorf("%d customers exported, want %d", len(exported), summary.Customers)
	}
	if err := differences("customers", exported, orders); err != nil {
		t.Error(err)
	}
}

// checkSummary: what is printed accounts for every row of the file and for
// every message.
func checkSummary(t *testing.T, s *sim.UCISummary, messages []sim.Message) {
	t.Helper()
	rows, money := s.Sold.Rows+s.Credited.Rows, s.Sold.Money+s.Credited.Money
	for _, l := range s.LeftOut {
		rows += l.Rows
		money += l.Money
	}
	if s.Rows != uciRows || rows != s.Rows || s.Money != uciTenthsPenny || money != s.Money || s.LeftOut[sim.UCINoCustomer].Rows != uciNoCustomer {
		t.Errorf("rows or money do not add up to %d and %d: %+v", uciRows, uciTenthsPenny, s)
	}
	var sold, returned, orphaned int64
	sent := map[event.Code]int64{}
	for _, m := range messages {
		switch {
		case m.Event.Type == event.Purchase:
			sold += m.Event.Amount * 10
		case m.Code == event.OrphanReturn:
			orphaned += m.Event.Amount * 10
		default:
			returned += m.Event.Amount * 10
		}
		sent[m.Code]++
	}
	if sent[event.Applied] != s.Purchases+s.Returns || sent[event.OrphanReturn] != s.Unmatched || len(sent) != 2 {
		t.Errorf("sent are %v, printed %+v", sent, s)
	}
	if sold != s.Sold.Money || returned != s.ReturnedMoney || orphaned != s.Orphaned || returned+orphaned != -s.Credited.Money {
		t.Errorf("money sent is %d, %d and %d, printed %+v", sold, returned, orphaned, s)
	}
}

// strangers are purchases by a new customer in each partition.
func (w *world) strangers(t *testing.T, at time.Time) (messages []sim.Message) {
	t.Helper()
	rule, err := event.ParsePartitioner(w.cfg.Rules.Partitioner)
	if err != nil {
		t.Fatal(err)
	}
	has := make([]bool, partitions)
	for i := 0; slices.Contains(has, false); i++ {
		id := fmt.Sprintf("stranger-%d", i)
		p := rule.Partition([]byte(id), partitions)
		if has[p] {
			continue
		}
		has[p] = true
		messages = append(messages, sim.Message{Event: event.Event{
			Type: event.Purchase, ID: id, Source: "verify", Customer: id, Time: at.UnixMilli(), BusinessID: id,
			Amount: 100, HasAmount: true, Currency: w.model.Currency(),
		}})
	}
	return messages
}

// exportedOrders are the customers as `tierctl export` has them, in the columns
// of retail.py.
func (w *world) exportedOrders(t *testing.T, asOf string) map[string]string {
	t.Helper()
	out, err := w.export(t, asOf, "ndjson").Output()
	if err != nil {
		t.Fatal(err)
	}
	exported := map[string]string{}
	for line := range strings.Lines(string(out)) {
		var v struct {
			Customer string
			LastDay  string `json:"last_day"`
			Values   scoring.Values
		}
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatal(err)
		}
		x := &v.Values
		row := map[string]string{"r_days": ""}
		if v.LastDay != "" {
			row["r_days"] = fmt.Sprint(x.RFM.Days)
		}
		for name, n := range map[string]int64{
			"orders": x.Orders.Orders, "returns": x.Orders.Returns, "net": x.Orders.Net, "f_orders": x.RFM.Orders, "m_net": x.RFM.Net,
			"r_score": int64(x.RFM.R), "f_score": int64(x.RFM.F), "m_score": int64(x.RFM.M),
		} {
			row[name] = fmt.Sprint(n)
		}
		exported[v.Customer] = fmt.Sprint(row)
	}
	return exported
}
