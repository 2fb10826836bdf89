package attacks_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkapi"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
	"github.com/clerkinvite/clerkinvite/internal/tally"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// pointLease is the lease of the services under attack.
const pointLease = time.Minute

// later is longer than every lease and pause.
const later = 2 * time.Hour

// world is the environment of one scenario.
type world struct {
	t     *testing.T
	ctx   context.Context
	sc    *scenario
	clerk *clerkinvitetest.Clerk
	clock *clerkinvitetest.Clock
	calm  *clerkinvite.Service // without points and faults
	api   clerkinvite.ClerkAPI // calm's
	store clerkinvite.Store    // calm's
	url   string
	input []byte

	pool   *pgxpool.Pool // nil means the memory store
	dsn    string
	schema string

	sites string // for children
	mu    sync.Mutex
	acks  map[string]bool
	ended error // of the act
	twice bool  // it ran twice, the second time on the state that the first left
	after sync.WaitGroup
}

// ground is a database for many worlds, each with its own schema.
type ground struct {
	db      *pgtest.DB
	pool    *pgxpool.Pool
	tables  string
	sites   string
	schemas atomic.Int64

	attacks, members, emails, excused atomic.Int64 // what was checked
}

func newGround(t *testing.T) *ground {
	t.Helper()
	up, err := fs.ReadFile(clerkinvite.Migrations(), "001_init.up.sql")
	require.NoError(t, err)
	db := pgtest.New(t)
	return &ground{sites: sitesFile(t), db: db, pool: db.Pool(t, func(c *pgxpool.Config) { c.MaxConns = 32 }), tables: string(up)}
}

// options returns the store's options. With a hook, the host's table follows the members.
func (sc *scenario) options(schema string) *clerkinvite.PgxOptions {
	o := &clerkinvite.PgxOptions{Schema: schema}
	if sc.hook {
		o.OnChange = func(ctx context.Context, tx pgx.Tx, _ []clerkinvite.Change) error {
			_, err := tx.Exec(ctx, "SELECT 1")
			return err
		}
	}
	return o
}

// inTx is the store in a transaction, with the actor's clock.
func (a *actor) inTx(tx pgx.Tx) clerkinvite.TxStore { return clockedTx{a.pgx.WithTx(tx), a.clock.Now} }

type clockedTx struct {
	clerkinvite.TxStore
	now func() time.Time
}

func (s clockedTx) Clock(ctx context.Context) (time.Time, error) {
	_, err := s.TxStore.Clock(ctx)
	return s.now(), err
}

// newWorld creates a world, on the memory store if ground is nil.
func newWorld(t *testing.T, g *ground, sc *scenario) *world {
	t.Helper()
	w := &world{t: t, ctx: t.Context(), sc: sc, clerk: clerkinvitetest.NewClerk(), clock: testkit.NewClock(), acks: make(map[string]bool)}
	w.clerk.SetNow(w.clock.Now)
	w.url = testkit.Serve(t, w.clerk)
	w.api = testkit.Adapter(t, w.url)
	if g == nil {
		w.store = clerkinvitetest.NewMemoryStore()
	} else {
		w.pool, w.dsn, w.schema = g.pool, g.db.DSN, fmt.Sprint("w", g.schemas.Add(1))
		w.sites = g.sites
		if !sc.fresh {
			_, err := g.pool.Exec(t.Context(), "CREATE SCHEMA "+w.schema+"; SET LOCAL search_path TO "+w.schema+"; "+g.tables, pgx.QueryExecModeSimpleProtocol)
			require.NoError(t, err)
		}
		w.store = clerkinvite.NewPgxStore(g.pool, sc.options(w.schema))
	}
	if sc.organization != nil {
		w.clerk.AddOrganization(sc.organization.ID, clerkinvitetest.OrganizationSpec{})
	}
	w.calm = w.service()
	if sc.arrange != nil {
		sc.arrange(w)
	}
	w.t.Cleanup(w.after.Wait)
	return w
}

// service returns the service of a process without faults.
func (w *world) service() *clerkinvite.Service {
	svc, err := clerkinvite.New(w.sc.config(w.api, testkit.ClockedStore{Store: w.store, Now: w.clock.Now}, w.clock.Now))
	require.NoError(w.t, err)
	return svc
}

