package routers

import (
	"context"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.ReleaseMode) // otherwise it prints its routes
	os.Exit(m.Run())
}

type makeRoutes func(*clerkinvite.Service, *clerkinvite.WebhookVerifier) http.Handler

var routers = map[string]makeRoutes{"chi": chiRoutes, "gin": ginRoutes, "echo": echoRoutes}

// host is an application on one of the routers, with its own Clerk and store.
type host struct {
	clerk  *clerkinvitetest.Clerk
	svc    *clerkinvite.Service
	server *httptest.Server
}

func newHost(t *testing.T, routes makeRoutes) *host {
	t.Helper()
	at := time.Now().Truncate(time.Second)
	now := func() time.Time { return at }
	clerk := clerkinvitetest.NewClerk()
	clerk.SetNow(now)
	svc, err := clerkinvite.New(clerkinvite.Config{API: clerk, Store: clerkinvitetest.NewMemoryStore(), Now: now})
	require.NoError(t, err)
	verifier, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{Secrets: []clerkinvite.Secret{clerkinvite.NewSecret(clerkinvitetest.WebhookSecret)}, Now: now})
	require.NoError(t, err)
	server := httptest.NewServer(routes(svc, verifier))
	t.Cleanup(server.Close)
	return &host{clerk, svc, server}
}

// response is the part of a response that is compared.
type response struct {
	status                      int
	mediaType, retryAfter, body string
}

// perRun matches values that differ between runs.
var perRun = regexp.MustCompile(`"(id|next|[a-z]+_at)":"[^"]*"`)

func (h *host) send(t *testing.T, r *http.Request) response {
	t.Helper()
	res, err := h.server.Client().Do(r)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	mediaType := ""
	if value := res.Header.Get("Content-Type"); value != "" {
		mediaType, _, err = mime.ParseMediaType(value)
		require.NoError(t, err)
	}
	return response{res.StatusCode, mediaType, res.Header.Get("Retry-After"), strings.TrimSpace(string(body))}
}

func (h *host) request(t *testing.T, method, path, admin, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, h.server.URL+path, strings.NewReader(body))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/json")
	if admin != "" {
		r.Header.Set("X-Admin-Of", admin)
	}
	return r
}

const acme = "/tenants/acme/invitations"

func (h *host) invite(t *testing.T, email string) response {
	t.Helper()
	return h.send(t, h.request(t, http.MethodPost, acme, "acme", `{"email":"`+email+`","role":"admin"}`))
}

func failed(status int, text string) response {
	return response{status, "application/json", "", `{"error":"` + text + `"}`}
}

