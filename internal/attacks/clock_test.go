package attacks_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// clockStore is a store with the clock of a synctest bubble.
type clockStore struct {
	*clerkinvitetest.MemoryStore

	mu    sync.Mutex
	err   error
	delay func(read int) time.Duration // of a response
	reads int

	suspended time.Duration // how long the bubble's clocks were stopped
}

// suspend lets time pass that the machine's monotonic clock does not show.
func (s *clockStore) suspend(m *machine, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.suspended += d
	m.setClock(d)
}

func (s *clockStore) Clock(ctx context.Context) (time.Time, error) {
	s.mu.Lock()
	s.reads++
	at, delay, err := time.Now().Add(s.suspended).UTC(), s.delay, s.err
	if delay != nil {
		defer time.Sleep(delay(s.reads))
	}
	s.mu.Unlock()
	return at, errors.Join(err, ctx.Err())
}

func (s *clockStore) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *clockStore) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reads
}

// machine is a process on a machine whose clock can be wrong.
type machine struct {
	*clerkinvite.Service
	store *clockStore
	clerk *clerkinvitetest.Clerk

	mu    sync.Mutex
	ahead time.Duration
}

func (m *machine) setClock(ahead time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ahead = ahead
}

func (m *machine) now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Now().Add(m.ahead)
}

// newMachine returns a process in a synctest bubble.
func newMachine(t *testing.T, clerk *clerkinvitetest.Clerk, store *clockStore, ahead time.Duration, configure ...func(*clerkinvite.Config)) *machine {
	t.Helper()
	m := &machine{store: store, clerk: clerk, ahead: ahead}
	cfg := clerkinvite.Config{API: clerk, Store: store, Now: m.now}
	for _, f := range configure {
		f(&cfg)
	}
	var err error
	m.Service, err = clerkinvite.New(cfg)
	require.NoError(t, err)
	return m
}

// inBubble runs the test with the parts of machines, in a synctest bubble.
func inBubble(t *testing.T, test func(t *testing.T, clerk *clerkinvitetest.Clerk, store *clockStore)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		clerk := clerkinvitetest.NewClerk()
		clerk.SetNow(time.Now)
		test(t, clerk, &clockStore{MemoryStore: clerkinvitetest.NewMemoryStore()})
	})
}

// slowCreates makes each create take d.
func slowCreates(clerk *clerkinvitetest.Clerk, d time.Duration) {
	clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
		if (c == clerkinvitetest.CallCreate || c == clerkinvitetest.CallCreateBulk) && w == clerkinvitetest.Before {
			time.Sleep(d)
		}
	})
}

func (m *machine) claim(t *testing.T, email string) (length time.Duration) {
	t.Helper()
	row, err := m.store.Find(t.Context(), clerkinvite.Query{Refs: []clerkinvite.Ref{testkit.Acme(email)}})
	require.NoError(t, err)
	require.Len(t, row, 1)
	require.NotNil(t, row[0].ClaimedUntil)
	return time.Until(*row[0].ClaimedUntil)
}

// wrongClocks are pairs of clocks that differ.
func wrongClocks() map[string][2]time.Duration {
	pairs := make(map[string][2]time.Duration)
	for _, d := range []time.Duration{3 * time.Second, 15 * time.Second, time.Minute, 5 * time.Minute, 24 * time.Hour} {
		pairs[fmt.Sprint("the first ", d, " ahead")] = [2]time.Duration{d, 0}
		pairs[fmt.Sprint("the first ", d, " behind")] = [2]time.Duration{-d, 0}
		pairs[fmt.Sprint("the second ", d, " ahead")] = [2]time.Duration{0, d}
		pairs[fmt.Sprint("the second ", d, " behind")] = [2]time.Duration{0, -d}
		pairs[fmt.Sprint(d, " either way")] = [2]time.Duration{-d / 2, d / 2}
	}
	return pairs
}

// onWrongClocks runs a test for two processes whose clocks differ.
func onWrongClocks(t *testing.T, test func(t *testing.T, clerk *clerkinvitetest.Clerk, store *clockStore, first, second *machine)) {
	t.Helper()
	for name, clocks := range wrongClocks() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(t *testing.T, clerk *clerkinvitetest.Clerk, store *clockStore) {
				test(t, clerk, store, newMachine(t, clerk, store, clocks[0]), newMachine(t, clerk, store, clocks[1]))
			})
		})
	}
}

