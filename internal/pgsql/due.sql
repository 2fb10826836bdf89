-- Finds due members: one of each tenant, then a second of each, and so on. Those without bulk come
-- first. It only finds them: update.sql claims them (insert.sql a new row).
--
-- $1:     a JSON object: "at" is the time, "after" the tenant after which to begin, "n" the maximum
--         number of members.
-- Output: members in their order.
-- Plan:   if no more than n members are due, clerkinvite_member_due_idx finds them all (earliest).
--         Otherwise clerkinvite_member_turns_idx finds the tenants, one look-up for each, until a
--         range of tenants has n that are due (tenant), and then the members, one look-up for each,
--         until there are n (turn). So the cost depends on n, and not on how many members or
--         tenants are due.
--
-- tenant searches four ranges: those after and those up to x.after, without and with bulk. A tenant
-- whose members are all due later costs a look-up too. A range ends after 10,000 tenants; if that
-- leaves places, the earliest members get them.
WITH RECURSIVE x AS MATERIALIZED (
	SELECT at, after COLLATE "C" AS after, n FROM json_to_record($1::text::json) AS x (at timestamptz, after text, n integer)
), earliest AS MATERIALIZED (
	SELECT * FROM (
		SELECT bulk, tenant_id, next_attempt_at, id FROM clerkinvite_member
		WHERE sent < send AND status IN ('reserved', 'pending') AND next_attempt_at <= (SELECT at FROM x)
		ORDER BY next_attempt_at LIMIT 1001) m
	LIMIT (SELECT n + 1 FROM x)
), tenant AS (
	SELECT l.bulk, l.tenant_id COLLATE "C" AS tenant_id, l.last, NULL::timestamptz AS next_attempt_at, NULL::uuid AS id, 0 AS found, 0 AS steps
	FROM x, LATERAL (VALUES (false, x.after, NULL), (false, '', x.after), (true, x.after, NULL), (true, '', x.after)) AS l (bulk, tenant_id, last)
	WHERE (SELECT count(*) FROM earliest) > x.n
	UNION ALL
	SELECT t.bulk, m.tenant_id, t.last, m.next_attempt_at, m.id, t.found + (m.next_attempt_at <= x.at)::integer, t.steps + 1
	FROM tenant t, x, LATERAL (
		SELECT m.tenant_id, m.next_attempt_at, m.id FROM clerkinvite_member m
		WHERE m.sent < m.send AND m.status IN ('reserved', 'pending') AND m.bulk = t.bulk AND m.tenant_id > t.tenant_id
		ORDER BY m.bulk, m.tenant_id, m.next_attempt_at, m.id LIMIT 1) m
	WHERE t.found < x.n AND t.steps - t.found < 10000 AND (t.last IS NULL OR m.tenant_id <= t.last)
), turn AS (
	SELECT bulk, tenant_id, next_attempt_at, id, count(*) OVER (PARTITION BY bulk) AS found
	FROM tenant WHERE next_attempt_at <= (SELECT at FROM x)
	UNION ALL
	SELECT t.bulk, t.tenant_id, m.next_attempt_at, m.id, t.found + count(*) OVER (PARTITION BY t.bulk)
	FROM turn t, x, LATERAL (
		SELECT m.tenant_id, m.next_attempt_at, m.id FROM clerkinvite_member m
		WHERE m.sent < m.send AND m.status IN ('reserved', 'pending') AND m.bulk = t.bulk
			AND (m.tenant_id, m.next_attempt_at, m.id) > (t.tenant_id, t.next_attempt_at, t.id)
		ORDER BY m.bulk, m.tenant_id, m.next_attempt_at, m.id LIMIT 1) m
	WHERE t.found < x.n AND m.tenant_id = t.tenant_id AND m.next_attempt_at <= x.at
), chosen AS (
	SELECT c.*, row_number() OVER (PARTITION BY c.bulk, c.tenant_id ORDER BY c.next_attempt_at, c.id) AS turn, c.tenant_id <= x.after AS wrapped
	FROM (SELECT * FROM earliest UNION SELECT bulk, tenant_id, next_attempt_at, id FROM turn) c, x
	ORDER BY c.bulk, turn, wrapped, c.tenant_id LIMIT (SELECT n FROM x)
)
SELECT {{member}}
FROM chosen c, LATERAL (SELECT * FROM clerkinvite_member m WHERE m.tenant_id = c.tenant_id AND m.id = c.id LIMIT 1) m
ORDER BY c.bulk, c.turn, c.wrapped, c.tenant_id
