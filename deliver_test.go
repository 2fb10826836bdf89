package clerkinvite_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

func behaviors() []clerkinvitetest.NamedBehavior { return clerkinvitetest.Behaviors() }

// recovery is how a lost answer is found again: by the admin who tries again, or by
// the background.
type recovery struct {
	name string
	run  func(t *testing.T, b *bundle, email string) error
}

func recoveries() []recovery {
	return []recovery{
		{"invited again", func(t *testing.T, b *bundle, email string) error {
			_, err := b.invite(t, email)
			var dup *clerkinvite.DuplicateEmailError
			if errors.As(err, &dup) && dup.Member.Status == clerkinvite.StatusPending {
				return nil
			}
			return err
		}},
		{"Deliver", func(t *testing.T, b *bundle, _ string) error {
			_, err := b.Deliver(t.Context(), nil)
			return err
		}},
	}
}

// recover repeats a recovery until the row is settled, as hosts do.
func (b *bundle) recover(t *testing.T, r recovery, email string) {
	t.Helper()
	var err error
	for range 8 {
		b.clock.Advance(2 * time.Hour)
		b.clerk.Settle()
		if err = r.run(t, b, email); err == nil && b.get(t, email).Status == clerkinvite.StatusPending {
			return
		}
	}
	t.Fatalf("not recovered: %v; %v", err, b.get(t, email))
}

// faults is every way in which a call can fail, before and after it took effect.
func faults(call clerkinvitetest.Call) []clerkinvitetest.Fault {
	times := 0
	if call == clerkinvitetest.CallFindUsers || call == clerkinvitetest.CallList {
		times = 3 // the adapter asks three times
	}
	var all []clerkinvitetest.Fault
	for _, kind := range clerkinvitetest.Kinds() {
		for _, when := range []clerkinvitetest.When{clerkinvitetest.Before, clerkinvitetest.After} {
			all = append(all, clerkinvitetest.Fault{Call: call, When: when, Kind: kind, Times: times})
		}
	}
	for _, answer := range []clerkinvitetest.Fault{
		{Status: 401, Code: "clerk_key_invalid"}, {Status: 402, Code: "payment_required"}, {Status: 403, Code: "user_quota_exceeded"},
		{Status: 400, Code: "dev_monthly_email_limit_exceeded"}, {Status: 409, Code: "resource_locked"}, {Status: 408},
		{Status: 429, Code: "too_many_requests", RetryAfter: time.Minute}, {Status: 429}, {Status: 422, Code: "form_param_unknown"},
		{Status: 500, Code: "internal_clerk_error"},
	} {
		answer.Call, answer.When, answer.Kind, answer.Times = call, clerkinvitetest.Before, clerkinvitetest.Answer, times
		all = append(all, answer)
	}
	return all
}

// impatient shortens the adapter's time-outs where the fault is one.
func impatient(f clerkinvitetest.Fault) options {
	if f.Kind == clerkinvitetest.Timeout {
		return options{timeout: time.Second}
	}
	return options{}
}

func faultName(f clerkinvitetest.Fault) string {
	if f.Status != 0 {
		return fmt.Sprintf("%v %d %s", f.When, f.Status, f.Code)
	}
	return fmt.Sprintf("%v %v", f.When, f.Kind)
}

