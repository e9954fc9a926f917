package simulation

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// host is the machine of one instance, as its network sees it. Every
// connection goes through a link, which knows each request and each reply.
type host struct {
	w    *world
	name string

	mu      sync.Mutex
	dead    bool          // crashed: nothing goes in or out any more
	stalled chan struct{} // while paused: closed when the pause ends
	links   map[*link]struct{}
	skew    time.Duration // of its clock
}

// errDown is what a crashed machine's connections give.
var errDown = errors.New("simulation: the machine is down")

// now is the machine's wall clock.
func (h *host) now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Now().Add(h.skew)
}

// flow waits while the machine is paused. It returns an error when the machine
// is down.
func (h *host) flow(ctx context.Context) error {
	for {
		h.mu.Lock()
		dead, stalled := h.dead, h.stalled
		h.mu.Unlock()
		switch {
		case dead:
			return errDown
		case stalled == nil:
			return nil
		}
		select {
		case <-stalled:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// crash takes the machine off the network for ever.
func (h *host) crash() {
	h.mu.Lock()
	h.dead = true
	if h.stalled != nil {
		close(h.stalled)
		h.stalled = nil
	}
	h.mu.Unlock()
	h.cut(func(*link) bool { return true })
}

// pause stalls every connection of the machine: what is under way arrives when
// it ends, also where the client has long given up.
func (h *host) pause(d time.Duration) {
	h.mu.Lock()
	if h.dead || h.stalled != nil {
		h.mu.Unlock()
		return
	}
	c := make(chan struct{})
	h.stalled = c
	h.mu.Unlock()
	h.w.after(d, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.stalled == c {
			close(c)
			h.stalled = nil
		}
	})
}

// cut closes connections.
func (h *host) cut(which func(*link) bool) {
	h.mu.Lock()
	var ls []*link
	for l := range h.links {
		if which(l) {
			ls = append(ls, l)
		}
	}
	h.mu.Unlock()
	for _, l := range ls {
		l.close()
	}
}

// link is one connection: near is the instance's end, far the service's.
type link struct {
	h         *host
	near, far net.Conn
	kafka     bool

	mu      sync.Mutex // of what follows, and of writing to near
	pending []*pending // Kafka requests without a reply, in order
	gone    bool       // the instance closed its end
}

func (l *link) close() {
	l.near.Close()
	l.far.Close()
	l.h.mu.Lock()
	delete(l.h.links, l)
	l.h.mu.Unlock()
}

// dial opens a connection whose requests are steps.
func (h *host) dial(ctx context.Context, kafka bool, far func() (net.Conn, error)) (net.Conn, error) {
	if err := h.flow(ctx); err != nil {
		return nil, err
	}
	server, err := far()
	if err != nil {
		return nil, err
	}
	client, near := net.Pipe()
	l := &link{h: h, near: near, far: server, kafka: kafka}
	h.mu.Lock()
	h.links[l] = struct{}{}
	h.mu.Unlock()
	if kafka {
		go l.kafkaRequests()
		go l.kafkaReplies()
	} else {
		go l.redisCommands()
	}
	return client, nil
}

// --- Redis ---

// redisCommands carries commands one by one: a command and its reply are one
// step of the world, so that the order in which scripts ran is known.
func (l *link) redisCommands() {
	defer l.close()
	in, out := bufio.NewReader(l.near), bufio.NewReader(l.far)
	var cmd command
	var reply []byte
	for {
		if err := cmd.read(in); err != nil {
			return
		}
		s := redisStep(cmd.args, cmd.last)
		f := l.h.w.step(l.h, s)
		if f != nil && f.before(l) {
			return
		}
		if l.h.flow(context.Background()) != nil {
			return
		}
		reply = reply[:0]
		if text := l.h.w.refusal(s, f); text != "" {
			reply = append(append(append(reply, '-'), text...), "\r\n"...)
		} else {
			var err error
			if reply, err = l.h.w.execute(l.far, out, &cmd, s, f, reply); err != nil {
				return
			}
		}
		if f != nil && f.after(l) {
			return
		}
		if l.h.flow(context.Background()) != nil {
			return
		}
		if _, err := l.near.Write(reply); err != nil {
			return
		}
	}
}

// execute lets Redis run a command, and notes who was accepted.
func (w *world) execute(far io.Writer, out *bufio.Reader, cmd *command, s step, f *fault, reply []byte) ([]byte, error) {
	w.redisTurn.Lock()
	defer w.redisTurn.Unlock()
	var current *snapshot
	if f != nil && f.kind == staleAnswer && len(w.past) > 0 {
		current = w.take()
		w.show(w.past[max(0, len(w.past)-1-int(f.choice%3))])
	}
	if s == acquire {
		w.acquisitions = append(w.acquisitions[max(0, len(w.acquisitions)-1):], w.take())
	}
	over := s.writes() && s != acquire && w.leaseOver(cmd.args)
	if _, err := far.Write(cmd.raw); err != nil {
		return nil, err
	}
	reply, err := appendReply(reply, out)
	if err == nil && s != other {
		if w.watch.script(s, cmd.args, reply) && over {
			w.watch.fail("%s: %s accepted although the lease is over", cmd.args[3], s)
		}
		switch {
		case current != nil:
			w.show(current)
		case s.writes():
			w.remember()
		}
	}
	return reply, err
}

// command is one RESP command: its bytes, its first arguments and its last.
type command struct {
	raw  []byte
	args []string
	last string
}

func (c *command) read(r *bufio.Reader) error {
	c.raw, c.args, c.last = c.raw[:0], c.args[:0], ""
	n, err := c.length(r, '*')
	if err != nil {
		return err
	}
	for i := range n {
		size, err := c.length(r, '$')
		if err != nil {
			return err
		}
		at := len(c.raw)
		c.raw = append(c.raw, make([]byte, size+2)...)
		if _, err := io.ReadFull(r, c.raw[at:]); err != nil {
			return err
		}
		if i < 12 {
			c.args = append(c.args, string(c.raw[at:at+size]))
		}
		if i == n-1 {
			c.last = string(c.raw[at : at+size])
		}
	}
	return nil
}

func (c *command) length(r *bufio.Reader, mark byte) (int, error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	c.raw = append(c.raw, line...)
	if len(line) < 4 || line[0] != mark {
		return 0, fmt.Errorf("not a command: %q", line)
	}
	return strconv.Atoi(string(line[1 : len(line)-2]))
}

// appendReply reads one reply, RESP2 or RESP3.
func appendReply(b []byte, r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return b, err
	}
	b = append(b, line...)
	kind := line[0]
	switch kind {
	case '$', '=', '!', '*', '~', '>', '%', '|':
	default:
		return b, nil
	}
	n, err := strconv.Atoi(string(line[1 : len(line)-2]))
	if err != nil || n < 0 {
		return b, err
	}
	switch kind {
	case '$', '=', '!':
		at := len(b)
		b = append(b, make([]byte, n+2)...)
		_, err := io.ReadFull(r, b[at:])
		return b, err
	case '%', '|':
		n *= 2
	}
	for range n {
		if b, err = appendReply(b, r); err != nil {
			return b, err
		}
	}
	return b, nil
}

func hashOf(script string) string {
	h := sha1.Sum([]byte(script))
	return hex.EncodeToString(h[:])
}

// --- Kafka ---

// pending is a request whose reply has not come.
type pending struct {
	corr  int32
	req   kmsg.Request // parsed, for the requests that are watched
	fault *fault
	lie   []byte // the reply, where it is not the broker's
	ready []byte // the reply that may be handed out
}

func readFrame(r io.Reader, b []byte) ([]byte, error) {
	b = append(b[:0], 0, 0, 0, 0)
	if _, err := io.ReadFull(r, b); err != nil {
		return b, err
	}
	n := int(binary.BigEndian.Uint32(b))
	b = append(b, make([]byte, n)...)
	_, err := io.ReadFull(r, b[4:])
	return b, err
}

// parseRequest reads the requests that can be steps.
func parseRequest(frame []byte) (key int16, corr int32, req kmsg.Request) {
	r := kbin.Reader{Src: frame[4:]}
	key = r.Int16()
	version := r.Int16()
	corr = r.Int32()
	switch kmsg.Key(key) {
	case kmsg.Produce, kmsg.Fetch, kmsg.ListOffsets, kmsg.JoinGroup, kmsg.SyncGroup, kmsg.Heartbeat, kmsg.InitProducerID, kmsg.AddPartitionsToTxn, kmsg.EndTxn:
	default:
		return key, corr, nil
	}
	r.NullableString() // client ID
	req = kmsg.RequestForKey(key)
	req.SetVersion(version)
	if req.IsFlexible() {
		kmsg.SkipTags(&r)
	}
	if r.Complete() != nil && len(r.Src) == 0 || req.ReadFrom(r.Src) != nil {
		return key, corr, nil
	}
	return key, corr, req
}

func frameOf(corr int32, resp kmsg.Response) []byte {
	b := binary.BigEndian.AppendUint32(nil, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(corr))
	if resp.IsFlexible() {
		b = append(b, 0)
	}
	b = resp.AppendTo(b)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

// kafkaRequests carries requests to the broker.
func (l *link) kafkaRequests() {
	in := bufio.NewReader(l.near)
	var frame []byte
	var topic string // of the last fetch
	defer func() {
		// What was sent before the end of the connection still arrives, and is
		// answered to nobody.
		l.mu.Lock()
		l.gone = true
		idle := len(l.pending) == 0
		l.mu.Unlock()
		if idle {
			l.close()
		}
	}()
	for {
		var err error
		if frame, err = readFrame(in, frame); err != nil {
			return
		}
		_, corr, req := parseRequest(frame)
		p := &pending{corr: corr}
		if req != nil {
			s := l.h.w.kafkaStep(req, &topic)
			time.Sleep(l.h.w.delay(s))
			if p.fault = l.h.w.step(l.h, s); p.fault != nil {
				if p.fault.before(l) {
					l.close()
					return
				}
			}
			if resp := l.h.w.answer(req, p.fault); resp != nil {
				if p.lie = frameOf(corr, resp); !p.fault.executes() {
					p.ready = p.lie
				}
			}
			switch req.(type) {
			case *kmsg.InitProducerIDRequest, *kmsg.ProduceRequest, *kmsg.EndTxnRequest:
				p.req = req
			}
		}
		if l.h.flow(context.Background()) != nil {
			return
		}
		l.mu.Lock()
		l.pending = append(l.pending, p)
		l.mu.Unlock()
		if p.ready != nil {
			l.deliver()
			continue
		}
		if _, err := l.far.Write(frame); err != nil {
			l.close()
			return
		}
	}
}

// deliver hands out the replies at the head of the queue that are ready: a
// broker answers in order.
func (l *link) deliver() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.pending) > 0 && l.pending[0].ready != nil {
		p := l.pending[0]
		l.pending = l.pending[1:]
		if !l.gone {
			if _, err := l.near.Write(p.ready); err != nil {
				l.gone = true
			}
		}
	}
}

// kafkaReplies carries replies to the instance.
func (l *link) kafkaReplies() {
	defer l.close()
	out := bufio.NewReader(l.far)
	for {
		frame, err := readFrame(out, nil)
		if err != nil {
			return
		}
		corr := int32(binary.BigEndian.Uint32(frame[4:]))
		l.mu.Lock()
		var p *pending
		for _, q := range l.pending {
			if q.corr == corr {
				p = q
			}
		}
		l.mu.Unlock()
		if p == nil {
			return
		}
		if p.req != nil {
			l.h.w.watch.reply(p.req, frame)
		}
		if p.fault != nil && p.fault.after(l) {
			return
		}
		if l.h.flow(context.Background()) != nil {
			return
		}
		l.mu.Lock()
		if p.ready = frame; p.lie != nil {
			p.ready = p.lie
		}
		l.mu.Unlock()
		l.deliver()
		l.mu.Lock()
		over := l.gone && len(l.pending) == 0
		l.mu.Unlock()
		if over {
			return
		}
	}
}
