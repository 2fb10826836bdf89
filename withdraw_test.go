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
)

var ada = clerkinvite.Ref{TenantID: "acme", Email: "Ada@Example.com"}

// in brings ada into a state.
func (b *bundle) in(t *testing.T, status clerkinvite.Status) *clerkinvite.Member {
	t.Helper()
	p := params("acme", "ada@example.com")
	var err error
	switch status {
	case clerkinvite.StatusReserved:
		_, err = b.Reserve(t.Context(), p)
	case clerkinvite.StatusPending:
		_, err = b.Invite(t.Context(), p)
	case clerkinvite.StatusActive:
		b.clerk.AddVerifiedUser("ada@example.com")
		_, err = b.Invite(t.Context(), p)
	case clerkinvite.StatusFailed:
		b.failCreates(clerkinvitetest.Fault{Status: 403, Code: "not_allowed_access"})
		_, err = b.Invite(t.Context(), p)
		require.Error(t, err)
		b.clerk.ClearFaults()
		err = nil
	case clerkinvite.StatusRevoked:
		b.in(t, clerkinvite.StatusPending)
		_, err = b.Revoke(t.Context(), ada)
	case clerkinvite.StatusExpired:
		b.in(t, clerkinvite.StatusPending)
		b.clock.Advance(31 * 24 * time.Hour)
		_, err = b.Reconcile(t.Context(), nil)
	case clerkinvite.StatusRemoved:
		b.in(t, clerkinvite.StatusPending)
		_, err = b.Remove(t.Context(), ada)
	}
	require.NoError(t, err)
	m := b.get(t, "ada@example.com")
	require.Equal(t, status, m.Status)
	b.clock.Advance(time.Hour)
	return m
}

// Each verb in each state: the table of design, once more by hand.
func TestVerbsInEveryState(t *testing.T) {
	t.Parallel()
	type verb func(b *bundle, ctx context.Context, ref clerkinvite.Ref) (*clerkinvite.Member, error)
	revoke := func(b *bundle, ctx context.Context, ref clerkinvite.Ref) (*clerkinvite.Member, error) {
		return b.Revoke(ctx, ref)
	}
	remove := func(b *bundle, ctx context.Context, ref clerkinvite.Ref) (*clerkinvite.Member, error) {
		return b.Remove(ctx, ref)
	}
	resend := func(b *bundle, ctx context.Context, ref clerkinvite.Ref) (*clerkinvite.Member, error) {
		return b.Resend(ctx, ref)
	}
	verbs := map[string]struct {
		do    verb
		to    clerkinvite.Status
		legal []clerkinvite.Status
	}{
		"revoke": {revoke, clerkinvite.StatusRevoked, []clerkinvite.Status{clerkinvite.StatusReserved, clerkinvite.StatusPending, clerkinvite.StatusRevoked}},
		"remove": {remove, clerkinvite.StatusRemoved, []clerkinvite.Status{clerkinvite.StatusReserved, clerkinvite.StatusPending, clerkinvite.StatusActive, clerkinvite.StatusRemoved}},
		"resend": {resend, clerkinvite.StatusPending, []clerkinvite.Status{clerkinvite.StatusPending}},
	}
	bothWays(t, func(t *testing.T, fresh func(*testing.T, options) *bundle) {
		for name, v := range verbs {
			for _, from := range clerkinvite.Statuses() {
				t.Run(fmt.Sprintf("%s %s", name, from), func(t *testing.T) {
					t.Parallel()
					b := fresh(t, options{})
					was := b.in(t, from)
					m, err := v.do(b, t.Context(), ada)
					if !slices.Contains(v.legal, from) {
						var refused *clerkinvite.TransitionError
						require.ErrorAs(t, err, &refused)
						require.Equal(t, clerkinvite.TransitionError{From: from, To: v.to}, *refused)
						require.Equal(t, was, b.get(t, "ada@example.com"), "untouched")
						return
					}
					require.NoError(t, err)
					require.Equal(t, v.to, m.Status)
					open := 0
					if v.to == clerkinvite.StatusPending {
						open = 1
					}
					require.Len(t, b.clerk.OpenInvitations("ada@example.com"), open)
					if name == "resend" {
						require.Equal(t, 2, m.Send)
						require.NotEqual(t, was.InvitationID, m.InvitationID)
						require.Equal(t, 2, b.clerk.Emails())
						return
					}
					again, err := v.do(b, t.Context(), ada)
					require.NoError(t, err, "for repetition")
					require.Equal(t, m, again)
					b.clerk.SignUp("ada@example.com", true)
					users, err := b.clerk.FindUsers(t.Context(), clerkinvite.UserQuery{Emails: []string{"ada@example.com"}})
					require.NoError(t, err)
					changed, err := b.ResolveUser(t.Context(), users[0].ID)
					require.NoError(t, err)
					require.Empty(t, changed, "who was taken out does not come back by signing up")
				})
			}
			t.Run(name+" nobody", func(t *testing.T) {
				t.Parallel()
				b := fresh(t, options{})
				_, err := v.do(b, t.Context(), ada)
				require.ErrorIs(t, err, clerkinvite.ErrNotFound)
				_, err = v.do(b, t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "nonsense"})
				var invalid *clerkinvite.InvalidParamsError
				require.ErrorAs(t, err, &invalid)
			})
		}
	})
}

