package clerkinvite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// PgxDB is what [NewPgxStore] works on. *pgxpool.Pool fits, and so does *pgx.Conn for
// a program that calls the library from one goroutine at a time. A pgx.Tx does not fit:
// the library calls Clerk between two statements, and that must not happen inside a
// transaction. For the part that may, see [PgxStore.WithTx].
type PgxDB interface {
	BeginTx(ctx context.Context, opts pgx.TxOptions) (pgx.Tx, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// PgxOptions are the options of [NewPgxStore].
type PgxOptions struct {
	// Schema is where the tables are. Defaults to whatever the search_path of the
	// connections says. It is one identifier as PostgreSQL stores it: without quotes,
	// and compared with its case.
	Schema string
}

// PgxStore is a [Store] in PostgreSQL 14 or newer.
//
// It keeps nothing in the session (no prepared statements of its own, no session locks,
// no settings), so it works through PgBouncer in transaction mode and in every
// query execution mode of pgx. Time-outs of statements and locks are the host's to set.
//
// When the answer to a statement is lost, the statement may have taken effect or not.
// Outside of a host's transaction the store finds out by repeating it for up to a
// second, within the caller's context; nothing is written twice.
type PgxStore struct {
	db     PgxDB
	schema string
	sql    pgxSQL
}

var _ Store = (*PgxStore)(nil)

// NewPgxStore returns a store on db. It does no I/O; opts may be nil. The tables are
// there after [PgxStore.Migrate], or after the host ran the SQL of [Migrations].
func NewPgxStore(db PgxDB, opts *PgxOptions) *PgxStore {
	s := &PgxStore{db: db}
	if opts != nil {
		s.schema = opts.Schema
	}
	s.sql = newPgxSQL(s.schema)
	return s
}

// WithTx returns the part of the store that may be used inside a host's transaction, so
// that a member is reserved if and only if the host's own rows are written. It never
// commits or rolls back, and repeats nothing.
//
// An address that another open transaction is just reserving is waited for. In READ
// COMMITTED the outcome is the usual one. In REPEATABLE READ and SERIALIZABLE, PostgreSQL
// answers 40001 for what was committed after the transaction's snapshot, which
// only the host can repeat.
func (s *PgxStore) WithTx(tx pgx.Tx) TxStore { return &pgxTxStore{tx, s.sql} }

type pgxTxStore struct {
	tx  pgx.Tx
	sql pgxSQL
}

// Insert implements [TxStore].
func (s *pgxTxStore) Insert(ctx context.Context, rows []*Member) ([]Result, error) {
	input, err := pgxRows(rows)
	if err != nil {
		return nil, err
	}
	return s.sql.insert(ctx, s.tx, input)
}

// Update implements [TxStore].
func (s *pgxTxStore) Update(ctx context.Context, changes []Change) ([]Result, error) {
	return updateSplitting(changes, func(changes []Change) ([]Result, error) {
		input, err := pgxChanges(changes)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(changes, Change.setsUser) {
			return s.sql.update(ctx, s.tx, input)
		}
		// Another row may have the user, and but for a savepoint a violation of the key
		// would spoil the host's transaction.
		savepoint, err := s.tx.Begin(ctx)
		if err != nil {
			return nil, err
		}
		results, err := s.sql.update(ctx, savepoint, input)
		if err == nil {
			return results, savepoint.Commit(ctx)
		}
		if rollbackErr := savepoint.Rollback(ctx); rollbackErr != nil {
			return nil, err
		}
		return nil, s.sql.explain(ctx, s.tx, changes, err)
	})
}

// Insert implements [TxStore].
func (s *PgxStore) Insert(ctx context.Context, rows []*Member) (results []Result, err error) {
	input, err := pgxRows(rows)
	if err != nil {
		return nil, err
	}
	err = s.repeat(ctx, func(bool) error {
		results, err = s.sql.insert(ctx, s.db, input)
		return err
	})
	return results, err
}

// Update implements [TxStore].
func (s *PgxStore) Update(ctx context.Context, changes []Change) ([]Result, error) {
	return updateSplitting(changes, func(changes []Change) (results []Result, err error) {
		input, err := pgxChanges(changes)
		if err != nil {
			return nil, err
		}
		err = s.repeat(ctx, func(maybeMade bool) error {
			results, err = s.sql.update(ctx, s.db, input)
			if err == nil && maybeMade {
				err = s.sql.acceptMade(ctx, s.db, input, results)
			}
			return err
		})
		return results, s.sql.explain(ctx, s.db, changes, err)
	})
}

// Find implements [Store].
func (s *PgxStore) Find(ctx context.Context, q Query) (found []*Member, err error) {
	err = s.repeat(ctx, func(bool) error {
		found, err = s.sql.find(ctx, s.db, q)
		return err
	})
	return found, err
}

// Gate implements [Store].
func (s *PgxStore) Gate(ctx context.Context, endpoint string, until time.Time) (known time.Time, err error) {
	err = s.repeat(ctx, func(bool) error {
		known, err = s.sql.gate(ctx, s.db, endpoint, until)
		return err
	})
	return known, err
}

// repeat calls f until it succeeds, fails for good or ctx ends. maybeMade tells f that an
// earlier call of it may have taken effect.
func (s *PgxStore) repeat(ctx context.Context, f func(maybeMade bool) error) error {
	maybeMade := false
	for wait := 5 * time.Millisecond; ; wait *= 2 {
		err := f(maybeMade)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		again, effect := failure(err)
		if conn, ok := s.db.(interface{ IsClosed() bool }); ok && conn.IsClosed() {
			again = false // a single connection does not come back
		}
		if !again || wait > 640*time.Millisecond {
			return err
		}
		maybeMade = maybeMade || effect
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait/2 + rand.N(wait)): //nolint:gosec // no secret: callers that met shall not meet again
		}
	}
}

