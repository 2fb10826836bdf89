-- Counts what waits, up to 10,000 of each.
--
-- $1:     the time.
-- Output: one row: reserved members, due members, the earliest due time, overdue members.
-- Plan:   clerkinvite_member_due_idx and clerkinvite_member_expiring_idx in their order, up to the
--         limit, so the cost has a bound.
SELECT count(*) FILTER (WHERE d.status = 'reserved'), count(*) FILTER (WHERE d.next_attempt_at <= (SELECT $1::text::timestamptz)),
	min(d.next_attempt_at) FILTER (WHERE d.next_attempt_at <= (SELECT $1::text::timestamptz)),
	(SELECT count(*) FROM (
		SELECT FROM clerkinvite_member WHERE status = 'pending' AND expires_at <= (SELECT $1::text::timestamptz)
		ORDER BY expires_at LIMIT 10000) o)
FROM (
	SELECT status, next_attempt_at FROM clerkinvite_member WHERE sent < send AND status IN ('reserved', 'pending')
	ORDER BY next_attempt_at LIMIT 10000) d
