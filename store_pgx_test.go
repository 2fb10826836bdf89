package clerkinvite_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
	"github.com/clerkinvite/clerkinvite/storetest"
)

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
			{Old: other, New: &data}, {Old: testkit.ReservedRow("tenant", "nobody@example.com")},
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
			// An error that would mean a taken user if it were the store's.
			func(ctx context.Context, tx pgx.Tx) error {
				_, err := tx.Exec(ctx, `INSERT INTO host VALUES ('t', 'e', 1), ('t', 'e', 1)`)
				return err
			},
			func(t *testing.T, err error) { require.True(t, clerkinvite.IsUniqueViolation(err, "host_pkey"), err) },
		},
		"error that it does not report": {
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

				// Together with a taken user, which is another reason to split a batch.
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

// Codecs that a host registers for its types affect neither the store nor the hook's arguments.
func TestOnChangeHostCodecs(t *testing.T) {
	t.Parallel()
	testkit.InEveryMode(t, func(t *testing.T, mode func(*pgxpool.Config)) {
		store, h, pool := testkit.NewMirror(t, mode, func(c *pgxpool.Config) {
			c.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
				for name, oid := range map[string]uint32{"json": pgtype.JSONOID, "jsonb": pgtype.JSONBOID, "uuid": pgtype.UUIDOID} {
					conn.TypeMap().RegisterType(&pgtype.Type{Name: name, OID: oid, Codec: noCodec{}})
				}
				return nil
			}
		})
		m := testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "x@example.com"))[0]
		active := testkit.UpdateRows(t, store, clerkinvite.Change{Old: m, New: testkit.ActiveRow(m, "user_1")})[0]
		testkit.UpdateRows(t, store, clerkinvite.Change{Old: active})
		require.Equal(t, [][]clerkinvite.Change{{{New: m}}, {{Old: m, New: active}}, {{Old: active}}}, h.Take())
		testkit.RequireMirrored(t, pool)
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

	// Alone it is the same, and in the host's transaction the call fails with it, because nothing can be written there any more.
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

// A page can be longer than usual pages.
func TestPgxStoreLimits(t *testing.T) {
	t.Parallel()
	store, _ := testkit.NewPgxStore(t)
	rows := make([]*clerkinvite.Member, 1200)
	for i := range rows {
		rows[i] = testkit.ReservedRow("acme", fmt.Sprintf("%d@example.com", i))
	}
	testkit.InsertRows(t, store, rows...)
	reserved := []clerkinvite.Status{clerkinvite.StatusReserved, clerkinvite.StatusPending}
	for _, limit := range []int{1, 1000, 1001, 1002, 1199, 1200, 1300} {
		due, err := store.Due(t.Context(), clerkinvite.DueQuery{At: testkit.RowTime, Limit: limit})
		require.NoError(t, err)
		require.Len(t, due, min(limit, 1200))
		for _, q := range []clerkinvite.PageQuery{
			{}, {TenantID: "acme"}, {TenantID: "acme", Statuses: reserved}, {TenantID: "acme", EmailPrefix: "1"},
		} {
			q.Limit = limit
			found, err := store.Page(t.Context(), q)
			require.NoError(t, err)
			want := min(limit, 1200)
			if q.EmailPrefix != "" {
				want = min(limit, 311) // 1, 10 to 19, 100 to 199 and 1000 to 1199
			}
			require.Len(t, found, want, "%+v", q)
		}
	}
}

// runModes are the most different modes, for slow tests. TestPgxStoreStatements runs
// each statement in all of them.
var runModes = []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeSimpleProtocol}

func TestPgxStore(t *testing.T) {
	t.Parallel()
	testkit.InModes(t, runModes, func(t *testing.T, mode func(*pgxpool.Config)) {
		storetest.Run(t, func(t *testing.T) clerkinvite.Store {
			store, pool := testkit.NewPgxStore(t, mode, func(c *pgxpool.Config) { c.MaxConns = 8 })
			if pool.Config().ConnConfig.DefaultQueryExecMode == pgx.QueryExecModeSimpleProtocol {
				// Two in one, because each run takes seconds: a schema of any name, off the search_path.
				store = clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{Schema: `Odd "Schema" $1 clerkinvite_member`})
				require.NoError(t, store.Migrate(t.Context()))
				_, err := pool.Exec(t.Context(), `DROP TABLE clerkinvite_history, clerkinvite_member, clerkinvite_limit`)
				require.NoError(t, err)
			}
			t.Cleanup(func() {
				// The store repeats after a deadlock, so the suite would not see one.
				if !strings.HasSuffix(t.Name(), "/Email/OppositeOrders") { // exchanged addresses have no order
					assert.Zero(t, testkit.QueryOne[int](t, pool, `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`), "deadlocks")
				}
			})
			return store
		})
	})
}

