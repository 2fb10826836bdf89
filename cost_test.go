package clerkinvite_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
)

// statementCounter counts what goes to PostgreSQL.
type statementCounter struct{ n atomic.Int64 }

func (c *statementCounter) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	c.n.Add(1)
	return ctx
}
func (c *statementCounter) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (c *statementCounter) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return ctx
}

func (c *statementCounter) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {
	c.n.Add(1)
}
func (c *statementCounter) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

// What each verb costs Clerk and PostgreSQL.
func TestCost(t *testing.T) {
	t.Parallel()
	count := &statementCounter{}
	b := newRealBundle(t, options{}, func(c *pgxpool.Config) { c.ConnConfig.Tracer = count })
	cost := func(name string, requests, statements int, step func()) {
		t.Helper()
		b.clerk.ResetCounts()
		count.n.Store(0)
		step()
		require.Equal(t, requests, b.clerk.RequestCount(), "%s: requests to Clerk %v", name, b.clerk.Requests())
		require.LessOrEqual(t, int(count.n.Load()), statements, "%s: statements", name)
		require.Positive(t, count.n.Load(), "%s: the counter counts", name)
	}
	cost("a happy invite", 2, 2, func() { b.mustInvite(t, "ada@example.com") })
	cost("a duplicate", 0, 1, func() {
		_, err := b.invite(t, "ada@example.com")
		var dup *clerkinvite.DuplicateEmailError
		require.ErrorAs(t, err, &dup)
	})
	u := b.clerk.AddVerifiedUser("grace@example.com")
	cost("an existing user", 1, 2, func() { b.mustInvite(t, "grace@example.com") })
	w, err := b.clerk.Accept("ada@example.com")
	require.NoError(t, err)
	cost("a webhook that resolves", 1, 2, func() { require.Len(t, b.event(t, w), 1) })
	cost("its replay", 0, 1, func() { require.Empty(t, b.event(t, w)) })
	stranger := b.clerk.AddVerifiedUser("stranger@example.com")
	cost("a webhook nobody waits for", 0, 1, func() { require.Empty(t, b.event(t, b.clerk.UserCreated(stranger.ID))) })
	deleted := b.clerk.DeleteUser(u.ID)
	cost("a deleted user", 1, 2, func() { require.Len(t, b.event(t, deleted), 1) })
	// Who was invited before is looked for at Clerk first, and afterwards older invitations are.
	cost("inviting a removed member", 5, 4, func() { b.mustInvite(t, "grace@example.com") })
	cost("reserve", 0, 1, func() {
		_, err := b.Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "joan@example.com"})
		require.NoError(t, err)
	})
}
