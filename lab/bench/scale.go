package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/clerkinvite/clerkinvite"
)

// fillMembers writes members $1 to $2 of $3 tenants, of all states as they are in a table that is in use, with ids in the
// order of time. One in a hundred is due.
const fillMembers = `
INSERT INTO clerkinvite_member (tenant_id, id, email, status, clerk_user_id, invitation_id, send, sent, role, invited_by, params, version, attempts,
	next_attempt_at, reason, reserved_at, invited_at, expires_at, settled_at, updated_at)
SELECT 'tenant-' || lpad((i % $3::integer)::text, 6, '0'), ` + memberID + `, 'person-' || lpad(i::text, 8, '0') || '@example.com', status,
	CASE status WHEN 'pending' THEN 'pending_inv_' || i WHEN 'active' THEN 'user_' || i END,
	CASE WHEN status NOT IN ('reserved', 'failed') THEN 'inv_' || i END,
	1, CASE status WHEN 'reserved' THEN 0 ELSE 1 END, 'editor', 'inviter-' || h % 5, '{"expires_in_days":30}',
	CASE WHEN status = 'reserved' THEN 1 WHEN status IN ('pending', 'failed') THEN 2 ELSE 3 END, CASE status WHEN 'reserved' THEN 0 ELSE 1 END,
	CASE status WHEN 'reserved' THEN at END, CASE WHEN status IN ('failed', 'removed') THEN 'a_reason' END,
	at, CASE WHEN status NOT IN ('reserved', 'failed') THEN at END, CASE WHEN status NOT IN ('reserved', 'failed') THEN at + interval '30 days' END,
	CASE WHEN status <> 'reserved' THEN at END, at
FROM generate_series($1::integer, $2::integer) i,
	LATERAL (SELECT (hashint8(i) & 2147483647) % 100 AS h, timestamptz '2026-01-01 00:00:00Z' + i * interval '1 millisecond' AS at) v,
	LATERAL (SELECT CASE WHEN h = 0 THEN 'reserved' WHEN h < 20 THEN 'pending' WHEN h < 94 THEN 'active' WHEN h < 95 THEN 'failed'
		WHEN h < 96 THEN 'revoked' WHEN h < 97 THEN 'expired' ELSE 'removed' END AS status) s`

// fillMoves writes the moves number $1 of all members. So the moves of one member are not side by side.
const fillMoves = `
INSERT INTO clerkinvite_history (tenant_id, member_id, version, from_status, to_status, send, sent, clerk_user_id, invitation_id, reason, at)
SELECT tenant_id, id, $1::integer, CASE $1::integer WHEN 2 THEN 'reserved' WHEN 3 THEN 'pending' END,
	CASE WHEN version = $1::integer THEN status WHEN $1::integer = 1 THEN 'reserved' ELSE 'pending' END,
	1, CASE $1::integer WHEN 1 THEN 0 ELSE 1 END,
	CASE WHEN version = $1::integer THEN clerk_user_id WHEN $1::integer = 2 THEN 'pending_' || invitation_id END,
	CASE WHEN $1::integer > 1 THEN invitation_id END, CASE WHEN version = $1::integer THEN reason END,
	reserved_at + ($1::integer - 1) * interval '1 day'
FROM clerkinvite_member WHERE version >= $1::integer`

// newcomer is a tenant that the statistics do not know.
const newcomer = "newcomer"

// fillNewcomer writes its members.
const fillNewcomer = `
INSERT INTO clerkinvite_member (tenant_id, id, email, status, send, sent, version, attempts, reserved_at, updated_at)
SELECT $1, gen_random_uuid(), 'newcomer-' || i || '@example.com', 'revoked', 1, 1, 2, 1, now(), now() FROM generate_series(1, 20) i`

// tableKeys are the statements that take away what is slower to keep up than to make anew (keys, references and indexes), and
// those that bring each back as it was defined.
const tableKeys = `
SELECT drop, make FROM (
	SELECT CASE contype WHEN 'f' THEN 1 ELSE 2 END AS n, conname::text AS name, format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname) AS drop,
		format('ALTER TABLE %s ADD CONSTRAINT %I %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) AS make
	FROM pg_constraint
	WHERE conrelid IN ('clerkinvite_member'::regclass, 'clerkinvite_history'::regclass) AND contype IN ('p', 'u', 'f')
	UNION ALL
	SELECT 3, indexrelid::regclass::text, format('DROP INDEX %s', indexrelid::regclass), pg_get_indexdef(indexrelid)
	FROM pg_index i
	WHERE indrelid IN ('clerkinvite_member'::regclass, 'clerkinvite_history'::regclass)
		AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype IN ('p', 'u'))
) k
ORDER BY n, name`

