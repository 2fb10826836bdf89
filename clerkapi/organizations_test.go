package clerkapi_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkapi"
)

// An invitation names its organization in one of two fields. If it has neither, the path of the
// request tells.
func TestOrganizationOfAnInvitation(t *testing.T) {
	t.Parallel()
	for body, want := range map[string][3]string{ // in responses to requests for one organization, all and none
		`{"id":"i","organization_id":"org_2"}`:                                           {"org_2", "org_2", "org_2"},
		`{"id":"i","public_organization_data":{"id":"org_2"}}`:                           {"org_2", "org_2", "org_2"},
		`{"id":"i","organization_id":"org_2","public_organization_data":{"id":"org_3"}}`: {"org_2", "org_2", "org_2"},
		`{"id":"i"}`:                                 {"org_1", "", ""},
		`{"id":"i","organization_id":7}`:             {"org_1", "", ""},
		`{"id":"i","organization_id":"../users"}`:    {"org_1", "", ""},
		`{"id":"i","public_organization_data":true}`: {"org_1", "", ""},
	} {
		one, list := answer(t, 200, body), answer(t, 200, "["+body+"]")
		for i, q := range []clerkinvite.InvitationQuery{{OrganizationID: "org_1"}, {AllOrganizations: true}, {}} {
			page, err := newClient(t, list.URL, clerkapi.Options{}).ListInvitations(t.Context(), q)
			require.NoError(t, err)
			require.Equal(t, []clerkinvite.Invitation{{ID: "i", OrganizationID: want[i]}}, page, body)
		}
		r := clerkinvite.InvitationRequest{Email: email, OrganizationID: "org_1", Role: "org:member"}
		created, err := newClient(t, list.URL, clerkapi.Options{}).CreateInvitations(t.Context(), []clerkinvite.InvitationRequest{r})
		require.NoError(t, err)
		require.Equal(t, want[0], created[0].OrganizationID)
		inv, err := newClient(t, one.URL, clerkapi.Options{}).CreateInvitation(t.Context(), r)
		require.NoError(t, err)
		require.Equal(t, want[0], inv.OrganizationID)
		inv, err = newClient(t, one.URL, clerkapi.Options{}).RevokeInvitation(t.Context(), clerkinvite.RevokeRequest{ID: "i", OrganizationID: "org_1"})
		require.NoError(t, err)
		require.Equal(t, want[0], inv.OrganizationID)
	}
}

// member is a membership on the wire.
func member(organization, user string) string {
	return fmt.Sprintf(`{"object":"organization_membership","id":"orgmem_1","role":"org:admin","organization":{"id":%q},"public_user_data":{"user_id":%q}}`, organization, user)
}

func TestFindMembershipsResponse(t *testing.T) {
	t.Parallel()
	one := clerkinvite.Membership{OrganizationID: "org_1", UserID: "user_1", Role: "org:admin"}
	two := clerkinvite.Membership{OrganizationID: "org_1", UserID: "user_2", Role: "org:admin"}
	good := member("org_1", "user_1")
	for name, tc := range map[string]struct {
		items string
		want  []clerkinvite.Membership
		fails bool
	}{
		"both":                      {items: member("org_1", "user_2") + "," + good, want: []clerkinvite.Membership{two, one}},
		"one":                       {items: good, want: []clerkinvite.Membership{one}},
		"none":                      {},
		"twice":                     {items: good + "," + good, want: []clerkinvite.Membership{one}},
		"others were not requested": {items: member("org_1", "user_3") + "," + good, want: []clerkinvite.Membership{one}},
		"only others":               {items: member("org_1", "user_3")},
		"another organization":      {items: member("org_2", "user_2") + "," + good, want: []clerkinvite.Membership{one}},
		"only another organization": {items: member("org_2", "user_2"), fails: true},
		"odd ones":                  {items: `null,7,{},[],{"organization":7,"public_user_data":7},{"organization":{"id":"org_1"}},` + good, want: []clerkinvite.Membership{one}},
		"only odd ones":             {items: `{"organization":{"id":"org_1"},"public_user_data":{"user_id":7}}`, fails: true},
		"role a number":             {items: strings.Replace(good, `"org:admin"`, "7", 1), want: []clerkinvite.Membership{{OrganizationID: "org_1", UserID: "user_1"}}},
		"a full page":               {items: strings.Repeat(member("org_1", "user_3")+",", 499) + good, fails: true},
		"a page that is not full":   {items: strings.Repeat(member("org_1", "user_3")+",", 498) + good, want: []clerkinvite.Membership{one}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, body := range []string{"[" + tc.items + "]", `{"data":[` + tc.items + `],"total_count":1}`} {
				f := answer(t, 200, body)
				got, err := newClient(t, f.URL, clerkapi.Options{}).FindMemberships(t.Context(), clerkinvite.MembershipQuery{OrganizationID: "org_1", UserIDs: []string{"user_1", "user_2"}})
				require.Equal(t, tc.want, got)
				require.Len(t, f.requests(), 1)
				if tc.fails {
					require.Equal(t, 200, apiError(t, err).StatusCode)
					continue
				}
				require.NoError(t, err)
			}
		})
	}
}

