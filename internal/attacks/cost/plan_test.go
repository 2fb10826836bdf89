package cost_test

import (
	"context"
	"flag"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/internal/tally"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// With ten million members, the test takes some minutes and 10 GB of disk space.
var planRows = flag.Int("rows", 200_000, "members of TestPgxStorePlansAtScale and TestPgxStoreDuePlans")

// Every statement uses an index, in custom and in generic plans, whatever the statistics say. The cost of a page does not
// depend on its position.
func TestPgxStorePlans(t *testing.T) {
	t.Parallel()
	// The queries are about tenant0.
	for name, l := range map[string]planLayout{
		"statistics of an empty table":            {},
		"statistics of 100 tenants, one is large": {rows: 20_000, tenant: "i % 100 * (i / 100 % 2)", place: 10_000},
		"statistics of this tenant":               {rows: 20_000, tenant: "0", place: 10_000},
		"statistics of another tenant":            {rows: 20_000, tenant: "1", late: 2000, place: 21_000},
		"statistics of two others":                {rows: 20_000, tenant: "1 + i % 2", late: 2000, place: 21_000},
		"statistics of two thousand others":       {rows: 20_000, tenant: "1 + i % 2000", late: 2000, place: 21_000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testPlans(t, l)
		})
	}
}

// A large table has the same plans, and a statement reads no more blocks.
func TestPgxStorePlansAtScale(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("-short: make test-all has what takes long")
	}
	row := tally.Start(t, "every statement's plan and the blocks that it reads")
	testPlans(t, planLayout{rows: *planRows, tenant: "i % 200000 * (i / 100 % 2)", late: 2000, place: *planRows / 2})
	row.Done(fmt.Sprintf("%d members", *planRows), "nothing")
}

// planLayout describes a table of members. Addresses and IDs have the same order.
type planLayout struct {
	rows   int    // when ANALYZE runs
	tenant string // the number of the tenant of row i, in SQL
	late   int    // rows of tenant0 that are added afterwards
	place  int    // a row of tenant0, far from the beginning of each page's order
}

func (l planLayout) id(i int) string { return fmt.Sprintf("01900000-0000-7000-8000-%012x", i) }

// fill writes the members, and the history of some of them.
func (l planLayout) fill(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	members := func(tenant string) string {
		return `
INSERT INTO clerkinvite_member (tenant_id, id, email, status, clerk_user_id, invitation_id, send, sent, bulk, role, invited_by, data, params,
	version, attempts, next_attempt_at, reserved_at, invited_at, expires_at, settled_at, updated_at)
SELECT tenant, id::uuid, i || '@example.com', status,
	CASE status WHEN 'pending' THEN 'pending_inv_' || id WHEN 'active' THEN 'user_' || id END, CASE WHEN status <> 'reserved' THEN 'inv_' || id END,
	1, CASE status WHEN 'reserved' THEN 0 ELSE 1 END, false, 'editor', 'admin_' || i / 5 % 2, '{"team": 7}', '{"redirect_url":"https://example.com"}',
	1, 1, CASE status WHEN 'reserved' THEN at END, at, CASE WHEN status <> 'reserved' THEN at END, CASE WHEN status <> 'reserved' THEN at END,
	CASE WHEN status <> 'reserved' THEN at END, at
FROM generate_series($1::integer, $2::integer) i, (SELECT $3::text::timestamptz AS at) a,
	LATERAL (SELECT 'tenant' || ` + tenant + ` AS tenant, '01900000-0000-7000-8000-' || lpad(to_hex(i), 12, '0') AS id,
		(ARRAY['reserved', 'pending', 'active', 'active'])[1 + i % 4] AS status) x
ORDER BY tenant COLLATE "C", id`
	}
	at := testkit.RowTime.Format(time.RFC3339Nano)
	exec := func(sql string, args ...any) {
		t.Helper()
		_, err := pool.Exec(t.Context(), sql, args...)
		require.NoError(t, err)
	}
	exec("ALTER TABLE clerkinvite_member SET (autovacuum_enabled = false)") // autovacuum would run ANALYZE
	rows, err := pool.Query(t.Context(), "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'clerkinvite_member' AND indexname LIKE '%idx'")
	require.NoError(t, err)
	indexes, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct{ Name, Definition string }])
	require.NoError(t, err)
	require.NotEmpty(t, indexes)
	for _, index := range indexes { // creating them afterwards is faster
		exec("DROP INDEX " + index.Name)
	}
	exec(members(l.tenant), 0, l.rows-1, at)
	for _, index := range indexes {
		exec(index.Definition)
	}
	exec(`
INSERT INTO clerkinvite_history (tenant_id, member_id, version, to_status, send, sent, at)
SELECT tenant_id, id, version, status, send, sent, updated_at FROM clerkinvite_member WHERE id = $1::uuid
UNION ALL
(SELECT tenant_id, id, version, status, send, sent, updated_at FROM clerkinvite_member WHERE id <> $1::uuid LIMIT 100000)`, l.id(l.place))
	exec("ANALYZE")
	exec(members("0"), l.rows, l.rows+l.late-1, at)
}

