package clerkinvite

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/clerkinvite/clerkinvite/internal/scrub"
)

// Outcome says what a failed call to Clerk can have done.
type Outcome string

const (
	// Refused: Clerk does not want this person invited. Nothing was sent.
	Refused Outcome = "refused"
	// Fault: the call failed for a reason that is not this person's, and certainly
	// before it took effect. The member stays due.
	Fault Outcome = "fault"
	// Uncertain: the request was sent and no usable answer came: the email may be
	// out or not. The member stays due, and the next attempt looks before it sends.
	Uncertain Outcome = "uncertain"
)

// DuplicateEmailError says that the tenant has a member with this address already.
// HTTP 409.
//
// Error returns a text with the address, made for the answer to the admin who typed
// it. Give it to authenticated admins only: to anybody else it tells who is a
// member. The fmt verbs and slog print the error without the address.
type DuplicateEmailError struct {
	Ref    Ref
	Member *Member // the existing member
}

// Error returns the text for the admin, with the address.
func (e *DuplicateEmailError) Error() string {
	return "a member with email " + e.Ref.Email + " already exists in this tenant"
}

// HTTPStatus returns 409.
func (e *DuplicateEmailError) HTTPStatus() int { return http.StatusConflict }

// ClerkInvitationError says that Clerk did not do what was asked. HTTP 422 if Clerk
// refused the person, else 502.
type ClerkInvitationError struct {
	Op      string  // what the library was doing: "find users", "create invitation", …
	Outcome Outcome // what the call can have done
	Member  *Member // nil, or the row as it stays: reserved and due for delivery, or failed
	Err     error   // usually an *APIError
}

// Error returns a text that is safe to show to anybody. Details are in LogValue and Unwrap.
func (e *ClerkInvitationError) Error() string {
	if e.Outcome == Refused {
		return "invitation refused for this address"
	}
	return "invitation service unavailable"
}

// Unwrap returns what the adapter saw.
func (e *ClerkInvitationError) Unwrap() error { return e.Err }

// HTTPStatus returns 422 for Refused and 502 otherwise.
func (e *ClerkInvitationError) HTTPStatus() int {
	if e.Outcome == Refused {
		return http.StatusUnprocessableEntity
	}
	return http.StatusBadGateway
}

// APIError is what came of one request to Clerk that did not succeed.
type APIError struct {
	StatusCode  int            // HTTP status, 0 when no answer came
	Code        string         // Clerk's code of the first error, "" when the body held none
	Message     string         // Clerk's short text; may hold addresses
	LongMessage string         // Clerk's long text; may hold addresses
	TraceID     string         // Clerk-Trace-Id, for Clerk's support
	RetryAfter  time.Duration  // from Retry-After, 0 when there was none
	Meta        map[string]any // meta of the first error; may hold addresses

	// NotSent is true if no byte of the request can have reached Clerk, so that
	// nothing can have taken effect.
	NotSent bool
	// Err is the failure below HTTP, nil when an answer came and could be read.
	Err error
}

// Error returns status, code, Clerk's text without addresses, and the trace id.
func (e *APIError) Error() string {
	var b strings.Builder
	b.WriteString("clerk: ")
	if e.StatusCode != 0 {
		fmt.Fprintf(&b, "HTTP %d", e.StatusCode)
	} else {
		b.WriteString("no answer")
	}
	if e.Code != "" {
		b.WriteString(" " + scrub.Line(e.Code))
	}
	if text := e.text(); text != "" {
		b.WriteString(": " + text)
	}
	if e.Err != nil {
		b.WriteString(": " + scrub.Line(e.Err.Error()))
	}
	if e.TraceID != "" {
		b.WriteString(" (trace " + scrub.Line(e.TraceID) + ")")
	}
	return b.String()
}

func (e *APIError) text() string {
	if e.LongMessage != "" {
		return scrub.Line(e.LongMessage)
	}
	return scrub.Line(e.Message)
}

