package clerkinvite_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// Whatever response is lost, the member gets one email and ends with the open invitation.
func TestPromise3_LostResponses(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	scenes := []struct {
		name   string
		call   clerkinvitetest.Call
		emails int
		before func(t *testing.T, b *testkit.Rig) // everything before the faulty call
	}{
		{"look-up", clerkinvitetest.CallFindUsers, 1, func(*testing.T, *testkit.Rig) {}},
		{"create", clerkinvitetest.CallCreate, 1, func(*testing.T, *testkit.Rig) {}},
		{"create where another application has invited", clerkinvitetest.CallCreate, 1, func(_ *testing.T, b *testkit.Rig) {
			b.Clerk.CreateForeign(email, map[string]any{"app": "another"})
			// The first create is refused as a duplicate; the fault is for the second.
		}},
		{"list after a lost create", clerkinvitetest.CallList, 1, func(t *testing.T, b *testkit.Rig) {
			b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
			_, err := b.TryInvite(t, email)
			require.Error(t, err)
			b.Clock.Advance(2 * time.Hour)
		}},
		{"list after a create that never arrived", clerkinvitetest.CallList, 1, func(t *testing.T, b *testkit.Rig) {
			b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, When: clerkinvitetest.Before, Kind: clerkinvitetest.Reset})
			_, err := b.TryInvite(t, email)
			require.Error(t, err)
			b.Clock.Advance(2 * time.Hour)
		}},
		// Invited again when the library's clock is past the expiry and Clerk's is not:
		// the older invitation is still open and must be revoked.
		{"look-up of a second send", clerkinvitetest.CallFindUsers, 2, testkit.SecondSend},
		{"list of a second send", clerkinvitetest.CallList, 2, testkit.SecondSend},
		{"create of a second send", clerkinvitetest.CallCreate, 2, testkit.SecondSend},
	}
	testkit.OnBoth(t, func(t *testing.T, fresh func(*testing.T, testkit.Options) *testkit.Rig) {
		for _, scene := range scenes {
			all := testkit.Faults(scene.call)
			if testing.Short() {
				all = testkit.Sample(t, all)
			}
			for _, fault := range all {
				for _, r := range testkit.Recoveries() {
					t.Run(scene.name+"/"+testkit.FaultName(fault)+"/"+r.Name, func(t *testing.T) {
						t.Parallel()
						testkit.InBubble(t, func(t *testing.T) {
							b := fresh(t, testkit.Options{Hangs: fault.Kind == clerkinvitetest.Timeout})
							scene.before(t, b)
							foreign := len(b.Clerk.OpenInvitations(email))
							if scene.emails == 2 {
								foreign = 0
							}
							if foreign > 0 && scene.call == clerkinvitetest.CallCreate {
								creates := 0
								b.Clerk.OnCall(func(_ context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
									if call == clerkinvitetest.CallCreate && when == clerkinvitetest.After {
										if creates++; creates == 1 {
											b.Clerk.Fail(fault)
										}
									}
								})
							} else {
								b.Clerk.Fail(fault)
							}
							_, err := b.TryInvite(t, email)
							m := b.Member(t, email)
							if err != nil {
								var clerkErr *clerkinvite.ClerkInvitationError
								require.ErrorAs(t, err, &clerkErr)
								_, message := clerkinvite.HTTPError(err)
								require.Equal(t, "invitation service unavailable; the invitation is saved and will be retried", message)
								require.True(t, clerkErr.Queued())
								require.NotEqual(t, clerkinvite.OutcomeRefused, clerkErr.Outcome)
								require.NotNil(t, clerkErr.Member)
								require.Equal(t, clerkinvite.StatusReserved, m.Status)
								require.Equal(t, clerkErr.Outcome == clerkinvite.OutcomeUncertain, m.ClaimedUntil != nil && m.ClaimedUntil.After(b.Clock.Now()), "an uncertain attempt keeps its lease")
								b.Recover(t, r, email)
							}
							if scene.call == clerkinvitetest.CallList && scene.emails == 1 || foreign == 0 {
								b.RequireInvited(t, email, scene.emails)
								return
							}
							m = b.Member(t, email)
							require.Equal(t, clerkinvite.StatusPending, m.Status)
							require.Equal(t, 1, b.Clerk.EmailsTo(email))
							require.Len(t, b.Clerk.OpenInvitations(email), 2, "the other application's stays")
						})
					})
				}
			}
		}
	})
}

// A revocation that fails leaves an extra invitation at Clerk, but never a second email or a wrong row. The next send
// revokes it.
func TestPromise4_LostRevocation(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	testkit.OnBoth(t, func(t *testing.T, fresh func(*testing.T, testkit.Options) *testkit.Rig) {
		for _, fault := range testkit.Faults(clerkinvitetest.CallRevoke) {
			t.Run(testkit.FaultName(fault), func(t *testing.T) {
				t.Parallel()
				testkit.InBubble(t, func(t *testing.T) {
					b := fresh(t, testkit.Options{Hangs: fault.Kind == clerkinvitetest.Timeout})
					testkit.SecondSend(t, b)
					b.Clerk.Fail(fault)
					m := b.MustInvite(t, email)
					require.Equal(t, 2, m.Send)
					require.Equal(t, 2, b.Clerk.EmailsTo(email))
					open := b.Clerk.OpenInvitations(email)
					require.Equal(t, open[len(open)-1].ID, m.InvitationID)
					b.Clock.Advance(31 * 24 * time.Hour)
					b.MustInvite(t, email)
					b.RequireInvited(t, email, 3)
				})
			})
		}
	})
}

// Each behavior that Clerk does not document, with a lost response: one email, one open invitation.
func TestInvite_UndocumentedBehaviors(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	testkit.OnBoth(t, func(t *testing.T, fresh func(*testing.T, testkit.Options) *testkit.Rig) {
		for _, behavior := range clerkinvitetest.Behaviors() {
			for _, when := range []clerkinvitetest.When{clerkinvitetest.Before, clerkinvitetest.After} {
				for _, r := range testkit.Recoveries() {
					t.Run(fmt.Sprintf("%s/%v/%s", behavior.Name, when, r.Name), func(t *testing.T) {
						t.Parallel()
						b := fresh(t, testkit.Options{})
						b.Clerk.SetBehavior(behavior.Behavior)
						b.Clerk.CreateForeign("not-"+email, nil) // matched by a query for parts
						b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, When: when, Kind: clerkinvitetest.Reset})
						_, err := b.TryInvite(t, email)
						require.Error(t, err)
						b.Recover(t, r, email)
						b.RequireInvited(t, email, 1)
					})
				}
			}
		}
	})
}

// Two tenants invite the same person. Each has its own invitation, and neither adopts the other's.
func TestInvite_TwoTenantsOneAddress(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		const email = "ada@example.com"
		first := b.MustInvite(t, email)
		second, err := b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "globex", Email: email})
		require.NoError(t, err)
		require.NotEqual(t, first.InvitationID, second.InvitationID)
		require.Len(t, b.Clerk.OpenInvitations(email), 2)
		require.Equal(t, 2, b.Clerk.EmailsTo(email))

		w, err := b.Clerk.Accept(email)
		require.NoError(t, err)
		require.Len(t, b.Receive(t, w), 2, "both tenants wait for her")
	})
}

// Clerk carries out a create after the lease has ended, while the next attempt runs. Clerk refuses it or it is adopted;
// there is no second email.
func TestPromise3_LateCreate(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	clerk := clerkinvitetest.NewClerk()
	late := make(chan struct{})
	arrived := make(chan struct{})
	api := &lateAPI{ClerkAPI: clerk, late: late, arrived: arrived}
	b := testkit.New(t, testkit.Options{}, clerk, api, clerkinvitetest.NewMemoryStore())
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := b.TryInvite(t, email)
		var dup *clerkinvite.DuplicateEmailError
		if err != nil && !errors.As(err, &dup) {
			var clerkErr *clerkinvite.ClerkInvitationError
			if !errors.As(err, &clerkErr) {
				t.Errorf("unexpected: %v", err)
			}
		}
	})
	<-arrived // the first create is under way
	b.Clock.Advance(2 * time.Minute)
	m := b.MustInvite(t, email) // the lease has ended, and another caller invites
	require.Equal(t, clerkinvite.StatusPending, m.Status)
	close(late) // now the first one reaches Clerk
	wg.Wait()
	b.RequireInvited(t, email, 1)
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

// The invitation of an attempt whose response was lost has ended: inviting again sends a new one.
func TestInvite_AfterALostInvitationHasEnded(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	for name, end := range map[string]func(b *testkit.Rig, id string){
		"expired": func(b *testkit.Rig, _ string) { b.Clock.Advance(40 * 24 * time.Hour) },
		"revoked": func(b *testkit.Rig, id string) { b.Clerk.RevokeInDashboard(id) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
				lost := func() {
					b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
					_, err := b.TryInvite(t, email)
					require.Error(t, err)
					end(b, b.Clerk.OpenInvitations(email)[0].ID)
					b.Clock.Advance(2 * time.Minute)
				}
				lost()
				m := b.MustInvite(t, email)
				require.Equal(t, 2, m.Send)
				b.RequireInvited(t, email, 2)

				// In the background no caller asked for a new one, so the row follows.
				b.Clock.Advance(40 * 24 * time.Hour)
				lost()
				report, err := b.Deliver(t.Context(), nil)
				require.NoError(t, err)
				require.Equal(t, &clerkinvite.DeliverReport{Claimed: 1, Ended: 1}, report)
				m = b.Member(t, email)
				require.Equal(t, clerkinvite.Status(name), m.Status)
				require.Empty(t, b.Clerk.OpenInvitations(email))
			})
		})
	}
}

// Parameters for Clerk may change until Clerk may have seen them.
func TestInvite_TakesOverAReservedRow(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		const email = "ada@example.com"
		params := clerkinvite.InviteParams{TenantID: "acme", Email: email, Role: "viewer"}
		_, err := b.Reserve(t.Context(), params)
		require.NoError(t, err)
		_, err = b.Reserve(t.Context(), params)
		var dup *clerkinvite.DuplicateEmailError
		require.ErrorAs(t, err, &dup, "a reserved member is a duplicate")

		// No attempt yet: the new parameters count.
		params.ExpiresInDays, params.Role = 7, "editor"
		b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, When: clerkinvitetest.Before, Kind: clerkinvitetest.Reset})
		_, err = b.Invite(t.Context(), params)
		require.Error(t, err)

		// After an attempt that may have created the invitation they do not.
		b.Clock.Advance(2 * time.Hour)
		params.ExpiresInDays = 8
		_, err = b.Invite(t.Context(), params)
		require.ErrorAs(t, err, &dup)
		params.ExpiresInDays = 7
		params.Role = "admin"
		m, err := b.Invite(t.Context(), params)
		require.NoError(t, err)
		require.Equal(t, "admin", m.Role)
		require.Equal(t, b.Clock.Now().AddDate(0, 0, 7), m.ExpiresAt.UTC())
		b.RequireInvited(t, email, 1)
	})
}

