package clerkinvite_test

import (
	"context"
	"errors"
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
	"github.com/clerkinvite/clerkinvite/internal/testkit"
	"github.com/clerkinvite/clerkinvite/storetest"
)

// TestOnChange: the hook gets every recorded change, once, and nothing else.
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

		// Neither a duplicate nor a row that was written before is news.
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

		// Of a mixed batch, those that were made and are moves, in the order of the batch.
		role := *other
		role.Role = "admin"
		changes := []clerkinvite.Change{
			{Old: b, New: testkit.PendingRow(b)}, {Old: rows[0], New: testkit.PendingRow(rows[0])}, {Old: rows[1]},
			{Old: other, New: &role}, {Old: testkit.ReservedRow("tenant", "nobody@example.com")},
		}
		results, err = store.Update(ctx, changes)
		require.NoError(t, err)
		require.ErrorIs(t, results[1].Err, clerkinvite.ErrConflict)
		require.Equal(t, [][]clerkinvite.Change{{{Old: b, New: results[0].Member}, {Old: rows[1]}}}, h.Take())
		testkit.RequireMirrored(t, pool)

		// What it gets is its own.
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

// TestOnChangeContract: with a hook the store is the same store, and the hook misses nothing.
func TestOnChangeContract(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) clerkinvite.Store {
		_, pool := testkit.NewPgxStore(t, func(c *pgxpool.Config) { c.MaxConns = 8 })
		_, err := pool.Exec(t.Context(), testkit.MirrorTable)
		require.NoError(t, err)
		t.Cleanup(func() {
			testkit.RequireMirrored(t, pool)
			assert.Zero(t, testkit.QueryOne[int](t, pool, `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`), "deadlocks")
		})
		return clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{OnChange: func(ctx context.Context, tx pgx.Tx, changes []clerkinvite.Change) error {
			// As follow does, but set by set: some batches are of thousands.
			var tenants, emails, erasedTenants, erasedEmails []string
			var versions []int64
			for _, c := range changes {
				if c.New == nil {
					erasedTenants, erasedEmails = append(erasedTenants, c.Old.TenantID), append(erasedEmails, c.Old.Email)
					continue
				}
				tenants, emails, versions = append(tenants, c.New.TenantID), append(emails, c.New.Email), append(versions, c.New.Version)
			}
			_, err := tx.Exec(ctx, `DELETE FROM host USING unnest($1::text[], $2::text[]) AS x (t, e) WHERE tenant = t AND email = e`, erasedTenants, erasedEmails)
			if err == nil {
				_, err = tx.Exec(ctx, `INSERT INTO host SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[])`, tenants, emails, versions)
			}
			return err
		}})
	})
}

// refusing returns what refuses the changes of addresses with "bad" in them.
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

// TestOnChangeRefuses: an error of the hook's is that of its row, and of no other of the batch.
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
			// What would be a taken user, were it the store's own.
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
				require.Len(t, h.Take(), 1, "an error of the host's does not go away by repetition")

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

				// Beside a taken user, which is another reason to halve a batch.
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
				return // in the host's transaction it is the host's commit that fails
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

// TestOnChangeWithTx: in a host's transaction the hook writes in it too, and sees what it has written.
func TestOnChangeWithTx(t *testing.T) {
	t.Parallel()
	testkit.InEveryMode(t, func(t *testing.T, mode func(*pgxpool.Config)) {
		store, h, pool := testkit.NewMirror(t, mode)
		var seen []string
		h.SetHook(func(ctx context.Context, tx pgx.Tx, _ []clerkinvite.Change) error {
			var email string
			err := tx.QueryRow(ctx, `SELECT email FROM host WHERE tenant = 'hosts own'`).Scan(&email)
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

// TestOnChangeHostCodecs: what a host registers for its own types disturbs neither the store nor what the hook gets.
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

// TestOnChangeIsolation: a stricter default of the connections does not make failures of what is a duplicate.
func TestOnChangeIsolation(t *testing.T) {
	t.Parallel()
	for _, level := range []string{"repeatable read", "serializable"} {
		var asked testkit.Statements
		store, _, pool := testkit.NewMirror(t, testkit.Tracing(&asked), func(c *pgxpool.Config) {
			c.MaxConns = 8
			c.ConnConfig.RuntimeParams["default_transaction_isolation"] = level
		})
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
		require.Eventually(t, func() bool {
			return testkit.QueryOne[int](t, pool, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) == 1
		}, 10*time.Second, time.Millisecond)
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

// TestEraseLocks: an erasure waits for a host's row that refers to the member before it holds anything, so that the
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
	require.Eventually(t, func() bool {
		return testkit.QueryOne[int](t, pool, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) == 1
	}, 10*time.Second, time.Millisecond)
	now := testkit.UpdateRows(t, store.WithTx(tx), clerkinvite.Change{Old: m, New: testkit.PendingRow(m)})[0]
	require.NoError(t, tx.Commit(t.Context()))
	done.Wait()
	require.NoError(t, eraseErr)
	require.ErrorIs(t, results[0].Err, clerkinvite.ErrConflict)
	assert.Zero(t, testkit.QueryOne[int](t, pool, `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`))

	testkit.UpdateRows(t, store, clerkinvite.Change{Old: now})
	require.Zero(t, testkit.QueryOne[int](t, pool, `SELECT count(*) FROM host`))

	// A host's row that forbids it is the error of the call.
	m = testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "x@example.com"))[0]
	_, err = pool.Exec(t.Context(), `CREATE TABLE strict (tenant text, member uuid, FOREIGN KEY (tenant, member) REFERENCES clerkinvite_member)`)
	require.NoError(t, err)
	_, err = pool.Exec(t.Context(), `INSERT INTO strict VALUES ($1, $2)`, m.TenantID, m.ID)
	require.NoError(t, err)
	_, err = store.Update(t.Context(), []clerkinvite.Change{{Old: m}})
	var pg *pgconn.PgError
	require.ErrorAs(t, err, &pg)
	require.Equal(t, "23503", pg.Code)
}
