package clerkapi_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkapi"
)

// TestCreateFaults has a row for each failure and for the error that the service gets. The
// service distinguishes four kinds: refused (a 4xx that names the person), look again
// (duplicate_record, form_identifier_exists), fault (any other 4xx, or NotSent), and uncertain.
func TestCreateFaults(t *testing.T) {
	t.Parallel()
	type want struct {
		status     int
		code       string
		notSent    bool
		retryAfter time.Duration
		meta       map[string]any
		is         error // in the chain
		text       string
	}
	// A peer is a server with a fixed response, a server that handles the raw connection, or a
	// dial that fails.
	type peer struct {
		url string
		hc  *http.Client
	}
	at := func(status int, body string, header ...string) peer {
		return peer{url: answer(t, status, body, header...).URL}
	}
	conn := func(h func(net.Conn)) peer { return peer{url: listen(t, h)} }
	through := func(url string, change func(*http.Transport)) peer {
		tr := newTransport(t)
		change(tr)
		return peer{url, &http.Client{Transport: tr}}
	}
	dial := func(f func(context.Context) (net.Conn, error)) peer {
		return through("http://clerk.test", func(tr *http.Transport) {
			tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return f(ctx) }
		})
	}
	cut := func(status int, body string) peer {
		return conn(func(c net.Conn) {
			if readRequest(c) == nil {
				_, _ = fmt.Fprintf(c, "HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: 5000\r\nRetry-After: 3\r\n\r\n%s", status, body)
			}
			_ = c.Close()
		})
	}
	// The system never gives port 1 to a server that asks for a free port.
	const nothingListens = "http://127.0.0.1:1"
	proxy := answer(t, http.StatusProxyAuthRequired, "no")
	for _, tc := range []struct {
		name string
		peer peer
		want want
	}{
		// Not sent.
		{"dial refused", peer{url: nothingListens}, want{notSent: true, is: syscall.ECONNREFUSED}},
		{"unknown host", dial(func(context.Context) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "clerk.test", IsNotFound: true}}
		}), want{notSent: true, text: "no such host"}},
		{"certificate unknown", peer{url: tlsServer(t).URL}, want{notSent: true, text: "certificate"}},
		{"proxy refuses", through("https://clerk.test", func(tr *http.Transport) {
			tr.Proxy = func(r *http.Request) (*url.URL, error) {
				return r.URL.Parse(strings.Replace(proxy.URL, "://", "://user:pw@", 1))
			}
		}), want{notSent: true, text: "Proxy Authentication Required"}},

		// Uncertain.
		{"reset before the request was read", conn(func(c net.Conn) { firstByte(c); reset(c) }), want{}},
		{"closed before the request was read", conn(func(c net.Conn) { firstByte(c); _ = c.Close() }), want{}},
		{"reset after the request was read", conn(func(c net.Conn) { _ = readRequest(c); reset(c) }), want{}},
		{"closed after the request was read", conn(func(c net.Conn) { _ = readRequest(c); _ = c.Close() }), want{is: io.EOF}},
		{"not HTTP", conn(func(c net.Conn) { _ = readRequest(c); _, _ = io.WriteString(c, "SSH-2.0-x\r\n"); _ = c.Close() }), want{text: "malformed"}},
		{"body cut", cut(200, anInv[:30]), want{status: 200, is: io.ErrUnexpectedEOF, retryAfter: 3 * time.Second}},
		{"body not JSON", at(200, "<html>"), want{status: 200, text: "cannot be read"}},
		{"body truncated JSON", at(200, anInv[:60]), want{status: 200, text: "cannot be read"}},
		{"body null", at(200, "null"), want{status: 200, text: "cannot be read"}},
		{"body empty object", at(200, "{}"), want{status: 200, text: "cannot be read"}},
		{"body empty", at(200, ""), want{status: 200, text: "empty"}},
		{"body huge", at(200, strings.Repeat(" ", 3<<20)), want{status: 200, text: "larger"}},
		{"moved", at(301, anInv, "Location", "/v1/x"), want{status: 301}},
		{"temporary redirect", at(307, "", "Location", "/v1/x"), want{status: 307}},
		{"request timeout", at(408, ""), want{status: 408}},
		{"HTML 502", at(502, "<html>bad gateway</html>"), want{status: 502}},
		{"JSON 500", at(500, clerkError("internal_clerk_error", "")), want{status: 500, code: "internal_clerk_error"}},
		{"503 with Retry-After", at(503, "", "Retry-After", "30"), want{status: 503, retryAfter: 30 * time.Second}},
		{"522 of the CDN", at(522, "<html>"), want{status: 522}},

		// Clerk rejected the request.
		{"key refused", at(401, clerkError("clerk_key_invalid", "")), want{status: 401, code: "clerk_key_invalid"}},
		{"blocked by the CDN", at(403, "<html>Attention Required! | Cloudflare</html>", "Cf-Ray", "8f"), want{status: 403}},
		{"429", at(429, clerkError("too_many_requests", ""), "Retry-After", "1800"), want{status: 429, code: "too_many_requests", retryAfter: 30 * time.Minute}},
		{"429 without Retry-After", at(429, clerkError("too_many_requests", "")), want{status: 429, code: "too_many_requests"}},
		{"429 of the CDN", at(429, "<html>", "Retry-After", "10"), want{status: 429, retryAfter: 10 * time.Second}},
		{"4xx cut", cut(422, `{"errors":[{"code":"form_`), want{status: 422, retryAfter: 3 * time.Second, is: io.ErrUnexpectedEOF}},
		{"address refused", at(422, clerkError("form_param_format_invalid", `{"param_name":"email_address"}`)),
			want{status: 422, code: "form_param_format_invalid", meta: map[string]any{"param_name": "email_address"}}},
		{"address not allowed", at(403, clerkError("not_allowed_access", `{"identifiers":["`+email+`"]}`)),
			want{status: 403, code: "not_allowed_access", meta: map[string]any{"identifiers": []any{email}}}},
		{"redirect_url refused", at(422, clerkError("form_param_value_invalid", `{"param_name":"redirect_url"}`)),
			want{status: 422, code: "form_param_value_invalid", meta: map[string]any{"param_name": "redirect_url"}}},
		{"already invited", at(400, clerkError("duplicate_record", `{"email_addresses":["`+email+`"]}`)),
			want{status: 400, code: "duplicate_record", meta: map[string]any{"email_addresses": []any{email}}}},
		{"user exists", at(422, clerkError("form_identifier_exists", `{"param_name":"email_address"}`)),
			want{status: 422, code: "form_identifier_exists", meta: map[string]any{"param_name": "email_address"}}},
		{"organization full", at(403, clerkError("organization_membership_quota_exceeded", "")), want{status: 403, code: "organization_membership_quota_exceeded"}},
		{"seats of a plan used", at(402, clerkError("insufficient_seats", `{"seats_quantity":5}`)),
			want{status: 402, code: "insufficient_seats", meta: map[string]any{"seats_quantity": 5.0}}},
		{"organization unknown", at(404, clerkError("organization_not_found_or_unauthorized", "")), want{status: 404, code: "organization_not_found_or_unauthorized"}},
		{"email limit of a development instance", at(400, clerkError("dev_monthly_email_limit_exceeded", `{"limit":100}`)),
			want{status: 400, code: "dev_monthly_email_limit_exceeded", meta: map[string]any{"limit": 100.0}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := newClient(t, tc.peer.url, clerkapi.Options{HTTPClient: tc.peer.hc})
			for _, m := range creates {
				v, err := m.call(t.Context(), c)
				api := apiError(t, err)
				assert.Nil(t, v)
				assert.Equal(t, tc.want.status, api.StatusCode, "status")
				assert.Equal(t, tc.want.code, api.Code, "code")
				assert.Equal(t, tc.want.notSent, api.NotSent, "not sent")
				assert.Equal(t, tc.want.retryAfter, api.RetryAfter, "retry after")
				assert.Equal(t, tc.want.meta, api.Meta, "meta")
				assert.False(t, timedOut(err))
				assert.Equal(t, tc.want.code == "", api.Err != nil, "Err is set unless Clerk sent an error")
				requireNotCallers(t, err)
				if tc.want.is != nil {
					require.ErrorIs(t, err, tc.want.is)
				}
				require.ErrorContains(t, err, tc.want.text)
			}
		})
	}
}

