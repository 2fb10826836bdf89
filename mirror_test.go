package clerkinvite_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// adminUser is a host's table, and its mirror.
const adminUser = `
CREATE TABLE admin_user (
	id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	tenant_id     text NOT NULL,
	email         text NOT NULL,
	clerk_user_id text NOT NULL,
	role          text NOT NULL DEFAULT 'viewer',
	locale        text NOT NULL DEFAULT 'en',
	CONSTRAINT admin_user_email_key UNIQUE (tenant_id, email),
	CONSTRAINT admin_user_user_key UNIQUE (tenant_id, clerk_user_id)
)`

var adminMirror = clerkinvite.Mirror{Table: "admin_user", TenantID: "tenant_id", Email: "email", ClerkUserID: "clerk_user_id", Role: "role"}

// mirrored is a store whose members are mirrored.
type mirrored struct {
	*testing.T
	mirror clerkinvite.Mirror
	store  *clerkinvite.PgxStore
	pool   *pgxpool.Pool
}

func newMirrored(t *testing.T, m clerkinvite.Mirror, tables string) *mirrored {
	t.Helper()
	store, pool := testkit.NewPgxStore(t)
	h := &mirrored{t, m, store, pool}
	h.exec(tables)
	h.exec(h.sql(clerkinvite.Mirror.Up))
	return h
}

func (h *mirrored) sql(of func(clerkinvite.Mirror) (string, error)) string {
	h.Helper()
	sql, err := of(h.mirror)
	require.NoError(h, err)
	return sql
}

// exec runs one or more statements.
func (h *mirrored) exec(sql string) {
	h.Helper()
	_, err := h.pool.Exec(h.Context(), sql)
	require.NoError(h, err, sql)
}

func (h *mirrored) refuses(code, sql string) {
	h.Helper()
	_, err := h.pool.Exec(h.Context(), sql)
	require.Equal(h, code, sqlState(err), "%v", err)
}

// differences returns what Differences finds.
func (h *mirrored) differences() (list []string) {
	h.Helper()
	rows, err := h.pool.Query(h.Context(), "SELECT tenant_id || ' ' || email || ' ' || difference FROM ("+h.sql(clerkinvite.Mirror.Differences)+") x ORDER BY 1")
	require.NoError(h, err)
	list, err = pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(h, err)
	return list
}

// want requires that the table has these rows, and no differences.
func (h *mirrored) want(query string, rows ...string) {
	h.Helper()
	require.Empty(h, h.differences())
	require.Equal(h, append([]string{}, rows...), testkit.QueryOne[[]string](h.T, h.pool, "SELECT array(SELECT r::text FROM ("+query+") r ORDER BY 1)"))
}

func sqlState(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return fmt.Sprint(err)
}

func roleChanged(m *clerkinvite.Member, role string) *clerkinvite.Member {
	c := m.Clone()
	c.Role = role
	return c
}

func statusChanged(m *clerkinvite.Member, status clerkinvite.Status) *clerkinvite.Member {
	c := m.Clone()
	c.Status, c.ClerkUserID, c.NextAttemptAt = status, "", nil
	return c
}

// A member's way through its states, in tables with every kind of column.
func TestMirror_FollowsInAnyColumnType(t *testing.T) {
	t.Parallel()
	const lower, upper = "0b0e8a3c-6f5d-4c1e-9d3a-000000000001", "0B0E8A3C-6F5D-4C1E-9D3A-000000000001"
	for name, test := range map[string]struct{ tenant, tables string }{
		"text":    {"acme", `CREATE TABLE host.admins (tenant text, email text, clerk text, role text, UNIQUE (tenant, email))`},
		"varchar": {"acme", `CREATE TABLE host.admins (tenant varchar(40), email varchar(254), clerk varchar(255), role varchar(10), UNIQUE (email, tenant))`},
		"char":    {"acme", `CREATE TABLE host.admins (tenant char(40), email varchar(254), clerk char(60), role char(10), UNIQUE (tenant, email))`},
		"citext": {"acme", `CREATE SCHEMA extensions; CREATE EXTENSION citext SCHEMA extensions;
			CREATE TABLE host.admins (tenant extensions.citext, email extensions.citext, clerk extensions.citext, role extensions.citext, UNIQUE (tenant, email))`},
		"uuid":    {lower, `CREATE TABLE host.admins (tenant uuid, email text, clerk text, role text, UNIQUE (tenant, email))`},
		"integer": {"42", `CREATE TABLE host.admins (tenant integer, email text, clerk text, role text, UNIQUE (tenant, email))`},
		"enum":    {"acme", `CREATE TYPE host.role AS ENUM ('viewer', 'editor'); CREATE TABLE host.admins (tenant text, email text, clerk text, role host.role, UNIQUE (tenant, email))`},
		"domain": {"acme", `CREATE EXTENSION citext; CREATE DOMAIN host.email AS citext CHECK (VALUE LIKE '%@%'); CREATE DOMAIN host.tenant AS varchar(40);
			CREATE TABLE host.admins (tenant host.tenant, email host.email, clerk text, role text, UNIQUE (tenant, email))`},
		"collation": {"acme", `CREATE COLLATION host.nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
			CREATE TABLE host.admins (tenant text COLLATE "POSIX", email text COLLATE host.nocase, clerk text COLLATE "POSIX", role text COLLATE "POSIX", UNIQUE (tenant, email))`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newMirrored(t, clerkinvite.Mirror{Table: "host.admins", TenantID: "tenant", Email: "email", ClerkUserID: "clerk", Role: "role"}, "CREATE SCHEMA host; "+test.tables)
			const rows = "SELECT rtrim(tenant::text), lower(email::text), rtrim(clerk::text), rtrim(role::text) FROM host.admins"
			row := func(email, clerk, role string) string {
				return fmt.Sprintf("(%s,%s,%s,%s)", test.tenant, email, clerk, role)
			}
			h.exec(`INSERT INTO host.admins VALUES ('` + test.tenant + `', 'host@example.com', 'none', 'viewer')`)
			own := row("host@example.com", "none", "viewer")

			m := testkit.InsertRows(t, h.store, testkit.ReservedRow(test.tenant, "ada@example.com"))[0]
			h.want(rows, own)
			m = testkit.UpdateRows(t, h.store, clerkinvite.Change{Old: m, New: testkit.PendingRow(m)})[0]
			h.want(rows, row("ada@example.com", m.ClerkUserID, "editor"), own)
			m = testkit.UpdateRows(t, h.store, clerkinvite.Change{Old: m, New: testkit.ActiveRow(m, "user_1")})[0]
			h.want(rows, row("ada@example.com", "user_1", "editor"), own)
			m = testkit.UpdateRows(t, h.store, clerkinvite.Change{Old: m, New: roleChanged(m, "viewer")})[0]
			h.want(rows, row("ada@example.com", "user_1", "viewer"), own)
			h.exec(`UPDATE clerkinvite_member SET email = 'lovelace@example.com'`)
			h.want(rows, own, row("lovelace@example.com", "user_1", "viewer"))
			m.Email = "lovelace@example.com"
			m = testkit.UpdateRows(t, h.store, clerkinvite.Change{Old: m, New: statusChanged(m, clerkinvite.StatusRemoved)})[0]
			h.want(rows, own)
			m = testkit.UpdateRows(t, h.store, clerkinvite.Change{Old: m, New: testkit.ActiveRow(m, "user_1")})[0]
			h.want(rows, own, row("lovelace@example.com", "user_1", "viewer"))
			h.exec(`DELETE FROM host.admins`)
			require.Equal(t, []string{test.tenant + " lovelace@example.com missing"}, h.differences())
			h.exec(h.sql(clerkinvite.Mirror.Sync))
			h.want(rows, row("lovelace@example.com", "user_1", "viewer"))
			testkit.UpdateRows(t, h.store, clerkinvite.Change{Old: m})
			h.want(rows)
		})
	}

	// Two tenants of the library are never one of the host.
	h := newMirrored(t, clerkinvite.Mirror{Table: "admins", TenantID: "tenant", Email: "email"}, `CREATE TABLE admins (tenant uuid, email text, UNIQUE (tenant, email))`)
	for tenant, code := range map[string]string{upper: "22000", "acme": "22P02"} {
		results, err := h.store.Insert(t.Context(), []*clerkinvite.Member{
			testkit.ActiveRow(testkit.ReservedRow(tenant, "ada@example.com"), "user_1"), testkit.ActiveRow(testkit.ReservedRow(lower, strings.ToLower(code)+"@example.com"), "user_"+code),
		})
		require.NoError(t, err)
		require.Equal(t, code, sqlState(results[0].Err))
		require.NoError(t, results[1].Err)
	}
	h.want("SELECT email FROM admins", "(22000@example.com)", "(22p02@example.com)")
}

