package clerkapi

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/invitation"
	"github.com/clerk/clerk-sdk-go/v2/organizationinvitation"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/internal/clerkcheck"
	"github.com/clerkinvite/clerkinvite/internal/wire"
)

// CreateInvitation implements [clerkinvite.ClerkAPI] with one POST /invitations, or
// POST /organizations/{id}/invitations if r has an OrganizationID.
//
// Errors: *[clerkinvite.InvalidParamsError] before any request; *[clerkinvite.APIError] after a
// failed one, which matches ctx's error under errors.Is if ctx has ended.
// CreateInvitation is safe for concurrent use. Without IgnoreExisting it is safe to retry, because
// Clerk rejects a duplicate; with it, only if NotSent is true.
func (c *Client) CreateInvitation(ctx context.Context, r clerkinvite.InvitationRequest) (*clerkinvite.Invitation, error) {
	if err := clerkcheck.CreateInvitation(r); err != nil {
		return nil, err
	}
	req := clerk.NewAPIRequest(http.MethodPost, invitationsPath(r.OrganizationID))
	req.SetParams(newCreateParams(r))
	return c.changeOne(ctx, req, r.OrganizationID)
}

// CreateInvitations implements [clerkinvite.ClerkAPI] with one POST /invitations/bulk, or
// POST /organizations/{id}/invitations/bulk. All of rs must have the same OrganizationID. The
// response can have fewer invitations than the request, but at least one.
//
// Errors: *[clerkinvite.InvalidParamsError] before any request; *[clerkinvite.APIError] after a
// failed one, which matches ctx's error under errors.Is if ctx has ended.
// CreateInvitations is safe for concurrent use. Without IgnoreExisting it is safe to retry, because
// Clerk rejects duplicates; with it, only if NotSent is true.
func (c *Client) CreateInvitations(ctx context.Context, rs []clerkinvite.InvitationRequest) ([]clerkinvite.Invitation, error) {
	if err := clerkcheck.CreateInvitations(rs); err != nil {
		return nil, err
	}
	organization := rs[0].OrganizationID
	params := &bulkParams{}
	for _, r := range rs {
		params.invitations = append(params.invitations, newCreateParams(r))
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
	if err := clerkcheck.ListInvitations(q); err != nil {
		return nil, err
	}
	req := newListRequest(q)
	var page []clerkinvite.Invitation
	err := c.lookUp(ctx, func() error {
		return c.call(ctx, c.lookup, req, func(body []byte) (err error) {
			page, err = readInvitations(body, q.OrganizationID)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return page, nil
}

func newListRequest(q clerkinvite.InvitationQuery) *clerk.APIRequest {
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
	if q.Status != "" {
		statuses = []string{string(q.Status)} // the API accepts only one
	}
	var path string
	var params clerk.Params
	switch {
	case q.OrganizationID != "":
		path = invitationsPath(q.OrganizationID)
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
	return req
}

// RevokeInvitation implements [clerkinvite.ClerkAPI] with one POST /invitations/{id}/revoke, or
// POST /organizations/{id}/invitations/{id}/revoke if r has an OrganizationID.
//
// Errors: *[clerkinvite.InvalidParamsError] before any request; *[clerkinvite.APIError] after a
// failed one, which matches ctx's error under errors.Is if ctx has ended.
// RevokeInvitation is safe for concurrent use and safe to retry.
func (c *Client) RevokeInvitation(ctx context.Context, r clerkinvite.RevokeRequest) (*clerkinvite.Invitation, error) {
	if err := clerkcheck.RevokeInvitation(r); err != nil { // the SDK does not escape IDs, so "x/../y" would reach another endpoint
		return nil, err
	}
	req := clerk.NewAPIRequest(http.MethodPost, invitationsPath(r.OrganizationID)+"/"+r.ID+"/revoke")
	if r.OrganizationID != "" {
		req.SetParams(&clerk.APIParams{}) // {}, because Clerk documents an object
	}
	return c.changeOne(ctx, req, r.OrganizationID)
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

func newCreateParams(r clerkinvite.InvitationRequest) *createParams {
	p := &createParams{
		EmailAddress: r.Email, RedirectURL: r.RedirectURL, ExpiresInDays: r.ExpiresInDays, PublicMetadata: r.PublicMetadata,
		TemplateSlug: r.Template, Role: r.Role, InviterUserID: r.Inviter,
	}
	if r.SkipEmail {
		p.Notify = clerk.Bool(false)
	}
	if r.OrganizationID == "" {
		p.IgnoreExisting = &r.IgnoreExisting
	}
	return p
}

// readInvitation reads an invitation. Its ID is empty if it has no valid one. organization is the
// one in the request's path, or "": Clerk's schema does not require the field organization_id.
func readInvitation(o wire.Object, organization string) clerkinvite.Invitation {
	inv := clerkinvite.Invitation{
		ID: o.ID("id"), Email: o.Text("email_address"), Status: clerkinvite.InvitationStatus(o.Text("status")), URL: clerkinvite.NewSecret(o.Text("url")),
		CreatedAt:      o.Time("created_at"),
		OrganizationID: cmp.Or(o.ID("organization_id"), o.Object("public_organization_data").ID("id"), organization),
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