// Attempts that certainly created nothing leave the parameters open, however many there were.
func TestInvite_CorrectsParametersAfterAttemptsThatSentNothing(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		for name, attempt := range map[string]func(p clerkinvite.InviteParams) error{
			"invite": func(p clerkinvite.InviteParams) error {
				_, err := b.Invite(t.Context(), p)
				return err
			},
			"deliver": func(p clerkinvite.InviteParams) error {
				_, err := b.DeliverMembers(t.Context(), []clerkinvite.Ref{{TenantID: p.TenantID, Email: p.Email}})
				return err
			},
		} {
			p := testkit.Params("acme", name+"@example.com")
			p.RedirectURL = "https://wrong.example.com"
			_, err := b.Reserve(t.Context(), p)
			require.NoError(t, err)
			for range 3 {
				b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallFindUsers, When: clerkinvitetest.Before, Kind: clerkinvitetest.JSON500, Times: 10})
				_ = attempt(p)
				b.Clerk.ClearFaults()
				b.Clock.Advance(2 * time.Hour)
			}
			require.Equal(t, 3, b.Member(t, p.Email).Attempts)
			p.RedirectURL = "https://right.example.com"
			_, err = b.Invite(t.Context(), p)
			require.NoError(t, err)
			b.RequireInvited(t, p.Email, 1)

			lost := testkit.Params("acme", "lost-"+name+"@example.com")
			b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, When: clerkinvitetest.Before, Kind: clerkinvitetest.Reset})
			_, err = b.Invite(t.Context(), lost)
			require.Error(t, err)
			b.Clerk.ClearFaults()
			b.Clock.Advance(2 * time.Hour)
			b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallFindUsers, When: clerkinvitetest.Before, Kind: clerkinvitetest.JSON500, Times: 10})
			_ = attempt(lost)
			b.Clerk.ClearFaults()
			b.Clock.Advance(2 * time.Hour)
			lost.RedirectURL = "https://right.example.com"
			_, err = b.Invite(t.Context(), lost)
			var dup *clerkinvite.DuplicateEmailError
			require.ErrorAs(t, err, &dup, "the first attempt may have created the invitation, and the second does not change that")
		}
	})
}

// The parameters may change as long as no attempt was made, even if the row has a claim that has ended.
func TestInvite_TakesOverAnEndedClaim(t *testing.T) {
	t.Parallel()
	for name, once := range map[string]bool{"retried": false, "withdrawn on failure": true} {
		withdraw := testkit.Options{Configure: func(c *clerkinvite.Config) { c.WithdrawOnFailure = once }}
		takesOver := func(t *testing.T, b *testkit.Rig, emails int) {
			t.Helper()
			m := b.Member(t, "ada@example.com")
			require.Equal(t, clerkinvite.StatusReserved, m.Status)
			require.Zero(t, m.Attempts)
			p := testkit.Params("acme", "ada@example.com")
			p.ExpiresInDays = 7
			m, err := b.Invite(t.Context(), p)
			require.NoError(t, err)
			require.Equal(t, m.InvitedAt.AddDate(0, 0, 7), *m.ExpiresAt)
			b.RequireInvited(t, "ada@example.com", emails)
		}
		t.Run("of an interrupted Purge/"+name, func(t *testing.T) {
			t.Parallel()
			b, store := testkit.NewFaulty(t)
			b = testkit.New(t, withdraw, b.Clerk, b.API, store)
			_, err := b.Reserve(t.Context(), testkit.Params("acme", "ada@example.com"))
			require.NoError(t, err)
			store.Fail(errors.New("down"), false) // the claim cannot be released
			b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallList, Kind: clerkinvitetest.JSON500})
			require.Error(t, b.Purge(t.Context(), testkit.Ada))
			store.Fail(nil, false)
			b.Clock.Advance(time.Hour)
			takesOver(t, b, 1)
		})
		t.Run("of an earlier send/"+name, func(t *testing.T) {
			t.Parallel()
			testkit.Each(t, testkit.Options{}, func(t *testing.T, plain *testkit.Rig) {
				plain.MustInvite(t, "ada@example.com")
				plain.Clock.Advance(time.Hour)
				plain.FailCreates(clerkinvitetest.Fault{Kind: clerkinvitetest.Reset})
				_, err := plain.Resend(t.Context(), testkit.Ada)
				require.Error(t, err)
				require.NotNil(t, plain.Member(t, "ada@example.com").ClaimedUntil)
				b := testkit.New(t, testkit.Options{Configure: withdraw.Configure, Clock: plain.Clock}, plain.Clerk, plain.API, plain.Store)
				b.Clock.Advance(31 * 24 * time.Hour)
				_, err = b.Reserve(t.Context(), testkit.Params("acme", "ada@example.com"))
				require.NoError(t, err)
				require.Nil(t, b.Member(t, "ada@example.com").ClaimedUntil)
				takesOver(t, b, 2)
			})
		})
	}
}

func TestDeliver_ReservedMembers(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		u := b.Clerk.AddVerifiedUser("user@example.com")
		b.Clerk.AddUser(clerkinvitetest.UserSpec{Banned: true, Emails: []clerkinvitetest.EmailSpec{{Address: "banned@example.com", Verified: true}}})
		b.FailCreates(clerkinvitetest.Fault{Email: "refused@example.com", Times: -1, Kind: clerkinvitetest.Response,
			Status: 422, Code: "form_param_format_invalid", Meta: map[string]any{"param_name": "email_address"}})
		b.FailCreates(clerkinvitetest.Fault{Email: "broken@example.com", Times: -1, Kind: clerkinvitetest.JSON500})
		for _, name := range []string{"user", "banned", "refused", "broken", "new1", "new2"} {
			_, err := b.Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: name + "@example.com"})
			require.NoError(t, err)
		}
		require.Zero(t, b.Clerk.RequestCount(), "nothing is sent before Deliver")
		report, err := b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, &clerkinvite.DeliverReport{Claimed: 6, Linked: 1, Invited: 2, Refused: 2, Postponed: 1}, report)
		require.Equal(t, u.ID, b.Member(t, "user@example.com").ClerkUserID)
		require.Equal(t, clerkinvite.StatusFailed, b.Member(t, "refused@example.com").Status)
		require.Equal(t, "form_param_format_invalid", b.Member(t, "refused@example.com").Reason)
		require.Equal(t, clerkinvite.StatusReserved, b.Member(t, "broken@example.com").Status)
		b.RequireInvited(t, "new1@example.com", 1)

		report, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, &clerkinvite.DeliverReport{}, report, "nothing is due now")
	})
}

func TestDeliver_StopsAtAnInstanceFault(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		b.ReserveEach(t, testkit.People(5, "p"))
		b.FailCreates(clerkinvitetest.Fault{Times: -1, Kind: clerkinvitetest.Response, Status: 401, Code: "clerk_key_invalid"})
		_, err := b.Deliver(t.Context(), nil)
		var clerkErr *clerkinvite.ClerkInvitationError
		require.ErrorAs(t, err, &clerkErr)
		require.Equal(t, clerkinvite.OutcomeFault, clerkErr.Outcome)
		require.Equal(t, 1, b.CreateRequests(), "one wrong answer is enough")
		b.Clerk.ClearFaults()
		b.Clock.Advance(time.Hour)
		report, err := b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, 5, report.Invited, "a wrong key fails no member")
		require.Equal(t, 5, b.Clerk.Emails())
	})
}

// Clerk always fails for one address, in the look-up or in the create.
func TestDeliver_PoisonedAddressDoesNotBlockOthers(t *testing.T) {
	t.Parallel()
	for _, call := range []clerkinvitetest.Call{clerkinvitetest.CallFindUsers, clerkinvitetest.CallCreate} {
		for _, status := range []int{400, 422, 500} {
			t.Run(fmt.Sprintf("%s %d", call, status), func(t *testing.T) {
				t.Parallel()
				testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
					b.ReserveEach(t, testkit.People(120, "p"))
					fault := clerkinvitetest.Fault{Call: call, Email: "p33@example.com", Times: -1, Kind: clerkinvitetest.Response, Status: status, Code: "odd", Meta: map[string]any{"param_name": "email_address"}}
					b.Clerk.Fail(fault)
					if call == clerkinvitetest.CallCreate {
						b.FailCreates(fault)
					}
					report, err := b.Deliver(t.Context(), nil)
					require.NoError(t, err)
					if status == 500 && call == clerkinvitetest.CallCreate {
						// It is unknown whether the ten people of one request got their email.
						require.Equal(t, &clerkinvite.DeliverReport{Claimed: 120, Invited: 110, Postponed: 10}, report)
						b.Clock.Advance(time.Hour)
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
					require.Equal(t, 119, b.Clerk.Emails())
					require.Equal(t, end, b.Member(t, "p33@example.com").Status)
				})
			})
		}
	}
}

// A firewall or Clerk itself objects to some addresses, in ways that do not say so. Only they wait.
func TestDeliver_HostileAddressesDoNotBlockOthers(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]clerkinvitetest.Fault{
		"403 without a code": {Status: 403}, "422 without meta": {Status: 422, Code: "odd"}, "402": {Status: 402, Code: "odd_quota"},
		"500": {Status: 500}, "503": {Status: 503}, "connection reset": {Kind: clerkinvitetest.Reset},
	} {
		for _, call := range []clerkinvitetest.Call{clerkinvitetest.CallFindUsers, clerkinvitetest.CallCreate} {
			t.Run(name+", "+string(call), func(t *testing.T) {
				t.Parallel()
				b := testkit.NewMemory(t, testkit.Options{})
				const people = 120
				b.ReserveSome(t, people)
				hostile := make(map[string]bool)
				for i := range 12 { // more than failures in a row that end a pass
					p, err := b.Reserve(t.Context(), testkit.Params("evil", fmt.Sprintf("x%d@evil.example", i)))
					require.NoError(t, err)
					hostile[p.Email] = true
					f := fault
					f.Email, f.Call, f.Times = p.Email, call, -1
					b.Clerk.Fail(f)
					if call == clerkinvitetest.CallCreate {
						b.FailCreates(f)
					}
				}
				for range 12 { // two hours
					_, err := b.Deliver(t.Context(), nil)
					if call == clerkinvitetest.CallFindUsers {
						require.NoError(t, err)
					}
					b.Clock.Advance(10 * time.Minute)
				}
				require.Equal(t, people, b.Clerk.Emails())
				members, err := b.Store.Page(t.Context(), clerkinvite.PageQuery{})
				require.NoError(t, err)
				for _, m := range members {
					require.Equal(t, hostile[m.Email], m.Status != clerkinvite.StatusPending, "%s is %s", m.Email, m.Status)
				}
			})
		}
	}
}

