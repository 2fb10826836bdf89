package clerkinvitetest_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// calls has a request of each kind but GET /users/{id} and GET /users/count.
var calls = map[clerkinvitetest.Call]func(ctx context.Context, api clerkinvite.ClerkAPI) (any, error){
	clerkinvitetest.CallFindUsers: func(ctx context.Context, api clerkinvite.ClerkAPI) (any, error) {
		return api.FindUsers(ctx, clerkinvite.UserQuery{Emails: []string{ada}})
	},
	clerkinvitetest.CallCreate: func(ctx context.Context, api clerkinvite.ClerkAPI) (any, error) {
		return api.CreateInvitation(ctx, clerkinvite.InvitationRequest{Email: "new@example.com"})
	},
	clerkinvitetest.CallCreateBulk: func(ctx context.Context, api clerkinvite.ClerkAPI) (any, error) {
		return api.CreateInvitations(ctx, []clerkinvite.InvitationRequest{{Email: "new@example.com"}, {Email: "other@example.com"}})
	},
	clerkinvitetest.CallList: func(ctx context.Context, api clerkinvite.ClerkAPI) (any, error) {
		return api.ListInvitations(ctx, clerkinvite.InvitationQuery{Query: ada})
	},
	clerkinvitetest.CallRevoke: func(ctx context.Context, api clerkinvite.ClerkAPI) (any, error) {
		return api.RevokeInvitation(ctx, clerkinvite.RevokeRequest{ID: "inv_000001"})
	},
	clerkinvitetest.CallOrganizationCreate: func(ctx context.Context, api clerkinvite.ClerkAPI) (any, error) {
		return api.CreateInvitation(ctx, into(acme, "new@example.com"))
	},
	clerkinvitetest.CallOrganizationCreateBulk: func(ctx context.Context, api clerkinvite.ClerkAPI) (any, error) {
		return api.CreateInvitations(ctx, []clerkinvite.InvitationRequest{into(acme, "new@example.com"), into(acme, "other@example.com")})
	},
	clerkinvitetest.CallOrganizationList: func(ctx context.Context, api clerkinvite.ClerkAPI) (any, error) {
		return api.ListInvitations(ctx, clerkinvite.InvitationQuery{OrganizationID: acme})
	},
	clerkinvitetest.CallOrganizationListAll: func(ctx context.Context, api clerkinvite.ClerkAPI) (any, error) {
		return api.ListInvitations(ctx, clerkinvite.InvitationQuery{AllOrganizations: true})
	},
	clerkinvitetest.CallOrganizationRevoke: func(ctx context.Context, api clerkinvite.ClerkAPI) (any, error) {
		return api.RevokeInvitation(ctx, clerkinvite.RevokeRequest{ID: "orginv_000001", OrganizationID: acme})
	},
	clerkinvitetest.CallMemberships: func(ctx context.Context, api clerkinvite.ClerkAPI) (any, error) {
		return api.(clerkinvite.OrganizationAPI).FindMemberships(ctx, clerkinvite.MembershipQuery{OrganizationID: acme, UserIDs: []string{"user_000001"}})
	},
	clerkinvitetest.CallAddMember: func(ctx context.Context, api clerkinvite.ClerkAPI) (any, error) {
		return nil, api.(clerkinvite.OrganizationAPI).AddMember(ctx, clerkinvite.Membership{OrganizationID: acme, UserID: "user_000002", Role: "org:member"})
	},
	clerkinvitetest.CallRemoveMember: func(ctx context.Context, api clerkinvite.ClerkAPI) (any, error) {
		return nil, api.(clerkinvite.OrganizationAPI).RemoveMember(ctx, clerkinvite.Membership{OrganizationID: acme, UserID: "user_000003"})
	},
}

// lookUps are the calls without an effect.
var lookUps = []clerkinvitetest.Call{
	clerkinvitetest.CallFindUsers, clerkinvitetest.CallList, clerkinvitetest.CallOrganizationList, clerkinvitetest.CallOrganizationListAll,
	clerkinvitetest.CallMemberships,
}

