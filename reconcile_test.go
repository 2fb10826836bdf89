package clerkinvite_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// dump returns all members, by tenant and address.
func (b *bundle) dump(t *testing.T) map[clerkinvite.Ref]clerkinvite.Member {
	t.Helper()
	all := make(map[clerkinvite.Ref]clerkinvite.Member)
	rows, err := b.store.Page(t.Context(), clerkinvite.PageQuery{Limit: 1 << 20})
	require.NoError(t, err)
	for _, row := range rows {
		all[row.Ref()] = *row
	}
	return all
}

// reconcile makes a dry run, which must change nothing and say what the real one does.
func (b *bundle) reconcile(t *testing.T) *clerkinvite.ReconcileReport {
	t.Helper()
	before := b.dump(t)
	revokes := b.clerk.Requests()[clerkinvitetest.CallRevoke]
	dry, err := b.Reconcile(t.Context(), &clerkinvite.ReconcileOptions{DryRun: true})
	require.NoError(t, err)
	require.Equal(t, before, b.dump(t), "a dry run changes nothing")
	require.Equal(t, revokes, b.clerk.Requests()[clerkinvitetest.CallRevoke])
	report, err := b.Reconcile(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, report.Cursor)
	a, z := *dry, *report
	require.Len(t, z.Elsewhere, len(a.Elsewhere))
	a.Elsewhere, z.Elsewhere, a.Invitations, z.Invitations = nil, nil, 0, 0
	require.Equal(t, a, z, "the dry run has foreseen it")
	return report
}

// 250 wait, 60 have accepted, and no webhook came.
func TestReconcileLostWebhooks(t *testing.T) {
	t.Parallel()
	each(t, options{}, func(t *testing.T, b *bundle) {
		ps := people(250, "p")
		_, err := b.InviteMany(t.Context(), ps, nil)
		require.NoError(t, err)
		for _, p := range ps[:60] {
			_, err := b.clerk.Accept(p.Email)
			require.NoError(t, err)
		}
		b.clerk.ResetCounts()
		report, err := b.Reconcile(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, &clerkinvite.ReconcileReport{Members: 250, Invitations: 250, Activated: 60}, report)
		require.LessOrEqual(t, b.clerk.RequestCount(), 8)
		t.Logf("requests: %v", b.clerk.Requests())
		for i, p := range ps {
			want := clerkinvite.StatusPending
			if i < 60 {
				want = clerkinvite.StatusActive
			}
			require.Equal(t, want, b.get(t, p.Email).Status)
		}
		report = b.reconcile(t)
		require.Equal(t, &clerkinvite.ReconcileReport{Members: 250, Invitations: 250}, report, "nothing is left to do")
	})
}

