package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkapi"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

func doctorCommand() command {
	return command{
		name: "doctor", summary: "check the database, key, clocks and webhook secret, and whether Run is running",
		details: `Changes nothing without --repair-mirror. Run it with the application's environment on the application's machine, because it checks that
machine's clock. A check's status is ok, warn, fail, or skip (if an earlier check that it needs failed). If the status is not ok, the
remedy says what to do. The exit code is 1 if a check failed.

  clerkinvite doctor
  clerkinvite doctor --limit 0 --json | jq '.checks[] | select(.status != "ok")'
  clerkinvite doctor --organization org_2abc    # before the first invitation into it

As JSON: {"ok", "checks": [{"name", "status", "message", "remedy"}, …]}. The names are database, schema, access, key, clock_database,
clock_clerk, webhook_secret, backlog, mirror, organizations and agreement.`,
		prepare: func(t *tool, flags *flag.FlagSet) func(context.Context, []string) error {
			limit := flags.Int("limit", 10_000, "maximum number of `members` to compare with Clerk, 100 per request; 0 means all")
			repair := flags.Bool("repair-mirror", false, "make the mirrored table equal to the members")
			organization := flags.String("organization", "", "also check this Clerk `organization` (org_…), which may have no members yet")
			return func(ctx context.Context, _ []string) error {
				if *limit < 0 {
					return usagef("--limit must not be negative")
				}
				return t.doctor(ctx, &diagnosis{limit: *limit, repair: *repair, organization: *organization})
			}
		},
	}
}

// Thresholds.
const (
	dueWarn   = 5 * time.Minute // Run delivers every 15 seconds, after failures every 5 minutes
	dueFail   = 15 * time.Minute
	clockWarn = 5 * time.Second
	clockFail = 5 * time.Minute // all webhooks are rejected
)

type checkStatus string

const (
	checkOK   checkStatus = "ok"
	checkWarn checkStatus = "warn"
	checkFail checkStatus = "fail"
	checkSkip checkStatus = "skip"
)

// check is the result of a check.
type check struct {
	Name    string      `json:"name"`
	Status  checkStatus `json:"status"`
	Message string      `json:"message"`
	Remedy  string      `json:"remedy,omitempty"`
}

func good(format string, args ...any) check {
	return check{"", checkOK, fmt.Sprintf(format, args...), ""}
}

// diagnosis is a run of doctor.
type diagnosis struct {
	t            *tool
	limit        int
	repair       bool
	organization string // to check, although no member has it; may be ""
	checks       []check

	store *clerkinvite.PgxStore
	pool  *pgxpool.Pool
	api   *clerkapi.Client
	wire  *clockTransport
}

