package attacks_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// runReport is a worker process's report on Run, which ends with SIGTERM.
type runReport struct {
	Err        string `json:"err"`
	Before     int    `json:"before"` // goroutines
	After      int    `json:"after"`
	Began      int64  `json:"began"`      // reconciliations
	Reconciled int    `json:"reconciled"` // completely
	Stacks     string // of the remaining goroutines
}

// work is the main function of a worker process. It ends when its standard input ends, because the parent has ended.
func work(mode string, config clerkinvite.Config) {
	lines := bufio.NewScanner(os.Stdin)
	say := func(v any) {
		line, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		fmt.Println(string(line))
	}
	if mode == "run" {
		fmt.Println("READY")
		if lines.Scan() {
			say(runUntilSignal(config))
		}
		return
	}
	clock := &simulatedClock{}
	config.Now, config.Store = clock.Now, testkit.ClockedStore{Store: config.Store, Now: clock.Now}
	svc, err := clerkinvite.New(config)
	if err != nil {
		panic(err)
	}
	fmt.Println("READY")
	for lines.Scan() { // each line starts a pass at the parent's time
		now, err := simulatedTime(strings.TrimSuffix(os.Getenv("CHILD_CLERK"), "/v1") + "/clock")
		if err != nil {
			panic(err)
		}
		clock.Advance(now.Sub(clock.Now()))
		failure := ""
		if _, err := svc.Deliver(context.Background(), nil); err != nil {
			failure = err.Error()
		}
		say(failure)
	}
}

func simulatedTime(url string) (time.Time, error) {
	resp, err := http.Get(url)
	if err != nil {
		return time.Time{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return time.Time{}, err
	}
	return time.Parse(time.RFC3339Nano, string(text))
}

func runUntilSignal(config clerkinvite.Config) (said runReport) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var log testkit.LockedBuffer
	var reconciliations counter
	config.Logger, config.Observer = slog.New(slog.NewTextHandler(&log, nil)), &reconciliations
	svc, err := clerkinvite.New(config)
	if err != nil {
		panic(err)
	}
	said.Before = runtime.NumGoroutine()
	err = svc.Run(ctx, &clerkinvite.RunOptions{Interval: 50 * time.Millisecond, ReconcileInterval: time.Hour})
	said.Err, said.Began = err.Error(), reconciliations.Load()
	said.Reconciled = strings.Count(log.String(), "msg=reconciled ")
	for end := time.Now().Add(testkit.Patience / 2); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		http.DefaultTransport.(*http.Transport).CloseIdleConnections() // their goroutines are not the library's
		if said.After = runtime.NumGoroutine(); said.After <= said.Before {
			break
		}
	}
	if said.After > said.Before {
		said.Stacks = stacks()
	}
	return said
}

// counter is an Observer that counts reconciliations.
type counter struct{ atomic.Int64 }

func (c *counter) Start(ctx context.Context, op string) (context.Context, func(error)) {
	if op == "Reconcile" {
		c.Add(1)
	}
	return ctx, func(error) {}
}

func (*counter) StateChanged(context.Context, clerkinvite.Status, clerkinvite.Status) {}

func stacks() string {
	b := make([]byte, 1<<20)
	return string(b[:runtime.Stack(b, true)])
}

// simulatedClock runs, and is ahead of the real time by the given number of nanoseconds. It runs because a pass takes
// time, and the requests of a window must not all have the same time.
type simulatedClock struct{ ahead atomic.Int64 }

func (c *simulatedClock) Now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

func (c *simulatedClock) Advance(d time.Duration) { c.ahead.Add(int64(d)) }

// simulation is the environment of the worker processes: Clerk, its clock, and the store that they share.
type simulation struct {
	clerk *clerkinvitetest.Clerk
	clock *simulatedClock
	store *clerkinvite.PgxStore
	svc   *clerkinvite.Service // for reserving and reading
	dsn   string
	url   string

	mu       sync.Mutex
	requests map[string][]exchange // by endpoint
	onTick   func()
}

