package contract_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// Requests that the adapter never sends, but other clients or versions may.
func TestRequestsOfOtherClients(t *testing.T) {
	t.Parallel()
	eachBehavior(t, func(t *testing.T, b *bundle) {
		var first string
		for i := range 3 {
			b.clerk.AddVerifiedUser(fmt.Sprintf("u%d@example.com", i))
			first = b.clerk.CreateForeign(fmt.Sprintf("p%d@example.com", i), nil).ID
		}
		for _, target := range []string{
			"/invitations", "/invitations?limit=2", "/invitations?limit=500&offset=1", "/invitations?offset=9",
			"/invitations?paginated=false", "/invitations?paginated=true", "/invitations?paginated=true&limit=1&offset=2",
			"/invitations?order_by=email_address", "/invitations?order_by=-expires_at", "/invitations?order_by=%2Bcreated_at", "/invitations?order_by=+created_at",
			"/invitations?query=" + first, "/invitations?query=p1@example.com&status=pending", "/invitations?query=",
			"/users", "/users?limit=1", "/users?limit=500&offset=1", "/users?order_by=-created_at",
			"/users?email_address=u0@example.com&email_address=u1@example.com", "/users?email_address=u0@example.com&user_id=user_000001", "/users?user_id=user_000001&user_id=user_000002",
			"/users/count", "/users/count?email_address=u0@example.com", "/users/count?user_id=user_000001",
			"/users/user_000001",
			"/users?__clerk_api_version=2025-04-10",
		} {
			x := b.send(t, "GET", target, "")
			require.Equal(t, 200, x.status, "%s %s", target, x.body)
			b.requireValid(t, x)
		}
		b.requireValid(t, b.send(t, "GET", "/users/user_unknown", ""))

		for _, body := range []string{
			`{"email_address":"a@example.com"}`,
			`{"email_address":"b@example.com","public_metadata":{},"redirect_url":"myapp://welcome","notify":null,"ignore_existing":null,"expires_in_days":null}`,
			`{"email_address":"C@Example.com","public_metadata":{"a":[{}]},"notify":true,"ignore_existing":false,"expires_in_days":1,"template_slug":"invitation"}`,
		} {
			x := b.send(t, "POST", "/invitations", body)
			require.Equal(t, 200, x.status, "%s %s", body, x.body)
			b.requireValid(t, x)
		}
		x := b.send(t, "POST", "/invitations/bulk", `[{"email_address":"d@example.com","public_metadata":null,"redirect_url":null,"notify":null,"ignore_existing":null,"expires_in_days":null},
			{"email_address":"e@example.com","template_slug":"waitlist_invitation"}]`)
		require.Equal(t, 200, x.status)
		b.requireValid(t, x)

		x = b.send(t, "POST", "/invitations/"+first+"/revoke", "")
		require.Equal(t, 200, x.status)
		b.requireValid(t, x)
	})
}

