package clerkapi

import (
	"context"
	"errors"
	"net/http"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/organizationmembership"
	"github.com/clerk/clerk-sdk-go/v2/organizationrole"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/internal/clerkcheck"
	"github.com/clerkinvite/clerkinvite/internal/wire"
)

// FindMemberships implements [clerkinvite.OrganizationAPI] with
// GET /organizations/{id}/memberships. It makes one request, and further requests only if the
// user IDs are too long for one URL. It returns only memberships of this organization and of
// these users, each user once.
//
// Errors: *[clerkinvite.InvalidParamsError] before any request; *[clerkinvite.APIError] after a
// failed one, which matches ctx's error under errors.Is if ctx has ended.
// FindMemberships is safe for concurrent use and safe to retry.
func (c *Client) FindMemberships(ctx context.Context, q clerkinvite.MembershipQuery) ([]clerkinvite.Membership, error) {
	if err := clerkcheck.FindMemberships(q); err != nil {
		return nil, err
	}
	missing := make(map[string]bool, len(q.UserIDs))
	for _, id := range q.UserIDs {
		missing[id] = true
	}
	var found []clerkinvite.Membership
	for _, part := range splitForURL(q.UserIDs) {
		req := clerk.NewAPIRequest(http.MethodGet, membershipsPath(q.Organization))
		params := &organizationmembership.ListParams{UserIDs: part}
		params.Limit = clerk.Int64(maxPage)
		req.SetParams(params)
		var page []clerkinvite.Membership
		err := c.lookUp(ctx, func() error {
			return c.call(ctx, c.lookup, req, func(body []byte) (err error) {
				page, err = readMemberships(body, q.Organization)
				return err
			})
		})
		if err != nil {
			return nil, err
		}
		for _, m := range page {
			if missing[m.UserID] {
				delete(missing, m.UserID)
				found = append(found, m)
			}
		}
	}
	return found, nil
}

// AddMember implements [clerkinvite.OrganizationAPI] with one POST /organizations/{id}/memberships.
// If the user is already a member, the error has the code already_a_member_in_organization.
//
// Errors: *[clerkinvite.InvalidParamsError] before any request; *[clerkinvite.APIError] after a
// failed one, which matches ctx's error under errors.Is if ctx has ended.
// AddMember is safe for concurrent use and safe to retry.
func (c *Client) AddMember(ctx context.Context, m clerkinvite.Membership) error {
	if err := clerkcheck.AddMember(m); err != nil {
		return err
	}
	return c.changeMembership(ctx, m, http.MethodPost, "", &organizationmembership.CreateParams{UserID: &m.UserID, Role: &m.Role})
}

// RemoveMember implements [clerkinvite.OrganizationAPI] with one
// DELETE /organizations/{id}/memberships/{user_id}. If the user is not a member, the error has the
// status 404.
//
// Errors: *[clerkinvite.InvalidParamsError] before any request; *[clerkinvite.APIError] after a
// failed one, which matches ctx's error under errors.Is if ctx has ended.
// RemoveMember is safe for concurrent use and safe to retry.
func (c *Client) RemoveMember(ctx context.Context, m clerkinvite.Membership) error {
	if err := clerkcheck.RemoveMember(m); err != nil {
		return err
	}
	return c.changeMembership(ctx, m, http.MethodDelete, "/"+m.UserID, nil)
}

// OrganizationRoles returns the keys of the roles that the instance has for its organizations, such
// as org:admin, with GET /organization_roles. An organization can be restricted to some of them.
//
// Errors: *[clerkinvite.APIError] after a failed request, which matches ctx's error under errors.Is
// if ctx has ended. OrganizationRoles is safe for concurrent use and safe to retry.
func (c *Client) OrganizationRoles(ctx context.Context) ([]string, error) {
	req := clerk.NewAPIRequest(http.MethodGet, "/organization_roles")
	req.SetParams(&organizationrole.ListParams{ListParams: clerk.ListParams{Limit: clerk.Int64(maxPage)}})
	var keys []string
	err := c.lookUp(ctx, func() error {
		return c.call(ctx, c.lookup, req, func(body []byte) error {
			items, err := readList(body)
			keys = nil
			for _, item := range items {
				if key := wire.Parse(item).Text("key"); key != "" {
					keys = append(keys, key)
				}
			}
			switch {
			case err != nil:
				return err
			case len(keys) == 0 && len(items) > 0:
				return errors.New("it has no role with a key")
			case len(items) >= maxPage:
				return errors.New("it may not have all roles")
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return keys, nil
}

// changeMembership makes a request about a validated membership, whose response is the membership. The
// schema does not require that the response names the user.
func (c *Client) changeMembership(ctx context.Context, m clerkinvite.Membership, method, path string, params clerk.Params) error {
	req := clerk.NewAPIRequest(method, membershipsPath(m.Organization)+path)
	req.SetParams(params)
	return c.call(ctx, c.create, req, func(body []byte) error {
		got := readMembership(wire.Parse(body))
		if got.Organization != m.Organization || got.UserID != "" && got.UserID != m.UserID {
			return errors.New("it is not the membership of this user")
		}
		return nil
	})
}

// readMemberships reads a page of one organization's memberships. It skips a membership without a
// valid user ID and one of another organization, but returns an error if it would skip all: then
// nothing is known about the requested users. A full page has more users than requested, so Clerk
// has not filtered it, and requested users can be missing.
func readMemberships(body []byte, organization string) ([]clerkinvite.Membership, error) {
	items, err := readList(body)
	if err != nil {
		return nil, err
	}
	if len(items) >= maxPage {
		return nil, errors.New("it has more memberships than requested")
	}
	var list []clerkinvite.Membership
	for _, item := range items {
		if m := readMembership(wire.Parse(item)); m.UserID != "" && m.Organization == organization {
			list = append(list, m)
		}
	}
	if len(list) == 0 && len(items) > 0 {
		return nil, errors.New("no membership has a valid user ID and this organization")
	}
	return list, nil
}

func readMembership(o wire.Object) clerkinvite.Membership {
	return clerkinvite.Membership{
		Organization: o.Object("organization").ID("id"), UserID: o.Object("public_user_data").ID("user_id"), Role: o.Text("role"),
		CreatedAt: o.Time("created_at"),
	}
}

// membershipsPath returns the path of the memberships of a validated organization.
func membershipsPath(organization string) string {
	return "/organizations/" + organization + "/memberships"
}
