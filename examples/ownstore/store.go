package main

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/clerkinvite/clerkinvite"
)

// schema has the host's table admin_user and the other tables that a Store needs.
//
//go:embed schema.sql
var schema string

// Store keeps members in the host's table admin_user, with one plain statement per row.
// Every statement is its own transaction, so a 23505 aborts nothing else.
//
// It passes storetest, so the service keeps its promises on it. Compared with
// clerkinvite.PgxStore it lacks:
//
//   - Speed: a hundred rows are a hundred round trips instead of one.
//   - All or nothing: if the connection fails, the rows before it stay written. The
//     service treats that like a lost response, and the rows are delivered.
//   - Retries: a lost response is an error, while PgxStore repeats the statement. A row
//     that was claimed is then delivered when its lease ends.
//   - The host's transactions: without WithTx, a member cannot be reserved together with
//     other rows.
//   - Migrations, CHECK constraints, other schemas, every execution mode of pgx.
type Store struct {
	pool *pgxpool.Pool
}

var _ clerkinvite.Store = (*Store)(nil)

// columns have the names of the fields of a member, so pgx can read rows by name.
const columns = `tenant_id, id, email, status, clerk_user_id, invitation_id, url, role, invited_by, changed_by, data, params, send, sent, bulk,
	attempts, reason, version, reserved_at, invited_at, expires_at, settled_at, claimed_until, next_attempt_at, updated_at`

const values = `$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25`

// args returns the values of columns.
func args(m *clerkinvite.Member) []any {
	return []any{
		m.TenantID, m.ID, m.Email, m.Status, m.ClerkUserID, m.InvitationID, m.URL, m.Role, m.InvitedBy, m.ChangedBy, m.Data, m.Params, m.Send, m.Sent, m.Bulk,
		m.Attempts, m.Reason, m.Version, m.ReservedAt, m.InvitedAt, m.ExpiresAt, m.SettledAt, m.ClaimedUntil, m.NextAttemptAt, m.UpdatedAt,
	}
}

// The statement that makes a change also writes the history, so neither exists without the
// other.
const (
	insertSQL = `
WITH written AS (INSERT INTO admin_user (` + columns + `) VALUES (` + values + `) RETURNING *),
history AS (
	INSERT INTO admin_user_history SELECT tenant_id, id, version, '', status, send, sent, clerk_user_id, invitation_id, role, reason, changed_by, updated_at
	FROM written)
SELECT ` + columns + ` FROM written`

	updateSQL = `
WITH written AS (
	UPDATE admin_user SET (` + columns + `) = ROW (` + values + `)
	WHERE tenant_id = $1 AND id = $2 AND version = $18 - 1
	RETURNING *),
history AS (
	INSERT INTO admin_user_history SELECT tenant_id, id, version, $26, status, send, sent, clerk_user_id, invitation_id, role, reason, changed_by, updated_at
	FROM written WHERE $27)
SELECT ` + columns + ` FROM written`
)

// Insert implements clerkinvite.TxStore.
func (s *Store) Insert(ctx context.Context, rows []*clerkinvite.Member) ([]clerkinvite.Result, error) {
	results := make([]clerkinvite.Result, len(rows))
	for i, m := range rows {
		var err error
		results[i], err = s.insert(ctx, m)
		switch {
		case refused(err):
			results[i].Err = err
		case err != nil:
			return nil, err
		}
	}
	return results, nil
}

