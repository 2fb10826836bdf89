package clerkinvite_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// Intervals of nanoseconds and of centuries neither panic nor make Run spin.
func TestRun_OddIntervals(t *testing.T) {
	t.Parallel()
	for _, o := range []clerkinvite.RunOptions{
		{ReconcileInterval: 10}, {ReconcileInterval: math.MaxInt64},
		{Interval: 1 << 62, ReconcileInterval: -1}, {Interval: math.MaxInt64, ReconcileInterval: -1},
	} {
		t.Run(fmt.Sprint(int64(o.Interval), " ", int64(o.ReconcileInterval)), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := testkit.NewMemory(t, testkit.Options{})
				var finds atomic.Int64
				b = testkit.New(t, testkit.Options{}, b.Clerk, b.API, onRead{b.Store, func() { finds.Add(1) }})
				ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
				defer cancel()
				require.ErrorIs(t, b.Run(ctx, &o), context.DeadlineExceeded)
				require.Positive(t, finds.Load())
				require.Less(t, finds.Load(), int64(10))
			})
		})
	}
}

// startRun starts Run, in a bubble of synctest. stop ends it and returns how it ended.
func startRun(t *testing.T, b *testkit.Rig, opts clerkinvite.RunOptions) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx, &opts) }()
	return func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(6 * time.Second): // a create may continue for 5
			return errors.New("it does not stop")
		}
	}
}

func TestRun_StopsWhileClerkHangs(t *testing.T) {
	t.Parallel()
	for _, call := range []clerkinvitetest.Call{clerkinvitetest.CallFindUsers, clerkinvitetest.CallCreateBulk, clerkinvitetest.CallList} {
		t.Run(string(call), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				clerk := clerkinvitetest.NewClerk()
				b := testkit.New(t, testkit.Options{}, clerk, clerk, clerkinvitetest.NewMemoryStore())
				const people = 25
				b.ReserveSome(t, people)
				clerk.Fail(clerkinvitetest.Fault{Call: call, Kind: clerkinvitetest.Timeout, Times: -1})
				stop := startRun(t, b, clerkinvite.RunOptions{Interval: time.Millisecond})
				synctest.Wait()
				require.Positive(t, clerk.Requests()[call])
				require.ErrorIs(t, stop(), context.Canceled)

				clerk.ClearFaults()
				b.Clock.Advance(2 * time.Hour)
				_, err := b.Deliver(t.Context(), nil)
				require.NoError(t, err)
				require.Equal(t, people, clerk.Emails())
			})
		})
	}
}

// failingDue is a store that fails so many times to find due members.
type failingDue struct {
	clerkinvite.Store
	left atomic.Int64
}

func (s *failingDue) Due(ctx context.Context, q clerkinvite.DueQuery) ([]*clerkinvite.Member, error) {
	if s.left.Add(-1) >= 0 {
		return nil, errors.New("the database is down")
	}
	return s.Store.Due(ctx, q)
}

func TestRun_ContinuesAfterFailures(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		clerk := clerkinvitetest.NewClerk()
		store := &failingDue{Store: clerkinvitetest.NewMemoryStore()}
		var log testkit.LockedBuffer
		b := testkit.New(t, testkit.Options{Configure: func(c *clerkinvite.Config) {
			c.Logger = slog.New(slog.NewTextHandler(&log, nil))
		}}, clerk, clerk, store)
		b.ReserveSome(t, 5)
		store.left.Store(3)
		// The first attempt shares a request, the second does not.
		b.FailCreates(clerkinvitetest.Fault{Kind: clerkinvitetest.Response, Status: 401, Code: "clerk_key_invalid"})
		stop := startRun(t, b, clerkinvite.RunOptions{Interval: time.Millisecond, ReconcileInterval: -1})
		for {
			time.Sleep(time.Millisecond)
			rows, err := store.Store.Due(t.Context(), clerkinvite.DueQuery{At: b.Clock.Now().AddDate(1, 0, 0)})
			if !slices.ContainsFunc(rows, func(m *clerkinvite.Member) bool {
				return m.ClaimedUntil != nil && m.ClaimedUntil.After(b.Clock.Now()) || !m.NextAttemptAt.After(b.Clock.Now())
			}) {
				b.Clock.Advance(time.Hour) // all are postponed, and no process is working
			}
			require.NoError(t, err)
			if len(rows) == 0 {
				break
			}
		}
		require.ErrorIs(t, stop(), context.Canceled)
		require.Equal(t, 5, clerk.Emails())
		require.Equal(t, 3+2, strings.Count(log.String(), "delivery stopped"))
		require.NotContains(t, log.String(), "reconcil", "it is switched off")
	})
}