// Everything that can have happened at Clerk while nobody listened.
func TestReconcileEverything(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, fresh func(*testing.T, options) *bundle) {
		for _, behavior := range sample(t, behaviors()) {
			t.Run(behavior.Name, func(t *testing.T) {
				t.Parallel()
				b := fresh(t, options{})
				invite := func(name string) *clerkinvite.Member { return b.mustInvite(t, name+"@example.com") }
				for i := range 12 { // somebody whom Clerk knows
					b.clerk.AddVerifiedUser(fmt.Sprintf("known%d@example.com", i))
					invite(fmt.Sprint("known", i))
				}
				gone := b.clerk.AddVerifiedUser("gone@example.com")
				invite("gone")
				b.clerk.DeleteUser(gone.ID)
				lost := invite("waits")
				short, err := b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "expires@example.com", ExpiresInDays: 1})
				require.NoError(t, err)
				_, err = b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "late@example.com", ExpiresInDays: 1})
				require.NoError(t, err)
				dead := invite("dashboard")
				b.clerk.RevokeInDashboard(dead.InvitationID)
				invite("joined")
				_, err = b.clerk.Accept("joined@example.com")
				require.NoError(t, err)
				invite("elsewhere")
				_, err = b.clerk.AcceptAs("elsewhere@example.com", "private@example.com")
				require.NoError(t, err)
				// In the last minute; the webhook is lost, and both run out.
				b.clock.Advance(23*time.Hour + 59*time.Minute)
				_, err = b.clerk.Accept("late@example.com")
				require.NoError(t, err)
				b.clock.Advance(24 * time.Hour)
				// A left-over one, an application's on the same instance, one from before a restored backup.
				b.clerk.CreateForeign("leftover@example.com", map[string]any{"clerkinvite": map[string]any{"id": dead.ID, "send": 1}})
				b.clerk.CreateForeign("other@example.com", map[string]any{"clerkinvite": map[string]any{"id": "018f0000-0000-7000-8000-000000000000", "send": 1}})
				b.clerk.CreateForeign("plain@example.com", nil)
				b.clerk.CreateForeign("waits@example.com", map[string]any{"clerkinvite": map[string]any{"id": lost.ID, "send": 7}})
				b.clerk.Settle()

				report := b.reconcile(t)
				want := clerkinvite.ReconcileReport{
					Members: 12 + 7, Activated: 2, Removed: 1, Expired: 1, Revoked: 1, LeftOver: 1, Unknown: 1, Ahead: 1,
				}
				got := *report
				require.Len(t, got.Elsewhere, 1)
				require.Equal(t, "elsewhere@example.com", got.Elsewhere[0].Email)
				got.Elsewhere, got.Invitations = nil, 0
				require.Equal(t, want, got)
				for name, status := range map[string]clerkinvite.Status{
					"known0": clerkinvite.StatusActive, "gone": clerkinvite.StatusRemoved, "waits": clerkinvite.StatusPending,
					"expires": clerkinvite.StatusExpired, "late": clerkinvite.StatusActive, "dashboard": clerkinvite.StatusRevoked,
					"joined": clerkinvite.StatusActive, "elsewhere": clerkinvite.StatusPending,
				} {
					require.Equal(t, status, b.get(t, name+"@example.com").Status, name)
				}
				require.Equal(t, clerkinvite.ReasonUserDeleted, b.get(t, "gone@example.com").Reason)
				require.Equal(t, clerkinvite.ReasonAtClerk, b.get(t, "dashboard@example.com").Reason)
				require.Empty(t, b.clerk.OpenInvitations("leftover@example.com"))
				require.Len(t, b.clerk.OpenInvitations("other@example.com"), 1, "may be another application's")
				require.Len(t, b.clerk.OpenInvitations("plain@example.com"), 1)
				require.Len(t, b.clerk.OpenInvitations("waits@example.com"), 2, "newer than the row: reported only")
				_ = short

				b.clerk.Settle()
				again := b.reconcile(t)
				require.Zero(t, again.Activated+again.Removed+again.Expired+again.Revoked+again.LeftOver)
			})
		}
	})
}

// One request per 100 members and one per 500 invitations, whatever became of them.
func TestReconcileCost(t *testing.T) {
	t.Parallel()
	for name, happen := range map[string]func(b *bundle, i int, email string){
		"all wait":    func(*bundle, int, string) {},
		"all expired": func(b *bundle, _ int, email string) { b.clerk.ExpireNow(b.clerk.Invitations(email)[0].ID) },
		"all revoked": func(b *bundle, _ int, email string) { b.clerk.RevokeInDashboard(b.clerk.Invitations(email)[0].ID) },
		"all elsewhere": func(b *bundle, i int, email string) {
			_, _ = b.clerk.AcceptAs(email, fmt.Sprintf("private%d@example.com", i))
		},
		"all joined": func(b *bundle, _ int, email string) { _, _ = b.clerk.Accept(email) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := mem(t, options{})
			const n = 1000
			ps := people(n, "p")
			_, err := b.InviteMany(t.Context(), ps, nil)
			require.NoError(t, err)
			for i, p := range ps {
				happen(b, i, p.Email)
			}
			if name == "all expired" {
				b.clock.Advance(31 * 24 * time.Hour)
			}
			b.clerk.ResetCounts()
			report, err := b.Reconcile(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, n, report.Members)
			require.LessOrEqual(t, b.clerk.Requests()[clerkinvitetest.CallList], report.Invitations/500+4, "one for each list's end")
			want := n / 100
			if name == "all elsewhere" {
				want *= 2 // looked up once more when Clerk said that they had accepted
			}
			require.LessOrEqual(t, b.clerk.Requests()[clerkinvitetest.CallFindUsers], want)
			t.Logf("%v: %v", report, b.clerk.Requests())
			// What has ended long ago is not looked at again.
			b.clock.Advance(time.Hour)
			b.mustInvite(t, "new@example.com")
			b.clerk.ResetCounts()
			_, err = b.Reconcile(t.Context(), nil)
			require.NoError(t, err)
			if name == "all revoked" || name == "all expired" || name == "all joined" {
				require.LessOrEqual(t, b.clerk.Requests()[clerkinvitetest.CallList], 4)
			}
		})
	}
}