// failure tells whether it is worth repeating a statement that failed with err, and
// whether the statement may nevertheless have taken effect.
//
// pgconn.SafeToRetry is no help: since pgx 5.9 it is true for some answers that were
// lost after the commit.
func failure(err error) (again, maybeMade bool) {
	var connect *pgconn.ConnectError
	notSent := errors.As(err, &connect)
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return true, !notSent
	}
	switch {
	case strings.HasPrefix(pg.Code, "08"), // the connection, PgBouncer's to the server included
		pg.Code == "57P01", pg.Code == "57P02", pg.Code == "57P03", pg.Code == "57P05", // shut down, crashed, starting, idle too long
		pg.Code == "40003": // completion unknown
		return true, !notSent
	case pg.Code == "40001", pg.Code == "40P01": // serialization failure, deadlock: rolled back
		return true, false
	case pg.Code == "53300": // too many connections
		return notSent, false
	}
	return false, false
}

// setsUser reports whether c gives the row another Clerk user (or pending) id, which
// another row may have already.
func (c Change) setsUser() bool {
	return c.New.ClerkUserID != "" && c.New.ClerkUserID != c.Old.ClerkUserID
}

// userTakenError is PostgreSQL's error for a batch in which at least one row is given a
// user that another row has.
type userTakenError struct{ error }

// updateSplitting makes changes with update. A batch that fails because a user is taken
// is halved until the rows are known whose users are: one of them must not stop
// the others.
func updateSplitting(changes []Change, update func([]Change) ([]Result, error)) ([]Result, error) {
	if len(changes) == 0 {
		return nil, nil
	}
	results, err := update(changes)
	if err == nil {
		return results, nil
	}
	if taken := (userTakenError{}); !errors.As(err, &taken) {
		return nil, err
	}
	if len(changes) == 1 {
		return []Result{{Err: ErrUserTaken}}, nil
	}
	results = make([]Result, 0, len(changes))
	for _, half := range [][]Change{changes[:len(changes)/2], changes[len(changes)/2:]} {
		part, err := updateSplitting(half, update)
		if err != nil {
			// The other half may be written, so this is no error of the whole.
			part = slices.Repeat([]Result{{Err: err}}, len(half))
		}
		results = append(results, part...)
	}
	return results, nil
}

// pgxQuerier is a pool, a connection or a transaction.
type pgxQuerier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// pgxSQL holds the statements for one schema.
//
// Each takes its rows as one parameter, a text of JSON: a type that every execution
// mode of pgx sends alike and no codec of the host's changes. Predicates of partial indexes
// are literals, or a generic plan could not use the index.
type pgxSQL struct {
	insertSQL, updateSQL, madeSQL, takenSQL           string
	findRefs, findIDs, findEmails, findUsers, findDue string
	gateSQL, gateAskSQL                               string
}

