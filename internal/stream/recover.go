package stream

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"golang.org/x/sync/errgroup"

	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/state"
)

// own does what owning the partition asks for, phase by phase.
func (s *session) own(ctx context.Context, g *errgroup.Group, f *protocol.Fence) error {
	// Until the partition runs, nothing has to be finished when the group takes
	// it away; and the group stands still until it is released, while the
	// journal's end, say, may not be known for a minute.
	early, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-s.drain:
			cancel(errDrained)
		case <-early.Done():
		}
	}()
	p, err := openProducer(early, &s.cfg, s.partition, s.maxMessage)
	if err != nil {
		return drained(early, err)
	}
	defer p.close()
	s.machine.ProducerFenced()
	s.producerID = p.id
	s.finishHanging(early)
	for {
		s.status.phase(s.machine.Phase(), s.machine.Rebuild())
		switch s.machine.Phase() {
		case protocol.Locating:
			err = s.locate(early, f)
		case protocol.Beginning:
			err = s.begin(early, p)
		case protocol.Raising:
			err = s.raise(early, f)
		case protocol.Installing:
			err = s.install(early)
		case protocol.Reapplying:
			err = s.reapply(early)
		case protocol.Loading:
			err = s.gather(early)
		case protocol.Rebasing:
			err = s.rebase(ctx, g, p)
		case protocol.Running:
			return s.live(ctx, g, p)
		case protocol.Stopped:
			return stopError{s.machine.Err()}
		default:
			panic("stream: unexpected phase " + s.machine.Phase().String())
		}
		if err != nil {
			return drained(early, err)
		}
	}
}

// drained is err, unless that comes from being asked to end.
func drained(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errDrained) {
		return errDrained
	}
	return err
}

// located is what a look at journal and inputs found.
type located struct {
	scan   protocol.Scan
	genAt  protocol.Published
	origin *protocol.Genesis // newest genesis document that was met
	atK    protocol.State
	inputs []int64 // first offset that each input holds
	topics identity
}

// locate reads where K is, and decides how to recover.
func (s *session) locate(ctx context.Context, f *protocol.Fence) error {
	topics, err := s.identify(ctx, s.admin)
	if err != nil {
		return err
	}
	l, err := s.look(ctx, f)
	if err != nil {
		return err
	}
	l.topics = topics
	s.found = l
	if l.origin == nil && f.Genesis != nil {
		l.origin = f.Genesis
	}
	if l.origin != nil {
		if err := s.continues(l.origin, topics); err != nil {
			return stopError{err}
		}
		if l.scan.Start == 0 && !f.Loading && !f.Damaged && f.Incarnation != l.origin.Incarnation {
			return stopf("the state in Redis belongs to incarnation %s of this namespace, the journal to %s", f.Incarnation, l.origin.Incarnation)
		}
	}
	s.mu.Lock()
	s.machine.Located(l.scan)
	phase := s.machine.Phase()
	s.mu.Unlock()
	if s.genesis = l.origin; s.genesis == nil && !l.scan.Empty && phase != protocol.Stopped {
		s.genesis = s.adopt(f, topics)
	}
	switch phase {
	case protocol.Raising, protocol.Installing, protocol.Reapplying, protocol.Loading:
	default:
		return nil
	}
	for i, first := range l.inputs {
		if next := l.atK.Next[i].Next; first > next {
			return stopf("%s/%d begins at offset %d, but was read up to %d: records were deleted before they were read", s.cfg.Topics.Inputs[i], s.partition, first, next)
		}
	}
	if err := s.store.Aim(ctx, s.machine.Identity(), s.machine.K().Seq); err != nil {
		return s.doubt(err)
	}
	s.announce(ctx)
	return nil
}

// announce says loudly that state is built again, and why.
func (s *session) announce(ctx context.Context) {
	rb := s.machine.Rebuild()
	if rb.Cause != protocol.NoCause {
		s.log.Warn("the state in Redis cannot be continued: building it again", "reason", rb.Cause, "to", s.machine.K().Seq)
		s.metrics.rebuilds.Add(ctx, 1, causeOf(rb.Cause))
	}
	switch {
	case rb.Blocked == protocol.NoCause:
	case s.machine.Phase() == protocol.Rebasing:
		s.log.Error("the journal lost its first records; the state is whole: putting the namespace's origin on record again", "from", s.machine.K().Seq)
		s.metrics.rebases.Add(ctx, 1, causeOf(rb.Blocked))
	default:
		s.log.Error("the journal cannot be re-applied: gathering what is left, and correcting who differs from what was published",
			"reason", rb.Blocked, "based", rb.Base > 0, "to", s.machine.K().Seq)
		s.metrics.rebases.Add(ctx, 1, causeOf(rb.Blocked))
	}
}