func (t *tool) doctor(ctx context.Context, d *diagnosis) error {
	d.t, d.wire = t, &clockTransport{now: t.env.now}
	defer func() {
		if d.pool != nil {
			d.pool.Close()
		}
	}()
	for _, c := range []struct {
		name  string
		needs []string
		do    func(context.Context) check
	}{
		{"database", nil, d.database},
		{"schema", []string{"database"}, d.schema},
		{"access", []string{"schema"}, d.access},
		{"key", nil, d.key},
		{"clock_database", []string{"database"}, d.clockDatabase},
		{"clock_clerk", []string{"key"}, d.clockClerk},
		{"webhook_secret", nil, d.webhookSecret},
		{"backlog", []string{"schema"}, d.backlog},
		{"mirror", []string{"schema"}, d.mirrorCheck},
		{"organizations", []string{"schema", "key"}, d.organizations},
		{"agreement", []string{"schema", "key"}, d.agreement},
	} {
		var result check
		if failed := d.failed(c.needs); len(failed) > 0 {
			result = check{Status: checkSkip, Message: "not checked", Remedy: "fix " + strings.Join(failed, " and ") + " first"}
		} else {
			result = c.do(ctx)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		result.Name = c.name
		d.checks = append(d.checks, result)
	}
	document := struct {
		OK     bool    `json:"ok"`
		Checks []check `json:"checks"`
	}{true, d.checks}
	for _, c := range d.checks {
		document.OK = document.OK && c.Status != checkFail
	}
	if err := t.print(document, d.text); err != nil {
		return err
	}
	if !document.OK {
		return reportedError{errors.New("a check failed; see above")}
	}
	return nil
}

func (d *diagnosis) text(out io.Writer) {
	for _, c := range d.checks {
		fmt.Fprintf(out, "%-4s  %-14s  %s\n", strings.ToUpper(string(c.Status)), c.Name, c.Message)
		if c.Remedy != "" {
			fmt.Fprintf(out, "%24s%s\n", "→ ", c.Remedy)
		}
	}
}

// failed returns those of the named checks that have failed or were skipped.
func (d *diagnosis) failed(names []string) (failed []string) {
	for _, c := range d.checks {
		if slices.Contains(names, c.Name) && (c.Status == checkFail || c.Status == checkSkip) {
			failed = append(failed, c.Name)
		}
	}
	return failed
}

func (d *diagnosis) database(ctx context.Context) check {
	store, pool, err := d.t.open(ctx)
	if err != nil {
		return check{"", checkFail, explain(err), "set DATABASE_URL to the application's value"}
	}
	d.store, d.pool = store, pool
	var version string
	if err := pool.QueryRow(ctx, "SELECT current_setting('server_version')").Scan(&version); err != nil {
		return check{"", checkFail, explain(err), "check that the server in DATABASE_URL is running and accepts this machine and user"}
	}
	return good("PostgreSQL %s", version)
}

func (d *diagnosis) schema(ctx context.Context) check {
	err := d.store.Validate(ctx)
	switch {
	case err == nil:
		return d.privileges(ctx)
	case errors.Is(err, clerkinvite.ErrSchemaNewer):
		return check{"", checkWarn, strings.ReplaceAll(err.Error(), "\n", "; "), "install the version of this tool that matches the application's library"}
	default:
		return check{"", checkFail, strings.ReplaceAll(err.Error(), "\n", "; "), "run \"clerkinvite migrate\", or set --schema to the schema of the tables"}
	}
}

// privilegesSQL finds missing privileges on the tables. Only Purge needs DELETE.
const privilegesSQL = `
SELECT privilege || ' on ' || name, privilege = 'DELETE'
FROM (VALUES ('member', 'SELECT'), ('member', 'INSERT'), ('member', 'UPDATE'), ('member', 'DELETE'), ('history', 'SELECT'), ('history', 'INSERT'),
	('limit', 'SELECT'), ('limit', 'INSERT'), ('limit', 'UPDATE')) AS needed (tab, privilege),
	LATERAL (SELECT CASE WHEN $1 = '' THEN '' ELSE quote_ident($1) || '.' END || 'clerkinvite_' || tab AS name) AS named
WHERE NOT has_table_privilege(name, privilege)
UNION ALL SELECT 'a policy for the rows of ' || name, false
FROM unnest(ARRAY['member', 'history', 'limit']) AS tab,
	LATERAL (SELECT CASE WHEN $1 = '' THEN '' ELSE quote_ident($1) || '.' END || 'clerkinvite_' || tab AS name) AS named
WHERE row_security_active(name)`

// privileges is the second part of schema, once the tables exist.
func (d *diagnosis) privileges(ctx context.Context) check {
	rows, err := d.pool.Query(ctx, privilegesSQL, d.t.schema)
	if err != nil {
		return check{"", checkFail, explain(err), "try again"}
	}
	var missing []string
	var privilege string
	var forPurge bool
	status := checkWarn
	_, err = pgx.ForEachRow(rows, []any{&privilege, &forPurge}, func() error {
		if missing = append(missing, privilege); !forPurge {
			status = checkFail
		}
		return nil
	})
	switch {
	case err != nil:
		return check{"", checkFail, explain(err), "try again"}
	case len(missing) == 0:
		return good("the tables match this version")
	case status == checkWarn:
		return check{"", status, "Purge will fail: the user in DATABASE_URL lacks " + strings.Join(missing, ", "), "GRANT it if the application purges members"}
	}
	return check{"", status, "the user in DATABASE_URL lacks " + strings.Join(missing, ", "), "GRANT it, or set DATABASE_URL to the application's value"}
}

// accessSQL lists the other roles that have privileges on the tables, their partitions or columns, and whether they can change
// rows. It omits the owner, the current user, and a group through which the user has its privileges, unless the group is one of
// Supabase's API roles. A table with row-level security and without policies shows no rows to other roles.
const accessSQL = `
WITH tables AS (
	SELECT DISTINCT c.oid, c.relowner, c.relacl
	FROM unnest(ARRAY['member', 'history', 'limit', 'migration']) AS tab,
		LATERAL (SELECT to_regclass(CASE WHEN $1 = '' THEN '' ELSE quote_ident($1) || '.' END || 'clerkinvite_' || tab) AS root) AS named
		JOIN pg_class c ON c.oid = root OR c.oid IN (SELECT relid FROM pg_partition_tree(root))
	WHERE NOT c.relrowsecurity OR EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid)
), granted AS (
	SELECT relowner, acl.* FROM tables, LATERAL aclexplode(relacl) AS acl
	UNION ALL
	SELECT relowner, acl.* FROM tables JOIN pg_attribute ON attrelid = oid, LATERAL aclexplode(attacl) AS acl
)
SELECT CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee) END, string_agg(DISTINCT privilege_type, ', ' ORDER BY privilege_type),
	bool_or(privilege_type NOT IN ('SELECT', 'REFERENCES', 'MAINTAIN'))
FROM granted
WHERE grantee <> relowner AND grantee <> (SELECT oid FROM pg_roles WHERE rolname = current_user)
	AND NOT CASE WHEN grantee = 0 OR pg_get_userbyid(grantee) IN ('anon', 'authenticated') OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) OR pg_has_role(current_user, relowner, 'USAGE') THEN false
		ELSE pg_has_role(current_user, grantee, 'USAGE') END
GROUP BY 1 ORDER BY 1`

// access reports who else may use the tables: anyone who can write them can make members.
func (d *diagnosis) access(ctx context.Context) check {
	rows, err := d.pool.Query(ctx, accessSQL, d.t.schema)
	if err != nil {
		return check{"", checkFail, explain(err), "try again"}
	}
	var role, privileges string
	var write bool
	found := make(map[checkStatus][]string)
	_, err = pgx.ForEachRow(rows, []any{&role, &privileges, &write}, func() error {
		status := checkOK
		switch {
		case role == "PUBLIC" || role == "anon" || role == "authenticated": // the roles of Supabase's API
			status = checkFail
		case write:
			status = checkWarn
		}
		found[status] = append(found[status], role+" ("+privileges+")")
		return nil
	})
	switch remedy := "REVOKE what these roles do not need, or enable row-level security; see Privileges in the library's migrations/README.md"; {
	case err != nil:
		return check{"", checkFail, explain(err), "try again"}
	case len(found[checkFail]) > 0:
		return check{"", checkFail, "anyone may use the tables, through " + strings.Join(found[checkFail], "; "), remedy}
	case len(found[checkWarn]) > 0:
		return check{"", checkWarn, "other roles can make members: " + strings.Join(found[checkWarn], "; "), remedy}
	case len(found[checkOK]) > 0:
		return good("only the owner and the user in DATABASE_URL can change rows; readable by %s", strings.Join(found[checkOK], "; "))
	}
	return good("only the owner and the user in DATABASE_URL may use the tables")
}

func (d *diagnosis) key(ctx context.Context) check {
	base, err := d.t.apiURL()
	if err != nil {
		return check{"", checkFail, explain(err), "set CLERK_API_URL to the application's value, or unset it"}
	}
	api, err := d.t.api(d.wire)
	if err != nil {
		return check{"", checkFail, explain(err), "copy the secret key from Clerk's dashboard, under API keys"}
	}
	kind := ""
	for prefix, k := range map[string]string{"sk_test_": "development", "sk_live_": "production"} {
		if strings.HasPrefix(d.t.env.getenv("CLERK_SECRET_KEY"), prefix) {
			kind = k
		}
	}
	if kind == "" {
		return check{"", checkFail, "CLERK_SECRET_KEY must begin with sk_test_ or sk_live_", "copy the secret key from Clerk's dashboard, under API keys"}
	}
	where, reach := "", "check this machine's connection to Clerk, and https://status.clerk.com"
	if base != "" {
		where, reach = ", at CLERK_API_URL rather than Clerk's own URL", "check that CLERK_API_URL is a URL of the Backend API, or unset it to use Clerk's own"
	}
	_, err = api.ListInvitations(ctx, clerkinvite.InvitationQuery{Limit: 1})
	d.api = api
	var failure *clerkinvite.APIError
	switch {
	case err == nil:
		return good("accepted by Clerk: a key of a %s instance%s", kind, where)
	case errors.As(err, &failure) && failure.StatusCode == http.StatusTooManyRequests:
		wait, _ := clerkinvite.RetryAfter(err)
		return check{"", checkWarn, "Clerk's rate limit was reached", fmt.Sprintf("try again in %s", wait)}
	case errors.As(err, &failure) && (failure.StatusCode == http.StatusUnauthorized || failure.StatusCode == http.StatusForbidden):
		return check{"", checkFail, "Clerk rejects the key of a " + kind + " instance" + where + ": " + err.Error(), "it may have been rotated or deleted; copy the current key from Clerk's dashboard, under API keys"}
	default:
		return check{"", checkFail, "not checked, because Clerk failed" + where + ": " + err.Error(), reach}
	}
}

// clock checks how far this machine's clock is ahead of another clock. The measurement may be off by tolerance.
func clock(name string, ahead, tolerance time.Duration) check {
	off := max(ahead, -ahead) - tolerance
	direction := "ahead of"
	if ahead < 0 {
		direction = "behind"
	}
	text := fmt.Sprintf("this machine's clock is %s %s %s clock", max(ahead, -ahead).Round(time.Millisecond), direction, name)
	const remedy = "synchronise the clocks (NTP). Leases and limits use the database's clock, but webhooks are rejected if this machine's clock is wrong by five minutes"
	switch {
	case off >= clockFail:
		return check{"", checkFail, text, remedy}
	case off >= clockWarn:
		return check{"", checkWarn, text, remedy}
	}
	return good("%s", text)
}

func (d *diagnosis) clockDatabase(ctx context.Context) check {
	var databaseTime time.Time
	start := d.t.env.now()
	if err := d.pool.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&databaseTime); err != nil {
		return check{"", checkFail, explain(err), "try again"}
	}
	took := d.t.env.now().Sub(start)
	return clock("the database's", start.Add(took/2).Sub(databaseTime), took/2)
}

