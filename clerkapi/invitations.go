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

const maxBulk = 10 // invitations of one request, documented

// CreateInvitation implements [clerkinvite.ClerkAPI]: POST /invitations, once.
func (c *Client) CreateInvitation(ctx context.Context, r clerkinvite.InvitationRequest) (*clerkinvite.Invitation, error) {
	params, err := createParams(r)
	if err != nil {
		return nil, err
	}
	req := clerk.NewAPIRequest(http.MethodPost, "/invitations")
	req.SetParams(params)
	return c.one(ctx, req)
}

// CreateInvitations implements [clerkinvite.ClerkAPI]: POST /invitations/bulk, once.
// The answer can hold fewer invitations than were asked for, but not none.
func (c *Client) CreateInvitations(ctx context.Context, rs []clerkinvite.InvitationRequest) ([]clerkinvite.Invitation, error) {
	if len(rs) < 1 || len(rs) > maxBulk {
		return nil, &clerkinvite.InvalidParamsError{Field: "Invitations", Reason: "are not 1 to 10"}
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
			return nil, &clerkinvite.InvalidParamsError{Field: "Email", Reason: "occurs twice in one request"}
		}
		seen[key] = true
		params.Invitations = append(params.Invitations, p)
	}
	req := clerk.NewAPIRequest(http.MethodPost, "/invitations/bulk")
	req.SetParams(params)
	var created []clerkinvite.Invitation
	err := c.call(ctx, c.create, req, func(body []byte) (err error) {
		if created, err = decodeList(body, (*wireInvitation).invitation); err == nil && len(created) == 0 {
			err = errors.New("it holds no invitation")
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return created, nil
}

// ListInvitations implements [clerkinvite.ClerkAPI]: GET /invitations, by created_at.
func (c *Client) ListInvitations(ctx context.Context, q clerkinvite.InvitationQuery) ([]clerkinvite.Invitation, error) {
	if q.Limit < 0 || q.Limit > maxPage {
		return nil, &clerkinvite.InvalidParamsError{Field: "Limit", Reason: "is not 0 to 500"}
	}
	if q.Offset < 0 {
		return nil, &clerkinvite.InvalidParamsError{Field: "Offset", Reason: "is negative"}
	}
	if q.Limit == 0 {
		q.Limit = maxPage
	}
	params := &invitation.ListParams{OrderBy: clerk.String("+created_at")}
	if q.NewestFirst {
		params.OrderBy = clerk.String("-created_at") // said, though it is Clerk's default today
	}
	params.Limit, params.Offset = clerk.Int64(int64(q.Limit)), clerk.Int64(int64(q.Offset))
	if q.Query != "" {
		params.Query = &q.Query
	}
	switch q.Status {
	case "":
	case clerkinvite.InvitationPending, clerkinvite.InvitationAccepted, clerkinvite.InvitationRevoked, clerkinvite.InvitationExpired:
		params.Statuses = []string{q.Status} // never two: the API takes one
	default:
		return nil, &clerkinvite.InvalidParamsError{Field: "Status", Reason: "is not one of Clerk's"}
	}
	req := clerk.NewAPIRequest(http.MethodGet, "/invitations?paginated=true") // as the SDK's own List does
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

// RevokeInvitation implements [clerkinvite.ClerkAPI]: POST /invitations/{id}/revoke,
// once. Whether to ask again after a lost answer is the service's to decide.
func (c *Client) RevokeInvitation(ctx context.Context, invitationID string) (*clerkinvite.Invitation, error) {
	if !validID(invitationID) { // the SDK does not escape it: "x/../y" would reach another endpoint
		return nil, &clerkinvite.InvalidParamsError{Field: "InvitationID", Reason: "is no Clerk id"}
	}
	return c.one(ctx, clerk.NewAPIRequest(http.MethodPost, "/invitations/"+invitationID+"/revoke"))
}

// one makes a request that changes something and is answered with an invitation.
func (c *Client) one(ctx context.Context, req *clerk.APIRequest) (*clerkinvite.Invitation, error) {
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

// createParams returns what is sent: zero values are left out, ignore_existing never.
func createParams(r clerkinvite.InvitationRequest) (*invitation.CreateParams, error) {
	if !plausible(r.Email) {
		return nil, &clerkinvite.InvalidParamsError{Field: "Email", Reason: "is no address"}
	}
	if r.ExpiresInDays < 0 || r.ExpiresInDays > 365 {
		return nil, &clerkinvite.InvalidParamsError{Field: "ExpiresInDays", Reason: "is not 0 to 365"}
	}
	p := &invitation.CreateParams{EmailAddress: r.Email, IgnoreExisting: &r.IgnoreExisting}
	if r.PublicMetadata != nil {
		if trimmed := bytes.TrimSpace(r.PublicMetadata); !json.Valid(trimmed) || trimmed[0] != '{' {
			return nil, &clerkinvite.InvalidParamsError{Field: "PublicMetadata", Reason: "is no JSON object"}
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

// wireInvitation is the part of Clerk's invitation that the library looks at. Times
// are floats so that an odd one does not make an existing invitation unreadable.
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
		return clerkinvite.Invitation{}, errors.New("an invitation in it has no valid id")
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

// validID reports whether id can stand in a path and in a query. One that begins
// with "-" would ask GET /users for everybody else.
func validID(id string) bool {
	return len(id) <= 255 && idPattern.MatchString(id) && id[0] != '-'
}

// decodeList reads a list in either of Clerk's shapes, a bare array and an object
// with data. Anything else is an error: it must not pass for an empty list.
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
			return nil, errors.New("it is an object without data")
		}
		items = *envelope.Data
	} else if err := json.Unmarshal(body, &items); err != nil {
		return nil, err
	} else if items == nil {
		return nil, errors.New("it is null")
	}
	out := make([]T, 0, len(items))
	for i, w := range items {
		if w == nil {
			return nil, fmt.Errorf("its item %d is null", i)
		}
		t, err := convert(w)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}
