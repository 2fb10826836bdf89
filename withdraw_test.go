package clerkinvite_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// The person accepted under another address: Revoke is refused each time, and Remove works.
func TestRemove_AfterAcceptanceUnderAnotherAddress(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	m := b.MustInvite(t, "ada@example.com")
	_, err := b.Clerk.AcceptAs("ada@example.com", "private@example.com")
	require.NoError(t, err)
	for range 2 {
		_, err = b.Revoke(t.Context(), m.Ref())
		testkit.RequireTransition(t, err, clerkinvite.StatusPending, clerkinvite.StatusRevoked)
		require.Equal(t, clerkinvite.StatusPending, b.Member(t, "ada@example.com").Status)
	}
	m, err = b.Remove(t.Context(), m.Ref())
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusRemoved, m.Status)
}

// An expired row names an invitation without a marker that is still open. Purge revokes it, because nothing refers to
// it afterwards.
func TestPromise4_PurgeOfAnImportedMember(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		older, another := b.Clerk.CreateForeign(email, nil), b.Clerk.CreateForeign(email, map[string]any{"tenant": "theirs"})
		at := b.Clock.Now()
		m := testkit.InsertRows(t, b.Store, &clerkinvite.Member{
			ID: "01a21382-a370-7acd-84c9-72ad5abb3517", TenantID: "acme", Email: email, Status: clerkinvite.StatusExpired,
			InvitationID: older.ID, Send: 1, Sent: 1, Version: 1, ReservedAt: at, InvitedAt: &at, ExpiresAt: &at, SettledAt: &at, UpdatedAt: at,
		})[0]
		require.NoError(t, b.Purge(t.Context(), m.Ref()))
		open := b.Clerk.OpenInvitations(email)
		require.Len(t, open, 1)
		require.Equal(t, another.ID, open[0].ID)
	})
}

// Clerk's list lags: it does not show the invitation of a member that no longer waits for it.
// After Purge nothing refers to the invitation.
func TestPromise4_PurgeWhileClerksListLags(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	for name, fault := range map[string]*clerkinvitetest.Fault{
		"open":              nil,
		"not found":         {Call: clerkinvitetest.CallRevoke, Status: 404, Code: "resource_not_found"},
		"the revoke fails":  {Call: clerkinvitetest.CallRevoke, Status: 500, Code: "internal_clerk_error", Times: 9},
		"the key is wrong":  {Call: clerkinvitetest.CallRevoke, Status: 401, Code: "clerk_key_invalid"},
		"resent":            nil,
		"another tenant's":  nil,
		"removed and known": nil,
	} {
		t.Run(name, func(t *testing.T) {
			testkit.Each(t, testkit.Options{Configure: func(c *clerkinvite.Config) { c.ResendCooldown = -1 }}, func(t *testing.T, b *testkit.Rig) {
				b.Clerk.SetBehavior(clerkinvitetest.Behavior{Lag: true})
				m := b.MustInvite(t, email)
				if name == "resent" {
					var err error
					m, err = b.Resend(t.Context(), testkit.Ada)
					require.NoError(t, err)
				}
				if name == "another tenant's" {
					theirs := *m
					theirs.ID, theirs.TenantID, theirs.Version = "01a21382-a370-7acd-84c9-72ad5abb3518", "globex", 1
					results, err := b.Store.Insert(t.Context(), []*clerkinvite.Member{&theirs})
					require.NoError(t, err)
					require.NoError(t, results[0].Err)
				}
				u := clerkinvite.User{ID: "user_1", Emails: []clerkinvite.UserEmail{{ID: "idn_1", Address: email, Verified: true}}, CreatedAt: b.Clock.Now()}
				if name != "another tenant's" { // it would become active, too
					_, err := b.Resolve(t.Context(), u)
					require.NoError(t, err)
				} else {
					_, err := b.Store.Update(t.Context(), []clerkinvite.Change{{Old: m, New: active(*m)}})
					require.NoError(t, err)
				}
				if name == "removed and known" {
					_, err := b.Remove(t.Context(), testkit.Ada)
					require.NoError(t, err)
					b.Clerk.Settle()
				}
				require.NotEmpty(t, b.Clerk.OpenInvitations(email), "the situation of this test")
				if fault != nil {
					b.Clerk.Fail(*fault)
				}
				err := b.Purge(t.Context(), testkit.Ada)
				open := b.Clerk.OpenInvitations(email)
				switch name {
				case "the revoke fails", "the key is wrong":
					var clerkErr *clerkinvite.ClerkInvitationError
					require.ErrorAs(t, err, &clerkErr, "nothing is erased")
					b.Clerk.ClearFaults()
					require.NoError(t, b.Purge(t.Context(), testkit.Ada))
					require.Empty(t, b.Clerk.OpenInvitations(email))
				case "not found", "another tenant's":
					require.NoError(t, err)
					require.Len(t, open, 1)
				default:
					require.NoError(t, err)
					require.Empty(t, open)
				}
			})
		})
	}
}

// active returns the row of a member that has joined.
func active(m clerkinvite.Member) *clerkinvite.Member {
	m.Status, m.ClerkUserID, m.URL = clerkinvite.StatusActive, "user_1", clerkinvite.Secret{}
	return &m
}

