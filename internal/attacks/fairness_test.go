package attacks_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/tally"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// ceiling is how many people Clerk's limits allow per hour: 100 single and 25 bulk requests.
const ceiling = 350

// passInterval is the longest delay by Run: its interval, and the extra minute that it waits after a limit.
const passInterval = 90 * time.Second

// latency is how long Clerk takes for a request.
const latency = 200 * time.Millisecond

// fleet is Clerk and three processes that call Run, in the time of a synctest bubble.
type fleet struct {
	*clerkinvitetest.Clerk
	store    *clerkinvitetest.MemoryStore
	services []*clerkinvite.Service
	random   *rand.Rand
	start    time.Time

	mu       sync.Mutex
	limits   clerkinvitetest.Limits
	requests map[string]int
	singles  []time.Time // single creates that Clerk counts
	sent     []sentEmail
	sentAt   map[string]time.Time // by address
}

type sentEmail struct {
	at    time.Time
	email string
	bulk  bool
}

func (s sentEmail) imported() bool { return strings.HasSuffix(s.email, "@import.example") }

func newFleet(t *testing.T, limits clerkinvitetest.Limits, seed uint64) *fleet {
	t.Helper()
	f := &fleet{
		Clerk: clerkinvitetest.NewClerk(), store: clerkinvitetest.NewMemoryStore(), random: rand.New(rand.NewPCG(seed, 0)),
		start: time.Now(), requests: make(map[string]int), sentAt: make(map[string]time.Time),
	}
	f.SetNow(time.Now)
	f.limit(limits)
	for range 3 {
		svc, err := clerkinvite.New(clerkinvite.Config{API: f, Store: f.store})
		require.NoError(t, err)
		f.services = append(f.services, svc)
	}
	return f
}

// limit sets Clerk's limits and forgets earlier requests.
func (f *fleet) limit(limits clerkinvitetest.Limits) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.SetLimits(limits)
	f.limits, f.start, f.sent, f.singles = limits, time.Now(), nil, nil
	clear(f.requests)
	clear(f.sentAt)
}

// run runs all processes until stop is called.
func (f *fleet) run(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	for i, svc := range f.services {
		running.Go(func() {
			time.Sleep(time.Duration(i) * 4 * time.Second)
			_ = svc.Run(ctx, &clerkinvite.RunOptions{ReconcileInterval: -1})
		})
	}
	return func() {
		cancel()
		running.Wait()
	}
}

// note counts a request, and the emails that Clerk has sent for it.
func (f *fleet) note(endpoint string, err error, emails ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var api *clerkinvite.APIError
	if errors.As(err, &api) {
		endpoint += fmt.Sprintf(" %d", api.StatusCode)
	}
	f.requests[endpoint]++
	if strings.HasPrefix(endpoint, "POST /invitations") && !strings.Contains(endpoint, "bulk") && (err == nil || !f.limits.FreeRefused) {
		f.singles = append(f.singles, time.Now())
	}
	for _, email := range emails {
		f.sent = append(f.sent, sentEmail{time.Now(), email, len(emails) > 1})
		f.sentAt[email] = time.Now()
	}
}

func (f *fleet) FindUsers(ctx context.Context, q clerkinvite.UserQuery) ([]clerkinvite.User, error) {
	time.Sleep(latency)
	users, err := f.Clerk.FindUsers(ctx, q)
	f.note("GET /users", err)
	return users, err
}

func (f *fleet) ListInvitations(ctx context.Context, q clerkinvite.InvitationQuery) ([]clerkinvite.Invitation, error) {
	time.Sleep(latency)
	list, err := f.Clerk.ListInvitations(ctx, q)
	f.note("GET /invitations", err)
	return list, err
}

func (f *fleet) CreateInvitation(ctx context.Context, r clerkinvite.InvitationRequest) (*clerkinvite.Invitation, error) {
	time.Sleep(latency)
	inv, err := f.Clerk.CreateInvitation(ctx, r)
	if err != nil {
		f.note("POST /invitations", err)
		return nil, err
	}
	f.note("POST /invitations", nil, r.Email)
	return inv, nil
}

func (f *fleet) CreateInvitations(ctx context.Context, rs []clerkinvite.InvitationRequest) ([]clerkinvite.Invitation, error) {
	time.Sleep(latency)
	created, err := f.Clerk.CreateInvitations(ctx, rs)
	var emails []string
	for _, inv := range created {
		emails = append(emails, inv.Email)
	}
	f.note("POST /invitations/bulk", err, emails...)
	return created, err
}

