package clerkinvite_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// Whatever Clerk's lists show, Link returns the link of the member's own invitation, or says why not.
func TestLink(t *testing.T) {
	t.Parallel()
	testkit.OnBoth(t, func(t *testing.T, fresh func(*testing.T, testkit.Options) *testkit.Rig) {
		for _, behavior := range behaviors() {
			t.Run(behavior.Name, func(t *testing.T) {
				t.Parallel()
				b := fresh(t, testkit.Options{})
				b.Clerk.SetBehavior(behavior.Behavior)
				checkLink(t, b, behavior.Behavior)
			})
		}
	})
}

func checkLink(t *testing.T, b *testkit.Rig, behavior clerkinvitetest.Behavior) {
	t.Helper()
	ctx := t.Context()
	m := b.MustInvite(t, "ada@example.com")
	own, err := b.Invite(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: "grace@example.com", SkipEmail: true})
	require.NoError(t, err)
	b.Clerk.Settle()

	before := b.Clerk.Requests()[clerkinvitetest.CallList]
	link, err := b.Link(ctx, m.Ref())
	require.Equal(t, before+1, b.Clerk.Requests()[clerkinvitetest.CallList])
	stored, ownErr := b.Link(ctx, own.Ref())
	switch {
	case behavior.NoURL:
		require.ErrorIs(t, err, clerkinvite.ErrNoLink)
		require.ErrorIs(t, ownErr, clerkinvite.ErrNoLink)
		return
	case behavior.ListHidesURL:
		require.EqualError(t, err, "the member has no invitation link: Clerk's list does not show it")
	default:
		require.NoError(t, err)
		require.Equal(t, m.URL.Reveal(), link.Reveal())
	}
	require.NoError(t, ownErr)
	require.Equal(t, own.URL.Reveal(), stored.Reveal())
}

func TestLink_WithoutOne(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		ctx := t.Context()
		fails := func(email, why string) {
			t.Helper()
			before := b.Member(t, email)
			link, err := b.Link(ctx, before.Ref())
			require.True(t, link.IsZero())
			require.ErrorIs(t, err, clerkinvite.ErrNoLink)
			require.EqualError(t, err, "the member has no invitation link: "+why)
			status, text := clerkinvite.HTTPError(err)
			require.Equal(t, 409, status)
			require.Equal(t, "the member has no invitation link", text)
			require.Equal(t, before, b.Member(t, email), "nothing changes")
		}
		_, err := b.Reserve(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: "reserved@example.com"})
		require.NoError(t, err)
		fails("reserved@example.com", "the member is reserved")
		b.Clerk.AddVerifiedUser("active@example.com")
		b.MustInvite(t, "active@example.com")
		fails("active@example.com", "the member is active")
		m := b.MustInvite(t, "revoked@example.com")
		_, err = b.Revoke(ctx, m.Ref())
		require.NoError(t, err)
		fails("revoked@example.com", "the member is revoked")

		b.Clerk.RevokeInDashboard(b.MustInvite(t, "dashboard@example.com").InvitationID)
		fails("dashboard@example.com", "Clerk does not list the invitation")
		b.Clerk.ExpireNow(b.MustInvite(t, "late@example.com").InvitationID)
		fails("late@example.com", "Clerk lists the invitation as expired")
		_, err = b.Clerk.AcceptInvitation(b.MustInvite(t, "joined@example.com").InvitationID)
		require.NoError(t, err)
		fails("joined@example.com", "Clerk lists the invitation as accepted")

		_, err = b.Link(ctx, clerkinvite.Ref{TenantID: "acme", Email: "nobody@example.com"})
		require.ErrorIs(t, err, clerkinvite.ErrNotFound)
		m = b.MustInvite(t, "ada@example.com")
		b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallList, Status: 503, Times: 9})
		_, err = b.Link(ctx, m.Ref())
		var failed *clerkinvite.ClerkInvitationError
		require.ErrorAs(t, err, &failed)
		require.Equal(t, clerkinvite.Fault, failed.Outcome)
	})
}

// The older link stays the current one until the resend is settled.
func TestLink_DuringAResend(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{Configure: func(c *clerkinvite.Config) { c.ResendCooldown = -1 }}, func(t *testing.T, b *testkit.Rig) {
		m := b.MustInvite(t, "ada@example.com")
		link := func() string {
			t.Helper()
			link, err := b.Link(t.Context(), m.Ref())
			require.NoError(t, err)
			return link.Reveal()
		}
		b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, Status: 503})
		_, err := b.Resend(t.Context(), m.Ref())
		require.Error(t, err)
		require.Equal(t, m.URL.Reveal(), link())
		b.Clock.Advance(time.Hour)
		resent, err := b.Resend(t.Context(), m.Ref())
		require.NoError(t, err)
		require.NotEqual(t, m.URL.Reveal(), resent.URL.Reveal())
		require.Equal(t, resent.URL.Reveal(), link())
	})
}
