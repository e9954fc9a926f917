package sim

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tierstream/tierstream/internal/testenv"
)

func TestCDNOWTotals(t *testing.T) {
	for _, c := range []struct {
		file            string
		rows, customers int
		cents           int64
		free            int
		first, last     string
	}{
		// Totals as published with the file, and recomputed from it in integers.
		{"cdnow/CDNOW_master.txt", 69_659, 23_570, 250_031_563, 80, "1997-01-01T12:00:00Z", "1998-06-30T12:00:00Z"},
		{"cdnow/CDNOW_sample.txt", 6_919, 2_357, 24_409_194, 8, "1997-01-01T12:00:00Z", "1998-06-30T12:00:00Z"},
	} {
		t.Run(c.file, func(t *testing.T) {
			messages, err := ReadCDNOW(filepath.Join(testenv.DataDir(t), c.file), nil)
			if err != nil {
				t.Fatal(err)
			}
			customers := map[string]bool{}
			var cents int64
			free := 0
			for i, m := range messages {
				customers[m.Event.Customer] = true
				cents += m.Event.Amount
				if m.Event.Amount == 0 {
					free++
				}
				if i > 0 && (m.At < messages[i-1].At || m.At == messages[i-1].At && m.Event.ID <= messages[i-1].Event.ID) {
					t.Fatalf("%s stands behind %s", m.Event.ID, messages[i-1].Event.ID)
				}
			}
			if len(messages) != c.rows || len(customers) != c.customers || cents != c.cents || free != c.free {
				t.Errorf("%d rows, %d customers, %d cents, %d free; want %+v", len(messages), len(customers), cents, free, c)
			}
			stamp := func(m Message) string { return time.UnixMilli(m.At).UTC().Format(time.RFC3339) }
			if first, last := stamp(messages[0]), stamp(messages[len(messages)-1]); first != c.first || last != c.last {
				t.Errorf("from %s to %s, want %s to %s", first, last, c.first, c.last)
			}
		})
	}
}

func TestParseCDNOW(t *testing.T) {
	zone := time.FixedZone("", -5*3600)
	messages, err := ParseCDNOW(strings.NewReader(
		" customer_id  date number_of_cds  dollar_value\n"+
			" 00002 19970112  1   12.00\n"+
			" 00001 19970101  1   11.77\n"+
			" 00002 19970112  5    0.00\n"), zone)
	if err != nil {
		t.Fatal(err)
	}
	want := []struct {
		id, customer, at string
		cents            int64
	}{
		{"cdnow:L000003", "00001", "1997-01-01T17:00:00Z", 1177},
		{"cdnow:L000002", "00002", "1997-01-12T17:00:00Z", 1200},
		{"cdnow:L000004", "00002", "1997-01-12T17:00:00Z", 0},
	}
	if len(messages) != len(want) {
		t.Fatalf("%d messages, want %d", len(messages), len(want))
	}
	for i, w := range want {
		e := messages[i].Event
		at := time.UnixMilli(e.Time).UTC().Format(time.RFC3339)
		if e.ID != w.id || e.BusinessID != w.id || e.Customer != w.customer || at != w.at || e.Amount != w.cents {
			t.Errorf("message %d: %+v at %s, want %+v", i, e, at, w)
		}
	}

	for _, bad := range []string{"00001 19970101 1", "00001 1997-01-01 1 11.77", "00001 19970101 1 11.7", "00001 19970101 1 -1.00", "00001 19970101 1 .50"} {
		if _, err := ParseCDNOW(strings.NewReader(bad), nil); err == nil || !strings.HasPrefix(err.Error(), "line 1: ") {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}
