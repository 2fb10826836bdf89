package clerkinvite

import (
	"context"
	"time"
)

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