// in brings ada into a state.
func memberIn(t *testing.T, b *testkit.Rig, status clerkinvite.Status) *clerkinvite.Member {
	t.Helper()
	p := testkit.Params("acme", "ada@example.com")
	var err error
	switch status {
	case clerkinvite.StatusReserved:
		_, err = b.Reserve(t.Context(), p)
	case clerkinvite.StatusPending:
		_, err = b.Invite(t.Context(), p)
	case clerkinvite.StatusActive:
		b.Clerk.AddVerifiedUser("ada@example.com")
		_, err = b.Invite(t.Context(), p)
	case clerkinvite.StatusFailed:
		b.FailCreates(clerkinvitetest.Fault{Status: 403, Code: "not_allowed_access"})
		_, err = b.Invite(t.Context(), p)
		require.Error(t, err)
		b.Clerk.ClearFaults()
		err = nil
	case clerkinvite.StatusRevoked:
		memberIn(t, b, clerkinvite.StatusPending)
		_, err = b.Revoke(t.Context(), testkit.Ada)
	case clerkinvite.StatusExpired:
		memberIn(t, b, clerkinvite.StatusPending)
		b.Clock.Advance(31 * 24 * time.Hour)
		_, err = b.Reconcile(t.Context(), nil)
	case clerkinvite.StatusRemoved:
		memberIn(t, b, clerkinvite.StatusPending)
		_, err = b.Remove(t.Context(), testkit.Ada)
	}
	require.NoError(t, err)
	m := b.Member(t, "ada@example.com")
	require.Equal(t, status, m.Status)
	b.Clock.Advance(time.Hour)
	return m
}

// Each verb in each state.
func TestVerbsInEveryState(t *testing.T) {
	t.Parallel()
	type verb func(b *testkit.Rig, ctx context.Context, ref clerkinvite.Ref) (*clerkinvite.Member, error)
	revoke := func(b *testkit.Rig, ctx context.Context, ref clerkinvite.Ref) (*clerkinvite.Member, error) {
		return b.Revoke(ctx, ref)
	}
	remove := func(b *testkit.Rig, ctx context.Context, ref clerkinvite.Ref) (*clerkinvite.Member, error) {
		return b.Remove(ctx, ref)
	}
	resend := func(b *testkit.Rig, ctx context.Context, ref clerkinvite.Ref) (*clerkinvite.Member, error) {
		return b.Resend(ctx, ref)
	}
	verbs := map[string]struct {
		do    verb
		to    clerkinvite.Status
		legal []clerkinvite.Status
	}{
		"revoke": {revoke, clerkinvite.StatusRevoked, []clerkinvite.Status{clerkinvite.StatusReserved, clerkinvite.StatusPending, clerkinvite.StatusExpired, clerkinvite.StatusRevoked}},
		"remove": {remove, clerkinvite.StatusRemoved, []clerkinvite.Status{clerkinvite.StatusReserved, clerkinvite.StatusPending, clerkinvite.StatusActive, clerkinvite.StatusExpired, clerkinvite.StatusRemoved}},
		"resend": {resend, clerkinvite.StatusPending, []clerkinvite.Status{clerkinvite.StatusPending}},
	}
	testkit.OnBoth(t, func(t *testing.T, fresh func(*testing.T, testkit.Options) *testkit.Rig) {
		for name, v := range verbs {
			for _, from := range clerkinvite.Statuses() {
				t.Run(fmt.Sprintf("%s %s", name, from), func(t *testing.T) {
					t.Parallel()
					b := fresh(t, testkit.Options{})
					was := memberIn(t, b, from)
					m, err := v.do(b, t.Context(), testkit.Ada)
					if !slices.Contains(v.legal, from) {
						testkit.RequireTransition(t, err, from, v.to)
						require.Equal(t, was, b.Member(t, "ada@example.com"), "untouched")
						return
					}
					require.NoError(t, err)
					require.Equal(t, v.to, m.Status)
					open := 0
					if v.to == clerkinvite.StatusPending {
						open = 1
					}
					require.Len(t, b.Clerk.OpenInvitations("ada@example.com"), open)
					if name == "resend" {
						require.Equal(t, 2, m.Send)
						require.NotEqual(t, was.InvitationID, m.InvitationID)
						require.Equal(t, 2, b.Clerk.Emails())
						return
					}
					again, err := v.do(b, t.Context(), testkit.Ada)
					require.NoError(t, err, "for repetition")
					require.Equal(t, m, again)
					b.Clerk.SignUp("ada@example.com", true)
					users, err := b.Clerk.FindUsers(t.Context(), clerkinvite.UserQuery{Emails: []string{"ada@example.com"}})
					require.NoError(t, err)
					changed, err := b.ResolveUser(t.Context(), users[0].ID)
					require.NoError(t, err)
					require.Empty(t, changed, "a sign-up does not bring a removed person back")
				})
			}
			t.Run(name+" no member", func(t *testing.T) {
				t.Parallel()
				b := fresh(t, testkit.Options{})
				_, err := v.do(b, t.Context(), testkit.Ada)
				require.ErrorIs(t, err, clerkinvite.ErrNotFound)
				_, err = v.do(b, t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "nonsense"})
				var invalid *clerkinvite.InvalidParamsError
				require.ErrorAs(t, err, &invalid)
			})
		}
	})
}

// The person has accepted when the admin revokes or removes, and the webhook has not arrived yet.
func TestWithdrawAfterAcceptance(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		memberIn(t, b, clerkinvite.StatusPending)
		w, err := b.Clerk.Accept("ada@example.com")
		require.NoError(t, err)
		_, err = b.Revoke(t.Context(), testkit.Ada)
		testkit.RequireTransition(t, err, clerkinvite.StatusActive, clerkinvite.StatusRevoked)
		require.Equal(t, clerkinvite.StatusActive, b.Member(t, "ada@example.com").Status, "resolved")
		require.Empty(t, b.Receive(t, w))

		b.MustInvite(t, "grace@example.com")
		w, err = b.Clerk.Accept("grace@example.com")
		require.NoError(t, err)
		m, err := b.Remove(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "grace@example.com"})
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusRemoved, m.Status)
		require.Empty(t, b.Receive(t, w))
	})
}

