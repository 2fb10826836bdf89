package clerkinvite_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

func TestInviteMany(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		b.Clerk.AddVerifiedUser("user@example.com")
		b.Clerk.AddUser(clerkinvitetest.UserSpec{Banned: true, Emails: []clerkinvitetest.EmailSpec{{Address: "banned@example.com", Verified: true}}})
		b.Clerk.CreateForeign("elsewhere@example.com", nil)
		b.FailCreates(clerkinvitetest.Fault{Email: "refused@example.com", Times: -1, Status: 403, Code: "not_allowed_access",
			Meta: map[string]any{"identifiers": []string{"refused@example.com"}}})
		there := b.MustInvite(t, "there@example.com")
		b.Clerk.ResetCounts()

		var ps []clerkinvite.InviteParams
		for _, name := range []string{"new0", "user", "nonsense", "banned", "NEW0", "there", "elsewhere", "refused", "new1", "new2"} {
			ps = append(ps, testkit.Params("acme", name+"@example.com"))
		}
		ps[2].Email = "nonsense"
		withMetadata := testkit.Params("acme", "metadata@example.com")
		withMetadata.PublicMetadata = map[string]any{"plan": "pro"}
		ps = append(ps, withMetadata, testkit.Params("globex", "new0@example.com"))
		var last clerkinvite.ManyProgress
		results, err := b.InviteMany(t.Context(), ps, &clerkinvite.ManyOptions{Progress: func(p clerkinvite.ManyProgress) { last = p }})
		require.NoError(t, err, "one person's error is not the call's")
		require.Len(t, results, len(ps))

		var invalid *clerkinvite.InvalidParamsError
		var refused *clerkinvite.ClerkInvitationError
		var dup *clerkinvite.DuplicateEmailError
		for _, i := range []int{0, 6, 8, 9, 10, 11} {
			require.NoError(t, results[i].Err, i)
			require.Equal(t, clerkinvite.StatusPending, results[i].Member.Status)
			require.NotEmpty(t, results[i].Member.URL)
			want, _, _ := strings.Cut(ps[i].Email, "@")
			require.Equal(t, want+"@example.com", results[i].Member.Email, "in the order of the input")
		}
		require.Equal(t, clerkinvite.StatusActive, results[1].Member.Status)
		require.ErrorAs(t, results[2].Err, &invalid)
		require.Nil(t, results[2].Member)
		for _, i := range []int{3, 7} {
			require.ErrorAs(t, results[i].Err, &refused)
			require.Equal(t, clerkinvite.Refused, refused.Outcome)
			require.Equal(t, clerkinvite.StatusFailed, results[i].Member.Status)
		}
		require.ErrorAs(t, results[4].Err, &dup, "twice in the list")
		require.Equal(t, results[0].Member.ID, dup.Member.ID)
		require.Equal(t, clerkinvite.StatusPending, dup.Member.Status)
		require.ErrorAs(t, results[5].Err, &dup)
		require.Equal(t, there.ID, dup.Member.ID)
		require.Equal(t, clerkinvite.ManyProgress{Total: 12, Invited: 6, Linked: 1, Failed: 5, Refused: 2}, last)

		b.RequireInvited(t, "new1@example.com", 1)
		require.Equal(t, 2, b.Clerk.EmailsTo("new0@example.com"), "one for each tenant")
		require.JSONEq(t, `{"plan":"pro","clerkinvite":{"id":"`+results[10].Member.ID+`","send":1}}`,
			string(b.Clerk.Invitations("metadata@example.com")[0].PublicMetadata))

		empty, err := b.InviteMany(t.Context(), nil, nil)
		require.NoError(t, err)
		require.Empty(t, empty)
	})
}

