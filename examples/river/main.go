// River delivers and reconciles with jobs of River (riverqueue.com), in several processes.
//
// The application's transaction writes its own row, reserves the members and inserts a job, so
// either everything is committed or nothing. A worker calls Deliver. A periodic job does the same, so a
// lost job only costs time. Another periodic job reconciles, step by step.
//
// When is River worth it? Service.Run needs no jobs: it delivers every 15 seconds and reconciles
// every hour, shares the work among processes, and survives the same kills. River does not improve
// any of the library's promises. Use it if you already have River and want to see invitations in its UI,
// pause them with its queues, or send them in certain processes only. They are also sent right after the
// commit; without River, call Deliver then. Running both is safe: they share the work.
//
//	go run -C examples/river .
//
// It starts a temporary PostgreSQL, or uses a temporary schema in DATABASE_URL.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/examples/internal/scratch"
)

// hostTables are the host's existing tables. PostgreSQL checks at the commit that a plan exists.
const hostTables = `
CREATE TABLE plan (name text PRIMARY KEY);
CREATE TABLE team (
	name text PRIMARY KEY,
	plan text NOT NULL REFERENCES plan DEFERRABLE INITIALLY DEFERRED
);
INSERT INTO plan VALUES ('basic');`

// host is an application that reserves members and inserts jobs, but does not work on jobs.
type host struct {
	pool    *pgxpool.Pool
	store   *clerkinvite.PgxStore
	invites *clerkinvite.Service
	jobs    *river.Client[pgx.Tx]
}

// newHost makes all tables and returns a host on them.
func newHost(ctx context.Context, pool *pgxpool.Pool, api clerkinvite.ClerkAPI) (*host, error) {
	h := &host{pool: pool, store: clerkinvite.NewPgxStore(pool, nil)}
	if err := h.store.Migrate(ctx); err != nil {
		return nil, err
	}
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return nil, err
	}
	if _, err := pool.Exec(ctx, hostTables); err != nil {
		return nil, err
	}
	if h.invites, err = clerkinvite.New(clerkinvite.Config{API: api, Store: h.store}); err != nil {
		return nil, err
	}
	h.jobs, err = river.NewClient(riverpgxv5.New(pool), &river.Config{Logger: slog.New(slog.DiscardHandler)})
	return h, err
}

// addTeam writes a team, reserves its members and inserts the job that invites them: all or nothing.
func (h *host) addTeam(ctx context.Context, name, plan string, emails []string) error {
	tx, err := h.pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // no effect after the commit
	if _, err := tx.Exec(ctx, `INSERT INTO team (name, plan) VALUES ($1, $2)`, name, plan); err != nil {
		return err
	}
	params := make([]clerkinvite.InviteParams, len(emails))
	for i, email := range emails {
		params[i] = clerkinvite.InviteParams{TenantID: name, Email: email}
	}
	results, err := h.invites.InTx(h.store.WithTx(tx)).ReserveMany(ctx, params)
	if err != nil {
		return err
	}
	for _, r := range results {
		if r.Err != nil {
			return r.Err
		}
	}
	if _, err := h.jobs.InsertTx(ctx, tx, deliverArgs{}, nil); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

func main() {
	if isWorker() {
		return
	}
	scratch.Main(func(ctx context.Context, pool *pgxpool.Pool) error { return run(ctx, pool, os.Stdout) })
}

// How many people are invited, and how many of them join.
const (
	teams       = 40
	teamSize    = 5
	unpaidEvery = 4 // every fourth team has a plan that does not exist
	joining     = 30
)

func teamName(team int) string { return fmt.Sprintf("team-%02d", team) }

func email(team, i int) string { return fmt.Sprintf("person-%d@%s.example.com", i, teamName(team)) }

func unpaid(team int) bool { return team%unpaidEvery == 0 }

// run shows all steps.
func run(ctx context.Context, pool *pgxpool.Pool, out io.Writer) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute) // it takes some seconds
	defer cancel()
	clerk := clerkinvitetest.NewClerk()
	h, err := newHost(ctx, pool, clerk)
	if err != nil {
		return err
	}
	front := &front{clerk: clerk, handler: clerk.Handler(), workers: make(map[string]*process), killed: make(chan string, 1)}
	server := httptest.NewServer(front)
	defer server.Close()
	defer func() { err = errors.Join(err, front.stop()) }()
	start := func(name string, leads bool) error {
		return front.start(ctx, name, workerConfig{
			Client:   clientConfig{ID: name, Leads: leads, Delivers: !leads, Lease: 4 * time.Second, Interval: time.Second, Step: 40},
			Database: pool.Config().ConnString(), Schema: pool.Config().ConnConfig.RuntimeParams["search_path"],
			ClerkURL: server.URL + "/v1", ClerkKey: keyPrefix + name,
		})
	}

	_, _ = fmt.Fprintf(out, "%d people are invited in %d transactions, each with its job; every fourth fails at its commit.\n", teams*teamSize, teams)
	_, _ = fmt.Fprintln(out, "Two workers deliver. One is killed (SIGKILL) after Clerk has sent emails and before it responds; the other continues.")
	// A third worker inserts the periodic jobs and reconciles. It does not deliver, so it is never the one that is killed:
	// River takes up to 20 seconds to replace a leader. In production every worker may do everything.
	if err := errors.Join(start("worker-3", true), start("worker-1", false), start("worker-2", false)); err != nil {
		return err
	}
	if err := h.addTeams(ctx); err != nil {
		return err
	}
	var victim string
	select {
	case victim = <-front.killed:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := h.until(ctx, func(c counts) bool { return c.reserved == 0 }); err != nil {
		return err
	}
	if err := h.show(ctx, out, clerk); err != nil {
		return err
	}
	var left bool
	if err := pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM river_job WHERE state = 'running' AND attempted_by[cardinality(attempted_by)] = $1)`, victim).
		Scan(&left); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(out, "   the killed worker's job still counts as running: %t; nothing waits for it\n", left)

	_, _ = fmt.Fprintf(out, "\n%d people join, and their webhooks are lost. Reconcile checks the members, 40 per job.\n", joining)
	for i := range joining {
		if _, err := clerk.Accept(email(1+unpaidEvery*(i/teamSize), i%teamSize)); err != nil {
			return err
		}
	}
	if _, err := h.jobs.Insert(ctx, reconcileArgs{}, nil); err != nil {
		return err
	}
	if err := h.until(ctx, func(c counts) bool { return c.active == joining }); err != nil {
		return err
	}
	return h.show(ctx, out, clerk)
}

// addTeams adds all teams, four at a time.
func (h *host) addTeams(ctx context.Context) error {
	errs := make([]error, 4)
	var all sync.WaitGroup
	for w := range errs {
		all.Go(func() {
			for team := w; team < teams && errs[w] == nil; team += len(errs) {
				errs[w] = h.addOne(ctx, team)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func (h *host) addOne(ctx context.Context, team int) error {
	plan := "basic"
	if unpaid(team) {
		plan = "none"
	}
	var emails []string
	for i := range teamSize {
		emails = append(emails, email(team, i))
	}
	err := h.addTeam(ctx, teamName(team), plan, emails)
	var pg *pgconn.PgError
	switch {
	case unpaid(team) && errors.As(err, &pg) && pg.Code == "23503": // foreign_key_violation, at the commit
		return nil
	case unpaid(team):
		return fmt.Errorf("%s should have failed at its commit: %w", teamName(team), err)
	}
	return err
}

// counts are the numbers of members by state.
type counts struct{ reserved, pending, active, others int }

func (h *host) count(ctx context.Context) (c counts, err error) {
	err = h.pool.QueryRow(ctx, `
