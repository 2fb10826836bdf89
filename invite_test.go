package clerkinvite_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// TestMain stops the PostgreSQL server that the tests have started.
func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func TestPromise1_SecondInviteIsADuplicate(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		m := b.MustInvite(t, "  Ada@Example.COM ")
		require.Equal(t, clerkinvite.StatusPending, m.Status)
		require.Equal(t, "ada@example.com", m.Email)
		require.NotEmpty(t, m.URL, "the caller gets the link")
		require.Equal(t, b.Clock.Now(), m.InvitedAt.UTC())
		require.Equal(t, b.Clock.Now().AddDate(0, 0, 30), m.ExpiresAt.UTC())
		id, ok := clerkinvite.InvitationID(m.ClerkUserID)
		require.True(t, ok)
		require.Equal(t, m.InvitationID, id)
		stored := b.RequireInvited(t, "ada@example.com", 1)
		require.Empty(t, stored.URL, "the link is not stored")

		// Inviting again, in any spelling, makes no request to Clerk.
		b.Clerk.ResetCounts()
		for _, email := range []string{"ada@example.com", "ADA@EXAMPLE.COM", " ada@eXample.com\n"} {
			_, err := b.TryInvite(t, email)
			var dup *clerkinvite.DuplicateEmailError
			require.ErrorAs(t, err, &dup)
			_, message := clerkinvite.HTTPError(err)
			require.Equal(t, "ada@example.com is already invited to this tenant", message)
			require.Equal(t, `tenant "acme" already has this person as a member: member `+m.ID+" is pending", err.Error())
			require.Equal(t, m.ID, dup.Member.ID)
			require.Equal(t, clerkinvite.Ref{TenantID: "acme", Email: "ada@example.com"}, dup.Ref)
		}
		require.Zero(t, b.Clerk.RequestCount())

		// Accepted: the webhook replaces the pending ID with the real one.
		w, err := b.Clerk.Accept("ada@example.com")
		require.NoError(t, err)
		changed := b.Receive(t, w)
		require.Len(t, changed, 1)
		m = b.Member(t, "ada@example.com")
		require.Equal(t, clerkinvite.StatusActive, m.Status)
		require.Regexp(t, "^user_", m.ClerkUserID)
		require.Empty(t, b.Receive(t, w), "a replay changes nothing")
	})
}

func TestPromise2_ExistingUserIsLinked(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		u := b.Clerk.AddVerifiedUser("Grace@Example.com")
		m := b.MustInvite(t, "grace@example.com")
		require.Equal(t, clerkinvite.StatusActive, m.Status)
		require.Equal(t, u.ID, m.ClerkUserID)
		require.Zero(t, b.Clerk.Emails())
		require.Empty(t, b.Clerk.Invitations("grace@example.com"))

		_, err := b.TryInvite(t, "grace@example.com")
		var dup *clerkinvite.DuplicateEmailError
		require.ErrorAs(t, err, &dup)
		require.Equal(t, u.ID, dup.Member.ClerkUserID)

		// Another tenant has its own row.
		m, err = b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "globex", Email: "grace@example.com"})
		require.NoError(t, err)
		require.Equal(t, u.ID, m.ClerkUserID)
	})
}

func TestInviteCarriesItsParameters(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{Configure: func(c *clerkinvite.Config) { c.RedirectURL = "https://app.example.com/welcome" }}, func(t *testing.T, b *testkit.Rig) {
		m, err := b.Invite(t.Context(), clerkinvite.InviteParams{
			TenantID: "acme", Email: "ada@example.com", Role: "editor", InvitedBy: "user_boss", ExpiresInDays: 7,
			SkipEmail: true, PublicMetadata: map[string]any{"plan": "pro"}, Data: []byte(`{"seat": 4}`),
		})
		require.NoError(t, err)
		require.Equal(t, "editor", m.Role)
		require.Equal(t, "user_boss", m.InvitedBy)
		require.JSONEq(t, `{"seat":4}`, string(m.Data))
		require.Equal(t, b.Clock.Now().AddDate(0, 0, 7), m.ExpiresAt.UTC())
		require.Zero(t, b.Clerk.Emails(), "SkipEmail")
		require.Equal(t, m.URL, b.Member(t, "ada@example.com").URL, "stored for the host that mails it")
		inv := b.Clerk.Invitations("ada@example.com")[0]
		require.JSONEq(t, `{"plan":"pro","clerkinvite":{"id":"`+m.ID+`","send":1}}`, string(inv.PublicMetadata))

		want := clerkinvite.InviteParams{
			TenantID: "acme", Email: "ada@example.com", Role: "editor", InvitedBy: "user_boss", RedirectURL: "https://app.example.com/welcome", ExpiresInDays: 7,
			SkipEmail: true, PublicMetadata: map[string]any{"plan": json.RawMessage(`"pro"`)}, Data: m.Data,
		}
		require.Equal(t, want, m.InviteParams())
		_, err = b.Revoke(t.Context(), m.Ref())
		require.NoError(t, err)
		again, err := b.Invite(t.Context(), m.InviteParams())
		require.NoError(t, err)
		require.Equal(t, string(m.Params), string(again.Params))

		w, err := b.Clerk.Accept("ada@example.com")
		require.NoError(t, err)
		b.Receive(t, w)
		require.Empty(t, b.Member(t, "ada@example.com").URL, "cleared when the member leaves pending")
	})
}

func TestSecondAddressOfAMember(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		b.Clerk.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{
			{Address: "work@example.com", Verified: true}, {Address: "home@example.com", Verified: true},
		}})
		first := b.MustInvite(t, "home@example.com")
		_, err := b.TryInvite(t, "work@example.com")
		var dup *clerkinvite.DuplicateEmailError
		require.ErrorAs(t, err, &dup)
		require.Equal(t, first.ID, dup.Member.ID, "the existing member")
		require.Equal(t, "work@example.com", dup.Ref.Email)
		m := b.Member(t, "work@example.com")
		require.Equal(t, clerkinvite.StatusRemoved, m.Status)
		require.Equal(t, clerkinvite.ReasonSecondAddress, m.Reason)
		require.Zero(t, b.Clerk.Emails())
	})
}

func TestPromise2_BarredUserIsRefused(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		for reason, bar := range map[string]func(userID string){
			clerkinvite.ReasonUserBanned:        func(id string) { b.Clerk.BanUser(id) },
			clerkinvite.ReasonUserDeprovisioned: func(id string) { b.Clerk.DeprovisionUser(id) },
			clerkinvite.ReasonUserLocked:        func(id string) { b.Clerk.LockUser(id, 0) },
		} {
			email := reason + "@example.com"
			bar(b.Clerk.AddVerifiedUser(email).ID)
			_, err := b.TryInvite(t, email)
			var refused *clerkinvite.ClerkInvitationError
			require.ErrorAs(t, err, &refused)
			require.Equal(t, clerkinvite.OutcomeRefused, refused.Outcome)
			status, _ := clerkinvite.HTTPError(err)
			require.Equal(t, 422, status)
			m := b.Member(t, email)
			require.Equal(t, clerkinvite.StatusFailed, m.Status)
			require.Equal(t, reason, m.Reason)
		}
		require.Zero(t, b.Clerk.Emails())
	})
}

// Anybody can lock a user for a while, by typing wrong passwords. The member waits until then, and
// longer if the user is locked again.
func TestPromise2_LockedUserIsLinkedWhenTheLockEnds(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		const email = "ada@example.com"
		user := b.Clerk.AddVerifiedUser(email)
		b.Clerk.LockUser(user.ID, 10*time.Minute)
		_, err := b.TryInvite(t, email)
		var failed *clerkinvite.ClerkInvitationError
		require.ErrorAs(t, err, &failed)
		require.Equal(t, clerkinvite.OutcomeFault, failed.Outcome)
		require.Equal(t, clerkinvite.StatusReserved, failed.Member.Status)
		require.Equal(t, clerkinvite.ReasonUserLocked, failed.Member.Reason)
		require.Equal(t, 10*time.Minute, failed.Member.NextAttemptAt.Sub(b.Clock.Now()).Round(time.Minute))

		deliver := func(want clerkinvite.DeliverReport) {
			t.Helper()
			report, err := b.Deliver(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, want, *report)
		}
		deliver(clerkinvite.DeliverReport{})
		b.Clock.Advance(9 * time.Minute)
		b.Clerk.LockUser(user.ID, time.Hour)
		b.Clock.Advance(time.Minute)
		deliver(clerkinvite.DeliverReport{Claimed: 1, Postponed: 1})
		b.Clock.Advance(time.Hour)
		deliver(clerkinvite.DeliverReport{Claimed: 1, Linked: 1})
		require.Equal(t, user.ID, b.Member(t, email).ClerkUserID)
		require.Zero(t, b.Clerk.Emails())
	})
}