func (d *diagnosis) clockClerk(context.Context) check {
	if !d.wire.measured {
		return check{"", checkSkip, "Clerk's response had no Date header", "if there is a proxy, let it pass the header"}
	}
	return clock("Clerk's", d.wire.ahead, d.wire.tolerance)
}

// clockTransport is an http.RoundTripper that compares this machine's clock with Clerk's.
type clockTransport struct {
	now       func() time.Time
	measured  bool
	ahead     time.Duration // of this machine's clock
	tolerance time.Duration // of the measurement
}

// RoundTrip implements http.RoundTripper.
func (c *clockTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	start := c.now()
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	took := c.now().Sub(start)
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		c.measured, c.tolerance = true, took/2+time.Second/2 // the header has whole seconds
		c.ahead = start.Add(took / 2).Sub(date.Add(time.Second / 2))
	}
	return resp, nil
}

func (d *diagnosis) webhookSecret(context.Context) check {
	const remedy = "copy the signing secret (whsec_…) of the endpoint from Clerk's dashboard, under Webhooks"
	secret := d.t.env.getenv("CLERK_WEBHOOK_SIGNING_SECRET")
	if secret == "" {
		return check{"", checkWarn, "not checked: CLERK_WEBHOOK_SIGNING_SECRET is not set", "set it to the application's value; without webhooks, only Reconcile and ResolveUser find people who have joined"}
	}
	verifier, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{Secrets: []clerkinvite.Secret{clerkinvite.NewSecret(secret)}, Now: d.t.env.now})
	if err != nil {
		return check{"", checkFail, "CLERK_WEBHOOK_SIGNING_SECRET: " + err.Error(), remedy}
	}
	payload := []byte(`{"object":"event","type":"user.deleted","data":{"id":"user_doctor","object":"user","deleted":true}}`)
	header := clerkinvitetest.SignWebhook(secret, "msg_doctor", d.t.env.now(), payload)
	if _, err := verifier.Verify(payload, header); err != nil {
		return check{"", checkFail, "a webhook signed with the secret is rejected: " + err.Error(), remedy}
	}
	if _, err := verifier.Verify(append(payload, ' '), header); !errors.Is(err, clerkinvite.ErrBadSignature) {
		return check{"", checkFail, "a webhook that was changed after signing is accepted", "report this as a bug"}
	}
	return good("valid; only a webhook from Clerk can show that it is the endpoint's secret")
}

