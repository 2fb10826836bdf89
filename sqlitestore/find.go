package sqlitestore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/internal/storeutil"
)

// querier is a *sql.DB or a *sql.Tx.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// statement is a SELECT with its parameters.
type statement struct {
	sql  string
	args []any
}

// The values are one parameter, a text of JSON, so their number has no limit. SQLite executes a CROSS
// JOIN from left to right, so each value is looked up in the index.
const (
	findRefsSQL = `
SELECT ` + memberColumns + `
FROM json_each(?) x CROSS JOIN clerkinvite_member m INDEXED BY clerkinvite_member_email_key
WHERE m.tenant_id = json_extract(x.value, '$[0]') AND m.email = json_extract(x.value, '$[1]')`
	findRefIDsSQL = `
SELECT ` + memberColumns + `
FROM json_each(?) x CROSS JOIN clerkinvite_member m
WHERE m.tenant_id = json_extract(x.value, '$[0]') AND m.id = json_extract(x.value, '$[1]')`
	findRefUsersSQL = `
SELECT ` + memberColumns + `
FROM json_each(?) x CROSS JOIN clerkinvite_member m INDEXED BY clerkinvite_member_user_key
WHERE m.tenant_id = json_extract(x.value, '$[0]') AND m.clerk_user_id = json_extract(x.value, '$[1]')`
	findIDsSQL = `
SELECT ` + memberColumns + `
FROM json_each(?) x CROSS JOIN clerkinvite_member m INDEXED BY clerkinvite_member_id_idx
WHERE m.id = x.value`
	findEmailsSQL = `
SELECT ` + memberColumns + `
FROM json_each(?) x CROSS JOIN clerkinvite_member m INDEXED BY clerkinvite_member_waiting_idx
WHERE m.email = x.value AND m.status IN ('reserved', 'pending', 'expired')`
	findUsersSQL = `
SELECT ` + memberColumns + `
FROM json_each(?) x CROSS JOIN clerkinvite_member m INDEXED BY clerkinvite_member_active_idx
WHERE m.clerk_user_id = x.value AND m.status = 'active'`
	// dueSQL is internal/pgsql/due.sql for SQLite: ?1 is the time, ?2 the tenant after which to begin, and ?3
	// the maximum number of members.
	dueSQL = `
WITH RECURSIVE earliest AS MATERIALIZED (
	SELECT m.rowid AS number, m.bulk, m.tenant_id, m.next_attempt_at, m.id
	FROM clerkinvite_member m INDEXED BY clerkinvite_member_due_idx
	WHERE m.sent < m.send AND m.status IN ('reserved', 'pending') AND m.next_attempt_at <= ?1
	ORDER BY m.next_attempt_at LIMIT ?3 + 1
), tenant (bulk, tenant_id, last, due, found, steps) AS (
	SELECT column1, column2, column3, false, 0, 0
	FROM (VALUES (0, ?2, NULL), (0, '', ?2), (1, ?2, NULL), (1, '', ?2))
	WHERE (SELECT count(*) FROM earliest) > ?3
	UNION ALL
	SELECT t.bulk, m.tenant_id, t.last, m.next_attempt_at <= ?1, t.found + (m.next_attempt_at <= ?1), t.steps + 1
	FROM tenant t CROSS JOIN clerkinvite_member m ON m.rowid = (
		SELECT m.rowid FROM clerkinvite_member m INDEXED BY clerkinvite_member_turns_idx
		WHERE m.sent < m.send AND m.status IN ('reserved', 'pending') AND m.bulk = t.bulk AND m.tenant_id > t.tenant_id
		ORDER BY m.tenant_id, m.next_attempt_at LIMIT 1)
	WHERE t.found < ?3 AND t.steps - t.found < 10000 AND (t.last IS NULL OR m.tenant_id <= t.last)
), candidate AS (
	SELECT * FROM earliest
	UNION
	SELECT m.rowid, m.bulk, m.tenant_id, m.next_attempt_at, m.id
	FROM tenant t CROSS JOIN clerkinvite_member m ON m.rowid IN (
		SELECT m.rowid FROM clerkinvite_member m INDEXED BY clerkinvite_member_turns_idx
		WHERE m.sent < m.send AND m.status IN ('reserved', 'pending') AND m.bulk = t.bulk AND m.tenant_id = t.tenant_id AND m.next_attempt_at <= ?1
		ORDER BY m.next_attempt_at, m.id LIMIT ?3)
	WHERE t.due
), chosen AS (
	SELECT number, bulk, row_number() OVER (PARTITION BY bulk, tenant_id ORDER BY next_attempt_at, id) AS turn, tenant_id <= ?2 AS wrapped, tenant_id
	FROM candidate ORDER BY 2, 3, 4, 5 LIMIT ?3
)
SELECT ` + memberColumns + `
FROM chosen c CROSS JOIN clerkinvite_member m ON m.rowid = c.number
ORDER BY c.bulk, c.turn, c.wrapped, c.tenant_id`

	countsSQL = `
SELECT m.status, count(*)
FROM clerkinvite_member m INDEXED BY clerkinvite_member_status_idx
WHERE m.tenant_id = ? GROUP BY m.status`

	historySQL = `
SELECT version, coalesce(from_status, ''), to_status, send, sent, coalesce(clerk_user_id, ''), coalesce(invitation_id, ''),
	coalesce(role, ''), coalesce(reason, ''), coalesce(actor, ''), at
FROM clerkinvite_history WHERE tenant_id = ? AND member_id = ?
ORDER BY version`

	backlogSQL = `
SELECT count(*) FILTER (WHERE d.status = 'reserved'), count(*) FILTER (WHERE d.next_attempt_at <= ?1),
	min(d.next_attempt_at) FILTER (WHERE d.next_attempt_at <= ?1),
	(SELECT count(*) FROM (
		SELECT 1 FROM clerkinvite_member m INDEXED BY clerkinvite_member_expiring_idx WHERE m.status = 'pending' AND m.expires_at <= ?1
		ORDER BY m.expires_at LIMIT 10000))
FROM (
	SELECT m.status, m.next_attempt_at FROM clerkinvite_member m INDEXED BY clerkinvite_member_due_idx
	WHERE m.sent < m.send AND m.status IN ('reserved', 'pending')
	ORDER BY m.next_attempt_at LIMIT 10000) d`
)

