package testkit

import "net"

// Pipes is a net.Listener on net.Pipe, for servers inside a synctest bubble.
type Pipes chan net.Conn

// Accept returns the next connection that is sent.
func (p Pipes) Accept() (net.Conn, error) {
	if conn, ok := <-p; ok {
		return conn, nil
	}
	return nil, net.ErrClosed
}

// Close closes the channel.
func (p Pipes) Close() error { close(p); return nil }

// Addr returns an address for net/http.
func (p Pipes) Addr() net.Addr { return &net.TCPAddr{} }
