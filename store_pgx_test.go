package clerkinvite_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
	"github.com/clerkinvite/clerkinvite/storetest"
)

// A page can be longer than usual pages.
func TestPgxStoreLimits(t *testing.T) {
	t.Parallel()
	store, _ := testkit.NewPgxStore(t)
	rows := make([]*clerkinvite.Member, 1200)
	for i := range rows {
		rows[i] = testkit.ReservedRow("acme", fmt.Sprintf("%d@example.com", i))
	}
	testkit.InsertRows(t, store, rows...)
	reserved := []clerkinvite.Status{clerkinvite.StatusReserved, clerkinvite.StatusPending}
	for _, limit := range []int{1, 1000, 1001, 1002, 1199, 1200, 1300} {
		due, err := store.Due(t.Context(), clerkinvite.DueQuery{At: testkit.RowTime, Limit: limit})
		require.NoError(t, err)
		require.Len(t, due, min(limit, 1200))
		for _, q := range []clerkinvite.PageQuery{
			{}, {TenantID: "acme"}, {TenantID: "acme", Statuses: reserved}, {TenantID: "acme", EmailPrefix: "1"},
		} {
			q.Limit = limit
			found, err := store.Page(t.Context(), q)
			require.NoError(t, err)
			want := min(limit, 1200)
			if q.EmailPrefix != "" {
				want = min(limit, 311) // 1, 10 to 19, 100 to 199 and 1000 to 1199
			}
			require.Len(t, found, want, "%+v", q)
		}
	}
}

// runModes are the most different modes, for slow tests. TestPgxStoreStatements runs
// each statement in all of them.
var runModes = []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeSimpleProtocol}

func TestPgxStore(t *testing.T) {
	t.Parallel()
	testkit.InModes(t, runModes, func(t *testing.T, mode func(*pgxpool.Config)) {
		storetest.Run(t, func(t *testing.T) clerkinvite.Store {
			pool := pgtest.New(t).Pool(t, mode, func(c *pgxpool.Config) { c.MaxConns = 8 })
			var opts *clerkinvite.PgxOptions
			if pool.Config().ConnConfig.DefaultQueryExecMode == pgx.QueryExecModeSimpleProtocol {
				// Two in one, because each run takes seconds: a schema of any name, off the search_path.
				opts = &clerkinvite.PgxOptions{Schema: `Odd "Schema" $1 clerkinvite_member`}
			}
			store := clerkinvite.NewPgxStore(pool, opts)
			require.NoError(t, store.Migrate(t.Context()))
			t.Cleanup(func() {
				// The store repeats after a deadlock, so the suite would not see one.
				if !strings.HasSuffix(t.Name(), "/Email/OppositeOrders") { // exchanged addresses have no order
					assert.Zero(t, testkit.QueryOne[int](t, pool, `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`), "deadlocks")
				}
			})
			return refusing{store, pool}
		})
	})
}

// refusing is a store of the suite with its database.
type refusing struct {
	*clerkinvite.PgxStore
	pool *pgxpool.Pool
}

// Refuse lets the suite check that a refused row fails alone.
func (s refusing) Refuse(ctx context.Context, tenantID string) error {
	return testkit.RefuseRows(ctx, s.pool, "clerkinvite_member", tenantID)
}

// A store takes a pool or a connection, but not a transaction.
var (
	_ clerkinvite.PgxDB = (*pgxpool.Pool)(nil)
	_ clerkinvite.PgxDB = (*pgx.Conn)(nil)
	_ clerkinvite.Store = (*clerkinvite.PgxStore)(nil)
)

func TestPromise7_PgxStoreTakesNoTransaction(t *testing.T) {
	t.Parallel()
	_, pool := testkit.NewPgxStore(t)
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(t.Context()) }()
	savepoint, err := tx.Begin(t.Context())
	require.NoError(t, err)
	for _, tx := range []any{tx, savepoint} {
		_, ok := tx.(clerkinvite.PgxDB)
		assert.Falsef(t, ok, "%T fits PgxDB", tx)
	}
	conn, err := pgx.Connect(t.Context(), pool.Config().ConnString())
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	plain, err := conn.Begin(t.Context())
	require.NoError(t, err)
	_, ok := plain.(clerkinvite.PgxDB)
	assert.Falsef(t, ok, "%T fits PgxDB", plain)

	var inTx any = clerkinvite.NewPgxStore(pool, nil).WithTx(tx)
	_, ok = inTx.(clerkinvite.Store)
	assert.Falsef(t, ok, "%T is a Store", inTx)
}

func TestPgxStoreWithTx(t *testing.T) {
	t.Parallel()
	testkit.InEveryMode(t, func(t *testing.T, mode func(*pgxpool.Config)) {
		store, pool := testkit.NewPgxStore(t, mode)
		ctx := t.Context()
		_, err := pool.Exec(ctx, `CREATE TABLE host (id int PRIMARY KEY)`)
		require.NoError(t, err)
		exec := func(tx pgx.Tx, id int) {
			t.Helper()
			_, err := tx.Exec(ctx, `INSERT INTO host VALUES ($1)`, id)
			require.NoError(t, err)
		}
		count := func(table string) int { return testkit.QueryOne[int](t, pool, `SELECT count(*) FROM `+table) }
		begin := func() pgx.Tx {
			t.Helper()
			tx, err := pool.Begin(ctx)
			require.NoError(t, err)
			return tx
		}
		there := testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "there@example.com"))[0]

		// Rolled back: neither is written.
		tx := begin()
		exec(tx, 1)
		testkit.InsertRows(t, store.WithTx(tx), testkit.ReservedRow("tenant", "x@example.com"))
		require.NoError(t, tx.Rollback(ctx))
		require.Zero(t, count("host"))
		require.Equal(t, 1, count("clerkinvite_member"))
		require.Equal(t, 1, count("clerkinvite_history"))

		// Committed: both are written. A duplicate, even of a row of this transaction, or a taken user or address does not abort it.
		tx = begin()
		exec(tx, 1)
		inTx := store.WithTx(tx)
		own := testkit.InsertRows(t, inTx, testkit.ReservedRow("tenant", "x@example.com"))[0]
		results, err := inTx.Insert(ctx, []*clerkinvite.Member{
			testkit.ReservedRow("tenant", "there@example.com"), testkit.ReservedRow("tenant", "x@example.com"), testkit.ReservedRow("tenant", "y@example.com"),
		})
		require.NoError(t, err)
		for i, existing := range []*clerkinvite.Member{there, own} {
			var dup *clerkinvite.DuplicateEmailError
			require.ErrorAs(t, results[i].Err, &dup)
			require.Equal(t, existing, dup.Member)
		}
		require.NoError(t, results[2].Err)
		exec(tx, 2)
		active := testkit.UpdateRows(t, inTx, clerkinvite.Change{Old: own, New: testkit.ActiveRow(own, "user_1")})[0]
		other := results[2].Member
		results, err = inTx.Update(ctx, []clerkinvite.Change{
			{Old: other, New: testkit.ActiveRow(other, "user_1")}, {Old: there, New: testkit.ActiveRow(there, "user_2")}, {Old: own, New: testkit.ActiveRow(own, "user_3")},
		})
		require.NoError(t, err)
		require.ErrorIs(t, results[0].Err, clerkinvite.ErrUserTaken)
		require.NoError(t, results[1].Err)
		require.ErrorIs(t, results[2].Err, clerkinvite.ErrConflict)
		taken := *results[1].Member
		taken.Email = "x@example.com"
		results, err = inTx.Update(ctx, []clerkinvite.Change{{Old: results[1].Member, New: &taken}})
		require.NoError(t, err)
		require.ErrorIs(t, results[0].Err, clerkinvite.ErrEmailTaken)
		exec(tx, 3)
		require.NoError(t, tx.Commit(ctx))
		require.Equal(t, 3, count("host"))
		require.Equal(t, 3, count("clerkinvite_member"))
		require.Equal(t, 5, count("clerkinvite_history"))
		found, err := store.Find(ctx, clerkinvite.Query{UserIDs: []string{"user_1"}})
		require.NoError(t, err)
		require.Equal(t, []*clerkinvite.Member{active}, found)
	})
}