// A locked user who has accepted joins when the lock has ended, at sign-in or by Reconcile.
func TestPromise2_LockedUserResolvesWhenTheLockEnds(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		const email = "ada@example.com"
		b.MustInvite(t, email)
		user := b.Clerk.AddVerifiedUser(email)
		b.Clerk.LockUser(user.ID, time.Hour)
		check := func(want clerkinvite.Status) {
			t.Helper()
			_, err := b.ResolveUser(t.Context(), user.ID)
			require.NoError(t, err)
			require.Equal(t, want, b.Member(t, email).Status)
		}
		check(clerkinvite.StatusPending)
		report, err := b.Reconcile(t.Context(), nil)
		require.NoError(t, err)
		require.Zero(t, report.Activated)
		b.Clock.Advance(time.Hour)
		check(clerkinvite.StatusActive)
	})
}

func TestPromise2_UnverifiedHolderNeitherLinksNorBlocks(t *testing.T) {
	t.Parallel()
	testkit.EachBehavior(t, func(t *testing.T, b *testkit.Rig) {
		b.Clerk.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{{Address: "victim@example.com"}}})
		m, err := b.TryInvite(t, "victim@example.com")
		for range 5 { // if Clerk shows its own writes late, a later attempt succeeds
			if err == nil {
				break
			}
			b.Clerk.Settle()
			b.Clock.Advance(2 * time.Hour)
			m, err = b.TryInvite(t, "victim@example.com")
		}
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusPending, m.Status)
		require.Equal(t, 1, b.Clerk.EmailsTo("victim@example.com"))
	})
}

func TestAuthorize(t *testing.T) {
	t.Parallel()
	full := errors.New("no seat left")
	testkit.Each(t, testkit.Options{Configure: func(c *clerkinvite.Config) {
		c.Authorize = func(_ context.Context, p *clerkinvite.InviteParams) error {
			switch p.Email {
			case "full@example.com":
				return full
			case "bad@example.com":
				p.RedirectURL = "javascript:alert(1)"
			}
			p.Role = "viewer"
			return nil
		}
	}}, func(t *testing.T, b *testkit.Rig) {
		_, err := b.TryInvite(t, "Full@example.com")
		require.Equal(t, full, err, "unchanged")
		_, err = b.TryInvite(t, "bad@example.com")
		var invalid *clerkinvite.InvalidParamsError
		require.ErrorAs(t, err, &invalid)
		require.Zero(t, b.Clerk.RequestCount())
		_, err = b.Get(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "full@example.com"})
		require.ErrorIs(t, err, clerkinvite.ErrNotFound)
		require.Equal(t, "viewer", b.MustInvite(t, "ok@example.com").Role)
	})
}

// The row is committed or rolled back with the host's rows, and Clerk is not called.
func TestPromise7_ReserveInATransaction(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t).Pool(t)
	clock := testkit.NewClock()
	store := clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{Now: clock.Now})
	require.NoError(t, store.Migrate(t.Context()))
	clerk := clerkinvitetest.NewClerk()
	b := testkit.New(t, testkit.Options{Clock: clock}, clerk, clerk, store)
	_, err := pool.Exec(t.Context(), "CREATE TABLE seat (email text PRIMARY KEY)")
	require.NoError(t, err)
	reserve := func(email string, commit bool) error {
		tx, err := pool.Begin(t.Context())
		require.NoError(t, err)
		defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
		_, reserveErr := b.InTx(store.WithTx(tx)).Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: email})
		_, err = tx.Exec(t.Context(), "INSERT INTO seat VALUES ($1) ON CONFLICT DO NOTHING", email)
		require.NoError(t, err, "the transaction is usable, duplicate or not")
		if commit {
			require.NoError(t, tx.Commit(t.Context()))
		}
		return reserveErr
	}
	require.NoError(t, reserve("rolled@example.com", false))
	require.NoError(t, reserve("ada@example.com", true))
	var dup *clerkinvite.DuplicateEmailError
	require.ErrorAs(t, reserve("ada@example.com", true), &dup)
	require.Zero(t, clerk.RequestCount())

	report, err := b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, &clerkinvite.DeliverReport{Claimed: 1, Invited: 1}, report)
	b.RequireInvited(t, "ada@example.com", 1)
	_, err = b.Get(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "rolled@example.com"})
	require.ErrorIs(t, err, clerkinvite.ErrNotFound)

	// An ended member is reserved again inside a transaction, too.
	w, err := clerk.Accept("ada@example.com")
	require.NoError(t, err)
	changed := b.Receive(t, w)
	require.Len(t, b.Receive(t, clerk.DeleteUser(changed[0].ClerkUserID)), 1)
	require.NoError(t, reserve("ada@example.com", false))
	require.Equal(t, clerkinvite.StatusRemoved, b.Member(t, "ada@example.com").Status)
	require.NoError(t, reserve("ada@example.com", true))
	require.Equal(t, 2, b.Member(t, "ada@example.com").Send)
}

// A member verifies the invited address before the create returns: Invite reports the duplicate instead of a removed
// member.
func TestInvite_SecondAddressVerifiedIsADuplicate(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		u := b.Clerk.AddVerifiedUser("home@example.com")
		b.MustInvite(t, "home@example.com")
		var once sync.Once
		b.Clerk.OnCall(func(ctx context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
			if c == clerkinvitetest.CallCreate && w == clerkinvitetest.After {
				once.Do(func() {
					ev := b.Clerk.AddEmail(u.ID, clerkinvitetest.EmailSpec{Address: "work@example.com", Verified: true})
					e, _ := clerkinvite.ParseEvent(ev.Payload)
					_, err := b.HandleEvent(context.WithoutCancel(ctx), e)
					if err != nil {
						t.Error(err)
					}
				})
			}
		})
		m, err := b.TryInvite(t, "work@example.com")
		var dup *clerkinvite.DuplicateEmailError
		if !errors.As(err, &dup) {
			t.Fatalf("want DuplicateEmailError with the active member, got member %v, err %v", m, err)
		}
	})
}

// The lease ends during the create, and another process's attempt is refused: Invite must not return a failed member
// without an error.
func TestInvite_RefusalSeenByAnotherProcessIsAnError(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	var once atomic.Bool
	b.Clerk.OnCall(func(ctx context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
		if c == clerkinvitetest.CallCreate && w == clerkinvitetest.Before {
			if once.CompareAndSwap(false, true) {
				b.Clock.Advance(2 * time.Minute)
				b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, Status: 403, Code: "not_allowed_access"})
				_, _ = b.Deliver(context.WithoutCancel(ctx), nil)
			}
		}
	})
	m, err := b.TryInvite(t, "ada@example.com")
	if err == nil && m.Status != clerkinvite.StatusPending && m.Status != clerkinvite.StatusActive {
		t.Fatalf("Invite returned %v and no error", m)
	}
}

// After a backup was restored, the invitations of the next two sends have already ended at Clerk.
func TestInvite_SkipsSendsThatHaveEndedAtClerk(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	m := b.MustInvite(t, "ada@example.com")
	b.Clock.Advance(31 * 24 * time.Hour)
	for send := 2; send <= 3; send++ {
		inv := b.Clerk.CreateForeign("ada@example.com", map[string]any{"clerkinvite": map[string]any{"id": m.ID, "send": send}})
		b.Clerk.RevokeInDashboard(inv.ID)
	}
	m, err := b.TryInvite(t, "ada@example.com")
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusPending, m.Status)
}

// Clerk fails, and then the store does.
func TestInvite_ReturnsTheStoreError(t *testing.T) {
	t.Parallel()
	down := errors.New("the database is down")
	b, store := testkit.NewFaulty(t)
	store.Fail(down, false)
	b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallFindUsers, Status: 500, Code: "internal_clerk_error"})
	_, err := b.TryInvite(t, "ada@example.com")
	require.ErrorIs(t, err, down)
}

