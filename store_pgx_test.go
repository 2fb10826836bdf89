package clerkinvite_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
	"github.com/clerkinvite/clerkinvite/storetest"
)

var pgxModes = []pgx.QueryExecMode{
	pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec,
	pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
}

// runModes are those that differ most, for what takes long. TestPgxStoreStatements makes
// each statement in all of them.
var runModes = []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeSimpleProtocol}

// inEveryMode runs f for each query execution mode of pgx.
func inEveryMode(t *testing.T, f func(t *testing.T, mode func(*pgxpool.Config))) {
	inModes(t, pgxModes, f)
}

func inModes(t *testing.T, modes []pgx.QueryExecMode, f func(t *testing.T, mode func(*pgxpool.Config))) {
	for _, mode := range modes {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			f(t, func(c *pgxpool.Config) { c.ConnConfig.DefaultQueryExecMode = mode })
		})
	}
}

// newPgxStore returns a store on an empty database, and its pool.
func newPgxStore(t *testing.T, opts ...func(*pgxpool.Config)) (*clerkinvite.PgxStore, *pgxpool.Pool) {
	t.Helper()
	pool := pgtest.New(t).Pool(t, opts...)
	store := clerkinvite.NewPgxStore(pool, nil)
	require.NoError(t, store.Migrate(t.Context()))
	return store, pool
}

func TestPgxStore(t *testing.T) {
	t.Parallel()
	inModes(t, runModes, func(t *testing.T, mode func(*pgxpool.Config)) {
		storetest.Run(t, func(t *testing.T) clerkinvite.Store {
			store, pool := newPgxStore(t, mode, func(c *pgxpool.Config) { c.MaxConns = 8 })
			if pool.Config().ConnConfig.DefaultQueryExecMode == pgx.QueryExecModeSimpleProtocol {
				// Two in one, because each run takes seconds: a schema of any name, off the search_path.
				store = clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{Schema: `Odd "Schema" $1 clerkinvite_member`})
				require.NoError(t, store.Migrate(t.Context()))
				_, err := pool.Exec(t.Context(), `DROP TABLE clerkinvite_history, clerkinvite_member, clerkinvite_limit`)
				require.NoError(t, err)
			}
			t.Cleanup(func() {
				// The store repeats after a deadlock, so the suite would not see one.
				assert.Zero(t, one[int](t, pool, `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`), "deadlocks")
			})
			return store
		})
	})
}

// one returns the one value that a query returns.
func one[T any](t *testing.T, db interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}, sql string, args ...any) (v T) {
	t.Helper()
	require.NoError(t, db.QueryRow(context.WithoutCancel(t.Context()), sql, args...).Scan(&v))
	return v
}
