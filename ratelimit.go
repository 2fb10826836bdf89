package clerkinvite

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// A limit is the time before which Clerk does not want an endpoint to be called. A turn lets
// one process at a time create invitations in the background. The store keeps both as a time
// under a name, so that all processes know them.

// Clerk's endpoints, as names of limits and turns.
const (
	endpointFindUsers  = "GET /users"
	endpointGetUser    = "GET /users/{id}"
	endpointList       = "GET /invitations"
	endpointCreate     = "POST /invitations"
	endpointCreateBulk = "POST /invitations/bulk"
	endpointRevoke     = "POST /invitations/revoke"
)

const (
	// limitMargin is how much longer than Clerk says the create endpoints are left alone. In a
	// sliding window Clerk says when one more request is allowed, and the one after it would be
	// rejected again; a minute later a minute's worth of requests is allowed.
	limitMargin = time.Minute

	// maxLimit is longer than any of Clerk's limits. A longer one was written by a process
	// whose clock is wrong.
	maxLimit = 24 * time.Hour
)

// limits is this process's memory. Invite uses only this, so that it does not pay a statement
// for it; background delivery also asks the store.
type limits struct {
	mu     sync.Mutex
	until  map[string]time.Time // limits, by endpoint
	stored map[string]time.Time // what the store last said, by name

	created time.Time // when Clerk last created an invitation
}

func (l *limits) noteCreated(at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.created = at
}

func (l *limits) createdSince(at time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.created.Before(at)
}

func (l *limits) note(endpoint string, until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.until == nil {
		l.until = make(map[string]time.Time)
	}
	if until.After(l.until[endpoint]) {
		l.until[endpoint] = until
	}
}

func (l *limits) wait(endpoint string, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.until[endpoint].Sub(now)
}

func (l *limits) lastStored(name string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stored[name]
}

// request makes one request to Clerk, unless a limit of the endpoint is known, and notes a
// limit that the response reports.
func request[T any](ctx context.Context, s *Service, endpoint, name string, send func(context.Context) (T, error)) (response T, err error) {
	if err = s.checkLimit(endpoint); err == nil {
		response, err = observed(ctx, s, name, send)
		s.resetClock(ctx)
	}
	return response, s.noteLimit(ctx, endpoint, err)
}

func observed[T any](ctx context.Context, s *Service, name string, send func(context.Context) (T, error)) (response T, err error) {
	ctx, op := s.observe(ctx, name)
	defer op.end(&err)
	return send(ctx)
}

// checkLimit returns an *APIError if a limit of the endpoint is known.
func (s *Service) checkLimit(endpoint string) error {
	if wait := s.limits.wait(endpoint, s.now()); wait > 0 {
		return limitedFor(wait)
	}
	return nil
}

// checkLimitFor also considers what one pass has learned of other processes. That is kept for the pass
// only, because it may not be a limit but the turn of a process whose clock is wrong.
func (s *Service) checkLimitFor(p *pass, endpoint string) error {
	if wait := p.foreignLimits[endpoint].Sub(s.now()); wait > 0 {
		return limitedFor(wait)
	}
	return s.checkLimit(endpoint)
}

func limitedFor(wait time.Duration) error {
	return &APIError{StatusCode: http.StatusTooManyRequests, Message: "rate limited by an earlier response", RetryAfter: wait, NotSent: true}
}

// isRateLimit reports whether err is a 429, and how long to wait.
func isRateLimit(err error) (wait time.Duration, ok bool) {
	var api *APIError
	if errors.As(err, &api) && api.StatusCode == http.StatusTooManyRequests {
		return api.RetryAfter, true
	}
	return 0, false
}

// noteLimit remembers a limit that Clerk has just reported, here and for all processes, and
// returns err.
func (s *Service) noteLimit(ctx context.Context, endpoint string, err error) error {
	var api *APIError
	if !errors.As(err, &api) || api.StatusCode != http.StatusTooManyRequests || api.NotSent {
		return err
	}
	// Clerk documents Retry-After with every 429. Without it, a minute does not use up the next
	// window's requests on trying.
	wait := min(cmp.Or(api.RetryAfter, time.Minute), maxLimit)
	if endpoint == endpointCreate || endpoint == endpointCreateBulk {
		wait += limitMargin
	}
	// A limit as long as maxLimit would look like the work of a wrong clock.
	until := s.now().Add(min(wait, maxLimit-time.Minute))
	s.limits.note(endpoint, until)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if shareErr := s.shareLimit(ctx, endpoint, until); shareErr != nil {
		s.log.LogAttrs(ctx, slog.LevelWarn, "rate limit not shared", slog.String("endpoint", endpoint), slog.Any("cause", logError(shareErr)))
	}
	return err
}

