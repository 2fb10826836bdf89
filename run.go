package clerkinvite

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"time"
)

// RunOptions are the options of Run; nil means all defaults. A positive value outside its range is
// clipped to the range.
type RunOptions struct {
	// Interval is the pause between two calls of Deliver, 10 ms to 1 h, with a jitter of 20%.
	// Defaults to 15 s, also if it is negative.
	Interval time.Duration

	// ReconcileInterval is the time between two reconciliations across all processes that use the
	// same store, 1 s to 12 h. Defaults to 1 h. A negative value means never.
	ReconcileInterval time.Duration
}

const (
	// reconcileTurn is how long a process owns the turn to reconcile. It renews the turn before each
	// request. If it dies, another process can start after this time.
	reconcileTurn = 15 * time.Minute

	// reconcileRetry is the time until an incomplete reconciliation is retried.
	reconcileRetry = 5 * time.Minute
)

// Run is the background worker. It delivers due members and reconciles until its context ends. Any
// number of processes may run it. They share the work and the known rate limits through the store.
//
// Run logs failures and continues. After repeated failures it pauses longer. It uses two goroutines, so
// a PgxStore needs a pool and not a single connection.
//
// Run returns the context's error soon after the context ends. A create that has begun gets up to five
// seconds for its response. When Run returns, the current attempt is saved or released, and its
// goroutines have ended. Under a context with an invalid actor it returns an *[InvalidParamsError]
// immediately.
//
// If the host's code panics (a hook, the Logger, the Observer, the ClerkAPI or the Store), Run panics
// with the same value after its other goroutine has ended. Members that were being delivered are due
// again when the lease ends.
func (s *Service) Run(ctx context.Context, opts *RunOptions) error {
	if err := checkActor(ctx); err != nil {
		return err
	}
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
	work, stop := context.WithCancel(ctx)
	if o.ReconcileInterval > 0 {
		wait := s.background(work, func() {
			defer stop()
			s.runReconcile(work, min(max(o.ReconcileInterval, time.Second), 12*time.Hour))
		})
		defer wait()
	}
	defer stop() // before wait, even if runDeliver panics
	s.runDeliver(work, o.Interval)
	return ctx.Err()
}

// background runs f in a goroutine. wait returns when f has returned. If f panicked, wait panics with the
// same value.
func (s *Service) background(ctx context.Context, f func()) (wait func()) {
	done := make(chan struct{})
	var returned bool
	var panicked any
	var stack []byte
	go func() {
		defer close(done)
		defer func() {
			if panicked = recover(); panicked != nil {
				stack = debug.Stack()
			}
		}()
		f()
		returned = true
	}()
	return func() {
		<-done
		switch {
		case panicked != nil:
			s.log.ErrorContext(ctx, "panic in a goroutine of Run", "stack", string(stack)) // wait's own stack does not show it
			panic(panicked)
		case !returned:
			runtime.Goexit() // as f did
		}
	}
}

// runDeliver delivers due members until ctx ends.
func (s *Service) runDeliver(ctx context.Context, interval time.Duration) {
	for pause := interval; ; {
		_, err := s.Deliver(ctx, nil)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			pause = interval
		default:
			s.log.ErrorContext(ctx, "delivery stopped", "cause", logError(err))
			wait, _ := RetryAfter(err)
			pause = max(min(2*pause, 5*time.Minute), interval, wait)
		}
		pauseFor(ctx, pause)
	}
}

// runReconcile reconciles once per interval, unless another process does.
func (s *Service) runReconcile(ctx context.Context, interval time.Duration) {
	for pause := time.Second; ctx.Err() == nil; {
		next, report, err := s.reconcileInTurn(ctx, interval)
		if err != nil && ctx.Err() == nil {
			s.log.ErrorContext(ctx, "reconciliation incomplete", "cause", logError(err), "report", report)
			pause *= 2
		} else {
			pause = time.Second
		}
		pause = min(max(pause, next.Sub(s.now())), interval, time.Minute)
		pauseFor(ctx, pause)
	}
}

// reconcileInTurn reconciles if a reconciliation is due and no other process is reconciling. It returns the
// time of the next try.
func (s *Service) reconcileInTurn(ctx context.Context, interval time.Duration) (next time.Time, report *ReconcileReport, err error) {
	s.refreshClock(ctx)
	began := s.now()
	t, ours, err := s.tryTurn(ctx, turnReconcile, reconcileTurn)
	if err != nil || !ours {
		return t.ends, &ReconcileReport{}, err
	}
	next = began.Add(min(interval, reconcileRetry)) // after a panic
	defer func() { t.release(ctx, next) }()
	report, err = s.reconcileAll(ctx, t)
	if report.Cursor == "" {
		next = began.Add(interval)
	} else {
		next = s.now().Add(min(interval, reconcileRetry))
	}
	return next, report, err
}

// reconcileAll reconciles once, and waits for rate limits. The report has no cursor if everything was checked,
// even if some members could not be changed.
func (s *Service) reconcileAll(ctx context.Context, t *turn) (report *ReconcileReport, err error) {
	for cursor := ""; ; cursor = report.Cursor {
		report, err = s.reconcile(ctx, &ReconcileOptions{Cursor: cursor}, t)
		wait, limited := RetryAfter(err)
		var clerkErr *ClerkInvitationError
		continues := report.Cursor != "" && limited && errors.As(err, &clerkErr)
		if err == nil || continues {
			s.log.LogAttrs(ctx, slog.LevelInfo, "reconciled", slog.Any("report", report))
		}
		if !continues {
			return report, err
		}
		if err := s.sleep(ctx, s.now().Add(wait)); err != nil {
			return report, err
		}
	}
}

// pauseFor waits for about d, or until ctx ends.
func pauseFor(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d*4/5 + rand.N(d*2/5+1)): //nolint:gosec // jitter, so that processes do not stay in step
	}
}

// sleep waits until the given time by the store's clock, or until ctx ends.
func (s *Service) sleep(ctx context.Context, until time.Time) (err error) {
	if !until.After(s.now()) {
		return ctx.Err()
	}
	ctx, op := s.observe(ctx, "wait")
	defer op.end(&err)
	for {
		// Sleep in short steps, because the clock may be set or the machine suspended in the meantime.
		s.refreshClock(ctx)
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
