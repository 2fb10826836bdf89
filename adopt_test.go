package clerkinvite_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

const day = 24 * time.Hour

// adopted is a row of a host's table.
func adopted(tenant, email, userID string) clerkinvite.AdoptParams {
	return clerkinvite.AdoptParams{InviteParams: testkit.Params(tenant, email), ClerkUserID: userID}
}

// mustAdopt adopts people of tenant acme, who are new.
func mustAdopt(t *testing.T, b *testkit.Rig, people ...clerkinvite.AdoptParams) {
	t.Helper()
	results, err := b.Adopt(t.Context(), people)
	require.NoError(t, err)
	for _, r := range results {
		require.NoError(t, r.Err)
	}
}

func TestAdopt(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{Configure: func(c *clerkinvite.Config) {
		c.Authorize = func(context.Context, *clerkinvite.InviteParams) error { return errors.New("not called") }
	}}, func(t *testing.T, b *testkit.Rig) {
		now := b.Clock.Now()
		list := []clerkinvite.AdoptParams{
			{InviteParams: clerkinvite.InviteParams{TenantID: "acme", Email: " Ada@Example.com", Role: "admin", InvitedBy: "seed", Data: json.RawMessage(`{"seat":1}`), ExpiresInDays: 7},
				ClerkUserID: "pending_inv_1"},
			{InviteParams: testkit.Params("acme", "grace@example.com"), ClerkUserID: "user_1", ReservedAt: now.Add(-40 * day)},
			adopted("acme", "not-an-address", "user_2"),
			adopted("acme", "joan@example.com", "legacy|17"),
			adopted("acme", "joan@example.com", "pending_orginv_1"),
			adopted("acme", "joan@example.com", "pending_inv_"),
			adopted("acme", "joan@example.com", ""),
			adopted("acme", "joan@example.com", "pending_inv_"+strings.Repeat("x", 255)),
			{InviteParams: testkit.Params("acme", "joan@example.com"), ClerkUserID: "user_3", ReservedAt: time.Unix(-1, 0)},
			adopted("acme", "ADA@example.com", "pending_inv_1"), // the same again
			adopted("acme", "ada@example.com", "user_4"),
			adopted("acme", "joan@example.com", "user_1"),
			adopted("globex", "joan@example.com", "user_1"),
			{InviteParams: testkit.Params("acme", "mary@example.com"), ClerkUserID: "user_5", ReservedAt: now.Add(time.Hour)},
		}
		_, err := b.Adopt(clerkinvite.WithActor(t.Context(), "\n"), list)
		require.ErrorAs(t, err, new(*clerkinvite.InvalidParamsError))
		results, err := b.Adopt(clerkinvite.WithActor(t.Context(), "migration"), list)
		require.NoError(t, err)
		require.Len(t, results, len(list))
		ada := results[0].Member
		require.NoError(t, results[0].Err)
		require.Equal(t, []any{"ada@example.com", clerkinvite.StatusPending, "pending_inv_1", "inv_1", "admin", "seed", 1, 1, clerkinvite.ReasonAdopted, false},
			[]any{ada.Email, ada.Status, ada.ClerkUserID, ada.InvitationID, ada.Role, ada.InvitedBy, ada.Send, ada.Sent, ada.Reason, ada.Due()})
		require.JSONEq(t, `{"seat":1}`, string(ada.Data))
		require.Nil(t, ada.InvitedAt, "only Clerk knows it")
		require.WithinDuration(t, now.Add(7*day), *ada.ExpiresAt, 2*time.Hour)
		grace := results[1].Member
		require.NoError(t, results[1].Err)
		require.Equal(t, []any{clerkinvite.StatusActive, "user_1", ""}, []any{grace.Status, grace.ClerkUserID, grace.InvitationID})
		require.WithinDuration(t, now.Add(-40*day), grace.ReservedAt, time.Second)
		var invalid *clerkinvite.InvalidParamsError
		for i, field := range map[int]string{2: "Email", 3: "ClerkUserID", 4: "ClerkUserID", 5: "ClerkUserID", 6: "ClerkUserID", 7: "ClerkUserID", 8: "ReservedAt"} {
			require.ErrorAs(t, results[i].Err, &invalid)
			require.Equal(t, field, invalid.Field, i)
			require.Nil(t, results[i].Member)
		}
		for _, i := range []int{9, 10} {
			var dup *clerkinvite.DuplicateEmailError
			require.ErrorAs(t, results[i].Err, &dup)
			require.Equal(t, ada, dup.Member)
			require.Equal(t, ada, results[i].Member)
		}
		require.ErrorIs(t, results[11].Err, clerkinvite.ErrUserTaken)
		require.Equal(t, grace.ID, results[11].Member.ID, "the member that has the user")
		require.NoError(t, results[12].Err)
		require.NoError(t, results[13].Err)
		require.WithinDuration(t, now, results[13].Member.ReservedAt, time.Minute, "not in the future")
		require.Zero(t, b.Clerk.RequestCount())

		history, err := b.History(t.Context(), ada.Ref())
		require.NoError(t, err)
		require.Len(t, history, 1)
		require.Equal(t, clerkinvite.HistoryEntry{Version: 1, To: clerkinvite.StatusPending, Send: 1, Sent: 1, ClerkUserID: "pending_inv_1", InvitationID: "inv_1",
			Role: "admin", Reason: clerkinvite.ReasonAdopted, Actor: "migration", At: history[0].At}, history[0])
		page, err := b.List(t.Context(), clerkinvite.ListParams{TenantID: "acme"})
		require.NoError(t, err)
		require.Len(t, page.Members, 3)
		require.Equal(t, "grace@example.com", page.Members[0].Email, "invited first")

		again, err := b.Adopt(t.Context(), list) // without the actor
		require.NoError(t, err)
		for i, r := range results {
			require.Equal(t, r.Member, again[i].Member, i)
			require.Equal(t, fmt.Sprint(r.Err), fmt.Sprint(again[i].Err))
		}
		none, err := b.Adopt(t.Context(), nil)
		require.NoError(t, err)
		require.Empty(t, none)
	})
}

