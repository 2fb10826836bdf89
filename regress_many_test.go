package clerkinvite_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// Faults of delivery in the background, of InviteMany, Reconcile and Run. Each test is named
// after what holds, and its comment tells what went wrong once.

// singles counts the requests for one invitation, by address.
type singles struct {
	clerkinvite.ClerkAPI
	mu sync.Mutex
	of map[string]int
}

func (s *singles) CreateInvitation(ctx context.Context, r clerkinvite.InvitationRequest) (*clerkinvite.Invitation, error) {
	s.mu.Lock()
	s.of[r.Email]++
	s.mu.Unlock()
	return s.ClerkAPI.CreateInvitation(ctx, r)
}

// Rows with parameters that Clerk does not take were asked for each hour, for ever, and used up
// the single requests of all tenants.
func TestRowsWithRefusedParametersEnd(t *testing.T) {
	t.Parallel()
	b := mem(t, options{})
	api := &singles{ClerkAPI: b.api, of: make(map[string]int)}
	b = newBundle(t, options{}, b.clerk, api, b.store)
	limits := clerkinvitetest.DocumentedLimits()
	limits.Create.Requests = 60
	b.clerk.SetLimits(limits)

	good := people(10, "good")
	all := append([]clerkinvite.InviteParams{}, good...)
	reasons := make(map[string]string)
	for i := range 4 {
		template := params("acme", fmt.Sprintf("template%d@example.com", i))
		template.Template = "no_such_template"
		redirect := params("acme", fmt.Sprintf("redirect%d@example.com", i))
		redirect.RedirectURL = "https://elsewhere.example.com/"
		metadata := params("acme", fmt.Sprintf("metadata%d@example.com", i))
		metadata.PublicMetadata = map[string]any{"plan": "gold"}
		all = append(all, template, redirect, metadata)
		reasons[template.Email] = "form_param_value_invalid"
		for email, name := range map[string]string{redirect.Email: "redirect_url", metadata.Email: "public_metadata"} {
			reasons[email] = "bad_" + name
			b.failCreates(clerkinvitetest.Fault{Email: email, Times: -1, Status: 422, Code: reasons[email], Meta: map[string]any{"param_name": name}})
		}
	}
	_, err := b.ReserveMany(t.Context(), all)
	require.NoError(t, err)

	for pass := range 36 { // three hours of a cron job
		_, err := b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		if pass%3 == 0 { // somebody at a screen
			p := params("globex", fmt.Sprintf("new%d@example.com", pass))
			p.PublicMetadata = map[string]any{"plan": "pro"}
			m, err := b.Invite(t.Context(), p)
			require.NoError(t, err, "pass %d: %v", pass, b.clerk.Requests())
			require.Equal(t, clerkinvite.StatusPending, m.Status)
		}
		b.clock.Advance(5 * time.Minute)
	}
	for email, reason := range reasons {
		m := b.get(t, email)
		require.Equal(t, clerkinvite.StatusFailed, m.Status, email)
		require.Equal(t, reason, m.Reason)
		require.Equal(t, 3, api.of[email], "the third attempt is the last")
		require.Zero(t, b.clerk.EmailsTo(email))
	}
	b.requireEachInvitedOnce(t, good)
}

// neverActive is a hook that does not let members with such an address become active.
func neverActive(prefix string) func(context.Context, pgx.Tx, []clerkinvite.Change) error {
	return func(_ context.Context, _ pgx.Tx, changes []clerkinvite.Change) error {
		for _, c := range changes {
			if c.New != nil && c.New.Status == clerkinvite.StatusActive && strings.HasPrefix(c.New.Email, prefix) {
				return errHook
			}
		}
		return nil
	}
}

