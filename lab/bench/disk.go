package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/clerkinvite/clerkinvite"
)

// perTenant is how many members a tenant has here.
const perTenant = 100

// partDisk measures what a member costs on the disk, what each index costs in time, and what many moves leave behind.
func partDisk(ctx context.Context, b *bench, r *report) error {
	r.diskPart("6. Disk",
		fmt.Sprintf("Members: %d, %d a tenant, on tables of their own. Ids of Clerk's have their real length, 31 and 32 bytes; an address has 25, a tenant id 13 unless it "+
			"says otherwise, and there is no data of the host's. Sizes are those of pg_relation_size, divided by the members.", b.disk, perTenant),
		"Rebuilt is after VACUUM FULL: the least that the same rows take.",
		"Variants must leave the same rows, ids and times aside, or get no figure.")
	if err := diskCost(ctx, b, r); err != nil {
		return err
	}
	if err := diskBloat(ctx, b, r); err != nil {
		return err
	}
	return diskChanges(ctx, b, r)
}

// diskPart begins a part whose tables are its own.
func (r *report) diskPart(title string, notes ...string) {
	fmt.Fprintf(r.out, "\n## %s\n\n", title)
	for _, note := range notes {
		fmt.Fprintf(r.out, "- %s\n", note)
	}
}

// diskColumns begins a table.
func (r *report) diskColumns(title string, columns ...string) {
	fmt.Fprintf(r.out, "\n%s\n\n", title)
	r.row(columns...)
	fmt.Fprintln(r.out, "|"+strings.Repeat("-|", len(columns)))
}

// diskTable is the tables, and one connection to them.
type diskTable struct {
	pool  *pgxpool.Pool
	store *clerkinvite.PgxStore
	close func() error
}

// diskTable makes a database for the tables, which come with fresh.
func (b *bench) diskTable(ctx context.Context) (*diskTable, error) {
	db, err := b.server.database(ctx)
	if err != nil {
		return nil, err
	}
	pool, err := db.pool(ctx, 1, nil)
	if err != nil {
		return nil, errors.Join(err, db.close())
	}
	return &diskTable{pool, clerkinvite.NewPgxStore(pool, nil), db.close}, nil
}

// fresh makes the tables anew, which is quicker than another database. (On PostgreSQL 14 not everybody may drop the schema.)
func (t *diskTable) fresh(ctx context.Context) error {
	if err := t.exec(ctx, `
DO $$
DECLARE name text;
BEGIN
	FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = current_schema() LOOP
		EXECUTE format('DROP TABLE IF EXISTS %I CASCADE', name);
	END LOOP;
END $$`); err != nil {
		return err
	}
	t.pool.Reset() // what the connection has prepared is for the tables before
	return t.store.Migrate(ctx)
}

