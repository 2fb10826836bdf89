package clerkinvite_test

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
)

// statements is a pgx tracer that remembers what was asked.
type statements struct {
	mu     sync.Mutex
	list   []statement
	hook   string
	hooked func()
}

type statement struct {
	sql  string
	args []any
}

func (s *statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	s.mu.Lock()
	s.list = append(s.list, statement{d.SQL, d.Args})
	var hooked func()
	if s.hook != "" && strings.Contains(d.SQL, s.hook) {
		hooked, s.hook = s.hooked, ""
	}
	s.mu.Unlock()
	if hooked != nil {
		hooked()
	}
	return ctx
}

// before makes f run once, before the next statement that contains text.
func (s *statements) before(text string, f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook, s.hooked = text, f
}

// kinds counts what the store asked since the last take.
func (s *statements) kinds() map[string]int {
	kinds := make(map[string]int)
	for _, st := range s.take() {
		switch {
		case strings.Contains(st.sql, "ON CONFLICT DO NOTHING"):
			kinds["insert"]++
		case strings.Contains(st.sql, "LATERAL"):
			kinds["find"]++
		}
	}
	return kinds
}

func (s *statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// take returns what was asked since the last take.
func (s *statements) take() []statement {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.list
	s.list = nil
	return list
}

// tracing is an option of newPgxStore.
func tracing(s *statements) func(*pgxpool.Config) {
	return func(c *pgxpool.Config) { c.ConnConfig.Tracer = s }
}

var storeTime = time.Date(2026, 3, 1, 9, 30, 15, 123456000, time.UTC)

// reservedRow returns a row as Reserve writes it.
func reservedRow(tenant, email string) *clerkinvite.Member {
	at := storeTime
	return &clerkinvite.Member{
		ID: uuid.Must(uuid.NewV7()).String(), TenantID: tenant, Email: email, Status: clerkinvite.StatusReserved, Send: 1,
		Role: "editor", Data: []byte(`{"team": 7}`), Params: []byte(`{"redirect_url":"https://example.com"}`),
		ReservedAt: at, NextAttemptAt: &at, UpdatedAt: at, Version: 1,
	}
}

// pendingRow returns m as it is after its invitation went out.
func pendingRow(m *clerkinvite.Member) *clerkinvite.Member {
	n, at := *m, storeTime.Add(time.Hour)
	n.Status, n.Sent, n.InvitationID, n.ClerkUserID = clerkinvite.StatusPending, n.Send, "inv_"+m.ID, "pending_inv_"+m.ID
	n.InvitedAt, n.SettledAt, n.ExpiresAt, n.NextAttemptAt, n.UpdatedAt = &storeTime, &storeTime, &at, nil, at
	return &n
}

// activeRow returns m as the user's.
func activeRow(m *clerkinvite.Member, userID string) *clerkinvite.Member {
	n := *pendingRow(m)
	n.Status, n.ClerkUserID = clerkinvite.StatusActive, userID
	return &n
}

// insertRows inserts rows that are new.
func insertRows(t *testing.T, store clerkinvite.TxStore, rows ...*clerkinvite.Member) []*clerkinvite.Member {
	t.Helper()
	results, err := store.Insert(t.Context(), rows)
	return members(t, results, err)
}

// updateRows makes changes that succeed.
func updateRows(t *testing.T, store clerkinvite.TxStore, changes ...clerkinvite.Change) []*clerkinvite.Member {
	t.Helper()
	results, err := store.Update(t.Context(), changes)
	return members(t, results, err)
}

func members(t *testing.T, results []clerkinvite.Result, err error) (list []*clerkinvite.Member) {
	t.Helper()
	require.NoError(t, err)
	for _, r := range results {
		require.NoError(t, r.Err)
		list = append(list, r.Member)
	}
	return list
}

// TestPgxStorePlans: every statement finds its rows by an index, whether PostgreSQL plans for the values or for any, and whether it
// knows of twenty thousand rows or thinks that the table is empty. What a page costs does not depend on where it is.
func TestPgxStorePlans(t *testing.T) {
	t.Parallel()
	t.Run("empty", func(t *testing.T) {
		t.Parallel()
		testPlans(t, 0)
	})
	t.Run("filled", func(t *testing.T) {
		t.Parallel()
		testPlans(t, 20_000)
	})
}

func testPlans(t *testing.T, n int) {
	t.Helper()
	var asked statements
	store, pool := newPgxStore(t, tracing(&asked))
	rows := make([]*clerkinvite.Member, n)
	for i := range rows {
		// Half of them are one tenant's, who must not get plans that fit all the others.
		m := reservedRow(fmt.Sprintf("tenant%d", i%100*(i/100%2)), fmt.Sprintf("%d@example.com", i))
		switch i % 4 {
		case 1:
			m = pendingRow(m)
		case 2, 3:
			m = activeRow(m, "user_"+m.ID)
		}
		m.InvitedBy = fmt.Sprintf("admin_%d", i/5%2)
		rows[i] = m
	}
	place := reservedRow("tenant0", "place@example.com").ID
	if n > 0 {
		place = rows[n/2].ID // far from the beginning of each page's order
		insertRows(t, store, rows...)
		_, err := pool.Exec(t.Context(), "ANALYZE")
		require.NoError(t, err)
	}

	row := reservedRow("tenant0", "new@example.com")
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
	scan := func(scan clerkinvite.Scan) func() error { return find(clerkinvite.Query{Scan: &scan, Limit: 10}) }
	after := func(s clerkinvite.Scan) func() error {
		s.AfterTenantID, s.AfterID = "tenant0", place
		return scan(s)
	}
	gate := func(old, next time.Time) func() error {
		return func() error {
			_, err := store.Gate(t.Context(), "create", old, next)
			return err
		}
	}
	statuses := []clerkinvite.Status{clerkinvite.StatusPending, clerkinvite.StatusActive}

	// An index that is used by its columns, and not from end to end.
	by := func(index string) string { return "using clerkinvite_" + index + ` on .*\n *Index Cond: ` }
	// An index that is read until the page is full.
	walk := func(index string) string {
		return `Limit .*\n(?: *Buffers: .*\n)? *->  Index Scan using clerkinvite_` + index + " on clerkinvite_member "
	}
	const page = 60 // blocks, of which each table has a thousand or so

	for _, tc := range []struct {
		name string
		ask  func() error
		want []string
		// At most so many blocks are read from the full table, however large it is; 0: not measured.
		blocks int
	}{
		{"insert", func() error {
			_, err := store.Insert(t.Context(), []*clerkinvite.Member{row})
			return err
		}, []string{by("member_email_key")}, 0},
		{"update", update(clerkinvite.Change{Old: row, New: activeRow(row, "user_1")}), []string{by("member_id_idx")}, 0},
		{"erase", update(clerkinvite.Change{Old: row, New: activeRow(row, "user_2")}, clerkinvite.Change{Old: row}), []string{by("member_id_idx")}, 0},
		{"gone", update(clerkinvite.Change{Old: reservedRow("tenant0", "gone@example.com")}), []string{by("member_id_idx")}, 0},
		{"refs", find(clerkinvite.Query{Refs: []clerkinvite.Ref{row.Ref()}}), []string{by("member_email_key")}, 0},
		{"ids", find(clerkinvite.Query{IDs: []string{row.ID}}), []string{by("member_id_idx")}, 0},
		{"emails", find(clerkinvite.Query{Emails: []string{row.Email}}), []string{by("member_waiting_idx")}, 0},
		{"users", find(clerkinvite.Query{UserIDs: []string{"user_1"}}), []string{by("member_active_idx")}, 0},
		{"due", find(clerkinvite.Query{DueAt: storeTime, Limit: 10}), []string{by("member_due_idx")}, page},
		{"several", find(clerkinvite.Query{Emails: []string{row.Email}, UserIDs: []string{"user_1"}}), []string{by("member_waiting_idx"), by("member_active_idx")}, 0},

		{"scan", scan(clerkinvite.Scan{}), []string{walk("member_pkey")}, page},
		{"scan on", after(clerkinvite.Scan{}), []string{walk("member_pkey"), by("member_pkey")}, page},
		{"scan from a tenant on", scan(clerkinvite.Scan{AfterTenantID: "tenant5"}), []string{walk("member_pkey"), by("member_pkey")}, page},
		{"scan with filters", scan(clerkinvite.Scan{InvitedBy: "admin_1", EmailPrefix: "1", Statuses: statuses}), []string{walk("member_pkey")}, 10 * page},
		{"scan with filters on", after(clerkinvite.Scan{InvitedBy: "admin_1", EmailPrefix: "1", Statuses: statuses}), []string{walk("member_pkey"), by("member_pkey")}, 2 * page},
		{"tenant", scan(clerkinvite.Scan{TenantID: "tenant0"}), []string{walk("member_pkey"), by("member_pkey")}, page},
		{"tenant on", after(clerkinvite.Scan{TenantID: "tenant0"}), []string{walk("member_pkey"), by("member_pkey")}, page},
		{"tenant with filter on", after(clerkinvite.Scan{TenantID: "tenant0", InvitedBy: "admin_1"}), []string{walk("member_pkey"), by("member_pkey")}, page},
		{"status", scan(clerkinvite.Scan{TenantID: "tenant0", Statuses: statuses}), []string{walk("member_status_idx"), by("member_status_idx")}, page},
		{"status on", after(clerkinvite.Scan{TenantID: "tenant0", Statuses: statuses}), []string{walk("member_status_idx"), by("member_status_idx")}, page},
		{"status with filter on", after(clerkinvite.Scan{TenantID: "tenant0", Statuses: statuses, InvitedBy: "admin_1"}), []string{walk("member_status_idx"), by("member_status_idx")}, page},
		{"prefix", scan(clerkinvite.Scan{TenantID: "tenant0", EmailPrefix: "10"}), []string{by("member_email_key")}, 10 * page},
		{"prefix on", after(clerkinvite.Scan{TenantID: "tenant0", EmailPrefix: "10", Statuses: statuses}), []string{by("member_email_key")}, 10 * page},
		{"prefix without end", after(clerkinvite.Scan{TenantID: "tenant0", EmailPrefix: "\U0010ffff"}), []string{by("member_email_key")}, page},

		{"history", func() error {
			_, err := store.History(t.Context(), "tenant0", place)
			return err
		}, []string{by("history_pkey")}, page},
		{"backlog", func() error {
			_, err := store.Backlog(t.Context(), storeTime.Add(1e6))
			return err
		}, []string{walk("member_due_idx"), `Index (?:Only )?Scan using clerkinvite_member_expiring_idx`}, 25_000},
		{"gate asks", gate(time.Time{}, time.Time{}), nil, 0},
		{"gate takes", gate(time.Time{}, storeTime), nil, 0},
		{"gate changes", gate(storeTime, storeTime.Add(1e6)), nil, 0},
	} {
		asked.take()
		require.NoError(t, tc.ask())
		list := asked.take()
		st := list[len(list)-1]
		for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
			text := plan(t, pool, mode, st, tc.blocks > 0)
			what := tc.name + ", " + mode
			for _, want := range tc.want {
				assert.Regexp(t, want, text, what)
			}
			if tc.want != nil { // the table of gates is of a few rows, for ever
				assert.NotContains(t, text, "Seq Scan on", what)
				assert.NotContains(t, text, "Bitmap", what)
			}
			if n > 0 && tc.blocks > 0 {
				blocks := 0
				found := regexp.MustCompile(`Buffers: shared(?: hit=(\d+))?(?: read=(\d+))?`).FindStringSubmatch(text)
				require.NotNil(t, found, text)
				for _, s := range found[1:] {
					more, _ := strconv.Atoi(s)
					blocks += more
				}
				assert.LessOrEqual(t, blocks, tc.blocks, "%s:\n%s", what, text)
			}
		}
	}
}

// plan returns what PostgreSQL says of a statement of the store.
func plan(t *testing.T, pool *pgxpool.Pool, mode string, st statement, run bool) string {
	t.Helper()
	explain, types, args := "EXPLAIN", make([]string, len(st.args)), make([]string, len(st.args))
	if run {
		explain = "EXPLAIN (ANALYZE, BUFFERS)"
	}
	for i, arg := range st.args {
		types[i], args[i] = "text", "'"+strings.ReplaceAll(arg.(string), "'", "''")+"'"
	}
	var lines []string
	require.NoError(t, pool.AcquireFunc(t.Context(), func(conn *pgxpool.Conn) error {
		for _, sql := range []string{
			"SET plan_cache_mode = " + mode, "PREPARE p (" + strings.Join(types, ", ") + ") AS " + st.sql,
			explain + " EXECUTE p (" + strings.Join(args, ", ") + ")", "DEALLOCATE p",
		} {
			// Past pgx, which would want a value for $1.
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
