package contract_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// A check that finds nothing proves nothing, so each description must catch deliberate mistakes.

// requireCaught asserts that the exchange is wrong in exactly this way.
func (b *bundle) requireCaught(t *testing.T, x *exchange, about subject, text string) {
	t.Helper()
	x.staged = true
	left := x.check(b.all)
	var want []complaint
	for _, d := range b.all {
		c := complaint{version: d.version, status: x.status, about: about, text: text}
		if len(left) > 0 {
			c.operation = left[0].operation
		}
		want = append(want, c)
	}
	require.Equal(t, want, left, "%s", x.body)
}

func TestWrongAnswersAreCaught(t *testing.T) {
	t.Parallel()
	clerk := clerkinvitetest.NewClerk()
	clerk.AddVerifiedUser("ada@example.com")
	clerk.CreateForeign("grace@example.com", nil)

	set := func(key string, value any) func(map[string]any) {
		return func(o map[string]any) { o[key] = value }
	}
	remove := func(key string) func(map[string]any) {
		return func(o map[string]any) { delete(o, key) }
	}
	const one, list, pages, users, user, count = "POST /invitations", "GET /invitations", "GET /invitations?paginated=true", "GET /users", "GET /users/user_000001", "GET /users/count"
	for _, test := range []struct {
		request string
		break_  func(o map[string]any) // the object in the response, or the first one in its list
		about   subject
		text    string
	}{
		{one, set("user_id", "user_1"), inBody, `/: property "user_id" is unsupported`},
		{one, set("accepted_at", 1), inBody, `/: property "accepted_at" is unsupported`},
		{one, remove("public_metadata"), inBody, `/public_metadata: property "public_metadata" is missing`},
		{one, remove("object"), inBody, `/object: property "object" is missing`},
		{one, set("public_metadata", nil), inBody, "/public_metadata: Value is not nullable"},
		{one, set("created_at", "2026-03-01T09:00:00Z"), inBody, "/created_at: value must be an integer"},
		{one, set("created_at", 1.5), inBody, "/created_at: value must be an integer"},
		{one, set("revoked", "false"), inBody, "/revoked: value must be a boolean"},
		{one, set("status", "open"), inBody, `/status: value is not one of the allowed values ["pending","accepted","revoked","expired"]`},
		{one, set("object", "organization_invitation"), inBody, `/object: value is not one of the allowed values ["invitation"]`},
		{one, set("email_address", "ada"), inBody, `/email_address: string doesn't match the format "email" (string doesn't match pattern "` + openapi3.FormatOfStringForEmail + `")`},
		{list, set("x", 1), inBody, `/0: property "x" is unsupported`},
		{list, remove("updated_at"), inBody, `/0/updated_at: property "updated_at" is missing`},
		{pages, set("x", 1), inBody, `/data/0: property "x" is unsupported`},
		{users, set("email", "ada@example.com"), inBody, `/0: property "email" is unsupported`},
		{users, remove("locked"), inBody, `/0/locked: property "locked" is missing`},
		{users, set("email_addresses", map[string]any{}), inBody, "/0/email_addresses: value must be an array"},
		{user, remove("legal_accepted_at"), inBody, `/legal_accepted_at: property "legal_accepted_at" is missing`},
		{user, set("banned", nil), inBody, "/banned: Value is not nullable"},
		{count, remove("object"), inBody, `/object: property "object" is missing`},
		{count, set("total_count", "1"), inBody, "/total_count: value must be an integer"},
	} {
		b := serve(t, changing(clerk.Handler(), func(_ http.Header, status int, body any) (int, any) {
			first := body
			if envelope, ok := first.(map[string]any); ok && envelope["data"] != nil {
				first = envelope["data"]
			}
			if items, ok := first.([]any); ok {
				first = items[0]
			}
			test.break_(first.(map[string]any))
			return status, body
		}))
		x := b.try(t, test.request)
		require.Equal(t, 200, x.status, test.request)
		b.requireCaught(t, x, test.about, test.text)
	}
}