// The addresses of a citext column match in any case.
func TestMirror_TakesExistingRows(t *testing.T) {
	t.Parallel()
	h := newMirrored(t, adminMirror, "CREATE SCHEMA extensions; CREATE EXTENSION citext SCHEMA extensions;"+strings.Replace(adminUser, "email         text", "email         extensions.citext", 1))
	h.exec(`INSERT INTO admin_user (tenant_id, email, clerk_user_id, role, locale) VALUES
		('acme', 'Ada@Example.com', 'pending_inv_1', 'owner', 'fr'), ('acme', 'grace@example.com', 'none', 'owner', 'de')`)
	without := testkit.ReservedRow("acme", "ada@example.com")
	without.Role = ""
	m := testkit.InsertRows(t, h.store, testkit.ActiveRow(without, "user_1"))[0]
	const rows = "SELECT id, email, clerk_user_id, role, locale FROM admin_user"
	grace := "(2,grace@example.com,none,owner,de)"
	h.want(rows, "(1,ada@example.com,user_1,owner,fr)", grace)
	m = testkit.UpdateRows(t, h.store, clerkinvite.Change{Old: m, New: roleChanged(m, "editor")})[0]
	h.want(rows, "(1,ada@example.com,user_1,editor,fr)", grace)
	testkit.UpdateRows(t, h.store, clerkinvite.Change{Old: m, New: roleChanged(m, "")})
	h.want(rows, "(1,ada@example.com,user_1,viewer,fr)", grace)

	// A new row without a role gets the default. A reserved or failed member has no row, and does not touch the host's.
	none := testkit.ReservedRow("acme", "joan@example.com")
	none.Role = ""
	testkit.InsertRows(t, h.store, testkit.PendingRow(none))
	r := testkit.InsertRows(t, h.store, testkit.ReservedRow("acme", "grace@example.com"))[0]
	r = testkit.UpdateRows(t, h.store, clerkinvite.Change{Old: r, New: statusChanged(r, clerkinvite.StatusFailed)})[0]
	testkit.UpdateRows(t, h.store, clerkinvite.Change{Old: r})
	h.want(rows, "(1,ada@example.com,user_1,viewer,fr)", grace, "(3,joan@example.com,pending_inv_"+none.ID+",viewer,en)")
}

// psql continues after an error, so Up and Sync are one statement each, and Sync fails where Up has failed.
func TestMirror_FailsAsAWhole(t *testing.T) {
	t.Parallel()
	const table = "CREATE TABLE admin_user (tenant_id text, email text, clerk_user_id text, role text, UNIQUE (tenant_id, email));"
	for reason, tables := range map[string]string{
		"not normalised":  "INSERT INTO admin_user VALUES ('acme', 'Grace@example.com', 'user_grace', 'admin')",
		"no unique index": "ALTER TABLE admin_user DROP CONSTRAINT admin_user_tenant_id_email_key",
		"reject new":      "ALTER TABLE admin_user ADD name text NOT NULL",
		"mirrored into":   "CREATE TABLE other (LIKE admin_user INCLUDING INDEXES)",
	} {
		t.Run(reason, func(t *testing.T) {
			t.Parallel()
			store, pool := testkit.NewPgxStore(t)
			h := &mirrored{t, adminMirror, store, pool}
			h.exec(table + tables)
			triggers := func() int {
				return testkit.QueryOne[int](t, pool, "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'clerkinvite_mirror%'")
			}
			if reason == "mirrored into" {
				h.mirror.Table = "other"
				h.exec(h.sql(clerkinvite.Mirror.Up))
				h.mirror = adminMirror
			}
			before := triggers()
			testkit.InsertRows(t, store, testkit.ActiveRow(testkit.ReservedRow("acme", "ada@example.com"), "user_ada"))
			conn, err := pool.Acquire(t.Context())
			require.NoError(t, err)
			defer conn.Release()
			for _, sql := range []string{h.sql(clerkinvite.Mirror.Up), h.sql(clerkinvite.Mirror.Sync)} {
				_, err := conn.Conn().Prepare(t.Context(), "", sql)
				require.NoError(t, err, "PostgreSQL prepares only a single statement")
				_, err = conn.Exec(t.Context(), sql)
				require.ErrorContains(t, err, reason)
			}
			require.Equal(t, before, triggers())
			require.Zero(t, testkit.QueryOne[int](t, pool, "SELECT count(*) FROM admin_user WHERE email = 'ada@example.com'"))
		})
	}
}

// The triggers find a row by its address, so a row with another spelling of a member's address would get a second row,
// and the first one would stay when the member leaves.
func TestMirror_RefusesAddressesNotNormalised(t *testing.T) {
	t.Parallel()
	const tenant = "0b0e8a3c-6f5d-4c1e-9d3a-000000000001"
	for name, test := range map[string]struct {
		tenant, email string
		sensitive     bool
	}{
		"text":          {"text", "text", true},
		"varchar":       {"varchar(40)", "varchar(254)", true},
		"uuid":          {"uuid", "text", true},
		"domain":        {"text", "host.address", true},
		"citext":        {"extensions.citext", "extensions.citext", false},
		"citext domain": {"uuid", "host.email", false},
		"collation":     {"text", "text COLLATE host.nocase", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, pool := testkit.NewPgxStore(t)
			h := &mirrored{t, clerkinvite.Mirror{Table: "host.Admins", TenantID: "tenant", Email: "E-mail", ClerkUserID: "clerk"}, store, pool}
			h.exec(`CREATE SCHEMA host; CREATE SCHEMA extensions; CREATE EXTENSION citext SCHEMA extensions;
				CREATE DOMAIN host.address AS text CHECK (VALUE LIKE '%@%.%'); CREATE DOMAIN host.email AS extensions.citext CHECK (length(VALUE) > 20);
				CREATE COLLATION host.nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
				CREATE TABLE host."Admins" (tenant ` + test.tenant + `, "E-mail" ` + test.email + `, clerk text, UNIQUE (tenant, "E-mail"))`)
			h.exec(`INSERT INTO host."Admins" VALUES ('` + tenant + `', 'Carla.Carlson@Example.com', 'pending_inv_1'), ('` + tenant + `', NULL, 'none'), (NULL, 'Not-In@Any-Tenant.example.com', 'user_2')`)
			carla := testkit.InsertRows(t, store, testkit.ActiveRow(testkit.ReservedRow(tenant, "carla.carlson@example.com"), "user_carla"))[0]
			refuses := func(addresses ...string) {
				t.Helper()
				before := testkit.QueryOne[string](t, pool, `SELECT array_agg(a ORDER BY a)::text FROM host."Admins" a`)
				for _, address := range addresses {
					require.Contains(t, h.differences(), tenant+" "+address+" not normalised")
				}
				for _, sql := range []string{h.sql(clerkinvite.Mirror.Up), h.sql(clerkinvite.Mirror.Sync)} {
					_, err := pool.Exec(t.Context(), sql)
					require.Equal(t, "P0001", sqlState(err))
					require.ErrorContains(t, err, `host.Admins has addresses that are not normalised`)
					require.ErrorContains(t, err, `SELECT * FROM "host"."Admins" WHERE "E-mail"::text COLLATE "C" ~ '[^!-@[-~]' `)
					require.ErrorContains(t, err, `Delete a row if another one already has its normalised address. Run UPDATE "host"."Admins" SET "E-mail" = lower(btrim("E-mail"))`)
					require.NotContains(t, err.Error(), "carlson")
				}
				require.Equal(t, before, testkit.QueryOne[string](t, pool, `SELECT array_agg(a ORDER BY a)::text FROM host."Admins" a`), "nothing was written")
			}
			if test.sensitive {
				refuses("Carla.Carlson@Example.com")
			}
			const joan, grace, ada, linus = " joan.joanson@example.com", "grace.hopper@bücher.example", "\u00a0ada.lovelace@example.com", "linus.linusson@example.com\n"
			for _, address := range []string{joan, grace, ada, linus} {
				h.exec(`INSERT INTO host."Admins" VALUES ('` + tenant + `', '` + address + `', 'none')`)
				refuses(address)
			}
			const wrong = `SELECT count(*) FROM "host"."Admins" WHERE tenant IS NOT NULL AND "E-mail"::text COLLATE "C" ~ '[^!-@[-~]'` // as the message says
			require.Equal(t, 5, testkit.QueryOne[int](t, pool, wrong))
			h.exec(`UPDATE "host"."Admins" SET "E-mail" = lower(btrim("E-mail"))`)
			require.Equal(t, 3, testkit.QueryOne[int](t, pool, wrong))
			refuses(grace, ada, linus)
			h.exec(`DELETE FROM "host"."Admins" WHERE clerk = 'none' AND "E-mail" <> 'joan.joanson@example.com'; UPDATE "host"."Admins" SET clerk = NULL WHERE clerk = 'none'`)
			if !test.sensitive { // Sync finds the row of a member who has left, whatever its case
				dora := testkit.InsertRows(t, store, testkit.ActiveRow(testkit.ReservedRow(tenant, "dora.dorason@example.com"), "user_dora"))[0]
				testkit.UpdateRows(t, store, clerkinvite.Change{Old: dora, New: statusChanged(dora, clerkinvite.StatusRemoved)})
				h.exec(`INSERT INTO host."Admins" VALUES ('` + tenant + `', 'Dora.Dorason@Example.com', 'user_dora')`)
			}
			path := testkit.QueryOne[string](t, pool, "SHOW search_path")
			h.exec(h.sql(clerkinvite.Mirror.Up) + h.sql(clerkinvite.Mirror.Sync) + `DO $$ BEGIN ASSERT current_setting('search_path') = '` + strings.ReplaceAll(path, "'", "''") + `'; END $$`)
			const rows = `SELECT lower("E-mail"::text), clerk FROM host."Admins" WHERE tenant IS NOT NULL AND clerk IS NOT NULL`
			h.want(rows, "(carla.carlson@example.com,user_carla)")
			testkit.UpdateRows(t, store, clerkinvite.Change{Old: carla, New: statusChanged(carla, clerkinvite.StatusRemoved)})
			h.want(rows)
		})
	}
}

