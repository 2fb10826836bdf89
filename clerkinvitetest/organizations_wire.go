package clerkinvitetest

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/clerkinvite/clerkinvite"
)

// wireList is Clerk's list of organizations' invitations or memberships.
type wireList[T any] struct {
	Data       []T `json:"data"`
	TotalCount int `json:"total_count"`
}

// wireOrganizationInvitation is Clerk's organization invitation object.
type wireOrganizationInvitation struct {
	Object           string                       `json:"object"`
	ID               string                       `json:"id"`
	EmailAddress     string                       `json:"email_address"`
	Role             string                       `json:"role"`
	RoleName         string                       `json:"role_name"`
	OrganizationID   string                       `json:"organization_id"`
	InviterID        *string                      `json:"inviter_id"`
	Inviter          *wirePublicUser              `json:"public_inviter_data"`
	OrganizationData *wireOrganizationData        `json:"public_organization_data,omitempty"` // only in the list of all organizations
	Status           clerkinvite.InvitationStatus `json:"status"`
	PublicMetadata   json.RawMessage              `json:"public_metadata"`
	PrivateMetadata  json.RawMessage              `json:"private_metadata"`
	URL              *string                      `json:"url"`
	ExpiresAt        *int64                       `json:"expires_at"`
	CreatedAt        int64                        `json:"created_at"`
	UpdatedAt        int64                        `json:"updated_at"`
}

// wireAcceptedInvitation is the data of the event organizationInvitation.accepted.
type wireAcceptedInvitation struct {
	wireOrganizationInvitation

	UserID string `json:"user_id"`
}

type wireOrganizationData struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Slug     string `json:"slug"`
	ImageURL string `json:"image_url"`
	HasImage bool   `json:"has_image"`
}

type wirePublicUser struct {
	UserID     string  `json:"user_id"`
	FirstName  *string `json:"first_name"`
	LastName   *string `json:"last_name"`
	ImageURL   string  `json:"image_url"`
	HasImage   bool    `json:"has_image"`
	Identifier string  `json:"identifier"`
}

// wireMember is the user in a membership.
type wireMember struct {
	wirePublicUser

	ProfileImageURL *string `json:"profile_image_url"`
	Banned          bool    `json:"banned"`
	Deprovisioned   bool    `json:"deprovisioned"`
}

// wireMembership is Clerk's organization membership object.
type wireMembership struct {
	Object          string           `json:"object"`
	ID              string           `json:"id"`
	Role            string           `json:"role"`
	RoleName        string           `json:"role_name"`
	Permissions     []string         `json:"permissions"`
	PublicMetadata  json.RawMessage  `json:"public_metadata"`
	PrivateMetadata json.RawMessage  `json:"private_metadata"`
	Organization    wireOrganization `json:"organization"`
	PublicUserData  wireMember       `json:"public_user_data"`
	CreatedAt       int64            `json:"created_at"`
	UpdatedAt       int64            `json:"updated_at"`
}

// wireOrganization is Clerk's organization object.
type wireOrganization struct {
	wireOrganizationData

	Object             string          `json:"object"`
	MembersCount       int             `json:"members_count"`
	PendingInvitations int             `json:"pending_invitations_count"`
	MaxMemberships     int             `json:"max_allowed_memberships"`
	AdminDeleteEnabled bool            `json:"admin_delete_enabled"`
	PublicMetadata     json.RawMessage `json:"public_metadata"`
	PrivateMetadata    json.RawMessage `json:"private_metadata"`
	CreatedAt          int64           `json:"created_at"`
	UpdatedAt          int64           `json:"updated_at"`
}

func (c *Clerk) wireOrganizationInvitation(i *invitation, now time.Time) wireOrganizationInvitation {
	w := wireOrganizationInvitation{
		Object: "organization_invitation", ID: i.id, EmailAddress: i.email, Role: i.role, RoleName: roleName(i.role),
		OrganizationID: i.organization, Status: i.statusAt(now), PublicMetadata: i.metadata, PrivateMetadata: i.privateMetadata,
		CreatedAt: i.createdAt.UnixMilli(), UpdatedAt: i.updatedAt.UnixMilli(),
	}
	if r := c.userByID[i.inviter]; r != nil {
		inviter := r.public()
		w.InviterID, w.Inviter = &inviter.UserID, &inviter
	}
	if i.url != "" && !c.behavior.NoURL {
		w.URL = &i.url
	}
	if !c.behavior.NoExpiresAt {
		at := i.expiresAt.UnixMilli()
		w.ExpiresAt = &at
	}
	return w
}

