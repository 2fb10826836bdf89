package otelclerkinvite_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkapi"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// forbidden is a host's error with a 4xx status.
type forbidden struct{}

func (forbidden) Error() string   { return "ada@example.com does not belong to this company" }
func (forbidden) HTTPStatus() int { return http.StatusForbidden }

// newLifeRig returns a rig whose Authorize refuses two addresses.
func newLifeRig(t *testing.T) *rig {
	t.Helper()
	return newRig(t, func(cfg *clerkinvite.Config) {
		cfg.Authorize = func(_ context.Context, p *clerkinvite.InviteParams) error {
			switch p.Email {
			case "denied@example.com":
				return forbidden{}
			case "broken@example.com":
				return errors.New("no seats for broken@example.com")
			}
			return nil
		}
	})
}

// live calls every verb, and causes every state change and outcome.
func live(t *testing.T, r *rig) {
	t.Helper()
	everyStateChange(t, r)
	everyVerbOutcome(t, r)
	everyRequestOutcome(t, r)
	everyWait(t, r)
	organization(t, r)
	_, err := r.Reserve(t.Context(), person("waits@example.com"))
	require.NoError(t, err)
}

// organization makes the requests for memberships: a user is added to an organization, and removed. Clerk limits the first request of each
// endpoint.
func organization(t *testing.T, r *rig) {
	t.Helper()
	r.clerk.AddOrganization("org_acme", clerkinvitetest.OrganizationSpec{})
	r.clerk.AddVerifiedUser("zoe@example.com")
	svc := r.service(t, r.api, func(cfg *clerkinvite.Config) { cfg.Organizations = r.api })
	p := person("zoe@example.com")
	p.Organization = &clerkinvite.Organization{ID: "org_acme", AddExisting: true}
	limited := func(call clerkinvitetest.Call, do func() (*clerkinvite.Member, error)) {
		t.Helper()
		r.clerk.Fail(clerkinvitetest.Fault{Call: call, Status: 429, Code: "too_many_requests", RetryAfter: time.Minute})
		_, err := do()
		require.Error(t, err)
		r.clock.Advance(2 * time.Hour)
	}
	invite := func() (*clerkinvite.Member, error) { return svc.Invite(t.Context(), p) }
	remove := func() (*clerkinvite.Member, error) { return svc.Remove(t.Context(), ref("zoe@example.com")) }
	limited(clerkinvitetest.CallMemberships, invite)
	limited(clerkinvitetest.CallAddMember, invite)
	m, err := invite()
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusActive, m.Status)
	limited(clerkinvitetest.CallRemoveMember, remove)
	_, err = remove()
	require.NoError(t, err)
	require.Empty(t, r.clerk.Members("org_acme"))
}

