// Package pgtest gives a test a PostgreSQL database of its own.
//
//	func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }
//
//	func TestSomething(t *testing.T) {
//		t.Parallel()
//		db := pgtest.New(t)   // empty, dropped after the test
//		pool := db.Pool(t)    // closed after the test
//		…
//	}
//
// The first New of a test binary starts one server for all of its tests: a cluster in memory, owned by nobody else, thrown
// away by Main. It takes about half a second; every further database takes about ten milliseconds, so a test never has a reason
// to share one. A database, not a schema, because advisory locks, statistics and the names of types are per database.
//
// What the environment can change:
//
//   - CLERKINVITE_TEST_DATABASE: connection string (URL or keywords) of an existing server on which its user may create
//     databases; no server is started then.
//   - CLERKINVITE_TEST_PGBIN: the directory with initdb and postgres, to choose one of several PostgreSQL versions.
//   - CLERKINVITE_REQUIRE: see [Missing]. With "postgres" in it a test that gets no server fails instead of being skipped.
package pgtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// patience bounds each single thing that is asked of the server outside of the tests' own statements.
const patience = 2 * time.Minute

// instance is where the databases of this test binary come from.
type instance struct {
	dsn  string // of a database on it that is always there
	stop func()
}

// shared is started by the first New and stopped by Main.
var shared struct {
	sync.Mutex

	managed bool // inside Main: somebody will stop what is started
	tried   bool
	inst    instance
	err     error
}

// Main runs the tests (it is written for a *testing.M), stops the server if one was started, and returns the exit code.
func Main(m interface{ Run() int }) int {
	shared.Lock()
	shared.managed = true
	shared.Unlock()

	code := m.Run()

	shared.Lock()
	defer shared.Unlock()
	if shared.inst.stop != nil {
		shared.inst.stop()
	}
	shared.managed, shared.tried, shared.inst, shared.err = false, false, instance{}, nil
	return code
}

// DB is an empty database that belongs to one test.
type DB struct {
	// DSN says everything needed to connect, password included, and nothing that is only true inside this process: it can be
	// handed to a child process in its environment.
	DSN string
	// Addr is the server's TCP address, host:port, for tests that put something in between. It is empty only for a server
	// of CLERKINVITE_TEST_DATABASE that is reached by a unix socket.
	Addr string
}

// New makes an empty database and drops it after the test, whoever is still connected to it. Without any server the test is
// skipped, or fails: see [Missing].
func New(t testing.TB) *DB {
	t.Helper()
	inst, err := start(t.Context())
	if errors.Is(err, ErrNoBinaries) {
		Missing(t, "postgres", err.Error())
	}
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}

	// Random, because a server that was brought along is shared with other runs.
	name := "clerkinvite_test_" + strings.ToLower(rand.Text()[:12])
	dsn, err := withDatabase(inst.dsn, name)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	if err := inst.create(t.Context(), name); err != nil {
		t.Fatalf("pgtest: create a database: %v", err)
	}
	t.Cleanup(func() {
		// The test's own context is over when its cleanups run.
		if err := inst.exec(context.WithoutCancel(t.Context()), "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("pgtest: drop the database: %v", err)
		}
	})

	db := &DB{DSN: dsn}
	if !strings.HasPrefix(cfg.Host, "/") {
		db.Addr = net.JoinHostPort(cfg.Host, strconv.Itoa(int(cfg.Port)))
	}

	return db
}

// Pool connects a pool to the database and closes it after the test. The options may change its configuration before.
func (db *DB) Pool(t testing.TB, opts ...func(*pgxpool.Config)) *pgxpool.Pool {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(db.DSN)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	for _, opt := range opts {
		opt(cfg)
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(func() { closePool(t, pool, 10*time.Second) })

	return pool
}

// closePool closes the pool. Close waits for connections that are still in use; one that was never given back would hang the
// test binary until its time-out, without a word on which test did it.
func closePool(t testing.TB, pool *pgxpool.Pool, limit time.Duration) {
	t.Helper()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		pool.Close()
	}()
	select {
	case <-closed:
	case <-time.After(limit):
		t.Errorf("pgtest: %d connections of the pool were never released", pool.Stat().AcquiredConns())
	}
}

// start returns the instance of this test binary, and starts it if nobody has. A failure is remembered: what failed for the
// first test fails for the others too, only slower.
func start(ctx context.Context) (instance, error) {
	shared.Lock()
	defer shared.Unlock()
	if !shared.managed {
		return instance{}, errors.New("nobody would stop the server: add func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }")
	}
	if !shared.tried {
		shared.tried = true
		shared.inst, shared.err = open(ctx)
	}

	return shared.inst, shared.err
}

// open finds or starts a server.
func open(ctx context.Context) (instance, error) {
	if dsn := os.Getenv("CLERKINVITE_TEST_DATABASE"); dsn != "" {
		// Tried at once, so that a mistyped one is reported as what it is.
		inst := instance{dsn: dsn}
		if err := inst.exec(ctx, "SELECT 1"); err != nil {
			return instance{}, fmt.Errorf("CLERKINVITE_TEST_DATABASE: %w", err)
		}

		return inst, nil
	}
	srv, err := startServer(ctx, false)
	if err != nil {
		return instance{}, err
	}

	return instance{dsn: srv.dsn(), stop: srv.stop}, nil
}

// create makes an empty database.
func (i instance) create(ctx context.Context, name string) error {
	return i.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		var version int
		if err := conn.QueryRow(ctx, "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
			return err
		}
		// template0, because somebody may have put something into template1 of a server that was brought along.
		sql := "CREATE DATABASE " + name + " TEMPLATE template0"
		if version >= 150000 {
			// Three times as fast as the default, which spares a checkpoint: nothing on a server that never syncs. Before
			// 15 it is the only way and has no name.
			sql += " STRATEGY file_copy"
		}
		_, err := conn.Exec(ctx, sql)

		return err
	})
}

func (i instance) exec(ctx context.Context, sql string) error {
	return i.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, sql)
		return err
	})
}

// do connects for one thing only. A connection kept for all of them would have to be guarded, and would be there in the
// statistics and the goroutine dumps of tests that look at those.
func (i instance) do(ctx context.Context, f func(context.Context, *pgx.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, i.dsn)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()

	return f(ctx, conn)
}
