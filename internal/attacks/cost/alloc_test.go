package cost_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// allocation is how often a verb allocates in one situation, at most.
type allocation struct {
	verb, situation string
	outcome         string // of whom it is about: the state of the first, or how many; it proves that the verb has done its work
	bound           int    // a little above what is counted with -race, which is some 10 % above what is counted without

	// call makes the situation, and returns the verb. What the verb's own string costs is nothing.
	call func(s *readyStore, api *clerkinvitetest.ClerkFuncs, svc *clerkinvite.Service) func(context.Context) (string, error)
}

// allocations is what is the library's own of each verb: over a store and a Clerk that answer at once, keep nothing, and
// allocate nothing. What PgxStore, pgx and the adapter need is not in it.
func allocations() []allocation {
	type (
		store  = *readyStore
		clerk  = *clerkinvitetest.ClerkFuncs
		invite = *clerkinvite.Service
		verb   = func(context.Context) (string, error)
	)
	ada := clerkinvite.Ref{TenantID: "acme", Email: "ada@example.com"}
	one := testkit.Params("acme", ada.Email)
	user := clerkinvite.User{
		ID: "user_1", PrimaryEmailID: "idn_1", Emails: []clerkinvite.UserEmail{{ID: "idn_1", Address: ada.Email, Verified: true}}, CreatedAt: allocationTime,
	}
	asUser := func(api clerk) {
		found := make([]clerkinvite.User, 1)
		api.FindUsersFunc = func(context.Context, clerkinvite.UserQuery) ([]clerkinvite.User, error) {
			found[0] = user
			return found, nil
		}
	}
	// first returns the state of the first result.
	first := func(results []clerkinvite.Result, err error) (string, error) {
		if err == nil {
			err = results[0].Err
		}
		if err != nil {
			return "", err
		}
		return string(results[0].Member.Status), nil
	}
	state := func(m *clerkinvite.Member, err error) (string, error) {
		if err != nil {
			return "", err
		}
		return string(m.Status), nil
	}
	states := func(ms []*clerkinvite.Member, err error) (string, error) {
		if err != nil || len(ms) == 0 {
			return "none", err
		}
		return string(ms[0].Status), nil
	}
	return []allocation{
		{"Invite", "somebody new", "pending", 60, func(_ store, _ clerk, svc invite) verb {
			return func(ctx context.Context) (string, error) { return state(svc.Invite(ctx, one)) }
		}},
		{"Invite", "a duplicate", "409", 22, func(s store, _ clerk, svc invite) verb {
			m := aMember(0, clerkinvite.StatusPending)
			s.duplicate = &clerkinvite.DuplicateEmailError{Ref: m.Ref(), Member: m}
			return func(ctx context.Context) (string, error) { return state(svc.Invite(ctx, one)) }
		}},
		{"Invite", "an existing user", "active", 55, func(_ store, api clerk, svc invite) verb {
			asUser(api)
			return func(ctx context.Context) (string, error) { return state(svc.Invite(ctx, one)) }
		}},
		{"InviteMany", "100 new", "pending", 6000, func(_ store, _ clerk, svc invite) verb {
			ps := testkit.People(100, "p")
			return func(ctx context.Context) (string, error) { return first(svc.InviteMany(ctx, ps, nil)) }
		}},
		{"Reserve", "somebody new", "reserved", 15, func(_ store, _ clerk, svc invite) verb {
			return func(ctx context.Context) (string, error) { return state(svc.Reserve(ctx, one)) }
		}},
		{"ReserveMany", "1,000 new", "reserved", 11600, func(_ store, _ clerk, svc invite) verb {
			ps := testkit.People(1000, "p")
			return func(ctx context.Context) (string, error) { return first(svc.ReserveMany(ctx, ps)) }
		}},
		{"InTx.Reserve", "somebody new", "reserved", 15, func(s store, _ clerk, svc invite) verb {
			return func(ctx context.Context) (string, error) { return state(svc.InTx(s).Reserve(ctx, one)) }
		}},
		{"InTx.ReserveMany", "1,000 new", "reserved", 11600, func(s store, _ clerk, svc invite) verb {
			ps := testkit.People(1000, "p")
			return func(ctx context.Context) (string, error) { return first(svc.InTx(s).ReserveMany(ctx, ps)) }
		}},
		{"Deliver", "25 due", "25", 1200, func(s store, _ clerk, svc invite) verb {
			rows, due := manyMembers(25, clerkinvite.StatusReserved), false
			s.due = func() []*clerkinvite.Member {
				if due = !due; due {
					return rows
				}
				return nil
			}
			return func(ctx context.Context) (string, error) {
				r, err := svc.Deliver(ctx, nil)
				return strconv.Itoa(r.Invited), err
			}
		}},
		{"Resend", "pending", "pending", 115, func(s store, api clerk, svc invite) verb {
			s.has(aMember(0, clerkinvite.StatusPending))
			lists(api, anInvitation(0))
			return func(ctx context.Context) (string, error) { return state(svc.Resend(ctx, ada)) }
		}},
		{"Revoke", "pending", "revoked", 17, func(s store, _ clerk, svc invite) verb {
			s.has(aMember(0, clerkinvite.StatusPending))
			return func(ctx context.Context) (string, error) { return state(svc.Revoke(ctx, ada)) }
		}},
		{"Remove", "active", "removed", 15, func(s store, _ clerk, svc invite) verb {
			s.has(aMember(0, clerkinvite.StatusActive))
			return func(ctx context.Context) (string, error) { return state(svc.Remove(ctx, ada)) }
		}},
		{"Purge", "pending", "done", 40, func(s store, api clerk, svc invite) verb {
			s.has(aMember(0, clerkinvite.StatusPending))
			lists(api, anInvitation(0))
			return func(ctx context.Context) (string, error) { return "done", svc.Purge(ctx, ada) }
		}},
		{"Update", "the role", "pending", 7, func(s store, _ clerk, svc invite) verb {
			s.has(aMember(0, clerkinvite.StatusPending))
			role := "admin"
			return func(ctx context.Context) (string, error) {
				return state(svc.Update(ctx, ada, clerkinvite.MemberUpdate{Role: &role}))
			}
		}},
		{"Get", "there", "pending", 3, func(s store, _ clerk, svc invite) verb {
			s.has(aMember(0, clerkinvite.StatusPending))
			return func(ctx context.Context) (string, error) { return state(svc.Get(ctx, ada)) }
		}},
		{"List", "a page of 100", "pending", 7, func(s store, _ clerk, svc invite) verb {
			s.has(manyMembers(101, clerkinvite.StatusPending)...)
			return func(ctx context.Context) (string, error) {
				page, err := svc.List(ctx, clerkinvite.ListParams{TenantID: "acme"})
				if err != nil || page.Next == "" {
					return "", err
				}
				return states(page.Members, nil)
			}
		}},
		{"All", "50", "50", 6, func(s store, _ clerk, svc invite) verb {
			s.has(manyMembers(50, clerkinvite.StatusPending)...)
			return func(ctx context.Context) (string, error) {
				n := 0
				for _, err := range svc.All(ctx, clerkinvite.ListParams{TenantID: "acme"}) {
					if err != nil {
						return "", err
					}
					n++
				}
				return strconv.Itoa(n), nil
			}
		}},
		{"History", "there", "2", 3, func(s store, _ clerk, svc invite) verb {
			s.has(aMember(0, clerkinvite.StatusPending))
			return func(ctx context.Context) (string, error) {
				moves, err := svc.History(ctx, ada)
				return strconv.Itoa(len(moves)), err
			}
		}},
		{"Resolve", "somebody waits", "active", 41, func(s store, _ clerk, svc invite) verb {
			s.has(aMember(0, clerkinvite.StatusPending))
			return func(ctx context.Context) (string, error) { return states(svc.Resolve(ctx, user)) }
		}},
		{"ResolveUser", "somebody waits", "active", 42, func(s store, api clerk, svc invite) verb {
			asUser(api)
			s.has(aMember(0, clerkinvite.StatusPending))
			return func(ctx context.Context) (string, error) { return states(svc.ResolveUser(ctx, user.ID)) }
		}},
		{"ResolveUser", "nobody waits", "none", 11, func(_ store, api clerk, svc invite) verb {
			asUser(api)
			return func(ctx context.Context) (string, error) { return states(svc.ResolveUser(ctx, user.ID)) }
		}},
		{"HandleEvent", "somebody waits", "active", 45, func(s store, api clerk, svc invite) verb {
			asUser(api)
			s.has(aMember(0, clerkinvite.StatusPending))
			e := &clerkinvite.Event{Type: clerkinvite.EventUserCreated, UserID: user.ID, User: &user}
			return func(ctx context.Context) (string, error) { return states(svc.HandleEvent(ctx, e)) }
		}},
		{"HandleEvent", "nobody waits", "none", 4, func(_ store, _ clerk, svc invite) verb {
			e := &clerkinvite.Event{Type: clerkinvite.EventUserCreated, UserID: user.ID, User: &user}
			return func(ctx context.Context) (string, error) { return states(svc.HandleEvent(ctx, e)) }
		}},
		{"WebhookHandler", "nobody waits", "204", 60, func(_ store, _ clerk, svc invite) verb {
			verifier, w := aWebhook()
			handler, r, body := svc.WebhookHandler(verifier), w.Request(clerkinvitetest.WebhookSecret, "/"), bytes.NewReader(w.Payload)
			r.Body = io.NopCloser(body)
			answer := &statusOnly{header: make(http.Header)}
			return func(context.Context) (string, error) {
				body.Reset(w.Payload)
				handler.ServeHTTP(answer, r)
				return answer.status, nil
			}
		}},
		{"Reconcile", "100 members, half pending, half active", "100", 1870, func(s store, api clerk, svc invite) verb {
			active, pending := manyMembers(100, clerkinvite.StatusActive)[:50], manyMembers(100, clerkinvite.StatusPending)[50:]
			all := slices.Concat(active, pending)
			s.has(pending...)
			s.page = func(q clerkinvite.PageQuery) []*clerkinvite.Member {
				if len(q.Statuses) == 1 {
					return active
				}
				return all
			}
			found := make([]clerkinvite.User, 50)
			api.FindUsersFunc = func(_ context.Context, q clerkinvite.UserQuery) ([]clerkinvite.User, error) {
				for i, id := range q.IDs {
					found[i] = clerkinvite.User{ID: id}
				}
				return found[:len(q.IDs)], nil
			}
			var invitations []clerkinvite.Invitation
			for i := range 50 {
				invitations = append(invitations, anInvitation(50+i))
			}
			lists(api, invitations...)
			return func(ctx context.Context) (string, error) {
				r, err := svc.Reconcile(ctx, nil)
				if r.Members+r.Invitations != 150 {
					return "", err
				}
				return "100", err
			}
		}},
	}
}

