package clerkinvite

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

// A limit is the time before which Clerk does not want an endpoint to be called. Until then interactive
// calls are rejected. Background passes leave the create endpoints alone for longer. All processes
// share the limits through the store, which has the time of the background passes.

// Clerk's endpoints, as names of limits.
const (
	endpointFindUsers  = "GET /users"
	endpointGetUser    = "GET /users/{id}"
	endpointList       = "GET /invitations"
	endpointCreate     = "POST /invitations"
	endpointCreateBulk = "POST /invitations/bulk"
	endpointRevoke     = "POST /invitations/revoke"
)

const (
	// limitMargin is how much longer than Clerk says background passes leave the create endpoints
	// alone, at most. In a sliding window Clerk says when one more request is allowed, and the one
	// after it would be rejected again; a minute later a minute's worth of requests is allowed.
	limitMargin = time.Minute

	// clockTolerance is how far the clocks of two processes may differ.
	clockTolerance = 5 * time.Minute
)

func creates(endpoint string) bool {
	return endpoint == endpointCreate || endpoint == endpointCreateBulk
}

// longestLimit is how long Clerk's limits for the endpoint can last. A longer Retry-After is not
// Clerk's but comes from something in between.
func longestLimit(endpoint string) time.Duration {
	if creates(endpoint) {
		return time.Hour
	}
	return time.Minute
}

// limitWait returns how long the endpoint is left alone after a 429 with this Retry-After. Clerk
// documents one with every 429; without it, one request a minute finds out.
func limitWait(endpoint string, retryAfter time.Duration) time.Duration {
	if retryAfter <= 0 {
		return time.Minute
	}
	return min(retryAfter, longestLimit(endpoint))
}

// limitMarginOf returns how much longer background passes wait.
func limitMarginOf(endpoint string, wait time.Duration) time.Duration {
	if creates(endpoint) {
		return min(wait, limitMargin)
	}
	return 0
}

// believable reports whether a limit can last until the given time. If not, a clock is wrong.
func believable(endpoint string, until, now time.Time) bool {
	return until.Sub(now) <= longestLimit(endpoint)+limitMargin+clockTolerance
}

// limits is this process's memory of limits and of stored times. Interactive calls use only this, so
// that they do not pay a statement for it; background passes also ask the store.
type limits struct {
	mu         sync.Mutex
	byEndpoint map[string]*limit
	stored     map[string]time.Time // turns and limits, as swapTime last returned them, by name

	created time.Time // when Clerk last created an invitation
}

