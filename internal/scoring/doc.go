// Package scoring turns a customer's Summary into numbers and a tier: RFM,
// customer lifetime value (CLV), satisfaction, the measure that decides, and
// the tier with its hysteresis. Everything is a pure function of the summary
// and the Model: no I/O, clocks, goroutines or maps iterated in random order,
// and the same bits on every machine (see package dmath and RULES.md).
//
// Units: money is int64 minor units of the base currency, time is days of the
// model's zone or Unix milliseconds, and scores are int64 in 1/10,000.
package scoring
