package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/sqlitestore"
)

// requireProblem requires a problem document (RFC 9457), and returns its retry_after.
func requireProblem(t *testing.T, r reply, status int, detail string) float64 {
	t.Helper()
	require.Equal(t, status, r.status, r.body)
	require.Equal(t, "application/problem+json", r.header.Get("Content-Type"))
	var p map[string]any
	require.NoError(t, json.Unmarshal([]byte(r.body), &p), r.body)
	require.Equal(t, "about:blank", p["type"])
	require.Equal(t, http.StatusText(status), p["title"])
	require.InDelta(t, status, p["status"], 0)
	require.Contains(t, p["detail"], detail)
	wait, _ := p["retry_after"].(float64)
	require.Equal(t, r.header.Get("Retry-After"), strings.TrimPrefix(fmt.Sprint(wait), "0"), "the header has the same value")
	return wait
}

func TestAPI(t *testing.T) {
	t.Parallel()
	a := start(t)
	created := a.json(t, "POST", "", `{"email":" Ada@Example.com ","role":"admin"}`)
	require.Equal(t, 201, created.status, created.body)
	require.Equal(t, "application/json", created.header.Get("Content-Type"))
	m := a.member(t, "ada@example.com")
	require.Equal(t, "/api/tenants/acme/invitations/"+m.ID, created.header.Get("Location"))
	require.Equal(t, 1, a.clerk.EmailsTo("ada@example.com"))
	require.Equal(t, "demo_admin", m.InvitedBy)
	require.Equal(t, "demo_admin", m.ChangedBy)

	// By ID and by address, only in this tenant.
	for _, who := range []string{m.ID, "ada@example.com", "ADA%40example.com"} {
		one := a.json(t, "GET", "/"+who, "")
		require.Equal(t, 200, one.status)
		require.JSONEq(t, string(must(json.Marshal(m))), one.body)
	}
	requireProblem(t, a.send(t, "GET", "/api/tenants/globex/invitations/"+m.ID, ""), 404, "no such member")
	requireProblem(t, a.json(t, "GET", "/unknown@example.com", ""), 404, "no such member")
	requireProblem(t, a.json(t, "POST", "/unknown@example.com/resend", ""), 404, "no such member")
	requireProblem(t, a.json(t, "DELETE", "/"+strings.Repeat("x", 40), ""), 422, "invalid ID")

	requireProblem(t, a.json(t, "POST", "", `{"email":"ada@example.com"}`), 409, "ada@example.com is already invited")
	requireProblem(t, a.json(t, "POST", "", `{"email":"not-an-address"}`), 422, "invalid Email")
	requireProblem(t, a.json(t, "POST", "", `{"email":"x@example.com","role":"`+strings.Repeat("r", 300)+`"}`), 422, "invalid Role")

	// 429: the last email is too recent.
	wait := requireProblem(t, a.json(t, "POST", "/"+m.ID+"/resend", ""), 429, "sent too recently")
	require.Positive(t, wait)
	require.Equal(t, 1, a.clerk.EmailsTo("ada@example.com"))

	// 422: Clerk refuses this person. 502: Clerk is rate-limited, and says when to retry.
	a.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, Status: 403, Code: "not_allowed_access"})
	requireProblem(t, a.json(t, "POST", "", `{"email":"kay@example.com"}`), 422, "invitation refused for this address")
	require.Equal(t, clerkinvite.StatusFailed, a.member(t, "kay@example.com").Status)
	for _, call := range []clerkinvitetest.Call{clerkinvitetest.CallCreate, clerkinvitetest.CallCreateBulk} { // the library uses both
		a.clerk.Fail(clerkinvitetest.Fault{Call: call, Status: 429, Code: "too_many_requests", RetryAfter: 90 * time.Second})
	}
	wait = requireProblem(t, a.json(t, "POST", "", `{"email":"joan@example.com"}`), 502, "invitation service unavailable; the invitation is saved and will be retried")
	require.GreaterOrEqual(t, wait, 89.0)
	require.Equal(t, clerkinvite.StatusReserved, a.member(t, "joan@example.com").Status, "Run will deliver it")

	revoked := a.json(t, "POST", "/"+m.ID+"/revoke", "")
	require.Equal(t, 200, revoked.status)
	require.Contains(t, revoked.body, `"status":"revoked"`)
	require.Empty(t, a.clerk.OpenInvitations("ada@example.com"))
	requireProblem(t, a.json(t, "POST", "/"+m.ID+"/resend", ""), 409, "cannot become")
	requireProblem(t, a.json(t, "DELETE", "/"+m.ID, ""), 409, "cannot become")

	a.clerk.AddVerifiedUser("linked@example.com")
	require.Equal(t, 201, a.json(t, "POST", "", `{"email":"linked@example.com"}`).status)
	require.Equal(t, clerkinvite.StatusActive, a.member(t, "linked@example.com").Status)
	require.Equal(t, 200, a.json(t, "DELETE", "/linked%40example.com", "").status)
	require.Equal(t, clerkinvite.StatusRemoved, a.member(t, "linked@example.com").Status)

	// The log has the cause, but no address.
	require.Contains(t, a.log.String(), "clerk: HTTP 429")
	require.NotContains(t, a.log.String(), "@")
}

func TestAPIResends(t *testing.T) {
	t.Parallel()
	a := start(t, func(cfg *config) { cfg.timing.cooldown = -1 })
	m := a.invite(t, "ada@example.com")
	require.Equal(t, 200, a.json(t, "POST", "/"+m.ID+"/resend", "").status)
	require.Equal(t, 2, a.clerk.EmailsTo("ada@example.com"))
	require.Len(t, a.clerk.OpenInvitations("ada@example.com"), 1)
}

