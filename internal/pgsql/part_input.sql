-- {{input}}: the rows of $1, a JSON array. data and params are text, because a JSON null could not
-- be distinguished from a missing value.
--
-- The WHERE is always true. It makes the planner expect one row instead of a hundred, so it uses the
-- indexes even while its statistics say that the table is small: a connection can keep a plan that
-- was made on the first day.
WITH input AS (
	SELECT * FROM json_to_recordset($1::text::json) AS x (tenant_id text, id uuid, email text, status text, clerk_user_id text,
		invitation_id text, send integer, sent integer, bulk boolean, url text, role text, invited_by text, changed_by text, data text, params text,
		attempts integer, claimed_until timestamptz, next_attempt_at timestamptz, reason text,
		reserved_at timestamptz, invited_at timestamptz, expires_at timestamptz, settled_at timestamptz, updated_at timestamptz,
		n integer, old_version bigint, old_status text, recorded boolean, erase boolean)
	WHERE tenant_id = tenant_id || ''
)