func everyStateChange(t *testing.T, r *rig) {
	t.Helper()
	ctx := t.Context()
	member, members := must[*clerkinvite.Member](t), must[[]*clerkinvite.Member](t)
	is := func(m *clerkinvite.Member, want clerkinvite.Status) {
		t.Helper()
		require.Equal(t, want, m.Status)
	}
	invite := func(email string) *clerkinvite.Member {
		t.Helper()
		return member(r.Invite(ctx, person(email)))
	}
	reserve := func(email string) {
		t.Helper()
		is(member(r.Reserve(ctx, person(email))), clerkinvite.StatusReserved)
	}

	// Invited, resent, accepted, removed; invited again; revoked, invited again, removed and erased.
	is(invite("ada@example.com"), clerkinvite.StatusPending)
	r.clock.Advance(2 * time.Minute)
	is(member(r.Resend(ctx, ref("ada@example.com"))), clerkinvite.StatusPending)
	link := must[clerkinvite.Secret](t)
	require.False(t, link(r.Link(ctx, ref("ada@example.com"))).IsZero())
	webhook, err := r.clerk.Accept("ada@example.com")
	require.NoError(t, err)
	verifier, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{Secrets: []clerkinvite.Secret{clerkinvite.NewSecret(clerkinvitetest.WebhookSecret)}, Now: r.clock.Now})
	require.NoError(t, err)
	event, err := verifier.Verify(webhook.Payload, webhook.Sign(clerkinvitetest.WebhookSecret))
	require.NoError(t, err)
	require.Len(t, members(r.HandleEvent(ctx, event)), 1)
	is(member(r.Remove(ctx, ref("ada@example.com"))), clerkinvite.StatusRemoved)
	is(invite("ada@example.com"), clerkinvite.StatusActive) // has an account by now
	is(invite("bob@example.com"), clerkinvite.StatusPending)
	is(member(r.Revoke(ctx, ref("bob@example.com"))), clerkinvite.StatusRevoked)
	is(invite("bob@example.com"), clerkinvite.StatusPending)
	is(member(r.Remove(ctx, ref("bob@example.com"))), clerkinvite.StatusRemoved)
	require.NoError(t, r.Purge(ctx, ref("bob@example.com")))

	// Revoked and removed before Clerk was called.
	reserve("carol@example.com")
	is(member(r.Revoke(ctx, ref("carol@example.com"))), clerkinvite.StatusRevoked)
	reserve("carol@example.com")
	is(member(r.Remove(ctx, ref("carol@example.com"))), clerkinvite.StatusRemoved)

	// Refused, and invited again.
	r.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, Status: 403, Code: "not_allowed_access"})
	_, err = r.Invite(ctx, person("dave@example.com"))
	require.Error(t, err)
	is(invite("dave@example.com"), clerkinvite.StatusPending)

	// Expired: reconciled and invited again; accepted in time; invited again without a reconciliation.
	for _, email := range []string{"erin@example.com", "frank@example.com", "grace@example.com"} {
		m := invite(email)
		r.clerk.ExpireNow(m.InvitationID)
	}
	joined := r.clerk.AddVerifiedUser("heidi@example.com")
	r.clock.Advance(31 * 24 * time.Hour)
	_, err = r.Reconcile(ctx, nil)
	require.NoError(t, err)
	is(member(r.Get(ctx, ref("erin@example.com"))), clerkinvite.StatusExpired)
	is(invite("erin@example.com"), clerkinvite.StatusPending)
	is(invite("heidi@example.com"), clerkinvite.StatusActive)
	_, err = r.Resolve(ctx, joined)
	require.NoError(t, err)
	_, err = r.ResolveUser(ctx, joined.ID)
	require.NoError(t, err)
	m := member(r.Get(ctx, ref("frank@example.com")))
	old := r.clerk.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{{Address: m.Email, Verified: true}}, CreatedAt: m.ExpiresAt.Add(-time.Hour)})
	require.Len(t, members(r.Resolve(ctx, old)), 1)
	is(invite("ivan@example.com"), clerkinvite.StatusPending)
	r.clock.Advance(31 * 24 * time.Hour)
	is(invite("ivan@example.com"), clerkinvite.StatusPending)

	// The remaining verbs.
	_, err = r.ReserveMany(ctx, []clerkinvite.InviteParams{person("judy@example.com"), person("mallory@example.com")})
	require.NoError(t, err)
	_, err = r.Adopt(ctx, []clerkinvite.AdoptParams{{InviteParams: person("peggy@example.com"), ClerkUserID: "user_1"}})
	require.NoError(t, err)
	_, err = r.DeliverMembers(ctx, []clerkinvite.Ref{ref("judy@example.com")})
	require.NoError(t, err)
	_, err = r.Deliver(ctx, nil)
	require.NoError(t, err)
	_, err = r.InviteMany(ctx, []clerkinvite.InviteParams{person("niaj@example.com"), person("orla@example.com")}, nil)
	require.NoError(t, err)
	role := "admin"
	_, err = r.Update(ctx, ref("judy@example.com"), clerkinvite.MemberUpdate{Role: &role})
	require.NoError(t, err)
	_, err = r.List(ctx, clerkinvite.ListParams{TenantID: "acme"})
	require.NoError(t, err)
	_, err = r.History(ctx, ref("judy@example.com"))
	require.NoError(t, err)
	_, err = r.ByUser(ctx, "user_1")
	require.NoError(t, err)
	_, err = r.Counts(ctx, "acme")
	require.NoError(t, err)

	// A faulty store reports unknown states.
	r.StateChanged(ctx, "ada@example.com", "ada@example.com")
}

func everyVerbOutcome(t *testing.T, r *rig) {
	t.Helper()
	fails := func(_ any, err error) {
		t.Helper()
		require.Error(t, err)
	}
	ctx := t.Context()
	ada, err := r.Get(ctx, ref("ada@example.com"))
	require.NoError(t, err)
	fails(r.Invite(ctx, person("not an address")))
	fails(r.Invite(ctx, person("ada@example.com")))
	fails(r.Get(ctx, ref("unknown@example.com")))
	fails(r.Revoke(ctx, ref("ada@example.com"))) // active
	fails(r.Resend(ctx, ref("ivan@example.com")))
	fails(r.HandleEvent(ctx, &clerkinvite.Event{Type: clerkinvite.EventUserDeleted, UserID: ada.ClerkUserID, Timestamp: r.clock.Now()})) // the user exists
	fails(r.Invite(ctx, person("denied@example.com")))
	fails(r.Invite(ctx, person("broken@example.com")))
	gone, cancel := context.WithCancel(ctx)
	cancel()
	fails(r.Invite(gone, person("peggy@example.com")))
	late, cancel := context.WithDeadline(ctx, time.Unix(0, 0))
	defer cancel()
	fails(r.Invite(late, person("peggy@example.com")))
	for _, fault := range []clerkinvitetest.Fault{
		{Status: 401, Code: "clerk_key_invalid"},
		{Kind: clerkinvitetest.Reset, When: clerkinvitetest.After},
	} {
		fault.Call = clerkinvitetest.CallCreate
		r.clerk.Fail(fault)
		fails(r.Invite(ctx, person("quentin@example.com")))
		r.clock.Advance(2 * time.Hour)
	}
}