// A row with a Clerk user or an invitation of no member gives access to a person whom the library cannot remove. It may be of
// somebody who was never adopted, so Sync leaves it, unless the history shows that the person has left.
func TestMirror_RowsOfNoMember(t *testing.T) {
	t.Parallel()
	for _, column := range []string{"", "deleted_at"} {
		t.Run("left column "+column, func(t *testing.T) {
			t.Parallel()
			m := adminMirror
			m.LeftColumn = column
			h := newMirrored(t, m, adminUser+`; ALTER TABLE admin_user DROP CONSTRAINT admin_user_user_key, ADD deleted_at timestamptz`)
			h.exec(`INSERT INTO admin_user (tenant_id, email, clerk_user_id) VALUES ('acme', 'old@example.com', 'user_ada'), ('acme', 'seed@example.com', 'pending_inv_seed'),
				('acme', 'service@example.com', 'none'), ('globex', 'old@example.com', 'user_ada')`)
			if column != "" {
				h.exec(`INSERT INTO admin_user (tenant_id, email, clerk_user_id, deleted_at) VALUES ('acme', 'left@example.com', 'user_left', now())`)
			}
			present := `SELECT tenant_id, email FROM admin_user WHERE deleted_at IS NULL ORDER BY 1, 2`
			differs := func(differences []string, rows ...string) {
				t.Helper()
				require.Equal(t, differences, h.differences())
				require.Equal(t, rows, testkit.QueryOne[[]string](t, h.pool, "SELECT array(SELECT r::text FROM ("+present+") r)"))
			}
			strangers := []string{"acme seed@example.com not a member", "globex old@example.com not a member"}
			others := []string{"(acme,seed@example.com)", "(acme,service@example.com)", "(globex,old@example.com)"}
			ada := testkit.InsertRows(t, h.store, testkit.ActiveRow(testkit.ReservedRow("acme", "ada@example.com"), "user_ada"))[0]
			second := append([]string{"acme old@example.com not a member"}, strangers...)
			for range 2 { // of a person who is still a member
				differs(second, append([]string{"(acme,ada@example.com)", "(acme,old@example.com)"}, others...)...)
				h.exec(h.sql(clerkinvite.Mirror.Sync))
			}
			testkit.UpdateRows(t, h.store, clerkinvite.Change{Old: ada, New: statusChanged(ada, clerkinvite.StatusRemoved)})
			differs(append([]string{"acme old@example.com left over"}, strangers...), append([]string{"(acme,old@example.com)"}, others...)...)
			h.exec(h.sql(clerkinvite.Mirror.Sync))
			differs(strangers, others...)

			// The row of a reserved member is the host's until Clerk knows whose it is.
			seed := testkit.InsertRows(t, h.store, testkit.ReservedRow("acme", "seed@example.com"))[0]
			differs(strangers, others...)
			testkit.UpdateRows(t, h.store, clerkinvite.Change{Old: seed, New: testkit.PendingRow(seed)})
			differs(strangers[1:], others...)
		})
	}
}

// The triggers look a row up by tenant and address, and no more than one row may have them.
func TestMirror_NeedsAUniqueIndex(t *testing.T) {
	t.Parallel()
	for sql, ok := range map[string]bool{
		"": false, "CREATE INDEX ON admins (tenant, email)": false, "CREATE UNIQUE INDEX ON admins (tenant, email, clerk)": false,
		"CREATE UNIQUE INDEX ON admins (tenant, email) WHERE clerk IS NOT NULL": false, "CREATE UNIQUE INDEX ON admins (tenant, clerk)": false,
		"CREATE UNIQUE INDEX ON admins (tenant, (email || clerk))": false, "CREATE UNIQUE INDEX ON other (tenant, email)": false, "ALTER TABLE admins ADD PRIMARY KEY (clerk)": false,
		"CREATE UNIQUE INDEX ON admins (email, tenant)": true, "CREATE UNIQUE INDEX ON admins (tenant, lower(email))": true, "CREATE UNIQUE INDEX ON admins (tenant, email) INCLUDE (clerk)": true,
		"CREATE UNIQUE INDEX ON admins (email)": true, "ALTER TABLE admins ADD PRIMARY KEY (tenant, email)": true, "ALTER TABLE admins ADD UNIQUE (tenant, email) DEFERRABLE": true,
		"DROP TABLE admins; CREATE TABLE admins (tenant text, email text, clerk text, PRIMARY KEY (tenant, email)) PARTITION BY HASH (tenant)": true,
		"DROP TABLE admins; CREATE VIEW admins AS SELECT * FROM other":                                                                         true,
	} {
		t.Run(sql, func(t *testing.T) {
			t.Parallel()
			store, pool := testkit.NewPgxStore(t)
			h := &mirrored{t, clerkinvite.Mirror{Table: "admins", TenantID: "tenant", Email: "email", ClerkUserID: "clerk"}, store, pool}
			h.exec(`CREATE TABLE admins (tenant text, email text, clerk text); CREATE TABLE other (LIKE admins);` + sql)
			_, err := pool.Exec(t.Context(), h.sql(clerkinvite.Mirror.Up))
			if ok {
				require.NoError(t, err)
				return
			}
			require.Equal(t, "P0001", sqlState(err))
			require.ErrorContains(t, err, "admins has no unique index on the tenant and the address")
			var failure *pgconn.PgError
			require.ErrorAs(t, err, &failure)
			_, fix, _ := strings.Cut(failure.Message, "run ")
			h.exec(fix)
			h.exec(h.sql(clerkinvite.Mirror.Up))
		})
	}
}