// exchange is a request to Clerk, with its time and the status of the response.
type exchange struct {
	at     time.Time
	status int
}

func newSimulation(t *testing.T) *simulation {
	t.Helper()
	db := pgtest.New(t)
	s := &simulation{
		clerk: clerkinvitetest.NewClerk(), clock: &simulatedClock{}, store: clerkinvite.NewPgxStore(db.Pool(t), nil), dsn: db.DSN,
		requests: make(map[string][]exchange),
	}
	require.NoError(t, s.store.Migrate(t.Context()))
	s.clerk.SetNow(s.clock.Now)
	fake := s.clerk.Handler()
	mux := http.NewServeMux()
	mux.HandleFunc("/clock", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, s.clock.Now().Format(time.RFC3339Nano))
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		answer := &statusWriter{ResponseWriter: w}
		at := s.clock.Now()
		s.tick()
		fake.ServeHTTP(answer, r)
		s.tick()
		s.mu.Lock()
		defer s.mu.Unlock()
		endpoint := r.Method + " " + strings.TrimPrefix(r.URL.Path, "/v1")
		s.requests[endpoint] = append(s.requests[endpoint], exchange{at, answer.status})
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	s.url = srv.URL + "/v1"
	var err error
	s.svc, err = clerkinvite.New(clerkinvite.Config{API: s.clerk, Store: testkit.ClockedStore{Store: s.store, Now: s.clock.Now}, Now: s.clock.Now})
	require.NoError(t, err)
	return s
}

// eachTick sets a function that is called before and after each request to Clerk.
func (s *simulation) eachTick(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onTick = f
}

func (s *simulation) tick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.onTick != nil {
		s.onTick()
	}
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets the fake cut connections.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// refusedInOneWindow returns, by endpoint, the largest number of requests that a rate limit refused in one window. A fixed
// window begins with the first counted request after the previous window. Sliding windows have no beginning, so every hour
// that begins with a refused request counts as one.
func (s *simulation) refusedInOneWindow(l clerkinvitetest.Limits) map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	worst := make(map[string]int)
	for endpoint, requests := range s.requests {
		var begin time.Time
		refused := 0
		for _, r := range requests {
			counts := r.status/100 != 4 || !l.FreeRefused
			if l.Sliding {
				counts = r.status == http.StatusTooManyRequests
			}
			if counts && r.at.Sub(begin) >= time.Hour {
				begin, refused = r.at, 0
			}
			if r.status == http.StatusTooManyRequests {
				refused++
				worst[endpoint] = max(worst[endpoint], refused)
			}
		}
	}
	return worst
}

// mostInAnHour returns the largest number of requests to an endpoint within 55 minutes. They are not 60, because a slow
// machine delays requests and the workers' readings of the clock.
func (s *simulation) mostInAnHour(endpoint string) (most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	requests := s.requests[endpoint]
	for i, first := range requests {
		for n, r := range requests[i:] {
			if r.at.Sub(first.at) < 55*time.Minute {
				most = max(most, n+1)
			}
		}
	}
	return most
}

// crowd has the people who are reserved for a simulated run.
type crowd struct {
	params  []clerkinvite.InviteParams
	users   map[string]string // Clerk users: ID by address
	banned  []string
	refused string
	foreign []string // already invited by another application
	people  []string // who need an invitation, including foreign
}