// panicking panics if the host's code gets an argument that contains a text.
type panicking struct {
	clerkinvite.ClerkAPI
	clerkinvite.Store
	at  atomic.Value
	end func()
}

func (p *panicking) told(text string) {
	if p.at.Load() == text {
		p.end()
	}
}

func (p *panicking) FindUsers(ctx context.Context, q clerkinvite.UserQuery) ([]clerkinvite.User, error) {
	p.told("FindUsers")
	return p.ClerkAPI.FindUsers(ctx, q)
}

func (p *panicking) ListInvitations(ctx context.Context, q clerkinvite.InvitationQuery) ([]clerkinvite.Invitation, error) {
	p.told("ListInvitations")
	return p.ClerkAPI.ListInvitations(ctx, q)
}

func (p *panicking) CreateInvitation(ctx context.Context, r clerkinvite.InvitationRequest) (*clerkinvite.Invitation, error) {
	p.told("CreateInvitation")
	return p.ClerkAPI.CreateInvitation(ctx, r)
}

func (p *panicking) Due(ctx context.Context, q clerkinvite.DueQuery) ([]*clerkinvite.Member, error) {
	p.told("Due")
	return p.Store.Due(ctx, q)
}

func (p *panicking) Page(ctx context.Context, q clerkinvite.PageQuery) ([]*clerkinvite.Member, error) {
	p.told("Page")
	return p.Store.Page(ctx, q)
}

func (p *panicking) Start(ctx context.Context, op string) (context.Context, func(error)) {
	p.told("start " + op)
	return ctx, func(error) { p.told("end " + op) }
}

func (p *panicking) StateChanged(_ context.Context, from, to clerkinvite.Status) {
	p.told(fmt.Sprint(from, " to ", to))
}

func (p *panicking) Enabled(context.Context, slog.Level) bool { return true }
func (p *panicking) WithAttrs([]slog.Attr) slog.Handler       { return p }
func (p *panicking) WithGroup(string) slog.Handler            { return p }
func (p *panicking) Handle(_ context.Context, r slog.Record) error {
	p.told("log " + r.Message)
	return nil
}

// If the host's code panics in either goroutine of Run, the panic reaches Run's caller, who can recover and call Run again. No
// goroutine is left: the bubble would not end.
func TestRun_PanicsReachTheCaller(t *testing.T) {
	t.Parallel()
	for _, at := range []string{
		"FindUsers", "ListInvitations", "CreateInvitation", "Due", "Page",
		"start Deliver", "end Deliver", "start Reconcile", "end Reconcile", "start clerk.FindUsers", "start clerk.CreateInvitation", "end clerk.ListInvitations",
		"reserved to pending", "pending to active", "log reconciled",
	} {
		for way, end := range map[string]func(){"panic": func() { panic(io.ErrNoProgress) }, "Goexit": runtime.Goexit} {
			t.Run(at+"/"+way, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					clerk := clerkinvitetest.NewClerk()
					p := &panicking{ClerkAPI: clerk, Store: clerkinvitetest.NewMemoryStore(), end: end}
					b := testkit.New(t, testkit.Options{Configure: func(c *clerkinvite.Config) {
						c.Observer, c.Logger, c.Now, c.Lease = p, slog.New(p), time.Now, time.Second
					}}, clerk, p, p)
					clerk.SetNow(time.Now)
					b.MustInvite(t, "joined@example.com")
					_, err := clerk.Accept("joined@example.com")
					require.NoError(t, err)
					_, err = b.Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "due@example.com"})
					require.NoError(t, err)
					p.at.Store(at)

					opts := &clerkinvite.RunOptions{Interval: time.Second, ReconcileInterval: 10 * time.Second}
					long, stop := context.WithTimeout(t.Context(), 10*time.Hour)
					defer stop()
					recovered := make(chan any)
					go func() {
						defer close(recovered)
						defer func() { recovered <- recover() }()
						_ = b.Run(long, opts)
					}()
					got := <-recovered
					require.NoError(t, long.Err(), "Run has waited for its other goroutine")
					if way == "panic" {
						require.Equal(t, io.ErrNoProgress, got)
					} else {
						require.Nil(t, got)
					}

					p.at.Store("")
					ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
					defer cancel()
					require.ErrorIs(t, b.Run(ctx, opts), context.DeadlineExceeded)
					for email, status := range map[string]clerkinvite.Status{"joined@example.com": clerkinvite.StatusActive, "due@example.com": clerkinvite.StatusPending} {
						m, err := b.Get(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: email})
						require.NoError(t, err)
						require.Equal(t, status, m.Status)
					}
					require.Equal(t, 2, clerk.Emails())
				})
			})
		}
	}
}

