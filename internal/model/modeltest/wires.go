package modeltest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/storeutil"
)

type taskKey struct{}

// taskOf returns the task that makes a call.
func taskOf(ctx context.Context) *task {
	t, ok := ctx.Value(taskKey{}).(*task)
	if !ok {
		panic("modeltest: a call without the caller's context")
	}
	return t
}

// errTimeout is the error of a caller that no longer waits.
var errTimeout = errors.New("modeltest: no response in time")

// clerkCalls are the requests that can fail.
var clerkCalls = []clerkinvitetest.Call{
	clerkinvitetest.CallCreate, clerkinvitetest.CallCreate, clerkinvitetest.CallCreateBulk, clerkinvitetest.CallFindUsers,
	clerkinvitetest.CallGetUser, clerkinvitetest.CallList, clerkinvitetest.CallRevoke,
}

// breakNext makes the next request of a kind fail, in one of all possible
// ways.
func (s *sequence) breakNext(call clerkinvitetest.Call) {
	f := clerkinvitetest.Fault{Call: call, When: pick(s, clerkinvitetest.Before, clerkinvitetest.After)}
	if s.chance(2) {
		for f.Kind == "" || f.Kind == clerkinvitetest.Timeout { // the fate adrift does that
			f.Kind = pick(s, clerkinvitetest.Kinds()...)
		}
	} else {
		f.When = clerkinvitetest.Before // a rejected request has no effect
		codes := []clerkinvitetest.Fault{
			{Status: 401, Code: "clerk_key_invalid"},
			{Status: 429, Code: "too_many_requests", RetryAfter: pick(s, 0, time.Second, time.Minute, time.Hour, 24*time.Hour)},
			{Status: 403, Code: "quota_exceeded"},
			{Status: 404}, // a proxy's
			{Status: 422, Code: "form_data_invalid", Meta: map[string]any{}},
			{Status: 409, Code: "a_code_of_the_future"},
		}
		if slices.Contains(organizationCalls, call) && call != clerkinvitetest.CallRemoveMember { // there a 404 is believed: the user has left
			codes = append(codes, refusals...)
		}
		if call == clerkinvitetest.CallCreate || call == clerkinvitetest.CallCreateBulk {
			codes = append(codes,
				clerkinvitetest.Fault{Status: 403, Code: "not_allowed_access"},
				clerkinvitetest.Fault{Status: 422, Code: "form_param_value_invalid", Meta: map[string]any{"param_name": "redirect_url"}},
				clerkinvitetest.Fault{Status: 422, Code: "form_param_format_invalid", Meta: map[string]any{"param_name": "email_address"}})
		}
		r := pick(s, codes...)
		f.Status, f.Code, f.Meta, f.RetryAfter = r.Status, r.Code, r.Meta, r.RetryAfter
	}
	s.sayf("the next %s fails %s its effect: %s %d %s", f.Call, f.When, f.Kind, f.Status, f.Code)
	s.clerk.Fail(f)
}

// ask is a task's request to Clerk.
func ask[T any](ctx context.Context, endpoint clerkinvitetest.Call, what string, do func() (T, error)) (T, error) {
	var none T
	t := taskOf(ctx)
	limit := limitOf(endpoint)
	t.probes(t.everLimited[limit]) // even if the request is not sent, others wait until the clock was read
	if ctx.Err() != nil {
		return none, &clerkinvite.APIError{NotSent: true, Err: t.over(ctx)}
	}
	t.requests++
	t.background(limit)
	var late func()
	if !strings.HasPrefix(string(endpoint), "GET ") {
		late = func() { _, _ = do() }
	}
	f, alive := t.pause(what, late)
	if !alive {
		return none, errDead
	}
	if ctx.Err() != nil || f == adrift {
		t.failed = true
		t.sayf("%s: %s gets no response in time", t.name, what)
		if late != nil {
			t.flights = append(t.flights, &flight{t, what, late})
		}
		return none, &clerkinvite.APIError{Err: cmp.Or(t.over(ctx), errTimeout)}
	}
	if f != fine {
		t.breakNext(endpoint)
	}
	answer, err := do()
	t.sayf("%s: %s -> %v", t.name, what, outcome{err})
	var api *clerkinvite.APIError
	if errors.As(err, &api) && api.StatusCode == http.StatusTooManyRequests {
		t.everLimited[limit] = true
	} else if err != nil {
		t.failed = true
	}
	if slices.Contains(organizationCalls, endpoint) && refusesOrganization(err) {
		t.noMembers = true
		t.orgUnknown = t.orgUnknown || endpoint == clerkinvitetest.CallOrganizationList && saysNoOrganization(err)
		t.orgEmpty = t.orgEmpty || endpoint == clerkinvitetest.CallMemberships && saysNoOrganization(err)
	}
	if errors.As(err, &api) && api.StatusCode == http.StatusTooManyRequests && api.RetryAfter > 0 {
		t.limited[string(limit)] = t.now().Add(api.RetryAfter)
	}
	if !t.calm && t.chance(10) {
		if _, alive := t.pause("the response to "+what, nil); !alive {
			return none, errDead
		}
		if ctx.Err() != nil {
			return none, &clerkinvite.APIError{Err: t.over(ctx)}
		}
	}
	return answer, err
}

