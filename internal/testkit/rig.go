package testkit

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkapi"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
)

// Rig is a Service with everything around it.
type Rig struct {
	*clerkinvite.Service
	Clerk    *clerkinvitetest.Clerk
	Clock    *clerkinvitetest.Clock // the library's; initially also the fake's
	API      clerkinvite.ClerkAPI
	Store    clerkinvite.Store
	Verifier *clerkinvite.WebhookVerifier
}

// Options configure a Rig.
type Options struct {
	Configure    func(*clerkinvite.Config)
	Clock        *clerkinvitetest.Clock // defaults to NewClock
	Organization string                 // each invitation is into this organization, which exists
	Hangs        bool                   // a call that gets no response fails immediately, as if the adapter's time limit had passed
}

// Each runs the test on a Rig in memory and on one with the real adapter, over HTTP, and a real PostgreSQL.
func Each(t *testing.T, o Options, test func(t *testing.T, b *Rig)) {
	t.Helper()
	OnBoth(t, func(t *testing.T, fresh func(*testing.T, Options) *Rig) { test(t, fresh(t, o)) })
}

// OnBoth is Each for a test with many cases, each of which calls fresh. The cases share a database. Each has its own schema. Later
// cases and tests may use both again.
func OnBoth(t *testing.T, test func(t *testing.T, fresh func(*testing.T, Options) *Rig)) {
	t.Helper()
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		test(t, func(t *testing.T, o Options) *Rig {
			t.Helper()
			clerk := clerkinvitetest.NewClerk()
			if o.Hangs {
				clerk.SetTimeout(time.Second) // see InBubble
			}
			return New(t, o, clerk, clerk, clerkinvitetest.NewMemoryStore())
		})
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		db := takeDatabase(t)
		test(t, func(t *testing.T, o Options) *Rig {
			t.Helper()
			clerk := clerkinvitetest.NewClerk()
			return New(t, o, clerk, o.adapter(t, clerk), clerkinvite.NewPgxStore(db.pool, &clerkinvite.PgxOptions{Schema: db.take(t)}))
		})
	})
}

// idle are the databases that no test is using. Their pools stay open until the process ends.
var idle struct {
	sync.Mutex

	databases []*database
}

// takeDatabase returns a database, which belongs to the test until it ends. A test that fails keeps it.
func takeDatabase(t *testing.T) (db *database) {
	t.Helper()
	idle.Lock()
	defer idle.Unlock()
	if last := len(idle.databases) - 1; last >= 0 {
		db, idle.databases = idle.databases[last], idle.databases[:last]
	} else {
		config, err := pgxpool.ParseConfig(pgtest.Keep(t).DSN)
		require.NoError(t, err)
		config.MaxConns = 16
		pool, err := pgxpool.NewWithConfig(context.Background(), config)
		require.NoError(t, err)
		db = &database{pool: pool}
	}
	t.Cleanup(func() {
		if t.Failed() {
			return
		}
		Await(t, "the return of all connections", func() bool { return db.pool.Stat().AcquiredConns() == 0 })
		idle.Lock()
		defer idle.Unlock()
		idle.databases = append(idle.databases, db)
	})
	return db
}

// database is a database with its schemas. Emptying one costs a tenth of creating one.
type database struct {
	pool *pgxpool.Pool
	mu   sync.Mutex
	made int
	idle []string // empty
}

// take returns an empty schema, which belongs to the test until it ends.
func (db *database) take(t *testing.T) string {
	t.Helper()
	db.mu.Lock()
	defer db.mu.Unlock()
	var schema string
	if last := len(db.idle) - 1; last >= 0 {
		schema, db.idle = db.idle[last], db.idle[:last]
	} else {
		db.made++
		schema = fmt.Sprint("case", db.made)
		up, err := fs.ReadFile(clerkinvite.Migrations(), "001_init.up.sql")
		require.NoError(t, err)
		// In one round trip, which is much faster than Migrate.
		_, err = db.pool.Exec(t.Context(), "CREATE SCHEMA "+schema+"; SET LOCAL search_path TO "+schema+"; "+string(up), pgx.QueryExecModeSimpleProtocol)
		require.NoError(t, err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			return
		}
		// The lock waits for statements of callers that have gone away.
		_, err := db.pool.Exec(context.WithoutCancel(t.Context()), strings.ReplaceAll(`BEGIN; LOCK TABLE s.clerkinvite_member, s.clerkinvite_history, s.clerkinvite_limit;
			DELETE FROM s.clerkinvite_history; DELETE FROM s.clerkinvite_member; DELETE FROM s.clerkinvite_limit; COMMIT`, "s.", schema+"."), pgx.QueryExecModeSimpleProtocol)
		require.NoError(t, err)
		db.mu.Lock()
		defer db.mu.Unlock()
		db.idle = append(db.idle, schema)
	})
	return schema
}