func (s *Store) insert(ctx context.Context, m *clerkinvite.Member) (clerkinvite.Result, error) {
	row := *m
	row.Version = 1
	for range 3 { // again if the duplicate is erased before it is read
		written, err := s.query(ctx, insertSQL, args(&row)...)
		if err == nil {
			return clerkinvite.Result{Member: written[0]}, nil
		}
		if !clerkinvite.IsUniqueViolation(err) {
			return clerkinvite.Result{}, err
		}
		existing, err := s.Find(ctx, clerkinvite.Query{Refs: []clerkinvite.Ref{m.Ref()}})
		switch {
		case err != nil:
			return clerkinvite.Result{}, err
		case len(existing) == 0: // then perhaps a member with its user exists
			holders, err := s.query(ctx, `SELECT `+columns+` FROM admin_user WHERE tenant_id = $1 AND clerk_user_id = $2 AND clerk_user_id <> ''`, m.TenantID, m.ClerkUserID)
			if err != nil {
				return clerkinvite.Result{}, err
			}
			if len(holders) > 0 {
				return clerkinvite.Result{Member: holders[0], Err: clerkinvite.ErrUserTaken}, nil
			}
		case existing[0].ID == m.ID: // a repeated call: the first response was lost
			return clerkinvite.Result{Member: existing[0]}, nil
		default:
			return clerkinvite.Result{Member: existing[0], Err: &clerkinvite.DuplicateEmailError{Ref: m.Ref(), Member: existing[0]}}, nil
		}
	}
	return clerkinvite.Result{Err: fmt.Errorf("another row has the ID: %w", clerkinvite.ErrConflict)}, nil
}

// Update implements clerkinvite.TxStore.
func (s *Store) Update(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
	results := make([]clerkinvite.Result, len(changes))
	for i, c := range changes {
		var err error
		results[i].Member, err = s.update(ctx, c)
		switch {
		case errors.Is(err, clerkinvite.ErrConflict):
			results[i].Err = err
		case clerkinvite.IsUniqueViolation(err, "admin_user_clerk_user_id_key"):
			results[i].Err = clerkinvite.ErrUserTaken
		case clerkinvite.IsUniqueViolation(err, "admin_user_email_key"):
			results[i].Err = clerkinvite.ErrEmailTaken
		case refused(err):
			results[i].Err = err
		case err != nil:
			return nil, err
		}
	}
	return results, nil
}

// refused reports whether PostgreSQL refused a row, for example because of a constraint or a
// trigger. That is the row's error, and the other rows are written.
func refused(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg)
}

func (s *Store) update(ctx context.Context, c clerkinvite.Change) (*clerkinvite.Member, error) {
	if c.New == nil {
		return s.erase(ctx, c.Old)
	}
	row := *c.New
	row.TenantID, row.ID, row.Version = c.Old.TenantID, c.Old.ID, c.Old.Version+1
	written, err := s.query(ctx, updateSQL, append(args(&row), c.Old.Status, c.Recorded())...)
	if err != nil {
		return nil, err
	}
	if len(written) == 0 {
		return nil, clerkinvite.ErrConflict
	}
	return written[0], nil
}

// erase deletes a row; the foreign key deletes its history. A row that does not exist counts
// as erased: the response to an earlier call may have been lost.
func (s *Store) erase(ctx context.Context, m *clerkinvite.Member) (*clerkinvite.Member, error) {
	if _, err := s.pool.Exec(ctx, `DELETE FROM admin_user WHERE tenant_id = $1 AND id = $2 AND version = $3`, m.TenantID, m.ID, m.Version); err != nil {
		return nil, err
	}
	left, err := s.query(ctx, `SELECT `+columns+` FROM admin_user WHERE tenant_id = $1 AND id = $2`, m.TenantID, m.ID)
	if err != nil {
		return nil, err
	}
	if len(left) > 0 {
		return nil, clerkinvite.ErrConflict // the row has another version
	}
	return m.Clone(), nil
}