// memberColumns is what a statement returns of the row m, in the order of scanMember. Types
// for which a host may have registered its own codec are returned as text.
const memberColumns = `m.tenant_id, m.id::text, m.email, m.status, coalesce(m.clerk_user_id, ''), coalesce(m.invitation_id, ''),
	m.send, m.sent, coalesce(m.url, ''), coalesce(m.role, ''), coalesce(m.invited_by, ''), m.data::text, m.params::text,
	m.version, m.attempts, m.claimed_until, m.next_attempt_at, coalesce(m.reason, ''),
	m.reserved_at, m.invited_at, m.expires_at, m.settled_at, m.updated_at`

// withInput expands the parameter, see pgxRow. data and params come as text, because as JSON
// values null could not be told from nothing.
//
// Its WHERE is always true. It makes the planner expect one row instead of a hundred, and
// so go by the indexes, also where it does not know yet that a table has grown: a
// connection can keep a plan made on the first day. OFFSET 0 does the same for what is
// found: it forbids every plan but one look-up for each value.
const withInput = `
WITH input AS (
	SELECT * FROM json_to_recordset($1::text::json) AS x (tenant_id text, id uuid, email text, status text, clerk_user_id text,
		invitation_id text, send integer, sent integer, url text, role text, invited_by text, data text, params text,
		attempts integer, claimed_until timestamptz, next_attempt_at timestamptz, reason text,
		reserved_at timestamptz, invited_at timestamptz, expires_at timestamptz, settled_at timestamptz, updated_at timestamptz,
		n integer, old_version bigint, old_status text, recorded boolean)
	WHERE tenant_id = tenant_id || ''
)`

const historyInsert = `INSERT INTO clerkinvite_history
	(tenant_id, member_id, version, from_status, to_status, send, sent, clerk_user_id, invitation_id, reason, at)`

