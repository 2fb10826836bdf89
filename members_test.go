package clerkinvite_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

func TestGet(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		_, err := b.Get(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "unknown@example.com"})
		require.ErrorIs(t, err, clerkinvite.ErrNotFound)
		status, message := clerkinvite.HTTPError(err)
		require.Equal(t, 404, status)
		require.Equal(t, "no such member", message)
		_, err = b.Get(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "not-an-address"})
		var invalid *clerkinvite.InvalidParamsError
		require.ErrorAs(t, err, &invalid)
		want := b.MustInvite(t, "ada@example.com")
		require.Equal(t, want.ID, b.Member(t, " ADA@example.com").ID)
	})
}

// refVerbs are all verbs that take a Ref. Each returns the member that the verb returned, if it returns one.
var refVerbs = map[string]func(ctx context.Context, b *testkit.Rig, ref clerkinvite.Ref) (*clerkinvite.Member, error){
	"Get": func(ctx context.Context, b *testkit.Rig, ref clerkinvite.Ref) (*clerkinvite.Member, error) {
		return b.Get(ctx, ref)
	},
	"Resend": func(ctx context.Context, b *testkit.Rig, ref clerkinvite.Ref) (*clerkinvite.Member, error) {
		return b.Resend(ctx, ref)
	},
	"Revoke": func(ctx context.Context, b *testkit.Rig, ref clerkinvite.Ref) (*clerkinvite.Member, error) {
		return b.Revoke(ctx, ref)
	},
	"Remove": func(ctx context.Context, b *testkit.Rig, ref clerkinvite.Ref) (*clerkinvite.Member, error) {
		return b.Remove(ctx, ref)
	},
	"Purge": func(ctx context.Context, b *testkit.Rig, ref clerkinvite.Ref) (*clerkinvite.Member, error) {
		return nil, b.Purge(ctx, ref)
	},
	"Update": func(ctx context.Context, b *testkit.Rig, ref clerkinvite.Ref) (*clerkinvite.Member, error) {
		role := "editor"
		return b.Update(ctx, ref, clerkinvite.MemberUpdate{Role: &role})
	},
	"History": func(ctx context.Context, b *testkit.Rig, ref clerkinvite.Ref) (*clerkinvite.Member, error) {
		entries, err := b.History(ctx, ref)
		if err == nil && len(entries) != 2 {
			err = fmt.Errorf("%d entries", len(entries))
		}
		return nil, err
	},
	"Link": func(ctx context.Context, b *testkit.Rig, ref clerkinvite.Ref) (*clerkinvite.Member, error) {
		_, err := b.Link(ctx, ref)
		return nil, err
	},
}

// Every verb finds its member by address, by ID and by Clerk user ID, and never another tenant's.
func TestRef_EveryFormInEveryVerb(t *testing.T) {
	t.Parallel()
	service := reflect.TypeFor[*clerkinvite.Service]()
	for i := range service.NumMethod() {
		m := service.Method(i)
		for n := range m.Type.NumIn() {
			if m.Type.In(n) == reflect.TypeFor[clerkinvite.Ref]() {
				require.Contains(t, refVerbs, m.Name)
			}
		}
	}
	for name, verb := range refVerbs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
				for i, form := range []func(m *clerkinvite.Member) clerkinvite.Ref{
					func(m *clerkinvite.Member) clerkinvite.Ref { return clerkinvite.Ref{Email: strings.ToUpper(m.Email)} },
					func(m *clerkinvite.Member) clerkinvite.Ref { return clerkinvite.Ref{ID: strings.ToUpper(m.ID)} },
					func(m *clerkinvite.Member) clerkinvite.Ref { return clerkinvite.Ref{ClerkUserID: m.ClerkUserID} },
				} {
					m := b.MustInvite(t, fmt.Sprintf("p%d@example.com", i))
					another := b.MustInvite(t, fmt.Sprintf("another%d@example.com", i))
					_, err := b.Invite(t.Context(), testkit.Params("globex", "globex@example.com"))
					if i == 0 {
						require.NoError(t, err)
					}
					b.Clock.Advance(time.Hour)
					ref := form(m)
					before := allRows(t, b)
					for _, tenant := range []string{"globex", "initech"} {
						ref.TenantID = tenant
						_, err := verb(t.Context(), b, ref)
						require.ErrorIs(t, err, clerkinvite.ErrNotFound)
					}
					require.Equal(t, before, allRows(t, b))
					require.Len(t, b.Clerk.OpenInvitations(m.Email), 1)

					ref.TenantID = "acme"
					got, err := verb(t.Context(), b, ref)
					require.NoError(t, err)
					if got != nil {
						require.Equal(t, m.ID, got.ID)
					}
					now, err := b.Get(t.Context(), clerkinvite.Ref{TenantID: "acme", ID: m.ID})
					switch name {
					case "Get", "History", "Link":
						require.Equal(t, m.Version, now.Version)
					case "Purge":
						require.ErrorIs(t, err, clerkinvite.ErrNotFound)
					default:
						require.Greater(t, now.Version, m.Version)
					}
					require.Equal(t, another.Version, b.Member(t, another.Email).Version)
				}
			})
		})
	}
}

