//go:build linux

package postgres_test

import (
	"bytes"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// fault is a way in which a connection fails.
type fault string

const (
	requestLost fault = "request lost" // the server never gets the request; the connection is reset
	answerLost  fault = "answer lost"  // the connection is reset after the server has handled the request
	reset       fault = "reset"        // the connection is reset as soon as the request is sent
	halfOpen    fault = "half-open"    // nothing arrives any more in either direction, without an error
	silent      fault = "silent"       // the server gets everything, but nothing comes back
)

var faults = []fault{requestLost, answerLost, reset, halfOpen, silent}

// keepAlive is how long the server takes to detect a connection that disappeared silently.
const keepAlive = time.Second

// proxy is the network between the library and a server.
type proxy struct {
	addr, upstream string
	// whole reports whether a response is complete.
	whole func(answer []byte) bool

	mu    sync.Mutex
	trap  *trap
	links map[*link]bool
	dark  bool // new connections get no response
}

// trap makes the next matching request fail.
type trap struct {
	fits   func(request []byte) bool
	fault  fault
	sprung chan struct{}
}

// link is one connection.
type link struct {
	client, server net.Conn
	fault          atomic.Pointer[fault]
	next           atomic.Pointer[fault] // of the next request
}

// newProxy makes a proxy in front of a server.
func newProxy(t *testing.T, upstream string, whole func([]byte) bool) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{addr: l.Addr().String(), upstream: upstream, whole: whole, links: make(map[*link]bool)}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { p.serve(client) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.all(reset)
		serving.Wait()
	})
	return p
}

// postgresAnswer detects ReadyForQuery, which follows the commit.
func postgresAnswer(b []byte) bool {
	return len(b) >= 6 && bytes.HasPrefix(b[len(b)-6:], []byte{'Z', 0, 0, 0, 5})
}

// httpAnswer detects a response, which follows the work.
func httpAnswer(b []byte) bool { return len(b) > 0 }

// arm sets a trap for the next request that contains all of the texts.
func (p *proxy) arm(f fault, texts ...string) *trap {
	t := &trap{fault: f, sprung: make(chan struct{}), fits: func(request []byte) bool {
		return !slices.ContainsFunc(texts, func(text string) bool { return !bytes.Contains(request, []byte(text)) })
	}}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trap = t
	return t
}

// all makes every connection fail: at its next request, or immediately if the fault needs no
// request.
func (p *proxy) all(f fault) {
	for _, l := range p.open() {
		switch f {
		case reset:
			l.cut()
		case halfOpen, silent:
			l.fault.Store(&f)
		default:
			l.next.Store(&f)
		}
	}
}

// darken makes new connections wait without a response until it is called again.
func (p *proxy) darken(dark bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dark = dark
}

func (p *proxy) open() (links []*link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		links = append(links, l)
	}
	return links
}

func (p *proxy) serve(client net.Conn) {
	server, err := net.Dial("tcp", p.upstream)
	if err != nil {
		_ = client.Close()
		return
	}
	l := &link{client: client, server: server}
	p.mu.Lock()
	p.links[l] = true
	if p.dark {
		f := halfOpen
		l.fault.Store(&f)
	}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.links, l)
		p.mu.Unlock()
		_ = client.Close()
		if f := l.fault.Load(); f != nil && (*f == halfOpen || *f == silent) {
			time.Sleep(keepAlive) // with its locks
		}
		_ = server.Close()
	}()
	var answers sync.WaitGroup
	answers.Go(func() { l.answers(p.whole) })
	l.requests(p)
	if f := l.fault.Load(); f == nil {
		_ = server.Close()
	}
	_ = client.Close()
	if f := l.fault.Load(); f != nil && (*f == halfOpen || *f == silent) {
		return // the server does not notice yet
	}
	answers.Wait()
}

// requests forwards what the client sends.
func (l *link) requests(p *proxy) {
	buf := make([]byte, 64<<10)
	for {
		n, err := l.client.Read(buf)
		if err != nil {
			return
		}
		request := buf[:n]
		f := l.fault.Load()
		if f == nil {
			if f = l.next.Load(); f == nil {
				f = p.spring(request)
			}
			if f != nil {
				l.fault.Store(f)
			}
		}
		switch {
		case f == nil:
		case *f == requestLost:
			l.cut()
			return
		case *f == halfOpen:
			continue
		}
		if _, err := l.server.Write(request); err != nil {
			return
		}
		if f != nil && *f == reset {
			l.cut()
			return
		}
	}
}

// spring returns the trap's fault if the request matches.
func (p *proxy) spring(request []byte) *fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.trap
	if t == nil || !t.fits(request) {
		return nil
	}
	p.trap = nil
	close(t.sprung)
	return &t.fault
}

// answers forwards what the server sends.
func (l *link) answers(whole func([]byte) bool) {
	buf := make([]byte, 64<<10)
	for {
		n, err := l.server.Read(buf)
		if n > 0 {
			f := l.fault.Load()
			switch {
			case f == nil:
				if _, err := l.client.Write(buf[:n]); err != nil {
					return
				}
			case *f == answerLost && whole(buf[:n]):
				l.cut()
				return
			}
		}
		if err != nil {
			if l.fault.Load() == nil {
				_ = l.client.Close() // the server closed it
			}
			return
		}
	}
}

// cut resets both ends.
func (l *link) cut() {
	for _, conn := range []net.Conn{l.client, l.server} {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
	}
}