// Clerk keeps rejecting a create without saying why. If other creates succeed in the meantime, the
// row is refused. If none does, the reason may be the instance's, and no row is refused.
func TestDeliver_UnexplainedRejections(t *testing.T) {
	t.Parallel()
	for _, othersSucceed := range []bool{true, false} {
		t.Run(fmt.Sprint("others succeed: ", othersSucceed), func(t *testing.T) {
			t.Parallel()
			b := testkit.NewMemory(t, testkit.Options{})
			b.FailCreates(clerkinvitetest.Fault{Email: "odd@example.com", Status: 400, Code: "odd", Times: -1})
			_, err := b.Reserve(t.Context(), testkit.Params("acme", "odd@example.com"))
			require.NoError(t, err)
			for i := range 20 {
				if othersSucceed {
					_, err := b.Reserve(t.Context(), testkit.Params("acme", fmt.Sprintf("p%d@example.com", i)))
					require.NoError(t, err)
				}
				_, err := b.Deliver(t.Context(), nil)
				require.NoError(t, err)
				b.Clock.Advance(10 * time.Minute)
			}
			m := b.Member(t, "odd@example.com")
			if othersSucceed {
				require.Equal(t, []any{clerkinvite.StatusFailed, "odd"}, []any{m.Status, m.Reason})
				require.LessOrEqual(t, m.Attempts, 6)
				require.LessOrEqual(t, b.CreateRequests(), 20+8, "it does not use up the others' requests")
			} else {
				require.Equal(t, clerkinvite.StatusReserved, m.Status)
			}
		})
	}
}

// Clerk loses every response: the pass stops early, and each person gets at most one email.
func TestDeliver_StopsWhenResponsesAreLost(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		b.ReserveEach(t, testkit.People(60, "p"))
		b.FailCreates(clerkinvitetest.Fault{When: clerkinvitetest.After, Kind: clerkinvitetest.Reset, Times: -1})
		report, err := b.Deliver(t.Context(), nil)
		var clerkErr *clerkinvite.ClerkInvitationError
		require.ErrorAs(t, err, &clerkErr)
		require.Equal(t, clerkinvite.OutcomeUncertain, clerkErr.Outcome)
		require.Equal(t, &clerkinvite.DeliverReport{Claimed: 30, Postponed: 30}, report)
		b.Clerk.ClearFaults()
		b.Clock.Advance(time.Hour)
		report, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, 60, report.Invited)
		require.Equal(t, 60, b.Clerk.Emails())
	})
}

// Clerk loses each response about three people. While they are new, that ends the pass. At a later attempt it is only
// their problem, and the next person is invited.
func TestDeliver_LostResponsesOfLaterAttemptsDoNotStopThePass(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	for i, email := range []string{"bad0@example.com", "bad1@example.com", "bad2@example.com", "good@example.com"} {
		p := testkit.Params("acme", email)
		p.PublicMetadata = map[string]any{"plan": "pro"} // a request each
		_, err := b.Reserve(t.Context(), p)
		require.NoError(t, err)
		b.Clock.Advance(time.Second) // in this order
		if i < 3 {
			b.FailCreates(clerkinvitetest.Fault{Email: email, Kind: clerkinvitetest.Reset, Times: -1})
		}
	}
	report, err := b.Deliver(t.Context(), nil)
	var clerkErr *clerkinvite.ClerkInvitationError
	require.ErrorAs(t, err, &clerkErr)
	require.Equal(t, clerkinvite.OutcomeUncertain, clerkErr.Outcome)
	require.Equal(t, &clerkinvite.DeliverReport{Claimed: 3, Postponed: 3}, report)

	b.Clock.Advance(time.Hour)
	report, err = b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, 1, report.Invited)
	b.RequireInvited(t, "good@example.com", 1)
}

// A canceled call loses nothing. A create that has begun still gets its response, so no later attempt must
// find out whether the person got an email.
func TestInvite_CanceledDuringTheCreate(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	for _, call := range []clerkinvitetest.Call{clerkinvitetest.CallFindUsers, clerkinvitetest.CallCreate} {
		for _, when := range []clerkinvitetest.When{clerkinvitetest.Before, clerkinvitetest.After} {
			t.Run(fmt.Sprintf("%s %v", call, when), func(t *testing.T) {
				t.Parallel()
				testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
					ctx, cancel := context.WithCancel(t.Context())
					b.Clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
						if c == call && w == when {
							cancel()
						}
					})
					_, err := b.Invite(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: email})
					b.Clerk.OnCall(nil)
					if call == clerkinvitetest.CallCreate {
						require.NoError(t, err)
					}
					if err != nil {
						require.ErrorIs(t, err, context.Canceled)
						b.Recover(t, testkit.Recoveries()[0], email)
					}
					b.RequireInvited(t, email, 1)
				})
			})
		}
	}
}

// The response is not waited for longer than five seconds.
func TestInvite_CanceledDuringACreateWithoutResponse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		clerk := clerkinvitetest.NewClerk()
		b := testkit.New(t, testkit.Options{}, clerk, clerk, clerkinvitetest.NewMemoryStore())
		clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, Kind: clerkinvitetest.Timeout})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		_, err := b.Invite(ctx, testkit.Params("acme", "ada@example.com"))
		var clerkErr *clerkinvite.ClerkInvitationError
		require.ErrorAs(t, err, &clerkErr)
		require.Equal(t, clerkinvite.OutcomeUncertain, clerkErr.Outcome)
		require.Equal(t, 6*time.Second, time.Since(start))
	})
}

// refusingStore is a store that refuses to write some rows, as a hook or a constraint of the host does.
type refusingStore struct {
	clerkinvite.Store
	refuse func(next *clerkinvite.Member) error
}

func (s refusingStore) Update(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
	var at []int
	var rest []clerkinvite.Change
	results := make([]clerkinvite.Result, len(changes))
	for i, c := range changes {
		if results[i].Err = s.refuse(c.New); results[i].Err == nil {
			at, rest = append(at, i), append(rest, c)
		}
	}
	made, err := s.Store.Update(ctx, rest)
	for i, r := range made {
		results[at[i]] = r
	}
	return results, err
}

// refuseStatus refuses to write the members with the address in the status.
func refuseStatus(email string, status clerkinvite.Status, err error) func(*clerkinvite.Member) error {
	return func(next *clerkinvite.Member) error {
		if next.Email == email && next.Status == status {
			return err
		}
		return nil
	}
}

// refuseTenant refuses to write the tenant's members.
func refuseTenant(tenant string) func(*clerkinvite.Member) error {
	return func(next *clerkinvite.Member) error {
		if next.TenantID == tenant {
			return errRefusedRow
		}
		return nil
	}
}

// A row that the host's database refuses to change does not block others, and is not invited again by each attempt.
func TestDeliver_RowThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	b = testkit.New(t, testkit.Options{}, b.Clerk, b.API, refusingStore{b.Store, refuseStatus("p3@example.com", clerkinvite.StatusPending, errors.New("a constraint"))})
	_, err := b.ReserveMany(t.Context(), testkit.People(150, "p"))
	require.NoError(t, err)
	report, err := b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, &clerkinvite.DeliverReport{Claimed: 150, Invited: 149, Postponed: 1}, report)
	for range 3 {
		b.Clock.Advance(3 * time.Hour)
		_, err := b.Deliver(t.Context(), nil)
		require.NoError(t, err)
	}
	require.Equal(t, clerkinvite.StatusReserved, b.Member(t, "p3@example.com").Status)
	require.Equal(t, 150, b.Clerk.Emails())
}

// Background delivery with faults. Each test is named
// after the rule, and its comment has the case that once failed.

// singles counts the requests for one invitation, by address.
type singles struct {
	clerkinvite.ClerkAPI
	mu sync.Mutex
	of map[string]int
}

func (s *singles) CreateInvitation(ctx context.Context, r clerkinvite.InvitationRequest) (*clerkinvite.Invitation, error) {
	s.mu.Lock()
	s.of[r.Email]++
	s.mu.Unlock()
	return s.ClerkAPI.CreateInvitation(ctx, r)
}

// Clerk refuses the parameters of some rows. They must end as failed instead of using up the single creates of all
// tenants.
func TestDeliver_RefusedParametersEndTheRow(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	api := &singles{ClerkAPI: b.API, of: make(map[string]int)}
	b = testkit.New(t, testkit.Options{}, b.Clerk, api, b.Store)
	limits := clerkinvitetest.DocumentedLimits()
	limits.Create.Requests = 60
	b.Clerk.SetLimits(limits)

	good := testkit.People(10, "good")
	all := append([]clerkinvite.InviteParams{}, good...)
	reasons := make(map[string]string)
	for i := range 4 {
		template := testkit.Params("acme", fmt.Sprintf("template%d@example.com", i))
		template.Template = "no_such_template"
		redirect := testkit.Params("acme", fmt.Sprintf("redirect%d@example.com", i))
		redirect.RedirectURL = "https://elsewhere.example.com/"
		metadata := testkit.Params("acme", fmt.Sprintf("metadata%d@example.com", i))
		metadata.PublicMetadata = map[string]any{"plan": "gold"}
		all = append(all, template, redirect, metadata)
		reasons[template.Email] = "form_param_value_invalid"
		for email, name := range map[string]string{redirect.Email: "redirect_url", metadata.Email: "public_metadata"} {
			reasons[email] = "bad_" + name
			b.FailCreates(clerkinvitetest.Fault{Email: email, Times: -1, Status: 422, Code: reasons[email], Meta: map[string]any{"param_name": name}})
		}
	}
	_, err := b.ReserveMany(t.Context(), all)
	require.NoError(t, err)

	for pass := range 36 { // three hours of a cron job
		_, err := b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		if pass%3 == 0 { // an admin
			p := testkit.Params("globex", fmt.Sprintf("new%d@example.com", pass))
			p.PublicMetadata = map[string]any{"plan": "pro"}
			m, err := b.Invite(t.Context(), p)
			require.NoError(t, err, "pass %d: %v", pass, b.Clerk.Requests())
			require.Equal(t, clerkinvite.StatusPending, m.Status)
		}
		b.Clock.Advance(5 * time.Minute)
	}
	for email, reason := range reasons {
		m := b.Member(t, email)
		require.Equal(t, clerkinvite.StatusFailed, m.Status, email)
		require.Equal(t, reason, m.Reason)
		require.Equal(t, 3, api.of[email], "the third attempt is the last")
		require.Zero(t, b.Clerk.EmailsTo(email))
	}
	b.RequireEachInvitedOnce(t, good)
}

