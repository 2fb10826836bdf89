package attacks_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
	"github.com/clerkinvite/clerkinvite/storetest"
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
		"with its own error": func(_ context.Context, _ *testing.T, _ *pgxpool.Pool, _ pgx.Tx, cancel func()) error {
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
			// The hook is called twice if its first writes were lost.
			want := 2
			switch {
			case c.commit && !c.before, !c.commit && c.before: // committed, or not started
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
		try(t, "a commit that is never sent", cut{commit: true, before: true})
		try(t, "a commit without a response", cut{commit: true})
		try(t, "a commit with half a response", cut{commit: true, messages: 1})
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

// The hook gets every recorded change once, and nothing else.
func TestOnChange(t *testing.T) {
	t.Parallel()
	testkit.InEveryMode(t, func(t *testing.T, mode func(*pgxpool.Config)) {
		var asked testkit.Statements
		store, h, pool := testkit.NewMirror(t, mode, testkit.Tracing(&asked))
		ctx := t.Context()

		rows := testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "b@example.com"), testkit.ReservedRow("tenant", "a@example.com"))
		calls := h.Take()
		require.Len(t, calls, 1)
		require.ElementsMatch(t, []clerkinvite.Change{{New: rows[0]}, {New: rows[1]}}, calls[0])

		// A duplicate and a repeated row are not changes.
		results, err := store.Insert(ctx, []*clerkinvite.Member{testkit.ReservedRow("tenant", "b@example.com"), testkit.ReservedRow("tenant", "c@example.com"), rows[1]})
		require.NoError(t, err)
		require.Error(t, results[0].Err)
		require.NoError(t, results[2].Err)
		other := results[1].Member
		require.Equal(t, [][]clerkinvite.Change{{{New: other}}}, h.Take())
		_, err = store.Insert(ctx, []*clerkinvite.Member{testkit.ReservedRow("tenant", "b@example.com"), rows[1]})
		require.NoError(t, err)
		require.Empty(t, h.Take())

		// A claim is a single statement, as without a hook.
		asked.Take()
		until := testkit.RowTime.Add(time.Minute)
		claimed := *rows[0]
		claimed.Attempts, claimed.ClaimedUntil = 1, &until
		b := testkit.UpdateRows(t, store, clerkinvite.Change{Old: rows[0], New: &claimed})[0]
		require.Empty(t, h.Take())
		require.Len(t, asked.Take(), 1)

		// Of a mixed batch, the recorded changes that were made, in the order of the batch.
		data := *other
		data.Data = json.RawMessage(`{}`)
		changes := []clerkinvite.Change{
			{Old: b, New: testkit.PendingRow(b)}, {Old: rows[0], New: testkit.PendingRow(rows[0])}, {Old: rows[1]},
			{Old: other, New: &data}, {Old: testkit.ReservedRow("tenant", "unknown@example.com")},
		}
		results, err = store.Update(ctx, changes)
		require.NoError(t, err)
		require.ErrorIs(t, results[1].Err, clerkinvite.ErrConflict)
		require.Equal(t, [][]clerkinvite.Change{{{Old: b, New: results[0].Member}, {Old: rows[1]}}}, h.Take())
		testkit.RequireMirrored(t, pool)

		// Another role and another address are recorded.
		other = results[3].Member
		for _, change := range []func(m *clerkinvite.Member){
			func(m *clerkinvite.Member) { m.Role = "admin" },
			func(m *clerkinvite.Member) { m.Email = "moved@example.com" },
		} {
			next := *other
			change(&next)
			now := testkit.UpdateRows(t, store, clerkinvite.Change{Old: other, New: &next})[0]
			require.Equal(t, [][]clerkinvite.Change{{{Old: other, New: now}}}, h.Take())
			other = now
		}
		testkit.RequireMirrored(t, pool)

		// The hook gets copies.
		pending := results[0].Member
		h.SetHook(func(_ context.Context, _ pgx.Tx, changes []clerkinvite.Change) error {
			for _, m := range []*clerkinvite.Member{changes[0].Old, changes[0].New} {
				m.Role, m.Data[0], m.Params[0] = "spoiled", 'x', 'x'
				*m.InvitedAt = time.Time{}
			}
			return nil
		})
		before := *pending
		before.Data, before.Params = slices.Clone(before.Data), slices.Clone(before.Params)
		active := testkit.UpdateRows(t, store, clerkinvite.Change{Old: pending, New: testkit.ActiveRow(pending, "user_1")})[0]
		require.Equal(t, before, *pending)
		found, err := store.Find(ctx, clerkinvite.Query{IDs: []string{active.ID}})
		require.NoError(t, err)
		require.Equal(t, []*clerkinvite.Member{active}, found)
		require.Equal(t, testkit.RowTime, *active.InvitedAt)
		testkit.RequireMirrored(t, pool)
	})
}

