package clerkinvite_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// 250 members are pending, 60 have accepted, and no webhook arrived.
func TestReconcile_LostWebhooks(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		ps := testkit.People(250, "p")
		_, err := b.InviteMany(t.Context(), ps, nil)
		require.NoError(t, err)
		for _, p := range ps[:60] {
			_, err := b.Clerk.Accept(p.Email)
			require.NoError(t, err)
		}
		b.Clerk.ResetCounts()
		report, err := b.Reconcile(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, &clerkinvite.ReconcileReport{Members: 250, Invitations: 250, Activated: 60}, report)
		require.LessOrEqual(t, b.Clerk.RequestCount(), 8)
		t.Logf("requests: %v", b.Clerk.Requests())
		for i, p := range ps {
			want := clerkinvite.StatusPending
			if i < 60 {
				want = clerkinvite.StatusActive
			}
			require.Equal(t, want, b.Member(t, p.Email).Status)
		}
		report = b.MustReconcile(t)
		require.Equal(t, &clerkinvite.ReconcileReport{Members: 250, Invitations: 250}, report, "nothing is left to do")
	})
}

// Everything that can happen at Clerk while no webhook arrives.
func TestPromise4_ReconcileRevokesOnlyLeftOvers(t *testing.T) {
	t.Parallel()
	testkit.EachBehavior(t, func(t *testing.T, b *testkit.Rig) {
		invite := func(name string) *clerkinvite.Member { return b.MustInvite(t, name+"@example.com") }
		for i := range 12 { // existing users
			b.Clerk.AddVerifiedUser(fmt.Sprintf("known%d@example.com", i))
			invite(fmt.Sprint("known", i))
		}
		gone := b.Clerk.AddVerifiedUser("gone@example.com")
		invite("gone")
		b.Clerk.DeleteUser(gone.ID)
		lost := invite("waits")
		short, err := b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "expires@example.com", ExpiresInDays: 1})
		require.NoError(t, err)
		_, err = b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "late@example.com", ExpiresInDays: 1})
		require.NoError(t, err)
		dead := invite("dashboard")
		b.Clerk.RevokeInDashboard(dead.InvitationID)
		invite("joined")
		_, err = b.Clerk.Accept("joined@example.com")
		require.NoError(t, err)
		invite("elsewhere")
		_, err = b.Clerk.AcceptAs("elsewhere@example.com", "private@example.com")
		require.NoError(t, err)
		// Accepted in the last minute; the webhook is lost, and both expire.
		b.Clock.Advance(23*time.Hour + 59*time.Minute)
		_, err = b.Clerk.Accept("late@example.com")
		require.NoError(t, err)
		b.Clock.Advance(24 * time.Hour)
		// A left-over, another application's, and one that is newer than a restored row.
		b.Clerk.CreateForeign("leftover@example.com", map[string]any{"clerkinvite": map[string]any{"id": dead.ID, "send": 1}})
		b.Clerk.CreateForeign("other@example.com", map[string]any{"clerkinvite": map[string]any{"id": "018f0000-0000-7000-8000-000000000000", "send": 1}})
		b.Clerk.CreateForeign("plain@example.com", nil)
		b.Clerk.CreateForeign("waits@example.com", map[string]any{"clerkinvite": map[string]any{"id": lost.ID, "send": 7}})
		b.Clerk.Settle()

		report := b.MustReconcile(t)
		want := clerkinvite.ReconcileReport{
			Members: 12 + 7, Activated: 2, Removed: 1, Expired: 1, Revoked: 1, LeftOver: 1, Unknown: 1, Newer: 1,
		}
		got := *report
		require.Len(t, got.AcceptedElsewhere, 1)
		require.Equal(t, "elsewhere@example.com", got.AcceptedElsewhere[0].Email)
		got.AcceptedElsewhere, got.Invitations = nil, 0
		require.Equal(t, want, got)
		for name, status := range map[string]clerkinvite.Status{
			"known0": clerkinvite.StatusActive, "gone": clerkinvite.StatusRemoved, "waits": clerkinvite.StatusPending,
			"expires": clerkinvite.StatusExpired, "late": clerkinvite.StatusActive, "dashboard": clerkinvite.StatusRevoked,
			"joined": clerkinvite.StatusActive, "elsewhere": clerkinvite.StatusPending,
		} {
			require.Equal(t, status, b.Member(t, name+"@example.com").Status, name)
		}
		require.Equal(t, clerkinvite.ReasonUserDeleted, b.Member(t, "gone@example.com").Reason)
		require.Equal(t, clerkinvite.ReasonRevokedAtClerk, b.Member(t, "dashboard@example.com").Reason)
		require.Empty(t, b.Clerk.OpenInvitations("leftover@example.com"))
		require.Len(t, b.Clerk.OpenInvitations("other@example.com"), 1, "may be another application's")
		require.Len(t, b.Clerk.OpenInvitations("plain@example.com"), 1)
		require.Len(t, b.Clerk.OpenInvitations("waits@example.com"), 2, "newer than the row: reported only")
		_ = short

		b.Clerk.Settle()
		again := b.MustReconcile(t)
		require.Zero(t, again.Activated+again.Removed+again.Expired+again.Revoked+again.LeftOver)
	})
}

