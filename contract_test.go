package clerkinvite_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// spoiltStore is a store whose results are changed before the service sees them.
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

// A ClerkAPI that returns nothing gets an error that names its method, and no panic.
func TestContract_ClerkAPI(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	ada := clerkinvite.Ref{TenantID: "acme", Email: "ada@example.com"}
	var nilError *clerkinvite.APIError
	created := func(context.Context, clerkinvite.InvitationRequest) (*clerkinvite.Invitation, error) {
		return &clerkinvite.Invitation{ID: "inv_1"}, nil
	}
	nobody := func(context.Context, clerkinvite.UserQuery) ([]clerkinvite.User, error) { return nil, nil }
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
			clerkinvitetest.ClerkFuncs{FindUsersFunc: nobody, CreateInvitationFunc: func(context.Context, clerkinvite.InvitationRequest) (*clerkinvite.Invitation, error) {
				return nil, nil //nolint:nilnil // as a mock without a return value
			}}, invite, clerkinvite.Uncertain, "clerk: no response: ClerkAPI.CreateInvitation returned nil without an error",
		},
		"a nil error": {
			clerkinvitetest.ClerkFuncs{FindUsersFunc: func(context.Context, clerkinvite.UserQuery) ([]clerkinvite.User, error) {
				return nil, nilError //nolint:nilness // an error that is not nil
			}}, invite, clerkinvite.Fault, "clerk: no response: ClerkAPI.FindUsers returned a nil pointer as its error",
		},
		"no user": {
			clerkinvitetest.ClerkFuncs{GetUserFunc: func(context.Context, string) (*clerkinvite.User, error) {
				return nil, nil //nolint:nilnil // as a mock without a return value
			}}, func(svc *clerkinvite.Service) error {
				_, err := svc.ResolveUser(ctx, "user_1")
				return err
			}, clerkinvite.Fault, "clerk: no response: ClerkAPI.GetUser returned nil without an error",
		},
		"no invitation revoked": {
			clerkinvitetest.ClerkFuncs{FindUsersFunc: nobody, CreateInvitationFunc: created, RevokeInvitationFunc: func(context.Context, string) (*clerkinvite.Invitation, error) {
				return nil, nil //nolint:nilnil // as a mock without a return value
			}}, func(svc *clerkinvite.Service) error {
				require.NoError(t, invite(svc))
				_, err := svc.Revoke(ctx, ada)
				return err
			}, clerkinvite.Fault, "clerk: no response: ClerkAPI.RevokeInvitation returned nil without an error",
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
		"ClerkInvitationError": {&clerkinvite.ClerkInvitationError{Op: "create invitation", Outcome: clerkinvite.Refused, Member: member, Err: io.ErrUnexpectedEOF}, 422},
		"APIError":             {&clerkinvite.APIError{StatusCode: 429, Code: "too_many_requests", RetryAfter: time.Minute}, 502},
		"InvalidParamsError":   {&clerkinvite.InvalidParamsError{Field: "Email", Reason: "is empty"}, 422},
		"TransitionError":      {&clerkinvite.TransitionError{From: clerkinvite.StatusActive, To: clerkinvite.StatusRevoked}, 409},
		"CooldownError":        {&clerkinvite.CooldownError{Until: time.Unix(1, 0)}, 429},
	}
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	declared := regexp.MustCompile(`(?m)^func \(\w+ \*?([A-Z]\w+)\) Error\(\) string`)
	found := 0
	for _, file := range files {
		source, err := os.ReadFile(file) // #nosec G304 -- a file of this package
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
