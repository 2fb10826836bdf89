package clerkinvite

import (
	"context"
	"errors"
)

// Observer observes a [Service], for traces and metrics. Package otelclerkinvite has an Observer for
// OpenTelemetry.
//
// Its methods are called concurrently, from the goroutine that does the work. They must be quick
// and must not call the Service. Their arguments never contain addresses, links or keys, except that
// an error from your database or Config.Authorize may.
type Observer interface {
	// Start is called when an operation begins. op is
	//   - the name of a method of Service ("Invite"); Run and All appear as the methods that they
	//     call (Deliver, Reconcile, List);
	//   - "clerk." and a method of ClerkAPI or OrganizationAPI ("clerk.CreateInvitation"), for a request to Clerk;
	//   - "wait", for waiting until a rate limit ends.
	//
	// The operation runs under the returned context, so that a request is a child of its method.
	// The returned function is called once, when the operation ends, with the operation's error. The
	// error is not nil if the host's code panicked. Start must not return a nil context or function.
	// Methods for many people, except Reconcile, return an error only if they could not continue. Their
	// results and StateChanged report each person's outcome.
	Start(ctx context.Context, op string) (context.Context, func(err error))

	// StateChanged is called after a recorded change is written. from is "" for a new member, and to
	// is "" for an erased member. They are equal if only the send, the invitation, the user, the role
	// or the address changed. A change in the host's transaction (InTx) is reported before the commit,
	// so it may still be rolled back.
	StateChanged(ctx context.Context, from, to Status)
}

// operation is an observed operation. It is empty without an observer.
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
	if p := recover(); p != nil { // a panic in the host's code must not look like success
		o.ended(errPanicked)
		panic(p)
	}
	o.ended(*err)
}

var errPanicked = errors.New("clerkinvite: panic during the call")

// stateChanged tells the observer about a written state change.
func (s *Service) stateChanged(ctx context.Context, from, to Status) {
	if s.cfg.Observer != nil {
		s.cfg.Observer.StateChanged(ctx, from, to)
	}
}

// memberAdded tells the observer and the log about a new member.
func (s *Service) memberAdded(ctx context.Context, m *Member) {
	s.stateChanged(ctx, "", m.Status)
	s.log.InfoContext(ctx, "member added", "member", *m)
}
