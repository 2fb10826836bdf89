-- Finds waiting members by address, in any tenant.
--
-- $1:     a JSON object; "emails" is an array of addresses.
-- Output: members.
-- Plan:   one look-up per value in clerkinvite_member_waiting_idx; OFFSET 0 forbids any other plan.
SELECT {{member}}
FROM json_array_elements_text($1::text::json -> 'emails') AS x (address)
CROSS JOIN LATERAL (
	SELECT * FROM clerkinvite_member WHERE email = x.address AND status IN ('reserved', 'pending', 'expired') OFFSET 0) m
