-- A page of the members of a tenant in some states.
--
-- $1:     a JSON object, see part_page.sql; "statuses" has no duplicates.
-- Output: members in the order of id; {{direction}} is ASC or DESC.
-- Plan:   clerkinvite_member_status_idx in its order, once per state and until the page is full; then
--         the page is cut from these. See page_all.sql.
--
-- The state is compared by inequalities: with an equality the planner would know that it does not
-- matter for the order, and might choose the index without it.
SELECT {{member}}
FROM {{page}}
CROSS JOIN unnest(x.statuses) AS s (status)
CROSS JOIN LATERAL (
	SELECT * FROM (
		SELECT * FROM clerkinvite_member m
		WHERE m.tenant_id = x.tenant_id AND (m.status, m.id) {{after}} (s.status, x.after_id) AND m.status {{up to}} s.status
			AND coalesce((x.invited_by IS NULL OR m.invited_by = x.invited_by) AND (x.expires_before IS NULL OR m.expires_at < x.expires_before), false)
		ORDER BY m.tenant_id {{direction}}, m.status {{direction}}, m.id {{direction}} LIMIT 1001) m
	LIMIT x.n) m
ORDER BY m.tenant_id {{direction}}, m.id {{direction}} LIMIT (SELECT ($1::text::json ->> 'n')::integer)
