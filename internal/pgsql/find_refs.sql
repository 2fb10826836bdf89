-- Finds members by tenant and address. The find_*.sql can be joined by UNION ALL.
--
-- $1:     a JSON object; "refs" is an array of {"tenant_id", "value"}, the address.
-- Output: members.
-- Plan:   one look-up per value in clerkinvite_member_email_key; OFFSET 0 forbids any other plan.
SELECT {{member}}
FROM json_to_recordset($1::text::json -> 'refs') AS x (tenant_id text, value text)
CROSS JOIN LATERAL (SELECT * FROM clerkinvite_member WHERE tenant_id = x.tenant_id AND email = x.value OFFSET 0) m
