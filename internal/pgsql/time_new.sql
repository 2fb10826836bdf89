-- Sets a named time that was never set.
--
-- $1, $2: the name, the new time.
-- Output: the new time, or the time that is stored; no row if it was stored after the statement began.
-- Plan:   a look-up in clerkinvite_limit_pkey. Both halves see the table as it was before the
--         statement, so only one of them returns a row.
WITH made AS (
	INSERT INTO clerkinvite_limit (name, blocked_until) VALUES ($1::text, $2::text::timestamptz)
	ON CONFLICT DO NOTHING
	RETURNING blocked_until
)
SELECT blocked_until FROM made
UNION ALL
SELECT blocked_until FROM clerkinvite_limit WHERE name = $1::text AND NOT EXISTS (SELECT FROM made)
