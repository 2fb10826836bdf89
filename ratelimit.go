package clerkinvite

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"
)

// A limit is the time until which Clerk rejects requests to an endpoint. Until then, interactive calls fail
// without a request. Background passes wait longer before they create again; the stored time includes that
// margin. All processes share the limits through the store.

// Clerk's endpoints, as names of limits.
const (
	endpointFindUsers  = "GET /users"
	endpointGetUser    = "GET /users/{id}"
	endpointList       = "GET /invitations"
	endpointCreate     = "POST /invitations"
	endpointCreateBulk = "POST /invitations/bulk"
	endpointRevoke     = "POST /invitations/revoke"

	endpointMemberships  = "GET /organizations/memberships"
	endpointAddMember    = "POST /organizations/memberships"
	endpointRemoveMember = "DELETE /organizations/memberships"
)

// endpoints are Clerk's endpoints for invitations, into the application or into organizations. Clerk has one limit
// for the application and one for all organizations together.
type endpoints struct {
	create, createBulk, list, revoke string

	// shareCreates is how many single creates background passes make in an hour for members that were
	// reserved together with others. Clerk allows 100, and 250 for organizations; the rest is for callers
	// who invite one person.
	shareCreates int
	share        string // the share's name in the store
}

var (
	applicationEndpoints = endpoints{
		endpointCreate, endpointCreateBulk, endpointList, endpointRevoke,
		86, "share " + endpointCreate,
	}
	organizationEndpoints = endpoints{
		"POST /organizations/invitations", "POST /organizations/invitations/bulk", "GET /organizations/invitations", "POST /organizations/invitations/revoke",
		215, "share POST /organizations/invitations",
	}
)

// endpointsOf returns the endpoints for an organization, or for the application if it is "".
func endpointsOf(organization string) *endpoints {
	if organization == "" {
		return &applicationEndpoints
	}
	return &organizationEndpoints
}

const (
	// limitMargin is the most that background passes wait beyond the time Clerk gives, for create endpoints.
	// If Clerk's window slides, that time allows only one more request, and the next would be rejected
	// again. A minute later, a minute's worth of requests is allowed.
	limitMargin = time.Minute

	// clockTolerance is how far the clocks of two processes may differ.
	clockTolerance = 5 * time.Minute
)

func creates(endpoint string) bool {
	return slices.Contains([]string{
		applicationEndpoints.create, applicationEndpoints.createBulk, organizationEndpoints.create, organizationEndpoints.createBulk,
	}, endpoint)
}

// longestLimit is how long Clerk's limits for the endpoint can last. A longer Retry-After comes from a proxy, not
// from Clerk.
func longestLimit(endpoint string) time.Duration {
	if creates(endpoint) {
		return time.Hour
	}
	return time.Minute
}

// limitWait returns how long to stay away from the endpoint after a 429 with this Retry-After. Clerk documents a
// Retry-After with every 429; without one, try once a minute.
func limitWait(endpoint string, retryAfter time.Duration) time.Duration {
	if retryAfter <= 0 {
		return time.Minute
	}
	return min(retryAfter, longestLimit(endpoint))
}

// limitMarginOf returns how much longer than wait background passes wait.
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

// limits is this process's memory of limits and of stored times. Interactive calls read the store only if this
// says that the endpoint is limited, which saves a statement. For background passes see withStoredLimits and startCreate.
type limits struct {
	mu         sync.Mutex
	byEndpoint map[string]*limit
	swapped    map[string]time.Time // by name, as swapTime last returned them; changeTime tries these first

	created time.Time // when Clerk last created an invitation
}