// runFor runs Run with its defaults for a time. It must be called in a synctest bubble, in which b uses time.Now.
func runFor(t *testing.T, b *testkit.Rig, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	require.ErrorIs(t, b.Run(ctx, nil), context.DeadlineExceeded)
}

// newBubbleRig returns a Rig for a synctest bubble. It logs to log.
func newBubbleRig(t *testing.T, store clerkinvite.Store, log *testkit.LockedBuffer) *testkit.Rig {
	t.Helper()
	clerk := clerkinvitetest.NewClerk()
	b := testkit.New(t, testkit.Options{Configure: func(c *clerkinvite.Config) {
		c.Now, c.Logger = time.Now, slog.New(slog.NewTextHandler(log, nil))
	}}, clerk, clerk, store)
	clerk.SetNow(time.Now)
	return b
}

// A reconciliation that checked everything is complete, even if it could not change everything: the next one begins after
// the interval. One that stopped early begins again after five minutes.
func TestRun_ReconcilesOncePerInterval(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault    clerkinvitetest.Fault
		complete bool
	}{
		"a left-over invitation cannot be revoked": {
			clerkinvitetest.Fault{Call: clerkinvitetest.CallRevoke, Kind: clerkinvitetest.Empty503, RetryAfter: time.Second, Times: -1}, true,
		},
		"a member cannot be written": {clerkinvitetest.Fault{}, true},
		"Clerk rejects the key":      {clerkinvitetest.Fault{Call: clerkinvitetest.CallFindUsers, Status: 401, Code: "clerk_key_invalid", Times: -1}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var log testkit.LockedBuffer
				store := refusingStore{clerkinvitetest.NewMemoryStore(), refuseStatus("joined@example.com", clerkinvite.StatusActive, testkit.ErrHook)}
				b := newBubbleRig(t, store, &log)
				b.MustInvite(t, "waits@example.com")
				if c.fault.Call == "" {
					b.MustInvite(t, "joined@example.com")
					_, err := b.Clerk.Accept("joined@example.com")
					require.NoError(t, err)
				} else {
					withdrawn := memberIn(t, b, clerkinvite.StatusRevoked)
					b.Clerk.CreateForeign("ada@example.com", map[string]any{"clerkinvite": map[string]any{"id": withdrawn.ID, "send": 1}})
					b.Clerk.Fail(c.fault)
				}
				runFor(t, b, 55*time.Minute)
				const stopped = `msg="reconciliation incomplete"`
				passes := strings.Count(log.String(), stopped)
				require.Equal(t, passes, strings.Count(log.String(), "report.members="), "each error has the report, and nothing else is logged")
				require.NotContains(t, log.String(), "msg=reconciled")
				next, err := b.Store.SwapTime(t.Context(), "turn reconcile", time.Time{}, time.Time{})
				require.NoError(t, err)
				if c.complete {
					require.Equal(t, 1, passes)
					require.Greater(t, time.Until(next), time.Minute)
				} else {
					require.Greater(t, passes, 7)
					require.LessOrEqual(t, time.Until(next), 5*time.Minute)
				}
				runFor(t, b, 2*time.Hour)
				if c.complete {
					require.Equal(t, 3, strings.Count(log.String(), stopped))
				}
			})
		})
	}
}

// noTimes is a store that fails to read and write times.
type noTimes struct {
	clerkinvite.Store
	down atomic.Bool
}

func (s *noTimes) SwapTime(ctx context.Context, name string, old, next time.Time) (time.Time, error) {
	if s.down.Load() {
		return time.Time{}, errors.New("the database is down")
	}
	return s.Store.SwapTime(ctx, name, old, next)
}