func TestPromise8_InviteManyMeetsALimit(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		limits := clerkinvitetest.DocumentedLimits()
		limits.Create.Requests, limits.CreateBulk.Requests = 3, 2
		b.Clerk.SetLimits(limits)
		ps := testkit.People(60, "p")
		results, err := b.InviteMany(t.Context(), ps, nil)
		require.NoError(t, err, "a limit is not a failure")
		count := func(results []clerkinvite.Result) (pending, reserved int) {
			for _, r := range results {
				require.NoError(t, r.Err)
				switch r.Member.Status {
				case clerkinvite.StatusPending:
					pending++
				case clerkinvite.StatusReserved:
					reserved++
				default:
					t.Errorf("%v", r.Member)
				}
			}
			return pending, reserved
		}
		pending, reserved := count(results)
		require.Equal(t, 23, pending)
		require.Equal(t, 37, reserved)
		require.Equal(t, 7, b.CreateRequests(), "one request of each endpoint was refused")

		// The same list again continues, and this time waits.
		var waits []time.Duration
		results, err = b.InviteMany(t.Context(), ps, &clerkinvite.ManyOptions{Wait: true, Progress: func(p clerkinvite.ManyProgress) {
			require.Equal(t, 60, p.Total)
			if !p.WaitUntil.IsZero() {
				waits = append(waits, p.WaitUntil.Sub(b.Clock.Now()))
				b.Clock.Advance(p.WaitUntil.Sub(b.Clock.Now()))
			}
		}})
		require.NoError(t, err)
		duplicates := 0
		for i, r := range results {
			var dup *clerkinvite.DuplicateEmailError
			if errors.As(r.Err, &dup) {
				duplicates++
				require.Equal(t, clerkinvite.StatusPending, r.Member.Status, i)
			} else {
				require.NoError(t, r.Err)
			}
		}
		require.Equal(t, 23, duplicates)
		require.Len(t, waits, 2)
		b.RequireEachInvitedOnce(t, ps)
	})
}

// People whose invitations have expired share requests like new ones. While the endpoints are limited
// no look-up is wasted.
func TestInviteMany_ExpiredMembersShareRequests(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		ps := testkit.People(40, "p")
		_, err := b.InviteMany(t.Context(), ps, nil)
		require.NoError(t, err)
		b.Clock.Advance(31 * 24 * time.Hour)
		limits := clerkinvitetest.DocumentedLimits()
		limits.Create.Requests, limits.CreateBulk.Requests = 1, 2
		b.Clerk.SetLimits(limits)
		b.Clerk.ResetCounts()

		for round := range 3 {
			_, err = b.InviteMany(t.Context(), ps, nil)
			require.NoError(t, err)
			if round == 0 {
				require.LessOrEqual(t, b.Clerk.Requests()[clerkinvitetest.CallList], 3*35, "look-ups are linear")
				require.Equal(t, 21, b.Clerk.Emails()-len(ps))
			}
			before := b.Clerk.Requests()[clerkinvitetest.CallList]
			_, err = b.InviteMany(t.Context(), ps, nil)
			require.NoError(t, err)
			require.Equal(t, before, b.Clerk.Requests()[clerkinvitetest.CallList], "limited, so no look-up")
			b.Clock.Advance(2 * time.Hour)
		}
		for _, p := range ps {
			require.Equal(t, 2, b.Clerk.EmailsTo(p.Email))
			require.Len(t, b.Clerk.OpenInvitations(p.Email), 1)
		}
	})
}

// A call that is canceled after any request loses nothing and can be repeated.
func TestInviteMany_Canceled(t *testing.T) {
	t.Parallel()
	testkit.OnBoth(t, func(t *testing.T, fresh func(*testing.T, testkit.Options) *testkit.Rig) {
		for _, n := range []int{-1, 0, 1, 2, 3} {
			t.Run(fmt.Sprint("after ", n), func(t *testing.T) {
				t.Parallel()
				b := fresh(t, testkit.Options{})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				calls := 0
				b.Clerk.OnCall(func(_ context.Context, _ clerkinvitetest.Call, w clerkinvitetest.When) {
					if w == clerkinvitetest.After {
						if calls++; calls == n+1 {
							cancel()
						}
					}
				})
				if n < 0 {
					cancel()
				}
				ps := testkit.People(30, "p")
				results, err := b.InviteMany(ctx, ps, nil)
				require.ErrorIs(t, err, context.Canceled)
				require.Len(t, results, 30)
				for i, r := range results {
					require.True(t, r.Member != nil || errors.Is(r.Err, context.Canceled), "%d: %v", i, r)
				}
				b.Clerk.OnCall(nil)
				b.Clock.Advance(time.Hour)
				results, err = b.InviteMany(t.Context(), ps, nil)
				require.NoError(t, err)
				require.Len(t, results, 30)
				b.RequireEachInvitedOnce(t, ps)
			})
		}
	})
}

