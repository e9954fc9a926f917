// Package simulation runs the whole system in one process on a virtual clock:
// several stream.Processors, Kafka (kfake) and Redis (miniredis), with faults
// at chosen protocol steps, and checks afterwards what must hold after any of
// them. It consists of tests; see docs/proofs/simulation.md.
//
// A protocol step is a request that an instance sends. Faults happen on the
// wire between an instance and its services, never inside the code under test:
// see link in wire_test.go.
package simulation
