// Package mutation breaks the protocol one step at a time, in the real code,
// and asks the simulation's seeds to notice. A mutation is a replacement of
// text in a source file that the compiler sees instead of the real one (go
// build -overlay): the program has no hooks for it.
//
// It consists of tests; see docs/proofs/mutations.md.
package mutation