// A member whose hook failed ended every reconciliation at the same place: nobody behind it
// was looked at, in no tenant, and no invitation.
func TestReconcileGoesOnPastAFailingHook(t *testing.T) {
	t.Parallel()
	store, h, _ := mirrorStore(t)
	clerk := clerkinvitetest.NewClerk()
	b := newBundle(t, options{}, clerk, clerk, store)
	ps := append([]clerkinvite.InviteParams{params("a", "bad@example.com")}, people(120, "p")...)
	ps = append(ps, params("z", "joined@example.com"), params("z", "withdrawn@example.com"))
	results, err := b.InviteMany(t.Context(), ps, nil)
	require.NoError(t, err)
	for _, email := range []string{"bad@example.com", "joined@example.com"} {
		_, err := clerk.Accept(email)
		require.NoError(t, err)
	}
	clerk.RevokeInDashboard(results[len(results)-1].Member.InvitationID)

	h.set(neverActive("bad"))
	report, err := b.Reconcile(t.Context(), nil)
	require.Equal(t, errHook, err, "as it is, at the end")
	require.Equal(t, &clerkinvite.ReconcileReport{Members: 123, Invitations: report.Invitations, Activated: 1, Revoked: 1}, report)
	for ref, want := range map[clerkinvite.Ref]clerkinvite.Status{
		{TenantID: "a", Email: "bad@example.com"}:       clerkinvite.StatusPending,
		{TenantID: "z", Email: "joined@example.com"}:    clerkinvite.StatusActive,
		{TenantID: "z", Email: "withdrawn@example.com"}: clerkinvite.StatusRevoked,
	} {
		m, err := b.Get(t.Context(), ref)
		require.NoError(t, err)
		require.Equal(t, want, m.Status, ref.TenantID)
	}

	h.set(nil)
	report, err = b.Reconcile(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, 1, report.Activated)
}

// As long as one such row came in with each pass, nobody else was ever invited.
func TestAFailingHookOfAUserWithTwoAddressesHoldsUpNobody(t *testing.T) {
	t.Parallel()
	store, h, _ := mirrorStore(t)
	clerk := clerkinvitetest.NewClerk()
	b := newBundle(t, options{}, clerk, clerk, store)
	h.set(neverActive("bad"))
	bad := func(i int) clerkinvite.InviteParams {
		email := fmt.Sprintf("bad%d@example.com", i)
		clerk.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{{Address: email, Verified: true}, {Address: "two" + email, Verified: true}}})
		return params("acme", email)
	}
	ps := people(50, "p")
	results, err := b.InviteMany(t.Context(), append(ps, bad(0)), nil)
	require.NoError(t, err)
	require.ErrorIs(t, results[50].Err, errHook)
	b.requireEachInvitedOnce(t, ps)

	for i := range 3 {
		b.clock.Advance(15 * time.Second)
		more := people(3, fmt.Sprintf("round%d-", i))
		_, err := b.ReserveMany(t.Context(), append([]clerkinvite.InviteParams{bad(i + 1)}, more...))
		require.NoError(t, err)
		report, err := b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, &clerkinvite.DeliverReport{Claimed: 4, Invited: 3, Postponed: 1}, report)
		b.requireEachInvitedOnce(t, more)
	}
}

