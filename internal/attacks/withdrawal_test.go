package attacks_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

func withdrawing(c *clerkinvite.Config) { c.WithdrawOnFailure, c.ResendCooldown = true, -1 }

// requireWithdrawn requires that the error and the row say that the invitation is withdrawn, and that nothing later sends it
// or makes the person a member.
func requireWithdrawn(t *testing.T, b *testkit.Rig, email string, err error) {
	t.Helper()
	var failure *clerkinvite.ClerkInvitationError
	require.ErrorAs(t, err, &failure)
	require.False(t, failure.Queued())
	require.NotEqual(t, clerkinvite.OutcomeRefused, failure.Outcome)
	status, message := clerkinvite.HTTPError(err)
	require.Equal(t, 502, status)
	require.Equal(t, "invitation service unavailable", message)
	require.Equal(t, clerkinvite.StatusFailed, failure.Member.Status)
	requireStaysWithdrawn(t, b, email)
}

// requireStaysWithdrawn requires that a withdrawn member stays withdrawn.
func requireStaysWithdrawn(t *testing.T, b *testkit.Rig, email string) {
	t.Helper()
	if open := b.Clerk.OpenInvitations(email); len(open) > 0 { // revoking it failed, or it belongs to an earlier send
		w, err := b.Clerk.AcceptInvitation(open[0].ID)
		require.NoError(t, err)
		w.At = b.Clock.Now()
		require.Empty(t, b.Receive(t, w), "the person has accepted a withdrawn invitation")
	}
	emails := b.Clerk.EmailsTo(email)
	for range 2 {
		b.Clock.Advance(2 * time.Hour)
		b.Clerk.Settle()
		_, err := b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		_, err = b.Reconcile(t.Context(), nil)
		require.NoError(t, err)
	}
	m := b.Member(t, email)
	require.Equal(t, clerkinvite.StatusFailed, m.Status)
	require.Equal(t, clerkinvite.ReasonWithdrawn, m.Reason)
	require.Empty(t, m.ClerkUserID)
	require.Empty(t, b.Clerk.OpenInvitations(email))
	require.Equal(t, emails, b.Clerk.EmailsTo(email))
}

// If any request to Clerk fails, before or after its effect, the caller's error and the row say that nothing will be sent
// later, and the person can be invited again.
func TestWithdrawOnFailure_EveryFault(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	scenes := []struct {
		name   string
		call   clerkinvitetest.Call
		before func(t *testing.T, b *testkit.Rig)
	}{
		{"look-up", clerkinvitetest.CallFindUsers, func(*testing.T, *testkit.Rig) {}},
		{"create", clerkinvitetest.CallCreate, func(*testing.T, *testkit.Rig) {}},
		{"look-up of a second send", clerkinvitetest.CallFindUsers, testkit.SecondSend},
		{"list of a second send", clerkinvitetest.CallList, testkit.SecondSend},
		{"create of a second send", clerkinvitetest.CallCreate, testkit.SecondSend},
	}
	testkit.OnBoth(t, func(t *testing.T, fresh func(*testing.T, testkit.Options) *testkit.Rig) {
		for _, scene := range scenes {
			for _, fault := range testkit.Sample(t, testkit.Faults(scene.call)) {
				t.Run(scene.name+"/"+testkit.FaultName(fault), func(t *testing.T) {
					t.Parallel()
					testkit.InBubble(t, func(t *testing.T) {
						b := fresh(t, testkit.Options{Configure: withdrawing, Hangs: fault.Kind == clerkinvitetest.Timeout})
						scene.before(t, b)
						b.Clerk.Fail(fault)
						_, err := b.TryInvite(t, email)
						if err == nil { // a bulk request succeeded in its place, or the fault had no effect on the outcome
							require.Equal(t, clerkinvite.StatusPending, b.Member(t, email).Status)
							return
						}
						b.Clerk.ClearFaults()
						requireWithdrawn(t, b, email, err)
						m := b.MustInvite(t, email)
						require.Contains(t, []clerkinvite.Status{clerkinvite.StatusPending, clerkinvite.StatusActive}, m.Status)
					})
				})
			}
		}
	})
}