// EachBehavior is Each with every behavior that Clerk does not document, or for PostgreSQL a sample of them.
func EachBehavior(t *testing.T, test func(t *testing.T, b *Rig)) {
	t.Helper()
	OnBoth(t, func(t *testing.T, fresh func(*testing.T, Options) *Rig) {
		for _, behavior := range Sample(t, clerkinvitetest.Behaviors()) {
			t.Run(behavior.Name, func(t *testing.T) {
				t.Parallel()
				b := fresh(t, Options{})
				b.Clerk.SetBehavior(behavior.Behavior)
				test(t, b)
			})
		}
	})
}

// EachLostResponse is Each with every kind of fault that loses the response to the call, before and after it took effect.
func EachLostResponse(t *testing.T, call clerkinvitetest.Call, test func(t *testing.T, b *Rig, lost clerkinvitetest.Fault)) {
	t.Helper()
	OnBoth(t, func(t *testing.T, fresh func(*testing.T, Options) *Rig) {
		for _, kind := range Sample(t, clerkinvitetest.Kinds()) {
			for _, when := range []clerkinvitetest.When{clerkinvitetest.Before, clerkinvitetest.After} {
				t.Run(fmt.Sprintf("%s %s", kind, when), func(t *testing.T) {
					t.Parallel()
					InBubble(t, func(t *testing.T) {
						test(t, fresh(t, Options{Hangs: true}), clerkinvitetest.Fault{Call: call, Kind: kind, When: when})
					})
				})
			}
		}
	})
}

// Sample returns the whole list for a Rig in memory, and every fourth element for PostgreSQL, which has tests of its own. With
// -short it returns a quarter of that, beginning with a random element.
func Sample[T any](t *testing.T, list []T) (some []T) {
	t.Helper()
	step, first := 1, 0
	if strings.Contains(t.Name(), "/postgres") {
		step = 4
	}
	if testing.Short() {
		step *= 4
		first = Random(t).IntN(min(step, len(list)))
	}
	for i := first; i < len(list); i += step {
		some = append(some, list[i])
	}
	return some
}

// DrawInShort returns one of so many elements, at random, in short mode, and otherwise the whole list.
func DrawInShort[T any](t *testing.T, list []T, in int) []T {
	t.Helper()
	if !testing.Short() {
		return list
	}
	list = slices.Clone(list)
	Random(t).Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list[:(len(list)+in-1)/in]
}

// Seed returns CLERKINVITE_SEED or, if that is not set, a random seed.
func Seed() uint64 {
	if seed, err := strconv.ParseUint(os.Getenv("CLERKINVITE_SEED"), 10, 64); err == nil {
		return seed
	}
	return rand.Uint64()
}

// Random returns random numbers from a seed that it logs. CLERKINVITE_SEED chooses the seed.
func Random(t *testing.T) *rand.Rand {
	t.Helper()
	seed := Seed()
	t.Logf("seed %d (CLERKINVITE_SEED chooses another)", seed)
	return rand.New(rand.NewPCG(seed, 0)) // #nosec G404 -- to be repeated by its seed
}

