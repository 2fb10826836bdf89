package doccheck_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// examples/adopt and the SQL of docs/migrating.md work, on a table like the page's with every kind of row that it mentions.
func TestMigrating(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	pool := db.Pool(t)
	clerk := clerkinvitetest.NewClerk()
	grace := clerk.AddVerifiedUser("grace@example.com")
	older, newer := clerk.CreateForeign("ada@example.com", nil), clerk.CreateForeign("ada@example.com", nil)
	joins, revoked := clerk.CreateForeign("joins@example.com", nil), clerk.CreateForeign("revoked@example.com", nil)
	_, err := pool.Exec(t.Context(), `CREATE TABLE admin_user (id serial PRIMARY KEY, tenant_id text, email text, clerk_user_id text, role text, created_at timestamptz)`)
	require.NoError(t, err)
	for _, row := range [][3]string{
		{" Grace@Example.com", grace.ID, "2026-01-01"}, {"uma@example.com", grace.ID, "2025-12-01"}, {"GRACE@example.com", "pending_inv_old", "2026-02-01"},
		{"ada@example.com", clerkinvite.PendingID(older.ID), "2026-01-01"}, {"Ada@example.com", clerkinvite.PendingID(newer.ID), "2026-02-01"},
		{"june@Bücher.example.com", "user_gone", "2026-01-01"}, {"not-an-address", "user_unknown", "2026-01-01"},
		{"joins@example.com", clerkinvite.PendingID(joins.ID), "2026-01-01"}, {"revoked@example.com", clerkinvite.PendingID(revoked.ID), "2026-01-01"},
	} {
		_, err := pool.Exec(t.Context(), `INSERT INTO admin_user (tenant_id, email, clerk_user_id, role, created_at) VALUES ('acme', $1, $2, 'admin', $3::text::timestamptz)`, row[0], row[1], row[2])
		require.NoError(t, err)
	}
	_, err = pool.Exec(t.Context(), `INSERT INTO admin_user (tenant_id, email) VALUES ('acme', ' Empty@Example.com'), (NULL, 'nowhere@example.com'), ('acme', NULL);
		INSERT INTO admin_user (tenant_id, email, clerk_user_id, role) VALUES ('acme', 'role@example.com', 'user_role', E'ad\nmin');
		INSERT INTO admin_user (tenant_id, email, clerk_user_id, role, created_at) VALUES ('acme', 'Joins@Example.com', '`+clerkinvite.PendingID(joins.ID)+`', 'viewer', '2025-01-01')`)
	require.NoError(t, err)

	binary := filepath.Join(t.TempDir(), "migrate")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./examples/adopt").CombinedOutput() // #nosec G204 -- the example
	require.NoError(t, err, "%s", out)
	run := func(args ...string) []string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), binary, args...) // #nosec G204 -- the example
		cmd.Env = append(os.Environ(), "DATABASE_URL="+db.DSN, "CLERK_SECRET_KEY=")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return strings.Split(strings.TrimSpace(string(out)), "\n")
	}
	store := clerkinvite.NewPgxStore(pool, nil)
	svc, err := clerkinvite.New(clerkinvite.Config{API: clerk, Store: store})
	require.NoError(t, err)
	members := func() int { return testkit.QueryOne[int](t, pool, `SELECT count(*) FROM clerkinvite_member`) }

	rehearsal := run()
	require.Zero(t, members())
	left := run("-commit")
	require.Equal(t, left[len(left)-1], rehearsal[len(rehearsal)-1])
	require.Equal(t, "5 members, 9 rows not adopted", left[len(left)-1])
	require.Equal(t, 5, members())
	page := readPage(t, "docs/migrating.md")
	why, reasons := strings.Join(left, "\n"), 0
	for row := range strings.SplitSeq(page, "\n") {
		reason, _, _ := strings.Cut(strings.TrimPrefix(row, "| `"), "`")
		if begin, end, _ := strings.Cut(reason, " … "); strings.HasPrefix(row, "| `") {
			require.Contains(t, why, begin)
			require.Contains(t, why, end)
			reasons++
		}
	}
	require.Equal(t, 6, reasons)
	require.Equal(t, left, run("-commit"), "again")
	_, err = pool.Exec(t.Context(), `INSERT INTO admin_user (tenant_id, email, clerk_user_id) VALUES ('acme', 'late@example.com', 'user_late')`)
	require.NoError(t, err)
	late := run()
	require.Contains(t, late, `"acme" "late@example.com" "user_late": new member`)
	require.Len(t, late, len(left)+1)
	require.Equal(t, "6 members, 9 rows not adopted", late[len(late)-1])
	_, err = pool.Exec(t.Context(), `DELETE FROM admin_user WHERE email = 'late@example.com'`)
	require.NoError(t, err)

	clerk.RevokeInDashboard(revoked.ID)
	_, err = clerk.AcceptInvitation(joins.ID)
	require.NoError(t, err)
	report, err := svc.Reconcile(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, []int{1, 1, 1, 0}, []int{report.Activated, report.Removed, report.Revoked, report.Unknown})
	ada, err := svc.Get(t.Context(), testkit.Ada)
	require.NoError(t, err)
	require.Equal(t, newer.ID, ada.InvitationID)
	require.Equal(t, "admin", ada.Role)
	require.Len(t, clerk.OpenInvitations("ada@example.com"), 2, "the older invitation is unchanged")
	require.Zero(t, clerk.Emails())

	_, err = svc.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "revoked@example.com"})
	require.NoError(t, err)
	sql := sqlBlocks(t, "docs/migrating.md")
	require.Len(t, sql, 3)
	update, back, remove := sql[0], sql[1], sql[2]
	mirror := clerkinvite.Mirror{Table: "admin_user", TenantID: "tenant_id", Email: "email", ClerkUserID: "clerk_user_id"}
	up, err := mirror.Up()
	require.NoError(t, err)
	_, err = pool.Exec(t.Context(), up)
	require.ErrorContains(t, err, "not normalised")
	for _, line := range left[:len(left)-1] { // the rows that were not adopted
		var tenant, email, user string
		_, err = fmt.Sscanf(line, "%q %q %q:", &tenant, &email, &user)
		require.NoError(t, err)
		if email == " Empty@Example.com" {
			continue // invited after the switch
		}
		deleted, err := pool.Exec(t.Context(), "DELETE FROM admin_user WHERE (coalesce(tenant_id, ''), coalesce(email, ''), coalesce(clerk_user_id, '')) = ($1, $2, $3)", tenant, email, user)
		require.NoError(t, err)
		require.EqualValues(t, 1, deleted.RowsAffected(), line)
	}
	_, err = pool.Exec(t.Context(), update+"DELETE FROM admin_user WHERE clerk_user_id = 'user_gone'") // june is not a member any more
	require.NoError(t, err)
	_, err = pool.Exec(t.Context(), up)
	require.NoError(t, err)
	differences, err := mirror.Differences()
	require.NoError(t, err)
	require.Zero(t, testkit.QueryOne[int](t, pool, "SELECT count(*) FROM ("+differences+") x WHERE difference IN ('not normalised', 'not a member')"))
	hostRows := testkit.QueryOne[int](t, pool, `SELECT count(*) FROM admin_user`)
	for range 2 { // with a mirror, and without one
		_, err = pool.Exec(t.Context(), back)
		require.NoError(t, err)
		require.Equal(t, 1, members(), "only the person whom the library has invited")
		require.Equal(t, hostRows, testkit.QueryOne[int](t, pool, `SELECT count(*) FROM admin_user`))
	}

	_, err = pool.Exec(t.Context(), up)
	require.NoError(t, err)
	_, err = pool.Exec(t.Context(), remove)
	require.NoError(t, err)
	require.Equal(t, hostRows, testkit.QueryOne[int](t, pool, `SELECT count(*) FROM admin_user`))
	require.Equal(t, "admin_user", testkit.QueryOne[string](t, pool, `SELECT string_agg(relname, ' ') FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace`))
	require.Zero(t, testkit.QueryOne[int](t, pool, `SELECT count(*) FROM pg_proc WHERE proname LIKE 'clerkinvite%'`))

	_, err = pool.Exec(t.Context(), `ALTER TABLE admin_user DROP role, DROP created_at;
		INSERT INTO admin_user VALUES (99, 'acme', 'twice@example.com', 'pending_inv_older'), (100, 'acme', 'Twice@example.com', 'pending_inv_newer')`) // a smaller table
	require.NoError(t, err)
	last := run("-commit")
	require.Equal(t, fmt.Sprintf("%d members, 2 rows not adopted", hostRows), last[len(last)-1])
	require.Equal(t, hostRows, members())
	twice, err := svc.Get(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "twice@example.com"})
	require.NoError(t, err)
	require.Equal(t, "inv_newer", twice.InvitationID)
}
