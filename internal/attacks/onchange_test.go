package attacks_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// A panic in the hook writes nothing and leaves no transaction open.
func TestOnChangePanics(t *testing.T) {
	t.Parallel()
	store, h, pool := testkit.NewMirror(t)
	there := testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "there@example.com"))[0]
	h.SetHook(func(ctx context.Context, tx pgx.Tx, _ []clerkinvite.Change) error {
		_, err := tx.Exec(ctx, `INSERT INTO host VALUES ('panic', '', 1)`)
		require.NoError(t, err)
		panic("hook")
	})
	fail := func(store clerkinvite.TxStore) {
		assert.PanicsWithValue(t, "hook", func() {
			_, _ = store.Insert(t.Context(), []*clerkinvite.Member{testkit.ReservedRow("tenant", "x@example.com")})
		})
		for _, next := range []*clerkinvite.Member{testkit.PendingRow(there), nil} {
			assert.PanicsWithValue(t, "hook", func() { _, _ = store.Update(t.Context(), []clerkinvite.Change{{Old: there, New: next}}) })
		}
	}
	fail(store)
	testkit.RequireMirrored(t, pool)

	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	fail(store.WithTx(tx))
	h.SetHook(nil)
	testkit.InsertRows(t, store.WithTx(tx), testkit.ReservedRow("tenant", "after@example.com"))
	require.NoError(t, tx.Commit(t.Context()))
	testkit.RequireMirrored(t, pool)
	require.Equal(t, 2, testkit.QueryOne[int](t, pool, `SELECT count(*) FROM clerkinvite_member`))
}

// If the context ends while the hook runs, the call returns its error and writes nothing.
func TestOnChangeContextEnds(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]func(ctx context.Context, t *testing.T, pool *pgxpool.Pool, tx pgx.Tx, cancel func()) error{
		"in a statement": func(ctx context.Context, t *testing.T, pool *pgxpool.Pool, tx pgx.Tx, cancel func()) error {
			pid := int32(tx.Conn().PgConn().PID()) // #nosec G115 -- a pid
			var watched sync.WaitGroup
			defer watched.Wait()
			watched.Go(func() {
				defer cancel()
				testkit.Await(t, "the statement", func() bool {
					return testkit.QueryOne[bool](t, pool, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep')`, pid)
				})
			})
			_, err := tx.Exec(ctx, `SELECT pg_sleep(600)`)
			return err
		},
		"between statements": func(ctx context.Context, _ *testing.T, _ *pgxpool.Pool, _ pgx.Tx, cancel func()) error {
			cancel()
			return ctx.Err()
		},
		"unnoticed": func(_ context.Context, _ *testing.T, _ *pgxpool.Pool, _ pgx.Tx, cancel func()) error {
			cancel()
			return nil
		},
		"with an error of its own": func(_ context.Context, _ *testing.T, _ *pgxpool.Pool, _ pgx.Tx, cancel func()) error {
			cancel()
			return testkit.ErrHook
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, h, pool := testkit.NewMirror(t)
			there := testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "there@example.com"))[0]
			for _, call := range []func(ctx context.Context, store clerkinvite.TxStore) ([]clerkinvite.Result, error){
				func(ctx context.Context, store clerkinvite.TxStore) ([]clerkinvite.Result, error) {
					return store.Insert(ctx, []*clerkinvite.Member{testkit.ReservedRow("tenant", "x@example.com"), testkit.ReservedRow("tenant", "y@example.com")})
				},
				func(ctx context.Context, store clerkinvite.TxStore) ([]clerkinvite.Result, error) {
					return store.Update(ctx, []clerkinvite.Change{{Old: there, New: testkit.PendingRow(there)}})
				},
			} {
				ctx, cancel := context.WithCancel(t.Context())
				t.Cleanup(cancel)
				h.SetHook(func(ctx context.Context, tx pgx.Tx, _ []clerkinvite.Change) error {
					return before(ctx, t, pool, tx, cancel)
				})
				results, err := call(ctx, store)
				require.ErrorIs(t, err, context.Canceled)
				require.Empty(t, results)

				ctx, cancel = context.WithCancel(t.Context())
				t.Cleanup(cancel)
				tx, err := pool.Begin(t.Context())
				require.NoError(t, err)
				_, err = call(ctx, store.WithTx(tx))
				require.ErrorIs(t, err, context.Canceled)
				_ = tx.Rollback(t.Context())
			}
			h.SetHook(nil)
			testkit.Await(t, "the end of all statements", func() bool { // the server notices a cancel request when it does
				return testkit.QueryOne[int](t, pool, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle'`) == 1
			})
			testkit.RequireMirrored(t, pool)
			require.Equal(t, 1, testkit.QueryOne[int](t, pool, `SELECT count(*) FROM clerkinvite_history`))
		})
	}
}