// Members that exist already are never changed, whatever the host's table says.
func TestAdopt_ExistingMembers(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		invited := b.MustInvite(t, "pending@example.com")
		invited.URL = clerkinvite.Secret{}
		_, err := b.Reserve(t.Context(), testkit.Params("acme", "reserved@example.com"))
		require.NoError(t, err)
		mustAdopt(t, b, adopted("acme", "joined@example.com", clerkinvite.PendingID(b.Clerk.CreateForeign("joined@example.com", nil).ID)),
			adopted("acme", "removed@example.com", "user_gone"), adopted("acme", "revoked@example.com", clerkinvite.PendingID(b.Clerk.CreateForeign("revoked@example.com", nil).ID)))
		joined, revoked := b.Member(t, "joined@example.com"), b.Member(t, "revoked@example.com")
		w, err := b.Clerk.Accept("joined@example.com")
		require.NoError(t, err)
		require.Len(t, b.Receive(t, w), 1)
		_, err = b.Remove(t.Context(), testkit.Acme("removed@example.com"))
		require.NoError(t, err)
		_, err = b.Revoke(t.Context(), revoked.Ref())
		require.NoError(t, err)

		var dup *clerkinvite.DuplicateEmailError
		for _, c := range []struct {
			email, userID string
			known         bool
		}{
			{"pending@example.com", invited.ClerkUserID, true},
			{"pending@example.com", "user_9", false},
			{"reserved@example.com", "user_9", false},
			{"joined@example.com", joined.ClerkUserID, true}, // the host's table is older
			{"joined@example.com", "user_9", false},
			{"removed@example.com", "user_gone", false},
			{"revoked@example.com", revoked.ClerkUserID, true},
			{"revoked@example.com", "user_9", false},
		} {
			before := b.Member(t, c.email)
			results, err := b.Adopt(t.Context(), []clerkinvite.AdoptParams{adopted("acme", c.email, c.userID)})
			require.NoError(t, err)
			if c.known {
				require.NoError(t, results[0].Err, c)
			} else {
				require.ErrorAs(t, results[0].Err, &dup, c)
				require.Equal(t, before, dup.Member)
			}
			require.Equal(t, before, results[0].Member)
			require.Equal(t, before, b.Member(t, c.email))
		}
	})
}

