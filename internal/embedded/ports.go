package embedded

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// A free port is taken from below the ranges that Linux (32768 and up) and
// macOS (49152 and up) give to outgoing connections: a client that dials a
// stopped service there could be connected to itself.
const (
	firstPort = 20000
	portCount = 10000
)

// ports are those to try first, in order; 0 is skipped.
type ports [2]int

// listen takes the first of the ports that is free, else any free one.
func (p ports) listen() (net.Listener, error) {
	var last error
	for try := range 200 {
		port := firstPort + rand.IntN(portCount)
		if try < len(p) {
			if port = p[try]; port == 0 {
				continue
			}
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return l, nil
		}
		last = err
	}
	return nil, fmt.Errorf("finding a free port: %w", last)
}

// free finds a port for a process that opens it itself. Another could take it
// in between.
func (p ports) free() (int, error) {
	l, err := p.listen()
	if err != nil {
		return 0, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}

// errPortTaken: another process was faster than the one that was given a free
// port.
var errPortTaken = errors.New("the port is taken")