func testPlans(t *testing.T, l planLayout) {
	t.Helper()
	var asked testkit.Statements
	store, pool := testkit.NewPgxStore(t, testkit.Tracing(&asked))
	if l.rows > 0 {
		l.fill(t, pool)
		place, err := store.Find(t.Context(), clerkinvite.Query{IDs: []string{l.id(l.place)}})
		require.NoError(t, err)
		require.Equal(t, "tenant0", place[0].TenantID)
	}
	place, prefix := l.id(l.place), fmt.Sprintf("%04d", l.place)[:4]

	row := testkit.ReservedRow("tenant0", "new@example.com")
	if l.rows > 0 { // an existing reserved row; the row two places later is active
		row.ID, row.Email, row.Version = place, fmt.Sprintf("%d@example.com", l.place), 99 // with another version, so nothing is written
	}
	user := "user_" + l.id(l.place+2)
	update := func(changes ...clerkinvite.Change) func() error {
		return func() error {
			_, err := store.Update(t.Context(), changes)
			return err
		}
	}
	find := func(q clerkinvite.Query) func() error {
		return func() error {
			_, err := store.Find(t.Context(), q)
			return err
		}
	}
	pageOf := func(q clerkinvite.PageQuery) func() error {
		q.Limit = 10
		return func() error {
			_, err := store.Page(t.Context(), q)
			return err
		}
	}
	after := func(q clerkinvite.PageQuery) func() error {
		q.AfterTenantID, q.AfterID = "tenant0", place
		return pageOf(q)
	}
	swap := func(old, next time.Time) func() error {
		return func() error {
			_, err := store.SwapTime(t.Context(), "create", old, next)
			return err
		}
	}
	statuses := []clerkinvite.Status{clerkinvite.StatusPending, clerkinvite.StatusActive}

	// A search in an index, not a scan of the whole index.
	by := func(index string) string { return "using clerkinvite_" + index + ` on .*\n *Index Cond: ` }
	byEmail := []string{`using clerkinvite_member_email_key on .*\n *Index Cond: \(\(tenant_id = [^=]* AND \(email = `}
	// A scan of an index in order, until the page is full.
	walk := func(index string) string {
		return `Limit .*\n(?: *Buffers: .*\n)? *->  Index Scan using clerkinvite_` + index + " on clerkinvite_member "
	}
	back := func(index string) string { return strings.Replace(walk(index), "Index Scan", "Index Scan Backward", 1) }
	newest := func(page func(clerkinvite.PageQuery) func() error, q clerkinvite.PageQuery) func() error {
		q.TenantID, q.NewestFirst = "tenant0", true
		return page(q)
	}
	soon := testkit.RowTime.Add(time.Hour)
	// Blocks. Each table has about a thousand.
	const look = 8 // for a row: the levels of an index and the row itself
	const page = 60

	for _, tc := range []struct {
		name string
		ask  func() error
		want []string
		// The maximum number of blocks that the statement reads, however large the table is; 0 means not measured.
		blocks int
	}{
		{"insert", func() error {
			_, err := store.Insert(t.Context(), []*clerkinvite.Member{row})
			return err
		}, byEmail, 10 * look},
		{"update", update(clerkinvite.Change{Old: row, New: testkit.ActiveRow(row, "user_1")}), []string{by("member_(?:id_idx|pkey)")}, 2 * look},
		{"erase", update(clerkinvite.Change{Old: row, New: testkit.ActiveRow(row, "user_2")}, clerkinvite.Change{Old: row}), []string{by("member_(?:id_idx|pkey)")}, 2 * look},
		{"gone", update(clerkinvite.Change{Old: testkit.ReservedRow("tenant0", "gone@example.com")}), []string{by("member_(?:id_idx|pkey)")}, 2 * look},
		{"refs", find(clerkinvite.Query{Refs: []clerkinvite.Ref{row.Ref()}}), byEmail, look},
		{"ref by ID", find(clerkinvite.Query{Refs: []clerkinvite.Ref{{TenantID: "tenant0", ID: row.ID}}}), []string{by("member_(?:id_idx|pkey)")}, look},
		{"ref by user", find(clerkinvite.Query{Refs: []clerkinvite.Ref{{TenantID: "tenant0", ClerkUserID: user}}}), []string{by("member_user_key")}, look},
		{"ids", find(clerkinvite.Query{IDs: []string{row.ID}}), []string{by("member_id_idx")}, look},
		{"emails", find(clerkinvite.Query{Emails: []string{row.Email}}), []string{by("member_waiting_idx")}, look},
		{"users", find(clerkinvite.Query{UserIDs: []string{user}}), []string{by("member_active_idx")}, look},
		{"due", func() error {
			_, err := store.Due(t.Context(), clerkinvite.DueQuery{At: testkit.RowTime, Limit: 10})
			return err
		}, []string{by("member_due_idx"), by("member_turns_idx"), by("member_(?:id_idx|pkey)")}, 2 * page},
		{"several", find(clerkinvite.Query{Emails: []string{row.Email}, UserIDs: []string{user}}), []string{by("member_waiting_idx"), by("member_active_idx")}, 2 * look},

		{"page", pageOf(clerkinvite.PageQuery{}), []string{walk("member_pkey")}, page},
		{"page on", after(clerkinvite.PageQuery{}), []string{walk("member_pkey"), by("member_pkey")}, page},
		{"page from a tenant on", pageOf(clerkinvite.PageQuery{AfterTenantID: "tenant5"}), []string{walk("member_pkey"), by("member_pkey")}, page},
		{"page with filters", pageOf(clerkinvite.PageQuery{InvitedBy: "admin_1", EmailPrefix: prefix[:1], Statuses: statuses}), []string{walk("member_pkey")}, 10 * page},
		{"page with filters on", after(clerkinvite.PageQuery{InvitedBy: "admin_1", EmailPrefix: prefix[:1], Statuses: statuses}), []string{walk("member_pkey"), by("member_pkey")}, 2 * page},
		{"tenant", pageOf(clerkinvite.PageQuery{TenantID: "tenant0"}), []string{walk("member_pkey"), by("member_pkey")}, page},
		{"tenant on", after(clerkinvite.PageQuery{TenantID: "tenant0"}), []string{walk("member_pkey"), by("member_pkey")}, page},
		{"tenant with filter on", after(clerkinvite.PageQuery{TenantID: "tenant0", InvitedBy: "admin_1"}), []string{walk("member_pkey"), by("member_pkey")}, page},
		{"status", pageOf(clerkinvite.PageQuery{TenantID: "tenant0", Statuses: statuses}), []string{walk("member_status_idx"), by("member_status_idx")}, page},
		{"status on", after(clerkinvite.PageQuery{TenantID: "tenant0", Statuses: statuses}), []string{walk("member_status_idx"), by("member_status_idx")}, page},
		{"status with filter on", after(clerkinvite.PageQuery{TenantID: "tenant0", Statuses: statuses, InvitedBy: "admin_1"}), []string{walk("member_status_idx"), by("member_status_idx")}, page},
		{"tenant, newest first", newest(pageOf, clerkinvite.PageQuery{}), []string{back("member_pkey"), by("member_pkey")}, page},
		{"tenant, newest first, on", newest(after, clerkinvite.PageQuery{InvitedBy: "admin_1"}), []string{back("member_pkey"), by("member_pkey")}, page},
		{"status, newest first", newest(pageOf, clerkinvite.PageQuery{Statuses: statuses}), []string{back("member_status_idx"), by("member_status_idx")}, page},
		{"status, newest first, on", newest(after, clerkinvite.PageQuery{Statuses: statuses, InvitedBy: "admin_1"}), []string{back("member_status_idx"), by("member_status_idx")}, page},
		{"prefix, newest first, on", newest(after, clerkinvite.PageQuery{EmailPrefix: prefix}), []string{by("member_email_key")}, 10 * page},
		{"page of expiring", after(clerkinvite.PageQuery{ExpiresBefore: soon}), []string{walk("member_pkey"), by("member_pkey")}, 2 * page},
		{"status of expiring", pageOf(clerkinvite.PageQuery{TenantID: "tenant0", ExpiresBefore: soon}), []string{walk("member_status_idx"), by("member_status_idx")}, page},
		{"status of expiring, newest first, on", newest(after, clerkinvite.PageQuery{ExpiresBefore: soon}), []string{back("member_status_idx"), by("member_status_idx")}, page},
		{"prefix of expiring", pageOf(clerkinvite.PageQuery{TenantID: "tenant0", EmailPrefix: prefix, ExpiresBefore: soon}), []string{by("member_email_key")}, 10 * page},
		{"prefix", pageOf(clerkinvite.PageQuery{TenantID: "tenant0", EmailPrefix: prefix}), []string{by("member_email_key")}, 10 * page},
		{"prefix on", after(clerkinvite.PageQuery{TenantID: "tenant0", EmailPrefix: prefix, Statuses: statuses}), []string{by("member_email_key")}, 10 * page},
		{"prefix without end", after(clerkinvite.PageQuery{TenantID: "tenant0", EmailPrefix: "\U0010ffff"}), []string{by("member_email_key")}, page},

		{"counts", func() error {
			_, err := store.Counts(t.Context(), "tenant0")
			return err
		}, []string{`Index Only Scan using clerkinvite_member_status_idx on clerkinvite_member.*\n *Index Cond: \(\(tenant_id >= `}, l.rows},
		{"history", func() error {
			_, err := store.History(t.Context(), "tenant0", place)
			return err
		}, []string{by("history_pkey")}, page},
		{"backlog", func() error {
			_, err := store.Backlog(t.Context(), testkit.RowTime.Add(1e6))
			return err
		}, []string{walk("member_due_idx"), `Index (?:Only )?Scan using clerkinvite_member_expiring_idx`}, 25_000},

		{"swap asks", swap(time.Time{}, time.Time{}), nil, 0},
		{"swap takes", swap(time.Time{}, testkit.RowTime), nil, 0},
		{"swap changes", swap(testkit.RowTime, testkit.RowTime.Add(1e6)), nil, 0},
	} {
		asked.Take()
		require.NoError(t, tc.ask())
		list := asked.Take()
		st := list[len(list)-1]
		for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
			text := plan(t, pool, mode, st, tc.blocks > 0)
			what := tc.name + ", " + mode
			cost, err := strconv.ParseFloat(regexp.MustCompile(`cost=[0-9.]+\.\.([0-9]+\.[0-9]+)`).FindStringSubmatch(text)[1], 64)
			require.NoError(t, err)
			assert.Less(t, cost, 10_000.0, "%s: above jit_above_cost (100,000), each call would compile it:\n%s", what, text)
			for _, want := range tc.want {
				assert.Regexp(t, want, text, what)
			}
			if tc.want != nil { // the table of limits always has only a few rows
				assert.NotContains(t, text, "Seq Scan on", what)
				assert.NotContains(t, text, "Bitmap", what)
				sorts := slices.ContainsFunc([]string{"insert", "update", "erase", "due", "status", "prefix", "counts"}, func(s string) bool { return strings.HasPrefix(tc.name, s) })
				assert.True(t, sorts || !strings.Contains(text, "Sort"), "%s:\n%s", what, text)
			}
			if l.rows > 0 && tc.blocks > 0 {
				assert.LessOrEqual(t, blocksOf(t, text), tc.blocks, "%s:\n%s", what, text)
			}
		}
	}
}

