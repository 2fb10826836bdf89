package main

import (
	"context"
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

type doctorDocument struct {
	OK     bool    `json:"ok"`
	Checks []check `json:"checks"`
}

// diagnose returns the checks that are not ok.
func (w *world) diagnose(wantCode int) map[string]checkStatus {
	w.t.Helper()
	r := w.run("doctor", "--json")
	require.Equal(w.t, wantCode, r.code, r.stdout)
	d := decode[doctorDocument](w.t, r)
	require.Equal(w.t, wantCode == exitDone, d.OK)
	require.Len(w.t, d.Checks, 11)
	notOK := make(map[string]checkStatus)
	for _, c := range d.Checks {
		require.NotEmpty(w.t, c.Message)
		if c.Status != checkOK {
			require.NotEmpty(w.t, c.Remedy, c.Name)
			notOK[c.Name] = c.Status
		}
	}
	if secret := w.vars["CLERK_WEBHOOK_SIGNING_SECRET"]; secret != "" {
		require.NotContains(w.t, r.stdout+r.stderr, secret)
	}
	return notOK
}

// A check that is skipped names only what failed of the checks that it needs.
func TestDoctorSkip(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	remedies := func() map[string]string {
		list := make(map[string]string)
		for _, c := range decode[doctorDocument](t, w.run("doctor", "--json")).Checks {
			if c.Status == checkSkip {
				list[c.Name] = c.Remedy
			}
		}
		return list
	}
	w.vars["CLERK_SECRET_KEY"] = ""
	const fixKey, fixSchema, fixBoth = "fix key first", "fix schema first", "fix schema and key first"
	require.Equal(t, map[string]string{"clock_clerk": fixKey, "organizations": fixKey, "agreement": fixKey}, remedies())
	w.exec("DROP INDEX clerkinvite_member_due_idx")
	require.Equal(t, map[string]string{"access": fixSchema, "clock_clerk": fixKey, "backlog": fixSchema, "mirror": fixSchema,
		"organizations": fixBoth, "agreement": fixBoth}, remedies())
}

func TestDoctorFindsEachFault(t *testing.T) {
	t.Parallel()
	type checks = map[string]checkStatus
	for _, test := range []struct {
		name    string
		arrange func(w *world)
		code    int
		want    checks
	}{
		{"nothing", func(*world) {}, exitDone, checks{}},
		{"no database", func(w *world) { w.vars["DATABASE_URL"] = "postgres://unknown@127.0.0.1:1/none?connect_timeout=2" }, exitFailed,
			checks{"database": checkFail, "schema": checkSkip, "access": checkSkip, "clock_database": checkSkip, "backlog": checkSkip, "mirror": checkSkip, "organizations": checkSkip, "agreement": checkSkip}},
		{"a missing index", func(w *world) { w.exec("DROP INDEX clerkinvite_member_due_idx") }, exitFailed,
			checks{"schema": checkFail, "access": checkSkip, "backlog": checkSkip, "mirror": checkSkip, "organizations": checkSkip, "agreement": checkSkip}},
		{"a user who may only read", func(w *world) { w.as("SELECT") }, exitFailed, checks{"schema": checkFail, "access": checkSkip, "backlog": checkSkip, "mirror": checkSkip, "organizations": checkSkip, "agreement": checkSkip}},
		{"a user who may not erase", func(w *world) { w.as("SELECT, INSERT, UPDATE") }, exitDone, checks{"schema": checkWarn}},
		{"a newer schema", func(w *world) { w.exec("INSERT INTO clerkinvite_migration VALUES (999, now())") }, exitDone, checks{"schema": checkWarn}},
		{"no key", func(w *world) { w.vars["CLERK_SECRET_KEY"] = "" }, exitFailed, checks{"key": checkFail, "clock_clerk": checkSkip, "organizations": checkSkip, "agreement": checkSkip}},
		{"a publishable key", func(w *world) { w.vars["CLERK_SECRET_KEY"] = "pk_test_x" }, exitFailed, checks{"key": checkFail, "clock_clerk": checkSkip, "organizations": checkSkip, "agreement": checkSkip}},
		{"a key without a prefix", func(w *world) { w.vars["CLERK_SECRET_KEY"] = "x" }, exitFailed, checks{"key": checkFail, "clock_clerk": checkSkip, "organizations": checkSkip, "agreement": checkSkip}},
		{"a rotated key", func(w *world) { w.clerk.SetSecretKey("sk_test_another") }, exitFailed, checks{"key": checkFail, "clock_clerk": checkSkip, "organizations": checkSkip, "agreement": checkSkip}},
		{"no Clerk", func(w *world) { w.vars["CLERK_API_URL"] = "http://127.0.0.1:1" }, exitFailed, checks{"key": checkFail, "clock_clerk": checkSkip, "organizations": checkSkip, "agreement": checkSkip}},
		{"an invalid API URL", func(w *world) { w.vars["CLERK_API_URL"] = "127.0.0.1:1" }, exitFailed, checks{"key": checkFail, "clock_clerk": checkSkip, "organizations": checkSkip, "agreement": checkSkip}},
		{"Clerk's clock is off", func(w *world) { w.date(-time.Hour) }, exitFailed, checks{"clock_clerk": checkFail}},
		{"Clerk's clock is a bit off", func(w *world) { w.date(30 * time.Second) }, exitDone, checks{"clock_clerk": checkWarn}},
		{"no Date", func(w *world) {
			w.wrap = func(h http.Handler) http.Handler {
				return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					rw.Header()["Date"] = nil
					h.ServeHTTP(rw, r)
				})
			}
		}, exitDone, checks{"clock_clerk": checkSkip}},
		{"the database's clock is off", func(w *world) { // this machine's and Clerk's agree
			w.pass(time.Hour)
			w.date(time.Hour)
		}, exitFailed, checks{"clock_database": checkFail}},
		// This machine's clock alone.
		{"the clock is four minutes ahead", func(w *world) { w.skew = 4 * time.Minute; w.reserveAgo(2 * time.Minute) }, exitDone,
			checks{"clock_database": checkWarn, "clock_clerk": checkWarn}},
		{"the clock is four minutes behind", func(w *world) { w.skew = -4 * time.Minute; w.reserveAgo(6 * time.Minute) }, exitDone,
			checks{"clock_database": checkWarn, "clock_clerk": checkWarn, "backlog": checkWarn}},
		{"the clock is six minutes ahead", func(w *world) { w.skew = 6 * time.Minute }, exitFailed, checks{"clock_database": checkFail, "clock_clerk": checkFail}},
		{"no webhook secret", func(w *world) { w.vars["CLERK_WEBHOOK_SIGNING_SECRET"] = "" }, exitDone, checks{"webhook_secret": checkWarn}},
		{"a short webhook secret", func(w *world) { w.vars["CLERK_WEBHOOK_SIGNING_SECRET"] = "whsec_c2hvcnQ=" }, exitFailed, checks{"webhook_secret": checkFail}},
		{"a key as the webhook secret", func(w *world) { w.vars["CLERK_WEBHOOK_SIGNING_SECRET"] = "sk_test_*" }, exitFailed, checks{"webhook_secret": checkFail}},
		{"nothing is delivered", func(w *world) { w.reserveAgo(time.Hour) }, exitFailed, checks{"backlog": checkFail}},
		{"delivery is late", func(w *world) { w.reserveAgo(7 * time.Minute) }, exitDone, checks{"backlog": checkWarn}},
		{"due for a second", func(w *world) { w.reserveAgo(time.Second) }, exitDone, checks{}},
		{"a lost webhook", func(w *world) {
			w.invite("ada@example.com")
			_, err := w.clerk.Accept("ada@example.com")
			require.NoError(w.t, err)
		}, exitDone, checks{"agreement": checkWarn}},
		{"an expired invitation", func(w *world) {
			w.clerk.ExpireNow(w.invite("ada@example.com").InvitationID)
			w.exec("UPDATE clerkinvite_member SET expires_at = now() - interval '1 minute'")
		}, exitDone, checks{"backlog": checkWarn, "agreement": checkWarn}},
		{"the key of another instance", func(w *world) {
			for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"} {
				u := w.clerk.AddVerifiedUser(name + "@example.com")
				w.invite(name + "@example.com")
				w.clerk.DeleteUser(u.ID)
			}
			w.exec("UPDATE clerkinvite_member SET settled_at = settled_at - interval '1 hour', updated_at = updated_at - interval '1 hour'")
		}, exitFailed, checks{"agreement": checkFail}},
		{"the key of another instance without active members", func(w *world) {
			w.invite("ada@example.com")
			empty := httptest.NewServer(clerkinvitetest.NewClerk().Handler())
			w.t.Cleanup(empty.Close)
			w.vars["CLERK_API_URL"] = empty.URL
		}, exitFailed, checks{"agreement": checkFail}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			test.arrange(w)
			require.Equal(t, test.want, w.diagnose(test.code))
			if test.name == "the key of another instance" {
				r := w.run("reconcile", "--dry-run")
				require.Contains(t, r.stderr, "clerkinvite reconcile: clerkinvite: Clerk shows no user")
				require.Regexp(t, "^Error: .*Clerk shows no user", r.stdout, "before the numbers")
			}
		})
	}
}

