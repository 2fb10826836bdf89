package protocol

// Rule is a rule of the protocol that a Config can leave out.
type Rule string

// The rules. Without a rule, TestEachRuleClosesATrace finds a bad trace.
const (
	All Rule = "" // no rule is removed

	LookFirst      Rule = "an attempt after another looks at Clerk before it creates"
	LookSecondSend Rule = "a send after the first looks at Clerk before it creates"
	LookRevoked    Rule = "the look includes the invitations that are revoked"
	Adopt          Rule = "an invitation of this member and send is this send, and is adopted"
	IgnoreOnlySeen Rule = "ignore_existing is false unless this attempt has seen why it must be true"
	KeepLease      Rule = "a lost answer to a create keeps the lease"
	HonourLease    Rule = "a row that is held is not claimed"
	ClaimByVersion Rule = "a claim is a compare-and-swap"
	FreshCreate    Rule = "no create begins late in its lease"
	WriteByVersion Rule = "settling is a compare-and-swap"
	SettleAgain    Rule = "whoever is overtaken while the send still waits settles again"
	KeepNamed      Rule = "whoever is overtaken keeps the invitation that the row names"
	RevokeUnwanted Rule = "whoever is overtaken by another decision revokes what it has made"
	SweepLater     Rule = "after a send the older invitation is revoked"
	ReconcileLeft  Rule = "a reconciliation revokes what no row stands for"
	ReconcileEnded Rule = "a reconciliation takes over what was revoked at Clerk"
	ResendsWait    Rule = "a reconciliation leaves to delivery what waits for a resend"
	ClerkThenRows  Rule = "whoever looks for what is left over lists Clerk first and reads rows second"
	FindFirst      Rule = "users are looked for before anything is created"
	FindAgain      Rule = "users are looked for again before a create that ignores others"
	WithdrawLook   Rule = "a withdrawal looks for invitations that the row does not name yet"
	GiveUpOwn      Rule = "only a claim that is one's own still is given up"
)

// has reports whether a rule is followed.
func (c *Config) has(r Rule) bool { return c.Without != r }
