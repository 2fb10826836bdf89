package clerkinvitetest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// twins are two fakes, one called directly and one through the real adapter.
type twins struct {
	direct, behind *clerkinvitetest.Clerk
	adapter        fullAPI
	clock          *clerkinvitetest.Clock
}

func newTwins(t *testing.T, b clerkinvitetest.Behavior) *twins {
	t.Helper()
	direct, k := newClerk()
	behind, _ := newClerk()
	behind.SetNow(k.Now)
	direct.SetBehavior(b)
	behind.SetBehavior(b)
	return &twins{direct, behind, throughHTTP(t, behind), k}
}

// step does the same with both, and requires the same result.
func (w *twins) step(t *testing.T, what string, do func(c *clerkinvitetest.Clerk, api fullAPI) (any, error)) {
	t.Helper()
	// Texts of failures below HTTP differ, and trace IDs are serial numbers.
	normalized := func(err error) error {
		var api *clerkinvite.APIError
		if errors.As(err, &api) {
			api.TraceID = strconv.FormatBool(api.TraceID != "")
			if api.Err != nil {
				api.Err = errors.New("some")
			}
		}
		return err
	}
	w.clock.Advance(time.Second)
	want, wantErr := do(w.direct, w.direct)
	got, gotErr := do(w.behind, w.adapter)
	require.Equal(t, wantErr == nil, gotErr == nil, "%s: %v, %v", what, wantErr, gotErr)
	if wantErr != nil {
		require.Equal(t, normalized(wantErr), normalized(gotErr), what)
		return
	}
	require.Equal(t, want, got, what)
}