// reserveCrowd reserves 1,000 people who need an invitation, and some more who do not.
func (s *simulation) reserveCrowd(t *testing.T) crowd {
	t.Helper()
	c := crowd{users: make(map[string]string)}
	add := func(email string) {
		c.params = append(c.params, testkit.Params(fmt.Sprint("tenant", len(c.params)%5), email))
	}
	for i := range 1000 {
		email := fmt.Sprintf("person%d@example.com", i)
		c.people = append(c.people, email)
		add(email)
		if i%50 == 20 {
			email := fmt.Sprintf("user%d@example.com", i)
			c.users[email] = s.clerk.AddVerifiedUser(email).ID
			add(email)
		}
		// People who cannot share a request need a single create. They are early in the list, because in the last window
		// no single create may be left.
		switch i {
		case 23, 123, 223:
			s.clerk.CreateForeign(email, map[string]any{"app": "another"})
			c.foreign = append(c.foreign, email)
		case 55, 255, 755:
			email := fmt.Sprintf("banned%d@example.com", i)
			s.clerk.AddUser(clerkinvitetest.UserSpec{Banned: true, Emails: []clerkinvitetest.EmailSpec{{Address: email, Verified: true}}})
			c.banned = append(c.banned, email)
			add(email)
		case 155:
			c.refused = "refused@example.com"
			add(c.refused)
			for _, call := range []clerkinvitetest.Call{clerkinvitetest.CallCreate, clerkinvitetest.CallCreateBulk} {
				s.clerk.Fail(clerkinvitetest.Fault{Call: call, Email: c.refused, Times: -1, Status: 422, Code: "form_param_format_invalid",
					Meta: map[string]any{"param_name": "email_address", "email_addresses": []string{c.refused}}})
			}
		}
	}
	reserved, err := s.svc.ReserveMany(t.Context(), c.params)
	require.NoError(t, err)
	for _, r := range reserved {
		require.NoError(t, r.Err)
	}
	return c
}

// requireDelivered checks the final state of all people.
func (s *simulation) requireDelivered(t *testing.T, c crowd) {
	t.Helper()
	rows := make(map[string]*clerkinvite.Member)
	refs := make([]clerkinvite.Ref, len(c.params))
	for i, p := range c.params {
		refs[i] = clerkinvite.Ref{TenantID: p.TenantID, Email: p.Email}
	}
	found, err := s.store.Find(t.Context(), clerkinvite.Query{Refs: refs})
	require.NoError(t, err)
	require.Len(t, found, len(refs))
	for _, m := range found {
		rows[m.Email] = m
	}
	for _, email := range c.people {
		m := rows[email]
		require.Equal(t, clerkinvite.StatusPending, m.Status, email)
		require.Equal(t, 1, s.clerk.EmailsTo(email), email)
		ours := slices.DeleteFunc(s.clerk.Invitations(email), func(inv clerkinvite.Invitation) bool {
			return strings.Contains(string(inv.PublicMetadata), "another")
		})
		require.Len(t, ours, 1, email)
		require.Equal(t, clerkinvite.InvitationPending, ours[0].Status)
		require.JSONEq(t, `{"clerkinvite":{"id":"`+m.ID+`","send":1}}`, string(ours[0].PublicMetadata))
		require.Equal(t, clerkinvite.PendingID(ours[0].ID), m.ClerkUserID)
	}
	for _, email := range c.foreign {
		require.Len(t, s.clerk.OpenInvitations(email), 2, "the other application's invitation stays open")
	}
	for email, id := range c.users {
		require.Equal(t, clerkinvite.StatusActive, rows[email].Status)
		require.Equal(t, id, rows[email].ClerkUserID)
	}
	for _, email := range c.banned {
		require.Equal(t, clerkinvite.StatusFailed, rows[email].Status)
		require.Equal(t, clerkinvite.ReasonUserBanned, rows[email].Reason)
	}
	require.Equal(t, clerkinvite.StatusFailed, rows[c.refused].Status)
	require.Equal(t, "form_param_format_invalid", rows[c.refused].Reason)
	require.Equal(t, len(c.people), s.clerk.Emails(), "only the people who were invited got an email")
}

// nextDue returns when the next row is due. ok is false if no row is due.
func (s *simulation) nextDue(t *testing.T) (at time.Time, ok bool) {
	t.Helper()
	rows, err := s.store.Due(t.Context(), clerkinvite.DueQuery{At: s.clock.Now().AddDate(1, 0, 0), Limit: 1})
	require.NoError(t, err)
	if len(rows) == 0 {
		return time.Time{}, false
	}
	return *rows[0].NextAttemptAt, true
}