// tableKey is one of them.
type tableKey struct{ Drop, Make string }

// layout is a table of members.
type layout struct{ members, tenants int }

func (l layout) String() string { return fmt.Sprintf("members: %d, tenants: %d", l.members, l.tenants) }

func (l layout) tenant(i int) string { return fmt.Sprintf("tenant-%06d", i%l.tenants) }

func (layout) id(i int) string { return fmt.Sprintf("01900000-0000-7000-8000-%012x", i) }

func (layout) email(i int) string { return fmt.Sprintf("person-%08d@example.com", i) }

// table is the members, through one connection.
type table struct {
	layout

	pool       *pgxpool.Pool
	store      *clerkinvite.PgxStore
	places     []int    // the members that are asked for, spread over the table
	waiting    []string // addresses somebody waits for
	users      []string // who is active
	due        []*clerkinvite.Member
	conditions *strings.Replacer // puts in the conditions that a statement has to repeat to use an index
}

// answer is what a question was answered with, and how long that took.
type answer struct {
	rows []string
	took time.Duration
}

// answered ends the time that began then.
func answered[T any](began time.Time, list []T) answer {
	a := answer{took: time.Since(began)}
	for _, row := range list {
		switch v := any(row).(type) {
		case *clerkinvite.Member:
			a.rows = append(a.rows, fmt.Sprint(v.TenantID, " ", v.ID, " ", v.Version, " ", v.Status))
		case clerkinvite.HistoryEntry:
			a.rows = append(a.rows, fmt.Sprint(v.Version, " ", v.From, " ", v.To, " ", v.At.UTC()))
		default:
			a.rows = append(a.rows, fmt.Sprint(v))
		}
	}
	return a
}

// querier is a pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// question is what the store is asked in one statement, and the same in the SQL that one would write for it.
type question struct {
	name    string
	ordered bool // the rows come in an order
	writes  bool // it is asked in a transaction that is rolled back
	page    int  // the most rows that it may sort
	ours    func(ctx context.Context, t table, tx pgx.Tx, j int) (answer, error)
	sql     string
	args    func(t table, j int) []any
	read    func(ctx context.Context, db querier, sql string, args []any) (answer, error)
}

// reading reads all rows of the plain SQL.
func reading[T any](read pgx.RowToFunc[T]) func(ctx context.Context, db querier, sql string, args []any) (answer, error) {
	return func(ctx context.Context, db querier, sql string, args []any) (answer, error) {
		began := time.Now()
		rows, err := db.Query(ctx, sql, args...)
		if err != nil {
			return answer{}, err
		}
		list, err := pgx.CollectRows(rows, read)
		return answered(began, list), err
	}
}

// readNothing reads what the store's statement returns to the end, undecoded.
func readNothing(ctx context.Context, db querier, sql string, args []any) (answer, error) {
	began := time.Now()
	rows, err := db.Query(ctx, sql, args...)
	if err != nil {
		return answer{}, err
	}
	defer rows.Close()
	n := 0
	for rows.Next() {
		n++
	}
	return answer{make([]string, n), time.Since(began)}, rows.Err()
}

const (
	pageSize      = 101  // what List reads for a page of 100
	deliverBatch  = 100  // what Deliver claims at once
	reconcilePage = 1000 // what Reconcile reads at once
	lookUpBatch   = 100  // addresses of one look-up
)

var (
	// never is a time at which all that can be due is due.
	never = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	// overdue is when the invitations of the first 5,000 members have run out.
	overdue = time.Date(2026, 1, 31, 0, 0, 5, 0, time.UTC)
)

// memberColumns is what is read of a member.
const memberColumns = `tenant_id, id::text, email, status, coalesce(clerk_user_id, ''), coalesce(invitation_id, ''), send, sent,
	coalesce(url, ''), coalesce(role, ''), coalesce(invited_by, ''), data, params, version, attempts, claimed_until, next_attempt_at,
	coalesce(reason, ''), reserved_at, invited_at, expires_at, settled_at, updated_at`

// readMember reads them.
func readMember(row pgx.CollectableRow) (*clerkinvite.Member, error) {
	m := new(clerkinvite.Member)
	return m, row.Scan(&m.TenantID, &m.ID, &m.Email, &m.Status, &m.ClerkUserID, &m.InvitationID, &m.Send, &m.Sent, &m.URL, &m.Role, &m.InvitedBy,
		(*[]byte)(&m.Data), (*[]byte)(&m.Params), &m.Version, &m.Attempts, &m.ClaimedUntil, &m.NextAttemptAt, &m.Reason, &m.ReservedAt, &m.InvitedAt,
		&m.ExpiresAt, &m.SettledAt, &m.UpdatedAt)
}

