package contract

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/scoring"
	"github.com/tierstream/tierstream/internal/state"
	"github.com/tierstream/tierstream/internal/stream"
	"github.com/tierstream/tierstream/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const badPartitions = 3

// sending is one record with what must become of it.
type sending struct {
	*kgo.Record
	what   string
	code   event.Code
	field  string       // of a dead letter
	warned []event.Code // counted besides
}

// planner writes records, each kind in every form an event can have on the
// wire. Customers are one per case, so that cases do not meet.
type planner struct {
	format event.Format
	now    time.Time
	n      int
	who    string
	topics []string
	out    []sending
}

// draft is an event in pieces, before it has a form on the wire.
type draft struct {
	attrs     object
	data      any    // an object, or a json.RawMessage that stands for itself
	value     []byte // instead of all of that, in every form
	tombstone bool
	key       string
	elsewhere bool // sent to a partition that is not the key's
	headers   []kgo.RecordHeader
}

// next begins a case: a new customer.
func (p *planner) next() {
	p.n++
	p.who = fmt.Sprintf("c-%s-%d", p.format, p.n)
}

// event is a sound event of a type at some time before now. Its IDs are the
// case's own; what is named again is said again.
func (p *planner) event(typ event.Type, id string, ago time.Duration) event.Event {
	e := event.Examples()[typ-1]
	e.ID, e.Source, e.Customer, e.Time, e.Trace = id, "/test", p.who, p.now.Add(-ago).UnixMilli(), ""
	e.BusinessID = "b-" + id
	switch typ {
	case event.Complaint:
		e.Status = event.Opened
	case event.Referral:
		e.Status = event.Invited
	}
	return e
}

func (p *planner) draft(e event.Event) *draft {
	b, _, err := event.Encode(&e, event.StructuredJSON)
	if err != nil {
		panic(err) // events that are written here have a form
	}
	d := &draft{key: e.Customer}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	if err := dec.Decode(&d.attrs); err != nil {
		panic(err)
	}
	d.data = d.attrs["data"]
	delete(d.attrs, "data")
	delete(d.attrs, "datacontenttype")
	return d
}

// say sends an event that must have the outcome.
func (p *planner) say(t *testing.T, what string, e event.Event, code event.Code, field string, warned ...event.Code) {
	t.Helper()
	p.send(t, what, p.draft(e), code, field, warned...)
}

func (p *planner) send(t *testing.T, what string, d *draft, code event.Code, field string, warned ...event.Code) {
	t.Helper()
	r := &kgo.Record{Topic: p.topics[p.n%len(p.topics)], Key: []byte(d.key)}
	murmur2, err := event.ParsePartitioner("murmur2")
	if err != nil {
		t.Fatal(err)
	}
	if r.Partition = murmur2.Partition(r.Key, badPartitions); d.elsewhere {
		r.Partition = (r.Partition + 1) % badPartitions
	}
	header := func(k, v string) { r.Headers = append(r.Headers, kgo.RecordHeader{Key: k, Value: []byte(v)}) }
	plain, raw := d.data.(json.RawMessage)
	data := []byte(plain)
	packed := p.format == event.BinaryMsgpack || p.format == event.StructuredMsgpack
	if !raw {
		if data = encode(t, d.data); packed {
			data = pack(t, d.data)
		}
	}
	mediaType := "application/json"
	if packed {
		mediaType = "application/msgpack"
	}
	if p.format == event.BinaryJSON || p.format == event.BinaryMsgpack {
		for _, k := range []string{"specversion", "id", "source", "type", "time", "subject"} {
			if v, ok := d.attrs[k].(string); ok {
				header("ce_"+k, v)
			}
		}
		header("content-type", mediaType)
		r.Value = data
	} else {
		whole := object{"datacontenttype": mediaType}
		for k, v := range d.attrs {
			whole[k] = v
		}
		switch {
		case packed && d.data != nil:
			whole["data_base64"] = base64.StdEncoding.EncodeToString(data)
		case raw:
			whole["data"] = "@data@"
		case d.data != nil:
			whole["data"] = d.data
		}
		header("content-type", "application/cloudevents+json")
		r.Value = bytes.Replace(encode(t, whole), []byte(`"@data@"`), data, 1)
	}
	if d.value != nil {
		r.Value = d.value
	}
	if d.tombstone {
		r.Value = nil
	}
	for _, h := range d.headers { // a header of the same name is replaced
		r.Headers = slices.DeleteFunc(r.Headers, func(was kgo.RecordHeader) bool { return was.Key == h.Key })
		r.Headers = append(r.Headers, h)
	}
	p.out = append(p.out, sending{Record: r, what: fmt.Sprintf("%s (%s)", what, p.format), code: code, field: field, warned: warned})
}