// people returns n people of a tenant.
func peopleOf(tenant string, n int) []clerkinvite.InviteParams {
	ps := make([]clerkinvite.InviteParams, n)
	for i := range ps {
		ps[i] = testkit.Params(tenant, fmt.Sprintf("%s-%d@import.example", tenant, i))
	}
	return ps
}

// reserve imports people, whom Run then invites.
func (f *fleet) reserve(t *testing.T, ps []clerkinvite.InviteParams) {
	t.Helper()
	results, err := f.services[0].ReserveMany(t.Context(), ps)
	require.NoError(t, err)
	for _, r := range results {
		require.NoError(t, r.Err)
	}
}

// await sleeps until all people have an email, and returns the time of the last one.
func (f *fleet) await(t *testing.T, ps []clerkinvite.InviteParams) (last time.Time) {
	t.Helper()
	for _, p := range ps {
		for end := time.Now().Add(2000 * time.Hour); ; time.Sleep(10 * time.Second) {
			f.mu.Lock()
			at, ok := f.sentAt[p.Email]
			f.mu.Unlock()
			if ok {
				last = latest(last, at)
				break
			}
			require.True(t, time.Now().Before(end), "it ends")
		}
	}
	return last
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// throughput returns the used fraction of the ceiling. Each endpoint counts until an import has begun to use its last
// window.
func (f *fleet) throughput() float64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	var perHour float64
	for _, bulk := range []bool{false, true} {
		rate, n, previous := 0.0, 0, f.start
		for _, s := range f.sent {
			if s.bulk == bulk {
				if s.imported() {
					if s.at.Sub(previous) > 10*time.Minute {
						rate = float64(n) / s.at.Sub(f.start).Hours()
					}
					previous = s.at
				}
				n++
			}
		}
		perHour += rate
	}
	return perHour / ceiling
}

// period is a span of time.
type period struct{ from, to time.Time }

// full returns the periods in which Clerk would have refused a single create, in order.
func (f *fleet) full() (all []period) {
	l := f.limits.Create
	first := 0 // of the window
	for i, at := range f.singles {
		if !f.limits.Sliding && at.Sub(f.singles[first]) >= l.Per {
			first = i
		}
		if f.limits.Sliding {
			first = i - l.Requests + 1
		}
		if first >= 0 && i-first+1 >= l.Requests {
			all = append(all, period{at, f.singles[first].Add(l.Per)})
		}
	}
	return all
}

// longestIdle returns the longest time between from and to during which Clerk would have accepted a single create.
func longestIdle(full []period, from, to time.Time) (longest time.Duration) {
	idleSince := from
	for _, p := range full {
		if p.to.After(idleSince) && p.from.Before(to) {
			longest, idleSince = max(longest, p.from.Sub(idleSince)), p.to
		}
	}
	return max(longest, to.Sub(idleSince))
}

// adminCall is one call of Invite.
type adminCall struct {
	email  string
	at     time.Time // when it returned
	err    error
	stated time.Duration // RetryAfter of the error
}

// admins lets an admin of each of ten tenants, including the importing one, invite people at random moments, eight per hour
// in total, until stop is called.
func (f *fleet) admins(ctx context.Context) (stop func() []adminCall) {
	ctx, cancel := context.WithCancel(ctx)
	var calls []adminCall
	var inviting sync.WaitGroup
	inviting.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Duration(f.random.ExpFloat64() * float64(time.Hour/8))):
			}
			tenant, svc := fmt.Sprint("tenant", f.random.IntN(10)), f.services[f.random.IntN(len(f.services))]
			call := adminCall{email: fmt.Sprintf("person%d@admin.example", i)}
			_, call.err = svc.Invite(ctx, testkit.Params(tenant, call.email))
			call.at = time.Now()
			call.stated, _ = clerkinvite.RetryAfter(call.err)
			calls = append(calls, call)
		}
	})
	return func() []adminCall {
		cancel()
		inviting.Wait()
		return calls
	}
}

// adminReport has the admins' results.
type adminReport struct {
	calls, immediate int
	longest          time.Duration // from a call to the email
	idle             time.Duration // the part of the wait in which Clerk would have accepted the invite
	overtaken        int           // people of imports who were invited before a waiting invite
	pastStated       time.Duration // from the stated time of the retry to the email
}

