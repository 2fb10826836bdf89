package clerkinvite_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

func TestPendingIDs(t *testing.T) {
	t.Parallel()
	require.Equal(t, "pending_inv_1", clerkinvite.PendingID("inv_1"))
	require.True(t, clerkinvite.IsPending("pending_inv_1"))
	require.False(t, clerkinvite.IsPending("user_1"))
	id, ok := clerkinvite.InvitationID("pending_inv_1")
	require.True(t, ok)
	require.Equal(t, "inv_1", id)
	_, ok = clerkinvite.InvitationID("user_1")
	require.False(t, ok)
}

// Promise 5: what is no proof changes nothing.
func TestWhatIsNoProof(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	user := func(emails ...clerkinvitetest.EmailSpec) func(*bundle) clerkinvitetest.Webhook {
		return func(b *bundle) clerkinvitetest.Webhook {
			u := b.clerk.AddUser(clerkinvitetest.UserSpec{Emails: emails})
			return b.clerk.UserCreated(u.ID)
		}
	}
	for name, sign := range map[string]func(*bundle) clerkinvitetest.Webhook{
		"no address":                        user(),
		"another address":                   user(clerkinvitetest.EmailSpec{Address: "other@example.com", Verified: true}),
		"unverified":                        user(clerkinvitetest.EmailSpec{Address: email}),
		"null verification":                 user(clerkinvitetest.EmailSpec{Address: email, NullVerification: true}),
		"reserved":                          user(clerkinvitetest.EmailSpec{Address: email, Verified: true, Reserved: true}),
		"unverified, beside a verified one": user(clerkinvitetest.EmailSpec{Address: email}, clerkinvitetest.EmailSpec{Address: "other@example.com", Verified: true}),
		"a part of it":                      user(clerkinvitetest.EmailSpec{Address: "a" + email, Verified: true}),
		"banned": func(b *bundle) clerkinvitetest.Webhook {
			u := b.clerk.AddUser(clerkinvitetest.UserSpec{Banned: true, Emails: []clerkinvitetest.EmailSpec{{Address: email, Verified: true}}})
			return b.clerk.UserCreated(u.ID)
		},
		"deleted meanwhile": func(b *bundle) clerkinvitetest.Webhook {
			u := b.clerk.AddVerifiedUser(email)
			w := b.clerk.UserCreated(u.ID)
			b.clerk.DeleteUser(u.ID)
			return w
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			each(t, options{}, func(t *testing.T, b *bundle) {
				b.mustInvite(t, email)
				before := b.get(t, email)
				require.Empty(t, b.event(t, sign(b)))
				require.Equal(t, before.Version, b.get(t, email).Version)
			})
		})
	}
}