// The response to the create was lost, so an invitation may be open.
func TestPromise4_WithdrawRevokesALostInvitation(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		b.FailCreates(clerkinvitetest.Fault{When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
		_, err := b.TryInvite(t, "ada@example.com")
		require.Error(t, err)
		require.Len(t, b.Clerk.OpenInvitations("ada@example.com"), 1)
		m, err := b.Revoke(t.Context(), testkit.Ada)
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusRevoked, m.Status)
		require.Empty(t, b.Clerk.OpenInvitations("ada@example.com"))
	})
}

// requirePurgeWaits purges Ada, whose invitation may not be in Clerk's list yet. That waits for a lease.
func requirePurgeWaits(t *testing.T, b *testkit.Rig) {
	t.Helper()
	require.ErrorIs(t, b.Purge(t.Context(), testkit.Ada), clerkinvite.ErrConflict)
	b.Clerk.Settle()
	b.Clock.Advance(time.Minute)
	require.NoError(t, b.Purge(t.Context(), testkit.Ada))
	require.Empty(t, b.Clerk.OpenInvitations(testkit.Ada.Email))
}

// The invitation of a lost response is not in Clerk's list yet: Purge waits for a lease, even if the member
// was withdrawn in the meantime.
func TestPromise4_PurgeAfterALostResponse(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	for name, withdraw := range map[string]func(context.Context, *testkit.Rig) error{
		"revoked": func(ctx context.Context, b *testkit.Rig) error {
			_, err := b.Revoke(ctx, testkit.Ada)
			return err
		},
		"removed": func(ctx context.Context, b *testkit.Rig) error {
			_, err := b.Remove(ctx, testkit.Ada)
			return err
		},
		"withdrawn": nil,
	} {
		t.Run(name, func(t *testing.T) {
			testkit.Each(t, testkit.Options{Configure: func(c *clerkinvite.Config) { c.WithdrawOnFailure = withdraw == nil }}, func(t *testing.T, b *testkit.Rig) {
				b.Clerk.SetBehavior(clerkinvitetest.Behavior{Lag: true})
				b.FailCreates(clerkinvitetest.Fault{When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
				_, err := b.TryInvite(t, email)
				require.Error(t, err)
				if withdraw != nil {
					require.NoError(t, withdraw(t.Context(), b))
				}
				require.False(t, b.Member(t, email).Status.Waits())
				require.Len(t, b.Clerk.OpenInvitations(email), 1, "the situation of this test")
				requirePurgeWaits(t, b)
			})
		})
	}
}

// A create's response is lost, or an older invitation could not be revoked. The person signs up without the invitation and then
// changes the address, so Purge does not find it at Clerk. Reconcile reports it as Unknown, and before the purge it revokes it.
func TestPurge_InvitationForAnEarlierAddress(t *testing.T) {
	t.Parallel()
	const email, changed = "ada@example.com", "changed@example.com"
	lost := func(t *testing.T, b *testkit.Rig) {
		b.FailCreates(clerkinvitetest.Fault{When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
		_, err := b.TryInvite(t, email)
		require.Error(t, err)
		b.Clock.Advance(2 * time.Minute)
	}
	leftOver := func(t *testing.T, b *testkit.Rig) {
		m := b.MustInvite(t, email)
		b.Clock.Advance(2 * time.Hour)
		b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallRevoke, Kind: clerkinvitetest.JSON500, Times: 1})
		_, err := b.Resend(t.Context(), m.Ref())
		require.NoError(t, err)
		b.Clerk.RevokeInDashboard(b.Member(t, email).InvitationID)
	}
	for name, prepare := range map[string]func(*testing.T, *testkit.Rig){"lost": lost, "left over": leftOver} {
		for _, reconciled := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, reconciled %v", name, reconciled), func(t *testing.T) {
				t.Parallel()
				testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
					prepare(t, b)
					b.Receive(t, b.Clerk.SignUp(email, true))
					m := b.Member(t, email)
					require.Equal(t, clerkinvite.StatusActive, m.Status)
					b.Receive(t, b.Clerk.ChangeEmail(m.ClerkUserID, changed))
					require.Len(t, b.Clerk.OpenInvitations(email), 1, "the situation of this test")
					unknown := 1
					if reconciled {
						require.Equal(t, 1, b.MustReconcile(t).LeftOver)
						unknown = 0
					}
					require.NoError(t, b.Purge(t.Context(), testkit.Acme(changed)))
					report := b.MustReconcile(t)
					require.Equal(t, []int{unknown, 0}, []int{report.Unknown, report.LeftOver})
					require.Len(t, b.Clerk.OpenInvitations(email), unknown)
				})
			})
		}
	}
}

