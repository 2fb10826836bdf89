package clerkinvite_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
	"github.com/clerkinvite/clerkinvite/storetest"
)

// Replicas start at the same time, each with its own pool.
func TestMigrate_ConcurrentCalls(t *testing.T) {
	t.Parallel()
	for _, opts := range []*clerkinvite.PgxOptions{nil, {Schema: `Odd "Schema"; --`}} {
		db := pgtest.New(t)
		var done sync.WaitGroup
		for range 4 {
			store := clerkinvite.NewPgxStore(db.Pool(t), opts)
			for range 4 {
				done.Go(func() {
					assert.NoError(t, store.Migrate(t.Context()))
					assert.NoError(t, store.Validate(t.Context()))
				})
			}
		}
		done.Wait()
		assert.Equal(t, 4, testkit.QueryOne[int](t, db.Pool(t), `SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname LIKE 'clerkinvite%'`))
	}
}

// Two replicas have found that the tables do not exist, and both create them: PostgreSQL lets a
// connection remember that a table does not exist while it waits for the lock.
func TestMigrate_OnAConnectionThatRemembersMissingTables(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	conn, err := pgx.Connect(t.Context(), db.DSN)
	require.NoError(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	late := clerkinvite.NewPgxStore(conn, nil)
	require.Error(t, late.Validate(t.Context()))

	pool := db.Pool(t)
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `SELECT pg_advisory_xact_lock($1::bigint)`, int64(0x636c65726b696e76))
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- late.Migrate(t.Context()) }()
	testkit.Await(t, "the late one waits for the lock", func() bool {
		return testkit.QueryOne[int](t, pool, `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`) == 1
	})
	up, err := fs.ReadFile(clerkinvite.Migrations(), "001_init.up.sql")
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `CREATE TABLE clerkinvite_migration (version integer PRIMARY KEY, applied_at timestamptz NOT NULL);
		INSERT INTO clerkinvite_migration VALUES (1, now());`+string(up), pgx.QueryExecModeSimpleProtocol)
	require.NoError(t, err)
	require.NoError(t, tx.Commit(t.Context()))
	require.NoError(t, <-done)
	require.NoError(t, late.Validate(t.Context()))
}

func TestMigrateInEveryMode(t *testing.T) {
	t.Parallel()
	testkit.InEveryMode(t, func(t *testing.T, mode func(*pgxpool.Config)) {
		db := pgtest.New(t)
		store := clerkinvite.NewPgxStore(db.Pool(t, mode), &clerkinvite.PgxOptions{Schema: "app"})
		require.Error(t, store.Validate(t.Context()))
		for range 2 {
			require.NoError(t, store.Migrate(t.Context()))
			require.NoError(t, store.Validate(t.Context()))
		}
		testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "x@example.com"))
		pool := db.Pool(t)
		assert.Equal(t, 1, testkit.QueryOne[int](t, pool, `SELECT count(*) FROM app.clerkinvite_member`))
		assert.Equal(t, 1, testkit.QueryOne[int](t, pool, `SELECT version FROM app.clerkinvite_migration`))
		assert.Contains(t, testkit.QueryOne[string](t, db.Pool(t, mode), `SHOW search_path`), "public", "nothing stays in the session")
		require.Error(t, clerkinvite.NewPgxStore(pool, nil).Validate(t.Context()), "not on the search_path")
	})
}

// A role that may not create schemas can use an existing one.
func TestMigrate_ExistingSchema(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t).Pool(t)
	role := "r" + strings.ReplaceAll(testkit.ReservedRow("", "").ID, "-", "")
	for _, sql := range []string{"CREATE ROLE " + role, "CREATE SCHEMA app AUTHORIZATION " + role} {
		_, err := pool.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	t.Cleanup(func() {
		_, err := pool.Exec(context.Background(), "DROP OWNED BY "+role+"; DROP ROLE "+role)
		assert.NoError(t, err)
	})
	conn, err := pgx.Connect(t.Context(), pool.Config().ConnString())
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	_, err = conn.Exec(t.Context(), "SET ROLE "+role)
	require.NoError(t, err)
	store := clerkinvite.NewPgxStore(conn, &clerkinvite.PgxOptions{Schema: "app"})
	require.NoError(t, store.Migrate(t.Context()))
	require.NoError(t, store.Validate(t.Context()))
	require.Error(t, clerkinvite.NewPgxStore(conn, &clerkinvite.PgxOptions{Schema: "new"}).Migrate(t.Context()))
}