// TestCreateTimeouts has the failures that only a time limit ends.
func TestCreateTimeouts(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		base    string
		dial    func(context.Context, string, string) (net.Conn, error)
		peer    func(net.Conn)
		status  int
		notSent bool
		says    string
	}{
		{name: "dial", notSent: true, says: "Options.CreateTimeout", dial: func(context.Context, string, string) (net.Conn, error) {
			time.Sleep(time.Minute)
			return nil, io.EOF
		}},
		{name: "dialer's own limit", notSent: true, says: "i/o timeout", dial: func(context.Context, string, string) (net.Conn, error) {
			time.Sleep(time.Second)
			return nil, &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}
		}},
		{name: "TLS handshake", base: "https://clerk.test/v1", peer: hang, notSent: true, says: "TLS handshake timeout"},
		{name: "request is not read", peer: func(c net.Conn) { time.Sleep(time.Minute); _ = c.Close() }, says: "Options.CreateTimeout"},
		{name: "no header", peer: func(c net.Conn) { _ = readRequest(c); hang(c) }, says: "Options.CreateTimeout"},
		{name: "no body", peer: func(c net.Conn) {
			_ = readRequest(c)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{")
			hang(c)
		}, status: 200, says: "Options.CreateTimeout"},
		{name: "no body of an error", peer: func(c net.Conn) {
			_ = readRequest(c)
			_, _ = io.WriteString(c, "HTTP/1.1 422 X\r\nContent-Length: 5000\r\n\r\n{")
			hang(c)
		}, status: 422, says: "Options.CreateTimeout"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				tr := &http.Transport{TLSHandshakeTimeout: 10 * time.Second}
				o := clerkapi.Options{BaseURL: tc.base, HTTPClient: &http.Client{Transport: tr}}
				c := pipeClient(t, o, tc.peer)
				if tc.dial != nil {
					tr.DialContext = tc.dial
					o.BaseURL = "http://clerk.test"
					var err error
					c, err = clerkapi.New(key, &o)
					require.NoError(t, err)
				}
				_, err := create(t, c)
				api := apiError(t, err)
				require.Equal(t, tc.status, api.StatusCode)
				require.Equal(t, tc.notSent, api.NotSent)
				require.True(t, timedOut(err))
				require.ErrorContains(t, err, tc.says)
				requireNotCallers(t, err)
				time.Sleep(time.Hour) // ends the remaining goroutines
			})
		})
	}
}

