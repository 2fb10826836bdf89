package clerkapi_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkapi"
)

func TestNewRejectsInvalidInput(t *testing.T) {
	t.Parallel()
	for _, k := range []string{"", " ", key + "\n", " " + key, key + "\r\nX-Evil: 1", "sk_test_\x00", "sk_test_\u00a0x", "sk_test_é", "pk_test_abc"} {
		c, err := clerkapi.New(k, nil)
		require.Error(t, err, "%q", k)
		require.Nil(t, c)
		if len(k) > 1 {
			require.NotContains(t, err.Error(), strings.TrimSpace(k))
		}
	}
	for _, base := range []string{
		"/", "api.clerk.com/v1", "//api.clerk.com", "ftp://api.clerk.com/v1", "http://", "https:///v1", "https://:443/v1", " https://api.clerk.com", "https://a b/v1", "http://%zz",
		"https://me:hunter2@api.clerk.com/v1", "https://api.clerk.com/v1?x=hunter2", "https://api.clerk.com/v1?", "https://api.clerk.com/v1#hunter2", "https://api.clerk.com/v1#",
	} {
		c, err := clerkapi.New(key, &clerkapi.Options{BaseURL: base})
		require.ErrorContains(t, err, "Options.BaseURL", base)
		require.NotContains(t, err.Error(), "hunter2")
		require.Nil(t, c)
	}
	_, err := clerkapi.New("", &clerkapi.Options{BaseURL: "x", Timeout: -1})
	require.ErrorContains(t, err, "secret key")
	require.ErrorContains(t, err, "BaseURL")
	require.ErrorContains(t, err, "Timeout")
	_, err = clerkapi.New(key, &clerkapi.Options{CreateTimeout: -1})
	require.ErrorContains(t, err, "CreateTimeout")
}

func TestNewHasDefaults(t *testing.T) {
	t.Parallel()
	_, err := clerkapi.New(key, nil)
	require.NoError(t, err)
	for base, want := range map[string]string{
		"":                             "https://api.clerk.com/v1/invitations/inv_1/revoke",
		"https://clerk.example.com":    "https://clerk.example.com/v1/invitations/inv_1/revoke",
		"https://clerk.example.com/a/": "https://clerk.example.com/a/v1/invitations/inv_1/revoke",
		"http://[::1]:8080/a/v1//":     "http://[::1]:8080/a/v1/invitations/inv_1/revoke",
		"HTTPS://clerk.example.com/v1": "https://clerk.example.com/v1/invitations/inv_1/revoke",
	} {
		var got string
		var left time.Duration
		c, err := clerkapi.New(key, &clerkapi.Options{BaseURL: base, HTTPClient: &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			got = r.URL.String()
			deadline, _ := r.Context().Deadline()
			left = time.Until(deadline)
			return ok(anInv), nil
		})}})
		require.NoError(t, err)
		_, err = c.RevokeInvitation(t.Context(), clerkinvite.RevokeRequest{ID: "inv_1"})
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.InDelta(t, clerkapi.DefaultCreateTimeout, left, float64(15*time.Second))
	}
}

// ok returns a 200 response.
func ok(body string) *http.Response {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
}

func TestKeyIsNeverPrinted(t *testing.T) {
	t.Parallel()
	c, err := clerkapi.New(key, &clerkapi.Options{HTTPClient: &http.Client{}})
	require.NoError(t, err)
	type host struct {
		Exported   *clerkapi.Client
		unexported clerkapi.Client
		api        clerkinvite.ClerkAPI
	}
	var out bytes.Buffer
	for _, v := range []any{c, *c, &c, []any{c}, host{c, *c, c}, &host{c, *c, c}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			_, _ = fmt.Fprintf(&out, verb+"\n", v)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
	}
	require.NotContains(t, out.String(), key[8:])
	require.Contains(t, out.String(), "Options.CreateTimeout")
}