// limitOf returns the call whose name the limit of an endpoint has. The library has one limit for all lists of
// invitations into organizations.
func limitOf(endpoint clerkinvitetest.Call) clerkinvitetest.Call {
	if endpoint == clerkinvitetest.CallOrganizationListAll {
		return clerkinvitetest.CallOrganizationList
	}
	return endpoint
}

// over returns why a call's context has ended, or nil, and records it.
func (t *task) over(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		t.tooLate = true
	}
	if ctx.Err() == nil {
		return nil
	}
	return fmt.Errorf("modeltest: the call's context has ended: %w: %w", ctx.Err(), context.Cause(ctx))
}

// background checks that background delivery does not call a limited endpoint. It may not know the limit if the store
// fails or the process is dead, or if the process's clock was set in the meantime.
func (t *task) background(endpoint clerkinvitetest.Call) {
	if t.storeFailed || t.process.dead || t.process.clockSet > t.began {
		return
	}
	if closed, ok := t.closed[string(endpoint)]; ok && t.verb == deliver && t.ref == (clerkinvite.Ref{}) && t.began > closed.step && t.now().Before(closed.until) {
		t.failf("limit: %s calls %s, although all processes know its limit", t.name, endpoint)
	}
}

// since formats a time as its distance from the beginning.
type since struct{ time.Time }

func (t since) String() string {
	if t.IsZero() {
		return "never"
	}
	return t.Sub(born).Truncate(grain).String() // without the random part
}

// outcome formats an error's text, or ok, only when it is printed.
type outcome struct{ err error }

func (o outcome) String() string {
	if o.err == nil {
		return "ok"
	}
	if isCooldown(o.err) {
		return "too early for another" // whose time has a random part
	}
	return memberID.ReplaceAllString(o.err.Error(), "member")
}

var memberID = regexp.MustCompile(`member [0-9a-f-]{36}`) // an id has a random part

// wiredAPI is the processes' Clerk.
type wiredAPI struct{ *sequence }

func (a wiredAPI) FindUsers(ctx context.Context, q clerkinvite.UserQuery) ([]clerkinvite.User, error) {
	t := taskOf(ctx)
	users, err := ask(ctx, clerkinvitetest.CallFindUsers, "find users", func() ([]clerkinvite.User, error) { return a.api.FindUsers(context.Background(), q) })
	if err == nil {
		for _, email := range q.Emails {
			t.looked[email] = ""
		}
		for _, u := range users {
			for _, e := range u.Emails {
				if e.Verified { // perhaps not the address that was asked for
					t.looked[e.Address] = u.ID
				}
			}
		}
	}
	return users, err
}

func (a wiredAPI) GetUser(ctx context.Context, id string) (*clerkinvite.User, error) {
	return ask(ctx, clerkinvitetest.CallGetUser, "get user "+id, func() (*clerkinvite.User, error) { return a.api.GetUser(context.Background(), id) })
}

func (a wiredAPI) CreateInvitation(ctx context.Context, r clerkinvite.InvitationRequest) (*clerkinvite.Invitation, error) {
	t := taskOf(ctx)
	rs := []clerkinvite.InvitationRequest{r}
	sent := t.creating(ctx, rs)
	what := "create " + r.Email
	if r.IgnoreExisting {
		what += " with ignore_existing"
	}
	inv, err := ask(ctx, callFor(r.OrganizationID, clerkinvitetest.CallCreate, clerkinvitetest.CallOrganizationCreate), what, func() (*clerkinvite.Invitation, error) {
		inv, err := a.api.CreateInvitation(context.Background(), r)
		t.created(sent)
		return inv, err
	})
	t.refusal(rs, err)
	return inv, err
}

func (a wiredAPI) CreateInvitations(ctx context.Context, rs []clerkinvite.InvitationRequest) ([]clerkinvite.Invitation, error) {
	t := taskOf(ctx)
	sent := t.creating(ctx, rs)
	what := []string{"create in bulk"}
	for _, r := range rs {
		what = append(what, r.Email)
		if r.IgnoreExisting {
			t.failf("bulk: %s sets ignore_existing", t.name)
		}
	}
	invs, err := ask(ctx, callFor(rs[0].OrganizationID, clerkinvitetest.CallCreateBulk, clerkinvitetest.CallOrganizationCreateBulk), strings.Join(what, " "), func() ([]clerkinvite.Invitation, error) {
		invs, err := a.api.CreateInvitations(context.Background(), rs)
		t.created(sent)
		return invs, err
	})
	t.refusal(rs, err)
	return invs, err
}