// exec runs statements without parameters, one after the other.
func (t *diskTable) exec(ctx context.Context, statements ...string) error {
	for _, sql := range statements {
		if _, err := t.pool.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// sizes is the bytes of each table and index. Names are without "clerkinvite_".
type sizes map[string]int64

func (t *diskTable) sizes(ctx context.Context) (sizes, error) {
	rows, err := t.pool.Query(ctx, `
SELECT replace(c.relname, 'clerkinvite_', ''), pg_relation_size(c.oid)
FROM pg_class t LEFT JOIN pg_index i ON i.indrelid = t.oid JOIN pg_class c ON c.oid IN (t.oid, i.indexrelid)
WHERE t.oid IN ('clerkinvite_member'::regclass, 'clerkinvite_history'::regclass)
GROUP BY c.oid, c.relname`)
	if err != nil {
		return nil, err
	}
	s := make(sizes)
	name, size := "", int64(0)
	_, err = pgx.ForEachRow(rows, []any{&name, &size}, func() error {
		s[name] = size
		return nil
	})
	return s, err
}

// names returns the tables and indexes: those of the members and then those of the history, the table first.
func (s sizes) names() []string {
	return slices.SortedFunc(maps.Keys(s), func(a, b string) int {
		rank := func(name string) string {
			table, rest, _ := strings.Cut(name, "_")
			return map[string]string{"member": "1", "history": "2"}[table] + rest
		}
		return strings.Compare(rank(a), rank(b))
	})
}

// of sums up what begins so.
func (s sizes) of(prefix string) (sum int64) {
	for name, size := range s {
		if strings.HasPrefix(name, prefix) {
			sum += size
		}
	}
	return sum
}

// each writes bytes a member.
func each(size int64, members int) string { return fmt.Sprintf("%.0f", float64(size)/float64(members)) }

// kind says what a name of sizes is.
func kind(name string) string {
	if strings.Contains(name, "_") {
		return name
	}
	return name + ", the rows"
}

// diskID is the id of the i-th member.
const diskID = `('01900000-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid`

// diskFill writes members $1 to $2 of $5 tenants as fillMembers does, with ids and addresses as long as real ones are.
// Addresses have no order. $4 begins the tenant's id, and $3 is the version of those who are settled.
const diskFill = `
INSERT INTO clerkinvite_member (tenant_id, id, email, status, clerk_user_id, invitation_id, send, sent, role, params, version, attempts,
	next_attempt_at, reason, reserved_at, invited_at, expires_at, settled_at, updated_at)
SELECT $4::text || lpad((i % $5::integer)::text, 6, '0'), ` + diskID + `,
	lpad(to_hex((i::bigint * 2654435761) & 4294967295), 8, '0') || '.name@example.com', status,
	CASE status WHEN 'pending' THEN 'pending_' || inv WHEN 'active' THEN 'user_2' || lpad(i::text, 26, '0') END,
	CASE WHEN status NOT IN ('reserved', 'failed') THEN inv END,
	1, CASE status WHEN 'reserved' THEN 0 ELSE 1 END, 'editor', '{"expires_in_days":30}',
	CASE status WHEN 'reserved' THEN 1 ELSE $3::bigint END, CASE status WHEN 'reserved' THEN 0 ELSE 1 END,
	CASE status WHEN 'reserved' THEN at END, CASE WHEN status IN ('failed', 'removed') THEN 'a_reason' END,
	at, CASE WHEN status NOT IN ('reserved', 'failed') THEN at END, CASE WHEN status NOT IN ('reserved', 'failed') THEN at + interval '30 days' END,
	CASE WHEN status <> 'reserved' THEN at END, at
FROM generate_series($1::integer, $2::integer) i,
	LATERAL (SELECT (hashint8(i) & 2147483647) % 100 AS h, timestamptz '2026-01-01 00:00:00Z' + i * interval '1 millisecond' AS at,
		'inv_2' || lpad(i::text, 26, '0') AS inv) v,
	LATERAL (SELECT CASE WHEN h = 0 THEN 'reserved' WHEN h < 20 THEN 'pending' WHEN h < 94 THEN 'active' WHEN h < 95 THEN 'failed'
		WHEN h < 96 THEN 'revoked' WHEN h < 97 THEN 'expired' ELSE 'removed' END AS status) s`

// diskHistory writes what the states of these members imply: the reservation ($3 is 1), the invitation or the failure
// ($3 is 3, for the claim has no record), and what came then.
const diskHistory = `
INSERT INTO clerkinvite_history (tenant_id, member_id, version, from_status, to_status, send, sent, clerk_user_id, invitation_id, reason, at)
SELECT tenant_id, id, $3::bigint, from_status, to_status, 1, least($3::bigint - 1, 1), CASE WHEN to_status = status THEN clerk_user_id
		WHEN to_status = 'pending' THEN 'pending_' || invitation_id WHEN to_status = 'active' THEN 'user_' || substr(invitation_id, 5) END,
	CASE WHEN to_status <> 'reserved' THEN invitation_id END, CASE WHEN to_status = status THEN reason END, updated_at
FROM generate_series($1::integer, $2::integer) i JOIN clerkinvite_member m ON m.tenant_id = $4::text || lpad((i % $5::integer)::text, 6, '0') AND m.id = ` + diskID + `,
	LATERAL (SELECT CASE $3::bigint WHEN 1 THEN 'reserved' WHEN 3 THEN CASE WHEN status = 'failed' THEN 'failed' ELSE 'pending' END
			WHEN 4 THEN CASE WHEN status = 'removed' THEN 'active' ELSE status END ELSE 'removed' END AS to_status,
		CASE $3::bigint WHEN 1 THEN NULL WHEN 3 THEN 'reserved' WHEN 4 THEN 'pending' ELSE 'active' END AS from_status) s
WHERE CASE $3::bigint WHEN 1 THEN true WHEN 3 THEN status <> 'reserved' WHEN 4 THEN status IN ('active', 'revoked', 'expired', 'removed')
	ELSE status = 'removed' END
ORDER BY i`

// fill writes members of all states with their history, a thousand at a time, and moves of theirs when later ones have been written.
func (t *diskTable) fill(ctx context.Context, members int, tenant string) error {
	for from := 0; from < members+2*reserveChunk; from += reserveChunk {
		for _, step := range []struct {
			sql          string
			lag, version int
		}{{diskFill, 0, 4}, {diskHistory, 0, 1}, {diskHistory, 0, 3}, {diskHistory, 1, 4}, {diskHistory, 2, 5}} {
			first := from - step.lag*reserveChunk
			last := min(first+reserveChunk, members) - 1
			if first < 0 || last < first {
				continue
			}
			if _, err := t.pool.Exec(ctx, step.sql, first, last, step.version, tenant, max(members/perTenant, 1)); err != nil {
				return err
			}
		}
	}
	return nil
}

// diskCost reports what a member costs in a table that is in use.
func diskCost(ctx context.Context, b *bench, r *report) (err error) {
	var loaded, rebuilt [2]sizes
	var history string
	var shares []share
	t, err := b.diskTable(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	for i, tenant := range []string{"tenant-", "00000000-0000-4000-8000-000000"} {
		if err := errors.Join(t.fresh(ctx), t.fill(ctx, b.disk, tenant)); err != nil {
			return err
		}
		if loaded[i], err = t.sizes(ctx); err != nil {
			return err
		}
		if i == 0 {
			if err := t.pool.QueryRow(ctx, `SELECT round(count(*)::numeric / $1, 2)::text FROM clerkinvite_history`, b.disk).Scan(&history); err != nil {
				return err
			}
			if shares, err = t.shares(ctx, b, tenant); err != nil {
				return r.failed("what an index costs", err)
			}
		}
		if err := t.exec(ctx, "VACUUM FULL clerkinvite_member", "VACUUM FULL clerkinvite_history"); err != nil {
			return err
		}
		if rebuilt[i], err = t.sizes(ctx); err != nil {
			return err
		}
	}
	r.diskColumns(fmt.Sprintf("A member that was written in its last state and never moved (of a hundred 1 reserved, 19 pending, 74 active, 6 ended; %s records of history each), in bytes:", history),
		"", "as loaded", "rebuilt", "tenant id of 36 bytes, as loaded", "rebuilt")
	for _, name := range loaded[0].names() {
		r.row(kind(name), each(loaded[0][name], b.disk), each(rebuilt[0][name], b.disk), each(loaded[1][name], b.disk), each(rebuilt[1][name], b.disk))
	}
	for _, total := range []struct{ name, prefix string }{{"**members**", "member"}, {"**history**", "history"}, {"**both**", ""}} {
		r.figures++
		r.row(total.name, each(loaded[0].of(total.prefix), b.disk), each(rebuilt[0].of(total.prefix), b.disk),
			each(loaded[1].of(total.prefix), b.disk), each(rebuilt[1].of(total.prefix), b.disk))
	}
	r.diskColumns(fmt.Sprintf("What some of it takes of the time of a bulk write in plain SQL, without the commit, of %d rows at once; median (lowest to highest) of what is saved without it:", b.diskRows()),
		"", "of an insert", "of a claim and settling")
	for _, s := range shares {
		r.figures++
		text := func(s spread) string { return fmt.Sprintf("%.0f %% (%.0f to %.0f)", s.median, s.low, s.high) }
		r.row(s.name, text(s.insert), text(s.update))
	}
	return nil
}

// diskRows is how many rows are written in one timed run.
func (b *bench) diskRows() int { return max(b.disk/100, 10) }

// share is what part of a statement's time something has.
type share struct {
	name           string
	insert, update spread
}

// shares measures what is saved without some of it. (A single index is worth less than what else a machine does meanwhile.)
func (t *diskTable) shares(ctx context.Context, b *bench, tenant string) (shares []share, err error) {
	// Nothing shall run in the background, and what the runs leave behind is to be cleaned between the comparisons.
	if err := t.exec(ctx, "ALTER TABLE clerkinvite_member SET (autovacuum_enabled = off)", "ALTER TABLE clerkinvite_history SET (autovacuum_enabled = off)"); err != nil {
		return nil, err
	}
	var indexes []string
	for _, name := range []string{"user_key", "waiting_idx", "active_idx", "id_idx", "status_idx", "due_idx", "expiring_idx"} {
		indexes = append(indexes, "clerkinvite_member_"+name)
	}
	for _, without := range []struct {
		name, drop string
		recorded   bool
	}{
		{"the history", "", false},
		{"the history's foreign key", "ALTER TABLE clerkinvite_history DROP CONSTRAINT clerkinvite_history_member_fkey", true},
		{"the indexes of the members, but for pkey and email_key", "DROP INDEX " + strings.Join(indexes, ", "), true},
	} {
		if err := t.exec(ctx, "VACUUM (ANALYZE) clerkinvite_member, clerkinvite_history", "CHECKPOINT"); err != nil {
			return nil, err
		}
		want := ""
		run := func(drop string, recorded bool) func(context.Context) (sample, error) {
			return func(ctx context.Context) (sample, error) {
				s, got, err := t.insertAndSettle(ctx, b.diskRows(), max(b.disk/perTenant, 1), tenant, drop, recorded)
				if want == "" {
					want = got
				}
				if err == nil && got != want {
					err = incomparable("it has left %s instead of %s", got, want)
				}
				return s, err
			}
		}
		both, err := interleave(ctx, 3*b.rounds, variant{"without " + without.name, run(without.drop, without.recorded)}, variant{"with all", run("", true)})
		if err != nil {
			return nil, err
		}
		saved := func(of int) spread {
			times := ratio(both[0], both[1], func(s sample) float64 { return s.latencies[of].Seconds() })
			return spread{100 * (1 - times.median), 100 * (1 - times.high), 100 * (1 - times.low)}
		}
		shares = append(shares, share{without.name, saved(0), saved(1)})
	}
	return shares, nil
}

// inVain runs f in a transaction that is rolled back.
func (t *diskTable) inVain(ctx context.Context, f func(tx pgx.Tx) error) error {
	tx, err := t.pool.Begin(ctx)
	if err != nil {
		return err
	}
	return errors.Join(f(tx), tx.Rollback(ctx))
}

// insertAndSettle writes rows in a transaction that is rolled back, without what it drops first. The latencies are that of
// the insert, and that of claiming and settling.
func (t *diskTable) insertAndSettle(ctx context.Context, n, tenants int, tenant, drop string, recorded bool) (s sample, digest string, err error) {
	record := ""
	if recorded {
		record = `
, history AS (
	INSERT INTO clerkinvite_history (tenant_id, member_id, version, from_status, to_status, send, sent, clerk_user_id, invitation_id, at)
	SELECT tenant_id, id, version, CASE WHEN version > 1 THEN 'reserved' END, status, send, sent, clerk_user_id, invitation_id, updated_at FROM written
)`
	}
	at := time.Now().UTC().Truncate(time.Microsecond)
	err = t.inVain(ctx, func(tx pgx.Tx) error {
		if drop != "" {
			if _, err := tx.Exec(ctx, drop); err != nil {
				return err
			}
		}
		took := make([]time.Duration, 2)
		var places []string // of the rows, so that no index is needed to find them
		step := func(of int, sql string, args ...any) error {
			began := time.Now()
			err := tx.QueryRow(ctx, sql, args...).Scan(&places, &digest)
			took[of] += time.Since(began)
			return err
		}
		const end = `
SELECT array_agg(place::text), count(*) || ' rows ' || coalesce(md5(string_agg(concat_ws('|', tenant_id, id, email, status, clerk_user_id, version), ' ' ORDER BY id)), '')
FROM written`
		if err := step(0, `
WITH written AS (
	INSERT INTO clerkinvite_member
		(tenant_id, id, email, status, role, send, sent, params, version, attempts, next_attempt_at, reserved_at, updated_at)
	SELECT $3::text || lpad((i * 7919 % $2::integer)::text, 6, '0'), ('01900000-0000-7000-9000-' || lpad(to_hex(i), 12, '0'))::uuid,
		lpad(to_hex((i::bigint * 2654435761) & 4294967295), 8, '0') || '.new@example.com', 'reserved', 'editor', 1, 0, '{"expires_in_days":30}', 1, 0, $4, $4, $4
	FROM generate_series(1, $1::integer) i
	ON CONFLICT DO NOTHING
	RETURNING *, ctid AS place
)`+record+end, n, tenants, tenant, at); err != nil {
			return err
		}
		if err := step(1, `
WITH written AS (
	UPDATE clerkinvite_member
	SET version = version + 1, attempts = 1, claimed_until = $2::timestamptz, next_attempt_at = $2::timestamptz + send * interval '1 minute', updated_at = $2
	WHERE ctid = ANY ($1::text[]::tid[])
	RETURNING *, ctid AS place
)`+end, places, at.Add(time.Minute)); err != nil {
			return err
		}
		err := step(1, `
WITH written AS (
	UPDATE clerkinvite_member
	SET version = version + 1, status = 'pending', sent = send, claimed_until = NULL, next_attempt_at = NULL,
		invitation_id = 'inv_3' || lpad(substr(email, 1, 8), 26, '0'), clerk_user_id = 'pending_inv_3' || lpad(substr(email, 1, 8), 26, '0'),
		invited_at = $2::timestamptz, expires_at = $2::timestamptz + interval '30 days', settled_at = $2, updated_at = $2
	WHERE ctid = ANY ($1::text[]::tid[])
	RETURNING *, ctid AS place
)`+record+end, places, at)
		s = sample{ops: n, elapsed: took[0] + took[1], latencies: took}
		return err
	})
	return s, digest, err
}

// million is the members that move, about a million times, and what was done to them.
type million struct {
	table   *diskTable
	svc     *clerkinvite.Service
	members []*clerkinvite.Member
	random  *rand.Rand
	upkeep  upkeep

	updates, vacuums int
	dead             int // versions since the last VACUUM
}

// upkeep is what is done to the table before and while the members move.
type upkeep struct {
	name   string
	setup  []string // SQL
	after  float64  // VACUUM, as soon as so large a part of the members is dead; 0 never
	repair bool     // VACUUM once, after the members have moved again
}

const noAutovacuum = "ALTER TABLE clerkinvite_member SET (autovacuum_enabled = off)"

// upkeeps are compared. The pace of this program is thousands of times what Clerk allows (350 invitations an hour), and
// autovacuum looks once a minute. In use it has all the time that it needs, so that it does what VACUUM does here, at the
// same number of dead rows: 50 and a fifth of the table, unless it is told otherwise.
var upkeeps = []upkeep{
	{name: "no VACUUM", setup: []string{noAutovacuum}, repair: true},
	{name: "autovacuum as it comes, at this pace"},
	{name: "VACUUM at 20 % dead", setup: []string{noAutovacuum}, after: 0.2},
	{name: "VACUUM at 5 % dead", setup: []string{noAutovacuum}, after: 0.05},
}

// stage is what was measured after some of the moves.
type stage struct {
	name                                  string
	sizes                                 sizes
	updates, hot, dead, vacuums, autovacs int64
	digest                                string
}

// hotShare says how many of the updates were heap-only.
func (s stage) hotShare() string {
	return fmt.Sprintf("%.1f %%", 100*float64(s.hot)/float64(max(s.updates, 1)))
}

// update makes changes in batches, and vacuums when it is time.
func (m *million) update(ctx context.Context, at []int, next func(i int, row clerkinvite.Member) *clerkinvite.Member) error {
	for chunk := range slices.Chunk(at, reserveChunk) {
		changes := make([]clerkinvite.Change, len(chunk))
		for k, i := range chunk {
			changes[k] = clerkinvite.Change{Old: m.members[i], New: next(i, *m.members[i])}
			changes[k].New.UpdatedAt = time.Now().UTC().Truncate(time.Microsecond)
		}
		results, err := m.table.store.Update(ctx, changes)
		if err != nil {
			return err
		}
		for k, i := range chunk {
			if results[k].Err != nil {
				return results[k].Err
			}
			m.members[i] = results[k].Member
		}
		m.updates += len(chunk)
		m.dead += len(chunk)
		if m.upkeep.after > 0 && float64(m.dead) > 50+m.upkeep.after*float64(len(m.members)) {
			if err := m.table.exec(ctx, "VACUUM clerkinvite_member"); err != nil {
				return err
			}
			m.dead, m.vacuums = 0, m.vacuums+1
		}
	}
	return nil
}

// The moves are written as the library writes them.

func claimedRow(_ int, row clerkinvite.Member) *clerkinvite.Member {
	until := time.Now().UTC().Truncate(time.Microsecond).Add(time.Minute + rand.N(4*time.Second).Truncate(time.Microsecond))
	row.Attempts++
	row.ClaimedUntil, row.NextAttemptAt = &until, &until
	return &row
}

func settledRow(row clerkinvite.Member, to clerkinvite.Status) *clerkinvite.Member {
	now := time.Now().UTC().Truncate(time.Microsecond)
	row.Status, row.Sent, row.SettledAt = to, row.Send, &now
	row.ClaimedUntil, row.NextAttemptAt, row.ClerkUserID, row.Reason = nil, nil, "", ""
	return &row
}

func invitedRow(i int, row clerkinvite.Member) *clerkinvite.Member {
	m := settledRow(row, clerkinvite.StatusPending)
	m.InvitationID = fmt.Sprintf("inv_2%02d%024d", m.Send, i)
	m.ClerkUserID = clerkinvite.PendingID(m.InvitationID)
	expires := m.SettledAt.AddDate(0, 0, 30)
	m.InvitedAt, m.ExpiresAt = m.SettledAt, &expires
	return m
}

func joinedRow(i int, row clerkinvite.Member) *clerkinvite.Member {
	m := settledRow(row, clerkinvite.StatusActive)
	m.ClerkUserID = fmt.Sprintf("user_2%026d", i)
	return m
}

func removedRow(_ int, row clerkinvite.Member) *clerkinvite.Member {
	return settledRow(row, clerkinvite.StatusRemoved)
}

func reservedAgain(_ int, row clerkinvite.Member) *clerkinvite.Member {
	now := time.Now().UTC().Truncate(time.Microsecond)
	row.Status, row.Send, row.Attempts = clerkinvite.StatusReserved, row.Send+1, 0
	row.InvitationID, row.InvitedAt, row.ExpiresAt, row.SettledAt = "", nil, nil, nil
	row.ReservedAt, row.NextAttemptAt = now, &now
	return &row
}

// cohort is how many members are on their way at once.
func cohort(n int) int { return max(n/25, 200) }

// shuffled returns the members of these who join sooner or later: four of five, in any order.
func (m *million) shuffled(from, to int) (at []int) {
	for i := from; i < to; i++ {
		if i%5 != 0 {
			at = append(at, i)
		}
	}
	m.random.Shuffle(len(at), func(i, j int) { at[i], at[j] = at[j], at[i] })
	return at
}

// invite brings n new members in, of whom four of five join, those of a cohort in any order while the next one is invited.
func (m *million) invite(ctx context.Context, n int) error {
	var invited []int
	for from := 0; from < n; from += cohort(n) {
		to := min(from+cohort(n), n)
		var at []int
		for first := from; first < to; first += reserveChunk {
			var ps []clerkinvite.InviteParams
			for i := first; i < min(first+reserveChunk, to); i++ {
				ps = append(ps, clerkinvite.InviteParams{
					TenantID: fmt.Sprintf("tenant-%06d", i%max(n/perTenant, 1)), Email: fmt.Sprintf("%08x.name@example.com", uint32(i)*2654435761), Role: role,
				})
				at = append(at, i)
			}
			results, err := m.svc.ReserveMany(ctx, ps)
			for _, result := range results {
				err = errors.Join(err, result.Err)
				m.members = append(m.members, result.Member)
			}
			if err != nil {
				return err
			}
		}
		if err := errors.Join(m.update(ctx, at, claimedRow), m.update(ctx, at, invitedRow), m.update(ctx, invited, joinedRow)); err != nil {
			return err
		}
		invited = m.shuffled(from, to)
	}
	return m.update(ctx, invited, joinedRow)
}

// again removes those who are active, all over the table, invites them again, and they join: five changes for each.
func (m *million) again(ctx context.Context) error {
	for at := range slices.Chunk(m.shuffled(0, len(m.members)), cohort(len(m.members))) {
		for _, next := range []func(int, clerkinvite.Member) *clerkinvite.Member{removedRow, reservedAgain, claimedRow, invitedRow, joinedRow} {
			if err := m.update(ctx, at, next); err != nil {
				return err
			}
		}
	}
	return nil
}

// stage measures.
func (m *million) stage(ctx context.Context, name string) (s stage, err error) {
	s.name, s.vacuums = name, int64(m.vacuums)
	pool := m.table.pool
	if s.sizes, err = m.table.sizes(ctx); err != nil {
		return s, err
	}
	// Sessions tell their counts now and then, since PostgreSQL 15 when asked, and when they end.
	var canFlush bool
	if err := pool.QueryRow(ctx, "SELECT to_regproc('pg_stat_force_next_flush') IS NOT NULL").Scan(&canFlush); err != nil {
		return s, err
	}
	for range 100 {
		if canFlush {
			err = m.table.exec(ctx, "SELECT pg_stat_force_next_flush()")
		} else {
			pool.Reset()
		}
		if err == nil {
			err = pool.QueryRow(ctx, `SELECT n_tup_upd, n_tup_hot_upd, n_dead_tup, autovacuum_count FROM pg_stat_user_tables WHERE relid = 'clerkinvite_member'::regclass`).
				Scan(&s.updates, &s.hot, &s.dead, &s.autovacs)
		}
		if err != nil || s.updates >= int64(m.updates) {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		return s, err
	}
	err = pool.QueryRow(ctx, `
SELECT count(*) || ' rows ' || md5(string_agg(concat_ws('|', tenant_id, email, status, clerk_user_id, invitation_id, send, sent, version, attempts), ' ' ORDER BY tenant_id, email))
	|| (SELECT string_agg(concat_ws(' ', '', n, to_status), '') FROM (SELECT to_status, count(*) AS n FROM clerkinvite_history GROUP BY 1 ORDER BY 1) h)
FROM clerkinvite_member`).Scan(&s.digest)
	return s, err
}

// churn lets n members move, and measures after each step. With rounds below 2 they move again once only.
func (t *diskTable) churn(ctx context.Context, n, rounds int, u upkeep) (stages []stage, err error) {
	if err := t.fresh(ctx); err != nil {
		return nil, err
	}
	svc, err := clerkinvite.New(clerkinvite.Config{Store: t.store, API: stubAPI()})
	if err != nil {
		return nil, err
	}
	if err := t.exec(ctx, u.setup...); err != nil {
		return nil, err
	}
	m := &million{table: t, svc: svc, upkeep: u, random: rand.New(rand.NewPCG(1, 2))}
	vacuum := func() error { return t.exec(ctx, "VACUUM clerkinvite_member") }
	again := func() error { return m.again(ctx) }
	steps := []struct {
		name string
		work func() error
		skip bool
	}{
		{"invited", func() error { return m.invite(ctx, n) }, false},
		{"moved again", again, false},
		{"then VACUUM", vacuum, !u.repair},
		{"moved once more", again, rounds < 2},
		{"rebuilt", func() error { return t.exec(ctx, "VACUUM FULL clerkinvite_member") }, false},
	}
	for _, step := range steps {
		if step.skip {
			continue
		}
		if err := step.work(); err != nil {
			return nil, err
		}
		s, err := m.stage(ctx, step.name)
		if err != nil {
			return nil, err
		}
		stages = append(stages, s)
	}
	return stages, nil
}

// churns lets members move under each of the upkeeps, two at a time, as no time is measured.
func (b *bench) churns(ctx context.Context, n, rounds int, upkeeps []upkeep) ([][]stage, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	all := make([][]stage, len(upkeeps))
	var next atomic.Int64
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			t, err := b.diskTable(ctx)
			if err != nil {
				cancel(err)
				return
			}
			for i := int(next.Add(1)) - 1; i < len(upkeeps) && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if all[i], err = t.churn(ctx, n, rounds, upkeeps[i]); err != nil {
					cancel(fmt.Errorf("%s: %w", upkeeps[i].name, err))
				}
			}
			if err := t.close(); err != nil {
				cancel(err)
			}
		})
	}
	group.Wait()
	return all, context.Cause(ctx)
}

