package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
)

// The workers of the story are this program once more, which in a test is the test's.
func TestMain(m *testing.M) {
	if isWorker() {
		return
	}
	os.Exit(pgtest.Main(m))
}

func TestRiver(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t).Pool(t, func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["search_path"] = "public" })
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), pool, &out), "%s", &out)
	expected, err := os.ReadFile("expected.txt")
	require.NoError(t, err)
	require.Equal(t, string(expected), out.String())
	var steps int
	require.NoError(t, pool.QueryRow(t.Context(), `SELECT count(*) FROM river_job WHERE kind = 'clerkinvite_reconcile' AND args ->> 'cursor' <> ''`).Scan(&steps))
	require.Positive(t, steps, "the last of those who joined come after the first 40 members")
}

func setup(t *testing.T) (*host, *clerkinvitetest.Clerk) {
	t.Helper()
	clerk := clerkinvitetest.NewClerk()
	h, err := newHost(t.Context(), pgtest.New(t).Pool(t), clerk)
	require.NoError(t, err)
	return h, clerk
}

func (h *host) jobCount(t *testing.T) (n int) {
	t.Helper()
	require.NoError(t, h.pool.QueryRow(t.Context(), `SELECT count(*) FROM river_job`).Scan(&n))
	return n
}

// Team, members and job are committed together or not at all.
func TestAllOrNothing(t *testing.T) {
	t.Parallel()
	h, clerk := setup(t)
	var pg *pgconn.PgError
	require.ErrorAs(t, h.addTeam(t.Context(), "acme", "none", []string{"ada@example.com"}), &pg)
	require.Equal(t, "23503", pg.Code)
	require.Zero(t, h.jobCount(t))
	c, err := h.count(t.Context())
	require.NoError(t, err)
	require.Zero(t, c)

	require.NoError(t, h.addTeam(t.Context(), "acme", "basic", []string{"ada@example.com"}))
	require.Equal(t, 1, h.jobCount(t))
	c, err = h.count(t.Context())
	require.NoError(t, err)
	require.Equal(t, counts{reserved: 1}, c)
	require.Zero(t, clerk.RequestCount(), "nothing is sent in the transaction")

	var dup *clerkinvite.DuplicateEmailError
	require.ErrorAs(t, h.addTeam(t.Context(), "acme-2", "basic", []string{"joan@example.com", "joan@example.com"}), &dup)
	c, err = h.count(t.Context())
	require.NoError(t, err)
	require.Equal(t, counts{reserved: 1}, c)
}

// Many transactions that commit within a second make one job.
func TestManyInsertsMakeFewJobs(t *testing.T) {
	t.Parallel()
	h, _ := setup(t)
	const each = 25
	began := time.Now()
	var all sync.WaitGroup
	errs := make([]error, 4)
	for w := range errs {
		all.Go(func() {
			for range each {
				errs[w] = errors.Join(errs[w], pgx.BeginFunc(t.Context(), h.pool, func(tx pgx.Tx) error {
					_, err := h.jobs.InsertTx(t.Context(), tx, deliverArgs{}, nil)
					return err
				}))
			}
		})
	}
	all.Wait()
	require.NoError(t, errors.Join(errs...))
	seconds := int(time.Now().Unix()-began.Unix()) + 1
	require.LessOrEqual(t, h.jobCount(t), seconds, "of %d inserts", each*len(errs))

	// A job that a killed process has left as running, and one that is done, keep no new one away.
	for _, state := range []string{"running", "completed"} {
		_, err := h.pool.Exec(t.Context(), `UPDATE river_job SET state = $1::text::river_job_state, attempted_at = now(),
	finalized_at = CASE WHEN $1::text = 'completed' THEN now() END`, state)
		require.NoError(t, err)
		before := h.jobCount(t)
		require.Eventually(t, func() bool {
			_, err := h.jobs.Insert(t.Context(), deliverArgs{}, nil)
			return err == nil && h.jobCount(t) > before
		}, time.Minute, 20*time.Millisecond)
	}
}

// One job delivers a hundred, and comes again while there are more. A rate limit is no failure of the job's; a
// wrong key is.
func TestDeliverJob(t *testing.T) {
	t.Parallel()
	h, clerk := setup(t)
	var people []clerkinvite.InviteParams
	for i := range passLimit + 1 {
		people = append(people, params(i))
	}
	_, err := h.invites.ReserveMany(t.Context(), people)
	require.NoError(t, err)
	w := &deliverWorker{invites: h.invites, lease: time.Minute}
	var snooze *river.JobSnoozeError
	require.ErrorAs(t, w.Work(t.Context(), nil), &snooze)
	require.Zero(t, snooze.Duration)
	require.NoError(t, w.Work(t.Context(), nil))
	require.Equal(t, passLimit+1, clerk.Emails())

	refuse := func(status int, wait time.Duration) error {
		_, err := h.invites.Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: fmt.Sprintf("of-%d@example.com", status)})
		require.NoError(t, err)
		fault := clerkinvitetest.Fault{Kind: clerkinvitetest.Answer, Status: status, RetryAfter: wait, Times: -1}
		for _, fault.Call = range []clerkinvitetest.Call{clerkinvitetest.CallCreate, clerkinvitetest.CallCreateBulk} {
			clerk.Fail(fault)
		}
		defer clerk.ClearFaults()
		return w.Work(t.Context(), nil)
	}
	var fault *clerkinvite.ClerkInvitationError
	require.ErrorAs(t, refuse(401, 0), &fault)
	require.NoError(t, refuse(429, time.Minute))
	require.Equal(t, passLimit+1, clerk.Emails())
}

// Where waiting helps the job waits; everything else is a failed job.
func TestOutcome(t *testing.T) {
	t.Parallel()
	require.NoError(t, outcome(nil))
	limit := &clerkinvite.ClerkInvitationError{Err: &clerkinvite.APIError{StatusCode: 503, RetryAfter: time.Minute}}
	var snooze *river.JobSnoozeError
	require.ErrorAs(t, outcome(limit), &snooze)
	require.Equal(t, time.Minute, snooze.Duration)
	fault := &clerkinvite.ClerkInvitationError{Err: &clerkinvite.APIError{StatusCode: 401}}
	require.Equal(t, error(fault), outcome(fault))
}
