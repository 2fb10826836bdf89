package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
)

// TestMain also runs the program, for tests that start it as a process.
func TestMain(m *testing.M) {
	if ahead := os.Getenv("CLERKINVITE_TEST_AHEAD"); ahead != "" { // how far this process's clock is ahead
		d, err := time.ParseDuration(ahead)
		if err != nil {
			panic(err)
		}
		later := func() time.Time { return time.Now().Add(d) }
		os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr, environment{os.Getenv, later, later}))
	}
	if os.Getenv("CLERKINVITE_TEST_MAIN") != "" {
		main()
	}
	os.Exit(pgtest.Main(m))
}

const testKey = "sk_test_a_key_that_must_not_be_printed"

// world is a database with tables, a fake Clerk over HTTP, a clock, and the environment variables for them.
type world struct {
	t     *testing.T
	clerk *clerkinvitetest.Clerk
	db    *pgtest.DB
	store *clerkinvite.PgxStore
	vars  map[string]string
	wrap  func(http.Handler) http.Handler

	mu    sync.Mutex
	ahead time.Duration // of the clocks of the tool, the tables and the fake
	skew  time.Duration // of the clock of the tool alone
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, clerk: clerkinvitetest.NewClerk(), db: pgtest.New(t)}
	w.store = clerkinvite.NewPgxStore(w.db.Pool(t), &clerkinvite.PgxOptions{Now: w.now})
	require.NoError(t, w.store.Migrate(t.Context()))
	handler := w.clerk.Handler()
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		h := handler
		if w.wrap != nil {
			h = w.wrap(h)
		}
		h.ServeHTTP(rw, r)
	}))
	t.Cleanup(server.Close)
	w.clerk.SetSecretKey(testKey)
	w.clerk.SetNow(w.now)
	w.vars = map[string]string{
		"DATABASE_URL": w.db.DSN, "CLERK_SECRET_KEY": testKey, "CLERK_API_URL": server.URL, "CLERK_WEBHOOK_SIGNING_SECRET": clerkinvitetest.WebhookSecret,
	}
	return w
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.ahead)
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ahead += d
}

// result is the result of a run of the program.
type result struct {
	code           int
	stdout, stderr string
}

func (w *world) run(args ...string) result {
	return w.runWith(w.t.Context(), "", &strings.Builder{}, args...)
}

// runWith runs the program in this process. Its standard error goes to stderr and into the result.
func (w *world) runWith(ctx context.Context, stdin string, stderr io.Writer, args ...string) result {
	var out, errs bytes.Buffer
	code := run(ctx, args, strings.NewReader(stdin), &out, io.MultiWriter(&errs, stderr), environment{
		getenv: func(name string) string { return w.vars[name] }, now: func() time.Time { return w.now().Add(w.skew) }, databaseNow: w.now,
	})
	r := result{code, out.String(), errs.String()}
	require.NotContains(w.t, r.stdout+r.stderr, testKey, "the key is never printed")
	return r
}

// decode decodes the JSON document that the program printed.
func decode[T any](t *testing.T, r result) (document T) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(r.stdout))
	d.DisallowUnknownFields()
	require.NoError(t, d.Decode(&document), r.stdout)
	_, err := d.Token()
	require.ErrorIs(t, err, io.EOF, "one document: %s", r.stdout)
	return document
}

// service returns the application's service.
func (w *world) service() *clerkinvite.Service {
	svc, err := clerkinvite.New(clerkinvite.Config{API: w.clerk, Organizations: w.clerk, Store: w.store, Now: w.now})
	require.NoError(w.t, err)
	return svc
}

func (w *world) invite(email string) *clerkinvite.Member {
	m, err := w.service().Invite(w.t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: email})
	require.NoError(w.t, err)
	return m
}

func (w *world) member(email string) *clerkinvite.Member {
	m, err := w.service().Get(w.t.Context(), clerkinvite.Ref{TenantID: "acme", Email: email})
	require.NoError(w.t, err)
	return m
}

type errorDocument struct {
	Error string `json:"error"`
}

func TestEveryCommandHasHelp(t *testing.T) {
	t.Parallel()
	w := &world{t: t}
	r := w.run("help")
	require.Zero(t, r.code)
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	for _, c := range commands() {
		require.Contains(t, r.stdout, "  "+c.name+" ")
		for _, args := range [][]string{{c.name, "--help"}, {"help", c.name}} {
			h := w.run(args...)
			require.Zero(t, h.code)
			require.Contains(t, h.stdout, "\n  clerkinvite "+c.name, "an example")
			require.Contains(t, h.stdout, "As JSON: {")
			require.Contains(t, h.stdout, "-schema")
			require.Empty(t, h.stderr)
		}
		require.Contains(t, string(readme), "`"+c.name, "missing in the README")
	}
}

