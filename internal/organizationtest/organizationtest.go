// Package organizationtest has the scenarios of docs/organizations.md as tests for any store.
package organizationtest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

type scenario = func(t *testing.T, b *testkit.Rig)

// application is a tenant that is not an organization.
const application = "application"

// Run runs each scenario in a subtest, on the Rigs that each passes to it.
func Run(t *testing.T, each func(t *testing.T, o testkit.Options, test func(t *testing.T, b *testkit.Rig))) {
	t.Helper()
	o := testkit.Options{Organization: testkit.Organization, Configure: func(c *clerkinvite.Config) {
		intoOrganization := c.Authorize
		c.Authorize = func(ctx context.Context, p *clerkinvite.InviteParams) error {
			if p.TenantID == application {
				return nil
			}
			return intoOrganization(ctx, p)
		}
	}}
	for name, test := range map[string]scenario{
		"NewPerson": newPerson, "ExistingUser": existingUser, "Resend": resend, "ResendRefused": resendRefused,
		"RevokeAndRemove": revokeAndRemove, "Webhooks": webhooks, "Reconcile": reconcile,
		"LostRequest": lostResponse(clerkinvitetest.Before), "LostResponse": lostResponse(clerkinvitetest.After),
		"ForeignInvitation": foreignInvitation(clerkinvitetest.Behavior{}), "ForeignInvitationOtherCode": foreignInvitation(clerkinvitetest.Behavior{OrganizationDuplicateRecord: true}),
		"Full": full(clerkinvitetest.Behavior{}), "FullOtherCode": full(clerkinvitetest.Behavior{OrganizationInsufficientSeats: true}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			each(t, o, test)
		})
	}
}

func newPerson(t *testing.T, b *testkit.Rig) {
	t.Helper()
	m := b.MustInvite(t, "ada@example.com")
	require.Equal(t, clerkinvite.StatusPending, m.Status)
	require.Equal(t, &clerkinvite.Organization{ID: testkit.Organization, Role: "org:member"}, m.Organization())
	require.Equal(t, 1, b.Clerk.EmailsTo("ada@example.com"))
	inv := b.Clerk.OpenInvitations("ada@example.com")
	require.Len(t, inv, 1)
	require.Equal(t, testkit.Organization, inv[0].OrganizationID)

	// A person who signs up without accepting the invitation is not a member of the organization.
	id := b.Clerk.AddVerifiedUser("ada@example.com").ID
	_, err := b.ResolveUser(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusPending, b.Member(t, "ada@example.com").Status)
	b.MustReconcile(t)
	require.Equal(t, clerkinvite.StatusPending, b.Member(t, "ada@example.com").Status)

	require.NoError(t, b.Clerk.AcceptOrganization(inv[0].ID, id))
	b.RequireMembersAtClerk(t, id)
	changed, err := b.ResolveUser(t.Context(), id)
	require.NoError(t, err)
	require.Len(t, changed, 1)
	got := b.Member(t, "ada@example.com")
	require.Equal(t, clerkinvite.StatusActive, got.Status)
	require.Equal(t, id, got.ClerkUserID)
}

func existingUser(t *testing.T, b *testkit.Rig) {
	t.Helper()
	asked := b.Clerk.AddVerifiedUser("asked@example.com").ID
	added := b.Clerk.AddVerifiedUser("added@example.com").ID
	member := b.Clerk.AddVerifiedUser("member@example.com").ID
	b.Clerk.JoinOrganization(testkit.Organization, member, "org:admin")

	require.Equal(t, clerkinvite.StatusPending, b.MustInvite(t, "asked@example.com").Status)
	m, err := b.InviteInto(t, "added@example.com", clerkinvite.Organization{AddExisting: true, Role: "org:admin"})
	require.NoError(t, err)
	require.Equal(t, added, m.ClerkUserID)
	require.Equal(t, member, b.MustInvite(t, "member@example.com").ClerkUserID)
	require.Contains(t, b.Clerk.Members(testkit.Organization), clerkinvite.Membership{OrganizationID: testkit.Organization, UserID: added, Role: "org:admin"})
	b.RequireMembersAtClerk(t, added, member)
	for email, n := range map[string]int{"asked@example.com": 1, "added@example.com": 0, "member@example.com": 0} {
		require.Equal(t, n, b.Clerk.EmailsTo(email), email)
	}
	require.NoError(t, b.Clerk.AcceptOrganization(b.Clerk.OpenInvitations("asked@example.com")[0].ID, asked))
	b.MustReconcile(t)
	require.Equal(t, asked, b.Member(t, "asked@example.com").ClerkUserID)
}