// The person signs up during the look-up, and Clerk's list of users lags.
func TestPromise2_UserThatClerkShowsLateGetsNoEmail(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	b.Clerk.SetBehavior(clerkinvitetest.Behavior{Lag: true})
	var once sync.Once
	b.Clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
		if c == clerkinvitetest.CallFindUsers && w == clerkinvitetest.After {
			once.Do(func() { b.Clerk.SignUp("ada@example.com", true) })
		}
	})
	_, _ = b.TryInvite(t, "ada@example.com")
	require.Zero(t, b.Clerk.EmailsTo("ada@example.com"))
}

func TestInvite_InstanceFaultThatNamesTheAddressIsNotARefusal(t *testing.T) {
	t.Parallel()
	for _, f := range []clerkinvitetest.Fault{
		{Status: 429, Code: "too_many_requests"}, {Status: 403, Code: "user_quota_exceeded"},
		{Status: 400, Code: "dev_monthly_email_limit_exceeded"}, {Status: 401, Code: "clerk_key_invalid"}, {Status: 409, Code: "resource_locked"},
	} {
		t.Run(f.Code, func(t *testing.T) {
			b := testkit.NewMemory(t, testkit.Options{})
			f.Meta = map[string]any{"email_addresses": []string{"ada@example.com"}}
			b.FailCreates(f)
			_, err := b.TryInvite(t, "ada@example.com")
			require.Error(t, err)
			require.Equal(t, clerkinvite.StatusReserved, b.Member(t, "ada@example.com").Status)
		})
	}
}

// json.Marshal would replace invalid UTF-8 silently.
func TestInvite_RejectsInvalidUTF8InTypedMetadata(t *testing.T) {
	t.Parallel()
	for i, v := range []any{map[string]string{"k": "\xff"}, []string{"\xff"}, struct{ S string }{"\xff"}} {
		b := testkit.NewMemory(t, testkit.Options{})
		p := testkit.Params("acme", "ada@example.com")
		p.PublicMetadata = map[string]any{"x": v}
		_, err := b.Invite(t.Context(), p)
		if err == nil {
			t.Errorf("%d: invalid UTF-8 went out as %s", i, b.Clerk.Invitations("ada@example.com")[0].PublicMetadata)
		}
	}
}

// Invite waits for another transaction with the same address, which is rolled back shortly before the lease would end.
func TestInvite_WaitForATransactionDoesNotUseUpTheLease(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t).Pool(t)
	clock := testkit.NewClock()
	store := clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{Now: clock.Now})
	require.NoError(t, store.Migrate(t.Context()))
	clerk := clerkinvitetest.NewClerk()
	b := testkit.New(t, testkit.Options{Clock: clock}, clerk, clerk, store)
	clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
		if c == clerkinvitetest.CallCreate && w == clerkinvitetest.Before {
			assert.Greater(t, b.Member(t, "ada@example.com").ClaimedUntil.Sub(b.Clock.Now()), 30*time.Second, "a create starts in the first half of its lease")
		}
	})
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = b.InTx(store.WithTx(tx)).Reserve(t.Context(), testkit.Params("acme", "ada@example.com"))
	require.NoError(t, err)
	invited := make(chan error, 1)
	go func() {
		_, err := b.TryInvite(t, "ada@example.com")
		invited <- err
	}()
	testkit.AwaitLocks(t, pool, 1)
	b.Clock.Advance(50 * time.Second) // of a minute
	require.NoError(t, tx.Rollback(t.Context()))
	require.NoError(t, <-invited, "only another caller's transaction was slow")
}

// slowInsert is a store whose inserts wait.
type slowInsert struct {
	clerkinvite.Store
	wait func()
}

func (s slowInsert) Insert(ctx context.Context, rows []*clerkinvite.Member) ([]clerkinvite.Result, error) {
	results, err := s.Store.Insert(ctx, rows)
	s.wait()
	return results, err
}

// repeatedInsert is a store that repeats its first insert, because the response was lost.
type repeatedInsert struct {
	clerkinvite.Store
	lost func() // called between the two
}

func (s *repeatedInsert) Insert(ctx context.Context, rows []*clerkinvite.Member) ([]clerkinvite.Result, error) {
	if lost := s.lost; lost != nil {
		s.lost = nil
		if _, err := s.Store.Insert(ctx, rows); err != nil {
			return nil, err
		}
		lost()
	}
	return s.Store.Insert(ctx, rows)
}

// The store repeats an insert, and another caller changes the row before. The caller's own row is not a duplicate.
func TestRowChangedBeforeARepeatedInsert(t *testing.T) {
	t.Parallel()
	revoke := func(t *testing.T, b *testkit.Rig) {
		_, err := b.Revoke(t.Context(), testkit.Ada)
		require.NoError(t, err)
	}
	update := func(t *testing.T, b *testkit.Rig) {
		role := "owner"
		_, err := b.Update(t.Context(), testkit.Ada, clerkinvite.MemberUpdate{Role: &role})
		require.NoError(t, err)
	}
	deliver := func(t *testing.T, b *testkit.Rig) {
		b.Clock.Advance(time.Hour)
		report, err := b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, 1, report.Invited)
	}
	claim := func(t *testing.T, b *testkit.Rig) {
		b.Clock.Advance(time.Hour)
		b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
		_, err := b.Deliver(t.Context(), nil)
		require.NoError(t, err)
	}
	invite := func(s *clerkinvite.Service, t *testing.T) (*clerkinvite.Member, error) {
		return s.Invite(t.Context(), testkit.Params("acme", "ada@example.com"))
	}
	inviteMany := func(s *clerkinvite.Service, t *testing.T) (*clerkinvite.Member, error) {
		results, err := s.InviteMany(t.Context(), []clerkinvite.InviteParams{testkit.Params("acme", "ada@example.com")}, nil)
		require.NoError(t, err)
		return results[0].Member, results[0].Err
	}
	reserve := func(s *clerkinvite.Service, t *testing.T) (*clerkinvite.Member, error) {
		return s.Reserve(t.Context(), testkit.Params("acme", "ada@example.com"))
	}
	for name, c := range map[string]struct {
		call   func(*clerkinvite.Service, *testing.T) (*clerkinvite.Member, error)
		lost   func(*testing.T, *testkit.Rig)
		want   clerkinvite.Status
		err    error
		queued bool // err is a *ClerkInvitationError; another attempt delivers the member
		emails int
	}{
		"Reserve, delivered":    {reserve, deliver, clerkinvite.StatusPending, nil, false, 1},
		"Reserve, claimed":      {reserve, claim, clerkinvite.StatusReserved, nil, false, 1},
		"Reserve, updated":      {reserve, update, clerkinvite.StatusReserved, nil, false, 0},
		"Reserve, revoked":      {reserve, revoke, clerkinvite.StatusRevoked, nil, false, 0},
		"InviteMany, delivered": {inviteMany, deliver, clerkinvite.StatusPending, nil, false, 1},
		"InviteMany, claimed":   {inviteMany, claim, clerkinvite.StatusReserved, nil, false, 1},
		"InviteMany, updated":   {inviteMany, update, clerkinvite.StatusPending, nil, false, 1},
		"InviteMany, revoked":   {inviteMany, revoke, clerkinvite.StatusRevoked, clerkinvite.ErrConflict, false, 0},
		"Invite, delivered":     {invite, deliver, clerkinvite.StatusPending, nil, false, 1},
		"Invite, claimed":       {invite, claim, clerkinvite.StatusReserved, nil, true, 1},
		"Invite, updated":       {invite, update, clerkinvite.StatusPending, nil, false, 1},
		"Invite, revoked":       {invite, revoke, clerkinvite.StatusRevoked, clerkinvite.ErrConflict, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
				store := &repeatedInsert{b.Store, func() { c.lost(t, b) }}
				s := testkit.New(t, testkit.Options{Clock: b.Clock}, b.Clerk, b.API, store)
				m, err := c.call(s.Service, t)
				switch {
				case c.queued:
					var clerkErr *clerkinvite.ClerkInvitationError
					require.ErrorAs(t, err, &clerkErr)
					require.True(t, clerkErr.Queued())
				case c.err != nil:
					require.ErrorIs(t, err, c.err)
				default:
					require.NoError(t, err)
					require.Equal(t, c.want, m.Status)
				}
				row := b.Member(t, "ada@example.com")
				require.Equal(t, c.want, row.Status)
				require.Equal(t, 1, row.Send)
				require.Equal(t, c.emails, b.Clerk.EmailsTo("ada@example.com"))
			})
		})
	}
}