// alone is a case of one event, changed by edit.
func (p *planner) alone(t *testing.T, what string, typ event.Type, code event.Code, field string, edit func(d *draft)) {
	t.Helper()
	p.next()
	d := p.draft(p.event(typ, "e-1", time.Hour))
	edit(d)
	p.send(t, what, d, code, field)
}

// set changes a field of the data; nil removes it.
func set(name string, v any) func(*draft) {
	return func(d *draft) {
		data := d.data.(object)
		if data[name] = v; v == nil {
			delete(data, name)
		}
	}
}

// attr changes an attribute; nil removes it.
func attr(name string, v any) func(*draft) {
	return func(d *draft) {
		if d.attrs[name] = v; v == nil {
			delete(d.attrs, name)
		}
	}
}

var (
	requiredFields = map[event.Type][]string{
		event.Purchase:  {"order_id", "amount_minor", "currency"},
		event.Return:    {"return_id", "order_id", "amount_minor", "currency"},
		event.Complaint: {"complaint_id", "severity", "status", "currency"}, // the last with an amount
		event.Referral:  {"referral_id", "referee_id", "status", "currency"},
		event.Feedback:  {"response_id", "kind", "score"},
		event.Cost:      {"cost_id", "kind", "amount_minor", "currency"},
	}
	// What the customer's record decides by the ID of the thing itself.
	businessField = map[event.Type]string{
		event.Purchase: "order_id", event.Return: "return_id", event.Complaint: "complaint_id",
		event.Referral: "referral_id", event.Feedback: "response_id", event.Cost: "cost_id",
	}
)