// A store takes a pool or a connection, but not a transaction.
var (
	_ clerkinvite.PgxDB = (*pgxpool.Pool)(nil)
	_ clerkinvite.PgxDB = (*pgx.Conn)(nil)
	_ clerkinvite.Store = (*clerkinvite.PgxStore)(nil)
)

func TestPromise7_PgxStoreTakesNoTransaction(t *testing.T) {
	t.Parallel()
	_, pool := testkit.NewPgxStore(t)
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(t.Context()) }()
	savepoint, err := tx.Begin(t.Context())
	require.NoError(t, err)
	for _, tx := range []any{tx, savepoint} {
		_, ok := tx.(clerkinvite.PgxDB)
		assert.Falsef(t, ok, "%T fits PgxDB", tx)
	}
	conn, err := pgx.Connect(t.Context(), pool.Config().ConnString())
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	plain, err := conn.Begin(t.Context())
	require.NoError(t, err)
	_, ok := plain.(clerkinvite.PgxDB)
	assert.Falsef(t, ok, "%T fits PgxDB", plain)

	var inTx any = clerkinvite.NewPgxStore(pool, nil).WithTx(tx)
	_, ok = inTx.(clerkinvite.Store)
	assert.Falsef(t, ok, "%T is a Store", inTx)
}

func TestPgxStoreWithTx(t *testing.T) {
	t.Parallel()
	testkit.InEveryMode(t, func(t *testing.T, mode func(*pgxpool.Config)) {
		store, pool := testkit.NewPgxStore(t, mode)
		ctx := t.Context()
		_, err := pool.Exec(ctx, `CREATE TABLE host (id int PRIMARY KEY)`)
		require.NoError(t, err)
		exec := func(tx pgx.Tx, id int) {
			t.Helper()
			_, err := tx.Exec(ctx, `INSERT INTO host VALUES ($1)`, id)
			require.NoError(t, err)
		}
		count := func(table string) int { return testkit.QueryOne[int](t, pool, `SELECT count(*) FROM `+table) }
		begin := func() pgx.Tx {
			t.Helper()
			tx, err := pool.Begin(ctx)
			require.NoError(t, err)
			return tx
		}
		there := testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "there@example.com"))[0]

		// Rolled back: neither is written.
		tx := begin()
		exec(tx, 1)
		testkit.InsertRows(t, store.WithTx(tx), testkit.ReservedRow("tenant", "x@example.com"))
		require.NoError(t, tx.Rollback(ctx))
		require.Zero(t, count("host"))
		require.Equal(t, 1, count("clerkinvite_member"))
		require.Equal(t, 1, count("clerkinvite_history"))

		// Committed: both are written. A duplicate, even of a row of this transaction, or a taken user or address does not abort it.
		tx = begin()
		exec(tx, 1)
		inTx := store.WithTx(tx)
		own := testkit.InsertRows(t, inTx, testkit.ReservedRow("tenant", "x@example.com"))[0]
		results, err := inTx.Insert(ctx, []*clerkinvite.Member{
			testkit.ReservedRow("tenant", "there@example.com"), testkit.ReservedRow("tenant", "x@example.com"), testkit.ReservedRow("tenant", "y@example.com"),
		})
		require.NoError(t, err)
		for i, existing := range []*clerkinvite.Member{there, own} {
			var dup *clerkinvite.DuplicateEmailError
			require.ErrorAs(t, results[i].Err, &dup)
			require.Equal(t, existing, dup.Member)
		}
		require.NoError(t, results[2].Err)
		exec(tx, 2)
		active := testkit.UpdateRows(t, inTx, clerkinvite.Change{Old: own, New: testkit.ActiveRow(own, "user_1")})[0]
		other := results[2].Member
		results, err = inTx.Update(ctx, []clerkinvite.Change{
			{Old: other, New: testkit.ActiveRow(other, "user_1")}, {Old: there, New: testkit.ActiveRow(there, "user_2")}, {Old: own, New: testkit.ActiveRow(own, "user_3")},
		})
		require.NoError(t, err)
		require.ErrorIs(t, results[0].Err, clerkinvite.ErrUserTaken)
		require.NoError(t, results[1].Err)
		require.ErrorIs(t, results[2].Err, clerkinvite.ErrConflict)
		taken := *results[1].Member
		taken.Email = "x@example.com"
		results, err = inTx.Update(ctx, []clerkinvite.Change{{Old: results[1].Member, New: &taken}})
		require.NoError(t, err)
		require.ErrorIs(t, results[0].Err, clerkinvite.ErrEmailTaken)
		exec(tx, 3)
		require.NoError(t, tx.Commit(ctx))
		require.Equal(t, 3, count("host"))
		require.Equal(t, 3, count("clerkinvite_member"))
		require.Equal(t, 5, count("clerkinvite_history"))
		found, err := store.Find(ctx, clerkinvite.Query{UserIDs: []string{"user_1"}})
		require.NoError(t, err)
		require.Equal(t, []*clerkinvite.Member{active}, found)
	})
}

