package clerkinvite_test

import (
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

// Whatever Clerk's lists show, Link returns the link of the member's own invitation, or says why not.
func TestLink(t *testing.T) {
	t.Parallel()
	testkit.OnBoth(t, func(t *testing.T, fresh func(*testing.T, testkit.Options) *testkit.Rig) {
		for _, behavior := range clerkinvitetest.Behaviors() {
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
		require.EqualError(t, err, "no invitation link is available: Clerk's list does not show it")
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
			require.EqualError(t, err, "no invitation link is available: "+why)
			status, text := clerkinvite.HTTPError(err)
			require.Equal(t, 409, status)
			require.Equal(t, "no invitation link is available", text)
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

		_, err = b.Link(ctx, clerkinvite.Ref{TenantID: "acme", Email: "unknown@example.com"})
		require.ErrorIs(t, err, clerkinvite.ErrNotFound)
		m = b.MustInvite(t, "ada@example.com")
		b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallList, Status: 503, Times: 9})
		_, err = b.Link(ctx, m.Ref())
		var failed *clerkinvite.ClerkInvitationError
		require.ErrorAs(t, err, &failed)
		require.Equal(t, clerkinvite.OutcomeFault, failed.Outcome)
	})
}

// Clerk may store the domain of an address in either form.
func TestLink_OfAnInternationalDomain(t *testing.T) {
	t.Parallel()
	for _, organization := range []string{"", "org_acme"} {
		testkit.Each(t, testkit.Options{Organization: organization}, func(t *testing.T, b *testkit.Rig) {
			b.Clerk.SetBehavior(clerkinvitetest.Behavior{UnicodeDomains: true})
			m := b.MustInvite(t, "ada@bücher.example")
			link, err := b.Link(t.Context(), m.Ref())
			require.NoError(t, err)
			require.Equal(t, m.URL.Reveal(), link.Reveal())
		})
	}
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

// A resend for a person who has signed up in the meantime sends nothing, and revokes the older invitation.
func TestResend_RevokesTheOlderInvitationOfAUser(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{Configure: func(c *clerkinvite.Config) { c.ResendCooldown = -1 }})
	m := b.MustInvite(t, "ada@example.com")
	b.Clerk.AddVerifiedUser("ada@example.com")
	m, err := b.Resend(t.Context(), m.Ref())
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusActive, m.Status)
	require.Empty(t, b.Clerk.OpenInvitations("ada@example.com"))
}

// The response to a resend's create is lost, and an operator revokes the new invitation. The older one is revoked with the member.
func TestPromise4_ResendRevokedAtClerk(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		b.MustInvite(t, "ada@example.com")
		b.Clock.Advance(time.Hour)
		b.FailCreates(clerkinvitetest.Fault{When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
		_, err := b.Resend(t.Context(), testkit.Ada)
		require.Error(t, err)
		open := b.Clerk.OpenInvitations("ada@example.com")
		require.Len(t, open, 2)
		b.Clerk.RevokeInDashboard(open[1].ID)
		b.Clock.Advance(time.Hour)
		_, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		m := b.Member(t, "ada@example.com")
		require.Equal(t, []any{clerkinvite.StatusRevoked, clerkinvite.ReasonRevokedAtClerk}, []any{m.Status, m.Reason})
		require.Empty(t, b.Clerk.OpenInvitations("ada@example.com"))
	})
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
								require.Equal(t, clerkinvite.OutcomeRefused, refused.Outcome)
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

// Another application's invitation for the address is older than the resend, so it cannot be the resend's.
func TestResend_DoesNotAdoptAnOlderInvitation(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		b.MustInvite(t, "ada@example.com")
		b.Clock.Advance(24 * time.Hour)
		foreign, err := b.Clerk.CreateInvitation(t.Context(), clerkinvite.InvitationRequest{Email: "ada@example.com", IgnoreExisting: true})
		require.NoError(t, err)
		b.Clock.Advance(5 * 24 * time.Hour)
		b.FailCreates(clerkinvitetest.Fault{Kind: clerkinvitetest.Reset}) // the request never reached Clerk
		_, err = b.Resend(t.Context(), testkit.Ada)
		require.Error(t, err)
		b.Clock.Advance(time.Hour)
		report, err := b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, 1, report.Invited)
		require.NotEqual(t, foreign.ID, b.Member(t, "ada@example.com").InvitationID)
		require.Len(t, b.Clerk.OpenInvitations("ada@example.com"), 2)
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
