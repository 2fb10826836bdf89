package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/clerkinvite/clerkinvite"
)

// reserveChunk is how many rows the library writes with one statement.
const reserveChunk = 1000

// partReserve compares ReserveMany with the two ways in which PostgreSQL takes many rows.
func partReserve(ctx context.Context, b *bench, r *report) (err error) {
	db, err := b.server.database(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.close()) }()
	pool, err := db.pool(ctx, 1, nil)
	if err != nil {
		return err
	}
	store := clerkinvite.NewPgxStore(pool, nil)
	if err := store.Migrate(ctx); err != nil {
		return err
	}
	svc, err := clerkinvite.New(clerkinvite.Config{Store: store, API: stubAPI()})
	if err != nil {
		return err
	}
	// What goes to Clerk is in the row; the raw ways write the same.
	reserved, err := svc.Reserve(ctx, clerkinvite.InviteParams{TenantID: tenant, Email: person(0), Role: role})
	if err != nil {
		return err
	}
	raw := &rawReserve{pool, string(reserved.Params)}
	n := b.reserve
	name := fmt.Sprintf("ReserveMany of %d", n)

	r.part("2. ReserveMany: many people",
		"All write the same rows into the same tables with the same indexes and checks, each with its record in the history, on one connection; ids "+
			"are made in the measured time. A run begins with empty tables and counts only if what it left is, id and times aside, the same.",
		fmt.Sprintf("unnest: one statement of arrays for %d rows and their history, as many statements as the library makes. COPY: one for the members "+
			"and one for the history, in one transaction; it knows no duplicate and fails as a whole.", reserveChunk))
	want := ""
	run := func(reserve func(ctx context.Context, n int) error) func(context.Context) (sample, error) {
		return func(ctx context.Context) (sample, error) {
			if _, err := pool.Exec(ctx, "TRUNCATE clerkinvite_history, clerkinvite_member"); err != nil {
				return sample{}, err
			}
			began := time.Now()
			if err := reserve(ctx, n); err != nil {
				return sample{}, err
			}
			s := sample{ops: n, elapsed: time.Since(began)}
			got, err := reservedDigest(ctx, pool)
			if want == "" {
				want = got
			}
			if err == nil && got != want {
				err = incomparable("it has left %s, and ReserveMany %s", got, want)
			}
			return s, err
		}
	}
	all, err := interleave(ctx, b.rounds,
		variant{"ReserveMany", run(func(ctx context.Context, n int) error {
			ps := make([]clerkinvite.InviteParams, n)
			for i := range ps {
				ps[i] = clerkinvite.InviteParams{TenantID: tenant, Email: person(i), Role: role}
			}
			results, err := svc.ReserveMany(ctx, ps)
			for _, result := range results {
				err = errors.Join(err, result.Err)
			}
			return err
		})},
		variant{"unnest", run(raw.unnest)},
		variant{"COPY", run(raw.copy)})
	if err != nil {
		return r.failed(name, err)
	}
	figure := func(s series) string {
		return fmt.Sprintf("%s, %s", perSecond(s.rate()), short(time.Duration(n)*s.each()))
	}
	r.compare(name, figure(all[0]), "unnest", figure(all[1]), "throughput", ratio(all[0], all[1], throughput), atLeast(0.6))
	r.compare(name, figure(all[0]), "COPY", figure(all[2]), "throughput", ratio(all[0], all[2], throughput), nil)
	return nil
}

// reservedDigest says what is in the tables, but for ids and times.
func reservedDigest(ctx context.Context, pool *pgxpool.Pool) (digest string, err error) {
	err = pool.QueryRow(ctx, `
SELECT count(*) || ' rows ' || md5(coalesce(string_agg(concat_ws('|', m.tenant_id, m.email, m.status, m.role, m.send, m.sent, m.version, m.attempts, m.params::text,
	m.next_attempt_at = m.reserved_at, m.updated_at = m.reserved_at, m.clerk_user_id, m.invitation_id, m.claimed_until, m.reason,
	h.version, h.from_status, h.to_status, h.send, h.sent, h.at = m.updated_at), ' ' ORDER BY m.email), ''))
FROM clerkinvite_member m FULL JOIN clerkinvite_history h ON h.tenant_id = m.tenant_id AND h.member_id = m.id`).Scan(&digest)
	return digest, err
}

// rawReserve writes reserved rows without the library.
type rawReserve struct {
	pool   *pgxpool.Pool
	params string
}

// unnest writes them by statements of arrays.
func (w *rawReserve) unnest(ctx context.Context, n int) error {
	for from := 0; from < n; from += reserveChunk {
		to := min(from+reserveChunk, n)
		ids, emails := make([][16]byte, 0, to-from), make([]string, 0, to-from)
		for i := from; i < to; i++ {
			id, err := uuid.NewV7()
			if err != nil {
				return err
			}
			ids, emails = append(ids, id), append(emails, person(i))
		}
		_, err := w.pool.Exec(ctx, `
WITH written AS (
	INSERT INTO clerkinvite_member
		(tenant_id, id, email, status, role, send, sent, params, version, attempts, next_attempt_at, reserved_at, updated_at)
	SELECT $1, x.id, x.email, 'reserved', $2, 1, 0, $3::json, 1, 0, $4, $4, $4
	FROM unnest($5::uuid[], $6::text[]) AS x (id, email)
	ON CONFLICT DO NOTHING
	RETURNING tenant_id, id, version, status, send, sent, updated_at
)
INSERT INTO clerkinvite_history (tenant_id, member_id, version, to_status, send, sent, at)
SELECT tenant_id, id, version, status, send, sent, updated_at FROM written`,
			tenant, role, w.params, time.Now().UTC().Truncate(time.Microsecond), ids, emails)
		if err != nil {
			return err
		}
	}
	return nil
}

// copy writes them by COPY.
func (w *rawReserve) copy(ctx context.Context, n int) error {
	members, moves := make([][]any, n), make([][]any, n)
	now := time.Now().UTC().Truncate(time.Microsecond)
	for i := range n {
		id, err := uuid.NewV7()
		if err != nil {
			return err
		}
		raw := [16]byte(id)
		members[i] = []any{tenant, raw, person(i), "reserved", role, 1, 0, w.params, 1, 0, now, now, now}
		moves[i] = []any{tenant, raw, 1, "reserved", 1, 0, now}
	}
	return pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		_, err := tx.CopyFrom(ctx, pgx.Identifier{"clerkinvite_member"}, []string{"tenant_id", "id", "email", "status", "role", "send", "sent",
			"params", "version", "attempts", "next_attempt_at", "reserved_at", "updated_at"}, pgx.CopyFromRows(members))
		if err != nil {
			return err
		}
		_, err = tx.CopyFrom(ctx, pgx.Identifier{"clerkinvite_history"},
			[]string{"tenant_id", "member_id", "version", "to_status", "send", "sent", "at"}, pgx.CopyFromRows(moves))
		return err
	})
}
