// Package torture runs the real consumers on a real Kafka and a real Redis
// under continuous input, breaks all three in every way that a seed draws, and
// then holds what is left against the log:
//
//	make torture DURATION=10m
//
// It has no code of its own beside the tests. The short run that belongs to
// make test does each thing at least once. How long partitions stop in a
// rolling restart is measured here too:
//
//	make handover
package torture
