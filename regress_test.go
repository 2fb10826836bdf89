package clerkinvite_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
)

// Faults that were found by attacking the promises. Each test is named after the fault
// that it would find, and its comment tells how that showed.

func mem(t *testing.T, o options) *bundle {
	t.Helper()
	clerk := clerkinvitetest.NewClerk()
	return newBundle(t, o, clerk, clerk, clerkinvitetest.NewMemoryStore())
}

// memFaulty is mem on a store that fails when it is told to.
func memFaulty(t *testing.T) (*bundle, *faultyStore) {
	t.Helper()
	b := mem(t, options{})
	store := &faultyStore{Store: b.store}
	return newBundle(t, options{}, b.clerk, b.api, store), store
}

func params(tenant, email string) clerkinvite.InviteParams {
	return clerkinvite.InviteParams{TenantID: tenant, Email: email}
}

// Deliver returns nil although rows are due.
func TestDeliverLeavesDueRows(t *testing.T) {
	t.Parallel()
	clerk := clerkinvitetest.NewClerk()
	store := clerkinvitetest.NewMemoryStore()
	svc, err := clerkinvite.New(clerkinvite.Config{API: clerk, Store: store, Lease: 2 * time.Second})
	require.NoError(t, err)
	for i := range 30 {
		_, err := svc.Reserve(t.Context(), params("acme", fmt.Sprintf("p%d@example.com", i)))
		require.NoError(t, err)
	}
	clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
		if c == clerkinvitetest.CallCreate && w == clerkinvitetest.Before {
			time.Sleep(60 * time.Millisecond)
		}
	})
	report, err := svc.Deliver(t.Context(), nil)
	require.NoError(t, err)
	due, err := store.Due(t.Context(), time.Now(), 0)
	require.NoError(t, err)
	require.Empty(t, due, "Deliver said nil = nothing is left that is due now; report %+v", *report)
}

// Invite returns (removed, nil).
func TestInviteReturnsRemoved(t *testing.T) {
	t.Parallel()
	each(t, options{}, func(t *testing.T, b *bundle) {
		u := b.clerk.AddVerifiedUser("home@example.com")
		b.mustInvite(t, "home@example.com")
		var once sync.Once
		b.clerk.OnCall(func(ctx context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
			if c == clerkinvitetest.CallCreate && w == clerkinvitetest.After {
				once.Do(func() {
					ev := b.clerk.AddEmail(u.ID, clerkinvitetest.EmailSpec{Address: "work@example.com", Verified: true})
					e, _ := clerkinvite.ParseEvent(ev.Payload)
					_, err := b.HandleEvent(context.WithoutCancel(ctx), e)
					if err != nil {
						t.Error(err)
					}
				})
			}
		})
		m, err := b.invite(t, "work@example.com")
		var dup *clerkinvite.DuplicateEmailError
		if !errors.As(err, &dup) {
			t.Fatalf("want DuplicateEmailError with the active member, got member %v, err %v", m, err)
		}
	})
}

// Invite returns (failed, nil): its lease ran out, the next attempt was refused.
func TestInviteReturnsFailed(t *testing.T) {
	t.Parallel()
	b := mem(t, options{})
	var once atomic.Bool
	b.clerk.OnCall(func(ctx context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
		if c == clerkinvitetest.CallCreate && w == clerkinvitetest.Before {
			if once.CompareAndSwap(false, true) {
				b.clock.Advance(2 * time.Minute)
				b.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, Status: 403, Code: "not_allowed_access"})
				_, _ = b.Deliver(context.WithoutCancel(ctx), nil)
			}
		}
	})
	m, err := b.invite(t, "ada@example.com")
	if err == nil && m.Status != clerkinvite.StatusPending && m.Status != clerkinvite.StatusActive {
		t.Fatalf("Invite returned %v and no error", m)
	}
}