// The next Reconcile finds out what Clerk says about each kind of row. A dry run says the same before.
func TestAdopt_ThenReconcile(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		clerk := b.Clerk
		clerk.AddVerifiedUser("older@example.com")
		b.Clock.Advance(time.Hour)
		ids := make(map[string]string)
		invite := func(names ...string) {
			for _, name := range names {
				ids[name] = clerk.CreateForeign(name+"@example.com", nil).ID
			}
		}
		invite("older", "expired", "newer", "joined")
		_, err := clerk.AcceptInvitation(ids["joined"])
		require.NoError(t, err)
		b.Clock.Advance(40 * day) // these have expired
		clerk.AddVerifiedUser("newer@example.com")
		invite("open", "accepted", "elsewhere", "revoked", "shared", "signedup")
		b.Clock.Advance(5 * day)
		_, err = clerk.AcceptInvitation(ids["accepted"])
		require.NoError(t, err)
		_, err = clerk.AcceptAs("elsewhere@example.com", "private@example.com")
		require.NoError(t, err)
		clerk.RevokeInDashboard(ids["revoked"])
		clerk.RevokeInDashboard(ids["shared"])
		clerk.SignUp("signedup@example.com", true)
		there, gone := clerk.AddVerifiedUser("there@example.com"), clerk.AddVerifiedUser("gone@example.com")
		clerk.DeleteUser(gone.ID)
		foreign := clerk.CreateForeign("stranger@example.com", nil)

		people := []clerkinvite.AdoptParams{
			adopted("globex", "shared@example.com", clerkinvite.PendingID(ids["shared"])), adopted("acme", "there@example.com", there.ID),
			adopted("acme", "gone@example.com", gone.ID), adopted("acme", "unknown@example.com", "pending_inv_unknown"),
		}
		for name, id := range ids {
			people = append(people, adopted("acme", name+"@example.com", clerkinvite.PendingID(id)))
		}
		mustAdopt(t, b, people...)
		b.Clock.Advance(time.Hour)
		dry, err := b.Reconcile(t.Context(), &clerkinvite.ReconcileOptions{DryRun: true})
		require.NoError(t, err)
		report := b.MustReconcile(t)
		require.Len(t, dry.AcceptedElsewhere, 1)
		require.Len(t, report.AcceptedElsewhere, 1)
		require.Equal(t, dry.AcceptedElsewhere[0].ID, report.AcceptedElsewhere[0].ID)
		dry.AcceptedElsewhere, report.AcceptedElsewhere = nil, nil
		require.Equal(t, dry, report)
		require.Equal(t, []int{len(people), 2, 1, 3, 3, 0, 0, 0}, []int{report.Members, report.Activated, report.Removed, report.Expired, report.Revoked, report.LeftOver, report.Unknown, report.Newer})

		for name, want := range map[string]clerkinvite.Status{
			"open": clerkinvite.StatusPending, "accepted": clerkinvite.StatusActive, "joined": clerkinvite.StatusActive, "elsewhere": clerkinvite.StatusPending,
			"revoked": clerkinvite.StatusRevoked, "shared": clerkinvite.StatusRevoked, "expired": clerkinvite.StatusExpired, "newer": clerkinvite.StatusExpired,
			"older": clerkinvite.StatusExpired, "there": clerkinvite.StatusActive, "gone": clerkinvite.StatusRemoved, "unknown": clerkinvite.StatusPending,
			"signedup": clerkinvite.StatusPending,
		} {
			require.Equal(t, want, b.Member(t, name+"@example.com").Status, name)
		}
		other, err := b.Get(t.Context(), clerkinvite.Ref{TenantID: "globex", Email: "shared@example.com"})
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusRevoked, other.Status)
		for _, name := range []string{"open", "expired", "joined"} {
			inv := clerk.Invitations(name + "@example.com")[0]
			m := b.Member(t, name+"@example.com")
			require.WithinDuration(t, inv.CreatedAt, *m.InvitedAt, time.Millisecond, "Clerk's times")
			require.WithinDuration(t, *inv.ExpiresAt, *m.ExpiresAt, time.Millisecond)
		}
		require.Len(t, clerk.OpenInvitations(foreign.Email), 1, "not touched")
		require.Nil(t, b.Member(t, "unknown@example.com").InvitedAt)

		// Now the invitation's times are known, and a user with the address has joined as usual.
		require.Equal(t, 1, b.MustReconcile(t).Activated)
		require.Equal(t, clerkinvite.StatusActive, b.Member(t, "signedup@example.com").Status)

		// What Clerk does not know expires.
		b.Clock.Advance(31 * day)
		b.MustReconcile(t)
		require.Equal(t, clerkinvite.StatusExpired, b.Member(t, "unknown@example.com").Status)
		require.Zero(t, clerk.Emails())
	})
}

