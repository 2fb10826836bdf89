package clerkinvite

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// ClerkAPI is what the library needs of Clerk's Backend API. Package clerkapi
// implements it over the official SDK, clerkinvitetest fakes it.
//
// Methods are safe for concurrent use and honour their context. A method that
// creates or revokes makes one request, ever; a look-up may be repeated while Clerk
// does not answer. What Clerk answers with an error, and every failure on the way,
// comes back as an *[APIError]; input that cannot be sent as an *[InvalidParamsError];
// any other error is passed through to the caller of the service as it is.
//
// Methods may be added to ClerkAPI in a minor version until v1.
type ClerkAPI interface {
	// FindUsers returns every user who holds one of the addresses, verified or not,
	// or has one of the ids. At most 100 values in all. No match is no error. It is
	// one request for addresses and one for ids, more only for an answer of over 500
	// users.
	FindUsers(ctx context.Context, q UserQuery) ([]User, error)

	// CreateInvitation asks for one invitation. It is never repeated by the
	// implementation: a second one can mean a second email.
	CreateInvitation(ctx context.Context, r InvitationRequest) (*Invitation, error)

	// CreateInvitations asks for up to 10 at once, for different addresses. The
	// answer's order is Clerk's; nothing says that it is the request's.
	CreateInvitations(ctx context.Context, rs []InvitationRequest) ([]Invitation, error)

	// ListInvitations returns one page, by created_at, the oldest first unless
	// NewestFirst. A page with fewer than Limit invitations is the last.
	ListInvitations(ctx context.Context, q InvitationQuery) ([]Invitation, error)

	// RevokeInvitation kills the link of a pending invitation.
	RevokeInvitation(ctx context.Context, invitationID string) (*Invitation, error)
}

// UserQuery selects users by address or by id. Emails are normalised.
type UserQuery struct {
	Emails []string
	IDs    []string
}

// User is a Clerk user, as far as the library looks at one.
type User struct {
	ID             string
	PrimaryEmailID string // id of the primary address, may be empty
	Emails         []UserEmail
	Banned         bool
	CreatedAt      time.Time
}

// UserEmail is one address of a user.
type UserEmail struct {
	ID      string
	Address string
	// Verified is true only if Clerk's verification.status of this address is
	// "verified" and the address is not merely reserved.
	Verified bool
}

// InvitationRequest is what one invitation is asked for with. The zero value of
// each optional field means Clerk's default.
type InvitationRequest struct {
	Email          string
	RedirectURL    string
	ExpiresInDays  int
	Template       string          // template_slug
	SkipEmail      bool            // notify=false
	IgnoreExisting bool            // ignore_existing
	PublicMetadata json.RawMessage // a JSON object, or nil
}

// Statuses of an invitation at Clerk.
const (
	InvitationPending  = "pending"
	InvitationAccepted = "accepted"
	InvitationRevoked  = "revoked"
	InvitationExpired  = "expired"
)

// Invitation is Clerk's invitation object. Clerk does not say who accepted one.
type Invitation struct {
	ID             string
	Email          string
	Status         string
	URL            Secret `json:"-"` // whoever has it can accept the invitation
	PublicMetadata json.RawMessage
	CreatedAt      time.Time
	ExpiresAt      *time.Time // nil if Clerk did not say
}

// InvitationQuery selects a page of invitations. Clerk's list without a status
// holds all but the revoked ones.
type InvitationQuery struct {
	Query  string // an address or an invitation id; whether Clerk matches parts of it is unknown, so match again
	Status string // one status, or "" for all but revoked
	Limit  int    // 1 to 500; 0 means 500
	Offset int

	NewestFirst bool
}

// holdsVerified reports whether u holds the normalised address verified.
func (u *User) holdsVerified(email string) bool {
	return slices.ContainsFunc(u.Emails, func(e UserEmail) bool { return e.Verified && sameEmail(e.Address, email) })
}

// holds reports whether u holds the normalised address, verified or not.
func (u *User) holds(email string) bool {
	return slices.ContainsFunc(u.Emails, func(e UserEmail) bool { return sameEmail(e.Address, email) })
}

// primaryEmail returns the normalised primary address of u, or "".
func (u *User) primaryEmail() string {
	for _, e := range u.Emails {
		if e.ID != "" && e.ID == u.PrimaryEmailID {
			n, _ := normalizeEmail(e.Address)
			return n
		}
	}
	return ""
}

// verifiedEmails returns the normalised addresses that u holds verified.
func (u *User) verifiedEmails() []string {
	var out []string
	for _, e := range u.Emails {
		if !e.Verified {
			continue
		}
		if n, reason := normalizeEmail(e.Address); reason == "" {
			out = append(out, n)
		}
	}
	return out
}

// mark is what public_metadata of each of our invitations carries under
// "clerkinvite". The user can read it: it is a correlation, not a secret and
// never a proof.
type mark struct {
	ID   string `json:"id"`
	Send int    `json:"send"`
}

// mark returns the member id and send that inv carries, if it is one of ours.
func (inv *Invitation) mark() (mark, bool) {
	// A map, because struct fields match keys in any case, and a host or another
	// application may have a key that differs from ours in that only.
	var meta map[string]json.RawMessage
	var m mark
	if json.Unmarshal(inv.PublicMetadata, &meta) != nil || json.Unmarshal(meta[metadataKey], &m) != nil || m.ID == "" || m.Send < 1 {
		return mark{}, false
	}
	m.ID = strings.ToLower(m.ID)
	return m, true
}