// If the process dies, or its database fails, after Clerk has created the invitation, the next attempt withdraws the
// invitation. A new Invite or Resend sends a new one.
func TestPromise4_WithdrawOnFailureAfterACrash(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	errDown := errors.New("the database is down")
	crashed := func(t *testing.T) *testkit.Rig {
		t.Helper()
		clerk := clerkinvitetest.NewClerk()
		store := &testkit.FaultyStore{Store: clerkinvitetest.NewMemoryStore()}
		b := testkit.New(t, testkit.Options{Configure: withdrawing}, clerk, clerk, store)
		store.Fail(errDown, false)
		_, err := b.TryInvite(t, email)
		require.ErrorIs(t, err, errDown)
		store.Fail(nil, false)
		require.Len(t, b.Clerk.OpenInvitations(email), 1)
		return b
	}
	t.Run("Deliver", func(t *testing.T) {
		t.Parallel()
		b := crashed(t)
		report, err := b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Zero(t, report.Claimed, "the lease has not ended")
		b.Clock.Advance(2 * time.Minute)
		report, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, &clerkinvite.DeliverReport{Claimed: 1, Ended: 1}, report)
		require.Empty(t, b.Clerk.OpenInvitations(email), "revoked immediately")
		requireStaysWithdrawn(t, b, email)
	})
	t.Run("Deliver while Clerk is down", func(t *testing.T) {
		t.Parallel()
		b := crashed(t)
		b.Clock.Advance(2 * time.Minute)
		b.Clerk.Fail(clerkinvitetest.Fault{Kind: clerkinvitetest.Empty503, Times: 3})
		_, err := b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusFailed, b.Member(t, email).Status)
		b.Clerk.ClearFaults()
		requireStaysWithdrawn(t, b, email)
	})
	t.Run("accepted first", func(t *testing.T) {
		t.Parallel()
		b := crashed(t)
		w, err := b.Clerk.Accept(email)
		require.NoError(t, err)
		require.Len(t, b.Receive(t, w), 1)
		b.Clock.Advance(2 * time.Minute)
		_, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusActive, b.Member(t, email).Status)
	})
	t.Run("Invite", func(t *testing.T) {
		t.Parallel()
		b := crashed(t)
		b.Clock.Advance(2 * time.Minute)
		b.MustInvite(t, email)
		require.Equal(t, 2, b.RequireInvited(t, email, 2).Send)
	})
	t.Run("Invite with other parameters", func(t *testing.T) {
		t.Parallel()
		b := crashed(t)
		b.Clock.Advance(2 * time.Minute)
		p := testkit.Params("acme", email)
		p.ExpiresInDays = 7
		_, err := b.Invite(t.Context(), p)
		require.NoError(t, err)
		m := b.RequireInvited(t, email, 2)
		require.Equal(t, 7*24*time.Hour, m.ExpiresAt.Sub(*m.InvitedAt))
	})
	t.Run("InviteMany", func(t *testing.T) {
		t.Parallel()
		b := crashed(t)
		b.Clock.Advance(2 * time.Minute)
		results, err := b.InviteMany(t.Context(), []clerkinvite.InviteParams{testkit.Params("acme", email)}, nil)
		require.NoError(t, err)
		require.NoError(t, results[0].Err)
		require.Equal(t, 2, b.RequireInvited(t, email, 2).Send)
	})
	t.Run("Revoke", func(t *testing.T) {
		t.Parallel()
		b := crashed(t)
		_, err := b.Revoke(t.Context(), testkit.Acme(email))
		require.NoError(t, err)
		require.Empty(t, b.Clerk.OpenInvitations(email))
	})
}

// A failed Resend leaves the member unchanged, and the earlier link still works.
func TestWithdrawOnFailure_ResendKeepsTheOlderInvitation(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	testkit.OnBoth(t, func(t *testing.T, fresh func(*testing.T, testkit.Options) *testkit.Rig) {
		for _, call := range []clerkinvitetest.Call{clerkinvitetest.CallFindUsers, clerkinvitetest.CallList, clerkinvitetest.CallCreate} {
			for _, fault := range testkit.Sample(t, testkit.Faults(call)) {
				t.Run(fmt.Sprint(call, "/", testkit.FaultName(fault)), func(t *testing.T) {
					t.Parallel()
					testkit.InBubble(t, func(t *testing.T) {
						b := fresh(t, testkit.Options{Configure: withdrawing, Hangs: fault.Kind == clerkinvitetest.Timeout})
						first := b.MustInvite(t, email)
						b.Clerk.Fail(fault)
						_, err := b.Resend(t.Context(), first.Ref())
						if err == nil {
							b.RequireInvited(t, email, 2)
							return
						}
						var failure *clerkinvite.ClerkInvitationError
						require.ErrorAs(t, err, &failure)
						require.False(t, failure.Queued())
						emails := b.Clerk.EmailsTo(email)
						b.Clerk.ClearFaults()
						b.Clock.Advance(2 * time.Hour)
						_, err = b.Deliver(t.Context(), nil)
						require.NoError(t, err)
						_, err = b.Reconcile(t.Context(), nil)
						require.NoError(t, err)
						m := b.RequireInvited(t, email, emails)
						require.Equal(t, first.InvitationID, m.InvitationID)
						require.Equal(t, clerkinvite.ReasonWithdrawn, m.Reason)

						_, err = b.Resend(t.Context(), first.Ref())
						require.NoError(t, err)
						require.Equal(t, 3, b.RequireInvited(t, email, emails+1).Send)
					})
				})
			}
		}
	})
}

