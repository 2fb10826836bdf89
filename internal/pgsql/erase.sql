-- update.sql for batches in which some members are erased. Their history is deleted by its foreign key.
--
-- $1:     a JSON array of changes; those with "erase" delete the row.
-- Output: the place in the batch (n) and the member: as changed, or as it was before it was erased.
-- Plan:   as update.sql.
--
-- Rows are locked FOR UPDATE from the beginning, because strengthening a lock later can deadlock.
{{input}}, locked AS (
	SELECT i.*
	FROM input i
	JOIN clerkinvite_member m ON m.tenant_id = i.tenant_id AND m.id = i.id AND m.version = i.old_version
	ORDER BY m.tenant_id, m.id
	FOR UPDATE OF m
), {{changed}}, erased AS (
	DELETE FROM clerkinvite_member m
	USING locked i
	WHERE m.tenant_id = i.tenant_id AND m.id = i.id AND m.version = i.old_version AND i.erase
	RETURNING m.*, i.n
)
SELECT m.n, {{member}} FROM changed m
UNION ALL
SELECT m.n, {{member}} FROM erased m