// PostgreSQL cuts names after 63 bytes, and quotes any name.
func TestMigrate_OddSchemas(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t).Pool(t)
	for _, schema := range []string{strings.Repeat("s", 64), strings.Repeat("\u00fc", 33), `we"ird. $1;--`, " ", `'\`} {
		store := clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{Schema: schema})
		require.NoError(t, store.Migrate(t.Context()), schema)
		require.NoError(t, store.Migrate(t.Context()), "again: %q", schema)
		require.NoError(t, store.Validate(t.Context()), schema)
	}
}

// A setting with which PostgreSQL shows all names in quotes.
func TestValidate_QuotedNames(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t).Pool(t)
	require.NoError(t, clerkinvite.NewPgxStore(pool, nil).Migrate(t.Context()))
	conn, err := pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	_, err = conn.Exec(t.Context(), "SET quote_all_identifiers = on")
	require.NoError(t, err)
	require.NoError(t, clerkinvite.NewPgxStore(conn.Conn(), nil).Validate(t.Context()))
}

// withRole returns a connection of a new role that has the privileges that migrations/README.md lists, with or without
// the last one.
func withRole(t *testing.T, pool *pgxpool.Pool, version bool) *pgx.Conn {
	t.Helper()
	page, err := os.ReadFile("migrations/README.md")
	require.NoError(t, err)
	_, grants, _ := strings.Cut(string(page), "```sql\nGRANT USAGE")
	grants, _, found := strings.Cut("GRANT USAGE"+grants, "```")
	require.True(t, found)
	require.Equal(t, 1, strings.Count(grants, "clerkinvite_migration"))
	role := newRole(t, pool)
	for line := range strings.Lines(grants) {
		if version || !strings.Contains(line, "clerkinvite_migration") {
			_, err := pool.Exec(t.Context(), strings.Replace(line, "TO app;", "TO "+role, 1))
			require.NoError(t, err)
		}
	}
	conn, err := pgx.Connect(t.Context(), pool.Config().ConnString())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	_, err = conn.Exec(t.Context(), "SET ROLE "+role)
	require.NoError(t, err)
	return conn
}

func newRole(t *testing.T, pool *pgxpool.Pool) string {
	t.Helper()
	role := "r" + strings.ReplaceAll(testkit.ReservedRow("", "").ID, "-", "")
	_, err := pool.Exec(t.Context(), "CREATE ROLE "+role)
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := pool.Exec(context.Background(), "DROP OWNED BY "+role+"; DROP ROLE "+role)
		assert.NoError(t, err)
	})
	return role
}

// The documented privileges are enough for everything that the library does.
func TestMigrate_DocumentedPrivileges(t *testing.T) {
	t.Parallel()
	for name, version := range map[string]bool{"all": true, "without the version": false, "with a hidden version": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.New(t).Pool(t)
			require.NoError(t, clerkinvite.NewPgxStore(pool, nil).Migrate(t.Context()))
			conn := withRole(t, pool, version)
			if name == "with a hidden version" {
				_, err := pool.Exec(t.Context(), `ALTER TABLE clerkinvite_migration ENABLE ROW LEVEL SECURITY; GRANT SELECT ON clerkinvite_migration TO PUBLIC`)
				require.NoError(t, err)
			}
			for _, store := range []*clerkinvite.PgxStore{clerkinvite.NewPgxStore(conn, nil), clerkinvite.NewPgxStore(conn, &clerkinvite.PgxOptions{Schema: "public"})} {
				require.NoError(t, store.Validate(t.Context()))
				require.NoError(t, store.Migrate(t.Context()))
				clerk := clerkinvitetest.NewClerk()
				b := testkit.New(t, testkit.Options{}, clerk, clerk, store)
				b.MustInvite(t, "ada@example.com")
				_, err := b.Reconcile(t.Context(), nil)
				require.NoError(t, err)
				_, err = store.Backlog(t.Context(), time.Now())
				require.NoError(t, err)
				require.NoError(t, b.Purge(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "ada@example.com"}))
			}

			_, err := pool.Exec(t.Context(), `DROP INDEX clerkinvite_member_due_idx; UPDATE clerkinvite_migration SET version = 0`)
			require.NoError(t, err)
			store := clerkinvite.NewPgxStore(conn, nil)
			require.ErrorContains(t, store.Validate(t.Context()), "has no index clerkinvite_member_due_idx")
			err = store.Migrate(t.Context())
			require.Error(t, err)
			if !version {
				require.ErrorContains(t, err, "has no index clerkinvite_member_due_idx")
				require.ErrorContains(t, err, "the role that created the tables")
			}
		})
	}
}

