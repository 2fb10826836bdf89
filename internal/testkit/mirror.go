package testkit

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
)

// Mirror is a host whose own table follows the members: it has a row for each recorded version of each.
type Mirror struct {
	mu    sync.Mutex
	calls [][]clerkinvite.Change
	// before runs in the hook, before it writes anything.
	before func(ctx context.Context, tx pgx.Tx, changes []clerkinvite.Change) error
}

// MirrorTable creates the host's table.
const MirrorTable = `CREATE TABLE host (tenant text COLLATE "C", member text COLLATE "C", version bigint, PRIMARY KEY (tenant, member, version))`

// Follow is a PgxOptions.OnChange.
func (h *Mirror) Follow(ctx context.Context, tx pgx.Tx, changes []clerkinvite.Change) error {
	h.mu.Lock()
	h.calls = append(h.calls, changes)
	before := h.before
	h.mu.Unlock()
	if before != nil {
		if err := before(ctx, tx, changes); errors.Is(err, ErrSilent) {
			return nil
		} else if err != nil {
			return err
		}
	}
	for _, c := range changes {
		var err error
		if c.New == nil {
			_, err = tx.Exec(ctx, `DELETE FROM host WHERE tenant = $1 AND member = $2`, c.Old.TenantID, c.Old.ID)
		} else {
			_, err = tx.Exec(ctx, `INSERT INTO host VALUES ($1, $2, $3)`, c.New.TenantID, c.New.ID, c.New.Version)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// SetHook sets a function that runs first, and whose error rolls the change back.
func (h *Mirror) SetHook(before func(ctx context.Context, tx pgx.Tx, changes []clerkinvite.Change) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.before = before
}

// Take returns the calls since the last Take.
func (h *Mirror) Take() [][]clerkinvite.Change {
	h.mu.Lock()
	defer h.mu.Unlock()
	calls := h.calls
	h.calls = nil
	return calls
}

// RequireMirrored checks that the host's table matches the history, and that no transaction is open.
func RequireMirrored(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	const recorded = `SELECT tenant_id, member_id::text, version FROM clerkinvite_history`
	assert.Zero(t, QueryOne[int](t, pool, `SELECT count(*) FROM (`+recorded+` EXCEPT TABLE host) x`), "changes that the hook's table lacks")
	assert.Zero(t, QueryOne[int](t, pool, `SELECT count(*) FROM (TABLE host EXCEPT `+recorded+`) x`), "changes that only the hook's table has")
	Await(t, "the end of all transactions", func() bool { // the server notices late that a connection has gone
		return QueryOne[int](t, pool, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'`) == 0
	})
	Await(t, "the return of all connections", func() bool { return pool.Stat().AcquiredConns() == 0 })
}

// NewMirror returns a store that has a Mirror as its hook.
func NewMirror(t *testing.T, opts ...func(*pgxpool.Config)) (*clerkinvite.PgxStore, *Mirror, *pgxpool.Pool) {
	t.Helper()
	plain, pool := NewPgxStore(t, opts...)
	require.NoError(t, plain.Validate(t.Context()))
	_, err := pool.Exec(t.Context(), MirrorTable)
	require.NoError(t, err)
	h := new(Mirror)
	return clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{OnChange: h.Follow}), h, pool
}

// ErrHook is an error of a hook.
var ErrHook = errors.New("the host does not want this")

// ErrSilent is an error that Follow does not return.
var ErrSilent = errors.New("not reported")
