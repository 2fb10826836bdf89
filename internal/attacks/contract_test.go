package attacks_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// nonsense changes the results of a Store and a ClerkAPI. Each byte of its script decides one result; after the script all
// results are correct.
type nonsense struct {
	clerkinvite.Store
	clerkinvite.ClerkAPI
	script  []byte
	members []*clerkinvite.Member // that were returned before
	calls   int
}

// maxNonsenseCalls is more than any verb needs. A verb that makes more calls is in an endless loop.
const maxNonsenseCalls = 5000

var errNonsense = errors.New("nonsense")

// next returns the decision about the next result, or 0 for a correct result.
func (n *nonsense) next() (decision byte) {
	if n.calls++; n.calls > maxNonsenseCalls {
		panic("a verb does not end")
	}
	if len(n.script) > 0 {
		decision, n.script = n.script[0], n.script[1:]
	}
	return decision
}

func (n *nonsense) member() *clerkinvite.Member {
	if d := int(n.next()); d < len(n.members) {
		return n.members[d].Clone()
	}
	return &clerkinvite.Member{Status: "unknown", ClerkUserID: "pending_"}
}

func (n *nonsense) results(results []clerkinvite.Result, err error) ([]clerkinvite.Result, error) {
	for _, r := range results {
		if r.Member != nil {
			n.members = append(n.members, r.Member)
		}
	}
	if len(results) == 0 || err != nil {
		return results, err
	}
	r := &results[int(n.next())%len(results)]
	switch n.next() {
	case 1:
		return nil, nil
	case 2:
		return results[1:], nil
	case 3:
		return append(results, results[0]), nil
	case 4:
		return results, errNonsense
	case 5:
		*r = clerkinvite.Result{}
	case 6:
		*r = clerkinvite.Result{Err: errNonsense}
	case 7:
		*r = clerkinvite.Result{Err: clerkinvite.ErrConflict}
	case 8:
		*r = clerkinvite.Result{Err: clerkinvite.ErrUserTaken}
	case 9:
		*r = clerkinvite.Result{Err: &clerkinvite.DuplicateEmailError{}}
	case 10:
		*r = clerkinvite.Result{Err: (*clerkinvite.DuplicateEmailError)(nil)}
	case 11:
		*r = clerkinvite.Result{Err: &clerkinvite.DuplicateEmailError{Member: n.member()}}
	case 12:
		r.Member = n.member()
	case 13:
		r.Err = errNonsense
	case 14: // the correct member in an impossible state
		if r.Member != nil {
			*r.Member = clerkinvite.Member{ID: r.Member.ID, TenantID: r.Member.TenantID, Email: r.Member.Email, Status: clerkinvite.Statuses()[int(n.next())%7], Version: int64(n.next())}
		}
	}
	return results, nil
}

func (n *nonsense) list(found []*clerkinvite.Member, err error) ([]*clerkinvite.Member, error) {
	n.members = append(n.members, found...)
	switch n.next() {
	case 1:
		return nil, nil
	case 2:
		return append(found, nil), nil
	case 3:
		return append(found, n.member()), nil
	case 4:
		return found, errNonsense
	case 5:
		return append(found, found...), nil
	case 6:
		return []*clerkinvite.Member{n.member()}, nil
	}
	return found, err
}

func (n *nonsense) Insert(ctx context.Context, rows []*clerkinvite.Member) ([]clerkinvite.Result, error) {
	return n.results(n.Store.Insert(ctx, rows))
}

func (n *nonsense) Update(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
	return n.results(n.Store.Update(ctx, changes))
}

func (n *nonsense) Find(ctx context.Context, q clerkinvite.Query) ([]*clerkinvite.Member, error) {
	return n.list(n.Store.Find(ctx, q))
}

func (n *nonsense) Due(ctx context.Context, q clerkinvite.DueQuery) ([]*clerkinvite.Member, error) {
	return n.list(n.Store.Due(ctx, q))
}

func (n *nonsense) Page(ctx context.Context, q clerkinvite.PageQuery) ([]*clerkinvite.Member, error) {
	return n.list(n.Store.Page(ctx, q))
}