// Restored backup: both next sends have ended at Clerk.
func TestInviteOverTwice(t *testing.T) {
	t.Parallel()
	b := mem(t, options{})
	m := b.mustInvite(t, "ada@example.com")
	b.clock.Advance(31 * 24 * time.Hour)
	for send := 2; send <= 3; send++ {
		inv := b.clerk.CreateForeign("ada@example.com", map[string]any{"clerkinvite": map[string]any{"id": m.ID, "send": send}})
		b.clerk.RevokeInDashboard(inv.ID)
	}
	m, err := b.invite(t, "ada@example.com")
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusPending, m.Status)
}

// Promise 5: else the primary address.
func TestPrimaryPreferredInDeliver(t *testing.T) {
	t.Parallel()
	each(t, options{}, func(t *testing.T, b *bundle) {
		b.clerk.AddUser(clerkinvitetest.UserSpec{Primary: 1, Emails: []clerkinvitetest.EmailSpec{
			{Address: "second@example.com", Verified: true}, {Address: "primary@example.com", Verified: true}}})
		for _, e := range []string{"second@example.com", "primary@example.com"} {
			_, err := b.Reserve(t.Context(), params("acme", e))
			require.NoError(t, err)
			b.clock.Advance(time.Second)
		}
		_, err := b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusActive, b.get(t, "primary@example.com").Status)
	})
}

// Promise 8: the revoke endpoint is closed in the store, Deliver calls it.
func TestRevokeGate(t *testing.T) {
	t.Parallel()
	b := mem(t, options{})
	secondSend(t, b)
	_, err := b.Reserve(t.Context(), params("acme", "ada@example.com"))
	require.NoError(t, err)
	b.shut("POST /invitations/revoke", b.clock.Now().Add(time.Hour))
	_, err = b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Zero(t, b.clerk.Requests()[clerkinvitetest.CallRevoke])
}

// A gate that another process closes during the pass.
func TestGateDuringPass(t *testing.T) {
	t.Parallel()
	b := mem(t, options{})
	for i := range 150 {
		_, err := b.Reserve(t.Context(), params("acme", fmt.Sprintf("p%d@example.com", i)))
		require.NoError(t, err)
	}
	n := 0
	b.clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
		if c == clerkinvitetest.CallCreateBulk && w == clerkinvitetest.After {
			if n++; n == 5 {
				b.shut("POST /invitations/bulk", b.clock.Now().Add(time.Hour))
				b.shut("POST /invitations", b.clock.Now().Add(time.Hour))
			}
		}
	})
	_, err := b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, 5, b.clerk.Requests()[clerkinvitetest.CallCreateBulk], "the next request knows")
	require.Zero(t, b.clerk.Requests()[clerkinvitetest.CallCreate])
}

// shut closes a gate, whatever it was, as another process does.
func (b *bundle) shut(name string, until time.Time) {
	var known time.Time
	for !known.Equal(until) {
		known, _ = b.store.SwapTime(context.Background(), name, known, until)
	}
}

// An instance fault 400 at the look-up is asked 199 times.
func TestFindSplits(t *testing.T) {
	t.Parallel()
	b := mem(t, options{})
	for i := range 100 {
		_, err := b.Reserve(t.Context(), params("acme", fmt.Sprintf("p%d@example.com", i)))
		require.NoError(t, err)
	}
	b.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallFindUsers, Times: -1, Status: 400, Code: "api_version_invalid"})
	_, err := b.Deliver(t.Context(), nil)
	require.Error(t, err)
	require.LessOrEqual(t, b.clerk.Requests()[clerkinvitetest.CallFindUsers], 20)
}

