package clerkinvite_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
)

// people returns n addresses in tenant acme.
func people(n int, prefix string) []clerkinvite.InviteParams {
	ps := make([]clerkinvite.InviteParams, n)
	for i := range ps {
		ps[i] = params("acme", fmt.Sprintf("%s%d@example.com", prefix, i))
	}
	return ps
}

// requireEachInvitedOnce asserts that everybody has one open invitation and got one email.
func (b *bundle) requireEachInvitedOnce(t *testing.T, ps []clerkinvite.InviteParams) {
	t.Helper()
	for _, p := range ps {
		b.requireInvited(t, p.Email, 1)
	}
}

func TestInviteMany(t *testing.T) {
	t.Parallel()
	each(t, options{}, func(t *testing.T, b *bundle) {
		b.clerk.AddVerifiedUser("user@example.com")
		b.clerk.AddUser(clerkinvitetest.UserSpec{Banned: true, Emails: []clerkinvitetest.EmailSpec{{Address: "banned@example.com", Verified: true}}})
		b.clerk.CreateForeign("elsewhere@example.com", nil)
		b.failCreates(clerkinvitetest.Fault{Email: "refused@example.com", Times: -1, Status: 403, Code: "not_allowed_access",
			Meta: map[string]any{"identifiers": []string{"refused@example.com"}}})
		there := b.mustInvite(t, "there@example.com")
		b.clerk.ResetCounts()

		var ps []clerkinvite.InviteParams
		for _, name := range []string{"new0", "user", "nonsense", "banned", "NEW0", "there", "elsewhere", "refused", "new1", "new2"} {
			ps = append(ps, params("acme", name+"@example.com"))
		}
		ps[2].Email = "nonsense"
		withMetadata := params("acme", "metadata@example.com")
		withMetadata.PublicMetadata = map[string]any{"plan": "pro"}
		ps = append(ps, withMetadata, params("globex", "new0@example.com"))
		var last clerkinvite.ManyProgress
		results, err := b.InviteMany(t.Context(), ps, &clerkinvite.ManyOptions{Progress: func(p clerkinvite.ManyProgress) { last = p }})
		require.NoError(t, err, "what is wrong with one person is that person's")
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
		require.Equal(t, clerkinvite.ManyProgress{Total: 12, Invited: 6, Linked: 1, Failed: 5}, last)

		b.requireInvited(t, "new1@example.com", 1)
		require.Equal(t, 2, b.clerk.EmailsTo("new0@example.com"), "one for each tenant")
		require.JSONEq(t, `{"plan":"pro","clerkinvite":{"id":"`+results[10].Member.ID+`","send":1}}`,
			string(b.clerk.Invitations("metadata@example.com")[0].PublicMetadata))

		empty, err := b.InviteMany(t.Context(), nil, nil)
		require.NoError(t, err)
		require.Empty(t, empty)
	})
}

// 200 people cost Clerk 22 requests, and each chunk of 100 the same number of statements.
func TestInviteManyCost(t *testing.T) {
	t.Parallel()
	count := &statementCounter{}
	b := newRealBundle(t, options{}, func(c *pgxpool.Config) { c.ConnConfig.Tracer = count })
	statements := make(map[int]int)
	for i, n := range []int{100, 200, 300, 1000} {
		ps := people(n, fmt.Sprintf("round%d-", i))
		b.clerk.ResetCounts()
		count.n.Store(0)
		results, err := b.InviteMany(t.Context(), ps, nil)
		require.NoError(t, err)
		for _, r := range results {
			require.Equal(t, clerkinvite.StatusPending, r.Member.Status)
		}
		require.Equal(t, n/100+n/10, b.clerk.RequestCount(), "%v", b.clerk.Requests())
		statements[n] = int(count.n.Load())
	}
	perChunk := statements[200] - statements[100]
	require.Equal(t, perChunk, statements[300]-statements[200])
	require.Equal(t, 7*perChunk, statements[1000]-statements[300])
	require.Equal(t, 4+3*10, perChunk, "three gates and a claim, and for each request its turn, the row's settling and the turn's end")
	require.Equal(t, 1, statements[100]-perChunk, "the reservation")
}

