package clerkinvite

import (
	"context"
	"errors"
)

// Observer is told what a [Service] does, for traces and metrics. Package
// otelclerkinvite has one for OpenTelemetry; without one, observing costs nothing.
//
// Its methods are called concurrently, from the goroutine that does the work, so they
// must be quick and must not call the Service. They never get an address, a link or a
// key, but for what may be in an error. In slog and %v those of this package hold none;
// others, of a database or of Config.Authorize, may.
type Observer interface {
	// Start is called when something begins: a verb of Service, and then op is the name
	// of its method ("Invite"; Run and All are seen as the Deliver, Reconcile and List that they
	// are made of); a request to Clerk, which is "clerk." and the method of ClerkAPI
	// ("clerk.CreateInvitation"); or a wait for one of Clerk's rate limits, "wait".
	//
	// The context that it returns is that of everything below, so that a request is the
	// child of its verb. The function that it returns is called once, when it has ended,
	// with its error, which of a verb that panics is not nil; of a request whose ClerkAPI
	// panics it is not called. Neither may be nil. Verbs for many people fail as a whole only if
	// they could not go on: what became of each is in their results, and in StateChanged.
	Start(ctx context.Context, op string) (context.Context, func(err error))

	// StateChanged is called when a state change of a member has been written. from is "" for a new
	// member, to is "" for one that was erased, and they are equal when only the send,
	// the invitation or the user has changed. A move inside of a host's transaction
	// (InTx) is seen when it is made; the transaction may yet be rolled back.
	StateChanged(ctx context.Context, from, to Status)
}

// observe begins something that the observer sees. The caller ends it, by done or by end.
func (s *Service) observe(ctx context.Context, op string) (context.Context, observed) {
	if s.cfg.Observer == nil {
		return ctx, observed{}
	}
	ctx, end := s.cfg.Observer.Start(ctx, op)
	return ctx, observed{end}
}

// observed is something that has begun. Without an observer it is empty.
type observed struct{ ended func(error) }

// end ends it.
func (o observed) end(err error) {
	if o.ended != nil {
		o.ended(err)
	}
}

// done is deferred by a verb, to end with its error. A panic of the host's own code, in
// Authorize or OnChange, must not pass for success.
func (o observed) done(err *error) {
	if o.ended == nil {
		return
	}
	if p := recover(); p != nil {
		o.ended(errPanicked)
		panic(p)
	}
	o.ended(*err)
}

var errPanicked = errors.New("clerkinvite: it has panicked")

// moved tells the observer of a move that has been written.
func (s *Service) moved(ctx context.Context, from, to Status) {
	if s.cfg.Observer != nil {
		s.cfg.Observer.StateChanged(ctx, from, to)
	}
}
