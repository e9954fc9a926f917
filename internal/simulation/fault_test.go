package simulation

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// kind is what goes wrong.
type kind uint8

const (
	crashBefore kind = iota // the instance dies before the request leaves it
	crashAfter              // it dies after the request was executed
	cutBefore               // the connection breaks before the request leaves
	lostReply               // the request is executed, its reply is lost with the connection
	errorReply              // an error comes back; of some requests also where they were executed
	paused                  // the instance stalls, request or reply under way, mostly longer than lease and session
	rebalanced              // an instance joins or leaves
	setBack                 // Redis goes back to an earlier state
	otherBranch             // Redis goes back, another owner goes on, and the old primary returns
	wiped                   // Redis is empty
	staleAnswer             // one script runs on a server that lags behind, and whatever it writes is lost
	noScript                // Redis forgets its scripts
	outOfMemory             // Redis refuses writes for a while
	readOnly                // Redis is a replica for a while
	clockJump               // the instance's clock jumps against Redis'

	numKinds
)

var kindNames = [numKinds]string{
	"crash before", "crash after", "cut before", "lost reply", "error reply", "long pause", "rebalance",
	"Redis set back", "other branch", "Redis wiped", "stale answer", "NOSCRIPT", "OOM", "READONLY", "clock jump",
}

func (k kind) String() string { return kindNames[k] }

// pair is a fault kind at a protocol step.
type pair struct {
	kind kind
	step step
}

func (p pair) MarshalText() ([]byte, error) {
	return []byte{'0' + byte(p.kind), '0' + byte(p.step)}, nil
}

func (p *pair) UnmarshalText(b []byte) error {
	*p = pair{kind(b[0] - '0'), step(b[1] - '0')}
	return nil
}

// meaningful are the pairs that a seed may draw: everything that can happen at
// a request at every step, and what only a script can meet at the scripts.
var meaningful = func() (ps []pair) {
	for k := range numKinds {
		for s := other + 1; s < numSteps; s++ {
			switch k {
			case noScript, staleAnswer:
				if !s.redis() {
					continue
				}
			case outOfMemory, readOnly:
				if !s.writes() {
					continue
				}
			case clockJump:
				// Only a batch and a lease depend on a clock.
				if s != inputFetch && s != apply && s != renew && s != acquire && s != dueRead {
					continue
				}
			case rebalanced:
				if s == rulesRead { // the instance is not a member yet
					continue
				}
			}
			ps = append(ps, pair{k, s})
		}
	}
	return ps
}()

// drawn is the j-th pair of a seed. Consecutive seeds go through all pairs in
// an order that is another in every round.
func drawn(seed, j, perSeed uint64) pair {
	n := uint64(len(meaningful))
	at := seed*perSeed + j
	perm := rand.New(rand.NewPCG(at/n, 0x70616972)).Perm(len(meaningful))
	return meaningful[perm[at%n]]
}

// fault is one fault of a seed: what goes wrong, at which request, and what
// became of it.
type fault struct {
	pair
	number int           // of the seed's faults
	quiet  time.Duration // before it is armed
	skip   int           // requests of the step that pass first
	late   bool          // after the request was executed, where the kind leaves it open
	lasts  time.Duration // of a pause, of a refusal, until a crashed instance is replaced
	choice uint64        // what else the kind leaves open

	fired chan struct{} // closed when it happened
	host  *host         // to whom
}

func newFault(rnd *rand.Rand, p pair, number int) *fault {
	f := &fault{
		pair: p, number: number, fired: make(chan struct{}),
		quiet: time.Duration(rnd.Int64N(int64(1500 * time.Millisecond))),
		late:  rnd.IntN(2) == 0, choice: rnd.Uint64(),
	}
	if rnd.IntN(3) > 0 {
		f.skip = rnd.IntN(4)
	}
	switch p.kind {
	case paused:
		// Below the lease, between lease and session, beyond both.
		f.lasts = time.Duration(rnd.Int64N(int64(2 * session)))
		if f.meets() != 0 {
			f.late = false // the request itself is held
			f.lasts = session + 3*time.Second
		}
	case outOfMemory, readOnly:
		f.lasts = 200*time.Millisecond + time.Duration(rnd.Int64N(int64(3*time.Second)))
	default:
		f.lasts = time.Duration(rnd.Int64N(int64(2 * session)))
	}
	switch p.step {
	case raise, install, abandoned, forget:
		f.skip = 0
	case acquire, initProducerID, journalUncommitted, syncGroup, rulesRead:
		f.skip %= 2
	}
	return f
}