func everyRequestOutcome(t *testing.T, r *rig) {
	t.Helper()
	ctx := t.Context()
	r.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, Kind: clerkinvitetest.HTML502})
	_, err := r.Invite(ctx, person("rupert@example.com"))
	require.Error(t, err)
	r.clock.Advance(2 * time.Hour)
	_, err = r.Deliver(ctx, nil)
	require.NoError(t, err)

	// The caller cancels while Clerk does not respond.
	r.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, Kind: clerkinvitetest.Timeout})
	gone, cancel := context.WithCancel(ctx)
	defer cancel()
	r.clerk.OnCall(func(_ context.Context, call clerkinvitetest.Call, _ clerkinvitetest.When) {
		if call == clerkinvitetest.CallCreate {
			cancel()
		}
	})
	_, err = r.Invite(gone, person("sybil@example.com"))
	require.ErrorIs(t, err, context.Canceled)
	r.clerk.OnCall(nil)

	// The system never gives port 1 to a server that asks for a free port.
	nowhere, err := clerkapi.New("sk_test_1", &clerkapi.Options{BaseURL: "http://127.0.0.1:1"})
	require.NoError(t, err)
	lost := r.service(t, clerkinvitetest.ClerkFuncs{FindUsersFunc: noUsers, CreateInvitationFunc: nowhere.CreateInvitation}, nil)
	_, err = lost.Invite(ctx, person("trent@example.com"))
	require.Error(t, err)

	// Errors of a wrapper around the adapter, and input that the adapter does not send.
	for _, err := range []error{errors.New("circuit open for trudy@example.com"), &clerkinvite.InvalidParamsError{Field: "Email", Reason: "is not an address"}} {
		r.clock.Advance(2 * time.Hour)
		wrapped := r.service(t, clerkinvitetest.ClerkFuncs{FindUsersFunc: func(context.Context, clerkinvite.UserQuery) ([]clerkinvite.User, error) { return nil, err }}, nil)
		_, got := wrapped.Invite(ctx, person("trudy@example.com"))
		require.ErrorIs(t, got, err)
	}
	r.clock.Advance(2 * time.Hour)
	_, err = r.Deliver(ctx, nil)
	require.NoError(t, err)
}

func noUsers(context.Context, clerkinvite.UserQuery) ([]clerkinvite.User, error) { return nil, nil }

// limitCreates makes Clerk respond 429 to the next request of each create endpoint.
func (r *rig) limitCreates() {
	for _, call := range []clerkinvitetest.Call{clerkinvitetest.CallCreate, clerkinvitetest.CallCreateBulk} {
		r.clerk.Fail(clerkinvitetest.Fault{Call: call, Status: 429, Code: "too_many_requests", RetryAfter: time.Minute})
	}
}

func everyWait(t *testing.T, r *rig) {
	t.Helper()
	r.limitCreates()
	_, err := r.Invite(t.Context(), person("uma@example.com"))
	require.Error(t, err)
	r.clock.Advance(2 * time.Hour)
	r.clerk.ClearFaults()

	// 429s of the other operations.
	for _, call := range []clerkinvitetest.Call{clerkinvitetest.CallFindUsers, clerkinvitetest.CallGetUser, clerkinvitetest.CallList, clerkinvitetest.CallRevoke} {
		r.clerk.Fail(clerkinvitetest.Fault{Call: call, Status: 429, Code: "too_many_requests", RetryAfter: time.Minute})
	}
	_, err = r.Invite(t.Context(), person("victor@example.com"))
	require.Error(t, err)
	_, err = r.ResolveUser(t.Context(), "user_limited")
	require.Error(t, err)
	r.clock.Advance(2 * time.Hour)
	_, err = r.Revoke(t.Context(), ref("judy@example.com"))
	require.Error(t, err)
	r.clock.Advance(2 * time.Hour)
	_, err = r.Reconcile(t.Context(), nil)
	require.Error(t, err)
	r.clock.Advance(2 * time.Hour)
	r.clerk.ClearFaults()

	// During the wait, the limit ends, the caller cancels, or the caller's deadline passes.
	wait := func(ctx context.Context, during func(), people ...clerkinvite.InviteParams) error {
		r.limitCreates()
		r.onWait = during
		_, err := r.InviteMany(ctx, people, &clerkinvite.InviteManyOptions{Wait: true})
		r.onWait = nil
		r.clock.Advance(2 * time.Hour)
		r.clerk.ClearFaults()
		return err
	}
	require.NoError(t, wait(t.Context(), func() { r.clock.Advance(2 * time.Hour) }, person("walter@example.com"), person("xena@example.com")))
	gone, cancel := context.WithCancel(t.Context())
	require.ErrorIs(t, wait(gone, cancel, person("yves@example.com"), person("zoe@example.com")), context.Canceled)
	late := expiring{t.Context(), make(chan struct{})}
	require.ErrorIs(t, wait(late, func() { close(late.ended) }, person("yves@example.com"), person("zoe@example.com")), context.DeadlineExceeded)
}

// expiring is a context whose deadline passes when ended is closed.
type expiring struct {
	context.Context

	ended chan struct{}
}

func (c expiring) Done() <-chan struct{} { return c.ended }

func (c expiring) Err() error {
	select {
	case <-c.ended:
		return context.DeadlineExceeded
	default:
		return nil
	}
}
