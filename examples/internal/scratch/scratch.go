// Package scratch runs an example in a temporary schema of a PostgreSQL.
package scratch

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/clerkinvite/clerkinvite/internal/pgtest"
)

// Main runs an example in a temporary schema of DATABASE_URL, and ends the program if that
// fails. Without DATABASE_URL it starts a temporary PostgreSQL from local binaries. Ctrl-C and
// SIGTERM end the context of run, and the schema is dropped; a second signal ends the program
// immediately.
func Main(run func(ctx context.Context, pool *pgxpool.Pool) error) {
	log.SetFlags(0)
	err := untilSignal(func(ctx context.Context) error { return onServer(ctx, os.Getenv("DATABASE_URL"), run) })
	if errors.Is(err, pgtest.ErrNoBinaries) {
		log.Fatal("This example needs PostgreSQL, and found none on this machine. Install it (Debian, Ubuntu: apt-get install postgresql;\n" +
			"macOS: brew install postgresql), or name a database:\n\n" +
			"\texport DATABASE_URL=postgres://user:password@localhost:5432/postgres\n\n" +
			"The example uses a temporary schema and a fake Clerk.")
	}
	if err != nil {
		log.Fatal("Error: ", err)
	}
}

// untilSignal calls f with a context that ends with the first SIGINT or SIGTERM.
func untilSignal(f func(ctx context.Context) error) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the second signal has its default effect
	return f(ctx)
}

// onServer runs an example on the server of url, or on a temporary one.
func onServer(ctx context.Context, url string, run func(ctx context.Context, pool *pgxpool.Pool) error) error {
	if url == "" {
		dsn, stop, err := pgtest.Demo(ctx)
		if err != nil {
			return err
		}
		defer stop()
		url = dsn
	}
	return inSchema(ctx, url, run)
}

// dropTimeout limits the wait for statements of the example that still run.
const dropTimeout = 10 * time.Second

func inSchema(ctx context.Context, url string, run func(ctx context.Context, pool *pgxpool.Pool) error) (err error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return err
	}
	schema := fmt.Sprintf("clerkinvite_example_%d", time.Now().UnixNano())
	cfg.ConnConfig.RuntimeParams["search_path"] = schema
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer pool.Close()
	defer func() {
		// ctx may have ended while the schema was created, so it may or may not exist.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dropTimeout)
		defer cancel()
		if _, dropErr := pool.Exec(ctx, "DROP SCHEMA IF EXISTS "+pgx.Identifier{schema}.Sanitize()+" CASCADE"); err == nil {
			err = dropErr
		}
	}()
	if _, err := pool.Exec(ctx, "CREATE SCHEMA "+pgx.Identifier{schema}.Sanitize()); err != nil {
		return err
	}
	return run(ctx, pool)
}
