package main

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
)

const adminUser = `CREATE TABLE admin_user (tenant_id text NOT NULL, email text NOT NULL, clerk_user_id text NOT NULL, role text, UNIQUE (tenant_id, email))`

var adminFlags = []string{"mirror", "--table", "admin_user", "--tenant-id", "tenant_id", "--email", "email", "--clerk-user-id", "clerk_user_id"}

// mirror runs the SQL that the command prints.
func (w *world) mirror(flags ...string) {
	w.t.Helper()
	r := w.run(append(adminFlags, flags...)...)
	require.Zero(w.t, r.code, r.stderr)
	w.exec(r.stdout)
}

// doctorMirror returns doctor's check of the mirror.
func (w *world) doctorMirror(flags ...string) check {
	w.t.Helper()
	return w.doctorCheck("mirror", flags...)
}

func TestMirrorPrintsSQL(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	delete(w.vars, "DATABASE_URL")
	m := clerkinvite.Mirror{
		Schema: "lib", Table: "app.admins", TenantID: "a", Email: "b", ClerkUserID: "c", Role: "d", Status: "e", MemberID: "f", LeftColumn: "g", LeftValue: "h",
		PresentValue: "i", Statuses: []clerkinvite.Status{clerkinvite.StatusPending, clerkinvite.StatusExpired},
	}
	all := []string{
		"mirror", "--schema", "lib", "--table", "app.admins", "--tenant-id", "a", "--email", "b", "--clerk-user-id", "c", "--role", "d", "--status", "e", "--member-id", "f",
		"--left-column", "g", "--left-value", "h", "--present-value", "i", "--statuses", "pending, expired",
	}
	up, err := m.Up()
	require.NoError(t, err)
	sync, err := m.Sync()
	require.NoError(t, err)
	down, err := m.Down()
	require.NoError(t, err)
	for want, flag := range map[string]string{up: "--json=false", up + "\n" + sync: "--sync", down: "--down"} {
		r := w.run(append(all, flag)...)
		require.Zero(t, r.code, r.stderr)
		require.Equal(t, want, r.stdout)
	}
	require.Equal(t, up, decode[map[string]string](t, w.run(append(all, "--json")...))["sql"])

	for wrong, flags := range map[string][]string{
		"--table must be": {"mirror"}, "--email must be": {"mirror", "--table", "admin_user", "--tenant-id", "x"}, "--left-value must be": append(adminFlags, "--left-value", "x"),
		"--down cannot": append(adminFlags, "--down", "--sync"), "--statuses must": append(adminFlags, "--statuses", "lost"),
	} {
		r := w.run(flags...)
		require.Equal(t, exitUsage, r.code)
		require.Contains(t, r.stderr, wrong)
		require.Empty(t, r.stdout)
	}
}

// Without a mirror, the command does not change members whose changes a hook should see.
func TestHookedMembersAreNotChanged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.exec(adminUser)
	hook := func(context.Context, pgx.Tx, []clerkinvite.Change) error { return nil }
	svc, err := clerkinvite.New(clerkinvite.Config{
		API: w.clerk, Store: clerkinvite.NewPgxStore(w.db.Pool(t), &clerkinvite.PgxOptions{OnChange: hook, Now: w.now}), Now: w.now,
	})
	require.NoError(t, err)
	require.NotContains(t, w.doctorMirror().Message, "OnChange")
	for _, email := range []string{"ada@example.com", "grace@example.com", "joan@example.com"} {
		_, err = svc.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: email})
		require.NoError(t, err)
	}
	require.Equal(t, checkOK, w.doctorMirror().Status)
	require.Contains(t, w.doctorMirror().Message, "OnChange")

	file := w.file("tenant,email\nacme,new@example.com\n")
	for _, args := range [][]string{{"revoke", "acme", "ada@example.com"}, {"resend", "acme", "ada@example.com"}, {"reconcile"}, {"import", file},
		{"adopt", w.file("tenant,email,clerk_user_id\nacme,new@example.com,user_1\n")}, {"remove", "acme", "ada@example.com"}, {"purge", "acme", "ada@example.com"}, {"deliver"}} {
		r := w.run(args...)
		require.Equal(t, exitRefused, r.code, r.stderr)
		require.Contains(t, r.stderr, "--without-hook")
		require.Equal(t, exitUsage, w.run("list", "acme", "--without-hook").code, "only commands that change members have the flag")
	}
	for _, args := range [][]string{{"show", "acme", "ada@example.com"}, {"list", "acme"}, {"reconcile", "--dry-run"}, {"import", file, "--dry-run"}} {
		require.Zero(t, w.run(args...).code, args)
	}
	require.Equal(t, clerkinvite.StatusPending, w.member("ada@example.com").Status)
	require.Zero(t, w.run("revoke", "acme", "ada@example.com", "--without-hook").code)

	w.mirror("--sync")
	require.Zero(t, w.run("revoke", "acme", "grace@example.com").code)
	require.Equal(t, checkOK, w.doctorMirror().Status)
	w.mirror("--down")
	require.Equal(t, exitRefused, w.run("revoke", "acme", "joan@example.com").code)
}