SELECT count(*) FILTER (WHERE status = 'reserved'), count(*) FILTER (WHERE status = 'pending'), count(*) FILTER (WHERE status = 'active'),
	count(*) FILTER (WHERE status NOT IN ('reserved', 'pending', 'active'))
FROM clerkinvite_member`).Scan(&c.reserved, &c.pending, &c.active, &c.others)
	return c, err
}

// until waits until the counts satisfy done.
func (h *host) until(ctx context.Context, done func(counts) bool) error {
	for {
		c, err := h.count(ctx)
		if err != nil || done(c) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// show prints the members and the emails.
func (h *host) show(ctx context.Context, out io.Writer, clerk *clerkinvitetest.Clerk) error {
	c, err := h.count(ctx)
	if err != nil {
		return err
	}
	most, rolledBack := 0, 0
	for team := range teams {
		for i := range teamSize {
			sent := clerk.EmailsTo(email(team, i))
			most = max(most, sent)
			if unpaid(team) {
				rolledBack += sent
			}
		}
	}
	_, _ = fmt.Fprintf(out, "   members: %d reserved, %d pending, %d active, %d others\n", c.reserved, c.pending, c.active, c.others)
	_, _ = fmt.Fprintf(out, "   emails: %d, at most %d per person, %d to people who were rolled back\n", clerk.Emails(), most, rolledBack)
	return nil
}

// front is a proxy for the fake Clerk. It kills (SIGKILL) the worker that sends the first create after 30 emails, once
// the fake has carried out the request and before it responds.
type front struct {
	clerk   *clerkinvitetest.Clerk
	handler http.Handler
	killed  chan string // the name of the worker

	mu      sync.Mutex
	done    bool // a worker was killed, or all are stopped
	workers map[string]*process
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || strings.HasSuffix(r.URL.Path, "/revoke") {
		f.handler.ServeHTTP(w, r)
		return
	}
	response := httptest.NewRecorder()
	f.handler.ServeHTTP(response, r)
	if f.killsNow(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "+keyPrefix)) {
		return // the client is dead
	}
	maps.Copy(w.Header(), response.Header())
	w.WriteHeader(response.Code)
	_, _ = w.Write(response.Body.Bytes())
}

// killsNow kills the worker if it is time, and reports whether it did.
func (f *front) killsNow(worker string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.workers[worker]
	if f.done || p == nil || f.clerk.Emails() < 30 || p.kill() != nil {
		return false
	}
	f.done = true
	delete(f.workers, worker)
	f.killed <- worker
	return true
}

// start starts a worker.
func (f *front) start(ctx context.Context, name string, cfg workerConfig) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, err := startWorker(ctx, cfg)
	if err == nil {
		f.workers[name] = p
	}
	return err
}

// stop stops all workers.
func (f *front) stop() error {
	f.mu.Lock()
	workers := f.workers
	f.workers, f.done = nil, true
	f.mu.Unlock()
	var errs []error
	for _, p := range workers {
		errs = append(errs, p.stop())
	}
	return errors.Join(errs...)
}
