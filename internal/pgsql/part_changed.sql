-- {{changed}}: the compare-and-swap of update.sql and erase.sql, with the history. It reads the rows
-- that the CTE "locked" has locked.
changed AS (
	UPDATE clerkinvite_member m
	SET email = i.email, status = i.status, clerk_user_id = i.clerk_user_id, invitation_id = i.invitation_id, send = i.send, sent = i.sent, bulk = i.bulk,
		url = i.url, role = i.role, invited_by = i.invited_by, changed_by = i.changed_by, data = i.data::jsonb, params = i.params::json,
		version = i.old_version + 1, attempts = i.attempts, claimed_until = i.claimed_until,
		next_attempt_at = i.next_attempt_at, reason = i.reason, reserved_at = i.reserved_at, invited_at = i.invited_at,
		expires_at = i.expires_at, settled_at = i.settled_at, updated_at = i.updated_at
	FROM locked i
	WHERE m.tenant_id = i.tenant_id AND m.id = i.id AND m.version = i.old_version AND NOT i.erase
	RETURNING m.*, i.n, i.old_status, i.recorded
), history AS (
	INSERT INTO clerkinvite_history
		(tenant_id, member_id, version, from_status, to_status, send, sent, clerk_user_id, invitation_id, role, reason, actor, at)
	SELECT tenant_id, id, version, old_status, status, send, sent, clerk_user_id, invitation_id, role, reason, changed_by, updated_at
	FROM changed WHERE recorded
)