// A column that no INSERT fills would reject every new member, after Clerk has sent the email.
func TestMirror_NeedsDefaults(t *testing.T) {
	t.Parallel()
	const fill = `CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.name := 'x'; RETURN NEW; END $$;
		ALTER TABLE admins ADD name text NOT NULL;`
	for sql, want := range map[string]string{
		"ALTER TABLE admins ADD name text NOT NULL":                                                                                        "name",
		`ALTER TABLE admins ADD name text NOT NULL, ADD "Full %Name" text NOT NULL, ADD locale text`:                                       `name, "Full %Name"`,
		"ALTER TABLE admins ADD id uuid PRIMARY KEY":                                                                                       "id",
		"CREATE DOMAIN name AS text NOT NULL; ALTER TABLE admins ADD name public.name":                                                     "name",
		fill + "CREATE TRIGGER fill BEFORE UPDATE ON admins FOR EACH ROW EXECUTE FUNCTION fill()":                                          "name",
		fill + "CREATE TRIGGER fill BEFORE INSERT ON admins FOR EACH ROW EXECUTE FUNCTION fill(); ALTER TABLE admins DISABLE TRIGGER fill": "name",
		fill + "CREATE TRIGGER fill BEFORE INSERT OR UPDATE ON admins FOR EACH ROW EXECUTE FUNCTION fill()":                                "",
		"ALTER TABLE admins ADD name text NOT NULL DEFAULT ''":                                                                             "",
		"CREATE DOMAIN name AS text NOT NULL DEFAULT ''; ALTER TABLE admins ADD name public.name NOT NULL":                                 "",
		"ALTER TABLE admins ADD id bigint GENERATED ALWAYS AS IDENTITY, ADD upper text NOT NULL GENERATED ALWAYS AS (upper(email)) STORED": "",
		"ALTER TABLE admins ADD name text NOT NULL; ALTER TABLE admins DROP name":                                                          "",
		"ALTER TABLE admins ALTER tenant SET NOT NULL, ALTER email SET NOT NULL, ALTER clerk SET NOT NULL, ALTER role SET NOT NULL":        "",
	} {
		t.Run(sql, func(t *testing.T) {
			t.Parallel()
			store, pool := testkit.NewPgxStore(t)
			h := &mirrored{t, clerkinvite.Mirror{Table: "admins", TenantID: "tenant", Email: "email", ClerkUserID: "clerk", Role: "role"}, store, pool}
			h.exec(`CREATE TABLE admins (tenant text, email text, clerk text, role text, UNIQUE (tenant, email));` + sql)
			_, err := pool.Exec(t.Context(), h.sql(clerkinvite.Mirror.Up))
			if want != "" {
				require.Equal(t, "P0001", sqlState(err))
				require.ErrorContains(t, err, "admins has NOT NULL columns without a default, so it would reject new members: "+want+";")
				return
			}
			require.NoError(t, err)
			m := testkit.ReservedRow("acme", "ada@example.com")
			m.Role = "editor"
			testkit.InsertRows(t, store, testkit.ActiveRow(m, "user_ada"))
			require.Equal(t, 1, testkit.QueryOne[int](t, pool, "SELECT count(*) FROM admins"))
		})
	}
}

// With LeftColumn the row stays, without its user.
func TestMirror_LeftColumn(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		column, left, present string
		isLeft                string
	}{
		"time":    {"deleted_at timestamptz", "", "", "deleted_at IS NOT NULL"},
		"boolean": {"active boolean NOT NULL", "false", "true", "NOT active"},
		"text":    {`"it's" text NOT NULL`, `it's \ left`, "here", `"it's" = 'it''s \ left'`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := adminMirror
			m.Status, m.MemberID, m.LeftValue, m.PresentValue = "state", "member_id", test.left, test.present
			m.LeftColumn = strings.Trim(strings.Fields(test.column)[0], `"`)
			h := newMirrored(t, m, strings.Replace(adminUser, "locale ", test.column+", state text NOT NULL, member_id uuid, locale ", 1))
			rows := "SELECT id, email, clerk_user_id, state, " + test.isLeft + " AS is_left FROM admin_user"
			a := testkit.InsertRows(t, h.store, testkit.ActiveRow(testkit.ReservedRow("acme", "ada@example.com"), "user_1"))[0]
			h.want(rows, "(1,ada@example.com,user_1,active,f)")
			require.Equal(t, a.ID, testkit.QueryOne[string](t, h.pool, "SELECT member_id::text FROM admin_user"))
			a = testkit.UpdateRows(t, h.store, clerkinvite.Change{Old: a, New: statusChanged(a, clerkinvite.StatusRemoved)})[0]
			left := "(1,ada@example.com,left_" + a.ID + ",removed,t)"
			h.want(rows, left)

			// The user is free for another row.
			b := testkit.InsertRows(t, h.store, testkit.ActiveRow(testkit.ReservedRow("acme", "lovelace@example.com"), "user_1"))[0]
			h.want(rows, left, "(2,lovelace@example.com,user_1,active,f)")
			testkit.UpdateRows(t, h.store, clerkinvite.Change{Old: b})
			h.want(rows, left)
			a = testkit.UpdateRows(t, h.store, clerkinvite.Change{Old: a, New: testkit.ActiveRow(a, "user_1")})[0]
			h.want(rows, "(1,ada@example.com,user_1,active,f)")

			// Left over, and repaired.
			h.exec("ALTER TABLE clerkinvite_member DISABLE TRIGGER USER")
			a = testkit.UpdateRows(t, h.store, clerkinvite.Change{Old: a, New: statusChanged(a, clerkinvite.StatusRemoved)})[0]
			require.Equal(t, []string{"acme ada@example.com left over"}, h.differences())
			h.exec("ALTER TABLE clerkinvite_member ENABLE TRIGGER USER")
			h.exec(h.sql(clerkinvite.Mirror.Sync))
			h.want(rows, left)
			testkit.UpdateRows(t, h.store, clerkinvite.Change{Old: a})
			h.want(rows)
		})
	}
}

// Names cannot change the SQL.
func TestMirror_HostileNames(t *testing.T) {
	t.Parallel()
	for _, evil := range []string{
		`x"; DROP TABLE clerkinvite_member; --`, `x'; DROP TABLE clerkinvite_member; --`, "$mirror$; DROP TABLE clerkinvite_member; --", "$mm_mirror$ $mmirror$ $mirror$",
		"new\nline -- ", `\'; DROP TABLE clerkinvite_member; --`, "{{put NEW}}{{$}}{{table}}", "%s %I %", "a", "m", "new", "old", "member", "clerkinvite_mirror", "new_email", "Ünïcode",
	} {
		store, pool := testkit.NewPgxStore(t)
		require.NoError(t, store.Validate(t.Context()))
		m := clerkinvite.Mirror{
			Schema: evil, Table: evil + "2." + evil, TenantID: evil, Email: "e" + evil, ClerkUserID: "c" + evil, Status: "s" + evil, Role: "r" + evil,
			MemberID: "m" + evil, LeftColumn: "l" + evil, LeftValue: evil, PresentValue: "p" + evil,
		}
		h := &mirrored{t, m, clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{Schema: evil}), pool}
		require.NoError(t, h.store.Migrate(t.Context()))
		q := func(parts ...string) string { return pgx.Identifier(parts).Sanitize() }
		h.exec("CREATE SCHEMA " + q(evil+"2"))
		h.exec(fmt.Sprintf("CREATE TABLE %s (%s text, %s text, %s text, %s text, %s text, %s uuid, %s text, UNIQUE (%[2]s, %[3]s))", q(evil+"2", evil),
			q(evil), q("e"+evil), q("c"+evil), q("s"+evil), q("r"+evil), q("m"+evil), q("l"+evil)))
		for range 2 {
			h.exec(h.sql(clerkinvite.Mirror.Up))
		}
		rows := fmt.Sprintf("SELECT %s, %s FROM %s", q("e"+evil), q("s"+evil), q(evil+"2", evil))
		a := testkit.InsertRows(t, h.store, testkit.PendingRow(testkit.ReservedRow("acme", "ada@example.com")))[0]
		h.want(rows, "(ada@example.com,pending)")
		a = testkit.UpdateRows(t, h.store, clerkinvite.Change{Old: a, New: statusChanged(a, clerkinvite.StatusRevoked)})[0]
		h.want(rows, "(ada@example.com,revoked)")
		a = testkit.UpdateRows(t, h.store, clerkinvite.Change{Old: a, New: testkit.PendingRow(a)})[0]
		h.exec("DELETE FROM " + q(evil+"2", evil))
		h.exec(h.sql(clerkinvite.Mirror.Sync))
		h.want(rows, "(ada@example.com,pending)")
		testkit.UpdateRows(t, h.store, clerkinvite.Change{Old: a})
		h.want(rows)
		for range 2 {
			h.exec(h.sql(clerkinvite.Mirror.Down))
		}
		testkit.InsertRows(t, h.store, testkit.PendingRow(testkit.ReservedRow("acme", "ada@example.com")))
		require.Len(t, h.differences(), 1, "there is no mirror")
		require.NoError(t, store.Validate(t.Context()), "the other tables are unchanged")
		require.Zero(t, testkit.QueryOne[int](t, pool, "SELECT count(*) FROM pg_proc WHERE proname = 'clerkinvite_mirror'"))
	}
}