func allRows(t *testing.T, b *testkit.Rig) []*clerkinvite.Member {
	t.Helper()
	rows, err := b.Store.Page(t.Context(), clerkinvite.PageQuery{})
	require.NoError(t, err)
	return rows
}

func TestRef_DeliverMembers(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		var rows []*clerkinvite.Member
		for i := range 4 {
			m, err := b.Reserve(t.Context(), testkit.Params("acme", fmt.Sprintf("p%d@example.com", i)))
			require.NoError(t, err)
			rows = append(rows, m)
		}
		report, err := b.DeliverMembers(t.Context(), []clerkinvite.Ref{
			{TenantID: "acme", ID: rows[0].ID}, rows[1].Ref(), {TenantID: "acme", ID: rows[1].ID}, {TenantID: "globex", ID: rows[2].ID},
			{TenantID: "acme", ClerkUserID: "user_unknown"},
		})
		require.NoError(t, err)
		require.Equal(t, clerkinvite.DeliverReport{Claimed: 2, Invited: 2}, *report)
		require.Equal(t, clerkinvite.StatusReserved, b.Member(t, rows[2].Email).Status)
		require.Equal(t, clerkinvite.StatusReserved, b.Member(t, rows[3].Email).Status)
		_, err = b.DeliverMembers(t.Context(), []clerkinvite.Ref{{TenantID: "acme", ID: rows[3].ID}, {TenantID: "acme"}})
		requireInvalid(t, err, "Ref")
	})
}

func requireInvalid(t *testing.T, err error, field string) {
	t.Helper()
	var invalid *clerkinvite.InvalidParamsError
	require.ErrorAs(t, err, &invalid)
	require.Equal(t, field, invalid.Field)
}

func TestRef_Invalid(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{})
	m := b.MustInvite(t, "ada@example.com")
	for _, tc := range []struct {
		field string
		ref   clerkinvite.Ref
	}{
		{"Ref", clerkinvite.Ref{}},
		{"Ref", clerkinvite.Ref{TenantID: "acme"}},
		{"Ref", clerkinvite.Ref{TenantID: "acme", Email: m.Email, ID: m.ID}},
		{"Ref", clerkinvite.Ref{TenantID: "acme", Email: m.Email, ClerkUserID: m.ClerkUserID}},
		{"Ref", clerkinvite.Ref{TenantID: "acme", ID: m.ID, ClerkUserID: m.ClerkUserID}},
		{"Ref", clerkinvite.Ref{TenantID: "acme", Email: m.Email, ID: m.ID, ClerkUserID: m.ClerkUserID}},
		{"TenantID", clerkinvite.Ref{Email: m.Email}},
		{"TenantID", clerkinvite.Ref{ID: m.ID}},
		{"TenantID", clerkinvite.Ref{ClerkUserID: m.ClerkUserID}},
		{"TenantID", clerkinvite.Ref{TenantID: "\xff", ID: m.ID}},
		{"Email", clerkinvite.Ref{TenantID: "acme", Email: "ada"}},
		{"ID", clerkinvite.Ref{TenantID: "acme", ID: "7"}},
		{"ID", clerkinvite.Ref{TenantID: "acme", ID: " " + m.ID}},
		{"ID", clerkinvite.Ref{TenantID: "acme", ID: "{" + m.ID + "}"}},
		{"ID", clerkinvite.Ref{TenantID: "acme", ID: strings.ReplaceAll(m.ID, "-", "")}},
		{"ClerkUserID", clerkinvite.Ref{TenantID: "acme", ClerkUserID: "user 1"}},
		{"ClerkUserID", clerkinvite.Ref{TenantID: "acme", ClerkUserID: m.Email}},
		{"ClerkUserID", clerkinvite.Ref{TenantID: "acme", ClerkUserID: strings.Repeat("x", 256)}},
	} {
		for name, verb := range refVerbs {
			_, err := verb(t.Context(), b, tc.ref)
			requireInvalid(t, err, tc.field)
			require.NotContains(t, err.Error(), "ada", name)
		}
	}
	require.Equal(t, m.Version, b.Member(t, m.Email).Version)
}