// Each behavior that Clerk does not document, with some refused people in a bulk request: the others are invited, and
// each person once.
func TestPromise3_BulkWhateverClerkDoes(t *testing.T) {
	t.Parallel()
	testkit.EachBehavior(t, func(t *testing.T, b *testkit.Rig) {
		ps := testkit.People(25, "p")
		b.Clerk.CreateForeign("p3@example.com", nil)
		b.Clerk.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{{Address: "p7@example.com"}}}) // unverified
		b.Clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
			if c == clerkinvitetest.CallFindUsers && w == clerkinvitetest.After {
				b.Clerk.OnCall(nil)
				b.Clerk.SignUp("p13@example.com", true) // between the look-up and the create
			}
		})
		results, err := b.InviteMany(t.Context(), ps, nil)
		require.NoError(t, err)
		require.Len(t, results, 25)
		for range 5 { // if Clerk shows its own writes late, a later attempt succeeds
			b.Clerk.Settle()
			b.Clock.Advance(2 * time.Hour)
			_, err := b.Deliver(t.Context(), nil)
			require.NoError(t, err)
		}
		for i, p := range ps {
			m := b.Member(t, p.Email)
			switch i {
			case 13:
				require.Equal(t, clerkinvite.StatusActive, m.Status)
				require.Zero(t, b.Clerk.EmailsTo(p.Email))
			case 3:
				require.Equal(t, clerkinvite.StatusPending, m.Status)
				require.Equal(t, 1, b.Clerk.EmailsTo(p.Email))
			default:
				b.RequireInvited(t, p.Email, 1)
			}
		}
	})
}

// The response to a bulk request is lost in every way, before and after it took effect.
func TestPromise3_LostBulkResponses(t *testing.T) {
	t.Parallel()
	testkit.EachLostResponse(t, clerkinvitetest.CallCreateBulk, func(t *testing.T, b *testkit.Rig, lost clerkinvitetest.Fault) {
		b.Clerk.Fail(lost)
		ps := testkit.People(25, "p")
		results, err := b.InviteMany(t.Context(), ps, nil)
		require.Len(t, results, 25)
		for range 3 {
			b.Clock.Advance(time.Hour)
			_, deliverErr := b.Deliver(t.Context(), nil)
			require.NoError(t, deliverErr, "after %v", err)
		}
		b.RequireEachInvitedOnce(t, ps)
	})
}

// The response to a bulk request lacks some invitations.
func TestInviteMany_ResponseForFewerThanRequested(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	b = testkit.New(t, testkit.Options{}, b.Clerk, someOf{b.API}, b.Store)
	ps := testkit.People(10, "p")
	results, err := b.InviteMany(t.Context(), ps, nil)
	require.NoError(t, err)
	lost := 0
	for _, r := range results {
		var clerkErr *clerkinvite.ClerkInvitationError
		if errors.As(r.Err, &clerkErr) {
			require.Equal(t, clerkinvite.Uncertain, clerkErr.Outcome)
			lost++
		}
	}
	require.Equal(t, 4, lost)
	b.Clock.Advance(time.Hour)
	_, err = b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	b.RequireEachInvitedOnce(t, ps)
}

type someOf struct{ clerkinvite.ClerkAPI }

func (s someOf) CreateInvitations(ctx context.Context, rs []clerkinvite.InvitationRequest) ([]clerkinvite.Invitation, error) {
	created, err := s.ClerkAPI.CreateInvitations(ctx, rs)
	slices.Reverse(created)
	return created[:min(6, len(created))], err
}

// inOrder records the addresses that are inserted.
type inOrder struct {
	clerkinvite.TxStore

	inserted []clerkinvite.Ref
}

func (s *inOrder) Insert(ctx context.Context, rows []*clerkinvite.Member) ([]clerkinvite.Result, error) {
	for _, m := range rows {
		s.inserted = append(s.inserted, m.Ref())
	}
	return s.TxStore.Insert(ctx, rows)
}