// The call waits for another transaction that reserves the address, and finds the row when it commits.
func TestPgxStoreWithTxWaits(t *testing.T) {
	t.Parallel()
	var asked testkit.Statements
	store, pool := testkit.NewPgxStore(t, testkit.Tracing(&asked))
	first, err := pool.Begin(t.Context())
	require.NoError(t, err)
	winner := testkit.InsertRows(t, store.WithTx(first), testkit.ReservedRow("tenant", "x@example.com"))[0]
	second, err := pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = second.Rollback(t.Context()) }()
	asked.Take()

	insert := func(store clerkinvite.TxStore) func() {
		return func() {
			results, err := store.Insert(t.Context(), []*clerkinvite.Member{testkit.ReservedRow("tenant", "x@example.com")})
			var dup *clerkinvite.DuplicateEmailError
			if err != nil || !errors.As(results[0].Err, &dup) {
				t.Errorf("Insert: %v, %v; want a duplicate", results, err)
				return
			}
			assert.Equal(t, winner, dup.Member)
		}
	}
	var done sync.WaitGroup
	done.Go(insert(store.WithTx(second)))
	done.Go(insert(store))
	testkit.AwaitLocks(t, pool, 2)
	require.NoError(t, first.Commit(t.Context()))
	done.Wait()
	require.Equal(t, map[string]int{"insert": 2, "find": 2}, asked.Kinds())
}

// A row committed after the snapshot of a stricter transaction is PostgreSQL's
// serialization failure, and the host must repeat.
func TestPgxStoreWithTxRepeatableRead(t *testing.T) {
	t.Parallel()
	store, pool := testkit.NewPgxStore(t)
	for _, level := range []pgx.TxIsoLevel{pgx.RepeatableRead, pgx.Serializable} {
		tx, err := pool.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: level})
		require.NoError(t, err)
		testkit.QueryOne[int](t, tx, `SELECT 1`) // takes the snapshot
		tenant := string(level)
		testkit.InsertRows(t, store, testkit.ReservedRow(tenant, "x@example.com"))
		testkit.InsertRows(t, store.WithTx(tx), testkit.ReservedRow(tenant, "y@example.com"))
		_, err = store.WithTx(tx).Insert(t.Context(), []*clerkinvite.Member{testkit.ReservedRow(tenant, "x@example.com")})
		var pg *pgconn.PgError
		require.ErrorAs(t, err, &pg)
		require.Equal(t, "40001", pg.Code)
		require.NoError(t, tx.Rollback(t.Context()))
	}
}

// insertBehind inserts the address that tx has locked, commits tx while the insert waits, and requires that
// the row is new.
func insertBehind(t *testing.T, store *clerkinvite.PgxStore, pool *pgxpool.Pool, tx pgx.Tx) {
	t.Helper()
	row := testkit.ReservedRow("tenant", "x@example.com")
	var results []clerkinvite.Result
	var err error
	var done sync.WaitGroup
	done.Go(func() { results, err = store.Insert(t.Context(), []*clerkinvite.Member{row}) })
	testkit.AwaitLocks(t, pool, 1)
	require.NoError(t, tx.Commit(t.Context()))
	done.Wait()
	require.Equal(t, row.ID, testkit.Members(t, results, err)[0].ID)
}

