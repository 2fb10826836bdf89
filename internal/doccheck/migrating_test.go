package doccheck_test

import (
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// migratingSQL is the SQL of docs/migrating.md, by its purpose.
type migratingSQL struct {
	list, source, decide, count, skipped, loose, load, missing, extra, correct, uncorrected, expire, lock, late, drop string
}

func readMigratingSQL(t *testing.T) (sql migratingSQL) {
	t.Helper()
	blocks := sqlBlocks(t, "docs/migrating.md")
	targets := []*string{
		&sql.list, &sql.source, &sql.decide, &sql.count, &sql.skipped, &sql.loose, &sql.load, &sql.missing, &sql.extra,
		&sql.correct, &sql.uncorrected, &sql.expire, &sql.lock, &sql.late, &sql.drop,
	}
	require.Len(t, blocks, len(targets))
	for i, block := range blocks {
		*targets[i] = block
	}
	return sql
}

// oldTable is a host's table from before the library, and the fake Clerk with its invitations and users.
type oldTable struct {
	pool  *pgxpool.Pool
	clerk *clerkinvitetest.Clerk
	sql   migratingSQL
}

func newOldTable(t *testing.T) *oldTable {
	t.Helper()
	pool := pgtest.New(t).Pool(t)
	require.NoError(t, clerkinvite.NewPgxStore(pool, nil).Migrate(t.Context()))
	_, err := pool.Exec(t.Context(), `CREATE TABLE admin_user (
		id serial PRIMARY KEY, email text, clerk_user_id text, tenant_id text, created_at timestamptz DEFAULT now(), UNIQUE (tenant_id, email))`)
	require.NoError(t, err)
	o := &oldTable{pool, clerkinvitetest.NewClerk(), readMigratingSQL(t)}
	o.exec(t, o.sql.list)
	o.exec(t, o.sql.source)
	o.exec(t, o.sql.decide)
	return o
}

// acmeMembers returns functions for members of the tenant acme, by the first part of their addresses.
func acmeMembers(t *testing.T, svc *clerkinvite.Service) (ref func(name string) clerkinvite.Ref, get func(name string) *clerkinvite.Member) {
	t.Helper()
	ref = func(name string) clerkinvite.Ref { return testkit.Acme(name + "@example.com") }
	return ref, func(name string) *clerkinvite.Member {
		t.Helper()
		m, err := svc.Get(t.Context(), ref(name))
		require.NoError(t, err)
		return m
	}
}

// fetch is the script of step 4: Clerk's list of open invitations.
func (o *oldTable) fetch(t *testing.T) {
	t.Helper()
	list, err := o.clerk.ListInvitations(t.Context(), clerkinvite.InvitationQuery{Status: clerkinvite.InvitationPending, Limit: 500})
	require.NoError(t, err)
	o.exec(t, `TRUNCATE clerkinvite_import_open`)
	for _, inv := range list {
		_, err := o.pool.Exec(t.Context(), `INSERT INTO clerkinvite_import_open VALUES ($1, $2, $3, $4)`,
			inv.ID, inv.Email, inv.CreatedAt.UnixMilli(), inv.ExpiresAt.UnixMilli())
		require.NoError(t, err)
	}
}

// column returns the named column of a query's result.
func (o *oldTable) column(t *testing.T, sql, name string) []string {
	t.Helper()
	return testkit.QueryOne[[]string](t, o.pool, `SELECT coalesce(array_agg(`+name+`::text ORDER BY `+name+`), '{}') FROM (`+strings.TrimSuffix(sql, ";")+`) AS q`)
}

func (o *oldTable) exec(t *testing.T, sql string) int64 {
	t.Helper()
	tag, err := o.pool.Exec(t.Context(), sql) // without parameters, so several statements at once
	require.NoError(t, err)
	return tag.RowsAffected()
}

// row writes a row as the old code did.
func (o *oldTable) row(t *testing.T, tenant, email string, userID any, age time.Duration) {
	t.Helper()
	_, err := o.pool.Exec(t.Context(), `INSERT INTO admin_user (tenant_id, email, clerk_user_id, created_at) VALUES ($1, $2, $3, $4)`,
		tenant, email, userID, time.Now().Add(-age))
	require.NoError(t, err)
}

// back makes something happen at Clerk in the past.
func (o *oldTable) back(age time.Duration, f func()) {
	o.clerk.SetNow(func() time.Time { return time.Now().Add(-age) })
	defer o.clerk.SetNow(time.Now)
	f()
}

// invited invites as the old code did: an invitation without a marker, and a row with its ID.
func (o *oldTable) invited(t *testing.T, tenant, email string, age time.Duration) (id string) {
	t.Helper()
	o.back(age, func() { id = o.clerk.CreateForeign(strings.ToLower(strings.TrimSpace(email)), nil).ID })
	o.row(t, tenant, email, clerkinvite.PendingID(id), age)
	return id
}

// skipped returns why rows are not imported, by their address.
func (o *oldTable) skipped(t *testing.T) map[string]string {
	t.Helper()
	rows, err := o.pool.Query(t.Context(), o.sql.skipped)
	require.NoError(t, err)
	why := make(map[string]string)
	var id, reason string
	var tenant, email, userID *string
	_, err = pgx.ForEachRow(rows, []any{&id, &tenant, &email, &userID, &reason}, func() error {
		key, _, _ := strings.Cut(reason, ":")
		if email == nil {
			key, email = "no address", new(string)
		}
		why[*email] = key
		return nil
	})
	require.NoError(t, err)
	return why
}

// tables returns everything in the library's tables, for a comparison.
func (o *oldTable) tables(t *testing.T) string {
	t.Helper()
	return testkit.QueryOne[string](t, o.pool, `SELECT (SELECT json_agg(m ORDER BY tenant_id, email)::text FROM clerkinvite_member m)
		|| (SELECT json_agg(h ORDER BY tenant_id, member_id, version)::text FROM clerkinvite_history h)`)
}

// mirrorOf returns the hook of examples/mirror, with its statements.
func mirrorOf(t *testing.T) func(context.Context, pgx.Tx, []clerkinvite.Change) error {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "examples/mirror/main.go", nil, 0)
	require.NoError(t, err)
	sql := make(map[string]string)
	ast.Inspect(file, func(n ast.Node) bool {
		if value, ok := n.(*ast.ValueSpec); ok && len(value.Values) == 1 {
			sql[value.Names[0].Name], _ = stringOf(value.Values[0])
		}
		return true
	})
	for _, name := range []string{"joinSQL", "leaveSQL", "eraseSQL"} {
		require.NotEmpty(t, sql[name])
	}
	return func(ctx context.Context, tx pgx.Tx, changes []clerkinvite.Change) error {
		for _, c := range changes {
			was, is := "", ""
			if c.Old != nil {
				was = c.Old.ClerkUserID
			}
			if c.New != nil {
				is = c.New.ClerkUserID
			}
			m, statement, more := c.New, sql["joinSQL"], []any{[]string{is}}
			switch {
			case c.New == nil:
				m, statement, more = c.Old, sql["eraseSQL"], nil
			case is == was:
				continue
			case is == "":
				statement, more = sql["leaveSQL"], nil
			}
			if _, err := tx.Exec(ctx, statement, append([]any{[]string{m.TenantID}, []string{m.Email}}, more...)...); err != nil {
				return err
			}
		}
		return nil
	}
}

