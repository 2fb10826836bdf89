package testkit

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
)

// RowTime is when the rows below are written.
var RowTime = time.Date(2026, 3, 1, 9, 30, 15, 123456000, time.UTC)

// ReservedRow returns a row like those that Reserve writes.
func ReservedRow(tenant, email string) *clerkinvite.Member {
	at := RowTime
	return &clerkinvite.Member{
		ID: uuid.Must(uuid.NewV7()).String(), TenantID: tenant, Email: email, Status: clerkinvite.StatusReserved, Send: 1,
		Role: "editor", Data: []byte(`{"team": 7}`), Params: []byte(`{"redirect_url":"https://example.com"}`),
		ReservedAt: at, NextAttemptAt: &at, UpdatedAt: at, Version: 1,
	}
}

// PendingRow returns m after its invitation was sent.
func PendingRow(m *clerkinvite.Member) *clerkinvite.Member {
	n, at := *m, RowTime.Add(time.Hour)
	n.Status, n.Sent, n.InvitationID, n.ClerkUserID = clerkinvite.StatusPending, n.Send, "inv_"+m.ID, "pending_inv_"+m.ID
	n.InvitedAt, n.SettledAt, n.ExpiresAt, n.NextAttemptAt, n.UpdatedAt = &RowTime, &RowTime, &at, nil, at
	return &n
}

// ActiveRow returns m after the user joined.
func ActiveRow(m *clerkinvite.Member, userID string) *clerkinvite.Member {
	n := *PendingRow(m)
	n.Status, n.ClerkUserID = clerkinvite.StatusActive, userID
	return &n
}

// InsertRows inserts new rows.
func InsertRows(t *testing.T, store clerkinvite.TxStore, rows ...*clerkinvite.Member) []*clerkinvite.Member {
	t.Helper()
	results, err := store.Insert(t.Context(), rows)
	return Members(t, results, err)
}

// UpdateRows makes changes and requires success.
func UpdateRows(t *testing.T, store clerkinvite.TxStore, changes ...clerkinvite.Change) []*clerkinvite.Member {
	t.Helper()
	results, err := store.Update(t.Context(), changes)
	return Members(t, results, err)
}

// Members requires success and returns the members.
func Members(t *testing.T, results []clerkinvite.Result, err error) (list []*clerkinvite.Member) {
	t.Helper()
	require.NoError(t, err)
	for _, r := range results {
		require.NoError(t, r.Err)
		list = append(list, r.Member)
	}
	return list
}

var pgxModes = []pgx.QueryExecMode{
	pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec,
	pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
}

// InEveryMode runs f for each query execution mode of pgx, or with -short for the default mode and a random one.
func InEveryMode(t *testing.T, f func(t *testing.T, mode func(*pgxpool.Config))) {
	modes := pgxModes
	if testing.Short() {
		modes = []pgx.QueryExecMode{pgxModes[0], pgxModes[1+Random(t).IntN(len(pgxModes)-1)]}
	}
	InModes(t, modes, f)
}

// InModes runs f for each of the modes.
func InModes(t *testing.T, modes []pgx.QueryExecMode, f func(t *testing.T, mode func(*pgxpool.Config))) {
	for _, mode := range modes {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			f(t, func(c *pgxpool.Config) { c.ConnConfig.DefaultQueryExecMode = mode })
		})
	}
}

// NewPgxStore returns a store on an empty database, and its pool.
func NewPgxStore(t *testing.T, opts ...func(*pgxpool.Config)) (*clerkinvite.PgxStore, *pgxpool.Pool) {
	t.Helper()
	pool := pgtest.New(t).Pool(t, opts...)
	store := clerkinvite.NewPgxStore(pool, nil)
	require.NoError(t, store.Migrate(t.Context()))
	return store, pool
}

// OwnResolver gives a pool in a synctest bubble its own resolver. Goroutines outside the bubble share the default one.
func OwnResolver(c *pgxpool.Config) { c.ConnConfig.LookupFunc = new(net.Resolver).LookupHost }

// QueryOne returns the value of a query that returns one.
func QueryOne[T any](t *testing.T, db interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}, sql string, args ...any) (v T) {
	t.Helper()
	require.NoError(t, db.QueryRow(context.WithoutCancel(t.Context()), sql, args...).Scan(&v))
	return v
}

// RefuseRows makes a trigger refuse all writes of a tenant's rows, in the tables of this name in any schema.
func RefuseRows(ctx context.Context, pool *pgxpool.Pool, table, tenantID string) error {
	_, err := pool.Exec(ctx, fmt.Sprintf(`
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $f$
BEGIN
	IF coalesce(NEW.tenant_id, OLD.tenant_id) = '%s' THEN RAISE 'refused'; END IF;
	RETURN coalesce(NEW, OLD);
END $f$;
DO $d$
DECLARE t regclass;
BEGIN
	FOR t IN SELECT oid FROM pg_class WHERE relname = '%s' LOOP
		EXECUTE format('CREATE TRIGGER refuse BEFORE INSERT OR UPDATE OR DELETE ON %%s FOR EACH ROW EXECUTE FUNCTION refuse()', t);
	END LOOP;
END $d$`, tenantID, table))
	return err
}

// AwaitLocks waits until n statements wait for a lock.
func AwaitLocks(t *testing.T, pool *pgxpool.Pool, n int) {
	t.Helper()
	Await(t, "statements that wait for a lock", func() bool {
		return QueryOne[int](t, pool, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) >= n
	})
}
