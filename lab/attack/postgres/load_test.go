//go:build linux

package postgres_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
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
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

const (
	// A request that was sent within an attempt's time must reach Clerk within the lease, even on a
	// slow machine.
	lease = 6 * time.Second
	// callTime limits each host request while faults are injected.
	callTime = 3 * time.Second
)

// load is several host processes on one database and one Clerk, and everything they were told. Each
// has its own pool, HTTP client, Service and background Run.
type load struct {
	t     *testing.T
	clerk *clerkinvitetest.Clerk
	hosts []*host
	opts  loadOptions

	stop     chan struct{}
	workers  sync.WaitGroup
	stopRuns context.CancelFunc
	runs     sync.WaitGroup

	mu       sync.Mutex
	people   []clerkinvite.Ref
	number   int
	told     map[string]map[fact]bool // by member
	hostRows map[string]bool          // with a confirmed commit
	calls    map[string]int
	failed   map[string]int
	failure  error     // the latest
	marked   time.Time // recovered waits for a success after this
	after    time.Time // that first success
}

// fact is something that a caller was told about a member.
type fact struct {
	version      int64
	status       clerkinvite.Status
	send, sent   int
	clerkUserID  string
	invitationID string
	ref          clerkinvite.Ref
}

// host is one process.
type host struct {
	*clerkinvite.Service

	pool    *pgxpool.Pool
	store   *clerkinvite.PgxStore
	webhook http.Handler
}

// loadOptions are the options of startLoad.
type loadOptions struct {
	dsn       string                     // of the server that the hosts connect to
	workers   int                        // per host; defaults to 2
	url       func(server string) string // maps Clerk's address to the one the hosts use; nil keeps it
	calm      bool                       // there are no faults, so timeouts are generous
	hook      bool                       // with OnChange, so each change is a transaction, with a copy in the host's table
	configure func(*pgxpool.Config)
}

func (o loadOptions) pgx() *clerkinvite.PgxOptions {
	if !o.hook {
		return nil
	}
	return &clerkinvite.PgxOptions{OnChange: copyChanges}
}

const hostTables = `
CREATE TABLE host_row (tenant text NOT NULL, email text NOT NULL, PRIMARY KEY (tenant, email));
CREATE TABLE host_copy (id uuid PRIMARY KEY, status text NOT NULL, send int NOT NULL, user_id text NOT NULL);`

// startLoad makes the tables and starts all workers.
func startLoad(t *testing.T, o loadOptions) *load {
	t.Helper()
	seed := testkit.Random(t).Uint64()
	l := &load{
		t: t, clerk: clerkinvitetest.NewClerk(), opts: o, stop: make(chan struct{}),
		told: make(map[string]map[fact]bool), hostRows: make(map[string]bool), calls: make(map[string]int), failed: make(map[string]int),
	}
	srv := httptest.NewServer(l.clerk.Handler())
	t.Cleanup(srv.Close)
	url := srv.URL
	if o.url != nil {
		url = o.url(strings.TrimPrefix(url, "http://"))
	}
	ctx, stopRuns := context.WithCancel(context.Background())
	l.stopRuns = stopRuns
	t.Cleanup(func() { l.end() })
	if o.workers == 0 {
		o.workers = 2
	}
	for i := range 3 {
		l.hosts = append(l.hosts, newHost(t, o, url+"/v1"))
		if i == 0 {
			require.NoError(t, l.hosts[0].store.Migrate(t.Context()))
			_, err := l.hosts[0].pool.Exec(t.Context(), hostTables, pgx.QueryExecModeSimpleProtocol)
			require.NoError(t, err)
		}
	}
	for _, h := range l.hosts {
		l.runs.Go(func() {
			_ = h.Run(ctx, &clerkinvite.RunOptions{Interval: 100 * time.Millisecond, ReconcileInterval: 2 * time.Second})
		})
		for range o.workers {
			random := rand.New(rand.NewPCG(seed, uint64(l.number)))
			l.number++
			l.workers.Go(func() { l.work(h, random) })
		}
	}
	return l
}

func newHost(t *testing.T, o loadOptions, url string) *host {
	t.Helper()
	h := &host{pool: newPool(t, o.dsn, func(c *pgxpool.Config) {
		c.MaxConns = 8
		if o.configure != nil {
			o.configure(c)
		}
	})}
	h.store = clerkinvite.NewPgxStore(h.pool, o.pgx())
	h.Service = newService(t, h.store, url, o.calm, nil)
	verifier, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{Secrets: []clerkinvite.Secret{clerkinvite.NewSecret(clerkinvitetest.WebhookSecret)}})
	require.NoError(t, err)
	h.webhook = h.WebhookHandler(verifier)
	return h
}