func TestResolveByEvents(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	t.Run("verified later", func(t *testing.T) {
		t.Parallel()
		each(t, options{}, func(t *testing.T, b *bundle) {
			b.mustInvite(t, email)
			u := b.clerk.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{{Address: "ADA@example.com"}}})
			created := b.clerk.UserCreated(u.ID)
			require.Empty(t, b.event(t, created))
			updated := b.clerk.VerifyEmail(u.ID, email)
			require.Len(t, b.event(t, updated), 1)
			require.Equal(t, u.ID, b.get(t, email).ClerkUserID)
		})
	})
	t.Run("secondary address, differently cased", func(t *testing.T) {
		t.Parallel()
		each(t, options{}, func(t *testing.T, b *bundle) {
			b.mustInvite(t, email)
			u := b.clerk.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{
				{Address: "first@example.com", Verified: true}, {Address: "Ada@Example.Com", Verified: true},
			}})
			require.Len(t, b.event(t, b.clerk.UserCreated(u.ID)), 1)
			require.Equal(t, u.ID, b.get(t, email).ClerkUserID)
		})
	})
	t.Run("before the invitation was delivered", func(t *testing.T) {
		t.Parallel()
		each(t, options{}, func(t *testing.T, b *bundle) {
			_, err := b.Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: email})
			require.NoError(t, err)
			u := b.clerk.AddVerifiedUser(email)
			require.Len(t, b.event(t, b.clerk.UserCreated(u.ID)), 1)
			report, err := b.Deliver(t.Context(), nil)
			require.NoError(t, err)
			require.Zero(t, report.Claimed)
			require.Zero(t, b.clerk.Emails())
		})
	})
	t.Run("deleted, then created again", func(t *testing.T) {
		t.Parallel()
		each(t, options{}, func(t *testing.T, b *bundle) {
			b.mustInvite(t, email)
			accepted, err := b.clerk.Accept(email)
			require.NoError(t, err)
			b.event(t, accepted)
			first := b.get(t, email).ClerkUserID
			deleted := b.clerk.DeleteUser(first)
			require.Len(t, b.event(t, deleted), 1)
			m := b.get(t, email)
			require.Equal(t, clerkinvite.StatusRemoved, m.Status)
			require.Equal(t, clerkinvite.ReasonUserDeleted, m.Reason)
			require.Empty(t, m.ClerkUserID)
			// The same address, another person as far as anybody knows.
			again := b.clerk.SignUp(email, true)
			require.Empty(t, b.event(t, again), "a removed member is not resolved by a sign-up")
			require.Empty(t, b.event(t, accepted), "nor by a replay")
			m = b.mustInvite(t, email)
			require.Equal(t, clerkinvite.StatusActive, m.Status)
			require.NotEqual(t, first, m.ClerkUserID)
			require.Empty(t, b.event(t, deleted), "an old deletion removes nobody")
		})
	})
	t.Run("a forged deletion", func(t *testing.T) {
		t.Parallel()
		each(t, options{}, func(t *testing.T, b *bundle) {
			u := b.clerk.AddVerifiedUser(email)
			b.mustInvite(t, email)
			changed, err := b.HandleEvent(t.Context(), &clerkinvite.Event{Type: clerkinvite.EventUserDeleted, UserID: u.ID})
			require.NoError(t, err)
			require.Empty(t, changed, "Clerk still has the user")
		})
	})
	t.Run("metadata alone", func(t *testing.T) {
		t.Parallel()
		each(t, options{}, func(t *testing.T, b *bundle) {
			b.mustInvite(t, email)
			// The link was forwarded, and used with another address: Clerk copies the metadata.
			u := b.clerk.AddVerifiedUser("mallory@example.com")
			require.Empty(t, b.event(t, b.clerk.UserCreated(u.ID)))
			require.Equal(t, clerkinvite.StatusPending, b.get(t, email).Status)
		})
	})
	t.Run("reordered and replayed", func(t *testing.T) {
		t.Parallel()
		each(t, options{}, func(t *testing.T, b *bundle) {
			b.mustInvite(t, email)
			created, err := b.clerk.Accept(email)
			require.NoError(t, err)
			e, err := clerkinvite.ParseEvent(created.Payload)
			require.NoError(t, err)
			updated := b.clerk.UserUpdated(e.UserID)
			require.Len(t, b.event(t, updated), 1)
			require.Empty(t, b.event(t, created))
			require.Empty(t, b.event(t, updated))
			require.Equal(t, e.UserID, b.get(t, email).ClerkUserID)
		})
	})
	t.Run("nobody waits", func(t *testing.T) {
		t.Parallel()
		each(t, options{}, func(t *testing.T, b *bundle) {
			u := b.clerk.AddVerifiedUser("stranger@example.com")
			require.Empty(t, b.event(t, b.clerk.UserCreated(u.ID)))
			require.Zero(t, b.clerk.RequestCount(), "and Clerk is not asked")
		})
	})
}

// An invitation that ran out proves nothing by itself.
func TestResolveAfterExpiry(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	const late = 31 * 24 * time.Hour
	t.Run("signed up in time, webhook late", func(t *testing.T) {
		t.Parallel()
		each(t, options{}, func(t *testing.T, b *bundle) {
			b.mustInvite(t, email)
			b.clock.Advance(time.Hour)
			w := b.clerk.SignUp(email, true)
			b.clock.Advance(late)
			w.At = b.clock.Now()
			require.Len(t, b.event(t, w), 1)
		})
	})
	t.Run("signed up too late", func(t *testing.T) {
		t.Parallel()
		each(t, options{}, func(t *testing.T, b *bundle) {
			b.mustInvite(t, email)
			b.clock.Advance(late)
			w := b.clerk.SignUp(email, true)
			require.Empty(t, b.event(t, w))
			// Inviting again finds the user.
			m := b.mustInvite(t, email)
			require.Equal(t, clerkinvite.StatusActive, m.Status)
			require.Equal(t, 2, m.Send)
			require.Equal(t, 1, b.clerk.EmailsTo(email))
		})
	})
	t.Run("an older account accepted in time", func(t *testing.T) {
		t.Parallel()
		each(t, options{}, func(t *testing.T, b *bundle) {
			u := b.clerk.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{{Address: email}}})
			b.clock.Advance(time.Hour)
			b.mustInvite(t, email)
			w, err := b.clerk.Accept(email) // signs in by the link, which verifies the address
			require.NoError(t, err)
			b.clock.Advance(late)
			w.At = b.clock.Now()
			changed := b.event(t, w)
			require.Len(t, changed, 1)
			require.Equal(t, u.ID, changed[0].ClerkUserID)
		})
	})
	t.Run("not by Resolve, which makes no request", func(t *testing.T) {
		t.Parallel()
		each(t, options{}, func(t *testing.T, b *bundle) {
			u := b.clerk.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{{Address: email}}})
			b.clock.Advance(time.Hour)
			b.mustInvite(t, email)
			_, err := b.clerk.Accept(email)
			require.NoError(t, err)
			b.clock.Advance(late)
			b.clerk.ResetCounts()
			changed, err := b.Resolve(t.Context(), clerkinvite.User{ID: u.ID, CreatedAt: u.CreatedAt,
				Emails: []clerkinvite.UserEmail{{ID: "idn_1", Address: email, Verified: true}}})
			require.NoError(t, err)
			require.Empty(t, changed)
			require.Zero(t, b.clerk.RequestCount())
			changed, err = b.ResolveUser(t.Context(), u.ID)
			require.NoError(t, err)
			require.Len(t, changed, 1)
		})
	})
}

