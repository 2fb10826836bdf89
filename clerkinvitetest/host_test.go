package clerkinvitetest_test

import (
	"context"
	"math"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// This file tests a handler of a host in three ways. Copy the way that fits:
//   - a mock of the interface that the host declares: fast, and it can return every error;
//   - the fake Clerk and the store in memory: the real service, so that states, emails and webhooks are real;
//   - ClerkFuncs: the real service, with a few fixed responses of Clerk.

// inviter is what the handler needs of the service. The host declares it, and *clerkinvite.Service implements it.
type inviter interface {
	Invite(ctx context.Context, p clerkinvite.InviteParams) (*clerkinvite.Member, error)
}

var _ inviter = (*clerkinvite.Service)(nil)

// handleInvite is the host's code under test.
func handleInvite(invites inviter) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		m, err := invites.Invite(r.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: r.FormValue("email")})
		if err != nil {
			if wait, ok := clerkinvite.RetryAfter(err); ok {
				w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
			}
			status, message := clerkinvite.HTTPError(err)
			http.Error(w, message, status)
			return
		}
		_, _ = w.Write([]byte(m.Status))
	}
}

// post sends the form with the address to the handler.
func post(t *testing.T, invites inviter, email string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/invitations", strings.NewReader("email="+email))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	handleInvite(invites)(w, r)
	return w
}

// inviterFunc is a mock of inviter. lab/mocks has the same with testify, gomock and moq.
type inviterFunc func(ctx context.Context, p clerkinvite.InviteParams) (*clerkinvite.Member, error)

func (f inviterFunc) Invite(ctx context.Context, p clerkinvite.InviteParams) (*clerkinvite.Member, error) {
	return f(ctx, p)
}

// The first way: a mock of the interface that the host declares.
func TestHost_Mock(t *testing.T) {
	t.Parallel()
	ref := clerkinvite.Ref{TenantID: "acme", Email: "ada@example.com"}
	for name, tc := range map[string]struct {
		member *clerkinvite.Member
		err    error
		status int
	}{
		"invited":   {&clerkinvite.Member{Status: clerkinvite.StatusPending}, nil, 200},
		"duplicate": {nil, &clerkinvite.DuplicateEmailError{Ref: ref, Member: &clerkinvite.Member{Status: clerkinvite.StatusActive}}, 409},
		"refused":   {nil, &clerkinvite.ClerkInvitationError{Op: "create invitation", Outcome: clerkinvite.OutcomeRefused}, 422},
		"down":      {nil, &clerkinvite.ClerkInvitationError{Op: "create invitation", Outcome: clerkinvite.OutcomeUncertain}, 502},
		"database":  {nil, context.DeadlineExceeded, 500},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			invites := inviterFunc(func(_ context.Context, p clerkinvite.InviteParams) (*clerkinvite.Member, error) {
				require.Equal(t, clerkinvite.InviteParams{TenantID: ref.TenantID, Email: ref.Email}, p)
				return tc.member, tc.err
			})
			require.Equal(t, tc.status, post(t, invites, ref.Email).Code)
		})
	}
}

// The second way: the real service with a fake Clerk, a store in memory and one clock for all of them.
func TestHost_Fake(t *testing.T) {
	t.Parallel()
	clock := clerkinvitetest.NewClock(time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC))
	clerk := clerkinvitetest.NewClerk()
	clerk.SetNow(clock.Now)
	invites, err := clerkinvite.New(clerkinvite.Config{API: clerk, Store: clerkinvitetest.NewMemoryStore(), Now: clock.Now})
	require.NoError(t, err)

	clerk.Fail(clerkinvitetest.RateLimited(30 * time.Second))
	limited := post(t, invites, "ada@example.com")
	require.Equal(t, 502, limited.Code)
	require.Equal(t, "30", limited.Header().Get("Retry-After"))

	clock.Advance(30 * time.Second)
	require.Equal(t, "pending", post(t, invites, "ada@example.com").Body.String())
	require.Equal(t, 1, clerk.EmailsTo("ada@example.com"))
	require.Equal(t, 409, post(t, invites, "ada@example.com").Code)

	// The person accepts, and the webhook arrives.
	webhook, err := clerk.Accept("ada@example.com")
	require.NoError(t, err)
	verifier, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{
		Secrets: []clerkinvite.Secret{clerkinvite.NewSecret(clerkinvitetest.WebhookSecret)}, Now: clock.Now,
	})
	require.NoError(t, err)
	w := httptest.NewRecorder()
	invites.WebhookHandler(verifier).ServeHTTP(w, webhook.Request(clerkinvitetest.WebhookSecret, "/webhooks/clerk"))
	require.Equal(t, 204, w.Code)
	m, err := invites.Get(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "ada@example.com"})
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusActive, m.Status)
}

// The third way: the real service with fixed responses of Clerk.
func TestHost_ClerkFuncs(t *testing.T) {
	t.Parallel()
	api := clerkinvitetest.ClerkFuncs{
		FindUsersFunc: func(context.Context, clerkinvite.UserQuery) ([]clerkinvite.User, error) { return nil, nil },
		CreateInvitationFunc: func(context.Context, clerkinvite.InvitationRequest) (*clerkinvite.Invitation, error) {
			return nil, &clerkinvite.APIError{StatusCode: 403, Code: "not_allowed_access"}
		},
	}
	invites, err := clerkinvite.New(clerkinvite.Config{API: api, Store: clerkinvitetest.NewMemoryStore()})
	require.NoError(t, err)
	require.Equal(t, 422, post(t, invites, "ada@example.com").Code)
}
