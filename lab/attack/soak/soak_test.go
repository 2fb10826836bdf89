// Package soak_test lets several processes of an application invite, accept, resend,
// revoke and remove for an hour, while Clerk fails in every way it can, connections to
// PostgreSQL are cut and one of the processes is killed repeatedly. It watches the
// memory, goroutines, files and connections of the surviving processes and whether a
// member gets stuck, and at the end it checks every row and every invitation.
//
// In the short mode it takes seconds, and the figures of growth mean nothing.
// CLERKINVITE_SOAK=10m sets another duration.
package soak_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkapi"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
	"github.com/clerkinvite/clerkinvite/internal/tally"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

const (
	envChild = "SOAK_CHILD"
	observer = "observer" // application_name of connections that are not cut
)

func TestMain(m *testing.M) {
	var err error
	switch os.Getenv(envChild) {
	case "":
		os.Exit(pgtest.Main(m))
	case "clerk":
		err = runClerk()
	case "host":
		err = runHost()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// process is a child process of the test.
type process struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner
}

// start starts a child and returns the first thing that it prints.
func start(t *testing.T, what string, env ...string) (p *process, first string) {
	t.Helper()
	p = &process{cmd: exec.Command(os.Args[0], "-test.run=^$")} // #nosec G204 -- this test binary itself
	p.cmd.Env = append(append(os.Environ(), envChild+"="+what, "GORACE=atexit_sleep_ms=0"), env...)
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = dieTogether()
	stdout, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	t.Cleanup(func() { _ = p.cmd.Process.Kill(); _ = p.cmd.Wait() })
	p.lines = bufio.NewScanner(stdout)
	p.lines.Buffer(nil, 1<<24)
	require.True(t, p.lines.Scan(), "the process %q starts", what)
	return p, p.lines.Text()
}

// seen is what the hosts have reported.
type seen struct {
	sync.Mutex

	acked    map[clerkinvite.Ref]bool
	problems []string
	passes   []pass
	calls    map[string]int64
}

// follow reads what a host prints, to its end.
func (s *seen) follow(p *process) (samples []measured) {
	for p.lines.Scan() {
		var r report
		if err := json.Unmarshal(p.lines.Bytes(), &r); err != nil {
			continue // cut off by a kill
		}
		s.Lock()
		switch {
		case r.Acked != nil:
			s.acked[*r.Acked] = true
		case r.Problem != "":
			s.problems = append(s.problems, r.Problem)
		case r.Pass != nil:
			s.passes = append(s.passes, *r.Pass)
		case r.Sample != nil:
			samples = append(samples, *r.Sample)
			for name, n := range r.Calls {
				s.calls[name] += n
			}
		}
		s.Unlock()
	}
	return samples
}

func TestSoak(t *testing.T) {
	length, people := 20*time.Second, 100
	if tally.Long() {
		length, people = time.Hour, 1000
	}
	if s := os.Getenv("CLERKINVITE_SOAK"); s != "" {
		var err error
		length, err = time.ParseDuration(s)
		require.NoError(t, err)
	}
	seed := testkit.Seed()
	t.Logf("seed %d (CLERKINVITE_SEED chooses another), %v", seed, length)
	row := tally.Start(t, "soak: mixed load with faults, cuts and kills")

	db := pgtest.New(t)
	pool := db.Pool(t, func(c *pgxpool.Config) { c.MaxConns, c.ConnConfig.RuntimeParams["application_name"] = 4, observer })
	store := clerkinvite.NewPgxStore(pool, nil)
	require.NoError(t, store.Migrate(t.Context()))
	_, clerk := start(t, "clerk", fmt.Sprint("SOAK_SEED=", seed))
	env := []string{"SOAK_CLERK=" + clerk, "SOAK_DSN=" + db.DSN, fmt.Sprint("SOAK_PEOPLE=", people)}

	s := &seen{acked: make(map[clerkinvite.Ref]bool), calls: make(map[string]int64)}
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	var wg sync.WaitGroup
	// Two hosts live to the end, and one is killed again and again.
	living := make([]*process, 2)
	samples := make([][]measured, len(living))
	for i := range living {
		living[i], _ = start(t, "host", append(env, fmt.Sprint("SOAK_SEED=", seed+1+uint64(i)))...)
		wg.Go(func() { samples[i] = s.follow(living[i]) })
	}
	kills := 0
	wg.Go(func() {
		random := rand.New(rand.NewPCG(seed, 2)) // #nosec G404 -- to be repeated by its seed
		for ctx.Err() == nil {
			p, _ := start(t, "host", append(env, fmt.Sprint("SOAK_SEED=", random.Uint64()))...)
			after := time.AfterFunc(time.Duration(random.Int64N(int64(10*time.Second))), func() { _ = p.cmd.Process.Kill() })
			stop := context.AfterFunc(ctx, func() { _ = p.cmd.Process.Kill() })
			s.follow(p)
			_ = p.cmd.Wait()
			if status, _ := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGKILL {
				t.Errorf("a host ends by itself: %v", p.cmd.ProcessState)
			}
			if ctx.Err() == nil {
				kills++
			}
			after.Stop()
			stop()
		}
	})
	var cuts int
	wg.Go(func() { cuts = cutConnections(ctx, t, pool, rand.New(rand.NewPCG(seed, 3))) }) // #nosec G404 -- the same
	stuck := watch(ctx, t, s, store, pool)

	// In order: the remaining hosts finish what they have begun.
	for _, p := range living {
		require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	}
	wg.Wait()
	for _, p := range living {
		require.NoError(t, p.cmd.Wait(), "a host ends in order")
	}
	require.Empty(t, s.problems)
	require.Empty(t, stuck.stuck, "members that a whole pass has left as they were although they were due")
	if length >= time.Minute { // a busy machine may finish no pass in less
		require.NotZero(t, stuck.passes)
		require.NotZero(t, cuts)
		require.NotZero(t, kills)
	}
	figures := []string{fmt.Sprintf("the longest time that a member was due before an attempt: %v (lease %v, pause between passes 0.5 s, Clerk down for 3 s at a time)",
		stuck.longest.Round(10*time.Millisecond), lease)}
	for i := range living {
		figures = append(figures, grown(t, fmt.Sprintf("host %d", i+1), samples[i], length))
	}
	figures = append(figures, fmt.Sprintf("connections of all processes to the database: at most %d of %d allowed", stuck.conns, (len(living)+2)*maxConns))

	members, invitations := settled(t, s, store, clerk, people)
	var total int64
	for name, n := range s.calls {
		t.Logf("%8d  %s", n, name)
		total += n
	}
	row.Done(fmt.Sprintf("%v, %d calls, %d processes killed, %d connections cut, %d passes watched", length, total, kills, cuts, stuck.passes),
		fmt.Sprintf("0 of %d acknowledged members, 0 second emails in %d invitations, 0 of %d members stuck", len(s.acked), invitations, members), figures...)
}

// cutConnections ends connections to the database: one every other second, sometimes all of them.
func cutConnections(ctx context.Context, t *testing.T, pool *pgxpool.Pool, random *rand.Rand) (cuts int) {
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return cuts
		case <-time.After(2 * time.Second):
		}
		limit := 1
		if n%60 == 0 {
			limit = 1000
		}
		var ended int
		err := pool.QueryRow(ctx, `SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity
			WHERE datname = current_database() AND backend_type = 'client backend' AND application_name <> $1
			ORDER BY md5(pid::text || $2) LIMIT $3) AS victims`, observer, fmt.Sprint(random.Uint64()), limit).Scan(&ended)
		if err != nil && ctx.Err() == nil {
			t.Errorf("cut connections: %v", err)
		}
		cuts += ended
	}
}

