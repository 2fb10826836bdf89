package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
)

// childMode in the environment makes this test binary act as another program.
const childMode = "PGTEST_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(childMode) {
	case "":
		os.Exit(Main(m))
	case "connect":
		childConnect()
	case "hang":
		childHang()
	}
}

// child runs this test binary again, with only the given environment.
func child(t *testing.T, mode string, env ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), exe)
	// The race detector otherwise waits for a second at the end of each process.
	cmd.Env = slices.Concat(env, []string{childMode + "=" + mode, "GORACE=atexit_sleep_ms=0"})
	cmd.Stderr = os.Stderr

	return cmd
}

// childConnect is a program that gets only a connection string.
func childConnect() {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, os.Getenv("DATABASE"))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	var name string
	if err := conn.QueryRow(ctx, "SELECT current_database()").Scan(&name); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Print(name)
}

// childHang starts a server, prints its directory and connection string, and waits to be killed.
func childHang() {
	srv, err := startServer(context.Background(), false)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(srv.dir)
	fmt.Println(srv.dsn())
	select {}
}

// ownServer skips tests that start a server if this machine cannot start one.
func ownServer(t *testing.T) {
	t.Helper()
	if _, err := findBin(); errors.Is(err, ErrNoBinaries) {
		Missing(t, "postgres", err.Error())
	}
}

// fakeTB is a test whose failure does not fail the real test.
type fakeTB struct {
	testing.TB // Name, Context, Helper

	mu       sync.Mutex
	log      string
	outcome  string
	cleanups []func()
}

// run calls f like the test runner: in a goroutine that FailNow and SkipNow may end. Then it calls the cleanups.
func (f *fakeTB) run(body func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		body()
	}()
	<-done
	for _, cleanup := range slices.Backward(f.cleanups) {
		cleanup()
	}
}

func (f *fakeTB) Cleanup(c func()) { f.cleanups = append(f.cleanups, c) }

func (f *fakeTB) Errorf(format string, args ...any) { f.note("failed", fmt.Sprintf(format, args...)) }

func (f *fakeTB) Fatalf(format string, args ...any) {
	f.note("failed", fmt.Sprintf(format, args...))
	runtime.Goexit()
}

func (f *fakeTB) Skip(args ...any) {
	f.note("skipped", fmt.Sprint(args...))
	runtime.Goexit()
}

func (f *fakeTB) note(outcome, text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.outcome = outcome
	f.log += text + "\n"
}

func TestNewGivesEachTestItsOwnEmptyDatabase(t *testing.T) {
	t.Parallel()
	a, b := New(t), New(t)
	require.NotEqual(t, a.DSN, b.DSN)
	_, err := a.Pool(t).Exec(t.Context(), "CREATE TABLE thing (n int)")
	require.NoError(t, err)
	for db, want := range map[*DB]int{a: 1, b: 0} {
		var tables int
		err := db.Pool(t).QueryRow(t.Context(), "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace").Scan(&tables)
		require.NoError(t, err)
		require.Equal(t, want, tables)
	}
}

func TestNewInParallel(t *testing.T) {
	t.Parallel()
	for i := range 20 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			_, err := New(t).Pool(t).Exec(t.Context(), "CREATE TABLE thing (n int)")
			require.NoError(t, err)
		})
	}
}

func TestTheDatabaseIsDroppedUnderOpenConnections(t *testing.T) {
	t.Parallel()
	keeper := New(t).Pool(t)
	var gone *DB
	var conn *pgx.Conn
	t.Run("owner", func(t *testing.T) {
		gone = New(t)
		var err error
		conn, err = pgx.Connect(t.Context(), gone.DSN) // never closed
		require.NoError(t, err)
	})
	require.Error(t, conn.Ping(t.Context()))

	_, err := pgx.Connect(t.Context(), gone.DSN)
	var pgErr *pgconn.PgError
	require.ErrorAs(t, err, &pgErr)
	require.Equal(t, "3D000", pgErr.Code, "invalid_catalog_name")
	require.NoError(t, keeper.Ping(t.Context()), "a neighbour's database")
}

func TestTheDSNIsAllThatAChildProcessNeeds(t *testing.T) {
	t.Parallel()
	db := New(t)
	cfg, err := pgx.ParseConfig(db.DSN)
	require.NoError(t, err)
	out, err := child(t, "connect", "DATABASE="+db.DSN).Output()
	require.NoError(t, err, "%s", out)
	require.Equal(t, cfg.Database, string(out))
}

