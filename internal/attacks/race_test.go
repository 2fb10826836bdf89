package attacks_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// The person accepts, and the webhook arrives, before the response to the create.
func TestPromise5_AcceptedBeforeTheResponse(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		var once sync.Once
		b.Clerk.OnCall(func(ctx context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
			if call == clerkinvitetest.CallCreate && when == clerkinvitetest.After {
				once.Do(func() {
					w, err := b.Clerk.Accept(email)
					if err != nil {
						t.Error(err)
						return
					}
					e, err := b.Verifier.Verify(w.Payload, w.Sign(clerkinvitetest.WebhookSecret))
					if err != nil {
						t.Error(err)
						return
					}
					if changed, err := b.HandleEvent(context.WithoutCancel(ctx), e); err != nil || len(changed) != 1 {
						t.Errorf("the webhook resolves the reserved row: %v %v", changed, err)
					}
				})
			}
		})
		m := b.MustInvite(t, email)
		require.Equal(t, clerkinvite.StatusActive, m.Status)
		require.Equal(t, 1, b.Clerk.EmailsTo(email))
		require.Empty(t, b.Clerk.OpenInvitations(email))
		require.Equal(t, clerkinvite.StatusActive, b.Member(t, email).Status)
	})
}

// The person signs up between the look-up and the create, without the invitation.
func TestPromise2_SignedUpBetweenLookUpAndCreate(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		var once sync.Once
		b.Clerk.OnCall(func(_ context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
			if call == clerkinvitetest.CallFindUsers && when == clerkinvitetest.After {
				once.Do(func() { b.Clerk.SignUp(email, true) })
			}
		})
		m := b.MustInvite(t, email)
		require.Equal(t, clerkinvite.StatusActive, m.Status, "Clerk refuses the create, and looking again finds the user")
		require.Zero(t, b.Clerk.EmailsTo(email))
	})
}

// The database fails when the outcome must be written.
func TestPromise3_DatabaseFailsAtSettling(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	down := errors.New("the database is down")
	for _, after := range []bool{false, true} {
		for _, r := range testkit.Recoveries() {
			t.Run(fmt.Sprintf("after=%v/%s", after, r.Name), func(t *testing.T) {
				t.Parallel()
				testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
					store := &testkit.FaultyStore{Store: b.Store}
					b = testkit.New(t, testkit.Options{}, b.Clerk, b.API, store)
					store.Fail(down, after)
					_, err := b.TryInvite(t, email)
					require.ErrorIs(t, err, down, "as it is")
					status, _ := clerkinvite.HTTPError(err)
					require.Equal(t, 500, status)
					store.Fail(nil, false)
					if !after {
						require.Equal(t, clerkinvite.StatusReserved, b.Member(t, email).Status)
					}
					b.Recover(t, r, email)
					b.RequireInvited(t, email, 1)
				})
			})
		}
	}
}

// Several processes deliver the same rows.
func TestPromise3_ManyProcessesDeliver(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		const people = 60
		for i := range people {
			_, err := b.Reserve(t.Context(), clerkinvite.InviteParams{TenantID: fmt.Sprint("tenant", i%3), Email: fmt.Sprintf("p%d@example.com", i)})
			require.NoError(t, err)
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		invited := 0
		for range 8 {
			other := testkit.New(t, testkit.Options{}, b.Clerk, b.API, b.Store)
			wg.Go(func() {
				report, err := other.Deliver(t.Context(), nil)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				invited += report.Invited
				mu.Unlock()
			})
		}
		wg.Wait()
		require.Equal(t, people, invited)
		require.Equal(t, people, b.Clerk.Emails())
		require.LessOrEqual(t, b.CreateRequests(), people)
	})
}

func TestPromise1_InviteDeliverAndAcceptAtTheSameTime(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		for round := range 20 {
			email := fmt.Sprintf("round%d@example.com", round)
			var wg sync.WaitGroup
			start := make(chan struct{})
			run := func(step func() error) {
				wg.Go(func() {
					<-start
					err := step()
					var dup *clerkinvite.DuplicateEmailError
					if err != nil && !errors.As(err, &dup) {
						t.Errorf("round %d: %v", round, err)
					}
				})
			}
			for range 4 {
				run(func() error {
					_, err := b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: email})
					return err
				})
			}
			run(func() error { _, err := b.Deliver(t.Context(), nil); return err })
			run(func() error {
				w := b.Clerk.SignUp(email, true)
				e, err := b.Verifier.Verify(w.Payload, w.Sign(clerkinvitetest.WebhookSecret))
				if err == nil {
					_, err = b.HandleEvent(t.Context(), e)
				}
				return err
			})
			close(start)
			wg.Wait()
			m := b.Member(t, email)
			// If the event arrived before the row was written, no member waited for it. Signing in makes the member active.
			if m.Status == clerkinvite.StatusPending {
				user, err := b.Clerk.FindUsers(t.Context(), clerkinvite.UserQuery{Emails: []string{email}})
				require.NoError(t, err)
				_, err = b.ResolveUser(t.Context(), user[0].ID)
				require.NoError(t, err)
				m = b.Member(t, email)
			}
			require.Equal(t, clerkinvite.StatusActive, m.Status)
			require.LessOrEqual(t, b.Clerk.EmailsTo(email), 1)
		}
	})
}

// Logs contain no address, link or key, no matter what fails.
func TestPromise6_LogsArePrivate(t *testing.T) {
	t.Parallel()
	var log testkit.LockedBuffer
	testkit.Each(t, testkit.Options{Configure: func(c *clerkinvite.Config) {
		c.Logger = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}}, func(t *testing.T, b *testkit.Rig) {
		const email = "zoe@example.com"
		b.Clerk.CreateForeign(email, map[string]any{"app": "another"})
		for i, call := range []clerkinvitetest.Call{clerkinvitetest.CallFindUsers, clerkinvitetest.CallCreate, clerkinvitetest.CallList} {
			b.Clerk.Fail(clerkinvitetest.Fault{Call: call, Kind: clerkinvitetest.Response, Status: 400 + i, Code: "bad",
				Message: "zoe@example.com and https://clerk.example/ticket?__clerk_ticket=abc with sk_test_abcdef",
				Meta:    map[string]any{"other": email}})
			_, err := b.TryInvite(t, email)
			require.Error(t, err)
			b.Clock.Advance(2 * time.Hour)
		}
		b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
		_, err := b.TryInvite(t, email)
		require.Error(t, err)
		b.Clock.Advance(2 * time.Hour)
		_, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		w, err := b.Clerk.Accept(email)
		require.NoError(t, err)
		b.Receive(t, w)
		b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallGetUser, Kind: clerkinvitetest.HTML502, Times: 5})
		_, err = b.ResolveUser(t.Context(), "user_1")
		require.Error(t, err)
		text := log.String()
		require.Contains(t, text, "(trace ")
		require.Contains(t, text, `"tenant":"acme"`)
		for _, private := range []string{"zoe", "@", "%40", "__clerk_ticket", "sk_test", "://"} {
			require.NotContains(t, text, private)
		}
	})
}
