-- Replaces a named time if it is the old one.
--
-- $1, $2, $3: the name, the old time, the new time.
-- Output:     the new time, or the time that is stored. That can be the old time if another process
--             changed it after the statement began.
-- Plan:       a look-up in clerkinvite_limit_pkey. Both halves see the table as it was before the
--             statement, so only one of them returns a row.
WITH made AS (
	UPDATE clerkinvite_limit SET blocked_until = $3::text::timestamptz
	WHERE name = $1::text AND blocked_until = $2::text::timestamptz
	RETURNING blocked_until
)
SELECT blocked_until FROM made
UNION ALL
SELECT blocked_until FROM clerkinvite_limit WHERE name = $1::text AND NOT EXISTS (SELECT FROM made)