// The hook refuses one member in every pass. The others are invited.
func TestDeliver_FailingHookDoesNotBlockOthers(t *testing.T) {
	t.Parallel()
	store, h, _ := testkit.NewMirror(t)
	clerk := clerkinvitetest.NewClerk()
	b := testkit.New(t, testkit.Options{}, clerk, clerk, store)
	h.SetHook(neverActive("bad"))
	bad := func(i int) clerkinvite.InviteParams {
		email := fmt.Sprintf("bad%d@example.com", i)
		clerk.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{{Address: email, Verified: true}, {Address: "two" + email, Verified: true}}})
		return testkit.Params("acme", email)
	}
	ps := testkit.People(50, "p")
	results, err := b.InviteMany(t.Context(), append(ps, bad(0)), nil)
	require.NoError(t, err)
	require.ErrorIs(t, results[50].Err, testkit.ErrHook)
	b.RequireEachInvitedOnce(t, ps)

	for i := range 3 {
		b.Clock.Advance(15 * time.Second)
		more := testkit.People(3, fmt.Sprintf("round%d-", i))
		_, err := b.ReserveMany(t.Context(), append([]clerkinvite.InviteParams{bad(i + 1)}, more...))
		require.NoError(t, err)
		report, err := b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, &clerkinvite.DeliverReport{Claimed: 4, Invited: 3, Postponed: 1}, report)
		b.RequireEachInvitedOnce(t, more)
	}
}

// onRead is a store that calls before when it is read.
type onRead struct {
	clerkinvite.Store
	before func()
}

func (s onRead) Find(ctx context.Context, q clerkinvite.Query) ([]*clerkinvite.Member, error) {
	s.before()
	return s.Store.Find(ctx, q)
}

func (s onRead) Due(ctx context.Context, q clerkinvite.DueQuery) ([]*clerkinvite.Member, error) {
	s.before()
	return s.Store.Due(ctx, q)
}

func (s onRead) Page(ctx context.Context, q clerkinvite.PageQuery) ([]*clerkinvite.Member, error) {
	s.before()
	return s.Store.Page(ctx, q)
}

// The clock is set back during a pass, so that a row is due and claimed at the same time. The pass must not read the
// store in a loop until the clock has caught up.
func TestDeliver_ClockSetBackMakesNoHotLoop(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, Kind: clerkinvitetest.Reset})
	_, err := b.TryInvite(t, "ada@example.com")
	require.Error(t, err)
	b.Clock.Advance(70 * time.Second) // the claim was for a minute
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	finds := 0
	svc, err := clerkinvite.New(clerkinvite.Config{API: b.API, Now: b.Clock.Now, Store: onRead{b.Store, func() {
		switch finds++; finds {
		case 1:
			b.Clock.Advance(-30 * time.Second)
		case 10:
			cancel()
		}
	}}})
	require.NoError(t, err)
	report, err := svc.Deliver(ctx, nil)
	require.NoError(t, err)
	require.Equal(t, &clerkinvite.DeliverReport{}, report)
	require.Less(t, finds, 10)

	b.Clock.Advance(30 * time.Second)
	_, err = svc.Deliver(t.Context(), nil)
	require.NoError(t, err)
	b.RequireInvited(t, "ada@example.com", 1)
}

// A failed look-up is not counted as an attempt, so the next pass still creates ten invitations per request.
func TestDeliver_FailedLookUpKeepsBulkRequests(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	ps := testkit.People(100, "p")
	_, err := b.ReserveMany(t.Context(), ps)
	require.NoError(t, err)
	for _, fault := range []clerkinvitetest.Fault{{Status: 401, Code: "clerk_key_invalid"}, {Kind: clerkinvitetest.Empty503, Times: 5}} {
		fault.Call = clerkinvitetest.CallFindUsers
		b.Clerk.Fail(fault)
		_, err = b.Deliver(t.Context(), nil)
		var clerkErr *clerkinvite.ClerkInvitationError
		require.ErrorAs(t, err, &clerkErr)
		b.Clerk.ClearFaults()
		b.Clock.Advance(2 * time.Hour)
	}
	b.Clerk.ResetCounts()
	report, err := b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, &clerkinvite.DeliverReport{Claimed: 100, Invited: 100}, report)
	require.Equal(t, map[clerkinvitetest.Call]int{clerkinvitetest.CallFindUsers: 1, clerkinvitetest.CallCreateBulk: 10}, b.Clerk.Requests())
	b.RequireEachInvitedOnce(t, ps)
}

func TestNegativeLimitIsAnError(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	_, err := b.ReserveMany(t.Context(), testkit.People(5, "p"))
	require.NoError(t, err)
	report, err := b.Deliver(t.Context(), &clerkinvite.DeliverOptions{Limit: -1})
	require.Equal(t, &clerkinvite.InvalidParamsError{Field: "Limit", Reason: "is negative"}, err)
	require.Equal(t, &clerkinvite.DeliverReport{}, report)
	_, err = b.Reconcile(t.Context(), &clerkinvite.ReconcileOptions{Limit: -1})
	require.Equal(t, &clerkinvite.InvalidParamsError{Field: "Limit", Reason: "is negative"}, err)
	_, err = b.List(t.Context(), clerkinvite.ListParams{TenantID: "acme", Limit: -1})
	var invalid *clerkinvite.InvalidParamsError
	require.ErrorAs(t, err, &invalid)
	require.Equal(t, "Limit", invalid.Field)
	require.Zero(t, b.Clerk.RequestCount())
}

// Tenants take turns, also from one call to the next, and members that a caller asked for singly come before all imports.
func TestDeliver_TenantsTakeTurns(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		reserveMany := func(tenant string, n int) {
			ps := testkit.People(n, "import")
			for i := range ps {
				ps[i].TenantID = tenant
			}
			results, err := b.ReserveMany(t.Context(), ps)
			require.NoError(t, err)
			require.NoError(t, results[n-1].Err)
		}
		invited := func(tenant string) int {
			pending, err := b.Store.Page(t.Context(), clerkinvite.PageQuery{TenantID: tenant, Statuses: []clerkinvite.Status{clerkinvite.StatusPending}})
			require.NoError(t, err)
			return len(pending)
		}
		deliver := func(limit int) {
			report, err := b.Deliver(t.Context(), &clerkinvite.DeliverOptions{Limit: limit})
			require.NoError(t, err)
			require.Equal(t, limit, report.Invited)
		}
		reserveMany("importing", 130)
		reserveMany("a", 5)
		reserveMany("z", 8)
		for _, tenant := range []string{"importing", "m", "z"} {
			_, err := b.Reserve(t.Context(), testkit.Params(tenant, "ada@example.com"))
			require.NoError(t, err)
		}
		deliver(3)
		require.Equal(t, []int{0, 1, 1, 1}, []int{invited("a"), invited("importing"), invited("m"), invited("z")})
		deliver(4)
		require.Equal(t, []int{2, 2, 2}, []int{invited("a"), invited("importing"), invited("z")})
		deliver(2) // the turns continue where they were
		require.Equal(t, []int{2, 3, 3}, []int{invited("a"), invited("importing"), invited("z")})
		deliver(12)
		require.Equal(t, []int{5, 8, 7}, []int{invited("a"), invited("importing"), invited("z")})
	})
}

// A few members that can share a request do not wait until those of an import have got a request each.
func TestDeliver_FewMembersDoNotWaitForAnImport(t *testing.T) {
	t.Parallel()
	for name, reserve := range map[string]func(b *testkit.Rig, ps []clerkinvite.InviteParams) error{
		"Reserve": func(b *testkit.Rig, ps []clerkinvite.InviteParams) (err error) {
			for _, p := range ps {
				_, one := b.Reserve(t.Context(), p)
				err = errors.Join(err, one)
			}
			return err
		},
		"ReserveMany": func(b *testkit.Rig, ps []clerkinvite.InviteParams) error {
			_, err := b.ReserveMany(t.Context(), ps)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := testkit.NewMemory(t, testkit.Options{})
			few, imported := testkit.People(5, "few"), testkit.People(300, "imported")
			for i := range imported {
				imported[i].TenantID, imported[i].PublicMetadata = "importing", map[string]any{"plan": "pro"}
			}
			_, err := b.ReserveMany(t.Context(), imported)
			require.NoError(t, err)
			require.NoError(t, reserve(b, few))
			ctx, cancel := context.WithCancel(t.Context())
			b.Clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
				if c == clerkinvitetest.CallFindUsers && w == clerkinvitetest.Before && b.Clerk.Requests()[c] > 1 {
					cancel() // the second pass begins
				}
			})
			_, err = b.Deliver(ctx, nil)
			require.ErrorIs(t, err, context.Canceled)
			for _, p := range few {
				b.RequireInvited(t, p.Email, 1)
			}
			require.Equal(t, 1, b.Clerk.Requests()[clerkinvitetest.CallCreateBulk])
		})
	}
}

// A host that has committed a reservation delivers it without the rest of the backlog.
func TestDeliverMembers(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		b.ReserveSome(t, 30)
		_, err := b.Reserve(t.Context(), testkit.Params("acme", testkit.Ada.Email))
		require.NoError(t, err)
		unknown := testkit.Acme("unknown@example.com")
		own := []clerkinvite.Ref{unknown, testkit.Ada, testkit.Acme("ada@example.com")}
		report, err := b.DeliverMembers(t.Context(), own)
		require.NoError(t, err)
		require.Equal(t, &clerkinvite.DeliverReport{Claimed: 1, Invited: 1}, report)
		b.RequireInvited(t, "ada@example.com", 1)
		require.Equal(t, 2, b.Clerk.RequestCount())
		require.Equal(t, 1, b.Clerk.Emails(), "the others wait for Run")

		for _, nothing := range [][]clerkinvite.Ref{own, {unknown}, {}, nil} {
			report, err = b.DeliverMembers(t.Context(), nothing)
			require.NoError(t, err)
			require.Equal(t, &clerkinvite.DeliverReport{}, report)
		}
		require.Equal(t, 2, b.Clerk.RequestCount())

		var invalid *clerkinvite.InvalidParamsError
		_, err = b.DeliverMembers(t.Context(), []clerkinvite.Ref{{TenantID: "tenant0", Email: "p0@example.com"}, {Email: "p1@example.com"}})
		require.ErrorAs(t, err, &invalid)
		require.Equal(t, "TenantID", invalid.Field)
		_, err = b.DeliverMembers(t.Context(), []clerkinvite.Ref{{TenantID: "tenant0", Email: "p0"}})
		require.ErrorAs(t, err, &invalid)
		require.Equal(t, "Email", invalid.Field)
		require.Equal(t, 2, b.Clerk.RequestCount(), "an invalid Ref stops the call before anything is delivered")
	})
}

func TestDeliverMembers_Many(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	refs := refsOf(b.ReserveSome(t, 230))
	report, err := b.DeliverMembers(t.Context(), refs)
	require.NoError(t, err)
	require.Equal(t, &clerkinvite.DeliverReport{Claimed: 230, Invited: 230}, report)
	require.Equal(t, 230, b.Clerk.Emails())
}

func refsOf(people []clerkinvite.InviteParams) (refs []clerkinvite.Ref) {
	for _, p := range people {
		refs = append(refs, clerkinvite.Ref{TenantID: p.TenantID, Email: p.Email})
	}
	return refs
}

