-- Compare-and-set of members: claims, releases, state changes, corrected roles; every write but
-- insert.sql and erase.sql.
--
-- $1:     a JSON array of changes.
-- Output: the place in the batch (n) and the changed member, for each change whose old_version is the
--         member's version.
-- Plan:   one look-up per row in clerkinvite_member_pkey (or clerkinvite_member_id_idx).
--
-- Rows are locked in the order of (tenant_id, email), so two batches cannot deadlock.
{{input}}, locked AS (
	SELECT i.*
	FROM input i
	JOIN clerkinvite_member m ON m.tenant_id = i.tenant_id AND m.id = i.id AND m.version = i.old_version
	ORDER BY m.tenant_id, m.email
	FOR NO KEY UPDATE OF m
), {{changed}}
SELECT m.n, {{member}} FROM changed m
