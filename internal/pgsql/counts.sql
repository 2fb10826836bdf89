-- Counts the members of a tenant in each state.
--
-- $1:     the tenant.
-- Output: state, number of members; no row for a state without members.
-- Plan:   clerkinvite_member_status_idx, all entries of the tenant; only the index, for rows that a
--         vacuum has seen. OFFSET 0 forbids any other plan.
SELECT status, count(*)
FROM (
	SELECT status FROM clerkinvite_member
	WHERE tenant_id = (SELECT $1::text) AND status > ''
	ORDER BY tenant_id, status OFFSET 0) m
GROUP BY status