// An insert takes longer than the lease, so that another attempt can claim the row. The caller's own row is not a duplicate.
func TestInvite_OvertakenAfterASlowInsert(t *testing.T) {
	t.Parallel()
	lost := clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset}
	limited := clerkinvitetest.Fault{Call: clerkinvitetest.CallFindUsers, Status: 429, RetryAfter: time.Second}
	for name, c := range map[string]struct {
		fault  *clerkinvitetest.Fault // of the other attempt
		queued bool
	}{"delivered": {nil, false}, "claimed": {&lost, true}, "released": {&limited, false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
				var once sync.Once
				store := slowInsert{b.Store, func() {
					once.Do(func() {
						b.Clock.Advance(time.Hour)
						if c.fault != nil {
							b.Clerk.Fail(*c.fault)
						}
						_, err := b.Deliver(t.Context(), nil)
						require.NoError(t, err)
						b.Clock.Advance(time.Second)
					})
				}}
				m, err := testkit.New(t, testkit.Options{Clock: b.Clock}, b.Clerk, b.API, store).TryInvite(t, "ada@example.com")
				if c.queued {
					var clerkErr *clerkinvite.ClerkInvitationError
					require.ErrorAs(t, err, &clerkErr)
					require.True(t, clerkErr.Queued())
					b.Clock.Advance(time.Hour)
					_, err := b.Deliver(t.Context(), nil)
					require.NoError(t, err)
				} else {
					require.NoError(t, err)
					require.Equal(t, clerkinvite.StatusPending, m.Status)
				}
				b.RequireInvited(t, "ada@example.com", 1)
			})
		})
	}
}

// Invite claims its member again after a slow insert, while another call changes the member's role. It does not take its
// own first claim for another caller's.
func TestInvite_UpdatedAfterASlowInsert(t *testing.T) {
	t.Parallel()
	clerk, memory, clock := clerkinvitetest.NewClerk(), clerkinvitetest.NewMemoryStore(), testkit.NewClock()
	var once sync.Once
	store := &beforeUpdate{Store: slowInsert{memory, func() { clock.Advance(50 * time.Second) }}, do: func(row *clerkinvite.Member) {
		once.Do(func() {
			updated := *row
			updated.Role = "owner"
			results, err := memory.Update(t.Context(), []clerkinvite.Change{{Old: row, New: &updated}})
			assert.NoError(t, err)
			assert.NoError(t, results[0].Err)
		})
	}}
	b := testkit.New(t, testkit.Options{Clock: clock}, clerk, clerk, store)
	m := b.MustInvite(t, "ada@example.com")
	require.Equal(t, clerkinvite.StatusPending, m.Status)
	require.Equal(t, "owner", m.Role)
	b.RequireInvited(t, "ada@example.com", 1)
}

// The look-up fails, but a webhook has made the member active in the meantime.
func TestInvite_MemberActivatedInTheMeantime(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	var once atomic.Bool
	b.Clerk.OnCall(func(ctx context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
		if c == clerkinvitetest.CallFindUsers && w == clerkinvitetest.Before && once.CompareAndSwap(false, true) {
			ev := b.Clerk.SignUp("ada@example.com", true)
			e, _ := clerkinvite.ParseEvent(ev.Payload)
			if _, err := b.HandleEvent(context.WithoutCancel(ctx), e); err != nil {
				t.Error(err)
			}
			b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallFindUsers, Kind: clerkinvitetest.JSON500})
		}
	})
	m, err := b.TryInvite(t, "ada@example.com")
	require.Equal(t, clerkinvite.StatusActive, b.Member(t, "ada@example.com").Status)
	require.NoError(t, err, "%v", m)
}

// The invited address belongs to a user whose primary address is pending in the same tenant.
func TestInvite_SecondAddressActivatesThePendingPrimary(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	b.MustInvite(t, "primary@example.com")
	b.Clerk.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{
		{Address: "primary@example.com", Verified: true}, {Address: "second@example.com", Verified: true}}})
	// the webhook is late
	_, _ = b.TryInvite(t, "second@example.com")
	require.Equal(t, clerkinvite.StatusActive, b.Member(t, "primary@example.com").Status)
}

// A response without times.
type timeless struct{ clerkinvite.ClerkAPI }

func TestInvite_ResponseWithoutTimes(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	b = testkit.New(t, testkit.Options{}, b.Clerk, timeless{b.Clerk}, b.Store)
	b.MustInvite(t, "ada@example.com")
	_, _ = b.TryInvite(t, "ada@example.com")
	require.Equal(t, 1, b.Clerk.EmailsTo("ada@example.com"))
}

// The create takes so long that another process invites the person and that invitation expires. The second round of
// Invite must not take the expired row for its new row, which has the same ID.
func TestInvite_ExpiredDuringASlowCreateIsInvitedAgain(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		creates := 0
		b.Clerk.OnCall(func(ctx context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
			if c != clerkinvitetest.CallCreate {
				return
			}
			if w == clerkinvitetest.Before {
				if creates++; creates == 1 { // slow: the lease ends, and the background invites her
					b.Clock.Advance(2 * time.Minute)
					if _, err := b.Deliver(context.WithoutCancel(ctx), nil); err != nil {
						t.Error(err)
					}
					b.Clock.Advance(31 * 24 * time.Hour)
					b.Clerk.CreateForeign("ada@example.com", nil) // so that Clerk refuses the late create
				}
			}
		})
		m, err := b.TryInvite(t, "ada@example.com")
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusPending, m.Status)
	})
}

// A metadata key that differs from the library's only in case is rejected, and in Clerk's responses it does not hide
// the library's key.
func TestInvite_MetadataKeyInAnotherCase(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	b := testkit.NewMemory(t, testkit.Options{})
	_, err := b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: email, PublicMetadata: map[string]any{"ClerkInvite": "v2"}})
	var invalid *clerkinvite.InvalidParamsError
	require.ErrorAs(t, err, &invalid)

	clerk := clerkinvitetest.NewClerk()
	b = testkit.New(t, testkit.Options{}, clerk, foreignKey{clerk}, clerkinvitetest.NewMemoryStore())
	clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
	_, err = b.TryInvite(t, email)
	require.Error(t, err)
	b.Recover(t, testkit.Recoveries()[0], email)
	b.RequireInvited(t, email, 1)
}

// foreignKey is a Clerk whose dashboard has added such a key to every invitation.
type foreignKey struct{ clerkinvite.ClerkAPI }

// Clerk may store a domain in Unicode or in ASCII, and find it by one form only. The library asks for both,
// and a failure of one must not break the other.
func TestInvite_DomainInEitherForm(t *testing.T) {
	t.Parallel()
	const ascii, shown = "ada@xn--bcher-kva.example", "ada@b\u00fccher.example"
	testkit.OnBoth(t, func(t *testing.T, fresh func(*testing.T, testkit.Options) *testkit.Rig) {
		for _, behavior := range []clerkinvitetest.NamedBehavior{
			{Name: "as typed", Behavior: clerkinvitetest.Behavior{}}, {Name: "Unicode", Behavior: clerkinvitetest.Behavior{UnicodeDomains: true}},
			{Name: "ASCII", Behavior: clerkinvitetest.Behavior{ASCIIDomains: true}}, {Name: "ASCII only", Behavior: clerkinvitetest.Behavior{ASCIIDomains: true, RejectsUnicode: true}},
			{Name: "exact", Behavior: clerkinvitetest.Behavior{UnicodeDomains: true, CaseSensitive: true, NoErrorAddresses: true}},
		} {
			t.Run(behavior.Name, func(t *testing.T) {
				t.Parallel()
				b := fresh(t, testkit.Options{})
				b.Clerk.SetBehavior(behavior.Behavior)

				// A user is found, alone and among others.
				u := b.Clerk.AddVerifiedUser(shown)
				m, err := b.Invite(t.Context(), testkit.Params("solo", ascii))
				require.NoError(t, err)
				require.Equal(t, clerkinvite.StatusActive, m.Status)
				require.Equal(t, u.ID, m.ClerkUserID)
				ps := []clerkinvite.InviteParams{testkit.Params("many", shown)}
				for i := range 70 {
					ps = append(ps, testkit.Params("many", fmt.Sprintf("p%d@b\u00fccher.example", i)))
				}
				results, err := b.InviteMany(t.Context(), ps, nil)
				require.NoError(t, err)
				for i, r := range results {
					require.NoError(t, r.Err)
					require.Equal(t, i == 0, r.Member.Status == clerkinvite.StatusActive)
				}
				require.Equal(t, 70, b.Clerk.Emails())

				// A lost response is found in the list, and a revoke finds the invitation.
				b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, When: clerkinvitetest.After, Kind: clerkinvitetest.HTML502})
				_, err = b.Invite(t.Context(), testkit.Params("acme", "grace@b\u00fccher.example"))
				require.Error(t, err)
				b.Clock.Advance(time.Hour)
				m, err = b.Invite(t.Context(), testkit.Params("acme", "grace@b\u00fccher.example"))
				require.NoError(t, err)
				require.Equal(t, clerkinvite.StatusPending, m.Status)
				require.Equal(t, 1, b.Clerk.EmailsTo("grace@xn--bcher-kva.example"))
				_, err = b.Revoke(t.Context(), m.Ref())
				require.NoError(t, err)
				require.Empty(t, b.Clerk.OpenInvitations("grace@xn--bcher-kva.example"))
			})
		}
	})
}

