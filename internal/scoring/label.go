package scoring

import (
	"strconv"

	"github.com/tierstream/tierstream/internal/event"
)

// MeasureName is what the measure is called for people: its field, or "score"
// for a weighted sum of several.
func (m *Model) MeasureName() string {
	if len(m.measure) == 1 {
		return fieldNames[m.measure[0].field]
	}
	return "score"
}

// AppendScore appends a score or threshold, 1/10,000, for a person: an amount in
// the model's currency where the measure is money, else with one decimal.
func (m *Model) AppendScore(b []byte, v int64) []byte {
	if m.countsMoney() {
		return event.AppendMoney(b, mulDiv(v, 1, unit), m.currency)
	}
	if v < 0 {
		b, v = append(b, '-'), -v
	}
	v = (v + 500) / 1000
	return append(strconv.AppendInt(b, v/10, 10), '.', byte('0'+v%10))
}