// The descriptions and the fake agree on which requests are refused. A fake that accepts requests
// Clerk refuses would hide bugs of its callers.
func TestWrongRequests(t *testing.T) {
	t.Parallel()
	b := setup(t)
	item := func(more string) string { return `{"email_address":"ada@example.com"` + more + `}` }
	large := item(`,"public_metadata":{"a":"` + strings.Repeat("x", 1<<20) + `"}`)
	many := "?x" + strings.Repeat("&email_address=a@example.com", 101)
	for _, test := range []struct {
		method, target, body string
		status               int
		code                 string
		valid                bool // by the schemas, but refused because of an exception
	}{
		{"POST", "/invitations", item(`,"role":"admin"`), 422, "form_param_unknown", false},
		{"POST", "/invitations", `{}`, 422, "form_param_missing", false},
		{"POST", "/invitations", `{"email_address":null}`, 422, "form_param_nil", false},
		{"POST", "/invitations", `{"email_address":7}`, 422, "form_param_format_invalid", false},
		{"POST", "/invitations", item(`,"expires_in_days":0`), 422, "form_param_value_invalid", false},
		{"POST", "/invitations", item(`,"expires_in_days":366`), 422, "form_param_value_invalid", false},
		{"POST", "/invitations", item(`,"expires_in_days":"7"`), 422, "form_param_format_invalid", false},
		{"POST", "/invitations", item(`,"expires_in_days":1.5`), 422, "form_param_format_invalid", false},
		{"POST", "/invitations", item(`,"template_slug":"other"`), 422, "form_param_value_invalid", false},
		{"POST", "/invitations", item(`,"template_slug":""`), 422, "form_param_value_invalid", false},
		{"POST", "/invitations", item(`,"template_slug":null`), 422, "form_param_nil", false},
		{"POST", "/invitations", item(`,"redirect_url":null`), 422, "form_param_nil", false},
		{"POST", "/invitations", item(`,"redirect_url":1`), 422, "form_param_format_invalid", false},
		{"POST", "/invitations", item(`,"public_metadata":null`), 422, "form_param_nil", false},
		{"POST", "/invitations", item(`,"public_metadata":[]`), 422, "form_param_format_invalid", false},
		{"POST", "/invitations", item(`,"public_metadata":"{}"`), 422, "form_param_format_invalid", false},
		{"POST", "/invitations", item(`,"notify":"no"`), 422, "form_param_format_invalid", false},
		{"POST", "/invitations", item(`,"ignore_existing":1`), 422, "form_param_format_invalid", false},
		{"POST", "/invitations", `null`, 400, "request_body_invalid", false},
		{"POST", "/invitations", `[]`, 400, "request_body_invalid", false},
		{"POST", "/invitations", `{"email_address":`, 400, "request_body_invalid", false},
		{"POST", "/invitations", `[` + item("") + `]`, 400, "request_body_invalid", false},
		{"POST", "/invitations", large, 413, "request_body_too_large", true},
		{"POST", "/invitations", ``, 400, "request_body_invalid", true},
		{"POST", "/invitations/bulk", `[]`, 400, "request_body_invalid", false},
		{"POST", "/invitations/bulk", `{}`, 400, "request_body_invalid", false},
		{"POST", "/invitations/bulk", item(""), 400, "request_body_invalid", false},
		{"POST", "/invitations/bulk", `[null]`, 400, "request_body_invalid", false},
		{"POST", "/invitations/bulk", `[` + item(`,"x":1`) + `]`, 422, "form_param_unknown", false},
		{"POST", "/invitations/bulk", `[` + item("") + `,{}]`, 422, "form_param_missing", false},
		{"POST", "/invitations/bulk", `[` + item(`,"template_slug":null`) + `]`, 422, "form_param_nil", false},
		{"POST", "/invitations/bulk", `[` + item("") + strings.Repeat(`,`+item(""), 10) + `]`, 400, "bulk_size_exceeded", false},
		{"GET", "/invitations?limit=0", "", 422, "form_param_value_invalid", false},
		{"GET", "/invitations?limit=501", "", 422, "form_param_value_invalid", false},
		{"GET", "/invitations?limit=many", "", 422, "form_param_value_invalid", false},
		{"GET", "/invitations?limit=", "", 422, "form_param_value_invalid", false},
		{"GET", "/invitations?offset=-1", "", 422, "form_param_value_invalid", false},
		{"GET", "/invitations?status=open", "", 422, "form_param_value_invalid", false},
		{"GET", "/invitations?status=", "", 422, "form_param_value_invalid", false},
		{"GET", "/invitations?status=pending&status=expired", "", 422, "form_param_value_invalid", false},
		{"GET", "/invitations?query=a&query=b", "", 422, "form_param_value_invalid", false},
		{"GET", "/invitations?paginated=yes", "", 422, "form_param_value_invalid", false},
		{"GET", "/invitations?email_address=a", "", 422, "form_param_unknown", false},
		{"GET", "/invitations?order_by=status", "", 422, "form_param_value_invalid", true},
		{"GET", "/users?limit=501", "", 422, "form_param_value_invalid", false},
		{"GET", "/users?offset=x", "", 422, "form_param_value_invalid", false},
		{"GET", "/users?address=a", "", 422, "form_param_unknown", false},
		{"GET", "/users?paginated=true", "", 422, "form_param_unknown", false},
		{"GET", "/users?starting_after=user_1", "", 422, "form_param_unknown", true},
		{"GET", "/users" + strings.Replace(many, "x&", "", 1), "", 422, "form_param_array_size_exceeded", true},
		{"GET", "/users/count?limit=1", "", 422, "form_param_unknown", false},
	} {
		x := b.send(t, test.method, test.target, test.body)
		what := fmt.Sprintf("%s %.80s %.80s: %.300s", test.method, test.target, test.body, x.body)
		code, _ := x.errorCode()
		require.Equal(t, test.status, x.status, what)
		require.Equal(t, test.code, code, what)
		left := x.check(b.all)
		for _, version := range versions {
			wrong := slices.ContainsFunc(left, func(c complaint) bool { return c.version == version && c.about == inRequest })
			require.Equal(t, test.valid, !wrong, "%s: %s %v", version, what, left)
		}
		left = slices.DeleteFunc(left, func(c complaint) bool { return c.about == inRequest })
		require.Empty(t, left, what)
	}
	require.Zero(t, b.clerk.Emails(), "refused as a whole")
}

