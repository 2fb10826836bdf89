-- {{member}}: the columns of a member m, in the order in which scanMember reads them. Types for
-- which a host may have registered its own codec are returned as text.
m.tenant_id, m.id::text, m.email, m.status, coalesce(m.clerk_user_id, ''), coalesce(m.invitation_id, ''),
	m.send, m.sent, m.bulk, coalesce(m.url, ''), coalesce(m.role, ''), coalesce(m.invited_by, ''), coalesce(m.changed_by, ''), m.data::text, m.params::text,
	m.version, m.attempts, m.claimed_until, m.next_attempt_at, coalesce(m.reason, ''),
	m.reserved_at, m.invited_at, m.expires_at, m.settled_at, m.updated_at