// sameRows checks that the members have come to the same state as the first ones.
func sameRows(all [][]stage, i int) error {
	got, want := all[i][len(all[i])-1].digest, all[0][len(all[0])-1].digest
	if got != want {
		return incomparable("it has left %s instead of %s", got, want)
	}
	return nil
}

// diskBloat reports what many moves leave behind.
func diskBloat(ctx context.Context, b *bench, r *report) error {
	n := max(b.disk/2, 50)
	all, err := b.churns(ctx, n, 2, upkeeps)
	if err != nil {
		return err
	}
	last := all[0][len(all[0])-1]
	names := slices.DeleteFunc(last.sizes.names(), func(name string) bool { return !strings.HasPrefix(name, "member") })
	columns := []string{"upkeep, after"}
	for _, name := range names {
		columns = append(columns, strings.TrimPrefix(kind(name), "member_"))
	}
	r.diskColumns(fmt.Sprintf("Moves of %d members: reserved, claimed, settled to pending by the library's store in batches of %d, and four of five join, in any order. Moved again: "+
		"all who are active, all over the table, are removed, reserved again, claimed, settled and join, five updates each. In all %d updates of each table. Bytes a member:",
		n, reserveChunk, last.updates), append(columns, "all", "× rebuilt")...)
	line := func(name string, s stage) {
		cells := []string{name}
		for _, relation := range names {
			cells = append(cells, each(s.sizes[relation], n))
		}
		sum := s.sizes.of("member")
		r.row(append(cells, each(sum, n), fmt.Sprintf("%.2f", float64(sum)/float64(last.sizes.of("member"))))...)
	}
	for i, stages := range all {
		if err := sameRows(all, i); err != nil {
			if err := r.failed(upkeeps[i].name, err); err != nil {
				return err
			}
			continue
		}
		for _, s := range stages[:len(stages)-1] {
			r.figures++
			line(upkeeps[i].name+", "+s.name, s)
		}
	}
	line("rebuilt by VACUUM FULL", last)
	r.diskColumns("The same, as PostgreSQL counts it:", "upkeep, after", "updates", "heap-only (HOT)", "dead", "VACUUM", "autovacuum")
	for i, stages := range all {
		for _, s := range stages[:len(stages)-1] {
			r.row(upkeeps[i].name+", "+s.name, fmt.Sprint(s.updates), s.hotShare(), fmt.Sprint(s.dead), fmt.Sprint(s.vacuums), fmt.Sprint(s.autovacs))
		}
	}
	return nil
}

