-- Counts the members of a tenant in each state.
--
-- $1:     the tenant.
-- Output: state, number of members; no row for a state without members.
-- Plan:   clerkinvite_member_status_idx, all entries of the tenant; only the index, except for rows that
--         no vacuum has seen yet. OFFSET 0 forbids any other plan.
--
-- The tenant is compared by inequalities: with an equality the planner could expect so many rows that
-- it would read the whole table instead.
SELECT status, count(*)
FROM (
	SELECT status FROM clerkinvite_member
	WHERE tenant_id >= (SELECT $1::text) AND tenant_id <= (SELECT $1::text) AND status IS NOT NULL
	ORDER BY tenant_id, status OFFSET 0) m
GROUP BY status
