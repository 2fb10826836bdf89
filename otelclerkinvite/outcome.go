package otelclerkinvite

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/internal/scrub"
)

// Outcomes of verbs, waits and requests. The package documentation explains each.
const (
	outcomeOK          = "ok"
	outcomeCanceled    = "canceled"
	outcomeTimeout     = "timeout"
	outcomeInvalid     = "invalid"
	outcomeRateLimited = "rate_limited"
	outcomeError       = "error"

	// Only of verbs.
	outcomeDuplicate   = "duplicate"
	outcomeNotFound    = "not_found"
	outcomeConflict    = "conflict"
	outcomeCooldown    = "cooldown"
	outcomeUnconfirmed = "unconfirmed"
	outcomeDenied      = "denied"
	outcomeRefused     = string(clerkinvite.Refused)
	outcomeFault       = string(clerkinvite.Fault)
	outcomeUncertain   = string(clerkinvite.Uncertain)

	// Only of requests.
	outcomeRejected   = "rejected"
	outcomeFailed     = "failed"
	outcomeNoResponse = "no_response"
	outcomeNotSent    = "not_sent"
)

// failure reports whether an outcome makes the span an error: a failure of Clerk, of the
// store or of an unknown kind, but not of the caller.
func failure(outcome string) bool {
	switch outcome {
	case outcomeTimeout, outcomeRateLimited, outcomeError, outcomeFault, outcomeUncertain, outcomeFailed, outcomeNoResponse, outcomeNotSent:
		return true
	}
	return false
}

// verbOutcome returns the outcome of a verb or a wait.
func verbOutcome(err error) string {
	var (
		invalid    *clerkinvite.InvalidParamsError
		duplicate  *clerkinvite.DuplicateEmailError
		cooldown   *clerkinvite.CooldownError
		transition *clerkinvite.TransitionError
		invitation *clerkinvite.ClerkInvitationError
		api        *clerkinvite.APIError
	)
	switch {
	case err == nil:
		return outcomeOK
	case errors.Is(err, context.Canceled):
		return outcomeCanceled
	case errors.As(err, &invalid):
		return outcomeInvalid
	case errors.As(err, &duplicate):
		return outcomeDuplicate
	case errors.As(err, &cooldown):
		return outcomeCooldown
	case errors.Is(err, clerkinvite.ErrNotFound):
		return outcomeNotFound
	case errors.As(err, &transition), errors.Is(err, clerkinvite.ErrConflict), errors.Is(err, clerkinvite.ErrLastAdmin), errors.Is(err, clerkinvite.ErrNoLink):
		return outcomeConflict
	case errors.Is(err, clerkinvite.ErrUnconfirmed):
		return outcomeUnconfirmed
	case errors.As(err, &invitation) && invitation.Outcome == clerkinvite.Refused:
		return outcomeRefused
	case errors.As(err, &api) && api.StatusCode == http.StatusTooManyRequests:
		return outcomeRateLimited
	case errors.As(err, &invitation) && invitation.Outcome == clerkinvite.Uncertain:
		return outcomeUncertain
	case errors.As(err, &invitation), errors.As(err, &api):
		return outcomeFault
	case errors.Is(err, context.DeadlineExceeded):
		return outcomeTimeout
	}
	if status, _ := clerkinvite.HTTPError(err); status/100 == 4 {
		return outcomeDenied
	}
	return outcomeError
}

// requestOutcome returns the outcome of a request to Clerk.
func requestOutcome(err error) string {
	var invalid *clerkinvite.InvalidParamsError
	var api *clerkinvite.APIError
	switch {
	case err == nil:
		return outcomeOK
	case errors.Is(err, context.Canceled):
		return outcomeCanceled
	case errors.As(err, &invalid):
		return outcomeInvalid
	case !errors.As(err, &api):
		return outcomeError
	case api.StatusCode == http.StatusTooManyRequests:
		return outcomeRateLimited
	case api.NotSent:
		return outcomeNotSent
	case api.StatusCode == 0:
		return outcomeNoResponse
	}
	switch api.StatusCode {
	case http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusUnprocessableEntity:
		if api.Code != "" { // without a code the response is from a proxy
			return outcomeRejected
		}
	}
	return outcomeFailed
}

// statusCode returns the response's status, or 0 without a response. It also returns 0 for an
// unregistered number, which would create a new series.
func statusCode(err error) int {
	var api *clerkinvite.APIError
	if !errors.As(err, &api) || http.StatusText(api.StatusCode) == "" {
		return 0
	}
	return api.StatusCode
}

// errorAttributes describes Clerk's error response.
func errorAttributes(err error) []attribute.KeyValue {
	var api *clerkinvite.APIError
	if !errors.As(err, &api) {
		return nil
	}
	var attrs []attribute.KeyValue
	if code := statusCode(err); code != 0 {
		attrs = append(attrs, keyStatus.Int(code))
	}
	if code := token(api.Code); code != "" {
		attrs = append(attrs, keyCode.String(code))
	}
	if id := token(api.TraceID); id != "" {
		attrs = append(attrs, keyTraceID.String(id))
	}
	return attrs
}

// token returns s if it looks like a code or an ID, otherwise "". A proxy's response may
// contain anything.
func token(s string) string {
	odd := func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && r != '_' && r != '-'
	}
	if len(s) > 64 || strings.ContainsFunc(s, odd) || scrub.Line(s) != s {
		return ""
	}
	return s
}

// errorType returns the outcome, or the Go type of an unknown error.
func errorType(outcome string, err error) string {
	if outcome != outcomeError {
		return outcome
	}
	for next := err; next != nil; next = errors.Unwrap(next) {
		err = next
	}
	return fmt.Sprintf("%T", err)
}

// description returns the status text of a failed span.
func description(outcome string, err error) string {
	var api *clerkinvite.APIError
	if !errors.As(err, &api) {
		return errorType(outcome, err)
	}
	text := "clerk: no response"
	if api.StatusCode != 0 {
		text = "clerk: HTTP " + strconv.Itoa(api.StatusCode)
	}
	if code := token(api.Code); code != "" {
		text += " " + code
	}
	return text
}
