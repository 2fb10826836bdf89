package clerkinvite_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

func TestGet(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		_, err := b.Get(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "nobody@example.com"})
		require.ErrorIs(t, err, clerkinvite.ErrNotFound)
		status, message := clerkinvite.HTTPError(err)
		require.Equal(t, 404, status)
		require.Equal(t, "no such member", message)
		_, err = b.Get(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "nobody"})
		var invalid *clerkinvite.InvalidParamsError
		require.ErrorAs(t, err, &invalid)
		want := b.MustInvite(t, "ada@example.com")
		require.Equal(t, want.ID, b.Member(t, " ADA@example.com").ID)
	})
}

func TestList(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		var want []string
		for i := range 25 {
			p := testkit.Params("acme", fmt.Sprintf("p%02d@example.com", i))
			p.InvitedBy = fmt.Sprint("admin", i%2)
			_, err := b.Reserve(t.Context(), p)
			require.NoError(t, err)
			want = append(want, p.Email)
			_, err = b.Reserve(t.Context(), testkit.Params("globex", p.Email))
			require.NoError(t, err)
		}
		list := func(p clerkinvite.ListParams, between func(page int)) (got []string) {
			p.TenantID = "acme"
			for n := 0; ; n++ {
				page, err := b.List(t.Context(), p)
				require.NoError(t, err)
				require.LessOrEqual(t, len(page.Members), max(p.Limit, 1))
				for _, m := range page.Members {
					got = append(got, m.Email)
				}
				if p.Cursor = page.Next; p.Cursor == "" {
					return got
				}
				require.NotContains(t, p.Cursor, "@")
				if between != nil {
					between(n)
				}
			}
		}
		require.Equal(t, want, list(clerkinvite.ListParams{Limit: 7}, nil))
		require.Equal(t, want, list(clerkinvite.ListParams{Limit: 25}, nil))
		require.Equal(t, []string{"p03@example.com"}, list(clerkinvite.ListParams{Limit: 7, EmailPrefix: " P03"}, nil))
		require.Len(t, list(clerkinvite.ListParams{Limit: 4, InvitedBy: "admin1"}, nil), 12)
		require.Empty(t, list(clerkinvite.ListParams{Limit: 4, EmailPrefix: "p%"}, nil))

		// People come and go between the pages.
		got := list(clerkinvite.ListParams{Limit: 5}, func(page int) {
			require.NoError(t, b.Purge(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: want[page]}))
			_, err := b.Reserve(t.Context(), testkit.Params("acme", fmt.Sprintf("new%d@example.com", page)))
			require.NoError(t, err)
		})
		require.Equal(t, want, got[:25])
		require.Len(t, got, 25+5, "new members are at the end")

		_, err := b.Deliver(t.Context(), &clerkinvite.DeliverOptions{Limit: 10})
		require.NoError(t, err)
		all := b.All(t.Context(), clerkinvite.ListParams{TenantID: "acme", Limit: 3, Statuses: []clerkinvite.Status{clerkinvite.StatusPending, clerkinvite.StatusActive, clerkinvite.StatusPending}})
		pending := 0
		for range 2 { // can be ranged over twice
			n := 0
			for m, err := range all {
				require.NoError(t, err)
				require.Equal(t, clerkinvite.StatusPending, m.Status)
				n++
			}
			require.Positive(t, n)
			pending = n
		}
		for range all {
			break
		}
		rest := 0
		for m, err := range b.All(t.Context(), clerkinvite.ListParams{TenantID: "acme", Statuses: []clerkinvite.Status{clerkinvite.StatusReserved}}) {
			require.NoError(t, err)
			require.Equal(t, clerkinvite.StatusReserved, m.Status)
			rest++
		}
		require.Equal(t, 25, pending+rest)

		for field, p := range map[string]clerkinvite.ListParams{
			"TenantID":    {},
			"Limit":       {TenantID: "acme", Limit: 1001},
			"Cursor":      {TenantID: "acme", Cursor: "nonsense"},
			"Statuses":    {TenantID: "acme", Statuses: []clerkinvite.Status{"gone"}},
			"EmailPrefix": {TenantID: "acme", EmailPrefix: "\x00"},
			"InvitedBy":   {TenantID: "acme", InvitedBy: "\xff"},
		} {
			_, err := b.List(t.Context(), p)
			var invalid *clerkinvite.InvalidParamsError
			require.ErrorAs(t, err, &invalid, field)
			require.Equal(t, field, invalid.Field)
			for _, err := range b.All(t.Context(), p) {
				require.ErrorAs(t, err, &invalid)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for m, err := range b.All(ctx, clerkinvite.ListParams{TenantID: "acme"}) {
			require.Nil(t, m)
			require.ErrorIs(t, err, context.Canceled)
		}
	})
}

