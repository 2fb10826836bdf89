// Package protocol is a model of how one member's invitation is delivered. It is small
// enough to be explored completely: every order in which the actors that work on a member
// can run, die, lose responses and outlive their leases.
//
//	go test -v ./internal/model/protocol                            # seconds; -v prints the shortest bad trace for each removed rule
//	CLERKINVITE_ATTACK=1 go test -timeout 30m ./internal/model/protocol # three actors at the same time, more of everything, many random walks
//
// A state consists of the row (status, send, sent, invitation, attempts, lease, version),
// Clerk's invitations, each of which is an email, creates under way without a caller, and
// the actors: calls of Deliver, Invite, Resend, Revoke, Reconcile and ResolveUser, each with
// its next call to the store or to Clerk and with what it knows. A step is one of:
//   - an actor makes its next call, and concludes from the response what the code concludes;
//   - an actor begins, dies, or gets no response (and the request takes effect, or does not,
//     or does later);
//   - all leases end;
//   - a person signs up, or an operator revokes an invitation in Clerk's dashboard.
//
// deliver.go and verbs.go are the protocol, rules.go has its rules, check.go the checks, and
// explore.go the exploration.
//
// In every state: one email per send; active only by proof; no email to a person who had
// signed up when the attempt had to look; an invitation that a pending row refers to is
// never revoked as a left-over; a successful withdrawal has revoked the links that it found,
// and the person had not joined by one of them. In every state without actors, time passes, and one
// Deliver and one Reconcile run undisturbed: then the row refers to the only open
// invitation, or no invitation is open, and nothing is due. For each rule there is an
// exploration without it, which must find a bad trace. Two rules prevent no trace; their
// test says why they exist. The traces that are not promised occur, too (Exception).
//
// The model is kept correct by replaying it: one trace for each kind of step, and random
// walks, lead the real Service with a real store and the fake Clerk through the same
// events, stopped before each call. After each step, the row with its version, Clerk's
// invitations, the emails and each actor's next call must be the model's. So a change of
// the protocol fails here until the model has it, too, and then the exploration has
// checked it.
//
// With Config.Organization, the invitations are into an organization. Then a person joins by accepting, not by
// signing up, Clerk never has two open invitations, a resend revokes first, and another application's invitation is
// adopted. With Config.AddExisting, attempts also add users to the organization.
//
// Bounds: one member of one tenant, two actors at the same time (three in the long mode), and
// up to two sends by Resend or by inviting again. Each Config limits the calls, deaths, lost
// responses and ends of leases, usually to one or two of each. Every rule's trace needs
// fewer, which suggests, but does not prove, that these bounds are enough.
//
// Other tests attack what the model leaves out: rate limits and turns (they only delay, and
// here every actor may be delayed), requests for several members, refusals and other errors
// from Clerk. Also invitations that expire, Remove and Purge, deleted users, two members with
// one user, and lists that lag.
package protocol