// tookEffect reports whether the request of calls has had its effect, if it has one.
func tookEffect(c *clerkinvitetest.Clerk, call clerkinvitetest.Call) bool {
	switch call {
	case clerkinvitetest.CallCreate, clerkinvitetest.CallOrganizationCreate:
		return c.EmailsTo("new@example.com") == 1
	case clerkinvitetest.CallCreateBulk, clerkinvitetest.CallOrganizationCreateBulk:
		return c.EmailsTo("new@example.com")+c.EmailsTo("other@example.com") == 2
	case clerkinvitetest.CallRevoke:
		return c.Invitations(ada)[0].Status == clerkinvite.InvitationRevoked
	case clerkinvitetest.CallOrganizationRevoke:
		return c.Invitations(ada)[1].Status == clerkinvite.InvitationRevoked
	case clerkinvitetest.CallAddMember:
		return slices.ContainsFunc(c.Members(acme), func(m clerkinvite.Membership) bool { return m.UserID == "user_000002" })
	case clerkinvitetest.CallRemoveMember:
		return !slices.ContainsFunc(c.Members(acme), func(m clerkinvite.Membership) bool { return m.UserID == "user_000003" })
	default:
		return true
	}
}

// Each kind of fault, on each call, before and after its effect, is the same for direct calls
// and through the real adapter.
func TestFaultsAreTheSameThroughTheRealAdapter(t *testing.T) {
	t.Parallel()
	for _, kind := range append(clerkinvitetest.Kinds(), clerkinvitetest.Response) {
		for call, do := range calls {
			for _, when := range []clerkinvitetest.When{clerkinvitetest.Before, clerkinvitetest.After} {
				t.Run(string(kind)+"/"+string(call)+"/"+when.String(), func(t *testing.T) {
					t.Parallel()
					fail := func(api clerkinvite.ClerkAPI, c *clerkinvitetest.Clerk) *clerkinvite.APIError {
						mustCreate(t, c, ada)
						addAcme(c, clerkinvitetest.OrganizationSpec{})
						c.AddVerifiedUser("user@example.com")
						c.JoinOrganization(acme, c.AddVerifiedUser("member@example.com").ID, "org:member")
						mustInvite(t, c, ada)
						changes := !slices.Contains(lookUps, call)
						c.Fail(clerkinvitetest.Fault{
							Call: call, When: when, Kind: kind, Times: -1, RetryAfter: 1500 * time.Millisecond,
							Status: 402, Code: "no_money", Message: "pay first", Meta: map[string]any{"identifiers": []string{ada}},
						})
						ctx, cancel := context.WithCancel(t.Context())
						defer cancel()
						if kind == clerkinvitetest.Timeout {
							earlier := c.Requests()[call]
							go func() { // the caller cancels as soon as the fake does nothing more
								for ctx.Err() == nil && (c.Requests()[call] == earlier || when == clerkinvitetest.After && changes && !tookEffect(c, call)) {
									time.Sleep(time.Millisecond)
								}
								cancel()
							}()
						}
						_, err := do(ctx, api)
						var failed *clerkinvite.APIError
						require.ErrorAs(t, err, &failed)
						require.Equal(t, kind == clerkinvitetest.Timeout, errors.Is(err, context.Canceled))
						if when == clerkinvitetest.After && kind != clerkinvitetest.NotSent {
							require.True(t, tookEffect(c, call))
						} else if changes {
							require.False(t, tookEffect(c, call))
						}
						require.Positive(t, c.Requests()[call])

						c.ClearFaults()
						if !tookEffect(c, call) {
							_, err = do(t.Context(), api)
							require.NoError(t, err)
						}
						return failed
					}
					direct, _ := newClerk()
					behind, _ := newClerk()
					want := fail(direct, direct)
					got := fail(throughHTTP(t, behind), behind)

					require.Equal(t, want.NotSent, kind == clerkinvitetest.NotSent)
					require.Equal(t, want.TraceID == "", got.TraceID == "")
					require.Equal(t, want.Err == nil, got.Err == nil)
					for _, e := range []*clerkinvite.APIError{want, got} {
						e.TraceID, e.Err = "", nil // texts and counters
						e.NotSent = false          // a server cannot fail before it gets the request
					}
					require.Equal(t, want, got)
				})
			}
		}
	}
}