// The same for a resend that was withdrawn, after its email may have been sent: the member keeps the older invitation, and
// another resend waits for the cooldown.
func TestPurge_AfterAWithdrawnResend(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	for _, revoked := range []bool{false, true} {
		t.Run(fmt.Sprintf("then revoked %v", revoked), func(t *testing.T) {
			t.Parallel()
			testkit.Each(t, testkit.Options{Configure: func(c *clerkinvite.Config) { c.WithdrawOnFailure = true }}, func(t *testing.T, b *testkit.Rig) {
				b.MustInvite(t, email)
				b.Clerk.Settle()
				b.Clock.Advance(time.Hour)
				b.Clerk.SetBehavior(clerkinvitetest.Behavior{Lag: true})
				b.FailCreates(clerkinvitetest.Fault{When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
				_, err := b.Resend(t.Context(), testkit.Ada)
				require.Error(t, err)
				m := b.Member(t, email)
				require.Equal(t, clerkinvite.StatusPending, m.Status)
				require.False(t, m.Due())
				require.Len(t, b.Clerk.OpenInvitations(email), 2, "the situation of this test")

				_, err = b.Resend(t.Context(), testkit.Ada)
				var cooldown *clerkinvite.CooldownError
				require.ErrorAs(t, err, &cooldown)
				if revoked {
					_, err = b.Revoke(t.Context(), testkit.Ada)
					require.NoError(t, err)
				}
				requirePurgeWaits(t, b)
			})
		})
	}
}

// A new reservation has no attempt yet, so its parameters can still change.
func TestInvite_OtherParametersAfterARevocationDuringAnAttempt(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		b.FailCreates(clerkinvitetest.Fault{When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
		_, err := b.TryInvite(t, "ada@example.com")
		require.Error(t, err)
		b.Clerk.ClearFaults()
		_, err = b.Revoke(t.Context(), testkit.Ada)
		require.NoError(t, err)
		p := testkit.Params("acme", "ada@example.com")
		_, err = b.Reserve(t.Context(), p)
		require.NoError(t, err)
		p.ExpiresInDays = 3
		_, err = b.Invite(t.Context(), p)
		require.NoError(t, err)
		m := b.RequireInvited(t, "ada@example.com", 2)
		require.Equal(t, m.InvitedAt.AddDate(0, 0, 3), *m.ExpiresAt)
	})
}

// Clerk fails during the revocation: the member is unchanged, and a second call works.
func TestWithdraw_ReturnsClerksFault(t *testing.T) {
	t.Parallel()
	testkit.EachLostResponse(t, clerkinvitetest.CallRevoke, func(t *testing.T, b *testkit.Rig, lost clerkinvitetest.Fault) {
		was := memberIn(t, b, clerkinvite.StatusPending)
		b.Clerk.Fail(lost)
		_, err := b.Revoke(t.Context(), testkit.Ada)
		var clerkErr *clerkinvite.ClerkInvitationError
		require.ErrorAs(t, err, &clerkErr)
		require.Equal(t, "revoke invitation", clerkErr.Op)
		require.Equal(t, was, b.Member(t, "ada@example.com"))
		m, err := b.Revoke(t.Context(), testkit.Ada)
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusRevoked, m.Status)
		require.Empty(t, b.Clerk.OpenInvitations("ada@example.com"))
	})
}

// Clerk's response to the revocation of an expired invitation is undocumented.
func TestRevoke_ExpiredMember(t *testing.T) {
	t.Parallel()
	testkit.EachBehavior(t, func(t *testing.T, b *testkit.Rig) {
		b.MustInvite(t, "ada@example.com")
		b.Clerk.Settle()
		b.Clock.Advance(40 * 24 * time.Hour)
		m, err := b.Revoke(t.Context(), testkit.Ada)
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusRevoked, m.Status)
	})
}

func TestPurge(t *testing.T) {
	t.Parallel()
	testkit.OnBoth(t, func(t *testing.T, fresh func(*testing.T, testkit.Options) *testkit.Rig) {
		for _, from := range clerkinvite.Statuses() {
			t.Run(string(from), func(t *testing.T) {
				t.Parallel()
				b := fresh(t, testkit.Options{})
				was := memberIn(t, b, from)
				// Left over by a crash.
				b.Clerk.CreateForeign("ada@example.com", map[string]any{"clerkinvite": map[string]any{"id": was.ID, "send": 1}})
				foreign := b.Clerk.CreateForeign("ada@example.com", nil)
				require.NoError(t, b.Purge(t.Context(), testkit.Ada))
				_, err := b.Get(t.Context(), testkit.Ada)
				require.ErrorIs(t, err, clerkinvite.ErrNotFound)
				history, err := b.Store.History(t.Context(), "acme", was.ID)
				require.NoError(t, err)
				require.Empty(t, history)
				open := b.Clerk.OpenInvitations("ada@example.com")
				require.Len(t, open, 1)
				require.Equal(t, foreign.ID, open[0].ID, "another application's invitation stays")
				require.ErrorIs(t, b.Purge(t.Context(), testkit.Ada), clerkinvite.ErrNotFound)
				m, err := b.TryInvite(t, "ada@example.com")
				require.NoError(t, err)
				require.NotEqual(t, was.ID, m.ID)
				require.Equal(t, 1, m.Send)
			})
		}
		t.Run("held", func(t *testing.T) {
			t.Parallel()
			b := fresh(t, testkit.Options{})
			b.FailCreates(clerkinvitetest.Fault{When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
			_, err := b.TryInvite(t, "ada@example.com")
			require.Error(t, err)
			require.ErrorIs(t, b.Purge(t.Context(), testkit.Ada), clerkinvite.ErrConflict)
			b.Clock.Advance(2 * time.Minute)
			require.NoError(t, b.Purge(t.Context(), testkit.Ada))
			require.Empty(t, b.Clerk.OpenInvitations("ada@example.com"))
		})
		t.Run("Clerk fails", func(t *testing.T) {
			t.Parallel()
			b := fresh(t, testkit.Options{})
			was := memberIn(t, b, clerkinvite.StatusPending)
			for _, call := range []clerkinvitetest.Call{clerkinvitetest.CallList, clerkinvitetest.CallRevoke} {
				b.Clerk.Fail(clerkinvitetest.Fault{Call: call, Status: 401, Code: "clerk_key_invalid"})
				var clerkErr *clerkinvite.ClerkInvitationError
				require.ErrorAs(t, b.Purge(t.Context(), testkit.Ada), &clerkErr)
				now := b.Member(t, "ada@example.com")
				now.Version, now.UpdatedAt = was.Version, was.UpdatedAt
				require.Equal(t, was, now, "nothing is erased, and the claim is released")
			}
		})
	})
}

// The member is updated while Purge runs, and Clerk fails in the second round: no claim of either round is left.
func TestPurge_LeavesNoClaimAfterASecondRound(t *testing.T) {
	t.Parallel()
	for _, status := range []clerkinvite.Status{clerkinvite.StatusReserved, clerkinvite.StatusPending} {
		t.Run(string(status), func(t *testing.T) {
			t.Parallel()
			clerk, store := clerkinvitetest.NewClerk(), &hookStore{Store: clerkinvitetest.NewMemoryStore()}
			b := testkit.New(t, testkit.Options{}, clerk, clerk, store)
			was := memberIn(t, b, status)
			role := "editor"
			store.before = func(changes []clerkinvite.Change) {
				if changes[0].New == nil {
					store.before = nil
					_, err := b.Update(t.Context(), testkit.Ada, clerkinvite.MemberUpdate{Role: &role})
					require.NoError(t, err)
					clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallList, Status: 401, Code: "clerk_key_invalid"})
				}
			}
			var clerkErr *clerkinvite.ClerkInvitationError
			require.ErrorAs(t, b.Purge(t.Context(), testkit.Ada), &clerkErr)
			now := b.Member(t, "ada@example.com")
			require.Equal(t, "editor", now.Role)
			require.Nil(t, now.ClaimedUntil)
			require.Equal(t, was.Attempts, now.Attempts)
			require.Equal(t, was.NextAttemptAt, now.NextAttemptAt)
			require.NoError(t, b.Purge(t.Context(), testkit.Ada))
		})
	}
}