// row is a in Markdown: verb, situation, allocations at most.
func (a allocation) row() string {
	return fmt.Sprintf("| %s | %s | %d |", a.verb, a.situation, a.bound)
}

// TestAllocations holds the table above. It counts in a process of its own: a count is of the whole process, and here other
// tests run meanwhile. With -v it prints the table in Markdown.
func TestAllocations(t *testing.T) {
	const child, mark = "CLERKINVITE_TEST_ALLOCATIONS", "ALLOCATIONS "
	if os.Getenv(child) != "" {
		b, err := json.Marshal(countAllocations(t))
		require.NoError(t, err)
		fmt.Println(mark + string(b))
		return
	}
	t.Parallel()
	binary, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), binary, "-test.run=^TestAllocations$", "-test.count=1")
	cmd.Env = append(os.Environ(), child+"=1")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	var counted map[string]int
	for line := range strings.Lines(string(out)) {
		if b, ok := strings.CutPrefix(line, mark); ok {
			require.NoError(t, json.Unmarshal([]byte(b), &counted))
		}
	}
	for _, a := range allocations() {
		n := counted[a.verb+", "+a.situation]
		t.Logf("%s (%d now)", a.row(), n)
		// Not one would be a verb that does nothing.
		if n < 1 || n > a.bound {
			t.Errorf("%s, %s: %d allocations, and the table has 1 to %d. If that is meant, write it down in the table of alloc_test.go "+
				"and in docs/performance.md. If it is more and that is not meant, the change is wrong", a.verb, a.situation, n, a.bound)
		}
	}
}