// config returns the configuration of a scenario's service.
func (sc *scenario) config(api clerkinvite.ClerkAPI, store clerkinvite.Store, now func() time.Time) clerkinvite.Config {
	c := clerkinvite.Config{API: api, Store: store, Now: now, Lease: pointLease, WithdrawOnFailure: sc.once}
	if sc.organization != nil {
		c.Organizations, _ = api.(clerkinvite.OrganizationAPI)
		c.Authorize = func(_ context.Context, p *clerkinvite.InviteParams) error {
			p.Organization = sc.organization
			return nil
		}
	}
	return c
}

// actorConfig has the parts of an actor.
type actorConfig struct {
	sc     *scenario
	k      *track
	pool   *pgxpool.Pool // with faults; nil means the memory store
	raw    *pgxpool.Pool
	store  clerkinvite.Store // without points
	schema string
	client *http.Client
	url    string
	clock  *clerkinvitetest.Clock
	input  []byte
	ack    func(email string)
}

func newActor(ctx context.Context, c actorConfig) (*actor, error) {
	a := &actor{ctx: ctx, clock: c.clock, input: c.input, ack: c.ack, pool: c.raw, store: pointStore{c.store, c.k, c.clock.Now}}
	if c.pool != nil {
		a.db = pointDB{c.pool, c.k}
		a.pgx = clerkinvite.NewPgxStore(a.db, c.sc.options(c.schema))
		a.store = pointStore{a.pgx, c.k, c.clock.Now}
	}
	api, err := clerkapi.New("sk_test_1", &clerkapi.Options{BaseURL: c.url, HTTPClient: c.client})
	if err != nil {
		return nil, err
	}
	plain, err := clerkapi.New("sk_test_1", &clerkapi.Options{BaseURL: c.url, HTTPClient: &http.Client{Transport: &http.Transport{}}})
	if err != nil {
		return nil, err
	}
	config := c.sc.config(pointAPI{api, c.k}, a.store, c.clock.Now)
	if a.svc, err = clerkinvite.New(config); err != nil {
		return nil, err
	}
	config = c.sc.config(plain, testkit.ClockedStore{Store: c.store, Now: c.clock.Now}, c.clock.Now)
	if a.other, err = clerkinvite.New(config); err != nil {
		return nil, err
	}
	for _, m := range c.sc.meddle {
		c.k.faults = append(c.k.faults, &fault{site: m.site, done: m.done, kind: faultMeddle, then: func() error { return m.do(a) }})
	}
	return a, nil
}

func (w *world) acknowledge(email string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.acks[email] = true
}

// run plays the scenario in this process.
func (w *world) run(k *track) {
	w.t.Helper()
	clerk, database := &scissors{}, &scissors{}
	k.cut = func(layer string, done bool) func() {
		if layer == layerClerk {
			return clerk.arm(done)
		}
		return database.arm(done)
	}
	k.delay = w.overtake
	over := make(chan struct{})
	k.hurry = sync.OnceFunc(func() {
		w.after.Go(func() {
			for {
				select {
				case <-over:
					return
				case <-time.After(5 * time.Millisecond):
					w.clock.Advance(500 * time.Millisecond)
				}
			}
		})
	})
	transport := &http.Transport{DialContext: clerk.dial, DisableKeepAlives: true}
	pool := w.pool
	if pool != nil && slices.ContainsFunc(k.faults, func(f *fault) bool { return f.kind == faultCut }) {
		config, err := pgxpool.ParseConfig(w.dsn)
		require.NoError(w.t, err)
		config.MaxConns = 4
		config.ConnConfig.TLSConfig, config.ConnConfig.Fallbacks = nil, nil
		config.ConnConfig.DialFunc = database.dialPostgres
		config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec // a statement is one exchange
		pool, err = pgxpool.NewWithConfig(w.ctx, config)
		require.NoError(w.t, err)
		defer pool.Close()
	}
	a, err := newActor(w.ctx, actorConfig{
		sc: w.sc, k: k, pool: pool, raw: w.pool, store: w.store, schema: w.schema, url: w.url, clock: w.clock, input: w.input,
		client: &http.Client{Transport: faultTransport{transport}}, ack: w.acknowledge,
	})
	require.NoError(w.t, err)
	w.ended = w.sc.act(a)
	close(over)
	w.after.Wait()
	transport.CloseIdleConnections()
	k.mu.Lock()
	defer k.mu.Unlock()
	require.Empty(w.t, k.unknown, "calls from sites that were not enumerated")
}

