// Package pgtest gives each test its own PostgreSQL database.
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
// The first New of a test binary starts one server for all of its tests: a private cluster in memory, which Main removes. That
// takes about half a second, and a database about ten milliseconds. A test has a database to itself, because advisory locks,
// statistics and the names of types are per database. If many tests need one, later tests can use those of earlier tests: see
// [Keep].
//
// Environment variables:
//
//   - CLERKINVITE_TEST_DATABASE: connection string (URL or keywords) of an existing server on which its user may create
//     databases. New then starts no server.
//   - CLERKINVITE_TEST_PGBIN: the directory with initdb and postgres, to choose one of several PostgreSQL versions.
//   - CLERKINVITE_REQUIRE: see [Missing]. If it contains "postgres", a test without a server fails instead of being skipped.
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

// patience limits each operation of this package on the server.
const patience = 2 * time.Minute

// instance is the server on which this test binary creates databases.
type instance struct {
	dsn  string // of a database that always exists
	stop func()
}

// shared is started by the first New and stopped by Main.
var shared struct {
	sync.Mutex

	managed bool // inside Main, which stops the server
	tried   bool
	inst    instance
	err     error
	kept    []string // databases of Keep
}

// Main runs the tests of a *testing.M, stops the server if one was started, and returns the exit code.
func Main(m interface{ Run() int }) int {
	shared.Lock()
	shared.managed = true
	shared.Unlock()

	code := m.Run()

	shared.Lock()
	defer shared.Unlock()
	switch {
	case shared.inst.stop != nil:
		shared.inst.stop()
	default:
		for _, name := range shared.kept {
			if err := shared.inst.drop(context.Background(), name); err != nil {
				fmt.Fprintf(os.Stderr, "pgtest: drop the database: %v\n", err)
			}
		}
	}
	shared.managed, shared.tried, shared.inst, shared.err, shared.kept = false, false, instance{}, nil, nil
	return code
}

// DB is an empty database that belongs to one test.
type DB struct {
	// DSN is the connection string, with the password. Child processes can use it, too.
	DSN string
	// Addr is the server's TCP address, host:port, for tests with a proxy. It is empty only for a server of
	// CLERKINVITE_TEST_DATABASE on a unix socket.
	Addr string
}

// New creates an empty database, and drops it after the test even if connections to it are open. Without a server the test is
// skipped or fails; see [Missing].
func New(t testing.TB) *DB {
	t.Helper()
	db, inst, name := create(t)
	t.Cleanup(func() {
		// The test's context has ended when cleanups run.
		if err := inst.drop(context.WithoutCancel(t.Context()), name); err != nil {
			t.Errorf("pgtest: drop the database: %v", err)
		}
	})

	return db
}

// Keep is New for a database that other tests use after this one. Main drops it.
func Keep(t testing.TB) *DB {
	t.Helper()
	db, _, name := create(t)
	shared.Lock()
	defer shared.Unlock()
	shared.kept = append(shared.kept, name)

	return db
}

func create(t testing.TB) (db *DB, inst instance, name string) {
	t.Helper()
	inst, err := start(t.Context())
	if errors.Is(err, ErrNoBinaries) {
		Missing(t, "postgres", err.Error())
	}
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}

	// Random, because other runs may use the server of CLERKINVITE_TEST_DATABASE, too.
	name = "clerkinvite_test_" + strings.ToLower(rand.Text()[:12])
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

	db = &DB{DSN: dsn}
	if !strings.HasPrefix(cfg.Host, "/") {
		db.Addr = net.JoinHostPort(cfg.Host, strconv.Itoa(int(cfg.Port)))
	}

	return db, inst, name
}

// Pool connects a pool to the database and closes it after the test. The options may change its configuration.
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

// closePool closes the pool. Close waits for connections in use, so a connection that is never released would block the test
// binary until its timeout, without showing which test is to blame.
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

// start returns the instance of this test binary, and starts it on the first call. It remembers a failure, because it would
// fail for the other tests, too, only more slowly.
func start(ctx context.Context) (instance, error) {
	shared.Lock()
	defer shared.Unlock()
	if !shared.managed {
		return instance{}, errors.New("the server would never be stopped: add func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }")
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
		// Try it immediately, so that the error names the variable if it is wrong.
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

// create creates an empty database.
func (i instance) create(ctx context.Context, name string) error {
	return i.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		var version int
		if err := conn.QueryRow(ctx, "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
			return err
		}
		// template0, because template1 of an existing server may not be empty.
		sql := "CREATE DATABASE " + name + " TEMPLATE template0"
		if version >= 150000 {
			// Three times as fast as the default, which saves a checkpoint, but a checkpoint costs nothing on a server that
			// never syncs. Before 15 this is the only strategy and has no name.
			sql += " STRATEGY file_copy"
		}
		_, err := conn.Exec(ctx, sql)

		return err
	})
}

func (i instance) drop(ctx context.Context, name string) error {
	return i.exec(ctx, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)")
}

func (i instance) exec(ctx context.Context, sql string) error {
	return i.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, sql)
		return err
	})
}

// do connects for one operation. A shared connection would need a lock, and would appear in statistics and goroutine dumps that
// tests look at.
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
