package clerkinvite

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"time"
)

// A turn lets one process at a time deliver in the background, or reconcile. The share is how many of
// the single creates that Clerk allows go to members of imports. The store keeps each as a time under
// a name, so that all processes know them.

// Names in the store. The time of a turn is its end. The full second of the share's time is when its
// hour began, and the microseconds are the number of creates since.
const (
	turnDeliver   = "turn deliver"
	turnReconcile = "reconcile"
	shareName     = "share " + endpointCreate
)

// turn is the right to do something until ends, or until it is released.
type turn struct {
	s    *Service
	name string
	ends time.Time
}

// errTurnTaken is returned if another caller, usually in another process, keeps a turn for too long.
var errTurnTaken = errors.New("clerkinvite: another process has the turn")

// awaitTurn waits for a turn of the given length, for longer than that of a process that has died.
// waited is false if it was free. The error is errTurnTaken if other processes keep it.
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
		if pauseFor(ctx, pause); ctx.Err() != nil {
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

// turnEnd returns when a turn ends. Random microseconds make the time unique: the process that reads
// it back has the turn.
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

const (
	// shareCreates is how many single creates background passes make in an hour for members that were
	// reserved together with others. Clerk allows 100; the rest is for callers who invite one person.
	shareCreates = 86

	// shareWindow is a little longer than Clerk's hour, which begins when Clerk gets the first request.
	shareWindow = time.Hour + 10*time.Second
)

// checkShare returns an *APIError if the pass knows that the share is used up.
func (p *pass) checkShare(bulk bool, now time.Time) error {
	if wait := p.shareSpent.Sub(now); wait > 0 && bulk {
		return shareUsedUp(wait)
	}
	return nil
}

var errShareUsedUp = errors.New("the share of imports in Clerk's rate limit is used up")

func shareUsedUp(wait time.Duration) error {
	return &APIError{StatusCode: http.StatusTooManyRequests, NotSent: true, Err: errShareUsedUp, wait: wait}
}

// spendShare spends one create of the share. The pass has the turn, so no other process changes the
// share in the meantime. The error is a 429 if the share is used up.
func (s *Service) spendShare(ctx context.Context, p *pass) error {
	known, err := s.readTime(ctx, shareName)
	for err == nil {
		now := s.now()
		next, wait := spend(known, now)
		if wait > 0 {
			p.shareSpent = now.Add(wait)
			return shareUsedUp(wait)
		}
		if known, err = s.store.SwapTime(ctx, shareName, known, next); known.Equal(next) {
			break
		}
	}
	return err
}

// spend returns the share after one more create, or unchanged and how long to wait.
func spend(share, now time.Time) (next time.Time, wait time.Duration) {
	began := share.Truncate(time.Second)
	if age := now.Sub(began); age < -clockTolerance || age >= shareWindow {
		began = now.Truncate(time.Second)
		return began.Add(time.Microsecond), 0
	}
	if share.Sub(began) >= shareCreates*time.Microsecond {
		return share, began.Add(shareWindow).Sub(now)
	}
	return share.Add(time.Microsecond), 0
}

// changeTime replaces the stored time of a name by next(stored), and returns it. A caller that gets the
// time that it wanted cannot tell who wrote it; if that matters, the time must be unique, as turnEnd's.
func (s *Service) changeTime(ctx context.Context, name string, next func(stored time.Time) time.Time) (time.Time, error) {
	known := s.limits.lastStored(name)
	for want := next(known); ; {
		stored, err := s.swapTime(ctx, name, known, want) // reads if both are equal
		if err != nil || stored.Equal(want) {
			return stored, err
		}
		known = stored // the memory was out of date, or another process was faster
		if want = next(known); want.Equal(known) {
			return known, nil // just read
		}
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

func (l *limits) lastStored(name string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stored[name]
}

func (l *limits) remember(name string, stored time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stored == nil {
		l.stored = make(map[string]time.Time)
	}
	l.stored[name] = stored
}
