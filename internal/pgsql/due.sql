-- Finds the members that are due, the earliest first.
--
-- $1:     a JSON object: "due" is a time, "limit" the maximum number of members.
-- Output: members.
-- Plan:   clerkinvite_member_due_idx in its order, up to the limit.
SELECT {{member}}
FROM (
	SELECT * FROM clerkinvite_member
	WHERE sent < send AND status IN ('reserved', 'pending') AND next_attempt_at <= (SELECT ($1::text::json ->> 'due')::timestamptz)
	ORDER BY next_attempt_at LIMIT 1001) m
ORDER BY m.next_attempt_at
LIMIT (SELECT ($1::text::json ->> 'limit')::integer)