// The person joins while a verb is under way that was called with the pending ID. The verb continues with the same member.
func TestRef_PendingIDWhileThePersonJoins(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		for _, tc := range []struct {
			verb, email string
			want        clerkinvite.Status
		}{{"Remove", "ada@example.com", clerkinvite.StatusRemoved}, {"Purge", "joan@example.com", ""}} {
			m := b.MustInvite(t, tc.email)
			joined := false
			b.Clerk.OnCall(func(ctx context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
				if joined || call != clerkinvitetest.CallRevoke || when != clerkinvitetest.Before {
					return
				}
				joined = true
				webhook, err := b.Clerk.Accept(m.Email)
				if err != nil {
					t.Error(err)
					return
				}
				event, err := clerkinvite.ParseEvent(webhook.Payload)
				if err != nil {
					t.Error(err)
					return
				}
				if changed, err := b.HandleEvent(ctx, event); err != nil || len(changed) != 1 {
					t.Errorf("%d changed, error %v", len(changed), err)
				}
			})
			_, err := refVerbs[tc.verb](t.Context(), b, clerkinvite.Ref{TenantID: "acme", ClerkUserID: m.ClerkUserID})
			require.NoError(t, err)
			require.True(t, joined)
			now, err := b.Get(t.Context(), clerkinvite.Ref{TenantID: "acme", ID: m.ID})
			if tc.want == "" {
				require.ErrorIs(t, err, clerkinvite.ErrNotFound)
			} else {
				require.NoError(t, err)
				require.Equal(t, tc.want, now.Status)
			}
		}
	})
}

// Is this user a member? Of this tenant, and of which?
func TestByUser(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		user := b.Clerk.AddVerifiedUser("ada@example.com")
		is := func(tenant string) bool {
			m, err := b.Get(t.Context(), clerkinvite.Ref{TenantID: tenant, ClerkUserID: user.ID})
			if err != nil {
				require.ErrorIs(t, err, clerkinvite.ErrNotFound)
				return false
			}
			require.Equal(t, clerkinvite.StatusActive, m.Status)
			return true
		}
		tenants := func() (ids []string) {
			members, err := b.ByUser(t.Context(), user.ID)
			require.NoError(t, err)
			for _, m := range members {
				require.Equal(t, user.ID, m.ClerkUserID)
				ids = append(ids, m.TenantID)
			}
			return ids
		}
		require.Empty(t, tenants())
		for _, tenant := range []string{"globex", "acme", "Acme", "initech"} {
			_, err := b.Invite(t.Context(), testkit.Params(tenant, "ada@example.com"))
			require.NoError(t, err)
		}
		_, err := b.Invite(t.Context(), testkit.Params("hooli", "joan@example.com"))
		require.NoError(t, err)
		require.Equal(t, []string{"Acme", "acme", "globex", "initech"}, tenants())
		require.True(t, is("acme"))
		require.False(t, is("hooli"))
		_, err = b.Remove(t.Context(), clerkinvite.Ref{TenantID: "acme", ClerkUserID: user.ID})
		require.NoError(t, err)
		require.False(t, is("acme"))
		require.Equal(t, []string{"Acme", "globex", "initech"}, tenants())
		_, err = b.Remove(t.Context(), clerkinvite.Ref{TenantID: "acme", ClerkUserID: user.ID})
		require.ErrorIs(t, err, clerkinvite.ErrNotFound, "a removed member has no user")

		for _, id := range []string{"", "user 1", "ada@example.com", strings.Repeat("x", 256)} {
			_, err := b.ByUser(t.Context(), id)
			requireInvalid(t, err, "userID")
		}
		joan, err := b.Get(t.Context(), clerkinvite.Ref{TenantID: "hooli", Email: "joan@example.com"})
		require.NoError(t, err)
		none, err := b.ByUser(t.Context(), joan.ClerkUserID)
		require.NoError(t, err)
		require.Empty(t, none, "a pending ID is not a user")
	})
}

func TestCounts(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		counts, err := b.Counts(t.Context(), "acme")
		require.NoError(t, err)
		require.Len(t, counts, len(clerkinvite.Statuses()))
		for _, status := range clerkinvite.Statuses() {
			require.Contains(t, counts, status)
			require.Zero(t, counts[status])
		}
		b.Clerk.AddVerifiedUser("ada@example.com")
		for _, tenant := range []string{"acme", "globex"} {
			for i := range 3 {
				_, err := b.Reserve(t.Context(), testkit.Params(tenant, fmt.Sprintf("p%d@example.com", i)))
				require.NoError(t, err)
			}
		}
		b.MustInvite(t, "ada@example.com")
		b.MustInvite(t, "joan@example.com")
		counts, err = b.Counts(t.Context(), "acme")
		require.NoError(t, err)
		require.Equal(t, map[clerkinvite.Status]int{"reserved": 3, "pending": 1, "active": 1, "failed": 0, "revoked": 0, "expired": 0, "removed": 0}, counts)
		for _, tenant := range []string{"", "\xff", strings.Repeat("x", 256)} {
			_, err := b.Counts(t.Context(), tenant)
			requireInvalid(t, err, "TenantID")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = b.Counts(ctx, "acme")
		require.ErrorIs(t, err, context.Canceled)
	})
}