func (d *diagnosis) backlog(ctx context.Context) check {
	now, err := d.store.Clock(ctx)
	var b clerkinvite.Backlog
	if err == nil {
		b, err = d.store.Backlog(ctx, now)
	}
	if err != nil {
		return check{"", checkFail, explain(err), "try again"}
	}
	const remedy = "check that at least one process runs Service.Run, and its log for \"delivery stopped\"; \"clerkinvite reconcile\" handles expired invitations"
	limits, err := d.limits(ctx)
	unsaved := 0
	if err == nil {
		err = d.pool.QueryRow(ctx, "SELECT count(*) FROM "+d.t.table("clerkinvite_member").Sanitize()+
			" WHERE sent < send AND status IN ('reserved', 'pending') AND reason IS NULL AND claimed_until <= $1", now).Scan(&unsaved)
	}
	if err != nil {
		return check{"", checkFail, explain(err), "try again"}
	}
	text := fmt.Sprintf("%d reserved, %d due now, %d expired but not reconciled%s", b.Reserved, b.Due, b.Overdue, limits)
	if unsaved > 0 {
		text += fmt.Sprintf("; the last attempt for %d could not be saved: a process died, or a table rejected the row (see \"result not saved\" in the application's log)", unsaved)
	}
	var late time.Duration
	if !b.OldestDue.IsZero() {
		late = now.Sub(b.OldestDue)
		text += fmt.Sprintf("; longest due since %s (%s)", stamp(&b.OldestDue), late.Round(time.Second))
	}
	switch {
	case late >= dueFail:
		return check{"", checkFail, text, remedy}
	case late >= dueWarn, b.Overdue > 0:
		return check{"", checkWarn, text, remedy}
	}
	return good("%s", text)
}