func (n *nonsense) History(ctx context.Context, tenantID, id string) ([]clerkinvite.HistoryEntry, error) {
	if n.next() == 1 {
		return nil, errNonsense
	}
	return n.Store.History(ctx, tenantID, id)
}

func (n *nonsense) Clock(ctx context.Context) (time.Time, error) {
	return n.time(n.Store.Clock(ctx))
}

func (n *nonsense) SwapTime(ctx context.Context, name string, old, next time.Time) (time.Time, error) {
	switch stored, err := n.Store.SwapTime(ctx, name, old, next); n.next() {
	case 9:
		return old, nil
	default:
		return n.time(stored, err)
	}
}

func (n *nonsense) time(t time.Time, err error) (time.Time, error) {
	switch n.next() {
	case 1:
		return time.Time{}, nil
	case 2:
		return time.Unix(int64(n.next())<<int(n.next()%56), 0), nil
	case 3:
		return t, errNonsense
	case 4:
		return t.Add(time.Duration(n.next()) * time.Hour), nil
	}
	return t, err
}

// response changes Clerk's response.
func response[T any](n *nonsense, right T, err error, wrong ...T) (T, error) {
	var zero T
	switch d := int(n.next()); d {
	case 1:
		return zero, nil
	case 2:
		return zero, errNonsense
	case 3:
		return right, (*clerkinvite.APIError)(nil)
	case 4:
		return zero, &clerkinvite.APIError{}
	case 5:
		return right, &clerkinvite.APIError{StatusCode: 100 + 3*int(n.next()), Code: "duplicate_record", RetryAfter: time.Duration(n.next()) * time.Second}
	case 6:
		return zero, &clerkinvite.ClerkInvitationError{}
	case 7:
		return zero, &clerkinvite.DuplicateEmailError{}
	default:
		if d -= 10; d >= 0 && d < len(wrong) {
			return wrong[d], nil
		}
	}
	return right, err
}

var (
	wrongUser       = clerkinvite.User{Emails: []clerkinvite.UserEmail{{}, {Address: "a0@example.com", Verified: true}}}
	wrongInvitation = clerkinvite.Invitation{ID: "inv_x", Email: "a0@example.com", Status: "unknown", PublicMetadata: json.RawMessage(`{"clerkinvite":{"id":7}}`)}
)

func (n *nonsense) FindUsers(ctx context.Context, q clerkinvite.UserQuery) ([]clerkinvite.User, error) {
	users, err := n.ClerkAPI.FindUsers(ctx, q)
	return response(n, users, err, []clerkinvite.User{{}}, []clerkinvite.User{wrongUser}, append(users, users...))
}

func (n *nonsense) GetUser(ctx context.Context, id string) (*clerkinvite.User, error) {
	u, err := n.ClerkAPI.GetUser(ctx, id)
	return response(n, u, err, &clerkinvite.User{}, &wrongUser, &clerkinvite.User{ID: id})
}

func (n *nonsense) CreateInvitation(ctx context.Context, r clerkinvite.InvitationRequest) (*clerkinvite.Invitation, error) {
	inv, err := n.ClerkAPI.CreateInvitation(ctx, r)
	return response(n, inv, err, &clerkinvite.Invitation{}, &wrongInvitation)
}

func (n *nonsense) CreateInvitations(ctx context.Context, rs []clerkinvite.InvitationRequest) ([]clerkinvite.Invitation, error) {
	list, err := n.ClerkAPI.CreateInvitations(ctx, rs)
	return response(n, list, err, []clerkinvite.Invitation{{}}, []clerkinvite.Invitation{wrongInvitation}, append(list, list...), list[:len(list)/2])
}

func (n *nonsense) ListInvitations(ctx context.Context, q clerkinvite.InvitationQuery) ([]clerkinvite.Invitation, error) {
	list, err := n.ClerkAPI.ListInvitations(ctx, q)
	return response(n, list, err, []clerkinvite.Invitation{{}}, []clerkinvite.Invitation{wrongInvitation}, append(list, list...), make([]clerkinvite.Invitation, 500))
}

func (n *nonsense) RevokeInvitation(ctx context.Context, r clerkinvite.RevokeRequest) (*clerkinvite.Invitation, error) {
	inv, err := n.ClerkAPI.RevokeInvitation(ctx, r)
	return response(n, inv, err, &clerkinvite.Invitation{}, &wrongInvitation)
}

