package mutation

// mutation is one step of the protocol left out or done wrong.
type mutation struct {
	name  string
	does  string // what the broken program does
	edits []edit
}

// edit replaces text that stands exactly once in a file of the repository.
type edit struct{ file, old, new string }

const (
	scripts  = "internal/state/scripts.go"
	rebuild  = "internal/state/rebuild.go"
	store    = "internal/state/store.go"
	keys     = "internal/state/keys.go"
	machine  = "internal/protocol/machine.go"
	journal  = "internal/protocol/journal.go"
	worker   = "internal/stream/worker.go"
	recovery = "internal/stream/recover.go"
	producer = "internal/stream/producer.go"
	reader   = "internal/stream/reader.go"
	batch    = "internal/fold/batch.go"
)

var lazy = edit{producer, `id, _, err := cl.ProducerID(ctx)`, `id, err := int64(-1), ctx.Err()`}

var mutations = []mutation{
	{"no epoch", "acquiring leaves the epoch as it is", []edit{
		{scripts, `redis.call('HINCRBY', KEYS[1], 'epoch', 1)`, `redis.call('HINCRBY', KEYS[1], 'epoch', 0)`},
	}},
	{"no owner", "scripts ask for the epoch and not for the owner", []edit{
		{scripts, `for i = 1, 5 do if f[i] ~= ARGV[i] then return {0} end end`, `for i = 1, 5 do if i ~= 2 and f[i] ~= ARGV[i] then return {0} end end`},
		{scripts, `for i = 1, 3 do if f[i] ~= ARGV[i] then return {0} end end`, `for i = 1, 3 do if i ~= 2 and f[i] ~= ARGV[i] then return {0} end end`},
		{scripts, `if f[1] ~= A[1] or f[2] ~= A[2] or f[3] ~= A[3] then return {0} end`, `if f[1] ~= A[1] or f[3] ~= A[3] then return {0} end`},
	}},
	{"no chain", "a point of history is known by its number alone", []edit{
		{scripts, `for i = 1, 5 do if f[i] ~= ARGV[i] then return {0} end end`, `for i = 1, 4 do if f[i] ~= ARGV[i] then return {0} end end`},
		{scripts, `if f[4] ~= A[4] or f[5] ~= A[5] then return {0} end`, `if f[4] ~= A[4] then return {0} end`},
		{machine, `if e.Parent == s.K.Chain && e.Seq == s.K.Seq+1 {`, `if e.Seq == s.K.Seq+1 {`},
		{machine, `case m.id.Point == s.K.Point:`, `case m.id.Seq == s.K.Seq:`},
		{recovery, `if at.Point == id.Point && !id.Loading {`, `if at.Seq == id.Seq && !id.Loading {`},
	}},
	{"no lease", "a batch is accepted although the lease is over", []edit{
		{scripts, `if now >= tonumber(f[6]) then return {3} end`, ``},
	}},
	{"no key generation", "a rebuild writes among the keys of the state that it replaces", []edit{
		{keys, `return k.base + "g" + strconv.FormatUint(gen, 10) + ":"`, `return k.base + "g" + strconv.FormatUint(min(gen, 1), 10) + ":"`},
	}},
	{"reads not fenced", "customers and due times are read without asking for the fence", []edit{
		{scripts, `loadScript = redis.NewScript(checkIdentity + `, `loadScript = redis.NewScript(`},
		{scripts, `dueScript = redis.NewScript(checkIdentity + `, `dueScript = redis.NewScript(`},
	}},
	{"oldest entry only", "recovery looks for K at the parent of the oldest outbox entry only", []edit{
		{machine, `for i, e := range m.outbox {`, `for i, e := range m.outbox[:min(1, len(m.outbox))] {`},
	}},
	{"offsets before state", "the fence moves first, the customers are written after it", []edit{
		{store, `	keys := s.keys.customers(gen, b.Customers)
	for i := range b.Customers {`, `	keys := s.keys.customers(gen, b.Customers)
	for i := range b.Customers[:0] {`},
		{store, `	case 1:
		return protocol.Accepted, nil
	case 2:`, `	case 1:
		for i := range b.Customers {
			if err := s.rdb.Set(ctx, keys[i], b.Customers[i].Value, 0).Err(); err != nil {
				return protocol.Rejected, err
			}
		}
		return protocol.Accepted, nil
	case 2:`},
	}},
	{"script split in two", "the customers are written by a command of their own, before the fence moves", []edit{
		{store, `	v, err := s.run(ctx, applyScript, `, `	for i := range b.Customers {
		if err := s.rdb.Set(ctx, keys[i], b.Customers[i].Value, 0).Err(); err != nil {
			return protocol.Rejected, err
		}
	}
	v, err := s.run(ctx, applyScript, `},
	}},
	{"publish before apply", "a batch is handed to the publisher before Redis has it", []edit{
		{worker, `	if err := s.write(ctx, out, out.Entry, k, drop); err != nil {
		return err
	}
	s.mu.Lock()
	s.machine.Applied(out.Entry, len(drop))
	s.pending += out.Entry.Size()
	s.status.unpublished(s.pending)
	s.mu.Unlock()
	s.signal(s.more)
`, `	id := s.machine.Identity()
	s.mu.Lock()
	s.machine.Applied(out.Entry, len(drop))
	s.pending += out.Entry.Size()
	s.status.unpublished(s.pending)
	s.mu.Unlock()
	s.signal(s.more)
	if err := s.writeAs(ctx, id, out, out.Entry, k, drop); err != nil {
		return err
	}
`},
		{worker, `func (s *session) write(ctx context.Context, out *fold.Output, entry *protocol.Entry, k protocol.Published, drop []uint64) (err error) {
`, `func (s *session) write(ctx context.Context, out *fold.Output, entry *protocol.Entry, k protocol.Published, drop []uint64) (err error) {
	return s.writeAs(ctx, s.machine.Identity(), out, entry, k, drop)
}

func (s *session) writeAs(ctx context.Context, id protocol.Identity, out *fold.Output, entry *protocol.Entry, k protocol.Published, drop []uint64) (err error) {
`},
		{worker, `		Identity: s.machine.Identity(), Point: out.Entry.Point(), State: &out.State`, `		Identity: id, Point: out.Entry.Point(), State: &out.State`},
	}},
	{"commit despite a failed produce", "whatever got through is committed", []edit{
		{producer, `		// The client would commit what did get through. Never.
		return protocol.Published{}, err
`, `		_ = err
`},
	}},
	{"trim too early", "outbox entries are dropped before they are known to be published", []edit{
		{machine, `		if seq <= m.known.Seq {
			drop = append(drop, seq)`, `		if true {
			drop = append(drop, seq)`},
	}},
	{"outbox recomputed", "what is applied and not published is decided again", []edit{
		{machine, `			m.outbox = m.outbox[i:]
			m.known = s.K
			m.ready()
			return true
`, `			break
`},
	}},
	{"K before fencing", "the journal is read before InitProducerID", []edit{
		lazy,
		{recovery, `			err = s.locate(early, f)
`, `			if err = s.locate(early, f); err == nil {
				_, _, err = p.client.ProducerID(early)
			}
`},
	}},
	{"lazy InitProducerID", "the client sends InitProducerID with its first produce", []edit{lazy}},
	{"consumer rewound", "a new session reads one record again", []edit{
		{reader, `		o := kgo.NewOffset().At(from[i].Next)
`, `		o := kgo.NewOffset().At(max(0, from[i].Next-1))
`},
	}},
	{"lease not renewed", "only batches extend the lease", []edit{
		{worker, `		case <-t.C:
		}
		s.mu.Lock()
		id := s.machine.Identity()
`, `		case <-t.C:
			continue
		}
		s.mu.Lock()
		id := s.machine.Identity()
`},
	}},
	{"journal without clock", "journal records do not say what the clock was", []edit{
		{journal, `Seq: r.Seq, Clock: r.State.Clock, Watermark:`, `Seq: r.Seq, Watermark:`},
	}},
	{"digest not updated", "the digest keeps what a customer's record was, not what it is", []edit{
		{batch, `digest = digest.Add(sum)`, `_ = sum`},
	}},
	{"flood stop off", "a flood of refused records is no reason to stop", []edit{
		{batch, `if read >= floodMin && !e.allowRejects {`, `if read >= floodMin && false {`},
	}},
	{"original lost", "a return that expires and comes again in its batch loses its original (a bug that the simulation found)", []edit{
		{batch, `	b.out.Unwait = slices.DeleteFunc(b.out.Unwait, func(w Waiting) bool { return w == k })
`, ``},
	}},
}