// The person accepts, and then the admin revokes or removes: the webhook is still on its way.
func TestWithdrawAfterAcceptance(t *testing.T) {
	t.Parallel()
	each(t, options{}, func(t *testing.T, b *bundle) {
		b.in(t, clerkinvite.StatusPending)
		w, err := b.clerk.Accept("ada@example.com")
		require.NoError(t, err)
		_, err = b.Revoke(t.Context(), ada)
		var refused *clerkinvite.TransitionError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, clerkinvite.TransitionError{From: clerkinvite.StatusActive, To: clerkinvite.StatusRevoked}, *refused)
		require.Equal(t, clerkinvite.StatusActive, b.get(t, "ada@example.com").Status, "resolved")
		require.Empty(t, b.event(t, w))

		b.mustInvite(t, "grace@example.com")
		w, err = b.clerk.Accept("grace@example.com")
		require.NoError(t, err)
		m, err := b.Remove(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "grace@example.com"})
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusRemoved, m.Status)
		require.Empty(t, b.event(t, w))
	})
}

// Somebody whose invitation may be out, because the answer was lost.
func TestWithdrawWhatMayBeOut(t *testing.T) {
	t.Parallel()
	each(t, options{timeout: 1200 * time.Millisecond}, func(t *testing.T, b *bundle) {
		b.failCreates(clerkinvitetest.Fault{When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
		_, err := b.invite(t, "ada@example.com")
		require.Error(t, err)
		require.Len(t, b.clerk.OpenInvitations("ada@example.com"), 1)
		m, err := b.Revoke(t.Context(), ada)
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusRevoked, m.Status)
		require.Empty(t, b.clerk.OpenInvitations("ada@example.com"))
	})
}

// Clerk fails while something is withdrawn: the member stays as it is, and the same again works.
func TestWithdrawFails(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, fresh func(*testing.T, options) *bundle) {
		for _, kind := range sample(t, clerkinvitetest.Kinds()) {
			for _, when := range []clerkinvitetest.When{clerkinvitetest.Before, clerkinvitetest.After} {
				t.Run(fmt.Sprintf("%s %s", kind, when), func(t *testing.T) {
					t.Parallel()
					b := fresh(t, options{timeout: 1200 * time.Millisecond})
					was := b.in(t, clerkinvite.StatusPending)
					b.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallRevoke, Kind: kind, When: when})
					_, err := b.Revoke(t.Context(), ada)
					var clerkErr *clerkinvite.ClerkInvitationError
					require.ErrorAs(t, err, &clerkErr)
					require.Equal(t, "revoke invitation", clerkErr.Op)
					require.Equal(t, was, b.get(t, "ada@example.com"))
					m, err := b.Revoke(t.Context(), ada)
					require.NoError(t, err)
					require.Equal(t, clerkinvite.StatusRevoked, m.Status)
					require.Empty(t, b.clerk.OpenInvitations("ada@example.com"))
				})
			}
		}
	})
}