// blocksOf returns the number of blocks that a statement read.
func blocksOf(t *testing.T, plan string) (blocks int) {
	t.Helper()
	found := regexp.MustCompile(`Buffers: shared(?: hit=(\d+))?(?: read=(\d+))?`).FindStringSubmatch(plan)
	require.NotNil(t, found, plan)
	for _, s := range found[1:] {
		more, _ := strconv.Atoi(s)
		blocks += more
	}
	return blocks
}

// The cost of Due depends on its limit, and not on the number of due members or of their tenants.
func TestPgxStoreDuePlans(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("-short: make test-all has what takes long")
	}
	const limit = 100
	row := tally.Start(t, "the blocks that Due reads")
	tables := map[string]struct {
		tenant, due string // of row i, in SQL
		rows        int
		blocks      int
	}{
		"one tenant":                        {"0", "true", *planRows, 20 * limit},
		"100,000 tenants":                   {"i % 100000", "true", *planRows, 20 * limit},
		"one large tenant and 100,000 more": {"greatest(i - 100000, 0)", "true", 200_000, 20 * limit},
		"50 tenants":                        {"i % 50", "true", 200_000, 20 * limit},
		"no more than the limit are due":    {"i % 100000", "i < 100", 200_000, 20 * limit},
		"none of 100,000 tenants is due":    {"i % 100000", "false", 200_000, limit},
		// The search for tenants ends.
		"one of 1,000 tenants is due": {"i % 100000", "i % 1000 = 7", 200_000, 4 * 10_000 * 5},
	}
	t.Cleanup(func() {
		row.Done(fmt.Sprintf("%d tables of up to %d members", len(tables), max(*planRows, 200_000)), "nothing")
	})
	for name, l := range tables {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked testkit.Statements
			store, pool := testkit.NewPgxStore(t, testkit.Tracing(&asked))
			at := testkit.RowTime.Format(time.RFC3339Nano)
			for _, sql := range []string{
				"ALTER TABLE clerkinvite_member SET (autovacuum_enabled = false)",
				"DROP INDEX clerkinvite_member_status_idx, clerkinvite_member_waiting_idx, clerkinvite_member_email_key, clerkinvite_member_id_idx",
				fmt.Sprintf(`
INSERT INTO clerkinvite_member (tenant_id, id, email, status, send, sent, bulk, version, attempts, next_attempt_at, reserved_at, updated_at)
SELECT 'tenant' || %s, ('01900000-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid, i || '@example.com', 'reserved', 1, 0, i %% 1000 > 0, 1, 0,
	a.at + CASE WHEN %s THEN interval '-1 day' ELSE interval '1 day' END + i * interval '1 microsecond', a.at, a.at
FROM generate_series(0, %d) i, (SELECT '%s'::timestamptz AS at) a`, l.tenant, l.due, l.rows-1, at),
				"ANALYZE clerkinvite_member",
			} {
				_, err := pool.Exec(t.Context(), sql)
				require.NoError(t, err)
			}
			asked.Take()
			_, err := store.Due(t.Context(), clerkinvite.DueQuery{At: testkit.RowTime, AfterTenantID: "tenant5", Limit: limit})
			require.NoError(t, err)
			st := asked.Take()[0]
			for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
				text := plan(t, pool, mode, st, true)
				blocks := blocksOf(t, text)
				t.Log(mode, blocks)
				require.LessOrEqual(t, blocks, l.blocks, "%s:\n%s", mode, text)
			}
		})
	}
}

