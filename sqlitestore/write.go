package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/clerkinvite/clerkinvite"
)

// The statements that write, each for one row: SQLite runs in this process, so there is no round trip to
// save, and a violation concerns one row.
const (
	// ON CONFLICT handles keys only: a row that violates a CHECK is an error.
	insertSQL = `
INSERT INTO clerkinvite_member
	(tenant_id, id, email, version, status, clerk_user_id, invitation_id, send, sent, bulk, url, role, invited_by, changed_by, data, params,
	 attempts, claimed_until, next_attempt_at, reason, reserved_at, invited_at, expires_at, settled_at, updated_at)
VALUES (?, ?, ?, 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING`

	updateSQL = `
UPDATE clerkinvite_member
SET email = ?, status = ?, clerk_user_id = ?, invitation_id = ?, send = ?, sent = ?, bulk = ?, url = ?, role = ?, invited_by = ?, changed_by = ?, data = ?, params = ?,
	attempts = ?, claimed_until = ?, next_attempt_at = ?, reason = ?, reserved_at = ?, invited_at = ?, expires_at = ?, settled_at = ?, updated_at = ?,
	version = version + 1
WHERE tenant_id = ? AND id = ? AND version = ?`

	historyInsertSQL = `
INSERT INTO clerkinvite_history
	(tenant_id, member_id, version, from_status, to_status, send, sent, clerk_user_id, invitation_id, role, reason, actor, at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

	byRefSQL  = `SELECT ` + memberColumns + ` FROM clerkinvite_member m WHERE m.tenant_id = ? AND m.email = ?`
	byIDSQL   = `SELECT ` + memberColumns + ` FROM clerkinvite_member m WHERE m.tenant_id = ? AND m.id = ?`
	byUserSQL = `SELECT ` + memberColumns + ` FROM clerkinvite_member m WHERE m.tenant_id = ? AND m.clerk_user_id = ?`

	eraseSQL = `DELETE FROM clerkinvite_member WHERE tenant_id = ? AND id = ?`
	// The foreign key does the same, unless the host's connection has disabled it.
	eraseHistorySQL = `DELETE FROM clerkinvite_history WHERE tenant_id = ? AND member_id = ?`

	readTimeSQL = `SELECT blocked_until FROM clerkinvite_limit WHERE name = ?`
	setTimeSQL  = `INSERT INTO clerkinvite_limit (name, blocked_until) VALUES (?, ?) ON CONFLICT DO NOTHING`
	swapTimeSQL = `UPDATE clerkinvite_limit SET blocked_until = ? WHERE name = ? AND blocked_until = ?`
)

// writing is a batch that is being written in a transaction, with its prepared statements.
//
// Its statements are not interrupted: if a statement that writes is interrupted, SQLite rolls back the
// whole transaction, even the host's. They take microseconds; the context is checked between them.
type writing struct {
	ctx   context.Context //nolint:containedctx // lives as long as the call
	tx    *sql.Tx
	stmts map[string]*sql.Stmt
}

func newWriting(ctx context.Context, tx *sql.Tx) *writing {
	return &writing{context.WithoutCancel(ctx), tx, make(map[string]*sql.Stmt)}
}

// stmt returns a prepared statement.
func (w *writing) stmt(query string) (*sql.Stmt, error) {
	if stmt := w.stmts[query]; stmt != nil {
		return stmt, nil
	}
	stmt, err := w.tx.PrepareContext(w.ctx, query)
	if err == nil {
		w.stmts[query] = stmt
	}
	return stmt, err
}

func (w *writing) close() {
	for _, stmt := range w.stmts {
		_ = stmt.Close()
	}
}

// exec returns the number of rows that a statement wrote.
func (w *writing) exec(query string, args ...any) (int64, error) {
	stmt, err := w.stmt(query) //nolint:sqlclosecheck // w.close does
	if err != nil {
		return 0, err
	}
	result, err := stmt.ExecContext(w.ctx, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// one returns the member that a statement finds, or sql.ErrNoRows.
func (w *writing) one(query string, args ...any) (*clerkinvite.Member, error) {
	stmt, err := w.stmt(query) //nolint:sqlclosecheck // w.close does
	if err != nil {
		return nil, err
	}
	return scanMember(stmt.QueryRowContext(w.ctx, args...))
}

// record adds a history entry.
func (w *writing) record(from clerkinvite.Status, m *clerkinvite.Member) error {
	_, err := w.exec(historyInsertSQL, m.TenantID, m.ID, m.Version, optional(string(from)), string(m.Status), m.Send, m.Sent,
		optional(m.ClerkUserID), optional(m.InvitationID), optional(m.Role), optional(m.Reason), optional(m.ChangedBy), micros(m.UpdatedAt))
	return err
}

// insert writes rows and finds those that exist already.
func insert(ctx context.Context, tx *sql.Tx, rows []*clerkinvite.Member) ([]clerkinvite.Result, error) {
	w := newWriting(ctx, tx)
	defer w.close()
	results := make([]clerkinvite.Result, len(rows))
	for i, m := range rows {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var err error
		if results[i], err = w.insert(m); err != nil {
			return nil, err
		}
	}
	return results, nil
}

func (w *writing) insert(m *clerkinvite.Member) (clerkinvite.Result, error) {
	if err := checkText(m); err != nil {
		return clerkinvite.Result{}, err
	}
	m = m.Clone()
	m.Version = 1
	written, err := w.exec(insertSQL, append([]any{m.TenantID, m.ID, m.Email}, values(m)...)...)
	if err != nil {
		return clerkinvite.Result{}, err
	}
	if written > 0 {
		return clerkinvite.Result{Member: m}, w.record("", m)
	}
	existing, err := w.one(byRefSQL, m.TenantID, m.Email)
	if errors.Is(err, sql.ErrNoRows) {
		return w.holder(m)
	}
	switch {
	case err != nil:
		return clerkinvite.Result{}, err
	case existing.ID == m.ID: // a repeated call: the first response was lost
		return clerkinvite.Result{Member: existing}, nil
	}
	return clerkinvite.Result{Member: existing, Err: &clerkinvite.DuplicateEmailError{Ref: m.Ref(), Member: existing}}, nil
}

// holder returns the result of a row that was not written although its address is free.
func (w *writing) holder(m *clerkinvite.Member) (clerkinvite.Result, error) {
	holder, err := w.one(byUserSQL, m.TenantID, m.ClerkUserID)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return clerkinvite.Result{Err: fmt.Errorf("sqlitestore: another member has the row's ID: %w", clerkinvite.ErrConflict)}, nil
	case err != nil:
		return clerkinvite.Result{}, err
	}
	return clerkinvite.Result{Member: holder, Err: clerkinvite.ErrUserTaken}, nil
}

// update makes the changes whose version matches, and whose user and address are free.
func update(ctx context.Context, tx *sql.Tx, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
	w := newWriting(ctx, tx)
	defer w.close()
	results := make([]clerkinvite.Result, len(changes))
	for i, c := range changes {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var err error
		if c.New == nil {
			results[i], err = w.erase(c.Old)
		} else {
			results[i], err = w.update(c)
		}
		if err != nil {
			return nil, err
		}
	}
	return results, nil
}

func (w *writing) update(c clerkinvite.Change) (clerkinvite.Result, error) {
	if err := checkText(c.New); err != nil {
		return clerkinvite.Result{}, err
	}
	m := c.New.Clone()
	m.ID, m.TenantID, m.Version = strings.ToLower(c.Old.ID), c.Old.TenantID, c.Old.Version+1
	made, err := w.exec(updateSQL, slices.Concat([]any{m.Email}, values(m), []any{m.TenantID, m.ID, c.Old.Version})...)
	if code(err) == sqlite3.SQLITE_CONSTRAINT_UNIQUE {
		// Another key belongs to a table that a trigger of the host writes; the transaction may be rolled back already.
		for column, taken := range map[string]error{"clerk_user_id": clerkinvite.ErrUserTaken, "email": clerkinvite.ErrEmailTaken} {
			if strings.Contains(err.Error(), "clerkinvite_member."+column) {
				return clerkinvite.Result{Err: taken}, nil
			}
		}
	}
	switch {
	case err != nil:
		return clerkinvite.Result{}, err
	case made == 0:
		return clerkinvite.Result{Err: clerkinvite.ErrConflict}, nil
	case c.Recorded():
		return clerkinvite.Result{Member: m}, w.record(c.Old.Status, m)
	}
	return clerkinvite.Result{Member: m}, nil
}

// erase deletes a row with its history. A row that does not exist counts as erased: the response to an
// earlier call may have been lost.
func (w *writing) erase(old *clerkinvite.Member) (clerkinvite.Result, error) {
	id := strings.ToLower(old.ID)
	existing, err := w.one(byIDSQL, old.TenantID, id)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return clerkinvite.Result{Member: old.Clone()}, nil
	case err != nil:
		return clerkinvite.Result{}, err
	case existing.Version != old.Version:
		return clerkinvite.Result{Err: clerkinvite.ErrConflict}, nil
	}
	for _, query := range []string{eraseHistorySQL, eraseSQL} {
		if _, err := w.exec(query, old.TenantID, id); err != nil {
			return clerkinvite.Result{}, err
		}
	}
	return clerkinvite.Result{Member: existing}, nil
}

// readTime returns the stored time, or the zero time.
func readTime(ctx context.Context, db querier, name string) (time.Time, error) {
	var known int64
	err := db.QueryRowContext(ctx, readTimeSQL, name).Scan(&known)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return time.Time{}, nil
	case err != nil:
		return time.Time{}, err
	}
	return at(known), nil
}

// swapTime replaces old by next if old is the stored time, and returns the stored time.
func swapTime(ctx context.Context, tx *sql.Tx, name string, old, next time.Time) (time.Time, error) {
	query, args := swapTimeSQL, []any{micros(next), name, micros(old)}
	if old.IsZero() {
		query, args = setTimeSQL, []any{name, micros(next)}
	}
	if _, err := tx.ExecContext(ctx, query, args...); err != nil {
		return time.Time{}, err
	}
	return readTime(ctx, tx, name)
}
