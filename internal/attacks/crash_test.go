package attacks_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
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

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkapi"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
	"github.com/clerkinvite/clerkinvite/internal/tally"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// child is another process of the host: the test binary, started again with
// CLERKINVITE_TEST_CHILD. Everything it needs is in the environment.
func child(mode string) {
	ctx := context.Background()
	must := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			os.Exit(2)
		}
	}
	if mode == "point" {
		must(pointChild())
		return
	}
	cfg, err := pgxpool.ParseConfig(os.Getenv("CHILD_DSN"))
	must(err)
	cfg.MaxConns = 8
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	must(err)
	must(pool.Ping(ctx))
	api, err := clerkapi.New("sk_test_1", &clerkapi.Options{
		BaseURL: os.Getenv("CHILD_CLERK"), HTTPClient: &http.Client{Transport: http.DefaultTransport}, Timeout: time.Minute, CreateTimeout: time.Minute,
	})
	must(err)
	lease, err := time.ParseDuration(os.Getenv("CHILD_LEASE"))
	must(err)
	var emails []string
	must(json.Unmarshal([]byte(os.Getenv("CHILD_EMAILS")), &emails))
	config := clerkinvite.Config{API: api, Store: clerkinvite.NewPgxStore(pool, nil), Lease: lease}
	if mode == "kill" || mode == "adopt" {
		k, err := newTrack()
		must(err)
		// Each line is written immediately, so that a killed process has reported how far it was.
		k.say = func(point string) { _, _ = fmt.Println("POINT", point) }
		config.API = pointAPI{api, k}
		config.Store = pointStore{clerkinvite.NewPgxStore(pointDB{pool, k}, nil), k, nil}
	}
	if mode == "deliver" || mode == "run" {
		work(mode, config)
		return
	}
	svc, err := clerkinvite.New(config)
	must(err)

	fmt.Println("READY")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n') // until the parent continues
	switch mode {
	case "kill":
		var wg sync.WaitGroup
		for _, email := range emails {
			wg.Go(func() { _, _ = svc.Invite(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: email}) })
		}
		wg.Wait()
		fmt.Println("POINT end")
	case "adopt":
		_, _ = svc.Adopt(ctx, adoptable(os.Getenv("CHILD_TENANT"), emails))
		fmt.Println("POINT end")
	case "storm":
		var mu sync.Mutex
		outcomes := make(map[string]int)
		var wg sync.WaitGroup
		for range 128 {
			wg.Go(func() {
				for _, i := range rand.Perm(len(emails)) {
					_, err := svc.Invite(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: emails[i]})
					outcome := "invited"
					var dup *clerkinvite.DuplicateEmailError
					switch {
					case errors.As(err, &dup):
						outcome = "duplicate"
					case err != nil:
						outcome = fmt.Sprintf("other: %v", err)
					}
					mu.Lock()
					outcomes[outcome]++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		report, err := json.Marshal(outcomes)
		must(err)
		fmt.Println(string(report))
	}
}

type childProcess struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner
	start func()
}

