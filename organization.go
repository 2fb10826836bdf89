package clerkinvite

import (
	"cmp"
	"context"
)

// Organization makes an invitation one into a Clerk organization. The person becomes active once they
// have verified the address and are a member of the organization.
type Organization struct {
	ID      string `json:"id"`                // org_…
	Role    string `json:"role,omitempty"`    // a key of Clerk's roles, such as "org:admin"; "" means "org:member"
	Inviter string `json:"inviter,omitempty"` // the Clerk user (user_…) whose name the email shows, an admin of the organization; "" means nobody

	// AddExisting adds a Clerk user who has verified the address to the organization immediately,
	// without an email and without asking them. By Clerk's documentation it becomes their active
	// organization at their next sign-in. Otherwise they get the organization's invitation.
	AddExisting bool `json:"add_existing,omitempty"`
}

// OrganizationAPI is the part of Clerk's Backend API that the library uses for the members of
// organizations, beside [ClerkAPI]. Package clerkapi implements both, and clerkinvitetest has a fake.
//
// What ClerkAPI says about concurrency, contexts and errors is true here, too.
//
// Methods may be added to OrganizationAPI in a minor version until v1.
type OrganizationAPI interface {
	// FindMemberships returns which of up to 100 users are members of one organization. A user who
	// is not a member is not an error.
	FindMemberships(ctx context.Context, q MembershipQuery) ([]Membership, error)

	// AddMember makes a user a member of an organization, and sends no email. It makes exactly
	// one request.
	AddMember(ctx context.Context, m Membership) error

	// RemoveMember ends a user's membership of an organization. It makes exactly one request.
	RemoveMember(ctx context.Context, m Membership) error
}

// Membership is a user's membership of an organization.
type Membership struct {
	Organization string // org_…
	UserID       string // user_…
	Role         string // a key of Clerk's roles; RemoveMember ignores it
}

// MembershipQuery selects members of one organization by their user IDs.
type MembershipQuery struct {
	Organization string
	UserIDs      []string // 1 to 100
}

// Organization returns what the member was last invited into, and false if that was the application.
func (m Member) Organization() (o Organization, ok bool) {
	p := m.clerkParams()
	if p.Organization == nil {
		return Organization{}, false
	}
	return *p.Organization, true
}

// defaultRole is the role in an organization if [Organization] names none.
const defaultRole = "org:member"

// checkOrganization fills in the default role, and returns what is wrong with the parameters of an
// invitation into an organization, or nil.
func (s *Service) checkOrganization(p *InviteParams) error {
	if p.Organization == nil {
		return nil
	}
	o := *p.Organization
	o.Role = cmp.Or(o.Role, defaultRole)
	p.Organization = &o
	switch {
	case s.cfg.Organizations == nil:
		return &InvalidParamsError{"Organization", "needs Config.Organizations"}
	case !clerkID.MatchString(o.ID):
		return &InvalidParamsError{"Organization.ID", "must be the ID of an organization (org_…)"}
	case o.Inviter != "" && !clerkID.MatchString(o.Inviter):
		return &InvalidParamsError{"Organization.Inviter", "must be a Clerk user's ID (user_…)"}
	case p.Template != "":
		return &InvalidParamsError{"Template", "must be empty for an organization: Clerk has one template for its invitations"}
	}
	if reason := checkText(o.Role, 255); reason != "" {
		return &InvalidParamsError{"Organization.Role", reason}
	}
	return nil
}