func newPgxSQL(schema string) pgxSQL {
	// Rows are locked in the order of (tenant_id, email), so that two batches cannot deadlock.
	s := pgxSQL{
		// ON CONFLICT without a target: no violation of any key may spoil a host's
		// transaction. The second SELECT sees the table as it was before the statement.
		insertSQL: withInput + `, written AS (
	INSERT INTO clerkinvite_member
		(tenant_id, id, email, status, clerk_user_id, invitation_id, send, sent, url, role, invited_by, data, params, version,
		 attempts, claimed_until, next_attempt_at, reason, reserved_at, invited_at, expires_at, settled_at, updated_at)
	SELECT tenant_id, id, email, status, clerk_user_id, invitation_id, send, sent, url, role, invited_by, data::jsonb, params::json, 1,
		attempts, claimed_until, next_attempt_at, reason, reserved_at, invited_at, expires_at, settled_at, updated_at
	FROM input
	ORDER BY tenant_id COLLATE "C", email COLLATE "C"
	ON CONFLICT DO NOTHING
	RETURNING *
), history AS (
	` + historyInsert + `
	SELECT tenant_id, id, version, NULL, status, send, sent, clerk_user_id, invitation_id, reason, updated_at FROM written
)
SELECT ` + memberColumns + ` FROM written m
UNION ALL
SELECT ` + memberColumns + ` FROM input i JOIN clerkinvite_member m ON m.tenant_id = i.tenant_id AND m.email = i.email`,

		updateSQL: withInput + `, locked AS (
	SELECT i.*
	FROM input i
	JOIN clerkinvite_member m ON m.tenant_id = i.tenant_id AND m.id = i.id AND m.version = i.old_version
	ORDER BY m.tenant_id, m.email
	FOR NO KEY UPDATE OF m
), changed AS (
	UPDATE clerkinvite_member m
	SET status = i.status, clerk_user_id = i.clerk_user_id, invitation_id = i.invitation_id, send = i.send, sent = i.sent,
		url = i.url, role = i.role, invited_by = i.invited_by, data = i.data::jsonb, params = i.params::json,
		version = i.old_version + 1, attempts = i.attempts, claimed_until = i.claimed_until,
		next_attempt_at = i.next_attempt_at, reason = i.reason, reserved_at = i.reserved_at, invited_at = i.invited_at,
		expires_at = i.expires_at, settled_at = i.settled_at, updated_at = i.updated_at
	FROM locked i
	WHERE m.tenant_id = i.tenant_id AND m.id = i.id AND m.version = i.old_version
	RETURNING m.*, i.n, i.old_status, i.recorded
), history AS (
	` + historyInsert + `
	SELECT tenant_id, id, version, old_status, status, send, sent, clerk_user_id, invitation_id, reason, updated_at
	FROM changed WHERE recorded
)
SELECT m.n, ` + memberColumns + ` FROM changed m`,

		// The rows that are exactly what updateSQL would have made of them.
		madeSQL: withInput + `
SELECT i.n, ` + memberColumns + `
FROM input i JOIN clerkinvite_member m ON m.tenant_id = i.tenant_id AND m.id = i.id AND m.version = i.old_version + 1
WHERE (m.status, m.clerk_user_id, m.invitation_id, m.send, m.sent, m.url, m.role, m.invited_by, m.data, m.params::text,
		m.attempts, m.claimed_until, m.next_attempt_at, m.reason, m.reserved_at, m.invited_at, m.expires_at, m.settled_at, m.updated_at)
	IS NOT DISTINCT FROM
	(i.status, i.clerk_user_id, i.invitation_id, i.send, i.sent, i.url, i.role, i.invited_by, i.data::jsonb, i.params,
		i.attempts, i.claimed_until, i.next_attempt_at, i.reason, i.reserved_at, i.invited_at, i.expires_at, i.settled_at, i.updated_at)`,

		takenSQL: `
SELECT EXISTS (SELECT FROM clerkinvite_member WHERE tenant_id = $1::text AND clerk_user_id = $2::text AND id <> $3::text::uuid)`,

		findRefs: `
SELECT ` + memberColumns + `
FROM json_to_recordset($1::text::json -> 'refs') AS x (tenant_id text, email text)
CROSS JOIN LATERAL (SELECT * FROM clerkinvite_member WHERE tenant_id = x.tenant_id AND email = x.email OFFSET 0) m`,
		findIDs: `
SELECT ` + memberColumns + `
FROM json_array_elements_text($1::text::json -> 'ids') AS x (member_id)
CROSS JOIN LATERAL (SELECT * FROM clerkinvite_member WHERE id = x.member_id::uuid OFFSET 0) m`,
		findEmails: `
SELECT ` + memberColumns + `
FROM json_array_elements_text($1::text::json -> 'emails') AS x (address)
CROSS JOIN LATERAL (
	SELECT * FROM clerkinvite_member WHERE email = x.address AND status IN ('reserved', 'pending', 'expired') OFFSET 0) m`,
		findUsers: `
SELECT ` + memberColumns + `
FROM json_array_elements_text($1::text::json -> 'users') AS x (user_id)
CROSS JOIN LATERAL (SELECT * FROM clerkinvite_member WHERE clerk_user_id = x.user_id AND status = 'active' OFFSET 0) m`,
		findDue: `(
SELECT ` + memberColumns + `
FROM clerkinvite_member m
WHERE m.sent < m.send AND m.status IN ('reserved', 'pending') AND m.next_attempt_at <= ($1::text::json ->> 'due')::timestamptz
ORDER BY m.next_attempt_at
LIMIT ($1::text::json ->> 'limit')::integer)`,

		gateSQL: `
INSERT INTO clerkinvite_gate AS g (endpoint, blocked_until) VALUES ($1::text, $2::text::timestamptz)
ON CONFLICT (endpoint) DO UPDATE SET blocked_until = greatest(g.blocked_until, excluded.blocked_until)
RETURNING blocked_until`,
		gateAskSQL: `SELECT blocked_until FROM clerkinvite_gate WHERE endpoint = $1::text`,
	}
	if schema != "" {
		// The statements are written for the search_path; this is the one place that knows of schemas.
		tables := strings.NewReplacer(
			"clerkinvite_member", pgx.Identifier{schema, "clerkinvite_member"}.Sanitize(),
			"clerkinvite_history", pgx.Identifier{schema, "clerkinvite_history"}.Sanitize(),
			"clerkinvite_gate", pgx.Identifier{schema, "clerkinvite_gate"}.Sanitize())
		for _, sql := range []*string{&s.insertSQL, &s.updateSQL, &s.madeSQL, &s.takenSQL, &s.findRefs, &s.findIDs,
			&s.findEmails, &s.findUsers, &s.findDue, &s.gateSQL, &s.gateAskSQL} {
			*sql = tables.Replace(*sql)
		}
	}
	return s
}

