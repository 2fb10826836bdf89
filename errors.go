package clerkinvite

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/clerkinvite/clerkinvite/internal/scrub"
)

// Outcome says what a failed call to Clerk may have done.
type Outcome string

const (
	// OutcomeRefused means that Clerk refuses to invite this person. Nothing was sent.
	OutcomeRefused Outcome = "refused"
	// OutcomeFault means that the call failed for another reason and had no effect. The member
	// stays due, unless [Config].WithdrawOnFailure is set.
	OutcomeFault Outcome = "fault"
	// OutcomeUncertain means that the request was sent but no usable response came back, so Clerk
	// may have sent the email. The member stays due, and the next attempt checks Clerk before
	// it sends. With [Config].WithdrawOnFailure, the invitation is revoked instead.
	OutcomeUncertain Outcome = "uncertain"
)

// DuplicateEmailError is returned if the tenant already has a member with this address, or the
// same person under another address. HTTP 409.
//
// [HTTPError]'s text contains the address, for the admin who typed it. Error's text does not.
type DuplicateEmailError struct {
	Ref    Ref
	Member *Member // the existing member
}

// Error returns the tenant, and the ID and status of the existing member.
func (e *DuplicateEmailError) Error() string {
	text := fmt.Sprintf("tenant %q already has this person as a member", e.Ref.TenantID)
	if e.Member != nil {
		text += ": member " + e.Member.ID + " is " + string(e.Member.Status)
	}
	return text
}

// HTTPStatus returns 409.
func (e *DuplicateEmailError) HTTPStatus() int { return http.StatusConflict }

// Status returns the state of the existing member, or "" if Member is nil.
func (e *DuplicateEmailError) Status() Status {
	if e.Member == nil {
		return ""
	}
	return e.Member.Status
}

// text is the message for the admin who typed the address.
func (e *DuplicateEmailError) text() string {
	switch {
	case e.Status() == StatusActive && e.Member.Email != e.Ref.Email:
		return e.Ref.Email + " belongs to a member of this tenant who has another email"
	case e.Status() == StatusActive:
		return e.Ref.Email + " is already a member of this tenant"
	case e.Status() == StatusPending, e.Status() == StatusReserved:
		return e.Ref.Email + " is already invited to this tenant"
	}
	return "a member with email " + e.Ref.Email + " already exists in this tenant"
}

// ClerkInvitationError is returned if a call to Clerk failed. HTTP 422 if Clerk refused
// the person, otherwise 502.
type ClerkInvitationError struct {
	Op      string  // the operation: "find users", "create invitation", …
	Outcome Outcome // what the call may have done
	Member  *Member // nil, or the stored row; see Queued
	Err     error   // the cause, usually an *APIError
}

// Queued reports whether the invitation is saved and will be sent later, by Run, by Deliver
// or by another Invite or Resend of the member. It is false if Clerk refuses the person, if
// [Config].WithdrawOnFailure has withdrawn the invitation, and if the call does not send one.
func (e *ClerkInvitationError) Queued() bool {
	return e.Outcome != OutcomeRefused && e.Member != nil && e.Member.Due()
}

// Error returns the operation, the member's ID and tenant, the outcome and the cause
// without addresses, for the operator. The text for the caller comes from [HTTPError].
func (e *ClerkInvitationError) Error() string {
	text := e.Op
	if e.Member != nil {
		text += fmt.Sprintf(" for member %s of tenant %q", e.Member.ID, e.Member.TenantID)
	}
	text += ": " + string(e.Outcome)
	if e.Err != nil {
		text += ": " + scrub.Line(e.Err.Error())
	}
	return text
}

// Unwrap returns the cause.
func (e *ClerkInvitationError) Unwrap() error { return e.Err }

// HTTPStatus returns 422 for OutcomeRefused and 502 otherwise.
func (e *ClerkInvitationError) HTTPStatus() int {
	if e.Outcome == OutcomeRefused {
		return http.StatusUnprocessableEntity
	}
	return http.StatusBadGateway
}