// While one process sends, which takes six seconds, another process whose clock differs looks for work.
func TestPromise3_OneEmailWithWrongClocks(t *testing.T) {
	t.Parallel()
	for name, clocks := range wrongClocks() {
		for verb, send := range map[string]func(context.Context, *machine) error{
			"Invite": func(ctx context.Context, m *machine) error {
				_, err := m.Invite(ctx, testkit.Params("acme", "ada@example.com"))
				return err
			},
			"Resend": func(ctx context.Context, m *machine) error {
				_, err := m.Resend(ctx, testkit.Ada)
				return err
			},
			"Deliver": func(ctx context.Context, m *machine) error {
				if _, err := m.Reserve(ctx, testkit.Params("acme", "ada@example.com")); err != nil {
					return err
				}
				_, err := m.Deliver(ctx, nil)
				return err
			},
		} {
			t.Run(name+"/"+verb, func(t *testing.T) {
				t.Parallel()
				inBubble(t, func(t *testing.T, clerk *clerkinvitetest.Clerk, store *clockStore) {
					first, second := newMachine(t, clerk, store, clocks[0]), newMachine(t, clerk, store, clocks[1])
					emails := 1
					if verb == "Resend" {
						_, err := first.Invite(t.Context(), testkit.Params("acme", "ada@example.com"))
						require.NoError(t, err)
						time.Sleep(2 * time.Minute)
						emails = 2
					}
					slowCreates(clerk, 6*time.Second)
					var all sync.WaitGroup
					all.Go(func() { require.NoError(t, send(t.Context(), first)) })
					for range 100 {
						time.Sleep(time.Second)
						_, err := second.Deliver(t.Context(), nil)
						require.NoError(t, err)
						if _, err = second.Resend(t.Context(), testkit.Ada); err == nil { // an admin does not wait
							emails++
						}
					}
					all.Wait()
					require.Equal(t, emails, clerk.EmailsTo("ada@example.com"))
					require.Len(t, clerk.OpenInvitations("ada@example.com"), 1)
				})
			})
		}
	}
}

// Two processes deliver at the same time. A turn that one process releases is not in the other's future.
func TestDeliver_TurnsWithWrongClocks(t *testing.T) {
	t.Parallel()
	onWrongClocks(t, func(t *testing.T, clerk *clerkinvitetest.Clerk, _ *clockStore, first, second *machine) {
		slowCreates(clerk, 2*time.Second)
		began := time.Now()
		for range 5 {
			var all sync.WaitGroup
			for i, m := range []*machine{first, second} {
				p := testkit.Params("acme", fmt.Sprintf("p%d-%d@example.com", i, time.Since(began)))
				p.PublicMetadata = map[string]any{"plan": "pro"} // not with the other endpoint
				_, err := m.Reserve(t.Context(), p)
				require.NoError(t, err)
				all.Go(func() {
					report, err := m.Deliver(t.Context(), nil)
					require.NoError(t, err)
					require.Zero(t, report.Postponed)
				})
				synctest.Wait() // it has the turn, or waits for it
			}
			all.Wait()
		}
		require.Equal(t, 10, clerk.Emails())
		require.Less(t, time.Since(began), 35*time.Second, "ten creates of two seconds, one at a time")
	})
}

// A row that one process reserves in the host's transaction is due at the same time for another one.
func TestReserve_IsDueWithWrongClocks(t *testing.T) {
	t.Parallel()
	onWrongClocks(t, func(t *testing.T, _ *clerkinvitetest.Clerk, store *clockStore, first, second *machine) {
		row, err := first.InTx(store).Reserve(t.Context(), testkit.Params("acme", "ada@example.com"))
		require.NoError(t, err)
		require.WithinDuration(t, time.Now(), row.ReservedAt, time.Microsecond)
		report, err := second.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, 1, report.Invited)
	})
}

// The times in errors and progress are those of the caller's clock.
func TestClock_CallersGetTheirOwnTime(t *testing.T) {
	t.Parallel()
	for _, ahead := range []time.Duration{-5 * time.Minute, 0, 5 * time.Minute} {
		t.Run(ahead.String(), func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(t *testing.T, clerk *clerkinvitetest.Clerk, store *clockStore) {
				m := newMachine(t, clerk, store, ahead)
				_, err := m.Invite(t.Context(), testkit.Params("acme", "ada@example.com"))
				require.NoError(t, err)
				var early *clerkinvite.CooldownError
				_, err = m.Resend(t.Context(), testkit.Ada)
				require.ErrorAs(t, err, &early)
				require.WithinDuration(t, m.now().Add(time.Minute), early.Until, time.Second)
				time.Sleep(time.Minute)
				_, err = m.Resend(t.Context(), testkit.Ada)
				require.NoError(t, err)

				clerk.SetLimits(clerkinvitetest.Limits{Create: clerkinvitetest.Limit{Requests: 1, Per: time.Hour}, CreateBulk: clerkinvitetest.Limit{Requests: 1, Per: time.Hour}})
				began, waits := time.Now(), 0
				_, err = m.InviteMany(t.Context(), testkit.People(13, "p"), &clerkinvite.InviteManyOptions{Wait: true, Progress: func(p clerkinvite.InviteManyProgress) {
					if !p.WaitUntil.IsZero() {
						waits++
						require.Greater(t, p.WaitUntil.Sub(m.now()), time.Duration(0))
						require.Less(t, p.WaitUntil.Sub(m.now()), 62*time.Minute)
					}
				}})
				require.NoError(t, err)
				require.Positive(t, waits)
				require.Less(t, time.Since(began), 3*time.Hour)
			})
		})
	}
}