// The call waits for another transaction that reserves the address, and finds the row when it commits.
func TestPgxStoreWithTxWaits(t *testing.T) {
	t.Parallel()
	var asked testkit.Statements
	store, pool := testkit.NewPgxStore(t, testkit.Tracing(&asked))
	first, err := pool.Begin(t.Context())
	require.NoError(t, err)
	winner := testkit.InsertRows(t, store.WithTx(first), testkit.ReservedRow("tenant", "x@example.com"))[0]
	second, err := pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = second.Rollback(t.Context()) }()
	asked.Take()

	insert := func(store clerkinvite.TxStore) func() {
		return func() {
			results, err := store.Insert(t.Context(), []*clerkinvite.Member{testkit.ReservedRow("tenant", "x@example.com")})
			var dup *clerkinvite.DuplicateEmailError
			if err != nil || !errors.As(results[0].Err, &dup) {
				t.Errorf("Insert: %v, %v; want a duplicate", results, err)
				return
			}
			assert.Equal(t, winner, dup.Member)
		}
	}
	var done sync.WaitGroup
	done.Go(insert(store.WithTx(second)))
	done.Go(insert(store))
	testkit.AwaitLocks(t, pool, 2)
	require.NoError(t, first.Commit(t.Context()))
	done.Wait()
	require.Equal(t, map[string]int{"insert": 2, "find": 2}, asked.Kinds())
}

// A row committed after the snapshot of a stricter transaction is PostgreSQL's
// serialization failure, and the host must repeat.
func TestPgxStoreWithTxRepeatableRead(t *testing.T) {
	t.Parallel()
	store, pool := testkit.NewPgxStore(t)
	for _, level := range []pgx.TxIsoLevel{pgx.RepeatableRead, pgx.Serializable} {
		tx, err := pool.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: level})
		require.NoError(t, err)
		testkit.QueryOne[int](t, tx, `SELECT 1`) // takes the snapshot
		tenant := string(level)
		testkit.InsertRows(t, store, testkit.ReservedRow(tenant, "x@example.com"))
		testkit.InsertRows(t, store.WithTx(tx), testkit.ReservedRow(tenant, "y@example.com"))
		_, err = store.WithTx(tx).Insert(t.Context(), []*clerkinvite.Member{testkit.ReservedRow(tenant, "x@example.com")})
		var pg *pgconn.PgError
		require.ErrorAs(t, err, &pg)
		require.Equal(t, "40001", pg.Code)
		require.NoError(t, tx.Rollback(t.Context()))
	}
}

// insertBehind inserts the address that tx has locked, commits tx while the insert waits, and requires that
// the row is new.
func insertBehind(t *testing.T, store *clerkinvite.PgxStore, pool *pgxpool.Pool, tx pgx.Tx) {
	t.Helper()
	row := testkit.ReservedRow("tenant", "x@example.com")
	var results []clerkinvite.Result
	var err error
	var done sync.WaitGroup
	done.Go(func() { results, err = store.Insert(t.Context(), []*clerkinvite.Member{row}) })
	testkit.AwaitLocks(t, pool, 1)
	require.NoError(t, tx.Commit(t.Context()))
	done.Wait()
	require.Equal(t, row.ID, testkit.Members(t, results, err)[0].ID)
}

// The conflicting row is purged before Insert reads it: Insert tries again.
func TestPgxStore_ConflictingRowPurgedBeforeTheLookUp(t *testing.T) {
	t.Parallel()
	var asked testkit.Statements
	store, pool := testkit.NewPgxStore(t, testkit.Tracing(&asked), func(c *pgxpool.Config) { c.MaxConns = 8 })
	hidden, err := pool.Begin(t.Context())
	require.NoError(t, err)
	testkit.InsertRows(t, store.WithTx(hidden), testkit.ReservedRow("tenant", "x@example.com"))
	asked.Take()
	// The row is committed while our Insert waits for it, and deleted before our Insert looks for it.
	asked.Before("LATERAL", func() {
		_, err := pool.Exec(context.Background(), `DELETE FROM clerkinvite_member`)
		assert.NoError(t, err)
	})
	insertBehind(t, store, pool, hidden)
	require.Equal(t, map[string]int{"insert": 2, "find": 1}, asked.Kinds())
	require.Equal(t, 1, testkit.QueryOne[int](t, pool, `SELECT count(*) FROM clerkinvite_history`))
}

// Insert waits for a transaction that deletes the row. Then the address is free.
func TestPgxStore_InsertWaitsForADelete(t *testing.T) {
	t.Parallel()
	store, pool := testkit.NewPgxStore(t)
	testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "x@example.com"))
	purge, err := pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = purge.Exec(t.Context(), `DELETE FROM clerkinvite_member`)
	require.NoError(t, err)
	insertBehind(t, store, pool, purge)
}

// A new row that violates a key fails alone, and the transaction can continue.
func TestPgxStore_ViolatedKeyFailsOnlyItsRow(t *testing.T) {
	t.Parallel()
	store, pool := testkit.NewPgxStore(t)
	there := testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "there@example.com"))[0]
	active := testkit.ActiveRow(testkit.ReservedRow("tenant", "active@example.com"), "user_1")
	testkit.InsertRows(t, store, active)
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	for _, st := range []clerkinvite.TxStore{store.WithTx(tx), store} {
		sameID := testkit.ReservedRow("tenant", "other@example.com")
		sameID.ID = there.ID
		results, err := st.Insert(t.Context(), []*clerkinvite.Member{
			sameID, testkit.ActiveRow(testkit.ReservedRow("tenant", "second@example.com"), "user_1"), testkit.ReservedRow("tenant", "there@example.com"),
		})
		require.NoError(t, err)
		require.ErrorIs(t, results[0].Err, clerkinvite.ErrConflict)
		require.ErrorIs(t, results[1].Err, clerkinvite.ErrUserTaken)
		require.Equal(t, "active@example.com", results[1].Member.Email)
		var dup *clerkinvite.DuplicateEmailError
		require.ErrorAs(t, results[2].Err, &dup)
	}
	require.NoError(t, tx.Commit(t.Context()))
}

// A row that the tables reject fails alone.
func TestPgxStore_IllegalRowDoesNotBlockOthers(t *testing.T) {
	t.Parallel()
	store, _ := testkit.NewPgxStore(t)
	var rows []*clerkinvite.Member
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		rows = append(rows, testkit.ReservedRow("tenant", name+"@example.com"))
	}
	rows = testkit.InsertRows(t, store, rows...)
	testkit.UpdateRows(t, store, clerkinvite.Change{Old: rows[4], New: testkit.ActiveRow(rows[4], "user_1")})
	illegal := *rows[2]
	illegal.Attempts = -1
	changes := []clerkinvite.Change{
		{Old: rows[0], New: testkit.ActiveRow(rows[0], "user_1")}, {Old: rows[1], New: testkit.PendingRow(rows[1])},
		{Old: rows[2], New: &illegal}, {Old: rows[3], New: testkit.PendingRow(rows[3])},
	}
	var pg *pgconn.PgError
	results, err := store.Update(t.Context(), changes)
	require.NoError(t, err)
	require.ErrorIs(t, results[0].Err, clerkinvite.ErrUserTaken)
	require.NoError(t, results[1].Err)
	require.ErrorAs(t, results[2].Err, &pg)
	require.Equal(t, "23514", pg.Code)
	require.NoError(t, results[3].Err)
}