// One request per 100 members and one per 500 invitations, whatever their state.
func TestReconcileCost(t *testing.T) {
	t.Parallel()
	for name, happen := range map[string]func(b *testkit.Rig, i int, email string){
		"all wait":    func(*testkit.Rig, int, string) {},
		"all expired": func(b *testkit.Rig, _ int, email string) { b.Clerk.ExpireNow(b.Clerk.Invitations(email)[0].ID) },
		"all revoked": func(b *testkit.Rig, _ int, email string) { b.Clerk.RevokeInDashboard(b.Clerk.Invitations(email)[0].ID) },
		"all elsewhere": func(b *testkit.Rig, i int, email string) {
			_, _ = b.Clerk.AcceptAs(email, fmt.Sprintf("private%d@example.com", i))
		},
		"all joined": func(b *testkit.Rig, _ int, email string) { _, _ = b.Clerk.Accept(email) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := testkit.NewMemory(t, testkit.Options{})
			const n = 1000
			ps := testkit.People(n, "p")
			_, err := b.InviteMany(t.Context(), ps, nil)
			require.NoError(t, err)
			for i, p := range ps {
				happen(b, i, p.Email)
			}
			if name == "all expired" {
				b.Clock.Advance(31 * 24 * time.Hour)
			}
			b.Clerk.ResetCounts()
			report, err := b.Reconcile(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, n, report.Members)
			require.LessOrEqual(t, b.Clerk.Requests()[clerkinvitetest.CallList], report.Invitations/500+4, "one for each list's end")
			want := n / 100
			if name == "all elsewhere" {
				want *= 2 // looked up again because Clerk lists them as accepted
			}
			require.LessOrEqual(t, b.Clerk.Requests()[clerkinvitetest.CallFindUsers], want)
			t.Logf("%v: %v", report, b.Clerk.Requests())
			// Invitations that ended long ago are not read again.
			b.Clock.Advance(time.Hour)
			b.MustInvite(t, "new@example.com")
			b.Clerk.ResetCounts()
			_, err = b.Reconcile(t.Context(), nil)
			require.NoError(t, err)
			if name == "all revoked" || name == "all expired" || name == "all joined" {
				require.LessOrEqual(t, b.Clerk.Requests()[clerkinvitetest.CallList], 4)
			}
		})
	}
}

// A reconciliation that is interrupted continues at its cursor.
func TestReconcile_ResumesAtItsCursor(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		for _, tenant := range []string{"acme", "globex", "initech"} {
			var ps []clerkinvite.InviteParams
			for i := range 40 {
				ps = append(ps, testkit.Params(tenant, fmt.Sprintf("p%d@example.com", i)))
			}
			_, err := b.InviteMany(t.Context(), ps, nil)
			require.NoError(t, err)
		}
		for i := range 40 {
			switch i % 4 {
			case 0:
				_, err := b.Clerk.Accept(fmt.Sprintf("p%d@example.com", i))
				require.NoError(t, err)
			case 1:
				for _, inv := range b.Clerk.OpenInvitations(fmt.Sprintf("p%d@example.com", i)) {
					b.Clerk.RevokeInDashboard(inv.ID)
				}
			}
		}
		total, cursor, failures := clerkinvite.ReconcileReport{}, "", 0
		for round := 0; ; round++ {
			require.Less(t, round, 60)
			if round%3 == 1 { // also by a failure of Clerk
				calls := []clerkinvitetest.Call{clerkinvitetest.CallFindUsers, clerkinvitetest.CallList}
				b.Clerk.Fail(clerkinvitetest.Fault{Call: calls[round%2], Status: 401, Code: "clerk_key_invalid"})
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
	b := testkit.NewMemory(t, testkit.Options{})
	for _, cursor := range []string{"!", "e30", "eyJpIjoibm9uc2Vuc2UifQ", "eyJsIjpbIm5vbnNlbnNlIl19"} {
		_, err := b.Reconcile(t.Context(), &clerkinvite.ReconcileOptions{Cursor: cursor})
		var invalid *clerkinvite.InvalidParamsError
		if cursor != "e30" {
			require.ErrorAs(t, err, &invalid, cursor)
			require.Equal(t, "Cursor", invalid.Field)
		}
	}
}

// With the key of another instance no member is removed.
func TestReconcile_WrongKey(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		var users []clerkinvite.User
		for i := range 30 {
			users = append(users, b.Clerk.AddVerifiedUser(fmt.Sprintf("u%d@example.com", i)))
			b.MustInvite(t, fmt.Sprintf("u%d@example.com", i))
		}
		staging := clerkinvitetest.NewClerk()
		wrong := testkit.New(t, testkit.Options{}, staging, staging, b.Store)
		wrong.Clock.Advance(time.Hour)
		report, err := wrong.Reconcile(t.Context(), nil)
		var clerkErr *clerkinvite.ClerkInvitationError
		require.ErrorAs(t, err, &clerkErr)
		require.ErrorContains(t, clerkErr.Err, "another instance")
		require.Zero(t, report.Removed)
		for i := range users {
			require.Equal(t, clerkinvite.StatusActive, b.Member(t, fmt.Sprintf("u%d@example.com", i)).Status)
		}
		// Even if all but one are deleted, they are removed.
		for _, u := range users[1:] {
			b.Clerk.DeleteUser(u.ID)
		}
		require.Zero(t, b.MustReconcile(t).Removed, "Clerk may not show new ones yet")
		b.Clock.Advance(time.Hour)
		require.Equal(t, 29, b.MustReconcile(t).Removed)
	})
}

// In a small instance, too, a member is removed only if Clerk shows a known user or invitation.
func TestReconcile_SmallInstance(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		older, newer int // pending, invited before or after the nine joined
	}{"none is pending": {}, "one is pending": {older: 1}, "nine are pending": {older: 9}, "newer ones are pending": {newer: 2}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
				_, err := b.InviteMany(t.Context(), testkit.People(c.older, "p"), nil)
				require.NoError(t, err)
				var users []clerkinvite.User
				for i := range 9 {
					users = append(users, b.Clerk.AddVerifiedUser(fmt.Sprintf("u%d@example.com", i)))
					b.MustInvite(t, fmt.Sprintf("u%d@example.com", i))
				}
				b.Clock.Advance(time.Minute)
				_, err = b.InviteMany(t.Context(), testkit.People(c.newer, "n"), nil)
				require.NoError(t, err)
				b.Clock.Advance(time.Hour)

				staging := clerkinvitetest.NewClerk()
				wrong := testkit.New(t, testkit.Options{}, staging, staging, b.Store)
				wrong.Clock.Advance(time.Hour)
				for _, opts := range []*clerkinvite.ReconcileOptions{nil, {Limit: 5}, {DryRun: true}} {
					report, err := wrong.Reconcile(t.Context(), opts)
					require.ErrorContains(t, err, "another instance")
					require.Zero(t, report.Removed)
				}
				require.Zero(t, b.MustReconcile(t).Removed)

				for _, u := range users {
					b.Clerk.DeleteUser(u.ID)
				}
				report, err := b.Reconcile(t.Context(), nil)
				if c.older == 0 { // the disadvantage
					if c.newer == 0 {
						require.ErrorContains(t, err, "another instance")
					} else {
						require.NoError(t, err)
						require.Equal(t, 9, report.Missing)
					}
					require.Zero(t, report.Removed)
					_, err := b.Remove(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "u0@example.com"})
					require.NoError(t, err)
					return
				}
				require.NoError(t, err, "an older invitation shows that the key is right")
				require.Equal(t, []int{9, 0}, []int{report.Removed, report.Missing})
			})
		})
	}
}