// Promise 3: whatever is lost, one email a send, and the row ends on the open invitation.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	scenes := []struct {
		name   string
		call   clerkinvitetest.Call
		emails int
		before func(t *testing.T, b *bundle) // up to where the faulty call comes next
	}{
		{"look-up", clerkinvitetest.CallFindUsers, 1, func(*testing.T, *bundle) {}},
		{"create", clerkinvitetest.CallCreate, 1, func(*testing.T, *bundle) {}},
		{"create where another application has invited", clerkinvitetest.CallCreate, 1, func(_ *testing.T, b *bundle) {
			b.clerk.CreateForeign(email, nil)
			// The first create is refused as a duplicate; the fault is for the second.
		}},
		{"list after a lost create", clerkinvitetest.CallList, 1, func(t *testing.T, b *bundle) {
			b.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
			_, err := b.invite(t, email)
			require.Error(t, err)
			b.clock.Advance(2 * time.Hour)
		}},
		{"list after a create that never arrived", clerkinvitetest.CallList, 1, func(t *testing.T, b *bundle) {
			b.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, When: clerkinvitetest.Before, Kind: clerkinvitetest.Reset})
			_, err := b.invite(t, email)
			require.Error(t, err)
			b.clock.Advance(2 * time.Hour)
		}},
		// Invited anew when the library's clock is past the expiry and Clerk's is not:
		// the older invitation is still open and has to be revoked.
		{"look-up of a second send", clerkinvitetest.CallFindUsers, 2, secondSend},
		{"list of a second send", clerkinvitetest.CallList, 2, secondSend},
		{"create of a second send", clerkinvitetest.CallCreate, 2, secondSend},
	}
	bothWays(t, func(t *testing.T, fresh func(*testing.T, options) *bundle) {
		for _, scene := range scenes {
			for _, fault := range faults(scene.call) {
				for _, r := range recoveries() {
					t.Run(scene.name+"/"+faultName(fault)+"/"+r.name, func(t *testing.T) {
						t.Parallel()
						b := fresh(t, impatient(fault))
						scene.before(t, b)
						foreign := len(b.clerk.OpenInvitations(email))
						if scene.emails == 2 {
							foreign = 0
						}
						if foreign > 0 && scene.call == clerkinvitetest.CallCreate {
							creates := 0
							b.clerk.OnCall(func(_ context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
								if call == clerkinvitetest.CallCreate && when == clerkinvitetest.After {
									if creates++; creates == 1 {
										b.clerk.Fail(fault)
									}
								}
							})
						} else {
							b.clerk.Fail(fault)
						}
						_, err := b.invite(t, email)
						m := b.get(t, email)
						if err != nil {
							var clerkErr *clerkinvite.ClerkInvitationError
							require.ErrorAs(t, err, &clerkErr)
							_, message := clerkinvite.HTTPError(err)
							require.Equal(t, "invitation service unavailable", message)
							require.NotEqual(t, clerkinvite.Refused, clerkErr.Outcome)
							require.NotNil(t, clerkErr.Member)
							require.Equal(t, clerkinvite.StatusReserved, m.Status)
							require.Equal(t, clerkErr.Outcome == clerkinvite.Uncertain, m.ClaimedUntil != nil, "an uncertain attempt keeps its lease")
							b.recover(t, r, email)
						}
						if scene.call == clerkinvitetest.CallList && scene.emails == 1 || foreign == 0 {
							b.requireInvited(t, email, scene.emails)
							return
						}
						m = b.get(t, email)
						require.Equal(t, clerkinvite.StatusPending, m.Status)
						require.Equal(t, 1, b.clerk.EmailsTo(email))
						require.Len(t, b.clerk.OpenInvitations(email), 2, "the other application's stays")
					})
				}
			}
		}
	})
}

func secondSend(t *testing.T, b *bundle) {
	t.Helper()
	b.clerk.SetNow(newClock().Now) // Clerk's clock stands still
	b.mustInvite(t, "ada@example.com")
	b.clock.Advance(31 * 24 * time.Hour)
}

// A revoke that fails leaves an extra invitation at Clerk, never a second email or a
// wrong row; the next send's sweep finds it.
func TestLostRevoke(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	bothWays(t, func(t *testing.T, fresh func(*testing.T, options) *bundle) {
		for _, fault := range faults(clerkinvitetest.CallRevoke) {
			t.Run(faultName(fault), func(t *testing.T) {
				t.Parallel()
				b := fresh(t, impatient(fault))
				secondSend(t, b)
				b.clerk.Fail(fault)
				m := b.mustInvite(t, email)
				require.Equal(t, 2, m.Send)
				require.Equal(t, 2, b.clerk.EmailsTo(email))
				open := b.clerk.OpenInvitations(email)
				require.Equal(t, open[len(open)-1].ID, m.InvitationID)
				b.clock.Advance(31 * 24 * time.Hour)
				b.mustInvite(t, email)
				b.requireInvited(t, email, 3)
			})
		}
	})
}