// Another call changes the member just before a failed Purge releases its claim. Only the claim of this Purge is released.
func TestPurge_ReleasesTheClaimOfANewerRow(t *testing.T) {
	t.Parallel()
	role := "editor"
	for name, test := range map[string]struct {
		change func(t *testing.T, b *testkit.Rig, claimed *clerkinvite.Member)
		left   bool
	}{
		"updated": {change: func(t *testing.T, b *testkit.Rig, _ *clerkinvite.Member) {
			t.Helper()
			_, err := b.Update(t.Context(), testkit.Ada, clerkinvite.MemberUpdate{Role: &role})
			require.NoError(t, err)
		}},
		"due again": {change: func(t *testing.T, b *testkit.Rig, claimed *clerkinvite.Member) {
			t.Helper()
			next := claimed.Clone()
			next.Send++
			next.NextAttemptAt = &claimed.UpdatedAt
			testkit.UpdateRows(t, b.Store, clerkinvite.Change{Old: claimed, New: next})
		}},
		"claimed by another attempt": {left: true, change: func(t *testing.T, b *testkit.Rig, claimed *clerkinvite.Member) {
			t.Helper()
			next, until := claimed.Clone(), claimed.ClaimedUntil.Add(time.Second)
			next.ClaimedUntil = &until
			testkit.UpdateRows(t, b.Store, clerkinvite.Change{Old: claimed, New: next})
		}},
		"erased": {change: func(t *testing.T, b *testkit.Rig, claimed *clerkinvite.Member) {
			t.Helper()
			testkit.UpdateRows(t, b.Store, clerkinvite.Change{Old: claimed})
		}},
	} {
		for _, status := range []clerkinvite.Status{clerkinvite.StatusReserved, clerkinvite.StatusPending} {
			t.Run(name+" "+string(status), func(t *testing.T) {
				t.Parallel()
				clerk, store := clerkinvitetest.NewClerk(), &hookStore{Store: clerkinvitetest.NewMemoryStore()}
				b := testkit.New(t, testkit.Options{}, clerk, clerk, store)
				was := memberIn(t, b, status)
				clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallList, Status: 401, Code: "clerk_key_invalid"})
				var changed *clerkinvite.Member
				store.before = func(changes []clerkinvite.Change) {
					if c := changes[0]; c.Old.ClaimedUntil != nil && c.New.ClaimedUntil == nil {
						store.before = nil
						test.change(t, b, c.Old)
						if m, ok := b.MembersByRef(t)[c.Old.Ref()]; ok {
							changed = &m
						}
					}
				}
				var clerkErr *clerkinvite.ClerkInvitationError
				require.ErrorAs(t, b.Purge(t.Context(), testkit.Ada), &clerkErr)
				if changed == nil {
					require.Equal(t, "erased", name)
					return
				}
				now := b.Member(t, "ada@example.com")
				require.Equal(t, changed.Role, now.Role)
				require.Equal(t, changed.Send, now.Send)
				switch {
				case test.left:
					require.Equal(t, changed, now)
				case name == "due again":
					require.Nil(t, now.ClaimedUntil)
					require.Equal(t, changed.NextAttemptAt, now.NextAttemptAt)
				default:
					require.Nil(t, now.ClaimedUntil)
					require.Equal(t, was.NextAttemptAt, now.NextAttemptAt)
				}
			})
		}
	}
}

