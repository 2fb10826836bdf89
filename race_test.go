package clerkinvite_test

import (
	"bytes"
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
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
)

// The person accepts, and the webhook arrives, before the create's answer does.
func TestAcceptedBeforeSettled(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	each(t, options{}, func(t *testing.T, b *bundle) {
		var once sync.Once
		b.clerk.OnCall(func(ctx context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
			if call == clerkinvitetest.CallCreate && when == clerkinvitetest.After {
				once.Do(func() {
					w, err := b.clerk.Accept(email)
					if err != nil {
						t.Error(err)
						return
					}
					e, err := b.verifier.Verify(w.Payload, w.Sign(clerkinvitetest.WebhookSecret))
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
		m := b.mustInvite(t, email)
		require.Equal(t, clerkinvite.StatusActive, m.Status)
		require.Equal(t, 1, b.clerk.EmailsTo(email))
		require.Empty(t, b.clerk.OpenInvitations(email))
		require.Equal(t, clerkinvite.StatusActive, b.get(t, email).Status)
	})
}

// Somebody signs up between the look-up and the create, another way than by the link.
func TestSignedUpBetweenLookUpAndCreate(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	each(t, options{}, func(t *testing.T, b *bundle) {
		var once sync.Once
		b.clerk.OnCall(func(_ context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
			if call == clerkinvitetest.CallFindUsers && when == clerkinvitetest.After {
				once.Do(func() { b.clerk.SignUp(email, true) })
			}
		})
		m := b.mustInvite(t, email)
		require.Equal(t, clerkinvite.StatusActive, m.Status, "Clerk refuses the create, and looking again finds the user")
		require.Zero(t, b.clerk.EmailsTo(email))
	})
}

// faultyStore fails updates that settle, before or after they took effect.
type faultyStore struct {
	clerkinvite.Store
	mu    sync.Mutex
	after bool
	err   error
}

func (s *faultyStore) fail(err error, after bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.after = err, after
}

func (s *faultyStore) Update(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
	s.mu.Lock()
	err, after := s.err, s.after
	s.mu.Unlock()
	if err == nil || changes[0].New.ClaimedUntil != nil {
		return s.Store.Update(ctx, changes)
	}
	if after {
		if _, updateErr := s.Store.Update(ctx, changes); updateErr != nil {
			return nil, updateErr
		}
	}
	return nil, err
}

// The database fails when Clerk's answer is to be written down.
func TestDatabaseFailsAtSettling(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	down := errors.New("the database is down")
	for _, after := range []bool{false, true} {
		for _, r := range recoveries() {
			t.Run(fmt.Sprintf("after=%v/%s", after, r.name), func(t *testing.T) {
				t.Parallel()
				each(t, options{}, func(t *testing.T, b *bundle) {
					store := &faultyStore{Store: b.store}
					b = newBundle(t, options{}, b.clerk, b.api, store)
					store.fail(down, after)
					_, err := b.invite(t, email)
					require.ErrorIs(t, err, down, "as it is")
					status, _ := clerkinvite.HTTPError(err)
					require.Equal(t, 500, status)
					store.fail(nil, false)
					if !after {
						require.Equal(t, clerkinvite.StatusReserved, b.get(t, email).Status)
					}
					b.recover(t, r, email)
					b.requireInvited(t, email, 1)
				})
			})
		}
	}
}

// Several processes deliver the same rows.
func TestManyDeliverers(t *testing.T) {
	t.Parallel()
	each(t, options{}, func(t *testing.T, b *bundle) {
		const people = 60
		for i := range people {
			_, err := b.Reserve(t.Context(), clerkinvite.InviteParams{TenantID: fmt.Sprint("tenant", i%3), Email: fmt.Sprintf("p%d@example.com", i)})
			require.NoError(t, err)
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		invited := 0
		for range 8 {
			other := newBundle(t, options{}, b.clerk, b.api, b.store)
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
		require.Equal(t, people, b.clerk.Emails())
		require.LessOrEqual(t, b.creates(), people)
	})
}

// Invites, deliverers and the person herself, all at once, over and over.
func TestEverythingAtOnce(t *testing.T) {
	t.Parallel()
	each(t, options{}, func(t *testing.T, b *bundle) {
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
				w := b.clerk.SignUp(email, true)
				e, err := b.verifier.Verify(w.Payload, w.Sign(clerkinvitetest.WebhookSecret))
				if err == nil {
					_, err = b.HandleEvent(t.Context(), e)
				}
				return err
			})
			close(start)
			wg.Wait()
			m := b.get(t, email)
			// If the event came before the row, nothing waited for it; signing in does the rest.
			if m.Status == clerkinvite.StatusPending {
				user, err := b.clerk.FindUsers(t.Context(), clerkinvite.UserQuery{Emails: []string{email}})
				require.NoError(t, err)
				_, err = b.ResolveUser(t.Context(), user[0].ID)
				require.NoError(t, err)
				m = b.get(t, email)
			}
			require.Equal(t, clerkinvite.StatusActive, m.Status)
			require.LessOrEqual(t, b.clerk.EmailsTo(email), 1)
		}
	})
}

// A canceled context writes nothing and asks nobody.
func TestCanceledBefore(t *testing.T) {
	t.Parallel()
	each(t, options{}, func(t *testing.T, b *bundle) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := b.Invite(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"})
		require.ErrorIs(t, err, context.Canceled)
		_, err = b.Deliver(ctx, nil)
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, b.clerk.RequestCount())
		_, err = b.Get(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "ada@example.com"})
		require.ErrorIs(t, err, clerkinvite.ErrNotFound)
	})
}

// Promise 7, and what belongs to it: the row comes and goes with the host's own.
func TestReserveInATransaction(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t).Pool(t)
	store := clerkinvite.NewPgxStore(pool, nil)
	require.NoError(t, store.Migrate(t.Context()))
	clerk := clerkinvitetest.NewClerk()
	b := newBundle(t, options{}, clerk, clerk, store)
	_, err := pool.Exec(t.Context(), "CREATE TABLE seat (email text PRIMARY KEY)")
	require.NoError(t, err)
	reserve := func(email string, commit bool) error {
		tx, err := pool.Begin(t.Context())
		require.NoError(t, err)
		defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
		_, reserveErr := b.InTx(store.WithTx(tx)).Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: email})
		_, err = tx.Exec(t.Context(), "INSERT INTO seat VALUES ($1) ON CONFLICT DO NOTHING", email)
		require.NoError(t, err, "the transaction is usable, duplicate or not")
		if commit {
			require.NoError(t, tx.Commit(t.Context()))
		}
		return reserveErr
	}
	require.NoError(t, reserve("rolled@example.com", false))
	require.NoError(t, reserve("ada@example.com", true))
	var dup *clerkinvite.DuplicateEmailError
	require.ErrorAs(t, reserve("ada@example.com", true), &dup)
	require.Zero(t, clerk.RequestCount())

	report, err := b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, &clerkinvite.DeliverReport{Claimed: 1, Invited: 1}, report)
	b.requireInvited(t, "ada@example.com", 1)
	_, err = b.Get(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "rolled@example.com"})
	require.ErrorIs(t, err, clerkinvite.ErrNotFound)

	// What has ended is reserved anew inside a transaction as well.
	w, err := clerk.Accept("ada@example.com")
	require.NoError(t, err)
	changed := b.event(t, w)
	require.Len(t, b.event(t, clerk.DeleteUser(changed[0].ClerkUserID)), 1)
	require.NoError(t, reserve("ada@example.com", false))
	require.Equal(t, clerkinvite.StatusRemoved, b.get(t, "ada@example.com").Status)
	require.NoError(t, reserve("ada@example.com", true))
	require.Equal(t, 2, b.get(t, "ada@example.com").Send)
}

