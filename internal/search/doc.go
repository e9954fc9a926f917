// Package search looks for a schedule that breaks exactly-once. It puts the
// real protocol.Machine into a small world: one partition in Redis, its
// journal and transactions in Kafka, two or three processes that drive the
// machine as package stream does, and everything that may go wrong between any
// two of their steps. The world has no I/O, clock or goroutine. It is walked
// exhaustively where it is small (Search), and at random, from seeds that
// repeat, where it is larger (Simulate).
//
// What is modelled, and how:
//
//   - Redis is the fence with its outbox and the customers by key generation.
//     A script is one step and is refused or accepted by the conditions of
//     package state. Redis may go back to anything that it ever held: its
//     beginning (wiped), a prefix (a lost suffix), or what an earlier loss took
//     away (failback to an old branch).
//   - Kafka is the journal, the outputs and the transactions. A commit may be
//     decided long after it was asked for, its answer may be lost, its markers
//     may come later than the answer; the coordinator may abort it. Initialising
//     a producer aborts what is open and makes the coordinator refuse the
//     producers before. Retention may delete inputs and the journal's head;
//     Kafka may also lose the journal's tail.
//   - A session is a process from the acquiring script on. It may end at any
//     step: killed, an answer lost, in doubt. It may also go on, however slow,
//     when others have long taken over; any number of sessions up to the bound
//     are alive together, whatever a consumer group would allow.
//   - The fold is a value that depends on everything folded so far, on the
//     records and on the batch's clock; how many records and which clock a
//     batch has is a choice. Points of history are hashed by the protocol.
//   - Time is counted in leases. It passes when a session sleeps for longer than
//     its lease; all others renew theirs meanwhile.
//
// The invariants (I1, I2, I3 and I7 of the protocol, and that nothing decided
// is lost needlessly) are checked wherever a move could break them, so they
// hold in every state; see check.go. From every state, each session alone must
// come to an end without further faults; see solo.go.
//
// A Mutation does one step wrongly, to see that the search notices.
package search