// A Resend is tried once if its service is configured so, no matter how the member was invited.
func TestWithdrawOnFailure_ResendTakesTheServicesChoice(t *testing.T) {
	t.Parallel()
	with := testkit.NewMemory(t, testkit.Options{Configure: withdrawing})
	without := testkit.New(t, testkit.Options{Clock: with.Clock, Configure: func(c *clerkinvite.Config) { c.ResendCooldown = -1 }}, with.Clerk, with.API, with.Store)
	for _, resend := range []struct {
		first, second *testkit.Rig
		queued        bool
	}{{without, with, false}, {with, without, true}} {
		email := fmt.Sprintf("queued-%v@example.com", resend.queued)
		p := testkit.Params("acme", email)
		p.PublicMetadata = map[string]any{"plan": "pro"}
		m, err := resend.first.Invite(t.Context(), p)
		require.NoError(t, err)
		with.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallFindUsers, Kind: clerkinvitetest.Reset})
		_, err = resend.second.Resend(t.Context(), m.Ref())
		var failure *clerkinvite.ClerkInvitationError
		require.ErrorAs(t, err, &failure)
		require.Equal(t, resend.queued, failure.Queued())
		_, err = resend.second.Resend(t.Context(), m.Ref())
		require.NoError(t, err)
		open := with.Clerk.OpenInvitations(email)
		require.Len(t, open, 1)
		require.Contains(t, string(open[0].PublicMetadata), `"plan"`, "the other parameters are unchanged")
	}
}

// If the process dies during a Resend, the next Deliver gives it up, or the next Resend sends another invitation.
func TestWithdrawOnFailure_ResendAfterACrash(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	for _, next := range []string{"Deliver", "Resend"} {
		t.Run(next, func(t *testing.T) {
			t.Parallel()
			clerk := clerkinvitetest.NewClerk()
			store := &testkit.FaultyStore{Store: clerkinvitetest.NewMemoryStore()}
			b := testkit.New(t, testkit.Options{Configure: withdrawing}, clerk, clerk, store)
			first := b.MustInvite(t, email)
			store.Fail(errors.New("the database is down"), false)
			_, err := b.Resend(t.Context(), first.Ref())
			require.Error(t, err)
			store.Fail(nil, false)
			b.Clock.Advance(2 * time.Minute)
			if next == "Deliver" {
				report, err := b.Deliver(t.Context(), nil)
				require.NoError(t, err)
				require.Equal(t, &clerkinvite.DeliverReport{Claimed: 1, Ended: 1}, report)
				require.Equal(t, first.InvitationID, b.RequireInvited(t, email, 2).InvitationID)
				return
			}
			_, err = b.Resend(t.Context(), first.Ref())
			require.NoError(t, err)
			require.Equal(t, 3, b.RequireInvited(t, email, 3).Send)
		})
	}
}

