package clerkinvite_test

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

func TestGet(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		_, err := b.Get(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "nobody@example.com"})
		require.ErrorIs(t, err, clerkinvite.ErrNotFound)
		status, message := clerkinvite.HTTPError(err)
		require.Equal(t, 404, status)
		require.Equal(t, "no such member", message)
		_, err = b.Get(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "nobody"})
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

func TestRef_Deliver(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		var rows []*clerkinvite.Member
		for i := range 4 {
			m, err := b.Reserve(t.Context(), testkit.Params("acme", fmt.Sprintf("p%d@example.com", i)))
			require.NoError(t, err)
			rows = append(rows, m)
		}
		report, err := b.Deliver(t.Context(), &clerkinvite.DeliverOptions{Refs: []clerkinvite.Ref{
			{TenantID: "acme", ID: rows[0].ID}, rows[1].Ref(), {TenantID: "acme", ID: rows[1].ID}, {TenantID: "globex", ID: rows[2].ID},
			{TenantID: "acme", ClerkUserID: "user_nobody"},
		}})
		require.NoError(t, err)
		require.Equal(t, clerkinvite.DeliverReport{Claimed: 2, Invited: 2}, *report)
		require.Equal(t, clerkinvite.StatusReserved, b.Member(t, rows[2].Email).Status)
		require.Equal(t, clerkinvite.StatusReserved, b.Member(t, rows[3].Email).Status)
		_, err = b.Deliver(t.Context(), &clerkinvite.DeliverOptions{Refs: []clerkinvite.Ref{{TenantID: "acme", ID: rows[3].ID}, {TenantID: "acme"}}})
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
		require.Equal(t, `{"members":[],"next":""}`, encode())
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
		_, err = b.Update(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "nobody@example.com"}, clerkinvite.MemberUpdate{Role: &role})
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
		_, err = b.History(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "nobody@example.com"})
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

// The invitation was made before the host used the library, so it has no marker. The row names it, so a resend revokes
// it, but not another application's invitation.
func TestPromise4_ResendOfAnImportedMember(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		older, another := b.Clerk.CreateForeign(email, nil), b.Clerk.CreateForeign(email, map[string]any{"tenant": "theirs"})
		at := b.Clock.Now()
		theirs := *testkit.InsertRows(t, b.Store, &clerkinvite.Member{
			ID: "01a21382-a370-7acd-84c9-72ad5abb3517", TenantID: "acme", Email: email, Status: clerkinvite.StatusPending,
			InvitationID: older.ID, ClerkUserID: clerkinvite.PendingID(older.ID), Send: 1, Sent: 1, Version: 1,
			ReservedAt: at, InvitedAt: &at, ExpiresAt: older.ExpiresAt, SettledAt: &at, UpdatedAt: at,
		})[0]
		theirs.ID, theirs.TenantID = "01a21382-a370-7acd-84c9-72ad5abb3518", "globex"
		testkit.InsertRows(t, b.Store, &theirs)
		open := func(want ...string) {
			t.Helper()
			var open []string
			for _, inv := range b.Clerk.OpenInvitations(email) {
				open = append(open, inv.ID)
			}
			require.ElementsMatch(t, want, open)
		}
		b.Clock.Advance(time.Hour)
		m, err := b.Resend(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: email})
		require.NoError(t, err)
		open(older.ID, another.ID, m.InvitationID) // globex's row refers to it, too
		n, err := b.Resend(t.Context(), clerkinvite.Ref{TenantID: "globex", Email: email})
		require.NoError(t, err)
		open(another.ID, m.InvitationID, n.InvitationID)
	})
}

func TestResend(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		first, err := b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com", ExpiresInDays: 7, SkipEmail: true, PublicMetadata: map[string]any{"plan": "pro"}})
		require.NoError(t, err)
		_, err = b.Resend(t.Context(), testkit.Ada)
		var early *clerkinvite.CooldownError
		require.ErrorAs(t, err, &early)
		require.Equal(t, b.Clock.Now().Add(time.Minute), early.Until)
		require.Equal(t, 1, b.Member(t, "ada@example.com").Send)

		b.Clock.Advance(time.Minute)
		m, err := b.Resend(t.Context(), testkit.Ada)
		require.NoError(t, err)
		require.Equal(t, 2, m.Send)
		require.Equal(t, 2, m.Sent)
		require.NotEqual(t, first.URL, m.URL)
		require.NotEmpty(t, m.URL)
		require.Equal(t, b.Clock.Now().AddDate(0, 0, 7), m.ExpiresAt.UTC(), "with the first one's parameters")
		all := b.Clerk.Invitations("ada@example.com")
		require.Len(t, all, 2)
		require.Equal(t, clerkinvite.InvitationRevoked, all[0].Status)
		require.JSONEq(t, `{"plan":"pro","clerkinvite":{"id":"`+m.ID+`","send":2}}`, string(all[1].PublicMetadata))

		b.Clock.Advance(time.Hour)
		m, err = b.Resend(t.Context(), testkit.Ada)
		require.NoError(t, err)
		require.Equal(t, 3, m.Send)
		require.Len(t, b.Clerk.OpenInvitations("ada@example.com"), 1)

		_, err = b.Clerk.Accept("ada@example.com")
		require.NoError(t, err)
		_, err = b.Resend(t.Context(), testkit.Ada)
		require.ErrorAs(t, err, &early)
		b.Clock.Advance(time.Hour)
		m, err = b.Resend(t.Context(), testkit.Ada)
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusActive, m.Status, "already accepted, so no email")
		require.Zero(t, b.Clerk.Emails())
	})
	b := testkit.NewMemory(t, testkit.Options{Configure: func(c *clerkinvite.Config) { c.ResendCooldown = -1 }})
	m := b.MustInvite(t, "ada@example.com")
	for send := range 3 {
		m, err := b.Resend(t.Context(), m.Ref())
		require.NoError(t, err)
		require.Equal(t, send+2, m.Send)
	}
}