// find returns the members that q selects, with one statement: a consistent snapshot.
func find(ctx context.Context, db querier, q clerkinvite.Query) ([]*clerkinvite.Member, error) {
	st, err := findStatement(q)
	if err != nil || st.sql == "" {
		return nil, err
	}
	found, err := members(ctx, db, st)
	return storeutil.Unique(found, func(m *clerkinvite.Member) [2]string { return [2]string{m.TenantID, m.ID} }), err
}

// due returns due members.
func due(ctx context.Context, db querier, q clerkinvite.DueQuery) ([]*clerkinvite.Member, error) {
	return members(ctx, db, statement{dueSQL, []any{micros(q.At), q.AfterTenantID, storeutil.Limit(q.Limit)}})
}

// page returns the members of a page.
func page(ctx context.Context, db querier, q clerkinvite.PageQuery) ([]*clerkinvite.Member, error) {
	st, err := pageStatement(q)
	if err != nil || st.sql == "" {
		return nil, err
	}
	return members(ctx, db, st)
}

// findStatement returns the statement for q, with a SELECT per selector. It is empty if q selects nothing.
func findStatement(q clerkinvite.Query) (statement, error) {
	var refs, refIDs, refUsers [][2]string
	for _, r := range q.Refs {
		switch {
		case !storeutil.IsText(r.TenantID):
		case r.Email != "" && storeutil.IsText(r.Email):
			refs = append(refs, [2]string{r.TenantID, r.Email})
		case storeutil.IsUUID(r.ID):
			refIDs = append(refIDs, [2]string{r.TenantID, strings.ToLower(r.ID)})
		case r.ClerkUserID != "" && storeutil.IsText(r.ClerkUserID):
			refUsers = append(refUsers, [2]string{r.TenantID, r.ClerkUserID})
		}
	}
	var ids []string
	for _, id := range q.IDs {
		if storeutil.IsUUID(id) {
			ids = append(ids, strings.ToLower(id))
		}
	}
	emails, users := storeutil.Texts(q.Emails), storeutil.Texts(q.UserIDs)
	var selects []string
	var args []any
	for _, s := range []struct {
		sql    string
		n      int
		values any
	}{
		{findRefsSQL, len(refs), refs}, {findRefIDsSQL, len(refIDs), refIDs}, {findRefUsersSQL, len(refUsers), refUsers},
		{findIDsSQL, len(ids), ids}, {findEmailsSQL, len(emails), emails}, {findUsersSQL, len(users), users},
	} {
		if s.n == 0 {
			continue
		}
		values, err := json.Marshal(s.values)
		if err != nil {
			return statement{}, err
		}
		selects, args = append(selects, s.sql), append(args, string(values))
	}
	return statement{strings.Join(selects, "\nUNION ALL"), args}, nil
}