// Each request takes so long that a lease is enough for two of them.
func TestDeliverMembers_MoreThanOneLease(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	refs := refsOf(b.ReserveSome(t, 45))
	b.Clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
		if c == clerkinvitetest.CallCreateBulk && w == clerkinvitetest.Before {
			b.Clock.Advance(20 * time.Second) // requests may start for 30 seconds
		}
	})
	report, err := b.DeliverMembers(t.Context(), refs)
	require.NoError(t, err)
	require.Equal(t, &clerkinvite.DeliverReport{Claimed: 45, Invited: 45}, report)
}

// Another process creates invitations in the background and has postponed this member: the caller
// does not wait for it.
func TestDeliverMembers_DoesNotWaitForBackgroundDeliveries(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	m, err := b.Reserve(t.Context(), testkit.Params("acme", testkit.Ada.Email))
	require.NoError(t, err)
	later := b.Clock.Now().Add(50 * time.Minute)
	postponed := *m
	postponed.NextAttemptAt = &later
	_, err = b.Store.Update(t.Context(), []clerkinvite.Change{{Old: m, New: &postponed}})
	require.NoError(t, err)
	for _, name := range []string{"POST /invitations", "POST /invitations/bulk", "turn deliver", "share POST /invitations"} {
		_, err = b.Store.SwapTime(t.Context(), name, time.Time{}, later)
		require.NoError(t, err)
	}
	report, err := b.DeliverMembers(t.Context(), []clerkinvite.Ref{testkit.Ada})
	require.NoError(t, err)
	require.Equal(t, &clerkinvite.DeliverReport{Claimed: 1, Invited: 1}, report)
	b.RequireInvited(t, "ada@example.com", 1)
}

// A pass meets the limits at different times, and creates more invitations in between. All members that
// wait for the same limit are due at the same time. Otherwise the earlier ones would use it up.
func TestDeliver_AllWhoWaitForALimitAreDueAtTheSameTime(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	b.Clerk.SetLimits(clerkinvitetest.Limits{
		Create:     clerkinvitetest.Limit{Requests: 4, Per: 2 * time.Hour},
		CreateBulk: clerkinvitetest.Limit{Requests: 1, Per: 30 * time.Minute},
	})
	b.Clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
		if c == clerkinvitetest.CallCreate && w == clerkinvitetest.Before {
			b.Clock.Advance(3 * time.Second)
		}
	})
	b.ReserveSome(t, 40)
	_, err := b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	b.ReserveSome(t, 50) // ten more
	_, err = b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	rows, err := b.Store.Due(t.Context(), clerkinvite.DueQuery{At: b.Clock.Now().Add(3 * time.Hour)})
	require.NoError(t, err)
	require.Len(t, rows, 36)
	for _, row := range rows {
		require.WithinDuration(t, *rows[0].NextAttemptAt, *row.NextAttemptAt, time.Second)
	}
}

// If Deliver returns no error, no member is due.
func TestDeliver_NilMeansNothingIsDue(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	b.ReserveEach(t, testkit.People(30, "p"))
	b.Clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
		if c == clerkinvitetest.CallCreateBulk && w == clerkinvitetest.Before {
			b.Clock.Advance(20 * time.Second) // requests may start for 30 seconds
		}
	})
	report, err := b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	due, err := b.Store.Due(t.Context(), clerkinvite.DueQuery{At: b.Clock.Now()})
	require.NoError(t, err)
	require.Empty(t, due, "Deliver said nil = nothing is left that is due now; report %+v", *report)
}

// Both addresses of a user are due: the primary address becomes active.
func TestDeliver_PrefersThePrimaryAddress(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		b.Clerk.AddUser(clerkinvitetest.UserSpec{Primary: 1, Emails: []clerkinvitetest.EmailSpec{
			{Address: "second@example.com", Verified: true}, {Address: "primary@example.com", Verified: true}}})
		for _, e := range []string{"second@example.com", "primary@example.com"} {
			_, err := b.Reserve(t.Context(), testkit.Params("acme", e))
			require.NoError(t, err)
			b.Clock.Advance(time.Second)
		}
		_, err := b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusActive, b.Member(t, "primary@example.com").Status)
	})
}

// Clerk responds 400 because of a fault of the instance: the look-up is not split to find a bad address.
func TestDeliver_InstanceFaultIsNotBisected(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	b.ReserveEach(t, testkit.People(100, "p"))
	b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallFindUsers, Times: -1, Status: 400, Code: "api_version_invalid"})
	_, err := b.Deliver(t.Context(), nil)
	require.Error(t, err)
	require.LessOrEqual(t, b.Clerk.Requests()[clerkinvitetest.CallFindUsers], 20)
}

// Clerk does not know the template of many rows that are due first.
func TestDeliver_UnknownTemplatesDoNotBlockOthers(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	for i := range 80 {
		p := testkit.Params("acme", fmt.Sprintf("bad%d@example.com", i))
		p.Template = "no_such_template"
		_, err := b.Reserve(t.Context(), p)
		require.NoError(t, err)
		b.Clock.Advance(time.Millisecond)
	}
	_, err := b.Reserve(t.Context(), testkit.Params("globex", "good@example.com"))
	require.NoError(t, err)
	for range 30 { // half an hour of a cron job that runs every minute
		_, _ = b.Deliver(t.Context(), nil)
		b.Clock.Advance(time.Minute)
	}
	require.Equal(t, 1, b.Clerk.EmailsTo("good@example.com"))
}

// The database fails after the claim, while Deliver gives the row back.
func TestDeliver_ReturnsTheStoreError(t *testing.T) {
	t.Parallel()
	down := errors.New("the database is down")
	for name, prepare := range map[string]func(b *testkit.Rig){
		"after a fault at Clerk": func(b *testkit.Rig) {
			b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallFindUsers, Status: 500, Code: "internal_clerk_error"})
		},
		"with too little of the lease left": func(b *testkit.Rig) {
			b.Clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
				if c == clerkinvitetest.CallFindUsers && w == clerkinvitetest.After {
					b.Clock.Advance(40 * time.Second)
				}
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, store := testkit.NewFaulty(t)
			_, err := b.Reserve(t.Context(), testkit.Params("acme", "ada@example.com"))
			require.NoError(t, err)
			store.Fail(down, false)
			prepare(b)
			_, err = b.Deliver(t.Context(), nil)
			require.ErrorIs(t, err, down)
		})
	}
}

// The invitation of a lost create is revoked in the dashboard while Deliver lists pending and then revoked invitations.
func TestDeliver_InvitationRevokedBetweenTwoLists(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
	_, err := b.TryInvite(t, "ada@example.com")
	require.Error(t, err)
	b.Clock.Advance(2 * time.Minute)
	n := 0
	b.Clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
		if c == clerkinvitetest.CallList && w == clerkinvitetest.Before {
			if n++; n == 2 {
				b.Clerk.RevokeInDashboard(b.Clerk.OpenInvitations("ada@example.com")[0].ID)
			}
		}
	})
	_, err = b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusRevoked, b.Member(t, "ada@example.com").Status)
}

// renaming is a Clerk that lists all invitations in another status.
type renaming struct {
	clerkinvite.ClerkAPI
	status clerkinvite.InvitationStatus // "" changes nothing
}

func (a *renaming) ListInvitations(ctx context.Context, q clerkinvite.InvitationQuery) ([]clerkinvite.Invitation, error) {
	list, err := a.ClerkAPI.ListInvitations(ctx, q)
	for i := range list {
		list[i].Status = cmp.Or(a.status, list[i].Status)
	}
	return list, err
}

// Clerk lists the invitation of a lost create in an unknown status: the row waits, and nothing is sent.
func TestDeliver_UnknownStatusPostponesTheRow(t *testing.T) {
	t.Parallel()
	clerk := clerkinvitetest.NewClerk()
	api := &renaming{ClerkAPI: clerk, status: "scheduled"}
	b := testkit.New(t, testkit.Options{}, clerk, api, clerkinvitetest.NewMemoryStore())
	clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
	_, err := b.TryInvite(t, "ada@example.com")
	require.Error(t, err)
	b.Clock.Advance(2 * time.Minute)
	report, err := b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, &clerkinvite.DeliverReport{Claimed: 1, Postponed: 1}, report)
	m := b.Member(t, "ada@example.com")
	require.Equal(t, clerkinvite.StatusReserved, m.Status)
	require.False(t, m.ClaimedUntil.After(b.Clock.Now()), "released")
	require.Equal(t, 1, b.CreateRequests())

	api.status = ""
	b.Clock.Advance(time.Hour)
	_, err = b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	b.RequireInvited(t, "ada@example.com", 1)
}

// A user with two verified addresses waits in two tenants, and the other tenant's row cannot be written. That is logged,
// and is not this tenant's problem.
func TestInvite_FailingRowOfAnotherTenantIsNoError(t *testing.T) {
	t.Parallel()
	var log testkit.LockedBuffer
	b := testkit.NewMemory(t, testkit.Options{})
	store := refusingStore{b.Store, refuseStatus("b@example.com", clerkinvite.StatusActive, errors.New("a constraint"))}
	b = testkit.New(t, testkit.Options{Configure: func(c *clerkinvite.Config) {
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	}}, b.Clerk, b.API, store)
	_, err := b.Reserve(t.Context(), testkit.Params("b", "b@example.com"))
	require.NoError(t, err)
	b.Clerk.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{{Address: "a@example.com", Verified: true}, {Address: "b@example.com", Verified: true}}})
	m, err := b.Invite(t.Context(), testkit.Params("a", "a@example.com"))
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusActive, m.Status)
	require.Contains(t, log.String(), "not all members of a user resolved")
	other, err := b.Get(t.Context(), clerkinvite.Ref{TenantID: "b", Email: "b@example.com"})
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusReserved, other.Status)
}

// The context is canceled after the claim and before any request.
func TestDeliver_CanceledAfterTheClaimReleasesTheRow(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	_, err := b.Reserve(t.Context(), testkit.Params("acme", "ada@example.com"))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	store := &hookStore{Store: b.Store, after: func(cs []clerkinvite.Change) {
		if cs[0].New.ClaimedUntil != nil {
			cancel()
		}
	}}
	c := testkit.New(t, testkit.Options{}, b.Clerk, b.API, store)
	_, err = c.Deliver(ctx, nil)
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, b.Clerk.RequestCount())
	m := b.Member(t, "ada@example.com")
	require.Zero(t, m.Attempts, "no request was made, so the claim does not count")
}

type hookStore struct {
	clerkinvite.Store
	before, after func([]clerkinvite.Change)
}

func (s *hookStore) Update(ctx context.Context, cs []clerkinvite.Change) ([]clerkinvite.Result, error) {
	if s.before != nil {
		s.before(cs)
	}
	r, err := s.Store.Update(ctx, cs)
	if s.after != nil {
		s.after(cs)
	}
	return r, err
}

// A process whose clock is ten years ahead has claimed the row.
func TestDeliver_ClaimOfAWrongClockExpires(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	wrong := testkit.New(t, testkit.Options{}, b.Clerk, b.API, b.Store)
	b.Clerk.SetNow(b.Clock.Now)
	wrong.Clock.Advance(10 * 365 * 24 * time.Hour)
	b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, Kind: clerkinvitetest.Reset})
	_, err := wrong.TryInvite(t, "ada@example.com")
	require.Error(t, err)
	b.Clock.Advance(48 * time.Hour)
	_, _ = b.Deliver(t.Context(), nil)
	_, err = b.TryInvite(t, "ada@example.com")
	require.NoError(t, err)
}