// pgxRow is one row on its way into a statement, see withInput. What is empty is left
// out, which makes it NULL.
type pgxRow struct {
	TenantID      string `json:"tenant_id"`
	ID            string `json:"id"`
	Email         string `json:"email"`
	Status        Status `json:"status"`
	ClerkUserID   string `json:"clerk_user_id,omitempty"`
	InvitationID  string `json:"invitation_id,omitempty"`
	Send          int    `json:"send"`
	Sent          int    `json:"sent"`
	URL           string `json:"url,omitempty"`
	Role          string `json:"role,omitempty"`
	InvitedBy     string `json:"invited_by,omitempty"`
	Data          string `json:"data,omitempty"`
	Params        string `json:"params,omitempty"`
	Attempts      int    `json:"attempts"`
	ClaimedUntil  string `json:"claimed_until,omitempty"`
	NextAttemptAt string `json:"next_attempt_at,omitempty"`
	Reason        string `json:"reason,omitempty"`
	ReservedAt    string `json:"reserved_at"`
	InvitedAt     string `json:"invited_at,omitempty"`
	ExpiresAt     string `json:"expires_at,omitempty"`
	SettledAt     string `json:"settled_at,omitempty"`
	UpdatedAt     string `json:"updated_at"`
}

// pgxChange is one change on its way into a statement.
type pgxChange struct {
	pgxRow
	N          int    `json:"n"` // place in the batch
	OldVersion int64  `json:"old_version"`
	OldStatus  Status `json:"old_status"`
	Recorded   bool   `json:"recorded"`
}

func newPgxRow(m *Member) (pgxRow, error) {
	row := pgxRow{
		TenantID: m.TenantID, ID: m.ID, Email: m.Email, Status: m.Status, ClerkUserID: m.ClerkUserID, InvitationID: m.InvitationID,
		Send: m.Send, Sent: m.Sent, URL: m.URL, Role: m.Role, InvitedBy: m.InvitedBy, Data: string(m.Data), Params: string(m.Params),
		Attempts: m.Attempts, ClaimedUntil: pgxTime(m.ClaimedUntil), NextAttemptAt: pgxTime(m.NextAttemptAt), Reason: m.Reason,
		ReservedAt: pgxTime(&m.ReservedAt), InvitedAt: pgxTime(m.InvitedAt), ExpiresAt: pgxTime(m.ExpiresAt),
		SettledAt: pgxTime(m.SettledAt), UpdatedAt: pgxTime(&m.UpdatedAt),
	}
	for _, s := range []string{row.TenantID, row.ID, row.Email, string(row.Status), row.ClerkUserID, row.InvitationID, row.URL,
		row.Role, row.InvitedBy, row.Data, row.Params, row.Reason} {
		if !utf8.ValidString(s) {
			// json.Marshal would replace it, and two tenants could become one.
			return row, errors.New("clerkinvite: a member has text that is not valid UTF-8")
		}
	}
	return row, nil
}

// pgxTime writes a time as PostgreSQL reads it whatever the session's DateStyle is.
func pgxTime(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000000Z")
}

func scanMember(row pgx.CollectableRow, more ...any) (*Member, error) {
	m := new(Member)
	err := row.Scan(append(more, &m.TenantID, &m.ID, &m.Email, &m.Status, &m.ClerkUserID, &m.InvitationID, &m.Send, &m.Sent,
		&m.URL, &m.Role, &m.InvitedBy, (*[]byte)(&m.Data), (*[]byte)(&m.Params), &m.Version, &m.Attempts, &m.ClaimedUntil,
		&m.NextAttemptAt, &m.Reason, &m.ReservedAt, &m.InvitedAt, &m.ExpiresAt, &m.SettledAt, &m.UpdatedAt)...)
	for _, t := range []*time.Time{&m.ReservedAt, &m.UpdatedAt, m.ClaimedUntil, m.NextAttemptAt, m.InvitedAt, m.ExpiresAt, m.SettledAt} {
		if t != nil {
			*t = t.UTC()
		}
	}
	return m, err
}

// queryMembers runs a statement that returns members.
func queryMembers(ctx context.Context, db pgxQuerier, sql string, input any) ([]*Member, error) {
	arg, err := json.Marshal(input)
	if err != nil {
		return nil, err
	}
	rows, err := db.Query(ctx, sql, string(arg))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (*Member, error) { return scanMember(row) })
}

