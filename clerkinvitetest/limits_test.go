package clerkinvitetest_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

func TestDocumentedLimits(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, c *clerkinvitetest.Clerk, k *clerkinvitetest.Clock, api clerkinvite.ClerkAPI) {
		c.SetLimits(clerkinvitetest.DocumentedLimits())
		create := func() error {
			_, err := api.CreateInvitation(t.Context(), request(fmt.Sprintf("p%d@example.com", c.RequestCount())))
			return err
		}
		for range 100 {
			require.NoError(t, create())
			k.Advance(time.Second)
		}
		k.Advance(500 * time.Millisecond)
		refused := requireRefused(t, create(), 429, "too_many_requests")
		require.Equal(t, time.Hour-100*time.Second, refused.RetryAfter, "rounded up to seconds")
		for i := range 25 { // with a separate limit
			_, err := api.CreateInvitations(t.Context(), []clerkinvite.InvitationRequest{request(fmt.Sprintf("b%d@example.com", i))})
			require.NoError(t, err)
		}
		_, err := api.CreateInvitations(t.Context(), []clerkinvite.InvitationRequest{request("b@example.com")})
		requireRefused(t, err, 429, "too_many_requests")
		require.Equal(t, 125, c.Emails())
		k.Advance(refused.RetryAfter)
		require.NoError(t, create())

		for range 999 {
			_, err = c.FindUsers(t.Context(), clerkinvite.UserQuery{Emails: []string{ada}})
			require.NoError(t, err)
		}
		_, err = api.FindUsers(t.Context(), clerkinvite.UserQuery{Emails: []string{ada}})
		require.Equal(t, 10*time.Second, requireRefused(t, err, 429, "too_many_requests").RetryAfter)
		require.Equal(t, map[clerkinvitetest.Call]int{
			clerkinvitetest.CallCreate: 102, clerkinvitetest.CallCreateBulk: 26, clerkinvitetest.CallFindUsers: 1000,
		}, c.Requests(), "rejected requests count")
		c.SetLimits(clerkinvitetest.Limits{})
		require.NoError(t, create())
	})
}

// createUntilAllowed makes creates until one succeeds after a 429. It returns when that was,
// and each Retry-After. It waits for between after each 429; 0 means its Retry-After.
func createUntilAllowed(t *testing.T, l clerkinvitetest.Limits, between time.Duration) (after time.Duration, retryAfter []time.Duration) {
	t.Helper()
	c, k := newClerk()
	c.SetLimits(l)
	for n := range 100 {
		_, err := c.CreateInvitation(t.Context(), request(fmt.Sprintf("p%d@example.com", n)))
		switch {
		case err == nil && len(retryAfter) > 0:
			return k.Now().Sub(start), retryAfter
		case err == nil:
			k.Advance(10 * time.Second) // two succeed, at 0 and 10 s
		default:
			wait := requireRefused(t, err, 429, "too_many_requests").RetryAfter
			retryAfter = append(retryAfter, wait)
			if between > 0 {
				wait = between
			}
			k.Advance(wait)
		}
	}
	return 0, retryAfter
}

func TestLimitWindows(t *testing.T) {
	t.Parallel()
	two := clerkinvitetest.Limit{Requests: 2, Per: time.Minute}
	const s = time.Second
	for name, test := range map[string]struct {
		limits     clerkinvitetest.Limits
		between    time.Duration
		after      time.Duration
		retryAfter []time.Duration
	}{
		"fixed":                {clerkinvitetest.Limits{Create: two}, 0, 60 * s, []time.Duration{40 * s}},
		"fixed, impatient":     {clerkinvitetest.Limits{Create: two}, 20 * s, 60 * s, []time.Duration{40 * s, 20 * s}},
		"fixed, free":          {clerkinvitetest.Limits{Create: two, FreeRefused: true}, 0, 60 * s, []time.Duration{40 * s}},
		"sliding":              {clerkinvitetest.Limits{Create: two, Sliding: true}, 0, 70 * s, []time.Duration{50 * s}},
		"sliding, impatient":   {clerkinvitetest.Limits{Create: two, Sliding: true}, 20 * s, 0, nil}, // each retry makes the wait longer
		"sliding, free":        {clerkinvitetest.Limits{Create: two, Sliding: true, FreeRefused: true}, 0, 60 * s, []time.Duration{40 * s}},
		"sliding, free, often": {clerkinvitetest.Limits{Create: two, Sliding: true, FreeRefused: true}, 20 * s, 60 * s, []time.Duration{40 * s, 20 * s}},
		"of all":               {clerkinvitetest.Limits{All: two}, 0, 60 * s, []time.Duration{40 * s}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			after, retryAfter := createUntilAllowed(t, test.limits, test.between)
			require.Equal(t, test.after, after)
			if test.retryAfter != nil {
				require.Equal(t, test.retryAfter, retryAfter)
			}
		})
	}
}

