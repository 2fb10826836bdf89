package clerkinvite_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
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

func TestPromise5_WhatIsNotProof(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	user := func(emails ...clerkinvitetest.EmailSpec) func(*testkit.Rig) clerkinvitetest.Webhook {
		return func(b *testkit.Rig) clerkinvitetest.Webhook {
			u := b.Clerk.AddUser(clerkinvitetest.UserSpec{Emails: emails})
			return b.Clerk.UserCreated(u.ID)
		}
	}
	for name, sign := range map[string]func(*testkit.Rig) clerkinvitetest.Webhook{
		"no address":                        user(),
		"another address":                   user(clerkinvitetest.EmailSpec{Address: "other@example.com", Verified: true}),
		"unverified":                        user(clerkinvitetest.EmailSpec{Address: email}),
		"null verification":                 user(clerkinvitetest.EmailSpec{Address: email, NullVerification: true}),
		"unverified, beside a verified one": user(clerkinvitetest.EmailSpec{Address: email}, clerkinvitetest.EmailSpec{Address: "other@example.com", Verified: true}),
		"a part of it":                      user(clerkinvitetest.EmailSpec{Address: "a" + email, Verified: true}),
		"banned": func(b *testkit.Rig) clerkinvitetest.Webhook {
			u := b.Clerk.AddUser(clerkinvitetest.UserSpec{Banned: true, Emails: []clerkinvitetest.EmailSpec{{Address: email, Verified: true}}})
			return b.Clerk.UserCreated(u.ID)
		},
		"deleted before the webhook arrives": func(b *testkit.Rig) clerkinvitetest.Webhook {
			u := b.Clerk.AddVerifiedUser(email)
			w := b.Clerk.UserCreated(u.ID)
			b.Clerk.DeleteUser(u.ID)
			b.Clock.Advance(3 * time.Minute) // the delivery is late
			return w
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
				b.MustInvite(t, email)
				before := b.Member(t, email)
				require.Empty(t, b.Receive(t, sign(b)))
				require.Equal(t, before.Version, b.Member(t, email).Version)
			})
		})
	}
}