// With the key of another instance, one person is invited there and joins. This instance now knows a person, but none
// who is as old as the members of the right instance. None of these is removed, by any verb.
func TestReconcile_AnotherInstanceWithNewMembers(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		const old = 9
		for i := range old + 1 {
			b.Clerk.DeleteUser(b.Clerk.AddVerifiedUser(fmt.Sprintf("stranger%d@example.com", i)).ID) // so that the instances' user IDs differ
		}
		for i := range old {
			email := fmt.Sprintf("u%d@example.com", i)
			if i%2 == 0 {
				b.Clerk.AddVerifiedUser(email)
			}
			if b.MustInvite(t, email); i%2 == 1 {
				w, err := b.Clerk.Accept(email)
				require.NoError(t, err)
				b.Receive(t, w)
			}
			require.Equal(t, clerkinvite.StatusActive, b.Member(t, email).Status)
		}
		b.Clock.Advance(48 * time.Hour)

		another := clerkinvitetest.NewClerk()
		another.AddUser(clerkinvitetest.UserSpec{ID: "user_another", Emails: []clerkinvitetest.EmailSpec{{Address: "u3@example.com", Verified: true}}})
		wrong := testkit.New(t, testkit.Options{}, another, another, b.Store)
		wrong.Clock.Advance(48 * time.Hour)
		requireAll := func(known bool) {
			t.Helper()
			for _, opts := range []clerkinvite.ReconcileOptions{{DryRun: true}, {}, {Limit: 4}} {
				missing, more := 0, true
				for more {
					report, err := wrong.Reconcile(t.Context(), &opts)
					if known {
						require.NoError(t, err)
					}
					require.Zero(t, report.Removed)
					missing += report.Missing
					opts.Cursor, more = report.Cursor, report.Cursor != ""
				}
				if known {
					require.Equal(t, old, missing)
				}
			}
			_, err := wrong.TryInvite(t, "u3@example.com") // the address of another user there
			require.ErrorAs(t, err, new(*clerkinvite.DuplicateEmailError))
			for i := range old {
				require.Equal(t, clerkinvite.StatusActive, b.Member(t, fmt.Sprintf("u%d@example.com", i)).Status)
			}
		}
		requireAll(false)
		wrong.MustInvite(t, "new@example.com")
		requireAll(true)
		w, err := another.Accept("new@example.com")
		require.NoError(t, err)
		require.Len(t, wrong.Receive(t, w), 1)
		wrong.Clock.Advance(25 * time.Hour)
		requireAll(true)

		// There, members who are no older than that person are removed as usual.
		gone := another.AddVerifiedUser("gone@example.com")
		require.Equal(t, clerkinvite.StatusActive, wrong.MustInvite(t, "gone@example.com").Status)
		another.DeleteUser(gone.ID)
		wrong.Clock.Advance(time.Hour)
		report := wrong.MustReconcile(t)
		require.Equal(t, []int{1, old}, []int{report.Removed, report.Missing})

		// The right key removes only the member of the other instance.
		b.Clock.Advance(48 * time.Hour)
		report = b.MustReconcile(t)
		require.Equal(t, []int{1, 0}, []int{report.Removed, report.Missing})
		require.Equal(t, clerkinvite.ReasonUserDeleted, b.Member(t, "new@example.com").Reason)
	})
}

// The only member joined by an invitation, and the user was deleted. Clerk's list shows that invitation, so the key is right.
func TestReconcile_OwnInvitationProvesTheKey(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		b.MustInvite(t, "ada@example.com")
		w, err := b.Clerk.Accept("ada@example.com")
		require.NoError(t, err)
		b.Receive(t, w)
		b.Clerk.DeleteUser(b.Member(t, "ada@example.com").ClerkUserID)
		b.Clock.Advance(time.Hour)
		require.Equal(t, 1, b.MustReconcile(t).Removed)
	})
}

// More members than Reconcile keeps in memory are older than everyone Clerk shows. The newer ones are removed all the same.
func TestReconcile_ManyMissingMembersDoNotBlockOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // Reconcile pauses between requests
		b := testkit.NewMemory(t, testkit.Options{})
		adopt := func(tenant string, people int, at time.Time) {
			list := make([]clerkinvite.AdoptParams, people)
			for i := range list {
				list[i] = adopted(tenant, fmt.Sprintf("p%d@example.com", i), fmt.Sprintf("user_%s%d", tenant, i))
				list[i].ReservedAt = at
			}
			mustAdopt(t, b, list...)
		}
		now := b.Clock.Now()
		adopt("a", 1100, now.Add(-3*day))
		b.Clerk.AddUser(clerkinvitetest.UserSpec{ID: "user_b0", Emails: []clerkinvitetest.EmailSpec{{Address: "p0@example.com", Verified: true}}})
		adopt("b", 1, now.Add(-2*day))
		adopt("c", 5, now.Add(-day))
		report := b.MustReconcile(t)
		require.Equal(t, []int{5, 1000}, []int{report.Removed, report.Missing}, "at least 1,000")
	})
}

// A list that leaves users out, and an empty one, prove nothing.
func TestReconcile_ListsThatLeaveUsersOut(t *testing.T) {
	t.Parallel()
	const n = 120
	for name, leaveOut := range map[string]func(users []clerkinvite.User) []clerkinvite.User{
		"one":  func(users []clerkinvite.User) []clerkinvite.User { return users[1:] },
		"half": func(users []clerkinvite.User) []clerkinvite.User { return users[len(users)/2:] },
		"all":  func([]clerkinvite.User) []clerkinvite.User { return nil },
		"strangers": func([]clerkinvite.User) []clerkinvite.User {
			return []clerkinvite.User{{ID: "user_stranger"}}
		},
	} {
		for _, known := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, known %v", name, known), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { // Reconcile pauses between requests
					clerk := clerkinvitetest.NewClerk()
					gone := clerk.AddVerifiedUser("gone@example.com")
					b := testkit.New(t, testkit.Options{}, clerk, omittingAPI{clerk, leaveOut}, clerkinvitetest.NewMemoryStore())
					for i := range n {
						clerk.AddVerifiedUser(fmt.Sprintf("u%d@example.com", i))
						b.MustInvite(t, fmt.Sprintf("u%d@example.com", i))
					}
					b.MustInvite(t, "gone@example.com")
					if known {
						b.MustInvite(t, "pending@example.com")
					}
					clerk.DeleteUser(gone.ID)
					b.Clock.Advance(time.Hour)
					report := b.MustReconcile(t)
					require.Equal(t, 1, report.Removed)
					require.Equal(t, clerkinvite.StatusRemoved, b.Member(t, "gone@example.com").Status)
				})
			})
		}
	}
}

