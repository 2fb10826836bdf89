-- Writes new members, each with its first history entry.
--
-- $1:     a JSON array of rows.
-- Output: true and the member for each row that was written; false and the existing member for each
--         address that was committed before the statement began.
-- Plan:   the second SELECT looks each address up in clerkinvite_member_email_key, and does not run
--         if all rows were written. It sees the table as it was before the statement.
--
-- ON CONFLICT has no target, so no unique key can abort a host's transaction. Rows are written in the
-- order of (tenant_id, email), so two batches cannot deadlock.
{{input}}, written AS (
	INSERT INTO clerkinvite_member
		(tenant_id, id, email, status, clerk_user_id, invitation_id, send, sent, bulk, url, role, invited_by, changed_by, data, params, version,
		 attempts, claimed_until, next_attempt_at, reason, reserved_at, invited_at, expires_at, settled_at, updated_at)
	SELECT tenant_id, id, email, status, clerk_user_id, invitation_id, send, sent, bulk, url, role, invited_by, changed_by, data::jsonb, params::json, 1,
		attempts, claimed_until, next_attempt_at, reason, reserved_at, invited_at, expires_at, settled_at, updated_at
	FROM input
	ORDER BY tenant_id COLLATE "C", email COLLATE "C"
	ON CONFLICT DO NOTHING
	RETURNING *
), history AS (
	INSERT INTO clerkinvite_history
		(tenant_id, member_id, version, from_status, to_status, send, sent, clerk_user_id, invitation_id, role, reason, actor, at)
	SELECT tenant_id, id, version, NULL, status, send, sent, clerk_user_id, invitation_id, role, reason, changed_by, updated_at FROM written
)
SELECT true, {{member}} FROM written m
UNION ALL
SELECT false, {{member}} FROM input i JOIN clerkinvite_member m ON m.tenant_id = i.tenant_id AND m.email = i.email
WHERE (SELECT count(*) FROM written) < (SELECT count(*) FROM input)
