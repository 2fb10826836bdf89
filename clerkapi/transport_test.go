package clerkapi_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkapi"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// proxy connects clients to a server, until it goes deaf: then it still takes what is sent on the connections that exist, and
// passes nothing on, as a router that has forgotten them.
type proxy struct {
	server      testkit.Pipes
	deaf        atomic.Pointer[atomic.Bool] // of the newest connection
	connections atomic.Int32
}

func (p *proxy) dial(context.Context, string, string) (net.Conn, error) {
	client, near := net.Pipe()
	far, server := net.Pipe()
	p.server <- server
	deaf := new(atomic.Bool)
	p.deaf.Store(deaf)
	p.connections.Add(1)
	for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
		go func() {
			defer func() { _, _ = way[0].Close(), way[1].Close() }()
			buffer := make([]byte, 32<<10)
			for {
				n, err := way[0].Read(buffer)
				if err != nil {
					return
				}
				if !deaf.Load() {
					_, _ = way[1].Write(buffer[:n])
				}
			}
		}()
	}
	return client, nil
}

// A connection over HTTP/2 dies without a word. The default transport notices, for look-ups and for a create that waits. The test
// replaces http.DefaultTransport, so it runs alone.
func TestDefaultTransportNoticesDeadConnections(t *testing.T) {
	withTLS := tlsServer(t)
	original := http.DefaultTransport
	t.Cleanup(func() { http.DefaultTransport = original })
	synctest.Test(t, func(t *testing.T) {
		p := &proxy{server: make(testkit.Pipes)}
		cfg := withTLS.TLS.Clone()
		cfg.NextProtos = []string{"h2"}
		server := &http.Server{ErrorLog: quiet, TLSConfig: cfg, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.ProtoMajor != 2 {
				w.WriteHeader(http.StatusHTTPVersionNotSupported)
			}
			_, _ = io.WriteString(w, "[]")
		})}
		served := make(chan struct{})
		go func() { defer close(served); _ = server.ServeTLS(p.server, "", "") }()
		transport := original.(*http.Transport).Clone()
		transport.DialContext, transport.Proxy = p.dial, nil
		transport.TLSClientConfig = withTLS.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
		http.DefaultTransport = transport

		c, err := clerkapi.New(key, &clerkapi.Options{BaseURL: "https://example.com/v1"})
		require.NoError(t, err)
		find := func() error {
			_, err := c.FindUsers(t.Context(), clerkinvite.UserQuery{Emails: []string{email}})
			return err
		}
		require.NoError(t, find())
		require.NoError(t, find())
		require.EqualValues(t, 1, p.connections.Load())
		for range 3 { // after a time without requests, and while requests are made
			p.deaf.Load().Store(true)
			start := time.Now()
			for err := find(); err != nil && time.Since(start) < time.Hour; {
				err = find()
			}
			require.LessOrEqual(t, time.Since(start), time.Minute)
			require.NoError(t, find())
			time.Sleep(30 * time.Second)
			require.NoError(t, find())
		}
		require.EqualValues(t, 4, p.connections.Load(), "a connection that responds to pings stays")

		require.NoError(t, server.Close())
		<-served
		time.Sleep(time.Hour) // until the client has closed its connections
	})
}

// What a host has replaced http.DefaultTransport with is used unchanged.
func TestDefaultTransportOfTheHost(t *testing.T) {
	original := http.DefaultTransport
	t.Cleanup(func() { http.DefaultTransport = original })
	http.DefaultTransport = roundTripper(func(*http.Request) (*http.Response, error) { return ok(anInv), nil })
	c, err := clerkapi.New(key, nil)
	require.NoError(t, err)
	_, err = c.RevokeInvitation(t.Context(), clerkinvite.RevokeRequest{ID: "inv_1"})
	require.NoError(t, err)
}
