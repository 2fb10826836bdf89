package clerkinvite

import (
	"context"
	"errors"
)

// Observer receives what a [Service] does, for traces and metrics. Package otelclerkinvite has an
// Observer for OpenTelemetry. Without an Observer, observing costs nothing.
//
// Its methods are called concurrently, from the goroutine that does the work. They must be quick
// and must not call the Service. Their arguments never contain addresses, links or keys. Errors
// from your database or Config.Authorize may.
type Observer interface {
	// Start is called when an operation begins. op is
	//   - the name of a method of Service ("Invite"); Run and All appear as the methods that they
	//     call (Deliver, Reconcile, List);
	//   - "clerk." and a method of ClerkAPI ("clerk.CreateInvitation"), for a request to Clerk;
	//   - "wait", for waiting until a rate limit ends.
	//
	// The operation runs under the returned context, so that a request is a child of its method.
	// The returned function is called once when the operation ends, with its error, which is not
	// nil if the host's code panicked. Neither may be nil. Methods for many people return an error
	// only if they could not continue; their results and StateChanged say what happened to each.
	Start(ctx context.Context, op string) (context.Context, func(err error))

	// StateChanged is called when a state change is written. from is "" for a new member, and to is
	// "" for an erased one. They are equal if only the send, the invitation, the user, the role or the address has
	// changed.
	// A change in the host's transaction (InTx) is reported before the commit; the transaction may
	// still be rolled back.
	StateChanged(ctx context.Context, from, to Status)
}

// operation is an operation that the observer sees. It is empty without an observer.
type operation struct{ ended func(error) }

// observe tells the observer that an operation begins. The caller defers end.
func (s *Service) observe(ctx context.Context, name string) (context.Context, operation) {
	if s.cfg.Observer == nil {
		return ctx, operation{}
	}
	ctx, ended := s.cfg.Observer.Start(ctx, name)
	return ctx, operation{ended}
}

func (o operation) end(err *error) {
	if o.ended == nil {
		return
	}
	if p := recover(); p != nil { // in the host's code; it must not look like success
		o.ended(errPanicked)
		panic(p)
	}
	o.ended(*err)
}

var errPanicked = errors.New("clerkinvite: panic during the call")

// stateChanged tells the observer of a state change that is written.
func (s *Service) stateChanged(ctx context.Context, from, to Status) {
	if s.cfg.Observer != nil {
		s.cfg.Observer.StateChanged(ctx, from, to)
	}
}