// Every verb is in the table, but Run, which is Deliver and Reconcile.
func TestAllocationsOfEveryVerb(t *testing.T) {
	t.Parallel()
	listed := map[string]bool{"Format": true, "InTx": true, "Run": true, "InTx.Format": true}
	for _, a := range allocations() {
		listed[a.verb] = true
	}
	for prefix, public := range map[string]reflect.Type{"": reflect.TypeFor[*clerkinvite.Service](), "InTx.": reflect.TypeFor[*clerkinvite.Reserver]()} {
		for i := range public.NumMethod() {
			require.True(t, listed[prefix+public.Method(i).Name], "how often does %s allocate? Add it to the table", prefix+public.Method(i).Name)
		}
	}
}

// countAllocations counts.
func countAllocations(t *testing.T) map[string]int {
	t.Helper()
	counted := make(map[string]int)
	for _, a := range allocations() {
		store, api := &readyStore{results: make([]clerkinvite.Result, 1000)}, readyClerk()
		svc, err := clerkinvite.New(clerkinvite.Config{API: api, Store: store, Now: func() time.Time { return allocationTime }})
		require.NoError(t, err)
		verb := a.call(store, api, svc)
		outcome, err := verb(t.Context())
		if err != nil {
			outcome = outcomeOf(nil, err)
		}
		require.Equal(t, a.outcome, outcome, "%s, %s: %v", a.verb, a.situation, err)
		runs := 100
		if strings.Contains(a.situation, "1,000") {
			runs = 5
		}
		counted[a.verb+", "+a.situation] = int(testing.AllocsPerRun(runs, func() {
			now, nowErr := verb(t.Context())
			if (nowErr == nil) != (err == nil) || err == nil && now != outcome {
				t.Errorf("%s, %s: %q now, %v", a.verb, a.situation, now, nowErr)
			}
		}))
	}
	return counted
}

