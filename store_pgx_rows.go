package clerkinvite

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/clerkinvite/clerkinvite/internal/pgsql"
	"github.com/clerkinvite/clerkinvite/internal/storeutil"
)

// pgxQuerier is a pool, a connection or a transaction.
type pgxQuerier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// pgxSQL runs the statements of package pgsql.
type pgxSQL struct{ *pgsql.Statements }

func newPgxSQL(schema string) pgxSQL {
	if schema == "" {
		return pgxSQL{pgsql.Load(nil)}
	}
	return pgxSQL{pgsql.Load(func(table string) string { return pgx.Identifier{schema, table}.Sanitize() })}
}

// pgxRow is a row as the statements read it, see internal/pgsql/part_input.sql. Empty fields
// are omitted, so they become NULL.
type pgxRow struct {
	TenantID      string `json:"tenant_id"`
	ID            string `json:"id"`
	Email         string `json:"email"`
	Status        Status `json:"status"`
	ClerkUserID   string `json:"clerk_user_id,omitempty"`
	InvitationID  string `json:"invitation_id,omitempty"`
	Send          int    `json:"send"`
	Sent          int    `json:"sent"`
	Bulk          bool   `json:"bulk"`
	URL           string `json:"url,omitempty"`
	Role          string `json:"role,omitempty"`
	InvitedBy     string `json:"invited_by,omitempty"`
	ChangedBy     string `json:"changed_by,omitempty"`
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

// pgxChange is a change as the statements read it.
type pgxChange struct {
	pgxRow
	N          int    `json:"n"` // index in the batch
	OldVersion int64  `json:"old_version"`
	OldStatus  Status `json:"old_status"`
	Recorded   bool   `json:"recorded"`
	Erase      bool   `json:"erase"`
}

func newPgxRow(m *Member) (pgxRow, error) {
	row := pgxRow{
		TenantID: m.TenantID, ID: m.ID, Email: m.Email, Status: m.Status, ClerkUserID: m.ClerkUserID, InvitationID: m.InvitationID,
		Send: m.Send, Sent: m.Sent, Bulk: m.Bulk, URL: m.URL.Reveal(), Role: m.Role, InvitedBy: m.InvitedBy, ChangedBy: m.ChangedBy, Data: string(m.Data), Params: string(m.Params),
		Attempts: m.Attempts, ClaimedUntil: pgxTime(m.ClaimedUntil), NextAttemptAt: pgxTime(m.NextAttemptAt), Reason: m.Reason,
		ReservedAt: pgxTime(&m.ReservedAt), InvitedAt: pgxTime(m.InvitedAt), ExpiresAt: pgxTime(m.ExpiresAt),
		SettledAt: pgxTime(m.SettledAt), UpdatedAt: pgxTime(&m.UpdatedAt),
	}
	for _, s := range []string{row.TenantID, row.ID, row.Email, string(row.Status), row.ClerkUserID, row.InvitationID, row.URL,
		row.Role, row.InvitedBy, row.ChangedBy, row.Data, row.Params, row.Reason} {
		if !utf8.ValidString(s) {
			// json.Marshal would replace invalid bytes, so two tenants could become one.
			return row, rowError{errors.New("clerkinvite: a member has text that is not valid UTF-8")}
		}
	}
	return row, nil
}

// pgxTime formats a time so that PostgreSQL reads it correctly with any DateStyle.
func pgxTime(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.UTC().Truncate(time.Microsecond).Format(time.RFC3339Nano)
}

func scanMember(row pgx.CollectableRow, more ...any) (*Member, error) {
	m := new(Member)
	err := row.Scan(append(more, &m.TenantID, &m.ID, &m.Email, &m.Status, &m.ClerkUserID, &m.InvitationID, &m.Send, &m.Sent, &m.Bulk,
		&m.URL, &m.Role, &m.InvitedBy, &m.ChangedBy, (*[]byte)(&m.Data), (*[]byte)(&m.Params), &m.Version, &m.Attempts, &m.ClaimedUntil,
		&m.NextAttemptAt, &m.Reason, &m.ReservedAt, &m.InvitedAt, &m.ExpiresAt, &m.SettledAt, &m.UpdatedAt)...)
	for _, t := range []*time.Time{&m.ReservedAt, &m.UpdatedAt, m.ClaimedUntil, m.NextAttemptAt, m.InvitedAt, m.ExpiresAt, m.SettledAt} {
		if t != nil {
			*t = t.UTC()
		}
	}
	return m, err
}

// query runs a statement with one parameter, and calls f for each row that it returns.
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

// queryChanged runs a statement that returns changed members, and puts each into its result.
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

// pgxRows converts rows to the input of a statement.
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

// pgxChanges converts changes to the input of a statement.
func pgxChanges(changes []Change) ([]pgxChange, error) {
	input := make([]pgxChange, len(changes))
	for i, c := range changes {
		row, err := newPgxRow(cmp.Or(c.New, c.Old))
		if err != nil {
			return nil, err
		}
		row.TenantID, row.ID = c.Old.TenantID, c.Old.ID
		input[i] = pgxChange{row, i, c.Old.Version, c.Old.Status, c.Recorded(), c.New == nil}
	}
	return input, nil
}

// insert writes rows and finds those that already exist. applied contains the rows that it wrote.
func (s *pgxSQL) insert(ctx context.Context, db pgxQuerier, rows []pgxRow) (results []Result, applied []Change, err error) {
	existing := make(map[Ref]*Member, len(rows)) // by address and by Clerk user
	missing := rows
	// Needs one round, unless a duplicate is purged before it is read.
	for round := 0; len(missing) > 0 && round < 3; round++ {
		var found []*Member
		err := query(ctx, db, s.InsertSQL, missing, func(row pgx.CollectableRow) error {
			var written bool
			m, err := scanMember(row, &written)
			found = append(found, m)
			if written {
				applied = append(applied, Change{New: m})
			}
			return err
		})
		if err != nil {
			return nil, nil, err
		}
		missing = missingFrom(existing, missing, found)

		// The remaining duplicates were committed after the statement began, or have another address.
		var refs []Ref
		for _, m := range missing {
			refs = append(refs, Ref{TenantID: m.TenantID, Email: m.Email}, m.user())
		}
		found, err = s.find(ctx, db, Query{Refs: refs})
		if err != nil {
			return nil, nil, err
		}
		for _, m := range found {
			existing[Ref{TenantID: m.TenantID, ClerkUserID: m.ClerkUserID}] = m
		}
		missing = filter(missingFrom(existing, missing, found), func(m pgxRow) bool { return m.ClerkUserID == "" || existing[m.user()] == nil })
	}

	results = make([]Result, len(rows))
	for i, m := range rows {
		ref := Ref{TenantID: m.TenantID, Email: m.Email}
		now, holder := existing[ref], existing[m.user()]
		switch {
		case now == nil && m.ClerkUserID != "" && holder != nil:
			results[i] = Result{holder, ErrUserTaken}
		case now == nil:
			results[i].Err = fmt.Errorf("clerkinvite: the row was neither written nor found; another member may have its ID: %w", ErrConflict)
		case strings.EqualFold(now.ID, m.ID):
			results[i].Member = now
		default:
			results[i] = Result{now, &DuplicateEmailError{ref, now}}
		}
	}
	return results, applied, nil
}

// user identifies the member that has the row's Clerk user.
func (m *pgxRow) user() Ref { return Ref{TenantID: m.TenantID, ClerkUserID: m.ClerkUserID} }

// missingFrom adds found to existing and returns the rows that are still missing. If an address
// was found twice, the older row was purged, so the row that was just written replaces it.
func missingFrom(existing map[Ref]*Member, rows []pgxRow, found []*Member) (missing []pgxRow) {
	ids := make(map[string]bool, len(rows))
	for _, m := range rows {
		ids[strings.ToLower(m.ID)] = true
	}
	for _, m := range found {
		if existing[m.Ref()] == nil || ids[m.ID] {
			existing[m.Ref()] = m
		}
	}
	for _, m := range rows {
		if existing[Ref{TenantID: m.TenantID, Email: m.Email}] == nil {
			missing = append(missing, m)
		}
	}
	return missing
}

// update applies the changes whose version matches, in one statement. applied contains the recorded
// changes. mayBeApplied is true if an earlier statement may have made the changes.
func (s *pgxSQL) update(ctx context.Context, db pgxQuerier, changes []Change, input []pgxChange, mayBeApplied bool) (results []Result, applied []Change, err error) {
	results = slices.Repeat([]Result{{Err: ErrConflict}}, len(changes))
	sql := s.UpdateSQL
	if slices.ContainsFunc(input, func(c pgxChange) bool { return c.Erase }) {
		sql = s.EraseSQL
	}
	if err := queryChanged(ctx, db, sql, input, results); err != nil {
		return nil, nil, err
	}
	for i, c := range changes {
		switch now := results[i].Member; {
		case now == nil || !c.Recorded():
		case c.New == nil:
			applied = append(applied, Change{Old: now})
		default:
			applied = append(applied, Change{Old: c.Old, New: now})
		}
	}
	if mayBeApplied {
		if err := s.acceptApplied(ctx, db, input, results); err != nil {
			return nil, nil, err
		}
	}
	return results, applied, s.acceptGone(ctx, db, changes, input, results)
}

// acceptApplied turns a conflict into a success if the row is already as the change makes it, because
// an earlier statement with a lost response made the change.
func (s *pgxSQL) acceptApplied(ctx context.Context, db pgxQuerier, changes []pgxChange, results []Result) error {
	if !slices.ContainsFunc(results, func(r Result) bool { return r.Err != nil }) {
		return nil
	}
	return queryChanged(ctx, db, s.MadeSQL, changes, results)
}

// acceptGone turns a conflict of an erasure into a success if the row does not exist.
func (s *pgxSQL) acceptGone(ctx context.Context, db pgxQuerier, changes []Change, input []pgxChange, results []Result) error {
	left := filter(input, func(c pgxChange) bool { return c.Erase && results[c.N].Err != nil })
	if len(left) == 0 {
		return nil
	}
	return query(ctx, db, s.GoneSQL, left, func(row pgx.CollectableRow) error {
		var n int
		err := row.Scan(&n)
		if err == nil {
			results[n] = Result{Member: changes[n].Old.Clone()}
		}
		return err
	})
}

// explain returns the error of an update. For a single change it is a rowError if a Clerk user or an
// address is taken.
func (s *pgxSQL) explain(ctx context.Context, db pgxQuerier, changes []Change, err error) error {
	switch {
	case !IsUniqueViolation(err), len(changes) > 1, changes[0].New == nil:
		return err
	case IsUniqueViolation(err, "clerkinvite_member_user_key"):
		return rowError{ErrUserTaken}
	case IsUniqueViolation(err, "clerkinvite_member_email_key"):
		return rowError{ErrEmailTaken}
	}
	// A partition's key has a different name, so query for the taken user or address.
	c := changes[0]
	taken, lookErr := queryOne[string](ctx, db, s.TakenSQL, c.Old.TenantID, c.New.ClerkUserID, c.New.Email, c.Old.ID)
	switch {
	case lookErr == nil && taken == "user":
		return rowError{ErrUserTaken}
	case lookErr == nil && taken == "email":
		return rowError{ErrEmailTaken}
	}
	return err
}

// find runs one statement, in which each selector uses its own index.
func (s *pgxSQL) find(ctx context.Context, db pgxQuerier, q Query) ([]*Member, error) {
	type ref struct {
		TenantID string `json:"tenant_id"`
		Value    string `json:"value"`
	}
	var arg struct {
		Refs     []ref    `json:"refs,omitempty"`
		RefIDs   []ref    `json:"ref_ids,omitempty"`
		RefUsers []ref    `json:"ref_users,omitempty"`
		IDs      []string `json:"ids,omitempty"`
		Emails   []string `json:"emails,omitempty"`
		Users    []string `json:"users,omitempty"`
	}
	for _, r := range q.Refs {
		switch {
		case !storeutil.IsText(r.TenantID):
		case r.Email != "" && storeutil.IsText(r.Email):
			arg.Refs = append(arg.Refs, ref{r.TenantID, r.Email})
		case storeutil.IsUUID(r.ID):
			arg.RefIDs = append(arg.RefIDs, ref{r.TenantID, r.ID})
		case r.ClerkUserID != "" && storeutil.IsText(r.ClerkUserID):
			arg.RefUsers = append(arg.RefUsers, ref{r.TenantID, r.ClerkUserID})
		}
	}
	var selects []string
	if len(arg.Refs) > 0 {
		selects = append(selects, s.FindRefsSQL)
	}
	if len(arg.RefIDs) > 0 {
		selects = append(selects, s.FindRefIDsSQL)
	}
	if len(arg.RefUsers) > 0 {
		selects = append(selects, s.FindRefUsersSQL)
	}
	if arg.IDs = filter(q.IDs, storeutil.IsUUID); len(arg.IDs) > 0 {
		selects = append(selects, s.FindIDsSQL)
	}
	if arg.Emails = storeutil.Texts(q.Emails); len(arg.Emails) > 0 {
		selects = append(selects, s.FindEmailsSQL)
	}
	if arg.Users = storeutil.Texts(q.UserIDs); len(arg.Users) > 0 {
		selects = append(selects, s.FindUsersSQL)
	}
	if len(selects) == 0 {
		return nil, nil
	}
	found, err := queryMembers(ctx, db, strings.Join(selects, "\nUNION ALL\n"), arg)
	return storeutil.Unique(found, func(m *Member) [2]string { return [2]string{m.TenantID, m.ID} }), err
}

func (s *pgxSQL) due(ctx context.Context, db pgxQuerier, q DueQuery) ([]*Member, error) {
	limit := storeutil.Limit(q.Limit)
	return queryMembers(ctx, db, pgsql.WithLimit(s.DueSQL, limit+1), struct {
		At    string `json:"at"`
		After string `json:"after"`
		N     int    `json:"n"`
	}{pgxTime(&q.At), q.AfterTenantID, limit})
}

// pgxPage is the parameter of a page.
type pgxPage struct {
	TenantID      string   `json:"tenant_id"`
	Statuses      []Status `json:"statuses,omitempty"`
	Prefix        string   `json:"prefix,omitempty"`
	PrefixEnd     string   `json:"prefix_end,omitempty"`
	InvitedBy     string   `json:"invited_by,omitempty"`
	ExpiresBefore string   `json:"expires_before,omitempty"`
	AfterTenantID string   `json:"after_tenant_id"`
	AfterID       string   `json:"after_id"`
	N             int      `json:"n"`
}

// page returns the statement for a page, and its parameter. sql is "" if q selects nothing.
func (s *pgxSQL) page(q PageQuery) (sql string, arg pgxPage, err error) {
	switch {
	case !storeutil.IsText(q.AfterTenantID) || q.AfterID != "" && !storeutil.IsUUID(q.AfterID):
		return "", arg, errors.New("clerkinvite: invalid PageQuery: AfterID must be a member's ID, and AfterTenantID its tenant")
	case q.NewestFirst && q.TenantID == "":
		return "", arg, errors.New("clerkinvite: invalid PageQuery: NewestFirst needs a TenantID")
	}
	statuses := slices.Compact(slices.Sorted(slices.Values(storeutil.Texts(q.Statuses))))
	if !storeutil.IsText(q.TenantID) || !storeutil.IsText(q.EmailPrefix) || !storeutil.IsText(q.InvitedBy) ||
		len(q.Statuses) > 0 && len(statuses) == 0 {
		return "", arg, nil
	}
	arg = pgxPage{
		TenantID: q.TenantID, Statuses: statuses, Prefix: q.EmailPrefix, InvitedBy: q.InvitedBy,
		AfterTenantID: q.AfterTenantID, AfterID: q.AfterID, N: storeutil.Limit(q.Limit),
	}
	if !q.ExpiresBefore.IsZero() {
		if len(statuses) > 0 && !slices.Contains(statuses, StatusPending) {
			return "", arg, nil
		}
		arg.Statuses, arg.ExpiresBefore = []Status{StatusPending}, pgxTime(&q.ExpiresBefore)
	}
	if q.TenantID != "" {
		var ok bool
		if arg.AfterID, ok = storeutil.PageStart(q.TenantID, q.AfterTenantID, q.AfterID, q.NewestFirst); !ok {
			return "", arg, nil
		}
	}
	switch {
	case arg.AfterID != "":
	case q.NewestFirst:
		arg.AfterID = uuid.Max.String() // after the tenant's newest member
	default:
		arg.AfterID = uuid.Nil.String() // before the tenant's oldest member
	}
	page := &s.OldestFirst
	if q.NewestFirst {
		page = &s.NewestFirst
	}
	switch {
	case q.TenantID == "":
		sql = s.PageAllSQL
	case q.EmailPrefix != "":
		sql, arg.PrefixEnd = page.PrefixSQL, storeutil.PrefixEnd(q.EmailPrefix)
	case len(arg.Statuses) > 0:
		sql = page.StatusSQL
	default:
		sql = page.TenantSQL
	}
	return pgsql.WithLimit(sql, arg.N), arg, nil
}

func (s *pgxSQL) counts(ctx context.Context, db pgxQuerier, tenantID string) (map[Status]int, error) {
	if !storeutil.IsText(tenantID) {
		return nil, nil
	}
	rows, err := db.Query(ctx, s.CountsSQL, tenantID)
	if err != nil {
		return nil, err
	}
	counts := make(map[Status]int)
	var status Status
	var n int
	_, err = pgx.ForEachRow(rows, []any{&status, &n}, func() error {
		counts[status] = n
		return nil
	})
	return counts, err
}

func (s *pgxSQL) history(ctx context.Context, db pgxQuerier, tenantID, id string) ([]HistoryEntry, error) {
	if !storeutil.IsText(tenantID) || !storeutil.IsUUID(id) {
		return nil, nil
	}
	rows, err := db.Query(ctx, s.HistorySQL, tenantID, id)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (m HistoryEntry, err error) {
		err = row.Scan(&m.Version, &m.From, &m.To, &m.Send, &m.Sent, &m.ClerkUserID, &m.InvitationID, &m.Role, &m.Reason, &m.Actor, &m.At)
		m.At = m.At.UTC()
		return m, err
	})
}

// backlog counts the members that wait at the given time.
func (s *pgxSQL) backlog(ctx context.Context, db pgxQuerier, now time.Time) (Backlog, error) {
	rows, err := db.Query(ctx, s.BacklogSQL, pgxTime(&now))
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

// swapTime replaces old by next if old is the stored time, and returns the stored time.
func (s *pgxSQL) swapTime(ctx context.Context, db pgxQuerier, name string, old, next time.Time) (time.Time, error) {
	old, next = old.Truncate(time.Microsecond), next.Truncate(time.Microsecond)
	reads := next.IsZero() || next.Equal(old)
	sql, args := s.TimeReadSQL, []any{name}
	switch {
	case reads:
	case old.IsZero():
		sql, args = s.TimeNewSQL, append(args, pgxTime(&next))
	default:
		sql, args = s.TimeSwapSQL, append(args, pgxTime(&old), pgxTime(&next))
	}
	for {
		known, err := queryOne[time.Time](ctx, db, sql, args...)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			known = time.Time{}
		case err != nil:
			return time.Time{}, err
		}
		// If the stored time still looks like old, but was not swapped, another process swapped
		// it after this statement began. The next statement sees the new time.
		if reads || !known.Equal(old) {
			return known.UTC(), nil
		}
	}
}