// Rows with a template that Clerk does not know stop every pass.
func TestPoisonedTemplate(t *testing.T) {
	t.Parallel()
	b := mem(t, options{})
	for i := range 80 {
		p := params("acme", fmt.Sprintf("bad%d@example.com", i))
		p.Template = "no_such_template"
		_, err := b.Reserve(t.Context(), p)
		require.NoError(t, err)
		b.clock.Advance(time.Millisecond)
	}
	_, err := b.Reserve(t.Context(), params("globex", "good@example.com"))
	require.NoError(t, err)
	for range 30 { // half an hour of a cron job that runs every minute
		_, _ = b.Deliver(t.Context(), nil)
		b.clock.Advance(time.Minute)
	}
	require.Equal(t, 1, b.clerk.EmailsTo("good@example.com"))
}

// Tenant X's overdue row keeps tenant Y's from being resolved.
func TestOverdueRowBlocksOtherTenants(t *testing.T) {
	t.Parallel()
	each(t, options{}, func(t *testing.T, b *bundle) {
		u := b.clerk.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{{Address: "ada@example.com"}}})
		b.clock.Advance(time.Hour)
		b.mustInvite(t, "ada@example.com")
		b.clock.Advance(31 * 24 * time.Hour)
		_, err := b.Invite(t.Context(), params("globex", "ada@example.com"))
		require.NoError(t, err)
		_, err = b.clerk.Accept("ada@example.com")
		require.NoError(t, err)
		b.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallList, Times: -1, Status: 429, Code: "too_many_requests", RetryAfter: time.Hour})
		changed, err := b.ResolveUser(t.Context(), u.ID)
		require.Len(t, changed, 1, "globex: %v", err)
	})
}

// Promise 6: the store's error is not in what Invite returns.
func TestStoreErrorSwallowed(t *testing.T) {
	t.Parallel()
	down := errors.New("the database is down")
	b, store := memFaulty(t)
	store.fail(down, false)
	b.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallFindUsers, Status: 500, Code: "internal_clerk_error"})
	_, err := b.invite(t, "ada@example.com")
	require.ErrorIs(t, err, down)
}

// Deliver goes on claiming with the database down at settling, and what it returns is nil.
func TestStoreErrorSwallowedByDeliver(t *testing.T) {
	t.Parallel()
	down := errors.New("the database is down")
	b, store := memFaulty(t)
	_, err := b.Reserve(t.Context(), params("acme", "ada@example.com"))
	require.NoError(t, err)
	store.fail(down, false)
	b.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallFindUsers, Status: 500, Code: "internal_clerk_error"})
	_, err = b.Deliver(t.Context(), nil)
	require.ErrorIs(t, err, down)
}

// Promise 2: signed up meanwhile, and Clerk's list of users lags: the verified user gets an email.
// Clerk does not show a user of this moment yet, and the process stands still between that answer and what it concludes.
func TestLagAndAReconciliationThatStandsStill(t *testing.T) {
	t.Parallel()
	clerk := clerkinvitetest.NewClerk()
	b := newBundle(t, options{}, clerk, clerk, clerkinvitetest.NewMemoryStore())
	b.mustInvite(t, "bob@example.com")
	w, err := clerk.Accept("bob@example.com")
	require.NoError(t, err)
	b.event(t, w)
	b.clock.Advance(time.Hour)
	clerk.SetBehavior(clerkinvitetest.Behavior{Lag: true})
	b.mustInvite(t, "ada@example.com")
	clerk.Settle()
	w, err = clerk.Accept("ada@example.com")
	require.NoError(t, err)
	e, err := b.verifier.Verify(w.Payload, w.Sign(clerkinvitetest.WebhookSecret))
	require.NoError(t, err)
	_, err = b.Resolve(t.Context(), *e.User)
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusActive, b.get(t, "ada@example.com").Status)

	clerk.OnCall(func(_ context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
		if call == clerkinvitetest.CallFindUsers && when == clerkinvitetest.After {
			b.clock.Advance(2 * time.Hour)
		}
	})
	_, err = b.Reconcile(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusActive, b.get(t, "ada@example.com").Status)
}