// A host's unique key, violated by its trigger, is the error of that member only, also of an erasure.
func TestPgxStore_HostKeyViolatedByATrigger(t *testing.T) {
	t.Parallel()
	store, pool := testkit.NewPgxStore(t)
	rows := testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "kept@example.com"), testkit.ReservedRow("tenant", "erased@example.com"))
	_, err := pool.Exec(t.Context(), `CREATE TABLE leaver (email text PRIMARY KEY);
		INSERT INTO leaver VALUES ('kept@example.com');
		CREATE FUNCTION leave() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO leaver VALUES (OLD.email); RETURN NULL; END $$;
		CREATE TRIGGER leaves AFTER DELETE ON clerkinvite_member FOR EACH ROW EXECUTE FUNCTION leave()`)
	require.NoError(t, err)
	results, err := store.Update(t.Context(), []clerkinvite.Change{{Old: rows[0]}, {Old: rows[1]}})
	require.NoError(t, err)
	require.True(t, clerkinvite.IsUniqueViolation(results[0].Err, "leaver_pkey"), results[0].Err)
	require.NoError(t, results[1].Err)

	clerk := clerkinvitetest.NewClerk()
	b := testkit.New(t, testkit.Options{}, clerk, clerk, store)
	require.True(t, clerkinvite.IsUniqueViolation(b.Purge(t.Context(), rows[0].Ref()), "leaver_pkey"))

	// In the host's transaction nothing can be written after the error, so the whole call fails.
	_, err = pool.Exec(t.Context(), `CREATE TRIGGER moves AFTER UPDATE ON clerkinvite_member FOR EACH ROW EXECUTE FUNCTION leave()`)
	require.NoError(t, err)
	row, err := b.Get(t.Context(), rows[0].Ref())
	require.NoError(t, err)
	other := testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "other@example.com"))[0]
	changes := []clerkinvite.Change{{Old: other, New: other.Clone()}, {Old: row, New: row.Clone()}}
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = store.WithTx(tx).Update(t.Context(), changes)
	require.True(t, clerkinvite.IsUniqueViolation(err, "leaver_pkey"), err)
	require.NoError(t, tx.Rollback(t.Context()))
}

// A batch that deadlocks again and again is split, because smaller ones hold fewer locks.
func TestPgxStore_DeadlocksSplitABatch(t *testing.T) {
	t.Parallel()
	store, pool := testkit.NewPgxStore(t)
	rows := testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "a@example.com"), testkit.ReservedRow("tenant", "b@example.com"), testkit.ReservedRow("tenant", "c@example.com"))
	_, err := pool.Exec(t.Context(), `CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN IF (SELECT count(*) FROM written) > 1 THEN RAISE SQLSTATE '40P01'; END IF; RETURN NULL; END $$;
		CREATE TRIGGER inserts AFTER INSERT ON clerkinvite_member REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION trouble();
		CREATE TRIGGER updates AFTER UPDATE ON clerkinvite_member REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION trouble()`)
	require.NoError(t, err)
	testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "d@example.com"), testkit.ReservedRow("tenant", "e@example.com"))
	var changes []clerkinvite.Change
	for _, row := range rows {
		changes = append(changes, clerkinvite.Change{Old: row, New: testkit.PendingRow(row)})
	}
	for _, m := range testkit.UpdateRows(t, store, changes...) {
		require.Equal(t, clerkinvite.StatusPending, m.Status)
	}
}

// noCodec is a host's codec that cannot handle the library's values.
type noCodec struct{ pgtype.TextCodec }

func (noCodec) PlanEncode(*pgtype.Map, uint32, int16, any) pgtype.EncodePlan { return nil }

func (noCodec) PlanScan(*pgtype.Map, uint32, int16, any) pgtype.ScanPlan { return nil }

// Codecs that a host registers for its types do not affect the store.
func TestPgxStoreHostCodecs(t *testing.T) {
	t.Parallel()
	testkit.InEveryMode(t, func(t *testing.T, mode func(*pgxpool.Config)) {
		store, _ := testkit.NewPgxStore(t, mode, func(c *pgxpool.Config) {
			c.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
				for name, oid := range map[string]uint32{"json": pgtype.JSONOID, "jsonb": pgtype.JSONBOID, "uuid": pgtype.UUIDOID, "numeric": pgtype.NumericOID} {
					conn.TypeMap().RegisterType(&pgtype.Type{Name: name, OID: oid, Codec: noCodec{}})
				}
				berlin := time.FixedZone("Europe/Berlin", 3600)
				conn.TypeMap().RegisterType(&pgtype.Type{Name: "timestamptz", OID: pgtype.TimestamptzOID, Codec: &pgtype.TimestamptzCodec{ScanLocation: berlin}})
				return nil
			}
		})
		m := testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "x@example.com"))[0]
		m = testkit.UpdateRows(t, store, clerkinvite.Change{Old: m, New: testkit.ActiveRow(m, "user_1")})[0]
		found, err := store.Find(t.Context(), clerkinvite.Query{IDs: []string{m.ID}})
		require.NoError(t, err)
		require.Equal(t, []*clerkinvite.Member{m}, found)
		require.Equal(t, time.UTC, m.UpdatedAt.Location())
		found, err = store.Page(t.Context(), clerkinvite.PageQuery{
			TenantID: "tenant", Statuses: []clerkinvite.Status{m.Status}, AfterTenantID: "tenant", AfterID: "00000000-0000-0000-0000-000000000000",
		})
		require.NoError(t, err)
		require.Equal(t, []*clerkinvite.Member{m}, found)
		moves, err := store.History(t.Context(), "tenant", m.ID)
		require.NoError(t, err)
		require.Len(t, moves, 2)
		require.Equal(t, clerkinvite.HistoryEntry{
			Version: 2, From: clerkinvite.StatusReserved, To: clerkinvite.StatusActive, Send: 1, Sent: 1, ClerkUserID: "user_1",
			InvitationID: m.InvitationID, Role: m.Role, At: m.UpdatedAt,
		}, moves[1])
		require.Equal(t, "editor", moves[1].Role)
		require.Equal(t, m, testkit.UpdateRows(t, store, clerkinvite.Change{Old: m})[0])
		var known time.Time
		for _, next := range []time.Time{testkit.RowTime, testkit.RowTime.Add(time.Hour)} {
			known, err = store.SwapTime(t.Context(), "create", known, next)
			require.NoError(t, err)
			require.Equal(t, next, known)
		}
		require.NoError(t, store.Validate(t.Context()))
	})
}

// The number of statements of each operation is fixed.
func TestPgxStoreStatements(t *testing.T) {
	t.Parallel()
	testkit.InEveryMode(t, func(t *testing.T, mode func(*pgxpool.Config)) {
		var asked testkit.Statements
		store, _ := testkit.NewPgxStore(t, mode, testkit.Tracing(&asked))
		asked.Take()
		rows := make([]*clerkinvite.Member, 50)
		for i := range rows {
			rows[i] = testkit.ReservedRow("tenant", string(rune('a'+i%26))+string(rune('a'+i/26))+"@example.com")
		}
		rows = testkit.InsertRows(t, store, rows...)
		require.Len(t, asked.Take(), 1, "insert")

		results, err := store.Insert(t.Context(), []*clerkinvite.Member{testkit.ReservedRow("tenant", rows[0].Email), testkit.ReservedRow("tenant", "new@example.com")})
		require.NoError(t, err)
		require.Error(t, results[0].Err)
		require.NoError(t, results[1].Err)
		require.Len(t, asked.Take(), 1, "duplicate")

		var changes []clerkinvite.Change
		for _, m := range rows[:49] {
			changes = append(changes, clerkinvite.Change{Old: m, New: testkit.ActiveRow(m, "user_"+m.ID)})
		}
		testkit.UpdateRows(t, store, changes...)
		require.Len(t, asked.Take(), 1, "update")
		results, err = store.Update(t.Context(), changes)
		require.NoError(t, err)
		require.ErrorIs(t, results[0].Err, clerkinvite.ErrConflict)
		require.Len(t, asked.Take(), 1, "conflict")

		_, err = store.Update(t.Context(), []clerkinvite.Change{{Old: rows[49], New: testkit.ActiveRow(rows[49], "user_"+rows[0].ID)}})
		require.NoError(t, err)
		require.Len(t, asked.Take(), 1, "user taken")

		_, err = store.Find(t.Context(), clerkinvite.Query{
			Refs: []clerkinvite.Ref{rows[0].Ref()}, IDs: []string{rows[1].ID}, Emails: []string{rows[2].Email}, UserIDs: []string{"user_1"},
		})
		require.NoError(t, err)
		require.Len(t, asked.Take(), 1, "find")
		_, err = store.Due(t.Context(), clerkinvite.DueQuery{At: testkit.RowTime})
		require.NoError(t, err)
		require.Len(t, asked.Take(), 1, "due")
		_, err = store.Find(t.Context(), clerkinvite.Query{IDs: []string{"nonsense"}})
		require.NoError(t, err)
		require.Empty(t, asked.Take(), "find nothing")

		for i, q := range []clerkinvite.PageQuery{
			{}, {TenantID: "tenant"}, {TenantID: "tenant", EmailPrefix: "a"},
			{TenantID: "tenant", Statuses: []clerkinvite.Status{clerkinvite.StatusReserved, clerkinvite.StatusActive}},
		} {
			q.Limit = 2
			found, err := store.Page(t.Context(), q)
			require.NoError(t, err)
			require.Len(t, found, 2)
			require.Len(t, asked.Take(), 1, "page %d", i)
		}
		_, err = store.History(t.Context(), "tenant", rows[0].ID)
		require.NoError(t, err)
		require.Len(t, asked.Take(), 1, "history")

		for _, swap := range []struct{ old, next time.Time }{
			{time.Time{}, time.Time{}}, {time.Time{}, testkit.RowTime}, {time.Time{}, testkit.RowTime.Add(1)}, {testkit.RowTime, testkit.RowTime.Add(time.Hour)}, {testkit.RowTime, testkit.RowTime},
		} {
			_, err = store.SwapTime(t.Context(), "create", swap.old, swap.next)
			require.NoError(t, err)
			require.Len(t, asked.Take(), 1, "swap")
		}

		gone := testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "gone@example.com"))[0]
		asked.Take()
		testkit.UpdateRows(t, store, clerkinvite.Change{Old: gone}, clerkinvite.Change{Old: rows[49], New: testkit.PendingRow(rows[49])})
		require.Len(t, asked.Take(), 1, "erase")
		testkit.UpdateRows(t, store, clerkinvite.Change{Old: gone})
		require.Len(t, asked.Take(), 2, "erased already")
	})
}