// find is a question to Find, beside a SELECT with what stands behind its FROM. Its limit is not a parameter: for an
// unknown one PostgreSQL might plan to read and sort everything, which would flatter the library. So would ORDER BY id
// instead of m.id: that is the text of this name in the SELECT, and no index has its order.
func find(name string, page int, q func(t table, j int) clerkinvite.Query, where string, args func(t table, j int) []any) question {
	return members(name, page, func(ctx context.Context, t table, j int) ([]*clerkinvite.Member, error) { return t.store.Find(ctx, q(t, j)) }, where, args)
}

// pages is the same for a page.
func pages(name string, page int, q func(t table, j int) clerkinvite.PageQuery, where string, args func(t table, j int) []any) question {
	return members(name, page, func(ctx context.Context, t table, j int) ([]*clerkinvite.Member, error) { return t.store.Page(ctx, q(t, j)) }, where, args)
}

func members(name string, page int, ask func(ctx context.Context, t table, j int) ([]*clerkinvite.Member, error), where string,
	args func(t table, j int) []any,
) question {
	return question{
		name: name, ordered: strings.Contains(where, "ORDER BY"), page: page,
		ours: func(ctx context.Context, t table, _ pgx.Tx, j int) (answer, error) {
			began := time.Now()
			members, err := ask(ctx, t, j)
			return answered(began, members), err
		},
		sql: "SELECT " + memberColumns + " FROM clerkinvite_member m WHERE " + where, args: args, read: reading(readMember),
	}
}

// list is a question for a page of a tenant, the first or a later one.
func list(name string, later bool, filter clerkinvite.PageQuery, where string) question {
	if later {
		where += " AND id > $2"
	}
	return pages(name, pageSize, func(t table, j int) clerkinvite.PageQuery {
		q := filter
		q.Limit = pageSize
		if q.TenantID = t.tenant(t.places[j]); later {
			q.AfterTenantID, q.AfterID = q.TenantID, t.id(t.places[j])
		}
		return q
	}, fmt.Sprintf("tenant_id = $1%s ORDER BY m.id LIMIT %d", where, pageSize), func(t table, j int) []any {
		if later {
			return []any{t.tenant(t.places[j]), t.id(t.places[j])}
		}
		return []any{t.tenant(t.places[j])}
	})
}

// backlogLimit is how many rows of each kind Backlog counts. The plain SQL has the same bound.
const backlogLimit = 10_000