// limits describes the rate limits in force: the endpoints that the application does not call now.
func (d *diagnosis) limits(ctx context.Context) (text string, err error) {
	table := d.t.table("clerkinvite_limit").Sanitize()
	rows, err := d.pool.Query(ctx, "SELECT name, blocked_until FROM "+table+" WHERE name ~ '^[A-Z]+ /' AND blocked_until > now() ORDER BY name")
	if err != nil {
		return "", err
	}
	var name string
	var until time.Time
	_, err = pgx.ForEachRow(rows, []any{&name, &until}, func() error {
		text += fmt.Sprintf("; rate limit of %s until %s", name, stamp(&until))
		return nil
	})
	return text, err
}

// keyFault compares pending members' invitations and active members' users with Clerk. It returns a check if the key, or an
// earlier key, seems to belong to another instance.
func (d *diagnosis) keyFault(ctx context.Context) (*check, error) {
	pending, err := d.oldestAndNewestPending(ctx)
	if err != nil {
		return nil, err
	}
	known, unknown, err := d.compareInvitations(ctx, pending)
	if err != nil || len(known) == len(pending) { // no fault
		return nil, err
	}
	joined, err := d.compareUsers(ctx)
	if err != nil {
		return nil, err
	}
	return judgeKey(append(known, joined...), unknown), nil
}

