package clerkinvite_test

import (
	"bufio"
	"context"
	"encoding/json"
	_ "errors"
	"fmt"
	"io"
	"log/slog"
	_ "maps"
	"math/rand/v2"
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
)

// passReport is what a worker process says of one pass of Deliver.
type passReport struct {
	Report clerkinvite.DeliverReport
	Err    string
}

// runReport is what a worker process says of its Run, which a SIGTERM has ended.
type runReport struct {
	Err           string
	Took          time.Duration // from the signal to the return
	Before, After int           // goroutines
	Reconciled    int
}

// work is the life of a worker process. It ends with its parent, whose end it reads.
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
	clock := newClock()
	config.Now = clock.Now
	svc, err := clerkinvite.New(config)
	if err != nil {
		panic(err)
	}
	fmt.Println("READY")
	for lines.Scan() { // each line is one pass
		now, err := simulatedTime(strings.TrimSuffix(os.Getenv("CHILD_CLERK"), "/v1") + "/clock")
		if err != nil {
			panic(err)
		}
		clock.Advance(now.Sub(clock.Now()))
		report, err := svc.Deliver(context.Background(), nil)
		said := passReport{Report: *report}
		if err != nil {
			said.Err = err.Error()
		}
		say(said)
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
	var signaled atomic.Int64
	context.AfterFunc(ctx, func() { signaled.Store(time.Now().UnixNano()) })
	var log lockedBuffer
	config.Logger = slog.New(slog.NewTextHandler(&log, nil))
	svc, err := clerkinvite.New(config)
	if err != nil {
		panic(err)
	}
	said.Before = runtime.NumGoroutine()
	err = svc.Run(ctx, &clerkinvite.RunOptions{Interval: 50 * time.Millisecond, ReconcileInterval: time.Hour})
	said.Took = time.Since(time.Unix(0, signaled.Load()))
	said.Err = err.Error()
	said.Reconciled = strings.Count(log.String(), "msg=reconciled ")
	for range 200 { // what the library does not own, such as idle connections, ends soon
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		if said.After = runtime.NumGoroutine(); said.After <= said.Before {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return said
}

// simulation is what the parent of worker processes holds: Clerk, its clock, and the
// store that the workers share.
type simulation struct {
	clerk *clerkinvitetest.Clerk
	clock *clock
	store *clerkinvite.PgxStore
	svc   *clerkinvite.Service // for reserving and reading
	dsn   string
	url   string

	mu       sync.Mutex
	requests map[string][]exchange // by endpoint
	ticks    int                   // until then is called
	then     func()
}

// exchange is a request to Clerk: when, and how it was answered.
type exchange struct {
	at     time.Time
	status int
}

func newSimulation(t *testing.T) *simulation {
	t.Helper()
	db := pgtest.New(t)
	s := &simulation{
		clerk: clerkinvitetest.NewClerk(), clock: newClock(), store: clerkinvite.NewPgxStore(db.Pool(t), nil), dsn: db.DSN,
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
	s.svc, err = clerkinvite.New(clerkinvite.Config{API: s.clerk, Store: s.store, Now: s.clock.Now})
	require.NoError(t, err)
	return s
}

// after lets f be called after so many ticks: each request to Clerk is one, and each answer.
func (s *simulation) after(ticks int, f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ticks, s.then = ticks, f
}

func (s *simulation) tick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ticks--; s.ticks < 0 && s.then != nil {
		s.then()
		s.then = nil
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

// refusedInOneWindow returns, by endpoint, how many requests a rate limit refused
// within one window, in the worst of them. A fixed window begins with the first
// request that counts after the one before has ended. Windows that slide have neither
// beginning nor end; there every hour that begins with a refused request is one.
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

// crowd is who is reserved for a simulated run.
type crowd struct {
	params  []clerkinvite.InviteParams
	users   map[string]string // address and id of those whom Clerk knows
	banned  []string
	refused string
	foreign []string // invited by another application already
	people  []string // who need an invitation, foreign included
}

// reserveCrowd reserves 1,000 people who need an invitation, and some on top who do not.
func (s *simulation) reserveCrowd(t *testing.T) crowd {
	t.Helper()
	c := crowd{users: make(map[string]string)}
	add := func(email string) {
		c.params = append(c.params, params(fmt.Sprint("tenant", len(c.params)%5), email))
	}
	for i := range 1000 {
		email := fmt.Sprintf("person%d@example.com", i)
		c.people = append(c.people, email)
		add(email)
		switch {
		case i%50 == 20:
			email := fmt.Sprintf("user%d@example.com", i)
			c.users[email] = s.clerk.AddVerifiedUser(email).ID
			add(email)
		case i%500 == 123:
			s.clerk.CreateForeign(email, map[string]any{"app": "another"})
			c.foreign = append(c.foreign, email)
		case i%400 == 234:
			email := fmt.Sprintf("banned%d@example.com", i)
			s.clerk.AddUser(clerkinvitetest.UserSpec{Banned: true, Emails: []clerkinvitetest.EmailSpec{{Address: email, Verified: true}}})
			c.banned = append(c.banned, email)
			add(email)
		case i == 555:
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

// requireDelivered asserts what has become of everybody.
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
		require.Len(t, s.clerk.OpenInvitations(email), 2, "the other application's stays")
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
	require.Equal(t, len(c.people), s.clerk.Emails(), "and nobody else got one")
}

// nextDue returns when the next row is due, and whether there is one.
func (s *simulation) nextDue(t *testing.T) (time.Time, bool) {
	t.Helper()
	rows, err := s.store.Find(t.Context(), clerkinvite.Query{DueAt: s.clock.Now().AddDate(1, 0, 0), Limit: 1})
	require.NoError(t, err)
	if len(rows) == 0 {
		return time.Time{}, false
	}
	return *rows[0].NextAttemptAt, true
}

// deliverAll lets all workers make a pass at the same time, sets the clock to when the
// next row is due, at least a minute on, and so on until none is. It returns how long that took.
func (s *simulation) deliverAll(t *testing.T, pass func()) time.Duration {
	t.Helper()
	start := s.clock.Now()
	for range 300 {
		pass()
		if os.Getenv("DBGSIM") != "" {
			t.Logf("%v %d emails %v", s.clock.Now().Format("15:04:05"), s.clerk.Emails(), s.clerk.Requests())
		}
		next, ok := s.nextDue(t)
		if !ok {
			return s.clock.Now().Sub(start)
		}
		s.clock.Advance(max(next.Sub(s.clock.Now()), time.Minute))
	}
	t.Fatal("it does not end")
	return 0
}

// startAll lets every worker begin a pass.
func startAll(workers []*childProcess) {
	for _, w := range workers {
		w.start()
	}
}

// passEnded waits for the end of a worker's pass. It returns false if the worker was killed.
func passEnded(t *testing.T, w *childProcess) bool {
	t.Helper()
	if !w.lines.Scan() {
		return false
	}
	var said passReport
	require.NoError(t, json.Unmarshal(w.lines.Bytes(), &said))
	require.Empty(t, said.Err)
	return true
}

// Promise 8, in simulated time: what a limit of Clerk's costs is the time until it is
// over, for one worker and for several in several processes.
func TestSimulatedDelivery(t *testing.T) {
	t.Parallel()
	for _, count := range []int{1, 4} {
		for _, sliding := range []bool{false, true} {
			for _, free := range []bool{false, true} {
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
						startAll(workers)
						for _, w := range workers {
							require.True(t, passEnded(t, w), "the worker reports")
						}
					})
					s.requireDelivered(t, crowd)
					require.LessOrEqual(t, took, 2*time.Hour+5*time.Minute)
					for endpoint, n := range s.refusedInOneWindow(limits) {
						require.LessOrEqual(t, n, 1, endpoint)
					}
				})
			}
		}
	}
}

// The same with workers that are killed at random moments: by the clock, or when Clerk
// gets or has answered a request, so that some die with an invitation on its way.
func TestSimulatedDeliveryKilled(t *testing.T) {
	t.Parallel()
	const kills = 12
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	s := newSimulation(t)
	s.clerk.SetLimits(clerkinvitetest.DocumentedLimits())
	crowd := s.reserveCrowd(t)
	start := func() *childProcess { return startChild(t, "deliver", s.dsn, s.url, 4*time.Second, nil) }
	workers := []*childProcess{start(), start(), start(), start()}
	killed := 0
	took := s.deliverAll(t, func() {
		victims := random.Perm(len(workers))
		if killed >= kills {
			victims = nil
		}
		for i, victim := range victims {
			process := workers[victim].cmd.Process
			kill := func() { _ = process.Kill() }
			switch i {
			case 0:
				time.AfterFunc(time.Duration(random.Int64N(int64(time.Second))), kill)
			case 1:
				s.after(random.IntN(60), kill)
			}
		}
		startAll(workers)
		for i, w := range workers {
			if !passEnded(t, w) {
				killed++
				workers[i] = start()
			}
		}
	})
	t.Logf("%v of simulated time, %d workers killed", took, killed)
	s.requireDelivered(t, crowd)
}