// The conflicting row is purged before Insert reads it: Insert tries again.
func TestPgxStore_ConflictingRowPurgedBeforeTheLookUp(t *testing.T) {
	t.Parallel()
	var asked testkit.Statements
	store, pool := testkit.NewPgxStore(t, testkit.Tracing(&asked), func(c *pgxpool.Config) { c.MaxConns = 8 })
	hidden, err := pool.Begin(t.Context())
	require.NoError(t, err)
	testkit.InsertRows(t, store.WithTx(hidden), testkit.ReservedRow("tenant", "x@example.com"))
	asked.Take()
	// The row is committed while our Insert waits for it, and deleted before our Insert looks for it.
	asked.Before("LATERAL", func() {
		_, err := pool.Exec(context.Background(), `DELETE FROM clerkinvite_member`)
		assert.NoError(t, err)
	})
	insertBehind(t, store, pool, hidden)
	require.Equal(t, map[string]int{"insert": 2, "find": 1}, asked.Kinds())
	require.Equal(t, 1, testkit.QueryOne[int](t, pool, `SELECT count(*) FROM clerkinvite_history`))
}

// Insert waits for a transaction that deletes the row. Then the address is free.
func TestPgxStore_InsertWaitsForADelete(t *testing.T) {
	t.Parallel()
	store, pool := testkit.NewPgxStore(t)
	testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "x@example.com"))
	purge, err := pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = purge.Exec(t.Context(), `DELETE FROM clerkinvite_member`)
	require.NoError(t, err)
	insertBehind(t, store, pool, purge)
}

// A new row that violates a key fails alone, and the transaction can continue.
func TestPgxStore_ViolatedKeyFailsOnlyItsRow(t *testing.T) {
	t.Parallel()
	store, pool := testkit.NewPgxStore(t)
	there := testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "there@example.com"))[0]
	active := testkit.ActiveRow(testkit.ReservedRow("tenant", "active@example.com"), "user_1")
	testkit.InsertRows(t, store, active)
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	for _, st := range []clerkinvite.TxStore{store.WithTx(tx), store} {
		sameID := testkit.ReservedRow("tenant", "other@example.com")
		sameID.ID = there.ID
		results, err := st.Insert(t.Context(), []*clerkinvite.Member{
			sameID, testkit.ActiveRow(testkit.ReservedRow("tenant", "second@example.com"), "user_1"), testkit.ReservedRow("tenant", "there@example.com"),
		})
		require.NoError(t, err)
		require.ErrorIs(t, results[0].Err, clerkinvite.ErrConflict)
		require.ErrorIs(t, results[1].Err, clerkinvite.ErrUserTaken)
		require.Equal(t, "active@example.com", results[1].Member.Email)
		var dup *clerkinvite.DuplicateEmailError
		require.ErrorAs(t, results[2].Err, &dup)
	}
	require.NoError(t, tx.Commit(t.Context()))
}

// A row that the tables reject fails alone.
func TestPgxStore_IllegalRowDoesNotBlockOthers(t *testing.T) {
	t.Parallel()
	store, _ := testkit.NewPgxStore(t)
	var rows []*clerkinvite.Member
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		rows = append(rows, testkit.ReservedRow("tenant", name+"@example.com"))
	}
	rows = testkit.InsertRows(t, store, rows...)
	testkit.UpdateRows(t, store, clerkinvite.Change{Old: rows[4], New: testkit.ActiveRow(rows[4], "user_1")})
	illegal := *rows[2]
	illegal.Attempts = -1
	changes := []clerkinvite.Change{
		{Old: rows[0], New: testkit.ActiveRow(rows[0], "user_1")}, {Old: rows[1], New: testkit.PendingRow(rows[1])},
		{Old: rows[2], New: &illegal}, {Old: rows[3], New: testkit.PendingRow(rows[3])},
	}
	var pg *pgconn.PgError
	results, err := store.Update(t.Context(), changes)
	require.NoError(t, err)
	require.ErrorIs(t, results[0].Err, clerkinvite.ErrUserTaken)
	require.NoError(t, results[1].Err)
	require.ErrorAs(t, results[2].Err, &pg)
	require.Equal(t, "23514", pg.Code)
	require.NoError(t, results[3].Err)
}