func newService(t *testing.T, store clerkinvite.Store, url string, calm bool, now func() time.Time) *clerkinvite.Service {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 8}
	t.Cleanup(transport.CloseIdleConnections)
	options := &clerkapi.Options{BaseURL: url, HTTPClient: &http.Client{Transport: transport}, Timeout: time.Second, CreateTimeout: 2 * time.Second}
	config := clerkinvite.Config{Store: store, Lease: lease, ResendCooldown: -1, Now: now}
	if calm {
		options.Timeout, options.CreateTimeout, config.Lease = patience, patience, 5*patience
	}
	var err error
	config.API, err = clerkapi.New("sk_test_1", options)
	require.NoError(t, err)
	svc, err := clerkinvite.New(config)
	require.NoError(t, err)
	return svc
}

// copyChanges maintains the host's own table.
func copyChanges(ctx context.Context, tx pgx.Tx, changes []clerkinvite.Change) error {
	for _, c := range changes {
		_, err := tx.Exec(ctx, `INSERT INTO host_copy (id, status, send, user_id) VALUES ($1::text::uuid, $2, $3, $4)
			ON CONFLICT (id) DO UPDATE SET status = excluded.status, send = excluded.send, user_id = excluded.user_id`,
			c.New.ID, string(c.New.Status), c.New.Send, c.New.ClerkUserID)
		if err != nil {
			return err
		}
	}
	return nil
}

// work runs one worker: one request after the other, regardless of their outcomes.
func (l *load) work(h *host, random *rand.Rand) {
	for {
		select {
		case <-l.stop:
			return
		case <-time.After(time.Duration(random.IntN(8)) * time.Millisecond):
		}
		limit := callTime
		if l.opts.calm {
			limit = patience
		}
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		switch random.IntN(20) {
		case 0, 1, 2, 3:
			l.invite(ctx, h, l.newcomer())
		case 4: // by two processes at the same time
			ref := l.newcomer()
			var other sync.WaitGroup
			other.Go(func() { l.invite(ctx, l.hosts[random.IntN(len(l.hosts))], ref) })
			l.invite(ctx, h, ref)
			other.Wait()
		case 5: // also of another tenant
			if ref, ok := l.anybody(random); ok {
				ref.TenantID = "globex"
				l.invite(ctx, h, ref)
			}
		case 6: // again: a duplicate, or a person whose invitation has ended
			if ref, ok := l.anybody(random); ok {
				l.invite(ctx, h, ref)
			}
		case 7, 8:
			l.inviteMany(ctx, h, 2+random.IntN(14))
		case 9, 10:
			l.reserveInTx(ctx, h)
		case 11, 12:
			if ref, ok := l.anybody(random); ok {
				m, err := h.Resend(ctx, ref)
				l.note("Resend", m, err)
			}
		case 13, 14:
			if ref, ok := l.anybody(random); ok {
				m, err := h.Revoke(ctx, ref)
				l.note("Revoke", m, err)
			}
		case 15:
			if ref, ok := l.anybody(random); ok {
				m, err := h.Get(ctx, ref)
				l.note("Get", m, err)
			}
		default:
			if ref, ok := l.anybody(random); ok {
				l.accept(ctx, h, ref)
			}
		}
		cancel()
	}
}

func (l *load) newcomer() clerkinvite.Ref {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.number++
	return clerkinvite.Ref{TenantID: "acme", Email: fmt.Sprintf("person%d@example.com", l.number)}
}

// anybody returns a person who was invited, mostly a recent one.
func (l *load) anybody(random *rand.Rand) (clerkinvite.Ref, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.people) == 0 {
		return clerkinvite.Ref{}, false
	}
	from := max(0, len(l.people)-100) * random.IntN(10) / 9
	return l.people[from+random.IntN(len(l.people)-from)], true
}

func (l *load) invite(ctx context.Context, h *host, ref clerkinvite.Ref) {
	m, err := h.Invite(ctx, clerkinvite.InviteParams{TenantID: ref.TenantID, Email: ref.Email})
	l.note("Invite", m, err)
}

