package scoring

// MeasureName is what the measure is called for people: its field, or "score"
// for a weighted sum of several.
func (m *Model) MeasureName() string {
	if len(m.measure) == 1 {
		return fieldNames[m.measure[0].field]
	}
	return "score"
}