// What Clerk says to the revoking of an invitation that has run out is unknown.
func TestRevokeWhatHasRunOut(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, fresh func(*testing.T, options) *bundle) {
		for _, behavior := range sample(t, behaviors()) {
			t.Run(behavior.Name, func(t *testing.T) {
				t.Parallel()
				b := fresh(t, options{})
				b.clerk.SetBehavior(behavior.Behavior)
				b.mustInvite(t, "ada@example.com")
				b.clerk.Settle()
				b.clock.Advance(40 * 24 * time.Hour)
				m, err := b.Revoke(t.Context(), ada)
				require.NoError(t, err)
				require.Equal(t, clerkinvite.StatusRevoked, m.Status)
			})
		}
	})
}

func TestPurge(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, fresh func(*testing.T, options) *bundle) {
		for _, from := range clerkinvite.Statuses() {
			t.Run(string(from), func(t *testing.T) {
				t.Parallel()
				b := fresh(t, options{})
				was := b.in(t, from)
				// Left over by a crash.
				b.clerk.CreateForeign("ada@example.com", map[string]any{"clerkinvite": map[string]any{"id": was.ID, "send": 1}})
				foreign := b.clerk.CreateForeign("ada@example.com", nil)
				require.NoError(t, b.Purge(t.Context(), ada))
				_, err := b.Get(t.Context(), ada)
				require.ErrorIs(t, err, clerkinvite.ErrNotFound)
				history, err := b.store.History(t.Context(), "acme", was.ID)
				require.NoError(t, err)
				require.Empty(t, history)
				open := b.clerk.OpenInvitations("ada@example.com")
				require.Len(t, open, 1)
				require.Equal(t, foreign.ID, open[0].ID, "another application's stays")
				require.ErrorIs(t, b.Purge(t.Context(), ada), clerkinvite.ErrNotFound)
				m, err := b.invite(t, "ada@example.com")
				require.NoError(t, err)
				require.NotEqual(t, was.ID, m.ID)
				require.Equal(t, 1, m.Send)
			})
		}
		t.Run("held", func(t *testing.T) {
			t.Parallel()
			b := fresh(t, options{timeout: 1200 * time.Millisecond})
			b.failCreates(clerkinvitetest.Fault{When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
			_, err := b.invite(t, "ada@example.com")
			require.Error(t, err)
			require.ErrorIs(t, b.Purge(t.Context(), ada), clerkinvite.ErrConflict)
			b.clock.Advance(2 * time.Minute)
			require.NoError(t, b.Purge(t.Context(), ada))
			require.Empty(t, b.clerk.OpenInvitations("ada@example.com"))
		})
		t.Run("Clerk fails", func(t *testing.T) {
			t.Parallel()
			b := fresh(t, options{timeout: 1200 * time.Millisecond})
			was := b.in(t, clerkinvite.StatusPending)
			for _, call := range []clerkinvitetest.Call{clerkinvitetest.CallList, clerkinvitetest.CallRevoke} {
				b.clerk.Fail(clerkinvitetest.Fault{Call: call, Status: 401, Code: "clerk_key_invalid"})
				var clerkErr *clerkinvite.ClerkInvitationError
				require.ErrorAs(t, b.Purge(t.Context(), ada), &clerkErr)
				now := b.get(t, "ada@example.com")
				now.Version, now.UpdatedAt = was.Version, was.UpdatedAt
				require.Equal(t, was, now, "nothing is erased, and nothing held")
			}
		})
	})
}

