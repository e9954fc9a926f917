package search

// Config bounds a world: how much is to be done in it and what may go wrong.
// Crashes, lost replies and doubts are bounded by Takes alone: each ends a
// session, and only a take begins one.
type Config struct {
	Name     string
	Owners   int // sessions alive at once, at most maxOwners
	Inputs   int // input records
	MaxBatch int // records in a batch
	Sweeps   int // batches without a record, which time alone asks for
	Takes    int // acquisitions in all

	Losses      int  // how often Redis goes back to what it held before, the beginning (wiped) included
	Failback    bool // it may also return to what an earlier loss had taken away
	Damages     int  // how often customers vanish from Redis, but not the fence
	Pauses      int  // how often a session sleeps for longer than its lease
	Timeouts    int  // how often the coordinator aborts a transaction by itself
	Shortenings int  // how often Kafka loses the journal's tail, up to all of it
	Truncations int  // how often retention deletes what was folded of the inputs, or the journal's head
	Retries     bool // replies of the apply script may be lost
	Markers     bool // transactions end later than the coordinator says
	Reloads     bool // the owner's cache may forget

	Keep     int // how many earlier states of Redis a loss may choose from; 0 for all
	Mutation Mutation
}

// Mutation is a set of steps that are done wrongly, to see that the search
// notices.
type Mutation uint32

const (
	NoEpoch        Mutation = 1 << iota // scripts and reads do not ask for the epoch
	NoOwner                             // they do not ask for the owner
	NoChain                             // a point of history is known by its number alone, in scripts and in recovery
	NoGeneration                        // keys do not carry the key generation
	UnfencedReads                       // values are read without the fence
	NoLease                             // the apply script does not ask for the lease
	LateRenewal                         // a lease that is over can be renewed
	NoRenewal                           // nobody extends the lease but the apply script
	OffsetsFirst                        // two scripts: fence, then customers
	SplitScript                         // two scripts: customers, then fence
	UnfencedDelete                      // old generations are deleted without asking for the fence
	PublishFirst                        // a batch is published, then applied
	PartialCommit                       // a transaction commits although a produce failed
	TrimEarly                           // outbox entries are dropped once they are sent
	Recompute                           // an outbox entry is decided anew when it is published
	LocateFirst                         // K is read before the old producer is fenced
	LazyProducer                        // InitProducerID waits for the first produce
	IgnoreOpen                          // K is read while a transaction is open
	Rewind                              // after recovery, reading begins where publishing stands
	NoClock                             // the journal does not hold the batch's clock
	NoDigest                            // a batch leaves the digest as it was
	KeepCache                           // the cache outlives the session
	ForgetBase                          // what a rebase begins from is deleted like any old generation
	NoLook                              // an idle owner looks at the fence only, not at the journal
	ForgetOpen                          // the fence does not say that a rebase is not done
)