func TestInviteManyMeetsALimit(t *testing.T) {
	t.Parallel()
	each(t, options{}, func(t *testing.T, b *bundle) {
		limits := clerkinvitetest.DocumentedLimits()
		limits.Create.Requests, limits.CreateBulk.Requests = 3, 2
		b.clerk.SetLimits(limits)
		ps := people(60, "p")
		results, err := b.InviteMany(t.Context(), ps, nil)
		require.NoError(t, err, "a limit is no failure")
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
		require.Equal(t, 7, b.creates(), "one request of each endpoint was refused")

		// The same list again goes on, and this time waits.
		var waits []time.Duration
		results, err = b.InviteMany(t.Context(), ps, &clerkinvite.ManyOptions{Wait: true, Progress: func(p clerkinvite.ManyProgress) {
			require.Equal(t, 60, p.Total)
			if !p.WaitUntil.IsZero() {
				waits = append(waits, p.WaitUntil.Sub(b.clock.Now()))
				b.clock.Advance(p.WaitUntil.Sub(b.clock.Now()))
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
		b.requireEachInvitedOnce(t, ps)
	})
}

// A caller who goes away after any call to Clerk loses nothing, and can come back.
func TestInviteManyIsCanceled(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, fresh func(*testing.T, options) *bundle) {
		for _, n := range []int{-1, 0, 1, 2, 3} {
			t.Run(fmt.Sprint("after ", n), func(t *testing.T) {
				t.Parallel()
				b := fresh(t, options{})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				calls := 0
				b.clerk.OnCall(func(_ context.Context, _ clerkinvitetest.Call, w clerkinvitetest.When) {
					if w == clerkinvitetest.After {
						if calls++; calls == n+1 {
							cancel()
						}
					}
				})
				if n < 0 {
					cancel()
				}
				ps := people(30, "p")
				results, err := b.InviteMany(ctx, ps, nil)
				require.ErrorIs(t, err, context.Canceled)
				require.Len(t, results, 30)
				for i, r := range results {
					require.True(t, r.Member != nil || errors.Is(r.Err, context.Canceled), "%d: %v", i, r)
				}
				b.clerk.OnCall(nil)
				b.clock.Advance(time.Hour)
				results, err = b.InviteMany(t.Context(), ps, nil)
				require.NoError(t, err)
				require.Len(t, results, 30)
				b.requireEachInvitedOnce(t, ps)
			})
		}
	})
}

// Whatever Clerk does where its documents are silent: a request for several of whom some
// are held up invites the others, and nobody twice.
func TestTogetherWhateverClerkDoes(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, fresh func(*testing.T, options) *bundle) {
		for _, behavior := range sample(t, behaviors()) {
			t.Run(behavior.Name, func(t *testing.T) {
				t.Parallel()
				b := fresh(t, options{})
				b.clerk.SetBehavior(behavior.Behavior)
				ps := people(25, "p")
				b.clerk.CreateForeign("p3@example.com", nil)
				b.clerk.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{{Address: "p7@example.com"}}}) // unverified
				b.clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
					if c == clerkinvitetest.CallFindUsers && w == clerkinvitetest.After {
						b.clerk.OnCall(nil)
						b.clerk.SignUp("p13@example.com", true) // between the look-up and the create
					}
				})
				results, err := b.InviteMany(t.Context(), ps, nil)
				require.NoError(t, err)
				require.Len(t, results, 25)
				for range 5 { // where Clerk shows its own writes late, a later attempt does it
					b.clerk.Settle()
					b.clock.Advance(2 * time.Hour)
					_, err := b.Deliver(t.Context(), nil)
					require.NoError(t, err)
				}
				for i, p := range ps {
					m := b.get(t, p.Email)
					switch i {
					case 13:
						require.Equal(t, clerkinvite.StatusActive, m.Status)
						require.Zero(t, b.clerk.EmailsTo(p.Email))
					case 3:
						require.Equal(t, clerkinvite.StatusPending, m.Status)
						require.Equal(t, 1, b.clerk.EmailsTo(p.Email))
					default:
						b.requireInvited(t, p.Email, 1)
					}
				}
			})
		}
	})
}

// The answer to a request for several is lost in every way, before and after it took effect.
func TestLostAnswersTogether(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, fresh func(*testing.T, options) *bundle) {
		for _, kind := range sample(t, clerkinvitetest.Kinds()) {
			for _, when := range []clerkinvitetest.When{clerkinvitetest.Before, clerkinvitetest.After} {
				t.Run(fmt.Sprintf("%s %s", kind, when), func(t *testing.T) {
					t.Parallel()
					b := fresh(t, options{timeout: 1200 * time.Millisecond})
					b.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreateBulk, Kind: kind, When: when})
					ps := people(25, "p")
					results, err := b.InviteMany(t.Context(), ps, nil)
					require.Len(t, results, 25)
					for range 3 {
						b.clock.Advance(time.Hour)
						_, deliverErr := b.Deliver(t.Context(), nil)
						require.NoError(t, deliverErr, "after %v", err)
					}
					b.requireEachInvitedOnce(t, ps)
				})
			}
		}
	})
}

// An answer to a request for several that lacks some of them.
func TestAnswerForFewerThanAsked(t *testing.T) {
	t.Parallel()
	b := mem(t, options{})
	b = newBundle(t, options{}, b.clerk, someOf{b.api}, b.store)
	ps := people(10, "p")
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
	b.clock.Advance(time.Hour)
	_, err = b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	b.requireEachInvitedOnce(t, ps)
}

type someOf struct{ clerkinvite.ClerkAPI }

func (s someOf) CreateInvitations(ctx context.Context, rs []clerkinvite.InvitationRequest) ([]clerkinvite.Invitation, error) {
	created, err := s.ClerkAPI.CreateInvitations(ctx, rs)
	slices.Reverse(created)
	return created[:min(6, len(created))], err
}

// Seats, audit rows and invitations of ten thousand people, in the host's own transaction.
func TestReserveManyInATransaction(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t).Pool(t)
	store := clerkinvite.NewPgxStore(pool, nil)
	require.NoError(t, store.Migrate(t.Context()))
	_, err := pool.Exec(t.Context(), "CREATE TABLE audit (what text)")
	require.NoError(t, err)
	clerk := clerkinvitetest.NewClerk()
	b := newBundle(t, options{}, clerk, clerk, store)
	b.mustInvite(t, "p77@example.com")
	clerk.ResetCounts()
	ps := people(10_000, "p")
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
			require.Equal(t, []int{10_000, 1}, []int{rows, audits})
		} else {
			require.Equal(t, []int{1, 0}, []int{rows, audits})
		}
		require.Zero(t, clerk.RequestCount(), "nothing is sent before the commit")
	}
	report, err := b.Deliver(t.Context(), &clerkinvite.DeliverOptions{Limit: 300})
	require.NoError(t, err)
	require.Equal(t, 300, report.Invited)
}
