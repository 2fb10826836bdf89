package scratch

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// An example leaves nothing behind, whether it succeeds or fails.
func TestInSchema(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	for _, want := range []error{nil, errors.New("the example's own")} {
		require.Equal(t, want, inSchema(t.Context(), db.DSN, func(ctx context.Context, pool *pgxpool.Pool) error {
			_, err := pool.Exec(ctx, `CREATE TABLE made (id int)`)
			require.NoError(t, err)
			return want
		}))
	}
	var left int
	require.NoError(t, db.Pool(t).QueryRow(t.Context(), `
SELECT count(*) FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace WHERE relname = 'made' OR nspname LIKE 'clerkinvite%'`).Scan(&left))
	require.Zero(t, left)
}

// Each example, as its reader runs it.
func TestExamples(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	for _, name := range []string{"databasesql", "mirror", "ownstore"} {
		run := func(url string) ([]byte, error) {
			cmd := exec.Command("go", "run", "../../"+name)
			cmd.Env = append(os.Environ(), "DATABASE_URL="+url)
			return cmd.CombinedOutput()
		}
		out, err := run(db.DSN)
		require.NoError(t, err, "%s", out)
		expected, err := os.ReadFile("../../" + name + "/expected.txt")
		require.NoError(t, err)
		require.Equal(t, string(expected), string(out))
		// Without one it brings its own, where this test's comes from too.
		if os.Getenv("CLERKINVITE_TEST_DATABASE") == "" {
			out, err = run("")
			require.NoError(t, err, "%s", out)
			require.Equal(t, string(expected), string(out))
		}
	}
}
