package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/internal/storeutil"
)

func mirrorCommand() command {
	return command{
		name: "mirror", summary: "print the SQL that keeps your own table equal to the members",
		details: `Does not connect to the database. Run the output with your migration tool or psql, as the owner of the tables. It creates triggers;
with --sync it also makes existing rows equal. Write names as PostgreSQL stores them, without quotes.

  clerkinvite mirror --table admin_user --tenant-id tenant_id --email email --clerk-user-id clerk_user_id
  clerkinvite mirror --table app.admin_user --tenant-id org --email email --left-column deleted_at --sync > up.sql
  psql -v ON_ERROR_STOP=1 -1 -f up.sql "$DATABASE_URL"

Afterwards doctor compares both tables. As JSON: {"sql": "…"}`,
		prepare: func(t *tool, flags *flag.FlagSet) func(context.Context, []string) error {
			var m clerkinvite.Mirror
			flags.StringVar(&m.Table, "table", "", "your `table`, with its schema if that is not on the search_path")
			flags.StringVar(&m.TenantID, "tenant-id", "", "its `column` for the tenant")
			flags.StringVar(&m.Email, "email", "", "its `column` for the address")
			flags.StringVar(&m.ClerkUserID, "clerk-user-id", "", "its `column` for the Clerk user's ID, or pending_ and the invitation's ID")
			flags.StringVar(&m.Role, "role", "", "its `column` for the role")
			flags.StringVar(&m.Status, "status", "", "its `column` for the state")
			flags.StringVar(&m.MemberID, "member-id", "", "its `column` for the member's ID")
			flags.StringVar(&m.LeftColumn, "left-column", "", "keep the rows of people who have left, and mark them in this `column`")
			flags.StringVar(&m.LeftValue, "left-value", "", "the `value` of --left-column for people who have left; empty means the time")
			flags.StringVar(&m.PresentValue, "present-value", "", "the `value` of --left-column for members; empty means NULL")
			statuses := flags.String("statuses", "", "the `states` in which a member has a row, separated by commas; empty means pending and active")
			down := flags.Bool("down", false, "remove the triggers instead")
			sync := flags.Bool("sync", false, "also make existing rows equal")
			return func(context.Context, []string) error {
				m.Schema = t.schema
				m.Statuses = parseStatuses(*statuses)
				return t.mirror(m, *down, *sync)
			}
		},
	}
}

// parseStatuses returns the states in a list with commas.
func parseStatuses(list string) (statuses []clerkinvite.Status) {
	for s := range strings.SplitSeq(list, ",") {
		if s = strings.TrimSpace(s); s != "" {
			statuses = append(statuses, clerkinvite.Status(s))
		}
	}
	return statuses
}

func (t *tool) mirror(m clerkinvite.Mirror, down, sync bool) error {
	if down && sync {
		return usagef("--down cannot be combined with --sync")
	}
	up := m.Up
	if down {
		up = m.Down
	}
	sql, err := up()
	if err == nil && sync {
		var more string
		more, err = m.Sync()
		sql += "\n" + more
	}
	if invalid := new(clerkinvite.InvalidParamsError); errors.As(err, &invalid) {
		return usagef("--%s %s", flagNames[invalid.Field], invalid.Reason)
	}
	if err != nil {
		return err
	}
	return t.print(struct {
		SQL string `json:"sql"`
	}{sql}, func(w io.Writer) { fmt.Fprint(w, sql) })
}

// flagNames are the flags for the fields of a clerkinvite.Mirror.
var flagNames = map[string]string{
	"Table": "table", "Schema": "schema", "TenantID": "tenant-id", "Email": "email", "ClerkUserID": "clerk-user-id", "Role": "role", "Status": "status",
	"MemberID": "member-id", "LeftColumn": "left-column", "LeftValue": "left-value", "PresentValue": "present-value", "Statuses": "statuses",
}

// installedMirrorSQL returns the number of a mirror's three triggers that are enabled, and its settings.
const installedMirrorSQL = `
SELECT count(*) FILTER (WHERE tgenabled <> 'D'), coalesce(max(obj_description(oid, 'pg_trigger')), '')
FROM pg_trigger
WHERE tgrelid = to_regclass(CASE WHEN $1 = '' THEN '' ELSE quote_ident($1) || '.' END || 'clerkinvite_member')
	AND tgname IN ('clerkinvite_mirror', 'clerkinvite_mirror_update', 'clerkinvite_mirror_truncate')`

var errMirrorIncomplete = errors.New("a trigger of the mirror is missing or disabled, or its comment is not the mirror's")

// installedMirror returns the mirror of the members, or nil if there is none.
func (t *tool) installedMirror(ctx context.Context, pool *pgxpool.Pool) (*clerkinvite.Mirror, error) {
	var triggers int
	var config string
	if err := pool.QueryRow(ctx, installedMirrorSQL, t.schema).Scan(&triggers, &config); err != nil {
		return nil, err
	}
	if triggers == 0 && config == "" {
		return nil, nil
	}
	m := new(clerkinvite.Mirror)
	if triggers < 3 || json.Unmarshal([]byte(config), m) != nil {
		return nil, errMirrorIncomplete
	}
	return m, nil
}

// errHook is why the command does not change members.
var errHook = errors.New("the application uses PgxOptions.OnChange, which this command cannot call, so the application's own tables would not follow. " +
	"Make the change in the application, or install a mirror (\"clerkinvite mirror --help\"); with --without-hook, correct the application's tables yourself")