func TestMirror_InvalidFields(t *testing.T) {
	t.Parallel()
	for field, set := range map[string][]func(m *clerkinvite.Mirror){
		"Table": {
			func(m *clerkinvite.Mirror) { m.Table = "" }, func(m *clerkinvite.Mirror) { m.Table = "app." }, func(m *clerkinvite.Mirror) { m.Table = ".admin_user" },
			func(m *clerkinvite.Mirror) { m.Table = "db.app.admin_user" }, func(m *clerkinvite.Mirror) { m.Table = strings.Repeat("x", 64) },
		},
		"Schema":      {func(m *clerkinvite.Mirror) { m.Schema = "a\x00" }},
		"TenantID":    {func(m *clerkinvite.Mirror) { m.TenantID = "" }, func(m *clerkinvite.Mirror) { m.TenantID = "\xff" }},
		"Email":       {func(m *clerkinvite.Mirror) { m.Email = "" }, func(m *clerkinvite.Mirror) { m.Email = m.TenantID }},
		"ClerkUserID": {func(m *clerkinvite.Mirror) { m.ClerkUserID = strings.Repeat("ü", 32) }},
		"Role":        {func(m *clerkinvite.Mirror) { m.Role = m.ClerkUserID }},
		"LeftColumn":  {func(m *clerkinvite.Mirror) { m.LeftColumn = m.Role }},
		"LeftValue":   {func(m *clerkinvite.Mirror) { m.LeftValue = "x" }, func(m *clerkinvite.Mirror) { m.LeftColumn, m.LeftValue = "x", "\x00" }},
		"PresentValue": {
			func(m *clerkinvite.Mirror) { m.PresentValue = "x" }, func(m *clerkinvite.Mirror) { m.LeftColumn, m.LeftValue, m.PresentValue = "x", "y", "y" },
		},
		"Statuses": {func(m *clerkinvite.Mirror) { m.Statuses = []clerkinvite.Status{"lost"} }, func(m *clerkinvite.Mirror) { m.Statuses = []clerkinvite.Status{""} }},
	} {
		for _, set := range set {
			m := adminMirror
			set(&m)
			for _, of := range []func(clerkinvite.Mirror) (string, error){clerkinvite.Mirror.Up, clerkinvite.Mirror.Down, clerkinvite.Mirror.Sync, clerkinvite.Mirror.Differences} {
				sql, err := of(m)
				var invalid *clerkinvite.InvalidParamsError
				require.ErrorAs(t, err, &invalid, "%s: %+v", field, m)
				require.Equal(t, field, invalid.Field)
				require.Empty(t, sql)
			}
		}
	}
}

// Whatever the host's table refuses of a batch, only that member fails.
func TestMirror_ErrorFailsOneMember(t *testing.T) {
	t.Parallel()
	raise := func(code string) string {
		return `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no' USING ERRCODE = '` + code + `'; END $$;
			CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON admin_user FOR EACH ROW WHEN (NEW.email = 'p3@example.com') EXECUTE FUNCTION refuse();`
	}
	for name, test := range map[string]struct{ code, sql string }{
		"check":           {"23514", `ALTER TABLE admin_user ADD CHECK (email <> 'p3@example.com')`},
		"user":            {"23505", `INSERT INTO admin_user (tenant_id, email, clerk_user_id) VALUES ('acme', 'other@example.com', 'other'); CREATE UNIQUE INDEX ON admin_user (replace(clerk_user_id, 'user_3', 'other'))`},
		"foreign key":     {"23503", `CREATE TABLE person (email text PRIMARY KEY); INSERT INTO person SELECT 'p' || n || '@example.com' FROM generate_series(0, 9) n WHERE n <> 3; ALTER TABLE admin_user ADD FOREIGN KEY (email) REFERENCES person`},
		"deferred":        {"23503", `CREATE TABLE person (email text PRIMARY KEY); INSERT INTO person SELECT 'p' || n || '@example.com' FROM generate_series(0, 9) n WHERE n <> 3; ALTER TABLE admin_user ADD FOREIGN KEY (email) REFERENCES person DEFERRABLE INITIALLY DEFERRED`},
		"length":          {"22001", `ALTER TABLE admin_user ALTER role TYPE varchar(6)`},
		"raise":           {"P0001", raise("P0001")},
		"own code":        {"ACME1", raise("ACME1")},
		"lock":            {"55P03", raise("55P03")},
		"missing default": {"23502", `ALTER TABLE admin_user ADD team text; UPDATE admin_user SET team = ''; ALTER TABLE admin_user ADD CONSTRAINT c CHECK (true); CREATE FUNCTION team() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.email <> 'p3@example.com' THEN NEW.team := 'x'; END IF; RETURN NEW; END $$; CREATE TRIGGER team BEFORE INSERT ON admin_user FOR EACH ROW EXECUTE FUNCTION team(); ALTER TABLE admin_user ALTER team SET NOT NULL`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newMirrored(t, adminMirror, adminUser)
			h.exec(test.sql)
			var rows []*clerkinvite.Member
			for i := range 9 {
				m := testkit.ReservedRow("acme", fmt.Sprintf("p%d@example.com", i))
				if m.Role = "editor"; i == 3 {
					m.Role = "editor in chief"
				}
				rows = append(rows, m)
			}
			// One statement for all of them.
			results, err := h.store.Insert(t.Context(), rows)
			members := testkit.Members(t, results, err)
			var changes []clerkinvite.Change
			for i, m := range members {
				changes = append(changes, clerkinvite.Change{Old: m, New: testkit.ActiveRow(m, fmt.Sprint("user_", i))})
			}
			for range 2 { // the second time the others have been changed already
				results, err = h.store.Update(t.Context(), changes)
				require.NoError(t, err)
				require.Equal(t, test.code, sqlState(results[3].Err))
			}
			require.Empty(t, h.differences())
			require.Equal(t, 8, testkit.QueryOne[int](t, h.pool, "SELECT count(*) FROM admin_user WHERE email <> 'other@example.com'"))
			one, err := h.store.Update(t.Context(), changes[3:4])
			require.NoError(t, err, "as after an error of OnChange, the member has the error")
			require.Equal(t, test.code, sqlState(one[0].Err))

			// New rows that are mirrored immediately.
			other := testkit.ActiveRow(testkit.ReservedRow("acme", "fine@example.com"), "user_fine")
			if strings.Contains(test.sql, "person") {
				h.exec(`INSERT INTO person VALUES ('fine@example.com')`)
			}
			h.exec(`DELETE FROM clerkinvite_member WHERE email = 'p3@example.com'`)
			refused := *changes[3].New
			results, err = h.store.Insert(t.Context(), []*clerkinvite.Member{&refused, other})
			require.NoError(t, err)
			require.Equal(t, test.code, sqlState(results[0].Err))
			require.NoError(t, results[1].Err)
			require.Empty(t, h.differences())
		})
	}
}

// An error that is not about a row fails the call once, and does not split it.
func TestMirror_ServerTroubleIsNotARow(t *testing.T) {
	t.Parallel()
	h := newMirrored(t, adminMirror, adminUser)
	h.exec(`CREATE TABLE calls (n int); CREATE SEQUENCE tries;
		CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF nextval('tries') = 1 THEN RAISE SQLSTATE '40P01'; END IF; RETURN NEW; END $$;
		CREATE TRIGGER trouble BEFORE INSERT ON admin_user FOR EACH ROW EXECUTE FUNCTION trouble()`)
	testkit.InsertRows(t, h.store, testkit.PendingRow(testkit.ReservedRow("acme", "ada@example.com")), testkit.PendingRow(testkit.ReservedRow("acme", "joan@example.com")))
	require.Equal(t, 3, testkit.QueryOne[int](t, h.pool, "SELECT last_value FROM tries"), "repeated as a whole")
	require.Empty(t, h.differences())
}