// With a hook the store behaves the same, and the hook gets every change.
func TestOnChangeContract(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("-short: make test-all has what takes long")
	}
	storetest.Run(t, func(t *testing.T) clerkinvite.Store {
		_, pool := testkit.NewPgxStore(t, func(c *pgxpool.Config) { c.MaxConns = 8 })
		_, err := pool.Exec(t.Context(), testkit.MirrorTable)
		require.NoError(t, err)
		t.Cleanup(func() {
			testkit.RequireMirrored(t, pool)
			if !strings.HasSuffix(t.Name(), "/Email/OppositeOrders") { // exchanged addresses have no order
				assert.Zero(t, testkit.QueryOne[int](t, pool, `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`), "deadlocks")
			}
		})
		return clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{OnChange: func(ctx context.Context, tx pgx.Tx, changes []clerkinvite.Change) error {
			// As follow does, but in sets, because some batches have thousands of rows.
			var tenants, ids, erasedTenants, erasedIDs []string
			var versions []int64
			for _, c := range changes {
				if c.New == nil {
					erasedTenants, erasedIDs = append(erasedTenants, c.Old.TenantID), append(erasedIDs, c.Old.ID)
					continue
				}
				tenants, ids, versions = append(tenants, c.New.TenantID), append(ids, c.New.ID), append(versions, c.New.Version)
			}
			_, err := tx.Exec(ctx, `DELETE FROM host USING unnest($1::text[], $2::text[]) AS x (t, m) WHERE tenant = t AND member = m`, erasedTenants, erasedIDs)
			if err == nil {
				_, err = tx.Exec(ctx, `INSERT INTO host SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[])`, tenants, ids, versions)
			}
			return err
		}})
	})
}

// refusing returns a hook that refuses changes of addresses with "bad" in them.
func refusing(err func(ctx context.Context, tx pgx.Tx) error) func(context.Context, pgx.Tx, []clerkinvite.Change) error {
	return func(ctx context.Context, tx pgx.Tx, changes []clerkinvite.Change) error {
		for _, c := range changes {
			m := c.New
			if m == nil {
				m = c.Old
			}
			if strings.Contains(m.Email, "bad") {
				return err(ctx, tx)
			}
		}
		return nil
	}
}