// mayChange returns an error if the application has a hook that should see changes of members, or if the mirror's table does
// not exist, because PostgreSQL then rejects each change with an unclear error.
func (t *tool) mayChange(ctx context.Context, store *clerkinvite.PgxStore, pool *pgxpool.Pool) error {
	since, err := store.SwapTime(ctx, storeutil.HookTime, time.Time{}, time.Time{})
	if err != nil {
		return err
	}
	m, err := t.installedMirror(ctx, pool)
	switch {
	case m != nil:
		return requireMirrored(ctx, pool, m)
	case since.IsZero() && (err == nil || errors.Is(err, errMirrorIncomplete)):
		return nil
	case err != nil:
		return err
	}
	return errHook
}

// noMirrorTableError is what changes of members fail with after the mirrored table was dropped.
type noMirrorTableError struct{ table string }

func (e noMirrorTableError) Error() string {
	return "the mirrored table " + e.table + " does not exist"
}

const noMirrorTableRemedy = "create it again, and run \"clerkinvite doctor --repair-mirror\". To mirror no longer, run the output of \"clerkinvite mirror … --down\""

// requireMirrored returns a noMirrorTableError if the mirrored table does not exist.
func requireMirrored(ctx context.Context, pool *pgxpool.Pool, m *clerkinvite.Mirror) error {
	schema, name, qualified := strings.Cut(m.Table, ".")
	if !qualified {
		schema, name = "", m.Table
	}
	var exists bool
	err := pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE relname = $1 AND $2::text IN ('', nspname::text))", name, schema).Scan(&exists)
	if err == nil && !exists {
		err = noMirrorTableError{m.Table}
	}
	return err
}

// unmirrored is mirrorCheck without a mirror.
func (d *diagnosis) unmirrored(ctx context.Context) check {
	switch err := d.t.mayChange(ctx, d.store, d.pool); {
	case errors.Is(err, errHook):
		return good("no table is mirrored; the tables that the application's OnChange writes are not compared")
	case err != nil:
		return check{"", checkFail, explain(err), "try again"}
	}
	return good("no table is mirrored")
}

// mirrorCheck compares the application's table with the members, if there is a mirror.
func (d *diagnosis) mirrorCheck(ctx context.Context) check {
	m, err := d.t.installedMirror(ctx, d.pool)
	switch {
	case errors.Is(err, errMirrorIncomplete):
		return check{"", checkFail, err.Error(), "run the output of \"clerkinvite mirror\" again, with --sync"}
	case err != nil:
		return check{"", checkFail, explain(err), "try again"}
	case m == nil:
		return d.unmirrored(ctx)
	}
	switch err := requireMirrored(ctx, d.pool, m); {
	case errors.As(err, new(noMirrorTableError)):
		return check{"", checkFail, err.Error(), noMirrorTableRemedy}
	case err != nil:
		return check{"", checkFail, explain(err), "try again"}
	}
	repaired, warnings := "", []string(nil)
	remedy := "run \"clerkinvite doctor --repair-mirror\", and find out what else writes the table"
	if d.repair {
		if warnings, err = d.repairMirror(ctx, m); err != nil {
			return check{"", checkFail, "not repaired: " + explain(err), "fix what the message names, such as a privilege, and run this again"}
		}
		repaired = "repaired; "
		if len(warnings) > 0 {
			remedy = "fix what the messages name in your table, and run this again"
		}
	}
	differences, err := m.Differences()
	if err != nil {
		return check{"", checkFail, err.Error(), "run the output of \"clerkinvite mirror\" again, with --sync"}
	}
	rows, _ := d.pool.Query(ctx, differences) // ForEachRow returns the error
	var tenant, email, difference string
	var found []string
	n, kinds := 0, make(map[string]int)
	_, err = pgx.ForEachRow(rows, []any{&tenant, &email, &difference}, func() error {
		kinds[difference]++
		if n++; n <= 5 {
			found = append(found, fmt.Sprintf("%s in %s is %s", plain(email), plain(tenant), difference))
		}
		return nil
	})
	switch {
	case err != nil:
		return check{"", checkFail, explain(err), "check the columns of " + m.Table + ", and that the user in DATABASE_URL may read it"}
	case n > 0:
		status, strangers := checkFail, kinds["not a member"]
		switch {
		case kinds["not normalised"] > 0:
			remedy = fmt.Sprintf("delete a row if another one already has its normalised address. Write the other addresses as the members have them: "+
				"in lower case (or make the column citext), without white space (UPDATE %s SET %s = lower(btrim(%[2]s))), and with the domain in ASCII (xn--…). "+
				"Otherwise their rows stay when people leave. Then run \"clerkinvite doctor --repair-mirror\"", m.Table, m.Email)
		case strangers == n:
			status, remedy = checkWarn, ""
		}
		if strangers > 0 {
			remedy = strings.TrimPrefix(remedy+"; adopt the people who are not members (\"clerkinvite adopt\") or delete their rows, because the library cannot remove them", "; ")
		}
		if n > len(found) {
			found = append(found, "…")
		}
		text := fmt.Sprintf("%s%s differs from the members in %d %s: %s", repaired, m.Table, n, plural(n, "row"), strings.Join(found, ", "))
		return check{"", status, strings.Join(append([]string{text}, warnings...), "; "), remedy}
	}
	return good("%s%s is equal to the members", repaired, m.Table)
}

// repairMirror makes the mirrored table equal to the members. It returns the first warnings about rows that were not written.
func (d *diagnosis) repairMirror(ctx context.Context, m *clerkinvite.Mirror) (warnings []string, err error) {
	sql, err := m.Sync()
	if err != nil {
		return nil, err
	}
	config := d.pool.Config().ConnConfig.Copy()
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		if n.Severity == "WARNING" && len(warnings) < 5 {
			warnings = append(warnings, plain(n.Message))
		}
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	_, err = conn.Exec(ctx, sql)
	return warnings, err
}