// shapes are the cases that a record shows by itself.
func (p *planner) shapes(t *testing.T) {
	structured := p.format == event.StructuredJSON || p.format == event.StructuredMsgpack
	isJSON := p.format == event.BinaryJSON || p.format == event.StructuredJSON
	whole := "data" // where broken bytes are found
	if structured {
		whole = ""
	}
	const purchase = event.Purchase

	p.alone(t, "a good purchase", purchase, event.Applied, "", func(*draft) {})
	p.alone(t, "a tombstone", purchase, event.Malformed, "", func(d *draft) { d.tombstone = true })
	p.alone(t, "an empty value", purchase, event.Malformed, whole, func(d *draft) { d.value = []byte{} })
	p.alone(t, "half a record", purchase, event.Malformed, whole, func(d *draft) { d.value = []byte("{\"order_id\":\"o\x81\xa1") })
	p.alone(t, "over a mebibyte", purchase, event.Malformed, "", func(d *draft) { d.value = bytes.Repeat([]byte(" "), 1<<20+1) })
	p.alone(t, "too deep", purchase, event.Malformed, map[bool]string{true: "", false: "data"}[p.format == event.StructuredJSON], func(d *draft) {
		deep := any("x")
		for range 16 {
			deep = []any{deep}
		}
		d.data.(object)["x"] = deep
	})
	if isJSON {
		p.alone(t, "a name twice", purchase, event.Malformed, whole, func(d *draft) {
			d.data = json.RawMessage(`{"order_id":"o","order_id":"o","amount_minor":1,"currency":"EUR"}`)
		})
		p.alone(t, "not UTF-8", purchase, event.Malformed, whole, func(d *draft) {
			d.data = json.RawMessage("{\"order_id\":\"\xff\",\"amount_minor\":1,\"currency\":\"EUR\"}")
		})
	}
	if !structured {
		p.alone(t, "an unknown encoding", purchase, event.Malformed, "content-type", func(d *draft) {
			d.headers = []kgo.RecordHeader{{Key: "content-type", Value: []byte("application/avro")}}
		})
		p.alone(t, "a header twice", purchase, event.Malformed, "id", func(d *draft) {
			d.headers = []kgo.RecordHeader{{Key: "ce_id", Value: []byte("e-1")}}
		})
		last := &p.out[len(p.out)-1]
		last.Headers = append(last.Headers, last.Headers[len(last.Headers)-1])
	}
	p.alone(t, "a batch of events", purchase, event.Malformed, "content-type", func(d *draft) {
		d.headers = []kgo.RecordHeader{{Key: "content-type", Value: []byte("application/cloudevents-batch+json")}}
	})
	p.alone(t, "another version of CloudEvents", purchase, event.Malformed, "specversion", attr("specversion", "0.3"))
	p.alone(t, "a category too long", purchase, event.Malformed, "category", set("category", strings.Repeat("x", 129)))
	p.alone(t, "a reason too long", event.Return, event.Malformed, "reason", set("reason", strings.Repeat("x", 1025)))

	p.alone(t, "a type of somebody else", purchase, event.UnknownType, "type", attr("type", "com.example.order.v1"))
	p.alone(t, "a type that comes later", purchase, event.UnknownType, "type", attr("type", "io.tierstream.merge.v1"))
	p.alone(t, "a later version", purchase, event.UnsupportedVersion, "type", attr("type", "io.tierstream.purchase.v2"))

	for _, name := range []string{"specversion", "id", "source", "type", "time", "subject"} {
		p.alone(t, "without "+name, purchase, event.MissingField, name, attr(name, nil))
	}
	p.alone(t, "without data", purchase, event.MissingField, "data", func(d *draft) {
		switch p.format {
		case event.BinaryJSON:
			d.value = []byte("null")
		case event.BinaryMsgpack:
			d.value = []byte{0xc0}
		default:
			d.data = nil
		}
	})
	for typ, names := range requiredFields {
		for _, name := range names {
			p.alone(t, typ.String()+" without "+name, typ, event.MissingField, name, set(name, nil))
		}
	}
	p.alone(t, "data that is no object", purchase, event.WrongType, "data", func(d *draft) { d.data = []any{"x"} })
	p.alone(t, "an amount as text", purchase, event.WrongType, "amount_minor", set("amount_minor", "4990"))
	p.alone(t, "an ID as a number", event.Complaint, event.WrongType, "complaint_id", set("complaint_id", json.Number("7")))
	p.alone(t, "a rate as a number", purchase, event.WrongType, "fx_rate", set("fx_rate", json.Number("1.1")))
	p.alone(t, "a truth as text", event.Feedback, event.WrongType, "test", set("test", "no"))
	if structured {
		p.alone(t, "an attribute as a number", purchase, event.WrongType, "id", attr("id", json.Number("1")))
	}

	for what, id := range map[string]string{
		"an empty ID": "", "an ID of 129 bytes": strings.Repeat("x", 129), "an ID with a control character": "a\u0007b",
		"an ID with a space before": " a", "an ID with a space after": "a\u00a0", "null as an ID": "null", "Undefined as an ID": "Undefined",
	} {
		p.alone(t, what, purchase, event.BadID, "id", attr("id", id))
		p.alone(t, what+", of the order", event.Return, event.BadID, "order_id", set("order_id", id))
	}
	p.alone(t, "an anonymous customer", purchase, event.BadID, "subject", func(d *draft) { d.attrs["subject"], d.key = "anonymous", "anonymous" })
	p.alone(t, "an empty source", purchase, event.BadID, "source", attr("source", ""))

	p.alone(t, "a key that is not the subject", purchase, event.Misrouted, "key", func(d *draft) { d.key += "-other" })
	p.alone(t, "no key", purchase, event.Misrouted, "key", func(d *draft) { d.key = "" })
	p.alone(t, "another partition than the key's", purchase, event.Misrouted, "key", func(d *draft) { d.elsewhere = true })

	p.alone(t, "a time without offset", purchase, event.BadTime, "time", attr("time", "2026-03-02T09:30:00"))
	p.alone(t, "a date", purchase, event.BadTime, "time", attr("time", "2026-03-02"))
	p.alone(t, "a day that is not", purchase, event.BadTime, "time", attr("time", "2026-02-30T00:00:00Z"))
	p.alone(t, "from the future", purchase, event.FutureTime, "time", attr("time", p.now.Add(time.Hour).UTC().Format(time.RFC3339)))

	p.alone(t, "an amount with decimals", purchase, event.BadAmount, "amount_minor", set("amount_minor", json.Number("49.90")))
	p.alone(t, "an amount with an exponent", purchase, event.BadAmount, "amount_minor", set("amount_minor", json.Number("5e300")))
	p.alone(t, "an amount beyond int64", event.Cost, event.BadAmount, "amount_minor", set("amount_minor", json.Number("9223372036854775808")))
	p.alone(t, "an amount above the cap", purchase, event.BadAmount, "amount_minor", set("amount_minor", json.Number("1000000000001")))
	p.alone(t, "a return of nothing", event.Return, event.BadAmount, "amount_minor", set("amount_minor", json.Number("0")))
	p.alone(t, "a return below nothing", event.Return, event.BadAmount, "amount_minor", set("amount_minor", json.Number("-5")))
	p.alone(t, "a rate of nothing", purchase, event.BadAmount, "fx_rate", set("fx_rate", "0.0"))
	p.alone(t, "a compensation below nothing", event.Complaint, event.BadAmount, "compensation_minor", set("compensation_minor", json.Number("-1")))
	p.alone(t, "converted above the cap", purchase, event.BadAmount, "amount_minor", func(d *draft) {
		set("amount_minor", json.Number("1000000000000"))(d)
		set("currency", "USD")(d)
		set("fx_rate", "2")(d)
	})
	p.alone(t, "a purchase below nothing", purchase, event.NegativePurchase, "amount_minor", set("amount_minor", json.Number("-4990")))
	p.alone(t, "a free order", purchase, event.ZeroPurchase, "", func(d *draft) { set("amount_minor", json.Number("0"))(d); set("cost_minor", nil)(d) })
	for _, c := range []string{"eur", "EURO", "XXX", "€"} {
		p.alone(t, "the currency "+c, purchase, event.BadCurrency, "currency", set("currency", c))
	}
	p.alone(t, "a currency nobody knows, of a value", event.Referral, event.BadCurrency, "currency", set("currency", "QQQ"))
	p.alone(t, "a currency without a rate", purchase, event.NoRate, "amount_minor", set("currency", "JPY"))

	for _, v := range []string{"0", "6", "-1", "2.5"} {
		p.alone(t, "the severity "+v, event.Complaint, event.BadSeverity, "severity", set("severity", json.Number(v)))
	}
	p.alone(t, "a payment status nobody knows", purchase, event.BadStatus, "status", set("status", "refunded"))
	p.alone(t, "a complaint's status of a referral", event.Complaint, event.BadStatus, "status", set("status", "converted"))
	p.alone(t, "a referral's status of a complaint", event.Referral, event.BadStatus, "status", set("status", "opened"))
	p.alone(t, "a kind of return nobody knows", event.Return, event.BadStatus, "kind", set("kind", "exchange"))
	p.alone(t, "a kind of feedback nobody knows", event.Feedback, event.BadStatus, "kind", set("kind", "stars"))
	p.alone(t, "a kind of cost nobody knows", event.Cost, event.BadStatus, "kind", set("kind", "rent"))
	p.alone(t, "an NPS of 11", event.Feedback, event.BadScore, "score", set("score", json.Number("11")))
	p.alone(t, "an NPS to 5", event.Feedback, event.BadScore, "scale_max", set("scale_max", json.Number("5")))
	p.alone(t, "a CSAT of 0", event.Feedback, event.BadScore, "score", func(d *draft) { d.data = object{"response_id": "s", "kind": "csat", "score": json.Number("0")} })
	p.alone(t, "half a score", event.Feedback, event.BadScore, "score", set("score", json.Number("8.5")))
	p.alone(t, "a cost below nothing", event.Cost, event.BadCost, "amount_minor", set("amount_minor", json.Number("-1")))
	p.alone(t, "goods that cost less than nothing", purchase, event.BadCost, "cost_minor", set("cost_minor", json.Number("-1")))
	p.alone(t, "who refers himself", event.Referral, event.SelfReferral, "referee_id", func(d *draft) { d.data.(object)["referee_id"] = d.attrs["subject"] })
	p.alone(t, "a test", purchase, event.TestEvent, "", set("test", true))
	for _, s := range []string{"pending", "failed", "voided"} {
		p.alone(t, s, purchase, event.Unpaid, "", set("status", s))
	}
}