// overtake lets the lease end, and another process deliver everything that is due.
// Inside a transaction that process may have to wait for its end.
func (w *world) overtake(inTx bool) {
	w.clock.Advance(later)
	done := make(chan struct{})
	w.after.Go(func() {
		defer close(done)
		ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
		defer cancel()
		// Its error does not matter here; the final state counts.
		_, _ = w.service().Deliver(ctx, nil)
	})
	patience := testkit.Patience
	if inTx {
		patience = 30 * time.Millisecond
	}
	select {
	case <-done:
	case <-time.After(patience):
	}
}

// runChild plays the scenario in a process that is killed.
func (w *world) runChild(f *fault) (killed bool) {
	w.t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$") // #nosec G204 -- this test binary itself
	cmd.Env = append(os.Environ(), "CLERKINVITE_TEST_CHILD=point", "CHILD_DSN="+w.dsn, "CHILD_CLERK="+w.url, "CHILD_SCHEMA="+w.schema,
		"CHILD_SCENARIO="+w.sc.name, "CHILD_SITE="+f.site, "CHILD_DONE="+strconv.FormatBool(f.done), "CHILD_HIT="+strconv.Itoa(f.hit),
		"CHILD_NOW="+w.clock.Now().Format(time.RFC3339Nano), "CHILD_INPUT="+base64.StdEncoding.EncodeToString(w.input),
		w.sites, "GOMAXPROCS=2", "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	require.NoError(w.t, err)
	require.NoError(w.t, cmd.Start())
	lines := bufio.NewScanner(stdout)
	last := ""
	for lines.Scan() {
		last = lines.Text()
		if email, ok := strings.CutPrefix(last, "ACK "); ok {
			w.acknowledge(email)
		}
	}
	err = cmd.Wait()
	if strings.HasPrefix(last, "END") {
		require.NoError(w.t, err)
		w.ended = errors.New(last)
		return false
	}
	w.ended = errors.New("killed")
	var exit *exec.ExitError
	require.ErrorAs(w.t, err, &exit)
	require.Equal(w.t, -1, exit.ExitCode(), "killed, and not failed: %s", last)
	return true
}

// pointChild is the process that is killed.
func pointChild() error {
	ctx := context.Background()
	at := slices.IndexFunc(scenarios(), func(sc scenario) bool { return sc.name == os.Getenv("CHILD_SCENARIO") })
	now, err := time.Parse(time.RFC3339Nano, os.Getenv("CHILD_NOW"))
	if err != nil || at < 0 {
		return fmt.Errorf("no scenario, or %w", err)
	}
	sc := scenarios()[at]
	hit, _ := strconv.Atoi(os.Getenv("CHILD_HIT"))
	k, err := newTrack(&fault{site: os.Getenv("CHILD_SITE"), kind: faultKill, hit: hit, done: os.Getenv("CHILD_DONE") == "true"})
	if err != nil {
		return err
	}
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		return err
	}
	k.kill = func() {
		_ = self.Kill()
		select {}
	}
	config, err := pgxpool.ParseConfig(os.Getenv("CHILD_DSN"))
	if err != nil {
		return err
	}
	config.MaxConns = 4
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	input, err := base64.StdEncoding.DecodeString(os.Getenv("CHILD_INPUT"))
	if err != nil {
		return err
	}
	schema := os.Getenv("CHILD_SCHEMA")
	a, err := newActor(ctx, actorConfig{
		sc: &sc, k: k, pool: pool, raw: pool, store: clerkinvite.NewPgxStore(pool, sc.options(schema)), schema: schema,
		url: os.Getenv("CHILD_CLERK"), clock: clerkinvitetest.NewClock(now), input: input, client: &http.Client{Transport: faultTransport{&http.Transport{}}},
		ack: func(email string) { fmt.Println("ACK " + email) },
	})
	if err != nil {
		return err
	}
	fmt.Printf("END %q\n", fmt.Sprint(sc.act(a)))
	return nil
}