// requests are sent to each router, with the wanted response. Without a body, only the status is
// wanted. Responses are also compared with those of the other routers.
var requests = []struct {
	what string
	send func(t *testing.T, h *host) response
	want response
}{
	{"invite without permission", func(t *testing.T, h *host) response {
		return h.send(t, h.request(t, http.MethodPost, acme, "globex", `{"email":"ada@example.com"}`))
	}, failed(403, "you are not an admin of this tenant")},
	{"list without permission", func(t *testing.T, h *host) response {
		return h.send(t, h.request(t, http.MethodGet, acme, "", ""))
	}, failed(403, "you are not an admin of this tenant")},
	{"a new person is invited", func(t *testing.T, h *host) response { return h.invite(t, "Ada@Example.com") }, response{status: 201}},
	{"an existing user is linked", func(t *testing.T, h *host) response {
		h.clerk.AddVerifiedUser("grace@example.com")
		return h.invite(t, "grace@example.com")
	}, response{status: 201}},
	{"a duplicate", func(t *testing.T, h *host) response { return h.invite(t, "ada@example.com") },
		failed(409, "ada@example.com is already invited to this tenant")},
	{"an invalid address", func(t *testing.T, h *host) response { return h.invite(t, "ada") }, response{status: 422}},
	{"invalid JSON", func(t *testing.T, h *host) response {
		return h.send(t, h.request(t, http.MethodPost, acme, "acme", `{"email":`))
	},
		failed(400, "the body is not an invitation in JSON")},
	{"no body", func(t *testing.T, h *host) response {
		return h.send(t, h.request(t, http.MethodPost, acme, "acme", ""))
	},
		failed(400, "the body is not an invitation in JSON")},
	{"text/plain, which other sites can send with cookies", func(t *testing.T, h *host) response {
		r := h.request(t, http.MethodPost, acme, "acme", `{"email":"mallory@example.com"}`)
		r.Header.Set("Content-Type", "text/plain")
		return h.send(t, r)
	}, failed(415, "the Content-Type must be application/json")},
	{"no Content-Type", func(t *testing.T, h *host) response {
		r := h.request(t, http.MethodPost, acme, "acme", `{"email":"mallory@example.com"}`)
		r.Header.Del("Content-Type")
		return h.send(t, r)
	}, failed(415, "the Content-Type must be application/json")},
	{"a Content-Type with a parameter", func(t *testing.T, h *host) response {
		r := h.request(t, http.MethodPost, "/tenants/hooli/invitations", "hooli", `{"email":"grace@example.com"}`)
		r.Header.Set("Content-Type", "application/json; charset=utf-8")
		return h.send(t, r)
	}, response{status: 201}},
	{"a tenant without members", func(t *testing.T, h *host) response {
		return h.send(t, h.request(t, http.MethodGet, "/tenants/empty/invitations", "empty", ""))
	}, response{200, "application/json", "", `{"members":[],"next":"…"}`}},
	{"no tenant", func(t *testing.T, h *host) response {
		a := h.send(t, h.request(t, http.MethodGet, "/tenants//invitations", "", ""))
		require.NotContains(t, a.body, "members")
		a.status = min(a.status, 400) // 403 from the guard or 404 from the router
		return response{status: a.status}
	}, response{status: 400}},
	{"a large body", func(t *testing.T, h *host) response { return h.invite(t, strings.Repeat("a", maxBody)) },
		failed(413, "the body is too large")},
	{"Clerk's rate limit", func(t *testing.T, h *host) response {
		limit := clerkinvitetest.Fault{Kind: clerkinvitetest.Response, Status: 429, Code: "too_many_requests", RetryAfter: 90 * time.Second}
		for _, limit.Call = range []clerkinvitetest.Call{clerkinvitetest.CallCreate, clerkinvitetest.CallCreateBulk} {
			h.clerk.Fail(limit)
		}
		a := h.invite(t, "joan@example.com")
		h.clerk.ClearFaults()
		return a
	}, response{502, "application/json", "90", `{"error":"invitation service unavailable; the invitation is saved and will be retried"}`}},
	{"a tenant with a space in its name", func(t *testing.T, h *host) response {
		return h.send(t, h.request(t, http.MethodPost, "/tenants/wile%20e/invitations", "wile e", `{"email":"grace@example.com"}`))
	}, response{status: 201}},
	{"the list", func(t *testing.T, h *host) response { return h.send(t, h.request(t, http.MethodGet, acme, "acme", "")) }, response{status: 200}},
	{"the list with a prefix", func(t *testing.T, h *host) response {
		a := h.send(t, h.request(t, http.MethodGet, acme+"?prefix=ada", "acme", ""))
		require.Contains(t, a.body, "ada@example.com")
		require.NotContains(t, a.body, "grace@example.com")
		return a
	}, response{status: 200}},
	{"an invalid cursor", func(t *testing.T, h *host) response {
		return h.send(t, h.request(t, http.MethodGet, acme+"?cursor=x", "acme", ""))
	}, failed(422, "invalid Cursor: is not a cursor returned by List for this order")},
	{"a webhook with a wrong signature", func(t *testing.T, h *host) response {
		event := h.clerk.UserUpdated(h.clerk.AddVerifiedUser("mary@example.com").ID)
		return h.webhook(t, event, "whsec_"+strings.Repeat("QUFB", 8))
	}, response{400, "text/plain", "", "the webhook's signature is not valid"}},
	{"a webhook", func(t *testing.T, h *host) response {
		event, err := h.clerk.Accept("ada@example.com")
		require.NoError(t, err)
		a := h.webhook(t, event, clerkinvitetest.WebhookSecret)
		member, err := h.svc.Get(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "ada@example.com"})
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusActive, member.Status)
		return a
	}, response{status: 204}},
	{"a webhook with GET", func(t *testing.T, h *host) response {
		return h.send(t, h.request(t, http.MethodGet, "/webhooks/clerk", "", ""))
	}, response{405, "text/plain", "", "method not allowed"}},
}

func (h *host) webhook(t *testing.T, event clerkinvitetest.Webhook, secret string) response {
	t.Helper()
	r := event.Request(secret, h.server.URL+"/webhooks/clerk").WithContext(t.Context())
	r.RequestURI = "" // for a client
	return h.send(t, r)
}

