package contract_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// The whole flow through the service: the requests that it makes of the calls are valid too.
func TestFlow(t *testing.T) {
	t.Parallel()
	eachBehavior(t, func(t *testing.T, b *bundle) {
		ctx := t.Context()
		svc, err := clerkinvite.New(clerkinvite.Config{API: b.api, Store: clerkinvitetest.NewMemoryStore(), Now: b.clock.Now})
		require.NoError(t, err)
		invite := func(email string) (*clerkinvite.Member, error) {
			return svc.Invite(ctx, clerkinvite.InviteParams{
				TenantID: "acme", Email: email, RedirectURL: "https://app.example.com/welcome", ExpiresInDays: 7,
				Template: "invitation", PublicMetadata: map[string]any{"plan": "pro"},
			})
		}
		get := func(email string) *clerkinvite.Member {
			m, err := svc.Get(ctx, clerkinvite.Ref{TenantID: "acme", Email: email})
			require.NoError(t, err)
			return m
		}

		// A new person, who accepts.
		m, err := invite("ada@example.com")
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusPending, m.Status)
		hook, err := b.clerk.Accept(m.Email)
		require.NoError(t, err)
		b.clerk.Settle()
		event, err := clerkinvite.ParseEvent(hook.Payload)
		require.NoError(t, err)
		_, err = svc.HandleEvent(ctx, event)
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusActive, get(m.Email).Status)
		require.Equal(t, event.UserID, get(m.Email).ClerkUserID)
		_, err = svc.ResolveUser(ctx, event.UserID)
		require.NoError(t, err)
		event, err = clerkinvite.ParseEvent(b.clerk.DeleteUser(event.UserID).Payload)
		require.NoError(t, err)
		b.clerk.Settle()
		_, err = svc.HandleEvent(ctx, event)
		require.NoError(t, err)

		// An existing user.
		b.clerk.AddVerifiedUser("grace@example.com")
		m, err = invite("grace@example.com")
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusActive, m.Status)

		// A person whom another application has invited: Clerk refuses a duplicate.
		b.clerk.CreateForeign("joan@example.com", nil)
		m, err = invite("joan@example.com")
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusPending, m.Status)

		// A person whose address is unverified on an account.
		b.clerk.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{{Address: "dorothy@example.com"}}})
		m, err = invite("dorothy@example.com")
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusPending, m.Status)

		// The response is lost; the invitation is found and adopted.
		b.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
		_, err = invite("lost@example.com")
		require.Error(t, err)
		b.clock.Advance(2 * time.Hour)
		b.clerk.Settle()
		_, err = svc.Deliver(ctx, nil)
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusPending, get("lost@example.com").Status)
		require.Equal(t, 1, b.clerk.EmailsTo("lost@example.com"))

		// The invitation expires, and the second send revokes left-over invitations: here one that
		// a copy of the first request has created.
		first := get("lost@example.com")
		b.clock.Advance(8 * 24 * time.Hour)
		older := b.clerk.CreateForeign("lost@example.com", map[string]any{"clerkinvite": map[string]any{"id": first.ID, "send": first.Send}})
		b.clerk.Settle()
		m, err = invite("lost@example.com")
		require.NoError(t, err)
		require.Equal(t, first.Send+1, m.Send)
		for _, inv := range b.clerk.Invitations("lost@example.com") {
			require.Equal(t, inv.ID == m.InvitationID, inv.Status == clerkinvite.InvitationPending)
			if inv.ID == older.ID {
				require.Equal(t, clerkinvite.InvitationRevoked, inv.Status)
			}
		}

		// This flow needed it at least once.
		for _, call := range []clerkinvitetest.Call{clerkinvitetest.CallFindUsers, clerkinvitetest.CallCreate, clerkinvitetest.CallList} {
			require.NotZero(t, b.clerk.Requests()[call], call)
		}
	})
}