// wireOrganizationInvitations returns a page of a list of invitations into organizations.
func (c *Clerk) wireOrganizationInvitations(page []invitation, total int, p listParams, now time.Time) wireList[wireOrganizationInvitation] {
	list := wireList[wireOrganizationInvitation]{Data: []wireOrganizationInvitation{}, TotalCount: total}
	for _, i := range page {
		w := c.wireOrganizationInvitation(&i, now)
		if p.allOrganizations {
			data := c.organizations[i.organization].data()
			w.OrganizationData = &data
		}
		list.Data = append(list.Data, w)
	}
	return list
}

func (c *Clerk) wireMembership(o *organization, m *membership, now time.Time) wireMembership {
	return wireMembership{
		Object: "organization_membership", ID: m.id, Role: m.role, RoleName: roleName(m.role), Permissions: []string{},
		PublicMetadata: m.metadata, PrivateMetadata: m.privateMetadata,
		Organization: wireOrganization{
			wireOrganizationData: o.data(), Object: "organization", MembersCount: len(o.current()), PendingInvitations: o.pending(now),
			MaxMemberships: o.maxMembers, AdminDeleteEnabled: true,
			PublicMetadata: json.RawMessage("{}"), PrivateMetadata: json.RawMessage("{}"),
			CreatedAt: o.createdAt.UnixMilli(), UpdatedAt: o.createdAt.UnixMilli(),
		},
		PublicUserData: wireMember{wirePublicUser: m.user.public(), Banned: m.user.account.banned, Deprovisioned: m.user.account.deprovisioned},
		CreatedAt:      m.createdAt.UnixMilli(), UpdatedAt: m.updatedAt.UnixMilli(),
	}
}

func (o *organization) data() wireOrganizationData {
	return wireOrganizationData{ID: o.id, Name: o.id, Slug: o.slug(), ImageURL: "https://img.clerk.example.test/" + o.id}
}

// public returns the user as other users see them.
func (u *user) public() wirePublicUser {
	w := wirePublicUser{UserID: u.id, ImageURL: "https://img.clerk.example.test/" + u.id}
	for _, e := range u.emails {
		if e.id == u.primary {
			w.Identifier = e.Address
		}
	}
	return w
}

// wireRole is Clerk's role object.
type wireRole struct {
	Object            string   `json:"object"`
	ID                string   `json:"id"`
	Name              string   `json:"name"`
	Key               string   `json:"key"`
	Description       *string  `json:"description"`
	IsCreatorEligible bool     `json:"is_creator_eligible"`
	Permissions       []string `json:"permissions"`
	CreatedAt         int64    `json:"created_at"`
	UpdatedAt         int64    `json:"updated_at"`
}

// wireRoles returns a page of the instance's roles, which are as old as the instance.
func wireRoles(roles []string, limit, offset int) wireList[wireRole] {
	list := wireList[wireRole]{Data: []wireRole{}, TotalCount: len(roles)}
	for _, key := range cut(roles, limit, offset) {
		list.Data = append(list.Data, wireRole{
			Object: "role", ID: "role_" + strings.TrimPrefix(key, "org:"), Name: roleName(key), Key: key,
			IsCreatorEligible: key == adminRole, Permissions: []string{}, CreatedAt: 1735689600000, UpdatedAt: 1735689600000,
		})
	}
	return list
}

// roleName returns the name of a role: Member for org:member.
func roleName(key string) string {
	name := strings.TrimPrefix(key, "org:")
	return strings.ToUpper(name[:min(1, len(name))]) + name[min(1, len(name)):]
}

// invitation returns w as the real adapter does.
func (w wireOrganizationInvitation) invitation() clerkinvite.Invitation {
	same := wireInvitation{
		ID: w.ID, EmailAddress: w.EmailAddress, Status: w.Status, PublicMetadata: w.PublicMetadata, CreatedAt: w.CreatedAt, ExpiresAt: w.ExpiresAt,
	}
	if w.URL != nil {
		same.URL = *w.URL
	}
	i := same.invitation()
	i.OrganizationID = w.OrganizationID
	return i
}

// invitation returns i as the real adapter does.
func (c *Clerk) invitation(i *invitation, now time.Time) clerkinvite.Invitation {
	if i.organization != "" {
		return c.wireOrganizationInvitation(i, now).invitation()
	}
	return c.wireInvitation(i, now).invitation()
}

// membership returns w as the real adapter does.
func (w wireMembership) membership() clerkinvite.Membership {
	return clerkinvite.Membership{
		OrganizationID: w.Organization.ID, UserID: w.PublicUserData.UserID, Role: w.Role, CreatedAt: time.UnixMilli(w.CreatedAt).UTC(),
	}
}
