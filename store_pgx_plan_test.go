package clerkinvite_test

import (
	"context"
	"fmt"
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
// knows of twenty thousand rows or thinks that the table is empty.
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
		m := reservedRow(fmt.Sprintf("tenant%d", i%100), fmt.Sprintf("%d@example.com", i))
		switch i % 4 {
		case 1:
			m = pendingRow(m)
		case 2, 3:
			m = activeRow(m, "user_"+m.ID)
		}
		rows[i] = m
	}
	if n > 0 {
		insertRows(t, store, rows...)
		_, err := pool.Exec(t.Context(), "ANALYZE")
		require.NoError(t, err)
	}
	asked.take()

	m := insertRows(t, store, reservedRow("tenant", "new@example.com"))[0]
	updateRows(t, store, clerkinvite.Change{Old: m, New: activeRow(m, "user_1")})
	for _, q := range []clerkinvite.Query{
		{Refs: []clerkinvite.Ref{m.Ref()}}, {IDs: []string{m.ID}}, {Emails: []string{m.Email}},
		{UserIDs: []string{"user_1"}}, {DueAt: storeTime, Limit: 10}, {Emails: []string{m.Email}, UserIDs: []string{"user_1"}},
	} {
		_, err := store.Find(t.Context(), q)
		require.NoError(t, err)
	}
	list := asked.take()
	require.Len(t, list, 8)

	for i, indexes := range [][]string{
		{"clerkinvite_member_email_key"},
		{"clerkinvite_member_id_idx"},
		{"clerkinvite_member_email_key"},
		{"clerkinvite_member_id_idx"},
		{"clerkinvite_member_waiting_idx"},
		{"clerkinvite_member_active_idx"},
		{"clerkinvite_member_due_idx"},
		{"clerkinvite_member_waiting_idx", "clerkinvite_member_active_idx"},
	} {
		for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
			require.NoError(t, pool.AcquireFunc(t.Context(), func(conn *pgxpool.Conn) error {
				arg := "'" + strings.ReplaceAll(list[i].args[0].(string), "'", "''") + "'"
				var plan []string
				for _, sql := range []string{"SET plan_cache_mode = " + mode, "PREPARE p (text) AS " + list[i].sql, "EXPLAIN EXECUTE p (" + arg + ")", "DEALLOCATE p"} {
					// Past pgx, which would want a value for $1.
					results, err := conn.Conn().PgConn().Exec(t.Context(), sql).ReadAll()
					require.NoError(t, err)
					for _, line := range results[0].Rows {
						plan = append(plan, string(line[0]))
					}
				}
				text := strings.Join(plan, "\n")
				assert.NotContains(t, text, "Seq Scan on", mode)
				assert.NotContains(t, text, "Bitmap", mode)
				for _, index := range indexes {
					// By its columns, not from end to end.
					assert.Regexp(t, "using "+index+` on .*\n *Index Cond: `, text, mode)
				}
				return nil
			}))
		}
	}
}
