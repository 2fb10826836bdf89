-- Finds the changes that an earlier update.sql has already made, after its response was lost.
--
-- $1:     a JSON array of changes.
-- Output: the place in the batch (n) and the member, for each member that is exactly what update.sql
--         would have made of it.
-- Plan:   one look-up per row in clerkinvite_member_pkey (or clerkinvite_member_id_idx).
{{input}}
SELECT i.n, {{member}}
FROM input i JOIN clerkinvite_member m ON m.tenant_id = i.tenant_id AND m.id = i.id AND m.version = i.old_version + 1
WHERE NOT i.erase AND (m.email, m.status, m.clerk_user_id, m.invitation_id, m.send, m.sent, m.bulk, m.url, m.role, m.invited_by, m.changed_by, m.data, m.params::text,
		m.attempts, m.claimed_until, m.next_attempt_at, m.reason, m.reserved_at, m.invited_at, m.expires_at, m.settled_at, m.updated_at)
	IS NOT DISTINCT FROM
	(i.email, i.status, i.clerk_user_id, i.invitation_id, i.send, i.sent, i.bulk, i.url, i.role, i.invited_by, i.changed_by, i.data::jsonb, i.params,
		i.attempts, i.claimed_until, i.next_attempt_at, i.reason, i.reserved_at, i.invited_at, i.expires_at, i.settled_at, i.updated_at)
