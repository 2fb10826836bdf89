package clerkinvite_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// One refused request is spent per endpoint, and the other create endpoint is used while one is limited.
func TestPromise8_RateLimitIsRemembered(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		b.Clerk.SetLimits(clerkinvitetest.DocumentedLimits())
		b.Clerk.AddVerifiedUser("user@example.com")
		for i := range 100 + 25 {
			b.MustInvite(t, fmt.Sprintf("p%d@example.com", i))
		}
		require.Equal(t, 100+1+25, b.CreateRequests())
		for i := range 3 {
			_, err := b.TryInvite(t, fmt.Sprintf("late%d@example.com", i))
			status, message := clerkinvite.HTTPError(err)
			require.Equal(t, 502, status)
			require.Equal(t, "invitation service unavailable; the invitation is saved and will be retried", message)
			wait, ok := clerkinvite.RetryAfter(err)
			require.True(t, ok)
			require.Positive(t, wait)
			require.Equal(t, 100+1+25+1, b.CreateRequests())
		}
		require.Equal(t, clerkinvite.StatusActive, b.MustInvite(t, "user@example.com").Status, "linking continues")

		// Another process reads it from the store.
		other := testkit.New(t, testkit.Options{}, b.Clerk, b.API, b.Store)
		other.ReserveEach(t, testkit.People(3, "later"))
		report, err := other.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, &clerkinvite.DeliverReport{Claimed: 3, Postponed: 3}, report)
		require.Equal(t, 100+1+25+1, b.CreateRequests())

		b.Clerk.SetNow(b.Clock.Now)
		b.Clock.Advance(time.Hour + time.Minute)
		report, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, 6, report.Invited)
		require.Equal(t, 131, b.Clerk.Emails())
	})
}

// The turn of a process with a longer lease, or with a clock that is ahead, is not a rate limit: an interactive Invite
// continues.
func TestRateLimit_TurnOfAnotherProcessIsNotALimit(t *testing.T) {
	t.Parallel()
	for name, configure := range map[string]func(*clerkinvite.Config){
		"longer lease": func(c *clerkinvite.Config) { c.Lease = 10 * time.Minute },
		"clock ahead": func(c *clerkinvite.Config) {
			now := c.Now
			c.Now = func() time.Time { return now().Add(5 * time.Minute) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := testkit.NewMemory(t, testkit.Options{Configure: func(c *clerkinvite.Config) { c.Lease = time.Second }})
			cfg := clerkinvite.Config{API: b.API, Store: b.Store, Now: b.Clock.Now}
			configure(&cfg)
			other, err := clerkinvite.New(cfg)
			require.NoError(t, err)
			// With their own metadata, each needs its own request.
			single := func(email string) clerkinvite.InviteParams {
				p := testkit.Params("acme", email)
				p.PublicMetadata = map[string]any{"plan": "pro"}
				return p
			}
			_, err = other.Reserve(t.Context(), single("theirs@example.com"))
			require.NoError(t, err)
			inside, answer := make(chan struct{}), make(chan struct{})
			var once sync.Once
			b.Clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
				if c == clerkinvitetest.CallCreate && w == clerkinvitetest.Before {
					once.Do(func() {
						close(inside)
						<-answer
					})
				}
			})
			var delivering sync.WaitGroup
			release := sync.OnceFunc(func() {
				close(answer)
				delivering.Wait()
			})
			defer release()
			delivering.Go(func() {
				if _, err := other.Deliver(t.Context(), nil); err != nil {
					t.Error(err)
				}
			})
			<-inside
			_, err = b.Reserve(t.Context(), single("ours@example.com"))
			require.NoError(t, err)
			report, err := b.Deliver(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, &clerkinvite.DeliverReport{}, report, "the other process has the turn")
			release()

			b.Clock.Advance(time.Second)
			_, err = b.Invite(t.Context(), single("interactive@example.com"))
			require.NoError(t, err, "Clerk has refused nothing")
			b.Clock.Advance(15 * time.Minute)
			_, err = b.Deliver(t.Context(), nil) // unless the other's Deliver has reached it, whose clock is ahead
			require.NoError(t, err)
			require.Equal(t, clerkinvite.StatusPending, b.Member(t, "ours@example.com").Status)
			require.Equal(t, 3, b.Clerk.Emails())
		})
	}
}