// Adopted members of an organization: Reconcile finds who has accepted, who has left and what was revoked.
func TestAdopt_Organization(t *testing.T) {
	t.Parallel()
	eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
		into := func(email, userID string) clerkinvite.AdoptParams {
			a := adopted("acme", email, userID)
			a.Organization = &clerkinvite.Organization{ID: org, Role: "org:admin"}
			return a
		}
		results, err := b.Adopt(t.Context(), []clerkinvite.AdoptParams{into("ada@example.com", "pending_inv_1")})
		require.NoError(t, err)
		require.EqualError(t, results[0].Err, "invalid ClerkUserID: must be a Clerk user's ID (user_…) or pending_ and an invitation's ID (pending_orginv_…)")

		var people []clerkinvite.AdoptParams
		ids := make(map[string]string)
		for _, name := range []string{"open", "accepted", "revoked"} {
			email := name + "@example.com"
			ids[name] = b.Clerk.CreateInDashboard(org, email, "org:member", nil).ID
			people = append(people, into(email, clerkinvite.PendingID(ids[name])))
		}
		for _, name := range []string{"member", "left"} {
			email := name + "@example.com"
			ids[name] = b.Clerk.AddVerifiedUser(email).ID
			people = append(people, into(email, ids[name]))
		}
		b.Clerk.JoinOrganization(org, ids["member"], "org:admin")
		require.NoError(t, b.Clerk.AcceptOrganization(ids["accepted"], b.Clerk.AddVerifiedUser("accepted@example.com").ID))
		b.Clerk.RevokeInDashboard(ids["revoked"])
		mustAdopt(t, b, people...)
		require.Zero(t, b.Clerk.EmailsTo("open@example.com"))

		b.Clock.Advance(time.Hour)
		b.MustReconcile(t)
		for name, want := range map[string]clerkinvite.Status{
			"open": clerkinvite.StatusPending, "accepted": clerkinvite.StatusActive, "revoked": clerkinvite.StatusRevoked,
			"member": clerkinvite.StatusActive, "left": clerkinvite.StatusRemoved,
		} {
			require.Equal(t, want, b.Member(t, name+"@example.com").Status, name)
		}
		require.Equal(t, clerkinvite.ReasonLeftOrganization, b.Member(t, "left@example.com").Reason)

		again, err := b.Resend(t.Context(), testkit.Acme("open@example.com"))
		require.NoError(t, err)
		require.NotEqual(t, ids["open"], again.InvitationID)
		require.Len(t, b.Clerk.OpenInvitations("open@example.com"), 1)
	})
}