// rows returns the members without the fields that differ in each run.
func (o *oldTable) rows(t *testing.T) string {
	t.Helper()
	return testkit.QueryOne[string](t, o.pool, `SELECT json_agg(to_jsonb(m) - 'id' - 'updated_at' ORDER BY tenant_id, email)::text
		FROM clerkinvite_member m WHERE email NOT LIKE 'time%'`) // whose time is that of the import
}

const day = 24 * time.Hour

// docs/migrating.md is right about rows of every kind: after the import, after Reconcile,
// and when people accept, get another invitation, or are revoked.
func TestMigratingAnOldTable(t *testing.T) {
	t.Parallel()
	o := newOldTable(t)
	clerk := o.clerk
	members := map[string]clerkinvite.Status{} // what the import makes of "acme"

	// Open invitations.
	for _, name := range []string{"ada", "resend", "revoke", "late", "other", "twice", "purge", "dashboard"} {
		o.invited(t, "acme", name+"@example.com", day)
		members[name+"@example.com"] = clerkinvite.StatusPending
	}
	o.invited(t, "globex", "ada@example.com", 2*day) // the same person in another tenant
	// Users, with the address as it was typed.
	grace := clerk.AddVerifiedUser("grace@example.com")
	o.row(t, "acme", " Grace@Example.COM\n", grace.ID, 50*day)
	members["grace@example.com"] = clerkinvite.StatusActive
	o.row(t, "acme", "gone@example.com", "user_9gone", 50*day)
	members["gone@example.com"] = clerkinvite.StatusActive
	// Duplicates that differ in case: the user and the newer invitation win.
	bob := clerk.AddVerifiedUser("bob@example.com")
	bobs := o.invited(t, "acme", "Bob@example.com", day)
	o.row(t, "acme", "bob@example.com", bob.ID, 20*day)
	members["bob@example.com"] = clerkinvite.StatusActive
	older := o.invited(t, "acme", "eve@example.com", 9*day)
	newer := o.invited(t, "acme", "EVE@example.com", 3*day)
	members["eve@example.com"] = clerkinvite.StatusPending
	// One user, two addresses.
	uma := clerk.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{
		{Address: "uma@example.com", Verified: true}, {Address: "uma@home.example.com", Verified: true},
	}})
	o.row(t, "acme", "uma@example.com", uma.ID, 40*day)
	o.row(t, "acme", "uma@home.example.com", uma.ID, 30*day)
	members["uma@example.com"] = clerkinvite.StatusActive
	// Accepted long ago by a new user, by an existing user, and not accepted.
	carl := o.invited(t, "acme", "carl@example.com", 200*day)
	o.back(190*day, func() { _, err := clerk.AcceptInvitation(carl); require.NoError(t, err) })
	var fred clerkinvite.User
	o.back(300*day, func() {
		fred = clerk.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{{Address: "fred@example.com"}}})
	})
	accepted := o.invited(t, "acme", "fred@example.com", 200*day)
	o.back(190*day, func() { _, err := clerk.AcceptInvitation(accepted); require.NoError(t, err) })
	o.invited(t, "acme", "dora@example.com", 200*day)
	o.invited(t, "acme", "ruth@example.com", 200*day)
	for _, name := range []string{"carl", "fred", "dora", "ruth"} {
		members[name+"@example.com"] = clerkinvite.StatusPending
	}
	// Without a time, and with a time in the future.
	undated := clerk.CreateForeign("undated@example.com", nil).ID
	_, err := o.pool.Exec(t.Context(), `INSERT INTO admin_user (tenant_id, email, clerk_user_id, created_at) VALUES ('acme', 'undated@example.com', $1, NULL)`, clerkinvite.PendingID(undated))
	require.NoError(t, err)
	members["undated@example.com"] = clerkinvite.StatusPending
	future := clerk.CreateForeign("future@example.com", nil).ID
	o.row(t, "acme", "future@example.com", clerkinvite.PendingID(future), -90*day)
	members["future@example.com"] = clerkinvite.StatusPending
	// With impossible times.
	for i, at := range []string{"-infinity", "infinity", "0001-01-01 00:00Z"} {
		email := fmt.Sprintf("time%d@example.com", i)
		o.exec(t, fmt.Sprintf(`INSERT INTO admin_user (tenant_id, email, clerk_user_id, created_at) VALUES ('acme', '%s', 'pending_inv_time%d', '%s')`, email, i, at))
		members[email] = clerkinvite.StatusPending
	}
	// Rows that cannot be members.
	why := map[string]string{
		"Bob@example.com": "duplicate", "eve@example.com": "duplicate", "uma@home.example.com": "duplicate",
		"nobody@example.com": "clerk_user_id", "empty@example.com": "clerk_user_id", "bare@example.com": "clerk_user_id",
		"odd@example.com": "clerk_user_id", "case@example.com": "clerk_user_id",
		"no tenant@example.com": "tenant_id", "notenant@example.com": "tenant_id", "long@example.com": "tenant_id", "control@example.com": "tenant_id",
	}
	delete(why, "no tenant@example.com")
	o.row(t, "acme", "nobody@example.com", nil, day)
	o.row(t, "acme", "empty@example.com", "", day)
	o.row(t, "acme", "bare@example.com", "pending_", day)
	o.row(t, "acme", "odd@example.com", "user_1 ", day)
	o.row(t, "acme", "case@example.com", "Pending_inv_1", day)
	o.row(t, "", "notenant@example.com", "user_t1", day)
	o.row(t, strings.Repeat("é", 128), "long@example.com", "user_t2", day)
	o.row(t, "ac\tme", "control@example.com", "user_t3", day)
	june := clerk.AddVerifiedUser("june@xn--bcher-kva.example.com")
	o.row(t, "acme", "june@Bücher.example.com", june.ID, day)
	why["june@Bücher.example.com"] = "email"
	for i, email := range []string{"", "kim", "kim@", "@example.com", "kim@example", "a kim@example.com", "kim@a@example.com", "kim@example.com.", "kim..k@example.com",
		"kim@-a.example.com", "kim@ab--c.example.com", "kim@xn--bcher-kva.example.com", "jörg@example.com", "\u212aim@example.com", "\u00a0kim@example.com",
		`"kim"@example.com`, "kim@example.com\nx@example.com", strings.Repeat("k", 65) + "@example.com", "kim@" + strings.Repeat("k", 64) + ".example.com",
		"kim@" + strings.Repeat("k.", 130) + "example.com", "kim@exa_mple.com"} {
		o.row(t, "acme", email, fmt.Sprintf("user_e%d", i), day)
		why[email] = "email"
	}
	emails := clerk.Emails()

	// 2 and 3: look.
	require.Equal(t, why, o.skipped(t))
	rows, err := o.pool.Query(t.Context(), o.sql.count)
	require.NoError(t, err)
	counts := map[string]int{}
	var verdict, reason string
	var n int
	_, err = pgx.ForEachRow(rows, []any{&verdict, &reason, &n}, func() error { counts[verdict] += n; return nil })
	require.NoError(t, err)
	require.Equal(t, map[string]int{"active": 4, "pending": len(members) - 4 + 1, "skip": len(why)}, counts)

	// 4: import. A rehearsal leaves nothing.
	o.fetch(t)
	require.Equal(t, []string{bobs, older}, o.column(t, o.sql.loose, "id"))
	o.exec(t, strings.Replace(o.sql.load, "COMMIT;", "ROLLBACK;", 1))
	require.Zero(t, testkit.QueryOne[int](t, o.pool, `SELECT count(*) FROM clerkinvite_member`))
	require.Len(t, o.column(t, o.sql.missing, "old_id"), len(members)+1, "finds missing people")
	o.exec(t, o.sql.load)
	first := o.rows(t)
	o.exec(t, o.sql.load)
	require.JSONEq(t, first, o.rows(t), "a second time changes nothing")
	require.Empty(t, o.column(t, o.sql.missing, "old_id"))
	require.Empty(t, o.column(t, o.sql.extra, "email"))
	imported := o.tables(t)
	require.EqualValues(t, 1, o.exec(t, o.sql.correct), "grace")
	require.EqualValues(t, 1, o.exec(t, o.sql.uncorrected), "eve: her duplicate has the address")
	o.exec(t, `DELETE FROM admin_user WHERE email = 'eve@example.com'`)
	require.EqualValues(t, 1, o.exec(t, o.sql.correct))
	require.Zero(t, o.exec(t, o.sql.uncorrected))
	require.Equal(t, imported, o.tables(t))

	store := clerkinvite.NewPgxStore(o.pool, &clerkinvite.PgxOptions{OnChange: mirrorOf(t)})
	svc, err := clerkinvite.New(clerkinvite.Config{API: testkit.Adapter(t, testkit.Serve(t, clerk)), Store: store})
	require.NoError(t, err)
	ref, get := acmeMembers(t, svc)
	last := ""
	for m, err := range svc.All(t.Context(), clerkinvite.ListParams{TenantID: "acme"}) {
		require.NoError(t, err)
		require.Equal(t, members[m.Email], m.Status, m.Email)
		delete(members, m.Email)
		require.Equal(t, "7", m.ID[14:15], "the version of the UUID")
		require.Less(t, last, m.ID, "in the order of the ids")
		last = m.ID
		require.False(t, m.ReservedAt.After(time.Now()), m.Email)
		require.Equal(t, []int{1, 1}, []int{m.Send, m.Sent})
		require.JSONEq(t, `{"expires_in_days":30}`, string(m.Params))
		if m.Status == clerkinvite.StatusPending {
			require.WithinDuration(t, m.InvitedAt.Add(30*day), *m.ExpiresAt, 2*time.Hour, "with or without summer time")
		}
		moves, err := svc.History(t.Context(), m.Ref())
		require.NoError(t, err)
		require.Len(t, moves, 1)
		require.Equal(t, "imported", moves[0].Reason)
		require.Equal(t, m.Status, moves[0].To)
	}
	require.Empty(t, members)
	require.Equal(t, clerkinvite.PendingID(newer), get("eve").ClerkUserID)
	require.Less(t, get("carl").ID, get("ada").ID, "in the order of invitations")

	// 5: Reconcile. The dry run changes nothing and reports the same numbers.
	before := o.tables(t)
	dry, err := svc.Reconcile(t.Context(), &clerkinvite.ReconcileOptions{DryRun: true})
	require.NoError(t, err)
	require.Equal(t, before, o.tables(t))
	report, err := svc.Reconcile(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, dry, report)
	require.Equal(t, []int{1, 1, 2, 0, 0, 0, 0}, []int{report.Activated, report.Removed, report.Expired, report.Revoked, report.LeftOver, report.Unknown, report.Newer})
	require.Empty(t, report.AcceptedElsewhere)
	require.Equal(t, clerkinvite.StatusActive, get("carl").Status, "accepted long ago")
	require.Equal(t, clerkinvite.ReasonUserDeleted, get("gone").Reason)
	require.Equal(t, clerkinvite.StatusActive, get("grace").Status)
	require.Equal(t, clerkinvite.StatusPending, get("fred").Status, "Reconcile cannot distinguish this from a stranger's account")
	require.Len(t, clerk.OpenInvitations("eve@example.com"), 2, "invitations without a marker are not revoked")

	// 6: expired invitations.
	require.EqualValues(t, 1, o.exec(t, o.sql.expire)) // fred; Reconcile has expired dora and ruth
	require.Zero(t, o.exec(t, o.sql.expire))
	require.Equal(t, clerkinvite.StatusExpired, get("dora").Status)
	moves, err := svc.History(t.Context(), ref("dora"))
	require.NoError(t, err)
	require.Equal(t, []clerkinvite.Status{"", clerkinvite.StatusPending}, []clerkinvite.Status{moves[0].From, moves[1].From})
	require.Equal(t, moves[1].Version, get("dora").Version)
	resolved, err := svc.ResolveUser(t.Context(), fred.ID)
	require.NoError(t, err)
	require.Len(t, resolved, 1, "at the next sign-in")
	require.Equal(t, clerkinvite.StatusActive, get("fred").Status)
	require.Equal(t, emails, clerk.Emails(), "no email so far")

	o.exec(t, o.sql.lock)
	o.liveOn(t, svc, older)

	// 8: the old table is in sync, in its existing rows.
	require.Zero(t, testkit.QueryOne[int](t, o.pool, `SELECT count(*) FROM clerkinvite_member m WHERE clerk_user_id IS NOT NULL AND NOT EXISTS (
		SELECT FROM admin_user a WHERE a.tenant_id = m.tenant_id AND a.email = m.email AND a.clerk_user_id = m.clerk_user_id)`))
	require.Equal(t, "june@xn--bcher-kva.example.com", testkit.QueryOne[string](t, o.pool, `SELECT string_agg(email, ' ') FROM admin_user WHERE created_at > now() - interval '1 hour' AND created_at < now()`),
		"a new row, for an address that the page says to correct before")
	o.exec(t, o.sql.drop)
}

