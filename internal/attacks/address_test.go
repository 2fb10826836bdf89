package attacks_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

const oldEmail, newEmail = "ada@example.com", "ada@example.org"

// join makes the owner of a verified address an active member of tenant acme.
func join(t *testing.T, b *testkit.Rig, email string) clerkinvite.User {
	t.Helper()
	u := b.Clerk.AddVerifiedUser(email)
	require.Equal(t, clerkinvite.StatusActive, b.MustInvite(t, email).Status)
	return u
}

// byUser returns the address under which a user is active in tenant acme.
func byUser(t *testing.T, b *testkit.Rig, id string) string {
	t.Helper()
	m, err := b.Get(t.Context(), clerkinvite.Ref{TenantID: "acme", ClerkUserID: id})
	require.NoError(t, err)
	return m.Email
}

// notices are the ways in which the library learns that a user has changed.
var notices = map[string]func(t *testing.T, b *testkit.Rig, hook clerkinvitetest.Webhook, userID string){
	"HandleEvent": func(t *testing.T, b *testkit.Rig, hook clerkinvitetest.Webhook, _ string) { b.Receive(t, hook) },
	"ResolveUser": func(t *testing.T, b *testkit.Rig, _ clerkinvitetest.Webhook, id string) {
		_, err := b.ResolveUser(t.Context(), id)
		require.NoError(t, err)
	},
	"Resolve": func(t *testing.T, b *testkit.Rig, _ clerkinvitetest.Webhook, id string) {
		u, err := b.API.GetUser(t.Context(), id)
		require.NoError(t, err)
		before := b.Clerk.Requests()
		_, err = b.Resolve(t.Context(), *u)
		require.NoError(t, err)
		require.Equal(t, before, b.Clerk.Requests())
	},
	"Reconcile": func(t *testing.T, b *testkit.Rig, _ clerkinvitetest.Webhook, _ string) { b.MustReconcile(t) },
}

// The member gets its user's new address, in every tenant, and the previous address can be invited.
func TestPromise5_AddressFollowsTheUser(t *testing.T) {
	t.Parallel()
	for name, note := range notices {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
				ctx := t.Context()
				u := join(t, b, oldEmail)
				before := b.Member(t, oldEmail)
				_, err := b.Invite(ctx, testkit.Params("globex", oldEmail))
				require.NoError(t, err)

				note(t, b, b.Clerk.ChangeEmail(u.ID, newEmail), u.ID)
				now := b.Member(t, newEmail)
				require.Equal(t, before.ID, now.ID)
				require.Equal(t, before.Version+1, now.Version)
				require.Equal(t, clerkinvite.StatusActive, now.Status)
				other, err := b.Get(ctx, clerkinvite.Ref{TenantID: "globex", ClerkUserID: u.ID})
				require.NoError(t, err)
				require.Equal(t, newEmail, other.Email)

				history, err := b.History(ctx, now.Ref())
				require.NoError(t, err)
				last := history[len(history)-1]
				require.Equal(t, now.Version, last.Version)
				require.Equal(t, [2]clerkinvite.Status{clerkinvite.StatusActive, clerkinvite.StatusActive}, [2]clerkinvite.Status{last.From, last.To})

				require.Equal(t, clerkinvite.StatusPending, b.MustInvite(t, oldEmail).Status)
				note(t, b, b.Clerk.UserUpdated(u.ID), u.ID)
				require.Equal(t, now, b.Member(t, newEmail), "once")
			})
		})
	}
}

// A member's address changes only if the user object shows other verified addresses, and only to the verified primary address.
func TestPromise5_AddressStays(t *testing.T) {
	t.Parallel()
	const third = "ada@example.net"
	for name, c := range map[string]struct {
		change    func(c *clerkinvitetest.Clerk, id string)
		outOfDate bool
	}{
		"the older address is a second one": {change: func(c *clerkinvitetest.Clerk, id string) {
			c.AddEmail(id, clerkinvitetest.EmailSpec{Address: newEmail, Verified: true})
			c.SetPrimaryEmail(id, newEmail)
		}},
		"no address": {change: func(c *clerkinvitetest.Clerk, id string) { c.RemoveEmail(id, oldEmail) }},
		"no verified address": {change: func(c *clerkinvitetest.Clerk, id string) {
			c.AddEmail(id, clerkinvitetest.EmailSpec{Address: newEmail})
			c.SetPrimaryEmail(id, newEmail)
			c.RemoveEmail(id, oldEmail)
		}},
		"the primary address is not verified": {change: func(c *clerkinvitetest.Clerk, id string) {
			c.AddEmail(id, clerkinvitetest.EmailSpec{Address: newEmail})
			c.AddEmail(id, clerkinvitetest.EmailSpec{Address: third, Verified: true})
			c.SetPrimaryEmail(id, newEmail)
			c.RemoveEmail(id, oldEmail)
		}, outOfDate: true},
		"no primary address": {change: func(c *clerkinvitetest.Clerk, id string) {
			c.AddEmail(id, clerkinvitetest.EmailSpec{Address: third, Verified: true})
			c.RemoveEmail(id, oldEmail)
		}, outOfDate: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
				u := join(t, b, oldEmail)
				before := b.Member(t, oldEmail)
				c.change(b.Clerk, u.ID)
				b.Receive(t, b.Clerk.UserUpdated(u.ID))
				_, err := b.ResolveUser(t.Context(), u.ID)
				require.NoError(t, err)
				report := b.MustReconcile(t)
				require.Zero(t, report.Moved)
				require.Equal(t, before, b.Member(t, oldEmail))
				require.Equal(t, c.outOfDate, len(report.OutOfDate) == 1)
			})
		})
	}
}