// Find implements clerkinvite.Store: one statement per selector, so that each can use
// its index.
func (s *Store) Find(ctx context.Context, q clerkinvite.Query) ([]*clerkinvite.Member, error) {
	var emails, ids, users refs
	for _, r := range q.Refs {
		switch {
		case !storable(r.TenantID, r.Email, r.ID, r.ClerkUserID):
		case r.Email != "":
			emails.add(r.TenantID, r.Email)
		case r.ID != "":
			ids.add(r.TenantID, strings.ToLower(r.ID))
		case r.ClerkUserID != "":
			users.add(r.TenantID, r.ClerkUserID)
		}
	}
	var found []*clerkinvite.Member
	for _, selector := range []struct {
		used  bool
		where string
		args  []any
	}{
		{len(emails.values) > 0, `(tenant_id, email) IN (SELECT * FROM unnest($1::text[], $2::text[]))`, []any{emails.tenants, emails.values}},
		{len(ids.values) > 0, `(tenant_id, id) IN (SELECT * FROM unnest($1::text[], $2::text[]))`, []any{ids.tenants, ids.values}},
		{len(users.values) > 0, `(tenant_id, clerk_user_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))`, []any{users.tenants, users.values}},
		{len(q.IDs) > 0, `id = ANY ($1)`, []any{lower(keep(q.IDs))}},
		{len(q.Emails) > 0, `email = ANY ($1) AND status IN ('reserved', 'pending', 'expired')`, []any{keep(q.Emails)}},
		{len(q.UserIDs) > 0, `clerk_user_id = ANY ($1) AND status = 'active'`, []any{keep(q.UserIDs)}},
	} {
		if !selector.used {
			continue
		}
		part, err := s.query(ctx, `SELECT `+columns+` FROM admin_user WHERE `+selector.where, selector.args...)
		if err != nil {
			return nil, err
		}
		found = append(found, part...)
	}
	seen := make(map[[2]string]bool, len(found))
	return slices.DeleteFunc(found, func(m *clerkinvite.Member) bool {
		key := [2]string{m.TenantID, m.ID}
		duplicate := seen[key]
		seen[key] = true
		return duplicate
	}), nil
}

// refs are values, each in a tenant.
type refs struct{ tenants, values []string }

func (r *refs) add(tenant, value string) {
	r.tenants, r.values = append(r.tenants, tenant), append(r.values, value)
}

// Due implements clerkinvite.Store. It reads all due members, while clerkinvite.PgxStore
// reads only as many as it needs.
func (s *Store) Due(ctx context.Context, q clerkinvite.DueQuery) ([]*clerkinvite.Member, error) {
	return s.query(ctx, `
SELECT `+columns+` FROM (
	SELECT *, row_number() OVER (PARTITION BY bulk, tenant_id ORDER BY next_attempt_at, id) AS turn FROM admin_user
	WHERE sent < send AND status IN ('reserved', 'pending') AND next_attempt_at <= $1) m
ORDER BY bulk, turn, tenant_id <= $2, tenant_id LIMIT $3`, q.At, q.AfterTenantID, cmp.Or(q.Limit, 1000))
}

// Page implements clerkinvite.Store.
func (s *Store) Page(ctx context.Context, q clerkinvite.PageQuery) ([]*clerkinvite.Member, error) {
	if q.AfterID != "" && uuid.Validate(q.AfterID) != nil {
		return nil, errors.New("AfterID is not a member's ID") // an empty page would skip members silently
	}
	if q.NewestFirst && q.TenantID == "" {
		return nil, errors.New("NewestFirst needs a TenantID")
	}
	statuses := make([]string, len(q.Statuses))
	for i, status := range q.Statuses {
		statuses[i] = string(status)
	}
	if !storable(q.TenantID, q.EmailPrefix, q.InvitedBy) {
		return nil, nil
	}
	after, order := `>`, `tenant_id, id`
	if q.NewestFirst {
		after, order = `<`, `tenant_id DESC, id DESC`
	}
	return s.query(ctx, `
SELECT `+columns+` FROM admin_user
WHERE ($1 = '' OR tenant_id = $1) AND ($2 OR status = ANY ($3)) AND starts_with(email, $4) AND ($5 = '' OR invited_by = $5)
	AND ($6 OR status = 'pending' AND expires_at < $7)
	AND ($8 OR (tenant_id, id) `+after+` ($9, $10))
ORDER BY `+order+` LIMIT $11`,
		q.TenantID, len(statuses) == 0, keep(statuses), q.EmailPrefix, q.InvitedBy, q.ExpiresBefore.IsZero(), q.ExpiresBefore,
		q.AfterTenantID == "" && q.AfterID == "", q.AfterTenantID, strings.ToLower(q.AfterID), cmp.Or(q.Limit, 1000))
}