// The history has one row for each state change, and no others.
func TestPgxStoreHistory(t *testing.T) {
	t.Parallel()
	store, pool := testkit.NewPgxStore(t)
	m := testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "x@example.com"))[0]
	claimed := *m
	claimed.Attempts, claimed.ClaimedUntil = 1, &testkit.RowTime
	m = testkit.UpdateRows(t, store, clerkinvite.Change{Old: m, New: &claimed})[0]
	m = testkit.UpdateRows(t, store, clerkinvite.Change{Old: m, New: testkit.PendingRow(m)})[0]
	resend := *m
	resend.Send, resend.NextAttemptAt = 2, &testkit.RowTime
	m = testkit.UpdateRows(t, store, clerkinvite.Change{Old: m, New: &resend})[0]
	removed := *testkit.ActiveRow(m, "")
	removed.Status, removed.Reason = clerkinvite.StatusRemoved, "user_deleted"
	m = testkit.UpdateRows(t, store, clerkinvite.Change{Old: m, New: &removed})[0]

	type move struct {
		Version           int64
		From, To          *string
		Send, Sent        int
		User, Inv, Reason *string
		At                time.Time
	}
	rows, err := pool.Query(t.Context(), `
SELECT version, from_status, to_status, send, sent, clerk_user_id, invitation_id, reason, at
FROM clerkinvite_history WHERE tenant_id = 'tenant' AND member_id = $1 ORDER BY version`, m.ID)
	require.NoError(t, err)
	moves, err := pgx.CollectRows(rows, pgx.RowToStructByPos[move])
	require.NoError(t, err)
	for i := range moves {
		moves[i].At = moves[i].At.UTC()
	}
	p := func(s string) *string { return &s }
	inv, pending, later := p(m.InvitationID), p("pending_"+m.InvitationID), testkit.RowTime.Add(time.Hour)
	require.Equal(t, []move{
		{1, nil, p("reserved"), 1, 0, nil, nil, nil, testkit.RowTime},
		{3, p("reserved"), p("pending"), 1, 1, pending, inv, nil, later},
		{4, p("pending"), p("pending"), 2, 1, pending, inv, nil, later},
		{5, p("pending"), p("removed"), 2, 2, nil, inv, p("user_deleted"), later},
	}, moves)

	// It is erased with the row.
	_, err = pool.Exec(t.Context(), `DELETE FROM clerkinvite_member`)
	require.NoError(t, err)
	require.Zero(t, testkit.QueryOne[int](t, pool, `SELECT count(*) FROM clerkinvite_history`))
}

// Of two host transactions that reserve in different orders, one ends with 40P01, as documented, and succeeds
// when it is repeated.
func TestWithTx_Deadlock(t *testing.T) {
	t.Parallel()
	store, pool := testkit.NewPgxStore(t)
	clerk := clerkinvitetest.NewClerk()
	b := testkit.New(t, testkit.Options{}, clerk, clerk, store)
	reserve := func(tx pgx.Tx, email string) error {
		_, err := b.InTx(store.WithTx(tx)).Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: email})
		return err
	}
	var txs [2]pgx.Tx
	for i, email := range []string{"ada@example.com", "grace@example.com"} {
		tx, err := pool.Begin(t.Context())
		require.NoError(t, err)
		txs[i] = tx
		require.NoError(t, reserve(tx, email))
	}
	var errs [2]error
	var done sync.WaitGroup
	for i, email := range []string{"grace@example.com", "ada@example.com"} {
		done.Go(func() {
			if errs[i] = reserve(txs[i], email); errs[i] != nil {
				_ = txs[i].Rollback(t.Context())
			}
		})
	}
	done.Wait()
	loser := slices.IndexFunc(errs[:], func(err error) bool { return err != nil })
	require.NotEqual(t, -1, loser)
	var pg *pgconn.PgError
	require.ErrorAs(t, errs[loser], &pg)
	require.Equal(t, "40P01", pg.Code)
	require.NoError(t, errs[1-loser])
	require.NoError(t, txs[1-loser].Commit(t.Context()))

	var dup *clerkinvite.DuplicateEmailError
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	for _, email := range []string{"ada@example.com", "grace@example.com"} {
		require.ErrorAs(t, reserve(tx, email), &dup)
	}
	require.NoError(t, tx.Commit(t.Context()))
}

// Replicas start at the same time, each with its own pool.
func TestMigrate_ConcurrentCalls(t *testing.T) {
	t.Parallel()
	for _, opts := range []*clerkinvite.PgxOptions{nil, {Schema: `Odd "Schema"; --`}} {
		db := pgtest.New(t)
		var done sync.WaitGroup
		for range 4 {
			store := clerkinvite.NewPgxStore(db.Pool(t), opts)
			for range 4 {
				done.Go(func() {
					assert.NoError(t, store.Migrate(t.Context()))
					assert.NoError(t, store.Validate(t.Context()))
				})
			}
		}
		done.Wait()
		assert.Equal(t, 4, testkit.QueryOne[int](t, db.Pool(t), `SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname LIKE 'clerkinvite%'`))
	}
}

// Two replicas have found that the tables do not exist, and both create them: PostgreSQL lets a
// connection remember that a table does not exist while it waits for the lock.
func TestMigrate_OnAConnectionThatRemembersMissingTables(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	conn, err := pgx.Connect(t.Context(), db.DSN)
	require.NoError(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	late := clerkinvite.NewPgxStore(conn, nil)
	require.Error(t, late.Validate(t.Context()))

	pool := db.Pool(t)
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `SELECT pg_advisory_xact_lock($1::bigint)`, int64(0x636c65726b696e76))
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- late.Migrate(t.Context()) }()
	testkit.Await(t, "the late one waits for the lock", func() bool {
		return testkit.QueryOne[int](t, pool, `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`) == 1
	})
	up, err := fs.ReadFile(clerkinvite.Migrations(), "001_init.up.sql")
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `CREATE TABLE clerkinvite_migration (version integer PRIMARY KEY, applied_at timestamptz NOT NULL);
		INSERT INTO clerkinvite_migration VALUES (1, now());`+string(up), pgx.QueryExecModeSimpleProtocol)
	require.NoError(t, err)
	require.NoError(t, tx.Commit(t.Context()))
	require.NoError(t, <-done)
	require.NoError(t, late.Validate(t.Context()))
}