// deliverAll calls pass, advances the clock to the next due row, but at least by a minute, and repeats that until no row is
// due. It returns the simulated time that this took.
func (s *simulation) deliverAll(t *testing.T, pass func()) time.Duration {
	t.Helper()
	start := s.clock.Now()
	for range 300 {
		pass()
		next, ok := s.nextDue(t)
		if !ok {
			return s.clock.Now().Sub(start)
		}
		s.clock.Advance(max(next.Sub(s.clock.Now()), time.Minute))
	}
	t.Fatal("delivery does not end")
	return 0
}

// pass lets all workers make a pass at the same time. It returns the error text of each, "" for success, and nil for a worker
// that was killed during the pass.
func pass(t *testing.T, workers []*childProcess) []*string {
	t.Helper()
	for _, w := range workers {
		w.start()
	}
	failures := make([]*string, len(workers))
	for i, w := range workers {
		if w.lines.Scan() {
			require.NoError(t, json.Unmarshal(w.lines.Bytes(), &failures[i]))
		}
	}
	return failures
}

// In simulated time, delivery waits only as long as the limits require, with one worker and with several.
func TestPromise8_SimulatedDelivery(t *testing.T) {
	t.Parallel()
	random := testkit.Random(t)
	for _, count := range []int{1, 4} {
		chosen := random.IntN(4)
		for i, sliding := range []bool{false, true} {
			for j, free := range []bool{false, true} {
				if testing.Short() && 2*i+j != chosen {
					continue
				}
				t.Run(fmt.Sprintf("workers %d/sliding %v/refused are free %v", count, sliding, free), func(t *testing.T) {
					t.Parallel()
					limits := clerkinvitetest.DocumentedLimits()
					limits.Sliding, limits.FreeRefused = sliding, free
					s := newSimulation(t)
					s.clerk.SetLimits(limits)
					crowd := s.reserveCrowd(t)
					var workers []*childProcess
					for range count {
						workers = append(workers, startChild(t, "deliver", s.dsn, s.url, time.Minute, nil))
					}
					took := s.deliverAll(t, func() {
						for _, failure := range pass(t, workers) {
							require.NotNil(t, failure, "the worker reports")
							require.Empty(t, *failure)
						}
					})
					s.requireDelivered(t, crowd)
					require.LessOrEqual(t, took, 3*time.Hour+5*time.Minute, "imports may use 336 invitations per hour, and people who need a single create may wait for the next window")
					require.LessOrEqual(t, s.mostInAnHour("POST /invitations"), 86, "the remaining single creates are for callers who invite one person")
					for endpoint, n := range s.refusedInOneWindow(limits) {
						require.LessOrEqual(t, n, 1, endpoint)
					}
				})
			}
		}
	}
}

// Workers are killed at random moments and replaced. Nothing is lost or sent twice, and delivery ends. Each killed
// worker leaves up to a hundred people whose next attempt is a single create, and Clerk allows a hundred of these per hour.
func TestPromise8_SimulatedDeliveryWithKills(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("-short: make test-all has what takes long")
	}
	random := testkit.Random(t)
	limits := clerkinvitetest.DocumentedLimits()
	limits.FreeRefused = true // a worker that dies before it has stored the limit uses up no request
	s := newSimulation(t)
	s.clerk.SetLimits(limits)
	crowd := s.reserveCrowd(t)
	start := func() *childProcess {
		return startChild(t, "deliver", s.dsn, s.url, 2*time.Second, nil)
	}
	workers := []*childProcess{start(), start(), start(), start()}

	var mu sync.Mutex
	kills, killed := 20, 0
	// About one in thirty ticks kills a worker within the next five milliseconds.
	s.eachTick(func() {
		mu.Lock()
		defer mu.Unlock()
		if kills > 0 && random.IntN(30) == 0 {
			kills--
			victim := workers[random.IntN(len(workers))].cmd.Process
			time.AfterFunc(time.Duration(random.Int64N(int64(5*time.Millisecond))), func() { _ = victim.Kill() })
		}
	})
	took := s.deliverAll(t, func() {
		// A pass may end with an error, for example if its lease ended while a dead worker had the turn. The next pass
		// continues.
		for i, failure := range pass(t, workers) {
			if failure == nil {
				w := start()
				mu.Lock()
				workers[i] = w
				mu.Unlock()
				killed++
			}
		}
	})
	t.Logf("%v of simulated time, %d workers killed", took, killed)
	require.NotZero(t, killed)
	s.requireDelivered(t, crowd)
	require.LessOrEqual(t, took, time.Duration(2+killed)*time.Hour+15*time.Minute)
}