func TestCreateInvitationRequest(t *testing.T) {
	t.Parallel()
	full := clerkinvite.InvitationRequest{
		Email: email, RedirectURL: "https://app.example.com/accept?a=1&b=<2>", ExpiresInDays: 7, Template: "waitlist_invitation",
		SkipEmail: true, IgnoreExisting: true, PublicMetadata: []byte(` {"clerkinvite": {"id": "x", "send": 1}, "big": 12345678901234567890, "html": "<&>"} `),
	}
	const fullJSON = `{"email_address":"` + email + `","redirect_url":"https://app.example.com/accept?a=1&b=<2>","expires_in_days":7,"template_slug":"waitlist_invitation",
		"notify":false,"ignore_existing":true,"public_metadata":{"clerkinvite":{"id":"x","send":1},"big":12345678901234567890,"html":"<&>"}}`
	const leastJSON = `{"email_address":"b@example.com","ignore_existing":false}`
	f := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		if strings.HasSuffix(r.URL.Path, "/bulk") {
			reply(w, 200, "["+anInv+"]")
			return
		}
		reply(w, 200, anInv)
	})
	c := newClient(t, f.URL, clerkapi.Options{})
	before := string(full.PublicMetadata)
	_, err := c.CreateInvitation(t.Context(), full)
	require.NoError(t, err)
	_, err = c.CreateInvitation(t.Context(), clerkinvite.InvitationRequest{Email: "b@example.com"})
	require.NoError(t, err)
	_, err = c.CreateInvitations(t.Context(), []clerkinvite.InvitationRequest{full, {Email: "b@example.com"}})
	require.NoError(t, err)
	require.Equal(t, before, string(full.PublicMetadata))
	got := f.requests()
	for i, want := range []struct{ uri, body string }{
		{"/v1/invitations", fullJSON}, {"/v1/invitations", leastJSON}, {"/v1/invitations/bulk", "[" + fullJSON + "," + leastJSON + "]"},
	} {
		require.Equal(t, http.MethodPost, got[i].Method)
		require.Equal(t, want.uri, got[i].RequestURI)
		require.JSONEq(t, want.body, got[i].Body)
		if i != 1 {
			require.Contains(t, got[i].Body, "12345678901234567890", "numbers keep their digits")
		}
	}
	var invalid *clerkinvite.InvalidParamsError
	for _, r := range []clerkinvite.InvitationRequest{{Email: email, ExpiresInDays: -1}, {Email: email, ExpiresInDays: 366}, {Email: "a b@c.de"}, {Email: strings.Repeat("a", 1024) + "@b.co"}} {
		_, err = c.CreateInvitation(t.Context(), r)
		require.ErrorAs(t, err, &invalid)
	}
	require.Len(t, f.requests(), 3)
}

func TestCreateInvitationResponse(t *testing.T) {
	t.Parallel()
	read := func(body string) *clerkinvite.Invitation {
		inv, err := create(t, newClient(t, answer(t, 200, body).URL, clerkapi.Options{}))
		require.NoError(t, err)
		return inv
	}
	expires := time.UnixMilli(1790000000000).UTC()
	want := clerkinvite.Invitation{
		ID: "inv_1", Email: email, Status: clerkinvite.InvitationPending, URL: clerkinvite.NewSecret("https://clerk.example.com/v1/tickets/accept?ticket=t0k3n"),
		PublicMetadata: []byte(`{"a":[1, 2]}`), CreatedAt: time.UnixMilli(1780000000123).UTC(), ExpiresAt: &expires,
	}
	require.Equal(t, want, *read(anInv))
	require.Equal(t, want, *read("\n\t " + anInv + "\n"))
	require.Equal(t, clerkinvite.Invitation{ID: "inv_1"}, *read(`{"id":"inv_1"}`))
	require.Equal(t, clerkinvite.Invitation{ID: "inv_1"}, *read(`{"id":"inv_1","expires_at":null,"created_at":null,"public_metadata":null,"url":null,"new_field":[{}]}`))
	require.Equal(t, clerkinvite.Invitation{ID: "inv_1"}, *read(`{"id":"inv_1","expires_at":0,"created_at":-5}`))
	require.Equal(t, clerkinvite.Invitation{ID: "inv_1"}, *read(`{"id":"inv_1","expires_at":1e300,"created_at":253402300800000}`), "beyond the year 9999")
	require.Equal(t, clerkinvite.InvitationRevoked, read(`{"id":"inv_1","revoked":true}`).Status)
	inSeconds := read(`{"id":"inv_1","created_at":1780000000,"expires_at":1790000000}`)
	require.Equal(t, time.Unix(1780000000, 0).UTC(), inSeconds.CreatedAt)
	require.Equal(t, expires, *inSeconds.ExpiresAt)
}