// An invitation left over that could not be revoked kept Reconcile from all that it does after.
func TestReconcileGoesOnPastALeftOverItCannotRevoke(t *testing.T) {
	t.Parallel()
	b := mem(t, options{})
	withdrawn := b.mustInvite(t, "withdrawn@example.com")
	b.mustInvite(t, "elsewhere@example.com")
	_, err := b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "expires@example.com", ExpiresInDays: 1})
	require.NoError(t, err)
	b.clock.Advance(48 * time.Hour)
	b.clerk.RevokeInDashboard(withdrawn.InvitationID)
	_, err = b.clerk.AcceptAs("elsewhere@example.com", "private@example.com")
	require.NoError(t, err)
	for _, email := range []string{"left1@example.com", "left2@example.com", "left3@example.com"} {
		b.clerk.CreateForeign(email, map[string]any{"clerkinvite": map[string]any{"id": withdrawn.ID, "send": 1}})
	}
	b.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallRevoke, Email: "left2@example.com", Kind: clerkinvitetest.JSON500, Times: -1})

	report, err := b.Reconcile(t.Context(), nil)
	var clerkErr *clerkinvite.ClerkInvitationError
	require.ErrorAs(t, err, &clerkErr)
	require.Equal(t, "revoke invitation", clerkErr.Op)
	require.Equal(t, clerkinvite.StatusRevoked, b.get(t, "withdrawn@example.com").Status)
	require.Equal(t, clerkinvite.StatusExpired, b.get(t, "expires@example.com").Status)
	require.Len(t, report.Elsewhere, 1)
	require.Equal(t, &clerkinvite.ReconcileReport{
		Members: 3, Invitations: report.Invitations, Expired: 1, Revoked: 1, LeftOver: 2, Elsewhere: report.Elsewhere,
	}, report)
	require.Len(t, b.clerk.OpenInvitations("left2@example.com"), 1)

	b.clerk.ClearFaults()
	report, err = b.Reconcile(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, 1, report.LeftOver)
}

// With a Limit under ten a wrong key removed everybody, page by page; and with any, it made
// members active as users of the other instance.
func TestTheWrongKeyChangesNobodyPageByPage(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{0, 9, 10, 13} {
		t.Run(fmt.Sprint("limit ", limit), func(t *testing.T) {
			t.Parallel()
			b := mem(t, options{})
			for i := range 30 {
				if i == 0 {
					b.mustInvite(t, "dev@example.com")
				}
				b.clerk.AddVerifiedUser(fmt.Sprintf("u%d@example.com", i))
				b.mustInvite(t, fmt.Sprintf("u%d@example.com", i))
			}
			b.clock.Advance(time.Hour)
			before := b.dump(t)

			staging := clerkinvitetest.NewClerk()
			staging.SetNow(b.clock.Now)
			staging.AddUser(clerkinvitetest.UserSpec{ID: "user_staging", Emails: []clerkinvitetest.EmailSpec{{Address: "dev@example.com", Verified: true}}})
			wrong, err := clerkinvite.New(clerkinvite.Config{API: staging, Store: b.store, Now: b.clock.Now})
			require.NoError(t, err)
			members, last := b.pages(t, wrong, limit)
			require.Equal(t, before, b.dump(t))
			require.Equal(t, 31, members)
			var clerkErr *clerkinvite.ClerkInvitationError
			require.ErrorAs(t, last, &clerkErr)
			require.Equal(t, clerkinvite.Fault, clerkErr.Outcome)
			require.ErrorContains(t, clerkErr.Err, "another instance")

			// With the right one all is well.
			_, last = b.pages(t, b.Service, limit)
			require.NoError(t, last)
			require.Equal(t, before, b.dump(t))
		})
	}
}

// pages reconciles page by page to the end, and returns how many members it saw and the last
// page's error.
func (b *bundle) pages(t *testing.T, svc *clerkinvite.Service, limit int) (members int, last error) {
	t.Helper()
	for round, cursor := 0, ""; ; round++ {
		require.Less(t, round, 10)
		report, err := svc.Reconcile(t.Context(), &clerkinvite.ReconcileOptions{Limit: limit, Cursor: cursor})
		members += report.Members
		if cursor = report.Cursor; cursor == "" {
			return members, err
		}
	}
}