// recover does what happens after every crash: Deliver when leases and pauses have ended, and one Reconcile.
func (w *world) recover() {
	w.t.Helper()
	w.after.Wait()
	w.clerk.OnCall(nil)
	w.clerk.ClearFaults()
	w.clerk.Settle() // by then its lists have caught up
	if w.sc.fresh {
		pg, ok := w.store.(*clerkinvite.PgxStore)
		require.True(w.t, ok)
		require.NoError(w.t, pg.Migrate(w.ctx))
		require.NoError(w.t, pg.Validate(w.ctx))
	}
	svc := w.service()
	w.clock.Advance(later)
	for pass := 0; ; pass++ {
		report, err := svc.Deliver(w.ctx, nil)
		require.NoError(w.t, err, "recovering")
		if report.Claimed == 0 {
			break
		}
		require.Less(w.t, pass, 8, "delivery comes to an end")
		w.clock.Advance(later)
	}
	_, err := svc.Reconcile(w.ctx, nil)
	require.NoError(w.t, err, "recovering")
}

// check checks the final state, here and at Clerk. It returns the number of members, and the number of
// second emails from creates with ignore_existing that were carried out after the lease. These are the
// one exception of the promises; excused is their maximum.
func (w *world) check(excused int) (members, second int) {
	w.t.Helper()
	rows, err := w.store.Page(w.ctx, clerkinvite.PageQuery{})
	require.NoError(w.t, err)
	due, err := w.store.Due(w.ctx, clerkinvite.DueQuery{At: w.clock.Now().Add(1000 * time.Hour)})
	require.NoError(w.t, err)
	require.Empty(w.t, due, "stuck rows")
	w.checkPeople(rows)
	w.checkMemberships(rows)

	w.clerk.SetBehavior(clerkinvitetest.Behavior{}) // the checks see the metadata
	byID, marks := w.invitations()
	ids := make(map[string]bool)
	for _, m := range rows {
		ids[m.ID] = true
		var open []string
		for _, inv := range byID {
			isMarked := marks[inv.ID].id == m.ID
			isAdopted := marks[inv.ID].id == "" && inv.ID == m.InvitationID && m.Status == clerkinvite.StatusPending
			if inv.Status == clerkinvite.InvitationPending && (isMarked || isAdopted) {
				open = append(open, inv.ID)
			}
		}
		switch m.Status {
		case clerkinvite.StatusPending:
			want := []string{m.InvitationID}
			inv, exists := byID[m.InvitationID]
			if w.sc.organization != nil && (!exists || inv.Status == clerkinvite.InvitationAccepted) {
				want = nil // the organization was deleted, or a Remove has ended the membership: the caller must repeat the call
			}
			require.Equal(w.t, want, open, "open invitations of a pending member")
			require.Equal(w.t, clerkinvite.PendingID(m.InvitationID), m.ClerkUserID)
			require.Equal(w.t, m.Send, m.Sent)
		case clerkinvite.StatusActive:
			require.Empty(w.t, open, "open invitations of an active member")
			users, err := w.clerk.FindUsers(w.ctx, clerkinvite.UserQuery{IDs: []string{m.ClerkUserID}})
			require.NoError(w.t, err)
			require.Len(w.t, users, 1, "the user of an active member")
			require.True(w.t, slices.ContainsFunc(users[0].Emails, func(e clerkinvite.UserEmail) bool { return e.Verified && e.Address == m.Email }), "no proof")
		default:
			require.Empty(w.t, open, "open invitations of a member who is %s", m.Status)
		}
	}
	emails := make(map[sendMark]int)
	for _, mail := range w.clerk.SentMail() {
		mark := marks[mail.InvitationID]
		if emails[mark]++; emails[mark] > 1 {
			second++
		}
		require.LessOrEqual(w.t, second, excused, "%d emails for one send of one member", emails[mark])
	}
	for id, mark := range marks {
		if mark.id != "" && !w.sc.purges {
			require.True(w.t, ids[mark.id], "Clerk has invitation %s of a member that does not exist", id)
		}
		if mark.id != "" && w.sc.purges && !ids[mark.id] {
			require.NotEqual(w.t, clerkinvite.InvitationPending, byID[id].Status, "an invitation is open without a member")
		}
	}
	return len(rows), second
}

// withdrawn checks, before anything can repair it, that people whom a verb has revoked or removed have no working link.
func (w *world) withdrawn() {
	w.t.Helper()
	rows, err := w.store.Page(w.ctx, clerkinvite.PageQuery{Statuses: []clerkinvite.Status{clerkinvite.StatusRevoked, clerkinvite.StatusRemoved}})
	require.NoError(w.t, err)
	byID, marks := w.invitations()
	for _, m := range rows {
		for id, inv := range byID {
			if m.Reason == "" && marks[id].id == m.ID {
				require.NotEqual(w.t, clerkinvite.InvitationPending, inv.Status, "the link of a %s member works", m.Status)
			}
		}
	}
}