// Another process has stored the limit of an endpoint. Deliver and Reconcile make no request to it.
func TestPromise8_LimitsOfOtherProcesses(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	secondSend := func(t *testing.T, b *testkit.Rig) {
		t.Helper()
		testkit.SecondSend(t, b)
		_, err := b.Reserve(t.Context(), testkit.Params("acme", email))
		require.NoError(t, err)
	}
	dueResend := func(t *testing.T, b *testkit.Rig) {
		t.Helper()
		m := b.MustInvite(t, email)
		b.Clock.Advance(time.Hour)
		b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallFindUsers, Status: 503, Times: 1})
		_, err := b.Resend(t.Context(), m.Ref())
		require.Error(t, err)
		b.Clock.Advance(time.Hour)
	}
	dueAdd := func(t *testing.T, b *testkit.Rig) {
		t.Helper()
		b.Clerk.AddVerifiedUser(email)
		_, err := b.Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: email, Organization: &clerkinvite.Organization{ID: org, AddExisting: true}})
		require.NoError(t, err)
	}
	deliver := func(t *testing.T, b *testkit.Rig) {
		t.Helper()
		_, err := b.Deliver(t.Context(), nil)
		require.NoError(t, err)
	}
	invite := func(t *testing.T, b *testkit.Rig) {
		t.Helper()
		p := clerkinvite.InviteParams{TenantID: "acme", Email: email, Organization: &clerkinvite.Organization{ID: org, AddExisting: true}}
		_, err := b.InviteMany(t.Context(), []clerkinvite.InviteParams{p}, nil)
		require.NoError(t, err)
	}
	reconcile := func(t *testing.T, b *testkit.Rig) {
		t.Helper()
		_, err := b.Reconcile(t.Context(), nil)
		require.Error(t, err)
	}
	for i, test := range []struct {
		organization string
		arrange      func(t *testing.T, b *testkit.Rig)
		act          func(t *testing.T, b *testkit.Rig)
		limits       string
		call         clerkinvitetest.Call
	}{
		{"", secondSend, deliver, "POST /invitations/revoke", clerkinvitetest.CallRevoke},
		{org, dueResend, deliver, "GET /organizations/invitations", clerkinvitetest.CallOrganizationList},
		{org, dueResend, deliver, "POST /organizations/invitations/revoke", clerkinvitetest.CallOrganizationRevoke},
		{org, dueAdd, deliver, "GET /organizations/memberships", clerkinvitetest.CallMemberships},
		{org, dueAdd, deliver, "POST /organizations/memberships", clerkinvitetest.CallAddMember},
		{org, dueAdd, invite, "GET /organizations/memberships", clerkinvitetest.CallMemberships},
		{org, dueAdd, invite, "POST /organizations/memberships", clerkinvitetest.CallAddMember},
		{"", secondSend, reconcile, "GET /invitations", clerkinvitetest.CallList},
		{org, dueResend, reconcile, "GET /organizations/invitations", clerkinvitetest.CallOrganizationListAll},
	} {
		t.Run(fmt.Sprint(i, " ", test.limits, " ", test.call), func(t *testing.T) {
			t.Parallel()
			b := testkit.NewMemory(t, testkit.Options{Organization: test.organization})
			test.arrange(t, b)
			b.Clerk.ResetCounts()
			setLimit(b, test.limits, b.Clock.Now().Add(time.Minute))
			test.act(t, b)
			require.Zero(t, b.Clerk.Requests()[test.call])
			b.Clock.Advance(2 * time.Minute)
			_, err := b.Deliver(t.Context(), nil)
			require.NoError(t, err)
			b.MustReconcile(t)
			require.Positive(t, b.Clerk.Requests()[test.call])
		})
	}
}

// Another process stores a limit during the pass.
func TestDeliver_ObeysALimitSetDuringThePass(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	b.ReserveEach(t, testkit.People(150, "p"))
	n := 0
	b.Clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
		if c == clerkinvitetest.CallCreateBulk && w == clerkinvitetest.After {
			if n++; n == 5 {
				setLimit(b, "POST /invitations/bulk", b.Clock.Now().Add(time.Hour))
				setLimit(b, "POST /invitations", b.Clock.Now().Add(time.Hour))
			}
		}
	})
	_, err := b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, 5, b.Clerk.Requests()[clerkinvitetest.CallCreateBulk], "the next request knows")
	require.Zero(t, b.Clerk.Requests()[clerkinvitetest.CallCreate])
}

