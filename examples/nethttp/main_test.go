package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
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

// asProgram makes the test binary the program itself, for tests that kill it.
const asProgram = "NETHTTP_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	code := pgtest.Main(m)
	closeBrowser()
	os.Exit(code)
}

// safeBuffer is a log that can be read while it is written.
type safeBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// app is the program, running in the test.
type app struct {
	*program

	clerk  *clerkinvitetest.Clerk
	client *http.Client // does not follow redirects
	log    *safeBuffer
	stop   func() // stops it and waits
}

// start runs the demo, with a changed configuration, until the test ends.
func start(t *testing.T, change ...func(*config)) *app {
	t.Helper()
	log := &safeBuffer{}
	cfg := config{
		addr: "127.0.0.1:0", dir: t.TempDir(), log: slog.New(slog.NewTextHandler(log, nil)),
		timing: timing{lease: time.Minute, cooldown: time.Hour, interval: time.Hour}, // long enough for slow machines
	}
	for _, f := range change {
		f(&cfg)
	}
	cfg, err := cfg.check()
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan *program, 1), make(chan error, 1)
	go func() { ended <- run(ctx, cfg, func(p *program) { ready <- p }) }()
	a := &app{log: log}
	select {
	case a.program = <-ready:
	case err := <-ended:
		cancel()
		require.NoError(t, err)
	}
	transport := &http.Transport{}
	a.client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if a.demo != nil {
		a.clerk = a.demo.clerk
	}
	a.stop = sync.OnceFunc(func() {
		cancel()
		transport.CloseIdleConnections()
		require.NoError(t, <-ended)
	})
	t.Cleanup(a.stop)
	return a
}

// reply is a response with its body.
type reply struct {
	status int
	header http.Header
	body   string
}

// send makes a request. The arguments after the body are headers.
func (a *app) send(t *testing.T, method, path, body string, header ...string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, a.url+path, strings.NewReader(body))
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	resp, err := a.client.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return reply{resp.StatusCode, resp.Header, string(b)}
}

func (a *app) json(t *testing.T, method, path, body string) reply {
	t.Helper()
	return a.send(t, method, "/api/tenants/acme/invitations"+path, body, "Content-Type", "application/json")
}

// form sends a form of the page.
func (a *app) form(t *testing.T, path string, pairs ...string) reply {
	t.Helper()
	values := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		values.Set(pairs[i], pairs[i+1])
	}
	return a.send(t, http.MethodPost, "/tenants/acme"+path, values.Encode(), "Content-Type", "application/x-www-form-urlencoded", "Sec-Fetch-Site", "same-origin")
}

// member returns a member from the database.
func (a *app) member(t *testing.T, email string) *clerkinvite.Member {
	t.Helper()
	m, err := a.invites.Get(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: email})
	require.NoError(t, err)
	return m
}

func (a *app) invite(t *testing.T, email string) *clerkinvite.Member {
	t.Helper()
	m, err := a.invites.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: email, Role: "member"})
	require.NoError(t, err)
	return m
}

// Invalid configurations say how to fix them.
func TestConfiguration(t *testing.T) {
	t.Parallel()
	all := map[string]string{"DATABASE_URL": "postgres://localhost", "CLERK_SECRET_KEY": "sk_test_1", "CLERK_WEBHOOK_SIGNING_SECRET": "whsec_1"}
	only := func(names ...string) map[string]string {
		env := map[string]string{}
		for _, name := range names {
			env[name] = "x"
		}
		return env
	}
	for name, c := range map[string]struct {
		args []string
		env  map[string]string
		err  string
	}{
		"demo":                     {nil, nil, ""},
		"demo, elsewhere":          {[]string{"-addr", "localhost:0", "-data", "x"}, nil, ""},
		"demo, any address":        {[]string{"-addr", ":8080"}, nil, "must be 127.0.0.1 or localhost"},
		"without a database":       {nil, only("CLERK_SECRET_KEY", "CLERK_WEBHOOK_SIGNING_SECRET"), "set all of"},
		"without a key":            {nil, only("DATABASE_URL", "CLERK_WEBHOOK_SIGNING_SECRET"), "set all of"},
		"without a webhook secret": {nil, only("DATABASE_URL", "CLERK_SECRET_KEY"), "set all of"},
		"API URL alone":            {nil, only("CLERK_API_URL"), "the demo uses its own fake Clerk"},
		"real, no guard":           {nil, all, "the pages have no guard"},
		"real, demo sign-in":       {[]string{"-demo-sign-in"}, all, ""},
		"real, any address":        {[]string{"-demo-sign-in", "-addr", "0.0.0.0:80"}, all, "must be 127.0.0.1 or localhost"},
		"an argument":              {[]string{"serve"}, nil, `unexpected argument "serve"`},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := configure(c.args, func(name string) string { return c.env[name] })
			if c.err == "" {
				require.NoError(t, err)
				require.True(t, cfg.demoSignIn, "the page must say so")
				return
			}
			require.ErrorContains(t, err, c.err)
		})
	}
	own := func(*http.Request, string) (string, error) { return "user_1", nil }
	cfg, err := config{addr: ":443", guard: own, databaseURL: "x", secretKey: "x", signingSecret: "x"}.check()
	require.NoError(t, err, "with a guard, any address is allowed")
	require.False(t, cfg.demoSignIn)
	cfg.apiURL, cfg.log = "h", slog.New(slog.DiscardHandler)
	cfg.databaseURL = "password = hunter2 bogus"
	_, err = open(t.Context(), cfg, "")
	require.ErrorContains(t, err, "DATABASE_URL must be like")
	require.NotContains(t, err.Error(), "hunter2")
	_, err = config{addr: "127.0.0.1:0", guard: own, demoSignIn: true}.check()
	require.ErrorContains(t, err, "use one of them")
}