// questions has the one that writes last: what it leaves behind is in nobody's way.
var questions = []question{
	list("List, first page", false, clerkinvite.PageQuery{}, ""),
	list("List, a later page", true, clerkinvite.PageQuery{}, ""),
	// Only a query with the condition can use the index.
	list("List, a later page of those pending", true, clerkinvite.PageQuery{Statuses: []clerkinvite.Status{clerkinvite.StatusPending}},
		" AND {clerkinvite_member_status_idx} AND status = 'pending'"),
	list("List, a later page of one inviter's, who has a fifth", true, clerkinvite.PageQuery{InvitedBy: "inviter-2"}, " AND invited_by = 'inviter-2'"),
	pages("List, a tenant that came after ANALYZE", pageSize, func(table, int) clerkinvite.PageQuery {
		return clerkinvite.PageQuery{Limit: pageSize, TenantID: newcomer}
	}, fmt.Sprintf(`tenant_id = $1 ORDER BY m.id LIMIT %d`, pageSize), func(table, int) []any { return []any{newcomer} }),

	find("Get", 1, func(t table, j int) clerkinvite.Query {
		i := t.places[j]
		return clerkinvite.Query{Refs: []clerkinvite.Ref{{TenantID: t.tenant(i), Email: t.email(i)}}}
	}, `tenant_id = $1 AND email = $2`, func(t table, j int) []any { return []any{t.tenant(t.places[j]), t.email(t.places[j])} }),
	find("resolve by one address", 1, func(t table, j int) clerkinvite.Query {
		return clerkinvite.Query{Emails: t.waiting[j : j+1]}
	}, `email = $1 AND status IN ('reserved', 'pending', 'expired')`, func(t table, j int) []any { return []any{t.waiting[j]} }),
	find("resolve by user id", 1, func(t table, j int) clerkinvite.Query {
		return clerkinvite.Query{UserIDs: t.users[j : j+1]}
	}, `clerk_user_id = $1 AND status = 'active'`, func(t table, j int) []any { return []any{t.users[j]} }),
	find("resolve by member id", 1, func(t table, j int) clerkinvite.Query {
		return clerkinvite.Query{IDs: []string{t.id(t.places[j])}}
	}, `id = $1 AND {clerkinvite_member_id_idx}`, func(t table, j int) []any { return []any{t.id(t.places[j])} }),
	find(fmt.Sprintf("resolve by %d addresses", lookUpBatch), lookUpBatch, func(t table, j int) clerkinvite.Query {
		return clerkinvite.Query{Emails: t.waiting[j : j+lookUpBatch]}
	}, `email = ANY ($1) AND status IN ('reserved', 'pending', 'expired')`, func(t table, j int) []any {
		return []any{t.waiting[j : j+lookUpBatch]}
	}),

	{
		name: "History of a member", ordered: true, page: 1,
		ours: func(ctx context.Context, t table, _ pgx.Tx, j int) (answer, error) {
			began := time.Now()
			moves, err := t.store.History(ctx, t.tenant(t.places[j]), t.id(t.places[j]))
			return answered(began, moves), err
		},
		sql: `SELECT version, coalesce(from_status, ''), to_status, send, sent, coalesce(clerk_user_id, ''), coalesce(invitation_id, ''), coalesce(reason, ''), at
FROM clerkinvite_history WHERE tenant_id = $1 AND member_id = $2 ORDER BY version`,
		args: func(t table, j int) []any { return []any{t.tenant(t.places[j]), t.id(t.places[j])} },
		read: reading(func(row pgx.CollectableRow) (m clerkinvite.HistoryEntry, err error) {
			return m, row.Scan(&m.Version, &m.From, &m.To, &m.Send, &m.Sent, &m.ClerkUserID, &m.InvitationID, &m.Reason, &m.At)
		}),
	},

	members(fmt.Sprintf("the first %d due", deliverBatch), 1, func(ctx context.Context, t table, _ int) ([]*clerkinvite.Member, error) {
		return t.store.Due(ctx, never, deliverBatch)
	}, fmt.Sprintf(`sent < send AND status IN ('reserved', 'pending') AND next_attempt_at <= $1 ORDER BY next_attempt_at LIMIT %d`, deliverBatch),
		func(table, int) []any { return []any{never} }),
	{
		name: "Backlog, what is due and what has run out", ordered: true, page: 1,
		ours: func(ctx context.Context, t table, _ pgx.Tx, _ int) (answer, error) {
			began := time.Now()
			b, err := t.store.Backlog(ctx, overdue)
			return answered(began, []clerkinvite.Backlog{b}), err
		},
		sql: fmt.Sprintf(`
SELECT count(*) FILTER (WHERE status = 'reserved'), count(*) FILTER (WHERE next_attempt_at <= $1), min(next_attempt_at) FILTER (WHERE next_attempt_at <= $1),
	(SELECT count(*) FROM (SELECT FROM clerkinvite_member WHERE status = 'pending' AND expires_at <= $1 ORDER BY expires_at LIMIT %[1]d) o)
FROM (SELECT status, next_attempt_at FROM clerkinvite_member WHERE sent < send AND status IN ('reserved', 'pending') ORDER BY next_attempt_at LIMIT %[1]d) d`,
			backlogLimit),
		args: func(table, int) []any { return []any{overdue} },
		read: reading(func(row pgx.CollectableRow) (b clerkinvite.Backlog, err error) {
			err = row.Scan(&b.Reserved, &b.Due, &b.OldestDue, &b.Overdue)
			b.OldestDue = b.OldestDue.UTC()
			return b, err
		}),
	},

	pages(fmt.Sprintf("Reconcile, a page of %d", reconcilePage), reconcilePage, func(t table, j int) clerkinvite.PageQuery {
		i := t.places[j]
		return clerkinvite.PageQuery{
			AfterTenantID: t.tenant(i), AfterID: t.id(i), Statuses: []clerkinvite.Status{clerkinvite.StatusPending, clerkinvite.StatusActive},
			Limit: reconcilePage,
		}
	}, fmt.Sprintf(`(tenant_id, id) > ($1, $2) AND status IN ('pending', 'active') ORDER BY m.tenant_id, m.id LIMIT %d`, reconcilePage), func(t table, j int) []any {
		return []any{t.tenant(t.places[j]), t.id(t.places[j])}
	}),

	{
		name: fmt.Sprintf("claim of %d", deliverBatch), writes: true, page: deliverBatch, ours: claim,
		sql: `
UPDATE clerkinvite_member m
SET version = m.version + 1, attempts = m.attempts + 1, claimed_until = $1, next_attempt_at = $1, updated_at = $2
FROM unnest($3::text[], $4::text[], $5::bigint[]) AS x (x_tenant, x_id, x_version)
WHERE m.tenant_id = x_tenant AND m.id = x_id::uuid AND m.version = x_version
RETURNING ` + memberColumns,
		args: func(t table, _ int) []any {
			tenants, ids, versions := make([]string, len(t.due)), make([]string, len(t.due)), make([]int64, len(t.due))
			for i, m := range t.due {
				tenants[i], ids[i], versions[i] = m.TenantID, m.ID, m.Version
			}
			return []any{claimedUntil, never, tenants, ids, versions}
		},
		read: reading(readMember),
	},
}