func (f *fault) String() string {
	when := "before"
	if f.late {
		when = "after"
	}
	return fmt.Sprintf("fault %d: %s at %s (%s, after %d others)", f.number, f.kind, f.step, when, f.skip)
}

// executes: the request goes to the service although its reply is invented.
func (f *fault) executes() bool {
	if f == nil || f.kind != errorReply || !f.late {
		return false
	}
	switch f.step {
	case produceBatch, endTxn, initProducerID, addPartitions, joinGroup:
		return true
	}
	return false
}

// before does what happens before the request is sent. It says whether the
// connection ends there.
func (f *fault) before(l *link) bool {
	l.h.w.happened(f, l.h)
	switch f.kind {
	case crashBefore:
		l.h.w.crash(l.h, f.lasts)
		return true
	case cutBefore:
		return true
	case crashAfter, lostReply, errorReply:
	default:
		if !f.late {
			l.h.w.strike(f, l.h)
		}
	}
	return false
}

// after does what happens once the request was executed. It says whether the
// reply is lost.
func (f *fault) after(l *link) bool {
	l.h.w.mu.Lock()
	healed := l.h.w.healed
	l.h.w.mu.Unlock()
	if healed {
		return false
	}
	switch f.kind {
	case crashAfter:
		l.h.w.crash(l.h, f.lasts)
		return true
	case lostReply:
		return true
	case crashBefore, cutBefore, errorReply:
	default:
		if f.late {
			l.h.w.strike(f, l.h)
		}
	}
	return false
}

// meets is what else happens to a paused instance: 1, its successor stalls as
// well, and goes on only after it; 2, Redis loses the successor's epoch just
// before the paused one goes on; 3, Redis loses the paused one's own.
func (f *fault) meets() uint64 {
	switch f.step {
	case apply, reapply, renew, addPartitions, produceBatch, endTxn:
		return f.choice % 4
	}
	return 0
}

// duels are the steps at which a successor stalls.
var duels = []step{acquire, initProducerID, initProducerID, journalCommitted, journalUncommitted, journalFetch, load, apply, produceBatch, endTxn}

// pauseFor stalls an instance, with what meets it then.
func (w *world) pauseFor(f *fault, h *host) {
	before, changes := w.beforeLastAcquisition()
	h.pause(f.lasts)
	switch f.meets() {
	case 1:
		w.mu.Lock()
		w.duel = &duel{not: h, at: duels[f.choice>>2%uint64(len(duels))], until: time.Now().Add(f.lasts + time.Duration(f.choice>>8%400)*time.Millisecond)}
		w.mu.Unlock()
	case 2:
		w.after(f.lasts-50*time.Millisecond, func() {
			if now, _ := w.beforeLastAcquisition(); now != nil && now != before { // somebody took over
				w.failover(0, now)
			}
		})
	case 3:
		w.after(session, func() {
			if _, now := w.beforeLastAcquisition(); before != nil && now == changes {
				w.failover(0, before)
			}
		})
	}
}

// duel is a stall of the next instance but one that sends a step.
type duel struct {
	not   *host
	at    step
	until time.Time
}