func TestList_NewestFirst(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		var want []string
		for i := range 10 {
			p := testkit.Params("acme", fmt.Sprintf("p%02d@example.com", i))
			_, err := b.Reserve(t.Context(), p)
			require.NoError(t, err)
			want = append([]string{p.Email}, want...)
		}
		p := clerkinvite.ListParams{TenantID: "acme", NewestFirst: true, Limit: 4}
		page, err := b.List(t.Context(), p)
		require.NoError(t, err)
		// The last member of the page is erased, and a new one is added: the next page is the same.
		require.NoError(t, b.Purge(t.Context(), page.Members[3].Ref()))
		_, err = b.Reserve(t.Context(), testkit.Params("acme", "new@example.com"))
		require.NoError(t, err)
		var got []string
		for _, m := range page.Members {
			got = append(got, m.Email)
		}
		next := p
		next.Cursor = page.Next
		for m, err := range b.All(t.Context(), next) {
			require.NoError(t, err)
			got = append(got, m.Email)
		}
		require.Equal(t, want, got)

		next.NewestFirst = false
		_, err = b.List(t.Context(), next)
		requireInvalid(t, err, "Cursor")
		p.NewestFirst = false
		page, err = b.List(t.Context(), p)
		require.NoError(t, err)
		p.NewestFirst, p.Cursor = true, page.Next
		_, err = b.List(t.Context(), p)
		requireInvalid(t, err, "Cursor")
	})
}

func TestList_ExpiresBefore(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		b.Clerk.AddVerifiedUser("user@example.com")
		for email, days := range map[string]int{"two@example.com": 2, "five@example.com": 5, "user@example.com": 2} {
			_, err := b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: email, ExpiresInDays: days})
			require.NoError(t, err)
		}
		_, err := b.Reserve(t.Context(), testkit.Params("acme", "reserved@example.com"))
		require.NoError(t, err)
		list := func(before time.Time, statuses ...clerkinvite.Status) (emails []string) {
			for m, err := range b.All(t.Context(), clerkinvite.ListParams{TenantID: "acme", ExpiresBefore: before, Statuses: statuses, Limit: 1}) {
				require.NoError(t, err)
				emails = append(emails, m.Email)
			}
			slices.Sort(emails)
			return emails
		}
		now := b.Clock.Now()
		two := b.Member(t, "two@example.com").ExpiresAt
		require.Empty(t, list(*two))
		require.Equal(t, []string{"two@example.com"}, list(two.Add(time.Microsecond)))
		require.Equal(t, []string{"two@example.com"}, list(now.AddDate(0, 0, 4), clerkinvite.StatusPending, clerkinvite.StatusActive))
		require.Empty(t, list(now.AddDate(0, 0, 4), clerkinvite.StatusActive))
		require.Equal(t, []string{"five@example.com", "two@example.com"}, list(now.AddDate(0, 0, 6)))
		b.Clock.Advance(3 * 24 * time.Hour)
		require.Equal(t, []string{"two@example.com"}, list(b.Clock.Now()), "expired, and Reconcile has not run yet")
	})
}

func TestList_EmailPrefix(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		for _, email := range []string{"ada@Bücher.example", "ada@example.com", "adam@example.com"} {
			_, err := b.Reserve(t.Context(), testkit.Params("acme", email))
			require.NoError(t, err)
		}
		for _, tc := range []struct {
			prefix string
			want   int
		}{
			{"A", 3}, {" Ada@ ", 2}, {"ada@BÜCHER.example", 1}, {"ada@bücher", 1}, {"ada@bücher.", 1}, {"ada@bücher.ex", 1}, {"ada@xn--b", 1},
			{"ada@büch", 0}, {"ada@e", 1}, {"adam@bücher", 0}, {"bücher", 0},
		} {
			page, err := b.List(t.Context(), clerkinvite.ListParams{TenantID: "acme", EmailPrefix: tc.prefix})
			require.NoError(t, err)
			require.Len(t, page.Members, tc.want, tc.prefix)
		}
		_, err := b.List(t.Context(), clerkinvite.ListParams{TenantID: "acme", EmailPrefix: strings.Repeat("ü", 600)})
		requireInvalid(t, err, "EmailPrefix")
	})
}