// The same calls, made directly and through the real adapter, with each behavior, have the
// same responses and errors.
func TestDirectAndHTTPAreTheSame(t *testing.T) {
	t.Parallel()
	for _, b := range clerkinvitetest.Behaviors() {
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			w := newTwins(t, b.Behavior)
			step := func(what string, do func(c *clerkinvitetest.Clerk, api clerkinvite.ClerkAPI) (any, error)) {
				t.Helper()
				w.step(t, what, func(c *clerkinvitetest.Clerk, api fullAPI) (any, error) { return do(c, api) })
			}
			create := func(r clerkinvite.InvitationRequest) {
				t.Helper()
				step("create", func(_ *clerkinvitetest.Clerk, api clerkinvite.ClerkAPI) (any, error) {
					return api.CreateInvitation(t.Context(), r)
				})
			}
			bulk := func(rs ...clerkinvite.InvitationRequest) {
				t.Helper()
				step("bulk", func(_ *clerkinvitetest.Clerk, api clerkinvite.ClerkAPI) (any, error) {
					return api.CreateInvitations(t.Context(), rs)
				})
			}
			list := func(q clerkinvite.InvitationQuery) {
				t.Helper()
				step("list", func(_ *clerkinvitetest.Clerk, api clerkinvite.ClerkAPI) (any, error) {
					return api.ListInvitations(t.Context(), q)
				})
			}
			find := func(q clerkinvite.UserQuery) {
				t.Helper()
				step("find", func(_ *clerkinvitetest.Clerk, api clerkinvite.ClerkAPI) (any, error) {
					return api.FindUsers(t.Context(), q)
				})
			}
			revoke := func(id string) {
				t.Helper()
				step("revoke", func(_ *clerkinvitetest.Clerk, api clerkinvite.ClerkAPI) (any, error) {
					return api.RevokeInvitation(t.Context(), clerkinvite.RevokeRequest{ID: id})
				})
			}
			arrange := func(do func(c *clerkinvitetest.Clerk) any) {
				t.Helper()
				step("arrange", func(c *clerkinvitetest.Clerk, _ clerkinvite.ClerkAPI) (any, error) { return do(c), nil })
			}
			everything := func() {
				t.Helper()
				for _, status := range []clerkinvite.InvitationStatus{"", clerkinvite.InvitationPending, clerkinvite.InvitationAccepted, clerkinvite.InvitationRevoked, clerkinvite.InvitationExpired} {
					list(clerkinvite.InvitationQuery{Status: status})
					list(clerkinvite.InvitationQuery{Status: status, NewestFirst: true})
				}
				find(clerkinvite.UserQuery{
					Emails: []string{ada, "grace@example.com", "victim@example.com", "unknown@example.com"}, IDs: []string{"user_000001", "user_000003", "user_x"},
				})
				arrange(func(c *clerkinvitetest.Clerk) any { return c.SentMail() })
			}

			arrange(func(c *clerkinvitetest.Clerk) any { return c.AddVerifiedUser("Grace@Example.com") })
			arrange(func(c *clerkinvitetest.Clerk) any {
				return c.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{{Address: "victim@example.com"}, {Address: "v@example.com", Verified: true}}, Primary: -1})
			})
			arrange(func(c *clerkinvitetest.Clerk) any {
				return c.CreateForeign("foreign@example.com", map[string]any{"clerkinvite": "no"})
			})
			create(clerkinvite.InvitationRequest{Email: "Ada@example.com", PublicMetadata: json.RawMessage(`{ "n": 12345678901234567890, "h": "<&>" }`), ExpiresInDays: 7, RedirectURL: "https://app.example.com/", Template: "waitlist_invitation"})
			create(clerkinvite.InvitationRequest{Email: ada})
			create(clerkinvite.InvitationRequest{Email: ada, IgnoreExisting: true, SkipEmail: true})
			create(clerkinvite.InvitationRequest{Email: "grace@example.com"})
			create(clerkinvite.InvitationRequest{Email: "grace@example.com", IgnoreExisting: true})
			create(clerkinvite.InvitationRequest{Email: "victim@example.com"})
			create(clerkinvite.InvitationRequest{Email: "foreign@example.com"})
			everything()
			for _, r := range []clerkinvite.InvitationRequest{
				{Email: "x"}, {Email: "x y@example.com"}, {Email: "x@y"}, {Email: "x@example.com", ExpiresInDays: 366}, {Email: "x@example.com", ExpiresInDays: -1},
				{Email: "x@example.com", Template: "t"}, {Email: "x@example.com", RedirectURL: "x"}, {Email: "x@example.com", PublicMetadata: json.RawMessage(`[]`)},
				{Email: "x@example.com", PublicMetadata: json.RawMessage{}}, {Email: "x@example.com", PublicMetadata: json.RawMessage(`{"a":"` + strings.Repeat("x", 8192) + `"}`)},
			} {
				create(r)
				bulk(clerkinvite.InvitationRequest{Email: "y@example.com", IgnoreExisting: true}, r)
			}
			bulk()
			bulk(make([]clerkinvite.InvitationRequest, 11)...)
			bulk(clerkinvite.InvitationRequest{Email: "x@example.com"}, clerkinvite.InvitationRequest{Email: "X@example.com"})
			bulk(clerkinvite.InvitationRequest{Email: "b1@example.com"}, clerkinvite.InvitationRequest{Email: "b2@example.com", PublicMetadata: json.RawMessage(`{"a":1}`)}, clerkinvite.InvitationRequest{Email: "b3@example.com"})
			bulk(clerkinvite.InvitationRequest{Email: "b4@example.com"}, clerkinvite.InvitationRequest{Email: "b1@example.com"}, clerkinvite.InvitationRequest{Email: ada})
			bulk(clerkinvite.InvitationRequest{Email: "b5@example.com"}, clerkinvite.InvitationRequest{Email: "grace@example.com"})
			bulk(clerkinvite.InvitationRequest{Email: "b5@example.com", IgnoreExisting: true}, clerkinvite.InvitationRequest{Email: "grace@example.com", IgnoreExisting: true})
			everything()
			arrange(func(c *clerkinvitetest.Clerk) any { c.Settle(); return c.Emails() })
			everything()

			arrange(func(c *clerkinvitetest.Clerk) any { w, err := c.Accept(ada); return []any{w, err} })
			arrange(func(c *clerkinvitetest.Clerk) any { w, err := c.Accept("grace@example.com"); return []any{w, err} })
			arrange(func(c *clerkinvitetest.Clerk) any { w, err := c.Accept("b2@example.com"); return []any{w, err} })
			arrange(func(c *clerkinvitetest.Clerk) any { return c.SignUp("b3@example.com", true) })
			arrange(func(c *clerkinvitetest.Clerk) any { return c.DeleteUser("user_000002") })
			list(clerkinvite.InvitationQuery{Query: "b1@example.com"})
			list(clerkinvite.InvitationQuery{Query: "b1"})
			list(clerkinvite.InvitationQuery{Query: "inv_000001", Limit: 1})
			list(clerkinvite.InvitationQuery{Limit: 2, Offset: 3})
			list(clerkinvite.InvitationQuery{Limit: 2, Offset: 3, NewestFirst: true})
			list(clerkinvite.InvitationQuery{Limit: 501})
			list(clerkinvite.InvitationQuery{Status: "open"})
			list(clerkinvite.InvitationQuery{Offset: -1})
			find(clerkinvite.UserQuery{})
			find(clerkinvite.UserQuery{Emails: []string{""}})
			find(clerkinvite.UserQuery{IDs: []string{"-user"}})
			find(clerkinvite.UserQuery{IDs: make([]string, 101)})
			for _, id := range []string{"inv_000002", "inv_000002", "inv_000003", "inv_999999", "../x", ""} {
				revoke(id)
			}
			w.clock.Advance(40 * 24 * time.Hour)
			revoke("inv_000006")
			arrange(func(c *clerkinvitetest.Clerk) any { c.Settle(); return c.Invitations(ada) })
			everything()
			require.Equal(t, w.direct.Requests(), w.behind.Requests())
		})
	}
}