// liveOn checks the table of docs/migrating.md about what the verbs do with imported members.
func (o *oldTable) liveOn(t *testing.T, svc *clerkinvite.Service, older string) {
	t.Helper()
	clerk := o.clerk
	ref := func(name string) clerkinvite.Ref {
		return clerkinvite.Ref{TenantID: "acme", Email: name + "@example.com"}
	}
	status := func(name string) clerkinvite.Status {
		t.Helper()
		m, err := svc.Get(t.Context(), ref(name))
		require.NoError(t, err)
		return m.Status
	}
	invite := func(name string) (*clerkinvite.Member, error) {
		return svc.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: ref(name).Email})
	}
	webhook := func(w clerkinvitetest.Webhook, err error) int {
		t.Helper()
		require.NoError(t, err)
		event, err := clerkinvite.ParseEvent(w.Payload)
		require.NoError(t, err)
		changed, err := svc.HandleEvent(t.Context(), event)
		require.NoError(t, err)
		return len(changed)
	}
	var duplicate *clerkinvite.DuplicateEmailError
	var illegal *clerkinvite.TransitionError

	require.Equal(t, 2, webhook(clerk.Accept("ada@example.com")), "accepted: active in both tenants")
	require.Equal(t, clerkinvite.StatusActive, status("ada"))

	_, err := invite("late")
	require.ErrorAs(t, err, &duplicate, "an open invitation")
	member, err := invite("ruth")
	require.NoError(t, err, "an expired one")
	require.Equal(t, []any{clerkinvite.StatusPending, 2}, []any{member.Status, member.Send})
	require.Equal(t, 1, clerk.EmailsTo("ruth@example.com"))

	before := clerk.OpenInvitations("resend@example.com")
	member, err = svc.Resend(t.Context(), ref("resend"))
	require.NoError(t, err)
	require.Len(t, before, 1)
	open := clerk.OpenInvitations("resend@example.com")
	require.Len(t, open, 1, "the older link is revoked")
	require.Equal(t, member.InvitationID, open[0].ID)
	require.NotEqual(t, before[0].ID, open[0].ID)
	require.Equal(t, 1, clerk.EmailsTo("resend@example.com"))
	require.Equal(t, 1, webhook(clerk.Accept("resend@example.com")))

	member, err = svc.Revoke(t.Context(), ref("revoke"))
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusRevoked, member.Status)
	require.Empty(t, clerk.OpenInvitations("revoke@example.com"), "by the row's ID")
	member, err = invite("revoke")
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusPending, member.Status)
	require.Len(t, clerk.OpenInvitations("revoke@example.com"), 1)

	_, err = clerk.Accept("late@example.com") // its webhook is lost
	require.NoError(t, err)
	_, err = svc.Revoke(t.Context(), ref("late"))
	require.ErrorAs(t, err, &illegal, "accepted before it was revoked")
	require.Equal(t, clerkinvite.StatusActive, status("late"))

	require.NoError(t, svc.Purge(t.Context(), ref("purge")))
	require.Empty(t, clerk.OpenInvitations("purge@example.com"))
	_, err = svc.Get(t.Context(), ref("purge"))
	require.ErrorIs(t, err, clerkinvite.ErrNotFound)

	// What Reconcile does not see without the marker.
	clerk.RevokeInDashboard(clerk.OpenInvitations("dashboard@example.com")[0].ID)
	_, err = clerk.AcceptAs("other@example.com", "private@example.com")
	require.NoError(t, err)
	report, err := svc.Reconcile(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, report.AcceptedElsewhere)
	require.Zero(t, report.Activated+report.Removed+report.Expired+report.Revoked+report.LeftOver+report.Unknown+report.Newer)
	require.Equal(t, clerkinvite.StatusPending, status("dashboard"))
	require.Equal(t, clerkinvite.StatusPending, status("other"))
	_, err = svc.Resend(t.Context(), ref("dashboard"))
	require.NoError(t, err, "the remedy")

	// The duplicate that was not imported still has its link.
	w, err := clerk.AcceptInvitation(older)
	require.Equal(t, 1, webhook(w, err))
	require.Equal(t, clerkinvite.StatusActive, status("eve"))

	// People whose address only the library can normalise.
	member, err = svc.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "june@Bücher.example.com"})
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusActive, member.Status)
	require.Zero(t, clerk.EmailsTo(member.Email))
}