func TestAddrIsWhereTheServerListens(t *testing.T) {
	t.Parallel()
	db := New(t)
	if db.Addr == "" {
		Missing(t, "postgres", "CLERKINVITE_TEST_DATABASE is reached by a socket; name its TCP address")
	}
	cfg, err := pgx.ParseConfig(db.DSN)
	require.NoError(t, err)
	require.Equal(t, db.Addr, fmt.Sprintf("%s:%d", cfg.Host, cfg.Port))
}

func TestPoolOptions(t *testing.T) {
	t.Parallel()
	pool := New(t).Pool(t, func(cfg *pgxpool.Config) { cfg.MaxConns = 3 })
	require.EqualValues(t, 3, pool.Config().MaxConns)
}

func TestAConnectionThatIsNeverReleasedIsReported(t *testing.T) {
	t.Parallel()
	db := New(t)
	pool, err := pgxpool.New(t.Context(), db.DSN)
	require.NoError(t, err)
	conn, err := pool.Acquire(t.Context())
	require.NoError(t, err)
	f := &fakeTB{TB: t}
	closePool(f, pool, time.Millisecond)
	require.Equal(t, "failed", f.outcome)
	require.Contains(t, f.log, "1 connections")
	conn.Release()
}

// The tests below are not parallel: they use state that all tests of the binary share, or change the environment.

func TestOutsideOfMainNewFails(t *testing.T) {
	shared.Lock()
	shared.managed = false
	shared.Unlock()
	defer func() {
		shared.Lock()
		shared.managed = true
		shared.Unlock()
	}()
	f := &fakeTB{TB: t}
	f.run(func() { New(f) })
	require.Equal(t, "failed", f.outcome)
	require.Contains(t, f.log, "func TestMain(")
}

func TestMissing(t *testing.T) {
	for list, want := range map[string]string{
		"":                  "skipped",
		"openapi":           "skipped",
		"postgres":          "failed",
		"openapi, postgres": "failed",
		"postgresql":        "skipped",
	} {
		t.Setenv("CLERKINVITE_REQUIRE", list)
		f := &fakeTB{TB: t}
		f.run(func() {
			Missing(f, "postgres", "no server; get one")
			t.Error("Missing has returned")
		})
		require.Equal(t, want, f.outcome, list)
		require.Contains(t, f.log, "no server; get one")
	}
}

func TestMissingInCI(t *testing.T) {
	for _, test := range []struct {
		ci, require, want string
	}{
		{"", "", "skipped"}, // a developer's machine
		{"false", "", "skipped"},
		{"true", "", "failed"},
		{"1", "", "failed"},
		{"true", "openapi", "skipped"}, // the list decides, as in .ci/run
		{"true", "postgres", "failed"},
	} {
		t.Setenv("CI", test.ci)
		t.Setenv("CLERKINVITE_REQUIRE", test.require) // restores the variable after the test
		if test.require == "" {
			require.NoError(t, os.Unsetenv("CLERKINVITE_REQUIRE"))
		}
		f := &fakeTB{TB: t}
		f.run(func() { Missing(f, "postgres", "no server") })
		require.Equal(t, test.want, f.outcome, test)
	}
}

// runs is a *testing.M with one test.
type runs func() int

func (r runs) Run() int { return r() }

// mainInMain makes this binary's server survive a Main inside Main.
func mainInMain(t *testing.T) {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	managed, tried, inst, err, kept := shared.managed, shared.tried, shared.inst, shared.err, shared.kept
	shared.tried, shared.inst, shared.err, shared.kept = false, instance{}, nil, nil
	t.Cleanup(func() {
		shared.Lock()
		defer shared.Unlock()
		shared.managed, shared.tried, shared.inst, shared.err, shared.kept = managed, tried, inst, err, kept
	})
}

func TestMainReturnsTheCodeAndStopsTheServer(t *testing.T) {
	ownServer(t)
	mainInMain(t)
	t.Setenv("CLERKINVITE_TEST_DATABASE", "")

	var db *DB
	code := Main(runs(func() int {
		f := &fakeTB{TB: t}
		f.run(func() {
			db = New(f)
			require.NoError(t, db.Pool(f).Ping(t.Context()))
		})
		require.Empty(t, f.log)

		return 7
	}))
	require.Equal(t, 7, code)
	_, connectErr := pgx.Connect(t.Context(), db.DSN)
	require.Error(t, connectErr)
}

