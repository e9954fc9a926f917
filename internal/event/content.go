package event

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

// ContentHash is what Event.Content holds: equal for events that say the same
// thing, whatever their ID, source, trace and encoding. The form that is
// hashed, all integers little-endian in 8 bytes, a string as its length and
// its bytes, an optional number as 0, or as 1 and the number:
//
//	type, time, test, unpaid, status, kind, severity, score, scale_max,
//	amount, base, cost, margin (optional numbers),
//	customer, business ID, order ID, referee ID, currency, fx_rate,
//	category, channel, reason
//
// Hashes are stored in customers' records: the form never changes.
func ContentHash(e *Event) uint64 {
	var buf [512]byte // most events fit; append moves the others to the heap
	b := buf[:0]
	b = number(b, int64(e.Type))
	b = number(b, e.Time)
	b = number(b, truth(e.Test))
	b = number(b, truth(e.Unpaid))
	b = number(b, int64(e.Status))
	b = number(b, int64(e.Kind))
	b = number(b, int64(e.Severity))
	b = number(b, int64(e.Score))
	b = number(b, int64(e.ScaleMax))
	b = perhaps(b, e.Amount, e.HasAmount)
	b = perhaps(b, e.Base, e.HasBase)
	b = perhaps(b, e.Cost, e.HasCost)
	b = perhaps(b, e.Margin, e.HasMargin)
	b = text(b, e.Customer)
	b = text(b, e.BusinessID)
	b = text(b, e.OrderID)
	b = text(b, e.RefereeID)
	b = text(b, e.Currency)
	b = text(b, e.FXRate)
	b = text(b, e.Category)
	b = text(b, e.Channel)
	b = text(b, e.Reason)
	return xxhash.Sum64(b)
}

func number(b []byte, v int64) []byte { return binary.LittleEndian.AppendUint64(b, uint64(v)) }

func text(b []byte, s string) []byte { return append(number(b, int64(len(s))), s...) }

func perhaps(b []byte, v int64, has bool) []byte {
	if !has {
		return append(b, 0)
	}
	return number(append(b, 1), v)
}

func truth(t bool) int64 {
	if t {
		return 1
	}
	return 0
}