var claimedUntil = never.Add(time.Minute)

// claim claims the due members, as Deliver does. The statement is measured, without the transaction around it.
func claim(ctx context.Context, t table, tx pgx.Tx, _ int) (answer, error) {
	changes := make([]clerkinvite.Change, len(t.due))
	for i, m := range t.due {
		next := *m
		next.ClaimedUntil, next.NextAttemptAt, next.UpdatedAt, next.Attempts = &claimedUntil, &claimedUntil, never, m.Attempts+1
		changes[i] = clerkinvite.Change{Old: m, New: &next}
	}
	began := time.Now()
	results, err := t.store.WithTx(tx).Update(ctx, changes)
	took := time.Since(began)
	members := make([]*clerkinvite.Member, len(results))
	for i, result := range results {
		err = errors.Join(err, result.Err)
		members[i] = result.Member
	}
	if err != nil {
		return answer{}, err
	}
	return answer{answered(began, members).rows, took}, nil
}

// variant returns one way to ask a question, b.queries times in a run. want has the answers, as the library gave them; undecoded
// ones only have their number.
func (q question) variant(b *bench, name string, pool *pgxpool.Pool, want [][]string, decoded bool,
	ask func(ctx context.Context, db querier, tx pgx.Tx, j int) (answer, error),
) variant {
	return variant{name, func(ctx context.Context) (sample, error) {
		s := sample{ops: b.queries}
		for j := range b.queries {
			a, err := q.ask(ctx, pool, func(db querier, tx pgx.Tx) (answer, error) { return ask(ctx, db, tx, j) })
			if err != nil {
				return s, err
			}
			s.elapsed += a.took
			if !q.ordered {
				slices.Sort(a.rows)
			}
			if len(a.rows) != len(want[j]) || decoded && !slices.Equal(a.rows, want[j]) {
				return s, incomparable("other answers than the library's")
			}
		}
		return s, nil
	}}
}

// ask asks once; what writes, in a transaction that is rolled back.
func (q question) ask(ctx context.Context, pool *pgxpool.Pool, f func(db querier, tx pgx.Tx) (answer, error)) (answer, error) {
	if !q.writes {
		return f(pool, nil)
	}
	tx, err := pool.Begin(ctx)
	if err != nil {
		return answer{}, err
	}
	a, err := f(tx, tx)
	return a, errors.Join(err, tx.Rollback(ctx))
}

// asked is what a question was found to cost in one layout.
type asked struct {
	store, plain [2]cost // by plan mode
}

// cost is what EXPLAIN says, on average over some values.
type cost struct {
	blocks        int
	plans, faults []string
}

// partScale asks the store what grows with the table, at several sizes.
func partScale(ctx context.Context, b *bench, r *report) error {
	fmt.Fprintf(r.out, "\n## 4. Large tables\n\n- %s\n", strings.Join([]string{
		"Each question is asked in three ways in turn, each through pgx: the library's store; the SQL that one would write for it by hand, its columns " +
			"read into the same structure; and the store's own statement sent raw, its rows read to the end but not decoded, which leaves out all of the " +
			"library's own work in Go. All must give the same answer. List and Reconcile are asked as Find, which is all that they do with the database.",
		"One tenant has all members, or they are spread over many. Of a hundred one is due, 19 are pending, 74 active; each has one row in the history for each " +
			"move, 1 to 3. The tables are vacuumed and analysed, and then 20 members of one more tenant come. What is asked for is spread over the table.",
		"The tables are filled without their indexes, which are made afterwards, as Migrate defines them. So the indexes are denser than those of a table that " +
			"has grown row by row, and whose rows have been updated: those have more blocks, and may have a level more.",
		"The goal is for the ratio. A short question costs tens of µs whatever it asks: there the difference says more.",
	}, "\n- "))
	r.heading("question", "the store", "plain SQL", "the store / plain SQL (lowest to highest)", "difference", "goal", "", "its statement, raw", "the store / its statement")

	var layouts []layout
	for _, n := range b.members {
		// Ten members for each tenant at least, or most pages would be of one.
		layouts = append(layouts, layout{n, 1}, layout{n, min(b.tenants, n/10)})
	}
	costs := make([]map[layout]asked, len(questions))
	for i := range costs {
		costs[i] = make(map[layout]asked)
	}
	for _, l := range layouts {
		if err := scaleLayout(ctx, b, r, l, costs); err != nil {
			return err
		}
	}
	r.blocks(layouts, costs)
	r.plans(layouts, costs)
	return nil
}