func TestLagInvitesVerifiedUser(t *testing.T) {
	t.Parallel()
	b := mem(t, options{})
	b.clerk.SetBehavior(clerkinvitetest.Behavior{Lag: true})
	var once sync.Once
	b.clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
		if c == clerkinvitetest.CallFindUsers && w == clerkinvitetest.After {
			once.Do(func() { b.clerk.SignUp("ada@example.com", true) })
		}
	})
	_, _ = b.invite(t, "ada@example.com")
	require.Zero(t, b.clerk.EmailsTo("ada@example.com"))
}

// Promise 5: an old event makes another row active than the user as read again says.
func TestOldEventDecides(t *testing.T) {
	t.Parallel()
	b := mem(t, options{})
	b.mustInvite(t, "second@example.com")
	b.mustInvite(t, "primary@example.com")
	u := b.clerk.AddUser(clerkinvitetest.UserSpec{Primary: 1, Emails: []clerkinvitetest.EmailSpec{
		{Address: "second@example.com", Verified: true}, {Address: "primary@example.com"}}})
	old := b.clerk.UserCreated(u.ID)
	b.clerk.VerifyEmail(u.ID, "primary@example.com")
	b.event(t, old) // delivered late: the user read again holds both
	require.Equal(t, clerkinvite.StatusActive, b.get(t, "primary@example.com").Status)
}

// A fault of the instance that names the address.
func TestNamedFaults(t *testing.T) {
	t.Parallel()
	for _, f := range []clerkinvitetest.Fault{
		{Status: 429, Code: "too_many_requests"}, {Status: 403, Code: "user_quota_exceeded"},
		{Status: 400, Code: "dev_monthly_email_limit_exceeded"}, {Status: 401, Code: "clerk_key_invalid"}, {Status: 409, Code: "resource_locked"},
	} {
		t.Run(f.Code, func(t *testing.T) {
			b := mem(t, options{})
			f.Meta = map[string]any{"email_addresses": []string{"ada@example.com"}}
			b.failCreates(f)
			_, err := b.invite(t, "ada@example.com")
			require.Error(t, err)
			require.Equal(t, clerkinvite.StatusReserved, b.get(t, "ada@example.com").Status)
		})
	}
}

// Metadata that json.Marshal changes silently.
func TestTypedMetadata(t *testing.T) {
	t.Parallel()
	for i, v := range []any{map[string]string{"k": "\xff"}, []string{"\xff"}, struct{ S string }{"\xff"}} {
		b := mem(t, options{})
		p := params("acme", "ada@example.com")
		p.PublicMetadata = map[string]any{"x": v}
		_, err := b.Invite(t.Context(), p)
		if err == nil {
			t.Errorf("%d: invalid UTF-8 went out as %s", i, b.clerk.Invitations("ada@example.com")[0].PublicMetadata)
		}
	}
}

// A process with a wrong clock closes an endpoint for years.
func TestGateFromWrongClock(t *testing.T) {
	t.Parallel()
	b := mem(t, options{})
	wrong := newBundle(t, options{}, b.clerk, b.api, b.store)
	b.clerk.SetNow(b.clock.Now)
	wrong.clock.Advance(10 * 365 * 24 * time.Hour)
	b.failCreates(clerkinvitetest.Fault{Status: 429, RetryAfter: time.Minute})
	_, err := wrong.invite(t, "one@example.com")
	require.Error(t, err)
	_, err = b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	b.clock.Advance(48 * time.Hour)
	_, err = b.invite(t, "two@example.com")
	require.NoError(t, err)
}

// Invite waits for somebody's transaction, which rolls back: the lease is used up before it began.
func TestLeaseSpentInInsert(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t).Pool(t)
	store := clerkinvite.NewPgxStore(pool, nil)
	require.NoError(t, store.Migrate(t.Context()))
	clerk := clerkinvitetest.NewClerk()
	svc, err := clerkinvite.New(clerkinvite.Config{API: clerk, Store: store, Lease: 2 * time.Second})
	require.NoError(t, err)
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = svc.InTx(store.WithTx(tx)).Reserve(t.Context(), params("acme", "ada@example.com"))
	require.NoError(t, err)
	time.AfterFunc(1800*time.Millisecond, func() { _ = tx.Rollback(context.Background()) })
	_, err = svc.Invite(t.Context(), params("acme", "ada@example.com"))
	require.NoError(t, err, "nothing was wrong but a slow transaction of somebody else's")
}