// A rate limit withdraws only invitations whose callers do not agree to wait.
func TestWithdrawOnFailure_RateLimits(t *testing.T) {
	t.Parallel()
	people := testkit.People(3, "p")
	limited := func(t *testing.T) *testkit.Rig {
		t.Helper()
		b := testkit.NewMemory(t, testkit.Options{Configure: withdrawing})
		testkit.LimitCreates(b, 10*time.Minute)
		return b
	}
	t.Run("Invite", func(t *testing.T) {
		t.Parallel()
		b := limited(t)
		for range 2 { // first a new limit, then a known one
			_, err := b.TryInvite(t, "ada@example.com")
			testkit.RequireRetryAfter(t, 10*time.Minute, err)
			var failure *clerkinvite.ClerkInvitationError
			require.ErrorAs(t, err, &failure)
			require.Equal(t, clerkinvite.StatusFailed, failure.Member.Status)
		}
		requireStaysWithdrawn(t, b, "ada@example.com")
		b.MustInvite(t, "ada@example.com")
	})
	t.Run("InviteMany", func(t *testing.T) {
		t.Parallel()
		b := limited(t)
		results, err := b.InviteMany(t.Context(), people, nil)
		require.NoError(t, err)
		for _, r := range results {
			requireWithdrawn(t, b, r.Member.Email, r.Err)
		}
		require.Zero(t, b.Clerk.Emails())
	})
	t.Run("InviteMany with Wait", func(t *testing.T) {
		t.Parallel()
		b := limited(t)
		results, err := b.InviteMany(t.Context(), people, &clerkinvite.InviteManyOptions{Wait: true, Progress: func(p clerkinvite.InviteManyProgress) {
			if !p.WaitUntil.IsZero() {
				b.Clock.Advance(p.WaitUntil.Sub(b.Clock.Now()))
			}
		}})
		require.NoError(t, err)
		for _, r := range results {
			require.NoError(t, r.Err)
		}
		b.RequireEachInvitedOnce(t, people)
	})
	for name, reserve := range map[string]func(b *testkit.Rig) error{
		"Reserve":     func(b *testkit.Rig) error { _, err := b.Reserve(t.Context(), people[0]); return err },
		"ReserveMany": func(b *testkit.Rig) error { _, err := b.ReserveMany(t.Context(), people[:1]); return err },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := limited(t)
			require.NoError(t, reserve(b))
			report, err := b.Deliver(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, &clerkinvite.DeliverReport{Claimed: 1, Postponed: 1}, report)
			b.Clock.Advance(time.Hour)
			b.FailCreates(clerkinvitetest.Fault{Kind: clerkinvitetest.Reset, When: clerkinvitetest.After})
			report, err = b.Deliver(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, &clerkinvite.DeliverReport{Claimed: 1, Ended: 1}, report)
			require.Equal(t, 1, b.Clerk.Emails())
			requireStaysWithdrawn(t, b, people[0].Email)
		})
	}
}

// Whichever request gets the 429, reserved members wait for the end of the limit, and then get their invitation.
func TestWithdrawOnFailure_AnyRequestMeetsALimit(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	expired := func(t *testing.T, b *testkit.Rig, people []clerkinvite.InviteParams) {
		t.Helper()
		b.Clerk.SetNow(testkit.NewClock().Now)
		for _, p := range people {
			b.MustInvite(t, p.Email)
		}
		b.Clock.Advance(31 * 24 * time.Hour)
	}
	// A create finds the address taken, so that the attempt looks again.
	taken := func(t *testing.T, b *testkit.Rig, _ []clerkinvite.InviteParams) {
		t.Helper()
		b.FailCreates(clerkinvitetest.Fault{Status: 422, Code: "form_identifier_exists"})
	}
	for name, c := range map[string]struct {
		people int
		before func(t *testing.T, b *testkit.Rig, people []clerkinvite.InviteParams)
		call   clerkinvitetest.Call
		nth    int // request of this kind
	}{
		"look-up of one":        {1, nil, clerkinvitetest.CallFindUsers, 1},
		"look-up of many":       {120, nil, clerkinvitetest.CallFindUsers, 1},
		"list for a create":     {1, expired, clerkinvitetest.CallList, 1},
		"list for a bulk":       {2, expired, clerkinvitetest.CallList, 1},
		"look-up after a taken": {1, taken, clerkinvitetest.CallFindUsers, 2},
		"list after a taken":    {1, taken, clerkinvitetest.CallList, 1},
		"revoked after a taken": {1, taken, clerkinvitetest.CallList, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := testkit.NewMemory(t, testkit.Options{Configure: withdrawing})
			people := testkit.People(c.people, "p")
			if c.before != nil {
				c.before(t, b, people)
			}
			emails := b.Clerk.Emails()
			results, err := b.ReserveMany(t.Context(), people)
			require.NoError(t, err)
			for _, r := range results {
				require.NoError(t, r.Err)
			}
			requests := 0
			b.Clerk.OnCall(func(_ context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
				if call != c.call || when != clerkinvitetest.Before {
					return
				}
				if requests++; requests == c.nth {
					b.Clerk.Fail(clerkinvitetest.Fault{Call: call, Status: 429, Code: "too_many_requests", RetryAfter: 10 * time.Second})
				}
			})
			report, err := b.Deliver(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, &clerkinvite.DeliverReport{Claimed: len(people), Postponed: len(people)}, report)
			for _, p := range people {
				require.Equal(t, b.Clock.Now().Add(10*time.Second), b.Member(t, p.Email).NextAttemptAt.UTC())
			}
			b.Clerk.ClearFaults()
			b.Clock.Advance(10 * time.Second)
			_, err = b.Deliver(t.Context(), nil)
			require.NoError(t, err)
			for _, p := range people {
				require.Equal(t, clerkinvite.StatusPending, b.Member(t, p.Email).Status)
			}
			require.Equal(t, emails+len(people), b.Clerk.Emails())
		})
	}
	t.Run("Invite", func(t *testing.T) { // whose caller does not wait
		t.Parallel()
		b := testkit.NewMemory(t, testkit.Options{Configure: withdrawing})
		b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallFindUsers, Status: 429, RetryAfter: 10 * time.Second})
		_, err := b.TryInvite(t, email)
		testkit.RequireRetryAfter(t, 10*time.Second, err)
		requireWithdrawn(t, b, email, err)
	})
}

