package clerkinvite

import "context"

type actorKey struct{}

// WithActor returns a context for calls on behalf of id, the host's ID of an admin, a job or a script.
// id has at most 255 bytes, and no control or invisible characters. Every recorded change under this
// context has id as [HistoryEntry].Actor and [Member].ChangedBy. Without an actor, both are empty. This
// includes changes by Run, Reconcile and webhooks, unless the host passes them a context with an actor.
//
// Under a context with an invalid actor, every method that writes returns an *[InvalidParamsError]
// before it writes anything or calls Clerk.
func WithActor(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, actorKey{}, id)
}

// actor returns the actor of ctx, or "".
func actor(ctx context.Context) string {
	id, _ := ctx.Value(actorKey{}).(string)
	return id
}

// checkActor returns an *InvalidParamsError if the actor of ctx is invalid.
func checkActor(ctx context.Context) error {
	if reason := checkText(actor(ctx), 255); reason != "" {
		return &InvalidParamsError{"actor", reason}
	}
	return nil
}
