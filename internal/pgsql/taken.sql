-- Finds the members that have the Clerk user, or the invitation, of another row of their tenant.
--
-- $1:     a JSON array of rows.
-- Output: members.
-- Plan:   one look-up per row in clerkinvite_member_user_key; OFFSET 0 forbids any other plan.
{{input}}
SELECT {{member}}
FROM input i
CROSS JOIN LATERAL (
	SELECT * FROM clerkinvite_member WHERE tenant_id = i.tenant_id AND clerk_user_id = i.clerk_user_id AND id <> i.id OFFSET 0
) m