// FuzzForeignResults calls every verb with a store and a Clerk that may return anything. No verb panics,
// and each ends.
func FuzzForeignResults(f *testing.F) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		script := make([]byte, 5+random.IntN(200))
		for i := range script {
			if random.IntN(3) == 0 {
				script[i] = byte(random.IntN(15))
			}
		}
		f.Add(script)
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		synctest.Test(t, func(t *testing.T) {
			clerk := clerkinvitetest.NewClerk()
			n := &nonsense{Store: clerkinvitetest.NewMemoryStore(), ClerkAPI: clerk, script: script}
			svc, err := clerkinvite.New(clerkinvite.Config{API: n, Store: n})
			if err != nil {
				t.Fatal(err)
			}
			callEveryVerb(t, svc, clerk, n)
		})
	})
}

// callEveryVerb calls the verbs and reads what they return, as a host would.
func callEveryVerb(t *testing.T, svc *clerkinvite.Service, clerk *clerkinvitetest.Clerk, n *nonsense) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
	defer cancel()
	verb := func(name string, call func() (*clerkinvite.Member, error)) {
		n.calls = 0
		m, err := call()
		if err != nil {
			_ = err.Error()
			clerkinvite.HTTPError(err)
			clerkinvite.RetryAfter(err)
		} else if m == nil {
			t.Errorf("%s returned neither a member nor an error", name)
		}
	}
	some := &clerkinvite.Member{}
	for range 2 {
		clerk.SignUp("a1@example.com", true)
		var people []clerkinvite.InviteParams
		for _, name := range []string{"a0", "a1", "a2", "a3"} {
			p := clerkinvite.InviteParams{TenantID: "acme", Email: name + "@example.com"}
			people = append(people, p)
		}
		ref := clerkinvite.Ref{TenantID: "acme", Email: people[0].Email}
		verb("Reserve", func() (*clerkinvite.Member, error) { return svc.Reserve(ctx, people[3]) })
		verb("Invite", func() (*clerkinvite.Member, error) { return svc.Invite(ctx, people[0]) })
		verb("InviteMany", func() (*clerkinvite.Member, error) {
			results, err := svc.InviteMany(ctx, people, nil)
			if len(results) != len(people) {
				t.Errorf("InviteMany returned %d results", len(results))
			}
			for _, r := range results {
				if err == nil && r.Err == nil && r.Member == nil {
					t.Error("InviteMany has a result with neither a member nor an error")
				}
			}
			return some, err
		})
		verb("ReserveMany", func() (*clerkinvite.Member, error) {
			_, err := svc.ReserveMany(ctx, people)
			return some, err
		})
		verb("Deliver", func() (*clerkinvite.Member, error) {
			_, err := svc.Deliver(ctx, &clerkinvite.DeliverOptions{Limit: 20})
			return some, err
		})
		verb("DeliverMembers", func() (*clerkinvite.Member, error) {
			_, err := svc.DeliverMembers(ctx, []clerkinvite.Ref{ref})
			return some, err
		})
		verb("Get", func() (*clerkinvite.Member, error) { return svc.Get(ctx, ref) })
		verb("List", func() (*clerkinvite.Member, error) {
			page, err := svc.List(ctx, clerkinvite.ListParams{TenantID: "acme", Limit: 1})
			if err == nil && len(page.Members) > 1 {
				t.Error("a page is longer than its limit")
			}
			return some, err
		})
		verb("History", func() (*clerkinvite.Member, error) {
			_, err := svc.History(ctx, ref)
			return some, err
		})
		verb("Update", func() (*clerkinvite.Member, error) {
			return svc.Update(ctx, ref, clerkinvite.MemberUpdate{Role: new(string)})
		})
		time.Sleep(2 * time.Minute) // in the bubble
		verb("Resend", func() (*clerkinvite.Member, error) { return svc.Resend(ctx, ref) })
		verb("ResolveUser", func() (*clerkinvite.Member, error) {
			_, err := svc.ResolveUser(ctx, "user_000001")
			return some, err
		})
		verb("HandleEvent", func() (*clerkinvite.Member, error) {
			_, err := svc.HandleEvent(ctx, &clerkinvite.Event{Type: clerkinvite.EventUserDeleted, UserID: "user_000001"})
			return some, err
		})
		verb("Reconcile", func() (*clerkinvite.Member, error) {
			_, err := svc.Reconcile(ctx, &clerkinvite.ReconcileOptions{Limit: 20})
			return some, err
		})
		verb("Revoke", func() (*clerkinvite.Member, error) { return svc.Revoke(ctx, ref) })
		verb("Remove", func() (*clerkinvite.Member, error) { return svc.Remove(ctx, ref) })
		verb("Purge", func() (*clerkinvite.Member, error) { return some, svc.Purge(ctx, ref) })
	}
}