func TestCreateInvitationsResponse(t *testing.T) {
	t.Parallel()
	second := strings.Replace(anInv, "inv_1", "inv_2", 1)
	for _, body := range []string{"[" + second + "," + anInv + "]", `{"data":[` + second + "," + anInv + `],"total_count":2}`} {
		got, err := newClient(t, answer(t, 200, body).URL, clerkapi.Options{}).CreateInvitations(t.Context(), []clerkinvite.InvitationRequest{{Email: "a@b.co"}, {Email: "c@d.co"}, {Email: "e@f.co"}})
		require.NoError(t, err)
		require.Len(t, got, 2, "the response can have fewer")
		require.Equal(t, "inv_2", got[0].ID)
		require.Equal(t, "inv_1", got[1].ID)
	}
	f := answer(t, 200, "["+anInv+"]")
	c := newClient(t, f.URL, clerkapi.Options{})
	rs := make([]clerkinvite.InvitationRequest, 11)
	for i := range rs {
		rs[i].Email = fmt.Sprintf("a%d@b.co", i)
	}
	var invalid *clerkinvite.InvalidParamsError
	_, err := c.CreateInvitations(t.Context(), rs)
	require.ErrorAs(t, err, &invalid)
	_, err = c.CreateInvitations(t.Context(), []clerkinvite.InvitationRequest{{Email: "a@b.co"}, {Email: "A@b.co"}})
	require.ErrorAs(t, err, &invalid, "Clerk does not document how it treats duplicates")
	require.Empty(t, f.requests())
	_, err = c.CreateInvitations(t.Context(), rs[:10])
	require.NoError(t, err)
}