type omittingAPI struct {
	*clerkinvitetest.Clerk
	leaveOut func([]clerkinvite.User) []clerkinvite.User
}

func (a omittingAPI) FindUsers(ctx context.Context, q clerkinvite.UserQuery) ([]clerkinvite.User, error) {
	users, err := a.Clerk.FindUsers(ctx, q)
	if err == nil && len(q.IDs) > 0 && len(users) > 0 {
		users = a.leaveOut(users)
	}
	return users, err
}

// Only Clerk's own statement about a user counts.
func TestReconcile_OnlyA404Removes(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]clerkinvitetest.Fault{
		"a proxy's 404":   {Status: 404},
		"another code":    {Status: 404, Code: "not_found"},
		"a proxy's 403":   {Status: 403},
		"500":             {Kind: clerkinvitetest.JSON500},
		"an empty 200":    {Kind: clerkinvitetest.Empty200},
		"null":            {Kind: clerkinvitetest.Null200},
		"an empty object": {Kind: clerkinvitetest.EmptyObject200},
		"no response":     {Kind: clerkinvitetest.Reset},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
				gone := b.Clerk.AddVerifiedUser("gone@example.com")
				b.MustInvite(t, "pending@example.com")
				b.MustInvite(t, "gone@example.com")
				w := b.Clerk.DeleteUser(gone.ID)
				b.Clock.Advance(time.Hour)
				failing := fault // the two rigs run in parallel
				failing.Call, failing.Times = clerkinvitetest.CallGetUser, -1
				b.Clerk.Fail(failing)
				report, err := b.Reconcile(t.Context(), nil)
				require.Error(t, err)
				require.Zero(t, report.Removed)
				ev, err := clerkinvite.ParseEvent(w.Payload)
				require.NoError(t, err)
				_, err = b.HandleEvent(t.Context(), ev)
				require.Error(t, err)
				require.Equal(t, clerkinvite.StatusActive, b.Member(t, "gone@example.com").Status)
				b.Clerk.ClearFaults()
				require.Equal(t, 1, b.MustReconcile(t).Removed)
			})
		})
	}
}

// Clerk always fails for one address.
func TestReconcile_PoisonedAddressDoesNotBlockOthers(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 3, 40} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			b := testkit.NewMemory(t, testkit.Options{})
			ps := testkit.People(n, "p")
			_, err := b.InviteMany(t.Context(), ps, nil)
			require.NoError(t, err)
			for i := range min(2, n) {
				b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallFindUsers, Email: ps[i*(n-1)].Email, Kind: clerkinvitetest.JSON500, Times: -1})
			}
			for _, p := range ps {
				_, err := b.Clerk.Accept(p.Email)
				require.NoError(t, err)
			}
			report, err := b.Reconcile(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, max(0, n-2), report.Activated)
			require.Empty(t, report.AcceptedElsewhere)
		})
	}
}

// A due resend belongs to Deliver, whatever happened to the older invitation.
func TestReconcile_LeavesAResendUnderWayAlone(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		m := b.MustInvite(t, "ada@example.com")
		b.Clock.Advance(time.Hour)
		b.FailCreates(clerkinvitetest.Fault{Status: 503, Kind: clerkinvitetest.NotSent})
		_, err := b.Resend(t.Context(), m.Ref())
		require.Error(t, err)
		b.Clerk.RevokeInDashboard(m.InvitationID)
		require.Zero(t, b.MustReconcile(t).Revoked)
		b.Clock.Advance(time.Hour)
		_, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		b.RequireInvited(t, "ada@example.com", 2)
	})
}

// A row without an expiry gets it from Clerk's list.
func TestReconcile_LearnsTheExpiry(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		was := b.MustInvite(t, "ada@example.com")
		without := *was
		without.ExpiresAt = nil
		_, err := b.Store.Update(t.Context(), []clerkinvite.Change{{Old: was, New: &without}})
		require.NoError(t, err)
		b.MustReconcile(t)
		require.Equal(t, was.ExpiresAt, b.Member(t, "ada@example.com").ExpiresAt)

		// Clerk may end it before its expiry.
		b.Clerk.ExpireNow(was.InvitationID)
		require.Equal(t, 1, b.MustReconcile(t).Expired)
	})
}

func TestReconcile_EndsWithItsContext(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	_, err := b.InviteMany(t.Context(), testkit.People(300, "p"), nil)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	b.Clerk.OnCall(func(context.Context, clerkinvitetest.Call, clerkinvitetest.When) { cancel() })
	report, err := b.Reconcile(ctx, nil)
	require.ErrorIs(t, err, context.Canceled)
	require.NotEmpty(t, report.Cursor)
}

// neverActive is a hook that does not let members with such an address become active.
func neverActive(prefix string) func(context.Context, pgx.Tx, []clerkinvite.Change) error {
	return func(_ context.Context, _ pgx.Tx, changes []clerkinvite.Change) error {
		for _, c := range changes {
			if c.New != nil && c.New.Status == clerkinvite.StatusActive && strings.HasPrefix(c.New.Email, prefix) {
				return testkit.ErrHook
			}
		}
		return nil
	}
}

