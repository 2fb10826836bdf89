package clerkinvite_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
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
			require.Equal(t, "invitation service unavailable", message)
			wait, ok := clerkinvite.RetryAfter(err)
			require.True(t, ok)
			require.Positive(t, wait)
			require.Equal(t, 100+1+25+1, b.CreateRequests())
		}
		require.Equal(t, clerkinvite.StatusActive, b.MustInvite(t, "user@example.com").Status, "linking goes on")

		// Another process knows it from the store.
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
			b := testkit.NewMemory(t, testkit.Options{})
			cfg := clerkinvite.Config{API: b.API, Store: b.Store, Now: b.Clock.Now}
			configure(&cfg)
			other, err := clerkinvite.New(cfg)
			require.NoError(t, err)
			// Of its own metadata each takes a request alone.
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
			require.Equal(t, &clerkinvite.DeliverReport{Claimed: 1, Postponed: 1}, report)
			release()

			b.Clock.Advance(time.Second)
			_, err = b.Invite(t.Context(), single("interactive@example.com"))
			require.NoError(t, err, "Clerk has refused nothing")
			b.Clock.Advance(15 * time.Minute)
			report, err = b.Deliver(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, 1, report.Invited)
			require.Equal(t, 3, b.Clerk.Emails())
		})
	}
}

// Another process has noted a limit of the revoke endpoint.
func TestDeliver_ObeysTheLimitOfRevocations(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	secondSend(t, b)
	_, err := b.Reserve(t.Context(), testkit.Params("acme", "ada@example.com"))
	require.NoError(t, err)
	setLimit(b, "POST /invitations/revoke", b.Clock.Now().Add(time.Hour))
	_, err = b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Zero(t, b.Clerk.Requests()[clerkinvitetest.CallRevoke])
}

// Another process notes a limit during the pass.
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

// shut closes a gate, whatever it was, as another process does.
func setLimit(b *testkit.Rig, name string, until time.Time) {
	var known time.Time
	for !known.Equal(until) {
		known, _ = b.Store.SwapTime(context.Background(), name, known, until)
	}
}

// A process whose clock is ten years ahead notes a limit.
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

// Another call has noted a limit of the look-up: no request is made, and the attempt is not counted.
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
