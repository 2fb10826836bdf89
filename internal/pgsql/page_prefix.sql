-- A page of the members of a tenant whose address begins with a prefix.
--
-- $1:     a JSON object, see part_page.sql.
-- Output: members in the order of id; {{direction}} is ASC or DESC.
-- Plan:   clerkinvite_member_email_key, all addresses of the tenant with this prefix, sorted: no index
--         has the order of the page. OFFSET 0 forbids any other plan.
SELECT {{member}}
FROM {{page}}
CROSS JOIN LATERAL (
	SELECT * FROM clerkinvite_member m
	WHERE m.tenant_id = x.tenant_id AND m.email >= x.prefix AND m.email < x.prefix_end
		AND coalesce(m.id {{after}} x.after_id AND (x.statuses IS NULL OR m.status = ANY (x.statuses))
			AND (x.invited_by IS NULL OR m.invited_by = x.invited_by)
			AND (x.expires_before IS NULL OR m.expires_at < x.expires_before), false)
	ORDER BY m.tenant_id, m.email OFFSET 0) m
ORDER BY m.tenant_id {{direction}}, m.id {{direction}} LIMIT (SELECT ($1::text::json ->> 'n')::integer)