func TestMainDropsWhatWasKept(t *testing.T) {
	ownServer(t)
	srv, err := startServer(t.Context(), false)
	require.NoError(t, err)
	defer srv.stop()
	mainInMain(t)
	t.Setenv("CLERKINVITE_TEST_DATABASE", srv.dsn())

	var db *DB
	Main(runs(func() int {
		f := &fakeTB{TB: t}
		f.run(func() { db = Keep(f) })
		require.Empty(t, f.log)
		require.NoError(t, db.Pool(t).Ping(t.Context()), "after the test that kept it")

		return 0
	}))
	_, err = pgx.Connect(t.Context(), db.DSN)
	require.ErrorContains(t, err, "3D000", "does not exist")
}

func TestWithoutBinaries(t *testing.T) {
	defer func(patterns []string) { binPatterns = patterns }(binPatterns)
	binPatterns = nil
	t.Setenv("PATH", t.TempDir())
	t.Setenv("CLERKINVITE_TEST_DATABASE", "")
	t.Setenv("CLERKINVITE_TEST_PGBIN", "")
	_, err := open(t.Context())
	require.ErrorIs(t, err, ErrNoBinaries)

	// A required but missing PostgreSQL is an error, not a reason to skip.
	t.Setenv("CLERKINVITE_TEST_PGBIN", t.TempDir())
	_, err = open(t.Context())
	require.ErrorContains(t, err, "CLERKINVITE_TEST_PGBIN")
	require.NotErrorIs(t, err, ErrNoBinaries)
}

func TestTheNewestVersionIsTaken(t *testing.T) {
	if !supported {
		Missing(t, "postgres", "no server on this system")
	}
	defer func(patterns []string) { binPatterns = patterns }(binPatterns)
	base := t.TempDir()
	binPatterns = []string{filepath.Join(base, "*", "bin")}
	for _, v := range []string{"9", "15", "16", "17"} {
		dir := filepath.Join(base, v, "bin")
		require.NoError(t, os.MkdirAll(dir, 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "postgres"), nil, 0o755))
		if v != "17" { // a client only
			require.NoError(t, os.WriteFile(filepath.Join(dir, "initdb"), nil, 0o755))
		}
	}
	t.Setenv("PATH", t.TempDir())
	t.Setenv("CLERKINVITE_TEST_PGBIN", "")
	dir, err := findBin()
	require.NoError(t, err)
	require.Equal(t, filepath.Join(base, "16", "bin"), dir)
}

func TestAServerThatWasBroughtAlong(t *testing.T) {
	ownServer(t)
	srv, err := startServer(t.Context(), false)
	require.NoError(t, err)
	defer srv.stop()

	keywords := fmt.Sprintf("host=127.0.0.1 port=%d user=postgres password='%s' dbname=postgres sslmode=disable", srv.port, srv.password)
	socket := fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres", srv.dir, srv.port)
	for _, dsn := range []string{srv.dsn(), keywords, socket} {
		t.Setenv("CLERKINVITE_TEST_DATABASE", dsn)
		inst, err := open(t.Context())
		require.NoError(t, err)
		require.Nil(t, inst.stop, "not stopped, because this package has not started it")
		require.NoError(t, inst.create(t.Context(), "brought_along"))
		edited, err := withDatabase(inst.dsn, "brought_along")
		require.NoError(t, err)
		out, err := child(t, "connect", "DATABASE="+edited).Output()
		require.NoError(t, err, "%s", out)
		require.Equal(t, "brought_along", string(out))
		require.NoError(t, inst.exec(t.Context(), "DROP DATABASE brought_along WITH (FORCE)"))
	}

	t.Setenv("CLERKINVITE_TEST_DATABASE", strings.Replace(srv.dsn(), srv.password, "wrong", 1))
	_, err = open(t.Context())
	require.ErrorContains(t, err, "CLERKINVITE_TEST_DATABASE")
}

func TestThePortIsNotOpenToEverybody(t *testing.T) {
	ownServer(t)
	srv, err := startServer(t.Context(), false)
	require.NoError(t, err)
	defer srv.stop()
	for _, password := range []string{"", "wrong"} {
		_, err := pgx.Connect(t.Context(), strings.Replace(srv.dsn(), srv.password, password, 1))
		require.Error(t, err, password)
	}
	info, err := os.Stat(srv.dir)
	require.NoError(t, err)
	require.Zero(t, info.Mode().Perm()&0o077, "the socket's directory: %v", info.Mode())
}