// Until the switch, each run brings the members up to date with the old table, whatever earlier runs left. The times
// are Clerk's where Clerk knows them. The import can be rolled back.
func TestMigratingASecondTime(t *testing.T) {
	t.Parallel()
	o := newOldTable(t)
	svc, err := clerkinvite.New(clerkinvite.Config{API: o.clerk, Store: clerkinvite.NewPgxStore(o.pool, nil), ResendCooldown: -1})
	require.NoError(t, err)
	ref, get := acmeMembers(t, svc)
	reinvited := func(name string, age time.Duration) (id string) {
		o.back(age, func() { id = o.clerk.CreateForeign(ref(name).Email, nil).ID })
		_, err := o.pool.Exec(t.Context(), `UPDATE admin_user SET clerk_user_id = $1 WHERE tenant_id = 'acme' AND email = $2`, clerkinvite.PendingID(id), ref(name).Email)
		require.NoError(t, err)
		return id
	}
	o.exec(t, strings.NewReplacer("CREATE VIEW", "CREATE OR REPLACE VIEW", "    30  ", "    10  ").Replace(o.sql.source)) // it was 30
	o.invited(t, "acme", "again@example.com", 45*day)
	again := reinvited("again", 5*day) // by an UPDATE that leaves created_at
	o.invited(t, "acme", "over@example.com", 45*day)
	o.row(t, "acme", "gone@example.com", o.clerk.AddVerifiedUser("gone@example.com").ID, 60*day)
	o.row(t, "closed", "gone@example.com", o.clerk.AddVerifiedUser("gone@example.com").ID, 60*day)
	dead := o.invited(t, "acme", "two@example.com", 3*day)
	joins := o.invited(t, "acme", "joins@example.com", 3*day)
	o.invited(t, "acme", "stays@example.com", 3*day)
	open := o.invited(t, "acme", "Double@example.com", 4*day)
	o.clerk.RevokeInDashboard(o.invited(t, "acme", "double@example.com", 2*day))

	// Without the list, times are computed, and nothing is expired because of them.
	o.exec(t, o.sql.load)
	require.True(t, get("again").ExpiresAt.Before(time.Now()), "computed")
	require.Zero(t, o.exec(t, o.sql.expire))
	// With a list that came too late, only invitations that Clerk does not list are expired.
	o.fetch(t)
	require.EqualValues(t, 1, o.exec(t, o.sql.expire))
	require.Equal(t, []clerkinvite.Status{clerkinvite.StatusExpired, clerkinvite.StatusPending}, []clerkinvite.Status{get("over").Status, get("again").Status})
	_, err = o.clerk.AcceptInvitation(joins)
	require.NoError(t, err)
	report, err := svc.Reconcile(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, 1, report.Activated)

	// The old code continues: it removes, and invites again.
	o.exec(t, `DELETE FROM admin_user WHERE email IN ('gone@example.com', 'joins@example.com')`)
	o.clerk.RevokeInDashboard(dead)
	two := reinvited("two", 0)
	require.Len(t, o.column(t, o.sql.missing, "old_id"), 2, "two and double")
	require.Len(t, o.column(t, o.sql.extra, "email"), 3)
	o.fetch(t)
	o.exec(t, o.sql.load)
	require.Empty(t, o.column(t, o.sql.missing, "old_id"))
	require.Equal(t, []string{"closed"}, o.column(t, o.sql.extra, "tenant_id"), "the old table has no row of it")
	for _, name := range []string{"gone", "joins"} {
		_, err = svc.Get(t.Context(), ref(name))
		require.ErrorIs(t, err, clerkinvite.ErrNotFound)
	}
	require.Equal(t, two, get("two").InvitationID)
	require.Equal(t, again, get("again").InvitationID)
	require.Equal(t, open, get("double").InvitationID, "the open one, not the newer one")
	require.WithinDuration(t, time.Now().Add(25*day), *get("again").ExpiresAt, 2*time.Hour, "Clerk's own")
	require.EqualValues(t, 1, o.exec(t, o.sql.expire), "over")
	for _, name := range []string{"two", "again"} {
		_, err = svc.Revoke(t.Context(), ref(name))
		require.NoError(t, err)
		require.Empty(t, o.clerk.OpenInvitations(ref(name).Email))
	}
	require.Zero(t, o.clerk.Emails())

	// Roll back, including members that step 5 has changed, but not members of tenants outside the view or invited by the library.
	_, err = svc.Resend(t.Context(), ref("stays"))
	require.NoError(t, err)
	_, remove, _ := strings.Cut(o.sql.load, "-- Delete what an earlier run has created.")
	remove, _, _ = strings.Cut(remove, ";")
	o.exec(t, remove)
	require.Equal(t, []string{"gone@example.com", "stays@example.com"}, o.column(t, `SELECT email FROM clerkinvite_member`, "email"))

	// With a wrong time and a wrong list, Purge still revokes the row's invitation.
	o.invited(t, "acme", "stale@example.com", 45*day)
	reinvited("stale", day)
	o.exec(t, `TRUNCATE clerkinvite_import_open; INSERT INTO clerkinvite_import_open VALUES ('none')`)
	o.exec(t, o.sql.load)
	require.EqualValues(t, 3, o.exec(t, o.sql.expire), "again, over and stale")
	require.Len(t, o.clerk.OpenInvitations("stale@example.com"), 1)
	_, err = svc.Revoke(t.Context(), ref("stale"))
	require.NoError(t, err)
	require.Empty(t, o.clerk.OpenInvitations("stale@example.com"))
	o.exec(t, `DELETE FROM admin_user WHERE email = 'stale@example.com'`)

	// The switch. After it, an old process invites "late", and "stays" again.
	o.fetch(t)
	o.exec(t, o.sql.load)
	o.exec(t, o.sql.lock)
	_, err = o.pool.Exec(t.Context(), o.sql.load)
	require.ErrorContains(t, err, "clerkinvite_import", "cannot run any more")
	require.Empty(t, o.column(t, o.sql.late, "email"))
	_, err = svc.Revoke(t.Context(), ref("stays"))
	require.NoError(t, err)
	_, err = svc.Resend(t.Context(), ref("two"))
	require.NoError(t, err)
	require.Empty(t, o.column(t, o.sql.late, "email"), "the library's own changes do not count")
	o.invited(t, "acme", "late@example.com", 0)
	reinvited("stays", 0)
	require.Equal(t, []string{"late@example.com", "stays@example.com"}, o.column(t, o.sql.late, "email"))
	require.Equal(t, []string{"revoked"}, o.column(t, `SELECT status FROM (`+strings.TrimSuffix(o.sql.late, ";")+`) AS l WHERE status IS NOT NULL`, "status"))
	o.exec(t, o.sql.drop)
}

