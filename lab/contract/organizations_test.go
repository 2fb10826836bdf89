package contract_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkapi"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

const organization = "org_1"

// smallest is a Clerk with one organization. Its responses have the smallest objects that the newest
// schemas allow, and where that says too little, complete ones.
func smallest(t *testing.T) http.Handler {
	t.Helper()
	schemas := descriptions(t)[len(versions)-1].doc.Components.Schemas
	object := func(name string, more map[string]any) map[string]any {
		o := template(t, schemas[name].Value)
		maps.Copy(o, more)
		return o
	}
	members := object("OrganizationMembership", map[string]any{
		"role": "org:member", "organization": object("Organization", map[string]any{"id": organization}),
		"public_user_data": object("OrganizationMembershipPublicUserData", map[string]any{"user_id": "user_1", "image_url": ""}),
	})
	invitation := object("OrganizationInvitation", map[string]any{"id": "orginv_1", "email_address": "ada@example.com", "role": "org:member"})
	full := maps.Clone(invitation)
	maps.Copy(full, map[string]any{
		"organization_id": organization, "status": "pending", "url": "https://clerk.example.com", "expires_at": 1790000000000, "inviter_id": "user_1", "private_metadata": map[string]any{},
		"public_inviter_data": object("OrganizationInvitationPublicUserData", map[string]any{"user_id": "user_1"}),
	})
	ofInstance := maps.Clone(full)
	ofInstance["public_organization_data"] = object("OrganizationInvitationPublicOrganizationData", map[string]any{"id": organization})

	list := func(items ...any) any { return map[string]any{"data": items, "total_count": len(items)} }
	in := "/v1/organizations/" + organization
	mux := http.NewServeMux()
	for pattern, value := range map[string]any{
		"POST " + in + "/invitations":                 full,
		"POST " + in + "/invitations/bulk":            list(invitation, full),
		"GET " + in + "/invitations":                  list(invitation, full),
		"GET /v1/organization_invitations":            list(invitation, ofInstance),
		"POST " + in + "/invitations/orginv_1/revoke": invitation,
		"GET /v1/organization_roles":                  list(object("Role", map[string]any{"key": "org:pilot"})),
		"GET " + in + "/memberships":                  list(members),
		"POST " + in + "/memberships":                 members,
		"DELETE " + in + "/memberships/user_1":        members,
	} {
		mux.Handle(pattern, answering(value))
	}
	return mux
}

func TestOrganizationInvitations(t *testing.T) {
	t.Parallel()
	b := serve(t, smallest(t))
	want := clerkinvite.Invitation{ID: "orginv_1", Email: "ada@example.com", OrganizationID: organization}
	var all []clerkinvite.InvitationRequest
	for _, r := range combinations() {
		if r.Template != "" || r.IgnoreExisting {
			continue // Clerk has no such parameters for organizations
		}
		r.OrganizationID, r.Role = organization, "org:admin"
		if r.SkipEmail {
			r.Inviter = "user_1"
		}
		all = append(all, r)
		inv, err := b.api.CreateInvitation(t.Context(), r)
		require.NoError(t, err)
		require.Equal(t, want.ID, inv.ID)
	}
	for rs := range slices.Chunk(all, 10) {
		invs, err := b.api.CreateInvitations(t.Context(), rs)
		require.NoError(t, err)
		require.Len(t, invs, 2)
	}
	for _, q := range []clerkinvite.InvitationQuery{{OrganizationID: organization}, {AllOrganizations: true}} {
		for _, query := range []string{"", "ada@example.com"} {
			for _, status := range []clerkinvite.InvitationStatus{"", clerkinvite.InvitationPending, clerkinvite.InvitationAccepted, clerkinvite.InvitationRevoked, clerkinvite.InvitationExpired} {
				q.Query, q.Status = query, status
				q.Limit, q.Offset, q.NewestFirst = len(query), len(status), status == ""
				page, err := b.api.ListInvitations(t.Context(), q)
				require.NoError(t, err)
				require.Len(t, page, 2)
				for i, inv := range page {
					require.Equal(t, want.Email, inv.Email)
					if i == 1 || !q.AllOrganizations { // the smallest object does not name its organization
						require.Equal(t, organization, inv.OrganizationID)
					}
				}
			}
		}
	}
	inv, err := b.api.RevokeInvitation(t.Context(), clerkinvite.RevokeRequest{ID: "orginv_1", OrganizationID: organization})
	require.NoError(t, err)
	inv.PublicMetadata = nil
	require.Equal(t, &want, inv)
}

