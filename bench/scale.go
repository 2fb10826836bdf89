package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
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
INSERT INTO clerkinvite_member (tenant_id, id, email, status, clerk_user_id, invitation_id, send, sent, role, params, version, attempts,
	next_attempt_at, reason, reserved_at, invited_at, expires_at, settled_at, updated_at)
SELECT 'tenant-' || lpad((i % $3::integer)::text, 6, '0'), ` + memberID + `, 'person-' || lpad(i::text, 8, '0') || '@example.com', status,
	CASE status WHEN 'pending' THEN 'pending_inv_' || i WHEN 'active' THEN 'user_' || i END,
	CASE WHEN status NOT IN ('reserved', 'failed') THEN 'inv_' || i END,
	1, CASE status WHEN 'reserved' THEN 0 ELSE 1 END, 'editor', '{"expires_in_days":30}',
	CASE status WHEN 'reserved' THEN 1 ELSE 2 END, CASE status WHEN 'reserved' THEN 0 ELSE 1 END,
	CASE status WHEN 'reserved' THEN at END, CASE WHEN status IN ('failed', 'removed') THEN 'a_reason' END,
	at, CASE WHEN status NOT IN ('reserved', 'failed') THEN at END, CASE WHEN status NOT IN ('reserved', 'failed') THEN at + interval '30 days' END,
	CASE WHEN status <> 'reserved' THEN at END, at
