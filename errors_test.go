package clerkinvite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type teapot struct{ secret string }

func (t *teapot) Error() string   { return "short and stout" }
func (t *teapot) HTTPStatus() int { return 418 }

func TestHTTPError(t *testing.T) {
	t.Parallel()
	ref := Ref{TenantID: "acme", Email: "ada@example.com"}
	dup := func(m *Member) error { return &DuplicateEmailError{ref, m} }
	failure := func(o Outcome, m *Member) error { return &ClerkInvitationError{Outcome: o, Member: m} }
	ada := func(s Status) *Member { return &Member{Email: ref.Email, Status: s, Send: 1} }
	const saved = "invitation service unavailable; the invitation is saved and will be retried"
	for name, c := range map[string]struct {
		err     error
		status  int
		message string
	}{
		"nil":           {nil, 200, ""},
		"duplicate":     {dup(nil), 409, "a member with email ada@example.com already exists in this tenant"},
		"wrapped":       {fmt.Errorf("password=hunter2: %w", dup(nil)), 409, "a member with email ada@example.com already exists in this tenant"},
		"invited":       {dup(ada(StatusPending)), 409, "ada@example.com is already invited to this tenant"},
		"being invited": {dup(ada(StatusReserved)), 409, "ada@example.com is already invited to this tenant"},
		"joined":        {dup(ada(StatusActive)), 409, "ada@example.com is already a member of this tenant"},
		"other address": {dup(&Member{Email: "lovelace@example.com", Status: StatusActive}), 409, "ada@example.com belongs to a member of this tenant who has another email"},
		"failed before": {dup(ada(StatusFailed)), 409, "a member with email ada@example.com already exists in this tenant"},
		"refused":       {failure(OutcomeRefused, ada(StatusFailed)), 422, "invitation refused for this address"},
		"refused, due":  {failure(OutcomeRefused, ada(StatusReserved)), 422, "invitation refused for this address"},
		"not found, without an organization": {
			&ClerkInvitationError{Outcome: OutcomeRefused, Member: ada(StatusFailed), Err: &APIError{StatusCode: 404, Code: "resource_not_found"}}, 422, "invitation refused for this address",
		},
		"fault":           {failure(OutcomeFault, nil), 502, "invitation service unavailable"},
		"queued":          {failure(OutcomeFault, ada(StatusReserved)), 502, saved},
		"maybe sent":      {failure(OutcomeUncertain, ada(StatusReserved)), 502, saved},
		"resend queued":   {failure(OutcomeFault, &Member{Status: StatusPending, Send: 2, Sent: 1}), 502, saved},
		"resend given up": {failure(OutcomeFault, &Member{Status: StatusPending, Send: 2, Sent: 2}), 502, "invitation service unavailable"},
		"withdrawn":       {failure(OutcomeFault, ada(StatusFailed)), 502, "invitation service unavailable"},
		"uncertain":       {&ClerkInvitationError{Outcome: OutcomeUncertain, Err: &APIError{LongMessage: "internal"}}, 502, "invitation service unavailable"},
		"API error alone": {&APIError{StatusCode: 401, LongMessage: "The provided Clerk Secret Key is invalid"}, 502, "invitation service unavailable"},
		"invalid":         {&InvalidParamsError{"Email", "must not be empty"}, 422, "invalid Email: must not be empty"},
		"transition":      {&TransitionError{StatusActive, StatusPending}, 409, "a member that is active cannot become pending"},
		"cooldown":        {&CooldownError{time.Date(2026, 3, 1, 9, 0, 0, 1000, time.UTC)}, 429, "the last invitation was sent too recently; try again after 2026-03-01T09:00:01Z"},
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

func TestClerkInvitationError_Queued(t *testing.T) {
	t.Parallel()
	due, ended := &Member{Status: StatusReserved, Send: 1}, &Member{Status: StatusFailed, Send: 1, Sent: 1}
	for _, outcome := range []Outcome{OutcomeFault, OutcomeUncertain} {
		require.True(t, (&ClerkInvitationError{Outcome: outcome, Member: due}).Queued())
		require.False(t, (&ClerkInvitationError{Outcome: outcome, Member: ended}).Queued())
		require.False(t, (&ClerkInvitationError{Outcome: outcome}).Queued())
	}
	require.False(t, (&ClerkInvitationError{Outcome: OutcomeRefused, Member: due}).Queued())
}

func TestDuplicateEmailError_Status(t *testing.T) {
	t.Parallel()
	require.Equal(t, StatusPending, (&DuplicateEmailError{Member: &Member{Status: StatusPending}}).Status())
	require.Empty(t, (&DuplicateEmailError{}).Status())
}

// RetryAfter is when a call is worth repeating, whatever the response said.
func TestRetryAfter_Bounds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  APIError
		want time.Duration
	}{
		{APIError{StatusCode: 429, RetryAfter: 30 * time.Second}, 30 * time.Second},
		{APIError{StatusCode: 429, RetryAfter: 24 * time.Hour}, time.Hour},
		{APIError{StatusCode: 429}, time.Minute},
		{APIError{StatusCode: 429, RetryAfter: 24 * time.Hour, wait: time.Minute}, time.Minute},
		{APIError{StatusCode: 503, RetryAfter: 24 * time.Hour}, 5 * time.Minute},
	} {
		wait, ok := RetryAfter(&ClerkInvitationError{Err: &c.err})
		require.True(t, ok)
		require.Equal(t, c.want, wait)
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

func TestSQLFailure(t *testing.T) {
	t.Parallel()
	pg := func(code string) error { return fmt.Errorf("wrapped: %w", &pgconn.PgError{Code: code}) }
	// ConnectError hides its cause except from pgconn; TestPgxStoreServerTrouble has a real one.
	connecting := func(err error) error { return errors.Join(&pgconn.ConnectError{}, err) }
	for name, tc := range map[string]struct {
		err                 error
		again, mayBeApplied bool
	}{
		"broken connection":                 {io.ErrUnexpectedEOF, true, true},
		"time-out that is not the caller's": {context.DeadlineExceeded, true, true},
		"connect":                           {connecting(nil), true, false},
		"connection failure":                {pg("08006"), true, true},
		"PgBouncer lost its server":         {pg("08P01"), true, true},
		"connect through PgBouncer":         {connecting(pg("08P01")), true, false},
		"shutdown":                          {pg("57P01"), true, true},
		"crash":                             {pg("57P02"), true, true},
		"starting up":                       {connecting(pg("57P03")), true, false},
		"idle too long":                     {pg("57P05"), true, true},
		"completion unknown":                {pg("40003"), true, true},
		"serialization failure":             {pg("40001"), true, false},
		"deadlock":                          {pg("40P01"), true, false},
		"no connection left":                {connecting(pg("53300")), true, false},
		"wrong password":                    {connecting(pg("28P01")), false, false},
		"canceled by statement_timeout":     {pg("57014"), false, false},
		"lock_timeout":                      {pg("55P03"), false, false},
		"read-only":                         {pg("25006"), false, false},
		"no table":                          {pg("42P01"), false, false},
		"check":                             {pg("23514"), false, false},
		"unique":                            {pg("23505"), false, false},
		"out of memory":                     {pg("53200"), false, false},
	} {
		again, mayBeApplied := sqlFailure(tc.err)
		assert.Equal(t, tc.again, again, name)
		assert.Equal(t, tc.mayBeApplied, mayBeApplied, name)
	}
}

// Without an observer, observing allocates nothing.
func TestUnobserved(t *testing.T) { //nolint:paralleltest // AllocsPerRun counts what others allocate, too
	s, ctx, failed := &Service{}, t.Context(), errors.New("failed")
	verb := func(ctx context.Context) (err error) {
		ctx, op := s.observe(ctx, "Invite")
		defer op.end(&err)
		s.stateChanged(ctx, "", StatusReserved)
		return failed
	}
	require.Zero(t, testing.AllocsPerRun(1000, func() { _ = verb(ctx) }))
}