// Clerk does not know the invitation, for example because it was made in another instance. A user who has verified the address is proof enough
// once Clerk's lists have shown that the invitation is not among the ended ones.
func TestAdopt_ThenReconcileWithoutTheInvitation(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		user := b.Clerk.AddVerifiedUser("there@example.com")
		b.Clerk.SignUp("unverified@example.com", false)
		ended := b.Clerk.CreateForeign("ended@example.com", nil).ID
		b.Clerk.RevokeInDashboard(ended)
		b.Clerk.AddVerifiedUser("ended@example.com")
		mustAdopt(t, b, adopted("acme", "there@example.com", "pending_inv_lost1"), adopted("globex", "there@example.com", "pending_inv_lost2"),
			adopted("acme", "unverified@example.com", "pending_inv_lost3"), adopted("acme", "no-user@example.com", "pending_inv_lost4"), adopted("acme", "ended@example.com", clerkinvite.PendingID(ended)))
		b.Clock.Advance(time.Hour)
		for _, opts := range []clerkinvite.ReconcileOptions{{DryRun: true}, {Limit: 2}} {
			activated, more := 0, true
			for more {
				report, err := b.Reconcile(t.Context(), &opts)
				require.NoError(t, err)
				activated += report.Activated
				opts.Cursor, more = report.Cursor, report.Cursor != ""
			}
			require.Equal(t, 2, activated)
		}
		for _, tenant := range []string{"acme", "globex"} {
			m, err := b.Get(t.Context(), clerkinvite.Ref{TenantID: tenant, Email: "there@example.com"})
			require.NoError(t, err)
			require.Equal(t, []any{clerkinvite.StatusActive, user.ID}, []any{m.Status, m.ClerkUserID})
		}
		require.Equal(t, clerkinvite.StatusPending, b.Member(t, "unverified@example.com").Status)
		require.Equal(t, clerkinvite.StatusPending, b.Member(t, "no-user@example.com").Status)
		require.Equal(t, clerkinvite.StatusRevoked, b.Member(t, "ended@example.com").Status, "the user could not accept it")
		require.Equal(t, &clerkinvite.ReconcileReport{Members: 2 + 2, Invitations: 1}, b.MustReconcile(t))
	})
}

// A Reconcile in parts reads the invitations in its last part.
func TestAdopt_ThenReconcileInParts(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	var people []clerkinvite.AdoptParams
	for _, p := range testkit.People(7, "p") {
		id := b.Clerk.CreateForeign(p.Email, nil).ID
		people = append(people, adopted("acme", p.Email, clerkinvite.PendingID(id)))
		b.Clerk.RevokeInDashboard(id)
	}
	mustAdopt(t, b, people...)
	revoked := 0
	for cursor, more := "", true; more; {
		report, err := b.Reconcile(t.Context(), &clerkinvite.ReconcileOptions{Limit: 3, Cursor: cursor})
		require.NoError(t, err)
		revoked += report.Revoked
		cursor, more = report.Cursor, report.Cursor != ""
	}
	require.Equal(t, len(people), revoked)
}

// An adopted member's expiry is assumed, and Clerk's is later. A Reconcile in parts does not expire such a member before it has
// read the invitation, and a dry run reports the same. If Clerk shows no expiry, the assumed one does not count either.
func TestAdopt_ThenReconcileAfterTheAssumedExpiry(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		limit    int
		noExpiry bool
	}{{0, false}, {1, false}, {0, true}, {1, true}} {
		t.Run(fmt.Sprintf("%+v", test), func(t *testing.T) {
			t.Parallel()
			testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
				b.Clerk.SetBehavior(clerkinvitetest.Behavior{NoExpiresAt: test.noExpiry})
				inv := b.Clerk.CreateForeign("open@example.com", nil)
				people := []clerkinvite.AdoptParams{
					adopted("acme", "open@example.com", clerkinvite.PendingID(inv.ID)), adopted("acme", "unknown@example.com", "pending_inv_unknown"),
					adopted("acme", "there@example.com", b.Clerk.AddVerifiedUser("there@example.com").ID),
				}
				people[0].ExpiresInDays, people[1].ExpiresInDays = 1, 1
				mustAdopt(t, b, people...)
				b.Clock.Advance(2 * day)
				for _, dry := range []bool{true, false} {
					expired := 0
					for cursor, more := "", true; more; {
						report, err := b.Reconcile(t.Context(), &clerkinvite.ReconcileOptions{DryRun: dry, Limit: test.limit, Cursor: cursor})
						require.NoError(t, err)
						expired += report.Expired
						cursor, more = report.Cursor, report.Cursor != ""
					}
					require.Equal(t, 1, expired)
				}
				require.Equal(t, clerkinvite.StatusExpired, b.Member(t, "unknown@example.com").Status)
				m := b.Member(t, "open@example.com")
				require.Equal(t, clerkinvite.StatusPending, m.Status)
				if test.noExpiry {
					require.Nil(t, m.ExpiresAt)
					b.MustReconcile(t)
					require.Equal(t, clerkinvite.StatusPending, b.Member(t, "open@example.com").Status)
				} else {
					require.WithinDuration(t, *inv.ExpiresAt, *m.ExpiresAt, time.Millisecond)
				}
			})
		})
	}
}

