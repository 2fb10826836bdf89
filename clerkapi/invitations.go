package clerkapi

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/invitation"
	"github.com/clerk/clerk-sdk-go/v2/organizationinvitation"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/internal/wire"
)

const maxBulk = 10 // invitations per request, documented

// CreateInvitation implements [clerkinvite.ClerkAPI] with one POST /invitations, or
// POST /organizations/{id}/invitations if r has an Organization.
//
// Errors: *[clerkinvite.InvalidParamsError] before any request; *[clerkinvite.APIError] after a
// failed one, which matches ctx's error under errors.Is if ctx has ended.
// CreateInvitation is safe for concurrent use. Without IgnoreExisting it is safe to retry, because
// Clerk rejects a duplicate; with it, only if NotSent is true.
func (c *Client) CreateInvitation(ctx context.Context, r clerkinvite.InvitationRequest) (*clerkinvite.Invitation, error) {
	params, err := newCreateParams(r)
	if err != nil {
		return nil, err
	}
	req := clerk.NewAPIRequest(http.MethodPost, invitationsPath(r.Organization))
	req.SetParams(params)
	return c.changeOne(ctx, req, r.Organization)
}

// CreateInvitations implements [clerkinvite.ClerkAPI] with one POST /invitations/bulk, or
// POST /organizations/{id}/invitations/bulk. All of rs must have the same Organization. The
// response can have fewer invitations than the request, but at least one.
//
// Errors: *[clerkinvite.InvalidParamsError] before any request; *[clerkinvite.APIError] after a
// failed one, which matches ctx's error under errors.Is if ctx has ended.
// CreateInvitations is safe for concurrent use. Without IgnoreExisting it is safe to retry, because
// Clerk rejects duplicates; with it, only if NotSent is true.
func (c *Client) CreateInvitations(ctx context.Context, rs []clerkinvite.InvitationRequest) ([]clerkinvite.Invitation, error) {
	if len(rs) < 1 || len(rs) > maxBulk {
		return nil, &clerkinvite.InvalidParamsError{Field: "Invitations", Reason: "must be 1 to 10"}
	}
	organization := rs[0].Organization
	params := &bulkParams{}
	seen := make(map[string]bool, len(rs))
	for _, r := range rs {
		p, err := newCreateParams(r)
		if err != nil {
			return nil, err
		}
		if r.Organization != organization {
			return nil, &clerkinvite.InvalidParamsError{Field: "Organization", Reason: "must be the same for all invitations of one request"}
		}
		key := strings.ToLower(r.Email)
		if seen[key] {
			return nil, &clerkinvite.InvalidParamsError{Field: "Email", Reason: "must not occur twice in one request"}
		}
		seen[key] = true
		params.invitations = append(params.invitations, p)
	}
	req := clerk.NewAPIRequest(http.MethodPost, invitationsPath(organization)+"/bulk")
	req.SetParams(params)
	var created []clerkinvite.Invitation
	err := c.call(ctx, c.create, req, func(body []byte) error {
		list, err := readInvitations(body, organization)
		created = slices.DeleteFunc(list, func(inv clerkinvite.Invitation) bool { return inv.ID == "" })
		if err == nil && len(created) == 0 {
			err = errors.New("it has no invitation with a valid ID")
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return created, nil
}

// ListInvitations implements [clerkinvite.ClerkAPI] with GET /invitations,
// GET /organizations/{id}/invitations or GET /organization_invitations, ordered by created_at.
// An invitation without a valid ID has an empty ID.
//
// Errors: *[clerkinvite.InvalidParamsError] before any request; *[clerkinvite.APIError] after a
// failed one, which matches ctx's error under errors.Is if ctx has ended.
// ListInvitations is safe for concurrent use and safe to retry.
func (c *Client) ListInvitations(ctx context.Context, q clerkinvite.InvitationQuery) ([]clerkinvite.Invitation, error) {
	req, err := newListRequest(q)
	if err != nil {
		return nil, err
	}
	var page []clerkinvite.Invitation
	err = c.lookUp(ctx, func() error {
		return c.call(ctx, c.lookup, req, func(body []byte) (err error) {
			page, err = readInvitations(body, q.Organization)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return page, nil
}

func newListRequest(q clerkinvite.InvitationQuery) (*clerk.APIRequest, error) {
	switch {
	case q.Limit < 0 || q.Limit > maxPage:
		return nil, &clerkinvite.InvalidParamsError{Field: "Limit", Reason: "must be 0 to 500"}
	case q.Offset < 0:
		return nil, &clerkinvite.InvalidParamsError{Field: "Offset", Reason: "must not be negative"}
	case q.Organization != "" && q.AllOrganizations:
		return nil, &clerkinvite.InvalidParamsError{Field: "AllOrganizations", Reason: "must not be set together with Organization"}
	case q.Organization != "" && !validID(q.Organization):
		return nil, invalidOrganization()
	case q.Organization != "" && q.Query != "" && !plausible(q.Query):
		return nil, &clerkinvite.InvalidParamsError{Field: "Query", Reason: "must be an email address if Organization is set"}
	}
	page := clerk.ListParams{Limit: clerk.Int64(maxPage), Offset: clerk.Int64(int64(q.Offset))}
	if q.Limit > 0 {
		page.Limit = clerk.Int64(int64(q.Limit))
	}
	order := clerk.String("+created_at")
	if q.NewestFirst {
		order = clerk.String("-created_at") // explicit, although it is Clerk's default today
	}
	var query *string
	if q.Query != "" {
		query = &q.Query
	}
	var statuses []string
	switch q.Status {
	case "":
	case clerkinvite.InvitationPending, clerkinvite.InvitationAccepted, clerkinvite.InvitationRevoked, clerkinvite.InvitationExpired:
		statuses = []string{q.Status} // the API accepts only one
	default:
		return nil, &clerkinvite.InvalidParamsError{Field: "Status", Reason: "must be pending, accepted, revoked or expired"}
	}
	var path string
	var params clerk.Params
	switch {
	case q.Organization != "":
		path = invitationsPath(q.Organization)
		params = &organizationinvitation.ListParams{ListParams: page, OrderBy: order, EmailAddress: query, Statuses: &statuses}
	case q.AllOrganizations:
		path = "/organization_invitations"
		params = &organizationinvitation.ListFromInstanceParams{ListParams: page, OrderBy: order, Query: query, Statuses: &statuses}
	default:
		path = "/invitations?paginated=true" // like the SDK's List
		params = &invitation.ListParams{ListParams: page, OrderBy: order, Query: query, Statuses: statuses}
	}
	req := clerk.NewAPIRequest(http.MethodGet, path)
	req.SetParams(params)
	return req, nil
}

// RevokeInvitation implements [clerkinvite.ClerkAPI] with one POST /invitations/{id}/revoke, or
// POST /organizations/{id}/invitations/{id}/revoke if r has an Organization.
//
// Errors: *[clerkinvite.InvalidParamsError] before any request; *[clerkinvite.APIError] after a
// failed one, which matches ctx's error under errors.Is if ctx has ended.
// RevokeInvitation is safe for concurrent use and safe to retry.
func (c *Client) RevokeInvitation(ctx context.Context, r clerkinvite.RevokeRequest) (*clerkinvite.Invitation, error) {
	switch { // the SDK does not escape IDs, so "x/../y" would reach another endpoint
	case !validID(r.ID):
		return nil, &clerkinvite.InvalidParamsError{Field: "InvitationID", Reason: "must be a Clerk invitation ID"}
	case r.Organization != "" && !validID(r.Organization):
		return nil, invalidOrganization()
	}
	req := clerk.NewAPIRequest(http.MethodPost, invitationsPath(r.Organization)+"/"+r.ID+"/revoke")
	if r.Organization != "" {
		req.SetParams(&clerk.APIParams{}) // {}, because Clerk documents an object
	}
	return c.changeOne(ctx, req, r.Organization)
}

// changeOne makes a create or a revoke whose response is one invitation.
func (c *Client) changeOne(ctx context.Context, req *clerk.APIRequest, organization string) (*clerkinvite.Invitation, error) {
	var inv clerkinvite.Invitation
	err := c.call(ctx, c.create, req, func(body []byte) error {
		if inv = readInvitation(wire.Parse(body), organization); inv.ID == "" {
			return errors.New("it has no invitation with a valid ID")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &inv, nil
}

// invitationsPath returns the path of invitations into a validated organization, or into the
// application.
func invitationsPath(organization string) string {
	if organization == "" {
		return "/invitations"
	}
	return "/organizations/" + organization + "/invitations"
}

// createParams is the body of a create, into the application or an organization. The SDK's
// parameters for organizations lack notify.
type createParams struct {
	clerk.APIParams

	EmailAddress   string          `json:"email_address"`
	RedirectURL    string          `json:"redirect_url,omitempty"`
	ExpiresInDays  int             `json:"expires_in_days,omitempty"`
	Notify         *bool           `json:"notify,omitempty"`
	PublicMetadata json.RawMessage `json:"public_metadata,omitempty"`

	IgnoreExisting *bool  `json:"ignore_existing,omitempty"` // always sent, but not for an organization
	TemplateSlug   string `json:"template_slug,omitempty"`

	Role          string `json:"role,omitempty"`
	InviterUserID string `json:"inviter_user_id,omitempty"`
}

// bulkParams is the body of a bulk create, which the SDK lacks for organizations.
type bulkParams struct {
	clerk.APIParams

	invitations []*createParams
}

func (p *bulkParams) MarshalJSON() ([]byte, error) { return json.Marshal(p.invitations) }

func newCreateParams(r clerkinvite.InvitationRequest) (*createParams, error) {
	if !plausible(r.Email) {
		return nil, &clerkinvite.InvalidParamsError{Field: "Email", Reason: "must be an email address"}
	}
	if r.ExpiresInDays < 0 || r.ExpiresInDays > 365 {
		return nil, &clerkinvite.InvalidParamsError{Field: "ExpiresInDays", Reason: "must be 0 to 365"}
	}
	if r.PublicMetadata != nil {
		if trimmed := bytes.TrimSpace(r.PublicMetadata); !json.Valid(trimmed) || trimmed[0] != '{' {
			return nil, &clerkinvite.InvalidParamsError{Field: "PublicMetadata", Reason: "must be a JSON object"}
		}
	}
	if err := checkOrganizationFields(r); err != nil {
		return nil, err
	}
	p := &createParams{
		EmailAddress: r.Email, RedirectURL: r.RedirectURL, ExpiresInDays: r.ExpiresInDays, PublicMetadata: r.PublicMetadata,
		TemplateSlug: r.Template, Role: r.Role, InviterUserID: r.Inviter,
	}
	if r.SkipEmail {
		p.Notify = clerk.Bool(false)
	}
	if r.Organization == "" {
		p.IgnoreExisting = &r.IgnoreExisting
	}
	return p, nil
}

// checkOrganizationFields checks the fields that only one of the two kinds of invitation has: into an
// organization, or into the application.
func checkOrganizationFields(r clerkinvite.InvitationRequest) error {
	const noOrganization = "must be empty without Organization"
	switch {
	case r.Organization == "" && r.Role != "":
		return &clerkinvite.InvalidParamsError{Field: "Role", Reason: noOrganization}
	case r.Organization == "" && r.Inviter != "":
		return &clerkinvite.InvalidParamsError{Field: "Inviter", Reason: noOrganization}
	case r.Organization == "":
		return nil
	case !validID(r.Organization):
		return invalidOrganization()
	case r.Role == "":
		return invalidRole()
	case r.Inviter != "" && !validID(r.Inviter):
		return &clerkinvite.InvalidParamsError{Field: "Inviter", Reason: "must be a Clerk user ID"}
	case r.Template != "":
		return &clerkinvite.InvalidParamsError{Field: "Template", Reason: "must be empty for an organization"}
	case r.IgnoreExisting:
		return &clerkinvite.InvalidParamsError{Field: "IgnoreExisting", Reason: "must be false for an organization"}
	}
	return nil
}

// readInvitation reads an invitation. Its ID is empty if it has no valid one. organization is the
// one in the request's path, or "": Clerk's schema does not require the field organization_id.
func readInvitation(o wire.Object, organization string) clerkinvite.Invitation {
	inv := clerkinvite.Invitation{
		ID: o.ID("id"), Email: o.Text("email_address"), Status: o.Text("status"), URL: clerkinvite.NewSecret(o.Text("url")),
		CreatedAt:    o.Time("created_at"),
		Organization: cmp.Or(o.ID("organization_id"), o.Object("public_organization_data").ID("id"), organization),
	}
	if o.Bool("revoked") {
		inv.Status = clerkinvite.InvitationRevoked
	}
	if o.Has("public_metadata") {
		inv.PublicMetadata = o["public_metadata"]
	}
	if at := o.Time("expires_at"); !at.IsZero() {
		inv.ExpiresAt = &at
	}
	return inv
}

// readInvitations reads a list of invitations. It keeps those without a valid ID, because the
// number of invitations decides whether a page is the last.
func readInvitations(body []byte, organization string) ([]clerkinvite.Invitation, error) {
	items, err := readList(body)
	if err != nil {
		return nil, err
	}
	list := make([]clerkinvite.Invitation, len(items))
	for i, item := range items {
		list[i] = readInvitation(wire.Parse(item), organization)
	}
	return list, nil
}

func validID(id string) bool { return wire.ValidID(id) }

// readList reads a list response in either form, an array or an object with data.
// Any other response is an error, so that it is not mistaken for an empty list.
func readList(body []byte) ([]json.RawMessage, error) {
	items := wire.List(body)
	if items == nil {
		items = wire.Parse(body).List("data")
	}
	if items == nil {
		return nil, errors.New("it is not a list")
	}
	return items, nil
}
