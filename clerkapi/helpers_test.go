package clerkapi_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkapi"
)

const (
	key    = "sk_test_AbCdEf0123456789"
	secret = "secret.person" // the local part of every address in these tests
	email  = secret + "+tag@example.com"
	anInv  = `{"object":"invitation","id":"inv_1","email_address":"secret.person+tag@example.com","public_metadata":{"a":[1, 2]},"status":"pending","revoked":false,"url":"https://clerk.example.com/v1/tickets/accept?ticket=t0k3n","expires_at":1790000000000,"created_at":1780000000123,"updated_at":1780000000123}`
)

// newClient returns a Client for the server at url, which has no /v1.
func newClient(t testing.TB, url string, o clerkapi.Options) *clerkapi.Client {
	t.Helper()
	o.BaseURL = url + "/v1"
	if o.HTTPClient == nil {
		o.HTTPClient = &http.Client{Transport: newTransport(t)}
	}
	c, err := clerkapi.New(key, &o)
	require.NoError(t, err)
	c.SetPause(time.Millisecond)
	return c
}

// newTransport returns a transport that shares no connections.
func newTransport(t testing.TB) *http.Transport {
	t.Helper()
	tr := &http.Transport{ForceAttemptHTTP2: true}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

var quiet = log.New(io.Discard, "", 0)

// seen is a request that a server received.
type seen struct {
	*http.Request
	Body string
}

// fake is a server that records its requests.
type fake struct {
	*httptest.Server
	mu  sync.Mutex
	got []seen
}

// requests returns the requests so far.
func (f *fake) requests() []seen {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]seen(nil), f.got...)
}

// serve starts a server that handles the n-th request (from 1) with h.
func serve(t testing.TB, h func(w http.ResponseWriter, r *http.Request, n int)) *fake {
	t.Helper()
	f := &fake{}
	f.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		f.mu.Lock()
		f.got = append(f.got, seen{r, string(body)})
		n := len(f.got)
		f.mu.Unlock()
		h(w, r, n)
	}))
	f.Config.ErrorLog = quiet
	f.Start()
	t.Cleanup(f.Close)
	return f
}

// answer starts a server that always sends the same response.
func answer(t testing.TB, status int, body string, header ...string) *fake {
	t.Helper()
	return serve(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
		reply(w, status, body, header...)
	})
}