func (w *world) exec(sql string) {
	_, err := w.db.Pool(w.t).Exec(w.t.Context(), sql)
	require.NoError(w.t, err)
}

// role returns a new role.
func (w *world) role() string {
	role := "clerkinvite_test_" + strings.ToLower(rand.Text()[:12])
	w.exec("CREATE ROLE " + role)
	w.t.Cleanup(func() {
		_, err := w.db.Pool(w.t).Exec(context.WithoutCancel(w.t.Context()), "DROP OWNED BY "+role+"; DROP ROLE "+role)
		require.NoError(w.t, err)
	})
	return role
}

// as makes the tool use a new role with only these privileges.
func (w *world) as(privileges string) {
	role := w.role()
	w.exec("GRANT " + privileges + " ON ALL TABLES IN SCHEMA public TO " + role)
	w.use(role)
}

// use makes the tool use a role.
func (w *world) use(role string) {
	join := " "
	if strings.HasPrefix(w.db.DSN, "postgres") {
		if join = "?"; strings.Contains(w.db.DSN, "?") {
			join = "&"
		}
	}
	w.vars["DATABASE_URL"] = w.db.DSN + join + "role=" + role
}

// date sets how far Clerk's clock is ahead.
func (w *world) date(off time.Duration) {
	w.wrap = func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Date", time.Now().Add(off).UTC().Format(http.TimeFormat))
			h.ServeHTTP(rw, r)
		})
	}
}