// The hook refuses one member: the members and invitations after it are reconciled.
func TestReconcile_FailingHookDoesNotBlockOthers(t *testing.T) {
	t.Parallel()
	store, h, _ := testkit.NewMirror(t)
	clerk := clerkinvitetest.NewClerk()
	b := testkit.New(t, testkit.Options{}, clerk, clerk, store)
	ps := append([]clerkinvite.InviteParams{testkit.Params("a", "bad@example.com")}, testkit.People(120, "p")...)
	ps = append(ps, testkit.Params("z", "joined@example.com"), testkit.Params("z", "withdrawn@example.com"))
	results, err := b.InviteMany(t.Context(), ps, nil)
	require.NoError(t, err)
	for _, email := range []string{"bad@example.com", "joined@example.com"} {
		_, err := clerk.Accept(email)
		require.NoError(t, err)
	}
	clerk.RevokeInDashboard(results[len(results)-1].Member.InvitationID)

	h.SetHook(neverActive("bad"))
	report, err := b.Reconcile(t.Context(), nil)
	require.Equal(t, testkit.ErrHook, err, "unchanged, at the end")
	require.Equal(t, &clerkinvite.ReconcileReport{Members: 123, Invitations: report.Invitations, Activated: 1, Revoked: 1}, report)
	for ref, want := range map[clerkinvite.Ref]clerkinvite.Status{
		{TenantID: "a", Email: "bad@example.com"}:       clerkinvite.StatusPending,
		{TenantID: "z", Email: "joined@example.com"}:    clerkinvite.StatusActive,
		{TenantID: "z", Email: "withdrawn@example.com"}: clerkinvite.StatusRevoked,
	} {
		m, err := b.Get(t.Context(), ref)
		require.NoError(t, err)
		require.Equal(t, want, m.Status, ref.TenantID)
	}

	h.SetHook(nil)
	report, err = b.Reconcile(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, 1, report.Activated)
}

// A left-over invitation cannot be revoked: Reconcile continues.
func TestReconcile_FailedRevocationDoesNotBlockOthers(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	withdrawn := b.MustInvite(t, "withdrawn@example.com")
	b.MustInvite(t, "elsewhere@example.com")
	_, err := b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "expires@example.com", ExpiresInDays: 1})
	require.NoError(t, err)
	b.Clock.Advance(48 * time.Hour)
	b.Clerk.RevokeInDashboard(withdrawn.InvitationID)
	_, err = b.Clerk.AcceptAs("elsewhere@example.com", "private@example.com")
	require.NoError(t, err)
	for _, email := range []string{"left1@example.com", "left2@example.com", "left3@example.com"} {
		b.Clerk.CreateForeign(email, map[string]any{"clerkinvite": map[string]any{"id": withdrawn.ID, "send": 1}})
	}
	b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallRevoke, Email: "left2@example.com", Kind: clerkinvitetest.JSON500, Times: -1})

	report, err := b.Reconcile(t.Context(), nil)
	var clerkErr *clerkinvite.ClerkInvitationError
	require.ErrorAs(t, err, &clerkErr)
	require.Equal(t, "revoke invitation", clerkErr.Op)
	require.Equal(t, clerkinvite.StatusRevoked, b.Member(t, "withdrawn@example.com").Status)
	require.Equal(t, clerkinvite.StatusExpired, b.Member(t, "expires@example.com").Status)
	require.Len(t, report.AcceptedElsewhere, 1)
	require.Equal(t, &clerkinvite.ReconcileReport{
		Members: 3, Invitations: report.Invitations, Expired: 1, Revoked: 1, LeftOver: 2, AcceptedElsewhere: report.AcceptedElsewhere,
	}, report)
	require.Len(t, b.Clerk.OpenInvitations("left2@example.com"), 1)

	b.Clerk.ClearFaults()
	report, err = b.Reconcile(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, 1, report.LeftOver)
}

// With the key of another instance no member is removed or made active, whatever the length of a page.
func TestReconcile_WrongKeyChangesNothingPageByPage(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{0, 9, 10, 13} {
		t.Run(fmt.Sprint("limit ", limit), func(t *testing.T) {
			t.Parallel()
			b := testkit.NewMemory(t, testkit.Options{})
			for i := range 30 {
				if i == 0 {
					b.MustInvite(t, "dev@example.com")
				}
				b.Clerk.AddVerifiedUser(fmt.Sprintf("u%d@example.com", i))
				b.MustInvite(t, fmt.Sprintf("u%d@example.com", i))
			}
			b.Clock.Advance(time.Hour)
			before := b.MembersByRef(t)

			staging := clerkinvitetest.NewClerk()
			staging.SetNow(b.Clock.Now)
			staging.AddUser(clerkinvitetest.UserSpec{ID: "user_staging", Emails: []clerkinvitetest.EmailSpec{{Address: "dev@example.com", Verified: true}}})
			wrong, err := clerkinvite.New(clerkinvite.Config{API: staging, Store: b.Store, Now: b.Clock.Now})
			require.NoError(t, err)
			members, last := reconcilePages(t, wrong, limit)
			require.Equal(t, before, b.MembersByRef(t))
			require.Equal(t, 31, members)
			var clerkErr *clerkinvite.ClerkInvitationError
			require.ErrorAs(t, last, &clerkErr)
			require.Equal(t, clerkinvite.OutcomeFault, clerkErr.Outcome)
			require.ErrorContains(t, clerkErr.Err, "another instance")

			// With the right key everything is right.
			_, last = reconcilePages(t, b.Service, limit)
			require.NoError(t, last)
			require.Equal(t, before, b.MembersByRef(t))
		})
	}
}

// pages reconciles page by page to the end, and returns how many members it saw and the last
// page's error.
func reconcilePages(t *testing.T, svc *clerkinvite.Service, limit int) (members int, last error) {
	t.Helper()
	for round, cursor := 0, ""; ; round++ {
		require.Less(t, round, 10)
		report, err := svc.Reconcile(t.Context(), &clerkinvite.ReconcileOptions{Limit: limit, Cursor: cursor})
		members += report.Members
		if cursor = report.Cursor; cursor == "" {
			return members, err
		}
	}
}