// setLimit stores a time for a name, as another process does.
func setLimit(b *testkit.Rig, name string, until time.Time) {
	var known time.Time
	for !known.Equal(until) {
		known, _ = b.Store.SwapTime(context.Background(), name, known, until)
	}
}

// A process whose clock is ten years ahead stores a limit.
func TestRateLimit_OfAWrongClockDoesNotBlockForYears(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	wrong := testkit.New(t, testkit.Options{}, b.Clerk, b.API, b.Store)
	b.Clerk.SetNow(b.Clock.Now)
	wrong.Clock.Advance(10 * 365 * 24 * time.Hour)
	b.FailCreates(clerkinvitetest.Fault{Status: 429, RetryAfter: time.Minute})
	_, err := wrong.TryInvite(t, "one@example.com")
	require.Error(t, err)
	_, err = b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	b.Clock.Advance(48 * time.Hour)
	_, err = b.TryInvite(t, "two@example.com")
	require.NoError(t, err)
}

// Another call has met a limit of the look-up: no request is made, and the attempt is not counted.
func TestRateLimit_LimitedLookUpIsNotAnAttempt(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallFindUsers, Status: 429, RetryAfter: time.Minute})
	_, err := b.TryInvite(t, "first@example.com")
	require.Error(t, err)
	_, err = b.TryInvite(t, "ada@example.com") // no request at all
	require.Error(t, err)
	require.Equal(t, 1, b.Clerk.RequestCount())
	require.Zero(t, b.Member(t, "ada@example.com").Attempts)
	b.Clock.Advance(2 * time.Minute)
	p := testkit.Params("acme", "ada@example.com")
	p.ExpiresInDays = 3
	_, err = b.Invite(t.Context(), p)
	require.NoError(t, err, "Clerk has never heard of her, so the new parameters count")
}

// The store has a limit that ends in ten years.
func TestRateLimit_YearsAheadIsIgnored(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	setLimit(b, "POST /invitations", b.Clock.Now().AddDate(10, 0, 0))
	_, err := b.Reserve(t.Context(), testkit.Params("acme", "ada@example.com"))
	require.NoError(t, err)
	report, err := b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, 1, report.Invited)
}

// An interactive call waits exactly as long as Clerk says, and its error says so. The margin is for background passes.
func TestRateLimit_InteractiveCallsWaitAsLongAsClerkSays(t *testing.T) {
	t.Parallel()
	for _, told := range []time.Duration{time.Second, 30 * time.Second, time.Minute, time.Hour} {
		t.Run(told.String(), func(t *testing.T) {
			t.Parallel()
			b := testkit.NewMemory(t, testkit.Options{})
			other := testkit.New(t, testkit.Options{}, b.Clerk, b.API, b.Store)
			waiting := b.MustInvite(t, "pending@example.com").Ref()
			b.Clock.Advance(time.Hour) // the cooldown
			testkit.LimitCreates(b, told)
			_, err := b.TryInvite(t, "ada@example.com")
			testkit.RequireRetryAfter(t, told, err)
			requests := b.CreateRequests()
			b.Clock.Advance(told - 300*time.Millisecond)
			_, err = b.TryInvite(t, "bob@example.com")
			testkit.RequireRetryAfter(t, 300*time.Millisecond, err)
			_, err = b.Resend(t.Context(), waiting)
			testkit.RequireRetryAfter(t, 300*time.Millisecond, err)
			require.Equal(t, requests, b.CreateRequests())

			b.Clock.Advance(300 * time.Millisecond)
			b.MustInvite(t, "bob@example.com")
			_, err = b.Resend(t.Context(), waiting)
			require.NoError(t, err)
			requests = b.CreateRequests()

			margin := min(told, time.Minute)
			for _, process := range []*testkit.Rig{b, other} {
				process.Clock.Advance(b.Clock.Now().Sub(process.Clock.Now()))
				_, err = process.Deliver(t.Context(), nil)
				require.NoError(t, err)
				require.Equal(t, requests, b.CreateRequests(), "background passes wait for the margin")
			}
			b.Clock.Advance(margin)
			_, err = b.Deliver(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, clerkinvite.StatusPending, b.Member(t, "ada@example.com").Status)
		})
	}
}