// Whatever fails during a resend, the person always has a working invitation, in the end exactly one, and gets no email
// twice.
func TestResend_NeverLosesTheInvitation(t *testing.T) {
	t.Parallel()
	testkit.OnBoth(t, func(t *testing.T, fresh func(*testing.T, testkit.Options) *testkit.Rig) {
		for _, call := range []clerkinvitetest.Call{clerkinvitetest.CallFindUsers, clerkinvitetest.CallList, clerkinvitetest.CallCreate, clerkinvitetest.CallRevoke} {
			for _, kind := range testkit.Sample(t, append(clerkinvitetest.Kinds(), "refused", "limited", "quota")) {
				for _, when := range []clerkinvitetest.When{clerkinvitetest.Before, clerkinvitetest.After} {
					if when == clerkinvitetest.After && slices.Contains([]clerkinvitetest.Kind{"refused", "limited", "quota"}, kind) {
						continue // a rejected request has no effect
					}
					t.Run(fmt.Sprintf("%s %s %s", call, kind, when), func(t *testing.T) {
						t.Parallel()
						testkit.InBubble(t, func(t *testing.T) {
							b := fresh(t, testkit.Options{Hangs: true})
							was := memberIn(t, b, clerkinvite.StatusPending)
							fault := clerkinvitetest.Fault{Call: call, Kind: kind, When: when, Times: 2}
							switch kind {
							case "refused":
								fault.Kind, fault.Status, fault.Code = "", 403, "not_allowed_access"
							case "limited":
								fault.Kind, fault.Status, fault.Code, fault.RetryAfter = "", 429, "too_many_requests", time.Minute
							case "quota":
								fault.Kind, fault.Status, fault.Code = "", 403, "user_quota_exceeded"
							}
							b.Clerk.Fail(fault)
							b.Clerk.OnCall(func(context.Context, clerkinvitetest.Call, clerkinvitetest.When) {
								if len(b.Clerk.OpenInvitations("ada@example.com")) == 0 {
									t.Error("no invitation works")
								}
							})
							_, err := b.Resend(t.Context(), testkit.Ada)
							for range 4 {
								b.Clock.Advance(2 * time.Hour)
								if _, err := b.Deliver(t.Context(), nil); err != nil {
									var clerkErr *clerkinvite.ClerkInvitationError
									require.ErrorAs(t, err, &clerkErr)
								}
							}
							b.Clerk.ClearFaults()
							_, reconcileErr := b.Reconcile(t.Context(), nil)
							require.NoError(t, reconcileErr)
							m := b.Member(t, "ada@example.com")
							require.Equal(t, m.Send, m.Sent, "%v after %v", m, err)
							emails := 2
							if m.InvitationID == was.InvitationID {
								emails = 1
								var refused *clerkinvite.ClerkInvitationError
								require.ErrorAs(t, err, &refused)
								require.Equal(t, clerkinvite.Refused, refused.Outcome)
								require.NotEmpty(t, m.Reason)
							}
							b.RequireInvited(t, "ada@example.com", emails)
						})
					})
				}
			}
		}
	})
}

// Resend of an expired invitation says the same before and after Reconcile has seen it.
func TestResend_Expired(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		b.MustInvite(t, "ada@example.com")
		b.Clock.Advance(31 * 24 * time.Hour)
		for range 2 {
			_, err := b.Resend(t.Context(), testkit.Ada)
			testkit.RequireTransition(t, err, clerkinvite.StatusExpired, clerkinvite.StatusPending)
			_, err = b.Reconcile(t.Context(), nil)
			require.NoError(t, err)
		}
		require.Equal(t, clerkinvite.StatusExpired, b.Member(t, "ada@example.com").Status)
	})
}

// The person has become a member under another address since.
func TestResend_SecondAddress(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		b.MustInvite(t, "ada@example.com")
		u := b.Clerk.AddVerifiedUser("ada@work.example")
		b.MustInvite(t, "ada@work.example")
		b.Clerk.AddEmail(u.ID, clerkinvitetest.EmailSpec{Address: "ada@example.com", Verified: true})
		b.Clock.Advance(time.Hour)
		_, err := b.Resend(t.Context(), testkit.Ada)
		var dup *clerkinvite.DuplicateEmailError
		require.ErrorAs(t, err, &dup)
		require.Equal(t, "ada@work.example", dup.Member.Email)
		m := b.Member(t, "ada@example.com")
		require.Equal(t, []any{clerkinvite.StatusRemoved, clerkinvite.ReasonSecondAddress}, []any{m.Status, m.Reason})
		require.Empty(t, b.Clerk.OpenInvitations("ada@example.com"))
	})
}

