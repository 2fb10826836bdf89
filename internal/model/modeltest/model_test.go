package modeltest_test

import (
	"fmt"
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/model/modeltest"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
	"github.com/clerkinvite/clerkinvite/internal/tally"
)

// TestMain stops the PostgreSQL server that the tests have started.
func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// Random sequences of everything that can happen. Environment variables change their number; see package modeltest.
func TestModel(t *testing.T) {
	t.Parallel()
	tallyModel(t, "random sequences of verbs, faults and crashes, store in memory", sequences(5000, 1250))
	modeltest.Run(t, func(*testing.T) clerkinvite.Store { return clerkinvitetest.NewMemoryStore() },
		&modeltest.Options{Sequences: sequences(5000, 1250)})
}

// The same on PostgreSQL.
func TestModelPostgres(t *testing.T) {
	t.Parallel()
	tallyModel(t, "the same, on PostgreSQL", sequences(300, 200))
	pool := pgtest.New(t).Pool(t)
	schemas := modeltest.Schemas(func(t *testing.T, schema string) {
		t.Helper()
		require.NoError(t, clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{Schema: schema}).Migrate(t.Context()))
	}, func(t *testing.T, sql string) {
		t.Helper()
		_, err := pool.Exec(t.Context(), sql)
		require.NoError(t, err)
	})
	modeltest.Run(t, func(t *testing.T) clerkinvite.Store {
		return clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{Schema: schemas(t)})
	}, &modeltest.Options{Sequences: sequences(300, 200)})
}

// tallyModel records how many sequences were run.
func tallyModel(t *testing.T, what string, n int) {
	t.Helper()
	if env, err := strconv.Atoi(os.Getenv("CLERKINVITE_MODEL_SEQUENCES")); err == nil {
		n = env
	}
	row := tally.Start(t, what)
	t.Cleanup(func() { row.Done(fmt.Sprintf("%d sequences of 100 steps", n), "nothing") })
}

// sequences returns how many to run, fewer if they take long.
func sequences(most, fewer int) int {
	switch {
	case testing.Short():
		return fewer / 5
	case modeltest.Slow:
		return fewer
	}
	return most
}