func TestResolveUser(t *testing.T) {
	t.Parallel()
	each(t, options{}, func(t *testing.T, b *bundle) {
		for _, tenant := range []string{"acme", "globex", "initech"} {
			_, err := b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: tenant, Email: "ada@example.com"})
			require.NoError(t, err)
		}
		u := b.clerk.AddVerifiedUser("Ada@example.com")
		b.clerk.ResetCounts()
		changed, err := b.ResolveUser(t.Context(), u.ID)
		require.NoError(t, err)
		require.Len(t, changed, 3)
		require.Equal(t, 1, b.clerk.RequestCount())
		changed, err = b.ResolveUser(t.Context(), u.ID)
		require.NoError(t, err)
		require.Empty(t, changed)

		_, err = b.ResolveUser(t.Context(), "user_unknown")
		require.ErrorIs(t, err, clerkinvite.ErrNotFound)
		for _, id := range []string{"", "../users", "user 1", "user?x=1"} {
			_, err = b.ResolveUser(t.Context(), id)
			var invalid *clerkinvite.InvalidParamsError
			require.ErrorAs(t, err, &invalid)
		}
	})
}

// One user, several addresses invited into one tenant: one member is active.
func TestResolveSeveralAddressesOfOneUser(t *testing.T) {
	t.Parallel()
	each(t, options{}, func(t *testing.T, b *bundle) {
		emails := []string{"old@example.com", "primary@example.com", "new@example.com"}
		for _, email := range emails {
			b.mustInvite(t, email)
			b.clock.Advance(time.Minute)
		}
		_, err := b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "globex", Email: "new@example.com"})
		require.NoError(t, err)
		_, err = b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "globex", Email: "old@example.com"})
		require.NoError(t, err)
		u := b.clerk.AddUser(clerkinvitetest.UserSpec{Primary: 1, Emails: []clerkinvitetest.EmailSpec{
			{Address: emails[0], Verified: true}, {Address: emails[1], Verified: true}, {Address: emails[2], Verified: true},
		}})
		require.Len(t, b.event(t, b.clerk.UserCreated(u.ID)), 5)
		require.Equal(t, clerkinvite.StatusActive, b.get(t, "primary@example.com").Status, "the primary address")
		for _, email := range []string{"old@example.com", "new@example.com"} {
			m := b.get(t, email)
			require.Equal(t, clerkinvite.StatusRemoved, m.Status)
			require.Equal(t, clerkinvite.ReasonSecondAddress, m.Reason)
		}
		m, err := b.Get(t.Context(), clerkinvite.Ref{TenantID: "globex", Email: "new@example.com"})
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusActive, m.Status, "else the oldest")

		_, err = b.invite(t, "old@example.com")
		var dup *clerkinvite.DuplicateEmailError
		require.ErrorAs(t, err, &dup)
		require.Equal(t, "primary@example.com", dup.Member.Email)

		// One that is active already stays, whatever is primary.
		_, err = b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "initech", Email: "old@example.com"})
		require.NoError(t, err)
		_, err = b.Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "initech", Email: "primary@example.com"})
		require.NoError(t, err)
		require.Len(t, b.event(t, b.clerk.UserUpdated(u.ID)), 1)
		m, err = b.Get(t.Context(), clerkinvite.Ref{TenantID: "initech", Email: "primary@example.com"})
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusRemoved, m.Status)
	})
}

func TestGet(t *testing.T) {
	t.Parallel()
	each(t, options{}, func(t *testing.T, b *bundle) {
		_, err := b.Get(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "nobody@example.com"})
		require.ErrorIs(t, err, clerkinvite.ErrNotFound)
		status, message := clerkinvite.HTTPError(err)
		require.Equal(t, 404, status)
		require.Equal(t, "no such member", message)
		_, err = b.Get(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "nobody"})
		var invalid *clerkinvite.InvalidParamsError
		require.ErrorAs(t, err, &invalid)
		want := b.mustInvite(t, "ada@example.com")
		require.Equal(t, want.ID, b.get(t, " ADA@example.com").ID)
	})
}