// heading begins a table.
func (r *report) heading(cells ...string) {
	fmt.Fprintln(r.out)
	r.row(cells...)
	fmt.Fprintln(r.out, "|"+strings.Repeat("-|", len(cells)))
}

// moreBlocks is how many blocks more a question may touch in the largest table than in the smallest, if one tenant has all members. (With
// many tenants the rows of one lie the farther from each other the more tenants there are, and there are the more rows to a page.)
const moreBlocks = 8

// blocks writes how many blocks are touched.
func (r *report) blocks(layouts []layout, costs []map[layout]asked) {
	fmt.Fprintf(r.out, "\nBlocks touched, on average: the store's statement with a generic plan / with one for the values / plain SQL with one for the values. "+
		"With one tenant the largest table may cost %d more than the smallest.\n", moreBlocks)
	cells := []string{"question"}
	for _, l := range layouts {
		cells = append(cells, l.String())
	}
	r.heading(append(cells, "growth: one tenant, many", "")...)
	for i, q := range questions {
		cells := []string{q.name}
		for _, l := range layouts {
			c := costs[i][l]
			cells = append(cells, fmt.Sprintf("%d / %d / %d", c.store[0].blocks, c.store[1].blocks, c.plain[1].blocks))
		}
		growth := [2]int{}
		for kind := range growth { // layouts alternate
			first, last := costs[i][layouts[kind]], costs[i][layouts[len(layouts)-2+kind]]
			for mode := range planModes {
				if q.writes && mode > 0 {
					continue // it finds what the one before has left behind
				}
				growth[kind] = max(growth[kind], last.store[mode].blocks-first.store[mode].blocks)
			}
		}
		r.row(append(cells, fmt.Sprintf("%d, %d", growth[0], growth[1]), r.verdict(growth[0] <= moreBlocks))...)
	}
}

// plans writes which plans there were.
func (r *report) plans(layouts []layout, costs []map[layout]asked) {
	fmt.Fprint(r.out, "\nThe goal for plans: the same nodes in every layout, with a generic plan and with one for the values; by an index, no Sort of more than a page, "+
		"and of the rows read not nearly all passed over.\n")
	r.heading("question", "nodes of the plan of the store's statement", "")
	for i, q := range questions {
		where := make(map[string][]string) // by plan
		var order, faults []string
		for _, l := range layouts {
			for mode, name := range planModes {
				c := costs[i][l].store[mode]
				for _, p := range c.plans {
					if where[p] == nil {
						order = append(order, p)
					}
					where[p] = append(where[p], fmt.Sprintf("%s, %s", l, name))
				}
				for _, fault := range c.faults {
					faults = append(faults, fmt.Sprintf("%s (%s, %s)", fault, l, name))
				}
			}
		}
		text := order[0]
		if len(order) > 1 {
			for n, p := range order {
				order[n] = fmt.Sprintf("%s (%s)", p, strings.Join(where[p], "; "))
			}
			text = strings.Join(order, " — or — ")
		}
		if len(faults) > 0 {
			text += "; " + strings.Join(slices.Compact(faults), ", ")
		}
		r.row(q.name, text, r.verdict(len(order) == 1 && len(faults) == 0))
	}
}

// explainedValues is for how many values the plans of a question are looked at.
const explainedValues = 5