func TestFindMembershipsKeepsURLsShort(t *testing.T) {
	t.Parallel()
	var ids, requested []string
	for i := range 100 {
		ids = append(ids, fmt.Sprintf("user_%0250d", i))
	}
	f := serve(t, func(w http.ResponseWriter, r *http.Request, n int) {
		if n == 2 { // of several
			reply(w, 503, "")
			return
		}
		var members []string
		for _, id := range r.URL.Query()["user_id"] {
			requested = append(requested, id)
			members = append(members, member("org_1", id))
		}
		reply(w, 200, `{"data":[`+strings.Join(members, ",")+`]}`)
	})
	found, err := newClient(t, f.URL, clerkapi.Options{}).FindMemberships(t.Context(), clerkinvite.MembershipQuery{OrganizationID: "org_1", UserIDs: ids})
	require.NoError(t, err)
	require.Len(t, found, 100)
	require.Equal(t, ids, requested)
	for _, r := range f.requests() {
		require.Less(t, len(r.RequestURI), 8000)
	}
	require.Greater(t, len(f.requests()), 3)
}

func TestOrganizationRoles(t *testing.T) {
	t.Parallel()
	for items, want := range map[string][]string{
		`{"key":"org:b"},{"key":"org:a"}`:                {"org:b", "org:a"},
		`null,7,{},{"key":7},{"key":""},{"key":"org:a"}`: {"org:a"},
		``: nil,
		strings.Repeat(`{"key":""},`, 498) + `{"key":"org:a"}`: {"org:a"},
	} {
		f := answer(t, 200, `{"data":[`+items+`],"total_count":1}`)
		got, err := newClient(t, f.URL, clerkapi.Options{}).OrganizationRoles(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.Equal(t, "/v1/organization_roles?limit=500", f.requests()[0].RequestURI)
	}
	for _, items := range []string{`{"object":"role","id":"role_1"}`, strings.Repeat(`{"key":"org:a"},`, 499) + `{"key":"org:b"}`} {
		f := answer(t, 200, `{"data":[`+items+`],"total_count":1}`)
		_, err := newClient(t, f.URL, clerkapi.Options{}).OrganizationRoles(t.Context())
		require.Equal(t, 200, apiError(t, err).StatusCode, "some roles would be missing")
	}
}

func TestMembershipChanges(t *testing.T) {
	t.Parallel()
	m := clerkinvite.Membership{OrganizationID: "org_1", UserID: "user_1", Role: "org:admin"}
	for _, body := range []string{member("org_1", "user_1"), `{"organization":{"id":"org_1"}}`, `{"organization":{"id":"org_1"},"public_user_data":null}`} {
		f := answer(t, 200, body)
		c := newClient(t, f.URL, clerkapi.Options{})
		require.NoError(t, c.AddMember(t.Context(), m))
		require.NoError(t, c.RemoveMember(t.Context(), clerkinvite.Membership{OrganizationID: "org_1", UserID: "user_1"}))
		got := f.requests()
		require.Equal(t, http.MethodPost, got[0].Method)
		require.Equal(t, "/v1/organizations/org_1/memberships", got[0].RequestURI)
		require.JSONEq(t, `{"user_id":"user_1","role":"org:admin"}`, got[0].Body)
		require.Equal(t, http.MethodDelete, got[1].Method)
		require.Equal(t, "/v1/organizations/org_1/memberships/user_1", got[1].RequestURI)
		require.Equal(t, "null", got[1].Body, "as the SDK does")
	}
	for _, body := range []string{member("org_2", "user_1"), member("org_1", "user_2"), `{"public_user_data":{"user_id":"user_1"}}`, `{"object":"organization_membership","id":"orgmem_1"}`, anInv} {
		c := newClient(t, answer(t, 200, body).URL, clerkapi.Options{})
		require.Equal(t, 200, apiError(t, c.AddMember(t.Context(), m)).StatusCode, body)
		require.Equal(t, 200, apiError(t, c.RemoveMember(t.Context(), m)).StatusCode, body)
	}
	for code, status := range map[string]int{
		"already_a_member_in_organization": 400, "organization_membership_quota_exceeded": 403, "resource_not_found": 404,
		"exclusive_organization_membership": 422, "organization_minimum_permissions_needed": 400, "organization_membership_managed_by_scim": 409,
	} {
		c := newClient(t, answer(t, status, clerkError(code, `{"param_name":"role"}`), "Retry-After", "7").URL, clerkapi.Options{})
		for _, err := range []error{c.AddMember(t.Context(), m), c.RemoveMember(t.Context(), m)} {
			api := apiError(t, err)
			require.Equal(t, status, api.StatusCode)
			require.Equal(t, code, api.Code)
			require.Equal(t, "role", api.Meta["param_name"])
			require.NoError(t, api.Err)
		}
	}
	var invalid *clerkinvite.InvalidParamsError
	require.ErrorAs(t, newClient(t, "http://clerk.test", clerkapi.Options{}).AddMember(t.Context(), clerkinvite.Membership{OrganizationID: "org_1", UserID: "user_1"}), &invalid)
	require.Equal(t, "Role", invalid.Field)
}