func TestAPortThatIsTakenIsLeftAlone(t *testing.T) {
	ownServer(t)
	first, err := startServer(t.Context(), false)
	require.NoError(t, err)
	defer first.stop()

	defer func(f func() (int, error)) { freePort = f }(freePort)
	free, calls := freePort, 0
	freePort = func() (int, error) {
		if calls++; calls < 3 {
			return first.port, nil
		}

		return free()
	}
	second, err := startServer(t.Context(), false)
	require.NoError(t, err)
	defer second.stop()
	require.Equal(t, 3, calls)
	require.NotEqual(t, first.port, second.port)
}

func TestStopLeavesNothingBehind(t *testing.T) {
	ownServer(t)
	srv, err := startServer(t.Context(), false)
	require.NoError(t, err)
	conn, err := pgx.Connect(t.Context(), srv.dsn())
	require.NoError(t, err)
	srv.stop()
	require.NoDirExists(t, srv.dir)
	require.Error(t, conn.Ping(t.Context()))
}

func TestAKilledTestBinaryLeavesNothingBehind(t *testing.T) {
	ownServer(t)
	cmd := child(t, "hang", "PATH="+os.Getenv("PATH"), "TMPDIR="+os.Getenv("TMPDIR"), "CLERKINVITE_TEST_PGBIN="+os.Getenv("CLERKINVITE_TEST_PGBIN"))
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var dir, dsn string
	_, err = fmt.Fscanln(out, &dir)
	require.NoError(t, err)
	_, err = fmt.Fscanln(out, &dsn)
	require.NoError(t, err)
	conn, err := pgx.Connect(t.Context(), dsn)
	require.NoError(t, err)

	sweep(filepath.Dir(dir))
	require.DirExists(t, dir, "its owner lives")
	require.NoError(t, conn.Ping(t.Context()))

	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	if runtime.GOOS == "linux" {
		require.Eventually(t, func() bool { return conn.Ping(t.Context()) != nil }, patience, 10*time.Millisecond)
	}
	sweep(filepath.Dir(dir))
	require.NoDirExists(t, dir)
}

func TestSweepLeavesWhatItDoesNotKnow(t *testing.T) {
	base := t.TempDir()
	started, abandoned, foreign := filepath.Join(base, dirPrefix+"1"), filepath.Join(base, dirPrefix+"2"), filepath.Join(base, "other")
	for _, dir := range []string{started, abandoned, foreign} {
		require.NoError(t, os.Mkdir(dir, 0o700))
	}
	old := time.Now().Add(-2 * time.Hour)
	require.NoError(t, os.Chtimes(abandoned, old, old))
	require.NoError(t, os.Chtimes(foreign, old, old))
	sweep(base)
	require.DirExists(t, started, "not locked yet; its process may be about to lock it")
	require.NoDirExists(t, abandoned)
	require.DirExists(t, foreign)
}

// A test creates a cluster and starts a server. After the test, both are removed.
func TestAServerThatATestStartsByItself(t *testing.T) {
	t.Parallel()
	ownServer(t)
	var dir string
	var exited <-chan struct{}
	t.Run("owner", func(t *testing.T) {
		bin := Bin(t)
		dir = Dir(t)
		data := filepath.Join(dir, "data")
		out, err := Command(t, dir, filepath.Join(bin, "initdb"), "-D", data, "-A", "trust", "-U", "postgres", "--no-sync").CombinedOutput()
		require.NoError(t, err, "%s", out)
		cmd := Command(t, dir, filepath.Join(bin, "postgres"), "-D", data, "-k", dir, "-c", "listen_addresses=", "-F")
		exited, err = Start(cmd)
		require.NoError(t, err)
		t.Cleanup(func() {
			_ = quit(cmd.Process)
			<-exited
		})
		require.Eventually(t, func() bool {
			conn, err := pgx.Connect(t.Context(), "user=postgres host="+dir)
			if err != nil {
				return false
			}
			return conn.Close(t.Context()) == nil
		}, patience, 10*time.Millisecond)
	})
	require.NoDirExists(t, filepath.Dir(dir))
	<-exited

	_, err := Start(Command(t, Dir(t), "/no/such/program"))
	require.ErrorIs(t, err, os.ErrNotExist)
}
