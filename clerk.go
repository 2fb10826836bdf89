package clerkinvite

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/clerkinvite/clerkinvite/internal/wire"
)

// ClerkAPI makes the library's calls to Clerk's Backend API. Package clerkapi implements it over
// the official SDK, and clerkinvitetest has a fake.
//
// Methods are safe for concurrent use and stop when their context ends. A method that
// creates or revokes makes exactly one request; a look-up may be retried.
//
// Errors: *[APIError] for an error response from Clerk and for any failed request;
// *[InvalidParamsError] for input that cannot be sent. The Service returns any other error
// to its caller unchanged, but Remove and Revoke only log it if it concerns another member.
//
// Until v1, a minor version may add methods to ClerkAPI.
type ClerkAPI interface {
	// FindUsers returns every user who has one of the addresses, verified or not, or one of
	// the IDs. q has at most 100 values in total. No match is not an error. FindUsers makes
	// one request for the addresses and one for the IDs, and more only if they do not fit in
	// one URL or more than 500 users match.
	FindUsers(ctx context.Context, q UserQuery) ([]User, error)

	// GetUser returns the user with the ID. If Clerk reports that the user does not exist,
	// the error is an *[APIError] with status 404 and the code resource_not_found. The
	// library removes members because of this error, so no other failure may look like it.
	GetUser(ctx context.Context, id string) (*User, error)

	// CreateInvitation creates one invitation. Implementations never retry it, because a
	// second request can send a second email.
	CreateInvitation(ctx context.Context, r InvitationRequest) (*Invitation, error)

	// CreateInvitations creates up to 10 invitations, for different addresses, with one
	// request. The order of the result can differ from the order of rs.
	CreateInvitations(ctx context.Context, rs []InvitationRequest) ([]Invitation, error)

	// ListInvitations returns one page, ordered by created_at, oldest first unless
	// NewestFirst is set. A page with fewer than Limit invitations is the last. An invitation
	// with an unreadable ID is included with an empty ID, so that offsets stay correct.
	ListInvitations(ctx context.Context, q InvitationQuery) ([]Invitation, error)

	// RevokeInvitation disables the link of a pending invitation.
	RevokeInvitation(ctx context.Context, r RevokeRequest) (*Invitation, error)
}

// UserQuery selects users by address or by ID. Emails are normalised.
type UserQuery struct {
	Emails []string
	IDs    []string
}

// User is a Clerk user, reduced to the fields that the library uses.
type User struct {
	ID             string
	PrimaryEmailID string // ID of the primary address; may be empty
	Emails         []UserEmail
	Incomplete     bool // some addresses could not be read and are missing from Emails
	Banned         bool
	Deprovisioned  bool
	Locked         bool
	LockEndsIn     time.Duration // for a locked user; 0 if the lock does not end automatically, or its end is unknown
	CreatedAt      time.Time
}

// UserEmail is one address of a user.
type UserEmail struct {
	ID       string
	Address  string
	Verified bool // Clerk's verification.status of this address is "verified"
}

// InvitationRequest describes an invitation to create. The zero value of an optional field
// means Clerk's default.
type InvitationRequest struct {
	Email          string
	RedirectURL    string
	ExpiresInDays  int
	Template       string          // template_slug
	SkipEmail      bool            // notify=false
	IgnoreExisting bool            // ignore_existing
	PublicMetadata json.RawMessage // a JSON object, or nil

	// OrganizationID is the organization (org_…) to invite into, or "" for the application. With it, Role is
	// required, and Inviter is the user (user_…) whose name the email shows, or "". Template and
	// IgnoreExisting must be zero, because Clerk has no such parameters for organizations.
	OrganizationID string
	Role, Inviter  string
}

// RevokeRequest names an invitation to revoke.
type RevokeRequest struct {
	ID             string
	OrganizationID string // of an invitation into an organization, otherwise ""
}

// InvitationStatus is the status of an invitation at Clerk; it is not a member's [Status].
type InvitationStatus string

// The statuses of an invitation at Clerk.
const (
	InvitationPending  InvitationStatus = "pending"
	InvitationAccepted InvitationStatus = "accepted"
	InvitationRevoked  InvitationStatus = "revoked"
	InvitationExpired  InvitationStatus = "expired"
)

// Invitation is Clerk's invitation object. It does not say who accepted the invitation.
type Invitation struct {
	ID             string
	Email          string
	Status         InvitationStatus
	URL            Secret `json:"-"` // anyone who has it can accept the invitation
	PublicMetadata json.RawMessage
	CreatedAt      time.Time
	ExpiresAt      *time.Time // nil if unknown
	OrganizationID string     // of an invitation into an organization, otherwise ""
}

// InvitationQuery selects a page of invitations: into the application, or into one or all organizations.
type InvitationQuery struct {
	Query  string           // an address or an invitation ID; Clerk may also return partial matches, so check the result
	Status InvitationStatus // one status, or "" for all; Clerk then omits revoked ones, at least for the application
	Limit  int              // 1 to 500; 0 means 500
	Offset int

	NewestFirst bool

	OrganizationID   string // only invitations into this organization; Query must be an address
	AllOrganizations bool   // only invitations into organizations
}

// hasVerified reports whether u has verified the normalised address.
func (u *User) hasVerified(email string) bool {
	return slices.ContainsFunc(u.Emails, func(e UserEmail) bool { return e.Verified && sameEmail(e.Address, email) })
}

// has reports whether u has the normalised address, verified or not.
func (u *User) has(email string) bool {
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

// barred returns the Reason why u must not become a member, or "". Both inviting and resolving use it.
func (u *User) barred() (reason string, cause error) {
	switch {
	case u.Banned:
		return ReasonUserBanned, errBanned
	case u.Deprovisioned:
		return ReasonUserDeprovisioned, errDeprovisioned
	case u.Locked:
		return ReasonUserLocked, errLocked
	}
	return "", nil
}

func (u *User) isBarred() bool {
	reason, _ := u.barred()
	return reason != ""
}

// verifiedEmails returns the normalised addresses that u has verified.
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

// mark is the marker of the library's invitations, in public_metadata under "clerkinvite". It
// identifies invitations but proves nothing, because users can read it.
type mark struct {
	ID   string
	Send int
}

// showsMetadata reports whether Clerk returned metadata for inv. The library's invitations always
// have metadata.
func (inv *Invitation) showsMetadata() bool {
	var meta map[string]json.RawMessage
	return json.Unmarshal(inv.PublicMetadata, &meta) == nil && len(meta) > 0
}

// mark returns the marker of inv, if it has one.
func (inv *Invitation) mark() (mark, bool) {
	o := wire.Parse(inv.PublicMetadata).Object(metadataKey)
	m := mark{strings.ToLower(o.Text("id")), o.Int("send")}
	if m.ID == "" || m.Send < 1 {
		return mark{}, false
	}
	return m, true
}