// Each behaviour of Clerk that is not documented, either way: one email, one open
// invitation, through a lost answer.
func TestUnknownBehaviors(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	bothWays(t, func(t *testing.T, fresh func(*testing.T, options) *bundle) {
		for _, behavior := range behaviors() {
			for _, when := range []clerkinvitetest.When{clerkinvitetest.Before, clerkinvitetest.After} {
				for _, r := range recoveries() {
					t.Run(fmt.Sprintf("%s/%v/%s", behavior.Name, when, r.name), func(t *testing.T) {
						t.Parallel()
						b := fresh(t, options{})
						b.clerk.SetBehavior(behavior.Behavior)
						b.clerk.CreateForeign("not-"+email, nil) // matched by a query for parts
						b.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, When: when, Kind: clerkinvitetest.Reset})
						_, err := b.invite(t, email)
						require.Error(t, err)
						b.recover(t, r, email)
						b.requireInvited(t, email, 1)
					})
				}
			}
		}
	})
}

// Two tenants invite one person: each has an invitation of its own, and neither
// takes the other's for its own.
func TestTwoTenantsOneAddress(t *testing.T) {
	t.Parallel()
	each(t, options{}, func(t *testing.T, b *bundle) {
		const email = "ada@example.com"
		first := b.mustInvite(t, email)
		second, err := b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "globex", Email: email})
		require.NoError(t, err)
		require.NotEqual(t, first.InvitationID, second.InvitationID)
		require.Len(t, b.clerk.OpenInvitations(email), 2)
		require.Equal(t, 2, b.clerk.EmailsTo(email))

		w, err := b.clerk.Accept(email)
		require.NoError(t, err)
		require.Len(t, b.event(t, w), 2, "both tenants wait for her")
	})
}

// A create that Clerk carries out after the lease, while the next attempt runs: it
// is refused by Clerk or adopted, never a second email.
func TestLateCreate(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	clerk := clerkinvitetest.NewClerk()
	late := make(chan struct{})
	arrived := make(chan struct{})
	api := &lateAPI{ClerkAPI: clerk, late: late, arrived: arrived}
	b := newBundle(t, options{}, clerk, api, clerkinvitetest.NewMemoryStore())
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := b.invite(t, email)
		var dup *clerkinvite.DuplicateEmailError
		if err != nil && !errors.As(err, &dup) {
			var clerkErr *clerkinvite.ClerkInvitationError
			if !errors.As(err, &clerkErr) {
				t.Errorf("unexpected: %v", err)
			}
		}
	})
	<-arrived // the first create is on its way, slowly
	b.clock.Advance(2 * time.Minute)
	m := b.mustInvite(t, email) // the lease is over: somebody else invites
	require.Equal(t, clerkinvite.StatusPending, m.Status)
	close(late) // now the first one reaches Clerk
	wg.Wait()
	b.requireInvited(t, email, 1)
}

// lateAPI holds the first create back.
type lateAPI struct {
	clerkinvite.ClerkAPI
	first         atomic.Bool
	late, arrived chan struct{}
}

func (a *lateAPI) CreateInvitation(ctx context.Context, r clerkinvite.InvitationRequest) (*clerkinvite.Invitation, error) {
	if a.first.CompareAndSwap(false, true) {
		close(a.arrived)
		<-a.late
	}
	return a.ClerkAPI.CreateInvitation(ctx, r)
}

// What an earlier, lost attempt had sent has ended since: inviting again sends anew.
func TestInviteAfterALostInvitationHasEnded(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	for name, end := range map[string]func(b *bundle, id string){
		"expired": func(b *bundle, _ string) { b.clock.Advance(40 * 24 * time.Hour) },
		"revoked": func(b *bundle, id string) { b.clerk.RevokeInDashboard(id) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			each(t, options{}, func(t *testing.T, b *bundle) {
				lost := func() {
					b.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
					_, err := b.invite(t, email)
					require.Error(t, err)
					end(b, b.clerk.OpenInvitations(email)[0].ID)
					b.clock.Advance(2 * time.Minute)
				}
				lost()
				m := b.mustInvite(t, email)
				require.Equal(t, 2, m.Send)
				b.requireInvited(t, email, 2)

				// In the background nobody asked for a new one: the row follows.
				b.clock.Advance(40 * 24 * time.Hour)
				lost()
				report, err := b.Deliver(t.Context(), nil)
				require.NoError(t, err)
				require.Equal(t, &clerkinvite.DeliverReport{Claimed: 1, Ended: 1}, report)
				m = b.get(t, email)
				require.Equal(t, clerkinvite.Status(name), m.Status)
				require.Empty(t, b.clerk.OpenInvitations(email))
			})
		})
	}
}