// readyStore is a Store that answers at once. What it answers with is used again for the next answer.
type readyStore struct {
	find      func(q clerkinvite.Query) []*clerkinvite.Member     // nil: nobody
	due       func() []*clerkinvite.Member                        // nil: nobody
	page      func(q clerkinvite.PageQuery) []*clerkinvite.Member // nil: nobody
	duplicate error                                               // of each insert
	results   []clerkinvite.Result
}

var _ clerkinvite.Store = (*readyStore)(nil)

// has lets each look-up find these.
func (s *readyStore) has(members ...*clerkinvite.Member) {
	s.find = func(clerkinvite.Query) []*clerkinvite.Member { return members }
	s.page = func(clerkinvite.PageQuery) []*clerkinvite.Member { return members }
}

func (s *readyStore) Insert(_ context.Context, rows []*clerkinvite.Member) ([]clerkinvite.Result, error) {
	for i, row := range rows {
		s.results[i] = clerkinvite.Result{Member: row, Err: s.duplicate}
	}
	return s.results[:len(rows)], nil
}

func (s *readyStore) Update(_ context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
	for i, c := range changes {
		s.results[i] = clerkinvite.Result{Member: c.Old}
		if c.New != nil {
			c.New.Version = c.Old.Version + 1
			s.results[i].Member = c.New
		}
	}
	return s.results[:len(changes)], nil
}

func (s *readyStore) Find(_ context.Context, q clerkinvite.Query) ([]*clerkinvite.Member, error) {
	if s.find == nil {
		return nil, nil
	}
	return s.find(q), nil
}

func (s *readyStore) Due(context.Context, time.Time, int) ([]*clerkinvite.Member, error) {
	if s.due == nil {
		return nil, nil
	}
	return s.due(), nil
}

func (s *readyStore) Page(_ context.Context, q clerkinvite.PageQuery) ([]*clerkinvite.Member, error) {
	if s.page == nil {
		return nil, nil
	}
	return s.page(q), nil
}

var twoMoves = make([]clerkinvite.HistoryEntry, 2)

func (*readyStore) History(context.Context, string, string) ([]clerkinvite.HistoryEntry, error) {
	return twoMoves, nil
}

func (*readyStore) SwapTime(_ context.Context, _ string, _, next time.Time) (time.Time, error) {
	return next, nil
}

// allocationTime is when all of this happens.
var allocationTime = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)

// readyClerk is a Clerk that answers at once: it knows nobody and invites everybody.
func readyClerk() *clerkinvitetest.ClerkFuncs {
	expires := allocationTime.AddDate(0, 0, 30)
	single, ten := clerkinvite.Invitation{}, make([]clerkinvite.Invitation, 10)
	created := func(i int, r clerkinvite.InvitationRequest) clerkinvite.Invitation {
		return clerkinvite.Invitation{
			ID: invitationIDs[i], Email: r.Email, Status: clerkinvite.InvitationPending, URL: clerkinvite.NewSecret("https://example.com/accept"),
			PublicMetadata: r.PublicMetadata, CreatedAt: allocationTime, ExpiresAt: &expires,
		}
	}
	return &clerkinvitetest.ClerkFuncs{
		FindUsersFunc: func(context.Context, clerkinvite.UserQuery) ([]clerkinvite.User, error) { return nil, nil },
		CreateInvitationFunc: func(_ context.Context, r clerkinvite.InvitationRequest) (*clerkinvite.Invitation, error) {
			single = created(100, r)
			return &single, nil
		},
		CreateInvitationsFunc: func(_ context.Context, rs []clerkinvite.InvitationRequest) ([]clerkinvite.Invitation, error) {
			for i, r := range rs {
				ten[i] = created(100+i, r)
			}
			return ten[:len(rs)], nil
		},
		RevokeInvitationFunc: func(context.Context, string) (*clerkinvite.Invitation, error) { return &single, nil },
	}
}

