package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
)

// docs/performance.md has the results and the commands.

// callers is the number of concurrent callers.
const callers = 16

// bench returns a service with its own database, and a connection per caller.
func bench(b *testing.B) (*clerkinvite.Service, *clerkinvite.PgxStore, *clerkinvitetest.Clerk) {
	b.Helper()
	pool := pgtest.New(b).Pool(b, func(c *pgxpool.Config) { c.MaxConns = callers })
	store := clerkinvite.NewPgxStore(pool, nil)
	require.NoError(b, store.Migrate(b.Context()))
	clerk := clerkinvitetest.NewClerk()
	svc, err := clerkinvite.New(clerkinvite.Config{API: clerk, Store: store})
	require.NoError(b, err)
	return svc, store, clerk
}

// each calls f with 0 to b.N-1 from all callers, and reports rows per second.
func each(b *testing.B, rows int, f func(i int) error) {
	b.Helper()
	b.ResetTimer()
	var next atomic.Int64
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= b.N {
					return
				}
				if err := f(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N*rows)/b.Elapsed().Seconds(), "rows/s")
}

func params(i int) clerkinvite.InviteParams {
	return clerkinvite.InviteParams{TenantID: fmt.Sprint("tenant-", i%100), Email: fmt.Sprintf("person-%d@example.com", i)}
}

func reserveAll(b *testing.B, svc *clerkinvite.Service, n int) []*clerkinvite.Member {
	b.Helper()
	all := make([]clerkinvite.InviteParams, n)
	for i := range all {
		all[i] = params(i)
	}
	results, err := svc.ReserveMany(b.Context(), all)
	require.NoError(b, err)
	members := make([]*clerkinvite.Member, n)
	for i, r := range results {
		require.NoError(b, r.Err)
		members[i] = r.Member
	}
	return members
}

func BenchmarkReserve(b *testing.B) {
	svc, _, _ := bench(b)
	each(b, 1, func(i int) error {
		_, err := svc.Reserve(b.Context(), params(i))
		return err
	})
}

func BenchmarkReserveMany(b *testing.B) {
	svc, _, _ := bench(b)
	const rows = 1000
	each(b, rows, func(i int) error {
		all := make([]clerkinvite.InviteParams, rows)
		for k := range all {
			all[k] = params(i*rows + k)
		}
		_, err := svc.ReserveMany(b.Context(), all)
		return err
	})
}

// A claim is a compare-and-swap of a row.
func BenchmarkClaim(b *testing.B) {
	svc, store, _ := bench(b)
	members := reserveAll(b, svc, b.N)
	each(b, 1, func(i int) error {
		claimed, until := *members[i], time.Now().Add(time.Minute).UTC().Truncate(time.Microsecond)
		claimed.ClaimedUntil, claimed.Attempts = &until, 1
		results, err := store.Update(b.Context(), []clerkinvite.Change{{Old: members[i], New: &claimed}})
		if err == nil {
			err = results[0].Err
		}
		return err
	})
}

// An event about a person who has joined: find the member, read the user, update the row.
func BenchmarkHandleEvent(b *testing.B) {
	svc, _, clerk := bench(b)
	members := reserveAll(b, svc, b.N)
	_, err := svc.Deliver(b.Context(), nil)
	require.NoError(b, err)
	events := make([]*clerkinvite.Event, b.N)
	for i, m := range members {
		webhook, err := clerk.Accept(m.Email)
		require.NoError(b, err)
		events[i], err = clerkinvite.ParseEvent(webhook.Payload)
		require.NoError(b, err)
	}
	each(b, 1, func(i int) error {
		changed, err := svc.HandleEvent(b.Context(), events[i])
		if err == nil && len(changed) != 1 {
			err = fmt.Errorf("event %d changed %d members", i, len(changed))
		}
		return err
	})
}

// An event about an uninvited user, like most events of a busy instance.
func BenchmarkHandleEventOfStranger(b *testing.B) {
	svc, _, clerk := bench(b)
	reserveAll(b, svc, 1000)
	event, err := clerkinvite.ParseEvent(clerk.SignUp("stranger@example.com", true).Payload)
	require.NoError(b, err)
	each(b, 1, func(int) error {
		_, err := svc.HandleEvent(b.Context(), event)
		return err
	})
}

