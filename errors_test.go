package clerkinvite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
)

type teapot struct{ secret string }

func (t *teapot) Error() string   { return "short and stout" }
func (t *teapot) HTTPStatus() int { return 418 }

func TestHTTPError(t *testing.T) {
	t.Parallel()
	dup := &DuplicateEmailError{Ref: Ref{"acme", "ada@example.com"}}
	for name, c := range map[string]struct {
		err     error
		status  int
		message string
	}{
		"nil":             {nil, 200, ""},
		"duplicate":       {dup, 409, "a member with email ada@example.com already exists in this tenant"},
		"wrapped":         {fmt.Errorf("password=hunter2: %w", dup), 409, "a member with email ada@example.com already exists in this tenant"},
		"refused":         {&ClerkInvitationError{Outcome: Refused}, 422, "invitation refused for this address"},
		"fault":           {&ClerkInvitationError{Outcome: Fault}, 502, "invitation service unavailable"},
		"uncertain":       {&ClerkInvitationError{Outcome: Uncertain, Err: &APIError{LongMessage: "internal"}}, 502, "invitation service unavailable"},
		"API error alone": {&APIError{StatusCode: 401, LongMessage: "The provided Clerk Secret Key is invalid"}, 502, "invitation service unavailable"},
		"invalid":         {&InvalidParamsError{"Email", "is empty"}, 422, "invalid Email: is empty"},
		"transition":      {&TransitionError{StatusActive, StatusPending}, 409, "a member that is active cannot become pending"},
		"cooldown":        {&CooldownError{time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)}, 429, "this invitation was sent a moment ago; try again after 2026-03-01T09:00:00Z"},
		"not found":       {ErrNotFound, 404, "no such member"},
		"signature":       {fmt.Errorf("%w: too old", ErrBadSignature), 400, "the webhook's signature is not valid"},
		"conflict":        {ErrConflict, 409, "the member was modified concurrently; reload it and try again"},
		"the host's own":  {&teapot{"x"}, 418, "short and stout"},
		"database":        {&pgconn.PgError{Message: "relation secret"}, 500, "internal server error"},
		"anything":        {io.ErrUnexpectedEOF, 500, "internal server error"},
	} {
		status, message := HTTPError(c.err)
		require.Equal(t, c.status, status, name)
		require.Equal(t, c.message, message, name)
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	wait, ok := RetryAfter(fmt.Errorf("x: %w", &ClerkInvitationError{Err: &APIError{StatusCode: 429, RetryAfter: time.Minute}}))
	require.True(t, ok)
	require.Equal(t, time.Minute, wait)
	_, ok = RetryAfter(&ClerkInvitationError{Err: &APIError{StatusCode: 503}})
	require.False(t, ok)
	wait, ok = RetryAfter(&CooldownError{time.Now().Add(time.Hour)})
	require.True(t, ok)
	require.InDelta(t, time.Hour, wait, float64(time.Minute))
	wait, ok = RetryAfter(&CooldownError{time.Now().Add(-time.Hour)})
	require.True(t, ok)
	require.Zero(t, wait)
	_, ok = RetryAfter(nil)
	require.False(t, ok)
}

func TestErrorsUnwrap(t *testing.T) {
	t.Parallel()
	err := error(&ClerkInvitationError{Err: &APIError{Err: fmt.Errorf("x: %w", context.Canceled)}})
	require.ErrorIs(t, err, context.Canceled)
	var api *APIError
	require.ErrorAs(t, err, &api)
}

func TestIsUniqueViolation(t *testing.T) {
	t.Parallel()
	err := fmt.Errorf("insert: %w", &pgconn.PgError{Code: "23505", ConstraintName: "admin_user_email_key"})
	require.True(t, IsUniqueViolation(err))
	require.True(t, IsUniqueViolation(err, "other", "admin_user_email_key"))
	require.False(t, IsUniqueViolation(err, "other"))
	require.False(t, IsUniqueViolation(&pgconn.PgError{Code: "23503", ConstraintName: "admin_user_email_key"}))
	require.False(t, IsUniqueViolation(errors.New("23505")))
	require.False(t, IsUniqueViolation(nil))
}

// Design section 7: the four kinds of answer.
func TestClassify(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	answer := func(status int, code string, meta map[string]any) *APIError {
		return &APIError{StatusCode: status, Code: code, Meta: meta}
	}
	for name, c := range map[string]struct {
		err  error
		want Outcome
	}{
		"bad format, names the parameter": {answer(422, "form_param_format_invalid", map[string]any{"param_name": "email_address"}), Refused},
		"names the address":               {answer(400, "x", map[string]any{"email_addresses": []any{"ADA@example.com"}}), Refused},
		"names the address, alone":        {answer(400, "x", map[string]any{"email_addresses": email}), Refused},
		"names another address":           {answer(400, "x", map[string]any{"email_addresses": []any{"bob@example.com"}}), Fault},
		"block list":                      {answer(403, "not_allowed_access", nil), Refused},
		"block list, names":               {answer(403, "not_allowed_access", map[string]any{"identifiers": []any{email}}), Refused},
		"another parameter":               {answer(422, "form_param_value_invalid", map[string]any{"param_name": "redirect_url"}), Fault},
		"duplicate is no refusal":         {answer(400, "duplicate_record", map[string]any{"email_addresses": []any{email}}), Fault},
		"held is no refusal":              {answer(422, "form_identifier_exists", map[string]any{"param_name": "email_address"}), Fault},
		"wrong key":                       {answer(401, "clerk_key_invalid", nil), Fault},
		"payment":                         {answer(402, "", nil), Fault},
		"quota":                           {answer(403, "user_quota_exceeded", nil), Fault},
		"a page of Cloudflare's":          {&APIError{StatusCode: 403, Err: errors.New("no JSON")}, Fault},
		"development emails":              {answer(400, "dev_monthly_email_limit_exceeded", nil), Fault},
		"rate limit":                      {answer(429, "too_many_requests", nil), Fault},
		"conflict":                        {answer(409, "resource_locked", nil), Fault},
		"not sent":                        {&APIError{NotSent: true, Err: io.EOF}, Fault},
		"refused by the adapter":          {&InvalidParamsError{"Email", "x"}, Fault},
		"time-out":                        {&APIError{Err: context.DeadlineExceeded}, Uncertain},
		"cut":                             {&APIError{Err: io.ErrUnexpectedEOF}, Uncertain},
		"redirect":                        {answer(307, "", nil), Uncertain},
		"unreadable success":              {&APIError{StatusCode: 200, Err: errors.New("no JSON")}, Uncertain},
		"server error, even if it names":  {answer(500, "internal_clerk_error", map[string]any{"param_name": "email_address"}), Uncertain},
		"unavailable":                     {answer(503, "", nil), Uncertain},
		"a proxy's time-out":              {answer(408, "", nil), Uncertain},
		"nobody knows what":               {errors.New("boom"), Uncertain},
	} {
		require.Equal(t, c.want, classify(fmt.Errorf("x: %w", c.err), email), name)
	}
}