func TestResolveByEvents(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	t.Run("verified later", func(t *testing.T) {
		t.Parallel()
		testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
			b.MustInvite(t, email)
			u := b.Clerk.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{{Address: "ADA@example.com"}}})
			created := b.Clerk.UserCreated(u.ID)
			require.Empty(t, b.Receive(t, created))
			updated := b.Clerk.VerifyEmail(u.ID, email)
			require.Len(t, b.Receive(t, updated), 1)
			require.Equal(t, u.ID, b.Member(t, email).ClerkUserID)
		})
	})
	t.Run("secondary address, differently cased", func(t *testing.T) {
		t.Parallel()
		testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
			b.MustInvite(t, email)
			u := b.Clerk.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{
				{Address: "first@example.com", Verified: true}, {Address: "Ada@Example.Com", Verified: true},
			}})
			require.Len(t, b.Receive(t, b.Clerk.UserCreated(u.ID)), 1)
			require.Equal(t, u.ID, b.Member(t, email).ClerkUserID)
		})
	})
	t.Run("before the invitation was delivered", func(t *testing.T) {
		t.Parallel()
		testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
			_, err := b.Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: email})
			require.NoError(t, err)
			u := b.Clerk.AddVerifiedUser(email)
			require.Len(t, b.Receive(t, b.Clerk.UserCreated(u.ID)), 1)
			report, err := b.Deliver(t.Context(), nil)
			require.NoError(t, err)
			require.Zero(t, report.Claimed)
			require.Zero(t, b.Clerk.Emails())
		})
	})
	t.Run("deleted, then created again", func(t *testing.T) {
		t.Parallel()
		testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
			b.MustInvite(t, email)
			accepted, err := b.Clerk.Accept(email)
			require.NoError(t, err)
			b.Receive(t, accepted)
			first := b.Member(t, email).ClerkUserID
			deleted := b.Clerk.DeleteUser(first)
			require.Len(t, b.Receive(t, deleted), 1)
			m := b.Member(t, email)
			require.Equal(t, clerkinvite.StatusRemoved, m.Status)
			require.Equal(t, clerkinvite.ReasonUserDeleted, m.Reason)
			require.Empty(t, m.ClerkUserID)
			// The same address, but perhaps another person.
			again := b.Clerk.SignUp(email, true)
			require.Empty(t, b.Receive(t, again), "a removed member is not resolved by a sign-up")
			require.Empty(t, b.Receive(t, accepted), "nor by a replay")
			m = b.MustInvite(t, email)
			require.Equal(t, clerkinvite.StatusActive, m.Status)
			require.NotEqual(t, first, m.ClerkUserID)
			require.Empty(t, b.Receive(t, deleted), "an old deletion removes no member")
		})
	})
	t.Run("a forged deletion", func(t *testing.T) {
		t.Parallel()
		testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
			u := b.Clerk.AddVerifiedUser(email)
			b.MustInvite(t, email)
			changed, err := b.HandleEvent(t.Context(), &clerkinvite.Event{Type: clerkinvite.EventUserDeleted, UserID: u.ID})
			require.NoError(t, err)
			require.Empty(t, changed, "Clerk still has the user")
		})
	})
	t.Run("metadata alone", func(t *testing.T) {
		t.Parallel()
		testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
			b.MustInvite(t, email)
			// The link was forwarded, and used with another address: Clerk copies the metadata.
			u := b.Clerk.AddVerifiedUser("mallory@example.com")
			require.Empty(t, b.Receive(t, b.Clerk.UserCreated(u.ID)))
			require.Equal(t, clerkinvite.StatusPending, b.Member(t, email).Status)
		})
	})
	t.Run("reordered and replayed", func(t *testing.T) {
		t.Parallel()
		testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
			b.MustInvite(t, email)
			created, err := b.Clerk.Accept(email)
			require.NoError(t, err)
			e, err := clerkinvite.ParseEvent(created.Payload)
			require.NoError(t, err)
			updated := b.Clerk.UserUpdated(e.UserID)
			require.Len(t, b.Receive(t, updated), 1)
			require.Empty(t, b.Receive(t, created))
			require.Empty(t, b.Receive(t, updated))
			require.Equal(t, e.UserID, b.Member(t, email).ClerkUserID)
		})
	})
	t.Run("no member waits", func(t *testing.T) {
		t.Parallel()
		testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
			u := b.Clerk.AddVerifiedUser("stranger@example.com")
			require.Empty(t, b.Receive(t, b.Clerk.UserCreated(u.ID)))
			require.Zero(t, b.Clerk.RequestCount(), "and Clerk is not called")
		})
	})
}