// A firewall or a CDN asks for a day. No endpoint is left alone for longer than Clerk's limits last, in any process.
func TestRateLimit_RetryAfterIsBounded(t *testing.T) {
	t.Parallel()
	calls := map[clerkinvitetest.Call]func(b *testkit.Rig, m *clerkinvite.Member, userID string) error{
		clerkinvitetest.CallFindUsers: func(b *testkit.Rig, _ *clerkinvite.Member, _ string) error {
			_, err := b.Invite(context.Background(), testkit.Params("acme", "ada@example.com"))
			return err
		},
		clerkinvitetest.CallGetUser: func(b *testkit.Rig, _ *clerkinvite.Member, userID string) error {
			_, err := b.ResolveUser(context.Background(), userID)
			return err
		},
		clerkinvitetest.CallList: func(b *testkit.Rig, m *clerkinvite.Member, _ string) error {
			return b.Purge(context.Background(), m.Ref())
		},
		clerkinvitetest.CallRevoke: func(b *testkit.Rig, m *clerkinvite.Member, _ string) error {
			_, err := b.Revoke(context.Background(), m.Ref())
			return err
		},
		clerkinvitetest.CallCreate: func(b *testkit.Rig, _ *clerkinvite.Member, _ string) error {
			p := testkit.Params("acme", "ada@example.com")
			p.PublicMetadata = map[string]any{"plan": "pro"} // a request of its own
			_, err := b.Invite(context.Background(), p)
			return err
		},
	}
	for call, do := range calls {
		for _, status := range []int{429, 503, 500, 408, 403} {
			t.Run(fmt.Sprint(call, " ", status), func(t *testing.T) {
				t.Parallel()
				bound := 5 * time.Minute
				if status == 429 {
					bound = time.Minute
					if call == clerkinvitetest.CallCreate {
						bound = time.Hour
					}
				}
				b := testkit.NewMemory(t, testkit.Options{})
				other := testkit.New(t, testkit.Options{}, b.Clerk, b.API, b.Store)
				b.Clerk.SetNow(b.Clock.Now)
				m := b.MustInvite(t, "pending@example.com")
				user := b.Clerk.AddVerifiedUser("user@example.com")
				b.Clerk.Fail(clerkinvitetest.Fault{Call: call, Status: status, Code: "odd", RetryAfter: 24 * time.Hour})
				err := do(b, m, user.ID)
				testkit.RequireRetryAfter(t, bound, err)
				var api *clerkinvite.APIError
				require.ErrorAs(t, err, &api)
				require.Equal(t, 24*time.Hour, api.RetryAfter, "what the response said")
				if status == 429 {
					before := b.Clerk.RequestCount()
					testkit.RequireRetryAfter(t, bound, do(b, m, user.ID))
					require.LessOrEqual(t, b.Clerk.Requests()[call], before, "not the limited endpoint")
				}
				// The row of Invite is due no later.
				if rows, err := b.Store.Find(t.Context(), clerkinvite.Query{Emails: []string{"ada@example.com"}}); err == nil && len(rows) > 0 && rows[0].NextAttemptAt != nil {
					require.LessOrEqual(t, rows[0].NextAttemptAt.Sub(b.Clock.Now()), max(bound, 2*time.Minute))
				}
				for _, process := range []*testkit.Rig{other, b} {
					process.Clock.Advance(b.Clock.Now().Add(bound).Sub(process.Clock.Now()))
				}
				require.NoError(t, do(b, m, user.ID))
				_, err = other.Deliver(t.Context(), nil)
				require.NoError(t, err)
			})
		}
	}
}

// An unbounded Retry-After in a response to a background delivery does not postpone the member by a day.
func TestDeliver_RetryAfterOfAFailureIsBounded(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	_, err := b.Reserve(t.Context(), testkit.Params("acme", "ada@example.com"))
	require.NoError(t, err)
	b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallFindUsers, Status: 503, RetryAfter: 24 * time.Hour})
	_, _ = b.Deliver(t.Context(), nil)
	require.Equal(t, 5*time.Minute, b.Member(t, "ada@example.com").NextAttemptAt.Sub(b.Clock.Now()))
}