// A user object that was not read completely may lack the member's address.
func TestPromise5_IncompleteUserChangesNothing(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	u := join(t, b, oldEmail)
	b.Clerk.ChangeEmail(u.ID, newEmail)
	now, err := b.API.GetUser(t.Context(), u.ID)
	require.NoError(t, err)
	now.Incomplete = true
	changed, err := b.Resolve(t.Context(), *now)
	require.NoError(t, err)
	require.Empty(t, changed)
	require.Equal(t, oldEmail, byUser(t, b, u.ID))
	now.Incomplete = false
	changed, err = b.Resolve(t.Context(), *now)
	require.NoError(t, err)
	require.Len(t, changed, 1)
	require.Equal(t, newEmail, byUser(t, b, u.ID))
}

// The row of another member keeps its address, even if that member has left.
func TestPromise1_TakenAddressIsReported(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		ctx := t.Context()
		other := b.MustInvite(t, newEmail)
		_, err := b.Revoke(ctx, other.Ref())
		require.NoError(t, err)
		u := join(t, b, oldEmail)
		b.Receive(t, b.Clerk.ChangeEmail(u.ID, newEmail))
		report := b.MustReconcile(t)
		require.Zero(t, report.Moved)
		require.Len(t, report.OutOfDate, 1)
		require.Equal(t, u.ID, report.OutOfDate[0].ClerkUserID)
		require.Equal(t, oldEmail, byUser(t, b, u.ID))

		require.NoError(t, b.Purge(ctx, other.Ref()))
		require.Equal(t, 1, b.MustReconcile(t).Moved)
		require.Equal(t, newEmail, byUser(t, b, u.ID))
	})
}

// A member gets the address that another one gives up in the same run. If the other one first needs the address of a removed
// member, the order decides. A dry run reports the same.
func TestReconcile_AddressPassesToAnotherMember(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ giverFirst, secondAddress bool }{{true, false}, {false, false}, {true, true}, {false, true}} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			t.Parallel()
			testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
				if c.secondAddress {
					b.MustInvite(t, "bob@example.com")
					row := b.Member(t, "bob@example.com")
					removed := *row
					removed.Status, removed.ClerkUserID, removed.URL, removed.Reason = clerkinvite.StatusRemoved, "", clerkinvite.Secret{}, clerkinvite.ReasonSecondAddress
					testkit.UpdateRows(t, b.Store.(clerkinvite.TxStore), clerkinvite.Change{Old: row, New: &removed})
				}
				emails := []string{"ada@example.com", "info@example.com"}
				if c.giverFirst {
					slices.Reverse(emails)
				}
				users := make(map[string]string)
				for _, email := range emails {
					users[email] = join(t, b, email).ID
				}
				b.Clerk.ChangeEmail(users["info@example.com"], "bob@example.com")
				b.Clerk.ChangeEmail(users["ada@example.com"], "info@example.com")
				want := [2]int{2, 0}
				if c.secondAddress && !c.giverFirst {
					want = [2]int{1, 1} // the next reconciliation moves it
				}
				for _, dry := range []bool{true, false} {
					report, err := b.Reconcile(t.Context(), &clerkinvite.ReconcileOptions{DryRun: dry})
					require.NoError(t, err)
					require.Equal(t, want, [2]int{report.Moved, len(report.OutOfDate)}, "dry run: %t", dry)
				}
				b.MustReconcile(t)
				require.Equal(t, "info@example.com", byUser(t, b, users["ada@example.com"]))
			})
		})
	}
}

// Two users who exchange their addresses block each other, but nothing is lost.
func TestPromise1_ExchangedAddresses(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		ada, bob := join(t, b, oldEmail), join(t, b, "bob@example.com")
		b.Clerk.ChangeEmail(ada.ID, "x@example.com")
		b.Clerk.ChangeEmail(bob.ID, oldEmail)
		b.Clerk.ChangeEmail(ada.ID, "bob@example.com")
		report, err := b.Reconcile(t.Context(), nil)
		require.NoError(t, err)
		require.Len(t, report.OutOfDate, 2)
		require.Equal(t, oldEmail, byUser(t, b, ada.ID))
		require.Equal(t, "bob@example.com", byUser(t, b, bob.ID))
	})
}