// A list that fails for one adopted member does not stop the others.
func TestReconcile_AdoptedMemberWhoseInvitationCannotBeRead(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	people := []clerkinvite.AdoptParams{
		adopted("acme", "bad@example.com", clerkinvite.PendingID(b.Clerk.CreateForeign("bad@example.com", nil).ID)),
		adopted("acme", "unknown@example.com", "pending_inv_unknown"), adopted("acme", "there@example.com", b.Clerk.AddVerifiedUser("there@example.com").ID),
		adopted("zeta", "last@example.com", "pending_inv_last"),
	}
	for i := range people {
		people[i].ExpiresInDays = 1
	}
	results, err := b.Adopt(t.Context(), people)
	require.NoError(t, err)
	require.Len(t, results, len(people))
	b.Clock.Advance(2 * day)
	b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallList, Email: "bad@example.com", Times: -1, Status: 400, Code: "strange"})
	_, err = b.Reconcile(t.Context(), &clerkinvite.ReconcileOptions{Limit: 3})
	var clerkErr *clerkinvite.ClerkInvitationError
	require.ErrorAs(t, err, &clerkErr)
	require.Equal(t, clerkinvite.StatusPending, b.Member(t, "bad@example.com").Status)
	require.Equal(t, clerkinvite.StatusExpired, b.Member(t, "unknown@example.com").Status)
}

// Two tenants have adopted the same invitation. One of these members turns out to be a second address, and is erased when its
// user's other member gets the address. The other tenant's link keeps working.
func TestPromise4_SecondAddressSharesAnAdoptedInvitation(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		user := b.Clerk.AddVerifiedUser("ada@example.com")
		b.MustInvite(t, "ada@example.com")
		inv := b.Clerk.CreateForeign("shared@example.com", nil)
		mustAdopt(t, b, adopted("acme", "shared@example.com", clerkinvite.PendingID(inv.ID)), adopted("globex", "shared@example.com", clerkinvite.PendingID(inv.ID)))
		b.Clerk.ChangeEmail(user.ID, "shared@example.com")
		b.Clock.Advance(time.Hour)
		var dup *clerkinvite.DuplicateEmailError
		_, err := b.Resend(t.Context(), testkit.Acme("shared@example.com"))
		require.ErrorAs(t, err, &dup)
		require.Equal(t, []string{"shared@example.com", user.ID}, []string{dup.Member.Email, dup.Member.ClerkUserID})
		require.Len(t, b.Clerk.OpenInvitations("shared@example.com"), 1)
	})
}

// An adopted member is like any other for the other verbs.
func TestAdopt_ThenOtherVerbs(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		for _, name := range []string{"duplicate", "resend", "revoke", "purge", "joins"} {
			mustAdopt(t, b, adopted("acme", name+"@example.com", clerkinvite.PendingID(b.Clerk.CreateForeign(name+"@example.com", nil).ID)))
		}
		mustAdopt(t, b, adopted("acme", "unknown@example.com", "pending_inv_unknown"))
		var dup *clerkinvite.DuplicateEmailError
		_, err := b.TryInvite(t, "duplicate@example.com")
		require.ErrorAs(t, err, &dup)
		require.Zero(t, b.Clerk.RequestCount())

		b.Clock.Advance(time.Hour)
		_, err = b.Resend(t.Context(), testkit.Acme("resend@example.com"))
		require.NoError(t, err)
		b.RequireInvited(t, "resend@example.com", 1)

		m, err := b.Revoke(t.Context(), testkit.Acme("revoke@example.com"))
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusRevoked, m.Status)
		require.Empty(t, b.Clerk.OpenInvitations("revoke@example.com"))
		require.NoError(t, b.Purge(t.Context(), testkit.Acme("purge@example.com")))
		require.Empty(t, b.Clerk.OpenInvitations("purge@example.com"))

		w, err := b.Clerk.Accept("joins@example.com")
		require.NoError(t, err)
		require.Len(t, b.Receive(t, w), 1)
		require.Empty(t, b.Member(t, "joins@example.com").Reason)

		// Clerk does not know the invitation, and shows that the key is right.
		m, err = b.Remove(t.Context(), testkit.Acme("unknown@example.com"))
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusRemoved, m.Status)
	})
}

