package clerkinvite

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// RunOptions are the options of Run; nil is all defaults.
type RunOptions struct {
	// Interval is the pause between two passes of Deliver, give or take a fifth: 10 ms to
	// 1 h. Defaults to 15 s.
	Interval time.Duration

	// ReconcileInterval is the pause between two reconciliations, 1 s to 12 h: those of
	// all processes on the same store count. Defaults to 1 h; a negative value is never.
	ReconcileInterval time.Duration
}

// turnReconcile is the name of the gate that says when to reconcile again.
const turnReconcile = "reconcile"

// Run delivers what is due and reconciles now and then, until its context ends: the
// work in the background that every host needs, in one process or in several. They
// share the work and what they know of rate limits through the store.
//
// Failures are logged and do not end it; after some in a row it pauses longer. It
// works in two goroutines, so a PgxStore needs a pool and not a single connection. It
// returns the context's error, soon after the context has ended, with an attempt under
// way settled or given back, and leaves no goroutine.
func (s *Service) Run(ctx context.Context, opts *RunOptions) error {
	o := RunOptions{}
	if opts != nil {
		o = *opts
	}
	if o.Interval <= 0 {
		o.Interval = 15 * time.Second
	}
	if o.ReconcileInterval == 0 {
		o.ReconcileInterval = time.Hour
	}
	o.Interval = min(max(o.Interval, 10*time.Millisecond), time.Hour)
	var wg sync.WaitGroup
	if o.ReconcileInterval > 0 {
		wg.Go(func() { s.runReconcile(ctx, min(max(o.ReconcileInterval, time.Second), 12*time.Hour)) })
	}
	for pause := o.Interval; ; {
		_, err := s.Deliver(ctx, nil)
		switch {
		case ctx.Err() != nil:
			wg.Wait()
			return ctx.Err()
		case err == nil:
			pause = o.Interval
		default:
			s.log.ErrorContext(ctx, "delivery stopped", "cause", logError(err))
			wait, _ := RetryAfter(err)
			pause = max(min(2*pause, 5*time.Minute), o.Interval, wait)
		}
		pauseFor(ctx, pause)
	}
}

// runReconcile reconciles whenever it is time and no other process does.
func (s *Service) runReconcile(ctx context.Context, interval time.Duration) {
	for ctx.Err() == nil {
		mine, until, err := s.turn(ctx, turnReconcile, interval)
		if err == nil && !mine.IsZero() {
			if err = s.reconcileAll(ctx); err != nil {
				s.giveTurn(ctx, turnReconcile, mine, s.now().Add(min(interval, 5*time.Minute)))
			}
		}
		if err != nil && ctx.Err() == nil {
			s.log.ErrorContext(ctx, "reconciliation stopped", "cause", logError(err))
		}
		pauseFor(ctx, min(max(until.Sub(s.now()), time.Second), interval, time.Minute))
	}
}

// reconcileAll reconciles once, and waits for rate limits on the way.
func (s *Service) reconcileAll(ctx context.Context) error {
	for cursor := ""; ; {
		report, err := s.Reconcile(ctx, &ReconcileOptions{Cursor: cursor})
		s.log.LogAttrs(ctx, slog.LevelInfo, "reconciled", slog.Any("report", report))
		wait, limited := RetryAfter(err)
		var clerkErr *ClerkInvitationError
		if !limited || !errors.As(err, &clerkErr) {
			return err
		}
		cursor = report.Cursor
		if err := s.sleep(ctx, s.now().Add(wait)); err != nil {
			return err
		}
	}
}

// pauseFor waits about so long, or until ctx ends.
func pauseFor(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d*4/5 + rand.N(d*2/5+1)): //nolint:gosec // no secret: processes that met shall not meet again
	}
}

// sleep waits until the time has come by the service's clock.
func (s *Service) sleep(ctx context.Context, until time.Time) (err error) {
	if !until.After(s.now()) {
		return ctx.Err()
	}
	ctx, end := s.observe(ctx, "wait")
	defer end(&err)
	for {
		// Not all at once: the clock may be set, and the machine may sleep.
		wait := min(until.Sub(s.now()), time.Second)
		if wait <= 0 {
			return ctx.Err()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}