// When ten users were deleted and none was left, Reconcile took the key for a wrong one and
// never looked at invitations again.
func TestReconcileKnowsTheKeyByItsInvitations(t *testing.T) {
	t.Parallel()
	allGone := func() *bundle {
		b := mem(t, options{})
		for i := range 10 {
			u := b.clerk.AddVerifiedUser(fmt.Sprintf("u%d@example.com", i))
			b.mustInvite(t, fmt.Sprintf("u%d@example.com", i))
			b.clerk.DeleteUser(u.ID)
		}
		return b
	}
	b := allGone()
	m := b.mustInvite(t, "ada@example.com")
	b.clerk.RevokeInDashboard(m.InvitationID)
	b.clock.Advance(time.Hour)
	_, err := b.Reconcile(t.Context(), nil)
	require.Equal(t, clerkinvite.StatusRevoked, b.get(t, "ada@example.com").Status)
	require.NoError(t, err)
	for i := range 10 {
		require.Equal(t, clerkinvite.ReasonUserDeleted, b.get(t, fmt.Sprintf("u%d@example.com", i)).Reason)
	}

	// Without an invitation nothing speaks for the key.
	b = allGone()
	b.clock.Advance(time.Hour)
	before := b.dump(t)
	report, err := b.Reconcile(t.Context(), nil)
	var clerkErr *clerkinvite.ClerkInvitationError
	require.ErrorAs(t, err, &clerkErr)
	status, message := clerkinvite.HTTPError(err)
	require.Equal(t, 502, status)
	require.Equal(t, "invitation service unavailable", message)
	require.Equal(t, &clerkinvite.ReconcileReport{Members: 10}, report)
	require.Equal(t, before, b.dump(t))
}

// After a backup was restored, a member whose newer invitation was open was revoked for the
// older one, and its acceptance was lost.
func TestARestoredBackupRevokesNobody(t *testing.T) {
	t.Parallel()
	b := mem(t, options{})
	was := b.mustInvite(t, "ada@example.com")
	b.clock.Advance(time.Hour)
	now, err := b.Resend(t.Context(), was.Ref())
	require.NoError(t, err)
	restored := *was
	restored.URL = ""
	_, err = b.store.Update(t.Context(), []clerkinvite.Change{{Old: now, New: &restored}})
	require.NoError(t, err)
	require.Equal(t, 1, b.get(t, "ada@example.com").Send)

	report := b.reconcile(t)
	require.Equal(t, 1, report.Ahead)
	require.Zero(t, report.Revoked)
	require.Equal(t, clerkinvite.StatusPending, b.get(t, "ada@example.com").Status)
	require.Len(t, b.clerk.OpenInvitations("ada@example.com"), 1)
	_, err = b.clerk.Accept("ada@example.com")
	require.NoError(t, err)
	require.Equal(t, 1, b.reconcile(t).Activated)
	require.Equal(t, clerkinvite.StatusActive, b.get(t, "ada@example.com").Status)
}

// The turn of a process with a longer lease, or with a clock that is ahead, was taken for a
// rate limit, and interactive invites failed for as long.
func TestAnotherProcessTurnIsNoRateLimit(t *testing.T) {
	t.Parallel()
	for name, configure := range map[string]func(*clerkinvite.Config){
		"longer lease": func(c *clerkinvite.Config) { c.Lease = 10 * time.Minute },
		"clock ahead": func(c *clerkinvite.Config) {
			now := c.Now
			c.Now = func() time.Time { return now().Add(5 * time.Minute) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := mem(t, options{})
			cfg := clerkinvite.Config{API: b.api, Store: b.store, Now: b.clock.Now}
			configure(&cfg)
			other, err := clerkinvite.New(cfg)
			require.NoError(t, err)
			// Of its own metadata each takes a request alone.
			single := func(email string) clerkinvite.InviteParams {
				p := params("acme", email)
				p.PublicMetadata = map[string]any{"plan": "pro"}
				return p
			}
			_, err = other.Reserve(t.Context(), single("theirs@example.com"))
			require.NoError(t, err)
			inside, answer := make(chan struct{}), make(chan struct{})
			var once sync.Once
			b.clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
				if c == clerkinvitetest.CallCreate && w == clerkinvitetest.Before {
					once.Do(func() {
						close(inside)
						<-answer
					})
				}
			})
			var delivering sync.WaitGroup
			release := sync.OnceFunc(func() {
				close(answer)
				delivering.Wait()
			})
			defer release()
			delivering.Go(func() {
				if _, err := other.Deliver(t.Context(), nil); err != nil {
					t.Error(err)
				}
			})
			<-inside
			_, err = b.Reserve(t.Context(), single("ours@example.com"))
			require.NoError(t, err)
			report, err := b.Deliver(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, &clerkinvite.DeliverReport{Claimed: 1, Postponed: 1}, report)
			release()

			b.clock.Advance(time.Second)
			_, err = b.Invite(t.Context(), single("interactive@example.com"))
			require.NoError(t, err, "Clerk has refused nothing")
			b.clock.Advance(15 * time.Minute)
			report, err = b.Deliver(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, 1, report.Invited)
			require.Equal(t, 3, b.clerk.Emails())
		})
	}
}