// With PostgreSQL, and the configuration for the real Clerk, which is a fake here.
func TestOnPostgreSQLWithASecretKey(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	clerk := clerkinvitetest.NewClerk()
	clerk.SetSecretKey("sk_test_real")
	server := httptest.NewServer(clerk.Handler())
	defer server.Close()
	env := map[string]string{
		"DATABASE_URL": db.DSN, "CLERK_SECRET_KEY": "sk_test_real", "CLERK_API_URL": server.URL, // without the version
		"CLERK_WEBHOOK_SIGNING_SECRET": clerkinvitetest.WebhookSecret,
	}
	a := start(t, func(cfg *config) {
		log := cfg.log
		configured, err := configure([]string{"-addr", "127.0.0.1:0", "-demo-sign-in"}, func(name string) string { return env[name] })
		require.NoError(t, err)
		*cfg = configured
		cfg.log, cfg.guard = log, nil // start checks it again
	})
	require.Equal(t, 201, a.json(t, "POST", "", `{"email":"Ada@Example.com","role":"admin"}`).status)
	require.Equal(t, 1, clerk.EmailsTo("ada@example.com"))
	page := a.send(t, "GET", "/tenants/acme", "")
	require.Contains(t, page.body, "ada@example.com")
	require.Contains(t, page.body, "Sign-in is a stub")
	require.NotContains(t, page.body, "Emails that Clerk has sent")
	require.Equal(t, 404, a.form(t, "/demo/reconcile").status, "the demo's buttons do not exist")

	webhook, err := clerk.Accept("ada@example.com")
	require.NoError(t, err)
	resp, err := a.client.Do(webhook.Request("whsec_d3Jvbmc=", a.url+"/webhooks/clerk"))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 400, resp.StatusCode, "not signed by this Clerk")
	require.Equal(t, clerkinvite.StatusPending, a.member(t, "ada@example.com").Status)
	signed := webhook.Request(clerkinvitetest.WebhookSecret, a.url+"/webhooks/clerk")
	signed.Host = "tunnel.example.com" // which only passes webhooks
	resp, err = a.client.Do(signed)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 204, resp.StatusCode)
	require.Equal(t, 421, a.send(t, "GET", "/tenants/acme", "", "Host", "tunnel.example.com").status)

	// A proxy for webhooks does not open the pages, even if it changes the Host.
	for _, header := range []string{"X-Forwarded-For", "X-Forwarded-Host", "Forwarded", "Via", "X-Real-IP"} {
		require.Equal(t, 403, a.send(t, "GET", "/tenants/acme", "", header, "x").status, header)
		requireProblem(t, a.send(t, "POST", "/api/tenants/acme/invitations", `{"email":"x@example.com"}`, "Content-Type", "application/json", header, "x"), 403, "/webhooks/clerk only")
		require.Equal(t, 400, a.send(t, "POST", "/webhooks/clerk", "{}", header, "x").status, "an unsigned webhook")
	}
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(a.url, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "GET /tenants/acme HTTP/1.0\r\nHost: 127.0.0.1:8080\r\n\r\n") // nginx with its defaults
	require.NoError(t, err)
	response, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Contains(t, string(response), " 403 Forbidden\r\n")

	var status string
	require.NoError(t, db.Pool(t).QueryRow(t.Context(), "SELECT status FROM clerkinvite_member WHERE email = 'ada@example.com'").Scan(&status))
	require.Equal(t, "active", status)
	a.stop()
	require.NotContains(t, a.log.String(), "ada@example.com")
	require.NotContains(t, a.log.String(), "sk_test_real")
}