// While the store is down, Run tries to reconcile less and less often. Afterwards it continues within about a minute.
func TestRun_StoreDownMakesFewErrors(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log testkit.LockedBuffer
		store := &noTimes{Store: clerkinvitetest.NewMemoryStore()}
		b := newBubbleRig(t, store, &log)
		store.down.Store(true)
		time.AfterFunc(30*time.Minute, func() { store.down.Store(false) })
		runFor(t, b, 32*time.Minute)
		require.InDelta(t, 35, strings.Count(log.String(), "reconciliation incomplete"), 8)
		require.Equal(t, 1, strings.Count(log.String(), "msg=reconciled"))
	})
}

// recorder is an Observer that records a line when an operation ends, with the operation that
// it is part of, and a line for each state change.
type recorder struct {
	mu    sync.Mutex
	lines []string
	open  int
	waits func() // called when a wait begins
}

type insideOf struct{}

func (r *recorder) Start(ctx context.Context, op string) (inside context.Context, end func(error)) {
	name := op
	if outer, ok := ctx.Value(insideOf{}).(string); ok {
		name = outer + ">" + op
	}
	if op == "wait" {
		r.waits()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open++
	ended := false
	return context.WithValue(ctx, insideOf{}, name), func(err error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if ended {
			r.lines = append(r.lines, name+" ended twice")
		}
		ended = true
		r.open--
		if err != nil {
			name += ": failed"
		}
		r.lines = append(r.lines, name)
	}
}

func (r *recorder) StateChanged(ctx context.Context, from, to clerkinvite.Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, fmt.Sprintf("%v: %q to %q", ctx.Value(insideOf{}), from, to))
}

// take returns the lines since the last take.
func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	lines := r.lines
	r.lines = nil
	return lines
}