// All routers return the wanted responses.
func TestRoutersRespondAlike(t *testing.T) {
	t.Parallel()
	hosts := make(map[string]*host)
	for name, routes := range routers {
		hosts[name] = newHost(t, routes)
	}
	for _, step := range requests {
		var first *response
		for name, h := range hosts {
			got := step.send(t, h)
			got.body = perRun.ReplaceAllString(got.body, `"$1":"…"`)
			require.Equal(t, step.want.status, got.status, "%s on %s: %s", step.what, name, got.body)
			if step.want.body != "" {
				require.Equal(t, step.want, got, "%s on %s", step.what, name)
			}
			if first == nil {
				first = &got
			}
			require.Equal(t, *first, got, "%s on %s", step.what, name)
		}
	}
	for name, h := range hosts {
		require.Equal(t, 1, h.clerk.EmailsTo("ada@example.com"), name)
		require.Equal(t, 1, h.clerk.Emails(), name)
	}
}

// Guard and library see the same tenant, no matter how a client encodes it.
func TestTenantIsUnescapedOnce(t *testing.T) {
	t.Parallel()
	for name, routes := range routers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, routes)
			h.clerk.AddVerifiedUser("grace@example.com")
			for _, c := range []struct{ sent, tenant string }{
				{"team%3A1", "team:1"}, // as encodeURIComponent does
				{"team:2", "team:2"},   // as Go does
				{"a%40b", "a@b"},
				{"a%2Fb", "a/b"},
				{"a+b", "a+b"},
				{"c+d%3A", "c+d:"},
				{"a%2541", "a%41"}, // unescaped once
				{"b%2541%3A", "b%41:"},
				{"caf%C3%A9", "café"},
			} {
				r := h.request(t, http.MethodPost, "/tenants/"+c.sent+"/invitations", c.tenant, `{"email":"grace@example.com"}`)
				a := h.send(t, r)
				require.Equal(t, http.StatusCreated, a.status, "%s: %s", c.sent, a.body)
				_, err := h.svc.Get(t.Context(), clerkinvite.Ref{TenantID: c.tenant, Email: "grace@example.com"})
				require.NoError(t, err, c.sent)
				a = h.send(t, h.request(t, http.MethodGet, "/tenants/"+c.sent+"/invitations", c.tenant, ""))
				require.Contains(t, a.body, "grace@example.com", c.sent)
			}
		})
	}
}

// The response is the member, in the tenant that the guard has checked.
func TestResponseIsTheMember(t *testing.T) {
	t.Parallel()
	for name, routes := range routers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, routes)
			r := h.request(t, http.MethodPost, acme, "acme", `{"email":"ada@example.com","role":"admin","tenant":"globex","TenantID":"globex"}`)
			var member clerkinvite.Member
			require.NoError(t, json.Unmarshal([]byte(h.send(t, r).body), &member))
			require.Equal(t, "acme", member.TenantID)
			require.Equal(t, "admin", member.Role)
			require.Equal(t, clerkinvite.StatusPending, member.Status)
		})
	}
}

// The library gets the request's context, so a disconnect ends the call.
func TestRequestContextIsPassed(t *testing.T) {
	t.Parallel()
	for name, routes := range routers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, routes)
			asked, ended := make(chan struct{}), make(chan error, 1)
			svc, err := clerkinvite.New(clerkinvite.Config{Store: clerkinvitetest.NewMemoryStore(), API: clerkinvitetest.ClerkFuncs{
				FindUsersFunc: func(ctx context.Context, _ clerkinvite.UserQuery) ([]clerkinvite.User, error) {
					close(asked)
					<-ctx.Done()
					ended <- context.Cause(ctx)
					return nil, ctx.Err()
				},
			}})
			require.NoError(t, err)
			verifier, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{Secrets: []clerkinvite.Secret{clerkinvite.NewSecret(clerkinvitetest.WebhookSecret)}})
			require.NoError(t, err)
			h.server.Config.Handler = routes(svc, verifier)
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			go func() {
				<-asked
				leave()
			}()
			res, err := h.server.Client().Do(h.request(t, http.MethodPost, acme, "acme", `{"email":"ada@example.com"}`).WithContext(ctx))
			if err == nil {
				res.Body.Close()
			}
			require.ErrorIs(t, err, context.Canceled)
			require.ErrorIs(t, <-ended, context.Canceled, "not the end of the lease")
		})
	}
}