// lists lets Clerk list these invitations as pending, and none that has ended.
func lists(api *clerkinvitetest.ClerkFuncs, invitations ...clerkinvite.Invitation) {
	page := make([]clerkinvite.Invitation, len(invitations))
	api.ListInvitationsFunc = func(_ context.Context, q clerkinvite.InvitationQuery) ([]clerkinvite.Invitation, error) {
		if q.Status != "" && q.Status != clerkinvite.InvitationPending {
			return nil, nil
		}
		copy(page, invitations)
		return page, nil
	}
}

var invitationIDs = func() (ids []string) {
	for i := range 110 {
		ids = append(ids, fmt.Sprintf("inv_%06d", i))
	}
	return ids
}()

// aMember is the i-th member in a state. The first is ada.
func aMember(i int, status clerkinvite.Status) *clerkinvite.Member {
	at, expires := allocationTime.Add(-time.Hour), allocationTime.AddDate(0, 0, 29)
	m := &clerkinvite.Member{
		ID: fmt.Sprintf("019ca8a0-0000-7000-8000-%012d", i), TenantID: "acme", Email: fmt.Sprintf("p%d@example.com", i), Status: status,
		Params: json.RawMessage(`{"expires_in_days":30}`), Send: 1, Version: 1, ReservedAt: at, UpdatedAt: at,
	}
	if i == 0 {
		m.Email = "ada@example.com"
	}
	switch status {
	case clerkinvite.StatusReserved:
		m.NextAttemptAt = &at
	case clerkinvite.StatusActive:
		m.ClerkUserID, m.Sent, m.SettledAt = fmt.Sprint("user_", i), 1, &at
	case clerkinvite.StatusPending:
		m.InvitationID, m.Sent, m.Attempts, m.InvitedAt, m.ExpiresAt, m.SettledAt = invitationIDs[i], 1, 1, &at, &expires, &at
		m.ClerkUserID = clerkinvite.PendingID(m.InvitationID)
	}
	return m
}

func manyMembers(n int, status clerkinvite.Status) (members []*clerkinvite.Member) {
	for i := range n {
		members = append(members, aMember(i, status))
	}
	return members
}

// anInvitation is that of the i-th member.
func anInvitation(i int) clerkinvite.Invitation {
	m := aMember(i, clerkinvite.StatusPending)
	return clerkinvite.Invitation{
		ID: m.InvitationID, Email: m.Email, Status: clerkinvite.InvitationPending, CreatedAt: *m.InvitedAt, ExpiresAt: m.ExpiresAt,
		PublicMetadata: json.RawMessage(`{"clerkinvite":{"id":"` + m.ID + `","send":1}}`),
	}
}

// aWebhook is user.created of a user with one address, and who verifies it.
func aWebhook() (*clerkinvite.WebhookVerifier, clerkinvitetest.Webhook) {
	now := func() time.Time { return allocationTime }
	clerk := clerkinvitetest.NewClerk()
	clerk.SetNow(now)
	verifier, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{Secrets: []clerkinvite.Secret{clerkinvite.NewSecret(clerkinvitetest.WebhookSecret)}, Now: now})
	if err != nil {
		panic(err)
	}
	return verifier, clerk.UserCreated(clerk.AddVerifiedUser("ada@example.com").ID)
}

// statusOnly is a ResponseWriter that keeps the status.
type statusOnly struct {
	header http.Header
	status string
}

func (w *statusOnly) Header() http.Header { return w.header }

func (w *statusOnly) Write(b []byte) (int, error) { return len(b), nil }

func (w *statusOnly) WriteHeader(status int) {
	if w.status = "another"; status == http.StatusNoContent {
		w.status = "204"
	}
}