// The page's SQL imports an address only in the library's form.
func TestMigratingNormalisesAsTheLibraryDoes(t *testing.T) {
	t.Parallel()
	o := newOldTable(t)
	good, odd := []rune("aZ0k-"), []rune("aZ0k.-_+@@..'\"!`{ \t\u00a0\u212aßİé\\xn--")
	some := func(n int) (s string) {
		letters := good
		for range 1 + rand.N(n) {
			if rand.N(8) == 0 {
				letters = odd
			}
			s += string(letters[rand.N(len(letters))])
		}
		return s
	}
	var emails []string
	for range 3000 {
		local, domain := some(4), some(5)
		emails = append(emails, local+"@"+domain+[]string{"example.com", ".Example.com", ".xn--a.example.com", ".ab--c.example.com"}[rand.N(4)])
	}
	_, err := o.pool.Exec(t.Context(), `INSERT INTO admin_user (tenant_id, email, clerk_user_id)
		SELECT 'tenant ' || n, email, 'user_' || n FROM unnest($1::text[]) WITH ORDINALITY AS x (email, n)`, emails)
	require.NoError(t, err)
	o.exec(t, o.sql.load)
	require.Zero(t, o.exec(t, o.sql.missing))

	// The library's form of each, in a temporary store.
	svc, err := clerkinvite.New(clerkinvite.Config{API: clerkinvitetest.NewClerk(), Store: clerkinvitetest.NewMemoryStore()})
	require.NoError(t, err)
	people := make([]clerkinvite.InviteParams, len(emails))
	for i, email := range emails {
		people[i] = clerkinvite.InviteParams{TenantID: fmt.Sprintf("tenant %d", i+1), Email: email}
	}
	results, err := svc.ReserveMany(context.WithoutCancel(t.Context()), people)
	require.NoError(t, err)
	rows, err := o.pool.Query(t.Context(), `SELECT substr(tenant_id, 8)::integer, email FROM clerkinvite_member`)
	require.NoError(t, err)
	var n, imported int
	var email string
	_, err = pgx.ForEachRow(rows, []any{&n, &email}, func() error {
		imported++
		require.NoError(t, results[n-1].Err, "imported %q", emails[n-1])
		require.Equal(t, results[n-1].Member.Email, email)
		return nil
	})
	require.NoError(t, err)
	require.Greater(t, imported, 100)
}

