-- Finds members by ID, in any tenant.
--
-- $1:     a JSON object; "ids" is an array of UUIDs.
-- Output: members.
-- Plan:   one look-up per value in clerkinvite_member_id_idx; OFFSET 0 forbids any other plan.
SELECT {{member}}
FROM json_array_elements_text($1::text::json -> 'ids') AS x (member_id)
CROSS JOIN LATERAL (SELECT * FROM clerkinvite_member WHERE id = x.member_id::uuid OFFSET 0) m