func TestInvitationsExpire(t *testing.T) {
	t.Parallel()
	c, k := newClerk()
	inv := mustCreate(t, c, ada)
	require.Equal(t, start.AddDate(0, 0, 30), *inv.ExpiresAt)
	require.Equal(t, start, inv.CreatedAt)
	k.Advance(30*24*time.Hour - time.Millisecond)
	require.Len(t, c.OpenInvitations(ada), 1)
	k.Advance(time.Millisecond)
	require.Empty(t, c.OpenInvitations(ada))
	require.Equal(t, clerkinvite.InvitationExpired, c.Invitations(ada)[0].Status)
	_, err := c.Accept(ada)
	require.ErrorContains(t, err, "no pending invitation")
	_, err = c.AcceptInvitation(inv.ID)
	require.ErrorContains(t, err, "is expired")

	second := mustCreate(t, c, ada) // does not block
	c.ExpireNow(second.ID)
	require.Empty(t, c.OpenInvitations(ada))
	third := mustCreate(t, c, ada)
	c.RevokeInDashboard(third.ID)
	require.Equal(t, clerkinvite.InvitationRevoked, c.Invitations(ada)[2].Status)
	c.RevokeInDashboard(inv.ID)
	require.Equal(t, clerkinvite.InvitationRevoked, c.Invitations(ada)[0].Status)
	require.Panics(t, func() { c.ExpireNow("inv_x") })
}