func TestUpdateAndHistory(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		p := testkit.Params("acme", "ada@example.com")
		p.Role, p.Data = "viewer", json.RawMessage(`{"seat":1}`)
		_, err := b.Invite(t.Context(), p)
		require.NoError(t, err)
		b.Clerk.ResetCounts()
		role, data, nothing := "editor", json.RawMessage(`{"seat":2}`), json.RawMessage(nil)
		m, err := b.Update(t.Context(), testkit.Ada, clerkinvite.MemberUpdate{Role: &role})
		require.NoError(t, err)
		require.Equal(t, "editor", m.Role)
		require.JSONEq(t, `{"seat":1}`, string(m.Data))
		m, err = b.Update(t.Context(), testkit.Ada, clerkinvite.MemberUpdate{Data: &data})
		require.NoError(t, err)
		require.Equal(t, "editor", m.Role)
		require.JSONEq(t, `{"seat":2}`, string(m.Data))
		m, err = b.Update(t.Context(), testkit.Ada, clerkinvite.MemberUpdate{Data: &nothing})
		require.NoError(t, err)
		require.Nil(t, m.Data)
		require.Zero(t, b.Clerk.RequestCount(), "Clerk knows nothing of it")

		long, bad := string(make([]byte, 300)), json.RawMessage("{")
		for field, u := range map[string]clerkinvite.MemberUpdate{"Role": {Role: &long}, "Data": {Data: &bad}} {
			_, err := b.Update(t.Context(), testkit.Ada, u)
			var invalid *clerkinvite.InvalidParamsError
			require.ErrorAs(t, err, &invalid)
			require.Equal(t, field, invalid.Field)
		}
		_, err = b.Update(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "nobody@example.com"}, clerkinvite.MemberUpdate{Role: &role})
		require.ErrorIs(t, err, clerkinvite.ErrNotFound)

		b.Clock.Advance(time.Hour)
		_, err = b.Resend(t.Context(), testkit.Ada)
		require.NoError(t, err)
		_, err = b.Revoke(t.Context(), testkit.Ada)
		require.NoError(t, err)
		moves, err := b.History(t.Context(), testkit.Ada)
		require.NoError(t, err)
		var got []string
		for _, m := range moves {
			got = append(got, fmt.Sprintf("%s>%s %d/%d %s", m.From, m.To, m.Sent, m.Send, m.Role))
		}
		require.Equal(t, []string{
			">reserved 0/1 viewer", "reserved>pending 1/1 viewer", "pending>pending 1/1 editor",
			"pending>pending 1/2 editor", "pending>pending 2/2 editor", "pending>revoked 2/2 editor",
		}, got)
		_, err = b.History(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "nobody@example.com"})
		require.ErrorIs(t, err, clerkinvite.ErrNotFound)
	})
}

// A role is changed while the invitation is created: both take effect.
func TestUpdateDuringDelivery(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		role := "editor"
		b.Clerk.OnCall(func(ctx context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
			if call == clerkinvitetest.CallCreate && when == clerkinvitetest.After {
				_, err := b.Update(ctx, testkit.Ada, clerkinvite.MemberUpdate{Role: &role})
				if err != nil {
					t.Error(err)
				}
			}
		})
		m := b.MustInvite(t, "ada@example.com")
		require.Equal(t, "editor", m.Role)
		b.RequireInvited(t, "ada@example.com", 1)
	})
}