func TestListInvitationsRequest(t *testing.T) {
	t.Parallel()
	f := serve(t, func(w http.ResponseWriter, _ *http.Request, n int) {
		reply(w, 200, []string{"[" + anInv + "]", `{"data":[` + anInv + `],"total_count":1}`}[n%2])
	})
	c := newClient(t, f.URL, clerkapi.Options{})
	for _, tc := range []struct {
		q    clerkinvite.InvitationQuery
		want url.Values
	}{
		{clerkinvite.InvitationQuery{OrganizationID: "org_1"}, url.Values{"limit": {"500"}, "offset": {"0"}, "order_by": {"+created_at"}}},
		{clerkinvite.InvitationQuery{OrganizationID: "org_1", Query: email, Status: clerkinvite.InvitationRevoked, Limit: 1, Offset: 1000, NewestFirst: true},
			url.Values{"limit": {"1"}, "offset": {"1000"}, "order_by": {"-created_at"}, "email_address": {email}, "status": {"revoked"}}},
		{clerkinvite.InvitationQuery{AllOrganizations: true}, url.Values{"limit": {"500"}, "offset": {"0"}, "order_by": {"+created_at"}}},
		{clerkinvite.InvitationQuery{AllOrganizations: true, Query: email, Status: clerkinvite.InvitationExpired, Limit: 1, Offset: 1000, NewestFirst: true},
			url.Values{"limit": {"1"}, "offset": {"1000"}, "order_by": {"-created_at"}, "query": {email}, "status": {"expired"}}},
		{clerkinvite.InvitationQuery{}, url.Values{"limit": {"500"}, "offset": {"0"}, "order_by": {"+created_at"}, "paginated": {"true"}}},
		{clerkinvite.InvitationQuery{Query: email, Status: clerkinvite.InvitationRevoked, Limit: 1, Offset: 1000},
			url.Values{"limit": {"1"}, "offset": {"1000"}, "order_by": {"+created_at"}, "paginated": {"true"}, "query": {email}, "status": {"revoked"}}},
		{clerkinvite.InvitationQuery{NewestFirst: true}, url.Values{"limit": {"500"}, "offset": {"0"}, "order_by": {"-created_at"}, "paginated": {"true"}}},
		{clerkinvite.InvitationQuery{Status: clerkinvite.InvitationAccepted, Limit: 500, Offset: 500, NewestFirst: true},
			url.Values{"limit": {"500"}, "offset": {"500"}, "order_by": {"-created_at"}, "paginated": {"true"}, "status": {"accepted"}}},
	} {
		page, err := c.ListInvitations(t.Context(), tc.q)
		require.NoError(t, err)
		require.Len(t, page, 1)
		require.Equal(t, "inv_1", page[0].ID)
		got := f.requests()[len(f.requests())-1]
		path := "/v1/invitations"
		if tc.q.OrganizationID != "" {
			path = "/v1/organizations/org_1/invitations"
		} else if tc.q.AllOrganizations {
			path = "/v1/organization_invitations"
		}
		require.Equal(t, path, got.URL.Path)
		require.Equal(t, tc.want, got.URL.Query())
	}
	n := len(f.requests())
	for _, q := range []clerkinvite.InvitationQuery{{Limit: -1}, {Limit: 501}, {Offset: -1}, {Status: "sent"}, {Status: "pending&status=revoked"},
		{OrganizationID: "org_1", AllOrganizations: true}, {OrganizationID: "org_1", Query: "orginv_1"}, {OrganizationID: "org_1", Query: "a b@example.com"}} {
		var invalid *clerkinvite.InvalidParamsError
		_, err := c.ListInvitations(t.Context(), q)
		require.ErrorAs(t, err, &invalid)
	}
	require.Len(t, f.requests(), n)
}

func TestRevokeInvitation(t *testing.T) {
	t.Parallel()
	f := answer(t, 200, strings.Replace(anInv, `"pending","revoked":false`, `"revoked","revoked":true`, 1))
	inv, err := newClient(t, f.URL, clerkapi.Options{}).RevokeInvitation(t.Context(), clerkinvite.RevokeRequest{ID: "inv_1"})
	require.NoError(t, err)
	require.Equal(t, clerkinvite.InvitationRevoked, inv.Status)
	require.Equal(t, http.MethodPost, f.requests()[0].Method)
	for _, code := range []string{"invitation_already_revoked", "invitation_already_accepted", "resource_not_found"} {
		_, err := revoke.call(t.Context(), newClient(t, answer(t, 400, clerkError(code, "")).URL, clerkapi.Options{}))
		require.Equal(t, code, apiError(t, err).Code)
	}
}