func TestResponseWithSeveralErrors(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, body, code string
		meta             map[string]any
	}{
		{"the first error counts", clerkError("form_param_value_invalid", `{"param_name":"redirect_url"}`, "not_allowed_access", `{"identifiers":["a@b.co"]}`),
			"form_param_value_invalid", map[string]any{"param_name": "redirect_url"}},
		{"a duplicate takes precedence", clerkError("form_param_value_invalid", `{"param_name":"email_address"}`, "x", "", "duplicate_record", `{"email_addresses":["a@b.co"]}`),
			"duplicate_record", map[string]any{"email_addresses": []any{"a@b.co"}}},
		{"an existing user takes precedence", clerkError("form_param_value_invalid", `{"param_name":"email_address"}`, "form_identifier_exists", ""), "form_identifier_exists", nil},
		{"one error per address", clerkError("duplicate_record", `{"email_addresses":["a@b.co"]}`, "duplicate_record", `{"email_addresses":"c@d.co"}`, "x", `{"email_addresses":["e@f.co"]}`),
			"duplicate_record", map[string]any{"email_addresses": []any{"a@b.co", "c@d.co"}}},
		{"a duplicate in an organization takes precedence", clerkError("form_param_value_invalid", `{"param_name":"role"}`, "organization_invitation_not_unique", `{"email_addresses":["a@b.co"]}`),
			"organization_invitation_not_unique", map[string]any{"email_addresses": []any{"a@b.co"}}},
		{"a member of the organization takes precedence", clerkError("form_param_value_invalid", `{"param_name":"role"}`, "already_a_member_in_organization", ""), "already_a_member_in_organization", nil},
		{"a full organization does not", clerkError("form_param_value_invalid", `{"param_name":"role"}`, "organization_membership_quota_exceeded", ""),
			"form_param_value_invalid", map[string]any{"param_name": "role"}},
		{"meta of the response", `{"errors":[{"code":"x"}],"meta":{"a":1}}`, "x", map[string]any{"a": 1.0}},
		{"fields of other types", `{"errors":["?",{"code":"duplicate_record","message":7,"meta":[]}],"meta":"?","clerk_trace_id":7}`, "duplicate_record", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := create(t, newClient(t, answer(t, 422, tc.body).URL, clerkapi.Options{}))
			api := apiError(t, err)
			require.Equal(t, tc.code, api.Code)
			require.Equal(t, tc.meta, api.Meta)
			require.NoError(t, api.Err)
		})
	}
}