func resend(t *testing.T, b *testkit.Rig) {
	t.Helper()
	m := b.MustInvite(t, "ada@example.com")
	b.Clock.Advance(time.Hour)
	again, err := b.Resend(t.Context(), m.Ref())
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusPending, again.Status)
	require.NotEqual(t, m.InvitationID, again.InvitationID)
	open := b.Clerk.OpenInvitations("ada@example.com")
	require.Len(t, open, 1)
	require.Equal(t, again.InvitationID, open[0].ID)
	require.Equal(t, 2, b.Clerk.EmailsTo("ada@example.com"))
	link, err := b.Link(t.Context(), m.Ref())
	require.NoError(t, err)
	require.Equal(t, open[0].URL.Reveal(), link.Reveal())
}

// If Clerk refuses the new invitation, the older one is revoked already: the member does not wait on a dead link.
func resendRefused(t *testing.T, b *testkit.Rig) {
	t.Helper()
	m := b.MustInvite(t, "ada@example.com")
	b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallOrganizationCreate, Status: 403, Code: "organization_membership_quota_exceeded"})
	b.Clock.Advance(time.Hour)
	_, err := b.Resend(t.Context(), m.Ref())
	var clerkErr *clerkinvite.ClerkInvitationError
	require.ErrorAs(t, err, &clerkErr)
	require.Equal(t, clerkinvite.OutcomeRefused, clerkErr.Outcome)
	got := b.Member(t, "ada@example.com")
	require.Equal(t, clerkinvite.StatusRevoked, got.Status)
	require.Equal(t, clerkinvite.ReasonOrganizationFull, got.Reason)
	require.Empty(t, b.Clerk.OpenInvitations("ada@example.com"))
}

func revokeAndRemove(t *testing.T, b *testkit.Rig) {
	t.Helper()
	m := b.MustInvite(t, "ada@example.com")
	m, err := b.Revoke(t.Context(), m.Ref())
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusRevoked, m.Status)
	require.Empty(t, b.Clerk.OpenInvitations("ada@example.com"))

	admin := b.Clerk.AddVerifiedUser("admin@example.com").ID
	b.Clerk.JoinOrganization(testkit.Organization, admin, "org:admin")
	require.Equal(t, clerkinvite.StatusActive, b.MustInvite(t, "admin@example.com").Status)
	_, err = b.Remove(t.Context(), testkit.Acme("admin@example.com"))
	require.ErrorIs(t, err, clerkinvite.ErrLastAdmin)
	require.Equal(t, clerkinvite.StatusActive, b.Member(t, "admin@example.com").Status)
	b.RequireMembersAtClerk(t, admin)

	// Accepted, but not known here yet.
	joan := b.MustInvite(t, "joan@example.com")
	user := b.Clerk.AddVerifiedUser("joan@example.com").ID
	require.NoError(t, b.Clerk.AcceptOrganization(joan.InvitationID, user))
	_, err = b.Revoke(t.Context(), joan.Ref())
	testkit.RequireTransition(t, err, clerkinvite.StatusActive, clerkinvite.StatusRevoked)
	require.Equal(t, user, b.Member(t, "joan@example.com").ClerkUserID)
	_, err = b.Remove(t.Context(), joan.Ref())
	require.NoError(t, err)
	b.RequireMembersAtClerk(t, admin)

	kay := b.MustInvite(t, "kay@example.com")
	require.NoError(t, b.Clerk.AcceptOrganization(kay.InvitationID, b.Clerk.AddVerifiedUser("kay@example.com").ID))
	m, err = b.Remove(t.Context(), kay.Ref())
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusRemoved, m.Status)
	b.RequireMembersAtClerk(t, admin)
}

// Without webhooks, Reconcile finds who has joined, who has left, and what was revoked or is left over.
func reconcile(t *testing.T, b *testkit.Rig) {
	t.Helper()
	var users []string
	for i := range 3 {
		email := fmt.Sprintf("p%d@example.com", i)
		m := b.MustInvite(t, email)
		users = append(users, b.Clerk.AddVerifiedUser(email).ID)
		require.NoError(t, b.Clerk.AcceptOrganization(m.InvitationID, users[i]))
	}
	revoked := b.MustInvite(t, "revoked@example.com")
	b.Clerk.RevokeInDashboard(revoked.InvitationID)
	report := b.MustReconcile(t)
	require.Equal(t, 3, report.Activated)
	require.Equal(t, 1, report.Revoked)
	require.Equal(t, clerkinvite.StatusRevoked, b.Member(t, "revoked@example.com").Status)

	b.Clock.Advance(time.Hour)
	b.Clerk.LeaveOrganization(testkit.Organization, users[0])
	report = b.MustReconcile(t)
	require.Equal(t, 1, report.Removed)
	left := b.Member(t, "p0@example.com")
	require.Equal(t, clerkinvite.StatusRemoved, left.Status)
	require.Equal(t, clerkinvite.ReasonLeftOrganization, left.Reason)
	again, err := b.TryInvite(t, "p0@example.com")
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusPending, again.Status)

	open := b.Clerk.OpenInvitations("p0@example.com")
	require.Len(t, open, 1)
	require.NoError(t, b.Purge(t.Context(), testkit.Acme("p0@example.com")))
	require.Empty(t, b.Clerk.OpenInvitations("p0@example.com"))
}