// When a limit has ended, one request of the process goes first. The others wait for its response and obey it.
func TestRateLimit_OneRequestProbes(t *testing.T) {
	t.Parallel()
	const callers = 20
	for name, limited := range map[string]bool{"the endpoint is open": false, "it is still limited": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var log testkit.LockedBuffer
				b := newBubbleRig(t, clerkinvitetest.NewMemoryStore(), &log)
				user := b.Clerk.AddVerifiedUser("ada@example.com")
				limit := clerkinvitetest.Fault{Call: clerkinvitetest.CallGetUser, Status: 429, RetryAfter: 10 * time.Second}
				b.Clerk.Fail(limit)
				_, err := b.ResolveUser(t.Context(), user.ID)
				testkit.RequireRetryAfter(t, 10*time.Second, err)
				time.Sleep(10 * time.Second)
				if limited {
					limit.Times = -1
					b.Clerk.Fail(limit)
				}
				b.Clerk.OnCall(func(_ context.Context, _ clerkinvitetest.Call, w clerkinvitetest.When) {
					if w == clerkinvitetest.Before {
						time.Sleep(3 * time.Second)
					}
				})
				errs := make(chan error, callers)
				for range callers {
					go func() {
						_, err := b.ResolveUser(t.Context(), user.ID)
						errs <- err
					}()
				}
				synctest.Wait()
				impatient, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err = b.ResolveUser(impatient, user.ID)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.Equal(t, 2, b.Clerk.Requests()[clerkinvitetest.CallGetUser], "the one that was limited, and one more")
				began := time.Now()
				for range callers {
					if err := <-errs; limited {
						testkit.RequireRetryAfter(t, 10*time.Second, err)
					} else {
						require.NoError(t, err)
					}
				}
				require.LessOrEqual(t, time.Since(began), 5*time.Second)
				want := 1 + callers
				if limited {
					want = 2
				}
				require.Equal(t, want, b.Clerk.Requests()[clerkinvitetest.CallGetUser])
			})
		})
	}
}

// endedCalls calls end before it reads a user.
type endedCalls struct {
	clerkinvite.ClerkAPI
	end func()
}

func (c *endedCalls) GetUser(ctx context.Context, id string) (*clerkinvite.User, error) {
	if c.end != nil {
		c.end()
	}
	return c.ClerkAPI.GetUser(ctx, id)
}

// The first request after a limit has no response, because its caller has gone or because of a panic: another goes first.
func TestRateLimit_ProbeEndsWithoutAResponse(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(cancel func()){
		"canceled": func(cancel func()) { cancel() },
		"panic":    func(func()) { panic("the host's") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := testkit.NewMemory(t, testkit.Options{})
			api := &endedCalls{ClerkAPI: b.API}
			b = testkit.New(t, testkit.Options{}, b.Clerk, api, b.Store)
			user := b.Clerk.AddVerifiedUser("ada@example.com")
			b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallGetUser, Status: 429, RetryAfter: time.Second})
			_, err := b.ResolveUser(t.Context(), user.ID)
			testkit.RequireRetryAfter(t, time.Second, err)
			b.Clock.Advance(time.Second)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			api.end = func() { end(cancel) }
			func() {
				defer func() { _ = recover() }()
				_, _ = b.ResolveUser(ctx, user.ID)
			}()
			api.end = nil
			_, err = b.ResolveUser(t.Context(), user.ID)
			require.NoError(t, err)
		})
	}
}

