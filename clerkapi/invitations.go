package clerkapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
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
// CreateInvitation is safe for concurrent use. With IgnoreExisting it is safe to retry
// only if NotSent is true; otherwise Clerk rejects a duplicate.
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
// CreateInvitations is safe for concurrent use. With IgnoreExisting it is safe to retry
// only if NotSent is true; otherwise Clerk rejects duplicates.
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
	err := c.call(ctx, c.create, req, func(body []byte) (err error) {
		if created, err = decodeList(body, (*wireInvitation).invitation); err == nil && len(created) == 0 {
			err = errors.New("it has no invitations")
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return created, nil
}

// ListInvitations implements [clerkinvite.ClerkAPI] with GET /invitations, ordered by created_at.
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
			page, err = decodeList(body, (*wireInvitation).invitation)
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
func (c *Client) RevokeInvitation(ctx context.Context, invitationID string) (*clerkinvite.Invitation, error) {
	if !validID(invitationID) { // the SDK does not escape it, so "x/../y" would reach another endpoint
		return nil, &clerkinvite.InvalidParamsError{Field: "InvitationID", Reason: "must be a Clerk invitation id"}
	}
	return c.changeOne(ctx, clerk.NewAPIRequest(http.MethodPost, "/invitations/"+invitationID+"/revoke"))
}

// changeOne makes a create or a revoke whose response is one invitation.
func (c *Client) changeOne(ctx context.Context, req *clerk.APIRequest) (*clerkinvite.Invitation, error) {
	var inv clerkinvite.Invitation
	err := c.call(ctx, c.create, req, func(body []byte) (err error) {
		var w wireInvitation
		if err = json.Unmarshal(body, &w); err == nil {
			inv, err = w.invitation()
		}
		return err
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

// wireInvitation has the fields of Clerk's invitation that the library uses.
type wireInvitation struct {
	ID             string          `json:"id"`
	EmailAddress   string          `json:"email_address"`
	Status         string          `json:"status"`
	Revoked        bool            `json:"revoked"`
	URL            string          `json:"url"`
	PublicMetadata json.RawMessage `json:"public_metadata"`
	CreatedAt      wire.Time       `json:"created_at"`
	ExpiresAt      wire.Time       `json:"expires_at"`
}

func (w *wireInvitation) invitation() (clerkinvite.Invitation, error) {
	if !validID(w.ID) {
		return clerkinvite.Invitation{}, errors.New("an invitation has no valid id")
	}
	inv := clerkinvite.Invitation{
		ID: w.ID, Email: w.EmailAddress, Status: w.Status, URL: clerkinvite.NewSecret(w.URL),
		PublicMetadata: w.PublicMetadata, CreatedAt: w.CreatedAt.UTC(),
	}
	if w.Revoked {
		inv.Status = clerkinvite.InvitationRevoked
	}
	if string(w.PublicMetadata) == "null" {
		inv.PublicMetadata = nil
	}
	if at := w.ExpiresAt.UTC(); !at.IsZero() {
		inv.ExpiresAt = &at
	}
	return inv, nil
}

var idPattern = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// validID reports whether id is safe in a path and in a query. With a leading "-", GET
// /users returns all other users.
func validID(id string) bool {
	return len(id) <= 255 && idPattern.MatchString(id) && id[0] != '-'
}

// decodeList reads both forms of Clerk's lists, an array and an object with data.
// Everything else is an error, so that it is not mistaken for an empty list.
func decodeList[W, T any](body []byte, convert func(*W) (T, error)) ([]T, error) {
	var items []*W
	if bytes.HasPrefix(body, []byte("{")) {
		envelope := struct {
			Data *[]*W `json:"data"`
		}{}
		if err := json.Unmarshal(body, &envelope); err != nil {
			return nil, err
		}
		if envelope.Data == nil {
			return nil, errors.New("an object without data")
		}
		items = *envelope.Data
	} else if err := json.Unmarshal(body, &items); err != nil {
		return nil, err
	} else if items == nil {
		return nil, errors.New("null instead of a list")
	}
	out := make([]T, 0, len(items))
	for i, w := range items {
		if w == nil {
			return nil, fmt.Errorf("item %d is null", i)
		}
		t, err := convert(w)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}