// shareLimit stores a limit, unless a later one is stored.
func (s *Service) shareLimit(ctx context.Context, endpoint string, until time.Time) error {
	var known time.Time
	for {
		stored, err := s.store.SwapTime(ctx, endpoint, known, until)
		if err != nil || !stored.Before(until) && !stored.After(s.now().Add(maxLimit)) {
			return err
		}
		known = stored
	}
}

// loadLimits reads the limits that other processes have stored. Those of the create endpoints
// are read by tryTurn, and that of GET /users/{id} is not worth a statement.
func (s *Service) loadLimits(ctx context.Context) error {
	for _, endpoint := range []string{endpointFindUsers, endpointList, endpointRevoke} {
		until, err := s.store.SwapTime(ctx, endpoint, time.Time{}, time.Time{})
		if err != nil {
			return err
		}
		if !until.After(s.now().Add(maxLimit)) {
			s.limits.note(endpoint, until)
		}
	}
	return nil
}

// acquireTurn waits until the pass may send a request to a create endpoint. Background passes
// of all processes take turns, so that only one of them meets a limit. The caller must call
// release once it has the response. The error is errLeaseEnds if no request may start any more,
// and a 429 while there is a limit or another process keeps the turn for too long.
func (s *Service) acquireTurn(ctx context.Context, p *pass, endpoint string) (release func(), err error) {
	if !p.fresh(s.now()) {
		return nil, errLeaseEnds
	}
	if err := s.checkLimitFor(p, endpoint); err != nil || !p.background {
		return func() {}, err
	}
	for {
		until, ours, err := s.tryTurn(ctx, endpoint, p.length)
		if err != nil {
			return nil, err
		}
		now := s.now()
		if ours {
			release = func() { s.releaseTurn(ctx, endpoint, until, now.Add(max(0, s.limits.wait(endpoint, now)))) }
			if !p.fresh(now) { // it had to wait
				release()
				return nil, errLeaseEnds
			}
			return release, nil
		}
		limit := until.After(now.Add(p.length + p.length/8)) // too long for a turn
		if limit {
			p.foreignLimits[endpoint] = until
		}
		if limit || !p.fresh(now) {
			return nil, limitedFor(max(until.Sub(now), time.Millisecond))
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(20*time.Millisecond + rand.N(20*time.Millisecond)): //nolint:gosec // no secret: waiting processes must not meet again
		}
	}
}

// tryTurn tries to take the named turn for the given time, and reports whether it is ours. It
// returns when the turn ends: our turn, or another process's.
func (s *Service) tryTurn(ctx context.Context, name string, length time.Duration) (until time.Time, ours bool, err error) {
	if err := s.setClock(ctx, s.store); err != nil {
		return time.Time{}, false, err
	}
	now := s.now()
	// Random microseconds make the time unique: the process that reads it back has the turn.
	ends := now.Add(length + rand.N(length/16+1)).Truncate(time.Microsecond) //nolint:gosec // no secret
	known := s.limits.lastStored(name)
	if known.After(now) {
		known = time.Time{} // another process's turn, or a limit: a swap from zero only reads it
	}
	for {
		stored, err := s.swapTime(ctx, name, known, ends)
		switch {
		case err != nil:
			return time.Time{}, false, err
		case stored.Equal(ends):
			return ends, true, nil
		case stored.After(now) && !stored.After(now.Add(maxLimit)):
			return stored, false, nil
		}
		known = stored
	}
}

// releaseTurn ends a turn: the next one may begin at the given time. If another process has
// changed the time, nothing happens; if the store fails, the turn ends by itself.
func (s *Service) releaseTurn(ctx context.Context, name string, ends, next time.Time) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if _, err := s.swapTime(ctx, name, ends, next); err != nil {
		s.log.LogAttrs(ctx, slog.LevelWarn, "turn not released", slog.String("name", name), slog.Any("cause", logError(err)))
	}
}

// swapTime is Store.SwapTime, and remembers the result.
func (s *Service) swapTime(ctx context.Context, name string, old, next time.Time) (time.Time, error) {
	stored, err := s.store.SwapTime(ctx, name, old, next)
	if err == nil {
		s.limits.mu.Lock()
		defer s.limits.mu.Unlock()
		if s.limits.stored == nil {
			s.limits.stored = make(map[string]time.Time)
		}
		s.limits.stored[name] = stored
	}
	return stored, err
}