// noCodec is a host's codec that cannot handle the library's values.
type noCodec struct{ pgtype.TextCodec }

func (noCodec) PlanEncode(*pgtype.Map, uint32, int16, any) pgtype.EncodePlan { return nil }

func (noCodec) PlanScan(*pgtype.Map, uint32, int16, any) pgtype.ScanPlan { return nil }

// Codecs that a host registers for its types do not affect the store.
func TestPgxStoreHostCodecs(t *testing.T) {
	t.Parallel()
	testkit.InEveryMode(t, func(t *testing.T, mode func(*pgxpool.Config)) {
		store, _ := testkit.NewPgxStore(t, mode, func(c *pgxpool.Config) {
			c.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
				for name, oid := range map[string]uint32{"json": pgtype.JSONOID, "jsonb": pgtype.JSONBOID, "uuid": pgtype.UUIDOID, "numeric": pgtype.NumericOID} {
					conn.TypeMap().RegisterType(&pgtype.Type{Name: name, OID: oid, Codec: noCodec{}})
				}
				berlin := time.FixedZone("Europe/Berlin", 3600)
				conn.TypeMap().RegisterType(&pgtype.Type{Name: "timestamptz", OID: pgtype.TimestamptzOID, Codec: &pgtype.TimestamptzCodec{ScanLocation: berlin}})
				return nil
			}
		})
		m := testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "x@example.com"))[0]
		m = testkit.UpdateRows(t, store, clerkinvite.Change{Old: m, New: testkit.ActiveRow(m, "user_1")})[0]
		found, err := store.Find(t.Context(), clerkinvite.Query{IDs: []string{m.ID}})
		require.NoError(t, err)
		require.Equal(t, []*clerkinvite.Member{m}, found)
		require.Equal(t, time.UTC, m.UpdatedAt.Location())
		found, err = store.Page(t.Context(), clerkinvite.PageQuery{
			TenantID: "tenant", Statuses: []clerkinvite.Status{m.Status}, AfterTenantID: "tenant", AfterID: "00000000-0000-0000-0000-000000000000",
		})
		require.NoError(t, err)
		require.Equal(t, []*clerkinvite.Member{m}, found)
		moves, err := store.History(t.Context(), "tenant", m.ID)
		require.NoError(t, err)
		require.Len(t, moves, 2)
		require.Equal(t, clerkinvite.HistoryEntry{
			Version: 2, From: clerkinvite.StatusReserved, To: clerkinvite.StatusActive, Send: 1, Sent: 1, ClerkUserID: "user_1",
			InvitationID: m.InvitationID, Role: m.Role, At: m.UpdatedAt,
		}, moves[1])
		require.Equal(t, "editor", moves[1].Role)
		require.Equal(t, m, testkit.UpdateRows(t, store, clerkinvite.Change{Old: m})[0])
		var known time.Time
		for _, next := range []time.Time{testkit.RowTime, testkit.RowTime.Add(time.Hour)} {
			known, err = store.SwapTime(t.Context(), "create", known, next)
			require.NoError(t, err)
			require.Equal(t, next, known)
		}
		require.NoError(t, store.Validate(t.Context()))
	})
}