// look reads the journal as the machine asks, and the inputs' offsets.
func (s *session) look(ctx context.Context, f *protocol.Fence) (*located, error) {
	l := &located{}
	v := &l.scan
	end, err := s.journal.end(ctx, transactionTimeout+30*time.Second)
	if err != nil {
		return nil, err
	}
	if v.Start, err = s.journal.start(ctx); err != nil {
		return nil, err
	}
	from, epoch, whole := s.machine.ScanFrom()
	v.Whole, v.K.LeaderEpoch, v.Empty = whole, -1, true
	if whole {
		from, epoch = v.Start, -1
	}
	id, known := s.machine.Identity(), s.machine.Known()
	blocked := newBlocked(s)
	err = s.journal.each(ctx, max(from, v.Start), epoch, end, func(rec *protocol.Record, at protocol.Published) error {
		switch {
		case v.Empty && rec.Kind == protocol.KindGenesis:
			v.Genesis, l.genAt = rec, at
		case v.Empty && v.Start == 0 && whole:
			return stopf("%s/%d: the first record is no genesis: the topic is not this namespace's journal", s.journal.topic, s.partition)
		case v.Empty && !id.Loading && rec.Seq == id.Seq+1 && rec.Continues(id.Chain):
			// The journal begins just behind R.
			v.R, v.Found = protocol.Published{Point: id.Point, Offset: v.Start - 1, LeaderEpoch: -1}, true
		case !v.Empty && at.Seq != v.K.Seq+1:
			return stopf("the journal goes from %d to %d: Kafka lost data", v.K.Seq, at.Seq)
		}
		if at.Offset == known.Offset {
			v.FirstAt = &at.Point
		}
		v.Empty = false
		if o := rec.Origin(); o != nil {
			l.origin, v.Anchored = o, true
		}
		if err := blocked.by(ctx, rec); err != nil {
			return err
		}
		if at.Point == id.Point && !id.Loading {
			v.R, v.Found = at, true
			blocked.sinceR = protocol.NoCause
		}
		v.K, l.atK = at, rec.State
		return nil
	})
	if err != nil || v.Empty {
		return l, err
	}
	if !whole && v.Start == 0 { // a whole scan has met it
		var gen *protocol.Record
		if gen, l.genAt, err = s.journal.first(ctx, end); err != nil {
			return nil, err
		}
		if l.origin == nil {
			l.origin = gen.Origin()
		}
	}
	starts, err := s.admin.ListStartOffsets(ctx, s.cfg.Topics.Inputs...)
	if err != nil {
		return nil, fmt.Errorf("asking for the starts of the inputs: %w", err)
	}
	ends, err := s.admin.ListCommittedOffsets(ctx, s.cfg.Topics.Inputs...)
	if err != nil {
		return nil, fmt.Errorf("asking for the ends of the inputs: %w", err)
	}
	for i, t := range s.cfg.Topics.Inputs {
		first, ok1 := starts.Lookup(t, s.partition)
		last, ok2 := ends.Lookup(t, s.partition)
		if err := errors.Join(first.Err, last.Err); err != nil || !ok1 || !ok2 {
			return nil, fmt.Errorf("asking for the start and end of %s/%d: %w", t, s.partition, err)
		}
		if i >= len(l.atK.Next) {
			return nil, stopf("the journal names %d inputs, there are %d", len(l.atK.Next), len(s.cfg.Topics.Inputs))
		}
		at := l.atK.Next[i].Next
		if last.Offset < at {
			return nil, stopf("%s/%d ends at %d, but was read up to %d: Kafka lost records", t, s.partition, last.Offset, at)
		}
		l.inputs = append(l.inputs, first.Offset)
		if i < len(f.State.Next) && first.Offset > f.State.Next[i].Next {
			blocked.sinceR = protocol.LogTruncated
		}
		if v.Genesis != nil && first.Offset > v.Genesis.Genesis.Start[i].Next && at > v.Genesis.Genesis.Start[i].Next {
			blocked.all = protocol.LogTruncated
		}
	}
	v.BlockedR, v.Blocked = blocked.sinceR, blocked.all
	if whole && v.Genesis == nil {
		v.Blocked = protocol.JournalTruncated
	}
	return l, nil
}

// blocked gathers why journal records cannot be re-applied by this binary.
type blocked struct {
	*session
	known       map[protocol.Hash]bool
	all, sinceR protocol.Cause
}

func newBlocked(s *session) *blocked { return &blocked{session: s, known: map[protocol.Hash]bool{}} }

