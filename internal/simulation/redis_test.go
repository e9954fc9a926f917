package simulation

import (
	"bytes"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// snapshot is what Redis holds at one moment, and who owns what in it.
type snapshot struct {
	strings map[string]string
	hashes  map[string]map[string]string
	zsets   map[string]map[string]float64
	sets    map[string][]string
	owners  map[string]owned
}

// owned is who acquired a partition last, on the branch that Redis shows.
type owned struct {
	owner string
	epoch uint64
}

// take copies what Redis holds. The caller has the turn.
func (w *world) take() *snapshot {
	s := &snapshot{strings: map[string]string{}, hashes: map[string]map[string]string{}, zsets: map[string]map[string]float64{}, sets: map[string][]string{}, owners: w.watch.branch()}
	for _, k := range w.redis.Keys() {
		switch w.redis.Type(k) {
		case "string":
			s.strings[k], _ = w.redis.Get(k)
		case "hash":
			h := map[string]string{}
			fields, _ := w.redis.HKeys(k)
			for _, f := range fields {
				h[f] = w.redis.HGet(k, f)
			}
			s.hashes[k] = h
		case "zset":
			z, _ := w.redis.SortedSet(k)
			s.zsets[k] = maps.Clone(z) // it is the server's own
		case "set":
			s.sets[k], _ = w.redis.Members(k)
		default:
			panic("simulation: a snapshot cannot hold a " + w.redis.Type(k))
		}
	}
	return s
}

// remember keeps every few states, so that Redis can go back to one. The
// caller has the turn.
func (w *world) remember() {
	if w.scripts++; w.scripts%3 != 0 {
		return
	}
	if len(w.past) == 8 {
		copy(w.past, w.past[1:])
		w.past = w.past[:7]
	}
	w.past = append(w.past, w.take())
}

func (w *world) snapshot() *snapshot {
	w.redisTurn.Lock()
	defer w.redisTurn.Unlock()
	return w.take()
}

// show makes Redis hold what s says. The caller has the turn.
func (w *world) show(s *snapshot) {
	w.redis.FlushAll()
	for k, v := range s.strings {
		must(w.redis.Set(k, v))
	}
	for k, h := range s.hashes {
		for f, v := range h {
			w.redis.HSet(k, f, v)
		}
	}
	for k, z := range s.zsets {
		for m, score := range z {
			_, err := w.redis.ZAdd(k, score, m)
			must(err)
		}
	}
	for k, ms := range s.sets {
		_, err := w.redis.SAdd(k, ms...)
		must(err)
	}
	w.watch.goBack(s.owners)
}

// empty is a Redis that holds nothing.
func (w *world) empty() *snapshot { return &snapshot{} }

// setBack lets Redis show the state of that many kept ones ago, or the oldest
// there is. What is newer is lost.
func (w *world) setBack(n int) {
	w.redisTurn.Lock()
	defer w.redisTurn.Unlock()
	s := w.empty()
	if len(w.past) > 0 {
		at := max(0, len(w.past)-1-n)
		s = w.past[at]
		w.past = w.past[:at+1]
	}
	w.show(s)
	w.changes++
	w.acquisitions = nil
	w.tracef("Redis set back by %d states", n)
}

// failover lets Redis show another state, if one is given, and breaks the
// connections, as when another server takes over; choice may spare them.
func (w *world) failover(choice uint64, to *snapshot) {
	if to != nil {
		w.redisTurn.Lock()
		w.show(to)
		w.changes++
		w.past, w.acquisitions = nil, nil
		w.redisTurn.Unlock()
		w.tracef("Redis now shows another state of %d keys", len(to.strings)+len(to.hashes)+len(to.zsets))
	}
	if choice%4 == 3 {
		return
	}
	for _, h := range w.hosts() {
		h.cut(func(l *link) bool { return !l.kafka })
	}
}

// refuse lets Redis answer writing scripts with an error for a while.
func (w *world) refuse(text string, d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refusing.text, w.refusing.until = text, time.Now().Add(d)
}

func (w *world) flushScripts() {
	w.redisTurn.Lock()
	defer w.redisTurn.Unlock()
	must(w.admin.ScriptFlush(w.ctx).Err())
}

// leaseOver says whether the lease of the fence that a script names is over, by
// Redis' own time. The caller has the turn.
func (w *world) leaseOver(args []string) bool {
	until, err := strconv.ParseInt(w.redis.HGet(args[3], "lease"), 10, 64)
	return err == nil && time.Now().UnixMilli() >= until
}

// beforeLastAcquisition is Redis as it was then, nil when that is not known,
// and how often Redis had been changed.
func (w *world) beforeLastAcquisition() (*snapshot, int) {
	w.redisTurn.Lock()
	defer w.redisTurn.Unlock()
	if n := len(w.acquisitions); n > 0 {
		return w.acquisitions[n-1], w.changes
	}
	return nil, w.changes
}

// script notes what a script did, and finds scripts that were accepted from
// anybody but the latest acquirer (I7). It says whether it was accepted.
func (t *watch) script(s step, args []string, reply []byte) bool {
	n, err := strconv.Atoi(args[2])
	if err != nil || len(args) < 5+n {
		return false
	}
	fence, argv := args[3], args[3+n:]
	yes := bytes.HasPrefix(reply, []byte("*")) && bytes.Contains(reply[:min(len(reply), 16)], []byte("\r\n:1\r\n"))
	t.mu.Lock()
	defer t.mu.Unlock()
	if s == acquire {
		if reply[0] != '*' {
			return false // an error
		}
		epoch := fenceEpoch(reply)
		if before := t.owners[fence]; epoch <= before.epoch {
			t.violation("%s: acquired with epoch %d, was %d", fence, epoch, before.epoch)
		}
		t.owners[fence] = owned{owner: argv[0], epoch: epoch}
		return true
	}
	if !yes {
		if bytes.HasPrefix(reply, []byte("*1\r\n:0")) || bytes.HasPrefix(reply, []byte("*1\r\n:3")) {
			t.rejected++
		}
		return false
	}
	t.accepted[s]++
	if s == raise && argv[4] != "loading" && !t.branched() {
		t.violation("%s: rebuilt from nothing although Redis never left its branch", fence)
	}
	if o := t.owners[fence]; o.owner != argv[1] || strconv.FormatUint(o.epoch, 10) != argv[0] {
		t.violation("%s: %s accepted from epoch %s owner %.8s, the latest acquirer is epoch %d owner %.8s", fence, s, argv[0], argv[1], o.epoch, o.owner)
	}
	return true
}

// fenceEpoch finds the epoch in the reply of the acquire script.
func fenceEpoch(reply []byte) uint64 {
	_, rest, _ := bytes.Cut(reply, []byte("\r\nepoch\r\n$"))
	_, rest, _ = bytes.Cut(rest, []byte("\r\n"))
	text, _, _ := strings.Cut(string(rest[:min(len(rest), 24)]), "\r\n")
	n, _ := strconv.ParseUint(text, 10, 64)
	return n
}

func (t *watch) refused() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.rejected
}

func (t *watch) branch() map[string]owned {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.owners)
}

func (t *watch) goBack(to map[string]owned) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.owners = maps.Clone(to)
	if t.owners == nil {
		t.owners = map[string]owned{}
	}
}

func newRedis() *miniredis.Miniredis { return miniredis.NewMiniRedis() }