// A lease is never longer than Config.Lease.
func TestLease_IsNotLonger(t *testing.T) {
	t.Parallel()
	for _, lease := range []time.Duration{100 * time.Millisecond, time.Minute, time.Hour} {
		t.Run(lease.String(), func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(t *testing.T, clerk *clerkinvitetest.Clerk, store *clockStore) {
				m := newMachine(t, clerk, store, time.Minute, func(c *clerkinvite.Config) { c.Lease = lease })
				clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
					if c != clerkinvitetest.CallFindUsers || w != clerkinvitetest.Before {
						return
					}
					rows, err := store.Page(context.Background(), clerkinvite.PageQuery{Statuses: []clerkinvite.Status{clerkinvite.StatusReserved}})
					require.NoError(t, err)
					for _, row := range rows {
						if row.ClaimedUntil != nil {
							require.LessOrEqual(t, time.Until(*row.ClaimedUntil), lease)
							require.GreaterOrEqual(t, time.Until(*row.ClaimedUntil), lease-lease/16-time.Microsecond)
						}
					}
				})
				for i := range 100 {
					_, err := m.Invite(t.Context(), testkit.Params("acme", fmt.Sprintf("p%d@example.com", i)))
					require.NoError(t, err)
				}
				_, err := m.InviteMany(t.Context(), testkit.People(100, "q"), nil)
				require.NoError(t, err)
			})
		})
	}
}

// The clock is measured every ten minutes, and immediately after it was set or the machine was suspended: then this
// machine's wall clock and monotonic clock disagree.
func TestClock_IsMeasuredAgain(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, clerk *clerkinvitetest.Clerk, store *clockStore) {
		m := newMachine(t, clerk, store, 0)
		n := 0
		invite := func() {
			t.Helper()
			n++
			email := fmt.Sprintf("p%d@example.com", n)
			var length time.Duration
			clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
				if c == clerkinvitetest.CallCreate && w == clerkinvitetest.Before {
					length = m.claim(t, email)
				}
			})
			_, err := m.Invite(t.Context(), testkit.Params("acme", email))
			require.NoError(t, err)
			require.LessOrEqual(t, length, time.Minute)
			require.GreaterOrEqual(t, length, 56*time.Second)
		}
		for range 10 {
			invite()
		}
		require.Equal(t, 1, store.count())
		time.Sleep(10*time.Minute - 1)
		invite()
		require.Equal(t, 1, store.count())
		time.Sleep(time.Minute)
		invite()
		invite()
		require.Equal(t, 2, store.count())
		for i, ahead := range []time.Duration{2 * time.Second, 5 * time.Minute, -5 * time.Minute, -72 * time.Hour, 0} {
			m.setClock(ahead)
			invite()
			invite()
			require.Equal(t, 3+i, store.count(), ahead)
		}
		m.setClock(time.Second) // as NTP may do
		clerk.OnCall(nil)
		_, err := m.Invite(t.Context(), testkit.Params("acme", "ada@example.com"))
		require.NoError(t, err)
		require.Equal(t, 7, store.count())
	})
}

// The clock is set while Clerk works. The row is still written with the right time.
func TestClock_IsSetDuringARequest(t *testing.T) {
	t.Parallel()
	for _, ahead := range []time.Duration{-time.Hour, -5 * time.Minute, 5 * time.Minute, time.Hour} {
		t.Run(ahead.String(), func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(t *testing.T, clerk *clerkinvitetest.Clerk, store *clockStore) {
				m := newMachine(t, clerk, store, 0)
				clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
					if c == clerkinvitetest.CallCreate && w == clerkinvitetest.Before {
						m.setClock(ahead)
					}
				})
				row, err := m.Invite(t.Context(), testkit.Params("acme", "ada@example.com"))
				require.NoError(t, err)
				require.WithinDuration(t, time.Now(), *row.SettledAt, time.Second)
				require.WithinDuration(t, time.Now(), row.UpdatedAt, time.Second)

				// A limit that Clerk reports in the meantime lasts as long as Clerk says.
				m.setClock(0)
				for _, call := range []clerkinvitetest.Call{clerkinvitetest.CallCreate, clerkinvitetest.CallCreateBulk} {
					clerk.Fail(clerkinvitetest.Fault{Call: call, Status: 429, RetryAfter: time.Minute})
				}
				_, err = m.Invite(t.Context(), testkit.Params("acme", "bob@example.com"))
				require.Error(t, err)
				time.Sleep(61 * time.Second)
				_, err = m.Invite(t.Context(), testkit.Params("acme", "bob@example.com"))
				require.NoError(t, err)
			})
		})
	}
}