func TestAPILists(t *testing.T) {
	t.Parallel()
	a := start(t)
	require.JSONEq(t, `{"members":[],"next":""}`, a.json(t, "GET", "", "").body)
	for i := range 3 {
		a.invite(t, fmt.Sprintf("p%d@example.com", i))
	}
	_, err := a.invites.Revoke(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "p1@example.com"})
	require.NoError(t, err)
	type page struct {
		Members []clerkinvite.Member
		Next    string
	}
	list := func(query string) (p page) {
		r := a.json(t, "GET", query, "")
		require.Equal(t, 200, r.status, r.body)
		require.NoError(t, json.Unmarshal([]byte(r.body), &p))
		return p
	}
	require.Len(t, list("?status=pending").Members, 2)
	require.Len(t, list("?status=revoked&status=pending").Members, 3)
	require.Len(t, list("?email_prefix=P2").Members, 1)
	first := list("?limit=2")
	require.Len(t, first.Members, 2)
	second := list("?limit=2&cursor=" + first.Next)
	require.Equal(t, "p2@example.com", second.Members[0].Email)
	require.Empty(t, second.Next)
	for query, field := range map[string]string{"limit=many": "Limit", "limit=9999": "Limit", "cursor=x": "Cursor", "status=lost": "Statuses"} {
		requireProblem(t, a.json(t, "GET", "?"+query, ""), 422, "invalid "+field)
	}
}

// Invalid requests change nothing.
func TestAPIInvalidRequests(t *testing.T) {
	t.Parallel()
	a := start(t)
	requireProblem(t, a.json(t, "POST", "", `{"email":"x@example.com","admin":true}`), 400, `unknown field "admin"`)
	requireProblem(t, a.json(t, "POST", "", `{"email":"x@example.com"}{}`), 400, "must be the JSON object")
	requireProblem(t, a.json(t, "POST", "", `["x@example.com"]`), 400, "must be the JSON object")
	requireProblem(t, a.json(t, "POST", "", ``), 400, "must be the JSON object")
	requireProblem(t, a.json(t, "POST", "", `{"email":"`+strings.Repeat("x", maxBody)+`"}`), 413, "longer than 64 KiB")
	requireProblem(t, a.send(t, "POST", "/api/tenants/acme/invitations", `{"email":"x@example.com"}`), 415, "send application/json")
	require.Equal(t, "GET, POST", a.json(t, "DELETE", "", "").header.Get("Allow"))
	requireProblem(t, a.json(t, "DELETE", "", ""), 405, "use GET or POST")
	requireProblem(t, a.json(t, "GET", "/x@example.com/resend", ""), 405, "use POST")
	requireProblem(t, a.send(t, "GET", "/api/people", ""), 404, "endpoint does not exist")
	requireProblem(t, a.send(t, "GET", "/api/tenants/"+strings.Repeat("t", 300)+"/invitations", ""), 422, "invalid TenantID")
	for _, header := range [][2]string{{"Origin", "https://evil.example.com"}, {"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}} {
		r := a.send(t, "POST", "/api/tenants/acme/invitations", `{"email":"x@example.com"}`, "Content-Type", "application/json", header[0], header[1])
		requireProblem(t, r, 403, "another site")
	}
	requests := a.clerk.Requests()
	require.Zero(t, a.clerk.RequestCount()-requests[clerkinvitetest.CallList]-requests[clerkinvitetest.CallOrganizationListAll], "only Run's Reconcile has listed")
}

// If the database fails, the response is 500, and only the log has the cause.
func TestAPIWithoutADatabase(t *testing.T) {
	t.Parallel()
	a := start(t)
	require.NoError(t, a.store.(*sqlitestore.Store).Close())
	requireProblem(t, a.json(t, "GET", "", ""), 500, "internal server error")
	page := a.send(t, "GET", "/tenants/acme", "")
	require.Equal(t, 500, page.status)
	require.Contains(t, page.body, "Internal server error.")
	require.NotContains(t, page.body, "database")
	require.Contains(t, a.log.String(), "database is closed")
}

// The guard is called for every request, and its error is the response.
func TestGuard(t *testing.T) {
	t.Parallel()
	a := start(t, func(cfg *config) {
		cfg.guard = func(r *http.Request, tenant string) (string, error) {
			switch {
			case r.Header.Get("Authorization") == "":
				return "", denied(http.StatusUnauthorized)
			case tenant != "acme":
				return "", denied(http.StatusForbidden)
			}
			return "user_admin", nil
		}
	})
	requireProblem(t, a.json(t, "GET", "", ""), 401, "sign in first")
	for _, path := range []string{"", "/live", "/invitations", "/members/x/revoke", "/demo/reconcile"} {
		method := "POST"
		if path == "" || path == "/live" {
			method = "GET"
		}
		require.Equal(t, 401, a.send(t, method, "/tenants/acme"+path, "").status, path)
		require.Equal(t, 403, a.send(t, method, "/tenants/globex"+path, "", "Authorization", "x").status, path)
	}
	requireProblem(t, a.send(t, "GET", "/api/tenants/globex/invitations", "", "Authorization", "x"), 403, "you are not an admin")
	page := a.send(t, "GET", "/tenants/acme", "", "Authorization", "x")
	require.Equal(t, 200, page.status)
	require.NotContains(t, page.body, "Sign-in is a stub")
	r := a.send(t, "POST", "/api/tenants/acme/invitations", `{"email":"ada@example.com"}`, "Authorization", "x", "Content-Type", "application/json")
	require.Equal(t, 201, r.status)
	require.Equal(t, "user_admin", a.member(t, "ada@example.com").InvitedBy)
}
