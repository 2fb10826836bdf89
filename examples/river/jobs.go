package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"github.com/clerkinvite/clerkinvite"
)

// The two kinds of jobs have a queue each, so that neither waits for the other, nor any of the
// host's own jobs for Clerk.
const (
	deliverQueue   = "clerkinvite_deliver"
	reconcileQueue = "clerkinvite_reconcile"
)

// deliverArgs is a job that tells Clerk about what is due. It is a wake-up call and names
// nobody: who is due stand in the rows of the members. So a job that is lost loses nothing,
// and one too many finds nothing to do: one statement, and River's own for a job.
//
// Each transaction inserts one, and they are not unique. A unique job of River's is unique while it runs as
// well, so an insert could meet one that has looked for members already, and whoever is committed
// after that look would have no job. A job of one's own always looks after the commit.
type deliverArgs struct{}

// Kind implements river.JobArgs.
func (deliverArgs) Kind() string { return "clerkinvite_deliver" }

// InsertOpts implements river.JobArgsWithInsertOpts.
func (deliverArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{
		Queue: deliverQueue,
		// The members have their own attempts and their own backoff. The next periodic job is
		// the repetition; retries of River's would pile up beside it while Clerk is down.
		MaxAttempts: 1,
	}
}

// passLimit is how many members one job delivers: as many as one request finds users for,
// so it is one attempt of the library's, or two when workers compete for the rows.
const passLimit = 100

type deliverWorker struct {
	river.WorkerDefaults[deliverArgs]

	invites *clerkinvite.Service
	lease   time.Duration // Config.Lease
}

// Timeout leaves time for two attempts, each of which ends within the lease. A job that is cut off
// does no harm, but rows whose answer it has not waited for stay held until the lease ends, and are
// looked up at Clerk before the next attempt.
func (w *deliverWorker) Timeout(*river.Job[deliverArgs]) time.Duration { return 3 * w.lease }

// Work makes a pass. A rate limit is no error of Deliver's: whom it concerns is due again when
// it ends. An error is for whoever watches River (a wrong key, an exhausted quota, no connection); the
// next periodic job comes anyway. The text that River stores has no address in it.
func (w *deliverWorker) Work(ctx context.Context, _ *river.Job[deliverArgs]) error {
	report, err := w.invites.Deliver(ctx, &clerkinvite.DeliverOptions{Limit: passLimit})
	if err == nil && report.Claimed == passLimit {
		return river.JobSnooze(0) // more is due: once more, behind the other jobs
	}
	return err
}

// reconcileArgs is a job that reconciles some members, from a cursor on, and inserts the job for
// the next ones. So a million members are no job of hours that begins again at each deployment.
type reconcileArgs struct {
	Cursor string `json:"cursor"` // ReconcileReport.Cursor of the job before; "" is the beginning
}

// Kind implements river.JobArgs.
func (reconcileArgs) Kind() string { return "clerkinvite_reconcile" }

// InsertOpts implements river.JobArgsWithInsertOpts.
func (reconcileArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Queue: reconcileQueue, MaxAttempts: 5} // the next hour begins anew
}

type reconcileWorker struct {
	river.WorkerDefaults[reconcileArgs]

	invites *clerkinvite.Service
	pool    *pgxpool.Pool
	step    int // members a job
	log     *slog.Logger
}

// Timeout is long for the last job: it goes through Clerk's invitations, one request for each 500.
func (w *reconcileWorker) Timeout(*river.Job[reconcileArgs]) time.Duration { return reconcileTimeout }

const reconcileTimeout = 15 * time.Minute