// refusal is the message for the admin if Clerk refused the person.
func (e *ClerkInvitationError) refusal() string {
	var api *APIError
	switch code := codeOf(e.Err); {
	case saysFull(e.Err):
		return "the organization has no free seat"
	case code == codeNotAdmin:
		return "the inviter is not an admin of the organization"
	case refusesEverybody(e.Err) && code != codeResourceNotFound:
		return noOrganization
	case !saysNotFound(e.Err), e.Member == nil, e.Member.organization() == "":
		return "invitation refused for this address"
	case errors.As(e.Err, &api) && api.Meta[metaParamName] != nil:
		return "the organization does not have this role"
	}
	return noOrganization
}

// APIError describes a failed request to Clerk. HTTP 502.
type APIError struct {
	StatusCode  int            // HTTP status, 0 without a response
	Code        string         // code of the first error, "" if the body has none
	Message     string         // Clerk's short text; may contain addresses
	LongMessage string         // Clerk's long text; may contain addresses
	TraceID     string         // Clerk-Trace-Id, for Clerk's support
	RetryAfter  time.Duration  // value of the header Retry-After, 0 without one; use the function RetryAfter to decide when to retry
	Meta        map[string]any // meta of the first error; may contain addresses

	// NotSent is true if no byte of the request can have reached Clerk, so the request
	// had no effect.
	NotSent bool
	// Err is the failure below HTTP, nil if Clerk's response was readable.
	Err error

	wait time.Duration // time until the library calls the endpoint again, 0 if it is not limited
}

// Error returns the status, Clerk's code and text without addresses, and the trace ID.
func (e *APIError) Error() string {
	var b strings.Builder
	b.WriteString("clerk: ")
	if e.StatusCode != 0 {
		fmt.Fprintf(&b, "HTTP %d", e.StatusCode)
	} else {
		b.WriteString("no response")
	}
	if e.Code != "" {
		b.WriteString(" " + scrub.Line(e.Code))
	}
	if text := cmp.Or(e.LongMessage, e.Message); text != "" {
		b.WriteString(": " + scrub.Line(text))
	}
	if e.Err != nil {
		b.WriteString(": " + scrub.Line(e.Err.Error()))
	}
	if e.TraceID != "" {
		b.WriteString(" (trace " + scrub.Line(e.TraceID) + ")")
	}
	return b.String()
}

// Unwrap returns the failure below HTTP.
func (e *APIError) Unwrap() error { return e.Err }

// HTTPStatus returns 502.
func (e *APIError) HTTPStatus() int { return http.StatusBadGateway }

// InvalidParamsError is returned for invalid input, before anything is written or sent.
// HTTP 422.
type InvalidParamsError struct {
	Field  string // name of the struct field
	Reason string // what the input must be, or what is wrong with it; never repeats the input
}

// Error returns "invalid <Field>: <Reason>", which is safe to show to the caller.
func (e *InvalidParamsError) Error() string { return "invalid " + e.Field + ": " + e.Reason }

// HTTPStatus returns 422.
func (e *InvalidParamsError) HTTPStatus() int { return http.StatusUnprocessableEntity }

// TransitionError is returned if a member's status does not allow the call. HTTP 409.
type TransitionError struct {
	From, To Status
}

// Error returns both statuses.
func (e *TransitionError) Error() string {
	return "a member that is " + string(e.From) + " cannot become " + string(e.To)
}

// HTTPStatus returns 409.
func (e *TransitionError) HTTPStatus() int { return http.StatusConflict }

// CooldownError is returned by Resend if the last invitation was sent too recently, or while another
// resend of the member is running. HTTP 429.
type CooldownError struct {
	Until time.Time
}

// Error returns the time from which the call can succeed.
func (e *CooldownError) Error() string {
	return "the last invitation was sent too recently; try again after " + e.Until.UTC().Format(time.RFC3339)
}