func TestFaultAnswer(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, c *clerkinvitetest.Clerk, _ *clerkinvitetest.Clock, api clerkinvite.ClerkAPI) {
		c.Fail(clerkinvitetest.Fault{
			Call: clerkinvitetest.CallCreate, Kind: clerkinvitetest.Response, Status: 429, Code: "too_many_requests",
			Message: "slower", Meta: map[string]any{"n": 1}, RetryAfter: 90 * time.Second,
		})
		_, err := api.CreateInvitation(t.Context(), clerkinvite.InvitationRequest{Email: ada})
		refused := requireRefused(t, err, 429, "too_many_requests")
		require.Equal(t, "slower", refused.LongMessage)
		require.Equal(t, map[string]any{"n": 1.0}, refused.Meta)
		require.Equal(t, 90*time.Second, refused.RetryAfter)
		mustCreate(t, api, ada) // the fault was for one request

		c.Fail(clerkinvitetest.Fault{Status: 403}) // without a kind: Response, without a code
		_, err = api.CreateInvitation(t.Context(), clerkinvite.InvitationRequest{Email: ada})
		require.ErrorAs(t, err, &refused)
		require.Equal(t, 403, refused.StatusCode)
		require.Empty(t, refused.Code)
		require.Error(t, refused.Err)
	})
}

func TestFaultsMatchRequests(t *testing.T) {
	t.Parallel()
	c, _ := newClerk()
	eve := mustCreate(t, c, "eve@example.com")
	other := mustCreate(t, c, "other@example.com")
	c.Fail(clerkinvitetest.Fault{Email: "Eve@example.com", Status: 403, Code: "x", Times: 5})
	for _, test := range []struct {
		matches bool
		do      func() error
	}{
		{false, func() error { mustCreate(t, c, ada); return nil }},
		{true, func() error {
			_, err := c.CreateInvitation(t.Context(), clerkinvite.InvitationRequest{Email: "eve@example.com"})
			return err
		}},
		{true, func() error {
			_, err := c.CreateInvitations(t.Context(), []clerkinvite.InvitationRequest{{Email: "a@example.com"}, {Email: "eve@example.com"}})
			return err
		}},
		{true, func() error {
			_, err := c.FindUsers(t.Context(), clerkinvite.UserQuery{Emails: []string{ada, "eve@example.com"}})
			return err
		}},
		{false, func() error {
			_, err := c.FindUsers(t.Context(), clerkinvite.UserQuery{IDs: []string{"user_1"}})
			return err
		}},
		{true, func() error {
			_, err := c.ListInvitations(t.Context(), clerkinvite.InvitationQuery{Query: eve.ID})
			return err
		}},
		{false, func() error {
			_, err := c.RevokeInvitation(t.Context(), clerkinvite.RevokeRequest{ID: other.ID})
			return err
		}},
		{true, func() error {
			_, err := c.RevokeInvitation(t.Context(), clerkinvite.RevokeRequest{ID: eve.ID})
			return err
		}},
		{false, func() error { // the sixth time
			_, err := c.RevokeInvitation(t.Context(), clerkinvite.RevokeRequest{ID: eve.ID})
			return err
		}},
	} {
		err := test.do()
		require.Equal(t, test.matches, err != nil, "%v", err)
	}
	require.Panics(t, func() { c.Fail(clerkinvitetest.Fault{}) })
	require.Panics(t, func() { c.Fail(clerkinvitetest.Fault{Kind: "typo"}) })
	require.Panics(t, func() { c.Fail(clerkinvitetest.Fault{Kind: clerkinvitetest.Response}) })
	require.Panics(t, func() { c.Fail(clerkinvitetest.Fault{Status: 400, Meta: map[string]any{"f": func() {}}}) })
}