func TestObserver(t *testing.T) {
	t.Parallel()
	testkit.OnBoth(t, func(t *testing.T, fresh func(*testing.T, testkit.Options) *testkit.Rig) {
		seen, ctx := &recorder{}, t.Context()
		b := fresh(t, testkit.Options{Configure: func(c *clerkinvite.Config) { c.Observer, c.ResendCooldown = seen, -1 }})
		seen.waits = func() { b.Clock.Advance(time.Hour) }
		ref := clerkinvite.Ref{TenantID: "acme", Email: "ada@example.com"}
		wants := func(want ...string) {
			t.Helper()
			require.Equal(t, want, seen.take())
			require.Zero(t, seen.open)
		}
		b.MustInvite(t, ref.Email)
		wants(`Invite: "" to "reserved"`, "Invite>clerk.FindUsers", "Invite>clerk.CreateInvitation", `Invite: "reserved" to "pending"`, "Invite")
		_, err := b.TryInvite(t, ref.Email)
		require.Error(t, err)
		wants("Invite: failed")
		_, err = b.Invite(ctx, clerkinvite.InviteParams{})
		require.Error(t, err)
		wants("Invite: failed")

		b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallFindUsers, When: clerkinvitetest.Before, Status: 503, Times: -1})
		_, err = b.TryInvite(t, "bob@example.com")
		require.Error(t, err)
		wants(`Invite: "" to "reserved"`, "Invite>clerk.FindUsers: failed", "Invite: failed")
		b.Clerk.ClearFaults()
		b.Clock.Advance(10 * time.Minute)
		_, err = b.Deliver(ctx, nil)
		require.NoError(t, err)
		wants("Deliver>clerk.FindUsers", "Deliver>clerk.ListInvitations", "Deliver>clerk.ListInvitations", "Deliver>clerk.CreateInvitation",
			`Deliver: "reserved" to "pending"`, "Deliver")

		_, err = b.Resend(ctx, ref)
		require.NoError(t, err)
		lines := seen.take()
		require.Subset(t, lines, []string{`Resend: "pending" to "pending"`, "Resend>clerk.CreateInvitation", "Resend>clerk.RevokeInvitation", "Resend"})

		w, err := b.Clerk.Accept(ref.Email)
		require.NoError(t, err)
		b.Receive(t, w)
		wants("HandleEvent>clerk.GetUser", `HandleEvent: "pending" to "active"`, "HandleEvent")
		users, err := b.API.FindUsers(ctx, clerkinvite.UserQuery{Emails: []string{ref.Email}})
		require.NoError(t, err)
		_, err = b.ResolveUser(ctx, users[0].ID)
		require.NoError(t, err)
		wants("ResolveUser>clerk.GetUser", "ResolveUser")
		_, err = b.Resolve(ctx, users[0])
		require.NoError(t, err)
		wants("Resolve")

		_, err = b.Get(ctx, ref)
		require.NoError(t, err)
		_, err = b.List(ctx, clerkinvite.ListParams{TenantID: "acme"})
		require.NoError(t, err)
		for _, err := range b.All(ctx, clerkinvite.ListParams{TenantID: "acme", Limit: 1}) {
			require.NoError(t, err)
		}
		_, err = b.History(ctx, ref)
		require.NoError(t, err)
		role := "owner"
		_, err = b.Update(ctx, ref, clerkinvite.MemberUpdate{Role: &role})
		require.NoError(t, err)
		wants("Get", "List", "List", "List", "History", `Update: "active" to "active"`, "Update")

		_, err = b.Update(ctx, ref, clerkinvite.MemberUpdate{Role: &role})
		require.NoError(t, err)
		wants("Update") // changes nothing

		_, err = b.Remove(ctx, ref)
		require.NoError(t, err)
		wants(`Remove: "active" to "removed"`, "Remove")
		require.NoError(t, b.Purge(ctx, ref))
		lines = seen.take()
		require.Subset(t, lines, []string{"Purge>clerk.ListInvitations", `Purge: "removed" to ""`, "Purge"})
		_, err = b.Revoke(ctx, clerkinvite.Ref{TenantID: "acme", Email: "bob@example.com"})
		require.NoError(t, err)
		wants("Revoke>clerk.RevokeInvitation", `Revoke: "pending" to "revoked"`, "Revoke")

		_, err = b.Reserve(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: "cyd@example.com"})
		require.NoError(t, err)
		_, err = b.ReserveMany(ctx, []clerkinvite.InviteParams{{TenantID: "acme", Email: "dan@example.com"}})
		require.NoError(t, err)
		wants(`Reserve: "" to "reserved"`, "Reserve", `ReserveMany: "" to "reserved"`, "ReserveMany")

		people := make([]clerkinvite.InviteParams, 5)
		for i := range people {
			people[i] = clerkinvite.InviteParams{TenantID: "acme", Email: fmt.Sprintf("person%d@example.com", i)}
		}
		b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallFindUsers, When: clerkinvitetest.Before, Status: 429, RetryAfter: time.Minute})
		results, err := b.InviteMany(ctx, people, &clerkinvite.InviteManyOptions{Wait: true})
		require.NoError(t, err)
		require.Len(t, results, 5)
		lines = seen.take()
		require.Contains(t, lines, "InviteMany>wait")
		require.Contains(t, lines, "InviteMany>clerk.CreateInvitations")
		require.Equal(t, 5, count(lines, `InviteMany: "" to "reserved"`))
		require.Equal(t, 7, count(lines, `InviteMany: "reserved" to "pending"`), "after its wait it also delivers cyd and dan, who are due")
		_, err = b.Reconcile(ctx, nil)
		require.NoError(t, err)
		lines = seen.take()
		require.Subset(t, lines, []string{"Reconcile>clerk.FindUsers", "Reconcile>clerk.ListInvitations", "Reconcile"})
	})
}

// A verb in which the host's code panics has not succeeded, and the panic continues.
func TestObserverSeesPanics(t *testing.T) {
	t.Parallel()
	seen := &recorder{}
	b := testkit.NewMemory(t, testkit.Options{Configure: func(c *clerkinvite.Config) {
		c.Observer = seen
		c.Authorize = func(context.Context, *clerkinvite.InviteParams) error { panic("the host's") }
	}})
	require.PanicsWithValue(t, "the host's", func() { _, _ = b.TryInvite(t, "ada@example.com") })
	require.Equal(t, []string{"Invite: failed"}, seen.take())
}

func count(lines []string, want string) (n int) {
	for _, line := range lines {
		if line == want {
			n++
		}
	}
	return n
}

// slowUsers is Clerk whose look-ups of users take long. It counts how many run at the same time.
type slowUsers struct {
	clerkinvite.ClerkAPI
	takes         time.Duration
	running, most atomic.Int64
}

func (c *slowUsers) FindUsers(ctx context.Context, q clerkinvite.UserQuery) ([]clerkinvite.User, error) {
	n := c.running.Add(1)
	defer c.running.Add(-1)
	c.most.Store(max(n, c.most.Load()))
	time.Sleep(c.takes)
	return c.ClerkAPI.FindUsers(ctx, q)
}