func TestDoctorComparesTheMirror(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.exec(adminUser)
	w.invite("ada@example.com")
	w.mirror()
	w.invite("grace@example.com")
	c := w.doctorMirror()
	require.Equal(t, checkFail, c.Status)
	require.Contains(t, c.Message, "1 row: ada@example.com in acme is missing")
	c = w.doctorMirror("--repair-mirror")
	require.Equal(t, checkOK, c.Status, c.Message)
	require.Contains(t, c.Message, "repaired")
	require.Equal(t, check{"mirror", checkOK, "admin_user is equal to the members", ""}, w.doctorMirror())

	w.exec(`UPDATE admin_user SET clerk_user_id = 'user_1' WHERE email = 'ada@example.com'`)
	w.exec(`CREATE UNIQUE INDEX ON admin_user (clerk_user_id); INSERT INTO admin_user SELECT 'acme', 'other@example.com', clerk_user_id FROM clerkinvite_member WHERE email = 'ada@example.com'`)
	c = w.doctorMirror("--repair-mirror")
	require.Equal(t, checkFail, c.Status)
	require.Contains(t, c.Message, "1 row: ada@example.com in acme is different; clerkinvite: the row of member ")
	require.Contains(t, c.Message, "admin_user_clerk_user_id_idx")
	require.Contains(t, c.Remedy, "in your table")
	w.exec(`DELETE FROM admin_user WHERE email = 'other@example.com'`)
	require.Equal(t, checkOK, w.doctorMirror("--repair-mirror").Status)

	// A spelling that the triggers do not find is reported before anyone leaves.
	w.exec(`UPDATE admin_user SET email = 'Grace@Example.com' WHERE email = 'grace@example.com'`)
	c = w.doctorMirror()
	require.Equal(t, checkFail, c.Status)
	require.Contains(t, c.Message, "1 row: Grace@Example.com in acme is not normalised")
	require.Contains(t, c.Remedy, "UPDATE admin_user SET email = lower(btrim(email))")
	c = w.doctorMirror("--repair-mirror")
	require.Equal(t, checkFail, c.Status)
	require.Contains(t, c.Message, "admin_user has addresses that are not normalised")
	w.exec(`UPDATE admin_user SET email = lower(email)`)
	require.Equal(t, checkOK, w.doctorMirror().Status)

	// Members who have exchanged addresses while there were no triggers.
	w.exec(`ALTER TABLE clerkinvite_member DISABLE TRIGGER USER;
		UPDATE clerkinvite_member SET email = 'x@example.com' WHERE email = 'ada@example.com'; UPDATE clerkinvite_member SET email = 'ada@example.com' WHERE email = 'grace@example.com';
		UPDATE clerkinvite_member SET email = 'grace@example.com' WHERE email = 'x@example.com'; ALTER TABLE clerkinvite_member ENABLE TRIGGER USER`)
	require.Contains(t, w.doctorMirror().Message, "2 rows")
	c = w.doctorMirror("--repair-mirror")
	require.Equal(t, checkOK, c.Status, c.Message)

	r := w.run("revoke", "acme", "ada@example.com")
	require.Zero(t, r.code, r.stderr)
	require.Equal(t, checkOK, w.doctorMirror().Status)
	w.exec(`INSERT INTO admin_user VALUES ('acme', 'ada@example.com', 'user_1')`)
	require.Contains(t, w.doctorMirror().Message, "ada@example.com in acme is left over")
	w.doctorMirror("--repair-mirror")

	// Rows of people who are not members. One of them has left, with another address than the row's.
	w.exec(`INSERT INTO admin_user SELECT 'acme', 'old@example.com', clerk_user_id FROM clerkinvite_history WHERE clerk_user_id IS NOT NULL AND member_id IN (SELECT id FROM clerkinvite_member WHERE email = 'ada@example.com') LIMIT 1;
		INSERT INTO admin_user VALUES ('acme', 'stranger@example.com', 'user_stranger')`)
	c = w.doctorMirror()
	require.Equal(t, checkFail, c.Status)
	require.Contains(t, c.Message, "old@example.com in acme is left over")
	require.Contains(t, c.Message, "stranger@example.com in acme is not a member")
	require.Contains(t, c.Remedy, "--repair-mirror")
	require.Contains(t, c.Remedy, "adopt the people")
	c = w.doctorMirror("--repair-mirror")
	require.Equal(t, checkWarn, c.Status)
	require.Equal(t, "repaired; admin_user differs from the members in 1 row: stranger@example.com in acme is not a member", c.Message)
	require.True(t, strings.HasPrefix(c.Remedy, "adopt the people"), c.Remedy)
	require.Zero(t, w.run("adopt", w.file("tenant,email,clerk_user_id\nacme,stranger@example.com,user_stranger\n")).code)
	require.Equal(t, checkOK, w.doctorMirror().Status)

	for _, broken := range []string{
		"ALTER TABLE clerkinvite_member DISABLE TRIGGER clerkinvite_mirror_update", "DROP TRIGGER clerkinvite_mirror ON clerkinvite_member",
		"COMMENT ON TRIGGER clerkinvite_mirror ON clerkinvite_member IS 'x'",
	} {
		w.exec(broken)
		c = w.doctorMirror()
		require.Equal(t, checkFail, c.Status)
		require.True(t, strings.HasPrefix(c.Message, "a trigger"), c.Message)
		w.mirror("--sync")
		w.exec("ALTER TABLE clerkinvite_member ENABLE TRIGGER USER")
		require.Equal(t, checkOK, w.doctorMirror().Status)
	}
	w.exec("ALTER TABLE admin_user RENAME clerk_user_id TO user_id")
	c = w.doctorMirror()
	require.Equal(t, checkFail, c.Status)
	require.Contains(t, c.Remedy, "admin_user")
}

// The mirrored table was dropped. Changes and doctor say so, with both remedies, and each remedy works.
func TestDroppedMirror(t *testing.T) {
	t.Parallel()
	for _, again := range []bool{true, false} {
		w := newWorld(t)
		w.exec(adminUser)
		w.invite("ada@example.com")
		w.mirror("--sync")
		w.exec(`DROP TABLE admin_user`)
		r := w.run("revoke", "acme", "ada@example.com")
		require.Equal(t, exitFailed, r.code)
		require.Contains(t, r.stderr, "the mirrored table admin_user does not exist: create it again")
		require.Contains(t, r.stderr, "mirror … --down")
		c := w.doctorMirror()
		require.Equal(t, []any{checkFail, "the mirrored table admin_user does not exist"}, []any{c.Status, c.Message})
		require.Contains(t, r.stderr, c.Remedy)
		if again {
			w.exec(adminUser)
			require.Equal(t, checkOK, w.doctorMirror("--repair-mirror").Status)
		} else {
			w.mirror("--down")
		}
		require.Zero(t, w.run("revoke", "acme", "ada@example.com").code)
	}
}