// A failure for one form is a failure only if Clerk may know the address in this form.
func TestInvite_OneFormFails(t *testing.T) {
	t.Parallel()
	const shown = "ada@b\u00fccher.example"
	for name, tc := range map[string]struct {
		fails  func(email string) bool
		status int
		want   clerkinvite.Status
	}{
		"a firewall's page for Unicode": {func(e string) bool { return e == shown }, 403, clerkinvite.StatusPending},
		"Unicode unavailable":           {func(e string) bool { return e == shown }, 503, clerkinvite.StatusReserved},
		"a firewall's page for ASCII":   {func(e string) bool { return strings.Contains(e, "xn--") }, 403, clerkinvite.StatusReserved},
		"both":                          {func(e string) bool { return e != "clerkinvite@example.com" }, 403, clerkinvite.StatusReserved},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clerk := clerkinvitetest.NewClerk()
			api := failingForms{clerk, tc.fails, tc.status}
			b := testkit.New(t, testkit.Options{}, clerk, api, clerkinvitetest.NewMemoryStore())
			for _, known := range []bool{false, true} {
				tenant := fmt.Sprint(known)
				if known {
					clerk.AddVerifiedUser(shown)
				}
				_, err := b.Invite(t.Context(), testkit.Params(tenant, shown))
				m, getErr := b.Get(t.Context(), clerkinvite.Ref{TenantID: tenant, Email: shown})
				require.NoError(t, getErr)
				want := tc.want
				if known && name == "a firewall's page for ASCII" {
					want = clerkinvite.StatusActive
				}
				require.Equal(t, want, m.Status, err)
				require.Equal(t, want == clerkinvite.StatusReserved, err != nil)
			}
		})
	}
}

// failingForms fails look-ups of some addresses.
type failingForms struct {
	clerkinvite.ClerkAPI
	fails  func(email string) bool
	status int
}

func (a failingForms) FindUsers(ctx context.Context, q clerkinvite.UserQuery) ([]clerkinvite.User, error) {
	if slices.ContainsFunc(q.Emails, a.fails) {
		return nil, &clerkinvite.APIError{StatusCode: a.status, Err: errors.New("a page")}
	}
	return a.ClerkAPI.FindUsers(ctx, q)
}

// Invalid input is reported before any request or write.
func TestBadInput(t *testing.T) {
	t.Parallel()
	ok := clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"}
	with := func(change func(*clerkinvite.InviteParams)) clerkinvite.InviteParams {
		p := ok
		change(&p)
		return p
	}
	email := func(s string) clerkinvite.InviteParams {
		return with(func(p *clerkinvite.InviteParams) { p.Email = s })
	}
	tenant := func(s string) clerkinvite.InviteParams {
		return with(func(p *clerkinvite.InviteParams) { p.TenantID = s })
	}
	role := func(s string) clerkinvite.InviteParams {
		return with(func(p *clerkinvite.InviteParams) { p.Role = s })
	}
	redirect := func(s string) clerkinvite.InviteParams {
		return with(func(p *clerkinvite.InviteParams) { p.RedirectURL = s })
	}
	data := func(s string) clerkinvite.InviteParams {
		return with(func(p *clerkinvite.InviteParams) { p.Data = json.RawMessage(s) })
	}
	metadata := func(k string, v any) clerkinvite.InviteParams {
		return with(func(p *clerkinvite.InviteParams) { p.PublicMetadata = map[string]any{k: v} })
	}
	cases := map[string]struct {
		field  string
		params clerkinvite.InviteParams
	}{
		"empty address":           {"Email", email("")},
		"blank address":           {"Email", email(" \t\n")},
		"no at":                   {"Email", email("ada.example.com")},
		"two addresses":           {"Email", email("ada@example.com,bob@example.com")},
		"two ats":                 {"Email", email("ada@bob@example.com")},
		"display name":            {"Email", email("Ada <ada@example.com>")},
		"header injection":        {"Email", email("ada@example.com\r\nBcc: eve@example.com")},
		"injection before at":     {"Email", email("ada\r\nBcc: eve@example.com")},
		"NUL in address":          {"Email", email("ada\x00@example.com")},
		"NUL in domain":           {"Email", email("ada@exa\x00mple.com")},
		"invalid UTF-8":           {"Email", email("ada\xff@example.com")},
		"invalid UTF-8 domain":    {"Email", email("ada@ex\xffample.com")},
		"over-long address":       {"Email", email("ada@" + strings.Repeat("a.", 200) + "com")},
		"over-long local":         {"Email", email(strings.Repeat("a", 65) + "@example.com")},
		"no local":                {"Email", email("@example.com")},
		"no domain":               {"Email", email("ada@")},
		"one label":               {"Email", email("ada@localhost")},
		"trailing dot":            {"Email", email("ada@example.com.")},
		"address literal":         {"Email", email("ada@[127.0.0.1]")},
		"space inside":            {"Email", email("ada lovelace@example.com")},
		"no tenant":               {"TenantID", tenant("")},
		"NUL in tenant":           {"TenantID", tenant("ac\x00me")},
		"invalid tenant":          {"TenantID", tenant("ac\xc3me")},
		"long tenant":             {"TenantID", tenant(strings.Repeat("t", 256))},
		"tenant with an edge":     {"TenantID", tenant(" acme ")},
		"invisible in tenant":     {"TenantID", tenant("acme\u200b")},
		"direction in role":       {"Role", role("admin\u202e")},
		"edge in inviter":         {"InvitedBy", with(func(p *clerkinvite.InviteParams) { p.InvitedBy = "user_1 " })},
		"IP address":              {"Email", email("ada@127.0.0.1")},
		"encoded word":            {"Email", email("=?utf-8?q?ada?=@example.com")},
		"newline in tenant":       {"TenantID", tenant("acme\nX: y")},
		"NUL in role":             {"Role", role("ad\x00min")},
		"long role":               {"Role", role(strings.Repeat("r", 256))},
		"NUL in inviter":          {"InvitedBy", with(func(p *clerkinvite.InviteParams) { p.InvitedBy = "\x00" })},
		"script URL":              {"RedirectURL", redirect("javascript:alert(1)")},
		"relative URL":            {"RedirectURL", redirect("welcome")},
		"scheme-less URL":         {"RedirectURL", redirect("//app.example.com")},
		"hostless URL":            {"RedirectURL", redirect("https://")},
		"ftp URL":                 {"RedirectURL", redirect("ftp://example.com")},
		"URL with newline":        {"RedirectURL", redirect("https://example.com/\r\nX: y")},
		"negative days":           {"ExpiresInDays", with(func(p *clerkinvite.InviteParams) { p.ExpiresInDays = -1 })},
		"too many days":           {"ExpiresInDays", with(func(p *clerkinvite.InviteParams) { p.ExpiresInDays = 366 })},
		"odd template":            {"Template", with(func(p *clerkinvite.InviteParams) { p.Template = "In Vitation" })},
		"empty data":              {"Data", data("")},
		"broken data":             {"Data", data(`{"a":`)},
		"two values":              {"Data", data(`{} {}`)},
		"NUL in data":             {"Data", data(`{"a":"\u0000"}`)},
		"NUL in a key":            {"Data", data(`{"\u0000":1}`)},
		"half a surrogate":        {"Data", data(`{"a":"\ud800"}`)},
		"low surrogate":           {"Data", data(`{"a":"\udc00"}`)},
		"surrogate and text":      {"Data", data(`{"a":"\ud83dA"}`)},
		"surrogate, text, escape": {"Data", data(`{"a":"\ud800x\u0041"}`)},
		"huge number":             {"Data", data(`{"a":1e400}`)},
		"very tiny number":        {"Data", data(`{"a":1e-20000}`)},
		"invalid data":            {"Data", data("{\"a\":\"\xff\"}")},
		"deep data":               {"Data", data(strings.Repeat("[", 200) + strings.Repeat("]", 200))},
		"tiny number":             {"Data", data(`{"a":1e-999}`)},
		"long number":             {"Data", data(strings.Repeat("9", 300) + "." + strings.Repeat("9", 700))},
		"data that grows":         {"Data", data("[" + strings.Repeat("1,", 30_000) + "1]")},
		"numbers that grow":       {"Data", data("[" + strings.Repeat("1e300,", 300) + "1]")},
		"long data":               {"Data", data(`"` + strings.Repeat("a", 64<<10) + `"`)},
		"long metadata":           {"PublicMetadata", metadata("a", strings.Repeat("a", 8<<10))},
		"our own key":             {"PublicMetadata", metadata("clerkinvite", "mine")},
		"NUL in metadata":         {"PublicMetadata", metadata("a", "\x00")},
		"invalid metadata":        {"PublicMetadata", metadata("a", []any{map[string]any{"b": "\xff"}})},
		"invalid metadata key":    {"PublicMetadata", metadata("\xff", 1)},
		"no JSON":                 {"PublicMetadata", metadata("a", math.NaN())},
		"a function":              {"PublicMetadata", metadata("a", func() {})},
	}
	testkit.OnBoth(t, func(t *testing.T, fresh func(*testing.T, testkit.Options) *testkit.Rig) {
		for name, c := range cases {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				b := fresh(t, testkit.Options{})
				_, inviteErr := b.Invite(t.Context(), c.params)
				_, reserveErr := b.Reserve(t.Context(), c.params)
				for _, err := range []error{inviteErr, reserveErr} {
					var invalid *clerkinvite.InvalidParamsError
					require.ErrorAs(t, err, &invalid)
					require.Equal(t, c.field, invalid.Field)
					status, message := clerkinvite.HTTPError(err)
					require.Equal(t, 422, status)
					require.Equal(t, "invalid "+c.field+": "+invalid.Reason, message)
				}
				require.Zero(t, b.Clerk.RequestCount())
				due, err := b.Store.Due(t.Context(), clerkinvite.DueQuery{At: b.Clock.Now().AddDate(1, 0, 0)})
				require.NoError(t, err)
				require.Empty(t, due, "nothing was written")
			})
		}
	})
}

