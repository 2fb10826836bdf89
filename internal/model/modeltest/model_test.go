package modeltest_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
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

// mirrorSQL creates a host's table and its mirror in a schema. PostgreSQL rejects every commit after
// which the table differs from the members, and so fails the sequence.
func mirrorSQL(t *testing.T, schema string) string {
	t.Helper()
	m := clerkinvite.Mirror{
		Schema: schema, Table: schema + ".admin_user", TenantID: "tenant_id", Email: "email", ClerkUserID: "clerk_user_id", Role: "role", Status: "status",
	}
	up, err := m.Up()
	require.NoError(t, err)
	differences, err := m.Differences()
	require.NoError(t, err)
	return strings.ReplaceAll(`
CREATE TABLE {{schema}}.admin_user (tenant_id text, email text, clerk_user_id text NOT NULL, role text, status text NOT NULL,
	PRIMARY KEY (tenant_id, email), UNIQUE (tenant_id, clerk_user_id));
CREATE FUNCTION {{schema}}.compare() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF EXISTS (`+differences+`) THEN RAISE 'the host''s table differs from the members'; END IF;
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER compare AFTER INSERT OR UPDATE OR DELETE ON {{schema}}.clerkinvite_member
	DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {{schema}}.compare();`, "{{schema}}", schema) + up
}

// The same on PostgreSQL, with a mirror.
func TestModelPostgres(t *testing.T) {
	t.Parallel()
	tallyModel(t, "the same, on PostgreSQL", sequences(300, 200))
	pool := pgtest.New(t).Pool(t)
	schemas := modeltest.Schemas(func(t *testing.T, schema string) {
		t.Helper()
		require.NoError(t, clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{Schema: schema}).Migrate(t.Context()))
		_, err := pool.Exec(t.Context(), mirrorSQL(t, schema))
		require.NoError(t, err)
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
