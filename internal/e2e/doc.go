// Package e2e tests the whole of tierstream from outside: the real consumer
// command against a real Kafka and a real Redis, which are killed, wiped,
// paused and misconfigured. What it published and stored is then compared with
// a second reading of log and journal that uses neither (see package rig).
//
// It has no code of its own beside the tests.
package e2e
