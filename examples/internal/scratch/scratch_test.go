package scratch

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite/internal/pgtest"
)

// interruptedVariable makes the test binary an example that waits for a signal.
const interruptedVariable = "CLERKINVITE_SCRATCH_WAITS"

func TestMain(m *testing.M) {
	if os.Getenv(interruptedVariable) != "" {
		Main(waits)
		return
	}
	os.Exit(pgtest.Main(m))
}

// waits is an example that runs until it is interrupted.
func waits(ctx context.Context, pool *pgxpool.Pool) error {
	if _, err := pool.Exec(ctx, `CREATE TABLE made (id int)`); err != nil {
		return err
	}
	fmt.Println("made")
	_, err := pool.Exec(ctx, `SELECT pg_sleep(3600)`)
	return err
}

// An interrupted example drops its schema.
func TestSignalDropsSchema(t *testing.T) {
	t.Parallel()
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		db := pgtest.New(t)
		program, err := os.Executable()
		require.NoError(t, err)
		cmd := exec.CommandContext(t.Context(), program)
		cmd.Env = append(os.Environ(), interruptedVariable+"=1", "DATABASE_URL="+db.DSN)
		cmd.Stderr = t.Output()
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		line, err := bufio.NewReader(out).ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "made\n", line)
		require.Equal(t, 1, countSchemas(t, db))
		require.NoError(t, cmd.Process.Signal(signal))
		var ended *exec.ExitError
		require.ErrorAs(t, cmd.Wait(), &ended)
		require.Equal(t, 1, ended.ExitCode(), "not killed by the signal")
		require.Zero(t, countSchemas(t, db))
	}
}

// countSchemas returns the number of the examples' schemas.
func countSchemas(t *testing.T, db *pgtest.DB) (n int) {
	t.Helper()
	require.NoError(t, db.Pool(t).QueryRow(t.Context(), `SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'clerkinvite%'`).Scan(&n))
	return n
}

// The schema is dropped whether the example succeeds or fails.
func TestInSchema(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	for _, want := range []error{nil, errors.New("of the example")} {
		require.Equal(t, want, inSchema(t.Context(), db.DSN, func(ctx context.Context, pool *pgxpool.Pool) error {
			_, err := pool.Exec(ctx, `CREATE TABLE made (id int)`)
			require.NoError(t, err)
			return want
		}))
	}
	require.Zero(t, countSchemas(t, db))
	var tables int
	require.NoError(t, db.Pool(t).QueryRow(t.Context(), `SELECT count(*) FROM pg_class WHERE relname = 'made'`).Scan(&tables))
	require.Zero(t, tables)
}

// Runs each example as a reader does.
func TestExamples(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	examples := []string{"databasesql", "mirror", "ownstore", "seats"}
	if testing.Short() { // each has a test of its own, too
		examples = examples[:1]
	}
	for _, name := range examples {
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
		// Without DATABASE_URL, it starts a temporary server, as this test does.
		if os.Getenv("CLERKINVITE_TEST_DATABASE") == "" {
			out, err = run("")
			require.NoError(t, err, "%s", out)
			require.Equal(t, string(expected), string(out))
		}
	}
}