// Clerk rejects a bulk request because of one member, and then limits the creates. The other members wait, and are not
// withdrawn after the limit, however often they have to wait. Only a process that dies ends their attempt.
func TestWithdrawOnFailure_LimitAfterARejectedBulkRequest(t *testing.T) {
	t.Parallel()
	rejected := func(t *testing.T, behavior clerkinvitetest.Behavior) (*testkit.Rig, *testkit.FaultyStore) {
		t.Helper()
		clerk := clerkinvitetest.NewClerk()
		store := &testkit.FaultyStore{Store: clerkinvitetest.NewMemoryStore()}
		b := testkit.New(t, testkit.Options{Configure: withdrawing}, clerk, clerk, store)
		b.Clerk.SetBehavior(behavior)
		people := testkit.People(3, "p")
		b.Clerk.CreateForeign(people[0].Email, nil)
		_, err := b.ReserveMany(t.Context(), people)
		require.NoError(t, err)
		creates := 0
		b.Clerk.OnCall(func(_ context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
			if call != clerkinvitetest.CallCreateBulk || when != clerkinvitetest.Before {
				return
			}
			if creates++; creates == 2 {
				testkit.LimitCreates(b, 10*time.Minute)
			}
		})
		_, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		for _, p := range people[1:] {
			m := b.Member(t, p.Email)
			require.Equal(t, clerkinvite.StatusReserved, m.Status)
			require.Equal(t, clerkinvite.ReasonBulkRejected, m.Reason)
			require.Equal(t, 1, m.Attempts, "the next attempt looks for the invitation first")
		}
		b.Clerk.OnCall(nil)
		b.Clerk.ClearFaults()
		return b, store
	}
	for name, behavior := range map[string]clerkinvitetest.Behavior{"": {}, "keeps partial": {BulkKeepsPartial: true}} {
		t.Run("Deliver "+name, func(t *testing.T) {
			t.Parallel()
			b, _ := rejected(t, behavior)
			b.Clock.Advance(time.Hour)
			testkit.LimitCreates(b, 10*time.Minute)
			b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallList, Status: 429, RetryAfter: time.Minute})
			_, err := b.Deliver(t.Context(), nil)
			require.NoError(t, err)
			b.Clerk.ClearFaults()
			b.Clock.Advance(time.Hour)
			_, err = b.Deliver(t.Context(), nil)
			require.NoError(t, err)
			for _, email := range []string{"p1@example.com", "p2@example.com"} {
				b.RequireInvited(t, email, 1)
			}
		})
	}
	t.Run("Invite with other parameters", func(t *testing.T) {
		t.Parallel()
		b, _ := rejected(t, clerkinvitetest.Behavior{BulkKeepsPartial: true})
		p := testkit.Params("acme", "p1@example.com")
		p.ExpiresInDays = 7
		b.Clock.Advance(time.Hour)
		_, err := b.Invite(t.Context(), p)
		require.NoError(t, err)
		m := b.RequireInvited(t, p.Email, 2)
		require.Equal(t, 2, m.Send)
		require.Equal(t, 7*24*time.Hour, m.ExpiresAt.Sub(*m.InvitedAt))
	})
	t.Run("the process dies", func(t *testing.T) {
		t.Parallel()
		b, store := rejected(t, clerkinvitetest.Behavior{})
		b.Clock.Advance(time.Hour)
		store.Fail(errors.New("the database is down"), false)
		_, err := b.Deliver(t.Context(), nil)
		require.Error(t, err)
		store.Fail(nil, false)
		b.Clock.Advance(time.Hour)
		report, err := b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, &clerkinvite.DeliverReport{Claimed: 3, Ended: 3}, report)
		requireStaysWithdrawn(t, b, "p1@example.com")
	})
}