// The invitation was made before the host used the library, so it has no marker. The row names it, so a resend revokes
// it, but not another application's invitation.
func TestPromise4_ResendOfAnImportedMember(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		older, another := b.Clerk.CreateForeign(email, nil), b.Clerk.CreateForeign(email, map[string]any{"tenant": "theirs"})
		at := b.Clock.Now()
		theirs := *testkit.InsertRows(t, b.Store, &clerkinvite.Member{
			ID: "01a21382-a370-7acd-84c9-72ad5abb3517", TenantID: "acme", Email: email, Status: clerkinvite.StatusPending,
			InvitationID: older.ID, ClerkUserID: clerkinvite.PendingID(older.ID), Send: 1, Sent: 1, Version: 1,
			ReservedAt: at, InvitedAt: &at, ExpiresAt: older.ExpiresAt, SettledAt: &at, UpdatedAt: at,
		})[0]
		theirs.ID, theirs.TenantID = "01a21382-a370-7acd-84c9-72ad5abb3518", "globex"
		testkit.InsertRows(t, b.Store, &theirs)
		open := func(want ...string) {
			t.Helper()
			var open []string
			for _, inv := range b.Clerk.OpenInvitations(email) {
				open = append(open, inv.ID)
			}
			require.ElementsMatch(t, want, open)
		}
		b.Clock.Advance(time.Hour)
		m, err := b.Resend(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: email})
		require.NoError(t, err)
		open(older.ID, another.ID, m.InvitationID) // globex's row refers to it, too
		n, err := b.Resend(t.Context(), clerkinvite.Ref{TenantID: "globex", Email: email})
		require.NoError(t, err)
		open(another.ID, m.InvitationID, n.InvitationID)
	})
}

func TestResend(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		first, err := b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com", ExpiresInDays: 7, SkipEmail: true, PublicMetadata: map[string]any{"plan": "pro"}})
		require.NoError(t, err)
		_, err = b.Resend(t.Context(), testkit.Ada)
		var early *clerkinvite.CooldownError
		require.ErrorAs(t, err, &early)
		require.Equal(t, b.Clock.Now().Add(time.Minute), early.Until)
		require.Equal(t, 1, b.Member(t, "ada@example.com").Send)

		b.Clock.Advance(time.Minute)
		m, err := b.Resend(t.Context(), testkit.Ada)
		require.NoError(t, err)
		require.Equal(t, 2, m.Send)
		require.Equal(t, 2, m.Sent)
		require.NotEqual(t, first.URL, m.URL)
		require.NotEmpty(t, m.URL)
		require.Equal(t, b.Clock.Now().AddDate(0, 0, 7), m.ExpiresAt.UTC(), "with the first one's parameters")
		all := b.Clerk.Invitations("ada@example.com")
		require.Len(t, all, 2)
		require.Equal(t, clerkinvite.InvitationRevoked, all[0].Status)
		require.JSONEq(t, `{"plan":"pro","clerkinvite":{"id":"`+m.ID+`","send":2}}`, string(all[1].PublicMetadata))

		b.Clock.Advance(time.Hour)
		m, err = b.Resend(t.Context(), testkit.Ada)
		require.NoError(t, err)
		require.Equal(t, 3, m.Send)
		require.Len(t, b.Clerk.OpenInvitations("ada@example.com"), 1)

		_, err = b.Clerk.Accept("ada@example.com")
		require.NoError(t, err)
		_, err = b.Resend(t.Context(), testkit.Ada)
		require.ErrorAs(t, err, &early)
		b.Clock.Advance(time.Hour)
		m, err = b.Resend(t.Context(), testkit.Ada)
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusActive, m.Status, "already accepted, so no email")
		require.Zero(t, b.Clerk.Emails())
	})
	b := testkit.NewMemory(t, testkit.Options{Configure: func(c *clerkinvite.Config) { c.ResendCooldown = -1 }})
	m := b.MustInvite(t, "ada@example.com")
	for send := range 3 {
		m, err := b.Resend(t.Context(), m.Ref())
		require.NoError(t, err)
		require.Equal(t, send+2, m.Send)
	}
}