// New returns a Rig of these parts. It sets the clock of clerk, and that of store unless it has none.
func New(t *testing.T, o Options, clerk *clerkinvitetest.Clerk, api clerkinvite.ClerkAPI, store clerkinvite.Store) *Rig {
	t.Helper()
	b := &Rig{Clerk: clerk, Clock: cmp.Or(o.Clock, NewClock()), API: api, Store: store}
	clerk.SetNow(b.Clock.Now)
	cfg := clerkinvite.Config{API: api, Now: b.Clock.Now}
	if _, memory := store.(*clerkinvitetest.MemoryStore); !memory {
		b.Store = ClockedStore{store, func() time.Time { return cfg.Now() }}
	}
	cfg.Store = b.Store
	if o.Organization != "" {
		clerk.AddOrganization(o.Organization, clerkinvitetest.OrganizationSpec{})
		cfg.Organizations, _ = api.(clerkinvite.OrganizationAPI)
		cfg.Authorize = func(_ context.Context, p *clerkinvite.InviteParams) error {
			p.Organization = cmp.Or(p.Organization, &clerkinvite.Organization{ID: o.Organization})
			return nil
		}
	}
	if o.Configure != nil {
		o.Configure(&cfg)
	}
	var err error
	b.Service, err = clerkinvite.New(cfg)
	require.NoError(t, err)
	b.Verifier, err = clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{Secrets: []clerkinvite.Secret{clerkinvite.NewSecret(clerkinvitetest.WebhookSecret)}, Now: b.Clock.Now})
	require.NoError(t, err)
	return b
}

// NewMemory returns a Rig that calls the fake directly and stores members in memory.
func NewMemory(t *testing.T, o Options) *Rig {
	t.Helper()
	clerk := clerkinvitetest.NewClerk()
	return New(t, o, clerk, clerk, clerkinvitetest.NewMemoryStore())
}

// NewFaulty is NewMemory with a FaultyStore.
func NewFaulty(t *testing.T) (*Rig, *FaultyStore) {
	t.Helper()
	b := NewMemory(t, Options{})
	store := &FaultyStore{Store: b.Store}
	return New(t, Options{}, b.Clerk, b.API, store), store
}

// NewPostgres returns a Rig with the real adapter, over HTTP, and a real PostgreSQL.
func NewPostgres(t *testing.T, o Options, pool ...func(*pgxpool.Config)) *Rig {
	t.Helper()
	store := clerkinvite.NewPgxStore(pgtest.New(t).Pool(t, pool...), nil)
	require.NoError(t, store.Migrate(t.Context()))
	clerk := clerkinvitetest.NewClerk()
	return New(t, o, clerk, o.adapter(t, clerk), store)
}

// Serve serves the fake over HTTP until the test ends.
func Serve(t *testing.T, clerk *clerkinvitetest.Clerk) (url string) {
	t.Helper()
	srv := httptest.NewServer(clerk.Handler())
	t.Cleanup(srv.Close)
	return srv.URL + "/v1"
}

// Adapter returns the real adapter for a server of Serve. Its time limits are too long to pass on a busy machine.
func Adapter(t testing.TB, url string) clerkinvite.ClerkAPI {
	t.Helper()
	return newAdapter(t, url, nil)
}

func newAdapter(t testing.TB, url string, client *http.Client) clerkinvite.ClerkAPI {
	t.Helper()
	api, err := clerkapi.New("sk_test_1", &clerkapi.Options{BaseURL: url, Timeout: time.Minute, CreateTimeout: time.Minute, HTTPClient: client})
	require.NoError(t, err)
	return api
}

func (o Options) adapter(t *testing.T, clerk *clerkinvitetest.Clerk) clerkinvite.ClerkAPI {
	t.Helper()
	if !o.Hangs {
		return Adapter(t, Serve(t, clerk))
	}
	h := &hanging{fake: clerk.Handler(), transport: &http.Transport{}}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	t.Cleanup(h.transport.CloseIdleConnections)
	return newAdapter(t, srv.URL+"/v1", &http.Client{Transport: h})
}

// TryInvite invites into tenant acme.
func (b *Rig) TryInvite(t *testing.T, email string) (*clerkinvite.Member, error) {
	t.Helper()
	return b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: email})
}

// MustInvite invites into tenant acme and requires success.
func (b *Rig) MustInvite(t *testing.T, email string) *clerkinvite.Member {
	t.Helper()
	m, err := b.TryInvite(t, email)
	require.NoError(t, err)
	return m
}