// A removed member that was a second address of the same user is erased, after its invitations are revoked.
func TestPromise4_SecondAddressMakesWay(t *testing.T) {
	t.Parallel()
	for name, note := range notices {
		if name == "Resolve" { // it must not call Clerk, so it leaves the revocation to the other calls
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
				ctx := t.Context()
				waiting := b.MustInvite(t, newEmail)
				u := join(t, b, oldEmail)
				hook := b.Clerk.ChangeEmail(u.ID, newEmail)
				if name == "Reconcile" {
					_, err := b.Reconcile(ctx, nil)
					require.NoError(t, err)
				}
				note(t, b, hook, u.ID)
				require.Equal(t, newEmail, byUser(t, b, u.ID))
				require.Empty(t, b.Clerk.OpenInvitations(newEmail))
				_, err := b.Get(ctx, clerkinvite.Ref{TenantID: "acme", ID: waiting.ID})
				require.ErrorIs(t, err, clerkinvite.ErrNotFound)
			})
		})
	}
}

// The new owner of the previous address can be invited before the library has learned of the change.
func TestPromise1_NewOwnerOfAnAddressIsInvited(t *testing.T) {
	t.Parallel()
	for name, account := range map[string]bool{"with an account": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
				u := join(t, b, oldEmail)
				b.Clock.Advance(24 * time.Hour)
				b.Clerk.ChangeEmail(u.ID, newEmail)
				want := clerkinvite.StatusPending
				if account {
					b.Clerk.AddVerifiedUser(oldEmail)
					want = clerkinvite.StatusActive
				}
				m := b.MustInvite(t, oldEmail)
				require.Equal(t, want, m.Status)
				require.NotEqual(t, u.ID, m.ClerkUserID)
				require.Equal(t, newEmail, byUser(t, b, u.ID))
			})
		})
	}
}

// Inviting a member's new address finds that member and updates its address.
func TestPromise1_NewAddressOfAMemberIsADuplicate(t *testing.T) {
	t.Parallel()
	for name, more := range map[string][]clerkinvitetest.EmailSpec{
		"the only address": nil, "another one": {{Address: "home@example.com", Verified: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
				u := join(t, b, oldEmail)
				before := b.Member(t, oldEmail)
				b.Clerk.ChangeEmail(u.ID, newEmail)
				for _, e := range more {
					b.Clerk.AddEmail(u.ID, e)
				}
				_, err := b.TryInvite(t, newEmail)
				var dup *clerkinvite.DuplicateEmailError
				require.ErrorAs(t, err, &dup)
				require.Equal(t, before.ID, dup.Member.ID)
				require.Equal(t, newEmail, dup.Member.Email)
				require.Equal(t, newEmail, byUser(t, b, u.ID))
				require.Zero(t, b.Clerk.Emails())
				_, err = b.TryInvite(t, newEmail)
				require.ErrorAs(t, err, &dup, "and stays one")
				require.Equal(t, before.ID, dup.Member.ID)
				require.Equal(t, clerkinvite.StatusPending, b.MustInvite(t, oldEmail).Status)
			})
		})
	}
}

// An event causes a request only if it shows that a member's address has changed.
func TestHandleEvent_RequestsForAddresses(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		u, stranger := join(t, b, oldEmail), b.Clerk.AddVerifiedUser("eve@example.com")
		requests := func(hook clerkinvitetest.Webhook) int {
			t.Helper()
			before := b.Clerk.Requests()[clerkinvitetest.CallGetUser]
			b.Receive(t, hook)
			return b.Clerk.Requests()[clerkinvitetest.CallGetUser] - before
		}
		require.Zero(t, requests(b.Clerk.UserUpdated(stranger.ID)))
		require.Zero(t, requests(b.Clerk.ChangeEmail(stranger.ID, "eve@example.org")))
		require.Zero(t, requests(b.Clerk.UserUpdated(u.ID)))
		require.Zero(t, requests(b.Clerk.AddEmail(u.ID, clerkinvitetest.EmailSpec{Address: newEmail, Verified: true})))
		require.Equal(t, 1, requests(b.Clerk.ChangeEmail(u.ID, newEmail)))
		require.Zero(t, requests(b.Clerk.UserUpdated(u.ID)))
	})
}