// changes are what could be done to the tables.
var changes = func() []upkeep {
	const fill, drop = "ALTER TABLE clerkinvite_member SET (fillfactor = %d)", "DROP INDEX clerkinvite_member_"
	change := func(name string, setup ...string) upkeep {
		return upkeep{name: name, setup: append(setup, noAutovacuum), after: 0.2}
	}
	// What no part of changes when a member moves.
	var moving []string
	for _, name := range []string{"user_key", "waiting_idx", "active_idx", "status_idx", "due_idx", "expiring_idx"} {
		moving = append(moving, drop+name)
	}
	return []upkeep{
		change("as it is"),
		change("fillfactor 80", fmt.Sprintf(fill, 80)),
		change("without status_idx", drop+"status_idx"),
		change("without due_idx, fillfactor 80", drop+"due_idx", fmt.Sprintf(fill, 80)),
		change("with pkey, email_key and id_idx only, fillfactor 80", append([]string{fmt.Sprintf(fill, 80)}, moving...)...),
	}
}()

// diskChanges reports what changes of the tables would do to HOT updates and sizes.
func diskChanges(ctx context.Context, b *bench, r *report) error {
	n := max(b.disk/20, 50)
	all, err := b.churns(ctx, n, 1, changes)
	if err != nil {
		return err
	}
	r.diskColumns(fmt.Sprintf("What would make updates heap-only, and what that would save: %d members, VACUUM at 20 %% dead. × is against the table as it is, with its indexes; "+
		"the last three are no proposals, but bounds: the library's queries need what they drop.", n),
		"change", "HOT, invited", "HOT, moved again too", "rows, bytes a member", "indexes", "all", "× as it is, invited", "× as it is, moved again")
	for i, stages := range all {
		if err := sameRows(all, i); err != nil {
			if err := r.failed(changes[i].name, err); err != nil {
				return err
			}
			continue
		}
		r.figures++
		times := func(k int) string {
			return fmt.Sprintf("%.2f", float64(stages[k].sizes.of("member"))/float64(all[0][k].sizes.of("member")))
		}
		sum := stages[1].sizes.of("member")
		r.row(changes[i].name, stages[0].hotShare(), stages[1].hotShare(), each(stages[1].sizes["member"], n), each(sum-stages[1].sizes["member"], n), each(sum, n),
			times(0), times(1))
	}
	return nil
}
