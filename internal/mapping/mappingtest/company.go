// Package mappingtest is another company for tests: its topics in JSON, Avro
// and Protobuf, its schema registry, and what its records should become. The
// mapping and the schemas are those of examples/mapping.
//
// The registry is franz-go's srfake: the REST interface of Confluent's, in this
// process.
package mappingtest

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/bufbuild/protocompile"
	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/tierstream/tierstream/internal/event"
)

// Company is one company with a registry of its own.
type Company struct {
	t        testing.TB
	Mapping  string // the file, with the names of the topics and the registry's address put in
	Registry *srfake.Registry
	topics   [3]string

	invoice     *avro.Schema
	ticket      protoreflect.MessageDescriptor
	invoiceID   int
	ticketID    int
	ticketIndex int
}

// Start is when the company's first record is from.
var Start = time.Date(2025, 6, 1, 8, 0, 0, 0, time.UTC)

// File is a file of examples/mapping.
func File(t testing.TB, name string) string {
	t.Helper()
	_, here, _, _ := runtime.Caller(0)
	b, err := os.ReadFile(filepath.Join(filepath.Dir(here), "../../../examples/mapping", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// New starts a registry and registers the schemas. The topics are those for
// orders (JSON), billing (Avro) and tickets (Protobuf).
func New(t testing.TB, topics [3]string) *Company {
	t.Helper()
	c := &Company{t: t, Registry: srfake.New(), topics: topics}
	t.Cleanup(c.Registry.Close)
	c.Mapping = strings.NewReplacer("http://registry:8081", c.Registry.URL(),
		"  orders:", "  "+topics[0]+":", "  billing:", "  "+topics[1]+":", "  tickets:", "  "+topics[2]+":").Replace(File(t, "mapping.yaml"))

	register := func(subject string, s sr.Schema) int {
		id, _, err := c.Registry.RegisterSchema(subject, s)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	money, invoice := File(t, "money.avsc"), File(t, "invoice.avsc")
	register("money", sr.Schema{Schema: money})
	c.invoiceID = register(topics[1]+"-value", sr.Schema{Schema: invoice, References: []sr.SchemaReference{{Name: "com.example.billing.Money", Subject: "money", Version: 1}}})
	var cache avro.SchemaCache
	if _, err := cache.Parse(money); err != nil {
		t.Fatal(err)
	}
	var err error
	if c.invoice, err = cache.Parse(invoice); err != nil {
		t.Fatal(err)
	}

	protos := map[string]string{"common/money.proto": File(t, "money.proto"), "ticket.proto": File(t, "ticket.proto")}
	register("common/money.proto", sr.Schema{Type: sr.TypeProtobuf, Schema: protos["common/money.proto"]})
	c.ticketID = register(topics[2]+"-value", sr.Schema{Type: sr.TypeProtobuf, Schema: protos["ticket.proto"],
		References: []sr.SchemaReference{{Name: "common/money.proto", Subject: "common/money.proto", Version: 1}}})
	compiler := protocompile.Compiler{Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{Accessor: protocompile.SourceAccessorFromMap(protos)})}
	files, err := compiler.Compile(context.Background(), "ticket.proto")
	if err != nil {
		t.Fatal(err)
	}
	c.ticket = files[0].Messages().ByName("Ticket")
	c.ticketIndex = c.ticket.Index()
	return c
}

// Framed is a payload in Confluent's wire format.
func Framed(id int, payload ...byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(id)), payload...)
}

// Order is a record of the first topic.
func (c *Company) Order(customer, id, kind, at, rest string) *kgo.Record {
	return &kgo.Record{Topic: c.topics[0], Key: []byte(customer), Value: fmt.Appendf(nil, `{"eventId":%q,"kind":%q,"at":%q%s}`, id, kind, at, rest)}
}

// Invoice is a record of the second topic; amounts have four decimals.
func (c *Company) Invoice(customer int64, id string, at time.Time, amount, cost int64) *kgo.Record {
	money := func(n int64) map[string]any {
		return map[string]any{"amount": big.NewRat(n, 10_000), "currency": "EUR"}
	}
	v := map[string]any{"invoice": id, "customer": customer, "booked": at, "net": money(amount), "cost": nil}
	if cost != 0 {
		v["cost"] = money(cost)
	}
	b, err := c.invoice.Encode(v)
	if err != nil {
		c.t.Fatal(err)
	}
	return &kgo.Record{Topic: c.topics[1], Key: fmt.Append(nil, customer), Value: Framed(c.invoiceID, b...)}
}

// Ticket is a record of the third topic.
func (c *Company) Ticket(customer, id string, revision int32, at time.Time, priority, state string, voucherCents int64) *kgo.Record {
	m := dynamicpb.NewMessage(c.ticket)
	field := func(name protoreflect.Name) protoreflect.FieldDescriptor { return c.ticket.Fields().ByName(name) }
	enum := func(name protoreflect.Name, value string) {
		fd := field(name)
		m.Set(fd, protoreflect.ValueOfEnum(fd.Enum().Values().ByName(protoreflect.Name(value)).Number()))
	}
	m.Set(field("ticket"), protoreflect.ValueOfString(id))
	m.Set(field("revision"), protoreflect.ValueOfInt32(revision))
	m.Set(field("customer"), protoreflect.ValueOfString(customer))
	enum("priority", priority)
	enum("state", state)
	inner := func(name protoreflect.Name, values map[protoreflect.Name]protoreflect.Value) {
		of := m.Mutable(field(name)).Message()
		for k, v := range values {
			of.Set(of.Descriptor().Fields().ByName(k), v)
		}
	}
	inner("changed", map[protoreflect.Name]protoreflect.Value{"seconds": protoreflect.ValueOfInt64(at.Unix()), "nanos": protoreflect.ValueOfInt32(int32(at.Nanosecond()))})
	if voucherCents != 0 {
		inner("voucher", map[protoreflect.Name]protoreflect.Value{
			"currency_code": protoreflect.ValueOfString("EUR"), "units": protoreflect.ValueOfInt64(voucherCents / 100), "nanos": protoreflect.ValueOfInt32(int32(voucherCents%100) * 10_000_000),
		})
	}
	b, err := proto.Marshal(m)
	if err != nil {
		c.t.Fatal(err)
	}
	path := binary.AppendVarint(binary.AppendVarint(nil, 1), int64(c.ticketIndex))
	return &kgo.Record{Topic: c.topics[2], Key: []byte(customer), Value: Framed(c.ticketID, append(path, b...)...)}
}

// Traffic is records of some customers in all three topics, in time order, with
// what becomes of each: by code. Some are bad.
func (c *Company) Traffic(customers int) (records []*kgo.Record, want [event.NumCodes]int64) {
	at := Start
	add := func(code event.Code, r *kgo.Record) {
		at = at.Add(time.Minute)
		r.Timestamp = at
		records = append(records, r)
		want[code]++
	}
	now := func() string { return at.Format(time.RFC3339) }
	for i := range customers {
		id := int64(1000 + i)
		text := fmt.Sprint(id)
		order := func(number, total string) string {
			return fmt.Sprintf(`,"order":{"number":%q,"total":%s,"currency":"EUR","items":[{"group":"g%d"}]}`, number, total, i%5)
		}
		add(event.Skipped, c.Order(text, "cart-"+text, "CART_LEFT", now(), ""))
		add(event.Applied, c.Order(text, "paid-"+text, "ORDER_PAID", now(), order("A-"+text, fmt.Sprintf("%d.9", 20+7*i))))
		add(event.Applied, c.Invoice(id, "inv-"+text, at, 1_234_500+int64(i)*10_000, 700_000))
		add(event.Applied, c.Ticket(text, "t-"+text, 1, at, "URGENT", "OPEN", 0))
		if i%2 == 0 {
			add(event.Applied, c.Order(text, "back-"+text, "ORDER_REFUNDED", now(), order("A-"+text, `"10.5"`)))
			add(event.Applied, c.Ticket(text, "t-"+text, 2, at, "URGENT", "CLOSED", 550))
		}
		switch i % 6 {
		case 0:
			add(event.BadAmount, c.Order(text, "bad-"+text, "ORDER_PAID", now(), order("B-"+text, "1.005")))
		case 1:
			add(event.UnknownType, &kgo.Record{Topic: c.topics[1], Key: []byte(text), Value: Framed(4_000+i, 1, 2, 3)})
		case 2:
			add(event.Malformed, &kgo.Record{Topic: c.topics[2], Key: []byte(text), Value: Framed(c.ticketID, 0, 0xff, 0xff)})
		case 3:
			r := c.Invoice(id, "other-"+text, at, 10_000, 0)
			r.Key = []byte("9" + text)
			add(event.Misrouted, r)
		case 4:
			add(event.Duplicate, c.Order(text, "paid-"+text, "ORDER_PAID", Start.Add(time.Minute*time.Duration(minutes(records, "paid-"+text)-1)).Format(time.RFC3339), order("A-"+text, fmt.Sprintf("%d.90", 20+7*i))))
		}
	}
	return records, want
}

// minutes is how long after the start the record that holds a text was sent.
func minutes(rs []*kgo.Record, text string) int {
	for _, r := range rs {
		if strings.Contains(string(r.Value), `"`+text+`"`) {
			return int(r.Timestamp.Sub(Start) / time.Minute)
		}
	}
	return 0
}
