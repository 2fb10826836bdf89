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

// Each kind of job has its own queue, so that neither waits for the other, and the host's jobs do
// not wait for Clerk.
const (
	deliverQueue   = "clerkinvite_deliver"
	reconcileQueue = "clerkinvite_reconcile"
)

// deliverArgs is a job that delivers due members. It is a wake-up call without arguments, because
// the rows say which members are due. So a lost job loses nothing, and an extra job costs one
// statement and River's own.
//
// Each transaction inserts a job, and the jobs are not unique. A unique job would also be unique
// while it runs: it may have looked for due members already, and members that are committed
// afterwards would have no job.
type deliverArgs struct{}

// Kind implements river.JobArgs.
func (deliverArgs) Kind() string { return "clerkinvite_deliver" }

// InsertOpts implements river.JobArgsWithInsertOpts.
func (deliverArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{
		Queue: deliverQueue,
		// Members have their own attempts and backoff, and the next periodic job retries.
		// River's retries would pile up while Clerk is down.
		MaxAttempts: 1,
	}
}

// passLimit is how many members one job delivers. One request finds users for as many, so a job is
// one pass, or two if workers compete for the rows.
const passLimit = 100

type deliverWorker struct {
	river.WorkerDefaults[deliverArgs]

	invites *clerkinvite.Service
	lease   time.Duration // Config.Lease
}

// Timeout leaves time for two passes, each of which ends within the lease. A job that is cut off
// does no harm, but its rows stay claimed until the lease ends, and the next attempt looks them up
// at Clerk first.
func (w *deliverWorker) Timeout(*river.Job[deliverArgs]) time.Duration { return 3 * w.lease }

// Work delivers. A rate limit is not an error: its members are due again when it ends. An error is
// for the operator (a wrong key, an exhausted quota, no connection); the next periodic job runs
// anyway. The error text that River stores contains no address.
func (w *deliverWorker) Work(ctx context.Context, _ *river.Job[deliverArgs]) error {
	report, err := w.invites.Deliver(ctx, &clerkinvite.DeliverOptions{Limit: passLimit})
	if err == nil && report.Claimed == passLimit {
		return river.JobSnooze(0) // more members are due: again, after the other jobs
	}
	return err
}

// reconcileArgs is a job that reconciles some members from a cursor on, and inserts the job for the
// next ones. So a million members are not one long job that every deployment restarts.
type reconcileArgs struct {
	Cursor string `json:"cursor"` // ReconcileReport.Cursor of the previous job; "" for the first
}

// Kind implements river.JobArgs.
func (reconcileArgs) Kind() string { return "clerkinvite_reconcile" }

// InsertOpts implements river.JobArgsWithInsertOpts.
func (reconcileArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Queue: reconcileQueue, MaxAttempts: 5} // the next hour starts again
}

type reconcileWorker struct {
	river.WorkerDefaults[reconcileArgs]

	invites *clerkinvite.Service
	pool    *pgxpool.Pool
	step    int // members per job
	log     *slog.Logger
}

// Timeout is long because the last job reads Clerk's invitations, one request per 500.
func (w *reconcileWorker) Timeout(*river.Job[reconcileArgs]) time.Duration { return reconcileTimeout }

const reconcileTimeout = 15 * time.Minute

// Work makes one step. It inserts the next job in the transaction that completes this one, so that
// a killed process leaves one of the two.
func (w *reconcileWorker) Work(ctx context.Context, job *river.Job[reconcileArgs]) error {
	report, err := w.invites.Reconcile(ctx, &clerkinvite.ReconcileOptions{Limit: w.step, Cursor: job.Args.Cursor})
	if report.Cursor == "" || report.Cursor == job.Args.Cursor {
		return outcome(err) // everything was checked, or nothing
	}
	opts := river.InsertOpts{}
	if wait, ok := clerkinvite.RetryAfter(err); ok {
		opts.ScheduledAt = time.Now().Add(wait)
	} else if err != nil {
		w.log.ErrorContext(ctx, "reconcile continues after an error", "err", err) // one member must not block the rest
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

// outcome returns the job's error. If Clerk said how long to wait, the job waits, which does not
// count as a failed attempt.
func outcome(err error) error {
	if wait, ok := clerkinvite.RetryAfter(err); ok {
		return river.JobSnooze(wait)
	}
	return err
}

// clientConfig has what differs between workers, and between this example and production.
type clientConfig struct {
	ID       string        `json:"id"`       // of the process; "" lets River choose
	Leads    bool          `json:"leads"`    // River may let this process insert the periodic jobs: at least one must
	Delivers bool          `json:"delivers"` // works on deliver jobs too, not only on reconcile jobs
	Lease    time.Duration `json:"lease"`    // Config.Lease of the service: 1 m is the default
	Interval time.Duration `json:"interval"` // between two periodic deliveries: 15 s is what Run does
	Step     int           `json:"step"`     // members that one job reconciles
}

// newClient returns a client that works on jobs.
func newClient(pool *pgxpool.Pool, invites *clerkinvite.Service, cfg clientConfig, log *slog.Logger) (*river.Client[pgx.Tx], error) {
	workers := river.NewWorkers()
	if err := river.AddWorkerSafely(workers, &deliverWorker{invites: invites, lease: cfg.Lease}); err != nil {
		return nil, err
	}
	if err := river.AddWorkerSafely(workers, &reconcileWorker{invites: invites, pool: pool, step: cfg.Step, log: log}); err != nil {
		return nil, err
	}
	// One of each per process is enough: background deliveries create invitations one request at a
	// time, and Clerk allows 350 per hour.
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
			// For members whose job was lost or failed, whose lease or rate limit has ended, or whose row was
			// written by a process with a faster clock. It is not unique: a job that a killed process left
			// would block it.
			river.NewPeriodicJob(river.PeriodicInterval(cfg.Interval),
				func() (river.JobArgs, *river.InsertOpts) { return deliverArgs{}, nil },
				&river.PeriodicJobOpts{RunOnStart: true}),
			// On start, because a host that is deployed every half hour would never reconcile otherwise;
			// unique per hour, because it may start more often.
			river.NewPeriodicJob(river.PeriodicInterval(time.Hour),
				func() (river.JobArgs, *river.InsertOpts) {
					return reconcileArgs{}, &river.InsertOpts{UniqueOpts: river.UniqueOpts{ByArgs: true, ByPeriod: time.Hour}}
				},
				&river.PeriodicJobOpts{RunOnStart: true}),
		}
	}
	return river.NewClient(riverpgxv5.New(pool), config)
}