// An expired invitation alone proves nothing.
func TestPromise5_ResolveAfterExpiry(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	const late = 31 * 24 * time.Hour
	t.Run("signed up in time, webhook late", func(t *testing.T) {
		t.Parallel()
		testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
			b.MustInvite(t, email)
			b.Clock.Advance(time.Hour)
			w := b.Clerk.SignUp(email, true)
			b.Clock.Advance(late)
			w.At = b.Clock.Now()
			require.Len(t, b.Receive(t, w), 1)
		})
	})
	t.Run("signed up too late", func(t *testing.T) {
		t.Parallel()
		testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
			b.MustInvite(t, email)
			b.Clock.Advance(late)
			w := b.Clerk.SignUp(email, true)
			require.Empty(t, b.Receive(t, w))
			// A new Invite finds the user.
			m := b.MustInvite(t, email)
			require.Equal(t, clerkinvite.StatusActive, m.Status)
			require.Equal(t, 2, m.Send)
			require.Equal(t, 1, b.Clerk.EmailsTo(email))
		})
	})
	t.Run("an older account accepted in time", func(t *testing.T) {
		t.Parallel()
		testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
			u := b.Clerk.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{{Address: email}}})
			b.Clock.Advance(time.Hour)
			b.MustInvite(t, email)
			w, err := b.Clerk.Accept(email) // signs in by the link, which verifies the address
			require.NoError(t, err)
			b.Clock.Advance(late)
			w.At = b.Clock.Now()
			changed := b.Receive(t, w)
			require.Len(t, changed, 1)
			require.Equal(t, u.ID, changed[0].ClerkUserID)
		})
	})
	t.Run("accepted in time under another address, and the mailbox has a new owner", func(t *testing.T) {
		t.Parallel()
		testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
			b.MustInvite(t, email)
			b.Clock.Advance(time.Hour)
			_, err := b.Clerk.AcceptAs(email, "elsewhere@example.org")
			require.NoError(t, err)
			b.Clock.Advance(2 * 365 * 24 * time.Hour)
			w := b.Clerk.SignUp(email, true) // another person
			require.Empty(t, b.Receive(t, w))
			require.NotEqual(t, clerkinvite.StatusActive, b.Member(t, email).Status)
			_, err = b.Reconcile(t.Context(), nil)
			require.NoError(t, err)
			require.NotEqual(t, clerkinvite.StatusActive, b.Member(t, email).Status)
		})
	})
	t.Run("one list per address, and none for a younger account", func(t *testing.T) {
		t.Parallel()
		b := testkit.NewMemory(t, testkit.Options{})
		u := b.Clerk.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{{Address: email}}})
		b.Clock.Advance(time.Hour)
		for i := range 60 {
			_, err := b.Invite(t.Context(), testkit.Params(fmt.Sprint("tenant", i), email))
			require.NoError(t, err)
		}
		b.Clock.Advance(late)
		b.Clerk.VerifyEmail(u.ID, email)
		b.Clerk.ResetCounts()
		_, err := b.ResolveUser(t.Context(), u.ID)
		require.NoError(t, err)
		require.Equal(t, 2, b.Clerk.RequestCount(), "the user and one list")

		b.Clerk.DeleteUser(u.ID)
		young := b.Clerk.AddVerifiedUser(email)
		b.Clerk.ResetCounts()
		_, err = b.ResolveUser(t.Context(), young.ID)
		require.NoError(t, err)
		require.Equal(t, 1, b.Clerk.RequestCount())
	})
	t.Run("not by Resolve, which makes no request", func(t *testing.T) {
		t.Parallel()
		testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
			u := b.Clerk.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{{Address: email}}})
			b.Clock.Advance(time.Hour)
			b.MustInvite(t, email)
			_, err := b.Clerk.Accept(email)
			require.NoError(t, err)
			b.Clock.Advance(late)
			b.Clerk.ResetCounts()
			changed, err := b.Resolve(t.Context(), clerkinvite.User{ID: u.ID, CreatedAt: u.CreatedAt,
				Emails: []clerkinvite.UserEmail{{ID: "idn_1", Address: email, Verified: true}}})
			require.NoError(t, err)
			require.Empty(t, changed)
			require.Zero(t, b.Clerk.RequestCount())
			changed, err = b.ResolveUser(t.Context(), u.ID)
			require.NoError(t, err)
			require.Len(t, changed, 1)
		})
	})
}

func TestResolveUser(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		for _, tenant := range []string{"acme", "globex", "initech"} {
			_, err := b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: tenant, Email: "ada@example.com"})
			require.NoError(t, err)
		}
		u := b.Clerk.AddVerifiedUser("Ada@example.com")
		b.Clerk.ResetCounts()
		changed, err := b.ResolveUser(t.Context(), u.ID)
		require.NoError(t, err)
		require.Len(t, changed, 3)
		require.Equal(t, 1, b.Clerk.RequestCount())
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

// Several addresses of one user are invited into one tenant: one member is active.
func TestResolveSeveralAddressesOfOneUser(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		emails := []string{"old@example.com", "primary@example.com", "new@example.com"}
		for _, email := range emails {
			b.MustInvite(t, email)
			b.Clock.Advance(time.Minute)
		}
		_, err := b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "globex", Email: "new@example.com"})
		require.NoError(t, err)
		_, err = b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "globex", Email: "old@example.com"})
		require.NoError(t, err)
		u := b.Clerk.AddUser(clerkinvitetest.UserSpec{Primary: 1, Emails: []clerkinvitetest.EmailSpec{
			{Address: emails[0], Verified: true}, {Address: emails[1], Verified: true}, {Address: emails[2], Verified: true},
		}})
		require.Len(t, b.Receive(t, b.Clerk.UserCreated(u.ID)), 5)
		require.Equal(t, clerkinvite.StatusActive, b.Member(t, "primary@example.com").Status, "the primary address")
		for _, email := range []string{"old@example.com", "new@example.com"} {
			m := b.Member(t, email)
			require.Equal(t, clerkinvite.StatusRemoved, m.Status)
			require.Equal(t, clerkinvite.ReasonSecondAddress, m.Reason)
		}
		m, err := b.Get(t.Context(), clerkinvite.Ref{TenantID: "globex", Email: "new@example.com"})
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusActive, m.Status, "otherwise the oldest")

		_, err = b.TryInvite(t, "old@example.com")
		var dup *clerkinvite.DuplicateEmailError
		require.ErrorAs(t, err, &dup)
		require.Equal(t, "primary@example.com", dup.Member.Email)

		// An active member stays active, whatever the primary address is.
		_, err = b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "initech", Email: "old@example.com"})
		require.NoError(t, err)
		_, err = b.Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "initech", Email: "primary@example.com"})
		require.NoError(t, err)
		require.Len(t, b.Receive(t, b.Clerk.UserUpdated(u.ID)), 1)
		m, err = b.Get(t.Context(), clerkinvite.Ref{TenantID: "initech", Email: "primary@example.com"})
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusRemoved, m.Status)
	})
}

