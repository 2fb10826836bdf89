package sqlitestore

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
)

const someID = "01990000-0000-7000-8000-000000000000"

// Every statement uses an index, whether or not SQLite has statistics.
func TestEveryHotPathUsesAnIndex(t *testing.T) {
	t.Parallel()
	store, err := Open(filepath.Join(t.TempDir(), "clerkinvite.db"))
	require.NoError(t, err)
	defer store.Close()
	require.NoError(t, store.Migrate(t.Context()))
	checkPlans(t, store, "empty")

	var rows []*clerkinvite.Member
	for i := range 500 {
		at := time.UnixMicro(int64(i))
		rows = append(rows, &clerkinvite.Member{
			ID: fmt.Sprintf("01990000-0000-7000-8000-%012d", i), TenantID: fmt.Sprint("tenant", i%10*(i/10%2)), Email: fmt.Sprintf("%d@example.com", i),
			Status: clerkinvite.StatusReserved, Send: 1, InvitedBy: fmt.Sprint("admin", i%3), ReservedAt: at, NextAttemptAt: &at, UpdatedAt: at,
		})
	}
	_, err = store.Insert(t.Context(), rows)
	require.NoError(t, err)
	_, err = store.db.ExecContext(t.Context(), "ANALYZE")
	require.NoError(t, err)
	checkPlans(t, store, "analyzed")
}