// histories are the cases that what came before decides.
func (p *planner) histories(t *testing.T) {
	const applied = event.Applied
	p.next()
	p.say(t, "a first event", p.event(event.Purchase, "e-1", time.Hour), applied, "")
	p.say(t, "an older event", p.event(event.Purchase, "e-2", 2*time.Hour), applied, "", event.Late)
	p.say(t, "an event of two years ago", p.event(event.Purchase, "e-3", 800*24*time.Hour), event.TooLate, "time")

	for typ := event.Purchase; typ <= event.Cost; typ++ {
		p.next()
		first, code := p.event(typ, "e-1", time.Hour), applied
		if typ == event.Return {
			p.say(t, "its order", event.Event{Type: event.Purchase, ID: "e-0", Source: "/test", Customer: p.who, Time: first.Time - 1000,
				BusinessID: first.OrderID, Amount: 10_000, HasAmount: true, Currency: "EUR"}, applied, "")
		}
		p.say(t, "a "+typ.String(), first, code, "")
		p.say(t, "the same "+typ.String()+" again", first, event.Duplicate, "")
		other := first
		other.Time++
		p.say(t, "another "+typ.String()+" under its ID", other, event.IDConflict, "id")
		again := first
		again.ID = "e-2"
		p.say(t, "the same "+typ.String()+" under a new ID", again, event.BusinessDuplicate, "")
		again.ID = "e-3"
		switch typ {
		case event.Purchase, event.Return, event.Cost:
			again.Amount--
		case event.Complaint:
			again.Severity++
		case event.Referral:
			again.RefereeID += "-other"
		case event.Feedback:
			again.Score--
		}
		p.say(t, "the "+typ.String()+" otherwise", again, event.BusinessConflict, businessField[typ])
	}

	p.next()
	order := p.event(event.Purchase, "e-1", time.Hour)
	back := func(id string, amount int64, currency string) event.Event {
		e := p.event(event.Return, id, 30*time.Minute)
		e.OrderID, e.Amount, e.Currency = order.BusinessID, amount, currency
		return e
	}
	p.say(t, "an order", order, applied, "")
	p.say(t, "more than it", back("e-2", order.Amount+1, "EUR"), event.OverReturn, "amount_minor")
	p.say(t, "a part of it", back("e-3", order.Amount-1, "EUR"), applied, "")
	p.say(t, "more than the rest", back("e-4", 2, "EUR"), event.OverReturn, "amount_minor")
	p.say(t, "the rest in another currency", back("e-5", 1, "SEK"), event.CurrencyChanged, "currency")
	p.say(t, "the rest", back("e-6", 1, "EUR"), applied, "")

	// Returns that come before their order, and wait.
	p.next()
	order = p.event(event.Purchase, "e-1", time.Hour)
	p.say(t, "a return that waits", back("e-2", 100, "EUR"), applied, "")
	more := back("e-3", order.Amount, "EUR") // settled after the one before, by its time
	more.Time++
	p.say(t, "one of more than is left then", more, event.OverReturn, "amount_minor")
	p.say(t, "one in another currency", back("e-4", 100, "SEK"), event.CurrencyChanged, "currency")
	p.say(t, "the order", order, applied, "") // what waits is not accepted yet, so it is not late
	p.next()
	orphan := p.event(event.Return, "e-1", 10*24*time.Hour)
	p.say(t, "a return without an order", orphan, event.OrphanReturn, "order_id")
	p.say(t, "an event after its grace", p.event(event.Cost, "e-2", time.Hour), applied, "")
	p.next()
	p.say(t, "a return that still waits", p.event(event.Return, "e-1", time.Hour), event.Waiting, "")

	p.next()
	k := p.event(event.Complaint, "e-1", 2*time.Hour)
	p.say(t, "a complaint", k, applied, "")
	k.ID, k.Time, k.Status = "e-2", k.Time+1000, event.Reopened
	p.say(t, "reopened without having been resolved", k, applied, "", event.UnusualTransition)
	k.ID, k.Time, k.Status = "e-3", k.Time-500, event.Resolved
	p.say(t, "a status that is not the latest", k, applied, "", event.Late)
	p.next()
	f := p.event(event.Referral, "e-1", time.Hour)
	f.Status = event.Converted
	p.say(t, "converted without an invitation", f, applied, "", event.UnusualTransition)
}