// reply writes a response. header alternates names and values.
func reply(w http.ResponseWriter, status int, body string, header ...string) {
	for i := 0; i < len(header); i += 2 {
		w.Header().Set(header[i], header[i+1])
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

// clerkError returns an error body with one error for each pair of code and meta.
func clerkError(codeAndMeta ...string) string {
	var list []string
	for i := 0; i < len(codeAndMeta); i += 2 {
		e := `{"code":"` + codeAndMeta[i] + `","message":"short","long_message":"long, for ` + email + `"`
		if m := codeAndMeta[i+1]; m != "" {
			e += `,"meta":` + m
		}
		list = append(list, e+`}`)
	}
	return `{"errors":[` + strings.Join(list, ",") + `],"clerk_trace_id":"trace_body"}`
}

// orgInv is anInv as an invitation into an organization.
var orgInv = strings.NewReplacer(`"invitation"`, `"organization_invitation"`, "inv_1", "orginv_1", `"status"`, `"organization_id":"org_1","role":"org:member","status"`).Replace(anInv)

const membership = `{"object":"organization_membership","id":"orgmem_1","role":"org:member","organization":{"id":"org_1"},"public_user_data":{"user_id":"user_1"}}`

// method calls one method of the client with typical arguments. Its first result must be nil
// if the second is not.
type method struct {
	name   string
	lookUp bool
	reply  string // a successful response
	call   func(context.Context, *clerkapi.Client) (any, error)
}

// creates are the methods that can send an email.
var creates = []method{
	createOne("CreateInvitation", anInv, clerkinvite.InvitationRequest{Email: email}),
	createTwo("CreateInvitations", "["+anInv+"]", clerkinvite.InvitationRequest{Email: email}),
	createOne("CreateInvitation into an organization", orgInv, clerkinvite.InvitationRequest{Email: email, OrganizationID: "org_1", Role: "org:member"}),
	createTwo("CreateInvitations into an organization", `{"data":[`+orgInv+`],"total_count":1}`, clerkinvite.InvitationRequest{Email: email, OrganizationID: "org_1", Role: "org:member"}),
}

var revoke = revokeMethod("RevokeInvitation", anInv, clerkinvite.RevokeRequest{ID: "inv_1"})

// changes are the methods that are sent once.
var changes = append(slices.Clone(creates),
	revoke,
	revokeMethod("RevokeInvitation into an organization", orgInv, clerkinvite.RevokeRequest{ID: "orginv_1", OrganizationID: "org_1"}),
	method{"AddMember", false, membership, func(ctx context.Context, c *clerkapi.Client) (any, error) {
		err := c.AddMember(ctx, clerkinvite.Membership{OrganizationID: "org_1", UserID: "user_1", Role: "org:member"})
		return orNil("added", err != nil), err
	}},
	method{"RemoveMember", false, membership, func(ctx context.Context, c *clerkapi.Client) (any, error) {
		err := c.RemoveMember(ctx, clerkinvite.Membership{OrganizationID: "org_1", UserID: "user_1"})
		return orNil("removed", err != nil), err
	}},
)

// lookUps are the methods that are retried.
var lookUps = []method{
	{"FindUsers", true, "[]", func(ctx context.Context, c *clerkapi.Client) (any, error) {
		v, err := c.FindUsers(ctx, clerkinvite.UserQuery{Emails: []string{email}})
		return orNil(v, v == nil), err
	}},
	listMethod("ListInvitations", anInv, clerkinvite.InvitationQuery{Query: email}),
	listMethod("ListInvitations into an organization", orgInv, clerkinvite.InvitationQuery{Query: email, OrganizationID: "org_1"}),
	listMethod("ListInvitations into all organizations", orgInv, clerkinvite.InvitationQuery{Query: email, AllOrganizations: true}),
	{"FindMemberships", true, `{"data":[` + membership + `],"total_count":1}`, func(ctx context.Context, c *clerkapi.Client) (any, error) {
		v, err := c.FindMemberships(ctx, clerkinvite.MembershipQuery{OrganizationID: "org_1", UserIDs: []string{"user_1", "user_2"}})
		return orNil(v, v == nil), err
	}},
	{"OrganizationRoles", true, `{"data":[{"object":"role","key":"org:admin"}],"total_count":1}`, func(ctx context.Context, c *clerkapi.Client) (any, error) {
		v, err := c.OrganizationRoles(ctx)
		return orNil(v, v == nil), err
	}},
}

var methods = slices.Concat(lookUps, changes)

func (m method) lists() bool { return strings.HasPrefix(m.name, "ListInvitations") }

func createOne(name, reply string, r clerkinvite.InvitationRequest) method {
	return method{name, false, reply, func(ctx context.Context, c *clerkapi.Client) (any, error) {
		v, err := c.CreateInvitation(ctx, r)
		return orNil(v, v == nil), err
	}}
}

func createTwo(name, reply string, r clerkinvite.InvitationRequest) method {
	second := r
	second.Email = "b" + r.Email
	return method{name, false, reply, func(ctx context.Context, c *clerkapi.Client) (any, error) {
		v, err := c.CreateInvitations(ctx, []clerkinvite.InvitationRequest{r, second})
		return orNil(v, v == nil), err
	}}
}

func revokeMethod(name, reply string, r clerkinvite.RevokeRequest) method {
	return method{name, false, reply, func(ctx context.Context, c *clerkapi.Client) (any, error) {
		v, err := c.RevokeInvitation(ctx, r)
		return orNil(v, v == nil), err
	}}
}

func listMethod(name, inv string, q clerkinvite.InvitationQuery) method {
	return method{name, true, `{"data":[` + inv + `],"total_count":1}`, func(ctx context.Context, c *clerkapi.Client) (any, error) {
		v, err := c.ListInvitations(ctx, q)
		return orNil(v, v == nil), err
	}}
}

func orNil(v any, isNil bool) any {
	if isNil {
		return nil
	}
	return v
}

// create creates one invitation.
func create(t testing.TB, c *clerkapi.Client) (*clerkinvite.Invitation, error) {
	t.Helper()
	return c.CreateInvitation(t.Context(), clerkinvite.InvitationRequest{Email: email})
}

// apiError asserts that err is an *APIError and prints no personal data.
func apiError(t testing.TB, err error) *clerkinvite.APIError {
	t.Helper()
	var api *clerkinvite.APIError
	require.ErrorAs(t, err, &api)
	requireClean(t, err)
	if api.StatusCode != 0 {
		require.False(t, api.NotSent, "a response means that the request was sent")
	}
	return api
}

// requireClean asserts that no text of err and of the errors that it wraps contains the key,
// an address or a URL.
func requireClean(t testing.TB, err error) {
	t.Helper()
	for _, text := range texts(err) {
		require.NotContains(t, text, secret)
		require.NotContains(t, text, "://")
		require.NotContains(t, text, "sk_test")
		require.NotContains(t, text, "ticket")
	}
}

// texts returns the texts of err and of all errors that it wraps.
func texts(err error) []string {
	if err == nil {
		return nil
	}
	out := []string{err.Error(), fmt.Sprintf("%v", err), fmt.Sprintf("%+v", err), fmt.Sprintf("%q", err)}
	switch err.(type) { //nolint:errorlint // texts unwraps the chain itself
	case *net.OpError, *net.DNSError, *clerkinvite.APIError, *clerkinvite.ClerkInvitationError:
		// %#v prints the fields
	default:
		out = append(out, fmt.Sprintf("%#v", err))
	}
	switch w := err.(type) { //nolint:errorlint // the same
	case interface{ Unwrap() error }:
		return append(out, texts(w.Unwrap())...)
	case interface{ Unwrap() []error }:
		for _, e := range w.Unwrap() {
			out = append(out, texts(e)...)
		}
	}
	return out
}

// requireNotCallers asserts that err does not look like the end of the caller's context.
func requireNotCallers(t testing.TB, err error) {
	t.Helper()
	require.NotErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, context.DeadlineExceeded)
}

// timedOut reports whether a time limit ended the request.
func timedOut(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// roundTripper is a transport that is a func.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// listen accepts loopback connections and passes each to h, which closes it.
func listen(t testing.TB, h func(net.Conn)) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(time.Minute))
			wg.Go(func() { h(conn) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return "http://" + l.Addr().String()
}

// pipeClient returns a Client whose connections are pipes to h, which closes them. In a
// synctest bubble, timeouts are exact and take no time.
func pipeClient(t testing.TB, o clerkapi.Options, h func(net.Conn)) *clerkapi.Client {
	t.Helper()
	tr, hc := newTransport(t), http.Client{}
	if o.HTTPClient != nil {
		hc = *o.HTTPClient
		if given, ok := hc.Transport.(*http.Transport); ok {
			tr = given.Clone()
		}
	}
	tr.DialContext = func(context.Context, string, string) (net.Conn, error) {
		c, s := net.Pipe()
		go h(s)
		return c, nil
	}
	hc.Transport = tr
	o.HTTPClient = &hc
	if o.BaseURL == "" {
		o.BaseURL = "http://clerk.test/v1"
	}
	c, err := clerkapi.New(key, &o)
	require.NoError(t, err)
	return c
}

// hang reads until the peer closes, and then closes.
func hang(c net.Conn) {
	_, _ = io.Copy(io.Discard, c)
	_ = c.Close()
}

// reset closes a connection with RST.
func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}