// oldestAndNewestPending returns up to six pending members.
func (d *diagnosis) oldestAndNewestPending(ctx context.Context) ([]*clerkinvite.Member, error) {
	pending, err := d.store.Page(ctx, clerkinvite.PageQuery{Statuses: []clerkinvite.Status{clerkinvite.StatusPending}})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(pending, func(a, b *clerkinvite.Member) int { return settled(a).Compare(settled(b)) })
	if n := len(pending); n > 6 {
		pending = slices.Concat(pending[:3], pending[n-3:])
	}
	return pending, nil
}

// settled returns the time of the member's last invitation or state change.
func settled(m *clerkinvite.Member) time.Time { return *cmp.Or(m.SettledAt, &m.ReservedAt) }

// compareInvitations returns the times of the members whose invitation Clerk knows, and of those whose it does not know.
func (d *diagnosis) compareInvitations(ctx context.Context, pending []*clerkinvite.Member) (known, unknown []time.Time, err error) {
	for _, m := range pending {
		found, err := d.knowsInvitation(ctx, m)
		switch {
		case lacksOrganization(err): // says nothing about the key
		case err != nil:
			return nil, nil, err
		case found:
			known = append(known, settled(m))
		case m.Reason != clerkinvite.ReasonAdopted: // an adopted row may name an invitation that never existed
			unknown = append(unknown, settled(m))
		}
	}
	return known, unknown, nil
}

// clerkID matches the IDs that Clerk may have. Other code may have written a row with another one.
var clerkID = regexp.MustCompile(`^[\w-]{1,255}$`)