// On Supabase, default privileges give new tables to roles that anyone on the internet can use. A host's own default
// privileges stay.
func TestMigrate_DefaultPrivileges(t *testing.T) {
	t.Parallel()
	for name, migrate := range map[string]func(t *testing.T, pool *pgxpool.Pool){
		"Migrate": func(t *testing.T, pool *pgxpool.Pool) {
			t.Helper()
			require.NoError(t, clerkinvite.NewPgxStore(pool, nil).Migrate(t.Context()))
			require.NoError(t, clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{Schema: "second"}).Migrate(t.Context()))
		},
		"own tool": func(t *testing.T, pool *pgxpool.Pool) { t.Helper(); ownTool(t, pool, "up") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.New(t).Pool(t)
			app := newRole(t, pool)
			public := []string{"public"}
			if name == "Migrate" {
				public = append(public, "anon", "authenticated")
				for _, role := range public[1:] {
					_, err := pool.Exec(t.Context(), `DO $$ BEGIN CREATE ROLE `+role+`; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$`)
					require.NoError(t, err)
					t.Cleanup(func() {
						_, _ = pool.Exec(context.Background(), "DROP OWNED BY "+role)
						_, _ = pool.Exec(context.Background(), "DROP ROLE "+role) // fails if another database uses it
					})
				}
			}
			_, err := pool.Exec(t.Context(), `ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO `+strings.Join(append(public, app), ", "))
			require.NoError(t, err)
			migrate(t, pool)
			const granted = `SELECT count(*) FROM pg_class, LATERAL aclexplode(relacl) WHERE relname LIKE 'clerkinvite%' AND relkind = 'r' AND grantee = $1::oid`
			for _, role := range public {
				oid := 0
				if role != "public" {
					oid = testkit.QueryOne[int](t, pool, `SELECT $1::regrole::oid::int`, role)
				}
				var n int
				require.NoError(t, pool.QueryRow(t.Context(), granted, oid).Scan(&n))
				require.Zero(t, n, role)
			}
			require.Positive(t, testkit.QueryOne[int](t, pool, granted, testkit.QueryOne[int](t, pool, `SELECT $1::regrole::oid::int`, app)))
		})
	}
}

// ownTool runs the migrations as a host's tool does.
func ownTool(t *testing.T, pool *pgxpool.Pool, direction string) {
	t.Helper()
	names, err := fs.Glob(clerkinvite.Migrations(), "*."+direction+".sql")
	require.NoError(t, err)
	require.NotEmpty(t, names)
	for _, name := range names {
		sql, err := fs.ReadFile(clerkinvite.Migrations(), name)
		require.NoError(t, err)
		_, err = pool.Exec(t.Context(), string(sql))
		require.NoError(t, err)
	}
}

func TestMigrations(t *testing.T) {
	t.Parallel()
	names, err := fs.Glob(clerkinvite.Migrations(), "*")
	require.NoError(t, err)
	for i, name := range names {
		assert.Regexp(t, fmt.Sprintf(`^%03d_[a-z_]+\.(down|up)\.sql$`, i/2+1), name)
	}

	pool := pgtest.New(t).Pool(t)
	store := clerkinvite.NewPgxStore(pool, nil)
	for range 2 {
		ownTool(t, pool, "up")
		require.NoError(t, store.Validate(t.Context()))
		require.ErrorContains(t, store.Migrate(t.Context()), "tool")
		require.NoError(t, store.Validate(t.Context()))
		testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "x@example.com"))
		ownTool(t, pool, "down")
		require.Zero(t, testkit.QueryOne[int](t, pool, `SELECT count(*) FROM pg_class WHERE relname LIKE 'clerkinvite%'`))
	}
	require.NoError(t, store.Migrate(t.Context()))
}