func (b *blocked) by(ctx context.Context, rec *protocol.Record) error {
	cause := protocol.NoCause
	switch {
	case rec.State.Fold > fold.Version:
		return stopf("journal record %d was folded by version %d, this binary has %d: start the binary that wrote it, or a newer one", rec.Seq, rec.State.Fold, fold.Version)
	case rec.Kind == protocol.KindGenesis:
	case rec.Kind == protocol.KindRebase:
		cause = protocol.BehindRebase
	case !fold.Repeats(rec.State.Fold):
		cause = protocol.FoldVersion
	default:
		h := rec.State.Rules
		if _, asked := b.known[h]; !asked {
			_, err := b.rules.lookup(ctx, h)
			if err != nil && !errors.Is(err, errUnknownRules) {
				return err
			}
			if b.known[h] = err == nil; err != nil {
				b.log.Error("rules are missing", "reason", err)
			}
		}
		if !b.known[h] {
			cause = protocol.RulesUnknown
		}
	}
	if cause != protocol.NoCause {
		b.all, b.sinceR = cause, cause
	}
	return nil
}

// adopt makes a genesis document where the journal's first record is gone.
// What the fence knows is kept.
func (s *session) adopt(f *protocol.Fence, now identity) *protocol.Genesis {
	g := &protocol.Genesis{
		Incarnation: f.Incarnation, LiveSince: f.LiveSince,
		Partitions: now.partitions, ClusterID: now.clusterID, Topics: s.cfg.Topics.Inputs, TopicIDs: now.topicIDs,
	}
	for _, first := range s.found.inputs {
		g.Start = append(g.Start, protocol.Position{Next: first, LeaderEpoch: -1})
	}
	if g.Incarnation.IsZero() {
		g.Incarnation, g.Adopted = s.owner, true // as random as it must be
		switch {
		case !s.cfg.LiveSince.IsZero():
			g.LiveSince = s.cfg.LiveSince.UnixMilli()
		case s.cfg.Rules.Clock != fold.ClockEvents:
			g.LiveSince = s.found.atK.Clock
		}
		s.log.Error("neither journal nor Redis know the namespace's origin: going on under a new incarnation", "incarnation", g.Incarnation)
	}
	return g
}

// begin creates the namespace's history in this partition: the genesis is
// committed in the journal before anything else exists.
func (s *session) begin(ctx context.Context, p *producer) error {
	starts, err := s.startOffsets(ctx, s.partition)
	if err != nil {
		return err
	}
	g := protocol.Genesis{
		Partitions: s.partitions, ClusterID: s.found.topics.clusterID,
		Topics: s.cfg.Topics.Inputs, TopicIDs: s.found.topics.topicIDs, Start: starts,
	}
	if _, err := rand.Read(g.Incarnation[:]); err != nil {
		return fmt.Errorf("choosing an incarnation: %w", err)
	}
	switch {
	case !s.cfg.LiveSince.IsZero():
		g.LiveSince = s.cfg.LiveSince.UnixMilli()
	case s.cfg.Rules.Clock != fold.ClockEvents:
		g.LiveSince = s.cfg.Now().UnixMilli()
	}
	r := protocol.NewGenesis(g, protocol.State{Rules: s.inForce.now(), Fold: fold.Version, Next: starts, Counters: make([]int64, s.cfg.Rules.Codes())})
	r.Epoch, r.Owner = s.machine.Identity().Epoch, s.owner
	at, err := p.publish(ctx, []*protocol.Entry{{Seq: 0, Chain: r.Chain, Journal: r.Encode()}})
	if err != nil {
		return err
	}
	s.log.Info("namespace created in this partition", "incarnation", g.Incarnation)
	s.found.scan.Genesis, s.found.genAt, s.genesis = r, at, &g
	s.machine.Began(at)
	return nil
}

// raise abandons the state that is there.
func (s *session) raise(ctx context.Context, f *protocol.Fence) error {
	rb := s.machine.Rebuild()
	switch rb.Base {
	case 0:
	case s.machine.Identity().Gen:
		s.baseNext = f.State.Next
	default:
		s.baseNext = f.BaseNext
	}
	gen, err := s.store.Raise(ctx, s.machine.Identity(), rb.Base, s.baseNext)
	if err != nil {
		return s.doubt(err)
	}
	s.mu.Lock()
	s.machine.Raised(gen)
	s.mu.Unlock()
	s.cache, s.litter = newCache(s.cfg.CacheBytes), true
	s.log.Info("key generation raised", "generation", gen)
	return nil
}

// install lets the fence stand at the genesis.
func (s *session) install(ctx context.Context) error {
	gen, at := s.found.scan.Genesis, s.found.genAt
	s.state, s.genesis = gen.State, gen.Genesis
	s.flood = protocol.Flood{}
	a, err := s.store.Apply(ctx, &state.Batch{
		Identity: s.machine.Identity(), Point: at.Point, State: &s.state, Flood: &s.flood,
		Genesis: s.genesis, Published: at,
	})
	if err != nil {
		return err
	}
	if a == protocol.Rejected {
		return errRejected
	}
	s.mu.Lock()
	s.machine.Installed(at)
	s.mu.Unlock()
	return nil
}