// After a stop, there is no goroutine, no incomplete file and no request without a response. The test is not parallel, because it
// counts goroutines.
func TestStopLeavesNothing(t *testing.T) {
	before := runtime.NumGoroutine()
	a := start(t)
	a.invite(t, "ada@example.com")
	started, status := make(chan struct{}), make(chan int, 1)
	a.clerk.OnCall(func(_ context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
		if call != clerkinvitetest.CallCreate || when == clerkinvitetest.After { // Run calls Clerk, too
			return
		}
		select {
		case started <- struct{}{}:
			for !strings.Contains(a.log.String(), "stopping") { // Clerk is slow, and the program is stopped in the meantime
				time.Sleep(time.Millisecond)
			}
		default:
		}
	})
	go func() {
		resp, err := a.client.Post(a.url+"/api/tenants/acme/invitations", "application/json", strings.NewReader(`{"email":"joan@example.com"}`))
		if err != nil {
			status <- 0
			return
		}
		_ = resp.Body.Close()
		status <- resp.StatusCode
	}()
	<-started
	a.stop()
	require.Equal(t, 201, <-status)
	a.client.CloseIdleConnections()
	for deadline := time.Now().Add(patience); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%s", stacks[:runtime.Stack(stacks, true)])
		}
	}
	files, err := filepath.Glob(filepath.Join(filepath.Dir(a.demo.journal.file.Name()), "*"))
	require.NoError(t, err)
	for i := range files {
		files[i] = filepath.Base(files[i])
	}
	require.Equal(t, []string{"clerk.jsonl", "lock", "members.db"}, files)
}

// child is the program as a process.
type child struct {
	*exec.Cmd

	url string
}

var openLine = regexp.MustCompile(`msg="open (http://[^"]+)"`)

func startChild(t *testing.T, dir string) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-addr", "127.0.0.1:0", "-data", dir)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	for _, name := range []string{"DATABASE_URL", "CLERK_SECRET_KEY", "CLERK_WEBHOOK_SIGNING_SECRET", "CLERK_API_URL"} {
		cmd.Env = append(cmd.Env, name+"=")
	}
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	scanner := bufio.NewScanner(stderr)
	for scanner.Scan() {
		if found := openLine.FindStringSubmatch(scanner.Text()); found != nil {
			go func() { _, _ = io.Copy(io.Discard, stderr) }()
			return &child{cmd, found[1]}
		}
		t.Log(scanner.Text())
	}
	t.Fatal("the program has not started")
	return nil
}

// After a restart or a kill, members and Clerk's users still exist, and Reconcile finds nothing to repair.
func TestRestart(t *testing.T) {
	t.Parallel()
	for name, signal := range map[string]os.Signal{"stopped": syscall.SIGTERM, "killed": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			first := startChild(t, dir)
			a := &app{program: &program{url: first.url}, client: &http.Client{
				Transport:     &http.Transport{DisableKeepAlives: true},
				CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			}}
			require.Equal(t, 201, a.json(t, "POST", "", `{"email":"ada@example.com"}`).status)
			require.Equal(t, 201, a.json(t, "POST", "", `{"email":"joan@example.com"}`).status)
			accepted := a.form(t, "/demo/accept", "invitation", "inv_000001")
			require.Contains(t, accepted.header.Get("Location"), "done=demo-accept")
			require.Contains(t, a.json(t, "GET", "/ada@example.com", "").body, `"status":"active"`)
			before := a.json(t, "GET", "", "").body
			require.NoError(t, first.Process.Signal(signal))
			err := first.Wait()
			if signal == syscall.SIGTERM {
				require.NoError(t, err)
			}

			second := startChild(t, dir)
			a.url = second.url
			require.JSONEq(t, before, a.json(t, "GET", "", "").body)
			reconciled := a.form(t, "/demo/reconcile")
			require.Contains(t, reconciled.header.Get("Location"), "n=0-0-0")
			require.JSONEq(t, before, a.json(t, "GET", "", "").body)
			// New IDs differ from the earlier ones.
			require.Equal(t, 303, a.form(t, "/demo/accept", "invitation", "inv_000002").status)
			require.Equal(t, 201, a.json(t, "POST", "", `{"email":"kay@example.com"}`).status)
			var list struct{ Members []clerkinvite.Member }
			require.NoError(t, json.Unmarshal([]byte(a.json(t, "GET", "", "").body), &list))
			require.Equal(t, []clerkinvite.Status{clerkinvite.StatusActive, clerkinvite.StatusActive, clerkinvite.StatusPending},
				[]clerkinvite.Status{list.Members[0].Status, list.Members[1].Status, list.Members[2].Status})
			require.Equal(t, "pending_inv_000003", list.Members[2].ClerkUserID)
			require.NoError(t, second.Process.Signal(syscall.SIGTERM))
			require.NoError(t, second.Wait())
		})
	}
}

