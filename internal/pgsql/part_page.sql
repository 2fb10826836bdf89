-- {{page}}: the one row x of $1, the query for a page. A filter that is not used is NULL.
json_to_record($1::text::json) AS x (tenant_id text, statuses text[], prefix text, prefix_end text, invited_by text,
	expires_before timestamptz, after_tenant_id text, after_id uuid, n integer)
