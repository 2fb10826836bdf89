-- Compare-and-set of members: claims, releases, state changes, other roles and addresses; every write but
-- insert.sql and erase.sql.
--
-- $1:     a JSON array of changes.
-- Output: the place in the batch (n) and the changed member, for each change whose old_version is the
--         member's version.
-- Plan:   one look-up per row in clerkinvite_member_pkey (or clerkinvite_member_id_idx).
--
-- Rows are locked in the order of (tenant_id, id), which never change, so two batches do not deadlock over rows.
-- They can over the users and addresses that they give to rows; then the store repeats the statement.
{{input}}, locked AS (
	SELECT i.*
	FROM input i
	JOIN clerkinvite_member m ON m.tenant_id = i.tenant_id AND m.id = i.id AND m.version = i.old_version
	ORDER BY m.tenant_id, m.id
	FOR NO KEY UPDATE OF m
), {{changed}}
SELECT m.n, {{member}} FROM changed m