// The user is banned after a create whose response was lost: the row fails, and its invitation is revoked.
func TestPromise4_RefusalRevokesTheLostInvitation(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
	_, err := b.TryInvite(t, "eve@example.com")
	require.Error(t, err)
	b.Clerk.AddUser(clerkinvitetest.UserSpec{Banned: true, Emails: []clerkinvitetest.EmailSpec{{Address: "eve@example.com", Verified: true}}})
	b.Clock.Advance(2 * time.Minute)
	_, err = b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusFailed, b.Member(t, "eve@example.com").Status)
	require.Empty(t, b.Clerk.OpenInvitations("eve@example.com"))
}

// Revoking left-over invitations takes most of the time to settle: all rows are settled nevertheless.
func TestDeliver_SlowRevocationsDoNotKeepRowsFromSettling(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := testkit.NewMemory(t, testkit.Options{Configure: func(c *clerkinvite.Config) { c.Lease = time.Second }})
		for _, e := range []string{"a@example.com", "b@example.com", "c@example.com"} {
			b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
			_, err := b.TryInvite(t, e)
			require.Error(t, err)
			b.Clerk.AddVerifiedUser(e)
		}
		b.Clock.Advance(2 * time.Minute)
		b.Clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
			if c == clerkinvitetest.CallList && w == clerkinvitetest.Before {
				time.Sleep(400 * time.Millisecond) // three of them are longer than the second that one has
			}
		})
		_, err := b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		b.Clerk.OnCall(nil)
		for _, e := range []string{"a@example.com", "b@example.com", "c@example.com"} {
			require.Equal(t, clerkinvite.StatusActive, b.Member(t, e).Status)
			require.Empty(t, b.Clerk.OpenInvitations(e), e)
		}
	})
}

func (a timeless) CreateInvitation(ctx context.Context, r clerkinvite.InvitationRequest) (*clerkinvite.Invitation, error) {
	inv, err := a.ClerkAPI.CreateInvitation(ctx, r)
	if inv != nil {
		inv.CreatedAt, inv.ExpiresAt = time.Time{}, nil
	}
	return inv, err
}

func (a foreignKey) ListInvitations(ctx context.Context, q clerkinvite.InvitationQuery) ([]clerkinvite.Invitation, error) {
	list, err := a.ClerkAPI.ListInvitations(ctx, q)
	for i := range list {
		meta := string(list[i].PublicMetadata)
		list[i].PublicMetadata = []byte(meta[:len(meta)-1] + `,"ClerkInvite":{"id":"x","send":7},"clerKinvite":"v2"}`)
	}
	return list, err
}

// Clerk refuses two addresses of one look-up: only these two fail.
func TestDeliver_TwoRefusedAddressesInOneLookUp(t *testing.T) {
	t.Parallel()
	clerk := clerkinvitetest.NewClerk()
	b := testkit.New(t, testkit.Options{}, clerk, refusingAPI{clerk}, clerkinvitetest.NewMemoryStore())
	b.ReserveEach(t, testkit.People(10, "p"))
	report, err := b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, &clerkinvite.DeliverReport{Claimed: 10, Invited: 8, Refused: 2}, report)
}

type refusingAPI struct{ clerkinvite.ClerkAPI }

func (a refusingAPI) FindUsers(ctx context.Context, q clerkinvite.UserQuery) ([]clerkinvite.User, error) {
	if slices.Contains(q.Emails, "p0@example.com") || slices.Contains(q.Emails, "p9@example.com") {
		return nil, &clerkinvite.APIError{StatusCode: 422, Code: "form_param_format_invalid", Meta: map[string]any{"param_name": "email_address"}}
	}
	return a.ClerkAPI.FindUsers(ctx, q)
}

// An invitation whose ID cannot be read does not count as no invitation, or as another one.
func TestLookDoesNotGuessAboutUnreadableInvitations(t *testing.T) {
	t.Parallel()
	for name, odd := range map[string]clerkinvite.Invitation{
		"the same address": {Email: "ada@example.com", Status: clerkinvite.InvitationPending}, "no address": {}, "another address": {Email: "bob@example.com"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clerk := clerkinvitetest.NewClerk()
			b := testkit.New(t, testkit.Options{}, clerk, oddList{clerk, odd}, clerkinvitetest.NewMemoryStore())
			b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, When: clerkinvitetest.Before, Kind: clerkinvitetest.HTML502})
			_, err := b.TryInvite(t, "ada@example.com")
			require.Error(t, err)
			b.Clock.Advance(time.Hour)
			m, err := b.TryInvite(t, "ada@example.com")
			if name == "another address" {
				require.NoError(t, err)
				require.Equal(t, clerkinvite.StatusPending, m.Status)
				return
			}
			require.ErrorContains(t, err, "ID cannot be read")
			require.Zero(t, b.Clerk.Emails())
		})
	}
}

// oddList adds an invitation to each list.
type oddList struct {
	clerkinvite.ClerkAPI
	odd clerkinvite.Invitation
}

func (a oddList) ListInvitations(ctx context.Context, q clerkinvite.InvitationQuery) ([]clerkinvite.Invitation, error) {
	list, err := a.ClerkAPI.ListInvitations(ctx, q)
	return append([]clerkinvite.Invitation{a.odd}, list...), err
}

// The response to a shared request is lost, and Clerk's list does not show the metadata: the invitations are adopted,
// and no person gets a second email, whatever the clocks say.
func TestPromise3_LostBulkCreateWithoutMetadata(t *testing.T) {
	t.Parallel()
	for name, ahead := range map[string]time.Duration{"same clock": 0, "Clerk's clock is ahead": 5 * time.Minute, "Clerk's clock is behind": -5 * time.Minute} {
		for _, recovery := range testkit.Recoveries() {
			t.Run(name+"/"+recovery.Name, func(t *testing.T) {
				t.Parallel()
				testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
					b.Clerk.SetBehavior(clerkinvitetest.Behavior{ListHidesMetadata: true})
					b.Clerk.SetNow(func() time.Time { return b.Clock.Now().Add(ahead) })
					b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreateBulk, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
					people := testkit.People(10, "p")
					results, err := b.InviteMany(t.Context(), people, nil)
					require.NoError(t, err)
					for _, r := range results {
						require.Error(t, r.Err)
					}
					for _, p := range people {
						b.Recover(t, recovery, p.Email)
						m := b.Member(t, p.Email)
						require.Equal(t, clerkinvite.StatusPending, m.Status)
						require.Equal(t, 1, b.Clerk.EmailsTo(p.Email))
						require.Equal(t, b.Clerk.OpenInvitations(p.Email)[0].ID, m.InvitationID)
					}
					w, err := b.Clerk.Accept(people[0].Email)
					require.NoError(t, err)
					b.Clock.Advance(time.Hour)
					w.At = b.Clock.Now()
					b.Receive(t, w)
					require.Equal(t, clerkinvite.StatusActive, b.Member(t, people[0].Email).Status)
				})
			})
		}
	}
}

// Another application's or the dashboard's invitation is a reason for ignore_existing only if it cannot be the
// member's own invitation.
func TestPromise3_InvitationsThatMayBeOnesOwn(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	lost := clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, When: clerkinvitetest.Before, Kind: clerkinvitetest.Reset}
	for name, c := range map[string]struct {
		metadata      map[string]any
		before, after time.Duration // between the foreign invitation and the reservation
		emails        int           // to the member
	}{
		"long before":                    {nil, 11 * time.Minute, 0, 1},
		"just before":                    {nil, time.Minute, 0, 0},
		"after":                          {nil, 0, time.Second, 0},
		"long after":                     {nil, 0, time.Hour, 0},
		"after, with another's metadata": {map[string]any{"app": "another"}, 0, time.Second, 1},
		"after, with another's marker":   {map[string]any{"clerkinvite": map[string]any{"id": "018f0000-0000-7000-8000-000000000000", "send": 1}}, 0, time.Second, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
				var foreign clerkinvite.Invitation
				if c.after == 0 {
					foreign = b.Clerk.CreateForeign(email, c.metadata)
					b.Clock.Advance(c.before)
				}
				b.Clerk.Fail(lost)
				_, err := b.TryInvite(t, email)
				require.Error(t, err)
				if c.after > 0 {
					b.Clock.Advance(c.after)
					foreign = b.Clerk.CreateForeign(email, c.metadata)
				}
				b.Recover(t, testkit.Recoveries()[0], email)
				m := b.Member(t, email)
				require.Equal(t, clerkinvite.StatusPending, m.Status)
				require.Equal(t, c.emails, b.Clerk.EmailsTo(email))
				require.Equal(t, c.emails == 0, m.InvitationID == foreign.ID)
				require.Len(t, b.Clerk.OpenInvitations(email), 1+c.emails, "the other's stays")

				w, err := b.Clerk.AcceptInvitation(foreign.ID)
				require.NoError(t, err)
				b.Receive(t, w)
				require.Equal(t, clerkinvite.StatusActive, b.Member(t, email).Status)
			})
		})
	}
}

// A copy of the create, or the dashboard's invitation between the reservation and the create, arrives first, and Clerk
// rejects the create. The first attempt waits, the second adopts.
func TestPromise3_InvitationMadeDuringTheFirstAttempt(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		_, err := b.Reserve(t.Context(), testkit.Params("acme", email))
		require.NoError(t, err)
		b.Clock.Advance(time.Minute)
		foreign := b.Clerk.CreateForeign(email, nil)
		report, err := b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, 1, report.Postponed)
		b.Clock.Advance(time.Hour)
		_, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, foreign.ID, b.Member(t, email).InvitationID)
		require.Zero(t, b.Clerk.EmailsTo(email))
	})
}

// An invitation that another tenant's member refers to is not this member's, although Clerk shows no metadata.
func TestPromise3_AnotherTenantsInvitationWithoutMetadata(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		b.Clerk.SetBehavior(clerkinvitetest.Behavior{ListHidesMetadata: true})
		people := testkit.People(2, "p")
		for _, p := range people {
			p.TenantID = "globex"
			_, err := b.Reserve(t.Context(), p)
			require.NoError(t, err)
		}
		b.Clock.Advance(time.Second)
		_, err := b.InviteMany(t.Context(), people, nil)
		require.NoError(t, err)
		_, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		for _, p := range people {
			require.Equal(t, 2, b.Clerk.EmailsTo(p.Email))
			require.Len(t, b.Clerk.OpenInvitations(p.Email), 2)
		}
	})
}

// hidesMetadata is a Clerk whose lists show no metadata.
type hidesMetadata struct{ clerkinvite.ClerkAPI }