// Validate names each fault.
func TestValidate(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		sql  string
		want []string // nil means no fault
	}{
		{`ALTER TABLE clerkinvite_member ADD COLUMN host_note text`, nil},
		{`CREATE INDEX host_idx ON clerkinvite_member (role)`, nil},
		{`DROP TABLE clerkinvite_migration`, nil},
		{`DROP TABLE clerkinvite_limit`, []string{"the table clerkinvite_limit does not exist"}},
		{`DROP TABLE clerkinvite_member CASCADE`, []string{"the table clerkinvite_member does not exist", "no constraint clerkinvite_history_member_fkey"}},
		{`ALTER TABLE clerkinvite_member DROP COLUMN sent`, []string{
			"no column sent integer", "no constraint clerkinvite_member_send_check", "no constraint clerkinvite_member_due_check",
			"no index clerkinvite_member_due_idx (next_attempt_at)",
			"no index clerkinvite_member_turns_idx (bulk, tenant_id, next_attempt_at, id)",
		}},
		{`ALTER TABLE clerkinvite_member ALTER COLUMN version TYPE integer`, []string{"column version is integer, but must be bigint"}},
		{`ALTER TABLE clerkinvite_history RENAME COLUMN at TO moved_at`, []string{"no column at timestamp with time zone", "column moved_at requires a value"}},
		{`ALTER TABLE clerkinvite_member ADD COLUMN extra text NOT NULL`, []string{"column extra requires a value"}},
		{`ALTER TABLE clerkinvite_member ADD COLUMN extra text NOT NULL DEFAULT ''`, nil},
		{`ALTER TABLE clerkinvite_member ADD COLUMN extra bigint GENERATED ALWAYS AS IDENTITY`, nil},
		{`ALTER TABLE clerkinvite_member DROP CONSTRAINT clerkinvite_member_clerk_user_id_check`, []string{"no constraint clerkinvite_member_clerk_user_id_check"}},
		{`ALTER TABLE clerkinvite_member DROP CONSTRAINT clerkinvite_member_url_check; ALTER TABLE clerkinvite_member ADD CONSTRAINT clerkinvite_member_url_check CHECK (true) NOT VALID`,
			[]string{"constraint clerkinvite_member_url_check is not valid"}},
		{`DROP INDEX clerkinvite_member_email_key`, []string{"no index clerkinvite_member_email_key"}},
		{`DROP INDEX clerkinvite_member_user_key`, []string{"no index clerkinvite_member_user_key"}},
		{`DROP INDEX clerkinvite_member_user_key; CREATE INDEX clerkinvite_member_user_key ON clerkinvite_member (tenant_id, clerk_user_id)`,
			[]string{"index clerkinvite_member_user_key is (tenant_id, clerk_user_id), but must be unique (tenant_id, clerk_user_id) WHERE"}},
		{`DROP INDEX clerkinvite_member_email_key; CREATE UNIQUE INDEX clerkinvite_member_email_key ON clerkinvite_member (tenant_id, email) WHERE status = 'active'`,
			[]string{"index clerkinvite_member_email_key is unique (tenant_id, email) WHERE (status = 'active'::text), but must be unique (tenant_id, email) WHERE (email IS NOT NULL)"}},
		{`ALTER TABLE clerkinvite_limit DROP CONSTRAINT clerkinvite_limit_pkey, ADD CONSTRAINT clerkinvite_limit_pkey PRIMARY KEY (name, blocked_until)`,
			[]string{"index clerkinvite_limit_pkey is unique (name, blocked_until), but must be unique (name)"}},
		{`DROP INDEX clerkinvite_member_due_idx`, []string{"no index clerkinvite_member_due_idx"}},
		{`UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'clerkinvite_member_id_idx'::regclass`, []string{"index clerkinvite_member_id_idx is not valid"}},
		{`DELETE FROM clerkinvite_migration`, []string{"at migration 0, but this version of the library needs 1"}},
		{`INSERT INTO clerkinvite_migration VALUES (99, 'now'); DROP INDEX clerkinvite_member_due_idx`, []string{"clerkinvite_member_due_idx", "at migration 99, and this version of the library knows 1"}},
	} {
		t.Run(tc.sql, func(t *testing.T) {
			t.Parallel()
			store, pool := testkit.NewPgxStore(t)
			_, err := pool.Exec(t.Context(), tc.sql)
			require.NoError(t, err)
			err = store.Validate(t.Context())
			if tc.want == nil {
				require.NoError(t, err)
				testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "x@example.com"))
				return
			}
			require.Error(t, err)
			require.NotErrorIs(t, err, clerkinvite.ErrSchemaNewer)
			for _, want := range tc.want {
				require.ErrorContains(t, err, want)
			}
			assert.Len(t, strings.Split(err.Error(), "\n"), len(tc.want), err.Error())
		})
	}

	t.Run("newer", func(t *testing.T) {
		t.Parallel()
		store, pool := testkit.NewPgxStore(t)
		_, err := pool.Exec(t.Context(), `INSERT INTO clerkinvite_migration VALUES (99, 'now')`)
		require.NoError(t, err)
		err = store.Validate(t.Context())
		require.ErrorIs(t, err, clerkinvite.ErrSchemaNewer)
		require.ErrorContains(t, err, "99")
		require.NoError(t, store.Migrate(t.Context()), "an old replica that starts late")
	})

	t.Run("nothing", func(t *testing.T) {
		t.Parallel()
		err := clerkinvite.NewPgxStore(pgtest.New(t).Pool(t), nil).Validate(t.Context())
		require.ErrorContains(t, err, "search_path")
		assert.Len(t, strings.Split(err.Error(), "\n"), 3)
	})
}