// The caller decides how long it waits.
func TestTimeoutEnds(t *testing.T) {
	t.Parallel()
	c, _ := newClerk()
	create := func(ctx context.Context) error {
		c.Fail(clerkinvitetest.Fault{Kind: clerkinvitetest.Timeout})
		_, err := c.CreateInvitation(ctx, clerkinvite.InvitationRequest{Email: ada})
		return err
	}
	timeout := func(err error) bool {
		var ended interface{ Timeout() bool }
		return errors.As(err, &ended) && ended.Timeout() && !errors.Is(err, context.DeadlineExceeded)
	}

	ctx, cancel := context.WithCancelCause(t.Context())
	c.OnCall(func(context.Context, clerkinvitetest.Call, clerkinvitetest.When) { cancel(io.ErrClosedPipe) })
	err := create(ctx)
	c.OnCall(nil)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, io.ErrClosedPipe)

	var failed *clerkinvite.APIError
	require.ErrorAs(t, create(ctx), &failed, "an ended context sends nothing")
	require.True(t, failed.NotSent)
	require.Equal(t, 1, c.RequestCount())
	c.ClearFaults()

	require.True(t, timeout(create(context.Background())), "no hang without a deadline")
	c.SetTimeout(20 * time.Millisecond)
	require.True(t, timeout(create(t.Context())))
}

// Closing the server ends requests that hang, and leaves no goroutine.
func TestTimeoutEndsWithItsServer(t *testing.T) {
	t.Parallel()
	c, _ := newClerk()
	ended := make(chan struct{})
	arrived := make(chan struct{})
	handler := c.Handler()
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		close(arrived)
		handler.ServeHTTP(w, r)
	})}
	l := listen(t)
	go func() { _ = server.Serve(l) }()
	c.Fail(clerkinvitetest.Fault{Kind: clerkinvitetest.Timeout})
	failed := make(chan error)
	go func() {
		resp, err := http.Get("http://" + l.Addr().String() + "/v1/users")
		if err == nil {
			_ = resp.Body.Close()
		}
		failed <- err
	}()
	<-arrived
	require.NoError(t, server.Close())
	require.Error(t, <-failed)
	<-ended
}

func TestOnCall(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, c *clerkinvitetest.Clerk, _ *clerkinvitetest.Clock, api clerkinvite.ClerkAPI) {
		var seen []string
		c.OnCall(func(_ context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
			seen = append(seen, string(call)+" "+when.String())
			if len(seen) <= 2 {
				require.Len(t, c.OpenInvitations(ada), int(when))
			}
			if call == clerkinvitetest.CallCreateBulk && when == clerkinvitetest.Before {
				c.SignUp("late@example.com", true) // between the caller's look-up and the create
			}
		})
		mustCreate(t, api, ada)
		_, err := api.CreateInvitations(t.Context(), []clerkinvite.InvitationRequest{{Email: "late@example.com"}})
		requireRefused(t, err, 422, "form_identifier_exists")
		c.Fail(clerkinvitetest.Fault{Kind: clerkinvitetest.JSON500})
		_, err = api.CreateInvitation(t.Context(), clerkinvite.InvitationRequest{Email: "b@example.com"})
		require.Error(t, err)
		c.OnCall(nil)
		mustCreate(t, api, "c@example.com")
		require.Equal(t, []string{
			"POST /invitations before", "POST /invitations after",
			"POST /invitations/bulk before", "POST /invitations/bulk after",
			"POST /invitations before",
		}, seen)
	})
}

// Clerk finishes requests whose caller has gone.
func TestLateEffect(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, c *clerkinvitetest.Clerk, _ *clerkinvitetest.Clock, api clerkinvite.ClerkAPI) {
		late := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		c.OnCall(func(_ context.Context, _ clerkinvitetest.Call, when clerkinvitetest.When) {
			if when == clerkinvitetest.Before {
				cancel()
				<-late
			}
		})
		_, err := api.CreateInvitation(ctx, clerkinvite.InvitationRequest{Email: ada})
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, c.Emails())
		close(late)
		testkit.Await(t, "the late effect", func() bool { return c.EmailsTo(ada) == 1 })
	})
}
