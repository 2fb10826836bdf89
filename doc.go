// Package clerkinvite invites people into a multi-tenant application through Clerk
// and keeps the application's own row for each of them true, from the moment an
// admin types an address until that person is a Clerk user, whatever crashes, races,
// retries or lost webhooks come between.
//
// A [Service] is made of a [ClerkAPI] (package clerkapi has the one over Clerk's Go
// SDK), a [Store] ([NewPgxStore] for PostgreSQL) and a few settings:
//
//	svc, err := clerkinvite.New(clerkinvite.Config{API: api, Store: store})
//	member, err := svc.Invite(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"})
//
// # How it works
//
// [Service.Invite] reserves the row first, tells Clerk second and settles the row
// third, so that every later step has something to find after a crash. An existing
// Clerk user who holds the address verified is linked (active); anybody else gets
// Clerk's invitation (pending, with [PendingID] in place of the user's id). Two
// concurrent invites of one address are told apart by the database, and one of them
// gets a [*DuplicateEmailError].
//
// A pending member becomes active by proof only: Clerk says that a user holds the
// address verified. [Service.HandleEvent] and [Service.WebhookHandler] ask when a
// webhook arrives, [Service.ResolveUser] and [Service.Resolve] at sign-in.
//
// [Service.Run] does what is left, in as many processes as there are: it delivers what a
// crash, a lost answer or a rate limit left, and what [Service.InTx] reserved inside a
// transaction of the host's ([Service.Deliver]), and now and then it asks Clerk what
// webhooks did not say ([Service.Reconcile]).
//
// Many people at once are for [Service.InviteMany]. After the first email come
// [Service.Resend], [Service.Revoke], [Service.Remove], [Service.Purge] and
// [Service.Update]; [Service.Get], [Service.List], [Service.All] and [Service.History] read.
//
// # Errors
//
// [HTTPError] returns the HTTP status of an error and a text that is safe to show. Errors
// that are not Clerk's are returned unchanged (errors.Is and errors.As work).
//
// Error() of every error, log/slog, and %v of every value contain no address, link or key.
// Links and keys are of the type [Secret], which never prints. %+v prints all of a value
// except its secrets.
//
// What the library relies on at Clerk, and what nobody knows, is in docs/clerk-facts.md.
package clerkinvite
