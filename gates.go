package clerkinvite

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// Endpoints of Clerk's, as names of gates.
const (
	endpointFindUsers = "GET /users"
	endpointList      = "GET /invitations"
	endpointCreate    = "POST /invitations"
	endpointRevoke    = "POST /invitations/revoke"
)

// gates is this process's memory of endpoints that a rate limit has closed. The
// store has the memory of all processes; it is asked by background delivery only,
// so that an Invite does not pay a statement for it.
type gates struct {
	mu    sync.Mutex
	until map[string]time.Time
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

// learnGates takes over what other processes know of closed endpoints.
func (s *Service) learnGates(ctx context.Context) error {
	for _, endpoint := range []string{endpointFindUsers, endpointList, endpointCreate, endpointRevoke} {
		until, err := s.store.Gate(ctx, endpoint, time.Time{})
		if err != nil {
			return err
		}
		// No limit of Clerk's lasts longer than a day: one that does is the word of a
		// process whose clock was wrong.
		if !until.After(s.now().Add(24 * time.Hour)) {
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
	return &APIError{StatusCode: 429, Message: "rate limit of an earlier answer", RetryAfter: wait, NotSent: true}
}

// limited remembers a rate limit, here and for all processes, and returns err.
func (s *Service) limited(ctx context.Context, endpoint string, err error) error {
	var api *APIError
	if !errors.As(err, &api) || api.StatusCode != 429 {
		return err
	}
	// Clerk documents Retry-After with every 429. Without one, a minute: long enough
	// not to burn the next window's requests on asking.
	until := s.now().Add(cmp.Or(api.RetryAfter, time.Minute))
	s.gates.close(endpoint, until)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if _, gateErr := s.store.Gate(ctx, endpoint, until); gateErr != nil {
		s.log.LogAttrs(ctx, slog.LevelWarn, "rate limit not shared", slog.String("endpoint", endpoint), slog.Any("cause", logError(gateErr)))
	}
	return err
}