// spoiltStore is a store whose results are changed before the service gets them.
type spoiltStore struct {
	clerkinvite.Store
	insert  func([]clerkinvite.Result) []clerkinvite.Result
	update  func([]clerkinvite.Result) []clerkinvite.Result
	members func([]*clerkinvite.Member) []*clerkinvite.Member
	swap    func(old time.Time) time.Time
	swaps   int
}

func (s *spoiltStore) Insert(ctx context.Context, rows []*clerkinvite.Member) ([]clerkinvite.Result, error) {
	results, err := s.Store.Insert(ctx, rows)
	return spoil(s.insert, results), err
}

func (s *spoiltStore) Update(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
	results, err := s.Store.Update(ctx, changes)
	return spoil(s.update, results), err
}

func (s *spoiltStore) Find(ctx context.Context, q clerkinvite.Query) ([]*clerkinvite.Member, error) {
	found, err := s.Store.Find(ctx, q)
	return spoil(s.members, found), err
}

func (s *spoiltStore) Due(ctx context.Context, q clerkinvite.DueQuery) ([]*clerkinvite.Member, error) {
	found, err := s.Store.Due(ctx, q)
	return spoil(s.members, found), err
}

func (s *spoiltStore) Page(ctx context.Context, q clerkinvite.PageQuery) ([]*clerkinvite.Member, error) {
	found, err := s.Store.Page(ctx, q)
	return spoil(s.members, found), err
}

func (s *spoiltStore) SwapTime(ctx context.Context, name string, old, next time.Time) (time.Time, error) {
	stored, err := s.Store.SwapTime(ctx, name, old, next)
	if s.swap != nil {
		stored = s.swap(old)
	}
	if s.swaps++; s.swaps > 100 {
		return stored, errors.New("an endless loop")
	}
	return stored, err
}

func spoil[T any](f func(T) T, v T) T {
	if f == nil {
		return v
	}
	return f(v)
}

