// Package routers has the same three endpoints on chi, gin and echo: invite a person to
// a tenant, list the tenant's members, and receive Clerk's webhooks. One test sends the same
// requests to all three and compares the responses.
//
// Copy this file and your router's file: chi.go, gin.go or echo.go.
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

// maxBody limits a request's body, in bytes. Clerk's webhooks are the longest.
const maxBody = 256 << 10

// invitation is the body of a request to invite. The tenant comes from the path, where
// isAdmin has checked it.
type invitation struct {
	Email string `json:"email"`
	Role  string `json:"role"`
}

// params returns the parameters of Invite.
func (i invitation) params(tenant string) clerkinvite.InviteParams {
	return clerkinvite.InviteParams{TenantID: tenant, Email: i.Email, Role: i.Role}
}

// readInvitation reads the body of a request to invite. The routers' own functions differ in what
// they accept as JSON. The Content-Type must be application/json: another site's page can send a
// form or plain text with your admin's cookies, but before it sends application/json the browser
// asks your server.
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
	case err != nil: // err may contain a part of the body, and so an address
		return body, &requestError{http.StatusBadRequest, "the body is not an invitation in JSON"}
	}
	return body, nil
}

// unescaped returns the unescaped path segment: "team:1" for team%3A1. If Go would escape the path
// differently than the client did, RawPath is set and the routers match it, so that a%2Fb is one
// segment. Otherwise they match the unescaped path, and unescaping again would be wrong: a%2541 is
// the name "a%41". A segment that cannot be unescaped is "", which is not a tenant.
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

// listParams reads ?prefix=…&cursor=… from a request.
func listParams(tenant string, r *http.Request) clerkinvite.ListParams {
	q := r.URL.Query()
	return clerkinvite.ListParams{TenantID: tenant, EmailPrefix: q.Get("prefix"), Cursor: q.Get("cursor")}
}

// failure logs err, sets Retry-After if waiting helps, and returns the response's status and
// body. Both are safe to show to an admin of the tenant.
func failure(ctx context.Context, header http.Header, err error) (status int, body map[string]string) {
	slog.WarnContext(ctx, "invitations", "err", err) // the library's errors contain no addresses
	if wait, ok := clerkinvite.RetryAfter(err); ok {
		header.Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	}
	status, message := clerkinvite.HTTPError(err) // 409, 422, 429, 502, 500
	return status, map[string]string{"error": message}
}

// requestError is a host's own error. HTTPError uses its status and text.
type requestError struct {
	status int
	text   string
}

func (e *requestError) Error() string   { return e.text }
func (e *requestError) HTTPStatus() int { return e.status }

var errNoAdmin = &requestError{http.StatusForbidden, "you are not an admin of this tenant"}

// isAdmin is your guard: it reports whether the caller is an admin of the tenant. It must come
// first, because responses tell who is a member. This one trusts a header, which proves nothing.
//
// If yours uses cookies, wrap all routes in http.NewCrossOriginProtection().Handler: it rejects
// requests that a browser sends for another site's page. Clerk's webhooks pass, because they do not
// come from a browser.
func isAdmin(r *http.Request, tenant string) bool {
	return tenant != "" && r.Header.Get("X-Admin-Of") == tenant
}