func (a wiredAPI) ListInvitations(ctx context.Context, q clerkinvite.InvitationQuery) ([]clerkinvite.Invitation, error) {
	call := callFor(q.OrganizationID, clerkinvitetest.CallList, clerkinvitetest.CallOrganizationList)
	if q.AllOrganizations {
		call = clerkinvitetest.CallOrganizationListAll
	}
	return ask(ctx, call, "list "+q.OrganizationID+q.Query+" "+string(q.Status), func() ([]clerkinvite.Invitation, error) { return a.api.ListInvitations(context.Background(), q) })
}

func (a wiredAPI) RevokeInvitation(ctx context.Context, r clerkinvite.RevokeRequest) (*clerkinvite.Invitation, error) {
	t := taskOf(ctx)
	if t.verb.reads() {
		t.failf("reading: %s revokes %s", t.name, r.ID)
	}
	late := false
	inv, err := ask(ctx, callFor(r.OrganizationID, clerkinvitetest.CallRevoke, clerkinvitetest.CallOrganizationRevoke), "revoke "+r.ID, func() (*clerkinvite.Invitation, error) {
		was := a.invitation(r.ID)
		inv, err := a.api.RevokeInvitation(context.Background(), r)
		a.clerkChanged()
		is := a.invitation(r.ID)
		switch {
		case was == nil || was.Status == is.Status:
		case late && r.OrganizationID != "" && slices.Contains(delivering, t.verb): // a resend, whose row may wait for it again
			a.withdrawn[r.ID] = true
		default:
			t.revoked(is)
		}
		return inv, err
	})
	late = true
	t.revokeFailed = t.revokeFailed || err != nil
	var api *clerkinvite.APIError
	t.revokeLimited = t.revokeLimited || errors.As(err, &api) && api.StatusCode == http.StatusTooManyRequests
	return inv, err
}

// statement is a task's call to the store.
func statement[T any](ctx context.Context, what string, do func() (T, error)) (T, error) {
	var none T
	t := taskOf(ctx)
	if ctx.Err() != nil {
		return none, t.over(ctx)
	}
	if what != "gate" && what != "clock" { // these may belong to the request: its limit is stored, its time measured
		t.probes(false)
	}
	f, alive := t.pause(what, func() { _, _ = do() })
	if !alive {
		return none, errDead
	}
	failure := t.over(ctx)
	if failure != nil {
		f = pick(t.sequence, lost, unheard)
	} else if f != fine {
		failure, t.storeFailed = errStore, true
	}
	if f == lost || f == adrift {
		t.sayf("%s: %s fails before its effect", t.name, what)
		return none, failure
	}
	answer, err := do()
	if f == unheard {
		t.sayf("%s: %s fails after its effect", t.name, what)
		return none, failure
	}
	return answer, err
}

// wiredStore is the processes' store.
type wiredStore struct{ *sequence }

func (w wiredStore) Insert(ctx context.Context, rows []*clerkinvite.Member) ([]clerkinvite.Result, error) {
	t := taskOf(ctx)
	if t.verb.reads() {
		t.failf("reading: %s inserts", t.name)
	}
	return statement(ctx, "insert", func() ([]clerkinvite.Result, error) {
		results, err := w.store.insert(rows)
		t.observe(t)
		return results, err
	})
}

func (w wiredStore) Update(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
	t := taskOf(ctx)
	if t.verb.reads() {
		t.failf("reading: %s updates", t.name)
	}
	return statement(ctx, "update", func() ([]clerkinvite.Result, error) {
		before := w.rows
		results, err := w.store.update(changes)
		t.observe(t)
		if err == nil {
			w.compared(before, changes, results)
		}
		return results, err
	})
}

func (w wiredStore) Find(ctx context.Context, q clerkinvite.Query) ([]*clerkinvite.Member, error) {
	t := taskOf(ctx)
	return statement(ctx, "find", func() ([]*clerkinvite.Member, error) {
		t.seen = w.rows
		if t.first == nil {
			t.first = w.rows
		}
		return w.store.find(q)
	})
}

func (w wiredStore) Due(ctx context.Context, q clerkinvite.DueQuery) ([]*clerkinvite.Member, error) {
	return statement(ctx, "find", func() ([]*clerkinvite.Member, error) {
		// The library adds a few random seconds to postponed attempts. To be
		// repeatable, they must not decide the order.
		limit := q.Limit
		q.Limit = 1000
		found, err := w.store.due(q)
		storeutil.InTurns(found, q.AfterTenantID,
			func(m *clerkinvite.Member) (bool, string) { return m.Bulk, m.TenantID },
			func(a, b *clerkinvite.Member) int {
				return cmp.Or(due(a).Compare(due(b)), cmp.Compare(a.TenantID, b.TenantID), cmp.Compare(a.Email, b.Email))
			})
		if limit > 0 {
			found = found[:min(limit, len(found))]
		}
		return found, err
	})
}