// checkPeople checks that no person is lost, or in an unexplained state.
func (w *world) checkPeople(rows []*clerkinvite.Member) {
	w.t.Helper()
	for _, p := range w.sc.people {
		state := "gone"
		for _, m := range rows {
			if m.Ref() == acme(p.email) {
				state = string(m.Status)
			}
		}
		among := p.other
		if (w.acks[p.email] || w.ended == nil) && !w.twice {
			among = p.acked
		}
		require.True(w.t, allowedState(state, among), "%s is %s, which is not one of %q (the act: %v)", p.email, state, among, w.ended)
	}
}

// sendMark is the marker of our invitations.
type sendMark struct {
	id   string
	send int
}

// invitations returns all invitations at Clerk.
func (w *world) invitations() (map[string]clerkinvite.Invitation, map[string]sendMark) {
	w.t.Helper()
	byID, marks := make(map[string]clerkinvite.Invitation), make(map[string]sendMark)
	for _, status := range []clerkinvite.InvitationStatus{"", clerkinvite.InvitationRevoked} {
		list, err := w.clerk.ListInvitations(w.ctx, clerkinvite.InvitationQuery{Status: status})
		require.NoError(w.t, err)
		ofOrganizations, err := w.clerk.ListInvitations(w.ctx, clerkinvite.InvitationQuery{Status: status, AllOrganizations: true})
		require.NoError(w.t, err)
		list = append(list, ofOrganizations...)
		for _, inv := range list {
			var meta struct {
				Mark struct {
					ID   string `json:"id"`
					Send int    `json:"send"`
				} `json:"clerkinvite"`
			}
			require.NoError(w.t, json.Unmarshal(inv.PublicMetadata, &meta))
			byID[inv.ID], marks[inv.ID] = inv, sendMark{meta.Mark.ID, meta.Mark.Send}
		}
	}
	return byID, marks
}

// attack is one fault in one scenario.
type attack struct {
	fault
	sc     *scenario
	layer  string
	second *fault
}

func (a *attack) name() string {
	if a.second != nil {
		return a.point() + ", then " + a.second.kind + " " + a.second.point()
	}
	return a.point()
}

// once runs the attack.
func (a *attack) once(t *testing.T, g *ground) {
	t.Helper()
	ground := g
	if !a.sc.postgres && a.kind != faultKill && a.layer != layerSQL && (a.kind != faultCut || a.layer == layerClerk) {
		ground = nil // the memory store is enough
	}
	w := newWorld(t, ground, a.sc)
	first := a.fault
	excused := 0
	if a.kind == faultKill {
		reached := w.runChild(&first)
		a.skipIfSlow(t, reached)
		require.True(t, reached, "the point is reached: %v", w.ended)
		if a.second != nil { // the host's second attempt is killed, too
			w.clock.Advance(later)
			second := *a.second
			w.twice = true
			w.runChild(&second)
		}
	} else {
		k, err := newTrack(&first)
		require.NoError(t, err)
		k.withdrawn = a.sc.withdraws
		if a.second != nil {
			second := *a.second
			k.faults = append(k.faults, &second)
		}
		w.run(k)
		if a.second == nil {
			a.skipIfSlow(t, slices.Contains(k.happened, &first))
			require.Contains(t, k.happened, &first, "the point is reached: %v", w.ended)
		}
		require.NotEmpty(t, k.happened) // the second fault may have come first and prevented the other
		excused = k.excused
	}
	w.recover()
	members, second := w.check(excused)
	g.attacks.Add(1)
	g.members.Add(int64(members))
	g.emails.Add(int64(w.clerk.Emails()))
	g.excused.Add(int64(second))
}

// skipIfSlow skips an attack on a reading of the clock that has not happened. The test's clock stands still. If the scenario took a
// second without faults, the library may have read the clock once more.
func (a *attack) skipIfSlow(t *testing.T, reached bool) {
	t.Helper()
	if !reached && a.sc.slow && strings.HasSuffix(a.site, ">setClock/Clock") {
		t.Skip("the clock was not read: only a slow machine reads it here")
	}
}

