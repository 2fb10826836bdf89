// Package clerkcheck checks the parameters of the calls to Clerk, one function per method. clerkapi
// and the fake in clerkinvitetest share it, so the fake rejects what clerkapi rejects. Each error is a
// *[clerkinvite.InvalidParamsError].
package clerkcheck

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/internal/wire"
)

// Documented limits.
const (
	maxLookUp  = 100 // addresses or IDs in one request
	maxPage    = 500 // invitations in one page
	maxBulk    = 10  // invitations in one create
	maxExpires = 365 // days
)

// FindUsers checks a query for users.
func FindUsers(q clerkinvite.UserQuery) error {
	switch {
	case len(q.Emails)+len(q.IDs) > maxLookUp:
		return invalid("Emails", "must be at most 100 values, together with IDs")
	case !all(q.Emails, plausible): // Clerk may ignore an empty filter and list everyone
		return invalid("Emails", "must be email addresses")
	case !all(q.IDs, wire.ValidID):
		return invalid("IDs", "must be Clerk user IDs")
	}
	return nil
}

// GetUser checks the ID of a user.
func GetUser(id string) error {
	if !wire.ValidID(id) {
		return invalid("id", "must be a Clerk user ID")
	}
	return nil
}

// CreateInvitation checks a request for one invitation.
func CreateInvitation(r clerkinvite.InvitationRequest) error {
	switch {
	case !plausible(r.Email):
		return invalid("Email", "must be an email address")
	case r.ExpiresInDays < 0 || r.ExpiresInDays > maxExpires:
		return invalid("ExpiresInDays", "must be 0 to 365")
	case r.PublicMetadata != nil && !isObject(r.PublicMetadata):
		return invalid("PublicMetadata", "must be a JSON object")
	}
	return organizationFields(r)
}

// organizationFields checks the fields that only one of the two kinds of invitation has: into an
// organization, or into the application.
func organizationFields(r clerkinvite.InvitationRequest) error {
	const noOrganization = "must be empty without Organization"
	switch {
	case r.Organization == "" && r.Role != "":
		return invalid("Role", noOrganization)
	case r.Organization == "" && r.Inviter != "":
		return invalid("Inviter", noOrganization)
	case r.Organization == "":
		return nil
	case !wire.ValidID(r.Organization):
		return invalidOrganization()
	case r.Role == "":
		return invalidRole()
	case r.Inviter != "" && !wire.ValidID(r.Inviter):
		return invalid("Inviter", "must be a Clerk user ID")
	case r.Template != "":
		return invalid("Template", "must be empty for an organization")
	case r.IgnoreExisting:
		return invalid("IgnoreExisting", "must be false for an organization")
	}
	return nil
}

// CreateInvitations checks a request for several invitations.
func CreateInvitations(rs []clerkinvite.InvitationRequest) error {
	if len(rs) < 1 || len(rs) > maxBulk {
		return invalid("Invitations", "must be 1 to 10")
	}
	seen := make(map[string]bool, len(rs))
	for _, r := range rs {
		email := strings.ToLower(r.Email)
		switch err := CreateInvitation(r); {
		case err != nil:
			return err
		case r.Organization != rs[0].Organization:
			return invalid("Organization", "must be the same for all invitations of one request")
		case seen[email]:
			return invalid("Email", "must not occur twice in one request")
		}
		seen[email] = true
	}
	return nil
}

// ListInvitations checks a query for invitations.
func ListInvitations(q clerkinvite.InvitationQuery) error {
	switch {
	case q.Limit < 0 || q.Limit > maxPage:
		return invalid("Limit", "must be 0 to 500")
	case q.Offset < 0:
		return invalid("Offset", "must not be negative")
	case q.Organization != "" && q.AllOrganizations:
		return invalid("AllOrganizations", "must not be set together with Organization")
	case q.Organization != "" && !wire.ValidID(q.Organization):
		return invalidOrganization()
	case q.Organization != "" && q.Query != "" && !plausible(q.Query):
		return invalid("Query", "must be an email address if Organization is set")
	}
	switch q.Status {
	case "", clerkinvite.InvitationPending, clerkinvite.InvitationAccepted, clerkinvite.InvitationRevoked, clerkinvite.InvitationExpired:
		return nil
	}
	return invalid("Status", "must be pending, accepted, revoked or expired")
}

// RevokeInvitation checks a request to revoke an invitation.
func RevokeInvitation(r clerkinvite.RevokeRequest) error {
	switch {
	case !wire.ValidID(r.ID):
		return invalid("ID", "must be a Clerk invitation ID")
	case r.Organization != "" && !wire.ValidID(r.Organization):
		return invalidOrganization()
	}
	return nil
}

// FindMemberships checks a query for memberships.
func FindMemberships(q clerkinvite.MembershipQuery) error {
	switch {
	case !wire.ValidID(q.Organization):
		return invalidOrganization()
	case len(q.UserIDs) < 1 || len(q.UserIDs) > maxLookUp: // without a filter, Clerk lists all members
		return invalid("UserIDs", "must be 1 to 100")
	case !all(q.UserIDs, wire.ValidID): // with a leading "-", Clerk lists all other members
		return invalid("UserIDs", "must be Clerk user IDs")
	}
	return nil
}

// AddMember checks a membership to add.
func AddMember(m clerkinvite.Membership) error {
	if m.Role == "" {
		return invalidRole()
	}
	return RemoveMember(m)
}

// RemoveMember checks a membership to end.
func RemoveMember(m clerkinvite.Membership) error {
	switch {
	case !wire.ValidID(m.Organization):
		return invalidOrganization()
	case !wire.ValidID(m.UserID):
		return invalid("UserID", "must be a Clerk user ID")
	}
	return nil
}

// plausible reports whether s can be sent as an address. The service has validated it.
func plausible(s string) bool {
	return len(s) <= 1024 && strings.Contains(s, "@") &&
		!strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f })
}

func isObject(raw json.RawMessage) bool {
	trimmed := bytes.TrimSpace(raw)
	return json.Valid(trimmed) && trimmed[0] == '{'
}

func all(values []string, valid func(string) bool) bool {
	return !slices.ContainsFunc(values, func(v string) bool { return !valid(v) })
}

func invalidOrganization() error { return invalid("Organization", "must be a Clerk organization ID") }

func invalidRole() error { return invalid("Role", "must be the key of a role such as org:member") }

func invalid(field, reason string) error {
	return &clerkinvite.InvalidParamsError{Field: field, Reason: reason}
}
