-- Finds the erasures whose member does not exist.
--
-- $1:     a JSON array of changes.
-- Output: the place in the batch (n) of each.
-- Plan:   one look-up per row in clerkinvite_member_pkey (or clerkinvite_member_id_idx); OFFSET 0
--         forbids any other plan.
{{input}}
SELECT i.n
FROM input i
WHERE i.erase AND NOT EXISTS (SELECT FROM clerkinvite_member m WHERE m.tenant_id = i.tenant_id AND m.id = i.id OFFSET 0)