// reapply brings the state from R up to K as the journal says, publishing
// nothing; every chain must come out as it is in the journal.
func (s *session) reapply(ctx context.Context) error {
	if err := s.open(ctx); err != nil {
		return err
	}
	s.reader.behind = true
	defer func() { s.reader.close(); s.reader = nil }()
	k := s.machine.K()
	from := s.machine.Known()
	began, records := s.cfg.Now(), 0
	s.log.Info("re-applying from the journal, publishing nothing", "from", from.Seq, "to", k.Seq)
	var rules protocol.Hash
	err := s.journal.each(ctx, max(from.Offset, s.found.scan.Start), from.LeaderEpoch, k.Offset+1, func(rec *protocol.Record, at protocol.Published) error {
		if at.Seq <= from.Seq {
			return nil
		}
		if at.Seq != s.machine.Identity().Seq+1 {
			return stopf("the journal goes from %d to %d: Kafka lost data", s.machine.Identity().Seq, at.Seq)
		}
		if s.engine == nil || rec.State.Rules != rules {
			if err := s.engineFor(ctx, rec.State.Rules); err != nil {
				return err
			}
			rules = rec.State.Rules
		}
		t, err := s.reader.exactly(ctx, s.state.Next, rec.State.Next)
		if err != nil {
			return err
		}
		in := &fold.Input{Clock: rec.State.Clock, Wall: rec.State.Clock, Bound: rec.State.Sweep}
		if in.Sweep, _, err = s.dueBelow(ctx, rec.State.Sweep); err != nil {
			return err
		}
		in.Records = s.decode(ctx, t)
		out, err := s.foldBatch(ctx, in, t.next)
		if err != nil {
			return err
		}
		if out.Journal.Chain != rec.Chain {
			s.mu.Lock()
			s.machine.Diverged(fmt.Errorf("re-applying journal record %d gives chain %.12s, the journal has %.12s", rec.Seq, out.Journal.Chain, rec.Chain))
			s.mu.Unlock()
			return errEnough
		}
		_, drop := s.machine.Trim()
		if err := s.write(ctx, out, nil, at, drop); err != nil {
			return err
		}
		s.mu.Lock()
		s.machine.Reapplied(at, len(drop))
		s.mu.Unlock()
		s.settle(out)
		s.status.progress(at.Seq, k.Seq, "batches")
		if len(in.Sweep) > 0 {
			if err := s.askDue(ctx); err != nil {
				return err
			}
		}
		records += len(t.records)
		s.metrics.reapplied.Add(ctx, int64(len(t.records)), s.status.attrs)
		select {
		case <-s.drain:
			return errDrained
		default:
			return nil
		}
	})
	if err != nil {
		return err
	}
	switch s.engine = nil; s.machine.Phase() {
	case protocol.Reapplying:
		return stopf("the journal ends before %d", k.Seq)
	case protocol.Locating, protocol.Stopped:
		s.cache = newCache(s.cfg.CacheBytes)
		return nil // what was found is not what it should be
	}
	took := s.cfg.Now().Sub(began)
	s.log.Info("re-applied", "records", records, "took", took.Round(time.Millisecond), "seconds_per_million", perMillion(took, records))
	return nil
}

// perMillion is how many seconds a million would take, in tenths.
func perMillion(took time.Duration, n int) float64 {
	if n == 0 {
		return 0
	}
	return float64(int64(took.Seconds()*1e7/float64(n))) / 10
}

// identity is what a namespace's topics are known by.
type identity struct {
	clusterID  string
	partitions int32
	topicIDs   []string // of the inputs, then the journal
}

// identify asks Kafka anew: topics can be deleted and created again while
// nobody reads them.
func (p *Processor) identify(ctx context.Context, adm *kadm.Client) (id identity, err error) {
	names := append(append([]string{}, p.cfg.Topics.Inputs...), p.cfg.Topics.Journal)
	md, err := adm.Metadata(ctx, names...)
	if err != nil {
		return id, fmt.Errorf("asking Kafka for its topics: %w", err)
	}
	id.clusterID = md.Cluster
	for i, name := range names {
		d, ok := md.Topics[name]
		if !ok || d.Err != nil {
			return id, fmt.Errorf("asking Kafka for topic %s: %w", name, d.Err)
		}
		if n := int32(len(d.Partitions)); i == 0 {
			id.partitions = n
		} else if n != id.partitions {
			return id, stopf("%s has %d partitions, %s has %d: they must be the same", name, n, names[0], id.partitions)
		}
		id.topicIDs = append(id.topicIDs, d.ID.String())
	}
	return id, nil
}