// Several processes call Run until SIGTERM. Everybody is invited once. All processes start to reconcile at the same time, and one does.
func TestPromise8_RunInManyProcesses(t *testing.T) {
	t.Parallel()
	const people = 300
	s := newSimulation(t)
	var all []clerkinvite.InviteParams
	for i := range people {
		all = append(all, testkit.Params(fmt.Sprint("tenant", i%5), fmt.Sprintf("person%d@example.com", i)))
	}
	var workers []*childProcess
	for range 4 {
		workers = append(workers, startChild(t, "run", s.dsn, s.url, 5*time.Second, nil))
	}
	for _, w := range workers {
		w.start()
	}
	testkit.Await(t, "a reconciliation", func() bool { // then the next one is due in an hour; until then, the turn lasts 16 minutes at most
		next, err := s.store.SwapTime(t.Context(), "turn reconcile", time.Time{}, time.Time{})
		return err == nil && time.Until(next) > 30*time.Minute
	})
	_, err := s.svc.ReserveMany(t.Context(), all)
	require.NoError(t, err)
	var began, reconciled int
	stop := func(w *childProcess) {
		require.NoError(t, w.cmd.Process.Signal(syscall.SIGTERM))
		require.True(t, w.lines.Scan(), "the worker reports")
		var said runReport
		require.NoError(t, json.Unmarshal(w.lines.Bytes(), &said))
		require.Equal(t, context.Canceled.Error(), said.Err)
		require.LessOrEqual(t, said.After, said.Before, "goroutines: %s", said.Stacks)
		began += int(said.Began)
		reconciled += said.Reconciled
	}
	// One stops in the middle of the work. The members whose responses it did not get are looked up again when its lease
	// ends.
	testkit.Await(t, "a fifth of the emails", func() bool { return s.clerk.Emails() >= people/5 })
	stop(workers[0])
	testkit.Await(t, "the end of the work", func() bool {
		rows, err := s.store.Due(t.Context(), clerkinvite.DueQuery{At: s.clock.Now().AddDate(1, 0, 0), Limit: 1})
		return err == nil && len(rows) == 0
	})
	for _, w := range workers[1:] {
		stop(w)
	}
	require.Equal(t, []int{1, 1}, []int{began, reconciled}, "one reconciliation was due")
	require.Equal(t, people, s.clerk.Emails())
	for _, p := range all {
		require.Equal(t, 1, s.clerk.EmailsTo(p.Email))
		m, err := s.svc.Get(t.Context(), clerkinvite.Ref{TenantID: p.TenantID, Email: p.Email})
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusPending, m.Status)
	}
}

// deliverTogether lets workers make a pass at the same time.
func deliverTogether(t *testing.T, workers []*clerkinvite.Service) (sum clerkinvite.DeliverReport, errs []error) {
	t.Helper()
	reports := make([]*clerkinvite.DeliverReport, len(workers))
	errs = make([]error, len(workers))
	var wg sync.WaitGroup
	for i, w := range workers {
		wg.Go(func() { reports[i], errs[i] = w.Deliver(t.Context(), nil) })
	}
	wg.Wait()
	for _, r := range reports {
		sum.Claimed += r.Claimed
		sum.Linked += r.Linked
		sum.Invited += r.Invited
		sum.Refused += r.Refused
		sum.Ended += r.Ended
		sum.Postponed += r.Postponed
	}
	return sum, errs
}