// onDue is a store that calls before at each search for due members.
type onDue struct {
	clerkinvite.Store
	before func()
}

func (s onDue) Due(ctx context.Context, at time.Time, limit int) ([]*clerkinvite.Member, error) {
	s.before()
	return s.Store.Due(ctx, at, limit)
}

// An interval of some nanoseconds, the unit forgotten, panicked where nobody can recover; one
// of centuries, for never, panicked too or made Run spin.
func TestRunWithOddIntervals(t *testing.T) {
	t.Parallel()
	for _, o := range []clerkinvite.RunOptions{
		{ReconcileInterval: 10}, {ReconcileInterval: math.MaxInt64},
		{Interval: 1 << 62, ReconcileInterval: -1}, {Interval: math.MaxInt64, ReconcileInterval: -1},
	} {
		t.Run(fmt.Sprint(int64(o.Interval), " ", int64(o.ReconcileInterval)), func(t *testing.T) {
			t.Parallel()
			b := mem(t, options{})
			var passes atomic.Int64
			b = newBundle(t, options{}, b.clerk, b.api, onDue{b.store, func() { passes.Add(1) }})
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			require.ErrorIs(t, b.Run(ctx, &o), context.DeadlineExceeded)
			require.Positive(t, passes.Load())
			require.Less(t, passes.Load(), int64(10))
		})
	}
}

// When the clock was set back in the middle of a pass, the row was due and held at once, and
// the pass asked the store for it without a pause until the clock had caught up.
func TestAClockThatIsSetBackMakesNoHotLoop(t *testing.T) {
	t.Parallel()
	b := mem(t, options{})
	b.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, Kind: clerkinvitetest.Reset})
	_, err := b.invite(t, "ada@example.com")
	require.Error(t, err)
	b.clock.Advance(70 * time.Second) // the claim was for a minute
	finds := 0
	svc, err := clerkinvite.New(clerkinvite.Config{API: b.api, Now: b.clock.Now, Store: onDue{b.store, func() {
		if finds++; finds == 1 {
			b.clock.Advance(-30 * time.Second)
		}
	}}})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	report, err := svc.Deliver(ctx, nil)
	require.NoError(t, err)
	require.Equal(t, &clerkinvite.DeliverReport{}, report)
	require.Less(t, finds, 10)

	b.clock.Advance(30 * time.Second)
	_, err = svc.Deliver(t.Context(), nil)
	require.NoError(t, err)
	b.requireInvited(t, "ada@example.com", 1)
}

// An answer that was lost after the emails had gone out counted as a rate limit, because it
// said when to come back: no error, and nobody failed.
func TestALostAnswerWithRetryAfterIsAnError(t *testing.T) {
	t.Parallel()
	b := mem(t, options{})
	b.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreateBulk, Kind: clerkinvitetest.Empty503, When: clerkinvitetest.After, RetryAfter: 5 * time.Second})
	ps := people(3, "p")
	var last clerkinvite.ManyProgress
	results, err := b.InviteMany(t.Context(), ps, &clerkinvite.ManyOptions{Progress: func(p clerkinvite.ManyProgress) { last = p }})
	require.NoError(t, err)
	for _, r := range results {
		var clerkErr *clerkinvite.ClerkInvitationError
		require.ErrorAs(t, r.Err, &clerkErr)
		require.Equal(t, clerkinvite.Uncertain, clerkErr.Outcome)
	}
	require.Equal(t, clerkinvite.ManyProgress{Total: 3, Failed: 3}, last)
	b.clock.Advance(time.Hour)
	_, err = b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	b.requireEachInvitedOnce(t, ps)
}

