package clerkinvite

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// A lease is the time for which one attempt owns a row. Config.Lease is its length:
//
//	 0                 1/2                3/4                 1
//	 |- requests start -|- requests finish -|- row is written -|
//
// A create that starts in time is over before the next attempt can begin. Writing the row gets at
// least a second.

// minLease and maxLease bound Config.Lease.
const (
	minLease = 100 * time.Millisecond
	maxLease = time.Hour
)

// lease is measured by the monotonic clock and by the store's, from before the claim is written.
type lease struct {
	length    time.Duration
	started   time.Time // monotonic
	claimedAt time.Time // by the store's clock
}

var (
	errLeaseEnds  = errors.New("clerkinvite: attempt timed out: its part of Config.Lease has ended")
	errLeaseShort = errors.New("clerkinvite: attempts cannot finish: Config.Lease is too short for Clerk's current response times")
)

func (s *Service) newLease(ctx context.Context) (lease, error) {
	err := s.setClock(ctx, s.store)
	return lease{s.cfg.Lease, time.Now(), s.now()}, err //nolint:forbidigo // the monotonic clock, for how long things take
}

// fresh reports whether requests may still start.
func (l lease) fresh(now time.Time) bool {
	return time.Since(l.started) < l.length/2 && now.Sub(l.claimedAt) < l.length/2
}

// context returns ctx for the attempt's requests.
func (l lease) context(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithDeadlineCause(ctx, l.started.Add(l.length*3/4), errLeaseEnds)
}

// createGrace is how long a create may go on after its caller has gone. Without its response nobody
// would know whether the person got an email.
const createGrace = 5 * time.Second

// creating returns a context for a create: it ends with the lease, or createGrace after ctx.
func (l lease) creating(ctx context.Context) (context.Context, context.CancelFunc) {
	create, cancel := l.context(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-create.Done():
		case <-time.After(createGrace):
			cancel()
		}
	})
	return create, func() { stop(); cancel() }
}

// canceled reports whether the caller's context has ended, and not just the lease.
func canceled(ctx context.Context) bool {
	return ctx.Err() != nil && !errors.Is(context.Cause(ctx), errLeaseEnds)
}

// settling returns a context for writing down Clerk's response, which must be tried even if
// the caller has gone.
func (l lease) settling(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), max(l.length/4, time.Second))
}

// claimed gives the row to one attempt until the lease ends. If the attempt dies, the next one is due
// one backoff after the claim; after the first attempt, that is when the lease ends.
func (s *Service) claimed(m Member, now time.Time) *Member {
	// Random microseconds make each claim unique: a store that lost a response recognises
	// its own claim by what it wrote.
	until := now.Add(s.cfg.Lease - rand.N(s.cfg.Lease/16)).Truncate(time.Microsecond) //nolint:gosec // no secret
	m.Attempts++
	next := until.Add(s.backoff(m.Attempts) - s.cfg.Lease)
	m.ClaimedUntil, m.NextAttemptAt = &until, &next
	return &m
}

// held reports whether an attempt owns m at the given time. A claim that lasts longer than any lease,
// or was written in the future, is from a clock that was wrong.
func (m Member) held(now time.Time) bool {
	return m.ClaimedUntil != nil && m.ClaimedUntil.After(now) && m.ClaimedUntil.Before(now.Add(2*maxLease)) &&
		!m.UpdatedAt.After(now.Add(clockTolerance))
}

// backoff is the time from one attempt to the next: the lease, doubled with each attempt, up
// to an hour.
func (s *Service) backoff(attempts int) time.Duration {
	d := s.cfg.Lease
	for range attempts - 1 {
		if d *= 2; d >= time.Hour {
			return max(time.Hour, s.cfg.Lease)
		}
	}
	return d
}

// Leases, turns and due times are compared by all processes, so they use one clock: Store.Clock.
// Each process measures how far that clock is ahead of its own (Config.Now), and adds it.

const (
	maxClockAge   = 10 * time.Minute // of a measurement
	maxClockDrift = time.Second      // of Config.Now since a measurement

	// A skew of noteworthySkew or more is logged. A machine whose clock is further off rejects Clerk's
	// webhooks.
	noteworthySkew = 5 * time.Minute

	// clockReadings is how often the clock is read at most, until a round trip is short enough.
	clockReadings = 10
)