func (l *load) inviteMany(ctx context.Context, h *host, n int) {
	var ps []clerkinvite.InviteParams
	for range n {
		ref := l.newcomer()
		ps = append(ps, clerkinvite.InviteParams{TenantID: ref.TenantID, Email: ref.Email})
	}
	results, err := h.InviteMany(ctx, ps, nil)
	for _, r := range results {
		l.note("", r.Member, r.Err)
	}
	l.note("InviteMany", nil, err)
}

// reserveInTx writes a host's row and the invitation, both or neither.
func (l *load) reserveInTx(ctx context.Context, h *host) {
	ref := l.newcomer()
	ref.Email = "host-" + ref.Email
	var m *clerkinvite.Member
	err := pgx.BeginFunc(ctx, h.pool, func(tx pgx.Tx) (err error) {
		if _, err = tx.Exec(ctx, `INSERT INTO host_row (tenant, email) VALUES ($1, $2)`, ref.TenantID, ref.Email); err != nil {
			return err
		}
		m, err = h.InTx(h.store.WithTx(tx)).Reserve(ctx, clerkinvite.InviteParams{TenantID: ref.TenantID, Email: ref.Email})
		return err
	})
	if err == nil {
		l.mu.Lock()
		l.hostRows[ref.Email] = true
		l.mu.Unlock()
	}
	l.note("Reserve", m, err)
}