// The number of statements of each operation is fixed.
func TestPgxStoreStatements(t *testing.T) {
	t.Parallel()
	testkit.InEveryMode(t, func(t *testing.T, mode func(*pgxpool.Config)) {
		var asked testkit.Statements
		store, _ := testkit.NewPgxStore(t, mode, testkit.Tracing(&asked))
		asked.Take()
		rows := make([]*clerkinvite.Member, 50)
		for i := range rows {
			rows[i] = testkit.ReservedRow("tenant", string(rune('a'+i%26))+string(rune('a'+i/26))+"@example.com")
		}
		rows = testkit.InsertRows(t, store, rows...)
		require.Len(t, asked.Take(), 1, "insert")

		results, err := store.Insert(t.Context(), []*clerkinvite.Member{testkit.ReservedRow("tenant", rows[0].Email), testkit.ReservedRow("tenant", "new@example.com")})
		require.NoError(t, err)
		require.Error(t, results[0].Err)
		require.NoError(t, results[1].Err)
		require.Len(t, asked.Take(), 1, "duplicate")

		var changes []clerkinvite.Change
		for _, m := range rows[:49] {
			changes = append(changes, clerkinvite.Change{Old: m, New: testkit.ActiveRow(m, "user_"+m.ID)})
		}
		testkit.UpdateRows(t, store, changes...)
		require.Len(t, asked.Take(), 1, "update")
		results, err = store.Update(t.Context(), changes)
		require.NoError(t, err)
		require.ErrorIs(t, results[0].Err, clerkinvite.ErrConflict)
		require.Len(t, asked.Take(), 1, "conflict")

		_, err = store.Update(t.Context(), []clerkinvite.Change{{Old: rows[49], New: testkit.ActiveRow(rows[49], "user_"+rows[0].ID)}})
		require.NoError(t, err)
		require.Len(t, asked.Take(), 1, "user taken")

		_, err = store.Find(t.Context(), clerkinvite.Query{
			Refs: []clerkinvite.Ref{rows[0].Ref()}, IDs: []string{rows[1].ID}, Emails: []string{rows[2].Email}, UserIDs: []string{"user_1"},
		})
		require.NoError(t, err)
		require.Len(t, asked.Take(), 1, "find")
		_, err = store.Due(t.Context(), clerkinvite.DueQuery{At: testkit.RowTime})
		require.NoError(t, err)
		require.Len(t, asked.Take(), 1, "due")
		_, err = store.Find(t.Context(), clerkinvite.Query{IDs: []string{"nonsense"}})
		require.NoError(t, err)
		require.Empty(t, asked.Take(), "find nothing")

		for i, q := range []clerkinvite.PageQuery{
			{}, {TenantID: "tenant"}, {TenantID: "tenant", EmailPrefix: "a"},
			{TenantID: "tenant", Statuses: []clerkinvite.Status{clerkinvite.StatusReserved, clerkinvite.StatusActive}},
		} {
			q.Limit = 2
			found, err := store.Page(t.Context(), q)
			require.NoError(t, err)
			require.Len(t, found, 2)
			require.Len(t, asked.Take(), 1, "page %d", i)
		}
		_, err = store.History(t.Context(), "tenant", rows[0].ID)
		require.NoError(t, err)
		require.Len(t, asked.Take(), 1, "history")

		for _, swap := range []struct{ old, next time.Time }{
			{time.Time{}, time.Time{}}, {time.Time{}, testkit.RowTime}, {time.Time{}, testkit.RowTime.Add(1)}, {testkit.RowTime, testkit.RowTime.Add(time.Hour)}, {testkit.RowTime, testkit.RowTime},
		} {
			_, err = store.SwapTime(t.Context(), "create", swap.old, swap.next)
			require.NoError(t, err)
			require.Len(t, asked.Take(), 1, "swap")
		}

		gone := testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "gone@example.com"))[0]
		asked.Take()
		testkit.UpdateRows(t, store, clerkinvite.Change{Old: gone}, clerkinvite.Change{Old: rows[49], New: testkit.PendingRow(rows[49])})
		require.Len(t, asked.Take(), 1, "erase")
		testkit.UpdateRows(t, store, clerkinvite.Change{Old: gone})
		require.Len(t, asked.Take(), 2, "erased already")
	})
}