// Validate checks everything that the migrations create.
func TestValidateKnowsTheMigrations(t *testing.T) {
	t.Parallel()
	_, pool := testkit.NewPgxStore(t)
	for sql, drop := range map[string]string{
		`SELECT relname, attname FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
			WHERE relkind = 'r' AND relname IN ('clerkinvite_member', 'clerkinvite_history', 'clerkinvite_limit') AND attnum > 0`: `ALTER TABLE %s DROP COLUMN %s CASCADE`,
		`SELECT relname, conname FROM pg_constraint JOIN pg_class c ON c.oid = conrelid
			WHERE relname LIKE 'clerkinvite\_%' AND relname <> 'clerkinvite_migration' AND contype <> 'n'`: `ALTER TABLE %s DROP CONSTRAINT %s CASCADE`,
		`SELECT tablename::text, indexname FROM pg_indexes WHERE indexname LIKE 'clerkinvite%idx'`: `DROP INDEX %[2]s /* %[1]s */`,
	} {
		rows, err := pool.Query(t.Context(), sql)
		require.NoError(t, err)
		names, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct{ Table, Name string }])
		require.NoError(t, err)
		require.NotEmpty(t, names)
		for _, name := range names {
			tx, err := pool.Begin(t.Context())
			require.NoError(t, err)
			_, err = tx.Exec(t.Context(), fmt.Sprintf(drop, name.Table, name.Name))
			require.NoError(t, err)
			// A transaction does not fit; here, its connection shows the change.
			require.ErrorContains(t, clerkinvite.NewPgxStore(tx.Conn(), nil).Validate(t.Context()), name.Name)
			require.NoError(t, tx.Rollback(t.Context()))
		}
	}
}