// Work makes a step. When it made one, the next job is inserted in the transaction that completes this
// one, so that a process that is killed leaves one of the two.
func (w *reconcileWorker) Work(ctx context.Context, job *river.Job[reconcileArgs]) error {
	report, err := w.invites.Reconcile(ctx, &clerkinvite.ReconcileOptions{Limit: w.step, Cursor: job.Args.Cursor})
	if report.Cursor == "" || report.Cursor == job.Args.Cursor {
		return outcome(err) // everything was looked at, or nothing
	}
	opts := river.InsertOpts{}
	if wait, ok := clerkinvite.RetryAfter(err); ok {
		opts.ScheduledAt = time.Now().Add(wait)
	} else if err != nil {
		w.log.ErrorContext(ctx, "reconcile goes on after an error", "err", err) // one member must not hold up the rest
	}
	tx, err := w.pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if _, err := river.ClientFromContext[pgx.Tx](ctx).InsertTx(ctx, tx, reconcileArgs{report.Cursor}, &opts); err != nil {
		return err
	}
	if _, err := river.JobCompleteTx[*riverpgxv5.Driver](ctx, tx, job); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// outcome is what the job returns for an error of the library's. Where Clerk has said how long to wait, the
// job waits, which is no failed attempt. Everything else is a failed job.
func outcome(err error) error {
	if wait, ok := clerkinvite.RetryAfter(err); ok {
		return river.JobSnooze(wait)
	}
	return err
}

// clientConfig is what differs from worker to worker, and from the story to production.
type clientConfig struct {
	ID       string        `json:"id"`       // of the process; "" is one of River's making
	Leads    bool          `json:"leads"`    // River may let this process insert the periodic jobs: at least one must
	Delivers bool          `json:"delivers"` // it works on the jobs that deliver, not only on those that reconcile
	Lease    time.Duration `json:"lease"`    // Config.Lease of the service: 1 m is the default
	Interval time.Duration `json:"interval"` // between two periodic deliveries: 15 s is what Run does
	Step     int           `json:"step"`     // members that one job reconciles
}

// newClient returns a client that works on the jobs.
func newClient(pool *pgxpool.Pool, invites *clerkinvite.Service, cfg clientConfig, log *slog.Logger) (*river.Client[pgx.Tx], error) {
	workers := river.NewWorkers()
	if err := river.AddWorkerSafely(workers, &deliverWorker{invites: invites, lease: cfg.Lease}); err != nil {
		return nil, err
	}
	if err := river.AddWorkerSafely(workers, &reconcileWorker{invites: invites, pool: pool, step: cfg.Step, log: log}); err != nil {
		return nil, err
	}
	// One of each a process is plenty: of all deliveries only one request at a time creates
	// invitations, and Clerk lets 350 an hour through.
	queues := map[string]river.QueueConfig{reconcileQueue: {MaxWorkers: 1}}
	if cfg.Delivers {
		queues[deliverQueue] = river.QueueConfig{MaxWorkers: 1}
	}
	config := &river.Config{
		ID:                     cfg.ID,
		Logger:                 log,
		Workers:                workers,
		Queues:                 queues,
		RescueStuckJobsAfter:   2 * reconcileTimeout, // nothing waits for a stuck job
		LeaderElectionDisabled: !cfg.Leads,
	}
	if cfg.Leads {
		config.PeriodicJobs = []*river.PeriodicJob{
			// For members whose job was lost or failed, whose lease had to end or whose rate limit ended, and
			// where the clock of a worker is behind that of the process that has reserved. It is the repetition
			// of all that, so it is not unique either: a job left by a killed process would keep it away.
			river.NewPeriodicJob(river.PeriodicInterval(cfg.Interval),
				func() (river.JobArgs, *river.InsertOpts) { return deliverArgs{}, nil },
				&river.PeriodicJobOpts{RunOnStart: true}),
			// On start, or a host that is deployed every half an hour would never reconcile; and
			// once an hour at most, however often it is.
			river.NewPeriodicJob(river.PeriodicInterval(time.Hour),
				func() (river.JobArgs, *river.InsertOpts) {
					return reconcileArgs{}, &river.InsertOpts{UniqueOpts: river.UniqueOpts{ByArgs: true, ByPeriod: time.Hour}}
				},
				&river.PeriodicJobOpts{RunOnStart: true}),
		}
	}
	return river.NewClient(riverpgxv5.New(pool), config)
}