// countingStore counts the calls of an idle process. Each is one statement in PgxStore.
type countingStore struct {
	clerkinvite.Store

	calls *atomic.Int64
}

func (s countingStore) Find(ctx context.Context, q clerkinvite.Query) ([]*clerkinvite.Member, error) {
	s.calls.Add(1)
	return s.Store.Find(ctx, q)
}

func (s countingStore) Due(ctx context.Context, q clerkinvite.DueQuery) ([]*clerkinvite.Member, error) {
	s.calls.Add(1)
	return s.Store.Due(ctx, q)
}

func (s countingStore) Page(ctx context.Context, q clerkinvite.PageQuery) ([]*clerkinvite.Member, error) {
	s.calls.Add(1)
	return s.Store.Page(ctx, q)
}

func (s countingStore) SwapTime(ctx context.Context, name string, old, next time.Time) (time.Time, error) {
	s.calls.Add(1)
	return s.Store.SwapTime(ctx, name, old, next)
}

func (s countingStore) Clock(context.Context) (time.Time, error) {
	s.calls.Add(1)
	return time.Now(), nil
}

// The cost of idle processes: six simulated hours of Run with its defaults.
func TestIdleRunCostsFiveStatementsPerMinute(t *testing.T) {
	t.Parallel()
	const hours = 6
	for _, processes := range []int{1, 10, 100} {
		synctest.Test(t, func(t *testing.T) {
			var calls atomic.Int64
			clerk, store := clerkinvitetest.NewClerk(), countingStore{clerkinvitetest.NewMemoryStore(), &calls}
			ctx, cancel := context.WithTimeout(t.Context(), hours*time.Hour)
			defer cancel()
			var all sync.WaitGroup
			for range processes {
				svc, err := clerkinvite.New(clerkinvite.Config{API: clerk, Store: store})
				require.NoError(t, err)
				all.Go(func() { _ = svc.Run(ctx, nil) })
			}
			all.Wait()
			perMinute := float64(calls.Load()) / (hours * 60)
			perHour := float64(clerk.RequestCount()) / hours
			t.Logf("%d processes: %.1f statements per minute, %.2f requests per hour", processes, perMinute, perHour)
			require.InDelta(t, 5*processes, perMinute, 0.5*float64(processes)+0.5)
			require.InDelta(t, 1, perHour, 0.2, "one process lists the open invitations")
		})
	}
}

// On a read-only connection, as to a replica, methods that read work, and methods that write fail.
func TestReadersNeedNoPrimary(t *testing.T) {
	t.Parallel()
	h, clerk := setup(t)
	ada := clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"}
	_, err := h.invites.Invite(t.Context(), ada)
	require.NoError(t, err)
	cfg := h.pool.Config()
	cfg.ConnConfig.RuntimeParams["default_transaction_read_only"] = "on"
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	require.NoError(t, err)
	defer pool.Close()
	store := clerkinvite.NewPgxStore(pool, nil)
	readers, err := clerkinvite.New(clerkinvite.Config{API: clerk, Store: store})
	require.NoError(t, err)

	ref := clerkinvite.Ref{TenantID: ada.TenantID, Email: ada.Email}
	_, err = readers.Get(t.Context(), ref)
	require.NoError(t, err)
	page, err := readers.List(t.Context(), clerkinvite.ListParams{TenantID: "acme"})
	require.NoError(t, err)
	require.Len(t, page.Members, 1)
	for _, err := range readers.All(t.Context(), clerkinvite.ListParams{TenantID: "acme"}) {
		require.NoError(t, err)
	}
	_, err = readers.History(t.Context(), ref)
	require.NoError(t, err)
	_, err = store.Backlog(t.Context(), time.Now())
	require.NoError(t, err)
	require.NoError(t, store.Validate(t.Context()))

	_, err = readers.Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "joan@example.com"})
	var pg *pgconn.PgError
	require.ErrorAs(t, err, &pg)
	require.Equal(t, "25006", pg.Code, "read_only_sql_transaction")
	require.Equal(t, 1, clerk.Emails())
}