// The tables reject illegal rows, no matter who writes them.
func TestChecks(t *testing.T) {
	t.Parallel()
	store, pool := testkit.NewPgxStore(t)
	m := testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "x@example.com"))[0]
	testkit.InsertRows(t, store, testkit.PendingRow(testkit.ReservedRow("tenant", "pending@example.com")), testkit.ActiveRow(testkit.ReservedRow("tenant", "active@example.com"), "user_1"))
	rows, err := pool.Query(t.Context(), `SELECT conname FROM pg_constraint WHERE contype = 'c' AND conrelid = 'clerkinvite_member'::regclass`)
	require.NoError(t, err)
	untried, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	unseen := make(map[string]bool)
	for _, name := range untried {
		unseen[name] = true
	}

	const pending = `status = 'pending', sent = 1, `
	for _, tc := range []struct{ set, constraint string }{
		{`tenant_id = ''`, "tenant_id_check"},
		{`tenant_id = repeat('é', 128)`, "tenant_id_check"},
		{`tenant_id = repeat('x', 255)`, ""},
		{`email = ''`, "email_check"},
		{`email = 'x'`, "email_check"},
		{`email = '@x'`, "email_check"},
		{`email = 'x@'`, "email_check"},
		{`email = 'X@example.com'`, "email_check"},
		{`email = 'x@' || repeat('x', 253)`, "email_check"},
		{`email = 'x@' || repeat('x', 252)`, ""},
		{`status = 'invited'`, "status_check"},
		{`status = ''`, "status_check"},
		{`clerk_user_id = 'user_1'`, "clerk_user_id_check"},
		{`clerk_user_id = ''`, "clerk_user_id_check"},
		{`clerk_user_id = 'pending_inv_1', invitation_id = 'inv_1'`, "clerk_user_id_check"},
		{pending + `clerk_user_id = NULL`, "clerk_user_id_check"},
		{pending + `clerk_user_id = NULL, invitation_id = 'inv_1'`, "clerk_user_id_check"},
		{pending + `clerk_user_id = 'pending_inv_1'`, "clerk_user_id_check"},
		{pending + `clerk_user_id = 'pending_inv_2', invitation_id = 'inv_1'`, "clerk_user_id_check"},
		{pending + `clerk_user_id = 'user_1', invitation_id = 'inv_1'`, "clerk_user_id_check"},
		{pending + `clerk_user_id = 'pending_', invitation_id = ''`, "invitation_id_check"},
		{pending + `clerk_user_id = 'pending_inv_1', invitation_id = 'inv_1'`, ""},
		{`status = 'active'`, "clerk_user_id_check"},
		{`status = 'active', clerk_user_id = ''`, "clerk_user_id_check"},
		{`status = 'active', clerk_user_id = 'pending_inv_1', invitation_id = 'inv_1'`, "clerk_user_id_check"},
		{`status = 'active', clerk_user_id = 'pending_'`, "clerk_user_id_check"},
		{`status = 'active', clerk_user_id = repeat('x', 256)`, "clerk_user_id_check"},
		{`status = 'active', clerk_user_id = 'user_2'`, ""},
		{`status = 'failed', clerk_user_id = 'user_2'`, "clerk_user_id_check"},
		{`status = 'revoked', clerk_user_id = 'pending_inv_1', invitation_id = 'inv_1'`, "clerk_user_id_check"},
		{`status = 'expired', clerk_user_id = 'user_2'`, "clerk_user_id_check"},
		{`status = 'removed', clerk_user_id = 'user_2'`, "clerk_user_id_check"},
		{`status = 'removed'`, ""},
		{`invitation_id = repeat('x', 248)`, "invitation_id_check"},
		{`send = 0`, "send_check"},
		{`sent = 2, status = 'removed'`, "send_check"},
		{`sent = -1`, "send_check"},
		{`attempts = -1`, "send_check"},
		{`sent = 1`, "due_check"},
		{`next_attempt_at = NULL`, "due_check"},
		{pending + `clerk_user_id = 'pending_inv_1', invitation_id = 'inv_1', send = 2, next_attempt_at = NULL`, "due_check"},
		{pending + `clerk_user_id = 'pending_inv_1', invitation_id = 'inv_1', next_attempt_at = NULL`, ""},
		{`url = 'https://example.com'`, "url_check"},
		{pending + `clerk_user_id = 'pending_inv_1', invitation_id = 'inv_1', url = ''`, "url_check"},
		{pending + `clerk_user_id = 'pending_inv_1', invitation_id = 'inv_1', url = 'https://example.com'`, ""},
		{`role = ''`, "text_check"},
		{`invited_by = repeat('x', 1025)`, "text_check"},
		{`changed_by = ''`, "text_check"},
		{`changed_by = repeat('x', 1025)`, "text_check"},
		{`reason = ''`, "text_check"},
		{`version = 0`, "version_check"},
	} {
		tx, err := pool.Begin(t.Context())
		require.NoError(t, err)
		_, err = tx.Exec(t.Context(), `DELETE FROM clerkinvite_history`)
		require.NoError(t, err)
		_, err = tx.Exec(t.Context(), `UPDATE clerkinvite_member SET `+tc.set+` WHERE id = $1`, m.ID)
		require.NoError(t, tx.Rollback(t.Context()))
		if tc.constraint == "" {
			require.NoError(t, err, tc.set)
			continue
		}
		var pg *pgconn.PgError
		if assert.ErrorAs(t, err, &pg, tc.set) {
			assert.Equal(t, "23514", pg.Code, tc.set)
			// A row can break several rules; PostgreSQL chooses which one it names.
			assert.Regexp(t, `^clerkinvite_member_\w+_check$`, pg.ConstraintName)
			if pg.ConstraintName == "clerkinvite_member_"+tc.constraint {
				delete(unseen, pg.ConstraintName)
			}
		}
	}
	assert.Empty(t, unseen, "constraints that no case breaks")

	for sql, constraint := range map[string]string{
		`UPDATE clerkinvite_member SET email = 'pending@example.com' WHERE email = 'x@example.com'`:                     "clerkinvite_member_email_key",
		`UPDATE clerkinvite_member SET id = '` + m.ID + `'`:                                                             "clerkinvite_member_pkey",
		`UPDATE clerkinvite_member SET status = 'active', clerk_user_id = 'user_1' WHERE email = 'pending@example.com'`: "clerkinvite_member_user_key",
		`INSERT INTO clerkinvite_history SELECT * FROM clerkinvite_history`:                                             "clerkinvite_history_pkey",
		`INSERT INTO clerkinvite_limit VALUES ('a', 'now'), ('a', 'now')`:                                               "clerkinvite_limit_pkey",
	} {
		_, err := pool.Exec(t.Context(), sql)
		assert.True(t, clerkinvite.IsUniqueViolation(err), sql)
		assert.True(t, clerkinvite.IsUniqueViolation(err, "other", constraint), "%s: %v", sql, err)
		assert.True(t, clerkinvite.IsUniqueViolation(fmt.Errorf("wrapped: %w", err), constraint), sql)
		assert.False(t, clerkinvite.IsUniqueViolation(err, "other"), sql)
	}
	assert.False(t, clerkinvite.IsUniqueViolation(nil))
	_, err = pool.Exec(t.Context(), `INSERT INTO clerkinvite_limit VALUES ('', 'now')`)
	require.Error(t, err)
	assert.False(t, clerkinvite.IsUniqueViolation(err), "a CHECK")
}