// Another process has a long turn when Invite meets a limit. The limit is stored, and outlives the turn.
func TestRateLimit_ATurnDoesNotHideALimit(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	third := testkit.New(t, testkit.Options{}, b.Clerk, b.API, b.Store)
	slow := testkit.New(t, testkit.Options{Configure: func(c *clerkinvite.Config) { c.Lease = time.Hour }}, b.Clerk, b.API, b.Store)
	single := func(email string) clerkinvite.InviteParams {
		p := testkit.Params("acme", email)
		p.PublicMetadata = map[string]any{"plan": "pro"}
		return p
	}
	_, err := slow.Reserve(t.Context(), single("slow@example.com"))
	require.NoError(t, err)
	inside, answer, delivered := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var once sync.Once
	b.Clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
		if c == clerkinvitetest.CallCreate && w == clerkinvitetest.After {
			once.Do(func() {
				close(inside)
				<-answer
			})
		}
	})
	go func() {
		defer close(delivered)
		_, _ = slow.Deliver(context.Background(), nil)
	}()
	<-inside
	b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, Status: 429, RetryAfter: 10 * time.Minute})
	_, err = b.Invite(t.Context(), single("ada@example.com"))
	testkit.RequireRetryAfter(t, 10*time.Minute, err)
	close(answer)
	<-delivered
	_, err = third.Reserve(t.Context(), single("bob@example.com"))
	require.NoError(t, err)
	_, err = third.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, 2, b.CreateRequests())
	third.Clock.Advance(12 * time.Minute)
	_, err = third.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusPending, third.Member(t, "bob@example.com").Status)
}

// A process whose clock is ahead gives its turn back in the others' past.
func TestDeliver_TurnOfAClockAheadIsGivenBack(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	ahead := testkit.New(t, testkit.Options{}, b.Clerk, b.API, b.Store)
	ahead.Clock.Advance(4 * time.Minute)
	single := testkit.Params("acme", "ada@example.com")
	single.PublicMetadata = map[string]any{"plan": "pro"}
	_, err := ahead.Reserve(t.Context(), single)
	require.NoError(t, err)
	_, err = ahead.Deliver(t.Context(), nil)
	require.NoError(t, err)
	single.Email = "bob@example.com"
	_, err = b.Reserve(t.Context(), single)
	require.NoError(t, err)
	report, err := b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, 1, report.Invited)
}

// countedTimes is a store that counts its calls of SwapTime.
type countedTimes struct {
	clerkinvite.Store
	swaps atomic.Int64
}

func (s *countedTimes) SwapTime(ctx context.Context, name string, old, next time.Time) (time.Time, error) {
	s.swaps.Add(1)
	return s.Store.SwapTime(ctx, name, old, next)
}

// A process that waits for a turn asks less and less often.
func TestDeliver_WaitingForATurnAsksSeldom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log testkit.LockedBuffer
		b := newBubbleRig(t, clerkinvitetest.NewMemoryStore(), &log)
		store := &countedTimes{Store: b.Store}
		other := testkit.New(t, testkit.Options{Configure: func(c *clerkinvite.Config) { c.Now = time.Now }}, b.Clerk, b.API, store)
		b.Clerk.SetNow(time.Now)
		single := testkit.Params("acme", "ada@example.com")
		single.PublicMetadata = map[string]any{"plan": "pro"}
		_, err := b.Reserve(t.Context(), single)
		require.NoError(t, err)
		answer := make(chan struct{})
		var once sync.Once
		b.Clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
			if c == clerkinvitetest.CallCreate && w == clerkinvitetest.Before {
				once.Do(func() { <-answer })
			}
		})
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = b.Deliver(t.Context(), nil)
		}()
		time.Sleep(time.Second)
		single.Email = "bob@example.com" // due after the start of the other Deliver
		_, err = other.Reserve(t.Context(), single)
		require.NoError(t, err)
		time.AfterFunc(20*time.Second, func() { close(answer) })
		report, err := other.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, 1, report.Invited, "it waited for the turn")
		require.Less(t, store.swaps.Load(), int64(20+20))
		<-done
	})
}

