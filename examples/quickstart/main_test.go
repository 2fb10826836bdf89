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

// With PostgreSQL, the output is the same.
func TestQuickstartOnPostgreSQL(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	cmd := exec.Command("go", "run", ".")
	cmd.Env = append(os.Environ(), "DATABASE_URL="+db.DSN, "CLERK_SECRET_KEY=")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	expected, err := os.ReadFile("expected.txt")
	require.NoError(t, err)
	first, rest, _ := strings.Cut(string(expected), "\n")
	require.Contains(t, first, "in memory")
	require.Equal(t, "Store: PostgreSQL\n"+rest, string(out))

	var schemas int
	require.NoError(t, db.Pool(t).QueryRow(t.Context(), "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'clerkinvite%'").Scan(&schemas))
	require.Zero(t, schemas, "the schema was dropped")
}

// A production key is rejected before anything is sent.
func TestQuickstartRejectsProductionKey(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("go", "run", ".")
	cmd.Env = append(os.Environ(), "DATABASE_URL=", "CLERK_SECRET_KEY="+"sk_li"+"ve_1")
	out, err := cmd.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "not a development key")
}
