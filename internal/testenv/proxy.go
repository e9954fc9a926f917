package testenv

import (
	"io"
	"net"
	"sync"
)

// Proxy is an address that outlives the server behind it, as a virtual IP does:
// what its clients talk to moves when a replica is promoted. Its methods may be
// called from any goroutine.
type Proxy struct {
	listener net.Listener
	port     *port

	mu    sync.Mutex
	to    string
	open  map[net.Conn]struct{} // both ends of every connection
	ended bool
	work  sync.WaitGroup
}

// StartProxy listens on a free loopback port and forwards every connection to
// the address. The caller must call Stop.
func StartProxy(to string) (*Proxy, error) {
	reserved, err := reservePort()
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", reserved.addr())
	if err != nil {
		reserved.release()
		return nil, err
	}
	p := &Proxy{listener: listener, port: reserved, to: to, open: map[net.Conn]struct{}{}}
	p.work.Go(p.accept)
	return p, nil
}

// Addr is where clients connect.
func (p *Proxy) Addr() string { return p.port.addr() }

// Point sends new connections to another server. Open ones are cut, or stay
// with the server that they have: then its clients have not noticed the move,
// as happens with a primary that is cut off from its replicas but not from all
// of its clients.
func (p *Proxy) Point(to string, cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.to = to
	if cut {
		p.cut()
	}
}

// Cut ends all open connections.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut()
}

func (p *Proxy) cut() {
	for c := range p.open {
		c.Close()
	}
	clear(p.open)
}

// Stop cuts everything and returns when nothing is left of the proxy.
func (p *Proxy) Stop() {
	p.mu.Lock()
	p.ended = true
	p.listener.Close()
	p.cut()
	p.mu.Unlock()
	p.work.Wait()
	p.port.release()
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // stopped
		}
		p.work.Go(func() { p.forward(client) })
	}
}

// forward copies both ways until either end closes. A server that refuses
// looks to the client like one that closes at once.
func (p *Proxy) forward(client net.Conn) {
	defer client.Close()
	p.mu.Lock()
	to := p.to
	p.mu.Unlock()
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	if !p.track(to, client, server) {
		return
	}
	var both sync.WaitGroup
	carry := func(dst, src net.Conn) {
		_, _ = io.Copy(dst, src) // however it ends, the connection is over
		dst.Close()
		src.Close()
	}
	both.Go(func() { carry(server, client) })
	both.Go(func() { carry(client, server) })
	both.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, client)
	delete(p.open, server)
}

// track remembers a connection, unless the proxy has moved or ended meanwhile.
func (p *Proxy) track(to string, conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended || p.to != to {
		return false
	}
	for _, c := range conns {
		p.open[c] = struct{}{}
	}
	return true
}