// All active users were deleted. Invitations that Clerk knows prove that the key is right.
func TestReconcile_InvitationsProveTheKey(t *testing.T) {
	t.Parallel()
	allGone := func(before func(*testkit.Rig)) *testkit.Rig {
		b := testkit.NewMemory(t, testkit.Options{})
		before(b)
		for i := range 10 {
			u := b.Clerk.AddVerifiedUser(fmt.Sprintf("u%d@example.com", i))
			b.MustInvite(t, fmt.Sprintf("u%d@example.com", i))
			b.Clerk.DeleteUser(u.ID)
		}
		return b
	}
	b := allGone(func(b *testkit.Rig) {
		b.Clerk.RevokeInDashboard(b.MustInvite(t, "ada@example.com").InvitationID)
	})
	b.Clock.Advance(time.Hour)
	_, err := b.Reconcile(t.Context(), nil)
	require.Equal(t, clerkinvite.StatusRevoked, b.Member(t, "ada@example.com").Status)
	require.NoError(t, err)
	for i := range 10 {
		require.Equal(t, clerkinvite.ReasonUserDeleted, b.Member(t, fmt.Sprintf("u%d@example.com", i)).Reason)
	}

	// Without an invitation nothing shows that the key is right.
	b = allGone(func(*testkit.Rig) {})
	b.Clock.Advance(time.Hour)
	before := b.MembersByRef(t)
	report, err := b.Reconcile(t.Context(), nil)
	var clerkErr *clerkinvite.ClerkInvitationError
	require.ErrorAs(t, err, &clerkErr)
	status, message := clerkinvite.HTTPError(err)
	require.Equal(t, 502, status)
	require.Equal(t, "invitation service unavailable", message)
	require.Equal(t, &clerkinvite.ReconcileReport{Members: 10}, report)
	require.Equal(t, before, b.MembersByRef(t))
}

// A restored row names the older invitation, which was revoked, and the newer invitation is open: the member must not
// be revoked.
func TestReconcile_RestoredBackupRevokesNoMember(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	was := b.MustInvite(t, "ada@example.com")
	b.Clock.Advance(time.Hour)
	now, err := b.Resend(t.Context(), was.Ref())
	require.NoError(t, err)
	restored := *was
	restored.URL = clerkinvite.Secret{}
	_, err = b.Store.Update(t.Context(), []clerkinvite.Change{{Old: now, New: &restored}})
	require.NoError(t, err)
	require.Equal(t, 1, b.Member(t, "ada@example.com").Send)

	report := b.MustReconcile(t)
	require.Equal(t, 1, report.Newer)
	require.Zero(t, report.Revoked)
	require.Equal(t, clerkinvite.StatusPending, b.Member(t, "ada@example.com").Status)
	require.Len(t, b.Clerk.OpenInvitations("ada@example.com"), 1)
	_, err = b.Clerk.Accept("ada@example.com")
	require.NoError(t, err)
	require.Equal(t, 1, b.MustReconcile(t).Activated)
	require.Equal(t, clerkinvite.StatusActive, b.Member(t, "ada@example.com").Status)
}

// An imported active member has a user ID that no request can contain.
func TestReconcile_ForeignUserIDDoesNotBlockOthers(t *testing.T) {
	t.Parallel()
	var log testkit.LockedBuffer
	b := testkit.NewMemory(t, testkit.Options{Configure: func(c *clerkinvite.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) }})
	b.Clerk.AddVerifiedUser("old@example.com")
	was := b.MustInvite(t, "old@example.com")
	imported := *was
	imported.ClerkUserID = "legacy|17"
	_, err := b.Store.Update(t.Context(), []clerkinvite.Change{{Old: was, New: &imported}})
	require.NoError(t, err)
	gone := b.Clerk.AddVerifiedUser("gone@example.com")
	b.MustInvite(t, "gone@example.com")
	b.Clerk.DeleteUser(gone.ID)
	m := b.MustInvite(t, "ada@example.com")
	b.Clerk.RevokeInDashboard(m.InvitationID)
	b.Clock.Advance(time.Hour)

	report := b.MustReconcile(t)
	require.Equal(t, 3, report.Members)
	require.Equal(t, 1, report.Revoked)
	require.Equal(t, 1, report.Removed)
	old := b.Member(t, "old@example.com")
	require.Equal(t, clerkinvite.StatusActive, old.Status)
	require.Equal(t, "legacy|17", old.ClerkUserID)
	require.Contains(t, log.String(), `msg="member has an invalid Clerk user ID" tenant=acme member=`+old.ID)
}

// Clerk does not list a new user yet, and the process pauses for hours between that response and its decision.
func TestReconcile_PauseDoesNotRemoveAUserThatClerkShowsLate(t *testing.T) {
	t.Parallel()
	clerk := clerkinvitetest.NewClerk()
	b := testkit.New(t, testkit.Options{}, clerk, clerk, clerkinvitetest.NewMemoryStore())
	b.MustInvite(t, "bob@example.com")
	w, err := clerk.Accept("bob@example.com")
	require.NoError(t, err)
	b.Receive(t, w)
	b.Clock.Advance(time.Hour)
	clerk.SetBehavior(clerkinvitetest.Behavior{Lag: true, GetUserLags: true})
	b.MustInvite(t, "ada@example.com")
	clerk.Settle()
	w, err = clerk.Accept("ada@example.com")
	require.NoError(t, err)
	e, err := b.Verifier.Verify(w.Payload, w.Sign(clerkinvitetest.WebhookSecret))
	require.NoError(t, err)
	_, err = b.Resolve(t.Context(), *e.User)
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusActive, b.Member(t, "ada@example.com").Status)

	clerk.OnCall(func(_ context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
		if call == clerkinvitetest.CallFindUsers && when == clerkinvitetest.After {
			b.Clock.Advance(2 * time.Hour)
		}
	})
	_, err = b.Reconcile(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusActive, b.Member(t, "ada@example.com").Status)
}

// An invitation expired long ago, and Clerk's lists no longer show it, or show that it was
// accepted under another address. The member must not stay pending forever.
func TestReconcile_OverdueMembersExpire(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		forgets bool
		known   string // what Clerk knows of another member, so that the key is right
		want    clerkinvite.Status
	}{
		"accepted elsewhere":                               {false, "user", clerkinvite.StatusExpired},
		"forgotten at Clerk":                               {true, "user", clerkinvite.StatusExpired},
		"forgotten, and another invitation is open":        {true, "invitation", clerkinvite.StatusExpired},
		"forgotten, and the key may be another instance's": {true, "", clerkinvite.StatusPending},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const email = "ada@example.com"
			b := testkit.NewMemory(t, testkit.Options{})
			b.MustInvite(t, email)
			if c.known == "user" {
				b.Clerk.AddVerifiedUser("known@example.com")
				b.MustInvite(t, "known@example.com")
			}
			_, err := b.Clerk.AcceptAs(email, "elsewhere@example.org")
			require.NoError(t, err)
			if c.forgets {
				b = testkit.New(t, testkit.Options{}, b.Clerk, hidingAPI{b.API, b.Member(t, email).InvitationID}, b.Store)
			}
			b.Clock.Advance(30*24*time.Hour + 5*time.Minute) // Clerk's clock may be behind
			if c.known == "invitation" {
				b.MustInvite(t, "known@example.com")
			}
			b.MustReconcile(t)
			require.Equal(t, clerkinvite.StatusPending, b.Member(t, email).Status)
			b.Clock.Advance(10 * time.Minute)
			b.MustReconcile(t)
			require.Equal(t, c.want, b.Member(t, email).Status)
		})
	}
}