func (w wiredStore) Page(ctx context.Context, q clerkinvite.PageQuery) ([]*clerkinvite.Member, error) {
	return statement(ctx, "find", func() ([]*clerkinvite.Member, error) { return w.store.page(q) })
}

func (w wiredStore) Counts(ctx context.Context, tenantID string) (map[clerkinvite.Status]int, error) {
	return statement(ctx, "find", func() (map[clerkinvite.Status]int, error) { return w.store.counts(tenantID) })
}

func due(m *clerkinvite.Member) time.Time {
	if m.NextAttemptAt == nil {
		return time.Time{}
	}
	return m.NextAttemptAt.Truncate(grain)
}

func (w wiredStore) History(ctx context.Context, tenantID, id string) ([]clerkinvite.HistoryEntry, error) {
	return statement(ctx, "history", func() ([]clerkinvite.HistoryEntry, error) { return w.store.history(tenantID, id) })
}

func (w wiredStore) SwapTime(ctx context.Context, name string, old, next time.Time) (time.Time, error) {
	t := taskOf(ctx)
	return statement(ctx, "gate", func() (time.Time, error) {
		known, err := w.store.gate(name, old, next)
		if !next.Equal(old) {
			t.sayf("%s: gate of %s: %v -> %v, it is %v", t.name, name, since{old}, since{next}, since{known})
		}
		// A turn has the name of its endpoint.
		if until, limited := t.limited[name]; limited && err == nil && !known.Before(until) && !next.Before(until) {
			w.closed[name] = closing{until, w.step}
			delete(t.limited, name)
		}
		return known, err
	})
}

// Clock returns the sequence's time, which the clocks of the processes differ from.
func (w wiredStore) Clock(ctx context.Context) (time.Time, error) {
	return statement(ctx, "clock", func() (time.Time, error) { return w.now(), nil })
}

// elsewhere calls a store outside the sequence's clock, which a database does not use.
type elsewhere struct {
	store clerkinvite.Store
	ctx   context.Context //nolint:containedctx // the test's, which ends with the test
	calls chan func()     // nil for a store in memory, which takes no time
	done  chan struct{}
}

func newElsewhere(ctx context.Context, store clerkinvite.Store) *elsewhere {
	e := &elsewhere{store: store, ctx: ctx}
	if _, here := store.(*clerkinvitetest.MemoryStore); here {
		return e
	}
	e.calls, e.done = make(chan func()), make(chan struct{})
	go func() {
		for call := range e.calls {
			call()
			e.done <- struct{}{}
		}
	}()
	return e
}

func (e *elsewhere) close() {
	if e.calls != nil {
		close(e.calls)
	}
}

func (e *elsewhere) do(call func()) {
	if e.calls == nil {
		call()
		return
	}
	e.calls <- call
	<-e.done
}

func (e *elsewhere) insert(rows []*clerkinvite.Member) (results []clerkinvite.Result, err error) {
	e.do(func() { results, err = e.store.Insert(e.ctx, rows) })
	return results, err
}

func (e *elsewhere) update(changes []clerkinvite.Change) (results []clerkinvite.Result, err error) {
	e.do(func() { results, err = e.store.Update(e.ctx, changes) })
	return results, err
}

func (e *elsewhere) find(q clerkinvite.Query) (found []*clerkinvite.Member, err error) {
	e.do(func() { found, err = e.store.Find(e.ctx, q) })
	return found, err
}

func (e *elsewhere) due(q clerkinvite.DueQuery) (found []*clerkinvite.Member, err error) {
	e.do(func() { found, err = e.store.Due(e.ctx, q) })
	return found, err
}

func (e *elsewhere) page(q clerkinvite.PageQuery) (found []*clerkinvite.Member, err error) {
	e.do(func() { found, err = e.store.Page(e.ctx, q) })
	return found, err
}

func (e *elsewhere) counts(tenantID string) (counts map[clerkinvite.Status]int, err error) {
	e.do(func() { counts, err = e.store.Counts(e.ctx, tenantID) })
	return counts, err
}

func (e *elsewhere) history(tenantID, id string) (entries []clerkinvite.HistoryEntry, err error) {
	e.do(func() { entries, err = e.store.History(e.ctx, tenantID, id) })
	return entries, err
}

func (e *elsewhere) gate(name string, old, next time.Time) (known time.Time, err error) {
	e.do(func() { known, err = e.store.SwapTime(e.ctx, name, old, next) })
	return known, err
}