func TestMigrateInEveryMode(t *testing.T) {
	t.Parallel()
	testkit.InEveryMode(t, func(t *testing.T, mode func(*pgxpool.Config)) {
		db := pgtest.New(t)
		store := clerkinvite.NewPgxStore(db.Pool(t, mode), &clerkinvite.PgxOptions{Schema: "app"})
		require.Error(t, store.Validate(t.Context()))
		for range 2 {
			require.NoError(t, store.Migrate(t.Context()))
			require.NoError(t, store.Validate(t.Context()))
		}
		testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "x@example.com"))
		pool := db.Pool(t)
		assert.Equal(t, 1, testkit.QueryOne[int](t, pool, `SELECT count(*) FROM app.clerkinvite_member`))
		assert.Equal(t, 1, testkit.QueryOne[int](t, pool, `SELECT version FROM app.clerkinvite_migration`))
		assert.Contains(t, testkit.QueryOne[string](t, db.Pool(t, mode), `SHOW search_path`), "public", "nothing stays in the session")
		require.Error(t, clerkinvite.NewPgxStore(pool, nil).Validate(t.Context()), "not on the search_path")
	})
}

// A role that may not create schemas can use an existing one.
func TestMigrate_ExistingSchema(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t).Pool(t)
	role := "r" + strings.ReplaceAll(testkit.ReservedRow("", "").ID, "-", "")
	for _, sql := range []string{"CREATE ROLE " + role, "CREATE SCHEMA app AUTHORIZATION " + role} {
		_, err := pool.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	t.Cleanup(func() {
		_, err := pool.Exec(context.Background(), "DROP OWNED BY "+role+"; DROP ROLE "+role)
		assert.NoError(t, err)
	})
	conn, err := pgx.Connect(t.Context(), pool.Config().ConnString())
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	_, err = conn.Exec(t.Context(), "SET ROLE "+role)
	require.NoError(t, err)
	store := clerkinvite.NewPgxStore(conn, &clerkinvite.PgxOptions{Schema: "app"})
	require.NoError(t, store.Migrate(t.Context()))
	require.NoError(t, store.Validate(t.Context()))
	require.Error(t, clerkinvite.NewPgxStore(conn, &clerkinvite.PgxOptions{Schema: "new"}).Migrate(t.Context()))
}

// PostgreSQL cuts names after 63 bytes, and quotes any name.
func TestMigrate_OddSchemas(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t).Pool(t)
	for _, schema := range []string{strings.Repeat("s", 64), strings.Repeat("\u00fc", 33), `we"ird. $1;--`, " ", `'\`} {
		store := clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{Schema: schema})
		require.NoError(t, store.Migrate(t.Context()), schema)
		require.NoError(t, store.Migrate(t.Context()), "again: %q", schema)
		require.NoError(t, store.Validate(t.Context()), schema)
	}
}

// A setting with which PostgreSQL shows all names in quotes.
func TestValidate_QuotedNames(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t).Pool(t)
	require.NoError(t, clerkinvite.NewPgxStore(pool, nil).Migrate(t.Context()))
	conn, err := pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	_, err = conn.Exec(t.Context(), "SET quote_all_identifiers = on")
	require.NoError(t, err)
	require.NoError(t, clerkinvite.NewPgxStore(conn.Conn(), nil).Validate(t.Context()))
}

// withRole returns a connection of a new role that has the privileges that migrations/README.md lists, with or without
// the last one.
func withRole(t *testing.T, pool *pgxpool.Pool, version bool) *pgx.Conn {
	t.Helper()
	page, err := os.ReadFile("migrations/README.md")
	require.NoError(t, err)
	_, grants, _ := strings.Cut(string(page), "```sql\nGRANT USAGE")
	grants, _, found := strings.Cut("GRANT USAGE"+grants, "```")
	require.True(t, found)
	require.Equal(t, 1, strings.Count(grants, "clerkinvite_migration"))
	role := newRole(t, pool)
	for line := range strings.Lines(grants) {
		if version || !strings.Contains(line, "clerkinvite_migration") {
			_, err := pool.Exec(t.Context(), strings.Replace(line, "TO app;", "TO "+role, 1))
			require.NoError(t, err)
		}
	}
	conn, err := pgx.Connect(t.Context(), pool.Config().ConnString())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	_, err = conn.Exec(t.Context(), "SET ROLE "+role)
	require.NoError(t, err)
	return conn
}

func newRole(t *testing.T, pool *pgxpool.Pool) string {
	t.Helper()
	role := "r" + strings.ReplaceAll(testkit.ReservedRow("", "").ID, "-", "")
	_, err := pool.Exec(t.Context(), "CREATE ROLE "+role)
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := pool.Exec(context.Background(), "DROP OWNED BY "+role+"; DROP ROLE "+role)
		assert.NoError(t, err)
	})
	return role
}

// The documented privileges are enough for everything that the library does.
func TestMigrate_DocumentedPrivileges(t *testing.T) {
	t.Parallel()
	for name, version := range map[string]bool{"all": true, "without the version": false, "with a hidden version": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.New(t).Pool(t)
			require.NoError(t, clerkinvite.NewPgxStore(pool, nil).Migrate(t.Context()))
			conn := withRole(t, pool, version)
			if name == "with a hidden version" {
				_, err := pool.Exec(t.Context(), `ALTER TABLE clerkinvite_migration ENABLE ROW LEVEL SECURITY; GRANT SELECT ON clerkinvite_migration TO PUBLIC`)
				require.NoError(t, err)
			}
			for _, store := range []*clerkinvite.PgxStore{clerkinvite.NewPgxStore(conn, nil), clerkinvite.NewPgxStore(conn, &clerkinvite.PgxOptions{Schema: "public"})} {
				require.NoError(t, store.Validate(t.Context()))
				require.NoError(t, store.Migrate(t.Context()))
				clerk := clerkinvitetest.NewClerk()
				b := testkit.New(t, testkit.Options{}, clerk, clerk, store)
				b.MustInvite(t, "ada@example.com")
				_, err := b.Reconcile(t.Context(), nil)
				require.NoError(t, err)
				_, err = store.Backlog(t.Context(), time.Now())
				require.NoError(t, err)
				require.NoError(t, b.Purge(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "ada@example.com"}))
			}

			_, err := pool.Exec(t.Context(), `DROP INDEX clerkinvite_member_due_idx; UPDATE clerkinvite_migration SET version = 0`)
			require.NoError(t, err)
			store := clerkinvite.NewPgxStore(conn, nil)
			require.ErrorContains(t, store.Validate(t.Context()), "has no index clerkinvite_member_due_idx")
			err = store.Migrate(t.Context())
			require.Error(t, err)
			if !version {
				require.ErrorContains(t, err, "has no index clerkinvite_member_due_idx")
				require.ErrorContains(t, err, "the role that created the tables")
			}
		})
	}
}