func TestUsageErrors(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args []string
		text string
	}{
		{nil, "Usage:"},
		{[]string{"delete"}, `unknown command "delete"`},
		{[]string{"list"}, "usage: clerkinvite list TENANT"},
		{[]string{"list", "acme", "too", "much"}, "usage: clerkinvite list TENANT"},
		{[]string{"list", "acme", "--colour"}, "flag provided but not defined: -colour"},
		{[]string{"list", "acme", "--all", "--limit", "5"}, "cannot be combined"},
		{[]string{"doctor", "--limit", "-1"}, "--limit must not be negative"},
		{[]string{"list", "acme"}, "DATABASE_URL is not set"},
		{[]string{"reconcile"}, "CLERK_SECRET_KEY is not set"},
		{[]string{"import", "not-there.csv"}, "not-there.csv"},
	} {
		w := &world{t: t}
		r := w.run(test.args...)
		require.Equal(t, exitUsage, r.code, test.args)
		require.Contains(t, r.stderr, test.text)
		require.Empty(t, r.stdout)
	}
	w := &world{t: t, vars: map[string]string{"DATABASE_URL": "postgres://u:secret@[", "CLERK_SECRET_KEY": testKey + "\n"}}
	r := w.run("list", "acme", "--json")
	require.Equal(t, exitUsage, r.code)
	require.NotContains(t, r.stdout+r.stderr, "secret@")
	require.NotEmpty(t, decode[errorDocument](t, r).Error)
	r = w.run("reconcile")
	require.Equal(t, exitUsage, r.code)
	require.Contains(t, r.stderr, "line break")
	for _, dsn := range []string{
		"password = hunter2 host=h bogus", "password=a hunter2 host=h", "postgres://u:a/hunter2@h:x/d", "postgres://u:hunter2@h:x/d", "host=h sslmode=hunter2",
		"postgres://u@h/d?pool_max_conns=hunter2",
	} {
		w.vars["DATABASE_URL"] = dsn
		r = w.run("validate")
		require.Equal(t, exitUsage, r.code)
		require.Contains(t, r.stderr, "DATABASE_URL")
		require.NotContains(t, r.stderr, "hunter2")
	}
}

func TestAPIURL(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"": "", "https://h": "https://h", "http://h:1/v1/": "http://h:1/v1",
		"127.0.0.1:55998": "CLERK_API_URL", "h": "CLERK_API_URL", "ftp://h": "CLERK_API_URL", "https://u:hunter2@h": "CLERK_API_URL", "https://h/?a=hunter2": "CLERK_API_URL",
	} {
		got, err := (&tool{env: environment{getenv: func(string) string { return url }}}).apiURL()
		if err != nil {
			require.NotContains(t, err.Error(), "hunter2")
			got, _, _ = strings.Cut(err.Error(), " ")
		}
		require.Equal(t, want, got, url)
	}
}

// full is a standard output that is full after room bytes.
type full struct{ room int }

func (f *full) Write(b []byte) (int, error) {
	n := min(f.room, len(b))
	f.room -= n
	if n < len(b) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

func TestIncompleteOutputIsAnError(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := w.service().ReserveMany(t.Context(), []clerkinvite.InviteParams{{TenantID: "acme", Email: "ada@example.com"}})
	require.NoError(t, err)
	for _, args := range [][]string{
		{"list", "acme"}, {"list", "acme", "--json"}, {"show", "acme", "ada@example.com"}, {"show", "acme", "ada@example.com", "--json"},
		{"doctor"}, {"doctor", "--json"}, {"reconcile", "--dry-run"}, {"help"}, {"help", "list"},
		{"import", w.file("tenant,email\nacme,not-an-address\n"), "--dry-run"},
	} {
		var errs bytes.Buffer
		code := run(t.Context(), args, strings.NewReader(""), &full{room: 10}, &errs, environment{getenv: func(v string) string { return w.vars[v] }, now: w.now, databaseNow: w.now})
		require.Equal(t, exitFailed, code, "%v %s", args, errs.String())
		require.Contains(t, errs.String(), "the output is incomplete: no space left on device")
	}
}

// Scripts rely on these keys.
func TestJSONKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.invite("ada@example.com")
	name := w.file("tenant,email\nacme,grace@example.com\nacme,not-an-address\n")
	for _, test := range []struct {
		args []string
		keys string
	}{
		{[]string{"migrate"}, "ok"},
		{[]string{"validate"}, "ok"},
		{[]string{"import", name, "--dry-run"}, "counts dry_run file lines members problems tenants"},
		{[]string{"import", name}, "counts dry_run file lines problems"},
		{[]string{"invite", "acme", "joan@example.com"}, "member"},
		{[]string{"list", "acme"}, "members next"},
		{[]string{"show", "acme", "ada@example.com"}, "history member"},
		{[]string{"revoke", "acme", "ada@example.com"}, "member"},
		{[]string{"resend", "acme", "ada@example.com"}, "error"},
		{[]string{"reconcile"}, "accepted_elsewhere activated cursor dry_run expired invitations left_over members missing moved newer out_of_date removed revoked unknown"},
		{[]string{"adopt", w.file("tenant,email,clerk_user_id\nacme,grace@example.com,user_1\n")}, "adopted dry_run existing file lines problems"},
		{[]string{"remove", "acme", "grace@example.com"}, "member"},
		{[]string{"purge", "acme", "grace@example.com"}, "ok"},
		{[]string{"deliver"}, "claimed ended invited linked postponed refused waiting"},
		{[]string{"doctor"}, "checks ok"},
		{[]string{"doctor", "--colour"}, "error"},
	} {
		document := decode[map[string]any](t, w.run(append(test.args, "--json")...))
		require.Equal(t, test.keys, strings.Join(slices.Sorted(maps.Keys(document)), " "), test.args)
	}
}

func TestFlagsMayFollowArguments(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.invite("ada@example.com")
	for _, args := range [][]string{
		{"show", "--json", "acme", "ada@example.com"}, {"show", "acme", "--json", "ada@example.com"}, {"show", "acme", "ada@example.com", "--json"},
		{"show", "--json", "--", "acme", "ada@example.com"},
	} {
		r := w.run(args...)
		require.Zero(t, r.code, r.stderr)
		require.JSONEq(t, w.run("show", "acme", "ada@example.com", "--json").stdout, r.stdout)
	}
	r := w.run("show", "--", "acme", "--json")
	require.Equal(t, exitUsage, r.code, "an invalid address")
}