func TestList_JSON(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		encode := func() string {
			page, err := b.List(t.Context(), clerkinvite.ListParams{TenantID: "acme", Limit: 1})
			require.NoError(t, err)
			text, err := json.Marshal(page)
			require.NoError(t, err)
			return string(text)
		}
		require.JSONEq(t, `{"members":[],"next":""}`, encode())
		for _, email := range []string{"ada@example.com", "joan@example.com"} {
			_, err := b.Reserve(t.Context(), testkit.Params("acme", email))
			require.NoError(t, err)
		}
		require.Regexp(t, `^\{"members":\[\{"id":"[^}]*"ada@example.com"[^}]*\}\],"next":"[^"]+"\}$`, encode())
	})
}

func TestList(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		var want []string
		for i := range 25 {
			p := testkit.Params("acme", fmt.Sprintf("p%02d@example.com", i))
			p.InvitedBy = fmt.Sprint("admin", i%2)
			_, err := b.Reserve(t.Context(), p)
			require.NoError(t, err)
			want = append(want, p.Email)
			_, err = b.Reserve(t.Context(), testkit.Params("globex", p.Email))
			require.NoError(t, err)
		}
		list := func(p clerkinvite.ListParams, between func(page int)) (got []string) {
			p.TenantID = "acme"
			for n := 0; ; n++ {
				page, err := b.List(t.Context(), p)
				require.NoError(t, err)
				require.LessOrEqual(t, len(page.Members), max(p.Limit, 1))
				for _, m := range page.Members {
					got = append(got, m.Email)
				}
				if p.Cursor = page.Next; p.Cursor == "" {
					return got
				}
				require.NotContains(t, p.Cursor, "@")
				if between != nil {
					between(n)
				}
			}
		}
		require.Equal(t, want, list(clerkinvite.ListParams{Limit: 7}, nil))
		require.Equal(t, want, list(clerkinvite.ListParams{Limit: 25}, nil))
		require.Equal(t, []string{"p03@example.com"}, list(clerkinvite.ListParams{Limit: 7, EmailPrefix: " P03"}, nil))
		require.Len(t, list(clerkinvite.ListParams{Limit: 4, InvitedBy: "admin1"}, nil), 12)
		require.Empty(t, list(clerkinvite.ListParams{Limit: 4, EmailPrefix: "p%"}, nil))

		// People come and go between the pages.
		got := list(clerkinvite.ListParams{Limit: 5}, func(page int) {
			require.NoError(t, b.Purge(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: want[page]}))
			_, err := b.Reserve(t.Context(), testkit.Params("acme", fmt.Sprintf("new%d@example.com", page)))
			require.NoError(t, err)
		})
		require.Equal(t, want, got[:25])
		require.Len(t, got, 25+5, "new members are at the end")

		_, err := b.Deliver(t.Context(), &clerkinvite.DeliverOptions{Limit: 10})
		require.NoError(t, err)
		all := b.All(t.Context(), clerkinvite.ListParams{TenantID: "acme", Limit: 3, Statuses: []clerkinvite.Status{clerkinvite.StatusPending, clerkinvite.StatusActive, clerkinvite.StatusPending}})
		pending := 0
		for range 2 { // can be ranged over twice
			n := 0
			for m, err := range all {
				require.NoError(t, err)
				require.Equal(t, clerkinvite.StatusPending, m.Status)
				n++
			}
			require.Positive(t, n)
			pending = n
		}
		for range all {
			break
		}
		rest := 0
		for m, err := range b.All(t.Context(), clerkinvite.ListParams{TenantID: "acme", Statuses: []clerkinvite.Status{clerkinvite.StatusReserved}}) {
			require.NoError(t, err)
			require.Equal(t, clerkinvite.StatusReserved, m.Status)
			rest++
		}
		require.Equal(t, 25, pending+rest)

		for field, p := range map[string]clerkinvite.ListParams{
			"TenantID":    {},
			"Limit":       {TenantID: "acme", Limit: 1001},
			"Cursor":      {TenantID: "acme", Cursor: "nonsense"},
			"Statuses":    {TenantID: "acme", Statuses: []clerkinvite.Status{"gone"}},
			"EmailPrefix": {TenantID: "acme", EmailPrefix: "\x00"},
			"InvitedBy":   {TenantID: "acme", InvitedBy: "\xff"},
		} {
			_, err := b.List(t.Context(), p)
			var invalid *clerkinvite.InvalidParamsError
			require.ErrorAs(t, err, &invalid, field)
			require.Equal(t, field, invalid.Field)
			for _, err := range b.All(t.Context(), p) {
				require.ErrorAs(t, err, &invalid)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for m, err := range b.All(ctx, clerkinvite.ListParams{TenantID: "acme"}) {
			require.Nil(t, m)
			require.ErrorIs(t, err, context.Canceled)
		}
	})
}

