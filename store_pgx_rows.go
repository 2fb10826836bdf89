package clerkinvite

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// pgxQuerier is a pool, a connection or a transaction.
type pgxQuerier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// pgxSQL holds the statements for one schema.
//
// Each takes its rows as one parameter, a text of JSON: a type that every execution
// mode of pgx sends alike and no codec of the host's changes. What is taken out of it to
// compare with, or as a limit, is a row of a join or a (SELECT …): for a constant PostgreSQL
// would plan again at each call, which costs more than the statement. Predicates of partial
// indexes are literals, or a generic plan could not use the index; some of them hold for
// every row, see the migration.
type pgxSQL struct {
	insertSQL, updateSQL, eraseSQL, madeSQL, goneSQL, takenSQL string
	findRefs, findIDs, findEmails, findUsers, dueSQL           string
	historySQL, backlogSQL, swapSQL, swapNewSQL, readTimeSQL   string

	// tables puts the schema into a statement, nil nothing.
	tables *strings.Replacer
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
		n integer, old_version bigint, old_status text, recorded boolean, erase boolean)
	WHERE tenant_id = tenant_id || ''
)`

// atMost stands for a limit that the planner can read, no less than the one that counts.
// Without it the planner would expect a tenth of all that match; of millions that is so much
// that PostgreSQL compiles the statement first, at each call (jit_above_cost).
const atMost = "1001"

// withLimit returns a statement in which atMost is no less than limit.
func withLimit(sql string, limit int) string {
	if limit <= 1001 {
		return sql
	}
	return strings.ReplaceAll(sql, "LIMIT "+atMost, "LIMIT "+strconv.Itoa(limit))
}

const historyInsert = `INSERT INTO clerkinvite_history
	(tenant_id, member_id, version, from_status, to_status, send, sent, clerk_user_id, invitation_id, reason, at)`

func newPgxSQL(schema string) pgxSQL {
	// Rows are locked in the order of (tenant_id, email), so that two batches cannot deadlock.
	update := withInput + `, locked AS (
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
	WHERE m.tenant_id = i.tenant_id AND m.id = i.id AND m.version = i.old_version AND NOT i.erase
	RETURNING m.*, i.n, i.old_status, i.recorded
), history AS (
	` + historyInsert + `
	SELECT tenant_id, id, version, old_status, status, send, sent, clerk_user_id, invitation_id, reason, updated_at
	FROM changed WHERE recorded
)`
	s := pgxSQL{
		// ON CONFLICT without a target: no violation of any key may spoil a host's
		// transaction. The second SELECT sees the table as it was before the statement; it is
		// not made if all rows were written.
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
SELECT true, ` + memberColumns + ` FROM written m
UNION ALL
SELECT false, ` + memberColumns + ` FROM input i JOIN clerkinvite_member m ON m.tenant_id = i.tenant_id AND m.email = i.email
WHERE (SELECT count(*) FROM written) < (SELECT count(*) FROM input)`,

		updateSQL: update + `
SELECT m.n, ` + memberColumns + ` FROM changed m`,

		// The same, with rows that are erased, so locked at once as strongly as that needs:
		// to strengthen a lock is to wait while one is held. The history goes by its foreign key.
		eraseSQL: strings.Replace(update, "FOR NO KEY UPDATE", "FOR UPDATE", 1) + `, erased AS (
	DELETE FROM clerkinvite_member m
	USING locked i
	WHERE m.tenant_id = i.tenant_id AND m.id = i.id AND m.version = i.old_version AND i.erase
	RETURNING m.*, i.n
)
SELECT m.n, ` + memberColumns + ` FROM changed m
UNION ALL
SELECT m.n, ` + memberColumns + ` FROM erased m`,

		// The rows that are exactly what updateSQL would have made of them.
		madeSQL: withInput + `
SELECT i.n, ` + memberColumns + `
FROM input i JOIN clerkinvite_member m ON m.tenant_id = i.tenant_id AND m.id = i.id AND m.version = i.old_version + 1
WHERE NOT i.erase AND (m.status, m.clerk_user_id, m.invitation_id, m.send, m.sent, m.url, m.role, m.invited_by, m.data, m.params::text,
		m.attempts, m.claimed_until, m.next_attempt_at, m.reason, m.reserved_at, m.invited_at, m.expires_at, m.settled_at, m.updated_at)
	IS NOT DISTINCT FROM
	(i.status, i.clerk_user_id, i.invitation_id, i.send, i.sent, i.url, i.role, i.invited_by, i.data::jsonb, i.params,
		i.attempts, i.claimed_until, i.next_attempt_at, i.reason, i.reserved_at, i.invited_at, i.expires_at, i.settled_at, i.updated_at)`,

		// The erasures whose row is not there.
		goneSQL: withInput + `
SELECT i.n
FROM input i
WHERE i.erase AND NOT EXISTS (SELECT FROM clerkinvite_member m WHERE m.tenant_id = i.tenant_id AND m.id = i.id OFFSET 0)`,

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
		dueSQL: `
SELECT ` + memberColumns + `
FROM (
	SELECT * FROM clerkinvite_member
	WHERE sent < send AND status IN ('reserved', 'pending') AND next_attempt_at <= (SELECT ($1::text::json ->> 'due')::timestamptz)
	ORDER BY next_attempt_at LIMIT ` + atMost + `) m
ORDER BY m.next_attempt_at
LIMIT (SELECT ($1::text::json ->> 'limit')::integer)`,

		// One of the two halves, because both halves see the table as it was before the statement.
		swapNewSQL: `
WITH made AS (
	INSERT INTO clerkinvite_limit (name, blocked_until) VALUES ($1::text, $2::text::timestamptz)
	ON CONFLICT DO NOTHING
	RETURNING blocked_until
)
SELECT blocked_until FROM made
UNION ALL
SELECT blocked_until FROM clerkinvite_limit WHERE name = $1::text AND NOT EXISTS (SELECT FROM made)`,
		swapSQL: `
WITH made AS (
	UPDATE clerkinvite_limit SET blocked_until = $3::text::timestamptz
	WHERE name = $1::text AND blocked_until = $2::text::timestamptz
	RETURNING blocked_until
)
SELECT blocked_until FROM made
UNION ALL
SELECT blocked_until FROM clerkinvite_limit WHERE name = $1::text AND NOT EXISTS (SELECT FROM made)`,
		readTimeSQL: `SELECT blocked_until FROM clerkinvite_limit WHERE name = $1::text`,

		// Both halves read by the index that has their order, and stop: the cost has a bound.
		backlogSQL: `
SELECT count(*) FILTER (WHERE d.status = 'reserved'), count(*) FILTER (WHERE d.next_attempt_at <= (SELECT $1::text::timestamptz)),
	min(d.next_attempt_at) FILTER (WHERE d.next_attempt_at <= (SELECT $1::text::timestamptz)),
	(SELECT count(*) FROM (
		SELECT FROM clerkinvite_member WHERE status = 'pending' AND expires_at <= (SELECT $1::text::timestamptz)
		ORDER BY expires_at LIMIT 10000) o)
FROM (
	SELECT status, next_attempt_at FROM clerkinvite_member WHERE sent < send AND status IN ('reserved', 'pending')
	ORDER BY next_attempt_at LIMIT 10000) d`,

		historySQL: `
SELECT version, coalesce(from_status, ''), to_status, send, sent, coalesce(clerk_user_id, ''), coalesce(invitation_id, ''), coalesce(reason, ''), at
FROM clerkinvite_history WHERE tenant_id = $1::text AND member_id = $2::text::uuid
ORDER BY version`,
	}
	if schema != "" {
		// The statements are written for the search_path; this is the one place that knows of schemas.
		s.tables = strings.NewReplacer(
			"clerkinvite_member", pgx.Identifier{schema, "clerkinvite_member"}.Sanitize(),
			"clerkinvite_history", pgx.Identifier{schema, "clerkinvite_history"}.Sanitize(),
			"clerkinvite_limit", pgx.Identifier{schema, "clerkinvite_limit"}.Sanitize())
		for _, sql := range []*string{&s.insertSQL, &s.updateSQL, &s.eraseSQL, &s.madeSQL, &s.goneSQL, &s.takenSQL,
			&s.findRefs, &s.findIDs, &s.findEmails, &s.findUsers, &s.dueSQL,
			&s.historySQL, &s.backlogSQL, &s.swapSQL, &s.swapNewSQL, &s.readTimeSQL} {
			*sql = s.tables.Replace(*sql)
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
	Erase      bool   `json:"erase"`
}

func newPgxRow(m *Member) (pgxRow, error) {
	row := pgxRow{
		TenantID: m.TenantID, ID: m.ID, Email: m.Email, Status: m.Status, ClerkUserID: m.ClerkUserID, InvitationID: m.InvitationID,
		Send: m.Send, Sent: m.Sent, URL: m.URL.Reveal(), Role: m.Role, InvitedBy: m.InvitedBy, Data: string(m.Data), Params: string(m.Params),
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
	return t.UTC().Truncate(time.Microsecond).Format(time.RFC3339Nano)
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

// query runs a statement on one parameter, and calls f for each row that it returns.
func query(ctx context.Context, db pgxQuerier, sql string, input any, f func(row pgx.CollectableRow) error) error {
	arg, err := json.Marshal(input)
	if err != nil {
		return err
	}
	rows, err := db.Query(ctx, sql, string(arg))
	if err != nil {
		return err
	}
	_, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (struct{}, error) { return struct{}{}, f(row) })
	return err
}

// queryMembers runs a statement that returns members.
func queryMembers(ctx context.Context, db pgxQuerier, sql string, input any) (found []*Member, err error) {
	err = query(ctx, db, sql, input, func(row pgx.CollectableRow) error {
		m, err := scanMember(row)
		found = append(found, m)
		return err
	})
	return found, err
}

// queryChanged runs a statement that returns changed members, and puts each in its result.
func queryChanged(ctx context.Context, db pgxQuerier, sql string, changes []pgxChange, results []Result) error {
	return query(ctx, db, sql, changes, func(row pgx.CollectableRow) error {
		var n int
		m, err := scanMember(row, &n)
		if err == nil {
			results[n] = Result{Member: m}
		}
		return err
	})
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
		row, err := newPgxRow(cmp.Or(c.New, c.Old))
		if err != nil {
			return nil, err
		}
		row.TenantID, row.ID, row.Email = c.Old.TenantID, c.Old.ID, c.Old.Email
		input[i] = pgxChange{row, i, c.Old.Version, c.Old.Status, c.Recorded(), c.New == nil}
	}
	return input, nil
}

// insert writes rows and finds those that are there already. made are those that it wrote.
func (s *pgxSQL) insert(ctx context.Context, db pgxQuerier, rows []pgxRow) (results []Result, made []Change, err error) {
	there := make(map[Ref]*Member, len(rows))
	missing := rows
	// One round, unless a row is purged between the moment it is in the way and the look at it.
	for round := 0; len(missing) > 0 && round < 3; round++ {
		var found []*Member
		err := query(ctx, db, s.insertSQL, missing, func(row pgx.CollectableRow) error {
			var written bool
			m, err := scanMember(row, &written)
			found = append(found, m)
			if written {
				made = append(made, Change{New: m})
			}
			return err
		})
		if err != nil {
			return nil, nil, err
		}
		missing = missingFrom(there, missing, found)

		// What is in the way now was committed after the statement had begun.
		refs := make([]Ref, len(missing))
		for i, m := range missing {
			refs[i] = Ref{m.TenantID, m.Email}
		}
		found, err = s.find(ctx, db, Query{Refs: refs})
		if err != nil {
			return nil, nil, err
		}
		missing = missingFrom(there, missing, found)
	}

	results = make([]Result, len(rows))
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
	return results, made, nil
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

// update makes changes in one statement: all but those whose version does not match. made
// are those that it made and that are recorded. maybeMade tells that an earlier statement
// may have made them.
func (s *pgxSQL) update(ctx context.Context, db pgxQuerier, changes []Change, input []pgxChange, maybeMade bool) (results []Result, made []Change, err error) {
	results = slices.Repeat([]Result{{Err: ErrConflict}}, len(changes))
	sql := s.updateSQL
	if slices.ContainsFunc(input, func(c pgxChange) bool { return c.Erase }) {
		sql = s.eraseSQL
	}
	if err := queryChanged(ctx, db, sql, input, results); err != nil {
		return nil, nil, err
	}
	for i, c := range changes {
		switch now := results[i].Member; {
		case now == nil || !c.Recorded():
		case c.New == nil:
			made = append(made, Change{Old: now})
		default:
			made = append(made, Change{Old: c.Old, New: now})
		}
	}
	if maybeMade {
		if err := s.acceptMade(ctx, db, input, results); err != nil {
			return nil, nil, err
		}
	}
	return results, made, s.acceptGone(ctx, db, changes, input, results)
}

// acceptMade turns conflicts into successes where the row is what the change makes of
// it: the earlier statement whose answer was lost has made it.
func (s *pgxSQL) acceptMade(ctx context.Context, db pgxQuerier, changes []pgxChange, results []Result) error {
	if !slices.ContainsFunc(results, func(r Result) bool { return r.Err != nil }) {
		return nil
	}
	return queryChanged(ctx, db, s.madeSQL, changes, results)
}

// acceptGone turns conflicts into successes where a row that is to be erased is not there.
func (s *pgxSQL) acceptGone(ctx context.Context, db pgxQuerier, changes []Change, input []pgxChange, results []Result) error {
	left := filter(input, func(c pgxChange) bool { return c.Erase && results[c.N].Err != nil })
	if len(left) == 0 {
		return nil
	}
	return query(ctx, db, s.goneSQL, left, func(row pgx.CollectableRow) error {
		var n int
		err := row.Scan(&n)
		if err == nil {
			results[n] = Result{Member: copied(changes[n].Old)}
		}
		return err
	})
}

// explain returns err, with which changes failed, as a rowError if it is a taken user's.
func (s *pgxSQL) explain(ctx context.Context, db pgxQuerier, changes []Change, err error) error {
	if !IsUniqueViolation(err) {
		return err
	}
	if len(changes) > 1 || IsUniqueViolation(err, "clerkinvite_member_user_key") {
		return rowError{ErrUserTaken}
	}
	// In a partition the key has another name, so look.
	c := changes[0]
	taken, lookErr := queryOne[bool](ctx, db, s.takenSQL, c.Old.TenantID, c.New.ClerkUserID, c.Old.ID)
	if lookErr != nil || !taken {
		return err
	}
	return rowError{ErrUserTaken}
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
		if isUUID(id) {
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
	if len(selects) == 0 {
		return nil, nil
	}
	found, err := queryMembers(ctx, db, strings.Join(selects, "\nUNION ALL"), arg)
	return withoutDoubles(found), err
}

// due returns the members that are due at a time.
func (s *pgxSQL) due(ctx context.Context, db pgxQuerier, at time.Time, limit int) ([]*Member, error) {
	if limit <= 0 {
		limit = 1000
	}
	return queryMembers(ctx, db, withLimit(s.dueSQL, limit), struct {
		Due   string `json:"due"`
		Limit int    `json:"limit"`
	}{pgxTime(&at), limit})
}

// pgxScan is the parameter of a scan. What is empty is left out, as it is in the statement.
type pgxScan struct {
	TenantID      string   `json:"tenant_id,omitempty"`
	Statuses      []Status `json:"statuses,omitempty"`
	Prefix        string   `json:"prefix,omitempty"`
	PrefixEnd     string   `json:"prefix_end,omitempty"`
	InvitedBy     string   `json:"invited_by,omitempty"`
	AfterTenantID string   `json:"after_tenant_id,omitempty"`
	AfterID       string   `json:"after_id,omitempty"`
	N             int      `json:"n"`
}

// page returns a page.
func (s *pgxSQL) page(ctx context.Context, db pgxQuerier, q PageQuery) ([]*Member, error) {
	if q.Limit <= 0 {
		q.Limit = 1000
	}
	if !storable(q.AfterTenantID) || q.AfterID != "" && !isUUID(q.AfterID) {
		return nil, errors.New("clerkinvite: invalid PageQuery: AfterID must be a member's ID, and AfterTenantID its tenant")
	}
	statuses := filter(q.Statuses, func(status Status) bool { return storable(string(status)) })
	if !storable(q.TenantID) || !storable(q.EmailPrefix) || !storable(q.InvitedBy) || len(q.Statuses) > 0 && len(statuses) == 0 ||
		q.TenantID != "" && q.AfterTenantID > q.TenantID {
		return nil, nil
	}
	if q.TenantID != "" && q.AfterTenantID < q.TenantID {
		q.AfterTenantID, q.AfterID = "", ""
	}
	slices.Sort(statuses)
	arg := pgxScan{
		q.TenantID, slices.Compact(statuses), q.EmailPrefix, "", q.InvitedBy, q.AfterTenantID, q.AfterID, q.Limit,
	}
	if q.EmailPrefix != "" {
		arg.PrefixEnd = prefixEnd(q.EmailPrefix)
	}
	sql := withLimit(arg.sql(), q.Limit)
	if s.tables != nil {
		sql = s.tables.Replace(sql)
	}
	found, err := queryMembers(ctx, db, sql, arg)
	// A page of one branch comes in this order, but behind a join SQL does not promise so.
	slices.SortFunc(found, func(a, b *Member) int {
		return cmp.Or(strings.Compare(a.TenantID, b.TenantID), strings.Compare(a.ID, b.ID))
	})
	return found, err
}

// sql returns the statement for a page. It has the conditions that are given and no
// others, so that PostgreSQL plans for those.
//
// It reads by the index that has the order, and stops when it has the page, whatever
// PostgreSQL knows or believes of the table: the values and the limit come from the row
// x, so it plans for unknown ones, once for a connection, and coalesce hides from it how few rows the filters may
// leave, for which it would rather read and sort them all. Only behind a prefix of the
// address no index has the order: all that begin so are read.
func (q pgxScan) sql() string {
	branches, where, filters, order := "", "m.tenant_id = x.tenant_id", "true", "ORDER BY m.tenant_id, m.id LIMIT "+atMost
	most, page := "LIMIT x.n", "" // of each branch; what makes one page of several, or of all that begin with a prefix
	const first = "ORDER BY m.tenant_id, m.id LIMIT (SELECT ($1::text::json ->> 'n')::integer)"
	switch {
	case q.TenantID == "":
		switch {
		case q.AfterTenantID == "":
			where = "true"
		case q.AfterID == "":
			where = "m.tenant_id >= x.after_tenant_id"
		default:
			where = "(m.tenant_id, m.id) > (x.after_tenant_id, x.after_id)"
		}
		if q.Prefix != "" {
			filters += " AND starts_with(m.email, x.prefix)"
		}
	case q.Prefix != "":
		where += " AND m.email >= x.prefix AND m.email < x.prefix_end"
		order, most, page = "ORDER BY m.tenant_id, m.email OFFSET 0", "", first
		if q.AfterID != "" {
			filters += " AND m.id > x.after_id"
		}
	case len(q.Statuses) > 0:
		// A branch for each status. By an equality the planner would know that the status
		// does not count for the order, and might take the index that lacks it.
		branches = "CROSS JOIN unnest(x.statuses) AS s (status)"
		where += " AND m.status <= s.status"
		if q.AfterID == "" {
			where += " AND m.status >= s.status"
		} else {
			where += " AND (m.status, m.id) > (s.status, x.after_id)"
		}
		order, page = "ORDER BY m.tenant_id, m.status, m.id LIMIT "+atMost, first
	case q.AfterID != "":
		// As a pair, or the index of ids could be used, and the tenant be looked for in it.
		where = "(m.tenant_id, m.id) > (x.tenant_id, x.after_id) AND m.tenant_id <= x.tenant_id"
	}
	if len(q.Statuses) > 0 && branches == "" {
		filters += " AND m.status = ANY (x.statuses)"
	}
	if q.InvitedBy != "" {
		filters += " AND m.invited_by = x.invited_by"
	}
	return `
SELECT ` + memberColumns + `
FROM json_to_record($1::text::json) AS x (tenant_id text, statuses text[], prefix text, prefix_end text, invited_by text,
	after_tenant_id text, after_id uuid, n integer)
` + branches + `
CROSS JOIN LATERAL (
	SELECT * FROM (
		SELECT * FROM clerkinvite_member m
		WHERE ` + where + ` AND coalesce(` + filters + `, false)
		` + order + `) m
	` + most + `) m
` + page
}

// prefixEnd returns the least text that is greater, byte by byte, than all that begin
// with prefix. Where no text of any length is, it returns one that no address reaches.
func prefixEnd(prefix string) string {
	for prefix != "" {
		last, size := utf8.DecodeLastRuneInString(prefix)
		prefix = prefix[:len(prefix)-size]
		switch {
		case last == 0xd7ff: // what follows are halves of surrogates, which are no text
			return prefix + "\ue000"
		case last < utf8.MaxRune:
			return prefix + string(last+1)
		}
	}
	return strings.Repeat(string(utf8.MaxRune), 64) // of four bytes each; an address has at most 254
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

func filter[T any](list []T, keep func(T) bool) []T {
	return slices.DeleteFunc(slices.Clone(list), func(v T) bool { return !keep(v) })
}

// history returns the recorded moves of a member.
func (s *pgxSQL) history(ctx context.Context, db pgxQuerier, tenantID, id string) ([]HistoryEntry, error) {
	if !storable(tenantID) || !isUUID(id) {
		return nil, nil
	}
	rows, err := db.Query(ctx, s.historySQL, tenantID, id)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (m HistoryEntry, err error) {
		err = row.Scan(&m.Version, &m.From, &m.To, &m.Send, &m.Sent, &m.ClerkUserID, &m.InvitationID, &m.Reason, &m.At)
		m.At = m.At.UTC()
		return m, err
	})
}

// backlog counts what waits at a time.
func (s *pgxSQL) backlog(ctx context.Context, db pgxQuerier, now time.Time) (Backlog, error) {
	rows, err := db.Query(ctx, s.backlogSQL, pgxTime(&now))
	if err != nil {
		return Backlog{}, err
	}
	return pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (b Backlog, err error) {
		var oldest *time.Time
		if err = row.Scan(&b.Reserved, &b.Due, &oldest, &b.Overdue); oldest != nil {
			b.OldestDue = oldest.UTC()
		}
		return b, err
	})
}

// swapTime makes next of old, if that is the time known, and returns the time known then.
func (s *pgxSQL) swapTime(ctx context.Context, db pgxQuerier, name string, old, next time.Time) (time.Time, error) {
	old, next = old.Truncate(time.Microsecond), next.Truncate(time.Microsecond)
	asks := next.IsZero() || next.Equal(old)
	sql, args := s.readTimeSQL, []any{name}
	switch {
	case asks:
	case old.IsZero():
		sql, args = s.swapNewSQL, append(args, pgxTime(&next))
	default:
		sql, args = s.swapSQL, append(args, pgxTime(&old), pgxTime(&next))
	}
	for {
		known, err := queryOne[time.Time](ctx, db, sql, args...)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			known = time.Time{}
		case err != nil:
			return time.Time{}, err
		}
		// Still the old time, and yet not changed: another changed it after this
		// statement had begun, which therefore does not see what it is now.
		if asks || !known.Equal(old) {
			return known.UTC(), nil
		}
	}
}

// copied returns a copy that shares nothing with m, which may be nil.
func copied(m *Member) *Member {
	if m == nil {
		return nil
	}
	c := *m
	c.Data, c.Params = slices.Clone(m.Data), slices.Clone(m.Params)
	for _, t := range []**time.Time{&c.InvitedAt, &c.ExpiresAt, &c.SettledAt, &c.ClaimedUntil, &c.NextAttemptAt} {
		if *t != nil {
			at := **t
			*t = &at
		}
	}
	return &c
}

func isUUID(id string) bool { return len(id) == 36 && uuid.Validate(id) == nil }
