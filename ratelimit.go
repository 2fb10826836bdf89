package clerkinvite

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// Endpoints of Clerk's, as names of gates.
const (
	endpointFindUsers  = "GET /users"
	endpointList       = "GET /invitations"
	endpointCreate     = "POST /invitations"
	endpointCreateBulk = "POST /invitations/bulk"
	endpointRevoke     = "POST /invitations/revoke"
)

// slidingMargin is how much longer than Clerk says an endpoint that creates is left
// alone. If the window slides, Clerk says when one more request is let through, and the
// next would be refused again; a minute later it is as many as were sent in a minute.
const slidingMargin = time.Minute

// maxGate is longer than any limit of Clerk's: a gate that is closed for longer is
// the word of a process whose clock was wrong.
const maxGate = 24 * time.Hour

// gates is this process's memory of endpoints that a rate limit has closed. The
// store has the memory of all processes; it is asked by background delivery only,
// so that an Invite does not pay a statement for it.
type gates struct {
	mu    sync.Mutex
	until map[string]time.Time
	known map[string]time.Time // what the store has last said of a turn
}

// ask is Store.SwapTime, which remembers the answer.
func (s *Service) ask(ctx context.Context, name string, old, next time.Time) (time.Time, error) {
	now, err := s.store.SwapTime(ctx, name, old, next)
	if err == nil {
		s.gates.mu.Lock()
		defer s.gates.mu.Unlock()
		if s.gates.known == nil {
			s.gates.known = make(map[string]time.Time)
		}
		s.gates.known[name] = now
	}
	return now, err
}

func (g *gates) lastKnown(name string) time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.known[name]
}

func (g *gates) close(endpoint string, until time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if until.After(g.until[endpoint]) {
		if g.until == nil {
			g.until = make(map[string]time.Time)
		}
		g.until[endpoint] = until
	}
}

func (g *gates) wait(endpoint string, now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.until[endpoint].Sub(now)
}

// learnGates takes over what other processes know of closed endpoints. Those that
// create are not among them: see turn.
func (s *Service) learnGates(ctx context.Context) error {
	for _, endpoint := range []string{endpointFindUsers, endpointList, endpointRevoke} {
		until, err := s.store.SwapTime(ctx, endpoint, time.Time{}, time.Time{})
		if err != nil {
			return err
		}
		if !until.After(s.now().Add(maxGate)) {
			s.gates.close(endpoint, until)
		}
	}
	return nil
}

// open returns a *APIError if a rate limit of the endpoint is known to hold.
func (s *Service) open(endpoint string) error {
	wait := s.gates.wait(endpoint, s.now())
	if wait <= 0 {
		return nil
	}
	return closedFor(wait)
}

// openFor is open for one attempt, with what it has learned of other processes. That may
// be a long turn of a process with another clock and not a limit, so it is not kept.
func (s *Service) openFor(l lease, endpoint string) error {
	if wait := l.closed[endpoint].Sub(s.now()); wait > 0 {
		return closedFor(wait)
	}
	return s.open(endpoint)
}

func closedFor(wait time.Duration) error {
	return &APIError{StatusCode: 429, Message: "rate limit of an earlier answer", RetryAfter: wait, NotSent: true}
}

// limited remembers a rate limit, here and for all processes, and returns err.
func (s *Service) limited(ctx context.Context, endpoint string, err error) error {
	if err == nil {
		return nil
	}
	var api *APIError
	if !errors.As(err, &api) || api.StatusCode != 429 || api.NotSent {
		return err
	}
	// Clerk documents Retry-After with every 429. Without one, a minute: long enough
	// not to burn the next window's requests on asking.
	wait := min(cmp.Or(api.RetryAfter, time.Minute), maxGate)
	if endpoint == endpointCreate || endpoint == endpointCreateBulk {
		wait += slidingMargin
	}
	// A gate closed up to maxGate, or a second beyond by another process's clock, would be
	// taken for the word of a wrong clock.
	until := s.now().Add(min(wait, maxGate-time.Minute))
	s.gates.close(endpoint, until)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if gateErr := s.shut(ctx, endpoint, until); gateErr != nil {
		s.log.LogAttrs(ctx, slog.LevelWarn, "rate limit not shared", slog.String("endpoint", endpoint), slog.Any("cause", logError(gateErr)))
	}
	return err
}

// shut closes a gate for all processes until the given time, or later if it is.
func (s *Service) shut(ctx context.Context, name string, until time.Time) error {
	var known time.Time
	for {
		now, err := s.store.SwapTime(ctx, name, known, until)
		if err != nil || !now.Before(until) && !now.After(s.now().Add(maxGate)) {
			return err
		}
		known = now // another time was known: from there
	}
}

// take returns when a request to an endpoint that creates may be sent; done is to be
// called when its answer is there. Among background deliveries that takes a turn: the
// endpoint is closed for those of all other processes while one request is under way,
// so that of all of them only one meets the limit. It waits for its turn as long as the
// lease is fresh.
func (s *Service) take(ctx context.Context, l lease, endpoint string) (done func(), err error) {
	if err := s.openFor(l, endpoint); err != nil || !l.turns {
		return func() {}, err
	}
	for {
		mine, until, err := s.turn(ctx, endpoint, l.length)
		now := s.now()
		if err != nil {
			return nil, err
		}
		if !mine.IsZero() {
			return func() { s.giveTurn(ctx, endpoint, mine, now.Add(max(0, s.gates.wait(endpoint, now)))) }, nil
		}
		limited := until.After(now.Add(l.length + l.length/8)) // too long for a turn
		if limited {
			l.closed[endpoint] = until
		}
		if limited || !l.fresh() {
			return nil, closedFor(max(until.Sub(now), time.Millisecond))
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(20*time.Millisecond + rand.N(20*time.Millisecond)): //nolint:gosec // no secret: those that wait shall not meet again
		}
	}
}

// turn takes the turn at what has a name, for a time: mine, when it ends. If it is not
// to be had now, mine is zero, and until says when it is at the latest.
func (s *Service) turn(ctx context.Context, name string, length time.Duration) (mine, until time.Time, err error) {
	now := s.now()
	// A few random microseconds make the time its own: whoever reads it back has the turn.
	mine = now.Add(length + rand.N(length/16+1)).Truncate(time.Microsecond) //nolint:gosec // no secret
	known := s.gates.lastKnown(name)
	if known.After(now) {
		known = time.Time{} // another's turn or a limit: ask, for that is not to be swapped
	}
	for {
		got, err := s.ask(ctx, name, known, mine)
		switch {
		case err != nil:
			return time.Time{}, time.Time{}, err
		case got.Equal(mine):
			return mine, mine, nil
		case got.After(now) && !got.After(now.Add(maxGate)):
			return time.Time{}, got, nil
		}
		known = got
	}
}

// giveTurn ends a turn: the next is at the given time, unless it was taken away
// meanwhile. If that fails, the turn ends by itself.
func (s *Service) giveTurn(ctx context.Context, name string, mine, next time.Time) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if _, err := s.ask(ctx, name, mine, next); err != nil {
		s.log.LogAttrs(ctx, slog.LevelWarn, "turn not given up", slog.String("name", name), slog.Any("cause", logError(err)))
	}
}