func TestOddButGoodInput(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		for i, email := range []string{"a@b.co", "o'neil+tag@sub.example.com", "用户@example.com", "ada@bücher.example", "ADA@XN--BCHER-KVA.EXAMPLE"} {
			_, err := b.TryInvite(t, email)
			switch i {
			case 2:
				var invalid *clerkinvite.InvalidParamsError
				require.ErrorAs(t, err, &invalid, "not supported")
			case 4:
				var dup *clerkinvite.DuplicateEmailError
				require.ErrorAs(t, err, &dup, "the same domain in its other form")
				require.Equal(t, "ada@xn--bcher-kva.example", dup.Member.Email)
			default:
				require.NoError(t, err)
			}
		}
		for name, data := range map[string]string{
			"escaped backslash": `{"a":"\\u0000"}`, "emoji": `{"a":"\ud83d\ude00 😀"}`, "null": `null`, "scalar": ` 12.50 `,
			"numbers": `[1e10,-0,0.1,123456789012345678901234567890]`, "text": `"quo\"te ' \\ $1 %s"`,
		} {
			m, err := b.Invite(t.Context(), clerkinvite.InviteParams{
				TenantID: "t " + name + " – ünï", Email: "x@example.com", Data: json.RawMessage(data), Role: "sales / €", InvitedBy: `o'neil "x" \`,
			})
			require.NoError(t, err, name)
			require.JSONEq(t, data, string(m.Data), name)
			require.Equal(t, "sales / €", m.Role)
			require.Equal(t, `o'neil "x" \`, m.InvitedBy)
		}
	})
}

// Accepted Data is accepted again in the form in which the store returns it.
func TestDataCanBeWrittenAgain(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		for i, data := range []string{
			`1e-990`, `-1.5E-980`, `1e308`, `0e-990`, "[" + strings.Repeat("1,", 21_000) + "1]", "[" + strings.Repeat("1e300,", 216) + "1]",
			`{"a":"` + strings.Repeat(`\u0001`, 10_000) + `"}`, `{"a":"` + strings.Repeat(`\/`, 30_000) + `"}`, `{"a":1,"a":[2]}`, "{\n \"b\" : 1 , \"a\" : 1.500}",
		} {
			m, err := b.Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: fmt.Sprintf("p%d@example.com", i), Data: json.RawMessage(data)})
			require.NoError(t, err, "%.40s", data)
			stored, err := b.Get(t.Context(), m.Ref())
			require.NoError(t, err)
			require.LessOrEqual(t, len(stored.Data), 64<<10)
			again, err := b.Update(t.Context(), m.Ref(), clerkinvite.MemberUpdate{Data: &stored.Data})
			require.NoError(t, err, "%.40s", data)
			require.JSONEq(t, string(stored.Data), string(again.Data))
		}
	})
}

func TestNewNamesEveryFault(t *testing.T) {
	t.Parallel()
	_, err := clerkinvite.New(clerkinvite.Config{RedirectURL: "app", ExpiresInDays: 400, Lease: time.Nanosecond})
	require.Error(t, err)
	for _, field := range []string{"API", "Store", "RedirectURL", "ExpiresInDays", "Lease"} {
		require.ErrorContains(t, err, "Config."+field)
	}
}

// A member is pending for more than a day, and Clerk shows that its invitation has ended: one call invites the person.
func TestInvite_PendingDuplicateThatHasEndedAtClerk(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	older := func(b *testkit.Rig) string { return b.Clerk.Invitations(email)[0].ID }
	for name, c := range map[string]struct {
		end  func(t *testing.T, b *testkit.Rig)
		want clerkinvite.Status // that Invite finds, "" if the member is still a duplicate
	}{
		"revoked in the dashboard": {func(_ *testing.T, b *testkit.Rig) { b.Clerk.RevokeInDashboard(older(b)) }, clerkinvite.StatusRevoked},
		"expired early":            {func(_ *testing.T, b *testkit.Rig) { b.Clerk.ExpireNow(older(b)) }, clerkinvite.StatusExpired},
		"open":                     {func(*testing.T, *testkit.Rig) {}, ""},
		"accepted": {func(t *testing.T, b *testkit.Rig) {
			t.Helper()
			_, err := b.Clerk.Accept(email)
			require.NoError(t, err)
		}, ""},
		"revoked, listed as open": {func(_ *testing.T, b *testkit.Rig) {
			b.Clerk.SetBehavior(clerkinvitetest.Behavior{Lag: true})
			b.Clerk.RevokeInDashboard(older(b))
		}, ""},
		"not listed": {func(*testing.T, *testkit.Rig) {}, ""},
		"revoked, Clerk fails": {func(_ *testing.T, b *testkit.Rig) {
			b.Clerk.RevokeInDashboard(older(b))
			b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallList, Status: 500, Code: "internal_clerk_error", Times: 9})
		}, ""},
		"revoked, restored from a backup": {func(t *testing.T, b *testkit.Rig) {
			t.Helper()
			b.Clerk.CreateForeign(email, map[string]any{"clerkinvite": map[string]any{"id": b.Member(t, email).ID, "send": 2}})
			b.Clerk.RevokeInDashboard(older(b))
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
				if name == "not listed" {
					b.Clerk.SetBehavior(clerkinvitetest.Behavior{Lag: true})
				}
				m := b.MustInvite(t, email)
				b.Clock.Advance(time.Hour)
				c.end(t, b)
				b.Clerk.ResetCounts()
				for range 2 {
					requireDuplicate(t, b, email)
					b.Clock.Advance(22 * time.Hour)
				}
				require.Zero(t, b.Clerk.RequestCount(), "a younger member is not doubted")
				b.Clock.Advance(2 * time.Hour)
				if c.want == "" {
					for range 20 {
						requireDuplicate(t, b, email)
					}
					require.LessOrEqual(t, b.Clerk.RequestCount(), 6, "one look a day, which the adapter repeats if it fails")
					require.Equal(t, 1, b.Clerk.EmailsTo(email))
					b.Clerk.ClearFaults()
					b.Clerk.ResetCounts()
					b.Clock.Advance(24 * time.Hour)
					_, err := b.TryInvite(t, email)
					require.Equal(t, name == "revoked, Clerk fails", err == nil, "%v", err)
					return
				}
				again, err := b.TryInvite(t, email)
				require.NoError(t, err)
				require.Equal(t, []any{clerkinvite.StatusPending, m.ID, 2}, []any{again.Status, again.ID, again.Send})
				require.Equal(t, 2, b.Clerk.EmailsTo(email))
				history, err := b.History(t.Context(), testkit.Ada)
				require.NoError(t, err)
				require.Equal(t, c.want, history[2].To)
				open := b.Clerk.OpenInvitations(email)
				require.Len(t, open, 1)
				require.Equal(t, again.InvitationID, open[0].ID)
			})
		})
	}
}