// The script in docs/migrating.md that fetches Clerk's list, unchanged.
func TestMigratingFetchesTheListOfOpenInvitations(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"bash", "curl", "jq", "psql"} {
		if _, err := exec.LookPath(tool); err != nil {
			pgtest.Missing(t, tool, "the script of docs/migrating.md needs "+tool+": install it")
		}
	}
	db := pgtest.New(t)
	pool := db.Pool(t)
	_, err := pool.Exec(t.Context(), readMigratingSQL(t).list)
	require.NoError(t, err)
	_, err = pool.Exec(t.Context(), `INSERT INTO clerkinvite_import_open VALUES ('of an earlier time')`)
	require.NoError(t, err)
	clerk := clerkinvitetest.NewClerk()
	var last clerkinvite.Invitation
	for i := range 501 {
		last = clerk.CreateForeign(fmt.Sprintf("p%d@example.com", i), nil)
	}
	script := ""
	for _, match := range fencedBlock.FindAllStringSubmatch(readPage(t, "docs/migrating.md"), -1) {
		if match[1] == "sh" {
			script += match[2]
		}
	}
	run := func(url string) error {
		cmd := exec.CommandContext(t.Context(), "bash", "-c", script) // #nosec G204 -- the page's
		cmd.Dir = t.TempDir()
		cmd.Env = append(os.Environ(), "DATABASE_URL="+db.DSN, "CLERK_SECRET_KEY=sk_test_1", "CLERK_API_URL="+url)
		output, err := cmd.CombinedOutput()
		t.Logf("%s", output)
		return err
	}
	url := testkit.Serve(t, clerk)
	require.NoError(t, run(url))
	rows := func() []any {
		return []any{
			testkit.QueryOne[int](t, pool, `SELECT count(*) FROM clerkinvite_import_open`), testkit.QueryOne[int64](t, pool, `SELECT max(created_at) FROM clerkinvite_import_open`),
			testkit.QueryOne[int64](t, pool, `SELECT expires_at FROM clerkinvite_import_open WHERE email = 'p500@example.com'`),
		}
	}
	require.Equal(t, []any{501, last.CreatedAt.UnixMilli(), last.ExpiresAt.UnixMilli()}, rows())
	clerk.SetSecretKey("sk_test_2")
	require.Error(t, run(url))
	require.Equal(t, 501, rows()[0], "a list that could not be fetched changes nothing")
}

