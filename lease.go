package clerkinvite

import (
	"context"
	"math/rand/v2"
	"time"
)

// maxLease is the longest Config.Lease.
const maxLease = time.Hour

// lease is the time that one attempt has. Its length is measured by the
// monotonic clock and by Config.Now, from before the claim was written.
type lease struct {
	length    time.Duration
	started   time.Time // monotonic
	claimedAt time.Time
	due       time.Time // when a row that is given back untouched is due
	now       func() time.Time
	more      bool                 // more rows are due than these
	closed    map[string]time.Time // endpoints that other processes have closed
	turns     bool                 // creates wait for their turn among the background deliveries of all processes
}

func (s *Service) newLease() lease {
	now := s.now()
	return lease{length: s.cfg.Lease, started: time.Now(), claimedAt: now, due: now, now: s.now} //nolint:forbidigo // the monotonic clock, for how long things take
}

// context returns ctx for the attempt's calls. What a call that is sent near its end
// takes must fit into the lease as well.
func (l lease) context(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithDeadlineCause(ctx, l.started.Add(l.length*3/4), errLeaseEnds)
}

// settling returns a context for writing down what Clerk has answered: it must be
// tried even if the caller has gone.
func (l lease) settling(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), max(l.length/4, time.Second))
}

// fresh reports whether so much of the lease is left that a create may start: one
// that is on its way when the lease ends meets the next attempt's.
func (l lease) fresh() bool {
	return time.Since(l.started) < l.length/2 && l.now().Sub(l.claimedAt) < l.length/2
}

// claimed gives the row to one attempt until the lease ends. If that attempt dies,
// the next is due then, later with every attempt.
func (s *Service) claimed(m Member, now time.Time) *Member {
	// A few random microseconds make each claim unlike any other: a store that lost an
	// answer recognises its own claim by what it wrote.
	until := now.Add(s.cfg.Lease + rand.N(s.cfg.Lease/16)).Truncate(time.Microsecond) //nolint:gosec // no secret
	m.Attempts++
	next := until.Add(s.backoff(m.Attempts) - s.cfg.Lease)
	m.ClaimedUntil, m.NextAttemptAt = &until, &next
	return &m
}