// If the response to a create is lost and Clerk works, the invitation is revoked before the call returns.
func TestPromise4_WithdrawOnFailureRevokes(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	testkit.Each(t, testkit.Options{Configure: withdrawing}, func(t *testing.T, b *testkit.Rig) {
		b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, Kind: clerkinvitetest.Reset, When: clerkinvitetest.After})
		_, err := b.TryInvite(t, email)
		require.Equal(t, 1, b.Clerk.EmailsTo(email))
		require.Empty(t, b.Clerk.OpenInvitations(email))
		requireWithdrawn(t, b, email, err)
	})
}

// If the caller's context ends before anything is sent, nothing is sent later, either.
func TestWithdrawOnFailure_CallerGoesAway(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	b := testkit.NewMemory(t, testkit.Options{Configure: withdrawing})
	ctx, cancel := context.WithCancel(t.Context())
	b.Clerk.OnCall(func(_ context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
		if call == clerkinvitetest.CallFindUsers && when == clerkinvitetest.After {
			cancel()
		}
	})
	_, err := b.Invite(ctx, testkit.Params("acme", email))
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, clerkinvite.StatusFailed, b.Member(t, email).Status)
	requireWithdrawn(t, b, email, err)
	require.Zero(t, b.Clerk.Emails())
}

// If Clerk carries out a create long after its caller has given up and another Invite has succeeded, Reconcile revokes the
// invitation.
func TestPromise4_WithdrawOnFailureLateCreate(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	b := testkit.NewMemory(t, testkit.Options{Configure: withdrawing})
	b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, Kind: clerkinvitetest.Reset, When: clerkinvitetest.Before})
	_, err := b.TryInvite(t, email)
	var failure *clerkinvite.ClerkInvitationError
	require.ErrorAs(t, err, &failure)
	require.Equal(t, clerkinvite.OutcomeUncertain, failure.Outcome)
	late := clerkinvite.InvitationRequest{Email: email, PublicMetadata: []byte(`{"clerkinvite":{"id":"` + failure.Member.ID + `","send":1}}`)}
	_, err = b.Clerk.CreateInvitation(t.Context(), late)
	require.NoError(t, err)
	require.Len(t, b.Clerk.OpenInvitations(email), 1)
	b.MustInvite(t, email)
	b.RequireInvited(t, email, 2)
}

// The option is stored in the row: a service without it follows the row, and a service with it does not affect older members.
func TestWithdrawOnFailure_IsStoredWithTheInvitation(t *testing.T) {
	t.Parallel()
	with := testkit.NewMemory(t, testkit.Options{Configure: withdrawing})
	without := testkit.New(t, testkit.Options{Clock: with.Clock}, with.Clerk, with.API, with.Store)
	_, err := with.Reserve(t.Context(), testkit.Params("acme", "with@example.com"))
	require.NoError(t, err)
	_, err = without.Reserve(t.Context(), testkit.Params("acme", "without@example.com"))
	require.NoError(t, err)
	for _, email := range []string{"with@example.com", "without@example.com"} {
		with.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallFindUsers, Kind: clerkinvitetest.Reset})
		service := map[string]*testkit.Rig{"with@example.com": without, "without@example.com": with}[email]
		_, err = service.DeliverMembers(t.Context(), []clerkinvite.Ref{testkit.Acme(email)})
		require.NoError(t, err)
	}
	require.Equal(t, clerkinvite.StatusFailed, with.Member(t, "with@example.com").Status)
	require.Equal(t, clerkinvite.StatusReserved, with.Member(t, "without@example.com").Status)
}