func TestMemberships(t *testing.T) {
	t.Parallel()
	b := serve(t, smallest(t))
	ids := []string{"user_1"}
	for i := range 99 {
		ids = append(ids, fmt.Sprintf("user_x%d", i))
	}
	m := clerkinvite.Membership{OrganizationID: organization, UserID: "user_1", Role: "org:member"}
	for _, some := range [][]string{ids[:1], ids} {
		found, err := b.api.FindMemberships(t.Context(), clerkinvite.MembershipQuery{OrganizationID: organization, UserIDs: some})
		require.NoError(t, err)
		require.Len(t, found, 1)
		found[0].CreatedAt = time.Time{}
		require.Equal(t, []clerkinvite.Membership{m}, found)
	}
	require.NoError(t, b.api.AddMember(t.Context(), m))
	require.NoError(t, b.api.RemoveMember(t.Context(), m))
	roles, err := b.api.OrganizationRoles(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"org:pilot"}, roles)
}

// The adapter returns every error that an operation lists, with its code.
func TestOrganizationCallsAreRefused(t *testing.T) {
	t.Parallel()
	r := clerkinvite.InvitationRequest{Email: "ada@example.com", OrganizationID: organization, Role: "org:member"}
	m := clerkinvite.Membership{OrganizationID: organization, UserID: "user_1", Role: "org:member"}
	const invitations, memberships = "/organizations/{organization_id}/invitations", "/organizations/{organization_id}/memberships"
	for operation, call := range map[string]func(ctx context.Context, api *clerkapi.Client) error{
		"POST " + invitations: func(ctx context.Context, api *clerkapi.Client) error {
			_, err := api.CreateInvitation(ctx, r)
			return err
		},
		"POST " + invitations + "/bulk": func(ctx context.Context, api *clerkapi.Client) error {
			_, err := api.CreateInvitations(ctx, []clerkinvite.InvitationRequest{r})
			return err
		},
		"GET " + invitations: func(ctx context.Context, api *clerkapi.Client) error {
			_, err := api.ListInvitations(ctx, clerkinvite.InvitationQuery{OrganizationID: organization})
			return err
		},
		"GET /organization_invitations": func(ctx context.Context, api *clerkapi.Client) error {
			_, err := api.ListInvitations(ctx, clerkinvite.InvitationQuery{AllOrganizations: true})
			return err
		},
		"POST " + invitations + "/{invitation_id}/revoke": func(ctx context.Context, api *clerkapi.Client) error {
			_, err := api.RevokeInvitation(ctx, clerkinvite.RevokeRequest{ID: "orginv_1", OrganizationID: organization})
			return err
		},
		"GET /organization_roles": func(ctx context.Context, api *clerkapi.Client) error {
			_, err := api.OrganizationRoles(ctx)
			return err
		},
		"GET " + memberships: func(ctx context.Context, api *clerkapi.Client) error {
			_, err := api.FindMemberships(ctx, clerkinvite.MembershipQuery{OrganizationID: organization, UserIDs: []string{"user_1"}})
			return err
		},
		"POST " + memberships: func(ctx context.Context, api *clerkapi.Client) error {
			return api.AddMember(ctx, m)
		},
		"DELETE " + memberships + "/{user_id}": func(ctx context.Context, api *clerkapi.Client) error {
			return api.RemoveMember(ctx, m)
		},
	} {
		t.Run(operation, func(t *testing.T) {
			t.Parallel()
			method, path, _ := strings.Cut(operation, " ")
			listed := 0
			for status := range descriptions(t)[len(versions)-1].doc.Paths.Value(path).GetOperation(method).Responses.Map() {
				code, err := strconv.Atoi(status)
				require.NoError(t, err)
				if code < 400 {
					continue
				}
				listed++
				b := serve(t, refusing(code, "some_code"))
				requireCode(t, call(t.Context(), b.api), code, "some_code")
			}
			require.NotZero(t, listed)
		})
	}
}