func requireDuplicate(t *testing.T, b *testkit.Rig, email string) {
	t.Helper()
	_, err := b.TryInvite(t, email)
	var dup *clerkinvite.DuplicateEmailError
	require.ErrorAs(t, err, &dup)
}

// Many callers invite the person at the same time: Clerk is asked once, and sends one email.
func TestInvite_DoubtOfManyCallers(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	for _, revoked := range []bool{true, false} {
		testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
			m := b.MustInvite(t, email)
			if revoked {
				b.Clerk.RevokeInDashboard(m.InvitationID)
			}
			b.Clock.Advance(48 * time.Hour)
			b.Clerk.ResetCounts()
			var invited atomic.Int64
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					_, err := b.TryInvite(t, email)
					var dup *clerkinvite.DuplicateEmailError
					if err == nil {
						invited.Add(1)
					} else {
						assert.ErrorAs(t, err, &dup)
					}
				})
			}
			wg.Wait()
			if !revoked {
				require.Zero(t, invited.Load())
				require.Equal(t, map[clerkinvitetest.Call]int{clerkinvitetest.CallList: 2}, b.Clerk.Requests())
				return
			}
			require.EqualValues(t, 1, invited.Load())
			require.Equal(t, 2, b.Clerk.EmailsTo(email))
			require.Len(t, b.Clerk.OpenInvitations(email), 1)
		})
	}
}

// An active member's user was deleted, and another one has the address now. The webhooks were lost.
func TestInvite_ActiveDuplicateWhoseUserWasReplaced(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	for name, c := range map[string]struct {
		happens func(t *testing.T, b *testkit.Rig, old string)
		joined  bool // as the new user
	}{
		"deleted and created again": {func(_ *testing.T, b *testkit.Rig, old string) {
			b.Clerk.DeleteUser(old)
			b.Clerk.AddVerifiedUser(email)
		}, true},
		"deleted": {func(_ *testing.T, b *testkit.Rig, old string) { b.Clerk.DeleteUser(old) }, false},
		"deleted, created again without proof": {func(_ *testing.T, b *testkit.Rig, old string) {
			b.Clerk.DeleteUser(old)
			b.Clerk.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{{Address: email}}})
		}, false},
		"deleted, Clerk does not say so": {func(_ *testing.T, b *testkit.Rig, old string) {
			b.Clerk.DeleteUser(old)
			b.Clerk.AddVerifiedUser(email)
			b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallGetUser, Status: 404, Code: "", Times: 9})
		}, false},
		"still a user": {func(*testing.T, *testkit.Rig, string) {}, false},
	} {
		t.Run(name, func(t *testing.T) {
			testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
				b.Clerk.AddVerifiedUser("bob@example.com")
				b.MustInvite(t, "bob@example.com")
				old := b.Clerk.AddVerifiedUser(email).ID
				b.MustInvite(t, email)
				c.happens(t, b, old)
				requireDuplicate(t, b, email)
				b.Clock.Advance(24 * time.Hour)
				b.Clerk.ResetCounts()
				m, err := b.TryInvite(t, email)
				if !c.joined {
					var dup *clerkinvite.DuplicateEmailError
					require.ErrorAs(t, err, &dup)
					require.Equal(t, old, b.Member(t, email).ClerkUserID)
					n := b.Clerk.RequestCount()
					requireDuplicate(t, b, email)
					require.Equal(t, n, b.Clerk.RequestCount())
					return
				}
				require.NoError(t, err)
				require.Equal(t, clerkinvite.StatusActive, m.Status)
				require.NotEqual(t, old, m.ClerkUserID)
				history, err := b.History(t.Context(), testkit.Ada)
				require.NoError(t, err)
				require.Equal(t, clerkinvite.ReasonUserDeleted, history[2].Reason)
			})
		})
	}
}

// With another instance's key, the address belongs to another user, and Clerk knows no member's user.
func TestInvite_ActiveDuplicateWithAnotherInstancesKey(t *testing.T) {
	t.Parallel()
	testkit.OnBoth(t, func(t *testing.T, fresh func(*testing.T, testkit.Options) *testkit.Rig) {
		b := fresh(t, testkit.Options{})
		b.Clerk.AddVerifiedUser("stranger@example.com") // whose ID the other instance has, too
		for _, email := range []string{"ada@example.com", "bob@example.com"} {
			b.Clerk.AddVerifiedUser(email)
			b.MustInvite(t, email)
		}
		other := clerkinvitetest.NewClerk()
		other.AddVerifiedUser("ada@example.com")
		svc, err := clerkinvite.New(clerkinvite.Config{API: other, Store: b.Store, Now: b.Clock.Now})
		require.NoError(t, err)
		b.Clock.Advance(48 * time.Hour)
		_, err = svc.Invite(t.Context(), testkit.Params("acme", "ada@example.com"))
		var dup *clerkinvite.DuplicateEmailError
		require.ErrorAs(t, err, &dup)
		require.Equal(t, clerkinvite.StatusActive, b.Member(t, "ada@example.com").Status)
	})
}

// failingStore fails one call, with an error of the whole call or, as an error of OnChange does, of one row.
type failingStore struct {
	clerkinvite.Store
	fails func(call string) (whole, row error)
}

func (s *failingStore) Update(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
	if whole, row := s.fails("Update"); whole != nil || row != nil {
		return slices.Repeat([]clerkinvite.Result{{Err: row}}, len(changes)), whole
	}
	return s.Store.Update(ctx, changes)
}

func (s *failingStore) Find(ctx context.Context, q clerkinvite.Query) ([]*clerkinvite.Member, error) {
	whole, _ := s.fails("Find")
	if whole != nil {
		return nil, whole
	}
	return s.Store.Find(ctx, q)
}

func (s *failingStore) Page(ctx context.Context, q clerkinvite.PageQuery) ([]*clerkinvite.Member, error) {
	whole, _ := s.fails("Page")
	if whole != nil {
		return nil, whole
	}
	return s.Store.Page(ctx, q)
}

