package clerkinvite_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// recorder is an Observer that writes down what it sees: a line when something ends, with what it is
// inside of, and one for each move.
type recorder struct {
	mu    sync.Mutex
	lines []string
	open  int
	waits func() // called when a wait begins, before anybody waits
}

type insideOf struct{}

func (r *recorder) Start(ctx context.Context, op string) (inside context.Context, end func(error)) {
	name := op
	if outer, ok := ctx.Value(insideOf{}).(string); ok {
		name = outer + ">" + op
	}
	if op == "wait" {
		r.waits()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open++
	ended := false
	return context.WithValue(ctx, insideOf{}, name), func(err error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if ended {
			r.lines = append(r.lines, name+" ended twice")
		}
		ended = true
		r.open--
		if err != nil {
			name += ": failed"
		}
		r.lines = append(r.lines, name)
	}
}

func (r *recorder) StateChanged(ctx context.Context, from, to clerkinvite.Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, fmt.Sprintf("%v: %q to %q", ctx.Value(insideOf{}), from, to))
}

// take returns what was seen since the last take.
func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	lines := r.lines
	r.lines = nil
	return lines
}

func TestObserver(t *testing.T) {
	t.Parallel()
	testkit.OnBoth(t, func(t *testing.T, fresh func(*testing.T, testkit.Options) *testkit.Rig) {
		seen, ctx := &recorder{}, t.Context()
		b := fresh(t, testkit.Options{Configure: func(c *clerkinvite.Config) { c.Observer, c.ResendCooldown = seen, -1 }})
		seen.waits = func() { b.Clock.Advance(time.Hour) }
		ref := clerkinvite.Ref{TenantID: "acme", Email: "ada@example.com"}
		wants := func(want ...string) {
			t.Helper()
			require.Equal(t, want, seen.take())
			require.Zero(t, seen.open)
		}
		b.MustInvite(t, ref.Email)
		wants(`Invite: "" to "reserved"`, "Invite>clerk.FindUsers", "Invite>clerk.CreateInvitation", `Invite: "reserved" to "pending"`, "Invite")
		_, err := b.TryInvite(t, ref.Email)
		require.Error(t, err)
		wants("Invite: failed")
		_, err = b.Invite(ctx, clerkinvite.InviteParams{})
		require.Error(t, err)
		wants("Invite: failed")

		b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallFindUsers, When: clerkinvitetest.Before, Status: 503, Times: -1})
		_, err = b.TryInvite(t, "bob@example.com")
		require.Error(t, err)
		wants(`Invite: "" to "reserved"`, "Invite>clerk.FindUsers: failed", "Invite: failed")
		b.Clerk.ClearFaults()
		b.Clock.Advance(10 * time.Minute)
		_, err = b.Deliver(ctx, nil)
		require.NoError(t, err)
		wants("Deliver>clerk.FindUsers", "Deliver>clerk.ListInvitations", "Deliver>clerk.ListInvitations", "Deliver>clerk.CreateInvitation",
			`Deliver: "reserved" to "pending"`, "Deliver")

		_, err = b.Resend(ctx, ref)
		require.NoError(t, err)
		lines := seen.take()
		require.Subset(t, lines, []string{`Resend: "pending" to "pending"`, "Resend>clerk.CreateInvitation", "Resend>clerk.RevokeInvitation", "Resend"})

		w, err := b.Clerk.Accept(ref.Email)
		require.NoError(t, err)
		b.Receive(t, w)
		wants("HandleEvent>clerk.GetUser", `HandleEvent: "pending" to "active"`, "HandleEvent")
		users, err := b.API.FindUsers(ctx, clerkinvite.UserQuery{Emails: []string{ref.Email}})
		require.NoError(t, err)
		_, err = b.ResolveUser(ctx, users[0].ID)
		require.NoError(t, err)
		wants("ResolveUser>clerk.GetUser", "ResolveUser")
		_, err = b.Resolve(ctx, users[0])
		require.NoError(t, err)
		wants("Resolve")

		_, err = b.Get(ctx, ref)
		require.NoError(t, err)
		_, err = b.List(ctx, clerkinvite.ListParams{TenantID: "acme"})
		require.NoError(t, err)
		for _, err := range b.All(ctx, clerkinvite.ListParams{TenantID: "acme", Limit: 1}) {
			require.NoError(t, err)
		}
		_, err = b.History(ctx, ref)
		require.NoError(t, err)
		role := "owner"
		_, err = b.Update(ctx, ref, clerkinvite.MemberUpdate{Role: &role})
		require.NoError(t, err)
		wants("Get", "List", "List", "List", "History", "Update")

		_, err = b.Remove(ctx, ref)
		require.NoError(t, err)
		wants(`Remove: "active" to "removed"`, "Remove")
		require.NoError(t, b.Purge(ctx, ref))
		lines = seen.take()
		require.Subset(t, lines, []string{"Purge>clerk.ListInvitations", `Purge: "removed" to ""`, "Purge"})
		_, err = b.Revoke(ctx, clerkinvite.Ref{TenantID: "acme", Email: "bob@example.com"})
		require.NoError(t, err)
		wants("Revoke>clerk.RevokeInvitation", `Revoke: "pending" to "revoked"`, "Revoke")

		_, err = b.Reserve(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: "cyd@example.com"})
		require.NoError(t, err)
		_, err = b.ReserveMany(ctx, []clerkinvite.InviteParams{{TenantID: "acme", Email: "dan@example.com"}})
		require.NoError(t, err)
		wants(`Reserve: "" to "reserved"`, "Reserve", `ReserveMany: "" to "reserved"`, "ReserveMany")

		people := make([]clerkinvite.InviteParams, 5)
		for i := range people {
			people[i] = clerkinvite.InviteParams{TenantID: "acme", Email: fmt.Sprintf("person%d@example.com", i)}
		}
		b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallFindUsers, When: clerkinvitetest.Before, Status: 429, RetryAfter: time.Minute})
		results, err := b.InviteMany(ctx, people, &clerkinvite.ManyOptions{Wait: true})
		require.NoError(t, err)
		require.Len(t, results, 5)
		lines = seen.take()
		require.Contains(t, lines, "InviteMany>wait")
		require.Contains(t, lines, "InviteMany>clerk.CreateInvitations")
		require.Equal(t, 5, count(lines, `InviteMany: "" to "reserved"`))
		require.Equal(t, 5, count(lines, `InviteMany: "reserved" to "pending"`))
		_, err = b.Reconcile(ctx, nil)
		require.NoError(t, err)
		lines = seen.take()
		require.Subset(t, lines, []string{"Reconcile>clerk.FindUsers", "Reconcile>clerk.ListInvitations", "Reconcile"})
	})
}

// A verb in which the host's own code panics has not succeeded, and the panic goes on.
func TestObserverSeesPanics(t *testing.T) {
	t.Parallel()
	seen := &recorder{}
	b := testkit.NewMemory(t, testkit.Options{Configure: func(c *clerkinvite.Config) {
		c.Observer = seen
		c.Authorize = func(context.Context, *clerkinvite.InviteParams) error { panic("the host's") }
	}})
	require.PanicsWithValue(t, "the host's", func() { _, _ = b.TryInvite(t, "ada@example.com") })
	require.Equal(t, []string{"Invite: failed"}, seen.take())
}

func count(lines []string, want string) (n int) {
	for _, line := range lines {
		if line == want {
			n++
		}
	}
	return n
}
