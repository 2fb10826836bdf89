// Package clerkinvite invites people to a multi-tenant application through Clerk, and
// keeps a row per person in the application's PostgreSQL that stays correct through
// crashes, races, retries, rate limits and lost webhooks.
//
// A [Service] needs a [ClerkAPI] (package clerkapi implements it over Clerk's Go SDK), a
// [Store] ([NewPgxStore] for PostgreSQL) and a few settings:
//
//	svc, err := clerkinvite.New(clerkinvite.Config{API: api, Store: store})
//	member, err := svc.Invite(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"})
//
// # How it works
//
// [Service.Invite] writes the row first (reserved), calls Clerk second, and writes the
// result third, so that after a crash the row shows what is left to do. A Clerk user who
// has verified the address is linked (active). Anyone else gets an invitation from Clerk
// (pending, with [PendingID] in place of the user ID). If two calls invite the same address
// at the same time, the database lets one through; the other gets a [*DuplicateEmailError].
//
// A pending member becomes active only if Clerk shows a user who has verified the address.
// [Service.HandleEvent] and [Service.WebhookHandler] check this when a webhook arrives,
// [Service.ResolveUser] and [Service.Resolve] at sign-in.
//
// [Service.Run] is the background worker. Any number of processes may run it. It delivers
// invitations that a crash, a lost response or a rate limit held up, and those reserved in
// a transaction with [Service.InTx] ([Service.Deliver]). About once an hour it compares the
// rows with Clerk, and repairs what webhooks did not report ([Service.Reconcile]).
//
// Use [Service.InviteMany] for lists. [Service.Resend], [Service.Revoke], [Service.Remove],
// [Service.Purge] and [Service.Update] change a member. [Service.Get], [Service.List],
// [Service.All] and [Service.History] read.
//
// # Errors and logs
//
// [HTTPError] returns the HTTP status of an error and a text that is safe to show to an admin. Errors
// that are not Clerk's are returned unchanged (errors.Is and errors.As work).
//
// Error() of this package's errors, log/slog, and %v of its values contain no address, link
// or key, except values that slog gets inside a slice, a map or a struct. Links and signing secrets
// are of type [Secret], which never prints. %+v prints all of a value except its secrets.
//
// # Clerk
//
// docs/clerk-facts.md lists the Clerk behaviour that the library relies on, documented or
// not.
package clerkinvite
