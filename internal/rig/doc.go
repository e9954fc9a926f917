// Package rig is what tests of the whole system share: one namespace on a real
// Kafka and a real Redis ([World]), consumers that are processes of the real
// command ([Consumer]), believable traffic, and a second reading of log and
// journal ([World.Check]) to hold against what was published and stored.
//
// Its functions take a testing.TB and end the test on any failure. A package
// that uses it has
//
//	func TestMain(m *testing.M) { testenv.Main(m, rig.RemoveBinary) }
package rig