func TestUpdateAndHistory(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		p := testkit.Params("acme", "ada@example.com")
		p.Role, p.Data = "viewer", json.RawMessage(`{"seat":1}`)
		_, err := b.Invite(t.Context(), p)
		require.NoError(t, err)
		b.Clerk.ResetCounts()
		role, data, nothing := "editor", json.RawMessage(`{"seat":2}`), json.RawMessage(nil)
		m, err := b.Update(t.Context(), testkit.Ada, clerkinvite.MemberUpdate{Role: &role})
		require.NoError(t, err)
		require.Equal(t, "editor", m.Role)
		require.JSONEq(t, `{"seat":1}`, string(m.Data))
		m, err = b.Update(t.Context(), testkit.Ada, clerkinvite.MemberUpdate{Data: &data})
		require.NoError(t, err)
		require.Equal(t, "editor", m.Role)
		require.JSONEq(t, `{"seat":2}`, string(m.Data))
		m, err = b.Update(t.Context(), testkit.Ada, clerkinvite.MemberUpdate{Data: &nothing})
		require.NoError(t, err)
		require.Nil(t, m.Data)
		require.Zero(t, b.Clerk.RequestCount(), "Clerk knows nothing of it")

		long, bad := string(make([]byte, 300)), json.RawMessage("{")
		for field, u := range map[string]clerkinvite.MemberUpdate{"Role": {Role: &long}, "Data": {Data: &bad}} {
			_, err := b.Update(t.Context(), testkit.Ada, u)
			var invalid *clerkinvite.InvalidParamsError
			require.ErrorAs(t, err, &invalid)
			require.Equal(t, field, invalid.Field)
		}
		_, err = b.Update(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "unknown@example.com"}, clerkinvite.MemberUpdate{Role: &role})
		require.ErrorIs(t, err, clerkinvite.ErrNotFound)

		b.Clock.Advance(time.Hour)
		_, err = b.Resend(t.Context(), testkit.Ada)
		require.NoError(t, err)
		_, err = b.Revoke(t.Context(), testkit.Ada)
		require.NoError(t, err)
		moves, err := b.History(t.Context(), testkit.Ada)
		require.NoError(t, err)
		var got []string
		for _, m := range moves {
			got = append(got, fmt.Sprintf("%s>%s %d/%d %s", m.From, m.To, m.Sent, m.Send, m.Role))
		}
		require.Equal(t, []string{
			">reserved 0/1 viewer", "reserved>pending 1/1 viewer", "pending>pending 1/1 editor",
			"pending>pending 1/2 editor", "pending>pending 2/2 editor", "pending>revoked 2/2 editor",
		}, got)
		_, err = b.History(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "unknown@example.com"})
		require.ErrorIs(t, err, clerkinvite.ErrNotFound)
	})
}

// A role is changed while the invitation is created: both take effect.
func TestUpdateDuringDelivery(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		role := "editor"
		b.Clerk.OnCall(func(ctx context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
			if call == clerkinvitetest.CallCreate && when == clerkinvitetest.After {
				_, err := b.Update(ctx, testkit.Ada, clerkinvite.MemberUpdate{Role: &role})
				if err != nil {
					t.Error(err)
				}
			}
		})
		m := b.MustInvite(t, "ada@example.com")
		require.Equal(t, "editor", m.Role)
		b.RequireInvited(t, "ada@example.com", 1)
	})
}

// A delivery that only releases its claim still releases it if the host updates the member in the meantime. With
// WithdrawOnFailure, a claim that stays would count as an attempt whose process died.
func TestUpdateDuringDelivery_RateLimit(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{Configure: func(c *clerkinvite.Config) { c.WithdrawOnFailure = true }}, func(t *testing.T, b *testkit.Rig) {
		_, err := b.Reserve(t.Context(), testkit.Params("acme", "ada@example.com"))
		require.NoError(t, err)
		testkit.LimitCreates(b, 10*time.Minute)
		role := "editor"
		b.Clerk.OnCall(func(ctx context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
			if call == clerkinvitetest.CallCreate && when == clerkinvitetest.Before {
				_, err := b.Update(ctx, testkit.Ada, clerkinvite.MemberUpdate{Role: &role})
				if err != nil {
					t.Error(err)
				}
			}
		})
		report, err := b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, &clerkinvite.DeliverReport{Claimed: 1, Postponed: 1}, report)
		m := b.Member(t, "ada@example.com")
		require.Equal(t, "editor", m.Role)
		require.Nil(t, m.ClaimedUntil)
		require.Zero(t, m.Attempts)

		b.Clock.Advance(time.Hour)
		_, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		b.RequireInvited(t, "ada@example.com", 1)
	})
}