// On Supabase, default privileges give new tables to roles that anyone on the internet can use. A host's own default
// privileges stay.
func TestMigrate_DefaultPrivileges(t *testing.T) {
	t.Parallel()
	for name, migrate := range map[string]func(t *testing.T, pool *pgxpool.Pool){
		"Migrate": func(t *testing.T, pool *pgxpool.Pool) {
			t.Helper()
			require.NoError(t, clerkinvite.NewPgxStore(pool, nil).Migrate(t.Context()))
			require.NoError(t, clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{Schema: "second"}).Migrate(t.Context()))
		},
		"own tool": func(t *testing.T, pool *pgxpool.Pool) { t.Helper(); ownTool(t, pool, "up") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.New(t).Pool(t)
			app := newRole(t, pool)
			public := []string{"public"}
			if name == "Migrate" {
				public = append(public, "anon", "authenticated")
				for _, role := range public[1:] {
					_, err := pool.Exec(t.Context(), `DO $$ BEGIN CREATE ROLE `+role+`; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$`)
					require.NoError(t, err)
					// The role stays, because another test's Migrate may be about to revoke its privileges.
				}
			}
			_, err := pool.Exec(t.Context(), `ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO `+strings.Join(append(public, app), ", "))
			require.NoError(t, err)
			migrate(t, pool)
			const granted = `SELECT count(*) FROM pg_class, LATERAL aclexplode(relacl) WHERE relname LIKE 'clerkinvite%' AND relkind = 'r' AND grantee = $1::oid`
			for _, role := range public {
				oid := 0
				if role != "public" {
					oid = testkit.QueryOne[int](t, pool, `SELECT $1::regrole::oid::int`, role)
				}
				var n int
				require.NoError(t, pool.QueryRow(t.Context(), granted, oid).Scan(&n))
				require.Zero(t, n, role)
			}
			require.Positive(t, testkit.QueryOne[int](t, pool, granted, testkit.QueryOne[int](t, pool, `SELECT $1::regrole::oid::int`, app)))
		})
	}
}

// ownTool runs the migrations as a host's tool does.
func ownTool(t *testing.T, pool *pgxpool.Pool, direction string) {
	t.Helper()
	names, err := fs.Glob(clerkinvite.Migrations(), "*."+direction+".sql")
	require.NoError(t, err)
	require.NotEmpty(t, names)
	for _, name := range names {
		sql, err := fs.ReadFile(clerkinvite.Migrations(), name)
		require.NoError(t, err)
		_, err = pool.Exec(t.Context(), string(sql))
		require.NoError(t, err)
	}
}

func TestMigrations(t *testing.T) {
	t.Parallel()
	names, err := fs.Glob(clerkinvite.Migrations(), "*")
	require.NoError(t, err)
	for i, name := range names {
		assert.Regexp(t, fmt.Sprintf(`^%03d_[a-z_]+\.(down|up)\.sql$`, i/2+1), name)
	}

	pool := pgtest.New(t).Pool(t)
	store := clerkinvite.NewPgxStore(pool, nil)
	for range 2 {
		ownTool(t, pool, "up")
		require.NoError(t, store.Validate(t.Context()))
		require.ErrorContains(t, store.Migrate(t.Context()), "tool")
		require.NoError(t, store.Validate(t.Context()))
		testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "x@example.com"))
		ownTool(t, pool, "down")
		require.Zero(t, testkit.QueryOne[int](t, pool, `SELECT count(*) FROM pg_class WHERE relname LIKE 'clerkinvite%'`))
	}
	require.NoError(t, store.Migrate(t.Context()))
}

// Validate names each fault.
func TestValidate(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		sql  string
		want []string // nil means no fault
	}{
		{`ALTER TABLE clerkinvite_member ADD COLUMN host_note text`, nil},
		{`CREATE INDEX host_idx ON clerkinvite_member (role)`, nil},
		{`DROP TABLE clerkinvite_migration`, nil},
		{`DROP TABLE clerkinvite_limit`, []string{"the table clerkinvite_limit does not exist"}},
		{`DROP TABLE clerkinvite_member CASCADE`, []string{"the table clerkinvite_member does not exist", "no constraint clerkinvite_history_member_fkey"}},
		{`ALTER TABLE clerkinvite_member DROP COLUMN sent`, []string{
			"no column sent integer", "no constraint clerkinvite_member_send_check", "no constraint clerkinvite_member_due_check",
			"no index clerkinvite_member_due_idx (next_attempt_at)",
			"no index clerkinvite_member_turns_idx (bulk, tenant_id, next_attempt_at, id)",
		}},
		{`ALTER TABLE clerkinvite_member ALTER COLUMN version TYPE integer`, []string{"column version is integer, but must be bigint"}},
		{`ALTER TABLE clerkinvite_history RENAME COLUMN at TO moved_at`, []string{"no column at timestamp with time zone", "column moved_at requires a value"}},
		{`ALTER TABLE clerkinvite_member ADD COLUMN extra text NOT NULL`, []string{"column extra requires a value"}},
		{`ALTER TABLE clerkinvite_member ADD COLUMN extra text NOT NULL DEFAULT ''`, nil},
		{`ALTER TABLE clerkinvite_member ADD COLUMN extra bigint GENERATED ALWAYS AS IDENTITY`, nil},
		{`ALTER TABLE clerkinvite_member DROP CONSTRAINT clerkinvite_member_clerk_user_id_check`, []string{"no constraint clerkinvite_member_clerk_user_id_check"}},
		{`ALTER TABLE clerkinvite_member DROP CONSTRAINT clerkinvite_member_url_check; ALTER TABLE clerkinvite_member ADD CONSTRAINT clerkinvite_member_url_check CHECK (true) NOT VALID`,
			[]string{"constraint clerkinvite_member_url_check is not valid"}},
		{`DROP INDEX clerkinvite_member_email_key`, []string{"no index clerkinvite_member_email_key"}},
		{`DROP INDEX clerkinvite_member_user_key`, []string{"no index clerkinvite_member_user_key"}},
		{`DROP INDEX clerkinvite_member_user_key; CREATE INDEX clerkinvite_member_user_key ON clerkinvite_member (tenant_id, clerk_user_id)`,
			[]string{"index clerkinvite_member_user_key is (tenant_id, clerk_user_id), but must be unique (tenant_id, clerk_user_id) WHERE"}},
		{`DROP INDEX clerkinvite_member_email_key; CREATE UNIQUE INDEX clerkinvite_member_email_key ON clerkinvite_member (tenant_id, email) WHERE status = 'active'`,
			[]string{"index clerkinvite_member_email_key is unique (tenant_id, email) WHERE (status = 'active'::text), but must be unique (tenant_id, email) WHERE (email IS NOT NULL)"}},
		{`ALTER TABLE clerkinvite_limit DROP CONSTRAINT clerkinvite_limit_pkey, ADD CONSTRAINT clerkinvite_limit_pkey PRIMARY KEY (name, blocked_until)`,
			[]string{"index clerkinvite_limit_pkey is unique (name, blocked_until), but must be unique (name)"}},
		{`DROP INDEX clerkinvite_member_due_idx`, []string{"no index clerkinvite_member_due_idx"}},
		{`UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'clerkinvite_member_id_idx'::regclass`, []string{"index clerkinvite_member_id_idx is not valid"}},
		{`DELETE FROM clerkinvite_migration`, []string{"at migration 0, but this version of the library needs 1"}},
		{`INSERT INTO clerkinvite_migration VALUES (99, 'now'); DROP INDEX clerkinvite_member_due_idx`, []string{"clerkinvite_member_due_idx", "at migration 99, and this version of the library knows 1"}},
	} {
		t.Run(tc.sql, func(t *testing.T) {
			t.Parallel()
			store, pool := testkit.NewPgxStore(t)
			_, err := pool.Exec(t.Context(), tc.sql)
			require.NoError(t, err)
			err = store.Validate(t.Context())
			if tc.want == nil {
				require.NoError(t, err)
				testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "x@example.com"))
				return
			}
			require.Error(t, err)
			require.NotErrorIs(t, err, clerkinvite.ErrSchemaNewer)
			for _, want := range tc.want {
				require.ErrorContains(t, err, want)
			}
			assert.Len(t, strings.Split(err.Error(), "\n"), len(tc.want), err.Error())
		})
	}

	t.Run("newer", func(t *testing.T) {
		t.Parallel()
		store, pool := testkit.NewPgxStore(t)
		_, err := pool.Exec(t.Context(), `INSERT INTO clerkinvite_migration VALUES (99, 'now')`)
		require.NoError(t, err)
		err = store.Validate(t.Context())
		require.ErrorIs(t, err, clerkinvite.ErrSchemaNewer)
		require.ErrorContains(t, err, "99")
		require.NoError(t, store.Migrate(t.Context()), "an old replica that starts late")
	})

	t.Run("nothing", func(t *testing.T) {
		t.Parallel()
		err := clerkinvite.NewPgxStore(pgtest.New(t).Pool(t), nil).Validate(t.Context())
		require.ErrorContains(t, err, "search_path")
		assert.Len(t, strings.Split(err.Error(), "\n"), 3)
	})
}