func (c hidesMetadata) ListInvitations(ctx context.Context, q clerkinvite.InvitationQuery) ([]clerkinvite.Invitation, error) {
	list, err := c.ClerkAPI.ListInvitations(ctx, q)
	for i := range list {
		list[i].PublicMetadata = nil
	}
	return list, err
}

// Clerk shows no metadata, and beside the lost invitation another tenant's is listed.
func TestPromise3_LostCreateBesideAnotherTenantsInvitation(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	clerk := clerkinvitetest.NewClerk()
	b := testkit.New(t, testkit.Options{}, clerk, hidesMetadata{clerk}, clerkinvitetest.NewMemoryStore())
	b.FailCreates(clerkinvitetest.Fault{When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
	_, err := b.TryInvite(t, email)
	require.Error(t, err)
	clerk.ClearFaults()
	other, err := b.Invite(t.Context(), testkit.Params("globex", email))
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusPending, other.Status)
	require.Equal(t, 2, clerk.EmailsTo(email))

	b.Clock.Advance(time.Hour)
	_, err = b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusPending, b.Member(t, email).Status)
	require.Equal(t, 2, clerk.EmailsTo(email), "the lost one was adopted")
}

// An attempt creates an invitation. Before it saves the result, its member is revoked or purged, and another tenant's member adopts
// the invitation. The adopter keeps it: without metadata, it may be the invitation whose response the adopter has lost, and an
// organization has only one invitation for both.
func TestPromise3_AdoptedInvitationOfAnEndedAttemptStays(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	for _, organization := range []string{"", org} {
		for _, purged := range []bool{false, true} {
			for _, adopted := range []bool{true, false} {
				t.Run(fmt.Sprintf("organization %q/purged %v/adopted %v", organization, purged, adopted), func(t *testing.T) {
					t.Parallel()
					clerk := clerkinvitetest.NewClerk()
					var api clerkinvite.ClerkAPI = hidesMetadata{clerk}
					create := clerkinvitetest.CallCreate
					if organization != "" {
						api, create = clerk, clerkinvitetest.CallOrganizationCreate
					}
					b := testkit.New(t, testkit.Options{Organization: organization}, clerk, api, clerkinvitetest.NewMemoryStore())
					clerk.Fail(clerkinvitetest.Fault{Call: create, When: clerkinvitetest.Before, Kind: clerkinvitetest.Reset})
					globex := testkit.Params("globex", email)
					_, err := b.Invite(t.Context(), globex)
					require.Error(t, err)
					clerk.ClearFaults()
					b.Clock.Advance(time.Hour)

					var created atomic.Bool
					clerk.OnCall(func(_ context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
						if call != create || when != clerkinvitetest.After || created.Swap(true) {
							return
						}
						var invite, purge error
						if adopted {
							_, invite = b.Invite(t.Context(), globex)
						}
						_, revoke := b.Revoke(t.Context(), testkit.Ada)
						if purged {
							b.Clock.Advance(time.Hour) // the claim ends
							purge = b.Purge(t.Context(), testkit.Ada)
						}
						assert.NoError(t, errors.Join(invite, revoke, purge))
					})
					_, err = b.TryInvite(t, email)
					require.ErrorIs(t, err, clerkinvite.ErrConflict)
					if !adopted {
						require.Empty(t, clerk.OpenInvitations(email))
						return
					}
					require.Len(t, clerk.OpenInvitations(email), 1)
					other, err := b.Get(t.Context(), clerkinvite.Ref{TenantID: "globex", Email: email})
					require.NoError(t, err)
					require.Equal(t, clerkinvite.StatusPending, other.Status)
					require.Equal(t, 1, clerk.EmailsTo(email))
				})
			}
		}
	}
}

// A bulk request is the third that fails, and one of its attempts has left it before.
func TestDeliver_LastFailureWithAnAttemptThatNeedsItsOwnRequest(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	again := testkit.Params("acme", "again@example.com")
	_, err := b.Invite(t.Context(), testkit.Params("globex", again.Email))
	require.NoError(t, err)
	_, err = b.Invite(t.Context(), again)
	require.NoError(t, err)
	_, err = b.Revoke(t.Context(), clerkinvite.Ref{TenantID: again.TenantID, Email: again.Email})
	require.NoError(t, err)
	b.Clock.Advance(time.Minute)
	_, err = b.ReserveMany(t.Context(), testkit.People(25, "p"))
	require.NoError(t, err)
	b.Clock.Advance(time.Minute)
	_, err = b.ReserveMany(t.Context(), []clerkinvite.InviteParams{again})
	require.NoError(t, err)
	b.Clerk.ResetCounts()
	b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreateBulk, Kind: clerkinvitetest.JSON500, Times: -1})
	_, err = b.Deliver(t.Context(), nil)
	var clerkErr *clerkinvite.ClerkInvitationError
	require.ErrorAs(t, err, &clerkErr)
	require.Equal(t, 3, b.Clerk.Requests()[clerkinvitetest.CallCreateBulk])

	b.Clerk.ClearFaults()
	b.Clock.Advance(2 * time.Hour)
	_, err = b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusPending, b.Member(t, again.Email).Status)
}

// Clerk goes down in the middle of a bisection.
func TestDeliver_BisectionEndsWhenClerkGoesDown(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	_, err := b.ReserveMany(t.Context(), testkit.People(100, "p"))
	require.NoError(t, err)
	b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallFindUsers, Email: "p0@example.com", Status: 403, Times: -1})
	var asked atomic.Int64
	b.Clerk.OnCall(func(_ context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
		if call == clerkinvitetest.CallFindUsers && when == clerkinvitetest.Before && asked.Add(1) == 3 {
			b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallFindUsers, Kind: clerkinvitetest.JSON500, Times: -1})
		}
	})
	_, err = b.Deliver(t.Context(), nil)
	require.Error(t, err)
	require.Less(t, asked.Load(), int64(12))
}

// Clerk rejects every look-up and names the parameter, as after a change of its API. No member fails because of it.
func TestDeliver_RejectingAllLookUpsFailsNoMember(t *testing.T) {
	t.Parallel()
	b, api := newSelective(t)
	ps := testkit.People(120, "p")
	b.ReserveEach(t, ps)
	api.findUsers = func(clerkinvite.UserQuery) error {
		return &clerkinvite.APIError{StatusCode: 422, Code: "form_param_unknown", Meta: map[string]any{"param_name": "email_address"}}
	}
	report, err := b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, &clerkinvite.DeliverReport{Claimed: 120, Postponed: 120}, report)
	require.LessOrEqual(t, api.requests, 4)
	api.findUsers = nil
	b.Clock.Advance(time.Hour)
	_, err = b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	b.RequireEachInvitedOnce(t, ps)
}

// Clerk rejects a create because of a user even with ignore_existing, and shows no such user.
func TestDeliver_RejectedWithIgnoreExistingEndsTheRow(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	b.FailCreates(clerkinvitetest.Fault{Email: "odd@example.com", Status: 422, Code: "form_identifier_exists", Times: -1})
	_, err := b.Reserve(t.Context(), testkit.Params("acme", "odd@example.com"))
	require.NoError(t, err)
	for i := range 20 {
		_, err := b.Reserve(t.Context(), testkit.Params("acme", fmt.Sprintf("p%d@example.com", i)))
		require.NoError(t, err)
		_, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		b.Clock.Advance(10 * time.Minute)
	}
	m := b.Member(t, "odd@example.com")
	require.Equal(t, []any{clerkinvite.StatusFailed, "form_identifier_exists"}, []any{m.Status, m.Reason})
	require.LessOrEqual(t, m.Attempts, 6)
}

// oddIDs is a Clerk whose invitations have IDs that no row can store.
type oddIDs struct {
	clerkinvite.ClerkAPI
	email string
}

func (c oddIDs) CreateInvitations(ctx context.Context, rs []clerkinvite.InvitationRequest) ([]clerkinvite.Invitation, error) {
	list, err := c.ClerkAPI.CreateInvitations(ctx, rs)
	for i := range list {
		if list[i].Email == c.email {
			list[i].ID = "inv_" + string(bytes.Repeat([]byte("x"), 250))
		}
	}
	return list, err
}

// An invitation that cannot be stored does not keep the other members' invitations from being written.
func TestDeliver_IDThatCannotBeStored(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		people := testkit.People(3, "p")
		_, err := b.ReserveMany(t.Context(), people)
		require.NoError(t, err)
		odd := testkit.New(t, testkit.Options{}, b.Clerk, oddIDs{b.API, people[1].Email}, b.Store)
		report, err := odd.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, 2, report.Invited)
		b.Clock.Advance(time.Hour)
		_, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		b.RequireEachInvitedOnce(t, people)
	})
}

// A rejection right after an outage is not final. The member fails only if Clerk rejects the request again.
func TestDeliver_RejectedOnceAfterAnOutage(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	_, err := b.Reserve(t.Context(), testkit.Params("acme", "ada@example.com"))
	require.NoError(t, err)
	template := clerkinvitetest.Fault{Status: 422, Code: "form_param_value_invalid", Meta: map[string]any{"param_name": "template_slug"}}
	for _, f := range []clerkinvitetest.Fault{{Kind: clerkinvitetest.JSON500}, {Kind: clerkinvitetest.JSON500}, template} {
		b.Clerk.ClearFaults()
		b.FailCreates(f)
		_, _ = b.Deliver(t.Context(), nil)
		require.Equal(t, clerkinvite.StatusReserved, b.Member(t, "ada@example.com").Status)
		b.Clock.Advance(2 * time.Hour)
	}
	b.Clerk.ClearFaults()
	b.FailCreates(template)
	_, err = b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusFailed, b.Member(t, "ada@example.com").Status)
}

// Only the same response to two attempts proves that a user who is not shown has the address. That an
// attempt before failed for another reason proves nothing.
func TestDeliver_HiddenHolderNeedsTwoRejections(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	_, err := b.Reserve(t.Context(), testkit.Params("acme", "ada@example.com"))
	require.NoError(t, err)
	taken := clerkinvitetest.Fault{Status: 422, Code: "form_identifier_exists"}
	b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallFindUsers, Kind: clerkinvitetest.JSON500, Times: -1})
	_, err = b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	for _, c := range []struct {
		wait   time.Duration
		emails int
	}{{2 * time.Hour, 0}, {time.Second, 0}, {2 * time.Hour, 1}} { // the second attempt is too early
		b.Clerk.ClearFaults()
		b.FailCreates(taken)
		b.Clock.Advance(c.wait)
		_, err = b.DeliverMembers(t.Context(), []clerkinvite.Ref{testkit.Ada})
		require.NoError(t, err)
		require.Equal(t, c.emails, b.Clerk.EmailsTo("ada@example.com"))
	}
}

