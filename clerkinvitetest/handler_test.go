package clerkinvitetest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

const invitationJSON = `{"object":"invitation","id":"inv_000001","email_address":"ada@example.com","public_metadata":{"a":"<b>"},"revoked":false,
	"status":"pending","url":"https://clerk.example.test/v1/tickets/accept?ticket=ticket_of_inv_000001",
	"created_at":1772355600000,"updated_at":1772355600000,"expires_at":1772960400000}`

func TestHandlerCreate(t *testing.T) {
	t.Parallel()
	c, _ := newClerk()
	root := serve(t, c)
	r := send(t, "POST", root+"/v1/invitations", `{"email_address":"Ada@Example.com","public_metadata":{ "a": "<b>" },"redirect_url":"https://app.example.com/x",
		"notify":null,"ignore_existing":null,"expires_in_days":7,"template_slug":"waitlist_invitation"}`)
	r.requireJSON(t, 200, invitationJSON)
	require.Contains(t, r.body, `"<b>"`, "no HTML escapes")
	require.Equal(t, []clerkinvitetest.Mail{{
		InvitationID: "inv_000001", To: ada, URL: "https://clerk.example.test/v1/tickets/accept?ticket=ticket_of_inv_000001",
		Template: "waitlist_invitation", At: start,
	}}, c.SentMail())

	r = send(t, "POST", root+"/v1/invitations", `{"email_address":"ada@example.com"}`)
	r.requireJSON(t, 400, `{"errors":[{"code":"duplicate_record","message":"duplicate invitation",
		"long_message":"There are already pending invitations for the following email addresses: ada@example.com",
		"meta":{"email_addresses":["ada@example.com"]}}],"clerk_trace_id":"`+r.header.Get("Clerk-Trace-Id")+`"}`)

	c.AddVerifiedUser("grace@example.com")
	r = send(t, "POST", root+"/v1/invitations", `{"email_address":"grace@example.com"}`)
	r.requireJSON(t, 422, `{"errors":[{"code":"form_identifier_exists","message":"already exists",
		"long_message":"That email address is taken. Please try another.",
		"meta":{"param_name":"email_address"}}],"clerk_trace_id":"`+r.header.Get("Clerk-Trace-Id")+`"}`)
	require.Equal(t, 1, c.Emails())
	require.Equal(t, map[clerkinvitetest.Call]int{clerkinvitetest.CallCreate: 3}, c.Requests())
}

func TestHandlerBulkIsABareArray(t *testing.T) {
	t.Parallel()
	c, _ := newClerk()
	r := send(t, "POST", serve(t, c)+"/v1/invitations/bulk",
		`[{"email_address":"ada@example.com","public_metadata":{"a":"<b>"},"expires_in_days":7},{"email_address":"b@example.com","notify":false,"public_metadata":null,"redirect_url":null}]`)
	require.Equal(t, 200, r.status)
	var items []json.RawMessage
	require.NoError(t, json.Unmarshal([]byte(r.body), &items))
	require.Len(t, items, 2)
	require.JSONEq(t, invitationJSON, string(items[0]))
	require.Equal(t, map[string]any{}, parse(t, string(items[1]))["public_metadata"], "an empty object")
	require.Equal(t, 1, c.Emails(), "the second request has notify=false")
	require.Len(t, c.OpenInvitations("b@example.com"), 1)
}