// Organization is the organization of most tests.
const Organization = "org_acme"

// InviteInto invites into tenant acme and Organization.
func (b *Rig) InviteInto(t *testing.T, email string, o clerkinvite.Organization) (*clerkinvite.Member, error) {
	t.Helper()
	o.ID = Organization
	return b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: email, Organization: &o})
}

// RequireMembersAtClerk requires that Organization has these members.
func (b *Rig) RequireMembersAtClerk(t *testing.T, userIDs ...string) {
	t.Helper()
	var got []string
	for _, m := range b.Clerk.Members(Organization) {
		got = append(got, m.UserID)
	}
	require.ElementsMatch(t, userIDs, got)
}

// Member reads a member of tenant acme.
func (b *Rig) Member(t *testing.T, email string) *clerkinvite.Member {
	t.Helper()
	m, err := b.Get(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: email})
	require.NoError(t, err)
	return m
}

// Receive passes a webhook through verification and HandleEvent.
func (b *Rig) Receive(t *testing.T, w clerkinvitetest.Webhook) []*clerkinvite.Member {
	t.Helper()
	e, err := b.Verifier.Verify(w.Payload, w.Sign(clerkinvitetest.WebhookSecret))
	require.NoError(t, err)
	changed, err := b.HandleEvent(t.Context(), e)
	require.NoError(t, err)
	return changed
}

// Recover repeats a recovery until the member is pending, as a host does.
func (b *Rig) Recover(t *testing.T, r Recovery, email string) {
	t.Helper()
	var err error
	for range 8 {
		b.Clock.Advance(2 * time.Hour)
		b.Clerk.Settle()
		if err = r.Run(t, b, email); err == nil && b.Member(t, email).Status == clerkinvite.StatusPending {
			return
		}
	}
	t.Fatalf("not recovered: %v; %v", err, b.Member(t, email))
}

// ReserveEach reserves people in a call each.
func (b *Rig) ReserveEach(t *testing.T, people []clerkinvite.InviteParams) {
	t.Helper()
	for _, p := range people {
		_, err := b.Reserve(t.Context(), p)
		require.NoError(t, err)
	}
}

// ReserveSome reserves people in five tenants.
func (b *Rig) ReserveSome(t *testing.T, people int) []clerkinvite.InviteParams {
	t.Helper()
	var all []clerkinvite.InviteParams
	for i := range people {
		all = append(all, Params(fmt.Sprint("tenant", i%5), fmt.Sprintf("p%d@example.com", i)))
	}
	_, err := b.ReserveMany(t.Context(), all)
	require.NoError(t, err)
	return all
}

// Workers returns n more services with the store, the Clerk and the clock of b.
func (b *Rig) Workers(t *testing.T, n int) []*clerkinvite.Service {
	t.Helper()
	var all []*clerkinvite.Service
	for range n {
		svc, err := clerkinvite.New(clerkinvite.Config{API: b.API, Store: b.Store, Now: b.Clock.Now})
		require.NoError(t, err)
		all = append(all, svc)
	}
	return all
}

// FailCreates adds a fault to both endpoints that create.
func (b *Rig) FailCreates(f clerkinvitetest.Fault) {
	for _, call := range []clerkinvitetest.Call{clerkinvitetest.CallCreate, clerkinvitetest.CallCreateBulk} {
		f.Call = call
		b.Clerk.Fail(f)
	}
}

// CreateRequests counts the requests to both endpoints that create.
func (b *Rig) CreateRequests() int {
	requests := b.Clerk.Requests()
	return requests[clerkinvitetest.CallCreate] + requests[clerkinvitetest.CallCreateBulk]
}

// RequireInvited requires that one invitation of the address is open, that the row refers to it, and that the given number of
// emails was sent.
func (b *Rig) RequireInvited(t *testing.T, email string, emails int) *clerkinvite.Member {
	t.Helper()
	m := b.Member(t, email)
	require.Equal(t, clerkinvite.StatusPending, m.Status)
	require.Equal(t, m.Send, m.Sent)
	if m.ClaimedUntil != nil {
		require.False(t, m.ClaimedUntil.After(b.Clock.Now()), "the claim has ended")
	}
	require.Nil(t, m.NextAttemptAt)
	open := b.Clerk.OpenInvitations(email)
	require.Len(t, open, 1)
	require.Equal(t, clerkinvite.PendingID(open[0].ID), m.ClerkUserID)
	require.Equal(t, emails, b.Clerk.EmailsTo(email))
	return m
}