// A resend has settled, and what revokes the older invitation has not been reached.
func TestWithdrawAfterAnUnsweptResend(t *testing.T) {
	t.Parallel()
	for name, withdraw := range map[string]func(*bundle) (*clerkinvite.Member, error){
		"Revoke": func(b *bundle) (*clerkinvite.Member, error) { return b.Revoke(t.Context(), ada) },
		"Remove": func(b *bundle) (*clerkinvite.Member, error) { return b.Remove(t.Context(), ada) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			each(t, options{}, func(t *testing.T, b *bundle) {
				b.mustInvite(t, "ada@example.com")
				b.clock.Advance(time.Minute)
				b.clerk.OnCall(func(_ context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
					if call == clerkinvitetest.CallCreate && when == clerkinvitetest.After {
						b.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallList, Kind: clerkinvitetest.JSON500, Times: -1})
					}
				})
				_, err := b.Resend(t.Context(), ada)
				require.NoError(t, err)
				b.clerk.ClearFaults()
				require.Len(t, b.clerk.OpenInvitations("ada@example.com"), 2, "what the test is about")

				_, err = withdraw(b)
				require.NoError(t, err)
				require.Empty(t, b.clerk.OpenInvitations("ada@example.com"), "no link works")
			})
		})
	}
}

// Clerk's list cannot be had: the link that the row names is revoked all the same.
func TestWithdrawWithoutAList(t *testing.T) {
	t.Parallel()
	each(t, options{}, func(t *testing.T, b *bundle) {
		b.mustInvite(t, "ada@example.com")
		b.clock.Advance(time.Minute)
		_, err := b.Resend(t.Context(), ada)
		require.NoError(t, err)
		b.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallList, Kind: clerkinvitetest.JSON500, Times: -1})
		_, err = b.Revoke(t.Context(), ada)
		var trouble *clerkinvite.ClerkInvitationError
		require.ErrorAs(t, err, &trouble)
		require.Empty(t, b.clerk.OpenInvitations("ada@example.com"))
		b.clerk.ClearFaults()
		m, err := b.Revoke(t.Context(), ada)
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusRevoked, m.Status)
	})
}

// An invitation of years ago was accepted, its user is gone, and the person is invited again.
func TestRevokeAfterAnEarlierLife(t *testing.T) {
	t.Parallel()
	each(t, options{}, func(t *testing.T, b *bundle) {
		b.mustInvite(t, "ada@example.com")
		w, err := b.clerk.Accept("ada@example.com")
		require.NoError(t, err)
		b.event(t, w)
		b.event(t, b.clerk.DeleteUser(b.get(t, "ada@example.com").ClerkUserID))
		require.Equal(t, clerkinvite.StatusRemoved, b.get(t, "ada@example.com").Status)
		b.clock.Advance(time.Hour)
		b.failCreates(clerkinvitetest.Fault{Kind: clerkinvitetest.HTML502})
		_, err = b.invite(t, "ada@example.com")
		require.Error(t, err)
		b.clerk.ClearFaults()
		m, err := b.Revoke(t.Context(), ada)
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusRevoked, m.Status)
		b.clock.Advance(2 * time.Hour)
		_, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, 1, b.clerk.Emails(), "no email to somebody who was revoked")
	})
}

// The older of two open links has just been accepted: that person has joined.
func TestRevokeAfterTheOlderLinkWasAccepted(t *testing.T) {
	t.Parallel()
	each(t, options{}, func(t *testing.T, b *bundle) {
		older := b.mustInvite(t, "ada@example.com").InvitationID
		b.clock.Advance(time.Minute)
		b.clerk.OnCall(func(_ context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
			if call == clerkinvitetest.CallCreate && when == clerkinvitetest.After {
				b.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallList, Kind: clerkinvitetest.JSON500, Times: -1})
			}
		})
		_, err := b.Resend(t.Context(), ada)
		require.NoError(t, err)
		b.clerk.ClearFaults()
		_, err = b.clerk.AcceptInvitation(older)
		require.NoError(t, err)
		_, err = b.Revoke(t.Context(), ada)
		var transition *clerkinvite.TransitionError
		require.ErrorAs(t, err, &transition)
		require.Equal(t, clerkinvite.StatusActive, b.get(t, "ada@example.com").Status)
		require.Empty(t, b.clerk.OpenInvitations("ada@example.com"))
	})
}