// limit is the limit of one endpoint. Until the time until, requests are rejected. After that, the first request is
// a probe, and the others wait for its result. Another 429 begins a new limit. Any other result of a completed probe (see
// endProbe), even an error, sets until to zero. Then all requests are allowed, except background creates until padded.
type limit struct {
	until  time.Time     // as Clerk said
	padded time.Time     // with the margin, for background passes
	stored time.Time     // padded, as the store had it when it was last loaded
	hits   int           // counts this process's 429s, so that loaded can tell whether its read is older than this memory
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

// wait returns how much longer an endpoint is limited; zero or less means not at all.
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

// hits returns how often this process has hit the limit of an endpoint.
func (l *limits) hits(endpoint string) (hits int) {
	l.change(endpoint, func(m *limit) { hits = m.hits })
	return hits
}

// loaded updates the limit of an endpoint after the stored time was read:
//   - If this process has hit the limit since the read began, its memory is newer. hitsBefore shows that.
//   - If the stored time is earlier than before, it lowers the limit: processes only raise it, so an operator did this.
//   - If it is later than the limit, it raises the limit, because another process has hit it. For creates the stored time
//     has a margin, so until stays: the time that Clerk said is unknown.
func (l *limits) loaded(endpoint string, stored, now time.Time, hitsBefore int) {
	if !believable(endpoint, stored, now) {
		return
	}
	l.change(endpoint, func(m *limit) {
		switch {
		case m.hits != hitsBefore:
			return
		case stored.Before(m.stored):
			m.padded = stored
			if m.until.After(stored) {
				m.until = stored
			}
		case stored.After(now) && stored.After(m.padded):
			m.padded = stored
			if !creates(endpoint) {
				m.until = stored
			}
		}
		m.stored = stored
	})
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
	defer done(true)
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

// admit lets a request to an endpoint start. After a limit has ended, it admits one request of this process, and the
// others wait for its response. The caller must call done after it has noted the response, or with false if it
// has sent no request.
func (s *Service) admit(ctx context.Context, endpoint string) (done func(sent bool), err error) {
	for {
		if s.mustLoadLimit(ctx, endpoint) {
			_ = s.loadLimit(ctx, endpoint) // if the store fails, what is known stays
		}
		if err := s.checkLimit(endpoint); err != nil {
			return nil, err
		}
		probe, first := s.limits.startProbe(endpoint)
		switch {
		case probe == nil:
			return func(bool) {}, nil
		case first:
			return func(sent bool) { s.limits.endProbe(endpoint, s.now(), sent && ctx.Err() == nil) }, nil
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

// mustLoadLimit reports whether a request must first read the endpoint's limit from the store. It must if it is the first
// (see withStoredLimits), or if the known limit would reject it, because an operator may have deleted that limit.
func (s *Service) mustLoadLimit(ctx context.Context, endpoint string) bool {
	loaded := loadedLimits(ctx)
	return loaded != nil && !loaded[endpoint] || s.checkLimit(endpoint) != nil
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

// endProbe ends the probe. If the probe completed, the limit ends too, unless the response was another 429. It did not
// complete if it was not sent, or its caller's context has ended. Then the next request is the new probe.
func (l *limits) endProbe(endpoint string, now time.Time, completed bool) {
	l.change(endpoint, func(m *limit) {
		close(m.probe)
		m.probe = nil
		if completed && (!m.until.After(now) || !believable(endpoint, m.until, now)) { // not believable: the clock was set back
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
	var hits int
	s.limits.change(endpoint, func(m *limit) {
		m.until, m.padded, m.hits = until, padded, m.hits+1
		hits = m.hits
	})
	s.publishLimit(ctx, endpoint, padded, hits)
	known := *api
	known.wait = wait
	if err != error(api) { //nolint:errorlint // this very value; otherwise the host has wrapped it
		known.Err = err
	}
	return &known
}

// publishLimit stores a limit, unless a later one is stored. hits is how often this process had hit the limit,
// including this time.
func (s *Service) publishLimit(ctx context.Context, endpoint string, until time.Time, hits int) {
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
	s.limits.loaded(endpoint, stored, s.now(), hits)
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
	if loaded := loadedLimits(ctx); loaded != nil {
		loaded[endpoint] = true
	}
	hitsBefore := s.limits.hits(endpoint)
	stored, err := s.readTime(ctx, endpoint)
	if err == nil {
		s.limits.loaded(endpoint, stored, s.now(), hitsBefore)
	}
	return err
}

type loadedLimitsKey struct{}

// withStoredLimits makes the first request to each endpoint read the limit that other processes have stored. It is
// for background passes and for Reconcile. Interactive calls save the statement, and learn a limit from Clerk.
func withStoredLimits(ctx context.Context) context.Context {
	return context.WithValue(ctx, loadedLimitsKey{}, make(map[string]bool))
}

// loadedLimits returns the endpoints whose limits were read, or nil without withStoredLimits.
func loadedLimits(ctx context.Context) map[string]bool {
	loaded, _ := ctx.Value(loadedLimitsKey{}).(map[string]bool)
	return loaded
}

// refreshLimits rereads from the store the limits that would reject an interactive call. If the store fails, the
// known limits stay.
func (s *Service) refreshLimits(ctx context.Context) {
	for _, endpoint := range []string{endpointFindUsers, endpointCreate, endpointCreateBulk, organizationEndpoints.create, organizationEndpoints.createBulk} {
		if s.checkLimit(endpoint) != nil {
			_ = s.loadLimit(ctx, endpoint)
		}
	}
}

// A turn lets one process at a time deliver in the background, or reconcile. The share is how many of
// the single creates that Clerk allows go to members of imports. The store keeps each as a time under
// a name, so that all processes know them.

// Names in the store. The time of a turn is its end. The full second of the share's time is when its
// hour began, and the microseconds are the number of creates since.
const (
	turnDeliver   = "turn deliver"
	turnReconcile = "turn reconcile"
)

// turn is the right to do something until ends, or until it is released.
type turn struct {
	s    *Service
	name string
	ends time.Time
}

// errTurnTaken is returned if another caller, usually in another process, keeps a turn for too long.
var errTurnTaken = errors.New("clerkinvite: another process has the turn")

// awaitTurn takes a turn of the given length. If another caller has the turn, it waits until the turn of a dead
// process would have ended. waited is false if the turn was free. The error is errTurnTaken if others keep it.
func (s *Service) awaitTurn(ctx context.Context, name string, length time.Duration) (t *turn, waited bool, err error) {
	deadline := time.Now().Add(length + length/8) //nolint:forbidigo // the monotonic clock, for how long things take
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second, length/8) {
		t, ours, err := s.tryTurn(ctx, name, length)
		switch {
		case err != nil || ours:
			return t, waited, err
		case time.Until(deadline) <= 0:
			return nil, true, errTurnTaken
		}
		pauseFor(ctx, pause)
		if ctx.Err() != nil {
			return nil, true, ctx.Err()
		}
		waited = true
	}
}

// tryTurn tries to take a turn, and reports whether it is ours. Otherwise another caller has it.
func (s *Service) tryTurn(ctx context.Context, name string, length time.Duration) (t *turn, ours bool, err error) {
	now := s.now()
	ends := turnEnd(now, length)
	stored, err := s.changeTime(ctx, name, func(stored time.Time) time.Time {
		if stored.After(now) && !stored.After(now.Add(longestTurn(name))) {
			return stored
		}
		return ends
	})
	return &turn{s, name, stored}, stored.Equal(ends), err
}

// turnEnd returns when a turn ends. Random microseconds make the time unique, so the process that reads its own
// time back has the turn.
func turnEnd(now time.Time, length time.Duration) time.Time {
	return now.Add(length + rand.N(length/16+1)).Truncate(time.Microsecond) //nolint:gosec // no secret
}

// longestTurn is how long a turn can last. A longer one was written by a process whose clock is wrong.
func longestTurn(name string) time.Duration {
	if name == turnReconcile { // it also says when the next reconciliation is due
		return 24 * time.Hour
	}
	return 2 * maxLease
}

// release ends the turn: the next one may begin at the given time. If another process has taken the
// turn, nothing happens; if the store fails, the turn ends by itself.
func (t *turn) release(ctx context.Context, next time.Time) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if _, err := t.s.swapTime(ctx, t.name, t.ends, next); err != nil {
		t.s.log.LogAttrs(ctx, slog.LevelWarn, "turn not released", slog.String("name", t.name), slog.Any("cause", logError(err)))
	}
}

// renew makes the turn last for length from now, if less than half of that is left. The error is
// errTurnTaken if this process was halted for so long that another one has taken the turn.
func (t *turn) renew(ctx context.Context, length time.Duration) error {
	now := t.s.now()
	if t.ends.Sub(now) >= length/2 {
		return nil
	}
	ends := turnEnd(now, length)
	stored, err := t.s.swapTime(ctx, t.name, t.ends, ends)
	if err == nil && !stored.Equal(ends) {
		err = errTurnTaken
	}
	if err == nil {
		t.ends = ends
	}
	return err
}

// shareWindow is a little longer than Clerk's hour, which begins when Clerk gets the first request.
const shareWindow = time.Hour + 10*time.Second

// checkShare returns an *APIError if the share must pay for a create and the pass knows that it is used up.
func (p *pass) checkShare(e *endpoints, fromShare bool, now time.Time) error {
	if wait := p.shareSpent[e].Sub(now); wait > 0 && fromShare {
		return shareUsedUp(wait)
	}
	return nil
}

var errShareUsedUp = errors.New("the share of imports in Clerk's rate limit is used up")

func shareUsedUp(wait time.Duration) error {
	return &APIError{StatusCode: http.StatusTooManyRequests, NotSent: true, Err: errShareUsedUp, wait: wait}
}

// spendShare spends one create of the share. It repeats that only if another process has changed the share, because this
// process's turn has expired. The error is a 429 if the share is used up.
func (s *Service) spendShare(ctx context.Context, p *pass, e *endpoints) error {
	known, err := s.readTime(ctx, e.share)
	for err == nil {
		now := s.now()
		next, wait := spend(known, now, e.shareCreates)
		if wait > 0 {
			p.noteShareSpent(e, now.Add(wait))
			return shareUsedUp(wait)
		}
		if known, err = s.swapTime(ctx, e.share, known, next); known.Equal(next) {
			break
		}
	}
	return err
}

func (p *pass) noteShareSpent(e *endpoints, until time.Time) {
	if p.shareSpent == nil {
		p.shareSpent = make(map[*endpoints]time.Time)
	}
	p.shareSpent[e] = until
}

// spend returns the share after one more create, or unchanged and how long to wait.
func spend(share, now time.Time, creates int) (next time.Time, wait time.Duration) {
	began := share.Truncate(time.Second)
	if age := now.Sub(began); age < -clockTolerance || age >= shareWindow {
		began = now.Truncate(time.Second)
		return began.Add(time.Microsecond), 0
	}
	if share.Sub(began) >= time.Duration(creates)*time.Microsecond {
		return share, began.Add(shareWindow).Sub(now)
	}
	return share.Add(time.Microsecond), 0
}

// changeTime replaces the stored time of a name by next(stored). It returns the new time, or the stored time if
// next returns it unchanged. The result does not show which process wrote it. If that matters, the time must be
// unique, like turnEnd's.
func (s *Service) changeTime(ctx context.Context, name string, next func(stored time.Time) time.Time) (time.Time, error) {
	known := s.limits.lastSwapped(name)
	for {
		want := next(known)
		stored, err := s.swapTime(ctx, name, known, want) // only reads if want equals known
		// stored may be what next wants without a write.
		if err != nil || stored.Equal(want) || next(stored).Equal(stored) {
			return stored, err
		}
		known = stored // known was out of date, or another process was faster
	}
}

// readTime returns the stored time of a name.
func (s *Service) readTime(ctx context.Context, name string) (time.Time, error) {
	return s.store.SwapTime(ctx, name, time.Time{}, time.Time{})
}

// swapTime is Store.SwapTime, and remembers the result.
func (s *Service) swapTime(ctx context.Context, name string, old, next time.Time) (time.Time, error) {
	stored, err := s.store.SwapTime(ctx, name, old, next)
	if err == nil {
		s.limits.remember(name, stored)
	}
	return stored, err
}

func (l *limits) lastSwapped(name string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.swapped[name]
}

func (l *limits) remember(name string, stored time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.swapped == nil {
		l.swapped = make(map[string]time.Time)
	}
	l.swapped[name] = stored
}

// Clerk allows 100 requests in 10 seconds to a development instance, and 1,000 to a production
// instance. A reconciliation makes at most 75 in 10 seconds.
const (
	paceBurst    = 25                     // requests without a pause
	paceInterval = 200 * time.Millisecond // between the requests after them
)

// pace spreads the requests of one reconciliation over time.
type pace struct {
	turn *turn     // renewed before each request; may be nil
	paid time.Time // monotonic; each request moves it by paceInterval
}

// next returns how long the next request must wait.
func (p *pace) next(now time.Time) (wait time.Duration) {
	if earliest := now.Add(-paceBurst * paceInterval); p.paid.Before(earliest) {
		p.paid = earliest
	}
	p.paid = p.paid.Add(paceInterval)
	return p.paid.Sub(now)
}

func (p *pace) wait(ctx context.Context) error {
	if wait := p.next(time.Now()); wait > 0 { //nolint:forbidigo // the monotonic clock, for how long things take
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
	if p.turn == nil {
		return nil
	}
	return p.turn.renew(ctx, reconcileTurn)
}

type paceKey struct{}

// withPace makes all requests with the context wait for the pace. A context carries it because the
// functions that make the requests serve deliveries and webhooks too.
func withPace(ctx context.Context, p *pace) context.Context {
	return context.WithValue(ctx, paceKey{}, p)
}

func waitForPace(ctx context.Context) error {
	if p, ok := ctx.Value(paceKey{}).(*pace); ok {
		return p.wait(ctx)
	}
	return nil
}