// Pages by offset are complete, even among invitations with the same time. With NewestFirst,
// a new invitation between two pages repeats an earlier one and hides none.
func TestPagesOfInvitations(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, c *clerkinvitetest.Clerk, k *clerkinvitetest.Clock, api clerkinvite.ClerkAPI) {
		var oldest []string
		for i := range 7 {
			if i == 2 || i == 6 { // 2, then 4, then 1 with the same time
				k.Advance(time.Second)
			}
			oldest = append(oldest, mustCreate(t, c, fmt.Sprintf("p%d@example.com", i)).ID)
		}
		newest := slices.Clone(oldest)
		slices.Reverse(newest)
		page := func(q clerkinvite.InvitationQuery) (ids []string) {
			t.Helper()
			invs, err := api.ListInvitations(t.Context(), q)
			require.NoError(t, err)
			for _, inv := range invs {
				ids = append(ids, inv.ID)
			}
			return ids
		}
		for limit := 1; limit <= 8; limit++ {
			var up, down []string
			for offset := 0; offset < 7; offset += limit {
				up = append(up, page(clerkinvite.InvitationQuery{Limit: limit, Offset: offset})...)
				down = append(down, page(clerkinvite.InvitationQuery{Limit: limit, Offset: offset, NewestFirst: true})...)
			}
			require.Equal(t, oldest, up)
			require.Equal(t, newest, down)
		}

		first := page(clerkinvite.InvitationQuery{Limit: 3, NewestFirst: true})
		added := mustCreate(t, c, "p7@example.com").ID // with the same time as the newest
		require.Equal(t, newest[2:5], page(clerkinvite.InvitationQuery{Limit: 3, Offset: 3, NewestFirst: true}))
		require.Equal(t, newest[:3], first)
		require.Equal(t, append([]string{added}, newest...), page(clerkinvite.InvitationQuery{NewestFirst: true}))
		require.Equal(t, append(oldest, added), page(clerkinvite.InvitationQuery{}), "at the end, without shifting others")
	})
}

func TestForeignInvitations(t *testing.T) {
	t.Parallel()
	c, _ := newClerk()
	inv := c.CreateForeign("Ada@example.com", map[string]any{"app": "other"})
	require.JSONEq(t, `{"app":"other"}`, string(inv.PublicMetadata))
	require.Zero(t, c.Emails())
	require.Zero(t, c.EmailsTo(ada))
	require.Zero(t, c.RequestCount())
	_, err := c.CreateInvitation(t.Context(), clerkinvite.InvitationRequest{Email: ada})
	requireRefused(t, err, 400, "duplicate_record")
	_, err = c.CreateInvitation(t.Context(), clerkinvite.InvitationRequest{Email: ada, IgnoreExisting: true})
	require.NoError(t, err)
	require.Len(t, c.OpenInvitations(ada), 2)
	require.Equal(t, inv.ID, c.Invitations(ada)[0].ID, "oldest first")
	require.JSONEq(t, `{}`, string(c.CreateForeign("b@example.com", nil).PublicMetadata))
}