// Run out by our clock, open by Clerk's: invited again, and revoked before anything was sent.
func TestRevokeOfAReservedMemberWithAnOlderLink(t *testing.T) {
	t.Parallel()
	each(t, options{}, func(t *testing.T, b *bundle) {
		b.mustInvite(t, "ada@example.com")
		b.clerk.SetNow(func() time.Time { return b.clock.Now().Add(-5 * time.Minute) })
		b.clock.Advance(30*24*time.Hour + time.Minute)
		_, err := b.Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"})
		require.NoError(t, err)
		require.Len(t, b.clerk.OpenInvitations("ada@example.com"), 1, "what the test is about")
		_, err = b.Revoke(t.Context(), ada)
		require.NoError(t, err)
		require.Empty(t, b.clerk.OpenInvitations("ada@example.com"))
	})
}

func TestResend(t *testing.T) {
	t.Parallel()
	each(t, options{}, func(t *testing.T, b *bundle) {
		first, err := b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com", ExpiresInDays: 7, SkipEmail: true, PublicMetadata: map[string]any{"plan": "pro"}})
		require.NoError(t, err)
		_, err = b.Resend(t.Context(), ada)
		var early *clerkinvite.CooldownError
		require.ErrorAs(t, err, &early)
		require.Equal(t, b.clock.Now().Add(time.Minute), early.Until)
		require.Equal(t, 1, b.get(t, "ada@example.com").Send)

		b.clock.Advance(time.Minute)
		m, err := b.Resend(t.Context(), ada)
		require.NoError(t, err)
		require.Equal(t, 2, m.Send)
		require.Equal(t, 2, m.Sent)
		require.NotEqual(t, first.URL, m.URL)
		require.NotEmpty(t, m.URL)
		require.Equal(t, b.clock.Now().AddDate(0, 0, 7), m.ExpiresAt.UTC(), "as the first was asked for")
		all := b.clerk.Invitations("ada@example.com")
		require.Len(t, all, 2)
		require.Equal(t, clerkinvite.InvitationRevoked, all[0].Status)
		require.JSONEq(t, `{"plan":"pro","clerkinvite":{"id":"`+m.ID+`","send":2}}`, string(all[1].PublicMetadata))

		// Past its end, too: the row is still pending.
		b.clock.Advance(8 * 24 * time.Hour)
		m, err = b.Resend(t.Context(), ada)
		require.NoError(t, err)
		require.Equal(t, 3, m.Send)
		require.Len(t, b.clerk.OpenInvitations("ada@example.com"), 1)

		_, err = b.clerk.Accept("ada@example.com")
		require.NoError(t, err)
		_, err = b.Resend(t.Context(), ada)
		require.ErrorAs(t, err, &early)
		b.clock.Advance(time.Hour)
		m, err = b.Resend(t.Context(), ada)
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusActive, m.Status, "accepted meanwhile: no email")
		require.Zero(t, b.clerk.Emails())
	})
	b := mem(t, options{configure: func(c *clerkinvite.Config) { c.ResendCooldown = -1 }})
	m := b.mustInvite(t, "ada@example.com")
	for send := range 3 {
		m, err := b.Resend(t.Context(), m.Ref())
		require.NoError(t, err)
		require.Equal(t, send+2, m.Send)
	}
}