// One tenant's row is overdue and Clerk's list cannot be read: the other tenant's row is resolved.
func TestResolveUser_OverdueRowDoesNotBlockOtherTenants(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		u := b.Clerk.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{{Address: "ada@example.com"}}})
		b.Clock.Advance(time.Hour)
		b.MustInvite(t, "ada@example.com")
		b.Clock.Advance(31 * 24 * time.Hour)
		_, err := b.Invite(t.Context(), testkit.Params("globex", "ada@example.com"))
		require.NoError(t, err)
		_, err = b.Clerk.Accept("ada@example.com")
		require.NoError(t, err)
		b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallList, Times: -1, Status: 429, Code: "too_many_requests", RetryAfter: time.Hour})
		changed, err := b.ResolveUser(t.Context(), u.ID)
		require.Len(t, changed, 1, "globex: %v", err)
	})
}

// An old event shows one verified address; the user read from Clerk has two. The user decides.
func TestPromise5_OldEventDoesNotDecide(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	b.MustInvite(t, "second@example.com")
	b.MustInvite(t, "primary@example.com")
	u := b.Clerk.AddUser(clerkinvitetest.UserSpec{Primary: 1, Emails: []clerkinvitetest.EmailSpec{
		{Address: "second@example.com", Verified: true}, {Address: "primary@example.com"}}})
	old := b.Clerk.UserCreated(u.ID)
	b.Clerk.VerifyEmail(u.ID, "primary@example.com")
	b.Receive(t, old) // delivered late: the user has verified both by now
	require.Equal(t, clerkinvite.StatusActive, b.Member(t, "primary@example.com").Status)
}

// An event can be faster than Clerk's API. While it is recent it is delivered again; after that Clerk's
// API decides.
func TestHandleEvent_ClerkContradictsAYoungEvent(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	lag := clerkinvitetest.Behavior{Lag: true, GetUserLags: true}
	for name, c := range map[string]struct {
		happens func(t *testing.T, b *testkit.Rig) clerkinvitetest.Webhook
		end     clerkinvite.Status
	}{
		"user.created, the user is not shown yet": {func(t *testing.T, b *testkit.Rig) clerkinvitetest.Webhook {
			b.MustInvite(t, email)
			b.Clerk.SetBehavior(lag)
			w, err := b.Clerk.Accept(email)
			require.NoError(t, err)
			return w
		}, clerkinvite.StatusActive},
		"user.updated, the address is not shown as verified yet": {func(t *testing.T, b *testkit.Rig) clerkinvitetest.Webhook {
			b.MustInvite(t, email)
			u := b.Clerk.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{{Address: email}}})
			b.Clerk.SetBehavior(lag)
			return b.Clerk.VerifyEmail(u.ID, email)
		}, clerkinvite.StatusActive},
		"user.updated, the address is not shown yet": {func(t *testing.T, b *testkit.Rig) clerkinvitetest.Webhook {
			b.MustInvite(t, email)
			u := b.Clerk.AddVerifiedUser("private@example.com")
			b.Clerk.SetBehavior(lag)
			return b.Clerk.AddEmail(u.ID, clerkinvitetest.EmailSpec{Address: email, Verified: true})
		}, clerkinvite.StatusActive},
		"user.deleted, the user is still shown": {func(t *testing.T, b *testkit.Rig) clerkinvitetest.Webhook {
			u := b.Clerk.AddVerifiedUser(email)
			b.MustInvite(t, email)
			b.Clerk.SetBehavior(lag)
			return b.Clerk.DeleteUser(u.ID)
		}, clerkinvite.StatusRemoved},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
				w := c.happens(t, b)
				before := b.Member(t, email)
				deliver := func() int {
					w.At = b.Clock.Now() // as Svix does
					recorder := httptest.NewRecorder()
					b.WebhookHandler(b.Verifier).ServeHTTP(recorder, w.Request(clerkinvitetest.WebhookSecret, "/webhook"))
					return recorder.Code
				}
				require.Equal(t, 500, deliver())
				b.Clock.Advance(time.Minute)
				require.Equal(t, 500, deliver())
				require.Equal(t, before, b.Member(t, email))

				b.Clock.Advance(time.Minute)
				require.Equal(t, 204, deliver(), "not forever")
				require.Equal(t, before, b.Member(t, email))

				b.Clerk.Settle()
				require.Equal(t, 204, deliver())
				require.Equal(t, c.end, b.Member(t, email).Status)
			})
		})
	}
}

