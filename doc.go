// Package clerkinvite invites people into a multi-tenant application through Clerk
// and keeps the application's own row for each of them true, whatever crashes,
// races, retries or lost webhooks come between.
package clerkinvite