// queryChanged runs a statement that returns changed members, and puts each in its result.
func queryChanged(ctx context.Context, db pgxQuerier, sql string, changes []pgxChange, results []Result) error {
	arg, err := json.Marshal(changes)
	if err != nil {
		return err
	}
	rows, err := db.Query(ctx, sql, string(arg))
	if err != nil {
		return err
	}
	_, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (struct{}, error) {
		var n int
		m, err := scanMember(row, &n)
		if err == nil {
			results[n] = Result{Member: m}
		}
		return struct{}{}, err
	})
	return err
}

// queryOne runs a statement that returns one value.
func queryOne[T any](ctx context.Context, db pgxQuerier, sql string, args ...any) (value T, err error) {
	rows, err := db.Query(ctx, sql, args...)
	if err != nil {
		return value, err
	}
	return pgx.CollectExactlyOneRow(rows, pgx.RowTo[T])
}

// pgxRows returns rows as the input of a statement.
func pgxRows(rows []*Member) ([]pgxRow, error) {
	input := make([]pgxRow, len(rows))
	for i, m := range rows {
		var err error
		if input[i], err = newPgxRow(m); err != nil {
			return nil, err
		}
	}
	return input, nil
}

// pgxChanges returns changes as the input of a statement.
func pgxChanges(changes []Change) ([]pgxChange, error) {
	input := make([]pgxChange, len(changes))
	for i, c := range changes {
		row, err := newPgxRow(c.New)
		if err != nil {
			return nil, err
		}
		row.TenantID, row.ID, row.Email = c.Old.TenantID, c.Old.ID, c.Old.Email
		input[i] = pgxChange{row, i, c.Old.Version, c.Old.Status, c.Recorded()}
	}
	return input, nil
}

// insert writes rows and finds those that are there already.
func (s *pgxSQL) insert(ctx context.Context, db pgxQuerier, rows []pgxRow) ([]Result, error) {
	there := make(map[Ref]*Member, len(rows))
	missing := rows
	// One round, unless a row is purged between the moment it is in the way and the look at it.
	for round := 0; len(missing) > 0 && round < 3; round++ {
		found, err := queryMembers(ctx, db, s.insertSQL, missing)
		if err != nil {
			return nil, err
		}
		missing = missingFrom(there, missing, found)

		// What is in the way now was committed after the statement had begun.
		refs := make([]Ref, len(missing))
		for i, m := range missing {
			refs[i] = Ref{m.TenantID, m.Email}
		}
		found, err = s.find(ctx, db, Query{Refs: refs})
		if err != nil {
			return nil, err
		}
		missing = missingFrom(there, missing, found)
	}

	results := make([]Result, len(rows))
	for i, m := range rows {
		ref := Ref{m.TenantID, m.Email}
		now := there[ref]
		switch {
		case now == nil:
			results[i].Err = fmt.Errorf("clerkinvite: the row was neither written nor found, as if its id were another member's: %w", ErrConflict)
		case strings.EqualFold(now.ID, m.ID):
			results[i].Member = now
		default:
			results[i] = Result{now, &DuplicateEmailError{ref, now}}
		}
	}
	return results, nil
}

// missingFrom adds found to there and returns the rows that are still not there. Of two
// versions of a row the one that has just been written counts: the other was purged.
func missingFrom(there map[Ref]*Member, rows []pgxRow, found []*Member) (missing []pgxRow) {
	ids := make(map[string]bool, len(rows))
	for _, m := range rows {
		ids[strings.ToLower(m.ID)] = true
	}
	for _, m := range found {
		if there[m.Ref()] == nil || ids[m.ID] {
			there[m.Ref()] = m
		}
	}
	for _, m := range rows {
		if there[Ref{m.TenantID, m.Email}] == nil {
			missing = append(missing, m)
		}
	}
	return missing
}

// update makes changes in one statement: all but those whose version does not match.
func (s *pgxSQL) update(ctx context.Context, db pgxQuerier, changes []pgxChange) ([]Result, error) {
	results := slices.Repeat([]Result{{Err: ErrConflict}}, len(changes))
	if err := queryChanged(ctx, db, s.updateSQL, changes, results); err != nil {
		return nil, err
	}
	return results, nil
}

// acceptMade turns conflicts into successes where the row is what the change makes of
// it: the earlier statement whose answer was lost has made it.
func (s *pgxSQL) acceptMade(ctx context.Context, db pgxQuerier, changes []pgxChange, results []Result) error {
	if !slices.ContainsFunc(results, func(r Result) bool { return r.Err != nil }) {
		return nil
	}
	return queryChanged(ctx, db, s.madeSQL, changes, results)
}