FROM generate_series($1::integer, $2::integer) i,
	LATERAL (SELECT (hashint8(i) & 2147483647) % 100 AS h, timestamptz '2026-01-01 00:00:00Z' + i * interval '1 millisecond' AS at) v,
	LATERAL (SELECT CASE WHEN h = 0 THEN 'reserved' WHEN h < 20 THEN 'pending' WHEN h < 94 THEN 'active' WHEN h < 95 THEN 'failed'
		WHEN h < 96 THEN 'revoked' WHEN h < 97 THEN 'expired' ELSE 'removed' END AS status) s`

// newcomer is a tenant that the statistics do not know.
const newcomer = "newcomer"

// fillNewcomer writes its members.
const fillNewcomer = `
INSERT INTO clerkinvite_member (tenant_id, id, email, status, send, sent, version, attempts, reserved_at, updated_at)
SELECT $1, gen_random_uuid(), 'newcomer-' || i || '@example.com', 'revoked', 1, 1, 2, 1, now(), now() FROM generate_series(1, 20) i`

// layout is a table of members.
type layout struct{ members, tenants int }

func (l layout) String() string { return fmt.Sprintf("members: %d, tenants: %d", l.members, l.tenants) }

func (l layout) tenant(i int) string { return fmt.Sprintf("tenant-%06d", i%l.tenants) }

func (layout) id(i int) string { return fmt.Sprintf("01900000-0000-7000-8000-%012x", i) }

// answer is what a question was answered with, and how long that took.
type answer struct {
	members []*clerkinvite.Member
	took    time.Duration
}

// question is what the store is asked in one statement, and the same in the SQL that one would write for it.
type question struct {
	name    string
	ordered bool // the members come in an order
	ours    func(ctx context.Context, t table, j int) (answer, error)
	raw     func(ctx context.Context, t table, j int) (answer, error)
}

// table is the members, through one connection.
type table struct {
	layout

	pool    *pgxpool.Pool
	store   *clerkinvite.PgxStore
	places  []int    // the members that are asked for, spread over the table
	waiting []string // addresses somebody waits for
	due     []*clerkinvite.Member
}

const (
	pageSize      = 101  // what List reads for a page of 100
	deliverBatch  = 100  // what Deliver claims at once
	reconcilePage = 1000 // what Reconcile reads at once
	lookUpBatch   = 100  // addresses of one look-up
)

// never is a time at which all that can be due is due.
var never = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)

var questions = []question{
	find("List, first page", true, func(t table, j int) clerkinvite.Query {
		return clerkinvite.Query{Limit: pageSize, Scan: &clerkinvite.Scan{TenantID: t.tenant(t.places[j])}}
	}, fmt.Sprintf(`WHERE tenant_id = $1 ORDER BY m.id LIMIT %d`, pageSize), func(t table, j int) []any { return []any{t.tenant(t.places[j])} }),

	find("List, a later page", true, func(t table, j int) clerkinvite.Query {
		i := t.places[j]
		return clerkinvite.Query{Limit: pageSize, Scan: &clerkinvite.Scan{TenantID: t.tenant(i), AfterTenantID: t.tenant(i), AfterID: t.id(i)}}
	}, fmt.Sprintf(`WHERE tenant_id = $1 AND id > $2 ORDER BY m.id LIMIT %d`, pageSize), func(t table, j int) []any {
		return []any{t.tenant(t.places[j]), t.id(t.places[j])}
	}),

	find("List, a later page of those pending", true, func(t table, j int) clerkinvite.Query {
		i := t.places[j]
		return clerkinvite.Query{Limit: pageSize, Scan: &clerkinvite.Scan{
			TenantID: t.tenant(i), AfterTenantID: t.tenant(i), AfterID: t.id(i), Statuses: []clerkinvite.Status{clerkinvite.StatusPending},
		}}
		// Only a query with this condition can use the index.
	}, fmt.Sprintf(`WHERE tenant_id = $1 AND tenant_id <> '' AND status = 'pending' AND id > $2 ORDER BY m.id LIMIT %d`, pageSize), func(t table, j int) []any {
		return []any{t.tenant(t.places[j]), t.id(t.places[j])}
	}),

	find("List, a tenant that came after ANALYZE", true, func(table, int) clerkinvite.Query {
		return clerkinvite.Query{Limit: pageSize, Scan: &clerkinvite.Scan{TenantID: newcomer}}
	}, fmt.Sprintf(`WHERE tenant_id = $1 ORDER BY m.id LIMIT %d`, pageSize), func(table, int) []any { return []any{newcomer} }),

	find("resolve by one address", false, func(t table, j int) clerkinvite.Query {
		return clerkinvite.Query{Emails: t.waiting[j : j+1]}
	}, `WHERE email = $1 AND status IN ('reserved', 'pending', 'expired')`, func(t table, j int) []any { return []any{t.waiting[j]} }),

	find(fmt.Sprintf("resolve by %d addresses", lookUpBatch), false, func(t table, j int) clerkinvite.Query {
		return clerkinvite.Query{Emails: t.waiting[j : j+lookUpBatch]}
	}, `WHERE email = ANY ($1) AND status IN ('reserved', 'pending', 'expired')`, func(t table, j int) []any {
		return []any{t.waiting[j : j+lookUpBatch]}
	}),

	find(fmt.Sprintf("the first %d due", deliverBatch), true, func(table, int) clerkinvite.Query {
		return clerkinvite.Query{DueAt: never, Limit: deliverBatch}
	}, fmt.Sprintf(`WHERE sent < send AND status IN ('reserved', 'pending') AND next_attempt_at <= $1 ORDER BY next_attempt_at LIMIT %d`, deliverBatch),
		func(table, int) []any { return []any{never} }),

	{fmt.Sprintf("claim of %d", deliverBatch), false, claim, rawClaim},

	find(fmt.Sprintf("Reconcile, a page of %d", reconcilePage), true, func(t table, j int) clerkinvite.Query {
		i := t.places[j]
		return clerkinvite.Query{Limit: reconcilePage, Scan: &clerkinvite.Scan{
			AfterTenantID: t.tenant(i), AfterID: t.id(i), Statuses: []clerkinvite.Status{clerkinvite.StatusPending, clerkinvite.StatusActive},
		}}
	}, fmt.Sprintf(`WHERE (tenant_id, id) > ($1, $2) AND status IN ('pending', 'active') ORDER BY m.tenant_id, m.id LIMIT %d`, reconcilePage), func(t table, j int) []any {
		return []any{t.tenant(t.places[j]), t.id(t.places[j])}
	}),
}

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
func find(name string, ordered bool, q func(t table, j int) clerkinvite.Query, where string, args func(t table, j int) []any) question {
	return question{name, ordered, func(ctx context.Context, t table, j int) (answer, error) {
		asked := q(t, j)
		began := time.Now()
		members, err := t.store.Find(ctx, asked)
		return answer{members, time.Since(began)}, err
	}, func(ctx context.Context, t table, j int) (answer, error) {
		values := args(t, j)
		began := time.Now()
		rows, err := t.pool.Query(ctx, "SELECT "+memberColumns+" FROM clerkinvite_member m "+where, values...)
		if err != nil {
			return answer{}, err
		}
		members, err := pgx.CollectRows(rows, readMember)
		return answer{members, time.Since(began)}, err
	}}
}

// inVain runs f in a transaction that is rolled back.
func inVain(ctx context.Context, pool *pgxpool.Pool, f func(tx pgx.Tx) error) error {
	tx, err := pool.Begin(ctx)
	if err != nil {
		return err
	}
	return errors.Join(f(tx), tx.Rollback(ctx))
}

// claim claims the due members, as Deliver does. The statement is measured, without the transaction around it.
func claim(ctx context.Context, t table, _ int) (a answer, err error) {
	changes := make([]clerkinvite.Change, len(t.due))
	until := never.Add(time.Minute)
	for i, m := range t.due {
		next := *m
		next.ClaimedUntil, next.NextAttemptAt, next.UpdatedAt, next.Attempts = &until, &until, never, m.Attempts+1
		changes[i] = clerkinvite.Change{Old: m, New: &next}
	}
	err = inVain(ctx, t.pool, func(tx pgx.Tx) error {
		began := time.Now()
		results, err := t.store.WithTx(tx).Update(ctx, changes)
		a.took = time.Since(began)
		for _, result := range results {
			err = errors.Join(err, result.Err)
			a.members = append(a.members, result.Member)
		}
		return err
	})
	return a, err
}

func rawClaim(ctx context.Context, t table, _ int) (a answer, err error) {
	tenants, ids, versions := make([]string, len(t.due)), make([]string, len(t.due)), make([]int64, len(t.due))
	for i, m := range t.due {
		tenants[i], ids[i], versions[i] = m.TenantID, m.ID, m.Version
	}
	err = inVain(ctx, t.pool, func(tx pgx.Tx) error {
		began := time.Now()
		rows, err := tx.Query(ctx, `