// reserveAgo writes a row that became due that long ago.
func (w *world) reserveAgo(ago time.Duration) {
	then := func() time.Time { return w.now().Add(-ago) }
	store := clerkinvite.NewPgxStore(w.db.Pool(w.t), &clerkinvite.PgxOptions{Now: then})
	svc, err := clerkinvite.New(clerkinvite.Config{API: w.clerk, Store: store, Now: then})
	require.NoError(w.t, err)
	_, err = svc.Reserve(w.t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "late@example.com"})
	require.NoError(w.t, err)
}

func TestDoctorAccess(t *testing.T) {
	t.Parallel()
	const rls = "ALTER TABLE clerkinvite_member ENABLE ROW LEVEL SECURITY; ALTER TABLE clerkinvite_history ENABLE ROW LEVEL SECURITY; " +
		"ALTER TABLE clerkinvite_limit ENABLE ROW LEVEL SECURITY; ALTER TABLE clerkinvite_migration ENABLE ROW LEVEL SECURITY;"
	const all = " ON ALL TABLES IN SCHEMA public TO "
	for name, test := range map[string]struct {
		arrange func(w *world) (role string)
		code    int
		check   string
		status  checkStatus
		message string
	}{
		"a role without privileges": {func(w *world) string { return w.role() }, exitDone, "access", checkOK, "may use the tables"},
		"a reader":                  {func(w *world) string { r := w.role(); w.exec("GRANT SELECT ON clerkinvite_history TO " + r); return r }, exitDone, "access", checkOK, "readable by ROLE (SELECT)"},
		"a writer": {func(w *world) string {
			r := w.role()
			w.exec("GRANT SELECT, UPDATE ON clerkinvite_member TO " + r)
			return r
		}, exitDone, "access", checkWarn, "ROLE (SELECT, UPDATE)"},
		"a writer of a column": {func(w *world) string {
			r := w.role()
			w.exec("GRANT UPDATE (status) ON clerkinvite_member TO " + r)
			return r
		}, exitDone, "access", checkWarn, "ROLE (UPDATE)"},
		"a writer of limits": {func(w *world) string { r := w.role(); w.exec("GRANT TRUNCATE ON clerkinvite_limit TO " + r); return r }, exitDone, "access", checkWarn, "ROLE (TRUNCATE)"},
		"a writer of a version": {func(w *world) string {
			r := w.role()
			w.exec("GRANT DELETE ON clerkinvite_migration TO " + r)
			return r
		}, exitDone, "access", checkWarn, "ROLE (DELETE)"},
		"everybody reads":              {func(w *world) string { w.exec("GRANT SELECT ON clerkinvite_member TO PUBLIC"); return "" }, exitFailed, "access", checkFail, "PUBLIC (SELECT)"},
		"Supabase":                     {func(w *world) string { w.anon(); w.exec("GRANT ALL" + all + "anon"); return "" }, exitFailed, "access", checkFail, "anon (DELETE, INSERT"},
		"Supabase, row-level security": {func(w *world) string { w.anon(); w.exec(rls + "GRANT ALL" + all + "anon"); return "" }, exitDone, "access", checkOK, "may use the tables"},
		"Supabase, a policy": {func(w *world) string {
			w.anon()
			w.exec(rls + "GRANT ALL" + all + "anon; CREATE POLICY anything ON clerkinvite_member USING (true)")
			return ""
		}, exitFailed, "access", checkFail, "anon (DELETE, INSERT"},
		"the user": {func(w *world) string { w.as("ALL"); return "" }, exitDone, "access", checkOK, "may use the tables"},
		"the user's group": {func(w *world) string {
			group, user := w.role(), w.role()
			w.exec("GRANT ALL" + all + group + "; GRANT " + group + " TO " + user)
			w.use(user)
			return ""
		}, exitDone, "access", checkOK, "may use the tables"},
		"Supabase, the user's group": {func(w *world) string {
			w.anon()
			user := w.role()
			w.exec("GRANT ALL" + all + "anon; GRANT anon TO " + user)
			w.use(user)
			return ""
		}, exitFailed, "access", checkFail, "anon (DELETE, INSERT"},
		"rows hidden from the user": {func(w *world) string { w.exec(rls); w.as("ALL"); return "" }, exitFailed, "schema", checkFail, "a policy for the rows of clerkinvite_member"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			role := test.arrange(w)
			r := w.run("doctor", "--json")
			require.Equal(t, test.code, r.code, r.stdout)
			for _, c := range decode[doctorDocument](t, r).Checks {
				if c.Name == test.check {
					require.Equal(t, test.status, c.Status, c.Message)
					require.Contains(t, c.Message, strings.ReplaceAll(test.message, "ROLE", role))
				}
			}
		})
	}
}