func plan(t *testing.T, now time.Time, topics []string) []sending {
	p := &planner{now: now, topics: topics}
	for _, p.format = range event.Formats {
		p.shapes(t)
		p.histories(t)
	}
	return p.out
}

// Every code has a case, in every form.
func TestEveryCodeHasACase(t *testing.T) {
	cases := map[event.Code]int{}
	for _, s := range plan(t, time.Now(), []string{"t"}) {
		cases[s.code]++
		for _, c := range s.warned {
			cases[c]++
		}
	}
	for c := range event.NumCodes {
		if event.Code(c) == event.Skipped {
			continue // of mapped topics, which have no forms of ours: internal/mapping
		}
		if n := cases[event.Code(c)]; n < len(event.Formats) {
			t.Errorf("%s has %d cases", event.Code(c), n)
		}
	}
}

// badWorld is newBadWorld with a processor that runs until the test ends.
func badWorld(t *testing.T, brokers []string, redisAddr string, msgpack bool) (cfg stream.Config, cl *kgo.Client) {
	t.Helper()
	cfg, cl = newBadWorld(t, brokers, redisAddr, msgpack)
	runProcessor(t, cfg)
	return cfg, cl
}

// newBadWorld is a namespace with its topics, and a client that produces to
// whichever partition and reads what is published.
func newBadWorld(t *testing.T, brokers []string, redisAddr string, msgpack bool) (cfg stream.Config, cl *kgo.Client) {
	t.Helper()
	rdb, err := state.Open(redisAddr, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rdb.Close() })
	ns := strings.TrimRight(testenv.Prefix(t), "-")
	inputs := []string{ns + "-purchases", ns + "-complaints", ns + "-referrals"}
	model := scoring.Default()
	cfg = stream.Config{
		Namespace: ns, Topics: stream.DefaultTopics(ns, inputs), Engine: "test build", Lease: 3 * time.Second,
		LiveSince: time.Unix(0, 0), MsgpackChanges: msgpack,
		Rules: &fold.Rules{Topics: inputs, Partitioner: "murmur2", Clock: fold.ClockEvents,
			Limits: event.Limits{}.WithDefaults(), Policy: customer.DefaultPolicy(model.Currency()), Model: model},
		Kafka: []kgo.Opt{kgo.SeedBrokers(brokers...), kgo.MetadataMinAge(50 * time.Millisecond)},
	}
	cfg.Topics.Changes, cfg.Topics.DeadLetters = ns+"-changes", ns+"-dead"
	cfg.Store = func(p int32) stream.Store { return state.NewStore(rdb, ns, p, cfg.Lease) }
	cl, err = kgo.NewClient(append(cfg.Kafka[:2:2], kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(2<<20),
		kgo.ConsumeTopics(cfg.Topics.Changes, cfg.Topics.DeadLetters), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(100*time.Millisecond))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.CloseAllowingRebalance)
	if err := stream.CreateTopics(t.Context(), cl, cfg.Topics, badPartitions, 1, nil); err != nil {
		t.Fatal(err)
	}
	return cfg, cl
}

