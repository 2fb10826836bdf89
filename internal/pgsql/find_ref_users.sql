-- Finds members by tenant and Clerk user ID, pending or not.
--
-- $1:     a JSON object; "ref_users" is an array of {"tenant_id", "value"}, the Clerk user ID.
-- Output: members.
-- Plan:   one look-up per value in clerkinvite_member_user_key; OFFSET 0 forbids any other plan.
SELECT {{member}}
FROM json_to_recordset($1::text::json -> 'ref_users') AS x (tenant_id text, value text)
CROSS JOIN LATERAL (SELECT * FROM clerkinvite_member WHERE tenant_id = x.tenant_id AND clerk_user_id = x.value OFFSET 0) m