// Addresses that changed owners while there were no triggers: each row follows its member, and a conflict fails only the members that it is about.
func TestMirror_SyncAfterAddressesMoved(t *testing.T) {
	t.Parallel()
	const memberID = "ALTER TABLE admin_user ADD member_id uuid UNIQUE; UPDATE admin_user a SET member_id = m.id FROM clerkinvite_member m WHERE (m.tenant_id, m.clerk_user_id) = (a.tenant_id, a.clerk_user_id);"
	const citext = "CREATE EXTENSION citext; ALTER TABLE admin_user ALTER email TYPE citext, ALTER tenant_id TYPE uuid USING tenant_id::uuid"
	for name, test := range map[string]struct {
		sql    string
		mirror func(m *clerkinvite.Mirror)
	}{
		"user":              {},
		"member":            {memberID, func(m *clerkinvite.Mirror) { m.MemberID = "member_id" }},
		"member, no user":   {memberID + "ALTER TABLE admin_user ALTER clerk_user_id SET DEFAULT gen_random_uuid()::text", func(m *clerkinvite.Mirror) { m.MemberID, m.ClerkUserID = "member_id", "" }},
		"uuid and citext":   {citext, nil},
		"member and citext": {memberID + citext, func(m *clerkinvite.Mirror) { m.MemberID = "member_id" }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newMirrored(t, adminMirror, adminUser)
			const acme, globex = "0b5e9d3c-6f0e-4a3e-9c1f-2d1a5b7c8e01", "0b5e9d3c-6f0e-4a3e-9c1f-2d1a5b7c8e02"
			var rows []*clerkinvite.Member
			for _, tenant := range []string{acme, globex} {
				for _, p := range []string{"swap1", "swap2", "ring1", "ring2", "ring3", "path1", "path2", "path3", "left", "blocked", "free"} {
					rows = append(rows, testkit.ActiveRow(testkit.ReservedRow(tenant, p+"@example.com"), "user_"+p))
				}
			}
			testkit.InsertRows(t, h.store, rows...)
			h.exec(`UPDATE admin_user SET locale = substr(clerk_user_id, 6)`) // a column of the host, which must follow the person
			h.exec(test.sql)
			if test.mirror != nil {
				test.mirror(&h.mirror)
			}
			h.exec(h.sql(clerkinvite.Mirror.Up))
			require.Empty(t, h.differences())

			h.exec(`ALTER TABLE clerkinvite_member DISABLE TRIGGER USER`)
			move := func(pairs ...string) { // to temporary addresses, then to the wanted ones
				for i := 0; i < len(pairs); i += 2 {
					h.exec(`UPDATE clerkinvite_member SET email = 'x-` + pairs[i+1] + `@example.com' WHERE clerk_user_id = 'user_` + pairs[i] + `' AND tenant_id = '` + acme + `'`)
				}
				h.exec(`UPDATE clerkinvite_member SET email = substr(email, 3) WHERE email LIKE 'x-%'`)
			}
			move("swap1", "swap2", "swap2", "swap1", "ring1", "ring2", "ring2", "ring3", "ring3", "ring1", "path3", "new", "path2", "path3", "path1", "path2", "blocked", "host")
			testkit.InsertRows(t, h.store, testkit.ActiveRow(testkit.ReservedRow(acme, "path1@example.com"), "user_owner"), // of an address that had another owner
				testkit.ActiveRow(testkit.ReservedRow(acme, "added@example.com"), "user_added"))
			h.exec(`UPDATE clerkinvite_member SET status = 'removed', clerk_user_id = NULL WHERE email = 'left@example.com'`)
			h.exec(`INSERT INTO admin_user (tenant_id, email, clerk_user_id) VALUES ('` + acme + `', 'host@example.com', 'user_host')`) // blocks a member's new address
			h.exec(`ALTER TABLE clerkinvite_member ENABLE TRIGGER USER`)

			h.exec(h.sql(clerkinvite.Mirror.Sync))
			require.Equal(t, []string{acme + " host@example.com different"}, h.differences(), "the conflict fails one member")
			require.Equal(t, "user_host", testkit.QueryOne[string](t, h.pool, `SELECT clerk_user_id FROM admin_user WHERE email = 'host@example.com'`), "the host's row is unchanged")
			h.exec(`DELETE FROM admin_user WHERE email = 'host@example.com'`)
			h.exec(h.sql(clerkinvite.Mirror.Sync))
			h.want(`SELECT split_part(email, '@', 1), locale FROM admin_user WHERE tenant_id = '`+acme+`'`,
				"(added,en)", "(free,free)", "(host,blocked)", "(new,path3)", "(path1,en)", "(path2,path1)", "(path3,path2)",
				"(ring1,ring3)", "(ring2,ring1)", "(ring3,ring2)", "(swap1,swap2)", "(swap2,swap1)")
			h.want(`SELECT count(*) FROM admin_user WHERE tenant_id = '`+globex+`' AND split_part(email, '@', 1) = locale`, "(10)")
		})
	}
}

// Sync warns about each member whose row the host's table refuses, and writes the others.
func TestMirror_SyncErrorFailsOneMember(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ sql, warning string }{
		"check":    {`ALTER TABLE admin_user ADD CHECK (email <> 'p3@example.com')`, "admin_user_email_check"},
		"deferred": {`CREATE TABLE person (email text PRIMARY KEY); INSERT INTO person SELECT 'p' || n || '@example.com' FROM generate_series(0, 9) n WHERE n <> 3; ALTER TABLE admin_user ADD FOREIGN KEY (email) REFERENCES person DEFERRABLE INITIALLY DEFERRED`, "admin_user_email_fkey"},
		"kept":     {`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'kept' USING ERRCODE = 'ACME1'; END $$; CREATE TRIGGER refuse BEFORE DELETE OR UPDATE ON admin_user FOR EACH ROW WHEN (OLD.email = 'p3@example.com') EXECUTE FUNCTION refuse()`, "kept"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newMirrored(t, adminMirror, adminUser)
			if name != "kept" {
				h.exec(h.sql(clerkinvite.Mirror.Down))
			}
			for i := range 6 {
				testkit.InsertRows(t, h.store, testkit.ActiveRow(testkit.ReservedRow("acme", fmt.Sprintf("p%d@example.com", i)), fmt.Sprint("user_", i)))
			}
			h.exec(h.sql(clerkinvite.Mirror.Down))
			h.exec(test.sql)
			want := []string{"acme p3@example.com missing"}
			if name == "kept" {
				h.exec(`UPDATE clerkinvite_member SET status = 'removed', clerk_user_id = NULL`)
				want = []string{"acme p3@example.com left over"}
			}
			var warnings []string
			config := h.pool.Config().ConnConfig.Copy()
			config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { warnings = append(warnings, n.Message) }
			conn, err := pgx.ConnectConfig(t.Context(), config)
			require.NoError(t, err)
			defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
			_, err = conn.Exec(t.Context(), h.sql(clerkinvite.Mirror.Sync))
			require.NoError(t, err)
			require.Equal(t, want, h.differences())
			require.Len(t, warnings, 1)
			require.Contains(t, warnings[0], test.warning)
			require.NotContains(t, warnings[0], "@")
		})
	}
}

// In the host's transaction both tables are committed or rolled back together.
func TestMirror_InTransaction(t *testing.T) {
	t.Parallel()
	h := newMirrored(t, adminMirror, adminUser)
	h.exec(`ALTER TABLE admin_user ADD CHECK (email <> 'no@example.com')`)
	for _, commit := range []bool{false, true} {
		tx, err := h.pool.Begin(t.Context())
		require.NoError(t, err)
		testkit.InsertRows(t, h.store.WithTx(tx), testkit.PendingRow(testkit.ReservedRow("acme", "ada@example.com")))
		require.Equal(t, 1, testkit.QueryOne[int](t, tx, "SELECT count(*) FROM admin_user"))
		if !commit {
			// The error is PostgreSQL's for the row, not that the transaction is aborted.
			_, err = h.store.WithTx(tx).Insert(t.Context(), []*clerkinvite.Member{
				testkit.PendingRow(testkit.ReservedRow("acme", "no@example.com")), testkit.PendingRow(testkit.ReservedRow("acme", "joan@example.com")),
			})
			require.Equal(t, "23514", sqlState(err))
			require.NoError(t, tx.Rollback(t.Context()))
			h.want("SELECT email FROM admin_user")
			continue
		}
		require.NoError(t, tx.Commit(t.Context()))
		h.want("SELECT email FROM admin_user", "(ada@example.com)")
	}
}