// A host's query can use the indexes without repeating their conditions.
func TestHostQueriesUseAnIndex(t *testing.T) {
	t.Parallel()
	_, pool := testkit.NewPgxStore(t)
	l := planLayout{rows: 20_000, tenant: "i % 2", place: 10_000}
	l.fill(t, pool)
	for index, st := range map[string]testkit.Statement{
		"member_email_key":  {SQL: "SELECT role FROM clerkinvite_member WHERE tenant_id = $1 AND email = $2", Args: []any{"tenant0", "x@example.com"}},
		"member_id_idx":     {SQL: "SELECT role FROM clerkinvite_member WHERE id = $1::uuid", Args: []any{l.id(l.place)}},
		"member_status_idx": {SQL: "SELECT role FROM clerkinvite_member WHERE tenant_id = $1 AND status = $2 AND id > $3::uuid ORDER BY id LIMIT 10", Args: []any{"tenant0", "pending", l.id(l.place)}},
	} {
		for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
			require.Regexp(t, "using clerkinvite_"+index+` on .*\n *Index Cond: `, plan(t, pool, mode, st, false))
		}
	}
}

// A row of a large first import costs no more than a row of a small one, although a connection keeps its plans for the small
// table, including the plan of the history's foreign key, until there are statistics.
func TestPgxStoreFirstImport(t *testing.T) {
	t.Parallel()
	store, pool := testkit.NewPgxStore(t)
	for _, table := range []string{"member", "history"} {
		_, err := pool.Exec(t.Context(), "ALTER TABLE clerkinvite_"+table+" SET (autovacuum_enabled = false)")
		require.NoError(t, err)
	}
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	written := 0
	insert := func(n int) {
		rows := make([]*clerkinvite.Member, n)
		for i := range rows {
			rows[i] = testkit.ReservedRow("tenant0", fmt.Sprintf("%d@example.com", written+i))
		}
		written += n
		m := testkit.InsertRows(t, store.WithTx(tx), rows...)[0]
		testkit.UpdateRows(t, store.WithTx(tx), clerkinvite.Change{Old: m, New: testkit.PendingRow(m)})
	}
	for range 10 { // after five calls a connection may keep a generic plan
		insert(1)
	}
	insert(100)
	insert(3000)
	var read int
	require.NoError(t, tx.QueryRow(t.Context(), "SELECT sum(coalesce(idx_tup_fetch, 0) + seq_tup_read) FROM pg_stat_xact_user_tables").Scan(&read))
	require.Greater(t, read, written)
	require.Less(t, read, 10*written)
}