func startChild(t *testing.T, mode, dsn, clerk string, lease time.Duration, emails []string, env ...string) *childProcess {
	t.Helper()
	list, err := json.Marshal(emails)
	require.NoError(t, err)
	cmd := exec.Command(os.Args[0], "-test.run=^$") // #nosec G204 -- this test binary itself
	cmd.Env = append(append(os.Environ(), env...), "CLERKINVITE_TEST_CHILD="+mode, "CHILD_DSN="+dsn, "CHILD_CLERK="+clerk,
		"CHILD_LEASE="+lease.String(), "CHILD_EMAILS="+string(list), "GOMAXPROCS=2", "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	c := &childProcess{cmd: cmd, lines: bufio.NewScanner(stdout)}
	c.start = func() { _, _ = stdin.Write([]byte("go\n")) }
	require.True(t, c.lines.Scan(), "the child starts")
	require.Equal(t, "READY", c.lines.Text())
	return c
}

// Eight processes with 128 goroutines each invite the same addresses.
func TestPromise1_ConcurrentInvitesFromManyProcesses(t *testing.T) {
	t.Parallel()
	row := tally.Start(t, "the same addresses invited at once by many processes")
	db := pgtest.New(t)
	store := clerkinvite.NewPgxStore(db.Pool(t), nil)
	require.NoError(t, store.Migrate(t.Context()))
	clerk := clerkinvitetest.NewClerk()
	url := testkit.Serve(t, clerk)
	people := 17
	if testing.Short() {
		people = 4
	}
	var emails []string
	for i := range people {
		emails = append(emails, fmt.Sprintf("person%d@example.com", i))
	}
	var children []*childProcess
	for range 8 {
		children = append(children, startChild(t, "storm", db.DSN, url, 5*time.Minute, emails))
	}
	for _, c := range children {
		c.start()
	}
	total := make(map[string]int)
	for _, c := range children {
		require.True(t, c.lines.Scan(), "the child reports")
		var outcomes map[string]int
		require.NoError(t, json.Unmarshal(c.lines.Bytes(), &outcomes))
		for k, n := range outcomes {
			total[k] += n
		}
		require.NoError(t, c.cmd.Wait())
	}
	require.Equal(t, map[string]int{"invited": people, "duplicate": 8*128*people - people}, total)
	require.Equal(t, people, clerk.Emails())
	refs := make([]clerkinvite.Ref, len(emails))
	for i, email := range emails {
		refs[i] = clerkinvite.Ref{TenantID: "acme", Email: email}
		require.Len(t, clerk.Invitations(email), 1)
	}
	rows, err := store.Find(t.Context(), clerkinvite.Query{Refs: refs})
	require.NoError(t, err)
	require.Len(t, rows, people)
	for _, m := range rows {
		require.Equal(t, clerkinvite.StatusPending, m.Status)
		require.Equal(t, clerk.Invitations(m.Email)[0].ID, m.InvitationID)
	}
	require.Equal(t, 2*people, clerk.RequestCount(), "a duplicate costs Clerk nothing")
	row.Done(fmt.Sprintf("8 processes, 128 goroutines each, %d addresses: %d invites", people, 8*128*people), fmt.Sprintf("0 of %d members, 0 second emails", people))
}

// Processes are killed at random moments.
func TestPromise3_KilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	const workers = 4
	rounds := 200
	switch {
	case testing.Short():
		rounds = 40
	case tally.Long():
		rounds = 2000
	}
	random := testkit.Random(t)
	row := tally.Start(t, "kill -9 at random moments")
	db := pgtest.New(t)
	store := clerkinvite.NewPgxStore(db.Pool(t), nil)
	require.NoError(t, store.Migrate(t.Context()))
	clerk := clerkinvitetest.NewClerk()
	url, sites := testkit.Serve(t, clerk), sitesFile(t)
	// Short, so that later rounds take over the members of a killed round. A lease may end
	// while its process lives, which is part of the attack.
	const lease = time.Second

	var mu sync.Mutex
	hits := make(map[string]int)
	killed := 0
	var emails []string
	next := make(chan int)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for round := range next {
				mu.Lock()
				// Half of the rounds invite new people, the others the people of a killed round.
				var mine []string
				for i := range 3 {
					mine = append(mine, fmt.Sprintf("round%d-%d@example.com", round%(rounds/2), i))
				}
				emails = append(emails, mine...)
				// Kill after a time in one round, and after a number of steps in the next.
				delay, steps := time.Duration(random.Int64N(int64(60*time.Millisecond))), -1
				if round%2 == 1 {
					delay, steps = time.Minute, random.IntN(3*12)
				}
				mu.Unlock()
				c := startChild(t, "kill", db.DSN, url, lease, mine, sites)
				c.start()
				kill := time.AfterFunc(delay, func() { _ = c.cmd.Process.Kill() })
				last := "POINT start"
				for n := 0; ; n++ {
					if n == steps {
						_ = c.cmd.Process.Kill()
					}
					if !c.lines.Scan() { // read everything before Wait closes the pipe
						break
					}
					last = c.lines.Text()
				}
				kill.Stop()
				_ = c.cmd.Wait()
				mu.Lock()
				switch status, _ := c.cmd.ProcessState.Sys().(syscall.WaitStatus); {
				case status.Signaled() && status.Signal() == syscall.SIGKILL:
					killed++
				case !c.cmd.ProcessState.Success() || last != "POINT end":
					t.Errorf("a process ends by itself: %v, %s", c.cmd.ProcessState, last)
				}
				hits[strings.TrimPrefix(last, "POINT ")]++
				mu.Unlock()
			}
		})
	}
	for round := range rounds {
		next <- round
	}
	close(next)
	wg.Wait()
	slices.Sort(emails)
	emails = slices.Compact(emails)

	// Two hours later every lease and pause has ended.
	ahead := 2 * time.Hour
	now := func() time.Time { return time.Now().Add(ahead) }
	svc, err := clerkinvite.New(clerkinvite.Config{API: testkit.Adapter(t, url), Store: testkit.ClockedStore{Store: store, Now: now}, Now: now})
	require.NoError(t, err)
	recovered := 0
	for range 5 {
		report, err := svc.Deliver(t.Context(), nil)
		require.NoError(t, err)
		recovered += report.Claimed
		ahead += 2 * time.Hour
	}
	due, err := store.Due(t.Context(), clerkinvite.DueQuery{At: time.Now().Add(24 * time.Hour)})
	require.NoError(t, err)
	require.Empty(t, due)

	invited := 0
	for _, email := range emails {
		m, err := svc.Get(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: email})
		if errors.Is(err, clerkinvite.ErrNotFound) {
			require.Zero(t, clerk.EmailsTo(email), "killed before the row was written, so nothing was sent")
			continue
		}
		require.NoError(t, err)
		invited++
		require.Equal(t, clerkinvite.StatusPending, m.Status)
		require.Equal(t, 1, clerk.EmailsTo(email))
		open := clerk.OpenInvitations(email)
		require.Len(t, open, 1)
		require.Equal(t, clerkinvite.PendingID(open[0].ID), m.ClerkUserID)
	}
	t.Logf("%d rounds killed; %d people invited, %d attempts recovered; last point seen of the killed:", rounds, invited, recovered)
	for _, point := range slices.Sorted(maps.Keys(hits)) {
		t.Logf("%6d  %s", hits[point], point)
	}
	row.Done(fmt.Sprintf("%d rounds, %d processes killed (the others were faster), %d people", rounds, killed, len(emails)), fmt.Sprintf("0 of %d members, 0 second emails", invited),
		fmt.Sprintf("%d attempts recovered", recovered))
}