// An admin clicks on Invite or Resend again and again, also in a browser that cancels the previous request, and Clerk has
// another reason than the person to reject the creates. Only rejections that are a backoff apart are final.
func TestInvite_QuickAttemptsDecideNothing(t *testing.T) {
	t.Parallel()
	verbs := map[string]func(ctx context.Context, b *testkit.Rig) error{
		"Invite": func(ctx context.Context, b *testkit.Rig) error {
			_, err := b.Invite(ctx, testkit.Params("acme", "ada@example.com"))
			return err
		},
		"Resend": func(ctx context.Context, b *testkit.Rig) error {
			_, err := b.Resend(ctx, testkit.Ada)
			return err
		},
		"DeliverMembers": func(ctx context.Context, b *testkit.Rig) error {
			_, err := b.DeliverMembers(ctx, []clerkinvite.Ref{testkit.Ada})
			return err
		},
	}
	interruptions := map[string]func(t *testing.T, b *testkit.Rig, call func(context.Context, *testkit.Rig) error){
		"none": func(*testing.T, *testkit.Rig, func(context.Context, *testkit.Rig) error) {},
		"canceled": func(t *testing.T, b *testkit.Rig, call func(context.Context, *testkit.Rig) error) {
			ctx, cancel := context.WithCancel(t.Context())
			b.Clerk.OnCall(func(context.Context, clerkinvitetest.Call, clerkinvitetest.When) { cancel() })
			require.ErrorIs(t, call(ctx, b), context.Canceled)
			b.Clerk.OnCall(nil)
		},
		"rate limit": func(t *testing.T, b *testkit.Rig, call func(context.Context, *testkit.Rig) error) {
			b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallFindUsers, Status: 429, RetryAfter: time.Second})
			_ = call(t.Context(), b) // DeliverMembers continues without an error
			b.Clock.Advance(time.Second)
		},
	}
	for name, call := range verbs {
		for interruption, interrupt := range interruptions {
			t.Run(name+"/"+interruption, func(t *testing.T) {
				t.Parallel()
				testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
					want := clerkinvite.StatusFailed
					if name == "Resend" {
						want = clerkinvite.StatusPending // on the older invitation
						b.MustInvite(t, "ada@example.com")
						b.Clock.Advance(time.Hour)
					} else {
						_, err := b.Reserve(t.Context(), testkit.Params("acme", "ada@example.com"))
						require.NoError(t, err)
					}
					reject := clerkinvitetest.Fault{Status: 422, Code: "form_param_value_invalid", Meta: map[string]any{"param_name": "template_slug"}, Times: -1}
					for range 5 {
						b.FailCreates(reject)
						_ = call(t.Context(), b)
						require.True(t, b.Member(t, "ada@example.com").Due())
						b.Clerk.ClearFaults()
						b.Clock.Advance(time.Second)
						interrupt(t, b, call)
					}
					b.FailCreates(reject)
					b.Clock.Advance(b.Member(t, "ada@example.com").NextAttemptAt.Sub(b.Clock.Now()))
					_ = call(t.Context(), b)
					m := b.Member(t, "ada@example.com")
					require.False(t, m.Due())
					require.Equal(t, []any{want, "form_param_value_invalid"}, []any{m.Status, m.Reason})
				})
			})
		}
	}
}

// A database whose clock was hours ahead leaves claims in the future. They own nothing, also when that
// time comes.
func TestInvite_ClaimFromAClockThatWasAhead(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		b.Clock.Advance(3 * time.Hour)
		b.FailCreates(clerkinvitetest.Fault{Kind: clerkinvitetest.JSON500}) // uncertain: the claim stays
		_, err := b.TryInvite(t, "ada@example.com")
		require.Error(t, err)
		require.NotNil(t, b.Member(t, "ada@example.com").ClaimedUntil)
		b.Clerk.ClearFaults()
		b.Clock.Advance(-90 * time.Minute)
		b.MustInvite(t, "ada@example.com")
	})
}

// Rows that only a create can decide wait for its limit without a statement each.
func TestDeliver_OneStatementForAllWhoWaitForTheSingleLimit(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	store := &countingStore{Store: b.Store}
	b = testkit.New(t, testkit.Options{}, b.Clerk, b.API, store)
	people := testkit.People(60, "p")
	for i := range people {
		people[i].PublicMetadata = map[string]any{"team": 7} // a request each
	}
	_, err := b.ReserveMany(t.Context(), people)
	require.NoError(t, err)
	b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, Status: 429, Code: "too_many_requests", RetryAfter: time.Hour, Times: -1})
	store.updates.Store(0)
	report, err := b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, 60, report.Postponed)
	require.LessOrEqual(t, store.updates.Load(), int64(4))
	require.Equal(t, 1, b.CreateRequests())
}

// countingStore counts the statements that change members.
type countingStore struct {
	clerkinvite.Store
	updates atomic.Int64
}

func (s *countingStore) Update(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
	s.updates.Add(1)
	return s.Store.Update(ctx, changes)
}

// A caller who goes while Clerk is asked costs the member no attempt.
func TestInvite_CanceledWhileLooking(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		b.FailCreates(clerkinvitetest.Fault{Kind: clerkinvitetest.JSON500})
		_, err := b.TryInvite(t, "ada@example.com")
		require.Error(t, err)
		b.Clock.Advance(2 * time.Hour)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		b.Clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
			if c == clerkinvitetest.CallList && w == clerkinvitetest.Before {
				cancel()
			}
		})
		_, err = b.Invite(ctx, testkit.Params("acme", "ada@example.com"))
		require.ErrorIs(t, err, context.Canceled)
		b.Clerk.OnCall(nil)
		m := b.Member(t, "ada@example.com")
		require.Equal(t, 1, m.Attempts)
		require.False(t, m.ClaimedUntil.After(b.Clock.Now()), "released")
		require.False(t, m.NextAttemptAt.After(b.Clock.Now()))
	})
}

// The machine's clock is set back while the result is written, and another process has changed the row first: the second
// write measures the clock again.
func TestInvite_ClockIsSetBetweenTwoWrites(t *testing.T) {
	t.Parallel()
	clerk, memory, clock := clerkinvitetest.NewClerk(), clerkinvitetest.NewMemoryStore(), testkit.NewClock()
	now := clock.Now()
	clocked := testkit.ClockedStore{Store: memory, Now: func() time.Time { return now }}
	var once sync.Once
	store := &beforeUpdate{Store: clocked, do: func(row *clerkinvite.Member) {
		once.Do(func() {
			clock.Advance(-10 * time.Minute)
			changed := row.Clone()
			changed.Role = "viewer"
			_, err := memory.Update(t.Context(), []clerkinvite.Change{{Old: row, New: changed}})
			require.NoError(t, err)
		})
	}}
	b := testkit.New(t, testkit.Options{Clock: clock, Configure: func(cfg *clerkinvite.Config) { cfg.Store = store }}, clerk, clerk, memory)
	m := b.MustInvite(t, "ada@example.com")
	require.Equal(t, "viewer", m.Role)
	require.WithinDuration(t, now, *m.SettledAt, time.Second)
}

// beforeUpdate is a store that calls do with the first row before each Update.
type beforeUpdate struct {
	clerkinvite.Store
	do func(row *clerkinvite.Member)
}

func (s *beforeUpdate) Update(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
	if len(changes) > 0 {
		s.do(changes[0].Old)
	}
	return s.Store.Update(ctx, changes)
}

var errRefusedRow = errors.New("the row violates a constraint")

// newRefusingClaims returns a rig whose database refuses all updates of a tenant's rows, as with a constraint that is NOT VALID.
func newRefusingClaims(t *testing.T) *testkit.Rig {
	t.Helper()
	b := testkit.NewMemory(t, testkit.Options{})
	return testkit.New(t, testkit.Options{Clock: b.Clock}, b.Clerk, b.API, refusingStore{b.Store, refuseTenant("bad")})
}

// Members that the database refuses to claim stay due. However many there are, other tenants' imports are delivered.
func TestMembersThatCannotBeClaimedBlockNobody(t *testing.T) {
	t.Parallel()
	b := newRefusingClaims(t)
	for i := range 250 {
		_, err := b.Reserve(t.Context(), testkit.Params("bad", fmt.Sprintf("p%d@example.com", i)))
		require.NoError(t, err)
	}
	_, err := b.ReserveMany(t.Context(), testkit.People(3, "q"))
	require.NoError(t, err)
	report, err := b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, clerkinvite.DeliverReport{Claimed: 3, Invited: 3}, *report)
	b.RequireEachInvitedOnce(t, testkit.People(3, "q"))

	// The limit counts only what was claimed.
	_, err = b.ReserveMany(t.Context(), testkit.People(3, "r"))
	require.NoError(t, err)
	report, err = b.Deliver(t.Context(), &clerkinvite.DeliverOptions{Limit: 2})
	require.NoError(t, err)
	require.Equal(t, clerkinvite.DeliverReport{Claimed: 2, Invited: 2}, *report)
}

// A transaction keeps a due member's row locked. The claim ends after 15 seconds with an error, and the members stay due.
func TestDeliver_ClaimThatBlocks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		clerk, store := clerkinvitetest.NewClerk(), &hangingStore{clerkinvitetest.NewMemoryStore(), true}
		b := testkit.New(t, testkit.Options{}, clerk, clerk, store)
		_, err := b.ReserveMany(t.Context(), testkit.People(3, "p"))
		require.NoError(t, err)
		began := time.Now()
		report, err := b.Deliver(t.Context(), nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 15*time.Second, time.Since(began))
		require.Zero(t, *report)
		require.Zero(t, b.Clerk.Emails())

		store.hangs = false
		_, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		b.RequireEachInvitedOnce(t, testkit.People(3, "p"))
	})
}

// InviteMany does not wait for a member that the database refuses to claim.
func TestInviteManyWithAMemberThatCannotBeClaimed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ wait, turnTaken bool }{{}, {wait: true}, {wait: true, turnTaken: true}} {
		synctest.Test(t, func(t *testing.T) {
			b := newRefusingClaims(t)
			if c.turnTaken {
				_, err := b.Store.SwapTime(t.Context(), "turn deliver", time.Time{}, b.Clock.Now().Add(100*time.Second))
				require.NoError(t, err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			var clock sync.WaitGroup
			clock.Go(func() {
				for ctx.Err() == nil {
					time.Sleep(time.Second)
					b.Clock.Advance(time.Second)
				}
			})
			defer func() { cancel(); clock.Wait() }()
			var last clerkinvite.InviteManyProgress
			results, err := b.InviteMany(ctx, []clerkinvite.InviteParams{testkit.Params("bad", "p@example.com"), testkit.Params("acme", "q@example.com")},
				&clerkinvite.InviteManyOptions{Wait: c.wait, Progress: func(p clerkinvite.InviteManyProgress) { last = p }})
			require.NoError(t, err)
			require.Equal(t, clerkinvite.InviteManyProgress{Total: 2, Invited: 1, Failed: 1}, last)
			require.Equal(t, errRefusedRow, results[0].Err)
			require.Equal(t, clerkinvite.StatusReserved, results[0].Member.Status)
			require.NoError(t, results[1].Err)
			require.Equal(t, clerkinvite.StatusPending, results[1].Member.Status)
		})
	}
}