func (r adminReport) String() string {
	return fmt.Sprintf("%d invites, %d immediate, the longest after %v; waited although Clerk would accept %v, and behind %d people of imports; %v after the stated time",
		r.calls, r.immediate, r.longest.Round(time.Second), r.idle.Round(time.Second), r.overtaken, r.pastStated.Round(time.Second))
}

func (f *fleet) report(calls []adminCall) (r adminReport) {
	f.mu.Lock()
	defer f.mu.Unlock()
	full := f.full()
	for _, c := range calls {
		if errors.Is(c.err, context.Canceled) {
			continue
		}
		r.calls++
		if c.err == nil {
			r.immediate++
			continue
		}
		at, ok := f.sentAt[c.email]
		if !ok {
			at = time.Now() // at the earliest
		}
		r.longest = max(r.longest, at.Sub(c.at))
		r.idle = max(r.idle, longestIdle(full, c.at, at))
		r.pastStated = max(r.pastStated, at.Sub(c.at.Add(c.stated)))
		overtaken := 0
		for _, s := range f.sent {
			if s.imported() && s.at.After(c.at.Add(passInterval)) && s.at.Before(at) {
				overtaken++
			}
		}
		r.overtaken = max(r.overtaken, overtaken)
	}
	return r
}

// eachWindow runs a test in simulated time with each kind of window that Clerk may have, one of them with the full number of
// people. With -short it runs one kind with few people.
func eachWindow(t *testing.T, test func(t *testing.T, limits clerkinvitetest.Limits, full bool, seed uint64)) {
	t.Helper()
	chosen := testkit.Random(t).IntN(4)
	for i, sliding := range []bool{false, true} {
		for j, free := range []bool{false, true} {
			if testing.Short() && 2*i+j != chosen {
				continue
			}
			limits := clerkinvitetest.DocumentedLimits()
			limits.Sliding, limits.FreeRefused = sliding, free
			t.Run(fmt.Sprintf("sliding %v, refused are free %v", sliding, free), func(t *testing.T) {
				t.Parallel()
				seed := testkit.Random(t).Uint64()
				synctest.Test(t, func(t *testing.T) { test(t, limits, !testing.Short() && 2*i+j == chosen, seed) })
			})
		}
	}
}

// size is the number of people in a simulation.
func size(full bool, large, small int) int {
	if full {
		return large
	}
	return small
}

// One of ten tenants imports many people. The invites of all tenants' admins are sent first, and the stated waits are
// correct.
func TestPromise8_ImportDoesNotDelayAdmins(t *testing.T) {
	t.Parallel()
	eachWindow(t, func(t *testing.T, limits clerkinvitetest.Limits, full bool, seed uint64) {
		f := newFleet(t, limits, seed)
		full = full && tally.Long() // twenty seconds of processor time
		ps := peopleOf("tenant0", size(full, 10_000, 1_500))
		stopAdmins := f.admins(t.Context())
		stop := f.run(t.Context())
		f.reserve(t, ps)
		took := f.await(t, ps).Sub(f.start)
		calls := stopAdmins()
		time.Sleep(3 * time.Hour) // until the admins' last invites are sent
		stop()
		r := f.report(calls)
		t.Logf("import %v, %.3f of the ceiling; admins: %v; %v", took.Round(time.Second), f.throughput(), r, f.requests)
		require.LessOrEqual(t, r.idle, passInterval)
		if !limits.Sliding { // otherwise Clerk tells every waiting caller the same time, and then accepts only one
			require.LessOrEqual(t, r.pastStated, passInterval)
		}
		least := 0.94
		if !full {
			least = 0.9 // with few windows, a window in which the admins do not use their share weighs more
		}
		require.GreaterOrEqual(t, f.throughput(), least)
	})
}