func TestFindUsersVerifiedAddresses(t *testing.T) {
	t.Parallel()
	const users = `[
		{"id":"user_1","primary_email_address_id":"idn_2","banned":true,"created_at":1780000000123,"unsafe_metadata":{"a":1},"email_addresses":[
			{"id":"idn_1","email_address":"Verified@b.co","reserved":false,"verification":{"status":"verified","strategy":"ticket"}},
			{"id":"idn_2","email_address":"reserved@b.co","reserved":true,"verification":{"status":"verified"}},
			{"id":"idn_3","email_address":"null@b.co","verification":null},
			{"id":"idn_4","email_address":"none@b.co"},
			{"id":"idn_5","email_address":"unverified@b.co","verification":{"status":"unverified"}},
			{"id":"idn_6","email_address":"transferable@b.co","verification":{"status":"transferable"}},
			{"id":"idn_7","email_address":"failed@b.co","verification":{"status":"failed"}},
			{"id":"idn_8","email_address":"case@b.co","verification":{"status":"Verified"}},
			null]},
		{"id":"user_2","primary_email_address_id":null,"email_addresses":[],"created_at":1780000000},
		{"id":"user_3","mfa_disabled_at":1.5,"created_at":null}]`
	e := func(n int, address string, verified bool) clerkinvite.UserEmail {
		return clerkinvite.UserEmail{ID: fmt.Sprint("idn_", n), Address: address, Verified: verified}
	}
	want := []clerkinvite.User{
		{ID: "user_1", PrimaryEmailID: "idn_2", Banned: true, Incomplete: true, CreatedAt: time.UnixMilli(1780000000123).UTC(), Emails: []clerkinvite.UserEmail{
			e(1, "Verified@b.co", true), e(2, "reserved@b.co", true), e(3, "null@b.co", false), e(4, "none@b.co", false),
			e(5, "unverified@b.co", false), e(6, "transferable@b.co", false), e(7, "failed@b.co", false), e(8, "case@b.co", false),
		}},
		{ID: "user_2", CreatedAt: time.Unix(1780000000, 0).UTC()},
		{ID: "user_3", Incomplete: true},
	}
	for _, body := range []string{users, `{"data":` + users + `,"total_count":3}`} {
		got, err := newClient(t, answer(t, 200, body).URL, clerkapi.Options{}).FindUsers(t.Context(), clerkinvite.UserQuery{Emails: []string{email}})
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}

func TestFindUsersNeverTruncates(t *testing.T) {
	t.Parallel()
	page := func(from, to int) string {
		var users []string
		for i := from; i < to; i++ {
			users = append(users, fmt.Sprintf(`{"id":"user_%d"}`, i))
		}
		return "[" + strings.Join(users, ",") + "]"
	}
	t.Run("continues after a full page", func(t *testing.T) {
		t.Parallel()
		f := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) {
			switch r.URL.Query().Get("offset") {
			case "":
				reply(w, 200, page(0, 500))
			case "500": // a user was deleted in the meantime, so that the pages overlap
				reply(w, 200, page(499, 999))
			case "1000":
				reply(w, 200, page(999, 1001))
			}
		})
		got, err := newClient(t, f.URL, clerkapi.Options{}).FindUsers(t.Context(), clerkinvite.UserQuery{Emails: []string{email}})
		require.NoError(t, err)
		require.Len(t, got, 1001)
		require.Len(t, f.requests(), 3)
	})
	t.Run("fails if a later page fails", func(t *testing.T) {
		t.Parallel()
		f := serve(t, func(w http.ResponseWriter, _ *http.Request, n int) {
			if n == 1 {
				reply(w, 200, page(0, 500))
			} else {
				reply(w, 429, "", "Retry-After", "9")
			}
		})
		got, err := newClient(t, f.URL, clerkapi.Options{}).FindUsers(t.Context(), clerkinvite.UserQuery{Emails: []string{email}})
		require.Nil(t, got)
		require.Equal(t, 9*time.Second, apiError(t, err).RetryAfter)
	})
	t.Run("ends if pages repeat", func(t *testing.T) {
		t.Parallel()
		f := answer(t, 200, page(0, 500))
		got, err := newClient(t, f.URL, clerkapi.Options{}).FindUsers(t.Context(), clerkinvite.UserQuery{Emails: []string{email}})
		require.Nil(t, got)
		apiError(t, err)
		require.Len(t, f.requests(), 2)
	})
	t.Run("sends addresses and IDs separately", func(t *testing.T) {
		t.Parallel()
		f := answer(t, 200, page(1, 3))
		got, err := newClient(t, f.URL, clerkapi.Options{}).FindUsers(t.Context(), clerkinvite.UserQuery{Emails: []string{email}, IDs: []string{"user_1", "user_2"}})
		require.NoError(t, err)
		require.Len(t, got, 2)
		r := f.requests()
		require.Len(t, r, 2)
		require.Equal(t, []string{email}, r[0].URL.Query()["email_address"])
		require.NotContains(t, r[0].URL.Query(), "user_id")
		require.Equal(t, []string{"user_1", "user_2"}, r[1].URL.Query()["user_id"])
		require.NotContains(t, r[1].URL.Query(), "email_address")
	})
	t.Run("keeps URLs short", func(t *testing.T) {
		t.Parallel()
		var emails, asked []string
		for i := range 100 {
			emails = append(emails, fmt.Sprintf("%03d%s@%s.example.com", i, strings.Repeat("+", 61), strings.Repeat("d", 63)))
		}
		f := answer(t, 200, "[]")
		_, err := newClient(t, f.URL, clerkapi.Options{}).FindUsers(t.Context(), clerkinvite.UserQuery{Emails: emails})
		require.NoError(t, err)
		for _, r := range f.requests() {
			require.Less(t, len(r.RequestURI), 8000)
			asked = append(asked, r.URL.Query()["email_address"]...)
		}
		require.Equal(t, emails, asked)
	})
}