// accept follows a person's link. Clerk repeats the webhook until the host accepts it, a limited
// number of times.
func (l *load) accept(ctx context.Context, h *host, ref clerkinvite.Ref) {
	event, err := l.clerk.Accept(ref.Email)
	if err != nil {
		return // no invitation is open
	}
	for {
		w := httptest.NewRecorder()
		h.webhook.ServeHTTP(w, event.Request(clerkinvitetest.WebhookSecret, "https://host.example.com/webhook").WithContext(ctx))
		if w.Code/100 == 2 {
			l.note("webhook", nil, nil)
			return
		}
		select {
		case <-ctx.Done():
			l.note("webhook", nil, ctx.Err())
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// note records the response to a call.
func (l *load) note(call string, m *clerkinvite.Member, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var dup *clerkinvite.DuplicateEmailError
	var clerkErr *clerkinvite.ClerkInvitationError
	var transition *clerkinvite.TransitionError
	var cooldown *clerkinvite.CooldownError
	expected := false
	switch {
	case err == nil:
		if call != "Get" && call != "" && !l.marked.IsZero() && l.after.IsZero() {
			l.after = time.Now()
		}
	case errors.As(err, &dup):
		m, expected = dup.Member, true
	case errors.As(err, &clerkErr):
		m = clerkErr.Member
		// Another tenant's open invitation was in the way and ended before it was looked up. The
		// next attempt delivers.
		var api *clerkinvite.APIError
		expected = clerkErr.Outcome == clerkinvite.OutcomeFault && errors.As(err, &api) && api.Code == "duplicate_record"
	case errors.As(err, &transition), errors.As(err, &cooldown), errors.Is(err, clerkinvite.ErrConflict), errors.Is(err, clerkinvite.ErrNotFound):
		m, expected = nil, true
	default:
		m = nil
	}
	if call != "" {
		l.calls[call]++
		if err != nil && !expected {
			l.failed[call]++
			l.failure = err
		}
	}
	if m == nil {
		return
	}
	if l.told[m.ID] == nil {
		l.told[m.ID] = make(map[fact]bool)
		l.people = append(l.people, m.Ref())
	}
	l.told[m.ID][fact{m.Version, m.Status, m.Send, m.Sent, m.ClerkUserID, m.InvitationID, m.Ref()}] = true
}

// mark starts the search for the next success.
func (l *load) mark() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.marked, l.after = time.Now(), time.Time{}
}

// recovered waits for the first success since mark and returns its time.
func (l *load) recovered() time.Time {
	l.t.Helper()
	var at time.Time
	require.Eventually(l.t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		at = l.after
		return !at.IsZero()
	}, patience, time.Millisecond, "a call succeeds again")
	return at
}

// enough waits for n further calls.
func (l *load) enough(n int) {
	l.t.Helper()
	count := func() (sum int) {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, n := range l.calls {
			sum += n
		}
		return sum
	}
	n += count()
	require.Eventually(l.t, func() bool { return count() >= n }, patience, time.Millisecond, "the load goes on")
}

func (l *load) end() {
	select {
	case <-l.stop:
		return
	default:
	}
	close(l.stop)
	l.workers.Wait()
	l.stopRuns()
	l.runs.Wait()
}

// mark is the marker in an invitation's public_metadata.
type mark struct {
	ID   string `json:"id"`
	Send int    `json:"send"`
}

func markOf(inv clerkinvite.Invitation) (mark, bool) {
	var m struct {
		Mark *mark `json:"clerkinvite"`
	}
	if json.Unmarshal(inv.PublicMetadata, &m) != nil || m.Mark == nil {
		return mark{}, false
	}
	return *m.Mark, true
}

// verdict is the result of check.
type verdict struct {
	members, facts, emails int
	calls, failed          int
}

func (v verdict) plus(w verdict) verdict {
	return verdict{v.members + w.members, v.facts + w.facts, v.emails + w.emails, v.calls + w.calls, v.failed + w.failed}
}

func (v verdict) times() string {
	return fmt.Sprintf("%d calls of three hosts, %d members", v.calls, v.members)
}

func (v verdict) lost() string {
	return fmt.Sprintf("0 of %d members, 0 of %d answers, 0 second emails of %d", v.members, v.facts, v.emails)
}

func (v verdict) failures() string { return fmt.Sprintf("%d calls failed", v.failed) }

// check ends the load, completes all work on the database that dsn names, and compares what callers
// were told with the database and with Clerk.
func (l *load) check(dsn string) verdict {
	t := l.t
	t.Helper()
	l.end()
	pool := newPool(t, dsn)
	store := clerkinvite.NewPgxStore(pool, l.opts.pgx())
	srv := httptest.NewServer(l.clerk.Handler())
	defer srv.Close()
	// Two hours later, so that every lease and every pause has ended, and again.
	ahead := 2 * time.Hour
	now := func() time.Time { return time.Now().Add(ahead) }
	svc := newService(t, testkit.ClockedStore{Store: store, Now: now}, srv.URL+"/v1", true, now)
	for round, waiting := 0, true; round < 4 || waiting && round < 100; round++ { // each hour has 86 single creates for members of imports
		_, err := svc.Deliver(t.Context(), nil)
		require.NoError(t, err)
		due, err := store.Due(t.Context(), clerkinvite.DueQuery{At: now().Add(24 * time.Hour)})
		require.NoError(t, err)
		waiting = len(due) > 0
		report, err := svc.Reconcile(t.Context(), nil)
		require.NoError(t, err)
		require.Zero(t, report.Unknown, "invitations of members that this database does not know")
		require.Zero(t, report.Newer, "invitations newer than their member")
		require.Empty(t, report.AcceptedElsewhere)
		ahead += 2 * time.Hour
	}

	members := make(map[string]*clerkinvite.Member)
	emails := make(map[string]bool)
	statuses := make(map[clerkinvite.Status]int)
	for q := (clerkinvite.PageQuery{}); ; {
		page, err := store.Page(t.Context(), q)
		require.NoError(t, err)
		if len(page) == 0 {
			break
		}
		for _, m := range page {
			members[m.ID], emails[m.Email] = m, true
			statuses[m.Status]++
			q.AfterTenantID, q.AfterID = m.TenantID, m.ID
		}
	}

	open := make(map[string][]clerkinvite.Invitation) // by member
	marks := make(map[string]mark)                    // by invitation
	for email := range emails {
		for _, inv := range l.clerk.Invitations(email) {
			m, ok := markOf(inv)
			require.True(t, ok)
			marks[inv.ID] = m
			if inv.Status == clerkinvite.InvitationPending {
				open[m.ID] = append(open[m.ID], inv)
			}
		}
	}
	verified := func(m *clerkinvite.Member) (ids []string) {
		users, err := l.clerk.FindUsers(t.Context(), clerkinvite.UserQuery{Emails: []string{m.Email}})
		require.NoError(t, err)
		for _, u := range users {
			for _, e := range u.Emails {
				if e.Address == m.Email && e.Verified {
					ids = append(ids, u.ID)
				}
			}
		}
		return ids
	}

	// One email per send.
	sent := make(map[mark]int)
	mailed := make(map[string]bool)
	for _, mail := range l.clerk.SentMail() {
		m, ok := marks[mail.InvitationID]
		require.True(t, ok, "an email to a person who is not in the database: %s", mail.To)
		require.NotNil(t, members[m.ID])
		sent[m]++
		mailed[mail.InvitationID] = true
		if sent[m] > 1 {
			moves, err := store.History(t.Context(), members[m.ID].TenantID, m.ID)
			t.Errorf("send %d of %s (%s): %d emails\nmember %+v\nhistory %+v %v\ninvitations %+v", m.Send, m.ID, mail.To, sent[m],
				members[m.ID], moves, err, l.clerk.Invitations(mail.To))
		}
	}

	// The rows and Clerk agree, and no member is stuck.
	for _, m := range members {
		require.False(t, m.Due(), "%v", m)
		ids := verified(m)
		switch m.Status {
		case clerkinvite.StatusPending:
			require.Equal(t, m.Send, m.Sent, "%v", m)
			require.Len(t, open[m.ID], 1, "%v", m)
			require.Equal(t, m.InvitationID, open[m.ID][0].ID)
			require.True(t, mailed[m.InvitationID])
			require.Empty(t, ids, "the address of %v belongs to a user", m)
		case clerkinvite.StatusActive:
			require.Empty(t, open[m.ID], "%v", m)
			require.Equal(t, []string{m.ClerkUserID}, ids)
		case clerkinvite.StatusRevoked:
			require.Empty(t, open[m.ID], "%v", m)
		default:
			t.Fatalf("stuck or ended without a reason: %v", m)
		}
	}

	// Everything that a caller was told is true, or was until the next state change.
	facts := 0
	for id, told := range l.told {
		m := members[id]
		for f := range told {
			require.NotNil(t, m, "an acknowledged member is lost: %s, %+v", id, f)
		}
		moves, err := store.History(t.Context(), m.TenantID, id)
		require.NoError(t, err)
		for i, move := range moves {
			from := clerkinvite.Status("")
			if i > 0 {
				from = moves[i-1].To
			}
			require.Equal(t, from, move.From, "history of %v", m)
		}
		for f := range told {
			facts++
			at := -1
			for i, move := range moves {
				if move.Version <= f.version {
					at = i
				}
			}
			require.GreaterOrEqual(t, at, 0)
			move := moves[at]
			require.Equal(t, fact{f.version, move.To, move.Send, move.Sent, move.ClerkUserID, move.InvitationID, m.Ref()}, f,
				"an answer is lost; now %v, history %+v", m, moves)
			require.GreaterOrEqual(t, m.Version, f.version)
		}
	}
	l.checkHost(pool, members)
	if l.opts.hook {
		l.checkCopy(pool)
	}

	v := verdict{members: len(members), facts: facts, emails: l.clerk.Emails()}
	for _, n := range l.calls {
		v.calls += n
	}
	for _, n := range l.failed {
		v.failed += n
	}
	for _, call := range slices.Sorted(maps.Keys(l.calls)) {
		t.Logf("%12s: %5d calls, %4d failed", call, l.calls[call], l.failed[call])
	}
	t.Logf("members: %v", statuses)
	for _, status := range []clerkinvite.Status{clerkinvite.StatusPending, clerkinvite.StatusActive, clerkinvite.StatusRevoked} {
		require.NotZero(t, statuses[status], "the load does not do what it should")
	}
	return v
}

// checkHost compares the members with the host's own tables.
func (l *load) checkHost(pool *pgxpool.Pool, members map[string]*clerkinvite.Member) {
	t := l.t
	t.Helper()
	rows, err := pool.Query(t.Context(), `SELECT email FROM host_row`)
	require.NoError(t, err)
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	there := make(map[string]bool)
	for _, email := range list {
		there[email] = true
	}
	for email := range l.hostRows {
		require.True(t, there[email], "a committed host row is lost")
	}
	for _, m := range members {
		if strings.HasPrefix(m.Email, "host-") && m.TenantID == "acme" {
			require.True(t, there[m.Email], "a member without the host's row")
			delete(there, m.Email)
		}
	}
	require.Empty(t, there, "host rows without their member")
}

// checkCopy compares the members with the hook's copy.
func (l *load) checkCopy(pool *pgxpool.Pool) {
	t := l.t
	t.Helper()
	var members, wrong int
	require.NoError(t, pool.QueryRow(t.Context(), `
		SELECT count(*), count(*) FILTER (WHERE (c.status, c.send, c.user_id) IS DISTINCT FROM (m.status, m.send, coalesce(m.clerk_user_id, '')))
		FROM clerkinvite_member m FULL JOIN host_copy c ON c.id = m.id`).Scan(&members, &wrong))
	require.NotZero(t, members)
	require.Zero(t, wrong, "of %d copies", members)
}