// Revoked between the two lists of a look.
func TestRevokedBetweenLists(t *testing.T) {
	t.Parallel()
	b := mem(t, options{})
	b.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
	_, err := b.invite(t, "ada@example.com")
	require.Error(t, err)
	b.clock.Advance(2 * time.Minute)
	n := 0
	b.clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
		if c == clerkinvitetest.CallList && w == clerkinvitetest.Before {
			if n++; n == 2 {
				b.clerk.RevokeInDashboard(b.clerk.OpenInvitations("ada@example.com")[0].ID)
			}
		}
	})
	_, err = b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusRevoked, b.get(t, "ada@example.com").Status)
}

// Ctx ends right after the claim: rows nobody was asked about are not given back.
func TestCanceledAfterClaim(t *testing.T) {
	t.Parallel()
	b := mem(t, options{})
	_, err := b.Reserve(t.Context(), params("acme", "ada@example.com"))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	store := &hookStore{Store: b.store, after: func(cs []clerkinvite.Change) {
		if cs[0].New.ClaimedUntil != nil {
			cancel()
		}
	}}
	c := newBundle(t, options{}, b.clerk, b.api, store)
	_, err = c.Deliver(ctx, nil)
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, b.clerk.RequestCount())
	m := b.get(t, "ada@example.com")
	require.Zero(t, m.Attempts, "nothing was asked or sent: released, as if the claim had not been made")
}

type hookStore struct {
	clerkinvite.Store
	before, after func([]clerkinvite.Change)
}

func (s *hookStore) Update(ctx context.Context, cs []clerkinvite.Change) ([]clerkinvite.Result, error) {
	if s.before != nil {
		s.before(cs)
	}
	r, err := s.Store.Update(ctx, cs)
	if s.after != nil {
		s.after(cs)
	}
	return r, err
}

// A claim by a process whose clock is years ahead holds the row for years.
func TestClaimFromWrongClock(t *testing.T) {
	t.Parallel()
	b := mem(t, options{})
	wrong := newBundle(t, options{}, b.clerk, b.api, b.store)
	b.clerk.SetNow(b.clock.Now)
	wrong.clock.Advance(10 * 365 * 24 * time.Hour)
	b.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, Kind: clerkinvitetest.Reset})
	_, err := wrong.invite(t, "ada@example.com")
	require.Error(t, err)
	b.clock.Advance(48 * time.Hour)
	_, _ = b.Deliver(t.Context(), nil)
	_, err = b.invite(t, "ada@example.com")
	require.NoError(t, err)
}

// The attempt fails at the look-up, while the webhook has made the row active: Invite fails.
func TestFaultAlthoughActive(t *testing.T) {
	t.Parallel()
	b := mem(t, options{})
	var once atomic.Bool
	b.clerk.OnCall(func(ctx context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
		if c == clerkinvitetest.CallFindUsers && w == clerkinvitetest.Before && once.CompareAndSwap(false, true) {
			ev := b.clerk.SignUp("ada@example.com", true)
			e, _ := clerkinvite.ParseEvent(ev.Payload)
			if _, err := b.HandleEvent(context.WithoutCancel(ctx), e); err != nil {
				t.Error(err)
			}
			b.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallFindUsers, Kind: clerkinvitetest.JSON500})
		}
	})
	m, err := b.invite(t, "ada@example.com")
	require.Equal(t, clerkinvite.StatusActive, b.get(t, "ada@example.com").Status)
	require.NoError(t, err, "%v", m)
}