// The table follows the members no matter how they are written: another search_path, a temporary table of the same name, one statement for many rows.
func TestMirror_AnyWriter(t *testing.T) {
	t.Parallel()
	for _, partitioned := range []bool{false, true} {
		t.Run(fmt.Sprint("partitioned ", partitioned), func(t *testing.T) {
			t.Parallel()
			_, pool := testkit.NewPgxStore(t)
			if partitioned {
				pool = partitionedPool(t)
			}
			h := &mirrored{t, adminMirror, clerkinvite.NewPgxStore(pool, nil), pool}
			h.exec(adminUser)
			h.exec(h.sql(clerkinvite.Mirror.Up) + h.sql(clerkinvite.Mirror.Sync))
			h.exec(h.sql(clerkinvite.Mirror.Up)) // replaces the triggers
			var rows []*clerkinvite.Member
			for i := range 20 {
				rows = append(rows, testkit.ActiveRow(testkit.ReservedRow(fmt.Sprint("tenant", i%5), fmt.Sprintf("p%02d@example.com", i)), fmt.Sprint("user_", i)))
			}
			testkit.InsertRows(t, h.store, rows...)
			count := func(n int) {
				t.Helper()
				require.Empty(t, h.differences())
				require.Equal(t, n, testkit.QueryOne[int](t, pool, "SELECT count(*) FROM admin_user"))
			}
			count(20)
			h.exec(`UPDATE clerkinvite_member SET role = 'admin', email = 'x' || email`)
			count(20)
			h.exec(`DELETE FROM clerkinvite_history; UPDATE clerkinvite_member SET tenant_id = 'moved' WHERE tenant_id = 'tenant1'`)
			count(20)
			h.exec(`UPDATE clerkinvite_member SET status = 'removed', clerk_user_id = NULL WHERE tenant_id = 'tenant2'`)
			count(16)
			h.exec(`DELETE FROM clerkinvite_member WHERE tenant_id = 'tenant3'`)
			count(12)
			require.NoError(t, pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
				_, err := tx.Exec(t.Context(), `SET LOCAL search_path = pg_catalog; CREATE TEMPORARY TABLE admin_user (LIKE public.admin_user) ON COMMIT DROP;
					UPDATE public.clerkinvite_member SET status = 'removed', clerk_user_id = NULL WHERE tenant_id = 'tenant4'`)
				return err
			}))
			count(8)
			h.refuses("P0001", "TRUNCATE clerkinvite_member CASCADE")
			count(8)
			if partitioned {
				h.exec(`UPDATE clerkinvite_member_p0 SET role = 'direct'; UPDATE clerkinvite_member_p1 SET role = 'direct'`)
				count(8)
				require.Equal(t, 8, testkit.QueryOne[int](t, pool, "SELECT count(*) FROM admin_user WHERE role = 'direct'"))
			}
		})
	}
}

// A claim does not run the trigger.
func TestMirror_ClaimsCostNothing(t *testing.T) {
	t.Parallel()
	h := newMirrored(t, adminMirror, adminUser)
	h.exec(`CREATE SEQUENCE runs; CREATE FUNCTION count_runs() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('runs'); RETURN NULL; END $$;
		CREATE TRIGGER count_runs AFTER INSERT OR UPDATE OR DELETE ON admin_user FOR EACH ROW EXECUTE FUNCTION count_runs()`)
	m := testkit.InsertRows(t, h.store, testkit.PendingRow(testkit.ReservedRow("acme", "ada@example.com")))[0]
	claimed := m.Clone()
	claimed.Attempts++
	claimed.ClaimedUntil = &m.UpdatedAt
	testkit.UpdateRows(t, h.store, clerkinvite.Change{Old: m, New: claimed})
	h.exec(h.sql(clerkinvite.Mirror.Sync)) // neither does a repeated Sync
	require.Equal(t, 1, testkit.QueryOne[int](t, h.pool, "SELECT last_value FROM runs"))
}

// Sync while members change: afterwards there are no differences.
func TestMirror_SyncWhileMembersChange(t *testing.T) {
	t.Parallel()
	h := newMirrored(t, adminMirror, adminUser)
	h.exec(h.sql(clerkinvite.Mirror.Down))
	var rows []*clerkinvite.Member
	for i := range 60 {
		rows = append(rows, testkit.ActiveRow(testkit.ReservedRow("acme", fmt.Sprintf("p%d@example.com", i)), fmt.Sprint("user_", i)))
	}
	rows = testkit.InsertRows(t, h.store, rows...)
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := range 3 {
		wg.Go(func() {
			for n := i; n < len(rows); n += 3 {
				now, next := rows[n], statusChanged(rows[n], clerkinvite.StatusRemoved)
				for range 2 {
					results, err := h.store.Update(h.Context(), []clerkinvite.Change{{Old: now, New: next}})
					if !assert.NoError(t, err) || !assert.NoError(t, results[0].Err) {
						return
					}
					now, next = results[0].Member, testkit.ActiveRow(results[0].Member, fmt.Sprint("user_", n))
				}
			}
		})
	}
	for range 5 {
		h.exec("BEGIN;" + h.sql(clerkinvite.Mirror.Up) + h.sql(clerkinvite.Mirror.Sync) + "COMMIT")
		require.Empty(t, h.differences())
	}
	wg.Wait()
	require.Empty(t, h.differences())
}

// Sync reads the members and then writes the host's table. A member that leaves in between waits, because Sync would write its row afterwards.
func TestMirror_SyncBlocksWrites(t *testing.T) {
	t.Parallel()
	h := newMirrored(t, adminMirror, adminUser)
	ada := testkit.InsertRows(t, h.store, testkit.ActiveRow(testkit.ReservedRow("acme", "ada@example.com"), "user_ada"))[0]
	h.exec(`TRUNCATE admin_user;
		CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END $$;
		CREATE TRIGGER hold BEFORE INSERT ON admin_user FOR EACH ROW EXECUTE FUNCTION hold()`)
	tx, err := h.pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	_, err = tx.Exec(t.Context(), "SELECT pg_advisory_xact_lock(1)")
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := h.pool.Exec(h.Context(), h.sql(clerkinvite.Mirror.Sync))
		assert.NoError(t, err)
	})
	testkit.AwaitLocks(t, h.pool, 1)
	var changed atomic.Bool
	wg.Go(func() {
		defer changed.Store(true)
		results, err := h.store.Update(h.Context(), []clerkinvite.Change{{Old: ada, New: statusChanged(ada, clerkinvite.StatusRemoved)}})
		if assert.NoError(t, err) {
			assert.NoError(t, results[0].Err)
		}
	})
	testkit.Await(t, "the member's change to wait", func() bool {
		return changed.Load() || testkit.QueryOne[int](t, h.pool, "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'clerkinvite_member'::regclass") == 1
	})
	require.NoError(t, tx.Rollback(t.Context()))
	wg.Wait()
	h.want("SELECT email FROM admin_user")
}

func TestMirror_UpAndDown(t *testing.T) {
	t.Parallel()
	h := newMirrored(t, adminMirror, adminUser+`; CREATE TABLE other (LIKE admin_user INCLUDING ALL)`)
	other := adminMirror
	other.Table = "other"
	up, err := other.Up()
	require.NoError(t, err)
	h.refuses("P0001", up)
	h.mirror.Role = "" // another mirror of the same table replaces it
	h.exec(h.sql(clerkinvite.Mirror.Up))
	testkit.InsertRows(t, h.store, testkit.PendingRow(testkit.ReservedRow("acme", "ada@example.com")))
	h.want("SELECT role FROM admin_user", "(viewer)")
	h.exec(h.sql(clerkinvite.Mirror.Down))
	h.exec(up)
	testkit.InsertRows(t, h.store, testkit.PendingRow(testkit.ReservedRow("acme", "joan@example.com")))
	require.Equal(t, 1, testkit.QueryOne[int](t, h.pool, "SELECT count(*) FROM admin_user"))
	require.NoError(t, h.store.Validate(t.Context()))
	for code, m := range map[string]clerkinvite.Mirror{
		"42P01": {Table: "missing", TenantID: "tenant_id", Email: "email"}, "42703": {Table: "other", TenantID: "tenant_id", Email: "mail"},
	} {
		up, err = m.Up()
		require.NoError(t, err)
		h.refuses(code, up)
	}
}