// Clerk's list lags: it shows neither the older invitation nor the new one, or fails. The row refers to the older one.
func TestPromise4_ResendWhileClerksListLags(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	noCooldown := testkit.Options{Configure: func(c *clerkinvite.Config) { c.ResendCooldown = -1 }}
	for name, before := range map[string]func(t *testing.T, b *testkit.Rig){
		"no other invitation":   func(*testing.T, *testkit.Rig) {},
		"another application's": func(_ *testing.T, b *testkit.Rig) { b.Clerk.CreateForeign(email, map[string]any{"app": "another"}) },
		"the last list fails":   func(_ *testing.T, b *testkit.Rig) { failLastList(b) },
		"ignore_existing revokes": func(_ *testing.T, b *testkit.Rig) {
			b.Clerk.SetBehavior(clerkinvitetest.Behavior{Lag: true, IgnoreExistingRevokes: true})
		},
		"the older one is accepted": nil,
	} {
		t.Run(name, func(t *testing.T) {
			testkit.Each(t, noCooldown, func(t *testing.T, b *testkit.Rig) {
				b.Clerk.SetBehavior(clerkinvitetest.Behavior{Lag: true})
				older := b.MustInvite(t, email)
				if before == nil {
					b.Clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
						if c == clerkinvitetest.CallCreate && w == clerkinvitetest.After && len(b.Clerk.OpenInvitations(email)) == 2 {
							_, err := b.Clerk.AcceptInvitation(older.InvitationID)
							require.NoError(t, err)
						}
					})
				} else {
					before(t, b)
				}
				foreign := b.Clerk.OpenInvitations(email)[1:]
				m, err := b.Resend(t.Context(), testkit.Ada)
				require.NoError(t, err)
				require.Equal(t, clerkinvite.StatusPending, m.Status)
				require.Equal(t, 2, b.Clerk.EmailsTo(email))
				var open []string
				for _, inv := range b.Clerk.OpenInvitations(email) {
					open = append(open, inv.ID)
				}
				want := []string{m.InvitationID}
				for _, inv := range foreign {
					want = append(want, inv.ID)
				}
				require.ElementsMatch(t, want, open)
			})
		})
	}
}

// failLastList makes the list after the create fail, which looks for left-over invitations.
func failLastList(b *testkit.Rig) {
	b.Clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
		if c == clerkinvitetest.CallCreate && w == clerkinvitetest.After && len(b.Clerk.OpenInvitations("ada@example.com")) == 2 {
			b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallList, Status: 500, Code: "internal_clerk_error", Times: 9})
		}
	})
}

// Two tenants' rows refer to the same invitation, and Clerk's list shows it late.
func TestPromise4_ResendOfASharedInvitationWhileClerksListLags(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		shared := b.Clerk.CreateForeign(email, nil)
		at := b.Clock.Now()
		for i, tenant := range []string{"acme", "globex"} {
			results, err := b.Store.Insert(t.Context(), []*clerkinvite.Member{{
				ID: fmt.Sprint("01a21382-a370-7acd-84c9-72ad5abb351", i), TenantID: tenant, Email: email, Status: clerkinvite.StatusPending,
				InvitationID: shared.ID, ClerkUserID: clerkinvite.PendingID(shared.ID), Send: 1, Sent: 1, Version: 1,
				ReservedAt: at, InvitedAt: &at, ExpiresAt: shared.ExpiresAt, SettledAt: &at, UpdatedAt: at,
			}})
			require.NoError(t, err)
			require.NoError(t, results[0].Err)
		}
		b.Clock.Advance(time.Hour)
		api := hidingAPI{b.API, shared.ID}
		svc, err := clerkinvite.New(clerkinvite.Config{API: api, Store: b.Store, Now: b.Clock.Now})
		require.NoError(t, err)
		m, err := svc.Resend(t.Context(), testkit.Ada)
		require.NoError(t, err)
		require.Len(t, b.Clerk.OpenInvitations(email), 2, "globex waits for it")
		n, err := svc.Resend(t.Context(), clerkinvite.Ref{TenantID: "globex", Email: email})
		require.NoError(t, err)
		open := b.Clerk.OpenInvitations(email)
		require.Len(t, open, 2)
		require.Equal(t, []string{m.InvitationID, n.InvitationID}, []string{open[0].ID, open[1].ID})
	})
}

// hidingAPI does not list one invitation.
type hidingAPI struct {
	clerkinvite.ClerkAPI

	hidden string
}

func (a hidingAPI) ListInvitations(ctx context.Context, q clerkinvite.InvitationQuery) ([]clerkinvite.Invitation, error) {
	list, err := a.ClerkAPI.ListInvitations(ctx, q)
	return slices.DeleteFunc(list, func(inv clerkinvite.Invitation) bool { return inv.ID == a.hidden }), err
}