// A gate closed in the store for the look-up: no request is made, and yet it counts as an attempt.
func TestClosedLookUpIsNoAttempt(t *testing.T) {
	t.Parallel()
	b := mem(t, options{})
	b.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallFindUsers, Status: 429, RetryAfter: time.Minute})
	_, err := b.invite(t, "first@example.com")
	require.Error(t, err)
	_, err = b.invite(t, "ada@example.com") // no request at all
	require.Error(t, err)
	require.Equal(t, 1, b.clerk.RequestCount())
	require.Zero(t, b.get(t, "ada@example.com").Attempts)
	b.clock.Advance(2 * time.Minute)
	p := params("acme", "ada@example.com")
	p.ExpiresInDays = 3
	_, err = b.Invite(t.Context(), p)
	require.NoError(t, err, "Clerk has never heard of her, so the new parameters count")
}

// With the database down at releasing, Deliver blames the lease.
func TestReleaseErrorSwallowed(t *testing.T) {
	t.Parallel()
	down := errors.New("the database is down")
	b, store := memFaulty(t)
	_, err := b.Reserve(t.Context(), params("acme", "ada@example.com"))
	require.NoError(t, err)
	store.fail(down, false)
	b.clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
		if c == clerkinvitetest.CallFindUsers && w == clerkinvitetest.After {
			b.clock.Advance(40 * time.Second)
		}
	})
	_, err = b.Deliver(t.Context(), nil)
	require.ErrorIs(t, err, down)
}

// Banned after the lost create: the row fails, the open invitation stays.
func TestRefusedLeavesInvitationOpen(t *testing.T) {
	t.Parallel()
	b := mem(t, options{})
	b.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
	_, err := b.invite(t, "eve@example.com")
	require.Error(t, err)
	b.clerk.AddUser(clerkinvitetest.UserSpec{Banned: true, Emails: []clerkinvitetest.EmailSpec{{Address: "eve@example.com", Verified: true}}})
	b.clock.Advance(2 * time.Minute)
	_, err = b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusFailed, b.get(t, "eve@example.com").Status)
	require.Empty(t, b.clerk.OpenInvitations("eve@example.com"))
}

// Linking an address of a user whose primary address is pending in the same tenant.
func TestPrimaryPendingWhenSecondIsInvited(t *testing.T) {
	t.Parallel()
	b := mem(t, options{})
	b.mustInvite(t, "primary@example.com")
	b.clerk.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{
		{Address: "primary@example.com", Verified: true}, {Address: "second@example.com", Verified: true}}})
	// the webhook is late
	_, _ = b.invite(t, "second@example.com")
	require.Equal(t, clerkinvite.StatusActive, b.get(t, "primary@example.com").Status)
}

// The settling time is spent on sweeping neighbours: overtaken rows of the batch are not settled.
func TestSweepsEatTheSettlingTime(t *testing.T) {
	t.Parallel()
	b := mem(t, options{configure: func(c *clerkinvite.Config) { c.Lease = time.Second }})
	for _, e := range []string{"a@example.com", "b@example.com", "c@example.com"} {
		b.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
		_, err := b.invite(t, e)
		require.Error(t, err)
		b.clerk.AddVerifiedUser(e)
	}
	b.clock.Advance(2 * time.Minute)
	b.clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
		if c == clerkinvitetest.CallList && w == clerkinvitetest.Before {
			time.Sleep(400 * time.Millisecond) // three of them are longer than the second that one has
		}
	})
	_, err := b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	b.clerk.OnCall(nil)
	for _, e := range []string{"a@example.com", "b@example.com", "c@example.com"} {
		require.Equal(t, clerkinvite.StatusActive, b.get(t, e).Status)
		require.Empty(t, b.clerk.OpenInvitations(e), e)
	}
}

// An answer without times (clerkapi's unix() gives the zero time for what it cannot read).
type timeless struct{ clerkinvite.ClerkAPI }