// runProcessor starts a processor, which ends with the test or by stop. stopped
// are the partitions that it has stopped for good.
func runProcessor(t *testing.T, cfg stream.Config) (stopped func() map[int32]error, stop func()) {
	t.Helper()
	p, err := stream.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("processor: %v", err)
		}
	}
	t.Cleanup(stop)
	return p.Stopped, stop
}

// fakeKafka is a broker in this process.
func fakeKafka(t *testing.T) (brokers []string) {
	t.Helper()
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}), kfake.GroupMinSessionTimeout(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k.ListenAddrs()
}

// counted are the counters once so many records are read.
func counted(t *testing.T, cfg stream.Config, records int64) (got [event.NumCodes]int64) {
	t.Helper()
	until(t, "everything is counted", func() bool {
		got = [event.NumCodes]int64{}
		read := int64(0)
		for p := range int32(badPartitions) {
			f, err := cfg.Store(p).(*state.Store).Fence(t.Context())
			if err != nil || f == nil {
				return false
			}
			read += f.State.Read
			for i, n := range f.State.Counters {
				got[i] += n
			}
		}
		return read == records
	})
	return got
}

// testEveryCode sends every case through real topics and finds each record
// where it belongs.
func testEveryCode(t *testing.T, brokers []string, redisAddr string, msgpack bool) {
	cfg, cl := badWorld(t, brokers, redisAddr, msgpack)
	sent := plan(t, time.Now().Truncate(time.Millisecond), cfg.Topics.Inputs)
	records := make([]*kgo.Record, len(sent))
	var want [event.NumCodes]int64
	letters := map[string]*sending{}
	for i := range sent {
		records[i] = sent[i].Record
		want[sent[i].code]++
		for _, c := range sent[i].warned {
			want[c]++
		}
	}
	if err := cl.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	origin := func(r *kgo.Record) string { return fmt.Sprintf("%s/%d@%d", r.Topic, r.Partition, r.Offset) }
	for i := range sent {
		if sent[i].code.Outcome() == event.DeadLetter {
			letters[origin(sent[i].Record)] = &sent[i]
		}
	}

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	addedBy, changeBy, headersBy := compiled(t, "dead-letter.v1.json"), compiled(t, "tier-change.v1.json"), compiled(t, "tier-change-headers.v1.json")
	found, changes := map[string]bool{}, 0
	for len(found) < len(letters) {
		fs := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			for o, s := range letters {
				if !found[o] {
					t.Errorf("no dead letter of %s, %s: %s", s.what, s.code, o)
				}
			}
			break
		}
		fs.EachRecord(func(r *kgo.Record) {
			m := &event.Message{Key: r.Key, Value: r.Value}
			all := object{}
			for _, h := range r.Headers {
				m.Headers = append(m.Headers, event.Header{Key: h.Key, Value: h.Value})
				all[h.Key] = string(h.Value)
			}
			if r.Topic == cfg.Topics.Changes {
				changes++
				checkChange(t, r, all, msgpack, func(doc any) error { return changeBy.Validate(doc) })
				if err := headersBy.Validate(all); err != nil {
					t.Errorf("headers of a change: %v", err)
				}
				return
			}
			if err := addedBy.Validate(all); err != nil {
				t.Errorf("headers of a dead letter: %v", err)
			}
			l, err := ReadDeadLetter(m)
			if err != nil {
				t.Error(err)
				return
			}
			s := letters[l.Origin()]
			switch {
			case s == nil:
				t.Errorf("a dead letter %s %s of %s, which is not bad", l.Code, l.Field, l.Origin())
				return
			case found[l.Origin()]:
				t.Errorf("%s: two dead letters", s.what)
			}
			found[l.Origin()] = true
			if l.Code != s.code.String() || l.Field != s.field {
				t.Errorf("%s: %s of %q (%s), want %s of %q", s.what, l.Code, l.Field, l.Detail, s.code, s.field)
			}
			if !bytes.Equal(r.Key, s.Key) || !bytes.Equal(r.Value, s.Value) || (r.Value == nil) != (s.Value == nil) {
				t.Errorf("%s: key %q value %.100q, sent were %q and %.100q", s.what, r.Key, r.Value, s.Key, s.Value)
			}
			if got := r.Headers[:min(len(s.Headers), len(r.Headers))]; len(l.Original.Headers) != len(s.Headers) || !slices.EqualFunc(got, s.Headers, func(a, b kgo.RecordHeader) bool {
				return a.Key == b.Key && bytes.Equal(a.Value, b.Value)
			}) {
				t.Errorf("%s: headers %v, sent were %v", s.what, r.Headers, s.Headers)
			}
			if l.Namespace != cfg.Namespace || l.Engine != cfg.Engine || l.Timestamp.UnixMilli() < s.Timestamp.UnixMilli()-1 || l.Timestamp.After(time.Now().Add(time.Second)) {
				t.Errorf("%s: namespace %s, engine %s, timestamp %s", s.what, l.Namespace, l.Engine, l.Timestamp)
			}
			if l.Detail == "" && !slices.Contains([]event.Code{event.MissingField}, s.code) {
				t.Errorf("%s: %s says nothing to people", s.what, s.code)
			}
		})
	}
	if changes == 0 && len(found) == len(letters) {
		t.Error("no tier change was published")
	}

	got := counted(t, cfg, int64(len(sent)))
	for c := range event.NumCodes {
		if got[c] != want[c] {
			t.Errorf("%s: counted %d, want %d", event.Code(c), got[c], want[c])
		}
	}
	t.Logf("%d records, %d dead letters, %d changes", len(sent), len(found), changes)
}