// A look-up that failed counted as an attempt of everybody's, and from then on each was asked
// for alone: 301 requests where 11 do.
func TestAFailedLookUpLeavesTheTens(t *testing.T) {
	t.Parallel()
	b := mem(t, options{})
	ps := people(100, "p")
	_, err := b.ReserveMany(t.Context(), ps)
	require.NoError(t, err)
	for _, fault := range []clerkinvitetest.Fault{{Status: 401, Code: "clerk_key_invalid"}, {Kind: clerkinvitetest.Empty503, Times: 5}} {
		fault.Call = clerkinvitetest.CallFindUsers
		b.clerk.Fail(fault)
		_, err = b.Deliver(t.Context(), nil)
		var clerkErr *clerkinvite.ClerkInvitationError
		require.ErrorAs(t, err, &clerkErr)
		b.clerk.ClearFaults()
		b.clock.Advance(2 * time.Hour)
	}
	b.clerk.ResetCounts()
	report, err := b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, &clerkinvite.DeliverReport{Claimed: 100, Invited: 100}, report)
	require.Equal(t, map[clerkinvitetest.Call]int{clerkinvitetest.CallFindUsers: 1, clerkinvitetest.CallCreateBulk: 10}, b.clerk.Requests())
	b.requireEachInvitedOnce(t, ps)
}

// An active member with a user id that no request can carry, as of an import, ended every
// reconciliation.
func TestReconcileGoesOnPastAForeignUserID(t *testing.T) {
	t.Parallel()
	b := mem(t, options{})
	b.clerk.AddVerifiedUser("old@example.com")
	was := b.mustInvite(t, "old@example.com")
	imported := *was
	imported.ClerkUserID = "legacy|17"
	_, err := b.store.Update(t.Context(), []clerkinvite.Change{{Old: was, New: &imported}})
	require.NoError(t, err)
	gone := b.clerk.AddVerifiedUser("gone@example.com")
	b.mustInvite(t, "gone@example.com")
	b.clerk.DeleteUser(gone.ID)
	m := b.mustInvite(t, "ada@example.com")
	b.clerk.RevokeInDashboard(m.InvitationID)
	b.clock.Advance(time.Hour)

	report := b.reconcile(t)
	require.Equal(t, 3, report.Members)
	require.Equal(t, 1, report.Revoked)
	require.Equal(t, 1, report.Removed)
	old := b.get(t, "old@example.com")
	require.Equal(t, clerkinvite.StatusActive, old.Status)
	require.Equal(t, "legacy|17", old.ClerkUserID)
}

// Somebody who was purged before their turn came was reported as reserved, as if Run or
// Deliver would go on with them.
func TestInviteManyTellsWhoWasPurged(t *testing.T) {
	t.Parallel()
	b := mem(t, options{})
	var once sync.Once
	var last clerkinvite.ManyProgress
	results, err := b.InviteMany(t.Context(), people(3, "p"), &clerkinvite.ManyOptions{Progress: func(p clerkinvite.ManyProgress) {
		once.Do(func() { require.NoError(t, b.Purge(t.Context(), inAcme("p1@example.com"))) })
		last = p
	}})
	require.NoError(t, err)
	require.Nil(t, results[1].Member)
	require.ErrorIs(t, results[1].Err, clerkinvite.ErrConflict)
	for _, i := range []int{0, 2} {
		require.NoError(t, results[i].Err)
		require.Equal(t, clerkinvite.StatusPending, results[i].Member.Status)
	}
	require.Equal(t, clerkinvite.ManyProgress{Total: 3, Invited: 2, Failed: 1}, last)
	require.Zero(t, b.clerk.EmailsTo("p1@example.com"))
}

