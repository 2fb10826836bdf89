-- A page of the members of all tenants.
--
-- $1:     a JSON object, see part_page.sql.
-- Output: members in the order of (tenant_id, id).
-- Plan:   clerkinvite_member_pkey in its order, until the page is full.
--
-- The values and the limit come from the row x, so PostgreSQL plans for unknown values, once per
-- connection. coalesce hides from it how few rows the filters may leave: it would rather read all of
-- them and sort.
SELECT {{member}}
FROM {{page}}
CROSS JOIN LATERAL (
	SELECT * FROM (
		SELECT * FROM clerkinvite_member m
		WHERE (m.tenant_id, m.id) > (x.after_tenant_id, x.after_id)
			AND coalesce((x.statuses IS NULL OR m.status = ANY (x.statuses)) AND (x.prefix IS NULL OR starts_with(m.email, x.prefix))
				AND (x.invited_by IS NULL OR m.invited_by = x.invited_by)
				AND (x.expires_before IS NULL OR m.expires_at < x.expires_before), false)
		ORDER BY m.tenant_id, m.id LIMIT 1001) m
	LIMIT x.n) m