// A list with repeated addresses and users has the same results as one call for each of its entries, except that a person
// who has a member already is a duplicate.
func TestAdopt_RepeatedEntries(t *testing.T) {
	t.Parallel()
	random := testkit.Random(t)
	for range 300 {
		one, all := testkit.NewMemory(t, testkit.Options{}), testkit.NewMemory(t, testkit.Options{})
		list := make([]clerkinvite.AdoptParams, 1+random.IntN(12))
		for i := range list {
			list[i] = adopted("acme", fmt.Sprintf("p%d@example.com", random.IntN(4)), fmt.Sprintf("user_%d", random.IntN(4)))
		}
		results, err := all.Adopt(t.Context(), list)
		require.NoError(t, err)
		again, err := all.Adopt(t.Context(), list)
		require.NoError(t, err)
		people := make(map[string]bool)
		for i := range list {
			require.Equal(t, results[i].Err == nil, again[i].Err == nil, "%d of %v", i, list)
			want, err := one.Adopt(t.Context(), list[i:i+1])
			require.NoError(t, err)
			if want[0].Err == nil && people[want[0].Member.ID] {
				want[0].Err = &clerkinvite.DuplicateEmailError{}
			}
			people[want[0].Member.ID] = people[want[0].Member.ID] || want[0].Err == nil
			require.Equal(t, fmt.Sprintf("%T", want[0].Err), fmt.Sprintf("%T", results[i].Err), "%d of %v", i, list)
			require.Equal(t, []string{want[0].Member.Email, want[0].Member.ClerkUserID}, []string{results[i].Member.Email, results[i].Member.ClerkUserID}, "%d of %v", i, list)
		}
	}
}

// Many rows take a statement for each 1,000. A call that a failure of the database ends has written whole statements, and is repeated.
func TestAdopt_ManyAfterAFailure(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	store := &failingInserts{Store: b.Store, failAt: 2}
	svc, err := clerkinvite.New(clerkinvite.Config{API: b.API, Store: store, Now: b.Clock.Now})
	require.NoError(t, err)
	var people []clerkinvite.AdoptParams
	for i, p := range testkit.People(2500, "p") {
		people = append(people, adopted(p.TenantID, p.Email, fmt.Sprintf("user_%d", i)))
	}
	people[700].Email = "not-an-address"
	people[2000].Email = people[1].Email
	results, err := svc.Adopt(t.Context(), people)
	require.ErrorIs(t, err, errInsert)
	require.Len(t, results, len(people))
	require.NoError(t, results[0].Err)
	require.ErrorAs(t, results[700].Err, new(*clerkinvite.InvalidParamsError))
	require.ErrorIs(t, results[999].Err, errInsert, "addresses are written in their order")
	require.ErrorIs(t, results[2000].Err, errInsert)
	again, err := svc.Adopt(t.Context(), people)
	require.NoError(t, err)
	require.Equal(t, []int{1000, 1000, 1000, 1000, 498, 1}, store.sizes, "the duplicate is last")
	for i, r := range again {
		switch i {
		case 700:
			require.ErrorAs(t, r.Err, new(*clerkinvite.InvalidParamsError))
		case 2000:
			require.ErrorAs(t, r.Err, new(*clerkinvite.DuplicateEmailError))
		default:
			require.NoError(t, r.Err)
			require.Equal(t, people[i].ClerkUserID, r.Member.ClerkUserID)
			require.EqualValues(t, 1, r.Member.Version)
		}
	}
	require.Equal(t, results[0].Member.ID, again[0].Member.ID)
}

var errInsert = errors.New("the database has failed")

// failingInserts fails one insert, before or after it takes effect.
type failingInserts struct {
	clerkinvite.Store
	failAt int
	sizes  []int
}