// To withdraw the invitation of somebody who has accepted it under another address is refused
// each time; Remove is the way out.
func TestRemoveAfterAcceptanceElsewhere(t *testing.T) {
	t.Parallel()
	b := mem(t, options{})
	m := b.mustInvite(t, "ada@example.com")
	_, err := b.clerk.AcceptAs("ada@example.com", "private@example.com")
	require.NoError(t, err)
	for range 2 {
		_, err = b.Revoke(t.Context(), m.Ref())
		var refused *clerkinvite.TransitionError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, clerkinvite.TransitionError{From: clerkinvite.StatusPending, To: clerkinvite.StatusRevoked}, *refused)
		require.Equal(t, clerkinvite.StatusPending, b.get(t, "ada@example.com").Status)
	}
	m, err = b.Remove(t.Context(), m.Ref())
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusRemoved, m.Status)
}

// Somebody whom Clerk had refused, but asked by another process, came back as a conflict.
func TestInviteManyTellsWhoWasRefusedElsewhere(t *testing.T) {
	t.Parallel()
	b := mem(t, options{})
	b.failCreates(clerkinvitetest.Fault{Times: -1, Status: 403, Code: "not_allowed_access"})
	other := b.others(t, 1)[0]
	var once sync.Once
	results, err := b.InviteMany(t.Context(), people(1, "p"), &clerkinvite.ManyOptions{Progress: func(clerkinvite.ManyProgress) {
		once.Do(func() {
			report, err := other.Deliver(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, 1, report.Refused)
		})
	}})
	require.NoError(t, err)
	var refused *clerkinvite.ClerkInvitationError
	require.ErrorAs(t, results[0].Err, &refused)
	require.Equal(t, clerkinvite.Refused, refused.Outcome)
	status, _ := clerkinvite.HTTPError(results[0].Err)
	require.Equal(t, 422, status)
	require.Equal(t, clerkinvite.StatusFailed, results[0].Member.Status)
	require.Equal(t, "not_allowed_access", results[0].Member.Reason)
}

// With an address that occurs twice the numbers never came to the total.
func TestProgressComesToTheTotal(t *testing.T) {
	t.Parallel()
	b := mem(t, options{})
	var last clerkinvite.ManyProgress
	_, err := b.InviteMany(t.Context(), append(people(3, "p"), people(3, "p")...), &clerkinvite.ManyOptions{Progress: func(p clerkinvite.ManyProgress) {
		require.LessOrEqual(t, p.Reserved+p.Invited+p.Linked+p.Failed, p.Total)
		last = p
	}})
	require.NoError(t, err)
	require.Equal(t, clerkinvite.ManyProgress{Total: 6, Invited: 3, Failed: 3}, last)
}

// A negative limit meant all to Deliver, and was an error elsewhere.
func TestANegativeLimitIsAnError(t *testing.T) {
	t.Parallel()
	b := mem(t, options{})
	_, err := b.ReserveMany(t.Context(), people(5, "p"))
	require.NoError(t, err)
	report, err := b.Deliver(t.Context(), &clerkinvite.DeliverOptions{Limit: -1})
	require.Equal(t, &clerkinvite.InvalidParamsError{Field: "Limit", Reason: "is negative"}, err)
	require.Equal(t, &clerkinvite.DeliverReport{}, report)
	_, err = b.Reconcile(t.Context(), &clerkinvite.ReconcileOptions{Limit: -1})
	require.Equal(t, &clerkinvite.InvalidParamsError{Field: "Limit", Reason: "is negative"}, err)
	_, err = b.List(t.Context(), clerkinvite.ListParams{TenantID: "acme", Limit: -1})
	var invalid *clerkinvite.InvalidParamsError
	require.ErrorAs(t, err, &invalid)
	require.Equal(t, "Limit", invalid.Field)
	require.Zero(t, b.clerk.RequestCount())
}