// Clerk allows 100 single creates an hour. An import leaves 14 of them to callers who invite one person, no matter when
// Clerk's hour begins and how many processes deliver.
func TestDeliver_ImportsLeaveAShare(t *testing.T) {
	t.Parallel()
	for name, sliding := range map[string]bool{"fixed window": false, "sliding window": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := testkit.NewMemory(t, testkit.Options{})
			limits := clerkinvitetest.DocumentedLimits()
			limits.All, limits.Sliding = clerkinvitetest.Limit{}, sliding
			b.Clerk.SetLimits(limits)
			processes := []*testkit.Rig{b, testkit.New(t, testkit.Options{}, b.Clerk, b.API, b.Store)}
			b.Clerk.SetNow(b.Clock.Now)
			advance := func(d time.Duration) {
				for _, process := range processes {
					process.Clock.Advance(d)
				}
			}
			advance(41*time.Minute + 700*time.Millisecond)
			people := testkit.People(300, "p")
			for i := range people {
				people[i].PublicMetadata = map[string]any{"plan": "pro"} // each needs a request of its own
			}
			_, err := b.ReserveMany(t.Context(), people)
			require.NoError(t, err)
			invited := 0
			for hour := range 4 {
				for range 50 {
					for _, process := range processes {
						_, err := process.Deliver(t.Context(), nil)
						require.NoError(t, err)
					}
					advance(time.Minute)
				}
				require.Equal(t, min(300, 86*(hour+1)), b.Clerk.Emails()-invited)
				for range 14 {
					b.MustInvite(t, fmt.Sprintf("admin%d@example.com", invited))
					invited++
				}
				require.Zero(t, b.Clerk.Requests()[clerkinvitetest.CallCreateBulk], "the single endpoint is open")
				advance(12 * time.Minute)
			}
			b.RequireEachInvitedOnce(t, people)
		})
	}
}

// Members that a caller has asked for one at a time do not wait for the share, and neither do those in Refs.
func TestDeliver_TheShareIsForImportsOnly(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	people := testkit.People(90, "p")
	single := testkit.Params("acme", "ada@example.com")
	for i := range people {
		people[i].PublicMetadata = map[string]any{"plan": "pro"}
	}
	single.PublicMetadata = people[0].PublicMetadata
	_, err := b.ReserveMany(t.Context(), people)
	require.NoError(t, err)
	report, err := b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, &clerkinvite.DeliverReport{Claimed: 90, Invited: 86, Postponed: 4}, report)

	_, err = b.Reserve(t.Context(), single)
	require.NoError(t, err)
	report, err = b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, &clerkinvite.DeliverReport{Claimed: 1, Invited: 1}, report)
	var waiting []clerkinvite.Ref
	for _, p := range people {
		if m := b.Member(t, p.Email); m.Status == clerkinvite.StatusReserved {
			waiting = append(waiting, m.Ref())
			require.InDelta(t, time.Hour, m.NextAttemptAt.Sub(b.Clock.Now()), float64(11*time.Second))
		}
	}
	report, err = b.DeliverMembers(t.Context(), waiting[:2])
	require.NoError(t, err)
	require.Equal(t, 2, report.Invited)
	b.MustInvite(t, waiting[2].Email)

	_, err = b.Reserve(t.Context(), testkit.Params("acme", "bob@example.com"))
	require.NoError(t, err)
	_, err = b.InviteMany(t.Context(), testkit.People(1, "q"), nil) // a single create is not allowed, so it goes by the bulk endpoint
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusPending, b.Member(t, "q0@example.com").Status)
	require.Equal(t, 1, b.Clerk.Requests()[clerkinvitetest.CallCreateBulk])
}

// turnStore calls took when a process takes the turn to deliver.
type turnStore struct {
	clerkinvite.Store

	took func()
}

func (s turnStore) SwapTime(ctx context.Context, name string, old, next time.Time) (time.Time, error) {
	if name == "turn deliver" && !next.Equal(old) {
		s.took()
	}
	return s.Store.SwapTime(ctx, name, old, next)
}

// The machine's clock is set two minutes ahead while Deliver waits for its turn. Another process's limit still lasts.
func TestDeliver_ClockSetBeforeTheTurn(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	ahead := time.Duration(0)
	service, err := clerkinvite.New(clerkinvite.Config{
		API: b.API, Now: func() time.Time { return b.Clock.Now().Add(ahead) },
		Store: turnStore{testkit.ClockedStore{Store: b.Store, Now: b.Clock.Now}, func() { ahead = 2 * time.Minute }},
	})
	require.NoError(t, err)
	b.ReserveSome(t, 1)
	setLimit(b, "GET /users", b.Clock.Now().Add(time.Minute))
	report, err := service.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, &clerkinvite.DeliverReport{Claimed: 1, Postponed: 1}, report)
	require.Zero(t, b.Clerk.RequestCount())
}