// storeClock is the last measurement of Store.Clock.
type storeClock struct {
	mu   sync.Mutex
	last skew
}

// instant is one moment by this machine's two clocks.
type instant struct {
	wall time.Time // Config.Now: can be set, and continues while the machine is suspended
	mono time.Time // the monotonic clock: cannot be set, and may stop in the meantime
}

// skew is how far Store.Clock is ahead of Config.Now.
type skew struct {
	ahead    time.Duration
	inexact  time.Duration // how far ahead may be wrong
	measured instant       // when; zero if never
}

// newSkew computes the skew from one call of Store.Clock: when it was called, when it returned, and
// what it returned.
func newSkew(called, returned instant, stored time.Time) skew {
	if stored.IsZero() {
		return skew{measured: returned} // this store has no clock
	}
	half := returned.wall.Sub(called.wall) / 2 // as far as known, the store read its clock halfway
	return skew{
		ahead:    stored.Add(half).Sub(returned.wall).Round(time.Microsecond),
		inexact:  max(half.Abs(), returned.mono.Sub(called.mono)/2),
		measured: returned,
	}
}

// stale reports whether the skew must be measured again. If one clock has moved further than the
// other, Config.Now was set or the machine was suspended.
func (k skew) stale(now instant, tolerance time.Duration) bool {
	age := now.mono.Sub(k.measured.mono)
	drift := now.wall.Sub(k.measured.wall) - age
	return k.measured.mono.IsZero() || age >= maxClockAge || drift.Abs() > tolerance
}

// stale reports whether the clock must be measured.
func (c *storeClock) stale(now instant, tolerance time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last.stale(now, tolerance)
}

// note stores a measurement, unless a better one is known.
func (c *storeClock) note(k skew, tolerance time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last.stale(k.measured, tolerance) || k.inexact < c.last.inexact {
		c.last = k
	}
}

func (c *storeClock) ahead() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last.ahead
}

func (s *Service) instant() instant {
	return instant{s.cfg.Now().Round(0), time.Now()} //nolint:forbidigo // Round removes the monotonic clock, which is the other one
}

// setClock measures the store's clock if that is necessary. It is called before times are compared
// with those of other processes. Inside a host's transaction, st is the transaction's: a second connection
// could wait for it for ever.
//
// Every method that writes calls it first, so it also rejects an invalid actor.
func (s *Service) setClock(ctx context.Context, st TxStore) error {
	if err := checkActor(ctx); err != nil {
		return err
	}
	// An attempt's requests end a quarter of the lease before the claim does, less the claim's random part,
	// a sixteenth. The error and the drift of two processes' measurements must fit into the rest.
	tolerance := min(maxClockDrift, s.cfg.Lease/32)
	called := s.instant()
	if !s.clock.stale(called, tolerance) {
		return nil
	}
	var best skew
	for i := range clockReadings {
		stored, err := st.Clock(ctx)
		if err != nil {
			return err
		}
		returned := s.instant()
		if k := newSkew(called, returned, stored); i == 0 || k.inexact < best.inexact {
			best = k
		}
		if best.inexact <= tolerance {
			break
		}
		called = returned
	}
	s.clock.note(best, tolerance)
	if ahead := s.clock.ahead(); ahead.Abs() >= noteworthySkew {
		s.log.LogAttrs(ctx, slog.LevelWarn, "this machine's clock is wrong, or the database's", slog.Duration("database_ahead", ahead))
	}
	return nil
}

// refreshClock is setClock in the middle of a verb, because Config.Now may have been set since the verb
// began. A failure does not stop the verb; the next one tries again.
func (s *Service) refreshClock(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	_ = s.setClock(ctx, s.store)
}

// now returns the time by the store's clock, as it is stored.
func (s *Service) now() time.Time {
	return s.cfg.Now().Add(s.clock.ahead()).UTC().Truncate(time.Microsecond)
}

// machineTime converts a time of the store's clock for the caller, who has this machine's.
func (s *Service) machineTime(t time.Time) time.Time { return t.Add(-s.clock.ahead()) }