// A reconciliation that is cut off goes on from where it was.
func TestReconcileResumes(t *testing.T) {
	t.Parallel()
	each(t, options{}, func(t *testing.T, b *bundle) {
		for _, tenant := range []string{"acme", "globex", "initech"} {
			var ps []clerkinvite.InviteParams
			for i := range 40 {
				ps = append(ps, params(tenant, fmt.Sprintf("p%d@example.com", i)))
			}
			_, err := b.InviteMany(t.Context(), ps, nil)
			require.NoError(t, err)
		}
		for i := range 40 {
			switch i % 4 {
			case 0:
				_, err := b.clerk.Accept(fmt.Sprintf("p%d@example.com", i))
				require.NoError(t, err)
			case 1:
				for _, inv := range b.clerk.OpenInvitations(fmt.Sprintf("p%d@example.com", i)) {
					b.clerk.RevokeInDashboard(inv.ID)
				}
			}
		}
		total, cursor, failures := clerkinvite.ReconcileReport{}, "", 0
		for round := 0; ; round++ {
			require.Less(t, round, 60)
			if round%3 == 1 { // by a failure of Clerk's, too
				calls := []clerkinvitetest.Call{clerkinvitetest.CallFindUsers, clerkinvitetest.CallList}
				b.clerk.Fail(clerkinvitetest.Fault{Call: calls[round%2], Status: 401, Code: "clerk_key_invalid"})
			}
			report, err := b.Reconcile(t.Context(), &clerkinvite.ReconcileOptions{Limit: 17, Cursor: cursor})
			if err != nil {
				failures++
				var clerkErr *clerkinvite.ClerkInvitationError
				require.ErrorAs(t, err, &clerkErr)
				require.NotEmpty(t, report.Cursor)
			}
			total.Activated += report.Activated
			total.Revoked += report.Revoked
			if cursor = report.Cursor; cursor == "" {
				break
			}
		}
		require.Positive(t, failures)
		require.Equal(t, 30, total.Activated, "in all tenants")
		require.Equal(t, 30, total.Revoked)
	})
	b := mem(t, options{})
	for _, cursor := range []string{"!", "e30", "eyJpIjoibm9uc2Vuc2UifQ"} {
		_, err := b.Reconcile(t.Context(), &clerkinvite.ReconcileOptions{Cursor: cursor})
		var invalid *clerkinvite.InvalidParamsError
		if cursor != "e30" {
			require.ErrorAs(t, err, &invalid, cursor)
			require.Equal(t, "Cursor", invalid.Field)
		}
	}
}

