package clerkinvite

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// A lease is the time during which one attempt owns a row. Its length is Config.Lease:
//
//	 0                 1/2                3/4                 1
//	 |- creates start -|- requests finish -|- row is written -|
//
// So a create finishes before the next attempt can begin. Writing the row has several steps; for their time see settling.
// If they take longer than the lease, the row's version decides whose write counts.

// minLease and maxLease bound Config.Lease: New checks it.
const (
	minLease = 100 * time.Millisecond
	maxLease = time.Hour
)

// lease is measured by the monotonic clock and by the store's clock. It starts before the claim is written.
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
	return lease{s.cfg.Lease, time.Now(), s.now()}, err //nolint:forbidigo // the monotonic clock
}

// fresh reports whether creates may still start.
func (l lease) fresh(now time.Time) bool {
	return time.Since(l.started) < l.length/2 && now.Sub(l.claimedAt) < l.length/2
}

// context returns ctx for the attempt's requests.
func (l lease) context(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithDeadlineCause(ctx, l.started.Add(l.length*3/4), errLeaseEnds)
}

// createGrace is how long a create may continue after its caller's context has ended. Without the response,
// it would be unknown whether Clerk sent the email.
const createGrace = 5 * time.Second

// creating returns a context for a create. It ends at 3/4 of the lease, or createGrace after ctx.
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

// canceled reports whether the caller's context has ended, as opposed to the lease.
func canceled(ctx context.Context) bool {
	return ctx.Err() != nil && !errors.Is(context.Cause(ctx), errLeaseEnds)
}

// settling returns a context for one step of saving the outcome of attempts: a write, or the requests to Clerk before
// or after it. It does not end with the caller's context.
func (l lease) settling(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), max(l.length/4, time.Second))
}

// asClaimed returns the row claimed for one attempt until the lease ends. If the process dies, the next attempt
// is due one backoff after the claim. For the first attempt, that is when the lease ends.
func (s *Service) asClaimed(m Member, now time.Time) *Member {
	// The random part makes each claim unique, so that a store can recognise its own claim after a lost
	// response.
	random := rand.N(s.cfg.Lease / 16) //nolint:gosec // no secret
	m.Attempts++
	until := now.Add(s.cfg.Lease - random).Truncate(time.Microsecond)
	next := now.Add(s.backoff(m.Attempts) - random).Truncate(time.Microsecond)
	m.ClaimedUntil, m.NextAttemptAt = &until, &next
	return &m
}

// isClaimed reports whether an attempt owns m at the given time. It ignores claims by a wrong clock: claims for more
// than twice the longest lease, and claims that were written in the future.
func (m Member) isClaimed(now time.Time) bool {
	return m.ClaimedUntil != nil && m.ClaimedUntil.After(now) && m.ClaimedUntil.Before(now.Add(2*maxLease)) &&
		!m.UpdatedAt.After(now.Add(clockTolerance))
}

// hasClaimOf reports whether m still has the claim of an earlier version of its row.
func (m Member) hasClaimOf(row *Member) bool { return sameTime(m.ClaimedUntil, row.ClaimedUntil) }

// backoff returns the time between two attempts: the lease, doubled with each attempt, up to an hour.
func (s *Service) backoff(attempts int) time.Duration {
	d := s.cfg.Lease
	for range attempts - 1 {
		if d *= 2; d >= time.Hour {
			return time.Hour
		}
	}
	return d
}

// All processes compare leases, turns and due times, so they use one clock, Store.Clock. Each process
// measures the difference between that clock and its own (Config.Now), and adds it to its own time.

const (
	maxClockAge   = 10 * time.Minute // of a measurement
	maxClockDrift = time.Second      // of Config.Now since a measurement

	// noteworthySkew is the smallest skew that is logged as a warning. With a larger error in its clock, a
	// machine rejects Clerk's webhooks.
	noteworthySkew = 5 * time.Minute

	// clockReadings is the maximum number of attempts to read the clock in a short enough round trip.
	clockReadings = 10
)

// storeClock is the last measurement of Store.Clock.
type storeClock struct {
	mu   sync.Mutex
	last skew
}

// instant is one moment, measured by this machine's two clocks.
type instant struct {
	wall time.Time // Config.Now: can be set, and continues while the machine is suspended
	mono time.Time // the monotonic clock: cannot be set, and may stop in the meantime
}

// skew is how far Store.Clock is ahead of Config.Now.
type skew struct {
	ahead    time.Duration
	inexact  time.Duration // maximum error of ahead
	measured instant       // when; zero if never
}

// newSkew computes the skew from one call of Store.Clock, which returned stored.
func newSkew(called, returned instant, stored time.Time) skew {
	if stored.IsZero() {
		return skew{measured: returned} // this store has no clock
	}
	half := returned.wall.Sub(called.wall) / 2 // assume that the store read its clock halfway through the call
	return skew{
		ahead:    stored.Add(half).Sub(returned.wall).Round(time.Microsecond),
		inexact:  max(half.Abs(), returned.mono.Sub(called.mono)/2),
		measured: returned,
	}
}

// stale reports whether the skew must be measured again. If one clock has advanced more than the other,
// Config.Now was set or the machine was suspended.
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

// note stores a measurement if it is more exact than the stored one, or that one is stale.
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

// setClock measures the store's clock if necessary. It must be called before times are compared with
// other processes' times. Inside a host's transaction, st must be the transaction's store, because a
// second connection could wait forever for the transaction.
//
// Every method that writes calls it first, so it also rejects an invalid actor.
func (s *Service) setClock(ctx context.Context, st TxStore) error {
	if err := checkActor(ctx); err != nil {
		return err
	}
	// An attempt's requests end at least 1/4 - 1/16 of the lease before its claim does (the sixteenth is
	// the claim's random part). The errors and the drift of two processes' clocks must fit within it.
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

// refreshClock is setClock for use in the middle of a method, because Config.Now may have been set since the
// method began. It ignores failures.
func (s *Service) refreshClock(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	_ = s.setClock(ctx, s.store)
}

// now returns the store's time, rounded as it is stored.
func (s *Service) now() time.Time {
	return s.cfg.Now().Add(s.clock.ahead()).UTC().Truncate(time.Microsecond)
}

// machineTime converts a time of the store's clock to this machine's clock, which callers use.
func (s *Service) machineTime(t time.Time) time.Time { return t.Add(-s.clock.ahead()) }