func scaleLayout(ctx context.Context, b *bench, r *report, l layout, costs []map[layout]asked) (err error) {
	db, err := b.server.database(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.close()) }() // the disk may not be large enough for the next as well
	t := table{layout: l}
	if t.pool, err = db.pool(ctx, 1, nil); err != nil {
		return err
	}
	t.store = clerkinvite.NewPgxStore(t.pool, nil)
	if err := t.fill(ctx); err != nil {
		return err
	}
	if err := t.choose(ctx, b.queries); err != nil {
		return err
	}
	sent := &statements{}
	traced := t
	if traced.pool, err = db.pool(ctx, 1, sent); err != nil {
		return err
	}
	traced.store = clerkinvite.NewPgxStore(traced.pool, nil)

	for i, q := range questions {
		want, raw, err := t.asFound(ctx, b, q, traced, sent)
		if err != nil {
			return fmt.Errorf("%s: %w", q.name, err)
		}
		// First the blocks: what the measuring leaves behind does not count.
		if costs[i][l], err = t.explain(ctx, q, raw); err != nil {
			return fmt.Errorf("%s: %w", q.name, err)
		}
		sql := t.conditions.Replace(q.sql)
		name := fmt.Sprintf("%s; %s", q.name, l)
		all, err := interleave(ctx, b.rounds,
			q.variant(b, "the store", t.pool, want, true, func(ctx context.Context, _ querier, tx pgx.Tx, j int) (answer, error) { return q.ours(ctx, t, tx, j) }),
			q.variant(b, "plain SQL", t.pool, want, true, func(ctx context.Context, db querier, _ pgx.Tx, j int) (answer, error) {
				return q.read(ctx, db, sql, q.args(t, j))
			}),
			q.variant(b, "its statement", t.pool, want, false, func(ctx context.Context, db querier, _ pgx.Tx, j int) (answer, error) {
				return readNothing(ctx, db, raw[j].sql, raw[j].values())
			}))
		if err != nil {
			if err := r.failed(name, err); err != nil {
				return err
			}
			continue
		}
		store, plain := all[0], all[1]
		ofPlain, g := ratio(store, plain, duration), atMost(1.1)
		differences := make([]float64, len(store))
		for n := range store {
			differences[n] = (duration(store[n]) - duration(plain[n])) * 1e6
		}
		r.figures++
		r.row(name, short(store.each()), short(plain.each()), fmt.Sprintf("%.2f× (%.2f to %.2f)", ofPlain.median, ofPlain.low, ofPlain.high),
			fmt.Sprintf("%+.0f µs", spreadOf(differences).median), g.String(), r.verdictOf(*g, ofPlain),
			short(all[2].each()), fmt.Sprintf("%.2f×", ratio(store, all[2], duration).median))
	}
	return nil
}

// values are the parameters.
func (st statement) values() []any {
	values := make([]any, len(st.args))
	for i, arg := range st.args {
		values[i] = arg
	}
	return values
}

// asFound asks the store once for each value, and returns the answers and the statements that it has sent.
func (t *table) asFound(ctx context.Context, b *bench, q question, traced table, sent *statements) (answers [][]string, raw []statement, err error) {
	found := 0
	for j := range b.queries {
		a, err := q.ask(ctx, traced.pool, func(_ querier, tx pgx.Tx) (answer, error) { return q.ours(ctx, traced, tx, j) })
		if err != nil {
			return nil, nil, err
		}
		found += len(a.rows)
		if !q.ordered {
			slices.Sort(a.rows)
		}
		list := sent.take()
		if len(list) != 1 {
			return nil, nil, fmt.Errorf("%d statements instead of one", len(list))
		}
		answers, raw = append(answers, a.rows), append(raw, list[0])
	}
	if found == 0 {
		return nil, nil, errors.New("nothing was found")
	}
	return answers, raw, nil
}

// explain returns what EXPLAIN says of the store's statements and of the plain SQL, with the first of the values.
func (t *table) explain(ctx context.Context, q question, raw []statement) (a asked, err error) {
	n := min(explainedValues, len(raw))
	if q.writes {
		n = 1
	}
	for mode, name := range planModes {
		if a.store[mode], err = t.cost(ctx, n, name, q.page, func(j int) (string, []any) { return raw[j].sql, raw[j].values() }); err != nil {
			return a, err
		}
		sql := t.conditions.Replace(q.sql)
		if a.plain[mode], err = t.cost(ctx, n, name, q.page, func(j int) (string, []any) { return sql, q.args(*t, j) }); err != nil {
			return a, err
		}
	}
	return a, nil
}

// cost is that of statements 0 to n-1.
func (t *table) cost(ctx context.Context, n int, mode string, page int, of func(j int) (sql string, args []any)) (c cost, err error) {
	for j := range n {
		sql, args := of(j)
		p, err := explain(ctx, t.pool, mode, sql, args)
		if err != nil {
			return c, err
		}
		c.blocks += p.blocks()
		if nodes := p.nodes(); !slices.Contains(c.plans, nodes) {
			c.plans = append(c.plans, nodes)
		}
		c.faults = append(c.faults, p.faults(page)...)
	}
	c.blocks = (c.blocks + n - 1) / n
	return c, nil
}

