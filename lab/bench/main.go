// The command bench compares Invite with the same flow written by hand, and
// ReserveMany with plain SQL, and prints a Markdown table of ratios.
//
//	go run -C lab ./bench [-quick] [-rounds n] [-database url]
//
// A rate alone says little: it differs between machines, and between hours on one
// machine. So the variants run in turn, A B C A B C …, and the table has the median
// and the spread of the ratios within each round. A variant that leaves other rows or
// sends other emails than the library ends the run with an error.
//
// Without -database it starts a throw-away PostgreSQL with default settings on the
// disk of the directory for temporary files, so every commit waits for that disk.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
)

// size is how much is measured.
type size struct {
	rounds  int
	loads   []load // of Invite
	reserve int    // rows of ReserveMany
}

// load is a number of concurrent callers, their calls in total, and the time that
// Clerk takes for each response.
type load struct {
	callers, calls int
	latency        time.Duration
}

// internet is less than almost any request to Clerk takes.
const internet = 20 * time.Millisecond

var (
	full = size{9, []load{
		{1, 20, internet}, {16, 320, internet}, {64, 1280, internet}, {1, 400, 0}, {16, 1600, 0}, {64, 3200, 0},
	}, 10_000}
	quick = size{1, []load{{1, 3, internet}, {8, 32, 0}}, 1100}
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	var (
		isQuick = flags.Bool("quick", false, "take seconds, to see that it works; the figures mean nothing")
		rounds  = flags.Int("rounds", 0, "number of rounds per comparison (default 9)")
		dsn     = flags.String("database", "", "connection `URL` of a server on which to create a database, instead of a throw-away server")
	)
	if err := flags.Parse(args); err != nil {
		return err
	}
	s := full
	if *isQuick {
		s = quick
	}
	s.rounds = cmp.Or(*rounds, s.rounds)
	if *dsn == "" {
		url, stop, err := pgtest.Durable(ctx)
		if err != nil {
			return err
		}
		defer stop()
		*dsn = url
	}
	pool, drop, err := database(ctx, *dsn)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, drop()) }()

	about := ""
	if err := pool.QueryRow(ctx, `SELECT string_agg(name || ' ' || current_setting(name), ', ') FROM
		unnest('{server_version, fsync, synchronous_commit, shared_buffers, autovacuum}'::text[]) name`).Scan(&about); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s, %s %s/%s, CPUs: %d, load average: %s, rounds: %d\nPostgreSQL: %s\n\n", time.Now().UTC().Format("2006-01-02 15:04 UTC"),
		runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), loadAverage(), s.rounds, about)
	fmt.Fprint(out, "| | the library | compared with | its figure | ratio, median (lowest to highest) |\n|-|-|-|-|-|\n")
	if err := benchInvite(ctx, s, pool, out); err != nil {
		return err
	}
	if err := benchReserve(ctx, s, pool, out); err != nil {
		return err
	}
	fmt.Fprintf(out, "\nLoad average at the end: %s\n", loadAverage())
	return nil
}

// database makes an empty database with the library's tables. drop removes it, also
// after an interrupt.
func database(ctx context.Context, dsn string) (_ *pgxpool.Pool, drop func() error, err error) {
	admin, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return nil, nil, err
	}
	name := "clerkinvite_bench_" + strings.ToLower(rand.Text()[:12])
	if _, err := admin.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		return nil, nil, errors.Join(err, admin.Close(ctx))
	}
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, nil, err
	}
	config.ConnConfig.Database, config.MaxConns = name, poolSize
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, nil, err
	}
	drop = func() error {
		pool.Close()
		ctx := context.WithoutCancel(ctx)
		_, err := admin.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)")
		return errors.Join(err, admin.Close(ctx))
	}
	if err := clerkinvite.NewPgxStore(pool, nil).Migrate(ctx); err != nil {
		return nil, nil, errors.Join(err, drop())
	}
	return pool, drop, nil
}

// loadAverage is the one of the last minute, where the system tells.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}
