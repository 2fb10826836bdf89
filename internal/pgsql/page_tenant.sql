-- A page of the members of a tenant, in any state and with any address.
--
-- $1:     a JSON object, see part_page.sql.
-- Output: members in the order of id; {{direction}} is ASC or DESC.
-- Plan:   clerkinvite_member_pkey in its order, until the page is full; see page_all.sql.
--
-- The tenant is compared as part of a pair, or PostgreSQL could search clerkinvite_member_id_idx
-- for the tenant.
SELECT {{member}}
FROM {{page}}
CROSS JOIN LATERAL (
	SELECT * FROM (
		SELECT * FROM clerkinvite_member m
		WHERE (m.tenant_id, m.id) {{after}} (x.tenant_id, x.after_id) AND m.tenant_id {{up to}} x.tenant_id
			AND coalesce(x.invited_by IS NULL OR m.invited_by = x.invited_by, false)
		ORDER BY m.tenant_id {{direction}}, m.id {{direction}} LIMIT 1001) m
	LIMIT x.n) m