// A second tenant imports 100 people while the first tenant's import is running. That takes at most twice as long as
// without the first import.
func TestPromise8_ImportsShareTheLimits(t *testing.T) {
	t.Parallel()
	eachWindow(t, func(t *testing.T, limits clerkinvitetest.Limits, _ bool, seed uint64) {
		moment := time.Duration(float64(time.Hour) + rand.New(rand.NewPCG(seed, 1)).Float64()*float64(time.Hour))
		second := peopleOf("tenant5", 100)
		import100 := func(alone bool) (took []time.Duration) {
			f := newFleet(t, limits, seed)
			stopAdmins := f.admins(t.Context())
			stop := f.run(t.Context())
			f.reserve(t, peopleOf("tenant0", 2_000)) // more than Clerk allows until the end
			time.Sleep(moment)
			if alone {
				f.forgetRest(t, "tenant0")
			}
			began := time.Now()
			f.reserve(t, second)
			f.await(t, second)
			stopAdmins()
			stop()
			for _, p := range second {
				took = append(took, f.sentAt[p.Email].Sub(began).Round(time.Second))
			}
			slices.Sort(took)
			return took
		}
		alone, contested := import100(true)[99], import100(false)
		t.Logf("after %v: %v, alone %v", moment.Round(time.Second), contested[99], alone)
		bound := 2 * alone
		if alone < time.Minute { // alone, one window was enough; shared with the other import, the remaining people wait for the next hour
			bound = time.Hour + 2*time.Minute
		}
		require.LessOrEqual(t, contested[99], bound+passInterval)
	})
}

// A call of InviteMany that waits for the limits takes turns with another tenant's import.
func TestPromise8_WaitingCallSharesTheLimits(t *testing.T) {
	t.Parallel()
	eachWindow(t, func(t *testing.T, limits clerkinvitetest.Limits, _ bool, seed uint64) {
		f := newFleet(t, limits, seed)
		stop := f.run(t.Context())
		ps, second := peopleOf("tenant0", 1_500), peopleOf("tenant5", 100)
		ended := make(chan error, 1)
		go func() {
			results, err := f.services[0].InviteMany(t.Context(), ps, &clerkinvite.InviteManyOptions{Wait: true})
			for _, r := range results {
				err = errors.Join(err, r.Err)
			}
			ended <- err
		}()
		time.Sleep(90 * time.Minute)
		began := time.Now()
		f.reserve(t, second)
		require.LessOrEqual(t, f.await(t, second).Sub(began), time.Hour+2*time.Minute+passInterval)
		require.NoError(t, <-ended)
		stop()
		for _, p := range slices.Concat(ps, second) {
			require.Equal(t, 1, f.EmailsTo(p.Email))
		}
	})
}

// forgetRest erases the reserved members of a tenant.
func (f *fleet) forgetRest(t *testing.T, tenant string) {
	t.Helper()
	for q := (clerkinvite.PageQuery{TenantID: tenant, Statuses: []clerkinvite.Status{clerkinvite.StatusReserved}}); ; {
		rows, err := f.store.Page(t.Context(), q)
		require.NoError(t, err)
		if len(rows) == 0 {
			return
		}
		var changes []clerkinvite.Change
		for _, row := range rows {
			changes = append(changes, clerkinvite.Change{Old: row})
		}
		_, err = f.store.Update(t.Context(), changes)
		require.NoError(t, err)
	}
}

// Members whose invitations have expired are invited again at Clerk's limits, with a bounded number
// of look-ups for each.
func TestPromise8_ExpiredMembersInvitedAgain(t *testing.T) {
	t.Parallel()
	eachWindow(t, func(t *testing.T, limits clerkinvitetest.Limits, full bool, seed uint64) {
		f := newFleet(t, clerkinvitetest.Limits{}, seed)
		ps := peopleOf("tenant0", size(full, 2_000, 700))
		results, err := f.services[0].InviteMany(t.Context(), ps, nil)
		require.NoError(t, err)
		for _, r := range results {
			require.NoError(t, r.Err)
			require.Equal(t, clerkinvite.StatusPending, r.Member.Status)
		}
		time.Sleep(31 * 24 * time.Hour)
		_, err = f.services[0].Reconcile(t.Context(), nil)
		require.NoError(t, err)

		f.limit(limits)
		f.reserve(t, ps)
		stop := f.run(t.Context())
		took := f.await(t, ps).Sub(f.start)
		stop()
		t.Logf("%d members: %v; %v", len(ps), took.Round(time.Second), f.requests)
		windows := (len(ps) - 1) / (ceiling - 14) // some single creates are kept for admins
		require.LessOrEqual(t, took, time.Duration(windows)*(time.Hour+2*time.Minute)+5*time.Minute)
		for _, endpoint := range []string{"GET /invitations", "GET /users"} {
			require.LessOrEqual(t, f.requests[endpoint], 3*len(ps)+100, endpoint)
		}
	})
}