// refusing is a Clerk that always sends the same error.
func refusing(status int, code string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]any{
			"errors":         []any{map[string]any{"message": "m", "long_message": "l", "code": code}},
			"clerk_trace_id": "trace_1",
		})
	})
}

// The adapter and the fake, with every behavior of the fake.
func TestOrganizationsOfTheFake(t *testing.T) {
	t.Parallel()
	eachBehavior(t, func(t *testing.T, b *bundle) {
		ctx := t.Context()
		b.clerk.AddOrganization(organization, clerkinvitetest.OrganizationSpec{})
		roles, err := b.api.OrganizationRoles(ctx)
		require.NoError(t, err)
		require.Equal(t, []string{"org:admin", "org:member"}, roles)
		grace := b.clerk.AddVerifiedUser("grace@example.com")
		b.clerk.Settle()
		m := clerkinvite.Membership{OrganizationID: organization, UserID: grace.ID, Role: "org:member"}
		find := func() []clerkinvite.Membership {
			b.clerk.Settle()
			found, err := b.api.FindMemberships(ctx, clerkinvite.MembershipQuery{OrganizationID: organization, UserIDs: []string{grace.ID, "user_unknown"}})
			require.NoError(t, err)
			return found
		}
		require.Empty(t, find())
		require.NoError(t, b.api.AddMember(ctx, m))
		m.CreatedAt = b.clock.Now()
		require.Equal(t, []clerkinvite.Membership{m}, find())
		requireCode(t, b.api.AddMember(ctx, m), 400, "already_a_member_in_organization")
		require.NoError(t, b.api.RemoveMember(ctx, m))
		require.Empty(t, find())
		require.Error(t, b.api.RemoveMember(ctx, m))

		r := clerkinvite.InvitationRequest{
			Email: "ada@example.com", OrganizationID: organization, Role: "org:member",
			ExpiresInDays: 7, RedirectURL: "https://app.example.com/", PublicMetadata: json.RawMessage(`{"a": 1}`),
		}
		inv, err := b.api.CreateInvitation(ctx, r)
		require.NoError(t, err)
		require.Equal(t, organization, inv.OrganizationID)
		_, err = b.api.CreateInvitation(ctx, r)
		require.Error(t, err, "Clerk rejects a second pending invitation")
		bulk := r
		bulk.Email = "joan@example.com"
		created, err := b.api.CreateInvitations(ctx, []clerkinvite.InvitationRequest{bulk})
		require.NoError(t, err)
		require.Len(t, created, 1)
		b.clerk.Settle()
		for _, q := range []clerkinvite.InvitationQuery{{OrganizationID: organization}, {AllOrganizations: true}} {
			q.Query, q.Status = r.Email, clerkinvite.InvitationPending
			page, err := b.api.ListInvitations(ctx, q)
			require.NoError(t, err)
			require.Len(t, page, 1)
			require.Equal(t, inv.ID, page[0].ID)
			require.Equal(t, organization, page[0].OrganizationID)
		}
		revoked, err := b.api.RevokeInvitation(ctx, clerkinvite.RevokeRequest{ID: inv.ID, OrganizationID: organization})
		require.NoError(t, err)
		require.Equal(t, clerkinvite.InvitationRevoked, revoked.Status)
		_, err = b.api.RevokeInvitation(ctx, clerkinvite.RevokeRequest{ID: inv.ID, OrganizationID: organization})
		requireCode(t, err, 404, "organization_invitation_not_pending")
	})
}