// A later Resend sends Clerk the same parameters as Invite would.
func TestMigratingChecksTheParametersOfAResend(t *testing.T) {
	t.Parallel()
	o := newOldTable(t)
	source := strings.NewReplacer("NULL::text          AS redirect_url", "url AS redirect_url", "    30                  AS expires", "days AS expires").Replace(o.sql.source)
	o.exec(t, `ALTER TABLE admin_user ADD COLUMN url text, ADD COLUMN days integer DEFAULT 30; `+strings.Replace(source, "CREATE VIEW", "CREATE OR REPLACE VIEW", 1))
	svc, err := clerkinvite.New(clerkinvite.Config{API: o.clerk, Store: clerkinvitetest.NewMemoryStore()})
	require.NoError(t, err)
	add := func(url any, days int) (imported bool) {
		t.Helper()
		o.exec(t, `DELETE FROM admin_user`)
		_, err := o.pool.Exec(t.Context(), `INSERT INTO admin_user (tenant_id, email, clerk_user_id, url, days) VALUES ('acme', 'ada@example.com', 'user_1', $1, $2)`, url, days)
		require.NoError(t, err)
		return testkit.QueryOne[string](t, o.pool, `SELECT verdict FROM clerkinvite_import`) == "active"
	}
	require.True(t, add(nil, 30))
	for i, url := range []string{"", "/accept", "app.example.com", "javascript:alert(1)", "ftp://example.com", "https://", "https:///x", "https://example.com/%zz",
		"https://example.com:port/", "https://exa mple.com/", "https://example.com/\n", "https://example.com/" + strings.Repeat("x", 2048), "https://[::1", "https://user@",
		"//app.example.com", "myapp://accept", "MyApp://accept?a=b", "myapp:///accept", "com.example.app://x", "javascript://x", "JavaScript://x", "data://x", "ms-word://x", "vbs://x",
		"c://x", "myapp:accept", "/a b", "/a?b=c", `/\a`, "httpx://a",
		"https://app.example.com", "http://localhost:3000/accept?a=b&c=%20#d"} {
		_, err := svc.Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: fmt.Sprintf("p%d@example.com", i), RedirectURL: url})
		require.Equal(t, err == nil, add(url, 30), "%q", url)
	}
	for _, days := range []int{-1, 0, 366} {
		require.False(t, add(nil, days), days)
	}
	require.True(t, add(nil, 365))
}