// fill makes the tables and fills them: without their keys and indexes, which it then brings back.
func (t *table) fill(ctx context.Context) error {
	if err := t.store.Migrate(ctx); err != nil {
		return err
	}
	keys := func() (list []tableKey, err error) {
		rows, err := t.pool.Query(ctx, tableKeys)
		if err != nil {
			return nil, err
		}
		return pgx.CollectRows(rows, pgx.RowToStructByPos[tableKey])
	}
	defined, err := keys()
	if err != nil {
		return err
	}
	exec := func(statements ...string) error {
		for _, sql := range statements {
			if _, err := t.pool.Exec(ctx, sql); err != nil {
				return fmt.Errorf("%s: %w", sql, err)
			}
		}
		return nil
	}
	var took []string
	began := time.Now()
	lap := func(what string) {
		took = append(took, fmt.Sprintf("%s %s", what, short(time.Since(began))))
		began = time.Now()
	}
	// Settings of the one connection. They are not there any more when it is measured.
	if err := exec("SET maintenance_work_mem = '512MB'", "SET synchronous_commit = off"); err != nil {
		return err
	}
	for _, key := range defined {
		if err := exec(key.Drop); err != nil {
			return err
		}
	}
	const batch = 500_000
	for from := 0; from < t.members; from += batch {
		if _, err := t.pool.Exec(ctx, fillMembers, from, min(from+batch, t.members)-1, t.tenants); err != nil {
			return err
		}
	}
	lap("members")
	for version := 1; version <= 3; version++ {
		if _, err := t.pool.Exec(ctx, fillMoves, version); err != nil {
			return err
		}
	}
	lap("history")
	// The foreign key comes first, so last.
	for _, key := range slices.Backward(defined) {
		if err := exec(key.Make); err != nil {
			return err
		}
	}
	lap("keys and indexes")
	switch now, err := keys(); {
	case err != nil:
		return err
	case !slices.Equal(now, defined):
		return errors.New("the keys and indexes are not as Migrate had made them")
	}
	if err := exec("VACUUM (ANALYZE) clerkinvite_member", "VACUUM (ANALYZE) clerkinvite_history", "CHECKPOINT", "RESET ALL"); err != nil {
		return err
	}
	lap("VACUUM, ANALYZE and CHECKPOINT")
	if t.members >= 100_000 {
		fmt.Fprintf(os.Stderr, "filled, %s: %s\n", t.layout, strings.Join(took, ", "))
	}
	_, err = t.pool.Exec(ctx, fillNewcomer, newcomer)
	return err
}

// choose chooses what will be asked for.
func (t *table) choose(ctx context.Context, queries int) error {
	random := rand.New(rand.NewPCG(1, 2)) // the same for all who are compared, and in each run
	for range queries {
		t.places = append(t.places, random.IntN(t.members/2))
	}
	texts := func(n int, sql string) ([]string, error) {
		rows, err := t.pool.Query(ctx, sql, n)
		if err != nil {
			return nil, err
		}
		list, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err == nil && len(list) < n {
			err = fmt.Errorf("%d members are too few", t.members)
		}
		return list, err
	}
	var err error
	if t.waiting, err = texts(queries+lookUpBatch, "SELECT email FROM clerkinvite_member WHERE status = 'pending' ORDER BY hashtext(email) LIMIT $1"); err != nil {
		return err
	}
	if t.users, err = texts(queries, "SELECT clerk_user_id FROM clerkinvite_member WHERE status = 'active' ORDER BY hashtext(email) LIMIT $1"); err != nil {
		return err
	}
	// What a condition of an index says is the migration's to decide.
	rows, err := t.pool.Query(ctx, `
SELECT '{' || indexrelid::regclass::text || '}', pg_get_expr(indpred, indrelid) FROM pg_index
WHERE indexrelid IN ('clerkinvite_member_id_idx'::regclass, 'clerkinvite_member_status_idx'::regclass)`)
	if err != nil {
		return err
	}
	var pairs []string
	var index, condition *string
	if _, err := pgx.ForEachRow(rows, []any{&index, &condition}, func() error {
		if condition == nil {
			condition = new(string)
			*condition = "true"
		}
		pairs = append(pairs, *index, *condition)
		return nil
	}); err != nil {
		return err
	}
	t.conditions = strings.NewReplacer(pairs...)
	t.due, err = t.store.Due(ctx, never, deliverBatch)
	return err
}