// Events that Clerk contradicts are not repeated if they are not recent by their own time: the dashboard's example, an event
// without a time, and an event from a wrong clock.
func TestHandleEvent_ClerkContradictsAnotherEvent(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	b.MustInvite(t, "ada@example.com")
	user := clerkinvite.User{ID: "user_example", Emails: []clerkinvite.UserEmail{{Address: "ada@example.com", Verified: true}}}
	now := b.Clock.Now()
	for _, at := range []time.Time{{}, time.Unix(1716883200, 0), now.Add(-2 * time.Minute), now.Add(2 * time.Minute), now.AddDate(1, 0, 0)} {
		changed, err := b.HandleEvent(t.Context(), &clerkinvite.Event{Type: clerkinvite.EventUserCreated, UserID: user.ID, User: &user, Timestamp: at})
		require.NoError(t, err, at)
		require.Empty(t, changed)
	}
	for _, at := range []time.Time{now, now.Add(-2*time.Minute + 1), now.Add(time.Minute)} {
		_, err := b.HandleEvent(t.Context(), &clerkinvite.Event{Type: clerkinvite.EventUserCreated, UserID: user.ID, User: &user, Timestamp: at})
		require.ErrorIs(t, err, clerkinvite.ErrUnconfirmed, at)
	}
}

// The machine's clock is set forward while Clerk is asked, and the store's clock fails: the event's age is unknown, so Svix
// must deliver the event again.
func TestHandleEvent_ClockFails(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	store := &failingClock{Store: clerkinvitetest.NewMemoryStore()}
	b := testkit.NewMemory(t, testkit.Options{Configure: func(cfg *clerkinvite.Config) { cfg.Store = store }})
	store.now = b.Clock.Now()
	b.MustInvite(t, email)
	user := clerkinvite.User{ID: "user_new", Emails: []clerkinvite.UserEmail{{Address: email, Verified: true}}}
	down := errors.New("the database is down")
	b.Clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
		if c == clerkinvitetest.CallGetUser && w == clerkinvitetest.Before {
			b.Clock.Advance(time.Hour)
			store.err = down
		}
	})
	_, err := b.HandleEvent(t.Context(), &clerkinvite.Event{Type: clerkinvite.EventUserCreated, UserID: user.ID, User: &user, Timestamp: store.now})
	require.ErrorIs(t, err, down)
}

// failingClock is a store whose clock stands still, and fails if err is not nil.
type failingClock struct {
	clerkinvite.Store
	now time.Time
	err error
}

func (s *failingClock) Clock(context.Context) (time.Time, error) { return s.now, s.err }

// This machine's clock is behind Clerk's: an account that is younger than the expiry proves nothing.
func TestResolve_AccountYoungerThanTheExpiryWithAClockBehind(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		const email = "ada@example.com"
		m := b.MustInvite(t, email)
		b.Clock.Advance(m.ExpiresAt.Sub(b.Clock.Now()) - 4*time.Minute)
		b.Clerk.SetNow(func() time.Time { return b.Clock.Now().Add(5 * time.Minute) })
		w := b.Clerk.SignUp(email, true)
		require.Empty(t, b.Receive(t, w))
		require.Equal(t, clerkinvite.StatusPending, b.Member(t, email).Status)
		_, err := b.Reconcile(t.Context(), nil)
		require.NoError(t, err)
		b.Clock.Advance(time.Hour)
		_, err = b.Reconcile(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusExpired, b.Member(t, email).Status)
	})
}