// FuzzResponse returns any response. Every result must be one that the client documents.
func FuzzResponse(f *testing.F) {
	for _, body := range []string{"", "null", "{}", "[]", "[{}]", anInv, "[" + anInv + "]", `{"data":[` + anInv + `]}`, clerkError("duplicate_record", `{"email_addresses":["`+email+`"]}`), "<html>", "\xff",
		orgInv, `{"data":[` + orgInv + `],"total_count":1}`, membership, "[" + membership + `,{"organization":{"id":"org_2"},"public_user_data":{"user_id":"user_2"}}]`, strings.Replace(membership, "user_1", "user_2", 1)} {
		f.Add(200, body, "")
		f.Add(422, body, "7")
	}
	f.Add(429, "", "Sun, 06 Nov 1994 08:49:37 GMT")
	f.Fuzz(func(t *testing.T, status int, body, retryAfter string) {
		c, err := clerkapi.New(key, &clerkapi.Options{HTTPClient: &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: status, Header: http.Header{"Retry-After": {retryAfter}}, Body: io.NopCloser(strings.NewReader(body))}, nil
		})}})
		require.NoError(t, err)
		c.SetPause(time.Nanosecond)
		for _, m := range methods {
			v, err := m.call(context.Background(), c)
			if err != nil {
				require.Nil(t, v)
				var api *clerkinvite.APIError
				require.ErrorAs(t, err, &api)
				require.Equal(t, status, api.StatusCode)
				require.False(t, api.NotSent)
				require.GreaterOrEqual(t, api.RetryAfter, time.Duration(0))
				require.LessOrEqual(t, api.RetryAfter, 24*time.Hour)
				continue
			}
			require.Equal(t, 2, status/100)
			switch v := v.(type) {
			case *clerkinvite.Invitation:
				require.NotEmpty(t, v.ID)
			case []clerkinvite.Invitation:
				for _, inv := range v {
					require.True(t, inv.ID != "" || m.lists())
				}
			case []clerkinvite.User:
				for _, u := range v {
					require.NotEmpty(t, u.ID)
				}
			case []clerkinvite.Membership:
				for i, found := range v {
					require.Equal(t, "org_1", found.OrganizationID)
					require.Contains(t, []string{"user_1", "user_2"}, found.UserID)
					require.True(t, i == 0 || found.UserID != v[0].UserID)
				}
			}
		}
	})
}
