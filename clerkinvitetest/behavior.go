package clerkinvitetest

// RevokeOfExpired is the response to revoking an expired invitation.
type RevokeOfExpired int

// Responses to revoking an expired invitation. Clerk's documentation says that every
// invitation that is not revoked can be revoked.
const (
	ExpiredIsRevoked  RevokeOfExpired = iota // 200; it becomes revoked
	ExpiredIsRefused                         // 400
	ExpiredIsNotFound                        // 404
)

// Behavior chooses how the fake behaves where Clerk is undocumented. The zero value is the most
// likely behavior. Code that works with each of [Behaviors] does not depend on a guess.
type Behavior struct {
	QueryMatchesParts   bool // the query of GET /invitations also matches parts of an address or ID
	CaseSensitive       bool // GET /users and the query of GET /invitations compare addresses exactly
	HideUnverified      bool // GET /users finds users only by verified addresses
	UnicodeDomains      bool // addresses are stored, shown and found with their domain in Unicode, whatever the form in a request
	ASCIIDomains        bool // … with their domain in ASCII
	RejectsUnicode      bool // GET /users and the query of GET /invitations reject addresses that are not ASCII
	UnverifiedBlocks    bool // an unverified address blocks an invitation, as a verified one does
	IdentifierExists400 bool // form_identifier_exists has status 400 instead of 422
	NoErrorAddresses    bool // the meta of a rejected create does not name the addresses

	RevokeExpired         RevokeOfExpired
	SignUpAccepts         bool // an invitation becomes accepted when its address is verified in any way, not only by its link
	IgnoreExistingRevokes bool // a create with ignore_existing revokes the older pending invitations of the address

	BulkKeepsPartial  bool // a rejected bulk request creates the valid invitations
	BulkRefusesUsers  bool // a bulk request for an existing user is rejected even with ignore_existing
	BulkShuffles      bool // the response to a bulk request has another order than the request
	BulkLosesMetadata bool // metadata of a bulk invitation is not copied to the user (clerk/javascript#7956) or membership

	ListHidesMetadata bool // lists of invitations do not show the metadata of bulk invitations
	ListHidesURL      bool // lists of invitations do not show the url of an invitation
	ListOmitsUser     bool // GET /users by ID leaves out the oldest of the users

	OrganizationDuplicateRecord   bool // a second pending invitation of an organization is duplicate_record, as for the application
	OrganizationInsufficientSeats bool // a full organization is 402 insufficient_seats instead of 403
	OrganizationUnauthorized      bool // an unknown organization is organization_not_found_or_unauthorized instead of resource_not_found
	OrganizationListsRevoked      bool // lists of invitations into organizations include revoked ones if no status is requested
	DeleteEndsMemberships         bool // deleting an organization or a user also sends the event of each membership

	// Lag means that GET /users and the lists of invitations and memberships do not show changes
	// after the last Settle. The checks of a create, a revoke or a sign-up see changes
	// immediately. Changes by AddUser, CreateForeign and CreateInDashboard are shown immediately,
	// and so is the deletion of an organization.
	Lag bool

	GetUserLags bool // GET /users/{id} does not show changes after the last Settle, as with Lag

	NoExpiresAt    bool // invitations have no expires_at
	NoURL          bool // invitations have no url
	WebhookSeconds bool // the timestamp of a webhook is in seconds instead of milliseconds
}

// NamedBehavior is a Behavior with a name for a subtest.
type NamedBehavior struct {
	Name     string
	Behavior Behavior
}

// Behaviors returns the default, and one Behavior for each switch.
func Behaviors() []NamedBehavior {
	return []NamedBehavior{
		{"default", Behavior{}},
		{"query matches parts", Behavior{QueryMatchesParts: true}},
		{"case sensitive", Behavior{CaseSensitive: true}},
		{"domains in Unicode", Behavior{UnicodeDomains: true}},
		{"domains in ASCII", Behavior{ASCIIDomains: true}},
		{"addresses in Unicode rejected", Behavior{RejectsUnicode: true}},
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
		{"list hides metadata", Behavior{ListHidesMetadata: true}},
		{"list hides the url", Behavior{ListHidesURL: true}},
		{"list omits a user", Behavior{ListOmitsUser: true}},
		{"organization duplicate record", Behavior{OrganizationDuplicateRecord: true}},
		{"organization without seats", Behavior{OrganizationInsufficientSeats: true}},
		{"organization unauthorized", Behavior{OrganizationUnauthorized: true}},
		{"organization lists revoked", Behavior{OrganizationListsRevoked: true}},
		{"delete ends memberships", Behavior{DeleteEndsMemberships: true}},
		{"lag", Behavior{Lag: true}},
		{"get user lags", Behavior{GetUserLags: true}},
		{"no expires_at", Behavior{NoExpiresAt: true}},
		{"no url", Behavior{NoURL: true}},
		{"webhook in seconds", Behavior{WebhookSeconds: true}},
	}
}

// SetBehavior replaces the behavior, and settles earlier changes.
func (c *Clerk) SetBehavior(b Behavior) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	c.behavior = b
}

// Settle makes all reads show all changes so far; see [Behavior].Lag and GetUserLags.
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
	for _, o := range c.organizations {
		o.settle()
	}
}
