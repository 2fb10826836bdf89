// Package routers has the same three endpoints on chi, gin and echo: invite a person into
// a tenant, list the tenant's members, and take Clerk's webhooks. One test sends the same
// requests to all three and compares the answers.
//
// What differs from router to router is in chi.go, gin.go and echo.go, each a function to
// copy. What does not is here.
package routers

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net/http"
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

// page is the answer to a request for a list.
type page struct {
	Members []*clerkinvite.Member `json:"members"`
	Next    string                `json:"next,omitempty"` // the cursor of the next page
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

// unreadable is the error for a body that could not be decoded. The cause is left out: it
// can hold a part of the body, and so an address.
func unreadable(err error) error {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return &requestError{http.StatusRequestEntityTooLarge, "the body is too large"}
	}
	return &requestError{http.StatusBadRequest, "the body is no invitation in JSON"}
}

// isAdmin is yours: is whoever sends the request an admin of this tenant? It must come
// first, because answers tell who is a member. Here a header says so, which proves nothing.
func isAdmin(r *http.Request, tenant string) bool { return r.Header.Get("X-Admin-Of") == tenant }