// A store that breaks its contract gets an error that names its method, and no panic.
func TestContract_Store(t *testing.T) {
	t.Parallel()
	invite := func(svc *clerkinvite.Service) error {
		_, err := svc.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "new@example.com"})
		return err
	}
	inTx := func(store *spoiltStore) func(*clerkinvite.Service) error {
		return func(svc *clerkinvite.Service) error {
			_, err := svc.InTx(store).Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "new@example.com"})
			return err
		}
	}
	deliver := func(svc *clerkinvite.Service) error {
		_, err := svc.Deliver(t.Context(), nil)
		return err
	}
	update := func(svc *clerkinvite.Service) error {
		_, err := svc.Update(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "there@example.com"}, clerkinvite.MemberUpdate{Role: new(string)})
		return err
	}
	stranger := &clerkinvite.Member{ID: "1", TenantID: "globex", Email: "new@example.com"}
	only := func(r clerkinvite.Result) func([]clerkinvite.Result) []clerkinvite.Result {
		return func([]clerkinvite.Result) []clerkinvite.Result { return []clerkinvite.Result{r} }
	}
	none := func([]clerkinvite.Result) []clerkinvite.Result { return nil }
	withNil := func([]*clerkinvite.Member) []*clerkinvite.Member { return []*clerkinvite.Member{nil} }
	transactional := &spoiltStore{Store: clerkinvitetest.NewMemoryStore(), insert: none}

	for name, tc := range map[string]struct {
		store *spoiltStore
		call  func(*clerkinvite.Service) error
		want  string
	}{
		"no results of Insert":       {&spoiltStore{insert: none}, invite, "clerkinvite: Store.Insert returned 0 results instead of 1"},
		"in a transaction":           {transactional, inTx(transactional), "clerkinvite: Store.Insert returned 0 results instead of 1"},
		"too many results of Insert": {&spoiltStore{insert: func(rs []clerkinvite.Result) []clerkinvite.Result { return append(rs, rs...) }}, invite, "clerkinvite: Store.Insert returned 2 results instead of 1"},
		"neither member nor error":   {&spoiltStore{insert: only(clerkinvite.Result{})}, invite, "clerkinvite: Store.Insert: result 0 has no member"},
		"a duplicate without member": {&spoiltStore{insert: only(clerkinvite.Result{Err: &clerkinvite.DuplicateEmailError{}})}, invite, "clerkinvite: Store.Insert: result 0, a duplicate, has no member"},
		"a nil duplicate":            {&spoiltStore{insert: only(clerkinvite.Result{Err: (*clerkinvite.DuplicateEmailError)(nil)})}, invite, "clerkinvite: Store.Insert: result 0, a duplicate, has no member"},
		"a stranger as duplicate":    {&spoiltStore{insert: only(clerkinvite.Result{Err: &clerkinvite.DuplicateEmailError{Member: stranger}})}, invite, "clerkinvite: Store.Insert: result 0, a duplicate, has a different member than the input"},
		"a stranger inserted":        {&spoiltStore{insert: only(clerkinvite.Result{Member: stranger})}, invite, "clerkinvite: Store.Insert: result 0 has a different member than the input"},
		"no results of Update":       {&spoiltStore{update: none}, update, "clerkinvite: Store.Update returned 0 results instead of 1"},
		"a nil error as result":      {&spoiltStore{update: only(clerkinvite.Result{Err: nilError()})}, update, "clerkinvite: Store.Update: result 0 has a nil pointer as its error"},
		"no updated member":          {&spoiltStore{update: only(clerkinvite.Result{})}, update, "clerkinvite: Store.Update: result 0 has no member"},
		"a stranger updated":         {&spoiltStore{update: only(clerkinvite.Result{Member: stranger})}, update, "clerkinvite: Store.Update: result 0 has a different member than the input"},
		"a nil member found":         {&spoiltStore{members: withNil}, update, "clerkinvite: Store.Find: result 0 has no member"},
		"a nil member due":           {&spoiltStore{members: withNil}, deliver, "clerkinvite: Store.Due: result 0 has no member"},
		"a nil member of a page": {&spoiltStore{members: withNil}, func(svc *clerkinvite.Service) error {
			_, err := svc.List(t.Context(), clerkinvite.ListParams{TenantID: "acme"})
			return err
		}, "clerkinvite: Store.Page: result 0 has no member"},
		"no time is ever stored":   {&spoiltStore{swap: func(time.Time) time.Time { return time.Time{} }}, deliver, "clerkinvite: Store.SwapTime returned the old time without replacing it"},
		"always the same time":     {&spoiltStore{swap: func(time.Time) time.Time { return time.Unix(1, 0) }}, deliver, "clerkinvite: Store.SwapTime returned the old time without replacing it"},
		"the old time, every time": {&spoiltStore{swap: func(old time.Time) time.Time { return old }}, deliver, "clerkinvite: Store.SwapTime returned the old time without replacing it"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := clerkinvitetest.NewMemoryStore()
			api := clerkinvitetest.NewClerk()
			good, err := clerkinvite.New(clerkinvite.Config{API: api, Store: store})
			require.NoError(t, err)
			_, err = good.Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "there@example.com"})
			require.NoError(t, err)

			tc.store.Store = store
			svc, err := clerkinvite.New(clerkinvite.Config{API: api, Store: tc.store})
			require.NoError(t, err)
			require.EqualError(t, tc.call(svc), tc.want)
			require.Zero(t, api.Emails())
		})
	}
}

// nilErrors is a store whose methods return a nil pointer as their error, except the one to set the clock.
type nilErrors struct{ clerkinvite.Store }

func nilError() error { return (*clerkinvite.InvalidParamsError)(nil) }

func (nilErrors) Insert(context.Context, []*clerkinvite.Member) ([]clerkinvite.Result, error) {
	return nil, nilError()
}