func TestHandlerRejectsInvalidRequests(t *testing.T) {
	t.Parallel()
	c, _ := newClerk()
	c.AddOrganization(acme, clerkinvitetest.OrganizationSpec{})
	root := serve(t, c) + "/v1/"
	item := func(more string) string { return `{"email_address":"ada@example.com"` + more + `}` }
	large := `,"public_metadata":{"a":"` + strings.Repeat("x", 8<<10) + `"}`
	for _, test := range []struct {
		request, body string
		status        int
		code, param   string
	}{
		{"POST invitations", item(`,"role":"admin"`), 422, "form_param_unknown", "role"},
		{"POST invitations", `{}`, 422, "form_param_missing", "email_address"},
		{"POST invitations", `{"email_address":null}`, 422, "form_param_nil", "email_address"},
		{"POST invitations", `{"email_address":7}`, 422, "form_param_format_invalid", "email_address"},
		{"POST invitations", `{"email_address":"ada"}`, 422, "form_param_format_invalid", "email_address"},
		{"POST invitations", `{"email_address":"ada @example.com"}`, 422, "form_param_format_invalid", "email_address"},
		{"POST invitations", item(`,"expires_in_days":0`), 422, "form_param_value_invalid", "expires_in_days"},
		{"POST invitations", item(`,"expires_in_days":366`), 422, "form_param_value_invalid", "expires_in_days"},
		{"POST invitations", item(`,"expires_in_days":"7"`), 422, "form_param_format_invalid", "expires_in_days"},
		{"POST invitations", item(`,"template_slug":"other"`), 422, "form_param_value_invalid", "template_slug"},
		{"POST invitations", item(`,"redirect_url":"x"`), 422, "form_param_format_invalid", "redirect_url"},
		{"POST invitations", item(`,"redirect_url":null`), 422, "form_param_nil", "redirect_url"},
		{"POST invitations", item(`,"public_metadata":null`), 422, "form_param_nil", "public_metadata"},
		{"POST invitations", item(`,"public_metadata":[]`), 422, "form_param_format_invalid", "public_metadata"},
		{"POST invitations", item(large), 422, "form_param_exceeds_allowed_size", "public_metadata"},
		{"POST invitations", item(`,"notify":"no"`), 422, "form_param_format_invalid", "notify"},
		{"POST invitations", `null`, 400, "request_body_invalid", ""},
		{"POST invitations", ``, 400, "request_body_invalid", ""},
		{"POST invitations", `[]`, 400, "request_body_invalid", ""},
		{"POST invitations", `"` + strings.Repeat("x", 2<<20) + `"`, 413, "request_body_too_large", ""},
		{"POST invitations/bulk", `[` + item("") + `,` + item(large) + `]`, 422, "form_param_exceeds_allowed_size", "public_metadata"},
		{"POST invitations/bulk", `[` + item("") + `,` + item(`,"x":1`) + `]`, 422, "form_param_unknown", "x"},
		{"POST invitations/bulk", `[` + item("") + strings.Repeat(`,`+item(""), 10) + `]`, 400, "bulk_size_exceeded", ""},
		{"POST invitations/bulk", `[` + item("") + `,` + item("") + `]`, 400, "duplicate_record", ""},
		{"POST invitations/bulk", `[]`, 400, "request_body_invalid", ""},
		{"POST invitations/bulk", `{}`, 400, "request_body_invalid", ""},
		{"POST invitations/inv_1/revoke", ``, 404, "resource_not_found", ""},
		{"GET invitations?limit=0", ``, 422, "form_param_value_invalid", "limit"},
		{"GET invitations?limit=501", ``, 422, "form_param_value_invalid", "limit"},
		{"GET invitations?offset=-1", ``, 422, "form_param_value_invalid", "offset"},
		{"GET invitations?status=open", ``, 422, "form_param_value_invalid", "status"},
		{"GET invitations?status=pending&status=expired", ``, 422, "form_param_value_invalid", "status"},
		{"GET invitations?order_by=status", ``, 422, "form_param_value_invalid", "order_by"},
		{"GET invitations?paginated=yes", ``, 422, "form_param_value_invalid", "paginated"},
		{"GET invitations?email_address=a", ``, 422, "form_param_unknown", "email_address"},
		{"GET users?limit=501", ``, 422, "form_param_value_invalid", "limit"},
		{"GET users?x" + strings.Repeat("&email_address=a", 101), ``, 422, "form_param_array_size_exceeded", "email_address"},
		{"GET users?starting_after=user_1", ``, 422, "form_param_unknown", "starting_after"},
		{"GET users/user_1", ``, 404, "resource_not_found", ""},
		{"GET organizations", ``, 404, "resource_not_found", ""},
		{"POST organizations/org_acme/invitations", item(``), 422, "form_param_missing", "role"},
		{"POST organizations/org_acme/invitations", item(`,"role":null`), 422, "form_param_nil", "role"},
		{"POST organizations/org_acme/invitations", item(`,"role":7`), 422, "form_param_format_invalid", "role"},
		{"POST organizations/org_acme/invitations", item(`,"role":"org:pilot"`), 404, "resource_not_found", "role"},
		{"POST organizations/org_acme/invitations", item(`,"role":"org:member","ignore_existing":false`), 422, "form_param_unknown", "ignore_existing"},
		{"POST organizations/org_acme/invitations", item(`,"role":"org:member","template_slug":"invitation"`), 422, "form_param_unknown", "template_slug"},
		{"POST organizations/org_acme/invitations", item(`,"role":"org:member","private_metadata":[]`), 422, "form_param_format_invalid", "private_metadata"},
		{"POST organizations/org_acme/invitations", item(`,"role":"org:member"` + large), 422, "form_param_exceeds_allowed_size", "public_metadata"},
		{"POST organizations/org_acme/invitations", `[]`, 400, "request_body_invalid", ""},
		{"POST organizations/org_acme/invitations/bulk", `[` + item(`,"role":"org:member"`) + `,` + item(``) + `]`, 422, "form_param_missing", "role"},
		{"POST organizations/org_acme/invitations/bulk", `[` + item(`,"role":"org:member"`) + strings.Repeat(`,`+item(`,"role":"org:member"`), 10) + `]`, 400, "bulk_size_exceeded", ""},
		{"POST organizations/org_acme/invitations/bulk", `[` + item(`,"role":"org:member"`) + `,` + item(`,"role":"org:member"`) + `]`, 400, "organization_invitation_not_unique", ""},
		{"POST organizations/org_acme/invitations/bulk", `[]`, 400, "request_body_invalid", ""},
		{"POST organizations/org_acme/invitations/orginv_1/revoke", `[]`, 400, "request_body_invalid", ""},
		{"POST organizations/org_acme/invitations/orginv_1/revoke", `{"x":1}`, 422, "form_param_unknown", "x"},
		{"POST organizations/org_acme/invitations/orginv_1/revoke", ``, 404, "resource_not_found", ""},
		{"GET organizations/org_acme/invitations?query=a", ``, 422, "form_param_unknown", "query"},
		{"GET organizations/org_acme/invitations?paginated=true", ``, 422, "form_param_unknown", "paginated"},
		{"GET organizations/org_acme/invitations?order_by=expires_at", ``, 422, "form_param_value_invalid", "order_by"},
		{"GET organizations/org_x/invitations", ``, 404, "resource_not_found", ""},
		{"GET organization_invitations?email_address=a", ``, 422, "form_param_unknown", "email_address"},
		{"GET organization_invitations?limit=501", ``, 422, "form_param_value_invalid", "limit"},
		{"GET organizations/org_acme/memberships?email_address=a", ``, 422, "form_param_unknown", "email_address"},
		{"GET organizations/org_acme/memberships?x" + strings.Repeat("&user_id=a", 101), ``, 422, "form_param_array_size_exceeded", "user_id"},
		{"POST organizations/org_acme/memberships", `{"role":"org:member"}`, 422, "form_param_missing", "user_id"},
		{"POST organizations/org_acme/memberships", `{"user_id":"user_1","role":"org:member","x":1}`, 422, "form_param_unknown", "x"},
		{"DELETE organizations/org_acme/memberships/user_1", ``, 404, "resource_not_found", ""},
		{"DELETE invitations", ``, 404, "resource_not_found", ""},
	} {
		method, path, _ := strings.Cut(test.request, " ")
		r := send(t, method, root+path, test.body)
		what := test.request + " " + test.body[:min(len(test.body), 80)]
		require.Equal(t, test.status, r.status, what)
		response := parse(t, r.body)
		require.Equal(t, r.header.Get("Clerk-Trace-Id"), response["clerk_trace_id"], what)
		first := response["errors"].([]any)[0].(map[string]any)
		require.Equal(t, test.code, first["code"], what)
		require.NotEmpty(t, first["message"], what)
		require.NotEmpty(t, first["long_message"], what)
		if test.param != "" {
			require.Equal(t, map[string]any{"param_name": test.param}, first["meta"], what)
		}
	}
	r := send(t, "POST", root+"invitations", item(""), "Content-Type", "application/x-www-form-urlencoded")
	require.Equal(t, 415, r.status)
	require.Zero(t, c.Emails())
	require.Empty(t, c.Invitations(ada))
}