// strike does what is not bound to the request itself.
func (w *world) strike(f *fault, h *host) {
	switch f.kind {
	case paused:
		w.pauseFor(f, h)
	case rebalanced:
		w.rebalance(f.choice, h)
	case setBack:
		w.setBack(int(f.choice % 8))
		w.failover(f.choice>>8, nil)
	case otherBranch:
		// The primary that goes away holds what its last owner applied and, as
		// that owner dies, never published.
		lost := w.snapshot()
		w.mu.Lock()
		w.branched = true
		w.mu.Unlock()
		w.crash(h, f.lasts)
		w.setBack(1 + int(f.choice%4))
		w.failover(0, nil)
		w.after(2*time.Second+f.lasts, func() { w.failover(0, lost) })
	case wiped:
		w.failover(f.choice>>8, w.empty())
	case noScript:
		w.flushScripts()
	case outOfMemory:
		w.refuse("OOM command not allowed when used memory > 'maxmemory'.", f.lasts)
	case readOnly:
		w.refuse("READONLY You can't write against a read only replica.", f.lasts)
	case clockJump:
		h.jump(f.choice)
	}
}

// jumps are by how much a clock jumps: little more than readiness allows, more
// than a lease, and more than any skew allowed to producers.
var jumps = []time.Duration{1500 * time.Millisecond, 5 * time.Second, time.Minute, 2 * time.Hour}

func (h *host) jump(choice uint64) {
	d := jumps[choice/2%uint64(len(jumps))]
	if choice%2 == 0 {
		d = -d
	}
	h.mu.Lock()
	h.skew += d
	h.mu.Unlock()
	h.w.tracef("%s: clock jumps by %s", h.name, d)
}