// pageStatement returns the statement for a page, with the conditions of q only. It reads an index in its
// order until the page is full. With an EmailPrefix no index has the order: then it reads all addresses of
// the tenant with the prefix. It is empty if q selects nothing.
func pageStatement(q clerkinvite.PageQuery) (statement, error) {
	limit := storeutil.Limit(q.Limit)
	if !storeutil.IsText(q.AfterTenantID) || q.AfterID != "" && !storeutil.IsUUID(q.AfterID) {
		return statement{}, errors.New("sqlitestore: invalid PageQuery: AfterID must be a member's ID, and AfterTenantID its tenant")
	}
	if q.NewestFirst && q.TenantID == "" {
		return statement{}, errors.New("sqlitestore: invalid PageQuery: NewestFirst needs a TenantID")
	}
	if !q.ExpiresBefore.IsZero() && len(q.Statuses) == 0 {
		q.Statuses = []clerkinvite.Status{clerkinvite.StatusPending}
	}
	var statuses []any
	for _, status := range clerkinvite.Statuses() {
		if slices.Contains(q.Statuses, status) && (q.ExpiresBefore.IsZero() || status == clerkinvite.StatusPending) {
			statuses = append(statuses, string(status))
		}
	}
	if !storeutil.IsText(q.TenantID) || !storeutil.IsText(q.EmailPrefix) || !storeutil.IsText(q.InvitedBy) || len(q.Statuses) > 0 && len(statuses) == 0 {
		return statement{}, nil
	}
	q.AfterID = strings.ToLower(q.AfterID)

	c := conditions{newestFirst: q.NewestFirst}
	switch {
	case q.TenantID != "":
		start, ok := storeutil.PageStart(q.TenantID, q.AfterTenantID, q.AfterID, q.NewestFirst)
		if !ok {
			return statement{}, nil
		}
		c.add("m.tenant_id = ?", q.TenantID)
		switch {
		case start == "":
		case q.NewestFirst:
			c.add("m.id < ?", start)
		default:
			c.add("m.id > ?", start)
		}
	case q.AfterID != "":
		c.add("(m.tenant_id, m.id) > (?, ?)", q.AfterTenantID, q.AfterID)
	case q.AfterTenantID != "":
		c.add("m.tenant_id >= ?", q.AfterTenantID)
	}
	if q.EmailPrefix != "" {
		c.add("m.email >= ? AND m.email < ?", q.EmailPrefix, storeutil.PrefixEnd(q.EmailPrefix))
	}
	if q.InvitedBy != "" {
		c.add("m.invited_by = ?", q.InvitedBy)
	}
	if !q.ExpiresBefore.IsZero() {
		c.add("m.expires_at < ?", micros(q.ExpiresBefore))
	}
	if q.TenantID != "" && q.EmailPrefix == "" && len(statuses) > 0 {
		return statusesStatement(c, statuses, limit), nil
	}
	if len(statuses) > 0 {
		c.add("m.status IN (?"+strings.Repeat(", ?", len(statuses)-1)+")", statuses...)
	}
	index := "sqlite_autoindex_clerkinvite_member_1" // of the primary key
	if q.TenantID != "" && q.EmailPrefix != "" {
		index = "clerkinvite_member_email_key"
	}
	return indexStatement(index, c, limit), nil
}