// Counts implements clerkinvite.Store.
func (s *Store) Counts(ctx context.Context, tenantID string) (map[clerkinvite.Status]int, error) {
	if !storable(tenantID) {
		return nil, nil
	}
	rows, err := s.pool.Query(ctx, `SELECT status, count(*) FROM admin_user WHERE tenant_id = $1 GROUP BY status`, tenantID)
	if err != nil {
		return nil, err
	}
	counts := make(map[clerkinvite.Status]int)
	var status clerkinvite.Status
	var n int
	_, err = pgx.ForEachRow(rows, []any{&status, &n}, func() error {
		counts[status] = n
		return nil
	})
	return counts, err
}

// History implements clerkinvite.Store.
func (s *Store) History(ctx context.Context, tenantID, id string) ([]clerkinvite.HistoryEntry, error) {
	if !storable(tenantID, id) {
		return nil, nil
	}
	rows, err := s.pool.Query(ctx, `
SELECT version, from_status AS "from", to_status AS "to", send, sent, clerk_user_id, invitation_id, role, reason, actor, at
FROM admin_user_history WHERE tenant_id = $1 AND member_id = $2 ORDER BY version`, tenantID, strings.ToLower(id))
	if err != nil {
		return nil, err
	}
	entries, err := pgx.CollectRows(rows, pgx.RowToStructByName[clerkinvite.HistoryEntry])
	for i := range entries {
		entries[i].At = entries[i].At.UTC()
	}
	return entries, err
}

// SwapTime implements clerkinvite.Store.
func (s *Store) SwapTime(ctx context.Context, name string, old, next time.Time) (time.Time, error) {
	// PostgreSQL stores microseconds, and the result must equal the argument.
	old, next = old.UTC().Truncate(time.Microsecond), next.UTC().Truncate(time.Microsecond)
	set, args := `UPDATE admin_limit SET until = $2 WHERE name = $1 AND until = $3`, []any{name, next, old}
	if old.IsZero() {
		set, args = `INSERT INTO admin_limit (name, until) VALUES ($1, $2) ON CONFLICT DO NOTHING`, args[:2]
	}
	if !old.Equal(next) {
		tag, err := s.pool.Exec(ctx, set, args...)
		if err != nil || tag.RowsAffected() > 0 {
			return next, err
		}
	}
	var known time.Time
	err := s.pool.QueryRow(ctx, `SELECT until FROM admin_limit WHERE name = $1`, name).Scan(&known)
	if errors.Is(err, pgx.ErrNoRows) {
		return time.Time{}, nil
	}
	return known.UTC(), err
}

// Clock implements clerkinvite.Store with PostgreSQL's clock.
func (s *Store) Clock(ctx context.Context) (at time.Time, err error) {
	err = s.pool.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&at)
	return at.UTC(), err
}

// query runs a statement that returns members.
func (s *Store) query(ctx context.Context, sql string, args ...any) ([]*clerkinvite.Member, error) {
	rows, err := s.pool.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	members, err := pgx.CollectRows(rows, pgx.RowToAddrOfStructByName[clerkinvite.Member])
	for _, m := range members {
		for _, t := range []*time.Time{&m.ReservedAt, &m.UpdatedAt, m.InvitedAt, m.ExpiresAt, m.SettledAt, m.ClaimedUntil, m.NextAttemptAt} {
			if t != nil {
				*t = t.UTC()
			}
		}
	}
	return members, err
}

// storable reports whether PostgreSQL can store the texts. Other texts match nothing.
func storable(texts ...string) bool {
	return !slices.ContainsFunc(texts, func(s string) bool { return !utf8.ValidString(s) || strings.Contains(s, "\x00") })
}

func keep(texts []string) []string {
	return slices.DeleteFunc(slices.Clone(texts), func(s string) bool { return !storable(s) })
}

func lower(ids []string) []string {
	for i, id := range ids {
		ids[i] = strings.ToLower(id)
	}
	return ids
}
