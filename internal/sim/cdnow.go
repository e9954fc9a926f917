package sim

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tierstream/tierstream/internal/event"
)

// cdnowSource is the CloudEvents source of the file's purchases.
const cdnowSource = "producer-sim/cdnow"

// ReadCDNOW reads the CDNOW transaction log, the master file (customer, date,
// CDs, dollars, below a header) or the 1/10 sample (which has a second customer
// column and no header), as purchases in time order, rows of one day in the
// order of the file. Each row is a purchase of its own, a row of 0.00 too.
//
// The file knows dates only: a purchase is at 12:00 in zone, nil meaning UTC.
// Event and order IDs name the line, so the same file always gives the same IDs.
func ReadCDNOW(path string, zone *time.Location) ([]Message, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading CDNOW: %w", err)
	}
	defer f.Close()
	messages, err := ParseCDNOW(f, zone)
	if err != nil {
		return nil, fmt.Errorf("reading CDNOW %s: %w", path, err)
	}
	return messages, nil
}

// ParseCDNOW is ReadCDNOW of what is open already. Errors name the line.
func ParseCDNOW(r io.Reader, zone *time.Location) ([]Message, error) {
	if zone == nil {
		zone = time.UTC
	}
	var messages []Message
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		row := strings.Fields(lines.Text())
		if len(row) == 0 || n == 1 && row[0] == "customer_id" {
			continue
		}
		if len(row) == 5 { // the sample: drop its own numbering
			row = slices.Delete(row, 1, 2)
		}
		if len(row) != 4 {
			return nil, fmt.Errorf("line %d: %d columns, want 4 or 5", n, len(row))
		}
		date, err := time.ParseInLocation("20060102 15", row[1]+" 12", zone)
		if err != nil {
			return nil, fmt.Errorf("line %d: date %q: want YYYYMMDD", n, row[1])
		}
		cents, err := parseCents(row[3])
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		id := fmt.Sprintf("cdnow:L%06d", n)
		at := date.UnixMilli()
		messages = append(messages, Message{
			Event: event.Event{
				Type:       event.Purchase,
				ID:         id,
				Source:     cdnowSource,
				Customer:   row[0],
				Time:       at,
				BusinessID: id,
				Amount:     cents,
				HasAmount:  true,
				Currency:   "USD",
			},
			Topic: Purchases,
			At:    at,
			Code:  cdnowCode(cents),
		})
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	slices.SortStableFunc(messages, func(a, b Message) int { return cmp.Compare(a.At, b.At) })
	return messages, nil
}

// cdnowCode: free orders are left out by default, and counted where a model
// says so.
func cdnowCode(cents int64) event.Code {
	if cents == 0 {
		return event.ZeroPurchase
	}
	return event.Applied
}

// parseCents reads dollars with exactly two decimals, without a float between.
func parseCents(s string) (int64, error) {
	whole, frac, ok := strings.Cut(s, ".")
	if ok && len(frac) == 2 && len(whole) > 0 && len(whole) <= 12 {
		if cents, err := strconv.ParseUint(whole+frac, 10, 63); err == nil {
			return int64(cents), nil
		}
	}
	return 0, fmt.Errorf("amount %q: want dollars with two decimals", s)
}