// Host transactions that reserve or adopt the same people in different orders do not deadlock, because all their statements
// insert the addresses in the same order. The results are in the order of the input.
func TestManyInsertInOneOrder(t *testing.T) {
	t.Parallel()
	clerk := clerkinvitetest.NewClerk()
	store := clerkinvitetest.NewMemoryStore()
	b := testkit.New(t, testkit.Options{}, clerk, clerk, store)
	ps := testkit.People(2100, "p")
	adopted := make([]clerkinvite.Adopted, len(ps))
	for i := range ps {
		ps[i].TenantID = fmt.Sprintf("tenant%d", i%3)
		adopted[i] = clerkinvite.Adopted{InviteParams: ps[i], ClerkUserID: fmt.Sprintf("user_%d", i)}
		adopted[i].TenantID = "adopted" + adopted[i].TenantID
	}
	slices.Reverse(ps)
	slices.Reverse(adopted)
	for what, write := range map[string]func(*clerkinvite.Reserver) ([]clerkinvite.Result, error){
		"ReserveMany": func(r *clerkinvite.Reserver) ([]clerkinvite.Result, error) { return r.ReserveMany(t.Context(), ps) },
		"Adopt":       func(r *clerkinvite.Reserver) ([]clerkinvite.Result, error) { return r.Adopt(t.Context(), adopted) },
	} {
		order := &inOrder{TxStore: store}
		results, err := write(b.InTx(order))
		require.NoError(t, err, what)
		require.Len(t, order.inserted, len(ps), what)
		require.True(t, slices.IsSortedFunc(order.inserted, func(a, b clerkinvite.Ref) int {
			return strings.Compare(a.TenantID+"\x00"+a.Email, b.TenantID+"\x00"+b.Email)
		}), what)
		for i, r := range results {
			require.NoError(t, r.Err, what)
			require.Equal(t, ps[i].Email, r.Member.Email, what)
		}
	}
}

// Seats, audit rows and invitations of ten thousand people in the host's transaction.
func TestReserveManyInATransaction(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t).Pool(t)
	clock := testkit.NewClock()
	store := clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{Now: clock.Now})
	require.NoError(t, store.Migrate(t.Context()))
	_, err := pool.Exec(t.Context(), "CREATE TABLE audit (what text)")
	require.NoError(t, err)
	clerk := clerkinvitetest.NewClerk()
	b := testkit.New(t, testkit.Options{Clock: clock}, clerk, clerk, store)
	b.MustInvite(t, "p77@example.com")
	clerk.ResetCounts()
	people := 10_000
	if testing.Short() {
		people = 1000
	}
	ps := testkit.People(people, "p")
	for _, commit := range []bool{false, true} {
		tx, err := pool.Begin(t.Context())
		require.NoError(t, err)
		_, err = tx.Exec(t.Context(), "INSERT INTO audit VALUES ('import')")
		require.NoError(t, err)
		results, err := b.InTx(store.WithTx(tx)).ReserveMany(t.Context(), ps)
		require.NoError(t, err)
		require.Len(t, results, len(ps))
		for i, r := range results {
			if i == 77 {
				var dup *clerkinvite.DuplicateEmailError
				require.ErrorAs(t, r.Err, &dup)
				continue
			}
			require.NoError(t, r.Err)
			require.Equal(t, ps[i].Email, r.Member.Email)
		}
		if commit {
			require.NoError(t, tx.Commit(t.Context()))
		} else {
			require.NoError(t, tx.Rollback(t.Context()))
		}
		var rows, audits int
		require.NoError(t, pool.QueryRow(t.Context(), "SELECT (SELECT count(*) FROM clerkinvite_member), (SELECT count(*) FROM audit)").Scan(&rows, &audits))
		if commit {
			require.Equal(t, []int{people, 1}, []int{rows, audits})
		} else {
			require.Equal(t, []int{1, 0}, []int{rows, audits})
		}
		require.Zero(t, clerk.RequestCount(), "nothing is sent before the commit")
	}
	report, err := b.Deliver(t.Context(), &clerkinvite.DeliverOptions{Limit: 300})
	require.NoError(t, err)
	require.Equal(t, 300, report.Invited)
}