// adoptable returns a user for each address.
func adoptable(tenant string, emails []string) []clerkinvite.AdoptParams {
	people := make([]clerkinvite.AdoptParams, len(emails))
	for i, email := range emails {
		people[i] = clerkinvite.AdoptParams{InviteParams: clerkinvite.InviteParams{TenantID: tenant, Email: email}, ClerkUserID: fmt.Sprint("user_", i)}
	}
	return people
}

// Processes are killed while they adopt 2,500 people. The call is repeated: in another process, which is killed as well, and then to its end.
func TestPromise1_AdoptKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	rounds := 16
	switch {
	case testing.Short():
		rounds = 6
	case tally.Long():
		rounds = 200
	}
	random := testkit.Random(t)
	row := tally.Start(t, "kill -9 while many rows are adopted")
	db := pgtest.New(t)
	pool := db.Pool(t)
	store := clerkinvite.NewPgxStore(pool, nil)
	require.NoError(t, store.Migrate(t.Context()))
	mirror := clerkinvite.Mirror{Table: "host", TenantID: "tenant", Email: "email", ClerkUserID: "user_id"}
	up, err := mirror.Up()
	require.NoError(t, err)
	_, err = pool.Exec(t.Context(), "CREATE TABLE host (tenant text, email text, user_id text, PRIMARY KEY (tenant, email), UNIQUE (tenant, user_id));"+up)
	require.NoError(t, err)
	differences, err := mirror.Differences()
	require.NoError(t, err)
	clerk := clerkinvitetest.NewClerk()
	url, sites := testkit.Serve(t, clerk), sitesFile(t)
	svc, err := clerkinvite.New(clerkinvite.Config{API: testkit.Adapter(t, url), Store: store})
	require.NoError(t, err)
	emails := make([]string, 2500)
	for i := range emails {
		emails[i] = fmt.Sprintf("p%d@example.com", i)
	}
	count := func(sql, tenant string) int { return testkit.QueryOne[int](t, pool, sql, tenant) }

	written := make(map[int]int) // how often this many rows were written when a process was killed
	killed := 0
	for round := range rounds {
		tenant := fmt.Sprint("tenant", round)
		for part := range 2 {
			steps := 4 + random.IntN(12) // from the first of three statements to the last
			delay := time.Duration(random.Int64N(int64(30 * time.Millisecond)))
			c := startChild(t, "adopt", db.DSN, url, time.Minute, emails, sites, "CHILD_TENANT="+tenant)
			c.start()
			for n := 0; ; n++ {
				if n == steps { // immediately, or while a statement is executed
					time.AfterFunc(time.Duration(part)*delay, func() { _ = c.cmd.Process.Kill() })
				}
				if !c.lines.Scan() {
					break
				}
			}
			if _ = c.cmd.Wait(); !c.cmd.ProcessState.Success() {
				killed++
			}
			// The server notices late that the process has gone, and may still execute its last statement.
			testkit.Await(t, "the end of the process's statements", func() bool {
				return count(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND state <> 'idle' AND $1 <> ''`, tenant) == 0
			})
			rows := count(`SELECT count(*) FROM clerkinvite_member WHERE tenant_id = $1`, tenant)
			require.Contains(t, []int{0, 1000, 2000, 2500}, rows, "a statement is executed completely or not at all")
			require.Equal(t, rows, count(`SELECT count(*) FROM clerkinvite_history WHERE tenant_id = $1`, tenant))
			written[rows]++
		}
		results, err := svc.Adopt(t.Context(), adoptable(tenant, emails))
		require.NoError(t, err)
		for i, r := range results {
			require.NoError(t, r.Err)
			require.Equal(t, []any{emails[i], fmt.Sprint("user_", i), clerkinvite.StatusActive, int64(1)}, []any{r.Member.Email, r.Member.ClerkUserID, r.Member.Status, r.Member.Version})
		}
		require.Equal(t, len(emails), count(`SELECT count(*) FROM clerkinvite_member WHERE tenant_id = $1`, tenant))
		require.Equal(t, len(emails), count(`SELECT count(*) FROM clerkinvite_history WHERE tenant_id = $1`, tenant))
	}
	require.Zero(t, testkit.QueryOne[int](t, pool, "SELECT count(*) FROM ("+differences+") x"))
	require.NotZero(t, killed)
	require.Greater(t, len(written), 1, "killed at different moments")
	require.Zero(t, clerk.RequestCount())
	t.Logf("%d processes killed; rows written by then: %v", killed, written)
	row.Done(fmt.Sprintf("%d calls with 2,500 people, %d processes killed", rounds, killed), fmt.Sprintf("0 of %d members", rounds*len(emails)))
}