// Clerk-bound parameters may change until Clerk may have heard of them.
func TestTakingOverAReservedRow(t *testing.T) {
	t.Parallel()
	each(t, options{}, func(t *testing.T, b *bundle) {
		const email = "ada@example.com"
		params := clerkinvite.InviteParams{TenantID: "acme", Email: email, Role: "viewer"}
		_, err := b.Reserve(t.Context(), params)
		require.NoError(t, err)
		_, err = b.Reserve(t.Context(), params)
		var dup *clerkinvite.DuplicateEmailError
		require.ErrorAs(t, err, &dup, "reserved is reserved")

		// No attempt yet: the new parameters count.
		params.ExpiresInDays, params.Role = 7, "editor"
		b.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, When: clerkinvitetest.Before, Kind: clerkinvitetest.Answer, Status: 401})
		_, err = b.Invite(t.Context(), params)
		require.Error(t, err)

		// After an attempt they do not.
		params.ExpiresInDays = 8
		_, err = b.Invite(t.Context(), params)
		require.ErrorAs(t, err, &dup)
		params.ExpiresInDays = 7
		params.Role = "admin"
		m, err := b.Invite(t.Context(), params)
		require.NoError(t, err)
		require.Equal(t, "admin", m.Role)
		require.Equal(t, b.clock.Now().AddDate(0, 0, 7), m.ExpiresAt.UTC())
		b.requireInvited(t, email, 1)
	})
}

// failCreates adds a fault to both endpoints that create.
func (b *bundle) failCreates(f clerkinvitetest.Fault) {
	for _, call := range []clerkinvitetest.Call{clerkinvitetest.CallCreate, clerkinvitetest.CallCreateBulk} {
		f.Call = call
		b.clerk.Fail(f)
	}
}

// creates returns how many requests there were to either.
func (b *bundle) creates() int {
	requests := b.clerk.Requests()
	return requests[clerkinvitetest.CallCreate] + requests[clerkinvitetest.CallCreateBulk]
}

func TestDeliverWhatWasReserved(t *testing.T) {
	t.Parallel()
	each(t, options{}, func(t *testing.T, b *bundle) {
		u := b.clerk.AddVerifiedUser("user@example.com")
		b.clerk.AddUser(clerkinvitetest.UserSpec{Banned: true, Emails: []clerkinvitetest.EmailSpec{{Address: "banned@example.com", Verified: true}}})
		b.failCreates(clerkinvitetest.Fault{Email: "refused@example.com", Times: -1, Kind: clerkinvitetest.Answer,
			Status: 422, Code: "form_param_format_invalid", Meta: map[string]any{"param_name": "email_address"}})
		b.failCreates(clerkinvitetest.Fault{Email: "broken@example.com", Times: -1, Kind: clerkinvitetest.JSON500})
		for _, name := range []string{"user", "banned", "refused", "broken", "new1", "new2"} {
			_, err := b.Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: name + "@example.com"})
			require.NoError(t, err)
		}
		require.Zero(t, b.clerk.RequestCount(), "nothing is sent before Deliver")
		report, err := b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, &clerkinvite.DeliverReport{Claimed: 6, Linked: 1, Invited: 2, Refused: 2, Postponed: 1}, report)
		require.Equal(t, u.ID, b.get(t, "user@example.com").ClerkUserID)
		require.Equal(t, clerkinvite.StatusFailed, b.get(t, "refused@example.com").Status)
		require.Equal(t, "form_param_format_invalid", b.get(t, "refused@example.com").Reason)
		require.Equal(t, clerkinvite.StatusReserved, b.get(t, "broken@example.com").Status)
		b.requireInvited(t, "new1@example.com", 1)

		report, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, &clerkinvite.DeliverReport{}, report, "nothing is due now")
	})
}

