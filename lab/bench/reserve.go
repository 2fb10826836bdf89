package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// benchReserve compares ReserveMany with INSERT … SELECT FROM unnest, which writes the
// same rows and the same history with as many statements.
func benchReserve(ctx context.Context, s size, pool *pgxpool.Pool, out io.Writer) error {
	svc, err := clerkinvite.New(clerkinvite.Config{Store: clerkinvite.NewPgxStore(pool, nil), API: clerkinvitetest.NewClerk()})
	if err != nil {
		return err
	}
	// The parameters for Clerk are in the row; the plain SQL writes the same.
	first, err := svc.Reserve(ctx, clerkinvite.InviteParams{TenantID: tenant, Email: "first@example.com", Role: role})
	if err != nil {
		return err
	}
	want := ""
	variant := func(name string, reserve func(ctx context.Context) error) variant {
		return variant{name, func(ctx context.Context) (float64, error) {
			if _, err := pool.Exec(ctx, "TRUNCATE clerkinvite_history, clerkinvite_member"); err != nil {
				return 0, err
			}
			start := time.Now()
			if err := reserve(ctx); err != nil {
				return 0, err
			}
			rate := float64(s.reserve) / time.Since(start).Seconds()
			got, err := reservedDigest(ctx, pool)
			if want == "" {
				want = got
			}
			if err == nil && got != want {
				err = fmt.Errorf("it left %s, and ReserveMany %s", got, want)
			}
			return rate, err
		}}
	}
	return compare(ctx, out, fmt.Sprintf("ReserveMany of %d", s.reserve), s.rounds,
		variant("ReserveMany", func(ctx context.Context) error {
			ps := make([]clerkinvite.InviteParams, s.reserve)
			for i := range ps {
				ps[i] = clerkinvite.InviteParams{TenantID: tenant, Email: person(i), Role: role}
			}
			results, err := svc.ReserveMany(ctx, ps)
			for _, result := range results {
				err = errors.Join(err, result.Err)
			}
			return err
		}),
		variant("unnest", func(ctx context.Context) error { return unnest(ctx, pool, s.reserve, string(first.Params)) }))
}

// reservedDigest sums up the tables, except for IDs and times.
func reservedDigest(ctx context.Context, pool *pgxpool.Pool) (digest string, err error) {
	err = pool.QueryRow(ctx, `
SELECT count(*) || ' rows ' || md5(coalesce(string_agg(concat_ws('|', m.tenant_id, m.email, m.status, m.role, m.send, m.sent, m.bulk, m.version, m.attempts, m.params::text,
	m.next_attempt_at = m.reserved_at, m.updated_at = m.reserved_at, m.clerk_user_id, m.invitation_id, m.claimed_until, m.reason,
	h.version, h.from_status, h.to_status, h.send, h.sent, h.at = m.updated_at), ' ' ORDER BY m.email), ''))
FROM clerkinvite_member m FULL JOIN clerkinvite_history h ON h.tenant_id = m.tenant_id AND h.member_id = m.id`).Scan(&digest)
	return digest, err
}

// unnest reserves n people without the library.
func unnest(ctx context.Context, pool *pgxpool.Pool, n int, params string) error {
	const chunk = 1000 // rows per statement, as the library
	for from := 0; from < n; from += chunk {
		var ids [][16]byte
		var emails []string
		for i := from; i < min(from+chunk, n); i++ {
			id, err := uuid.NewV7()
			if err != nil {
				return err
			}
			ids, emails = append(ids, id), append(emails, person(i))
		}
		_, err := pool.Exec(ctx, `
WITH written AS (
	INSERT INTO clerkinvite_member
		(tenant_id, id, email, status, role, send, sent, bulk, params, version, attempts, next_attempt_at, reserved_at, updated_at)
	SELECT $1, x.id, x.email, 'reserved', $2, 1, 0, true, $3::json, 1, 0, $4, $4, $4
	FROM unnest($5::uuid[], $6::text[]) AS x (id, email)
	ON CONFLICT DO NOTHING
	RETURNING tenant_id, id, version, status, send, sent, updated_at
)
INSERT INTO clerkinvite_history (tenant_id, member_id, version, to_status, send, sent, at)
SELECT tenant_id, id, version, status, send, sent, updated_at FROM written`,
			tenant, role, params, time.Now().UTC().Truncate(time.Microsecond), ids, emails)
		if err != nil {
			return err
		}
	}
	return nil
}