// After a server error that is not about the rows, the statement and the hook are repeated.
func TestOnChangeServerTrouble(t *testing.T) {
	t.Parallel()
	for name, sql := range map[string]string{
		"serialization failure": `DO $$ BEGIN RAISE SQLSTATE '40001'; END $$`,
		"deadlock":              `DO $$ BEGIN RAISE SQLSTATE '40P01'; END $$`,
		"terminated":            `SELECT pg_terminate_backend(pg_backend_pid())`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, h, pool := testkit.NewMirror(t)
			there := testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "there@example.com"))[0]
			once := func() {
				done := false
				h.Take()
				h.SetHook(func(ctx context.Context, tx pgx.Tx, _ []clerkinvite.Change) error {
					if done {
						return nil
					}
					done = true
					_, err := tx.Exec(ctx, sql)
					return errors.Join(testkit.ErrHook, err)
				})
			}
			once()
			testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "x@example.com"))
			require.Len(t, h.Take(), 2)
			once()
			testkit.UpdateRows(t, store, clerkinvite.Change{Old: there, New: testkit.ActiveRow(there, "user_1")})
			require.Len(t, h.Take(), 2)
			testkit.RequireMirrored(t, pool)

			// Not in a host's transaction, which the host must repeat.
			once()
			tx, err := pool.Begin(t.Context())
			require.NoError(t, err)
			_, err = store.WithTx(tx).Insert(t.Context(), []*clerkinvite.Member{testkit.ReservedRow("tenant", "y@example.com")})
			require.ErrorIs(t, err, testkit.ErrHook)
			require.Len(t, h.Take(), 1)
			_ = tx.Rollback(t.Context())
			testkit.RequireMirrored(t, pool)
		})
	}
}

// cutMirror returns a store with a mirror, whose connections pass through a cutter, and a pool that does not.
func cutMirror(t *testing.T, mode func(*pgxpool.Config)) (*clerkinvite.PgxStore, *testkit.Mirror, *cutter, *pgxpool.Pool) {
	t.Helper()
	through, proxy, direct := cutStore(t, mode)
	_, err := direct.Exec(t.Context(), testkit.MirrorTable)
	require.NoError(t, err)
	h := new(testkit.Mirror)
	return clerkinvite.NewPgxStore(through, &clerkinvite.PgxOptions{OnChange: h.Follow}), h, proxy, direct
}

// Whatever response is lost, even the commit's, the hook's writes take effect once.
func TestOnChangeLostResponses(t *testing.T) {
	t.Parallel()
	testkit.InEveryMode(t, func(t *testing.T, mode func(*pgxpool.Config)) {
		store, h, proxy, direct := cutMirror(t, mode)
		fresh := clerkinvite.NewPgxStore(direct, &clerkinvite.PgxOptions{OnChange: new(testkit.Mirror).Follow})
		try := func(t *testing.T, name string, c cut) {
			// The number of calls of the hook: once more if its first writes were lost.
			want := 2
			switch {
			case c.commit && !c.before, !c.commit && c.before: // committed, or not even begun
				want = 1
			case !c.commit:
				want = 1 // the response to the store's statement is lost, so the hook is not reached
			}
			other := testkit.InsertRows(t, fresh, testkit.ReservedRow(name, "other@example.com"))[0]
			row := testkit.ReservedRow(name, "x@example.com")

			h.Take()
			proxy.arm(c)
			results, err := store.Insert(t.Context(), []*clerkinvite.Member{row, testkit.ReservedRow(name, "other@example.com")})
			require.NoError(t, err, name)
			require.NoError(t, results[0].Err, name)
			require.Error(t, results[1].Err, name)
			require.Equal(t, 1, proxy.cuts(), name)
			require.Len(t, h.Take(), want, name)
			testkit.RequireMirrored(t, direct)

			stale := *other
			stale.Version = 9
			m := results[0].Member
			for _, next := range []*clerkinvite.Member{testkit.PendingRow(m), testkit.ActiveRow(m, "user_1"), nil} {
				proxy.arm(c)
				results, err := store.Update(t.Context(), []clerkinvite.Change{{Old: m, New: next}, {Old: &stale, New: testkit.PendingRow(&stale)}})
				require.NoError(t, err, name)
				require.NoError(t, results[0].Err, name)
				require.ErrorIs(t, results[1].Err, clerkinvite.ErrConflict, name)
				require.Equal(t, 1, proxy.cuts(), name)
				require.Len(t, h.Take(), want, name)
				testkit.RequireMirrored(t, direct)
				m = results[0].Member
			}
		}
		everyCut(t, try)
		try(t, "commit that never came", cut{commit: true, before: true})
		try(t, "commit without an answer", cut{commit: true})
		try(t, "commit with half an answer", cut{commit: true, messages: 1})
	})
}

// A connection that breaks during the hook is not the hook's error, whatever the hook returns.
func TestOnChangeCut(t *testing.T) {
	t.Parallel()
	testkit.InEveryMode(t, func(t *testing.T, mode func(*pgxpool.Config)) {
		store, h, proxy, direct := cutMirror(t, mode)
		for name, c := range map[string]cut{"before": {before: true}, "after": {}} {
			cuts := 0
			h.SetHook(func(ctx context.Context, tx pgx.Tx, _ []clerkinvite.Change) error {
				if cuts++; cuts > 1 {
					return nil
				}
				proxy.arm(c)
				if _, err := tx.Exec(ctx, `DELETE FROM clerkinvite_limit`); err != nil {
					return testkit.ErrHook
				}
				return nil
			})
			m := testkit.InsertRows(t, store, testkit.ReservedRow(name, "x@example.com"))[0]
			require.Equal(t, 2, cuts)
			cuts = 0
			testkit.UpdateRows(t, store, clerkinvite.Change{Old: m, New: testkit.ActiveRow(m, "user_1")})
			require.Equal(t, 2, cuts)
			testkit.RequireMirrored(t, direct)
		}
	})
}

