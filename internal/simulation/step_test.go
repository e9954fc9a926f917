package simulation

import (
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tierstream/tierstream/internal/state"
)

// step is a request of the protocol, as it is seen on the wire. Requests that
// are no step of the protocol (metadata, group offsets for lag tools) are
// other.
type step uint8

const (
	other step = iota

	joinGroup
	syncGroup
	heartbeat
	rulesRead

	acquire
	initProducerID
	journalCommitted   // the journal's read-committed end
	journalUncommitted // and its read-uncommitted one
	journalFetch

	raise
	install
	reapply // a batch script without an outbox entry
	aim
	abandoned
	forget

	inputFetch
	inputEnds
	dueRead
	load
	apply
	renew
	compare

	addPartitions
	produceBatch
	endTxn

	numSteps
)

var stepNames = [numSteps]string{
	"other", "JoinGroup", "SyncGroup", "Heartbeat", "rules read",
	"acquire script", "InitProducerID", "ListOffsets journal committed", "ListOffsets journal uncommitted", "journal fetch",
	"raise script", "install script", "re-apply script", "aim script", "read of old generations", "deletion of old generations",
	"input fetch", "ListOffsets inputs", "due read", "load script", "apply script", "renew script", "compare script",
	"AddPartitionsToTxn", "Produce", "EndTxn",
}

func (s step) String() string { return stepNames[s] }

// redis says that the step is a script.
func (s step) redis() bool {
	switch s {
	case acquire, raise, install, reapply, aim, abandoned, forget, dueRead, load, apply, renew, compare:
		return true
	}
	return false
}

// writes says that the step is a script that changes something.
func (s step) writes() bool { return s.redis() && s != dueRead && s != load && s != compare }

// scripts are the state's scripts by hash.
var scripts = func() map[string]string {
	m := map[string]string{}
	for name, hash := range state.ScriptHashes() {
		m[hash] = name
	}
	return m
}()

// redisStep tells which step a command is. args are its first arguments, last
// is its last one.
func redisStep(args []string, last string) step {
	if len(args) < 4 {
		return other
	}
	name := ""
	switch strings.ToUpper(args[0]) {
	case "EVALSHA":
		name = scripts[args[1]]
	case "EVAL":
		name = scripts[hashOf(args[1])]
	}
	switch name {
	case "acquire":
		return acquire
	case "raise":
		return raise
	case "aim":
		return aim
	case "abandoned":
		return abandoned
	case "forget":
		return forget
	case "renew":
		return renew
	case "compare":
		return compare
	case "load":
		return load
	case "due":
		return dueRead
	case "apply":
		// keys: fence, outbox, due set; then the identity, whose fifth is the
		// chain. The last list is the outbox entry, empty when there is none.
		switch {
		case len(args) > 10 && args[10] == "loading":
			return install
		case last == "0":
			return reapply
		}
		return apply
	}
	return other
}

// kafkaStep tells which step a request is. topic names a topic by ID; seen is
// the topic of the last fetch on the same connection, because an incremental
// fetch names none.
func (w *world) kafkaStep(req kmsg.Request, seen *string) step {
	switch r := req.(type) {
	case *kmsg.JoinGroupRequest:
		return joinGroup
	case *kmsg.SyncGroupRequest:
		return syncGroup
	case *kmsg.HeartbeatRequest:
		return heartbeat
	case *kmsg.InitProducerIDRequest:
		if r.TransactionalID != nil {
			return initProducerID
		}
	case *kmsg.AddPartitionsToTxnRequest:
		return addPartitions
	case *kmsg.EndTxnRequest:
		return endTxn
	case *kmsg.ProduceRequest:
		if r.TransactionID != nil {
			return produceBatch
		}
	case *kmsg.ListOffsetsRequest:
		if len(r.Topics) == 0 || len(r.Topics[0].Partitions) == 0 || r.Topics[0].Partitions[0].Timestamp != -1 {
			return other // the start, not the end
		}
		switch {
		case r.Topics[0].Topic != w.topics.Journal:
			if r.IsolationLevel == 1 {
				return inputEnds
			}
		case r.IsolationLevel == 1:
			return journalCommitted
		default:
			return journalUncommitted
		}
	case *kmsg.FetchRequest:
		if len(r.Topics) > 0 {
			if *seen = r.Topics[0].Topic; *seen == "" {
				*seen = w.topicNames[r.Topics[0].TopicID]
			}
		}
		switch *seen {
		case w.topics.Journal:
			return journalFetch
		case w.topics.Rules:
			return rulesRead
		case "":
		default:
			return inputFetch
		}
	}
	return other
}