// Whatever happens between two effects, no person is lost and no person gets a second email.
func TestPromise3_EveryFaultPoint(t *testing.T) {
	t.Parallel()
	random := testkit.Random(t)
	st, err := theSites()
	require.NoError(t, err)
	g := newGround(t)
	all := scenarios()

	// Without faults, to find out which scenario reaches which points.
	var mu sync.Mutex
	reach := make(map[string][]*scenario)
	visits := make(map[*scenario][]string)
	hits := make(map[string]int)
	t.Run("no fault", func(t *testing.T) {
		for i := range all {
			sc := &all[i]
			t.Run(sc.name, func(t *testing.T) {
				t.Parallel()
				for _, m := range sc.meddle {
					require.Contains(t, st.names(""), m.site, "a site of a meddle")
				}
				w := newWorld(t, g, sc)
				k, err := newTrack()
				require.NoError(t, err)
				began := time.Now()
				w.run(k)
				sc.slow = time.Since(began) >= time.Second
				require.NoError(t, w.ended)
				w.withdrawn()
				w.recover()
				w.check(0)
				mu.Lock()
				defer mu.Unlock()
				for site, n := range k.hits {
					hits[site] += n
					visits[sc] = append(visits[sc], site)
					if strings.HasPrefix(site, sc.sure) {
						reach[site] = append(reach[site], sc)
					}
				}
			})
		}
	})
	if t.Failed() {
		return
	}
	points := 0
	for _, layer := range []string{layerClerk, layerStore, layerSQL} {
		for _, site := range st.names(layer) {
			points += 2
			t.Logf("%-5s %4d hits in %2d scenarios: %s", layer, hits[site], len(reach[site]), site)
			if len(reach[site]) == 0 {
				t.Errorf("no scenario reaches %s", site)
			}
		}
	}
	for site := range reach { // sorted, so that the seed determines everything
		slices.SortFunc(reach[site], func(a, b *scenario) int { return strings.Compare(a.name, b.name) })
	}
	for sc := range visits {
		slices.Sort(visits[sc])
	}

	for _, kind := range []struct{ kind, what string }{
		{faultKill, "every fault point: kill -9"}, {faultFail, "every fault point: failed"},
		{faultDelay, "every fault point: delayed past the lease"}, {faultCut, "every fault point: connection cut"},
	} {
		row := tally.Start(t, kind.what)
		var attacks []attack
		for _, layer := range []string{layerClerk, layerStore, layerSQL} {
			for _, site := range st.names(layer) {
				for _, done := range []bool{false, true} {
					attacks = append(attacks, attacksAt(random, fault{site: site, kind: kind.kind, done: done}, layer, reach[site], visits)...)
				}
			}
		}
		t.Run(kind.kind, func(t *testing.T) {
			for _, a := range attacks {
				t.Run(a.name()+" ("+a.sc.name+")", func(t *testing.T) {
					t.Parallel()
					a.once(t, g)
				})
			}
		})
		if made := g.attacks.Swap(0); int(made) == len(attacks) { // unless -run has selected some of them
			row.Done(fmt.Sprintf("%d points, %d faults", points, made), fmt.Sprintf("0 of %d members, 0 second emails of %d", g.members.Swap(0), g.emails.Swap(0)),
				fmt.Sprintf("%d second emails of creates carried out after their lease, the exception", g.excused.Swap(0)))
		}
	}
}

// attacksAt returns the attacks on one point: one, or in the long mode several in each of its scenarios.
func attacksAt(random *rand.Rand, f fault, layer string, reach []*scenario, visits map[*scenario][]string) []attack {
	if len(reach) == 0 || testing.Short() && random.IntN(8) > 0 {
		return nil
	}
	if !tally.Long() {
		return []attack{{fault: f, sc: reach[random.IntN(len(reach))], layer: layer}}
	}
	var attacks []attack
	for _, sc := range reach {
		attacks = append(attacks, attack{fault: f, sc: sc, layer: layer})
		for range 2 {
			second := f
			second.site, second.done, second.hit = visits[sc][random.IntN(len(visits[sc]))], random.IntN(2) == 0, random.IntN(2)
			if f.kind != faultKill {
				second.kind = []string{faultFail, faultDelay, faultCut}[random.IntN(3)]
			}
			attacks = append(attacks, attack{fault: f, sc: sc, layer: layer, second: &second})
		}
	}
	return attacks
}