// The same SQL works on tables partitioned by tenant, whose keys have other names.
func TestPgxStorePartitioned(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("-short: make test-all has what takes long")
	}
	storetest.Run(t, func(t *testing.T) clerkinvite.Store {
		store := clerkinvite.NewPgxStore(partitionedPool(t), nil)
		require.NoError(t, store.Validate(t.Context()))
		return store
	})
}

// partitionedPool returns a pool of a database with partitioned tables.
func partitionedPool(t *testing.T) *pgxpool.Pool {
	t.Helper()
	up, err := fs.ReadFile(clerkinvite.Migrations(), "001_init.up.sql")
	require.NoError(t, err)
	sql := regexp.MustCompile(`(?s)(CREATE TABLE (clerkinvite_member|clerkinvite_history) .*?\n\))(;)`).
		ReplaceAllString(string(up), "$1 PARTITION BY HASH (tenant_id);\n"+
			"CREATE TABLE ${2}_p0 PARTITION OF $2 FOR VALUES WITH (MODULUS 2, REMAINDER 0);\n"+
			"CREATE TABLE ${2}_p1 PARTITION OF $2 FOR VALUES WITH (MODULUS 2, REMAINDER 1);\n")
	require.Equal(t, 2, strings.Count(sql, ") PARTITION BY"))
	pool := pgtest.New(t).Pool(t)
	_, err = pool.Exec(t.Context(), sql)
	require.NoError(t, err)
	return pool
}