func (a timeless) CreateInvitation(ctx context.Context, r clerkinvite.InvitationRequest) (*clerkinvite.Invitation, error) {
	inv, err := a.ClerkAPI.CreateInvitation(ctx, r)
	if inv != nil {
		inv.CreatedAt, inv.ExpiresAt = time.Time{}, nil
	}
	return inv, err
}

func TestAnswerWithoutTimes(t *testing.T) {
	t.Parallel()
	b := mem(t, options{})
	b = newBundle(t, options{}, b.clerk, timeless{b.clerk}, b.store)
	b.mustInvite(t, "ada@example.com")
	_, _ = b.invite(t, "ada@example.com")
	require.Equal(t, 1, b.clerk.EmailsTo("ada@example.com"))
}

// Found by TestFuzzInterleavings. The second round of Invite inserts the same id, which "counts as written":
// the expired row is taken for a new, claimed one.
func TestSecondRoundReinsertsItsID(t *testing.T) {
	t.Parallel()
	each(t, options{}, func(t *testing.T, b *bundle) {
		creates := 0
		b.clerk.OnCall(func(ctx context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
			if c != clerkinvitetest.CallCreate {
				return
			}
			if w == clerkinvitetest.Before {
				if creates++; creates == 1 { // slow: the lease ends, and the background invites her
					b.clock.Advance(2 * time.Minute)
					if _, err := b.Deliver(context.WithoutCancel(ctx), nil); err != nil {
						t.Error(err)
					}
					b.clock.Advance(31 * 24 * time.Hour)
					b.clerk.CreateForeign("ada@example.com", nil) // so that Clerk refuses the late create
				}
			}
		})
		m, err := b.invite(t, "ada@example.com")
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusPending, m.Status)
	})
}

// A key that differs from the library's in its letters' case only: the host may not
// have it, and elsewhere it does not hide the library's.
func TestMetadataKeyInAnotherCase(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	b := mem(t, options{})
	_, err := b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: email, PublicMetadata: map[string]any{"ClerkInvite": "v2"}})
	var invalid *clerkinvite.InvalidParamsError
	require.ErrorAs(t, err, &invalid)

	clerk := clerkinvitetest.NewClerk()
	b = newBundle(t, options{}, clerk, foreignKey{clerk}, clerkinvitetest.NewMemoryStore())
	clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
	_, err = b.invite(t, email)
	require.Error(t, err)
	b.recover(t, recoveries()[0], email)
	b.requireInvited(t, email, 1)
}

// foreignKey is a Clerk whose dashboard has added such a key to every invitation.
type foreignKey struct{ clerkinvite.ClerkAPI }

func (a foreignKey) ListInvitations(ctx context.Context, q clerkinvite.InvitationQuery) ([]clerkinvite.Invitation, error) {
	list, err := a.ClerkAPI.ListInvitations(ctx, q)
	for i := range list {
		meta := string(list[i].PublicMetadata)
		list[i].PublicMetadata = []byte(meta[:len(meta)-1] + `,"ClerkInvite":{"id":"x","send":7},"clerKinvite":"v2"}`)
	}
	return list, err
}

// Two addresses that Clerk refuses in one look-up: they end failed, and nobody else does.
func TestTwoRefusedAddressesInOneLookUp(t *testing.T) {
	t.Parallel()
	clerk := clerkinvitetest.NewClerk()
	b := newBundle(t, options{}, clerk, refusingAPI{clerk}, clerkinvitetest.NewMemoryStore())
	for i := range 10 {
		_, err := b.Reserve(t.Context(), params("acme", fmt.Sprintf("p%d@example.com", i)))
		require.NoError(t, err)
	}
	report, err := b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, &clerkinvite.DeliverReport{Claimed: 10, Invited: 8, Refused: 2}, report)
}

type refusingAPI struct{ clerkinvite.ClerkAPI }