// A resend was settled, but the older invitation was not revoked.
func TestPromise4_WithdrawAfterAResendThatLeftALink(t *testing.T) {
	t.Parallel()
	for name, withdraw := range map[string]func(*testkit.Rig) (*clerkinvite.Member, error){
		"Revoke": func(b *testkit.Rig) (*clerkinvite.Member, error) { return b.Revoke(t.Context(), testkit.Ada) },
		"Remove": func(b *testkit.Rig) (*clerkinvite.Member, error) { return b.Remove(t.Context(), testkit.Ada) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
				b.MustInvite(t, "ada@example.com")
				b.Clock.Advance(time.Minute)
				b.Clerk.OnCall(func(_ context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
					if call == clerkinvitetest.CallCreate && when == clerkinvitetest.After {
						b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallRevoke, Kind: clerkinvitetest.JSON500, Times: -1})
					}
				})
				_, err := b.Resend(t.Context(), testkit.Ada)
				require.NoError(t, err)
				b.Clerk.ClearFaults()
				require.Len(t, b.Clerk.OpenInvitations("ada@example.com"), 2, "the situation of this test")

				_, err = withdraw(b)
				require.NoError(t, err)
				require.Empty(t, b.Clerk.OpenInvitations("ada@example.com"), "no link works")
			})
		})
	}
}

// Clerk's list cannot be read: the invitation that the row names is revoked nevertheless.
func TestPromise4_WithdrawWithoutAList(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		b.MustInvite(t, "ada@example.com")
		b.Clock.Advance(time.Minute)
		_, err := b.Resend(t.Context(), testkit.Ada)
		require.NoError(t, err)
		b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallList, Kind: clerkinvitetest.JSON500, Times: -1})
		_, err = b.Revoke(t.Context(), testkit.Ada)
		var trouble *clerkinvite.ClerkInvitationError
		require.ErrorAs(t, err, &trouble)
		require.Empty(t, b.Clerk.OpenInvitations("ada@example.com"))
		b.Clerk.ClearFaults()
		m, err := b.Revoke(t.Context(), testkit.Ada)
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusRevoked, m.Status)
	})
}

// The person accepted an invitation years ago, that user is deleted, and the person is invited again.
func TestRevoke_AfterAnEarlierMembership(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		b.MustInvite(t, "ada@example.com")
		w, err := b.Clerk.Accept("ada@example.com")
		require.NoError(t, err)
		b.Receive(t, w)
		b.Receive(t, b.Clerk.DeleteUser(b.Member(t, "ada@example.com").ClerkUserID))
		require.Equal(t, clerkinvite.StatusRemoved, b.Member(t, "ada@example.com").Status)
		b.Clock.Advance(time.Hour)
		b.FailCreates(clerkinvitetest.Fault{Kind: clerkinvitetest.HTML502})
		_, err = b.TryInvite(t, "ada@example.com")
		require.Error(t, err)
		b.Clerk.ClearFaults()
		m, err := b.Revoke(t.Context(), testkit.Ada)
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusRevoked, m.Status)
		b.Clock.Advance(2 * time.Hour)
		_, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, 1, b.Clerk.Emails(), "no email to a revoked person")
	})
}

// The person has just accepted the older of two open invitations and has joined.
func TestRevoke_AfterTheOlderLinkWasAccepted(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		older := b.MustInvite(t, "ada@example.com").InvitationID
		b.Clock.Advance(time.Minute)
		b.Clerk.OnCall(func(_ context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
			if call == clerkinvitetest.CallCreate && when == clerkinvitetest.After {
				b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallRevoke, Kind: clerkinvitetest.JSON500, Times: -1})
			}
		})
		_, err := b.Resend(t.Context(), testkit.Ada)
		require.NoError(t, err)
		b.Clerk.ClearFaults()
		_, err = b.Clerk.AcceptInvitation(older)
		require.NoError(t, err)
		_, err = b.Revoke(t.Context(), testkit.Ada)
		var transition *clerkinvite.TransitionError
		require.ErrorAs(t, err, &transition)
		require.Equal(t, clerkinvite.StatusActive, b.Member(t, "ada@example.com").Status)
		require.Empty(t, b.Clerk.OpenInvitations("ada@example.com"))
	})
}

// The invitation is expired by our clock and open by Clerk's. The person is invited again, and revoked before anything
// was sent.
func TestPromise4_RevokeOfAReservedMemberWithAnOlderLink(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		b.MustInvite(t, "ada@example.com")
		b.Clerk.SetNow(func() time.Time { return b.Clock.Now().Add(-5 * time.Minute) })
		b.Clock.Advance(30*24*time.Hour + time.Minute)
		_, err := b.Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"})
		require.NoError(t, err)
		require.Len(t, b.Clerk.OpenInvitations("ada@example.com"), 1, "the situation of this test")
		_, err = b.Revoke(t.Context(), testkit.Ada)
		require.NoError(t, err)
		require.Empty(t, b.Clerk.OpenInvitations("ada@example.com"))
	})
}

// An admin withdraws while the invitation is created: no invitation stays open.
func TestWithdrawDuringDelivery(t *testing.T) {
	t.Parallel()
	testkit.OnBoth(t, func(t *testing.T, fresh func(*testing.T, testkit.Options) *testkit.Rig) {
		for _, call := range []clerkinvitetest.Call{clerkinvitetest.CallFindUsers, clerkinvitetest.CallCreate} {
			for _, when := range []clerkinvitetest.When{clerkinvitetest.Before, clerkinvitetest.After} {
				for _, remove := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s %s %v", call, when, remove), func(t *testing.T) {
						t.Parallel()
						b := fresh(t, testkit.Options{})
						b.Clerk.OnCall(func(ctx context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
							if c != call || w != when {
								return
							}
							b.Clerk.OnCall(nil)
							verb := b.Revoke
							if remove {
								verb = b.Remove
							}
							if _, err := verb(ctx, testkit.Ada); err != nil {
								t.Error(err)
							}
						})
						_, err := b.TryInvite(t, "ada@example.com")
						require.ErrorIs(t, err, clerkinvite.ErrConflict)
						require.Empty(t, b.Clerk.OpenInvitations("ada@example.com"))
					})
				}
			}
		}
	})
}