// A person signed up in time, without the link, and the webhook was lost. The member cannot be made active, because the
// hook fails. Reconcile must not expire the member instead, nor the same user's other one.
func TestReconcile_DoesNotExpireAMemberThatCannotBeActivated(t *testing.T) {
	t.Parallel()
	for _, addresses := range [][]string{{"ada@example.com"}, {"ada@example.com", "second@example.com"}} {
		t.Run(fmt.Sprint(len(addresses)), func(t *testing.T) {
			t.Parallel()
			b := testkit.NewMemory(t, testkit.Options{})
			refusing := true
			store := refusingStore{b.Store, func(next *clerkinvite.Member) error {
				if refusing && next.Status == clerkinvite.StatusActive {
					return testkit.ErrHook
				}
				return nil
			}}
			b = testkit.New(t, testkit.Options{}, b.Clerk, b.API, store)
			var user clerkinvitetest.UserSpec
			for _, email := range append(addresses, "waits@example.com") {
				_, err := b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: email, ExpiresInDays: 1})
				require.NoError(t, err)
				user.Emails = append(user.Emails, clerkinvitetest.EmailSpec{Address: email, Verified: true})
			}
			b.Clock.Advance(time.Hour)
			user.Emails = user.Emails[:len(addresses)]
			b.Clerk.AddUser(user)
			b.Clock.Advance(48 * time.Hour)

			report, err := b.Reconcile(t.Context(), nil)
			require.ErrorIs(t, err, testkit.ErrHook)
			require.Equal(t, 1, report.Expired)
			require.Equal(t, clerkinvite.StatusExpired, b.Member(t, "waits@example.com").Status)
			for _, email := range addresses {
				require.Equal(t, clerkinvite.StatusPending, b.Member(t, email).Status, email)
			}

			refusing = false
			report, err = b.Reconcile(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, 1, report.Activated)
			require.Equal(t, clerkinvite.StatusActive, b.Member(t, "ada@example.com").Status)
		})
	}
}

// The only active user was deleted, so the first hundred members who wait make the key suspicious. The invitations prove
// that it is right, before the next hundred are looked up.
func TestReconcile_SuspicionDuringTheLookUpIsCleared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // Reconcile pauses between requests
		b := testkit.NewMemory(t, testkit.Options{})
		ps := testkit.People(150, "p")
		_, err := b.InviteMany(t.Context(), ps, nil)
		require.NoError(t, err)
		gone := b.Clerk.AddVerifiedUser("gone@example.com")
		_, err = b.Invite(t.Context(), testkit.Params("aaa", "gone@example.com")) // before the others
		require.NoError(t, err)
		b.Clerk.DeleteUser(gone.ID)
		for _, p := range ps[110:] {
			b.Clerk.SignUp(p.Email, true) // without the link: only the look-up finds them
		}
		b.Clock.Advance(time.Hour)
		report, err := b.Reconcile(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, 40, report.Activated)
		require.Equal(t, 1, report.Removed)
	})
}

// overlapping is a Clerk whose lists get another invitation between two pages.
type overlapping struct{ clerkinvite.ClerkAPI }

func (a overlapping) ListInvitations(ctx context.Context, q clerkinvite.InvitationQuery) ([]clerkinvite.Invitation, error) {
	q.Offset = max(0, q.Offset-1)
	return a.ClerkAPI.ListInvitations(ctx, q)
}

// Pages overlap: each member and each invitation is reported once.
func TestReconcile_OverlappingPagesReportMembersOnce(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	b = testkit.New(t, testkit.Options{}, b.Clerk, overlapping{b.API}, b.Store)
	ps := testkit.People(501, "p")
	_, err := b.InviteMany(t.Context(), ps, nil)
	require.NoError(t, err)
	for range 501 {
		b.Clerk.CreateForeign("stranger@example.com", map[string]any{"clerkinvite": map[string]any{"id": "01a21382-a370-7acd-84c9-72ad5abb3517", "send": 1}})
	}
	open, err := b.Reconcile(t.Context(), &clerkinvite.ReconcileOptions{DryRun: true})
	require.NoError(t, err)
	require.Equal(t, []int{1002, 501}, []int{open.Invitations, open.Unknown})
	for i, p := range ps {
		_, err := b.Clerk.AcceptAs(p.Email, fmt.Sprintf("private%d@example.com", i))
		require.NoError(t, err)
	}
	report, err := b.Reconcile(t.Context(), nil)
	require.NoError(t, err)
	elsewhere := make(map[string]int)
	for _, m := range report.AcceptedElsewhere {
		elsewhere[m.Email]++
	}
	require.Len(t, elsewhere, len(ps))
	require.Len(t, report.AcceptedElsewhere, len(ps))
}

// An invitation with an unreadable ID keeps its place, and Reconcile handles the others.
func TestReconcile_OddInvitations(t *testing.T) {
	t.Parallel()
	clerk := clerkinvitetest.NewClerk()
	b := testkit.New(t, testkit.Options{}, clerk, oddList{clerk, clerkinvite.Invitation{Email: "odd@example.com", Status: clerkinvite.InvitationPending}}, clerkinvitetest.NewMemoryStore())
	for i := range 3 {
		_, err := b.TryInvite(t, fmt.Sprintf("p%d@example.com", i))
		require.NoError(t, err)
	}
	_, err := b.Clerk.Accept("p0@example.com")
	require.NoError(t, err)
	b.Clock.Advance(time.Hour)
	_, err = b.Reconcile(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusActive, b.Member(t, "p0@example.com").Status)
}