// listed returns one field of each element, up to an at sign. Without paginated the response is a bare array.
func listed(t *testing.T, target, field string) (values []string) {
	t.Helper()
	r := send(t, "GET", target, "")
	require.Equal(t, 200, r.status, r.body)
	var page []map[string]any
	require.NoError(t, json.Unmarshal([]byte(r.body), &page))
	for _, e := range page {
		value, _, _ := strings.Cut(e[field].(string), "@")
		values = append(values, value)
	}
	return values
}

func TestHandlerListsInvitations(t *testing.T) {
	t.Parallel()
	c, k := newClerk()
	root := serve(t, c) + "/v1/invitations"
	for i := range 12 {
		mustCreate(t, c, fmt.Sprintf("p%02d@example.com", i))
		k.Advance(time.Second)
	}
	revoked, expired := c.Invitations("p00@example.com")[0].ID, c.Invitations("p01@example.com")[0].ID
	send(t, "POST", root+"/"+revoked+"/revoke", "")
	c.ExpireNow(expired)
	_, err := c.Accept("p02@example.com")
	require.NoError(t, err)

	list := func(query string) []string { return listed(t, root+"?"+query, "email_address") }
	newest := []string{"p11", "p10", "p09", "p08", "p07", "p06", "p05", "p04", "p03", "p02"}
	require.Equal(t, newest, list(""), "ten, newest first")
	require.Equal(t, newest, list("order_by=-created_at"))
	require.Equal(t, []string{"p01", "p02"}, list("order_by=created_at&limit=2"))
	require.Equal(t, []string{"p01", "p02"}, list("order_by="+url.QueryEscape("+created_at")+"&limit=2"))
	require.Equal(t, []string{"p01", "p02"}, list("order_by=+email_address&limit=2"), "an unescaped plus")
	require.Equal(t, []string{"p11"}, list("order_by=-expires_at&limit=1"))
	require.Equal(t, []string{"p01"}, list("offset=10&limit=500"))
	require.Empty(t, list("offset=11"))
	require.Equal(t, []string{"p00"}, list("status=revoked"), "only with status=revoked")
	require.Equal(t, []string{"p01"}, list("status=expired"))
	require.Equal(t, []string{"p02"}, list("status=accepted"))
	require.Len(t, list("status=pending&limit=500"), 9)
	require.Equal(t, []string{"p03"}, list("query=P03@example.com"))
	require.Equal(t, []string{"p01"}, list("query="+expired))
	require.Empty(t, list("query=p0"), "not by a part")
	require.Empty(t, list("query="+revoked))
	require.Equal(t, []string{"p00"}, list("status=revoked&query="+revoked))

	page := parse(t, send(t, "GET", root+"?paginated=true&limit=1&status=pending", "").body)
	require.Len(t, page["data"], 1)
	require.EqualValues(t, 9, page["total_count"])
	send(t, "GET", root+"?paginated=true&query=unknown", "").requireJSON(t, 200, `{"data":[],"total_count":0}`)

	c.SetBehavior(clerkinvitetest.Behavior{QueryMatchesParts: true})
	require.Equal(t, []string{"p11", "p10"}, list("query=P1"))
	c.SetBehavior(clerkinvitetest.Behavior{CaseSensitive: true})
	require.Empty(t, list("query=P03@example.com"))
}