// The history has one row for each state change, and no others.
func TestPgxStoreHistory(t *testing.T) {
	t.Parallel()
	store, pool := testkit.NewPgxStore(t)
	m := testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "x@example.com"))[0]
	claimed := *m
	claimed.Attempts, claimed.ClaimedUntil = 1, &testkit.RowTime
	m = testkit.UpdateRows(t, store, clerkinvite.Change{Old: m, New: &claimed})[0]
	m = testkit.UpdateRows(t, store, clerkinvite.Change{Old: m, New: testkit.PendingRow(m)})[0]
	resend := *m
	resend.Send, resend.NextAttemptAt = 2, &testkit.RowTime
	m = testkit.UpdateRows(t, store, clerkinvite.Change{Old: m, New: &resend})[0]
	removed := *testkit.ActiveRow(m, "")
	removed.Status, removed.Reason = clerkinvite.StatusRemoved, "user_deleted"
	m = testkit.UpdateRows(t, store, clerkinvite.Change{Old: m, New: &removed})[0]

	type move struct {
		Version           int64
		From, To          *string
		Send, Sent        int
		User, Inv, Reason *string
		At                time.Time
	}
	rows, err := pool.Query(t.Context(), `
SELECT version, from_status, to_status, send, sent, clerk_user_id, invitation_id, reason, at
FROM clerkinvite_history WHERE tenant_id = 'tenant' AND member_id = $1 ORDER BY version`, m.ID)
	require.NoError(t, err)
	moves, err := pgx.CollectRows(rows, pgx.RowToStructByPos[move])
	require.NoError(t, err)
	for i := range moves {
		moves[i].At = moves[i].At.UTC()
	}
	p := func(s string) *string { return &s }
	inv, pending, later := p(m.InvitationID), p("pending_"+m.InvitationID), testkit.RowTime.Add(time.Hour)
	require.Equal(t, []move{
		{1, nil, p("reserved"), 1, 0, nil, nil, nil, testkit.RowTime},
		{3, p("reserved"), p("pending"), 1, 1, pending, inv, nil, later},
		{4, p("pending"), p("pending"), 2, 1, pending, inv, nil, later},
		{5, p("pending"), p("removed"), 2, 2, nil, inv, p("user_deleted"), later},
	}, moves)

	// It is erased with the row.
	_, err = pool.Exec(t.Context(), `DELETE FROM clerkinvite_member`)
	require.NoError(t, err)
	require.Zero(t, testkit.QueryOne[int](t, pool, `SELECT count(*) FROM clerkinvite_history`))
}

// Of two host transactions that reserve in different orders, one ends with 40P01, as documented, and succeeds
// when it is repeated.
func TestWithTx_Deadlock(t *testing.T) {
	t.Parallel()
	store, pool := testkit.NewPgxStore(t)
	clerk := clerkinvitetest.NewClerk()
	b := testkit.New(t, testkit.Options{}, clerk, clerk, store)
	reserve := func(tx pgx.Tx, email string) error {
		_, err := b.InTx(store.WithTx(tx)).Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: email})
		return err
	}
	var txs [2]pgx.Tx
	for i, email := range []string{"ada@example.com", "grace@example.com"} {
		tx, err := pool.Begin(t.Context())
		require.NoError(t, err)
		txs[i] = tx
		require.NoError(t, reserve(tx, email))
	}
	var errs [2]error
	var done sync.WaitGroup
	for i, email := range []string{"grace@example.com", "ada@example.com"} {
		done.Go(func() {
			if errs[i] = reserve(txs[i], email); errs[i] != nil {
				_ = txs[i].Rollback(t.Context())
			}
		})
	}
	done.Wait()
	loser := slices.IndexFunc(errs[:], func(err error) bool { return err != nil })
	require.NotEqual(t, -1, loser)
	var pg *pgconn.PgError
	require.ErrorAs(t, errs[loser], &pg)
	require.Equal(t, "40P01", pg.Code)
	require.NoError(t, errs[1-loser])
	require.NoError(t, txs[1-loser].Commit(t.Context()))

	var dup *clerkinvite.DuplicateEmailError
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	for _, email := range []string{"ada@example.com", "grace@example.com"} {
		require.ErrorAs(t, reserve(tx, email), &dup)
	}
	require.NoError(t, tx.Commit(t.Context()))
}

// The hook blocks or panics for one of 20 members that become active. The others are written, and a panic reaches the
// caller.
func TestOnChange_OneMemberDoesNotBlockOthers(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(ctx context.Context, tx pgx.Tx) error{
		"blocks":            func(ctx context.Context, _ pgx.Tx) error { <-ctx.Done(); return ctx.Err() },
		"waits in database": func(ctx context.Context, tx pgx.Tx) error { _, err := tx.Exec(ctx, "SELECT pg_sleep(600)"); return err },
		"panics":            func(context.Context, pgx.Tx) error { panic(testkit.ErrHook) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, pool := testkit.NewPgxStore(t)
			store := clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{OnChange: func(ctx context.Context, tx pgx.Tx, changes []clerkinvite.Change) error {
				if slices.ContainsFunc(changes, func(c clerkinvite.Change) bool {
					return c.New.Email == "p7@example.com" && c.New.Status == clerkinvite.StatusActive
				}) {
					return end(ctx, tx)
				}
				return nil
			}})
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
	}
}