func TestCreateIsSentOnceOnReusedConnection(t *testing.T) {
	t.Parallel()
	var sent atomic.Int32
	url := listen(t, func(c net.Conn) {
		defer func() { _ = c.Close() }()
		in := bufio.NewReader(c)
		for {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, r.Body)
			if r.Method != http.MethodGet {
				sent.Add(1)
				return // after the request, before a response
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")
		}
	})
	c := newClient(t, url, clerkapi.Options{})
	for n, m := range changes {
		reused := false
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }})
		_, err := c.ListInvitations(ctx, clerkinvite.InvitationQuery{}) // leaves an idle connection
		require.NoError(t, err)
		_, err = m.call(ctx, c)
		require.True(t, reused, "the caller's trace still works")
		require.False(t, apiError(t, err).NotSent)
		require.EqualValues(t, n+1, sent.Load(), m.name)
	}
}

// net/http retries an HTTP/2 request after these resets if it can read the body again, although
// the server may have served it before PROTOCOL_ERROR.
func TestCreateIsSentOnceOverHTTP2(t *testing.T) {
	t.Parallel()
	for _, code := range []http2.ErrCode{http2.ErrCodeProtocol, http2.ErrCodeRefusedStream, http2.ErrCodeInternal} {
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			var sent atomic.Int32
			withTLS := tlsServer(t)
			cfg := withTLS.TLS.Clone()
			cfg.NextProtos = []string{"h2"}
			url := listen(t, func(c net.Conn) {
				defer func() { _ = c.Close() }()
				resetStreams(tls.Server(c, cfg), code, &sent)
			})
			tr := newTransport(t)
			tr.TLSClientConfig = withTLS.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
			c := newClient(t, strings.Replace(url, "http:", "https:", 1), clerkapi.Options{HTTPClient: &http.Client{Transport: tr}})
			for n, m := range changes {
				_, err := m.call(t.Context(), c)
				require.False(t, apiError(t, err).NotSent, "%v", err)
				require.EqualValues(t, n+1, sent.Load(), m.name)
			}
		})
	}
}

// resetStreams reads HTTP/2 requests from c, counts them and resets their streams.
func resetStreams(c net.Conn, code http2.ErrCode, n *atomic.Int32) {
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(c, preface); err != nil {
		return
	}
	f := http2.NewFramer(c, c)
	_ = f.WriteSettings()
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				_ = f.WriteSettingsAck()
			}
		case *http2.DataFrame:
			if frame.StreamEnded() {
				n.Add(1)
				_ = f.WriteRSTStream(frame.StreamID, code)
			}
		}
	}
}