// A call needs only one connection, whatever happens to it.
func TestOnChangeOneConnection(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
	defer cancel()
	try := func(t *testing.T, store *clerkinvite.PgxStore) {
		rows := testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "a@example.com"), testkit.ReservedRow("tenant", "bad@example.com"), testkit.ReservedRow("tenant", "c@example.com"))
		testkit.UpdateRows(t, store, clerkinvite.Change{Old: rows[0], New: testkit.ActiveRow(rows[0], "user_1")})
		results, err := store.Update(ctx, []clerkinvite.Change{
			{Old: rows[1], New: testkit.ActiveRow(rows[1], "user_1")}, {Old: rows[2], New: testkit.PendingRow(rows[2])}, {Old: rows[0], New: testkit.PendingRow(rows[0])},
		})
		require.NoError(t, err)
		require.ErrorIs(t, results[0].Err, clerkinvite.ErrUserTaken)
		require.NoError(t, results[1].Err)
		require.ErrorIs(t, results[2].Err, clerkinvite.ErrConflict)
	}
	_, h, pool := testkit.NewMirror(t, func(c *pgxpool.Config) { c.MaxConns = 1 })
	try(t, clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{OnChange: h.Follow}))
	testkit.RequireMirrored(t, pool)

	conn, err := pgx.Connect(t.Context(), pgtest.New(t).DSN)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	_, err = conn.Exec(t.Context(), testkit.MirrorTable)
	require.NoError(t, err)
	store := clerkinvite.NewPgxStore(conn, &clerkinvite.PgxOptions{OnChange: new(testkit.Mirror).Follow})
	require.NoError(t, store.Migrate(t.Context()))
	try(t, store)
	require.Equal(t, byte('I'), conn.PgConn().TxStatus())
}

// The documentation of Config.Authorize recommends this for free seats. Of one list and of
// concurrent calls, exactly as many succeed as there are seats, and a member that leaves frees its seat.
func TestOnChangeEnforcesANumber(t *testing.T) {
	t.Parallel()
	const seats, people = 3, 20
	plain, pool := testkit.NewPgxStore(t)
	_, err := pool.Exec(t.Context(), `CREATE TABLE seats (free integer NOT NULL CHECK (free >= 0)); INSERT INTO seats VALUES (`+strconv.Itoa(seats)+`)`)
	require.NoError(t, err)
	require.NoError(t, plain.Validate(t.Context()))
	taken := func(m *clerkinvite.Member) int {
		if m != nil && (m.Status.Waits() && m.Status != clerkinvite.StatusExpired || m.Status == clerkinvite.StatusActive) {
			return 1
		}
		return 0
	}
	store := clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{OnChange: func(ctx context.Context, tx pgx.Tx, changes []clerkinvite.Change) error {
		n := 0
		for _, c := range changes {
			n += taken(c.New) - taken(c.Old)
		}
		_, err := tx.Exec(ctx, `UPDATE seats SET free = free - $1`, n)
		return err
	}})
	clerk := clerkinvitetest.NewClerk()
	b := testkit.New(t, testkit.Options{}, clerk, clerk, store)
	free := func() int { return testkit.QueryOne[int](t, pool, `SELECT free FROM seats`) }

	list := make([]clerkinvite.InviteParams, people)
	for i := range list {
		list[i] = clerkinvite.InviteParams{TenantID: "acme", Email: fmt.Sprintf("person%d@example.com", i)}
	}
	results, err := b.InviteMany(t.Context(), list, nil)
	require.NoError(t, err)
	var invited []*clerkinvite.Member
	for _, r := range results {
		if r.Err == nil {
			invited = append(invited, r.Member)
		} else {
			var pg *pgconn.PgError
			require.ErrorAs(t, r.Err, &pg)
			require.Equal(t, "23514", pg.Code)
		}
	}
	require.Len(t, invited, seats)
	require.Zero(t, free())
	require.Equal(t, seats, clerk.Emails())
	for _, m := range invited {
		_, err := b.Revoke(t.Context(), clerkinvite.Ref{TenantID: m.TenantID, Email: m.Email})
		require.NoError(t, err)
	}
	require.Equal(t, seats, free())

	var through atomic.Int32
	var wg sync.WaitGroup
	for i := range people {
		wg.Go(func() {
			if _, err := b.TryInvite(t, fmt.Sprintf("other%d@example.com", i)); err == nil {
				through.Add(1)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, seats, through.Load())
	require.Zero(t, free())
	require.Equal(t, 2*seats, clerk.Emails())
}
