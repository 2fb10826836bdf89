package clerkinvitetest

// RevokeOfExpired is what the fake answers to the revoking of an expired invitation.
type RevokeOfExpired int

// Answers to the revoking of an expired invitation. Clerk's text says that every
// invitation that is not revoked can be revoked.
const (
	ExpiredIsRevoked  RevokeOfExpired = iota // 200, it is revoked then
	ExpiredIsRefused                         // 400
	ExpiredIsNotFound                        // 404
)

// Behavior decides what Clerk does where its documents say nothing. The zero value
// is the likeliest. Code that works with each of [Behaviors] does not depend on a
// guess.
type Behavior struct {
	QueryMatchesParts   bool // the query of GET /invitations matches parts of an address or id, not only the whole
	CaseSensitive       bool // GET /users and the query of GET /invitations compare addresses exactly
	HideUnverified      bool // GET /users finds a user by verified addresses only
	UnverifiedBlocks    bool // a user who holds an address unverified blocks its invitation like one who holds it verified
	IdentifierExists400 bool // form_identifier_exists comes with status 400 instead of 422
	NoErrorAddresses    bool // the meta of a refused create does not name the addresses

	RevokeExpired         RevokeOfExpired
	SignUpAccepts         bool // an invitation is accepted when its address is verified at Clerk by any way, not only by its link
	IgnoreExistingRevokes bool // a create with ignore_existing revokes the older pending invitations of the address

	BulkKeepsPartial  bool // a refused bulk request has created what could be created
	BulkRefusesUsers  bool // ignore_existing does not help a bulk request against an existing user, as one of two texts says
	BulkShuffles      bool // the answer to a bulk request has another order than the request
	BulkLosesMetadata bool // metadata of a bulk request stays on the invitation when its user signs up (clerk/javascript#7956)

	// Lag means that GET /users and GET /invitations do not show what was written
	// after the last Settle. The checks of a create, a revoke or a sign-up see it at
	// once. What a test arranges with AddUser and CreateForeign is shown at once too.
	Lag bool

	NoExpiresAt    bool // invitations come without expires_at
	NoURL          bool // invitations come without url
	WebhookSeconds bool // the timestamp of a webhook is in seconds instead of milliseconds
}

// NamedBehavior is a Behavior and what to call it in a subtest.
type NamedBehavior struct {
	Name     string
	Behavior Behavior
}

// Behaviors returns the default and each switch of [Behavior] flipped alone.
func Behaviors() []NamedBehavior {
	return []NamedBehavior{
		{"default", Behavior{}},
		{"query matches parts", Behavior{QueryMatchesParts: true}},
		{"case sensitive", Behavior{CaseSensitive: true}},
		{"unverified holders hidden", Behavior{HideUnverified: true}},
		{"unverified holders block", Behavior{UnverifiedBlocks: true}},
		{"identifier exists is 400", Behavior{IdentifierExists400: true}},
		{"errors without addresses", Behavior{NoErrorAddresses: true}},
		{"revoke of expired refused", Behavior{RevokeExpired: ExpiredIsRefused}},
		{"revoke of expired not found", Behavior{RevokeExpired: ExpiredIsNotFound}},
		{"sign-up accepts", Behavior{SignUpAccepts: true}},
		{"ignore_existing revokes", Behavior{IgnoreExistingRevokes: true}},
		{"bulk keeps partial", Behavior{BulkKeepsPartial: true}},
		{"bulk refuses users", Behavior{BulkRefusesUsers: true}},
		{"bulk shuffles", Behavior{BulkShuffles: true}},
		{"bulk loses metadata", Behavior{BulkLosesMetadata: true}},
		{"lag", Behavior{Lag: true}},
		{"no expires_at", Behavior{NoExpiresAt: true}},
		{"no url", Behavior{NoURL: true}},
		{"webhook in seconds", Behavior{WebhookSeconds: true}},
	}
}

// SetBehavior replaces the behavior from now on. What was written before is settled.
func (c *Clerk) SetBehavior(b Behavior) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	c.behavior = b
}

// Settle shows in GET /users and GET /invitations all that was written so far; see
// [Behavior].Lag.
func (c *Clerk) Settle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
}

func (c *Clerk) settle() {
	for _, r := range c.invitations {
		now := r.invitation
		r.settled = &now
	}
	for _, r := range c.users {
		now := r.clone()
		r.settled = &now
	}
}