// oneAnon lets one test at a time have the role anon, because a role has its name in all databases.
var oneAnon sync.Mutex

// anon creates the role of Supabase's API.
func (w *world) anon() {
	oneAnon.Lock()
	w.t.Cleanup(oneAnon.Unlock)
	w.exec(`DO $$ BEGIN CREATE ROLE anon; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$`)
	w.t.Cleanup(func() {
		pool, ctx := w.db.Pool(w.t), context.WithoutCancel(w.t.Context())
		_, _ = pool.Exec(ctx, "DROP OWNED BY anon") // the role stays: another test's Migrate may be about to revoke its privileges
	})
}

func TestDoctorText(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.run("doctor")
	require.Zero(t, r.code, r.stdout)
	require.Contains(t, r.stdout, "OK    key             accepted by Clerk: a key of a development instance, at CLERK_API_URL")
	w.vars["CLERK_SECRET_KEY"] = "sk_live_wrong"
	r = w.run("doctor")
	require.Equal(t, exitFailed, r.code)
	require.Regexp(t, `FAIL  key +Clerk rejects the key of a production instance.*clerk_key_invalid.*\n +→ .*copy the current key`, r.stdout)
	require.NotContains(t, r.stdout, "sk_live_wrong")
	w.vars["CLERK_API_URL"] = "api.clerk.test"
	require.Regexp(t, `FAIL  key +CLERK_API_URL must be like .*\n +→ set CLERK_API_URL`, w.run("doctor").stdout)
}