// Of many concurrent creates for one address, one succeeds, and counts are exact.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	c := clerkinvitetest.NewClerk()
	adapter := throughHTTP(t, c)
	c.SetLimits(clerkinvitetest.Limits{All: clerkinvitetest.Limit{Requests: 1 << 30, Per: time.Hour}, Sliding: true})
	const addresses, workers = 50, 2000
	created := make([]int, addresses)
	ids := make(map[string]bool)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for n := range workers {
		wg.Go(func() {
			i := n % addresses
			email := fmt.Sprintf("p%d@example.com", i)
			api := clerkinvite.ClerkAPI(c)
			if n < 200 {
				api = adapter
			}
			inv, err := api.CreateInvitation(t.Context(), clerkinvite.InvitationRequest{Email: email})
			if err == nil {
				mu.Lock()
				defer mu.Unlock()
				created[i]++
				ids[inv.ID] = true
				return
			}
			switch n % 6 {
			case 0:
				_, err = api.FindUsers(t.Context(), clerkinvite.UserQuery{Emails: []string{email}})
			case 1:
				_, err = api.ListInvitations(t.Context(), clerkinvite.InvitationQuery{Query: email})
			case 2:
				_ = c.SignUp(fmt.Sprintf("other%d@example.com", n), true)
				err = nil
			case 3:
				_ = fmt.Sprintf("%+v", c)
				c.Settle()
				err = nil
			case 4:
				u := c.AddVerifiedUser(fmt.Sprintf("added%d@example.com", n))
				_ = c.VerifyEmail(u.ID, u.Emails[0].Address)
				err = nil
			case 5:
				c.Fail(clerkinvitetest.Fault{Email: fmt.Sprintf("x%d@example.com", n), Status: 400, Code: "x"})
				_, _, _ = c.Requests(), c.Emails(), c.SentMail()
				err = nil
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i, n := range created {
		require.Equal(t, 1, n, i)
		require.Equal(t, 1, c.EmailsTo(fmt.Sprintf("p%d@example.com", i)))
	}
	require.Len(t, ids, addresses, "IDs are unique")
	require.Equal(t, addresses, c.Emails())
	require.Equal(t, workers, c.Requests()[clerkinvitetest.CallCreate])
}

func TestFakePrintsNothingPrivate(t *testing.T) {
	t.Parallel()
	c, _ := newClerk()
	c.SetSecretKey("sk_test_private")
	c.AddVerifiedUser("private@example.com")
	mustCreate(t, c, ada)
	w, err := c.Accept(ada)
	require.NoError(t, err)
	values := []any{
		c, w, c.SentMail(), c.SentMail()[0],
		clerkinvitetest.UserSpec{ID: "user_1", Emails: []clerkinvitetest.EmailSpec{{Address: ada}}},
		clerkinvitetest.EmailSpec{Address: ada},
		clerkinvitetest.OrganizationSpec{Roles: []string{"private"}},
		clerkinvitetest.Fault{Email: ada, Message: "private", Meta: map[string]any{"a": ada}},
	}
	for _, v := range values {
		for _, v := range []any{v, &v, []any{v}, struct{ V any }{v}} {
			for _, verb := range []string{"%v", "%s", "%q", "%d", "%x"} { // %+v and %#v print all
				requirePublic(t, fmt.Sprintf(verb, v))
			}
		}
		if _, list := v.([]clerkinvitetest.Mail); list {
			continue // slog prints a slice by %+v or as JSON
		}
		var b bytes.Buffer
		slog.New(slog.NewTextHandler(&b, nil)).Info("", "v", v)
		slog.New(slog.NewJSONHandler(&b, nil)).Info("", "v", v)
		requirePublic(t, b.String())
	}
	require.Equal(t, "Clerk[users=2 invitations=1 emails=1]", fmt.Sprint(c))
	require.Equal(t, "<nil>", fmt.Sprint((*clerkinvitetest.Clerk)(nil)))
}

func requirePublic(t *testing.T, s string) {
	t.Helper()
	for _, private := range []string{"ada@", "private", "ticket", "@example", fmt.Sprintf("%x", "ada@")} {
		require.NotContains(t, s, private)
	}
}

func TestClerkFuncs(t *testing.T) {
	t.Parallel()
	var f clerkinvitetest.ClerkFuncs
	var err error
	for name, do := range map[string]func() error{
		"FindUsersFunc":         func() error { _, err = f.FindUsers(t.Context(), clerkinvite.UserQuery{}); return err },
		"GetUserFunc":           func() error { _, err = f.GetUser(t.Context(), "user_1"); return err },
		"CreateInvitationFunc":  func() error { _, err = f.CreateInvitation(t.Context(), clerkinvite.InvitationRequest{}); return err },
		"CreateInvitationsFunc": func() error { _, err = f.CreateInvitations(t.Context(), nil); return err },
		"ListInvitationsFunc":   func() error { _, err = f.ListInvitations(t.Context(), clerkinvite.InvitationQuery{}); return err },
		"FindMembershipsFunc":   func() error { _, err = f.FindMemberships(t.Context(), clerkinvite.MembershipQuery{}); return err },
		"AddMemberFunc":         func() error { return f.AddMember(t.Context(), clerkinvite.Membership{}) },
		"RemoveMemberFunc":      func() error { return f.RemoveMember(t.Context(), clerkinvite.Membership{}) },
		"RevokeInvitationFunc":  func() error { _, err = f.RevokeInvitation(t.Context(), clerkinvite.RevokeRequest{ID: ""}); return err },
	} {
		require.ErrorContains(t, do(), "ClerkFuncs."+name+" is nil")
	}
}

func TestHandlerWithoutServer(t *testing.T) {
	t.Parallel()
	c, _ := newClerk()
	c.Fail(clerkinvitetest.Fault{Kind: clerkinvitetest.Reset})
	require.PanicsWithValue(t, http.ErrAbortHandler, func() { // as net/http expects
		recorder(t, c)
	})
	require.Equal(t, 200, recorder(t, c))
}
