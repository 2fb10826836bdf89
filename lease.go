package clerkinvite

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// A lease is the time during which one attempt owns a row. Its length is Config.Lease:
//
//	 0                 1/2                3/4                 1
//	 |- requests start -|- requests finish -|- row is written -|
//
// So a create finishes before the next attempt can begin. Writing the row gets at least a second.

// minLease and maxLease bound Config.Lease.
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

// fresh reports whether requests may still start.
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

// creating returns a context for a create. It ends with the lease, or createGrace after ctx.
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

// settling returns a context for writing the outcome of an attempt, even if the caller's context has ended.
func (l lease) settling(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), max(l.length/4, time.Second))
}

// claimed gives the row to one attempt until the lease ends. If the process dies, the next attempt is due
// one backoff after the claim. For the first attempt, that is when the lease ends.
func (s *Service) claimed(m Member, now time.Time) *Member {
	// The random part makes each claim unique, so that a store can recognise its own claim after a lost
	// response.
	until := now.Add(s.cfg.Lease - rand.N(s.cfg.Lease/16)).Truncate(time.Microsecond) //nolint:gosec // no secret
	m.Attempts++
	next := until.Add(s.backoff(m.Attempts) - s.cfg.Lease)
	m.ClaimedUntil, m.NextAttemptAt = &until, &next
	return &m
}

// held reports whether an attempt owns m at the given time. It ignores claims by a wrong clock: claims that
// last longer than any lease, and claims that were written in the future.
func (m Member) held(now time.Time) bool {
	return m.ClaimedUntil != nil && m.ClaimedUntil.After(now) && m.ClaimedUntil.Before(now.Add(2*maxLease)) &&
		!m.UpdatedAt.After(now.Add(clockTolerance))
}

// backoff returns the time between two attempts: the lease, doubled with each attempt, up to an hour.
func (s *Service) backoff(attempts int) time.Duration {
	d := s.cfg.Lease
	for range attempts - 1 {
		if d *= 2; d >= time.Hour {
			return max(time.Hour, s.cfg.Lease)
		}
	}
	return d
}