// Whatever fails while something is sent again, the person has an invitation that works at
// every moment, in the end exactly one, and got no email twice.
func TestResendNeverLosesTheInvitation(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, fresh func(*testing.T, options) *bundle) {
		for _, call := range []clerkinvitetest.Call{clerkinvitetest.CallFindUsers, clerkinvitetest.CallList, clerkinvitetest.CallCreate, clerkinvitetest.CallRevoke} {
			for _, kind := range sample(t, append(clerkinvitetest.Kinds(), "refused", "limited", "quota")) {
				for _, when := range []clerkinvitetest.When{clerkinvitetest.Before, clerkinvitetest.After} {
					if when == clerkinvitetest.After && slices.Contains([]clerkinvitetest.Kind{"refused", "limited", "quota"}, kind) {
						continue // who refuses has done nothing
					}
					t.Run(fmt.Sprintf("%s %s %s", call, kind, when), func(t *testing.T) {
						t.Parallel()
						b := fresh(t, options{timeout: 1200 * time.Millisecond})
						was := b.in(t, clerkinvite.StatusPending)
						fault := clerkinvitetest.Fault{Call: call, Kind: kind, When: when, Times: 2}
						switch kind {
						case "refused":
							fault.Kind, fault.Status, fault.Code = "", 403, "not_allowed_access"
						case "limited":
							fault.Kind, fault.Status, fault.Code, fault.RetryAfter = "", 429, "too_many_requests", time.Minute
						case "quota":
							fault.Kind, fault.Status, fault.Code = "", 403, "user_quota_exceeded"
						}
						b.clerk.Fail(fault)
						b.clerk.OnCall(func(context.Context, clerkinvitetest.Call, clerkinvitetest.When) {
							if len(b.clerk.OpenInvitations("ada@example.com")) == 0 {
								t.Error("no invitation works")
							}
						})
						_, err := b.Resend(t.Context(), ada)
						for range 4 {
							b.clock.Advance(2 * time.Hour)
							if _, err := b.Deliver(t.Context(), nil); err != nil {
								var clerkErr *clerkinvite.ClerkInvitationError
								require.ErrorAs(t, err, &clerkErr)
							}
						}
						b.clerk.ClearFaults()
						b.clerk.SetTimeout(0) // nothing hangs any more, and the machine may be slow
						_, reconcileErr := b.Reconcile(t.Context(), nil)
						require.NoError(t, reconcileErr)
						m := b.get(t, "ada@example.com")
						require.Equal(t, m.Send, m.Sent, "%v after %v", m, err)
						emails := 2
						if m.InvitationID == was.InvitationID {
							emails = 1
							var refused *clerkinvite.ClerkInvitationError
							require.ErrorAs(t, err, &refused)
							require.Equal(t, clerkinvite.Refused, refused.Outcome)
							require.NotEmpty(t, m.Reason)
						}
						b.requireInvited(t, "ada@example.com", emails)
					})
				}
			}
		}
	})
}