// refusal is the error that Redis answers a script with, "" for none.
func (w *world) refusal(s step, f *fault) string {
	if f != nil && f.kind == errorReply {
		return []string{
			"LOADING Redis is loading the dataset in memory",
			"BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
			"MISCONF Errors writing to the AOF file: No space left on device",
			"MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
		}[f.choice%4]
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.writes() && time.Now().Before(w.refusing.until) {
		return w.refusing.text
	}
	return ""
}

// answer is the reply to a request that the broker does not give: an error
// injected, or one that Kafka gives and the fake does not. Nil when the broker
// answers.
func (w *world) answer(req kmsg.Request, f *fault) kmsg.Response {
	if f == nil || f.kind != errorReply {
		if r, ok := req.(*kmsg.InitProducerIDRequest); ok && w.watch.stale(r) {
			w.tracef("InitProducerID with a stale epoch refused")
			return failed(req, kerr.ProducerFenced)
		}
		return nil
	}
	errs := answers[f.step]
	return failed(req, errs[f.choice%uint64(len(errs))])
}

// answers are errors that brokers give to the requests. None of them says that
// data is gone: an owner that is told so stops for a human.
var answers = map[step][]*kerr.Error{
	joinGroup:          {kerr.CoordinatorNotAvailable, kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.UnknownMemberID},
	syncGroup:          {kerr.RebalanceInProgress, kerr.UnknownMemberID, kerr.NotCoordinator},
	heartbeat:          {kerr.RebalanceInProgress, kerr.UnknownMemberID, kerr.IllegalGeneration, kerr.NotCoordinator},
	rulesRead:          {kerr.NotLeaderForPartition, kerr.LeaderNotAvailable},
	initProducerID:     {kerr.ConcurrentTransactions, kerr.CoordinatorNotAvailable, kerr.NotCoordinator, kerr.CoordinatorLoadInProgress},
	journalCommitted:   {kerr.NotLeaderForPartition, kerr.LeaderNotAvailable, kerr.UnknownServerError},
	journalUncommitted: {kerr.NotLeaderForPartition, kerr.LeaderNotAvailable, kerr.UnknownServerError},
	journalFetch:       {kerr.NotLeaderForPartition, kerr.FencedLeaderEpoch, kerr.UnknownServerError},
	inputFetch:         {kerr.NotLeaderForPartition, kerr.FencedLeaderEpoch, kerr.UnknownServerError},
	inputEnds:          {kerr.NotLeaderForPartition, kerr.LeaderNotAvailable, kerr.UnknownServerError},
	addPartitions:      {kerr.ConcurrentTransactions, kerr.CoordinatorNotAvailable, kerr.InvalidProducerEpoch, kerr.InvalidTxnState},
	produceBatch:       {kerr.NotLeaderForPartition, kerr.RequestTimedOut, kerr.NotEnoughReplicasAfterAppend, kerr.InvalidTxnState, kerr.InvalidProducerEpoch, kerr.KafkaStorageError},
	endTxn:             {kerr.CoordinatorNotAvailable, kerr.ConcurrentTransactions, kerr.UnknownServerError, kerr.InvalidTxnState, kerr.InvalidProducerEpoch, kerr.NotCoordinator},
}

// failed is the reply that fails a request.
func failed(req kmsg.Request, e *kerr.Error) kmsg.Response {
	resp := req.ResponseKind()
	switch r := req.(type) {
	case *kmsg.JoinGroupRequest:
		resp.(*kmsg.JoinGroupResponse).ErrorCode = e.Code
	case *kmsg.SyncGroupRequest:
		resp.(*kmsg.SyncGroupResponse).ErrorCode = e.Code
	case *kmsg.HeartbeatRequest:
		resp.(*kmsg.HeartbeatResponse).ErrorCode = e.Code
	case *kmsg.InitProducerIDRequest:
		v := resp.(*kmsg.InitProducerIDResponse)
		v.ErrorCode, v.ProducerID, v.ProducerEpoch = e.Code, -1, -1
	case *kmsg.EndTxnRequest:
		resp.(*kmsg.EndTxnResponse).ErrorCode = e.Code
	case *kmsg.ListOffsetsRequest:
		for _, t := range r.Topics {
			rt := kmsg.NewListOffsetsResponseTopic()
			rt.Topic = t.Topic
			for _, p := range t.Partitions {
				rp := kmsg.NewListOffsetsResponseTopicPartition()
				rp.Partition, rp.ErrorCode = p.Partition, e.Code
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.(*kmsg.ListOffsetsResponse).Topics = append(resp.(*kmsg.ListOffsetsResponse).Topics, rt)
		}
	case *kmsg.AddPartitionsToTxnRequest:
		v := resp.(*kmsg.AddPartitionsToTxnResponse)
		v.ErrorCode = e.Code // from version 4 on
		for _, t := range r.Topics {
			rt := kmsg.NewAddPartitionsToTxnResponseTopic()
			rt.Topic = t.Topic
			for _, p := range t.Partitions {
				rp := kmsg.NewAddPartitionsToTxnResponseTopicPartition()
				rp.Partition, rp.ErrorCode = p, e.Code
				rt.Partitions = append(rt.Partitions, rp)
			}
			v.Topics = append(v.Topics, rt)
		}
	case *kmsg.ProduceRequest:
		for _, t := range r.Topics {
			rt := kmsg.NewProduceResponseTopic()
			rt.Topic, rt.TopicID = t.Topic, t.TopicID
			for _, p := range t.Partitions {
				rp := kmsg.NewProduceResponseTopicPartition()
				rp.Partition, rp.ErrorCode, rp.BaseOffset = p.Partition, e.Code, -1
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.(*kmsg.ProduceResponse).Topics = append(resp.(*kmsg.ProduceResponse).Topics, rt)
		}
	case *kmsg.FetchRequest:
		v := resp.(*kmsg.FetchResponse)
		if len(r.Topics) == 0 {
			v.ErrorCode = kerr.FetchSessionIDNotFound.Code
			break
		}
		for _, t := range r.Topics {
			rt := kmsg.NewFetchResponseTopic()
			rt.Topic, rt.TopicID = t.Topic, t.TopicID
			for _, p := range t.Partitions {
				rp := kmsg.NewFetchResponseTopicPartition()
				rp.Partition, rp.ErrorCode, rp.HighWatermark = p.Partition, e.Code, -1
				rt.Partitions = append(rt.Partitions, rp)
			}
			v.Topics = append(v.Topics, rt)
		}
	default:
		panic(fmt.Sprintf("simulation: no error reply for %T", req))
	}
	return resp
}