// An error of the hook is its row's error, and not that of other rows of the batch.
func TestOnChangeRefuses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		refuse func(ctx context.Context, tx pgx.Tx) error
		want   func(t *testing.T, err error)
	}{
		"own error": {
			func(context.Context, pgx.Tx) error { return testkit.ErrHook },
			func(t *testing.T, err error) { require.Equal(t, testkit.ErrHook, err) },
		},
		"error of a statement": {
			// This error would mean a taken user if the store's statement returned it.
			func(ctx context.Context, tx pgx.Tx) error {
				_, err := tx.Exec(ctx, `INSERT INTO host VALUES ('t', 'e', 1), ('t', 'e', 1)`)
				return err
			},
			func(t *testing.T, err error) { require.True(t, clerkinvite.IsUniqueViolation(err, "host_pkey"), err) },
		},
		"an error that it does not report": {
			func(ctx context.Context, tx pgx.Tx) error {
				_, err := tx.Exec(ctx, `SELECT 1/0`)
				return errors.Join(testkit.ErrSilent, err)
			},
			func(t *testing.T, err error) { require.ErrorIs(t, err, pgx.ErrTxCommitRollback) },
		},
		"error of the commit": {
			func(ctx context.Context, tx pgx.Tx) error {
				_, err := tx.Exec(ctx, `INSERT INTO late VALUES (1), (1)`)
				return err
			},
			func(t *testing.T, err error) { require.True(t, clerkinvite.IsUniqueViolation(err, "late_pkey"), err) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, h, pool := testkit.NewMirror(t)
			_, err := pool.Exec(t.Context(), `CREATE TABLE late (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED)`)
			require.NoError(t, err)
			run := func(t *testing.T, tenant string, store clerkinvite.TxStore) {
				h.SetHook(refusing(tc.refuse))
				defer h.SetHook(nil)
				var rows []*clerkinvite.Member
				bad := func(i int) bool { return i == 3 || i == 12 }
				for i := range 20 {
					local := "good"
					if bad(i) {
						local = "bad"
					}
					rows = append(rows, testkit.ReservedRow(tenant, local+string(rune('a'+i))+"@example.com"))
				}
				check := func(results []clerkinvite.Result, err error) {
					t.Helper()
					require.NoError(t, err)
					require.Len(t, results, len(rows))
					for i, r := range results {
						if bad(i) {
							require.Error(t, r.Err)
							tc.want(t, r.Err)
							require.Nil(t, r.Member)
							continue
						}
						require.NoError(t, r.Err)
						require.Equal(t, rows[i].ID, r.Member.ID)
					}
				}
				check(store.Insert(t.Context(), rows))
				h.Take()
				results, err := store.Insert(t.Context(), rows[3:4])
				require.NoError(t, err)
				tc.want(t, results[0].Err)
				require.Len(t, h.Take(), 1, "a host's error is not retried")

				h.SetHook(nil)
				for i, r := range testkit.InsertRows(t, store, rows...) {
					rows[i] = r
				}
				h.SetHook(refusing(tc.refuse))
				changes := make([]clerkinvite.Change, len(rows))
				for i, m := range rows {
					changes[i] = clerkinvite.Change{Old: m, New: testkit.PendingRow(m)}
				}
				results, err = store.Update(t.Context(), changes)
				check(results, err)
				for i, r := range results {
					if !bad(i) {
						rows[i] = r.Member
					}
				}

				// In a batch with a taken user, which is another reason to split it.
				h.SetHook(nil)
				active := testkit.ActiveRow(rows[19], "user_"+tenant)
				rows[19] = testkit.UpdateRows(t, store, clerkinvite.Change{Old: rows[19], New: active})[0]
				h.SetHook(refusing(tc.refuse))
				results, err = store.Update(t.Context(), []clerkinvite.Change{
					{Old: rows[0], New: testkit.ActiveRow(rows[0], "user_"+tenant)}, {Old: rows[3], New: testkit.ActiveRow(rows[3], "user_"+tenant+"3")},
					{Old: rows[1], New: testkit.ActiveRow(rows[1], "user_"+tenant+"1")},
				})
				require.NoError(t, err)
				require.ErrorIs(t, results[0].Err, clerkinvite.ErrUserTaken)
				tc.want(t, results[1].Err)
				require.NoError(t, results[2].Err)
				rows[1] = results[2].Member

				for i, m := range rows {
					changes[i] = clerkinvite.Change{Old: m}
				}
				check(store.Update(t.Context(), changes))
				h.SetHook(nil)
				for _, m := range rows {
					if strings.Contains(m.Email, "bad") {
						testkit.UpdateRows(t, store, clerkinvite.Change{Old: m, New: testkit.PendingRow(m)})
					}
				}
			}
			run(t, "own", store)
			testkit.RequireMirrored(t, pool)
			assert.Equal(t, 2, testkit.QueryOne[int](t, pool, `SELECT count(*) FROM clerkinvite_member`))
			if name == "error of the commit" {
				return // in the host's transaction, the host's commit fails
			}

			tx, err := pool.Begin(t.Context())
			require.NoError(t, err)
			run(t, "host", store.WithTx(tx))
			require.NoError(t, tx.Commit(t.Context()))
			testkit.RequireMirrored(t, pool)
			assert.Equal(t, 4, testkit.QueryOne[int](t, pool, `SELECT count(*) FROM clerkinvite_member`))

			tx, err = pool.Begin(t.Context())
			require.NoError(t, err)
			run(t, "gone", store.WithTx(tx))
			require.NoError(t, tx.Rollback(t.Context()))
			testkit.RequireMirrored(t, pool)
			assert.Equal(t, 4, testkit.QueryOne[int](t, pool, `SELECT count(*) FROM clerkinvite_member`))
		})
	}
}

