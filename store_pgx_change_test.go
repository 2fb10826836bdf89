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
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
	"github.com/clerkinvite/clerkinvite/storetest"
)

// mirror is a host whose own table follows the members: it has a row for each recorded version of each.
type mirror struct {
	mu    sync.Mutex
	calls [][]clerkinvite.Change
	// before runs in the hook, before it writes anything.
	before func(ctx context.Context, tx pgx.Tx, changes []clerkinvite.Change) error
}

const mirrorTable = `CREATE TABLE host (tenant text COLLATE "C", email text COLLATE "C", version bigint, PRIMARY KEY (tenant, email, version))`

// follow is a PgxOptions.OnChange.
func (h *mirror) follow(ctx context.Context, tx pgx.Tx, changes []clerkinvite.Change) error {
	h.mu.Lock()
	h.calls = append(h.calls, changes)
	before := h.before
	h.mu.Unlock()
	if before != nil {
		if err := before(ctx, tx, changes); errors.Is(err, errSilent) {
			return nil
		} else if err != nil {
			return err
		}
	}
	for _, c := range changes {
		var err error
		if c.New == nil {
			_, err = tx.Exec(ctx, `DELETE FROM host WHERE tenant = $1 AND email = $2`, c.Old.TenantID, c.Old.Email)
		} else {
			_, err = tx.Exec(ctx, `INSERT INTO host VALUES ($1, $2, $3)`, c.New.TenantID, c.New.Email, c.New.Version)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// set replaces what runs before.
func (h *mirror) set(before func(ctx context.Context, tx pgx.Tx, changes []clerkinvite.Change) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.before = before
}

// take returns the calls since the last take.
func (h *mirror) take() [][]clerkinvite.Change {
	h.mu.Lock()
	defer h.mu.Unlock()
	calls := h.calls
	h.calls = nil
	return calls
}

// wantFollowed checks that the host's table and the history say the same, and that nobody is in a transaction.
func wantFollowed(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	const recorded = `SELECT m.tenant_id, m.email, h.version FROM clerkinvite_history h JOIN clerkinvite_member m ON m.tenant_id = h.tenant_id AND m.id = h.member_id`
	assert.Zero(t, one[int](t, pool, `SELECT count(*) FROM (`+recorded+` EXCEPT TABLE host) x`), "moves that the hook's table lacks")
	assert.Zero(t, one[int](t, pool, `SELECT count(*) FROM (TABLE host EXCEPT `+recorded+`) x`), "moves that only the hook's table has")
	assert.Zero(t, one[int](t, pool, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'`), "open transactions")
	assert.Zero(t, pool.Stat().AcquiredConns(), "connections that were not given back")
}

// mirrorStore returns a store with a mirror as its hook.
func mirrorStore(t *testing.T, opts ...func(*pgxpool.Config)) (*clerkinvite.PgxStore, *mirror, *pgxpool.Pool) {
	t.Helper()
	plain, pool := newPgxStore(t, opts...)
	require.NoError(t, plain.Validate(t.Context()))
	_, err := pool.Exec(t.Context(), mirrorTable)
	require.NoError(t, err)
	h := new(mirror)
	return clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{OnChange: h.follow}), h, pool
}

// TestOnChange: the hook gets every recorded change, once, and nothing else.
func TestOnChange(t *testing.T) {
	t.Parallel()
	inEveryMode(t, func(t *testing.T, mode func(*pgxpool.Config)) {
		var asked statements
		store, h, pool := mirrorStore(t, mode, tracing(&asked))
		ctx := t.Context()

		rows := insertRows(t, store, reservedRow("tenant", "b@example.com"), reservedRow("tenant", "a@example.com"))
		calls := h.take()
		require.Len(t, calls, 1)
		require.ElementsMatch(t, []clerkinvite.Change{{New: rows[0]}, {New: rows[1]}}, calls[0])

		// Neither a duplicate nor a row that was written before is news.
		results, err := store.Insert(ctx, []*clerkinvite.Member{reservedRow("tenant", "b@example.com"), reservedRow("tenant", "c@example.com"), rows[1]})
		require.NoError(t, err)
		require.Error(t, results[0].Err)
		require.NoError(t, results[2].Err)
		other := results[1].Member
		require.Equal(t, [][]clerkinvite.Change{{{New: other}}}, h.take())
		_, err = store.Insert(ctx, []*clerkinvite.Member{reservedRow("tenant", "b@example.com"), rows[1]})
		require.NoError(t, err)
		require.Empty(t, h.take())

		// A claim is a single statement, as without a hook.
		asked.take()
		until := storeTime.Add(time.Minute)
		claimed := *rows[0]
		claimed.Attempts, claimed.ClaimedUntil = 1, &until
		b := updateRows(t, store, clerkinvite.Change{Old: rows[0], New: &claimed})[0]
		require.Empty(t, h.take())
		require.Len(t, asked.take(), 1)

		// Of a mixed batch, those that were made and are moves, in the order of the batch.
		role := *other
		role.Role = "admin"
		changes := []clerkinvite.Change{
			{Old: b, New: pendingRow(b)}, {Old: rows[0], New: pendingRow(rows[0])}, {Old: rows[1]},
			{Old: other, New: &role}, {Old: reservedRow("tenant", "nobody@example.com")},
		}
		results, err = store.Update(ctx, changes)
		require.NoError(t, err)
		require.ErrorIs(t, results[1].Err, clerkinvite.ErrConflict)
		require.Equal(t, [][]clerkinvite.Change{{{Old: b, New: results[0].Member}, {Old: rows[1]}}}, h.take())
		wantFollowed(t, pool)

		// What it gets is its own.
		pending := results[0].Member
		h.set(func(_ context.Context, _ pgx.Tx, changes []clerkinvite.Change) error {
			for _, m := range []*clerkinvite.Member{changes[0].Old, changes[0].New} {
				m.Role, m.Data[0], m.Params[0] = "spoiled", 'x', 'x'
				*m.InvitedAt = time.Time{}
			}
			return nil
		})
		before := *pending
		before.Data, before.Params = slices.Clone(before.Data), slices.Clone(before.Params)
		active := updateRows(t, store, clerkinvite.Change{Old: pending, New: activeRow(pending, "user_1")})[0]
		require.Equal(t, before, *pending)
		found, err := store.Find(ctx, clerkinvite.Query{IDs: []string{active.ID}})
		require.NoError(t, err)
		require.Equal(t, []*clerkinvite.Member{active}, found)
		require.Equal(t, storeTime, *active.InvitedAt)
		wantFollowed(t, pool)
	})
}

// TestOnChangeContract: with a hook the store is the same store, and the hook misses nothing.
func TestOnChangeContract(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) clerkinvite.Store {
		_, pool := newPgxStore(t, func(c *pgxpool.Config) { c.MaxConns = 8 })
		_, err := pool.Exec(t.Context(), mirrorTable)
		require.NoError(t, err)
		t.Cleanup(func() {
			wantFollowed(t, pool)
			assert.Zero(t, one[int](t, pool, `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`), "deadlocks")
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

var (
	errHook = errors.New("the host does not want this")
	// errSilent is what the hook should report, and does not.
	errSilent = errors.New("not reported")
)

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
			func(context.Context, pgx.Tx) error { return errHook },
			func(t *testing.T, err error) { require.Equal(t, errHook, err) },
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
				return errors.Join(errSilent, err)
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
			store, h, pool := mirrorStore(t)
			_, err := pool.Exec(t.Context(), `CREATE TABLE late (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED)`)
			require.NoError(t, err)
			run := func(t *testing.T, tenant string, store clerkinvite.TxStore) {
				h.set(refusing(tc.refuse))
				defer h.set(nil)
				var rows []*clerkinvite.Member
				bad := func(i int) bool { return i == 3 || i == 12 }
				for i := range 20 {
					local := "good"
					if bad(i) {
						local = "bad"
					}
					rows = append(rows, reservedRow(tenant, local+string(rune('a'+i))+"@example.com"))
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
				h.take()
				results, err := store.Insert(t.Context(), rows[3:4])
				require.NoError(t, err)
				tc.want(t, results[0].Err)
				require.Len(t, h.take(), 1, "an error of the host's does not go away by repetition")

				h.set(nil)
				for i, r := range insertRows(t, store, rows...) {
					rows[i] = r
				}
				h.set(refusing(tc.refuse))
				changes := make([]clerkinvite.Change, len(rows))
				for i, m := range rows {
					changes[i] = clerkinvite.Change{Old: m, New: pendingRow(m)}
				}
				results, err = store.Update(t.Context(), changes)
				check(results, err)
				for i, r := range results {
					if !bad(i) {
						rows[i] = r.Member
					}
				}

				// Beside a taken user, which is another reason to halve a batch.
				h.set(nil)
				active := activeRow(rows[19], "user_"+tenant)
				rows[19] = updateRows(t, store, clerkinvite.Change{Old: rows[19], New: active})[0]
				h.set(refusing(tc.refuse))
				results, err = store.Update(t.Context(), []clerkinvite.Change{
					{Old: rows[0], New: activeRow(rows[0], "user_"+tenant)}, {Old: rows[3], New: activeRow(rows[3], "user_"+tenant+"3")},
					{Old: rows[1], New: activeRow(rows[1], "user_"+tenant+"1")},
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
				h.set(nil)
				for _, m := range rows {
					if strings.Contains(m.Email, "bad") {
						updateRows(t, store, clerkinvite.Change{Old: m, New: pendingRow(m)})
					}
				}
			}
			run(t, "own", store)
			wantFollowed(t, pool)
			assert.Equal(t, 2, one[int](t, pool, `SELECT count(*) FROM clerkinvite_member`))
			if name == "error of the commit" {
				return // in the host's transaction it is the host's commit that fails
			}

			tx, err := pool.Begin(t.Context())
			require.NoError(t, err)
			run(t, "host", store.WithTx(tx))
			require.NoError(t, tx.Commit(t.Context()))
			wantFollowed(t, pool)
			assert.Equal(t, 4, one[int](t, pool, `SELECT count(*) FROM clerkinvite_member`))

			tx, err = pool.Begin(t.Context())
			require.NoError(t, err)
			run(t, "gone", store.WithTx(tx))
			require.NoError(t, tx.Rollback(t.Context()))
			wantFollowed(t, pool)
			assert.Equal(t, 4, one[int](t, pool, `SELECT count(*) FROM clerkinvite_member`))
		})
	}
}

// TestOnChangeWithTx: in a host's transaction the hook writes in it too, and sees what it has written.
func TestOnChangeWithTx(t *testing.T) {
	t.Parallel()
	inEveryMode(t, func(t *testing.T, mode func(*pgxpool.Config)) {
		store, h, pool := mirrorStore(t, mode)
		var seen []string
		h.set(func(ctx context.Context, tx pgx.Tx, _ []clerkinvite.Change) error {
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
			m := insertRows(t, inTx, reservedRow("tenant", "x@example.com"))[0]
			m = updateRows(t, inTx, clerkinvite.Change{Old: m, New: pendingRow(m)})[0]
			updateRows(t, inTx, clerkinvite.Change{Old: m, New: activeRow(m, "user_1")})
			erased := insertRows(t, inTx, reservedRow("tenant", "y@example.com"))[0]
			updateRows(t, inTx, clerkinvite.Change{Old: erased})
			require.Equal(t, []string{"seen", "seen", "seen", "seen", "seen"}, seen)
			_, err = tx.Exec(t.Context(), `DELETE FROM host WHERE tenant = 'hosts own'`)
			require.NoError(t, err)
			if commit {
				require.NoError(t, tx.Commit(t.Context()))
			} else {
				require.NoError(t, tx.Rollback(t.Context()))
			}
			wantFollowed(t, pool)
		}
		require.Equal(t, 3, one[int](t, pool, `SELECT count(*) FROM host`))
	})
}

// TestOnChangePanics: nothing is written, and no transaction stays open.
func TestOnChangePanics(t *testing.T) {
	t.Parallel()
	store, h, pool := mirrorStore(t)
	there := insertRows(t, store, reservedRow("tenant", "there@example.com"))[0]
	h.set(func(ctx context.Context, tx pgx.Tx, _ []clerkinvite.Change) error {
		_, err := tx.Exec(ctx, `INSERT INTO host VALUES ('panic', '', 1)`)
		require.NoError(t, err)
		panic("hook")
	})
	fail := func(store clerkinvite.TxStore) {
		assert.PanicsWithValue(t, "hook", func() {
			_, _ = store.Insert(t.Context(), []*clerkinvite.Member{reservedRow("tenant", "x@example.com")})
		})
		for _, next := range []*clerkinvite.Member{pendingRow(there), nil} {
			assert.PanicsWithValue(t, "hook", func() { _, _ = store.Update(t.Context(), []clerkinvite.Change{{Old: there, New: next}}) })
		}
	}
	fail(store)
	wantFollowed(t, pool)

	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	fail(store.WithTx(tx))
	h.set(nil)
	insertRows(t, store.WithTx(tx), reservedRow("tenant", "after@example.com"))
	require.NoError(t, tx.Commit(t.Context()))
	wantFollowed(t, pool)
	require.Equal(t, 2, one[int](t, pool, `SELECT count(*) FROM clerkinvite_member`))
}

// TestOnChangeContextEnds: the end of the context while the hook runs is the call's error, and nothing is written.
func TestOnChangeContextEnds(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]func(ctx context.Context, tx pgx.Tx, cancel func()) error{
		"in a statement": func(ctx context.Context, tx pgx.Tx, cancel func()) error {
			time.AfterFunc(50*time.Millisecond, cancel)
			_, err := tx.Exec(ctx, `SELECT pg_sleep(10)`)
			return err
		},
		"between statements": func(ctx context.Context, _ pgx.Tx, cancel func()) error {
			cancel()
			return ctx.Err()
		},
		"unnoticed": func(_ context.Context, _ pgx.Tx, cancel func()) error {
			cancel()
			return nil
		},
		"with an error of its own": func(_ context.Context, _ pgx.Tx, cancel func()) error {
			cancel()
			return errHook
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, h, pool := mirrorStore(t)
			there := insertRows(t, store, reservedRow("tenant", "there@example.com"))[0]
			for _, call := range []func(ctx context.Context, store clerkinvite.TxStore) ([]clerkinvite.Result, error){
				func(ctx context.Context, store clerkinvite.TxStore) ([]clerkinvite.Result, error) {
					return store.Insert(ctx, []*clerkinvite.Member{reservedRow("tenant", "x@example.com"), reservedRow("tenant", "y@example.com")})
				},
				func(ctx context.Context, store clerkinvite.TxStore) ([]clerkinvite.Result, error) {
					return store.Update(ctx, []clerkinvite.Change{{Old: there, New: pendingRow(there)}})
				},
			} {
				ctx, cancel := context.WithCancel(t.Context())
				t.Cleanup(cancel)
				h.set(func(ctx context.Context, tx pgx.Tx, _ []clerkinvite.Change) error { return before(ctx, tx, cancel) })
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
			h.set(nil)
			require.Eventually(t, func() bool { // the server notices a cancel request when it does
				return one[int](t, pool, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle'`) == 1
			}, 10*time.Second, 10*time.Millisecond)
			wantFollowed(t, pool)
			require.Equal(t, 1, one[int](t, pool, `SELECT count(*) FROM clerkinvite_history`))
		})
	}
}

// TestOnChangeServerTrouble: what says nothing of the rows is repeated, hook and all.
func TestOnChangeServerTrouble(t *testing.T) {
	t.Parallel()
	for name, sql := range map[string]string{
		"serialization failure": `DO $$ BEGIN RAISE SQLSTATE '40001'; END $$`,
		"deadlock":              `DO $$ BEGIN RAISE SQLSTATE '40P01'; END $$`,
		"terminated":            `SELECT pg_terminate_backend(pg_backend_pid())`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, h, pool := mirrorStore(t)
			there := insertRows(t, store, reservedRow("tenant", "there@example.com"))[0]
			once := func() {
				done := false
				h.take()
				h.set(func(ctx context.Context, tx pgx.Tx, _ []clerkinvite.Change) error {
					if done {
						return nil
					}
					done = true
					_, err := tx.Exec(ctx, sql)
					return errors.Join(errHook, err)
				})
			}
			once()
			insertRows(t, store, reservedRow("tenant", "x@example.com"))
			require.Len(t, h.take(), 2)
			once()
			updateRows(t, store, clerkinvite.Change{Old: there, New: activeRow(there, "user_1")})
			require.Len(t, h.take(), 2)
			wantFollowed(t, pool)

			// Not in a host's transaction, which is the host's to repeat.
			once()
			tx, err := pool.Begin(t.Context())
			require.NoError(t, err)
			_, err = store.WithTx(tx).Insert(t.Context(), []*clerkinvite.Member{reservedRow("tenant", "y@example.com")})
			require.ErrorIs(t, err, errHook)
			require.Len(t, h.take(), 1)
			_ = tx.Rollback(t.Context())
			wantFollowed(t, pool)
		})
	}
}

// TestOnChangeLostAnswers: whatever answer is lost, that to the commit included, what the hook writes is there once.
func TestOnChangeLostAnswers(t *testing.T) {
	t.Parallel()
	inEveryMode(t, func(t *testing.T, mode func(*pgxpool.Config)) {
		through, proxy, direct := cutStore(t, mode)
		_, err := direct.Exec(t.Context(), mirrorTable)
		require.NoError(t, err)
		h := new(mirror)
		store := clerkinvite.NewPgxStore(through, &clerkinvite.PgxOptions{OnChange: h.follow})
		fresh := clerkinvite.NewPgxStore(direct, &clerkinvite.PgxOptions{OnChange: new(mirror).follow})
		try := func(t *testing.T, name string, c cut) {
			// How often the hook is called: once more if what it did first was lost.
			want := 2
			switch {
			case c.commit && !c.before, !c.commit && c.before: // committed, or not even begun
				want = 1
			case !c.commit:
				want = 1 // the answer to the store's statement is lost, so the hook is not reached
			}
			other := insertRows(t, fresh, reservedRow(name, "other@example.com"))[0]
			row := reservedRow(name, "x@example.com")

			h.take()
			proxy.arm(c)
			results, err := store.Insert(t.Context(), []*clerkinvite.Member{row, reservedRow(name, "other@example.com")})
			require.NoError(t, err, name)
			require.NoError(t, results[0].Err, name)
			require.Error(t, results[1].Err, name)
			require.Equal(t, 1, proxy.cuts(), name)
			require.Len(t, h.take(), want, name)
			wantFollowed(t, direct)

			stale := *other
			stale.Version = 9
			m := results[0].Member
			for _, next := range []*clerkinvite.Member{pendingRow(m), activeRow(m, "user_1"), nil} {
				proxy.arm(c)
				results, err := store.Update(t.Context(), []clerkinvite.Change{{Old: m, New: next}, {Old: &stale, New: pendingRow(&stale)}})
				require.NoError(t, err, name)
				require.NoError(t, results[0].Err, name)
				require.ErrorIs(t, results[1].Err, clerkinvite.ErrConflict, name)
				require.Equal(t, 1, proxy.cuts(), name)
				require.Len(t, h.take(), want, name)
				wantFollowed(t, direct)
				m = results[0].Member
			}
		}
		everyCut(t, try)
		try(t, "commit that never came", cut{commit: true, before: true})
		try(t, "commit without an answer", cut{commit: true})
		try(t, "commit with half an answer", cut{commit: true, messages: 1})
	})
}

// TestOnChangeCut: a connection that breaks under the hook is no error of the hook's, whatever it makes of it.
func TestOnChangeCut(t *testing.T) {
	t.Parallel()
	inEveryMode(t, func(t *testing.T, mode func(*pgxpool.Config)) {
		through, proxy, direct := cutStore(t, mode)
		_, err := direct.Exec(t.Context(), mirrorTable)
		require.NoError(t, err)
		h := new(mirror)
		store := clerkinvite.NewPgxStore(through, &clerkinvite.PgxOptions{OnChange: h.follow})
		for name, c := range map[string]cut{"before": {before: true}, "after": {}} {
			cuts := 0
			h.set(func(ctx context.Context, tx pgx.Tx, _ []clerkinvite.Change) error {
				if cuts++; cuts > 1 {
					return nil
				}
				proxy.arm(c)
				if _, err := tx.Exec(ctx, `DELETE FROM clerkinvite_limit`); err != nil {
					return errHook
				}
				return nil
			})
			m := insertRows(t, store, reservedRow(name, "x@example.com"))[0]
			require.Equal(t, 2, cuts)
			cuts = 0
			updateRows(t, store, clerkinvite.Change{Old: m, New: activeRow(m, "user_1")})
			require.Equal(t, 2, cuts)
			wantFollowed(t, direct)
		}
	})
}

// TestOnChangeHostCodecs: what a host registers for its own types disturbs neither the store nor what the hook gets.
func TestOnChangeHostCodecs(t *testing.T) {
	t.Parallel()
	inEveryMode(t, func(t *testing.T, mode func(*pgxpool.Config)) {
		store, h, pool := mirrorStore(t, mode, func(c *pgxpool.Config) {
			c.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
				for name, oid := range map[string]uint32{"json": pgtype.JSONOID, "jsonb": pgtype.JSONBOID, "uuid": pgtype.UUIDOID} {
					conn.TypeMap().RegisterType(&pgtype.Type{Name: name, OID: oid, Codec: noCodec{}})
				}
				return nil
			}
		})
		m := insertRows(t, store, reservedRow("tenant", "x@example.com"))[0]
		active := updateRows(t, store, clerkinvite.Change{Old: m, New: activeRow(m, "user_1")})[0]
		updateRows(t, store, clerkinvite.Change{Old: active})
		require.Equal(t, [][]clerkinvite.Change{{{New: m}}, {{Old: m, New: active}}, {{Old: active}}}, h.take())
		wantFollowed(t, pool)
	})
}

// TestOnChangeOneConnection: a call needs one connection, whatever happens to it.
func TestOnChangeOneConnection(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	try := func(t *testing.T, store *clerkinvite.PgxStore) {
		rows := insertRows(t, store, reservedRow("tenant", "a@example.com"), reservedRow("tenant", "bad@example.com"), reservedRow("tenant", "c@example.com"))
		updateRows(t, store, clerkinvite.Change{Old: rows[0], New: activeRow(rows[0], "user_1")})
		results, err := store.Update(ctx, []clerkinvite.Change{
			{Old: rows[1], New: activeRow(rows[1], "user_1")}, {Old: rows[2], New: pendingRow(rows[2])}, {Old: rows[0], New: pendingRow(rows[0])},
		})
		require.NoError(t, err)
		require.ErrorIs(t, results[0].Err, clerkinvite.ErrUserTaken)
		require.NoError(t, results[1].Err)
		require.ErrorIs(t, results[2].Err, clerkinvite.ErrConflict)
	}
	_, h, pool := mirrorStore(t, func(c *pgxpool.Config) { c.MaxConns = 1 })
	try(t, clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{OnChange: h.follow}))
	wantFollowed(t, pool)

	conn, err := pgx.Connect(t.Context(), pgtest.New(t).DSN)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	_, err = conn.Exec(t.Context(), mirrorTable)
	require.NoError(t, err)
	store := clerkinvite.NewPgxStore(conn, &clerkinvite.PgxOptions{OnChange: new(mirror).follow})
	require.NoError(t, store.Migrate(t.Context()))
	try(t, store)
	require.Equal(t, byte('I'), conn.PgConn().TxStatus())
}

// TestOnChangeIsolation: a stricter default of the connections does not make failures of what is a duplicate.
func TestOnChangeIsolation(t *testing.T) {
	t.Parallel()
	for _, level := range []string{"repeatable read", "serializable"} {
		var asked statements
		store, _, pool := mirrorStore(t, tracing(&asked), func(c *pgxpool.Config) {
			c.MaxConns = 8
			c.ConnConfig.RuntimeParams["default_transaction_isolation"] = level
		})
		hidden, err := pool.Begin(t.Context())
		require.NoError(t, err)
		winner := insertRows(t, store.WithTx(hidden), reservedRow("tenant", "x@example.com"))[0]
		asked.take()
		var results []clerkinvite.Result
		var insertErr error
		var done sync.WaitGroup
		done.Go(func() {
			results, insertErr = store.Insert(t.Context(), []*clerkinvite.Member{reservedRow("tenant", "x@example.com")})
		})
		require.Eventually(t, func() bool {
			return one[int](t, pool, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) == 1
		}, 10*time.Second, time.Millisecond)
		require.NoError(t, hidden.Commit(t.Context()))
		done.Wait()
		require.NoError(t, insertErr)
		var dup *clerkinvite.DuplicateEmailError
		require.ErrorAs(t, results[0].Err, &dup)
		require.Equal(t, winner, dup.Member)
		require.Equal(t, map[string]int{"insert": 1, "find": 1}, asked.kinds(), "nothing is repeated")
		wantFollowed(t, pool)
	}
}

// TestEraseLocks: an erasure waits for a host's row that refers to the member before it holds anything, so that the
// host can still change the member.
func TestEraseLocks(t *testing.T) {
	t.Parallel()
	store, pool := newPgxStore(t, func(c *pgxpool.Config) { c.MaxConns = 8 })
	_, err := pool.Exec(t.Context(), `CREATE TABLE host (tenant text, member uuid, FOREIGN KEY (tenant, member) REFERENCES clerkinvite_member ON DELETE CASCADE)`)
	require.NoError(t, err)
	m := insertRows(t, store, reservedRow("tenant", "x@example.com"))[0]
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `INSERT INTO host VALUES ($1, $2)`, m.TenantID, m.ID)
	require.NoError(t, err)

	var results []clerkinvite.Result
	var eraseErr error
	var done sync.WaitGroup
	done.Go(func() { results, eraseErr = store.Update(t.Context(), []clerkinvite.Change{{Old: m}}) })
	require.Eventually(t, func() bool {
		return one[int](t, pool, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) == 1
	}, 10*time.Second, time.Millisecond)
	now := updateRows(t, store.WithTx(tx), clerkinvite.Change{Old: m, New: pendingRow(m)})[0]
	require.NoError(t, tx.Commit(t.Context()))
	done.Wait()
	require.NoError(t, eraseErr)
	require.ErrorIs(t, results[0].Err, clerkinvite.ErrConflict)
	assert.Zero(t, one[int](t, pool, `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`))

	updateRows(t, store, clerkinvite.Change{Old: now})
	require.Zero(t, one[int](t, pool, `SELECT count(*) FROM host`))

	// A host's row that forbids it is the error of the call.
	m = insertRows(t, store, reservedRow("tenant", "x@example.com"))[0]
	_, err = pool.Exec(t.Context(), `CREATE TABLE strict (tenant text, member uuid, FOREIGN KEY (tenant, member) REFERENCES clerkinvite_member)`)
	require.NoError(t, err)
	_, err = pool.Exec(t.Context(), `INSERT INTO strict VALUES ($1, $2)`, m.TenantID, m.ID)
	require.NoError(t, err)
	_, err = store.Update(t.Context(), []clerkinvite.Change{{Old: m}})
	var pg *pgconn.PgError
	require.ErrorAs(t, err, &pg)
	require.Equal(t, "23503", pg.Code)
}
