package doccheck_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// docs/organizations.md is right about two tenants with one organization, about Purge, and about an organization that was deleted.
func TestOrganizationsPage(t *testing.T) {
	t.Parallel()
	clerk := clerkinvitetest.NewClerk()
	clerk.AddOrganization("org_1", clerkinvitetest.OrganizationSpec{})
	now := time.Now()
	clock := func() time.Time { return now }
	clerk.SetNow(clock)
	svc, err := clerkinvite.New(clerkinvite.Config{
		API: clerk, Organizations: clerk, Store: clerkinvitetest.NewMemoryStore(), Now: clock,
		Authorize: func(_ context.Context, p *clerkinvite.InviteParams) error {
			p.Organization = &clerkinvite.Organization{ID: "org_1"}
			return nil
		},
	})
	require.NoError(t, err)
	ref := func(tenant, name string) clerkinvite.Ref {
		return clerkinvite.Ref{TenantID: tenant, Email: name + "@example.com"}
	}
	invite := func(tenant, name string) *clerkinvite.Member {
		t.Helper()
		m, err := svc.Invite(t.Context(), testkit.Params(tenant, name+"@example.com"))
		require.NoError(t, err)
		return m
	}
	state := func(tenant, name string) []string {
		t.Helper()
		m, err := svc.Get(t.Context(), ref(tenant, name))
		require.NoError(t, err)
		return []string{string(m.Status), m.Reason}
	}

	// One invitation, one email, and both members become active.
	users := make(map[string]string)
	for _, name := range []string{"ada", "joan"} {
		first, second := invite("acme", name), invite("globex", name)
		require.Equal(t, first.InvitationID, second.InvitationID)
		users[name] = clerk.AddVerifiedUser(name + "@example.com").ID
		require.NoError(t, clerk.AcceptOrganization(first.InvitationID, users[name]))
		changed, err := svc.ResolveUser(t.Context(), users[name])
		require.NoError(t, err)
		require.Len(t, changed, 2)
	}
	require.Equal(t, 2, clerk.Emails())

	// Revoke for one tenant revokes the other's invitation.
	invite("acme", "kay")
	invite("globex", "kay")
	_, err = svc.Revoke(t.Context(), ref("acme", "kay"))
	require.NoError(t, err)
	now = now.Add(time.Hour)
	_, err = svc.Reconcile(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, []string{"revoked", clerkinvite.ReasonRevokedAtClerk}, state("globex", "kay"))

	// Remove for one tenant ends the other's membership; Purge ends none.
	_, err = svc.Remove(t.Context(), ref("acme", "ada"))
	require.NoError(t, err)
	require.NoError(t, svc.Purge(t.Context(), ref("acme", "joan")))
	members := clerk.Members("org_1")
	require.Len(t, members, 1)
	require.Equal(t, users["joan"], members[0].UserID)
	_, err = svc.Reconcile(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, []string{"removed", clerkinvite.ReasonLeftOrganization}, state("globex", "ada"))

	// Reconcile reports an organization that was deleted.
	clerk.DeleteOrganization("org_1")
	_, err = svc.Reconcile(t.Context(), nil)
	require.Error(t, err)
	require.Equal(t, []string{"active", ""}, state("globex", "joan"))
}
