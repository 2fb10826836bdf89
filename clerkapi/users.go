package clerkapi

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/user"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/internal/wire"
)

const (
	maxLookUp = 100  // values of one parameter, documented
	maxPage   = 500  // limit, documented; without one Clerk sends only 10 rows
	maxQuery  = 7000 // bytes of selectors in one URL: 100 usual addresses, and below the 8 KB that proxies allow
)

// FindUsers implements [clerkinvite.ClerkAPI]: GET /users. A look-up by addresses or
// by ids is one request; another one follows a full page of 500 users, and selectors
// that are too long for one URL are sent in parts. An empty query finds nobody and
// sends nothing.
func (c *Client) FindUsers(ctx context.Context, q clerkinvite.UserQuery) ([]clerkinvite.User, error) {
	if len(q.Emails)+len(q.IDs) > maxLookUp {
		return nil, &clerkinvite.InvalidParamsError{Field: "Emails", Reason: "are more than 100 values, together with IDs"}
	}
	for _, email := range q.Emails {
		if !plausible(email) { // Clerk may take an empty one for no filter at all
			return nil, &clerkinvite.InvalidParamsError{Field: "Emails", Reason: "has one that is no address"}
		}
	}
	for _, id := range q.IDs {
		if !validID(id) {
			return nil, &clerkinvite.InvalidParamsError{Field: "IDs", Reason: "has one that is no Clerk id"}
		}
	}
	var found []clerkinvite.User
	seen := make(map[string]bool)
	// Whether Clerk joins different parameters by AND or by OR is not documented.
	var queries []*user.ListParams
	for _, part := range parts(q.Emails) {
		queries = append(queries, &user.ListParams{EmailAddresses: part})
	}
	for _, part := range parts(q.IDs) {
		queries = append(queries, &user.ListParams{UserIDs: part})
	}
	for _, params := range queries {
		params.Limit = clerk.Int64(maxPage)
		params.OrderBy = clerk.String("+created_at") // so that new users do not shift the pages
		for offset := int64(0); ; offset += maxPage {
			if offset > 0 {
				params.Offset = clerk.Int64(offset)
			}
			req := clerk.NewAPIRequest(http.MethodGet, "/users")
			req.SetParams(params)
			var page []clerkinvite.User
			err := c.lookUp(ctx, func() error {
				return c.call(ctx, c.lookup, req, func(body []byte) (err error) {
					page, err = decodeList(body, toUser)
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
			if len(page) < maxPage {
				break
			}
			if len(found) == before {
				return nil, &clerkinvite.APIError{StatusCode: http.StatusOK, Err: errors.New("the list of users does not end: a page repeats")}
			}
		}
	}
	return found, nil
}

// parts cuts values into lists that are short enough for one URL.
func parts(values []string) [][]string {
	var out [][]string
	size := 0
	for _, v := range values {
		n := len("&email_address=") + len(url.QueryEscape(v))
		if size += n; len(out) == 0 || size > maxQuery {
			out, size = append(out, nil), n
		}
		out[len(out)-1] = append(out[len(out)-1], v)
	}
	return out
}

// plausible reports whether s can be an address as far as a request is concerned.
// Whether it is one is the service's to say.
func plausible(s string) bool {
	return len(s) <= 1024 && strings.Contains(s, "@") &&
		!strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f })
}

func toUser(w *wire.User) (clerkinvite.User, error) {
	if !validID(w.ID) {
		return clerkinvite.User{}, errors.New("a user has no valid id")
	}
	u := clerkinvite.User{ID: w.ID, PrimaryEmailID: w.PrimaryEmailID, Banned: w.Banned, CreatedAt: w.CreatedAt.UTC()}
	for _, e := range w.Emails {
		u.Emails = append(u.Emails, clerkinvite.UserEmail{ID: e.ID, Address: e.Address, Verified: e.Verified()})
	}
	return u, nil
}