// A lost response that contains Retry-After is not a rate limit: the emails may have been sent.
func TestInviteMany_LostResponseWithRetryAfterIsAnError(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreateBulk, Kind: clerkinvitetest.Empty503, When: clerkinvitetest.After, RetryAfter: 5 * time.Second})
	ps := testkit.People(3, "p")
	var last clerkinvite.ManyProgress
	results, err := b.InviteMany(t.Context(), ps, &clerkinvite.ManyOptions{Progress: func(p clerkinvite.ManyProgress) { last = p }})
	require.NoError(t, err)
	for _, r := range results {
		var clerkErr *clerkinvite.ClerkInvitationError
		require.ErrorAs(t, r.Err, &clerkErr)
		require.Equal(t, clerkinvite.Uncertain, clerkErr.Outcome)
	}
	require.Equal(t, clerkinvite.ManyProgress{Total: 3, Failed: 3}, last)
	b.Clock.Advance(time.Hour)
	_, err = b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	b.RequireEachInvitedOnce(t, ps)
}

// A member is purged before its turn.
func TestInviteMany_ReportsPurgedMembers(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	var once sync.Once
	var last clerkinvite.ManyProgress
	results, err := b.InviteMany(t.Context(), testkit.People(3, "p"), &clerkinvite.ManyOptions{Progress: func(p clerkinvite.ManyProgress) {
		once.Do(func() { require.NoError(t, b.Purge(t.Context(), testkit.Acme("p1@example.com"))) })
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
	require.Zero(t, b.Clerk.EmailsTo("p1@example.com"))
}

// Another process delivers the member, and Clerk refuses it.
func TestInviteMany_ReportsRefusalsSeenByAnotherProcess(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	b.FailCreates(clerkinvitetest.Fault{Times: -1, Status: 403, Code: "not_allowed_access"})
	other := b.Workers(t, 1)[0]
	var once sync.Once
	results, err := b.InviteMany(t.Context(), testkit.People(1, "p"), &clerkinvite.ManyOptions{Progress: func(clerkinvite.ManyProgress) {
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

// An address that occurs twice counts, too.
func TestInviteMany_ProgressReachesTheTotal(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	var last clerkinvite.ManyProgress
	_, err := b.InviteMany(t.Context(), append(testkit.People(3, "p"), testkit.People(3, "p")...), &clerkinvite.ManyOptions{Progress: func(p clerkinvite.ManyProgress) {
		require.LessOrEqual(t, p.Reserved+p.Invited+p.Linked+p.Failed, p.Total)
		last = p
	}})
	require.NoError(t, err)
	require.Equal(t, clerkinvite.ManyProgress{Total: 6, Invited: 3, Failed: 3}, last)
}

// One row changes whenever it is about to be written. It is that person's problem.
func TestMany_RowThatKeepsChangingDoesNotBlockOthers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		call func(b *testkit.Rig, ps []clerkinvite.InviteParams) ([]clerkinvite.Result, error)
		want clerkinvite.Status
	}{
		"ReserveMany": {func(b *testkit.Rig, ps []clerkinvite.InviteParams) ([]clerkinvite.Result, error) {
			return b.ReserveMany(t.Context(), ps)
		}, clerkinvite.StatusReserved},
		"InviteMany": {func(b *testkit.Rig, ps []clerkinvite.InviteParams) ([]clerkinvite.Result, error) {
			return b.InviteMany(t.Context(), ps, nil)
		}, clerkinvite.StatusPending},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clerk := clerkinvitetest.NewClerk()
			store := refusingStore{clerkinvitetest.NewMemoryStore(), refuseStatus("ada@example.com", clerkinvite.StatusReserved, clerkinvite.ErrConflict)}
			b := testkit.New(t, testkit.Options{}, clerk, clerk, store)
			memberIn(t, b, clerkinvite.StatusRevoked)
			ps := testkit.People(3, "p")
			ps[1].Email = "ada@example.com"
			results, err := c.call(b, ps)
			require.NoError(t, err)
			require.ErrorIs(t, results[1].Err, clerkinvite.ErrConflict)
			for _, i := range []int{0, 2} {
				require.NoError(t, results[i].Err)
				require.Equal(t, c.want, results[i].Member.Status)
				require.Equal(t, ps[i].Email, results[i].Member.Email)
			}
			require.Equal(t, clerkinvite.StatusRevoked, b.Member(t, "ada@example.com").Status)
		})
	}
}

// The store fails after new rows are inserted, and before an existing one is renewed.
func TestReserveMany_ReportsRowsThatWereWritten(t *testing.T) {
	t.Parallel()
	b, store := testkit.NewFaulty(t)
	memberIn(t, b, clerkinvite.StatusRevoked)
	ps := testkit.People(3, "p")
	ps[1].Email = "ada@example.com"
	down := errors.New("the database is down")
	store.Fail(down, false)
	results, err := b.ReserveMany(t.Context(), ps)
	require.ErrorIs(t, err, down)
	require.ErrorIs(t, results[1].Err, down)
	for _, i := range []int{0, 2} {
		require.NoError(t, results[i].Err)
		require.Equal(t, clerkinvite.StatusReserved, b.Member(t, ps[i].Email).Status)
		require.Equal(t, b.Member(t, ps[i].Email), results[i].Member)
	}
}

// Bulk says whether the person was last asked for among many or alone.
func TestBulk(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		ada := []clerkinvite.InviteParams{testkit.Params("acme", "ada@example.com")}
		requireBulk := func(bulk bool) {
			t.Helper()
			require.Equal(t, bulk, b.Member(t, "ada@example.com").Bulk)
		}
		_, err := b.ReserveMany(t.Context(), ada)
		require.NoError(t, err)
		requireBulk(true)

		b.FailCreates(clerkinvitetest.Fault{Status: 429, RetryAfter: time.Minute})
		_, err = b.TryInvite(t, "ada@example.com")
		require.Error(t, err)
		requireBulk(false)
		_, err = b.InviteMany(t.Context(), ada, nil) // joins those who asked for her alone
		require.NoError(t, err)
		requireBulk(false)

		b.Clerk.ClearFaults()
		b.Clock.Advance(time.Hour)
		_, err = b.Revoke(t.Context(), testkit.Ada)
		require.NoError(t, err)
		_, err = b.InviteMany(t.Context(), ada, nil)
		require.NoError(t, err)
		requireBulk(true)
		require.Equal(t, clerkinvite.StatusPending, b.Member(t, "ada@example.com").Status)

		b.Clock.Advance(time.Hour)
		_, err = b.Resend(t.Context(), testkit.Ada)
		require.NoError(t, err)
		requireBulk(false)

		for _, again := range []struct {
			bulk    bool
			reserve func() error
		}{
			{true, func() error { _, err := b.ReserveMany(t.Context(), ada); return err }},
			{false, func() error { _, err := b.Reserve(t.Context(), ada[0]); return err }},
			{true, func() error { _, err := b.ReserveMany(t.Context(), ada); return err }},
			{false, func() error { b.MustInvite(t, "ada@example.com"); return nil }},
		} {
			_, err = b.Revoke(t.Context(), testkit.Ada)
			require.NoError(t, err)
			require.NoError(t, again.reserve())
			requireBulk(again.bulk)
		}
	})
}

// The invitation of a lost create was revoked in the dashboard, and the new create meets a rate limit: the person waits
// like the others.
func TestInviteMany_SecondInvitationMeetsALimit(t *testing.T) {
	t.Parallel()
	for _, wait := range []bool{false, true} {
		t.Run(fmt.Sprint("wait: ", wait), func(t *testing.T) {
			t.Parallel()
			b := testkit.NewMemory(t, testkit.Options{})
			b.FailCreates(clerkinvitetest.Fault{When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
			_, err := b.TryInvite(t, "ada@example.com")
			require.Error(t, err)
			b.Clerk.ClearFaults()
			b.Clerk.RevokeInDashboard(b.Clerk.OpenInvitations("ada@example.com")[0].ID)
			b.Clock.Advance(2 * time.Minute)
			b.FailCreates(clerkinvitetest.Fault{Status: 429, RetryAfter: 10 * time.Minute})

			var last clerkinvite.ManyProgress
			results, err := b.InviteMany(t.Context(), []clerkinvite.InviteParams{testkit.Params("acme", "ada@example.com")}, &clerkinvite.ManyOptions{
				Wait: wait, Progress: func(p clerkinvite.ManyProgress) {
					last = p
					if !p.WaitUntil.IsZero() {
						b.Clock.Advance(p.WaitUntil.Sub(b.Clock.Now()))
					}
				},
			})
			require.NoError(t, err)
			require.NoError(t, results[0].Err)
			if !wait {
				require.Equal(t, clerkinvite.StatusReserved, results[0].Member.Status)
				require.Equal(t, clerkinvite.ManyProgress{Total: 1, Reserved: 1}, last)
				return
			}
			require.Equal(t, clerkinvite.StatusPending, results[0].Member.Status)
			require.Equal(t, clerkinvite.ManyProgress{Total: 1, Invited: 1}, last)
			b.RequireInvited(t, "ada@example.com", 2)
		})
	}
}

// The response to a create was lost, and the next attempt meets a rate limit when no other person is waiting. InviteMany
// waits for this person too.
func TestInviteMany_WaitsAfterALostResponse(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		limited := func(c clerkinvitetest.Call) {
			b.Clerk.Fail(clerkinvitetest.Fault{Call: c, Status: 429, Code: "too_many_requests", RetryAfter: 10 * time.Minute})
		}
		b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreateBulk, When: clerkinvitetest.Before, Kind: clerkinvitetest.Reset})
		limited(clerkinvitetest.CallCreate)
		ps := append(testkit.People(2, "p"), testkit.Params("acme", "single@example.com"))
		ps[2].PublicMetadata = map[string]any{"plan": "pro"}
		waits := 0
		results, err := b.InviteMany(t.Context(), ps, &clerkinvite.ManyOptions{Wait: true, Progress: func(p clerkinvite.ManyProgress) {
			if p.WaitUntil.IsZero() {
				return
			}
			if waits++; waits == 1 {
				require.Equal(t, clerkinvite.ManyProgress{Total: 3, Reserved: 1, Failed: 2, WaitUntil: p.WaitUntil}, p)
				b.Clerk.AddVerifiedUser(ps[2].Email)
				limited(clerkinvitetest.CallCreate)
				limited(clerkinvitetest.CallCreateBulk)
			}
			b.Clock.Advance(p.WaitUntil.Sub(b.Clock.Now()))
		}})
		require.NoError(t, err)
		require.Equal(t, 2, waits)
		for i, want := range []clerkinvite.Status{clerkinvite.StatusPending, clerkinvite.StatusPending, clerkinvite.StatusActive} {
			require.NoError(t, results[i].Err)
			require.Equal(t, want, results[i].Member.Status)
		}
		b.RequireEachInvitedOnce(t, ps[:2])
	})
}

// The invitation of an earlier attempt has ended, and the lease ends while the person is invited again: Run invites them.
func TestInviteMany_LeaseEndsWhileInvitingAgain(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
		_, err := b.TryInvite(t, email)
		require.Error(t, err)
		b.Clerk.RevokeInDashboard(b.Clerk.OpenInvitations(email)[0].ID)
		b.Clock.Advance(2 * time.Minute)
		var looked atomic.Int64
		b.Clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
			if c == clerkinvitetest.CallFindUsers && w == clerkinvitetest.After && looked.Add(1) == 2 {
				b.Clock.Advance(45 * time.Second)
			}
		})
		results, err := b.InviteMany(t.Context(), []clerkinvite.InviteParams{testkit.Params("acme", email)}, nil)
		require.NoError(t, err)
		require.NoError(t, results[0].Err)
		require.Equal(t, clerkinvite.StatusReserved, results[0].Member.Status)
		b.Clock.Advance(2 * time.Minute)
		_, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusPending, b.Member(t, email).Status)
		require.Equal(t, 2, b.Clerk.EmailsTo(email))
	})
}