// Unwrap returns the failure below HTTP.
func (e *APIError) Unwrap() error { return e.Err }

// HTTPStatus returns 502: it is the host's upstream that failed.
func (e *APIError) HTTPStatus() int { return http.StatusBadGateway }

// InvalidParamsError says which input is wrong and what it should be. HTTP 422.
// Nothing was written or sent. It never repeats the input.
type InvalidParamsError struct {
	Field  string // name of the struct field
	Reason string // what is wrong with it
}

// Error returns "invalid <Field>: <Reason>", safe to show to whoever typed the input.
func (e *InvalidParamsError) Error() string { return "invalid " + e.Field + ": " + e.Reason }

// HTTPStatus returns 422.
func (e *InvalidParamsError) HTTPStatus() int { return http.StatusUnprocessableEntity }

// TransitionError says that a member cannot make the wanted move. HTTP 409.
type TransitionError struct {
	From, To Status
}

// Error names both states.
func (e *TransitionError) Error() string {
	return "a member that is " + string(e.From) + " cannot become " + string(e.To)
}

// HTTPStatus returns 409.
func (e *TransitionError) HTTPStatus() int { return http.StatusConflict }

// CooldownError says that it is too early to send this person another email. HTTP 429.
type CooldownError struct {
	Until time.Time
}

// Error names the time.
func (e *CooldownError) Error() string {
	return "this invitation was sent a moment ago; try again after " + e.Until.UTC().Format(time.RFC3339)
}

// HTTPStatus returns 429.
func (e *CooldownError) HTTPStatus() int { return http.StatusTooManyRequests }

var (
	// ErrNotFound says that there is no such member, or no such user at Clerk. HTTP 404.
	ErrNotFound error = &statusError{http.StatusNotFound, "no such member"}
	// ErrBadSignature says that a webhook was not signed with one of the secrets,
	// is too old or too new, or is of another instance. HTTP 400.
	ErrBadSignature error = &statusError{http.StatusBadRequest, "the webhook's signature is not valid"}
)

// statusError is the type of the sentinels: a text that is safe to show, and a status.
type statusError struct {
	status int
	text   string
}

func (e *statusError) Error() string   { return e.text }
func (e *statusError) HTTPStatus() int { return e.status }

// HTTPError returns the HTTP status and a message that is safe to show for an error
// of this library: 200 and "" for nil, what the first error in the chain with a
// method HTTPStatus() int says, and 500 "internal server error" for everything
// else, so that an unknown error's text never reaches a client. For an error of the
// host's own with that method, the message is its Error().
//
// The message for a *[DuplicateEmailError] holds the address: use it on endpoints
// for authenticated admins only.
func HTTPError(err error) (status int, message string) {
	if err == nil {
		return http.StatusOK, ""
	}
	var withStatus interface {
		error
		HTTPStatus() int
	}
	if !errors.As(err, &withStatus) {
		return http.StatusInternalServerError, "internal server error"
	}
	if _, ok := withStatus.(*APIError); ok {
		withStatus = &ClerkInvitationError{Err: withStatus} // Clerk's own text is for the operator's log
	}
	return withStatus.HTTPStatus(), withStatus.Error()
}

// RetryAfter returns how long to wait before the call that failed with err is worth
// repeating, if Clerk or a cooldown said so.
func RetryAfter(err error) (time.Duration, bool) {
	var api *APIError
	if errors.As(err, &api) && api.RetryAfter > 0 {
		return api.RetryAfter, true
	}
	var cooldown *CooldownError
	if errors.As(err, &cooldown) {
		return max(time.Until(cooldown.Until), 0), true
	}
	return 0, false
}

// IsUniqueViolation reports whether err is PostgreSQL's unique_violation (SQLSTATE
// 23505) of one of the named constraints or unique indexes, or of any if none is named.
// It is for hosts that write their own Store.
func IsUniqueViolation(err error, constraints ...string) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != "23505" {
		return false
	}
	return len(constraints) == 0 || slices.Contains(constraints, pg.ConstraintName)
}
