package clerkapi

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/user"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/internal/clerkcheck"
	"github.com/clerkinvite/clerkinvite/internal/wire"
)

const (
	maxPage  = 500  // limit, documented; Clerk's default is 10
	maxQuery = 7000 // bytes of selectors in one URL: 100 typical addresses, below the 8 KB limit of proxies
)

// FindUsers implements [clerkinvite.ClerkAPI] with GET /users. It makes one request for the
// addresses and one for the ids. It makes further requests after a full page of 500 users,
// and if the selectors are too long for one URL. An empty query makes no request and
// returns no users.
//
// Errors: *[clerkinvite.InvalidParamsError] before any request; *[clerkinvite.APIError] after a
// failed one, which matches ctx's error under errors.Is if ctx has ended.
// FindUsers is safe for concurrent use and safe to retry.
func (c *Client) FindUsers(ctx context.Context, q clerkinvite.UserQuery) ([]clerkinvite.User, error) {
	if err := clerkcheck.FindUsers(q); err != nil {
		return nil, err
	}
	var found []clerkinvite.User
	seen := make(map[string]bool)
	// Clerk does not document whether it joins different parameters with AND or OR.
	var queries []*user.ListParams
	for _, part := range splitForURL(q.Emails) {
		queries = append(queries, &user.ListParams{EmailAddresses: part})
	}
	for _, part := range splitForURL(q.IDs) {
		queries = append(queries, &user.ListParams{UserIDs: part})
	}
	for _, params := range queries {
		params.Limit = clerk.Int64(maxPage)
		params.OrderBy = clerk.String("+created_at") // new users do not shift the pages
		for offset := int64(0); ; offset += maxPage {
			if offset > 0 {
				params.Offset = clerk.Int64(offset)
			}
			req := clerk.NewAPIRequest(http.MethodGet, "/users")
			req.SetParams(params)
			var page []clerkinvite.User
			var full bool
			err := c.lookUp(ctx, func() error {
				return c.call(ctx, c.lookup, req, func(body []byte) (err error) {
					page, full, err = readUsers(body)
					return err
				})
			})
			if err != nil {
				return nil, err
			}
			before := len(found)
			for _, u := range page {
				if !seen[u.ID] {
					seen[u.ID] = true
					found = append(found, u)
				}
			}
			if !full {
				break
			}
			if len(found) == before {
				return nil, &clerkinvite.APIError{StatusCode: http.StatusOK, Err: errors.New("the list of users does not end: a page was returned twice")}
			}
		}
	}
	return found, nil
}

// GetUser implements [clerkinvite.ClerkAPI] with GET /users/{id}.
//
// Errors: *[clerkinvite.InvalidParamsError] before any request; *[clerkinvite.APIError] after a
// failed one, which matches ctx's error under errors.Is if ctx has ended.
// GetUser is safe for concurrent use and safe to retry.
func (c *Client) GetUser(ctx context.Context, id string) (*clerkinvite.User, error) {
	if err := clerkcheck.GetUser(id); err != nil { // the SDK does not escape it, so "" or "../x" would reach another endpoint
		return nil, err
	}
	req := clerk.NewAPIRequest(http.MethodGet, "/users/"+id)
	var found clerkinvite.User
	err := c.lookUp(ctx, func() error {
		return c.call(ctx, c.lookup, req, func(body []byte) error {
			w, ok := wire.Parse(body).User()
			if !ok || w.ID != id {
				return errors.New("it is not the user with this ID")
			}
			found = toUser(w)
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return &found, nil
}

// splitForURL splits values into lists that each fit into one URL.
func splitForURL(values []string) [][]string {
	var parts [][]string
	size := 0
	for _, v := range values {
		n := len("&email_address=") + len(url.QueryEscape(v))
		if size += n; len(parts) == 0 || size > maxQuery {
			parts, size = append(parts, nil), n
		}
		parts[len(parts)-1] = append(parts[len(parts)-1], v)
	}
	return parts
}

// readUsers reads a page, and reports whether it is full. It skips a user without a valid ID,
// but returns an error if it would skip all: then nothing is known about the requested users.
func readUsers(body []byte) (users []clerkinvite.User, full bool, err error) {
	items, err := readList(body)
	if err != nil {
		return nil, false, err
	}
	for _, item := range items {
		w, ok := wire.Parse(item).User()
		if !ok {
			continue
		}
		users = append(users, toUser(w))
	}
	if len(users) == 0 && len(items) > 0 {
		return nil, false, errors.New("no user has a valid ID")
	}
	return users, len(items) >= maxPage, nil
}

func toUser(w wire.User) clerkinvite.User {
	u := clerkinvite.User{
		ID: w.ID, PrimaryEmailID: w.PrimaryEmailID, Incomplete: w.Incomplete, CreatedAt: w.CreatedAt,
		Banned: w.Banned, Deprovisioned: w.Deprovisioned, Locked: w.Locked, LockEndsIn: w.LockEndsIn,
	}
	for _, e := range w.Emails {
		u.Emails = append(u.Emails, clerkinvite.UserEmail(e))
	}
	return u
}