func webhooks(t *testing.T, b *testkit.Rig) {
	t.Helper()
	receive := func() {
		t.Helper()
		for _, hook := range b.Clerk.OrganizationEvents() {
			b.Receive(t, hook)
		}
	}
	ada, joan := b.MustInvite(t, "ada@example.com"), b.MustInvite(t, "joan@example.com")
	user := b.Clerk.AddVerifiedUser("ada@example.com").ID
	require.NoError(t, b.Clerk.AcceptOrganization(ada.InvitationID, user))
	receive()
	require.Equal(t, user, b.Member(t, "ada@example.com").ClerkUserID)
	b.Clerk.RevokeInDashboard(joan.InvitationID)
	receive()
	require.Equal(t, clerkinvite.StatusRevoked, b.Member(t, "joan@example.com").Status)
	b.Clock.Advance(time.Hour)
	b.Clerk.LeaveOrganization(testkit.Organization, user)
	receive()
	require.Equal(t, clerkinvite.ReasonLeftOrganization, b.Member(t, "ada@example.com").Reason)

	// Events of strangers cost no request.
	stranger := b.Clerk.AddVerifiedUser("stranger@example.com").ID
	b.Clerk.ResetCounts()
	b.Clerk.JoinOrganization(testkit.Organization, stranger, "org:member")
	b.Clerk.LeaveOrganization(testkit.Organization, stranger)
	receive()
	require.Zero(t, b.Clerk.RequestCount())
}

// The dashboard's pending invitation is adopted without another email, whatever code Clerk has for it.
func foreignInvitation(behavior clerkinvitetest.Behavior) scenario {
	return func(t *testing.T, b *testkit.Rig) {
		t.Helper()
		b.Clerk.SetBehavior(behavior)
		foreign := b.Clerk.CreateInDashboard(testkit.Organization, "ada@example.com", "org:member", nil)
		m := b.MustInvite(t, "ada@example.com")
		require.Equal(t, foreign.ID, m.InvitationID)
		require.Zero(t, b.Clerk.EmailsTo("ada@example.com"))
		require.Len(t, b.Clerk.OpenInvitations("ada@example.com"), 1)

		b.Clock.Advance(time.Hour)
		again, err := b.Resend(t.Context(), m.Ref())
		require.NoError(t, err)
		require.NotEqual(t, foreign.ID, again.InvitationID)
		require.Equal(t, 1, b.Clerk.EmailsTo("ada@example.com"))
		require.Len(t, b.Clerk.OpenInvitations("ada@example.com"), 1)
	}
}

// A full organization refuses its own invitations. Those into other organizations, and into the application, go out.
func full(behavior clerkinvitetest.Behavior) scenario {
	return func(t *testing.T, b *testkit.Rig) {
		t.Helper()
		const fullOrganization, seats, people = "org_full", 5, 12
		b.Clerk.SetBehavior(behavior)
		b.Clerk.AddOrganization(fullOrganization, clerkinvitetest.OrganizationSpec{MaxMembers: seats})
		b.Clerk.AddOrganization("org_other", clerkinvitetest.OrganizationSpec{})
		var all []clerkinvite.InviteParams
		for i := range people {
			email := fmt.Sprintf("p%d@example.com", i)
			for _, id := range []string{fullOrganization, "org_other"} {
				p := testkit.Params(id, email)
				p.Organization = &clerkinvite.Organization{ID: id}
				all = append(all, p)
			}
			all = append(all, testkit.Params("acme", email), testkit.Params(application, email))
		}
		results, err := b.InviteMany(t.Context(), all, nil)
		require.NoError(t, err)
		invited := make(map[string]int)
		for i, r := range results {
			if r.Err == nil {
				require.Equal(t, clerkinvite.StatusPending, r.Member.Status)
				invited[all[i].TenantID]++
				continue
			}
			require.Equal(t, fullOrganization, all[i].TenantID)
			var clerkErr *clerkinvite.ClerkInvitationError
			require.ErrorAs(t, r.Err, &clerkErr)
			require.Equal(t, clerkinvite.OutcomeRefused, clerkErr.Outcome)
		}
		require.Equal(t, map[string]int{fullOrganization: seats, "org_other": people, "acme": people, application: people}, invited)
	}
}

// One email is sent, whether or not the request whose response was lost took effect.
func lostResponse(when clerkinvitetest.When) scenario {
	return func(t *testing.T, b *testkit.Rig) {
		t.Helper()
		b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallOrganizationCreate, When: when, Kind: clerkinvitetest.Reset})
		_, err := b.TryInvite(t, "ada@example.com")
		var clerkErr *clerkinvite.ClerkInvitationError
		require.ErrorAs(t, err, &clerkErr)
		require.True(t, clerkErr.Queued())
		b.Clock.Advance(time.Hour)
		_, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		b.RequireInvited(t, "ada@example.com", 1)
	}
}