// limit is the limit of one endpoint. Until the time until, requests are rejected. After it, the first
// request is a probe, and others wait for its response: a success makes until zero, and the endpoint is
// open; another 429 begins a new limit.
type limit struct {
	until  time.Time     // as Clerk said
	padded time.Time     // with the margin, for background passes
	stored time.Time     // padded as the store has it, if known
	hits   int           // how often this process has met the limit
	probe  chan struct{} // not nil while a probe waits for its response
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

// change calls f with the limit of an endpoint while no other goroutine uses it.
func (l *limits) change(endpoint string, f func(*limit)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byEndpoint == nil {
		l.byEndpoint = make(map[string]*limit)
	}
	if l.byEndpoint[endpoint] == nil {
		l.byEndpoint[endpoint] = &limit{}
	}
	f(l.byEndpoint[endpoint])
}

// wait returns how long an endpoint is limited: zero or less if it is not.
func (l *limits) wait(endpoint string, background bool, now time.Time) (wait time.Duration) {
	l.change(endpoint, func(m *limit) {
		until := m.until
		if background && m.padded.After(until) {
			until = m.padded
		}
		if believable(endpoint, until, now) { // otherwise the clock was set back
			wait = until.Sub(now)
		}
	})
	return wait
}

// hits returns how often this process has met the limit of an endpoint.
func (l *limits) hits(endpoint string) (hits int) {
	l.change(endpoint, func(m *limit) { hits = m.hits })
	return hits
}

// loaded takes over what the store said of an endpoint. hits is how often this process had met the limit
// before the store was asked: a limit that it has met since is newer.
func (l *limits) loaded(endpoint string, stored, now time.Time, hits int) {
	if !believable(endpoint, stored, now) {
		return
	}
	l.change(endpoint, func(m *limit) {
		// Processes only raise it, so an operator has deleted or shortened it.
		lowered := stored.Before(m.stored) && hits == m.hits
		switch {
		case lowered:
			m.padded = stored
			m.until = earlier(m.until, stored) // Clerk's own time may be shorter still
		case stored.After(now) && stored.After(m.padded):
			m.padded = stored
			if !creates(endpoint) { // no margin, so this is what Clerk has said; for creates it is unknown here
				m.until = stored
			}
		}
		m.stored = stored
	})
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// request makes one request to Clerk, unless the endpoint is limited, and notes a limit that the
// response reports.
func request[T any](ctx context.Context, s *Service, endpoint, name string, send func(context.Context) (T, error)) (response T, err error) {
	if err := waitForPace(ctx); err != nil {
		return response, err
	}
	done, err := s.admit(ctx, endpoint)
	if err != nil {
		return response, err
	}
	defer done()
	return exchange(ctx, s, endpoint, name, send)
}

// exchange is request after the endpoint was checked.
func exchange[T any](ctx context.Context, s *Service, endpoint, name string, send func(context.Context) (T, error)) (T, error) {
	response, err := observed(ctx, s, name, send)
	s.refreshClock(ctx)
	return response, s.noteLimit(ctx, endpoint, err)
}

func observed[T any](ctx context.Context, s *Service, name string, send func(context.Context) (T, error)) (response T, err error) {
	ctx, op := s.observe(ctx, name)
	defer op.end(&err)
	response, err = send(ctx)
	return response, checkResponse(name, response, err)
}

// admit lets a request to an endpoint start. When a limit has ended, it lets one request of this
// process through, and the others wait for its response. The caller must call done after it has
// noted the response.
func (s *Service) admit(ctx context.Context, endpoint string) (done func(), err error) {
	for {
		if s.checkLimit(endpoint) != nil {
			s.refreshLimit(ctx, endpoint)
		}
		if err := s.checkLimit(endpoint); err != nil {
			return nil, err
		}
		probe, first := s.limits.startProbe(endpoint)
		switch {
		case probe == nil:
			return func() {}, nil
		case first:
			return func() { s.limits.endProbe(endpoint, s.now(), ctx.Err() == nil) }, nil
		}
		select {
		case <-probe:
		case <-ctx.Done():
			return nil, &APIError{
				StatusCode: http.StatusTooManyRequests, Message: "waiting for the first response after a rate limit",
				NotSent: true, Err: context.Cause(ctx), wait: time.Second,
			}
		}
	}
}

// startProbe returns nil if there is no limit. After a limit it returns a channel that is closed when
// the endpoint may be tried again, and reports whether the caller's request is the first.
func (l *limits) startProbe(endpoint string) (probe chan struct{}, first bool) {
	l.change(endpoint, func(m *limit) {
		if m.until.IsZero() {
			return
		}
		if first = m.probe == nil; first {
			m.probe = make(chan struct{})
		}
		probe = m.probe
	})
	return probe, first
}

// endProbe ends the limit, unless the first request got a new one or its caller did not wait for the
// response: then the next request is the first.
func (l *limits) endProbe(endpoint string, now time.Time, completed bool) {
	l.change(endpoint, func(m *limit) {
		close(m.probe)
		m.probe = nil
		if completed && (!m.until.After(now) || !believable(endpoint, m.until, now)) { // see wait
			m.until = time.Time{}
		}
	})
}

// checkLimit returns an *APIError if an interactive call may not use the endpoint.
func (s *Service) checkLimit(endpoint string) error {
	return s.checkLimitFor(&pass{}, endpoint)
}

// checkLimitFor returns an *APIError if the pass may not use the endpoint.
func (s *Service) checkLimitFor(p *pass, endpoint string) error {
	if wait := s.limits.wait(endpoint, p.background, s.now()); wait > 0 {
		return limitedFor(wait)
	}
	return nil
}

func limitedFor(wait time.Duration) error {
	return &APIError{StatusCode: http.StatusTooManyRequests, Message: "rate limited by an earlier response", NotSent: true, wait: wait}
}

// isRateLimit reports whether err is a 429, and how long to wait.
func isRateLimit(err error) (wait time.Duration, ok bool) {
	var api *APIError
	if errors.As(err, &api) && api.StatusCode == http.StatusTooManyRequests {
		return RetryAfter(api)
	}
	return 0, false
}

// noteLimit remembers a limit that Clerk has just reported, here and for all processes. It returns
// err, with the time for which interactive calls will be rejected.
func (s *Service) noteLimit(ctx context.Context, endpoint string, err error) error {
	var api *APIError
	if !errors.As(err, &api) || api.StatusCode != http.StatusTooManyRequests || api.NotSent {
		return err
	}
	wait := limitWait(endpoint, api.RetryAfter)
	until := s.now().Add(wait)
	padded := until.Add(limitMarginOf(endpoint, wait))
	s.limits.change(endpoint, func(m *limit) { m.until, m.padded, m.hits = until, padded, m.hits+1 })
	s.publishLimit(ctx, endpoint, padded)
	known := *api
	known.wait = wait
	if err != error(api) { //nolint:errorlint // this very value; otherwise the host has wrapped it
		known.Err = err
	}
	return &known
}

// publishLimit stores a limit, unless a later one is stored.
func (s *Service) publishLimit(ctx context.Context, endpoint string, until time.Time) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	stored, err := s.changeTime(ctx, endpoint, func(stored time.Time) time.Time {
		if stored.After(until) && believable(endpoint, stored, s.now()) {
			return stored
		}
		return until
	})
	if err != nil {
		s.log.LogAttrs(ctx, slog.LevelWarn, "rate limit not shared", slog.String("endpoint", endpoint), slog.Any("cause", logError(err)))
		return
	}
	s.limits.loaded(endpoint, stored, s.now(), s.limits.hits(endpoint))
}

// loadLimits reads limits that other processes have stored.
func (s *Service) loadLimits(ctx context.Context, endpoints ...string) error {
	for _, endpoint := range endpoints {
		if err := s.loadLimit(ctx, endpoint); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) loadLimit(ctx context.Context, endpoint string) error {
	hits := s.limits.hits(endpoint)
	stored, err := s.readTime(ctx, endpoint)
	if err == nil {
		s.limits.loaded(endpoint, stored, s.now(), hits)
	}
	return err
}

// refreshLimits reads the limits again that would reject an interactive call.
func (s *Service) refreshLimits(ctx context.Context) {
	for _, endpoint := range []string{endpointFindUsers, endpointCreate, endpointCreateBulk} {
		if s.checkLimit(endpoint) != nil {
			s.refreshLimit(ctx, endpoint)
		}
	}
}

// refreshLimit reads a limit again, because an operator may have deleted it. If the store fails, the
// limit stays.
func (s *Service) refreshLimit(ctx context.Context, endpoint string) {
	_ = s.loadLimit(ctx, endpoint)
}