func (a refusingAPI) FindUsers(ctx context.Context, q clerkinvite.UserQuery) ([]clerkinvite.User, error) {
	if slices.Contains(q.Emails, "p0@example.com") || slices.Contains(q.Emails, "p9@example.com") {
		return nil, &clerkinvite.APIError{StatusCode: 422, Code: "form_param_format_invalid", Meta: map[string]any{"param_name": "email_address"}}
	}
	return a.ClerkAPI.FindUsers(ctx, q)
}

// A gate that a process with a wrong clock has closed for years is not believed.
func TestGateOfAWrongClock(t *testing.T) {
	t.Parallel()
	b := mem(t, options{})
	b.shut("POST /invitations", b.clock.Now().AddDate(10, 0, 0))
	_, err := b.Reserve(t.Context(), params("acme", "ada@example.com"))
	require.NoError(t, err)
	report, err := b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, 1, report.Invited)
}

// Resending an invitation that the host had made before it had the library, so without its mark: the row
// named it, so the older link dies with it. Another application's stays.
func TestResendOfAnImportedMember(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	each(t, options{}, func(t *testing.T, b *bundle) {
		older, another := b.clerk.CreateForeign(email, nil), b.clerk.CreateForeign(email, map[string]any{"tenant": "theirs"})
		at := b.clock.Now()
		results, err := b.store.Insert(t.Context(), []*clerkinvite.Member{{
			ID: "01a21382-a370-7acd-84c9-72ad5abb3517", TenantID: "acme", Email: email, Status: clerkinvite.StatusPending,
			InvitationID: older.ID, ClerkUserID: clerkinvite.PendingID(older.ID), Send: 1, Sent: 1, Version: 1,
			ReservedAt: at, InvitedAt: &at, ExpiresAt: older.ExpiresAt, SettledAt: &at, UpdatedAt: at,
		}})
		require.NoError(t, err)
		require.NoError(t, results[0].Err)
		theirs := *results[0].Member
		theirs.ID, theirs.TenantID = "01a21382-a370-7acd-84c9-72ad5abb3518", "globex"
		results, err = b.store.Insert(t.Context(), []*clerkinvite.Member{&theirs})
		require.NoError(t, err)
		require.NoError(t, results[0].Err)
		open := func(want ...string) {
			t.Helper()
			var open []string
			for _, inv := range b.clerk.OpenInvitations(email) {
				open = append(open, inv.ID)
			}
			require.ElementsMatch(t, want, open)
		}
		b.clock.Advance(time.Hour)
		m, err := b.Resend(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: email})
		require.NoError(t, err)
		open(older.ID, another.ID, m.InvitationID) // globex' row names it too
		n, err := b.Resend(t.Context(), clerkinvite.Ref{TenantID: "globex", Email: email})
		require.NoError(t, err)
		open(another.ID, m.InvitationID, n.InvitationID)
	})
}

// The same of Purge: a row that is over names an invitation without a mark that is still open, as of an old
// table whose times were wrong. Nobody would know of it once the row is erased.
func TestPurgeOfAnImportedMember(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	each(t, options{}, func(t *testing.T, b *bundle) {
		older, another := b.clerk.CreateForeign(email, nil), b.clerk.CreateForeign(email, map[string]any{"tenant": "theirs"})
		at := b.clock.Now()
		results, err := b.store.Insert(t.Context(), []*clerkinvite.Member{{
			ID: "01a21382-a370-7acd-84c9-72ad5abb3517", TenantID: "acme", Email: email, Status: clerkinvite.StatusExpired,
			InvitationID: older.ID, Send: 1, Sent: 1, Version: 1, ReservedAt: at, InvitedAt: &at, ExpiresAt: &at, SettledAt: &at, UpdatedAt: at,
		}})
		require.NoError(t, err)
		require.NoError(t, results[0].Err)
		require.NoError(t, b.Purge(t.Context(), results[0].Member.Ref()))
		open := b.clerk.OpenInvitations(email)
		require.Len(t, open, 1)
		require.Equal(t, another.ID, open[0].ID)
	})
}
