package main

import (
	"fmt"
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
)

// One tenant of the demo is a Clerk organization with five seats.
func TestOrganization(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := start(t, func(c *config) { c.dir = dir })
	const tenant = "/tenants/" + demoOrganization
	form := func(path string, values url.Values) reply {
		t.Helper()
		return a.send(t, http.MethodPost, tenant+path, values.Encode(), "Content-Type", "application/x-www-form-urlencoded", "Sec-Fetch-Site", "same-origin")
	}
	member := func(email string) *clerkinvite.Member {
		t.Helper()
		m, err := a.invites.Get(t.Context(), clerkinvite.Ref{TenantID: demoOrganization, Email: email})
		require.NoError(t, err)
		return m
	}
	accept := func(email string) {
		t.Helper()
		require.Equal(t, http.StatusSeeOther, form("/demo/accept", url.Values{"invitation": {member(email).InvitationID}}).status)
	}
	require.Contains(t, a.send(t, "GET", tenant, "").body, "Members of the Clerk organization</span> "+demoOrganization)
	acme := a.send(t, "GET", "/tenants/acme", "").body
	require.NotContains(t, acme, "the Clerk organization")
	require.Contains(t, acme, `<a href="`+tenant+`"`)

	require.Equal(t, http.StatusSeeOther, form("/invitations", url.Values{"emails": {"ada@example.com"}, "role": {"admin"}}).status)
	require.Equal(t, http.StatusSeeOther, form("/invitations", url.Values{"emails": {"bob@example.com"}, "role": {"member"}}).status)
	accept("ada@example.com")
	require.Equal(t, clerkinvite.StatusActive, member("ada@example.com").Status, "by the webhook")
	form("/demo/webhooks", url.Values{"to": {"on"}})
	accept("bob@example.com")
	require.Equal(t, clerkinvite.StatusPending, member("bob@example.com").Status)
	require.Contains(t, form("/demo/reconcile", nil).header.Get("Location"), "n=1-0-0")
	ada, bob := member("ada@example.com"), member("bob@example.com")
	require.Equal(t, []clerkinvite.Membership{
		{OrganizationID: demoOrganization, UserID: ada.ClerkUserID, Role: "org:admin"}, {OrganizationID: demoOrganization, UserID: bob.ClerkUserID, Role: "org:member"},
	}, a.clerk.Members(demoOrganization))

	for i := range 3 {
		require.Equal(t, http.StatusSeeOther, form("/invitations", url.Values{"emails": {fmt.Sprintf("p%d@example.com", i)}}).status)
	}
	full := form("/invitations", url.Values{"emails": {"late@example.com"}})
	require.Equal(t, http.StatusUnprocessableEntity, full.status)
	require.Contains(t, full.body, "late@example.com: refused: the Clerk organization has no free seat")

	last := form("/members/"+ada.ID+"/remove", url.Values{"sure": {"yes"}})
	require.Equal(t, http.StatusConflict, last.status)
	require.Contains(t, last.body, "The organization needs another admin first.")
	require.Equal(t, http.StatusSeeOther, form("/members/"+bob.ID+"/remove", url.Values{"sure": {"yes"}}).status)
	members := a.clerk.Members(demoOrganization)
	require.Len(t, members, 1)

	// After a restart, the organization has the same members.
	a.stop()
	a = start(t, func(c *config) { c.dir = dir })
	require.Equal(t, members, a.clerk.Members(demoOrganization))
	accept("p0@example.com")
	require.Equal(t, clerkinvite.StatusActive, member("p0@example.com").Status)
}