// Whatever fails during a resend, the person always has a working invitation, in the end exactly one, and gets no email
// twice.
func TestResend_NeverLosesTheInvitation(t *testing.T) {
	t.Parallel()
	testkit.OnBoth(t, func(t *testing.T, fresh func(*testing.T, testkit.Options) *testkit.Rig) {
		for _, call := range []clerkinvitetest.Call{clerkinvitetest.CallFindUsers, clerkinvitetest.CallList, clerkinvitetest.CallCreate, clerkinvitetest.CallRevoke} {
			for _, kind := range testkit.Sample(t, append(clerkinvitetest.Kinds(), "refused", "limited", "quota")) {
				for _, when := range []clerkinvitetest.When{clerkinvitetest.Before, clerkinvitetest.After} {
					if when == clerkinvitetest.After && slices.Contains([]clerkinvitetest.Kind{"refused", "limited", "quota"}, kind) {
						continue // a rejected request has no effect
					}
					t.Run(fmt.Sprintf("%s %s %s", call, kind, when), func(t *testing.T) {
						t.Parallel()
						testkit.InBubble(t, func(t *testing.T) {
							b := fresh(t, testkit.Options{Hangs: true})
							was := memberIn(t, b, clerkinvite.StatusPending)
							fault := clerkinvitetest.Fault{Call: call, Kind: kind, When: when, Times: 2}
							switch kind {
							case "refused":
								fault.Kind, fault.Status, fault.Code = "", 403, "not_allowed_access"
							case "limited":
								fault.Kind, fault.Status, fault.Code, fault.RetryAfter = "", 429, "too_many_requests", time.Minute
							case "quota":
								fault.Kind, fault.Status, fault.Code = "", 403, "user_quota_exceeded"
							}
							b.Clerk.Fail(fault)
							b.Clerk.OnCall(func(context.Context, clerkinvitetest.Call, clerkinvitetest.When) {
								if len(b.Clerk.OpenInvitations("ada@example.com")) == 0 {
									t.Error("no invitation works")
								}
							})
							_, err := b.Resend(t.Context(), testkit.Ada)
							for range 4 {
								b.Clock.Advance(2 * time.Hour)
								if _, err := b.Deliver(t.Context(), nil); err != nil {
									var clerkErr *clerkinvite.ClerkInvitationError
									require.ErrorAs(t, err, &clerkErr)
								}
							}
							b.Clerk.ClearFaults()
							_, reconcileErr := b.Reconcile(t.Context(), nil)
							require.NoError(t, reconcileErr)
							m := b.Member(t, "ada@example.com")
							require.Equal(t, m.Send, m.Sent, "%v after %v", m, err)
							emails := 2
							if m.InvitationID == was.InvitationID {
								emails = 1
								var refused *clerkinvite.ClerkInvitationError
								require.ErrorAs(t, err, &refused)
								require.Equal(t, clerkinvite.Refused, refused.Outcome)
								require.NotEmpty(t, m.Reason)
							}
							b.RequireInvited(t, "ada@example.com", emails)
						})
					})
				}
			}
		}
	})
}

// Resend of an expired invitation says the same before and after Reconcile has seen it.
func TestResend_Expired(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		b.MustInvite(t, "ada@example.com")
		b.Clock.Advance(31 * 24 * time.Hour)
		for range 2 {
			_, err := b.Resend(t.Context(), testkit.Ada)
			testkit.RequireTransition(t, err, clerkinvite.StatusExpired, clerkinvite.StatusPending)
			_, err = b.Reconcile(t.Context(), nil)
			require.NoError(t, err)
		}
		require.Equal(t, clerkinvite.StatusExpired, b.Member(t, "ada@example.com").Status)
	})
}

// The person has become a member under another address since.
func TestResend_SecondAddress(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		b.MustInvite(t, "ada@example.com")
		u := b.Clerk.AddVerifiedUser("ada@work.example")
		b.MustInvite(t, "ada@work.example")
		b.Clerk.AddEmail(u.ID, clerkinvitetest.EmailSpec{Address: "ada@example.com", Verified: true})
		b.Clock.Advance(time.Hour)
		_, err := b.Resend(t.Context(), testkit.Ada)
		var dup *clerkinvite.DuplicateEmailError
		require.ErrorAs(t, err, &dup)
		require.Equal(t, "ada@work.example", dup.Member.Email)
		m := b.Member(t, "ada@example.com")
		require.Equal(t, []any{clerkinvite.StatusRemoved, clerkinvite.ReasonSecondAddress}, []any{m.Status, m.Reason})
		require.Empty(t, b.Clerk.OpenInvitations("ada@example.com"))
	})
}