// A fault of the instance ends a pass after one request, and no member fails.
func TestInstanceFaultWithManyWorkers(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(b *testkit.Rig){
		"wrong key": func(b *testkit.Rig) { b.Clerk.SetSecretKey("sk_test_another") },
		"exhausted quota": func(b *testkit.Rig) {
			b.FailCreates(clerkinvitetest.Fault{Times: -1, Status: 403, Code: "user_quota_exceeded"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const people, workers = 500, 4
			clerk := clerkinvitetest.NewClerk()
			b := testkit.New(t, testkit.Options{}, clerk, testkit.Adapter(t, testkit.Serve(t, clerk)), clerkinvitetest.NewMemoryStore())
			all := b.ReserveSome(t, people)
			fault(b)
			services := b.Workers(t, workers)
			sum, errs := deliverTogether(t, services)
			stopped := 0
			for _, err := range errs {
				if err == nil {
					continue // other workers have claimed all members
				}
				stopped++
				var clerkErr *clerkinvite.ClerkInvitationError
				require.ErrorAs(t, err, &clerkErr)
				require.Equal(t, clerkinvite.OutcomeFault, clerkErr.Outcome)
			}
			require.Positive(t, stopped)
			require.Equal(t, sum.Claimed, sum.Postponed)
			requests := clerk.Requests()
			require.LessOrEqual(t, requests[clerkinvitetest.CallFindUsers], workers)
			require.LessOrEqual(t, requests[clerkinvitetest.CallCreate]+requests[clerkinvitetest.CallCreateBulk], workers)
			for _, p := range all {
				m, err := b.Get(t.Context(), clerkinvite.Ref{TenantID: p.TenantID, Email: p.Email})
				require.NoError(t, err)
				require.Equal(t, clerkinvite.StatusReserved, m.Status)
			}

			clerk.SetSecretKey("")
			clerk.ClearFaults()
			b.Clock.Advance(2 * time.Hour)
			sum, errs = deliverTogether(t, services)
			require.Equal(t, make([]error, workers), errs)
			require.Equal(t, people, sum.Invited)
			require.Equal(t, people, clerk.Emails())
		})
	}
}

// Clerk fails for one address. Several workers deliver the others.
func TestPoisonedAddressWithManyWorkers(t *testing.T) {
	t.Parallel()
	for _, call := range []clerkinvitetest.Call{clerkinvitetest.CallFindUsers, clerkinvitetest.CallCreate} {
		t.Run(string(call), func(t *testing.T) {
			t.Parallel()
			const people, poisoned = 400, "p33@example.com"
			clerk := clerkinvitetest.NewClerk()
			b := testkit.New(t, testkit.Options{}, clerk, clerk, clerkinvitetest.NewMemoryStore())
			all := b.ReserveSome(t, people)
			fault := clerkinvitetest.Fault{Call: call, Email: poisoned, Times: -1, Kind: clerkinvitetest.JSON500}
			if call == clerkinvitetest.CallCreate {
				b.FailCreates(fault)
			} else {
				clerk.Fail(fault)
			}
			workers := b.Workers(t, 4)
			for range 8 { // the people who shared the request have lost their response, too
				_, errs := deliverTogether(t, workers)
				require.Equal(t, make([]error, len(workers)), errs)
				b.Clock.Advance(2 * time.Hour)
			}
			require.Equal(t, people-1, clerk.Emails())
			for _, p := range all {
				m, err := b.Get(t.Context(), clerkinvite.Ref{TenantID: p.TenantID, Email: p.Email})
				require.NoError(t, err)
				if p.Email == poisoned {
					require.Equal(t, clerkinvite.StatusReserved, m.Status)
					continue
				}
				require.Equal(t, clerkinvite.StatusPending, m.Status)
				require.Equal(t, 1, clerk.EmailsTo(p.Email))
			}
		})
	}
}