// try makes a request that the fake accepts with 200.
func (b *bundle) try(t *testing.T, request string) *exchange {
	t.Helper()
	method, target, _ := strings.Cut(request, " ")
	if method == "GET" {
		return b.send(t, method, target, "")
	}
	return b.send(t, method, target, `{"email_address":"joan@example.com","ignore_existing":true}`)
}

func TestWrongShapesAndStatusesAreCaught(t *testing.T) {
	t.Parallel()
	clerk := clerkinvitetest.NewClerk()
	clerk.AddVerifiedUser("ada@example.com")
	id := clerk.CreateForeign("grace@example.com", nil).ID

	status := func(code int) func(http.Header, int, any) (int, any) {
		return func(_ http.Header, _ int, body any) (int, any) { return code, body }
	}
	replace := func(with string) func(http.Header, int, any) (int, any) {
		return func(_ http.Header, status int, _ any) (int, any) { return status, json.RawMessage(with) }
	}
	for _, test := range []struct {
		request string
		change  func(h http.Header, status int, body any) (int, any)
		about   subject
		text    string
	}{
		{"POST /invitations", status(201), inStatus, "it is not listed"},
		{"POST /invitations", status(204), inStatus, "it is not listed"},
		{"POST /invitations", status(307), inStatus, "it is not listed"},
		{"GET /invitations", status(404), inStatus, "it is not listed"},
		{"GET /users", status(403), inStatus, "it is not listed"},
		{"POST /invitations", status(400), inBody, `/errors: property "errors" is missing`},
		{"POST /invitations", status(401), inBody, `/errors: property "errors" is missing`}, // not listed, but excused
		{"POST /invitations", status(429), inBody, `/errors: property "errors" is missing`},
		{"GET /users", func(_ http.Header, _ int, body any) (int, any) {
			return 200, map[string]any{"data": body, "total_count": 1}
		}, inBody, "/: value must be an array"},
		{"GET /invitations", func(_ http.Header, _ int, body any) (int, any) {
			return 200, map[string]any{"data": body, "total_count": 1} // not requested
		}, inBody, "/: value must be an array"},
		{"GET /invitations?paginated=true", replace(`{"data":[],"total_count":0,"has_more":false}`), inBody, "/has_more: unknown beside data and total_count"},
		{"GET /invitations?paginated=true", replace(`{"data":[]}`), inBody, "/total_count: no number"},
		{"GET /invitations?paginated=true", replace(`{"data":{},"total_count":0}`), inBody, "/data/: value must be an array"},
		{"GET /invitations?paginated=true", replace(`null`), inBody, "/: Value is not nullable"},
		{"GET /users", replace(`null`), inBody, "/: Value is not nullable"},
		{"GET /users", func(h http.Header, status int, body any) (int, any) {
			h.Set("Content-Type", "text/html")
			return status, body
		}, inBody, `the content type is "text/html"`},
		{"GET /users", replace(`{"errors":[{"code":"form_param_value_invalid","message":"m","long_message":"l"}]}`), inBody, "/: value must be an array"},
		{"GET /users", func(http.Header, int, any) (int, any) {
			return 422, json.RawMessage(`{"errors":[{"code":"form_param_value_invalid","message":"m","long_message":"l","meta":{"param_name":"limit"}}]}`)
		}, inVerdict, "a valid request is refused: form_param_value_invalid limit"},
		{"GET /users", func(http.Header, int, any) (int, any) {
			return 422, json.RawMessage(`{"errors":[{"code":"x","message":"m"}]}`)
		}, inBody, `/errors/0/long_message: property "long_message" is missing`},
	} {
		b := serve(t, changing(clerk.Handler(), test.change))
		b.requireCaught(t, b.try(t, test.request), test.about, test.text)
	}

	// The response to a revoke must say so.
	b := serve(t, changing(clerk.Handler(), func(_ http.Header, status int, body any) (int, any) {
		body.(map[string]any)["status"] = "pending"
		return status, body
	}))
	b.requireCaught(t, b.send(t, "POST", "/invitations/"+id+"/revoke", ""), inBody, `/status: value is not one of the allowed values ["revoked"]`)
}