// checkChange holds a published change to its schema, and to what readers make of it.
func checkChange(t *testing.T, r *kgo.Record, headers object, msgpack bool, validate func(any) error) {
	t.Helper()
	mediaType := headers["content-type"].(string)
	if (mediaType == "application/msgpack") != msgpack {
		t.Errorf("a change is of type %s", mediaType)
	}
	value := r.Value
	if msgpack {
		value = encode(t, unpack(t, value))
	}
	if err := validate(document(t, value)); err != nil {
		t.Errorf("a change: %v\n%s", err, value)
	}
	c, err := ReadChange(mediaType, r.Value)
	if err == nil {
		// Lists that may grow: what is published is in them.
		for field, value := range map[string]string{"reason": c.Reason, "mode": c.Mode} {
			if known := texts(t, property(t, "tier-change.v1.json", field)["x-values"]); !slices.Contains(known, value) {
				t.Errorf("a change has the %s %s, which is none of %q", field, value, known)
			}
		}
	}
	if err != nil || c.Customer != string(r.Key) || fmt.Sprintf("%020d", c.Sequence) != headers["ce_customerseq"] || c.EffectiveAt != headers["ce_time"] {
		t.Errorf("a change reads as %+v, %v", c, err)
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(2 * time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waiting until %s: nothing", what)
		}
	}
}

func TestEveryCodeOnFakes(t *testing.T) {
	testEveryCode(t, fakeKafka(t), miniredis.RunT(t).Addr(), false)
}

func TestEveryCodeOnRealServices(t *testing.T) {
	k := testenv.SharedKafka(t)
	testEveryCode(t, []string{k.Addr()}, testenv.Redis(t, testenv.RedisOptions{}).Addr(), true)
}
