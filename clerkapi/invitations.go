package clerkapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/invitation"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/internal/wire"
)

const maxBulk = 10 // invitations per request, documented

// CreateInvitation implements [clerkinvite.ClerkAPI] with one POST /invitations.
//
// Errors: *[clerkinvite.InvalidParamsError] before any request; *[clerkinvite.APIError] after a
// failed one, which matches ctx's error under errors.Is if ctx has ended.
// CreateInvitation is safe for concurrent use. Without IgnoreExisting it is safe to retry, because
// Clerk rejects a duplicate; with it, only if NotSent is true.
func (c *Client) CreateInvitation(ctx context.Context, r clerkinvite.InvitationRequest) (*clerkinvite.Invitation, error) {
	params, err := createParams(r)
	if err != nil {
		return nil, err
	}
	req := clerk.NewAPIRequest(http.MethodPost, "/invitations")
	req.SetParams(params)
	return c.changeOne(ctx, req)
}

// CreateInvitations implements [clerkinvite.ClerkAPI] with one POST /invitations/bulk. The
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
	params := &invitation.BulkCreateParams{}
	seen := make(map[string]bool, len(rs))
	for _, r := range rs {
		p, err := createParams(r)
		if err != nil {
			return nil, err
		}
		key := strings.ToLower(r.Email)
		if seen[key] {
			return nil, &clerkinvite.InvalidParamsError{Field: "Email", Reason: "must not occur twice in one request"}
		}
		seen[key] = true
		params.Invitations = append(params.Invitations, p)
	}
	req := clerk.NewAPIRequest(http.MethodPost, "/invitations/bulk")
	req.SetParams(params)
	var created []clerkinvite.Invitation
	err := c.call(ctx, c.create, req, func(body []byte) error {
		list, err := readInvitations(body)
		created = slices.DeleteFunc(list, func(inv clerkinvite.Invitation) bool { return inv.ID == "" })
		if err == nil && len(created) == 0 {
			err = errors.New("it has no invitation with a valid id")
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return created, nil
}

// ListInvitations implements [clerkinvite.ClerkAPI] with GET /invitations, ordered by created_at.
// An invitation without a valid id has an empty ID.
//
// Errors: *[clerkinvite.InvalidParamsError] before any request; *[clerkinvite.APIError] after a
// failed one, which matches ctx's error under errors.Is if ctx has ended.
// ListInvitations is safe for concurrent use and safe to retry.
func (c *Client) ListInvitations(ctx context.Context, q clerkinvite.InvitationQuery) ([]clerkinvite.Invitation, error) {
	if q.Limit < 0 || q.Limit > maxPage {
		return nil, &clerkinvite.InvalidParamsError{Field: "Limit", Reason: "must be 0 to 500"}
	}
	if q.Offset < 0 {
		return nil, &clerkinvite.InvalidParamsError{Field: "Offset", Reason: "must not be negative"}
	}
	if q.Limit == 0 {
		q.Limit = maxPage
	}
	params := &invitation.ListParams{OrderBy: clerk.String("+created_at")}
	if q.NewestFirst {
		params.OrderBy = clerk.String("-created_at") // explicit, although it is Clerk's default today
	}
	params.Limit, params.Offset = clerk.Int64(int64(q.Limit)), clerk.Int64(int64(q.Offset))
	if q.Query != "" {
		params.Query = &q.Query
	}
	switch q.Status {
	case "":
	case clerkinvite.InvitationPending, clerkinvite.InvitationAccepted, clerkinvite.InvitationRevoked, clerkinvite.InvitationExpired:
		params.Statuses = []string{q.Status} // the API accepts only one
	default:
		return nil, &clerkinvite.InvalidParamsError{Field: "Status", Reason: "must be pending, accepted, revoked or expired"}
	}
	req := clerk.NewAPIRequest(http.MethodGet, "/invitations?paginated=true") // like the SDK's List
	req.SetParams(params)
	var page []clerkinvite.Invitation
	err := c.lookUp(ctx, func() error {
		return c.call(ctx, c.lookup, req, func(body []byte) (err error) {
			page, err = readInvitations(body)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return page, nil
}

// RevokeInvitation implements [clerkinvite.ClerkAPI] with one POST /invitations/{id}/revoke.
//
// Errors: *[clerkinvite.InvalidParamsError] before any request; *[clerkinvite.APIError] after a
// failed one, which matches ctx's error under errors.Is if ctx has ended.
// RevokeInvitation is safe for concurrent use and safe to retry.
func (c *Client) RevokeInvitation(ctx context.Context, r clerkinvite.RevokeRequest) (*clerkinvite.Invitation, error) {
	if !validID(r.ID) { // the SDK does not escape it, so "x/../y" would reach another endpoint
		return nil, &clerkinvite.InvalidParamsError{Field: "InvitationID", Reason: "must be a Clerk invitation id"}
	}
	return c.changeOne(ctx, clerk.NewAPIRequest(http.MethodPost, "/invitations/"+r.ID+"/revoke"))
}

// changeOne makes a create or a revoke whose response is one invitation.
func (c *Client) changeOne(ctx context.Context, req *clerk.APIRequest) (*clerkinvite.Invitation, error) {
	var inv clerkinvite.Invitation
	err := c.call(ctx, c.create, req, func(body []byte) error {
		if inv = readInvitation(wire.Parse(body)); inv.ID == "" {
			return errors.New("it has no invitation with a valid id")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &inv, nil
}

// createParams omits zero values, but always sends ignore_existing.
func createParams(r clerkinvite.InvitationRequest) (*invitation.CreateParams, error) {
	if !plausible(r.Email) {
		return nil, &clerkinvite.InvalidParamsError{Field: "Email", Reason: "must be an email address"}
	}
	if r.ExpiresInDays < 0 || r.ExpiresInDays > 365 {
		return nil, &clerkinvite.InvalidParamsError{Field: "ExpiresInDays", Reason: "must be 0 to 365"}
	}
	p := &invitation.CreateParams{EmailAddress: r.Email, IgnoreExisting: &r.IgnoreExisting}
	if r.PublicMetadata != nil {
		if trimmed := bytes.TrimSpace(r.PublicMetadata); !json.Valid(trimmed) || trimmed[0] != '{' {
			return nil, &clerkinvite.InvalidParamsError{Field: "PublicMetadata", Reason: "must be a JSON object"}
		}
		p.PublicMetadata = &r.PublicMetadata
	}
	if r.RedirectURL != "" {
		p.RedirectURL = &r.RedirectURL
	}
	if r.SkipEmail {
		p.Notify = clerk.Bool(false)
	}
	if r.ExpiresInDays > 0 {
		p.ExpiresInDays = clerk.Int64(int64(r.ExpiresInDays))
	}
	if r.Template != "" {
		p.TemplateSlug = &r.Template
	}
	return p, nil
}

// readInvitation reads an invitation. Its ID is empty if it has no valid one.
func readInvitation(o wire.Object) clerkinvite.Invitation {
	inv := clerkinvite.Invitation{
		ID: o.ID("id"), Email: o.Text("email_address"), Status: o.Text("status"), URL: clerkinvite.NewSecret(o.Text("url")),
		CreatedAt: o.Time("created_at"),
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

// readInvitations reads a list of invitations. It keeps those without a valid id, because the
// number of invitations decides whether a page is the last.
func readInvitations(body []byte) ([]clerkinvite.Invitation, error) {
	items, err := readList(body)
	if err != nil {
		return nil, err
	}
	list := make([]clerkinvite.Invitation, len(items))
	for i, item := range items {
		list[i] = readInvitation(wire.Parse(item))
	}
	return list, nil
}

func validID(id string) bool { return wire.ValidID(id) }

// readList reads both forms of Clerk's lists, an array and an object with data.
// Everything else is an error, so that it is not mistaken for an empty list.
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
