package clerkinvitetest_test

import (
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkapi"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

const ada = "ada@example.com"

var start = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)

func newClerk() (*clerkinvitetest.Clerk, *clerkinvitetest.Clock) {
	k := clerkinvitetest.NewClock(start)
	c := clerkinvitetest.NewClerk()
	c.SetNow(k.Now)
	return c, k
}

// serve returns the base URL of a server with the fake, without /v1.
func serve(t testing.TB, c *clerkinvitetest.Clerk) string {
	t.Helper()
	s := httptest.NewUnstartedServer(c.Handler())
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Start()
	t.Cleanup(s.Close)
	return s.URL
}

// throughHTTP returns the real adapter, connected to the fake.
func throughHTTP(t testing.TB, c *clerkinvitetest.Clerk) *clerkapi.Client {
	t.Helper()
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	api, err := clerkapi.New("sk_test_1", &clerkapi.Options{BaseURL: serve(t, c) + "/v1", HTTPClient: &http.Client{Transport: tr}})
	require.NoError(t, err)
	return api
}

// both runs a test with direct calls and through the real adapter.
func both(t *testing.T, test func(t *testing.T, c *clerkinvitetest.Clerk, k *clerkinvitetest.Clock, api clerkinvite.ClerkAPI)) {
	t.Helper()
	t.Run("direct", func(t *testing.T) {
		t.Parallel()
		c, k := newClerk()
		test(t, c, k, c)
	})
	t.Run("HTTP", func(t *testing.T) {
		t.Parallel()
		c, k := newClerk()
		test(t, c, k, throughHTTP(t, c))
	})
}

func mustCreate(t testing.TB, api clerkinvite.ClerkAPI, email string) *clerkinvite.Invitation {
	t.Helper()
	inv, err := api.CreateInvitation(t.Context(), clerkinvite.InvitationRequest{Email: email})
	require.NoError(t, err)
	return inv
}

// requireRefused requires an error response with this status and code.
func requireRefused(t testing.TB, err error, status int, code string) *clerkinvite.APIError {
	t.Helper()
	var api *clerkinvite.APIError
	require.ErrorAs(t, err, &api)
	require.Equal(t, status, api.StatusCode)
	require.Equal(t, code, api.Code)
	require.NotEmpty(t, api.TraceID)
	require.NotEmpty(t, api.LongMessage)
	return api
}

// reply is a raw HTTP response of the fake.
type reply struct {
	status int
	header http.Header
	body   string
}

func (r reply) requireJSON(t testing.TB, status int, body string) {
	t.Helper()
	require.Equal(t, status, r.status, r.body)
	require.Equal(t, "application/json", r.header.Get("Content-Type"))
	require.NotEmpty(t, r.header.Get("Clerk-Trace-Id"))
	require.JSONEq(t, body, r.body)
}

func send(t testing.TB, method, url, body string, header ...string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	require.NoError(t, err)
	defer func() { require.NoError(t, resp.Body.Close()) }()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return reply{resp.StatusCode, resp.Header, string(b)}
}

func parse(t testing.TB, body string) (v map[string]any) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(body), &v), body)
	return v
}

func recorder(t testing.TB, c *clerkinvitetest.Clerk) (status int) {
	t.Helper()
	w := httptest.NewRecorder()
	c.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/users", nil))
	return w.Code
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return l
}