// statusesStatement returns the statement for a page of a tenant's members in some states: one branch
// per state, each in the order of the page and with its limit.
func statusesStatement(c conditions, statuses []any, limit int) statement {
	var branches []string
	var args []any
	for _, status := range statuses {
		branch := conditions{slices.Clone(c.where), slices.Clone(c.args), c.newestFirst}
		branch.add("m.status = ?", status)
		st := indexStatement("clerkinvite_member_status_idx", branch, limit)
		branches, args = append(branches, "\nSELECT * FROM ("+st.sql+")"), append(args, st.args...)
	}
	return statement{strings.Join(branches, "\nUNION ALL") + "\nORDER BY 1, 2" + c.direction() + "\nLIMIT ?", append(args, limit)} // by tenant_id and id
}

// indexStatement returns the statement for the first members that match, read from an index.
func indexStatement(index string, c conditions, limit int) statement {
	where := ""
	if len(c.where) > 0 {
		where = "\nWHERE " + strings.Join(c.where, " AND ")
	}
	return statement{
		"\nSELECT " + memberColumns + "\nFROM clerkinvite_member m INDEXED BY " + index + where + "\nORDER BY m.tenant_id, m.id" + c.direction() + "\nLIMIT ?",
		append(c.args, limit),
	}
}

// conditions are joined by AND. The members come in the order of their IDs.
type conditions struct {
	where       []string
	args        []any
	newestFirst bool
}

// direction returns what follows the last column of ORDER BY.
func (c *conditions) direction() string {
	if c.newestFirst {
		return " DESC"
	}
	return ""
}

func (c *conditions) add(sql string, args ...any) {
	c.where, c.args = append(c.where, sql), append(c.args, args...)
}

// members runs a statement that returns members.
func members(ctx context.Context, db querier, st statement) (found []*clerkinvite.Member, err error) {
	rows, err := db.QueryContext(ctx, st.sql, st.args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		m, err := scanMember(rows)
		if err != nil {
			return nil, err
		}
		found = append(found, m)
	}
	return found, rows.Err()
}

// counts returns how many members of a tenant are in each state.
func counts(ctx context.Context, db querier, tenantID string) (map[clerkinvite.Status]int, error) {
	rows, err := db.QueryContext(ctx, countsSQL, tenantID)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	counts := make(map[clerkinvite.Status]int)
	for rows.Next() {
		var status clerkinvite.Status
		var n int
		if err := rows.Scan(&status, &n); err != nil {
			return nil, err
		}
		counts[status] = n
	}
	return counts, rows.Err()
}

// history returns the history of a member.
func history(ctx context.Context, db querier, tenantID, id string) (entries []clerkinvite.HistoryEntry, err error) {
	if !storeutil.IsText(tenantID) || !storeutil.IsUUID(id) {
		return nil, ctx.Err()
	}
	rows, err := db.QueryContext(ctx, historySQL, tenantID, strings.ToLower(id))
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var m clerkinvite.HistoryEntry
		var changed int64
		if err := rows.Scan(&m.Version, &m.From, &m.To, &m.Send, &m.Sent, &m.ClerkUserID, &m.InvitationID, &m.Role, &m.Reason, &m.Actor, &changed); err != nil {
			return nil, err
		}
		m.At = at(changed)
		entries = append(entries, m)
	}
	return entries, rows.Err()
}

// backlog counts the work that waits at the given time.
func backlog(ctx context.Context, db querier, now time.Time) (b clerkinvite.Backlog, err error) {
	var oldest *int64
	if err := db.QueryRowContext(ctx, backlogSQL, micros(now)).Scan(&b.Reserved, &b.Due, &oldest, &b.Overdue); err != nil {
		return clerkinvite.Backlog{}, err
	}
	if oldest != nil {
		b.OldestDue = at(*oldest)
	}
	return b, nil
}