func TestDeliverStopsAtAFaultOfTheInstance(t *testing.T) {
	t.Parallel()
	each(t, options{}, func(t *testing.T, b *bundle) {
		for i := range 5 {
			_, err := b.Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: fmt.Sprintf("p%d@example.com", i)})
			require.NoError(t, err)
		}
		b.failCreates(clerkinvitetest.Fault{Times: -1, Kind: clerkinvitetest.Answer, Status: 401, Code: "clerk_key_invalid"})
		_, err := b.Deliver(t.Context(), nil)
		var clerkErr *clerkinvite.ClerkInvitationError
		require.ErrorAs(t, err, &clerkErr)
		require.Equal(t, clerkinvite.Fault, clerkErr.Outcome)
		require.Equal(t, 1, b.creates(), "one wrong answer is enough")
		b.clerk.ClearFaults()
		b.clock.Advance(time.Hour)
		report, err := b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, 5, report.Invited, "a wrong key fails nobody")
		require.Equal(t, 5, b.clerk.Emails())
	})
}

// An address that Clerk always fails for holds up nobody else, in the look-up or after it.
func TestPoisonedAddress(t *testing.T) {
	t.Parallel()
	for _, call := range []clerkinvitetest.Call{clerkinvitetest.CallFindUsers, clerkinvitetest.CallCreate} {
		for _, status := range []int{400, 422, 500} {
			t.Run(fmt.Sprintf("%s %d", call, status), func(t *testing.T) {
				t.Parallel()
				each(t, options{}, func(t *testing.T, b *bundle) {
					for i := range 120 {
						_, err := b.Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: fmt.Sprintf("p%d@example.com", i)})
						require.NoError(t, err)
					}
					fault := clerkinvitetest.Fault{Call: call, Email: "p33@example.com", Times: -1, Kind: clerkinvitetest.Answer, Status: status, Code: "odd", Meta: map[string]any{"param_name": "email_address"}}
					b.clerk.Fail(fault)
					if call == clerkinvitetest.CallCreate {
						b.failCreates(fault)
					}
					report, err := b.Deliver(t.Context(), nil)
					require.NoError(t, err)
					if status == 500 && call == clerkinvitetest.CallCreate {
						// Nobody knows whether the ten of one request got their email.
						require.Equal(t, &clerkinvite.DeliverReport{Claimed: 120, Invited: 110, Postponed: 10}, report)
						b.clock.Advance(time.Hour)
						again, err := b.Deliver(t.Context(), nil)
						require.NoError(t, err)
						report.Invited, report.Postponed = report.Invited+again.Invited, again.Postponed
					}
					want := &clerkinvite.DeliverReport{Claimed: 120, Invited: 119, Refused: 1}
					end := clerkinvite.StatusFailed
					if status == 500 {
						want.Refused, want.Postponed, end = 0, 1, clerkinvite.StatusReserved
					}
					require.Equal(t, want, report)
					require.Equal(t, 119, b.clerk.Emails())
					require.Equal(t, end, b.get(t, "p33@example.com").Status)
				})
			})
		}
	}
}

// When Clerk loses every answer, a pass gives up early, and nobody gets two emails.
func TestDeliverStopsWhenAnswersAreLost(t *testing.T) {
	t.Parallel()
	each(t, options{}, func(t *testing.T, b *bundle) {
		for i := range 60 {
			_, err := b.Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: fmt.Sprintf("p%d@example.com", i)})
			require.NoError(t, err)
		}
		b.failCreates(clerkinvitetest.Fault{When: clerkinvitetest.After, Kind: clerkinvitetest.Reset, Times: -1})
		report, err := b.Deliver(t.Context(), nil)
		var clerkErr *clerkinvite.ClerkInvitationError
		require.ErrorAs(t, err, &clerkErr)
		require.Equal(t, clerkinvite.Uncertain, clerkErr.Outcome)
		require.Equal(t, &clerkinvite.DeliverReport{Claimed: 30, Postponed: 30}, report)
		b.clerk.ClearFaults()
		b.clock.Advance(time.Hour)
		report, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, 60, report.Invited)
		require.Equal(t, 60, b.clerk.Emails())
	})
}