// selectiveAPI fails some requests before they reach Clerk.
type selectiveAPI struct {
	*clerkinvitetest.Clerk
	findUsers func(q clerkinvite.UserQuery) error
	getUser   func(id string) error
	list      func(q *clerkinvite.InvitationQuery)
	requests  int
}

func (a *selectiveAPI) FindUsers(ctx context.Context, q clerkinvite.UserQuery) ([]clerkinvite.User, error) {
	a.requests++
	if a.findUsers != nil {
		if err := a.findUsers(q); err != nil {
			return nil, err
		}
	}
	return a.Clerk.FindUsers(ctx, q)
}

func (a *selectiveAPI) GetUser(ctx context.Context, id string) (*clerkinvite.User, error) {
	if a.getUser != nil {
		if err := a.getUser(id); err != nil {
			return nil, err
		}
	}
	return a.Clerk.GetUser(ctx, id)
}

func (a *selectiveAPI) ListInvitations(ctx context.Context, q clerkinvite.InvitationQuery) ([]clerkinvite.Invitation, error) {
	a.requests++
	if a.list != nil {
		a.list(&q)
	}
	return a.Clerk.ListInvitations(ctx, q)
}

func newSelective(t *testing.T) (*testkit.Rig, *selectiveAPI) {
	t.Helper()
	api := &selectiveAPI{Clerk: clerkinvitetest.NewClerk()}
	return testkit.New(t, testkit.Options{}, api.Clerk, api, clerkinvitetest.NewMemoryStore()), api
}

// Clerk always fails for one or some active members' users, in the list or alone.
func TestReconcile_PoisonedUserDoesNotBlockOthers(t *testing.T) {
	t.Parallel()
	for name, failure := range map[string]error{
		"500": &clerkinvite.APIError{StatusCode: 500}, "a proxy's 403": &clerkinvite.APIError{StatusCode: 403},
		"414": &clerkinvite.APIError{StatusCode: 414}, "a proxy's page": &clerkinvite.APIError{StatusCode: 200, Err: io.ErrUnexpectedEOF},
	} {
		for _, call := range []clerkinvitetest.Call{clerkinvitetest.CallFindUsers, clerkinvitetest.CallGetUser} {
			t.Run(name+", "+string(call), func(t *testing.T) {
				t.Parallel()
				b, api := newSelective(t)
				poisoned := make(map[string]bool)
				for i := range 120 {
					u := b.Clerk.AddVerifiedUser(fmt.Sprintf("u%d@example.com", i))
					b.MustInvite(t, fmt.Sprintf("u%d@example.com", i))
					if i < 4 { // more than failures in a row that end a pass
						poisoned[u.ID] = true
					}
				}
				gone := b.Clerk.AddVerifiedUser("gone@example.com")
				b.MustInvite(t, "gone@example.com")
				b.MustInvite(t, "joined@example.com")
				_, err := b.Clerk.Accept("joined@example.com")
				require.NoError(t, err)
				b.Clerk.DeleteUser(gone.ID)
				b.Clock.Advance(time.Hour)
				if call == clerkinvitetest.CallGetUser {
					for id := range poisoned { // the list leaves them out
						b.Clerk.DeleteUser(id)
					}
					api.getUser = func(id string) error {
						if poisoned[id] {
							return failure
						}
						return nil
					}
				} else {
					api.findUsers = func(q clerkinvite.UserQuery) error {
						if slices.ContainsFunc(q.IDs, func(id string) bool { return poisoned[id] }) {
							return failure
						}
						return nil
					}
				}
				report, err := b.Reconcile(t.Context(), nil)
				if call == clerkinvitetest.CallGetUser {
					require.Error(t, err, "it is unknown whether these users exist")
				} else {
					require.NoError(t, err)
				}
				require.Empty(t, report.Cursor)
				require.Equal(t, []int{1, 1}, []int{report.Activated, report.Removed})
				require.Equal(t, clerkinvite.StatusRemoved, b.Member(t, "gone@example.com").Status)
			})
		}
	}
}

// All look-ups fail: Reconcile does not ask for each user.
func TestReconcile_FailureForAllUsersIsNotBisected(t *testing.T) {
	t.Parallel()
	b, api := newSelective(t)
	for i := range 100 {
		b.Clerk.AddVerifiedUser(fmt.Sprintf("u%d@example.com", i))
		b.MustInvite(t, fmt.Sprintf("u%d@example.com", i))
	}
	api.requests, api.findUsers = 0, func(clerkinvite.UserQuery) error { return &clerkinvite.APIError{StatusCode: 500} }
	_, err := b.Reconcile(t.Context(), nil)
	require.Error(t, err)
	require.LessOrEqual(t, api.requests, 2)
}

// Something between ignores the offset, so that the list of invitations never ends.
func TestReconcile_EndlessList(t *testing.T) {
	t.Parallel()
	b, api := newSelective(t)
	for i := range 500 {
		b.Clerk.CreateForeign(fmt.Sprintf("p%d@example.com", i), nil)
	}
	b.Clerk.CreateForeign("ada@example.com", nil)
	api.list = func(q *clerkinvite.InvitationQuery) { q.Offset, q.Query = 0, "" }
	_, err := b.Reconcile(t.Context(), nil)
	require.ErrorContains(t, err, "does not end")
	_, err = b.TryInvite(t, "ada@example.com")
	require.ErrorContains(t, err, "does not end")
	require.LessOrEqual(t, api.requests, 8)
}

// The store never responds. Calls that write for several tenants end, so that the next one can begin.
func TestReconcile_EndsAlthoughTheStoreHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		clerk := clerkinvitetest.NewClerk()
		store := &hangingStore{Store: clerkinvitetest.NewMemoryStore()}
		b := testkit.New(t, testkit.Options{}, clerk, clerk, store)
		b.MustInvite(t, "ada@example.com")
		_, err := clerk.Accept("ada@example.com")
		require.NoError(t, err)
		store.hangs = true
		_, err = b.Reconcile(t.Context(), nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		users, err := clerk.FindUsers(t.Context(), clerkinvite.UserQuery{Emails: []string{"ada@example.com"}})
		require.NoError(t, err)
		_, err = b.ResolveUser(t.Context(), users[0].ID)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

type hangingStore struct {
	clerkinvite.Store
	hangs bool
}

func (s *hangingStore) Update(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
	if s.hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.Store.Update(ctx, changes)
}