// Invite updates a duplicate that is out of date. It returns the store's and the hook's errors unchanged.
func TestPromise6_StaleDuplicateWhoseUpdateFails(t *testing.T) {
	t.Parallel()
	const email, other = "ada@example.com", "ada@example.org"
	errStore := errors.New("the store has failed")
	revoked := func(t *testing.T, b *testkit.Rig) {
		t.Helper()
		b.Clerk.RevokeInDashboard(b.MustInvite(t, email).InvitationID)
	}
	moved := func(t *testing.T, b *testkit.Rig) {
		t.Helper()
		u := b.Clerk.AddVerifiedUser(email)
		b.MustInvite(t, email)
		b.Clerk.ChangeEmail(u.ID, other)
	}
	taken := func(t *testing.T, b *testkit.Rig) {
		t.Helper()
		b.MustInvite(t, other)
		moved(t, b)
	}
	replaced := func(t *testing.T, b *testkit.Rig) {
		t.Helper()
		b.Clerk.AddVerifiedUser("bob@example.com")
		b.MustInvite(t, "bob@example.com")
		u := b.Clerk.AddVerifiedUser(email)
		b.MustInvite(t, email)
		b.Clerk.DeleteUser(u.ID)
		b.Clerk.AddVerifiedUser(email)
	}
	for name, c := range map[string]struct {
		arrange func(t *testing.T, b *testkit.Rig)
		call    string
		nth     int  // the call that fails
		taken   bool // the member stays a duplicate
	}{
		"revoked, first write":           {revoked, "Update", 1, false},
		"revoked, second write":          {revoked, "Update", 2, false},
		"address given up, first write":  {moved, "Update", 1, false},
		"address given up, second write": {moved, "Update", 2, false},
		"new address taken, read":        {taken, "Find", 1, true},
		"user replaced, first write":     {replaced, "Update", 1, false},
		"user replaced, second write":    {replaced, "Update", 2, false},
		"user replaced, read":            {replaced, "Page", 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.OnBoth(t, func(t *testing.T, fresh func(*testing.T, testkit.Options) *testkit.Rig) {
				for what, f := range map[string]struct {
					whole, row error
					duplicate  bool
				}{
					"store":    {whole: errStore},
					"hook":     {row: testkit.ErrHook},
					"conflict": {row: clerkinvite.ErrConflict, duplicate: true},
				} {
					if f.row != nil && c.call != "Update" || f.duplicate && name == "address given up, second write" { // repeated after a conflict
						continue
					}
					t.Run(what, func(t *testing.T) {
						armed, calls := false, 0
						b := fresh(t, testkit.Options{Configure: func(cfg *clerkinvite.Config) {
							cfg.Store = &failingStore{cfg.Store, func(call string) (whole, row error) {
								if !armed || call != c.call {
									return nil, nil
								}
								if calls++; calls != c.nth {
									return nil, nil
								}
								return f.whole, f.row
							}}
						}})
						c.arrange(t, b)
						b.Clock.Advance(24 * time.Hour)
						emails := b.Clerk.EmailsTo(email)
						armed = true
						if f.duplicate {
							requireDuplicate(t, b, email)
						} else {
							_, err := b.TryInvite(t, email)
							require.Equal(t, cmp.Or(f.whole, f.row), err)
						}
						require.GreaterOrEqual(t, calls, c.nth)
						require.Equal(t, emails, b.Clerk.EmailsTo(email))
						armed = false
						if c.call != "Update" || c.nth > 1 { // the member was checked today
							requireDuplicate(t, b, email)
							b.Clock.Advance(24 * time.Hour)
						}
						if c.taken {
							requireDuplicate(t, b, email)
							return
						}
						b.MustInvite(t, email)
					})
				}
			})
		})
	}
}

// Clerk rejects the redirect URL. Once that is fixed, Invite works immediately. If the response was lost, Clerk may
// have the invitation, so that its parameters stay until it is revoked.
func TestInvite_FixedConfiguration(t *testing.T) {
	t.Parallel()
	rejected := clerkinvitetest.Fault{Times: -1, Status: 422, Code: "form_param_value_invalid", Meta: map[string]any{"param_name": "redirect_url"}}
	for name, c := range map[string]struct {
		fault  clerkinvitetest.Fault
		again  bool // Run tries it again before the admin does
		fixed  bool // by Invite alone
		emails int
	}{
		"rejected":       {rejected, false, true, 1},
		"rejected twice": {rejected, true, true, 1},
		"lost":           {clerkinvitetest.Fault{Kind: clerkinvitetest.Reset, When: clerkinvitetest.After}, false, false, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
				b.FailCreates(c.fault)
				p := testkit.Params("acme", "ada@example.com")
				p.RedirectURL = "https://exmaple.com/welcome"
				_, err := b.Invite(t.Context(), p)
				require.Error(t, err)
				if c.again {
					b.Clock.Advance(time.Hour)
					report, err := b.Deliver(t.Context(), nil)
					require.NoError(t, err)
					require.Equal(t, 1, report.Claimed)
				}
				b.Clerk.ClearFaults()
				b.Clock.Advance(2 * time.Hour)
				p.RedirectURL = "https://example.com/welcome"
				m, err := b.Invite(t.Context(), p)
				if !c.fixed {
					var dup *clerkinvite.DuplicateEmailError
					require.ErrorAs(t, err, &dup)
					_, err = b.Revoke(t.Context(), testkit.Acme("ada@example.com"))
					require.NoError(t, err)
					m, err = b.Invite(t.Context(), p)
				}
				require.NoError(t, err)
				require.Equal(t, clerkinvite.StatusPending, m.Status)
				require.Contains(t, string(m.Params), p.RedirectURL)
				b.RequireInvited(t, "ada@example.com", c.emails)
			})
		})
	}
}

// An attempt may have created the invitation, and a later one certainly did nothing. Invite with other parameters is
// then a duplicate, because the invitation has the old ones.
func TestInvite_ParametersOfAnOpenInvitation(t *testing.T) {
	t.Parallel()
	const email = "p1@example.com"
	people := testkit.People(3, "p")
	lost := func(t *testing.T, b *testkit.Rig) {
		t.Helper()
		b.FailCreates(clerkinvitetest.Fault{Kind: clerkinvitetest.Reset, When: clerkinvitetest.After})
		_, err := b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		b.Clerk.ClearFaults()
		b.Clock.Advance(2 * time.Hour)
	}
	// Clerk rejects the bulk request because of p0, but creates the other invitations.
	rejected := func(t *testing.T, b *testkit.Rig, then clerkinvitetest.Fault) {
		t.Helper()
		b.Clerk.SetBehavior(clerkinvitetest.Behavior{BulkKeepsPartial: true})
		b.Clerk.CreateForeign(people[0].Email, nil)
		b.Clerk.OnCall(func(_ context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
			if call == clerkinvitetest.CallCreateBulk && when == clerkinvitetest.After {
				b.Clerk.Fail(then)
			}
		})
		_, _ = b.Deliver(t.Context(), nil)
		b.Clerk.OnCall(nil)
		b.Clerk.ClearFaults()
	}
	for name, attempts := range map[string]func(t *testing.T, b *testkit.Rig){
		"shared look-up fails": func(t *testing.T, b *testkit.Rig) {
			lost(t, b)
			b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallFindUsers, Kind: clerkinvitetest.Empty503, Times: -1})
			_, err := b.Deliver(t.Context(), nil)
			require.Error(t, err)
		},
		"rate limit": func(t *testing.T, b *testkit.Rig) {
			b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallFindUsers, Kind: clerkinvitetest.Empty503, Times: -1})
			_, err := b.Deliver(t.Context(), nil)
			require.Error(t, err)
			require.Equal(t, "unavailable", b.Member(t, email).Reason)
			b.Clerk.ClearFaults()
			b.Clock.Advance(2 * time.Hour)
			lost(t, b)
			b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallList, Status: 429, RetryAfter: time.Minute})
			_, err = b.Deliver(t.Context(), nil)
			require.NoError(t, err)
		},
		"temporary lock": func(t *testing.T, b *testkit.Rig) {
			lost(t, b)
			u := b.Clerk.AddVerifiedUser(email)
			b.Clerk.LockUser(u.ID, time.Hour)
			_, err := b.DeliverMembers(t.Context(), []clerkinvite.Ref{testkit.Acme(email)})
			require.NoError(t, err)
			require.Equal(t, clerkinvite.ReasonUserLocked, b.Member(t, email).Reason)
			b.Clerk.DeleteUser(u.ID)
		},
		"Purge fails": func(t *testing.T, b *testkit.Rig) {
			b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallFindUsers, Kind: clerkinvitetest.Empty503, Times: -1})
			_, err := b.Deliver(t.Context(), nil)
			require.Error(t, err)
			b.Clerk.ClearFaults()
			b.Clock.Advance(2 * time.Hour)
			lost(t, b)
			b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallList, Kind: clerkinvitetest.Empty503, Times: -1})
			require.Error(t, b.Purge(t.Context(), testkit.Acme(email)))
		},
		"limit after a rejected bulk request": func(t *testing.T, b *testkit.Rig) {
			rejected(t, b, clerkinvitetest.RateLimited(10*time.Minute))
			require.Equal(t, clerkinvite.ReasonBulkRejected, b.Member(t, email).Reason)
		},
		"fault after a rejected bulk request": func(t *testing.T, b *testkit.Rig) {
			rejected(t, b, clerkinvitetest.Fault{Call: clerkinvitetest.CallAnyCreate, Status: 401, Code: "clerk_key_invalid", Times: -1})
			require.Equal(t, "clerk_key_invalid", b.Member(t, email).Reason)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
				b.ReserveEach(t, people)
				attempts(t, b)
				b.Clerk.ClearFaults()
				b.Clock.Advance(2 * time.Hour)
				require.Len(t, b.Clerk.OpenInvitations(email), 1)
				p := testkit.Params("acme", email)
				p.SkipEmail = true
				_, err := b.Invite(t.Context(), p)
				var dup *clerkinvite.DuplicateEmailError
				require.ErrorAs(t, err, &dup)
				_, err = b.Invite(t.Context(), testkit.Params("acme", email))
				require.NoError(t, err)
				b.RequireInvited(t, email, 1)
			})
		})
	}
}