// A second process does not start with the files of a running one. It starts when that one has ended, even by a kill.
func TestOneProcessPerDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := startChild(t, dir)
	cfg, err := config{addr: "127.0.0.1:0", dir: dir, log: slog.New(slog.DiscardHandler)}.check()
	require.NoError(t, err)
	err = run(t.Context(), cfg, nil)
	require.ErrorContains(t, err, fmt.Sprintf("the directory %q is in use: stop the other process, or choose another directory with -data", dir))
	require.NoError(t, first.Process.Kill())
	require.Error(t, first.Wait())
	start(t, func(cfg *config) { cfg.dir = dir })
}

// Changes of the fake are on disk before they can be read. Otherwise, after a kill, members could have users that Clerk does not know.
func TestUnsavedChangesAreNotRead(t *testing.T) {
	t.Parallel()
	a := start(t)
	m := a.invite(t, "ada@example.com")
	journal := a.demo.journal
	slow := make(chan struct{})
	journal.mu.Lock()
	journal.sync = func() error { <-slow; return journal.file.Sync() }
	journal.mu.Unlock()
	accepted := make(chan error, 1)
	go func() {
		_, err := a.demo.accept(context.Background(), m.InvitationID)
		accepted <- err
	}()
	for a.clerk.Invitations("ada@example.com")[0].Status != clerkinvite.InvitationAccepted {
		time.Sleep(time.Millisecond)
	}
	early := make(chan string, 1)
	a.clerk.OnCall(func(context.Context, clerkinvitetest.Call, clerkinvitetest.When) {
		select {
		case early <- string(must(os.ReadFile(journal.file.Name()))):
		default:
		}
	})
	reconciled := make(chan error, 1)
	go func() {
		_, err := a.invites.Reconcile(context.Background(), nil)
		reconciled <- err
	}()
	time.Sleep(20 * time.Millisecond) // enough time to read the change, if that were possible
	close(slow)
	require.NoError(t, <-accepted)
	require.NoError(t, <-reconciled)
	require.Contains(t, <-early, `"accepted":"`+m.InvitationID, "readers get only saved changes")
	require.Equal(t, clerkinvite.StatusActive, a.member(t, "ada@example.com").Status)
}

// A damaged journal stops the start: with a Clerk without users, Reconcile would remove the members.
func TestDamagedJournalStopsTheStart(t *testing.T) {
	t.Parallel()
	for name, journal := range map[string]string{
		"not a change":       "{}}\n",
		"unknown invitation": `{"at":"2026-03-01T09:00:00Z","accepted":"inv_000001"}` + "\n",
		"unknown request":    `{"at":"2026-03-01T09:00:00Z","method":"POST","path":"/v1/nothing","body":"{}"}` + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "clerk.jsonl")
			require.NoError(t, os.WriteFile(path, []byte(journal), 0o600))
			cfg, err := config{addr: "127.0.0.1:0", dir: filepath.Dir(path), log: slog.New(slog.DiscardHandler)}.check()
			require.NoError(t, err)
			require.ErrorContains(t, run(t.Context(), cfg, nil), "is damaged")
			require.Equal(t, journal, string(must(os.ReadFile(path))))
		})
	}
}

// An unfinished last line is of a change without a response: it is dropped, and the journal continues in its place.
func TestUnfinishedLineIsDropped(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "clerk.jsonl")
	require.NoError(t, os.WriteFile(path, []byte(`{"at":"2026-03-0`), 0o600))
	a := start(t, func(c *config) { c.dir = filepath.Dir(path) })
	m := a.invite(t, "ada@example.com")
	require.Equal(t, "pending_inv_000001", m.ClerkUserID)
	require.Regexp(t, `^\{"at":"[^"]+","method":"POST","path":"/v1/invitations","body":"[^\n]+\}\n$`, string(must(os.ReadFile(path))))
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// No input can change the direction of the page's text or be invisible in it.
func TestPageHasNothingInvisible(t *testing.T) {
	a := start(t)
	const odd = "\u200b\u202e\u2066\u00ad\u2028\ufeff\U000e0041\u3164"
	for _, r := range []reply{
		a.form(t, "/invitations", "emails", "ada"+odd+"@example.com\nbob"+odd, "role", "admin"+odd),
		a.send(t, "GET", "/tenants/acme"+url.PathEscape(odd), ""),
		a.send(t, "GET", "/tenants/acme"+url.PathEscape(odd)+"/live", ""),
		a.send(t, "GET", "/tenants/acme?state="+url.QueryEscape(odd), ""),
	} {
		require.NotEmpty(t, r.body)
		require.False(t, strings.ContainsAny(r.body, odd), r.body)
	}
}
