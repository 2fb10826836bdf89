-- Reads the history of a member, the oldest entry first.
--
-- $1, $2: tenant, ID of the member.
-- Output: history entries.
-- Plan:   clerkinvite_history_pkey in its order.
SELECT version, coalesce(from_status, ''), to_status, send, sent, coalesce(clerk_user_id, ''), coalesce(invitation_id, ''),
	coalesce(role, ''), coalesce(reason, ''), coalesce(actor, ''), at
FROM clerkinvite_history WHERE tenant_id = $1::text AND member_id = $2::text::uuid
ORDER BY version
