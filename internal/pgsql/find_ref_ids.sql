-- Finds members by tenant and ID.
--
-- $1:     a JSON object; "ref_ids" is an array of {"tenant_id", "value"}, the ID.
-- Output: members.
-- Plan:   one look-up per value in clerkinvite_member_pkey (or clerkinvite_member_id_idx); OFFSET 0
--         forbids any other plan.
SELECT {{member}}
FROM json_to_recordset($1::text::json -> 'ref_ids') AS x (tenant_id text, value uuid)
CROSS JOIN LATERAL (SELECT * FROM clerkinvite_member WHERE tenant_id = x.tenant_id AND id = x.value OFFSET 0) m