// watched is what watch has seen.
type watched struct {
	stuck   []string
	longest time.Duration // that a member was due without an attempt
	conns   int
	passes  int // without a rate limit
}

// watch regularly reads the due members. A member is stuck if its lease has ended and a whole
// successful pass of Deliver, which began after that, has left it unchanged, unless a rate limit
// blocked the endpoint that the member needs.
func watch(ctx context.Context, t *testing.T, s *seen, store *clerkinvite.PgxStore, pool *pgxpool.Pool) (w watched) {
	t.Helper()
	type due struct {
		version int64
		since   time.Time
	}
	waiting := make(map[string]due)
	var closed time.Time // the end of the latest rate limit
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return w
		case <-tick.C:
		}
		s.Lock()
		passes := s.passes
		s.passes = nil
		s.Unlock()
		now := time.Now()
		until, err := limited(ctx, pool, now)
		if until.After(closed) {
			closed = until
		}
		conns := 0
		if err == nil {
			err = pool.QueryRow(ctx, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'").Scan(&conns)
		}
		w.conns = max(w.conns, conns)
		var rows []*clerkinvite.Member
		if err == nil {
			rows, err = store.Due(ctx, clerkinvite.DueQuery{At: now, Limit: 1000})
		}
		if ctx.Err() != nil {
			return w
		}
		require.NoError(t, err, "the test itself has no trouble with the database")
		// Only passes that begin from now on must see these rows. On a slow machine the query may
		// have run late and found rows written after the time it asked for.
		seen := time.Now()
		still := make(map[string]due, len(rows))
		for _, m := range rows {
			if m.ClaimedUntil != nil && m.ClaimedUntil.After(now) {
				continue
			}
			d, ok := waiting[m.ID]
			if !ok || d.version != m.Version {
				d = due{m.Version, seen}
			}
			still[m.ID] = d
			w.longest = max(w.longest, seen.Sub(d.since))
			for _, p := range passes {
				if p.Begin.After(d.since) && p.Begin.After(closed) {
					w.stuck = append(w.stuck, fmt.Sprintf("%s (version %d, %s, due since %v, pass %v to %v)", m.ID, m.Version, m.Status, d.since, p.Begin, p.End))
				}
			}
		}
		waiting = still
		for _, p := range passes {
			if p.Begin.After(closed) {
				w.passes++
			}
		}
	}
}