// Clerk's API can lag behind an event, and an event can be old.
func TestHandleEvent_UnconfirmedAddress(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		ctx := t.Context()
		b.Clerk.SetBehavior(clerkinvitetest.Behavior{GetUserLags: true})
		u := join(t, b, oldEmail)
		hook := b.Clerk.ChangeEmail(u.ID, newEmail)
		e, err := b.Verifier.Verify(hook.Payload, hook.Sign(clerkinvitetest.WebhookSecret))
		require.NoError(t, err)
		_, err = b.HandleEvent(ctx, e)
		require.ErrorIs(t, err, clerkinvite.ErrUnconfirmed)
		require.Equal(t, oldEmail, byUser(t, b, u.ID))
		b.Clerk.Settle()
		_, err = b.HandleEvent(ctx, e)
		require.NoError(t, err)
		require.Equal(t, newEmail, byUser(t, b, u.ID))

		b.Clerk.ChangeEmail(u.ID, oldEmail) // changed back; then the first event is delivered again
		b.Clerk.Settle()
		_, err = b.ResolveUser(ctx, u.ID)
		require.NoError(t, err)
		b.Clock.Advance(time.Hour)
		_, err = b.HandleEvent(ctx, e)
		require.NoError(t, err)
		require.Equal(t, oldEmail, byUser(t, b, u.ID))
	})
}

// The host's hook sees the change in its transaction and can reject it.
func TestOnChange_Address(t *testing.T) {
	t.Parallel()
	store, h, _ := testkit.NewMirror(t)
	clerk := clerkinvitetest.NewClerk()
	b := testkit.New(t, testkit.Options{}, clerk, clerk, store)
	ctx := t.Context()
	u := join(t, b, oldEmail)
	clerk.ChangeEmail(u.ID, newEmail)
	var seen [][2]string
	h.SetHook(func(_ context.Context, _ pgx.Tx, changes []clerkinvite.Change) error {
		for _, c := range changes {
			seen = append(seen, [2]string{c.Old.Email, c.New.Email})
		}
		return testkit.ErrHook
	})
	_, err := b.ResolveUser(ctx, u.ID)
	require.ErrorIs(t, err, testkit.ErrHook)
	require.Equal(t, oldEmail, byUser(t, b, u.ID))
	report, err := b.Reconcile(ctx, nil)
	require.ErrorIs(t, err, testkit.ErrHook)
	require.Zero(t, report.Moved)
	h.SetHook(nil)
	_, err = b.ResolveUser(ctx, u.ID)
	require.NoError(t, err)
	require.Equal(t, newEmail, byUser(t, b, u.ID))
	require.Contains(t, seen, [2]string{oldEmail, newEmail})
}

// When a user changes the address, both addresses are invited and the member is removed at the same time, each address has
// at most one member, and the user has at most one active member.
func TestPromise1_AddressRaces(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		for round := range 6 {
			ctx := t.Context()
			older, newer := fmt.Sprintf("a%d@example.com", round), fmt.Sprintf("a%d@example.org", round)
			u := join(t, b, older)
			member := b.Member(t, older)
			b.Clock.Advance(24 * time.Hour) // old enough that Invite checks a duplicate at Clerk
			hook := b.Clerk.ChangeEmail(u.ID, newer)
			e, err := b.Verifier.Verify(hook.Payload, hook.Sign(clerkinvitetest.WebhookSecret))
			require.NoError(t, err)
			var all sync.WaitGroup
			run := func(verb func() error) {
				all.Go(func() {
					err := verb()
					var dup *clerkinvite.DuplicateEmailError
					if err != nil && !errors.As(err, &dup) && !errors.Is(err, clerkinvite.ErrConflict) {
						t.Errorf("round %d: %v", round, err)
					}
				})
			}
			run(func() error { _, err := b.HandleEvent(ctx, e); return err })
			run(func() error { _, err := b.ResolveUser(ctx, u.ID); return err })
			run(func() error { _, err := b.TryInvite(t, older); return err })
			run(func() error { _, err := b.TryInvite(t, newer); return err })
			run(func() error { _, err := b.Reconcile(ctx, nil); return err })
			if round%2 == 1 {
				run(func() error { _, err := b.Remove(ctx, clerkinvite.Ref{TenantID: "acme", ID: member.ID}); return err })
			}
			all.Wait()
			_, err = b.ResolveUser(ctx, u.ID)
			require.NoError(t, err)

			m, err := b.Get(ctx, clerkinvite.Ref{TenantID: "acme", ClerkUserID: u.ID})
			if round%2 == 0 {
				require.NoError(t, err)
				require.Equal(t, [2]string{member.ID, newer}, [2]string{m.ID, m.Email})
			} else if err == nil { // removed, and invited again by one of the calls
				require.Equal(t, newer, m.Email)
			}
			old, err := b.Get(ctx, clerkinvite.Ref{TenantID: "acme", Email: older})
			if err == nil {
				require.NotEqual(t, u.ID, old.ClerkUserID)
			}
		}
	})
}