// Validate checks everything that the migrations create.
func TestValidateKnowsTheMigrations(t *testing.T) {
	t.Parallel()
	_, pool := testkit.NewPgxStore(t)
	for sql, drop := range map[string]string{
		`SELECT relname, attname FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
			WHERE relkind = 'r' AND relname IN ('clerkinvite_member', 'clerkinvite_history', 'clerkinvite_limit') AND attnum > 0`: `ALTER TABLE %s DROP COLUMN %s CASCADE`,
		`SELECT relname, conname FROM pg_constraint JOIN pg_class c ON c.oid = conrelid
			WHERE relname LIKE 'clerkinvite\_%' AND relname <> 'clerkinvite_migration' AND contype <> 'n'`: `ALTER TABLE %s DROP CONSTRAINT %s CASCADE`,
		`SELECT tablename::text, indexname FROM pg_indexes WHERE indexname LIKE 'clerkinvite%idx'`: `DROP INDEX %[2]s /* %[1]s */`,
	} {
		rows, err := pool.Query(t.Context(), sql)
		require.NoError(t, err)
		names, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct{ Table, Name string }])
		require.NoError(t, err)
		require.NotEmpty(t, names)
		for _, name := range names {
			tx, err := pool.Begin(t.Context())
			require.NoError(t, err)
			_, err = tx.Exec(t.Context(), fmt.Sprintf(drop, name.Table, name.Name))
			require.NoError(t, err)
			// A transaction does not fit; here, its connection shows the change.
			require.ErrorContains(t, clerkinvite.NewPgxStore(tx.Conn(), nil).Validate(t.Context()), name.Name)
			require.NoError(t, tx.Rollback(t.Context()))
		}
	}
}

// The tables reject illegal rows, no matter who writes them.
func TestChecks(t *testing.T) {
	t.Parallel()
	store, pool := testkit.NewPgxStore(t)
	m := testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "x@example.com"))[0]
	testkit.InsertRows(t, store, testkit.PendingRow(testkit.ReservedRow("tenant", "pending@example.com")), testkit.ActiveRow(testkit.ReservedRow("tenant", "active@example.com"), "user_1"))
	rows, err := pool.Query(t.Context(), `SELECT conname FROM pg_constraint WHERE contype = 'c' AND conrelid = 'clerkinvite_member'::regclass`)
	require.NoError(t, err)
	untried, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	unseen := make(map[string]bool)
	for _, name := range untried {
		unseen[name] = true
	}

	const pending = `status = 'pending', sent = 1, `
	for _, tc := range []struct{ set, constraint string }{
		{`tenant_id = ''`, "tenant_id_check"},
		{`tenant_id = repeat('é', 128)`, "tenant_id_check"},
		{`tenant_id = repeat('x', 255)`, ""},
		{`email = ''`, "email_check"},
		{`email = 'x'`, "email_check"},
		{`email = '@x'`, "email_check"},
		{`email = 'x@'`, "email_check"},
		{`email = 'X@example.com'`, "email_check"},
		{`email = 'x@' || repeat('x', 253)`, "email_check"},
		{`email = 'x@' || repeat('x', 252)`, ""},
		{`status = 'invited'`, "status_check"},
		{`status = ''`, "status_check"},
		{`clerk_user_id = 'user_1'`, "clerk_user_id_check"},
		{`clerk_user_id = ''`, "clerk_user_id_check"},
		{`clerk_user_id = 'pending_inv_1', invitation_id = 'inv_1'`, "clerk_user_id_check"},
		{pending + `clerk_user_id = NULL`, "clerk_user_id_check"},
		{pending + `clerk_user_id = NULL, invitation_id = 'inv_1'`, "clerk_user_id_check"},
		{pending + `clerk_user_id = 'pending_inv_1'`, "clerk_user_id_check"},
		{pending + `clerk_user_id = 'pending_inv_2', invitation_id = 'inv_1'`, "clerk_user_id_check"},
		{pending + `clerk_user_id = 'user_1', invitation_id = 'inv_1'`, "clerk_user_id_check"},
		{pending + `clerk_user_id = 'pending_', invitation_id = ''`, "invitation_id_check"},
		{pending + `clerk_user_id = 'pending_inv_1', invitation_id = 'inv_1'`, ""},
		{`status = 'active'`, "clerk_user_id_check"},
		{`status = 'active', clerk_user_id = ''`, "clerk_user_id_check"},
		{`status = 'active', clerk_user_id = 'pending_inv_1', invitation_id = 'inv_1'`, "clerk_user_id_check"},
		{`status = 'active', clerk_user_id = 'pending_'`, "clerk_user_id_check"},
		{`status = 'active', clerk_user_id = repeat('x', 256)`, "clerk_user_id_check"},
		{`status = 'active', clerk_user_id = 'user_2'`, ""},
		{`status = 'failed', clerk_user_id = 'user_2'`, "clerk_user_id_check"},
		{`status = 'revoked', clerk_user_id = 'pending_inv_1', invitation_id = 'inv_1'`, "clerk_user_id_check"},
		{`status = 'expired', clerk_user_id = 'user_2'`, "clerk_user_id_check"},
		{`status = 'removed', clerk_user_id = 'user_2'`, "clerk_user_id_check"},
		{`status = 'removed'`, ""},
		{`invitation_id = repeat('x', 248)`, "invitation_id_check"},
		{`send = 0`, "send_check"},
		{`sent = 2, status = 'removed'`, "send_check"},
		{`sent = -1`, "send_check"},
		{`attempts = -1`, "send_check"},
		{`sent = 1`, "due_check"},
		{`next_attempt_at = NULL`, "due_check"},
		{pending + `clerk_user_id = 'pending_inv_1', invitation_id = 'inv_1', send = 2, next_attempt_at = NULL`, "due_check"},
		{pending + `clerk_user_id = 'pending_inv_1', invitation_id = 'inv_1', next_attempt_at = NULL`, ""},
		{`url = 'https://example.com'`, "url_check"},
		{pending + `clerk_user_id = 'pending_inv_1', invitation_id = 'inv_1', url = ''`, "url_check"},
		{pending + `clerk_user_id = 'pending_inv_1', invitation_id = 'inv_1', url = 'https://example.com'`, ""},
		{`role = ''`, "text_check"},
		{`invited_by = repeat('x', 1025)`, "text_check"},
		{`changed_by = ''`, "text_check"},
		{`changed_by = repeat('x', 1025)`, "text_check"},
		{`reason = ''`, "text_check"},
		{`version = 0`, "version_check"},
	} {
		tx, err := pool.Begin(t.Context())
		require.NoError(t, err)
		_, err = tx.Exec(t.Context(), `DELETE FROM clerkinvite_history`)
		require.NoError(t, err)
		_, err = tx.Exec(t.Context(), `UPDATE clerkinvite_member SET `+tc.set+` WHERE id = $1`, m.ID)
		require.NoError(t, tx.Rollback(t.Context()))
		if tc.constraint == "" {
			require.NoError(t, err, tc.set)
			continue
		}
		var pg *pgconn.PgError
		if assert.ErrorAs(t, err, &pg, tc.set) {
			assert.Equal(t, "23514", pg.Code, tc.set)
			// A row can break several rules; PostgreSQL chooses which one it names.
			assert.Regexp(t, `^clerkinvite_member_\w+_check$`, pg.ConstraintName)
			if pg.ConstraintName == "clerkinvite_member_"+tc.constraint {
				delete(unseen, pg.ConstraintName)
			}
		}
	}
	assert.Empty(t, unseen, "constraints that no case breaks")

	for sql, constraint := range map[string]string{
		`UPDATE clerkinvite_member SET email = 'pending@example.com' WHERE email = 'x@example.com'`:                     "clerkinvite_member_email_key",
		`UPDATE clerkinvite_member SET id = '` + m.ID + `'`:                                                             "clerkinvite_member_pkey",
		`UPDATE clerkinvite_member SET status = 'active', clerk_user_id = 'user_1' WHERE email = 'pending@example.com'`: "clerkinvite_member_user_key",
		`INSERT INTO clerkinvite_history SELECT * FROM clerkinvite_history`:                                             "clerkinvite_history_pkey",
		`INSERT INTO clerkinvite_limit VALUES ('a', 'now'), ('a', 'now')`:                                               "clerkinvite_limit_pkey",
	} {
		_, err := pool.Exec(t.Context(), sql)
		assert.True(t, clerkinvite.IsUniqueViolation(err), sql)
		assert.True(t, clerkinvite.IsUniqueViolation(err, "other", constraint), "%s: %v", sql, err)
		assert.True(t, clerkinvite.IsUniqueViolation(fmt.Errorf("wrapped: %w", err), constraint), sql)
		assert.False(t, clerkinvite.IsUniqueViolation(err, "other"), sql)
	}
	assert.False(t, clerkinvite.IsUniqueViolation(nil))
	_, err = pool.Exec(t.Context(), `INSERT INTO clerkinvite_limit VALUES ('', 'now')`)
	require.Error(t, err)
	assert.False(t, clerkinvite.IsUniqueViolation(err), "a CHECK")
}