func (nilErrors) Update(context.Context, []clerkinvite.Change) ([]clerkinvite.Result, error) {
	return nil, nilError()
}

func (nilErrors) Find(context.Context, clerkinvite.Query) ([]*clerkinvite.Member, error) {
	return nil, nilError()
}

func (nilErrors) Due(context.Context, clerkinvite.DueQuery) ([]*clerkinvite.Member, error) {
	return nil, nilError()
}

func (nilErrors) Page(context.Context, clerkinvite.PageQuery) ([]*clerkinvite.Member, error) {
	return nil, nilError()
}

func (nilErrors) Counts(context.Context, string) (map[clerkinvite.Status]int, error) {
	return nil, nilError()
}

func (nilErrors) History(context.Context, string, string) ([]clerkinvite.HistoryEntry, error) {
	return nil, nilError()
}

// A nil pointer as a store's error gets an error that names the method, so that nothing reads its fields.
func TestContract_NilErrorsOfTheStore(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	svc, err := clerkinvite.New(clerkinvite.Config{API: clerkinvitetest.NewClerk(), Store: nilErrors{clerkinvitetest.NewMemoryStore()}})
	require.NoError(t, err)
	for method, call := range map[string]func() error{
		"Insert": func() error {
			_, err := svc.Invite(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"})
			return err
		},
		"Find": func() error {
			_, err := svc.ByUser(ctx, "user_1")
			return err
		},
		"Due": func() error {
			_, err := svc.Deliver(ctx, nil)
			return err
		},
		"Page": func() error {
			_, err := svc.List(ctx, clerkinvite.ListParams{TenantID: "acme"})
			return err
		},
		"Counts": func() error {
			_, err := svc.Counts(ctx, "acme")
			return err
		},
	} {
		err := call()
		require.EqualError(t, err, "clerkinvite: Store."+method+" returned a nil pointer as its error")
		status, _ := clerkinvite.HTTPError(err)
		require.Equal(t, 500, status)
	}
}

// A ClerkAPI that returns nothing gets an error that names its method, and no panic.
func TestContract_ClerkAPI(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	ada := clerkinvite.Ref{TenantID: "acme", Email: "ada@example.com"}
	var nilError *clerkinvite.APIError
	created := func(context.Context, clerkinvite.InvitationRequest) (*clerkinvite.Invitation, error) {
		return &clerkinvite.Invitation{ID: "inv_1"}, nil
	}
	noUsers := func(context.Context, clerkinvite.UserQuery) ([]clerkinvite.User, error) { return nil, nil }
	invite := func(svc *clerkinvite.Service) error {
		_, err := svc.Invite(ctx, clerkinvite.InviteParams{TenantID: ada.TenantID, Email: ada.Email})
		return err
	}
	for name, tc := range map[string]struct {
		api     clerkinvitetest.ClerkFuncs
		call    func(*clerkinvite.Service) error
		outcome clerkinvite.Outcome
		want    string
	}{
		"no invitation created": {
			clerkinvitetest.ClerkFuncs{FindUsersFunc: noUsers, CreateInvitationFunc: func(context.Context, clerkinvite.InvitationRequest) (*clerkinvite.Invitation, error) {
				return nil, nil //nolint:nilnil // as a mock without a return value
			}}, invite, clerkinvite.OutcomeUncertain, "clerk: no response: ClerkAPI.CreateInvitation returned nil without an error",
		},
		"a nil error": {
			clerkinvitetest.ClerkFuncs{FindUsersFunc: func(context.Context, clerkinvite.UserQuery) ([]clerkinvite.User, error) {
				return nil, nilError //nolint:nilness // an error that is not nil
			}}, invite, clerkinvite.OutcomeFault, "clerk: no response: ClerkAPI.FindUsers returned a nil pointer as its error",
		},
		"a wrapped nil error": {
			clerkinvitetest.ClerkFuncs{FindUsersFunc: func(context.Context, clerkinvite.UserQuery) ([]clerkinvite.User, error) {
				return nil, fmt.Errorf("mock: %w", nilError)
			}}, invite, clerkinvite.OutcomeFault, "clerk: no response: ClerkAPI.FindUsers returned a nil pointer as its error",
		},
		"a joined nil error": {
			clerkinvitetest.ClerkFuncs{FindUsersFunc: func(context.Context, clerkinvite.UserQuery) ([]clerkinvite.User, error) {
				return nil, errors.Join(errors.New("mock"), nilError)
			}}, invite, clerkinvite.OutcomeFault, "clerk: no response: ClerkAPI.FindUsers returned a nil pointer as its error",
		},
		"no user": {
			clerkinvitetest.ClerkFuncs{GetUserFunc: func(context.Context, string) (*clerkinvite.User, error) {
				return nil, nil //nolint:nilnil // as a mock without a return value
			}}, func(svc *clerkinvite.Service) error {
				_, err := svc.ResolveUser(ctx, "user_1")
				return err
			}, clerkinvite.OutcomeFault, "clerk: no response: ClerkAPI.GetUser returned nil without an error",
		},
		"no invitation revoked": {
			clerkinvitetest.ClerkFuncs{FindUsersFunc: noUsers, CreateInvitationFunc: created, RevokeInvitationFunc: func(context.Context, clerkinvite.RevokeRequest) (*clerkinvite.Invitation, error) {
				return nil, nil //nolint:nilnil // as a mock without a return value
			}}, func(svc *clerkinvite.Service) error {
				require.NoError(t, invite(svc))
				_, err := svc.Revoke(ctx, ada)
				return err
			}, clerkinvite.OutcomeFault, "clerk: no response: ClerkAPI.RevokeInvitation returned nil without an error",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			svc, err := clerkinvite.New(clerkinvite.Config{API: tc.api, Store: clerkinvitetest.NewMemoryStore()})
			require.NoError(t, err)
			err = tc.call(svc)
			var failed *clerkinvite.ClerkInvitationError
			require.ErrorAs(t, err, &failed)
			assert.Equal(t, tc.outcome, failed.Outcome)
			require.EqualError(t, failed.Err, tc.want)
		})
	}
}