// If the machine was suspended for an hour during an attempt, which only its wall clock shows, the attempt sends nothing more.
func TestClock_SuspendedMachineSendsNothing(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, clerk *clerkinvitetest.Clerk, store *clockStore) {
		m := newMachine(t, clerk, store, 0)
		clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
			if c == clerkinvitetest.CallFindUsers && w == clerkinvitetest.Before {
				store.suspend(m, time.Hour)
				clerk.OnCall(nil)
			}
		})
		_, err := m.Invite(t.Context(), testkit.Params("acme", "ada@example.com"))
		require.Error(t, err)
		require.Zero(t, clerk.Emails())
		_, err = m.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, 1, clerk.Emails())
	})
}

// If the clock cannot be read, nothing is claimed and Clerk is not called. Verbs that have already started succeed.
func TestClock_Fails(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, clerk *clerkinvitetest.Clerk, store *clockStore) {
		down := errors.New("the database is down")
		user := clerk.AddVerifiedUser("bob@example.com")
		m := newMachine(t, clerk, store, time.Minute)
		_, err := m.Reserve(t.Context(), testkit.Params("acme", "ada@example.com"))
		require.NoError(t, err)
		time.Sleep(10 * time.Minute)
		store.fail(down)
		for name, verb := range map[string]func(context.Context) error{
			"Invite": func(ctx context.Context) error {
				_, err := m.Invite(ctx, testkit.Params("acme", "bob@example.com"))
				return err
			},
			"InviteMany": func(ctx context.Context) error { _, err := m.InviteMany(ctx, testkit.People(3, "p"), nil); return err },
			"Reserve": func(ctx context.Context) error {
				_, err := m.Reserve(ctx, testkit.Params("acme", "bob@example.com"))
				return err
			},
			"ReserveMany": func(ctx context.Context) error { _, err := m.ReserveMany(ctx, testkit.People(3, "p")); return err },
			"Adopt": func(ctx context.Context) error {
				_, err := m.Adopt(ctx, []clerkinvite.AdoptParams{{InviteParams: testkit.Params("acme", "bob@example.com"), ClerkUserID: "user_1"}})
				return err
			},
			"Deliver": func(ctx context.Context) error { _, err := m.Deliver(ctx, nil); return err },
			"DeliverMembers": func(ctx context.Context) error {
				_, err := m.DeliverMembers(ctx, []clerkinvite.Ref{testkit.Ada})
				return err
			},
			"Revoke": func(ctx context.Context) error { _, err := m.Revoke(ctx, testkit.Ada); return err },
			"Remove": func(ctx context.Context) error { _, err := m.Remove(ctx, testkit.Ada); return err },
			"Purge":  func(ctx context.Context) error { return m.Purge(ctx, testkit.Ada) },
			"Update": func(ctx context.Context) error {
				_, err := m.Update(ctx, testkit.Ada, clerkinvite.MemberUpdate{})
				return err
			},
			"Resolve":     func(ctx context.Context) error { _, err := m.Resolve(ctx, user); return err },
			"ResolveUser": func(ctx context.Context) error { _, err := m.ResolveUser(ctx, user.ID); return err },
			"HandleEvent": func(ctx context.Context) error {
				_, err := m.HandleEvent(ctx, &clerkinvite.Event{Type: clerkinvite.EventUserCreated, UserID: user.ID, User: &user})
				return err
			},
			"HandleEvent, deleted": func(ctx context.Context) error {
				_, err := m.HandleEvent(ctx, &clerkinvite.Event{Type: clerkinvite.EventUserDeleted, UserID: user.ID})
				return err
			},
			"Reconcile": func(ctx context.Context) error { _, err := m.Reconcile(ctx, nil); return err },
		} {
			require.ErrorIs(t, verb(t.Context()), down, name)
		}
		require.Zero(t, clerk.RequestCount())
		report, err := m.Reconcile(t.Context(), &clerkinvite.ReconcileOptions{})
		require.ErrorIs(t, err, down)
		require.NotEmpty(t, report.Cursor, "not complete")
		rows, err := store.Page(t.Context(), clerkinvite.PageQuery{})
		require.NoError(t, err)
		for _, row := range rows {
			require.Equal(t, "ada@example.com", row.Email)
			require.Equal(t, int64(1), row.Version)
		}
		_, err = m.Get(t.Context(), testkit.Ada)
		require.NoError(t, err, "it needs no clock")

		store.fail(nil)
		clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
			if c == clerkinvitetest.CallCreate && w == clerkinvitetest.Before {
				m.setClock(-time.Minute)
				store.fail(down)
			}
		})
		delivered, err := m.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, 1, delivered.Invited)
		require.Equal(t, 1, clerk.Emails())
	})
}