// compareUsers returns the times of up to 100 active members whose user Clerk knows.
func (d *diagnosis) compareUsers(ctx context.Context) (known []time.Time, err error) {
	active, err := d.store.Page(ctx, clerkinvite.PageQuery{Statuses: []clerkinvite.Status{clerkinvite.StatusActive}, Limit: 100})
	if err != nil {
		return nil, err
	}
	ids := make(map[string]time.Time, len(active))
	for _, m := range active {
		if clerkID.MatchString(m.ClerkUserID) { // FindUsers rejects a list with an impossible ID
			ids[m.ClerkUserID] = settled(m)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	users, err := d.api.FindUsers(ctx, clerkinvite.UserQuery{IDs: slices.Collect(maps.Keys(ids))})
	for _, u := range users {
		known = append(known, ids[u.ID])
	}
	return known, err
}

// judgeKey returns a check if the key, or an earlier key, seems to belong to another instance, or nil. known has the times of
// the members whose invitation or user Clerk knows, and unknown the times of the others. Age decides: the right instance knows
// the oldest members, and another instance knows only members that were invited with its key.
func judgeKey(known, unknown []time.Time) *check {
	const wrong, steps = "CLERK_SECRET_KEY probably belongs to another instance: Clerk knows ", "follow \"Another instance's key\" in the library's docs/runbook.md"
	switch {
	case len(known) == 0:
		return &check{"", checkFail, wrong + "none of the members' invitations and users that were looked up", "if so, stop the application and " + steps}
	case len(unknown) == 0: // organizations were deleted, or the rows were only adopted
		return nil
	}
	oldestKnown, oldestUnknown := slices.MinFunc(known, time.Time.Compare), slices.MinFunc(unknown, time.Time.Compare)
	if oldestUnknown.Before(oldestKnown) {
		return &check{"", checkFail, fmt.Sprintf("%smembers invited since %s, but not the older ones", wrong, stamp(&oldestKnown)), "if so, stop the application and " + steps}
	}
	return &check{"", checkWarn, fmt.Sprintf("Clerk knows older members, but not an invitation of %s: another instance's key was probably configured then", stamp(&oldestUnknown)),
		"CLERK_SECRET_KEY seems right now; if another one was configured then, " + steps + " from step 2"}
}

// knowsInvitation reports whether Clerk knows the invitation of a pending member.
func (d *diagnosis) knowsInvitation(ctx context.Context, m *clerkinvite.Member) (bool, error) {
	organization := ""
	if o := m.Organization(); o != nil {
		organization = o.ID
	}
	for _, status := range []clerkinvite.InvitationStatus{"", clerkinvite.InvitationRevoked} { // "" means all except revoked
		found, err := d.api.ListInvitations(ctx, clerkinvite.InvitationQuery{Query: m.Email, Status: status, OrganizationID: organization})
		if err != nil || slices.ContainsFunc(found, func(i clerkinvite.Invitation) bool { return i.ID == m.InvitationID }) {
			return err == nil, err
		}
	}
	return false, nil
}

func (d *diagnosis) agreement(ctx context.Context) check {
	svc, err := clerkinvite.New(clerkinvite.Config{API: d.api, Organizations: d.api, Store: d.store, Now: d.t.env.now})
	if err != nil {
		return check{"", checkFail, explain(err), "report this as a bug"}
	}
	fault, err := d.keyFault(ctx)
	if fault != nil {
		return *fault
	}
	var r *clerkinvite.ReconcileReport
	if err == nil {
		r, err = svc.Reconcile(ctx, &clerkinvite.ReconcileOptions{DryRun: true, Limit: d.limit})
	}
	if _, limited := clerkinvite.RetryAfter(err); limited {
		return check{"", checkWarn, explain(err), "try again later"}
	}
	if err != nil {
		return check{"", checkFail, explain(err), "if Clerk shows no user and no invitation of any member, follow \"Another instance's key\" in the library's docs/runbook.md"}
	}
	scope := fmt.Sprintf("%d %s compared with Clerk", r.Members, plural(r.Members, "member"))
	if r.Cursor != "" {
		scope = fmt.Sprintf("only %d %s compared with Clerk (--limit)", r.Members, plural(r.Members, "member"))
	}
	var differences []string
	for _, diff := range []struct {
		n    int
		what string
	}{
		{r.Activated, "have joined"}, {r.Removed, "no longer have a user or membership, or have another row"}, {r.Expired, "expired"}, {r.Revoked, "were revoked at Clerk"}, {r.Moved, "have another address"},
		{r.LeftOver, "open invitations without a member"}, {r.Newer, "invitations newer than their member's row"}, {len(r.AcceptedElsewhere), "joined under another address"},
		{len(r.OutOfDate), "are active under an address that their user no longer has"},
		{r.Missing, "have no user at Clerk, or the key is another instance's"},
	} {
		if diff.n > 0 {
			differences = append(differences, fmt.Sprintf("%d %s", diff.n, diff.what))
		}
	}
	if len(differences) > 0 {
		remedy := "run \"clerkinvite reconcile\"; if it happens again, check that webhooks arrive (Clerk's dashboard, under Webhooks) and that Run is running"
		switch {
		case r.Newer > 0:
			remedy = "if a backup was restored, stop the application and follow \"A restored backup\" in the library's docs/runbook.md. Otherwise " + remedy
		case r.Missing > 0:
			remedy = "if the dashboard still shows their users, CLERK_SECRET_KEY belongs to another instance: fix that first. Otherwise " + remedy
		}
		return check{"", checkWarn, scope + ": " + strings.Join(differences, ", "), remedy}
	}
	if r.Unknown > 0 {
		scope += fmt.Sprintf("; %d %s of another application or of purged members", r.Unknown, plural(r.Unknown, "invitation"))
	}
	return good("%s: no differences", scope)
}