// A host's mock can return every type of error: all fields are exported.
func TestContract_ErrorsCanBeBuilt(t *testing.T) {
	t.Parallel()
	member := &clerkinvite.Member{ID: "1", TenantID: "acme", Email: "ada@example.com", Status: clerkinvite.StatusPending}
	built := map[string]struct {
		err    error
		status int
	}{
		"DuplicateEmailError":  {&clerkinvite.DuplicateEmailError{Ref: member.Ref(), Member: member}, 409},
		"ClerkInvitationError": {&clerkinvite.ClerkInvitationError{Op: "create invitation", Outcome: clerkinvite.OutcomeRefused, Member: member, Err: io.ErrUnexpectedEOF}, 422},
		"APIError":             {&clerkinvite.APIError{StatusCode: 429, Code: "too_many_requests", RetryAfter: time.Minute}, 502},
		"InvalidParamsError":   {&clerkinvite.InvalidParamsError{Field: "Email", Reason: "is empty"}, 422},
		"TransitionError":      {&clerkinvite.TransitionError{From: clerkinvite.StatusActive, To: clerkinvite.StatusRevoked}, 409},
		"CooldownError":        {&clerkinvite.CooldownError{Until: time.Unix(1, 0)}, 429},
	}
	files, err := filepath.Glob(root + "/*.go")
	require.NoError(t, err)
	declared := regexp.MustCompile(`(?m)^func \(\w+ \*?([A-Z]\w+)\) Error\(\) string`)
	found := 0
	for _, file := range files {
		source, err := os.ReadFile(file) // #nosec G304 -- a file of the root package
		require.NoError(t, err)
		for _, name := range declared.FindAllStringSubmatch(string(source), -1) {
			if !strings.HasSuffix(file, "_test.go") {
				found++
				require.Contains(t, built, name[1])
			}
		}
	}
	require.Len(t, built, found)

	for name, b := range built {
		wrapped := fmt.Errorf("mock: %w", b.err)
		status, message := clerkinvite.HTTPError(wrapped)
		assert.Equal(t, b.status, status, name)
		assert.NotEmpty(t, message, name)
		require.ErrorIs(t, wrapped, b.err, name)
		require.NotEmpty(t, b.err.Error(), name)
	}
}
