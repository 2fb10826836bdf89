package clerkinvite

import "context"

// actorKey is the key of the actor in a context.
type actorKey struct{}

// WithActor returns a context for calls on behalf of id: the host's ID of an admin, a job or a
// script, at most 255 bytes, without control or invisible characters. Every change that the history
// records under this context has it as [HistoryEntry].Actor and [Member].ChangedBy. Without an actor,
// and with "", both are empty. So are those of Run, Reconcile and webhooks, unless the host passes
// them a context with an actor.
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
