// Package protocol is a model of how one member's invitation is delivered, small enough
// to be explored completely: every order in which those who work at a member can take
// turns, die, lose answers and outlive their leases.
//
//	go test -v ./internal/model/protocol                            # seconds; -v prints the shortest bad trace for each rule that is left out
//	CLERKINVITE_ATTACK=1 go test -timeout 30m ./internal/model/protocol # three at the same time, more of everything, many random walks
//
// A state is the row (status, send, sent, invitation, attempts, lease, version), Clerk's
// invitations, each of which is an email, creates that are on their way without a caller,
// and the actors: calls of Deliver, Invite, Resend, Revoke, Reconcile and ResolveUser, each
// with the call to the store or to Clerk that it is about to make and with what it knows. A
// step is one such call with all that is concluded from its answer, exactly as the code
// makes them; or somebody begins, dies, gets no answer (and the request was carried out, or
// not, or is later); or all leases end; or somebody signs up, or an operator revokes an
// invitation in Clerk's dashboard. deliver.go and verbs.go are the protocol, rules.go its
// rules, check.go is what must hold, explore.go goes everywhere.
//
// What must hold in every state: one email a send; active only by proof; no email to
// somebody who had signed up when the attempt had to look; an invitation that a pending row
// names is never revoked as a left-over; a withdrawal that succeeded has killed the links it
// found, and nobody had joined by one of them. Wherever nobody is under way, time passes and one Deliver and one Reconcile run
// undisturbed: then the row names the only open invitation, or there is none, and nothing is
// due. Each rule is left out once, and the trace that then ends badly is found; three rules
// close no trace, and their test says what they are for. What is not promised is shown
// too (Exception).
//
// The model is kept true by replaying it: one trace for each kind of step, and random
// walks, lead the real Service with a real store and the fake of Clerk through the same
// events, stopped before each call. After each step the row with its version, Clerk's
// invitations, the emails and everybody's next call must be the model's. So a change of
// the protocol fails here until the model has it too, and then the exploration has judged it.
//
// Bounds: one member of one tenant, two calls under way at the same time (three in the long
// mode), up to two sends by Resend or by inviting again, and as many calls, deaths, lost
// answers and ends of leases as each Config says, mostly one or two of each. Every rule's
// trace needs fewer; that is a sign, not a proof, that no trouble needs more. Left out are
// what other tests attack: rate limits and turns (they only let somebody wait, and here
// everybody may come as late as he likes), requests for several members, refusals and other
// faults that Clerk answers with, invitations that run out, Remove and Purge, users who are deleted, two members
// with one user, and lists that lag behind.
package protocol