// Clerk's list lags: it shows neither the older invitation nor the new one, or fails. The row refers to the older one.
func TestPromise4_ResendWhileClerksListLags(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	noCooldown := testkit.Options{Configure: func(c *clerkinvite.Config) { c.ResendCooldown = -1 }}
	for name, before := range map[string]func(t *testing.T, b *testkit.Rig){
		"no other invitation":   func(*testing.T, *testkit.Rig) {},
		"another application's": func(_ *testing.T, b *testkit.Rig) { b.Clerk.CreateForeign(email, map[string]any{"app": "another"}) },
		"the last list fails":   func(_ *testing.T, b *testkit.Rig) { failLastList(b) },
		"ignore_existing revokes": func(_ *testing.T, b *testkit.Rig) {
			b.Clerk.SetBehavior(clerkinvitetest.Behavior{Lag: true, IgnoreExistingRevokes: true})
		},
		"the older one is accepted": nil,
	} {
		t.Run(name, func(t *testing.T) {
			testkit.Each(t, noCooldown, func(t *testing.T, b *testkit.Rig) {
				b.Clerk.SetBehavior(clerkinvitetest.Behavior{Lag: true})
				older := b.MustInvite(t, email)
				if before == nil {
					b.Clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
						if c == clerkinvitetest.CallCreate && w == clerkinvitetest.After && len(b.Clerk.OpenInvitations(email)) == 2 {
							_, err := b.Clerk.AcceptInvitation(older.InvitationID)
							require.NoError(t, err)
						}
					})
				} else {
					before(t, b)
				}
				foreign := b.Clerk.OpenInvitations(email)[1:]
				m, err := b.Resend(t.Context(), testkit.Ada)
				require.NoError(t, err)
				require.Equal(t, clerkinvite.StatusPending, m.Status)
				require.Equal(t, 2, b.Clerk.EmailsTo(email))
				var open []string
				for _, inv := range b.Clerk.OpenInvitations(email) {
					open = append(open, inv.ID)
				}
				want := []string{m.InvitationID}
				for _, inv := range foreign {
					want = append(want, inv.ID)
				}
				require.ElementsMatch(t, want, open)
			})
		})
	}
}

// failLastList makes the list after the create fail, which looks for left-over invitations.
func failLastList(b *testkit.Rig) {
	b.Clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
		if c == clerkinvitetest.CallCreate && w == clerkinvitetest.After && len(b.Clerk.OpenInvitations("ada@example.com")) == 2 {
			b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallList, Status: 500, Code: "internal_clerk_error", Times: 9})
		}
	})
}

// Two tenants' rows refer to the same invitation, and Clerk's list shows it late.
func TestPromise4_ResendOfASharedInvitationWhileClerksListLags(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		shared := b.Clerk.CreateForeign(email, nil)
		at := b.Clock.Now()
		for i, tenant := range []string{"acme", "globex"} {
			results, err := b.Store.Insert(t.Context(), []*clerkinvite.Member{{
				ID: fmt.Sprint("01a21382-a370-7acd-84c9-72ad5abb351", i), TenantID: tenant, Email: email, Status: clerkinvite.StatusPending,
				InvitationID: shared.ID, ClerkUserID: clerkinvite.PendingID(shared.ID), Send: 1, Sent: 1, Version: 1,
				ReservedAt: at, InvitedAt: &at, ExpiresAt: shared.ExpiresAt, SettledAt: &at, UpdatedAt: at,
			}})
			require.NoError(t, err)
			require.NoError(t, results[0].Err)
		}
		b.Clock.Advance(time.Hour)
		api := hidingAPI{b.API, shared.ID}
		svc, err := clerkinvite.New(clerkinvite.Config{API: api, Store: b.Store, Now: b.Clock.Now})
		require.NoError(t, err)
		m, err := svc.Resend(t.Context(), testkit.Ada)
		require.NoError(t, err)
		require.Len(t, b.Clerk.OpenInvitations(email), 2, "globex waits for it")
		n, err := svc.Resend(t.Context(), clerkinvite.Ref{TenantID: "globex", Email: email})
		require.NoError(t, err)
		open := b.Clerk.OpenInvitations(email)
		require.Len(t, open, 2)
		require.Equal(t, []string{m.InvitationID, n.InvitationID}, []string{open[0].ID, open[1].ID})
	})
}

// hidingAPI does not list one invitation.
type hidingAPI struct {
	clerkinvite.ClerkAPI

	hidden string
}

func (a hidingAPI) ListInvitations(ctx context.Context, q clerkinvite.InvitationQuery) ([]clerkinvite.Invitation, error) {
	list, err := a.ClerkAPI.ListInvitations(ctx, q)
	return slices.DeleteFunc(list, func(inv clerkinvite.Invitation) bool { return inv.ID == a.hidden }), err
}