func checkPlans(t *testing.T, store *Store, state string) {
	t.Helper()
	find := func(q clerkinvite.Query) statement {
		st, err := findStatement(q)
		require.NoError(t, err)
		return st
	}
	page := func(q clerkinvite.PageQuery) statement {
		st, err := pageStatement(q)
		require.NoError(t, err)
		return st
	}
	after := func(q clerkinvite.PageQuery) statement {
		q.AfterTenantID, q.AfterID = "tenant0", someID
		return page(q)
	}
	statuses := []clerkinvite.Status{clerkinvite.StatusPending, clerkinvite.StatusActive}
	const (
		search = "SEARCH m USING INDEX clerkinvite_member_"
		byID   = "SEARCH m USING INDEX sqlite_autoindex_clerkinvite_member_1 " // of the primary key
	)
	for _, tc := range []struct {
		name string
		st   statement
		want string
		// sorts reports whether the rows are sorted before the LIMIT. Otherwise the index has their order.
		sorts bool
	}{
		{"refs", find(clerkinvite.Query{Refs: []clerkinvite.Ref{{TenantID: "tenant0", Email: "x@example.com"}}}), search + "email_key (tenant_id=? AND email=?)", false},
		{"ref by ID", find(clerkinvite.Query{Refs: []clerkinvite.Ref{{TenantID: "tenant0", ID: someID}}}), byID + "(tenant_id=? AND id=?)", false},
		{"ref by user", find(clerkinvite.Query{Refs: []clerkinvite.Ref{{TenantID: "tenant0", ClerkUserID: "user_1"}}}), search + "user_key (tenant_id=? AND clerk_user_id=?)", false},
		{"ids", find(clerkinvite.Query{IDs: []string{someID}}), search + "id_idx (id=?)", false},
		{"emails", find(clerkinvite.Query{Emails: []string{"x@example.com"}}), search + "waiting_idx (email=?)", false},
		{"users", find(clerkinvite.Query{UserIDs: []string{"user_1"}}), search + "active_idx (clerk_user_id=?)", false},
		{"due", statement{dueSQL, []any{1, "tenant0", 10}}, search + "due_idx (next_attempt_at<?)", true},
		{"due tenants", statement{dueSQL, []any{1, "tenant0", 10}}, search + "turns_idx (bulk=? AND tenant_id>?)", true},
		{"due of a tenant", statement{dueSQL, []any{1, "tenant0", 10}}, search + "turns_idx (bulk=? AND tenant_id=? AND next_attempt_at<?)", true},
		{"several", find(clerkinvite.Query{IDs: []string{someID}, Emails: []string{"x@example.com"}}), search + "waiting_idx (email=?)", false},

		{"page on", after(clerkinvite.PageQuery{}), byID + "((tenant_id,id)>(?,?))", false},
		{"page from a tenant on", page(clerkinvite.PageQuery{AfterTenantID: "tenant5"}), byID + "(tenant_id>?)", false},
		{"page with filters on", after(clerkinvite.PageQuery{InvitedBy: "admin1", EmailPrefix: "1", Statuses: statuses}), byID + "((tenant_id,id)>(?,?))", false},
		{"tenant", page(clerkinvite.PageQuery{TenantID: "tenant0"}), byID + "(tenant_id=?)", false},
		{"tenant on", after(clerkinvite.PageQuery{TenantID: "tenant0"}), byID + "(tenant_id=? AND id>?)", false},
		{"tenant with a filter on", after(clerkinvite.PageQuery{TenantID: "tenant0", InvitedBy: "admin1"}), byID + "(tenant_id=? AND id>?)", false},
		{"status", page(clerkinvite.PageQuery{TenantID: "tenant0", Statuses: statuses[:1]}), search + "status_idx (tenant_id=? AND status=?)", false},
		{"status on", after(clerkinvite.PageQuery{TenantID: "tenant0", Statuses: statuses[:1]}), search + "status_idx (tenant_id=? AND status=? AND id>?)", false},
		{"statuses on", after(clerkinvite.PageQuery{TenantID: "tenant0", Statuses: statuses}), search + "status_idx (tenant_id=? AND status=? AND id>?)", true},
		{"tenant, newest first, on", after(clerkinvite.PageQuery{TenantID: "tenant0", NewestFirst: true}), byID + "(tenant_id=? AND id<?)", false},
		{"status, newest first, on", after(clerkinvite.PageQuery{TenantID: "tenant0", NewestFirst: true, Statuses: statuses[:1]}), search + "status_idx (tenant_id=? AND status=? AND id<?)", false},
		{"expiring", page(clerkinvite.PageQuery{TenantID: "tenant0", ExpiresBefore: time.UnixMicro(1)}), search + "status_idx (tenant_id=? AND status=?)", false},
		{"counts", statement{countsSQL, []any{"tenant0"}}, "SEARCH m USING COVERING INDEX clerkinvite_member_status_idx (tenant_id=?)", false},
		{"prefix", page(clerkinvite.PageQuery{TenantID: "tenant0", EmailPrefix: "10"}), search + "email_key (tenant_id=? AND email>? AND email<?)", true},
		{"prefix on", after(clerkinvite.PageQuery{TenantID: "tenant0", EmailPrefix: "10", Statuses: statuses}), search + "email_key (tenant_id=? AND email>? AND email<?)", true},

		{"update", statement{updateSQL, slices.Concat([]any{""}, values(&clerkinvite.Member{}), []any{"tenant0", someID, 1})}, "(tenant_id=? AND id=?)", false},
		{"user in a tenant", statement{byUserSQL, []any{"tenant0", "user_1"}}, search + "user_key (tenant_id=? AND clerk_user_id=?)", false},
		{"ref", statement{byRefSQL, []any{"tenant0", "x@example.com"}}, search + "email_key (tenant_id=? AND email=?)", false},
		{"id", statement{byIDSQL, []any{"tenant0", someID}}, "(tenant_id=? AND id=?)", false},
		{"erase", statement{eraseSQL, []any{"tenant0", someID}}, "(tenant_id=? AND id=?)", false},
		{"erase the history", statement{eraseHistorySQL, []any{"tenant0", someID}}, "PRIMARY KEY (tenant_id=? AND member_id=?)", false},
		{"history", statement{historySQL, []any{"tenant0", someID}}, "PRIMARY KEY (tenant_id=? AND member_id=?)", false},
		{"read a time", statement{readTimeSQL, []any{"create"}}, "PRIMARY KEY (name=?)", false},
		{"swap a time", statement{swapTimeSQL, []any{2, "create", 1}}, "PRIMARY KEY (name=?)", false},
	} {
		plan := planOf(t, store, tc.st)
		assert.Contains(t, plan, tc.want, "%s, %s", tc.name, state)
		for line := range strings.Lines(plan) {
			scans := strings.Contains(line, "SCAN m") || strings.Contains(line, "SCAN clerkinvite") // unlike scans of a subquery
			assert.False(t, scans, "%s, %s:\n%s", tc.name, state, plan)
		}
		assert.Equal(t, tc.sorts, strings.Contains(plan, "TEMP B-TREE"), "%s, %s:\n%s", tc.name, state, plan)
	}

	// Pages of all tenants, and the backlog, read an index in order, up to a limit.
	for name, want := range map[string]statement{
		"SCAN m USING INDEX sqlite_autoindex_clerkinvite_member_1": page(clerkinvite.PageQuery{EmailPrefix: "1"}),
		"SCAN m USING INDEX clerkinvite_member_due_idx":            {backlogSQL, []any{1}},
		"clerkinvite_member_expiring_idx (expires_at<?)":           {backlogSQL, []any{1}},
	} {
		plan := planOf(t, store, want)
		assert.Contains(t, plan, name, state)
		assert.NotContains(t, plan, "TEMP B-TREE", state)
	}
}

// planOf returns SQLite's plan for a statement.
func planOf(t *testing.T, store *Store, st statement) string {
	t.Helper()
	rows, err := store.db.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+st.sql, st.args...)
	require.NoError(t, err)
	defer rows.Close()
	var lines []string
	for rows.Next() {
		var id, parent, unused int
		var line string
		require.NoError(t, rows.Scan(&id, &parent, &unused, &line))
		lines = append(lines, line)
	}
	require.NoError(t, rows.Err())
	return strings.Join(lines, "\n") + "\n"
}