// limited returns until when a rate limit blocks deliveries. A create endpoint that is blocked for
// less than a lease is only another process's turn.
func limited(ctx context.Context, pool *pgxpool.Pool, now time.Time) (until time.Time, err error) {
	rows, err := pool.Query(ctx, "SELECT name, blocked_until FROM clerkinvite_limit WHERE name <> 'turn reconcile' AND blocked_until > $1", now)
	if err != nil {
		return until, err
	}
	var endpoint string
	var blocked time.Time
	_, err = pgx.ForEachRow(rows, []any{&endpoint, &blocked}, func() error {
		if !strings.HasPrefix(endpoint, "POST /invitations") || strings.HasSuffix(endpoint, "revoke") || blocked.After(now.Add(lease+lease/8)) {
			until = blocked
		}
		return nil
	})
	return until, err
}

// grown compares what a host used after warming up with what it used at the end.
func grown(t *testing.T, name string, samples []measured, length time.Duration) string {
	t.Helper()
	require.NotEmpty(t, samples)
	last := samples[len(samples)-1]
	require.LessOrEqual(t, last.Leftover, 0, "%s: goroutines that outlive every call\n%s", name, last.LeftoverStacks)
	samples = samples[:len(samples)-1] // taken after everything had ended
	median := func(from, to int, of func(measured) int64) int64 {
		var all []int64
		for _, m := range samples[len(samples)*from/10 : max(len(samples)*to/10, len(samples)*from/10+1)] {
			all = append(all, of(m))
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	heap := func(m measured) int64 { return m.Heap }
	resident := func(m measured) int64 { return m.Resident }
	goroutines := func(m measured) int64 { return int64(m.Goroutines) }
	files := func(m measured) int64 { return int64(m.Files) }
	conns := func(m measured) int64 { return int64(m.Conns) }
	var parts []string
	for _, f := range []struct {
		name  string
		of    func(measured) int64
		unit  int64
		slack int64 // allowed to vary with the load
		part  int64 // plus this fraction
	}{
		{"heap KiB", heap, 1 << 10, 1 << 20, 10},
		{"resident MiB", resident, 1 << 20, 16 << 20, 10},
		{"goroutines", goroutines, 1, 15, 10},
		{"files", files, 1, 10, 10},
		{"connections", conns, 1, 4, 10},
	} {
		early, late := median(1, 4, f.of), median(7, 10, f.of)
		parts = append(parts, fmt.Sprintf("%s %d → %d", f.name, early/f.unit, late/f.unit))
		if length >= 5*time.Minute {
			require.LessOrEqual(t, late, early+early/f.part+f.slack, "%s: %s grow", name, f.name)
		}
	}
	return name + ", medians of the first third after warming up and of the last: " + strings.Join(parts, ", ")
}

// holds asks Clerk whether the member's user has the address verified.
func holds(t *testing.T, api clerkinvite.ClerkAPI, m *clerkinvite.Member) bool {
	t.Helper()
	users, err := api.FindUsers(t.Context(), clerkinvite.UserQuery{IDs: []string{m.ClerkUserID}})
	require.NoError(t, err)
	return len(users) == 1 && slices.ContainsFunc(users[0].Emails, func(e clerkinvite.UserEmail) bool { return e.Verified && e.Address == m.Email })
}

// settled completes all work without faults and checks every row and every invitation.
func settled(t *testing.T, s *seen, store *clerkinvite.PgxStore, clerk string, people int) (members, invitations int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, clerk+"/quiet", nil)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	resp.Body.Close()
	ahead := time.Minute
	api, err := clerkapi.New("sk_test_1", &clerkapi.Options{BaseURL: clerk + "/v1", HTTPClient: &http.Client{}})
	require.NoError(t, err)
	now := func() time.Time { return time.Now().Add(ahead) }
	svc, err := clerkinvite.New(clerkinvite.Config{API: api, Store: testkit.ClockedStore{Store: store, Now: now}, Now: now})
	require.NoError(t, err)
	var due []*clerkinvite.Member
	for range 200 { // each hour has 86 single creates for members of imports
		_, err := svc.Deliver(t.Context(), nil)
		require.NoError(t, err)
		due, err = store.Due(t.Context(), clerkinvite.DueQuery{At: now().Add(24 * time.Hour)})
		require.NoError(t, err)
		if ahead += 2 * time.Hour; len(due) == 0 {
			break
		}
	}
	require.Empty(t, due, "nothing stays due")
	// The invitation was accepted and the user then deleted. Nothing shows whose account that was,
	// so Reconcile reports it.
	elsewhere := make(map[string]bool)
	missing := 0
	for cursor := ""; ; {
		report, err := svc.Reconcile(t.Context(), &clerkinvite.ReconcileOptions{Cursor: cursor, Limit: 20}) // so few need no pauses between the requests
		require.NoError(t, err)
		for _, m := range report.AcceptedElsewhere {
			elsewhere[m.ID] = true
		}
		missing += report.Missing
		if cursor = report.Cursor; cursor == "" {
			break
		}
	}

	rows := make(map[clerkinvite.Ref]*clerkinvite.Member)
	byID := make(map[string]*clerkinvite.Member)
	for i := range tenants {
		for m, err := range svc.All(t.Context(), clerkinvite.ListParams{TenantID: tenant(i)}) {
			require.NoError(t, err)
			rows[clerkinvite.Ref{TenantID: m.TenantID, Email: m.Email}], byID[m.ID] = m, m
		}
	}
	for ref := range s.acked {
		require.Contains(t, rows, ref, "an acknowledged member is there")
	}

	req, err = http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("%s/sent?people=%d", clerk, people), nil)
	require.NoError(t, err)
	resp, err = http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	var all []sent
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&all))
	type send struct {
		ID   string `json:"id"`
		Send int    `json:"send"`
	}
	once := make(map[send]string)
	open := make(map[string]string) // invitation by member
	for _, one := range all {
		var metadata struct {
			Ours send `json:"clerkinvite"`
		}
		require.NoError(t, json.Unmarshal(one.Invitation.PublicMetadata, &metadata))
		require.NotEmpty(t, metadata.Ours.ID)
		require.LessOrEqual(t, one.Emails, 1)
		require.Empty(t, once[metadata.Ours], "a second invitation of one send: %v, %s", metadata.Ours, one.Invitation.ID)
		once[metadata.Ours] = one.Invitation.ID
		if one.Invitation.Status == clerkinvite.InvitationPending {
			require.Empty(t, open[metadata.Ours.ID], "two open invitations of a member")
			open[metadata.Ours.ID] = one.Invitation.ID
			m := byID[metadata.Ours.ID]
			require.NotNil(t, m, "whose invitation is %s?", one.Invitation.ID)
			require.Equal(t, clerkinvite.StatusPending, m.Status, "left over: %s of %s", one.Invitation.ID, m.ID)
			require.Equal(t, m.InvitationID, one.Invitation.ID)
		}
	}
	for _, m := range rows {
		require.NotEqual(t, clerkinvite.StatusReserved, m.Status)
		require.NotEqual(t, clerkinvite.StatusFailed, m.Status, "Clerk refuses no person here")
		if m.Status == clerkinvite.StatusActive && !holds(t, api, m) {
			// Reconcile keeps the oldest members although their users were deleted: no older one shows that the key is right.
			missing--
			require.GreaterOrEqual(t, missing, 0, "%s is active, and the user does not hold the address verified", m.ID)
		}
		if m.Status == clerkinvite.StatusPending && !elsewhere[m.ID] {
			require.Equal(t, m.InvitationID, open[m.ID], "the link of %s is dead", m.ID)
		}
	}
	return len(rows), len(all)
}