// strangeAPI is a Clerk with other responses to revocations and lists.
type strangeAPI struct {
	*clerkinvitetest.Clerk
	revoke  func(id string) (*clerkinvite.Invitation, error)
	list    func([]clerkinvite.Invitation) []clerkinvite.Invitation
	members func([]clerkinvite.Membership) []clerkinvite.Membership
}

func (a *strangeAPI) FindMemberships(ctx context.Context, q clerkinvite.MembershipQuery) ([]clerkinvite.Membership, error) {
	found, err := a.Clerk.FindMemberships(ctx, q)
	if err == nil && a.members != nil {
		found = a.members(found)
	}
	return found, err
}

func (a *strangeAPI) RevokeInvitation(ctx context.Context, r clerkinvite.RevokeRequest) (*clerkinvite.Invitation, error) {
	if a.revoke == nil {
		return a.Clerk.RevokeInvitation(ctx, r)
	}
	return a.revoke(r.ID)
}

func (a *strangeAPI) ListInvitations(ctx context.Context, q clerkinvite.InvitationQuery) ([]clerkinvite.Invitation, error) {
	found, err := a.Clerk.ListInvitations(ctx, q)
	if err == nil && a.list != nil {
		found = a.list(found)
	}
	return found, err
}

// If Clerk rejects a revocation for an unknown reason, the list decides, or nothing
// changes.
func TestWithdraw_UnexplainedRejection(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	rejections := map[string]func(string) (*clerkinvite.Invitation, error){
		"404": func(string) (*clerkinvite.Invitation, error) {
			return nil, &clerkinvite.APIError{StatusCode: 404, Code: "resource_not_found"}
		},
		"404 of a proxy": func(string) (*clerkinvite.Invitation, error) { return nil, &clerkinvite.APIError{StatusCode: 404} },
		"400": func(string) (*clerkinvite.Invitation, error) {
			return nil, &clerkinvite.APIError{StatusCode: 400, Code: "invitation_is_strange"}
		},
		"200 with another status": func(id string) (*clerkinvite.Invitation, error) {
			return &clerkinvite.Invitation{ID: id, Status: "strange"}, nil
		},
	}
	status := func(status clerkinvite.InvitationStatus) func([]clerkinvite.Invitation) []clerkinvite.Invitation {
		return func(list []clerkinvite.Invitation) []clerkinvite.Invitation {
			for i := range list {
				list[i].Status = status
			}
			return list
		}
	}
	hidden := func(list []clerkinvite.Invitation) []clerkinvite.Invitation {
		return slices.DeleteFunc(list, func(inv clerkinvite.Invitation) bool { return inv.Email == email })
	}
	nothing := func([]clerkinvite.Invitation) []clerkinvite.Invitation { return nil }
	const unchanged = clerkinvite.StatusPending
	cases := map[string]struct {
		happens func(t *testing.T, b *testkit.Rig)
		list    func([]clerkinvite.Invitation) []clerkinvite.Invitation
		age     time.Duration
		revoked clerkinvite.Status // after Revoke
		removed clerkinvite.Status // after Remove
		proved  clerkinvite.Status // instead, if the rejection is Clerk's 404
	}{
		"accepted": {happens: func(t *testing.T, b *testkit.Rig) {
			_, err := b.Clerk.Accept(email)
			require.NoError(t, err)
		}, revoked: clerkinvite.StatusActive, removed: clerkinvite.StatusRemoved},
		"accepted, and not listed": {happens: func(t *testing.T, b *testkit.Rig) {
			_, err := b.Clerk.Accept(email)
			require.NoError(t, err)
		}, list: hidden, revoked: clerkinvite.StatusActive, removed: clerkinvite.StatusRemoved},
		"accepted under another address": {happens: func(t *testing.T, b *testkit.Rig) {
			_, err := b.Clerk.AcceptAs(email, "private@example.com")
			require.NoError(t, err)
		}, revoked: unchanged, removed: clerkinvite.StatusRemoved},
		"expired":                {list: status(clerkinvite.InvitationExpired), revoked: clerkinvite.StatusRevoked, removed: clerkinvite.StatusRemoved},
		"revoked":                {list: status(clerkinvite.InvitationRevoked), revoked: clerkinvite.StatusRevoked, removed: clerkinvite.StatusRemoved},
		"pending":                {revoked: unchanged, removed: unchanged},
		"a status of the future": {list: status("paused"), revoked: unchanged, removed: unchanged},
		"not listed, young":      {list: hidden, age: time.Minute, revoked: unchanged, removed: unchanged},
		"not listed":             {list: hidden, revoked: unchanged, removed: unchanged, proved: clerkinvite.StatusRevoked},
		"nothing is listed":      {list: nothing, revoked: unchanged, removed: unchanged},
	}
	for name, c := range cases {
		for kind, rejection := range rejections {
			for _, to := range []clerkinvite.Status{clerkinvite.StatusRevoked, clerkinvite.StatusRemoved} {
				t.Run(fmt.Sprintf("%s/%s/%s", name, kind, to), func(t *testing.T) {
					t.Parallel()
					clerk := clerkinvitetest.NewClerk()
					api := &strangeAPI{Clerk: clerk}
					b := testkit.New(t, testkit.Options{}, clerk, api, clerkinvitetest.NewMemoryStore())
					b.MustInvite(t, email)
					b.MustInvite(t, "another@example.com")
					b.Clock.Advance(cmp.Or(c.age, time.Hour))
					if c.happens != nil {
						c.happens(t, b)
					}
					api.revoke, api.list = rejection, c.list
					want, withdraw := c.revoked, b.Revoke
					if to == clerkinvite.StatusRemoved {
						want, withdraw = c.removed, b.Remove
					}
					if kind == "404" && c.proved != "" {
						want = to
					}
					_, err := withdraw(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: email})
					require.Equal(t, want == to, err == nil, "%v", err)
					require.Equal(t, want, b.Member(t, email).Status)
					if want == unchanged && name != "accepted under another address" {
						var clerkErr *clerkinvite.ClerkInvitationError
						require.ErrorAs(t, err, &clerkErr)
						require.ErrorAs(t, b.Purge(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: email}), &clerkErr)
						require.Equal(t, unchanged, b.Member(t, email).Status)
					}
				})
			}
		}
	}
}