func TestHTTP2Works(t *testing.T) {
	t.Parallel()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			w.WriteHeader(http.StatusHTTPVersionNotSupported)
		}
		reply(w, 200, anInv)
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	_, err := create(t, newClient(t, srv.URL, clerkapi.Options{HTTPClient: srv.Client()}))
	require.NoError(t, err)
}

func TestTLSErrorsKeepTheirType(t *testing.T) {
	t.Parallel()
	_, err := create(t, newClient(t, tlsServer(t).URL, clerkapi.Options{}))
	var unknown x509.UnknownAuthorityError
	require.ErrorAs(t, err, &unknown)
}

func TestLookUpRetries(t *testing.T) {
	t.Parallel()
	const once, thrice = 1, 3
	for _, tc := range []struct {
		name   string
		status int
		body   string
		header []string
		want   int
	}{
		{"500", 500, clerkError("internal_clerk_error", ""), nil, thrice},
		{"502 of a proxy", 502, "<html>", nil, thrice},
		{"503", 503, "", nil, thrice},
		{"409 lock", 409, clerkError("resource_locked", ""), nil, thrice},
		{"409 conflict", 409, clerkError("conflict", ""), nil, thrice},
		{"409 other", 409, clerkError("already_locked", ""), nil, once},
		{"503 with Retry-After", 503, "", []string{"Retry-After", "1"}, once},
		{"429", 429, "", nil, once}, // left to the service
		{"401", 401, clerkError("clerk_key_invalid", ""), nil, once},
		{"400", 400, "", nil, once},
		{"301", 301, "", nil, once},
		{"unreadable", 200, "<html>", nil, once},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			for _, m := range methods {
				f := answer(t, tc.status, tc.body, tc.header...)
				_, err := m.call(t.Context(), newClient(t, f.URL, clerkapi.Options{}))
				require.Equal(t, tc.status, apiError(t, err).StatusCode)
				want := once
				if m.lookUp {
					want = tc.want
				}
				require.Len(t, f.requests(), want, m.name)
			}
		})
	}
	t.Run("until one succeeds", func(t *testing.T) {
		t.Parallel()
		for _, m := range lookUps {
			f := serve(t, func(w http.ResponseWriter, _ *http.Request, n int) {
				switch n {
				case 1:
					panic(http.ErrAbortHandler)
				case 2:
					reply(w, 503, "")
				default:
					reply(w, 200, "[]")
				}
			})
			_, err := m.call(t.Context(), newClient(t, f.URL, clerkapi.Options{}))
			require.NoError(t, err)
			require.Len(t, f.requests(), thrice)
		}
	})
	t.Run("not beyond the caller's deadline", func(t *testing.T) {
		t.Parallel()
		f := answer(t, 503, "")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		c := newClient(t, f.URL, clerkapi.Options{})
		c.SetPause(time.Hour) // at least half an hour
		_, err := lookUps[0].call(ctx, c)
		require.Equal(t, 503, apiError(t, err).StatusCode)
		requireNotCallers(t, err)
		require.Len(t, f.requests(), 1)
	})
	t.Run("canceled in a pause", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		f := answer(t, 503, "")
		c := newClient(t, f.URL, clerkapi.Options{})
		c.SetPause(time.Hour)
		// The connection becomes idle before the pause begins.
		traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{PutIdleConn: func(error) { cancel() }})
		_, err := lookUps[0].call(traced, c)
		apiError(t, err)
		require.ErrorIs(t, err, context.Canceled)
		require.Len(t, f.requests(), 1)
	})
}

// tlsServer starts a server with an untrusted certificate.
func tlsServer(t testing.TB) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.Config.ErrorLog = quiet
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv
}

// firstByte reads the first byte of a request. An earlier reset could fail the dial, and then
// nothing would be sent.
func firstByte(c net.Conn) { _, _ = c.Read(make([]byte, 1)) }

// readRequest reads one request from c, with its body.
func readRequest(c net.Conn) error {
	r, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r.Body)
	return err
}