func TestHandlerRevokes(t *testing.T) {
	t.Parallel()
	c, k := newClerk()
	root := serve(t, c) + "/v1/invitations/"
	code := func(r reply) string {
		return parse(t, r.body)["errors"].([]any)[0].(map[string]any)["code"].(string)
	}
	id := mustCreate(t, c, ada).ID
	k.Advance(time.Minute)
	r := send(t, "POST", root+id+"/revoke", "null")
	require.Equal(t, 200, r.status)
	inv := parse(t, r.body)
	require.Equal(t, "revoked", inv["status"])
	require.Equal(t, true, inv["revoked"])
	require.Greater(t, inv["updated_at"], inv["created_at"])

	r = send(t, "POST", root+id+"/revoke", "")
	require.Equal(t, 400, r.status)
	require.Equal(t, "invitation_already_revoked", code(r))

	id = mustCreate(t, c, ada).ID // a revoked one does not block
	_, err := c.Accept(ada)
	require.NoError(t, err)
	r = send(t, "POST", root+id+"/revoke", "")
	require.Equal(t, 400, r.status)
	require.Equal(t, "invitation_already_accepted", code(r))
	require.Equal(t, 3, c.Requests()[clerkinvitetest.CallRevoke])
}

func TestHandlerUsers(t *testing.T) {
	t.Parallel()
	c, k := newClerk()
	root := serve(t, c) + "/v1/users"
	c.AddUser(clerkinvitetest.UserSpec{ID: "user_a", Primary: 1, Banned: true, Emails: []clerkinvitetest.EmailSpec{
		{Address: ada}, {Address: "Ada@Work.example", Verified: true}, {Address: "r@example.com", Verified: true, Reserved: true}, {Address: "n@example.com", NullVerification: true},
	}})
	k.Advance(time.Second)
	c.AddUser(clerkinvitetest.UserSpec{ID: "user_b", Primary: -1, Emails: []clerkinvitetest.EmailSpec{{Address: ada}}})
	for range 11 {
		k.Advance(time.Second)
		c.AddUser(clerkinvitetest.UserSpec{})
	}

	u := parse(t, send(t, "GET", root+"/user_a", "").body)
	require.Equal(t, "user", u["object"])
	require.Equal(t, "idn_000002", u["primary_email_address_id"])
	require.Equal(t, true, u["banned"])
	require.EqualValues(t, start.UnixMilli(), u["created_at"])
	require.Equal(t, map[string]any{}, u["public_metadata"])
	emails := u["email_addresses"].([]any)
	require.Len(t, emails, 4)
	var states []string
	for _, e := range emails {
		e := e.(map[string]any)
		v, _ := e["verification"].(map[string]any)
		states = append(states, fmt.Sprint(e["email_address"], " ", v["status"], " ", e["reserved"]))
	}
	require.Equal(t, []string{
		"ada@example.com unverified false", "Ada@Work.example verified false", "r@example.com verified true", "n@example.com <nil> false",
	}, states)
	require.Nil(t, parse(t, send(t, "GET", root+"/user_b", "").body)["primary_email_address_id"])

	list := func(query string) []string { return listed(t, root+"?"+query, "id") }
	require.Len(t, list(""), 10)
	require.Len(t, list("limit=500"), 13)
	require.Equal(t, []string{"user_b", "user_a"}, list("email_address=ADA@example.com&email_address=unknown@example.com"), "all holders, newest first")
	require.Equal(t, []string{"user_a", "user_b"}, list("email_address=ada@example.com&order_by=created_at"))
	require.Equal(t, []string{"user_a"}, list("email_address=ada@example.com&offset=1"))
	require.Equal(t, []string{"user_a"}, list("email_address=ada@work.example"))
	require.Equal(t, []string{"user_b", "user_a"}, list("user_id=user_a&user_id=user_b&user_id=user_x"))
	require.Empty(t, list("email_address=example.com"))
	send(t, "GET", root+"?email_address=unknown@example.com", "").requireJSON(t, 200, `[]`)
	send(t, "GET", root+"/count", "").requireJSON(t, 200, `{"object":"total_count","total_count":13}`)
	send(t, "GET", root+"/count?email_address=ada@example.com", "").requireJSON(t, 200, `{"object":"total_count","total_count":2}`)

	c.DeleteUser("user_b")
	require.Equal(t, []string{"user_a"}, list("email_address=ada@example.com"))
	require.Equal(t, 404, send(t, "GET", root+"/user_b", "").status)
	c.SetBehavior(clerkinvitetest.Behavior{CaseSensitive: true})
	require.Empty(t, list("email_address=ada@work.example"))
	c.SetBehavior(clerkinvitetest.Behavior{HideUnverified: true})
	require.Empty(t, list("email_address=ada@example.com"))
	require.Equal(t, []string{"user_a"}, list("email_address=ada@work.example"))
}