// The fake's faults that imitate a proxy are caught too.
func TestWrongBodiesAreCaught(t *testing.T) {
	t.Parallel()
	for kind, text := range map[clerkinvitetest.Kind]string{
		clerkinvitetest.Null200:        "/: Value is not nullable",
		clerkinvitetest.Empty200:       `the content type is ""`,
		clerkinvitetest.EmptyObject200: "/: value must be an array",
	} {
		b := setup(t)
		b.clerk.Fail(clerkinvitetest.Fault{Kind: kind})
		b.requireCaught(t, b.send(t, "GET", "/users", ""), inBody, text)
	}
}

func TestWrongRequestsAreCaught(t *testing.T) {
	t.Parallel()
	// A Clerk that accepts everything, so the verdict is wrong as well.
	b := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.Method == http.MethodGet || strings.HasSuffix(r.URL.Path, "/bulk"):
			_, _ = w.Write([]byte(`[]`))
		default:
			_, _ = w.Write([]byte(`{"object":"invitation","id":"inv_1","email_address":"ada@example.com","public_metadata":{},"revoked":true,"status":"revoked","created_at":1,"updated_at":1}`))
		}
	}))
	for _, test := range []struct {
		method, target, body string
		text                 string
	}{
		{"POST", "/invitations", `{"email_address":"ada@example.com","role":"admin"}`, `body: /: property "role" is unsupported`},
		{"POST", "/invitations", `{"expires_in_days":1}`, `body: /email_address: property "email_address" is missing`},
		{"POST", "/invitations", `{"email_address":"ada@example.com","notify":"no"}`, "body: /notify: value must be a boolean"},
		{"POST", "/invitations", `{"email_address":"ada@example.com","expires_in_days":366}`, "body: /expires_in_days: number must be at most 365"},
		{"POST", "/invitations/bulk", `[]`, "body: /: minimum number of items is 1"},
		{"POST", "/invitations/bulk", `[{"email_address":"ada@example.com","x":1}]`, `body: /0: property "x" is unsupported`},
		{"POST", "/invitations/inv_1/revoke", `{"reason":"x"}`, "body: request body not allowed for this request"},
		{"GET", "/invitations?limit=501", "", "query limit: /: number must be at most 500"},
		{"GET", "/invitations?status=pending&status=expired", "", "query status: more than one value"},
		{"GET", "/users?email=ada@example.com", "", "query email: not described"},
	} {
		x := b.send(t, test.method, test.target, test.body)
		b.requireRefused(t, x, test.text)
	}
	b.requireRefused(t, b.send(t, "GET", "/users", "", "Authorization", "Bearer pk_test_1"), "security: no secret key")
	b.requireCaught(t, b.send(t, "GET", "/invitation", ""), inRequest, "there is no such operation")
	b.requireCaught(t, b.send(t, "PATCH", "/invitations", "{}"), inRequest, "there is no such operation")
}

// requireRefused asserts that the request is invalid and was accepted.
func (b *bundle) requireRefused(t *testing.T, x *exchange, text string) {
	t.Helper()
	x.staged = true
	left := x.check(b.all)
	require.Len(t, left, 2*len(b.all), "%v", left)
	for i := range b.all {
		require.Equal(t, inRequest, left[2*i].about)
		require.Equal(t, text, left[2*i].text)
		require.Equal(t, "a wrong request is accepted", left[2*i+1].text)
	}
}

// changing is a handler that alters responses.
func changing(h http.Handler, change func(h http.Header, status int, body any) (int, any)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got := &answer{header: w.Header(), status: 200}
		h.ServeHTTP(got, r)
		var body any
		if err := json.Unmarshal(got.body, &body); err != nil {
			panic(err)
		}
		status, body := change(w.Header(), got.status, body)
		encoded, err := json.Marshal(body)
		if err != nil {
			panic(err)
		}
		w.Header().Del("Content-Length")
		w.WriteHeader(status)
		_, _ = w.Write(encoded) // refused by net/http where the status has no body
	})
}

// answer is an http.ResponseWriter that keeps what is written.
type answer struct {
	header http.Header
	status int
	body   []byte
}

func (a *answer) Header() http.Header    { return a.header }
func (a *answer) WriteHeader(status int) { a.status = status }
func (a *answer) Write(b []byte) (int, error) {
	a.body = append(a.body, b...)
	return len(b), nil
}