func (s *failingInserts) Insert(ctx context.Context, rows []*clerkinvite.Member) ([]clerkinvite.Result, error) {
	s.sizes = append(s.sizes, len(rows))
	results, err := s.Store.Insert(ctx, rows)
	if len(s.sizes) == s.failAt {
		return nil, errInsert
	}
	return results, err
}

// The rows commit or roll back with the host's rows. Members that exist do not abort the transaction.
func TestAdopt_InTx(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t).Pool(t)
	var hooked []clerkinvite.Change
	store := clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{OnChange: func(_ context.Context, _ pgx.Tx, changes []clerkinvite.Change) error {
		hooked = append(hooked, changes...)
		return nil
	}})
	require.NoError(t, store.Migrate(t.Context()))
	clerk := clerkinvitetest.NewClerk()
	seen := &recorder{}
	svc, err := clerkinvite.New(clerkinvite.Config{API: clerk, Store: store, Observer: seen})
	require.NoError(t, err)
	list := []clerkinvite.AdoptParams{adopted("acme", "ada@example.com", "user_1"), adopted("acme", "joan@example.com", "pending_inv_1"), adopted("acme", "mary@example.com", "user_1")}
	adopt := func(end func(pgx.Tx) error) []clerkinvite.Result {
		tx, err := pool.Begin(t.Context())
		require.NoError(t, err)
		defer func() { _ = tx.Rollback(t.Context()) }()
		results, err := svc.InTx(store.WithTx(tx)).Adopt(t.Context(), list)
		require.NoError(t, err)
		require.ErrorIs(t, results[2].Err, clerkinvite.ErrUserTaken)
		require.NoError(t, end(tx))
		return results
	}
	adopt(func(tx pgx.Tx) error { return tx.Rollback(t.Context()) })
	_, err = svc.Get(t.Context(), testkit.Ada)
	require.ErrorIs(t, err, clerkinvite.ErrNotFound)
	commit := func(tx pgx.Tx) error { return tx.Commit(t.Context()) }
	first, again := adopt(commit), adopt(commit)
	require.Equal(t, first[:2], again[:2])
	require.Len(t, hooked, 4, "two of the call that was rolled back, and two")
	for _, c := range hooked {
		require.Nil(t, c.Old)
		require.Equal(t, clerkinvite.ReasonAdopted, c.New.Reason)
	}
	require.Equal(t, []string{`Adopt: "" to "active"`, `Adopt: "" to "pending"`, "Adopt"}, seen.take()[:3])
}

// Concurrent calls with the same people return the same members. A concurrent Invite of one of these people either gets a
// duplicate error, or inserts the row first, and Adopt gets the duplicate error.
func TestPromise1_AdoptRaces(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		var people []clerkinvite.AdoptParams
		for i, p := range testkit.People(60, "p") {
			people = append(people, adopted("acme", p.Email, fmt.Sprintf("user_%d", i)))
		}
		const callers = 6
		all := make([][]clerkinvite.Result, callers)
		var invited sync.Map
		var wg sync.WaitGroup
		for c := range callers {
			wg.Go(func() {
				mine := slices.Clone(people)
				if c%2 == 1 {
					slices.Reverse(mine)
				}
				results, err := b.Adopt(t.Context(), mine)
				if err != nil {
					t.Errorf("Adopt: %v", err)
				}
				if c%2 == 1 {
					slices.Reverse(results)
				}
				all[c] = results
			})
		}
		wg.Go(func() {
			for i := range 10 {
				if _, err := b.TryInvite(t, people[i*6].Email); err == nil {
					invited.Store(people[i*6].Email, true)
				} else if dup := new(clerkinvite.DuplicateEmailError); !errors.As(err, &dup) {
					t.Errorf("Invite: %v", err)
				}
			}
		})
		wg.Wait()
		for i, p := range people {
			m := b.Member(t, p.Email)
			_, byInvite := invited.Load(p.Email)
			require.Equal(t, byInvite, m.ClerkUserID != p.ClerkUserID, "the one or the other")
			for c := range callers {
				require.Equal(t, m.ID, all[c][i].Member.ID)
				if byInvite {
					require.ErrorAs(t, all[c][i].Err, new(*clerkinvite.DuplicateEmailError))
				} else {
					require.NoError(t, all[c][i].Err)
				}
			}
		}
	})
}