// Reconciliations that take longer than their interval, and longer than a turn, do not run at the same time.
func TestRun_LongReconciliationsDoNotPileUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		clerk, store := clerkinvitetest.NewClerk(), clerkinvitetest.NewMemoryStore()
		slow := &slowUsers{ClerkAPI: clerk}
		newProcess := func() *testkit.Rig {
			return testkit.New(t, testkit.Options{Configure: func(c *clerkinvite.Config) { c.Now = time.Now }}, clerk, slow, store)
		}
		first := newProcess()
		clerk.SetNow(time.Now)
		_, err := first.InviteMany(t.Context(), testkit.People(2000, "p"), nil)
		require.NoError(t, err)
		slow.takes = 4 * time.Minute // twenty of them
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Hour)
		defer cancel()
		var wg sync.WaitGroup
		for _, process := range []*testkit.Rig{first, newProcess(), newProcess()} {
			wg.Go(func() { _ = process.Run(ctx, &clerkinvite.RunOptions{ReconcileInterval: 10 * time.Minute}) })
		}
		wg.Wait()
		require.EqualValues(t, 1, slow.most.Load())
	})
}

// A panic while reconciling gives the turn back: another process reconciles soon, and not after the interval.
func TestRun_PanicGivesTheTurnBack(t *testing.T) {
	t.Parallel()
	for way, end := range map[string]func(){"panic": func() { panic(io.ErrNoProgress) }, "Goexit": runtime.Goexit} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				clerk := clerkinvitetest.NewClerk()
				p := &panicking{ClerkAPI: clerk, Store: clerkinvitetest.NewMemoryStore(), end: end}
				b := testkit.New(t, testkit.Options{Configure: func(c *clerkinvite.Config) { c.Now, c.Observer = time.Now, p }}, clerk, p, p)
				p.at.Store("start Reconcile")
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					defer func() { _ = recover() }()
					_ = b.Run(t.Context(), &clerkinvite.RunOptions{ReconcileInterval: 12 * time.Hour})
				}()
				<-ended
				p.at.Store("")
				var log testkit.LockedBuffer
				other := newBubbleRig(t, p.Store, &log)
				runFor(t, other, 7*time.Minute)
				require.Equal(t, 1, strings.Count(log.String(), "msg=reconciled"))
			})
		})
	}
}

// timedCalls is Clerk that notes when it is called.
type timedCalls struct {
	clerkinvite.ClerkAPI
	at []time.Time
}

func (c *timedCalls) GetUser(ctx context.Context, id string) (*clerkinvite.User, error) {
	c.at = append(c.at, time.Now())
	return c.ClerkAPI.GetUser(ctx, id)
}

func (c *timedCalls) FindUsers(ctx context.Context, q clerkinvite.UserQuery) ([]clerkinvite.User, error) {
	c.at = append(c.at, time.Now())
	return c.ClerkAPI.FindUsers(ctx, q)
}

// Reconcile leaves a quarter of a development instance's limit to other callers, and stops when its context is canceled.
func TestReconcile_KeepsAPace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		clerk := clerkinvitetest.NewClerk()
		api := &timedCalls{ClerkAPI: clerk}
		b := testkit.New(t, testkit.Options{Configure: func(c *clerkinvite.Config) { c.Now = time.Now }}, clerk, api, clerkinvitetest.NewMemoryStore())
		clerk.SetNow(time.Now)
		people := testkit.People(201, "p")
		users := make(map[string]string)
		for _, p := range people {
			users[p.Email] = clerk.AddVerifiedUser(p.Email).ID
		}
		_, err := b.InviteMany(t.Context(), people, nil) // all are linked
		require.NoError(t, err)
		time.Sleep(time.Hour)
		for _, p := range people[1:] {
			clerk.DeleteUser(users[p.Email])
		}
		api.at = nil
		canceled, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err = b.Reconcile(canceled, nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		report, err := b.Reconcile(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, 200, report.Removed)
		require.Greater(t, len(api.at), 250)
		began, most := api.at[len(api.at)-1].Add(-40*time.Second), 0
		for i, at := range api.at {
			if at.After(began) {
				n := len(api.at[i:]) - len(slices.DeleteFunc(slices.Clone(api.at[i:]), func(t time.Time) bool { return t.Sub(at) < 10*time.Second }))
				most = max(most, n)
			}
		}
		require.LessOrEqual(t, most, 75)
	})
}