// A slow response says little about the store's clock, so the clock is read again.
func TestClock_SlowResponses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		delay func(read int) time.Duration
		reads int
	}{
		"quick":            {func(int) time.Duration { return time.Second }, 1},
		"slow":             {func(read int) time.Duration { return map[bool]time.Duration{true: 20 * time.Second}[read <= 3] }, 4},
		"always slow":      {func(read int) time.Duration { return time.Duration(25-read) * time.Second }, 10},
		"halted for hours": {func(read int) time.Duration { return map[bool]time.Duration{true: 5 * time.Hour}[read == 1] }, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(t *testing.T, clerk *clerkinvitetest.Clerk, store *clockStore) {
				store.delay = c.delay
				m := newMachine(t, clerk, store, 3*time.Minute)
				row, err := m.Reserve(t.Context(), testkit.Params("acme", "ada@example.com"))
				require.NoError(t, err)
				require.Equal(t, c.reads, store.count())
				require.WithinDuration(t, time.Now(), row.ReservedAt, 8*time.Second)
			})
		})
	}
}

// A clock that is off by five minutes is logged, because webhooks are rejected.
func TestClock_IsLoggedIfWrong(t *testing.T) {
	t.Parallel()
	for ahead, logged := range map[time.Duration]bool{0: false, 4 * time.Minute: false, -4 * time.Minute: false, 5 * time.Minute: true, -6 * time.Minute: true} {
		t.Run(ahead.String(), func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(t *testing.T, clerk *clerkinvitetest.Clerk, store *clockStore) {
				var log bytes.Buffer
				m := newMachine(t, clerk, store, ahead, func(c *clerkinvite.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
				_, err := m.Reserve(t.Context(), testkit.Params("acme", "ada@example.com"))
				require.NoError(t, err)
				require.Equal(t, logged, bytes.Contains(log.Bytes(), []byte(fmt.Sprint("database_ahead=", -ahead))))
			})
		})
	}
}

// On PostgreSQL, with this machine's real clock and one that is wrong.
func TestPgxStoreClock(t *testing.T) {
	t.Parallel()
	store, pool := testkit.NewPgxStore(t)
	clerk := clerkinvitetest.NewClerk()
	for i, ahead := range []time.Duration{-5 * time.Minute, 5 * time.Minute} {
		svc, err := clerkinvite.New(clerkinvite.Config{API: clerk, Store: store, Now: func() time.Time { return time.Now().Add(ahead) }})
		require.NoError(t, err)
		email := fmt.Sprintf("p%d@example.com", i)
		tx, err := pool.Begin(t.Context())
		require.NoError(t, err)
		t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
		_, err = tx.Exec(t.Context(), "SELECT pg_sleep(0.3)")
		require.NoError(t, err)
		reserved, err := svc.InTx(store.WithTx(tx)).Reserve(t.Context(), testkit.Params("acme", email))
		require.NoError(t, err)
		var since float64
		require.NoError(t, tx.QueryRow(t.Context(), "SELECT extract(epoch FROM $1::timestamptz - now())", reserved.ReservedAt).Scan(&since))
		require.GreaterOrEqual(t, since, 0.3, "the present time, not the start of the transaction")
		require.Less(t, since, 200.0, "not the wrong clock's time")
		require.NoError(t, tx.Commit(t.Context()))
		var claim float64
		clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
			if c == clerkinvitetest.CallFindUsers && w == clerkinvitetest.Before {
				claim = testkit.QueryOne[float64](t, pool, "SELECT extract(epoch FROM claimed_until - clock_timestamp()) FROM clerkinvite_member WHERE email = $1", email)
			}
		})
		_, err = svc.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Positive(t, claim)
		require.LessOrEqual(t, claim, 60.0)
	}
	require.Equal(t, 2, clerk.Emails())
}
