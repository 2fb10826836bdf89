package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
)

// The workers are this program, which in a test is the test binary.
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
	require.Positive(t, steps, "some of the people who joined come after the first 40 members")
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

// Members that are committed while a job is running have their own job. They do not need a periodic job, and this test has
// none.
func TestNoWakeUpIsLost(t *testing.T) {
	t.Parallel()
	clerk := clerkinvitetest.NewClerk()
	looking, resume := make(chan struct{}), make(chan struct{})
	api := &slowClerk{ClerkAPI: clerk, looking: looking, resume: resume}
	h, err := newHost(t.Context(), pgtest.New(t).Pool(t), api)
	require.NoError(t, err)
	jobs, err := newClient(h.pool, h.invites, clientConfig{Delivers: true, Lease: time.Minute, Step: 40}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.NoError(t, jobs.Start(t.Context()))
	defer func() { require.NoError(t, jobs.Stop(context.WithoutCancel(t.Context()))) }()
	release := sync.OnceFunc(func() { close(resume) })
	defer release()

	require.NoError(t, h.addTeam(t.Context(), "acme", "basic", []string{"ada@example.com"}))
	<-looking
	const more = 20 // transactions, most of them in the same second as the first one
	for i := range more {
		require.NoError(t, h.addTeam(t.Context(), fmt.Sprint("acme-", i), "basic", []string{fmt.Sprintf("joan-%d@example.com", i)}))
	}
	require.Equal(t, 1+more, h.jobCount(t))
	release() // the current pass delivers the members that were due at its start
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, h.until(ctx, func(c counts) bool { return c.pending == 1+more }))
	require.Equal(t, 1+more, clerk.Emails())
}

// slowClerk closes looking in the first look-up, and then waits for resume.
type slowClerk struct {
	clerkinvite.ClerkAPI

	once            sync.Once
	looking, resume chan struct{}
}

func (c *slowClerk) FindUsers(ctx context.Context, q clerkinvite.UserQuery) ([]clerkinvite.User, error) {
	c.once.Do(func() {
		close(c.looking)
		<-c.resume
	})
	return c.ClerkAPI.FindUsers(ctx, q)
}

// A job delivers 100 members and runs again while more are due. A rate limit is not a failure of the job, but a wrong key is.
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
		_, err := h.invites.Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: fmt.Sprintf("person-%d@example.net", status)})
		require.NoError(t, err)
		fault := clerkinvitetest.Fault{Kind: clerkinvitetest.Response, Status: status, RetryAfter: wait, Times: -1}
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

// If Clerk says how long to wait, the job waits; other errors fail it.
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