func TestLimitCountsRejectedRequests(t *testing.T) {
	t.Parallel()
	for _, free := range []bool{false, true} {
		c, _ := newClerk()
		c.SetLimits(clerkinvitetest.Limits{Create: clerkinvitetest.Limit{Requests: 2, Per: time.Hour}, FreeRefused: free})
		mustCreate(t, c, ada)
		_, err := c.CreateInvitation(t.Context(), request(ada))
		requireRefused(t, err, 400, "duplicate_record")
		_, err = c.CreateInvitation(t.Context(), request("b@example.com"))
		require.Equal(t, free, err == nil)
	}
}

func TestLimitBodies(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, c *clerkinvitetest.Clerk, _ *clerkinvitetest.Clock, api clerkinvite.ClerkAPI) {
		for body, code := range map[clerkinvitetest.LimitBody]string{
			clerkinvitetest.LimitJSON: "too_many_requests", clerkinvitetest.LimitEmpty: "", clerkinvitetest.LimitHTML: "",
		} {
			c.SetLimits(clerkinvitetest.Limits{All: clerkinvitetest.Limit{Requests: 1, Per: time.Minute}, Body: body})
			_, err := c.FindUsers(t.Context(), clerkinvite.UserQuery{Emails: []string{ada}})
			require.NoError(t, err)
			_, err = api.CreateInvitation(t.Context(), request(ada))
			var refused *clerkinvite.APIError
			require.ErrorAs(t, err, &refused)
			require.Equal(t, 429, refused.StatusCode)
			require.Equal(t, code, refused.Code)
			require.Equal(t, time.Minute, refused.RetryAfter)
			require.NotEmpty(t, refused.TraceID)
		}
	})
}

// RateLimited rejects every create until the time has passed, and nothing else.
func TestRateLimited(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, c *clerkinvitetest.Clerk, k *clerkinvitetest.Clock, api clerkinvite.ClerkAPI) {
		c.Fail(clerkinvitetest.RateLimited(30 * time.Second))
		single := func() error {
			_, err := api.CreateInvitation(t.Context(), request(ada))
			return err
		}
		bulk := func() error {
			_, err := api.CreateInvitations(t.Context(), []clerkinvite.InvitationRequest{request("b@example.com")})
			return err
		}
		for _, create := range []func() error{single, bulk, single, bulk} {
			require.Equal(t, 30*time.Second, requireRefused(t, create(), 429, "too_many_requests").RetryAfter)
		}
		_, err := api.FindUsers(t.Context(), clerkinvite.UserQuery{Emails: []string{ada}})
		require.NoError(t, err)

		k.Advance(29500 * time.Millisecond)
		require.Equal(t, time.Second, requireRefused(t, single(), 429, "too_many_requests").RetryAfter, "rounded up")
		require.Equal(t, time.Second, requireRefused(t, bulk(), 429, "too_many_requests").RetryAfter)
		require.Zero(t, c.Emails())
		k.Advance(500 * time.Millisecond)
		require.NoError(t, single())
		require.NoError(t, bulk())
		require.Equal(t, 2, c.Emails())
	})
}

// A Fault with For ends after that time, and also after its number of requests.
func TestFaultForATime(t *testing.T) {
	t.Parallel()
	c, k := newClerk()
	down := clerkinvitetest.Fault{Kind: clerkinvitetest.Empty503, Times: -1, For: time.Minute}
	find := func() error {
		_, err := c.FindUsers(t.Context(), clerkinvite.UserQuery{Emails: []string{ada}})
		return err
	}
	c.Fail(down)
	require.Error(t, find())
	k.Advance(time.Minute - time.Millisecond)
	require.Error(t, find())
	k.Advance(time.Millisecond)
	require.NoError(t, find())

	down.Times = 1
	c.Fail(down)
	require.Error(t, find())
	require.NoError(t, find())
	require.Panics(t, func() { c.Fail(clerkinvitetest.Fault{Kind: clerkinvitetest.Reset, For: -1}) })
}