func TestHandlerRequiresTheKey(t *testing.T) {
	t.Parallel()
	c, _ := newClerk()
	root := serve(t, c) + "/v1/users"
	require.Equal(t, 200, send(t, "GET", root, "").status, "no key is set")
	c.SetSecretKey("sk_test_right")
	for _, test := range []struct {
		header []string
		status int
		code   string
	}{
		{nil, 401, "authorization_header_format_invalid"},
		{[]string{"Authorization", "sk_test_right"}, 401, "authorization_header_format_invalid"},
		{[]string{"Authorization", "Bearer sk_test_wrong"}, 401, "clerk_key_invalid"},
		{[]string{"Authorization", "Bearer sk_test_right"}, 200, ""},
	} {
		r := send(t, "GET", root, "", test.header...)
		require.Equal(t, test.status, r.status)
		require.Contains(t, r.body, test.code)
	}
	require.Equal(t, 5, c.RequestCount())
	c.ResetCounts()
	require.Zero(t, c.RequestCount())
	require.Empty(t, c.Requests())
}

func TestHandlerRedirects(t *testing.T) {
	t.Parallel()
	c, _ := newClerk()
	root := serve(t, c)
	c.Fail(clerkinvitetest.Fault{Kind: clerkinvitetest.Redirect307, When: clerkinvitetest.After})
	r := send(t, "POST", root+"/v1/invitations?x=1", `{"email_address":"ada@example.com"}`)
	require.Equal(t, 307, r.status)
	require.Equal(t, "/v1/invitations?x=1", r.header.Get("Location"))
	require.Empty(t, r.body)

	// A client that follows the redirect gets a duplicate of its own invitation.
	c.Fail(clerkinvitetest.Fault{Kind: clerkinvitetest.Redirect307, When: clerkinvitetest.After})
	resp, err := http.Post(root+"/v1/invitations", "application/json", strings.NewReader(`{"email_address":"b@example.com"}`))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 400, resp.StatusCode)
	require.Equal(t, 2, c.Emails())
}