// Promise 6: what the library logs, when all goes wrong, holds no address, link or key.
func TestLogsArePrivate(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	each(t, options{configure: func(c *clerkinvite.Config) {
		c.Logger = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}}, func(t *testing.T, b *bundle) {
		const email = "ada@example.com"
		b.clerk.CreateForeign(email, nil)
		for i, call := range []clerkinvitetest.Call{clerkinvitetest.CallFindUsers, clerkinvitetest.CallCreate, clerkinvitetest.CallList} {
			b.clerk.Fail(clerkinvitetest.Fault{Call: call, Kind: clerkinvitetest.Answer, Status: 400 + i, Code: "bad",
				Message: "ada@example.com and https://clerk.example/ticket?__clerk_ticket=abc with sk_test_abcdef",
				Meta:    map[string]any{"other": email}})
			_, err := b.invite(t, email)
			require.Error(t, err)
			b.clock.Advance(2 * time.Hour)
		}
		b.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
		_, err := b.invite(t, email)
		require.Error(t, err)
		b.clock.Advance(2 * time.Hour)
		_, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		w, err := b.clerk.Accept(email)
		require.NoError(t, err)
		b.event(t, w)
		b.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallFindUsers, Kind: clerkinvitetest.HTML502, Times: 5})
		_, err = b.ResolveUser(t.Context(), "user_1")
		require.Error(t, err)
		text := log.String()
		require.Contains(t, text, `"clerk_trace_id":"`)
		require.Contains(t, text, `"tenant":"acme"`)
		for _, private := range []string{"ada", "@", "%40", "__clerk_ticket", "sk_test", "://"} {
			require.NotContains(t, text, private)
		}
	})
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