// In a host's transaction the hook writes in that transaction, too, and sees its writes.
func TestOnChangeWithTx(t *testing.T) {
	t.Parallel()
	testkit.InEveryMode(t, func(t *testing.T, mode func(*pgxpool.Config)) {
		store, h, pool := testkit.NewMirror(t, mode)
		var seen []string
		h.SetHook(func(ctx context.Context, tx pgx.Tx, _ []clerkinvite.Change) error {
			var email string
			err := tx.QueryRow(ctx, `SELECT member FROM host WHERE tenant = 'hosts own'`).Scan(&email)
			seen = append(seen, email)
			return err
		})
		for _, commit := range []bool{false, true} {
			seen = nil
			tx, err := pool.Begin(t.Context())
			require.NoError(t, err)
			_, err = tx.Exec(t.Context(), `INSERT INTO host VALUES ('hosts own', 'seen', 1)`)
			require.NoError(t, err)
			inTx := store.WithTx(tx)
			m := testkit.InsertRows(t, inTx, testkit.ReservedRow("tenant", "x@example.com"))[0]
			m = testkit.UpdateRows(t, inTx, clerkinvite.Change{Old: m, New: testkit.PendingRow(m)})[0]
			testkit.UpdateRows(t, inTx, clerkinvite.Change{Old: m, New: testkit.ActiveRow(m, "user_1")})
			erased := testkit.InsertRows(t, inTx, testkit.ReservedRow("tenant", "y@example.com"))[0]
			testkit.UpdateRows(t, inTx, clerkinvite.Change{Old: erased})
			require.Equal(t, []string{"seen", "seen", "seen", "seen", "seen"}, seen)
			_, err = tx.Exec(t.Context(), `DELETE FROM host WHERE tenant = 'hosts own'`)
			require.NoError(t, err)
			if commit {
				require.NoError(t, tx.Commit(t.Context()))
			} else {
				require.NoError(t, tx.Rollback(t.Context()))
			}
			testkit.RequireMirrored(t, pool)
		}
		require.Equal(t, 3, testkit.QueryOne[int](t, pool, `SELECT count(*) FROM host`))
	})
}

// With a stricter default isolation of the connections, a duplicate stays a duplicate.
func TestOnChangeIsolation(t *testing.T) {
	t.Parallel()
	for _, level := range []string{"repeatable read", "serializable"} {
		var asked testkit.Statements
		store, _, pool := testkit.NewMirror(t, testkit.Tracing(&asked), func(c *pgxpool.Config) {
			c.MaxConns = 8
			c.ConnConfig.RuntimeParams["default_transaction_isolation"] = level
		})
		testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "first@example.com")) // records the hook
		hidden, err := pool.Begin(t.Context())
		require.NoError(t, err)
		winner := testkit.InsertRows(t, store.WithTx(hidden), testkit.ReservedRow("tenant", "x@example.com"))[0]
		asked.Take()
		var results []clerkinvite.Result
		var insertErr error
		var done sync.WaitGroup
		done.Go(func() {
			results, insertErr = store.Insert(t.Context(), []*clerkinvite.Member{testkit.ReservedRow("tenant", "x@example.com")})
		})
		testkit.AwaitLocks(t, pool, 1)
		require.NoError(t, hidden.Commit(t.Context()))
		done.Wait()
		require.NoError(t, insertErr)
		var dup *clerkinvite.DuplicateEmailError
		require.ErrorAs(t, results[0].Err, &dup)
		require.Equal(t, winner, dup.Member)
		require.Equal(t, map[string]int{"insert": 1, "find": 1}, asked.Kinds(), "nothing is repeated")
		testkit.RequireMirrored(t, pool)
	}
}