func TestWrongHeaders(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.clerk.SetSecretKey(key)
	for _, test := range []struct {
		name, value string
		status      int
		code        string
	}{
		{"Content-Type", "text/plain", 415, "unsupported_content_type"},
		{"Content-Type", "", 415, "unsupported_content_type"},
		{"Authorization", "", 401, "authorization_header_format_invalid"},
		{"Authorization", key, 401, "authorization_header_format_invalid"},
		{"Authorization", "Bearer pk_test", 401, "clerk_key_invalid"},
	} {
		x := b.send(t, "POST", "/invitations", `{"email_address":"ada@example.com"}`, test.name, test.value)
		code, _ := x.errorCode()
		require.Equal(t, test.status, x.status)
		require.Equal(t, test.code, code)
		var about []subject
		for _, c := range x.check(b.all) {
			about = append(about, c.about)
		}
		require.Equal(t, slices.Repeat([]subject{inRequest}, len(versions)), about, "the request is wrong, the answer is not")
	}
	x := b.send(t, "POST", "/invitations", `{"email_address":"ada@example.com"}`, "Content-Type", "application/json; charset=utf-8")
	require.Equal(t, 200, x.status)
	b.requireValid(t, x)

	// Operations that the adapter does not use are refused in the same ways.
	for _, target := range []string{"/users/count", "/users/user_000001"} {
		x := b.send(t, "GET", target, "", "Authorization", "Bearer sk_test_2")
		require.Equal(t, 401, x.status)
		b.requireValid(t, x)
	}
	b.clerk.SetLimits(clerkinvitetest.Limits{All: clerkinvitetest.Limit{Requests: 1, Per: 1 << 40}})
	b.send(t, "GET", "/users", "")
	for _, target := range []string{"/users/count", "/users/user_000001"} {
		x := b.send(t, "GET", target, "")
		require.Equal(t, 429, x.status)
		require.NotEmpty(t, x.header.Get("Retry-After"))
		b.requireValid(t, x)
	}
}

// The fake's errors have no fields that Clerk's schema lacks.
func TestErrorsHoldTraceIDs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	x := b.send(t, "GET", "/users/user_unknown", "")
	b.requireValid(t, x)
	var body struct {
		TraceID string `json:"clerk_trace_id"`
	}
	require.NoError(t, json.Unmarshal(x.body, &body))
	require.Equal(t, x.header.Get("Clerk-Trace-Id"), body.TraceID)
}
