package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// Variables that another program needs do not make the quickstart call Clerk or write to a database.
func TestQuickstartIgnoresTheEnvironment(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("go", "run", ".")
	cmd.Env = append(os.Environ(), "CLERK_SECRET_KEY=sk_test_1", "CLERK_API_URL=http://127.0.0.1:1", "DATABASE_URL=postgres://127.0.0.1:1")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, expected(t), string(out))
}

// With PostgreSQL, the output is the same.
func TestQuickstartOnPostgreSQL(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	out, err := exec.Command("go", "run", ".", "-database", db.DSN).CombinedOutput()
	require.NoError(t, err, "%s", out)
	first, rest, _ := strings.Cut(expected(t), "\n")
	require.Contains(t, first, "in memory")
	require.Equal(t, "Store: PostgreSQL\n"+rest, string(out))

	var schemas int
	require.NoError(t, db.Pool(t).QueryRow(t.Context(), "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'clerkinvite%'").Scan(&schemas))
	require.Zero(t, schemas, "the schema was dropped")
}

func expected(t *testing.T) string {
	t.Helper()
	out, err := os.ReadFile("expected.txt")
	require.NoError(t, err)
	return string(out)
}
