package protocol

// Rule is a rule of the protocol that a Config can leave out.
type Rule string

// The rules. Without a rule, TestEachRuleClosesATrace finds a bad trace.
const (
	All Rule = "" // no rule is removed

	LookFirst      Rule = "an attempt after another looks at Clerk before it creates"
	LookSecondSend Rule = "a send after the first looks at Clerk before it creates"
	LookRevoked    Rule = "the look includes revoked invitations"
	Adopt          Rule = "an invitation with this member's ID and send is adopted"
	IgnoreOnlySeen Rule = "ignore_existing is false unless this attempt has seen why it must be true"
	KeepLease      Rule = "an attempt whose create's response is lost keeps the lease"
	HonourLease    Rule = "a claimed row is not claimed again"
	ClaimByVersion Rule = "a claim is a compare-and-swap"
	FreshCreate    Rule = "no create begins late in its lease"
	WriteByVersion Rule = "settling is a compare-and-swap"
	SettleAgain    Rule = "an attempt settles again if the row changed and the send still waits"
	KeepNamed      Rule = "an attempt whose row changed keeps the invitation that the row names"
	RevokeUnwanted Rule = "an attempt whose row was settled otherwise revokes its invitation"
	SweepLater     Rule = "after a send the older invitation is revoked"
	ReconcileLeft  Rule = "a reconciliation revokes invitations that no row refers to"
	ReconcileEnded Rule = "a reconciliation ends members whose invitation was revoked at Clerk"
	ResendsWait    Rule = "a reconciliation does not end members that are due for a resend"
	ClerkThenRows  Rule = "a search for left-over invitations lists Clerk first and reads rows second"
	FindFirst      Rule = "users are looked for before anything is created"
	FindAgain      Rule = "users are looked for again before a create with ignore_existing"
	WithdrawLook   Rule = "a withdrawal looks for invitations that the row does not name yet"
	GiveUpOwn      Rule = "an attempt gives up only its own claim"
	RevokeFirst    Rule = "a resend into an organization revokes the older invitation before it creates one"
	SendAccepted   Rule = "a resend into an organization creates an invitation even if the older one was accepted, unless the person has joined"
	AdoptForeign   Rule = "another application's pending invitation into the organization is adopted"
	ProveMember    Rule = "only a member of the organization becomes active"
	TryOnce        Rule = "with Config.WithdrawOnFailure, an attempt after another gives the invitation up"
)

// has reports whether a rule is followed.
func (c *Config) has(r Rule) bool { return c.Without != r }