// The same SQL works on tables partitioned by tenant, whose keys have other names.
func TestPgxStorePartitioned(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("-short: make test-all has what takes long")
	}
	storetest.Run(t, func(t *testing.T) clerkinvite.Store {
		store := clerkinvite.NewPgxStore(partitionedPool(t), nil)
		require.NoError(t, store.Validate(t.Context()))
		return store
	})
}

// partitionedPool returns a pool of a database with partitioned tables.
func partitionedPool(t *testing.T) *pgxpool.Pool {
	t.Helper()
	up, err := fs.ReadFile(clerkinvite.Migrations(), "001_init.up.sql")
	require.NoError(t, err)
	sql := regexp.MustCompile(`(?s)(CREATE TABLE (clerkinvite_member|clerkinvite_history) .*?\n\))(;)`).
		ReplaceAllString(string(up), "$1 PARTITION BY HASH (tenant_id);\n"+
			"CREATE TABLE ${2}_p0 PARTITION OF $2 FOR VALUES WITH (MODULUS 2, REMAINDER 0);\n"+
			"CREATE TABLE ${2}_p1 PARTITION OF $2 FOR VALUES WITH (MODULUS 2, REMAINDER 1);\n")
	require.Equal(t, 2, strings.Count(sql, ") PARTITION BY"))
	pool := pgtest.New(t).Pool(t)
	_, err = pool.Exec(t.Context(), sql)
	require.NoError(t, err)
	return pool
}

// Codecs that a host registers for its types affect neither the store nor the hook's arguments.
func TestOnChangeHostCodecs(t *testing.T) {
	t.Parallel()
	testkit.InEveryMode(t, func(t *testing.T, mode func(*pgxpool.Config)) {
		store, h, pool := testkit.NewMirror(t, mode, func(c *pgxpool.Config) {
			c.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
				for name, oid := range map[string]uint32{"json": pgtype.JSONOID, "jsonb": pgtype.JSONBOID, "uuid": pgtype.UUIDOID} {
					conn.TypeMap().RegisterType(&pgtype.Type{Name: name, OID: oid, Codec: noCodec{}})
				}
				return nil
			}
		})
		m := testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "x@example.com"))[0]
		active := testkit.UpdateRows(t, store, clerkinvite.Change{Old: m, New: testkit.ActiveRow(m, "user_1")})[0]
		testkit.UpdateRows(t, store, clerkinvite.Change{Old: active})
		require.Equal(t, [][]clerkinvite.Change{{{New: m}}, {{Old: m, New: active}}, {{Old: active}}}, h.Take())
		testkit.RequireMirrored(t, pool)
	})
}

// A retry cannot succeed, so the caller does not wait for one. The store asks no database.
func TestPgxStore_InvalidInputIsNotRetried(t *testing.T) {
	t.Parallel()
	invalid := &clerkinvite.Member{TenantID: "acme\xff", ID: "00000000-0000-0000-0000-000000000001"}
	synctest.Test(t, func(t *testing.T) {
		store, began := clerkinvite.NewPgxStore(nil, nil), time.Now()
		_, err := store.Page(t.Context(), clerkinvite.PageQuery{AfterTenantID: "acme", AfterID: "no uuid"})
		require.ErrorContains(t, err, "invalid PageQuery")
		_, err = store.Page(t.Context(), clerkinvite.PageQuery{NewestFirst: true})
		require.ErrorContains(t, err, "invalid PageQuery")
		results, err := store.Insert(t.Context(), []*clerkinvite.Member{invalid})
		require.NoError(t, err)
		require.ErrorContains(t, results[0].Err, "not valid UTF-8")
		results, err = store.Update(t.Context(), []clerkinvite.Change{{Old: invalid, New: invalid}})
		require.NoError(t, err)
		require.ErrorContains(t, results[0].Err, "not valid UTF-8")
		require.Zero(t, time.Since(began))
	})
}

// The hook blocks for one tenant's members. Also without a deadline of the caller it gets one, so Reconcile ends, a sign-in
// changes the members of other tenants, and Invite returns the hook's error.
func TestHookThatBlocksWithoutADeadline(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		second bool // tenant a has a row of the user's second address, which must be erased first
		act    func(ctx context.Context, b *testkit.Rig, u clerkinvite.User) error
	}{
		"Reconcile": {true, func(ctx context.Context, b *testkit.Rig, _ clerkinvite.User) error {
			_, err := b.Reconcile(ctx, nil)
			return err
		}},
		"ResolveUser": {false, func(ctx context.Context, b *testkit.Rig, u clerkinvite.User) error {
			_, err := b.ResolveUser(ctx, u.ID)
			return err
		}},
		"Invite": {false, func(ctx context.Context, b *testkit.Rig, _ clerkinvite.User) error {
			_, err := b.Invite(ctx, testkit.Params("a", "x@example.com"))
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			synctest.Test(t, func(t *testing.T) {
				pool := db.Pool(t, testkit.OwnResolver)
				blocks := false
				store := clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{OnChange: func(ctx context.Context, _ pgx.Tx, changes []clerkinvite.Change) error {
					isOfA := func(m *clerkinvite.Member) bool { return m != nil && m.TenantID == "a" }
					if !blocks || !slices.ContainsFunc(changes, func(c clerkinvite.Change) bool { return isOfA(c.Old) || isOfA(c.New) }) {
						return nil
					}
					<-ctx.Done()
					return ctx.Err()
				}})
				require.NoError(t, store.Migrate(t.Context()))
				clerk := clerkinvitetest.NewClerk()
				b := testkit.New(t, testkit.Options{}, clerk, clerk, store)
				u := clerk.AddVerifiedUser("old@example.com")
				for _, tenant := range []string{"a", "b"} {
					_, err := b.Invite(t.Context(), testkit.Params(tenant, "old@example.com"))
					require.NoError(t, err)
				}
				clerk.AddEmail(u.ID, clerkinvitetest.EmailSpec{Address: "new@example.com", Verified: true})
				if test.second {
					_, err := b.Invite(t.Context(), testkit.Params("a", "new@example.com"))
					require.ErrorAs(t, err, new(*clerkinvite.DuplicateEmailError))
				}
				clerk.SetPrimaryEmail(u.ID, "new@example.com")
				clerk.RemoveEmail(u.ID, "old@example.com")
				b.Clock.Advance(2 * time.Hour)
				blocks = true
				ctx, cancel := context.WithCancel(t.Context())
				defer time.AfterFunc(time.Hour, cancel).Stop()
				err := test.act(ctx, b, u)
				require.NoError(t, ctx.Err(), "it hangs")
				require.ErrorIs(t, err, context.DeadlineExceeded)
				if name != "Invite" {
					_, err = b.Get(t.Context(), clerkinvite.Ref{TenantID: "b", Email: "new@example.com"})
					require.NoError(t, err, "the other tenant's member has the new address")
				}
			})
		})
	}
}