// HTTPStatus returns 429.
func (e *CooldownError) HTTPStatus() int { return http.StatusTooManyRequests }

var (
	// ErrNotFound means that the member or the Clerk user does not exist. HTTP 404.
	ErrNotFound error = &statusError{http.StatusNotFound, "no such member"}
	// ErrLastAdmin means that Clerk does not remove the last admin of an organization. Another
	// member must become an admin first. HTTP 409.
	ErrLastAdmin error = &statusError{http.StatusConflict, "the organization needs another admin first"}
	// ErrNoLink means that Clerk shows no working link of the member's invitation. HTTP 409.
	ErrNoLink error = &statusError{http.StatusConflict, "no invitation link is available"}
	// ErrBadSignature means that a webhook has no valid signature, is too old, has a time in the
	// future, or is from another Clerk instance. HTTP 400.
	ErrBadSignature error = &statusError{http.StatusBadRequest, "the webhook's signature is not valid"}
)

// statusError is a sentinel error with an HTTP status. Its text is safe to show.
type statusError struct {
	status int
	text   string
}

func (e *statusError) Error() string   { return e.text }
func (e *statusError) HTTPStatus() int { return e.status }

// HTTPError returns the HTTP status for err and a message that is safe to show. For nil it
// returns 200 and "". Otherwise it uses HTTPStatus() and Error() of the first error in the
// chain that has a method HTTPStatus() int. If there is none, it returns 500 and "internal
// server error", so that the text of an unknown error never reaches a client.
//
// For *[DuplicateEmailError], *[ClerkInvitationError] and *[APIError] the message is a text
// for people instead of Error(). The message for a *[DuplicateEmailError] contains the
// address. Show it only to authenticated admins, because it reveals who is a member.
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
	status, message = withStatus.HTTPStatus(), withStatus.Error()
	switch e := withStatus.(type) {
	case *DuplicateEmailError:
		message = e.text()
	case *ClerkInvitationError:
		switch {
		case e.Outcome == OutcomeRefused:
			message = e.refusal()
		case e.Queued():
			message = unavailable + "; the invitation is saved and will be retried"
		default:
			message = unavailable
		}
	case *APIError:
		message = unavailable
	}
	return status, message
}

const (
	unavailable    = "invitation service unavailable"
	noOrganization = "Clerk does not have this organization"
)

// RetryAfter returns how long to wait before retrying the call that returned err. It returns
// false if neither a rate limit, nor Clerk's header Retry-After, nor a cooldown determines
// the time. For a rate limit it returns the remaining time, or a minute if Clerk did not
// say how long the limit lasts. For a cooldown it compares with this machine's clock, not Config.Now.
//
// RetryAfter returns at most about an hour for a rate limit, and at most five minutes for other
// failures. [APIError].RetryAfter is the unmodified header, which can be longer if it comes
// from a proxy or a firewall. A call whose error is [ClerkInvitationError.Queued] does not
// have to be retried.
func RetryAfter(err error) (time.Duration, bool) {
	var api *APIError
	if errors.As(err, &api) {
		switch limited := api.StatusCode == http.StatusTooManyRequests; {
		case api.wait > 0:
			return api.wait, true
		case limited:
			return limitWait(endpointCreate, api.RetryAfter), true
		case api.RetryAfter > 0:
			return min(api.RetryAfter, 5*time.Minute), true
		}
	}
	var cooldown *CooldownError
	if errors.As(err, &cooldown) {
		return max(time.Until(cooldown.Until), 0), true
	}
	return 0, false
}

// IsUniqueViolation reports whether err is PostgreSQL's unique_violation (SQLSTATE 23505) for
// one of the named constraints or unique indexes, or for any if none is named. It is for
// hosts that implement their own Store with pgx.
func IsUniqueViolation(err error, constraints ...string) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != "23505" {
		return false
	}
	return len(constraints) == 0 || slices.Contains(constraints, pg.ConstraintName)
}
