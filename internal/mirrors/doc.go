// Package mirrors asks of this program what public test suites ask of theirs:
// those of Kafka Streams, of Kafka's transactions and of franz-go. Each test
// says whose invariants it keeps, and which have no counterpart here. The code
// is our own.
//
// It has no code beside the tests.
package mirrors