UPDATE clerkinvite_member m
SET version = m.version + 1, attempts = m.attempts + 1, claimed_until = $1, next_attempt_at = $1, updated_at = $2
FROM unnest($3::text[], $4::text[], $5::bigint[]) AS x (x_tenant, x_id, x_version)
WHERE m.tenant_id = x_tenant AND m.id = x_id::uuid AND m.version = x_version
RETURNING `+memberColumns, never.Add(time.Minute), never, tenants, ids, versions)
		if err != nil {
			return err
		}
		a.members, err = pgx.CollectRows(rows, readMember)
		a.took = time.Since(began)
		return err
	})
	return a, err
}

// partScale asks the store what grows with the table, at several sizes.
func partScale(ctx context.Context, b *bench, r *report) error {
	r.part("4. Large tables",
		"The store's statement, and the same question in plain SQL; both through pgx, reading all columns into a Member. List and Reconcile are "+
			"asked as Find, which is all that they do with the database. Both must answer with the same members.",
		"One tenant has all members, or they are spread over many. Of a hundred one is due, 19 are pending, 74 active. The tables are vacuumed "+
			"and analysed, and then 20 members of one more tenant come. What is asked for is spread over the table.",
		"Blocks are what EXPLAIN (ANALYZE, BUFFERS) says of the store's statement: with a generic plan, and with one for the values.")
	var layouts []layout
	for _, n := range b.members {
		// Ten members for each tenant at least, or most pages would be of one.
		layouts = append(layouts, layout{n, 1}, layout{n, min(b.tenants, n/10)})
	}
	seen := make(map[string]map[string]bool) // plans, by question and mode
	for _, l := range layouts {
		if err := scaleLayout(ctx, b, r, l, seen); err != nil {
			return err
		}
	}
	fmt.Fprint(r.out, "\n| statement | nodes of its plan | the same at every size, no Seq Scan |\n|-|-|-|\n")
	for _, q := range questions {
		for _, mode := range planModes {
			plans := seen[q.name+", "+mode]
			var all []string
			for plan := range plans {
				all = append(all, plan)
			}
			slices.Sort(all)
			r.row(q.name+", "+mode, strings.Join(all, " — or — "), r.verdict(len(plans) == 1 && !strings.Contains(all[0], "Seq Scan")))
		}
	}
	return nil
}

func scaleLayout(ctx context.Context, b *bench, r *report, l layout, seen map[string]map[string]bool) (err error) {
	db, err := b.server.database(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.close()) }()
	t := table{layout: l}
	if t.pool, err = db.pool(ctx, 1, nil); err != nil {
		return err
	}
	t.store = clerkinvite.NewPgxStore(t.pool, nil)
	if err := t.fill(ctx, b.queries); err != nil {
		return err
	}
	sent := &statements{}
	traced := t
	if traced.pool, err = db.pool(ctx, 1, sent); err != nil {
		return err
	}
	traced.store = clerkinvite.NewPgxStore(traced.pool, nil)

	for _, q := range questions {
		name := fmt.Sprintf("%s; %s", q.name, l)
		all, err := t.compare(ctx, b, q)
		if err != nil {
			if err := r.failed(name, err); err != nil {
				return err
			}
			continue
		}
		if _, err := q.ours(ctx, traced, 0); err != nil {
			return err
		}
		list := sent.take()
		if len(list) != 1 {
			return fmt.Errorf("%s: %d statements instead of one", q.name, len(list))
		}
		var blocks []string
		for _, mode := range planModes {
			plan, n, err := list[0].explain(ctx, t.pool, mode)
			if err != nil {
				return err
			}
			key := q.name + ", " + mode
			if seen[key] == nil {
				seen[key] = make(map[string]bool)
			}
			seen[key][plan] = true
			blocks = append(blocks, fmt.Sprint(n))
		}
		r.compare(name, fmt.Sprintf("%s, %s blocks", short(all[0].each()), strings.Join(blocks, " / ")), "plain SQL", short(all[1].each()),
			"time", ratio(all[0], all[1], duration), atMost(1.1))
	}
	return nil
}

// fill makes the table and chooses what will be asked for.
func (t *table) fill(ctx context.Context, queries int) error {
	if err := t.store.Migrate(ctx); err != nil {
		return err
	}
	const batch = 100_000
	for from := 0; from < t.members; from += batch {
		if _, err := t.pool.Exec(ctx, fillMembers, from, min(from+batch, t.members)-1, t.tenants); err != nil {
			return err
		}
	}
	for _, sql := range []string{"VACUUM (ANALYZE) clerkinvite_member", "CHECKPOINT"} {
		if _, err := t.pool.Exec(ctx, sql); err != nil {
			return err
		}
	}
	if _, err := t.pool.Exec(ctx, fillNewcomer, newcomer); err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(1, 2)) // the same for all who are compared, and in each run
	for range queries {
		t.places = append(t.places, random.IntN(t.members*9/10))
	}
	rows, err := t.pool.Query(ctx, "SELECT email FROM clerkinvite_member WHERE status = 'pending' ORDER BY hashtext(email) LIMIT $1", queries+lookUpBatch)
	if err != nil {
		return err
	}
	if t.waiting, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
		return err
	}
	if len(t.waiting) < queries+lookUpBatch {
		return fmt.Errorf("%d members are too few", t.members)
	}
	t.due, err = t.store.Find(ctx, clerkinvite.Query{DueAt: never, Limit: deliverBatch})
	return err
}

// compare asks both ways.
func (t *table) compare(ctx context.Context, b *bench, q question) ([]series, error) {
	first := make([]string, b.queries) // what the store has answered
	run := func(ask func(context.Context, table, int) (answer, error)) func(context.Context) (sample, error) {
		return func(ctx context.Context) (sample, error) {
			s := sample{ops: b.queries}
			for j := range b.queries {
				a, err := ask(ctx, *t, j)
				if err != nil {
					return s, err
				}
				s.elapsed += a.took
				ids := make([]string, len(a.members))
				for i, m := range a.members {
					ids[i] = fmt.Sprint(m.TenantID, " ", m.ID, " ", m.Version, " ", m.Status)
				}
				if !q.ordered {
					slices.Sort(ids)
				}
				got := fmt.Sprint(len(ids), " members ", strings.Join(ids, ", "))
				if first[j] == "" {
					first[j] = got
				}
				if got != first[j] {
					return s, incomparable("the answers are different ones")
				}
			}
			return s, nil
		}
	}
	return interleave(ctx, b.rounds, variant{"the store", run(q.ours)}, variant{"plain SQL", run(q.raw)})
}

// planModes are the settings of plan_cache_mode.
var planModes = []string{"force_generic_plan", "force_custom_plan"}

// plan is what EXPLAIN says in JSON.
type plan struct {
	NodeType string `json:"Node Type"`
	Index    string `json:"Index Name"`
	Relation string `json:"Relation Name"`
	Hit      int    `json:"Shared Hit Blocks"`
	Read     int    `json:"Shared Read Blocks"`
	Plans    []plan `json:"Plans"`
}

// nodes returns all nodes, from the outermost on.
func (p plan) nodes() []string {
	name := p.NodeType
	switch {
	case p.Index != "":
		name += " " + strings.TrimPrefix(p.Index, "clerkinvite_")
	case p.Relation != "":
		name += " " + strings.TrimPrefix(p.Relation, "clerkinvite_")
	}
	all := []string{name}
	for _, child := range p.Plans {
		all = append(all, child.nodes()...)
	}
	return all
}

// explain runs the statement, in vain, and returns the nodes of its plan and how many blocks it touched.
func (st statement) explain(ctx context.Context, pool *pgxpool.Pool, mode string) (nodes string, blocks int, err error) {
	types, args := make([]string, len(st.args)), make([]string, len(st.args))
	for i, arg := range st.args {
		types[i], args[i] = "text", "'"+strings.ReplaceAll(arg, "'", "''")+"'"
	}
	err = pool.AcquireFunc(ctx, func(conn *pgxpool.Conn) error {
		text := ""
		// Past pgx, which would want a value for $1.
		for _, sql := range []string{
			"BEGIN", "SET LOCAL plan_cache_mode = " + mode, "PREPARE explained (" + strings.Join(types, ", ") + ") AS " + st.sql,
			"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE explained (" + strings.Join(args, ", ") + ")", "DEALLOCATE explained", "ROLLBACK",
		} {
			results, err := conn.Conn().PgConn().Exec(ctx, sql).ReadAll()
			if err != nil {
				return err // the connection is not used again: the pool closes one that is inside of a transaction
			}
			if strings.HasPrefix(sql, "EXPLAIN") {
				text = string(results[0].Rows[0][0])
			}
		}
		var explained []struct {
			Plan plan `json:"Plan"`
		}
		if err := json.Unmarshal([]byte(text), &explained); err != nil {
			return err
		}
		nodes, blocks = strings.Join(explained[0].Plan.nodes(), ", "), explained[0].Plan.Hit+explained[0].Plan.Read
		return nil
	})
	return nodes, blocks, err
}