// Without privileges, or with policies that could hide rows, the members cannot be changed either.
func TestMirror_Privileges(t *testing.T) {
	t.Parallel()
	h := newMirrored(t, adminMirror, adminUser)
	role := "clerkinvite_test_" + strings.ToLower(strings.NewReplacer("/", "", "_", "").Replace(t.Name()))
	h.exec("CREATE ROLE " + role + "; GRANT ALL ON clerkinvite_member, clerkinvite_history, clerkinvite_limit TO " + role)
	t.Cleanup(func() {
		_, err := h.pool.Exec(context.WithoutCancel(t.Context()), "DROP OWNED BY "+role+"; DROP ROLE "+role)
		assert.NoError(t, err)
	})
	config := h.pool.Config()
	config.ConnConfig.RuntimeParams["role"] = role
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	as := clerkinvite.NewPgxStore(pool, nil)
	insert := func() error {
		results, err := as.Insert(t.Context(), []*clerkinvite.Member{testkit.PendingRow(testkit.ReservedRow("acme", "ada@example.com"))})
		if err == nil {
			err = results[0].Err
		}
		return err
	}
	require.Equal(t, "42501", sqlState(insert()))
	h.exec("GRANT SELECT, INSERT, UPDATE, DELETE ON admin_user TO " + role)
	h.exec("ALTER TABLE admin_user ENABLE ROW LEVEL SECURITY; CREATE POLICY nothing ON admin_user USING (false) WITH CHECK (true)")
	require.Equal(t, "42501", sqlState(insert()))
	h.exec("ALTER TABLE admin_user DISABLE ROW LEVEL SECURITY")
	require.NoError(t, insert())
	h.want("SELECT email FROM admin_user", "(ada@example.com)")
}

// Two tenants are never one in the host's table, although its column does not distinguish them.
func TestMirror_TenantsThatDifferInCase(t *testing.T) {
	t.Parallel()
	h := newMirrored(t, clerkinvite.Mirror{Table: "admins", TenantID: "tenant", Email: "email", ClerkUserID: "clerk"},
		`CREATE EXTENSION citext; CREATE TABLE admins (tenant citext, email citext, clerk text, CONSTRAINT one UNIQUE (tenant, email))`)
	m := testkit.InsertRows(t, h.store, testkit.ActiveRow(testkit.ReservedRow("acme", "ada@example.com"), "user_1"))[0]
	other := testkit.ActiveRow(testkit.ReservedRow("Acme", "ada@example.com"), "user_2")
	results, err := h.store.Insert(t.Context(), []*clerkinvite.Member{other})
	require.NoError(t, err)
	require.Equal(t, "23505", sqlState(results[0].Err))
	h.want("SELECT * FROM admins", "(acme,ada@example.com,user_1)")
	h.exec("ALTER TABLE admins DROP CONSTRAINT one")
	testkit.InsertRows(t, h.store, other)
	testkit.UpdateRows(t, h.store, clerkinvite.Change{Old: m})
	h.want("SELECT * FROM admins", "(Acme,ada@example.com,user_2)")
}

// The operators of a domain's type are found even if a domain is in between.
func TestMirror_DomainOfADomain(t *testing.T) {
	t.Parallel()
	h := newMirrored(t, clerkinvite.Mirror{Table: "host.admins", TenantID: "tenant", Email: "email", ClerkUserID: "clerk"},
		`CREATE SCHEMA host; CREATE SCHEMA extensions; CREATE EXTENSION citext SCHEMA extensions; CREATE DOMAIN host.text_in_any_case AS extensions.citext;
		CREATE DOMAIN host.email AS host.text_in_any_case; CREATE TABLE host.admins (tenant text, email host.email, clerk text, UNIQUE (tenant, email))`)
	h.exec(`INSERT INTO host.admins VALUES ('acme', 'Ada@Example.com')`)
	testkit.InsertRows(t, h.store, testkit.ActiveRow(testkit.ReservedRow("acme", "ada@example.com"), "user_1"))
	h.want("SELECT * FROM host.admins", "(acme,ada@example.com,user_1)")
}

// A member from before Up that the host's columns cannot represent can still be erased.
func TestMirror_PurgesWhatTheTableCannotHave(t *testing.T) {
	t.Parallel()
	for name, column := range map[string]string{"uuid": "uuid", "length": "varchar(2)", "domain": "number"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newMirrored(t, clerkinvite.Mirror{Table: "admins", TenantID: "tenant", Email: "email"},
				`CREATE DOMAIN number AS text CHECK (VALUE ~ '^[0-9]+$'); CREATE TABLE admins (tenant `+column+`, email text, UNIQUE (tenant, email))`)
			h.exec(h.sql(clerkinvite.Mirror.Down))
			m := testkit.InsertRows(t, h.store, testkit.PendingRow(testkit.ReservedRow("acme", "ada@example.com")))[0]
			h.exec(h.sql(clerkinvite.Mirror.Up))
			testkit.UpdateRows(t, h.store, clerkinvite.Change{Old: m})
			require.Zero(t, testkit.QueryOne[int](t, h.pool, "SELECT count(*) FROM clerkinvite_member"))
		})
	}
}

// A row that the host marked as left is the host's. Purge erases the row of the member only.
func TestMirror_PurgeKeepsTheHostsLeftRow(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(m *clerkinvite.Mirror){
		"by user":   func(m *clerkinvite.Mirror) { m.ClerkUserID = "clerk" },
		"by member": func(m *clerkinvite.Mirror) { m.MemberID = "member" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := clerkinvite.Mirror{Table: "admins", TenantID: "tenant", Email: "email", LeftColumn: "state", LeftValue: "left", PresentValue: "here"}
			set(&m)
			h := newMirrored(t, m, `CREATE TABLE admins (tenant text, email text, clerk text, member text, state text, UNIQUE (tenant, email))`)
			h.exec(`INSERT INTO admins VALUES ('acme', 'ada@example.com', 'user_of_the_host', NULL, 'left')`)
			reserved := testkit.InsertRows(t, h.store, testkit.ReservedRow("acme", "ada@example.com"))[0]
			testkit.UpdateRows(t, h.store, clerkinvite.Change{Old: reserved})
			h.want("SELECT clerk, state FROM admins", "(user_of_the_host,left)")
			member := testkit.InsertRows(t, h.store, testkit.PendingRow(testkit.ReservedRow("acme", "ada@example.com")))[0]
			member = testkit.UpdateRows(t, h.store, clerkinvite.Change{Old: member, New: statusChanged(member, clerkinvite.StatusRevoked)})[0]
			require.Equal(t, "left", testkit.QueryOne[string](t, h.pool, "SELECT state FROM admins"))
			testkit.UpdateRows(t, h.store, clerkinvite.Change{Old: member})
			h.want("SELECT clerk, state FROM admins")
		})
	}
}

// Sessions keep the types of the columns until Up is repeated.
func TestMirror_UpAfterATypeHasChanged(t *testing.T) {
	t.Parallel()
	const tenant = "0b0e8a3c-6f5d-4c1e-9d3a-000000000001"
	h := newMirrored(t, clerkinvite.Mirror{Table: "admins", TenantID: "tenant", Email: "email"}, `CREATE TABLE admins (tenant text, email text, UNIQUE (tenant, email))`)
	testkit.InsertRows(t, h.store, testkit.PendingRow(testkit.ReservedRow(tenant, "ada@example.com")))
	h.exec("BEGIN; ALTER TABLE admins ALTER tenant TYPE uuid USING tenant::uuid;" + h.sql(clerkinvite.Mirror.Up) + "COMMIT")
	testkit.InsertRows(t, h.store, testkit.PendingRow(testkit.ReservedRow(tenant, "joan@example.com")))
	h.want("SELECT email FROM admins", "(ada@example.com)", "(joan@example.com)")
}