// An invitation of an earlier attempt whose status is unknown may be open.
func TestWithdraw_RevokesAnInvitationWithAnUnknownStatus(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	clerk := clerkinvitetest.NewClerk()
	api := &strangeAPI{Clerk: clerk}
	b := testkit.New(t, testkit.Options{}, clerk, api, clerkinvitetest.NewMemoryStore())
	clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
	_, err := b.TryInvite(t, email)
	require.Error(t, err)
	api.list = func(list []clerkinvite.Invitation) []clerkinvite.Invitation {
		for i := range list {
			list[i].Status = "paused"
		}
		return list
	}
	_, err = b.Revoke(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: email})
	require.NoError(t, err)
	require.Empty(t, clerk.OpenInvitations(email))
}

// A list that ignores the requested status proves nothing about any member.
func TestReconcile_ListThatIgnoresTheStatus(t *testing.T) {
	t.Parallel()
	for _, status := range []clerkinvite.InvitationStatus{clerkinvite.InvitationPending, "paused"} {
		clerk := clerkinvitetest.NewClerk()
		api := &everythingAPI{strangeAPI{Clerk: clerk}, status}
		b := testkit.New(t, testkit.Options{}, clerk, api, clerkinvitetest.NewMemoryStore())
		for i := range 5 {
			b.MustInvite(t, fmt.Sprintf("p%d@example.com", i))
		}
		b.Clock.Advance(time.Hour)
		report := b.MustReconcile(t)
		require.Zero(t, report.Revoked+report.Expired+report.Removed+report.Activated+report.LeftOver)
		require.Empty(t, report.AcceptedElsewhere)
		for i := range 5 {
			require.Equal(t, clerkinvite.StatusPending, b.Member(t, fmt.Sprintf("p%d@example.com", i)).Status)
		}
	}
}

type everythingAPI struct {
	strangeAPI
	status clerkinvite.InvitationStatus
}

func (a *everythingAPI) ListInvitations(ctx context.Context, q clerkinvite.InvitationQuery) ([]clerkinvite.Invitation, error) {
	q.Status = ""
	list, err := a.Clerk.ListInvitations(ctx, q)
	for i := range list {
		list[i].Status = a.status
	}
	return list, err
}

// An invitation expired long ago without being accepted, Clerk has forgotten it, and the mailbox has a new owner with an
// account.
func TestRevoke_ExpiredMemberWithReassignedMailbox(t *testing.T) {
	t.Parallel()
	b, api := newSelective(t)
	m := b.MustInvite(t, "ada@example.com")
	b.Clock.Advance(31 * 24 * time.Hour)
	_, err := b.Reconcile(t.Context(), nil)
	require.NoError(t, err)
	b.Clock.Advance(365 * 24 * time.Hour)
	b.Clerk.SignUp("ada@example.com", true)
	b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallRevoke, Times: -1, Status: 404, Code: "resource_not_found"})
	api.list = func(q *clerkinvite.InvitationQuery) { q.Query = "unknown@example.com" }
	m, err = b.Revoke(t.Context(), m.Ref())
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusRevoked, m.Status)
}

// Clerk rejects a bulk request because of p0, but creates p1's invitation. While p1 gets another request, p1 signs up and is
// locked, so that the member waits. Revoke finds the invitation.
func TestPromise4_RevokeOfALockedUserWithAnOpenInvitation(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	people := testkit.People(2, "p")
	b.ReserveEach(t, people)
	b.Clerk.SetBehavior(clerkinvitetest.Behavior{BulkKeepsPartial: true})
	foreign := b.Clerk.CreateForeign(people[0].Email, nil)
	b.Clerk.OnCall(func(_ context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
		if call == clerkinvitetest.CallCreate && when == clerkinvitetest.Before && len(b.Clerk.OpenInvitations(foreign.Email)) == 1 {
			b.Clerk.RevokeInDashboard(foreign.ID)
			b.Clerk.LockUser(b.Clerk.AddVerifiedUser(people[1].Email).ID, time.Hour)
		}
	})
	_, err := b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	m := b.Member(t, people[1].Email)
	require.Equal(t, clerkinvite.ReasonUserLocked, m.Reason)
	require.Equal(t, 1, m.Attempts)
	require.Len(t, b.Clerk.OpenInvitations(m.Email), 1)
	_, err = b.Revoke(t.Context(), m.Ref())
	require.NoError(t, err)
	require.Empty(t, b.Clerk.OpenInvitations(m.Email))
}