func TestActorOfEachChange(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		by := func(id string) context.Context { return clerkinvite.WithActor(t.Context(), id) }
		p := testkit.Params("acme", "ada@example.com")
		p.Role = "viewer"
		m, err := b.Invite(by("boss"), p)
		require.NoError(t, err)
		require.Equal(t, "boss", m.ChangedBy)
		require.Empty(t, m.InvitedBy, "the host sets it itself")

		editor, data := "editor", json.RawMessage(`{"seat":2}`)
		m, err = b.Update(by("admin"), testkit.Ada, clerkinvite.MemberUpdate{Role: &editor})
		require.NoError(t, err)
		require.Equal(t, "admin", m.ChangedBy)
		for range 2 { // neither is recorded
			m, err = b.Update(by("editor"), testkit.Ada, clerkinvite.MemberUpdate{Role: &editor, Data: &data})
			require.NoError(t, err)
			require.Equal(t, "admin", m.ChangedBy)
		}
		b.Clock.Advance(time.Hour)
		m, err = b.Resend(clerkinvite.WithActor(by("boss"), ""), testkit.Ada)
		require.NoError(t, err)
		require.Empty(t, m.ChangedBy)
		m, err = b.Remove(by("boss"), testkit.Ada)
		require.NoError(t, err)
		require.Equal(t, "boss", m.ChangedBy)

		// The claim of a delivery by the library keeps the actor; its result does not.
		m, err = b.Reserve(by("Ünï's \"job\""), p)
		require.NoError(t, err)
		require.Equal(t, "Ünï's \"job\"", m.ChangedBy)
		_, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)

		moves, err := b.History(t.Context(), testkit.Ada)
		require.NoError(t, err)
		var got []string
		for _, m := range moves {
			got = append(got, fmt.Sprintf("%s>%s %s by %s", m.From, m.To, m.Role, m.Actor))
		}
		require.Equal(t, []string{
			">reserved viewer by boss", "reserved>pending viewer by boss", "pending>pending editor by admin",
			"pending>pending editor by ", "pending>pending editor by ", "pending>removed editor by boss",
			"removed>reserved viewer by Ünï's \"job\"", "reserved>pending viewer by ",
		}, got)
	})
}

// A batch of many and a batch in the host's transaction have the actor, too.
func TestActorOfMany(t *testing.T) {
	t.Parallel()
	b := testkit.NewPostgres(t, testkit.Options{})
	ctx := clerkinvite.WithActor(t.Context(), "boss")
	results, err := b.InviteMany(ctx, []clerkinvite.InviteParams{testkit.Params("acme", "a@example.com"), testkit.Params("acme", "b@example.com")}, nil)
	require.NoError(t, err)
	for _, r := range results {
		require.NoError(t, r.Err)
		require.Equal(t, "boss", r.Member.ChangedBy)
	}
}

// writes calls each method that writes.
var writes = map[string]func(ctx context.Context, s *clerkinvite.Service, user clerkinvite.User) error{
	"Adopt": func(ctx context.Context, s *clerkinvite.Service, _ clerkinvite.User) error {
		results, err := s.Adopt(ctx, []clerkinvite.AdoptParams{{InviteParams: testkit.Params("acme", "new@example.com"), ClerkUserID: "user_new"}})
		if len(results) != 1 || results[0].Member != nil || fmt.Sprint(results[0].Err) != fmt.Sprint(err) {
			return fmt.Errorf("of all %w, of one %+v", err, results)
		}
		return err
	},
	"Invite": func(ctx context.Context, s *clerkinvite.Service, _ clerkinvite.User) error {
		_, err := s.Invite(ctx, testkit.Params("acme", "new@example.com"))
		return err
	},
	"InviteMany": func(ctx context.Context, s *clerkinvite.Service, _ clerkinvite.User) error {
		_, err := s.InviteMany(ctx, []clerkinvite.InviteParams{testkit.Params("acme", "new@example.com")}, nil)
		return err
	},
	"Reserve": func(ctx context.Context, s *clerkinvite.Service, _ clerkinvite.User) error {
		_, err := s.Reserve(ctx, testkit.Params("acme", "new@example.com"))
		return err
	},
	"ReserveMany": func(ctx context.Context, s *clerkinvite.Service, _ clerkinvite.User) error {
		_, err := s.ReserveMany(ctx, []clerkinvite.InviteParams{testkit.Params("acme", "new@example.com")})
		return err
	},
	"Deliver": func(ctx context.Context, s *clerkinvite.Service, _ clerkinvite.User) error {
		_, err := s.Deliver(ctx, nil)
		return err
	},
	"DeliverMembers": func(ctx context.Context, s *clerkinvite.Service, _ clerkinvite.User) error {
		_, err := s.DeliverMembers(ctx, []clerkinvite.Ref{testkit.Acme("due@example.com")})
		return err
	},
	"Run": func(ctx context.Context, s *clerkinvite.Service, _ clerkinvite.User) error {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		return s.Run(ctx, nil)
	},
	"Resend": func(ctx context.Context, s *clerkinvite.Service, _ clerkinvite.User) error {
		_, err := s.Resend(ctx, testkit.Ada)
		return err
	},
	"Revoke": func(ctx context.Context, s *clerkinvite.Service, _ clerkinvite.User) error {
		_, err := s.Revoke(ctx, testkit.Ada)
		return err
	},
	"Remove": func(ctx context.Context, s *clerkinvite.Service, _ clerkinvite.User) error {
		_, err := s.Remove(ctx, testkit.Ada)
		return err
	},
	"Purge": func(ctx context.Context, s *clerkinvite.Service, _ clerkinvite.User) error {
		return s.Purge(ctx, testkit.Ada)
	},
	"Update": func(ctx context.Context, s *clerkinvite.Service, _ clerkinvite.User) error {
		role := "editor"
		_, err := s.Update(ctx, testkit.Ada, clerkinvite.MemberUpdate{Role: &role})
		return err
	},
	"Resolve": func(ctx context.Context, s *clerkinvite.Service, user clerkinvite.User) error {
		_, err := s.Resolve(ctx, user)
		return err
	},
	"ResolveUser": func(ctx context.Context, s *clerkinvite.Service, user clerkinvite.User) error {
		_, err := s.ResolveUser(ctx, user.ID)
		return err
	},
	"HandleEvent": func(ctx context.Context, s *clerkinvite.Service, user clerkinvite.User) error {
		_, err := s.HandleEvent(ctx, &clerkinvite.Event{Type: clerkinvite.EventUserCreated, UserID: user.ID, User: &user})
		return err
	},
	"Reconcile": func(ctx context.Context, s *clerkinvite.Service, _ clerkinvite.User) error {
		_, err := s.Reconcile(ctx, nil)
		return err
	},
}