// explain returns err, with which changes failed, as a userTakenError if that is what it is.
func (s *pgxSQL) explain(ctx context.Context, db pgxQuerier, changes []Change, err error) error {
	if !IsUniqueViolation(err) {
		return err
	}
	if len(changes) > 1 || IsUniqueViolation(err, "clerkinvite_member_user_key") {
		return userTakenError{err}
	}
	// In a partition the key has another name, so look.
	c := changes[0]
	taken, lookErr := queryOne[bool](ctx, db, s.takenSQL, c.Old.TenantID, c.New.ClerkUserID, c.Old.ID)
	if lookErr != nil || !taken {
		return err
	}
	return userTakenError{err}
}

// find runs one statement, in which each selector uses an index of its own.
func (s *pgxSQL) find(ctx context.Context, db pgxQuerier, q Query) ([]*Member, error) {
	type ref struct {
		TenantID string `json:"tenant_id"`
		Email    string `json:"email"`
	}
	var arg struct {
		Refs   []ref    `json:"refs,omitempty"`
		IDs    []string `json:"ids,omitempty"`
		Emails []string `json:"emails,omitempty"`
		Users  []string `json:"users,omitempty"`
		Due    string   `json:"due,omitempty"`
		Limit  int      `json:"limit,omitempty"`
	}
	var selects []string
	for _, r := range q.Refs {
		if storable(r.TenantID) && storable(r.Email) {
			arg.Refs = append(arg.Refs, ref(r))
		}
	}
	if len(arg.Refs) > 0 {
		selects = append(selects, s.findRefs)
	}
	for _, id := range q.IDs {
		if len(id) == 36 && uuid.Validate(id) == nil {
			arg.IDs = append(arg.IDs, id)
		}
	}
	if len(arg.IDs) > 0 {
		selects = append(selects, s.findIDs)
	}
	if arg.Emails = filter(q.Emails, storable); len(arg.Emails) > 0 {
		selects = append(selects, s.findEmails)
	}
	if arg.Users = filter(q.UserIDs, storable); len(arg.Users) > 0 {
		selects = append(selects, s.findUsers)
	}
	if !q.DueAt.IsZero() {
		arg.Due, arg.Limit = pgxTime(&q.DueAt), q.Limit
		if arg.Limit <= 0 {
			arg.Limit = 1000
		}
		selects = append(selects, s.findDue)
	}
	if len(selects) == 0 {
		return nil, nil
	}

	found, err := queryMembers(ctx, db, strings.Join(selects, "\nUNION ALL"), arg)
	if err != nil {
		return nil, err
	}
	found = withoutDoubles(found)
	if !q.DueAt.IsZero() && len(selects) > 1 {
		// UNION ALL promises no order.
		slices.SortStableFunc(found, func(a, b *Member) int {
			switch {
			case a.due() && b.due():
				return a.NextAttemptAt.Compare(*b.NextAttemptAt)
			case a.due():
				return -1
			case b.due():
				return 1
			}
			return 0
		})
	}
	return found, nil
}

// withoutDoubles returns the members without doubles, in order.
func withoutDoubles(members []*Member) []*Member {
	type key struct{ tenantID, id string }
	seen := make(map[key]bool, len(members))
	return slices.DeleteFunc(members, func(m *Member) bool {
		k := key{m.TenantID, m.ID}
		double := seen[k]
		seen[k] = true
		return double
	})
}

// storable reports whether s can be in a column at all; what cannot matches nothing.
func storable(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }

func filter(list []string, keep func(string) bool) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return !keep(s) })
}

func (s *pgxSQL) gate(ctx context.Context, db pgxQuerier, endpoint string, until time.Time) (time.Time, error) {
	sql, args := s.gateAskSQL, []any{endpoint}
	if !until.IsZero() {
		sql, args = s.gateSQL, append(args, pgxTime(&until))
	}
	known, err := queryOne[time.Time](ctx, db, sql, args...)
	if errors.Is(err, pgx.ErrNoRows) {
		return time.Time{}, nil
	}
	return known.UTC(), err
}

// Format implements fmt.Formatter: every verb prints the schema only.
func (s PgxStore) Format(f fmt.State, _ rune) {
	formatLogValue(f, "PgxStore", slog.GroupValue(slog.String("schema", s.schema)))
}