// RequireTransition requires that err refuses the state change.
func RequireTransition(t *testing.T, err error, from, to clerkinvite.Status) {
	t.Helper()
	var refused *clerkinvite.TransitionError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, clerkinvite.TransitionError{From: from, To: to}, *refused)
}

// RequireEachInvitedOnce requires one open invitation and one email for each person.
func (b *Rig) RequireEachInvitedOnce(t *testing.T, ps []clerkinvite.InviteParams) {
	t.Helper()
	for _, p := range ps {
		b.RequireInvited(t, p.Email, 1)
	}
}

// Recovery is a way to recover from a lost response: the admin or the background worker tries again.
type Recovery struct {
	Name string
	Run  func(t *testing.T, b *Rig, email string) error
}

// Recoveries returns all of them.
func Recoveries() []Recovery {
	return []Recovery{
		{"invited again", func(t *testing.T, b *Rig, email string) error {
			_, err := b.TryInvite(t, email)
			var dup *clerkinvite.DuplicateEmailError
			if errors.As(err, &dup) && dup.Member.Status == clerkinvite.StatusPending {
				return nil
			}
			return err
		}},
		{"Deliver", func(t *testing.T, b *Rig, _ string) error {
			_, err := b.Deliver(t.Context(), nil)
			return err
		}},
	}
}

// Params are the parameters of an invitation without options.
func Params(tenant, email string) clerkinvite.InviteParams {
	return clerkinvite.InviteParams{TenantID: tenant, Email: email}
}

// People returns n addresses in tenant acme.
func People(n int, prefix string) []clerkinvite.InviteParams {
	ps := make([]clerkinvite.InviteParams, n)
	for i := range ps {
		ps[i] = Params("acme", fmt.Sprintf("%s%d@example.com", prefix, i))
	}
	return ps
}

// Acme is a reference to a member of tenant acme.
func Acme(email string) clerkinvite.Ref { return clerkinvite.Ref{TenantID: "acme", Email: email} }

// Ada is a member of tenant acme.
var Ada = clerkinvite.Ref{TenantID: "acme", Email: "Ada@Example.com"}

// LockedBuffer is a bytes.Buffer that is safe for concurrent use.
type LockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *LockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *LockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// MembersByRef returns all members, by tenant and address.
func (b *Rig) MembersByRef(t *testing.T) map[clerkinvite.Ref]clerkinvite.Member {
	t.Helper()
	all := make(map[clerkinvite.Ref]clerkinvite.Member)
	rows, err := b.Store.Page(t.Context(), clerkinvite.PageQuery{Limit: 1 << 20})
	require.NoError(t, err)
	for _, row := range rows {
		all[row.Ref()] = *row
	}
	return all
}

// MustReconcile makes a dry run, which must change nothing, and then a real run, which must report the same.
func (b *Rig) MustReconcile(t *testing.T) *clerkinvite.ReconcileReport {
	t.Helper()
	before := b.MembersByRef(t)
	revokes := b.Clerk.Requests()[clerkinvitetest.CallRevoke]
	dry, err := b.Reconcile(t.Context(), &clerkinvite.ReconcileOptions{DryRun: true})
	require.NoError(t, err)
	require.Equal(t, before, b.MembersByRef(t), "a dry run changes nothing")
	require.Equal(t, revokes, b.Clerk.Requests()[clerkinvitetest.CallRevoke])
	report, err := b.Reconcile(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, report.Cursor)
	a, z := *dry, *report
	require.Len(t, z.AcceptedElsewhere, len(a.AcceptedElsewhere))
	a.AcceptedElsewhere, z.AcceptedElsewhere, a.Invitations, z.Invitations = nil, nil, 0, 0
	require.Equal(t, a, z, "as in the dry run")
	return report
}