// An erasure waits for a host's row that refers to the member before it locks anything, so the
// host can still change the member.
func TestEraseLocks(t *testing.T) {
	t.Parallel()
	store, pool := testkit.NewPgxStore(t, func(c *pgxpool.Config) { c.MaxConns = 8 })
	_, err := pool.Exec(t.Context(), `CREATE TABLE host (tenant text, member uuid, FOREIGN KEY (tenant, member) REFERENCES clerkinvite_member ON DELETE CASCADE)`)
	require.NoError(t, err)
	m := testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "x@example.com"))[0]
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `INSERT INTO host VALUES ($1, $2)`, m.TenantID, m.ID)
	require.NoError(t, err)

	var results []clerkinvite.Result
	var eraseErr error
	var done sync.WaitGroup
	done.Go(func() { results, eraseErr = store.Update(t.Context(), []clerkinvite.Change{{Old: m}}) })
	testkit.AwaitLocks(t, pool, 1)
	now := testkit.UpdateRows(t, store.WithTx(tx), clerkinvite.Change{Old: m, New: testkit.PendingRow(m)})[0]
	require.NoError(t, tx.Commit(t.Context()))
	done.Wait()
	require.NoError(t, eraseErr)
	require.ErrorIs(t, results[0].Err, clerkinvite.ErrConflict)
	assert.Zero(t, testkit.QueryOne[int](t, pool, `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`))

	testkit.UpdateRows(t, store, clerkinvite.Change{Old: now})
	require.Zero(t, testkit.QueryOne[int](t, pool, `SELECT count(*) FROM host`))

	// If a host's row forbids the erasure of a member, its result has that error, and the others are erased.
	rows := testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "x@example.com"), testkit.ReservedRow("tenant", "y@example.com"), testkit.ReservedRow("tenant", "z@example.com"))
	m = rows[1]
	_, err = pool.Exec(t.Context(), `CREATE TABLE strict (tenant text, member uuid, FOREIGN KEY (tenant, member) REFERENCES clerkinvite_member)`)
	require.NoError(t, err)
	_, err = pool.Exec(t.Context(), `INSERT INTO strict VALUES ($1, $2)`, m.TenantID, m.ID)
	require.NoError(t, err)
	results, err = store.Update(t.Context(), []clerkinvite.Change{{Old: rows[0]}, {Old: m}, {Old: rows[2]}})
	require.NoError(t, err)
	require.Equal(t, []clerkinvite.Result{{Member: rows[0]}, {Err: results[1].Err}, {Member: rows[2]}}, results)
	var pg *pgconn.PgError
	require.ErrorAs(t, results[1].Err, &pg)
	require.Equal(t, "23503", pg.Code)
	left, err := store.Page(t.Context(), clerkinvite.PageQuery{})
	require.NoError(t, err)
	require.Equal(t, []*clerkinvite.Member{m}, left)

	// A single erasure has the same result. In the host's transaction the call returns the error, because that transaction
	// can write nothing more.
	results, err = store.Update(t.Context(), []clerkinvite.Change{{Old: m}})
	require.NoError(t, err)
	require.ErrorAs(t, results[0].Err, &pg)
	require.Equal(t, "23503", pg.Code)
	tx, err = pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = store.WithTx(tx).Update(t.Context(), []clerkinvite.Change{{Old: m}})
	require.ErrorAs(t, err, &pg)
	require.Equal(t, "23503", pg.Code)
	require.NoError(t, tx.Rollback(t.Context()))
}

// The hook blocks or panics for one of 20 members that become active. One pass writes the others, and a panic reaches the
// caller. In synctest's bubble, statements take no time: the time passes only while the hook waits for the end of its
// context, so the machine's speed does not matter.
func TestOnChange_OneMemberDoesNotBlockOthers(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(ctx context.Context, t *testing.T, pool *pgxpool.Pool, tx pgx.Tx) error{
		"blocks": func(ctx context.Context, _ *testing.T, _ *pgxpool.Pool, _ pgx.Tx) error {
			<-ctx.Done()
			return ctx.Err()
		},
		"waits in database": func(ctx context.Context, t *testing.T, pool *pgxpool.Pool, tx pgx.Tx) error {
			<-ctx.Done()
			statement, cancel := context.WithCancel(context.WithoutCancel(ctx)) // pgx does not send a statement after ctx has ended
			pid := tx.Conn().PgConn().PID()
			go func() {
				defer cancel()
				for !testkit.QueryOne[bool](t, pool, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep')`, pid) {
				}
			}()
			_, err := tx.Exec(statement, `SELECT pg_sleep(600)`)
			return err
		},
		"panics": func(context.Context, *testing.T, *pgxpool.Pool, pgx.Tx) error { panic(testkit.ErrHook) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			synctest.Test(t, func(t *testing.T) {
				pool := db.Pool(t, testkit.OwnResolver)
				store := clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{OnChange: func(ctx context.Context, tx pgx.Tx, changes []clerkinvite.Change) error {
					if slices.ContainsFunc(changes, func(c clerkinvite.Change) bool {
						return c.New.Email == "p7@example.com" && c.New.Status == clerkinvite.StatusActive
					}) {
						return end(ctx, t, pool, tx)
					}
					return nil
				}})
				require.NoError(t, store.Migrate(t.Context()))
				clerk := clerkinvitetest.NewClerk()
				b := testkit.New(t, testkit.Options{}, clerk, clerk, store)
				ps := testkit.People(20, "p")
				for _, p := range ps {
					clerk.AddVerifiedUser(p.Email)
				}
				_, err := b.ReserveMany(t.Context(), ps)
				require.NoError(t, err)
				deliver := func() { _, err = b.Deliver(t.Context(), nil) }
				if name == "panics" {
					require.PanicsWithValue(t, testkit.ErrHook, deliver)
				} else {
					deliver()
					require.NoError(t, err)
				}
				for _, p := range ps {
					require.Equal(t, p.Email != "p7@example.com", b.Member(t, p.Email).Status == clerkinvite.StatusActive, p.Email)
				}
				testkit.Await(t, "the return of all connections", func() bool { return pool.Stat().AcquiredConns() == 0 })
			})
		})
	}
}