// Promise 8: of each endpoint one refused request is spent, and what the one refuses goes by the other.
func TestRateLimitIsRemembered(t *testing.T) {
	t.Parallel()
	each(t, options{}, func(t *testing.T, b *bundle) {
		b.clerk.SetLimits(clerkinvitetest.DocumentedLimits())
		b.clerk.AddVerifiedUser("user@example.com")
		for i := range 100 + 25 {
			b.mustInvite(t, fmt.Sprintf("p%d@example.com", i))
		}
		require.Equal(t, 100+1+25, b.creates())
		for i := range 3 {
			_, err := b.invite(t, fmt.Sprintf("late%d@example.com", i))
			status, message := clerkinvite.HTTPError(err)
			require.Equal(t, 502, status)
			require.Equal(t, "invitation service unavailable", message)
			wait, ok := clerkinvite.RetryAfter(err)
			require.True(t, ok)
			require.Positive(t, wait)
			require.Equal(t, 100+1+25+1, b.creates())
		}
		require.Equal(t, clerkinvite.StatusActive, b.mustInvite(t, "user@example.com").Status, "linking goes on")

		// Another process knows it from the store.
		other := newBundle(t, options{}, b.clerk, b.api, b.store)
		for i := range 3 {
			_, err := other.Reserve(t.Context(), params("acme", fmt.Sprintf("later%d@example.com", i)))
			require.NoError(t, err)
		}
		report, err := other.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, &clerkinvite.DeliverReport{Claimed: 3, Postponed: 3}, report)
		require.Equal(t, 100+1+25+1, b.creates())

		b.clerk.SetNow(b.clock.Now)
		b.clock.Advance(time.Hour + time.Minute)
		report, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, 6, report.Invited)
		require.Equal(t, 131, b.clerk.Emails())
	})
}

// A caller who goes away loses nothing.
func TestCanceledCaller(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	for _, call := range []clerkinvitetest.Call{clerkinvitetest.CallFindUsers, clerkinvitetest.CallCreate} {
		for _, when := range []clerkinvitetest.When{clerkinvitetest.Before, clerkinvitetest.After} {
			t.Run(fmt.Sprintf("%s %v", call, when), func(t *testing.T) {
				t.Parallel()
				each(t, options{}, func(t *testing.T, b *bundle) {
					ctx, cancel := context.WithCancel(t.Context())
					b.clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
						if c == call && w == when {
							cancel()
						}
					})
					_, err := b.Invite(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: email})
					b.clerk.OnCall(nil)
					if err != nil {
						require.ErrorIs(t, err, context.Canceled)
						b.recover(t, recoveries()[0], email)
					}
					b.requireInvited(t, email, 1)
				})
			})
		}
	}
}

// stubborn is a store whose hook refuses to let one member become pending.
type stubborn struct {
	clerkinvite.Store
	email string
	err   error
}

func (s stubborn) Update(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
	var at []int
	var rest []clerkinvite.Change
	results := make([]clerkinvite.Result, len(changes))
	for i, c := range changes {
		if c.New.Email == s.email && c.New.Status == clerkinvite.StatusPending {
			results[i].Err = s.err
			continue
		}
		at, rest = append(at, i), append(rest, c)
	}
	made, err := s.Store.Update(ctx, rest)
	for i, r := range made {
		results[at[i]] = r
	}
	return results, err
}

// A row that the host's database refuses to change holds up nobody else, and is not
// invited again with each attempt.
func TestDeliverOneThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	b := mem(t, options{})
	b = newBundle(t, options{}, b.clerk, b.api, stubborn{b.store, "p3@example.com", errors.New("a constraint of the host's")})
	_, err := b.ReserveMany(t.Context(), people(150, "p"))
	require.NoError(t, err)
	report, err := b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, &clerkinvite.DeliverReport{Claimed: 150, Invited: 149, Postponed: 1}, report)
	for range 3 {
		b.clock.Advance(3 * time.Hour)
		_, err := b.Deliver(t.Context(), nil)
		require.NoError(t, err)
	}
	require.Equal(t, clerkinvite.StatusReserved, b.get(t, "p3@example.com").Status)
	require.Equal(t, 150, b.clerk.Emails())
}