// With --limit, doctor says how many members it has compared.
func TestDoctorLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, name := range []string{"ada", "grace", "joan"} {
		w.invite(name + "@example.com")
	}
	for limit, want := range map[string]string{"1": "only 1 member compared", "2": "only 2 members compared", "0": "3 members compared"} {
		require.Regexp(t, "OK    agreement       "+want+" with Clerk", w.run("doctor", "--limit", limit).stdout)
	}
}

// doctorCheck returns doctor's check with this name.
func (w *world) doctorCheck(name string, flags ...string) (found check) {
	w.t.Helper()
	for _, c := range decode[doctorDocument](w.t, w.run(append([]string{"doctor", "--json"}, flags...)...)).Checks {
		if c.Name == name {
			found = c
		}
	}
	require.NotEmpty(w.t, found.Name)
	return found
}

// After a restored backup, reconcile is not the first step.
func TestDoctorPointsToTheRestoreSteps(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := w.invite("ada@example.com")
	w.clerk.CreateForeign("ada@example.com", map[string]any{"clerkinvite": map[string]any{"id": m.ID, "send": 2}})
	c := w.doctorCheck("agreement")
	require.Equal(t, checkWarn, c.Status)
	require.Contains(t, c.Message, "1 invitations newer than their member's row")
	require.True(t, strings.HasPrefix(c.Remedy, "if a backup was restored, stop the application and follow \"A restored backup\" in the library's docs/runbook.md. Otherwise "), c.Remedy)
}

// The key of another instance was configured: while it is, and after the right one is back, doctor says which of the two is the case.
func TestDoctorRecognisesAnotherInstancesKey(t *testing.T) {
	t.Parallel()
	for name, arrange := range map[string]func(w *world){
		"older pending members": func(w *world) { w.invite("ada@example.com") },
		"older active members":  func(w *world) { w.clerk.AddVerifiedUser("ada@example.com"); w.invite("ada@example.com") },
		"both": func(w *world) {
			w.clerk.AddVerifiedUser("ada@example.com")
			w.invite("ada@example.com")
			w.invite("bob@example.com")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			arrange(w)
			require.Equal(t, checkOK, w.doctorCheck("agreement").Status)
			w.pass(time.Hour)

			right := w.clerk
			w.clerk = clerkinvitetest.NewClerk()
			w.clerk.SetSecretKey(testKey)
			w.clerk.SetNow(w.now)
			w.clerk.CreateForeign("x@example.com", nil) // the fakes count, so the first one has an ID of the other instance
			another := httptest.NewServer(w.clerk.Handler())
			t.Cleanup(another.Close)
			rightURL := w.vars["CLERK_API_URL"]
			w.vars["CLERK_API_URL"] = another.URL
			for _, name := range []string{"k", "l", "m", "n"} {
				w.invite(name + "@example.com") // the newest pending members are this instance's
			}
			c := w.doctorCheck("agreement")
			if name == "older active members" { // Reconcile recognises it
				require.Equal(t, checkWarn, c.Status)
				require.Contains(t, c.Remedy, "CLERK_SECRET_KEY belongs to another instance")
			} else {
				require.Equal(t, checkFail, c.Status)
				require.Contains(t, c.Message, "CLERK_SECRET_KEY probably belongs to another instance: Clerk knows members invited since "+stamp(w.member("k@example.com").SettledAt))
			}

			w.clerk, w.vars["CLERK_API_URL"] = right, rightURL
			c = w.doctorCheck("agreement")
			require.Equal(t, checkWarn, c.Status)
			require.Contains(t, c.Message, "not an invitation of "+stamp(w.member("k@example.com").SettledAt)+": another instance's key was probably configured then")
			require.Contains(t, c.Remedy, "CLERK_SECRET_KEY seems right now")
			w.pass(2 * time.Minute)
			for _, name := range []string{"k", "l", "m", "n"} {
				require.Zero(t, w.run("resend", "acme", name+"@example.com").code) // the runbook's step 4
			}
			require.Equal(t, checkOK, w.doctorCheck("agreement").Status)
		})
	}
}