// reads are the methods that do not write themselves.
var reads = []string{"All", "ByUser", "Counts", "Format", "Get", "History", "InTx", "Link", "List", "WebhookHandler"}

func TestInvalidActor(t *testing.T) {
	t.Parallel()
	var methods []string
	service := reflect.TypeFor[*clerkinvite.Service]()
	for i := range service.NumMethod() {
		methods = append(methods, service.Method(i).Name)
	}
	require.ElementsMatch(t, methods, slices.Concat(slices.Collect(maps.Keys(writes)), reads), "a method is missing in writes or reads")

	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		m := b.MustInvite(t, "ada@example.com")
		_, err := b.Reserve(t.Context(), testkit.Params("acme", "due@example.com"))
		require.NoError(t, err)
		user := b.Clerk.AddVerifiedUser(m.Email)
		b.Clock.Advance(time.Hour)
		before, err := b.Store.Page(t.Context(), clerkinvite.PageQuery{})
		require.NoError(t, err)
		b.Clerk.ResetCounts()
		for _, bad := range []string{" a", "a\x00", "\xff", strings.Repeat("x", 256)} {
			for name, call := range writes {
				var invalid *clerkinvite.InvalidParamsError
				require.ErrorAs(t, call(clerkinvite.WithActor(t.Context(), bad), b.Service, user), &invalid, "%s %q", name, bad)
				require.Equal(t, "actor", invalid.Field)
			}
			_, err := b.Get(clerkinvite.WithActor(t.Context(), bad), m.Ref())
			require.NoError(t, err, "reading does not record an actor")
		}
		after, err := b.Store.Page(t.Context(), clerkinvite.PageQuery{})
		require.NoError(t, err)
		assert.Equal(t, before, after)
		assert.Zero(t, b.Clerk.RequestCount())
	})
}

// The log (Info) has every new, changed and erased member, without its address.
func TestLogHasEveryChange(t *testing.T) {
	t.Parallel()
	var log testkit.LockedBuffer
	b := testkit.NewMemory(t, testkit.Options{Configure: func(c *clerkinvite.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) }})
	b.MustInvite(t, "ada@example.com")
	results, err := b.Adopt(t.Context(), []clerkinvite.AdoptParams{adopted("acme", "grace@example.com", "user_grace")})
	require.NoError(t, err)
	require.NoError(t, results[0].Err)
	require.NoError(t, b.Purge(t.Context(), testkit.Acme("grace@example.com")))
	var lines []string
	for _, line := range regexp.MustCompile(`msg="(member \w+)".* member.status=(\w+)`).FindAllStringSubmatch(log.String(), -1) {
		lines = append(lines, line[1]+" "+line[2])
	}
	require.Equal(t, []string{"member added reserved", "member changed pending", "member added active", "member erased active"}, lines)
	require.NotContains(t, log.String(), "example.com")
}