// The key of another instance removes nobody.
func TestReconcileWithTheWrongKey(t *testing.T) {
	t.Parallel()
	each(t, options{}, func(t *testing.T, b *bundle) {
		var users []clerkinvite.User
		for i := range 30 {
			users = append(users, b.clerk.AddVerifiedUser(fmt.Sprintf("u%d@example.com", i)))
			b.mustInvite(t, fmt.Sprintf("u%d@example.com", i))
		}
		staging := clerkinvitetest.NewClerk()
		wrong := newBundle(t, options{}, staging, staging, b.store)
		wrong.clock.Advance(time.Hour)
		report, err := wrong.Reconcile(t.Context(), nil)
		var clerkErr *clerkinvite.ClerkInvitationError
		require.ErrorAs(t, err, &clerkErr)
		require.ErrorContains(t, clerkErr.Err, "another instance")
		require.Zero(t, report.Removed)
		for i := range users {
			require.Equal(t, clerkinvite.StatusActive, b.get(t, fmt.Sprintf("u%d@example.com", i)).Status)
		}
		// Even if all but one are deleted, they are removed.
		for _, u := range users[1:] {
			b.clerk.DeleteUser(u.ID)
		}
		require.Zero(t, b.reconcile(t).Removed, "Clerk may not show new ones yet")
		b.clock.Advance(time.Hour)
		require.Equal(t, 29, b.reconcile(t).Removed)
	})
	// The only user there is, deleted; and so beside many who wait, whose invitations tell which instance it is.
	for _, waiting := range []int{0, 12} {
		b := mem(t, options{})
		u := b.clerk.AddVerifiedUser("ada@example.com")
		b.mustInvite(t, "ada@example.com")
		_, err := b.InviteMany(t.Context(), people(waiting, "p"), nil)
		require.NoError(t, err)
		b.clerk.DeleteUser(u.ID)
		b.clock.Advance(time.Hour)
		if waiting > 0 {
			staging := clerkinvitetest.NewClerk()
			wrong := newBundle(t, options{}, staging, staging, b.store)
			wrong.clock.Advance(time.Hour)
			report, err := wrong.Reconcile(t.Context(), nil)
			var clerkErr *clerkinvite.ClerkInvitationError
			require.ErrorAs(t, err, &clerkErr)
			require.ErrorContains(t, clerkErr.Err, "another instance")
			require.Zero(t, report.Removed)
			require.Equal(t, clerkinvite.StatusActive, b.get(t, "ada@example.com").Status)
		}
		require.Equal(t, 1, b.reconcile(t).Removed)
	}
}

// An address that Clerk stumbles over holds up nobody.
func TestReconcilePoisonedAddress(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 3, 40} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			b := mem(t, options{})
			ps := people(n, "p")
			_, err := b.InviteMany(t.Context(), ps, nil)
			require.NoError(t, err)
			for i := range min(2, n) {
				b.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallFindUsers, Email: ps[i*(n-1)].Email, Kind: clerkinvitetest.JSON500, Times: -1})
			}
			for _, p := range ps {
				_, err := b.clerk.Accept(p.Email)
				require.NoError(t, err)
			}
			report, err := b.Reconcile(t.Context(), nil)
			if n == 2 {
				require.Error(t, err, "nobody can tell this from a Clerk that is out of order")
				return
			}
			require.NoError(t, err)
			require.Equal(t, max(0, n-2), report.Activated)
			require.Empty(t, report.Elsewhere)
		})
	}
}

// A resend that waits for its turn is delivery's, whatever the older invitation's end.
func TestReconcileLeavesResendsAlone(t *testing.T) {
	t.Parallel()
	each(t, options{}, func(t *testing.T, b *bundle) {
		m := b.mustInvite(t, "ada@example.com")
		b.clock.Advance(time.Hour)
		b.failCreates(clerkinvitetest.Fault{Status: 503, Kind: clerkinvitetest.NotSent})
		_, err := b.Resend(t.Context(), m.Ref())
		require.Error(t, err)
		b.clerk.RevokeInDashboard(m.InvitationID)
		require.Zero(t, b.reconcile(t).Revoked)
		b.clock.Advance(time.Hour)
		_, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		b.requireInvited(t, "ada@example.com", 2)
	})
}

// A row that does not know when its invitation runs out learns it from Clerk's list.
func TestReconcileLearnsTheExpiry(t *testing.T) {
	t.Parallel()
	each(t, options{}, func(t *testing.T, b *bundle) {
		was := b.mustInvite(t, "ada@example.com")
		without := *was
		without.ExpiresAt = nil
		_, err := b.store.Update(t.Context(), []clerkinvite.Change{{Old: was, New: &without}})
		require.NoError(t, err)
		b.reconcile(t)
		require.Equal(t, was.ExpiresAt, b.get(t, "ada@example.com").ExpiresAt)

		// Clerk may end it before the time that it told.
		b.clerk.ExpireNow(was.InvitationID)
		require.Equal(t, 1, b.reconcile(t).Expired)
	})
}

func TestReconcileEndsWithItsContext(t *testing.T) {
	t.Parallel()
	b := mem(t, options{})
	_, err := b.InviteMany(t.Context(), people(300, "p"), nil)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	b.clerk.OnCall(func(context.Context, clerkinvitetest.Call, clerkinvitetest.When) { cancel() })
	report, err := b.Reconcile(ctx, nil)
	require.ErrorIs(t, err, context.Canceled)
	require.NotEmpty(t, report.Cursor)
}