// An adopted row proves nothing about the key: its invitation may have been deleted, or belong to another address.
func TestDoctorDoesNotJudgeTheKeyByAdoptedRows(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := w.invite("ada@example.com")
	elsewhere := clerkinvite.PendingID(w.clerk.CreateForeign("other@example.com", nil).ID)
	r := w.run("adopt", w.file("tenant,email,clerk_user_id,invited_at\nacme,old@example.com,pending_inv_unknown,2020-01-01\nacme,new@example.com,"+elsewhere+",\n"))
	require.Zero(t, r.code, r.stderr)
	c := w.doctorCheck("agreement")
	require.Equal(t, checkOK, c.Status, c.Message)
	w.exec("UPDATE clerkinvite_member SET reason = NULL WHERE email = 'old@example.com'")
	require.Contains(t, w.doctorCheck("agreement").Message, "Clerk knows members invited since "+stamp(m.SettledAt))
}

// Other code wrote a user ID that no request can contain, and Clerk does not know an adopted invitation.
func TestDoctorWithAnImpossibleUserID(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.clerk.AddVerifiedUser("bad@example.com")
	w.clerk.AddVerifiedUser("good@example.com")
	w.invite("bad@example.com")
	w.invite("good@example.com")
	w.exec("UPDATE clerkinvite_member SET clerk_user_id = 'bad id!' WHERE email = 'bad@example.com'")
	r := w.run("adopt", w.file("tenant,email,clerk_user_id\nacme,old@example.com,pending_inv_unknown\n"))
	require.Zero(t, r.code, r.stderr)
	require.Equal(t, checkOK, w.doctorCheck("agreement").Status)
}

// Clerk shows only people who are newer than the members whose users are missing.
func TestDoctorReportsMissingMembers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	u := w.clerk.AddVerifiedUser("old@example.com")
	w.invite("old@example.com")
	w.clerk.DeleteUser(u.ID)
	w.exec("UPDATE clerkinvite_member SET settled_at = settled_at - interval '1 hour', updated_at = updated_at - interval '1 hour'")
	w.invite("new@example.com")
	c := w.doctorCheck("agreement")
	require.Equal(t, checkWarn, c.Status)
	require.Contains(t, c.Message, "1 have no user at Clerk, or the key is another instance's")
	require.Contains(t, c.Remedy, "CLERK_SECRET_KEY belongs to another instance: fix that first")
	require.Regexp(t, `(?m)^1 +missing: active members whose user Clerk does not show`, w.run("reconcile").stdout)
}

func TestDoctorShowsLimits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, call := range []clerkinvitetest.Call{clerkinvitetest.CallCreate, clerkinvitetest.CallCreateBulk} {
		w.clerk.Fail(clerkinvitetest.Fault{Call: call, Status: 429, Code: "too_many_requests", RetryAfter: time.Hour})
	}
	_, err := w.service().Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"})
	require.Error(t, err)
	require.Regexp(t, `; rate limit of POST /invitations until 2\S+Z; rate limit of POST /invitations/bulk until 2\S+Z$`, w.doctorCheck("backlog").Message)
	w.exec("UPDATE clerkinvite_limit SET blocked_until = now() - interval '1 second'")
	require.NotContains(t, w.doctorCheck("backlog").Message, "rate limit")
}

// Rows that the mirrored table rejects wait without a reason.
func TestDoctorShowsUnsavedResults(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.exec(adminUser + "; ALTER TABLE admin_user ADD CHECK (email <> 'ada@example.com')")
	w.mirror()
	w.invite("grace@example.com")
	_, err := w.service().Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"})
	require.ErrorContains(t, err, "23514")
	_, err = w.service().Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "joan@example.com"})
	require.NoError(t, err)
	require.NotContains(t, w.doctorCheck("backlog").Message, "saved", "the attempt may still be running")
	w.exec("UPDATE clerkinvite_member SET claimed_until = now() - interval '1 second' WHERE claimed_until IS NOT NULL")
	require.Contains(t, w.doctorCheck("backlog").Message, "2 reserved, 1 due now, 0 expired but not reconciled; the last attempt for 1 could not be saved: ")
}

func TestDoctorDoesNotBlameTheKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallList, Kind: clerkinvitetest.JSON500, Times: -1})
	c := w.doctorCheck("key")
	require.Equal(t, checkFail, c.Status)
	require.Contains(t, c.Message, "not checked, because Clerk failed, at CLERK_API_URL")
	require.Contains(t, c.Message, "HTTP 500")
	require.NotContains(t, c.Remedy, "rotated")
}