// plan returns PostgreSQL's plan for a statement of the store.
func plan(t *testing.T, pool *pgxpool.Pool, mode string, st testkit.Statement, run bool) string {
	t.Helper()
	explain, types, args := "EXPLAIN", make([]string, len(st.Args)), make([]string, len(st.Args))
	if run {
		explain = "EXPLAIN (ANALYZE, BUFFERS)"
	}
	for i, arg := range st.Args {
		types[i], args[i] = "text", "'"+strings.ReplaceAll(arg.(string), "'", "''")+"'"
	}
	var lines []string
	require.NoError(t, pool.AcquireFunc(t.Context(), func(conn *pgxpool.Conn) error {
		for _, sql := range []string{
			"SET plan_cache_mode = " + mode, "PREPARE p (" + strings.Join(types, ", ") + ") AS " + st.SQL,
			explain + " EXECUTE p (" + strings.Join(args, ", ") + ")", "DEALLOCATE p",
		} {
			// Without pgx, which would expect a value for $1.
			results, err := conn.Conn().PgConn().Exec(t.Context(), sql).ReadAll()
			require.NoError(t, err)
			for _, line := range results[0].Rows {
				lines = append(lines, string(line[0]))
			}
		}
		return nil
	}))
	return strings.Join(lines, "\n")
}
