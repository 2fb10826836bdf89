// Package routers has the same three endpoints on chi, gin and echo: invite a person into
// a tenant, list the tenant's members, and take Clerk's webhooks. One test sends the same
// requests to all three and compares the answers.
//
// What differs from router to router is in chi.go, gin.go and echo.go, each a function to
// copy. What does not is here.
package routers

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"mime"
	"net/http"
	"net/url"
	"strconv"

	"github.com/clerkinvite/clerkinvite"
)

// maxBody is the most that a request may bring, in bytes. Clerk's webhooks are the longest.
const maxBody = 256 << 10

// invitation is the body of a request to invite. The tenant is not in it: it comes from
// the path, where isAdmin has seen it.
type invitation struct {
	Email string `json:"email"`
	Role  string `json:"role"`
}

// params returns what is asked for.
func (i invitation) params(tenant string) clerkinvite.InviteParams {
	return clerkinvite.InviteParams{TenantID: tenant, Email: i.Email, Role: i.Role}
}

// readInvitation reads the body of a request to invite. The routers' own functions for that differ in what they take for
// JSON. Here it must be called application/json: a page of another site can send a form or plain text with your admin's
// cookies, and the browser asks nobody; before it sends application/json it asks your server.
func readInvitation(r *http.Request) (invitation, error) {
	var body invitation
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return body, &requestError{http.StatusUnsupportedMediaType, "the Content-Type must be application/json"}
	}
	err := json.NewDecoder(r.Body).Decode(&body)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return body, &requestError{http.StatusRequestEntityTooLarge, "the body is too large"}
	case err != nil: // left out, because it can hold a part of the body, and so an address
		return body, &requestError{http.StatusBadRequest, "the body is no invitation in JSON"}
	}
	return body, nil
}

// page is the answer to a request for a list.
type page struct {
	Members []*clerkinvite.Member `json:"members"`
	Next    string                `json:"next,omitempty"` // the cursor of the next page
}

// newPage returns the answer. A tenant without members has [] and not null.
func newPage(list *clerkinvite.Page) page {
	return page{append([]*clerkinvite.Member{}, list.Members...), list.Next}
}

// unescaped returns a part of the path as it was meant: "team:1" for team%3A1. The routers match the path as it was sent
// if that is not how Go would write it (RawPath), and otherwise the path that is unescaped already; so that a%2Fb is one part
// and not two. Twice would be wrong: a%2541 is the name "a%41". A part that cannot be unescaped is "", which is no tenant.
func unescaped(r *http.Request, part string) string {
	if r.URL.RawPath == "" {
		return part
	}
	part, err := url.PathUnescape(part)
	if err != nil {
		return ""
	}
	return part
}

// listParams reads ?prefix=…&cursor=… of a request.
func listParams(tenant string, r *http.Request) clerkinvite.ListParams {
	q := r.URL.Query()
	return clerkinvite.ListParams{TenantID: tenant, EmailPrefix: q.Get("prefix"), Cursor: q.Get("cursor")}
}

// failure logs err, puts Retry-After into the headers of the answer if waiting helps, and
// returns the answer's status and body. Both are safe to show to an admin of the tenant.
func failure(ctx context.Context, header http.Header, err error) (status int, body map[string]string) {
	slog.WarnContext(ctx, "invitations", "err", err) // the library's errors log without addresses
	if wait, ok := clerkinvite.RetryAfter(err); ok {
		header.Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	}
	status, message := clerkinvite.HTTPError(err) // 409, 422, 429, 502, 500
	return status, map[string]string{"error": message}
}

// requestError is an error of the host's own. HTTPError asks it for its status.
type requestError struct {
	status int
	text   string
}

func (e *requestError) Error() string   { return e.text }
func (e *requestError) HTTPStatus() int { return e.status }

var errNoAdmin = &requestError{http.StatusForbidden, "you are no admin of this tenant"}

// isAdmin is yours: is whoever sends the request an admin of this tenant? It must come
// first, because answers tell who is a member. Here a header says so, which proves nothing.
//
// If yours goes by a cookie, put http.NewCrossOriginProtection().Handler around all routes: it refuses what a browser sends
// for a page of another site. Clerk's webhooks pass, because no browser sends them.
func isAdmin(r *http.Request, tenant string) bool {
	return tenant != "" && r.Header.Get("X-Admin-Of") == tenant
}