func TestList(t *testing.T) {
	t.Parallel()
	each(t, options{}, func(t *testing.T, b *bundle) {
		var want []string
		for i := range 25 {
			p := params("acme", fmt.Sprintf("p%02d@example.com", i))
			p.InvitedBy = fmt.Sprint("admin", i%2)
			_, err := b.Reserve(t.Context(), p)
			require.NoError(t, err)
			want = append(want, p.Email)
			_, err = b.Reserve(t.Context(), params("globex", p.Email))
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
			_, err := b.Reserve(t.Context(), params("acme", fmt.Sprintf("new%d@example.com", page)))
			require.NoError(t, err)
		})
		require.Equal(t, want, got[:25])
		require.Len(t, got, 25+5, "those who came are at the end")

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
	each(t, options{}, func(t *testing.T, b *bundle) {
		p := params("acme", "ada@example.com")
		p.Role, p.Data = "viewer", json.RawMessage(`{"seat":1}`)
		_, err := b.Invite(t.Context(), p)
		require.NoError(t, err)
		b.clerk.ResetCounts()
		role, data, nothing := "editor", json.RawMessage(`{"seat":2}`), json.RawMessage(nil)
		m, err := b.Update(t.Context(), ada, clerkinvite.MemberUpdate{Role: &role})
		require.NoError(t, err)
		require.Equal(t, "editor", m.Role)
		require.JSONEq(t, `{"seat":1}`, string(m.Data))
		m, err = b.Update(t.Context(), ada, clerkinvite.MemberUpdate{Data: &data})
		require.NoError(t, err)
		require.Equal(t, "editor", m.Role)
		require.JSONEq(t, `{"seat":2}`, string(m.Data))
		m, err = b.Update(t.Context(), ada, clerkinvite.MemberUpdate{Data: &nothing})
		require.NoError(t, err)
		require.Nil(t, m.Data)
		require.Zero(t, b.clerk.RequestCount(), "Clerk knows nothing of it")

		long, bad := string(make([]byte, 300)), json.RawMessage("{")
		for field, u := range map[string]clerkinvite.MemberUpdate{"Role": {Role: &long}, "Data": {Data: &bad}} {
			_, err := b.Update(t.Context(), ada, u)
			var invalid *clerkinvite.InvalidParamsError
			require.ErrorAs(t, err, &invalid)
			require.Equal(t, field, invalid.Field)
		}
		_, err = b.Update(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "nobody@example.com"}, clerkinvite.MemberUpdate{Role: &role})
		require.ErrorIs(t, err, clerkinvite.ErrNotFound)

		b.clock.Advance(time.Hour)
		_, err = b.Resend(t.Context(), ada)
		require.NoError(t, err)
		_, err = b.Revoke(t.Context(), ada)
		require.NoError(t, err)
		moves, err := b.History(t.Context(), ada)
		require.NoError(t, err)
		var got []string
		for _, m := range moves {
			got = append(got, fmt.Sprintf("%s>%s %d/%d", m.From, m.To, m.Sent, m.Send))
		}
		require.Equal(t, []string{">reserved 0/1", "reserved>pending 1/1", "pending>pending 1/2", "pending>pending 2/2", "pending>revoked 2/2"}, got)
		_, err = b.History(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "nobody@example.com"})
		require.ErrorIs(t, err, clerkinvite.ErrNotFound)
	})
}

// A role is corrected while the invitation is made: both stand.
func TestUpdateDuringDelivery(t *testing.T) {
	t.Parallel()
	each(t, options{}, func(t *testing.T, b *bundle) {
		role := "editor"
		b.clerk.OnCall(func(ctx context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
			if call == clerkinvitetest.CallCreate && when == clerkinvitetest.After {
				_, err := b.Update(ctx, ada, clerkinvite.MemberUpdate{Role: &role})
				if err != nil {
					t.Error(err)
				}
			}
		})
		m := b.mustInvite(t, "ada@example.com")
		require.Equal(t, "editor", m.Role)
		b.requireInvited(t, "ada@example.com", 1)
	})
}

// An admin withdraws while the invitation is made: no open one stays.
func TestWithdrawDuringDelivery(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, fresh func(*testing.T, options) *bundle) {
		for _, call := range []clerkinvitetest.Call{clerkinvitetest.CallFindUsers, clerkinvitetest.CallCreate} {
			for _, when := range []clerkinvitetest.When{clerkinvitetest.Before, clerkinvitetest.After} {
				for _, remove := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s %s %v", call, when, remove), func(t *testing.T) {
						t.Parallel()
						b := fresh(t, options{})
						b.clerk.OnCall(func(ctx context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
							if c != call || w != when {
								return
							}
							b.clerk.OnCall(nil)
							verb := b.Revoke
							if remove {
								verb = b.Remove
							}
							if _, err := verb(ctx, ada); err != nil {
								t.Error(err)
							}
						})
						_, err := b.invite(t, "ada@example.com")
						require.ErrorIs(t, err, clerkinvite.ErrConflict)
						require.Empty(t, b.clerk.OpenInvitations("ada@example.com"))
					})
				}
			}
		}
	})
}
