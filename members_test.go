package clerkinvite_test

import (
	"context"
	"encoding/json"
	"fmt"
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
		require.Len(t, got, 25+5, "those who came are at the end")

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
			got = append(got, fmt.Sprintf("%s>%s %d/%d", m.From, m.To, m.Sent, m.Send))
		}
		require.Equal(t, []string{">reserved 0/1", "reserved>pending 1/1", "pending>pending 1/2", "pending>pending 2/2", "pending>revoked 2/2"}, got)
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
